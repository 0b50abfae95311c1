//! What webpki doesn't tell of a certificate: the hash that both ends of a connection can compute
//! (RFC 5929, section 4), and the key of one of X.509 version 1, as the recipe of PostgreSQL's
//! manual makes them.

use ring::digest::{Algorithm, Digest, SHA256, SHA384, SHA512, digest};

/// `tls-server-end-point` channel binding data.
pub type EndPoint = Digest;

/// Hashes a DER certificate with the hash of its own signature, or with SHA-256 where that is MD5
/// or SHA-1. `None` for signatures without a hash of their own (Ed25519, RSA-PSS), for which
/// neither RFC nor PostgreSQL before 16 has an answer.
pub(super) fn end_point(certificate: &[u8]) -> Option<EndPoint> {
    signature_hash(certificate).map(|algorithm| digest(algorithm, certificate))
}

/// The SubjectPublicKeyInfo of a DER certificate, whole.
///
/// TBSCertificate ::= SEQUENCE { version [0] OPTIONAL, serialNumber INTEGER, signature, issuer,
/// validity, subject, subjectPublicKeyInfo: SEQUENCE each, … }
pub(super) fn public_key(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (signed, _) = element(certificate, SEQUENCE)?;
    let signed = element(signed, VERSION).map_or(signed, |(_version, rest)| rest);
    let (_serial, mut rest) = element(signed, INTEGER)?;
    for _field in ["signature", "issuer", "validity", "subject"] {
        (_, rest) = element(rest, SEQUENCE)?;
    }
    let (_key, behind) = element(rest, SEQUENCE)?;
    rest.get(..rest.len() - behind.len())
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OID: u8 = 0x06;
const VERSION: u8 = 0xA0;

/// Certificate ::= SEQUENCE { tbsCertificate SEQUENCE, signatureAlgorithm SEQUENCE { OID, … }, … }
fn signature_hash(certificate: &[u8]) -> Option<&'static Algorithm> {
    /// 1.2.840.113549.1.1
    const PKCS_1: [u8; 8] = [0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01];
    /// 1.2.840.10045.4
    const ECDSA: [u8; 6] = [0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04];

    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (_signed, rest) = element(certificate, SEQUENCE)?;
    let (algorithm, _) = element(rest, SEQUENCE)?;
    let (oid, _) = element(algorithm, OID)?;
    if let Some(kind) = oid.strip_prefix(&PKCS_1) {
        return match kind {
            // MD5, SHA-1, SHA-256
            [4 | 5 | 11] => Some(&SHA256),
            [12] => Some(&SHA384),
            [13] => Some(&SHA512),
            _ => None,
        };
    }
    match oid.strip_prefix(&ECDSA)? {
        // SHA-1, SHA-256
        [1] | [3, 2] => Some(&SHA256),
        [3, 3] => Some(&SHA384),
        [3, 4] => Some(&SHA512),
        _ => None,
    }
}

/// The content of a DER element of type `tag`, and what is behind it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = bytes.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7F => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
            (
                digits
                    .iter()
                    .fold(0, |sum, &digit| sum << 8 | usize::from(digit)),
                rest,
            )
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn certificate(oid: &[u8]) -> Vec<u8> {
        let wrap = |tag: u8, content: &[u8]| {
            let length = u16::try_from(content.len()).unwrap().to_be_bytes();
            [&[tag, 0x82][..], &length, content].concat()
        };
        let algorithm = wrap(0x30, &wrap(0x06, oid));
        wrap(
            0x30,
            &[wrap(0x30, &[7; 300]), algorithm, vec![3, 1, 0]].concat(),
        )
    }

    #[test]
    fn the_hash_is_the_signatures_own_or_sha_256_for_weak_ones() {
        let rsa = |kind| vec![0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, kind];
        let ecdsa = |kind: &[u8]| [&[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04][..], kind].concat();
        for (oid, expected) in [
            (rsa(5), Some(&SHA256)),
            (rsa(11), Some(&SHA256)),
            (rsa(12), Some(&SHA384)),
            (rsa(13), Some(&SHA512)),
            (rsa(10), None),
            (ecdsa(&[1]), Some(&SHA256)),
            (ecdsa(&[3, 2]), Some(&SHA256)),
            (ecdsa(&[3, 3]), Some(&SHA384)),
            (ecdsa(&[3, 4]), Some(&SHA512)),
            (vec![0x2B, 0x65, 0x70], None),
        ] {
            let certificate = certificate(&oid);
            let expected = expected.map(|algorithm| digest(algorithm, &certificate));
            let found = end_point(&certificate);
            assert_eq!(
                found.map(|d| d.as_ref().to_vec()),
                expected.map(|d| d.as_ref().to_vec())
            );
        }
    }

    proptest! {
        #[test]
        fn nothing_that_a_server_sends_as_a_certificate_panics(
            mut bytes: Vec<u8>,
            cut in 0usize..400,
        ) {
            let _read = (end_point(&bytes), public_key(&bytes));
            bytes.insert(0, 0x30);
            let _read = (end_point(&bytes), public_key(&bytes));
            let whole = certificate(&[0x2A]);
            prop_assert!(end_point(&whole[..cut.min(whole.len())]).is_none());
        }
    }
}
