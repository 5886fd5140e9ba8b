//! Run it as a user without rights (docs/testing.md): what it may do to the disk, it will try.
#![no_main]

use std::sync::OnceLock;

use csync2_fuzz::Host;

static HOST: OnceLock<Host> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let answers = HOST.get_or_init(Host::new).serve(input);
    if std::env::var_os("CSYNC2_FUZZ_SHOW").is_some() {
        println!("{}", answers.escape_ascii());
    }
});
