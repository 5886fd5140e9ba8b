//! Statements that are sent together, within one transaction.
//!
//! When one of them fails, the server refuses those behind it, and says only that the transaction is given up. Whichever
//! answer is seen first, the error that is passed on is the one that tells why.

use futures_util::future;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use super::Answer;

/// Both answers, once both are there.
pub(super) async fn both<A, B>(
    one: impl Future<Output = Answer<A>>,
    other: impl Future<Output = Answer<B>>,
) -> Answer<(A, B)> {
    match future::join(one, other).await {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
        (Err(one), Err(other)) => Err(cause(one, other)),
    }
}

/// All answers, once all are there.
pub(super) async fn all<T>(statements: impl Iterator<Item = impl Future<Output = Answer<T>>>) -> Answer<Vec<T>> {
    let (mut all, mut failed) = (Vec::new(), None);
    for answer in future::join_all(statements).await {
        match (answer, failed.take()) {
            (Ok(answer), before) => {
                all.push(answer);
                failed = before;
            }
            (Err(error), None) => failed = Some(error),
            (Err(error), Some(before)) => failed = Some(cause(before, error)),
        }
    }
    failed.map_or(Ok(all), Err)
}

fn cause(one: Error, other: Error) -> Error {
    if one.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION) { other } else { one }
}
