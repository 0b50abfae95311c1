//! What a changed configuration changes, and the list of all options with their values.

use std::collections::BTreeMap;

use super::{
    schema::{Change, Options, Reload, Row, differences, reloaded, rows},
    settings::{
        Admin, Auth, Database, Failover, Listen, ListenTls, Log, Monitor, Node, NodeTls, Pool,
        Routing, Settings, User,
    },
};

/// The differences of two configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Take effect with the reload.
    pub live: Vec<Change>,
    /// Take effect when pgsplit is started again.
    pub restart: Vec<Change>,
}

impl Settings {
    /// What differs in `new`. Nothing is shown of secrets but that they changed.
    #[must_use]
    pub fn diff(&self, new: &Self) -> Changes {
        let mut all = Vec::new();
        differences(Listen::SECTION, &self.listen, &new.listen, &mut all);
        match (&self.listen.tls, &new.listen.tls) {
            (Some(old), Some(new)) => differences(ListenTls::SECTION, old, new, &mut all),
            (None, None) => {}
            (old, new) => all.push(Change {
                key: ListenTls::SECTION.to_owned(),
                old: there(old.is_some()),
                new: there(new.is_some()),
                reload: Reload::Restart,
            }),
        }
        differences(Admin::SECTION, &self.admin, &new.admin, &mut all);
        differences(Pool::SECTION, &self.pool, &new.pool, &mut all);
        differences(Routing::SECTION, &self.routing, &new.routing, &mut all);
        differences(Monitor::SECTION, &self.monitor, &new.monitor, &mut all);
        differences(Failover::SECTION, &self.failover, &new.failover, &mut all);
        differences(Auth::SECTION, &self.auth, &new.auth, &mut all);
        differences(Log::SECTION, &self.log, &new.log, &mut all);

        let node = |prefix: &str, old: &Node, new: &Node, all: &mut Vec<Change>| {
            differences(prefix, old, new, all);
            differences(&format!("{prefix}.tls"), &old.tls, &new.tls, all);
        };
        named(
            Node::SECTION,
            &self.nodes,
            &new.nodes,
            &mut all,
            Reload::Live,
            |n| &n.name,
            node,
        );
        let database = |prefix: &str, old: &Database, now: &Database, all: &mut Vec<Change>| {
            differences(prefix, old, now, all);
            // What only follows [pool] and [routing] has been listed there.
            inherited(
                &format!("{prefix}.pool"),
                (&self.pool, &old.pool),
                (&new.pool, &now.pool),
                all,
            );
            inherited(
                &format!("{prefix}.routing"),
                (&self.routing, &old.routing),
                (&new.routing, &now.routing),
                all,
            );
        };
        named(
            Database::SECTION,
            &self.databases,
            &new.databases,
            &mut all,
            Reload::Live,
            |d| &d.name,
            database,
        );
        let user = |prefix: &str, old: &User, new: &User, all: &mut Vec<Change>| {
            differences(prefix, old, new, all);
            differences(
                &format!("{prefix}.routing"),
                &old.routing.apply(&Routing::default()),
                &new.routing.apply(&Routing::default()),
                all,
            );
        };
        named(
            User::SECTION,
            &self.users,
            &new.users,
            &mut all,
            Reload::Live,
            |u| &u.name,
            user,
        );

        let (live, restart) = all
            .into_iter()
            .partition(|change| change.reload == Reload::Live);
        Changes { live, restart }
    }

    /// These settings after a reload that found `new`: what needs a restart stays as it is.
    #[must_use]
    pub fn reloaded(&self, new: &Self) -> Self {
        Self {
            listen: reloaded(&self.listen, &new.listen),
            admin: reloaded(&self.admin, &new.admin),
            pool: reloaded(&self.pool, &new.pool),
            routing: reloaded(&self.routing, &new.routing),
            monitor: reloaded(&self.monitor, &new.monitor),
            failover: reloaded(&self.failover, &new.failover),
            auth: reloaded(&self.auth, &new.auth),
            log: reloaded(&self.log, &new.log),
            nodes: new.nodes.clone(),
            databases: new.databases.clone(),
            users: new.users.clone(),
        }
    }

    /// Every option with its value and default, in the order of the file. Of overrides, only those
    /// that differ from the section they override.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let mut all = Vec::new();
        rows(Listen::SECTION, &self.listen, &Listen::default(), &mut all);
        if let Some(tls) = &self.listen.tls {
            rows(ListenTls::SECTION, tls, &ListenTls::default(), &mut all);
        }
        rows(Admin::SECTION, &self.admin, &Admin::default(), &mut all);
        rows(Pool::SECTION, &self.pool, &Pool::default(), &mut all);
        rows(
            Routing::SECTION,
            &self.routing,
            &Routing::default(),
            &mut all,
        );
        rows(
            Monitor::SECTION,
            &self.monitor,
            &Monitor::default(),
            &mut all,
        );
        rows(
            Failover::SECTION,
            &self.failover,
            &Failover::default(),
            &mut all,
        );
        rows(Auth::SECTION, &self.auth, &Auth::default(), &mut all);
        rows(Log::SECTION, &self.log, &Log::default(), &mut all);
        for node in &self.nodes {
            let prefix = format!("{}.{}", Node::SECTION, node.name);
            rows(&prefix, node, &Node::default(), &mut all);
            rows(
                &format!("{prefix}.tls"),
                &node.tls,
                &NodeTls::default(),
                &mut all,
            );
        }
        for database in &self.databases {
            let prefix = format!("{}.{}", Database::SECTION, database.name);
            rows(&prefix, database, &Database::default(), &mut all);
            overridden(
                &format!("{prefix}.pool"),
                &database.pool,
                &self.pool,
                &mut all,
            );
            overridden(
                &format!("{prefix}.routing"),
                &database.routing,
                &self.routing,
                &mut all,
            );
        }
        for user in &self.users {
            let prefix = format!("{}.{}", User::SECTION, user.name);
            rows(&prefix, user, &User::default(), &mut all);
            let routing = user.routing.apply(&self.routing);
            overridden(
                &format!("{prefix}.routing"),
                &routing,
                &self.routing,
                &mut all,
            );
        }
        all
    }
}

fn there(there: bool) -> String {
    if there { "given" } else { "not given" }.to_owned()
}

/// Compares what is listed by name: added, removed, changed.
fn named<T, N: AsRef<str>>(
    section: &str,
    old: &[T],
    new: &[T],
    changes: &mut Vec<Change>,
    reload: Reload,
    name: impl Fn(&T) -> &N,
    compare: impl Fn(&str, &T, &T, &mut Vec<Change>),
) {
    let index = |list: &'_ [T]| -> BTreeMap<String, usize> {
        list.iter()
            .enumerate()
            .map(|(n, item)| (name(item).as_ref().to_owned(), n))
            .collect()
    };
    let (before, after) = (index(old), index(new));
    for (name, n) in &before {
        let prefix = format!("{section}.{name}");
        match (old.get(*n), after.get(name).and_then(|n| new.get(*n))) {
            (Some(old), Some(new)) => compare(&prefix, old, new, changes),
            _ => changes.push(Change {
                key: prefix,
                old: there(true),
                new: there(false),
                reload,
            }),
        }
    }
    for name in after.keys().filter(|name| !before.contains_key(*name)) {
        changes.push(Change {
            key: format!("{section}.{name}"),
            old: there(false),
            new: there(true),
            reload,
        });
    }
}

/// Differences of sections that override a wider one, each given as (wider, own): without those
/// that the wider section has likewise.
fn inherited<T: Options>(prefix: &str, old: (&T, &T), new: (&T, &T), changes: &mut Vec<Change>) {
    let mut own = Vec::new();
    differences(prefix, old.1, new.1, &mut own);
    own.retain(|change| {
        let key = change.key.rsplit('.').next().unwrap_or_default();
        !(old.0.same(old.1, key) && new.0.same(new.1, key))
    });
    changes.append(&mut own);
}

/// The rows of overrides that differ from the wider section.
fn overridden<T: Options>(prefix: &str, own: &T, wider: &T, all: &mut Vec<Row>) {
    let mut own_rows = Vec::new();
    rows(prefix, own, wider, &mut own_rows);
    own_rows.retain(|row| row.value != row.default);
    all.append(&mut own_rows);
}
