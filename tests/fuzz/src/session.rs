//! A whole session of the server on whatever a peer sends, lines and frames, with a group's key in its hands: it ends, and
//! nothing outside of the group's directory has changed.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use csync2::engine::open::NodeSettings;
use csync2::engine::serve::{self, Registry};
use csync2::wire::{Connection, Timeouts};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_util::sync::CancellationToken;

const KEY: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCD";

/// Between two pieces of an input. Names and texts in UTF-8 do not hold it.
const BETWEEN: u8 = 0xfe;

/// What is said before all that is not an input's own beginning: after it, the files of the tree are known, and clean.
const WELCOME: &[u8] = b"CONFIG \xfeHELLO localhost\xfeFLUSH K @/f\xfeFLUSH K @/dir/large\xfe";

/// A host `server` with a tree of files, and files outside of it that are nobody's business.
pub struct Host {
    root: TempDir,
    settings: NodeSettings,
}

impl Host {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("out")).unwrap();
        fs::write(root.path().join("out/file"), "outside").unwrap();
        fs::write(root.path().join("key"), KEY).unwrap();
        let here = root.path().display();
        let config = format!(
            "nossl * *; durability none; max-file-size 1M; ignore uid gid;\nprefix d {{ on *: {here}/d; }}\nprefix o {{ on *: {here}/out; }}\n\
             group g {{ host localhost server 127.0.0.1; key {here}/key; include %d%; exclude %d%/no; auto younger; }}\n"
        );
        fs::write(root.path().join("csync2.cfg"), config).unwrap();
        let settings = NodeSettings {
            system_dir: root.path().to_owned(),
            config_name: String::new(),
            my_name: "server".to_owned(),
            bind: None,
            auto_name: false,
            port: 0,
            groups: None,
            database: Some(format!("{here}/db")),
            asynchronous: true,
            no_batches: false,
            no_legacy_tls: false,
            read_only: false,
        };
        Self { root, settings }
    }

    /// One session, as after an installation. The input is what [`spoken`] takes; what the server says comes back.
    pub fn serve(&self, input: &[u8]) -> Vec<u8> {
        let said = spoken(input);
        if said.split(|byte| *byte == b'\n').any(looks_up_a_name) {
            return Vec::new();
        }
        furnish(self.root.path());
        let outside = self.outside();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answers = runtime.block_on(async {
            let (theirs, ours) = duplex(1 << 16);
            let connection = Connection::new(ours, Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), Timeouts::default());
            let (mut reader, mut writer) = tokio::io::split(theirs);
            let send = async {
                // The server may have closed.
                let _ = writer.write_all(&said).await;
                let _ = writer.shutdown().await;
            };
            let (registry, stop) = (Arc::new(Registry::new(self.settings.clone())), CancellationToken::new());
            let mut answers = Vec::new();
            let (_, read, ()) =
                tokio::join!(serve::serve_one(&registry, connection, &stop), reader.read_to_end(&mut answers), send);
            read.unwrap();
            answers
        });
        assert_eq!(self.outside(), outside);
        assert_eq!(fs::read(self.root.path().join("out/file")).unwrap(), b"outside");
        assert_eq!(fs::read_dir(self.root.path().join("out")).unwrap().count(), 1);
        let entries = fs::read_dir(self.root.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["csync2.cfg", "d", "db", "key", "out"]);
        answers
    }

    /// Mode, owner and time of the file outside, which has a name inside.
    fn outside(&self) -> (u32, u32, i64) {
        let metadata = fs::metadata(self.root.path().join("out/file")).unwrap();
        (metadata.mode(), metadata.uid(), metadata.mtime())
    }
}

/// The tree and the empty state that every session finds.
fn furnish(root: &Path) {
    for directory in ["d", "db"] {
        // What a session made may have any mode.
        let _ = fs::remove_dir_all(root.join(directory));
        let _ = fs::create_dir(root.join(directory));
    }
    let tree = root.join("d");
    for directory in ["dir", "no"] {
        let _ = fs::create_dir(tree.join(directory));
    }
    for (name, content) in [("f", "content of f\n".to_owned()), ("dir/large", "0123456789abcdef".repeat(4096))] {
        if fs::write(tree.join(name), content).is_ok() {
            let file = fs::File::options().write(true).open(tree.join(name)).unwrap();
            file.set_permissions(fs::Permissions::from_mode(0o644)).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(1_600_000_000)).unwrap();
        }
    }
    let _ = symlink("../out", tree.join("link"));
    let _ = fs::hard_link(root.join("out/file"), tree.join("hard"));
}

/// What is sent for an input: pieces with [`BETWEEN`] between them. Behind a zero they are all that is sent; else a welcome
/// comes before them.
fn spoken(input: &[u8]) -> Vec<u8> {
    let all = match input {
        [0, all @ ..] => all.to_vec(),
        all => [WELCOME, all].concat(),
    };
    let (mut sent, mut contents) = (Vec::new(), Vec::new());
    for piece in all.split(|byte| *byte == BETWEEN) {
        match piece {
            [] => {}
            // As it stands.
            [b'=', bytes @ ..] => sent.extend(bytes),
            [b'<', stream @ ..] => {
                sent.extend(format!("octet-stream {}\n", stream.len()).into_bytes());
                sent.extend(stream);
            }
            [kind @ (0x01..=0x1f | 0x80..), body @ ..] => sent.extend(frame(*kind, body, &mut contents)),
            text => sent.extend(line(text)),
        }
    }
    sent
}

/// A frame with its right length. `K` is the key. An END without a digest gets that of the content of its offer, as far as
/// that was sent in DATA: nobody would guess it.
fn frame(kind: u8, body: &[u8], contents: &mut Vec<([u8; 4], Vec<u8>)>) -> Vec<u8> {
    const ATTRIBUTES: usize = 24;
    let mut body = if body == b"K" { KEY.as_bytes().to_vec() } else { body.to_vec() };
    match (kind, body.split_first_chunk()) {
        (0x03, Some((id, data))) => contents.push((*id, data.to_vec())),
        (0x05, Some((id, attributes))) if attributes.len() == ATTRIBUTES => {
            let mut digest = Sha256::new();
            contents.iter().filter(|(of, _)| of == id).for_each(|(_, data)| digest.update(data));
            let id = *id;
            contents.retain(|(of, _)| *of != id);
            body.extend(digest.finalize());
        }
        _ => {}
    }
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind], &length[..], &body].concat()
}

/// A line, in which the word `K` is the key and `@` at the beginning of a word the prefix.
fn line(text: &[u8]) -> Vec<u8> {
    let mut line: Vec<u8> = Vec::new();
    for (number, word) in text.split(|byte| *byte == b' ').enumerate() {
        if number > 0 {
            line.push(b' ');
        }
        match word {
            [b'K'] => line.extend(KEY.as_bytes()),
            [b'@', rest @ ..] => line.extend([b"%25d%25", rest].concat()),
            word => line.extend(word),
        }
    }
    line.push(b'\n');
    line
}

/// Whether a line asks the resolver, which may ask the network: all names but one do.
fn looks_up_a_name(line: &[u8]) -> bool {
    let line = line.trim_ascii().to_ascii_uppercase();
    line.starts_with(b"HELLO") && line != b"HELLO LOCALHOST"
}
