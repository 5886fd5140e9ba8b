//! The password for a PostgreSQL server: from the URL, from PGPASSWORD, or from the password file, as libpq does it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::url::PostgresUrl;

/// The name under which the password file knows a local socket.
const LOCAL: &str = "localhost";

/// Finds the password; `None` where there is none. `environment` reads a variable.
///
/// # Errors
/// Why the password file is not used.
pub(super) fn find(
    url: &PostgresUrl,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Option<String>, String> {
    if let Some(password) = &url.password {
        return Ok(Some(password.clone()));
    }
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
    if let Some(password) = variable("PGPASSWORD") {
        return Ok(password.into_string().ok());
    }
    let path = url.password_file.clone().or_else(|| variable("PGPASSFILE").map(PathBuf::from));
    let Some(path) = path.or_else(|| Some(Path::new(&variable("HOME")?).join(".pgpass"))) else { return Ok(None) };
    let Some(content) = read_private(&path)? else { return Ok(None) };
    let host = match url.host.as_deref() {
        None => LOCAL,
        Some(host) => host,
    };
    Ok(look_up(&content, [host, &url.port.to_string(), &url.database, &url.user]))
}

/// Reads the file, unless others may read it too: then libpq does not use it either. `None`: there is none.
fn read_private(path: &Path) -> Result<Option<String>, String> {
    let Ok(metadata) = fs::metadata(path) else { return Ok(None) };
    let path_shown = path.display();
    if !metadata.is_file() {
        return Err(format!("password file {path_shown} is not a plain file: not used"));
    }
    if metadata.mode() & 0o077 != 0 {
        let advice = "permissions should be 0600 or less";
        return Err(format!("password file {path_shown} has group or world access: not used; {advice}"));
    }
    let content = fs::read(path).map_err(|error| format!("password file {path_shown} cannot be read: {error}"))?;
    Ok(Some(String::from_utf8_lossy(&content).into_owned()))
}

/// The password of the first line `host:port:database:user:password` that fits.
fn look_up(content: &str, wanted: [&str; 4]) -> Option<String> {
    content.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = split(line.trim_end_matches('\r'))?;
        let (password, fields) = fields.split_last()?;
        let fits = |(field, wanted): (&Field, &str)| field.is_wildcard || field.text == wanted;
        fields.iter().zip(wanted).all(fits).then(|| password.text.clone())
    })
}

struct Field {
    text: String,
    /// A `*` that no backslash takes its meaning.
    is_wildcard: bool,
}

/// Cuts a line at its first four colons and takes the backslashes away. `None` where there are fewer.
fn split(line: &str) -> Option<Vec<Field>> {
    let mut fields = Vec::with_capacity(5);
    let mut text = String::new();
    let mut escaped = false;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                escaped = true;
                text.extend(characters.next());
            }
            ':' if fields.len() < 4 => {
                let is_wildcard = text == "*" && !escaped;
                fields.push(Field { text: std::mem::take(&mut text), is_wildcard });
                escaped = false;
            }
            other => text.push(other),
        }
    }
    fields.push(Field { text, is_wildcard: false });
    (fields.len() == 5).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Location;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    fn url(text: &str) -> PostgresUrl {
        match Location::resolve(Some(text), "h", "").unwrap() {
            Location::Postgres(url) => url,
            Location::Sqlite(path) => panic!("{path:?}"),
        }
    }

    #[test]
    fn the_first_fitting_line_counts() {
        let content = "# comment\nshort:line\ndb:5432:other:u:no\ndb:*:d:u:a\\:b\\\\c:d\n*:*:*:*:last\n";
        assert_eq!(look_up(content, ["db", "5432", "d", "u"]).as_deref(), Some("a:b\\c:d"));
        assert_eq!(look_up(content, ["x", "1", "d", "u"]).as_deref(), Some("last"));
        assert_eq!(look_up("\\*:*:*:*:p", ["x", "1", "d", "u"]), None);
    }

    #[test]
    fn the_url_wins_then_the_environment_then_a_private_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "localhost:5432:d:u:from file\n").unwrap();
        let with = |password: Option<&str>| {
            let (password, file) = (password.map(OsString::from), file.path().to_owned());
            move |name: &str| match name {
                "PGPASSWORD" => password.clone(),
                "PGPASSFILE" => Some(file.clone().into()),
                _ => None,
            }
        };
        let found = |password: &str| Ok(Some(password.to_owned()));
        assert_eq!(find(&url("pgsql://u:p@/d"), &with(Some("e"))), found("p"));
        assert_eq!(find(&url("pgsql://u@/d"), &with(Some("e"))), found("e"));
        assert_eq!(find(&url("pgsql://u@/d"), &with(None)), found("from file"));
        assert_eq!(find(&url("pgsql://u@other/d"), &with(None)), Ok(None));
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o640)).unwrap();
        let refused = find(&url("pgsql://u@/d"), &with(None)).unwrap_err();
        assert!(refused.contains("has group or world access: not used"), "{refused}");
    }

    proptest! {
        #[test]
        fn any_file_can_be_read(content in "\\PC*") {
            let _ = look_up(&content, ["h", "1", "d", "u"]);
        }
    }
}
