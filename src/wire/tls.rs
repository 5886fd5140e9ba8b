//! TLS as csync2 uses it: both sides show a certificate, nobody asks who signed it, for whom or until when. What counts
//! is that the peer holds the key (checked here) and that the certificate is the pinned one (`trust`).
//!
//! Signatures are checked against the key in the certificate and not through webpki: csync2's documented recipe has made
//! X.509 v1 certificates with RSA-1024 keys for years, and webpki refuses both.

use std::sync::Arc;

use rsa::pkcs1v15;
use rsa::pss;
use rsa::sha2::{Sha256, Sha384, Sha512};
use rsa::signature::Verifier;
use rsa::traits::PublicKeyParts;
use rsa::{BigUint, RsaPublicKey};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved, ServerConfig,
    SignatureScheme,
};
use x509_parser::asn1_rs::{Any, FromDer};
use x509_parser::certificate::X509CertificateParser;
use x509_parser::nom::Parser;
use x509_parser::public_key::PublicKey;

/// RSA keys below this many bits are refused, ours and the peer's.
pub(super) const MIN_RSA_BITS: usize = 1024;

/// RSA keys below this many bits are more than ring does: the `rsa` crate takes over.
pub(super) const RING_RSA_BITS: usize = 2048;

/// The cryptography that everything here rests on.
pub(super) fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// The name that a client has to give; it is not sent, and nobody looks at it.
pub(super) fn server_name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into())
}

/// What we are as a client: the certificate is shown whatever authorities the server names, since the C program names
/// its own subject.
pub(super) fn client_config(ours: &Arc<CertifiedKey>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(provider());
    let verifier = Arc::new(KeyHolder { algorithms: provider.signature_verification_algorithms });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(ours))));
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// What we are as a server. No tickets and no stored sessions: the C client breaks on them.
pub(super) fn server_config(ours: &Arc<CertifiedKey>) -> Result<ServerConfig, Error> {
    let provider = Arc::new(provider());
    let verifier = Arc::new(KeyHolder { algorithms: provider.signature_verification_algorithms });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(ours))));
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// Accepts any peer that holds the key of the certificate it shows.
#[derive(Debug)]
struct KeyHolder {
    algorithms: WebPkiSupportedAlgorithms,
}

impl KeyHolder {
    fn check(
        &self,
        version: Version,
        message: &[u8],
        certificate: &[u8],
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(self.algorithms, version, message, certificate, signed.scheme, signed.signature())?;
        Ok(HandshakeSignatureValid::assertion())
    }

    /// What a peer may sign with. `GnuTLS` takes the first that its key's kind can do, whatever the key's length, and a
    /// signature over SHA-512 does not fit into RSA-1024: the short digests come first.
    fn schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self.algorithms.supported_schemes();
        schemes.sort_by_key(|scheme| match scheme {
            SignatureScheme::RSA_PSS_SHA384 => 1,
            SignatureScheme::RSA_PSS_SHA512 => 2,
            _ => 0,
        });
        schemes
    }
}

impl ServerCertVerifier for KeyHolder {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        PeerKey::of(certificate, |_| ()).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check(Version::Tls12, message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check(Version::Tls13, message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for KeyHolder {
    /// None: a `GnuTLS` client shows no certificate when its own issuer is not among those named.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        PeerKey::of(certificate, |_| ()).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check(Version::Tls12, message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check(Version::Tls13, message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

/// The rules for signatures differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Tls12,
    Tls13,
}

/// Whether `signature` over `message` was made with the key of `certificate` (DER).
pub(super) fn verify_signature(
    algorithms: WebPkiSupportedAlgorithms,
    version: Version,
    message: &[u8],
    certificate: &[u8],
    scheme: SignatureScheme,
    signature: &[u8],
) -> Result<(), Error> {
    let Some((_, usable)) = algorithms.mapping.iter().find(|(known, _)| *known == scheme) else {
        return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
    };
    if version == Version::Tls13 && is_of_tls12_only(scheme) {
        return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
    }
    // TLS 1.3 ties each ECDSA scheme to its curve, which is the first of its algorithms; TLS 1.2 does not.
    let usable = if version == Version::Tls13 { &usable[..1] } else { usable };
    PeerKey::of(certificate, |key| match key {
        PeerKey::SmallRsa(key) => verify_with_small_rsa(key, scheme, message, signature),
        PeerKey::Other { algorithm, key } => {
            let fitting = usable.iter().find(|usable| usable.public_key_alg_id().as_ref() == *algorithm);
            let fitting = fitting.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
            fitting.verify_signature(key, message, signature).map_err(|_| CertificateError::BadSignature.into())
        }
    })?
}

/// PKCS#1 v1.5 and SHA-1 have no place in a TLS 1.3 handshake.
fn is_of_tls12_only(scheme: SignatureScheme) -> bool {
    matches!(
        scheme,
        SignatureScheme::RSA_PKCS1_SHA1
            | SignatureScheme::RSA_PKCS1_SHA256
            | SignatureScheme::RSA_PKCS1_SHA384
            | SignatureScheme::RSA_PKCS1_SHA512
            | SignatureScheme::ECDSA_SHA1_Legacy
    )
}

/// The length of the RSA key in a certificate, where that is shorter than keys are made today.
pub(super) fn short_rsa_bits(certificate: &[u8]) -> Option<usize> {
    let bits = |key: &PeerKey<'_>| match key {
        PeerKey::SmallRsa(key) => Some(key.n().bits()),
        PeerKey::Other { .. } => None,
    };
    PeerKey::of(certificate, bits).ok().flatten()
}

/// The public key of a certificate.
enum PeerKey<'c> {
    /// Of 1024 to 2047 bits.
    SmallRsa(RsaPublicKey),
    /// What ring knows: `algorithm` is the content of the `AlgorithmIdentifier`, `key` that of the bit string.
    Other { algorithm: &'c [u8], key: &'c [u8] },
}

impl PeerKey<'_> {
    /// Takes the key out of a certificate of any X.509 version and passes it to `with`.
    fn of<T>(certificate: &[u8], with: impl FnOnce(&PeerKey<'_>) -> T) -> Result<T, Error> {
        let unreadable = || Error::InvalidCertificate(CertificateError::BadEncoding);
        // The extensions, about which we do not ask, stay unread.
        let mut parser = X509CertificateParser::new().with_deep_parse_extensions(false);
        let (_, certificate) = parser.parse(certificate).map_err(|_| unreadable())?;
        let info = certificate.public_key();
        if let Ok(PublicKey::RSA(rsa)) = info.parsed() {
            let (modulus, exponent) = (BigUint::from_bytes_be(rsa.modulus), BigUint::from_bytes_be(rsa.exponent));
            if modulus.bits() < MIN_RSA_BITS {
                return Err(Error::General(format!("the certificate's RSA key has only {} bits", modulus.bits())));
            }
            if modulus.bits() < RING_RSA_BITS {
                let key = RsaPublicKey::new(modulus, exponent).map_err(|_| unreadable())?;
                return Ok(with(&PeerKey::SmallRsa(key)));
            }
        }
        let (_, info_fields) = Any::from_der(info.raw).map_err(|_| unreadable())?;
        let (_, algorithm) = Any::from_der(info_fields.data).map_err(|_| unreadable())?;
        Ok(with(&PeerKey::Other { algorithm: algorithm.data, key: &info.subject_public_key.data }))
    }
}

fn verify_with_small_rsa(
    key: &RsaPublicKey,
    scheme: SignatureScheme,
    message: &[u8],
    signature: &[u8],
) -> Result<(), Error> {
    let key = key.clone();
    let pss = || pss::Signature::try_from(signature);
    let pkcs1 = || pkcs1v15::Signature::try_from(signature);
    let verified = match scheme {
        SignatureScheme::RSA_PSS_SHA256 => {
            pss().and_then(|s| pss::VerifyingKey::<Sha256>::new(key).verify(message, &s))
        }
        SignatureScheme::RSA_PSS_SHA384 => {
            pss().and_then(|s| pss::VerifyingKey::<Sha384>::new(key).verify(message, &s))
        }
        SignatureScheme::RSA_PSS_SHA512 => {
            pss().and_then(|s| pss::VerifyingKey::<Sha512>::new(key).verify(message, &s))
        }
        SignatureScheme::RSA_PKCS1_SHA256 => {
            pkcs1().and_then(|s| pkcs1v15::VerifyingKey::<Sha256>::new(key).verify(message, &s))
        }
        SignatureScheme::RSA_PKCS1_SHA384 => {
            pkcs1().and_then(|s| pkcs1v15::VerifyingKey::<Sha384>::new(key).verify(message, &s))
        }
        SignatureScheme::RSA_PKCS1_SHA512 => {
            pkcs1().and_then(|s| pkcs1v15::VerifyingKey::<Sha512>::new(key).verify(message, &s))
        }
        _ => return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into()),
    };
    verified.map_err(|_| CertificateError::BadSignature.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rsa::RsaPrivateKey;
    use rsa::pkcs1::DecodeRsaPrivateKey;
    use rsa::signature::{RandomizedSigner, SignatureEncoding, Signer};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;

    macro_rules! made {
        ($name:literal) => {
            include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls/", $name))
        };
    }

    const MESSAGE: &[u8] = b"what was said so far";

    fn certificate(pem: &[u8]) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem).unwrap()
    }

    fn verify(version: Version, certificate: &[u8], scheme: SignatureScheme, signature: &[u8]) -> Result<(), Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_signature(algorithms, version, MESSAGE, certificate, scheme, signature)
    }

    /// Signs with ring.
    fn sign(key: &[u8], scheme: SignatureScheme) -> Vec<u8> {
        let key = PrivateKeyDer::from_pem_slice(key).unwrap();
        let key = provider().key_provider.load_private_key(key).unwrap();
        key.choose_scheme(&[scheme]).unwrap().sign(MESSAGE).unwrap()
    }

    const BOTH: [Version; 2] = [Version::Tls12, Version::Tls13];

    #[test]
    fn the_signature_must_be_made_with_the_key_of_the_certificate() {
        for (certificate_pem, key, scheme) in [
            (&made!("rsa2048.crt")[..], &made!("rsa2048.key")[..], SignatureScheme::RSA_PSS_SHA512),
            (made!("p256.crt"), made!("p256.key"), SignatureScheme::ECDSA_NISTP256_SHA256),
            (made!("ed25519.crt"), made!("ed25519.key"), SignatureScheme::ED25519),
        ] {
            let signature = sign(key, scheme);
            for version in BOTH {
                verify(version, &certificate(certificate_pem), scheme, &signature).unwrap();
                let mut wrong = signature.clone();
                *wrong.last_mut().unwrap() ^= 1;
                assert_eq!(
                    verify(version, &certificate(certificate_pem), scheme, &wrong),
                    Err(CertificateError::BadSignature.into())
                );
                verify(version, &certificate(made!("rsa1024.crt")), scheme, &signature).unwrap_err();
            }
        }
    }

    #[test]
    fn short_rsa_keys_verify_down_to_1024_bits() {
        let short = certificate(made!("rsa1024.crt"));
        let key = RsaPrivateKey::from_pkcs1_pem(std::str::from_utf8(made!("rsa1024.key")).unwrap()).unwrap();
        let mut random = rsa::rand_core::OsRng;
        let pss = pss::SigningKey::<Sha256>::new(key.clone()).sign_with_rng(&mut random, MESSAGE).to_vec();
        let pkcs1 = pkcs1v15::SigningKey::<Sha512>::new(key).sign(MESSAGE).to_vec();
        for version in BOTH {
            verify(version, &short, SignatureScheme::RSA_PSS_SHA256, &pss).unwrap();
            verify(version, &short, SignatureScheme::RSA_PSS_SHA384, &pss).unwrap_err();
            verify(version, &short, SignatureScheme::RSA_PSS_SHA256, &pkcs1).unwrap_err();
            verify(version, &short, SignatureScheme::ED25519, &pss).unwrap_err();
        }
        verify(Version::Tls12, &short, SignatureScheme::RSA_PKCS1_SHA512, &pkcs1).unwrap();
        let error =
            verify(Version::Tls12, &certificate(made!("rsa512.crt")), SignatureScheme::RSA_PKCS1_SHA512, &pkcs1);
        assert_eq!(error, Err(Error::General("the certificate's RSA key has only 512 bits".to_owned())));
    }

    #[test]
    fn old_schemes_have_no_place_in_tls_13() {
        let scheme = SignatureScheme::RSA_PKCS1_SHA256;
        let signature = sign(made!("rsa2048.key"), scheme);
        let certificate = certificate(made!("rsa2048.crt"));
        verify(Version::Tls12, &certificate, scheme, &signature).unwrap();
        verify(Version::Tls13, &certificate, scheme, &signature).unwrap_err();
        for version in BOTH {
            verify(version, &certificate, SignatureScheme::RSA_PKCS1_SHA1, &signature).unwrap_err();
        }
    }

    #[test]
    fn a_certificate_that_is_none_is_an_error() {
        for junk in [&b""[..], b"junk", &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &certificate(made!("p256.crt"))[..200]] {
            let refused = verify(Version::Tls12, junk, SignatureScheme::ED25519, b"");
            assert_eq!(refused, Err(Error::InvalidCertificate(CertificateError::BadEncoding)));
        }
    }
}
