//! A private PostgreSQL server for the tests: own data directory, own port, nothing durable.
//!
//! It refuses to run as root, so as root it runs as the user `postgres`. One server serves a whole test process. Since
//! nothing is dropped at the end of a process, a watchdog shell holds the server: when the pipe from the test process
//! closes, however that ended, it stops the server and removes the directory.

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::{env, fs};

use super::process::run;

/// A running server. Dropping it stops it.
pub(crate) struct Postgres {
    directory: PathBuf,
    port: u16,
    watchdog: Mutex<(Child, Option<ChildStdin>)>,
}

impl Postgres {
    /// The server that all tests of this process share; started when first asked for.
    pub(crate) fn shared() -> &'static Postgres {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Postgres::start)
    }

    /// Starts a server of its own, with the roles `postgres` (superuser) and `csync2` (may create databases); anybody
    /// may connect without a password, over TCP on 127.0.0.1 and through the socket in its directory.
    pub(crate) fn start() -> Postgres {
        let directory = tempfile::Builder::new().prefix("csync2-postgres-").tempdir().expect("make a directory").keep();
        if rustix::process::geteuid().is_root() {
            let postgres = user_id("postgres");
            chown(&directory, Some(postgres), Some(postgres)).expect("chown the server's directory");
        }
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("chmod the server's directory");
        let data = directory.join("data");
        let mut initdb = as_postgres(&program("initdb"));
        initdb.args(["--auth=trust", "--username=postgres", "--locale=C", "--encoding=UTF8", "--no-sync", "-D"]);
        run({
            initdb.arg(&data).current_dir(&directory);
            initdb
        })
        .success();

        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("find a port").port();
        let mut server = as_postgres(&program("postgres"));
        server.arg("-D").arg(&data).arg("-k").arg(&directory).args(["-p", &port.to_string()]);
        for setting in ["fsync=off", "full_page_writes=off", "listen_addresses=127.0.0.1", "max_connections=300"] {
            server.args(["-c", setting]);
        }
        let mut watchdog = Command::new("bash");
        watchdog
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(&directory)
            .arg(server.get_program())
            .args(server.get_args())
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let mut child = watchdog.spawn().expect("start the server's watchdog");
        let stdin = child.stdin.take();
        let server = Postgres { directory, port, watchdog: Mutex::new((child, stdin)) };
        server.wait_until_ready();
        server.psql("postgres", "CREATE ROLE csync2 LOGIN CREATEDB");
        server
    }

    /// `pgsql://csync2@127.0.0.1:PORT/DATABASE`; the database need not exist.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("pgsql://csync2@127.0.0.1:{}/{database}", self.port)
    }

    /// Runs statements as the superuser; the rows as bytes, fields separated by tabs, one line each.
    #[track_caller]
    pub(crate) fn psql(&self, database: &str, statements: &str) -> Vec<u8> {
        let mut psql = Command::new("psql");
        psql.args(["-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-h"])
            .arg(&self.directory)
            .args(["-p", &self.port.to_string(), "-d", database, "-c", statements]);
        run(psql).success().stdout
    }

    fn wait_until_ready(&self) {
        let mut ready = Command::new("bash");
        ready.args(["-c", READY, "ready"]).arg(&self.directory).arg(self.port.to_string());
        run(ready).success();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let mut watchdog = self.watchdog.lock().unwrap_or_else(PoisonError::into_inner);
        watchdog.1 = None;
        drop(watchdog.0.wait());
    }
}

const WATCHDOG: &str = r#"
directory=$1; shift
"$@" >"$directory/log" 2>&1 </dev/null & server=$!
read -r _
kill -QUIT $server; wait $server
rm -rf "$directory"
"#;

const READY: &str = r#"
for _ in {1..600}; do
    psql -X -q -U postgres -h "$1" -p "$2" -d postgres -c '' 2>/dev/null && exit 0
    sleep 0.05
done
cat "$1/log" >&2; exit 1
"#;

/// A server program: in PATH, or where Debian has it (the newest version).
fn program(name: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path).map(|directory| directory.join(name));
    let mut debian: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|version| Some(version.ok()?.path().join("bin").join(name)))
        .collect();
    debian.sort();
    in_path
        .chain(debian.into_iter().rev())
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("`{name}` is missing: apt-get install postgresql (tests/run does it)"))
}

fn as_postgres(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]).arg(program);
    command
}

fn user_id(name: &str) -> u32 {
    let users = fs::read_to_string("/etc/passwd").expect("read /etc/passwd");
    users
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.split(':').nth(1)?.parse().ok())
        .unwrap_or_else(|| panic!("no user `{name}`: apt-get install postgresql (tests/run does it)"))
}
