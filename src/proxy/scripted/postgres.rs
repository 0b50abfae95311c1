//! A small model of a PostgreSQL session: transactions, and a table that is written and read.

use std::collections::{HashMap, VecDeque};

use super::message::*;

/// One connection's session.
#[derive(Debug, Default)]
pub(super) struct Postgres {
    /// A node in recovery.
    replica: bool,
    transaction: Option<Transaction>,
    /// An error has been answered; all is passed over up to the next Sync.
    skipping: bool,
    statements: HashMap<Vec<u8>, String>,
    portals: HashMap<Vec<u8>, String>,
    /// Rows that were written and committed: the numbers of `insert into t values (number)`.
    pub(super) written: Vec<u32>,
    /// Rows that were written since the last Sync, outside of a transaction block.
    implicit: Vec<u32>,
    unread: VecDeque<u8>,
}

#[derive(Clone, Debug, Default)]
struct Transaction {
    failed: bool,
    read_only: bool,
    written: Vec<u32>,
    /// How much had been written when the savepoint was set.
    savepoint: Option<usize>,
}

type Failed = Vec<u8>;

impl Postgres {
    pub(super) fn new(replica: bool) -> Self {
        Self {
            replica,
            ..Self::default()
        }
    }

    /// What answers these bytes, which may end in the middle of a message.
    pub(super) fn answers(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.unread.extend(bytes);
        let mut out = Vec::new();
        while let Some(message) = self.message() {
            let body = &message[5..];
            match message[0] {
                b'Q' => self.query(&text(body), &mut out),
                b'S' => {
                    self.skipping = false;
                    self.written.append(&mut self.implicit);
                    out.extend(self.ready());
                }
                _ if self.skipping => {}
                tag => {
                    if let Err(failed) = self.extended(tag, body, &mut out) {
                        self.fail();
                        self.skipping = true;
                        out.extend(failed);
                    }
                }
            }
        }
        out
    }

    /// In a transaction that may only read.
    pub(super) fn reads_only(&self) -> bool {
        self.transaction.as_ref().is_some_and(|open| open.read_only)
    }

    /// In a failed transaction.
    pub(super) fn has_failed(&self) -> bool {
        self.transaction.as_ref().is_some_and(|open| open.failed)
    }

    fn message(&mut self) -> Option<Vec<u8>> {
        let head: Vec<u8> = self.unread.iter().copied().take(5).collect();
        let length: [u8; 4] = head.get(1..5)?.try_into().ok()?;
        let length = u32::from_be_bytes(length) as usize + 1;
        (self.unread.len() >= length).then(|| self.unread.drain(..length).collect())
    }

    fn ready(&self) -> Vec<u8> {
        ready(match &self.transaction {
            None => 'I',
            Some(Transaction { failed: false, .. }) => 'T',
            Some(Transaction { failed: true, .. }) => 'E',
        })
    }

    fn fail(&mut self) {
        self.implicit.clear();
        if let Some(transaction) = &mut self.transaction {
            transaction.failed = true;
        }
    }

    fn query(&mut self, text: &str, out: &mut Vec<u8>) {
        self.skipping = false;
        self.statements.remove(&b""[..]);
        for statement in text.split(';') {
            let rows = statement.trim_start().starts_with("select");
            match self.run(&statement.trim().to_lowercase()) {
                Ok(answer) => {
                    if rows {
                        out.extend(column());
                    }
                    out.extend(answer);
                }
                Err(failed) => {
                    self.fail();
                    out.extend(failed);
                    break;
                }
            }
        }
        self.written.append(&mut self.implicit);
        out.extend(self.ready());
    }

    fn extended(&mut self, tag: u8, body: &[u8], out: &mut Vec<u8>) -> Result<(), Failed> {
        let mut strings = body.split(|&byte| byte == 0);
        let mut next = || strings.next().unwrap_or_default().to_vec();
        match tag {
            b'P' => {
                let (name, text) = (next(), String::from_utf8(next()).unwrap());
                self.not_aborted(&text)?;
                self.statements.insert(name, text);
                out.extend(parsed());
            }
            b'B' => {
                let (portal, name) = (next(), next());
                let missing = || error("26000", "prepared statement does not exist");
                let text = self.statements.get(&name).cloned().ok_or_else(missing)?;
                self.not_aborted(&text)?;
                self.portals.insert(portal, text);
                out.extend(bound());
            }
            b'E' => {
                let missing = || error("34000", "portal does not exist");
                let text = self.portals.get(&next()).cloned().ok_or_else(missing)?;
                out.extend(self.run(&text)?);
            }
            b'C' => {
                self.statements.remove(&body[1..body.len() - 1]);
                out.extend(closed());
            }
            b'H' => {}
            other => panic!("{}: not in this model", other.escape_ascii()),
        }
        Ok(())
    }

    fn not_aborted(&self, text: &str) -> Result<(), Failed> {
        let failed = matches!(&self.transaction, Some(transaction) if transaction.failed);
        let ends = text.starts_with("commit") || text.starts_with("rollback");
        if failed && !ends {
            return Err(error(
                "25P02",
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        Ok(())
    }

    fn run(&mut self, statement: &str) -> Result<Vec<u8>, Failed> {
        self.not_aborted(statement)?;
        let warning = |text, tag| Ok([notice(text), complete(tag)].concat());
        let outside = || error("25P01", "can only be used in transaction blocks");
        match (statement, &mut self.transaction) {
            ("begin" | "begin read only", None) => {
                // What ran before it in the same implicit transaction is its.
                self.transaction = Some(Transaction {
                    read_only: statement == "begin read only",
                    written: std::mem::take(&mut self.implicit),
                    ..Transaction::default()
                });
                Ok(complete("BEGIN"))
            }
            ("begin", Some(_)) => warning("there is already a transaction in progress", "BEGIN"),
            ("begin read only", Some(transaction)) => {
                transaction.read_only = true;
                warning("there is already a transaction in progress", "BEGIN")
            }
            ("commit" | "rollback", None) => {
                let tag = statement.to_uppercase();
                if statement == "commit" {
                    self.written.append(&mut self.implicit);
                }
                self.implicit.clear();
                warning("there is no transaction in progress", &tag)
            }
            ("commit and chain", None) => Err(outside()),
            ("commit" | "commit and chain", Some(transaction)) => {
                let (failed, read_only) = (transaction.failed, transaction.read_only);
                if !failed {
                    self.written.append(&mut transaction.written);
                }
                self.transaction = (statement != "commit").then(|| Transaction {
                    read_only,
                    ..Transaction::default()
                });
                Ok(complete(if failed { "ROLLBACK" } else { "COMMIT" }))
            }
            ("rollback", Some(_)) => {
                self.transaction = None;
                Ok(complete("ROLLBACK"))
            }
            ("savepoint a" | "rollback to a", None) => Err(outside()),
            ("savepoint a", Some(transaction)) => {
                transaction.savepoint = Some(transaction.written.len());
                Ok(complete("SAVEPOINT"))
            }
            ("rollback to a", Some(transaction)) => match transaction.savepoint {
                Some(written) => {
                    transaction.failed = false;
                    transaction.written.truncate(written);
                    Ok(complete("ROLLBACK"))
                }
                None => Err(error("3B001", "savepoint \"a\" does not exist")),
            },
            ("set transaction read only", None) => {
                warning("can only be used in transaction blocks", "SET")
            }
            ("set transaction read only", Some(transaction)) => {
                transaction.read_only = true;
                Ok(complete("SET"))
            }
            ("select c from t", _) => Ok([row("x"), complete("SELECT 1")].concat()),
            ("select c / 0 from t", _) => Err(error("22012", "division by zero")),
            (insert, transaction) if insert.starts_with("insert into t values (") => {
                let number = insert.trim_matches(|c: char| !c.is_ascii_digit());
                let number = number.parse().unwrap();
                let read_only = transaction.as_ref().is_some_and(|open| open.read_only);
                if self.replica || read_only {
                    let message = "cannot execute INSERT in a read-only transaction";
                    return Err(error("25006", message));
                }
                match transaction {
                    Some(transaction) => transaction.written.push(number),
                    None => self.implicit.push(number),
                }
                Ok(complete("INSERT 0 1"))
            }
            (other, _) => panic!("{other:?}: not in this model"),
        }
    }
}

fn text(body: &[u8]) -> String {
    String::from_utf8(body[..body.len() - 1].to_vec()).unwrap()
}
