//! Which statements keep going to the primary although they may be reads: `SHOW QUERIES`.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// One fingerprint's count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementCount {
    /// Of the text without its literals.
    pub fingerprint: u64,
    /// A routing reason's name.
    pub reason: &'static str,
    /// Upper bound: a statement that came in place of another one starts with that one's count.
    pub count: u64,
    /// Lower bound.
    pub at_least: u64,
    /// The text without its literals, cut off at [`StatementCounts::TEXT`] bytes.
    pub text: String,
}

/// The most frequent statements, by fingerprint and reason, in bounded memory ("space saving":
/// when full, the least frequent makes room and leaves its count as the newcomer's error bound).
#[derive(Debug, Default)]
pub struct StatementCounts(Mutex<HashMap<(u64, &'static str), Entry, foldhash::fast::RandomState>>);

#[derive(Debug)]
struct Entry {
    count: u64,
    inherited: u64,
    text: String,
}

impl StatementCounts {
    /// Statements kept at most.
    pub const KEPT: usize = 256;
    /// Bytes of text kept at most.
    pub const TEXT: usize = 500;

    /// Counts one; `text` is asked for the text without its literals when it is new here.
    pub fn note(&self, fingerprint: u64, reason: &'static str, text: impl FnOnce() -> String) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (fingerprint, reason);
        if let Some(entry) = entries.get_mut(&key) {
            entry.count += 1;
            return;
        }
        let mut inherited = 0;
        if entries.len() >= Self::KEPT {
            let rarest = entries.iter().min_by_key(|(_key, entry)| entry.count);
            if let Some((key, count)) = rarest.map(|(key, entry)| (*key, entry.count)) {
                entries.remove(&key);
                inherited = count;
            }
        }
        let mut text = text();
        let end = (0..=Self::TEXT.min(text.len()))
            .rev()
            .find(|end| text.is_char_boundary(*end))
            .unwrap_or(0);
        text.truncate(end);
        entries.insert(
            key,
            Entry {
                count: inherited + 1,
                inherited,
                text,
            },
        );
    }

    /// All that are kept, the most frequent first.
    #[must_use]
    pub fn list(&self) -> Vec<StatementCount> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<_> = entries
            .iter()
            .map(|((fingerprint, reason), entry)| StatementCount {
                fingerprint: *fingerprint,
                reason,
                count: entry.count,
                at_least: entry.count - entry.inherited,
                text: entry.text.clone(),
            })
            .collect();
        list.sort_by(|a, b| {
            (b.count, a.fingerprint, a.reason).cmp(&(a.count, b.fingerprint, b.reason))
        });
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frequent_ones_survive_many_rare_ones() {
        let counts = StatementCounts::default();
        for _ in 0..1_000 {
            counts.note(1, "unparsable", || "SELECT $1".into());
        }
        for rare in 10..10_000 {
            counts.note(rare, "unparsable", || "x".into());
        }
        let list = counts.list();
        assert_eq!(list.len(), StatementCounts::KEPT);
        assert_eq!(
            (list[0].fingerprint, list[0].count, list[0].at_least),
            (1, 1_000, 1_000)
        );
        assert!(list.iter().all(|s| s.at_least <= s.count));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let counts = StatementCounts::default();
        counts.note(1, "too_long", || "é".repeat(10_000));
        assert!(counts.list()[0].text.len() <= StatementCounts::TEXT);
    }
}
