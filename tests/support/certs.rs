//! TLS keys and self-signed certificates, as a node has them in its system directory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::process::run;

/// Writes a new key and certificate into `system_dir`, over what was there: P-256, X.509 v3.
pub(crate) fn write_new(system_dir: &Path, name: &str) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("make a certificate");
    fs::write(system_dir.join("csync2_ssl_cert.pem"), made.cert.pem()).expect("write the certificate");
    let key = system_dir.join("csync2_ssl_key.pem");
    fs::write(&key, made.signing_key.serialize_pem()).expect("write the key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("chmod");
}

/// Writes a key and certificate made by the recipe of csync2's manual: RSA, X.509 v1. `bits`: 1024 in old clusters.
pub(crate) fn write_by_the_manual(system_dir: &Path, bits: u32) {
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        command.current_dir(system_dir).args(arguments.split(' '));
        run(command).success();
    };
    openssl(&format!("genrsa -out csync2_ssl_key.pem {bits}"));
    openssl("req -new -key csync2_ssl_key.pem -out request.pem -subj /CN=csync2");
    openssl("x509 -req -days 600 -in request.pem -signkey csync2_ssl_key.pem -out csync2_ssl_cert.pem");
    fs::remove_file(system_dir.join("request.pem")).expect("remove the request");
}
