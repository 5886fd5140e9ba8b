//! What is linked in, and where the compiler is asked to look away: deny.toml and docs/SECURITY.md say it, and it is true.

use std::collections::BTreeMap;
use std::fs;
use std::panic::catch_unwind;
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

/// The lines of `package<TAB>licence` that deny.toml does not allow.
fn without_licence<'l>(lines: impl Iterator<Item = &'l str>, allowed: &[String]) -> Vec<&'l str> {
    let is_allowed = |line: &str| line.split_once('\t').is_some_and(|(_, licence)| is_met(licence, allowed));
    lines.filter(|line| !is_allowed(line)).collect()
}

#[test]
fn every_dependency_has_a_licence_that_is_allowed() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["tree", "--locked", "--offline", "--target", "all"]);
    cargo.args(["--edges", "normal,build,dev", "--no-dedupe", "--prefix", "none", "--format", "{p}\t{l}"]);
    let listed = run(cargo).success().stdout_text();
    assert!(listed.lines().count() > 100, "{listed}");
    assert_eq!(without_licence(listed.lines(), &allowed()), [""; 0], "not allowed by deny.toml");
    // One that is not allowed, and one that has none, are found among them.
    let more = format!("{listed}good v1\tMIT\nbad v1\tBUSL-1.1\nnone v1\t\n");
    assert_eq!(without_licence(more.lines(), &allowed()), ["bad v1\tBUSL-1.1", "none v1\t"]);
}

/// A package of Cargo.lock.
#[derive(Default)]
struct Package<'l> {
    name: &'l str,
    /// Ours has none.
    source: Option<&'l str>,
    dependencies: Vec<&'l str>,
}

fn packages(lock: &str) -> Vec<Package<'_>> {
    let package = |text| {
        let mut package = Package::default();
        for line in str::lines(text) {
            match line.split_once(" = ") {
                Some(("name", name)) => package.name = name.trim_matches('"'),
                Some(("source", source)) => package.source = Some(source.trim_matches('"')),
                // `"name"`, or `"name version"` where there are several.
                None if line.starts_with(" \"") => package.dependencies.extend(line.split(['"', ' ']).nth(2)),
                _ => {}
            }
        }
        package
    };
    lock.split("\n[[package]]\n").skip(1).map(package).collect()
}

/// What of Cargo.lock deny.toml does not allow: sources, and packages that are banned, but for those that they are wrapped by.
fn offences(lock: &str, deny: &str) -> Vec<String> {
    const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
    let packages = packages(lock);
    let foreign = packages.iter().filter(|package| package.source.is_some_and(|source| source != REGISTRY));
    let mut offences: Vec<String> = foreign.map(|package| format!("{}: its source", package.name)).collect();
    let bans = deny.split_once("\ndeny = [").expect("the bans").1.split_once("\n]").expect("their end").0;
    for ban in bans.lines().filter(|line| line.contains("name = ")) {
        let mut quoted = ban.split('"').skip(1).step_by(2);
        let name = quoted.next().expect("a name");
        let (is_wrapped, wrapper) = (ban.contains("wrappers = "), quoted.next());
        for package in &packages {
            let uses = package.dependencies.contains(&name);
            if package.name == name && !is_wrapped || uses && !(is_wrapped && wrapper == Some(package.name)) {
                offences.push(format!("{}: {name} is banned", package.name));
            }
        }
    }
    offences
}

/// The dependencies of Cargo.toml that take any version.
fn wildcards(manifest: &str) -> Vec<&str> {
    manifest.lines().filter(|line| line.contains("= \"*\"")).collect()
}

#[test]
fn every_dependency_comes_from_the_registry_and_none_is_banned() {
    let (lock, deny, manifest) = (source("Cargo.lock"), source("deny.toml"), source("Cargo.toml"));
    assert_eq!(offences(&lock, &deny), [""; 0]);
    assert_eq!(wildcards(&manifest), [""; 0]);
    // What must not be there is found where it is.
    let more = "
[[package]]
name = \"other\"
version = \"1.0.0\"
source = \"git+https://example.org/other\"
dependencies = [
 \"libsqlite3-sys 0.1.0\",
 \"openssl-sys\",
]

[[package]]
name = \"openssl-sys\"
version = \"1.0.0\"
source = \"registry+https://github.com/rust-lang/crates.io-index\"
";
    let found = [
        "other: its source",
        "other: openssl-sys is banned",
        "openssl-sys: openssl-sys is banned",
        "other: libsqlite3-sys is banned",
    ];
    assert_eq!(offences(&format!("{lock}{more}"), &deny), found);
    assert_eq!(wildcards(&format!("{manifest}other = \"*\"\n")), ["other = \"*\""]);
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

/// How many blocks of unsafe code a file has.
///
/// # Panics
/// When one has no reason above it, and over anything else that is unsafe.
fn unsafe_blocks(name: &str, text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    let uses = |line: &str| line.split(|one: char| !one.is_alphanumeric() && one != '_').any(|word| word == "unsafe");
    let mut count = 0;
    for (number, line) in lines.iter().enumerate().filter(|(_, line)| is_code(line) && uses(line)) {
        assert!(line.contains("unsafe {"), "{name}:{}: no block: {line}", number + 1);
        let mut above = lines[..number].iter().rev().take(4);
        assert!(above.any(|line| line.contains("// SAFETY: ")), "{name}:{}: no reason: {line}", number + 1);
        count += 1;
    }
    count
}

#[test]
fn every_unsafe_block_is_audited() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("read a source");
        let name = file.strip_prefix(root).expect("below the root").display().to_string();
        let count = unsafe_blocks(&name, &text);
        if count > 0 {
            found.insert(name, count);
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

#[test]
fn unsafe_code_is_found_however_it_is_written() {
    let is_refused = |text: &str| catch_unwind(|| unsafe_blocks("a file", text)).is_err();
    assert_eq!(unsafe_blocks("a file", "// SAFETY: none\nlet a = unsafe { b };\n// unsafe\nunsafe_code();\n"), 1);
    for text in ["unsafe { a }", "unsafe fn a() {}", "unsafe impl A for B {}", "unsafe extern \"C\" {}", "unsafe"] {
        assert!(is_refused(text), "{text}");
    }
    assert!(is_refused("// SAFETY: none\nunsafe fn a() {}"));
}
