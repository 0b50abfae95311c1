//! The console: what `psql pgsplit` talks to.
//!
//! [`Console::answer`] turns a text into replies; [`serve`] speaks the protocol around it. The
//! console holds nothing but samples for averages; all else comes from [`Inspect`] and
//! [`Metrics`]. Who may open it is decided at login; whoever is in may do everything.

mod averages;
mod operators;
mod parse;
mod serve;
mod tables;
mod wire;

use std::{borrow::Cow, fmt, sync::Arc};

pub(in crate::admin) use self::{
    averages::Averages,
    parse::Show,
    tables::{Column, Sources, Table, Type, table},
};
use self::{
    operators::Operators,
    parse::{Block, Command, Value},
};
use super::{process, time};
use crate::{
    error::{Fault, Visible},
    metrics::{
        Inspect, Metrics, Scrape,
        inspect::{Explanation, Readiness},
    },
    protocol::SqlState,
};

/// The text of SHOW VERSION.
const VERSION: &str = concat!("pgsplit ", env!("CARGO_PKG_VERSION"));

/// Answers console commands for one proxy.
pub struct Console {
    inspect: Arc<dyn Inspect>,
    metrics: Arc<Metrics>,
    averages: Averages,
    operators: Operators,
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").finish_non_exhaustive()
    }
}

/// Who asks, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub user: String,
    /// `pgsplit` or `pgbouncer`.
    pub database: String,
}

/// One command's answer.
#[derive(Clone, Debug)]
enum Reply {
    Rows {
        table: Table,
        tag: String,
    },
    Done {
        tag: &'static str,
        notice: Option<String>,
        block: Block,
    },
}

impl Console {
    /// A console that looks at and drives what `inspect` stands for.
    #[must_use]
    pub fn new(inspect: Arc<dyn Inspect>, metrics: Arc<Metrics>) -> Self {
        Self {
            inspect,
            metrics,
            averages: Averages::default(),
            operators: Operators::default(),
        }
    }

    /// Remembers the totals of this moment; call it every [`Averages::EVERY`].
    pub(super) fn sample(&self) {
        let now = tokio::time::Instant::now().into_std();
        self.averages.sample(now, self.inspect.stats());
    }

    /// Whether the proxy can do its work.
    pub(super) fn ready(&self) -> Readiness {
        self.inspect.ready()
    }

    /// Clients, held requests, reads on the primary by reason.
    pub(super) fn counts(&self) -> (u64, u64, Vec<(&'static str, u64)>) {
        let metrics = &self.metrics;
        (metrics.clients(), metrics.held(), metrics.primary_reads())
    }

    /// All metric families as text.
    pub(super) fn metrics_text(&self) -> Result<String, prometheus::Error> {
        self.metrics.text(&Scrape {
            nodes: self.inspect.nodes(),
            pools: self.inspect.pools(),
            process: process::read(),
        })
    }

    /// The table as it is now.
    pub(super) fn table(&self, show: Show, pgbouncer: bool) -> Table {
        table(
            show,
            &Sources {
                inspect: &*self.inspect,
                metrics: &self.metrics,
                averages: &self.averages,
                operators: &self.operators,
                now: tokio::time::Instant::now().into_std(),
                wall: time::wall(),
                pgbouncer,
            },
        )
    }

    /// Explains for the named database, or for the first configured one that has a name.
    pub(super) fn explain(
        &self,
        database: Option<&str>,
        sql: &str,
    ) -> Result<Explanation, Visible> {
        let databases = self.inspect.databases();
        let database = match database {
            Some(name) => name,
            None => databases
                .iter()
                .map(|database| database.name.as_str())
                .find(|name| *name != "*")
                .ok_or_else(|| {
                    let error = "no database has a name of its own: say for which to explain";
                    Visible::error(Fault::Client, SqlState::INVALID_CATALOG_NAME, error)
                        .hint("EXPLAIN ROUTE FOR database statement")
                })?,
        };
        self.inspect.explain(database, sql)
    }

    /// Runs one command. Dropping the future leaves an action that was begun to go on.
    async fn run(&self, caller: &Caller, command: &Command) -> Result<Reply, Visible> {
        match command {
            Command::Show(show) => Ok(Reply::Rows {
                table: self.table(*show, caller.database == "pgbouncer"),
                tag: "SHOW".to_owned(),
            }),
            Command::Value(value) => {
                let (value, tag) = match value {
                    Value::Fixed { value, .. } => ((*value).to_owned(), "SHOW"),
                    Value::One => ("1".to_owned(), "SELECT 1"),
                    Value::Version => (format!("PostgreSQL {}", parse::SERVER_VERSION), "SELECT 1"),
                    Value::NotInRecovery => ("f".to_owned(), "SELECT 1"),
                    Value::CurrentDatabase => (caller.database.clone(), "SELECT 1"),
                    Value::CurrentUser => (caller.user.clone(), "SELECT 1"),
                };
                Ok(Reply::Rows {
                    table: Table {
                        columns: columns_of(command).unwrap_or_default(),
                        rows: vec![vec![Some(value)]],
                    },
                    tag: tag.to_owned(),
                })
            }
            Command::ExplainRoute { database, sql } => {
                let answer = self.explain(database.as_deref(), sql)?;
                Ok(Reply::Rows {
                    table: Table {
                        columns: columns_of(command).unwrap_or_default(),
                        rows: vec![vec![
                            Some(answer.class),
                            Some(answer.route),
                            answer.node,
                            Some(answer.reason),
                            Some(answer.tables.join(", ")),
                            Some(answer.functions.join(", ")),
                        ]],
                    },
                    tag: "EXPLAIN".to_owned(),
                })
            }
            Command::Act { action, tag } => {
                let user = &caller.user;
                tracing::info!(user, ?action, "console command");
                self.operators
                    .push(time::wall(), format!("{user}: {action}"));
                let done = self.inspect.act(action.clone()).await;
                if let Err(error) = &done {
                    tracing::warn!(user, ?action, %error, "console command failed");
                    let message = format!("{user}: {action} failed: {error}");
                    self.operators.push(time::wall(), message);
                }
                Ok(Reply::Done {
                    tag,
                    notice: done?,
                    block: Block::Keep,
                })
            }
            Command::Ignored { tag, block } => Ok(Reply::Done {
                tag,
                notice: None,
                block: *block,
            }),
        }
    }
}

/// The columns of the rows that the command gives; `None` when it gives no rows.
fn columns_of(command: &Command) -> Option<Cow<'static, [Column]>> {
    const EXPLAIN: [Column; 6] = [
        Column("class", Type::Text),
        Column("route", Type::Text),
        Column("node", Type::Text),
        Column("reason", Type::Text),
        Column("tables", Type::Text),
        Column("functions", Type::Text),
    ];
    match command {
        Command::Show(show) => Some(Cow::Borrowed(tables::columns(*show))),
        Command::Value(value) => {
            let column = match value {
                Value::Fixed { column, .. } => Column(column, Type::Text),
                Value::One => Column("?column?", Type::Int4),
                Value::Version => Column("version", Type::Text),
                Value::NotInRecovery => Column("pg_is_in_recovery", Type::Bool),
                Value::CurrentDatabase => Column("current_database", Type::Text),
                Value::CurrentUser => Column("current_user", Type::Text),
            };
            Some(Cow::Owned(vec![column]))
        }
        Command::ExplainRoute { .. } => Some(Cow::Borrowed(&EXPLAIN)),
        Command::Act { .. } | Command::Ignored { .. } => None,
    }
}
