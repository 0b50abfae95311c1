//! Letting a client in: handshake, authentication, the session's start.

use std::sync::{Arc, atomic::Ordering};

use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::{
    io::AsyncWriteExt as _,
    time::{Duration, Instant, timeout, timeout_at},
};

use super::{
    CONSOLE_DATABASES, ConsoleClient, ConsoleServer, Proxy,
    authenticate::Identity,
    client::{Stance, Task},
    clients::Client,
    handshake::{self, Accepted, HandshakeContext, HandshakeError, Login, refuse},
    is_ascii_safe,
    lend::{Lend, Refused, either},
    observe::{self, Problem},
    replication,
    tenant::Tenant,
};
use crate::{
    cluster::{Health, NodeId, Role},
    error::{Fault, Visible},
    metrics::LoginResult,
    net::{Peer, Stream},
    pool::Lease,
    protocol::{
        SqlState,
        backend::Status,
        startup::{CancelKey, Setting},
        write,
    },
    routing::Target,
    session::{Causality, Own, Session, settings::Settings},
    sql::{Lexing, Tables, Traits},
};

/// What a worker's listeners give their clients.
pub(super) struct Door {
    pub(super) proxy: Arc<Proxy>,
    pub(super) worker: usize,
    pub(super) handshake: HandshakeContext,
    pub(super) console: Arc<dyn ConsoleServer>,
}

/// A client's last words may take so long.
const FAREWELL: Duration = Duration::from_secs(5);

impl Door {
    /// Serves one connection from its first byte to its end.
    pub(super) async fn enter(self: Arc<Self>, stream: Stream) {
        let proxy = &self.proxy;
        let deadline = Instant::now() + proxy.settings().listen.login_timeout;
        let peer = stream.peer();
        // The handshake's state is large: it lives in a box of its own, until it is over.
        let accepted = Box::pin(handshake::accept(stream, &self.handshake, deadline)).await;
        match accepted {
            Ok(Accepted::Cancel { key, mut stream }) => {
                proxy.metrics(self.worker).cancel();
                if let Some(aimed) = proxy.clients.cancel(&key) {
                    proxy.send_cancel(&aimed.link).await;
                }
                handshake::close(&mut stream, deadline).await;
            }
            Ok(Accepted::Session(login)) => {
                let Some(place) = Place::take(proxy) else {
                    let error = Visible::fatal(
                        Fault::Proxy,
                        SqlState::TOO_MANY_CONNECTIONS,
                        "sorry, too many clients already",
                    )
                    .hint("listen.max_clients is reached");
                    proxy.metrics(self.worker).login(LoginResult::TooMany);
                    let (user, database) = (&login.user, &login.database);
                    tracing::info!(%peer, %user, %database, error = "listen.max_clients is reached", "client not let in");
                    return turn_away(*login, &error).await;
                };
                let task = Box::pin(Arc::clone(&self).log_in(*login, peer, deadline)).await;
                if let Some((task, unread)) = task {
                    let _counted = proxy.worker_metrics.get(self.worker).map(|m| m.client());
                    task.run(&unread).await;
                }
                drop(place);
            }
            Err(error) => self.refused(&error, peer, None),
        }
    }

    fn refused(&self, error: &HandshakeError, peer: Peer, login: Option<&Login>) {
        let result = match error {
            HandshakeError::Closed => return,
            HandshakeError::TimedOut => LoginResult::Timeout,
            HandshakeError::Lost(_) | HandshakeError::Tls(_) => LoginResult::Broken,
            HandshakeError::Refused(_) => LoginResult::Refused,
        };
        self.proxy.metrics(self.worker).login(result);
        match login {
            None => tracing::info!(%peer, %error, "client not let in"),
            Some(Login { user, database, .. }) => {
                tracing::info!(%peer, %user, %database, %error, "client not let in");
            }
        }
    }

    /// Authenticates the client and makes its session. `None`: it was told why not, or it is gone.
    async fn log_in(
        self: Arc<Self>,
        mut login: Login,
        peer: Peer,
        deadline: Instant,
    ) -> Option<(Task, Vec<u8>)> {
        let proxy = &self.proxy;
        let authenticator = proxy.authenticator.load_full();
        let looked_up = match Box::pin(proxy.look_up(&login.user, deadline)).await {
            Ok(looked_up) => looked_up,
            Err(error) => {
                proxy.metrics(self.worker).login(LoginResult::Unavailable);
                turn_away(login, &error).await;
                return None;
            }
        };
        let authenticated = match &looked_up {
            Some(user) => {
                let user = user.exists().then_some(&**user);
                authenticator
                    .authenticate_as(&mut login, user, deadline)
                    .await
            }
            None => authenticator.authenticate(&mut login, deadline).await,
        };
        let identity = match authenticated {
            Ok(mut identity) => {
                identity.secret = looked_up.and_then(|user| user.password().cloned());
                identity
            }
            Err(error) => {
                if looked_up.is_some() {
                    proxy.lookup.doubt(&login.user);
                }
                self.refused(&error, peer, Some(&login));
                return None;
            }
        };
        if CONSOLE_DATABASES.contains(&&*login.database) {
            self.open_console(login, identity).await;
            return None;
        }
        if login.replication.is_some() {
            self.replicate(login, identity, peer, deadline).await;
            return None;
        }
        match timeout_at(deadline, self.begin(&login, &identity, peer)).await {
            Ok(Ok(begun)) => {
                let (entry, session, greeting) = begun;
                let tenant = Arc::clone(&entry.tenant);
                let sent = async {
                    login.stream.write_all(&greeting).await?;
                    login.stream.flush().await
                };
                if !matches!(timeout_at(deadline, sent).await, Ok(Ok(()))) {
                    proxy.clients.leave(entry.id);
                    return None;
                }
                proxy.metrics(self.worker).login(LoginResult::Ok);
                let unread = login.inbox.into_unread();
                let entry_since = entry.since;
                let task = Task {
                    proxy: Arc::clone(proxy),
                    tenant,
                    worker: self.worker,
                    entry,
                    stream: login.stream,
                    session,
                    held: None,
                    replica: None,
                    stance: Stance::default(),
                    ignoring: false,
                    ongoing: None,
                    scratch: None,
                    bounced: 0,
                    began: entry_since,
                    opened: entry_since,
                    epoch: 0,
                    reads: Tables::NONE,
                    ddl: Traits::NONE,
                };
                Some((task, unread))
            }
            Ok(Err(error)) => {
                proxy.metrics(self.worker).login(LoginResult::Refused);
                tracing::info!(%peer, user = %login.user, database = %login.database, %error, "client not let in");
                turn_away(login, &error).await;
                None
            }
            Err(_elapsed) => {
                proxy.metrics(self.worker).login(LoginResult::Unavailable);
                let why = if proxy.is_paused(&login.database) {
                    "the database is paused, and was not resumed before listen.login_timeout"
                } else {
                    "no node could be asked before listen.login_timeout"
                };
                let error = Visible::fatal(Fault::Node, SqlState::CANNOT_CONNECT_NOW, why);
                turn_away(login, &error).await;
                None
            }
        }
    }

    /// The session, and the bytes that greet it.
    async fn begin(
        &self,
        login: &Login,
        identity: &Identity,
        peer: Peer,
    ) -> Result<(Arc<Client>, Session, Vec<u8>), Visible> {
        let proxy = &self.proxy;
        let tenant = proxy
            .tenant(&login.database, &login.user, identity)
            .ok_or_else(|| handshake::unknown_database(&login.database))?;
        let number = proxy.next_session.fetch_add(1, Ordering::Relaxed);
        let mut own = Own::default();
        let mut seen = Causality::default();
        let mut parameters = Vec::new();
        for (name, value) in &login.parameters {
            match name.strip_prefix("pgsplit.") {
                Some(key) => own.set(key, Some(value), &mut seen).map_err(|invalid| {
                    Visible::fatal(
                        Fault::Client,
                        SqlState::INVALID_PARAMETER_VALUE,
                        invalid.to_string(),
                    )
                })?,
                None => parameters.push((name.clone(), value.clone())),
            }
        }
        let settings = Settings::from_startup(&parameters);
        if settings.get(PRELOAD).is_some() {
            return Err(Visible::fatal(
                Fault::Client,
                SqlState::FEATURE_NOT_SUPPORTED,
                "local_preload_libraries has no effect on server connections that are shared",
            )
            .hint("use LOAD, which keeps the session's connection"));
        }
        let defaults = tenant.defaults();
        let (settings, welcome) = match tenant.welcome(&settings) {
            Some(known) => known,
            None => Box::pin(self.learn(&tenant, settings)).await?,
        };
        let lexing = lexing(&welcome);
        let application_name = welcome
            .iter()
            .find(|(name, _)| &**name == "application_name")
            .map_or("", |(_, value)| value);
        let entry = self.entry(login, peer, &tenant, application_name)?;
        let mut session = Session::new(number, settings, lexing);
        session.told = Arc::clone(&welcome);
        session.defaults = defaults;
        session.own = own;
        session.seen = seen;
        let mut out = identity.unsent.clone();
        write::authentication_ok(&mut out);
        for (name, value) in welcome.iter() {
            write::parameter_status(&mut out, name.as_bytes(), value.as_bytes());
        }
        entry.write_key(&mut out);
        write::ready_for_query(&mut out, Status::Idle);
        Ok((entry, session, out))
    }

    /// The client's entry in the list of clients.
    fn entry(
        &self,
        login: &Login,
        peer: Peer,
        tenant: &Arc<Tenant>,
        application_name: &str,
    ) -> Result<Arc<Client>, Visible> {
        loop {
            let key = cancel_key(login.minor)?;
            let entry = Arc::new(Client::new(
                key,
                Arc::clone(tenant),
                peer,
                login.stream.is_tls(),
                application_name,
            ));
            if self.proxy.clients.enter(&entry) {
                return Ok(entry);
            }
        }
    }

    /// Serves a client that asks for replication, to its end.
    async fn replicate(&self, login: Login, identity: Identity, peer: Peer, deadline: Instant) {
        let proxy = &self.proxy;
        let begun = async {
            // Physical replication is of no database; what its clients name is anything.
            let physical = login.replication.as_deref() != Some("database");
            let config = proxy.settings();
            let first = config.databases.first().map(|database| &*database.name);
            let names = [Some(&*login.database), first.filter(|_| physical)];
            let tenant = names
                .into_iter()
                .flatten()
                .find_map(|name| proxy.tenant(name, &login.user, &identity))
                .ok_or_else(|| handshake::unknown_database(&login.database))?;
            let application_name = login
                .parameters
                .iter()
                .find(|(name, _)| &**name == "application_name")
                .map_or("", |(_, value)| value);
            let server = replication::connect(proxy, &tenant, &login, deadline).await?;
            let entry = self.entry(&login, peer, &tenant, application_name)?;
            Ok((server, entry))
        };
        let (server, entry) = match begun.await {
            Ok(begun) => begun,
            Err(error) => {
                proxy.metrics(self.worker).login(LoginResult::Refused);
                tracing::info!(%peer, user = %login.user, %error, "replication client not let in");
                return turn_away(login, &error).await;
            }
        };
        proxy.metrics(self.worker).login(LoginResult::Ok);
        let _counted = proxy.worker_metrics.get(self.worker).map(|m| m.client());
        let sent = login.inbox.into_unread();
        let client = (login.stream, identity.unsent, sent);
        Box::pin(replication::relay(
            proxy,
            self.worker,
            &entry,
            server,
            client,
            deadline,
        ))
        .await;
        proxy.clients.leave(entry.id);
    }

    /// Asks a server what a session with these settings is told at its start.
    async fn learn(
        &self,
        tenant: &Arc<Tenant>,
        settings: Settings,
    ) -> Result<(Arc<Settings>, Arc<[Setting]>), Visible> {
        // Nobody can cancel it, and nobody lists it: it isn't a client yet.
        let entry = Client::new(
            CancelKey {
                pid: 0,
                key: Box::default(),
            },
            Arc::clone(tenant),
            Peer::Unknown,
            false,
            "",
        );
        let settings = Arc::new(settings);
        let mut avoid = Vec::new();
        let defaults = tenant.defaults();
        let mut welcome = loop {
            let mut lease = self.lend_any(tenant, &entry, &mut avoid).await?;
            let node = lease.node();
            match told(&mut lease, &settings).await {
                Ok(welcome) => {
                    lease.give_back(Instant::now());
                    break welcome;
                }
                // Another server says the same.
                Err(problem) if problem.is_loss() && avoid.len() < LOSSES => avoid.push(node),
                Err(problem) => {
                    return Err(Visible {
                        fatal: true,
                        ..problem.visible("applying the startup parameters")
                    });
                }
            }
        };
        if let Some((_, standby)) = welcome
            .iter_mut()
            .find(|(name, _)| &**name == "in_hot_standby")
        {
            *standby = "off".into();
        }
        let welcome: Arc<[Setting]> = welcome.into();
        tenant.remember(Arc::clone(&settings), Arc::clone(&welcome), defaults);
        Ok((settings, welcome))
    }

    /// A connection to the primary, or else to some replica: clients get in while there is no
    /// primary.
    async fn lend_any(
        &self,
        tenant: &Arc<Tenant>,
        entry: &Client,
        avoid: &mut Vec<NodeId>,
    ) -> Result<Lease, Visible> {
        let proxy = &self.proxy;
        let since = Instant::now();
        loop {
            let mut primary = proxy.monitor.subscribe_primary();
            let known = primary.borrow_and_update().node.is_some();
            let replica = {
                let view = proxy.monitor.view();
                let up = view.nodes.iter().find(|node| {
                    node.role == Role::Replica
                        && node.health == Health::Up
                        && !avoid.contains(&node.id)
                });
                up.map(|node| node.id)
            };
            let (target, elsewhere) = match replica {
                Some(replica) if !known => (Target::Replica(replica), false),
                replica => (Target::Primary, replica.is_some()),
            };
            let lent = proxy.lend(Lend {
                tenant,
                worker: self.worker,
                entry,
                target,
                fallback: false,
                read_since: Some(since),
            });
            let lost = async {
                if !elsewhere {
                    std::future::pending::<()>().await;
                }
                drop(primary.wait_for(|now| now.node.is_none()).await);
            };
            match either(lent, lost).await {
                None | Some(Err(Refused::Again)) => {}
                Some(Ok(lease)) => return Ok(lease),
                Some(Err(Refused::Node(node))) => avoid.push(node),
                Some(Err(Refused::Told(error))) => {
                    return Err(Visible {
                        fatal: true,
                        ..error
                    });
                }
            }
        }
    }

    async fn open_console(&self, mut login: Login, identity: Identity) {
        if !self
            .proxy
            .settings()
            .admin
            .console_users
            .iter()
            .any(|user| **user == *login.user)
        {
            let error = Visible::fatal(
                Fault::Client,
                SqlState::INSUFFICIENT_PRIVILEGE,
                format!("user \"{}\" may not open the console", login.user),
            )
            .hint("list it in admin.console_users");
            return turn_away(login, &error).await;
        }
        let mut out = identity.unsent;
        write::authentication_ok(&mut out);
        let sent = async {
            login.stream.write_all(&out).await?;
            login.stream.flush().await
        };
        if !matches!(timeout(FAREWELL, sent).await, Ok(Ok(()))) {
            return;
        }
        let client = ConsoleClient {
            stream: Box::new(login.stream),
            user: login.user.into(),
            database: login.database.into(),
            read_ahead: login.inbox.into_unread(),
        };
        tokio::select! {
            ended = self.console.serve(client) => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "console client lost");
                }
            }
            () = self.proxy.stop.cancelled() => {}
        }
    }
}

async fn turn_away(mut login: Login, error: &Visible) {
    refuse(&mut login.stream, error, Instant::now() + FAREWELL).await;
}

fn lexing(parameters: &[Setting]) -> Lexing {
    let value = |wanted: &str| {
        parameters
            .iter()
            .find(|(name, _)| &**name == wanted)
            .map(|(_, value)| &**value)
    };
    Lexing {
        standard_conforming_strings: value("standard_conforming_strings") == Some("on"),
        ascii_safe_encoding: value("client_encoding")
            .is_some_and(|name| is_ascii_safe(name.as_bytes())),
    }
}

/// A process id and a secret: 4 bytes, or 32 in protocol 3.2.
fn cancel_key(minor: u16) -> Result<CancelKey, Visible> {
    let mut random = [0u8; 36];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_no_randomness| {
            Visible::fatal(
                Fault::Proxy,
                SqlState::INTERNAL_ERROR,
                "the system gives no random numbers",
            )
        })?;
    let [a, b, c, d, secret @ ..] = random;
    // Positive, as clients take it for a signed number.
    let pid = u32::from_be_bytes([a & 0x7F, b, c, d]).max(1);
    let length = if minor >= 2 { secret.len() } else { 4 };
    Ok(CancelKey {
        pid,
        key: secret.get(..length).unwrap_or_default().into(),
    })
}

/// A place among `listen.max_clients`.
struct Place<'a>(&'a Proxy);

impl<'a> Place<'a> {
    fn take(proxy: &'a Proxy) -> Option<Self> {
        let before = proxy.connected.fetch_add(1, Ordering::Relaxed);
        let place = Self(proxy);
        (before < proxy.settings().listen.max_clients).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.connected.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a server tells of a session with these settings. After an error the connection's state
/// isn't known: dropping the lease closes it.
async fn told(lease: &mut Lease, settings: &Arc<Settings>) -> Result<Vec<Setting>, Problem> {
    let mut welcome: Vec<Setting> = lease.parameters.to_vec();
    // From a connection that has other settings, what is told must start from none.
    let fresh = lease
        .backend
        .settings
        .as_ref()
        .is_some_and(|known| known.is_empty());
    let statements = if fresh {
        Settings::default().statements_to(settings)
    } else {
        Some(settings.statements_from_unknown())
    };
    if let Some(sql) = statements {
        for (name, value) in observe::report(lease, &sql).await? {
            match welcome.iter_mut().find(|(known, _)| *known == name) {
                Some((_, old)) => *old = value,
                None => welcome.push((name, value)),
            }
        }
        lease.backend.settings = Some(Arc::clone(settings));
    }
    Ok(welcome)
}

/// It acts at the start of a server process only.
const PRELOAD: &str = "local_preload_libraries";

/// Servers that a login may lose.
const LOSSES: usize = 3;
