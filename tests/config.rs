//! The built program as operators meet it: mistakes, precedence of flags, variables and file,
//! exit codes; `check` before real nodes.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use pgsplit::cli::demo::{
    cluster::{Cluster, Options},
    free_port,
};
use tempfile::TempDir;

/// The program with none of this process's own settings.
fn pgsplit(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgsplit"));
    for (name, _) in std::env::vars() {
        if name.starts_with("PGSPLIT_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).envs(variables.iter().copied());
    command
}

struct Ended {
    code: i32,
    out: String,
    err: String,
}

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    let Output {
        status,
        stdout,
        stderr,
    } = pgsplit(arguments, variables).output().unwrap();
    Ended {
        code: status.code().unwrap(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

fn file(text: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pgsplit.toml");
    fs::write(&file, text).unwrap();
    (directory, file)
}

const PLAIN: &str = r#"
[routing]
max_lag = "2s"
[[node]]
host = "127.0.0.1"
[[database]]
name = "app"
[[user]]
name = "app"
password = "${PW}"
"#;

#[test]
fn mistakes_stop_the_start_with_2_and_name_file_line_column_and_key() {
    let (_directory, path) = file(&PLAIN.replace("max_lag", "max_lagg"));
    let path = path.to_str().unwrap();
    for command in ["serve", "check"] {
        let ended = run(&[command, "--config", path], &[("PW", "x")]);
        assert_eq!(ended.code, 2);
        assert_eq!(
            ended.err,
            format!(
                "{path}:3:1: unknown key \"max_lagg\" in [routing]; did you mean \"max_lag\"?\n"
            )
        );
        assert_eq!(ended.out, "");
    }
    let ended = run(&["serve", "--config", "/nonexistent/pgsplit.toml"], &[]);
    assert_eq!(ended.code, 2);
    assert!(
        ended
            .err
            .contains("/nonexistent/pgsplit.toml: can't be read"),
        "{}",
        ended.err
    );
}

#[test]
fn usage_mistakes_are_2_and_help_is_0() {
    for (arguments, code) in [
        (&["serve", "--nonsense"][..], 2),
        (&["nonsense"], 2),
        (&[], 2),
        (&["serve"], 2),
        (&["--help"], 0),
        (&["serve", "--help"], 0),
        (&["--version"], 0),
        (&["version"], 0),
    ] {
        assert_eq!(run(arguments, &[]).code, code, "{arguments:?}");
    }
}

#[test]
fn flags_override_variables_and_variables_the_file() {
    let (_directory, path) = file(PLAIN);
    let path = path.to_str().unwrap();
    let check = ["check", "--offline", "--config", path];
    assert_eq!(run(&check, &[("PW", "x")]).code, 0);
    assert_eq!(
        run(
            &["check", "--offline"],
            &[("PW", "x"), ("PGSPLIT_CONFIG", path)]
        )
        .code,
        0
    );
    // Whoever is read is blamed.
    let wrong = [("PW", "x"), ("PGSPLIT_MAX_LAG", "soon")];
    let ended = run(&check, &wrong);
    assert_eq!(ended.code, 2);
    assert!(
        ended.err.starts_with("PGSPLIT_MAX_LAG: must be a duration"),
        "{}",
        ended.err
    );
    let flagged = [&check[..], &["--max-lag", "1s"]].concat();
    assert_eq!(run(&flagged, &wrong).code, 0);
    let ended = run(&check, &[]);
    assert!(
        ended
            .err
            .ends_with("the environment variable PW is not set\n"),
        "{}",
        ended.err
    );
}

#[test]
fn variables_alone_make_a_configuration() {
    let variables = [
        ("PGSPLIT_LISTEN", "127.0.0.1:7001,127.0.0.1:7002"),
        (
            "PGSPLIT_NODES",
            "postgres://app@10.0.0.1/app,postgres://10.0.0.2",
        ),
        ("PGSPLIT_PASSWORD", "secret"),
    ];
    assert_eq!(run(&["check", "--offline"], &variables).code, 0);
    let help = run(&["serve", "--help"], &variables).out;
    assert!(
        !help.contains("secret") && !help.contains("10.0.0.1"),
        "{help}"
    );
    let ended = run(&["check", "--offline"], &variables[..2]);
    assert_eq!(ended.code, 2);
    assert!(
        ended.err.contains("the user \"app\" has no password"),
        "{}",
        ended.err
    );
}

#[test]
fn status_and_explain_fail_with_1_when_no_proxy_answers() {
    let admin = format!("127.0.0.1:{}", free_port().unwrap());
    for command in [&["status"][..], &["explain", "select 1"]] {
        let ended = run(&[command, &["--admin", &admin]].concat(), &[]);
        assert_eq!(ended.code, 1, "{}", ended.err);
        assert!(ended.err.contains("no proxy answers"), "{}", ended.err);
    }
}

#[test]
fn check_tells_what_the_nodes_are_and_what_will_hurt() {
    let cluster = Cluster::start(&Options {
        replicas: 1,
        settings: vec![("max_standby_streaming_delay".into(), "-1".into())],
        ..Options::default()
    })
    .unwrap();
    let owner = "set role app; create unlogged table u (a int)";
    cluster.psql(cluster.primary(), owner).unwrap();
    cluster.wait_for_replay(1).unwrap();
    let ports: Vec<u16> = cluster.nodes().iter().map(|node| node.port).collect();
    let url =
        |n: usize, password: &str| format!("postgres://app{password}@127.0.0.1:{}/app", ports[n]);
    let (first, second) = (url(0, ":app"), url(1, ""));

    let ended = run(&["check", "--node", &first, "--node", &second], &[]);
    assert_eq!(ended.code, 0, "{}\n{}", ended.out, ended.err);
    for said in [
        "configuration: ok (command line)",
        &format!(
            "127.0.0.1:{} (127.0.0.1:{}): primary, PostgreSQL ",
            ports[0], ports[0]
        ),
        &format!(
            "127.0.0.1:{} (127.0.0.1:{}): replica, PostgreSQL ",
            ports[1], ports[1]
        ),
        "warning: max_standby_streaming_delay is -1",
        "note: 1 unlogged tables: reads of them go to the primary",
    ] {
        assert!(ended.out.contains(said), "{said}\n{}", ended.out);
    }
    assert!(!ended.out.contains("error:"), "{}", ended.out);

    let wrong = run(
        &["check", "--node", &url(0, ":wrong"), "--node", &second],
        &[],
    );
    assert_eq!(wrong.code, 1);
    assert!(wrong.out.contains("error: the monitor (app in app) can't connect: password authentication failed for user \"app\" (SQLSTATE 28P01)"), "{}", wrong.out);

    let port = free_port().unwrap();
    let nobody = format!("postgres://127.0.0.1:{port}");
    let ended = run(&["check", "--node", &first, "--node", &nobody], &[]);
    assert_eq!(ended.code, 1);
    assert!(
        ended.out.contains(&format!(
            "can't connect to 127.0.0.1:{port}: Connection refused"
        )),
        "{}",
        ended.out
    );
    assert!(
        ended
            .out
            .contains("warning: no node that answers is a replica"),
        "{}",
        ended.out
    );
}

#[test]
fn explain_asks_the_nodes_when_no_proxy_answers() {
    let cluster = Cluster::start(&Options {
        replicas: 1,
        ..Options::default()
    })
    .unwrap();
    let sql = "set role app; create table t (a int);
        create function noisy() returns int language sql volatile as 'select 1'";
    cluster.psql(cluster.primary(), sql).unwrap();
    let nodes = cluster.nodes();
    let url = format!(
        "postgres://app:app@127.0.0.1:{}/app?name=pg1",
        nodes[0].port
    );
    let other = format!("postgres://127.0.0.1:{}?name=pg2", nodes[1].port);
    let admin = format!("127.0.0.1:{}", free_port().unwrap());
    let explain = |sql: &str, others: &[&str]| {
        let nodes = ["--node", &url, "--node", &other, "--admin", &admin];
        run(&[&["explain", sql][..], &nodes, others].concat(), &[])
    };

    for (sql, expected) in [
        ("select * from t", ["read", "replica", "pg2", "read"]),
        (
            "select noisy() from t",
            ["read", "primary", "pg1", "function"],
        ),
        (
            "insert into t values (1)",
            ["write", "primary", "pg1", "write"],
        ),
        (
            "select * from t /* pgsplit: primary */",
            ["read", "primary", "pg1", "hint"],
        ),
    ] {
        let ended = explain(sql, &["--json"]);
        assert_eq!(ended.code, 0, "{}", ended.err);
        let told: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
        let said = ["class", "route", "node", "reason"].map(|key| told[key].as_str().unwrap());
        assert_eq!(said, expected, "{sql}");
        assert!(
            told["tables"].is_array() && told["functions"].is_array(),
            "{told}"
        );
        assert!(
            told["answered_by"]
                .as_str()
                .unwrap()
                .starts_with("the catalogue of pg1")
        );
    }
    let ended = explain("select noisy() from t", &[]);
    assert!(
        ended
            .out
            .contains("\nreason     function (noisy: marked VOLATILE)\ntables     t\n"),
        "{}",
        ended.out
    );
    assert!(
        ended.out.contains("answered by the catalogue of pg1"),
        "{}",
        ended.out
    );

    let ended = explain("select 1", &["--database", "nope"]);
    assert_eq!(ended.code, 1);
    assert!(
        ended.err.contains("there is no database \"nope\""),
        "{}",
        ended.err
    );
}
