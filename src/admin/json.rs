//! The console's tables as JSON: the API's objects have the columns' names, types and order.

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{
    lookout::Lookout,
    tables::{Column, Show, Table, Type},
};

/// The newest events that are part of the status.
const EVENTS: usize = 20;

impl Serialize for Table {
    /// An array of objects, written as it is read: thousands of rows are no tree in memory.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rows = self.rows.iter().map(|row| Row(&self.columns, row));
        serializer.collect_seq(rows)
    }
}

struct Row<'a>(&'a [Column], &'a [Option<String>]);

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(self.0.len()))?;
        for (Column(name, kind), cell) in self.0.iter().zip(self.1) {
            object.serialize_key(name)?;
            let text = cell.as_deref();
            match kind {
                Type::Text => object.serialize_value(&text)?,
                Type::Bool => object.serialize_value(&text.map(|text| text == "t"))?,
                Type::Float8 => object.serialize_value(&number::<f64>(text))?,
                // The process id of a backend may be negative; counters fill all 64 bits.
                Type::Int4 | Type::Int8 => object.serialize_value(&number::<i64>(text))?,
                Type::Numeric => object.serialize_value(&number::<u64>(text))?,
            }
        }
        object.end()
    }
}

fn number<N: std::str::FromStr>(text: Option<&str>) -> Option<N> {
    text?.parse().ok()
}

/// All that a look at the whole needs, in one answer.
#[derive(Serialize)]
pub(super) struct Status {
    version: &'static str,
    ready: bool,
    problem: Option<&'static str>,
    writable: bool,
    readable: bool,
    clients: u64,
    held_requests: u64,
    primary_reads: Counts,
    nodes: Table,
    pools: Table,
    stats: Table,
    events: Table,
}

struct Counts(Vec<(&'static str, u64)>);

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

impl Status {
    pub(super) fn of(lookout: &Lookout) -> Self {
        let mut events = lookout.table(Show::Events, false);
        let old = events.rows.len().saturating_sub(EVENTS);
        events.rows.drain(..old);
        let ready = lookout.inspect.ready();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            ready: ready.is_ready(),
            problem: ready.problem(),
            writable: ready.writable,
            readable: ready.readable,
            clients: lookout.metrics.clients(),
            held_requests: lookout.metrics.held(),
            primary_reads: Counts(lookout.metrics.primary_reads()),
            nodes: lookout.table(Show::Nodes, false),
            pools: lookout.table(Show::Pools, false),
            stats: lookout.table(Show::Stats, false),
            events,
        }
    }
}
