//! The byte stream of a session: however it is cut into packets, the same lines and octet streams come out.
#![no_main]

use csync2::wire::OctetHeader;
use csync2::wire::codec::Decoder;
use libfuzzer_sys::fuzz_target;

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

// Each cut is the length of a piece; what remains is the last one. `filler` brings lines near the longest allowed.
fuzz_target!(|input: (Vec<u16>, u16, Vec<u8>, Vec<u8>)| {
    let (cuts, filler, head, tail) = input;
    let stream = [&head[..], &vec![b'x'; usize::from(filler % 20_000)], &tail].concat();
    let mut rest = &stream[..];
    let mut pieces: Vec<&[u8]> = Vec::new();
    for cut in cuts {
        let (piece, after) = rest.split_at(usize::from(cut).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    assert_eq!(decode(pieces.into_iter()), decode([&stream[..]].into_iter()));
});
