//! A proxy for tests: two nodes, a few rows, and a record of what it was asked to do.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use crate::{
    cluster::{Health, Lsn, NodeId, Role},
    config::{self, Reload, settings::PoolMode},
    error::{Fault, Visible},
    metrics::{
        DatabaseTotals, Inspect, StatementCount,
        inspect::{
            Action, BoxFuture, ClientRow, ClientState, DatabaseRow, EventRow, Explanation, NodeRow,
            Phase, PoolRow, Readiness, ServerRow, ServerState, StatsRow, UserRow,
        },
    },
    protocol::SqlState,
};

#[derive(Debug)]
pub(super) struct Fake {
    pub(super) ready: Mutex<Readiness>,
    pub(super) actions: Mutex<Vec<Action>>,
    /// So many clients.
    pub(super) clients: usize,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            ready: Mutex::new(Readiness {
                phase: Phase::Listening,
                writable: true,
                readable: true,
            }),
            actions: Mutex::default(),
            clients: 1,
        }
    }
}

fn node(name: &str, role: Role, lag: Option<Duration>) -> NodeRow {
    NodeRow {
        id: NodeId(u16::from(role == Role::Replica)),
        name: name.into(),
        host: "10.0.0.1".into(),
        port: 5432,
        zone: "a".into(),
        weight: 1,
        role,
        health: Health::Up,
        leaving: false,
        timeline: Some(1),
        lsn: Some(Lsn(0x16B_3748)),
        lag,
        lag_bytes: lag.map(|_lag| 4096),
        version: Some(150_018),
        in_flight: 2,
        since: Some(Duration::from_secs(60)),
        error: None,
    }
}

fn pool(node: &str, active: usize) -> PoolRow {
    PoolRow {
        database: "app".into(),
        user: "app".into(),
        node: node.into(),
        mode: PoolMode::Transaction,
        clients_active: active,
        clients_waiting: 1,
        servers_active: active,
        servers_idle: 3,
        servers_connecting: 0,
        max_wait: Duration::from_micros(1_000_250),
        max_size: 20,
    }
}

impl Inspect for Fake {
    fn nodes(&self) -> Vec<NodeRow> {
        vec![
            node("pg1", Role::Primary, Some(Duration::ZERO)),
            node("pg\"2", Role::Replica, Some(Duration::from_millis(1_250))),
        ]
    }

    fn pools(&self) -> Vec<PoolRow> {
        vec![pool("pg1", 1), pool("pg\"2", 2)]
    }

    fn clients(&self) -> Vec<ClientRow> {
        let client = |id| ClientRow {
            id,
            user: "app".into(),
            database: "app".into(),
            state: ClientState::Active,
            addr: Some(([127, 0, 0, 1], 5).into()),
            local_addr: None,
            connected: Duration::from_secs(10),
            request: None,
            wait: Duration::ZERO,
            server: Some(3),
            tls: None,
            application_name: "x".repeat(50),
            node: Some("pg1".into()),
            in_transaction: true,
            pinned: Some("listen".to_owned()),
        };
        (1..=self.clients as u64).map(client).collect()
    }

    fn servers(&self) -> Vec<ServerRow> {
        vec![ServerRow {
            id: 3,
            user: "app".into(),
            database: "app".into(),
            node: "pg1".into(),
            state: ServerState::Idle,
            addr: None,
            local_addr: None,
            connected: Duration::from_secs(10),
            request: Some(Duration::from_secs(1)),
            close_needed: true,
            client: None,
            pid: 4242,
            tls: Some("TLSv1.3".into()),
            application_name: String::new(),
        }]
    }

    fn stats(&self) -> Vec<StatsRow> {
        let totals = DatabaseTotals {
            transactions: 10,
            queries: 12_345_678,
            ..DatabaseTotals::default()
        };
        ["app", "other"]
            .map(|database| StatsRow {
                database: database.into(),
                totals,
            })
            .into()
    }

    fn databases(&self) -> Vec<DatabaseRow> {
        ["*", "app"]
            .map(|name| DatabaseRow {
                name: name.into(),
                dbname: name.into(),
                pool_size: 20,
                min_idle: 0,
                max_lifetime: Duration::from_secs(3_600),
                mode: PoolMode::Transaction,
                clients: 1,
                paused: false,
            })
            .into()
    }

    fn users(&self) -> Vec<UserRow> {
        vec![UserRow {
            name: "app".into(),
            clients: 1,
            servers: 2,
        }]
    }

    fn config(&self) -> Vec<config::Row> {
        let row = |key: &str, value: &str| config::Row {
            key: key.into(),
            value: value.into(),
            default: String::new(),
            reload: Reload::Live,
        };
        vec![
            row("pool.max_size", "20"),
            row("user.app.password", "hunter2"),
            row("user.app.password_file", "/run/secrets/app"),
            row("monitor.server_password", "hunter2"),
        ]
    }

    fn events(&self) -> Vec<EventRow> {
        let event = |number: u64| EventRow {
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(number),
            kind: "health",
            node: Some("pg1".into()),
            from: Some("up".into()),
            to: Some("down".into()),
            cause: "probe".into(),
            lsn: Some(Lsn(0x16B_3748)),
            timeline: Some(1),
            message: format!("<b>event</b> {number}"),
        };
        (0..30).map(event).collect()
    }

    fn queries(&self) -> Vec<StatementCount> {
        vec![StatementCount {
            reason: "unparsable",
            count: 5,
            text: "SELECT ?".into(),
        }]
    }

    fn max_clients(&self) -> usize {
        100
    }

    fn ready(&self) -> Readiness {
        *self.ready.lock().unwrap()
    }

    fn explain(&self, database: Option<&str>, sql: &str) -> Result<Explanation, Visible> {
        let database = database.unwrap_or("app");
        if database != "app" {
            let message = format!("database \"{database}\" does not exist");
            let state = SqlState::INVALID_CATALOG_NAME;
            return Err(Visible::error(Fault::Client, state, message));
        }
        Ok(Explanation {
            class: "read".into(),
            route: "replica".into(),
            node: Some("pg\"2".into()),
            reason: "read".into(),
            detail: None,
            tables: vec![sql.to_owned()],
            functions: Vec::new(),
        })
    }

    fn act(&self, action: Action) -> BoxFuture<'_, Result<Option<String>, Visible>> {
        Box::pin(async move {
            self.actions.lock().unwrap().push(action.clone());
            match action {
                // Never done: a transaction that doesn't end.
                Action::Pause(None) => std::future::pending().await,
                Action::Reload => Ok(Some("pool.max_size changed".into())),
                Action::SetNode { name, .. } if name == "none" => Err(Visible::error(
                    Fault::Client,
                    SqlState::UNDEFINED_OBJECT,
                    "no such node: none",
                )),
                _ => Ok(None),
            }
        })
    }
}

/// A console over a fake proxy.
pub(super) fn console(fake: Fake) -> (Arc<super::Console>, Arc<Fake>) {
    let fake = Arc::new(fake);
    let metrics = Arc::new(crate::metrics::Metrics::new(2));
    let console = super::Console::new(Arc::clone(&fake) as Arc<dyn Inspect>, metrics);
    (Arc::new(console), fake)
}
