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
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        "hexcolor" => matches(&HEX_COLOR, text),
        "rgbcolor" => matches(&RGB_COLOR, text),
        "ssn" => matches(&SSN, text),
        "creditcard" => credit_card(text),
        "isbn" => isbn10(text) || isbn13(text),
        "isbn10" => isbn10(text),
        "isbn13" => isbn13(text),
        "k8s-short-name" => text.len() <= 63 && matches(&SHORT_NAME, text),
        "k8s-long-name" => text.len() <= 253 && matches(&LONG_NAME, text),
        _ => true,
    }
}

type Pattern = LazyLock<Option<Regex>>;

static DURATION: Pattern = LazyLock::new(|| {
    Regex::new(
        r"^(?i)(p(\d+y)?(\d+m)?(\d+w)?(\d+d)?(t(\d+h)?(\d+m)?(\d+(\.\d+)?s)?)?|[+-]?(0|((\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h))+|\d+\s*(ns|nanos?(econds?)?|us|µs|micros?(econds?)?|ms|millis?(econds?)?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|wks?|weeks?)))$",
    )
    .ok()
});
static HEX_COLOR: Pattern = LazyLock::new(|| Regex::new(r"^(?i)#?([0-9a-f]{3}|[0-9a-f]{6})$").ok());
static RGB_COLOR: Pattern = LazyLock::new(|| {
    let part = r"\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*";
    Regex::new(&format!(r"^rgb\({part},{part},{part}\)$")).ok()
});
static SSN: Pattern = LazyLock::new(|| Regex::new(r"^\d{3}[- ]?\d{2}[- ]?\d{4}$").ok());
static SHORT_NAME: Pattern = LazyLock::new(|| Regex::new(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$").ok());
static LONG_NAME: Pattern = LazyLock::new(|| {
    Regex::new(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$").ok()
});
static UUID: Pattern = LazyLock::new(|| {
    Regex::new(r"^(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$").ok()
});
static MAC: Pattern = LazyLock::new(|| {
    Regex::new(r"^(?i)([0-9a-f]{2}([:-][0-9a-f]{2}){5}([:-][0-9a-f]{2}){0,2}|[0-9a-f]{4}(\.[0-9a-f]{4}){2,3})$").ok()
});
static HOSTNAME: Pattern = LazyLock::new(|| {
    Regex::new(
        r"^(?i)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*([a-z]{2,63}|[a-z0-9][a-z0-9-]{0,61}[a-z0-9]|[a-z0-9])\.?$",
    )
    .ok()
});
static EMAIL: Pattern = LazyLock::new(|| Regex::new(r"^[^@\s<>,;]+@[^@\s<>,;]*[^@\s<>,;.]$").ok());
static URI: Pattern = LazyLock::new(|| Regex::new(r"^([A-Za-z][A-Za-z0-9+.-]*:\S+|/\S*)$").ok());

fn matches(pattern: &Pattern, text: &str) -> bool {
    pattern.as_ref().is_none_or(|p| p.is_match(text))
}

fn digits(text: &str) -> Vec<u32> {
    text.chars().filter_map(|c| c.to_digit(10)).collect()
}

/// The check digit of a card is right, and it has as many digits as cards have.
fn credit_card(text: &str) -> bool {
    let digits = digits(text);
    let plain = text
        .chars()
        .all(|c| c.is_ascii_digit() || matches!(c, ' ' | '-'));
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(i, d)| match (i % 2, d * 2) {
            (0, _) => *d,
            (_, twice) if twice > 9 => twice - 9,
            (_, twice) => twice,
        })
        .sum();
    plain && (13..=16).contains(&digits.len()) && sum.is_multiple_of(10)
}

fn isbn10(text: &str) -> bool {
    let plain: String = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    let values: Option<Vec<u32>> = plain
        .chars()
        .enumerate()
        .map(|(i, c)| match c {
            'X' if i == 9 => Some(10),
            c => c.to_digit(10),
        })
        .collect();
    values.is_some_and(|values| {
        let sum: u32 = (1u32..).zip(&values).map(|(i, value)| i * value).sum();
        values.len() == 10 && sum.is_multiple_of(11)
    })
}

fn isbn13(text: &str) -> bool {
    let digits = digits(text);
    let plain = text
        .chars()
        .all(|c| c.is_ascii_digit() || matches!(c, ' ' | '-'));
    let sum: u32 = digits
        .iter()
        .enumerate()
        .map(|(i, d)| if i % 2 == 0 { *d } else { 3 * d })
        .sum();
    plain && digits.len() == 13 && sum.is_multiple_of(10)
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
