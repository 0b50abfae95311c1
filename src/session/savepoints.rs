//! What something was at each savepoint of the open transaction.

/// Values by savepoint, the oldest first. Several may have one name: the newest counts.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Savepoints<T>(Vec<(Box<str>, T)>);

impl<T> Default for Savepoints<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Savepoints<T> {
    /// SAVEPOINT succeeded.
    pub(super) fn set(&mut self, name: &str, value: T) {
        self.0.push((name.into(), value));
    }

    /// ROLLBACK TO succeeded: what it was then. `None`: there is no such savepoint.
    pub(super) fn rollback_to(&mut self, name: &str) -> Option<&T> {
        let at = self.place(name)?;
        self.0.truncate(at + 1);
        self.0.last().map(|(_, value)| value)
    }

    /// RELEASE succeeded.
    pub(super) fn release(&mut self, name: &str) {
        if let Some(at) = self.place(name) {
            self.0.truncate(at);
        }
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.0.iter().rposition(|(known, _)| **known == *name)
    }
}
