//! Who a client is: SCRAM-SHA-256 (with channel binding over TLS), md5, or trust where that is
//! configured.
//!
//! What an outsider can't tell apart: a wrong password and an unknown user. An unknown user goes
//! through the whole exchange against a made-up verifier, with a salt that is always the same for
//! the same name, and fails with the same error (`mock_scram_secret` in PostgreSQL's
//! `auth-scram.c`).

#[cfg(test)]
mod tests;

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
    /// The password, if it isn't the configuration's.
    pub secret: Option<Secret>,
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

/// A user with what the settings, or the nodes, said.
pub(super) struct Known {
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
                None => Known::new(user.password.as_ref(), &random)?,
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
        let known = self.users.get(&login.user);
        self.authenticate_as(login, known, deadline).await
    }

    /// The same with what is known of the user.
    pub(super) async fn authenticate_as(
        &self,
        login: &mut Login,
        known: Option<&Known>,
        deadline: Instant,
    ) -> Result<Identity, HandshakeError> {
        let outcome = timeout_at(deadline, self.check(login, known)).await;
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

    async fn check(
        &self,
        login: &mut Login,
        known: Option<&Known>,
    ) -> Result<Identity, HandshakeError> {
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
            secret: None,
            unsent: out,
        })
    }
}

impl Identity {
    fn new(method: Method) -> Self {
        Self {
            method,
            client_key: None,
            secret: None,
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
    /// A user with this password, or a name without a user.
    pub(super) fn of(password: Option<&Secret>) -> Result<Self, NoRandomness> {
        Self::new(password, &SystemRandom::new())
    }

    /// It is a user who has a password.
    pub(super) fn exists(&self) -> bool {
        self.password.is_some()
    }

    /// The password, as it was given.
    pub(super) fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    fn new(password: Option<&Secret>, random: &SystemRandom) -> Result<Self, NoRandomness> {
        let check = match password {
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
            password: password.cloned(),
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
