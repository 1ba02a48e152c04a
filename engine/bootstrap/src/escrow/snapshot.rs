//! Snapshots of etcd, encrypted as they come: a database has gigabytes.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use age::stream::StreamWriter;
use sha2::{Digest, Sha256};

use super::{EscrowError, encryptor};

/// Bytes of the digest with which etcd ends a snapshot.
const DIGEST: usize = 32;

/// Encrypts a snapshot of etcd part by part, in age's binary form, and checks at its end that it is whole. What is encrypted is the file that
/// etcd's own tools restore from, its digest included.
pub struct SnapshotSealer {
    sealed: Sealed,
    writer: StreamWriter<Sealed>,
    digest: Sha256,
    /// The last bytes so far: they may be etcd's digest.
    tail: Vec<u8>,
}

/// What is encrypted and not fetched yet.
#[derive(Clone, Default)]
struct Sealed(Arc<Mutex<Vec<u8>>>);

impl Sealed {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Sealed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// Writing to memory does not fail.
fn damaged(error: io::Error) -> EscrowError {
    EscrowError::Damaged(error.to_string())
}

impl SnapshotSealer {
    /// Encrypts to `recipients` (age public keys).
    ///
    /// # Errors
    /// As of [`super::escrow`].
    pub fn new(recipients: &[String]) -> Result<Self, EscrowError> {
        let sealed = Sealed::default();
        let writer = encryptor(recipients)?.wrap_output(sealed.clone());
        Ok(Self {
            sealed,
            writer: writer.map_err(damaged)?,
            digest: Sha256::new(),
            tail: Vec::new(),
        })
    }

    /// Takes a part of the snapshot, and gives what is to be written to its file next.
    ///
    /// # Errors
    /// It cannot be encrypted.
    pub fn part(&mut self, bytes: &[u8]) -> Result<Vec<u8>, EscrowError> {
        self.writer.write_all(bytes).map_err(damaged)?;
        self.tail.extend_from_slice(bytes);
        let known = self.tail.len().saturating_sub(DIGEST);
        self.digest.update(&self.tail[..known]);
        self.tail.drain(..known);
        Ok(self.sealed.take())
    }

    /// Gives the end of the file, where all of the snapshot has come.
    ///
    /// # Errors
    /// [`EscrowError::Digest`]: the file is worth nothing.
    pub fn finish(self) -> Result<Vec<u8>, EscrowError> {
        if self.digest.finalize()[..] != self.tail[..] {
            return Err(EscrowError::Digest);
        }
        self.writer.finish().map_err(damaged)?;
        Ok(self.sealed.take())
    }
}
