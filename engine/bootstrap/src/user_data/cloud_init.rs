//! User data for cloud-init.

use std::io::Write;

use base64::{Engine, prelude::BASE64_STANDARD};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Map, Value, json};

use super::UserDataError;
use crate::{setup::NodeSetup, yaml};

/// Content from so many bytes on is compressed.
const LARGE: usize = 1024;

/// `#cloud-config` with `write_files` and `runcmd`, which cloud-init runs in this order, once in the instance's life.
pub(super) fn render(setup: &NodeSetup) -> Result<String, UserDataError> {
    let files = setup.files.iter().map(|file| {
        let content = file.content.expose();
        let mut written = Map::new();
        let mut set = |key: &str, value: String| written.insert(key.to_owned(), value.into());
        set("path", file.path.clone());
        set("owner", file.owner.clone());
        set("permissions", format!("{:04o}", file.mode));
        if content.len() < LARGE {
            set("content", content.to_owned());
        } else {
            set("encoding", "gz+b64".to_owned());
            set("content", BASE64_STANDARD.encode(gzip(content)?));
        }
        Ok(Value::Object(written))
    });
    let files = files.collect::<Result<Vec<_>, std::io::Error>>();
    let files = files.map_err(|e| UserDataError::Write(e.to_string()))?;
    let commands: Vec<_> = setup
        .commands
        .iter()
        .map(|command| json!(["/bin/sh", "-c", command]))
        .collect();
    let document = json!({"write_files": files, "runcmd": commands});
    let text = yaml::documents(&[document]).map_err(|e| UserDataError::Write(e.to_string()))?;
    Ok(format!("#cloud-config\n{text}"))
}

pub(super) fn gzip(content: &str) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content.as_bytes())?;
    encoder.finish()
}
