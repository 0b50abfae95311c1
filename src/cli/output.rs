//! What commands print. Text of nodes and proxies can hold anything: control characters never
//! reach the terminal.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the one place of the commands that prints"
)]

use std::{
    fmt::{self, Write as _},
    io::{self, IsTerminal as _, Write as _},
};

/// Prints lines to standard output.
pub(super) fn line(text: impl fmt::Display) {
    let clean = printable(&text.to_string(), |c| c.escape_unicode().to_string());
    write(&mut io::stdout().lock(), &clean);
}

/// Prints lines to standard error, behind the program's name.
pub(super) fn error(text: impl fmt::Display) {
    let clean = printable(&text.to_string(), |c| c.escape_unicode().to_string());
    write(&mut io::stderr().lock(), &format!("pgsplit: {clean}"));
}

/// Prints lines to standard error as they are: `file:line:column: …` for editors.
pub(super) fn diagnostics(text: impl fmt::Display) {
    let clean = printable(&text.to_string(), |c| c.escape_unicode().to_string());
    write(&mut io::stderr().lock(), &clean);
}

/// Prints JSON to standard output.
pub(super) fn json(value: &serde_json::Value) {
    let text = format!("{value:#}");
    let clean = printable(&text, |c| format!("\\u{:04x}", u32::from(c)));
    write(&mut io::stdout().lock(), &clean);
}

/// Empties the terminal, if standard output is one.
pub(super) fn clear() {
    if io::stdout().is_terminal() {
        let _ended = io::stdout().lock().write_all(b"\x1b[H\x1b[2J");
    }
}

/// Standard output is still read by someone.
pub(super) fn is_read() -> bool {
    io::stdout().lock().flush().is_ok()
}

fn write(to: &mut impl io::Write, text: &str) {
    // Whoever read has left (`| head`): nothing to tell anyone.
    let _ended = writeln!(to, "{text}").and_then(|()| to.flush());
}

/// `text` with control characters but line ends replaced.
fn printable(text: &str, escape: impl Fn(char) -> String) -> String {
    text.chars()
        .fold(String::with_capacity(text.len()), |mut clean, c| {
            if c.is_control() && c != '\n' {
                clean.push_str(&escape(c));
            } else {
                clean.push(c);
            }
            clean
        })
}

/// Columns under their headers; numbers are for the caller to format.
pub(super) fn table(headers: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .chain(headers.get(column).map(|header| header.chars().count()))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headers.len()).map(width).collect();
    let mut text = String::new();
    let heads: Vec<String> = headers.iter().map(|header| (*header).to_owned()).collect();
    for row in std::iter::once(&heads).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a string can't fail.
            let _written = write!(line, "{cell:width$}  ", width = *width);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_not_sent() {
        let escaped = printable("a\x1b[2Jb\u{9b}c\nd", |c| c.escape_unicode().to_string());
        assert_eq!(escaped, "a\\u{1b}[2Jb\\u{9b}c\nd");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            vec!["pg1".to_owned(), "up".to_owned()],
            vec!["ü".to_owned(), String::new()],
        ];
        assert_eq!(table(&["NODE", "H"], &rows), "NODE  H\npg1   up\nü");
    }
}
