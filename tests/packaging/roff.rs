//! Markdown, as docs/ is written in, becomes a man page. What a link leads to is left out; a row of a table becomes a paragraph
//! with its first cell as tag.

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// A page: `name(section)`.
pub(crate) struct Page {
    text: String,
    line_begins: bool,
}

impl Page {
    pub(crate) fn new(name: &str, section: u8, kind: &str) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let note = "Made by: CSYNC2_WRITE_PAGES=1 cargo test --test packaging";
        let text = format!(".\\\" {note}\n.TH {name} {section} \"\" \"csync2 {version}\" \"{kind}\"\n");
        Self { text, line_begins: true }
    }

    pub(crate) fn into_text(mut self) -> String {
        self.end_line();
        self.text
    }

    pub(crate) fn section(&mut self, title: &str) {
        self.request(&format!(".SH {}", escaped(title, false)));
    }

    pub(crate) fn subsection(&mut self, title: &str) {
        self.request(&format!(".SS {}", escaped(title, false)));
    }

    /// A paragraph that hangs below its tag, which is shown as typed.
    pub(crate) fn tagged(&mut self, tag: &str, text: &str) {
        self.request(".TP");
        self.code(tag);
        self.end_line();
        self.words(text);
        self.end_line();
    }

    /// Text as it stands, such as an example or a synopsis.
    pub(crate) fn verbatim(&mut self, text: &str) {
        self.request(".PP");
        self.request(".RS 4");
        self.request(".nf");
        for line in text.trim_end().lines() {
            let line = escaped(&line.replace('\t', "    "), true);
            let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
            self.request(&format!("{guard}{line}"));
        }
        self.request(".fi");
        self.request(".RE");
    }

    /// Headings of the second level begin a section, deeper ones a subsection.
    pub(crate) fn markdown(&mut self, text: &str) {
        let mut events = Parser::new_ext(text, Options::ENABLE_TABLES);
        // Lists within lists hang deeper.
        let mut lists = 0_u32;
        while let Some(event) = events.next() {
            match event {
                Event::Start(Tag::Heading { level, .. }) => {
                    let title = inner_text(&mut events, TagEnd::Heading(level));
                    if level == HeadingLevel::H2 {
                        self.section(&title.to_uppercase());
                    } else {
                        self.subsection(&title);
                    }
                }
                Event::Start(Tag::Paragraph) if lists == 0 => self.request(".PP"),
                // The item has begun one.
                Event::Start(Tag::Paragraph) => {}
                Event::Start(Tag::List(_)) => lists += 1,
                Event::End(TagEnd::List(_)) => {
                    lists -= 1;
                    self.request(".PP");
                }
                Event::Start(Tag::Item) => self.request(".IP \\(bu 3"),
                Event::Start(Tag::CodeBlock(_)) => {
                    let code = inner_text(&mut events, TagEnd::CodeBlock);
                    self.verbatim(&code);
                }
                Event::Start(Tag::Table(_)) => self.table(&mut events),
                Event::End(TagEnd::Paragraph | TagEnd::Item) => self.end_line(),
                event => self.inline(&event),
            }
        }
        self.end_line();
    }

    fn inline(&mut self, event: &Event<'_>) {
        match event {
            Event::Text(text) => self.words(text),
            Event::Code(text) => self.code(text),
            Event::SoftBreak | Event::HardBreak => self.end_line(),
            Event::Start(Tag::Strong) => self.font("\\fB"),
            Event::Start(Tag::Emphasis) => self.font("\\fI"),
            Event::End(TagEnd::Strong | TagEnd::Emphasis) => self.font("\\fR"),
            Event::Start(Tag::Link { .. }) | Event::End(TagEnd::Link) => {}
            other => panic!("no man page has {other:?}: teach it to tests/packaging/roff.rs"),
        }
    }

    /// Cells between the first and the last say what they are, by the head of their column.
    fn table(&mut self, events: &mut Parser<'_>) {
        let mut heads: Vec<String> = Vec::new();
        let mut column = 0;
        while let Some(event) = events.next() {
            match event {
                Event::Start(Tag::TableHead) => loop {
                    match events.next().expect("the table's head ends") {
                        Event::Start(Tag::TableCell) => heads.push(inner_text(events, TagEnd::TableCell)),
                        Event::End(TagEnd::TableHead) => break,
                        _ => {}
                    }
                },
                Event::Start(Tag::TableRow) => {
                    column = 0;
                    self.request(".TP");
                }
                Event::Start(Tag::TableCell) => {
                    if column > 1 {
                        self.words("; ");
                    }
                    if column > 0 && heads.len() > 2 && !heads[column].is_empty() {
                        self.words(&format!("{}: ", heads[column]));
                    }
                }
                Event::End(TagEnd::TableCell) => {
                    if column == 0 {
                        self.end_line();
                    }
                    column += 1;
                }
                Event::End(TagEnd::TableRow) => self.end_line(),
                Event::End(TagEnd::Table) => return,
                event => self.inline(&event),
            }
        }
    }

    fn request(&mut self, line: &str) {
        self.end_line();
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn words(&mut self, text: &str) {
        let escaped = escaped(text, false);
        if self.line_begins && escaped.starts_with(['.', '\'']) {
            self.text.push_str("\\&");
        }
        // A blank at the beginning of a line would break the paragraph.
        let escaped = if self.line_begins { escaped.trim_start() } else { &escaped };
        self.text.push_str(escaped);
        self.line_begins &= escaped.is_empty();
    }

    fn code(&mut self, text: &str) {
        for piece in ["\\fB", &escaped(text, true), "\\fR"] {
            self.text.push_str(piece);
        }
        self.line_begins = false;
    }

    fn font(&mut self, escape: &str) {
        self.text.push_str(escape);
        self.line_begins = false;
    }

    fn end_line(&mut self) {
        if !self.line_begins {
            self.text.push('\n');
            self.line_begins = true;
        }
    }
}

/// For roff. What is typed at a shell must come out as the very characters.
fn escaped(text: &str, as_typed: bool) -> String {
    let mut result = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => result.push_str("\\e"),
            '-' if as_typed => result.push_str("\\-"),
            '\'' if as_typed => result.push_str("\\(aq"),
            '`' if as_typed => result.push_str("\\(ga"),
            '^' => result.push_str("\\(ha"),
            '~' => result.push_str("\\(ti"),
            other => result.push(other),
        }
    }
    result
}

/// The text up to the end of what has just begun.
fn inner_text(events: &mut Parser<'_>, end: TagEnd) -> String {
    let mut text = String::new();
    for event in events {
        match event {
            Event::End(found) if found == end => break,
            Event::Text(piece) | Event::Code(piece) => text.push_str(&piece),
            _ => {}
        }
    }
    text
}
