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

use std::{fmt, num::NonZeroU32, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use ring::{digest, hmac, pbkdf2};

use super::SqlState;

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

/// The server's side, waiting for client-final.
#[derive(Debug)]
pub struct Exchange<'a> {
    verifier: &'a Verifier,
    /// What client-final's `c=` must hold, encoded.
    header: String,
    bound: bool,
    nonce: String,
    /// AuthMessage up to the comma before client-final-without-proof.
    signed: String,
}

/// The client knows the password.
#[derive(Debug)]
pub struct Proven {
    /// To be sent as AuthenticationSASLFinal.
    pub server_final: String,
    /// What a login elsewhere with the same verifier needs.
    pub keys: Keys,
}

impl<'a> Exchange<'a> {
    /// Reads client-first and gives server-first. `plus`: the client chose the mechanism with
    /// channel binding. `end_point`: the certificate's hash when that mechanism was offered.
    /// `nonce`: printable, without comma, never used before.
    ///
    /// # Errors
    /// As PostgreSQL's.
    pub fn start(
        client_first: &[u8],
        plus: bool,
        end_point: Option<&[u8]>,
        nonce: &str,
        verifier: &'a Verifier,
    ) -> Result<(Self, String), ScramError> {
        let text = printable(client_first)?;
        let (flag, rest) = text
            .split_once(',')
            .ok_or(ScramError::Malformed("no comma"))?;
        let bound = match (flag, end_point) {
            ("n" | "y", _) if plus => {
                return Err(ScramError::Malformed("no channel binding data"));
            }
            ("y", Some(_)) => return Err(ScramError::Downgrade),
            ("n" | "y", _) => None,
            ("p=tls-server-end-point", Some(data)) if plus => Some(data),
            (flag, _) if plus && flag.starts_with("p=") => return Err(ScramError::BindingType),
            _ => return Err(ScramError::Malformed("unexpected channel-binding flag")),
        };
        let bare = match rest.split_once(',') {
            Some(("", bare)) => bare,
            Some((identity, _)) if identity.starts_with("a=") => {
                return Err(ScramError::AuthorizationIdentity);
            }
            _ => {
                return Err(ScramError::Malformed(
                    "unexpected attribute in client-first",
                ));
            }
        };
        if bare.starts_with("m=") {
            return Err(ScramError::Extension);
        }
        let mut attributes = bare.split(',');
        let _user = attribute(attributes.next(), "n=")?;
        let client_nonce = attribute(attributes.next(), "r=")?;
        if client_nonce.is_empty() || !client_nonce.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(ScramError::Malformed("non-printable characters in nonce"));
        }
        if !attributes.all(is_attribute) {
            return Err(ScramError::Malformed(
                "unexpected attribute in client-first",
            ));
        }

        let nonce = format!("{client_nonce}{nonce}");
        let salt = BASE64.encode(&verifier.salt);
        let server_first = format!("r={nonce},s={salt},i={}", verifier.iterations);
        let exchange = Self {
            verifier,
            header: binding_header(flag, bound.unwrap_or_default()),
            bound: bound.is_some(),
            nonce,
            signed: format!("{bare},{server_first},"),
        };
        Ok((exchange, server_first))
    }

    /// Checks client-final.
    ///
    /// # Errors
    /// As PostgreSQL's; [`ScramError::Proof`] for a wrong password.
    pub fn finish(self, client_final: &[u8]) -> Result<Proven, ScramError> {
        let text = printable(client_final)?;
        let (unproven, proof) = text
            .rsplit_once(",p=")
            .ok_or(ScramError::Malformed("no proof"))?;
        let mut attributes = unproven.split(',');
        let header = attribute(attributes.next(), "c=")?;
        let nonce = attribute(attributes.next(), "r=")?;
        if !attributes.all(is_attribute) {
            return Err(ScramError::Malformed(
                "unexpected attribute in client-final",
            ));
        }
        if header != self.header {
            return Err(if self.bound {
                ScramError::Binding
            } else {
                ScramError::Header
            });
        }
        if nonce != self.nonce {
            return Err(ScramError::Nonce);
        }
        let proof = decode(proof)
            .and_then(|proof| Key::try_from(proof).ok())
            .ok_or(ScramError::Malformed("invalid proof"))?;

        let message = self.signed + unproven;
        let signature = sign(&self.verifier.stored_key, &message);
        let client_key = xor(&proof, &signature);
        if !same(&sha256(&client_key), &self.verifier.stored_key) {
            return Err(ScramError::Proof);
        }
        let server_signature = sign(&self.verifier.server_key, &message);
        Ok(Proven {
            server_final: format!("v={}", BASE64.encode(server_signature)),
            keys: Keys {
                client_key,
                server_key: self.verifier.server_key,
            },
        })
    }
}

/// How a client stands to channel binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding<'a> {
    /// It can't (no TLS, or a certificate without a hash): `n`.
    Unsupported,
    /// It could, but the server doesn't offer it: `y`.
    NotOffered,
    /// `p=tls-server-end-point`, with the hash of the server's certificate.
    EndPoint(&'a [u8]),
}

/// The client's side, waiting for server-first.
#[derive(Debug)]
pub struct Client {
    flag: &'static str,
    header: String,
    nonce: String,
}

/// What the server asks for.
#[derive(Debug)]
pub struct Challenge {
    pub salt: Box<[u8]>,
    pub iterations: NonZeroU32,
    unproven: String,
    message: String,
}

/// The client's side, waiting for server-final.
pub struct Answered {
    server_signature: Key,
}

impl fmt::Debug for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answered(…)")
    }
}

impl Client {
    /// `nonce`: printable, without comma, never used before.
    #[must_use]
    pub fn new(nonce: String, binding: Binding<'_>) -> Self {
        let (flag, data): (_, &[u8]) = match binding {
            Binding::Unsupported => ("n", &[]),
            Binding::NotOffered => ("y", &[]),
            Binding::EndPoint(hash) => ("p=tls-server-end-point", hash),
        };
        Self {
            flag,
            header: binding_header(flag, data),
            nonce,
        }
    }

    /// client-first, to be sent as SASLInitialResponse.
    #[must_use]
    pub fn message(&self) -> String {
        format!("{},,n=,r={}", self.flag, self.nonce)
    }

    /// Reads server-first.
    ///
    /// # Errors
    /// Anything but an answer to our message.
    pub fn challenge(self, server_first: &[u8]) -> Result<Challenge, ScramError> {
        let text = printable(server_first)?;
        let mut attributes = text.split(',');
        let nonce = attribute(attributes.next(), "r=")?;
        let salt = attribute(attributes.next(), "s=")?;
        let iterations = attribute(attributes.next(), "i=")?;
        // The server must have added something of its own, or an answer could be replayed.
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(ScramError::Nonce);
        }
        let salt = decode(salt)
            .filter(|salt| !salt.is_empty() && salt.len() <= MAX_SALT)
            .ok_or(ScramError::Malformed("invalid salt"))?;
        let iterations: NonZeroU32 = iterations
            .parse()
            .ok()
            .ok_or(ScramError::Malformed("invalid iteration count"))?;
        if iterations.get() > MAX_ITERATIONS {
            return Err(ScramError::Iterations);
        }
        let unproven = format!("c={},r={nonce}", self.header);
        let message = format!("n=,r={},{text},{unproven}", self.nonce);
        Ok(Challenge {
            salt: salt.into(),
            iterations,
            unproven,
            message,
        })
    }
}

impl Challenge {
    /// client-final, to be sent as SASLResponse.
    #[must_use]
    pub fn answer(self, keys: &Keys) -> (Answered, String) {
        let signature = sign(&sha256(&keys.client_key), &self.message);
        let proof = BASE64.encode(xor(&keys.client_key, &signature));
        let server_signature = sign(&keys.server_key, &self.message);
        (
            Answered { server_signature },
            format!("{},p={proof}", self.unproven),
        )
    }
}

impl Answered {
    /// Checks that the server knows the verifier, too.
    ///
    /// # Errors
    /// It doesn't, or says that the login failed.
    pub fn verify(self, server_final: &[u8]) -> Result<(), ScramError> {
        let text = printable(server_final)?;
        let signature = attribute(text.split(',').next(), "v=")?;
        let signature = decode(signature).ok_or(ScramError::Malformed("invalid signature"))?;
        if same(&signature, &self.server_signature) {
            Ok(())
        } else {
            Err(ScramError::ServerSignature)
        }
    }
}

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                                s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                                p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn pencil() -> (Keys, Verifier) {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let keys = Keys::derive("pencil", &salt, ITERATIONS);
        let verifier = keys.verifier(&salt, ITERATIONS);
        (keys, verifier)
    }

    /// Few rounds: for tests of the exchange rather than of the derivation.
    fn quick(password: &str) -> (Keys, Verifier) {
        let iterations = NonZeroU32::new(2).unwrap();
        let keys = Keys::derive(password, b"salt", iterations);
        (keys, keys.verifier(b"salt", iterations))
    }

    #[test]
    fn the_server_agrees_with_rfc_7677() {
        let (keys, verifier) = pencil();
        let first = format!("n,,n=user,r={CLIENT_NONCE}");
        let (exchange, server_first) =
            Exchange::start(first.as_bytes(), false, None, SERVER_NONCE, &verifier).unwrap();
        assert_eq!(server_first, SERVER_FIRST);
        let proven = exchange.finish(CLIENT_FINAL.as_bytes()).unwrap();
        assert_eq!(proven.server_final, SERVER_FINAL);
        assert!(proven.keys == keys);
    }

    #[test]
    fn the_client_agrees_with_rfc_7677() {
        let (unproven, _) = CLIENT_FINAL.rsplit_once(",p=").unwrap();
        let challenge = Challenge {
            salt: Box::default(),
            iterations: ITERATIONS,
            unproven: unproven.to_owned(),
            message: format!("n=user,r={CLIENT_NONCE},{SERVER_FIRST},{unproven}"),
        };
        let (answered, client_final) = challenge.answer(&pencil().0);
        assert_eq!(client_final, CLIENT_FINAL);
        answered.verify(SERVER_FINAL.as_bytes()).unwrap();
    }

    #[test]
    fn a_verifier_of_postgresql_is_read_and_written_unchanged() {
        // Made by PostgreSQL 15 for the password "pencil".
        let text = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
                    WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                    wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        let verifier: Verifier = text.parse().unwrap();
        assert_eq!(verifier.to_string(), text);
        assert_eq!(verifier, pencil().1);
        for invalid in [
            "",
            "pencil",
            "md5aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "SCRAM-SHA-256$0:c2FsdA==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=",
            "SCRAM-SHA-256$4096:c2FsdA==$c2FsdA==:WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=",
            "SCRAM-SHA-256$4096:$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=",
        ] {
            assert_eq!(
                invalid.parse::<Verifier>(),
                Err(InvalidVerifier),
                "{invalid}"
            );
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let (keys, verifier) = quick("pencil");
        assert_eq!(format!("{keys:?} {verifier:?}"), "Keys(…) Verifier(…)");
    }

    #[test]
    fn passwords_are_prepared_where_possible() {
        // RFC 4013, section 3; the last is prohibited and stays as it is.
        for (password, prepared) in [
            ("I\u{AD}X", "IX"),
            ("user", "user"),
            ("USER", "USER"),
            ("\u{AA}", "a"),
            ("\u{2168}", "IX"),
            ("a\u{A0}b", "a b"),
            ("\u{7}", "\u{7}"),
        ] {
            assert_eq!(normalized(password), prepared);
        }
    }

    #[test]
    fn what_postgresql_refuses_as_client_first_is_refused() {
        use ScramError as E;
        let hash: Option<&[u8]> = Some(b"hash");
        let (_, verifier) = quick("pencil");
        for (message, plus, end_point, expected) in [
            ("", false, None, E::Malformed("no comma")),
            (
                "n,,n=,r=",
                false,
                None,
                E::Malformed("non-printable characters in nonce"),
            ),
            (
                "n,,n=,r=a b",
                false,
                None,
                E::Malformed("non-printable characters in nonce"),
            ),
            (
                "n,,r=abc",
                false,
                None,
                E::Malformed("missing or misplaced attribute"),
            ),
            (
                "n,,n=",
                false,
                None,
                E::Malformed("missing or misplaced attribute"),
            ),
            (
                "n,,n=,r=abc,",
                false,
                None,
                E::Malformed("unexpected attribute in client-first"),
            ),
            ("n,,n=,r=a\0bc", false, None, E::Malformed("not printable")),
            ("n,a=other,n=,r=abc", false, None, E::AuthorizationIdentity),
            (
                "n,b=other,n=,r=abc",
                false,
                None,
                E::Malformed("unexpected attribute in client-first"),
            ),
            ("n,,m=ext,n=,r=abc", false, None, E::Extension),
            (
                "x,,n=,r=abc",
                false,
                None,
                E::Malformed("unexpected channel-binding flag"),
            ),
            (
                "p=tls-server-end-point,,n=,r=abc",
                false,
                hash,
                E::Malformed("unexpected channel-binding flag"),
            ),
            ("p=tls-unique,,n=,r=abc", true, hash, E::BindingType),
            (
                "n,,n=,r=abc",
                true,
                hash,
                E::Malformed("no channel binding data"),
            ),
            (
                "y,,n=,r=abc",
                true,
                hash,
                E::Malformed("no channel binding data"),
            ),
            ("y,,n=,r=abc", false, hash, E::Downgrade),
        ] {
            let result = Exchange::start(message.as_bytes(), plus, end_point, "xyz", &verifier);
            assert_eq!(result.map(drop), Err(expected), "{message}");
        }
        for message in ["n,,n=,r=abc", "y,,n=anyone,r=abc,e=xt"] {
            Exchange::start(message.as_bytes(), false, None, "xyz", &verifier).unwrap();
        }
    }

    #[test]
    fn what_is_not_an_answer_to_the_challenge_is_refused() {
        use ScramError as E;
        let (_, verifier) = quick("pencil");
        let proof = BASE64.encode([0; 32]);
        for (message, expected) in [
            ("c=biws,r=abcxyz".to_owned(), E::Malformed("no proof")),
            (format!("c=biws,r=abcxyz,p={proof}"), E::Proof),
            (format!("c=eSws,r=abcxyz,p={proof}"), E::Header),
            (format!("c=biws,r=abcxy,p={proof}"), E::Nonce),
            (format!("c=biws,r=abcxyzz,p={proof}"), E::Nonce),
            (
                "c=biws,r=abcxyz,p=AAAA".to_owned(),
                E::Malformed("invalid proof"),
            ),
            (
                format!("r=abcxyz,c=biws,p={proof}"),
                E::Malformed("missing or misplaced attribute"),
            ),
        ] {
            let (exchange, _) =
                Exchange::start(b"n,,n=,r=abc", false, None, "xyz", &verifier).unwrap();
            assert_eq!(
                exchange.finish(message.as_bytes()).map(drop),
                Err(expected),
                "{message}"
            );
        }
    }

    #[test]
    fn what_is_not_an_answer_to_client_first_is_refused() {
        use ScramError as E;
        for (message, expected) in [
            ("", E::Malformed("missing or misplaced attribute")),
            ("r=abc,s=c2FsdA==,i=4096", E::Nonce),
            ("r=xyzabc,s=c2FsdA==,i=4096", E::Nonce),
            ("r=abcxyz,s=,i=4096", E::Malformed("invalid salt")),
            ("r=abcxyz,s=*,i=4096", E::Malformed("invalid salt")),
            (
                "r=abcxyz,s=c2FsdA==,i=0",
                E::Malformed("invalid iteration count"),
            ),
            (
                "r=abcxyz,s=c2FsdA==,i=-1",
                E::Malformed("invalid iteration count"),
            ),
            ("r=abcxyz,s=c2FsdA==,i=2000001", E::Iterations),
            (
                "m=ext,r=abcxyz,s=c2FsdA==,i=1",
                E::Malformed("missing or misplaced attribute"),
            ),
        ] {
            let client = Client::new("abc".to_owned(), Binding::Unsupported);
            let result = client.challenge(message.as_bytes());
            assert_eq!(result.map(drop), Err(expected), "{message}");
        }
    }

    proptest! {
        #[test]
        fn only_the_right_password_on_the_same_certificate_gets_in(
            password in ".{0,20}",
            other in ".{0,20}",
            certificate in any::<Option<[u8; 32]>>(),
            relayed: bool,
            offered: bool,
        ) {
            let (keys, verifier) = quick(&password);
            let tried = quick(&other).0;
            let hash = certificate.as_ref().map(|hash| &hash[..]);
            let theirs: Option<&[u8]> = if relayed { hash.map(|_| &b"another"[..]) } else { hash };
            let plus = hash.is_some() && offered;
            let binding = match theirs {
                Some(hash) if offered => Binding::EndPoint(hash),
                Some(_) => Binding::NotOffered,
                None => Binding::Unsupported,
            };
            for (keys, right) in [(keys, true), (tried, tried == keys)] {
                let client = Client::new("abc".to_owned(), binding);
                let start =
                    Exchange::start(client.message().as_bytes(), plus, hash, "xyz", &verifier);
                // It was offered: whoever cut it out is in between.
                if binding == Binding::NotOffered {
                    prop_assert_eq!(start.map(drop), Err(ScramError::Downgrade));
                    continue;
                }
                let (exchange, server_first) = start.unwrap();
                let challenge = client.challenge(server_first.as_bytes()).unwrap();
                prop_assert_eq!(&challenge.salt, &verifier.salt);
                prop_assert_eq!(challenge.iterations, verifier.iterations);
                let (answered, client_final) = challenge.answer(&keys);
                match exchange.finish(client_final.as_bytes()) {
                    Ok(proven) => {
                        prop_assert!(right && (!plus || !relayed));
                        prop_assert!(proven.keys == keys);
                        answered.verify(proven.server_final.as_bytes()).unwrap();
                    }
                    Err(ScramError::Binding) => prop_assert!(plus && relayed),
                    Err(error) => {
                        prop_assert_eq!(error, ScramError::Proof);
                        prop_assert!(!right);
                    }
                }
            }
        }

        #[test]
        fn a_server_that_does_not_know_the_verifier_is_found_out(signature: [u8; 32]) {
            let (keys, _) = quick("pencil");
            let client = Client::new("abc".to_owned(), Binding::Unsupported);
            let (answered, _) = client.challenge(b"r=abcxyz,s=c2FsdA==,i=2").unwrap().answer(&keys);
            let message = format!("v={}", BASE64.encode(signature));
            prop_assert_eq!(answered.verify(message.as_bytes()), Err(ScramError::ServerSignature));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, plus: bool) {
            let (_, verifier) = quick("pencil");
            let _result = Exchange::start(&bytes, plus, Some(b"hash"), "xyz", &verifier);
            let (exchange, _) =
                Exchange::start(b"n,,n=,r=abc", false, None, "xyz", &verifier).unwrap();
            prop_assert!(exchange.finish(&bytes).is_err());
            let client = Client::new("abc".to_owned(), Binding::Unsupported);
            let _result = client.challenge(&bytes);
        }
    }
}
