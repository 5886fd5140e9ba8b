//! Makes configurations and trees for them. What both programs understand differently, for good reasons, is not made:
//! see the comments.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::support::{Tree, dir, fifo, link};

/// A configuration (`{alpha}` is our host, `{alpha.tree}` the tree), what stands in the tree, and what is asked.
#[derive(Clone)]
pub(super) struct Case {
    pub(super) config: String,
    pub(super) tree: Tree,
    /// Names relative to the tree, existing or not.
    pub(super) operands: Vec<&'static str>,
    pub(super) groups: &'static str,
    pub(super) peers: &'static str,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Case { config, tree, operands, groups, peers } = self;
        write!(f, "\n{config}\n{tree:?}\noperands {operands:?}, -G {groups}, -P {peers}")
    }
}

pub(super) fn case() -> impl Strategy<Value = Case> {
    let groups = select(vec!["group_1", "two", "group_1,two", "two,none", "group_3"]);
    let peers = select(vec!["b.example", "c.example,e-if", "B.example", "none"]);
    (configuration(), tree(), subsequence(OPERANDS, 1..8), groups, peers)
        .prop_map(|(config, tree, operands, groups, peers)| Case { config, tree, operands, groups, peers })
}

const OPERANDS: &[&str] = &[
    ".",
    "a",
    "a/b",
    "a/b/x.c",
    "a/x.c",
    "a/y~",
    "a/.d/x.c",
    "a/a/a",
    "b",
    "b/*",
    "b/link/z",
    "link",
    "p",
    "p/a/x.c",
    "%z",
    "none/here",
    "x.c",
    "with blank",
    "with blank/f",
    "fifo",
    "..",
];

fn tree() -> impl Strategy<Value = Tree> {
    let files = [
        "a/x.c",
        "a/y~",
        "a/b/x.c",
        "a/b/z",
        "a/.d/x.c",
        "a/a/a/x.c",
        "b/a/b/z",
        "b/x.c",
        "b/*",
        ".d/a/z",
        ".d/.z",
        "%z",
        "p/a/x.c",
        "p/b/b/z",
        "x.c",
        "with blank/f",
        "with blank/per%41cent",
        "a/new\nline",
        "p/ümläut",
        "b/quote'\"s",
    ];
    let kinds = |files: Vec<&'static str>| files.into_iter().fold(Tree::new(), |tree, name| tree.with(name, name));
    (subsequence(files.to_vec(), 8..20), any::<[bool; 4]>()).prop_map(move |(files, [links, empty, odd, pipe])| {
        let mut tree = kinds(files);
        if links {
            tree = tree.with("link", link("a")).with("b/link", link("../a/b")).with("p/link", link("none"));
        }
        if empty {
            tree = tree.with("a/empty", dir()).with("p/empty.c", dir()).with("c", dir());
        }
        if odd {
            tree = tree.with(b"a/\xff\xfe.c", "no UTF-8").with(b"p/\xc3", "no UTF-8");
        }
        if pipe {
            tree = tree.with("fifo", fifo()).with("a/b/fifo.c", fifo());
        }
        tree
    })
}

fn configuration() -> impl Strategy<Value = String> {
    let groups = vec(group(), 1..4).prop_map(|groups| {
        let heads = ["group", "group two", "group"];
        let blocks = heads.iter().zip(groups).map(|(head, group)| format!("{head}\n{{\n{group}}}\n"));
        blocks.collect::<Vec<_>>().concat()
    });
    (prefix("p"), prefix("q"), settings(), groups)
        .prop_map(|(p, q, settings, groups)| [p, q, settings, groups].concat())
}

/// Each name once: in the C program a block that another one replaces still leads the walk to its directory.
fn prefix(name: &'static str) -> impl Strategy<Value = String> {
    let directory = select(vec!["p", "a", "a/b", "", "b/"]);
    let line = (directory, select(vec!["*", "{alpha}", "127.*", "x"]))
        .prop_map(|(directory, host)| format!("    on {host}: {{alpha.tree}}/{directory};\n").replace("/;", ";"));
    prop_oneof![
        Just(String::new()),
        vec(line, 1..3).prop_map(move |lines| format!("prefix {name}\n{{\n{}}}\n", lines.concat()))
    ]
}

/// Statements that change nothing here but what is recorded.
fn settings() -> impl Strategy<Value = String> {
    let known = [
        "nossl * *;\n",
        "nossl {alpha} b.example; # a comment\n",
        "ignore uid gid;\n",
        "ignore mod;\n",
        "lock-timeout 30;\n",
        "tempdir /tmp;\n",
    ];
    subsequence(known.to_vec(), 0..4).prop_map(|lines| lines.concat())
}

fn group() -> impl Strategy<Value = String> {
    let kind = select(vec!["include", "include", "include", "exclude", "compare"]);
    // Of `compare a b` the C program takes `a` for an include, and so do we.
    let rule =
        (kind, vec(pattern(), 0..4)).prop_map(|(kind, patterns)| format!("    {kind} {};\n", patterns.join(" ")));
    let other = select(vec![
        "    auto younger;\n",
        "    backup-directory /tmp;\n    backup-generations 2;\n",
        "    auto left;\n",
        "",
    ]);
    (hosts(), vec(rule, 1..6), other)
        .prop_map(|(hosts, rules, other)| format!("    {hosts}\n    key demo.key;\n{}{other}", rules.concat()))
}

fn hosts() -> impl Strategy<Value = String> {
    let me = select(vec!["{alpha}", "{alpha}", "{alpha}@my-if", "({alpha})", "(b.example {alpha}@my-if)"]);
    let peers = subsequence(
        vec!["b.example", "c.example", "(d.example)", "e.example@e-if", "B.example", "(f.example g.example@e-if)"],
        0..6,
    );
    (peers, me, 0..7_usize, any::<bool>()).prop_map(|(mut hosts, me, place, split)| {
        hosts.insert(place.min(hosts.len()), me);
        hosts.join(if split { "; host " } else { " " }).replacen("", "host ", 1) + ";"
    })
}

fn pattern() -> impl Strategy<Value = String> {
    let component = select(vec![
        "a", "b", "*", "**", "?", "[ab]", "x.c", "*.c", "**.c", ".d", "a**", "p", ".*", "[!a]", "z", "\\*", "link",
        "ü*", "empty*",
    ]);
    let tops = vec!["{alpha.tree}", "{alpha.tree}", "{alpha.tree}/*", "{alpha.tree}/a", "%p%", "%q%", "%*", "/"];
    let path = (select(tops), vec(component, 0..4), 0..3_usize)
        .prop_map(|(top, rest, slashes)| [vec![top], rest, vec![""; slashes]].concat().join("/"));
    let basename = select(vec!["*.c", "a", "b/", "*~", ".*", "x*", "\\*", "%*", "[!a]*", "*", "f*", "\"with blank\""]);
    let quoted = Just("\"{alpha.tree}/with blank\"".to_owned());
    prop_oneof![10 => path, 2 => basename.prop_map(str::to_owned), 1 => quoted]
}
