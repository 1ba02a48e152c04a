//! A terminal with a live picture in its last lines and the log above it.

use std::{
    io::{self, IsTerminal as _, Write},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Takes the cursor up over `n` lines and clears from there to the end.
fn up(n: usize) -> String {
    match n {
        0 => String::new(),
        n => format!("\x1b[{n}A\x1b[J"),
    }
}

#[derive(Debug, Default)]
struct Picture {
    text: String,
    height: usize,
}

/// The picture that stands there now. Whoever writes to the terminal holds it.
static PICTURE: Mutex<Picture> = Mutex::new(Picture {
    text: String::new(),
    height: 0,
});

fn picture() -> MutexGuard<'static, Picture> {
    // A writer that panicked leaves at worst a wrong height.
    PICTURE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a live picture can be shown.
pub(crate) fn is_live() -> bool {
    io::stdout().is_terminal()
}

/// Puts `lines` in the place of the picture, cut to the terminal's size.
pub(crate) fn draw<'a>(lines: impl Iterator<Item = &'a str>) {
    let (width, height) = size();
    let (mut text, mut count) = (String::new(), 0);
    for line in lines.take(height) {
        cut(line, width, &mut text);
        text.push('\n');
        count += 1;
    }
    let mut picture = picture();
    if text == picture.text {
        return;
    }
    let mut out = io::stdout().lock();
    // A closed terminal ends the showing, not the engine.
    out.write_all((up(picture.height) + &text).as_bytes())
        .and_then(|()| out.flush())
        .ok();
    (picture.text, picture.height) = (text, count);
}

/// Writes below everything that was shown, and forgets the picture.
pub(crate) fn leave() {
    *picture() = Picture::default();
}

fn cut(line: &str, width: usize, out: &mut String) {
    if line.chars().count() <= width {
        out.push_str(line);
    } else {
        out.extend(line.chars().take(width.saturating_sub(1)));
        out.push('…');
    }
}

/// Width and height that the live picture may take.
fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 1 && size.ws_row > 2 => {
            (usize::from(size.ws_col) - 1, usize::from(size.ws_row) - 2)
        }
        _ => (119, 40),
    }
}

/// Where log lines go: standard error, above the picture where both are on the terminal.
#[derive(Debug, Default)]
pub(crate) struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let picture = picture();
        let mut error = io::stderr().lock();
        if picture.height == 0 || !error.is_terminal() {
            error.write_all(line)?;
            return Ok(line.len());
        }
        let mut all = up(picture.height).into_bytes();
        all.extend_from_slice(line);
        all.extend_from_slice(picture.text.as_bytes());
        error.write_all(&all)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_cut_where_the_terminal_ends() {
        let mut out = String::new();
        cut("äöü", 3, &mut out);
        assert_eq!(out, "äöü");
        out.clear();
        cut("äöüß", 3, &mut out);
        assert_eq!(out, "äö…");
    }
}
