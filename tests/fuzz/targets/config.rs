//! The configuration file, and files that it includes: each `config NAME;` reads the second input.
#![no_main]

use std::path::Path;

use csync2::config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (text, included) = input;
    // A file that includes itself many times is read as often as the depth allows: the number of files is bounded here.
    let mut left = 100;
    let mut include = |_: &Path| {
        left -= 1;
        if left > 0 { Ok(included.clone()) } else { Err(std::io::ErrorKind::NotFound.into()) }
    };
    if let Err(error) = config::parse(&text, Path::new("csync2.cfg"), &mut include) {
        assert!(!error.message().is_empty());
        let _ = (error.to_string(), error.location());
    }
});
