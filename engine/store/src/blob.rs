//! The bytes of a value as memory keeps them: as they are while they are new, packed once they are not.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::pack::{Dictionary, is_packable};

/// So many values of a family are seen before one of them becomes the dictionary of the others.
const FEW: u32 = 4;
/// A dictionary that fits badly is kept for so many values all the same.
const KEPT_FOR: u32 = 64;

/// The bytes of a value. Clones share them.
#[derive(Clone)]
pub struct Blob(Arc<Mutex<Form>>);

enum Form {
    Plain(Bytes),
    Packed {
        dictionary: Arc<Dictionary>,
        packed: Box<[u8]>,
        length: usize,
    },
}

impl Form {
    fn bytes(&self) -> Bytes {
        match self {
            Self::Plain(bytes) => bytes.clone(),
            Self::Packed {
                dictionary,
                packed,
                length,
            } => dictionary.unpack(packed, *length).into(),
        }
    }
}

impl Blob {
    /// All of it.
    pub fn bytes(&self) -> Bytes {
        self.0.lock().bytes()
    }

    /// How many bytes [`Blob::bytes`] gives.
    pub fn len(&self) -> usize {
        match &*self.0.lock() {
            Form::Plain(bytes) => bytes.len(),
            Form::Packed { length, .. } => *length,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it has clones.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// How many bytes memory holds for it.
    pub(crate) fn held(&self) -> usize {
        match &*self.0.lock() {
            Form::Plain(bytes) => bytes.len(),
            Form::Packed { packed, .. } => packed.len(),
        }
    }
}

impl From<Bytes> for Blob {
    fn from(bytes: Bytes) -> Self {
        Self(Arc::new(Mutex::new(Form::Plain(bytes))))
    }
}

impl From<&'static str> for Blob {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl PartialEq for Blob {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.bytes() == other.bytes()
    }
}

impl Eq for Blob {}

impl PartialEq<Bytes> for Blob {
    fn eq(&self, other: &Bytes) -> bool {
        self.bytes() == other
    }
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.bytes().fmt(f)
    }
}

#[derive(Default)]
struct Family {
    /// Values since the dictionary became it.
    values: u32,
    dictionary: Option<Arc<Dictionary>>,
}

/// The dictionaries of a store: one for each family, which are the keys that differ after their last slash alone.
#[derive(Default)]
pub(crate) struct Families(BTreeMap<Box<str>, Family>);

impl Families {
    /// Packs the value of `key`, where that makes it smaller.
    pub(crate) fn pack(&mut self, key: &str, blob: &Blob) {
        let mut form = blob.0.lock();
        let Form::Plain(bytes) = &*form else { return };
        if !is_packable(bytes.len()) {
            return;
        }
        let name = key.rsplit_once('/').map_or("", |(family, _)| family);
        if !self.0.contains_key(name) {
            self.forget_unused();
            self.0.insert(name.into(), Family::default());
        }
        let Some(family) = self.0.get_mut(name) else {
            return;
        };
        family.values += 1;
        let mut packed = family.dictionary.as_ref().map(|d| d.pack(bytes));
        let enough = if family.dictionary.is_some() {
            KEPT_FOR
        } else {
            FEW
        };
        // Values grow after they were made: the first is seldom what most are like.
        if packed
            .as_ref()
            .is_none_or(|packed| packed.len() * 4 > bytes.len())
            && family.values >= enough
        {
            let dictionary = Dictionary::new(bytes);
            packed = Some(dictionary.pack(bytes));
            *family = Family {
                values: 0,
                dictionary: Some(Arc::new(dictionary)),
            };
        }
        if let (Some(packed), Some(dictionary)) = (packed, &family.dictionary)
            && packed.len() < bytes.len() * 3 / 4
        {
            *form = Form::Packed {
                dictionary: Arc::clone(dictionary),
                length: bytes.len(),
                packed,
            };
        }
    }

    /// Drops the dictionaries that nothing is packed against, now and then: families come and go.
    fn forget_unused(&mut self) {
        if self.0.len() >= 64 && self.0.len().is_power_of_two() {
            self.0.retain(|_, family| {
                family
                    .dictionary
                    .as_ref()
                    .is_some_and(|d| Arc::strong_count(d) > 1)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(n: usize, rest: &str) -> Bytes {
        format!(
            "{{\"name\":\"value-{n}\",\"text\":\"{}\"}}",
            rest.repeat(100)
        )
        .into()
    }

    #[test]
    fn values_of_a_family_become_small_and_stay_what_they_are() {
        let mut families = Families::default();
        let blobs: Vec<Blob> = (0..10).map(|n| value(n, "abc").into()).collect();
        for (n, blob) in blobs.iter().enumerate() {
            families.pack(&format!("/kind/ns/{n}"), blob);
        }
        let held: Vec<usize> = blobs.iter().map(Blob::held).collect();
        assert!(held[..3].iter().all(|held| *held > 300), "{held:?}");
        assert!(held[3..].iter().all(|held| *held < 40), "{held:?}");
        for (n, blob) in blobs.iter().enumerate() {
            assert_eq!(
                (blob.bytes(), blob.len()),
                (value(n, "abc"), value(n, "abc").len())
            );
        }
    }

    #[test]
    fn a_dictionary_that_fits_badly_is_replaced() {
        let mut families = Families::default();
        let mut held = Vec::new();
        let text: String = ('a'..='z').chain('0'..='9').collect();
        for n in 0..200 {
            let text = if n < 8 {
                "abc".to_owned()
            } else {
                format!("{text}{}", n / 100)
            };
            let blob: Blob = value(n, &text[..text.len().min(38)]).into();
            families.pack("/kind/ns/n", &blob);
            held.push(blob.held());
        }
        assert!(held[190] < 100, "{held:?}");
    }
}
