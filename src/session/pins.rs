//! Pins: why a session keeps its server connection.

/// One reason. A fixed set: metric label and column of SHOW CLIENTS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pin {
    TemporaryTable,
    HeldCursor,
    AdvisoryLock,
    Listen,
    /// A statement that was prepared by SQL out of sight.
    Prepared,
    /// Settings with a prefix whose names can't be told were set, or may have been.
    Setting,
    /// `currval` and `lastval` will be asked for.
    Sequence,
    /// LOAD.
    Library,
    /// The connection streams WAL.
    Replication,
    /// Other things that live in one backend and that no look can tell: replication origins,
    /// temporary slots, a backup.
    Backend,
}

impl Pin {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::TemporaryTable,
        Self::HeldCursor,
        Self::AdvisoryLock,
        Self::Listen,
        Self::Prepared,
        Self::Setting,
        Self::Sequence,
        Self::Library,
        Self::Replication,
        Self::Backend,
    ];

    /// The fixed name used in labels and columns.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TemporaryTable => "temporary_table",
            Self::HeldCursor => "held_cursor",
            Self::AdvisoryLock => "advisory_lock",
            Self::Listen => "listen",
            Self::Prepared => "prepared",
            Self::Setting => "setting",
            Self::Sequence => "sequence",
            Self::Library => "library",
            Self::Replication => "replication",
            Self::Backend => "backend",
        }
    }

    /// Whether a look at the backend tells if it still holds.
    #[must_use]
    pub fn is_looked_at(self) -> bool {
        match self {
            Self::TemporaryTable
            | Self::HeldCursor
            | Self::AdvisoryLock
            | Self::Listen
            | Self::Prepared => true,
            Self::Setting | Self::Sequence | Self::Library | Self::Replication | Self::Backend => {
                false
            }
        }
    }

    /// Reads that replicas can serve need nothing of what it keeps.
    #[must_use]
    pub fn leaves_reads(self) -> bool {
        matches!(self, Self::Listen | Self::AdvisoryLock | Self::Sequence)
    }

    fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// The reasons that hold now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pins(u16);

impl Pins {
    /// None holds.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// `pin` holds.
    #[must_use]
    pub fn has(self, pin: Pin) -> bool {
        self.0 & pin.bit() != 0
    }

    /// `pin` holds from now on.
    pub fn add(&mut self, pin: Pin) {
        self.0 |= pin.bit();
    }

    /// `pin` doesn't hold any more.
    pub fn remove(&mut self, pin: Pin) {
        self.0 &= !pin.bit();
    }

    /// DISCARD ALL has ended those that no look can tell, but for what stays in the process.
    pub fn discarded(&mut self) {
        self.remove(Pin::Setting);
        self.remove(Pin::Sequence);
    }

    /// Those that no look can tell.
    #[must_use]
    pub fn unseen(self) -> Self {
        self.iter()
            .filter(|pin| !pin.is_looked_at())
            .fold(Self::default(), |mut pins, pin| {
                pins.add(pin);
                pins
            })
    }

    /// As a number, for others to see.
    #[must_use]
    pub fn bits(self) -> u16 {
        self.0
    }

    /// From such a number.
    #[must_use]
    pub fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// Those that hold.
    pub fn iter(self) -> impl Iterator<Item = Pin> {
        Pin::ALL.into_iter().filter(move |pin| self.has(*pin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_look_cannot_tell_outlives_it() {
        let mut pins = Pins::default();
        for pin in [Pin::Listen, Pin::Sequence, Pin::Library] {
            pins.add(pin);
        }
        assert!(!pins.unseen().has(Pin::Listen));
        pins.discarded();
        assert_eq!(pins.iter().collect::<Vec<_>>(), [Pin::Listen, Pin::Library]);
        assert_eq!(Pins::from_bits(pins.bits()), pins);
    }
}
