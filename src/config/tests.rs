//! The configuration as a whole: what is accepted, what is said of mistakes, what wins.

use std::{collections::HashMap, time::Duration};

use proptest::prelude::*;

use super::{draft::load_text, schema::Options, *};
use crate::routing::{Consistency, RoutingMode};

const REFERENCE: &str = include_str!("../../config/pgsplit.toml");

/// A configuration to which mistakes are added.
const PLAIN: &str = r#"
[[node]]
host = "h"
[[database]]
name = "app"
[[user]]
name = "app"
password = "app"
"#;

fn load_with(
    text: &str,
    options: &[(&'static str, &str)],
    environment: &[(&str, &str)],
) -> Result<Loaded, Problems> {
    let environment: HashMap<&str, &str> = environment.iter().copied().collect();
    let sources = Sources {
        options: options
            .iter()
            .map(|(option, value)| Given {
                option,
                value: (*value).to_owned(),
                source: format!("--{}", option.replace(['.', '_'], "-")),
            })
            .collect(),
        ..Sources::default()
    };
    load_text(&sources, Some(("p.toml", text)), &|name| {
        environment.get(name).map(|value| (*value).to_owned())
    })
}

fn read(text: &str) -> Settings {
    load_with(text, &[], &[]).unwrap().settings
}

fn mistakes(text: &str) -> String {
    load_with(text, &[], &[]).unwrap_err().to_string()
}

/// Loads nodes given as URLs.
fn from_urls(urls: &[&str], change: impl FnOnce(&mut Sources)) -> Result<Loaded, Problems> {
    let mut sources = Sources {
        nodes: urls.iter().map(|url| (*url).to_owned()).collect(),
        ..Sources::default()
    };
    change(&mut sources);
    load(&sources, &|_name| None)
}

#[test]
fn the_reference_says_the_defaults() {
    let reference = read(REFERENCE);
    let mut expected = Settings {
        nodes: reference.nodes.clone(),
        databases: reference.databases.clone(),
        users: reference.users.clone(),
        ..Settings::default()
    };
    // These follow the first user and database.
    expected.admin.console_users = vec!["app".into()];
    expected.monitor.user = "app".into();
    expected.monitor.password = Some(Secret("app".into()));
    expected.monitor.database = "app".into();
    expected.failover.user = "app".into();
    expected.failover.password = Some(Secret("app".into()));
    assert_eq!(reference, expected);
    // So does everything that the reference gives explicitly, when it is left out.
    let (head, lists) = REFERENCE.split_at(REFERENCE.find("[[node]]\nname").unwrap());
    assert!(head.contains("[monitor]"));
    assert_eq!(read(lists), reference);

    let minimal = &read(PLAIN);
    let node = &reference.nodes[0];
    assert_eq!(node.tls, minimal.nodes[0].tls);
    assert_eq!(
        (&node.zone, node.weight, node.role, node.port),
        (
            &minimal.nodes[0].zone,
            minimal.nodes[0].weight,
            minimal.nodes[0].role,
            minimal.nodes[0].port
        )
    );
    assert_eq!(reference.databases, minimal.databases);
    assert_eq!(reference.users, minimal.users);
}

#[test]
fn the_reference_has_every_key() {
    for section in sections() {
        // Overrides have the keys of the section that they override.
        if ["database.pool", "database.routing", "user.routing"].contains(&section.name) {
            continue;
        }
        let header = ["[[NAME]]", "[NAME]", "# [NAME]"]
            .map(|form| format!("\n{}\n", form.replace("NAME", section.name)))
            .into_iter()
            .find(|header| REFERENCE.contains(header))
            .unwrap_or_else(|| panic!("the reference has no [{}]", section.name));
        let (_, body) = REFERENCE.split_once(&header).unwrap();
        let body = body.split("\n[").next().unwrap();
        for key in section.keys {
            assert!(
                body.lines().any(|line| {
                    let line = line.trim_start_matches(['#', ' ']);
                    line.starts_with(&format!("{} = ", key.name))
                }),
                "the reference has no {} in {header}",
                key.name
            );
        }
    }
}

#[test]
fn every_option_is_described_and_shows_a_value_that_reads_back() {
    fn all<T: Options + std::fmt::Debug>() {
        let defaults = T::default();
        for key in T::KEYS {
            let shown = defaults.show(key.name);
            let parsed: toml::Table = toml::from_str(&format!("x = {shown}")).unwrap();
            let raw = match &parsed["x"] {
                toml::Value::String(text) => value::Raw::Text(text.clone()),
                toml::Value::Integer(number) => value::Raw::Integer(*number),
                toml::Value::Boolean(boolean) => value::Raw::Boolean(*boolean),
                toml::Value::Array(list) if list.is_empty() => value::Raw::List(Vec::new()),
                other => panic!("{other}"),
            };
            let mut read = defaults.clone();
            read.set(key.name, &raw).unwrap().unwrap();
            assert!(read.same(&defaults, key.name), "{} {shown}", key.name);
        }
    }
    all::<Listen>();
    all::<ListenTls>();
    all::<Admin>();
    all::<Pool>();
    all::<Routing>();
    all::<Monitor>();
    all::<Failover>();
    all::<Log>();
    all::<Node>();
    all::<NodeTls>();
    all::<Database>();
    all::<User>();
    for section in sections() {
        for key in section.keys {
            let own_words = ["port", "name"].contains(&key.name);
            assert!(
                !key.doc.is_empty() || own_words,
                "{}.{}",
                section.name,
                key.name
            );
        }
    }
}

#[test]
fn each_mistake_is_named_with_its_place_and_key() {
    // The text stands in front of a configuration without mistakes; line 1 is its first.
    for (text, message) in [
        (
            "[routing]\nmax_lagg = \"1s\"",
            r#"p.toml:2:1: unknown key "max_lagg" in [routing]; did you mean "max_lag"?"#,
        ),
        (
            "[routing]\n  timeout = \"1s\"",
            r#"p.toml:2:3: unknown key "timeout" in [routing]; it belongs in [monitor]"#,
        ),
        (
            "[pool]\nsize = 3",
            r#"p.toml:2:1: unknown key "size" in [pool]; did you mean "max_size"?"#,
        ),
        (
            "[pool]\nbanana = 3",
            r#"p.toml:2:1: unknown key "banana" in [pool]; valid are mode, pin, max_size, min_idle, acquire_timeout, pause_timeout, primary_reads_share, connect_timeout, idle_timeout, max_lifetime, prepared_statements"#,
        ),
        (
            "[pol]\nmode = \"session\"",
            r#"p.toml:1:2: unknown key "pol" at the top level; did you mean "pool"?"#,
        ),
        (
            "max_lag = \"1s\"",
            r#"p.toml:1:1: unknown key "max_lag" at the top level; it belongs in [routing] or [database.routing] or [user.routing]"#,
        ),
        (
            "[pool]\nmax_size = \"20\"",
            r#"p.toml:2:12: max_size in [pool] must be a whole number from 0 to 18446744073709551615, not "20""#,
        ),
        (
            "[pool]\nmax_size = 0",
            "p.toml:2:12: max_size in [pool] must be between 1 and 10000, not 0",
        ),
        (
            "[pool]\nmax_size = 2.5",
            "p.toml:2:12: max_size in [pool] must be a whole number from 0 to 18446744073709551615, not a fraction",
        ),
        (
            "[pool]\nacquire_timeout = 5",
            r#"p.toml:2:19: acquire_timeout in [pool] must be a duration such as "250ms", "5s", "10m", "1h" or "1d", not the number 5"#,
        ),
        (
            "[pool]\nacquire_timeout = \"2d\"",
            r#"p.toml:2:19: acquire_timeout in [pool] must be between "1ms" and "1h", not "48h""#,
        ),
        (
            "[pool]\nmode = \"transactional\"",
            r#"p.toml:2:8: mode in [pool] must be "transaction", "session" or "statement", not "transactional""#,
        ),
        (
            "[pool]\nmin_idle = 21",
            "p.toml:2:1: min_idle (21) must not be larger than max_size (20)",
        ),
        (
            "[routing]\nmax_lag_bytes = \"1 parsec\"",
            r#"p.toml:2:17: max_lag_bytes in [routing] must be a size such as "512KiB", "16MiB" or "1GiB", or a number of bytes, not "1 parsec""#,
        ),
        (
            "[listen]\naddress = \"localhost:6432\"",
            r#"p.toml:2:11: address in [listen] must be an IP address and a port such as "127.0.0.1:6432", "0.0.0.0:6432" or "[::]:6432", not "localhost:6432""#,
        ),
        (
            "[listen]\naddress = []",
            "p.toml:2:11: address in [listen] must not be empty",
        ),
        (
            "[listen]\naddress = [\"1.1.1.1:1\", \"1.1.1.1:1\"]",
            "p.toml:2:1: address has 1.1.1.1:1 twice",
        ),
        (
            "[listen]\nunix_socket_dir = \"run\"",
            r#"p.toml:2:19: unix_socket_dir in [listen] must be an absolute path, not "run""#,
        ),
        (
            "[listen]\ntls = true",
            "p.toml:2:1: tls must be a section: [listen.tls]",
        ),
        (
            "[listen.tls]\ncert = \"/dev/null\"",
            r#"p.toml:1:9: missing key "key" in [listen.tls]"#,
        ),
        (
            "[listen.tls]\ncert = \"/dev/null\"\nkey = \"/nonexistent/k\"",
            r#"p.toml:3:1: key "/nonexistent/k" can't be read: No such file or directory (os error 2)"#,
        ),
        (
            "[admin]\naddress = \"127.0.0.1:6432\"",
            "p.toml:2:1: address in [admin] is one where clients connect, too: 127.0.0.1:6432",
        ),
        (
            "[admin]\nconsole_users = [\"root\"]",
            r#"p.toml:2:1: console_users in [admin] names "root", who is no [[user]]"#,
        ),
        (
            "[failover]\nmode = \"promote\"",
            r#"p.toml:2:1: mode = "promote" in [failover] needs sole_promoter = true: two that promote make two primaries, so that with several proxies it is Patroni's or the like's"#,
        ),
        (
            "[failover]\ndiscovery = \"patroni\"",
            r#"p.toml:2:1: discovery = "patroni" in [failover] needs patroni = ["http://host:8008"]: where to ask"#,
        ),
        (
            "[failover]\npatroni = [\"http://10.0.0.1:8008\"]",
            r#"p.toml:2:1: patroni in [failover] needs discovery = "patroni""#,
        ),
        (
            "[failover]\npatroni = [\"10.0.0.1:8008\"]",
            r#"p.toml:2:11: patroni in [failover] must be URLs such as "http://10.0.0.1:8008", not "10.0.0.1:8008""#,
        ),
        (
            "[failover]\nconfirm = \"10ms\"",
            "p.toml:2:11: confirm in [failover] must be between \"100ms\" and \"1h\", not \"10ms\"",
        ),
        (
            "[monitor]\npassword = \"${NOT_SET}\"",
            "p.toml:2:12: the environment variable NOT_SET is not set",
        ),
        (
            "[monitor]\npassword = \"a${b\"",
            r#"p.toml:2:12: "${" without "}"; write "$${" for a plain "${""#,
        ),
        (
            "[monitor]\npassword_file = \"/nonexistent/x\"",
            r#"p.toml:2:1: the password file "/nonexistent/x" can't be read: No such file or directory (os error 2)"#,
        ),
        (
            "[[node]]\nhost = \"h\"",
            "p.toml:4:1: the node at h port 5432 is there already, in line 2",
        ),
        (
            "[[node]]\nhost = \"g\"\nname = \"h\"",
            r#"p.toml:4:1: there is a node "h" already, in line 3"#,
        ),
        (
            "[[node]]\nport = 1",
            r#"p.toml:1:1: missing key "host" in [[node]]"#,
        ),
        (
            "[[node]]\nhost = \"g:5432\"",
            r#"p.toml:2:8: host in [[node]] must be a name, an address or a socket directory (the port is an option of its own: port = 5432), not "g:5432""#,
        ),
        (
            "[[node]]\nhost = \"g\"\nport = 0",
            "p.toml:3:8: port in [[node]] must be between 1 and 65535, not 0",
        ),
        (
            "[[node]]\nhost = \"g\"\ntls.ca = \"/dev/null\"",
            r#"p.toml:3:5: ca in [node.tls] is looked at only with sslmode = "verify-full", not "prefer""#,
        ),
        (
            "[[node]]\nhost = \"g\"\ntls.cert = \"/dev/null\"",
            "p.toml:3:1: cert and key in [node.tls] go together",
        ),
        (
            "[[database]]\nname = \"app\"",
            r#"p.toml:6:1: there is a database "app" already, in line 2"#,
        ),
        (
            "[[database]]\nname = \"pgsplit\"",
            r#"p.toml:2:1: "pgsplit" is the console: call the database something else, with dbname = its name on the nodes"#,
        ),
        (
            "[[database]]\nname = \"b\"\npool.min_idle = 30",
            "p.toml:3:6: min_idle (30) must not be larger than max_size (20)",
        ),
        (
            "[[database]]\nname = \"b\"\n[database.routing]\nmax_lags = 1",
            r#"p.toml:4:1: unknown key "max_lags" in [database.routing]; did you mean "max_lag"?"#,
        ),
        (
            "[[user]]\nname = \"b\"",
            r#"p.toml:1:1: the user "b" has no password: it could never log in (give password, password_file, trust = true in [listen], or query in [auth])"#,
        ),
        (
            "[[user]]\nname = \"b\"\npassword = 4711",
            "p.toml:3:12: password in [[user]] must be a string without zero bytes",
        ),
        (
            "[[user]]\nname = \"b\"\npassword = \"SCRAM-SHA-256$4096:salt\"",
            "p.toml:3:1: password in [[user]] begins like a SCRAM verifier, but is none",
        ),
        (
            "[[user]]\nname = \"b\"\npassword = \"x\"\nauth_query = \"SELECT 1\"",
            "p.toml:4:1: unknown key \"auth_query\" in [[user]]; it is \"query\" in [auth]",
        ),
        (
            "[pool]\nmode = ",
            "p.toml:2:8: string values must be quoted, expected literal string",
        ),
        ("[pool]\n[pool]", "p.toml:2:2: duplicate key \"pool\""),
    ] {
        // Sections of the text come first, so that a bare key stays at the top level.
        let said = mistakes(&format!("{text}{PLAIN}"));
        assert_eq!(said, message, "{text}");
    }
}

#[test]
fn all_mistakes_are_reported_in_the_order_of_the_file() {
    let said = mistakes(&format!(
        "[routing]\nmax_lagg = 1\nzone = 3\n[listen]\nworkers = -1{PLAIN}"
    ));
    let places: Vec<&str> = said.lines().filter_map(|line| line.get(..10)).collect();
    assert_eq!(places, ["p.toml:2:1", "p.toml:3:8", "p.toml:5:1"], "{said}");
}

#[test]
fn a_large_file_is_read_in_no_time_and_its_mistakes_are_bounded() {
    let users: String = (0..50_000)
        .map(|n| format!("[[user]]\nname = \"u{n}\"\npassword = \"p\"\n"))
        .collect();
    assert_eq!(read(&format!("{PLAIN}{users}")).users.len(), 50_001);
    let nodes: String = (0..1_000)
        .map(|n| format!("[[node]]\nhost = \"h{n}\"\nx = 1\n"))
        .collect();
    let said = mistakes(&format!("{PLAIN}{nodes}"));
    assert!(said.ends_with("… and 901 more"), "{said}");
}

#[test]
fn an_empty_file_says_what_is_missing() {
    let said = mistakes("");
    for missing in ["no [[node]]", "no [[database]]", "no [[user]]"] {
        assert!(said.contains(missing), "{said}");
    }
}

#[test]
fn a_misspelt_section_is_not_called_missing_too() {
    let said = mistakes(&PLAIN.replace("[[node]]", "[[nodes]]"));
    assert_eq!(
        said,
        r#"p.toml:2:3: unknown key "nodes" at the top level; did you mean "node"?"#
    );
}

#[test]
fn a_single_node_is_written_like_several() {
    let said = mistakes(&PLAIN.replace("[[node]]", "[node]"));
    assert_eq!(
        said,
        "p.toml:2:2: [node] may occur several times: write [[node]]"
    );
}

#[test]
fn the_environment_is_filled_in() {
    let text = r#"
[listen]
address = "${ADDRESSES}"
max_clients = "${MOST}"
[[node]]
host = "db-${ZONE}"
port = "${PORT}"
[[database]]
name = "app"
[[user]]
name = "app"
password = "$${x}${PW}$y"
[[user]]
name = "verifier"
password = "SCRAM-SHA-256$4096:c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
"#;
    let environment = [
        ("ADDRESSES", "127.0.0.1:1, 127.0.0.1:2"),
        ("MOST", "77"),
        ("ZONE", "a"),
        ("PORT", "6000"),
        ("PW", "geheim"),
    ];
    let settings = load_with(text, &[], &environment).unwrap().settings;
    assert_eq!(settings.listen.addresses.len(), 2);
    assert_eq!(settings.listen.max_clients, 77);
    assert_eq!(settings.nodes[0].host, Host::Tcp("db-a".into()));
    assert_eq!(settings.nodes[0].port, 6000);
    assert_eq!(
        settings.users[0].password,
        Some(Secret("${x}geheim$y".into()))
    );
    let verifier = settings.users[1].password.as_ref().unwrap();
    assert!(verifier.0.starts_with("SCRAM-SHA-256$4096:c2FsdA==$AAAA"));

    let wrong = [
        ("ADDRESSES", "x"),
        ("MOST", "secret"),
        ("ZONE", "a"),
        ("PORT", "secret"),
        ("PW", "p"),
    ];
    let said = load_with(text, &[], &wrong).unwrap_err().to_string();
    assert!(
        said.contains("p.toml:4:15: max_clients in [listen]"),
        "{said}"
    );
    assert!(!said.contains("secret"), "{said}");
}

#[test]
fn passwords_come_from_files() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "from file\nsecond line\n").unwrap();
    let user = format!("password_file = {:?}", file.display().to_string());
    let settings = read(&PLAIN.replace("password = \"app\"", &user));
    assert_eq!(settings.users[0].password, Some(Secret("from file".into())));
    assert_eq!(settings.monitor.password, settings.users[0].password);

    std::fs::write(&file, "\n").unwrap();
    let said = mistakes(&PLAIN.replace("password = \"app\"", &user));
    assert!(
        said.ends_with("has no password in its first line"),
        "{said}"
    );
}

#[test]
fn the_monitor_is_the_first_user_in_the_first_database() {
    let text = r#"
[[node]]
host = "h"
[[database]]
name = "*"
[[user]]
name = "app"
password = "SCRAM-SHA-256$4096:c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
server_user = "inner"
"#;
    let loaded = load_with(text, &[], &[]).unwrap();
    let monitor = &loaded.settings.monitor;
    assert_eq!((&*monitor.user, &*monitor.database), ("inner", "postgres"));
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);

    let settings = read(&format!(
        "[monitor]\nuser = \"watch\"\npassword = \"w\"\ndatabase = \"d\"{PLAIN}"
    ));
    let monitor = &settings.monitor;
    assert_eq!((&*monitor.user, &*monitor.database), ("watch", "d"));
    assert_eq!(monitor.password, Some(Secret("w".into())));
}

#[test]
fn the_narrowest_override_wins() {
    let text = r#"
[pool]
max_size = 30
[routing]
max_lag = "1s"
consistency = "eventual"
[[node]]
host = "h"
[[database]]
name = "a"
pool.mode = "session"
routing.max_lag = "2s"
[[database]]
name = "*"
[[user]]
name = "plain"
password = "x"
[[user]]
name = "report"
password = "x"
[user.routing]
max_lag = "3s"
mode = "primary"
"#;
    let settings = load_with(
        text,
        &[("routing.max_lag", "9s"), ("pool.max_size", "40")],
        &[],
    )
    .unwrap()
    .settings;
    let a = settings.database("a").unwrap();
    let other = settings.database("b").unwrap();
    assert_eq!((a.pool.mode, a.pool.max_size), (PoolMode::Session, 40));
    assert_eq!(
        (other.name.as_str(), other.pool.mode),
        ("*", PoolMode::Transaction)
    );
    let plain = settings.user("plain").unwrap();
    let report = settings.user("report").unwrap();
    for (database, user, lag) in [
        (a, plain, 2),
        (other, plain, 9),
        (a, report, 3),
        (other, report, 3),
    ] {
        let routing = settings.routing_for(database, user);
        assert_eq!(routing.max_lag, Duration::from_secs(lag));
        assert_eq!(routing.consistency, Consistency::Eventual);
    }
    assert_eq!(settings.routing_for(a, report).mode, RoutingMode::Primary);
    assert_eq!(settings.routing_for(a, plain).mode, RoutingMode::Split);
}

#[test]
fn flags_override_the_file_and_are_checked_likewise() {
    let options = [
        ("listen.address", "127.0.0.1:1,127.0.0.1:2"),
        ("pool.mode", "session"),
        ("admin.address", ""),
        ("listen.tls.cert", "/dev/null"),
        ("listen.tls.key", "/dev/null"),
    ];
    let settings = load_with(
        &format!("[pool]\nmode = \"statement\"{PLAIN}"),
        &options,
        &[],
    )
    .unwrap()
    .settings;
    assert_eq!(settings.listen.addresses.len(), 2);
    assert_eq!(settings.pool.mode, PoolMode::Session);
    assert_eq!(settings.databases[0].pool.mode, PoolMode::Session);
    assert_eq!(settings.admin.address, None);
    assert_eq!(
        settings.listen.tls.unwrap().cert,
        std::path::Path::new("/dev/null")
    );

    let said = load_with(
        PLAIN,
        &[("routing.max_lag", "5"), ("listen.tls.cert", "/dev/null")],
        &[],
    )
    .unwrap_err()
    .to_string();
    assert_eq!(
        said,
        "--routing-max-lag: must be a duration such as \"250ms\", \"5s\", \"10m\", \"1h\" or \"1d\", not \"5\"\n\
         --listen-tls-cert: missing key \"key\" in [listen.tls]"
    );
}

#[test]
fn nodes_as_urls_need_no_file() {
    let settings = from_urls(
        &[
            "postgres://app:secret@10.0.0.1/shop?sslmode=disable",
            "postgres://10.0.0.2",
            "postgres://app@10.0.0.2:5433/shop",
        ],
        |_| {},
    )
    .unwrap()
    .settings;
    let names: Vec<&str> = settings.nodes.iter().map(|node| &*node.name).collect();
    assert_eq!(names, ["10.0.0.1", "10.0.0.2:5432", "10.0.0.2:5433"]);
    assert_eq!(settings.nodes[0].tls.sslmode, SslMode::Disable);
    assert_eq!(settings.nodes[1].tls.sslmode, SslMode::Prefer);
    assert_eq!(settings.users.len(), 1);
    assert_eq!(settings.users[0].password, Some(Secret("secret".into())));
    assert_eq!(settings.databases[0].name, "shop");
    assert_eq!(settings.monitor.database, "shop");
    assert_eq!(settings.admin.console_users, ["app"]);

    let settings = from_urls(&["postgres://app@h"], |sources| {
        sources.password = Some(Secret("beside".into()));
    })
    .unwrap()
    .settings;
    assert_eq!(settings.databases[0].name, "app");
    assert_eq!(settings.users[0].password, Some(Secret("beside".into())));
}

#[test]
fn mistakes_in_urls_name_the_url_by_its_number() {
    for (urls, message) in [
        (
            &["postgres://h/db"][..],
            "--node, URL 1: names no user: postgres://user:password@host/database",
        ),
        (
            &["postgres://a:x@h", "postgres://b@i"],
            "--node, URL 2: names another user than the first node's URL: they are the same on all nodes",
        ),
        (
            &["postgres://a:x@h", "postgres://a:y@i"],
            "--node, URL 2: names another password than the first node's URL: they are the same on all nodes",
        ),
        (
            &["postgres://a:x@h/d", "postgres://i/e"],
            "--node, URL 2: names another database than the first node's URL: they are the same on all nodes",
        ),
        (
            &["postgres://a:x@h", "postgres://h:5432"],
            "--node, URL 2: the node at h port 5432 is there already, by --node, URL 1",
        ),
        (
            &["postgres://a:x@h", "h"],
            "--node, URL 2: must begin with postgres://",
        ),
        (
            &["postgres://a@h"],
            "--node, URL 1: the user \"a\" has no password: it could never log in (give password, password_file, trust = true in [listen], or query in [auth])",
        ),
    ] {
        let said = from_urls(urls, |_| {}).unwrap_err().to_string();
        assert_eq!(said, message);
    }
    let sources = Sources {
        nodes: vec!["postgres://a:x@h".into()],
        ..Sources::default()
    };
    let said = load_text(&sources, Some(("p.toml", PLAIN)), &|_| None)
        .unwrap_err()
        .to_string();
    assert_eq!(
        said,
        "--node (PGSPLIT_NODES): not together with a configuration file: nodes, users and databases are the file's"
    );
}

#[test]
fn a_reload_says_what_changes_now_and_what_after_a_restart() {
    let old = read(&format!(
        "[listen]\nworkers = 2\n[pool]\nmax_size = 10{PLAIN}"
    ));
    assert_eq!(old.diff(&old), Changes::default());

    let text = format!("[listen]\nworkers = 3\n[pool]\nmax_size = 11{PLAIN}")
        .replace(
            "password = \"app\"",
            "password = \"new\"\nrouting.mode = \"primary\"",
        )
        .replace(
            "name = \"app\"\n[[user]]",
            "name = \"app\"\npool.min_idle = 1\n[[database]]\nname = \"b\"\n[[user]]",
        );
    let new = read(&format!("{text}\n[[node]]\nhost = \"i\"\n"));
    let changes = old.diff(&new);
    let shown = |changes: &[Change]| changes.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        shown(&changes.live),
        [
            "pool.max_size: 10 -> 11",
            "monitor.password: \"(set)\" -> \"(set)\"",
            "failover.password: \"(set)\" -> \"(set)\"",
            "node.i: not given -> given",
            "database.app.pool.min_idle: 0 -> 1",
            "database.b: not given -> given",
            "user.app.password: \"(set)\" -> \"(set)\"",
            "user.app.routing.mode: \"split\" -> \"primary\"",
        ]
    );
    assert_eq!(shown(&changes.restart), ["listen.workers: 2 -> 3"]);
    // A restart that is needed is still needed at the next reload.
    let between = old.reloaded(&new);
    assert_eq!(old.diff(&between).restart, []);
    assert_eq!(between.diff(&new).live, []);
    assert_eq!(between.diff(&new).restart, changes.restart);
}

#[test]
fn rows_list_every_option_and_no_secret() {
    let settings = read(&PLAIN.replace(
        "password = \"app\"",
        "password = \"hunter2\"\nrouting.zone = \"z\"",
    ));
    let rows = settings.rows();
    let row = |key: &str| rows.iter().find(|row| row.key == key).unwrap();
    assert_eq!(row("routing.max_lag").value, "\"10s\"");
    assert_eq!(row("node.h.port").default, "5432");
    assert_eq!(row("user.app.routing.zone").value, "\"z\"");
    assert!(
        !rows
            .iter()
            .any(|row| row.key.starts_with("database.app.pool"))
    );
    assert!(rows.iter().all(|row| !row.value.contains("hunter2")));
    assert!(!format!("{settings:?}").contains("hunter2"));
}

#[test]
fn a_file_that_is_not_there_or_not_text_is_a_mistake() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("x.toml");
    let said = |sources: &Sources| load(sources, &|_| None).unwrap_err().to_string();
    let sources = Sources {
        file: Some(file.clone()),
        ..Sources::default()
    };
    assert!(
        said(&sources).ends_with("x.toml: can't be read: No such file or directory (os error 2)")
    );
    std::fs::write(&file, b"a = \"\xff\"").unwrap();
    assert!(said(&sources).ends_with("x.toml: is not UTF-8"));
}

/// Text that is often nearly a configuration.
fn nearly_toml() -> impl Strategy<Value = String> {
    let words: Vec<&'static str> = vec![
        "[",
        "]",
        "[[",
        "]]",
        "=",
        "\n",
        "\n",
        " ",
        ".",
        ",",
        "{",
        "}",
        "\"",
        "'",
        "#",
        "${",
        "$${X}",
        "\\",
        "\"${X}\"",
        "\"5s\"",
        "\"1MiB\"",
        "0",
        "-1",
        "99999999999999999999",
        "1.5",
        "true",
        "1979-05-27",
        "ä",
        "\u{0}",
        "listen",
        "tls",
        "admin",
        "address",
        "pool",
        "routing",
        "monitor",
        "failover",
        "log",
        "node",
        "database",
        "user",
        "name",
        "host",
        "port",
        "password",
        "max_size",
        "min_idle",
        "max_lag",
        "mode",
        "[[node]]\nhost = \"h\"\n",
        "[[user]]\nname = \"u\"\n",
        "[[database]]\nname = \"d\"\n",
        "[pool]\n",
        "routing.max_lag = ",
    ];
    proptest::collection::vec(proptest::sample::select(words), 0..60)
        .prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn no_text_panics(text in prop_oneof![nearly_toml(), any::<String>()]) {
        let environment = [("X", "1")];
        if let Err(problems) = load_with(&text, &[], &environment) {
            prop_assert!(!problems.is_empty());
        }
    }

    #[test]
    fn no_change_of_the_reference_panics(at in 0..REFERENCE.len(), with in "[ -~\n]{0,3}", cut in 0..40_usize) {
        let mut bytes = REFERENCE.as_bytes().to_vec();
        let end = (at + cut).min(bytes.len());
        bytes.splice(at..end, with.bytes());
        let text = String::from_utf8_lossy(&bytes);
        let _ = load_with(&text, &[], &[]);
    }
}
