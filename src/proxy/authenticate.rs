//! Who a client is: SCRAM-SHA-256 (with channel binding over TLS), md5, or trust where that is
//! configured.
//!
//! What an outsider can't tell apart: a wrong password and an unknown user. An unknown user goes
//! through the whole exchange against a made-up verifier, with a salt that is always the same for
//! the same name, and fails with the same error (`mock_scram_secret` in PostgreSQL's
//! `auth-scram.c`).

use std::{collections::HashMap, fmt, num::NonZeroU32};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use ring::{
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use tokio::{
    io::AsyncWriteExt as _,
    time::{Instant, timeout_at},
};

use super::handshake::{HandshakeError, Login, refusal, refuse};
use crate::{
    config::settings::{Secret, User},
    error::{Fault, Visible},
    net::InboxError,
    protocol::{
        SqlState,
        authentication::{self, MAX_SASL_MESSAGE, Md5Hash},
        limits,
        scram::{self, Exchange, Key, Keys, ScramError, Verifier},
    },
};

/// Checks who clients are. Made from the settings, once; a reload makes another.
pub struct Authenticator {
    users: HashMap<Box<str>, Known>,
    /// Clients on this machine need no password.
    trust: bool,
    mock: Mock,
    random: SystemRandom,
}

/// A client that is who it says.
pub struct Identity {
    pub method: Method,
    /// What logs in at a node that has the same verifier, learnt from the client's proof.
    pub client_key: Option<Key>,
    /// To be sent before AuthenticationOk, best in the same write: AuthenticationSASLFinal.
    pub unsent: Vec<u8>,
}

/// How a client proved who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    Trust,
    Md5,
    Scram,
    /// With channel binding.
    ScramPlus,
}

impl Method {
    /// As `pg_hba.conf` and `pg_stat_ssl` would call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Trust => "trust",
            Self::Md5 => "md5",
            Self::Scram => "scram-sha-256",
            Self::ScramPlus => "scram-sha-256-plus",
        }
    }
}

/// A user with what the settings said.
struct Known {
    /// The setting itself, to see at a reload that nothing changed.
    password: Option<Secret>,
    check: Check,
}

enum Check {
    Scram(Verifier),
    Md5(Md5Hash),
    /// No password: nobody can log in but by trust.
    Never,
}

/// What users who don't exist are checked against. It looks like what most users have.
#[derive(Clone)]
struct Mock {
    key: hmac::Key,
    md5: bool,
    iterations: NonZeroU32,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?}, …)", self.method)
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authenticator({} users)", self.users.len())
    }
}

/// The system gives no random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRandomness;

impl fmt::Display for NoRandomness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the system gives no random numbers")
    }
}

impl std::error::Error for NoRandomness {}

impl Authenticator {
    /// Hashes the passwords, which keeps the thread busy for one or two milliseconds for each that
    /// isn't a verifier and that `before` doesn't know already. `trust`: clients on this machine
    /// need no password.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn new(users: &[User], trust: bool, before: Option<&Self>) -> Result<Self, NoRandomness> {
        let random = SystemRandom::new();
        let known = users.iter().map(|user| {
            let name: Box<str> = user.name.as_str().into();
            let old = before.and_then(|before| before.users.get(&name));
            let known = match old.filter(|old| old.password == user.password) {
                Some(old) => old.clone(),
                None => Known::new(user, &random)?,
            };
            Ok((name, known))
        });
        let users = known.collect::<Result<HashMap<_, _>, _>>()?;
        let mock = Mock {
            key: match before {
                Some(before) => before.mock.key.clone(),
                None => hmac::Key::new(hmac::HMAC_SHA256, &bytes::<32>(&random)?),
            },
            ..Mock::resembling(&users)
        };
        Ok(Self {
            users,
            trust,
            mock,
            random,
        })
    }

    /// Lets the client prove who it is. The client has been told when it failed; when it succeeds,
    /// AuthenticationOk is left to the caller, behind [`Identity::unsent`].
    ///
    /// # Errors
    /// The client went away, took too long, broke the protocol, or isn't who it says.
    pub async fn authenticate(
        &self,
        login: &mut Login,
        deadline: Instant,
    ) -> Result<Identity, HandshakeError> {
        let outcome = timeout_at(deadline, self.check(login)).await;
        match outcome {
            Ok(Ok(identity)) => Ok(identity),
            Ok(Err(error)) => {
                if let HandshakeError::Refused(visible) = &error {
                    refuse(&mut login.stream, visible, deadline).await;
                }
                Err(error)
            }
            Err(_elapsed) => {
                let error = Visible::fatal(
                    Fault::Client,
                    SqlState::QUERY_CANCELED,
                    "canceling authentication due to timeout",
                );
                refuse(&mut login.stream, &error, deadline).await;
                Err(HandshakeError::TimedOut)
            }
        }
    }

    async fn check(&self, login: &mut Login) -> Result<Identity, HandshakeError> {
        let known = self.users.get(&login.user);
        if self.trust && login.stream.peer().is_local() {
            return match known {
                Some(_) => Ok(Identity::new(Method::Trust)),
                None => Err(refusal(
                    SqlState::INVALID_AUTHORIZATION,
                    format!("role \"{}\" does not exist", login.user),
                )),
            };
        }
        match known.map(|known| &known.check) {
            Some(Check::Scram(verifier)) => self.scram(login, verifier, true).await,
            Some(Check::Md5(hash)) => self.md5(login, hash, true).await,
            Some(Check::Never) | None if self.mock.md5 => {
                let hash = Md5Hash::of(&BASE64.encode(self.mock.sign(&login.user)), &login.user);
                self.md5(login, &hash, false).await
            }
            Some(Check::Never) | None => {
                let verifier = self.mock.verifier(&login.user);
                self.scram(login, &verifier, false).await
            }
        }
    }

    async fn md5(
        &self,
        login: &mut Login,
        hash: &Md5Hash,
        known: bool,
    ) -> Result<Identity, HandshakeError> {
        let salt = bytes::<4>(&self.random).map_err(no_randomness)?;
        let mut out = Vec::with_capacity(16);
        authentication::write_md5_request(&mut out, salt);
        let answer = ask(login, &out, limits::AUTHENTICATION).await?;
        let answer = authentication::parse_password(answer).map_err(malformed)?;
        if scram::same(answer, &hash.answer(salt)) && known {
            Ok(Identity::new(Method::Md5))
        } else {
            Err(wrong_password(&login.user))
        }
    }

    async fn scram(
        &self,
        login: &mut Login,
        verifier: &Verifier,
        known: bool,
    ) -> Result<Identity, HandshakeError> {
        let end_point = login.stream.end_point();
        let mechanisms: &[&str] = match end_point {
            Some(_) => &[scram::MECHANISM_PLUS, scram::MECHANISM],
            None => &[scram::MECHANISM],
        };
        let mut out = Vec::with_capacity(128);
        authentication::write_sasl_request(&mut out, mechanisms);
        let first = ask(login, &out, MAX_SASL_MESSAGE).await?;
        let (mechanism, first) =
            authentication::parse_sasl_initial_response(first).map_err(malformed)?;
        let plus = mechanism == scram::MECHANISM_PLUS.as_bytes() && end_point.is_some();
        if !plus && mechanism != scram::MECHANISM.as_bytes() {
            return Err(refusal(
                SqlState::PROTOCOL_VIOLATION,
                "client selected an invalid SASL authentication mechanism".to_owned(),
            ));
        }

        let nonce = BASE64.encode(bytes::<18>(&self.random).map_err(no_randomness)?);
        let end_point = end_point.as_ref().map(AsRef::as_ref);
        let (exchange, challenge) =
            Exchange::start(first, plus, end_point, &nonce, verifier).map_err(broken)?;
        out.clear();
        authentication::write_sasl_continue(&mut out, &challenge);
        let last = ask(login, &out, MAX_SASL_MESSAGE).await?;
        let proven = match exchange.finish(last) {
            Ok(proven) if known => proven,
            Ok(_) | Err(ScramError::Proof) => return Err(wrong_password(&login.user)),
            Err(error) => return Err(broken(error)),
        };
        out.clear();
        authentication::write_sasl_final(&mut out, &proven.server_final);
        Ok(Identity {
            method: if plus {
                Method::ScramPlus
            } else {
                Method::Scram
            },
            client_key: Some(proven.keys.client_key),
            unsent: out,
        })
    }
}

impl Identity {
    fn new(method: Method) -> Self {
        Self {
            method,
            client_key: None,
            unsent: Vec::new(),
        }
    }
}

impl Clone for Known {
    fn clone(&self) -> Self {
        Self {
            password: self.password.clone(),
            check: match &self.check {
                Check::Scram(verifier) => Check::Scram(verifier.clone()),
                Check::Md5(hash) => Check::Md5(*hash),
                Check::Never => Check::Never,
            },
        }
    }
}

impl Known {
    fn new(user: &User, random: &SystemRandom) -> Result<Self, NoRandomness> {
        let check = match &user.password {
            None => Check::Never,
            Some(Secret(text)) => {
                if let Ok(verifier) = text.parse() {
                    Check::Scram(verifier)
                } else if let Some(hash) = Md5Hash::parse(text) {
                    Check::Md5(hash)
                } else {
                    let salt = bytes::<16>(random)?;
                    let keys = Keys::derive(text, &salt, scram::ITERATIONS);
                    Check::Scram(keys.verifier(&salt, scram::ITERATIONS))
                }
            }
        };
        Ok(Self {
            password: user.password.clone(),
            check,
        })
    }
}

impl Mock {
    /// With a key that is still to be replaced by a secret one.
    fn resembling(users: &HashMap<Box<str>, Known>) -> Self {
        let mut counts: HashMap<NonZeroU32, usize> = HashMap::new();
        let mut md5 = false;
        for known in users.values() {
            match &known.check {
                Check::Scram(verifier) => *counts.entry(verifier.iterations).or_default() += 1,
                Check::Md5(_) => md5 = true,
                Check::Never => (),
            }
        }
        let usual = counts
            .iter()
            .max_by_key(|&(iterations, count)| (*count, *iterations));
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &[]),
            md5: md5 && counts.is_empty(),
            iterations: usual.map_or(scram::ITERATIONS, |(iterations, _)| *iterations),
        }
    }

    fn sign(&self, user: &str) -> Key {
        let signature = hmac::sign(&self.key, user.as_bytes());
        signature.as_ref().try_into().unwrap_or_default()
    }

    /// Nobody knows a password for it.
    fn verifier(&self, user: &str) -> Verifier {
        let [salt, stored_key, server_key] =
            ["salt:", "stored:", "server:"].map(|use_| self.sign(&format!("{use_}{user}")));
        Verifier {
            iterations: self.iterations,
            salt: salt.get(..16).unwrap_or_default().into(),
            stored_key,
            server_key,
        }
    }
}

/// Sends a request and reads the answer's body.
async fn ask<'a>(
    login: &'a mut Login,
    request: &[u8],
    limit: usize,
) -> Result<&'a [u8], HandshakeError> {
    login
        .stream
        .write_all(request)
        .await
        .map_err(HandshakeError::Lost)?;
    login.stream.flush().await.map_err(HandshakeError::Lost)?;
    match login.inbox.message(&mut login.stream, limit).await {
        Ok((b'p', body)) => Ok(body),
        Ok((tag, _)) => Err(refusal(
            SqlState::PROTOCOL_VIOLATION,
            format!(
                "expected SASL or password response, got message type \"{}\"",
                char::from(tag).escape_default()
            ),
        )),
        // Many clients go away here to ask their user for a password.
        Err(InboxError::Closed) => Err(HandshakeError::Closed),
        Err(error) => Err(error.into()),
    }
}

fn wrong_password(user: &str) -> HandshakeError {
    refusal(
        SqlState::INVALID_PASSWORD,
        format!("password authentication failed for user \"{user}\""),
    )
}

fn malformed(error: authentication::Malformed) -> HandshakeError {
    refusal(SqlState::PROTOCOL_VIOLATION, error.to_string())
}

fn broken(error: ScramError) -> HandshakeError {
    refusal(error.sqlstate(), error.to_string())
}

fn no_randomness(error: NoRandomness) -> HandshakeError {
    HandshakeError::Refused(Box::new(Visible::fatal(
        Fault::Proxy,
        SqlState::INTERNAL_ERROR,
        error.to_string(),
    )))
}

fn bytes<const N: usize>(random: &SystemRandom) -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    random.fill(&mut bytes).map_err(|_error| NoRandomness)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, DuplexStream};

    use super::*;
    use crate::net::{Inbox, Stream};

    fn user(name: &str, password: Option<&str>) -> User {
        User {
            name: name.to_owned(),
            password: password.map(|text| Secret(text.to_owned())),
            server_user: None,
            server_password: None,
            routing: crate::config::Overrides::default(),
            password_file: None,
        }
    }

    /// With a text password, a verifier (for "pencil"), an md5 hash (of "secret"), and none.
    fn users() -> Vec<User> {
        vec![
            user("app", Some("s3cr\u{e9}t")),
            user(
                "verified",
                Some(
                    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
                     WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                     wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
                ),
            ),
            user("old", Some("md57cb133e596658708079ed4cfaaf64462")),
            user("nobody", None),
        ]
    }

    fn login(user: &str) -> (Login, DuplexStream) {
        let (here, there) = tokio::io::duplex(4096);
        let login = Login {
            stream: Stream::memory(here),
            inbox: Inbox::default(),
            user: user.into(),
            database: "app".into(),
            parameters: Vec::new(),
            replication: None,
            minor: 0,
        };
        (login, there)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(15)
    }

    async fn message(there: &mut DuplexStream) -> (u8, Vec<u8>) {
        let mut header = [0; 5];
        there.read_exact(&mut header).await.unwrap();
        let length = u32::from_be_bytes(header[1..].try_into().unwrap());
        let mut body = vec![0; length as usize - 4];
        there.read_exact(&mut body).await.unwrap();
        (header[0], body)
    }

    /// Logs in as a driver does.
    async fn drive(
        authenticator: &Authenticator,
        user: &str,
        password: &str,
    ) -> (Result<Identity, HandshakeError>, Result<(), String>) {
        let (mut login, mut there) = login(user);
        let mut config = tokio_postgres::Config::new();
        config.user(user).password(password);
        let client = async {
            // Its startup packet has been read already, as it were.
            let (mut here, pipe) = tokio::io::duplex(4096);
            let connect = config.connect_raw(pipe, tokio_postgres::NoTls);
            let relay = async {
                let mut length = [0; 4];
                here.read_exact(&mut length).await?;
                let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
                here.read_exact(&mut startup).await?;
                tokio::io::copy_bidirectional(&mut here, &mut there).await
            };
            tokio::select! {
                connected = connect => connected.map(drop).map_err(|error| {
                    let error = error.as_db_error().map(|e| (e.code().code(), e.message()));
                    format!("{error:?}")
                }),
                relayed = relay => panic!("{relayed:?}"),
            }
        };
        let server = async {
            let identity = authenticator.authenticate(&mut login, soon()).await?;
            let rest = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
            let tail = [&identity.unsent[..], rest].concat();
            login.stream.write_all(&tail).await.unwrap();
            login.stream.flush().await.unwrap();
            Ok((identity, login))
        };
        let (server, client) = tokio::join!(server, client);
        (server.map(|(identity, _login)| identity), client)
    }

    #[tokio::test]
    async fn drivers_get_in_with_the_right_password() {
        let authenticator = Authenticator::new(&users(), false, None).unwrap();
        for (user, password, method) in [
            ("app", "s3cr\u{e9}t", Method::Scram),
            ("verified", "pencil", Method::Scram),
            ("old", "secret", Method::Md5),
        ] {
            let (identity, client) = drive(&authenticator, user, password).await;
            assert_eq!(client, Ok(()), "{user}");
            assert_eq!(identity.unwrap().method, method);
        }
    }

    #[tokio::test]
    async fn a_wrong_password_an_unknown_user_and_one_without_a_password_look_alike() {
        let authenticator = Authenticator::new(&users(), false, None).unwrap();
        for (user, password) in [
            ("app", "wrong"),
            ("verified", ""),
            ("old", "wrong"),
            ("nobody", ""),
            ("ghost", "x"),
        ] {
            let (identity, client) = drive(&authenticator, user, password).await;
            assert!(
                matches!(identity, Err(HandshakeError::Refused(_))),
                "{identity:?}"
            );
            let message = format!("password authentication failed for user \"{user}\"");
            assert_eq!(
                client,
                Err(format!("{:?}", Some(("28P01", message.as_str()))))
            );
        }
    }

    #[tokio::test]
    async fn a_proof_shows_the_key_that_logs_in_at_the_nodes() {
        let authenticator = Authenticator::new(&users(), false, None).unwrap();
        let (identity, _) = drive(&authenticator, "verified", "pencil").await;
        assert!(
            format!("{identity:?}").starts_with("Ok(Identity(Scram, …)"),
            "not printed"
        );
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let keys = Keys::derive("pencil", &salt, scram::ITERATIONS);
        assert_eq!(identity.unwrap().client_key, Some(keys.client_key));
    }

    /// The salt and rounds that a user is challenged with.
    async fn challenge(authenticator: &Authenticator, user: &str) -> String {
        let (mut login, mut there) = login(user);
        let ask = async {
            assert_eq!(
                message(&mut there).await,
                (b'R', b"\0\0\0\x0ASCRAM-SHA-256\0\0".to_vec())
            );
            let mut first = Vec::new();
            authentication::write_sasl_initial_response(&mut first, "SCRAM-SHA-256", "n,,n=,r=abc");
            there.write_all(&first).await.unwrap();
            let (_, body) = message(&mut there).await;
            drop(there);
            String::from_utf8(body)
                .unwrap()
                .split_once(",s=")
                .unwrap()
                .1
                .to_owned()
        };
        let (result, challenge) = tokio::join!(authenticator.authenticate(&mut login, soon()), ask);
        assert!(matches!(result, Err(HandshakeError::Closed)), "{result:?}");
        challenge
    }

    #[tokio::test]
    async fn salts_tell_nothing_about_who_exists() {
        let before = Authenticator::new(&users(), false, None).unwrap();
        let reloaded = Authenticator::new(&users(), false, Some(&before)).unwrap();
        for user in ["app", "verified", "nobody", "ghost"] {
            let first = challenge(&before, user).await;
            assert_eq!(first, challenge(&before, user).await, "the same each time");
            assert_eq!(
                first,
                challenge(&reloaded, user).await,
                "also after a reload"
            );
            assert_eq!(first.len(), "W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".len());
        }
        assert_ne!(
            challenge(&before, "ghost").await,
            challenge(&before, "spook").await
        );
        let other = Authenticator::new(&users(), false, None).unwrap();
        assert_ne!(
            challenge(&before, "ghost").await,
            challenge(&other, "ghost").await
        );
    }

    #[tokio::test]
    async fn who_does_not_exist_looks_like_the_others() {
        let old = [user("old", Some("md57cb133e596658708079ed4cfaaf64462"))];
        let authenticator = Authenticator::new(&old, false, None).unwrap();
        let (mut login, mut there) = login("ghost");
        let check = authenticator.authenticate(&mut login, soon());
        let (_, (tag, body)) = tokio::join!(async { assert!(check.await.is_err()) }, async {
            let asked = message(&mut there).await;
            drop(there);
            asked
        });
        assert_eq!((tag, &body[..4]), (b'R', &[0, 0, 0, 5][..]));

        let slow = "SCRAM-SHA-256$100000:W22ZaJ0SNY7soEsUEjb6gQ==$\
                    WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                    wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        let authenticator = Authenticator::new(&[user("slow", Some(slow))], false, None).unwrap();
        assert!(
            challenge(&authenticator, "ghost")
                .await
                .ends_with(",i=100000")
        );
    }

    #[tokio::test]
    async fn a_new_password_counts_after_a_reload() {
        let before = Authenticator::new(&[user("app", Some("old"))], false, None).unwrap();
        let after = Authenticator::new(&[user("app", Some("new"))], false, Some(&before)).unwrap();
        assert!(drive(&after, "app", "old").await.1.is_err());
        assert!(drive(&after, "app", "new").await.1.is_ok());
    }

    #[tokio::test]
    async fn broken_answers_are_protocol_errors() {
        let authenticator = Authenticator::new(&users(), false, None).unwrap();
        let initial = |mechanism: &str, data: &str| {
            let mut out = Vec::new();
            authentication::write_sasl_initial_response(&mut out, mechanism, data);
            out
        };
        let long = "x".repeat(MAX_SASL_MESSAGE);
        for (answer, expected) in [
            (
                b"Q\0\0\0\x05\0".to_vec(),
                "expected SASL or password response, got message type \"Q\"",
            ),
            (
                b"p\0\0\0\x03".to_vec(),
                "invalid length 3 of a message of type \"p\"",
            ),
            (
                b"p\0\0\0\x05\0".to_vec(),
                "malformed authentication message",
            ),
            (
                initial("SCRAM-SHA-1", "n,,n=,r=abc"),
                "client selected an invalid SASL authentication mechanism",
            ),
            // Not offered: there is no TLS.
            (
                initial("SCRAM-SHA-256-PLUS", "n,,n=,r=abc"),
                "client selected an invalid SASL authentication mechanism",
            ),
            (
                initial("SCRAM-SHA-256", "hello"),
                "malformed SCRAM message (no comma)",
            ),
            (
                initial("SCRAM-SHA-256", &long),
                "invalid length 1046 of a message of type \"p\"",
            ),
        ] {
            let (mut login, mut there) = login("app");
            let ask = async {
                let _request = message(&mut there).await;
                there.write_all(&answer).await.unwrap();
                String::from_utf8_lossy(&message(&mut there).await.1).into_owned()
            };
            let (result, told) = tokio::join!(authenticator.authenticate(&mut login, soon()), ask);
            assert!(
                matches!(result, Err(HandshakeError::Refused(_))),
                "{result:?}"
            );
            assert_eq!(told, format!("SFATAL\0VFATAL\0C08P01\0M{expected}\0\0"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_answer_is_told_so_at_the_deadline() {
        let users = [user("old", Some("md57cb133e596658708079ed4cfaaf64462"))];
        let authenticator = Authenticator::new(&users, false, None).unwrap();
        let (mut login, mut there) = login("old");
        let start = Instant::now();
        let result = authenticator.authenticate(&mut login, soon()).await;
        assert!(
            matches!(result, Err(HandshakeError::TimedOut)),
            "{result:?}"
        );
        assert_eq!(start.elapsed(), Duration::from_secs(15));
        let _request = message(&mut there).await;
        let (tag, body) = message(&mut there).await;
        assert_eq!(tag, b'E');
        assert_eq!(
            body,
            b"SFATAL\0VFATAL\0C57014\0Mcanceling authentication due to timeout\0\0"
        );
    }
}
