//! fnmatch(3) over bytes: libc's where it is glibc's, whose odd cases all hosts of a cluster must share; elsewhere a
//! rewrite that agrees with it.

use std::ffi::CStr;

/// How a pattern is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Flags {
    /// Wildcards and brackets never match a slash.
    pub(super) pathname: bool,
    /// A match of a leading directory is a match.
    pub(super) leading_dir: bool,
}

/// Whether `pattern` matches `name`. No locale: one byte is one character.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) fn fnmatch(pattern: &CStr, name: &CStr, flags: Flags) -> bool {
    // The libc crate has no constant for this GNU extension.
    const FNM_LEADING_DIR: libc::c_int = 1 << 3;
    let bits =
        if flags.pathname { libc::FNM_PATHNAME } else { 0 } | if flags.leading_dir { FNM_LEADING_DIR } else { 0 };
    // SAFETY: both are NUL-terminated strings that live through the call; fnmatch only reads them.
    #[allow(unsafe_code)]
    let result = unsafe { libc::fnmatch(pattern.as_ptr(), name.as_ptr(), bits) };
    result == 0
}

/// Whether `pattern` matches `name`. No locale: one byte is one character.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn fnmatch(pattern: &CStr, name: &CStr, flags: Flags) -> bool {
    pure::fnmatch(pattern.to_bytes(), name.to_bytes(), flags)
}

#[cfg(any(test, not(all(target_os = "linux", target_env = "gnu"))))]
mod pure {
    use super::Flags;

    pub(super) fn fnmatch(pattern: &[u8], name: &[u8], flags: Flags) -> bool {
        let mut pattern = pattern;
        let mut name = name;
        // Where to try again: the pattern behind the last star, and the name that it should take one byte more of.
        let mut retry: Option<(&[u8], &[u8])> = None;
        loop {
            let step = match pattern.split_first() {
                None if name.is_empty() || flags.leading_dir && name[0] == b'/' => return true,
                None => None,
                Some((b'*', rest)) => {
                    retry = Some((rest, name));
                    pattern = rest;
                    continue;
                }
                Some((&first, rest)) => one(first, rest, name, flags).map(|rest| (rest, &name[1..])),
            };
            if let Some((rest, after)) = step {
                (pattern, name) = (rest, after);
                continue;
            }
            let Some((rest, from)) = retry else { return false };
            match from.split_first() {
                // A star stops at a slash; an earlier star does so too, and cannot help.
                Some((&byte, longer)) if !(flags.pathname && byte == b'/') => {
                    retry = Some((rest, longer));
                    (pattern, name) = (rest, longer);
                }
                _ => return false,
            }
        }
    }

    /// Matches the first byte of `name` against one element that is no star; what is left of the pattern.
    fn one<'p>(first: u8, rest: &'p [u8], name: &[u8], flags: Flags) -> Option<&'p [u8]> {
        let &byte = name.first()?;
        let slash = flags.pathname && byte == b'/';
        match first {
            b'?' => (!slash).then_some(rest),
            b'\\' => rest.split_first().filter(|&(&escaped, _)| escaped == byte).map(|(_, rest)| rest),
            b'[' => match bracket(rest, byte) {
                Bracket::Holds(rest) => (!slash).then_some(rest),
                Bracket::Fails => None,
                Bracket::Unclosed => (byte == b'[').then_some(rest),
            },
            literal => (literal == byte).then_some(rest),
        }
    }

    enum Bracket<'p> {
        /// The pattern behind it.
        Holds(&'p [u8]),
        Fails,
        /// It is not closed: the `[` stands for itself.
        Unclosed,
    }

    fn bracket(text: &[u8], byte: u8) -> Bracket<'_> {
        let (negated, mut rest) = match text.first() {
            Some(b'!' | b'^') => (true, &text[1..]),
            _ => (false, text),
        };
        let mut matched = false;
        let mut first = true;
        loop {
            match rest.split_first() {
                None => return Bracket::Unclosed,
                Some((b']', after)) if !first => {
                    return if matched == negated { Bracket::Fails } else { Bracket::Holds(after) };
                }
                _ => {}
            }
            first = false;
            if let Some((class, after)) = named(rest, b':') {
                // Behind a match, glibc only looks for the end.
                match class_holds(class, byte) {
                    Some(holds) => matched |= holds,
                    None if matched => {}
                    None => return Bracket::Fails,
                }
                rest = after;
                continue;
            }
            if matches!(rest, [b'[', mark @ (b'.' | b'='), ..] if named(rest, *mark).is_none()) {
                return Bracket::Fails;
            }
            let Some((low, after)) = endpoint(rest) else { return Bracket::Unclosed };
            rest = after;
            match rest {
                [b'-', next, ..] if *next != b']' => {
                    let Some((high, after)) = endpoint(&rest[1..]) else { return Bracket::Unclosed };
                    matched |= (low..=high).contains(&byte);
                    rest = after;
                }
                _ => matched |= low == byte,
            }
        }
    }

    /// A single byte of a bracket, escaped or written `[=a=]` or `[.a.]`.
    fn endpoint(text: &[u8]) -> Option<(u8, &[u8])> {
        for mark in [b'=', b'.'] {
            if let Some((&[byte], after)) = named(text, mark) {
                return Some((byte, after));
            }
        }
        match text {
            [b'\\', byte, after @ ..] | [byte, after @ ..] => Some((*byte, after)),
            [] => None,
        }
    }

    /// `[:name:]` and the like: the name, and what follows.
    fn named(text: &[u8], mark: u8) -> Option<(&[u8], &[u8])> {
        let body = text.strip_prefix(&[b'[', mark])?;
        let end = body.windows(2).position(|pair| pair == [mark, b']'])?;
        Some((&body[..end], &body[end + 2..]))
    }

    fn class_holds(class: &[u8], byte: u8) -> Option<bool> {
        Some(match class {
            b"alpha" => byte.is_ascii_alphabetic(),
            b"digit" => byte.is_ascii_digit(),
            b"alnum" => byte.is_ascii_alphanumeric(),
            b"upper" => byte.is_ascii_uppercase(),
            b"lower" => byte.is_ascii_lowercase(),
            b"space" => byte.is_ascii_whitespace() || byte == 0x0b,
            b"blank" => matches!(byte, b' ' | b'\t'),
            b"punct" => byte.is_ascii_punctuation(),
            b"cntrl" => byte.is_ascii_control(),
            b"graph" => byte.is_ascii_graphic(),
            b"print" => byte.is_ascii_graphic() || byte == b' ',
            b"xdigit" => byte.is_ascii_hexdigit(),
            _ => return None,
        })
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;
    use std::ffi::CString;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, rng_seed: RngSeed::Fixed(1),  failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn the_rewrite_agrees_with_glibc(
            pattern in r"([abAB1/.*?!^-]|\\[ab*]|\[[!^]?[]ab/]?(a-b|[abAB1]|\\\]|\[:(alpha|digit|upper|foo):\]){0,3}\]|\[a){0,8}",
            name in r"[abAB1/.\[\]!^-]{0,8}",
            pathname: bool,
            leading_dir: bool,
        ) {
            let flags = Flags { pathname, leading_dir };
            let (c_pattern, c_name) = (CString::new(pattern.clone()).unwrap(), CString::new(name.clone()).unwrap());
            prop_assert_eq!(
                pure::fnmatch(pattern.as_bytes(), name.as_bytes(), flags),
                fnmatch(&c_pattern, &c_name, flags)
            );
        }
    }
}
