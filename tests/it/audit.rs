//! What is linked in, and where the compiler is asked to look away: deny.toml and docs/SECURITY.md say it, and it is true.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::process::run;

fn source(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

/// The licences that deny.toml allows.
fn allowed() -> Vec<String> {
    let deny = source("deny.toml");
    let list = deny.split_once("\nallow = [").expect("a list").1.split_once(']').expect("its end").0;
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether an expression of SPDX names, OR, AND and parentheses (and the slash of old ones) can be met by those.
fn is_met(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let (met, rest) = either(&words, allowed);
    assert!(rest.is_empty(), "{expression}");
    met
}

fn either<'w>(words: &'w [&'w str], allowed: &[String]) -> (bool, &'w [&'w str]) {
    let (mut met, mut rest) = both(words, allowed);
    while let ["OR", more @ ..] = rest {
        let (other, left) = both(more, allowed);
        (met, rest) = (met || other, left);
    }
    (met, rest)
}

fn both<'w>(words: &'w [&'w str], allowed: &[String]) -> (bool, &'w [&'w str]) {
    let (mut met, mut rest) = one(words, allowed);
    while let ["AND", more @ ..] = rest {
        let (other, left) = one(more, allowed);
        (met, rest) = (met && other, left);
    }
    (met, rest)
}

fn one<'w>(words: &'w [&'w str], allowed: &[String]) -> (bool, &'w [&'w str]) {
    match words {
        ["(", more @ ..] => {
            let (met, rest) = either(more, allowed);
            (met, rest.strip_prefix(&[")"]).expect("a closing parenthesis"))
        }
        [_, "WITH", _, rest @ ..] => (false, rest),
        [name, rest @ ..] => (allowed.iter().any(|known| known == name), rest),
        [] => (false, &[]),
    }
}

#[test]
fn expressions_of_licences_are_understood() {
    let allowed = ["MIT".to_owned(), "ISC".to_owned()];
    for (expression, met) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("Apache-2.0/MIT", true),
        ("(GPL-3.0 OR MIT) AND ISC", true),
        ("ISC AND (GPL-3.0 OR Zlib)", false),
        ("MIT WITH exception OR ISC", true),
        ("MIT WITH exception", false),
        ("", false),
    ] {
        assert_eq!(is_met(expression, &allowed), met, "{expression}");
    }
}

#[test]
fn every_dependency_has_a_licence_that_is_allowed() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["tree", "--locked", "--offline", "--target", "all"]);
    cargo.args(["--edges", "normal,build,dev", "--no-dedupe", "--prefix", "none", "--format", "{p}\t{l}"]);
    let listed = run(cargo).success().stdout_text();
    let mut lines: Vec<&str> = listed.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    assert!(lines.len() > 100, "{listed}");
    let allowed = allowed();
    for line in lines {
        let (package, licence) = line.split_once('\t').expect("a package and its licence");
        assert!(is_met(licence, &allowed), "{package}: `{licence}' is not allowed by deny.toml");
    }
}

#[test]
fn every_dependency_comes_from_the_registry_and_none_is_banned() {
    let (lock, deny) = (source("Cargo.lock"), source("deny.toml"));
    let sources = lock.lines().filter_map(|line| line.strip_prefix("source = "));
    for source in sources {
        assert_eq!(source, "\"registry+https://github.com/rust-lang/crates.io-index\"");
    }
    let bans = deny.split_once("\ndeny = [").expect("the bans").1.split_once("\n]").expect("their end").0;
    for ban in bans.lines().filter(|line| line.contains("name = ") && !line.contains("wrappers")) {
        let name = ban.split('"').nth(1).expect("a name");
        assert!(!lock.contains(&format!("\nname = \"{name}\"\n")), "{name} is banned by deny.toml");
    }
}

/// The files below `directory` that hold Rust.
fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("read src") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_unsafe_block_is_audited() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("read a source");
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| line.contains("unsafe {")) {
            let name = file.strip_prefix(root).expect("below the root").display().to_string();
            let above = lines[..number].iter().rev().take(4);
            assert!(
                above.into_iter().any(|line| line.contains("// SAFETY: ")),
                "{name}:{}: no reason: {line}",
                number + 1
            );
            *found.entry(name).or_default() += 1;
        }
        for kind in ["unsafe fn", "unsafe impl", "unsafe trait", "unsafe extern"] {
            assert!(!text.contains(kind), "{}: {kind}", file.display());
        }
    }
    let document = source("docs/SECURITY.md");
    let table = document.split_once("\n## Unsafe code\n").expect("the section").1;
    let table = table.split_once("\n## ").map_or(table, |(table, _)| table);
    let listed: BTreeMap<String, usize> = table
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
            Some((cells.next()?.trim_end_matches('`').to_owned(), cells.next()?.parse().ok()?))
        })
        .collect();
    assert_eq!(found, listed, "the table of docs/SECURITY.md");
}
