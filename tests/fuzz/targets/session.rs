//! A whole session of the server on whatever a peer sends, lines and frames, with a group's key in its hands: it ends, and
//! nothing outside of the group's directory has changed.
//!
//! Run it as a user without rights (`setpriv --reuid=nobody --clear-groups`): what it may do here, it will try.
#![no_main]

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use csync2::engine::open::NodeSettings;
use csync2::engine::serve::{self, Registry};
use csync2::wire::{Connection, Timeouts};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const KEY: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCD";

struct Host {
    runtime: Runtime,
    registry: Arc<Registry>,
    root: PathBuf,
}

fn host() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(|| {
        let root = tempfile::tempdir().unwrap().keep();
        for directory in ["d", "db", "out"] {
            fs::create_dir(root.join(directory)).unwrap();
        }
        fs::write(root.join("out/file"), "outside").unwrap();
        fs::write(root.join("key"), KEY).unwrap();
        let here = root.display();
        let config = format!(
            "nossl * *; durability none; max-file-size 1M;\nprefix d {{ on *: {here}/d; }}\nprefix o {{ on *: {here}/out; }}\n\
             group g {{ host localhost server 127.0.0.1; key {here}/key; include %d%; exclude %d%/no; auto younger; }}\n"
        );
        fs::write(root.join("csync2.cfg"), config).unwrap();
        let settings = NodeSettings {
            system_dir: root.clone(),
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
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Host { runtime, registry: Arc::new(Registry::new(settings)), root }
    })
}

/// The tree that every session finds.
fn furnish(root: &std::path::Path) {
    let tree = root.join("d");
    // What a session made may have any mode.
    let _ = fs::remove_dir_all(&tree);
    if !tree.exists() {
        fs::create_dir(&tree).unwrap();
    }
    let _ = fs::create_dir_all(tree.join("dir"));
    let _ = fs::write(tree.join("f"), "content of f\n");
    let _ = fs::write(tree.join("dir/large"), "0123456789abcdef".repeat(4096));
    let _ = fs::create_dir(tree.join("no"));
    let _ = std::os::unix::fs::symlink("../out", tree.join("link"));
    let _ = fs::hard_link(root.join("out/file"), tree.join("hard"));
}

/// What is sent: a line, in which `K` and `@` at the beginning of a word are the key and the prefix; bytes as they are; or a
/// frame whose length is right.
type Piece = (u8, Vec<u8>);

fn spoken(pieces: &[Piece]) -> Vec<u8> {
    let mut all = b"CONFIG \nHELLO localhost\n".to_vec();
    for (kind, bytes) in pieces {
        match kind {
            0..=127 => all.extend(line(bytes)),
            128..=143 => all.extend(bytes),
            144..=151 => all.extend(b"BATCH 1\n"),
            152..=159 => all.extend([&[1, 0, 0, 0, KEY.len() as u8], KEY.as_bytes()].concat()),
            kind => {
                all.push(if *kind < 250 { kind % 8 + 1 } else { *kind });
                all.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
                all.extend(bytes);
            }
        }
    }
    all
}

fn line(bytes: &[u8]) -> Vec<u8> {
    let mut line: Vec<u8> = Vec::new();
    for word in bytes.split(|byte| *byte == b' ') {
        match word {
            [b'K'] => line.extend(KEY.as_bytes()),
            [b'@', rest @ ..] => line.extend([b"%25d%25", rest].concat()),
            word => line.extend(word),
        }
        line.push(b' ');
    }
    // No names are looked up but one.
    if line.trim_ascii_start().to_ascii_uppercase().starts_with(b"HELLO") {
        line = b"HELLO localhost".to_vec();
    }
    line.push(b'\n');
    line
}

fuzz_target!(|pieces: Vec<Piece>| {
    let host = host();
    furnish(&host.root);
    let input = spoken(&pieces);
    let says_hello_unseen = |part: &[u8]| part.to_ascii_uppercase().starts_with(b"HELLO") && part != b"HELLO localhost";
    if input.split(|byte| *byte == b'\n').any(|part| says_hello_unseen(part.trim_ascii())) {
        return;
    }
    host.runtime.block_on(async {
        let (theirs, ours) = duplex(1 << 16);
        let connection = Connection::new(ours, Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), Timeouts::default());
        let (mut reader, mut writer) = tokio::io::split(theirs);
        let send = async {
            // The server may have closed.
            let _ = writer.write_all(&input).await;
            let _ = writer.shutdown().await;
        };
        let mut answers = Vec::new();
        let (_, _, ()) =
            tokio::join!(serve::serve_one(&host.registry, connection, &CancellationToken::new()), reader.read_to_end(&mut answers), send);
    });
    let outside = host.root.join("out");
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"outside");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    let mut names: Vec<_> = fs::read_dir(&host.root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["csync2.cfg", "d", "db", "key", "out"]);
});
