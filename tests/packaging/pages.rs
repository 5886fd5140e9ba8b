//! The man pages csync2(8) and csync2.cfg(5): options from the table that the parser has, everything else from the manual.

use csync2::cli::options::{OPTIONS, Section};

use super::roff::Page;
use super::source;

const SEE_ALSO: &str =
    "The documents in `/usr/share/doc/csync2`: `manual.md` is the source of these pages; `operations.md` has
services, databases and every message with what to do about it; `migration.md` is about coming from the C program, and
going back.
";

/// csync2(8).
pub(crate) fn program() -> String {
    let manual = source("docs/manual.md");
    let mut page = Page::new("csync2", 8, "System Administration");
    page.section("NAME");
    page.markdown("csync2 - keep files in step across the hosts of a cluster");
    let (_, body) = manual.split_once("\n\n").expect("a title");
    let (synopsis, description) = body.split_once("\n\n").expect("a synopsis");
    page.section("SYNOPSIS");
    page.markdown(synopsis);
    page.section("DESCRIPTION");
    page.markdown(&part(&source("README.md"), "csync2 keeps files", "\n\n"));
    page.markdown(description.split_once("\n## ").expect("sections").0);
    page.section("OPTIONS");
    page.markdown("Exactly one of these chooses what is done; the modifiers and the database go with any.");
    let sections = [
        (Section::WithFiles, "With file parameters"),
        (Section::Simple, "Simple mode"),
        (Section::WithoutFiles, "Without file parameters"),
        (Section::Modifiers, "Modifiers"),
        (Section::Database, "Database switches"),
        (Section::KeyFile, "Creating key file"),
    ];
    for (section, title) in sections {
        page.subsection(title);
        for entry in OPTIONS.iter().flat_map(|option| option.help).filter(|entry| entry.section == section) {
            let text = match section {
                Section::Database => "The state database, see DATABASE below; default: /var/lib/csync2",
                Section::KeyFile => {
                    "Alone on the line: writes a new pre-shared key; an existing file is never overwritten."
                }
                _ => entry.text,
            };
            page.tagged(entry.synopsis, text);
        }
    }
    for title in ["File names", "Hints", "Comparing", "Certificates", "Database", "Output", "Signals", "Start"] {
        page.markdown(&section(&manual, title));
    }
    page.markdown(&section(&manual, "Exit status"));
    page.section("ENVIRONMENT");
    page.tagged(
        "CSYNC2_SYSTEM_DIR",
        "The system directory, with the configuration, keys and certificates; default: /etc",
    );
    page.markdown(
        "\nAnd what PostgreSQL's clients know: `PGPASSWORD`, `PGPASSFILE`. With `-T`, `TMPDIR` holds long lists.",
    );
    page.section("FILES");
    for (file, text) in [
        ("/etc/csync2.cfg, /etc/csync2_NAME.cfg", "the configuration, and those of -C NAME: csync2.cfg(5)"),
        ("/etc/csync2_ssl_key.pem, /etc/csync2_ssl_cert.pem", "this host's key and certificate for TLS"),
        ("/var/lib/csync2/HOST.db3", "the state, where no other database is named"),
        ("/etc/csync2.lock", "as long as this file is there, every run refuses to do anything"),
    ] {
        page.tagged(file, text);
    }
    page.section("SEE ALSO");
    page.markdown("**csync2.cfg**(5), **csync2-compare**(8), **systemd.socket**(5)\n");
    page.markdown(SEE_ALSO);
    page.into_text()
}

/// csync2.cfg(5).
pub(crate) fn configuration() -> String {
    let manual = source("docs/manual.md");
    let mut page = Page::new("csync2.cfg", 5, "File Formats");
    page.section("NAME");
    page.markdown("csync2.cfg - what csync2 keeps in step, between which hosts");
    page.section("SYNOPSIS");
    page.markdown("`/etc/csync2.cfg`, `/etc/csync2_NAME.cfg`");
    page.section("DESCRIPTION");
    let text = section(&manual, "Configuration");
    page.markdown(text.trim_start().split_once('\n').expect("text below the title").1);
    for title in ["Conflicts", "Actions", "Backups"] {
        page.markdown(&section(&manual, title));
    }
    page.section("EXAMPLE");
    page.verbatim(&source("csync2.cfg.example"));
    page.section("SEE ALSO");
    page.markdown("**csync2**(8); certificates and databases are told of there.\n");
    page.markdown(SEE_ALSO);
    page.into_text()
}

/// A section of a document, with its heading and subsections.
fn section(document: &str, title: &str) -> String {
    part(document, &format!("\n## {title}\n"), "\n## ")
}

/// From one text up to the next place with the other.
fn part(document: &str, from: &str, to: &str) -> String {
    let start = document.find(from).unwrap_or_else(|| panic!("`{from}` is missing"));
    let body = &document[start..];
    let end = body[from.len()..].find(to).map_or(body.len(), |end| from.len() + end);
    body[..end].to_owned()
}
