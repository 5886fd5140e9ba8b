//! Certificates as people look at them, and new ones. Whether one is to be trusted is `trust`'s and `authority`'s business.

use std::fmt;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, date_time_ymd};
use x509_parser::certificate::X509CertificateParser;
use x509_parser::nom::Parser;
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Version;

use super::TlsError;
use super::trust::fingerprint;

/// What a certificate says, in words; what cannot be read is `?`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// SHA-256, `AB:CD:…`
    pub fingerprint: String,
    /// `RSA-2048`, `EC-256`, or the number of the algorithm.
    pub key: String,
    pub subject: String,
    /// Dates, `2026-01-31`.
    pub not_before: String,
    pub not_after: String,
    /// It is of version 1 of X.509, which has no extensions.
    pub is_version_1: bool,
}

impl Description {
    /// Reads a certificate, DER.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        let fingerprint = fingerprint(der);
        let mut parser = X509CertificateParser::new().with_deep_parse_extensions(false);
        let Ok((_, certificate)) = parser.parse(der) else {
            let unknown = || "?".to_owned();
            return Self {
                fingerprint,
                key: unknown(),
                subject: unknown(),
                not_before: unknown(),
                not_after: unknown(),
                is_version_1: false,
            };
        };
        let info = certificate.public_key();
        let key = match info.parsed() {
            Ok(key @ PublicKey::RSA(_)) => format!("RSA-{}", key.key_size()),
            Ok(key @ PublicKey::EC(_)) => format!("EC-{}", key.key_size()),
            _ if info.algorithm.algorithm.to_id_string() == "1.3.101.112" => "Ed25519".to_owned(),
            _ => info.algorithm.algorithm.to_id_string(),
        };
        // A peer has written it.
        let subject = crate::model::path::shown(certificate.subject().to_string().as_bytes());
        let validity = certificate.validity();
        Self {
            fingerprint,
            key,
            subject,
            not_before: date(validity.not_before),
            not_after: date(validity.not_after),
            is_version_1: certificate.version() == X509Version::V1,
        }
    }
}

fn date(time: ASN1Time) -> String {
    let time = time.to_datetime();
    format!("{:04}-{:02}-{:02}", time.year(), u8::from(time.month()), time.day())
}

impl fmt::Display for Description {
    /// Columns for scripts and people.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fingerprint, key, subject, not_before, not_after, .. } = self;
        write!(formatter, "{fingerprint}\t{key}\t{subject}\t{not_before}\t{not_after}")
    }
}

/// A new key and its certificate, PEM.
#[derive(Debug)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// Makes a pair for a host that every csync2 and every GnuTLS in use understands: ECDSA on P-256, X.509 version 3. Nobody
/// asks for its dates, so they are far apart.
///
/// # Errors
/// [`TlsError::Setup`]: the system gives no random numbers.
pub fn generate(host: &str) -> Result<Pair, TlsError> {
    let failed = |error: rcgen::Error| TlsError::Setup(error.to_string());
    // A name that is none for the DNS stands in the subject alone.
    let mut params = CertificateParams::new([host.to_owned()]).unwrap_or_default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, host);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    fn described(pem: &str) -> Description {
        Description::of(&CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
    }

    #[test]
    fn a_new_pair_is_made_out_for_the_host() {
        for host in ["alpha", "alpha.example.net", "10.0.0.1", "ümläut host"] {
            let new = described(&generate(host).unwrap().certificate);
            assert_eq!((new.key.as_str(), new.is_version_1), ("EC-256", false));
            assert_eq!(new.subject, format!("CN={host}"));
            assert_eq!((new.not_before.as_str(), new.not_after.as_str()), ("2020-01-01", "2120-01-01"));
        }
        assert_ne!(generate("alpha").unwrap().key, generate("alpha").unwrap().key);
    }

    #[test]
    fn every_kind_in_the_field_is_described() {
        for (name, key) in
            [("rsa1024", "RSA-1024"), ("rsa2048", "RSA-2048"), ("p256", "EC-256"), ("ed25519", "Ed25519")]
        {
            let made = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls");
            let described = described(&std::fs::read_to_string(format!("{made}/{name}.crt")).unwrap());
            assert_eq!(described.key, key);
            assert!(described.subject.starts_with("CN="), "{described}");
        }
        let unknown = Description::of(b"junk").to_string();
        assert!(unknown.ends_with("\t?\t?\t?\t?"), "{unknown}");
    }

    #[test]
    fn a_subject_cannot_pass_for_another_line() {
        let evil = generate("beta\n\tgamma\x1b[2J").unwrap();
        assert_eq!(described(&evil.certificate).subject, "CN=beta\\n\\tgamma\\u{1b}[2J");
    }
}
