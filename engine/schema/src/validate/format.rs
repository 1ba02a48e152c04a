//! Formats of strings.

use regex::Regex;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

/// Whether a string has a format; formats that are not known are not checked.
pub(super) fn fits(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => date_time(text),
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "duration" => matches(&DURATION, text),
        "byte" => base64(text),
        "uuid" => matches(&UUID, text),
        "uuid3" => matches(&UUID, text) && version(text) == Some('3'),
        "uuid4" => matches(&UUID, text) && version(text) == Some('4'),
        "uuid5" => matches(&UUID, text) && version(text) == Some('5'),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => cidr(text),
        "mac" => matches(&MAC, text),
        "hostname" => text.len() <= 255 && matches(&HOSTNAME, text),
        "email" => matches(&EMAIL, text),
        "uri" => matches(&URI, text),
        _ => true,
    }
}

type Pattern = LazyLock<Option<Regex>>;

static DURATION: Pattern = LazyLock::new(|| {
    Regex::new(
        r"^(?i)[+-]?(0|((\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h))+|\d+\s*(ns|nanos?(econds?)?|us|µs|micros?(econds?)?|ms|millis?(econds?)?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|wks?|weeks?))$",
    )
    .ok()
});
static UUID: Pattern = LazyLock::new(|| {
    Regex::new(r"^(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$").ok()
});
static MAC: Pattern = LazyLock::new(|| {
    Regex::new(r"^(?i)([0-9a-f]{2}([:-][0-9a-f]{2}){5}([:-][0-9a-f]{2}){0,2}|[0-9a-f]{4}(\.[0-9a-f]{4}){2,3})$").ok()
});
static HOSTNAME: Pattern = LazyLock::new(|| {
    Regex::new(
        r"^(?i)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*\.?$",
    )
    .ok()
});
static EMAIL: Pattern = LazyLock::new(|| Regex::new(r"^[^@\s<>,;]+@[^@\s<>,;]*[^@\s<>,;.]$").ok());
static URI: Pattern = LazyLock::new(|| Regex::new(r"^([A-Za-z][A-Za-z0-9+.-]*:\S+|/\S*)$").ok());

fn matches(pattern: &Pattern, text: &str) -> bool {
    pattern.as_ref().is_none_or(|p| p.is_match(text))
}

fn version(uuid: &str) -> Option<char> {
    uuid.chars().filter(|c| *c != '-').nth(12)
}

/// RFC 3339: a date, `T`, a time, and `Z` or an offset.
fn date_time(text: &str) -> bool {
    text.as_bytes()
        .get(10)
        .is_some_and(|c| c.eq_ignore_ascii_case(&b't'))
        && text.parse::<jiff::Timestamp>().is_ok()
}

fn cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return false;
    };
    let most = if address.parse::<Ipv4Addr>().is_ok() {
        32
    } else if address.parse::<Ipv6Addr>().is_ok() {
        128
    } else {
        return false;
    };
    bits.bytes().all(|b| b.is_ascii_digit()) && bits.parse::<u8>().is_ok_and(|b| b <= most)
}

/// Base64 of the standard alphabet, padded.
fn base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    text.len().is_multiple_of(4)
        && text.len() - body.len() <= 2
        && body
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
}
