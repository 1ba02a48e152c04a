//! Get and list, from encoded bytes.

use axum::body::Body;
use base64::Engine;
use fleetwright_store::Entry;
use http::Response;
use serde_json::{Value, json};

use super::Call;
use crate::error::{ApiError, ApiResult, Cause, bytes};
use crate::selector::Selector;
use crate::table::Form;

const TOKENS: base64::engine::GeneralPurpose = base64::engine::general_purpose::URL_SAFE_NO_PAD;

pub(crate) fn get(call: &Call<'_>) -> ApiResult<Response<Body>> {
    let version = call.query.get("resourceVersion");
    if !version.is_empty() {
        let known = call.server.0.store.revision();
        match version.parse::<u64>() {
            Err(_) => return Err(ApiError::bad_request(bad_version(version))),
            Ok(asked) if asked > known => return Err(ApiError::too_new(asked, known)),
            Ok(_) => {}
        }
    }
    match call.server.0.store.get(&call.key(&call.target.name)) {
        Some(entry) => Ok(bytes(200, call.kind.shown(entry.value.bytes()))),
        None => Err(ApiError::not_found(call.kind, &call.target.name)),
    }
}

impl Call<'_> {
    /// The prefix of the keys that a list or watch is about.
    pub(crate) fn scope(&self) -> String {
        let prefix = self.kind.prefix();
        match (self.kind.namespaced, self.target.namespace.as_str()) {
            (false, _) => prefix + "/",
            (true, "") => prefix,
            (true, namespace) => format!("{prefix}{namespace}/"),
        }
    }

    pub(crate) fn selector(&self) -> ApiResult<Selector> {
        let (labels, fields) = (
            self.query.get("labelSelector"),
            self.query.get("fieldSelector"),
        );
        Selector::parse(self.kind, labels, fields)
    }
}

/// What a list shows.
pub(crate) struct Page {
    pub(crate) items: Vec<Entry>,
    meta: Value,
}

pub(crate) fn list(call: &Call<'_>) -> ApiResult<Response<Body>> {
    Ok(page(call)?.respond(call))
}

/// The token of a list that goes on: from which revision, after which key.
struct Token {
    /// 0 for what is newest.
    revision: u64,
    after: String,
}

impl Token {
    fn read(text: &str) -> ApiResult<Self> {
        let bad = |why: &str| {
            let text = format!("invalid continue token: continue key is not valid: {why}");
            ApiError::bad_request(text)
        };
        let raw = TOKENS
            .decode(text.trim_end_matches('='))
            .map_err(|error| match error {
                base64::DecodeError::InvalidByte(at, _) => {
                    bad(&format!("illegal base64 data at input byte {at}"))
                }
                _ => bad(&format!("illegal base64 data at input byte {}", text.len())),
            })?;
        let token: Value = serde_json::from_slice(&raw)
            .map_err(|_| bad("invalid character 'i' looking for beginning of value"))?;
        match (token["rv"].as_u64(), token["after"].as_str()) {
            (revision, Some(after)) => Ok(Self {
                revision: revision.unwrap_or(0),
                after: after.to_owned(),
            }),
            _ => Err(bad("server does not recognize this encoded version ")),
        }
    }

    fn write(&self) -> String {
        TOKENS.encode(json!({"rv": self.revision, "after": self.after}).to_string())
    }
}

/// Reads what a list of this query shows.
pub(crate) fn page(call: &Call<'_>) -> ApiResult<Page> {
    call.check_list()?;
    let selector = call.selector()?;
    let (version, matching) = (
        call.query.get("resourceVersion"),
        call.query.get("resourceVersionMatch"),
    );
    if version.parse::<u64>().is_err() && !version.is_empty() {
        return Err(ApiError::bad_request(format!(
            "invalid resource version: {}",
            bad_version(version)
        )));
    }
    let limit = usize::try_from(call.query.number("limit").unwrap_or(0)).unwrap_or(0);
    let token = call.query.get("continue");
    let store = &call.server.0.store;
    let (mut exact, mut after) = (None, None);
    if !token.is_empty() {
        let token = Token::read(token)?;
        exact = Some(token.revision).filter(|revision| *revision > 0);
        after = Some(token.after);
    }
    match version.parse::<u64>() {
        Ok(asked) if asked > store.revision() => {
            return Err(ApiError::too_new(asked, store.revision()));
        }
        // A page of what is not the newest is one of exactly that revision.
        Ok(asked) if asked > 0 => {
            if !token.is_empty() {
                let text = "specifying resource version is not allowed when using continue";
                return Err(ApiError::bad_request(text));
            }
            if matching == "Exact" || (matching.is_empty() && limit > 0) {
                exact = Some(asked);
            }
        }
        _ => {}
    }
    let scope = call.scope();
    let read = |after: Option<&str>, page: usize| -> ApiResult<(Vec<Entry>, u64)> {
        let (entries, now) = store.range(&scope, after, page);
        let Some(then) = exact.filter(|then| *then < now) else {
            return Ok((entries, now));
        };
        let past = store.range_at(&scope, after, then).map_err(|_| {
            let rest = after.filter(|_| !token.is_empty()).map(|after| Token {
                revision: 0,
                after: after.to_owned(),
            });
            ApiError::expired_list(rest.map(|rest| rest.write()))
        })?;
        let page = if page == 0 { usize::MAX } else { page };
        let entry = |(key, value)| Entry {
            key,
            value,
            created: 0,
            modified: 0,
        };
        Ok((past.into_iter().take(page).map(entry).collect(), then))
    };
    let mut chosen: Vec<Entry> = Vec::new();
    let mut more = false;
    let revision = loop {
        // A page that is full ends where more is left, fit or not: what is left is not looked at.
        let page = if limit == 0 {
            0
        } else {
            limit + 1 - chosen.len()
        };
        let (entries, now) = read(after.as_deref(), page)?;
        let whole = page == 0 || entries.len() < page;
        for entry in entries {
            if limit > 0 && chosen.len() == limit {
                more = true;
                break;
            }
            after = Some(entry.key.to_string());
            let read = || parsed(&call.kind.shown(entry.value.bytes()));
            if selector.is_empty() || read().is_some_and(|o| selector.matches(&o)) {
                chosen.push(entry);
            }
        }
        if more || whole {
            break now;
        }
    };
    let mut meta = json!({"resourceVersion": revision.to_string()});
    if call.kind.custom {
        // Lists of custom kinds say also that nothing is left.
        meta["continue"] = "".into();
    }
    if let Some(last) = after.filter(|_| more) {
        let left = if selector.is_empty() {
            Some(if exact.is_some_and(|then| then < store.revision()) {
                read(Some(&last), 0)?.0.len()
            } else {
                store.count(&scope, Some(&last))
            })
        } else {
            None
        };
        let token = Token {
            revision,
            after: last,
        };
        meta["continue"] = token.write().into();
        if let Some(left) = left {
            meta["remainingItemCount"] = left.into();
        }
    }
    Ok(Page {
        items: chosen,
        meta,
    })
}

/// What is wrong with a resource version that is no number.
pub(crate) fn bad_version(version: &str) -> String {
    format!(
        "resourceVersion: Invalid value: {version:?}: strconv.ParseUint: parsing {version:?}: invalid syntax"
    )
}

impl Page {
    pub(crate) fn respond(&self, call: &Call<'_>) -> Response<Body> {
        let mut out = format!(
            "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[",
            call.kind.list_kind,
            call.kind.api_version(),
            self.meta
        )
        .into_bytes();
        out.reserve(self.items.iter().map(|e| e.value.len() + 1).sum::<usize>() + 2);
        // The items of core lists do not say what they are.
        let head = format!(
            "{{\"apiVersion\":\"{}\",\"kind\":\"{}\",",
            call.kind.api_version(),
            call.kind.kind
        );
        let plain = !call.kind.custom && call.form == Form::Whole;
        for (n, entry) in self.items.iter().enumerate() {
            if n > 0 {
                out.push(b',');
            }
            // One at a time: all together, unpacked, would take as much again as the answer.
            let value = call.kind.shown(entry.value.bytes());
            match value.strip_prefix(head.as_bytes()) {
                Some(rest) if plain => {
                    out.push(b'{');
                    out.extend_from_slice(rest);
                }
                _ => out.extend_from_slice(&value),
            }
        }
        out.extend_from_slice(b"]}");
        bytes(200, out.into())
    }
}

impl Call<'_> {
    /// Refuses parameters of a list or watch that are no such values, or do not go together.
    pub(crate) fn check_list(&self) -> ApiResult<()> {
        let query = self.query;
        for (name, cause) in [("limit", true), ("timeoutSeconds", true)] {
            let text = query.get(name);
            if cause && !text.is_empty() && text.parse::<i64>().is_err() {
                return Err(ApiError::bad_request(format!(
                    "strconv.ParseInt: parsing {text:?}: invalid syntax"
                )));
            }
        }
        let (version, matching) = (
            query.get("resourceVersion"),
            query.get("resourceVersionMatch"),
        );
        let watch = query.flag("watch");
        let initial = match query.get("sendInitialEvents") {
            "" => None,
            _ => Some(query.flag("sendInitialEvents")),
        };
        let mut causes = Vec::new();
        let mut forbid = |field: &str, why: &str| {
            let text = format!("Forbidden: {why}");
            causes.push(Cause::new("FieldValueForbidden", field, text));
        };
        if let (Some(_), true) = (initial, watch) {
            if matching != "NotOlderThan" {
                forbid(
                    "resourceVersionMatch",
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                );
            }
        } else if initial.is_some() {
            forbid(
                "sendInitialEvents",
                "sendInitialEvents is forbidden for list",
            );
        }
        if watch && !query.get("continue").is_empty() {
            forbid(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden when continue is provided",
            );
        }
        if !matching.is_empty() {
            if watch && initial.is_none() {
                forbid(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                );
            } else if !watch && version.is_empty() {
                forbid(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                );
            }
            if !watch && !query.get("continue").is_empty() {
                forbid(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden when continue is provided",
                );
            }
            if !watch && matching == "Exact" && version == "0" {
                forbid(
                    "resourceVersionMatch",
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                );
            }
            let supported: &[&str] = if watch {
                &["NotOlderThan"]
            } else {
                &["Exact", "NotOlderThan", ""]
            };
            if !supported.contains(&matching) {
                let shown: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
                let text = format!(
                    "Unsupported value: {matching:?}: supported values: {}",
                    shown.join(", ")
                );
                let field = "resourceVersionMatch";
                causes.push(Cause::new("FieldValueNotSupported", field, text));
            }
        }
        if causes.is_empty() {
            return Ok(());
        }
        Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", &causes))
    }
}

/// Whether an encoded object is being deleted; most do not even hold the word, and need not be read.
pub(crate) fn deleting(value: &[u8]) -> bool {
    const WORD: &[u8] = b"\"deletionTimestamp\"";
    value.windows(WORD.len()).any(|part| part == WORD)
        && parsed(value).is_some_and(|object| crate::object::deleting(&object))
}

pub(crate) fn parsed(value: &[u8]) -> Option<Value> {
    serde_json::from_slice(value).ok()
}
