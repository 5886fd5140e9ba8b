//! What lies in packaging/ agrees with the program: the man pages and completions are those that its table of options and its
//! manual make, systemd takes the units, and both packages hold what the C program's package holds.
//!
//!     CSYNC2_WRITE_PAGES=1 cargo test --test packaging      # writes the pages and completions anew

#[path = "packaging/pages.rs"]
mod pages;
#[path = "packaging/roff.rs"]
mod roff;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use clap_complete::Shell;
use csync2::cli::options::{self, OPTIONS, Spelling};

#[test]
fn pages_and_completions_are_up_to_date() {
    let completions = |shell| {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut options::command(), "csync2", &mut script);
        String::from_utf8(script).expect("a text")
    };
    let made = [
        ("man/csync2.8", pages::program()),
        ("man/csync2.cfg.5", pages::configuration()),
        ("completions/csync2.bash", completions(Shell::Bash)),
        ("completions/_csync2", completions(Shell::Zsh)),
        ("completions/csync2.fish", completions(Shell::Fish)),
    ];
    for (name, text) in made {
        let path = root().join("packaging").join(name);
        if std::env::var_os("CSYNC2_WRITE_PAGES").is_some() {
            fs::write(&path, text).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
        } else {
            let found = source(&format!("packaging/{name}"));
            assert!(
                found == text,
                "packaging/{name} is not up to date: CSYNC2_WRITE_PAGES=1 cargo test --test packaging"
            );
        }
    }
}

#[test]
fn man_has_nothing_to_complain_about() {
    for page in ["csync2.8", "csync2.cfg.5", "csync2-compare.8"] {
        let mut man = Command::new("man");
        man.args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"]).arg(root().join("packaging/man").join(page));
        let output = man.env("MANWIDTH", "100").output().expect("run man");
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && complaints.is_empty(), "{page}: {complaints}");
    }
}

#[test]
fn every_option_has_its_place_in_the_page_and_the_completions() {
    let files = ["man/csync2.8", "completions/csync2.bash", "completions/_csync2", "completions/csync2.fish"];
    let [page, bash, zsh, fish] = files.map(|name| source(&format!("packaging/{name}")));
    for option in &OPTIONS {
        let (typed, for_fish) = match option.spelling {
            Spelling::Letter(letter) => (format!("-{letter}"), format!("-s {letter} ")),
            Spelling::Long(name) => (format!("--{name}"), format!("-l {name} ")),
        };
        assert!(page.contains(&format!("\\fB{}", typed.replace('-', "\\-"))) || typed == "-k", "{typed}: csync2.8");
        assert!(bash.split(['"', ' ']).any(|word| word == typed), "{typed}: bash");
        assert!(zsh.contains(&format!("'{typed}")) || zsh.contains(&format!("*{typed}")), "{typed}: zsh");
        assert!(fish.contains(&for_fish), "{typed}: fish");
    }
}

#[test]
fn every_word_of_the_configuration_has_its_place_in_the_page() {
    let page = source("packaging/man/csync2.cfg.5").replace("\\-", "-");
    let coverage = source("docs/coverage.md");
    let words = coverage.split_once("\n## Words of the configuration\n").expect("the words").1;
    let words = words.split_once("\n## ").map_or(words, |(words, _)| words);
    let words: Vec<&str> = words.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert!(words.len() > 30, "{words:?}");
    for word in words {
        let is_word = |found: &str| found.trim_matches(|one: char| !one.is_alphanumeric() && one != '-') == word;
        assert!(
            page.split(|one: char| one.is_whitespace() || "\\|".contains(one))
                .any(|found| is_word(found.trim_start_matches("fB"))),
            "{word}"
        );
    }
}

#[test]
fn bash_completes_options() {
    let script = r#"
        source packaging/completions/csync2.bash
        COMP_WORDS=(csync2 --imp) COMP_CWORD=1
        _csync2 csync2 --imp csync2
        echo "${COMPREPLY[@]}"
    "#;
    let output = Command::new("bash").args(["-c", script]).current_dir(root()).output().expect("run bash");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "--import-db\n", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn systemd_takes_the_units() {
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]);
    let directory = tempfile::tempdir().expect("make a directory");
    for unit in ["csync2.socket", "csync2@.service", "csync2-daemon.socket", "csync2-daemon.service"] {
        let path = directory.path().join(unit);
        fs::copy(root().join("packaging/systemd").join(unit), &path).expect("copy a unit");
        verify.arg(path);
    }
    // The example is tried where it is meant to be.
    let dropin = directory.path().join("csync2-daemon.service.d");
    fs::create_dir(&dropin).expect("make a directory");
    fs::copy(root().join("packaging/systemd/hardened.conf"), dropin.join("hardened.conf")).expect("copy the example");
    let output = verify
        .env("SYSTEMD_UNIT_PATH", format!("{}:", directory.path().display()))
        .output()
        .expect("run systemd-analyze");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "{complaints}");
}

/// Paths of the C program's package that ours have none of, and why.
const NOT_OURS: [(&str, &str); 8] = [
    ("/etc/csync2.cfg", "all comments, and everybody has changed it: asked about at each upgrade. --init writes one"),
    ("/usr/share/doc/csync2/AUTHORS.adoc", "its own"),
    ("/usr/share/doc/csync2/README.adoc", "README.md"),
    ("/usr/share/doc/csync2/changelog.Debian.gz", "changelog.gz"),
    ("/usr/share/doc/csync2/csync2.adoc.gz", "manual.md"),
    ("/usr/share/lintian", "nothing to be overridden"),
    ("/usr/share/lintian/overrides", "nothing to be overridden"),
    ("/usr/share/lintian/overrides/csync2", "nothing to be overridden"),
];

#[test]
fn the_deb_has_what_the_package_of_the_c_program_has() {
    let listed = Command::new("dpkg").args(["-L", "csync2"]).output().expect("run dpkg");
    let listed = String::from_utf8(listed.stdout).expect("names");
    assert!(listed.contains("/usr/sbin/csync2\n"), "the C program's package: {listed}");
    let ours: BTreeSet<String> = shipped("deb", "[\"", "\", \"");
    for path in listed.lines().filter(|path| *path != "/.") {
        let compressed = path.trim_end_matches(".gz");
        let is_ours = ours.iter().any(|own| own == compressed || own.starts_with(&format!("{path}/")));
        let is_left_out = NOT_OURS.iter().any(|(left_out, _)| *left_out == path);
        assert!(is_ours != is_left_out, "{path}: in our package: {is_ours}, listed as left out: {is_left_out}");
    }
}

#[test]
fn the_rpm_has_what_the_deb_has() {
    let of_debian = |path: &str| {
        ["/etc/cron.d/csync2", "/etc/init.d/csync2", "/usr/share/doc/csync2/README.Debian"].contains(&path)
            || path == "/usr/share/doc/csync2/copyright"
    };
    let elsewhere = |path: String| match path.as_str() {
        "/usr/share/zsh/vendor-completions/_csync2" => "/usr/share/zsh/site-functions/_csync2".to_owned(),
        "/usr/share/doc/csync2/changelog" => "/usr/share/doc/csync2/CHANGELOG.md".to_owned(),
        other => other.strip_prefix("/lib/").map_or(path.clone(), |rest| format!("/usr/lib/{rest}")),
    };
    let deb = shipped("deb", "[\"", "\", \"").into_iter().filter(|path| !of_debian(path)).map(elsewhere);
    let mut deb: BTreeSet<String> = deb.collect();
    deb.insert("/usr/share/doc/csync2/LICENSE".into());
    assert_eq!(deb, shipped("generate-rpm", "{ source = \"", "\", dest = \""));
}

/// Where a package has its files, by the list in Cargo.toml, whose lines begin with `before` and have `between` between source
/// and destination. Each source is there.
fn shipped(package: &str, before: &str, between: &str) -> BTreeSet<String> {
    let manifest = source("Cargo.toml");
    let list = manifest.split_once(&format!("[package.metadata.{package}]")).expect("the package").1;
    let list = list.split_once("\nassets = [\n").expect("its list").1;
    let list = list.split_once("\n]").expect("its end").0;
    let path = |line: &str| {
        let (from, rest) = line.trim().strip_prefix(before)?.split_once(between)?;
        assert!(from.starts_with("target/") || root().join(from).exists(), "{from} is missing");
        let to = rest.split('"').next()?.trim_start_matches('/');
        let name = if to.ends_with('/') { from.rsplit('/').next()? } else { "" };
        Some(format!("/{to}{name}"))
    };
    list.lines().map(|line| path(line).unwrap_or_else(|| panic!("cannot read: {line}"))).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the repository.
fn source(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("read {name}: {error}"))
}
