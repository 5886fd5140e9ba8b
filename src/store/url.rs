//! Which database is meant by `-D`, by the config's `database`, or by neither (docs/manual.md).
//!
//! Text in, values out: nothing is opened here. The one look at the disk is whether a given SQLite path is a directory.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{Result, StoreError};
use crate::model::encoding;

/// Where the C program keeps its databases.
const DEFAULT_DIRECTORY: &str = "/var/lib/csync2";

const DEFAULT_USER: &str = "csync2";
const DEFAULT_PORT: u16 = 5432;

/// A database. Displayed without a password, in the form that `-D` takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// The file.
    Sqlite(PathBuf),
    Postgres(PostgresUrl),
}

/// What a PostgreSQL URL says.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl {
    /// Name or address; a directory (absolute path) holds the server's socket; `None`: the usual sockets.
    pub host: Option<String>,
    pub port: u16,
    pub user: String,
    /// As given; the environment and the password file are asked when it is opened.
    pub password: Option<String>,
    /// Only `[A-Za-z0-9_]`.
    pub database: String,
    /// `None`: PGSSLMODE decides, then [`SslMode::Prefer`].
    pub ssl_mode: Option<SslMode>,
    /// PEM file with the certificates to trust.
    pub ssl_root_certificate: Option<PathBuf>,
    /// Password file in place of PGPASSFILE.
    pub password_file: Option<PathBuf>,
    pub connect_timeout: Option<Duration>,
    pub application_name: Option<String>,
}

/// How much TLS a PostgreSQL connection needs; the meanings are libpq's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    Disable,
    /// TLS where the server has it, unverified. Also what `allow` means here.
    Prefer,
    /// TLS; verified like [`SslMode::VerifyCa`] when a root certificate is given.
    Require,
    /// TLS with a certificate from a trusted authority.
    VerifyCa,
    /// That, made out for this host.
    VerifyFull,
}

impl SslMode {
    /// Reads the values of `sslmode`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "disable" => Self::Disable,
            "allow" | "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => return None,
        })
    }
}

impl Location {
    /// The database that `database` (`-D`, or the config's, or neither) means on the host `host` with `-C config_name`
    /// (empty without).
    pub fn resolve(database: Option<&str>, host: &str, config_name: &str) -> Result<Self> {
        let name = if config_name.is_empty() { host.to_owned() } else { format!("{host}_{config_name}") };
        let file_in = |directory: &Path| directory.join(format!("{name}.db3"));
        let text = database.filter(|text| !text.is_empty()).unwrap_or(DEFAULT_DIRECTORY);
        let Some((scheme, rest)) = text.split_once("://") else {
            let path = Path::new(text);
            let is_directory = path.is_absolute() || path.is_dir();
            return Ok(Self::Sqlite(if is_directory { file_in(path) } else { path.to_owned() }));
        };
        match scheme {
            // SQLite would make a temporary database of it.
            "sqlite" | "sqlite3" if rest.is_empty() => {
                Err(StoreError::BadUrl { url: text.to_owned(), reason: "it names no file".into() })
            }
            "sqlite" | "sqlite3" => {
                let path = Path::new(rest);
                Ok(Self::Sqlite(if path.is_dir() { file_in(path) } else { path.to_owned() }))
            }
            "pgsql" | "postgres" | "postgresql" => {
                let url = PostgresUrl::parse(rest, &name)
                    .map_err(|reason| StoreError::BadUrl { url: without_password(text), reason })?;
                Ok(Self::Postgres(url))
            }
            "mysql" => Err(StoreError::Unsupported { url: without_password(text), product: "MySQL" }),
            "sqlite2" => Err(StoreError::Unsupported { url: without_password(text), product: "SQLite 2" }),
            _ => Err(StoreError::UnknownScheme { url: without_password(text) }),
        }
    }
}

/// A URL that may be shown: what stands between the user's colon and the last `@` is left out, whatever characters the
/// password holds unescaped, and so is `password=`.
fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let shown = match rest.rsplit_once('@') {
        Some((user, host)) => format!("{}@{host}", user.split(':').next().unwrap_or_default()),
        None => rest.to_owned(),
    };
    let (shown, parameters) = shown.split_once('?').unwrap_or((&shown, ""));
    let mut shown = format!("{scheme}://{shown}");
    let public = |parameter: &&str| !parameter.is_empty() && !parameter.to_ascii_lowercase().starts_with("password");
    for (index, parameter) in parameters.split('&').filter(public).enumerate() {
        shown.push(if index == 0 { '?' } else { '&' });
        shown.push_str(parameter);
    }
    shown
}

impl PostgresUrl {
    /// Whether the server is meant that runs on the same machine, whichever that is.
    #[must_use]
    pub fn is_of_this_machine(&self) -> bool {
        match self.host.as_deref() {
            None | Some("localhost") => true,
            Some(host) => host.starts_with('/') || host.parse().is_ok_and(|address: IpAddr| address.is_loopback()),
        }
    }

    /// Reads what follows `pgsql://`; `name` is what the default database is called for.
    fn parse(rest: &str, name: &str) -> std::result::Result<Self, String> {
        let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        // A password may hold an unescaped `@` or `/`, as the C program took it.
        let (user_info, location) = match rest.rsplit_once('@') {
            Some((user_info, location)) => (user_info, location),
            None => ("", rest),
        };
        let (authority, database) = location.split_once('/').unwrap_or((location, ""));
        let (user, password) = match user_info.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (user_info, None),
        };
        let (host, port) = split_port(authority)?;
        let mut url = Self {
            host: non_empty(decode(host)?),
            port,
            user: non_empty(decode(user)?).unwrap_or_else(|| DEFAULT_USER.to_owned()),
            password: password.map(decode).transpose()?,
            database: decode(database)?,
            ssl_mode: None,
            ssl_root_certificate: None,
            password_file: None,
            connect_timeout: None,
            application_name: None,
        };
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            url.set(parameter)?;
        }
        if url.database.is_empty() {
            url.database = format!("csync2_{name}");
        }
        url.database = url.database.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        Ok(url)
    }

    /// Takes one `name=value`.
    fn set(&mut self, parameter: &str) -> std::result::Result<(), String> {
        let (name, value) = parameter.split_once('=').ok_or_else(|| "a parameter has no `=`".to_owned())?;
        let value = decode(value)?;
        match name {
            "host" => self.host = non_empty(value),
            "port" => self.port = parse_port(&value)?,
            "user" => self.user = value,
            "password" => self.password = Some(value),
            "dbname" => self.database = value,
            "sslmode" => {
                let mode = SslMode::parse(&value).ok_or_else(|| {
                    "sslmode is one of disable, prefer, require, verify-ca and verify-full".to_owned()
                })?;
                self.ssl_mode = Some(mode);
            }
            "sslrootcert" => self.ssl_root_certificate = Some(value.into()),
            "passfile" => self.password_file = Some(value.into()),
            "connect_timeout" => {
                let seconds: u64 = value.parse().map_err(|_| "connect_timeout is a number of seconds".to_owned())?;
                self.connect_timeout = (seconds > 0).then(|| Duration::from_secs(seconds));
            }
            "application_name" => self.application_name = Some(value),
            _ => {
                // A `?` in a password makes the rest of it look like a parameter.
                let is_word = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
                let name = if is_word { name } else { "" };
                return Err(format!(
                    "unknown parameter {name:?}; known are host, port, user, password, dbname, sslmode, sslrootcert, \
                     passfile, connect_timeout and application_name"
                ));
            }
        }
        Ok(())
    }
}

fn decode(text: &str) -> std::result::Result<String, String> {
    String::from_utf8(encoding::decode(text.as_bytes())).map_err(|_| "a %XX stands for bytes that are no text".into())
}

fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// Takes `host`, `host:port`, `[v6]:port` apart.
fn split_port(authority: &str) -> std::result::Result<(&str, u16), String> {
    if let Some(bracketed) = authority.strip_prefix('[') {
        let (host, after) = bracketed.split_once(']').ok_or_else(|| "a `]` is missing".to_owned())?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, parse_port(port)?)),
            None if after.is_empty() => Ok((host, DEFAULT_PORT)),
            None => Err("the host is followed by something that is no port".into()),
        };
    }
    match authority.split_once(':') {
        Some((host, port)) => Ok((host, parse_port(port)?)),
        None => Ok((authority, DEFAULT_PORT)),
    }
}

fn parse_port(text: &str) -> std::result::Result<u16, String> {
    if text.is_empty() {
        return Ok(DEFAULT_PORT);
    }
    match text.parse() {
        Ok(port) if port > 0 => Ok(port),
        // The text itself may be part of a password.
        _ => Err("the port is no number from 1 to 65535".into()),
    }
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(formatter, "sqlite3://{}", path.display()),
            Self::Postgres(url) => url.fmt(formatter),
        }
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, user, database, .. } = self;
        let port = if *port == DEFAULT_PORT { String::new() } else { format!(":{port}") };
        match host.as_deref() {
            Some(directory) if directory.starts_with('/') => {
                write!(formatter, "pgsql://{user}@{port}/{database}?host={directory}")
            }
            Some(address) if address.contains(':') => write!(formatter, "pgsql://{user}@[{address}]{port}/{database}"),
            host => write!(formatter, "pgsql://{user}@{}{port}/{database}", host.unwrap_or_default()),
        }
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PostgresUrl({self}, {:?})", self.ssl_mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn resolve(database: &str) -> Result<Location> {
        Location::resolve(Some(database), "1.csync2.test", "")
    }

    fn postgres(database: &str) -> PostgresUrl {
        match resolve(database).unwrap() {
            Location::Postgres(url) => url,
            Location::Sqlite(path) => panic!("{path:?}"),
        }
    }

    #[test]
    fn paths_are_sqlite_files_named_for_host_and_config() {
        let sqlite = |path: &str| Location::Sqlite(path.into());
        assert_eq!(Location::resolve(None, "a", "").unwrap(), sqlite("/var/lib/csync2/a.db3"));
        assert_eq!(Location::resolve(Some(""), "a", "").unwrap(), sqlite("/var/lib/csync2/a.db3"));
        assert!(resolve("sqlite3://").is_err());
        assert_eq!(Location::resolve(None, "a", "web").unwrap(), sqlite("/var/lib/csync2/a_web.db3"));
        assert_eq!(resolve("/no/such/dir").unwrap(), sqlite("/no/such/dir/1.csync2.test.db3"));
        assert_eq!(resolve("sqlite:///no/x.db").unwrap(), sqlite("/no/x.db"));
        assert_eq!(resolve("sqlite3:///tmp").unwrap(), sqlite("/tmp/1.csync2.test.db3"));
        assert_eq!(resolve("no-such-file.db").unwrap(), sqlite("no-such-file.db"));
        assert_eq!(resolve("/no").unwrap().to_string(), "sqlite3:///no/1.csync2.test.db3");
    }

    #[test]
    fn postgres_urls_have_the_defaults_of_the_c_program() {
        let url = postgres("pgsql://u:p@localhost:40055/my-Db");
        assert_eq!(url.host.as_deref(), Some("localhost"));
        assert_eq!((url.port, url.user.as_str(), url.password.as_deref()), (40055, "u", Some("p")));
        assert_eq!(url.database, "my_Db");
        let url = postgres("postgresql:///");
        assert_eq!((url.host.as_ref(), url.port, url.user.as_str()), (None, 5432, "csync2"));
        assert_eq!(url.database, "csync2_1_csync2_test");
        let Location::Postgres(url) = Location::resolve(Some("postgres://db"), "h", "web").unwrap() else { panic!() };
        assert_eq!(url.database, "csync2_h_web");
    }

    #[test]
    fn no_name_of_a_database_is_more_than_a_name() {
        for text in ["pgsql://h/a%22;%20DROP", "pgsql://h/x?dbname=a%22;%20DROP", "pgsql://h/a%00;%20DROP"] {
            assert_eq!(postgres(text).database, "a___DROP", "{text}");
        }
        let Location::Postgres(url) = Location::resolve(Some("pgsql://h"), "a\"; DROP", "").unwrap() else { panic!() };
        assert_eq!(url.database, "csync2_a___DROP");
    }

    #[test]
    fn parameters_and_escapes_are_understood() {
        let url = postgres("pgsql://us%40er:p%3Aw%2F@[::1]:5433/db?sslmode=verify-full&sslrootcert=/etc/a%20b.pem");
        assert_eq!((url.user.as_str(), url.password.as_deref()), ("us@er", Some("p:w/")));
        assert_eq!((url.host.as_deref(), url.port), (Some("::1"), 5433));
        assert_eq!(url.ssl_mode, Some(SslMode::VerifyFull));
        assert_eq!(url.ssl_root_certificate.as_deref(), Some(Path::new("/etc/a b.pem")));
        assert_eq!(url.to_string(), "pgsql://us@er@[::1]:5433/db");
        let url = postgres("pgsql://u@/db?host=/run/postgresql&port=5433&connect_timeout=3");
        assert_eq!((url.host.as_deref(), url.port), (Some("/run/postgresql"), 5433));
        assert_eq!(url.to_string(), "pgsql://u@:5433/db?host=/run/postgresql");
        assert_eq!(resolve(&url.to_string()).unwrap().to_string(), url.to_string());
    }

    #[test]
    fn what_cannot_be_opened_is_named_without_its_password() {
        let shown = |database: &str| resolve(database).unwrap_err().to_string();
        assert_eq!(shown("foo://x"), "Unknown database scheme: foo://x");
        assert_eq!(shown("foo://u:secret@x?password=secret&a=b"), "Unknown database scheme: foo://u@x?a=b");
        assert!(
            shown("mysql://u:secret@h/d").starts_with("Can't open database: mysql://u@h/d: MySQL is not supported")
        );
        assert!(shown("sqlite2:///x").contains("SQLite 2"));
        for bad in ["h:port/db", "h:0/d", "h/d?sslmode=on", "h/d?foo=1", "h/d?foo", "[::1/d", "h%FF/d"] {
            let message = shown(&format!("pgsql://u:secret@{bad}"));
            assert!(message.starts_with("Can't open database: pgsql://u@"), "{message}");
            assert!(!message.contains("secret"), "{message}");
        }
        let url = postgres("pgsql://u:secret@h/d");
        assert!(!format!("{url} {url:?} {:?}", Location::Postgres(url.clone())).contains("secret"));
    }

    proptest! {
        #[test]
        fn no_text_panics_or_shows_a_password(user in "[a-z]{0,5}", odd in "[?/@:&=]{0,3}", tail in "\\PC{0,40}") {
            let url = format!("pgsql://{user}:{odd}pa55word@{tail}");
            let shown = match resolve(&url) {
                Ok(location) => format!("{location} {location:?}"),
                Err(error) => format!("{error} {error:?}"),
            };
            prop_assert!(!shown.contains("pa55word"), "{}", shown);
        }
    }
}
