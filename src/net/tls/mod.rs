//! TLS towards clients ([`ServerTls`]) and nodes ([`ClientTls`]): rustls with the `ring` provider,
//! TLS 1.2 and 1.3, no session tickets (as PostgreSQL), ALPN `postgresql`.
//!
//! Certificates are read once, when a configuration is made; an error names the file.

mod certificate;
mod client;
mod server;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::{
    TlsStream,
    rustls::{
        self,
        crypto::CryptoProvider,
        pki_types::{
            CertificateDer, PrivateKeyDer,
            pem::{self, PemObject as _},
        },
        sign::CertifiedKey,
    },
};

pub use certificate::EndPoint;
pub use client::ClientTls;
pub use server::ServerTls;

use super::Stream;

/// An encrypted connection over another stream.
#[derive(Debug)]
pub struct Tls {
    pub(super) stream: TlsStream<Stream>,
    pub(super) end_point: Option<EndPoint>,
}

/// A configuration that can't be used.
#[derive(Debug)]
pub enum TlsError {
    File {
        path: PathBuf,
        problem: String,
    },
    /// A certificate without a key, or a key without a certificate.
    Incomplete,
    /// The system has no certificates that vouch for anyone.
    NoSystemRoots,
    /// The node's host is neither a DNS name nor an address.
    Host(String),
    Other(String),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, problem } => write!(f, "{}: {problem}", path.display()),
            Self::Incomplete => f.write_str("a TLS certificate and its key must be given together"),
            Self::NoSystemRoots => {
                f.write_str("the system has no CA certificates: give the node's in node.tls.ca")
            }
            Self::Host(host) => write!(f, "\"{host}\" is not a name that a certificate can have"),
            Self::Other(problem) => f.write_str(problem),
        }
    }
}

impl std::error::Error for TlsError {}

const ALPN: &[u8] = b"postgresql";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn unreadable(path: &Path, error: &pem::Error) -> TlsError {
    let problem = match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "holds nothing of the kind that is needed".to_owned(),
        other => format!("not valid PEM: {other}"),
    };
    TlsError::File {
        path: path.into(),
        problem,
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(path, &error))?;
    if certificates.is_empty() {
        return Err(TlsError::File {
            path: path.into(),
            problem: "holds no certificate".to_owned(),
        });
    }
    Ok(certificates)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::File {
            path: path.into(),
            problem: "holds no private key that can be used (encrypted keys can't)".to_owned(),
        },
        error => unreadable(path, &error),
    })
}

/// A certificate chain with its key, whatever the X.509 version.
fn identity(cert: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(cert)?;
    let signing = provider()
        .key_provider
        .load_private_key(private_key(key)?)
        .map_err(|error| TlsError::File {
            path: key.into(),
            problem: error.to_string(),
        })?;
    let certified = chain.first().and_then(|own| certificate::public_key(own));
    if signing
        .public_key()
        .is_some_and(|public| certified != Some(public.as_ref()))
    {
        return Err(TlsError::File {
            path: cert.into(),
            problem: format!("is not for the key in {}", key.display()),
        });
    }
    Ok(CertifiedKey::new(chain, signing))
}

fn roots(path: &Path) -> Result<(rustls::RootCertStore, Vec<CertificateDer<'static>>), TlsError> {
    let mut roots = rustls::RootCertStore::empty();
    let certificates = certificates(path)?;
    for certificate in &certificates {
        roots
            .add(certificate.clone())
            .map_err(|error| TlsError::File {
                path: path.into(),
                problem: format!("holds a certificate that can't vouch for others: {error}"),
            })?;
    }
    Ok((roots, certificates))
}

/// rustls hands its errors over inside of I/O errors.
pub(super) fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "connection closed during the TLS handshake".to_owned(),
        _ => error.to_string(),
    }
}
