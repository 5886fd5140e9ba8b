//! Pushes to a peer that is made for tests: what is sent, which rows go, and what is reported.

mod conflicts;
mod many;
mod names;
mod peer;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::peer::{Act, Cut, Peer, Shared};
use super::exchange::Exchange;
use super::plan::{Dirty, Paths};
use super::{Common, Outcome, Prospect, session};
use crate::config::reference::Scratch;
use crate::config::{Config, Selection, Source};
use crate::engine::check::{self, CheckOptions};
use crate::engine::contact::Dialect;
use crate::engine::selection::Target;
use crate::engine::tally::PeerTally;
use crate::engine::{Node, Place, Report, recover};
use crate::model::checktxt::MtimeUnit;
use crate::model::{Checktxt, DirtyEntry, Mark, Scope, SyncPath};
use crate::store::{Change, DirtyFilter, Location, Store, StoreOptions};

const ALSO_DIRTY: &str = "File is also marked dirty here!\n";
const DENIED: &str = "Permission denied!\n";

/// This host, `h`, with files and a database of its own.
struct Home {
    scratch: Scratch,
    node: Arc<Node>,
    dialect: Dialect,
    stop: CancellationToken,
}

impl Home {
    async fn new() -> Self {
        Self::with("include %d%;").await
    }

    /// With these statements in the group.
    async fn with(statements: &str) -> Self {
        let config = |tree: &str| {
            format!(
                "prefix d {{ on *: {tree}; }}\nprefix sub {{ on *: {tree}/sub; }}\n\
                 group g {{ host p h q; key k; {statements} }}\n\
                 group also {{ host h@other p; key k; include %d%/other; }}\n"
            )
        };
        Self::configured(config, 0).await
    }

    /// With a configuration that knows where the tree is; peers listen on this port.
    async fn configured(config: impl FnOnce(&str) -> String, port: u16) -> Self {
        let scratch = Scratch::new();
        let tree = scratch.path("tree");
        fs::create_dir(&tree).unwrap();
        scratch.write("csync2.cfg", config(tree.to_str().unwrap()));
        let source = Source { system_dir: scratch.root(), config_name: String::new() };
        let config = Config::load(&source, &Selection { my_name: "h".into(), groups: None }).unwrap();
        let location = Location::Sqlite(scratch.path("state.db3"));
        let store = Store::open(&location, &StoreOptions::default()).await.unwrap();
        let place = Place { system_dir: scratch.root(), config_name: String::new(), groups: None, bind: None, port };
        Self {
            node: Arc::new(Node::new(Arc::new(config), store, place)),
            scratch,
            dialect: Dialect::Upstream,
            stop: CancellationToken::new(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path("tree").join(name)
    }

    /// Makes files: a name that ends in `/` is a directory, one that ends in `|` a FIFO, one with `->` a link.
    fn put(&self, names: &[&str]) {
        for name in names {
            if let Some(directory) = name.strip_suffix('/') {
                fs::create_dir_all(self.path(directory)).unwrap();
            } else if let Some(fifo) = name.strip_suffix('|') {
                let mode = rustix::fs::Mode::RWXU;
                rustix::fs::mknodat(rustix::fs::CWD, self.path(fifo), rustix::fs::FileType::Fifo, mode, 0).unwrap();
            } else if let Some((link, target)) = name.split_once("->") {
                symlink(target, self.path(link)).unwrap();
            } else {
                fs::write(self.path(name), format!("the content of {name}")).unwrap();
            }
        }
    }

    async fn mark(&self, names: &[&str], forced: bool) {
        let marks = names.iter().map(|name| Mark {
            path: sync(name),
            my_name: if name.starts_with("other") { "other".into() } else { "h".into() },
            peer: "p".into(),
            forced,
        });
        self.node.store.mark(marks.collect(), Vec::new()).await.unwrap();
    }

    /// Puts files into the file table.
    async fn know(&self, names: &[&str]) {
        let record = |name: &&str| {
            let metadata = crate::fs::metadata(&self.path(name)).unwrap();
            let record = self.node.record(sync(name), &metadata, None);
            Change { path: sync(name), expected: None, record: Some(record), marks: Vec::new(), actions: Vec::new() }
        };
        self.node.store.apply(names.iter().map(record).collect()).await.unwrap();
    }

    async fn rows(&self) -> Vec<DirtyEntry> {
        self.node.store.dirty(rows_of_p()).await.unwrap()
    }

    /// The names that are dirty, without `%d%/`.
    async fn dirty(&self) -> Vec<String> {
        self.rows().await.iter().map(|row| short(&row.path.to_string())).collect()
    }

    async fn update(&self, peer: Peer) -> (Outcome, Shared) {
        self.run(peer, false).await
    }

    async fn run(&self, peer: Peer, dry_run: bool) -> (Outcome, Shared) {
        let (peer, connection) = peer.serve();
        let mut outcome = Outcome::default();
        let exchange = Exchange::start(connection, self.dialect, Arc::new(PeerTally::of("p")));
        let run = Arc::new(Common {
            node: Arc::clone(&self.node),
            // So little that most is planned in several parts.
            room: 3,
            dry_run,
            without_removals: false,
            holder: recover::holder(),
            contents: Arc::default(),
            paths: Paths::for_peers(1),
            stop: self.stop.clone(),
            tally: Arc::default(),
        });
        let dirty = Dirty::read(&self.node, rows_of_p(), &run.paths, &mut Report::default()).await.unwrap();
        session::converse(&run, "p", exchange, dirty.names, &mut outcome).await;
        (outcome, peer)
    }
}

fn rows_of_p() -> DirtyFilter {
    DirtyFilter { peer: Some("p".into()), scopes: vec![Scope::All] }
}

/// A name below the tree; one that has a prefix is left as it is.
fn sync(name: &str) -> SyncPath {
    let name = if name.starts_with('%') {
        name.to_owned()
    } else if name.is_empty() {
        "%d%".to_owned()
    } else {
        format!("%d%/{name}")
    };
    SyncPath::parse(name.as_bytes()).unwrap()
}

fn short(name: &str) -> String {
    name.trim_start_matches("%d%").trim_start_matches('/').to_owned()
}

fn locked(peer: &Shared) -> MutexGuard<'_, Peer> {
    peer.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the peer heard, without `%d%/`, HELLO and BYE.
fn heard(peer: &Shared) -> Vec<String> {
    let heard = locked(peer).heard.clone();
    let files = heard.iter().filter(|line| !line.starts_with("HELLO") && !line.starts_with("BYE"));
    files.map(|line| line.replace("%d%/", "")).collect()
}

fn count(peer: &Shared, line: &str) -> usize {
    heard(peer).iter().filter(|heard| *heard == line).count()
}

#[tokio::test]
async fn directories_come_first_and_their_times_last() {
    let home = Home::new().await;
    home.put(&["d/", "d/f", "d/l->f"]);
    home.mark(&["d", "d/f", "d/l"], false).await;
    let (outcome, peer) = home.update(Peer::new(&["%d%"])).await;
    assert_eq!(outcome.report.errors, 0);
    assert_eq!(
        heard(&peer),
        [
            "SIG d",
            "MKDIR d",
            "SETOWN d",
            "SETMOD d",
            "SIG d/f",
            "SIG d/l",
            "PATCH d/f",
            "DELTA d/f",
            "SETOWN d/f",
            "SETMOD d/f",
            "SETIME d/f",
            "MKLINK d/l",
            "SETOWN d/l",
            "SETIME d"
        ]
    );
    assert_eq!(home.dirty().await, [""; 0]);
}

#[tokio::test]
async fn the_second_dialect_sends_attributes_along() {
    let mut home = Home::new().await;
    home.dialect = Dialect::Atomic;
    home.put(&["d/", "d/f"]);
    home.mark(&["d", "d/f"], false).await;
    let (_, peer) = home.update(Peer::new(&["%d%"])).await;
    let expected = ["SIG d", "MKDIR d", "SETOWN d", "SETMOD d", "SIG d/f", "ATOMICPATCH d/f", "DELTA d/f", "SETIME d"];
    assert_eq!(heard(&peer), expected);
    assert_eq!(home.dirty().await, [""; 0]);
}

#[tokio::test]
async fn nothing_is_sent_between_a_patch_and_its_delta() {
    let home = Home::new().await;
    home.put(&["equal", "a", "b"]);
    home.mark(&["a", "b", "equal"], false).await;
    let mut peer = Peer::new(&["%d%", "%d%/equal"]);
    let metadata = crate::fs::metadata(&home.path("equal")).unwrap();
    peer.checktxt = Checktxt::of(&metadata, home.node.config.ignore, MtimeUnit::Zero).to_string();
    peer.signature = Vec::new();
    crate::delta::signature(&mut &b"the content of equal"[..], &mut peer.signature).unwrap();
    let (outcome, peer) = home.update(peer).await;
    assert_eq!(outcome.report.errors, 0);
    assert_eq!((count(&peer, "PATCH equal"), count(&peer, "SETIME equal")), (0, 1));
    assert_eq!(home.dirty().await, [""; 0]);
}

#[tokio::test]
async fn removals_go_from_the_bottom_and_wait_for_deeper_entries() {
    let home = Home::with("include %d%; auto first;").await;
    home.mark(&["d", "d/e", "d/e/f", "d/g"], false).await;
    let mut disputed = false;
    let peer = Peer::new(&["%d%", "%d%/d", "%d%/d/e", "%d%/d/e/f", "%d%/d/g"]).scripted(move |command, name| {
        let refused = command == "DEL" && name == "%d%/d/e/f" && !std::mem::replace(&mut disputed, true);
        if refused { Act::Say(ALSO_DIRTY.into()) } else { Act::Normally }
    });
    let (outcome, peer) = home.update(peer).await;
    assert_eq!(outcome.report.errors, 0, "{:?}", heard(&peer));
    assert_eq!(locked(&peer).names.len(), 1);
    assert_eq!(home.dirty().await, [""; 0]);
}

#[tokio::test]
async fn a_directory_stays_when_something_in_it_must_stay() {
    let home = Home::new().await;
    home.mark(&["d", "d/e", "d/e/f", "gone"], false).await;
    let peer = Peer::new(&["%d%", "%d%/d", "%d%/d/e", "%d%/d/e/f", "%d%/gone"]).scripted(|command, name| {
        if command == "DEL" && name.ends_with('f') { Act::Say(DENIED.into()) } else { Act::Normally }
    });
    let (outcome, peer) = home.update(peer).await;
    assert_eq!(outcome.report.errors, 1);
    assert_eq!((count(&peer, "DEL d"), count(&peer, "DEL gone")), (0, 1));
    assert_eq!(home.dirty().await, ["d", "d/e", "d/e/f"]);
}

#[tokio::test]
async fn what_is_not_there_needs_no_removal() {
    let home = Home::new().await;
    home.mark(&["a", "file/below", "none/below"], false).await;
    let peer = Peer::new(&["%d%", "%d%/file"])
        .scripted(|_, name| if name.contains("file/") { Act::Say("Not a directory\n".into()) } else { Act::Normally });
    let (outcome, _) = home.update(peer).await;
    assert_eq!(outcome.report.errors, 0);
    assert_eq!(home.dirty().await, [""; 0]);
}

#[tokio::test]
async fn a_refused_directory_costs_what_is_in_it_and_is_reported_once() {
    let home = Home::new().await;
    home.put(&["d/e/", "d/f", "d/e/g", "z"]);
    home.mark(&["d", "d/e", "d/e/g", "d/f", "z"], false).await;
    let peer = Peer::new(&["%d%"]).scripted(|command, name| {
        if command == "MKDIR" && name == "%d%/d" { Act::Say(DENIED.into()) } else { Act::Normally }
    });
    let (outcome, _) = home.update(peer).await;
    assert_eq!(outcome.report.errors, 1);
    assert_eq!(home.dirty().await, ["d", "d/e", "d/e/g", "d/f"]);
}

#[tokio::test]
async fn a_missing_directory_is_made_with_what_is_known_in_it() {
    for forced in [false, true] {
        let home = Home::new().await;
        home.put(&["d/e/", "d/e/f", "d/e/g", "d/h", "d/unknown"]);
        home.know(&["d", "d/e", "d/e/f", "d/e/g", "d/h"]).await;
        home.mark(&["d/e/f"], forced).await;
        let (outcome, peer) = home.update(Peer::new(&["%d%"])).await;
        assert_eq!(outcome.report.errors, 0, "{:?}", heard(&peer));
        let made = ["%d%", "%d%/d", "%d%/d/e", "%d%/d/e/f", "%d%/d/e/g", "%d%/d/h"];
        assert!(locked(&peer).names.iter().eq(made), "{:?}", heard(&peer));
        assert_eq!(home.dirty().await, [""; 0]);
    }
}

#[tokio::test]
async fn what_there_was_no_room_for_is_looked_at_when_its_turn_comes() {
    let home = Home::new().await;
    let files = ["d/a", "d/b", "d/c", "d/e", "d/f", "d/g", "x", "y/1", "y/2", "y/3", "y/4"];
    home.put(&["d/", "y/"]);
    home.put(&files);
    home.know(&["d", "y"]).await;
    home.know(&files).await;
    home.mark(&files, false).await;
    home.mark(&["y"], false).await;
    let directory = home.path("y");
    let there = ["%d%", "%d%/y", "%d%/y/1", "%d%/y/2", "%d%/y/3", "%d%/y/4"];
    let peer = Peer::new(&there).scripted(move |command, name| {
        if command == "PATCH" && name.ends_with('c') {
            fs::remove_dir_all(&directory).unwrap();
            fs::write(&directory, "a file").unwrap();
        }
        Act::Normally
    });
    let (outcome, peer) = home.update(peer).await;
    assert_eq!(outcome.report.errors, 0, "{:?}", heard(&peer));
    let made = ["", "/d", "/d/a", "/d/b", "/d/c", "/d/e", "/d/f", "/d/g", "/x", "/y"].map(|name| format!("%d%{name}"));
    assert!(locked(&peer).names.iter().eq(&made), "{:?}", heard(&peer));
    assert!(files[..7].iter().all(|name| count(&peer, &format!("DELTA {name}")) == 1), "{:?}", heard(&peer));
    assert_eq!((count(&peer, "MKDIR d"), count(&peer, "DELTA y")), (1, 1));
    assert_eq!(heard(&peer).last().unwrap(), "SETIME d");
    assert_eq!(home.dirty().await, [""; 0]);
}

#[tokio::test]
async fn a_forced_directory_whose_parent_is_missing_is_sent_once() {
    let home = Home::new().await;
    home.put(&["d/e/"]);
    home.know(&["d", "d/e"]).await;
    home.mark(&["d/e"], true).await;
    let (outcome, peer) = home.update(Peer::new(&["%d%"])).await;
    assert_eq!(outcome.report.errors, 0);
    assert_eq!((count(&peer, "MKDIR d/e"), count(&peer, "MKDIR d")), (2, 1), "refused, then made");
    assert_eq!(home.dirty().await, [""; 0]);
}

#[tokio::test]
async fn a_directory_that_is_none_of_ours_is_missed_once() {
    let home = Home::with("include %d%/d/f %d%/d/g %d%/z;").await;
    home.put(&["d/", "d/f", "d/g", "z"]);
    home.mark(&["d/f", "d/g", "z"], false).await;
    let (outcome, peer) = home.update(Peer::new(&["%d%"])).await;
    assert_eq!(outcome.report.errors, 1);
    assert_eq!(count(&peer, "SIG d"), 0);
    assert_eq!(home.dirty().await, ["d/f", "d/g"]);
}

#[tokio::test]
async fn a_delta_that_is_refused_leaves_the_row() {
    let home = Home::new().await;
    home.put(&["a", "b"]);
    home.mark(&["a", "b"], false).await;
    let peer = Peer::new(&["%d%"]).scripted(|command, name| match (command, name) {
        ("DELTA", "%d%/a") => Act::Say("No space left on device\n".into()),
        _ => Act::Normally,
    });
    let (outcome, _) = home.update(peer).await;
    assert_eq!(outcome.report.errors, 1);
    assert_eq!(home.dirty().await, ["a"]);
}

#[tokio::test]
async fn a_file_that_vanishes_before_its_delta_is_left_for_later() {
    let home = Home::new().await;
    home.put(&["a", "b", "c"]);
    home.mark(&["a", "b", "c"], false).await;
    let (a, b) = (home.path("a"), home.path("b"));
    let peer = Peer::new(&["%d%"]).scripted(move |command, name| {
        match (command, name) {
            ("PATCH", "%d%/a") => fs::remove_file(&a).unwrap(),
            ("PATCH", "%d%/b") => fs::remove_file(&b).and_then(|()| fs::create_dir(&b)).unwrap(),
            _ => {}
        }
        Act::Normally
    });
    let (outcome, peer) = home.update(peer).await;
    assert_eq!(outcome.report.errors, 2);
    assert_eq!((count(&peer, "NO-DELTA a"), count(&peer, "NO-DELTA b"), count(&peer, "DELTA c")), (1, 1, 1));
    assert_eq!(home.dirty().await, ["a", "b"]);
}

// The script waits for the store: that needs a thread of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_marked_again_while_it_is_sent_stays_dirty() {
    let home = Home::new().await;
    home.put(&["a", "b"]);
    home.mark(&["a", "b"], false).await;
    let (store, runtime) = (home.node.store.clone(), tokio::runtime::Handle::current());
    let peer = Peer::new(&["%d%"]).scripted(move |command, name| {
        if (command, name) == ("DELTA", "%d%/a") {
            let mark = Mark { path: sync("a"), my_name: "h".into(), peer: "p".into(), forced: false };
            tokio::task::block_in_place(|| runtime.block_on(store.mark(vec![mark], Vec::new()))).unwrap();
        }
        Act::Normally
    });
    let (outcome, _) = home.update(peer).await;
    assert_eq!(outcome.report.errors, 0);
    assert_eq!(home.dirty().await, ["a"]);
}

/// What a peer got is not what the row says, and then the file is again as the row says, to the last bit.
#[tokio::test]
async fn a_file_that_was_away_while_it_was_pushed_is_found_again() {
    let home = Home::new().await;
    home.put(&["d/", "d/e/", "d/f", "d/l->target"]);
    let names = ["d/e", "d/f", "d/l"];
    home.know(&["", "d", "d/e", "d/f", "d/l"]).await;
    home.mark(&names, false).await;
    fs::rename(home.path("d"), home.scratch.path("away")).unwrap();
    home.put(&["d/"]);
    let (outcome, peer) = home.update(Peer::new(&["%d%", "%d%/d", "%d%/d/e", "%d%/d/f", "%d%/d/l"])).await;
    assert_eq!((outcome.report.errors, home.dirty().await.len()), (0, 0));
    assert_eq!((count(&peer, "DEL d/f"), count(&peer, "DEL d/l")), (1, 1));
    fs::remove_dir(home.path("d")).unwrap();
    fs::rename(home.scratch.path("away"), home.path("d")).unwrap();
    let everything = [Target::everything()];
    check::check(&home.node, &everything, CheckOptions::default(), None, &Arc::default(), &home.stop).await.unwrap();
    assert_eq!(home.dirty().await, names);
    let peer = Peer::new(&["%d%", "%d%/d"]);
    assert_eq!(home.update(peer).await.0.report.errors, 0);
    check::check(&home.node, &everything, CheckOptions::default(), None, &Arc::default(), &home.stop).await.unwrap();
    assert_eq!(home.dirty().await, [""; 0]);
}

/// A check had found it removed; it was there again when it was pushed, and goes before any check sees it.
#[tokio::test]
async fn a_file_without_a_row_that_was_pushed_is_missed_when_it_is_gone() {
    let home = Home::new().await;
    home.put(&["a", "b"]);
    home.know(&["", "b"]).await;
    home.mark(&["a"], false).await;
    assert_eq!(home.update(Peer::new(&["%d%", "%d%/b"])).await.0.report.errors, 0);
    assert_eq!(home.dirty().await, [""; 0]);
    fs::remove_file(home.path("a")).unwrap();
    let everything = [Target::everything()];
    check::check(&home.node, &everything, CheckOptions::default(), None, &Arc::default(), &home.stop).await.unwrap();
    assert!(home.dirty().await.contains(&"a".to_owned()), "{:?}", home.dirty().await);
}

#[tokio::test]
async fn a_name_too_long_for_a_line_costs_that_file_only() {
    let home = Home::new().await;
    let target = "\u{1}".repeat(4_095);
    let deep: Vec<String> = (1..=8).map(|depth| vec!["\u{2}".repeat(200); depth].join("/")).collect();
    let (link, longer) = (format!("{}/link", deep[7]), format!("{}/longer", deep[7]));
    home.put(&[&format!("{}/", deep[7]), "z"]);
    symlink(&target, home.path(&link)).unwrap();
    symlink(&target, home.path(&longer)).unwrap();
    home.mark(&[&link, &longer, "z"], false).await;
    let directories: Vec<String> = deep.iter().map(|name| format!("%d%/{name}")).collect();
    let names: Vec<&str> = directories.iter().map(String::as_str).chain(["%d%"]).collect();
    let (outcome, peer) = home.update(Peer::new(&names)).await;
    assert_eq!(outcome.report.errors, 2);
    assert_eq!(count(&peer, "DELTA z"), 1);
    assert_eq!(home.dirty().await.len(), 2);
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_lists_everything_once() {
    let home = Home::new().await;
    home.put(&["d/e/", "d/e/f", "forced", "here"]);
    home.know(&["d", "d/e", "d/e/f", "forced", "here"]).await;
    home.mark(&["d/e/f", "gone", "here", "missed/gone"], false).await;
    home.mark(&["forced"], true).await;
    let before = home.rows().await;
    let (outcome, peer) = home.run(Peer::new(&["%d%", "%d%/gone", "%d%/here"]), true).await;
    let lines: Vec<_> = outcome.forecasts.iter().map(|line| (line.prospect, line.path.to_string())).collect();
    let expected = [
        (Prospect::InSync, "missed/gone"),
        (Prospect::Delete, "gone"),
        (Prospect::Modify, "d"),
        (Prospect::Modify, "d/e"),
        (Prospect::Modify, "d/e/f"),
        (Prospect::Modify, "forced"),
        (Prospect::Modify, "here"),
    ];
    assert_eq!(lines, expected.map(|(prospect, name)| (prospect, format!("%d%/{name}"))));
    assert!(heard(&peer).iter().all(|line| line.starts_with("SIG ")), "{:?}", heard(&peer));
    assert_eq!((home.rows().await, outcome.report.errors), (before, 0));
}

#[tokio::test]
async fn a_name_that_is_not_accepted_costs_its_own_files() {
    let home = Home::new().await;
    home.put(&["other", "f"]);
    home.mark(&["other", "f"], false).await;
    let peer = Peer::new(&["%d%"]).scripted(|command, name| {
        if (command, name) == ("HELLO", "h") { Act::Say("Identification failed!\n".into()) } else { Act::Normally }
    });
    let (outcome, peer) = home.update(peer).await;
    assert_eq!(outcome.report.errors, 1);
    assert_eq!((count(&peer, "SIG f"), count(&peer, "DELTA other")), (0, 1));
    assert_eq!(home.dirty().await, ["f"]);
}

#[tokio::test]
async fn what_was_confirmed_is_cleared_wherever_the_connection_breaks() {
    let names = ["", "d", "d/e", "d/f", "d/l", "gone", "gone/below", "z"];
    let prepare = async || {
        let home = Home::new().await;
        home.put(&["d/e/", "d/f", "d/l->f", "z"]);
        home.mark(&names, false).await;
        home
    };
    let peer = || Peer::new(&["%d%", "%d%/gone", "%d%/gone/below"]);
    let (outcome, whole) = prepare().await.update(peer()).await;
    assert_eq!(outcome.report.errors, 0);
    let answers = locked(&whole).heard.clone();
    for at in 0..answers.len() {
        for cut in [Cut::Before, Cut::InTheMiddle] {
            let home = prepare().await;
            let mut peer = peer();
            peer.cut = Some((at, cut));
            let (outcome, _) = home.update(peer).await;
            // A file is confirmed by the last answer about it.
            let unconfirmed = |name: &&str| {
                let about = format!(" {}", sync(name));
                answers[at..].iter().any(|line| line.ends_with(&about))
            };
            let left: Vec<&str> = names.into_iter().filter(unconfirmed).collect();
            assert_eq!(home.dirty().await, left, "{cut:?} {at}: {}", answers[at]);
            assert_eq!(outcome.report.errors, 1, "{cut:?} {at}: {}", answers[at]);
        }
    }
}

#[tokio::test]
async fn nonsense_ends_the_session_and_keeps_the_rows() {
    for nonsense in [
        "\n",
        "OK (data_follows).\nv1\nno stream\n",
        "OK (data_follows).\nv1\noctet-stream 99999999999999999999\n",
        "OK (data_follows).\nv1\noctet-stream -1\nno end\n",
        "OK (cmd_finished).\n",
        "OK (send_data).\nOK (send_data).\nOK (send_data).\n",
        "a line\nand another one\n",
    ] {
        for command in ["SIG", "PATCH", "DELTA", "SETIME", "FLUSH", "GETTM"] {
            let home = Home::with("include %d%; auto younger;").await;
            home.put(&["f"]);
            home.mark(&["f"], command == "FLUSH").await;
            let mut peer = Peer::new(&["%d%"]).scripted(move |asked, _| match asked {
                "PATCH" if command == "GETTM" => Act::Say(ALSO_DIRTY.into()),
                asked if asked == command => Act::Say(nonsense.into()),
                _ => Act::Normally,
            });
            // Where each side takes it to be the other's turn, the client's patience ends it.
            peer.patience = Duration::from_millis(50);
            let (outcome, _) = home.update(peer).await;
            let dirty = home.dirty().await;
            assert!(dirty.is_empty() || outcome.report.errors > 0, "{command} {nonsense:?}: {dirty:?}");
        }
    }
}
