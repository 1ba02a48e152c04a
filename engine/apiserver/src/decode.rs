//! Bodies: JSON that remembers fields given twice, and YAML; faults are told as Kubernetes tells them.

mod fault;

use std::fmt::{self, Write as _};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Reads JSON; of a field that stands twice the last holds, and its path is reported, such as `spec.replicas`.
///
/// # Errors
/// What is wrong.
pub(crate) fn json(bytes: &[u8]) -> Result<(Value, Vec<String>), String> {
    parse(bytes).map_err(|error| fault::of(bytes).unwrap_or_else(|| error.to_string()))
}

/// Reads YAML, of which JSON is a part: what most clients send, and many times faster to read as such.
///
/// # Errors
/// What is wrong, with the line but for the first.
pub(crate) fn yaml(bytes: &[u8]) -> Result<Value, String> {
    if bytes.first() == Some(&b'{')
        && let Ok((value, twice)) = parse(bytes)
        && twice.is_empty()
    {
        return Ok(value);
    }
    let text =
        std::str::from_utf8(bytes).map_err(|_| "yaml: invalid leading UTF-8 octet".to_owned())?;
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let told = error.to_string();
        let told = told.lines().next().unwrap_or_default();
        let told = told.strip_prefix("error: ").unwrap_or(told);
        let place = told.strip_prefix("line ").and_then(|rest| {
            let (place, what) = rest.split_once(": ")?;
            Some((place.split_once(' ')?.0, what))
        });
        match place {
            Some(("1", what)) => format!("yaml: {what}"),
            Some((line, what)) => format!("yaml: line {line}: {what}"),
            None => format!("yaml: {told}"),
        }
    })
}

fn parse(bytes: &[u8]) -> Result<(Value, Vec<String>), serde_json::Error> {
    let mut duplicates = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let place = Place {
        path: &mut String::new(),
        duplicates: &mut duplicates,
    };
    let value = place.deserialize(&mut reader)?;
    reader.end()?;
    Ok((value, duplicates))
}

/// Below it a float holds every whole number.
const WHOLE: f64 = 9_007_199_254_740_992.0;

struct Place<'a> {
    path: &'a mut String,
    duplicates: &'a mut Vec<String>,
}

impl Place<'_> {
    fn here(&mut self) -> Place<'_> {
        Place {
            path: self.path,
            duplicates: self.duplicates,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        // A number without a fraction is written as one, however it came.
        if value.fract() == 0.0 && value.abs() < WHOLE {
            #[expect(clippy::cast_possible_truncation, reason = "it is whole, and in range")]
            return Ok((value as i64).into());
        }
        serde_json::Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        loop {
            let length = self.path.len();
            // Writing into a text does not fail.
            write!(self.path, "[{}]", out.len()).ok();
            let item = seq.next_element_seed(self.here())?;
            self.path.truncate(length);
            match item {
                Some(item) => out.push(item),
                None => return Ok(out.into()),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let length = self.path.len();
            if length > 0 {
                self.path.push('.');
            }
            self.path.push_str(&name);
            // Told before those below it.
            if out.contains_key(&name) {
                self.duplicates.push(self.path.clone());
            }
            let value = map.next_value_seed(self.here())?;
            self.path.truncate(length);
            out.insert(name, value);
        }
        Ok(out.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn fields_given_twice_are_named() {
        let text = br#"{"a": {"b": 1, "b": [1.5, null, -2]}, "c": [{"d": "x", "d": true}]}"#;
        let (value, twice) = super::json(text).unwrap();
        assert_eq!(
            value,
            json!({"a": {"b": [1.5, null, -2]}, "c": [{"d": true}]})
        );
        assert_eq!(twice, ["a.b", "c[0].d"]);
        assert_eq!(
            super::json(b"{} {}"),
            Err("invalid character '{' after top-level value".to_owned())
        );
        assert_eq!(
            super::yaml(b"a: 1\nb: c: d\n"),
            Err("yaml: line 2: mapping values are not allowed in this context".to_owned())
        );
        assert!(super::json(b"{").is_err());
    }
}
