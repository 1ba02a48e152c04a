//! Whether a log lost what was acknowledged (<https://sqlite.org/fileformat2.html#the_write_ahead_log>).
//!
//! SQLite takes a log up to the first frame that is not whole, because a power loss may leave the last transaction in
//! part. Each transaction is synced before the next one is written, so at most one can be in part: where the frames go on
//! after such a place with two ends of transactions, the first of them was acknowledged, and the log is damaged.

use std::path::Path;

use crate::place::log_of;
use crate::{Error, Result};

const HEAD: usize = 32;
const FRAME_HEAD: usize = 24;

/// Checks the log of the database at `path`, which nobody writes.
///
/// # Errors
/// When it is damaged, or cannot be read.
pub(crate) fn check(path: &Path) -> Result<()> {
    let log = log_of(path);
    let bytes = match std::fs::read(&log) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        read => read.map_err(|e| Error::io("read", &log, &e))?,
    };
    match fault(&bytes) {
        None => Ok(()),
        Some(what) => Err(Error::Damaged { path: log, what }),
    }
}

/// What is wrong with a log; `None` where nothing was lost, as far as that can be told.
fn fault(log: &[u8]) -> Option<String> {
    let (head, mut rest) = log.split_at_checked(HEAD)?;
    // The system may have made room for what was never written.
    if rest.is_empty() || head.iter().all(|byte| *byte == 0) {
        return None;
    }
    let big = word(head, 0) == 0x377f_0683;
    let mut sum = sums(big, (0, 0), &head[..24]);
    if !big && word(head, 0) != 0x377f_0682 || sum != (word(head, 24), word(head, 28)) {
        return Some("its head is wrong".to_owned());
    }
    let page = word(head, 8) as usize;
    let salts = &head[16..24];
    // Ends of transactions after the first frame that is not whole.
    let mut ends = None;
    let mut number = 0;
    let mut broken = 0;
    while let Some((frame, more)) = rest.split_at_checked(FRAME_HEAD + page) {
        (rest, number) = (more, number + 1);
        let stored = (word(frame, 16), word(frame, 20));
        let computed = sums(big, sums(big, sum, &frame[..8]), &frame[FRAME_HEAD..]);
        let whole = computed == stored && &frame[8..16] == salts;
        let is_end = word(frame, 4) != 0;
        match &mut ends {
            None if whole => sum = stored,
            None => {
                // What comes next goes on from what it says, or from what it holds.
                let next = rest.get(..FRAME_HEAD + page)?;
                let goes_on = |sum| {
                    let computed = sums(big, sums(big, sum, &next[..8]), &next[FRAME_HEAD..]);
                    computed == (word(next, 16), word(next, 20)) && &next[8..16] == salts
                };
                sum = [stored, computed].into_iter().find(|sum| goes_on(*sum))?;
                ends = Some(u32::from(is_end));
                broken = number;
            }
            Some(_) if !whole => return None,
            Some(ends) => {
                sum = stored;
                *ends += u32::from(is_end);
                if *ends > 1 {
                    return Some(format!(
                        "frame {broken} is not what was written, and others come after it"
                    ));
                }
            }
        }
    }
    None
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    u32::from_be_bytes(word.unwrap_or_default())
}

/// The running checksum of a log, over words in the order that its head names.
fn sums(big: bool, (mut first, mut second): (u32, u32), bytes: &[u8]) -> (u32, u32) {
    for pair in bytes.chunks_exact(8) {
        let word = |at| {
            let word = word(pair, at);
            if big { word } else { word.swap_bytes() }
        };
        first = first.wrapping_add(word(0)).wrapping_add(second);
        second = second.wrapping_add(word(4)).wrapping_add(first);
    }
    (first, second)
}
