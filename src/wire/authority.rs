//! An authority that signs the certificates of all hosts, for clusters that have one: what it vouches for needs no pin.
//!
//! Here names and dates count, which they do not for a certificate that is pinned.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, Error, RootCertStore};

use super::TlsError;
use super::tls;

/// Which end of the session shows a certificate: one that is made out for only one of them is good for that one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

/// The certificates of a file, each of which may sign those of hosts.
#[derive(Debug)]
pub struct Authority {
    file: PathBuf,
    servers: Arc<WebPkiServerVerifier>,
    clients: Arc<dyn ClientCertVerifier>,
}

impl Authority {
    /// Reads the certificates of the authorities, PEM.
    ///
    /// # Errors
    /// [`TlsError::File`]: there are none in it, or it cannot be read.
    pub fn load(file: &Path) -> Result<Self, TlsError> {
        let refuse = |problem: String| TlsError::File {
            path: file.to_owned(),
            problem,
            advice: "`tls-ca` names a file with the certificates, in PEM, of those who sign the hosts' certificates"
                .to_owned(),
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(file).map_err(|error| refuse(error.to_string()))? {
            let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
            roots.add(certificate).map_err(|error| refuse(error.to_string()))?;
        }
        let (roots, provider) = (Arc::new(roots), Arc::new(tls::provider()));
        let servers = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build();
        let clients = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
        Ok(Self {
            file: file.to_owned(),
            servers: servers.map_err(|_| refuse("there is no certificate in it".to_owned()))?,
            clients: clients.map_err(|_| refuse("there is no certificate in it".to_owned()))?,
        })
    }

    /// Whether a certificate (`chain`: itself, then what leads to the authority) is signed by it, made out for `name`, and
    /// valid today. The error says what is wrong.
    pub fn vouches_for(&self, name: &str, role: Role, chain: &[CertificateDer<'_>]) -> Result<(), String> {
        let Some((certificate, intermediates)) = chain.split_first() else {
            return Err("there is none".to_owned());
        };
        let host = ServerName::try_from(name.to_owned()).map_err(|_| {
            format!("`{name}` is no name for which a certificate can be made out (a name of the DNS, or an address)")
        })?;
        let now = UnixTime::now();
        let judged = match role {
            Role::Server => self.servers.verify_server_cert(certificate, intermediates, &host, &[], now).map(drop),
            Role::Client => self
                .clients
                .verify_client_cert(certificate, intermediates, now)
                .and_then(|_| verify_server_name(&ParsedCertificate::try_from(certificate)?, &host)),
        };
        judged.map_err(|error| match error {
            Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                format!("it is not signed by a certificate in {}", self.file.display())
            }
            Error::InvalidCertificate(problem) => problem.to_string(),
            error => error.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd};

    struct Signer(Issuer<'static, KeyPair>);

    impl Signer {
        /// A new authority, and what its file holds.
        fn new(name: &str) -> (Self, String) {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let pem = params.self_signed(&key).unwrap().pem();
            (Self(Issuer::new(params, key)), pem)
        }

        fn sign(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
            let mut params = CertificateParams::new([name.to_owned()]).unwrap();
            change(&mut params);
            params.signed_by(&KeyPair::generate().unwrap(), &self.0).unwrap().der().clone()
        }
    }

    fn authority(pem: &str) -> Result<Authority, TlsError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), pem).unwrap();
        Authority::load(file.path())
    }

    #[test]
    fn what_it_signed_for_the_name_is_good_today() {
        let (ours, pem) = Signer::new("ours");
        let (other, _) = Signer::new("another");
        let authority = authority(&pem).unwrap();
        let judge = |role, name, certificate: &CertificateDer<'static>| {
            authority.vouches_for(name, role, std::slice::from_ref(certificate))
        };
        let for_servers = |params: &mut CertificateParams| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        };
        for role in [Role::Client, Role::Server] {
            let beta = ours.sign("beta", |_| {});
            judge(role, "beta", &beta).unwrap();
            judge(role, "10.0.0.2", &ours.sign("10.0.0.2", |_| {})).unwrap();
            judge(role, "gamma", &beta).unwrap_err();
            let expired = ours.sign("beta", |params| params.not_after = date_time_ymd(2001, 1, 1));
            assert!(judge(role, "beta", &expired).unwrap_err().contains("expired"));
            let foreign = judge(role, "beta", &other.sign("beta", |_| {})).unwrap_err();
            assert!(foreign.contains("it is not signed by"), "{foreign}");
            let invalid = judge(role, "no name", &beta).unwrap_err();
            assert!(invalid.contains("no name for which"), "{invalid}");
            assert_eq!(authority.vouches_for("beta", role, &[]).unwrap_err(), "there is none");
        }
        let server = ours.sign("beta", for_servers);
        judge(Role::Server, "beta", &server).unwrap();
        judge(Role::Client, "beta", &server).unwrap_err();
    }

    #[test]
    fn a_file_without_an_authority_is_named() {
        for text in ["", "nothing", "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n"] {
            let error = authority(text).unwrap_err().to_string();
            assert!(error.contains("cannot use /") && error.contains("tls-ca"), "{error}");
        }
        let missing = Authority::load(Path::new("/nonexistent/ca.pem")).unwrap_err().to_string();
        assert!(missing.contains("/nonexistent/ca.pem"), "{missing}");
    }
}
