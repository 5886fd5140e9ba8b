//! What a refusal of a peer most likely means, and what to do about it: the words behind the text that scripts know.
//! Each begins with a blank. Peers of our kind give the reason themselves; of others it is guessed from what we know.

use std::net::IpAddr;

use crate::config::Config;
use crate::engine::membership::{self, Purpose};
use crate::model::SyncPath;
use crate::wire::Reply;

/// The peer does not want TLS.
pub(super) fn on_ssl() -> String {
    " Is it a csync2 that allows TLS, with csync2_ssl_cert.pem and csync2_ssl_key.pem in its system directory?"
        .to_owned()
}

/// The peer agreed to TLS, and then there was none. The C program's server ends like that without a certificate.
pub(super) fn on_handshake(peer: &str) -> String {
    format!(
        " Most likely csync2_ssl_cert.pem or csync2_ssl_key.pem is missing in the system directory of {peer}, or the two \
         do not belong together: its log says more."
    )
}

/// The peer does not accept CONFIG; the C program's only says so by closing the connection.
pub(super) fn on_config(peer: &str, config_name: &str) -> String {
    let file = match config_name {
        "" => "csync2.cfg".to_owned(),
        name => format!("csync2_{name}.cfg"),
    };
    format!(
        " Either {peer} has no {file}, or there is an error in it, or {peer} is in no group of it, or its database \
         cannot be opened: its log says which, and so does `csync2{} -M` there.",
        if config_name.is_empty() { String::new() } else { format!(" -C {config_name}") }
    )
}

/// The peer allows no plain session.
pub(in crate::engine) fn on_plain(peer: &str, my_name: &str) -> String {
    format!(
        " Our configuration has a nossl entry for {peer}, and that of {peer} has none for {my_name}: compare the two."
    )
}

/// The peer does not believe our name. `seen` is the address that it sees, `local` the one that we connected from.
pub(in crate::engine) fn on_identification(
    line: &[u8],
    my_name: &str,
    seen: Option<&str>,
    local: Option<IpAddr>,
) -> String {
    let local = local.map(|local| local.to_canonical().to_string());
    let (seen, from) = match (seen, local.as_deref()) {
        (Some(seen), Some(local)) if seen != local => (
            seen,
            format!(
                " It sees us come from {seen}, while we connected from {local}: an address is translated on the way."
            ),
        ),
        (Some(seen), _) => (seen, format!(" It sees us come from {seen}.")),
        (None, Some(local)) => (local, format!(" We connected from {local}.")),
        (None, None) => ("our address", String::new()),
    };
    let forget = format!("csync2 --rm-ssl-cert {my_name}");
    let certificate = format!("our certificate must be the one that is pinned there (`{forget}` there forgets it)");
    let name =
        format!("{my_name} must resolve to {seen} there (DNS or /etc/hosts; -N NAME chooses another name and address)");
    match reason(line, &Reply::IdentificationFailed) {
        Some(reason) if reason.starts_with("Another certificate") => {
            format!(" If ours was changed on purpose, the peer must forget the old one: `{forget}` there.")
        }
        Some(reason) if reason.starts_with("Your certificate") => String::new(),
        Some(_) => format!("{from} {name}."),
        None => format!("{from} {name}, and {certificate}."),
    }
}

/// The peer denies us a file.
pub(in crate::engine) fn on_denial(config: &Config, line: &[u8], my_name: &str, peer: &str, path: &SyncPath) -> String {
    let groups: Vec<&str> = membership::groups_of(config, path, Purpose::Sync)
        .filter(|group| group.hosts.iter().any(|host| host.name == peer))
        .map(|group| group.name.as_str())
        .collect();
    let here = match groups.as_slice() {
        [] => String::new(),
        [group] => format!(" Here it is in the group {group}."),
        groups => format!(" Here it is in the groups {}.", groups.join(", ")),
    };
    if reason(line, &Reply::PermissionDenied).is_some() {
        return format!("{here} Compare csync2.cfg and the key files of both hosts.");
    }
    format!(
        "{here} Either no group of {peer} has both {my_name} and the file in it, or its key is another: compare csync2.cfg \
         and the key files of both hosts; the log of {peer} may say which."
    )
}

/// What a peer of our kind says behind the text that all peers know.
fn reason(line: &[u8], known: &Reply) -> Option<String> {
    let line = String::from_utf8_lossy(line);
    let reason = line.strip_prefix(&known.text())?.trim();
    (!reason.is_empty()).then(|| reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_translated_address_is_told() {
        let local = "192.168.1.2".parse().ok();
        let advice = |line: &[u8], seen| on_identification(line, "alpha", seen, local);
        assert_eq!(
            advice(b"Identification failed!", Some("203.0.113.9")),
            " It sees us come from 203.0.113.9, while we connected from 192.168.1.2: an address is translated on the way. \
             alpha must resolve to 203.0.113.9 there (DNS or /etc/hosts; -N NAME chooses another name and address), and our \
             certificate must be the one that is pinned there (`csync2 --rm-ssl-cert alpha` there forgets it)."
        );
        let same = advice(b"Identification failed!", Some("192.168.1.2"));
        assert!(
            same.starts_with(" It sees us come from 192.168.1.2. alpha must resolve to 192.168.1.2 there"),
            "{same}"
        );
        let silent = advice(b"Identification failed!", None);
        assert!(
            silent.starts_with(" We connected from 192.168.1.2. alpha must resolve to 192.168.1.2 there"),
            "{silent}"
        );
    }

    #[test]
    fn the_peers_own_reason_leaves_nothing_to_guess() {
        let seen = Some("10.0.0.1");
        let advice = |line: &[u8]| on_identification(line, "alpha", seen, "10.0.0.1".parse().ok());
        let address = advice(b"Identification failed! alpha does not resolve here to 10.0.0.1.");
        assert!(address.ends_with("chooses another name and address)."), "{address}");
        let certificate = advice(b"Identification failed! Another certificate is pinned here for alpha.");
        assert!(certificate.ends_with("forget the old one: `csync2 --rm-ssl-cert alpha` there."), "{certificate}");
        assert_eq!(advice(b"Identification failed! Your certificate has an RSA key of 1024 bits."), "");
        assert_eq!(reason(b"Permission denied! No group.", &Reply::PermissionDenied).as_deref(), Some("No group."));
        assert_eq!(reason(b"Permission denied!", &Reply::PermissionDenied), None);
    }
}
