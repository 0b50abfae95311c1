//! Users whom the configuration doesn't have: their passwords are asked of the nodes (`auth.query`),
//! and the answers kept for a while.
//!
//! That there is no such user is kept like a password, and both are asked for again after a login
//! has failed: so the time that a login takes tells nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::{Proxy, authenticate::Known};
use crate::{
    config::settings::Secret,
    error::{Fault, Visible},
    protocol::SqlState,
};

/// See the module's description.
pub(super) struct Lookup {
    /// Users who exist, and others: whoever tries names displaces only the latter.
    answers: Mutex<[Answers; 2]>,
    /// So many are asked for at a time.
    asking: Semaphore,
}

type Answers = HashMap<Box<str>, Answer>;

#[derive(Clone)]
struct Answer {
    user: Arc<Known>,
    at: Instant,
    /// A login has failed since.
    doubted: bool,
}

/// Queries that are run at a time.
const ASKING: usize = 4;
/// An answer may take so long.
const ASK: Duration = Duration::from_secs(5);
/// An answer of this age is good even if a login has failed: whoever guesses causes no more queries.
const FRESH: Duration = Duration::from_secs(1);

impl Default for Lookup {
    fn default() -> Self {
        Self {
            answers: Mutex::default(),
            asking: Semaphore::new(ASKING),
        }
    }
}

impl Lookup {
    fn answers(&self) -> MutexGuard<'_, [Answers; 2]> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, user: &str) -> Option<Answer> {
        let answers = self.answers();
        answers
            .iter()
            .find_map(|answers| answers.get(user))
            .cloned()
    }

    fn keep(&self, user: &str, known: &Arc<Known>, at: Instant, limit: usize) {
        let [exist, others] = &mut *self.answers();
        exist.remove(user);
        others.remove(user);
        let answers = if known.exists() { exist } else { others };
        if answers.len() >= limit {
            let oldest = answers.iter().min_by_key(|(_, answer)| answer.at);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                answers.remove(&oldest);
            }
        }
        let answer = Answer {
            user: Arc::clone(known),
            at,
            doubted: false,
        };
        answers.insert(user.into(), answer);
    }

    /// A login as `user` has failed: the password may be another by now.
    pub(super) fn doubt(&self, user: &str) {
        for answers in &mut *self.answers() {
            if let Some(answer) = answers.get_mut(user) {
                answer.doubted = true;
            }
        }
    }

    /// The settings have changed.
    pub(super) fn forget(&self) {
        *self.answers() = Default::default();
    }
}

impl Answer {
    fn holds(&self, now: Instant, cache: Duration) -> bool {
        let age = now.saturating_duration_since(self.at);
        age < FRESH.min(cache) || age < cache && !self.doubted
    }
}

impl Proxy {
    /// What the nodes say of a user of whom no password is configured. `None`: nobody is to be asked.
    pub(super) async fn look_up(
        &self,
        user: &str,
        deadline: Instant,
    ) -> Result<Option<Arc<Known>>, Visible> {
        let config = self.settings().clone();
        let configured = config
            .user(user)
            .is_some_and(|user| user.password.is_some());
        if config.auth.query.is_none() || configured {
            return Ok(None);
        }
        let cache = config.auth.cache;
        let holds = || {
            let known = self.lookup.known(user);
            known.filter(|answer| answer.holds(Instant::now(), cache))
        };
        if let Some(answer) = holds() {
            return Ok(Some(answer.user));
        }
        let deadline = deadline.min(Instant::now() + ASK);
        let asked = timeout_at(deadline, async {
            let _turn = self.lookup.asking.acquire().await;
            // Another login may have asked meanwhile.
            if let Some(answer) = holds() {
                return Ok(answer.user);
            }
            let at = Instant::now();
            let secret = self.monitor.secret_of(&config.auth, user, deadline).await?;
            let known = known(secret).await?;
            self.lookup.keep(user, &known, at, config.auth.cache_users);
            Ok(known)
        });
        let problem = match asked.await {
            Ok(Ok(known)) => return Ok(Some(known)),
            Ok(Err(problem)) => problem,
            Err(_elapsed) => "no answer in time".to_owned(),
        };
        tracing::warn!(user, problem, "auth.query could not be asked");
        // Better an old answer than none: who is let in while no node answers can do little.
        let old = self.lookup.known(user).filter(|_| !cache.is_zero());
        match old {
            Some(old) => Ok(Some(old.user)),
            None => Err(Visible::fatal(
                Fault::Node,
                SqlState::CANNOT_CONNECT_NOW,
                "no node could be asked who may log in",
            )),
        }
    }
}

/// A password in clear text is hashed, on a thread that may be busy for long.
async fn known(secret: Option<Secret>) -> Result<Arc<Known>, String> {
    let hash = tokio::task::spawn_blocking(move || Known::of(secret.as_ref()));
    let known = hash.await.map_err(|error| error.to_string())?;
    known.map(Arc::new).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(secret: Option<&str>) -> Arc<Known> {
        let secret = secret.map(|text| Secret(text.to_owned()));
        Arc::new(Known::of(secret.as_ref()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn answers_hold_for_a_while_and_not_behind_a_failed_login() {
        let (lookup, cache) = (Lookup::default(), Duration::from_secs(30));
        for (name, secret) in [("app", Some("md5aabb")), ("nobody", None)] {
            lookup.keep(name, &made(secret), Instant::now(), 10);
            let holds = || lookup.known(name).unwrap().holds(Instant::now(), cache);
            assert!(holds());
            lookup.doubt(name);
            assert!(holds(), "guessing causes no more than a query a second");
            tokio::time::advance(FRESH).await;
            assert!(!holds());
            lookup.keep(name, &made(secret), Instant::now(), 10);
            tokio::time::advance(cache - FRESH).await;
            assert!(holds());
            tokio::time::advance(FRESH).await;
            assert!(!holds());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn names_that_are_tried_do_not_displace_users() {
        let lookup = Lookup::default();
        for name in ["a", "b", "c"] {
            lookup.keep(name, &made(Some("md5aabb")), Instant::now(), 2);
            tokio::time::advance(FRESH).await;
        }
        for n in 0..100 {
            lookup.keep(&format!("x{n}"), &made(None), Instant::now(), 2);
        }
        assert!(lookup.known("a").is_none(), "the oldest goes");
        assert!(lookup.known("b").is_some() && lookup.known("c").is_some());
        // Who was nobody and is made is known from then on.
        lookup.keep("x99", &made(Some("md5aabb")), Instant::now(), 3);
        assert!(lookup.known("x99").unwrap().user.exists());
        lookup.forget();
        assert!(lookup.known("x99").is_none());
    }
}
