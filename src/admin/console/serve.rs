//! The protocol around the console, for one client.
//!
//! Simple queries, and the extended protocol for statements without parameters, as drivers use it.
//! After an error in an extended sequence everything up to Sync is passed over.
//!
//! Bounds: a message's length, the statements and portals of a client, the bytes read ahead while
//! a command runs; deadlines for the next command, for the rest of a message, for a client that
//! doesn't take its answer.

use std::{borrow::Cow, collections::HashMap, future::Future, io, pin::Pin, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout, timeout_at},
};

use super::{
    Caller, Console, Reply, columns_of,
    parse::{Block, Command, PARAMETERS, SERVER_VERSION, parse},
    wire::{self, Frontend, Out, Target},
};
use crate::{
    admin::tables::{Cell, Column},
    error::{Fault, Visible},
    protocol::{
        SqlState,
        backend::{Status, tag},
    },
    proxy::{ConsoleClient, ConsoleServer},
};

/// A client that is silent for so long is sent away.
const IDLE: Duration = Duration::from_secs(3_600);
/// The rest of a message that has begun must come within this.
const MESSAGE: Duration = Duration::from_secs(30);
/// A part of an answer must be taken within this.
const WRITE: Duration = Duration::from_secs(30);
/// Statements and portals that a client may have, each.
const KEPT: usize = 100;
/// Answers are sent on in parts of about this many bytes.
const PART: usize = 64 * 1024;

impl ConsoleServer for Console {
    fn serve(
        &self,
        client: ConsoleClient,
    ) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send + '_>> {
        let caller = Caller {
            user: client.user,
            database: client.database,
        };
        Box::pin(serve(client.stream, client.read_ahead, caller, self))
    }
}

/// Serves an authenticated client (AuthenticationOk has been sent) until it leaves, breaks the
/// protocol or misses a deadline.
///
/// Not cancel safe: dropping the future ends the connection.
async fn serve<S>(
    stream: S,
    read_ahead: Vec<u8>,
    caller: Caller,
    console: &Console,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut client = Client {
        stream,
        input: read_ahead,
        taken: 0,
        out: Out::default(),
        caller,
        console,
        in_block: false,
        statements: HashMap::new(),
        portals: HashMap::new(),
        skipping: false,
    };
    client.greet().await?;
    loop {
        let next = match client.next().await {
            Ok(Some(Frontend::Terminate)) | Ok(None) => return Ok(()),
            Ok(Some(message)) => client.handle(message).await,
            Err(End::Io(error)) => return Err(error),
            Err(End::Fatal(error)) => Err(End::Fatal(error)),
        };
        match next {
            Ok(()) => {}
            Err(End::Io(error)) => return Err(error),
            Err(End::Fatal(error)) => {
                client.out.error(&error);
                client.send().await?;
                // Of TLS, the end has to be told.
                return timeout(WRITE, client.stream.shutdown())
                    .await
                    .unwrap_or(Ok(()));
            }
        }
    }
}

/// Why a connection ends early.
enum End {
    Io(io::Error),
    /// To be told to the client first.
    Fatal(Visible),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

struct Client<'a, S> {
    stream: S,
    /// Read and, from `taken` on, not yet understood.
    input: Vec<u8>,
    taken: usize,
    out: Out,
    caller: Caller,
    console: &'a Console,
    /// The client believes to be in a transaction block.
    in_block: bool,
    /// `None` for an empty text.
    statements: HashMap<String, Option<Command>>,
    portals: HashMap<String, Portal>,
    /// An extended sequence has failed: nothing is done before its Sync.
    skipping: bool,
}

struct Portal {
    command: Option<Command>,
    formats: Vec<u16>,
    /// Once it has been executed: what is still to be sent.
    rest: Option<Rest>,
}

struct Rest {
    columns: Cow<'static, [Column]>,
    rows: std::vec::IntoIter<Vec<Cell>>,
    tag: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<'_, S> {
    async fn greet(&mut self) -> io::Result<()> {
        self.out.parameter_status("server_version", SERVER_VERSION);
        for (name, value) in PARAMETERS {
            self.out.parameter_status(name, value);
        }
        let user = self.caller.user.clone();
        self.out.parameter_status("session_authorization", &user);
        // Nothing here can be cancelled: the key opens nothing.
        self.out.backend_key(std::process::id(), fastrand::u32(..));
        self.ready();
        self.send().await
    }

    fn ready(&mut self) {
        self.out.ready(if self.in_block {
            Status::InTransaction
        } else {
            Status::Idle
        });
    }

    /// The next message; `None` when the client is gone.
    async fn next(&mut self) -> Result<Option<Frontend>, End> {
        let idle_until = Instant::now() + IDLE;
        let mut whole_by = None;
        loop {
            match wire::read(self.input.get(self.taken..).unwrap_or_default()) {
                Ok(Some((message, length))) => {
                    self.taken += length;
                    return Ok(Some(message));
                }
                Ok(None) => {
                    self.input.drain(..self.taken);
                    self.taken = 0;
                    // A long message may have been there.
                    self.input.shrink_to(PART);
                }
                Err(malformed) => {
                    return Err(fatal(SqlState::PROTOCOL_VIOLATION, malformed.to_string()));
                }
            }
            let deadline = if self.input.is_empty() {
                idle_until
            } else {
                *whole_by.get_or_insert_with(|| Instant::now() + MESSAGE)
            };
            match timeout_at(deadline, self.stream.read_buf(&mut self.input)).await {
                Ok(Ok(0)) => return Ok(None),
                Ok(Ok(_read)) => {}
                Ok(Err(error)) => return Err(End::Io(error)),
                Err(_late) if self.input.is_empty() => {
                    let idle = SqlState(*b"57P05");
                    let message = "terminating connection due to idle-session timeout";
                    return Err(fatal(idle, message.to_owned()));
                }
                Err(_late) => return Err(End::Io(io::ErrorKind::TimedOut.into())),
            }
        }
    }

    /// Sends what has been written.
    async fn send(&mut self) -> io::Result<()> {
        for part in self.out.0.chunks(PART) {
            timeout(WRITE, self.stream.write_all(part))
                .await
                .map_err(|_late| io::Error::from(io::ErrorKind::TimedOut))??;
        }
        self.out.0.clear();
        // The next answer may be small.
        self.out.0.shrink_to(PART);
        timeout(WRITE, self.stream.flush())
            .await
            .map_err(|_late| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn handle(&mut self, message: Frontend) -> Result<(), End> {
        match message {
            Frontend::Sync => {
                self.skipping = false;
                if !self.in_block {
                    self.portals.clear();
                }
                self.ready();
                return Ok(self.send().await?);
            }
            _ if self.skipping => return Ok(()),
            Frontend::Query(text) => {
                if let Err(error) = self.query(&text).await? {
                    self.out.error(&error);
                }
                self.ready();
                return Ok(self.send().await?);
            }
            Frontend::FunctionCall => {
                self.out.error(&Visible::error(
                    Fault::Client,
                    SqlState::FEATURE_NOT_SUPPORTED,
                    "the console has no functions to call",
                ));
                self.ready();
                return Ok(self.send().await?);
            }
            Frontend::Flush => return Ok(self.send().await?),
            Frontend::Copy | Frontend::Terminate => {}
            Frontend::Parse { name, sql } => self.done(|client| client.parse(name, &sql)),
            Frontend::Bind {
                portal,
                statement,
                parameters,
                formats,
            } => self.done(|client| client.bind(portal, &statement, parameters, formats)),
            Frontend::Describe(target) => self.done(|client| client.describe(&target)),
            Frontend::Close(target) => {
                match target {
                    Target::Statement(name) => drop(self.statements.remove(&name)),
                    Target::Portal(name) => drop(self.portals.remove(&name)),
                }
                self.out.bare(tag::CLOSE_COMPLETE);
            }
            Frontend::Execute { portal, max_rows } => {
                let result = self.execute(&portal, max_rows).await?;
                self.done(|_client| result);
            }
        }
        // Answers to a sequence wait for its Sync, but not without bound.
        if self.out.0.len() > PART {
            self.send().await?;
        }
        Ok(())
    }

    /// A step of an extended sequence: its error is sent, and the rest passed over.
    fn done(&mut self, step: impl FnOnce(&mut Self) -> Result<(), Visible>) {
        if let Err(error) = step(self) {
            self.out.error(&error);
            self.skipping = true;
        }
    }

    async fn query(&mut self, text: &str) -> Result<Result<(), Visible>, End> {
        // As in PostgreSQL, a simple query ends the unnamed statement and portal.
        self.statements.remove("");
        self.portals.remove("");
        let commands = match parse(text) {
            Ok(commands) => commands,
            Err(error) => return Ok(Err(error)),
        };
        if commands.is_empty() {
            self.out.bare(tag::EMPTY_QUERY_RESPONSE);
        }
        for command in commands {
            match self.run(&command).await? {
                Ok(Reply::Rows { table, tag }) => {
                    self.out.row_description(&table.columns, &[]);
                    for row in &table.rows {
                        self.out.data_row(&table.columns, row, &[]);
                        if self.out.0.len() > PART {
                            self.send().await?;
                        }
                    }
                    self.out.complete(&tag);
                }
                Ok(Reply::Done { tag, notice, block }) => self.finish(tag, notice, block),
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(()))
    }

    fn finish(&mut self, tag: &str, notice: Option<String>, block: Block) {
        if let Some(notice) = notice {
            self.out.notice(&notice);
        }
        match block {
            Block::Keep => {}
            Block::Begin => self.in_block = true,
            Block::End => self.in_block = false,
        }
        self.out.complete(tag);
    }

    /// Runs a command while watching for a client that leaves meanwhile.
    async fn run(&mut self, command: &Command) -> Result<Result<Reply, Visible>, End> {
        let mut running = std::pin::pin!(self.console.run(&self.caller, command));
        loop {
            tokio::select! {
                biased;
                reply = &mut running => return Ok(reply),
                read = self.stream.read_buf(&mut self.input), if self.input.len() < PART => {
                    if read? == 0 {
                        return Err(End::Io(io::ErrorKind::UnexpectedEof.into()));
                    }
                }
            }
        }
    }

    fn parse(&mut self, name: String, sql: &str) -> Result<(), Visible> {
        if !name.is_empty() && self.statements.contains_key(&name) {
            return Err(Visible::error(
                Fault::Client,
                SqlState::DUPLICATE_PREPARED_STATEMENT,
                format!("prepared statement \"{name}\" already exists"),
            ));
        }
        let mut commands = parse(sql)?.into_iter();
        let command = commands.next();
        if commands.next().is_some() {
            return Err(Visible::error(
                Fault::Client,
                SqlState::SYNTAX_ERROR,
                "cannot insert multiple commands into a prepared statement",
            ));
        }
        if self.statements.len() >= KEPT && !self.statements.contains_key(&name) {
            return Err(too_many("prepared statements"));
        }
        self.statements.insert(name, command);
        self.out.bare(tag::PARSE_COMPLETE);
        Ok(())
    }

    fn bind(
        &mut self,
        portal: String,
        statement: &str,
        parameters: usize,
        formats: Vec<u16>,
    ) -> Result<(), Visible> {
        let command = self.statement(statement)?.clone();
        if parameters > 0 {
            return Err(Visible::error(
                Fault::Client,
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message supplies {parameters} parameters, but console statements have none"
                ),
            ));
        }
        if !portal.is_empty() && self.portals.contains_key(&portal) {
            return Err(Visible::error(
                Fault::Client,
                SqlState(*b"42P03"),
                format!("cursor \"{portal}\" already exists"),
            ));
        }
        if self.portals.len() >= KEPT && !self.portals.contains_key(&portal) {
            return Err(too_many("portals"));
        }
        self.portals.insert(
            portal,
            Portal {
                command,
                formats,
                rest: None,
            },
        );
        self.out.bare(tag::BIND_COMPLETE);
        Ok(())
    }

    fn describe(&mut self, target: &Target) -> Result<(), Visible> {
        let (columns, formats) = match target {
            Target::Statement(name) => {
                let columns = self.statement(name)?.as_ref().and_then(columns_of);
                self.out.parameter_description();
                (columns, Vec::new())
            }
            Target::Portal(name) => {
                let portal = self.portals.get(name).ok_or_else(|| no_portal(name))?;
                (
                    portal.command.as_ref().and_then(columns_of),
                    portal.formats.clone(),
                )
            }
        };
        match columns {
            Some(columns) => self.out.row_description(&columns, &formats),
            None => self.out.bare(tag::NO_DATA),
        }
        Ok(())
    }

    async fn execute(&mut self, name: &str, max_rows: usize) -> Result<Result<(), Visible>, End> {
        // Taken out while it runs; put back while there is more to fetch.
        let Some(mut portal) = self.portals.remove(name) else {
            return Ok(Err(no_portal(name)));
        };
        let Some(command) = &portal.command else {
            self.out.bare(tag::EMPTY_QUERY_RESPONSE);
            return Ok(Ok(()));
        };
        let mut rest = match portal.rest.take() {
            Some(rest) => rest,
            None => match self.run(command).await? {
                Ok(Reply::Rows { table, tag }) => Rest {
                    columns: table.columns,
                    rows: table.rows.into_iter(),
                    tag,
                },
                Ok(Reply::Done { tag, notice, block }) => {
                    self.finish(tag, notice, block);
                    return Ok(Ok(()));
                }
                Err(error) => return Ok(Err(error)),
            },
        };
        let mut sent = 0;
        while max_rows == 0 || sent < max_rows {
            let Some(row) = rest.rows.next() else {
                self.out.complete(&rest.tag);
                return Ok(Ok(()));
            };
            self.out.data_row(&rest.columns, &row, &portal.formats);
            sent += 1;
            if self.out.0.len() > PART {
                self.send().await?;
            }
        }
        self.out.bare(tag::PORTAL_SUSPENDED);
        portal.rest = Some(rest);
        self.portals.insert(name.to_owned(), portal);
        Ok(Ok(()))
    }

    fn statement(&self, name: &str) -> Result<&Option<Command>, Visible> {
        self.statements.get(name).ok_or_else(|| {
            Visible::error(
                Fault::Client,
                SqlState::INVALID_SQL_STATEMENT_NAME,
                format!("prepared statement \"{name}\" does not exist"),
            )
        })
    }
}

fn no_portal(name: &str) -> Visible {
    Visible::error(
        Fault::Client,
        SqlState(*b"34000"),
        format!("portal \"{name}\" does not exist"),
    )
}

fn too_many(what: &str) -> Visible {
    Visible::error(
        Fault::Client,
        SqlState::PROGRAM_LIMIT_EXCEEDED,
        format!("the console keeps at most {KEPT} {what}"),
    )
}

fn fatal(state: SqlState, message: String) -> End {
    End::Fatal(Visible::fatal(Fault::Client, state, message))
}

#[cfg(test)]
mod tests;
