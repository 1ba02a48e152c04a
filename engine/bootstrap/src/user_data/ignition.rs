//! User data for Ignition: the part of its specification 3.4 that we write.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use super::{UserDataError, cloud_init::gzip};
use crate::setup::NodeSetup;

/// Where the commands are.
const RUN: &str = "/etc/fleetwright/run.sh";

/// A configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What it is.
    pub ignition: Version,
    /// Files.
    pub storage: Storage,
    /// Units.
    pub systemd: Systemd,
}

/// The specification's version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// `3.4.0`.
    pub version: String,
}

/// Files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    /// Files.
    pub files: Vec<File>,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Absolute path.
    pub path: String,
    /// Permissions, as a number.
    pub mode: u32,
    /// Replaces what the image has there.
    pub overwrite: bool,
    /// Content.
    pub contents: Contents,
    /// Owner.
    pub user: Name,
    /// Owning group.
    pub group: Name,
}

/// Content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contents {
    /// `gzip`.
    pub compression: String,
    /// A `data:` URL.
    pub source: String,
}

/// A user or group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Name {
    /// Its name.
    pub name: String,
}

/// Units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Systemd {
    /// Units.
    pub units: Vec<Unit>,
}

/// A unit of systemd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// Started with the system.
    pub enabled: bool,
    /// Its text.
    pub contents: String,
}

/// Files, and a unit that runs the commands at each start of the instance: they see for themselves whether it is a node already.
pub(super) fn render(setup: &NodeSetup) -> Result<String, UserDataError> {
    let write = |e: std::io::Error| UserDataError::Write(e.to_string());
    let commands = format!("set -eu\n{}\n", setup.commands.join("\n"));
    let mut files = vec![file(RUN, 0o700, "root:root", &commands).map_err(write)?];
    for one in &setup.files {
        let content = one.content.expose();
        files.push(file(&one.path, one.mode, &one.owner, content).map_err(write)?);
    }
    let config = Config {
        ignition: Version {
            version: "3.4.0".to_owned(),
        },
        storage: Storage { files },
        systemd: Systemd {
            units: vec![Unit {
                name: "fleetwright-bootstrap.service".to_owned(),
                enabled: true,
                contents: include_str!("bootstrap.service").replace("{{run}}", RUN),
            }],
        },
    };
    serde_json::to_string(&config).map_err(|e| UserDataError::Write(e.to_string()))
}

fn file(path: &str, mode: u32, owner: &str, content: &str) -> std::io::Result<File> {
    let (user, group) = owner.split_once(':').unwrap_or((owner, owner));
    let name = |name: &str| Name {
        name: name.to_owned(),
    };
    Ok(File {
        path: path.to_owned(),
        mode,
        overwrite: true,
        contents: Contents {
            compression: "gzip".to_owned(),
            source: format!("data:;base64,{}", BASE64_STANDARD.encode(gzip(content)?)),
        },
        user: name(user),
        group: name(group),
    })
}
