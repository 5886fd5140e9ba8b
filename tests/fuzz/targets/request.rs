//! The commands of a client: what was understood is said again in one line that means the same.
#![no_main]

use csync2::wire::Request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| {
    let Ok(request) = Request::parse(line) else { return };
    let encoded = request.encode();
    assert_eq!(encoded.iter().position(|&byte| byte == b'\n'), Some(encoded.len() - 1), "one line");
    assert_eq!(Request::parse(&encoded[..encoded.len() - 1]), Ok(request));
});
