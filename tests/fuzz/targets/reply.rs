//! The answers of a server: any line is one, and it is a success exactly when it begins with `OK (`.
#![no_main]

use csync2::wire::{OctetHeader, Reply};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| {
    let reply = Reply::parse(line);
    assert_eq!(reply.is_ok(), line.starts_with(b"OK ("));
    let encoded = reply.encode();
    assert_eq!(encoded.iter().position(|&byte| byte == b'\n'), Some(encoded.len() - 1), "one line");
    if !line.iter().any(|byte| b"\r\n".contains(byte)) {
        assert_eq!(Reply::parse(&encoded[..encoded.len() - 1]), reply);
    }
    if let Ok(header) = OctetHeader::parse(line) {
        let encoded = header.encode();
        assert_eq!(OctetHeader::parse(&encoded[..encoded.len() - 1]).unwrap(), header);
    }
});
