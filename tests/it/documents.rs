//! The documents' commands work: every block marked `sh` is run, those of a document one after the other on hosts as it tells
//! of them, and what stands in a block marked `console` is what is printed.
//!
//!     ```sh              run on alpha; `sh beta`: on beta; `sh 1`: ends with this exit status
//!     ```sh norun        not run; docs/testing.md says why
//!     ```console         `alpha# COMMAND`, and what it prints
//!
//!     CSYNC2_WRITE_SCREENS=1 cargo test --test it -- documents      # writes what is printed into the documents
//!
//! What a document leaves to its reader (files, an editor, a daemon) is done here, before the block that needs it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};

use crate::support::Hosts;
use crate::support::cluster::READY;
use crate::support::hosts::Host;

/// What its reader has done before a block, which is known by its first command.
type Before<'a> = (&'a str, &'a [Step]);

enum Step {
    /// Lines of shell, on a host.
    On(&'static str, &'static str),
    Serve(&'static str),
    Stop(&'static str),
}

use Step::{On, Serve, Stop};

/// Three hosts that keep a few files in step.
const PREPARED: [Step; 7] = [
    On(
        "alpha",
        r"mkdir -p /etc/apache2 /srv/www && echo hello > /etc/motd && echo home > /srv/www/index.html
        cat > /etc/csync2.cfg << 'END'
group cluster { host alpha beta gamma; key csync2.key_cluster; include /etc/motd /etc/apache2 %htdocs%; exclude *.tmp; }
prefix htdocs { on *: /srv/www; }
END
        csync2 -k /etc/csync2.key_cluster && csync2 --gen-ssl-cert
        for host in beta gamma; do scp -p /etc/csync2.cfg /etc/csync2.key_cluster $host:/etc/; done",
    ),
    On("beta", "rm -f /etc/motd; mkdir -p /etc/apache2 /srv/www && csync2 --gen-ssl-cert"),
    On("gamma", "rm -f /etc/motd; mkdir -p /etc/apache2 /srv/www && csync2 --gen-ssl-cert"),
    Serve("alpha"),
    Serve("beta"),
    Serve("gamma"),
    On("alpha", "csync2 -x"),
];

fn prepare(hosts: &Hosts) {
    for step in PREPARED {
        step.take(hosts);
    }
}

/// A second configuration.
const TWO: &str = "cp /etc/csync2.cfg /etc/csync2_two.cfg
    for host in beta gamma; do scp /etc/csync2_two.cfg $host:/etc/; done";

#[test]
fn the_walk_through_is_walked() {
    Document::read("docs/walkthrough.md").run(&Hosts::bare(&["alpha", "beta"]), &[]);
}

// One after the other, since both use the database csync2.
#[test]
fn the_commands_of_readme_and_manual_work() {
    let hosts = Hosts::bare(&["alpha", "beta"]);
    hosts.serve_postgres();
    let include = "mkdir /srv/www; sed -i 's,# include /etc/apache2;,include /srv/www;,' /etc/csync2.cfg";
    Document::read("README.md").run(
        &hosts,
        &[
            ("csync2 --init", &[On("alpha", include)]),
            ("csync2 -cr /", &[Serve("alpha")]),
            (
                "csync2 --join alpha",
                &[
                    On("alpha", "scp -p /etc/csync2.cfg /etc/csync2.key_cluster beta:/etc/"),
                    On("beta", "csync2 --init"),
                    Serve("beta"),
                ],
            ),
            (
                "alpha# csync2 --status",
                &[Stop("beta"), On("alpha", "echo news > /srv/www/news.html; csync2 -x 2> /dev/null || :")],
            ),
            ("csync2 -D pgsql://csync2@localhost/csync2 -x", &[Serve("beta")]),
        ],
    );
    drop(hosts);
    let hosts = Hosts::bare(&["alpha", "beta", "gamma"]);
    hosts.serve_postgres();
    prepare(&hosts);
    Document::read("docs/manual.md").run(
        &hosts,
        &[
            ("csync2 -c /etc/motd", &[On("alpha", TWO)]),
            ("csync2 -TUI alpha beta && csync2 -u -P beta", &[On("alpha", "echo one > /srv/www/one; csync2 -cIr /")]),
            ("csync2 -T", &[On("alpha", "echo another > /etc/motd; csync2 -cIr /")]),
            ("csync2 -TUI alpha beta && csync2 -u", &[On("beta", "echo two > /srv/www/two; csync2 -cIr /")]),
            ("csync2 --gen-ssl-cert", &[On("alpha", "rm /etc/csync2_ssl_*.pem")]),
            // beta is replaced by a new machine.
            (
                "csync2 --init",
                &[
                    On("beta", "csync2 --rm-ssl-cert alpha"),
                    On("gamma", "csync2 --rm-ssl-cert alpha"),
                    On("alpha", "csync2 -T || [ $? = 2 ]"),
                    Stop("beta"),
                    On("beta", "rm /etc/csync2_ssl_*.pem /var/lib/csync2/*; echo other > /etc/motd"),
                ],
            ),
            ("csync2 --rm-ssl-cert beta", &[Serve("beta")]),
            (
                "csync2 -D /srv/csync2-state -x",
                &[
                    On("alpha", "mkdir /srv/csync2-state; csync2 --rm-ssl-cert beta"),
                    On("alpha", "dropdb -h db.example.net -U csync2 csync2"),
                    On("beta", "csync2 --join alpha"),
                ],
            ),
            (
                "csync2 --import-db /var/lib/csync2 -D pgsql://csync2@db.example.net/csync2",
                &[On("alpha", "dropdb -h db.example.net -U csync2 csync2")],
            ),
        ],
    );
}

#[test]
fn the_commands_of_operations_and_migration_work() {
    let hosts = Hosts::bare(&["alpha", "beta", "gamma"]);
    hosts.serve_postgres();
    prepare(&hosts);
    Document::read("docs/operations.md").run(&hosts, &[]);
    let changed = "echo changed > /etc/motd; csync2 -cr /";
    let url = "csync2 --import-db /var/lib/csync2 -D pgsql://csync2@db.example.net/csync2_alpha";
    Document::read("docs/migration.md").run(&hosts, &[(url, &[On("alpha", changed)])]);
}

/// The documents that the tests above run.
const RUN: [&str; 5] =
    ["README.md", "docs/manual.md", "docs/migration.md", "docs/operations.md", "docs/walkthrough.md"];

/// Every block is run by a test, or marked. The commands that no test runs are those of the table, which has the reasons.
#[test]
fn what_is_not_run_has_a_reason() {
    let testing = Document::read("docs/testing.md").text;
    let table = testing.split_once("\n## Commands of the documents\n").expect("the section").1;
    let table = table.split_once("\n## ").map_or(table, |(table, _)| table);
    let cells = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let excused: BTreeSet<String> = cells.map(|(command, _)| command.replace("\\|", "|")).collect();
    let mut marked = BTreeSet::new();
    for name in all() {
        for block in Document::read(&name).blocks {
            let is_told =
                RUN.contains(&name.as_str()) || block.words.is_empty() || block.words.contains(&"norun".to_owned());
            assert!(is_told || block.words == ["sql"], "{name}:{}: no test runs this document", block.line);
            if block.words.first().is_some_and(|word| word == "sh") && block.words.contains(&"norun".to_owned()) {
                marked.insert(block.name().to_owned());
            }
            let is_command = |line: &&str| {
                ["csync2 ", "cargo ", "systemctl ", "openssl ", "tests/"]
                    .iter()
                    .any(|program| line.starts_with(program))
            };
            let is_marked =
                !block.words.is_empty() || block.text.lines().next().is_some_and(|line| line.starts_with("csync2 ["));
            let unmarked = block.text.lines().find(is_command).filter(|_| !is_marked);
            assert_eq!(unmarked, None, "{name}:{}: a command in a block that is not marked `sh`", block.line);
        }
    }
    assert_eq!(marked, excused, "blocks marked `norun`, and the table in docs/testing.md");
}

/// All documents, as paths in the repository, but for two whose commands are the tests and benches themselves.
fn all() -> Vec<String> {
    let docs = fs::read_dir(root().join("docs")).expect("read docs");
    let names = docs.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"));
    let mut names: Vec<String> = names
        .filter(|name| !["testing.md", "performance.md"].contains(&name.as_str()))
        .map(|name| format!("docs/{name}"))
        .collect();
    names.push("README.md".to_owned());
    names.sort();
    names
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

struct Document {
    name: String,
    text: String,
    blocks: Vec<Block>,
}

/// A block of code.
struct Block {
    line: usize,
    /// What stands behind the fence; nothing for one that is indented.
    words: Vec<String>,
    text: String,
}

impl Block {
    /// How its first command begins.
    fn name(&self) -> &str {
        let line = self.text.lines().find(|line| !line.starts_with('#')).unwrap_or_default();
        line.split("  ").next().unwrap_or_default().trim_end_matches(" \\")
    }
}

impl Document {
    fn read(name: &str) -> Self {
        let text = fs::read_to_string(root().join(name)).expect("read a document");
        let mut blocks = Vec::new();
        let mut events = Parser::new(&text).into_offset_iter();
        while let Some((event, range)) = events.next() {
            let Event::Start(Tag::CodeBlock(kind)) = event else { continue };
            let words = match kind {
                CodeBlockKind::Fenced(info) => info.split_whitespace().map(str::to_owned).collect(),
                CodeBlockKind::Indented => Vec::new(),
            };
            let mut block = Block { line: text[..range.start].matches('\n').count() + 1, words, text: String::new() };
            for (event, _) in events.by_ref() {
                match event {
                    Event::Text(text) => block.text.push_str(&text),
                    Event::End(TagEnd::CodeBlock) => break,
                    _ => {}
                }
            }
            blocks.push(block);
        }
        Self { name: name.to_owned(), text, blocks }
    }

    /// Runs the blocks in their order.
    #[track_caller]
    fn run(&self, hosts: &Hosts, before: &[Before<'_>]) {
        let mut before = before.iter().peekable();
        let mut written = self.text.clone();
        for block in &self.blocks {
            let words: Vec<&str> = block.words.iter().map(String::as_str).collect();
            if let Some((_, steps)) = before.next_if(|(name, _)| block.name() == *name) {
                for step in *steps {
                    step.take(hosts);
                }
            }
            match words.as_slice() {
                ["sh"] => self.commands(&hosts["alpha"], block, 0),
                ["sh", "norun"] => {}
                ["sh", word] => match word.parse() {
                    Ok(code) => self.commands(&hosts["alpha"], block, code),
                    Err(_) => self.commands(&hosts[word], block, 0),
                },
                ["console"] => {
                    let seen = screen(hosts, &block.text);
                    if std::env::var_os("CSYNC2_WRITE_SCREENS").is_none() {
                        let shape = |text: &str| text.lines().map(shape_of).collect::<Vec<_>>().join("\n");
                        let (expected, seen) = (shape(&block.text), shape(&seen));
                        assert!(
                            expected == seen,
                            "{}:{} shows\n{expected}\nand seen is\n{seen}",
                            self.name,
                            block.line
                        );
                    }
                    written = written.replacen(&block.text, &seen, 1);
                }
                _ => {}
            }
        }
        assert!(before.next().is_none(), "{}: no block begins as the steps say", self.name);
        if std::env::var_os("CSYNC2_WRITE_SCREENS").is_some() {
            fs::write(root().join(&self.name), written).expect("write the document");
        }
    }

    #[track_caller]
    fn commands(&self, host: &Host, block: &Block, code: i32) {
        let output = host.shell(&block.text);
        assert_eq!(output.code, Some(code), "{}:{}: {output:?}", self.name, block.line);
    }
}

impl Step {
    #[track_caller]
    fn take(&self, hosts: &Hosts) {
        match self {
            On(host, commands) => drop(hosts[host].shell(commands).success()),
            Serve(host) => hosts[host].serve(),
            Stop(host) => hosts[host].stop(),
        }
    }
}

/// The commands behind prompts, `alpha# `, and what each prints. `csync2 -ii &` serves, until `kill %1`.
fn screen(hosts: &Hosts, text: &str) -> String {
    let mut seen = String::new();
    for line in text.lines() {
        let Some((host, command)) = line.split_once("# ").filter(|(host, _)| host.chars().all(char::is_alphabetic))
        else {
            continue;
        };
        let _ = writeln!(seen, "{line}");
        match command {
            "csync2 -ii &" => {
                hosts[host].serve();
                let _ = writeln!(seen, "{READY}");
            }
            "kill %1" => hosts[host].stop(),
            command => {
                let output = hosts[host].shell(&format!("exec 2>&1; set +e; {command}"));
                seen.push_str(&output.stdout_text());
            }
        }
    }
    seen
}

/// A line without what differs from time to time: times, durations, fingerprints.
fn shape_of(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let mut shape: Vec<String> = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let next = words.get(at + 1).copied().unwrap_or_default();
        let like = |pattern: &str| fits(pattern, word.trim_start_matches('(').trim_end_matches([',', ')', '.']));
        let is_age = ["s", "min", "h", "d"].contains(&next) && word.trim_start_matches('(').parse::<u64>().is_ok();
        shape.push(match () {
            () if word.matches(':').count() > 20 => "FINGERPRINT".to_owned(),
            () if like("0000-00-00") => "DATE".to_owned(),
            () if like("00:00:00") => "TIME".to_owned(),
            () if word.starts_with("age=") => "AGE".to_owned(),
            () if word.starts_with("v1:mtime=") => word.chars().filter(|one| !one.is_ascii_digit()).collect(),
            () if is_age => "AGE".to_owned(),
            () if next.starts_with('s') && next.len() < 3 && word.parse::<f64>().is_ok() => "SECONDS".to_owned(),
            () => (*word).to_owned(),
        });
    }
    shape.join(" ")
}

/// Whether the text is the pattern, with digits for zeros.
fn fits(pattern: &str, text: &str) -> bool {
    let is_like = |(wanted, one): (char, char)| if wanted == '0' { one.is_ascii_digit() } else { wanted == one };
    pattern.len() == text.len() && pattern.chars().zip(text.chars()).all(is_like)
}
