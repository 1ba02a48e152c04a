//! What a comment says: our marker, which no reader sees, and as much of the text as the forge takes.

/// Said at the end of a text that was cut.
const CUT: &str = "_The rest is left out: the forge takes no longer comment. `fleetwright plan` shows all of it._";

/// The first line of our comment about `context`.
pub(super) fn marker(context: &str) -> String {
    let mut text = String::new();
    for c in context.chars() {
        match c {
            c if c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | ':') => {
                text.push(c);
            }
            // Nothing that could end the marker.
            c => text.push_str(&format!("%{:X}", u32::from(c))),
        }
    }
    format!("<!-- fleetwright:{text} -->")
}

/// Whether a comment begins with the marker. One that quotes it further down is another one.
pub(super) fn is_marked(body: &str, marker: &str) -> bool {
    body.lines().next().map(str::trim_end) == Some(marker)
}

/// The whole comment, in at most `most` characters.
pub(super) fn render(context: &str, body: &str, most: usize) -> String {
    let marker = marker(context);
    let room = most.saturating_sub(marker.chars().count() + 1);
    format!("{marker}\n{}", fit(body, room))
}

/// The text in at most `most` characters: cut after a line, code fences closed, and with a sentence that says so.
fn fit(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 0;
    let mut fence: Option<Fence> = None;
    // What has to follow the lines that are taken: the fence's end, an empty line, the sentence.
    let rest = |fence: &Option<Fence>| fence.map_or(0, |f| f.length + 1) + 1 + CUT.chars().count();
    for line in text.split_inclusive('\n') {
        let after = Fence::after(fence, line);
        let length = line.chars().count();
        if used + length + rest(&after) > most {
            // Of a first line that is too long itself, as much as there is room for.
            if out.is_empty() {
                let room = most.saturating_sub(rest(&None) + 1);
                out.extend(line.chars().take(room));
                out.push('\n');
            }
            break;
        }
        out.push_str(line);
        used += length;
        fence = after;
    }
    if let Some(fence) = fence {
        out.extend(std::iter::repeat_n(fence.mark, fence.length));
        out.push('\n');
    }
    format!("{out}\n{CUT}")
}

/// An open block of code: its marks, and how many at least close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fence {
    mark: char,
    length: usize,
}

impl Fence {
    /// What is open after a line, as CommonMark has it.
    fn after(open: Option<Self>, line: &str) -> Option<Self> {
        let text = line.trim_end();
        let indented = text.trim_start_matches(' ');
        let mark = indented.chars().next().filter(|c| matches!(c, '`' | '~'));
        let Some(mark) = mark.filter(|_| text.len() - indented.len() <= 3) else {
            return open;
        };
        let length = indented.chars().take_while(|c| *c == mark).count();
        let info = indented.trim_start_matches(mark);
        match open {
            Some(fence) if fence.mark == mark && length >= fence.length && info.is_empty() => None,
            Some(fence) => Some(fence),
            None if length >= 3 && !(mark == '`' && info.contains('`')) => {
                Some(Self { mark, length })
            }
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers() {
        assert_eq!(marker("a/b.c-d"), "<!-- fleetwright:a/b.c-d -->");
        assert_eq!(marker("a --> b"), "<!-- fleetwright:a%20--%3E%20b -->");
        let ours = marker("ctx");
        for (body, want) in [
            ("<!-- fleetwright:ctx -->\ntext", true),
            ("<!-- fleetwright:ctx -->\r\ntext", true),
            ("<!-- fleetwright:ctx -->", true),
            ("<!-- fleetwright:ctx/more -->\ntext", false),
            ("> <!-- fleetwright:ctx -->\ntext", false),
            ("text\n<!-- fleetwright:ctx -->", false),
            ("", false),
        ] {
            assert_eq!(is_marked(body, &ours), want, "{body}");
        }
    }

    #[test]
    fn what_fits_stays_and_what_does_not_is_cut_after_a_line() {
        assert_eq!(render("c", "text\n", 100), "<!-- fleetwright:c -->\ntext\n");
        let most = 400;
        let lines = |open: &str| format!("{open}\n{}", "a line of äöü\n".repeat(100));
        for (text, closing) in [
            (lines(""), None),
            (lines("```yaml"), Some("```")),
            (lines("~~~~"), Some("~~~~")),
            (lines("  ````"), Some("````")),
            (lines("```\n```"), None),
            (lines("```\n~~~"), Some("```")),
            (lines("````\n```"), Some("````")),
            (lines("    ```"), None),
            (lines("`` ` ``"), None),
            (lines("```a`b"), None),
            (lines("```\n``` no end"), Some("```")),
        ] {
            let got = render("c", &text, most);
            assert!(got.chars().count() <= most, "{got}");
            assert!(got.chars().count() > most - 30, "room is used: {got}");
            let before = got.strip_suffix(&format!("\n{CUT}")).unwrap();
            let last = before.trim_end().lines().last().unwrap();
            assert_eq!(last, closing.unwrap_or("a line of äöü"), "{got}");
            // Nothing is open after it.
            let open = got.lines().skip(1).fold(None, Fence::after);
            assert_eq!(open, None, "{got}");
        }
    }

    #[test]
    fn one_long_line_is_cut_in_it() {
        let got = render("c", &"ä".repeat(5_000), 1_000);
        assert_eq!(got.chars().count(), 1_000);
        assert!(got.ends_with(CUT));
        let exact = "x".repeat(1_000 - marker("c").len() - 1);
        assert!(!render("c", &exact, 1_000).contains(CUT));
        assert!(render("c", &format!("{exact}x"), 1_000).contains(CUT));
    }
}
