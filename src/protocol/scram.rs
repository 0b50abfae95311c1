//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, both sides (RFC 5802, RFC 7677; channel binding
//! `tls-server-end-point` of RFC 5929), as PostgreSQL's `auth-scram.c` and libpq speak it.
//!
//! Each step consumes the state before it, so that none can be skipped or repeated:
//!
//! | side | state | event | next |
//! |---|---|---|---|
//! | server | – | [`Exchange::start`] with client-first | [`Exchange`], server-first to send |
//! | server | [`Exchange`] | [`Exchange::finish`] with client-final | [`Proven`], server-final to send |
//! | client | [`Client`] (its message to send) | [`Client::challenge`] with server-first | [`Challenge`] |
//! | client | [`Challenge`] | [`Challenge::answer`] with the user's keys | [`Answered`], client-final to send |
//! | client | [`Answered`] | [`Answered::verify`] with server-final | done |
//!
//! The user name inside SCRAM messages is ignored, as in PostgreSQL: the startup packet's counts.
//! Nonces and salts are arguments. Secrets are compared in constant time and never printed.

mod client;
mod server;
#[cfg(test)]
mod tests;

use std::{fmt, num::NonZeroU32, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use ring::{digest, hmac, pbkdf2};

use super::SqlState;

pub use client::{Answered, Binding, Challenge, Client};
pub use server::{Exchange, Proven};

/// The mechanism without channel binding.
pub const MECHANISM: &str = "SCRAM-SHA-256";
/// The mechanism with channel binding.
pub const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";
/// PostgreSQL's default number of rounds, used for verifiers made here.
pub const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("4096 is not zero");
/// Rounds that a server may ask of us: about a second of one core.
pub const MAX_ITERATIONS: u32 = 2_000_000;
/// Longest salt that a server may send, in bytes (PostgreSQL's are 16).
const MAX_SALT: usize = 1024;

/// A key, a signature or a proof.
pub type Key = [u8; 32];

/// What a server keeps of a password: enough to check a login, not to log in elsewhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    pub iterations: NonZeroU32,
    pub salt: Box<[u8]>,
    pub stored_key: Key,
    pub server_key: Key,
}

/// What a client needs for a login. Made from the password, or learnt from a client's proof.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    pub client_key: Key,
    pub server_key: Key,
}

/// Text that is not `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidVerifier;

/// Why an exchange ends without a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScramError {
    /// A message that the grammar doesn't allow, with what is wrong.
    Malformed(&'static str),
    /// The client names an authorization identity.
    AuthorizationIdentity,
    /// A mandatory extension that nobody knows.
    Extension,
    /// Channel binding of another type than `tls-server-end-point`.
    BindingType,
    /// The client believes that this server has no channel binding, but it was offered: somebody
    /// in between has cut it out.
    Downgrade,
    /// The two ends don't see the same TLS certificate.
    Binding,
    /// client-final doesn't repeat client-first's header.
    Header,
    /// The nonce isn't this exchange's.
    Nonce,
    /// The proof isn't that of the user's password.
    Proof,
    /// A server asks for more than [`MAX_ITERATIONS`] rounds.
    Iterations,
    /// The server doesn't know the user's verifier: it isn't the one that the password is for.
    ServerSignature,
}

impl ScramError {
    /// PostgreSQL's code for it.
    #[must_use]
    pub fn sqlstate(self) -> SqlState {
        match self {
            Self::AuthorizationIdentity | Self::Extension => SqlState::FEATURE_NOT_SUPPORTED,
            Self::Downgrade | Self::Binding => SqlState::INVALID_AUTHORIZATION,
            Self::Proof => SqlState::INVALID_PASSWORD,
            Self::Malformed(_)
            | Self::BindingType
            | Self::Header
            | Self::Nonce
            | Self::Iterations
            | Self::ServerSignature => SqlState::PROTOCOL_VIOLATION,
        }
    }
}

impl fmt::Display for ScramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed(what) => return write!(f, "malformed SCRAM message ({what})"),
            Self::AuthorizationIdentity => {
                "client uses authorization identity, but it is not supported"
            }
            Self::Extension => "client requires an unsupported SCRAM extension",
            Self::BindingType => "unsupported SCRAM channel-binding type",
            Self::Downgrade => "SCRAM channel binding negotiation error",
            Self::Binding => "SCRAM channel binding check failed",
            Self::Header => "unexpected SCRAM channel-binding attribute in client-final-message",
            Self::Nonce => "invalid SCRAM response (nonce does not match)",
            Self::Proof => "SCRAM proof does not match",
            Self::Iterations => "SCRAM iteration count is too large",
            Self::ServerSignature => "incorrect server signature",
        })
    }
}

impl std::error::Error for ScramError {}

impl Keys {
    /// Derives the keys of a password: `iterations` rounds, about 0.5 µs each.
    #[must_use]
    pub fn derive(password: &str, salt: &[u8], iterations: NonZeroU32) -> Self {
        let mut salted: Key = [0; 32];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            iterations,
            salt,
            normalized(password).as_bytes(),
            &mut salted,
        );
        let salted = hmac::Key::new(hmac::HMAC_SHA256, &salted);
        Self {
            client_key: bytes(hmac::sign(&salted, b"Client Key").as_ref()),
            server_key: bytes(hmac::sign(&salted, b"Server Key").as_ref()),
        }
    }

    /// What a server keeps of these keys, which were derived with `salt` and `iterations`.
    #[must_use]
    pub fn verifier(&self, salt: &[u8], iterations: NonZeroU32) -> Verifier {
        Verifier {
            iterations,
            salt: salt.into(),
            stored_key: sha256(&self.client_key),
            server_key: self.server_key,
        }
    }
}

impl FromStr for Verifier {
    type Err = InvalidVerifier;

    fn from_str(text: &str) -> Result<Self, InvalidVerifier> {
        let key = |text: &str| Key::try_from(decode(text)?).ok();
        let parse = || {
            let (scheme, rest) = text.split_once('$')?;
            let (parameters, keys) = rest.split_once('$')?;
            let (iterations, salt) = parameters.split_once(':')?;
            let (stored_key, server_key) = keys.split_once(':')?;
            let salt = decode(salt)?;
            (scheme == MECHANISM && !salt.is_empty()).then_some(Self {
                iterations: iterations.parse().ok()?,
                salt: salt.into(),
                stored_key: key(stored_key)?,
                server_key: key(server_key)?,
            })
        };
        parse().ok_or(InvalidVerifier)
    }
}

impl fmt::Display for Verifier {
    /// As PostgreSQL's `pg_authid.rolpassword` has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored, server] =
            [&self.salt[..], &self.stored_key, &self.server_key].map(|b| BASE64.encode(b));
        write!(
            f,
            "{MECHANISM}${}:{salt}${stored}:{server}",
            self.iterations
        )
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(…)")
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

impl fmt::Display for InvalidVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not a SCRAM verifier: expected SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>",
        )
    }
}

impl std::error::Error for InvalidVerifier {}

/// Equality that takes the same time wherever the two differ.
#[must_use]
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len()
        && std::hint::black_box(a.iter().zip(b).fold(0, |sum, (x, y)| sum | (x ^ y))) == 0
}

/// SASLprep (RFC 4013); like PostgreSQL, the password as it is where that isn't possible.
fn normalized(password: &str) -> std::borrow::Cow<'_, str> {
    // Printable ASCII prepares to itself.
    if password.bytes().all(|b| matches!(b, b' '..=b'~')) {
        return password.into();
    }
    stringprep::saslprep(password).unwrap_or(password.into())
}

/// SCRAM messages are UTF-8; all that PostgreSQL sends or reads is printable ASCII, except for the
/// user name, which is ignored.
fn printable(message: &[u8]) -> Result<&str, ScramError> {
    match std::str::from_utf8(message) {
        Ok(text) if !text.bytes().any(|b| b.is_ascii_control()) => Ok(text),
        _ => Err(ScramError::Malformed("not printable")),
    }
}

fn attribute<'a>(part: Option<&'a str>, name: &'static str) -> Result<&'a str, ScramError> {
    part.and_then(|part| part.strip_prefix(name))
        .ok_or(ScramError::Malformed("missing or misplaced attribute"))
}

/// An optional extension: a letter, `=`, anything.
fn is_attribute(part: &str) -> bool {
    matches!(part.as_bytes(), [letter, b'=', ..] if letter.is_ascii_alphabetic())
}

fn binding_header(flag: &str, data: &[u8]) -> String {
    BASE64.encode([flag.as_bytes(), b",,", data].concat())
}

fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

fn sign(key: &Key, message: &str) -> Key {
    bytes(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes()).as_ref())
}

fn sha256(data: &[u8]) -> Key {
    bytes(digest::digest(&digest::SHA256, data).as_ref())
}

fn xor(a: &Key, b: &Key) -> Key {
    std::array::from_fn(|i| a.get(i).copied().unwrap_or(0) ^ b.get(i).copied().unwrap_or(0))
}

/// SHA-256 gives 32 bytes.
fn bytes(hash: &[u8]) -> Key {
    hash.try_into().expect("SHA-256 gives 32 bytes")
}
