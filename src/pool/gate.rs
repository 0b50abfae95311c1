//! Whether the server connections of a database may be used, or an operator has paused it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::Notify;

/// One for all pools of a database, and for whoever waits until they may be used again.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    shut: AtomicBool,
    opened: Notify,
}

impl Gate {
    /// No server connection may be opened.
    #[must_use]
    pub fn is_shut(&self) -> bool {
        // In one order with the count of connections, see `Manager::create`.
        self.0.shut.load(Ordering::SeqCst)
    }

    /// Shuts or opens it.
    pub fn set_shut(&self, shut: bool) {
        self.0.shut.store(shut, Ordering::SeqCst);
        if !shut {
            self.0.opened.notify_waiters();
        }
    }

    /// Ends when it is open, or is known to be. Cancel safe.
    pub async fn opened(&self) {
        loop {
            let opened = self.0.opened.notified();
            if !self.is_shut() {
                return;
            }
            opened.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_goes_on_when_it_opens() {
        let gate = Gate::default();
        gate.opened().await;
        gate.set_shut(true);
        assert!(gate.is_shut());
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.opened().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        gate.set_shut(false);
        waiting.await.unwrap();
    }
}
