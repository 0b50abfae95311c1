//! The console's tables as JSON: the API's objects have the columns' names and types.

use serde_json::{Map, Value, json};

use super::console::{Console, Show, Table, Type};

/// The newest events that are part of the status.
const EVENTS: usize = 20;

/// An array of objects.
pub(super) fn table(table: &Table) -> Value {
    let rows = table.rows.iter().map(|row| {
        let fields = table.columns.iter().zip(row).map(|(column, cell)| {
            let value = match cell {
                Some(text) => value(column.1, text),
                None => Value::Null,
            };
            (column.0.to_owned(), value)
        });
        Value::Object(fields.collect())
    });
    Value::Array(rows.collect())
}

fn value(kind: Type, text: &str) -> Value {
    match kind {
        Type::Text => json!(text),
        Type::Bool => json!(text == "t"),
        Type::Float8 => json!(text.parse::<f64>().ok()),
        Type::Int4 | Type::Int8 | Type::Numeric => match text.parse::<u64>() {
            Ok(number) => json!(number),
            Err(_signed) => json!(text.parse::<i64>().ok()),
        },
    }
}

/// All that a look at the whole needs, in one answer.
pub(super) fn status(console: &Console) -> Value {
    let mut events = console.table(Show::Events, false);
    let old = events.rows.len().saturating_sub(EVENTS);
    events.rows.drain(..old);
    let ready = console.ready();
    let (clients, held, primary_reads) = console.counts();
    let reads: Map<_, _> = primary_reads
        .into_iter()
        .map(|(reason, count)| (reason.to_owned(), json!(count)))
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "ready": ready.is_ready(),
        "problem": ready.problem(),
        "writable": ready.writable,
        "readable": ready.readable,
        "clients": clients,
        "held_requests": held,
        "primary_reads": reads,
        "nodes": table(&console.table(Show::Nodes, false)),
        "pools": table(&console.table(Show::Pools, false)),
        "stats": table(&console.table(Show::Stats, false)),
        "events": table(&events),
    })
}
