//! Defaults that depend on other options, and checks that concern several.

use std::{
    collections::HashMap,
    fs,
    hash::Hash,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    document::{Given, Origin, Part},
    draft::{DatabaseDraft, Draft, NodeDraft},
    problem::Problems,
    schema::Overrides,
    settings::{
        Database, Discovery, FailoverMode, Host, ListenTls, Node, NodeRole, NodeTls, Pool, Secret,
        Settings, SslMode, User,
    },
};
use crate::protocol::scram::Verifier;

/// Most nodes; per-node tables are scanned for each decision.
const MOST_NODES: usize = 64;

/// Longest password file that is read, in bytes.
const LONGEST_PASSWORD_FILE: u64 = 64 << 10;

/// Longest path of a Unix socket (`sun_path` less its end), in bytes.
const LONGEST_SOCKET_PATH: usize = 107;

/// Databases of pgsplit's own.
const CONSOLES: [&str; 2] = ["pgsplit", "pgbouncer"];

/// Settings that can be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    pub settings: Settings,
    /// What is allowed but hardly meant, one sentence each.
    pub warnings: Vec<String>,
}

/// Resolves a draft whose single options have been read; `problems` are those found so far.
pub(super) fn resolve(draft: Draft, problems: Problems) -> Result<Loaded, Problems> {
    let mut work = Work {
        // What is missing may be missing only because its header was misspelt.
        complete: problems.is_empty(),
        problems,
        warnings: Vec::new(),
    };
    let settings = work.settings(draft);
    if work.problems.is_empty() {
        Ok(Loaded {
            settings,
            warnings: work.warnings,
        })
    } else {
        Err(work.problems.sorted())
    }
}

struct Work {
    complete: bool,
    problems: Problems,
    warnings: Vec<String>,
}

impl Work {
    fn problem(&mut self, origin: &Origin, message: impl Into<String>) {
        self.problems.push(origin.problem(message));
    }

    fn settings(&mut self, draft: Draft) -> Settings {
        self.pool(&draft.pool.value, &draft.pool.given);
        let found = draft.failover.value.discovery == Discovery::Patroni;
        let nodes = self.nodes(draft.nodes, found, &draft.origin);
        let elsewhere = draft.listen.value.trust || draft.auth.value.query.is_some();
        let users = self.users(draft.users, elsewhere, &draft.origin);
        let databases = self.databases(
            draft.databases,
            &draft.pool.value,
            &draft.routing.value,
            &draft.origin,
        );
        let mut settings = Settings {
            listen: draft.listen.value,
            admin: draft.admin.value,
            pool: draft.pool.value,
            routing: draft.routing.value,
            monitor: draft.monitor.value,
            failover: draft.failover.value,
            auth: draft.auth.value,
            log: draft.log.value,
            nodes,
            databases,
            users,
        };
        settings.listen.tls = draft.listen_tls.map(|tls| self.listen_tls(tls));
        self.listen(&settings, &draft.listen.given, &draft.admin.given);
        self.console_users(&mut settings, &draft.admin.given);
        self.monitor(&mut settings, &draft.monitor.given);
        self.failover(&mut settings, &draft.failover.given);
        self.auth(&mut settings, &draft.auth.given);
        let zone = &settings.routing.zone;
        if !zone.is_empty() && settings.nodes.iter().all(|node| node.zone != *zone) {
            self.warnings.push(format!(
                "no node is in the zone {zone:?} of [routing]: it makes no difference"
            ));
        }
        settings
    }

    fn listen(&mut self, settings: &Settings, listen: &Given, admin: &Given) {
        let addresses = &settings.listen.addresses;
        for (n, address) in addresses.iter().enumerate() {
            if addresses.iter().take(n).any(|other| other == address) {
                self.problem(listen.at("address"), format!("address has {address} twice"));
            }
        }
        if let Some(address) = settings.admin.address
            && addresses.contains(&address)
        {
            self.problem(
                admin.at("address"),
                format!("address in [admin] is one where clients connect, too: {address}"),
            );
        }
        if let Some(directory) = &settings.listen.unix_socket_dir {
            self.socket_path(directory, listen.at("unix_socket_dir"));
        }
    }

    fn listen_tls(&mut self, tls: Part<ListenTls>) -> ListenTls {
        for key in ["cert", "key"] {
            if !tls.given.has(key) {
                self.problem(
                    &tls.given.header,
                    format!("missing key {key:?} in [listen.tls]"),
                );
            }
        }
        let Part { value: tls, given } = tls;
        self.readable(&given, "cert", Some(&tls.cert));
        self.readable(&given, "key", Some(&tls.key));
        self.readable(&given, "client_ca", tls.client_ca.as_ref());
        tls
    }

    /// The file can be opened; what is in it is seen by whoever uses it.
    fn readable(&mut self, given: &Given, key: &str, file: Option<&PathBuf>) {
        if let Some(file) = file.filter(|_| given.has(key))
            && let Err(error) = fs::File::open(file)
        {
            let file = file.display().to_string();
            self.problem(
                given.at(key),
                format!("{key} {file:?} can't be read: {error}"),
            );
        }
    }

    fn socket_path(&mut self, directory: &Path, origin: &Origin) {
        let path = directory.join(".s.PGSQL.65535");
        if path.as_os_str().len() > LONGEST_SOCKET_PATH {
            self.problem(
                origin,
                "the socket's path would be longer than the system allows (107 bytes)",
            );
        }
    }

    fn pool(&mut self, pool: &Pool, given: &Given) {
        if pool.min_idle > pool.max_size {
            self.problem(
                given.at("min_idle"),
                format!(
                    "min_idle ({}) must not be larger than max_size ({})",
                    pool.min_idle, pool.max_size
                ),
            );
        }
    }

    /// `found`: nodes needn't be given, since Patroni lists them.
    fn nodes(&mut self, mut drafts: Vec<NodeDraft>, found: bool, origin: &Origin) -> Vec<Node> {
        if drafts.is_empty() && self.complete && !found {
            self.problem(origin, "no [[node]]: there is no server to connect to");
        }
        if let Some(beyond) = drafts.get(MOST_NODES) {
            self.problem(
                &beyond.node.given.header,
                format!("more than {MOST_NODES} nodes"),
            );
            drafts.truncate(MOST_NODES);
        }
        let hosts: Vec<Host> = drafts
            .iter()
            .map(|draft| draft.node.value.host.clone())
            .collect();
        let mut names = Seen::default();
        let mut addresses = Seen::default();
        let mut nodes = Vec::new();
        for NodeDraft { node, tls } in drafts {
            let Part {
                value: mut node,
                given,
            } = node;
            let host = node.host.to_string();
            let mut twice = None;
            if host.is_empty() {
                self.required(&given, "host", "[[node]]");
            } else {
                twice = addresses.again((host.clone(), node.port), given.at("host"));
                if let Host::Unix(directory) = &node.host {
                    self.socket_path(directory, given.at("host"));
                }
            }
            if node.name.is_empty() {
                let alone = hosts.iter().filter(|other| **other == node.host).count() == 1;
                node.name = if alone {
                    Arc::from(host)
                } else {
                    Arc::from(format!("{host}:{}", node.port))
                };
            }
            if let Some(first) = twice {
                let problem = format!(
                    "the node at {} port {} is there already, {first}",
                    node.host, node.port
                );
                self.problem(given.at("host"), problem);
            } else if !node.name.is_empty()
                && let Some(first) = names.again(Arc::clone(&node.name), given.at("name"))
            {
                self.problem(
                    given.at("name"),
                    format!("there is a node {:?} already, {first}", node.name),
                );
            }
            node.tls = self.node_tls(tls);
            nodes.push(node);
        }
        if !nodes.is_empty() && nodes.iter().all(|node| node.role == NodeRole::Replica) {
            self.problem(
                origin,
                "every node has role = \"replica\": there is no primary",
            );
        }
        nodes
    }

    fn node_tls(&mut self, tls: Part<NodeTls>) -> NodeTls {
        let Part { value: tls, given } = tls;
        if tls.cert.is_some() != tls.key.is_some() {
            self.problem(&given.header, "cert and key in [node.tls] go together");
        }
        if tls.ca.is_some() && tls.sslmode != SslMode::VerifyFull {
            self.problem(
                given.at("ca"),
                format!(
                    "ca in [node.tls] is looked at only with sslmode = \"verify-full\", not {:?}",
                    tls.sslmode.name()
                ),
            );
        }
        self.readable(&given, "ca", tls.ca.as_ref());
        self.readable(&given, "cert", tls.cert.as_ref());
        self.readable(&given, "key", tls.key.as_ref());
        tls
    }

    /// A key that must be given, and not be empty.
    fn required(&mut self, given: &Given, key: &str, section: &str) {
        if !given.has(key) {
            self.problem(&given.header, format!("missing key {key:?} in {section}"));
        } else if self.complete {
            self.problem(
                given.at(key),
                format!("{key} in {section} must not be empty"),
            );
        }
    }

    fn databases(
        &mut self,
        drafts: Vec<DatabaseDraft>,
        pool: &Pool,
        routing: &super::Routing,
        origin: &Origin,
    ) -> Vec<Database> {
        if drafts.is_empty() && self.complete {
            self.problem(
                origin,
                "no [[database]]: clients could connect to none; name = \"*\" allows any",
            );
        }
        let mut names = Seen::default();
        let mut databases = Vec::new();
        for draft in drafts {
            let Part {
                value: mut database,
                given,
            } = draft.database;
            let at = given.at("name");
            if database.name.is_empty() {
                self.required(&given, "name", "[[database]]");
            } else if let Some(first) = names.again(database.name.clone(), at) {
                self.problem(
                    at,
                    format!("there is a database {:?} already, {first}", database.name),
                );
            } else if CONSOLES.contains(&database.name.as_str()) {
                self.problem(
                    at,
                    format!("{:?} is the console: call the database something else, with dbname = its name on the nodes", database.name),
                );
            }
            let (overrides, given): (Overrides, Given) = draft.pool;
            database.pool = overrides.apply(pool);
            if !overrides.is_empty() {
                self.pool(&database.pool, &given);
            }
            database.routing = draft.routing.apply(routing);
            databases.push(database);
        }
        databases
    }

    /// `elsewhere`: who has no password here may come in all the same.
    fn users(&mut self, drafts: Vec<Part<User>>, elsewhere: bool, origin: &Origin) -> Vec<User> {
        if drafts.is_empty() && !elsewhere && self.complete {
            self.problem(origin, "no [[user]]: nobody could log in");
        }
        let mut names = Seen::default();
        let mut users = Vec::new();
        for Part {
            value: mut user,
            given,
        } in drafts
        {
            let at = given.at("name");
            if user.name.is_empty() {
                self.required(&given, "name", "[[user]]");
            } else if let Some(first) = names.again(user.name.clone(), at) {
                self.problem(
                    at,
                    format!("there is a user {:?} already, {first}", user.name),
                );
            }
            self.password(&mut user.password, user.password_file.as_ref(), &given);
            for (key, secret) in [
                ("password", &user.password),
                ("server_password", &user.server_password),
            ] {
                // Taken for a plain password it would let nobody in, or whoever has seen it.
                if let Some(Secret(text)) = secret
                    && text.starts_with("SCRAM-SHA-256$")
                    && text.parse::<Verifier>().is_err()
                {
                    self.problem(
                        given.at(key),
                        format!("{key} in [[user]] begins like a SCRAM verifier, but is none"),
                    );
                }
            }
            let wrong = given.has("password") && !self.complete;
            if user.password.is_none() && user.password_file.is_none() && !elsewhere && !wrong {
                let problem = format!(
                    "the user {:?} has no password: it could never log in (give password, password_file, trust = true in [listen], or query in [auth])",
                    user.name
                );
                self.problem(given.at("password"), problem);
            }
            users.push(user);
        }
        users
    }

    /// Fills in a password from its file.
    fn password(&mut self, password: &mut Option<Secret>, file: Option<&PathBuf>, given: &Given) {
        let Some(file) = file else {
            return;
        };
        if password.is_some() {
            self.problem(
                given.at("password_file"),
                "password and password_file exclude each other",
            );
            return;
        }
        match read_password(file) {
            Ok(secret) => *password = Some(secret),
            Err(message) => self.problem(
                given.at("password_file"),
                format!(
                    "the password file {:?} {message}",
                    file.display().to_string()
                ),
            ),
        }
    }

    fn console_users(&mut self, settings: &mut Settings, given: &Given) {
        if !given.has("console_users") {
            settings.admin.console_users = settings
                .users
                .first()
                .map(|user| user.name.clone())
                .into_iter()
                .collect();
        }
        for name in &settings.admin.console_users {
            if self.complete && settings.user(name).is_none() && settings.auth.query.is_none() {
                let problem =
                    format!("console_users in [admin] names {name:?}, who is no [[user]]");
                self.problem(given.at("console_users"), problem);
            }
        }
    }

    /// After [`Self::monitor`], whose user is the default.
    fn failover(&mut self, settings: &mut Settings, given: &Given) {
        let Settings {
            failover,
            monitor,
            users,
            ..
        } = settings;
        if failover.mode == FailoverMode::Promote && !failover.sole_promoter {
            self.problem(
                given.at("mode"),
                "mode = \"promote\" in [failover] needs sole_promoter = true: two that promote make two primaries, so that with several proxies it is Patroni's or the like's",
            );
        }
        match failover.discovery {
            Discovery::Patroni if failover.patroni.is_empty() => self.problem(
                given.at("discovery"),
                "discovery = \"patroni\" in [failover] needs patroni = [\"http://host:8008\"]: where to ask",
            ),
            Discovery::Patroni if failover.mode == FailoverMode::Promote => self.problem(
                given.at("mode"),
                "mode = \"promote\" in [failover] can't go with discovery = \"patroni\": Patroni promotes",
            ),
            Discovery::Static | Discovery::Dns if !failover.patroni.is_empty() => self.problem(
                given.at("patroni"),
                "patroni in [failover] needs discovery = \"patroni\"",
            ),
            Discovery::Static | Discovery::Patroni | Discovery::Dns => {}
        }
        self.password(
            &mut failover.password,
            failover.password_file.as_ref(),
            given,
        );
        if failover.user.is_empty() {
            failover.user = monitor.user.clone();
        }
        if failover.password.is_none() {
            let known = users
                .iter()
                .find(|user| user.server_user.as_ref().unwrap_or(&user.name) == &failover.user);
            failover.password = if failover.user == monitor.user {
                monitor.password.clone()
            } else {
                known.and_then(|user| user.server_password.clone().or(user.password.clone()))
            };
        }
    }

    /// After [`Self::monitor`], whose user is the default.
    fn auth(&mut self, settings: &mut Settings, given: &Given) {
        let Settings {
            auth,
            monitor,
            users,
            ..
        } = settings;
        self.password(&mut auth.password, auth.password_file.as_ref(), given);
        if auth.query.is_none() {
            return;
        }
        if monitor.user.is_empty() && self.complete {
            self.problem(
                &given.header,
                "without a [[user]], user in [monitor] must say who watches the nodes",
            );
        }
        if auth.user.is_empty() {
            auth.user = monitor.user.clone();
        }
        if auth.password.is_none() {
            let known = users
                .iter()
                .find(|user| user.server_user.as_ref().unwrap_or(&user.name) == &auth.user);
            auth.password = if auth.user == monitor.user {
                monitor.password.clone()
            } else {
                known.and_then(|user| user.server_password.clone().or(user.password.clone()))
            };
        }
        if auth.database.is_empty() {
            auth.database = monitor.database.clone();
        }
    }

    fn monitor(&mut self, settings: &mut Settings, given: &Given) {
        let Settings {
            monitor,
            users,
            databases,
            ..
        } = settings;
        self.password(&mut monitor.password, monitor.password_file.as_ref(), given);
        let user = if monitor.user.is_empty() {
            users.first()
        } else {
            users
                .iter()
                .find(|user| user.server_user.as_ref().unwrap_or(&user.name) == &monitor.user)
        };
        if let Some(user) = user {
            monitor.user = user.server_user.as_ref().unwrap_or(&user.name).clone();
            if monitor.password.is_none() {
                monitor.password = user
                    .server_password
                    .clone()
                    .or_else(|| user.password.clone());
            }
        }
        if let Some(Secret(password)) = &monitor.password
            && password.starts_with("SCRAM-SHA-256$")
        {
            self.warnings.push(format!(
                "only a SCRAM verifier is known of the user {:?}, who watches the nodes: unless they trust it, give [monitor] user and password",
                monitor.user
            ));
        }
        if monitor.database.is_empty() {
            // A database named `*` has no name of its own; `postgres` is made by initdb.
            monitor.database = databases
                .first()
                .map(|database| database.dbname.as_ref().unwrap_or(&database.name))
                .filter(|name| *name != "*")
                .map_or_else(|| "postgres".to_owned(), Clone::clone);
        }
    }
}

/// What has been seen, and where first.
struct Seen<K>(HashMap<K, Origin>);

impl<K> Default for Seen<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Seen<K> {
    /// Where it was seen first, if this is another time.
    fn again(&mut self, key: K, origin: &Origin) -> Option<String> {
        match self.0.get(&key) {
            Some(Origin {
                place: Some(place), ..
            }) => Some(format!("in line {}", place.line)),
            Some(Origin { source, .. }) => Some(format!("by {source}")),
            None => {
                self.0.insert(key, origin.clone());
                None
            }
        }
    }
}

/// The first line of a password file.
fn read_password(file: &Path) -> Result<Secret, String> {
    let mut text = String::new();
    fs::File::open(file)
        .and_then(|file| file.take(LONGEST_PASSWORD_FILE).read_to_string(&mut text))
        .map_err(|error| format!("can't be read: {error}"))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() && !line.contains('\0') => Ok(Secret(line.to_owned())),
        _ => Err("has no password in its first line".to_owned()),
    }
}
