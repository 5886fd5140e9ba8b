//! What docs/operations.md says of messages: an entry is the message with words in capitals for what is put in, and `…` for any
//! words: `… connect to NAME port N: …`.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

/// What the document says of it.
pub(crate) struct Entry {
    pub(crate) words: String,
    /// What is warned about may be without its WARNING in the sources.
    patterns: Vec<Vec<Part>>,
    /// Without `…` around it.
    pub(crate) bare: String,
}

impl Entry {
    pub(crate) fn new(words: String) -> Self {
        let bare = words.trim_start_matches("… ").trim_end_matches('…').trim_end().to_owned();
        let named = [Some(words.as_str()), words.strip_prefix("WARNING: ")];
        let patterns = named.into_iter().flatten().map(|words| pattern(words, true)).collect();
        Self { words, patterns, bare }
    }

    /// Whether it has all words of a message, whose full stop may be missing in it.
    pub(crate) fn says(&self, message: &str) -> bool {
        let fits = |entry: &Vec<Part>| fits(entry, message.trim_end_matches('.')) || fits(entry, message);
        self.patterns.iter().any(fits)
    }
}

/// Whether the document explains a line of the log, or the line only continues a message or tells the time.
pub(crate) fn is_explained(line: &str) -> bool {
    static PATTERNS: OnceLock<Vec<Vec<Part>>> = OnceLock::new();
    if [" ", "TIMESTAMP: ", "TOTALTIME: "].iter().any(|begin| line.starts_with(begin)) {
        return true;
    }
    // Here names may hold blanks.
    let any = |part: Part| if part == Part::Name { Part::Any } else { part };
    let all = || entries().into_iter().flat_map(|entry| entry.patterns).map(|one| one.into_iter().map(any).collect());
    let said = line.trim_end_matches('.');
    PATTERNS.get_or_init(|| all().collect()).iter().any(|entry| fits(entry, line) || fits(entry, said))
}

/// The messages that the document explains: the texts between backticks in the first column of the tables of its section.
pub(crate) fn entries() -> Vec<Entry> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let document = fs::read_to_string(path).expect("read the document");
    let section = document.split_once("\n## Messages\n").expect("the section").1;
    let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
    let cells = section.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | ").map(|(cell, _)| cell));
    cells.flat_map(spans).map(Entry::new).collect()
}

/// The texts between equal numbers of backticks.
fn spans(cell: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = cell;
    while let Some(at) = rest.find('`') {
        let ticks = rest[at..].bytes().take_while(|byte| *byte == b'`').count();
        let (text, after) = rest[at + ticks..].split_once(&"`".repeat(ticks)).expect("a closed span");
        found.push(text.trim().replace("\\|", "|"));
        rest = after;
    }
    found
}

/// A part of a pattern.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Part {
    One(char),
    /// One thing that is put in, or a word that happens to be in capitals.
    Name,
    Any,
}

/// Reads `…`, which takes the blanks beside it, and names.
pub(crate) fn pattern(text: &str, has_names: bool) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(one) = rest.chars().next() {
        let capitals = rest.bytes().take_while(u8::is_ascii_uppercase).count();
        let is_alone = !matches!(parts.last(), Some(Part::One(before)) if before.is_alphanumeric())
            && !rest[capitals..].starts_with(|after: char| after.is_alphanumeric());
        if has_names && capitals > 0 && is_alone && !["ERROR", "WARNING"].contains(&&rest[..capitals]) {
            parts.push(Part::Name);
            rest = &rest[capitals..];
            continue;
        }
        rest = &rest[one.len_utf8()..];
        if one == '…' {
            parts.truncate(parts.iter().rposition(|part| *part != Part::One(' ')).map_or(0, |at| at + 1));
            parts.push(Part::Any);
            rest = rest.trim_start();
        } else {
            parts.push(Part::One(one));
        }
    }
    parts
}

/// Whether the text is what the pattern says.
pub(crate) fn fits(pattern: &[Part], text: &str) -> bool {
    // Most do not even have the letters in this order.
    let mut letters = text.chars();
    let has_letters = pattern.iter().all(|part| match part {
        Part::One(wanted) => letters.any(|one| one == *wanted),
        Part::Name | Part::Any => true,
    });
    has_letters && fits_exactly(pattern, text)
}

fn fits_exactly(pattern: &[Part], text: &str) -> bool {
    let Some((part, pattern)) = pattern.split_first() else { return text.is_empty() };
    let mut ends = text.char_indices().map(|(at, one)| (at + one.len_utf8(), one));
    match part {
        Part::One(wanted) => text.strip_prefix(*wanted).is_some_and(|rest| fits_exactly(pattern, rest)),
        Part::Name => ends.take_while(|(_, one)| *one != ' ').any(|(end, _)| fits_exactly(pattern, &text[end..])),
        Part::Any => fits_exactly(pattern, text) || ends.any(|(end, _)| fits_exactly(pattern, &text[end..])),
    }
}
