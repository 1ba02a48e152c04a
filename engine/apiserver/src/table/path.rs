//! What a column shows: the value at a path, and ages.

use jiff::Timestamp;
use serde_json::Value;

/// Follows a path such as `.status.conditions[?(@.type=="Ready")].status` or `.spec.list[0]`.
pub(super) fn find(object: &Value, path: &str) -> Value {
    let mut value = object;
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(tail) = rest.strip_prefix("[?(@.") {
            let Some((test, after)) = tail.split_once(")]") else {
                return Value::Null;
            };
            let Some((field, wanted)) = test.split_once("==") else {
                return Value::Null;
            };
            let wanted = wanted.trim().trim_matches(['"', '\'']);
            let hit = value
                .as_array()
                .into_iter()
                .flatten()
                .find(|v| v[field.trim()].as_str() == Some(wanted));
            let Some(hit) = hit else { return Value::Null };
            (value, rest) = (hit, after);
        } else if let Some(tail) = rest.strip_prefix('[') {
            let Some((index, after)) = tail.split_once(']') else {
                return Value::Null;
            };
            let plain = index.trim_matches(['"', '\'']);
            // Of several values the first is shown.
            let length = value.as_array().map_or(0, Vec::len);
            let start = index.split(':').next().unwrap_or_default();
            value = match start.parse::<i64>() {
                Ok(n) => match usize::try_from(n) {
                    Ok(n) => &value[n],
                    Err(_) => usize::try_from(n.unsigned_abs())
                        .ok()
                        .and_then(|back| length.checked_sub(back))
                        .map_or(&Value::Null, |at| &value[at]),
                },
                Err(_) if matches!(start, "*" | "") && value.is_array() => &value[0],
                Err(_) => &value[plain],
            };
            rest = after;
        } else {
            let tail = rest.trim_start_matches('.');
            let mut end = tail.len();
            let mut escaped = false;
            for (at, c) in tail.char_indices() {
                if !escaped && matches!(c, '.' | '[') {
                    end = at;
                    break;
                }
                escaped = c == '\\';
            }
            value = &value[tail[..end].replace('\\', "").as_str()];
            rest = &tail[end..];
        }
    }
    value.clone()
}

/// How long ago a time was, as kubectl says it.
pub(super) fn age(text: &str, now: Timestamp) -> String {
    let Ok(then) = text.parse::<Timestamp>() else {
        return "<unknown>".to_owned();
    };
    let seconds = (now.as_second() - then.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |big: i64, unit: &str, small: i64, sub: &str| {
        if small == 0 {
            format!("{big}{unit}")
        } else {
            format!("{big}{unit}{small}{sub}")
        }
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => pair(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}
