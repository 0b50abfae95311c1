//! What is wrong with a configuration: every mistake with its place, all of them at once.

use std::fmt;

/// Mistakes reported at a time; a file with more is not a configuration.
const MOST: usize = 100;

/// A line and a column, both counted from 1; columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

/// Where the lines of a text begin.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        let behind = text.match_indices('\n').map(|(end, _)| end + 1);
        Self {
            text,
            starts: std::iter::once(0).chain(behind).collect(),
        }
    }

    /// The place of a byte of the text.
    pub(crate) fn place(&self, byte: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= byte);
        let start = line
            .checked_sub(1)
            .and_then(|n| self.starts.get(n))
            .copied()
            .unwrap_or(0);
        let before = self
            .text
            .as_bytes()
            .get(start..byte.min(self.text.len()))
            .unwrap_or_default();
        // A character's other bytes all begin with the bits 10.
        let column = before.iter().filter(|byte| **byte & 0xC0 != 0x80).count() + 1;
        Place { line, column }
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file's name, a flag or a variable.
    pub source: String,
    /// In the file.
    pub place: Option<Place>,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if let Some(Place { line, column }) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// All mistakes, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    all: Vec<Problem>,
    more: usize,
}

impl Problems {
    pub(crate) fn push(&mut self, problem: Problem) {
        if self.all.len() < MOST {
            self.all.push(problem);
        } else {
            self.more += 1;
        }
    }

    /// Mistakes of a file come in its order, flags and variables before them.
    pub(crate) fn sorted(mut self) -> Self {
        self.all.sort_by_key(|problem| problem.place);
        self
    }

    /// Nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.all.iter()
    }
}

/// One line each.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.all.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        if self.more > 0 {
            write!(f, "\n… and {} more", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_from_one_and_in_characters() {
        let text = "a = 1\nä = \"ö\" x\n";
        let lines = Lines::of(text);
        for (byte, line, column) in [(0, 1, 1), (5, 1, 6), (6, 2, 1), (14, 2, 7), (99, 3, 1)] {
            assert_eq!(lines.place(byte), Place { line, column }, "{byte}");
        }
    }
}
