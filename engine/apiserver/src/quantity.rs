//! Amounts such as `1500m` or `2Gi`, in the one form in which Kubernetes writes each of them.

const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// What is said of a text that is no quantity.
pub(crate) const FAULT: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// The form in which a quantity is written; `None` when the text is none.
pub(crate) fn canonical(text: &str) -> Option<String> {
    let digits = text.trim_start_matches(['+', '-']);
    let split = digits
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(digits.len());
    let (number, suffix) = digits.split_at(split);
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let sign = match text.len() - digits.len() {
        0 => 1,
        1 if text.starts_with('-') => -1,
        1 => 1,
        _ => return None,
    };
    let plain = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
    if whole.len() + part.len() == 0 || !plain(whole) || !plain(part) {
        return None;
    }
    // What has an exponent of its own, or more digits than count, stays as it is written.
    let exponent = suffix.strip_prefix(['e', 'E']);
    if exponent.is_some_and(|e| !e.is_empty() && e.parse::<i32>().is_ok()) {
        return Some(text.to_owned());
    }
    let binary = BINARY.iter().position(|s| *s == suffix && !s.is_empty());
    let decimal = DECIMAL.iter().find(|(s, _)| *s == suffix);
    if binary.is_none() && decimal.is_none() {
        return None;
    }
    let scaled = nanos(whole, part, binary, decimal.map_or(0, |(_, power)| *power));
    let Some(nanos) = scaled else {
        return Some(text.to_owned());
    };
    let nanos = nanos * sign;
    let whole = nanos / 1_000_000_000;
    if binary.is_some() && nanos % 1_000_000_000 == 0 && whole.abs() >= 1024 {
        return Some(reduced(whole, 1024, &BINARY));
    }
    let names = DECIMAL.map(|(name, _)| name);
    Some(if nanos == 0 {
        "0".to_owned()
    } else {
        reduced(nanos, 1000, &names)
    })
}

/// The amount in billionths, rounded away from zero; `None` when it is too large to be counted.
fn nanos(whole: &str, part: &str, binary: Option<usize>, power: i32) -> Option<i128> {
    let part = part.trim_end_matches('0');
    let digits: i128 = format!("{whole}{part}").parse().ok()?;
    let mut amount = digits;
    for _ in 0..binary.unwrap_or(0) {
        amount = amount.checked_mul(1024)?;
    }
    let scale = 9 + power - i32::try_from(part.len()).ok()?;
    let factor = 10_i128.checked_pow(scale.unsigned_abs())?;
    if scale >= 0 {
        amount.checked_mul(factor)
    } else {
        Some((amount + factor - 1) / factor)
    }
}

fn reduced(mut amount: i128, step: i128, names: &[&str]) -> String {
    let mut at = 0;
    while amount % step == 0 && at + 1 < names.len() {
        amount /= step;
        at += 1;
    }
    format!("{amount}{}", names.get(at).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_amount_has_one_form() {
        let table = [
            ("1000m", Some("1")),
            ("0.5", Some("500m")),
            ("2", Some("2")),
            ("1024Mi", Some("1Gi")),
            ("1000Mi", Some("1000Mi")),
            ("1.5Gi", Some("1536Mi")),
            ("1000", Some("1k")),
            ("0", Some("0")),
            ("-1500m", Some("-1500m")),
            ("1e3", Some("1e3")),
            ("0.1n", Some("1n")),
            ("512Ki", Some("512Ki")),
            ("x", None),
            ("1x", None),
            ("", None),
            ("1.2.3", None),
        ];
        for (text, want) in table {
            assert_eq!(super::canonical(text).as_deref(), want, "{text}");
        }
    }
}
