//! Bytes to tokens, odd cases as the C program has them (docs/manual.md). `config FILE;` is handled here: the included
//! file's tokens simply come next, wherever the word stands.
//!
//! What looks arbitrary is kept because files in the field rely on it: a `:` is a token of its own only behind a word
//! or alone, braces only when alone, `""` is nothing at all, an unclosed string ends with its file.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::ConfigError;
use super::diagnostics::{SourceText, Span};

/// Asks for the text of an included file; the name is as it stands in the configuration.
pub type Includer<'i> = dyn FnMut(&Path) -> io::Result<Vec<u8>> + 'i;

/// So deep may `config` go.
const INCLUDE_DEPTH: usize = 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub kind: TokenKind,
    pub span: Span,
    /// As the C program counts: on through included files, at the end of the token.
    pub line: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenKind {
    Open,
    Close,
    OpenHosts,
    CloseHosts,
    Semicolon,
    Colon,
    At,
    Keyword(Keyword),
    Bare(Vec<u8>),
    Quoted(Vec<u8>),
    End,
}

macro_rules! keywords {
    ($($name:ident = $word:literal),* $(,)?) => {
        /// Words that are keywords wherever they stand unquoted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Keyword { $($name),* }

        impl Keyword {
            #[cfg(test)]
            pub const ALL: &[Self] = &[$(Self::$name),*];

            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word),* }
            }

            fn from_word(word: &[u8]) -> Option<Self> {
                $(if word == $word.as_bytes() { return Some(Self::$name); })*
                None
            }
        }
    };
}

keywords! {
    NoSsl = "nossl", Ignore = "ignore", Database = "database", Group = "group", Host = "host", Exclude = "exclude",
    Include = "include", Compare = "compare", Key = "key", Auto = "auto", Action = "action", Pattern = "pattern",
    Exec = "exec", Logfile = "logfile", DoLocal = "do-local", DoLocalOnly = "do-local-only", Prefix = "prefix",
    On = "on", LockTimeout = "lock-timeout", Tempdir = "tempdir", BackupDirectory = "backup-directory",
    BackupGenerations = "backup-generations", NoCygwinLowercase = "no-cygwin-lowercase",
}

/// The word that includes a file. No keyword of the grammar: the parser never sees it.
const CONFIG: &[u8] = b"config";

/// Whether a word has to be quoted in order to be a name.
pub(super) fn is_keyword(word: &[u8]) -> bool {
    word == CONFIG || Keyword::from_word(word).is_some()
}

pub struct Lexer<'i> {
    sources: Vec<SourceText>,
    /// The file being read is the last.
    open: Vec<Cursor>,
    /// Behind the word `config`, up to its `;`.
    naming_files: bool,
    /// Newlines so far.
    newlines: usize,
    include: &'i mut Includer<'i>,
}

#[derive(Debug, Clone, Copy)]
struct Cursor {
    source: usize,
    position: usize,
}

impl<'i> Lexer<'i> {
    pub fn new(text: &[u8], file: &Path, include: &'i mut Includer<'i>) -> Self {
        let source = SourceText { file: file.to_owned(), text: text.to_vec() };
        let open = vec![Cursor { source: 0, position: 0 }];
        Self { sources: vec![source], open, naming_files: false, newlines: 0, include }
    }

    pub fn sources(&self) -> &[SourceText] {
        &self.sources
    }

    pub fn into_sources(self) -> Vec<SourceText> {
        self.sources
    }

    /// The next token; [`TokenKind::End`] behind the last, as often as asked.
    pub fn next_token(&mut self) -> Result<Token, ConfigError> {
        loop {
            let rest = self.rest();
            let Some(&byte) = rest.first() else {
                if self.open.len() > 1 {
                    self.open.pop();
                    // The C program goes on as behind `config`: more names may follow.
                    self.naming_files = true;
                    continue;
                }
                return Ok(self.take(0, TokenKind::End));
            };
            if self.naming_files {
                self.file_name(byte)?;
                continue;
            }
            let punctuation = |kind| Some((1, kind));
            let found = match byte {
                b' ' | b'\t' | b'\r' | b'\n' => {
                    self.skip(1);
                    None
                }
                b'#' => {
                    self.skip(rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len()));
                    None
                }
                b'"' => {
                    if let Some(token) = self.string() {
                        return Ok(token);
                    }
                    None
                }
                b'@' => punctuation(TokenKind::At),
                b';' => punctuation(TokenKind::Semicolon),
                b'(' => punctuation(TokenKind::OpenHosts),
                b')' => punctuation(TokenKind::CloseHosts),
                _ => match bare_length(rest) {
                    0 => punctuation(TokenKind::Colon),
                    length if &rest[..length] == CONFIG => {
                        self.naming_files = true;
                        self.skip(length);
                        None
                    }
                    length => Some((length, word(&rest[..length]))),
                },
            };
            if let Some((length, kind)) = found {
                return Ok(self.take(length, kind));
            }
        }
    }

    /// One step behind `config`: blanks, the closing `;`, or the name of a file to be read now.
    fn file_name(&mut self, byte: u8) -> Result<(), ConfigError> {
        let is_end = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b';');
        match byte {
            b';' => {
                self.naming_files = false;
                self.skip(1);
            }
            b'\n' => {
                // The C program does not count this line.
                self.skip(1);
                self.newlines -= 1;
            }
            byte if is_end(&byte) => self.skip(1),
            _ => {
                let rest = self.rest();
                let length = rest.iter().position(is_end).unwrap_or(rest.len());
                let name = up_to_nul(&rest[..length]);
                let span = self.span(length);
                self.skip(length);
                self.naming_files = false;
                self.enter(&name, span)?;
            }
        }
        Ok(())
    }

    fn enter(&mut self, name: &[u8], span: Span) -> Result<(), ConfigError> {
        if self.open.len() > INCLUDE_DEPTH {
            return Err(ConfigError::new("Config includes nested too deeply.".into()).at(
                &self.sources,
                span,
                format!("{INCLUDE_DEPTH} files deep is the limit; does a file include itself?"),
            ));
        }
        let file = Path::new(OsStr::from_bytes(name));
        let text = (self.include)(file).map_err(|error| {
            ConfigError::new(format!("Can't open included config file '{}'.", file.display()))
                .at(&self.sources, span, error.to_string())
                .because(error)
        })?;
        self.open.push(Cursor { source: self.sources.len(), position: 0 });
        self.sources.push(SourceText { file: file.to_owned(), text });
        Ok(())
    }

    /// At an opening quote: the string up to the closing one or the end of the file. Nothing when it is empty.
    fn string(&mut self) -> Option<Token> {
        let content = &self.rest()[1..];
        let length = content.iter().position(|&byte| byte == b'"');
        let text = &content[..length.unwrap_or(content.len())];
        let whole = 1 + text.len() + usize::from(length.is_some());
        if text.is_empty() {
            self.skip(whole);
            return None;
        }
        let kind = TokenKind::Quoted(up_to_nul(text));
        Some(self.take(whole, kind))
    }

    fn cursor(&self) -> Cursor {
        self.open.last().copied().unwrap_or(Cursor { source: 0, position: 0 })
    }

    fn rest(&self) -> &[u8] {
        let Cursor { source, position } = self.cursor();
        &self.sources[source].text[position..]
    }

    fn span(&self, length: usize) -> Span {
        let Cursor { source, position } = self.cursor();
        Span { source, start: position, end: position + length }
    }

    fn skip(&mut self, length: usize) {
        self.newlines += self.rest()[..length].split(|&byte| byte == b'\n').count() - 1;
        if let Some(cursor) = self.open.last_mut() {
            cursor.position += length;
        }
    }

    fn take(&mut self, length: usize, kind: TokenKind) -> Token {
        let span = self.span(length);
        self.skip(length);
        Token { kind, span, line: self.newlines + 1 }
    }
}

impl std::fmt::Debug for Lexer<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Lexer")
            .field("open", &self.open)
            .field("newlines", &self.newlines)
            .finish_non_exhaustive()
    }
}

/// How long the bare word is that begins here; 0 where there are only colons.
fn bare_length(rest: &[u8]) -> usize {
    let ends = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'@' | b';' | b'(' | b')' | b'#' | b'"');
    let run = &rest[..rest.iter().position(ends).unwrap_or(rest.len())];
    run.iter().rposition(|&byte| byte != b':').map_or(0, |last| last + 1)
}

fn word(text: &[u8]) -> TokenKind {
    match text {
        b"{" => TokenKind::Open,
        b"}" => TokenKind::Close,
        _ => match Keyword::from_word(text) {
            Some(keyword) => TokenKind::Keyword(keyword),
            None => TokenKind::Bare(up_to_nul(text)),
        },
    }
}

/// The C program's strings end at a NUL.
fn up_to_nul(text: &[u8]) -> Vec<u8> {
    text.split(|&byte| byte == 0).next().unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(kind: &TokenKind) -> String {
        match kind {
            TokenKind::Open => "{".into(),
            TokenKind::Close => "}".into(),
            TokenKind::OpenHosts => "(".into(),
            TokenKind::CloseHosts => ")".into(),
            TokenKind::Semicolon => ";".into(),
            TokenKind::Colon => ":".into(),
            TokenKind::At => "@".into(),
            TokenKind::Keyword(keyword) => format!("<{}>", keyword.word()),
            TokenKind::Bare(text) => format!("'{}'", String::from_utf8_lossy(text)),
            TokenKind::Quoted(text) => format!("\"{}\"", String::from_utf8_lossy(text)),
            TokenKind::End => String::new(),
        }
    }

    fn tokens(text: &str) -> String {
        let mut include = |file: &Path| match file.to_str() {
            Some("half") => Ok(b"nossl\n a".to_vec()),
            Some("quote") => Ok(b"x \"y".to_vec()),
            Some("self") => Ok(b"config self;".to_vec()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        let mut lexer = Lexer::new(text.as_bytes(), Path::new("test.cfg"), &mut include);
        let mut shown = Vec::new();
        loop {
            match lexer.next_token() {
                Ok(Token { kind: TokenKind::End, line, .. }) => return format!("{} {line}", shown.join(" ")),
                Ok(token) => shown.push(show(&token.kind)),
                Err(error) => return error.message().to_owned(),
            }
        }
    }

    #[test]
    fn odd_tokens_are_those_of_the_c_program() {
        for (text, expected) in [
            ("on *: /tmp;", "<on> '*' : '/tmp' ; 1"),
            ("on *:/tmp;", "<on> '*:/tmp' ; 1"),
            ("a:: : :a on:x on::", "'a' : : : ':a' 'on:x' <on> : : 1"),
            ("demo{ { }} {} };", "'demo{' { '}}' '{}' } ; 1"),
            ("a\"b\"\"\"c", "'a' \"b\" 'c' 1"),
            ("\"a;\n#\" #\"x\n\"key\"", "\"a;\n#\" \"key\" 3"),
            ("\"never closed\n;", "\"never closed\n;\" 2"),
            ("x \"", "'x' 1"),
            ("h@i(p)", "'h' @ 'i' ( 'p' ) 1"),
            ("a\\ \u{b}b", "'a\\' '\u{b}b' 1"),
            ("a\0c", "'a' 1"),
            ("do-local do-local-only Key key.x", "<do-local> <do-local-only> 'Key' 'key.x' 1"),
        ] {
            assert_eq!(tokens(text), expected, "{text:?}");
        }
    }

    #[test]
    fn an_included_file_stands_in_place_of_the_statement() {
        for (text, expected) in [
            ("config half; b;", "<nossl> 'a' 'b' ; 2"),
            ("config half half ; b;", "<nossl> 'a' <nossl> 'a' 'b' ; 3"),
            ("config\n\n;foo", "'foo' 1"),
            ("config;foo\n", "'foo' 2"),
            ("config quote;\"z\"", "'x' \"y\" \"z\" 1"),
            ("config", " 1"),
            ("config gone;", "Can't open included config file 'gone'."),
            ("config \"half\";", "Can't open included config file '\"half\"'."),
            ("config#x\n;", "Can't open included config file '#x'."),
            ("config self;", "Config includes nested too deeply."),
            ("config.x \"config\"", "'config.x' \"config\" 1"),
        ] {
            assert_eq!(tokens(text), expected, "{text:?}");
        }
    }
}
