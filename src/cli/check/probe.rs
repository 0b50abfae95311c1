//! Asking one node what it is and how it is set.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    cli::node::{self, Row, Session},
    cluster::Lsn,
    config::{Node, Secret, Settings},
};

/// Logins that are tried per node: a configuration may have many users and databases.
const LOGINS: usize = 32;

/// What a node said, or why nothing.
pub(super) type Report = Result<Facts, String>;

/// What a node said.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) in_recovery: bool,
    /// `server_version_num`.
    pub(super) version: u32,
    /// `version()`.
    pub(super) product: String,
    pub(super) encrypted: bool,
    /// `pg_settings`, in their base units.
    pub(super) settings: BTreeMap<String, String>,
    /// Replay LSN of a replica, insert LSN of a primary.
    pub(super) lsn: Option<Lsn>,
    pub(super) system_identifier: Option<String>,
    /// Of a replica, unless it refused to say.
    pub(super) replay: Option<Replay>,
    /// Unlogged tables in the monitor's database.
    pub(super) unlogged: u64,
    pub(super) logins: Vec<Login>,
    /// Why `auth.query` doesn't work here, if it is set.
    pub(super) auth: Option<String>,
    /// Logins beyond [`LOGINS`].
    pub(super) logins_left_out: usize,
    /// Questions that the node refused to answer.
    pub(super) refused: Vec<String>,
}

/// How a replica replays.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replay {
    /// By someone's order.
    pub(super) paused: bool,
    /// A WAL receiver runs.
    pub(super) streaming: bool,
}

/// A user's login to a database, as the pool would do it.
#[derive(Clone, Debug)]
pub(super) struct Login {
    /// As the node names them.
    pub(super) user: String,
    pub(super) database: String,
    pub(super) result: Result<Account, String>,
}

/// What the node says of whoever has logged in.
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    /// `CONNECTION LIMIT` of the role and of the database; `None`: no limit.
    pub(super) role_limit: Option<u64>,
    pub(super) database_limit: Option<u64>,
    pub(super) read_only: bool,
}

impl Facts {
    pub(super) fn heading(&self) -> String {
        let role = if self.in_recovery {
            "replica"
        } else {
            "primary"
        };
        let version = self
            .settings
            .get("server_version")
            .map_or("?", String::as_str);
        let version = version.split(' ').next().unwrap_or(version);
        let position = self
            .lsn
            .map(|lsn| format!(", at {lsn}"))
            .unwrap_or_default();
        let encryption = if self.encrypted { ", TLS" } else { "" };
        format!("{role}, PostgreSQL {version}{position}{encryption}")
    }

    /// A setting that is a number, in its base unit.
    pub(super) fn number(&self, name: &str) -> Option<i64> {
        self.settings.get(name)?.parse().ok()
    }

    pub(super) fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }
}

/// Asks the node as the monitor's user, then logs in as every user.
pub(super) async fn ask(settings: &Arc<Settings>, n: usize) -> Report {
    let node = settings.nodes.get(n).ok_or("no such node")?;
    let monitor = &settings.monitor;
    let session = node::connect(
        node,
        &monitor.user,
        monitor.password.as_ref(),
        &monitor.database,
    )
    .await
    .map_err(|error| {
        format!(
            "the monitor ({} in {}) can't connect: {error}",
            monitor.user, monitor.database
        )
    })?;
    let mut facts = Facts {
        encrypted: session.encrypted,
        ..Facts::default()
    };
    let [recovery, version, product] = first(&session.row(ROLE).await?);
    facts.in_recovery = truth(recovery.as_deref());
    facts.version = number(version.as_deref()).unwrap_or(0);
    facts.product = product.unwrap_or_default();
    for row in session.rows(SETTINGS).await? {
        let [name, value] = first(&row);
        facts.settings.extend(name.zip(value));
    }
    if let Some([system]) = facts
        .try_ask(
            &session,
            "select system_identifier from pg_control_system()",
        )
        .await
    {
        facts.system_identifier = system;
    }
    if let Some([count]) = facts.try_ask(&session, UNLOGGED).await {
        facts.unlogged = number(count.as_deref()).unwrap_or(0);
    }
    if facts.in_recovery {
        if let Some([lsn, paused, receivers]) = facts.try_ask(&session, REPLAY).await {
            facts.lsn = lsn.and_then(|text| text.parse().ok());
            facts.replay = Some(Replay {
                paused: truth(paused.as_deref()),
                streaming: receivers.as_deref() != Some("0"),
            });
        }
    } else if let Some([lsn]) = facts
        .try_ask(&session, "select pg_current_wal_insert_lsn()")
        .await
    {
        facts.lsn = lsn.and_then(|text| text.parse().ok());
    }
    logins(settings, node, &mut facts).await;
    facts.auth = auth(settings, node).await.err();
    Ok(facts)
}

const ROLE: &str = "select pg_is_in_recovery(), current_setting('server_version_num'), version()";

const SETTINGS: &str = "select name, setting from pg_settings where name in (
    'server_version', 'wal_level', 'hot_standby_feedback', 'max_standby_streaming_delay',
    'recovery_min_apply_delay', 'synchronous_commit', 'synchronous_standby_names', 'fsync',
    'full_page_writes', 'max_connections', 'superuser_reserved_connections',
    'reserved_connections', 'idle_session_timeout', 'default_transaction_read_only',
    'standard_conforming_strings', 'track_commit_timestamp')";

const UNLOGGED: &str =
    "select count(*) from pg_class where relpersistence = 'u' and relkind in ('r', 'm', 'p')";

const REPLAY: &str = "select pg_last_wal_replay_lsn(), pg_is_wal_replay_paused(),
    (select count(*) from pg_stat_wal_receiver)";

const ACCOUNT: &str = "select r.rolconnlimit, d.datconnlimit,
    current_setting('default_transaction_read_only')
    from pg_roles r, pg_database d
    where r.rolname = current_user and d.datname = current_database()";

impl Facts {
    /// A row of an answer that can be done without.
    async fn try_ask<const N: usize>(
        &mut self,
        session: &Session,
        sql: &str,
    ) -> Option<[Option<String>; N]> {
        match session.row(sql).await {
            Ok(row) => Some(first(&row)),
            Err(error) => {
                self.refused.push(format!(
                    "{}: {error}",
                    sql.split_whitespace().collect::<Vec<_>>().join(" ")
                ));
                None
            }
        }
    }
}

async fn logins(settings: &Settings, node: &Node, facts: &mut Facts) {
    let mut pairs = Vec::new();
    for user in &settings.users {
        let password: Option<&Secret> = user.server_password.as_ref().or(user.password.as_ref());
        // With nothing but a verifier there is no way to log in here that the pool would go.
        if password.is_some() && node::usable(password).is_none() {
            continue;
        }
        // The client's own login gives what proves who it is.
        if password.is_none() && settings.auth.query.is_some() {
            continue;
        }
        let name = user.server_user.as_ref().unwrap_or(&user.name);
        for database in &settings.databases {
            let database = database.dbname.as_ref().unwrap_or(&database.name);
            if database != "*" {
                pairs.push((name, password, database));
            }
        }
    }
    facts.logins_left_out = pairs.len().saturating_sub(LOGINS);
    for (user, password, database) in pairs.into_iter().take(LOGINS) {
        facts.logins.push(Login {
            user: user.clone(),
            database: database.clone(),
            result: login(node, user, password, database).await,
        });
    }
}

/// Runs `auth.query` as a client's login would.
async fn auth(settings: &Settings, node: &Node) -> Result<(), String> {
    let auth = &settings.auth;
    let Some(query) = &auth.query else {
        return Ok(());
    };
    let password = auth.password.as_ref();
    let session = node::connect(node, &auth.user, password, &auth.database).await?;
    session.asks_for_password(query, &auth.user).await
}

async fn login(
    node: &Node,
    user: &str,
    password: Option<&Secret>,
    database: &str,
) -> Result<Account, String> {
    let session = node::connect(node, user, password, database).await?;
    let [role, database, read_only] = first(&session.row(ACCOUNT).await?);
    Ok(Account {
        // -1: no limit.
        role_limit: number(role.as_deref()),
        database_limit: number(database.as_deref()),
        read_only: read_only.as_deref() == Some("on"),
    })
}

/// The first columns of a row; null for those that are not there.
fn first<const N: usize>(row: &Row) -> [Option<String>; N] {
    std::array::from_fn(|column| row.get(column).cloned().flatten())
}

fn truth(text: Option<&str>) -> bool {
    text == Some("t")
}

fn number<T: std::str::FromStr>(text: Option<&str>) -> Option<T> {
    text?.parse().ok()
}
