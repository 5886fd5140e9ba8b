//! Which certificate a peer may show: the one it showed first. No chain, no name, no dates.
//! The pinned certificates themselves are the store's.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::certificate::Description;

/// What a presented certificate is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Nothing is pinned for the peer yet: pin this one.
    FirstUse,
    /// The pinned one.
    Same,
    /// Another than the pinned one: refuse.
    Different,
}

/// Compares a peer's certificate with the one pinned for it, both DER.
#[must_use]
pub fn judge(pinned: Option<&[u8]>, presented: &[u8]) -> Trust {
    match pinned {
        None => Trust::FirstUse,
        Some(pinned) if bool::from(pinned.ct_eq(presented)) => Trust::Same,
        Some(_) => Trust::Different,
    }
}

/// What makes a certificate (DER) weak, as the end of a sentence that begins with it. Those that csync2's own documentation
/// has made for fifteen years are.
#[must_use]
pub fn weakness(der: &[u8]) -> Option<String> {
    let short_key =
        super::tls::short_rsa_bits(der).map(|bits| format!("has an RSA key of {bits} bits, which can be broken today"));
    let old = Description::of(der)
        .is_version_1
        .then(|| "is of version 1 of X.509, which TLS libraries refuse more and more".to_owned());
    match (short_key, old) {
        (Some(short_key), Some(old)) => Some(format!("{short_key}, and {old}")),
        (one, other) => one.or(other),
    }
}

/// The upper-case hex in which the table `x509_cert` keeps a certificate.
#[must_use]
pub fn certdata(der: &[u8]) -> String {
    hex::encode_upper(der)
}

/// The SHA-256 of a certificate as people compare it: `AB:CD:…`.
#[must_use]
pub fn fingerprint(der: &[u8]) -> String {
    let pairs: Vec<String> = Sha256::digest(der).iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_certificate_is_trusted_and_then_only_that_one() {
        assert_eq!(judge(None, b"one"), Trust::FirstUse);
        assert_eq!(judge(Some(b"one"), b"one"), Trust::Same);
        assert_eq!(judge(Some(b"one"), b"two"), Trust::Different);
        assert_eq!(judge(Some(b"one"), b"one more"), Trust::Different);
    }

    #[test]
    fn certificates_are_written_in_upper_case() {
        assert_eq!(certdata(&[0x30, 0x82, 0xaf]), "3082AF");
        assert!(fingerprint(b"").starts_with("E3:B0:C4:42:"));
        assert_eq!(fingerprint(b"").len(), 32 * 3 - 1);
    }
}
