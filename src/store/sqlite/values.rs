//! Text as bytes, both ways: a database of the C program may hold text that is no UTF-8, and its columns have no type.

use std::borrow::Cow;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Row, ToSql};

use super::super::spelling::Spelling;

/// A text that need not be UTF-8.
pub(super) struct Text<'t>(pub(super) &'t [u8]);

impl ToSql for Text<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0)))
    }
}

/// A column's bytes, whatever its type.
pub(super) fn bytes(row: &Row<'_>, index: usize) -> rusqlite::Result<Vec<u8>> {
    borrowed(row, index).map(Cow::into_owned)
}

/// The same, copied only where it is no text.
pub(super) fn borrowed<'r>(row: &'r Row<'_>, index: usize) -> rusqlite::Result<Cow<'r, [u8]>> {
    Ok(match row.get_ref(index)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.into(),
        ValueRef::Integer(number) => number.to_string().into_bytes().into(),
        ValueRef::Real(number) => number.to_string().into_bytes().into(),
        ValueRef::Null => Cow::default(),
    })
}

/// A column of the C program that holds a number.
pub(super) fn number(row: &Row<'_>, index: usize) -> rusqlite::Result<i64> {
    Ok(std::str::from_utf8(&bytes(row, index)?).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0))
}

/// A name, or another text, as we spell it.
pub(super) fn spelled(raw: &[u8]) -> Vec<u8> {
    Spelling::Bytes.write(raw)
}

/// The texts under which a name's rows may stand: as we spell it, and where there is another way, as `%XX`.
pub(super) fn spellings(raw: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    std::iter::once(spelled(raw)).chain(Spelling::Bytes.other(raw))
}
