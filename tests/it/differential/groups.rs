//! Which file is whose: groups with keys, slaves and patterns, prefixes, names of hosts.

use crate::support::differential::{Deviation, Differential, Part};
use crate::support::tree::file;
use crate::support::{dir, tree};

const PREFIX: &str = "prefix d { on {alpha}: {alpha.tree}; on {beta}: {beta.tree}; on {gamma}: {gamma.tree}; }\n";

#[test]
fn several_groups_with_keys_slaves_and_patterns() {
    let config = format!(
        "{PREFIX}
        group one {{ host {{alpha}} {{beta}}; key demo.key; include %d%/one; exclude *~ *.o;
            exclude %d%/one/private; include %d%/one/private/but; }}
        group two {{ host {{gamma}} {{alpha}}; key two.key; include %d%/two; auto left; }}
        group overlap {{ host {{alpha}} ({{gamma}}); key three.key; include %d%/one/shared; }}
        group others {{ host {{beta}} {{gamma}}; key three.key; include %d%/other; }}
        group stars {{ host {{alpha}} {{beta}} {{gamma}}; key two.key;
            include %d%/star/*/conf %d%/glob/**.txt %d%/glob/**/*.md %d%/[ab]?c; exclude .*; }}
        group nobody {{ host delta.invalid; key demo.key; include %d%/one; }}\n"
    );
    let parents = tree! { "star/a" => dir(), "star/b" => dir(), "glob/x/y" => dir() };
    let sample = tree! {
        "one/f" => "1", "one/f~" => "22", "one/d/f.o" => "333", "one/private/key" => "4", "one/private/but/not" => "55",
        "one/shared/f" => "666", "one/shared/d/g.o" => "7", "two/f" => "88", "two/d/g" => "999", "other/f" => "a",
        "star/a/conf" => "bb", "star/b/conf/below" => "ccc", "star/b/other" => "d", "star/conf" => "ee", "axc" => "fff",
        "bxc/.hidden" => "g", ".xc" => "hh", "glob/f.txt" => "iii", "glob/x/f.txt" => "j", "glob/x/y/f.md" => "kk",
        "glob/f.md" => "lll", "glob/x/f.c" => "m", "in no group" => "nn",
    };
    let refused = "ERROR: {alpha}: %d%/one/shared/*: Permission denied for slave!*";
    let told = Deviation::extra(Part::Log, refused, "an error says what was refused, and why").on("gamma");
    Differential::of(["alpha", "beta", "gamma"]).but(told).with(|builder| builder.config(&config)).tell(|story| {
        story.write_key("two.key", 'B');
        story.write_key("three.key", 'C');
        for name in ["alpha", "beta", "gamma"] {
            story[name].put(&parents);
        }
        story["beta"].put(&tree! { "one/private" => dir() });
        story["gamma"].put(&tree! { "one" => dir() });
        story["alpha"].put(&sample);
        story.run("alpha", ["-xv", "-G", "two,overlap"]);
        story.run("alpha", ["-M"]);
        story.run("alpha", ["-xv"]);
        story.run("alpha", ["-L"]);
        story["beta"].put(&tree! { "one/d/f" => "from beta", "one/shared/f" => "beta's", "other/g" => "for gamma" });
        story.run("beta", ["-xv"]);
        // What a slave changes is refused, and marked for it at its master.
        story["gamma"].put(&tree! { "one/shared/f" => "a slave's word", "two/f" => "gamma's word" });
        story["gamma"].remove("one/shared/d");
        story.run("gamma", ["-crv", "/"]);
        story.run("gamma", ["-M"]);
        story.run("gamma", ["-uv"]);
        story.run("alpha", ["-M"]);
        story.run("alpha", ["-frv", "/"]);
        story.run("alpha", ["-uv"]);
        // (Not the directories of the patterns themselves: ours doubts that they are gone.)
        story["alpha"].remove("one/shared/d");
        story["alpha"].remove("one/shared/f");
        story["alpha"].remove("glob/x");
        story.run("alpha", ["-xv"]);
        story.run("alpha", ["-R"]);
    });
}

#[test]
fn prefixes_that_nest_and_differ() {
    let config = "
        prefix outer { on {alpha}: {alpha.tree}; on {beta}: {beta.tree}/moved/here; on *: {gamma.tree}/outer; }
        prefix inner { on {alpha}: {alpha.tree}/in; on {beta}: {beta.tree}/elsewhere; on {gamma}: {gamma.tree}/outer/in; }
        prefix alone { on {alpha}: {alpha.tree}/alone/; on {beta}: {beta.tree}/alone; }
        prefix none { on {gamma}: {gamma.tree}/none; }
        group g { host {alpha} {beta} {gamma}; key demo.key; include %outer% %inner%; exclude %outer%/alone; }
        group alone { host {alpha} {beta}; key demo.key; include %alone%; }
        group none { host {alpha} {gamma}; key demo.key; include %none%; }\n";
    Differential::of(["alpha", "beta", "gamma"]).with(|builder| builder.config(config)).tell(|story| {
        story["beta"].put(&tree! { "moved/here" => dir(), "elsewhere" => dir(), "alone" => dir() });
        story["gamma"].put(&tree! { "outer/in" => dir(), "none" => dir() });
        let sample = tree! { "f" => "1", "in/f" => "22", "in/d/g" => "333", "alone/f" => "4444", "d/f" => "55555" };
        story["alpha"].put(&sample);
        story.run("alpha", ["-xv"]);
        story.run("alpha", ["-L"]);
        story["alpha"].put(&tree! { "in/f" => "another", "d/f" => "something else" });
        story["alpha"].remove("in/d");
        story.run("alpha", ["-crv", "{alpha.tree}/in"]);
        story.run("alpha", ["-M"]);
        story.run("alpha", ["-xv"]);
        story["beta"].put(&tree! { "elsewhere/f" => "what beta says", "moved/here/new/f" => "new" });
        story.run("beta", ["-xv"]);
    });
}

/// The same files as plain paths and below a prefix. On this machine the hosts share the plain ones.
#[test]
fn plain_paths_beside_prefixes() {
    let config = "
        prefix d { on {alpha}: {alpha.tree}/x; on {beta}: {beta.tree}; }
        group plain { host {alpha} {beta}; key demo.key; include {alpha.tree}/x; exclude {alpha.tree}/x/out; }
        group prefixed { host {alpha} {beta}; key demo.key; include %d%; exclude *.no; }\n";
    Differential::of(["alpha", "beta"]).with(|builder| builder.config(config)).tell(|story| {
        story["alpha"].put(&tree! { "x/f" => "1", "x/out/g" => "22", "x/d/h.no" => "333", "y" => "4444" });
        story.run("alpha", ["-xv"]);
        story.run("alpha", ["-L"]);
        story["alpha"].put(&tree! { "x/f" => "changed", "x/d/new" => "new" });
        story["alpha"].remove("x/d/h.no");
        story["alpha"].remove("x/out");
        story.run("alpha", ["-crv", "/"]);
        story.run("alpha", ["-M"]);
        story.run("alpha", ["-uv"]);
        story.run("beta", ["-L"]);
    });
}

#[test]
fn ignored_properties() {
    for ignored in ["ignore uid;", "ignore gid mod;"] {
        Differential::of(["alpha", "beta"]).with(|builder| builder.top(ignored)).tell(|story| {
            let owned =
                |owner, mode| tree! { "f" => file("content").mode(mode).owner(owner, owner), "d" => dir().mode(0o700) };
            story["alpha"].put(&owned(12, 0o640));
            story.run("alpha", ["-xv"]);
            story.run("alpha", ["-L"]);
            story["alpha"].put(&owned(34, 0o640));
            story.run("alpha", ["-xv"]);
            story["alpha"].put(&owned(34, 0o600));
            story.run("alpha", ["-xv"]);
            story.run("beta", ["-xv"]);
        });
    }
}

/// A host that is reached, and known to its peers, under another name than its own.
#[test]
fn hosts_with_interfaces() {
    let config = "
        prefix d { on {alpha}: {alpha.tree}; on {beta}: {beta.tree}; }
        group g { host {alpha}@{alpha.iface} {beta}@{beta.iface}; key demo.key; include %d%; exclude %d%/h; }
        group h { host {alpha} {beta}; key demo.key; include %d%/h; }\n";
    Differential::of(["alpha", "beta"]).with(|builder| builder.config(config)).tell(|story| {
        story["alpha"].put(&tree! { "f" => "1" });
        story.run("alpha", ["-xv"]);
        story["alpha"].put(&tree! { "h/f" => "22" });
        story.run("alpha", ["-xv"]);
        story["beta"].put(&tree! { "f" => "of beta", "h/f" => "beta's" });
        story.run("beta", ["-crv", "/"]);
        story.run("beta", ["-M"]);
        story.run("beta", ["-uv"]);
    });
}
