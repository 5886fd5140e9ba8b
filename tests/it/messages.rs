//! docs/operations.md lists the messages: whatever the sources say at level 0, in an error or to a peer has an entry with its
//! cause and remedy, and every entry is said by the sources.
//!
//! A message is found where it is said: it is handed to one of the [`SPEAKERS`], begins with ERROR or WARNING, or reads as a
//! sentence that nothing else accounts for. What only continues a message or is put into one (an advice, the detail of a
//! protocol error) needs no entry of its own.
//!
//! An entry may be one case of a message: `… connect to NAME port N: Connection refused …`. That what tests provoke is explained,
//! `Output::logs` sees.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use csync2::model::errors::strerror;

use crate::support::messages::{Entry, Part, entries, fits, pattern};

/// What says words, and as which of its arguments it takes them.
const SPEAKERS: [(&str, usize); 18] = [
    ("warn!", 0),
    ("error!", 0),
    ("error", 0),
    ("bail!", 0),
    ("anyhow!", 0),
    ("context", 0),
    ("ConfigError::new", 0),
    ("Reply::Text", 0),
    ("Self::Text", 0),
    ("Refusal::text", 0),
    ("Self::text", 0),
    ("not_found", 0),
    ("Err", 0),
    ("ok_or", 0),
    ("ok_or_else", 0),
    ("fail", 1),
    ("warn", 1),
    ("warning", 1),
];

/// What may stand between them and the words.
const WRAPPERS: [&str; 6] = ["format!", "format_args!", "anyhow!", "Some", "Err", ""];

/// What takes words for other levels, for developers or for a part of a message.
const OTHERS: [&str; 20] = [
    "debug!",
    "info!",
    "trace!",
    "expect",
    "assert!",
    "assert_eq!",
    "debug_assert!",
    "panic!",
    "unreachable!",
    "reason",
    "notice::warn",
    "Protocol",
    "BadDelta",
    "BadSignature",
    "word",
    "invalid",
    "refuse",
    "refused",
    "expect_kind",
    "at",
];

/// Sources whose sentences are something else, and what.
const RESULTS: [(&str, &str); 13] = [
    ("cli/options.rs", "the help"),
    ("cli/usage.rs", "the help"),
    ("commands/status/", "results"),
    ("commands/check_config.rs", "results"),
    ("commands/init.rs", "results, each with the next step"),
    ("commands/join.rs", "results"),
    ("commands/serve.rs", "what is said on stdout, and the remedies behind `Server error`"),
    ("config/parser.rs", "what was expected at the place that is shown"),
    ("config/starter.rs", "the configuration that --init makes"),
    ("engine/contact/advice.rs", "remedies"),
    ("engine/certificates.rs", "remedies"),
    ("engine/identify.rs", "the remedies of a host that is no member"),
    ("store/postgres/remedy.rs", "remedies"),
];

/// What nobody can provoke, and why.
const INTERNAL: [(&str, &str); 4] = [
    ("there is a log already", "the log is opened once"),
    ("the database was closed", "nobody closes it before the end"),
    ("the reader of the output has gone", "ends the process in silence, with a status of its own"),
    ("Connection closed.", "the answer to BYE, with which a session ends"),
];

/// Stands for what is put into a text.
const GAP: char = '\u{1}';

/// What the sources say, in one line.
struct Text {
    place: String,
    line: String,
    /// What its cases look like, where it has words enough for having any.
    cases: Option<Vec<Part>>,
    is_message: bool,
}

#[test]
fn every_message_is_explained_and_every_explained_message_is_said() {
    let (entries, texts) = (entries(), texts());
    let is_internal = |text: &Text| INTERNAL.iter().any(|(internal, _)| *internal == text.line);
    let is_explained = |text: &Text| is_internal(text) || entries.iter().any(|entry| text.is_of(entry));
    let missing = texts.iter().filter(|text| text.is_message && !is_explained(text));
    let missing: Vec<_> = missing.map(|text| format!("{}: {}", text.place, text.line.replace(GAP, "{}"))).collect();
    // As the system has them; more numbers have no words.
    let of_the_system: Vec<String> = (1..134).map(|number| strerror(&io::Error::from_raw_os_error(number))).collect();
    let is_said = |entry: &Entry| of_the_system.contains(&entry.bare) || texts.iter().any(|text| text.is_of(entry));
    let unsaid = entries.iter().filter(|entry| !is_said(entry));
    let unsaid: Vec<_> = unsaid.map(|entry| &entry.words).collect();
    let unused = INTERNAL.iter().find(|(words, _)| !texts.iter().any(|text| text.line == *words));
    assert!(missing.is_empty(), "messages without an entry in docs/operations.md:\n{}", missing.join("\n"));
    assert!(unsaid.is_empty(), "entries that nothing says: {unsaid:#?}");
    assert!(unused.is_none(), "nothing says {unused:?}");
    assert!(texts.iter().filter(|text| text.is_message).count() > 200, "messages are not found any more");
}

#[test]
fn entries_are_told_from_what_they_are_not() {
    let is_entry_of = |entry: &str, words: &str| {
        Text::new(String::new(), &with_gaps(words), true).is_of(&Entry::new(entry.to_owned()))
    };
    let said = "connect to {peer} port {port}: {}{hint}";
    assert!(is_entry_of("… connect to NAME port N: …", said));
    assert!(is_entry_of("… connect to NAME port N: Connection refused …", said));
    assert!(!is_entry_of("… connect to NAME: …", said));
    assert!(!is_entry_of("ERROR: cannot look at FILE", "ERROR: cannot look at {}: {}. It stays."));
    assert!(is_entry_of("ERROR: cannot look at FILE: …", "ERROR: cannot look at {}: {}. It stays."));
    let literals = literals("fn f() { warn!(\"one {x} two\"); g(\"\\\"\", 'a', &'_ b, r#\"three \"four\"#); }");
    let found: Vec<_> =
        literals.iter().map(|one| (one.text.as_str(), one.calls[0].0.as_str(), one.calls[0].1)).collect();
    assert_eq!(found, [("one {x} two", "warn!", 0), ("\\\"", "g", 0), ("three \"four", "g", 3)]);
}

impl Text {
    fn new(place: String, words: &str, is_message: bool) -> Self {
        let has_letters = words.contains(' ') && words.chars().filter(|one| one.is_alphabetic()).count() >= 8;
        let line = words.trim().replace('\n', " ");
        let cases = has_letters.then(|| pattern(&format!("…{}…", line.replace(GAP, "…")), false));
        Self { place, line, cases, is_message }
    }

    /// Whether the entry stands for it: has all its words, or is one case of it.
    fn is_of(&self, entry: &Entry) -> bool {
        entry.says(&self.line) || self.cases.as_ref().is_some_and(|cases| fits(cases, &entry.bare))
    }
}

/// All texts of the sources.
fn texts() -> Vec<Text> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    let mut texts = Vec::new();
    for file in files {
        let name = file.strip_prefix(&root).expect("below src").to_str().expect("a name").to_owned();
        let source = fs::read_to_string(&file).expect("read a source");
        let is_result = RESULTS.iter().any(|(result, _)| name.starts_with(result));
        let several_words = |literal: &Literal| literal.text.trim().contains(' ');
        for literal in literals(&source).into_iter().filter(several_words) {
            let words = with_gaps(&literal.text);
            let line = source[..literal.at].matches('\n').count() + 1;
            let is_message = literal.is_message(is_result, &words);
            texts.push(Text::new(format!("src/{name}:{line}"), &words, is_message));
        }
    }
    texts
}

/// The sources of the program, without tests.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("read a directory") {
        let path = entry.expect("an entry").path();
        let is_test = ["tests", "testing"].iter().any(|name| path.file_stem().is_some_and(|stem| stem == *name));
        if path.is_dir() && !is_test {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test {
            files.push(path);
        }
    }
}

/// A text between quotes.
struct Literal {
    at: usize,
    text: String,
    /// What it is an argument of, innermost first, up to the next block: names, and which argument.
    calls: Vec<(String, usize)>,
}

impl Literal {
    fn is_message(&self, is_result: bool, words: &str) -> bool {
        let is_worded = words
            .split(|one: char| !one.is_alphabetic())
            .any(|word| word.len() > 2 && !["ERROR", "WARNING"].contains(&word));
        let continues = [" ", ". ", ", "].iter().any(|begin| words.starts_with(begin));
        if !is_worded || continues || self.calls.iter().any(|(call, _)| is_of(&OTHERS, call)) {
            return false;
        }
        let begins = ["ERROR: ", "WARNING: ", "Config error: "].iter().any(|begin| words.starts_with(begin));
        begins || self.is_spoken() || (!is_result && is_sentence(words))
    }

    /// Whether it is what a speaker says.
    fn is_spoken(&self) -> bool {
        let passes = |(call, argument): &&(String, usize)| *argument == 0 && is_of(&WRAPPERS, call);
        let behind = self.calls.iter().take_while(passes).count();
        self.calls.iter().take(behind + 1).any(|(call, argument)| {
            SPEAKERS.iter().any(|(speaker, index)| index == argument && is_of(&[speaker], call))
        })
    }
}

/// Whether a call, with its path or value before it, is one of these.
fn is_of(names: &[&str], call: &str) -> bool {
    let is = |name: &&str| call.strip_suffix(*name).is_some_and(|path| path.is_empty() || path.ends_with(['.', ':']));
    names.iter().any(is)
}

/// Eight words or a full stop, and no statement in SQL.
fn is_sentence(words: &str) -> bool {
    let is_statement =
        ["SELECT", "SET ", "INSERT", "UPDATE ", "DELETE", "LOCK TABLE", "CREATE ", "WHERE", "VALUES", "filename"];
    let ends = words.ends_with(['.', '!', '?']) && !words.starts_with("OK (");
    (ends || words.split(' ').count() >= 8) && !is_statement.iter().any(|word| words.contains(word))
}

/// The texts between quotes of a source, up to its tests.
fn literals(source: &str) -> Vec<Literal> {
    let end = source
        .find("\n#[cfg(test)]\nmod ")
        .filter(|at| source[*at..].lines().nth(2).is_some_and(|line| line.ends_with('{')));
    let source = &source[..end.unwrap_or(source.len())];
    let bytes = source.as_bytes();
    let mut found = Vec::new();
    // Of each open bracket: which it is, the name before it, and how many commas have come.
    let mut open: Vec<(u8, &str, usize)> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &source[at..];
        match bytes[at] {
            b'/' if rest.starts_with("//") => at += rest.find('\n').unwrap_or(rest.len()),
            b'\'' => at += character(rest),
            b'r' if raw(rest).is_some() && !is_word(bytes[at - 1]) => {
                let (hashes, close) = raw(rest).expect("a raw text");
                let start = at + hashes + 2;
                found.push(literal(at, &source[start..at + close], &open));
                at += close + hashes + 1;
            }
            b'"' => {
                let length = quoted(&bytes[at..]);
                found.push(literal(at, &source[at + 1..at + length - 1], &open));
                at += length;
            }
            bracket @ (b'(' | b'[' | b'{') => {
                let name =
                    source[..at].rfind(|one: char| !is_word(one as u8) && !":.!".contains(one)).map_or(0, |at| at + 1);
                open.push((bracket, source.get(name..at).unwrap_or_default(), 0));
                at += 1;
            }
            b')' | b']' | b'}' => {
                open.pop();
                at += 1;
            }
            b',' => {
                if let Some(innermost) = open.last_mut() {
                    innermost.2 += 1;
                }
                at += 1;
            }
            _ => at += rest.chars().next().map_or(1, char::len_utf8),
        }
    }
    found
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn literal(at: usize, text: &str, open: &[(u8, &str, usize)]) -> Literal {
    let calls = open.iter().rev().take_while(|(bracket, ..)| *bracket != b'{');
    Literal {
        at,
        text: text.to_owned(),
        calls: calls.map(|(_, name, argument)| ((*name).to_owned(), *argument)).collect(),
    }
}

/// The length of `'x'` or `'\n'`; 1 for a lifetime.
fn character(rest: &str) -> usize {
    let mut characters = rest.char_indices().skip(1);
    match characters.next() {
        Some((_, '\\')) => 2 + rest[2..].find('\'').map_or(0, |at| if at == 0 { 2 } else { at + 1 }),
        Some(_) => characters.next().filter(|(_, one)| *one == '\'').map_or(1, |(at, _)| at + 1),
        None => 1,
    }
}

/// Of a raw text: its hashes, and where it is closed.
fn raw(rest: &str) -> Option<(usize, usize)> {
    let hashes = rest[1..].bytes().take_while(|byte| *byte == b'#').count();
    let start = rest[1 + hashes..].strip_prefix('"').map(|_| hashes + 2)?;
    Some((hashes, start + rest[start..].find(&format!("\"{}", "#".repeat(hashes)))?))
}

/// The length of a text with its quotes.
fn quoted(bytes: &[u8]) -> usize {
    let mut at = 1;
    while bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// The words as they are printed, with gaps for what is put in.
fn with_gaps(text: &str) -> String {
    let mut words = String::new();
    let mut rest = text.chars().peekable();
    while let Some(one) = rest.next() {
        match one {
            '\\' => match rest.next() {
                Some('\n') => while rest.next_if(|one| one.is_whitespace()).is_some() {},
                Some('n') => words.push('\n'),
                Some(other) => words.push(other),
                None => {}
            },
            '{' if rest.next_if_eq(&'{').is_some() => words.push('{'),
            '}' if rest.next_if_eq(&'}').is_some() => words.push('}'),
            '{' => {
                rest.by_ref().find(|one| *one == '}');
                words.push(GAP);
            }
            other => words.push(other),
        }
    }
    words
}
