//! A file of JSON lines that grows at its end: written by a thread of its own, so that nobody waits for its disk, and rotated by size.
//!
//! What finds no room in memory, because the disk stands still, and what the disk refuses is lost, and that is never silent: lost lines
//! are counted, the log says so at once, and the file itself has a line that tells how many, as soon as it takes one again.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use prometheus_client::metrics::counter::Counter;

use crate::{Error, Result};

/// Lines that wait for the disk; at about 1 KB each they take 8 MB.
const ROOM: usize = 8_192;
/// Bytes that are written at once.
const BATCH: usize = 256 << 10;
/// A file that would grow larger is put aside.
const MAX_BYTES: u64 = 64 << 20;
/// Files that were put aside and are kept: `NAME.1` is the newest.
const KEPT: u32 = 9;

/// Where lines go.
trait Sink: Send {
    /// Writes whole lines, all of them or, as far as anybody reads, none.
    fn append(&mut self, lines: &[u8]) -> io::Result<()>;
}

/// Makes the line that tells that so many are missing.
type Confession = Box<dyn Fn(u64) -> String + Send>;

#[derive(Default)]
struct Losses {
    /// Since the file last told.
    untold: AtomicU64,
    total: Counter,
}

impl Losses {
    fn add(&self, lines: u64) -> u64 {
        self.total.inc_by(lines);
        self.untold.fetch_add(lines, Ordering::Relaxed)
    }
}

/// The handle of a file of lines. Dropping it writes what waits, and ends the thread.
pub struct Journal {
    queue: Option<mpsc::SyncSender<String>>,
    thread: Option<std::thread::JoinHandle<()>>,
    losses: Arc<Losses>,
    name: String,
}

impl Journal {
    /// Goes on with the file at `path`, which is made where it is missing, readable for its owner alone. `lost` makes the line that tells
    /// how many are missing before it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn open(path: &Path, lost: impl Fn(u64) -> String + Send + 'static) -> Result<Self> {
        let name = path.display().to_string();
        let cannot = |error| Error::Io(format!("cannot write {name}"), error);
        let sink = Rotating::open(path, MAX_BYTES).map_err(cannot)?;
        Ok(Self::over(Box::new(sink), Box::new(lost), name))
    }

    fn over(sink: Box<dyn Sink>, confession: Confession, name: String) -> Self {
        let (queue, lines) = mpsc::sync_channel(ROOM);
        let losses = Arc::new(Losses::default());
        let writing = Writing {
            sink,
            confession,
            losses: Arc::clone(&losses),
            name: name.clone(),
            failing: false,
        };
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writing.run(&lines))
            .inspect_err(|error| tracing::error!(%error, file = %name, "nothing writes the file"))
            .ok();
        Self {
            queue: Some(queue),
            thread,
            losses,
            name,
        }
    }

    /// Hands over a line, without its end; never waits.
    pub fn write(&self, line: String) {
        let sent = self.queue.as_ref().map(|queue| queue.try_send(line));
        if !matches!(sent, Some(Ok(()))) && self.losses.add(1) == 0 {
            tracing::error!(file = %self.name, "the disk is too slow: lines are lost, and counted in the file when it goes on");
        }
    }

    /// How many lines were lost since it was opened.
    #[must_use]
    pub fn lost(&self) -> Counter {
        self.losses.total.clone()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported by itself.
            thread.join().ok();
        }
    }
}

struct Writing {
    sink: Box<dyn Sink>,
    confession: Confession,
    losses: Arc<Losses>,
    name: String,
    failing: bool,
}

impl Writing {
    fn run(mut self, lines: &mpsc::Receiver<String>) {
        while let Ok(first) = lines.recv() {
            let mut batch = String::new();
            let mut count = 0;
            let mut next = Some(first);
            while let Some(line) = next {
                batch.push_str(&line);
                batch.push('\n');
                count += 1;
                next = (batch.len() < BATCH)
                    .then(|| lines.try_recv().ok())
                    .flatten();
            }
            self.append(&batch, count);
        }
    }

    fn append(&mut self, batch: &str, count: u64) {
        if let Err(error) = self.sink.append(batch.as_bytes()) {
            self.losses.add(count);
            if !self.failing {
                tracing::error!(file = %self.name, %error, "lines are lost: make room, or put the file elsewhere");
            }
            self.failing = true;
            return;
        }
        let lost = self.losses.untold.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let line = (self.confession)(lost) + "\n";
            if self.sink.append(line.as_bytes()).is_err() {
                self.losses.untold.fetch_add(lost, Ordering::Relaxed);
                return;
            }
            tracing::warn!(file = %self.name, lost, "lines are written again");
        }
        self.failing = false;
    }
}

/// A file that is put aside when it is full.
struct Rotating {
    path: PathBuf,
    /// `None` after a failure: it is opened again.
    file: Option<File>,
    length: u64,
    most: u64,
}

impl Rotating {
    fn open(path: &Path, most: u64) -> io::Result<Self> {
        let mut rotating = Self {
            path: path.to_owned(),
            file: None,
            length: 0,
            most,
        };
        rotating.file()?;
        Ok(rotating)
    }

    /// The open file. What a crash cut off in its last line is a line of its own.
    fn file(&mut self) -> io::Result<&mut File> {
        if self.file.is_none() {
            let mut file = OpenOptions::new()
                .create(true)
                .read(true)
                .append(true)
                .mode(0o600)
                .open(&self.path)?;
            let about = file.metadata()?;
            if !about.is_file() {
                return Err(io::Error::other("it is no plain file"));
            }
            file.set_permissions(Permissions::from_mode(0o600))?;
            self.length = about.len();
            if self.length > 0 {
                let mut last = [0];
                file.seek(SeekFrom::End(-1))?;
                file.read_exact(&mut last)?;
                if last != *b"\n" {
                    file.write_all(b"\n")?;
                    self.length += 1;
                }
            }
            self.file = Some(file);
        }
        self.file
            .as_mut()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn aside(&self, number: u32) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        name.into()
    }

    /// Puts a full file aside; the oldest goes.
    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..KEPT).rev() {
            let (from, to) = (self.aside(number), self.aside(number + 1));
            match std::fs::rename(from, to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(&self.path, self.aside(1))?;
        self.file = None;
        Ok(())
    }
}

impl Sink for Rotating {
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let more = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        self.file()?;
        if self.length > 0 && self.length.saturating_add(more) > self.most {
            // A file that is too long is better than lines that are lost.
            if let Err(error) = self.rotate() {
                tracing::error!(file = %self.path.display(), %error, "the file is full and cannot be put aside");
            }
        }
        let file = self.file()?;
        let written = file.write_all(lines);
        match written {
            Ok(()) => self.length = self.length.saturating_add(more),
            Err(_) => {
                // Half a line would be nobody's.
                let good = self.length;
                self.file.take().map(|file| file.set_len(good));
            }
        }
        written
    }
}

#[cfg(test)]
mod tests;
