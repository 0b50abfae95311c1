//! The class cache: classes of texts seen before, for one worker thread and one database.
//!
//! Two tables. The first knows texts by their skeleton: a text that differs from an earlier one in
//! its literals and comments only, as the next execution of the same code does, costs a quick scan.
//! The second knows fingerprints, which also see through white space, letters' case and the lengths
//! of lists. What neither knows is classified, once, and entered in both. A third knows whole texts:
//! those that are prepared come again as they are.
//!
//! Invariants:
//! - Everything has a bound: [`CacheLimits`]. A full table drops what wasn't asked for again before what
//!   was; a flood of new texts can't push out those in use, nor make any call cost more than O(1).
//! - Entries are found by 128 bits of a keyed hash; no client can make two texts meet.
//! - All entries were made under one generation of the catalogue.
//! - Texts that can't be read are never entered: nothing that they share with another text is known.
//! - A skeleton never answers for texts whose literals may decide (SET, `'f'::regproc`, …): the
//!   table then has a note that the fingerprint, which keeps them, must be asked.

mod table;
mod unknown;

pub use unknown::Unknown;

use std::time::Instant;

use super::{
    Access, Class, Lexing, Why,
    fingerprint::{self, Buffer, Fingerprint, Form, Key},
};
use table::{Table, halves, whole};
use unknown::UnknownTexts;

/// Longer texts aren't looked at: they go to the primary. In bytes.
pub const LONGEST_TEXT: usize = 1 << 20;

/// How much a cache may keep.
#[derive(Clone, Copy, Debug)]
pub struct CacheLimits {
    /// Entries of each of the three tables: rounded up to a power of two. An entry takes 40 to 56 bytes.
    pub entries: usize,
    /// Fingerprints that are kept on the primary at one time.
    pub leaning: usize,
    /// Fingerprints of unknown texts that are counted, with a sample each (1 KiB at most).
    pub unknown: usize,
}

impl Default for CacheLimits {
    /// Under one mebibyte.
    fn default() -> Self {
        Self {
            entries: 8192,
            leaning: 128,
            unknown: 128,
        }
    }
}

/// What happened so far, as counters that only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Found as it is.
    pub text_hits: u64,
    /// Found by the skeleton.
    pub skeleton_hits: u64,
    /// Found by the fingerprint.
    pub fingerprint_hits: u64,
    /// Classified.
    pub misses: u64,
    /// Not even tokens could be read.
    pub unreadable: u64,
    /// Longer than [`LONGEST_TEXT`].
    pub too_long: u64,
    /// Entries dropped for others.
    pub evictions: u64,
    /// Times that a new generation emptied the cache.
    pub flushes: u64,
}

/// See the module's description.
#[derive(Debug)]
pub struct ClassCache {
    key: Key,
    generation: u64,
    skeletons: Table<Skeleton>,
    fingerprints: Table<Class>,
    texts: Table<Class>,
    leaning: Vec<(Fingerprint, Instant)>,
    /// The latest end in `leaning`.
    leaning_until: Option<Instant>,
    unknown: UnknownTexts,
    stats: CacheStats,
    limits: CacheLimits,
    /// The skeleton or canonical form of the text in hand.
    form: Buffer,
}

/// What is known of the texts with one skeleton.
#[derive(Clone, Copy, Debug)]
enum Skeleton {
    /// Their class and their fingerprint.
    Known(Class, [u64; 2]),
    /// Literals may decide.
    AskFingerprint,
}

/// Longer texts aren't known as they are: reading all of one costs as much as its skeleton. In bytes.
const LONGEST_KEPT: usize = 16 << 10;

/// What of a form's buffer is kept from one text to the next, in bytes.
const FORM_KEPT: usize = 16 << 10;

impl ClassCache {
    /// An empty cache. `random`: bits that clients can't know.
    #[must_use]
    pub fn new(limits: CacheLimits, random: [u64; 4]) -> Self {
        Self {
            key: Key::new(random),
            generation: 0,
            skeletons: Table::new(limits.entries),
            fingerprints: Table::new(limits.entries),
            texts: Table::new(limits.entries),
            leaning: Vec::new(),
            leaning_until: None,
            unknown: UnknownTexts::new(limits.unknown),
            stats: CacheStats::default(),
            limits,
            form: Buffer::default(),
        }
    }

    /// The same for a text that is likely to come again as it is, literals and all: one that is
    /// prepared.
    pub fn classify_again(
        &mut self,
        text: &[u8],
        lexing: Lexing,
        generation: u64,
        classify: impl FnOnce() -> Class,
    ) -> Class {
        if text.len() > LONGEST_KEPT {
            return self.classify(text, lexing, generation, classify);
        }
        if generation != self.generation {
            self.flush(generation);
        }
        let key = self.key.hash(text, lexing);
        if let Some(class) = self.texts.get(key) {
            self.stats.text_hits += 1;
            return class;
        }
        let class = self.classify(text, lexing, generation, classify);
        if !is_counted(class) {
            self.texts.put(key, class);
        }
        class
    }

    /// The class of `text`: kept from before, or made by `classify` under the catalogue of this
    /// `generation`; another generation than the last one empties the cache.
    pub fn classify(
        &mut self,
        text: &[u8],
        lexing: Lexing,
        generation: u64,
        classify: impl FnOnce() -> Class,
    ) -> Class {
        if text.len() > LONGEST_TEXT {
            self.stats.too_long += 1;
            return Class::TOO_LONG;
        }
        if generation != self.generation {
            self.flush(generation);
        }
        let skeleton = fingerprint::skeleton(text, lexing, &mut self.form)
            .then(|| self.key.hash(self.form.bytes(), lexing));
        let known = skeleton.and_then(|skeleton| self.skeletons.get(skeleton));
        self.release_form();
        if let Some(Skeleton::Known(class, fingerprint)) = known {
            self.stats.skeleton_hits += 1;
            self.note(text, lexing, whole(fingerprint), class);
            return class;
        }
        let (form, Fingerprint(fingerprint)) = self.fingerprint(text, lexing);
        if form == Form::Unreadable {
            self.stats.unreadable += 1;
            self.note(text, lexing, fingerprint, Class::UNKNOWN);
            return Class::UNKNOWN;
        }
        let class = if let Some(class) = self.fingerprints.get(fingerprint) {
            self.stats.fingerprint_hits += 1;
            class
        } else {
            self.stats.misses += 1;
            let class = classify();
            self.fingerprints.put(fingerprint, class);
            class
        };
        if let Some(skeleton) = skeleton.filter(|_| known.is_none()) {
            let entry = if form == Form::Folded {
                Skeleton::Known(class, halves(fingerprint))
            } else {
                Skeleton::AskFingerprint
            };
            self.skeletons.put(skeleton, entry);
        }
        self.note(text, lexing, fingerprint, class);
        class
    }

    /// Replaces the class of all texts with this text's fingerprint: a node knew better.
    pub fn correct(&mut self, text: &[u8], lexing: Lexing, class: Class) {
        if text.len() > LONGEST_TEXT {
            return;
        }
        let (form, Fingerprint(hash)) = self.fingerprint(text, lexing);
        if form != Form::Unreadable {
            self.fingerprints.put(hash, class);
            self.texts.clear();
            let corrected = halves(hash);
            self.skeletons
                .retain(|entry| !matches!(entry, Skeleton::Known(_, of) if *of == corrected));
        }
    }

    /// Keeps texts with this text's fingerprint on the primary until `until`: they conflicted with
    /// recovery on a replica.
    pub fn lean(&mut self, text: &[u8], lexing: Lexing, until: Instant) {
        if text.len() > LONGEST_TEXT || self.limits.leaning == 0 {
            return;
        }
        let (Form::Folded | Form::Kept, fingerprint) = self.fingerprint(text, lexing) else {
            return;
        };
        if let Some((_, end)) = self.leaning.iter_mut().find(|(f, _)| *f == fingerprint) {
            *end = until.max(*end);
        } else {
            if self.leaning.len() >= self.limits.leaning
                && let Some(first) = (0..self.leaning.len()).min_by_key(|&i| self.leaning_end(i))
            {
                self.leaning.swap_remove(first);
            }
            self.leaning.push((fingerprint, until));
        }
        self.leaning_until = self.leaning_until.max(Some(until));
    }

    /// Whether this text leans to the primary at `now`. Costs nothing while no text does.
    pub fn leans(&mut self, text: &[u8], lexing: Lexing, now: Instant) -> bool {
        if self.leaning_until.is_none_or(|until| until <= now) {
            self.leaning.clear();
            self.leaning_until = None;
            return false;
        }
        if text.len() > LONGEST_TEXT {
            return false;
        }
        let (Form::Folded | Form::Kept, fingerprint) = self.fingerprint(text, lexing) else {
            return false;
        };
        self.leaning
            .iter()
            .any(|&(f, until)| f == fingerprint && until > now)
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            evictions: self.skeletons.evictions()
                + self.fingerprints.evictions()
                + self.texts.evictions(),
            ..self.stats
        }
    }

    /// Fingerprints with a class of their own.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fingerprints.len()
    }

    /// No fingerprint has been entered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory held, in bytes, without what the allocator adds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.skeletons.bytes()
            + self.fingerprints.bytes()
            + self.texts.bytes()
            + self.leaning.capacity() * size_of::<(Fingerprint, Instant)>()
            + self.unknown.bytes()
            + self.form.capacity()
    }

    /// Texts that might have been reads but went to the primary because they, a function or a
    /// relation in them isn't known; most frequent first.
    #[must_use]
    pub fn unknown(&self) -> Vec<Unknown> {
        self.unknown.list()
    }

    fn flush(&mut self, generation: u64) {
        if !self.fingerprints.is_empty() {
            self.stats.flushes += 1;
        }
        self.generation = generation;
        self.skeletons.clear();
        self.fingerprints.clear();
        self.texts.clear();
    }

    /// The text's fingerprint, or that of what can be read of it.
    fn fingerprint(&mut self, text: &[u8], lexing: Lexing) -> (Form, Fingerprint) {
        let form = fingerprint::canonical(text, lexing, &mut self.form);
        let found = Fingerprint(self.key.hash(self.form.bytes(), lexing));
        self.release_form();
        (form, found)
    }

    /// Gives the memory of a long form back.
    fn release_form(&mut self) {
        if self.form.capacity() > FORM_KEPT {
            self.form = Buffer::default();
        }
    }

    /// Counts the text if its class says that something about it isn't known.
    fn note(&mut self, text: &[u8], lexing: Lexing, fingerprint: u128, class: Class) {
        if is_counted(class)
            && let Access::Primary(why) = class.access
        {
            self.unknown
                .count(fingerprint, why, || fingerprint::sample(text, lexing));
        }
    }

    fn leaning_end(&self, place: usize) -> Option<Instant> {
        self.leaning.get(place).map(|&(_, end)| end)
    }
}

/// Each text of this class is counted, each time.
fn is_counted(class: Class) -> bool {
    matches!(
        class.access,
        Access::Primary(Why::Unparsable | Why::UnknownFunction | Why::UnknownRelation)
    )
}

#[cfg(test)]
mod tests;
