#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| csync2_fuzz::blocks(input));
