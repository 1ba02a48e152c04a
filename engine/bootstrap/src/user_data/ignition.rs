//! User data for Ignition: the part of its specification 3.4 that we write.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{UserDataError, cloud_init::gzip};
use crate::setup::NodeSetup;

/// Where the commands are.
const RUN: &str = "/etc/fleetwright/run.sh";

/// Files, and a unit that runs the commands at each start of the instance: they see for themselves whether it is a node already.
pub(super) fn render(setup: &NodeSetup) -> Result<String, UserDataError> {
    let write = |e: std::io::Error| UserDataError::Write(e.to_string());
    let commands = format!("set -eu\n{}\n", setup.commands.join("\n"));
    let mut files = vec![file(RUN, 0o700, "root:root", &commands).map_err(write)?];
    for one in &setup.files {
        let content = one.content.expose();
        files.push(file(&one.path, one.mode, &one.owner, content).map_err(write)?);
    }
    let unit = include_str!("bootstrap.service").replace("{{run}}", RUN);
    let config = json!({
        "ignition": {"version": "3.4.0"},
        "storage": {"files": files},
        "systemd": {"units": [{"name": "fleetwright-bootstrap.service", "enabled": true, "contents": unit}]},
    });
    Ok(config.to_string())
}

/// A file that replaces what the image has there.
fn file(path: &str, mode: u32, owner: &str, content: &str) -> std::io::Result<Value> {
    let (user, group) = owner.split_once(':').unwrap_or((owner, owner));
    let source = format!("data:;base64,{}", BASE64_STANDARD.encode(gzip(content)?));
    Ok(json!({
        "path": path,
        "mode": mode,
        "overwrite": true,
        "contents": {"compression": "gzip", "source": source},
        "user": {"name": user},
        "group": {"name": group},
    }))
}
