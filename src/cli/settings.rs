//! The modifiers of a run, resolved against the process's environment.
//!
//! Nothing is opened here but what says whether a value is valid: the configuration is read by `config`, the log by `logging`.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::{env, io};

use clap::ArgMatches;

use super::Threshold;
use crate::logging::{DebugFile, LogOptions, ProcessKind};
use crate::model::errors::strerror;

/// The port that csync2 has with IANA.
pub const DEFAULT_PORT: u16 = 30865;

const DEFAULT_SYSTEM_DIR: &str = "/etc";

/// What the process brings along, besides its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// `$CSYNC2_SYSTEM_DIR`, else `/etc`.
    pub system_dir: PathBuf,
    /// The host's name as the kernel knows it, lower-cased.
    pub host_name: String,
    /// `$POSIXLY_CORRECT`: the first operand ends the options.
    pub posixly_correct: bool,
    /// `$JOURNAL_STREAM`: `DEVICE:INODE` of the journal, if stdout or stderr is it.
    pub journal_stream: Option<OsString>,
}

impl Environment {
    #[must_use]
    pub fn of_process() -> Self {
        let system_dir = match env::var_os("CSYNC2_SYSTEM_DIR") {
            // The C program puts a slash between the variable and the file's name.
            Some(empty) if empty.is_empty() => PathBuf::from("/"),
            Some(directory) => directory.into(),
            None => DEFAULT_SYSTEM_DIR.into(),
        };
        let host_name = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
        Self {
            system_dir,
            host_name,
            posixly_correct: env::var_os("POSIXLY_CORRECT").is_some(),
            journal_stream: env::var_os("JOURNAL_STREAM"),
        }
    }

    /// The file whose presence stops every run, if it is there.
    #[must_use]
    pub fn lock_file(&self) -> Option<PathBuf> {
        let path = self.system_dir.join("csync2.lock");
        path.exists().then_some(path)
    }
}

/// Everything the modifiers say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "one for each switch of the command line, and independent")]
pub struct Settings {
    /// Holds `csync2.cfg`, keys and certificates.
    pub system_dir: PathBuf,
    /// `-C`: `""`, or one or more of `a-z0-9`.
    pub config_name: String,
    /// `-N`, else the host's; lower-cased.
    pub my_name: String,
    /// `-N` as it was typed: the local address to listen on and to connect from.
    pub bind: Option<String>,
    /// `-p`
    pub port: u16,
    /// `-D`, not yet looked at.
    pub database: Option<String>,
    /// `-G`: only these groups; an empty list is none.
    pub groups: Option<Vec<String>>,
    /// `-P`, as typed. Pushing ignores case, comparing does not.
    pub peers: Option<Vec<String>>,
    /// `-r`
    pub recursive: bool,
    /// `-d`: change nothing on the peers, tell what would be changed.
    pub dry_run: bool,
    /// `-F`: new dirty rows are forced.
    pub mark_forced: bool,
    /// `-I`: mark nothing; with `-T`: mark the differences.
    pub init: bool,
    /// `-X`: with `-TI`, mark what exists only on the peer as well.
    pub mark_removals: bool,
    /// `-U`: with `-TI`, mark for the compared peer only.
    pub mark_one_peer: bool,
    /// `-A`: the database need not survive a power cut.
    pub asynchronous: bool,
    /// `-W`: where the walked directories are written to; open for writing when the arguments were read.
    pub directories_to: Option<RawFd>,
    /// `--auto-name`: take the only name of the configuration that can be this host's.
    pub auto_name: bool,
    /// `--allow-mass-removal`: mark a vanished tree for removal.
    pub allow_mass_removal: bool,
    /// `--no-batches`: speak the dialects of other csync2 programs only.
    pub no_batches: bool,
    /// `--no-legacy-tls`: refuse weak certificates.
    pub no_legacy_tls: bool,
    /// `--warning` and `--critical`.
    pub warning: Option<Threshold>,
    pub critical: Option<Threshold>,
    /// `--json`: results are printed as JSON.
    pub json: bool,
    /// `--metrics`: the file for Prometheus.
    pub metrics: Option<PathBuf>,
    /// `--no-progress`
    pub no_progress: bool,
    pub log: LogOptions,
}

impl Settings {
    /// Settings of a command line; the error is the line to print.
    pub(super) fn of(matches: &ArgMatches, environment: &Environment) -> Result<Self, String> {
        let value = |letter: &str| matches.get_one::<OsString>(letter);
        let text = |letter: &str| value(letter).map(|value| value.to_string_lossy().into_owned());
        let names = |letter: &str| {
            text(letter).map(|list| list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
        };
        let threshold = |name: &str| match text(name) {
            Some(limit) => match Threshold::parse(&limit) {
                Some(threshold) => Ok(Some(threshold)),
                None => {
                    Err(format!("--{name} takes a number of files, an age (30m, 2h, 1d) or both: 100,2h. Not: {limit}"))
                }
            },
            None => Ok(None),
        };
        let config_name = text("C").unwrap_or_default();
        if !config_name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
            return Err("Config names are limited to [a-z0-9]+.".to_owned());
        }
        // The C program takes an empty name for none.
        let bind = text("N").filter(|name| !name.is_empty());
        let database = match value("D") {
            Some(database) => Some(database.to_str().ok_or("The database's name (-D) is not UTF-8.")?.to_owned()),
            None => None,
        };
        Ok(Self {
            system_dir: environment.system_dir.clone(),
            config_name,
            my_name: bind.as_ref().unwrap_or(&environment.host_name).to_ascii_lowercase(),
            bind,
            port: text("p").map_or(Ok(DEFAULT_PORT), |port| parse_port(&port))?,
            database,
            groups: names("G"),
            peers: names("P"),
            recursive: matches.get_count("r") > 0,
            dry_run: matches.get_count("d") > 0,
            mark_forced: matches.get_count("F") > 0,
            init: matches.get_count("I") > 0,
            mark_removals: matches.get_count("X") > 0,
            mark_one_peer: matches.get_count("U") > 0,
            asynchronous: matches.get_count("A") > 0,
            directories_to: value("W").map(|descriptor| parse_descriptor(descriptor)).transpose()?,
            auto_name: matches.get_count("auto-name") > 0,
            allow_mass_removal: matches.get_count("allow-mass-removal") > 0,
            no_batches: matches.get_count("no-batches") > 0,
            no_legacy_tls: matches.get_count("no-legacy-tls") > 0,
            warning: threshold("warning")?,
            critical: threshold("critical")?,
            json: matches.get_count("json") > 0,
            metrics: value("metrics").map(PathBuf::from),
            no_progress: matches.get_count("no-progress") > 0,
            log: log_options(matches, environment),
        })
    }

    /// Settings of `-k FILE`, which takes no modifiers.
    pub(super) fn bare(environment: &Environment) -> Self {
        Self {
            system_dir: environment.system_dir.clone(),
            my_name: environment.host_name.clone(),
            port: DEFAULT_PORT,
            ..Self::default()
        }
    }
}

/// What the command line says about the log: it is needed for saying what is wrong with the rest.
pub(super) fn log_options(matches: &ArgMatches, environment: &Environment) -> LogOptions {
    let value = |letter: &str| matches.get_one::<OsString>(letter);
    let serving = matches.get_count("i");
    LogOptions {
        verbosity: matches.get_count("v"),
        // A session on an inherited socket must find nothing there but the protocol.
        syslog: matches.get_count("l") > 0 || serving == 1,
        process: match serving {
            0 => ProcessKind::Run,
            1 => ProcessKind::Inherited,
            _ => ProcessKind::Daemon,
        },
        timestamps: matches.get_count("t") > 0,
        timestamp_file: value("s").map(PathBuf::from),
        debug_file: value("O").map(|file| match file.as_bytes() {
            [] => DebugFile::Default,
            _ => DebugFile::At(file.into()),
        }),
        journal_stream: environment.journal_stream.clone(),
    }
}

/// A port as a number or by its name in `/etc/services`, like the C program's (through getaddrinfo).
fn parse_port(text: &str) -> Result<u16, String> {
    let by_name = || fs::read_to_string("/etc/services").ok().and_then(|services| find_service(&services, text));
    text.trim_start().parse().ok().or_else(by_name).ok_or_else(|| format!("Not a port: {text}"))
}

fn find_service(services: &str, name: &str) -> Option<u16> {
    services.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let (official, port) = (words.next()?, words.next()?.strip_suffix("/tcp")?);
        (official == name || words.any(|alias| alias == name)).then(|| port.parse().ok())?
    })
}

fn parse_descriptor(text: &OsStr) -> Result<RawFd, String> {
    let descriptor = text.to_str().and_then(|text| text.parse().ok()).unwrap_or(-1);
    match duplicate_for_writing(descriptor) {
        Ok(_) => Ok(descriptor),
        Err(error) => Err(format!("Invalid dump_dir_fd {}: {}", text.to_string_lossy(), strerror(&error))),
    }
}

/// A copy of a descriptor that the process was started with (`-W FD`).
///
/// # Errors
/// EBADF when it is not open, or not for writing.
pub fn duplicate_for_writing(descriptor: RawFd) -> io::Result<File> {
    // SAFETY: fcntl with F_DUPFD_CLOEXEC touches no memory of ours; a number that is no descriptor gives EBADF.
    #[allow(unsafe_code)]
    let copy = unsafe { libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `copy` was made just now and belongs to nobody else.
    #[allow(unsafe_code)]
    let copy = unsafe { OwnedFd::from_raw_fd(copy) };
    let mode = rustix::fs::fcntl_getfl(&copy)? & rustix::fs::OFlags::RWMODE;
    if mode == rustix::fs::OFlags::RDONLY {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    Ok(copy.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_have_several_names() {
        let services = "# comment\nssh 22/tcp\ncsync 30865/tcp csync2 # alias\nntp 123/udp\n";
        assert_eq!(find_service(services, "csync2"), Some(30865));
        assert_eq!(find_service(services, "csync"), Some(30865));
        assert_eq!(find_service(services, "ntp"), None);
        assert_eq!(find_service(services, "comment"), None);
    }

    #[test]
    fn a_descriptor_must_be_open_for_writing() {
        use std::os::fd::AsRawFd;
        let (reader, writer) = io::pipe().unwrap();
        assert!(duplicate_for_writing(writer.as_raw_fd()).is_ok());
        for bad in [reader.as_raw_fd(), -5, 999_999] {
            assert_eq!(duplicate_for_writing(bad).unwrap_err().raw_os_error(), Some(libc::EBADF));
        }
    }
}
