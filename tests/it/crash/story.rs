//! One push that has everything in it, told again and again between two states of a tree, and what must be true whenever
//! it was interrupted.

use std::collections::BTreeSet;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Stdio};
use std::thread;

use super::disk::{Disk, Unflushed, mixed};
use crate::support::cluster::{Cluster, Node};
use crate::support::process::wrap;
use crate::support::tracer::{self, Call, Then};
use crate::support::tree::{Entry, Kind, MTIME, file, join};
use crate::support::{Cast, Table, Tree, dir, fifo, link, tree};

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Victim {
    Client,
    Server,
}

/// alpha pushes to beta, whose sessions are processes of their own, as inetd would start them.
pub(super) struct Story {
    cluster: Cluster,
    /// More options of each push.
    options: Vec<&'static str>,
    /// The server finds no /proc, and so cannot make files that have no name.
    visible: bool,
    /// How often the state was changed.
    turns: usize,
}

impl Story {
    pub(super) fn begin(cast: Cast, options: &[&'static str]) -> Self {
        let group = "backup-directory {dir}/backup; backup-generations 3;
                     action { exec \"printf '%s\\n' %%\"; logfile \"{dir}/ran\"; }";
        let cluster = cast.cluster(["alpha", "beta"]).in_group(group).build();
        Self { cluster, options: options.to_vec(), visible: false, turns: 0 }
    }

    /// From here on files have temporary names while they come.
    pub(super) fn with_visible_files(mut self) -> Self {
        self.visible = true;
        self
    }

    fn alpha(&self) -> &Node {
        &self.cluster["alpha"]
    }

    fn beta(&self) -> &Node {
        &self.cluster["beta"]
    }

    /// Kills the victim at `count` points of the push or, if the environment says so, at another number of them or all. The
    /// last ones may be past the end of a run that has less to do.
    pub(super) fn kill_everywhere(&mut self, victim: Victim, count: usize) {
        self.interrupt_everywhere(victim, count, false);
    }

    /// The same with the victim's power cut, so that what was not flushed may be lost.
    pub(super) fn cut_the_power_everywhere(&mut self, victim: Victim, count: usize) {
        self.interrupt_everywhere(victim, count, true);
    }

    fn interrupt_everywhere(&mut self, victim: Victim, count: usize, power: bool) {
        self.change();
        assert_eq!(self.push(None, |_| Then::GoOn), Some(0));
        let calls = self.calls(victim);
        let points = chosen(&calls, count);
        println!("{victim:?} with {:?}: {} of {} calls", self.options, points.len(), calls.len());
        for point in points {
            self.change();
            println!("{victim:?} killed after call {point} in turn {}", self.turns);
            let before = self.beta().tree();
            let mut disk = power.then(|| self.disk_of(victim));
            let mut passed = 0;
            self.push(Some(victim), |call| {
                if let Some(disk) = &mut disk {
                    disk.watch(call);
                }
                passed += 1;
                if passed > point { Then::Kill } else { Then::GoOn }
            });
            if let Some(disk) = disk {
                self.cut(disk);
            }
            self.is_whole(&before);
            if victim == Victim::Server {
                self.is_remembered();
            }
            self.heals(&before);
        }
    }

    fn disk_of(&self, victim: Victim) -> Disk {
        let of = |node: &Node| vec![node.tree_dir().to_owned(), node.base().join(STATE)];
        Disk::of(match victim {
            Victim::Client => of(self.alpha()),
            Victim::Server => [of(self.beta()), vec![self.cluster.directory().join("backup")]].concat(),
        })
    }

    /// Each time something else is left: nothing that was not flushed, only what happened to the files or to the state
    /// database, or any part.
    fn cut(&self, disk: Disk) {
        let either = Unflushed::Either(mixed(self.turns as u64));
        let (files, state) = match self.turns / 2 % 5 {
            0 => (Unflushed::Lost, Unflushed::Lost),
            1 => (Unflushed::Kept, Unflushed::Lost),
            2 => (Unflushed::Lost, Unflushed::Kept),
            _ => (either, either),
        };
        println!("files {files:?}, state {state:?}");
        disk.cut(|path| if path.components().any(|name| name.as_os_str() == STATE) { state } else { files });
    }

    /// What the victim calls in a push that nobody disturbs: whether each call has an effect outside.
    fn calls(&mut self, victim: Victim) -> Vec<bool> {
        self.change();
        let mut calls = Vec::new();
        let code = self.push(Some(victim), |call| {
            calls.push(call.has_effect());
            Then::GoOn
        });
        assert_eq!(code, Some(0));
        self.cluster.expect_agreement();
        calls
    }

    /// Changes alpha's tree: to the one state or back to the other.
    fn change(&mut self) {
        self.turns += 1;
        let mut state = state(self.turns.is_multiple_of(2));
        if self.visible {
            // Its mode cannot be set without /proc.
            state = state.without("fifo");
        }
        for (name, entry) in self.alpha().tree().without_root().iter() {
            // Removed with its directory, perhaps.
            let is_there = fs::symlink_metadata(self.alpha().path(name)).is_ok();
            if is_there && state.get(name).is_none_or(|new| !new.is_of_the_kind_of(entry)) {
                self.alpha().remove(name);
            }
        }
        self.alpha().put(&state);
        // A second name outside the group: such a file is detached before it changes.
        let other_name = self.beta().base().join("other name");
        fs::remove_file(&other_name).ok();
        fs::hard_link(self.beta().path("touched"), other_name).ok();
        fs::remove_file(self.cluster.directory().join("ran")).ok();
    }

    /// A push, with one of the two followed. The server is there for one connection. The exit code of the client; `None`:
    /// it was killed.
    fn push(&self, followed: Option<Victim>, mut after: impl FnMut(&Call) -> Then + Send) -> Option<i32> {
        let (alpha, beta) = (self.alpha(), self.beta());
        let listener = TcpListener::bind((beta.host.as_str(), beta.port)).expect("listen");
        let mut server = beta.command(beta.program, ["-i"]);
        if self.visible {
            let hide = "mount -t tmpfs csync2-test /proc && exec \"$@\"";
            server = wrap(&["unshare", "-m", "sh", "-c", hide, "sh"], &server);
        }
        let mut client = alpha.command(alpha.program, ["-x"].iter().chain(&self.options));
        match followed {
            Some(Victim::Server) => server = tracer::waiting(&server),
            Some(Victim::Client) => client = tracer::waiting(&client),
            None => {}
        }
        let mut after = Some(&mut after);
        let mut follow_server = after.take_if(|_| followed == Some(Victim::Server));
        thread::scope(|scope| {
            let serving = scope.spawn(move || {
                let mut server = serve(listener, server);
                match follow_server.take() {
                    Some(after) => drop(tracer::follow(server.id(), after)),
                    None => drop(server.wait().expect("wait for the server")),
                }
            });
            let log = fs::File::create(beta.base().join("client's log")).expect("make a log");
            client.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
            let mut client = client.spawn().expect("start the client");
            let code = match after {
                Some(after) if followed == Some(Victim::Client) => tracer::follow(client.id(), after),
                _ => client.wait().expect("wait for the client").code(),
            };
            // It may have had nothing to say, or no time to say it.
            drop(TcpStream::connect((beta.host.as_str(), beta.port)));
            serving.join().expect("the server");
            code
        })
    }

    /// beta has the old or the new version of each file, and nothing else but what an intent names.
    fn is_whole(&self, before: &Tree) {
        let new = self.alpha().tree();
        let temporary = self.temporary();
        let now = self.beta().tree();
        for (name, entry) in now.iter() {
            let is = |other: Option<&Entry>| other.is_some_and(|other| entry.agrees(other));
            // Anything but a regular file gets its attributes when it is there.
            let becomes = |other: Option<&Entry>| {
                !matches!(entry.kind, Kind::File(_)) && other.is_some_and(|other| entry.kind == other.kind)
            };
            let (old, new) = (before.get(name), new.get(name));
            let name_text = name.escape_ascii();
            assert!(
                is(old) || is(new) || becomes(new) || temporary.contains(name),
                "{name_text} is neither old nor new but {entry:?}:\n{old:?}\n{new:?}"
            );
        }
        for (name, old) in before.iter().filter(|(name, _)| now.get(name).is_none()) {
            // What has to go before something else can take its place.
            let may_be_missing = new.get(name).is_none_or(|new| !new.is_of_the_kind_of(old));
            assert!(may_be_missing, "{} is missing", name.escape_ascii());
        }
    }

    /// The temporary names that intents of beta tell.
    fn temporary(&self) -> BTreeSet<Vec<u8>> {
        let intents = self.beta().database.rows_if_any([Table::Intent]).unwrap_or_default().concat();
        let name = |intent: &String| {
            let (path, temporary) = intent.split_once('\t').expect("two columns");
            let directory = &path[..=path.rfind('/')?];
            Some(format!("{directory}{temporary}").strip_prefix("%25d%25/")?.into())
        };
        intents.iter().filter_map(name).collect()
    }

    /// What beta does not have is dirty at alpha.
    fn is_remembered(&self) {
        let (dirty, temporary) = (self.alpha().rows(Table::Dirty), self.temporary());
        let differences = differences(&self.alpha().tree(), &self.beta().tree());
        for name in differences.into_iter().filter(|name| !temporary.contains(name)) {
            let row = format!("%25d%25/{}\t", String::from_utf8_lossy(&name));
            assert!(dirty.iter().any(|dirty| dirty.starts_with(&row)), "{row} is forgotten: {dirty:?}");
        }
    }

    /// The next runs complete it, see no change of beta's own, and leave nothing behind.
    fn heals(&self, before: &Tree) {
        let (alpha, beta) = (self.alpha(), self.beta());
        if self.turns % 4 < 2 {
            // Else the next session finds out what happened.
            beta.csync2(["-crv", "/"]).success().logs_no("Marking");
            beta.expect_clean();
        }
        let code = self.push(None, |_| Then::GoOn);
        let log = fs::read_to_string(beta.base().join("client's log")).expect("read the log");
        assert_eq!((code, log.as_str()), (Some(0), ""));
        self.cluster.expect_agreement();
        alpha.expect_clean();
        beta.csync2(["-crv", "/"]).success().logs_no("Marking");
        beta.expect_clean();
        assert!(beta.rows(Table::Intent).is_empty());
        let new = alpha.tree();
        let ran = fs::read_to_string(self.cluster.directory().join("ran")).unwrap_or_default();
        let changed = differences(before, &new);
        for name in changed.iter().filter(|name| !name.ends_with(b"touched")) {
            let path = beta.path(name).display().to_string();
            assert!(ran.lines().any(|line| line == path), "no action for {path}:\n{ran}");
        }
        self.is_backed_up(before, &changed);
    }

    /// A copy of each old content, and nothing half of one.
    fn is_backed_up(&self, before: &Tree, changed: &[Vec<u8>]) {
        let backups = self.cluster.directory().join("backup");
        let of = |name: &[u8]| join(&backups, &self.beta().path(name).as_os_str().as_bytes()[1..]);
        for name in changed {
            let Some(Kind::File(old)) = before.get(name).map(|old| &old.kind) else { continue };
            let copies = (0..4).map(|number| match number {
                0 => of(name),
                number => of(&[name, format!(".{number}").as_bytes()].concat()),
            });
            let is_kept = copies.filter_map(|copy| fs::read(copy).ok()).any(|copy| copy == *old);
            assert!(is_kept || name.ends_with(b"touched"), "no copy of {}", name.escape_ascii());
        }
        for (name, _) in Tree::of(&backups).iter() {
            let own = name.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
            // No intent tells of files outside of the groups.
            let is_copy = !own.starts_with(b".") || own == b"." || own.starts_with(LOOKALIKE.as_bytes());
            assert!(is_copy || self.visible, "{} is left", name.escape_ascii());
        }
    }
}

fn serve(listener: TcpListener, mut server: Command) -> Child {
    let socket = OwnedFd::from(listener.accept().expect("accept").0);
    drop(listener);
    let output = socket.try_clone().expect("dup");
    server.stdin(socket).stdout(output).stderr(Stdio::null()).spawn().expect("start the server")
}

/// The names of entries that are not the same in both.
fn differences(one: &Tree, other: &Tree) -> Vec<Vec<u8>> {
    let names: BTreeSet<&[u8]> = one.iter().chain(other.iter()).map(|(name, _)| name).collect();
    let differs = |name: &&[u8]| !one.get(name).zip(other.get(name)).is_some_and(|(one, other)| one.agrees(other));
    names.into_iter().filter(differs).map(<[u8]>::to_vec).collect()
}

/// Which calls of a run to kill behind, in order.
fn chosen(calls: &[bool], count: usize) -> Vec<usize> {
    let number = |name| std::env::var(name).ok();
    let effective: Vec<usize> = (0..calls.len()).filter(|&call| calls[call]).collect();
    let count = match number("CSYNC2_CRASH_POINTS").as_deref() {
        // Behind the other calls all is as behind the one before.
        Some("all") => return effective,
        Some(text) => text.parse().expect("CSYNC2_CRASH_POINTS: a number or all"),
        None => count,
    };
    let seed: usize = number("CSYNC2_CRASH_SEED").map_or(1, |text| text.parse().expect("CSYNC2_CRASH_SEED: a number"));
    // One in each of as many equal parts.
    let part = effective.len().div_ceil(count);
    let parts = effective.chunks(part).enumerate();
    parts.map(|(number, part)| part[(number + 1).wrapping_mul(seed).wrapping_mul(2_654_435_761) % part.len()]).collect()
}

/// The directory of a node's state database.
const STATE: &str = "db";

/// A user's file that might be a temporary one.
const LOOKALIKE: &str = ".changes.abcdef";

/// One of the two states between which the story goes back and forth: each way something comes, goes, changes and becomes
/// something else.
fn state(second: bool) -> Tree {
    let large = |version: &str| {
        let line = |number: usize| format!("{number} {}\n", if number % 1000 == 500 { version } else { "the same" });
        (0..15_000).map(line).collect::<String>()
    };
    let always = tree! { "stays" => "in both", LOOKALIKE => "not a temporary file", "d" => dir(), "d/f" => "1" };
    if second {
        always
            .with("changes", "another content")
            .with("large", large("second"))
            .with("touched", file("the same").mtime(MTIME + 7))
            .with("mode", file("the same content").mode(0o600))
            .with("link", link("changes"))
            .with("file-or-directory", dir().mode(0o750))
            .with("file-or-directory/f", "content")
            .with("directory-or-link", link("d"))
            .with("only-here/deep/f", "comes and goes")
            .with("second", "one")
    } else {
        always
            .with("changes", "one content")
            .with("large", large("first"))
            .with("touched", file("the same").mtime(MTIME))
            .with("mode", file("the same content").mode(0o644))
            .with("link", link("stays"))
            .with("file-or-directory", "a file")
            .with("directory-or-link/f", "content")
            .with("fifo", fifo())
            .with("first/f", "goes and comes")
    }
}
