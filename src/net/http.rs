//! Asking a server over HTTP: one request, one answer. HTTP/1.0, for which servers don't chunk
//! their answers (RFC 9112, section 6.1).

use std::io;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, ToSocketAddrs},
};

/// Longest answer, headers included, in bytes.
const LONGEST: u64 = 16 << 20;

/// Sends `message` and gives all that comes back until the server closes the connection. Has no
/// deadline of its own.
///
/// # Errors
/// No connection, a connection that breaks, an answer of more than 16 MiB.
pub async fn exchange(address: impl ToSocketAddrs, message: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(message).await?;
    let mut answer = Vec::new();
    let length = stream.take(LONGEST).read_to_end(&mut answer).await?;
    if length as u64 == LONGEST {
        return Err(io::Error::other("the answer is too long"));
    }
    Ok(answer)
}

/// The request for `path`, without a body.
#[must_use]
pub fn get(host: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.0\r\nHost: {host}\r\nAccept: application/json\r\n\r\n").into_bytes()
}

/// An answer's status and body. `None`: it isn't HTTP.
#[must_use]
pub fn parse(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, body) = answer.split_at_checked(end)?;
    let head = std::str::from_utf8(head).ok()?;
    let mut words = head.lines().next()?.split(' ');
    if !words.next()?.starts_with("HTTP/1.") {
        return None;
    }
    Some((words.next()?.parse().ok()?, body.get(4..)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_answer_panics(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
