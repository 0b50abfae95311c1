//! PAUSE, RESUME and WAIT_CLOSE: an operator wants a database's server connections closed for a
//! while.
//!
//! A pause shuts the [`Gate`](crate::pool::Gate) of the databases concerned: no connection is opened
//! any more, idle ones are closed, lent ones when they come back. Transactions end, pinned sessions
//! keep what they have, and everything else waits at the gate (`lend`). Replication connections and
//! those of the monitor aren't concerned.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Proxy, Tenants, clients::Activity, tenant::Tenant};
use crate::{
    config::settings::PoolMode,
    error::{Fault, Visible},
    pool::Pool,
    protocol::SqlState,
};

/// What is paused.
#[derive(Debug, Default)]
pub(super) struct Paused {
    all: bool,
    named: HashSet<Box<str>>,
}

/// How often it is looked whether connections have gone.
const LOOK: Duration = Duration::from_millis(10);
/// How often it is told what a pause waits for.
const TELL: Duration = Duration::from_secs(10);
/// Clients that are named then.
const NAMED: usize = 5;

impl Paused {
    /// The database is paused, by its name or with all.
    pub(super) fn covers(&self, database: &str) -> bool {
        self.all || self.named.contains(database)
    }
}

impl Tenants {
    /// Shuts and opens the gates of those that are known.
    fn apply_pauses(&self) {
        for database in self.databases.values() {
            let shut = self.paused.covers(&database.name);
            if database.gate.is_shut() != shut {
                database.gate.set_shut(shut);
            }
        }
    }
}

impl Proxy {
    /// The database is paused.
    pub(super) fn is_paused(&self, database: &str) -> bool {
        self.tenants().paused.covers(database)
    }

    /// Pauses the database, or all, and waits until no pool has a connection there. When the future
    /// is dropped the pause goes on.
    pub(super) async fn pause(
        self: &Arc<Self>,
        database: Option<String>,
    ) -> Result<Option<String>, Visible> {
        {
            if let Some(name) = &database {
                self.known(name)?;
            }
            let mut tenants = self.tenants();
            match &database {
                Some(name) => {
                    tenants.paused.named.insert(name.as_str().into());
                }
                None => tenants.paused.all = true,
            }
            tenants.apply_pauses();
        }
        // Idle sessions that hold connections give them up.
        for client in self.clients.all() {
            if client.tenant.mode == PoolMode::Session && concerns(&database, &client.tenant) {
                client.wake.ring();
            }
        }
        // In a task of its own: it goes on when the operator has left.
        let waits = Arc::clone(self).empties(database);
        self.tasks.spawn(waits).await.unwrap_or(Err(interrupted()))
    }

    async fn empties(self: Arc<Self>, database: Option<String>) -> Result<Option<String>, Visible> {
        let mut told = Instant::now();
        loop {
            if self.is_stopping() {
                return Err(interrupted());
            }
            let still = match &database {
                Some(name) => self.is_paused(name),
                None => self.tenants().paused.all,
            };
            if !still {
                return Err(not_now(
                    "the pause was ended by RESUME before it was complete",
                ));
            }
            let tenants = self.concerned(&database);
            let mut open = 0;
            for pool in tenants.iter().flat_map(|tenant| tenant.pools()) {
                if !pool.is_drained() {
                    open += 1;
                    // One may have been opened just before.
                    pool.retire();
                }
            }
            if open == 0 {
                return Ok(None);
            }
            if told.elapsed() >= TELL {
                told = Instant::now();
                let database = database.as_deref().unwrap_or("all databases");
                let clients = self.in_the_way(&tenants);
                tracing::warn!(database, clients, "PAUSE waits for server connections");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Clients that have server connections, for people.
    fn in_the_way(&self, tenants: &[Arc<Tenant>]) -> String {
        let clients = self.clients.all();
        let holding = clients.iter().filter(|client| {
            client.link().is_some() && tenants.iter().any(|t| Arc::ptr_eq(t, &client.tenant))
        });
        let mut names: Vec<String> = holding
            .map(|client| {
                let what = match client.activity() {
                    Activity::InTransaction => "in a transaction",
                    Activity::Pinned => "pinned",
                    _ => "running a statement",
                };
                format!("{} ({what})", client.id)
            })
            .collect();
        let more = names.len().saturating_sub(NAMED);
        names.truncate(NAMED);
        if more > 0 {
            names.push(format!("and {more} more"));
        }
        names.join(", ")
    }

    /// Ends the pause of the database, or that of all, and tells what stays paused.
    pub(super) fn resume(&self, database: Option<&str>) -> Result<Option<String>, Visible> {
        let mut tenants = self.tenants();
        let paused = &mut tenants.paused;
        let left = match database {
            Some(name) => {
                if !paused.named.remove(name) {
                    let error = not_now(format!("database \"{name}\" is not paused"));
                    return Err(if paused.all {
                        error.hint("all are: RESUME without a name ends that")
                    } else {
                        error
                    });
                }
                paused
                    .all
                    .then(|| "it stays paused with all others, until RESUME".to_owned())
            }
            None => {
                if !std::mem::take(&mut paused.all) {
                    let named = names(&paused.named);
                    let error = not_now("pgsplit is not paused");
                    return Err(if named.is_empty() {
                        error
                    } else {
                        error.hint(format!("RESUME with its name ends the pause of: {named}"))
                    });
                }
                let named = names(&paused.named);
                (!named.is_empty()).then(|| format!("still paused by name: {named}"))
            }
        };
        tenants.apply_pauses();
        Ok(left)
    }

    /// Waits until no connection is left that is to be closed (RECONNECT).
    pub(super) async fn wait_close(
        &self,
        database: Option<String>,
    ) -> Result<Option<String>, Visible> {
        if let Some(name) = &database {
            self.known(name)?;
        }
        let closing = |pool: &Pool| pool.links().iter().any(|link| link.is_retired());
        while self
            .concerned(&database)
            .iter()
            .any(|tenant| tenant.pools().any(closing))
        {
            if self.is_stopping() {
                return Err(interrupted());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(None)
    }

    fn known(&self, database: &str) -> Result<(), Visible> {
        match self.settings().database(database) {
            Some(_entry) => Ok(()),
            None => Err(Visible::error(
                Fault::Client,
                SqlState::INVALID_CATALOG_NAME,
                format!("no such database: {database}"),
            )),
        }
    }

    fn concerned(&self, database: &Option<String>) -> Vec<Arc<Tenant>> {
        let mut tenants = self.all_tenants();
        tenants.retain(|tenant| concerns(database, tenant));
        tenants
    }
}

fn concerns(database: &Option<String>, tenant: &Tenant) -> bool {
    let name = database.as_deref();
    name.is_none_or(|name| *tenant.database.name == *name)
}

fn names(named: &HashSet<Box<str>>) -> String {
    let mut names: Vec<&str> = named.iter().map(AsRef::as_ref).collect();
    names.sort_unstable();
    names.join(", ")
}

fn not_now(why: impl Into<std::borrow::Cow<'static, str>>) -> Visible {
    Visible::error(
        Fault::Client,
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        why,
    )
}

fn interrupted() -> Visible {
    not_now("the proxy is being stopped")
}
