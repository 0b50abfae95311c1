//! A table from 128-bit hashes to classes: set-associative, so that every operation looks at
//! [`WAYS`] neighbouring slots and nothing else.
//!
//! Replacement within a set is by second chance: a slot that was asked for since it was last
//! passed over is spared once. Texts that are never seen again replace each other, since a new
//! entry has to be asked for before it is spared.

use crate::sql::Class;

/// See the module's description. Starts small and doubles up to its limit.
#[derive(Debug)]
pub(super) struct Table {
    sets: Vec<Set>,
    most_sets: usize,
    used: usize,
    evictions: u64,
}

type Set = [Option<Slot>; WAYS];

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Two halves rather than one number: keeps the slot at 8-byte alignment.
    key: [u64; 2],
    tag: [u64; 2],
    class: Class,
    /// Asked for since it was entered or last passed over.
    warm: bool,
}

const WAYS: usize = 4;
const FIRST_SETS: usize = 8;

impl Table {
    /// Room for `entries`, rounded up to a power of two.
    pub(super) fn new(entries: usize) -> Self {
        Self {
            sets: Vec::new(),
            most_sets: entries.div_ceil(WAYS).next_power_of_two(),
            used: 0,
            evictions: 0,
        }
    }

    /// The class and tag kept under `key`.
    #[inline]
    pub(super) fn get(&mut self, key: u128) -> Option<(Class, u128)> {
        let halves = halves(key);
        let slot = self
            .set(key)?
            .iter_mut()
            .flatten()
            .find(|slot| slot.key == halves)?;
        slot.warm = true;
        Some((slot.class, whole(slot.tag)))
    }

    /// Keeps `class` and `tag` under `key`, in place of what was kept there.
    pub(super) fn put(&mut self, key: u128, class: Class, tag: u128) {
        if self.used * 4 >= self.sets.len() * WAYS * 3 && self.sets.len() < self.most_sets {
            self.grow();
        }
        self.place(Slot {
            key: halves(key),
            tag: halves(tag),
            class,
            warm: false,
        });
    }

    /// Drops all entries with this tag. Looks at the whole table.
    pub(super) fn remove_tagged(&mut self, tag: u128) {
        let tag = halves(tag);
        for slot in self.sets.iter_mut().flatten() {
            if slot.is_some_and(|slot| slot.tag == tag) {
                *slot = None;
                self.used -= 1;
            }
        }
    }

    /// Drops all entries and their memory.
    pub(super) fn clear(&mut self) {
        self.sets = Vec::new();
        self.used = 0;
    }

    pub(super) fn len(&self) -> usize {
        self.used
    }

    pub(super) fn is_empty(&self) -> bool {
        self.used == 0
    }

    pub(super) fn evictions(&self) -> u64 {
        self.evictions
    }

    pub(super) fn bytes(&self) -> usize {
        self.sets.capacity() * size_of::<Set>()
    }

    fn set(&mut self, key: u128) -> Option<&mut Set> {
        // A power of two, or none.
        let mask = self.sets.len().wrapping_sub(1);
        self.sets.get_mut(key as usize & mask)
    }

    fn place(&mut self, new: Slot) {
        let Some(set) = self.set(whole(new.key)) else {
            return;
        };
        let same = set
            .iter_mut()
            .find(|slot| slot.is_some_and(|slot| slot.key == new.key));
        if let Some(slot) = same {
            *slot = Some(new);
            return;
        }
        if let Some(free) = set.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(new);
            self.used += 1;
            return;
        }
        if set.iter().flatten().all(|slot| slot.warm) {
            for slot in set.iter_mut().flatten() {
                slot.warm = false;
            }
        }
        if let Some(cold) = set.iter_mut().find(|slot| slot.is_some_and(|s| !s.warm)) {
            *cold = Some(new);
            self.evictions += 1;
        }
    }

    fn grow(&mut self) {
        let sets = (self.sets.len() * 2).clamp(FIRST_SETS.min(self.most_sets), self.most_sets);
        let old = std::mem::replace(&mut self.sets, vec![[None; WAYS]; sets]);
        self.used = 0;
        for slot in old.into_iter().flatten().flatten() {
            self.place(slot);
        }
    }
}

fn halves(hash: u128) -> [u64; 2] {
    [hash as u64, (hash >> 64) as u64]
}

fn whole([low, high]: [u64; 2]) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}
