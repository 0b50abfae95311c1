//! `pgsplit explain`: where a statement would go, and why.

mod local;

use std::{net::SocketAddr, time::Duration};

use clap::Args;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    FAILED, USAGE, block_on,
    flags::ConfigArgs,
    http::{self, Failure, Request},
    output,
};
use crate::{config::Settings, sql::Why};

/// How long a proxy may take to load a catalogue before it is believed to have none.
const CATALOGUE: Duration = Duration::from_secs(5);

/// Time from one question to the next meanwhile.
const AGAIN: Duration = Duration::from_millis(100);

/// Say where a statement would go, and why
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The statement, or several
    #[arg(value_name = "SQL")]
    sql: String,

    /// The database, as clients name it; by default the first one
    #[arg(long, value_name = "NAME")]
    database: Option<String>,

    /// As JSON: class, route, reason, tables, functions
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn run(args: &ExplainArgs) -> u8 {
    // Without a configuration there is still the running proxy to ask.
    let settings = match args.config.given().then(|| args.config.load()).transpose() {
        Ok(loaded) => loaded.map(|loaded| loaded.settings),
        Err(problems) => {
            output::diagnostics(problems);
            return USAGE;
        }
    };
    let address = match &settings {
        Some(settings) => Ok(settings.admin.address),
        None => args.config.admin(),
    };
    let address = match address {
        Ok(address) => address,
        Err(problem) => {
            output::diagnostics(problem);
            return USAGE;
        }
    };
    block_on(async {
        match answer(args, settings.as_ref(), address).await {
            Ok((answer, by)) => {
                print(answer, args.json, &by);
                0
            }
            Err(reason) => {
                output::error(reason);
                FAILED
            }
        }
    })
}

/// What the running proxy says, else what the nodes say; and which of both.
async fn answer(
    args: &ExplainArgs,
    settings: Option<&Settings>,
    address: Option<SocketAddr>,
) -> Result<(Value, String), String> {
    let mut question = json!({ "sql": args.sql });
    if let (Some(database), Some(fields)) = (&args.database, question.as_object_mut()) {
        fields.insert("database".to_owned(), json!(database));
    }
    let failure = match address {
        None => "no running proxy to ask: its admin API is switched off".to_owned(),
        Some(address) => match ask(address, &question).await {
            Ok(answer) => return Ok((answer, format!("the running proxy at {address}"))),
            Err(refused @ Failure::Refused(_)) => return Err(refused.to_string()),
            Err(failure) => failure.to_string(),
        },
    };
    match settings {
        Some(settings) => local::explain(settings, args.database.as_deref(), &args.sql).await,
        None => Err(format!(
            "{failure}; give --config or --node to ask the nodes instead"
        )),
    }
}

/// Asks the proxy. The first question about a database makes it load the catalogue, which is there a
/// moment later.
async fn ask(address: SocketAddr, question: &Value) -> Result<Value, Failure> {
    let patience = Instant::now() + CATALOGUE;
    loop {
        let answer = http::ask(address, "/api/v1/explain", Request::Post(question)).await?;
        let loading = answer.get("reason").and_then(Value::as_str) == Some(Why::NoCatalogue.name());
        if !loading || Instant::now() >= patience {
            return Ok(answer);
        }
        sleep(AGAIN).await;
    }
}

fn print(mut answer: Value, as_json: bool, by: &str) {
    if as_json {
        if let Some(fields) = answer.as_object_mut() {
            fields.insert("answered_by".to_owned(), json!(by));
        }
        output::json(&answer);
    } else {
        output::line(describe(&answer, by));
    }
}

/// One line for each thing that is known.
fn describe(answer: &Value, by: &str) -> String {
    let list = |key| {
        let items = answer
            .get(key)
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let names: Vec<&str> = items.filter_map(Value::as_str).collect();
        if names.is_empty() {
            "-".to_owned()
        } else {
            names.join(", ")
        }
    };
    let word = |key| {
        answer
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or("-")
            .to_owned()
    };
    let route = match answer.get("node").and_then(Value::as_str) {
        Some(node) => format!("{} ({node})", word("route")),
        None => word("route"),
    };
    let reason = match answer.get("detail").and_then(Value::as_str) {
        Some(detail) => format!("{} ({detail})", word("reason")),
        None => word("reason"),
    };
    format!(
        "class      {}\nroute      {route}\nreason     {reason}\ntables     {}\nfunctions  {}\n\nanswered by {by}",
        word("class"),
        list("tables"),
        list("functions"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_shown_with_who_gave_it() {
        let answer = json!({"class": "read", "route": "replica", "node": "pg2", "reason": "read", "tables": ["t", "public.u"], "functions": []});
        assert_eq!(
            describe(&answer, "the running proxy at 127.0.0.1:9432"),
            "class      read\nroute      replica (pg2)\nreason     read\ntables     t, public.u\nfunctions  -\n\nanswered by the running proxy at 127.0.0.1:9432"
        );
    }
}
