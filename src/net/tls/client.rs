//! TLS towards nodes.

use std::{io, sync::Arc};

use tokio_rustls::{
    TlsConnector, TlsStream,
    rustls::{
        self, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore,
        SignatureScheme,
        client::{
            Resumption,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
            verify_server_cert_signed_by_trust_anchor, verify_server_name,
        },
        crypto::{
            CryptoProvider, verify_tls12_signature, verify_tls13_signature,
            verify_tls13_signature_with_raw_key,
        },
        pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
        server::ParsedCertificate,
        sign::SingleCertAndKey,
        version::{TLS12, TLS13},
    },
};

use super::{ALPN, Tls, TlsError, certificate, identity, provider, roots};
use crate::{
    config::settings::{NodeTls, SslMode},
    net::Stream,
};

/// How a node is spoken to, made once from its settings.
#[derive(Clone, Debug)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl ClientTls {
    /// Reads the files. As in libpq, `verify-full` checks certificate and name; `require` checks
    /// the certificate when `ca` is given, else nothing; `prefer` never checks. Certificates that are
    /// checked must be of X.509 version 3, as OpenSSL makes them when they have any extension.
    ///
    /// # Errors
    /// A file that can't be read or used, or a host that no certificate can be for.
    pub fn load(settings: &NodeTls, host: &str) -> Result<Self, TlsError> {
        let provider = provider();
        let name =
            ServerName::try_from(host.to_owned()).map_err(|_error| TlsError::Host(host.into()))?;
        let trust = match (settings.sslmode, &settings.ca) {
            (SslMode::Disable | SslMode::Prefer, _) | (SslMode::Require, None) => Trust::Anyone,
            (mode @ (SslMode::Require | SslMode::VerifyFull), Some(path)) => {
                let (roots, pinned) = roots(path)?;
                Trust::Vouched {
                    roots,
                    pinned,
                    named: mode == SslMode::VerifyFull,
                }
            }
            (SslMode::VerifyFull, None) => Trust::Vouched {
                roots: system_roots()?,
                pinned: Vec::new(),
                named: true,
            },
        };
        let verifier = Verifier {
            trust,
            provider: Arc::clone(&provider),
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| TlsError::Other(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match (&settings.cert, &settings.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => builder
                .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity(cert, key)?))),
            (Some(_), None) | (None, Some(_)) => return Err(TlsError::Incomplete),
        };
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self {
            config: Arc::new(config),
            name,
        })
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// The node's certificate isn't trusted, or the stream's.
    pub(crate) async fn connect(&self, stream: Stream) -> io::Result<Stream> {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = connector.connect(self.name.clone(), stream).await?;
        let shown = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(<[_]>::first);
        let end_point = shown.and_then(|shown| certificate::end_point(shown));
        Ok(Stream::Tls(Box::new(Tls {
            stream: TlsStream::Client(stream),
            end_point,
        })))
    }
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(TlsError::NoSystemRoots);
    }
    Ok(roots)
}

#[derive(Debug)]
enum Trust {
    /// Encrypted, but with whoever answers.
    Anyone,
    /// With whom these certificates vouch for.
    Vouched {
        roots: RootCertStore,
        /// The same certificates: a node may show one of them itself, as with the self-signed
        /// certificates that PostgreSQL's manual makes. OpenSSL accepts that, webpki doesn't.
        pinned: Vec<CertificateDer<'static>>,
        /// The certificate must be for the node's host, too.
        named: bool,
    },
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Trust::Vouched {
            roots,
            pinned,
            named,
        } = &self.trust
        else {
            return Ok(ServerCertVerified::assertion());
        };
        let certificate = ParsedCertificate::try_from(end_entity).map_err(|error| {
            rustls::Error::General(format!(
                "the certificate can't be checked ({error}): it must be of X.509 version 3, with a \
                 subjectAltName"
            ))
        })?;
        match verify_server_cert_signed_by_trust_anchor(
            &certificate,
            roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        ) {
            Ok(()) => (),
            // Validity and the rest have been checked by then; `Other` says that it is a CA's.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(_)))
                if pinned.contains(end_entity) => {}
            Err(error) => return Err(error),
        }
        if *named {
            verify_server_name(&certificate, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    // Checked in every mode: a man in the middle who merely shows the node's certificate would
    // otherwise pass channel binding.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        match (&self.trust, certificate::public_key(certificate)) {
            // webpki takes certificates of X.509 version 3 only.
            (Trust::Anyone, Some(key)) => {
                let key = SubjectPublicKeyInfoDer::from(key);
                verify_tls13_signature_with_raw_key(message, &key, signed, algorithms)
            }
            _ => verify_tls13_signature(message, certificate, signed, algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
