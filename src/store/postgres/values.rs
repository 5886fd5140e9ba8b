//! Text as bytes, both ways: a database of the C program may hold text that is no UTF-8.

use std::error::Error;

use bytes::BytesMut;
use sha2::{Digest, Sha256};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use super::super::spelling::key;

/// Bytes of a name that `name_key` holds. An entry of an index may have 2,700.
pub(super) const KEY_LENGTH: usize = 1000;

/// A text for a statement.
#[derive(Debug, Clone)]
pub(super) struct Text(pub(super) Vec<u8>);

impl ToSql for Text {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        matches!(*kind, Type::TEXT | Type::VARCHAR)
    }

    to_sql_checked!();
}

/// A column's bytes.
struct Bytes<'r>(&'r [u8]);

impl<'r> FromSql<'r> for Bytes<'r> {
    fn from_sql(_: &Type, raw: &'r [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(kind: &Type) -> bool {
        matches!(*kind, Type::TEXT | Type::VARCHAR | Type::BYTEA)
    }
}

/// Reads a column of text.
pub(super) fn text(row: &Row, index: usize) -> Result<&[u8], tokio_postgres::Error> {
    row.try_get::<_, Bytes<'_>>(index).map(|Bytes(bytes)| bytes)
}

/// Reads a column of text that may be NULL.
pub(super) fn optional_text(row: &Row, index: usize) -> Result<Option<&[u8]>, tokio_postgres::Error> {
    row.try_get::<_, Option<Bytes<'_>>>(index).map(|found| found.map(|Bytes(bytes)| bytes))
}

/// What identifies a name in the tables, whatever its length and spelling: SHA-256 of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct NameDigest([u8; 32]);

impl NameDigest {
    pub(super) fn of(raw: &[u8]) -> Self {
        Self(Sha256::digest(key(raw)).into())
    }
}

impl ToSql for NameDigest {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::BYTEA
    }

    to_sql_checked!();
}

impl FromSql<'_> for NameDigest {
    fn from_sql(_: &Type, raw: &[u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw.try_into()?))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::BYTEA
    }
}

/// What orders a name in the tables.
pub(super) fn name_key(raw: &[u8]) -> Vec<u8> {
    truncated(key(raw))
}

pub(super) fn truncated(mut key: Vec<u8>) -> Vec<u8> {
    key.truncate(KEY_LENGTH);
    key
}
