//! Which tables a text reads or writes, as far as it can be told.

/// A set of tables, told apart by their names without schemas: two of one name are the same, and so
/// are now and then two of different names. Whoever asks whether two sets have a table in common
/// hears yes too often, never too seldom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tables([u64; 2]);

impl Tables {
    pub const NONE: Self = Self([0; 2]);

    /// Every table: it can't be told which.
    pub const ALL: Self = Self([u64::MAX; 2]);

    /// What stands for all sequences, and for no table.
    pub(super) const SEQUENCES: Self = Self([1, 0]);

    /// One table, by its name as the server folds it.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        // FNV-1a: the same in every process and for every load of the catalogue.
        let hash = name.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        // The first bit is that of the sequences.
        let bit = 1 << (hash >> 32 & 63).max(1);
        Self(if hash & 1 == 0 { [bit, 0] } else { [0, bit] })
    }

    /// These and those.
    #[must_use]
    pub const fn with(self, others: Self) -> Self {
        Self([self.0[0] | others.0[0], self.0[1] | others.0[1]])
    }

    /// These, unless it can't be told which those are.
    #[must_use]
    pub(super) const fn with_untold(self, others: Self) -> Self {
        if others.is_all() { others } else { self }
    }

    /// The tables among these; all, if it can't be told which.
    #[must_use]
    pub(super) const fn without_sequences(self) -> Self {
        if self.is_all() {
            self
        } else {
            Self([self.0[0] & !Self::SEQUENCES.0[0], self.0[1]])
        }
    }

    /// Some table may be in both.
    #[must_use]
    pub const fn meets(self, others: Self) -> bool {
        self.0[0] & others.0[0] != 0 || self.0[1] & others.0[1] != 0
    }

    /// All of these are among those.
    #[must_use]
    pub const fn within(self, others: Self) -> bool {
        self.0[0] & !others.0[0] == 0 && self.0[1] & !others.0[1] == 0
    }

    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0[0] == 0 && self.0[1] == 0
    }

    #[must_use]
    pub const fn is_all(self) -> bool {
        self.0[0] == u64::MAX && self.0[1] == u64::MAX
    }
}
