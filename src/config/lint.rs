//! What parses but hardly means what was meant, as far as the text alone shows it: for whoever asks (`--check-config`).
//! Of the rest, `resolve` warns every run, and what takes the rules of groups, the disk or the network is `engine::pitfalls`.

use super::RuleKind;
use super::ast::{ActionStatement, Block, Document, GroupBlock, HostEntry, Statement, Word};
use super::diagnostics::Warning;
use super::pattern::{Pattern, PatternKind};

/// One warning for each, in any order. Of all groups, also those of other hosts.
pub(super) fn misleading(document: &Document) -> Vec<Warning> {
    let mut lint = Lint { document, warnings: Vec::new() };
    for block in &document.blocks {
        if let Block::Group(group) = block {
            lint.group(group);
        }
    }
    lint.warnings
}

struct Lint<'d> {
    document: &'d Document,
    warnings: Vec<Warning>,
}

impl Lint<'_> {
    fn warn(&mut self, word: &Word, text: String) {
        self.warnings.push(Warning::at(&self.document.sources, word.span, text));
    }

    fn group(&mut self, group: &GroupBlock) {
        let mut basenames: Vec<&Word> = Vec::new();
        let mut has_paths = false;
        for statement in &group.statements {
            match statement {
                Statement::Hosts(hosts) => self.hosts(hosts),
                Statement::Patterns(kind, words) => {
                    for word in words {
                        let is_path = matches!(Pattern::rule(&word.text).kind(), PatternKind::Path { .. });
                        has_paths |= is_path && *kind != RuleKind::Exclude;
                        if !is_path {
                            self.basename(word);
                            basenames.extend((*kind != RuleKind::Exclude).then_some(word));
                        }
                    }
                }
                Statement::Action(_, statements) => self.action(statements),
                Statement::Key(_)
                | Statement::Auto(_)
                | Statement::BackupDirectory(_)
                | Statement::BackupGenerations(_) => {}
            }
        }
        if let (false, Some(first)) = (has_paths, basenames.first()) {
            let text = "a name without a path takes back in what another one has taken out: as no path is included in this \
                        group, it covers no file";
            self.warn(first, text.to_owned());
        }
    }

    /// `host a(1.2.3.4)`: what is written like an address of `a` is a host of its own, and a slave.
    fn hosts(&mut self, hosts: &[HostEntry]) {
        let text = |word: &Word| self.document.sources.get(word.span.source).map_or(&[][..], |source| &source.text);
        let in_parentheses = |entry: &HostEntry| {
            let (text, span) = (text(&entry.name), entry.name.span);
            text.get(span.start.wrapping_sub(1)) == Some(&b'(') && text.get(span.end) == Some(&b')')
        };
        let pairs = hosts.windows(2).filter(|pair| {
            let (before, after) = (pair[0].name.span, pair[1].name.span);
            let is_glued = before.source == after.source && before.end + 1 == after.start;
            is_glued && pair[1].slave && pair[1].interface.is_none() && in_parentheses(&pair[1])
        });
        let found: Vec<(&Word, String)> = pairs
            .map(|pair| {
                let [host, slave] = [&pair[0].name, &pair[1].name].map(Word::lossy);
                let text = format!(
                    "`{slave}` is a slave here, a host of its own. An address of `{host}` is written `{host}@{slave}`, a \
                     slave with a blank before the parenthesis"
                );
                (&pair[1].name, text)
            })
            .collect();
        for (word, text) in found {
            self.warn(word, text);
        }
    }

    fn basename(&mut self, word: &Word) {
        let name = word.text.trim_ascii_end();
        let inner = name.iter().rposition(|&byte| byte != b'/').map_or(&[][..], |last| &name[..last]);
        if inner.contains(&b'/') {
            let text = "a pattern that does not begin with `/` or `%` is compared with the last component of a name, which \
                        holds no slash: it fits nothing";
            self.warn(word, text.to_owned());
        }
    }

    /// `exec service x restart;` is three commands.
    fn action(&mut self, statements: &[ActionStatement]) {
        for statement in statements {
            let words = match statement {
                ActionStatement::Exec(words) => words,
                ActionStatement::Pattern(words) => {
                    for word in words {
                        self.action_pattern(word);
                    }
                    continue;
                }
                ActionStatement::Logfile(_) | ActionStatement::DoLocal | ActionStatement::DoLocalOnly => continue,
            };
            let is_bare = |word: &Word| {
                self.document.sources.get(word.span.source).is_some_and(|source| source.text[word.span.start] != b'"')
            };
            if let [first, _, ..] = words.as_slice()
                && words.iter().any(is_bare)
            {
                let commands: Vec<String> = words.iter().map(|word| format!("`{}`", word.lossy())).collect();
                let text =
                    format!("each word is a command of its own here: {}. Quote what is one", commands.join(", "));
                self.warn(first, text);
            }
        }
    }

    /// `pattern *.conf;` is compared with whole names.
    fn action_pattern(&mut self, word: &Word) {
        let pattern = word.text.as_slice();
        let is_path = pattern.starts_with(b"/") || pattern.starts_with(b"%");
        if is_path || pattern.windows(2).any(|pair| pair == b"**") {
            return;
        }
        let first = pattern.split(|&byte| byte == b'/').next().unwrap_or_default();
        let fits_prefix = self.document.blocks.iter().any(|block| match block {
            Block::Prefix { name, .. } => Pattern::name(first).matches_name(&format!("%{}%", name.lossy())),
            _ => false,
        });
        if !fits_prefix {
            let shown = word.lossy();
            let anywhere = shown.strip_prefix('*').map_or_else(|| format!("**/{shown}"), |rest| format!("**{rest}"));
            let text = format!(
                "the pattern of an action is compared with whole names, which begin with `/` or `%`: it fits nothing. `{anywhere}` \
                 fits files in every directory"
            );
            self.warn(word, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use std::path::Path;

    fn warnings(group: &str) -> Vec<String> {
        let text = format!("group {{ {group} }}");
        let document = parse(text.as_bytes(), Path::new("x"), &mut |_| Ok(Vec::new())).unwrap();
        misleading(&document).iter().map(Warning::in_full).collect()
    }

    #[test]
    fn what_misleads_is_told_with_the_way_to_write_it() {
        for (group, at, part) in [
            ("host a(1.2.3.4) b;", "1.2.3.4", "written `a@1.2.3.4`"),
            ("host a b(c);", "c", "`c` is a slave here"),
            ("action { exec service x restart; }", "service", "`service`, `x`, `restart`"),
            ("action { exec \"service x\" restart; }", "\"service x\"", "each word is a command"),
            ("action { exec x; pattern *.conf; }", "*.conf", "`**.conf` fits files in every directory"),
            ("action { exec x; pattern x/y; }", "x/y", "`**/x/y` fits"),
            ("include /a; exclude logs/x;", "logs/x", "fits nothing"),
            ("include path1 path2; exclude *.svn;", "path1", "covers no file"),
        ] {
            let found = warnings(group);
            let caret = format!("\n  | {}{}", " ".repeat(8 + group.find(at).unwrap()), "^".repeat(at.len()));
            assert!(matches!(found.as_slice(), [only] if only.contains(part) && only.contains(&caret)), "{found:#?}");
        }
    }

    #[test]
    fn what_is_usual_is_not() {
        for group in [
            "host a (b) c; host (d e) f@g (h);",
            "host a(b c);",
            "include /a b/; exclude *~ .* CVS/ /x/y; compare /z;",
            "action { exec reload; exec \"a b\"; exec \"a b\" \"c d\"; pattern /x/y **.conf %p%/x; }",
            "",
        ] {
            assert_eq!(warnings(group), [""; 0], "{group}");
        }
    }
}
