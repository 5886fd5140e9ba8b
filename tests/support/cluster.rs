//! Nodes of a cluster on this machine.
//!
//! Host names are addresses of the loopback network, which both programs take as they take any name: so nothing has to
//! stand in /etc/hosts, a node listens on and connects from its own address, and tests run side by side.

use std::cell::{Cell, Ref, RefCell};
use std::ffi::OsStr;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Index;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, process};

use tempfile::TempDir;

use super::cast::{Backend, Cast, Program};
use super::certs;
use super::database::{Database, Table};
use super::process::{Daemon, Output, run, run_with_input};
use super::tree::{Tree, assert_same, join};

/// The pre-shared key of every cluster; the recorded sessions in fixtures/ use it too.
pub(crate) const KEY: &str = "KKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKK";

/// Printed by both programs once they listen.
pub(crate) const READY: &str = "Csync2 daemon running. Waiting for connections.";

/// What a cluster will be. The texts may hold `{NAME}` for a node's host name and `{NAME.tree}` for its tree.
pub(crate) struct Builder {
    cast: Cast,
    names: Vec<String>,
    hosts: Option<String>,
    in_group: String,
    top: String,
    config: Option<String>,
    roles: Vec<(String, Program, Backend)>,
}

impl Builder {
    pub(super) fn new<'a>(cast: Cast, names: impl IntoIterator<Item = &'a str>) -> Self {
        let names = names.into_iter().map(str::to_owned).collect();
        Builder {
            cast,
            names,
            hosts: None,
            in_group: String::new(),
            top: String::new(),
            config: None,
            roles: Vec::new(),
        }
    }

    /// The host list of the group instead of all nodes in their order: `"{alpha} ({beta})"`.
    pub(crate) fn hosts(mut self, hosts: &str) -> Self {
        self.hosts = Some(hosts.into());
        self
    }

    /// More statements of the group.
    pub(crate) fn in_group(mut self, statements: &str) -> Self {
        self.in_group.push_str(statements);
        self
    }

    /// More blocks of the config file, before the group.
    pub(crate) fn top(mut self, blocks: &str) -> Self {
        self.top.push_str(blocks);
        self
    }

    /// This config instead of the usual one (`nossl` is added where the cast has no TLS).
    pub(crate) fn config(mut self, config: &str) -> Self {
        self.config = Some(config.into());
        self
    }

    /// Another program and database for one node than the cast says.
    pub(crate) fn role(mut self, name: &str, program: Program, backend: Backend) -> Self {
        self.roles.push((name.into(), program, backend));
        self
    }

    /// Makes the nodes and starts the daemons of all but the first.
    pub(crate) fn start(self) -> Cluster {
        let cluster = self.build();
        for node in &cluster.nodes[1..] {
            node.serve();
        }
        cluster
    }

    /// Makes the nodes; nobody serves yet.
    pub(crate) fn build(self) -> Cluster {
        let directory = tempfile::Builder::new().prefix("csync2-cluster-").tempdir().expect("make a directory");
        // Ordinary users run nodes in here, too.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let (number, addresses, port) = free_addresses(self.names.len());
        let nodes: Vec<Node> = self
            .names
            .iter()
            .zip(addresses)
            .enumerate()
            .map(|(index, (name, address))| {
                let usual = (if index == 0 { self.cast.client } else { self.cast.server }, self.cast.backend);
                let own = self.roles.iter().find(|role| role.0 == *name).map(|role| (role.1, role.2));
                let (program, backend) = own.unwrap_or(usual);
                let postgres = (backend == Backend::Postgres).then(|| format!("cluster{number}_{name}"));
                Node::new(directory.path().join(name), name, address, port, program, postgres)
            })
            .collect();
        let cluster = Cluster { nodes, directory };
        cluster.configure(&self.config_text());
        for node in &cluster.nodes {
            if self.cast.tls {
                certs::write_new(node.system_dir(), &node.host);
            }
        }
        cluster
    }

    fn config_text(&self) -> String {
        let braced = |suffix: &str, join: &str| {
            self.names.iter().map(|name| join.replace('@', &format!("{{{name}{suffix}}}"))).collect::<String>()
        };
        let hosts = self.hosts.clone().unwrap_or_else(|| braced("", "@ "));
        let group = format!("group demo {{ host {hosts}; key demo.key; include %d%; {} }}\n", self.in_group);
        let on = |name: &String| format!("on {{{name}}}: {{{name}.tree}};");
        let prefix = self.names.iter().map(on).collect::<Vec<_>>().join("\n    ");
        let usual = format!("prefix d {{\n    {prefix}\n}}\n{}\n{group}", self.top);
        let nossl = if self.cast.tls { "" } else { "nossl * *;\n" };
        format!("{nossl}{}", self.config.as_ref().unwrap_or(&usual))
    }
}

/// Some nodes that know each other. Dropping it stops the daemons and removes the directories.
pub(crate) struct Cluster {
    nodes: Vec<Node>,
    directory: TempDir,
}

impl Cluster {
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(super) fn node_mut(&mut self, name: &str) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.name == name).unwrap_or_else(|| panic!("no node {name}"))
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a new config file on every node, with `{NAME}` and `{NAME.tree}` replaced.
    pub(crate) fn configure(&self, text: &str) {
        let text = self.fill_in(text);
        for node in &self.nodes {
            fs::write(node.system_dir().join("csync2.cfg"), &text).expect("write the config");
        }
    }

    /// Writes the config file of one node.
    pub(crate) fn configure_node(&self, name: &str, text: &str) {
        fs::write(self[name].system_dir().join("csync2.cfg"), self.fill_in(text)).expect("write the config");
    }

    /// Writes a key file on every node: the character 64 times.
    pub(crate) fn write_key(&self, file: &str, character: char) {
        self.nodes.iter().for_each(|node| node.write_key(file, character));
    }

    /// Replaces `{NAME}`, `{NAME.tree}`, `{NAME.iface}` (another way to write its address) and `{dir}` (the directory
    /// that holds everything).
    pub(crate) fn fill_in(&self, text: &str) -> String {
        let mut text = text.replace("{dir}", self.directory().to_str().expect("UTF-8"));
        for node in &self.nodes {
            text = text.replace(&format!("{{{}}}", node.name), &node.host);
            text = text.replace(&format!("{{{}.iface}}", node.name), &node.iface());
            text = text.replace(&format!("{{{}.tree}}", node.name), node.tree_dir().to_str().expect("UTF-8"));
        }
        text
    }

    /// All nodes have the same tree, in every attribute that csync2 keeps in step.
    #[track_caller]
    pub(crate) fn expect_agreement(&self) {
        let first = self.nodes[0].tree();
        for node in &self.nodes[1..] {
            assert_same(&first, &node.tree());
        }
    }
}

impl Index<&str> for Cluster {
    type Output = Node;

    fn index(&self, name: &str) -> &Node {
        self.nodes.iter().find(|node| node.name == name).unwrap_or_else(|| panic!("no node {name}"))
    }
}

/// One host: its name, files, state and program.
pub(crate) struct Node {
    name: String,
    /// The host name in the config: an address.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) program: Program,
    pub(crate) database: Database,
    base: PathBuf,
    tree_dir: PathBuf,
    system_dir: PathBuf,
    daemon: RefCell<Option<Daemon>>,
    /// For `-D`, in the place of the database's own.
    detour: RefCell<Option<String>>,
    no_batches: Cell<bool>,
}

impl Node {
    fn new(base: PathBuf, name: &str, host: Ipv4Addr, port: u16, program: Program, postgres: Option<String>) -> Self {
        let host = host.to_string();
        let (tree_dir, system_dir, state_dir) = (base.join("tree"), base.join("etc"), base.join("db"));
        for directory in [&tree_dir, &system_dir, &state_dir] {
            fs::create_dir_all(directory).expect("make a node's directory");
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).expect("chmod");
        }
        let database = match postgres {
            Some(name) => Database::Postgres { name },
            None => Database::Sqlite { file: state_dir.join(format!("{host}.db3")), directory: state_dir },
        };
        let node = Node {
            name: name.into(),
            host,
            port,
            program,
            database,
            base,
            tree_dir,
            system_dir,
            daemon: None.into(),
            detour: None.into(),
            no_batches: false.into(),
        };
        for (file, character) in [("demo.key", 'K'), ("two.key", 'B'), ("three.key", 'C')] {
            node.write_key(file, character);
        }
        node
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its address as one number, which resolvers take as well.
    pub(crate) fn iface(&self) -> String {
        format!("0x{:x}", u32::from(self.host.parse::<Ipv4Addr>().expect("an address")))
    }

    /// Writes a key file: the character 64 times.
    pub(crate) fn write_key(&self, file: &str, character: char) {
        let path = self.system_dir.join(file);
        fs::write(&path, format!("{}\n", character.to_string().repeat(64))).expect("write a key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
    }

    /// The PostgreSQL database's name, if it is one.
    pub(crate) fn database_name(&self) -> Option<&str> {
        match &self.database {
            Database::Postgres { name } => Some(name),
            Database::Sqlite { .. } => None,
        }
    }

    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    pub(crate) fn system_dir(&self) -> &Path {
        &self.system_dir
    }

    pub(crate) fn tree_dir(&self) -> &Path {
        &self.tree_dir
    }

    /// A file of the tree.
    pub(crate) fn path(&self, relative: impl AsRef<[u8]>) -> PathBuf {
        join(&self.tree_dir, relative)
    }

    /// The content of a file of the tree.
    #[track_caller]
    pub(crate) fn read(&self, relative: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.path(relative)).expect(relative)).into_owned()
    }

    pub(crate) fn put(&self, tree: &Tree) {
        tree.write(&self.tree_dir);
    }

    /// Removes a file, or a directory with everything in it.
    #[track_caller]
    pub(crate) fn remove(&self, relative: impl AsRef<[u8]>) {
        let path = self.path(relative);
        if fs::symlink_metadata(&path).expect("lstat").is_dir() {
            fs::remove_dir_all(path).expect("remove a directory");
        } else {
            fs::remove_file(path).expect("remove a file");
        }
    }

    /// Removes everything below the root.
    pub(crate) fn clear(&self) {
        for entry in fs::read_dir(&self.tree_dir).expect("read the tree") {
            self.remove(entry.expect("an entry").file_name().as_encoded_bytes());
        }
    }

    #[track_caller]
    pub(crate) fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).expect("rename");
    }

    /// What is on disk now.
    pub(crate) fn tree(&self) -> Tree {
        Tree::of(&self.tree_dir)
    }

    /// The tree holds exactly these entries and their parents (the attributes of the root are not looked at).
    #[track_caller]
    pub(crate) fn expect(&self, expected: Tree) {
        let tree = self.tree();
        let root = tree.get(".").expect("the root").clone();
        assert_same(&expected.with_parents().with(".", root), &tree);
    }

    #[track_caller]
    pub(crate) fn rows(&self, table: Table) -> Vec<String> {
        self.database.rows(table)
    }

    /// `-M` lists nothing: nothing waits for a peer.
    #[track_caller]
    pub(crate) fn expect_clean(&self) {
        self.csync2(["-M"]).prints("").exits(2);
    }

    /// Runs the node's program to its end.
    #[track_caller]
    pub(crate) fn csync2<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Output {
        run(self.command(self.program, arguments))
    }

    /// Runs either program on this node's state.
    #[track_caller]
    pub(crate) fn csync2_by<A: AsRef<OsStr>>(
        &self,
        program: Program,
        arguments: impl IntoIterator<Item = A>,
    ) -> Output {
        run(self.command(program, arguments))
    }

    /// Runs the node's program with `input` on a pipe as stdin and `SSH_CLIENT` naming `peer`, as over ssh.
    #[track_caller]
    pub(crate) fn csync2_for_pipe(&self, arguments: &[&str], peer: &Node, input: &[u8]) -> Output {
        let mut command = self.command(self.program, arguments);
        command.env("SSH_CLIENT", format!("{} 40000 22", peer.host));
        run_with_input(command, input)
    }

    /// A command line for this node: `-D`, `-N` and `-p`, then the arguments.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, program: Program, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.bare_command(program);
        let database = self.detour.borrow().clone().unwrap_or_else(|| self.database.option());
        command.args(["-D", &database, "-N", &self.host, "-p", &self.port.to_string()]);
        command.args((program == Program::Ours && self.no_batches.get()).then_some("--no-batches"));
        command.args(arguments);
        command
    }

    /// Has ours speak the fork's dialect with its like.
    pub(crate) fn use_no_batches(&self) {
        self.no_batches.set(true);
    }

    /// Has the node's programs reach their database in another way, or use another one.
    pub(crate) fn reach_database_at(&self, url: &str) {
        self.detour.replace(Some(url.to_owned()));
    }

    /// The program in this node's surroundings, without any argument.
    pub(crate) fn bare_command(&self, program: Program) -> Command {
        let mut command = Command::new(program.path());
        command.current_dir(&self.base).env("PWD", &self.base).env("CSYNC2_SYSTEM_DIR", &self.system_dir);
        command.env("LC_ALL", "C").env("TZ", "UTC").env_remove("SSH_CLIENT");
        command
    }

    /// Starts the daemon; returns when it listens.
    pub(crate) fn serve(&self) {
        self.serve_with(&["-ii", "-v"]);
    }

    /// Starts the daemon with other options.
    pub(crate) fn serve_with(&self, arguments: &[&str]) {
        let daemon = Daemon::start(&self.command(self.program, arguments), READY);
        assert!(self.daemon.replace(Some(daemon)).is_none(), "{} serves already", self.name);
    }

    pub(crate) fn serves(&self) -> bool {
        self.daemon.borrow().is_some()
    }

    /// Kills the daemon.
    pub(crate) fn stop(&self) {
        assert!(self.daemon.take().is_some(), "{} does not serve", self.name);
    }

    /// The running daemon.
    pub(crate) fn daemon(&self) -> Ref<'_, Daemon> {
        Ref::map(self.daemon.borrow(), |daemon| daemon.as_ref().expect("the node serves"))
    }

    /// Takes the daemon out, to wait for its end.
    pub(crate) fn take_daemon(&self) -> Daemon {
        self.daemon.take().expect("the node serves")
    }
}

/// Consecutive loopback addresses, their texts of one length, and a port that is free on all of them, below the ports that
/// connections get.
fn free_addresses(count: usize) -> (u32, Vec<Ipv4Addr>, u16) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let first = 0x7f10_0000 + (process::id() * 4096 + number * 16) % 0xe0_0000;
        if first & 0xff < 100 {
            continue;
        }
        let port = 20_000 + u16::try_from((process::id() + number) % 12_000).expect("below 12,000");
        let addresses: Vec<Ipv4Addr> = (first + 1..).take(count).map(Ipv4Addr::from).collect();
        if addresses.iter().all(|address| TcpListener::bind((*address, port)).is_ok()) {
            return (number, addresses, port);
        }
    }
}
