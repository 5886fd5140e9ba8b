//! `-k FILE`: a new pre-shared key. Knows nothing of the configuration that will name it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::model::errors::strerror;

/// 6 bits a character: 48 random bytes are 64 of them.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._";

/// Why there is no new key file. The texts are those of the C program.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("Can't create key file: {}", strerror(.0))]
    Create(#[source] io::Error),
    #[error("Can't write key file: {}", strerror(.0))]
    Write(#[source] io::Error),
    #[error("Can't get random bytes: {0}")]
    Random(#[source] getrandom::Error),
}

/// Writes a key of 64 characters and a newline to a new file of mode 0600.
///
/// # Errors
/// The file exists (it is left as it is), or cannot be made or written (nothing is left).
pub fn run(file: &Path) -> Result<(), KeyError> {
    let mut random = [0; 48];
    getrandom::fill(&mut random).map_err(KeyError::Random)?;
    let mut output =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(KeyError::Create)?;
    output.write_all(&key_line(&random)).and_then(|()| output.sync_all()).map_err(|error| {
        // Half a key would be refused by every reader; the error says what matters.
        let _ = fs::remove_file(file);
        KeyError::Write(error)
    })
}

fn key_line(random: &[u8; 48]) -> Vec<u8> {
    let mut line = Vec::with_capacity(65);
    for triple in random.chunks_exact(3) {
        let bits = triple.iter().fold(0_usize, |bits, &byte| bits << 8 | usize::from(byte));
        line.extend([18, 12, 6, 0].map(|shift| ALPHABET[bits >> shift & 63]));
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn every_bit_is_used_once() {
        assert_eq!(key_line(&[0; 48]), [vec![b'A'; 64], vec![b'\n']].concat());
        assert_eq!(key_line(&[0xff; 48]), [vec![b'_'; 64], vec![b'\n']].concat());
        let mut random = [0; 48];
        random[..3].copy_from_slice(&[0b0000_0100, 0b0010_0000, 0b1100_0100]);
        assert_eq!(&key_line(&random)[..5], b"BCDEA");
    }

    #[test]
    fn a_key_is_made_once_and_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        run(&file).unwrap();
        let key = fs::read(&file).unwrap();
        assert_eq!(key.len(), 65);
        assert_eq!(key.last(), Some(&b'\n'));
        assert!(key[..64].iter().all(|byte| ALPHABET.contains(byte)));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(run(&file).unwrap_err().to_string(), "Can't create key file: File exists");
        assert_eq!(fs::read(&file).unwrap(), key);
    }

    #[test]
    fn a_missing_directory_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let error = run(&directory.path().join("none/key")).unwrap_err();
        assert_eq!(error.to_string(), "Can't create key file: No such file or directory");
    }
}
