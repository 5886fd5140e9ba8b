//! Database URLs: none makes the parser panic, and no password comes out of it into a message.
#![no_main]

use csync2::store::Location;
use libfuzzer_sys::fuzz_target;

const PASSWORD: &str = "s3cr3tPassword";

fuzz_target!(|input: (String, String)| {
    let (text, rest) = input;
    let _ = Location::resolve(Some(&text), "alpha", "");
    if text.contains(['/', '?', '#', '@', ':']) || rest.contains("s3cr3t") {
        return;
    }
    // Here `text` is a user's name, so what follows the colon is a password, if anything is.
    let url = format!("pgsql://{text}:{PASSWORD}@{rest}");
    let shown = match Location::resolve(Some(&url), "alpha", "web") {
        Ok(location) => format!("{location} {location:?}"),
        Err(error) => format!("{error} {error:?}"),
    };
    assert!(!shown.contains(PASSWORD), "{shown}");
});
