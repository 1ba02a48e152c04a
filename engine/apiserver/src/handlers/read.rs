//! Get and list, from encoded bytes.

use axum::body::Body;
use base64::Engine;
use fleetwright_store::Entry;
use http::Response;
use serde_json::{Value, json};

use super::Call;
use crate::error::{ApiError, ApiResult, bytes};
use crate::selector::Selector;

const TOKENS: base64::engine::GeneralPurpose = base64::engine::general_purpose::URL_SAFE_NO_PAD;

pub(crate) fn get(call: &Call<'_>) -> ApiResult<Response<Body>> {
    match call.server.0.store.get(&call.key(&call.target.name)) {
        Some(entry) => Ok(bytes(200, call.kind.shown(entry.value))),
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

pub(crate) fn list(call: &Call<'_>) -> ApiResult<Response<Body>> {
    let selector = call.selector()?;
    let (version, matching) = (
        call.query.get("resourceVersion"),
        call.query.get("resourceVersionMatch"),
    );
    if !matching.is_empty() && version.is_empty() {
        let cause = crate::error::Cause::new(
            "FieldValueForbidden",
            "resourceVersionMatch",
            "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        );
        return Err(ApiError::invalid(
            "meta.k8s.io",
            "ListOptions",
            "",
            &[cause],
        ));
    }
    if !version.is_empty() && version.parse::<u64>().is_err() {
        return Err(ApiError::bad_request(format!(
            "invalid resource version: resourceVersion: Invalid value: \"{version}\": strconv.ParseUint: parsing \"{version}\": invalid syntax"
        )));
    }
    let limit: usize = call.query.get("limit").parse().unwrap_or(0);
    let token = call.query.get("continue");
    let store = &call.server.0.store;
    let (mut exact, mut after) = (None, None);
    if !token.is_empty() {
        let bad = || ApiError::bad_request("continue key is not valid");
        let raw = TOKENS.decode(token).map_err(|_| bad())?;
        let token: Value = serde_json::from_slice(&raw).map_err(|_| bad())?;
        exact = token["rv"].as_u64();
        after = token["after"].as_str().map(str::to_owned);
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
            let rest = json!({"after": after}).to_string();
            ApiError::expired_list((!token.is_empty()).then(|| TOKENS.encode(rest)))
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
        let page = if limit == 0 {
            0
        } else {
            limit + 1 - chosen.len()
        };
        let (entries, now) = read(after.as_deref(), page)?;
        let whole = page == 0 || entries.len() < page;
        for mut entry in entries {
            after = Some(entry.key.to_string());
            entry.value = call.kind.shown(entry.value);
            if selector.is_empty() || parsed(&entry.value).is_some_and(|o| selector.matches(&o)) {
                chosen.push(entry);
            }
        }
        if limit > 0 && chosen.len() > limit {
            chosen.truncate(limit);
            more = true;
            break now;
        }
        if whole {
            break now;
        }
    };
    let mut meta = json!({"resourceVersion": revision.to_string()});
    if call.kind.custom {
        // Lists of custom kinds say also that nothing is left.
        meta["continue"] = "".into();
    }
    if more && let Some(last) = chosen.last() {
        let token = json!({"rv": revision, "after": &*last.key}).to_string();
        meta["continue"] = TOKENS.encode(token).into();
        if selector.is_empty() {
            let left = if exact.is_some_and(|then| then < store.revision()) {
                read(Some(&last.key), 0)?.0.len()
            } else {
                store.count(&scope, Some(&last.key))
            };
            meta["remainingItemCount"] = left.into();
        }
    }
    let mut out = format!(
        "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{meta},\"items\":[",
        call.kind.list_kind,
        call.kind.api_version()
    )
    .into_bytes();
    out.reserve(chosen.iter().map(|e| e.value.len() + 1).sum::<usize>() + 2);
    for (n, entry) in chosen.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&entry.value);
    }
    out.extend_from_slice(b"]}");
    Ok(bytes(200, out.into()))
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
