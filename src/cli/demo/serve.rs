//! The proxy of the demo: this same program, as a child that ends with us.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{Cluster, DemoArgs, Failure};

/// A child `pgsplit serve`. Dropping it asks it to end and waits until it has.
#[derive(Debug)]
pub(super) struct Proxy {
    shell: Child,
    program: PathBuf,
    config: PathBuf,
    log: PathBuf,
    port: u16,
    admin: u16,
}

impl Proxy {
    /// Writes a configuration file beside the cluster, starts the proxy with it and waits until it
    /// is ready.
    pub(super) async fn start(cluster: &Cluster, args: &DemoArgs) -> Result<Self, Failure> {
        let program =
            std::env::current_exe().map_err(|e| Failure::io("finding this program", &e))?;
        let config = cluster.dir().join("pgsplit.toml");
        let log = cluster.dir().join("pgsplit.log");
        fs::write(&config, configuration(cluster, args))
            .map_err(|e| Failure::io(config.display(), &e))?;
        let log_file = fs::File::create(&log).map_err(|e| Failure::io(log.display(), &e))?;
        let shell = Command::new("sh")
            .args(["-c", GUARD, "sh"])
            .arg(&program)
            .args(["serve", "--config"])
            .arg(&config)
            // Of its own group, so that Ctrl-C reaches us only and the order of ending is ours.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log_file)
            .spawn()
            .map_err(|e| Failure::io("starting the proxy", &e))?;
        let mut proxy = Self {
            shell,
            program,
            config,
            log,
            port: args.port,
            admin: args.admin_port,
        };
        let ready = async {
            loop {
                proxy.check()?;
                if proxy.get("/readyz").await.is_some() {
                    return Ok(());
                }
                tokio::time::sleep(POLL).await;
            }
        };
        match timeout(READY_WITHIN, ready).await {
            Ok(ready) => ready.map(|()| proxy),
            Err(_elapsed) => Err(proxy.failure("the proxy isn't ready after 30 s")),
        }
    }

    /// An error once the proxy has ended.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        match self.shell.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(self.failure("the proxy ended")),
            Err(error) => Err(Failure::io("waiting for the proxy", &error)),
        }
    }

    /// Where clients connect.
    pub(super) fn url(&self) -> String {
        format!("postgresql://app:app@127.0.0.1:{}/app", self.port)
    }

    /// This program.
    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// Its configuration file.
    pub(super) fn config(&self) -> &Path {
        &self.config
    }

    /// The body of an answer 200 of the admin listener, within a second.
    pub(super) async fn get(&self, path: &str) -> Option<String> {
        let exchange = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.admin)).await.ok()?;
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut answer = Vec::new();
            stream
                .take(MAX_ANSWER)
                .read_to_end(&mut answer)
                .await
                .ok()?;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            let (head, body) = answer.split_once("\r\n\r\n")?;
            let status = head.split(' ').nth(1)?;
            (status == "200").then(|| body.to_owned())
        };
        timeout(Duration::from_secs(1), exchange).await.ok()?
    }

    fn failure(&self, what: &str) -> Failure {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(10).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        Failure::new(format!("{what}; its log ends with:\n{}", last.join("\n")))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // Failing means that it has been waited for already.
        self.shell.wait().ok();
    }
}

fn configuration(cluster: &Cluster, args: &DemoArgs) -> String {
    let mut text = format!(
        "[listen]\naddress = \"127.0.0.1:{}\"\n\n\
         [admin]\naddress = \"127.0.0.1:{}\"\nconsole_users = [\"app\"]\n\n",
        args.port, args.admin_port
    );
    for node in cluster.nodes() {
        text.push_str(&format!(
            "[[node]]\nname = \"{}\"\nhost = \"127.0.0.1\"\nport = {}\n\n",
            node.name, node.port
        ));
    }
    text.push_str("[[database]]\nname = \"app\"\n\n[[user]]\nname = \"app\"\npassword = \"app\"\n");
    text
}

/// Runs its arguments as a command until its input, a pipe from us, is closed; ends when the
/// command ends, and with it all of its process group: nobody is left who would kill a process that
/// has that number later.
const GUARD: &str = "exec 3<&0; \"$@\" </dev/null 3<&- & pid=$!; \
    { read -r _ <&3; kill -TERM $pid; sleep 5; kill -KILL $pid; } 2>/dev/null & \
    exec 3<&-; wait $pid; code=$?; trap '' TERM; kill -TERM 0; exit $code";

const READY_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
const MAX_ANSWER: u64 = 4 << 20;
