//! Content of frames made smaller with zstd, where that is worth it.

use std::io;

use zstd::bulk::{Compressor, Decompressor};

use super::frame::MAX_BODY;

/// zstd's own default.
const LEVEL: i32 = 3;

/// Of fewer bytes all are sent.
const SMALLEST: usize = 128;

/// Pieces that are sent as they are behind one that did not shrink.
const PAUSE: u32 = 15;

/// Packs pieces of content, one after the other. What does not shrink by an eighth is not packed, and neither are the pieces
/// behind it, for a while.
pub struct Packer {
    compressor: Compressor<'static>,
    pause: u32,
}

impl Packer {
    /// # Errors
    /// No memory.
    pub fn new() -> io::Result<Self> {
        Ok(Self { compressor: Compressor::new(LEVEL)?, pause: 0 })
    }

    /// Another file begins.
    pub fn begin(&mut self) {
        self.pause = 0;
    }

    /// The piece as one frame of zstd; `None`: it is sent as it is.
    pub fn pack(&mut self, piece: &[u8]) -> Option<Vec<u8>> {
        if piece.len() < SMALLEST || self.pause > 0 {
            self.pause = self.pause.saturating_sub(1);
            return None;
        }
        let packed = self.compressor.compress(piece).ok().filter(|packed| packed.len() <= piece.len() / 8 * 7);
        if packed.is_none() {
            self.pause = PAUSE;
        }
        packed
    }
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Packer").field("pause", &self.pause).finish_non_exhaustive()
    }
}

/// What a peer has packed: at most [`MAX_BODY`] bytes.
///
/// # Errors
/// It is no frame of zstd, or a longer one.
pub fn unpack(packed: &[u8]) -> io::Result<Vec<u8>> {
    Decompressor::new()?.decompress(packed, MAX_BODY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_does_not_shrink_is_not_tried_again_for_a_while() {
        let mut noise = vec![0; 4096];
        getrandom::fill(&mut noise).unwrap();
        let text = b"address 10.0.0.1 netmask 255.255.255.0\n".repeat(100);
        let mut packer = Packer::new().unwrap();
        assert!(packer.pack(&text).unwrap().len() < 200);
        assert_eq!(packer.pack(&noise), None);
        assert!((0..PAUSE).all(|_| packer.pack(&text).is_none()));
        assert!(packer.pack(&text).is_some());
        assert_eq!(packer.pack(&noise), None);
        packer.begin();
        assert!(packer.pack(&text).is_some());
        assert_eq!(packer.pack(&text[..SMALLEST - 1]), None);
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let bomb = zstd::bulk::compress(&vec![0; 100 << 20], LEVEL).unwrap();
        assert!(bomb.len() < MAX_BODY && unpack(&bomb).is_err());
        let most = zstd::bulk::compress(&vec![0; MAX_BODY], LEVEL).unwrap();
        assert_eq!(unpack(&most).unwrap().len(), MAX_BODY);
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back(piece in prop::collection::vec(0..4_u8, 0..2_000)) {
            if let Some(packed) = Packer::new().unwrap().pack(&piece) {
                prop_assert!(packed.len() < piece.len());
                prop_assert_eq!(unpack(&packed).unwrap(), piece);
            }
        }

        #[test]
        fn whatever_a_peer_packs_makes_nothing_panic(packed in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(unpack(&packed).map_or(true, |piece| piece.len() <= MAX_BODY));
        }
    }
}
