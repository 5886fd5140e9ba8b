//! TLS to the server, as libpq's `sslmode` means it.
//!
//! * `prefer`, `require`: any certificate will do, but the server must hold its key. With a root certificate `require`
//!   means `verify-ca`.
//! * `verify-ca`: signed by an authority that we trust; or exactly the certificate that we trust, as servers with a
//!   self-signed one are set up.
//! * `verify-full`: that, and made out for the host; by its common name where it names no host otherwise.
//!
//! Without a root certificate the system's authorities are trusted.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_postgres_rustls::MakeRustlsConnect;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::super::url::SslMode;

/// Builds what makes TLS of a connection. The error names the file that cannot be used.
pub(super) fn connector(mode: SslMode, root_certificate: Option<PathBuf>) -> io::Result<MakeRustlsConnect> {
    let provider = Arc::new(ring::default_provider());
    let trust = match (mode, root_certificate) {
        (SslMode::Disable | SslMode::Prefer, _) | (SslMode::Require, None) => None,
        (_, root_certificate) => {
            let trusted = trusted(root_certificate.as_deref())?;
            let mut roots = RootCertStore::empty();
            // Those that are no proper authorities may still be the server's own.
            roots.add_parsable_certificates(trusted.iter().cloned());
            let chain = if roots.is_empty() {
                None
            } else {
                let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
                Some(builder.build().map_err(io::Error::other)?)
            };
            Some(Trust { trusted, chain, check_name: mode == SslMode::VerifyFull })
        }
    };
    let verifier = Arc::new(Verifier { trust, provider: Arc::clone(&provider) });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// The certificates that are trusted: of the file, or of the system.
fn trusted(path: Option<&Path>) -> io::Result<Vec<CertificateDer<'static>>> {
    let Some(path) = path.filter(|path| *path != Path::new("system")) else {
        return Ok(rustls_native_certs::load_native_certs().certs);
    };
    let unusable = |error: &dyn fmt::Display| {
        io::Error::other(format!("root certificate {} cannot be used: {error}", path.display()))
    };
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| unusable(&error))?;
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().map_err(|error| unusable(&error))?;
    if certificates.is_empty() {
        return Err(unusable(&"it holds no certificate"));
    }
    Ok(certificates)
}

#[derive(Debug)]
struct Verifier {
    /// `None`: any certificate will do.
    trust: Option<Trust>,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
struct Trust {
    trusted: Vec<CertificateDer<'static>>,
    chain: Option<Arc<WebPkiServerVerifier>>,
    check_name: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(trust) = &self.trust else { return Ok(ServerCertVerified::assertion()) };
        if !trust.trusted.iter().any(|trusted| trusted == certificate) {
            let chain = trust.chain.as_ref().ok_or(CertificateError::UnknownIssuer)?;
            match chain.verify_server_cert(certificate, intermediates, host, ocsp, now) {
                // The name is looked at after the chain, and below once more.
                Err(Error::InvalidCertificate(
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                )) => {}
                result => _ = result?,
            }
        }
        if trust.check_name {
            verify_name(certificate, host)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether the certificate is made out for the host.
fn verify_name(certificate: &CertificateDer<'_>, host: &ServerName<'_>) -> Result<(), Error> {
    let result = verify_server_name(&ParsedCertificate::try_from(certificate)?, host);
    if result.is_err() && common_name_fits(certificate, &host.to_str()) {
        return Ok(());
    }
    result
}

/// libpq falls back to the common name where a certificate has no DNS names, as `openssl req -subj /CN=host` makes it.
fn common_name_fits(certificate: &[u8], host: &str) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    let names = certificate.subject_alternative_name().ok().flatten();
    let is_host = |name: &GeneralName<'_>| matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_));
    if names.is_some_and(|names| names.value.general_names.iter().any(is_host)) {
        return false;
    }
    let name = certificate.subject().iter_common_name().last().and_then(|name| name.as_str().ok());
    name.is_some_and(|name| match name.strip_prefix("*.") {
        Some(domain) => host.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(domain)),
        None => name.eq_ignore_ascii_case(host),
    })
}
