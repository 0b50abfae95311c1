//! `pgsplit status`: what the running proxy says of its nodes and pools.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use clap::Args;
use serde_json::Value;

use super::{
    FAILED, USAGE, block_on,
    flags::AskArgs,
    http::{self, Request},
    output,
};

/// Time from one look to the next with `--watch`.
const EVERY: Duration = Duration::from_secs(1);

/// Show nodes, roles, lag and pools of the running proxy
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    ask: AskArgs,

    /// Look again every second until Ctrl-C
    #[arg(long)]
    watch: bool,

    /// The admin API's JSON as it is
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StatusArgs) -> u8 {
    let address = match args.ask.address() {
        Ok(address) => address,
        Err(problem) => {
            output::diagnostics(problem);
            return USAGE;
        }
    };
    block_on(async {
        if !args.watch {
            return look(address, args).await;
        }
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            // A proxy that is away now may be back at the next look.
            let code = look(address, args).await;
            if !output::is_read() {
                return code;
            }
        }
    })
}

async fn look(address: SocketAddr, args: &StatusArgs) -> u8 {
    let answer = http::ask(address, "/api/v1/status", Request::Get).await;
    if args.watch && !args.json {
        output::clear();
    }
    match answer {
        Ok(status) if args.json => output::json(&status),
        Ok(status) => output::line(describe(&status)),
        Err(failure) => {
            output::error(failure);
            return FAILED;
        }
    }
    0
}

/// The whole as text.
fn describe(status: &Value) -> String {
    let mut text = format!("pgsplit {}: ", cell(status, "version"));
    let ready = status.get("ready").and_then(Value::as_bool) == Some(true);
    let writable = status.get("writable").and_then(Value::as_bool) == Some(true);
    // Writing to a string can't fail.
    let _written = match status.get("problem").and_then(Value::as_str) {
        Some(problem) => write!(text, "not ready, {problem}"),
        None if !ready => write!(text, "not ready"),
        None if !writable => write!(text, "ready for reads only"),
        None => write!(text, "ready"),
    };
    let _written = writeln!(
        text,
        "; {} clients, {} held requests\n",
        cell(status, "clients"),
        cell(status, "held_requests")
    );
    let nodes: Vec<Vec<String>> = rows(status, "nodes")
        .map(|node| {
            vec![
                cell(node, "name"),
                format!("{}:{}", cell(node, "host"), cell(node, "port")),
                cell(node, "role"),
                cell(node, "health"),
                node.get("lag_seconds")
                    .and_then(Value::as_f64)
                    .map_or_else(dash, seconds),
                node.get("lag_bytes")
                    .and_then(Value::as_u64)
                    .map_or_else(dash, bytes),
                cell(node, "timeline"),
                cell(node, "in_flight"),
                format!("{}+{}", cell(node, "sv_active"), cell(node, "sv_idle")),
                cell(node, "error"),
            ]
        })
        .collect();
    let headers = [
        "NODE",
        "ADDRESS",
        "ROLE",
        "HEALTH",
        "LAG",
        "BEHIND",
        "TIMELINE",
        "REQUESTS",
        "BUSY+IDLE",
        "LAST ERROR",
    ];
    text.push_str(&output::table(&headers, &nodes));
    let pools: Vec<Vec<String>> = rows(status, "pools")
        .map(|pool| {
            let micros = |key| pool.get(key).and_then(Value::as_f64).unwrap_or(0.0);
            vec![
                cell(pool, "database"),
                cell(pool, "user"),
                cell(pool, "node"),
                cell(pool, "pool_mode"),
                format!("{}+{}", cell(pool, "sv_active"), cell(pool, "sv_idle")),
                cell(pool, "max_size"),
                cell(pool, "cl_active"),
                cell(pool, "cl_waiting"),
                seconds(micros("maxwait") + micros("maxwait_us") / 1e6),
            ]
        })
        .collect();
    if !pools.is_empty() {
        let headers = [
            "DATABASE",
            "USER",
            "NODE",
            "MODE",
            "BUSY+IDLE",
            "MAX",
            "CLIENTS",
            "WAITING",
            "LONGEST WAIT",
        ];
        text.push_str("\n\n");
        text.push_str(&output::table(&headers, &pools));
    }
    text
}

fn rows<'a>(status: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    status
        .get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// A field as it is shown.
fn cell(row: &Value, key: &str) -> String {
    match row.get(key) {
        None | Some(Value::Null) => dash(),
        Some(Value::String(text)) if text.is_empty() => dash(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn dash() -> String {
    "-".to_owned()
}

fn seconds(seconds: f64) -> String {
    if seconds <= 0.0 {
        "0".to_owned()
    } else if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1e3)
    } else {
        format!("{seconds:.1} s")
    }
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..0x10_0000 => format!("{} KiB", bytes >> 10),
        0x10_0000..0x4000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nodes_and_pools_are_shown_with_what_is_not_known_as_a_dash() {
        let status = json!({
            "version": "0.1.0", "ready": true, "problem": null, "writable": true,
            "clients": 3, "held_requests": 0,
            "nodes": [
                {"name": "pg1", "host": "h", "port": 5432, "role": "primary", "health": "up", "lag_seconds": 0.0,
                 "lag_bytes": 0, "timeline": 1, "in_flight": 2, "sv_active": 1, "sv_idle": 4, "error": null},
                {"name": "pg2", "host": "i", "port": 5432, "role": "replica", "health": "down", "lag_seconds": 1.25,
                 "lag_bytes": 3_145_728, "timeline": null, "in_flight": 0, "sv_active": 0, "sv_idle": 0, "error": "refused"},
            ],
            "pools": [
                {"database": "app", "user": "app", "node": "pg1", "pool_mode": "transaction", "sv_active": 1,
                 "sv_idle": 4, "max_size": 20, "cl_active": 1, "cl_waiting": 0, "maxwait": 0, "maxwait_us": 2500},
            ],
        });
        assert_eq!(
            describe(&status),
            "pgsplit 0.1.0: ready; 3 clients, 0 held requests\n\n\
             NODE  ADDRESS  ROLE     HEALTH  LAG    BEHIND  TIMELINE  REQUESTS  BUSY+IDLE  LAST ERROR\n\
             pg1   h:5432   primary  up      0      0 B     1         2         1+4        -\n\
             pg2   i:5432   replica  down    1.2 s  3 MiB   -         0         0+0        refused\n\n\
             DATABASE  USER  NODE  MODE         BUSY+IDLE  MAX  CLIENTS  WAITING  LONGEST WAIT\n\
             app       app   pg1   transaction  1+4        20   1        0        2 ms"
        );
    }

    #[test]
    fn an_answer_of_any_shape_is_shown() {
        for status in [
            json!(null),
            json!([1]),
            json!({"nodes": [1, null], "pools": "x"}),
        ] {
            assert!(describe(&status).starts_with("pgsplit -: not ready"));
        }
    }
}
