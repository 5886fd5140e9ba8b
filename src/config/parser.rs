//! Tokens to a tree, by recursive descent: one function for each rule of the grammar in docs/manual.md.

use std::path::Path;

use super::ast::{ActionStatement, Block, Document, GroupBlock, HostEntry, Setting, Statement, Word};
use super::diagnostics::Span;
use super::lexer::{Includer, Keyword, Lexer, Token, TokenKind};
use super::{ConfigError, RuleKind};

/// Parses a configuration. `file` names it in messages; `include` reads the files that it includes, whose names it gets
/// as they are written.
///
/// # Errors
/// The first token that does not fit, and what `include` could not read.
pub fn parse(text: &[u8], file: &Path, include: &mut Includer<'_>) -> Result<Document, ConfigError> {
    let mut lexer = Lexer::new(text, file, include);
    let token = lexer.next_token()?;
    let mut parser = Parser { lexer, token };
    let mut blocks = Vec::new();
    while parser.token.kind != TokenKind::End {
        blocks.push(parser.block()?);
    }
    Ok(Document { sources: parser.lexer.into_sources(), blocks })
}

struct Parser<'i> {
    lexer: Lexer<'i>,
    /// The one looked at.
    token: Token,
}

const BLOCKS: &str = "expected `group`, `prefix`, `nossl`, `ignore`, `database`, `tempdir`, `lock-timeout` or `config`";
const STATEMENTS: &str = "expected `host`, `include`, `exclude`, `compare`, `key`, `auto`, `action`, `backup-directory`, \
                          `backup-generations`, `config` or `}`";
const ACTION_STATEMENTS: &str = "expected `pattern`, `exec`, `logfile`, `do-local`, `do-local-only` or `}`";

impl Parser<'_> {
    fn block(&mut self) -> Result<Block, ConfigError> {
        let span = self.token.span;
        let keyword = match &self.token.kind {
            TokenKind::Keyword(keyword) => *keyword,
            TokenKind::Bare(word) if let Some(setting) = Setting::from_word(word) => {
                self.advance()?;
                let value = self.word(&format!("expected the value of `{}`", setting.name()))?;
                self.end_of_statement()?;
                return Ok(Block::Setting(setting, value));
            }
            _ => return Err(self.syntax_error(BLOCKS)),
        };
        let block = match keyword {
            Keyword::Group => {
                self.advance()?;
                return self.group(span).map(Block::Group);
            }
            Keyword::Prefix => {
                self.advance()?;
                return self.prefix();
            }
            Keyword::NoSsl => {
                self.advance()?;
                let hint = "expected two patterns of host names: ours and the peer's";
                Block::NoSsl { from: self.word(hint)?, to: self.word(hint)? }
            }
            Keyword::Database => {
                self.advance()?;
                Block::Database(self.word("expected a database (quote it when it holds `@`, `:` at its end or `;`)")?)
            }
            Keyword::Tempdir => {
                self.advance()?;
                Block::Tempdir(self.word("expected a directory")?)
            }
            Keyword::Ignore => {
                self.advance()?;
                Block::Ignore(self.words()?)
            }
            Keyword::LockTimeout => {
                self.advance()?;
                Block::LockTimeout(self.word("expected a number of seconds")?)
            }
            Keyword::NoCygwinLowercase => {
                self.advance()?;
                Block::NoCygwinLowercase(span)
            }
            _ => return Err(self.syntax_error(BLOCKS)),
        };
        self.end_of_statement()?;
        Ok(block)
    }

    fn group(&mut self, keyword: Span) -> Result<GroupBlock, ConfigError> {
        let name = self.optional_word()?;
        self.open_brace()?;
        let mut statements = Vec::new();
        while self.token.kind != TokenKind::Close {
            statements.push(self.statement()?);
        }
        self.advance()?;
        Ok(GroupBlock { keyword, name, statements })
    }

    fn statement(&mut self) -> Result<Statement, ConfigError> {
        let TokenKind::Keyword(keyword) = self.token.kind else { return Err(self.syntax_error(STATEMENTS)) };
        if keyword == Keyword::Action {
            let span = self.token.span;
            self.advance()?;
            return self.action().map(|statements| Statement::Action(span, statements));
        }
        let mut after = |value: fn(&mut Self) -> Result<Statement, ConfigError>| {
            self.advance()?;
            value(self)
        };
        let statement = match keyword {
            Keyword::Host => after(|parser| parser.hosts().map(Statement::Hosts)),
            Keyword::Include => after(|parser| Ok(Statement::Patterns(RuleKind::Include, parser.words()?))),
            Keyword::Exclude => after(|parser| Ok(Statement::Patterns(RuleKind::Exclude, parser.words()?))),
            Keyword::Compare => after(|parser| Ok(Statement::Patterns(RuleKind::Compare, parser.words()?))),
            Keyword::Key => after(|parser| parser.word("expected a key file").map(Statement::Key)),
            Keyword::Auto => after(|parser| parser.word("expected a method").map(Statement::Auto)),
            Keyword::BackupDirectory => {
                after(|parser| parser.word("expected a directory").map(Statement::BackupDirectory))
            }
            Keyword::BackupGenerations => {
                after(|parser| parser.word("expected a number").map(Statement::BackupGenerations))
            }
            _ => Err(self.syntax_error(STATEMENTS)),
        }?;
        self.end_of_statement()?;
        Ok(statement)
    }

    /// `{ host | "(" { host } ")" }`
    fn hosts(&mut self) -> Result<Vec<HostEntry>, ConfigError> {
        let mut hosts = Vec::new();
        let mut slave = false;
        loop {
            match &self.token.kind {
                TokenKind::OpenHosts if !slave => slave = true,
                TokenKind::CloseHosts if slave => slave = false,
                TokenKind::Bare(_) | TokenKind::Quoted(_) => {
                    hosts.push(self.host(slave)?);
                    continue;
                }
                _ if slave => return Err(self.syntax_error("expected a host name or `)`")),
                _ => return Ok(hosts),
            }
            self.advance()?;
        }
    }

    fn host(&mut self, slave: bool) -> Result<HostEntry, ConfigError> {
        let name = self.word("expected a host name")?;
        let interface = match self.token.kind {
            TokenKind::At => {
                self.advance()?;
                Some(self.word("expected the name or address under which the host is reached")?)
            }
            _ => None,
        };
        Ok(HostEntry { name, interface, slave })
    }

    fn action(&mut self) -> Result<Vec<ActionStatement>, ConfigError> {
        self.open_brace()?;
        let mut statements = Vec::new();
        while self.token.kind != TokenKind::Close {
            let TokenKind::Keyword(keyword) = self.token.kind else {
                return Err(self.syntax_error(ACTION_STATEMENTS));
            };
            let known = matches!(
                keyword,
                Keyword::Pattern | Keyword::Exec | Keyword::Logfile | Keyword::DoLocal | Keyword::DoLocalOnly
            );
            if !known {
                return Err(self.syntax_error(ACTION_STATEMENTS));
            }
            self.advance()?;
            statements.push(match keyword {
                Keyword::Pattern => ActionStatement::Pattern(self.words()?),
                Keyword::Exec => ActionStatement::Exec(self.words()?),
                Keyword::Logfile => ActionStatement::Logfile(self.word("expected a file")?),
                Keyword::DoLocal => ActionStatement::DoLocal,
                _ => ActionStatement::DoLocalOnly,
            });
            self.end_of_statement()?;
        }
        self.advance()?;
        Ok(statements)
    }

    fn prefix(&mut self) -> Result<Block, ConfigError> {
        let name = self.word("expected the name of the prefix")?;
        self.open_brace()?;
        let mut lines = Vec::new();
        while self.token.kind != TokenKind::Close {
            self.expect(&TokenKind::Keyword(Keyword::On), "expected `on` or `}`")?;
            let host = self.word("expected a pattern of host names")?;
            self.expect(&TokenKind::Colon, "expected `:` and a blank behind the pattern of host names")?;
            let path = self.word("expected an absolute path")?;
            self.end_of_statement()?;
            lines.push((host, path));
        }
        self.advance()?;
        Ok(Block::Prefix { name, lines })
    }

    fn words(&mut self) -> Result<Vec<Word>, ConfigError> {
        let mut words = Vec::new();
        while let Some(word) = self.optional_word()? {
            words.push(word);
        }
        Ok(words)
    }

    fn word(&mut self, hint: &str) -> Result<Word, ConfigError> {
        match self.optional_word()? {
            Some(word) => Ok(word),
            None => Err(self.syntax_error(hint)),
        }
    }

    fn optional_word(&mut self) -> Result<Option<Word>, ConfigError> {
        match &mut self.token.kind {
            TokenKind::Bare(text) | TokenKind::Quoted(text) => {
                let word = Word { text: std::mem::take(text), span: self.token.span };
                self.advance()?;
                Ok(Some(word))
            }
            _ => Ok(None),
        }
    }

    fn open_brace(&mut self) -> Result<(), ConfigError> {
        self.expect(&TokenKind::Open, "expected `{`, with a blank on either side")
    }

    fn end_of_statement(&mut self) -> Result<(), ConfigError> {
        self.expect(&TokenKind::Semicolon, "expected `;`")
    }

    fn expect(&mut self, kind: &TokenKind, hint: &str) -> Result<(), ConfigError> {
        if self.token.kind == *kind { self.advance() } else { Err(self.syntax_error(hint)) }
    }

    fn advance(&mut self) -> Result<(), ConfigError> {
        self.token = self.lexer.next_token()?;
        Ok(())
    }

    /// About the token at hand.
    fn syntax_error(&self, hint: &str) -> ConfigError {
        let found = match &self.token.kind {
            TokenKind::Keyword(keyword) => {
                format!(", found the keyword `{word}` (as a value: \"{word}\")", word = keyword.word())
            }
            TokenKind::End => ", found the end of the file".to_owned(),
            _ => String::new(),
        };
        ConfigError::new(format!("Near line {}: syntax error", self.token.line)).at(
            self.lexer.sources(),
            self.token.span,
            format!("{hint}{found}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io;

    fn parsed(text: &str) -> Result<Document, ConfigError> {
        parse(text.as_bytes(), Path::new("test.cfg"), &mut |_| Err(io::ErrorKind::NotFound.into()))
    }

    /// Each verdict was seen from the C program.
    #[test]
    fn accepted_and_refused_are_what_the_c_program_accepts_and_refuses() {
        for text in [
            "",
            "#",
            "group g { host h p; key k; include a:b a::b :a a{ b} {c }d; }",
            "group g { host h p; key k; include a};}",
            "group g { host h p; key k;}",
            "group g { host ; key k; include; include \"\"; include a\"b\"c; }",
            "group \"\" { key k; } group \"g h\" { key k; } group \"group\" { key k; }",
            "group { host (h p) h (p) q () x; host h @ i p@j; host h (h@i); key k; }",
            "group { action { } action { pattern; exec; logfile a; logfile b; do-local; do-local-only; } }",
            "group { key k; backup-directory a; backup-directory b; backup-generations x; }",
            "database x; database y; tempdir x; tempdir y; lock-timeout x; lock-timeout -3;",
            "ignore; ignore uid gid mod;",
            "prefix p { } prefix p { on * : /tmp; on \"*\": /tmp; on *:\"/tmp\"; on :*: /tmp; }",
            "nossl a \u{1};nossl a }}; nossl a {}; nossl a\u{b}c x;",
            "nossl max-sessions parallel-peers; group max-removals { host idle-timeout; }",
        ] {
            assert!(parsed(text).is_ok(), "{text}: {}", parsed(text).unwrap_err());
        }
        for (text, line) in [
            ("group g { host h p; key k; include a@b; }", 1),
            ("group g { host h p; key k; include a: ; }", 1),
            ("group g { host h p; key k; include a }; }", 1),
            ("group demo{ host h; key k; }", 1),
            ("group g {host h p; key k; }", 1),
            ("group g { ; host h p; key k; }", 1),
            ("group { host h p; key k; no-cygwin-lowercase; }", 1),
            ("group { host h p; key k; key; }", 1),
            ("group { host h p; key k; key key; }", 1),
            ("group { host h p; key k; auto; }", 1),
            ("group { host h p; key k; key \"\"; }", 1),
            ("group { host h p; key \"k", 1),
            ("group { host h p; key k }", 1),
            ("group { host h p; key k; } ;", 1),
            ("group g h { host h p; key k; }", 1),
            ("group group { host h p; key k; }", 1),
            ("group g { host group p; key k; }", 1),
            ("group g { include keyx xkey key.y on:; }", 1),
            ("group { host h (p; key k; }", 1),
            ("group { host ((h)); key k; }", 1),
            ("group { host h@i@j; key k; }", 1),
            ("group { host h (p)@i; key k; }", 1),
            ("group { host @i h; key k; }", 1),
            ("group { action { }; }", 1),
            ("group { action { pattern a b exec c; } }", 1),
            ("group { action { logfile ; } }", 1),
            ("group { action { logfile a b; } }", 1),
            ("group { action { do-local x; } }", 1),
            ("group { action { ; } }", 1),
            ("group { action ; }", 1),
            ("group { backup-generations x y; }", 1),
            ("Group g {}", 1),
            ("nossl a;", 1),
            ("nossl * * *;", 1),
            ("nossl a b;}", 1),
            ("nossl a };", 1),
            ("nossl a {: ;", 1),
            ("nossl a \u{b} b;", 1),
            ("database a b;", 1),
            ("database ;", 1),
            ("lock-timeout;", 1),
            ("prefix { on *: /tmp; }", 1),
            ("prefix p { on *:/tmp; }", 1),
            ("prefix p { on \"*\":/tmp; }", 1),
            ("prefix p { on *:: /tmp; }", 1),
            ("prefix p { on a b: /tmp; }", 1),
            ("prefix p { on a: /tmp /x; }", 1),
            ("prefix p { on *: /tmp }", 1),
            ("group { key k; }\nfoo", 2),
            ("group { key k; }\n\"x\n\nnossl a b;", 4),
            ("group\n{\nhost h p\n}\n", 4),
            ("\"max-sessions\" 3;", 1),
        ] {
            let error = parsed(text).expect_err(text);
            assert_eq!(error.message(), format!("Near line {line}: syntax error"), "{text}");
        }
    }

    #[test]
    fn an_error_shows_the_place_and_what_was_expected() {
        let error = parsed("nossl * *;\ngroup demo{\n  host h;\n}").unwrap_err();
        assert_eq!(
            error.to_string(),
            "Near line 3: syntax error\n --> test.cfg:3:3\n  |\n3 |   host h;\n  |   ^^^^ expected `{`, with a blank on \
             either side, found the keyword `host` (as a value: \"host\")"
        );
    }

    #[test]
    fn the_place_is_that_of_the_included_file_and_the_line_number_runs_on() {
        let error = parse(b"nossl * *;\nconfig more;", Path::new("test.cfg"), &mut |_| Ok(b"\n\nport 1;".to_vec()))
            .unwrap_err();
        assert_eq!(error.message(), "Near line 4: syntax error");
        assert_eq!(error.location(), Some((Path::new("more"), 3)));
    }

    fn token_soup() -> impl Strategy<Value = Vec<u8>> {
        let keyword = prop::sample::select(Keyword::ALL).prop_map(|keyword| keyword.word().to_owned());
        let setting = prop::sample::select(&Setting::ALL).prop_map(|(name, _)| name.to_owned());
        let other = prop::sample::select(vec![
            "{", "}", "(", ")", ";", ":", "@", "\"", "#", "\n", "config", "self", "x", "/a/*", "\"a b\"", "3", "50%",
            "\0", "\u{ff}", "*:", " ",
        ])
        .prop_map(str::to_owned);
        prop::collection::vec((prop_oneof![3 => keyword, 1 => setting, 5 => other], any::<bool>()), 0..40).prop_map(
            |tokens| {
                tokens
                    .into_iter()
                    .flat_map(|(token, blank)| format!("{token}{}", if blank { " " } else { "" }).into_bytes())
                    .collect()
            },
        )
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let result = parse(&text, Path::new("x"), &mut |_| Ok(vec![b'"', 0xff]));
            if let Err(error) = result { let _ = error.to_string(); }
        }

        #[test]
        fn random_tokens_never_panic(text in token_soup(), included in token_soup()) {
            let result = parse(&text, Path::new("x"), &mut |_| Ok(included.clone()));
            if let Err(error) = result { let _ = error.to_string(); }
        }
    }
}
