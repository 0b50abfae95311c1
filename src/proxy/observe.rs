//! Looking at a server connection: what is its state now, after something ran whose effects can't
//! be told from its text? PostgreSQL is asked, nothing is counted from calls.

use std::{collections::HashSet, fmt, io, sync::Arc, task::Poll, time::Duration};

use tokio::{
    io::AsyncWriteExt as _,
    time::{Instant, timeout_at},
};

use super::scratch::Scratch;
use crate::{
    error::{Fault, Visible},
    net::Buffer,
    pool::Server,
    protocol::{
        SqlState,
        backend::{self, ErrorView, Status, tag},
        frame::{Fields, HEADER, Header},
        startup::Setting,
        write,
    },
    session::{
        Pin, Session,
        committing::{Committing, Outcome},
        prepared::Named,
        reading::Reading,
        settings::Settings,
        spelling::quoted_literal,
    },
    sql::{self, Catalogue, Effect, MOST_NAMES, Untold},
};

/// How long the server may take for it.
const PATIENCE: Duration = Duration::from_secs(10);
/// An answer longer than this isn't one.
const LONGEST: usize = 1 << 20;

/// What is asked: rows of a kind, a name and a value. Names and operators are qualified, since the
/// session's search path isn't to be trusted.
pub(super) const LOOK: &str = "SELECT 's'::pg_catalog.text, name, setting FROM pg_catalog.pg_settings \
     WHERE source OPERATOR(pg_catalog.=) 'session' \
     UNION ALL SELECT 'i', 'session_authorization', session_user::pg_catalog.text \
     UNION ALL SELECT 'i', 'role', pg_catalog.current_setting('role') \
     UNION ALL SELECT 't', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_depend \
       WHERE refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass \
       AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) \
     UNION ALL SELECT 'l', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_locks \
       WHERE locktype OPERATOR(pg_catalog.=) 'advisory' \
       AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()) \
     UNION ALL SELECT 'n', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_listening_channels()) \
     UNION ALL SELECT 'c', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable) \
     UNION ALL SELECT 'p', name, NULL FROM pg_catalog.pg_prepared_statements WHERE from_sql";

/// Settings with a prefix aren't listed: each is asked for.
const CUSTOM: &str = " UNION ALL SELECT 'u', n, pg_catalog.current_setting(n, true) \
     FROM pg_catalog.unnest(ARRAY[";

/// What SQL-level statements that were prepared out of sight were prepared with.
const PREPARED: &str =
    "SELECT 'p', name, statement FROM pg_catalog.pg_prepared_statements WHERE from_sql";

/// Why a look, or a statement of pgsplit's own, failed.
#[derive(Debug)]
pub(super) enum Problem {
    Io(io::Error),
    TimedOut,
    Refused {
        sqlstate: SqlState,
        message: String,
        hint: Option<String>,
    },
    /// Not an answer to what was asked.
    Protocol,
}

impl Problem {
    /// The connection is lost: another one may do.
    pub(super) fn is_loss(&self) -> bool {
        match self {
            Self::Io(_) | Self::TimedOut => true,
            Self::Refused { sqlstate, .. } => {
                matches!(&sqlstate.0, [b'0', b'8', ..] | [b'5', b'7', b'P', b'0', _])
            }
            Self::Protocol => false,
        }
    }

    /// The server said so itself.
    pub(super) fn was_said(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// As the client hears of it: in the server's words where it said something.
    pub(super) fn visible(&self, during: &str) -> Visible {
        match self {
            Self::Refused {
                sqlstate,
                message,
                hint,
            } => Visible {
                hint: hint.clone().map(Into::into),
                ..Visible::error(Fault::Proxy, *sqlstate, message.clone())
            },
            Self::Io(_) | Self::TimedOut | Self::Protocol => Visible::error(
                Fault::Node,
                SqlState::CONNECTION_FAILURE,
                format!("the server connection was lost while {during}: {self}"),
            ),
        }
    }
}

/// One answer: rows of three columns, and where the transaction stands.
struct Answer {
    rows: Vec<[Option<Box<str>>; 3]>,
    parameters: Vec<Setting>,
    /// Whole frames that came meanwhile and are the client's.
    notifications: Vec<u8>,
    status: Status,
}

/// Runs statements of pgsplit's own; the notifications that came meanwhile, as whole frames. Not
/// cancel safe: the connection must be closed then.
///
/// # Errors
/// The server refused, or is gone: then the connection must be closed.
pub(super) async fn execute(server: &mut Server, sql: &str) -> Result<Vec<u8>, Problem> {
    ask(server, sql).await.map(|answer| answer.notifications)
}

/// Asks a primary what became of a transaction that was about to commit on the last one. As
/// [`execute`].
pub(super) async fn outcome(
    server: &mut Server,
    committing: Committing,
) -> Result<Outcome, Problem> {
    let answer = ask(server, &committing.question()).await?;
    let row = answer.rows.first().ok_or(Problem::Protocol)?;
    Ok(committing.outcome(row.each_ref().map(Option::as_deref)))
}

/// Ends what a session has begun there, so that the connection can be given back: a batch of
/// extended messages that is `unsynced`, then the transaction. As [`execute`].
pub(super) async fn leave(server: &mut Server, unsynced: bool) -> Result<(), Problem> {
    if unsynced {
        sync(server).await?;
    }
    if server.backend.status != Status::Idle {
        execute(server, "ROLLBACK").await?;
    }
    Ok(())
}

async fn sync(server: &mut Server) -> Result<(), Problem> {
    let mut out = Vec::new();
    write::sync(&mut out);
    let deadline = Instant::now() + PATIENCE;
    let answer = timeout_at(deadline, exchange(server, &out));
    match answer.await.unwrap_or(Err(Problem::TimedOut)) {
        // An error of the batch may still be on its way; its end is what counts.
        Ok(_) | Err(Problem::Refused { .. }) => Ok(()),
        Err(problem) => Err(problem),
    }
}

/// The same, giving the parameters that the server reported meanwhile.
///
/// # Errors
/// As [`execute`].
pub(super) async fn report(server: &mut Server, sql: &str) -> Result<Vec<Setting>, Problem> {
    ask(server, sql).await.map(|answer| answer.parameters)
}

/// Reads the connection's settings, role and other state into what is known of it and of the
/// session; gives what the client is to hear. Only outside a transaction. Not cancel safe.
///
/// # Errors
/// Its state isn't known: it must be closed.
pub(super) async fn look(
    server: &mut Server,
    session: &mut Session,
    catalogue: Option<&Catalogue>,
) -> Result<Vec<u8>, Problem> {
    let answer = ask(server, &question(session, catalogue)).await?;
    if answer.status != Status::Idle {
        return Err(Problem::Protocol);
    }
    let mut pins = session.pins.unseen();
    std::mem::take(&mut session.pending)
        .iter()
        .for_each(|pin| pins.add(pin));
    if session.untold.others {
        pins.add(Pin::Setting);
    }
    session.untold = Untold::default();
    let (mut found, mut custom) = (Vec::new(), Vec::new());
    let mut prepared: HashSet<Box<str>> = HashSet::new();
    let login = Arc::clone(&server.user);
    for [kind, name, value] in answer.rows {
        match (kind.as_deref(), name, value) {
            (Some("s"), Some(name), Some(value)) => found.push((name, value)),
            (Some("i"), Some(name), Some(value)) => {
                let unchanged = if &*name == "role" {
                    &*value == "none"
                } else {
                    *value == *login
                };
                if !unchanged {
                    found.push((name, value));
                }
            }
            (Some("u"), Some(name), value) => custom.push((name, value)),
            (Some("t"), ..) => pins.add(Pin::TemporaryTable),
            (Some("l"), ..) => pins.add(Pin::AdvisoryLock),
            (Some("n"), ..) => pins.add(Pin::Listen),
            (Some("c"), ..) => pins.add(Pin::HeldCursor),
            (Some("p"), Some(name), None) => {
                prepared.insert(name);
            }
            _ => return Err(Problem::Protocol),
        }
    }
    if !prepared_as_known(&prepared, server, session) {
        for [_, name, statement] in ask(server, PREPARED).await?.rows {
            if let (Some(name), Some(statement)) = (name, statement)
                && !adopted(&name, &statement, server, session)
            {
                pins.add(Pin::Prepared);
            }
        }
    }
    session.pins = pins;
    session.suspect = false;
    let before = server.backend.settings.take();
    let was_set = |name: &str| before.as_ref().map(|before| before.get(name).is_some());
    let tracked = session.settings.current();
    // What the startup packet asked for reads as empty where it was reset.
    let base = session.settings.base();
    custom.retain(|(name, value): &(_, Option<Box<str>>)| {
        value.as_deref().is_some_and(|value| !value.is_empty())
            || was_set(name) == Some(true)
            || base.get(name).is_none()
    });
    let found = Settings::from_observed(found).reconciled(tracked, custom);
    session.settings.observed(&found);
    let current = session.settings.current();
    let mut aside = answer.notifications;
    server.backend.settings = Some(if found == **current {
        Arc::clone(current)
    } else {
        // Reset out of sight: the client was told of the connection's own values.
        for (name, value) in session.told.iter() {
            let lower = name.to_ascii_lowercase();
            let reset = found.get(&lower).is_none() && was_set(&lower) != Some(false);
            if reset && current.get(&lower).is_some() {
                write::parameter_status(&mut aside, name.as_bytes(), value.as_bytes());
            }
        }
        found.into()
    });
    // Settings with a prefix don't show unless they are asked for.
    server.backend.tainted = true;
    Ok(aside)
}

/// What to ask: also for the settings with a prefix that the session has, that what ran may have
/// set, and that functions set.
fn question(session: &Session, catalogue: Option<&Catalogue>) -> String {
    let mut names: Vec<&str> = session.settings.current().custom().collect();
    names.extend(session.untold.names.iter().map(|name| &**name));
    names.extend(
        catalogue
            .into_iter()
            .flat_map(Catalogue::settings)
            .map(|name| &**name),
    );
    names.sort_unstable();
    names.dedup();
    names.retain(|name| !name.starts_with("pgsplit."));
    names.truncate(2 * MOST_NAMES);
    let mut sql = LOOK.to_owned();
    if !names.is_empty() {
        let literals: Vec<String> = names.into_iter().map(quoted_literal).collect();
        sql.push_str(CUSTOM);
        sql.push_str(&literals.join(","));
        sql.push_str("]::pg_catalog.text[]) n");
    }
    sql
}

/// Takes note of SQL-level statements that were dropped out of sight; whether `there` holds none
/// that was prepared so.
fn prepared_as_known(
    there: &HashSet<Box<str>>,
    server: &mut Server,
    session: &mut Session,
) -> bool {
    let mut gone: Vec<Box<[u8]>> = Vec::new();
    let mut known = 0;
    for (name, named) in server.backend.prepared.names() {
        let is_there = std::str::from_utf8(name).is_ok_and(|name| there.contains(name));
        match named {
            Some(Named::Sql(_)) if is_there => known += 1,
            Some(Named::Sql(_)) => gone.push(name.into()),
            Some(Named::Protocol(_)) | None => {}
        }
    }
    for name in gone {
        server.backend.prepared.unname(&name);
        if matches!(session.meaning(&name), Some(Named::Sql(_))) {
            session.names().remove(&name);
        }
    }
    known == there.len()
}

/// Makes an SQL-level statement that was prepared out of sight the session's, as if by its text.
fn adopted(name: &str, statement: &str, server: &mut Server, session: &mut Session) -> bool {
    let on_server = &mut server.backend.prepared;
    // Another session's, or one of which it isn't known whose it is.
    if on_server.names().any(|(known, _)| known == name.as_bytes()) {
        return true;
    }
    let effects = sql::effects(statement.as_bytes(), session.lexing).unwrap_or_default();
    for effect in effects {
        if let Effect::Prepare {
            name: its,
            text,
            body,
        } = effect
            && *its == *name
        {
            let named = Named::from_sql(&text, body, Reading::unknown());
            on_server.defined(name.as_bytes(), named.clone());
            session.names().define(name.as_bytes(), named);
            return true;
        }
    }
    false
}

async fn ask(server: &mut Server, sql: &str) -> Result<Answer, Problem> {
    let deadline = Instant::now() + PATIENCE;
    timeout_at(deadline, ask_untimed(server, sql))
        .await
        .unwrap_or(Err(Problem::TimedOut))
}

async fn ask_untimed(server: &mut Server, sql: &str) -> Result<Answer, Problem> {
    let mut out = Vec::with_capacity(sql.len() + 16);
    write::query(&mut out, sql.as_bytes());
    server.backend.unnamed = None;
    exchange(server, &out).await
}

/// Sends messages and reads up to ReadyForQuery, and what has come behind it.
async fn exchange(server: &mut Server, out: &[u8]) -> Result<Answer, Problem> {
    let mut notifications = Vec::new();
    server.stream.write_all(out).await.map_err(Problem::Io)?;
    server.stream.flush().await.map_err(Problem::Io)?;
    let mut buffer = Buffer::new(8 << 10);
    let mut rows = Vec::new();
    let mut parameters = Vec::new();
    let mut refused = None;
    let mut ready = None;
    loop {
        if let Some(status) = ready
            && buffer.is_empty()
        {
            return match refused {
                Some(problem) => Err(problem),
                None => Ok(Answer {
                    rows,
                    parameters,
                    notifications,
                    status,
                }),
            };
        }
        let Some(header) =
            Header::parse(buffer.filled()).map_err(|_malformed| Problem::Protocol)?
        else {
            fill(&mut buffer, server).await?;
            continue;
        };
        if header.len > LONGEST {
            return Err(Problem::Protocol);
        }
        if buffer.len() < header.len {
            buffer.grow(header.len);
            fill(&mut buffer, server).await?;
            continue;
        }
        let body = buffer.filled().get(HEADER..header.len).unwrap_or_default();
        match header.tag {
            tag::DATA_ROW => {
                if rows.len() >= LONGEST / 64 {
                    return Err(Problem::Protocol);
                }
                rows.push(row(body));
            }
            tag::PARAMETER_STATUS if parameters.len() < LONGEST / 64 => {
                let (name, value) =
                    backend::parameter_status(body).map_err(|_malformed| Problem::Protocol)?;
                let text = |bytes| String::from_utf8_lossy(bytes).into();
                parameters.push((text(name), text(value)));
            }
            tag::NOTIFICATION_RESPONSE if notifications.len() < LONGEST => {
                let frame = buffer.filled().get(..header.len).unwrap_or_default();
                notifications.extend_from_slice(frame);
            }
            tag::ERROR_RESPONSE => {
                let error = ErrorView::read(body).map_err(|_malformed| Problem::Protocol)?;
                refused = Some(Problem::Refused {
                    sqlstate: error.sqlstate,
                    message: String::from_utf8_lossy(error.message).into_owned(),
                    hint: (!error.hint.is_empty())
                        .then(|| String::from_utf8_lossy(error.hint).into_owned()),
                });
                if error.fatal {
                    return Err(refused.unwrap_or(Problem::Protocol));
                }
            }
            tag::READY_FOR_QUERY => {
                let status = Status::read(body).map_err(|_malformed| Problem::Protocol)?;
                server.backend.status = status;
                ready = Some(status);
            }
            _ => {}
        }
        buffer.consume(header.len);
    }
}

async fn fill(buffer: &mut Buffer, server: &mut Server) -> Result<(), Problem> {
    let (stream, link) = (&mut server.stream, &server.link);
    let filled = std::future::poll_fn(|cx| match buffer.poll_fill(cx, stream) {
        Poll::Pending => {
            link.watch(cx);
            if link.is_doomed() {
                let gone = io::Error::new(io::ErrorKind::ConnectionAborted, "its node is down");
                return Poll::Ready(Err(gone));
            }
            Poll::Pending
        }
        filled => filled,
    });
    match filled.await {
        Ok(0) => Err(Problem::Io(io::ErrorKind::UnexpectedEof.into())),
        Ok(_) => Ok(()),
        Err(error) => Err(Problem::Io(error)),
    }
}

/// Up to three columns of a DataRow as text.
fn row(body: &[u8]) -> [Option<Box<str>>; 3] {
    let mut values = [None, None, None];
    let mut fields = Fields::new(tag::DATA_ROW, body);
    let Ok(count) = fields.u16() else {
        return values;
    };
    for value in values.iter_mut().take(usize::from(count)) {
        let Ok(length) = fields.u32() else { break };
        if length == u32::MAX {
            continue;
        }
        let Ok(bytes) = fields.bytes(length as usize) else {
            break;
        };
        *value = Some(String::from_utf8_lossy(bytes).into());
    }
    values
}

/// Passes on what a held server connection says while its client rests: notifications, notices,
/// changed parameters. `Err`: it has ended, with what it said last.
pub(super) async fn pass_on(
    server: &mut Server,
    session: &mut Session,
    scratch: &mut Scratch,
) -> Result<(), Option<(SqlState, String)>> {
    if server.link.is_doomed() {
        return Err(None);
    }
    loop {
        let bytes = scratch.server_in.filled();
        let Ok(header) = Header::parse(bytes) else {
            return Err(None);
        };
        match header {
            Some(header) if bytes.len() >= header.len => {
                let body = bytes.get(HEADER..header.len).unwrap_or_default();
                match header.tag {
                    // Where nothing runs it is always the last word, even if the end of the
                    // connection is still on its way.
                    tag::ERROR_RESPONSE => {
                        return Err(ErrorView::read(body).ok().map(|error| {
                            (
                                error.sqlstate,
                                String::from_utf8_lossy(error.message).into_owned(),
                            )
                        }));
                    }
                    tag::PARAMETER_STATUS => {
                        if let Ok((name, _)) = backend::parameter_status(body)
                            && name != b"in_hot_standby"
                        {
                            let frame = bytes.get(..header.len).unwrap_or_default();
                            scratch.to_client.bytes.extend_from_slice(frame);
                        }
                    }
                    tag::NOTIFICATION_RESPONSE if !session.pins.has(Pin::Listen) => {}
                    tag::NOTICE_RESPONSE | tag::NOTIFICATION_RESPONSE => {
                        let frame = bytes.get(..header.len).unwrap_or_default();
                        scratch.to_client.bytes.extend_from_slice(frame);
                    }
                    _ => return Err(None),
                }
                scratch.server_in.consume(header.len);
            }
            partial => {
                let needed = partial.map_or(HEADER, |header| header.len);
                if needed > LONGEST {
                    return Err(None);
                }
                scratch.server_in.grow(needed);
                let whole = bytes_are_pending(server, scratch, needed > HEADER).await;
                match whole {
                    Ok(true) => {}
                    Ok(false) => return Ok(()),
                    Err(_lost) => return Err(None),
                }
            }
        }
    }
}

/// Reads what is there; waits only for the rest of a message. False: nothing more is there.
async fn bytes_are_pending(
    server: &mut Server,
    scratch: &mut Scratch,
    partial: bool,
) -> io::Result<bool> {
    let stream = &mut server.stream;
    let partial = partial || !scratch.server_in.is_empty();
    let count = std::future::poll_fn(|cx| match scratch.server_in.poll_fill(cx, stream) {
        Poll::Pending if !partial => Poll::Ready(Ok(None)),
        Poll::Pending => Poll::Pending,
        Poll::Ready(count) => Poll::Ready(count.map(Some)),
    })
    .await?;
    match count {
        None => Ok(false),
        Some(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Some(_) => Ok(true),
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Refused {
                sqlstate, message, ..
            } => write!(f, "{message} (SQLSTATE {sqlstate})"),
            Self::Protocol => f.write_str("an answer to something else"),
        }
    }
}

impl std::error::Error for Problem {}
