//! What makes a transaction the same on another server: its BEGIN, and the settings and savepoints
//! that were made in it, in their order.
//!
//! | statement that succeeded | what is kept |
//! |---|---|
//! | SET, SET LOCAL, `set_config`, SET TRANSACTION | it, behind what is there |
//! | SAVEPOINT s | it, behind what is there |
//! | ROLLBACK TO s | nothing of what came behind the last s |
//! | RELEASE s | no savepoint from the last s on, but the settings behind it |
//!
//! Invariant: a server that runs what is kept, in a transaction that has just begun, has the
//! settings and savepoints of the one that ran every statement.

use super::emit::Sink;
use crate::sql::{Begin, Isolation};

/// See the module's description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// The modes that it was begun with, also by a SET TRANSACTION right behind its BEGIN.
    pub modes: Begin,
    /// BEGIN as the client wrote it.
    begin: Box<[u8]>,
    made: Vec<Made>,
    /// Bytes of all of `made`.
    bytes: usize,
    /// A statement with a snapshot has run: the isolation level is settled.
    pub queried: bool,
    /// It was begun READ ONLY, or the session's transactions are: nothing in it may write.
    pub read_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Made {
    /// `None`: settings.
    savepoint: Option<Box<str>>,
    message: Message,
}

/// A statement as it is sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The text of a simple Query.
    Query(Box<[u8]>),
    /// One Parse, Bind and Execute of an unnamed statement.
    Extended {
        text: Box<[u8]>,
        /// As they stand in Parse.
        types: Box<[u8]>,
        /// What stands in Bind behind its names.
        values: Box<[u8]>,
    },
}

/// What a statement changes of a [`Replay`] once it has succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Settings(Message),
    Savepoint(Box<str>, Message),
    RollbackTo(Box<str>),
    Release(Box<str>),
}

/// More statements, or longer ones, are not kept: the transaction goes to the primary.
const LIMIT: usize = 64;
const LIMIT_BYTES: usize = 16 << 10;

impl Replay {
    /// A transaction that begins with this text.
    #[must_use]
    pub fn new(modes: Begin, begin: Box<[u8]>) -> Self {
        Self {
            modes,
            begin,
            made: Vec::new(),
            bytes: 0,
            queried: false,
            read_only: modes.read_only == Some(true),
        }
    }

    /// A transaction that begins with these modes, whatever the text.
    #[must_use]
    pub fn of(modes: Begin) -> Self {
        Self::new(modes, begin(modes).into_bytes().into())
    }

    /// There is room for these changes.
    #[must_use]
    pub fn takes(&self, changes: &[Change]) -> bool {
        let bytes: usize = changes.iter().map(Change::len).sum();
        self.made.len() + changes.len() <= LIMIT && self.bytes + bytes <= LIMIT_BYTES
    }

    /// A statement has succeeded.
    pub fn add(&mut self, change: Change) {
        let (savepoint, message) = match change {
            Change::Settings(message) => (None, message),
            Change::Savepoint(name, message) => (Some(name), message),
            Change::RollbackTo(name) => {
                if let Some(at) = self.last(&name) {
                    self.made.truncate(at + 1);
                }
                return self.weigh();
            }
            Change::Release(name) => {
                if let Some(at) = self.last(&name) {
                    let mut place = 0;
                    self.made.retain(|made| {
                        place += 1;
                        place <= at || made.savepoint.is_none()
                    });
                }
                return self.weigh();
            }
        };
        self.made.push(Made { savepoint, message });
        self.weigh();
    }

    /// ROLLBACK or COMMIT AND CHAIN: another transaction with the same modes has begun, also those that
    /// SET TRANSACTION made.
    pub fn restart(&mut self) {
        if self.read_only && self.modes.read_only != Some(true) {
            self.modes.read_only = Some(true);
            self.begin = begin(self.modes).into_bytes().into();
        }
        self.made.clear();
        self.bytes = 0;
        self.queried = false;
    }

    /// The place of the newest savepoint of this name.
    fn last(&self, name: &str) -> Option<usize> {
        self.made
            .iter()
            .rposition(|made| made.savepoint.as_deref() == Some(name))
    }

    fn weigh(&mut self) {
        self.bytes = self.made.iter().map(|made| made.message.len()).sum();
    }

    /// Writes it, hidden, ahead of the first statement. `recovering`: to a replica, which refuses
    /// to be told READ WRITE. `sets`: what follows may set something, which is too late for some
    /// modes once a snapshot has been taken.
    pub fn write(&self, sink: &mut Sink<'_>, recovering: bool, sets: bool) {
        if recovering && self.modes.read_only == Some(false) {
            let modes = Begin {
                read_only: None,
                ..self.modes
            };
            sink.hidden_query(begin(modes).as_bytes());
        } else {
            sink.hidden_query(&self.begin);
        }
        for made in &self.made {
            match &made.message {
                Message::Query(text) => sink.hidden_query(text),
                Message::Extended {
                    text,
                    types,
                    values,
                } => sink.hidden_extended(text, types, values),
            }
        }
        if self.queried && sets {
            sink.hidden_query(b"SELECT 1");
        }
    }
}

impl Message {
    fn len(&self) -> usize {
        match self {
            Self::Query(text) => text.len(),
            Self::Extended {
                text,
                types,
                values,
            } => text.len() + types.len() + values.len(),
        }
    }
}

impl Change {
    fn len(&self) -> usize {
        match self {
            Self::Settings(message) | Self::Savepoint(_, message) => message.len(),
            Self::RollbackTo(_) | Self::Release(_) => 0,
        }
    }
}

/// BEGIN with these modes.
fn begin(modes: Begin) -> String {
    let mut text = String::from("BEGIN");
    text.push_str(match modes.isolation {
        None => "",
        Some(Isolation::ReadUncommitted) => " ISOLATION LEVEL READ UNCOMMITTED",
        Some(Isolation::ReadCommitted) => " ISOLATION LEVEL READ COMMITTED",
        Some(Isolation::RepeatableRead) => " ISOLATION LEVEL REPEATABLE READ",
        Some(Isolation::Serializable) => " ISOLATION LEVEL SERIALIZABLE",
    });
    text.push_str(match modes.read_only {
        None => "",
        Some(true) => " READ ONLY",
        Some(false) => " READ WRITE",
    });
    text.push_str(match modes.deferrable {
        None => "",
        Some(true) => " DEFERRABLE",
        Some(false) => " NOT DEFERRABLE",
    });
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A server's settings and savepoints in one transaction, as PostgreSQL has them.
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Model {
        settings: Vec<u8>,
        savepoints: Vec<(Box<str>, Vec<u8>)>,
    }

    impl Model {
        /// Carries it out; false when PostgreSQL would refuse it.
        fn run(&mut self, change: &Change) -> bool {
            let find = |name: &str, savepoints: &[(Box<str>, Vec<u8>)]| {
                savepoints.iter().rposition(|(known, _)| **known == *name)
            };
            match change {
                Change::Settings(Message::Query(text)) => self.settings.extend_from_slice(text),
                Change::Settings(Message::Extended { values, .. }) => {
                    self.settings.extend_from_slice(values);
                }
                Change::Savepoint(name, _) => {
                    self.savepoints.push((name.clone(), self.settings.clone()));
                }
                Change::RollbackTo(name) => {
                    let Some(at) = find(name, &self.savepoints) else {
                        return false;
                    };
                    self.savepoints.truncate(at + 1);
                    self.settings.clone_from(&self.savepoints[at].1);
                }
                Change::Release(name) => {
                    let Some(at) = find(name, &self.savepoints) else {
                        return false;
                    };
                    self.savepoints.truncate(at);
                }
            }
            true
        }
    }

    fn change(kind: u8, name: u8, value: u8) -> Change {
        let name: Box<str> = char::from(b'a' + name).to_string().into();
        let message = Message::Query([value].into());
        match kind {
            0 | 1 => Change::Settings(message),
            2 => Change::Savepoint(name, message),
            3 => Change::RollbackTo(name),
            _ => Change::Release(name),
        }
    }

    proptest! {
        #[test]
        fn what_is_kept_makes_the_same_settings_and_savepoints(
            steps in proptest::collection::vec((0u8..5, 0u8..3, any::<u8>()), 0..40),
        ) {
            let mut all = Model::default();
            let mut replay = Replay::of(Begin::default());
            for (kind, name, value) in steps {
                let change = change(kind, name, value);
                if all.run(&change) {
                    replay.add(change);
                }
                let mut again = Model::default();
                for made in &replay.made {
                    let change = match &made.savepoint {
                        Some(name) => Change::Savepoint(name.clone(), made.message.clone()),
                        None => Change::Settings(made.message.clone()),
                    };
                    prop_assert!(again.run(&change));
                }
                prop_assert_eq!(&again, &all);
                let bytes: usize = replay.made.iter().map(|made| made.message.len()).sum();
                prop_assert_eq!(replay.bytes, bytes);
            }
        }
    }

    #[test]
    fn a_loop_of_savepoints_that_are_released_keeps_nothing() {
        let mut replay = Replay::of(Begin::default());
        for _ in 0..1000 {
            let savepoint =
                Change::Savepoint("s".into(), Message::Query(b"SAVEPOINT s".as_slice().into()));
            assert!(replay.takes(std::slice::from_ref(&savepoint)));
            replay.add(savepoint);
            replay.add(Change::Release("s".into()));
        }
        assert!(replay.made.is_empty());
    }

    #[test]
    fn no_more_is_kept_than_the_limits() {
        let mut replay = Replay::of(Begin::default());
        let set = |len: usize| Change::Settings(Message::Query(vec![b' '; len].into()));
        assert!(replay.takes(&[set(LIMIT_BYTES)]));
        assert!(!replay.takes(&[set(LIMIT_BYTES + 1)]));
        for _ in 0..LIMIT {
            assert!(replay.takes(&[set(1)]));
            replay.add(set(1));
        }
        assert!(!replay.takes(&[set(1)]));
    }

    #[test]
    fn begin_has_all_its_modes() {
        let modes = Begin {
            read_only: Some(true),
            isolation: Some(Isolation::ReadCommitted),
            deferrable: Some(false),
            start: true,
        };
        assert_eq!(
            begin(modes),
            "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY NOT DEFERRABLE"
        );
        assert_eq!(begin(Begin::default()), "BEGIN");
    }
}
