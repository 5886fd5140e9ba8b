//! Making a connection: where to, with which password, over TLS or not, and what it is told first.

use std::error::Error as _;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use deadpool_postgres::Connect;
use futures_util::future::{self, BoxFuture};
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls, config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::super::error::ErrorKind;
use super::super::pgpass;
use super::super::spelling::Spelling;
use super::super::url::{PostgresUrl, SslMode};
use super::super::{Durability, StoreOptions};
use super::Answer;
use super::migrate;
use super::tls;
use super::trouble::Trouble;

/// Where servers put their sockets.
const SOCKET_DIRECTORIES: [&str; 2] = ["/run/postgresql", "/tmp"];

/// How long a silent server counts as alive.
const SILENCE: Duration = Duration::from_secs(30);

/// The database that is there before any other.
const FIRST_DATABASE: &str = "postgres";

/// Makes connections for the pool.
#[derive(Clone)]
pub(super) struct Connector {
    tls: Option<MakeRustlsConnect>,
    /// Whether a connection without TLS will do where one with it fails.
    may_do_without: bool,
    /// Statements that every connection runs first.
    preamble: Arc<str>,
    first: Arc<OnceLock<FirstSight>>,
    patience: Duration,
    /// Why there is no password where one could be.
    remark: Option<String>,
}

/// What the first connection saw of the database.
#[derive(Debug, Clone, Copy)]
pub(super) struct FirstSight {
    /// How text is written in it.
    pub(super) spelling: Spelling,
    /// The version of its tables; `None`: not known yet.
    pub(super) version: Option<i64>,
}

impl Connector {
    pub(super) fn new(url: &PostgresUrl, options: &StoreOptions) -> Result<(Self, Config), Trouble> {
        let environment = |name: &str| std::env::var_os(name);
        let connect_timeout = url.connect_timeout.unwrap_or(options.lock_timeout);
        let mut config = Config::new();
        let is_local = set_host(&mut config, url.host.as_deref());
        config
            .port(url.port)
            .user(&url.user)
            .dbname(&url.database)
            .application_name(url.application_name.as_deref().unwrap_or("csync2"))
            .connect_timeout(connect_timeout)
            .tcp_user_timeout(SILENCE)
            .keepalives_idle(SILENCE)
            .keepalives_interval(SILENCE / 6)
            .keepalives_retries(4);
        let (password, remark) = match pgpass::find(url, &environment) {
            Ok(password) => (password, None),
            Err(remark) => (None, Some(remark)),
        };
        if let Some(password) = password {
            config.password(password);
        }
        let mode = if is_local { SslMode::Disable } else { ssl_mode(url, &environment)? };
        config.ssl_mode(match mode {
            SslMode::Disable => config::SslMode::Disable,
            SslMode::Prefer => config::SslMode::Prefer,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => config::SslMode::Require,
        });
        let tls = match mode {
            SslMode::Disable => None,
            mode => Some(tls::connector(mode, root_certificate(url, &environment)).map_err(refused)?),
        };
        let commit = if options.durability == Durability::Nothing { "SET synchronous_commit = off; " } else { "" };
        let preamble = format!("{commit}SET lock_timeout = {}", options.lock_timeout.as_millis());
        let connector = Self {
            tls,
            may_do_without: mode == SslMode::Prefer,
            preamble: preamble.into(),
            first: Arc::default(),
            remark,
            // For the handshakes behind the connection as well.
            patience: connect_timeout + options.lock_timeout,
        };
        Ok((connector, config))
    }

    /// How long making a connection may take in all.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// What a person should know about the password.
    pub(super) fn remark(&self) -> Option<&str> {
        self.remark.as_deref()
    }

    /// What the first connection saw; nothing before there was one.
    pub(super) fn first_sight(&self) -> Option<FirstSight> {
        self.first.get().copied()
    }

    /// Makes the database of `config`, unless somebody else just did.
    pub(super) async fn create_database(&self, config: &Config) -> Result<(), Trouble> {
        let name = config.get_dbname().unwrap_or_default();
        let mut first = config.clone();
        first.dbname(FIRST_DATABASE);
        // It sees another database.
        let connector = Self { first: Arc::default(), ..self.clone() };
        let connecting = tokio::time::timeout(self.patience, connector.establish(&first));
        let (client, _) = connecting
            .await
            .map_err(|_| Trouble::no_answer())?
            .map_err(|error| Trouble::from(error).while_creating(name))?;
        // The name has no quotes in it.
        let sql = format!("CREATE DATABASE \"{name}\" ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
        match client.batch_execute(&sql).await {
            Err(error)
                if !matches!(error.code(), Some(&SqlState::DUPLICATE_DATABASE | &SqlState::UNIQUE_VIOLATION)) =>
            {
                Err(Trouble::from(error).while_creating(name))
            }
            _ => {
                tracing::info!("created the database {name}");
                Ok(())
            }
        }
    }

    /// A connection, ready for work. Without TLS, if it may be, where TLS or the server's rules for it stand in the way.
    async fn establish(&self, config: &Config) -> Answer<(Client, JoinHandle<()>)> {
        let Some(tls) = &self.tls else {
            return self.prepare(config.connect(NoTls).await?).await;
        };
        match config.connect(tls.clone()).await {
            Ok(connected) => self.prepare(connected).await,
            Err(error) if self.may_do_without && is_about_tls(&error) => {
                let mut plain = config.clone();
                plain.ssl_mode(config::SslMode::Disable);
                match plain.connect(NoTls).await {
                    Ok(connected) => self.prepare(connected).await,
                    Err(_) => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    async fn prepare<S, T>(
        &self,
        (client, connection): (Client, tokio_postgres::Connection<S, T>),
    ) -> Answer<(Client, JoinHandle<()>)>
    where
        tokio_postgres::Connection<S, T>: Future<Output = Answer<()>> + Send + 'static,
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
        T: tokio_postgres::tls::TlsStream + Unpin,
    {
        // In SQL_ASCII the server passes text as it stands in the tables. Of all encodings but UTF8 it would make others
        // of the C program's bytes, or refuse them.
        let is_utf8 = connection.parameter("server_encoding").is_none_or(|encoding| encoding == "UTF8");
        let spelling = if is_utf8 { Spelling::Utf8 } else { Spelling::Bytes };
        let encoding = if is_utf8 { "" } else { "; SET client_encoding = 'SQL_ASCII'" };
        // A plan made while the tables were empty would scan them from end to end when they are full.
        let version = major_version(connection.parameter("server_version"));
        let plans = if version >= 12 { "; SET plan_cache_mode = force_custom_plan" } else { "" };
        // What an administrator allows people would end the reading of a large table.
        let limits = match version {
            17.. => {
                "; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET transaction_timeout = 0"
            }
            10.. => "; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0",
            _ => "; SET statement_timeout = 0",
        };
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("database connection ended: {error}");
            }
        });
        let settings = format!("{}{encoding}{plans}{limits}", self.preamble);
        let settings = client.batch_execute(&settings);
        if self.first.get().is_some() {
            settings.await?;
        } else {
            // Together: a round trip takes as long as the work.
            let (settled, version) = future::join(settings, migrate::version(&client)).await;
            settled?;
            let _ = self.first.set(FirstSight { spelling, version: version.ok().flatten() });
        }
        Ok((client, task))
    }
}

impl Connect for Connector {
    fn connect(&self, config: &Config) -> BoxFuture<'_, Answer<(Client, JoinHandle<()>)>> {
        let config = config.clone();
        Box::pin(async move { self.establish(&config).await })
    }
}

/// The first number of `15.3 (Debian …)`.
fn major_version(text: Option<&str>) -> u32 {
    let digits = text.and_then(|text| text.split(|c: char| !c.is_ascii_digit()).next());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

fn refused(error: io::Error) -> Trouble {
    Trouble::new(ErrorKind::Refused, error)
}

/// Sets where the server is. Returns whether that is a socket of this machine.
fn set_host(config: &mut Config, host: Option<&str>) -> bool {
    match host {
        None => {
            for directory in SOCKET_DIRECTORIES {
                config.host_path(directory);
            }
            true
        }
        Some(directory) if directory.starts_with('/') => {
            config.host_path(directory);
            true
        }
        Some(host) => {
            config.host(host);
            false
        }
    }
}

type Environment<'e> = &'e dyn Fn(&str) -> Option<OsString>;

fn ssl_mode(url: &PostgresUrl, environment: Environment<'_>) -> Result<SslMode, Trouble> {
    let Some(text) = environment("PGSSLMODE").filter(|text| !text.is_empty()) else {
        return Ok(url.ssl_mode.unwrap_or(SslMode::Prefer));
    };
    match url.ssl_mode.or_else(|| SslMode::parse(text.to_str()?)) {
        Some(mode) => Ok(mode),
        None => Err(Trouble::other(format!("PGSSLMODE has no meaning: {}", text.display()))),
    }
}

/// The file of trusted certificates: named, or libpq's, if it is there.
fn root_certificate(url: &PostgresUrl, environment: Environment<'_>) -> Option<PathBuf> {
    let named = url.ssl_root_certificate.clone();
    let named = named.or_else(|| environment("PGSSLROOTCERT").filter(|path| !path.is_empty()).map(Into::into));
    named.or_else(|| {
        let usual = Path::new(&environment("HOME")?).join(".postgresql/root.crt");
        usual.exists().then_some(usual)
    })
}

/// Whether a connection without TLS may fare better: not where nobody listens, and not where the password is wrong.
fn is_about_tls(error: &tokio_postgres::Error) -> bool {
    if let Some(code) = error.code() {
        return *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION;
    }
    let cause = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    cause.is_none_or(|cause| {
        !matches!(cause.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::TimedOut | io::ErrorKind::NotFound)
    })
}
