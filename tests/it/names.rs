//! The several names of a file: those of its prefixes, and those by way of symlinks.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use super::faults::{as_ordinary_user, hand_over};
use super::selection::{OVERLAPPING, distinct};
use crate::support::cluster::Cluster;
use crate::support::process::run;
use crate::support::{Cast, Table, link, scenarios, tree};

scenarios! { ours:
    marks_and_forces_reach_every_name_of_a_file
    names_behind_a_symlink_are_no_files
    a_prefix_may_be_reached_by_a_symlink
    unreadable_directories_are_told_when_comparing
}

fn start(cast: Cast, config: &str) -> Cluster {
    let cluster = cast.cluster(["alpha"]).config(config).build();
    cluster["alpha"].put(
        &tree! { "f" => "1", "d/f" => "22", "pre/f" => "333", "pre/in/ner/g" => "4444", "link" => link("pre/in") },
    );
    cluster
}

fn marks_and_forces_reach_every_name_of_a_file(cast: Cast) {
    let cluster = start(cast, OVERLAPPING);
    let alpha = &cluster["alpha"];
    alpha.csync2(["-cIr", "/"]).success();
    let names = |how: &str, files: &[&str]| -> String {
        let known = [
            ("alpha.two", "delta.example", "%p%"),
            ("alpha.two", "gamma.example", "%p%"),
            ("{alpha}", "beta.example", "{alpha.tree}/pre"),
        ];
        let rows = known.iter().flat_map(|(mine, peer, top)| {
            files.iter().map(move |file| (format!("{top}{file}"), format!("{how}\t{mine}\t{peer}\t{top}{file}\n")))
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort();
        rows.into_iter().map(|(_, row)| cluster.fill_in(&row)).collect()
    };
    let file = alpha.path("pre/f");
    alpha.csync2(["-m".as_ref(), file.as_os_str()]).success().silent();
    alpha.csync2(["-M"]).success().prints(&names("chary", &["/f"]));
    alpha.csync2(["-f".as_ref(), file.as_os_str()]).success().silent();
    alpha.csync2(["-M"]).success().prints(&names("force", &["/f"]));

    // What lies in a prefix below the operand is below the operand.
    let in_prefixes = |how: &str| {
        let listed = alpha.csync2(["-M"]).success().stdout_text();
        listed.lines().filter(|line| line.starts_with(how) && line.contains("\t%")).count()
    };
    alpha.csync2(["-mr".as_ref(), alpha.tree_dir().as_os_str()]).success();
    // Five files of %p% and two of %q%, for two peers each; those of %p%/f were forced.
    assert_eq!((in_prefixes("chary"), in_prefixes("force")), (14, 0));
    alpha.csync2(["-fr".as_ref(), alpha.path("pre/in").as_os_str()]).success();
    assert_eq!((in_prefixes("chary"), in_prefixes("force")), (4, 10));
    alpha.csync2(["-fr".as_ref(), cluster.directory().as_os_str()]).success();
    assert_eq!((in_prefixes("chary"), in_prefixes("force")), (0, 14));
}

fn names_behind_a_symlink_are_no_files(cast: Cast) {
    let cluster = start(cast, &distinct());
    let alpha = &cluster["alpha"];
    for call in ["-c", "-cr", "-m", "-mr", "-o", "-or", "-x"] {
        let mut command = alpha.command(alpha.program, [call, "ner"]);
        command.current_dir(alpha.path("link")).env("PWD", alpha.path("link"));
        let told = cluster.fill_in("WARNING: {alpha.tree}/link/ner lies behind a symlink");
        run(command).success().prints("").logs(&told);
        assert_eq!((alpha.rows(Table::File), alpha.rows(Table::Dirty)), (vec![], vec![]), "{call}");
    }
    // The same file by its own name.
    let mut command = alpha.command(alpha.program, ["-cI", "ner/g", "../pre/f"]);
    command.current_dir(alpha.path("link")).env("PWD", alpha.path("link"));
    run(command).success().silent();
    alpha.csync2(["-L"]).success().logs_no("link");
    assert_eq!(alpha.rows(Table::File).len(), 2);
}

fn a_prefix_may_be_reached_by_a_symlink(cast: Cast) {
    let config = "prefix p { on *: {dir}/way/pre; } group g { host {alpha} beta.example; key demo.key; include %p%; }";
    let cluster = start(cast, config);
    let alpha = &cluster["alpha"];
    symlink(alpha.tree_dir(), cluster.directory().join("way")).expect("make a symlink");
    let place = cluster.directory().join("way/pre");
    for (call, rows) in [("-c f", 1), ("-cr .", 5)] {
        let mut command = alpha.command(alpha.program, call.split(' '));
        command.current_dir(&place).env("PWD", &place);
        run(command).success().silent();
        assert_eq!(alpha.rows(Table::File).len(), rows, "{call}");
    }
}

fn unreadable_directories_are_told_when_comparing(cast: Cast) {
    let cluster = start(cast, OVERLAPPING);
    let alpha = &cluster["alpha"];
    alpha.csync2(["-L"]).exits(2);
    hand_over(alpha);
    let directory = alpha.path("d");
    chown(&directory, Some(0), Some(0)).expect("chown");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).expect("chmod");
    let output = as_ordinary_user(alpha, &["-or", "/"]).exits(1);
    let listed = output.stdout_text();
    let output = output.logs(&format!("ERROR: cannot open {}: Permission denied", directory.display()));
    assert!(listed.contains("/d\n") && listed.contains("/f\n") && !listed.contains("/d/f\n"), "{output:?}");
}
