//! Who may come in, and how: passwords, TLS, protocol versions.

use std::{path::Path, process::Command};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    Proxy, Raw, cluster, eventually, knows_tls, message, own_cluster, program, run, sqlstate,
    succeed,
};

#[test]
fn every_kind_of_password_is_checked_by_the_proxy_and_known_to_the_server() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        for user in ["app", "md5user", "textuser", "trusted"] {
            let client = proxy.connect(user, "app").await;
            let row = client
                .query_one("select current_user::text", &[])
                .await
                .unwrap();
            assert_eq!(row.get::<_, &str>(0), user);
            let row = client
                .query_one("/* pgsplit: primary */ select current_user::text", &[])
                .await;
            assert_eq!(row.unwrap().get::<_, &str>(0), user);
        }
    });
}

#[test]
fn wrong_user_and_wrong_password_are_told_apart_by_nobody() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let mut messages = Vec::new();
        for (user, password) in [
            ("app", "wrong"),
            ("nobody_here", "wrong"),
            ("md5user", "wrong"),
            ("postgres", "postgres"),
        ] {
            let error = proxy.try_connect(user, password, "app").await.unwrap_err();
            assert_eq!(sqlstate(&error), "28P01", "{user}");
            messages.push(error.as_db_error().unwrap().message().replace(user, "USER"));
        }
        messages.dedup();
        assert_eq!(
            messages,
            ["password authentication failed for user \"USER\""]
        );
    });
}

#[test]
fn an_unknown_database_is_told_only_to_those_who_have_authenticated() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let error = proxy
            .try_connect("app", "app", "nowhere")
            .await
            .unwrap_err();
        assert_eq!(sqlstate(&error), "3D000");
        assert_eq!(
            error.as_db_error().unwrap().message(),
            "database \"nowhere\" does not exist"
        );
        let error = proxy
            .try_connect("app", "wrong", "nowhere")
            .await
            .unwrap_err();
        assert_eq!(sqlstate(&error), "28P01");
    });
}

#[test]
fn verifiers_serve_instead_of_passwords() {
    run(async {
        let cluster = cluster();
        let secret = |user: &str| {
            cluster
                .psql(
                    0,
                    &format!("select rolpassword from pg_authid where rolname = '{user}'"),
                )
                .unwrap()
        };
        let (scram, md5) = (secret("app"), secret("md5user"));
        assert!(scram.starts_with("SCRAM-SHA-256$") && md5.starts_with("md5"));
        // What the proxy can't derive for the servers is given beside it.
        let users = format!(
            "user = [\n\
             {{ name = \"app\", password = \"{scram}\", server_password = \"app\" }},\n\
             {{ name = \"md5user\", password = \"{md5}\" }},\n\
             ]"
        );
        let proxy = Proxy::start(cluster, &users).await;
        proxy
            .connect("app", "app")
            .await
            .simple_query("select 1")
            .await
            .unwrap();
        proxy
            .connect("md5user", "app")
            .await
            .simple_query("select 1")
            .await
            .unwrap();
        for user in ["app", "md5user"] {
            let error = proxy.try_connect(user, "wrong", "app").await.unwrap_err();
            assert_eq!(sqlstate(&error), "28P01");
        }
    });
}

#[test]
fn users_whom_only_the_nodes_know_log_in_by_the_auth_query() {
    run(async {
        let cluster = cluster();
        cluster
            .psql(
                0,
                "create role asked login password 'one' in role app; create role mute login in role app",
            )
            .unwrap();
        for replica in cluster.replicas() {
            cluster.wait_for_replay(replica).unwrap();
        }
        let auth = "[auth]\nuser = \"postgres\"\npassword = \"postgres\"\ncache = \"1h\"\n\
             query = \"SELECT rolname, rolpassword FROM pg_authid WHERE rolname = $1\"";
        let proxy = Proxy::start(cluster, auth).await;
        let runs = async |client: &tokio_postgres::Client| {
            for hint in ["primary", "replica"] {
                let sql = format!("/* pgsplit: {hint} */ select current_user::text");
                let row = client.query_one(&sql, &[]).await.unwrap();
                assert_eq!(row.get::<_, &str>(0), "asked", "{hint}");
            }
        };
        let old = proxy.try_connect("asked", "one", "app").await.unwrap();
        runs(&old).await;

        let mut messages = Vec::new();
        for user in ["asked", "mute", "nobody_here", "app"] {
            let error = proxy.try_connect(user, "wrong", "app").await.unwrap_err();
            assert_eq!(sqlstate(&error), "28P01", "{user}");
            messages.push(error.as_db_error().unwrap().message().replace(user, "USER"));
        }
        messages.dedup();
        assert_eq!(messages.len(), 1, "{messages:?}");
        // Users of the configuration are its own.
        proxy.try_connect("app", "app", "app").await.unwrap();

        // A new password is found once a login with it has failed, and serves at the nodes, too.
        cluster.psql(0, "alter role asked password 'two'").unwrap();
        for replica in cluster.replicas() {
            cluster.wait_for_replay(replica).unwrap();
        }
        eventually("the new password is known", || async {
            proxy.try_connect("asked", "two", "app").await.is_ok()
        })
        .await;
        let error = proxy.try_connect("asked", "one", "app").await.unwrap_err();
        assert_eq!(sqlstate(&error), "28P01");
        proxy.console("RECONNECT").await;
        let new = proxy.try_connect("asked", "two", "app").await.unwrap();
        runs(&new).await;
        runs(&old).await;
        let log = proxy.log();
        assert!(!log.contains("SCRAM-SHA-256$"), "{log}");
    });
}

#[test]
fn encryption_that_is_not_offered_is_declined_and_the_client_goes_on() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
        for code in [80_877_104_i32, 80_877_103] {
            stream
                .write_all(&message::untagged(&code.to_be_bytes()))
                .await
                .unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'N', "{code}");
        }
        let mut psql = program(cluster(), "psql");
        psql.args(["-XAtc", "select 1", &proxy.url()]);
        assert_eq!(succeed(&mut psql).trim(), "1");
        psql.env("PGSSLMODE", "require");
        assert!(!psql.output().unwrap().status.success());
    });
}

#[test]
fn tls_to_clients() {
    run(async {
        if !knows_tls(cluster()) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        certificate(dir.path());
        let files = format!(
            "cert = \"{0}/server.crt\"\nkey = \"{0}/server.key\"",
            dir.path().display()
        );
        for (mode, plain) in [("prefer", true), ("require", false)] {
            let settings = format!("[listen.tls]\nmode = \"{mode}\"\n{files}");
            let proxy = Proxy::launch(cluster(), &settings).await;
            let psql = |mode: &str| {
                let mut psql = program(cluster(), "psql");
                psql.args(["-XAtc", "select repeat('x', 1000000)"])
                    .arg(format!(
                        "postgresql://app:app@localhost:{}/app?sslmode={mode}&sslrootcert={}/server.crt",
                        proxy.port,
                        dir.path().display()
                    ));
                psql
            };
            for mode in ["require", "verify-full"] {
                assert_eq!(succeed(&mut psql(mode)).trim().len(), 1_000_000);
            }
            assert_eq!(psql("disable").output().unwrap().status.success(), plain);
        }
    });
}

#[test]
fn bytes_sent_before_the_tls_handshake_are_not_taken_for_encrypted_ones() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        certificate(dir.path());
        let settings = format!(
            "[listen.tls]\nmode = \"prefer\"\ncert = \"{0}/server.crt\"\nkey = \"{0}/server.key\"",
            dir.path().display()
        );
        let proxy = Proxy::launch(cluster(), &settings).await;
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
        let mut bytes = message::untagged(&80_877_103_i32.to_be_bytes());
        bytes.extend(message::query("select 'injected'"));
        stream.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        let ended = tokio::time::timeout(std::time::Duration::from_secs(20), ended).await;
        assert!(ended.is_ok(), "the connection stays open: {answer:?}");
        proxy
            .connect("app", "app")
            .await
            .simple_query("select 1")
            .await
            .unwrap();
    });
}

#[test]
fn tls_to_nodes() {
    run(async {
        let cluster = own_cluster(1);
        if !knows_tls(&cluster) {
            return;
        }
        for (i, node) in cluster.nodes().iter().enumerate() {
            let dir = cluster.dir().join(&*node.name);
            certificate(&dir);
            cluster.set(i, "ssl", "on").unwrap();
            let hba = dir.join("pg_hba.conf");
            let text = std::fs::read_to_string(&hba).unwrap();
            std::fs::write(&hba, text.replace("host all", "hostssl all")).unwrap();
            cluster.set(i, "work_mem", "5MB").unwrap();
        }
        let ca = cluster.dir().join("pg1/server.crt");
        let node = |i: usize, name: &str, mode: &str, ca: &str| {
            format!(
                "{{ name = \"{name}\", host = \"localhost\", port = {}, tls = {{ sslmode = \"{mode}\"{ca} }} }}",
                cluster.nodes()[i].port
            )
        };
        let trusted = format!(", ca = \"{}\"", ca.display());
        for (mode, ca) in [
            ("require", ""),
            ("prefer", ""),
            ("verify-full", trusted.as_str()),
        ] {
            // Each node has a certificate of its own; the first one's vouches for itself only.
            let nodes = format!("node = [{}]", node(0, "pg1", mode, ca));
            let proxy = Proxy::spawn(&cluster, &nodes);
            crate::support::eventually("ready", async || {
                proxy
                    .get("/readyz")
                    .is_some_and(|answer| answer.contains(" 200 "))
            })
            .await;
            let client = proxy.connect("app", "app").await;
            let row = client
                .query_one("/* pgsplit: primary */ select ssl from pg_stat_ssl where pid = pg_backend_pid()", &[])
                .await
                .unwrap();
            assert!(row.get::<_, bool>(0), "{mode}");
        }
        let nodes = format!("node = [{}]", node(0, "pg1", "disable", ""));
        let proxy = Proxy::spawn(&cluster, &nodes);
        assert!(
            !proxy
                .get("/readyz")
                .is_some_and(|answer| answer.contains(" 200 "))
        );
    });
}

#[test]
fn newer_protocol_versions_are_negotiated() {
    run(async {
        let proxy = Proxy::start(cluster(), "").await;
        // 3.2 is known.
        let parameters = [("user", "app"), ("database", "app")];
        let mut raw = Raw::connect_with(proxy.port, 0x0003_0002, &parameters)
            .await
            .unwrap();
        assert!(!raw.greeting.iter().any(|frame| frame.tag == 'v'));
        assert_eq!(raw.query("select 1").await.len(), 4);
        // A later minor version and an unknown option are answered with what is known.
        let parameters = [
            ("user", "app"),
            ("database", "app"),
            ("_pq_.unheard_of", "1"),
        ];
        let mut raw = Raw::connect_with(proxy.port, 0x0003_0063, &parameters)
            .await
            .unwrap();
        let negotiated = raw.greeting.iter().find(|frame| frame.tag == 'v').unwrap();
        assert_eq!(negotiated.body[..8], [0, 3, 0, 2, 0, 0, 0, 1]);
        assert!(negotiated.body.ends_with(b"_pq_.unheard_of\0"));
        assert_eq!(raw.query("select 1").await.len(), 4);
        // Another major version is refused.
        let parameters = [("user", "app"), ("database", "app")];
        let error = Raw::connect_with(proxy.port, 0x0004_0000, &parameters)
            .await
            .unwrap_err();
        assert_eq!(error.field('C'), "0A000");
    });
}

#[test]
fn trust_only_where_configured() {
    run(async {
        let proxy = Proxy::start(cluster(), "[listen]\ntrust = true").await;
        proxy
            .try_connect("app", "whatever", "app")
            .await
            .unwrap()
            .simple_query("select 1")
            .await
            .unwrap();
        let error = proxy
            .try_connect("nobody_here", "x", "app")
            .await
            .unwrap_err();
        assert_eq!(sqlstate(&error), "28000");
    });
}

#[test]
fn unix_sockets_serve_too() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let settings = format!("[listen]\nunix_socket_dir = \"{}\"", dir.path().display());
        let proxy = Proxy::start(cluster(), &settings).await;
        let mut psql = program(cluster(), "psql");
        psql.args(["-XAtc", "select 1", "-U", "app", "-d", "app", "-h"])
            .arg(dir.path())
            .args(["-p", &proxy.port.to_string()])
            .env("PGPASSWORD", "app");
        assert_eq!(succeed(&mut psql).trim(), "1");
    });
}

/// A self-signed certificate for localhost, with its key, owned as the directory is.
fn certificate(dir: &Path) {
    let (cert, key) = (dir.join("server.crt"), dir.join("server.key"));
    succeed(
        Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
            ])
            .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&cert),
    );
    succeed(Command::new("chmod").arg("0600").arg(&key));
    for file in [&cert, &key] {
        succeed(
            Command::new("chown")
                .arg(format!("--reference={}", dir.display()))
                .arg(file),
        );
    }
}

/// The password of the only user is changed while everything runs: at the nodes, in the file, and told
/// by SIGHUP.
#[test]
fn a_password_is_changed_without_a_restart() {
    run(async {
        let cluster = own_cluster(1);
        let proxy = Proxy::start(&cluster, "").await;
        let runs = async |client: &tokio_postgres::Client| {
            for sql in ["select 1", "/* pgsplit: primary */ select 1"] {
                client.simple_query(sql).await.unwrap();
            }
        };
        let living = proxy.connect("app", "app").await;
        runs(&living).await;
        cluster.psql(0, "alter role app password 'new'").unwrap();
        cluster.wait_for_replay(1).unwrap();
        let file = proxy.dir.path().join("pgsplit.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let changed = text.replace("password = \"app\"", "password = \"new\"");
        assert_ne!(text, changed);
        std::fs::write(&file, changed).unwrap();
        proxy.process.as_ref().unwrap().signal("HUP");
        eventually("the new password is known", || async {
            proxy.try_connect("app", "new", "app").await.is_ok()
        })
        .await;
        let error = proxy.try_connect("app", "app", "app").await.unwrap_err();
        assert_eq!(sqlstate(&error), "28P01");
        // Whatever connects to the nodes does it anew, the monitor, too.
        for node in 0..2 {
            let monitors =
                "select pid from pg_stat_activity where application_name = 'pgsplit monitor'";
            let before = cluster.psql(node, monitors).unwrap();
            let ended = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                         where usename = 'app' and backend_type = 'client backend'";
            cluster.psql(node, ended).unwrap();
            eventually("the monitor is back", async || {
                let now = cluster.psql(node, monitors).unwrap();
                now.lines().any(|pid| !before.lines().any(|old| old == pid))
            })
            .await;
        }
        proxy.wait_for_nodes(2).await;
        runs(&living).await;
        let new = proxy.try_connect("app", "new", "app").await.unwrap();
        runs(&new).await;
    });
}
