//! The `%XX` encoding of names on the wire and in the database (docs/protocol.md).
//!
//! There are two encoders. [`encode`] is ours: what it returns is always text, since bytes that are no UTF-8 are
//! escaped as well. [`classic`] is the C program's, which keeps every byte above 0x7f: it defines the order of names.

use std::cmp::Ordering;

/// Bytes that both encoders escape: 0x01–0x20, 0x7f and `" ' % $ : | \`.
fn is_special(byte: u8) -> bool {
    byte <= 0x20 || byte == 0x7f || matches!(byte, b'"' | b'\'' | b'%' | b'$' | b':' | b'|' | b'\\')
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

fn escape(byte: u8) -> [u8; 3] {
    [b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]
}

/// Encodes a name as text: special bytes and bytes that are not part of valid UTF-8 become `%XX`.
#[must_use]
pub fn encode(name: &[u8]) -> String {
    // What it escapes of valid text is what the C program escapes.
    if let Ok(text) = String::from_utf8(classic(name)) {
        return text;
    }
    let mut text = String::with_capacity(name.len() + 8);
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            match u8::try_from(character) {
                Ok(byte) if is_special(byte) && character.is_ascii() => push_escaped(&mut text, byte),
                _ => text.push(character),
            }
        }
        for &byte in chunk.invalid() {
            push_escaped(&mut text, byte);
        }
    }
    text
}

fn push_escaped(text: &mut String, byte: u8) {
    text.extend(escape(byte).map(char::from));
}

/// The C program's encoding, byte by byte: special bytes become `%XX`, every other byte is kept.
#[must_use]
pub fn classic(name: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(name.len() + 16);
    let mut rest = name;
    while let Some(at) = rest.iter().position(|&byte| is_special(byte)) {
        text.extend_from_slice(&rest[..at]);
        text.extend_from_slice(&escape(rest[at]));
        rest = &rest[at + 1..];
    }
    text.extend_from_slice(rest);
    text
}

/// The order of two bytes by their spellings in the C program's encoding.
#[must_use]
pub fn compare_bytes(one: u8, other: u8) -> Ordering {
    let first = |byte: u8| if is_special(byte) { b'%' } else { byte };
    // Escapes stand in the order of their bytes, and a `%` of the name is one itself.
    first(one).cmp(&first(other)).then(one.cmp(&other))
}

/// Decodes any `%XX` (either case) into its byte; a `%` without two hex digits stands for itself.
#[must_use]
pub fn decode(text: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(text.len());
    decode_to(text, &mut name);
    name
}

/// The same for many texts: what is to be decoded goes into `buffer`, in the place of what is there.
pub fn decode_in<'t>(text: &'t [u8], buffer: &'t mut Vec<u8>) -> &'t [u8] {
    if !text.contains(&b'%') {
        return text;
    }
    buffer.clear();
    decode_to(text, buffer);
    buffer
}

fn decode_to(text: &[u8], name: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|&byte| byte == b'%') {
        let (plain, escape) = rest.split_at(at);
        name.extend_from_slice(plain);
        if let [_, high, low, after @ ..] = escape
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            name.push(high << 4 | low);
            rest = after;
        } else {
            name.push(b'%');
            rest = &escape[1..];
        }
    }
    name.extend_from_slice(rest);
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn special_bytes_are_escaped_in_upper_case() {
        assert_eq!(encode(b"%demo%/a b:\"'$|\\\x7f\n"), "%25demo%25/a%20b%3A%22%27%24%7C%5C%7F%0A");
    }

    #[test]
    fn utf8_is_kept_and_other_bytes_are_escaped() {
        assert_eq!(encode("grün".as_bytes()), "grün");
        assert_eq!(encode(b"gr\xfcn"), "gr%FCn");
        assert_eq!(classic(b"gr\xfcn :"), b"gr\xfcn%20%3A");
    }

    #[test]
    fn a_lone_percent_stands_for_itself() {
        assert_eq!(decode(b"100%"), b"100%");
        assert_eq!(decode(b"%zz%4a"), b"%zzJ");
        let mut buffer = b"before".to_vec();
        assert_eq!(decode_in(b"%zz%4a", &mut buffer), b"%zzJ");
        assert_eq!(decode_in(b"/plain", &mut buffer), b"/plain");
    }

    #[test]
    fn bytes_are_in_the_order_of_their_spellings() {
        for (one, other) in (0..=255u8).flat_map(|one| (0..=255u8).map(move |other| (one, other))) {
            assert_eq!(compare_bytes(one, other), classic(&[one]).cmp(&classic(&[other])), "{one} {other}");
        }
    }

    proptest! {
        #[test]
        fn both_spellings_decode_to_the_name(name in prop::collection::vec(1u8.., 0..40)) {
            prop_assert_eq!(&decode(encode(&name).as_bytes()), &name);
            prop_assert_eq!(&decode(&classic(&name)), &name);
        }
    }
}
