//! What a CustomResourceDefinition becomes when this release meets the one that a cluster has: a pure function.
//!
//! What is stored stays readable. A version in `status.storedVersions` is never taken away, nor does it stop being served,
//! nor is the conversion that it needs; and a definition of a later release is left as it is.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt as _;
use semver::Version;

/// Annotation with the release whose definition it is.
pub(crate) const RELEASE: &str = "fleetwright.dev/release";

/// What is to be done with one definition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Upgrade {
    /// Write this.
    Write(Box<CustomResourceDefinition>),
    /// Leave it: it is of this later release, which keeps what older ones store.
    Keep(Version),
}

/// Why a definition cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// The cluster stores a version that this release does not know.
    #[error(
        "{name} is stored as {version}, which this release does not know: use the release that installed it, or a later one"
    )]
    Unknown {
        /// Name of the definition.
        name: String,
        /// The version.
        version: String,
    },
}

/// What `live` becomes by way of `ours`.
///
/// # Errors
/// [`Refused`].
pub(crate) fn upgrade(
    live: Option<&CustomResourceDefinition>,
    ours: &CustomResourceDefinition,
) -> Result<Upgrade, Refused> {
    let mut next = ours.clone();
    let Some(live) = live else {
        return Ok(Upgrade::Write(Box::new(next)));
    };
    let known = |version: &str| ours.spec.versions.iter().any(|v| v.name == version);
    if let Some(stored) = live.spec.versions.iter().find(|v| v.storage)
        && !known(&stored.name)
    {
        return Err(Refused::Unknown {
            name: ours.name_any(),
            version: stored.name.clone(),
        });
    }
    match (release(live), release(ours)) {
        (Some(theirs), Some(this)) if theirs > this => return Ok(Upgrade::Keep(theirs)),
        _ => {}
    }
    let stored = live.status.as_ref().and_then(|s| s.stored_versions.clone());
    let stored = stored.unwrap_or_default();
    for version in live
        .spec
        .versions
        .iter()
        .filter(|v| stored.contains(&v.name))
    {
        match next
            .spec
            .versions
            .iter_mut()
            .find(|v| v.name == version.name)
        {
            Some(same) => same.served |= version.served,
            None => next.spec.versions.push(version.clone()),
        }
    }
    let converts = |crd: &CustomResourceDefinition| {
        let conversion = crd.spec.conversion.as_ref();
        conversion.is_some_and(|c| c.strategy != "None")
    };
    if !converts(ours) && converts(live) {
        next.spec.conversion.clone_from(&live.spec.conversion);
    }
    // Written only over what was looked at.
    next.metadata.resource_version = live.metadata.resource_version.clone();
    Ok(Upgrade::Write(Box::new(next)))
}

fn release(crd: &CustomResourceDefinition) -> Option<Version> {
    crd.annotations().get(RELEASE)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        CustomResourceConversion, CustomResourceDefinitionSpec, CustomResourceDefinitionStatus,
        CustomResourceDefinitionVersion,
    };

    use super::*;

    /// Versions such as `v1` (served), `v1!` (served, storage), `-v1` (not served); what is stored; release; conversion.
    fn crd(
        versions: &[&str],
        stored: &[&str],
        release: Option<&str>,
        conversion: Option<&str>,
    ) -> CustomResourceDefinition {
        let version = |text: &&str| CustomResourceDefinitionVersion {
            name: text.trim_matches(['-', '!']).to_owned(),
            served: !text.starts_with('-'),
            storage: text.ends_with('!'),
            ..CustomResourceDefinitionVersion::default()
        };
        let mut crd = CustomResourceDefinition {
            spec: CustomResourceDefinitionSpec {
                versions: versions.iter().map(version).collect(),
                conversion: conversion.map(|strategy| CustomResourceConversion {
                    strategy: strategy.into(),
                    ..CustomResourceConversion::default()
                }),
                ..CustomResourceDefinitionSpec::default()
            },
            ..CustomResourceDefinition::default()
        };
        crd.metadata.name = Some("things.fleetwright.dev".into());
        if !stored.is_empty() {
            crd.metadata.resource_version = Some("7".into());
            crd.status = Some(CustomResourceDefinitionStatus {
                stored_versions: Some(stored.iter().map(ToString::to_string).collect()),
                ..CustomResourceDefinitionStatus::default()
            });
        }
        if let Some(release) = release {
            crd.annotations_mut().insert(RELEASE.into(), release.into());
        }
        crd
    }

    fn shown(crd: &CustomResourceDefinition) -> Vec<String> {
        let shown = |v: &CustomResourceDefinitionVersion| {
            let (served, storage) = (
                if v.served { "" } else { "-" },
                if v.storage { "!" } else { "" },
            );
            format!("{served}{}{storage}", v.name)
        };
        crd.spec.versions.iter().map(shown).collect()
    }

    #[test]
    fn versions_that_are_stored_stay() {
        // (what the cluster has, what is stored there, what we have, what is written)
        type Row<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a str], &'a [&'a str]);
        let rows: &[Row<'_>] = &[
            (&["a1!"], &["a1"], &["a1!"], &["a1!"]),
            // A new version comes, the old one stays.
            (&["a1!"], &["a1"], &["b1!"], &[]),
            (&["a1!"], &["a1"], &["b1!", "a1"], &["b1!", "a1"]),
            // We gave the old version up, the cluster has not.
            (
                &["b1!", "a1"],
                &["a1", "b1"],
                &["b1!", "c1"],
                &["b1!", "c1", "a1"],
            ),
            (&["b1!", "-a1"], &["a1", "b1"], &["b1!"], &["b1!", "-a1"]),
            // Nothing is stored as it any more.
            (&["b1!", "a1"], &["b1"], &["b1!"], &["b1!"]),
            // What is stored and served goes on being served.
            (
                &["b1!", "a1"],
                &["a1", "b1"],
                &["b1!", "-a1"],
                &["b1!", "a1"],
            ),
            (&["b1!", "a1"], &["b1"], &["b1!", "-a1"], &["b1!", "-a1"]),
        ];
        for (live, stored, ours, expected) in rows {
            let ours = crd(ours, &[], None, None);
            let live = crd(live, stored, None, None);
            match upgrade(Some(&live), &ours) {
                Ok(Upgrade::Write(written)) => {
                    assert_eq!(shown(&written), *expected, "{ours:?}");
                    assert_eq!(written.metadata.resource_version.as_deref(), Some("7"));
                    let storage = written.spec.versions.iter().filter(|v| v.storage);
                    assert_eq!(storage.count(), 1);
                }
                Err(refused) => {
                    assert!(expected.is_empty(), "{refused}");
                    assert_eq!(
                        refused.to_string(),
                        "things.fleetwright.dev is stored as a1, which this release does not know: use the release that installed it, or a later one"
                    );
                }
                Ok(kept) => panic!("{kept:?}"),
            }
        }
    }

    #[test]
    fn a_later_release_stays() {
        let rows = [
            (None, Some("0.2.0"), false),
            (Some("0.1.0"), Some("0.2.0"), false),
            (Some("0.2.0"), Some("0.2.0"), false),
            (Some("0.10.0"), Some("0.2.0"), true),
            (Some("0.2.0"), Some("0.2.0-rc.1"), true),
            // Nobody's idea of a release.
            (Some("newest"), Some("0.2.0"), false),
        ];
        for (theirs, this, kept) in rows {
            let live = crd(&["a1!"], &["a1"], theirs, None);
            let got = upgrade(Some(&live), &crd(&["a1!"], &[], this, None));
            assert_eq!(matches!(got, Ok(Upgrade::Keep(_))), kept, "{theirs:?}");
        }
    }

    #[test]
    fn a_conversion_stays_unless_we_bring_one() {
        let rows = [
            (Some("Webhook"), None, Some("Webhook")),
            (Some("Webhook"), Some("None"), Some("Webhook")),
            (Some("None"), None, None),
            (None, None, None),
            (None, Some("Webhook"), Some("Webhook")),
        ];
        for (theirs, this, expected) in rows {
            let live = crd(&["a1!"], &["a1"], None, theirs);
            let Ok(Upgrade::Write(written)) = upgrade(Some(&live), &crd(&["a1!"], &[], None, this))
            else {
                panic!("{theirs:?} {this:?}")
            };
            let got = written.spec.conversion.map(|c| c.strategy);
            assert_eq!(got.as_deref(), expected, "{theirs:?} {this:?}");
        }
    }

    #[test]
    fn where_there_is_none_ours_is_written() {
        let ours = crd(&["a1!"], &[], Some("0.1.0"), None);
        assert_eq!(
            upgrade(None, &ours),
            Ok(Upgrade::Write(Box::new(ours.clone())))
        );
    }
}
