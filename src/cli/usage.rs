//! The help text: the C program's, with our options added. How it is laid out; what it says of options stands in `options`.

use super::options::Section::{Database, KeyFile, Modifiers, Simple, WithFiles, WithoutFiles};
use super::options::{Help, OPTIONS};

/// The name and version line.
const VERSION: &str = concat!("csync2 ", env!("CARGO_PKG_VERSION"), " - cluster synchronization tool");

const ABOUT: &str = "
This program is free software under the terms of the GNU GPL.

Usage: csync2 [-v..] [-C config-name] \\
\t\t[-D database-dir] [-N hostname] [-p port] ..
";

const URLS: &str = "\t\tAbsolute path: use sqlite database in that directory
\t    URLs:
\t\tsqlite:///some/path[/database.db3]
\t\tsqlite3:///some/path[/database.db3]
\t\tpgsql://[<user>:<password>@]<hostname>/[database]
\tIf database is not given, it defaults to csync2_<qualified hostname>.
\tNote that for non-sqlite backends, the database name is \"cleaned\",
\tcharacters outside of [0-9][a-z][A-Z] will be replaced with _.
";

const EXIT_CODES: &str = "
Exit codes:
\tThe modes -H, -L, -M and -S return 2 if the requested db is empty.
\tThe mode -T returns 2 if both hosts are in sync.
\tThe mode --status returns 0, 1 (warning), 2 (critical) or 3 (unknown).
\tOtherwise, only exit codes 0 (no errors)
\tand 1 (some unspecified errors) are expected.
";

const ENVIRONMENT: &str = "
Environment variables:
\tCSYNC2_SYSTEM_DIR
\t\tDirectory containing csync2.cfg and other csync2 system files.
\t\tDefaults to /etc.

Csync2 will refuse to do anything if this file is found:
$CSYNC2_SYSTEM_DIR/csync2.lock
";

/// The help text.
#[must_use]
pub fn usage() -> String {
    let mut text = format!("\n{VERSION}\n{ABOUT}");
    let sections = [
        (WithFiles, "With file parameters:"),
        (Simple, "Simple mode:"),
        (WithoutFiles, "Without file parameters:"),
        (Modifiers, "Modifiers:"),
        (Database, "Database switches:"),
        (KeyFile, "Creating key file:"),
    ];
    for (section, title) in sections {
        text.push('\n');
        text.push_str(title);
        text.push('\n');
        for entry in OPTIONS.iter().flat_map(|record| record.help).filter(|entry| entry.section == section) {
            entry.write_to(&mut text);
        }
        match section {
            WithoutFiles => text.push_str(EXIT_CODES),
            Database => text.push_str(URLS),
            _ => {}
        }
    }
    text + ENVIRONMENT
}

/// The width of a terminal, and where tabs stop.
const WIDTH: usize = 80;
const TAB: usize = 8;

impl Help {
    /// Synopsis and text in two columns; a synopsis too wide for its column has a line of its own.
    fn write_to(&self, output: &mut String) {
        let wide = matches!(self.section, WithFiles | Simple)
            || (self.section == WithoutFiles
                && self.synopsis.contains(char::is_alphabetic)
                && self.synopsis.len() > TAB);
        let column = if wide { 4 * TAB } else { 2 * TAB };
        output.push('\t');
        output.push_str(self.synopsis);
        let mut at = TAB + self.synopsis.len();
        if at >= column && !self.text.is_empty() {
            output.push('\n');
            at = 0;
        }
        let mut line_is_empty = true;
        for word in self.text.split_ascii_whitespace() {
            if !line_is_empty && at + 1 + word.len() >= WIDTH {
                output.push('\n');
                (at, line_is_empty) = (0, true);
            }
            if line_is_empty {
                let tabs = (column - at).div_ceil(TAB);
                output.extend(std::iter::repeat_n('\t', tabs));
                at = column;
            } else {
                output.push(' ');
                at += 1;
            }
            output.push_str(word);
            at += word.len();
            line_is_empty = false;
        }
        output.push('\n');
    }
}
