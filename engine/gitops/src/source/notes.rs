//! What became of commits, as Git notes: `git log --notes=fleetwright` shows it, without any forge.
//!
//! A write begins from what the remote has, keeps what others wrote there, and is taken only while nobody wrote in between. A
//! repository on this machine is written in place: libgit2 pushes there without looking what it overwrites.

use std::{cell::RefCell, path::Path};

use git2::{
    Commit, ErrorCode, FileMode, ObjectType, Oid, PushOptions, Repository, Signature, Time, Tree,
    build::TreeUpdateBuilder,
};
use jiff::Timestamp;
use url::Url;

use super::{
    SourceError,
    git::{GitSource, cache, remote},
    transport::{Form, Session},
    wanted::Wanted,
};

/// Where the notes are.
const NOTES: &str = "refs/notes/fleetwright";
/// How often a write begins anew because somebody else was first.
const TRIES: usize = 8;
/// Longest note that is read, in bytes: one of ours has a line for each context.
const MAX_NOTE: usize = if cfg!(test) { 4096 } else { 1 << 20 };
/// Most folders that a note lies in: three are enough for millions of notes.
const LEVELS: usize = 3;
/// Longest part of a remote's refusal that is told, in characters.
const MAX_REFUSAL: usize = 200;

/// What a note is to say of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Full commit id.
    pub commit: String,
    /// What it says that about, such as `fleetwright/default/default.default`: a line each.
    pub context: String,
    /// The rest of the line.
    pub text: String,
}

/// What became of a try.
enum Tried {
    /// All is there.
    Written,
    /// Somebody else was first.
    Late,
    /// The remote refuses, for this reason, what was made on top of this commit.
    Refused(Option<Oid>, String),
}

impl GitSource {
    /// Writes notes; blocks. Tells of each whether it is there: one of no full commit id is not, nor one beside a text of more than
    /// [`MAX_NOTE`] bytes. Nothing is pushed where all say what they are to say.
    pub(crate) fn write_notes(
        &self,
        notes: &[Note],
        now: Timestamp,
    ) -> Result<Vec<bool>, SourceError> {
        let mut refused: Option<(Option<Oid>, String)> = None;
        for _ in 0..TRIES {
            let before = refused.take();
            let (there, tried) = match self.address.form {
                Form::File => self.try_in_place(notes, now)?,
                Form::Https | Form::Ssh { .. } => self.try_push(notes, now)?,
            };
            match tried {
                Tried::Written => return Ok(there),
                Tried::Late => {}
                // A remote refuses late pushes in words of its own. What it refuses on top of the same commit again, it does not want.
                Tried::Refused(tip, why) => match before {
                    Some((same, _)) if same == tip => return Err(SourceError::NotesRefused(why)),
                    _ => refused = Some((tip, why)),
                },
            }
        }
        Err(SourceError::NotesMoved)
    }

    fn try_push(&self, notes: &[Note], now: Timestamp) -> Result<(Vec<bool>, Tried), SourceError> {
        let wanted = Wanted::at(NOTES)?;
        self.fetched(std::slice::from_ref(&wanted), now, |repository| {
            let tip = match wanted.commit(repository) {
                Ok(tip) => Some(tip),
                Err(SourceError::NoRef(_)) => None,
                Err(error) => return Err(error),
            };
            // What is made is kept by the remote alone, if it takes it.
            let doing = "writing notes";
            let objects = repository.odb().map_err(cache(doing))?;
            objects
                .add_new_mempack_backend(1000)
                .map_err(cache(doing))?;
            let (there, commit) = build(repository, tip, notes, now).map_err(cache(doing))?;
            let tried = match commit {
                Some(commit) => self.push(repository, tip, commit, now)?,
                None => Tried::Written,
            };
            Ok((there, tried))
        })
    }

    fn push(
        &self,
        repository: &Repository,
        tip: Option<Oid>,
        commit: Oid,
        now: Timestamp,
    ) -> Result<Tried, SourceError> {
        let mut target = repository
            .remote_anonymous(&self.address.url)
            .map_err(remote("reading the URL"))?;
        let session = Session::new(&self.address, &self.credentials, now);
        let refusal = RefCell::new(None);
        let mut callbacks = session.callbacks();
        callbacks.push_update_reference(|_, why| {
            refusal.replace(why.map(told));
            Ok(())
        });
        let mut options = PushOptions::new();
        options.remote_callbacks(callbacks);
        let pushed = target.push(&[format!("{commit}:{NOTES}")], Some(&mut options));
        match pushed {
            Ok(()) => Ok(match refusal.take() {
                Some(why) => Tried::Refused(tip, why),
                None => Tried::Written,
            }),
            Err(error) if error.code() == ErrorCode::NotFastForward => Ok(Tried::Late),
            Err(error) => Err(session.explain(error, "pushing notes")),
        }
    }

    fn try_in_place(
        &self,
        notes: &[Note],
        now: Timestamp,
    ) -> Result<(Vec<bool>, Tried), SourceError> {
        let path = Url::parse(&self.address.url).ok();
        let path = path.and_then(|url| url.to_file_path().ok());
        let path = path.ok_or(SourceError::BadUrl)?;
        let written = || {
            let repository = Repository::open(&path)?;
            let tip = match repository.refname_to_id(NOTES) {
                Ok(tip) => Some(tip),
                Err(error) if error.code() == ErrorCode::NotFound => None,
                Err(error) => return Err(error),
            };
            let (there, commit) = build(&repository, tip, notes, now)?;
            let Some(commit) = commit else {
                return Ok((there, Tried::Written));
            };
            let why = "notes of Fleetwright";
            let moved = match tip {
                Some(tip) => repository.reference_matching(NOTES, commit, true, tip, why),
                None => repository.reference(NOTES, commit, false, why),
            };
            match moved.map(drop) {
                Ok(()) => Ok((there, Tried::Written)),
                Err(error) => match error.code() {
                    ErrorCode::Modified | ErrorCode::Exists | ErrorCode::Locked => {
                        Ok((there, Tried::Late))
                    }
                    _ => Err(error),
                },
            }
        };
        written().map_err(remote("writing notes"))
    }
}

/// A remote's words, as far as they are told.
fn told(why: &str) -> String {
    let plain = why.chars().filter(|c| !c.is_control());
    plain.take(MAX_REFUSAL).collect()
}

/// Which notes are there in a commit on top of `tip`, and that commit; none where they are there already.
fn build(
    repository: &Repository,
    tip: Option<Oid>,
    notes: &[Note],
    now: Timestamp,
) -> Result<(Vec<bool>, Option<Oid>), git2::Error> {
    let parent = tip.map(|tip| repository.find_commit(tip)).transpose()?;
    let mut tree = match &parent {
        Some(parent) => parent.tree()?,
        None => repository.find_tree(repository.treebuilder(None)?.write()?)?,
    };
    let before = tree.id();
    let mut there = Vec::new();
    for note in notes {
        let old = match is_commit(&note.commit) {
            true => read(repository, &tree, &note.commit)?,
            false => None,
        };
        there.push(old.is_some());
        let Some((path, old)) = old else {
            continue;
        };
        let new = with(&old, &note.context, &note.text);
        if new == old {
            continue;
        }
        let blob = repository.blob(&new)?;
        let updated = TreeUpdateBuilder::new()
            .upsert(path, blob, FileMode::Blob)
            .create_updated(repository, &tree)?;
        tree = repository.find_tree(updated)?;
    }
    if tree.id() == before {
        return Ok((there, None));
    }
    let time = Time::new(now.as_second(), 0);
    let who = Signature::new("Fleetwright", "fleetwright@localhost", &time)?;
    let parents: Vec<&Commit<'_>> = parent.iter().collect();
    let words = "Notes added by Fleetwright\n";
    let commit = repository.commit(None, &who, &who, words, &tree, &parents)?;
    Ok((there, Some(commit)))
}

fn is_commit(id: &str) -> bool {
    id.len() == 40 && id.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Path and text of a commit's note, an empty one where there is none; `None` where it is too long.
fn read(
    repository: &Repository,
    tree: &Tree<'_>,
    commit: &str,
) -> Result<Option<(String, Vec<u8>)>, git2::Error> {
    let entry = |path: &str| match tree.get_path(Path::new(path)) {
        Ok(entry) => Ok(entry.kind().map(|kind| (kind, entry.id()))),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    // Git spreads notes over folders as it likes, and reads them however they are spread.
    for level in 0..=LEVELS {
        let path = spread(commit, level);
        let Some((ObjectType::Blob, id)) = entry(&path)? else {
            continue;
        };
        let objects = repository.odb()?;
        let (size, _) = objects.read_header(id)?;
        if size > MAX_NOTE {
            return Ok(None);
        }
        return Ok(Some((path, objects.read(id)?.data().to_vec())));
    }
    let mut level = 1;
    while level < LEVELS {
        let file = spread(commit, level + 1);
        let folder = file.rsplit_once('/').map(|(folder, _)| folder);
        match entry(folder.unwrap_or_default())? {
            Some((ObjectType::Tree, _)) => level += 1,
            _ => break,
        }
    }
    Ok(Some((spread(commit, level), Vec::new())))
}

/// The path of a commit's note below so many folders.
fn spread(commit: &str, level: usize) -> String {
    let (folders, file) = commit.split_at_checked(2 * level).unwrap_or(("", commit));
    let mut path = String::new();
    for (at, digit) in folders.chars().enumerate() {
        path.push(digit);
        if at % 2 == 1 {
            path.push('/');
        }
    }
    path + file
}

/// The note with the line of `context` saying `text`; all other lines as they are.
fn with(note: &[u8], context: &str, text: &str) -> Vec<u8> {
    let plain = |text: &str| text.replace(char::is_control, " ");
    let begin = format!("{}: ", plain(context));
    let line = format!("{begin}{}", plain(text).trim());
    let mut out: Vec<&[u8]> = Vec::new();
    let mut said = false;
    let lines = note.strip_suffix(b"\n").unwrap_or(note);
    for old in lines.split(|b| *b == b'\n').filter(|_| !note.is_empty()) {
        if !old.starts_with(begin.as_bytes()) {
            out.push(old);
        } else if !std::mem::replace(&mut said, true) {
            out.push(line.as_bytes());
        }
    }
    if !said {
        out.push(line.as_bytes());
    }
    let mut new = out.join(&b'\n');
    new.push(b'\n');
    new
}
