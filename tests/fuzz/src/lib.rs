//! What must hold whatever bytes come: one function for each source of bytes. The fuzz targets call them with what libFuzzer
//! makes up, and the ordinary suite (`tests/it/fuzz.rs`) with the corpora and with changes to them.

mod contents;
mod names;
mod session;
mod settings;
mod wire;

pub use contents::{blocks, delta, patch};
pub use names::{checktxt, encoding, sync_path};
pub use session::Host;
pub use settings::{command_line, config, pattern, store_url};
pub use wire::{batch, codec, listing, reply, request};

/// Takes an input apart that stands for several things. What is missing is empty, or zero: every input means something, and
/// small changes to it are small changes of what it means.
struct Parts<'i>(&'i [u8]);

impl<'i> Parts<'i> {
    fn byte(&mut self) -> u8 {
        let [byte] = self.number();
        byte
    }

    fn short(&mut self) -> u16 {
        u16::from_be_bytes(self.number())
    }

    fn number<const LENGTH: usize>(&mut self) -> [u8; LENGTH] {
        let mut number = [0; LENGTH];
        let (bytes, rest) = self.0.split_at(LENGTH.min(self.0.len()));
        number[LENGTH - bytes.len()..].copy_from_slice(bytes);
        self.0 = rest;
        number
    }

    /// Bytes with their number in two bytes before them.
    fn counted(&mut self) -> &'i [u8] {
        let length = usize::from(self.short());
        let (bytes, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// Bytes up to a zero, or all that are left.
    fn text(&mut self) -> &'i [u8] {
        let mut split = self.0.splitn(2, |byte| *byte == 0);
        let text = split.next().unwrap_or_default();
        self.0 = split.next().unwrap_or_default();
        text
    }

    fn rest(self) -> &'i [u8] {
        self.0
    }
}
