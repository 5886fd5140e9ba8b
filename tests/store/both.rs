//! Stories that are the same on both engines, and on PostgreSQL in every encoding.

use std::time::Instant;

use csync2::model::{End, Figures, FileRecord, Past, PastRun, Scope, Session, Standing, SyncPath};
use csync2::store::{Claim, DirtyFilter, ErrorKind, Hint, Intent, Receipt, Store, StoreError};

use crate::bench::{
    Bench, action, change, checktxt, dirty, files, job_files, mark, names, options, path, record, remove_all_actions,
    scheduled,
};

/// Runs each story on every kind of database.
macro_rules! stories {
    ($($story:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() { super::$story(&super::Bench::sqlite()).await; })*
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() { super::$story(&super::Bench::postgres(None)).await; })*
        }
        mod on_postgres_sql_ascii {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                super::$story(&super::Bench::postgres(Some("TEMPLATE template0 ENCODING 'SQL_ASCII'"))).await;
            })*
        }
        mod on_postgres_latin1 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                super::$story(&super::Bench::postgres(Some("TEMPLATE template0 ENCODING 'LATIN1'"))).await;
            })*
        }
        mod on_postgres_icu {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                let options = "TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'en-US'";
                super::$story(&super::Bench::postgres(Some(options))).await;
            })*
        }
    };
}

stories!(
    records_come_back_as_they_were_written,
    names_are_any_bytes_in_the_order_of_the_c_program,
    scopes_take_in_what_they_should,
    long_names_are_unique_and_in_order,
    stale_changes_are_skipped_with_their_marks,
    clearing_never_forgets_a_later_marking,
    marking_replaces_and_forcing_sets,
    hints_and_actions_are_kept_once,
    a_hint_that_is_given_again_is_another_row,
    a_claim_has_one_holder_and_an_end,
    an_action_that_is_scheduled_again_is_another_row,
    tables_of_version_1_get_what_is_new,
    the_first_certificate_is_pinned,
    standing_facts_are_news_once,
    what_waits_and_how_it_went_is_told,
    a_marking_has_an_age,
    receives_are_recorded_in_one_go,
    one_receive_ends_as_the_next_begins,
    files_are_known_with_their_marks,
    malformed_rows_are_left_out_and_removed,
    many_open_a_new_database_at_once,
    a_newer_schema_is_refused,
    a_stream_does_not_stop_its_reader_from_writing,
    writers_do_not_lose_each_others_rows,
    rows_inserted_past_us_are_like_any_other,
    both_spellings_are_one_file,
    a_big_tree_is_written_and_read,
);

async fn apply_all(store: &Store, names: &[SyncPath]) {
    let changes = names.iter().map(|name| change(name.as_bytes(), None, Some("v1:type=dir"))).collect();
    assert_eq!(store.apply(changes).await.unwrap(), []);
}

async fn records_come_back_as_they_were_written(bench: &Bench) {
    let store = bench.open().await;
    let full = FileRecord {
        checktxt: csync2::model::Checktxt::from_text(b"v1:type=lnk:target=a%20b\xfc%25"),
        mtime_ns: Some(-1_600_000_000_123_456_789),
        ctime_ns: Some(i64::MAX),
        device: Some(-3),
        digest: Some([7; 32]),
        ..record("/a b", "")
    };
    let mut first = change("/a b", None, None);
    first.record = Some(full.clone());
    assert_eq!(store.apply(vec![first]).await.unwrap(), []);
    assert_eq!(store.file(&path("/a b")).await.unwrap(), Some(full.clone()));
    assert_eq!(store.file(&path("/a")).await.unwrap(), None);
    store.close().await;

    let store = bench.open().await;
    assert_eq!(files(&store, vec![Scope::All]).await, std::slice::from_ref(&full), "after opening it again");
    let mut second = change("/a b", None, Some("v1:type=dir"));
    second.expected = Some(full.checktxt);
    assert_eq!(store.apply(vec![second]).await.unwrap(), []);
    assert_eq!(store.file(&path("/a b")).await.unwrap(), Some(record("/a b", "v1:type=dir")));
    assert_eq!(store.remove_files(&[path("/a b"), path("/none")]).await.unwrap(), 1);
    assert_eq!(files(&store, vec![Scope::All]).await, []);
}

async fn names_are_any_bytes_in_the_order_of_the_c_program(bench: &Bench) {
    let store = bench.open().await;
    let mut all: Vec<SyncPath> =
        ["/#", "/ ", "/&", "/a", "/a.d", "/a/x", "/A", "/B", "/é", "/日本", "%p%", "%p%/x", "/"]
            .into_iter()
            .map(path)
            .chain([path(b"/gr\xfcn"), path(b"/gr\x80"), path(b"/gr%FCn"), path(b"/\xff\x01")])
            .collect();
    apply_all(&store, &all).await;
    all.sort();
    assert_eq!(names(&store, vec![Scope::All]).await, all);
    store.mark(all.iter().map(|name| mark(name.as_bytes(), "peer")).collect(), vec![]).await.unwrap();
    let marked: Vec<_> = dirty(&store).await.into_iter().map(|entry| entry.path).collect();
    assert_eq!(marked, all);
    for name in &all {
        assert!(store.file(name).await.unwrap().is_some(), "{name}");
        let marks = || store.dirty(DirtyFilter { peer: None, scopes: vec![Scope::File(name.clone())] });
        assert_eq!(marks().await.unwrap().len(), 1, "{name}");
        store.flush(name).await.unwrap();
        assert_eq!(marks().await.unwrap(), [], "{name}");
    }
    assert_eq!(store.remove_files(&all).await.unwrap(), all.len() as u64);
}

async fn scopes_take_in_what_they_should(bench: &Bench) {
    let store = bench.open().await;
    let mut all = ["/", "/a", "/a b", "/a.d", "/a/x", "/a/x/y", "/a0", "/b", "%p%", "%p%/x"].map(path);
    all.sort();
    apply_all(&store, &all).await;
    store.mark(all.iter().map(|name| mark(name.as_bytes(), "peer")).collect(), vec![]).await.unwrap();
    let selections = [
        vec![],
        vec![Scope::All],
        vec![Scope::File(path("/a"))],
        vec![Scope::Tree(path("/a"))],
        vec![Scope::Tree(path("/"))],
        vec![Scope::Tree(path("%p%")), Scope::File(path("/b")), Scope::File(path("/b")), Scope::File(path("/none"))],
        vec![Scope::File(path("/a/x/y")), Scope::Tree(path("/a/x")), Scope::File(path("/a b"))],
    ];
    for scopes in selections {
        let expected: Vec<_> =
            all.iter().filter(|name| scopes.iter().any(|scope| scope.contains(name))).cloned().collect();
        assert_eq!(names(&store, scopes.clone()).await, expected, "{scopes:?}");
        let entries = store.dirty(DirtyFilter { peer: Some("peer".into()), scopes: scopes.clone() }).await.unwrap();
        assert_eq!(entries.into_iter().map(|entry| entry.path).collect::<Vec<_>>(), expected, "{scopes:?}");
        let nobody = DirtyFilter { peer: Some("nobody".into()), scopes: scopes.clone() };
        assert_eq!(store.dirty(nobody).await.unwrap(), []);
        assert_eq!(store.force(&scopes).await.unwrap(), expected.len() as u64, "{scopes:?}");
    }
}

/// Bytes that no compression makes shorter.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        b'a' + u8::try_from(state >> 33 & 15).unwrap()
    };
    (0..length).map(|_| byte()).collect()
}

async fn long_names_are_unique_and_in_order(bench: &Bench) {
    let store = bench.open().await;
    let long = |seed| [b"/".to_vec(), noise(4000, seed)].concat();
    let directory = [b"/long/".to_vec(), noise(1500, 9)].concat();
    let mut all: Vec<_> = (0..5).map(|seed| path(long(seed))).collect();
    all.push(path(&directory));
    // Alike in the first 1,500 bytes; written out of order.
    for end in ["/c", "/a", "/b b", ".d", "/b", "/b/x"] {
        all.push(path([&directory[..], end.as_bytes()].concat()));
    }
    all.push(path("/long/zz"));
    apply_all(&store, &all).await;
    apply_all(&store, &[path("/z")]).await;
    let mut expected = all.clone();
    expected.push(path("/z"));
    expected.sort();
    assert_eq!(names(&store, vec![Scope::All]).await, expected);
    let tree = Scope::Tree(path(&directory));
    let within: Vec<_> = expected.iter().filter(|name| tree.contains(name)).cloned().collect();
    assert_eq!(within.len(), 6);
    assert_eq!(names(&store, vec![tree.clone()]).await, within);
    let one = Scope::File(path([&directory[..], b"/b"].concat()));
    assert_eq!(names(&store, vec![one]).await.len(), 1);
    store.mark(all.iter().map(|name| mark(name.as_bytes(), "peer")).collect(), vec![]).await.unwrap();
    assert_eq!(store.force(&[tree]).await.unwrap(), 6);
    assert_eq!(store.apply(vec![change(long(0), None, Some("again"))]).await.unwrap(), [path(long(0))], "is there");
    let actions: Vec<_> = all.iter().map(|name| action(name.as_bytes(), "true")).collect();
    store.schedule(actions).await.unwrap();
    assert_eq!(remove_all_actions(&store).await, all.len() as u64);
    let hint = Hint { path: long(1), recursive: true };
    store.add_hints(std::slice::from_ref(&hint)).await.unwrap();
    let versions = store.hint_versions(&hint).await.unwrap();
    assert_eq!(store.remove_hints(&versions).await.unwrap(), 1);
}

async fn stale_changes_are_skipped_with_their_marks(bench: &Bench) {
    let store = bench.open().await;
    let with_mark = |name: &str, from: Option<&str>, to: Option<&str>| {
        let mut change = change(name, from, to);
        change.marks = vec![mark(name, "p1"), mark(name, "p2")];
        change.actions = vec![action(name, "make")];
        change
    };
    let first = ["/a", "/b", "/c"].map(|name| with_mark(name, None, Some("v1:one")));
    assert_eq!(store.apply(first.to_vec()).await.unwrap(), []);
    assert_eq!(dirty(&store).await.len(), 6);
    for name in ["/a", "/b", "/c"] {
        store.flush(&path(name)).await.unwrap();
    }
    remove_all_actions(&store).await;

    let second = vec![
        with_mark("/a", Some("v1:one"), Some("v1:two")),
        with_mark("/b", Some("v1:other"), Some("v1:two")),
        with_mark("/c", Some("v1:one"), None),
        with_mark("/new", Some("v1:one"), Some("v1:two")),
        with_mark("/gone", Some("v1:one"), None),
        with_mark("/unknown", None, None),
        with_mark("/fresh", None, Some("v1:one")),
    ];
    let mut stale = store.apply(second).await.unwrap();
    stale.sort();
    assert_eq!(stale, ["/b", "/gone", "/new"].map(path));
    let third = vec![with_mark("/b", None, Some("v1:three")), with_mark("/fresh", None, None)];
    assert_eq!(store.apply(third).await.unwrap(), ["/b", "/fresh"].map(path));
    let rows = files(&store, vec![Scope::All]).await;
    assert_eq!(rows, [record("/a", "v1:two"), record("/b", "v1:one"), record("/fresh", "v1:one")]);
    let marked: Vec<_> = dirty(&store).await.into_iter().map(|entry| (entry.path.to_string(), entry.peer)).collect();
    let expected: Vec<_> = ["/a", "/c", "/fresh", "/unknown"]
        .iter()
        .flat_map(|name| ["p1", "p2"].map(|peer| ((*name).to_owned(), peer.into())))
        .collect();
    assert_eq!(marked, expected);
    let scheduled: Vec<_> = scheduled(&store).await.into_iter().map(|(_, path)| path).collect();
    assert_eq!(scheduled, ["/a", "/c", "/fresh", "/unknown"].map(path));
}

async fn clearing_never_forgets_a_later_marking(bench: &Bench) {
    let store = bench.open().await;
    store.mark(vec![mark("/a", "p1"), mark("/a", "p2"), mark("/b", "p1")], vec![]).await.unwrap();
    let read = dirty(&store).await;
    store.mark(vec![mark("/a", "p1")], vec![]).await.unwrap();
    assert_eq!(store.clear(&read).await.unwrap(), 2);
    let left = dirty(&store).await;
    assert_eq!(left.len(), 1);
    assert_eq!((&left[0].path, &*left[0].peer), (&path("/a"), "p1"));
    assert_ne!(left[0].version, read[0].version);
    // What is gone and comes again is another marking, though no row has been there in between.
    assert_eq!(store.clear(&left).await.unwrap(), 1);
    store.mark(vec![mark("/a", "p1")], vec![]).await.unwrap();
    assert_eq!(store.clear(&left).await.unwrap(), 0);
}

async fn marking_replaces_and_forcing_sets(bench: &Bench) {
    let store = bench.open().await;
    let forced = csync2::model::Mark { forced: true, my_name: "other".into(), ..mark("/a", "p1") };
    store.mark(vec![mark("/a", "p1"), forced.clone(), mark("/a", "p2")], vec![]).await.unwrap();
    let entries = dirty(&store).await;
    assert_eq!(entries.len(), 2);
    assert!(entries[0].forced && *entries[0].my_name == *"other", "the last one counts");
    assert_eq!(
        store.dirty_peers().await.unwrap(),
        [("me".into(), "p2".into()), ("other".into(), "p1".into())] as [(String, String); 2]
    );
    store.mark(vec![mark("/a", "p1")], vec![]).await.unwrap();
    assert!(!dirty(&store).await[0].forced, "reset by marking again");
    assert_eq!(store.force(&[Scope::File(path("/a"))]).await.unwrap(), 2);
    assert!(dirty(&store).await.iter().all(|entry| entry.forced));
}

async fn hints_and_actions_are_kept_once(bench: &Bench) {
    let store = bench.open().await;
    let hint = |name: &[u8], recursive| Hint { path: name.to_vec(), recursive };
    let hints = [hint(b"/z", false), hint(b"/gr\xfcn //x", true), hint(b"/z", true), hint(b"/z", false)];
    store.add_hints(&hints).await.unwrap();
    store.add_hints(&hints[..1]).await.unwrap();
    let expected = [hint(b"/gr\xfcn //x", true), hint(b"/z", false), hint(b"/z", true)];
    assert_eq!(store.hints().await.unwrap(), expected);
    let mut versions = store.hint_versions(&hints[0]).await.unwrap();
    versions.extend(store.hint_versions(&hints[1]).await.unwrap());
    assert_eq!(store.remove_hints(&versions).await.unwrap(), 2);
    assert_eq!(store.hints().await.unwrap(), expected[2..]);

    let actions = vec![action("/b", "b"), action("/c", "a %% \u{1}"), action(b"/gr\xfcn", "b"), action("/b", "b")];
    store.schedule(actions.clone()).await.unwrap();
    store.schedule(actions[..2].to_vec()).await.unwrap();
    // The C program runs the last command by name first.
    let pairs = |rows: &[usize]| -> Vec<_> {
        rows.iter().map(|&row| (actions[row].job().shown().into_owned(), actions[row].path.clone())).collect()
    };
    assert_eq!(scheduled(&store).await, pairs(&[0, 2, 1]));
    let rows = job_files(&store).await;
    assert_eq!(store.remove_actions(&[rows[0].1.version, rows[1].1.version]).await.unwrap(), 2);
    assert_eq!(scheduled(&store).await, pairs(&[1]));
}

/// Who gives a hint again while it is being followed, with whatever program, does not lose it.
async fn a_hint_that_is_given_again_is_another_row(bench: &Bench) {
    let store = bench.open().await;
    let hints = ["/a", "/b", "/c"].map(|name| Hint { path: name.into(), recursive: true });
    store.add_hints(&hints).await.unwrap();
    let mut read = Vec::new();
    for hint in &hints {
        read.extend(store.hint_versions(hint).await.unwrap());
    }
    store.add_hints(&hints[..1]).await.unwrap();
    // As the C program writes it.
    bench.sql("INSERT INTO hint (filename, recursive) VALUES ('/b', 1)");
    assert_eq!(store.remove_hints(&read).await.unwrap(), 1);
    assert_eq!(store.hints().await.unwrap(), hints[..2]);
}

/// One holder at a time, until it gives the claim back or its time is over.
async fn a_claim_has_one_holder_and_an_end(bench: &Bench) {
    let store = bench.open().await;
    let claim = async |holder: &str, now: i64| {
        let claim = Claim { subject: "peer".into(), holder: holder.into(), now, expires: now + 60 };
        store.claim(claim).await.unwrap()
    };
    assert_eq!(claim("one", 100).await, "one");
    assert_eq!(claim("another", 120).await, "one");
    assert_eq!(claim("one", 140).await, "one", "renewed");
    assert_eq!(claim("another", 190).await, "one");
    store.release("peer", "another").await.unwrap();
    assert_eq!(claim("another", 199).await, "one", "somebody else's is left alone");
    assert_eq!(claim("another", 201).await, "another", "it has run out");
    assert_eq!(claim("one", 202).await, "another");
    store.release("peer", "another").await.unwrap();
    assert_eq!(claim("one", 203).await, "one");
}

/// Who schedules a file again while its command runs, with whatever program, does not lose it.
async fn an_action_that_is_scheduled_again_is_another_row(bench: &Bench) {
    let store = bench.open().await;
    let names: [&[u8]; 4] = [b"/a", b"/b", b"/c", b"/gr\xfcn"];
    let all: Vec<_> = names.iter().map(|name| action(name, "run")).collect();
    store.schedule(all.clone()).await.unwrap();
    let read: Vec<_> = job_files(&store).await.into_iter().map(|(_, file)| file.version).collect();
    assert_eq!(read.len(), 4);
    store.schedule(vec![all[0].clone(), all[3].clone()]).await.unwrap();
    // As the C program writes it.
    bench.sql("INSERT INTO action (filename, command, logfile) VALUES ('/b', 'run', '/dev/null')");
    assert_eq!(job_files(&store).await.len(), 4, "a file counts once");
    assert_eq!(store.remove_actions(&read).await.unwrap(), 1);
    let left: Vec<_> = scheduled(&store).await.into_iter().map(|(_, path)| path).collect();
    assert_eq!(left, [path("/a"), path("/b"), path(b"/gr\xfcn")]);
    // Removed and scheduled once more, it has a version of its own again.
    remove_all_actions(&store).await;
    bench.sql("INSERT INTO action (filename, command, logfile) VALUES ('/a', 'run', '/dev/null')");
    assert_eq!(store.remove_actions(&read).await.unwrap(), 0);
    assert_eq!(remove_all_actions(&store).await, 1);
}

/// Tables of an earlier version of this program, with rows in them.
async fn tables_of_version_1_get_what_is_new(bench: &Bench) {
    let store = bench.open().await;
    store.schedule(vec![action("/a", "run"), action("/b", "run")]).await.unwrap();
    store.mark(vec![mark("/a", "peer")], vec![]).await.unwrap();
    store.close().await;
    bench.sql(if bench.cluster.is_some() {
        "ALTER TABLE action DROP COLUMN version; DROP SEQUENCE csync2_action_version; \
         ALTER TABLE hint DROP COLUMN version; DROP SEQUENCE csync2_hint_version; \
         DROP TRIGGER csync2_hint_row ON hint; DROP FUNCTION csync2_hint_row; \
         DROP TABLE csync2_notice; UPDATE csync2_schema SET version = 1;"
    } else {
        "DROP TRIGGER csync2_hint_again; DROP TRIGGER csync2_hint_version; ALTER TABLE hint DROP COLUMN version; \
         DROP INDEX csync2_action_by_version; DROP TRIGGER csync2_action_again; DROP TRIGGER csync2_action_version; \
         ALTER TABLE action DROP COLUMN version; DROP TABLE csync2_notice; UPDATE csync2_schema SET version = 1;"
    });
    let store = bench.open().await;
    let read = job_files(&store).await;
    assert_eq!((read.len(), dirty(&store).await.len()), (2, 1));
    store.schedule(vec![action("/b", "run")]).await.unwrap();
    let versions: Vec<_> = read.into_iter().map(|(_, file)| file.version).collect();
    assert_eq!(store.remove_actions(&versions).await.unwrap(), 1);
    assert_eq!(scheduled(&store).await, [("run".to_owned(), path("/b"))]);
}

async fn the_first_certificate_is_pinned(bench: &Bench) {
    let store = bench.open().await;
    assert_eq!(store.certificate("peer").await.unwrap(), None);
    assert_eq!(store.pin("peer", &[0xab; 900]).await.unwrap(), [0xab; 900]);
    assert_eq!(store.pin("peer", b"another").await.unwrap(), [0xab; 900]);
    assert_eq!(store.pin("also", b"der").await.unwrap(), b"der");
    assert_eq!(store.certificate("peer").await.unwrap(), Some(vec![0xab; 900]));
    let all = store.certificates().await.unwrap();
    assert_eq!(all.iter().map(|(peer, _)| peer.as_str()).collect::<Vec<_>>(), ["also", "peer"]);
    assert!(store.unpin("peer").await.unwrap() && !store.unpin("peer").await.unwrap());
    assert_eq!(store.pin("peer", b"another").await.unwrap(), b"another");
    assert_eq!(bench.sql("SELECT certdata FROM x509_cert WHERE peername = 'peer'"), "616E6F74686572");
}

async fn standing_facts_are_news_once(bench: &Bench) {
    let store = bench.open().await;
    let facts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let news = async |about: &str, texts: &[&str]| store.news(about, &facts(texts)).await.unwrap();
    assert_eq!(news("x", &[]).await, facts(&[]));
    assert_eq!(
        news("x", &["key is short", "schlüssel\u{1f511}"]).await,
        facts(&["key is short", "schlüssel\u{1f511}"])
    );
    assert_eq!(news("x", &["key is short", "schlüssel\u{1f511}"]).await, facts(&[]));
    assert_eq!(news("höst", &["key is short"]).await, facts(&["key is short"]), "another matter");
    assert_eq!(news("x", &["key is short", "third"]).await, facts(&["third"]));
    assert_eq!(news("x", &["schlüssel\u{1f511}"]).await, facts(&["schlüssel\u{1f511}"]), "it was mended meanwhile");
    assert_eq!(bench.open().await.news("höst", &facts(&["key is short"])).await.unwrap(), facts(&[]));
}

/// What is about to be received from "sender".
pub(crate) fn intent(name: &str, target: Option<&str>) -> Intent {
    Intent {
        path: path(name),
        peer: "sender".into(),
        temp_name: b".a.\xfc".to_vec(),
        target: target.map(checktxt),
        holder: "boot 1 2".into(),
    }
}

pub(crate) fn receipt(name: &str, text: Option<&str>) -> Receipt {
    Receipt {
        path: path(name),
        sender: "sender".into(),
        record: text.map(|text| FileRecord { digest: Some([1; 32]), ..record(name, text) }),
        actions: vec![action(name, "reload")],
    }
}

async fn receives_are_recorded_in_one_go(bench: &Bench) {
    let store = bench.open().await;
    let marks = ["/a", "/b", "/c"].map(|name| [mark(name, "sender"), mark(name, "third")]);
    store.mark(marks.concat(), vec![]).await.unwrap();
    apply_all(&store, &[path("/b")]).await;
    let intents = vec![intent("/b", None), intent("/a", Some("v1:new")), intent("/c", None)];
    let ids = store.begin_receives(intents.clone()).await.unwrap();
    let pairs: Vec<_> = ids.iter().copied().zip(intents).collect();
    assert_eq!(store.intents().await.unwrap(), pairs, "in their order");
    store.abandon_receives(vec![ids[2]]).await.unwrap();
    let receipts = vec![(Some(ids[0]), receipt("/b", None)), (Some(ids[1]), receipt("/a", Some("v1:new")))];
    store.finish_receives(receipts).await.unwrap();
    assert_eq!(store.intents().await.unwrap(), []);
    assert_eq!(store.file(&path("/a")).await.unwrap(), receipt("/a", Some("v1:new")).record);
    assert_eq!(store.file(&path("/b")).await.unwrap(), None);
    let marked: Vec<_> = dirty(&store).await.into_iter().map(|mark| (mark.path.to_string(), mark.peer)).collect();
    let left = [("/a", "third"), ("/b", "third"), ("/c", "sender"), ("/c", "third")];
    assert_eq!(marked, left.map(|(name, peer)| (name.to_owned(), peer.into())));
    assert_eq!(scheduled(&store).await, ["/a", "/b"].map(|name| ("reload".to_owned(), path(name))));
    // Without intents, and twice for one file: the later one counts.
    let receipts = vec![(None, receipt("/a", None)), (None, receipt("/a", Some("v1:newer")))];
    store.finish_receives(receipts).await.unwrap();
    assert_eq!(store.file(&path("/a")).await.unwrap().unwrap().checktxt, checktxt("v1:newer"));
    assert_eq!(scheduled(&store).await.len(), 2);
    let receipts = vec![(None, receipt("/a", Some("v1:newest"))), (None, receipt("/a", None))];
    store.finish_receives(receipts).await.unwrap();
    assert_eq!(store.file(&path("/a")).await.unwrap(), None);
}

async fn one_receive_ends_as_the_next_begins(bench: &Bench) {
    let store = bench.open().await;
    store.mark(vec![mark("/a", "sender"), mark("/b", "sender")], vec![]).await.unwrap();
    let first = store.begin_receives(vec![intent("/a", Some("v1:one"))]).await.unwrap();
    let receipts = vec![(Some(first[0]), receipt("/a", Some("v1:one")))];
    let second = store.next_receives(receipts, vec![intent("/b", Some("v1:two"))]).await.unwrap();
    assert_eq!(store.intents().await.unwrap(), [(second[0], intent("/b", Some("v1:two")))]);
    assert_eq!(names(&store, vec![Scope::All]).await, [path("/a")]);
    assert_eq!(dirty(&store).await.into_iter().map(|mark| mark.path).collect::<Vec<_>>(), [path("/b")]);
    assert_eq!(store.next_receives(vec![], vec![]).await.unwrap(), []);
}

async fn files_are_known_with_their_marks(bench: &Bench) {
    let store = bench.open().await;
    let name = path(b"/gr\xfcn");
    apply_all(&store, &[path("/a"), name.clone()]).await;
    store.mark(vec![mark("/a", "p2"), mark("/a", "p1"), mark("/a/x", "p1")], vec![]).await.unwrap();
    bench.sql("INSERT INTO dirty (filename, forced, myname, peername) VALUES ('/gr%FCn', 0, 'me', 'p3')");
    let known = store.known(vec![path("/none"), name.clone(), path("/a"), path("/a/x")]).await.unwrap();
    let shown: Vec<_> = known
        .iter()
        .map(|known| {
            let record = known.record.as_ref().map(|record| record.path.clone());
            (record, known.marks.iter().map(|mark| &*mark.peer).collect::<Vec<_>>())
        })
        .collect();
    let expected = [(None, vec![]), (Some(name), vec!["p3"]), (Some(path("/a")), vec!["p1", "p2"]), (None, vec!["p1"])];
    assert_eq!(shown, expected);
    assert_eq!(store.clear(&known[2].marks).await.unwrap(), 2, "with their versions");
    assert_eq!(store.known(vec![]).await.unwrap(), []);
}

async fn malformed_rows_are_left_out_and_removed(bench: &Bench) {
    let store = bench.open().await;
    apply_all(&store, &[path("/good")]).await;
    bench.sql("INSERT INTO file (filename, checktxt) VALUES ('/a//b', 'x'), ('relative', 'x'), ('/x/../y', 'x')");
    bench.sql("INSERT INTO dirty (filename, forced, myname, peername) VALUES ('/a//b', 0, 'a', 'b')");
    assert_eq!(names(&store, vec![Scope::All]).await, [path("/good")]);
    assert_eq!(dirty(&store).await, []);
    assert_eq!(store.remove_malformed().await.unwrap(), 4);
    assert_eq!(bench.sql("SELECT filename FROM file"), "/good");
}

async fn many_open_a_new_database_at_once(bench: &Bench) {
    let opening = (0..6).map(|number| {
        let (location, options) = (bench.location(), options());
        tokio::spawn(async move {
            let store = Store::open(&location, &options).await?;
            store.mark(vec![mark("/a", &format!("p{number}"))], vec![]).await?;
            Ok::<_, StoreError>(store)
        })
    });
    for opened in opening.collect::<Vec<_>>() {
        opened.await.unwrap().unwrap();
    }
    let entries = dirty(&bench.open().await).await;
    let versions: std::collections::HashSet<_> = entries.iter().map(|entry| entry.version.0).collect();
    assert_eq!((entries.len(), versions.len()), (6, 6));
}

pub(crate) fn session(peer: &str, end: End) -> Session {
    let figures = Figures { sent: 1, removed: 2, equal: 3, refused: 4, bytes: 5 };
    let (dialect, address) = (Some("batch 1".to_owned()), Some("10.0.0.1".to_owned()));
    Session { peer: peer.to_owned(), at: 100, milliseconds: 6, end, dialect, address, figures }
}

async fn what_waits_and_how_it_went_is_told(bench: &Bench) {
    let store = bench.open().await;
    assert_eq!(store.standing().await.unwrap(), Standing::default(), "nothing was ever recorded");
    let size = "v1:mtime=1:mode=33188:uid=0:gid=0:type=reg:size=";
    let mut changes = vec![
        change("/a b", None, Some(&format!("{size}1000"))),
        change("/d", None, Some("v1:type=dir")),
        change("/l", None, Some("v1:type=lnk:target=size%3D7")),
        change(b"/\xff", None, Some(&format!("{size}30"))),
    ];
    for change in &mut changes {
        change.marks = vec![mark(change.path.as_bytes(), "beta"), mark(change.path.as_bytes(), "gamma")];
    }
    store.apply(changes).await.unwrap();
    store.mark(vec![mark("/gone", "beta")], vec![action("/gone", "reload")]).await.unwrap();
    store.force(&[Scope::File(path("/d"))]).await.unwrap();
    store.add_hints(&[Hint { path: b"/x".to_vec(), recursive: false }]).await.unwrap();
    store.begin_receives(vec![intent("/r", None)]).await.unwrap();

    let told = store.standing().await.unwrap();
    let waiting: Vec<_> =
        told.pending.iter().map(|one| (one.peer.as_str(), one.files, one.forced, one.bytes)).collect();
    assert_eq!(waiting, [("beta", 5, 1, 1030), ("gamma", 4, 1, 1030)], "what is gone has no size");
    assert_eq!((told.hints, told.actions, told.intents.len()), (1, 1, 1));

    store.record_session(session("b é|'", End::Well)).await.unwrap();
    let failed =
        Session { at: 200, dialect: None, address: None, ..session("b é|'", End::Badly("no way: é".into())) };
    store.record_session(failed).await.unwrap();
    store.record_session(Session { at: 300, ..session("b é|'", End::Stopped) }).await.unwrap();
    let run = PastRun { mode: "x".into(), at: 100, milliseconds: 9, errors: 0, checked: 8, marked: 7 };
    store.record_run(run.clone()).await.unwrap();
    // Nothing to do: told once a minute.
    let idle = PastRun { at: 159, checked: 0, marked: 0, ..run.clone() };
    store.record_run(idle.clone()).await.unwrap();
    assert_eq!(store.standing().await.unwrap().runs, [run]);
    let idle = PastRun { at: 160, ..idle };
    store.record_run(idle.clone()).await.unwrap();
    let told = store.standing().await.unwrap();
    let Session { peer, milliseconds, dialect, address, figures, .. } = session("b é|'", End::Well);
    let (succeeded, failed, error) = (Some(100), Some(200), Some("no way: é".to_owned()));
    let past = Past { peer, ended: 300, succeeded, failed, error, dialect, address, milliseconds, figures };
    assert_eq!((told.past, told.runs), (vec![past], vec![idle]));
    // A program that does not know these tables opens the database as before.
    assert_eq!(bench.sql("SELECT version FROM csync2_schema"), "4");
}

async fn a_marking_has_an_age(bench: &Bench) {
    let store = bench.open().await;
    let since = async || {
        let standing = store.standing().await.unwrap();
        standing.pending.iter().map(|one| (one.peer.clone(), one.since)).collect::<Vec<_>>()
    };
    let told = |peer: &str, since| (peer.to_owned(), since);
    store.mark(vec![mark("/a", "beta")], Vec::new()).await.unwrap();
    assert_eq!(since().await, [told("beta", None)], "nobody has said when");
    store.record_marking(1_000).await.unwrap();
    store.mark(vec![mark("/b", "beta"), mark("/b", "gamma")], Vec::new()).await.unwrap();
    store.record_marking(1_010).await.unwrap();
    assert_eq!(since().await, [told("beta", Some(1_000)), told("gamma", Some(1_000))], "within the same minute");
    // What is marked again is younger, and so is what is left when the first has arrived.
    store.mark(vec![mark("/b", "gamma")], Vec::new()).await.unwrap();
    store.record_marking(2_000).await.unwrap();
    store.mark(vec![mark("/a", "beta")], Vec::new()).await.unwrap();
    assert_eq!(since().await, [told("beta", Some(1_000)), told("gamma", Some(2_000))]);
    // Of long ago one moment an hour is enough, and none of more than a year.
    let day = 86_400;
    for minute in 0..180 {
        store.record_marking(1_000 * day + minute * 60).await.unwrap();
    }
    for hour in 0..4 {
        store.record_marking(1_001 * day + hour * 3_600 + 1_800).await.unwrap();
    }
    let kept = bench.sql(&format!("SELECT count(*) FROM csync2_marking WHERE at < {}", 1_001 * day));
    assert_eq!(kept, "3");
}

async fn a_newer_schema_is_refused(bench: &Bench) {
    bench.open().await.close().await;
    bench.sql("UPDATE csync2_schema SET version = 99");
    for read_only in [false, true] {
        let options = csync2::store::StoreOptions { read_only, ..options() };
        let error = Store::open(&bench.location(), &options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NewerSchema);
        let message = error.to_string();
        assert!(message.starts_with("Can't open database: ") && message.contains("version 99"), "{message}");
    }
}

async fn a_stream_does_not_stop_its_reader_from_writing(bench: &Bench) {
    let store = bench.open().await;
    let all: Vec<_> = (0..6_000).map(|number| path(format!("/f{number:05}"))).collect();
    for chunk in all.chunks(2000) {
        apply_all(&store, chunk).await;
    }
    let mut chunks = store.files(vec![Scope::All]);
    let mut seen = Vec::new();
    while let Some(chunk) = chunks.recv().await {
        let changes = chunk.unwrap().into_iter().map(|row| {
            seen.push(row.path.clone());
            let mut change = change(row.path.as_bytes(), Some("v1:type=dir"), None);
            change.marks = vec![mark(row.path.as_bytes(), "peer")];
            change
        });
        assert_eq!(store.apply(changes.collect()).await.unwrap(), []);
    }
    assert_eq!(seen, all, "one snapshot, whatever is removed meanwhile");
    assert_eq!(names(&store, vec![Scope::All]).await, []);
    // A reader that loses interest leaves nothing behind that others would have to wait for.
    drop(store.files(vec![Scope::All]));
    assert_eq!(store.clear(&dirty(&store).await).await.unwrap(), 6_000);
}

async fn writers_do_not_lose_each_others_rows(bench: &Bench) {
    // Two handles with connections of their own: two processes.
    let stores = [bench.open().await, bench.open().await];
    let tasks = (0..8).map(|task: usize| {
        let store = stores[task % 2].clone();
        tokio::spawn(async move {
            for round in 0..10 {
                // Every task marks the same files, in another order.
                let mut marks: Vec<_> = (0..20).map(|number| mark(format!("/f{number}"), "peer")).collect();
                marks.rotate_left((task * 7 + round) % 20);
                let mut own = change(format!("/own{task}.{round}"), None, Some("v1:type=dir"));
                own.marks = marks;
                assert_eq!(store.apply(vec![own]).await.unwrap(), []);
                // What another has marked meanwhile stays, whoever waits for whom.
                let mut entries = dirty(&store).await;
                if task % 2 == 1 {
                    entries.reverse();
                }
                store.clear(&entries).await.unwrap();
                store.force(&[Scope::All]).await.unwrap();
                store.mark((0..20).map(|number| mark(format!("/f{number}"), "peer")).collect(), vec![]).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(names(&stores[0], vec![Scope::All]).await.len(), 80);
    assert_eq!(dirty(&stores[1]).await.len(), 20);
}

async fn rows_inserted_past_us_are_like_any_other(bench: &Bench) {
    let store = bench.open().await;
    let mut full = change("/a b", None, Some("v1:one"));
    full.record.as_mut().unwrap().digest = Some([1; 32]);
    full.record.as_mut().unwrap().mtime_ns = Some(1);
    store.apply(vec![full]).await.unwrap();
    store.mark(vec![mark("/a b", "peer")], vec![]).await.unwrap();
    let before = dirty(&store).await;
    // What the C program does with a changed file.
    bench.sql(
        "DELETE FROM file WHERE filename = '/a%20b'; \
         INSERT INTO file (filename, checktxt) VALUES ('/a%20b', 'v1%3Atwo'); \
         DELETE FROM dirty WHERE filename = '/a%20b' AND peername = 'peer'; \
         INSERT INTO dirty (filename, forced, myname, peername) VALUES ('/a%20b', 0, 'me', 'peer');",
    );
    assert_eq!(store.file(&path("/a b")).await.unwrap(), Some(record("/a b", "v1:two")), "nothing of ours is left");
    assert_eq!(store.clear(&before).await.unwrap(), 0, "marked again since");
    assert_eq!(names(&store, vec![Scope::Tree(path("/a b"))]).await, [path("/a b")]);
    let change = change("/a b", Some("v1:two"), None);
    assert_eq!(store.apply(vec![change]).await.unwrap(), []);
    assert_eq!(store.clear(&dirty(&store).await).await.unwrap(), 1);
}

async fn both_spellings_are_one_file(bench: &Bench) {
    let store = bench.open().await;
    bench.sql("INSERT INTO file (filename, checktxt) VALUES ('/gr%FCn', 'v1%3Aone'), ('/two%E9', 'v1%3Aone')");
    bench.sql("INSERT INTO dirty (filename, forced, myname, peername) VALUES ('/gr%FCn', 0, 'me', 'peer')");
    let name = path(b"/gr\xfcn");
    assert_eq!(store.file(&name).await.unwrap(), Some(record(name.as_bytes(), "v1:one")));
    assert_eq!(names(&store, vec![Scope::Tree(name.clone())]).await, std::slice::from_ref(&name));
    let replace = change(name.as_bytes(), Some("v1:one"), Some("v1:two"));
    assert_eq!(store.apply(vec![replace]).await.unwrap(), []);
    assert_eq!(store.file(&name).await.unwrap(), Some(record(name.as_bytes(), "v1:two")));
    let before = dirty(&store).await;
    store.mark(vec![mark(name.as_bytes(), "peer")], vec![]).await.unwrap();
    assert_eq!((before.len(), store.clear(&before).await.unwrap()), (1, 0));
    assert_eq!(store.clear(&dirty(&store).await).await.unwrap(), 1);
    assert_eq!(store.remove_files(&[name, path(b"/two\xe9")]).await.unwrap(), 2);
    assert_eq!(bench.sql("SELECT count(*) FROM file"), "0");
}

async fn a_big_tree_is_written_and_read(bench: &Bench) {
    let store = bench.open().await;
    let all: Vec<_> =
        (0..10_000).map(|number| path(format!("/usr/share/doc/package{}/file{number}", number / 50))).collect();
    let mut sorted = all.clone();
    sorted.sort();
    let started = Instant::now();
    for chunk in all.chunks(5000) {
        let changes = chunk.iter().map(|name| {
            let mut change =
                change(name.as_bytes(), None, Some("v1:mtime=1600000000:mode=33188:uid=0:gid=0:type=reg:size=1"));
            change.marks = vec![mark(name.as_bytes(), "2.csync2.test")];
            change
        });
        assert_eq!(store.apply(changes.collect()).await.unwrap(), []);
    }
    let written = Instant::now();
    assert_eq!(names(&store, vec![Scope::All]).await, sorted);
    println!("10,000 rows and marks written in {:?}, read in {:?}", written - started, written.elapsed());
}
