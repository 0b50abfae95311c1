//! `pgsplit explain`: where a statement would go, and why.

use clap::Args;
use serde_json::{Value, json};

use super::{
    FAILED, USAGE, block_on,
    flags::ConfigArgs,
    http::{self, Request},
    output,
};

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
    let address = match args.config.admin() {
        Ok(address) => address,
        Err(problem) => {
            output::diagnostics(problem);
            return USAGE;
        }
    };
    let Some(address) = address else {
        output::diagnostics("no running proxy to ask");
        return USAGE;
    };
    block_on(async {
        let mut question = json!({ "sql": args.sql });
        if let (Some(database), Some(fields)) = (&args.database, question.as_object_mut()) {
            fields.insert("database".to_owned(), json!(database));
        }
        match http::ask(address, "/api/v1/explain", Request::Post(&question)).await {
            Ok(answer) => {
                print(
                    &answer,
                    args.json,
                    &format!("the running proxy at {address}"),
                );
                0
            }
            Err(failure) => {
                output::error(failure);
                FAILED
            }
        }
    })
}

fn print(answer: &Value, as_json: bool, by: &str) {
    if as_json {
        let mut answer = answer.clone();
        if let Some(fields) = answer.as_object_mut() {
            fields.insert("answered_by".to_owned(), json!(by));
        }
        output::json(&answer);
    } else {
        output::line(describe(answer, by));
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
    format!(
        "class      {}\nroute      {route}\nreason     {}\ntables     {}\nfunctions  {}\n\nanswered by {by}",
        word("class"),
        word("reason"),
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
