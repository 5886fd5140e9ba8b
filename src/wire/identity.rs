//! Our own certificate and key: `csync2_ssl_cert.pem` and `csync2_ssl_key.pem` in the system directory.
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
    /// # Errors
    /// [`TlsError`]: says which file, what is wrong with it, and the command that makes a new pair.
    pub fn load(system_dir: &Path) -> Result<Self, TlsError> {
        let files =
            Files { certificate: system_dir.join("csync2_ssl_cert.pem"), key: system_dir.join("csync2_ssl_key.pem") };
        let chain = files.read_certificates()?;
        let key = files.read_key()?;
        let certificate = chain[0].clone();
        files.check_pair(&certificate, key.as_ref())?;
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

/// Where the pair is kept.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn read_certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let pem = self.read(&self.certificate)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        match chain {
            Ok(chain) if !chain.is_empty() => Ok(chain),
            Ok(_) => Err(self.refuse(&self.certificate, "there is no `BEGIN CERTIFICATE' in it")),
            Err(error) => Err(self.refuse(&self.certificate, &pem_problem(&error))),
        }
    }

    fn read_key(&self) -> Result<Arc<dyn SigningKey>, TlsError> {
        let refuse = |problem: &str| self.refuse(&self.key, problem);
        let pem = self.read(&self.key)?;
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
        let signer = signer.ok_or_else(|| self.refuse(&self.key, "no signature can be made with its key"))?;
        let message = b"csync2";
        let signature = signer.sign(message).map_err(|error| self.refuse(&self.key, &error.to_string()))?;
        tls::verify_signature(algorithms, Version::Tls12, message, certificate, signer.scheme(), &signature).map_err(
            |error| match error {
                Error::InvalidCertificate(rustls::CertificateError::BadEncoding) => {
                    self.refuse(&self.certificate, "the certificate in it is damaged")
                }
                Error::General(problem) => self.refuse(&self.certificate, &problem),
                _ => TlsError::Mismatch {
                    certificate: self.certificate.clone(),
                    key: self.key.clone(),
                    advice: self.advice(),
                },
            },
        )
    }

    fn weaknesses(&self, certificate: &[u8]) -> Vec<String> {
        let mut weaknesses = Vec::new();
        if let Some(weakness) = trust::weakness(certificate) {
            weaknesses.push(format!(
                "our certificate {} {weakness}; {}. The other hosts must then forget the old one (docs/operations.md, \
                 Certificates).",
                self.certificate.display(),
                self.advice()
            ));
        }
        if std::fs::metadata(&self.key).is_ok_and(|metadata| metadata.mode() & 0o004 != 0) {
            let key = self.key.display();
            weaknesses.push(format!("our TLS key {key} can be read by every user of this host; chmod 600 {key}"));
        }
        weaknesses
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, TlsError> {
        std::fs::read(path).map_err(|error| self.refuse(path, &strerror(&error)))
    }

    fn refuse(&self, path: &Path, problem: &str) -> TlsError {
        TlsError::File { path: path.to_owned(), problem: problem.to_owned(), advice: self.advice() }
    }

    fn advice(&self) -> String {
        format!(
            "make a new pair with: openssl req -x509 -newkey rsa:2048 -nodes -days 36500 -subj /CN=csync2 -keyout {} -out {}",
            self.key.display(),
            self.certificate.display()
        )
    }
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

    /// A system directory with this certificate and this key.
    fn directory(certificate: &str, key: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (from, to) in [(certificate, "csync2_ssl_cert.pem"), (key, "csync2_ssl_key.pem")] {
            std::fs::copy(Path::new(MADE).join(from), directory.path().join(to)).unwrap();
        }
        directory
    }

    #[test]
    fn every_kind_in_the_field_is_loaded() {
        for name in ["rsa1024", "rsa2048", "p256", "ed25519"] {
            let directory = directory(&format!("{name}.crt"), &format!("{name}.key"));
            let identity = Identity::load(directory.path()).unwrap();
            assert!(identity.certificate().starts_with(&[0x30]), "{name}: DER");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named_with_a_remedy() {
        for (certificate, key, expected) in [
            ("rsa512.crt", "rsa512.key", "csync2_ssl_key.pem: an RSA key of 512 bits is too short"),
            ("rsa1024.crt", "encrypted.key", "csync2_ssl_key.pem: it is protected by a passphrase"),
            ("rsa1024.crt", "rsa1024.crt", "csync2_ssl_key.pem: there is no key in it"),
            ("rsa1024.key", "rsa1024.key", "csync2_ssl_cert.pem: there is no `BEGIN CERTIFICATE' in it"),
            ("rsa512.crt", "rsa1024.key", "csync2_ssl_cert.pem: the certificate's RSA key has only 512 bits"),
            ("rsa1024.crt", "rsa2048.key", "do not belong together"),
            ("p256.crt", "ed25519.key", "do not belong together"),
        ] {
            let directory = directory(certificate, key);
            let error = Identity::load(directory.path()).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("openssl req -x509"), "{error}");
        }
        let empty = tempfile::tempdir().unwrap();
        let error = Identity::load(empty.path()).unwrap_err().to_string();
        assert!(error.contains("csync2_ssl_cert.pem: No such file or directory; make a new pair"), "{error}");
    }

    #[test]
    fn a_damaged_certificate_is_told_from_a_wrong_key() {
        let directory = directory("p256.crt", "p256.key");
        let damaged = "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n";
        std::fs::write(directory.path().join("csync2_ssl_cert.pem"), damaged).unwrap();
        let error = Identity::load(directory.path()).unwrap_err().to_string();
        assert!(error.contains("the certificate in it is damaged"), "{error}");
    }
}
