//! docs/coverage.md is complete and true: every entry of the help text, every word of the configuration and every command
//! of the protocol has its row, and each test that a row names exists and uses what the row is about. So is the index of
//! docs/manual.md.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use csync2::cli::options::{OPTIONS, Spelling};

/// A row of the document: what it is about, and the tests that it names.
struct Row {
    subject: String,
    tests: Vec<String>,
}

#[test]
fn every_option_has_a_test() {
    let entries = OPTIONS.iter().flat_map(|option| option.help).map(|entry| entry.synopsis.to_owned());
    check("Options", &entries.collect(), uses_option);
}

#[test]
fn every_word_of_the_configuration_has_a_test() {
    check("Words of the configuration", &words_of_the_configuration(), uses_statement);
}

fn words_of_the_configuration() -> BTreeSet<String> {
    let keywords = source("src/config/lexer.rs");
    let keywords = keywords.split_once("keywords! {\n").expect("the keywords").1;
    let keywords = keywords.split_once("\n}").expect("the keywords").0;
    let settings = source("src/config/ast.rs");
    let settings = settings.split_once("ALL: ").expect("the settings").1;
    let settings = settings.split_once("];").expect("the settings").0;
    let mut words: BTreeSet<String> = literals(keywords).chain(literals(settings)).collect();
    words.insert("config".to_owned());
    words
}

#[test]
fn every_command_of_the_protocol_has_a_test() {
    let requests = source("src/wire/request.rs");
    let commands = requests.split("b\"").skip(1).map(|rest| rest.split('"').next().unwrap_or_default().to_owned());
    let is_command = |text: &String| text.len() > 2 && text.bytes().all(|byte| byte.is_ascii_uppercase());
    check("Commands of the protocol", &commands.filter(is_command).collect(), uses_command);
}

#[test]
fn every_option_and_word_has_an_example_in_the_manual() {
    let manual = source("docs/manual.md");
    let blocks: Vec<&str> = manual.split("```sh").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let blocks = blocks.join("\n");
    let has_example = |spelling: &Spelling| match spelling {
        Spelling::Letter(letter) => uses_option(&blocks, &format!("-{letter}")),
        Spelling::Long(name) => blocks.contains(&format!("--{name}")),
    };
    let without: Vec<_> = OPTIONS.iter().map(|option| option.spelling).filter(|one| !has_example(one)).collect();
    assert!(without.is_empty(), "no example for {without:?}");
    let refused = "no-cygwin-lowercase";
    let words = words_of_the_configuration();
    let without: Vec<_> = words.iter().filter(|word| *word != refused && !uses_statement(&manual, word)).collect();
    assert!(without.is_empty(), "no example for {without:?}");
}

/// Those of the program, and those that the C program tells of.
#[test]
fn the_index_of_the_manual_leads_to_every_option_and_word() {
    let spelled = |spelling: &Spelling| match spelling {
        Spelling::Letter(letter) => format!("-{letter}"),
        Spelling::Long(name) => format!("--{name}"),
    };
    let mut options: BTreeSet<String> = OPTIONS.iter().map(|option| spelled(&option.spelling)).collect();
    let help = Command::new("/usr/sbin/csync2").arg("-?").env("CSYNC2_SYSTEM_DIR", "/nonexistent").output();
    let help = help.expect("the C program is installed");
    let help = String::from_utf8([help.stdout, help.stderr].concat()).expect("a text");
    let known = help.lines().filter_map(|line| line.strip_prefix("\t-")?.get(..1).map(|letter| format!("-{letter}")));
    let known: BTreeSet<String> = known.collect();
    assert!(known.len() > 25, "{help}");
    options.extend(known);
    check_index("Options", &options, |text, option| {
        let is_long = option.starts_with("--");
        if is_long { text.contains(option) } else { uses_option(&text.replace('`', " "), option) }
    });
    check_index("Words of the configuration", &words_of_the_configuration(), |text, word| {
        stands_alone(text, word, |after| !after.is_alphanumeric() && after != '-')
    });
}

/// The part of the index has exactly these subjects, and each is found where the index leads.
fn check_index(part: &str, subjects: &BTreeSet<String>, is_in: fn(&str, &str) -> bool) {
    let manual = source("docs/manual.md");
    let index = manual.split_once("\n## Index\n").expect("the index").1;
    let rows = index.split_once(&format!("\n### {part}\n")).expect("the part").1;
    let rows = rows.split_once("\n### ").map_or(rows, |(rows, _)| rows);
    let mut listed = BTreeSet::new();
    for (subjects, leads) in rows.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | ")) {
        for subject in subjects.split("` `") {
            assert!(listed.insert(subject.to_owned()), "two rows for {subject}");
            for target in leads.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
                let document = if file.is_empty() { manual.clone() } else { source(&format!("docs/{file}")) };
                let text = part_of(&document, anchor).unwrap_or_else(|| panic!("{subject}: there is no {target}"));
                assert!(is_in(&text, subject), "{subject} is not in {target}");
            }
        }
    }
    assert_eq!(listed, *subjects, "{part} of the index");
}

/// What stands below the heading that has the anchor, down to the next heading.
fn part_of(document: &str, anchor: &str) -> Option<String> {
    let anchor_of = |line: &str| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        title.replace(|one: char| !one.is_alphanumeric() && one != ' ' && one != '-', "").replace(' ', "-")
    };
    let is_start = |line: &str| anchor.is_empty() || line.starts_with('#') && anchor_of(line) == anchor;
    let mut lines = document.lines().skip_while(|line| !is_start(line));
    let heading = lines.next()?;
    let ends = |line: &&str| anchor.is_empty() || !(line.starts_with("## ") || line.starts_with("### "));
    Some(std::iter::once(heading).chain(lines.take_while(ends)).collect::<Vec<_>>().join("\n"))
}

#[test]
fn every_promise_of_security_has_a_test() {
    let document = source("docs/SECURITY.md");
    let promises = document.split_once("\n## Promises").expect("the promises").1;
    let promises = promises.split_once("\n## ").expect("their end").0;
    let mut count = 0;
    for line in promises.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| promise")) {
        let tests: Vec<&str> = line.split('`').skip(1).step_by(2).filter(|text| is_test(text)).collect();
        assert!(!tests.is_empty() || line.starts_with("| ---"), "no test: {line}");
        for name in tests {
            assert!(test_body(name).is_some(), "there is no test {name}");
            count += 1;
        }
    }
    assert!(count > 50);
}

fn is_test(text: &str) -> bool {
    ["it/", "src/", "wire_"].iter().any(|begin| text.starts_with(begin)) && text.contains("::")
}

/// The rows of a section stand for exactly these subjects, and their tests use them.
fn check(section: &str, subjects: &BTreeSet<String>, uses: fn(&str, &str) -> bool) {
    let rows = rows(section);
    let listed: BTreeSet<String> = rows.iter().map(|row| row.subject.clone()).collect();
    let missing: Vec<_> = subjects.difference(&listed).collect();
    let unknown: Vec<_> = listed.difference(subjects).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "{section}: no rows for {missing:?}, rows for nothing: {unknown:?}"
    );
    assert_eq!(rows.len(), listed.len(), "two rows for the same: {section}");
    for Row { subject, tests } in rows {
        assert!(!tests.is_empty(), "{subject} has no test");
        for name in tests {
            let body = test_body(&name).unwrap_or_else(|| panic!("{subject}: there is no test {name}"));
            assert!(uses(&body, &subject), "{name} does not use {subject}");
        }
    }
}

fn source(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

/// The texts between quotes.
fn literals(source: &str) -> impl Iterator<Item = String> + '_ {
    source.split('"').skip(1).step_by(2).map(str::to_owned)
}

fn rows(section: &str) -> Vec<Row> {
    let document = source("docs/coverage.md");
    let text = document.split_once(&format!("\n## {section}\n")).expect("the section").1;
    let text = text.split_once("\n## ").map_or(text, |(text, _)| text);
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let row = |line: &str| {
        let (subject, tests) = line.strip_prefix("| `")?.split_once("` | ")?;
        Some(Row { subject: subject.to_owned(), tests: quoted(tests) })
    };
    text.lines().filter_map(row).collect()
}

/// The function behind `it/sync::everything_arrives` (in tests/) or `src/config/tests::spans` if it is a test.
fn test_body(name: &str) -> Option<String> {
    let (file, function) = name.split_once("::")?;
    let path = if file.starts_with("src/") { format!("{file}.rs") } else { format!("tests/{file}.rs") };
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).ok()?;
    let lines: Vec<&str> = text.lines().collect();
    let is_start = |line: &str| {
        let signature = line.trim_start().trim_start_matches("async ").strip_prefix("fn ");
        signature.and_then(|rest| rest.strip_prefix(function)).is_some_and(|rest| rest.starts_with('('))
    };
    let start = lines.iter().position(|line| is_start(line))?;
    // Either it is marked as a test, or it stands in a list of scenarios.
    let is_marked = lines[..start]
        .iter()
        .rev()
        .take_while(|line| !line.trim().is_empty())
        .any(|line| line.contains("test]") || line.contains("test("));
    let is_listed = lines.iter().any(|line| line.trim().trim_end_matches(',') == function);
    let indent = &lines[start][..lines[start].len() - lines[start].trim_start().len()];
    let end = lines[start..].iter().position(|line| *line == format!("{indent}}}"))?;
    (is_marked || is_listed).then(|| lines[start..=start + end].join("\n"))
}

/// Whether the option of a synopsis stands in the text: alone, in a cluster (`-crv`) or with its value (`-p30865`).
fn uses_option(text: &str, synopsis: &str) -> bool {
    let option = synopsis.split_whitespace().find_map(|word| word.strip_prefix('-')).expect("an option");
    let letter = option.chars().next().expect("a letter");
    if letter == '-' {
        return text.contains(&format!("\"-{option}"));
    }
    let letters = |word: &str| word.chars().take_while(char::is_ascii_alphabetic).filter(|one| *one == letter).count();
    let words = text.split(|character: char| character.is_whitespace() || character == '"');
    words.filter_map(|word| word.strip_prefix('-')).any(|word| letters(word) >= letters(option))
}

/// Whether the word begins or ends a statement somewhere in the text.
fn uses_statement(text: &str, word: &str) -> bool {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.into_iter().any(|line| stands_alone(line, word, |after| after == ' ' || after == ';'))
}

/// Whether the command stands in the text, before its fields or alone.
fn uses_command(text: &str, command: &str) -> bool {
    stands_alone(text, command, |after| !after.is_alphanumeric())
}

fn stands_alone(text: &str, word: &str, may_follow: fn(char) -> bool) -> bool {
    let is_within = |before: char| before.is_alphanumeric() || before == '-';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(is_within) && text[at + word.len()..].starts_with(may_follow))
}
