//! Files that the peer has changed as well: which side wins, and that what is refused stays as it is.

use std::fs;

use super::*;

/// The peer's file is 50 seconds and bytes old and large; ours are younger, and the file has fewer bytes.
#[tokio::test]
async fn a_conflict_is_resolved_once_by_the_method() {
    // A directory is as large as its file system says.
    let larger = fs::metadata(Scratch::new().path("db")).unwrap().len() > 50;
    // The hosts are listed as `p h q`: we stand right of the peer.
    for (method, file, directory, removal) in [
        ("none", false, false, false),
        ("first", true, true, true),
        ("left", false, false, false),
        ("right", true, true, true),
        ("younger", true, true, false),
        ("older", false, false, false),
        ("bigger", false, larger, false),
        ("smaller", true, !larger, false),
    ] {
        for (name, won) in [("f", file), ("d", directory), ("gone", removal)] {
            let home = Home::with(&format!("include %d%; auto {method};")).await;
            home.put(&["f", "d/"]);
            home.mark(&[name], false).await;
            let mut flushed = false;
            let peer = Peer::new(&["%d%", &format!("%d%/{name}")]).scripted(move |command, _| {
                flushed |= command == "FLUSH";
                let asked = matches!(command, "HELLO" | "BYE" | "SIG" | "FLUSH" | "GETTM" | "GETSZ");
                if asked || flushed { Act::Normally } else { Act::Say(ALSO_DIRTY.into()) }
            });
            let (outcome, peer) = home.update(peer).await;
            let story = format!("{method} {name}: {:?}", heard(&peer));
            assert_eq!(outcome.report.errors, usize::from(!won), "{story}");
            assert_eq!(home.dirty().await.is_empty(), won, "{story}");
            assert_eq!(count(&peer, &format!("FLUSH {name}")), usize::from(won), "{story}");
            assert!(count(&peer, &format!("GETTM {name}")) + count(&peer, &format!("GETSZ {name}")) <= 1, "{story}");
        }
    }
}

/// The C program checks SETIME for no conflict: behind a refused command it would end the conflict.
#[tokio::test]
async fn nothing_follows_a_command_that_is_refused() {
    for forced in [false, true] {
        let home = Home::new().await;
        home.put(&["fifo|", "link->target"]);
        home.mark(&["fifo", "link"], forced).await;
        let mut peer = Peer::new(&["%d%", "%d%/fifo", "%d%/link"]).scripted(|command, _| match command {
            "MKFIFO" => Act::Say(ALSO_DIRTY.into()),
            "MKLINK" => Act::Say("File exists\n".into()),
            _ => Act::Normally,
        });
        // A directory with something in it, to which SETOWN would give the link's owner.
        peer.checktxt = "v1:type=dir".to_owned();
        let (outcome, peer) = home.update(peer).await;
        assert_eq!(outcome.report.errors, 2, "{:?}", heard(&peer));
        assert!(!heard(&peer).iter().any(|line| line.starts_with("SET")), "{:?}", heard(&peer));
        assert_eq!(home.dirty().await, ["fifo", "link"]);
    }
}

#[tokio::test]
async fn what_is_made_gets_its_attributes() {
    for dialect in [Dialect::Upstream, Dialect::Atomic] {
        let mut home = Home::new().await;
        home.dialect = dialect;
        home.put(&["fifo|", "link->target"]);
        home.mark(&["fifo", "link"], false).await;
        let (outcome, peer) = home.update(Peer::new(&["%d%"])).await;
        assert_eq!(outcome.report.errors, 0);
        let about = |name: &str| -> Vec<String> {
            let lines = heard(&peer).into_iter().filter(|line| line.ends_with(name));
            lines.filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
        };
        assert_eq!(about(" fifo"), ["SIG", "MKFIFO", "SETOWN", "SETMOD", "SETIME"]);
        assert_eq!(about(" link"), ["SIG", "MKLINK", "SETOWN"]);
        assert_eq!(home.dirty().await, [""; 0]);
    }
}

const A_LINK: &str = "OK (data_follows).\nv1:type=lnk:target=e\noctet-stream 0\nOK (cmd_finished).\n";
const BEHIND_A_LINK: &str = "OK (not_found).\n---\noctet-stream 0\nOK (cmd_finished).\n";

/// The peer has made a link of the directory. The C program's server writes through it until MKDIR has taken its place.
#[tokio::test]
async fn nothing_is_sent_through_a_link_that_a_disputed_directory_replaces() {
    for (method, forced, errors) in [("first", false, 0), ("first", true, 0), ("none", false, 1), ("none", true, 1)] {
        let home = Home::with(&format!("include %d%; auto {method};")).await;
        home.put(&["d/", "d/e/", "d/e/f", "d/g", "d/h/", "d/h/i"]);
        home.mark(&["d"], false).await;
        home.mark(&["d/e", "d/e/f", "d/g", "d/h/i"], forced).await;
        let (mut flushed, mut is_link) = (false, true);
        let peer =
            Peer::new(&["%d%", "%d%/d", "%d%/d/e", "%d%/d/h"]).scripted(move |command, name| match (command, name) {
                ("FLUSH", "%d%/d") => {
                    flushed = true;
                    Act::Normally
                }
                ("MKDIR", "%d%/d") if !flushed => Act::Say(ALSO_DIRTY.into()),
                ("MKDIR", "%d%/d") => {
                    is_link = false;
                    Act::Normally
                }
                ("SIG", "%d%/d") if is_link => Act::Say(A_LINK.into()),
                ("SIG", "%d%/d/e") if is_link => Act::Say(BEHIND_A_LINK.into()),
                ("PATCH" | "ATOMICPATCH", name) if is_link => panic!("{name} is written through the link"),
                _ => Act::Normally,
            });
        let (outcome, peer) = home.update(peer).await;
        let story = format!("{method} {forced}: {:?}", heard(&peer));
        assert_eq!(outcome.report.errors, errors, "{story}");
        let all = ["d", "d/e", "d/e/f", "d/g", "d/h/i"];
        assert_eq!(home.dirty().await, if errors == 0 { &[][..] } else { &all[..] }, "{story}");
        for file in ["DELTA d/g", "DELTA d/e/f", "DELTA d/h/i"] {
            assert_eq!(count(&peer, file), 1 - errors, "{story}");
        }
    }
}

/// Somebody at the peer changed a directory between MKDIR and its time, which comes last.
#[tokio::test]
async fn a_directory_whose_time_is_disputed_gets_it_all_the_same() {
    let home = Home::with("include %d%; auto first;").await;
    home.put(&["d/", "d/f"]);
    home.mark(&["d", "d/f"], false).await;
    let mut disputed = false;
    let peer = Peer::new(&["%d%"]).scripted(move |command, name| {
        let refused = command == "SETIME" && name == "%d%/d" && !std::mem::replace(&mut disputed, true);
        if refused { Act::Say(ALSO_DIRTY.into()) } else { Act::Normally }
    });
    let (outcome, peer) = home.update(peer).await;
    assert_eq!(outcome.report.errors, 0, "{:?}", heard(&peer));
    assert_eq!((count(&peer, "SETIME d"), count(&peer, "FLUSH d"), count(&peer, "DELTA d/f")), (2, 1, 1));
    assert_eq!(home.dirty().await, [""; 0]);
}

#[tokio::test]
async fn a_conflict_that_comes_back_is_lost() {
    let home = Home::with("include %d%; auto first;").await;
    home.put(&["f", "g"]);
    home.mark(&["f", "g"], false).await;
    let peer = Peer::new(&["%d%"]).scripted(|command, name| {
        if command == "PATCH" && name.ends_with('f') { Act::Say(ALSO_DIRTY.into()) } else { Act::Normally }
    });
    let (outcome, peer) = home.update(peer).await;
    assert_eq!(outcome.report.errors, 1);
    assert_eq!((count(&peer, "PATCH f"), count(&peer, "FLUSH f")), (2, 1));
    assert_eq!(home.dirty().await, ["f"]);
}
