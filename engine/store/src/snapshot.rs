//! All of a store at one moment: taken from memory, so that it costs writers nothing; as a stream; from and into files.

use std::path::{Path, PathBuf};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::place::{self, log_of};
use crate::{Entry, Error, Result, Revision, disk, format};

/// With what a stream begins: its name and version.
const MAGIC: &[u8; 8] = b"FWBACK\x00\x01";
/// The head of a stream: magic, revision, number of entries.
const HEAD: usize = 24;
/// What comes before the key of an entry: the lengths of key and value, and its two revisions.
const ENTRY_HEAD: usize = 24;
/// No key and no value is longer.
const LONGEST: usize = 1 << 30;
/// About how many bytes a piece of a stream has.
const PIECE: usize = 256 << 10;

/// All of a store at one revision, in the order of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The revision.
    pub revision: Revision,
    /// Everything.
    pub entries: Vec<Entry>,
}

impl Snapshot {
    /// Reads a store's file, of any known format, without changing it; a log beside it is read with it. `scratch` is a
    /// folder for a copy, with room for it.
    ///
    /// # Errors
    /// When the file is damaged, is no store, or cannot be read or copied.
    pub fn read(path: &Path, scratch: &Path) -> Result<Self> {
        format::check_head(path)?;
        let copy = scratch.join("copy.db");
        let cannot = |e: std::io::Error| Error::io("copy", path, &e);
        std::fs::copy(path, &copy).map_err(cannot)?;
        place::remove(&log_of(&copy))?;
        if log_of(path).exists() {
            std::fs::copy(log_of(path), log_of(&copy)).map_err(cannot)?;
        }
        let read = disk::connect(&copy).and_then(|connection| format::read(&connection, &copy));
        place::remove(&copy)?;
        place::remove(&log_of(&copy))?;
        // The error is about the file, not about its copy.
        let (_, contents) = read.map_err(|e| e.about(path))?;
        Ok(Self {
            revision: contents.revision,
            entries: contents.rows.into_iter().map(|row| row.entry).collect(),
        })
    }

    /// Makes this the store at `path`, which nobody has open. What is there is kept beside it: says where.
    ///
    /// # Errors
    /// When it cannot be written. The store at `path` is then as it was.
    pub fn replace(&self, path: &Path) -> Result<Option<PathBuf>> {
        place::settle(path)?;
        place::build(path, &self.entries, self.revision, &place::waiting(path))?;
        place::settle(path)
    }

    /// Finishes a [`Snapshot::replace`] of the store at `path` that was cut off. Opening the store does it too.
    ///
    /// # Errors
    /// When a file cannot be renamed.
    pub fn settle(path: &Path) -> Result<()> {
        place::settle(path).map(drop)
    }

    /// How many bytes [`Snapshot::stream`] gives.
    pub fn stream_length(&self) -> usize {
        let entries = self.entries.iter();
        HEAD + 4
            + entries
                .map(|e| ENTRY_HEAD + e.key.len() + e.value.len())
                .sum::<usize>()
    }

    /// The snapshot as bytes, in pieces: a head, the entries, and a checksum of all before it.
    pub fn stream(self) -> impl Iterator<Item = Bytes> + Send {
        let mut head = BytesMut::with_capacity(PIECE);
        head.put_slice(MAGIC);
        head.put_u64(self.revision);
        head.put_u64(self.entries.len() as u64);
        let mut entries = self.entries.into_iter();
        let mut piece = Some(head);
        let mut hasher = crc32fast::Hasher::new();
        std::iter::from_fn(move || {
            let mut out = piece.take()?;
            let ended = loop {
                let Some(entry) = entries.next() else {
                    break true;
                };
                out.put_u32(u32::try_from(entry.key.len()).unwrap_or(u32::MAX));
                out.put_u32(u32::try_from(entry.value.len()).unwrap_or(u32::MAX));
                out.put_u64(entry.created);
                out.put_u64(entry.modified);
                out.put_slice(entry.key.as_bytes());
                out.put_slice(&entry.value.bytes());
                if out.len() >= PIECE {
                    break false;
                }
            };
            hasher.update(&out);
            if ended {
                out.put_u32(hasher.clone().finalize());
            } else {
                piece = Some(BytesMut::with_capacity(PIECE));
            }
            Some(out.freeze())
        })
    }
}

/// Reads what [`Snapshot::stream`] gave, as it comes.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    hasher: crc32fast::Hasher,
    head: Option<(Revision, u64)>,
    read: u64,
}

impl Decoder {
    /// Takes more bytes of the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next entry; `None` when more bytes are needed or all were given.
    ///
    /// # Errors
    /// When this is no such stream.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        let wrong = |what: &str| Error::Stream(what.to_owned());
        if self.head.is_none() {
            if self.buffer.len() < HEAD {
                return Ok(None);
            }
            let mut head = self.take(HEAD);
            if head.split_to(MAGIC.len()) != MAGIC[..] {
                return Err(wrong("it does not begin as one of this release does"));
            }
            self.head = Some((head.get_u64(), head.get_u64()));
        }
        let count = self.head.map_or(0, |(_, count)| count);
        if self.read == count || self.buffer.len() < ENTRY_HEAD {
            return Ok(None);
        }
        let mut head = &self.buffer[..ENTRY_HEAD];
        let (key, value) = (head.get_u32() as usize, head.get_u32() as usize);
        let (created, modified) = (head.get_u64(), head.get_u64());
        if key > LONGEST || value > LONGEST {
            return Err(wrong("an entry has no sensible length"));
        }
        if self.buffer.len() < ENTRY_HEAD + key + value {
            return Ok(None);
        }
        let mut entry = self.take(ENTRY_HEAD + key + value);
        entry.advance(ENTRY_HEAD);
        let key = std::str::from_utf8(&entry.split_to(key))
            .map_err(|_| wrong("a key is not text"))?
            .into();
        self.read += 1;
        Ok(Some(Entry {
            key,
            value: entry.into(),
            created,
            modified,
        }))
    }

    /// The revision of the whole, after all of it was fed.
    ///
    /// # Errors
    /// When something is missing, or is not what was sent.
    pub fn finish(mut self) -> Result<Revision> {
        let wrong = |what: &str| Err(Error::Stream(what.to_owned()));
        let Some((revision, count)) = self.head else {
            return wrong("it ended early");
        };
        if self.read != count || self.buffer.len() < 4 {
            return wrong("it ended early");
        }
        if self.buffer.len() > 4 || self.buffer.get_u32() != self.hasher.finalize() {
            return wrong("its checksum is wrong");
        }
        Ok(revision)
    }

    fn take(&mut self, count: usize) -> Bytes {
        let taken = self.buffer.split_to(count).freeze();
        self.hasher.update(&taken);
        taken
    }
}
