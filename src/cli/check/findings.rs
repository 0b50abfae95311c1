//! What follows from what the nodes said. Pure.

use std::time::Duration;

use super::probe::{Account, Facts, Report};
use crate::config::{Host, Node, NodeRole, Settings};

/// How much it matters, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// Good to know.
    Note,
    /// Will hurt some day.
    Warning,
    /// Doesn't work.
    Error,
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    pub(super) text: String,
}

impl Finding {
    pub(super) fn new(severity: Severity, text: impl Into<String>) -> Self {
        Self {
            severity,
            text: text.into(),
        }
    }
}

fn error(text: impl Into<String>) -> Finding {
    Finding::new(Severity::Error, text)
}

fn warning(text: impl Into<String>) -> Finding {
    Finding::new(Severity::Warning, text)
}

fn note(text: impl Into<String>) -> Finding {
    Finding::new(Severity::Note, text)
}

/// Oldest version with all functions that the monitor asks (`pg_current_wal_insert_lsn`, …).
const OLDEST: u32 = 100_000;

/// What is to be said of one node.
pub(super) fn of_node(settings: &Settings, node: &Node, report: &Report) -> Vec<Finding> {
    let facts = match report {
        Ok(facts) => facts,
        Err(reason) => return vec![error(reason.clone())],
    };
    let mut found = Vec::new();
    if facts.version < OLDEST {
        found.push(error("this version is too old: PostgreSQL 10 at least"));
    }
    match (node.role, facts.in_recovery) {
        (NodeRole::Primary, true) => {
            found.push(warning(
                "configured as primary, but is a replica: not used as long as it is one",
            ));
        }
        (NodeRole::Replica, false) => {
            found.push(warning(
                "configured as replica, but is a primary: not used as long as it is one",
            ));
        }
        _ => {}
    }
    for question in &facts.refused {
        found.push(warning(format!("doesn't answer {question}")));
    }
    if facts.in_recovery {
        replica(settings, facts, &mut found);
    } else {
        primary(facts, &mut found);
    }
    connections(settings, facts, &mut found);
    logins(settings, facts, &mut found);
    if let Some(problem) = &facts.auth {
        found.push(error(format!(
            "query in [auth] fails, run as {} in {}: {problem}",
            settings.auth.user, settings.auth.database
        )));
    }
    let remote = match &node.host {
        Host::Unix(_) => false,
        Host::Tcp(host) => !host
            .parse()
            .map_or(host == "localhost", |ip: std::net::IpAddr| ip.is_loopback()),
    };
    if remote && !facts.encrypted {
        found.push(note(
            "the connection isn't encrypted (sslmode in [node.tls])",
        ));
    }
    if facts.setting("standard_conforming_strings") == "off" {
        found.push(note("standard_conforming_strings is off: statements with backslashes in strings are harder to read, more of them go to the primary"));
    }
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    found
}

fn replica(settings: &Settings, facts: &Facts, found: &mut Vec<Finding>) {
    let max_lag = settings.routing.max_lag;
    if facts.lsn.is_none() {
        found.push(warning("gives no replay LSN as PostgreSQL does: after its writes, a session's reads go to the primary for a time"));
    }
    if facts.replay.is_some_and(|replay| replay.paused) {
        found.push(warning(
            "replay is paused (pg_wal_replay_resume() lets it go on)",
        ));
    }
    if facts.replay.is_some_and(|replay| !replay.streaming) {
        found.push(warning(
            "no WAL receiver runs: it replays archives at best, and lags by as much",
        ));
    }
    if let Some(delay) = milliseconds(facts, "recovery_min_apply_delay")
        && !delay.is_zero()
    {
        let consequence = if delay >= max_lag {
            "beyond routing.max_lag, so that it serves no reads"
        } else {
            "reads of what was just written go to the primary"
        };
        found.push(warning(format!(
            "recovery_min_apply_delay is {delay:?}: it always lags so much, {consequence}"
        )));
    }
    match facts.number("max_standby_streaming_delay") {
        Some(-1) => found.push(warning(
            "max_standby_streaming_delay is -1: one long read stops replay for as long as it runs, and the lag grows without bound",
        )),
        Some(0) => found.push(note(
            "max_standby_streaming_delay is 0: reads that conflict with replay are cancelled at once, and run again on the primary",
        )),
        Some(_) if milliseconds(facts, "max_standby_streaming_delay") > Some(max_lag) => found.push(note(format!(
            "max_standby_streaming_delay ({:?}) is longer than routing.max_lag ({max_lag:?}): one long read can hold replay up for so long that this replica gets no more reads",
            milliseconds(facts, "max_standby_streaming_delay").unwrap_or_default(),
        ))),
        _ => {}
    }
    if facts.setting("hot_standby_feedback") == "off" {
        found.push(note("hot_standby_feedback is off: VACUUM on the primary can cancel long reads here; they run again on the primary"));
    }
}

fn primary(facts: &Facts, found: &mut Vec<Finding>) {
    if facts.setting("wal_level") == "minimal" {
        found.push(warning("wal_level is minimal: no replica can follow"));
    }
    for name in ["fsync", "full_page_writes"] {
        if facts.setting(name) == "off" {
            found.push(warning(format!(
                "{name} is off: a crash can destroy the data"
            )));
        }
    }
    if facts.setting("default_transaction_read_only") == "on" {
        found.push(warning(
            "default_transaction_read_only is on: writes fail unless the session says otherwise",
        ));
    }
    match facts.setting("synchronous_commit") {
        "off" => found.push(warning("synchronous_commit is off: a crash loses acknowledged writes")),
        "remote_apply" => found.push(note("synchronous_commit is remote_apply: every COMMIT waits for replicas to replay; pgsplit's consistency doesn't need it")),
        _ if facts.setting("synchronous_standby_names").is_empty() => found.push(note(
            "synchronous_standby_names is empty: a failover can lose the last acknowledged writes",
        )),
        _ => {}
    }
    if facts.unlogged > 0 {
        found.push(note(format!(
            "{} unlogged tables: reads of them go to the primary",
            facts.unlogged
        )));
    }
}

/// What the pools may open against what the node allows.
fn connections(settings: &Settings, facts: &Facts, found: &mut Vec<Finding>) {
    let limit = facts.number("max_connections").unwrap_or(i64::MAX)
        - facts.number("superuser_reserved_connections").unwrap_or(0)
        - facts.number("reserved_connections").unwrap_or(0);
    let limit = usize::try_from(limit).unwrap_or(0);
    let per_user: usize = settings
        .databases
        .iter()
        .map(|database| database.pool.max_size)
        .sum();
    // The monitor has one of its own.
    let wanted = (per_user * settings.users.len()).saturating_add(1);
    if wanted > limit {
        found.push(warning(format!(
            "the pools may open {wanted} connections here ({} users, {} databases); the node allows {limit} (max_connections less those reserved)",
            settings.users.len(),
            settings.databases.len(),
        )));
    }
    if let Some(timeout) = milliseconds(facts, "idle_session_timeout")
        && !timeout.is_zero()
        && timeout < settings.pool.idle_timeout
    {
        found.push(warning(format!(
            "idle_session_timeout ({timeout:?}) closes pooled connections before pool.idle_timeout ({:?}) does",
            settings.pool.idle_timeout
        )));
    }
}

fn logins(settings: &Settings, facts: &Facts, found: &mut Vec<Finding>) {
    for login in &facts.logins {
        let who = format!("{} in {}", login.user, login.database);
        let account = match &login.result {
            Ok(account) => account,
            Err(reason) => {
                found.push(error(format!("{who} can't connect: {reason}")));
                continue;
            }
        };
        let pool = settings
            .databases
            .iter()
            .find(|database| database.dbname.as_ref().unwrap_or(&database.name) == &login.database)
            .map_or(settings.pool.max_size, |database| database.pool.max_size);
        limits(&who, account, pool, found);
        if account.read_only && !facts.in_recovery {
            found.push(warning(format!("{who} begins with default_transaction_read_only = on: its writes fail unless the session says otherwise")));
        }
    }
    if facts.logins_left_out > 0 {
        found.push(note(format!(
            "{} more logins of users to databases were not tried",
            facts.logins_left_out
        )));
    }
}

fn limits(who: &str, account: &Account, pool: usize, found: &mut Vec<Finding>) {
    for (what, limit) in [
        ("role", account.role_limit),
        ("database", account.database_limit),
    ] {
        if let Some(limit) = limit
            && pool as u64 > limit
        {
            found.push(warning(format!(
                "{who}: the {what} allows {limit} connections, the pool may open {pool}"
            )));
        }
    }
}

/// What is to be said of all nodes together.
pub(super) fn of_cluster(settings: &Settings, reports: &[Report]) -> Vec<Finding> {
    let known: Vec<(&Node, &Facts)> = settings
        .nodes
        .iter()
        .zip(reports)
        .filter_map(|(node, report)| Some((node, report.as_ref().ok()?)))
        .collect();
    let names = |in_recovery| {
        let nodes = known
            .iter()
            .filter(|(_, facts)| facts.in_recovery == in_recovery);
        nodes
            .map(|(node, _)| node.name.to_string())
            .collect::<Vec<_>>()
    };
    let mut found = Vec::new();
    let primaries = names(false);
    match primaries.as_slice() {
        [] => found.push(error(
            "no node that answers is a primary: writes can't go anywhere",
        )),
        [_] => {}
        several => found.push(error(format!("several primaries: {}", several.join(", ")))),
    }
    if names(true).is_empty() && !known.is_empty() {
        found.push(warning(
            "no node that answers is a replica: all reads go to the primary",
        ));
    }
    let mut systems: Vec<(&str, String)> = Vec::new();
    for (node, facts) in &known {
        if let Some(system) = &facts.system_identifier
            && !systems.iter().any(|(known, _)| known == system)
        {
            systems.push((system, node.name.to_string()));
        }
    }
    if systems.len() > 1 {
        let nodes: Vec<String> = systems
            .iter()
            .map(|(system, node)| format!("{node} ({system})"))
            .collect();
        found.push(error(format!(
            "the nodes are not copies of one another: their system identifiers differ: {}",
            nodes.join(", ")
        )));
    }
    let versions: std::collections::BTreeSet<u32> = known
        .iter()
        .map(|(_, facts)| facts.version / 10_000)
        .collect();
    if versions.len() > 1 {
        found.push(error(
            "the nodes have different major versions: streaming replication needs the same",
        ));
    }
    let primary = known
        .iter()
        .filter(|(_, facts)| !facts.in_recovery)
        .filter_map(|(_, facts)| facts.lsn)
        .max();
    for (node, facts) in &known {
        let product = facts.product.to_ascii_lowercase();
        let family = ["aurora", "neon", "alloydb"]
            .into_iter()
            .find(|name| product.contains(name));
        if let Some(family) = family {
            found.push(warning(format!("{} is {family}: its positions may not be comparable with the primary's, and then a session's reads go to the primary for a time after its writes", node.name)));
        }
        if let (true, Some(lsn), Some(primary)) = (facts.in_recovery, facts.lsn, primary) {
            let behind = primary.bytes_since(lsn);
            if behind > settings.routing.max_lag_bytes {
                found.push(warning(format!("{} is {behind} bytes behind, beyond routing.max_lag_bytes: it would serve no reads", node.name)));
            }
        }
    }
    found
}

/// A setting in milliseconds; `None` when negative or not given.
fn milliseconds(facts: &Facts, name: &str) -> Option<Duration> {
    facts
        .number(name)
        .and_then(|ms| u64::try_from(ms).ok())
        .map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::{
        super::probe::{Login, Replay},
        *,
    };
    use crate::config::{Sources, load};

    fn settings() -> Settings {
        let sources = Sources {
            nodes: vec![
                "postgres://app:x@127.0.0.1:1/app".into(),
                "postgres://127.0.0.1:2".into(),
            ],
            ..Sources::default()
        };
        load(&sources, &|_| None).unwrap().settings
    }

    fn facts(in_recovery: bool, set: &[(&str, &str)]) -> Facts {
        let usual = [
            ("server_version", "15.4"),
            ("max_connections", "100"),
            ("superuser_reserved_connections", "3"),
            ("hot_standby_feedback", "on"),
            ("max_standby_streaming_delay", "5000"),
            ("synchronous_commit", "on"),
            ("synchronous_standby_names", "*"),
            ("wal_level", "replica"),
        ];
        Facts {
            in_recovery,
            version: 150_004,
            product: "PostgreSQL 15.4".into(),
            lsn: Some("0/3000000".parse().unwrap()),
            system_identifier: Some("1".into()),
            replay: in_recovery.then_some(Replay {
                paused: false,
                streaming: true,
            }),
            settings: usual
                .iter()
                .chain(set)
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..Facts::default()
        }
    }

    fn texts(facts: Facts) -> Vec<String> {
        let settings = settings();
        let findings = of_node(&settings, &settings.nodes[0], &Ok(facts));
        findings
            .into_iter()
            .map(|finding| format!("{}", finding))
            .collect()
    }

    #[test]
    fn a_usual_cluster_has_nothing_to_say() {
        assert_eq!(texts(facts(true, &[])), Vec::<String>::new());
        assert_eq!(texts(facts(false, &[])), Vec::<String>::new());
        let reports = [Ok(facts(false, &[])), Ok(facts(true, &[]))];
        assert_eq!(of_cluster(&settings(), &reports), []);
    }

    #[test]
    fn an_auth_query_that_fails_is_an_error() {
        let facts = Facts {
            auth: Some("permission denied for view pg_shadow".to_owned()),
            ..facts(false, &[])
        };
        let texts = texts(facts);
        assert!(
            texts[0].contains("error: query in [auth] fails"),
            "{texts:?}"
        );
    }

    #[test]
    fn each_setting_that_will_hurt_is_named() {
        for (in_recovery, name, value, said) in [
            (
                true,
                "max_standby_streaming_delay",
                "-1",
                "warning: max_standby_streaming_delay is -1",
            ),
            (
                true,
                "max_standby_streaming_delay",
                "0",
                "note: max_standby_streaming_delay is 0",
            ),
            (
                true,
                "max_standby_streaming_delay",
                "30000",
                "note: max_standby_streaming_delay (30s) is longer than routing.max_lag (10s)",
            ),
            (
                true,
                "hot_standby_feedback",
                "off",
                "note: hot_standby_feedback is off",
            ),
            (
                true,
                "recovery_min_apply_delay",
                "60000",
                "warning: recovery_min_apply_delay is 60s: it always lags so much, beyond routing.max_lag",
            ),
            (
                false,
                "wal_level",
                "minimal",
                "warning: wal_level is minimal",
            ),
            (
                false,
                "synchronous_commit",
                "off",
                "warning: synchronous_commit is off",
            ),
            (
                false,
                "synchronous_commit",
                "remote_apply",
                "note: synchronous_commit is remote_apply",
            ),
            (
                false,
                "synchronous_standby_names",
                "",
                "note: synchronous_standby_names is empty",
            ),
            (false, "fsync", "off", "warning: fsync is off"),
            (
                false,
                "default_transaction_read_only",
                "on",
                "warning: default_transaction_read_only is on",
            ),
            (
                false,
                "max_connections",
                "20",
                "warning: the pools may open 21 connections here (1 users, 1 databases); the node allows 17",
            ),
            (
                false,
                "idle_session_timeout",
                "60000",
                "warning: idle_session_timeout (60s) closes pooled connections",
            ),
            (
                false,
                "standard_conforming_strings",
                "off",
                "note: standard_conforming_strings is off",
            ),
        ] {
            let texts = texts(facts(in_recovery, &[(name, value)]));
            assert_eq!(texts.len(), 1, "{texts:?}");
            assert!(texts[0].trim_start().starts_with(said), "{texts:?}");
        }
    }

    #[test]
    fn logins_that_fail_are_errors_and_come_first() {
        let mut facts = facts(false, &[("synchronous_commit", "remote_apply")]);
        facts.logins.push(Login {
            user: "app".into(),
            database: "app".into(),
            result: Err("password authentication failed".into()),
        });
        facts.logins.push(Login {
            user: "app".into(),
            database: "app".into(),
            result: Ok(Account {
                role_limit: Some(5),
                ..Account::default()
            }),
        });
        let texts = texts(facts);
        assert_eq!(
            texts[0],
            "  error: app in app can't connect: password authentication failed"
        );
        assert_eq!(
            texts[1],
            "  warning: app in app: the role allows 5 connections, the pool may open 20"
        );
        assert_eq!(texts.len(), 3);
    }

    #[test]
    fn nodes_that_do_not_belong_together_are_errors() {
        let said = |first: Report, second: Report| {
            let found = of_cluster(&settings(), &[first, second]);
            found
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n")
        };
        let stranger = Facts {
            system_identifier: Some("2".into()),
            version: 160_000,
            ..facts(true, &[])
        };
        let text = said(Ok(facts(false, &[])), Ok(stranger));
        assert!(
            text.contains("their system identifiers differ: 127.0.0.1:1 (1), 127.0.0.1:2 (2)"),
            "{text}"
        );
        assert!(text.contains("different major versions"), "{text}");
        let text = said(Ok(facts(false, &[])), Ok(facts(false, &[])));
        assert!(
            text.contains("several primaries: 127.0.0.1:1, 127.0.0.1:2"),
            "{text}"
        );
        let text = said(Err("refused".into()), Ok(facts(true, &[])));
        assert!(text.contains("no node that answers is a primary"), "{text}");
    }
}
