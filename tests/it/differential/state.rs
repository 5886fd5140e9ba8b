//! What is remembered: state that is lost, and state that changes hands between the programs.

use crate::support::differential::Differential;
use crate::support::tree::file;
use crate::support::{dir, fifo, tree};

#[test]
fn the_state_is_lost() {
    Differential::of(["alpha", "beta"]).tell(|story| {
        let sample = tree! { "f" => "1", "d/g" => "22", "p" => fifo(), "old" => "333", "gone" => "4444" };
        story["alpha"].put(&sample);
        story.run("alpha", ["-xv"]);
        // Filled again without a mark, then a change.
        story.forget("alpha");
        story.run("alpha", ["-cIr", "/"]);
        story.run("alpha", ["-M"]);
        story["alpha"].put(&tree! { "f" => file("changed").mtime(1_700_000_000) });
        story["alpha"].remove("gone");
        story.run("alpha", ["-xv"]);
        // Everything is new to alpha, and already known to beta.
        story.forget("alpha");
        story["alpha"].put(&tree! { "f" => file("changed again").mtime(1_700_000_001) });
        story.run("alpha", ["-xv"]);
        story.forget("beta");
        story.run("beta", ["-cIr", "/"]);
        story["alpha"].put(&tree! { "f" => file("and again").mtime(1_700_000_002), "d/new" => "new" });
        story["alpha"].remove("old");
        story.run("alpha", ["-xv"]);
        story.run("beta", ["-L"]);
        // What both have is new to both, and the same.
        story.forget("alpha");
        story.forget("beta");
        story.run("alpha", ["-xv"]);
        story.run("beta", ["-xv"]);
    });
}

/// (No links: below a prefix the C program records them without their target, and marks those that ours has recorded.)
#[test]
fn the_state_changes_hands() {
    Differential::of(["alpha", "beta"]).tell(|story| {
        story["alpha"]
            .put(&tree! { "f" => "1", "d/with blank %" => "22", "p" => fifo(), "ümläut" => "333", "e" => dir() });
        story.run("alpha", ["-xv"]);
        for round in 1..=4 {
            story["alpha"]
                .put(&tree! { "f" => "x".repeat(10 + round), format!("new {round}") => "y", "e" => dir().mode(0o700) });
            story["beta"].put(&tree! { "d/of beta" => "z".repeat(round) });
            // What one program has marked, the other one pushes; what one has received, the other one knows.
            story.run("alpha", ["-crv", "/"]);
            story.run("beta", ["-crv", "/"]);
            story.hand_over("alpha");
            story.hand_over("beta");
            story.run("alpha", ["-M"]);
            story.run("alpha", ["-uv"]);
            story.run("beta", ["-uv"]);
            story.run("beta", ["-L"]);
            if round > 1 {
                story["alpha"].remove(format!("new {}", round - 1));
            }
        }
        story.run("alpha", ["-xv"]);
        story.run("beta", ["-xv"]);
        story.expect_agreement();
    });
}
