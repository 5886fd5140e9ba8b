//! The password for a PostgreSQL server: from the URL, from PGPASSWORD, or from the password file, as libpq does it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::url::PostgresUrl;

/// The name under which the password file knows a local socket.
const LOCAL: &str = "localhost";

/// Finds the password; `None` where there is none. `environment` reads a variable.
pub(super) fn find(url: &PostgresUrl, environment: &dyn Fn(&str) -> Option<OsString>) -> Option<String> {
    if let Some(password) = &url.password {
        return Some(password.clone());
    }
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
    if let Some(password) = variable("PGPASSWORD") {
        return password.into_string().ok();
    }
    let path = url.password_file.clone().or_else(|| variable("PGPASSFILE").map(PathBuf::from));
    let path = path.or_else(|| Some(Path::new(&variable("HOME")?).join(".pgpass")))?;
    let content = read_private(&path)?;
    let host = match url.host.as_deref() {
        None => LOCAL,
        Some(host) => host,
    };
    look_up(&content, [host, &url.port.to_string(), &url.database, &url.user])
}

/// Reads the file, unless others may read it too: then libpq does not use it either.
fn read_private(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    if !metadata.is_file() {
        tracing::warn!("password file {} is not a plain file: not used", path.display());
        return None;
    }
    if metadata.mode() & 0o077 != 0 {
        tracing::warn!(
            "password file {} has group or world access: not used; permissions should be 0600 or less",
            path.display()
        );
        return None;
    }
    match fs::read(path) {
        Ok(content) => Some(String::from_utf8_lossy(&content).into_owned()),
        Err(error) => {
            tracing::warn!("password file {} cannot be read: {error}", path.display());
            None
        }
    }
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
        assert_eq!(find(&url("pgsql://u:p@/d"), &with(Some("e"))).as_deref(), Some("p"));
        assert_eq!(find(&url("pgsql://u@/d"), &with(Some("e"))).as_deref(), Some("e"));
        assert_eq!(find(&url("pgsql://u@/d"), &with(None)).as_deref(), Some("from file"));
        assert_eq!(find(&url("pgsql://u@other/d"), &with(None)), None);
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(find(&url("pgsql://u@/d"), &with(None)), None, "others may read it");
    }

    proptest! {
        #[test]
        fn any_file_can_be_read(content in "\\PC*") {
            let _ = look_up(&content, ["h", "1", "d", "u"]);
        }
    }
}
