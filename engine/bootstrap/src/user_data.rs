//! User data: what an instance is given when it is made, in the format that its image reads.
//!
//! Whoever may describe an instance can read its user data, and providers bound its size. So a setup that holds secrets, or is too
//! large, goes in two steps: the payload, one shell script, is kept where the instance alone can read it, and the user data only
//! fetches and runs it.

pub mod cloud_init;
pub mod ignition;

use fleetwright_api::secret::SecretText;

use crate::{
    setup::{BOOTSTRAPPED, Content, File, NodeSetup},
    shell::quote,
};

/// A format of user data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `#cloud-config`.
    CloudInit,
    /// Ignition 3.4.
    Ignition,
}

/// User data, or what comes before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserData {
    /// Everything is in it.
    OneStep(SecretText),
    /// This is kept first; the user data is the [`stub`] with the command that fetches it.
    TwoSteps {
        /// A POSIX shell script that writes the files and runs the commands.
        payload: SecretText,
    },
}

/// Why there is no user data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserDataError {
    /// It cannot be written.
    #[error("user data cannot be written: {0}")]
    Write(String),
    /// Not even the stub fits.
    #[error(
        "user data that only fetches the rest has {size} bytes, and the provider takes {limit}"
    )]
    TooLarge {
        /// Its size.
        size: usize,
        /// The provider's limit.
        limit: usize,
    },
}

/// Decides how `setup` reaches the instance: at once where it holds no secrets (or where `sealed`: nobody reads user data who may not
/// know them) and fits `limit` bytes, otherwise in two steps.
///
/// # Errors
/// [`UserDataError::Write`].
pub fn render(
    setup: &NodeSetup,
    format: Format,
    limit: usize,
    sealed: bool,
) -> Result<UserData, UserDataError> {
    if sealed || !setup.has_secrets() {
        let whole = whole(setup, format)?;
        if whole.len() <= limit {
            return Ok(UserData::OneStep(SecretText::new(whole)));
        }
    }
    Ok(UserData::TwoSteps {
        payload: payload(setup),
    })
}

/// User data that fetches the payload by the shell command `fetch`, which prints it, and runs it. `fetch` is code: it comes from a
/// provider of ours alone.
///
/// # Errors
/// [`UserDataError`].
pub fn stub(format: Format, fetch: &str, limit: usize) -> Result<String, UserDataError> {
    let script = include_str!("user_data/fetch.sh")
        .replace("{{bootstrapped}}", &quote(BOOTSTRAPPED))
        .replace("{{end}}", &quote(END))
        .replace("{{fetch}}", fetch);
    let setup = NodeSetup {
        files: vec![File {
            path: FETCH.to_owned(),
            mode: 0o700,
            owner: "root:root".to_owned(),
            content: Content::Open(script),
        }],
        commands: vec![format!("/bin/sh {FETCH}")],
    };
    let stub = whole(&setup, format)?;
    if stub.len() > limit {
        return Err(UserDataError::TooLarge {
            size: stub.len(),
            limit,
        });
    }
    Ok(stub)
}

const FETCH: &str = "/etc/fleetwright/fetch.sh";
/// Last line of a payload: what lacks it was cut off.
const END: &str = "# fleetwright: end of payload";

fn whole(setup: &NodeSetup, format: Format) -> Result<String, UserDataError> {
    match format {
        Format::CloudInit => cloud_init::render(setup),
        Format::Ignition => ignition::render(setup),
    }
}

/// One POSIX shell script that writes all files and runs all commands.
pub fn payload(setup: &NodeSetup) -> SecretText {
    let mut script = String::from(include_str!("user_data/payload.sh"));
    for file in &setup.files {
        script.push_str(&format!(
            "put {} {:04o} {} {}\n",
            quote(&file.path),
            file.mode,
            quote(&file.owner),
            quote(file.content.expose())
        ));
    }
    for command in &setup.commands {
        script.push_str(command);
        script.push('\n');
    }
    script.push_str(END);
    script.push('\n');
    SecretText::new(script)
}

#[cfg(test)]
mod tests;
