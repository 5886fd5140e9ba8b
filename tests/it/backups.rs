//! Copies of what a peer's commands replace or remove: where they lie, what they keep, and what happens when there is no
//! place for them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::support::cluster::Node;
use crate::support::tree::file;
use crate::support::{Cast, Program, Table, Tree, dir, fifo, link, scenarios, tree};

scenarios! { tls:
    copies_lie_where_they_did_with_owner_and_mode
}

scenarios! { ours:
    every_command_that_replaces_a_file_backs_it_up
    a_refused_update_costs_no_older_copy
    an_unusable_backup_directory_refuses_the_update_alone
}

/// Where a copy of a node's file lies below a backup directory.
fn copy_of(backups: &Path, node: &Node, name: &str) -> PathBuf {
    backups.join(node.path(name).strip_prefix("/").expect("an absolute path"))
}

fn content(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn copies_lie_where_they_did_with_owner_and_mode(cast: Cast) {
    let config = "\
        group one { host {alpha} {beta}; key demo.key; include %d%; backup-directory {dir}/one; }\n\
        group two { host {alpha} {beta}; key demo.key; include %d%/d;\n\
            backup-directory {dir}/missing/two; backup-generations 2; }\n\
        group none { host {alpha} {beta}; key demo.key; include %d%; backup-directory {dir}/none; backup-generations 1; }\n\
        prefix d { on {alpha}: {alpha.tree}; on {beta}: {beta.tree}; }\n";
    let cluster = cast.cluster(["alpha", "beta"]).config(config).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    if cast.client == Program::Ours {
        let warning = "lies among the files that are kept in step";
        alpha.csync2(["-Mv"]).exits(2).logs_no(warning);
        let text = fs::read_to_string(alpha.system_dir().join("csync2.cfg")).expect("read the config");
        let shared = text.replace(&format!("{}/one;", cluster.directory().display()), "{alpha.tree}/backups;");
        fs::write(alpha.system_dir().join("csync2.cfg"), cluster.fill_in(&shared)).expect("write the config");
        alpha.csync2(["-Mv"]).exits(2).logs(warning);
        fs::write(alpha.system_dir().join("csync2.cfg"), text).expect("write the config");
    }
    let (one, two) = (cluster.directory().join("one"), cluster.directory().join("missing/two"));
    alpha.put(&tree! {
        "f" => file("plain").mode(0o640).owner(12, 34).mtime(981_173_106),
        "d/with blank" => file("#!/bin/sh").mode(0o4751).owner(56, 78).mtime(981_173_107),
        "d/removed" => "goes",
    });
    alpha.csync2(["-x"]).success();
    assert!(!one.exists() && !two.exists(), "what is new replaces nothing");
    alpha.put(&tree! { "f" => "changed", "d/with blank" => "changed as well" });
    alpha.remove("d/removed");
    alpha.csync2(["-x"]).success();
    for (backups, name, expected, attributes) in [
        (&one, "f", "plain", (0o100_640, 12, 34, 981_173_106)),
        (&one, "d/with blank", "#!/bin/sh", (0o104_751, 56, 78, 981_173_107)),
        (&two, "d/with blank", "#!/bin/sh", (0o104_751, 56, 78, 981_173_107)),
    ] {
        let copy = copy_of(backups, beta, name);
        assert_eq!(content(&copy).as_deref(), Some(expected), "{}", copy.display());
        let found = fs::metadata(&copy).expect("stat");
        assert_eq!((found.mode(), found.uid(), found.gid()), (attributes.0, attributes.1, attributes.2));
        // The C program's copies have the time at which they were made.
        assert!(cast.server == Program::Reference || found.mtime() == attributes.3, "{}", found.mtime());
    }
    for backups in [&one, &two] {
        assert_eq!(content(&copy_of(backups, beta, "d/removed")).as_deref(), Some("goes"));
        assert!(!copy_of(backups, alpha, "d").exists(), "only what a peer changes is backed up");
    }
    assert!(!copy_of(&two, beta, "f").exists() && !cluster.directory().join("none").exists());
}

fn every_command_that_replaces_a_file_backs_it_up(cast: Cast) {
    let group = "backup-directory {dir}/backups; backup-generations 3;";
    let cluster = cast.cluster(["alpha", "beta"]).in_group(group).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let backups = cluster.directory().join("backups");
    let names = ["patched", "removed", "to dir", "to link", "to fifo"];
    let round = |length: usize| {
        names.iter().fold(Tree::new(), |tree, name| tree.with(*name, file(&"x".repeat(length)).mtime(1_000_000_000)))
    };
    alpha.put(&round(1));
    alpha.csync2(["-x"]).success().silent();
    alpha.put(&tree! { "patched" => "new" });
    for name in &names[1..] {
        alpha.remove(name);
    }
    let others = tree! { "to dir" => dir(), "to link" => link("/nowhere"), "to fifo" => fifo() };
    alpha.put(&others);
    alpha.csync2(["-x"]).success().silent();
    for name in names {
        let copy = copy_of(&backups, beta, name);
        assert_eq!(content(&copy).as_deref(), Some("x"), "{name}");
        assert_eq!(fs::metadata(&copy).expect("stat").mtime(), 1_000_000_000);
    }

    // What is no regular file is never opened, and leaves no copy.
    for name in &names[2..] {
        alpha.remove(name);
    }
    alpha.csync2(["-x"]).success().silent();
    // As many copies as there are generations, however often a file changes; what is a directory by now and was a file.
    for length in 2..6 {
        alpha.put(&round(length));
        alpha.csync2(["-x"]).success().silent();
    }
    let copies = |name: &str| {
        let copy = |suffix: &str| content(&copy_of(&backups, beta, &format!("{name}{suffix}"))).map(|text| text.len());
        ["", ".1", ".2", ".3"].map(copy)
    };
    assert_eq!(copies("patched"), [Some(4), Some(3), Some(2), None]);
    assert_eq!(copies("to link"), [Some(4), Some(3), Some(2), None]);
    alpha.remove("patched");
    alpha.put(&tree! { "patched/below" => "1234567" });
    alpha.csync2(["-x"]).success().silent();
    alpha.remove("patched/below");
    alpha.csync2(["-x"]).success().silent();
    assert_eq!(content(&copy_of(&backups, beta, "patched/below")).as_deref(), Some("1234567"));
    assert_eq!(copies("patched"), [None, Some(5), Some(4), None]);
    cluster.expect_agreement();
}

/// A file with a change of the receiver's own stays, and so do its backups.
fn a_refused_update_costs_no_older_copy(cast: Cast) {
    let group = "backup-directory {dir}/backups; backup-generations 2;";
    let cluster = cast.cluster(["alpha", "beta"]).in_group(group).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let backups = cluster.directory().join("backups");
    for text in ["1", "22", "333"] {
        alpha.put(&tree! { "f" => text });
        alpha.csync2(["-x"]).success();
    }
    let copies = || ["f", "f.1", "f.2"].map(|name| content(&copy_of(&backups, beta, name)));
    assert_eq!(copies(), [Some("22".into()), Some("1".into()), None]);
    beta.put(&tree! { "f" => "changed here" });
    alpha.put(&tree! { "f" => "4444" });
    alpha.csync2(["-x"]).exits(1);
    assert_eq!(copies(), [Some("22".into()), Some("1".into()), None]);
    assert_eq!(beta.read("f"), "changed here");
}

fn an_unusable_backup_directory_refuses_the_update_alone(cast: Cast) {
    let config = "\
        group all { host {alpha} {beta}; key demo.key; include %d%; }\n\
        group kept { host {alpha} {beta}; key demo.key; include %d%/kept; backup-directory {dir}/backups; }\n\
        prefix d { on {alpha}: {alpha.tree}; on {beta}: {beta.tree}; }\n";
    let cluster = cast.cluster(["alpha", "beta"]).config(config).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let backups = cluster.directory().join("backups");
    fs::write(&backups, "no directory").expect("write");
    alpha.put(&tree! { "kept/f" => "first", "kept/gone" => "first", "kept/other" => "first", "z" => "first" });
    alpha.csync2(["-x"]).success();
    alpha.put(&tree! { "kept/f" => "the second", "z" => "the second" });
    alpha.remove("kept/gone");
    alpha.remove("kept/other");
    alpha.put(&tree! { "kept/other" => dir() });
    let output = alpha.csync2(["-x"]).exits(1);
    for name in ["kept/f", "kept/gone", "kept/other"] {
        assert!(output.stderr_text().lines().any(|line| line.contains(name) && line.contains("Backup failed: ")));
        assert_eq!(beta.read(name), "first");
    }
    assert_eq!(beta.read("z"), "the second", "the session goes on");
    let (file, backups_shown) = (beta.path("kept/f"), backups.display());
    let message = format!("<2> ERROR: cannot back up {} to {backups_shown}: Not a directory.", file.display());
    beta.daemon().wait_for(&message);
    assert_eq!(beta.rows(Table::Dirty), [""; 0]);

    fs::remove_file(&backups).expect("remove");
    alpha.csync2(["-x"]).success();
    cluster.expect_agreement();
    assert_eq!(content(&copy_of(&backups, beta, "kept/gone")).as_deref(), Some("first"));
}
