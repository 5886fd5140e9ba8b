//! What was typed and what it means: arguments become one [`Mode`] and its [`Settings`]. Nothing is done here.
//!
//! `getopt` brings the line into a form without odd spellings, clap parses that by the table in [`options`].

pub mod exit;
mod getopt;
mod json;
pub mod mode;
pub mod operand;
pub mod options;
pub mod output;
pub mod settings;
pub mod threshold;
mod usage;

use std::ffi::OsString;
use std::path::PathBuf;

pub use exit::Status;
pub use mode::{InSyncScope, Mode, ServeMode};
pub use operand::WorkingDirectory;
pub use output::Printer;
pub use settings::{Environment, Settings};
pub use threshold::Threshold;
pub use usage::usage;

use crate::logging::LogOptions;

/// What a command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    Run(Box<Invocation>),
    /// Print the complaint on stderr, the usage text on stdout, exit 1.
    Usage {
        complaint: Option<String>,
    },
    /// `--help`: print the usage text, exit 0.
    Help,
    /// `--version`: print name and version, exit 0.
    Version,
    /// The lock file is there: print `Found PATH` on stdout, exit 1.
    Locked(PathBuf),
    /// A value is impossible: log the line, exit 1.
    Refused {
        line: String,
        log: LogOptions,
    },
}

/// A command line that can be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    pub mode: Mode,
    pub settings: Settings,
}

/// Reads a command line, the program's name first.
#[must_use]
pub fn parse(arguments: impl IntoIterator<Item = OsString>, environment: &Environment) -> Parsed {
    let mut arguments = arguments.into_iter();
    let program = arguments.next().map_or_else(|| "csync2".into(), |name| name.to_string_lossy().into_owned());
    let arguments: Vec<OsString> = arguments.collect();
    // A key can be made while the lock file stops everything else.
    if let [option, file] = arguments.as_slice()
        && option == "-k"
    {
        let mode = Mode::NewKey { file: file.into() };
        return Parsed::Run(Box::new(Invocation { mode, settings: Settings::bare(environment) }));
    }
    let matches = getopt::normalise(arguments, environment.posixly_correct)
        .map_err(|complaint| format!("{program}: {complaint}"))
        .and_then(|normal| options::command().try_get_matches_from(normal).map_err(|error| error.to_string()));
    if let Ok(matches) = &matches {
        if matches.get_count("help") > 0 {
            return Parsed::Help;
        }
        if matches.get_count("version") > 0 {
            return Parsed::Version;
        }
    }
    if let Some(path) = environment.lock_file() {
        return Parsed::Locked(path);
    }
    let matches = match matches {
        Ok(matches) => matches,
        Err(complaint) => return Parsed::Usage { complaint: Some(complaint) },
    };
    let Some(mode) = Mode::of(&matches) else { return Parsed::Usage { complaint: None } };
    match Settings::of(&matches, environment) {
        Ok(settings) => Parsed::Run(Box::new(Invocation { mode, settings })),
        Err(line) => Parsed::Refused { line, log: settings::log_options(&matches, environment) },
    }
}

#[cfg(test)]
mod tests;
