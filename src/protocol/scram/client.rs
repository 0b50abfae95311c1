//! The client's side: the password is proven to a server, and the server's knowledge of it to us.

use std::{fmt, num::NonZeroU32};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use super::{
    Key, Keys, MAX_ITERATIONS, MAX_SALT, ScramError, attribute, binding_header, decode, printable,
    same, sha256, sign, xor,
};

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
    pub(super) unproven: String,
    pub(super) message: String,
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
