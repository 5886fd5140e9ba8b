//! More than two hosts: chains, meshes, hosts that are down.

use crate::support::differential::{Deviation, Differential, Part};
use crate::support::{Program, Tree, tree};

/// A received file is not dirty: to travel on, it has to be marked where two groups meet.
#[test]
fn a_chain_of_three() {
    let config = "
        prefix d { on {alpha}: {alpha.tree}; on {beta}: {beta.tree}; on {gamma}: {gamma.tree}; }
        group left { host {alpha} {beta}; key demo.key; include %d%; }
        group right { host {beta} {gamma}; key demo.key; include %d%; exclude *.left; }\n";
    Differential::of(["alpha", "beta", "gamma"]).with(|builder| builder.config(config)).tell(|story| {
        story["alpha"].put(&tree! { "f" => "1", "d/g" => "22", "own.left" => "333" });
        story.run("alpha", ["-xv"]);
        story.run("beta", ["-crv", "/"]);
        story.run("beta", ["-M"]);
        story.run("beta", ["-uv"]);
        story["gamma"].put(&tree! { "f" => "from the far end", "d/new" => "4444" });
        story.run("gamma", ["-xv"]);
        story.run("beta", ["-xv"]);
        story.run("alpha", ["-xv"]);
        story["beta"].remove("d/new");
        story["beta"].remove("own.left");
        story.run("beta", ["-xv"]);
        story.run("alpha", ["-L"]);
    });
}

/// One group for three, where the one in the middle has `nossl` with one of the others only.
#[test]
fn a_chain_with_and_without_tls() {
    let top = "nossl {alpha} {beta};\nnossl {beta} {alpha};\n";
    Differential::of(["alpha", "beta", "gamma"]).over_tls().with(|builder| builder.top(top)).tell(|story| {
        story["alpha"].put(&tree! { "f" => "1", "d/g" => "22" });
        story.run("alpha", ["-xv"]);
        story["gamma"].put(&tree! { "f" => "gamma's" });
        story["beta"].put(&tree! { "d/g" => "beta was here" });
        story.run("gamma", ["-xv"]);
        story.run("beta", ["-xv"]);
        story.expect_agreement();
    });
}

const FIVE: [&str; 5] = ["alpha", "beta", "gamma", "delta", "epsilon"];

/// Programs for five nodes by the bits of a number: none of the mixtures is all of one kind.
fn mixture(bits: u32) -> Vec<Program> {
    let program = |bit: u32| if bits >> bit & 1 == 1 { Program::Ours } else { Program::Reference };
    (0..5_u32).map(program).collect()
}

#[test]
fn a_mesh_of_five_in_turns() {
    Differential::of(FIVE).mixed([0b01101, 0b10010].map(mixture)).tell(|story| {
        let own = |name: &str, round: usize| -> Tree {
            tree! { format!("{name}/f") => "x".repeat(round), format!("{name}/{round}") => "of this round", "shared" => format!("{name}{}", "!".repeat(10 * round)) }
        };
        for (round, name) in (1..).zip(FIVE) {
            story[name].put(&own(name, round));
            story.run(name, ["-xv"]);
            story.expect_agreement();
        }
        // Everybody has changed something before anybody pushes.
        for (round, name) in (6..).zip(FIVE) {
            story[name].put(&tree! { format!("{name}/f") => "y".repeat(round), format!("new of {name}") => "1" });
        }
        story["beta"].remove("alpha/1");
        for name in FIVE {
            story.run(name, ["-xv"]);
        }
        story.expect_agreement();
        for name in FIVE {
            story.run(name, ["-xv"]);
        }
    });
}

#[test]
fn a_host_that_was_down_catches_up() {
    const WHY: &str = "an error says what is to be done about it";
    let told = |line| Deviation::extra(Part::Log, line, WHY);
    Differential::of(["alpha", "beta", "gamma"])
        .but(told("{beta}: connect to {beta} port *: Connection refused * entries stay dirty; csync2 -u sends them."))
        .tell(|story| {
            story["alpha"].put(&tree! { "f" => "1", "d/g" => "22", "gone" => "333" });
            story.run("alpha", ["-xv"]);
            story.stop("beta");
            story["alpha"].put(&tree! { "f" => "changed", "d/new" => "4444" });
            story["alpha"].remove("gone");
            story.run("alpha", ["-xv"]);
            story["gamma"].put(&tree! { "d/g" => "what gamma says" });
            story.run("gamma", ["-xv"]);
            story.run("alpha", ["-M"]);
            story["beta"].serve();
            story.run("gamma", ["-uv"]);
            story.run("alpha", ["-uv"]);
            story.expect_agreement();
            story.run("beta", ["-xv"]);
        });
}
