//! The commands of a delta, written and read.

use super::DeltaError;

pub(super) const MAGIC: [u8; 4] = [0x72, 0x73, 0x02, 0x36];
pub(super) const END: u8 = 0;
/// Means nothing to any librsync: whoever meets it refuses the delta.
pub(super) const INVALID: u8 = 0xff;

/// Lengths up to this stand in the literal command itself.
const SHORT: u8 = 64;
const LITERAL: u8 = 0x41;
const COPY: u8 = 0x45;
const RESERVED: u8 = 0x55;

/// The widths of numbers in bytes.
const WIDTHS: [usize; 4] = [1, 2, 4, 8];

/// What the head of a command says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    End,
    /// So many bytes follow.
    Literal(u64),
    /// Bytes of the basis.
    Copy {
        position: u64,
        length: u64,
    },
}

impl Command {
    /// Reads a command; `next` gives so many bytes of the delta as a big-endian number.
    pub(super) fn read(mut next: impl FnMut(usize) -> Result<u64, DeltaError>) -> Result<Self, DeltaError> {
        let [.., code] = next(1)?.to_be_bytes();
        let width = |code: u8| WIDTHS[usize::from(code % 4)];
        match code {
            END => Ok(Self::End),
            1..=SHORT => Ok(Self::Literal(code.into())),
            LITERAL..COPY => Ok(Self::Literal(next(width(code - LITERAL))?)),
            COPY..RESERVED => {
                let position = next(width((code - COPY) / 4))?;
                Ok(Self::Copy { position, length: next(width(code - COPY))? })
            }
            RESERVED.. => Err(DeltaError::BadDelta("a command that is none")),
        }
    }

    /// The head, in as few bytes as it can be said.
    pub(super) fn encode(self) -> Vec<u8> {
        match self {
            Self::End => vec![END],
            Self::Literal(length) => {
                if let Ok(length @ 1..=SHORT) = u8::try_from(length) {
                    return vec![length];
                }
                let (code, bytes) = number(length);
                [&[LITERAL + code], &bytes[..]].concat()
            }
            Self::Copy { position, length } => {
                let (position_code, position) = number(position);
                let (length_code, length) = number(length);
                [&[COPY + 4 * position_code + length_code], &position[..], &length[..]].concat()
            }
        }
    }
}

/// A number in the least width that holds it, with the code of the width.
fn number(number: u64) -> (u8, Vec<u8>) {
    let bytes = number.to_be_bytes();
    let (code, width) = match number {
        0..0x100 => (0, 1),
        0x100..0x1_0000 => (1, 2),
        0x1_0000..0x1_0000_0000 => (2, 4),
        _ => (3, 8),
    };
    (code, bytes[8 - width..].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let numbers = [0, 1, 63, 64, 65, 255, 256, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, u64::MAX];
        let copies = numbers.iter().flat_map(|&position| numbers.map(|length| Command::Copy { position, length }));
        for command in copies.chain(numbers.map(Command::Literal)).chain([Command::End]) {
            let bytes = command.encode();
            let mut rest = &bytes[..];
            let read = Command::read(|width| {
                let (number, behind) = rest.split_at(width);
                rest = behind;
                Ok(number.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
            });
            assert_eq!(read.unwrap(), command, "{bytes:?}");
            assert!(rest.is_empty());
        }
        for code in [RESERVED, INVALID] {
            assert!(Command::read(|_| Ok(code.into())).is_err());
        }
    }
}
