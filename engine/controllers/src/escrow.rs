//! Where the keys of clusters and snapshots of their etcd are kept beside the state: a folder of files that only their recipients can
//! read.

use std::{
    io,
    path::{Path, PathBuf},
};

use fleetwright_api::{secret::SecretText, version::Version};
use fleetwright_bootstrap::{
    escrow::{EscrowError, SnapshotSealer, escrow, unseal},
    pki::ClusterPki,
};
use fleetwright_providers::{ClusterRef, ConnectionError, Snapshot};
use jiff::Timestamp;
use tokio::{fs::File, io::AsyncWriteExt};

/// Snapshots of a cluster that are kept.
const KEPT: usize = 3;
/// Largest snapshot: etcd itself advises against more than 8 GiB.
const MOST_BYTES: u64 = 16 << 30;

/// A snapshot: when it was taken, what ran then, and its file.
type Kept = (Timestamp, Version, PathBuf);

/// A place for the keys of new clusters, and whom they are encrypted to. Keys are added and never replaced or removed: a cluster that is
/// made anew under a name has other keys than the one before it. Of the snapshots of a cluster's etcd the newest ones stay.
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
    /// etcd.
    #[error("etcd: {0}")]
    Etcd(#[from] ConnectionError),
    /// A snapshot without end.
    #[error("the snapshot has more than {MOST_BYTES} bytes")]
    TooLarge,
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
            let mut file = self.begin(&part).await?;
            file.write_all(&sealed).await?;
            self.end(&file, &part, &path).await
        };
        write.await.map_err(|e| self.failed(e))
    }

    async fn begin(&self, part: &Path) -> io::Result<File> {
        tokio::fs::create_dir_all(&self.folder).await?;
        let mut options = tokio::fs::OpenOptions::new();
        let options = options.write(true).create(true).truncate(true);
        options.mode(0o600).open(part).await
    }

    async fn end(&self, file: &File, part: &Path, path: &Path) -> io::Result<()> {
        file.sync_all().await?;
        tokio::fs::rename(part, path).await?;
        File::open(&self.folder).await?.sync_all().await
    }

    /// The snapshots of a cluster's etcd, from the oldest: when each was taken, what ran then, and its file.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(crate) async fn snapshots(&self, cluster: &ClusterRef) -> Result<Vec<Kept>, Error> {
        let prefix = Self::of_etcd(cluster);
        let mut all = Vec::new();
        let mut folder = match tokio::fs::read_dir(&self.folder).await {
            Ok(folder) => folder,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(all),
            Err(e) => return Err(self.failed(e)),
        };
        while let Some(entry) = folder.next_entry().await.map_err(|e| self.failed(e))? {
            let name = entry.file_name();
            let read = || {
                let rest = name.to_str()?.strip_prefix(&prefix)?;
                let (seconds, version) = rest.strip_suffix(".age")?.split_once('.')?;
                let taken = Timestamp::from_second(seconds.parse().ok()?).ok()?;
                Some((taken, version.parse().ok()?, entry.path()))
            };
            all.extend(read());
        }
        all.sort_by_key(|(taken, _, _)| *taken);
        Ok(all)
    }

    fn of_etcd(cluster: &ClusterRef) -> String {
        format!("{}etcd.", Self::prefix(cluster))
    }

    /// Keeps a snapshot of a cluster's etcd, of which `version` runs, and lets old ones go. It is whole and there for good when this returns.
    ///
    /// # Errors
    /// It is not; those from before are.
    pub(crate) async fn put_snapshot(
        &self,
        cluster: &ClusterRef,
        version: &Version,
        mut snapshot: Box<dyn Snapshot>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let prefix = Self::of_etcd(cluster);
        let path = self
            .folder
            .join(format!("{prefix}{}.{version}.age", now.as_second()));
        // The same for each try: what was cut off is written over.
        let part = self.folder.join(format!("{prefix}part"));
        let mut sealer = SnapshotSealer::new(&self.recipients)?;
        let mut file = self.begin(&part).await.map_err(|e| self.failed(e))?;
        let written = async {
            let mut length = 0;
            while let Some(bytes) = snapshot.part().await? {
                length += bytes.len() as u64;
                if length > MOST_BYTES {
                    return Err(Error::TooLarge);
                }
                let sealed = sealer.part(&bytes)?;
                let wrote = file.write_all(&sealed).await;
                wrote.map_err(|e| self.failed(e))?;
            }
            let wrote = file.write_all(&sealer.finish()?).await;
            wrote.map_err(|e| self.failed(e))?;
            let ended = self.end(&file, &part, &path).await;
            ended.map_err(|e| self.failed(e))
        };
        if let Err(error) = written.await {
            tokio::fs::remove_file(&part).await.ok();
            return Err(error);
        }
        let all = self.snapshots(cluster).await?;
        for (_, _, old) in all.iter().rev().skip(KEPT) {
            // The next one tries again.
            tokio::fs::remove_file(old).await.ok();
        }
        Ok(())
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

    /// Parts, and what comes instead of more.
    struct Parts(Vec<Result<Vec<u8>, ConnectionError>>);

    #[async_trait::async_trait]
    impl Snapshot for Parts {
        async fn part(&mut self) -> Result<Option<Vec<u8>>, ConnectionError> {
            let next = (!self.0.is_empty()).then(|| self.0.remove(0));
            next.transpose()
        }
    }

    #[tokio::test]
    async fn the_newest_snapshots_stay_and_those_that_break_off_leave_nothing() {
        use sha2::Digest;
        let dir = tempfile::tempdir().unwrap();
        let escrow = Escrow {
            folder: dir.path().to_owned(),
            recipients: vec![RECIPIENT.into()],
            identity: None,
        };
        let at = |s| Timestamp::from_second(s).unwrap();
        let version: Version = "v1.33.2".parse().unwrap();
        let whole = || {
            vec![
                Ok(b"all".to_vec()),
                Ok(sha2::Sha256::digest("all").to_vec()),
            ]
        };
        let eu = cluster("eu");
        let put = async |cluster: &ClusterRef, parts, second| {
            let parts = Box::new(Parts(parts));
            escrow
                .put_snapshot(cluster, &version, parts, at(second))
                .await
        };
        for second in [8, 9, 10, 11] {
            put(&eu, whole(), second).await.unwrap();
        }
        put(&cluster("us"), whole(), 1).await.unwrap();
        let pki = ClusterPki::generate(at(0)).unwrap();
        escrow.put(&eu, &pki, at(2)).await.unwrap();
        let broken = Err(ConnectionError::Broken("gone".into()));
        let mut breaks = whole();
        breaks[1] = broken;
        for (parts, want) in [
            (breaks, "etcd: gone"),
            (whole()[..1].to_vec(), "the snapshot is not whole"),
        ] {
            let error = put(&eu, parts, 12).await.unwrap_err().to_string();
            assert!(error.starts_with(want), "{error}");
        }
        let mut files: Vec<_> = std::fs::read_dir(&escrow.folder)
            .unwrap()
            .map(|f| f.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let want = [
            "default.eu.k.2.age",
            "default.eu.k.etcd.10.v1.33.2.age",
            "default.eu.k.etcd.11.v1.33.2.age",
            "default.eu.k.etcd.9.v1.33.2.age",
            "default.us.k.etcd.1.v1.33.2.age",
        ];
        assert_eq!(files, want);
        let (taken, of, _) = escrow.snapshots(&eu).await.unwrap().pop().unwrap();
        assert_eq!((taken, of), (at(11), version.clone()));
        let newest = escrow.newest(&eu).await.unwrap().unwrap();
        assert!(newest.ends_with("default.eu.k.2.age"), "{newest:?}");
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
