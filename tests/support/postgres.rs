//! A private PostgreSQL cluster for tests: its own directory, port and socket, stopped when dropped.
//!
//! The server refuses to run as root, so for root it runs as the user `postgres`. Its superuser is `csync2`, without a
//! password, over the socket and over TCP, until [`Postgres::prepend_hba`] says otherwise.

#![allow(dead_code)]

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

/// The superuser of the cluster.
pub(crate) const SUPERUSER: &str = "csync2";

/// Who uses the databases of the shared server: may create some, and is bound by limits, as in the field.
pub(crate) const USER: &str = "node";

/// A running server. Fails, never skips, where PostgreSQL is not installed.
pub(crate) struct Postgres {
    directory: tempfile::TempDir,
    port: u16,
}

impl Postgres {
    /// The server that all tests of this process share; started when first asked for.
    ///
    /// Nothing static is dropped at the end of a process, so a watchdog holds it: when the pipe from this process
    /// closes, however that ended, it stops the server and removes the directory.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<(Postgres, Child)> = OnceLock::new();
        let start = || {
            let server = Self::start();
            server.sql("postgres", &format!("CREATE ROLE {USER} LOGIN CREATEDB"));
            let stop = server.controlled("stop");
            let mut watchdog = Command::new("bash");
            watchdog
                .args(["-c", r#"directory=$1; shift; read -r _; "$@"; rm -rf "$directory""#, "watchdog"])
                .arg(server.directory.path())
                .arg(stop.get_program())
                .args(stop.get_args())
                .current_dir("/")
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .process_group(0);
            let watchdog = watchdog.spawn().expect("start the server's watchdog");
            (server, watchdog)
        };
        &SHARED.get_or_init(start).0
    }

    /// Makes a cluster (encoding UTF8, locale C) and starts its server.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with more lines for postgresql.conf.
    pub(crate) fn start_with(settings: &[&str]) -> Self {
        // Below /tmp itself: a socket's path may have 107 bytes, and the user `postgres` must get there.
        let directory = tempfile::Builder::new().prefix("csync2-pg-").tempdir_in("/tmp").expect("temporary directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(directory.path()));
        }
        let data = directory.path().join("data");
        run(as_server_user("initdb")
            .args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"])
            .arg(format!("--username={SUPERUSER}"))
            .arg(format!("--pgdata={}", data.display())));
        let mut configuration = format!(
            "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\nmax_connections = 200\n\
             shared_buffers = 32MB\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\n",
            directory.path().display()
        );
        for setting in settings {
            configuration.push_str(setting);
            configuration.push('\n');
        }
        append(&data.join("postgresql.conf"), &configuration);
        let mut cluster = Self { directory, port: 0 };
        // Another process may take a free port between our look and the server's start.
        for attempt in 0.. {
            cluster.port = free_port();
            if cluster.control("start").status.success() {
                break;
            }
            assert!(attempt < 5, "PostgreSQL does not start: {}", cluster.log());
        }
        cluster
    }

    /// Creates a database and returns its URL for `-D`. `options` is what follows `CREATE DATABASE name`, such as
    /// `TEMPLATE template0 ENCODING 'LATIN1'`; empty: the cluster's own, UTF8 and C.
    pub(crate) fn database(&self, name: &str, options: &str) -> String {
        self.sql("postgres", &format!("CREATE DATABASE \"{name}\" {options}"));
        self.url(name)
    }

    /// The URL of a database over TCP, whether it exists or not.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("pgsql://{SUPERUSER}@127.0.0.1:{}/{name}", self.port)
    }

    /// The same for [`USER`].
    pub(crate) fn user_url(&self, name: &str) -> String {
        format!("pgsql://{USER}@127.0.0.1:{}/{name}", self.port)
    }

    /// The port, of TCP and of the socket's name.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The directory that holds the socket.
    pub(crate) fn socket_directory(&self) -> &Path {
        self.directory.path()
    }

    /// Runs statements through psql and returns what they give, unaligned, one row a line.
    pub(crate) fn sql(&self, database: &str, statements: &str) -> String {
        let output = self.psql(database, statements);
        assert!(output.status.success(), "psql {database}: {statements}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned()
    }

    /// The same, for bytes and failures.
    pub(crate) fn psql(&self, database: &str, statements: &str) -> Output {
        self.psql_command(database).arg(format!("--command={statements}")).output().expect("psql is installed")
    }

    fn psql_command(&self, database: &str) -> Command {
        let mut command = Command::new("psql");
        command
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"])
            .arg(format!("--host={}", self.directory.path().display()))
            .arg(format!("--port={}", self.port))
            .arg(format!("--username={SUPERUSER}"))
            .arg(format!("--dbname={database}"));
        command
    }

    /// Runs statements in a transaction that goes on until the answer is dropped.
    pub(crate) fn hold(&self, database: &str, statements: &str) -> Held {
        let mut psql = self.psql_command(database).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("psql");
        let begin = format!("BEGIN; {statements};\n\\echo held\n");
        psql.stdin.as_mut().expect("a pipe").write_all(begin.as_bytes()).expect("write to psql");
        let mut line = String::new();
        let mut printed = BufReader::new(psql.stdout.take().expect("a pipe"));
        printed.read_line(&mut line).expect("read from psql");
        assert_eq!(line, "held\n", "{statements}");
        Held(psql)
    }

    /// Waits until somebody waits for a lock in this database.
    pub(crate) fn wait_for_a_waiter(&self, database: &str) {
        let waiting =
            format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND wait_event_type = 'Lock'");
        let is_waiting = || self.sql("postgres", &waiting) != "0";
        assert!((0..1_000).any(|_| is_waiting()), "nobody waits for {database}");
    }

    /// Ends every connection to a database, as a crash of the server's side would.
    pub(crate) fn terminate_connections(&self, database: &str) {
        self.sql(
            "postgres",
            &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"),
        );
    }

    /// Puts lines in front of pg_hba.conf and has the server read it.
    pub(crate) fn prepend_hba(&self, lines: &str) {
        let path = self.directory.path().join("data/pg_hba.conf");
        let old = fs::read_to_string(&path).expect("pg_hba.conf");
        fs::write(&path, format!("{lines}\n{old}")).expect("pg_hba.conf");
        self.sql("postgres", "SELECT pg_reload_conf()");
    }

    /// Switches TLS on with this certificate and key (PEM).
    pub(crate) fn enable_tls(&self, certificate: &str, key: &str) {
        let data = self.directory.path().join("data");
        for (name, content) in [("server.crt", certificate), ("server.key", key)] {
            let path = data.join(name);
            fs::write(&path, content).expect("write certificate");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
            if is_root() {
                run(Command::new("chown").arg("postgres").arg(&path));
            }
        }
        append(&data.join("postgresql.conf"), "ssl = on\n");
        self.stop();
        assert!(self.control("start").status.success(), "PostgreSQL with TLS: {}", self.log());
    }

    /// Restarts it: `fast` ends transactions in good order, `immediate` is a crash.
    pub(crate) fn restart(&self, mode: &str) {
        let mut restart = self.controlled("restart");
        restart.arg(format!("--mode={mode}")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(restart.status().expect("pg_ctl").success(), "PostgreSQL does not start again: {}", self.log());
    }

    /// Stops the server; connections end at once.
    pub(crate) fn stop(&self) {
        self.control("stop");
    }

    /// Starts it again on the same port.
    pub(crate) fn start_again(&self) {
        assert!(self.control("start").status.success(), "PostgreSQL does not start again: {}", self.log());
    }

    fn control(&self, action: &str) -> Output {
        self.controlled(action)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .expect("pg_ctl")
    }

    fn controlled(&self, action: &str) -> Command {
        let directory = self.directory.path();
        let mut command = as_server_user("pg_ctl");
        command
            .args([action, "--wait", "--silent", "--mode=immediate"])
            .arg(format!("--pgdata={}", directory.join("data").display()))
            .arg(format!("--log={}", directory.join("log").display()))
            .arg(format!("--options=-p {}", self.port));
        command
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

/// A transaction that holds its locks.
pub(crate) struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        drop((self.0.kill(), self.0.wait()));
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port that nobody listens on now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("free port").port()
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0)
}

/// A program of the newest installed server, run by a user it accepts.
fn as_server_user(program: &str) -> Command {
    let program = server_program(program);
    if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"]).arg(program);
        command.current_dir("/");
        command
    } else {
        Command::new(program)
    }
}

fn server_program(program: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("the PostgreSQL server is installed");
    let newest = versions
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .max()
        .expect("a version of the PostgreSQL server");
    Path::new("/usr/lib/postgresql").join(newest.to_string()).join("bin").join(program)
}

fn append(path: &Path, text: &str) {
    let mut content = fs::read_to_string(path).expect("configuration");
    content.push_str(text);
    // Written in place: the file stays the server user's.
    fs::write(path, content).expect("configuration");
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{}: {error}", name_of(command)));
    assert!(output.status.success(), "{}: {}", name_of(command), String::from_utf8_lossy(&output.stderr));
}

fn name_of(command: &Command) -> String {
    OsStr::to_string_lossy(command.get_program()).into_owned()
}
