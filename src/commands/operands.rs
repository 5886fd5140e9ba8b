//! File names given by the user: resolved, warned about where no group covers them, turned into what is selected.

use super::Run;
use crate::cli::WorkingDirectory;
use crate::engine::membership::{self, Purpose};
use crate::engine::selection::{self, Target};
use crate::fs::{Presence, presence};
use crate::model::{Scope, SyncPath};

impl Run {
    /// The operands as canonical real paths.
    pub(super) fn targets(&self, operands: &[Vec<u8>]) -> std::io::Result<Vec<Target>> {
        if operands.is_empty() {
            return Ok(Vec::new());
        }
        let directory = WorkingDirectory::of_process()?;
        let target =
            |operand: &Vec<u8>| Target { real: directory.canonical(operand), recursive: self.settings.recursive };
        Ok(operands.iter().map(target).collect())
    }

    /// Warns about each operand that no group covers, or that is named by way of a symlink. The run goes on.
    pub(super) fn warn_about(&self, operands: &[Vec<u8>], purpose: Purpose) -> std::io::Result<Vec<Target>> {
        let targets = self.targets(operands)?;
        for target in &targets {
            if !self.is_relevant(target, purpose) {
                tracing::warn!("WARNING: Parameter will be ignored: {}", String::from_utf8_lossy(&target.real));
            } else if self.node.config.names_of(&target.real).iter().all(|name| self.is_behind_symlink(name)) {
                tracing::warn!(
                    "WARNING: {} lies behind a symlink, where no file is kept in step: name it without the symlink.",
                    String::from_utf8_lossy(&target.real)
                );
            }
        }
        Ok(targets)
    }

    fn is_relevant(&self, target: &Target, purpose: Purpose) -> bool {
        let config = &self.node.config;
        let leads_to_prefix = target.real != b"/" && membership::above_prefix(config, &target.real);
        leads_to_prefix
            || config.names_of(&target.real).iter().any(|name| {
                membership::is_covered(config, name, purpose)
                    || (target.recursive && membership::below_covered(config, name, purpose))
            })
    }

    pub(super) fn is_behind_symlink(&self, name: &SyncPath) -> bool {
        let local = self.node.config.local(name);
        local.is_ok_and(|local| matches!(presence(local.root(), local.relative()), Presence::BehindSymlink))
    }

    /// The names in the database that the targets stand for.
    pub(super) fn scopes(&self, targets: &[Target]) -> Vec<Scope> {
        targets.iter().flat_map(|target| selection::scopes(&self.node.config, target)).collect()
    }
}
