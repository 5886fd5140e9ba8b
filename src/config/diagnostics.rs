//! What a person is told about a configuration that is wrong, or hardly means what was meant: of an error first the line
//! that scripts know from the C program, then the place in the file and what was expected there.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A file that was read, for showing its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceText {
    pub file: PathBuf,
    pub text: Vec<u8>,
}

/// Bytes of one of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Index into the list of files.
    pub source: usize,
    pub start: usize,
    pub end: usize,
}

/// Why the configuration was refused.
///
/// The first line of its text is the C program's own. Where the place is known, lines with file, line, the text and a
/// caret follow.
#[derive(Debug)]
pub struct ConfigError {
    message: String,
    place: Option<Box<Place>>,
    source: Option<io::Error>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    file: PathBuf,
    /// Counted within this file, from 1.
    line: usize,
    /// In characters, from 1.
    column: usize,
    excerpt: String,
    /// Characters of the excerpt before the caret, tabs kept: the caret line begins with them.
    indent: String,
    carets: usize,
    hint: String,
}

impl ConfigError {
    /// An error about the configuration as a whole, or about a file that cannot be read.
    pub(super) fn new(message: String) -> Self {
        Self { message, place: None, source: None }
    }

    /// Adds the place, and what was expected there or what to do about it.
    pub(super) fn at(mut self, sources: &[SourceText], span: Span, hint: impl Into<String>) -> Self {
        self.place = sources.get(span.source).map(|source| Box::new(Place::of(source, span, hint.into())));
        self
    }

    pub(super) fn because(mut self, error: io::Error) -> Self {
        self.source = Some(error);
        self
    }

    /// The line that scripts know, without what explains it.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The file in which it was found, and the line within that file.
    #[must_use]
    pub fn location(&self) -> Option<(&Path, usize)> {
        self.place.as_ref().map(|place| (place.file.as_path(), place.line))
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)?;
        self.place.as_ref().map_or(Ok(()), |place| place.fmt(formatter))
    }
}

/// What parses but hardly means what was meant. In one line: `FILE:LINE: what`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    text: String,
    /// `None`: it is about no place in particular.
    place: Option<Box<Place>>,
    span: Option<Span>,
}

impl Warning {
    pub(super) fn at(sources: &[SourceText], span: Span, text: impl Into<String>) -> Self {
        let place = sources.get(span.source).map(|source| Box::new(Place::of(source, span, String::new())));
        Self { text: text.into(), place, span: Some(span) }
    }

    /// The text, then the place as an error shows it.
    #[must_use]
    pub fn in_full(&self) -> String {
        let place = self.place.as_ref().map(ToString::to_string);
        format!("{}{}", self.text, place.unwrap_or_default())
    }

    /// What it is about, for putting warnings in the order of the file.
    #[must_use]
    pub fn span(&self) -> Option<Span> {
        self.span
    }
}

impl From<String> for Warning {
    fn from(text: String) -> Self {
        Self { text, place: None, span: None }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(formatter, "{}:{}: ", place.file.display(), place.line)?;
        }
        formatter.write_str(&self.text)
    }
}

/// Longer lines are shown in part.
const EXCERPT_BEFORE: usize = 60;
const EXCERPT_LENGTH: usize = 120;

impl Place {
    fn of(source: &SourceText, span: Span, hint: String) -> Self {
        let text = &source.text;
        let start = span.start.min(text.len());
        let line_start = text[..start].iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].iter().position(|&byte| byte == b'\n').map_or(text.len(), |length| start + length);
        let before = printable(&text[line_start..start]);
        let from_here = printable(&text[start..line_end]);
        let width = printable(&text[start..span.end.clamp(start, line_end)]).chars().count();
        let column = before.chars().count() + 1;
        let indent: String = before.chars().skip(column.saturating_sub(1 + EXCERPT_BEFORE)).collect();
        let excerpt: String = indent.chars().chain(from_here.trim_end().chars()).take(EXCERPT_LENGTH).collect();
        let shown_width = excerpt.chars().count().saturating_sub(indent.chars().count());
        Self {
            file: source.file.clone(),
            line: line_number(text, start),
            column,
            excerpt,
            indent: indent.chars().map(|character| if character == '\t' { '\t' } else { ' ' }).collect(),
            carets: width.min(shown_width).max(1),
            hint,
        }
    }
}

/// In lines that follow on another one.
impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        write!(formatter, "\n{gutter}--> {}:{}:{}", self.file.display(), self.line, self.column)?;
        write!(formatter, "\n{gutter} |\n{number} | {}", self.excerpt)?;
        write!(formatter, "\n{gutter} | {}{}", self.indent, "^".repeat(self.carets))?;
        if !self.hint.is_empty() {
            write!(formatter, " {}", self.hint)?;
        }
        Ok(())
    }
}

/// A line for a terminal: a configuration may hold any byte.
fn printable(bytes: &[u8]) -> String {
    let shown = |character: char| if character.is_control() && character != '\t' { '\u{fffd}' } else { character };
    String::from_utf8_lossy(bytes).trim_end_matches('\r').chars().map(shown).collect()
}

/// The line, from 1, on which a byte stands.
fn line_number(text: &[u8], offset: usize) -> usize {
    text[..offset].split(|&byte| byte == b'\n').count()
}

/// Where something stands, for a sentence: `line 3`, or `FILE:3` in a file that is included.
pub(super) fn shown_line(sources: &[SourceText], span: Span) -> String {
    let Some(source) = sources.get(span.source) else { return String::new() };
    let line = line_number(&source.text, span.start.min(source.text.len()));
    if span.source == 0 { format!("line {line}") } else { format!("{}:{line}", source.file.display()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &[u8], start: usize, end: usize) -> String {
        let sources = [SourceText { file: "/etc/csync2.cfg".into(), text: text.to_vec() }];
        let span = Span { source: 0, start, end };
        ConfigError::new("Near line 2: syntax error".into()).at(&sources, span, "expected `;`").to_string()
    }

    #[test]
    fn the_known_line_comes_first_and_the_caret_stands_below_the_word() {
        assert_eq!(
            shown(b"group g {\n\tport 1;\n}", 11, 15),
            "Near line 2: syntax error\n --> /etc/csync2.cfg:2:2\n  |\n2 | \tport 1;\n  | \t^^^^ expected `;`"
        );
    }

    #[test]
    fn a_warning_is_one_line_or_shows_its_place() {
        let sources = [SourceText { file: "/etc/csync2.cfg".into(), text: b"group g {\n\thost a, b;\n}".to_vec() }];
        let warning = Warning::at(&sources, Span { source: 0, start: 16, end: 18 }, "a comma");
        assert_eq!(warning.to_string(), "/etc/csync2.cfg:2: a comma");
        let shown = "a comma\n --> /etc/csync2.cfg:2:7\n  |\n2 | \thost a, b;\n  | \t     ^^";
        assert_eq!(warning.in_full(), shown);
        let placeless = Warning::from("a fact".to_owned());
        assert_eq!([placeless.to_string(), placeless.in_full()], ["a fact", "a fact"]);
    }

    #[test]
    fn any_place_of_any_text_can_be_shown() {
        assert!(shown(b"", 0, 0).contains(":1:1"));
        assert!(shown(b"a\n", 2, 2).contains(":2:1"));
        assert!(shown(b"\x1b[31m\xff;\r\n", 5, 6).contains("1 | \u{fffd}[31m\u{fffd};"));
        let long = [vec![b'x'; 500], b" y".to_vec(), vec![b'z'; 500]].concat();
        let text = shown(&long, 501, 502);
        assert!(text.lines().all(|line| line.chars().count() < 140) && text.contains(":1:502"), "{text}");
    }
}
