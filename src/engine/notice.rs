//! Standing facts that a person should know of, such as a weak key: no errors of a run. A warning at level 0 is for
//! those that are news; cron would mail it after every run.

use crate::store::{Store, StoreError};

/// Warns about the facts about something. `about` names the matter: whatever else was a fact about it is no longer one.
///
/// # Errors
/// Those of the store.
pub(super) async fn warn(store: &Store, about: &str, facts: &[String]) -> Result<(), StoreError> {
    let news = store.news(about, facts).await?;
    for fact in facts {
        if news.contains(fact) {
            tracing::warn!("WARNING: {fact}");
        } else {
            tracing::info!("WARNING: {fact}");
        }
    }
    Ok(())
}

/// What the files that we replace cannot keep. Which files is said at level 1, where it happens.
pub(super) async fn warn_of_lost(store: &Store, attribute: &str, problem: &str) -> Result<(), StoreError> {
    let fact = format!("a file that is replaced does not keep everything: {problem}. `-v` names the files.");
    for news in store.news(&format!("lost {attribute}"), &[fact]).await? {
        tracing::warn!("WARNING: {news}");
    }
    Ok(())
}
