//! Logins for real: psql and a driver at our handshake, and we at PostgreSQL with every method.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use pgsplit::{
    config::settings::{
        Host, ListenTls, ListenTlsMode, Node, NodeRole, NodeTls, Secret, SslMode, User,
    },
    net::{DialError, Dialer, Stream, dial, listen_tcp, listen_unix, tls::ServerTls},
    pool::connect::{Cause, ConnectError, ConnectTarget, Connected, Credentials, cancel, connect},
    protocol::startup::SSL_REQUEST_PACKET,
    proxy::{
        authenticate::{Authenticator, Method},
        handshake::{Accepted, HandshakeContext, HandshakeError, accept, close},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
    time::Instant,
};
use tokio_postgres::NoTls;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

/// Runs a command to its end; its output when it succeeds.
fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// For certificates of another name.
const ALTERNATIVE: &str = "subjectAltName=DNS:elsewhere.example";

/// A self-signed certificate for localhost, as PostgreSQL's manual makes it.
fn certificate(directory: &Path, name: &str, extra: &[&str]) -> (PathBuf, PathBuf) {
    let (cert, key) = (
        directory.join(format!("{name}.crt")),
        directory.join(format!("{name}.key")),
    );
    run(Command::new("openssl")
        .args(["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt"])
        .args([
            "ec_paramgen_curve:prime256v1",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
        ])
        .args(if extra.contains(&ALTERNATIVE) {
            &[][..]
        } else {
            &["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        })
        .args(extra)
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert));
    (cert, key)
}

/// A PostgreSQL server in a directory of its own; gone with this value.
struct Cluster {
    directory: tempfile::TempDir,
    port: u16,
    cert: PathBuf,
    server: Child,
}

impl Cluster {
    const HBA: &str = "
        local   all postgres             trust
        host    all scram   127.0.0.1/32 scram-sha-256
        host    all old     127.0.0.1/32 md5
        host    all clear   127.0.0.1/32 password
        host    all trusted,trusted_once 127.0.0.1/32 trust
        hostssl all tls     127.0.0.1/32 scram-sha-256
        hostssl all cert    127.0.0.1/32 scram-sha-256 clientcert=verify-ca
        host    all denied  127.0.0.1/32 reject
    ";

    const SETUP: &str = "
        CREATE ROLE scram LOGIN PASSWORD 'caf\u{e9} \u{2168}';
        CREATE ROLE tls LOGIN PASSWORD 'secret';
        CREATE ROLE trusted_once LOGIN CONNECTION LIMIT 1;
        CREATE ROLE cert LOGIN PASSWORD 'secret';
        CREATE ROLE clear LOGIN PASSWORD 'secret';
        CREATE ROLE trusted LOGIN;
        CREATE ROLE denied LOGIN;
        SET password_encryption = 'md5';
        CREATE ROLE old LOGIN PASSWORD 'secret';
    ";

    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (cert, key) = certificate(directory.path(), "server", &[]);
        let data = directory.path().join("data");
        if run(Command::new("id").arg("-u")).trim() == "0" {
            let mut chown = Command::new("chown");
            run(chown.args(["-R", "postgres:"]).arg(directory.path()));
        }
        run(postgres("initdb")
            .args(["--no-sync", "-A", "trust", "-U", "postgres", "-D"])
            .arg(&data));
        std::fs::write(data.join("pg_hba.conf"), Self::HBA).unwrap();
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = unused.local_addr().unwrap().port();
        drop(unused);
        let server = postgres("postgres")
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-k"])
            .arg(directory.path())
            .args([
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "ssl=on",
                "-c",
                "fsync=off",
            ])
            .args(["-c", &format!("ssl_cert_file={}", cert.display())])
            .args(["-c", &format!("ssl_key_file={}", key.display())])
            .args(["-c", &format!("ssl_ca_file={}", cert.display())])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let cluster = Self {
            directory,
            port,
            cert,
            server,
        };
        let deadline = soon();
        let client = loop {
            match cluster.superuser().await {
                Ok(client) => break client,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        client.batch_execute(Self::SETUP).await.unwrap();
        cluster
    }

    /// As the monitor connects: a driver over a stream that we dialled.
    async fn superuser(&self) -> Result<tokio_postgres::Client, String> {
        let socket = Host::Unix(self.directory.path().to_owned());
        let stream = dial(&self.node(socket, SslMode::Require), soon())
            .await
            .map_err(|error| error.to_string())?;
        let mut config = tokio_postgres::Config::new();
        config.user("postgres").dbname("postgres");
        let (client, connection) = config
            .connect_raw(stream, NoTls)
            .await
            .map_err(|error| error.to_string())?;
        drop(tokio::spawn(connection));
        Ok(client)
    }

    fn node(&self, host: Host, sslmode: SslMode) -> Node {
        Node {
            host,
            ..local(self.port, sslmode)
        }
    }

    fn tcp(&self, sslmode: SslMode) -> Node {
        local(self.port, sslmode)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let pid = self.server.id().to_string();
        let _sent = Command::new("kill").args(["-QUIT", &pid]).status();
        let _ended = self.server.wait();
    }
}

/// A program of the newest PostgreSQL here, as a user that it accepts; it dies with this process.
fn postgres(program: &str) -> Command {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
        .unwrap_or_default();
    versions.sort();
    let program = match versions.pop() {
        Some(version) => version.join("bin").join(program),
        None => program.into(),
    };
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if run(Command::new("id").arg("-u")).trim() == "0" {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.arg("--").arg(program).current_dir("/");
    command
}

async fn log_in(
    node: &Node,
    user: &str,
    database: &str,
    credentials: &Credentials,
) -> Result<Connected, ConnectError> {
    let dialer = Dialer::new(node).unwrap();
    let parameters = [("application_name".into(), "login test".into())];
    let target = ConnectTarget {
        dialer: &dialer,
        database,
        user,
        credentials,
        parameters: &parameters,
    };
    connect(&target, soon()).await
}

fn password(text: &str) -> Credentials {
    Credentials::password(Secret(text.to_owned()))
}

/// Runs a query on a connection of ours, by hand: the answer's bytes up to ReadyForQuery.
async fn query(stream: &mut Stream, text: &str) -> String {
    let length = u32::try_from(text.len() + 5).unwrap().to_be_bytes();
    stream
        .write_all(&[b"Q", &length[..], text.as_bytes(), b"\0"].concat())
        .await
        .unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(5).any(|window| window == b"Z\0\0\0\x05") || answer.last() == Some(&5) {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn setting<'a>(connected: &'a Connected, name: &str) -> &'a str {
    connected
        .parameters
        .iter()
        .find(|(known, _)| &**known == name)
        .map_or("", |(_, value)| value)
}

#[tokio::test]
async fn we_log_in_at_postgresql_with_every_method_and_know_why_when_we_cant() {
    let cluster = Cluster::start().await;
    let plain = cluster.tcp(SslMode::Disable);
    let secret = password("secret");
    let prepared = password("caf\u{e9} \u{2168}");

    // Every method, plain.
    for (user, credentials) in [
        ("trusted", &Credentials::None),
        ("clear", &secret),
        ("old", &secret),
        ("scram", &prepared),
        // SASLprep makes these the same password.
        ("scram", &password("caf\u{e9} IX")),
        // The keys come from the cache.
        ("scram", &prepared),
    ] {
        let mut connected = log_in(&plain, user, "postgres", credentials).await.unwrap();
        assert_eq!(setting(&connected, "application_name"), "login test");
        assert_eq!(setting(&connected, "client_encoding"), "UTF8");
        assert!(setting(&connected, "server_version").starts_with(|c: char| c.is_ascii_digit()));
        assert_eq!(connected.cancel.key.len(), 4);
        assert!(connected.unread.is_empty());
        let answer = query(&mut connected.stream, "SELECT 'user ' || current_user").await;
        assert!(answer.contains(&format!("user {user}")), "{answer}");
    }
    let socket = cluster.node(
        Host::Unix(cluster.directory.path().to_owned()),
        SslMode::Disable,
    );
    log_in(&socket, "postgres", "postgres", &Credentials::None)
        .await
        .unwrap();

    // An md5 hash is enough for md5, a verifier and the key of a client for SCRAM.
    let client = cluster.superuser().await.unwrap();
    let row = client
        .query_one(
            "SELECT max(rolpassword) FILTER (WHERE rolname = 'old'),
                    max(rolpassword) FILTER (WHERE rolname = 'tls') FROM pg_authid",
            &[],
        )
        .await
        .unwrap();
    let user = |name: &str, password: &str| User {
        name: name.to_owned(),
        password: Some(Secret(password.to_owned())),
        server_user: None,
        server_password: None,
        routing: pgsplit::config::Overrides::default(),
        password_file: None,
    };
    let hash = Credentials::of(&user("old", row.get(0)), None);
    log_in(&plain, "old", "postgres", &hash).await.unwrap();

    // What can go wrong, and what it says about the node.
    for (user, database, credentials, cause, code) in [
        ("scram", "postgres", &secret, Cause::Login, "28P01"),
        ("ghost", "postgres", &secret, Cause::Login, "28000"),
        ("denied", "postgres", &secret, Cause::Login, "28000"),
        ("tls", "postgres", &secret, Cause::Login, "28000"),
        ("scram", "nowhere", &prepared, Cause::Login, "3D000"),
        ("trusted", "template0", &secret, Cause::Login, "55000"),
        ("scram", "postgres", &Credentials::None, Cause::Login, ""),
        ("scram", "postgres", &hash, Cause::Login, ""),
        ("clear", "postgres", &hash, Cause::Login, ""),
    ] {
        let error = log_in(&plain, user, database, credentials)
            .await
            .unwrap_err();
        assert_eq!(error.cause(), cause, "{user} {database}: {error}");
        let found = match &error {
            ConnectError::Refused { sqlstate, .. } => sqlstate.to_string(),
            ConnectError::Credentials(_) => String::new(),
            other => panic!("{other:?}"),
        };
        assert_eq!(found, code, "{error}");
    }
    let dialer = Dialer::new(&plain).unwrap();
    let nonsense = [("nonsense".into(), "1".into())];
    let target = ConnectTarget {
        dialer: &dialer,
        database: "postgres",
        user: "trusted",
        credentials: &Credentials::None,
        parameters: &nonsense,
    };
    assert_eq!(
        connect(&target, soon()).await.unwrap_err().cause(),
        Cause::Other
    );

    let only = log_in(&plain, "trusted_once", "postgres", &Credentials::None)
        .await
        .unwrap();
    let second = log_in(&plain, "trusted_once", "postgres", &Credentials::None).await;
    assert_eq!(second.unwrap_err().cause(), Cause::Full);
    drop(only);

    // TLS, with channel binding, and with what vouches for the node.
    let vouched = |host: &str, sslmode| {
        let mut node = cluster.node(Host::Tcp(host.to_owned()), sslmode);
        node.tls.ca = Some(cluster.cert.clone());
        node
    };
    for node in [
        cluster.tcp(SslMode::Prefer),
        cluster.tcp(SslMode::Require),
        vouched("127.0.0.1", SslMode::Require),
        vouched("127.0.0.1", SslMode::VerifyFull),
        vouched("localhost", SslMode::VerifyFull),
    ] {
        let mut connected = log_in(&node, "tls", "postgres", &secret).await.unwrap();
        assert!(connected.stream.is_tls() && connected.stream.end_point().is_some());
        let text = "SELECT 'ssl ' || ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        assert!(
            query(&mut connected.stream, text)
                .await
                .contains("ssl true")
        );
    }
    let error = log_in(&cluster.tcp(SslMode::Require), "cert", "postgres", &secret).await;
    let error = error.unwrap_err();
    assert_eq!(error.cause(), Cause::Login, "{error}");
    let mut certified = cluster.tcp(SslMode::Require);
    certified.tls.cert = Some(cluster.cert.clone());
    certified.tls.key = Some(cluster.cert.with_extension("key"));
    log_in(&certified, "cert", "postgres", &secret)
        .await
        .unwrap();

    // A certificate that doesn't vouch for the node.
    let mut node = vouched("127.0.0.1", SslMode::Require);
    node.tls.ca = Some(certificate(cluster.directory.path(), "stranger", &[]).0);
    let error = log_in(&node, "tls", "postgres", &secret).await.unwrap_err();
    assert!(
        matches!(&error, ConnectError::Dial(DialError::Tls(_))),
        "{error}"
    );

    // SCRAM verifier in, SCRAM out.
    let verifier = user("tls", row.get(1));
    let front = Front::start(std::slice::from_ref(&verifier), HandshakeContext::default()).await;
    assert_eq!(front.psql("tls", "secret", &[]).await, Ok(()));
    let seen = front.seen().await;
    let keys = Credentials::of(&verifier, seen.client_key);
    log_in(&cluster.tcp(SslMode::Require), "tls", "postgres", &keys)
        .await
        .unwrap();
    assert!(matches!(
        Credentials::of(&verifier, None),
        Credentials::None
    ));

    // A cancel request reaches the server connection that it is for, over TLS, too.
    let mut connected = log_in(&plain, "trusted", "postgres", &Credentials::None)
        .await
        .unwrap();
    for node in [&plain, &cluster.tcp(SslMode::Require)] {
        let dialer = Dialer::new(node).unwrap();
        let sleep = query(&mut connected.stream, "SELECT pg_sleep(60)");
        let stop = async {
            loop {
                let sleeping = "SELECT 1 FROM pg_stat_activity
                                WHERE query LIKE '%pg_sleep(60)' AND state = 'active'";
                if !client.query(sleeping, &[]).await.unwrap().is_empty() {
                    break;
                }
            }
            cancel(&dialer, &connected.cancel, soon()).await.unwrap();
        };
        let (answer, ()) = tokio::join!(sleep, stop);
        assert!(answer.contains("C57014"), "{answer}");
    }

    // A server that stops says so until it is gone.
    drop(cluster);
    let error = log_in(&plain, "trusted", "postgres", &Credentials::None)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, ConnectError::Dial(DialError::Connect { .. })),
        "{error}"
    );
    assert_eq!(error.cause(), Cause::Node);
}

/// What our handshake saw of a client.
struct Seen {
    method: Method,
    client_key: Option<[u8; 32]>,
    parameters: Vec<(Box<str>, Box<str>)>,
    minor: u16,
    tls: bool,
}

/// A listener with our handshake, whose sessions answer every query with nothing.
struct Front {
    address: SocketAddr,
    directory: tempfile::TempDir,
    seen: tokio::sync::Mutex<mpsc::UnboundedReceiver<Result<Seen, HandshakeError>>>,
}

impl Front {
    async fn start(users: &[User], context: HandshakeContext) -> Self {
        Self::start_trusting(users, context, false).await
    }

    async fn start_trusting(users: &[User], context: HandshakeContext, trust: bool) -> Self {
        let tcp = listen_tcp("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let address = tcp.local_addr().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let unix = listen_unix(directory.path(), address.port()).unwrap();
        let authenticator = Arc::new(Authenticator::new(users, trust, None).unwrap());
        let (tell, seen) = mpsc::unbounded_channel();
        drop(tokio::spawn(async move {
            loop {
                let stream = tokio::select! {
                    Ok((socket, _)) = tcp.accept() => Stream::Tcp(socket),
                    Ok((socket, _)) = unix.accept() => Stream::Unix(socket),
                };
                let (authenticator, context, tell) =
                    (Arc::clone(&authenticator), context.clone(), tell.clone());
                drop(tokio::spawn(async move {
                    if let Err(error) = serve(stream, &authenticator, &context, &tell).await {
                        let _told = tell.send(Err(error));
                    }
                }));
            }
        }));
        Self {
            address,
            directory,
            seen: tokio::sync::Mutex::new(seen),
        }
    }

    async fn seen(&self) -> Seen {
        self.outcome().await.unwrap()
    }

    async fn outcome(&self) -> Result<Seen, HandshakeError> {
        self.seen.lock().await.recv().await.unwrap()
    }

    /// Runs psql; what it says when it fails.
    async fn psql(&self, user: &str, password: &str, options: &[&str]) -> Result<(), String> {
        let settings = format!(
            "host=127.0.0.1 port={} user={user} dbname=app connect_timeout=20 {}",
            self.address.port(),
            options.join(" ")
        );
        let output = tokio::process::Command::new("psql")
            .args(["-X", "-w", "-c", "SELECT", &settings])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.directory.path())
            .env("PGPASSWORD", password)
            .output()
            .await
            .unwrap();
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

async fn serve(
    stream: Stream,
    authenticator: &Authenticator,
    context: &HandshakeContext,
    tell: &mpsc::UnboundedSender<Result<Seen, HandshakeError>>,
) -> Result<(), HandshakeError> {
    let Accepted::Session(mut login) = accept(stream, context, soon()).await? else {
        return Ok(());
    };
    let identity = authenticator.authenticate(&mut login, soon()).await?;
    let tail = b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0C\0\0\0\x01\0\0\0\x02Z\0\0\0\x05I";
    login
        .stream
        .write_all(&[&identity.unsent, &tail[..]].concat())
        .await
        .unwrap();
    login.stream.flush().await.unwrap();
    let _told = tell.send(Ok(Seen {
        method: identity.method,
        client_key: identity.client_key,
        parameters: std::mem::take(&mut login.parameters),
        minor: login.minor,
        tls: login.stream.is_tls(),
    }));
    while let Ok((b'Q', _)) = login.inbox.message(&mut login.stream, 1 << 20).await {
        let answer = b"C\0\0\0\x0DSELECT 0\0Z\0\0\0\x05I";
        login
            .stream
            .write_all(answer)
            .await
            .map_err(HandshakeError::Lost)?;
        login.stream.flush().await.map_err(HandshakeError::Lost)?;
    }
    Ok(())
}

fn local(port: u16, sslmode: SslMode) -> Node {
    Node {
        name: "pg1".into(),
        host: Host::Tcp("127.0.0.1".to_owned()),
        port,
        zone: "".into(),
        weight: 1,
        role: NodeRole::Auto,
        tls: NodeTls {
            sslmode,
            ca: None,
            cert: None,
            key: None,
        },
    }
}

fn app() -> User {
    User {
        name: "app".to_owned(),
        password: Some(Secret("secret".to_owned())),
        server_user: None,
        server_password: None,
        routing: pgsplit::config::Overrides::default(),
        password_file: None,
    }
}

fn offering(directory: &Path, mode: ListenTlsMode) -> HandshakeContext {
    let (cert, key) = certificate(directory, "front", &[]);
    let settings = ListenTls {
        mode,
        cert,
        key,
        client_ca: None,
    };
    HandshakeContext {
        tls: Some(ServerTls::load(&settings).unwrap()),
    }
}

#[tokio::test]
async fn psql_logs_in_at_our_handshake() {
    let directory = tempfile::tempdir().unwrap();
    let context = offering(directory.path(), ListenTlsMode::Prefer);
    let root = format!(
        "sslrootcert={}",
        directory.path().join("front.crt").display()
    );
    let front = Front::start(&[app()], context).await;
    let options = r"options='-c\ search_path=a\\\ b --work-mem=1MB'";
    for (settings, method, tls) in [
        (&["sslmode=disable"][..], Method::Scram, false),
        (&["sslmode=prefer"], Method::ScramPlus, true),
        (
            &["sslmode=verify-full", "channel_binding=require", &root],
            Method::ScramPlus,
            true,
        ),
        (
            &["sslmode=require", "channel_binding=disable"],
            Method::Scram,
            true,
        ),
        (&["sslmode=disable", options], Method::Scram, false),
    ] {
        assert_eq!(front.psql("app", "secret", settings).await, Ok(()));
        let seen = front.seen().await;
        assert_eq!(
            (seen.method, seen.tls, seen.minor),
            (method, tls, 0),
            "{settings:?}"
        );
        assert!(seen.client_key.is_some());
        let value = |name: &str| {
            seen.parameters
                .iter()
                .find(|(known, _)| &**known == name)
                .map(|(_, value)| &**value)
        };
        assert_eq!(value("application_name"), Some("psql"));
        if settings.contains(&options) {
            assert_eq!(
                (value("search_path"), value("work_mem")),
                (Some("a b"), Some("1MB"))
            );
        }
    }
    let socket = format!("host={}", front.directory.path().display());
    assert_eq!(front.psql("app", "secret", &[&socket]).await, Ok(()));
    assert_eq!(front.seen().await.method, Method::Scram);

    for user in ["app", "ghost"] {
        let error = front
            .psql(user, "wrong", &["sslmode=disable"])
            .await
            .unwrap_err();
        let expected = format!("FATAL:  password authentication failed for user \"{user}\"");
        assert!(error.contains(&expected), "{error}");
        assert!(matches!(
            front.outcome().await,
            Err(HandshakeError::Refused(_))
        ));
    }
    // Without a password psql goes away when it is asked for one.
    front
        .psql("app", "", &["sslmode=disable"])
        .await
        .unwrap_err();
    assert!(matches!(front.outcome().await, Err(HandshakeError::Closed)));
}

#[tokio::test]
async fn trust_is_for_known_users_on_this_machine() {
    let front = Front::start_trusting(&[app()], HandshakeContext::default(), true).await;
    assert_eq!(front.psql("app", "", &[]).await, Ok(()));
    assert_eq!(front.seen().await.method, Method::Trust);
    let error = front.psql("ghost", "", &[]).await.unwrap_err();
    assert!(
        error.contains("FATAL:  role \"ghost\" does not exist"),
        "{error}"
    );
}

#[tokio::test]
async fn a_listener_that_requires_tls_refuses_plain_tcp_only() {
    let directory = tempfile::tempdir().unwrap();
    let context = offering(directory.path(), ListenTlsMode::Require);
    let front = Front::start(&[app()], context).await;
    assert_eq!(
        front.psql("app", "secret", &["sslmode=require"]).await,
        Ok(())
    );
    let socket = format!("host={}", front.directory.path().display());
    assert_eq!(front.psql("app", "secret", &[&socket]).await, Ok(()));
    let error = front
        .psql("app", "secret", &["sslmode=disable"])
        .await
        .unwrap_err();
    assert!(
        error.contains("FATAL:  connection is not encrypted"),
        "{error}"
    );
    // libpq's second try, with TLS.
    assert_eq!(
        front.psql("app", "secret", &["sslmode=allow"]).await,
        Ok(())
    );
}

#[tokio::test]
async fn a_listener_with_a_client_ca_admits_its_certificates_only() {
    let directory = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(directory.path(), "front", &[]);
    let (ca, ca_key) = certificate(directory.path(), "ca", &[]);
    let (client, client_key) = certificate(
        directory.path(),
        "client",
        &[
            "-CA",
            ca.to_str().unwrap(),
            "-CAkey",
            ca_key.to_str().unwrap(),
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ],
    );
    let settings = ListenTls {
        mode: ListenTlsMode::Require,
        cert,
        key,
        client_ca: Some(ca),
    };
    let context = HandshakeContext {
        tls: Some(ServerTls::load(&settings).unwrap()),
    };
    let front = Front::start(&[app()], context).await;
    let client_settings = [
        format!("sslcert={}", client.display()),
        format!("sslkey={}", client_key.display()),
    ];
    let [cert, key] = &client_settings;
    assert_eq!(
        front
            .psql("app", "secret", &["sslmode=require", cert, key])
            .await,
        Ok(())
    );
    assert!(front.seen().await.tls);
    front
        .psql("app", "secret", &["sslmode=require"])
        .await
        .unwrap_err();
    assert!(matches!(front.outcome().await, Err(HandshakeError::Tls(_))));
}

#[tokio::test]
async fn a_certificate_for_another_name_passes_require_but_not_verify_full() {
    let directory = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(directory.path(), "front", &["-addext", ALTERNATIVE]);
    let listen = ListenTls {
        mode: ListenTlsMode::Prefer,
        cert: cert.clone(),
        key,
        client_ca: None,
    };
    let context = HandshakeContext {
        tls: Some(ServerTls::load(&listen).unwrap()),
    };
    let front = Front::start(&[app()], context).await;
    for (sslmode, problem) in [
        (SslMode::Require, None),
        (SslMode::VerifyFull, Some("not valid for name")),
    ] {
        let mut node = local(front.address.port(), sslmode);
        node.tls.ca = Some(cert.clone());
        match (dial(&node, soon()).await, problem) {
            (Ok(stream), None) => assert!(stream.is_tls()),
            (Err(error), Some(problem)) => {
                assert!(error.to_string().contains(problem), "{error}");
            }
            (result, _) => panic!("{sslmode:?} {result:?}"),
        }
    }
}

#[tokio::test]
async fn a_certificate_without_a_hash_of_its_own_does_without_channel_binding() {
    let directory = tempfile::tempdir().unwrap();
    let (cert, key) = (
        directory.path().join("ed.crt"),
        directory.path().join("ed.key"),
    );
    run(Command::new("openssl")
        .args([
            "req", "-x509", "-nodes", "-newkey", "ed25519", "-days", "2", "-subj", "/CN=x",
        ])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert));
    let listen = ListenTls {
        mode: ListenTlsMode::Require,
        cert,
        key,
        client_ca: None,
    };
    let context = HandshakeContext {
        tls: Some(ServerTls::load(&listen).unwrap()),
    };
    let front = Front::start(&[app()], context).await;
    assert_eq!(
        front.psql("app", "secret", &["sslmode=require"]).await,
        Ok(())
    );
    assert_eq!(front.seen().await.method, Method::Scram);
}

#[test]
fn a_certificate_that_cannot_be_used_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(directory.path(), "front", &[]);
    let (_, other_key) = certificate(directory.path(), "other", &[]);
    let missing = directory.path().join("missing.crt");
    for (cert, key, client_ca, expected) in [
        (
            &missing,
            &key,
            None,
            "missing.crt: No such file or directory",
        ),
        (&key, &key, None, "front.key: holds no certificate"),
        (
            &cert,
            &cert,
            None,
            "front.crt: holds no private key that can be used",
        ),
        (&cert, &other_key, None, "front.crt: can't be used with"),
        (
            &cert,
            &key,
            Some(&missing),
            "missing.crt: No such file or directory",
        ),
    ] {
        let settings = ListenTls {
            mode: ListenTlsMode::Prefer,
            cert: cert.clone(),
            key: key.clone(),
            client_ca: client_ca.cloned(),
        };
        let error = ServerTls::load(&settings).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn waiting_on_tls_sees_what_has_been_decrypted_already() {
    let directory = tempfile::tempdir().unwrap();
    let context = offering(directory.path(), ListenTlsMode::Require);
    let listener = listen_tcp("127.0.0.1:0".parse().unwrap(), false).unwrap();
    let node = local(listener.local_addr().unwrap().port(), SslMode::Require);
    let server = async {
        let stream = Stream::Tcp(listener.accept().await.unwrap().0);
        match accept(stream, &context, soon()).await.unwrap() {
            Accepted::Session(login) => login.stream,
            Accepted::Cancel { .. } => panic!(),
        }
    };
    let client = async {
        let mut stream = dial(&node, soon()).await.unwrap();
        stream
            .write_all(b"\0\0\0\x12\0\x03\0\0user\0app\0\0")
            .await
            .unwrap();
        stream.flush().await.unwrap();
        stream
    };
    let (mut server, mut client) = tokio::join!(server, client);
    let now = async |stream: &mut Stream| {
        std::future::poll_fn(|cx| Poll::Ready(stream.poll_readable(cx).is_ready())).await
    };
    assert!(!now(&mut client).await);
    server.write_all(&[7; 100]).await.unwrap();
    server.flush().await.unwrap();
    std::future::poll_fn(|cx| client.poll_readable(cx))
        .await
        .unwrap();
    client.read_exact(&mut [0; 10]).await.unwrap();
    assert!(
        now(&mut client).await,
        "90 bytes are left, but none in the socket"
    );
    client.read_exact(&mut [0; 90]).await.unwrap();
    assert!(!now(&mut client).await);
    close(&mut server, soon()).await;
    std::future::poll_fn(|cx| client.poll_readable(cx))
        .await
        .unwrap();
    assert_eq!(client.read(&mut [0; 10]).await.unwrap(), 0);
}

#[tokio::test]
async fn bytes_sent_before_encryption_are_never_used() {
    let directory = tempfile::tempdir().unwrap();
    let front = Front::start(&[app()], offering(directory.path(), ListenTlsMode::Prefer)).await;
    let mut client = tokio::net::TcpStream::connect(front.address).await.unwrap();
    let startup = b"\0\0\0\x12\0\x03\0\0user\0app\0\0";
    client
        .write_all(&[&SSL_REQUEST_PACKET[..], startup].concat())
        .await
        .unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.contains("08P01\0Mreceived unencrypted data after SSL request"),
        "{answer}"
    );
    assert!(matches!(
        front.outcome().await,
        Err(HandshakeError::Refused(_))
    ));
}

#[tokio::test]
async fn a_server_that_mixes_plain_bytes_into_tls_is_refused() {
    for (answer, expected) in [
        (
            &b"S\x16\x03"[..],
            "received unencrypted data after SSL response",
        ),
        (
            b"NR\0\0\0\x08",
            "received unencrypted data after SSL response",
        ),
        (
            b"E\0\0\0\x08",
            "server sent an error response during SSL exchange",
        ),
        (b"?", "received invalid response to SSL negotiation"),
        (
            b"N",
            "the server does not support TLS, but sslmode demands it",
        ),
        (b"", "connection lost: unexpected end of file"),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 8];
            socket.read_exact(&mut request).await.unwrap();
            assert_eq!(request, SSL_REQUEST_PACKET);
            socket.write_all(answer).await.unwrap();
        };
        let node = local(port, SslMode::Require);
        let (result, ()) = tokio::join!(dial(&node, soon()), server);
        assert_eq!(result.unwrap_err().to_string(), expected);
    }
}

#[tokio::test]
async fn a_client_may_begin_with_tls_at_once_when_it_names_the_protocol() {
    let directory = tempfile::tempdir().unwrap();
    let front = Front::start(&[app()], offering(directory.path(), ListenTlsMode::Require)).await;
    let startup = b"\0\0\0\x12\0\x03\0\0user\0app\0\0";
    for (alpn, expected) in [
        (&["-alpn", "postgresql"][..], true),
        (&[], false),
        (&["-alpn", "http/1.1"], false),
    ] {
        let mut client = tokio::process::Command::new("openssl")
            .args(["s_client", "-quiet", "-connect", &front.address.to_string()])
            .args(alpn)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut input = client.stdin.take().unwrap();
        let mut output = client.stdout.take().unwrap();
        // A client that is refused may have gone already.
        let _sent = input.write_all(startup).await;
        let mut request = vec![0; 24];
        let request = output.read_exact(&mut request).await.map(|_| request);
        match request {
            Ok(request) if expected => {
                assert_eq!(request[..1], *b"R");
                assert_eq!(request[9..], *b"SCRAM-SHA-256-P");
                drop(client);
                assert!(matches!(front.outcome().await, Err(HandshakeError::Closed)));
            }
            Ok(request) => panic!("{request:?}"),
            Err(_) => {
                assert!(!expected);
                assert!(matches!(front.outcome().await, Err(HandshakeError::Tls(_))));
            }
        }
    }
}
