//! Messages as the protocol's documentation has them.

fn frame(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length = 4 + parts.iter().map(|part| part.len()).sum::<usize>();
    let length = u32::try_from(length).unwrap().to_be_bytes();
    [&[tag], &length[..], &parts.concat()].concat()
}

// From a client.

pub(super) fn query(text: &str) -> Vec<u8> {
    frame(b'Q', &[text.as_bytes(), b"\0"])
}

pub(super) fn parse(name: &str, text: &str) -> Vec<u8> {
    frame(b'P', &[name.as_bytes(), b"\0", text.as_bytes(), b"\0\0\0"])
}

/// No parameters, all results as text.
pub(super) fn bind(portal: &str, statement: &str) -> Vec<u8> {
    frame(
        b'B',
        &[
            portal.as_bytes(),
            b"\0",
            statement.as_bytes(),
            b"\0\0\0\0\0\0\0",
        ],
    )
}

pub(super) fn describe_statement(name: &str) -> Vec<u8> {
    frame(b'D', &[b"S", name.as_bytes(), b"\0"])
}

pub(super) fn describe_portal(name: &str) -> Vec<u8> {
    frame(b'D', &[b"P", name.as_bytes(), b"\0"])
}

/// All rows.
pub(super) fn execute(portal: &str) -> Vec<u8> {
    frame(b'E', &[portal.as_bytes(), b"\0\0\0\0\0"])
}

/// One row.
pub(super) fn execute_one(portal: &str) -> Vec<u8> {
    frame(b'E', &[portal.as_bytes(), b"\0\0\0\0\x01"])
}

pub(super) fn close_statement(name: &str) -> Vec<u8> {
    frame(b'C', &[b"S", name.as_bytes(), b"\0"])
}

pub(super) fn sync() -> Vec<u8> {
    frame(b'S', &[])
}

pub(super) fn flush() -> Vec<u8> {
    frame(b'H', &[])
}

pub(super) fn terminate() -> Vec<u8> {
    frame(b'X', &[])
}

/// Parse, Bind and Execute of an unnamed statement.
pub(super) fn extended(text: &str) -> Vec<u8> {
    [parse("", text), bind("", ""), execute("")].concat()
}

// From either side.

pub(super) fn copy_data(data: &str) -> Vec<u8> {
    frame(b'd', &[data.as_bytes()])
}

pub(super) fn copy_done() -> Vec<u8> {
    frame(b'c', &[])
}

pub(super) fn copy_fail(why: &str) -> Vec<u8> {
    frame(b'f', &[why.as_bytes(), b"\0"])
}

// From a server.

pub(super) fn authentication_ok() -> Vec<u8> {
    frame(b'R', &[&[0; 4]])
}

pub(super) fn key_data(pid: u32, key: &[u8]) -> Vec<u8> {
    frame(b'K', &[&pid.to_be_bytes(), key])
}

pub(super) fn parameter(name: &str, value: &str) -> Vec<u8> {
    frame(b'S', &[name.as_bytes(), b"\0", value.as_bytes(), b"\0"])
}

/// `status`: I, T or E.
pub(super) fn ready(status: char) -> Vec<u8> {
    frame(b'Z', &[&[u8::try_from(status).unwrap()]])
}

pub(super) fn complete(tag: &str) -> Vec<u8> {
    frame(b'C', &[tag.as_bytes(), b"\0"])
}

pub(super) fn parsed() -> Vec<u8> {
    frame(b'1', &[])
}

pub(super) fn bound() -> Vec<u8> {
    frame(b'2', &[])
}

pub(super) fn closed() -> Vec<u8> {
    frame(b'3', &[])
}

pub(super) fn suspended() -> Vec<u8> {
    frame(b's', &[])
}

pub(super) fn no_parameters() -> Vec<u8> {
    frame(b't', &[b"\0\0"])
}

/// RowDescription of one column of type text.
pub(super) fn column() -> Vec<u8> {
    frame(
        b'T',
        &[
            b"\0\x01c\0",
            &[0; 6],
            &25u32.to_be_bytes(),
            b"\xFF\xFF\xFF\xFF\xFF\xFF\0\0",
        ],
    )
}

/// DataRow of one value.
pub(super) fn row(value: &str) -> Vec<u8> {
    let length = u32::try_from(value.len()).unwrap().to_be_bytes();
    frame(b'D', &[b"\0\x01", &length, value.as_bytes()])
}

/// DataRow of a value and two NULLs.
pub(super) fn row_of_three(value: &str) -> Vec<u8> {
    let length = u32::try_from(value.len()).unwrap().to_be_bytes();
    frame(b'D', &[b"\0\x03", &length, value.as_bytes(), &[0xFF; 8]])
}

/// A row of these columns.
pub(super) fn row_of(values: &[&str]) -> Vec<u8> {
    let mut body = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
    for value in values {
        body.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
        body.extend_from_slice(value.as_bytes());
    }
    frame(b'D', &[&body])
}

/// What answers a simple Query of one row, up to ReadyForQuery.
pub(super) fn one_row(value: &str) -> Vec<u8> {
    [column(), row(value), complete("SELECT 1")].concat()
}

/// The whole answer to a simple Query that returns nothing.
pub(super) fn done(tag: &str, status: char) -> Vec<u8> {
    [complete(tag), ready(status)].concat()
}

pub(super) fn error(sqlstate: &str, message: &str) -> Vec<u8> {
    report(b'E', "ERROR", sqlstate, message)
}

pub(super) fn fatal(sqlstate: &str, message: &str) -> Vec<u8> {
    report(b'E', "FATAL", sqlstate, message)
}

pub(super) fn notice(message: &str) -> Vec<u8> {
    report(b'N', "NOTICE", "00000", message)
}

fn report(tag: u8, severity: &str, sqlstate: &str, message: &str) -> Vec<u8> {
    let fields = format!("S{severity}\0V{severity}\0C{sqlstate}\0M{message}\0\0");
    frame(tag, &[fields.as_bytes()])
}

pub(super) fn notification(channel: &str, payload: &str) -> Vec<u8> {
    let strings = format!("{channel}\0{payload}\0");
    frame(b'A', &[&7u32.to_be_bytes(), strings.as_bytes()])
}

/// CopyInResponse for one column of text.
pub(super) fn copy_in() -> Vec<u8> {
    frame(b'G', &[b"\0\0\x01\0\0"])
}

/// CopyOutResponse for one column of text.
pub(super) fn copy_out() -> Vec<u8> {
    frame(b'H', &[b"\0\0\x01\0\0"])
}
