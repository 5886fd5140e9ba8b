//! What ours says of a conflict, and what the C program does not see or hangs over.

use std::fs;
use std::path::Path;

use super::NOW;
use crate::support::cast::Backend;
use crate::support::tree::{Entry, file};
use crate::support::{Cast, Program, Tree, dir, link};

/// A conflict that is lost says which file and peer, why, and what can be done; one that is won is no error.
#[test]
fn the_log_says_who_won_and_what_can_be_done() {
    let cast = Cast::plain(Program::Ours, Program::Ours);
    let group =
        |name: &str| format!("group {{ host {{alpha}} {{beta}}; key demo.key; include %d%/{name}; auto {name}; }}\n");
    let prefix = "prefix d { on {alpha}: {alpha.tree}; on {beta}: {beta.tree}; }\n";
    let names = ["none", "first", "younger", "older", "bigger", "smaller", "right"];
    let cluster = cast.cluster(["alpha", "beta"]).config(&(prefix.to_owned() + &names.map(group).concat())).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let all = |entry: &Entry| {
        names.iter().fold(Tree::new(), |tree, name| {
            tree.with(format!("{name}/f"), entry.clone()).with(format!("{name}/gone"), entry.clone())
        })
    };
    for node in cluster.nodes() {
        node.put(&all(&file("old")));
        node.csync2(["-cIr", "/"]).success();
    }
    beta.put(&all(&file("beta's own").mtime(NOW)));
    alpha.put(&all(&file("alpha's own").mtime(NOW - 1)));
    for name in names {
        alpha.remove(format!("{name}/gone"));
    }

    // Won everywhere: no error.
    let first = alpha.path("first").into_os_string();
    alpha.csync2(["-cr".as_ref(), first.as_os_str()]).success();
    let won = "Auto-resolving conflict: Won 'first' test.";
    alpha
        .csync2(["-u"])
        .success()
        .logs(&cluster.fill_in(&format!("{won} %d%/first/f goes to {{beta}}, where it was changed as well.\n")))
        .logs(&cluster.fill_in(&format!("{won} The removal of %d%/first/gone goes to {{beta}}, where it was changed")));

    let output = alpha.csync2(["-x"]).exits(1).logs("Finished with 10 errors.");
    for (name, test, because) in [
        ("younger", "younger/older", "ours is not younger"),
        ("smaller", "bigger/smaller", "ours is bigger"),
        ("right", "left/right", "we are listed left of it"),
    ] {
        let line = format!("Do not auto-resolve conflict: Lost '{test}' test. %d%/{name}/f on {{beta}}: {because}.\n");
        let remedy = format!(
            "ERROR: {{beta}}: %d%/{name}/f: File is also marked dirty here! Changed on both sides. If this host shall win: \
             `csync2 -f {{alpha.tree}}/{name}/f`, then `csync2 -u`; if {{beta}} shall win, the same there.\n"
        );
        for line in [line, remedy] {
            assert!(output.stderr_text().contains(&cluster.fill_in(&line)), "{line}: {output:?}");
        }
    }
    let removal =
        "Do not auto-resolve conflict: This is a removal. %d%/bigger/gone was removed here and changed on {beta}.\n";
    assert!(output.stderr_text().contains(&cluster.fill_in(removal)), "{output:?}");
    assert!(!output.stderr_text().contains("Lost 'none'") && !output.stderr_text().contains("%d%/first"), "{output:?}");
    // Does what is advised help?
    for name in names {
        alpha.csync2(["-f".as_ref(), alpha.path(format!("{name}/f")).as_os_str()]).success();
        beta.csync2(["-f".as_ref(), beta.path(format!("{name}/gone")).as_os_str()]).success();
    }
    alpha.serve();
    beta.csync2(["-u"]).exits(1);
    alpha.csync2(["-u"]).success();
    cluster.expect_agreement();
    alpha.expect_clean();
    beta.expect_clean();
}

/// What the C program takes for equal or hangs over: links below a prefix, and a directory with something in it where the
/// other side has a file.
#[test]
fn links_and_filled_directories_are_conflicts_too() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let cast = Cast { client: Program::Ours, server: Program::Ours, tls: false, backend };
        let cluster = cast.cluster(["alpha", "beta"]).start();
        let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
        for node in cluster.nodes() {
            node.put(&Tree::new().with("link", link("old")).with("filled", "old").with("emptied", dir().mtime(NOW)));
            node.csync2(["-cIr", "/"]).success();
        }
        alpha.put(&Tree::new().with("link", link("here")).with("filled", "a file of alpha"));
        beta.put(&Tree::new().with("link", link("there")).with("filled", dir()).with("filled/f", "beta"));
        beta.put(&Tree::new().with("emptied/new", "made while alpha removed the directory"));
        alpha.remove("emptied");
        alpha
            .csync2(["-x"])
            .exits(1)
            .logs("%d%/link: File is also marked dirty here!")
            .logs("%d%/filled: File is also")
            .logs("%d%/emptied: ");
        assert!(beta.path("filled/f").exists() && beta.path("emptied/new").exists());
        // Forced as well, a file takes no directory's place as long as something is in it.
        alpha.csync2(["-fr", "/"]).success();
        alpha.csync2(["-u"]).exits(1).logs("%d%/filled: Directory not empty").logs("%d%/emptied: Directory not empty");
        assert_eq!(fs::read_link(beta.path("link")).expect("a link"), Path::new("here"));
        alpha.serve();
        let both = ["filled", "emptied"].map(|name| format!("%d%/{name}: File is also marked dirty here!"));
        beta.csync2(["-x"]).exits(1).logs(&both[0]).logs(&both[1]);
        beta.csync2(["-fr", "/"]).success();
        beta.csync2(["-u"]).success();
        cluster.expect_agreement();
        alpha.csync2(["-x"]).success();
        beta.csync2(["-x"]).success();
        alpha.expect_clean();
        beta.expect_clean();
    }
}
