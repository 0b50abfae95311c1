//! A wake-up call for one task, that costs the task next to nothing while it isn't rung.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Waker},
};

/// Rung by anybody, heard by the one task that watches. Stays rung until it is silenced.
#[derive(Debug, Default)]
pub struct Alarm {
    rung: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Alarm {
    /// Rings, and wakes the task that watches.
    pub fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        let waker = self
            .waker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// It was rung and not silenced since.
    #[must_use]
    pub fn is_rung(&self) -> bool {
        self.rung.load(Ordering::Acquire)
    }

    /// Silences it; whether it was rung.
    pub fn silence(&self) -> bool {
        self.is_rung() && self.rung.swap(false, Ordering::AcqRel)
    }

    /// [`Self::ring`] will wake this task. Look whether it is rung afterwards, not before.
    pub fn watch(&self, cx: &Context<'_>) {
        let mut waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if !waker
            .as_ref()
            .is_some_and(|known| known.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::Arc, task::Poll};

    use super::*;

    #[tokio::test]
    async fn who_watches_is_woken_and_hears_it_once() {
        let alarm = Arc::new(Alarm::default());
        let heard = tokio::spawn({
            let alarm = Arc::clone(&alarm);
            poll_fn(move |cx| {
                alarm.watch(cx);
                if alarm.silence() {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
        });
        tokio::task::yield_now().await;
        alarm.ring();
        heard.await.unwrap();
        assert!(!alarm.is_rung());
        assert!(!alarm.silence());
        alarm.ring();
        assert!(alarm.is_rung(), "rung before anybody watches");
    }
}
