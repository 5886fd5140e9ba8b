//! Hosts as the documents have them: alpha, beta and gamma, with an /etc, /srv and /var of their own, csync2 in /usr/sbin and
//! the names of the others in /etc/hosts. Each is a set of namespaces on this machine; nothing of it is left behind.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::net::{Shutdown, TcpListener};
use std::ops::Index;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

use super::Postgres;
use super::cluster::READY;
use super::process::{Daemon, Output, run};

/// Makes a host of the namespaces that it runs in: its directory, its name, the program. There is no sshd: `scp FILE… HOST:DIR`
/// copies into the directory of that host.
const BECOME: &str = r#"
set -e
cd "$1"
mkdir -p srv root run/postgresql var/lib/csync2 var/log var/backups bin
cp -a /etc etc
rm -rf etc/csync2*
printf '127.0.0.1 localhost\n10.0.0.1 alpha db.example.net\n10.0.0.2 beta\n10.0.0.3 gamma\n' > etc/hosts
printf '#!/bin/sh\n[ "$1" = -p ] && shift\nfor last; do :; done\nwhile [ $# -gt 1 ]; do cp -p "$1" "%s/${last%%%%:*}${last#*:}"; shift; done\n' \
    "$(dirname "$1")" > bin/scp
chmod 755 bin/scp
mount --bind "$3" /usr/sbin/csync2
hostname "$2"
ip link set lo up
for directory in etc srv root run var; do mount --bind "$directory" "/$directory"; done
echo a host
exec sleep infinity
"#;

pub(crate) struct Hosts {
    hosts: Vec<Host>,
    // Dropped last: the hosts live in it.
    directory: TempDir,
}

pub(crate) struct Host {
    name: String,
    address: String,
    holder: Daemon,
    scp: PathBuf,
    server: RefCell<Option<Daemon>>,
}

impl Hosts {
    /// Hosts with csync2 and nothing else, each joined to each other by a cable.
    pub(crate) fn bare(names: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("csync2-hosts-").tempdir().expect("make a directory");
        let start = |(number, name): (usize, &&str)| {
            let own = directory.path().join(name);
            fs::create_dir(&own).expect("make a directory");
            let mut command = Command::new("unshare");
            command.args(["--mount", "--uts", "--net", "sh", "-c", BECOME, "sh"]);
            command.arg(&own).arg(name).arg(env!("CARGO_BIN_EXE_csync2"));
            Host {
                name: (*name).to_owned(),
                address: format!("10.0.0.{}", number + 1),
                holder: Daemon::start(&command, "a host"),
                scp: own.join("bin"),
                server: None.into(),
            }
        };
        let hosts: Vec<Host> = names.iter().enumerate().map(start).collect();
        for (number, host) in hosts.iter().enumerate() {
            for other in &hosts[number + 1..] {
                host.join(other);
            }
        }
        Self { hosts, directory }
    }

    /// The shared server is there for alpha, at port 5432 and at the socket in /run/postgresql.
    pub(crate) fn serve_postgres(&self) {
        let server = Postgres::shared();
        let socket = server.socket_directory().join(format!(".s.PGSQL.{}", server.port()));
        let own = self.directory.path().join("alpha/run/postgresql/.s.PGSQL.5432");
        let local = UnixListener::bind(own).expect("listen");
        let namespace = fs::File::open(format!("/proc/{}/ns/net", self["alpha"].holder.id())).expect("a namespace");
        let listen = move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("enter a namespace");
            TcpListener::bind("0.0.0.0:5432").expect("listen")
        };
        let far = thread::spawn(listen).join().expect("listen");
        let target = socket.clone();
        thread::spawn(move || {
            for client in local.incoming().flatten() {
                let twin = client.try_clone().expect("a handle");
                forward([client, twin], |client| client.shutdown(Shutdown::Write), &target);
            }
        });
        thread::spawn(move || {
            for client in far.incoming().flatten() {
                let twin = client.try_clone().expect("a handle");
                forward([client, twin], |client| client.shutdown(Shutdown::Write), &socket);
            }
        });
    }
}

impl Index<&str> for Hosts {
    type Output = Host;

    fn index(&self, name: &str) -> &Host {
        self.hosts.iter().find(|host| host.name == name).unwrap_or_else(|| panic!("no host {name}"))
    }
}

impl Host {
    /// Lays a cable to another host.
    fn join(&self, other: &Host) {
        let (here, there) = (self, other);
        let pid = there.holder.id().to_string();
        let make = ["ip", "link", "add", &there.name, "type", "veth", "peer", "name", &here.name, "netns", &pid];
        run(here.command(&make)).success();
        for (end, far) in [(here, there), (there, here)] {
            run(end.command(&["ip", "address", "add", &end.address, "peer", &far.address, "dev", &far.name])).success();
            run(end.command(&["ip", "link", "set", &far.name, "up"])).success();
        }
    }

    /// A command on this host, as root in /root.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.holder.id())).args(["--mount", "--uts", "--net"]);
        // Its --wd would be a directory of this machine.
        command.args(["env", "-i", "--chdir=/root"]);
        command.arg(format!("PATH={}:/usr/sbin:/usr/bin:/sbin:/bin", self.scp.display()));
        command.args(["HOME=/root", "LC_ALL=C", "TZ=UTC", "TERM=xterm"]).args(arguments);
        command
    }

    /// Runs lines of shell, up to the first that fails.
    pub(crate) fn shell(&self, commands: &str) -> Output {
        run(self.command(&["sh", "-ec", commands]))
    }

    /// Starts its server.
    pub(crate) fn serve(&self) {
        let server = Daemon::start(&self.command(&["csync2", "-ii"]), READY);
        assert!(self.server.replace(Some(server)).is_none(), "{} serves already", self.name);
    }

    /// Kills its server.
    pub(crate) fn stop(&self) {
        assert!(self.server.take().is_some(), "{} does not serve", self.name);
    }
}

/// Passes on what a client and the server at a socket say to each other. `client`: it, twice.
fn forward<C>(client: [C; 2], end: impl FnOnce(&C) -> io::Result<()> + Send + 'static, socket: &Path)
where
    C: io::Read + io::Write + Send + 'static,
{
    let [from_client, to_client] = client;
    let server = UnixStream::connect(socket).expect("connect to PostgreSQL");
    let to_server = server.try_clone().expect("a handle");
    thread::spawn(move || pass(from_client, to_server, |server| server.shutdown(Shutdown::Write)));
    thread::spawn(move || pass(server, to_client, end));
}

/// Passes on what comes, and that nothing more will.
fn pass<W: io::Write>(mut from: impl io::Read, mut to: W, end: impl FnOnce(&W) -> io::Result<()>) {
    drop(io::copy(&mut from, &mut to));
    drop(end(&to));
}
