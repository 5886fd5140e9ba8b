//! Patterns of the configuration against names of files and hosts.
#![no_main]

use csync2::config::Pattern;
use csync2::config::pattern::Subject;
use csync2::model::SyncPath;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (text, name) = input;
    // The matching of many stars takes exponential time; patterns are the administrator's own, so that is no attack.
    if text.iter().filter(|&&byte| byte == b'*').count() > 4 || text.contains(&b'(') || name.len() > 256 {
        return;
    }
    let host = String::from_utf8_lossy(&name);
    let Ok(path) = SyncPath::parse(&name) else { return };
    let subject = Subject::of(&path);
    for pattern in [Pattern::rule(&text), Pattern::path(&text), Pattern::name(&text)] {
        let _ = (pattern.matches(&subject), pattern.may_match_below(&subject), pattern.matches_name(&host));
    }
    // A name without special characters matches itself.
    if !name.iter().any(|byte| b"*?[\\".contains(byte)) {
        assert!(Pattern::path(&name).matches(&subject));
    }
});
