//! What the user's file names select: the names, in every spelling, of the rows that an operation is about.

use crate::config::Config;
use crate::model::{Scope, SyncPath};

/// A file name given by the user, resolved to a canonical absolute path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub real: Vec<u8>,
    /// With everything below it (`-r`).
    pub recursive: bool,
}

impl Target {
    /// All that there is: `/`, recursively.
    #[must_use]
    pub fn everything() -> Self {
        Self { real: b"/".to_vec(), recursive: true }
    }
}

/// The names in the database that a target stands for: its own spellings and, recursively, the prefixes whose
/// directories lie below it.
#[must_use]
pub fn scopes(config: &Config, target: &Target) -> Vec<Scope> {
    if target.recursive && target.real == b"/" {
        return vec![Scope::All];
    }
    let names = config.names_of(&target.real);
    if !target.recursive {
        return names.into_iter().map(Scope::File).collect();
    }
    let mut tops = names;
    tops.extend(prefixes_below(config, &target.real));
    tops.sort();
    tops.dedup();
    tops.into_iter().map(Scope::Tree).collect()
}

/// The prefixes whose directories lie at or below a real path.
fn prefixes_below<'c>(config: &'c Config, real: &'c [u8]) -> impl Iterator<Item = SyncPath> + 'c {
    config.prefixes.iter().filter_map(move |prefix| {
        let directory = prefix.directory.as_ref()?.as_os_str().as_encoded_bytes();
        let below = directory.strip_prefix(real)?;
        let within = below.is_empty() || below.first() == Some(&b'/');
        let name = [b"%", prefix.name.as_slice(), b"%"].concat();
        if within { SyncPath::parse(&name).ok() } else { None }
    })
}
