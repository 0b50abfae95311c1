//! TLS towards clients.

use std::{io, sync::Arc};

use tokio::io::AsyncWriteExt as _;
use tokio_rustls::{
    TlsAcceptor, TlsStream,
    rustls::{
        ServerConfig, ServerConnection,
        server::{NoServerSessionStorage, WebPkiClientVerifier},
        sign::SingleCertAndKey,
        version::{TLS12, TLS13},
    },
};

use super::{ALPN, EndPoint, Tls, TlsError, certificate, identity, provider, roots};
use crate::{
    config::settings::{ListenTls, ListenTlsMode},
    net::Stream,
};

/// What clients are offered, made once from `[listen.tls]`.
#[derive(Clone, Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    end_point: Option<EndPoint>,
    required: bool,
}

impl ServerTls {
    /// Reads the files. With a `client_ca`, every TLS client must show a certificate that it vouches
    /// for.
    ///
    /// # Errors
    /// A file that can't be read or used, or a key that isn't the certificate's.
    pub fn load(settings: &ListenTls) -> Result<Self, TlsError> {
        let provider = provider();
        let identity = identity(&settings.cert, &settings.key)?;
        let end_point = identity
            .cert
            .first()
            .and_then(|own| certificate::end_point(own));
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| TlsError::Other(error.to_string()))?;
        let builder = match &settings.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots(path)?.0), provider)
                    .build()
                    .map_err(|error| TlsError::File {
                        path: path.clone(),
                        problem: error.to_string(),
                    })?,
            ),
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
        // Like PostgreSQL: drivers don't resume sessions, and tickets cost each login a write.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self {
            config: Arc::new(config),
            end_point,
            required: settings.mode == ListenTlsMode::Require,
        })
    }

    /// Plain connections over TCP are to be refused.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// Shakes hands. `received` is what has been read of the client's first flight already. With
    /// `direct`, the client began with TLS at once and must name the protocol (ALPN), as
    /// PostgreSQL 17 demands, so that no other protocol's client can be made to talk to us.
    ///
    /// # Errors
    /// The client's, or the stream's.
    pub(crate) async fn accept(
        &self,
        stream: Stream,
        received: &[u8],
        direct: bool,
    ) -> io::Result<Stream> {
        let mut first_flight = Ok(());
        let mut accept = TlsAcceptor::from(Arc::clone(&self.config))
            .accept_with(stream, |session| first_flight = feed(session, received));
        if let Err((error, alert)) = first_flight {
            if let Some(stream) = accept.get_mut() {
                stream.write_all(&alert).await?;
            }
            return Err(error);
        }
        let stream = accept.await?;
        if direct && stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "received direct SSL connection request without ALPN protocol negotiation extension",
            ));
        }
        Ok(Stream::Tls(Box::new(Tls {
            stream: TlsStream::Server(stream),
            end_point: self.end_point,
        })))
    }
}

/// Gives bytes that were read before TLS began to the session; the alert to send when they are
/// wrong.
fn feed(session: &mut ServerConnection, mut received: &[u8]) -> Result<(), (io::Error, Vec<u8>)> {
    while !received.is_empty() {
        let fed = session.read_tls(&mut received).and_then(|_| {
            session
                .process_new_packets()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
        });
        if let Err(error) = fed {
            let mut alert = Vec::new();
            while session.wants_write() && session.write_tls(&mut alert).is_ok_and(|n| n > 0) {}
            return Err((error, alert));
        }
    }
    Ok(())
}
