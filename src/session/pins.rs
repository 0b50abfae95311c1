//! Pins: why a session keeps its server connection.

/// One reason. A fixed set: metric label and column of SHOW CLIENTS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pin {
    TemporaryTable,
    HeldCursor,
    AdvisoryLock,
    Listen,
    /// SQL-level PREPARE.
    Prepared,
    /// What a look at the backend can't tell: LOAD, sequence values, a replication connection.
    Other,
}

impl Pin {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::TemporaryTable,
        Self::HeldCursor,
        Self::AdvisoryLock,
        Self::Listen,
        Self::Prepared,
        Self::Other,
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
            Self::Other => "other",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The reasons that hold now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pins(u8);

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

    /// What no look can tell is gone: DISCARD ALL.
    pub fn clear_other(&mut self) {
        self.0 &= !Pin::Other.bit();
    }

    /// Those that hold.
    pub fn iter(self) -> impl Iterator<Item = Pin> {
        Pin::ALL.into_iter().filter(move |pin| self.has(*pin))
    }
}
