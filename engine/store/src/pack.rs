//! Packing: a value as its differences from another that looks like it, as the thousand objects of a kind do.
//!
//! The form is that of LZ77 with a dictionary: literal bytes, then a copy from what came before, over and over. It is for
//! memory alone and never stored, so it may change at any time.

/// Values shorter than this are left as they are.
const SHORTEST: usize = 256;
/// Values longer than this are too: they take long, and are few.
const LONGEST: usize = 32 << 10;
/// What of a value is a dictionary.
const DICTIONARY: usize = 16 << 10;
/// Slots of the table of places; the last place with a hash counts.
const BITS: u32 = 11;
/// Bytes that a copy is found by.
const FOUND_BY: usize = 6;

/// A value that others are packed against.
pub(crate) struct Dictionary {
    bytes: Box<[u8]>,
    /// Where in it bytes of a hash are, and one more.
    places: Box<[u16]>,
}

/// Whether a value of this length is worth the work.
pub(crate) fn is_packable(length: usize) -> bool {
    (SHORTEST..=LONGEST).contains(&length)
}

/// Eight bytes from `at`; fewer than eight are `None`.
fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let eight = bytes.get(at..at + 8)?.try_into().ok()?;
    Some(u64::from_le_bytes(eight))
}

fn slot(word: u64) -> usize {
    const SHIFT: u32 = 64 - 8 * FOUND_BY as u32;
    let hash = (word << SHIFT).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (hash >> (64 - BITS)) as usize
}

/// How many bytes from `a` and from `b` on are equal.
fn equal(bytes: &[u8], a: usize, b: usize) -> usize {
    let mut length = 0;
    while let (Some(left), Some(right)) = (word(bytes, a + length), word(bytes, b + length)) {
        let differing = left ^ right;
        if differing != 0 {
            return length + differing.trailing_zeros() as usize / 8;
        }
        length += 8;
    }
    let rest = bytes[b + length..].iter().zip(&bytes[a + length..]);
    length + rest.take_while(|(left, right)| left == right).count()
}

fn put_number(out: &mut Vec<u8>, mut number: usize) {
    while number >= 128 {
        out.push(number as u8 | 128);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(packed: &mut std::slice::Iter<'_, u8>) -> usize {
    let (mut number, mut shift) = (0, 0);
    for byte in packed {
        number |= usize::from(byte & 127) << shift;
        if byte & 128 == 0 || shift > 21 {
            break;
        }
        shift += 7;
    }
    number
}

impl Dictionary {
    pub(crate) fn new(value: &[u8]) -> Self {
        let bytes: Box<[u8]> = value[..value.len().min(DICTIONARY)].into();
        let mut places = vec![0_u16; 1 << BITS].into_boxed_slice();
        for at in 0..bytes.len() {
            if let Some(word) = word(&bytes, at) {
                places[slot(word)] = at as u16 + 1;
            }
        }
        Self { bytes, places }
    }

    /// The packed form of a value that [`is_packable`].
    pub(crate) fn pack(&self, value: &[u8]) -> Box<[u8]> {
        let first = self.bytes.len();
        let all = [&self.bytes, value].concat();
        let mut places = self.places.clone();
        let mut out = Vec::with_capacity(value.len() / 4);
        // Where the literal bytes begin that are not written yet, and where we are.
        let (mut literal, mut at) = (first, first);
        while let Some(here) = word(&all, at) {
            let place = std::mem::replace(&mut places[slot(here)], at as u16 + 1);
            let Some(mut from) = usize::from(place).checked_sub(1) else {
                at += 1;
                continue;
            };
            let mut length = equal(&all, from, at);
            if length < FOUND_BY {
                at += 1;
                continue;
            }
            while at > literal && from > 0 && all[from - 1] == all[at - 1] {
                (from, at, length) = (from - 1, at - 1, length + 1);
            }
            put_number(&mut out, at - literal);
            out.extend_from_slice(&all[literal..at]);
            put_number(&mut out, length);
            put_number(&mut out, at - from);
            at += length;
            literal = at;
        }
        put_number(&mut out, all.len() - literal);
        out.extend_from_slice(&all[literal..]);
        out.into_boxed_slice()
    }

    /// What [`Dictionary::pack`] packed: a value of this length.
    pub(crate) fn unpack(&self, packed: &[u8], length: usize) -> Vec<u8> {
        let mut out: Vec<u8> = Vec::with_capacity(length);
        let mut rest = packed.iter();
        while out.len() < length && !rest.as_slice().is_empty() {
            let literal = take_number(&mut rest).min(rest.as_slice().len());
            let (bytes, after) = rest.as_slice().split_at(literal);
            out.extend_from_slice(bytes);
            rest = after.iter();
            if out.len() >= length {
                break;
            }
            let (mut left, back) = (take_number(&mut rest), take_number(&mut rest));
            // From the dictionary's end, where the copy begins before what is unpacked.
            if let Some(before) = back.checked_sub(out.len()).filter(|before| *before > 0) {
                let start = self.bytes.len().saturating_sub(before);
                let bytes = &self.bytes[start..];
                let bytes = &bytes[..bytes.len().min(left)];
                out.extend_from_slice(bytes);
                left -= bytes.len();
            }
            // A copy may overlap with what it makes.
            while left > 0 && back > 0 && back <= out.len() {
                let start = out.len() - back;
                let some = left.min(back);
                out.extend_from_within(start..start + some);
                left -= some;
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn there_and_back(dictionary: &[u8], value: &[u8]) -> usize {
        let dictionary = Dictionary::new(dictionary);
        let packed = dictionary.pack(value);
        assert_eq!(dictionary.unpack(&packed, value.len()), value);
        packed.len()
    }

    fn object(n: usize) -> Vec<u8> {
        let condition = |kind: &str| {
            format!(
                "{{\"type\":\"{kind}\",\"status\":\"True\",\"lastTransitionTime\":\"2026-01-01T00:00:{n:02}Z\",\"reason\":\"{kind}\",\"message\":\"\"}}"
            )
        };
        let conditions =
            ["Ready", "Available", "NodeReady", "NodeHealthy", "UpToDate"].map(condition);
        format!("{{\"metadata\":{{\"resourceVersion\":\"{}\",\"name\":\"m-{n}\"}},\"status\":{{\"conditions\":[{}]}}}}", n * 7919, conditions.join(",")).into()
    }

    #[test]
    fn what_looks_alike_becomes_small() {
        let (a, b) = (object(1), object(57));
        let packed = there_and_back(&a, &b);
        assert!(packed * 6 < b.len(), "{packed} of {}", b.len());
        assert!(there_and_back(&[], &b) * 2 < b.len());
    }

    #[test]
    fn edges() {
        let long = vec![b'x'; LONGEST];
        let run = there_and_back(&long, &long);
        assert!(run < 64, "{run}");
        for value in [&b""[..], b"a", b"abcdefg", b"abcdefgh", &long[..9]] {
            there_and_back(b"", value);
            there_and_back(b"abcdefgh", value);
            there_and_back(&long, value);
        }
    }

    proptest! {
        /// Of few letters, so that there is much to copy, near and far.
        #[test]
        fn all_of_it_comes_back(
            dictionary in proptest::collection::vec(0..3_u8, 0..2000),
            value in proptest::collection::vec(0..3_u8, 0..2000),
            start in 0..1000_usize,
        ) {
            there_and_back(&dictionary, &value);
            let mut mixed = dictionary.get(start..).unwrap_or_default().to_vec();
            mixed.extend(&value);
            mixed.extend(dictionary.iter().take(start));
            there_and_back(&dictionary, &mixed);
        }
    }
}
