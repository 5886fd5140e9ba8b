//! Frames of the batch dialect, from either side: what is a message is written in one way, and nothing panics.
#![no_main]

use bytes::BytesMut;
use csync2::wire::batch::{Answer, Push};
use csync2::wire::frame::Frame;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|stream: &[u8]| {
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
});
