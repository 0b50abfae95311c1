//! Authentication messages of both directions, and PostgreSQL's md5 hashes (PostgreSQL manual,
//! "Message Formats"; `auth.c`).

use std::fmt;

use md5::{Digest as _, Md5};

use super::SqlState;

/// Longest SASL message of a client, in bytes (`PG_MAX_SASL_MESSAGE_LENGTH`).
pub const MAX_SASL_MESSAGE: usize = 1024;

/// An md5 password as PostgreSQL stores it, without the `md5` before it: 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Md5Hash([u8; 32]);

/// What a server asks for, or tells, in an Authentication message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    Ok,
    CleartextPassword,
    Md5Password {
        salt: [u8; 4],
    },
    /// Its mechanisms.
    Sasl(Vec<&'a [u8]>),
    SaslContinue(&'a [u8]),
    SaslFinal(&'a [u8]),
    /// Kerberos, GSSAPI, SSPI, …: the number.
    Other(u32),
}

/// An Authentication message, or an answer to one, that is cut short or has something behind its
/// end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed authentication message")
    }
}

impl std::error::Error for Malformed {}

impl<'a> Request<'a> {
    /// Reads the body of an Authentication message.
    ///
    /// # Errors
    /// Cut short.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let (&code, rest) = body.split_first_chunk::<4>().ok_or(Malformed)?;
        Ok(match u32::from_be_bytes(code) {
            0 => Self::Ok,
            3 => Self::CleartextPassword,
            5 => Self::Md5Password {
                salt: rest.try_into().map_err(|_error| Malformed)?,
            },
            10 => {
                let mut mechanisms: Vec<_> = rest.split(|&b| b == 0).collect();
                // A zero byte ends each name and another one the list.
                if !rest.ends_with(b"\0\0") || rest.starts_with(b"\0") {
                    return Err(Malformed);
                }
                mechanisms.truncate(mechanisms.len().saturating_sub(2));
                Self::Sasl(mechanisms)
            }
            11 => Self::SaslContinue(rest),
            12 => Self::SaslFinal(rest),
            other => Self::Other(other),
        })
    }
}

/// AuthenticationMD5Password.
pub fn write_md5_request(out: &mut Vec<u8>, salt: [u8; 4]) {
    message(out, b'R', &[&5u32.to_be_bytes(), &salt]);
}

/// AuthenticationSASL.
pub fn write_sasl_request(out: &mut Vec<u8>, mechanisms: &[&str]) {
    let mut list = Vec::with_capacity(64);
    for mechanism in mechanisms {
        list.extend_from_slice(mechanism.as_bytes());
        list.push(0);
    }
    message(out, b'R', &[&10u32.to_be_bytes(), &list, b"\0"]);
}

/// AuthenticationSASLContinue.
pub fn write_sasl_continue(out: &mut Vec<u8>, data: &str) {
    message(out, b'R', &[&11u32.to_be_bytes(), data.as_bytes()]);
}

/// AuthenticationSASLFinal.
pub fn write_sasl_final(out: &mut Vec<u8>, data: &str) {
    message(out, b'R', &[&12u32.to_be_bytes(), data.as_bytes()]);
}

/// PasswordMessage: a password in clear text, or an md5 answer.
pub fn write_password(out: &mut Vec<u8>, password: &[u8]) {
    message(out, b'p', &[password, b"\0"]);
}

/// SASLInitialResponse.
pub fn write_sasl_initial_response(out: &mut Vec<u8>, mechanism: &str, data: &str) {
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes();
    message(
        out,
        b'p',
        &[mechanism.as_bytes(), b"\0", &length, data.as_bytes()],
    );
}

/// SASLResponse.
pub fn write_sasl_response(out: &mut Vec<u8>, data: &str) {
    message(out, b'p', &[data.as_bytes()]);
}

/// Reads the body of a SASLInitialResponse: the mechanism and its data (empty when the client
/// sends none).
///
/// # Errors
/// Cut short, or something behind its end.
pub fn parse_sasl_initial_response(body: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let end = memchr::memchr(0, body).ok_or(Malformed)?;
    let (mechanism, rest) = body.split_at_checked(end).ok_or(Malformed)?;
    let (&length, data) = rest
        .get(1..)
        .and_then(|rest| rest.split_first_chunk::<4>())
        .ok_or(Malformed)?;
    match i32::from_be_bytes(length) {
        -1 if data.is_empty() => Ok((mechanism, data)),
        length if usize::try_from(length) == Ok(data.len()) => Ok((mechanism, data)),
        _ => Err(Malformed),
    }
}

/// Reads the body of a PasswordMessage.
///
/// # Errors
/// No zero byte at its end, or one before.
pub fn parse_password(body: &[u8]) -> Result<&[u8], Malformed> {
    match body.split_last() {
        Some((0, password)) if !password.contains(&0) => Ok(password),
        _ => Err(Malformed),
    }
}

/// ErrorResponse of severity FATAL.
pub fn write_fatal(out: &mut Vec<u8>, sqlstate: SqlState, text: &str, hint: Option<&str>) {
    let mut body = Vec::with_capacity(text.len() + 32);
    let mut field = |letter: u8, text: &[u8]| {
        body.push(letter);
        // A field ends with its first zero byte.
        body.extend(text.iter().copied().filter(|&b| b != 0));
        body.push(0);
    };
    field(b'S', b"FATAL");
    field(b'V', b"FATAL");
    field(b'C', &sqlstate.0);
    field(b'M', text.as_bytes());
    if let Some(hint) = hint {
        field(b'H', hint.as_bytes());
    }
    message(out, b'E', &[&body, b"\0"]);
}

/// An error as protocols before 3.0 have it.
pub fn write_fatal_old(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(b"EFATAL:  ");
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\n\0");
}

fn message(out: &mut Vec<u8>, tag: u8, parts: &[&[u8]]) {
    let length = 4 + parts.iter().map(|part| part.len()).sum::<usize>();
    out.push(tag);
    // All these bodies are made of parts of limited length.
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

impl Md5Hash {
    /// The hash of a password; PostgreSQL salts it with the user's name.
    #[must_use]
    pub fn of(password: &str, user: &str) -> Self {
        Self(hex(&[password.as_bytes(), user.as_bytes()]))
    }

    /// Reads `md5` and 32 hexadecimal digits of any case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = <[u8; 32]>::try_from(text.strip_prefix("md5")?.as_bytes()).ok()?;
        let valid = digits.iter().all(u8::is_ascii_hexdigit);
        valid.then(|| Self(digits.map(|d| d.to_ascii_lowercase())))
    }

    /// What the client sends for it: `md5` and 32 digits.
    #[must_use]
    pub fn answer(&self, salt: [u8; 4]) -> [u8; 35] {
        let mut answer = *b"md5................................";
        if let Some(digits) = answer.last_chunk_mut::<32>() {
            *digits = hex(&[&self.0, &salt]);
        }
        answer
    }
}

impl fmt::Debug for Md5Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Md5Hash(…)")
    }
}

fn hex(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Md5::new();
    for part in parts {
        hash.update(part);
    }
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(hash.finalize()) {
        for (digit, half) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
            *digit = if half < 10 {
                b'0' + half
            } else {
                b'a' + half - 10
            };
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(write: impl FnOnce(&mut Vec<u8>)) -> (u8, Vec<u8>) {
        let mut out = Vec::new();
        write(&mut out);
        let length = u32::from_be_bytes(out[1..5].try_into().unwrap()) as usize;
        assert_eq!(length + 1, out.len());
        (out[0], out[5..].to_vec())
    }

    #[test]
    fn requests_are_read_as_they_are_written() {
        let (tag, sasl) = body(|out| write_sasl_request(out, &["A", "B-PLUS"]));
        assert_eq!(tag, b'R');
        assert_eq!(
            Request::parse(&sasl),
            Ok(Request::Sasl(vec![b"A", b"B-PLUS"]))
        );
        let (_, md5) = body(|out| write_md5_request(out, [1, 2, 3, 4]));
        assert_eq!(
            Request::parse(&md5),
            Ok(Request::Md5Password { salt: [1, 2, 3, 4] })
        );
        let (_, next) = body(|out| write_sasl_continue(out, "r=x"));
        assert_eq!(Request::parse(&next), Ok(Request::SaslContinue(b"r=x")));
        let (_, last) = body(|out| write_sasl_final(out, "v=x"));
        assert_eq!(Request::parse(&last), Ok(Request::SaslFinal(b"v=x")));
        assert_eq!(Request::parse(&[0; 4]), Ok(Request::Ok));
        assert_eq!(
            Request::parse(&[0, 0, 0, 3]),
            Ok(Request::CleartextPassword)
        );
        assert_eq!(Request::parse(&[0, 0, 0, 7]), Ok(Request::Other(7)));
        for bad in [
            &[0, 0, 0][..],
            &[0, 0, 0, 5, 1],
            b"\0\0\0\x0A",
            b"\0\0\0\x0AA",
            b"\0\0\0\x0AA\0",
            b"\0\0\0\x0A\0\0",
        ] {
            assert_eq!(Request::parse(bad), Err(Malformed), "{bad:?}");
        }
    }

    #[test]
    fn answers_are_read_as_they_are_written() {
        let (tag, first) = body(|out| write_sasl_initial_response(out, "A", "n,,"));
        assert_eq!(tag, b'p');
        assert_eq!(
            parse_sasl_initial_response(&first),
            Ok((&b"A"[..], &b"n,,"[..]))
        );
        assert_eq!(
            parse_sasl_initial_response(b"A\0\xFF\xFF\xFF\xFF"),
            Ok((&b"A"[..], &b""[..]))
        );
        for bad in [
            &b"A"[..],
            b"A\0",
            b"A\0\0\0\0",
            b"A\0\0\0\0\x02x",
            b"A\0\0\0\0\0x",
            b"A\0\xFF\xFF\xFF\xFFx",
        ] {
            assert_eq!(parse_sasl_initial_response(bad), Err(Malformed), "{bad:?}");
        }
        let (_, password) = body(|out| write_password(out, b"secret"));
        assert_eq!(parse_password(&password), Ok(&b"secret"[..]));
        for bad in [&b""[..], b"secret", b"sec\0ret\0"] {
            assert_eq!(parse_password(bad), Err(Malformed), "{bad:?}");
        }
    }

    #[test]
    fn md5_is_postgresqls() {
        // SELECT 'md5' || md5('secret' || 'app'), and the answer to the salt 01020304.
        let hash = Md5Hash::of("secret", "app");
        assert_eq!(
            Md5Hash::parse("md56a422f785c9e20873908ce25d1736ae2"),
            Md5Hash::parse("md56A422F785C9E20873908CE25D1736AE2")
        );
        assert_eq!(&hash.0, b"6a422f785c9e20873908ce25d1736ae2");
        assert_eq!(
            &hash.answer([1, 2, 3, 4]),
            b"md5911f527656472583a006e7727877b33e"
        );
        for bad in [
            "",
            "md5",
            "md5xyz",
            "6a422f785c9e20873908ce25d1736ae2",
            "md5ga422f785c9e20873908ce25d1736ae2",
        ] {
            assert_eq!(Md5Hash::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn errors_are_in_the_format_of_the_protocol() {
        let (tag, error) =
            body(|out| write_fatal(out, SqlState::INVALID_PASSWORD, "no\0!", Some("hm")));
        assert_eq!(
            (tag, &error[..]),
            (b'E', &b"SFATAL\0VFATAL\0C28P01\0Mno!\0Hhm\0\0"[..])
        );
        let mut old = Vec::new();
        write_fatal_old(&mut old, "no");
        assert_eq!(old, b"EFATAL:  no\n\0");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(code in 0u8..14, bytes: Vec<u8>) {
            let _request = Request::parse(&bytes);
            let _request = Request::parse(&[&[0, 0, 0, code], &bytes[..]].concat());
            let _answer = parse_sasl_initial_response(&bytes);
            let _answer = parse_password(&bytes);
        }
    }
}
