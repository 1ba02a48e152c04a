//! Where the keys of clusters are kept beside the state: a folder of files that only their recipients can read.

use std::{io, path::PathBuf};

use fleetwright_api::secret::SecretText;
use fleetwright_bootstrap::{
    escrow::{EscrowError, escrow, unseal},
    pki::ClusterPki,
};
use fleetwright_providers::ClusterRef;
use jiff::Timestamp;
use tokio::io::AsyncWriteExt;

/// A place for the keys of new clusters, and whom they are encrypted to. Files are added and never replaced or removed: a cluster that is
/// made anew under a name has other keys than the one before it.
#[derive(Clone, Debug)]
pub struct Escrow {
    /// The folder. It is to be somewhere else than the state: on another disk, or synchronised to another place.
    pub folder: PathBuf,
    /// age public keys of those who can read them.
    pub recipients: Vec<String>,
    /// The secret key of one of them, where lost state is to be made again without anybody's help.
    pub identity: Option<SecretText>,
}

/// Why nothing was put there, or taken from there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The folder or a file.
    #[error("escrow folder {folder}: {source}")]
    Io {
        /// The folder.
        folder: String,
        /// What happened.
        source: io::Error,
    },
    /// The content.
    #[error(transparent)]
    Escrow(#[from] EscrowError),
    /// The file is of another cluster.
    #[error("the escrow {file} is of cluster {cluster}: put it back under the name that it had")]
    Other {
        /// The file.
        file: String,
        /// Whose it is.
        cluster: String,
    },
    /// It is there, and nobody here can read it.
    #[error(
        "the keys are in escrow ({file}): start with --escrow-identity, or apply what `age --decrypt` makes of the file"
    )]
    NoIdentity {
        /// The file.
        file: String,
    },
}

impl Escrow {
    fn failed(&self, source: io::Error) -> Error {
        Error::Io {
            folder: self.folder.display().to_string(),
            source,
        }
    }

    fn prefix(cluster: &ClusterRef) -> String {
        format!("{}.{}.{}.", cluster.namespace, cluster.name, cluster.key)
    }

    /// The newest file of a cluster, if it has one.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(crate) async fn newest(&self, cluster: &ClusterRef) -> Result<Option<PathBuf>, Error> {
        let prefix = Self::prefix(cluster);
        let mut newest: Option<(u64, PathBuf)> = None;
        let mut folder = match tokio::fs::read_dir(&self.folder).await {
            Ok(folder) => folder,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(self.failed(e)),
        };
        while let Some(entry) = folder.next_entry().await.map_err(|e| self.failed(e))? {
            let name = entry.file_name();
            let seconds = name
                .to_str()
                .and_then(|name| name.strip_prefix(&prefix)?.strip_suffix(".age"))
                .and_then(|seconds| seconds.parse().ok());
            if let Some(seconds) = seconds
                && newest.as_ref().is_none_or(|(known, _)| *known < seconds)
            {
                newest = Some((seconds, entry.path()));
            }
        }
        Ok(newest.map(|(_, path)| path))
    }

    /// Puts a cluster's keys there. They are there for good when this returns.
    ///
    /// # Errors
    /// They are not: they are not to be used.
    pub(crate) async fn put(
        &self,
        cluster: &ClusterRef,
        pki: &ClusterPki,
        now: Timestamp,
    ) -> Result<(), Error> {
        let sealed = escrow(&cluster.namespace, &cluster.name, pki, &self.recipients)?;
        let name = format!("{}{}.age", Self::prefix(cluster), now.as_second());
        let (path, part) = (
            self.folder.join(&name),
            self.folder.join(format!("{name}.part")),
        );
        let write = async {
            tokio::fs::create_dir_all(&self.folder).await?;
            let mut options = tokio::fs::OpenOptions::new();
            let mut file = options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&part)
                .await?;
            file.write_all(&sealed).await?;
            file.sync_all().await?;
            tokio::fs::rename(&part, &path).await?;
            tokio::fs::File::open(&self.folder).await?.sync_all().await
        };
        write.await.map_err(|e| self.failed(e))
    }

    /// Takes a cluster's keys from there; `None` where they are not there.
    ///
    /// # Errors
    /// They are there and cannot be read.
    pub(crate) async fn take(&self, cluster: &ClusterRef) -> Result<Option<ClusterPki>, Error> {
        let Some(path) = self.newest(cluster).await? else {
            return Ok(None);
        };
        let file = path.display().to_string();
        let Some(identity) = &self.identity else {
            return Err(Error::NoIdentity { file });
        };
        let sealed = tokio::fs::read(&path).await.map_err(|e| self.failed(e))?;
        let found = unseal(&sealed, identity)?;
        if (&found.namespace, &found.cluster) != (&cluster.namespace, &cluster.name) {
            let cluster = format!("{}/{}", found.namespace, found.cluster);
            return Err(Error::Other { file, cluster });
        }
        Ok(Some(found.pki))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

    fn cluster(name: &str) -> ClusterRef {
        ClusterRef {
            namespace: "default".into(),
            name: name.into(),
            key: "k".into(),
            ..ClusterRef::default()
        }
    }

    #[tokio::test]
    async fn nothing_is_replaced_and_the_newest_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let escrow = Escrow {
            folder: dir.path().join("new"),
            recipients: vec![RECIPIENT.into()],
            identity: None,
        };
        let at = |s| Timestamp::from_second(s).unwrap();
        let pki = ClusterPki::generate(at(0)).unwrap();
        let eu = cluster("eu");
        assert!(escrow.take(&eu).await.unwrap().is_none());
        escrow.put(&eu, &pki, at(9)).await.unwrap();
        escrow.put(&eu, &pki, at(10)).await.unwrap();
        escrow.put(&cluster("us"), &pki, at(11)).await.unwrap();
        let newest = escrow.newest(&eu).await.unwrap().unwrap();
        assert!(newest.ends_with("default.eu.k.10.age"), "{newest:?}");
        let mut files: Vec<_> = std::fs::read_dir(&escrow.folder)
            .unwrap()
            .map(|f| f.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let want = [
            "default.eu.k.10.age",
            "default.eu.k.9.age",
            "default.us.k.11.age",
        ];
        assert_eq!(files, want);
        let error = escrow.take(&eu).await.unwrap_err().to_string();
        assert!(error.contains("--escrow-identity"), "{error}");
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_written_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let escrow = Escrow {
            folder: file,
            recipients: vec![RECIPIENT.into()],
            identity: None,
        };
        let pki = ClusterPki::generate(Timestamp::UNIX_EPOCH).unwrap();
        let eu = cluster("eu");
        let put = escrow.put(&eu, &pki, Timestamp::UNIX_EPOCH);
        assert!(put.await.unwrap_err().to_string().contains("escrow folder"));
    }
}
