//! The C program and ours take turns on one database.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::process::{Command, Output};

use csync2::model::{Checktxt, Scope, SyncPath};
use csync2::store::Hint;

use crate::bench::{Bench, action, change, dirty, files, mark, names, path};

const C_PROGRAM: &str = "/usr/sbin/csync2";

/// A node of the C program: a configuration, a tree, and the database of the bench.
struct Node<'b> {
    bench: &'b Bench,
    system_directory: PathBuf,
    tree: PathBuf,
}

impl<'b> Node<'b> {
    fn new(bench: &'b Bench) -> Self {
        let system_directory = bench.directory.path().join("etc");
        let tree = bench.directory.path().join("tree");
        fs::create_dir_all(&system_directory).unwrap();
        fs::create_dir_all(&tree).unwrap();
        fs::write(system_directory.join("demo.key"), "0123456789abcdef0123456789abcdef").unwrap();
        let node = Self { bench, system_directory, tree };
        node.configure("include %data%; action { exec \"true\"; do-local; }");
        node
    }

    fn configure(&self, rules: &str) {
        let configuration = format!(
            "group demo {{ host 1.csync2.test 2.csync2.test; key demo.key; {rules} }}\n\
             prefix data {{ on 1.csync2.test: {}; }}\n",
            self.tree.display()
        );
        fs::write(self.system_directory.join("csync2.cfg"), configuration).unwrap();
    }

    fn put(&self, name: &[u8], content: &str) {
        fs::write(self.tree.join(OsStr::from_bytes(name)), content).unwrap();
    }

    /// Runs the C program on the database; it must not complain.
    fn run(&self, arguments: &[&str]) -> Vec<u8> {
        // A scheme that it knows, too.
        let output = self.try_run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        let complains = ["rror in", "ERROR", "Database", "fatal"].iter().any(|word| errors.contains(word));
        assert!(!complains, "{arguments:?}: {errors}");
        output.stdout
    }

    fn try_run(&self, arguments: &[&str]) -> Output {
        Command::new(C_PROGRAM)
            .env("CSYNC2_SYSTEM_DIR", &self.system_directory)
            .args(["-D", &self.bench.url, "-N", "1.csync2.test"])
            .args(arguments)
            .output()
            .expect("the C program is installed")
    }

    /// Its list of known files: names as bytes, and their checktxt.
    fn known(&self) -> Vec<(OsString, String)> {
        let listed = self.run(&["-L"]);
        let lines = listed.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let mut known: Vec<_> = lines
            .map(|line| {
                let tab = line.iter().position(|&byte| byte == b'\t').expect("a tab");
                (OsString::from_vec(line[tab + 1..].to_vec()), String::from_utf8_lossy(&line[..tab]).into_owned())
            })
            .collect();
        known.sort();
        known
    }

    /// Its list of dirty files.
    fn marked(&self) -> Vec<OsString> {
        let listed = self.run(&["-M"]);
        let lines = listed.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let mut marked: Vec<_> =
            lines.map(|line| OsString::from_vec(line.rsplit(|&byte| byte == b'\t').next().unwrap().to_vec())).collect();
        marked.sort();
        marked
    }

    fn check(&self) {
        let tree = self.tree.to_str().unwrap();
        self.run(&["-cr", tree]);
    }
}

fn os(names: &[SyncPath]) -> Vec<OsString> {
    let mut names: Vec<_> = names.iter().map(|name| OsString::from_vec(name.as_bytes().to_vec())).collect();
    names.sort();
    names
}

/// `odd`: names that the database of the C program can hold.
async fn turns(bench: &Bench, odd: &[&[u8]]) {
    let node = Node::new(bench);
    node.put(b"a b", "one");
    node.put(b"plain", "one");
    for name in odd {
        node.put(name, "one");
    }
    node.check();

    // Ours opens what it made, and sees the same.
    let store = bench.open().await;
    let known = names(&store, vec![Scope::All]).await;
    assert_eq!(known.len(), 3 + odd.len());
    assert!(known.windows(2).all(|pair| pair[0] < pair[1]), "{known:?}");
    let listed = node.known();
    assert_eq!(os(&known), listed.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
    for (name, text) in &listed {
        let record = store.file(&path(name.as_bytes())).await.unwrap().unwrap();
        assert_eq!(record.checktxt, Checktxt::from_text(text.as_bytes()));
        assert_eq!((record.mtime_ns, record.ctime_ns, record.device, record.digest), (None, None, None, None));
    }
    let first = dirty(&store).await;
    assert_eq!(os(&first.iter().map(|entry| entry.path.clone()).collect::<Vec<_>>()), node.marked());
    assert!(first.iter().all(|entry| &*entry.my_name == "1.csync2.test" && &*entry.peer == "2.csync2.test"));

    // Ours writes; the C program finds every row by its own spelling.
    for record in files(&store, vec![Scope::All]).await {
        let mut ours = change(record.path.as_bytes(), None, None);
        ours.expected = Some(record.checktxt.clone());
        ours.record = Some(csync2::model::FileRecord { mtime_ns: Some(5), digest: Some([9; 32]), ..record });
        assert_eq!(store.apply(vec![ours]).await.unwrap(), []);
    }
    assert_eq!(store.clear(&first).await.unwrap(), first.len() as u64);
    node.check();
    assert_eq!(node.marked(), [] as [OsString; 0], "nothing is new to the C program");
    assert_eq!(node.known(), listed);

    // It finds changes, and marks them although we have marked them as well.
    let marks: Vec<_> = known.iter().map(|name| mark(name.as_bytes(), "2.csync2.test")).collect();
    store.mark(marks, vec![action("%data%/plain", "true")]).await.unwrap();
    let ours = dirty(&store).await;
    let mut changed: Vec<Vec<u8>> = vec![b"plain".to_vec()];
    changed.extend(odd.iter().map(|name| name.to_vec()));
    for name in &changed {
        node.put(name, "another length");
    }
    fs::remove_file(node.tree.join("a b")).unwrap();
    node.check();
    assert_eq!(store.clear(&ours).await.unwrap(), 1, "only the directory was not marked again");
    let marked_again = dirty(&store).await.len();
    assert_eq!(marked_again, changed.len() + 1);
    assert_eq!(store.file(&path("%data%/a b")).await.unwrap(), None);
    for name in &changed {
        let row = store.file(&path([b"%data%/", &name[..]].concat())).await.unwrap().unwrap();
        assert!(row.checktxt.to_string().ends_with("size=14"), "{row:?}");
        assert_eq!((row.mtime_ns, row.digest), (None, None), "ours described another state");
    }
    assert_eq!(bench.sql("SELECT count(*) FROM dirty"), marked_again.to_string(), "no row twice");

    // Hints and forcing.
    node.run(&["-h", node.tree.to_str().unwrap()]);
    let hint = Hint { path: node.tree.as_os_str().as_bytes().to_vec(), recursive: false };
    assert_eq!(store.hints().await.unwrap(), std::slice::from_ref(&hint));
    node.run(&["-c"]);
    assert_eq!(store.hints().await.unwrap(), []);
    store.add_hints(&[hint]).await.unwrap();
    assert!(String::from_utf8_lossy(&node.run(&["-H"])).contains(node.tree.to_str().unwrap()));
    node.run(&["-fr", "/"]);
    assert!(dirty(&store).await.iter().all(|entry| entry.forced));

    // It removes every row, also those we wrote last.
    let rows = files(&store, vec![Scope::All]).await;
    let marks: Vec<_> = rows.iter().map(|row| mark(row.path.as_bytes(), "2.csync2.test")).collect();
    store.remove_files(&rows.iter().map(|row| row.path.clone()).collect::<Vec<_>>()).await.unwrap();
    for row in rows {
        let mut ours = change(row.path.as_bytes(), None, None);
        ours.record = Some(row);
        store.apply(vec![ours]).await.unwrap();
    }
    store.mark(marks, vec![]).await.unwrap();
    node.configure("include /nowhere;");
    node.run(&["-R"]);
    assert_eq!(names(&store, vec![Scope::All]).await, []);
    assert_eq!(dirty(&store).await, []);
}

const UTF8: &[u8] = "grün'$é".as_bytes();
const NOT_UTF8: &[u8] = b"gr\xfcn |\x01";

#[tokio::test(flavor = "multi_thread")]
async fn turns_on_sqlite() {
    turns(&Bench::sqlite(), &[UTF8, NOT_UTF8]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_on_postgres() {
    // The C program makes the database.
    turns(&Bench::postgres(None), &[UTF8]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_on_postgres_sql_ascii() {
    turns(&Bench::postgres(Some("TEMPLATE template0 ENCODING 'SQL_ASCII'")), &[UTF8, NOT_UTF8]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_on_postgres_latin1() {
    turns(&Bench::postgres(Some("TEMPLATE template0 ENCODING 'LATIN1'")), &[UTF8, NOT_UTF8]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_on_postgres_icu() {
    let options = "TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'en-US'";
    turns(&Bench::postgres(Some(options)), &[UTF8]).await;
}

/// The C program takes a repeated action for an error in the database; here it is one no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_action_does_not_stop_the_c_program() {
    let bench = Bench::postgres(None);
    let node = Node::new(&bench);
    node.put(b"plain", "one");
    let store = bench.open().await;
    store.schedule(vec![action("%data%/plain", "true"), action("%data%", "true")]).await.unwrap();
    node.check();
    assert_eq!(node.marked().len(), 2);
    assert_eq!(store.jobs().await.unwrap(), [], "it ran them all");
}
