//! The spellings of GNU getopt, brought into the one form that clap reads without any guess: every option an argument
//! of its own, its value behind `=`, operands last and behind `--`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::options::{self, Value};

/// Brings arguments (without the program's name) into normal form. With `first_operand_ends` nothing behind an operand
/// is an option.
///
/// # Errors
/// What getopt complains about, in its words, without the program's name.
pub(super) fn normalise(
    arguments: impl IntoIterator<Item = OsString>,
    first_operand_ends: bool,
) -> Result<Vec<OsString>, String> {
    let mut arguments = arguments.into_iter();
    let mut options = Vec::new();
    let mut operands = Vec::new();
    while let Some(argument) = arguments.next() {
        match argument.as_bytes() {
            b"--" => break,
            [b'-', b'-', name @ ..] => options.push(long_option(name, &mut arguments)?),
            [b'-', cluster @ ..] if !cluster.is_empty() => letters(cluster, &mut arguments, &mut options)?,
            _ => {
                operands.push(argument);
                if first_operand_ends {
                    break;
                }
            }
        }
    }
    operands.extend(arguments);
    if !operands.is_empty() {
        options.push("--".into());
        options.append(&mut operands);
    }
    Ok(options)
}

fn long_option(option: &[u8], following: &mut impl Iterator<Item = OsString>) -> Result<OsString, String> {
    let (name, value) = match option.iter().position(|&byte| byte == b'=') {
        Some(at) => (&option[..at], Some(OsStr::from_bytes(&option[at + 1..]).to_owned())),
        None => (option, None),
    };
    let shown = String::from_utf8_lossy(name);
    let Some(record) = options::by_name(&shown) else { return Err(format!("unrecognized option '--{shown}'")) };
    match (&record.value, value) {
        (Value::None, None) => Ok(format!("--{shown}").into()),
        (Value::None, Some(_)) => Err(format!("option '--{shown}' doesn't allow an argument")),
        (_, value) => match value.or_else(|| following.next()) {
            Some(value) => Ok(OsString::from_vec([b"--", name, b"=", value.as_bytes()].concat())),
            None => Err(format!("option '--{shown}' requires an argument")),
        },
    }
}

fn letters(
    cluster: &[u8],
    following: &mut impl Iterator<Item = OsString>,
    options: &mut Vec<OsString>,
) -> Result<(), String> {
    let mut rest = cluster;
    while let Some((&letter, after)) = rest.split_first() {
        rest = after;
        let record = options::by_letter(char::from(letter));
        let shown = String::from_utf8_lossy(&[letter]).into_owned();
        match record.map(|record| &record.value) {
            None | Some(Value::WholeLine(_)) => return Err(format!("invalid option -- '{shown}'")),
            Some(Value::Required(_) | Value::Attached(_)) if !rest.is_empty() => {
                options.push(with_value(letter, OsStr::from_bytes(rest)));
                break;
            }
            Some(Value::None | Value::Attached(_)) => options.push(format!("-{shown}").into()),
            Some(Value::Required(_)) => match following.next() {
                Some(value) => options.push(with_value(letter, &value)),
                None => return Err(format!("option requires an argument -- '{shown}'")),
            },
        }
    }
    Ok(())
}

fn with_value(letter: u8, value: &OsStr) -> OsString {
    OsString::from_vec([&[b'-', letter, b'='], value.as_bytes()].concat())
}
