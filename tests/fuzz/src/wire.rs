//! The lines, streams and frames of the protocol.

use bytes::BytesMut;
use csync2::engine::in_sync::listing::{Line, Listed};
use csync2::model::{SyncPath, encoding};
use csync2::wire::batch::{Answer, Push};
use csync2::wire::codec::Decoder;
use csync2::wire::frame::Frame;
use csync2::wire::{OctetHeader, Reply, Request};

use super::Parts;

/// Without the end of the line, of which there is one.
fn the_line(encoded: &[u8]) -> &[u8] {
    assert_eq!(encoded.iter().position(|&byte| byte == b'\n'), Some(encoded.len() - 1), "one line");
    &encoded[..encoded.len() - 1]
}

/// The commands of a client, one a line: what was understood is said again in one line that means the same.
pub fn request(lines: &[u8]) {
    for line in lines.split(|&byte| byte == b'\n') {
        let Ok(request) = Request::parse(line) else { continue };
        assert_eq!(Request::parse(the_line(&request.encode())), Ok(request));
    }
}

/// The answers of a server: any line is one, and it is a success exactly when it begins with `OK (`.
pub fn reply(line: &[u8]) {
    let reply = Reply::parse(line);
    assert_eq!(reply.is_ok(), line.starts_with(b"OK ("));
    let encoded = reply.encode();
    let again = the_line(&encoded);
    if !line.iter().any(|byte| b"\r\n".contains(byte)) {
        assert_eq!(Reply::parse(again), reply);
    }
    if let Ok(header) = OctetHeader::parse(line) {
        assert_eq!(OctetHeader::parse(the_line(&header.encode())).unwrap(), header);
    }
}

/// The lines of a peer's list: a line with a tab is a file, every other one ends the list; what is read as a name is one.
pub fn listing(line: &[u8]) {
    match Line::parse(line) {
        Line::End(_) => assert!(!line.contains(&b'\t')),
        Line::Strange(name) => assert!(SyncPath::parse(&name).is_err()),
        Line::File(Listed { path, checktxt }) => {
            assert_eq!(SyncPath::parse(path.as_bytes()).as_ref(), Ok(&path));
            // What our server would list reads the same.
            let again = format!("{}\t{}", encoding::encode(checktxt.as_bytes()), path.encoded());
            assert_eq!(Line::parse(again.as_bytes()), Line::File(Listed { path, checktxt }));
        }
    }
}

/// Frames of the batch dialect, from either side: what is a message is written in one way, and nothing panics.
pub fn batch(stream: &[u8]) {
    let mut buffer = BytesMut::from(stream);
    while let Ok(Some(frame)) = Frame::take(&mut buffer) {
        let again = |encoded: Vec<u8>| Frame::take(&mut BytesMut::from(&encoded[..])).unwrap().unwrap();
        if let Ok(push) = Push::parse(frame.clone()) {
            assert_eq!(again(push.encode()), frame);
        }
        if let Ok(answer) = Answer::parse(frame.clone()) {
            assert_eq!(again(answer.encode()), frame);
        }
    }
}

/// The byte stream of a session: however it is cut into packets, the same lines and octet streams come out. The input: some
/// lengths of packets, how many bytes bring a line near the longest that is allowed, what stands before those and behind.
pub fn codec(input: &[u8]) {
    let mut parts = Parts(input);
    let cuts: Vec<usize> = (0..parts.byte() % 8).map(|_| usize::from(parts.short())).collect();
    let filler = vec![b'x'; usize::from(parts.short() % 20_000)];
    let stream = [parts.counted(), &filler, parts.rest()].concat();
    let mut rest = &stream[..];
    let mut pieces: Vec<&[u8]> = Vec::new();
    for cut in cuts {
        let (piece, after) = rest.split_at(cut.min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    assert_eq!(decode(pieces.into_iter()), decode([&stream[..]].into_iter()));
}

#[derive(Debug, PartialEq)]
enum Item {
    Line(Vec<u8>),
    Body(Vec<u8>),
    Refused,
}

/// Everything that comes out of `pieces`, as a session would read it: behind a header comes its body.
fn decode<'p>(pieces: impl Iterator<Item = &'p [u8]>) -> Vec<Item> {
    let (mut decoder, mut items, mut missing) = (Decoder::default(), Vec::new(), 0);
    for piece in pieces {
        decoder.buffer().extend_from_slice(piece);
        loop {
            if missing > 0 {
                let taken = decoder.data(missing, |data| {
                    if let Some(Item::Body(body)) = items.last_mut() {
                        body.extend_from_slice(data);
                    }
                });
                missing -= taken;
                if taken == 0 {
                    break;
                }
                continue;
            }
            match decoder.line() {
                Ok(Some(line)) => {
                    if let Ok(OctetHeader::Length(length)) = OctetHeader::parse(&line) {
                        missing = length;
                        items.push(Item::Body(Vec::new()));
                    } else {
                        items.push(Item::Line(line));
                    }
                }
                Ok(None) => break,
                Err(_) => {
                    items.push(Item::Refused);
                    return items;
                }
            }
        }
    }
    items
}
