//! Running a proxy: listeners, worker threads, reload, drain.

use std::{
    collections::HashMap,
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    net::{TcpListener, UnixListener},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Clients, ConsoleServer, Proxy,
    authenticate::{Authenticator, NoRandomness},
    handshake::HandshakeContext,
    login::Door,
};
use crate::{
    cluster::{Health, MAX_NODES, NodeId, View},
    config::Settings as Config,
    metrics::Metrics,
    monitor::{Monitor, NodesError, Traffic},
    net::{
        Stream, listen_tcp, listen_unix,
        tls::{ServerTls, TlsError},
    },
    pool::Pool,
};

/// Reads the configuration anew; the mistakes as text.
pub type Reload = Box<dyn Fn() -> Result<Config, String> + Send + Sync>;

/// A proxy whose listeners are open.
#[derive(Debug)]
pub struct Running {
    proxy: Arc<Proxy>,
    tcp: Vec<std::net::TcpListener>,
    unix: Option<std::os::unix::net::UnixListener>,
    handshake: HandshakeContext,
}

/// Why a proxy can't start.
#[derive(Debug)]
pub enum StartError {
    Listen { address: String, problem: io::Error },
    Tls(TlsError),
    Nodes(NodesError),
    Random(NoRandomness),
    Thread(io::Error),
}

/// Whether a node that leaves is free is looked at this often.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Pools are looked after this often.
const TEND: Duration = Duration::from_secs(1);
/// After a failure to accept (out of file descriptors): not again before this.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

impl Running {
    /// Opens the listeners and starts to watch the nodes, on the current runtime.
    ///
    /// # Errors
    /// An address that can't be listened on, certificates that can't be used.
    pub fn start(config: Config, reload: Reload) -> Result<Self, StartError> {
        let workers = match config.listen.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        let tls = config
            .listen
            .tls
            .as_ref()
            .map(ServerTls::load)
            .transpose()
            .map_err(StartError::Tls)?;
        let mut tcp = Vec::new();
        for address in &config.listen.addresses {
            let listener = listen_tcp(*address, false)
                .and_then(TcpListener::into_std)
                .map_err(|problem| StartError::Listen {
                    address: address.to_string(),
                    problem,
                })?;
            tracing::info!(address = %listener.local_addr().unwrap_or(*address), "listening");
            tcp.push(listener);
        }
        let unix = match (
            &config.listen.unix_socket_dir,
            config.listen.addresses.first(),
        ) {
            (Some(directory), Some(first)) => {
                let listener = listen_unix(directory, first.port())
                    .and_then(UnixListener::into_std)
                    .map_err(|problem| StartError::Listen {
                        address: directory.display().to_string(),
                        problem,
                    })?;
                tracing::info!(directory = %directory.display(), "listening");
                Some(listener)
            }
            _ => None,
        };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let monitor = Monitor::start(
            &config.nodes,
            &config.monitor,
            &config.failover,
            &tasks,
            &stop,
        )
        .map_err(StartError::Nodes)?;
        for database in config
            .databases
            .iter()
            .filter(|database| database.name != "*")
        {
            // Asked for now, so that the first statements find it.
            let dbname = database.dbname.as_deref().unwrap_or(&database.name);
            let _wanted = monitor.catalogue(dbname);
        }
        let proxy = Proxy::new(config, reload, workers, monitor, (tasks, stop))
            .map_err(StartError::Random)?;
        Ok(Self {
            proxy,
            tcp,
            unix,
            handshake: HandshakeContext { tls },
        })
    }

    /// What the admin side looks at.
    #[must_use]
    pub fn proxy(&self) -> &Arc<Proxy> {
        &self.proxy
    }

    /// Where TCP clients connect.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.tcp
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect()
    }

    /// Serves clients until [`Proxy::shut_down`], then until they have left or
    /// `listen.drain_timeout` has passed. To be awaited on the runtime that it was started on.
    ///
    /// # Errors
    /// No thread or runtime could be made.
    pub async fn serve(self, console: Arc<dyn ConsoleServer>) -> Result<(), StartError> {
        let end = CancellationToken::new();
        let mut threads = Vec::new();
        for worker in 0..self.proxy.workers {
            let door = Arc::new(Door {
                proxy: Arc::clone(&self.proxy),
                worker,
                handshake: self.handshake.clone(),
                console: Arc::clone(&console),
            });
            let tcp = self
                .tcp
                .iter()
                .map(std::net::TcpListener::try_clone)
                .collect::<Result<Vec<_>, _>>();
            let tcp = tcp.map_err(StartError::Thread)?;
            let unix = self
                .unix
                .as_ref()
                .map(std::os::unix::net::UnixListener::try_clone)
                .transpose();
            let unix = unix.map_err(StartError::Thread)?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(StartError::Thread)?;
            let end = end.clone();
            let thread = std::thread::Builder::new()
                .name(format!("pgsplit-{worker}"))
                .spawn(move || {
                    runtime.block_on(work(door, tcp, unix, end));
                    runtime.shutdown_background();
                })
                .map_err(StartError::Thread)?;
            threads.push(thread);
        }
        // Only the workers' copies are left, which they close when new clients are no longer taken.
        drop((self.tcp, self.unix));
        self.proxy.tasks.spawn(fence(Arc::clone(&self.proxy)));
        let traffic: Weak<dyn Traffic> = self.proxy.this.clone();
        self.proxy.monitor.watch_over(traffic);
        self.proxy.stop.cancelled().await;
        self.proxy.drained().await;
        end.cancel();
        for thread in threads {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("a worker thread panicked");
            }
        }
        Ok(())
    }
}

impl Proxy {
    /// No client yet.
    pub(super) fn new(
        config: Config,
        reload: Reload,
        workers: usize,
        monitor: Arc<Monitor>,
        (tasks, stop): (TaskTracker, CancellationToken),
    ) -> Result<Arc<Self>, NoRandomness> {
        let authenticator = Authenticator::new(&config.users, config.listen.trust, None)?;
        let metrics = Arc::new(Metrics::new(workers));
        Ok(Arc::new_cyclic(|this| Self {
            this: this.clone(),
            authenticator: ArcSwap::from_pointee(authenticator),
            monitor,
            worker_metrics: (0..workers).map(|worker| metrics.worker(worker)).collect(),
            metrics,
            tenants: Default::default(),
            clients: Clients::default(),
            lookup: Default::default(),
            next_session: AtomicU32::new(1),
            statements: Default::default(),
            in_flight: (0..MAX_NODES).map(|_place| AtomicU32::new(0)).collect(),
            written: Default::default(),
            held: AtomicUsize::new(0),
            complaints: Default::default(),
            leaving: Default::default(),
            connected: AtomicUsize::new(0),
            workers,
            reload,
            stopping: AtomicBool::new(false),
            warm: AtomicBool::new(false),
            started: Instant::now(),
            stop,
            tasks,
            config: ArcSwap::from_pointee(config),
        }))
    }

    /// Takes no new clients, and lets each go as soon as it is in no transaction.
    pub fn shut_down(&self) {
        self.stopping.store(true, Ordering::Release);
        self.stop.cancel();
        for client in self.clients.all() {
            client.wake.ring();
        }
    }

    /// Ends all clients at once.
    pub fn shut_down_now(&self) {
        self.shut_down();
        for client in self.clients.all() {
            client.kill();
        }
    }

    async fn drained(&self) {
        let deadline = Instant::now() + self.settings().listen.drain_timeout;
        let mut every = tokio::time::interval(Duration::from_millis(20));
        while self.clients.len() > 0 {
            if Instant::now() >= deadline {
                tracing::warn!(
                    clients = self.clients.len(),
                    "listen.drain_timeout passed: clients are cut off"
                );
                for client in self.clients.all() {
                    client.kill();
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
                return;
            }
            every.tick().await;
        }
    }

    /// Reads the configuration again. What was told when it succeeded.
    ///
    /// # Errors
    /// The configuration has mistakes, or can't take effect: nothing has changed then.
    pub fn reload(&self) -> Result<String, String> {
        let new = (self.reload)()?;
        let old = self.config.load_full();
        let changes = old.diff(&new);
        let before = self.authenticator.load_full();
        let authenticator = Authenticator::new(&new.users, new.listen.trust, Some(&before))
            .map_err(|error| error.to_string())?;
        self.monitor
            .configure(&new.nodes)
            .map_err(|error| error.to_string())?;
        // Another user needs a restart, and would have another password.
        if old.monitor.user == new.monitor.user {
            self.monitor.set_password(new.monitor.password.clone());
        }
        self.authenticator.store(Arc::new(authenticator));
        // Sessions that are there log in at the nodes with the new passwords, too.
        for tenant in self.all_tenants() {
            if let Some(user) = new.users.iter().find(|user| *user.name == *tenant.user) {
                tenant.renew_credentials(user, None);
            }
        }
        self.lookup.forget();
        self.config.store(Arc::new(old.reloaded(&new)));
        // Sessions that begin from now on get pools by the new settings; the old pools go with
        // their last session.
        let nodes_only = |key: &str| key.starts_with("node.");
        if !changes.live.iter().all(|change| nodes_only(&change.key)) {
            self.tenants().by_name.clear();
        }
        self.metrics.reload();
        for change in &changes.live {
            tracing::info!(key = %change.key, old = ?change.old, new = ?change.new, "setting changed");
        }
        for change in &changes.restart {
            tracing::warn!(key = %change.key, "setting changes with the next start only");
        }
        Ok(format!(
            "{} settings changed, {} need a restart",
            changes.live.len(),
            changes.restart.len()
        ))
    }
}

/// A worker: its listeners, its clients, its share of the pools.
async fn work(
    door: Arc<Door>,
    tcp: Vec<std::net::TcpListener>,
    unix: Option<std::os::unix::net::UnixListener>,
    end: CancellationToken,
) {
    let proxy = Arc::clone(&door.proxy);
    let stop = proxy.stop.clone();
    for listener in tcp {
        match TcpListener::from_std(listener) {
            Ok(listener) => {
                let door = Arc::clone(&door);
                proxy
                    .tasks
                    .spawn(stop.clone().run_until_cancelled_owned(async move {
                        loop {
                            match listener.accept().await {
                                Ok((socket, _)) => admit(&door, Stream::Tcp(socket)),
                                Err(error) => could_not_accept(&error).await,
                            }
                        }
                    }));
            }
            Err(error) => tracing::error!(%error, "can't watch a listener"),
        }
    }
    if let Some(listener) = unix {
        match UnixListener::from_std(listener) {
            Ok(listener) => {
                let door = Arc::clone(&door);
                proxy
                    .tasks
                    .spawn(stop.clone().run_until_cancelled_owned(async move {
                        loop {
                            match listener.accept().await {
                                Ok((socket, _)) => admit(&door, Stream::Unix(socket)),
                                Err(error) => could_not_accept(&error).await,
                            }
                        }
                    }));
            }
            Err(error) => tracing::error!(%error, "can't watch a listener"),
        }
    }
    tokio::select! {
        () = end.cancelled() => {}
        () = tend(&proxy, door.worker) => {}
    }
}

/// Looks after a worker's share of the pools, for ever.
pub(super) async fn tend(proxy: &Proxy, worker: usize) {
    let mut every = tokio::time::interval(TEND);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let view = proxy.monitor.view_full();
        for tenant in proxy.all_tenants() {
            for node in &view.nodes {
                match tenant.pool(node.id) {
                    Some(pool) if node.health == Health::Maintenance => pool.retire(),
                    Some(pool) => pool.tend(worker).await,
                    None => {}
                }
            }
        }
    }
}

fn admit(door: &Arc<Door>, stream: Stream) {
    door.proxy.tasks.spawn(Arc::clone(door).enter(stream));
}

async fn could_not_accept(error: &io::Error) {
    tracing::warn!(%error, "can't accept clients");
    tokio::time::sleep(ACCEPT_AGAIN).await;
}

/// Ends server connections to nodes that have gone down or are no longer the primary: requests
/// that hang there go on elsewhere, and not one write reaches a primary that was superseded.
pub(super) async fn fence(proxy: Arc<Proxy>) {
    let mut ticks = proxy.monitor.subscribe();
    let mut before = proxy.monitor.view_full();
    let mut last = before.primary;
    let mut farewell = Farewell::default();
    loop {
        let leaving = !farewell.0.is_empty();
        tokio::select! {
            () = proxy.stop.cancelled() => return,
            changed = ticks.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK_AGAIN), if leaving => {}
        }
        let now = proxy.monitor.view_full();
        for new in &now.nodes {
            let was_down = before
                .node(new.id)
                .is_some_and(|old| old.health == Health::Down);
            let is_down = new.health == Health::Down;
            if was_down != is_down {
                each_pool(&proxy, new.id, |pool| pool.set_down(is_down));
            }
            if is_down && !was_down {
                doom(&proxy, new.id);
            }
        }
        farewell.attend(&proxy, &now);
        if before.epoch != now.epoch {
            if before.epoch > 0 {
                proxy.metrics.failover();
            }
            for tenant in proxy.all_tenants() {
                tenant.forget_welcomes();
            }
            // The new primary's connections were made while it was a replica: what they know of
            // its state still holds. Those to the former primary don't, unless that leaves without
            // having been superseded: it is known by another name or address now.
            let timeline = now.primary().and_then(|primary| primary.timeline);
            let renamed = |node: NodeId| {
                let node = now.node(node);
                node.is_some_and(|node| node.leaving && node.timeline == timeline)
            };
            if let Some(former) = last.filter(|former| Some(*former) != now.primary)
                && !renamed(former)
            {
                doom(&proxy, former);
            }
        }
        last = now.primary.or(last);
        before = now;
    }
}

/// Nodes in maintenance or leaving whose server connections end as they come free, and since when.
#[derive(Default)]
struct Farewell(HashMap<NodeId, Instant>);

impl Farewell {
    fn attend(&mut self, proxy: &Proxy, view: &View) {
        self.0.retain(|id, _| {
            let node = view.node(*id);
            node.is_some_and(|node| node.health == Health::Maintenance)
        });
        for node in &view.nodes {
            if node.health != Health::Maintenance {
                continue;
            }
            let since = *self.0.entry(node.id).or_insert_with(Instant::now);
            let tenants = proxy.all_tenants();
            let pools = || {
                let pools = tenants.iter().flat_map(|tenant| tenant.pools());
                pools.filter(|pool| pool.node() == node.id)
            };
            pools().for_each(Pool::retire);
            if !node.leaving {
                continue;
            }
            if since.elapsed() > proxy.settings().listen.drain_timeout {
                pools().for_each(Pool::doom);
            }
            if pools().all(Pool::is_drained) {
                // Before another node may have its place.
                proxy.metrics.node_left(node.id);
                proxy.monitor.forget(node.id);
            }
        }
    }
}

fn doom(proxy: &Proxy, node: NodeId) {
    each_pool(proxy, node, Pool::doom);
}

fn each_pool(proxy: &Proxy, node: NodeId, work: impl Fn(&Pool)) {
    for tenant in proxy.all_tenants() {
        tenant.pool(node).into_iter().for_each(&work);
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { address, problem } => write!(f, "can't listen on {address}: {problem}"),
            Self::Tls(error) => write!(f, "{error}"),
            Self::Nodes(error) => write!(f, "{error}"),
            Self::Random(error) => write!(f, "{error}"),
            Self::Thread(error) => write!(f, "can't start a worker: {error}"),
        }
    }
}

impl std::error::Error for StartError {}
