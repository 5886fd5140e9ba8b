//! `--ls-ssl-cert`, `--rm-ssl-cert`, `--gen-ssl-cert`: the certificates that are pinned for peers, and our own.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Run;
use crate::cli::{Printer, Settings, Status};
use crate::config::{Config, ConfigError, Selection, Source, Tls};
use crate::model::errors::strerror;
use crate::wire::certificate::{Description, generate};
use crate::wire::trust::fingerprint;
use crate::wire::{Identity, TlsError};

/// Why there is no new pair.
#[derive(Debug, thiserror::Error)]
pub(super) enum NewPairError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(
        "{} exists, and nothing is overwritten. For a new pair move it away, with its {counterpart}; each other host must then \
         forget the old certificate: csync2 --rm-ssl-cert {host}",
        path.display()
    )]
    Exists { path: PathBuf, counterpart: &'static str, host: String },
    #[error("cannot write {}: {}", path.display(), strerror(.source))]
    Write { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Run {
    /// The pinned certificates, or that of one peer.
    pub(super) async fn list_certificates(&mut self, peer: Option<&str>) -> anyhow::Result<Status> {
        let pinned = self.node.store.certificates().await?;
        let listed: Vec<_> = pinned.iter().filter(|(name, _)| peer.is_none_or(|peer| peer == name)).collect();
        for (name, der) in &listed {
            self.printer.certificate(name, &Description::of(der))?;
        }
        Ok(if listed.is_empty() { Status::Nothing } else { Status::Success })
    }

    pub(super) async fn forget_certificate(&mut self, peer: &str) -> anyhow::Result<()> {
        let pinned = self.node.store.certificate(peer).await?;
        if self.node.store.unpin(peer).await? {
            let fingerprint = fingerprint(&pinned.unwrap_or_default());
            tracing::info!("Removed the certificate {fingerprint} of {peer}. The next one that it shows is pinned.");
        } else {
            self.report.error(format_args!(
                "ERROR: no certificate is pinned for {peer}. Those that are: {}",
                self.node.command_line("--ls-ssl-cert")
            ));
        }
        Ok(())
    }
}

/// Makes a key (mode 0600) and a certificate (0644) where the configuration, if there is one, has them, and prints the
/// certificate. Both files are whole when they appear.
///
/// # Errors
/// One of the files exists (both are left as they are), or cannot be made (neither is left).
pub(super) fn make(settings: &Settings, printer: &Printer) -> anyhow::Result<()> {
    printer.certificate(&settings.my_name, &make_pair(settings)?)?;
    Ok(printer.flush()?)
}

/// The same without a word.
///
/// # Errors
/// As [`make`].
pub(super) fn make_pair(settings: &Settings) -> anyhow::Result<Description> {
    let host = &settings.my_name;
    let Tls { certificate, key, .. } = places(settings)?;
    for (path, counterpart) in [(&key, "certificate"), (&certificate, "key")] {
        if path.symlink_metadata().is_ok() {
            return Err(NewPairError::Exists { path: path.clone(), counterpart, host: host.clone() }.into());
        }
    }
    let pair = generate(host).map_err(NewPairError::Tls)?;
    write_new(&key, &pair.key, 0o600)?;
    let written = write_new(&certificate, &pair.certificate, 0o644).map_err(anyhow::Error::from);
    let made = written.and_then(|()| Ok(Identity::load(&certificate, &key, false).map_err(NewPairError::Tls)?));
    if made.is_err() {
        // A key without its certificate would be in the way of the next attempt; the error says what matters.
        let _ = std::fs::remove_file(&key);
    }
    Ok(Description::of(made?.certificate()))
}

/// Where the pair belongs: a host may make it before it has a configuration.
pub(super) fn places(settings: &Settings) -> Result<Tls, NewPairError> {
    let source = Source { system_dir: settings.system_dir.clone(), config_name: settings.config_name.clone() };
    if !source.path().exists() {
        return Ok(Tls::in_directory(&settings.system_dir));
    }
    let selection = Selection { my_name: settings.my_name.clone(), groups: None };
    Ok(Config::load(&source, &selection)?.tls)
}

/// Writes a file that was not there, durable when it has its name.
pub(super) fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), NewPairError> {
    let failed = |source| NewPairError::Write { path: path.to_owned(), source };
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| {
        file.as_file().set_permissions(Permissions::from_mode(mode))?;
        file.as_file().sync_all()
    });
    written.map_err(failed)?;
    let kept = file.persist_noclobber(path).map_err(|error| error.error);
    kept.and_then(|_| std::fs::File::open(directory)?.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn settings(system_dir: &Path) -> Settings {
        Settings { system_dir: system_dir.to_owned(), my_name: "alpha".to_owned(), ..Settings::default() }
    }

    fn made(system_dir: &Path) -> Result<(), String> {
        make(&settings(system_dir), &Printer::to(std::io::sink())).map_err(|error| error.to_string())
    }

    #[test]
    fn a_pair_is_made_once_and_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        made(directory.path()).unwrap();
        let (certificate, key) =
            (directory.path().join("csync2_ssl_cert.pem"), directory.path().join("csync2_ssl_key.pem"));
        let mode = |path: &Path| path.metadata().unwrap().mode() & 0o7777;
        assert_eq!((mode(&certificate), mode(&key)), (0o644, 0o600));
        Identity::load(&certificate, &key, false).unwrap();
        let before = (std::fs::read(&certificate).unwrap(), std::fs::read(&key).unwrap());
        let error = made(directory.path()).unwrap_err();
        assert!(error.contains("csync2_ssl_key.pem exists") && error.contains("--rm-ssl-cert alpha"), "{error}");
        assert_eq!((std::fs::read(&certificate).unwrap(), std::fs::read(&key).unwrap()), before);
        std::fs::remove_file(&key).unwrap();
        assert!(made(directory.path()).unwrap_err().contains("csync2_ssl_cert.pem exists"));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left of the attempt");
    }

    #[test]
    fn the_configuration_says_where_the_pair_belongs() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("tls")).unwrap();
        let words = "tls-certificate tls/cert.pem; tls-key tls/key.pem;\n";
        std::fs::write(directory.path().join("csync2.cfg"), words).unwrap();
        made(directory.path()).unwrap();
        Identity::load(&directory.path().join("tls/cert.pem"), &directory.path().join("tls/key.pem"), false).unwrap();
    }

    #[test]
    fn nothing_is_left_where_the_certificate_cannot_be_written() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("csync2.cfg"), "tls-certificate none/cert.pem;\n").unwrap();
        let error = made(directory.path()).unwrap_err();
        assert!(error.contains("cannot write") && error.contains("none"), "{error}");
        assert!(!directory.path().join("csync2_ssl_key.pem").exists());
    }
}
