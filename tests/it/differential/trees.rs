//! What a tree may hold, and what may become of it.

use crate::support::differential::{Deviation, Differential, Part};
use crate::support::tree::{Entry, device, file};
use crate::support::{Tree, dir, fifo, link, tree};

/// Ours sends device numbers; the C program, which has none to send, takes them.
fn but_for_device_numbers(differential: Differential<'_>) -> Differential<'_> {
    const WHY: &str = "the C program sends no device numbers";
    differential
        .but(Deviation::missing(Part::Tree, "*: device 0x0 (*", WHY).on("beta"))
        .but(Deviation::extra(Part::Tree, "*: device 0x* (*", WHY).on("beta"))
        .but(Deviation::missing(Part::File, "*dev=0", WHY).on("beta"))
        .but(Deviation::extra(Part::File, "*dev=*", WHY).on("beta"))
        .but(Deviation::missing(Part::Stdout, "*:dev=0\t*", WHY).on("beta"))
        .but(Deviation::extra(Part::Stdout, "*:dev=*\t*", WHY).on("beta"))
}

/// Every type, with attributes of every kind.
fn everything() -> Tree {
    tree! {
        "regular" => "hello\n",
        "empty" => "",
        "big" => "0123456789abcdef".repeat(20_000),
        "setuid" => file("all bits").mode(0o6711).owner(33, 34),
        "sticky" => file("a sticky file").mode(0o1644),
        "no permissions" => file("nobody may read it").mode(0o000),
        "odd owner" => file("owned by somebody far").owner(4_000_000_000, 3_000_000_000),
        "before 1970" => file("-1").mtime(-1),
        "at 1970" => file("zero").mtime(0),
        "after 1970" => file("one second").mtime(1),
        "future" => file("in the next century").mtime(4_102_444_800),
        "dir" => dir().mode(0o2750).owner(7, 100),
        "dir/inside" => "in a directory",
        "empty dir" => dir().mode(0o1777),
        "closed dir" => dir().mode(0o000),
        "link" => link("regular"),
        "dangling" => link("no/such/file"),
        "absolute link" => link("/etc/passwd"),
        "link to dir" => link("dir").owner(5, 6),
        "link with blank" => link("to a file with %41"),
        "long link" => link("x/".repeat(500)),
        "pipe" => fifo().mode(0o620).owner(1, 2),
        "null" => device(1, 3, false).mode(0o666),
        "loop" => device(7, 200, true).mode(0o600),
    }
}

/// The same names with other attributes.
fn changed() -> Tree {
    tree! {
        "regular" => file("hello\n").mode(0o440),
        "empty" => "no more",
        "big" => format!("inserted{}", "0123456789abcdef".repeat(19_999)),
        "setuid" => file("all bits").mode(0o6711).owner(35, 36),
        "sticky" => file("a sticky file").mode(0o0600),
        "odd owner" => file("owned by somebody far").owner(1, 1),
        "before 1970" => file("-1").mtime(1),
        "at 1970" => file("zero").mtime(-1),
        "after 1970" => file("one second").mtime(0),
        "dir" => dir().mode(0o755).owner(7, 101),
        // (With another owner: below a prefix the C program notices no other target.)
        "link" => link("empty").owner(3, 3),
        "link to dir" => link("dir").owner(6, 5),
        "pipe" => fifo().mode(0o600).owner(3, 2).mtime(1_500_000_000),
        "null" => device(1, 3, false).mode(0o600),
    }
}

#[test]
fn every_type_and_attribute() {
    but_for_device_numbers(Differential::of(["alpha", "beta"])).tell(|story| {
        story["alpha"].put(&everything());
        std::fs::hard_link(story["alpha"].path("regular"), story["alpha"].path("hard link")).expect("link");
        story.run("alpha", ["-xv"]);
        story.run("alpha", ["-L"]);
        story.run("beta", ["-L"]);
        story.run("alpha", ["-xv"]);
        story.run("beta", ["-xv"]);
        story["alpha"].put(&changed());
        story.run("alpha", ["-crv", "{alpha.tree}"]);
        story.run("alpha", ["-M"]);
        story.run("alpha", ["-uv"]);
        story.run("beta", ["-xv"]);
    });
}

/// A type, as it is before a change and after it.
fn types() -> [(&'static str, [Entry; 2]); 7] {
    [
        ("file", [file("content"), file("other content")]),
        ("dir", [dir(), dir().mode(0o700)]),
        ("link", [link("somewhere"), link("somewhere").owner(1, 1)]),
        ("fifo", [fifo(), fifo().mode(0o600)]),
        ("chr", [device(0, 0, false), device(0, 0, false).mode(0o600)]),
        ("blk", [device(0, 0, true), device(0, 0, true).mode(0o600)]),
        ("nothing", [dir(), dir()]),
    ]
}

/// One name for each pair of types; directories hold something.
fn each_type_to_each_other() -> [Tree; 2] {
    let mut trees = [tree! {}, tree! {}];
    for (from, [before, _]) in &types() {
        for (to, [_, after]) in &types() {
            for (tree, kind, entry) in [(0, from, before), (1, to, after)] {
                let name = format!("{from} to {to}");
                if *kind != "nothing" {
                    trees[tree] = std::mem::take(&mut trees[tree]).with(&name, entry.clone());
                }
                if *kind == "dir" {
                    let below = [(format!("{name}/deep/down"), file("down there")), (format!("{name}/p"), fifo())];
                    trees[tree] = below
                        .into_iter()
                        .fold(std::mem::take(&mut trees[tree]), |tree, (name, entry)| tree.with(name, entry));
                }
            }
        }
    }
    trees
}

#[test]
fn types_change_into_each_other() {
    const WHY: &str = "a DEL makes sure that a directory is empty, where the C program would wait for ever in PATCH";
    let [before, after] = each_type_to_each_other();
    let once_more = |name| Deviation::extra(Part::Log, &format!("Updated %d%/{name} from {{alpha}}."), WHY).on("beta");
    Differential::of(["alpha", "beta"]).but(once_more("dir to file")).but(once_more("file to dir")).tell(|story| {
        for tree in [&before, &after, &before] {
            story["alpha"].clear();
            story["alpha"].put(tree);
            story.run("alpha", ["-xv"]);
            story.expect_agreement();
        }
        story.run("beta", ["-xv"]);
    });
}

#[test]
fn names_of_every_byte() {
    let mut tree = (1..=255).filter(|byte| *byte != b'/').fold(tree! {}, |tree, byte| {
        let name = if byte == b'.' { vec![b'.', b'x'] } else { vec![byte] };
        tree.with(name, "x".repeat(usize::from(byte)))
    });
    for (index, name) in [
        "with blank",
        " around ",
        "quote's",
        "double\"quote",
        "%41 is not A",
        "%d%",
        "%",
        "%%",
        "%2",
        "new\nline\n",
        "-dash",
        "-x",
        "*[a-z]?{x}",
        "ümläut 日本語",
        "...",
        "..x",
        ".motd.AbCdEf",
        ".f.XXXXXX",
        "~",
        "$PWD",
        "(a)",
        "a;b",
        "{alpha}",
        "a+b=c&d",
    ]
    .iter()
    .enumerate()
    {
        tree = tree.with(name, "y".repeat(index)).with(format!("in {name}/f"), "z");
    }
    tree = tree.with([b'l'; 255], "long").with([b'%'; 255], "long, encoded").with(b"\xff\xfe not UTF-8 \xc3", "bytes");
    tree = tree.with(b"dir \xf0\x28/\xff".as_slice(), link(b"\xfe\xff")).with(b"l\xff", link("x y%"));
    // PostgreSQL takes no bytes that are no UTF-8.
    let last = Deviation::missing(Part::Log, "", "the newline at the end of a name is not printed");
    Differential::of(["alpha", "beta"]).but(last).without_c_on_postgres().tell(|story| {
        story["alpha"].put(&tree);
        story.run("alpha", ["-xv"]);
        story.run("beta", ["-L"]);
        story["alpha"].clear();
        story.run("alpha", ["-crv", "/"]);
        story.run("alpha", ["-M"]);
        story.run("alpha", ["-uv"]);
        story.run("beta", ["-xv"]);
    });
}

#[test]
fn removals() {
    let deep = "a/b/c/d/e/f/g/h";
    let sample = tree! {
        "keep" => "1", format!("{deep}/file") => "22", "a/b/file" => "333", "to rename/x/y" => "4444", "to rename/z" => "55555",
        "to replace/x" => "666666", "again" => "7777777", "again dir/x" => "8", "gone on both sides/x" => "y", "prefix" => "99", "prefixed" => "aaa", "prefix dir/x" => "b",
        "prefix dir-x" => "cc",
    };
    Differential::of(["alpha", "beta"]).tell(|story| {
        let alpha = &story["alpha"];
        alpha.put(&sample);
        story.run("alpha", ["-xv"]);
        let alpha = &story["alpha"];
        alpha.remove("a");
        alpha.rename("to rename", "renamed");
        alpha.rename("to replace", "moved");
        alpha.put(&tree! { "to replace" => link("moved") });
        alpha.remove("again");
        alpha.remove("again dir");
        alpha.remove("prefix");
        alpha.remove("prefix dir");
        story.run("alpha", ["-crv", "/"]);
        story.run("alpha", ["-M"]);
        // Some come back before the removal was pushed.
        story["alpha"].put(&tree! { "again" => "back", "again dir/x" => "8", "a/b/file" => "333" });
        story.run("alpha", ["-xv"]);
        story.expect_agreement();
        // Some after it.
        story["alpha"].put(&tree! { format!("{deep}/file") => "once more", "prefix" => "is back" });
        story.run("alpha", ["-xv"]);
        story["alpha"].remove("moved");
        story["alpha"].remove("to replace");
        story["alpha"].put(&tree! { "to replace/x" => "a directory again" });
        story.run("alpha", ["-xv"]);
        // Gone on both sides, gone on the other side only.
        story["alpha"].remove("keep");
        story["beta"].remove("keep");
        story["beta"].remove("renamed");
        story["alpha"].remove("gone on both sides");
        story["beta"].remove("gone on both sides");
        story.run("alpha", ["-xv"]);
        story.run("beta", ["-xv"]);
        story.expect_agreement();
        story["alpha"].clear();
        story.run("alpha", ["-xv"]);
        story.run("beta", ["-L"]);
    });
}
