//! The configuration as a whole: what it means, what is refused and how, and whether the C program agrees.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::{Config as RunnerConfig, RngSeed, TestRunner};

use super::reference::{self, KEY, Scratch};
use super::*;

const GROUP: &str = "group g { host h p; key k; include /x; }\n";

fn load_as(scratch: &Scratch, my_name: &str, groups: Option<&[&str]>) -> Result<Config, ConfigError> {
    let source = Source { system_dir: scratch.root(), config_name: String::new() };
    let groups = groups.map(|names| names.iter().map(|&name| name.to_owned()).collect());
    Config::load(&source, &Selection { my_name: my_name.to_owned(), groups })
}

fn load(text: &[u8]) -> Result<Config, ConfigError> {
    let scratch = Scratch::new();
    scratch.write("csync2.cfg", text);
    load_as(&scratch, "h", None)
}

fn loaded(text: &str) -> Config {
    load(text.as_bytes()).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn without_anything_else_the_defaults_hold() {
    let config = loaded(GROUP);
    assert_eq!(config.lock_timeout, Duration::from_secs(12));
    assert_eq!((config.max_parallel_peers, config.max_sessions, config.max_removals), (16, 64, None));
    assert_eq!(config.action_timeout, None);
    assert_eq!((config.batches, config.durable, config.compression), (true, true, false));
    let timeouts = [config.connect_timeout, config.handshake_timeout, config.idle_timeout];
    assert_eq!(timeouts.map(|timeout| timeout.as_secs()), [10, 30, 300]);
    assert_eq!((config.database, config.tempdir, config.ignore), (None, None, Ignore::default()));
    assert_eq!(config.warnings, []);
    let [group] = config.groups.as_slice() else { panic!("one group") };
    assert_eq!((group.name.as_str(), group.auto, &group.backup), ("g", AutoMethod::None, &None));
    assert_eq!((group.my_name.as_str(), group.i_am_slave, &*group.key), ("h", false, KEY));
}

#[test]
fn statements_mean_what_the_manual_says() {
    let config = loaded(
        "database pgsql://localhost/a; database b; tempdir /t; lock-timeout 60x; ignore uid mod;
        group { host a@i1 (b) H@Me (c@I2); key k; auto younger; backup-directory /b; }
        parallel-peers 3; max-sessions 9; max-sessions-per-peer 4; max-strangers 5; max-file-size 3G; max-removals 50%; auto-name yes; action-timeout 60; batches no;
        durability none; compression yes; legacy-tls no; tls-certificate tls/cert; tls-key /k/key; tls-ca ca;
        connect-timeout 1; handshake-timeout 2; idle-timeout 3;
        group last { host (h) p; key k; backup-directory /b; backup-generations 7; action { exec A; } action { exec B; } }",
    );
    assert_eq!(config.database.as_deref(), Some("pgsql://localhost/a"));
    assert_eq!((config.tempdir, config.lock_timeout), (Some("/t".into()), Duration::from_mins(1)));
    assert_eq!(config.ignore, Ignore { uid: true, gid: false, mode: true });
    assert_eq!((config.max_parallel_peers, config.max_sessions), (3, 9));
    assert_eq!((config.max_sessions_per_peer, config.max_strangers), (4, 5));
    assert_eq!(config.max_file_size, Some(3 << 30));
    assert_eq!((config.max_removals, config.auto_name), (Some(MaxRemovals::Percent(50)), true));
    assert_eq!(config.action_timeout, Some(Duration::from_secs(60)));
    assert_eq!((config.batches, config.durable, config.compression), (false, false, true));
    let Tls { certificate, key, authority, legacy } = config.tls;
    assert!(certificate.ends_with("tls/cert") && certificate.is_absolute(), "in the system directory");
    assert_eq!((key, legacy), ("/k/key".into(), false));
    assert!(authority.is_some_and(|authority| authority.ends_with("ca")));
    let [last, first] = config.groups.as_slice() else { panic!("two groups") };
    assert_eq!((first.name.as_str(), first.my_name.as_str(), first.i_am_slave), ("group_1", "me", false));
    assert_eq!((last.name.as_str(), last.my_name.as_str(), last.i_am_slave), ("last", "h", true));
    let host = |name: &str, slave, side| Host { name: name.to_owned(), slave, side };
    assert_eq!(
        first.hosts,
        [host("i1", false, Side::Left), host("b", true, Side::Left), host("i2", true, Side::Right)]
    );
    assert_eq!(first.backup, Some(Backup { directory: "/b".into(), generations: 3 }));
    assert_eq!(last.backup, Some(Backup { directory: "/b".into(), generations: 7 }));
    let commands: Vec<_> = last.actions.iter().map(|action| action.commands[0].as_slice()).collect();
    assert_eq!(commands, [b"B", b"A"]);
    assert_eq!(config.all_host_names, ["a", "b", "h", "c", "p"]);
    assert!(
        matches!(config.warnings.as_slice(), [only] if only.to_string().contains(":1: `60x`")),
        "{:?}",
        config.warnings
    );
}

#[test]
fn only_groups_of_this_host_that_were_selected_remain() {
    let scratch = Scratch::new();
    scratch.write("csync2.cfg", "group { host h; key k; } group a { host h; key k; } group b { host x; key k; }");
    let names = |my_name, groups: Option<&[&str]>| -> Vec<String> {
        load_as(&scratch, my_name, groups).unwrap().groups.into_iter().map(|group| group.name).collect()
    };
    assert_eq!(names("h", None), ["a", "group_1"]);
    assert_eq!(names("h", Some(&["group_1", "b", "none"])), ["group_1"]);
    assert_eq!(names("y", None), [""; 0]);
    let all = load_as(&scratch, "h", None).unwrap();
    assert_eq!(all.select_groups(&["a".into()]), load_as(&scratch, "h", Some(&["a"])).unwrap());
}

#[test]
fn a_name_and_its_place_on_disk() {
    let config = loaded(
        "prefix a { on x: /no; on h: /srv//data/; on *: /no; } prefix b { on *: /srv/./x/../data/deep; }
        prefix a { on x: /no; } prefix none { on H: /no; } prefix root { on *: /; }",
    );
    let local = |name: &str| config.local(&SyncPath::parse(name.as_bytes()).unwrap());
    for (name, place) in [
        ("/", "/"),
        ("/etc/motd", "/etc/motd"),
        ("%a%", "/srv/data"),
        ("%a%/f", "/srv/data/f"),
        ("%b%/f", "/srv/data/deep/f"),
        ("%root%/f", "/f"),
    ] {
        assert_eq!(local(name).unwrap().absolute(), Path::new(place), "{name}");
    }
    for name in ["%none%/x", "%other%"] {
        let error = local(name).unwrap_err().to_string();
        assert!(error.ends_with("is not defined for host 'h'."), "{error}");
    }
    let names =
        |real: &str| -> Vec<String> { config.names_of(real.as_bytes()).iter().map(ToString::to_string).collect() };
    assert_eq!(names("/srv/data/deep/f"), ["%root%/srv/data/deep/f", "%b%/f", "%a%/deep/f", "/srv/data/deep/f"]);
    assert_eq!(names("/srv/data"), ["%root%/srv/data", "%a%", "/srv/data"]);
    assert_eq!(names("/srv/database"), ["%root%/srv/database", "/srv/database"]);
    assert_eq!(names("/"), ["%root%", "/"]);
}

#[test]
fn plain_sessions_are_for_the_pairs_that_nossl_names() {
    let config = loaded("nossl h? p*; nossl * Q;");
    for (mine, peer, expected) in [("h1", "p", true), ("h", "p", false), ("x", "Q", true), ("x", "q", false)] {
        assert_eq!(config.plain_allowed(mine, peer), expected, "{mine} {peer}");
    }
}

#[test]
fn what_was_hardly_meant_gets_a_warning() {
    let scratch = Scratch::new();
    scratch.write("open", KEY);
    fs::set_permissions(scratch.path("open"), fs::Permissions::from_mode(0o644)).unwrap();
    scratch
        .write("csync2.cfg", "group {\n host h, p;\n host (p);\n key open;\n compare /a /b;\n backup-generations x; }");
    let warnings = load_as(&scratch, "h", None).unwrap().warnings;
    let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    for (line, word) in [(2, "comma"), (3, "twice"), (4, "every user"), (5, "`/b`"), (6, "taken as 0")] {
        let place = format!("csync2.cfg:{line}: ");
        assert!(warnings.iter().any(|text| text.contains(&place) && text.contains(word)), "{word}: {warnings:?}");
    }
    assert_eq!(warnings.len(), 5);
}

#[test]
fn bytes_that_are_no_text_are_kept() {
    let config =
        load(b"group \xff { host h p\xfe; key k; include /\xff; action { exec \xfd; } } prefix \xfa { on *: /\xfb; }");
    let config = config.unwrap();
    assert_eq!(config.groups[0].rules[0].pattern.as_bytes(), b"/\xff");
    assert_eq!(config.groups[0].actions[0].commands, [b"\xfd"]);
    assert_eq!(config.names_of(b"/\xfb/x")[0].as_bytes(), b"%\xfa%/x");
}

#[test]
fn every_file_that_was_read_is_known() {
    let scratch = Scratch::new();
    let more = scratch.path("more");
    scratch.write("more", "include /a;");
    let text = format!("group {{ host h p; config {more}; key k; }} group {{ host h; key k; }}", more = more.display());
    scratch.write("csync2.cfg", text);
    let config = load_as(&scratch, "h", None).unwrap();
    assert_eq!(config.files, [scratch.path("csync2.cfg"), more, scratch.path("k")]);
    assert_eq!(config.groups.iter().map(|group| group.rules.len()).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn a_missing_file_is_named() {
    let source = Source { system_dir: "/nonexistent".into(), config_name: "abc".into() };
    let error = Config::load(&source, &Selection::default()).unwrap_err();
    let expected = "Can not open config file `/nonexistent/csync2_abc.cfg': No such file or directory";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn the_first_line_of_an_error_is_the_one_that_scripts_know() {
    for (text, message) in [
        ("group { host h p; }", "Config error: every group must have a key."),
        ("group { host x; }", "Config error: every group must have a key."),
        ("group { key k; key k; }", "Config error: a group might only have one key."),
        ("group { key k; auto none; auto none; }", "Config error: a group might only have one auto-setting."),
        ("ignore uid, gid;", "Config error: Unknown 'ignore' porperty: 'uid,'."),
        ("prefix p { on other: tmp; }", "Config error: Prefix 'tmp' is not an absolute path."),
        ("no-cygwin-lowercase;", "Config error: Found 'nocygwinlowercase' but this is not a cygwin csync2."),
        ("group { key nope; }", "Config error: Can't read keyfile ROOT/nope."),
        ("group { host x; key db; }", "Config error: Can't read keyfile ROOT/db."),
        ("group { key empty; }", "Config error: Can't read keyfile ROOT/empty."),
        ("group { key short; }", "Config error: Key in file ROOT/short is too short."),
        ("group { key sh-rt; }", "Unallowed character '-' in key file ROOT/sh-rt."),
        ("config none;", "Can't open included config file 'none'."),
        (
            "group { key k; auto NONE; }",
            "Config error: Unknown auto-setting 'NONE' (use 'none', 'younger', 'older', 'bigger', 'smaller', 'left' or \
             'right').",
        ),
    ] {
        let scratch = Scratch::new();
        scratch.write("csync2.cfg", text);
        scratch.write("empty", "");
        scratch.write("short", format!("{}\n{KEY}", &KEY[..31]));
        scratch.write("sh-rt", "sh-rt\n");
        let message = message.replace("ROOT", scratch.root().to_str().unwrap());
        let error = load_as(&scratch, "h", None).unwrap_err();
        assert_eq!(error.message(), message);
        assert!(error.location().is_some() && error.to_string().contains("--> "), "{error}");
        let answer = reference::run(&scratch, "h", &[b"-L"]);
        assert_eq!((first_line(&answer.stderr).as_str(), answer.status), (message.as_str(), 1), "{text}");
    }
    for text in [
        "max-removals 101%;",
        "max-removals x;",
        "action-timeout 0;",
        "parallel-peers 0;",
        "idle-timeout -1;",
        "max-sessions 3.5;",
        "max-sessions-per-peer 0;",
        "max-strangers many;",
        "max-file-size 0;",
        "max-file-size G;",
        "max-file-size 1g;",
        "max-file-size 99999999999T;",
        "batches maybe;",
        "durability some;",
        "compression best;",
    ] {
        let error = load(text.as_bytes()).unwrap_err();
        assert!(error.message().starts_with("Config error: '") && error.location().is_some(), "{error}");
    }
}

#[test]
fn a_key_is_what_the_c_program_reads_of_the_first_line() {
    let scratch = Scratch::new();
    scratch.write("csync2.cfg", GROUP);
    for (file, key) in [
        (format!("{KEY}\nsecond-line"), Some(KEY.to_owned())),
        (KEY.to_owned(), Some(KEY.to_owned())),
        (format!("{KEY}\0-"), Some(KEY.to_owned())),
        (format!("{KEY}\r\n"), None),
        (format!("{KEY} "), None),
        (format!("\n{KEY}"), None),
        ("x".repeat(2000) + "-", Some("x".repeat(1023))),
        ("x".repeat(1022) + "-", None),
    ] {
        scratch.write("k", &file);
        let ours = load_as(&scratch, "h", None).ok().map(|mut config| config.groups.remove(0).key.to_string());
        assert_eq!(ours, key, "{file:?}");
        assert_eq!(reference::run(&scratch, "h", &[b"-L"]).status == 2, key.is_some(), "{file:?}");
    }
}

fn first_line(text: &[u8]) -> String {
    String::from_utf8_lossy(text).lines().find(|line| !line.is_empty()).unwrap_or_default().to_owned()
}

/// The files are under licences of their own, and so are no part of the repository.
#[test]
#[ignore = "reads the directory that CSYNC2_FIELD_CONFIGS names"]
fn configurations_found_in_the_field_get_their_verdict() {
    let directory = std::env::var_os("CSYNC2_FIELD_CONFIGS").expect("CSYNC2_FIELD_CONFIGS names a directory");
    let entries = fs::read_dir(directory).expect("list the directory");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let expectation = text.lines().nth(1).and_then(|line| line.strip_prefix("# expect: ")).unwrap().to_owned();
        let scratch = Scratch::new();
        scratch.write("csync2.cfg", into_scratch(&text, &scratch));
        let ours = load_as(&scratch, "none", None);
        let name = file.display();
        match &ours {
            Ok(config) => {
                assert!(expectation.starts_with("ok") || expectation.starts_with("parses"), "{name}: {expectation}");
                assert_eq!(config.warnings.is_empty(), !expectation.contains("deserves a warning"), "{name}");
                let member = load_as(&scratch, &config.all_host_names[0], None).unwrap();
                assert!(!member.groups.is_empty(), "{name}");
            }
            Err(error) => {
                assert!(expectation.starts_with("error"), "{name}: {expectation}\n{error}");
                if let Some(line) = expectation.strip_prefix("error at line ") {
                    let digits = line.split(|character: char| !character.is_ascii_digit()).next().unwrap();
                    assert_eq!(error.location().unwrap().1.to_string(), digits, "{name}: {error}");
                }
            }
        }
        let my_name = ours.as_ref().ok().map_or("h", |config| config.all_host_names[0].as_str());
        let theirs = reference::run(&scratch, my_name, &[b"-L"]);
        let message = ours.as_ref().err().map_or("", ConfigError::message);
        assert_eq!(first_line(&theirs.stderr), message, "{name}");
        assert_eq!(theirs.status, if ours.is_ok() { 2 } else { 1 }, "{name}");
    }
}

/// Lets key files and included files lie in the scratch directory, and puts them there.
fn into_scratch(text: &str, scratch: &Scratch) -> String {
    let mut rewritten = String::new();
    for line in text.split_inclusive('\n') {
        let mut words = line.trim_start().split([' ', '\t', ';']).filter(|word| !word.is_empty());
        match (words.next(), words.next()) {
            (Some(statement @ ("key" | "config")), Some(name)) => {
                let local = name.trim_start_matches('/');
                let inside_group = local.ends_with("local.cfg");
                let content = match statement {
                    "key" => KEY,
                    _ if inside_group => "include /etc/hosts;\n",
                    _ => "nossl * *;\n",
                };
                scratch.write(local, content);
                let path = scratch.path(local);
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
                rewritten += &line.replacen(name, path.to_str().unwrap(), 1);
            }
            _ => rewritten += line,
        }
    }
    rewritten
}

/// A sound configuration, some tokens of which are lost, doubled or replaced, some blanks left out.
fn damaged_configuration() -> impl Strategy<Value = String> {
    const SOUND: &str =
        "nossl * \"a b\" ; database x ; config inc ; prefix p { on h* : /tmp ; on : : /x ; } ignore uid ;
        group g { host h p @ q ( r s@t ) ; key k ; include /a *.c a:b ; exclude x ; compare %p%/y ; auto left ; action {
        pattern /a/* ; exec \"a b\" c ; logfile l ; do-local ; } config ginc ; backup-generations 2 ; } lock-timeout 5 ;
        # comment \n tempdir /t ; group { key k ; host h p ; backup-directory /b ; } nossl \"a\nb\" c ;";
    const ODD: [&str; 34] = [
        "{",
        "}",
        "(",
        ")",
        ";",
        ":",
        "@",
        "\"",
        "\"\"",
        "#",
        "\n",
        "config",
        "inc",
        "config inc ;",
        "x",
        "/a",
        "key",
        "key k ;",
        "on",
        "group",
        "action",
        "host",
        "a:",
        ":b",
        "c{",
        "}}",
        "\u{b}",
        "\r\n",
        "\0",
        "none",
        "\\",
        "auto",
        "config deep ;",
        "no-cygwin-lowercase ;",
    ];
    let tokens: Vec<&str> = SOUND.split([' ', '\t']).filter(|token| !token.is_empty()).collect();
    let damage = (0..tokens.len(), 0..4, prop::sample::select(&ODD[..]), any::<bool>());
    prop::collection::vec(damage, 0..3).prop_map(move |damages| {
        let mut tokens: Vec<(&str, bool)> = tokens.iter().map(|&token| (token, true)).collect();
        for (index, kind, odd, blank) in damages {
            let index = index.min(tokens.len() - 1);
            match kind {
                0 => drop(tokens.remove(index)),
                1 => tokens.insert(index, (odd, blank)),
                2 => tokens[index] = (odd, blank),
                _ => tokens[index].1 = false,
            }
        }
        tokens.into_iter().flat_map(|(token, blank)| [token, if blank { " " } else { "" }]).collect()
    })
}

#[test]
fn damaged_configurations_get_the_verdict_of_the_c_program() {
    let scratch = Scratch::new();
    scratch.write("inc", "nossl a b;\n# x\n");
    scratch.write("ginc", "\ninclude a");
    scratch.write("deep", "config inc; config inc");
    let config =
        RunnerConfig { cases: 100, rng_seed: RngSeed::Fixed(3), failure_persistence: None, ..RunnerConfig::default() };
    let result = TestRunner::new(config).run(&damaged_configuration(), |text| {
        scratch.write("csync2.cfg", &text);
        let selection = Selection { my_name: "h".into(), groups: None };
        let mut include = |file: &Path| fs::read(scratch.root().join(file));
        let ours = parse(text.as_bytes(), &scratch.path("csync2.cfg"), &mut include)
            .and_then(|document| resolve::resolve(&Arc::new(document), &selection, &scratch.root(), Keys::Needed));
        let theirs = reference::run(&scratch, "h", &[b"-L"]);
        let message = match first_line(&theirs.stderr) {
            message if message.starts_with("This host (h) is not a member") => String::new(),
            message => message,
        };
        match ours {
            Ok(_) => prop_assert_eq!(message, ""),
            // What flex says of an included directory.
            Err(_) if message == "input in flex scanner failed" => {}
            // The C program looks at the meaning while it parses, and may find fault with that earlier.
            Err(error) if error.message().starts_with("Near line") && !message.starts_with("Near line") => {
                prop_assert_ne!(message, "", "{}", error);
            }
            Err(error) => prop_assert_eq!(error.message(), message, "{}", error),
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{}", error.to_string()));
}
