//! Include patterns that can match nothing on this host, since their directory is not there: most often a slip of the
//! pen, of which nothing else would tell.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use super::removal::literal_directory;
use crate::config::{Config, RuleKind};
use crate::fs;
use crate::model::SyncPath;

/// One sentence for each directory that the includes of a group need and that does not exist here.
#[must_use]
pub fn without_directory(config: &Config) -> Vec<String> {
    let mut facts = BTreeSet::new();
    for group in &config.groups {
        for rule in group.rules.iter().filter(|rule| rule.kind == RuleKind::Include) {
            let pattern = rule.pattern.as_bytes();
            let Some(directory) = needed_directory(pattern) else { continue };
            let Ok(place) = config.local(&directory) else { continue };
            let place = place.absolute();
            if fs::metadata(&place).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
                facts.insert(format!(
                    "the group {} includes {}, and there is no directory {} on this host: nothing is checked there. \
                     Correct the pattern, or leave it: the directory is made when a peer sends files for it.",
                    group.name,
                    String::from_utf8_lossy(pattern),
                    place.display()
                ));
            }
        }
    }
    facts.into_iter().collect()
}

/// The directory without which a path pattern matches nothing. What a pattern without wildcards names may be a file that
/// not every host has.
fn needed_directory(pattern: &[u8]) -> Option<SyncPath> {
    let literal = literal_directory(pattern)?;
    let is_prefix = literal.split_prefix().is_some_and(|(_, rest)| rest.is_empty());
    if literal.as_bytes() == pattern && !is_prefix { literal.parent() } else { Some(literal) }
}
