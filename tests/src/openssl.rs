//! OpenSSL's program: what it makes is read by us, and what we make is checked by it.

#![allow(clippy::unwrap_used, reason = "tests alone call it")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{pki::Identity, tools::tool};

/// How others make the keys of authorities: the label of the PEM block that comes out, and OpenSSL's words.
pub const AUTHORITIES: [(&str, &[&str]); 4] = [
    (
        "RSA PRIVATE KEY",
        &["genrsa", "-traditional", "-out", KEY, "2048"],
    ),
    (
        "PRIVATE KEY",
        &["genpkey", "-algorithm", "RSA", "-out", KEY],
    ),
    (
        "EC PRIVATE KEY",
        &["ecparam", "-name", "prime256v1", "-genkey", "-out", KEY],
    ),
    (
        "EC PRIVATE KEY",
        &[
            "ecparam",
            "-name",
            "secp384r1",
            "-genkey",
            "-noout",
            "-out",
            KEY,
        ],
    ),
];
/// Stands for the file of the key.
const KEY: &str = "KEY";

/// The program, and a folder for what it reads and writes.
pub struct Openssl {
    program: PathBuf,
    /// The folder.
    pub folder: tempfile::TempDir,
}

impl Openssl {
    /// The program; `None` where it may be missing and is.
    ///
    /// # Panics
    /// When there is no room for a folder, or as [`tool`] does.
    pub fn new() -> Option<Self> {
        let program = tool("openssl")?;
        let folder = tempfile::tempdir().unwrap();
        Some(Self { program, folder })
    }

    /// A file of the folder.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Runs it; whether it was content, and what it said.
    ///
    /// # Panics
    /// When it cannot be run.
    pub fn run(&self, args: &[&str], files: &[&Path]) -> (bool, String) {
        let said = Command::new(&self.program)
            .args(args)
            .args(files)
            .output()
            .unwrap();
        let text = [said.stdout, said.stderr].concat();
        (said.status.success(), String::from_utf8(text).unwrap())
    }

    /// Whether a client's certificate is signed by the authority with this one, and strictly what it should be.
    ///
    /// # Panics
    /// When it cannot be run.
    pub fn verifies(&self, authority: &str, leaf: &str) -> bool {
        let ca = self.file("ca.crt", authority);
        let leaf = self.file("leaf.crt", leaf);
        let ca = ca.to_str().unwrap();
        let args = [
            "verify",
            "-x509_strict",
            "-purpose",
            "sslclient",
            "-CAfile",
            ca,
        ];
        self.run(&args, &[&leaf]).0
    }

    /// What a certificate says, in words.
    ///
    /// # Panics
    /// When it cannot be run.
    pub fn text(&self, certificate: &str) -> String {
        let file = self.file("shown.crt", certificate);
        let args = ["x509", "-noout", "-text", "-nameopt", "RFC2253", "-in"];
        self.run(&args, &[&file]).1
    }

    /// When a certificate expires, as RFC 3339 has it.
    ///
    /// # Panics
    /// When it says no time.
    pub fn end(&self, certificate: &str) -> String {
        let file = self.file("shown.crt", certificate);
        let args = ["x509", "-noout", "-enddate", "-dateopt", "iso_8601", "-in"];
        let (_, said) = self.run(&args, &[&file]);
        let end = said.trim().strip_prefix("notAfter=").unwrap();
        end.replace(' ', "T")
    }

    /// An authority that is valid for 30 days, with its key made in one of the ways of [`AUTHORITIES`].
    ///
    /// # Panics
    /// When it is not made.
    pub fn authority(&self, recipe: &[&str]) -> Identity {
        let folder = self.folder.path();
        let (key, certificate) = (folder.join("other.key"), folder.join("other.crt"));
        let path = key.to_str().unwrap();
        let recipe: Vec<&str> = recipe
            .iter()
            .map(|word| if *word == KEY { path } else { *word })
            .collect();
        let (made, said) = self.run(&recipe, &[]);
        assert!(made, "{said}");
        let request = [
            "req",
            "-x509",
            "-new",
            "-subj",
            "/O=Example/CN=theirs",
            "-days",
            "30",
            "-key",
            path,
            "-addext",
            "keyUsage=critical,keyCertSign,digitalSignature",
            "-out",
        ];
        let (made, said) = self.run(&request, &[&certificate]);
        assert!(made, "{said}");
        Identity {
            certificate: std::fs::read_to_string(&certificate).unwrap(),
            key: std::fs::read_to_string(&key).unwrap(),
        }
    }
}
