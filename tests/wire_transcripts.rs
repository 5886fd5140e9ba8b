//! Sessions of the second dialect as they were recorded (tests/fixtures/fork): every line is understood, every request
//! is written back as it was sent, and both directions stay in step to the end. The frames of the batch dialect are those that
//! docs/protocol.md shows.

use std::io;
use std::path::Path;

use bytes::BytesMut;
use csync2::delta::{blocks, following};
use csync2::wire::batch::{Answer, Push};
use csync2::wire::frame::Frame;
use csync2::wire::pack::unpack;
use csync2::wire::{Connection, OctetHeader, Reply, Request, Timeouts};

/// What one side sent, as a connection to read it from.
fn side(recording: &str, mark: &str) -> Connection {
    let sent: Vec<u8> = recording.lines().filter_map(|line| line.strip_prefix(mark)).flat_map(unescape).collect();
    Connection::new(tokio::io::join(io::Cursor::new(sent), tokio::io::sink()), None, Timeouts::default())
}

/// A recording writes `\n` and `\xNN` for what is no printable character.
fn unescape(line: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = line;
    while let Some(character) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("\\n") {
            bytes.push(b'\n');
            rest = after;
        } else if let Some(after) = rest.strip_prefix("\\x") {
            bytes.push(u8::from_str_radix(&after[..2], 16).unwrap());
            rest = &after[2..];
        } else {
            bytes.extend(character.to_string().as_bytes());
            rest = &rest[character.len_utf8()..];
        }
    }
    bytes
}

async fn line(from: &mut Connection) -> Vec<u8> {
    from.read_line().await.unwrap().expect("a line")
}

async fn reply(server: &mut Connection) -> Reply {
    let line = line(server).await;
    let reply = Reply::parse(&line);
    assert!(!matches!(reply, Reply::Text(_) | Reply::OtherOk(_)), "{reply}");
    assert_eq!(reply.encode(), [line.as_slice(), b"\n"].concat());
    reply
}

async fn body(from: &mut Connection) -> Vec<u8> {
    let OctetHeader::Length(length) = from.read_octet_header().await.unwrap() else { panic!("no data") };
    let mut body = Vec::new();
    let read = from.read_body(length, &mut |data| io::Write::write_all(&mut body, data)).await;
    read.unwrap().unwrap();
    body
}

/// Reads what the server said to `request`.
async fn exchange(request: &Request, client: &mut Connection, server: &mut Connection) {
    let first = reply(server).await;
    match (request, &first) {
        (Request::Sig { .. }, Reply::DataFollows | Reply::NotFound | Reply::PathNotFound) => {
            let state = line(server).await;
            assert!(state.starts_with(b"v1:") || state == b"---");
            let signature = body(server).await;
            assert!(signature.is_empty() || signature.starts_with(b"rs\x016"));
            assert_eq!(reply(server).await, Reply::CmdFinished);
        }
        (Request::Patch { .. } | Request::AtomicPatch { .. }, Reply::SendData) => {
            assert!(body(server).await.starts_with(b"rs\x016"), "our signature comes first");
            assert!(body(client).await.starts_with(b"rs\x026"), "then their delta");
            assert_eq!(reply(server).await, Reply::CmdFinished);
        }
        (Request::GetTm { .. }, Reply::DataFollows) => {
            let number = String::from_utf8(line(server).await).unwrap();
            assert!(number.parse::<i64>().is_ok(), "{number}");
        }
        (Request::Bye, first) => assert_eq!(first, &Reply::CuLater),
        (Request::AtomicPatch { .. }, first) => {
            assert!(matches!(first, Reply::AlsoDirty | Reply::UnknownCommand), "{first}");
        }
        (_, first) => assert_eq!(first, &Reply::CmdFinished),
    }
}

#[tokio::test]
async fn recorded_sessions_are_understood_line_by_line() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/fork");
    let mut sessions = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let recording = std::fs::read_to_string(&path).unwrap();
        let (mut client, mut server) = (side(&recording, "C: "), side(&recording, "S: "));
        let mut last = None;
        while let Some(line) = client.read_line().await.unwrap() {
            let request = Request::parse(&line).unwrap();
            assert_eq!(request.encode(), [line.as_slice(), b"\n"].concat(), "{}", path.display());
            exchange(&request, &mut client, &mut server).await;
            last = Some(request);
        }
        assert_eq!(last, Some(Request::Bye), "{}", path.display());
        assert_eq!(server.read_line().await.unwrap(), None, "{}", path.display());
        sessions += 1;
    }
    assert_eq!(sessions, 10);
}

/// The frames in the document: which side sends each, and its bytes. One begins with `>` or `<` and may go on in further lines
/// of hexadecimal numbers.
fn documented() -> Vec<(char, Vec<u8>)> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.md");
    let document = std::fs::read_to_string(document).unwrap();
    let (_, section) = document.split_once("\n## The batch dialect\n").expect("the section");
    let mut frames: Vec<(char, Vec<u8>)> = Vec::new();
    for line in section.lines().filter_map(|line| line.strip_prefix("    ")) {
        let (side, numbers) = match line.split_at_checked(2) {
            Some(("> ", numbers)) => (Some('>'), numbers),
            Some(("< ", numbers)) => (Some('<'), numbers),
            Some(("  ", numbers)) => (None, numbers),
            // The name of a message.
            _ => continue,
        };
        let bytes = numbers.split(' ').map(|number| u8::from_str_radix(number, 16).expect("a hexadecimal number"));
        match (side, frames.last_mut()) {
            (Some(side), _) => frames.push((side, bytes.collect())),
            (None, Some((_, frame))) => frame.extend(bytes),
            (None, None) => panic!("`{line}' goes on with nothing"),
        }
    }
    frames
}

#[test]
fn every_message_is_documented_as_it_is_sent() {
    let (mut pushes, mut answers) = (Vec::new(), Vec::new());
    for (side, bytes) in documented() {
        let mut buffer = BytesMut::from(&bytes[..]);
        let frame = Frame::take(&mut buffer).unwrap().expect("a whole frame");
        assert!(buffer.is_empty(), "{bytes:02x?}");
        let kind = frame.kind;
        if side == '>' {
            let push = Push::parse(frame).unwrap();
            assert_eq!(push.encode(), bytes);
            if let Push::Packed { bytes, .. } = push {
                assert_eq!(unpack(&bytes).unwrap(), b"hello\n");
            }
            pushes.push(kind);
        } else {
            let answer = Answer::parse(frame).unwrap();
            assert_eq!(answer.encode(), bytes);
            if let Answer::Sums { bytes, .. } = answer {
                let key: Vec<u8> = (0..32).collect();
                let key = key.try_into().unwrap();
                let mut sums = following::head(1024, &key).to_vec();
                blocks::sums(&mut &b"hello\n"[..], 1024, &key, &mut |sum| sums.extend(sum)).unwrap();
                assert_eq!(bytes, sums, "{sums:02x?}");
            }
            answers.push(kind);
        }
    }
    for (documented, expected) in [(&mut pushes, 0x01..=0x09), (&mut answers, 0x81..=0x87)] {
        documented.dedup();
        assert!(documented.iter().copied().eq(expected), "{documented:02x?}");
    }
}
