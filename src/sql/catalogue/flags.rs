//! What is known of a name, as bits.

/// Everything that any object of one name, in any schema, may be or do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(u32);

impl Flags {
    /// A function of this name exists.
    pub(crate) const FUNCTION: Self = Self(1);
    /// One of them isn't read-safe.
    pub(crate) const BAD_FUNCTION: Self = Self(1 << 1);
    /// One that isn't read-safe can be called with one argument, so also as `x.name`.
    pub(crate) const BAD_ATTRIBUTE: Self = Self(1 << 2);
    /// The bad one asks whether this is a standby.
    pub(crate) const RECOVERY: Self = Self(1 << 3);
    /// A bad function may change data.
    pub(crate) const FUNCTION_MAY_WRITE: Self = Self(1 << 4);
    /// A bad function may change session state unseen.
    pub(crate) const FUNCTION_OBSERVE: Self = Self(1 << 5);
    /// A bad function keeps what lives in one backend.
    pub(crate) const FUNCTION_BACKEND: Self = Self(1 << 6);
    /// A table, view, sequence, … of this name exists.
    pub(crate) const RELATION: Self = Self(1 << 8);
    /// Reading one of them runs something that isn't read-safe.
    pub(crate) const BAD_RELATION: Self = Self(1 << 9);
    /// One of them differs between nodes.
    pub(crate) const LOCAL_RELATION: Self = Self(1 << 10);
    /// Reading one of them may change data.
    pub(crate) const RELATION_MAY_WRITE: Self = Self(1 << 11);
    /// Reading one of them may change session state unseen.
    pub(crate) const RELATION_OBSERVE: Self = Self(1 << 12);
    /// Writing to one of them runs a trigger that may change session state unseen.
    pub(crate) const TRIGGER_OBSERVE: Self = Self(1 << 13);
    /// A function, an operator or a type of this name may read or write tables.
    pub(crate) const REACHES: Self = Self(1 << 14);
    /// A type of this name exists (other than a relation's row type).
    pub(crate) const TYPE: Self = Self(1 << 16);
    /// Reading, casting to or printing a value of it runs something that isn't read-safe.
    pub(crate) const BAD_TYPE: Self = Self(1 << 17);
    /// A schema of this name exists.
    pub(crate) const SCHEMA: Self = Self(1 << 20);
    /// An operator of this name exists.
    pub(crate) const OPERATOR: Self = Self(1 << 24);
    /// One of them isn't read-safe.
    pub(crate) const BAD_OPERATOR: Self = Self(1 << 25);

    /// Not a name that the catalogue knows.
    pub(crate) const NONE: Self = Self(0);

    /// Whatever would keep a read away from replicas.
    pub(crate) const ANY_BAD: Self = Self(
        Self::BAD_FUNCTION.0
            | Self::BAD_RELATION.0
            | Self::LOCAL_RELATION.0
            | Self::BAD_TYPE.0
            | Self::BAD_OPERATOR.0,
    );

    /// Reading it isn't safe.
    pub(crate) const UNSAFE_RELATION: Self = Self(Self::BAD_RELATION.0 | Self::LOCAL_RELATION.0);

    /// What can stand where a type is expected.
    pub(crate) const TYPE_OR_RELATION: Self = Self(Self::TYPE.0 | Self::RELATION.0);

    /// Whatever deserves a closer look.
    pub(crate) const NOTABLE: Self =
        Self(Self::ANY_BAD.0 | Self::TRIGGER_OBSERVE.0 | Self::REACHES.0);

    pub(crate) fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// Why something isn't read-safe, and what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bad {
    pub(super) why: BadWhy,
    pub(super) may_write: bool,
    pub(super) observe: bool,
    pub(super) backend: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadWhy {
    Function,
    Recovery,
    /// Differs between nodes.
    Local,
}

impl Bad {
    const fn new(why: BadWhy, may_write: bool, observe: bool, backend: bool) -> Self {
        Self {
            why,
            may_write,
            observe,
            backend,
        }
    }

    /// Both: whatever either may do, for the graver reason.
    pub(super) fn merge(self, other: Self) -> Self {
        let why = if self.why == BadWhy::Function || other.why == BadWhy::Function {
            BadWhy::Function
        } else {
            self.why
        };
        Self::new(
            why,
            self.may_write || other.may_write,
            self.observe || other.observe,
            self.backend || other.backend,
        )
    }

    /// May do anything.
    pub(super) const FUNCTION: Self = Self::new(BadWhy::Function, true, true, false);
    /// May write, but leaves the session as it was.
    pub(super) const QUIET_FUNCTION: Self = Self::new(BadWhy::Function, true, false, false);
    /// Tells a node's own state and changes nothing.
    pub(super) const LOCAL_FUNCTION: Self = Self::new(BadWhy::Function, false, false, false);
    /// Keeps what lives in one backend.
    pub(super) const BACKEND: Self = Self::new(BadWhy::Function, true, true, true);
    /// Asks for the node's role.
    pub(super) const RECOVERY: Self = Self::new(BadWhy::Recovery, false, false, false);
    /// A relation that differs between nodes.
    pub(super) const LOCAL: Self = Self::new(BadWhy::Local, false, false, false);
}
