//! Hosts whose keys or configurations differ: what is refused stays dirty, and nothing else suffers.

use crate::support::differential::{Deviation, Differential, Part};
use crate::support::tree;

const PREFIX: &str = "nossl * *;\nprefix d { on {alpha}: {alpha.tree}; on {beta}: {beta.tree}; }\n";

/// What both sides say of a refusal, beyond the words of the C program.
fn but_for_reasons(differential: Differential<'_>) -> Differential<'_> {
    const WHY: &str = "an error says what was refused, and why";
    differential
        .but(Deviation::extra(Part::Log, "ERROR: {beta}: %d%/*: Permission denied!*", WHY).on("alpha"))
        .but(Deviation::extra(Part::Log, "{alpha} asked for %d%/*: refused, *", WHY).on("beta"))
}

#[test]
fn another_key_at_the_peer() {
    let config = format!(
        "{PREFIX}group one {{ host {{alpha}} {{beta}}; key demo.key; include %d%/one; }}
        group two {{ host {{alpha}} {{beta}}; key two.key; include %d%/two; }}\n"
    );
    but_for_reasons(Differential::of(["alpha", "beta"])).with(|builder| builder.config(&config)).tell(|story| {
        story["alpha"].write_key("two.key", 'A');
        story["beta"].write_key("two.key", 'B');
        story["alpha"].put(&tree! { "one/f" => "1", "two" => "22", "zero" => "333" });
        story.run("alpha", ["-xv"]);
        story.run("alpha", ["-M"]);
        story.run("beta", ["-M"]);
        story["alpha"].put(&tree! { "one/f" => "changed" });
        story["alpha"].remove("two");
        story.run("alpha", ["-xv"]);
    });
}

#[test]
fn a_narrower_configuration_at_the_peer() {
    let group =
        |statements: &str| format!("{PREFIX}group g {{ host {{alpha}} {{beta}}; key demo.key; {statements} }}\n");
    let wide = group("include %d%;");
    let narrow = group("include %d%; exclude %d%/out; exclude *.o;");
    but_for_reasons(Differential::of(["alpha", "beta"])).with(|builder| builder.config(&wide)).tell(|story| {
        story.configure_node("beta", &narrow);
        story["alpha"].put(&tree! { "f" => "1", "f.o" => "22", "out" => "333", "z" => "4444" });
        story.run("alpha", ["-xv"]);
        story.run("alpha", ["-M"]);
        // The group of alpha is none at beta.
        story.configure_node("beta", &narrow.replace("%d%;", "%d%/g;"));
        story["alpha"].put(&tree! { "f" => "not any more", "z" => "nor this" });
        story.run("alpha", ["-xv"]);
        story.run("beta", ["-L"]);
        story.run("beta", ["-R"]);
        story.run("beta", ["-L"]);
    });
}

#[test]
fn a_plain_session_where_the_peer_wants_tls() {
    const WHY: &str = "an error says what was refused, and why";
    let config = PREFIX.replace("nossl * *;\n", "") + "group g { host {alpha} {beta}; key demo.key; include %d%; }\n";
    let told = "ERROR: {beta} does not accept us as {alpha}: SSL encrypted connection expected! *";
    Differential::of(["alpha", "beta"])
        .over_tls()
        .with(|builder| builder.config(&config))
        .but(Deviation::extra(Part::Log, told, WHY).on("alpha"))
        .but(Deviation::extra(Part::Log, "Host stays in dirty state. Try again later...", WHY).on("alpha"))
        .but(
            Deviation::extra(Part::Log, "{alpha}: SSL encrypted connection expected! No nossl entry *", WHY).on("beta"),
        )
        .tell(|story| {
            story.configure_node("alpha", &format!("nossl {{alpha}} {{beta}};\n{config}"));
            story["alpha"].put(&tree! { "f" => "1", "g" => "22" });
            story.run("alpha", ["-xv"]);
            story.run("alpha", ["-M"]);
            story.configure_node("alpha", &config);
            story.run("alpha", ["-uv"]);
            story.expect_agreement();
        });
}
