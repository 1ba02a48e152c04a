//! The version of new machines, row by row.

use serde_json::json;

use super::effective_version;

/// (the cluster's version, what runs, what the control plane goes to) and (the pool's own version, what it has) to the version and
/// the reason.
type Row<'a> = (
    &'a str,
    (&'a str, Option<&'a str>, Option<&'a str>),
    (Option<&'a str>, Option<&'a str>),
    Option<&'a str>,
    &'a str,
);

#[test]
fn new_machines_get_this_version_and_why() {
    let rows: &[Row<'_>] = &[
        (
            "it follows",
            ("v1.33.2", Some("v1.33.2"), None),
            (None, Some("v1.33.2")),
            Some("v1.33.2"),
            "follows the cluster's version",
        ),
        (
            "the control plane has not served",
            ("v1.33.2", None, None),
            (None, None),
            None,
            "waits for the control plane to run v1.33.2",
        ),
        (
            "an upgrade is under way",
            ("v1.34.1", Some("v1.33.2"), Some("v1.34.1")),
            (None, Some("v1.33.2")),
            Some("v1.33.2"),
            "waits for the control plane to run v1.34.1 (it runs v1.33.2)",
        ),
        (
            "of a patch",
            ("v1.33.3", Some("v1.33.2"), Some("v1.33.3")),
            (None, Some("v1.33.2")),
            Some("v1.33.2"),
            "waits for the control plane to run v1.33.3 (it runs v1.33.2)",
        ),
        (
            "over several minors: it moves with the last",
            ("v1.36.0", Some("v1.33.2"), Some("v1.34.0")),
            (None, Some("v1.33.2")),
            Some("v1.33.2"),
            "waits for the control plane to take its further steps to v1.36.0",
        ),
        (
            "unless the next would leave it too far behind",
            ("v1.36.0", Some("v1.33.2"), None),
            (None, Some("v1.30.1")),
            Some("v1.33.2"),
            "follows the cluster's version",
        ),
        (
            "a new pool starts at what runs",
            ("v1.34.1", Some("v1.33.2"), Some("v1.34.1")),
            (None, None),
            Some("v1.33.2"),
            "waits for the control plane to run v1.34.1 (it runs v1.33.2)",
        ),
        (
            "so does one whose machines could not join any more",
            ("v1.34.1", Some("v1.33.2"), Some("v1.34.1")),
            (None, Some("v1.30.0")),
            Some("v1.33.2"),
            "waits for the control plane to run v1.34.1 (it runs v1.33.2)",
        ),
        (
            "a lower version reaches pools though the control plane stays",
            ("v1.32.5", Some("v1.33.2"), None),
            (None, Some("v1.33.2")),
            Some("v1.32.5"),
            "follows the cluster's version",
        ),
        (
            "its own version, an older one",
            ("v1.33.2", Some("v1.33.2"), None),
            (Some("v1.31.0"), Some("v1.33.2")),
            Some("v1.31.0"),
            "the pool's own version",
        ),
        (
            "three minors older is the oldest",
            ("v1.33.2", Some("v1.33.2"), None),
            (Some("v1.30.0"), None),
            Some("v1.30.0"),
            "the pool's own version",
        ),
        (
            "four minors older",
            ("v1.33.2", Some("v1.33.2"), None),
            (Some("v1.29.9"), Some("v1.31.0")),
            Some("v1.31.0"),
            "v1.29.9 is more than three minors below the control plane's v1.33.2: set a newer version",
        ),
        (
            "three minors older than what runs, four than what is coming",
            ("v1.34.0", Some("v1.33.2"), Some("v1.34.0")),
            (Some("v1.30.0"), None),
            None,
            "v1.30.0 is more than three minors below the control plane's v1.34.0: set a newer version",
        ),
        (
            "newer than the control plane",
            ("v1.33.2", Some("v1.33.2"), None),
            (Some("v1.34.0"), Some("v1.33.2")),
            Some("v1.33.2"),
            "waits for the control plane to run v1.34.0 (it runs v1.33.2)",
        ),
        (
            "newer patches are fine",
            ("v1.33.2", Some("v1.33.2"), None),
            (Some("v1.33.9"), None),
            Some("v1.33.9"),
            "the pool's own version",
        ),
        (
            "no version at all",
            ("v1.33.2", Some("v1.33.2"), None),
            (Some("latest"), None),
            None,
            "\"latest\" is no Kubernetes version: write it like v1.33.2",
        ),
    ];
    for (name, (spec, running, ahead), (own, has), want, why) in rows {
        let cluster = serde_json::from_value(json!({
            "metadata": {},
            "spec": {"version": spec, "controlPlane": {"machines": {"template": {"spec": {"providerConfig": {}}}}}},
            "status": {"version": running, "upgradingTo": ahead},
        }))
        .unwrap();
        let pool = serde_json::from_value(json!({
            "metadata": {},
            "spec": {"clusterName": "c", "template": {"spec": {"version": own, "providerConfig": {}}}},
            "status": {"version": has},
        }))
        .unwrap();
        let got = effective_version(&cluster, &pool);
        let version = got.version.as_ref().map(ToString::to_string);
        assert_eq!(version.as_deref(), *want, "{name}");
        assert_eq!(got.reason.to_string(), *why, "{name}");
        assert_eq!(got.is_pending(), why.starts_with("waits"), "{name}");
    }
}

#[test]
fn what_its_user_says_of_somebody_elses_control_plane_is_believed_no_more_than_the_control_plane() {
    for (runs, version, why) in [
        (None, None, "waits for the control plane to run v1.33.0"),
        (
            Some("v1.33.0"),
            Some("v1.33.0"),
            "follows the cluster's version",
        ),
        (
            Some("v1.32.7"),
            Some("v1.32.7"),
            "waits for the control plane to run v1.33.0 (it runs v1.32.7)",
        ),
        (
            Some("v1.35.1"),
            Some("v1.33.0"),
            "follows the cluster's version",
        ),
        (
            Some("v1.37.0"),
            None,
            "v1.33.0 is more than three minors below the control plane's v1.37.0: set a newer version",
        ),
    ] {
        let cluster = serde_json::from_value(json!({
            "metadata": {},
            "spec": {"version": "v1.33.0", "controlPlane": {"external": {"kubeconfigSecretRef": {"name": "s"}}}},
            "status": {"version": runs},
        }))
        .unwrap();
        let pool = serde_json::from_value(json!({
            "metadata": {},
            "spec": {"clusterName": "c", "template": {"spec": {"providerConfig": {}}}},
        }))
        .unwrap();
        let got = effective_version(&cluster, &pool);
        let got_version = got.version.map(|v| v.to_string());
        assert_eq!(got_version.as_deref(), version, "{runs:?}");
        assert_eq!(got.reason.to_string(), why, "{runs:?}");
    }
}
