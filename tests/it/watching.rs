//! `-W`: the directories in which a check finds relevant files.

use std::fs;

use super::selection::{OVERLAPPING, State, cluster};
use crate::support::cluster::Cluster;
use crate::support::process::{run, wrap};
use crate::support::{Cast, Program, scenarios, tree};

/// What `-W` writes to its descriptor: names, NUL-terminated.
fn directories(cluster: &Cluster, program: Program, call: &str) -> Vec<String> {
    let alpha = &cluster["alpha"];
    let file = cluster.directory().join("directories");
    let arguments = call.split(' ').map(|argument| cluster.fill_in(argument));
    let shell = format!("exec \"$@\" 7>'{}'", file.display());
    run(wrap(&["bash", "-c", &shell, "with a file"], &alpha.command(program, arguments))).success();
    let text = String::from_utf8(fs::read(file).expect("what was written")).expect("UTF-8");
    text.split_inclusive('\0').map(|name| name.strip_suffix('\0').expect("a NUL at the end").to_owned()).collect()
}

#[test]
fn relevant_directories_are_named() {
    let cluster = cluster(OVERLAPPING);
    let alpha = &cluster["alpha"];
    alpha.csync2(["-cIr", "/"]).success();
    alpha.csync2(["-hr".as_ref(), alpha.path("d").as_os_str()]).success();
    let state = State::of(&cluster);
    for call in [
        "-crW7 /",
        "-cIrW 7 /",
        "-cr -W 7 {alpha.tree}/d {alpha.tree}/x {alpha.tree}/f {alpha.tree}/pre",
        "-crW7 {alpha.tree}/x/other/deep {alpha.tree}/link {alpha.tree}/d {alpha.tree}/d/e",
        "-crW7 {alpha.tree}/none /etc",
        "-crW7 -G two /",
        "-crW7 -G three {alpha.tree}",
        "-cW7",
        "-cW7 {alpha.tree}/d",
        "-xdW7 -P nobody",
        "-xW7 {alpha.tree}/d -P nobody",
        "-orW7 {alpha.tree}/x",
        "-uW7 -P nobody",
    ] {
        let mut expected = directories(&cluster, Program::Reference, call);
        state.restore();
        let ours = directories(&cluster, Program::Ours, call);
        state.restore();
        let is_below = |below: &str, above: &str| below.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'));
        // (Of several operands, one may lie in another.)
        let early = ours.iter().enumerate().find(|(index, name)| {
            !call.contains("/d/e") && ours[index + 1..].iter().any(|later| is_below(later, name))
        });
        assert_eq!(early, None, "`{call}` names a directory before one in it: {ours:?}");
        let mut ours = ours;
        ours.sort();
        expected.sort();
        // The C program goes through a prefix twice that is named by its directory.
        if call.ends_with("pre") {
            expected.dedup();
        }
        assert_eq!(ours, expected, "`{call}`: left ours, right the C program's");
    }
}

scenarios! { ours:
    a_broken_descriptor_loses_no_change
}

fn a_broken_descriptor_loses_no_change(cast: Cast) {
    let cluster = cast.cluster(["alpha"]).config(OVERLAPPING).build();
    let alpha = &cluster["alpha"];
    let broken = [("7> /dev/full", "No space left on device"), ("7> >(exec true); wait $!", "Broken pipe")];
    alpha.put(&tree! { "d/f" => "another change" });
    for (number, (redirection, reason)) in broken.into_iter().enumerate() {
        alpha.put(&tree! { "f" => "x".repeat(number + 5) });
        let shell = format!("exec {redirection}; exec \"$@\"");
        let check = alpha.command(alpha.program, ["-crW7", "/"]);
        let output = run(wrap(&["bash", "-c", &shell, "broken"], &check)).exits(1);
        output.logs(&format!("Error while writing to dump_dir_fd 7: {reason}")).logs("Finished with 1 errors.");
        let size = format!("size={}", number + 5);
        let known = alpha.csync2(["-L"]).success().stdout_text();
        assert!(known.lines().any(|row| row.contains(&size) && row.ends_with("/f")), "{known}");
        assert!(alpha.csync2(["-M"]).success().stdout_text().contains("/d/f\n"));
    }
}
