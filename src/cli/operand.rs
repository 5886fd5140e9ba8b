//! File names as a user types them, and the working directory that they count from. What a name means to the
//! configuration is not known here.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// The directory that relative operands count from, by the name the user sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkingDirectory(Vec<u8>);

impl WorkingDirectory {
    /// # Errors
    /// When the working directory was removed or cannot be reached.
    pub fn of_process() -> io::Result<Self> {
        Ok(Self::seen_as(env::current_dir()?, env::var_os("PWD").as_deref()))
    }

    /// `real`, or what `$PWD` calls it: a shell says there by which symlinks it was entered. A `$PWD` that names
    /// another directory is not believed.
    #[must_use]
    pub fn seen_as(real: PathBuf, pwd: Option<&OsStr>) -> Self {
        let identity = |path: &Path| fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        let textual = pwd.filter(|pwd| pwd.as_bytes().starts_with(b"/")).map(|pwd| join(&components(pwd.as_bytes())));
        match textual {
            Some(name)
                if identity(Path::new(OsStr::from_bytes(&name))).is_some_and(|is| Some(is) == identity(&real)) =>
            {
                Self(name)
            }
            _ => Self(real.into_os_string().into_vec()),
        }
    }

    /// The absolute real name of an operand: `//`, `.` and `..` resolved as text, then the deepest existing directory
    /// of what stands before the last component resolved through symlinks. The last component never is: a link can be
    /// named. Only `link/.` asks for what the link leads to. The working directory keeps the name it was seen by.
    #[must_use]
    pub fn canonical(&self, operand: &[u8]) -> Vec<u8> {
        let absolute =
            if operand.starts_with(b"/") { operand.to_vec() } else { [self.0.as_slice(), b"/", operand].concat() };
        let components = components(&absolute);
        let last_is_dot = absolute.split(|&byte| byte == b'/').rfind(|part| !part.is_empty()) == Some(b".");
        let directories = if last_is_dot { components.len() } else { components.len().saturating_sub(1) };
        for existing in (1..=directories).rev() {
            let directory = join(&components[..existing]);
            let resolved = if directory == self.0 { Some(directory) } else { resolve_directory(&directory) };
            if let Some(mut name) = resolved {
                for component in &components[existing..] {
                    if !name.ends_with(b"/") {
                        name.push(b'/');
                    }
                    name.extend_from_slice(component);
                }
                return name;
            }
        }
        join(&components)
    }
}

/// The components of an absolute name, with `.` and `..` worked off.
fn components(name: &[u8]) -> Vec<&[u8]> {
    let mut components = Vec::new();
    for component in name.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => drop(components.pop()),
            _ => components.push(component),
        }
    }
    components
}

fn join(components: &[&[u8]]) -> Vec<u8> {
    [b"/".as_slice(), &components.join(&b'/')].concat()
}

fn resolve_directory(name: &[u8]) -> Option<Vec<u8>> {
    let resolved = fs::canonicalize(OsStr::from_bytes(name)).ok()?;
    resolved.is_dir().then(|| resolved.into_os_string().into_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    /// A tree with a directory reached by two names, `data/sub` and `link`, and a link `dl` within.
    fn tree() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path();
        fs::create_dir_all(top.join("data/sub/deep/er")).unwrap();
        for file in ["data/f", "data/sub/y"] {
            fs::write(top.join(file), file).unwrap();
        }
        symlink("data/sub", top.join("link")).unwrap();
        symlink("deep", top.join("data/sub/dl")).unwrap();
        symlink("nowhere", top.join("data/dangling")).unwrap();
        symlink("loop", top.join("loop")).unwrap();
        directory
    }

    /// The canonical name, from the top of the tree on.
    fn canonical(top: &Path, directory: &str, pwd: Option<&Path>, operand: &str) -> String {
        let real = fs::canonicalize(top.join(directory)).unwrap();
        let operand = operand.replace("TOP", top.to_str().unwrap());
        let name = WorkingDirectory::seen_as(real, pwd.map(Path::as_os_str)).canonical(operand.as_bytes());
        let name = String::from_utf8(name).unwrap();
        name.strip_prefix(top.to_str().unwrap()).map_or(name.clone(), |below| format!("TOP{below}"))
    }

    #[test]
    fn directories_are_resolved_and_the_last_component_is_not() {
        let tree = tree();
        for (operand, expected) in [
            ("data/./f", "TOP/data/f"),
            ("data//f", "TOP/data/f"),
            ("TOP/data/f/", "TOP/data/f"),
            ("", "TOP"),
            (".", "TOP"),
            ("/", "/"),
            ("/../..", "/"),
            ("link", "TOP/link"),
            ("link/", "TOP/link"),
            ("link/.", "TOP/data/sub"),
            ("link/./.", "TOP/data/sub"),
            ("link/y", "TOP/data/sub/y"),
            ("link/..", "TOP"),
            ("link/../f", "TOP/f"),
            ("link/new/er/x", "TOP/data/sub/new/er/x"),
            ("link/dl", "TOP/data/sub/dl"),
            ("link/dl/er", "TOP/data/sub/deep/er"),
            ("link/dl/..", "TOP/link"),
            ("data/dangling/x", "TOP/data/dangling/x"),
            ("data/f/x", "TOP/data/f/x"),
            ("data/f/.", "TOP/data/f"),
            ("loop/x", "TOP/loop/x"),
            ("data/a/././b", "TOP/data/a/b"),
        ] {
            assert_eq!(canonical(tree.path(), "", None, operand), expected, "{operand}");
        }
    }

    #[test]
    fn the_shells_name_of_the_working_directory_is_kept() {
        let tree = tree();
        let link = tree.path().join("link");
        for (operand, expected) in [
            ("y", "TOP/link/y"),
            ("./y", "TOP/link/y"),
            ("../link/y", "TOP/link/y"),
            (".", "TOP/link"),
            ("..", "TOP"),
            ("../f", "TOP/f"),
            ("deep/z", "TOP/data/sub/deep/z"),
        ] {
            assert_eq!(canonical(tree.path(), "link", Some(&link), operand), expected, "{operand}");
        }
    }

    #[test]
    fn a_wrong_name_of_the_working_directory_is_not_believed() {
        let tree = tree();
        for pwd in ["/", "relative", "/nonexistent", ""] {
            assert_eq!(canonical(tree.path(), "link", Some(Path::new(pwd)), "y"), "TOP/data/sub/y", "{pwd}");
        }
        // As text this is the top, which is another directory.
        let odd = tree.path().join("link/..");
        assert_eq!(canonical(tree.path(), "data", Some(&odd), "y"), "TOP/data/y");
    }

    /// What the C program makes of an operand: it says so when it marks a file.
    fn reference(top: &Path, pwd: &Path, operand: &str) -> Option<String> {
        let output = Command::new("/usr/sbin/csync2")
            .args(["-N", "a", "-mv", "-D"])
            .args([top.join("etc").as_os_str(), OsStr::new("--"), OsStr::new(operand)])
            .env("CSYNC2_SYSTEM_DIR", top.join("etc"))
            .env("PWD", pwd)
            .current_dir(pwd)
            .output()
            .expect("the C program must be installed: apt-get install csync2");
        let log = String::from_utf8(output.stderr).unwrap();
        let said = ["Marking file as dirty: ", "WARNING: Parameter will be ignored: "];
        log.lines().find_map(|line| said.iter().find_map(|said| line.strip_prefix(said))).map(str::to_owned)
    }

    #[test]
    fn the_c_program_finds_the_same_names() {
        let tree = tree();
        let top = tree.path();
        fs::create_dir(top.join("etc")).unwrap();
        fs::write(top.join("etc/k"), "0123456789012345678901234567890123456789\n").unwrap();
        let config = format!("group g {{ host a b; key k; include {}; }}", top.display());
        fs::write(top.join("etc/csync2.cfg"), config).unwrap();
        let operands = [
            "",
            ".",
            "..",
            "data/f",
            "data//f",
            "data/f/",
            "data/a/./b",
            "link",
            "link/",
            "link/.",
            "link/./.",
            "link/y",
            "link/..",
            "link/../data/f",
            "link/new/x",
            "link/new/../y",
            "link/dl",
            "link/dl/",
            "link/dl/.",
            "link/dl/..",
            "link/dl/er/w",
            "link/dl/../y",
            "data/dangling",
            "data/dangling/x",
            "loop",
            "loop/x",
            "nothere/../data/f",
            "y",
            "./y",
            "../link/y",
            "../f",
            "deep/z",
            "dl/z",
            "dl/new/w",
        ];
        for directory in ["", "data", "link"] {
            let pwd = if directory.is_empty() { top.to_owned() } else { top.join(directory) };
            let real = fs::canonicalize(&pwd).unwrap();
            for operand in operands {
                let ours = WorkingDirectory::seen_as(real.clone(), Some(pwd.as_os_str())).canonical(operand.as_bytes());
                let theirs = reference(top, &pwd, operand);
                assert_eq!(theirs, Some(String::from_utf8(ours).unwrap()), "{operand} in {directory}");
            }
        }
    }
}
