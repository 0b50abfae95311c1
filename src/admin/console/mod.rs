//! The console: what `psql pgsplit` talks to.
//!
//! [`parse`] reads commands, [`Console`] runs them, [`serve`] speaks the protocol around both. Who
//! may open the console is decided at login; whoever is in may do everything.

mod parse;
mod serve;
mod wire;

use std::{borrow::Cow, sync::Arc};

use self::parse::{Block, Command, Value};
use super::{
    lookout::Lookout,
    tables::{self, Column, Table, Type},
    time,
};
use crate::{
    error::Visible,
    metrics::{Inspect, Metrics, inspect::Action},
};

/// Answers console commands for one proxy.
#[derive(Debug)]
pub struct Console {
    lookout: Arc<Lookout>,
}

/// Who asks, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Caller {
    user: String,
    /// `pgsplit` or `pgbouncer`.
    database: String,
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
            lookout: Arc::new(Lookout::new(inspect, metrics)),
        }
    }

    /// What it looks at.
    pub(super) fn lookout(&self) -> &Arc<Lookout> {
        &self.lookout
    }

    /// Runs one command. Dropping the future leaves an action that was begun to go on.
    async fn run(&self, caller: &Caller, command: &Command) -> Result<Reply, Visible> {
        match command {
            Command::Show(show) => {
                let (show, pgbouncer) = (*show, caller.database == "pgbouncer");
                let table = self.lookout.aside(move |of| of.table(show, pgbouncer));
                Ok(Reply::Rows {
                    table: table.await?,
                    tag: "SHOW".to_owned(),
                })
            }
            Command::Value(value) => {
                let (value, tag) = match value {
                    Value::Fixed { value, tag, .. } => ((*value).to_owned(), *tag),
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
                let (database, sql) = (database.clone(), sql.clone());
                let explain = move |of: &Lookout| of.inspect.explain(database.as_deref(), &sql);
                let answer = self.lookout.aside(explain).await??;
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
                            answer.detail,
                        ]],
                    },
                    tag: "EXPLAIN".to_owned(),
                })
            }
            Command::Act { action, tag } => {
                let user = &caller.user;
                tracing::info!(user, %action, "console command");
                self.lookout
                    .operators
                    .push(time::wall(), format!("{user}: {action}"));
                let done = self.lookout.inspect.act(action.clone()).await;
                if let Err(error) = &done {
                    tracing::warn!(user, %action, %error, "console command failed");
                    let message = format!("{user}: {action} failed: {error}");
                    self.lookout.operators.push(time::wall(), message);
                }
                let outcome = done?;
                // Whoever asked for these waits for what there is to tell.
                if let (Some(columns), Some(told)) = (columns_of(command), &outcome) {
                    return Ok(Reply::Rows {
                        table: Table {
                            columns,
                            rows: vec![vec![Some(told.clone())]],
                        },
                        tag: (*tag).to_owned(),
                    });
                }
                Ok(Reply::Done {
                    tag,
                    notice: outcome,
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
    const EXPLAIN: [Column; 7] = [
        Column("class", Type::Text),
        Column("route", Type::Text),
        Column("node", Type::Text),
        Column("reason", Type::Text),
        Column("tables", Type::Text),
        Column("functions", Type::Text),
        Column("detail", Type::Text),
    ];
    const OUTCOME: [Column; 1] = [Column("outcome", Type::Text)];
    match command {
        Command::Show(show) => Some(Cow::Borrowed(tables::columns(*show))),
        Command::Value(value) => {
            let column = match value {
                Value::Fixed { column, .. } => Column(column, Type::Text),
                Value::Version => Column("version", Type::Text),
                Value::NotInRecovery => Column("pg_is_in_recovery", Type::Bool),
                Value::CurrentDatabase => Column("current_database", Type::Text),
                Value::CurrentUser => Column("current_user", Type::Text),
            };
            Some(Cow::Owned(vec![column]))
        }
        Command::ExplainRoute { .. } => Some(Cow::Borrowed(&EXPLAIN)),
        Command::Act {
            action: Action::Switchover(_) | Action::Failover { .. },
            ..
        } => Some(Cow::Borrowed(&OUTCOME)),
        Command::Act { .. } | Command::Ignored { .. } => None,
    }
}
