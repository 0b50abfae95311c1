//! What operators see of a proxy, and what they can make it do.

use std::{borrow::Cow, collections::HashMap, sync::Arc, time::Duration};

use super::{
    Proxy,
    clients::{Activity, Client},
    tenant::Tenant,
};
use crate::{
    cluster::{Health, NodeId, NodeView, Role},
    config,
    error::{Fault, Visible},
    metrics::{
        Inspect, StatementCount,
        inspect::{
            Action, BoxFuture, ClientRow, ClientState, DatabaseRow, EventCounts, EventRow,
            Explanation, NodeRow, Phase, PoolRow, Readiness, ServerRow, ServerState, Shutdown,
            StatsRow, UserRow,
        },
    },
    monitor::Traffic,
    net::Peer,
    pool::Link,
    protocol::SqlState,
    routing::{Ask, MustSee, Policy, Random, Target, route},
    session::{Own, Pin, demand::Needs},
    sql::{self, CacheStats, Lexing},
};

impl Inspect for Proxy {
    fn nodes(&self) -> Vec<NodeRow> {
        let view = self.monitor.view_full();
        let row = |node: &NodeView| {
            let watched = self.monitor.watched(node.id)?;
            let wanted = watched.wanted();
            let standing = watched.standing();
            Some(NodeRow {
                in_flight: u64::from(self.in_flight(node.id)),
                since: Some(standing.since.elapsed()),
                error: standing.problem,
                ..NodeRow::of(node, wanted.host(), wanted.node.port)
            })
        };
        view.nodes.iter().filter_map(row).collect()
    }

    fn pools(&self) -> Vec<PoolRow> {
        let mut rows = Vec::new();
        let waiting = self.waiting();
        for tenant in self.all_tenants() {
            for pool in tenant.pools() {
                if self.monitor.watched(pool.node()).is_none() {
                    continue;
                }
                let status = pool.status();
                let waits = waiting
                    .iter()
                    .filter(|(of, node, _)| Arc::ptr_eq(of, &tenant) && *node == pool.node())
                    .map(|(_, _, waited)| *waited);
                let lent = status.lent.saturating_sub(status.opening);
                rows.push(PoolRow {
                    database: tenant.database.name.to_string(),
                    user: tenant.user.to_string(),
                    node: self.monitor.name(pool.node()),
                    mode: tenant.mode,
                    clients_active: lent,
                    clients_waiting: waits.clone().count(),
                    servers_active: lent,
                    servers_idle: status.idle,
                    servers_connecting: status.opening,
                    max_wait: waits.max().unwrap_or_default(),
                    max_size: status.max,
                });
            }
        }
        rows
    }

    fn clients(&self) -> Vec<ClientRow> {
        self.clients
            .all()
            .iter()
            .map(|client| self.client_row(client))
            .collect()
    }

    fn servers(&self) -> Vec<ServerRow> {
        let busy: HashMap<_, _> = self
            .clients
            .all()
            .iter()
            .filter_map(|client| client.link().map(|link| (link.number(), client.id)))
            .collect();
        let mut rows = Vec::new();
        for tenant in self.all_tenants() {
            for pool in tenant.pools() {
                for link in pool.links() {
                    let client = busy.get(&link.number()).copied();
                    rows.push(self.server_row(&tenant, &link, client));
                }
            }
        }
        rows
    }

    fn stats(&self) -> Vec<StatsRow> {
        let tenants = self.tenants();
        tenants
            .databases
            .values()
            .map(|database| StatsRow {
                database: database.name.to_string(),
                totals: database.totals(),
            })
            .collect()
    }

    fn databases(&self) -> Vec<DatabaseRow> {
        let config = self.settings();
        let clients = self.clients.all();
        config
            .databases
            .iter()
            .map(|database| DatabaseRow {
                name: database.name.clone(),
                dbname: database
                    .dbname
                    .clone()
                    .unwrap_or_else(|| database.name.clone()),
                pool_size: database.pool.max_size,
                min_idle: database.pool.min_idle,
                max_lifetime: database.pool.max_lifetime,
                mode: database.pool.mode,
                clients: clients
                    .iter()
                    .filter(|client| *client.tenant.database.name == *database.name)
                    .count(),
                paused: self.is_paused(&database.name),
            })
            .collect()
    }

    fn users(&self) -> Vec<UserRow> {
        let clients = self.clients.all();
        let tenants = self.all_tenants();
        self.settings()
            .users
            .iter()
            .map(|user| UserRow {
                name: user.name.clone(),
                clients: clients
                    .iter()
                    .filter(|client| *client.tenant.user == *user.name)
                    .count(),
                servers: tenants
                    .iter()
                    .filter(|tenant| *tenant.user == *user.name)
                    .flat_map(|tenant| tenant.pools())
                    .map(|pool| pool.status().open)
                    .sum(),
            })
            .collect()
    }

    fn config(&self) -> Vec<config::Row> {
        self.settings().rows()
    }

    fn events(&self) -> Vec<EventRow> {
        self.monitor
            .events()
            .iter()
            .map(|recorded| EventRow::of(recorded.at, &recorded.event, |id| recorded.name(id)))
            .collect()
    }

    fn queries(&self) -> Vec<StatementCount> {
        let databases: Vec<_> = self.tenants().databases.values().cloned().collect();
        // Each worker counts for itself: the same text, without its literals, is one row.
        let mut rows: HashMap<(&str, Box<str>), StatementCount> = HashMap::new();
        for unknown in databases.iter().flat_map(|database| database.unknown()) {
            let reason = unknown.why.name();
            rows.entry((reason, unknown.sample.clone()))
                .and_modify(|row| row.count += unknown.count)
                .or_insert_with(|| StatementCount {
                    reason,
                    count: unknown.count,
                    text: unknown.sample.into(),
                });
        }
        rows.into_values().collect()
    }

    fn class_cache(&self) -> Option<CacheStats> {
        let databases: Vec<_> = self.tenants().databases.values().cloned().collect();
        let mut sum = CacheStats::default();
        for stats in databases.iter().flat_map(|database| database.cache_stats()) {
            sum.text_hits += stats.text_hits;
            sum.skeleton_hits += stats.skeleton_hits;
            sum.fingerprint_hits += stats.fingerprint_hits;
            sum.misses += stats.misses;
            sum.unreadable += stats.unreadable;
            sum.too_long += stats.too_long;
            sum.evictions += stats.evictions;
            sum.flushes += stats.flushes;
        }
        Some(sum)
    }

    fn max_clients(&self) -> usize {
        self.settings().listen.max_clients
    }

    fn ready(&self) -> Readiness {
        let view = self.monitor.view();
        let usable = |role| {
            view.nodes.iter().any(|node| {
                node.role == role && matches!(node.health, Health::Up | Health::Suspect)
            })
        };
        Readiness {
            phase: if self.is_stopping() {
                Phase::Stopping
            } else if self.is_warm() {
                Phase::Listening
            } else {
                Phase::Starting
            },
            writable: view.primary.is_some(),
            readable: view.primary.is_some() || usable(Role::Replica),
        }
    }

    fn explain(&self, database: Option<&str>, sql: &str) -> Result<Explanation, Visible> {
        let config = self.settings();
        let first = config
            .databases
            .iter()
            .find(|database| database.name != "*");
        let database = database
            .or(first.map(|database| database.name.as_str()))
            .unwrap_or("*");
        let entry = config
            .database(database)
            .ok_or_else(|| super::handshake::unknown_database(database))?;
        let dbname = entry.dbname.as_deref().unwrap_or(database);
        let catalogue = self.monitor.catalogue(dbname);
        let explained = sql::explain(sql.as_bytes(), Lexing::default(), catalogue.as_deref());
        let class = sql::classify(sql.as_bytes(), Lexing::default(), catalogue.as_deref());
        let begin = match class.kind {
            sql::Kind::Begin(modes) => Some(modes),
            _ => None,
        };
        let ask = Ask {
            class,
            begin,
            needs: begin.map(|_modes| Needs::Repeatable),
            read_only_session: false,
            isolation: None,
            unfinished: None,
            leaning: false,
            own: &Own::default(),
            must_see: &MustSee::default(),
            avoid: &[],
            now: tokio::time::Instant::now().into_std(),
        };
        let view = self.monitor.view();
        let policy = Policy::from(&entry.routing);
        let chosen = route(&ask, &policy, &view, |node| self.in_flight(node), Random(0));
        let node = match chosen.target {
            Target::Primary => view.primary,
            Target::Replica(node) => Some(node),
        };
        Ok(Explanation {
            class: explained.class.to_string(),
            route: match chosen.target {
                Target::Primary => "primary",
                Target::Replica(_) => "replica",
            }
            .to_owned(),
            node: node.map(|node| self.monitor.name(node).to_string()),
            reason: chosen.reason.name().to_owned(),
            detail: explained.detail,
            tables: explained.tables,
            functions: explained.functions,
        })
    }

    fn event_counts(&self) -> EventCounts {
        let [by_kind, refusals] = self.monitor.event_counts();
        EventCounts { by_kind, refusals }
    }

    fn act(&self, action: Action) -> BoxFuture<'_, Result<Option<String>, Visible>> {
        Box::pin(async move {
            let traffic = self.this.upgrade();
            let traffic = traffic.ok_or_else(|| refused("the proxy is being stopped"))?;
            match action {
                Action::Switchover(name) => {
                    let to = self.node_named(&name)?;
                    let done = self.monitor.switchover(to, traffic).await;
                    done.map(Some).map_err(refused)
                }
                Action::Failover { to, forced } => {
                    let wanted = to.map(|name| self.node_named(&name)).transpose()?;
                    let done = self.monitor.fail_over(wanted, forced, traffic).await;
                    done.map(Some).map_err(refused)
                }
                Action::Pause(database) => traffic.pause(database).await,
                Action::WaitClose(database) => self.wait_close(database).await,
                action => self.carry_out(action),
            }
        })
    }
}

impl Traffic for Proxy {
    fn busy(&self, node: NodeId) -> usize {
        let busy = |client: &Client| match client.activity() {
            // About to be lent a connection, maybe of this node.
            Activity::Waiting => true,
            // Between two statements of a transaction it runs nothing, but isn't done.
            Activity::Active | Activity::InTransaction => {
                client.link().is_some_and(|link| link.node == node)
            }
            Activity::Idle | Activity::Held | Activity::Pinned | Activity::WaitingForReplica => {
                false
            }
        };
        self.clients.count(busy)
    }

    fn failover(&self) -> config::Failover {
        self.settings().failover.clone()
    }
}

/// An operation that can't be carried out now.
fn refused(why: impl Into<Cow<'static, str>>) -> Visible {
    Visible::error(
        Fault::Client,
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        why,
    )
}

impl Proxy {
    fn carry_out(&self, action: Action) -> Result<Option<String>, Visible> {
        let matching = |database: &Option<String>| -> Vec<Arc<Tenant>> {
            self.all_tenants()
                .into_iter()
                .filter(|tenant| {
                    database
                        .as_deref()
                        .is_none_or(|name| *tenant.database.name == *name)
                })
                .collect()
        };
        match action {
            // They take their time, and are carried out by `act`.
            Action::Switchover(_)
            | Action::Failover { .. }
            | Action::Pause(_)
            | Action::WaitClose(_) => Ok(None),
            Action::Resume(database) => self.resume(database.as_deref()),
            Action::Reconnect(database) => {
                for tenant in matching(&database) {
                    for pool in tenant.pools() {
                        pool.retire();
                    }
                }
                Ok(None)
            }
            Action::Reload => self.reload().map(Some).map_err(|problems| {
                Visible::error(Fault::Client, SqlState::CONFIG_FILE_ERROR, problems)
            }),
            Action::SetNode { name, enabled } => {
                let node = self.node_named(&name)?;
                self.monitor.set_maintenance(node, !enabled);
                Ok(self.what_drains(node).filter(|_| !enabled))
            }
            Action::SetWeight { name, weight } => {
                self.monitor.set_weight(self.node_named(&name)?, weight);
                Ok(None)
            }
            Action::KillDatabase(name) => {
                for client in self.clients.all() {
                    if *client.tenant.database.name == *name {
                        client.kill();
                    }
                }
                for tenant in matching(&Some(name)) {
                    for pool in tenant.pools() {
                        pool.doom();
                    }
                }
                Ok(None)
            }
            Action::KillClient(id) => {
                let client = u32::try_from(id).ok().and_then(|id| self.clients.get(id));
                let client = client.ok_or_else(|| {
                    Visible::error(
                        Fault::Client,
                        SqlState::UNDEFINED_OBJECT,
                        format!("there is no client {id}"),
                    )
                })?;
                client.kill();
                Ok(None)
            }
            Action::Shutdown(Shutdown::Now) => {
                self.shut_down_now();
                Ok(None)
            }
            Action::Shutdown(Shutdown::WaitForServers | Shutdown::WaitForClients) => {
                self.shut_down();
                Ok(None)
            }
        }
    }

    fn node_named(&self, name: &str) -> Result<NodeId, Visible> {
        self.monitor.node_named(name).ok_or_else(|| {
            Visible::error(
                Fault::Client,
                SqlState::UNDEFINED_OBJECT,
                format!("there is no node \"{name}\""),
            )
        })
    }

    /// What is told of a node that was taken out while it is in use.
    fn what_drains(&self, node: NodeId) -> Option<String> {
        let tenants = self.all_tenants();
        let pools = tenants.iter().flat_map(|tenant| tenant.pools());
        let lent = pools
            .filter(|pool| pool.node() == node)
            .map(|pool| pool.status().lent);
        let lent: usize = lent.sum();
        (lent > 0).then(|| {
            format!("{lent} server connections are in use there; each is closed as it comes free")
        })
    }

    /// Clients that wait for a server connection: whose, of which node, for how long.
    fn waiting(&self) -> Vec<(Arc<Tenant>, NodeId, Duration)> {
        let now = tokio::time::Instant::now();
        let clients = self.clients.all().into_iter();
        clients
            .filter_map(|client| {
                let (waited, node) = client.waiting(now)?;
                Some((Arc::clone(&client.tenant), node, waited))
            })
            .collect()
    }

    fn client_row(&self, client: &Client) -> ClientRow {
        let link = client.link();
        ClientRow {
            id: u64::from(client.id),
            user: client.tenant.user.to_string(),
            database: client.tenant.database.name.to_string(),
            state: match client.activity() {
                Activity::Idle => ClientState::Idle,
                Activity::Active | Activity::InTransaction | Activity::Pinned => {
                    ClientState::Active
                }
                Activity::Waiting | Activity::WaitingForReplica => ClientState::Waiting,
                Activity::Held => ClientState::Held,
            },
            addr: match client.peer {
                Peer::Tcp(address) => Some(address),
                Peer::Unix | Peer::Memory | Peer::Unknown => None,
            },
            local_addr: None,
            connected: client.since.elapsed(),
            request: None,
            wait: client
                .waiting(tokio::time::Instant::now())
                .map_or(Duration::ZERO, |(waited, _)| waited),
            server: link.as_ref().map(|link| link.number()),
            tls: client.tls.then(|| "TLS".to_owned()),
            application_name: client.application_name.to_string(),
            node: link.map(|link| self.monitor.name(link.node)),
            in_transaction: client.activity() == Activity::InTransaction,
            pinned: (!client.pins().is_empty()).then(|| {
                let reasons: Vec<&str> = client.pins().iter().map(Pin::name).collect();
                reasons.join(", ")
            }),
        }
    }

    fn server_row(&self, tenant: &Tenant, link: &Link, client: Option<u32>) -> ServerRow {
        ServerRow {
            id: link.number(),
            user: tenant.user.to_string(),
            database: tenant.database.name.to_string(),
            node: self.monitor.name(link.node),
            state: if client.is_some() {
                ServerState::Active
            } else {
                ServerState::Idle
            },
            addr: None,
            local_addr: None,
            connected: link.since.elapsed(),
            request: None,
            close_needed: link.is_doomed() || link.is_retired(),
            client: client.map(u64::from),
            pid: i32::try_from(link.cancel.pid).unwrap_or_default(),
            tls: None,
            application_name: String::new(),
        }
    }
}
