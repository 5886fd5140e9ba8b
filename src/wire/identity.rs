//! Our own certificate and key. Which files they are is the configuration's to say.
//!
//! Read once, checked at once: a pair that does not fit, or a key that cannot sign, is found here and not in the middle
//! of a handshake. How they are used is `tls`'s business.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rsa::pkcs1::DecodeRsaPrivateKey;
use rsa::pkcs8::DecodePrivateKey;
use rsa::rand_core::OsRng;
use rsa::sha2::Sha256;
use rsa::signature::{RandomizedSigner, SignatureEncoding};
use rsa::traits::PublicKeyParts;
use rsa::{RsaPrivateKey, pkcs1v15, pss};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::TlsError;
use super::tls::{self, MIN_RSA_BITS, RING_RSA_BITS, Version};
use super::trust;
use crate::model::errors::strerror;

/// What we present to every peer. A clone costs nothing.
#[derive(Clone)]
pub struct Identity {
    certificate: CertificateDer<'static>,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    weaknesses: Arc<[String]>,
}

impl Identity {
    /// Reads certificate and key. The key may be PKCS#1, PKCS#8 or SEC1; RSA of 1024 bits and more, ECDSA on P-256 or
    /// P-384, Ed25519.
    ///
    /// `legacy`: whether it may be a weak one, as csync2's documentation made them once.
    ///
    /// # Errors
    /// [`TlsError`]: says which file, what is wrong with it, and the command that makes a new pair.
    pub fn load(certificate: &Path, key: &Path, legacy: bool) -> Result<Self, TlsError> {
        let files = Files { certificate: certificate.to_owned(), key: key.to_owned() };
        let chain = files.read_certificates()?;
        let key = files.read_key()?;
        let certificate = chain[0].clone();
        files.check_pair(&certificate, key.as_ref())?;
        if let (Some(weakness), false) = (trust::weakness(&certificate), legacy) {
            let problem = format!("it {weakness}, and --no-legacy-tls or `legacy-tls no` forbids that");
            return Err(refuse(&files.certificate, &problem));
        }
        let weaknesses = files.weaknesses(&certificate);
        // Taken as it is: rustls could not parse a certificate of X.509 version 1.
        let ours = Arc::new(CertifiedKey::new(chain, key));
        let setup = |error: Error| TlsError::Setup(error.to_string());
        Ok(Self {
            certificate,
            weaknesses: weaknesses.into(),
            acceptor: TlsAcceptor::from(Arc::new(tls::server_config(&ours).map_err(setup)?)),
            connector: TlsConnector::from(Arc::new(tls::client_config(&ours).map_err(setup)?)),
        })
    }

    /// Our certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// What is not as it should be with the pair, though it works: whole sentences.
    pub fn weaknesses(&self) -> &[String] {
        &self.weaknesses
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }

    pub(super) fn connector(&self) -> TlsConnector {
        self.connector.clone()
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fingerprint = super::trust::fingerprint(&self.certificate);
        formatter.debug_struct("Identity").field("certificate", &fingerprint).finish_non_exhaustive()
    }
}

/// What to do about a pair that cannot be used.
const ADVICE: &str = "make a new pair with: csync2 --gen-ssl-cert";

/// Where the pair is kept.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn read_certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let pem = read(&self.certificate)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        match chain {
            Ok(chain) if !chain.is_empty() => Ok(chain),
            Ok(_) => Err(refuse(&self.certificate, "there is no `BEGIN CERTIFICATE` in it")),
            Err(error) => Err(refuse(&self.certificate, &pem_problem(&error))),
        }
    }

    fn read_key(&self) -> Result<Arc<dyn SigningKey>, TlsError> {
        let refuse = |problem: &str| refuse(&self.key, problem);
        let pem = read(&self.key)?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
            let encrypted = pem.windows(9).any(|word| word == b"ENCRYPTED");
            let problem = if encrypted { "it is protected by a passphrase".to_owned() } else { pem_problem(&error) };
            refuse(&problem)
        })?;
        let rsa = match &key {
            PrivateKeyDer::Pkcs1(der) => RsaPrivateKey::from_pkcs1_der(der.secret_pkcs1_der()).ok(),
            PrivateKeyDer::Pkcs8(der) => RsaPrivateKey::from_pkcs8_der(der.secret_pkcs8_der()).ok(),
            _ => None,
        };
        match rsa {
            Some(rsa) if rsa.n().bits() < MIN_RSA_BITS => {
                Err(refuse(&format!("an RSA key of {} bits is too short, {MIN_RSA_BITS} is the least", rsa.n().bits())))
            }
            Some(rsa) if rsa.n().bits() < RING_RSA_BITS => Ok(Arc::new(SmallRsaKey(Arc::new(rsa)))),
            _ => tls::provider()
                .key_provider
                .load_private_key(key)
                .map_err(|error| refuse(&format!("its key is of no known kind ({error})"))),
        }
    }

    /// Signs something and checks the signature the way a peer does: certificate and key belong together, and both are
    /// of a kind that works.
    fn check_pair(&self, certificate: &CertificateDer<'_>, key: &dyn SigningKey) -> Result<(), TlsError> {
        let algorithms = tls::provider().signature_verification_algorithms;
        let signer = key.choose_scheme(&algorithms.supported_schemes());
        let signer = signer.ok_or_else(|| refuse(&self.key, "no signature can be made with its key"))?;
        let message = b"csync2";
        let signature = signer.sign(message).map_err(|error| refuse(&self.key, &error.to_string()))?;
        tls::verify_signature(algorithms, Version::Tls12, message, certificate, signer.scheme(), &signature).map_err(
            |error| match error {
                Error::InvalidCertificate(rustls::CertificateError::BadEncoding) => {
                    refuse(&self.certificate, "the certificate in it is damaged")
                }
                Error::General(problem) => refuse(&self.certificate, &problem),
                _ => TlsError::Mismatch {
                    certificate: self.certificate.clone(),
                    key: self.key.clone(),
                    advice: ADVICE.to_owned(),
                },
            },
        )
    }

    fn weaknesses(&self, certificate: &[u8]) -> Vec<String> {
        let mut weaknesses = Vec::new();
        if let Some(weakness) = trust::weakness(certificate) {
            weaknesses.push(format!(
                "our certificate {} {weakness}. For a better one move it and its key away and {}; each other host must then \
                 forget the old one: csync2 --rm-ssl-cert NAME-OF-THIS-HOST",
                self.certificate.display(),
                ADVICE
            ));
        }
        if std::fs::metadata(&self.key).is_ok_and(|metadata| metadata.mode() & 0o004 != 0) {
            let key = self.key.display();
            weaknesses.push(format!("our TLS key {key} can be read by every user of this host; chmod 600 {key}"));
        }
        weaknesses
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| refuse(path, &strerror(&error)))
}

fn refuse(path: &Path, problem: &str) -> TlsError {
    TlsError::File { path: path.to_owned(), problem: problem.to_owned(), advice: ADVICE.to_owned() }
}

fn pem_problem(error: &PemError) -> String {
    match error {
        PemError::NoItemsFound => "there is no key in it in PEM format".to_owned(),
        error => format!("it is no proper PEM file ({error})"),
    }
}

/// An RSA key that ring finds too short. Signatures over SHA-256 only: the longer digests do not fit into 1024 bits, and
/// every peer offers it.
#[derive(Debug)]
struct SmallRsaKey(Arc<RsaPrivateKey>);

impl SigningKey for SmallRsaKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let preferred = [SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256];
        let scheme = preferred.into_iter().find(|scheme| offered.contains(scheme))?;
        Some(Box::new(SmallRsaSigner { key: Arc::clone(&self.0), scheme }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::RSA
    }
}

#[derive(Debug)]
struct SmallRsaSigner {
    key: Arc<RsaPrivateKey>,
    scheme: SignatureScheme,
}

impl Signer for SmallRsaSigner {
    /// With random blinding, so that the time it takes says nothing about the key.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let key = RsaPrivateKey::clone(&self.key);
        let signature = match self.scheme {
            SignatureScheme::RSA_PSS_SHA256 => pss::BlindedSigningKey::<Sha256>::new(key)
                .try_sign_with_rng(&mut OsRng, message)
                .map(|signature| signature.to_vec()),
            _ => pkcs1v15::SigningKey::<Sha256>::new(key)
                .try_sign_with_rng(&mut OsRng, message)
                .map(|signature| signature.to_vec()),
        };
        signature.map_err(|error| Error::General(format!("signing failed: {error}")))
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls");

    fn load(certificate: &str, key: &str, legacy: bool) -> Result<Identity, TlsError> {
        Identity::load(&Path::new(MADE).join(certificate), &Path::new(MADE).join(key), legacy)
    }

    #[test]
    fn every_kind_in_the_field_is_loaded() {
        for name in ["rsa1024", "rsa2048", "p256", "ed25519"] {
            let identity = load(&format!("{name}.crt"), &format!("{name}.key"), true).unwrap();
            assert!(identity.certificate().starts_with(&[0x30]), "{name}: DER");
        }
    }

    #[test]
    fn a_weak_one_is_refused_where_that_is_wanted() {
        load("p256.crt", "p256.key", false).unwrap();
        let error = load("rsa1024.crt", "rsa1024.key", false).unwrap_err().to_string();
        assert!(error.contains("rsa1024.crt: it has an RSA key of 1024 bits") && error.contains("legacy"), "{error}");
    }

    #[test]
    fn what_cannot_be_used_is_named_with_a_remedy() {
        for (certificate, key, expected) in [
            ("rsa512.crt", "rsa512.key", "rsa512.key: an RSA key of 512 bits is too short"),
            ("rsa1024.crt", "encrypted.key", "encrypted.key: it is protected by a passphrase"),
            ("rsa1024.crt", "rsa1024.crt", "rsa1024.crt: there is no key in it"),
            ("rsa1024.key", "rsa1024.key", "rsa1024.key: there is no `BEGIN CERTIFICATE` in it"),
            ("rsa512.crt", "rsa1024.key", "rsa512.crt: the certificate's RSA key has only 512 bits"),
            ("rsa1024.crt", "rsa2048.key", "do not belong together"),
            ("p256.crt", "ed25519.key", "do not belong together"),
        ] {
            let error = load(certificate, key, true).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("csync2 --gen-ssl-cert"), "{error}");
        }
        let error = load("none.crt", "none.key", true).unwrap_err().to_string();
        assert!(error.contains("none.crt: No such file or directory; make a new pair"), "{error}");
    }

    #[test]
    fn a_damaged_certificate_is_told_from_a_wrong_key() {
        let damaged = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(damaged.path(), "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n").unwrap();
        let error = Identity::load(damaged.path(), &Path::new(MADE).join("p256.key"), true).unwrap_err().to_string();
        assert!(error.contains("the certificate in it is damaged"), "{error}");
    }
}
