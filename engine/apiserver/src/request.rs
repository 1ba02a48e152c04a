//! What a request is about: path and query.

use std::collections::BTreeMap;

use percent::decode;

/// A path under `/api/v1` or `/apis/GROUP/VERSION`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) resource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) subresource: String,
    /// Whether the path asks for a watch by its prefix `watch/`.
    pub(crate) watch: bool,
}

impl Target {
    /// Reads a path; `None` when it names no resource.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let parts: Vec<String> = path
            .split('/')
            .filter(|p| !p.is_empty())
            .map(decode)
            .collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let mut target = Self {
            group: group.to_owned(),
            version: version.to_owned(),
            ..Self::default()
        };
        // The older way to ask for a watch.
        let rest = match rest {
            ["watch", rest @ ..] if !rest.is_empty() => {
                target.watch = true;
                rest
            }
            rest => rest,
        };
        let rest = match rest {
            ["namespaces", namespace, rest @ ..]
                if !(rest.is_empty()
                    || group.is_empty() && matches!(rest, ["status" | "finalize"])) =>
            {
                target.namespace = (*namespace).to_owned();
                rest
            }
            rest => rest,
        };
        match rest {
            [resource] => target.resource = (*resource).to_owned(),
            [resource, name] => {
                target.resource = (*resource).to_owned();
                target.name = (*name).to_owned();
            }
            // What follows a subresource names nothing more for custom kinds.
            [resource, name, subresource, ..] => {
                target.resource = (*resource).to_owned();
                target.name = (*name).to_owned();
                target.subresource = (*subresource).to_owned();
            }
            _ => return None,
        }
        Some(target)
    }
}

/// The parameters of a query; the first of each name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let mut map = BTreeMap::new();
        for pair in query
            .unwrap_or_default()
            .split('&')
            .filter(|p| !p.is_empty())
        {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            map.entry(decode(name.replace('+', " ")))
                .or_insert_with(|| decode(value.replace('+', " ")));
        }
        Self(map)
    }

    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// The same with a parameter more.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.0.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether a parameter is there and says anything but no.
    pub(crate) fn flag(&self, name: &str) -> bool {
        let value = self.get(name);
        self.has(name) && value != "0" && !value.eq_ignore_ascii_case("false")
    }

    /// The number that a parameter is.
    pub(crate) fn number(&self, name: &str) -> Option<i64> {
        self.get(name).parse().ok()
    }
}

mod percent {
    /// Undoes percent encoding; what is not valid stays.
    pub(super) fn decode(text: impl AsRef<str>) -> String {
        let text = text.as_ref();
        if !text.contains('%') {
            return text.to_owned();
        }
        let bytes = text.as_bytes();
        let mut out = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            let hex = bytes
                .get(at + 1..at + 3)
                .and_then(|h| std::str::from_utf8(h).ok())
                .and_then(|h| u8::from_str_radix(h, 16).ok());
            match hex {
                Some(value) if *byte == b'%' => {
                    out.push(value);
                    at += 3;
                }
                _ => {
                    out.push(*byte);
                    at += 1;
                }
            }
        }
        String::from_utf8_lossy(&out).into_owned()
    }
}
