//! What Git may not hold, and where it may not reach. Tests carry the advisories' names.

use super::*;

fn errors(files: &[(&str, &str)], allow: Allow) -> Vec<String> {
    let loaded = run(files, allow);
    assert!(loaded.objects.is_empty(), "{:?}", loaded.objects);
    loaded.errors.iter().map(ToString::to_string).collect()
}

/// No plan can show a Secret's values to who may only read: there are none in it.
#[test]
fn cve_2026_42880_secrets_are_refused_and_not_repeated() {
    const VALUE: &str = "aHVudGVyMg";
    for (head, wanted) in [
        (
            "apiVersion: v1\nkind: Secret\n",
            "a.yaml:2:7: Secret is refused",
        ),
        (
            "apiVersion: v1\nkind: Secret\nbase: true\n",
            "a.yaml:2:7: Secret is refused",
        ),
        (
            "apiVersion: v1\nkind: Secret\nbases: [b.yaml]\n",
            "a.yaml:2:7: Secret is refused",
        ),
        (
            "apiVersion: v2\nkind: Secret\n",
            "a.yaml:2:7: unknown kind Secret",
        ),
        (
            "apiVersion: v1\nkind: secret\n",
            "a.yaml:2:7: unknown kind secret",
        ),
        ("kind: Secret\n", "a.yaml:1:1: apiVersion is missing"),
        (
            "apiVersion: v1\nkind: [Secret]\n",
            "a.yaml:2:7: kind must be a text",
        ),
    ] {
        for body in [
            format!("metadata: {{name: s}}\ndata: {{password: {VALUE}}}\n"),
            format!("metadata: {{name: s}}\nstringData: {{{VALUE}: [{VALUE}]}}\n"),
        ] {
            let found = errors(&[("a.yaml", &format!("{head}{body}"))], Allow::default());
            assert!(found[0].starts_with(wanted), "{found:?}");
            assert!(!found.concat().contains(VALUE), "{found:?}");
        }
    }
    // Nor inside of what would be read as a list.
    let list = format!(
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Secret\n  metadata: {{name: s}}\n  data: {{password: {VALUE}}}\n"
    );
    let found = errors(&[("a.yaml", &list)], Allow::default());
    assert!(
        found[0].starts_with("a.yaml:2:7: unknown kind List"),
        "{found:?}"
    );
    assert!(!found.concat().contains(VALUE), "{found:?}");
}

/// Who may push gets no more than who made the Fleet gave: no Fleet, no account, no role comes from Git, and the Fleet's
/// `allow` narrows the rest.
#[test]
fn cve_2022_24768_a_push_widens_no_rights() {
    for (version, kind) in [
        ("fleetwright.dev/v1alpha1", "Fleet"),
        ("fleetwright.dev/v1alpha1", "ProviderAccount"),
        ("fleetwright.dev/v1alpha1", "Machine"),
        ("fleetwright.dev/v1alpha1", "MachineSet"),
        ("fleetwright.dev/v1alpha1", "CommitStatus"),
        ("v1", "ServiceAccount"),
        ("v1", "Pod"),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
        ("rbac.authorization.k8s.io/v1", "RoleBinding"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
        (
            "admissionregistration.k8s.io/v1",
            "ValidatingWebhookConfiguration",
        ),
    ] {
        // An allowed kind is one of those that Git may hold at all.
        let allow = Allow {
            kinds: vec![kind.into()],
            ..Allow::default()
        };
        let text = format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x}}\n");
        let found = errors(&[("a.yaml", &text)], allow);
        let named = found.len() == 1 && found[0].starts_with("a.yaml:2:7: ");
        assert!(named && found[0].contains(kind), "{found:?}");
    }
    let narrowed = |allow: Allow| -> Vec<String> {
        let loaded = run(&[("a.yaml", CLUSTER), ("b.yaml", POOL)], allow);
        loaded.errors.iter().map(ToString::to_string).collect()
    };
    assert_eq!(narrowed(Allow::default()), Vec::<String>::new());
    let other = || vec!["other".to_owned()];
    for (allow, wanted) in [
        (
            Allow {
                namespaces: other(),
                ..Allow::default()
            },
            "does not allow namespace default",
        ),
        (
            Allow {
                kinds: vec!["Cluster".into()],
                ..Allow::default()
            },
            "does not allow kind MachineDeployment",
        ),
        (
            Allow {
                accounts: other(),
                ..Allow::default()
            },
            "does not allow ProviderAccount sim-eu",
        ),
    ] {
        let found = narrowed(allow);
        assert!(
            found.iter().any(|e| e.contains(wanted)),
            "{wanted}: {found:?}"
        );
    }
}

/// A base is a path below what is followed, and is taken as it is written: neither a URL nor escapes in it are understood.
#[test]
fn cve_2022_24348_a_base_is_a_path_and_no_url() {
    let pool = |base: &str| {
        POOL.replace(
            "kind: MachineDeployment\n",
            &format!("kind: MachineDeployment\nbases: ['{base}']\n"),
        )
    };
    // These lie where each would lead if it were understood.
    let base = "apiVersion: fleetwright.dev/v1alpha1\nkind: MachineDeployment\nbase: true\n";
    let there = ["etc/base.yaml", "base.yaml", "example.org/base.yaml"];
    for written in [
        "file:///etc/base.yaml",
        "FILE:/etc/base.yaml",
        "file:base.yaml",
        "https://example.org/base.yaml",
        "git::https://example.org/base.yaml",
        "//example.org/base.yaml",
        "/etc/base.yaml",
        "../../etc/base.yaml",
        "x/../../../base.yaml",
        "%2e%2e/base.yaml",
        "..%2fbase.yaml",
        "..\\base.yaml",
        "~/base.yaml",
        "$HOME/base.yaml",
        "../base.yaml?x",
    ] {
        let text = pool(written);
        let mut files = vec![("eu/web.yaml", text.as_str()), ("cluster.yaml", CLUSTER)];
        files.extend(there.map(|path| (path, base)));
        let loaded = run(&files, Allow::default());
        let errors: Vec<_> = loaded.errors.iter().map(ToString::to_string).collect();
        assert!(
            errors.len() == 1 && errors[0].starts_with("eu/web.yaml:3:9: "),
            "{written}: {errors:?}"
        );
    }
    let text = pool("../base.yaml");
    let files = [
        ("eu/web.yaml", text.as_str()),
        ("cluster.yaml", CLUSTER),
        ("base.yaml", base),
    ];
    assert_eq!(run(&files, Allow::default()).errors, []);
}

/// What stands in a folder's place has a folder's name: it is a mistake all the same, or what the folder held would look as if Git gave
/// it up.
#[test]
fn cve_2022_31036_what_cannot_be_read_is_told_whatever_its_name() {
    let allow = Allow::default();
    let context = LoadContext {
        provider_schema: &|_, _| None,
        allow: &allow,
    };
    for path in ["clusters", "eu/clusters", "module.d", "a.yaml"] {
        let unread = SourceFile {
            path: path.into(),
            content: Err("is not read".into()),
        };
        let loaded = load(&[unread], &context);
        let errors: Vec<_> = loaded.errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors, [format!("{path}:1:1: is not read")]);
    }
}
