//! The journal: a line of JSON for each call, written at the moment of the call.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A line of the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Number of the call, from 1; given by [`Journal::append`].
    pub seq: u64,
    /// When, in RFC 3339.
    pub wall_time: String,
    /// Who asked, where it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// What was asked.
    pub verb: String,
    /// Name of the account.
    pub account: String,
    /// Id of the instance, where one is known.
    pub instance: Option<String>,
    /// The instance key, where one is known.
    pub instance_key: Option<String>,
    /// Name of the machine, where one is known.
    pub machine: Option<String>,
    /// How it ended: `ok`, or the word of the error.
    pub outcome: String,
    /// The fault that was injected.
    pub fault: Option<String>,
}

/// Who is told of each line, where no file is.
pub type Told = Box<dyn FnMut(&Entry) + Send>;

/// A journal, which only grows: on disk, or told to somebody.
pub struct Journal {
    place: Place,
    next: u64,
    /// Bytes of whole lines.
    whole: u64,
}

enum Place {
    File(File),
    Told(Told),
}

impl Journal {
    /// A journal that tells each line to `told` and keeps none.
    pub fn told(told: Told) -> Self {
        Self {
            place: Place::Told(told),
            next: 1,
            whole: 0,
        }
    }

    /// Opens the journal at `path` and goes on after its last whole line; a torn one at the end is cut off.
    ///
    /// # Errors
    /// When the file cannot be opened, read or cut, or a line before its last is none of a journal.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        let (mut whole, mut last) = (0_u64, 0_u64);
        let mut reader = BufReader::new(&mut file);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            let torn = line.last() != Some(&b'\n');
            let entry = match serde_json::from_slice::<Entry>(&line) {
                Ok(entry) if !torn => entry,
                // Only the last line can be torn.
                Ok(_) => break,
                Err(_) if reader.fill_buf()?.is_empty() => break,
                Err(e) => {
                    let message = format!("the line after number {last} is none of a journal: {e}");
                    return Err(io::Error::other(message));
                }
            };
            last = entry.seq;
            whole = whole.saturating_add(line.len() as u64);
            line.clear();
        }
        drop(reader);
        file.set_len(whole)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self {
            place: Place::File(file),
            next: last.saturating_add(1),
            whole,
        })
    }

    /// Writes a line and hands it to the operating system; gives its number.
    ///
    /// # Errors
    /// When it cannot be written; then nothing of it is in the file.
    pub fn append(&mut self, mut entry: Entry) -> io::Result<u64> {
        entry.seq = self.next;
        let file = match &mut self.place {
            Place::File(file) => file,
            Place::Told(told) => {
                told(&entry);
                self.next = self.next.saturating_add(1);
                return Ok(entry.seq);
            }
        };
        let mut line = serde_json::to_vec(&entry).map_err(io::Error::other)?;
        line.push(b'\n');
        if let Err(error) = file.write_all(&line) {
            // A full disk takes the beginning of a line: the next one would be glued to it.
            file.set_len(self.whole)?;
            return Err(error);
        }
        self.whole = self.whole.saturating_add(line.len() as u64);
        self.next = self.next.saturating_add(1);
        Ok(entry.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scribble(path: &Path, bytes: &[u8]) {
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(bytes).unwrap();
    }

    #[test]
    fn goes_on_after_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(journal.append(Entry::default()).unwrap(), 1);
        scribble(&path, b"{\"seq\":2,");
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(journal.append(Entry::default()).unwrap(), 2);
        let text = std::fs::read_to_string(&path).unwrap();
        let seqs: Vec<u64> = text
            .lines()
            .map(|l| serde_json::from_str::<Entry>(l).unwrap().seq)
            .collect();
        assert_eq!(seqs, [1, 2]);
    }

    #[test]
    fn a_last_line_of_rubbish_is_cut_and_one_in_the_middle_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let mut journal = Journal::open(&path).unwrap();
        journal.append(Entry::default()).unwrap();
        scribble(&path, b"\0\0\0\n");
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(journal.append(Entry::default()).unwrap(), 2);
        scribble(&path, b"rubbish\n");
        journal.append(Entry::default()).unwrap();
        let before = std::fs::read(&path).unwrap();
        let text = Journal::open(&path).err().unwrap().to_string();
        assert!(
            text.starts_with("the line after number 2 is none of a journal"),
            "{text}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), before, "nothing is cut");
    }
}
