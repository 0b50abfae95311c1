//! The server's side: a client proves that it knows the password.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use super::{
    Key, Keys, ScramError, Verifier, attribute, binding_header, decode, is_attribute, printable,
    same, sha256, sign, xor,
};

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
