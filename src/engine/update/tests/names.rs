//! Files that have several names, below nested prefixes: whatever becomes of the one, the other gets its turn.

use super::*;

const NAMES: [&str; 6] = ["sub", "sub/f", "sub/p", "%sub%", "%sub%/f", "%sub%/p"];

async fn home(method: &str) -> Home {
    let home = Home::with(&format!("include %d% %sub%; auto {method};")).await;
    home.put(&["sub/", "sub/f", "sub/p|"]);
    home
}

fn peer() -> Peer {
    Peer::new(&["%d%", "%d%/sub", "%sub%"])
}

/// The peer is asked about each name of the second spelling when the first one's commands are out, or have failed.
fn assert_in_turn(peer: &Shared, story: &str) {
    let heard = heard(peer);
    for (first, second) in [("sub/f", "%sub%/f"), ("sub/p", "%sub%/p")] {
        let last = heard.iter().rposition(|line| line.ends_with(&format!(" {first}")));
        let next = heard.iter().position(|line| line.ends_with(&format!(" {second}")));
        assert!(last.zip(next).is_some_and(|(last, next)| last < next), "{story}: {heard:?}");
    }
}

#[tokio::test]
async fn the_other_name_follows_whatever_becomes_of_the_first() {
    for (method, refused, answer, left) in [
        ("none", "nothing", "", &[][..]),
        ("none", "SIG", DENIED, &["sub/f", "sub/p"]),
        ("none", "PATCH", ALSO_DIRTY, &["sub/f"]),
        ("first", "PATCH", ALSO_DIRTY, &["sub/f"]),
        ("younger", "MKFIFO", ALSO_DIRTY, &["sub/p"]),
        ("none", "MKFIFO", DENIED, &["sub/p"]),
        ("none", "SETOWN", DENIED, &["sub/p"]),
    ] {
        let home = home(method).await;
        home.mark(&["sub/f", "sub/p", "%sub%/f", "%sub%/p"], false).await;
        let peer = peer().scripted(move |command, name| {
            // SETOWN of a regular file comes when its other name has had its turn.
            let meant = command == refused && name.starts_with("%d%/") && (refused != "SETOWN" || name.ends_with('p'));
            if meant { Act::Say(answer.into()) } else { Act::Normally }
        });
        let (outcome, peer) = home.update(peer).await;
        let story = format!("{method} {refused} {answer}");
        assert_in_turn(&peer, &story);
        assert_eq!(outcome.report.errors, left.len(), "{story}");
        assert_eq!(home.dirty().await, left, "{story}");
    }
}

/// The directory is refused under its first name: that costs what is below it under that name only.
#[tokio::test]
async fn a_directory_that_is_refused_costs_its_own_name_only() {
    for (method, answer) in [("none", DENIED), ("none", ALSO_DIRTY), ("first", ALSO_DIRTY)] {
        let home = home(method).await;
        home.mark(&NAMES, false).await;
        let peer = Peer::new(&["%d%"]).scripted(move |command, name| match (command, name) {
            ("MKDIR", "%d%/sub") => Act::Say(answer.into()),
            _ => Act::Normally,
        });
        let (outcome, peer) = home.update(peer).await;
        assert_eq!(outcome.report.errors, 1, "{answer}: {:?}", heard(&peer));
        assert_eq!(home.dirty().await, ["sub", "sub/f", "sub/p"], "{answer}: {:?}", heard(&peer));
    }
}

/// A directory that was not to be sent is missing under both names.
#[tokio::test]
async fn a_missing_directory_is_made_under_each_name() {
    for forced in [false, true] {
        let home = home("none").await;
        home.put(&["sub/d/", "sub/d/f"]);
        home.mark(&["sub/d/f", "%sub%/d/f"], forced).await;
        let (outcome, peer) = home.update(peer()).await;
        assert_eq!(outcome.report.errors, 0, "{:?}", heard(&peer));
        assert_eq!((count(&peer, "DELTA sub/d/f"), count(&peer, "DELTA %sub%/d/f")), (1, 1), "{:?}", heard(&peer));
        assert_eq!(home.dirty().await, [""; 0]);
    }
}

#[tokio::test]
async fn removals_go_under_each_name() {
    for refused in [false, true] {
        let home = Home::with("include %d% %sub%;").await;
        home.mark(&NAMES, false).await;
        let there: Vec<String> = NAMES.iter().map(|name| sync(name).to_string()).collect();
        let there: Vec<&str> = there.iter().map(String::as_str).chain(["%d%"]).collect();
        let peer = Peer::new(&there).scripted(move |command, name| {
            if refused && (command, name) == ("DEL", "%sub%/f") { Act::Say(DENIED.into()) } else { Act::Normally }
        });
        let (outcome, peer) = home.update(peer).await;
        let left: &[&str] = if refused { &["%sub%", "%sub%/f"] } else { &[] };
        assert_eq!(outcome.report.errors, usize::from(refused), "{:?}", heard(&peer));
        assert_eq!(home.dirty().await, left, "{:?}", heard(&peer));
    }
}

#[tokio::test]
async fn a_dry_run_tells_of_every_name() {
    for (here, forced) in [(true, false), (true, true), (false, false), (false, true)] {
        let home = Home::with("include %d% %sub%;").await;
        if here {
            home.put(&["sub/", "sub/f", "sub/p|"]);
        }
        home.mark(&NAMES, forced).await;
        for there in [true, false] {
            let known: Vec<String> = NAMES.iter().filter(|_| there).map(|name| sync(name).to_string()).collect();
            let known: Vec<&str> = known.iter().map(String::as_str).chain(["%d%"]).collect();
            let (outcome, _) = home.run(Peer::new(&known), true).await;
            let told: Vec<String> = outcome.forecasts.iter().map(|line| short(&line.path.to_string())).collect();
            let mut expected = NAMES.map(str::to_owned).to_vec();
            if !here {
                expected.reverse();
            }
            assert_eq!(told, expected, "{here} {forced} {there}");
            assert_eq!(home.rows().await.len(), NAMES.len());
        }
    }
}

#[tokio::test]
async fn a_refusal_in_a_dry_run_costs_its_own_name_only() {
    let home = home("none").await;
    home.mark(&NAMES, false).await;
    let refused = Peer::new(&["%d%"])
        .scripted(|_, name| if name.starts_with("%d%/sub") { Act::Say(DENIED.into()) } else { Act::Normally });
    let (outcome, _) = home.run(refused, true).await;
    let told: Vec<String> = outcome.forecasts.iter().map(|line| line.path.to_string()).collect();
    assert_eq!(told, NAMES[3..]);
    assert_eq!(outcome.report.errors, 3);
}
