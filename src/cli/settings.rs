//! The modifiers of a run, resolved against the process's environment, and the file names that a user typed.
//!
//! Nothing is opened here but what says whether a value is valid: the config is read by `config`, the log by `logging`.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{env, io};

use clap::ArgMatches;

use crate::logging::{DebugFile, LogOptions, reason};

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
        Self { system_dir, host_name, posixly_correct: env::var_os("POSIXLY_CORRECT").is_some() }
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
    /// `--allow-mass-removal`: mark a vanished tree for removal.
    pub allow_mass_removal: bool,
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
            allow_mass_removal: matches.get_count("allow-mass-removal") > 0,
            log: LogOptions {
                verbosity: matches.get_count("v"),
                // A session on an inherited socket must find nothing there but the protocol.
                syslog: matches.get_count("l") > 0 || matches.get_count("i") == 1,
                timestamps: matches.get_count("t") > 0,
                timestamp_file: value("s").map(PathBuf::from),
                debug_file: value("O").map(|file| match file.as_bytes() {
                    [] => DebugFile::Default,
                    _ => DebugFile::At(file.into()),
                }),
            },
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
        Err(error) => Err(format!("Invalid dump_dir_fd {}: {}", text.to_string_lossy(), reason(&error))),
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

/// The directory that relative operands count from, by the name the user sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkingDirectory(Vec<u8>);

impl WorkingDirectory {
    /// # Errors
    /// When the working directory was removed or cannot be reached.
    pub fn of_process() -> io::Result<Self> {
        Ok(Self::seen_as(env::current_dir()?, env::var_os("PWD").as_deref()))
    }

    /// `real`, or what `$PWD` calls it: a shell says there by which symlinks it was entered. A `$PWD` that names
    /// another directory is not believed.
    #[must_use]
    pub fn seen_as(real: PathBuf, pwd: Option<&OsStr>) -> Self {
        let identity = |path: &Path| fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        let textual = pwd.filter(|pwd| pwd.as_bytes().starts_with(b"/")).map(|pwd| join(&components(pwd.as_bytes())));
        match textual {
            Some(name)
                if identity(Path::new(OsStr::from_bytes(&name))).is_some_and(|is| Some(is) == identity(&real)) =>
            {
                Self(name)
            }
            _ => Self(real.into_os_string().into_vec()),
        }
    }

    /// The absolute real name of an operand: `//`, `.` and `..` resolved as text, then the deepest existing directory
    /// of what stands before the last component resolved through symlinks. The last component never is: a link can be
    /// named. Only `link/.` asks for what the link leads to. The working directory keeps the name it was seen by.
    #[must_use]
    pub fn canonical(&self, operand: &[u8]) -> Vec<u8> {
        let absolute =
            if operand.starts_with(b"/") { operand.to_vec() } else { [self.0.as_slice(), b"/", operand].concat() };
        let components = components(&absolute);
        let last_is_dot = absolute.split(|&byte| byte == b'/').rfind(|part| !part.is_empty()) == Some(b".");
        let directories = if last_is_dot { components.len() } else { components.len().saturating_sub(1) };
        for existing in (1..=directories).rev() {
            let directory = join(&components[..existing]);
            let resolved = if directory == self.0 { Some(directory) } else { resolve_directory(&directory) };
            if let Some(mut name) = resolved {
                for component in &components[existing..] {
                    if !name.ends_with(b"/") {
                        name.push(b'/');
                    }
                    name.extend_from_slice(component);
                }
                return name;
            }
        }
        join(&components)
    }
}

/// The components of an absolute name, with `.` and `..` worked off.
fn components(name: &[u8]) -> Vec<&[u8]> {
    let mut components = Vec::new();
    for component in name.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => drop(components.pop()),
            _ => components.push(component),
        }
    }
    components
}

fn join(components: &[&[u8]]) -> Vec<u8> {
    [b"/".as_slice(), &components.join(&b'/')].concat()
}

fn resolve_directory(name: &[u8]) -> Option<Vec<u8>> {
    let resolved = fs::canonicalize(OsStr::from_bytes(name)).ok()?;
    resolved.is_dir().then(|| resolved.into_os_string().into_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    /// A tree with a directory reached by two names, `data/sub` and `link`, and a link `dl` within.
    fn tree() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path();
        fs::create_dir_all(top.join("data/sub/deep/er")).unwrap();
        for file in ["data/f", "data/sub/y"] {
            fs::write(top.join(file), file).unwrap();
        }
        symlink("data/sub", top.join("link")).unwrap();
        symlink("deep", top.join("data/sub/dl")).unwrap();
        symlink("nowhere", top.join("data/dangling")).unwrap();
        symlink("loop", top.join("loop")).unwrap();
        directory
    }

    /// The canonical name, from the top of the tree on.
    fn canonical(top: &Path, directory: &str, pwd: Option<&Path>, operand: &str) -> String {
        let real = fs::canonicalize(top.join(directory)).unwrap();
        let operand = operand.replace("TOP", top.to_str().unwrap());
        let name = WorkingDirectory::seen_as(real, pwd.map(Path::as_os_str)).canonical(operand.as_bytes());
        let name = String::from_utf8(name).unwrap();
        name.strip_prefix(top.to_str().unwrap()).map_or(name.clone(), |below| format!("TOP{below}"))
    }

    #[test]
    fn directories_are_resolved_and_the_last_component_is_not() {
        let tree = tree();
        for (operand, expected) in [
            ("data/./f", "TOP/data/f"),
            ("data//f", "TOP/data/f"),
            ("TOP/data/f/", "TOP/data/f"),
            ("", "TOP"),
            (".", "TOP"),
            ("/", "/"),
            ("/../..", "/"),
            ("link", "TOP/link"),
            ("link/", "TOP/link"),
            ("link/.", "TOP/data/sub"),
            ("link/./.", "TOP/data/sub"),
            ("link/y", "TOP/data/sub/y"),
            ("link/..", "TOP"),
            ("link/../f", "TOP/f"),
            ("link/new/er/x", "TOP/data/sub/new/er/x"),
            ("link/dl", "TOP/data/sub/dl"),
            ("link/dl/er", "TOP/data/sub/deep/er"),
            ("link/dl/..", "TOP/link"),
            ("data/dangling/x", "TOP/data/dangling/x"),
            ("data/f/x", "TOP/data/f/x"),
            ("data/f/.", "TOP/data/f"),
            ("loop/x", "TOP/loop/x"),
            ("data/a/././b", "TOP/data/a/b"),
        ] {
            assert_eq!(canonical(tree.path(), "", None, operand), expected, "{operand}");
        }
    }

    #[test]
    fn the_shells_name_of_the_working_directory_is_kept() {
        let tree = tree();
        let link = tree.path().join("link");
        for (operand, expected) in [
            ("y", "TOP/link/y"),
            ("./y", "TOP/link/y"),
            ("../link/y", "TOP/link/y"),
            (".", "TOP/link"),
            ("..", "TOP"),
            ("../f", "TOP/f"),
            ("deep/z", "TOP/data/sub/deep/z"),
        ] {
            assert_eq!(canonical(tree.path(), "link", Some(&link), operand), expected, "{operand}");
        }
    }

    #[test]
    fn a_wrong_name_of_the_working_directory_is_not_believed() {
        let tree = tree();
        for pwd in ["/", "relative", "/nonexistent", ""] {
            assert_eq!(canonical(tree.path(), "link", Some(Path::new(pwd)), "y"), "TOP/data/sub/y", "{pwd}");
        }
        // As text this is the top, which is another directory.
        let odd = tree.path().join("link/..");
        assert_eq!(canonical(tree.path(), "data", Some(&odd), "y"), "TOP/data/y");
    }

    /// What the C program makes of an operand: it says so when it marks a file.
    fn reference(top: &Path, pwd: &Path, operand: &str) -> Option<String> {
        let output = Command::new("/usr/sbin/csync2")
            .args(["-N", "a", "-mv", "-D"])
            .args([top.join("etc").as_os_str(), OsStr::new("--"), OsStr::new(operand)])
            .env("CSYNC2_SYSTEM_DIR", top.join("etc"))
            .env("PWD", pwd)
            .current_dir(pwd)
            .output()
            .expect("the C program must be installed: apt-get install csync2");
        let log = String::from_utf8(output.stderr).unwrap();
        let said = ["Marking file as dirty: ", "WARNING: Parameter will be ignored: "];
        log.lines().find_map(|line| said.iter().find_map(|said| line.strip_prefix(said))).map(str::to_owned)
    }

    #[test]
    fn the_c_program_finds_the_same_names() {
        let tree = tree();
        let top = tree.path();
        fs::create_dir(top.join("etc")).unwrap();
        fs::write(top.join("etc/k"), "0123456789012345678901234567890123456789\n").unwrap();
        let config = format!("group g {{ host a b; key k; include {}; }}", top.display());
        fs::write(top.join("etc/csync2.cfg"), config).unwrap();
        let operands = [
            "",
            ".",
            "..",
            "data/f",
            "data//f",
            "data/f/",
            "data/a/./b",
            "link",
            "link/",
            "link/.",
            "link/./.",
            "link/y",
            "link/..",
            "link/../data/f",
            "link/new/x",
            "link/new/../y",
            "link/dl",
            "link/dl/",
            "link/dl/.",
            "link/dl/..",
            "link/dl/er/w",
            "link/dl/../y",
            "data/dangling",
            "data/dangling/x",
            "loop",
            "loop/x",
            "nothere/../data/f",
            "y",
            "./y",
            "../link/y",
            "../f",
            "deep/z",
            "dl/z",
            "dl/new/w",
        ];
        for directory in ["", "data", "link"] {
            let pwd = if directory.is_empty() { top.to_owned() } else { top.join(directory) };
            let real = fs::canonicalize(&pwd).unwrap();
            for operand in operands {
                let ours = WorkingDirectory::seen_as(real.clone(), Some(pwd.as_os_str())).canonical(operand.as_bytes());
                let theirs = reference(top, &pwd, operand);
                assert_eq!(theirs, Some(String::from_utf8(ours).unwrap()), "{operand} in {directory}");
            }
        }
    }

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
