//! When two names mean the same repository.

use url::Url;

/// `host/owner/name` in lower case, without scheme, user, port, `.git` and a closing slash: what is the
/// same for the https, ssh and scp-like forms of one repository. `None` for what is no remote URL.
pub fn normalise(text: &str) -> Option<String> {
    let text = text.trim();
    let (host, path) = match Url::parse(text) {
        Ok(url) if url.scheme() == "file" => (String::new(), url.path().to_owned()),
        Ok(url) => (url.host_str()?.to_owned(), url.path().to_owned()),
        // git@host:owner/name
        Err(_) => {
            let (host, path) = text.split_once(':')?;
            let host = host.rsplit_once('@').map_or(host, |(_, h)| h);
            (host.to_owned(), path.to_owned())
        }
    };
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    (!path.is_empty()).then(|| format!("{host}/{path}").to_lowercase())
}

/// Whether a ref of a push (`refs/heads/main`) is one that a source on `branch` or `tag` follows.
/// A source that says neither follows the default branch.
pub fn follows(
    pushed: &str,
    branch: Option<&str>,
    tag: Option<&str>,
    default_branch: Option<&str>,
) -> bool {
    match (branch, tag) {
        (Some(branch), _) => pushed == format!("refs/heads/{branch}"),
        (None, Some(tag)) => pushed == format!("refs/tags/{tag}"),
        // Without a default branch in the payload nobody can tell: look rather than miss one.
        (None, None) => default_branch.is_none_or(|d| pushed == format!("refs/heads/{d}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_one_repository_are_equal() {
        let want = Some("github.com/acme/fleet".to_owned());
        for form in [
            "https://github.com/acme/fleet",
            "https://github.com/Acme/Fleet.git",
            "https://token@github.com/acme/fleet.git/",
            "ssh://git@github.com:22/acme/fleet.git",
            "git@github.com:acme/fleet.git",
        ] {
            assert_eq!(normalise(form), want, "{form}");
        }
        assert_eq!(
            normalise("file:///srv/git/fleet.git").as_deref(),
            Some("/srv/git/fleet")
        );
        for none in ["", "fleet", "https://github.com/"] {
            assert_eq!(normalise(none), None, "{none}");
        }
    }

    #[test]
    fn refs() {
        assert!(follows("refs/heads/main", Some("main"), None, None));
        assert!(!follows("refs/heads/mainly", Some("main"), None, None));
        assert!(follows("refs/tags/v1", None, Some("v1"), Some("main")));
        assert!(!follows("refs/heads/topic", None, None, Some("main")));
        assert!(follows("refs/heads/topic", None, None, None));
    }
}
