//! The two dialects of the protocol from the client's side, and times in either unit: around zero, in the far past and
//! the far future.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use crate::support::cluster::Node;
use crate::support::tree::file;
use crate::support::{Cast, Program, Tree, dir, fifo, scenarios, tree};

scenarios! { tls:
    times_of_all_ages_arrive
    a_conflict_is_decided_in_the_unit_of_the_dialect
}

/// Seconds and nanoseconds, within what ext4 can keep; neighbours differ in seconds, or it would be no change.
const TIMES: [(i64, i64); 11] = [
    (0, 0),
    (1, 0),
    (-1, 0),
    (0, 1),
    (-1, 500_000_000),
    (-100_000, 0),
    (-1, 999_999_999),
    (-2_147_483_647, 0),
    (1_600_000_000, 999_999_999),
    (4_294_967_296, 0),
    (8_600_000_000, 123_456_789),
];

fn set_time(path: &Path, (tv_sec, tv_nsec): (i64, i64)) {
    let time = Timespec { tv_sec, tv_nsec };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("set a time");
}

fn time(path: &Path) -> (i64, i64) {
    let metadata = path.symlink_metadata().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (metadata.mtime(), metadata.mtime_nsec())
}

fn times_of_all_ages_arrive(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let mut tree = Tree::new();
    for number in 0..TIMES.len() {
        tree = tree.with(format!("file{number}"), "x".repeat(number)).with(format!("fifo{number}"), fifo());
        tree = tree.with(format!("dir{number}"), dir());
    }
    alpha.put(&tree);
    // The second round finds equal contents: only the times are sent. Those of directories alone are no change.
    for (round, kinds) in [(0, &["file", "fifo", "dir"][..]), (1, &["file", "fifo"])] {
        let rotated = TIMES.iter().cycle().skip(round).take(TIMES.len());
        for (number, &expected) in rotated.clone().enumerate() {
            for kind in kinds {
                set_time(&alpha.path(format!("{kind}{number}")), expected);
            }
        }
        alpha.csync2(["-x"]).success().silent();
        for (number, &(seconds, nanoseconds)) in rotated.enumerate() {
            for kind in kinds {
                let name = format!("{kind}{number}");
                let expected = (seconds, if cast.all_ours() { nanoseconds } else { 0 });
                assert_eq!(time(&beta.path(&name)), expected, "{name} in round {round}");
                assert_eq!(time(&alpha.path(&name)), (seconds, nanoseconds), "{name}");
            }
        }
        alpha.csync2(["-xv"]).success().logs_no("Marking").logs_no("Connecting");
        beta.csync2(["-crv", "/"]).success().logs_no("Marking");
        // Both lists mean the same times, whichever unit they are in.
        alpha.csync2(["-T"]).exits(2).prints("");
    }
}

/// Half a second counts only where nanoseconds are spoken, and -1 is a time only there: in seconds it is the answer for a
/// file that is missing.
fn a_conflict_is_decided_in_the_unit_of_the_dialect(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).in_group("auto younger;").start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let fine = cast.all_ours();
    let cases = [
        ("half a second", (1_200_000_000, 600_000_000), (1_200_000_000, 500_000_000), fine),
        // Where only seconds are spoken, it is the second before 1970: -1.
        ("half a second before 1970", (-1, 600_000_000), (-1, 500_000_000), true),
        ("minus one", (-10, 0), (-1, 0), !fine),
        ("zero", (0, 0), (-2, 0), true),
        ("older", (-3, 0), (-2, 0), false),
    ];
    let all = |content: &str| cases.iter().fold(Tree::new(), |tree, case| tree.with(case.0, file(content)));
    alpha.put(&all("common"));
    alpha.csync2(["-x"]).success();
    for (node, content) in [(alpha, "alpha's own"), (beta, "what beta has")] {
        node.put(&all(content));
        for (name, alphas, betas, _) in cases {
            set_time(&node.path(name), if content.starts_with("alpha") { alphas } else { betas });
        }
    }
    let output = alpha.csync2(["-x"]).exits(1);
    for (name, _, _, won) in cases {
        assert_eq!(beta.read(name).starts_with("alpha"), won, "{name}: {output:?}");
    }
}

/// The server's end of a session, word by word.
struct Peer {
    stream: BufReader<TcpStream>,
}

impl Peer {
    fn hear(&mut self, expected: &str) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("read from the client");
        assert!(line.starts_with(expected), "`{line}' instead of `{expected}'");
        line.trim_end_matches('\n').to_owned()
    }

    fn say(&mut self, lines: &str) {
        self.stream.get_mut().write_all(lines.as_bytes()).expect("write to the client");
    }

    fn hear_delta(&mut self) {
        let header = self.hear("octet-stream ");
        let length = header.rsplit(' ').next().and_then(|length| length.parse().ok()).expect("a length");
        self.stream.read_exact(&mut vec![0; length]).expect("read the delta");
    }
}

/// Plays the peer of one session in which alpha sends the new file `f`.
fn session_with(story: impl FnOnce(&mut Peer, &Node)) {
    let cluster = Cast::plain(Program::Ours, Program::Ours).cluster(["alpha", "beta"]).build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.csync2(["-cIr", "/"]).success();
    alpha.put(&tree! { "f" => file("content").mode(0o640).mtime(1_500_000_000) });
    let listener = TcpListener::bind((beta.host.as_str(), beta.port)).expect("listen");
    let command = alpha.command(alpha.program, ["-x"]);
    let run = thread::spawn(|| crate::support::process::run(command));
    let mut peer = Peer { stream: BufReader::new(listener.accept().expect("accept").0) };
    // All lines come before any is answered: finding out the dialect costs no round trip.
    peer.hear("CONFIG ");
    peer.hear("ATOMICPATCH\n");
    peer.hear("BATCH 1 1\n");
    story(&mut peer, alpha);
    peer.hear("BYE");
    peer.say("OK (cu_later).\n");
    drop(peer);
    run.join().expect("the run").success().silent();
    alpha.expect_clean();
}

const MISSING: &str = "OK (path_not_found).\n---\noctet-stream 0\nOK (cmd_finished).\n";
const SEND: &str = "OK (send_data).\noctet-stream 12\nrs\x016\0\0\x08\0\0\0\0\x08";
const OK: &str = "OK (cmd_finished).\n";

/// Owner, mode and time are on their way before the peer can have put the content in place.
#[test]
fn a_c_peer_gets_the_attributes_along_with_the_delta() {
    session_with(|peer, alpha| {
        peer.say(&format!("{OK}Unkown command!\nUnkown command!\n"));
        peer.hear(&format!("HELLO {}\n", alpha.host));
        peer.say(OK);
        peer.hear("SIG ");
        peer.say(MISSING);
        peer.hear("PATCH ");
        peer.say(SEND);
        peer.hear_delta();
        assert!(peer.hear("SETOWN ").ends_with("%25d%25/f 0 0"));
        assert!(peer.hear("SETMOD ").ends_with("%25d%25/f 33184"));
        assert!(peer.hear("SETIME ").ends_with("%25d%25/f 1500000000"));
        peer.say(&OK.repeat(4));
    });
}

#[test]
fn a_peer_of_the_second_dialect_gets_a_file_whole() {
    session_with(|peer, alpha| {
        peer.say(&format!("{OK}Dear {}, please identify first.\nUnknown command!\n", alpha.host));
        peer.hear(&format!("HELLO {}\n", alpha.host));
        peer.say(OK);
        peer.hear("SIG ");
        peer.say(MISSING);
        assert!(peer.hear("ATOMICPATCH ").ends_with("%25d%25/f 0 0 33184 1500000000000000000"));
        peer.say(SEND);
        peer.hear_delta();
        peer.say(OK);
    });
}

/// Whoever does not want batches gets none, from whichever side they come; the outcome is the same.
#[test]
fn batches_are_spoken_unless_either_side_wants_none() {
    let plain = "nossl * *;\nprefix d { on {alpha}: {alpha.tree}; on {beta}: {beta.tree}; }\n\
                 group demo { host {alpha} {beta}; key demo.key; include %d%; }\n";
    let without = format!("batches no;\n{plain}");
    for (alphas, betas, option, dialect) in [
        (plain, plain, "-t", "Batch { version: 1 }"),
        (without.as_str(), plain, "-t", "Atomic"),
        (plain, without.as_str(), "-t", "Atomic"),
        (plain, plain, "--no-batches", "Atomic"),
    ] {
        let cluster = Cast::plain(Program::Ours, Program::Ours).cluster(["alpha", "beta"]).build();
        let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
        cluster.configure_node("alpha", alphas);
        cluster.configure_node("beta", betas);
        beta.csync2(["-cIr", "/"]).success();
        beta.serve();
        alpha.put(&tree! { "d" => dir(), "d/f" => "content", "p" => fifo() });
        alpha.csync2(["-xvvv", option]).success().logs(&format!("speaks the dialect {dialect}."));
        cluster.expect_agreement();
        alpha.expect_clean();
        beta.expect_clean();
    }
}

/// With `compression yes` new files and changed ones arrive as they are here, whether they shrink or not.
#[test]
fn contents_are_packed_where_that_is_wanted() {
    let cluster = Cast::plain(Program::Ours, Program::Ours).cluster(["alpha", "beta"]).build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    cluster.configure_node(
        "alpha",
        "compression yes;\nnossl * *;\nprefix d { on {alpha}: {alpha.tree}; on {beta}: {beta.tree}; }\n\
         group demo { host {alpha} {beta}; key demo.key; include %d%; }\n",
    );
    beta.serve();
    let text = (0..30_000).map(|number| format!("line {number}\n")).collect::<Vec<_>>().concat();
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(state.to_be_bytes()[0] & 0x7f)
    };
    let noise: String = (0..300_000).map(|_| noise()).collect();
    alpha.put(&tree! { "text" => &text[..], "noise" => &noise[..], "short" => "x", "empty" => "" });
    alpha.csync2(["-x"]).success();
    cluster.expect_agreement();
    let (text, noise) = (text.replace("line 1500\n", "another\n"), format!("{}{text}", &noise[..200_000]));
    alpha.put(&tree! { "text" => &text[..], "noise" => &noise[..] });
    alpha.csync2(["-x"]).success();
    cluster.expect_agreement();
    alpha.expect_clean();
}

/// Large files that changed in their places, moved within, grew and shrank arrive at all peers as they are here; of one that
/// changes while it is looked at nothing is lost.
#[test]
fn large_files_are_compared_while_the_peer_describes_its_own() {
    let cluster = Cast::plain(Program::Ours, Program::Ours).cluster(["alpha", "beta", "gamma"]).start();
    let alpha = &cluster["alpha"];
    let mut content = vec![0; 9 << 20];
    getrandom::fill(&mut content).unwrap();
    let files = ["changed", "grown", "shrunk", "moved", "new"];
    let put = |name: &str, content: &[u8]| std::fs::write(alpha.tree_dir().join(name), content).unwrap();
    for name in files {
        put(name, &content);
    }
    alpha.csync2(["-x"]).success();
    cluster.expect_agreement();
    let mut changed = content.clone();
    (0..20).for_each(|place| changed[place * 400_000] ^= 1);
    put("changed", &changed);
    put("grown", &[&content[..], &changed[..]].concat());
    put("shrunk", &content[..=8 << 20]);
    put("moved", &[&content[4 << 20..], &content[..4 << 20]].concat());
    let mut new = content.clone();
    getrandom::fill(&mut new).unwrap();
    put("new", &new);
    alpha.csync2(["-cr", "/"]).success();
    // It changes all the time that the update takes.
    let over = std::sync::atomic::AtomicBool::new(false);
    let file = std::fs::OpenOptions::new().write(true).open(alpha.tree_dir().join("changed")).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut at = 0_u64;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                std::os::unix::fs::FileExt::write_all_at(&file, &at.to_be_bytes(), at % (9 << 20)).unwrap();
                at += 70_001;
            }
        });
        alpha.csync2(["-u"]);
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    alpha.csync2(["-x"]).success();
    cluster.expect_agreement();
    alpha.expect_clean();
}

/// What scripts for the fork pass is taken, and the debug log is a file of this user alone, without keys.
#[test]
fn options_of_the_fork_are_taken() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let cluster = Cast::plain(Program::Ours, Program::Ours).cluster(["alpha", "beta"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(&tree! { "f" => "content" });
    alpha.csync2(["-xa", "-N", &alpha.host]).success().silent();
    alpha.put(&tree! { "f" => "other content" });
    alpha.csync2(["-cr", "/"]).success();
    let log = alpha.base().join("debug");
    let to_log = format!("-O{}", log.display());
    alpha.csync2(["-ub", "-P", &beta.host, &to_log]).success().silent();
    cluster.expect_agreement();
    let text = fs::read_to_string(&log).expect("read the log");
    assert!(text.contains("Local> OFFER %d%/f") && !text.contains(crate::support::cluster::KEY), "{text}");
    assert_eq!(fs::metadata(&log).expect("stat").permissions().mode() & 0o7777, 0o600);

    // Never through a link, as somebody else might have put it there.
    let trap = alpha.base().join("trap");
    symlink(alpha.path("f"), &trap).expect("make a link");
    alpha.csync2(["-u", &format!("-O{}", trap.display())]).exits(1).logs("Can't open debug file");
    cluster.expect_agreement();
}
