//! Kubernetes versions and the version-skew policy.

use std::{fmt, str::FromStr};

/// A Kubernetes version such as `v1.33.2`. Ordered as semantic versions are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(semver::Version);

/// A text that is no Kubernetes version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no Kubernetes version: write it like v1.33.2")]
pub struct ParseVersionError {
    text: String,
}

impl Version {
    /// Major number.
    pub fn major(&self) -> u64 {
        self.0.major
    }

    /// Minor number.
    pub fn minor(&self) -> u64 {
        self.0.minor
    }

    /// Patch number.
    pub fn patch(&self) -> u64 {
        self.0.patch
    }
}

impl FromStr for Version {
    type Err = ParseVersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = text.strip_prefix('v').unwrap_or(text);
        semver::Version::parse(bare)
            .map(Self)
            .map_err(|_| ParseVersionError {
                text: text.to_owned(),
            })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

/// How a kubelet's version stands to its API server's under Kubernetes' version-skew policy
/// (kubernetes.io/releases/version-skew-policy): never newer, at most three minors older.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skew {
    /// Within the policy.
    Allowed,
    /// The kubelet's minor is above the API server's.
    KubeletNewer,
    /// The kubelet is more than three minors behind.
    KubeletTooOld,
}

/// Judges the skew between an API server and a kubelet.
pub fn kubelet_skew(api_server: &Version, kubelet: &Version) -> Skew {
    if kubelet.major() != api_server.major() {
        return if kubelet.major() > api_server.major() {
            Skew::KubeletNewer
        } else {
            Skew::KubeletTooOld
        };
    }
    if kubelet.minor() > api_server.minor() {
        Skew::KubeletNewer
    } else if kubelet.minor() + 3 < api_server.minor() {
        Skew::KubeletTooOld
    } else {
        Skew::Allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_with_and_without_prefix_and_orders() {
        let v = |t: &str| t.parse::<Version>().unwrap();
        assert_eq!(v("1.33.2"), v("v1.33.2"));
        assert!(v("v1.9.0") < v("v1.10.0"));
        assert!("v1.33".parse::<Version>().is_err());
        assert_eq!(v("1.33.2").to_string(), "v1.33.2");
    }

    #[test]
    fn skew_follows_the_policy() {
        let v = |t: &str| t.parse::<Version>().unwrap();
        for (api, kubelet, want) in [
            ("v1.33.0", "v1.33.9", Skew::Allowed),
            ("v1.33.0", "v1.30.0", Skew::Allowed),
            ("v1.33.0", "v1.29.9", Skew::KubeletTooOld),
            ("v1.33.9", "v1.34.0", Skew::KubeletNewer),
        ] {
            assert_eq!(kubelet_skew(&v(api), &v(kubelet)), want, "{api} {kubelet}");
        }
    }
}
