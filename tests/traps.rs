//! Classification against catalogues loaded from a real PostgreSQL: ordinary reads must be
//! offloaded, and nothing that belongs on the primary may count as a read.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells its figures"
)]

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use pgsplit::sql::{
    Access, Catalogue, CatalogueBuilder, Class, Lexing, Traits, catalogue::QUERIES, classify,
    explain,
};
use tokio_postgres::{NoTls, SimpleQueryMessage};

const READS: &[&str] = &[
    include_str!("traps/reads.sql"),
    include_str!("traps/psql.sql"),
    include_str!("traps/drivers.sql"),
    include_str!("traps/tools.sql"),
];
const PRIMARY: &str = include_str!("traps/primary.sql");

/// The catalogues of two databases: an ordinary application's, and one with every trap in it.
struct Catalogues {
    plain: Catalogue,
    traps: Catalogue,
}

fn catalogues() -> &'static Catalogues {
    static LOADED: OnceLock<Catalogues> = OnceLock::new();
    LOADED.get_or_init(|| {
        let server = Server::start();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            server
                .create("plain", &[include_str!("traps/schema.sql")])
                .await;
            server
                .create(
                    "traps",
                    &[
                        include_str!("traps/schema.sql"),
                        include_str!("traps/objects.sql"),
                    ],
                )
                .await;
            Catalogues {
                plain: server.load("plain").await,
                traps: server.load("traps").await,
            }
        })
    })
}

/// A PostgreSQL server that ends with the test.
struct Server {
    directory: tempfile::TempDir,
    binaries: PathBuf,
}

impl Server {
    fn start() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("pgsplit-traps")
            .tempdir()
            .unwrap();
        let server = Self {
            directory,
            binaries: binaries(),
        };
        if is_root() {
            let status = Command::new("chown")
                .arg("postgres")
                .arg(server.directory.path())
                .status();
            assert!(status.unwrap().success());
        }
        let data = server.data();
        server.run(
            "initdb",
            &["-D", &data, "-A", "trust", "-U", "postgres", "-N"],
        );
        let options = format!(
            "-c listen_addresses='' -c unix_socket_directories='{}' -c fsync=off",
            server.directory.path().display()
        );
        let log = format!("{}/log", server.directory.path().display());
        server.run(
            "pg_ctl",
            &["-D", &data, "-o", &options, "-l", &log, "-w", "start"],
        );
        server
    }

    fn data(&self) -> String {
        format!("{}/data", self.directory.path().display())
    }

    /// Runs one of PostgreSQL's programs, which refuse to be run by root.
    fn run(&self, program: &str, arguments: &[&str]) {
        let program = self.binaries.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
                .arg(program);
            command
        } else {
            Command::new(program)
        };
        let output = command
            .args(arguments)
            .current_dir("/")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::inherit())
            .status()
            .unwrap();
        assert!(output.success(), "{command:?}");
    }

    async fn connect(&self, database: &str) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::Config::new()
            .host_path(self.directory.path())
            .user("postgres")
            .dbname(database)
            .connect(NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        client
    }

    async fn create(&self, database: &str, scripts: &[&str]) {
        let client = self.connect("postgres").await;
        let create = format!("CREATE DATABASE {database}");
        client.batch_execute(&create).await.unwrap();
        let client = self.connect(database).await;
        for script in scripts {
            client.batch_execute(script).await.unwrap();
        }
    }

    /// As the monitor does it.
    async fn load(&self, database: &str) -> Catalogue {
        let client = self.connect(database).await;
        let mut builder = CatalogueBuilder::new();
        for query in QUERIES {
            for message in client.simple_query(query.sql).await.unwrap() {
                if let SimpleQueryMessage::Row(row) = message {
                    let columns: Vec<_> = (0..row.len()).map(|i| row.get(i)).collect();
                    builder.row(query.id, &columns);
                }
            }
        }
        builder.finish(1)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = self.data();
        self.run("pg_ctl", &["-D", &data, "-m", "immediate", "stop"]);
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| {
        use std::os::unix::fs::MetadataExt as _;
        m.uid() == 0
    })
}

/// The newest server programs there are.
fn binaries() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").unwrap();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version = path.file_name()?.to_str()?.parse().ok()?;
            Path::new(&path)
                .join("bin/initdb")
                .exists()
                .then(|| (version, path.join("bin")))
        })
        .collect();
    found.sort();
    found
        .pop()
        .expect("PostgreSQL's server programs are installed")
        .1
}

/// The statements of a script with the comment above each.
fn cases(script: &str) -> Vec<(&str, String)> {
    let mut above = "";
    let mut found = Vec::new();
    let mut statement = String::new();
    for line in script.lines() {
        if statement.is_empty()
            && let Some(comment) = line.strip_prefix("-- ")
        {
            above = comment;
            continue;
        }
        statement.push_str(line);
        if line.ends_with(';') {
            found.push((above, statement.trim_end_matches(';').to_owned()));
            statement.clear();
        } else if !statement.is_empty() {
            statement.push('\n');
        }
    }
    found
}

fn of(text: &str, catalogue: &Catalogue) -> Class {
    classify(text.as_bytes(), Lexing::default(), Some(catalogue))
}

#[test]
fn plain_reads_of_orms_bi_tools_and_psql_are_offloaded() {
    let catalogue = &catalogues().plain;
    let mut total = 0;
    let mut lost = String::new();
    let mut lost_count = 0;
    for script in READS {
        for (source, text) in cases(script) {
            total += 1;
            let class = of(&text, catalogue);
            if class.access != Access::Read {
                lost_count += 1;
                let _ = writeln!(lost, "[{source}] {:?}: {text}\n", class.access);
            } else {
                assert!(class.traits.has(Traits::PURE_READ), "{text}");
                assert!(!class.traits.has(Traits::OBSERVE), "{text}");
            }
        }
    }
    let share = 100.0 * f64::from(total - lost_count) / f64::from(total);
    println!("{total} reads, {share:.1} % offloaded; the others:\n{lost}");
    assert!(total > 300);
    assert!(share > 97.0);
}

#[test]
fn nothing_that_belongs_on_the_primary_counts_as_a_read() {
    let catalogue = &catalogues().traps;
    let mut wrong = String::new();
    for (why, text) in cases(PRIMARY) {
        let class = of(&text, catalogue);
        let told = match class.access {
            Access::Primary(why) => why.name(),
            Access::Read => "READ",
            Access::Anywhere => "anywhere",
        };
        if told != why {
            let _ = writeln!(wrong, "{told} rather than {why}: {text}");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn writes_are_looked_at_afterwards_only_where_triggers_touch_the_session() {
    let catalogue = &catalogues().traps;
    for (text, observe) in [
        ("insert into users (name) values (upper('x'))", false),
        (
            "insert into public.users (id, name) values (1, 'x') on conflict (id) do update set (name, age) = ('y', 2)",
            false,
        ),
        ("insert into no_such_table (id) values (1)", true),
        ("insert into with_quiet_trigger (id) values (1)", false),
        ("insert into with_loud_trigger values (1)", true),
        ("update users set name = f_stable_config()", true),
        ("delete from users where id = nextval('s')", false),
    ] {
        let class = of(text, catalogue);
        assert_eq!(class.traits.has(Traits::OBSERVE), observe, "{text}");
    }
}

#[test]
fn what_surely_advances_no_sequence_is_known() {
    let catalogue = &catalogues().traps;
    for (text, surely) in [
        ("update users set name = 'x' where id = 1", true),
        (
            "update only public.users set name = $1 where id in (select id from tags)",
            true,
        ),
        (
            "delete from users where name = upper('x') returning id",
            true,
        ),
        ("update with_stamping_trigger set at = now()", true),
        ("update with_counting_trigger set id = 1", false),
        ("update with_quiet_trigger set id = 1", false),
        ("update with_copying_trigger set id = 1", false),
        ("update with_stamping_trigger set id = default", false),
        ("update users set id = nextval('s')", false),
        ("update users set name = f_stable_dynamic()", false),
        ("update no_such_table set id = 1", false),
        ("update v_simple set id = 1", false),
        ("insert into users (name) values ('x')", false),
        (
            "with x as (insert into users (name) values ('x') returning id) update users set id = 1",
            false,
        ),
        ("select nextval('s')", false),
        (
            "update users set id = 1; insert into users (name) values ('x')",
            false,
        ),
        ("update users set id = 1; update users set id = 2", true),
        ("update users set id = 1; select nextval('s')", false),
    ] {
        let class = of(text, catalogue);
        assert_eq!(class.traits.has(Traits::NO_SEQUENCES), surely, "{text}");
    }
}

#[test]
fn what_made_a_function_unsafe_is_told() {
    let catalogue = &catalogues().traps;
    for (text, detail) in [
        (
            "select f_stable_lock()",
            "f_stable_lock: reaches pg_advisory_lock",
        ),
        (
            "select f_stable_dynamic()",
            "f_stable_dynamic: not marked VOLATILE, but its source runs SQL that is made at run time",
        ),
        ("select * from unlogged_t", "unlogged_t: unlogged"),
        (
            "select * from v_over_v_volatile",
            "v_over_v_volatile: reaches v_volatile",
        ),
    ] {
        let told = explain(text.as_bytes(), Lexing::default(), Some(catalogue));
        assert_eq!(told.detail.as_deref(), Some(detail), "{text}");
    }
}
