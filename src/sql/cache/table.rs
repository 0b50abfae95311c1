//! A table from 128-bit hashes to values: set-associative, so that every operation looks at
//! [`WAYS`] neighbouring slots and nothing else.
//!
//! Replacement within a set is by second chance: a slot that was asked for since it was last
//! passed over is spared once. Texts that are never seen again replace each other, since a new
//! entry has to be asked for before it is spared.

/// See the module's description. Starts small and doubles up to its limit.
#[derive(Debug)]
pub(super) struct Table<V> {
    sets: Vec<Set<V>>,
    most_sets: usize,
    used: usize,
    evictions: u64,
}

type Set<V> = [Option<Slot<V>>; WAYS];

#[derive(Clone, Copy, Debug)]
struct Slot<V> {
    /// Two halves rather than one number: keeps the slot at 8-byte alignment.
    key: [u64; 2],
    value: V,
    /// Asked for since it was entered or last passed over.
    warm: bool,
}

const WAYS: usize = 4;
const FIRST_SETS: usize = 8;

impl<V: Copy> Table<V> {
    /// Room for `entries`, rounded up to a power of two.
    pub(super) fn new(entries: usize) -> Self {
        Self {
            sets: Vec::new(),
            most_sets: entries.div_ceil(WAYS).next_power_of_two(),
            used: 0,
            evictions: 0,
        }
    }

    /// The value kept under `key`.
    #[inline]
    pub(super) fn get(&mut self, key: u128) -> Option<V> {
        let halves = halves(key);
        let slot = self
            .set(key)?
            .iter_mut()
            .flatten()
            .find(|slot| slot.key == halves)?;
        slot.warm = true;
        Some(slot.value)
    }

    /// Keeps `value` under `key`, in place of what was kept there.
    pub(super) fn put(&mut self, key: u128, value: V) {
        if self.used * 4 >= self.sets.len() * WAYS * 3 && self.sets.len() < self.most_sets {
            self.grow();
        }
        self.place(Slot {
            key: halves(key),
            value,
            warm: false,
        });
    }

    /// Drops all entries that are not to be kept. Looks at the whole table.
    pub(super) fn retain(&mut self, keep: impl Fn(&V) -> bool) {
        for slot in self.sets.iter_mut().flatten() {
            if slot.as_ref().is_some_and(|slot| !keep(&slot.value)) {
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
        self.sets.capacity() * size_of::<Set<V>>()
    }

    fn set(&mut self, key: u128) -> Option<&mut Set<V>> {
        // A power of two, or none.
        let mask = self.sets.len().wrapping_sub(1);
        self.sets.get_mut(key as usize & mask)
    }

    fn place(&mut self, new: Slot<V>) {
        let Some(set) = self.set(whole(new.key)) else {
            return;
        };
        let same = set
            .iter_mut()
            .find(|slot| slot.as_ref().is_some_and(|slot| slot.key == new.key));
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
        if let Some(cold) = set
            .iter_mut()
            .find(|slot| slot.as_ref().is_some_and(|slot| !slot.warm))
        {
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

pub(super) fn halves(hash: u128) -> [u64; 2] {
    [hash as u64, (hash >> 64) as u64]
}

pub(super) fn whole([low, high]: [u64; 2]) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}
