//! Counts texts about which something isn't known, the frequent ones in a bounded table.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::sql::Why;

/// One shape of text that pgsplit couldn't tell to be a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    pub why: Why,
    /// How often; may include texts that this one replaced in the full table.
    pub count: u64,
    /// The beginning of one such text, without its literals.
    pub sample: Box<str>,
}

/// The most frequent ones, by the space-saving algorithm: what the full table doesn't know
/// replaces the rarest and takes over its count, so that whatever comes more often than the rarest
/// is in the table.
#[derive(Debug)]
pub(super) struct UnknownTexts {
    /// The keys are hashes already.
    counts: HashMap<u128, Unknown, FixedState>,
    most: usize,
}

impl UnknownTexts {
    pub(super) fn new(most: usize) -> Self {
        Self {
            counts: HashMap::default(),
            most,
        }
    }

    /// Counts one text; `sample` is asked for when it is new to the table.
    pub(super) fn count(&mut self, key: u128, why: Why, sample: impl FnOnce() -> Box<str>) {
        if let Some(known) = self.counts.get_mut(&key) {
            known.count += 1;
            known.why = why;
            return;
        }
        let mut count = 1;
        if self.counts.len() >= self.most {
            let rarest = self.counts.iter().min_by_key(|(_, known)| known.count);
            let Some((&rarest, known)) = rarest else {
                return;
            };
            count += known.count;
            self.counts.remove(&rarest);
        }
        let sample = sample();
        self.counts.insert(key, Unknown { why, count, sample });
    }

    /// Most frequent first.
    pub(super) fn list(&self) -> Vec<Unknown> {
        let mut list: Vec<_> = self.counts.values().cloned().collect();
        list.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.sample.cmp(&b.sample)));
        list
    }

    pub(super) fn bytes(&self) -> usize {
        let samples: usize = self.counts.values().map(|u| u.sample.len()).sum();
        self.counts.capacity() * (size_of::<u128>() + size_of::<Unknown>() + 1) + samples
    }
}
