//! What a crash in the middle of a receive leaves behind, and what the next start makes of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, UNIX_EPOCH};

use super::{Story, path};
use crate::engine::{mark, recover};
use crate::model::Checktxt;
use crate::store::Intent;

/// A process that is no more.
const DEAD: &str = "00000000-0000-0000-0000-000000000000 1 1";
const TEMP: &str = ".f.abcdef";

/// Writes what a session had written when it died: a file of 11 bytes or a removal was to come.
async fn intent(story: &Story, temp_name: &str, target: Option<&str>, holder: &str) {
    let target = target.map(|text| Checktxt::from_text(text.as_bytes()));
    let (path, peer, temp_name) = (path("f"), "localhost".to_owned(), temp_name.as_bytes().to_vec());
    let intent = Intent { path, peer, temp_name, target, holder: holder.to_owned() };
    story.served().await.store.begin_receives(vec![intent]).await.unwrap();
}

const NEW: Option<&str> = Some("v1:mtime=5:mode=33152:uid=0:gid=0:type=reg:size=11");

/// A file that was known before the crash.
async fn before() -> Story {
    let story = Story::with("action { exec \"echo ran >> DIR/out/log\"; }");
    story.put("f", "old");
    story.check(true).await;
    story
}

/// Restarts, and checks as the next run would.
async fn afterwards(story: &mut Story) -> (Vec<String>, bool) {
    story.restart();
    story.served().await;
    assert_eq!(story.intents().await, 0);
    let scheduled = !story.served().await.store.jobs().await.unwrap().is_empty();
    story.check(false).await;
    (story.dirty("f").await, scheduled)
}

#[tokio::test]
async fn before_the_rename_nothing_has_happened() {
    let mut story = before().await;
    intent(&story, TEMP, NEW, DEAD).await;
    story.put(TEMP, "new content");
    assert_eq!(afterwards(&mut story).await, (vec![], false));
    assert_eq!((story.read("f").as_str(), story.names()), ("old", vec!["f".to_owned()]));
}

#[tokio::test]
async fn a_leftover_of_the_size_of_the_old_file_is_a_leftover_all_the_same() {
    let mut story = before().await;
    intent(&story, TEMP, Some("v1:type=reg:size=3"), DEAD).await;
    story.put(TEMP, "new");
    story.put("f", "changed since");
    assert_eq!(afterwards(&mut story).await, (vec!["localhost".to_owned(), "third".to_owned()], false));
    assert_eq!(story.names(), ["f"]);
}

/// Its record was not written yet, or a power cut has undone it.
#[tokio::test]
async fn behind_the_rename_the_file_is_received() {
    let mut story = before().await;
    mark::mark_paths(&*story.served().await, &[path("f")], false, Some("localhost")).await.unwrap();
    intent(&story, TEMP, NEW, DEAD).await;
    fs::remove_file(story.path("d/f")).unwrap();
    arrive(&story, "new content");
    assert_eq!(afterwards(&mut story).await, (vec![], true));
    assert!(story.row("f").await.unwrap().ends_with("size=11"));
}

/// Puts the file there as a rename does: complete, with the attributes that [`NEW`] names.
fn arrive(story: &Story, content: &str) {
    story.put("f", content);
    let file = fs::File::options().write(true).open(story.path("d/f")).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(5)).unwrap();
}

#[tokio::test]
async fn an_edit_of_the_same_size_after_the_crash_is_a_change() {
    let mut story = before().await;
    intent(&story, "", NEW, DEAD).await;
    arrive(&story, "new content");
    story.put("f", "NEW CONTENT");
    assert_eq!(afterwards(&mut story).await, (vec!["localhost".to_owned(), "third".to_owned()], false));
}

#[tokio::test]
async fn a_change_after_the_crash_is_a_change() {
    let mut story = before().await;
    intent(&story, "", NEW, DEAD).await;
    story.put("f", "of another length");
    assert_eq!(afterwards(&mut story).await, (vec!["localhost".to_owned(), "third".to_owned()], false));
}

#[tokio::test]
async fn what_was_made_or_removed_is_recorded() {
    let mut story = before().await;
    intent(&story, "", Some("v1:mode=0:uid=0:gid=0:type=dir"), DEAD).await;
    fs::remove_file(story.path("d/f")).unwrap();
    fs::create_dir(story.path("d/f")).unwrap();
    assert_eq!(afterwards(&mut story).await, (vec![], true));
    assert!(story.row("f").await.unwrap().ends_with(":type=dir"));

    let mut story = before().await;
    intent(&story, "", None, DEAD).await;
    fs::remove_file(story.path("d/f")).unwrap();
    assert_eq!(afterwards(&mut story).await, (vec![], true));
    assert!(story.row("f").await.is_none());

    let mut story = before().await;
    intent(&story, "", None, DEAD).await;
    assert_eq!(afterwards(&mut story).await, (vec![], false));
    assert!(story.row("f").await.is_some());
}

#[tokio::test]
async fn who_is_still_at_work_is_left_alone() {
    let mut story = before().await;
    intent(&story, TEMP, NEW, &recover::holder()).await;
    story.put(TEMP, "new content");
    story.restart();
    assert_eq!(story.intents().await, 1);
    assert!(story.path("d").join(TEMP).exists());
    story.check(false).await;
    assert!(story.dirty(TEMP).await.is_empty(), "and no check takes it for a file of the tree");
}

/// A directory cannot take the place of a file in one step.
#[tokio::test]
async fn what_had_to_make_way_is_no_removal() {
    let mut story = before().await;
    intent(&story, "", Some("v1:mode=0:uid=0:gid=0:type=dir"), DEAD).await;
    fs::remove_file(story.path("d/f")).unwrap();
    assert_eq!(afterwards(&mut story).await, (vec![], false));
    assert!(story.row("f").await.is_none());
}

#[tokio::test]
async fn a_removal_after_the_crash_is_a_change() {
    let mut story = before().await;
    intent(&story, "", NEW, DEAD).await;
    fs::remove_file(story.path("d/f")).unwrap();
    assert_eq!(afterwards(&mut story).await, (vec!["localhost".to_owned(), "third".to_owned()], false));
}
