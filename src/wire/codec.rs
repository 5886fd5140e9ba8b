//! Lines and octet streams in a stream of bytes. No sockets here: `connection` feeds it and asks what has arrived.
//!
//! What comes out depends on the bytes alone, never on how they were cut into packets. Memory stays bounded by the
//! longest line and what is fed at a time.

use bytes::{Buf, Bytes, BytesMut};

use super::WireError;

/// The longest line, its line end included, in bytes: that of the C program's buffer.
pub const MAX_LINE: usize = 16_383;

/// The longest octet stream, in bytes. No file is that large: a peer that announces more has lost step.
pub const MAX_OCTETS: u64 = 1 << 50;

/// What has been received and not been taken yet.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    /// So many bytes at the front hold no line end.
    searched: usize,
}

impl Decoder {
    /// Where received bytes are appended.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Nothing is left over.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// A whole line is there: [`Decoder::line`] gives one or refuses it without more input.
    pub fn has_line(&self) -> bool {
        self.buffer.len() >= MAX_LINE || self.buffer[self.searched..].contains(&b'\n')
    }

    /// Takes the next line, without its `\n` and any `\r` before it; `None` until it is complete.
    ///
    /// # Errors
    /// [`WireError::LineTooLong`] when there is no line end within [`MAX_LINE`] bytes. The stream is then unusable.
    pub fn line(&mut self) -> Result<Option<Vec<u8>>, WireError> {
        let end = self.buffer.len().min(MAX_LINE);
        let Some(length) = self.buffer[self.searched..end].iter().position(|&byte| byte == b'\n') else {
            self.searched = end;
            return if end == MAX_LINE { Err(WireError::LineTooLong) } else { Ok(None) };
        };
        let line = self.buffer.split_to(self.searched + length);
        self.buffer.advance(1);
        self.searched = 0;
        let kept = line.iter().rposition(|&byte| byte != b'\r').map_or(0, |last| last + 1);
        Ok(Some(line[..kept].to_vec()))
    }

    /// Hands out what is there, at most `limit` bytes, as raw data. Returns how many bytes that were, 0: none are there.
    pub fn data(&mut self, limit: u64, take: impl FnOnce(&[u8])) -> u64 {
        let length = self.buffer.len().min(usize::try_from(limit).unwrap_or(usize::MAX));
        take(&self.buffer[..length]);
        self.buffer.advance(length);
        self.searched = 0;
        length as u64
    }

    /// Takes what is there, at most `limit` bytes, as raw data.
    pub fn piece(&mut self, limit: u64) -> Bytes {
        let length = self.buffer.len().min(usize::try_from(limit).unwrap_or(usize::MAX));
        self.searched = 0;
        self.buffer.split_to(length).freeze()
    }
}

/// What stands before binary data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OctetHeader {
    /// So many bytes follow.
    Length(u64),
    /// The sender could not make the data: a negative length, or `ERROR`.
    Failed,
}

impl OctetHeader {
    /// Reads the line before the data.
    ///
    /// # Errors
    /// [`WireError::Protocol`] when it is another line, or the length is no number or above [`MAX_OCTETS`].
    pub fn parse(line: &[u8]) -> Result<Self, WireError> {
        if line.starts_with(b"ERROR") {
            return Ok(Self::Failed);
        }
        let text = String::from_utf8_lossy(line);
        let length = text.strip_prefix("octet-stream ").and_then(|number| number.trim().parse::<i64>().ok());
        match length.map(u64::try_from) {
            Some(Ok(length)) if length <= MAX_OCTETS => Ok(Self::Length(length)),
            Some(Ok(length)) => Err(WireError::Protocol(format!("a stream of {length} bytes was announced"))),
            Some(Err(_)) => Ok(Self::Failed),
            None => {
                let start: String = text.chars().take(80).collect();
                Err(WireError::Protocol(format!("`octet-stream LENGTH` expected, got `{start}`")))
            }
        }
    }

    /// The line, with its `\n`.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        match self {
            Self::Length(length) => format!("octet-stream {length}\n").into_bytes(),
            Self::Failed => b"octet-stream -1\n".to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Everything that comes out of `pieces`: lines, and the body that each `octet-stream` line announces. The flag says
    /// whether a line was refused.
    fn decode(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, bool) {
        let (mut decoder, mut items, mut body) = (Decoder::default(), Vec::new(), 0);
        for piece in pieces {
            decoder.buffer().extend_from_slice(piece);
            loop {
                if body > 0 {
                    let taken =
                        decoder.data(body, |data| items.last_mut().map_or((), |item: &mut Vec<u8>| item.extend(data)));
                    body -= taken;
                    if taken == 0 {
                        break;
                    }
                    continue;
                }
                let announced = decoder.has_line();
                match decoder.line() {
                    Ok(Some(line)) => {
                        assert!(announced);
                        if let Ok(OctetHeader::Length(length)) = OctetHeader::parse(&line) {
                            body = length;
                            items.push(Vec::new());
                        } else {
                            items.push(line);
                        }
                    }
                    Ok(None) => break,
                    Err(_) => return (items, true),
                }
            }
        }
        (items, false)
    }

    #[test]
    fn lines_and_data_come_apart() {
        let (items, refused) = decode(&[b"a b\r\r\n\nocte", b"t-stream 3\n\n\r", b"\nx\ry\noctet-stream 0\nrest"]);
        assert_eq!(items, [&b"a b"[..], b"", b"\n\r\n", b"x\ry", b""]);
        assert!(!refused);
    }

    #[test]
    fn the_longest_line_is_that_of_the_c_program() {
        let line = |length: usize| [vec![b'x'; length], b"\n".to_vec()].concat();
        assert_eq!(decode(&[&line(MAX_LINE - 1)]), (vec![vec![b'x'; MAX_LINE - 1]], false));
        assert_eq!(decode(&[&line(MAX_LINE)]), (vec![], true));
        assert_eq!(decode(&[&vec![b'x'; MAX_LINE]]), (vec![], true), "no more input is needed to know it");
    }

    #[test]
    fn headers_say_how_much_follows_or_that_nothing_does() {
        for (line, expected) in [
            ("octet-stream 0", Some(OctetHeader::Length(0))),
            ("octet-stream 12", Some(OctetHeader::Length(12))),
            ("octet-stream -1", Some(OctetHeader::Failed)),
            ("ERROR", Some(OctetHeader::Failed)),
            ("octet-stream 9223372036854775807", None),
            ("octet-stream 99999999999999999999", None),
            ("octet-stream", None),
            ("octet-stream 1x", None),
            ("OK (cmd_finished).", None),
        ] {
            assert_eq!(OctetHeader::parse(line.as_bytes()).ok(), expected, "{line}");
        }
        assert_eq!(OctetHeader::Length(12).encode(), b"octet-stream 12\n");
        assert_eq!(OctetHeader::parse(OctetHeader::Failed.encode().trim_ascii_end()).ok(), Some(OctetHeader::Failed));
    }

    /// Streams in which headers, line ends and long runs are likely.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..30),
            (0u32..40).prop_map(|length| format!("\noctet-stream {length}\n").into_bytes()),
            Just(b"\r\n".to_vec()),
            (MAX_LINE - 3..MAX_LINE + 3).prop_map(|length| vec![b'z'; length]),
        ];
        prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn any_split_of_the_input_gives_the_same(
            stream in stream(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            ends.push(stream.len());
            ends.sort_unstable();
            let mut start = 0;
            let pieces: Vec<&[u8]> = ends.iter().map(|&end| &stream[std::mem::replace(&mut start, end)..end]).collect();
            prop_assert_eq!(decode(&pieces), decode(&[&stream]));
        }

        #[test]
        fn no_header_makes_the_parser_panic(line in "(octet-stream )?[-0-9a-z ]{0,30}") {
            let _ = OctetHeader::parse(line.as_bytes());
        }
    }
}
