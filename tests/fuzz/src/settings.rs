//! What the administrator writes: files and the command line.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use csync2::cli::{self, Environment};
use csync2::config::pattern::Subject;
use csync2::config::{self, Pattern};
use csync2::model::SyncPath;
use csync2::store::Location;

use super::Parts;

/// The configuration file, up to a zero, and what each `config NAME;` in it includes.
pub fn config(input: &[u8]) {
    let mut parts = Parts(input);
    let (text, included) = (parts.text(), parts.rest());
    // A file that includes itself many times is read as often as the depth allows: the number of files is bounded here.
    let mut left = 100;
    let mut include = |_: &Path| {
        left -= 1;
        if left > 0 { Ok(included.to_vec()) } else { Err(std::io::ErrorKind::NotFound.into()) }
    };
    if let Err(error) = config::parse(text, Path::new("csync2.cfg"), &mut include) {
        assert!(!error.message().is_empty());
        let _ = (error.to_string(), error.location());
    }
}

/// A pattern of the configuration, up to a zero, and the name of a file or host.
pub fn pattern(input: &[u8]) {
    let mut parts = Parts(input);
    let (text, name) = (parts.text(), parts.rest());
    // The matching of many stars takes exponential time; patterns are the administrator's own, so that is no attack.
    if text.split(|&byte| byte == b'*').count() > 5 || text.contains(&b'(') || name.len() > 256 {
        return;
    }
    let host = String::from_utf8_lossy(name);
    let Ok(path) = SyncPath::parse(name) else { return };
    let subject = Subject::of(&path);
    for pattern in [Pattern::rule(text), Pattern::path(text), Pattern::name(text)] {
        let _ = (pattern.matches(&subject), pattern.may_match_below(&subject), pattern.matches_name(&host));
    }
    // A name without special characters matches itself.
    if !name.iter().any(|byte| b"*?[\\".contains(byte)) {
        assert!(Pattern::path(name).matches(&subject));
    }
}

/// The command line: arguments of any bytes, one a line; the first byte is that of the environment.
pub fn command_line(input: &[u8]) {
    let mut parts = Parts(input);
    let posixly_correct = parts.byte() % 2 == 1;
    let environment = Environment {
        system_dir: "/nonexistent".into(),
        host_name: "alpha".into(),
        posixly_correct,
        journal_stream: None,
    };
    let words = parts.rest().split(|&byte| byte == b'\n' || byte == 0);
    let _ = cli::parse(words.map(|word| OsString::from_vec(word.to_vec())), &environment);
}

/// Database URLs: none makes the parser panic, and no password comes out of it into a message. The input: a URL or a user,
/// up to a zero; what stands behind the user's password.
pub fn store_url(input: &[u8]) {
    const PASSWORD: &str = "s3cr3tPassword";
    let mut parts = Parts(input);
    let (Ok(text), Ok(rest)) = (str::from_utf8(parts.text()), str::from_utf8(parts.rest())) else { return };
    if let Ok(Location::Postgres(url)) = Location::resolve(Some(text), "alpha", "") {
        assert!(url.database.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "it goes into SQL");
    }
    if text.contains(['/', '?', '#', '@', ':']) || rest.contains("s3cr3t") {
        return;
    }
    // Here `text` is a user's name, so what follows the colon is a password, if anything is.
    let url = format!("pgsql://{text}:{PASSWORD}@{rest}");
    let shown = match Location::resolve(Some(&url), "alpha", "web") {
        Ok(location) => format!("{location} {location:?}"),
        Err(error) => format!("{error} {error:?}"),
    };
    assert!(!shown.contains(PASSWORD), "{shown}");
}
