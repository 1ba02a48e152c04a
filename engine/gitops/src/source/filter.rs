//! Which files below the followed folder count: `spec.source.include` and `exclude`.

use std::sync::Arc;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::SourceError;

/// Which files count. The default takes all; clones share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter(Arc<Sets>);

#[derive(Debug, Default)]
struct Sets {
    /// None: all.
    include: Option<GlobSet>,
    exclude: GlobSet,
    /// As they are written.
    globs: [Vec<String>; 2],
}

impl PartialEq for Sets {
    fn eq(&self, other: &Self) -> bool {
        self.globs == other.globs
    }
}

impl Eq for Sets {}

impl Filter {
    /// Of globs like those of gitignore, relative to the followed folder: one without a slash fits names in any folder, one that fits a folder
    /// fits all below it, and one that ends in a slash fits folders alone. A file that both fit is excluded; an empty `include`
    /// includes all.
    ///
    /// # Errors
    /// [`SourceError::BadGlob`] with the first one that is none.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, SourceError> {
        Ok(Self(Arc::new(Sets {
            include: match include {
                [] => None,
                globs => Some(set("include", globs)?),
            },
            exclude: set("exclude", exclude)?,
            globs: [include.to_vec(), exclude.to_vec()],
        })))
    }

    /// Whether the file at `path` counts.
    #[must_use]
    pub fn takes(&self, path: &str) -> bool {
        let include = self.0.include.as_ref();
        include.is_none_or(|set| set.is_match(path)) && !self.0.exclude.is_match(path)
    }
}

fn set(field: &str, globs: &[String]) -> Result<GlobSet, SourceError> {
    let bad = |glob: &str, why: &dyn std::fmt::Display| {
        SourceError::BadGlob(format!("{field} has {glob:?}: {why}"))
    };
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        if glob.starts_with('!') {
            return Err(bad(
                glob,
                &"a glob cannot be turned round here: say it in the other list",
            ));
        }
        let folder = glob.ends_with('/');
        let core = glob.trim_end_matches('/');
        if core.split('/').any(|part| part == ".." || part == ".") || core.is_empty() {
            return Err(bad(glob, &"write a path inside the followed folder"));
        }
        let anchored = match core.strip_prefix('/') {
            Some(rest) => rest.to_owned(),
            None if core.contains('/') => core.to_owned(),
            None => format!("**/{core}"),
        };
        let mut forms = vec![format!("{anchored}/**")];
        if !folder {
            forms.push(anchored);
        }
        for form in forms {
            let built = GlobBuilder::new(&form).literal_separator(true).build();
            set.add(built.map_err(|e| bad(glob, e.kind()))?);
        }
    }
    set.build().map_err(|e| bad("what is too large", &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        let rows: [(&[&str], &str, bool); 21] = [
            (&["*.yaml"], "a.yaml", true),
            (&["*.yaml"], "b/c/a.yaml", true),
            (&["*.yaml"], "a.json", false),
            (&["/*.yaml"], "a.yaml", true),
            (&["/*.yaml"], "b/a.yaml", false),
            (&["b/*.yaml"], "b/a.yaml", true),
            (&["b/*.yaml"], "c/b/a.yaml", false),
            (&["b/*.yaml"], "b/c/a.yaml", false),
            (&["b/**/*.yaml"], "b/c/a.yaml", true),
            (&["**/b/*.yaml"], "c/b/a.yaml", true),
            (&["staging"], "staging/a.yaml", true),
            (&["staging"], "eu/staging/deep/a.yaml", true),
            (&["staging"], "staging.yaml", false),
            (&["/staging"], "eu/staging/a.yaml", false),
            (&["staging/"], "staging/a.yaml", true),
            (&["a.yaml/"], "a.yaml", false),
            (&["eu-[0-9].yaml"], "eu-7.yaml", true),
            (&["{a,b}.yaml"], "b.yaml", true),
            (&["?.yaml"], "ab.yaml", false),
            (&["x", "*.json"], "a.json", true),
            (&[], "a.yaml", false),
        ];
        for (globs, path, fits) in rows {
            let globs: Vec<String> = globs.iter().map(ToString::to_string).collect();
            let filter = Filter::new(&[], &globs).unwrap();
            assert_eq!(!filter.takes(path), fits, "exclude {globs:?} {path}");
            if !globs.is_empty() {
                let filter = Filter::new(&globs, &[]).unwrap();
                assert_eq!(filter.takes(path), fits, "include {globs:?} {path}");
            }
        }
        let of = |text: &str| vec![text.to_owned()];
        let both = Filter::new(&of("eu"), &of("eu/b.yaml")).unwrap();
        assert!(both.takes("eu/a.yaml"));
        assert!(!both.takes("eu/b.yaml"), "exclude wins");
        for bad in ["", "/", "!a", "../a", "a/./b", "a[", "{a"] {
            let error = Filter::new(&[], &of(bad)).unwrap_err();
            assert!(error.is_lasting());
            assert!(error.to_string().contains("spec.source.exclude"), "{error}");
        }
    }
}
