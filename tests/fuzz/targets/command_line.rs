//! The command line: arguments of any bytes, one a line of the input.
#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use csync2::cli::{self, Environment};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, Vec<u8>)| {
    let (posixly_correct, line) = input;
    let environment = Environment { system_dir: "/nonexistent".into(), host_name: "alpha".into(), posixly_correct };
    let arguments = line.split(|&byte| byte == b'\n' || byte == 0).map(|word| OsString::from_vec(word.to_vec()));
    let _ = cli::parse(arguments, &environment);
});
