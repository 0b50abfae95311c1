//! Messages that pgsplit writes itself, appended to a buffer.

use super::{backend::Status, backend::tag as back, frontend::tag as front};
use crate::error::Visible;

/// A frame whose body `fill` appends.
pub fn frame(out: &mut Vec<u8>, tag: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    fill(out);
    // Bodies are made here from bounded parts: far below the limit of a message.
    let length = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    if let Some(slot) = out.get_mut(at..at + 4) {
        slot.copy_from_slice(&length.to_be_bytes());
    }
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text);
    out.push(0);
}

/// Query.
pub fn query(out: &mut Vec<u8>, text: &[u8]) {
    frame(out, front::QUERY, |out| string(out, text));
}

/// Parse; `types` is the count and the types as they stand in the message.
pub fn parse(out: &mut Vec<u8>, name: &[u8], text: &[u8], types: &[u8]) {
    frame(out, front::PARSE, |out| {
        string(out, name);
        string(out, text);
        out.extend_from_slice(types);
    });
}

/// The head of a Bind whose body goes on with `rest_len` bytes behind the names.
pub fn bind_head(out: &mut Vec<u8>, portal: &[u8], statement: &[u8], rest_len: usize) {
    out.push(front::BIND);
    let length = 4 + portal.len() + 1 + statement.len() + 1 + rest_len;
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    string(out, portal);
    string(out, statement);
}

/// Describe or Close (`tag`) of a prepared statement.
pub fn statement_target(out: &mut Vec<u8>, tag: u8, name: &[u8]) {
    frame(out, tag, |out| {
        out.push(b'S');
        string(out, name);
    });
}

/// Close of a portal.
pub fn close_portal(out: &mut Vec<u8>, name: &[u8]) {
    frame(out, front::CLOSE, |out| {
        out.push(b'P');
        string(out, name);
    });
}

/// Execute of a portal, to its end.
pub fn execute(out: &mut Vec<u8>, portal: &[u8]) {
    frame(out, front::EXECUTE, |out| {
        string(out, portal);
        out.extend_from_slice(&[0; 4]);
    });
}

/// Sync.
pub fn sync(out: &mut Vec<u8>) {
    frame(out, front::SYNC, |_| ());
}

/// Terminate.
pub fn terminate(out: &mut Vec<u8>) {
    frame(out, front::TERMINATE, |_| ());
}

/// AuthenticationOk.
pub fn authentication_ok(out: &mut Vec<u8>) {
    frame(out, back::AUTHENTICATION, |out| {
        out.extend_from_slice(&[0; 4])
    });
}

/// ParameterStatus.
pub fn parameter_status(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    frame(out, back::PARAMETER_STATUS, |out| {
        string(out, name);
        string(out, value);
    });
}

/// BackendKeyData.
pub fn backend_key_data(out: &mut Vec<u8>, pid: u32, key: &[u8]) {
    frame(out, back::BACKEND_KEY_DATA, |out| {
        out.extend_from_slice(&pid.to_be_bytes());
        out.extend_from_slice(key);
    });
}

/// ReadyForQuery.
pub fn ready_for_query(out: &mut Vec<u8>, status: Status) {
    frame(out, back::READY_FOR_QUERY, |out| out.push(status.letter()));
}

/// CommandComplete.
pub fn command_complete(out: &mut Vec<u8>, tag: &str) {
    frame(out, back::COMMAND_COMPLETE, |out| {
        string(out, tag.as_bytes())
    });
}

/// A message without a body: ParseComplete, CloseComplete, EmptyQueryResponse, …
pub fn bare(out: &mut Vec<u8>, tag: u8) {
    frame(out, tag, |_| ());
}

/// RowDescription of one column of text, and its one row.
pub fn text_row(out: &mut Vec<u8>, column: &str, value: &str) {
    row(out, column, (25, -1), value);
}

/// The same of any type, given by its oid and its length.
pub fn row(out: &mut Vec<u8>, column: &str, (oid, length): (u32, i16), value: &str) {
    frame(out, back::ROW_DESCRIPTION, |out| {
        out.extend_from_slice(&1u16.to_be_bytes());
        string(out, column.as_bytes());
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(&oid.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&(-1i32).to_be_bytes());
        out.extend_from_slice(&[0; 2]);
    });
    frame(out, back::DATA_ROW, |out| {
        out.extend_from_slice(&1u16.to_be_bytes());
        out.extend_from_slice(&u32::try_from(value.len()).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(value.as_bytes());
    });
}

/// ErrorResponse.
pub fn error(out: &mut Vec<u8>, error: &Visible) {
    report(
        out,
        back::ERROR_RESPONSE,
        if error.fatal { "FATAL" } else { "ERROR" },
        error,
    );
}

/// NoticeResponse with severity WARNING.
pub fn warning(out: &mut Vec<u8>, warning: &Visible) {
    report(out, back::NOTICE_RESPONSE, "WARNING", warning);
}

fn report(out: &mut Vec<u8>, tag: u8, severity: &str, what: &Visible) {
    frame(out, tag, |out| {
        let mut field = |letter: u8, text: &[u8]| {
            out.push(letter);
            string(out, text);
        };
        field(b'S', severity.as_bytes());
        field(b'V', severity.as_bytes());
        field(b'C', &what.sqlstate.0);
        field(b'M', what.message.as_bytes());
        if let Some(hint) = &what.hint {
            field(b'H', hint.as_bytes());
        }
        out.push(0);
    });
}
