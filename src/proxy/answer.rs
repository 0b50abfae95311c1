//! Requests that need no server: answered here, bit for bit as PostgreSQL would.

use super::{client::Task, scratch::Scratch};
use crate::{
    config::settings::PoolMode,
    error::{Fault, Visible},
    protocol::{
        SqlState,
        backend::{Status, tag},
        frame::{HEADER, Header},
        frontend::{Bind, Execute, Object, Parse, Target, tag as front},
        write,
    },
    session::{
        Transaction, own,
        replay::Replay,
        request::{End, Request, Resolved, Work},
    },
    sql::{self, Begin, Effect, Kind, Reset, Scope, Traits},
};

/// Answers the request if no server is needed for it; whether it did.
pub(super) fn answered(task: &mut Task, request: &Request, scratch: &mut Scratch) -> bool {
    if task.session.unsynced || request.oversize {
        return false;
    }
    if matches!(task.session.transaction, Transaction::Lost { .. }) {
        return in_lost_transaction(task, request, scratch);
    }
    let done = match request.query.clone() {
        Some(range) => {
            let Some(text) = scratch.client_in.filled().get(range) else {
                return false;
            };
            simple(task, request, text, &mut scratch.to_client.bytes)
        }
        None if matches!(request.end, End::Sync | End::Flush) && request.work == Work::Nothing => {
            idle(task, request, scratch);
            true
        }
        None if request.end == End::Sync && request.class.kind == Kind::Own => {
            own_extended(task, request, scratch)
        }
        None if request.end == End::Sync
            && request.class.kind == Kind::Single
            && request.class.traits.has(Traits::RESETS) =>
        {
            reset_extended(task, request, scratch)
        }
        None => false,
    };
    if done {
        task.proxy.metrics(task.worker).answered();
    }
    done
}

fn simple(task: &mut Task, request: &Request, text: &[u8], out: &mut Vec<u8>) -> bool {
    let deferred = matches!(task.session.transaction, Transaction::Deferred(_));
    let idle = task.session.transaction == Transaction::Idle;
    match request.class.kind {
        Kind::Empty if idle || deferred => {
            write::bare(out, tag::EMPTY_QUERY_RESPONSE);
        }
        Kind::Begin(_) if task.tenant.mode == PoolMode::Statement => {
            let error = Visible::error(
                Fault::Client,
                SqlState::FEATURE_NOT_SUPPORTED,
                "transaction blocks are not allowed with pool.mode = \"statement\"",
            );
            write::error(out, &error);
        }
        Kind::Begin(modes) if idle => {
            write::command_complete(
                out,
                if modes.start {
                    "START TRANSACTION"
                } else {
                    "BEGIN"
                },
            );
            task.session.transaction = Transaction::Deferred(Replay::new(modes, text.into()));
        }
        Kind::Commit if deferred => {
            write::command_complete(out, "COMMIT");
            task.session.transaction = Transaction::Idle;
            task.session.transaction_ended(true);
        }
        Kind::Rollback if deferred => {
            write::command_complete(out, "ROLLBACK");
            task.session.transaction = Transaction::Idle;
            task.session.transaction_ended(false);
        }
        Kind::Own if task.session.transaction.status() != Status::Failed => {
            match own_effect(text, task) {
                Some(effect) => own_statement(task, text, &effect, out),
                None => return false,
            }
        }
        _ if request.class.traits.has(Traits::RESETS) => {
            let Some(resets) = sql::resets(text, task.session.lexing) else {
                return false;
            };
            if !put_back(task, &resets) {
                return false;
            }
            for reset in resets {
                if reset == Reset::UnlockAll {
                    nothing_unlocked(out);
                }
                write::command_complete(out, reset.command());
            }
        }
        _ if request.class.traits.has(Traits::SQL_PREPARED)
            && task.session.transaction.status() != Status::Failed =>
        {
            match deallocated(task, text) {
                Some(command) => write::command_complete(out, command),
                None => return false,
            }
        }
        Kind::Empty
        | Kind::Begin(_)
        | Kind::Commit
        | Kind::Rollback
        | Kind::Own
        | Kind::Single
        | Kind::Several => return false,
    }
    // A simple Query drops the unnamed statement.
    task.session.unnamed.drop_now();
    write::ready_for_query(out, task.session.transaction.status());
    true
}

/// Carries out what puts a session back to how it began, if no server has anything of it; whether
/// it did.
fn put_back(task: &mut Task, resets: &[Reset]) -> bool {
    let untouched = task.session.transaction == Transaction::Idle
        && task.held.is_none()
        && task.replica.is_none()
        && task.session.pins.is_empty()
        && !task.session.suspect
        && task.session.settings.current() == task.session.settings.base()
        // SET ROLE NONE isn't RESET ROLE where the startup packet asked for a role.
        && !(resets.contains(&Reset::Set) && task.session.settings.base().changes_identity());
    if !untouched {
        return false;
    }
    for reset in resets {
        match reset {
            Reset::DiscardAll | Reset::DeallocateAll => {
                if let Some(names) = task.session.known_names() {
                    // What the request itself has parsed was parsed before.
                    names.settle();
                    names.clear();
                }
                if *reset == Reset::DiscardAll {
                    task.session.wrote_on = None;
                }
            }
            Reset::DiscardSequences => task.session.wrote_on = None,
            Reset::DiscardPlans
            | Reset::DiscardTemp
            | Reset::Reset
            | Reset::Set
            | Reset::CloseAll
            | Reset::Unlisten
            | Reset::UnlockAll => {}
        }
    }
    true
}

/// The row of `SELECT pg_advisory_unlock_all()`.
fn nothing_unlocked(out: &mut Vec<u8>) {
    write::row(out, "pg_advisory_unlock_all", VOID, "");
}

/// The type's oid and length.
const VOID: (u32, i16) = (2278, 4);

/// The frames execute one statement as drivers do: it is parsed at most once, bound without
/// parameters, and what was bound is executed once. Whatever is said otherwise is for the server to
/// answer.
fn execute_one(frames: &[u8]) -> bool {
    let (mut statement, mut bound, mut executed) = (None, None, false);
    let mut at = 0;
    while let Ok(Some(header)) = Header::parse(frames.get(at..).unwrap_or_default()) {
        let body = frames.get(at + HEADER..at + header.len).unwrap_or_default();
        at += header.len;
        let usual = match header.tag {
            front::PARSE => match Parse::read(body) {
                Ok(parse) => statement.replace(parse.name).is_none(),
                Err(_) => false,
            },
            front::BIND => match Bind::read(body) {
                Ok(bind) if bound.is_none() => {
                    bound = Some(bind.portal);
                    *statement.get_or_insert(bind.statement) == bind.statement
                        && bind.parameters().is_ok_and(|values| values.is_empty())
                }
                _ => false,
            },
            front::DESCRIBE => {
                Target::read(header.tag, body).is_ok_and(|target| match target.object {
                    Object::Statement => *statement.get_or_insert(target.name) == target.name,
                    Object::Portal => bound == Some(target.name),
                })
            }
            front::EXECUTE => match Execute::read(body) {
                Ok(execute) if !executed => {
                    executed = true;
                    bound == Some(execute.portal)
                }
                _ => false,
            },
            front::CLOSE => executed,
            _ => true,
        };
        if !usual {
            return false;
        }
    }
    executed
}

fn reset_extended(task: &mut Task, request: &Request, scratch: &mut Scratch) -> bool {
    let frames = scratch
        .client_in
        .filled()
        .get(..request.len)
        .unwrap_or_default();
    let text = its_text(frames, task, &mut scratch.resolved).filter(|_| execute_one(frames));
    let Some(text) = text else {
        return false;
    };
    // What has rows is left to the server, as is what is only prepared.
    let reset = match sql::resets(&text, task.session.lexing).as_deref() {
        Some([Reset::UnlockAll]) | None => return false,
        Some([reset]) => *reset,
        Some(_) => return false,
    };
    if !put_back(task, &[reset]) {
        return false;
    }
    acknowledge(
        request,
        scratch,
        |out| write::command_complete(out, reset.command()),
        None,
    );
    task.session.settle();
    let status = task.session.transaction.status();
    write::ready_for_query(&mut scratch.to_client.bytes, status);
    true
}

/// DEALLOCATE of a name that the session has, or of all: connections learn of it when they next
/// need to. Its command tag, if it was that.
fn deallocated(task: &mut Task, text: &[u8]) -> Option<&'static str> {
    let effects = sql::effects(text, task.session.lexing)?;
    match effects.as_slice() {
        [Effect::Deallocate(Some(name))] => {
            let known = task.session.known_names()?.remove(name.as_bytes());
            known.then_some("DEALLOCATE")
        }
        [Effect::Deallocate(None)] => {
            if let Some(names) = task.session.known_names() {
                names.clear();
            }
            Some("DEALLOCATE ALL")
        }
        _ => None,
    }
}

/// Only Close of statements and Sync: nothing that a server knows of.
fn idle(task: &mut Task, request: &Request, scratch: &mut Scratch) {
    let frames = scratch
        .client_in
        .filled()
        .get(..request.len)
        .unwrap_or_default();
    let out = &mut scratch.to_client.bytes;
    let mut at = 0;
    while let Ok(Some(header)) = Header::parse(frames.get(at..).unwrap_or_default()) {
        if header.tag == front::CLOSE {
            write::bare(out, tag::CLOSE_COMPLETE);
        }
        at += header.len;
    }
    task.session.settle();
    if request.end == End::Sync {
        write::ready_for_query(out, task.session.transaction.status());
    }
}

/// The server connection of the open transaction is gone: as in any failed transaction, only its
/// end is carried out.
fn in_lost_transaction(task: &mut Task, request: &Request, scratch: &mut Scratch) -> bool {
    let untold = matches!(task.session.transaction, Transaction::Lost { told: false });
    if untold && request.class.kind == Kind::Commit {
        // Many drivers take any answer to COMMIT that is no error for a success.
        task.session.transaction = Transaction::Idle;
        task.answer_error(request, &lost(), scratch);
        return true;
    }
    let ends = matches!(request.class.kind, Kind::Commit | Kind::Rollback);
    if ends && request.query.is_some() {
        task.session.transaction = Transaction::Idle;
        let out = &mut scratch.to_client.bytes;
        write::command_complete(out, "ROLLBACK");
        write::ready_for_query(out, Status::Idle);
        return true;
    }
    if ends && request.end == End::Sync {
        task.session.transaction = Transaction::Idle;
        acknowledge(
            request,
            scratch,
            |out| write::command_complete(out, "ROLLBACK"),
            None,
        );
        write::ready_for_query(&mut scratch.to_client.bytes, Status::Idle);
        return true;
    }
    if matches!(request.end, End::Sync | End::Flush) && request.work == Work::Nothing {
        idle(task, request, scratch);
        return true;
    }
    let error = if untold {
        task.session.transaction = Transaction::Lost { told: true };
        lost()
    } else {
        aborted()
    };
    task.answer_error(request, &error, scratch);
    true
}

/// What the first request hears after its transaction's server connection was lost at rest.
fn lost() -> Visible {
    Visible::error(
        Fault::Node,
        SqlState::SERIALIZATION_FAILURE,
        "the transaction was rolled back: its server connection was lost",
    )
    .hint("run the transaction again")
}

/// What PostgreSQL says to anything but the end of a failed transaction.
pub(super) fn aborted() -> Visible {
    Visible::error(
        Fault::Node,
        SqlState::IN_FAILED_SQL_TRANSACTION,
        "current transaction is aborted, commands ignored until end of transaction block",
    )
}

/// The modes of a transaction that was answered but not opened, and is now to be opened by
/// `SET TRANSACTION`.
pub(super) fn merged(modes: Begin, text: Option<&[u8]>, lexing: sql::Lexing) -> Begin {
    let effects = text
        .and_then(|text| sql::effects(text, lexing))
        .unwrap_or_default();
    effects.iter().fold(modes, |modes, effect| match effect {
        Effect::SetTransaction(more) => modes.merged(*more),
        _ => modes,
    })
}

// SET, RESET and SHOW of `pgsplit.*`.

fn own_effect(text: &[u8], task: &Task) -> Option<Effect> {
    let effects = sql::effects(text, task.session.lexing)?;
    effects
        .into_iter()
        .find(|effect| matches!(effect, Effect::OwnSet { .. } | Effect::OwnShow(_)))
}

fn own_statement(task: &mut Task, text: &[u8], effect: &Effect, out: &mut Vec<u8>) {
    let word = text.trim_ascii_start().get(..5).unwrap_or_default();
    let tag = if word.eq_ignore_ascii_case(b"reset") {
        "RESET"
    } else {
        "SET"
    };
    match effect {
        Effect::OwnSet { key, value, scope } => {
            let session = &mut task.session;
            let (own, seen, value) = (&mut session.own, &mut session.seen, value.as_deref());
            let set = match (session.transaction.status(), scope) {
                (Status::Idle, Scope::Local) => {
                    let warning = Visible::error(
                        Fault::Client,
                        SqlState::NO_ACTIVE_SQL_TRANSACTION,
                        "SET LOCAL can only be used in transaction blocks",
                    );
                    write::warning(out, &warning);
                    Ok(())
                }
                (Status::Idle, Scope::Session) => own.set(key, value, seen),
                _ => own.set_in_transaction(key, value, *scope, seen),
            };
            match set {
                Ok(()) => write::command_complete(out, tag),
                Err(invalid) => write::error(out, &visible(&invalid)),
            }
        }
        Effect::OwnShow(key) => match shown(task, key) {
            Ok(value) => {
                write::text_row(out, &format!("pgsplit.{key}"), &value);
                write::command_complete(out, "SHOW");
            }
            Err(invalid) => write::error(out, &visible(&invalid)),
        },
        _ => {}
    }
}

fn visible(invalid: &own::Invalid) -> Visible {
    let sqlstate = match invalid {
        own::Invalid::Key(_) => SqlState::UNDEFINED_OBJECT,
        own::Invalid::Value { .. } => SqlState::INVALID_PARAMETER_VALUE,
        own::Invalid::ReadOnly(_) => SqlState::CANT_CHANGE_RUNTIME_PARAM,
    };
    Visible::error(Fault::Client, sqlstate, invalid.to_string())
}

fn shown(task: &Task, key: &str) -> Result<String, own::Invalid> {
    let (own, policy) = (&task.session.own, &task.tenant.policy);
    Ok(match key {
        "route" => own.route.unwrap_or(policy.route).name().to_owned(),
        "consistency" => own
            .consistency
            .unwrap_or(policy.consistency)
            .name()
            .to_owned(),
        "transactions" => own
            .transactions
            .unwrap_or(policy.transactions)
            .name()
            .to_owned(),
        "max_lag" => {
            format!(
                "{}ms",
                own.max_lag
                    .as_deref()
                    .copied()
                    .unwrap_or(policy.max_lag)
                    .as_millis()
            )
        }
        "min_lsn" => task
            .session
            .seen
            .min_lsn()
            .map(|lsn| lsn.to_string())
            .unwrap_or_default(),
        // A bound of all that the session has seen: the newest LSN that is known, if no sample
        // taken since tells more. Empty when none is known.
        "last_lsn" => {
            let view = task.proxy.monitor.view();
            match task.session.seen.whole().watermark(&view) {
                Ok(lsn) => lsn.map(|lsn| lsn.to_string()).unwrap_or_default(),
                Err(_unsampled) => {
                    task.proxy.want_samples();
                    String::new()
                }
            }
        }
        other => return Err(own::Invalid::Key(other.to_owned())),
    })
}

fn own_extended(task: &mut Task, request: &Request, scratch: &mut Scratch) -> bool {
    let frames = scratch
        .client_in
        .filled()
        .get(..request.len)
        .unwrap_or_default();
    let Some(text) = its_text(frames, task, &mut scratch.resolved) else {
        return false;
    };
    let Some(effect) = own_effect(&text, task) else {
        return false;
    };
    let executes = request.work == Work::Runs;
    let mut rows = Vec::new();
    match &effect {
        // Only described: nothing is to change yet.
        Effect::OwnSet { .. } if !executes => {}
        effect => own_statement(task, &text, effect, &mut rows),
    }
    if rows.first() == Some(&tag::ERROR_RESPONSE) {
        task.session.undo();
        scratch.to_client.bytes.extend_from_slice(&rows);
    } else {
        // RowDescription answers Describe, the rest answers Execute.
        let description = match Header::parse(&rows) {
            Ok(Some(header)) if header.tag == tag::ROW_DESCRIPTION => {
                rows.drain(..header.len).collect()
            }
            _ => Vec::new(),
        };
        acknowledge(
            request,
            scratch,
            |out| out.extend_from_slice(&rows),
            Some(description),
        );
        task.session.settle();
    }
    write::ready_for_query(
        &mut scratch.to_client.bytes,
        task.session.transaction.status(),
    );
    true
}

/// The text of the one statement that these frames prepare, bind or describe.
fn its_text(frames: &[u8], task: &Task, resolved: &mut Resolved) -> Option<Vec<u8>> {
    let header = Header::parse(frames).ok()??;
    let body = frames.get(HEADER..header.len)?;
    let name = match header.tag {
        front::PARSE => return Parse::read(body).ok().map(|parse| parse.text.to_vec()),
        front::BIND => Bind::read(body).ok()?.statement,
        front::DESCRIBE => Target::read(header.tag, body).ok()?.name,
        _ => return None,
    };
    if name.is_empty() {
        return task.session.unnamed.now().text().map(<[u8]>::to_vec);
    }
    let statement = resolved.resolve()?;
    resolved.rewind();
    Some(statement.text().to_vec())
}

/// Acknowledges each frame of an extended request; `execute` writes what answers Execute.
fn acknowledge(
    request: &Request,
    scratch: &mut Scratch,
    execute: impl Fn(&mut Vec<u8>),
    description: Option<Vec<u8>>,
) {
    let frames = scratch
        .client_in
        .filled()
        .get(..request.len)
        .unwrap_or_default();
    let out = &mut scratch.to_client.bytes;
    let mut at = 0;
    while let Ok(Some(header)) = Header::parse(frames.get(at..).unwrap_or_default()) {
        let body = frames.get(at + HEADER..at + header.len).unwrap_or_default();
        match header.tag {
            front::PARSE => write::bare(out, tag::PARSE_COMPLETE),
            front::BIND => write::bare(out, tag::BIND_COMPLETE),
            front::CLOSE => write::bare(out, tag::CLOSE_COMPLETE),
            front::EXECUTE => execute(out),
            front::DESCRIBE => {
                let statement = Target::read(header.tag, body)
                    .is_ok_and(|target| target.object == Object::Statement);
                if statement {
                    write::frame(out, tag::PARAMETER_DESCRIPTION, |out| {
                        out.extend_from_slice(&[0; 2]);
                    });
                }
                match &description {
                    Some(row) if !row.is_empty() => out.extend_from_slice(row),
                    _ => write::bare(out, tag::NO_DATA),
                }
            }
            _ => {}
        }
        at += header.len;
    }
}
