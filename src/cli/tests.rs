//! Command lines and what they mean; the last tests ask the C program whether it agrees.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;
use crate::logging::{DebugFile, LogOptions, ProcessKind};

fn environment(system_dir: &Path) -> Environment {
    Environment {
        system_dir: system_dir.to_owned(),
        host_name: "node.test".to_owned(),
        posixly_correct: false,
        journal_stream: None,
    }
}

fn parse_line(line: &[&str]) -> Parsed {
    let arguments = [&["csync2"], line].concat();
    parse(arguments.into_iter().map(OsString::from), &environment(Path::new("/nonexistent")))
}

fn run(line: &[&str]) -> Invocation {
    match parse_line(line) {
        Parsed::Run(invocation) => *invocation,
        other => panic!("{line:?}: {other:?}"),
    }
}

fn mode(line: &str) -> Mode {
    run(&line.split(' ').collect::<Vec<_>>()).mode
}

fn settings(line: &[&str]) -> Settings {
    run(line).settings
}

fn operands(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

#[test]
fn each_letter_is_a_mode() {
    let two = || operands(&["a", "b"]);
    let none = Vec::new;
    for (line, expected) in [
        ("-x", Mode::CheckAndUpdate { operands: none() }),
        ("-crvv a b", Mode::Check { operands: two(), then_update: false }),
        ("-c", Mode::Check { operands: none(), then_update: false }),
        ("-cu a b", Mode::Check { operands: two(), then_update: true }),
        ("a -c b -u", Mode::Check { operands: two(), then_update: true }),
        ("-vcru a b", Mode::Check { operands: two(), then_update: true }),
        ("-u a b", Mode::Update { operands: two() }),
        ("-h a b", Mode::Hint { operands: two() }),
        ("-h", Mode::Hint { operands: none() }),
        ("-o a b", Mode::Compare { operands: two() }),
        ("-m a b", Mode::Mark { operands: two() }),
        ("-f -- -r b", Mode::Force { operands: operands(&["-r", "b"]) }),
        ("-H", Mode::ListHints),
        ("-L", Mode::ListFiles),
        ("-M", Mode::ListDirty),
        ("-S a b", Mode::ListPair { my_name: b"a".to_vec(), peer: b"b".to_vec() }),
        ("-T", Mode::InSync { scope: InSyncScope::AllPairs, diffs: false }),
        ("-TIXU", Mode::InSync { scope: InSyncScope::AllPairs, diffs: false }),
        ("-TT a", Mode::InSync { scope: InSyncScope::File(b"a".to_vec()), diffs: true }),
        ("-T -T -T a", Mode::InSync { scope: InSyncScope::File(b"a".to_vec()), diffs: true }),
        (
            "-T a b",
            Mode::InSync { scope: InSyncScope::Pair { my_name: b"a".to_vec(), peer: b"b".to_vec() }, diffs: false },
        ),
        (
            "-T a b c",
            Mode::InSync {
                scope: InSyncScope::PairFile { my_name: b"a".to_vec(), peer: b"b".to_vec(), file: b"c".to_vec() },
                diffs: false,
            },
        ),
        ("-R -G g", Mode::RemoveOld),
        ("-i", Mode::Serve(ServeMode::Inherited)),
        ("-ii", Mode::Serve(ServeMode::Daemon)),
        ("-i -v -ii", Mode::Serve(ServeMode::Once)),
        ("--status", Mode::Status { peers: vec![] }),
        ("Beta --status --json gamma", Mode::Status { peers: vec!["beta".to_owned(), "gamma".to_owned()] }),
        ("--ls-ssl-cert", Mode::ListCertificates { peer: None }),
        ("-v --ls-ssl-cert Beta", Mode::ListCertificates { peer: Some("beta".to_owned()) }),
        ("--rm-ssl-cert beta -Nalpha", Mode::ForgetCertificate { peer: "beta".to_owned() }),
        ("--gen-ssl-cert", Mode::NewCertificate),
        ("--check-config", Mode::CheckConfig { operands: none() }),
        ("--check-config a -v b", Mode::CheckConfig { operands: two() }),
        ("--import-db /var/x -D pgsql:///y", Mode::ImportDatabase { from: "/var/x".to_owned() }),
        ("-k file", Mode::NewKey { file: "file".into() }),
        ("-k -x", Mode::NewKey { file: "-x".into() }),
    ] {
        assert_eq!(mode(line), expected, "{line}");
    }
}

#[test]
fn everything_else_is_usage() {
    for line in [
        "",
        "-v",
        "-uc",
        "-u -c",
        "-cc",
        "-ccu",
        "-cuu",
        "-xcu",
        "-xT",
        "-HH",
        "-HL",
        "-ix",
        "-iiii",
        "-H a",
        "-i a",
        "-R x",
        "-S",
        "-S a",
        "-S a b c",
        "-SS a b",
        "-T a b c d",
        "--ls-ssl-cert a b",
        "--rm-ssl-cert",
        "--rm-ssl-cert a b",
        "--gen-ssl-cert a",
        "--gen-ssl-cert -x",
        "--check-config -x",
        "--import-db",
        "--import-db a b",
        "-- -x",
        "-",
        "a",
    ] {
        let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        assert_eq!(parse_line(&words), Parsed::Usage { complaint: None }, "{line}");
    }
    for (line, complaint) in [
        (&["-xZ"][..], "invalid option -- 'Z'"),
        (&["-Z", "-Y"], "invalid option -- 'Z'"),
        (&["-k"], "invalid option -- 'k'"),
        (&["-kfile"], "invalid option -- 'k'"),
        (&["-k", "a", "b"], "invalid option -- 'k'"),
        (&["-xN"], "option requires an argument -- 'N'"),
        (&["-x-"], "invalid option -- '-'"),
        (&["-x", "--nothing=1"], "unrecognized option '--nothing'"),
        (&["--help=1"], "option '--help' doesn't allow an argument"),
    ] {
        assert_eq!(parse_line(line), Parsed::Usage { complaint: Some(format!("csync2: {complaint}")) }, "{line:?}");
    }
}

#[test]
fn help_and_version_are_answered_whatever_else_is_asked() {
    assert_eq!(parse_line(&["-x", "--help"]), Parsed::Help);
    assert_eq!(parse_line(&["--version"]), Parsed::Version);
}

#[test]
fn values_are_attached_or_follow_and_the_last_counts() {
    let expected = Settings {
        system_dir: "/nonexistent".into(),
        config_name: "two".to_owned(),
        my_name: "1.csync2.test".to_owned(),
        bind: Some("1.CSYNC2.test".to_owned()),
        port: 30999,
        database: Some("pgsql://u@h/db".to_owned()),
        groups: Some(vec!["a".to_owned(), "b".to_owned()]),
        peers: Some(vec!["P1".to_owned()]),
        recursive: true,
        ..settings(&["-x"])
    };
    let separate = ["-x", "-r", "-C", "one", "-C", "two", "-N", "1.CSYNC2.test", "-p", "30999", "-D", "pgsql://u@h/db"];
    assert_eq!(settings(&[&separate[..], &["-G", ",a,,b", "-P", "P1,"]].concat()), expected);
    let attached = ["-xrCtwo", "-N1.CSYNC2.test", "-p30999", "-Dpgsql://u@h/db", "-Ga,b", "-PP1"];
    assert_eq!(settings(&attached), expected);
}

#[test]
fn values_may_look_like_anything() {
    assert_eq!(settings(&["-xN=x"]).my_name, "=x");
    assert_eq!(settings(&["-x", "-N", "-v"]).my_name, "-v");
    assert_eq!(settings(&["-x", "-D", "--"]).database.as_deref(), Some("--"));
    assert_eq!(settings(&["-x", "-G", ""]).groups, Some(vec![]), "an empty list is no group at all");
    assert_eq!(settings(&["-x", "-N", ""]).my_name, "node.test", "an empty name is none");
    assert_eq!(settings(&["-x", "-C", ""]).config_name, "");
    let words = [&b"csync2"[..], b"-c", b"\xff\n"].map(|word| OsStr::from_bytes(word).to_owned());
    let invocation = parse(words, &environment(Path::new("/nonexistent")));
    let Parsed::Run(invocation) = invocation else { panic!("{invocation:?}") };
    assert_eq!(invocation.mode, Mode::Check { operands: vec![b"\xff\n".to_vec()], then_update: false });
}

#[test]
fn every_switch_is_a_setting() {
    let bare = settings(&["-x"]);
    assert_eq!(bare.my_name, "node.test");
    assert_eq!(bare.port, settings::DEFAULT_PORT);
    assert_eq!(bare.log, LogOptions::default());
    let all = settings(&[
        "-xrdvvvFIXUABabtl",
        "-s",
        "stamps",
        "-O",
        "--allow-mass-removal",
        "--auto-name",
        "--no-batches",
        "--no-legacy-tls",
        "--warning",
        "5",
        "--critical=1h",
        "--json",
        "--metrics=a=b",
        "--no-progress",
    ]);
    let expected = Settings {
        recursive: true,
        dry_run: true,
        mark_forced: true,
        init: true,
        mark_removals: true,
        mark_one_peer: true,
        asynchronous: true,
        allow_mass_removal: true,
        auto_name: true,
        no_batches: true,
        no_legacy_tls: true,
        warning: Some(Threshold { files: Some(5), age: None }),
        critical: Some(Threshold::of_age(3600)),
        json: true,
        metrics: Some("a=b".into()),
        no_progress: true,
        log: LogOptions {
            verbosity: 3,
            syslog: true,
            timestamps: true,
            timestamp_file: Some("stamps".into()),
            debug_file: Some(DebugFile::Default),
            ..LogOptions::default()
        },
        ..bare
    };
    assert_eq!(all, expected);
}

#[test]
fn the_debug_files_name_is_attached_only() {
    let invocation = run(&["-xO", "file"]);
    assert_eq!(invocation.mode, Mode::CheckAndUpdate { operands: operands(&["file"]) });
    assert_eq!(invocation.settings.log.debug_file, Some(DebugFile::Default));
    assert_eq!(settings(&["-xO/tmp/v"]).log.debug_file, Some(DebugFile::At("/tmp/v".into())));
    assert_eq!(settings(&["-xO/tmp/v", "-Ow"]).log.debug_file, Some(DebugFile::At("w".into())));
}

#[test]
fn a_session_on_an_inherited_socket_logs_to_syslog() {
    let (inherited, daemon) = (settings(&["-i"]).log, settings(&["-ii"]).log);
    assert_eq!((inherited.syslog, inherited.process), (true, ProcessKind::Inherited));
    assert_eq!((daemon.syslog, daemon.process), (false, ProcessKind::Daemon));
}

#[test]
fn impossible_values_are_refused() {
    for (line, message) in [
        (&["-x", "-C", "aB"], "Config names are limited to [a-z0-9]+."),
        (&["-x", "-C", "a/b"], "Config names are limited to [a-z0-9]+."),
        (&["-x", "-p", "no such service"], "Not a port: no such service"),
        (&["-x", "-p", "70000"], "Not a port: 70000"),
        (
            &["--status", "--critical", "x"],
            "--critical takes a number of files, an age (30m, 2h, 1d) or both: 100,2h. Not: x",
        ),
        (&["-c", "-W", "9999"], "Invalid dump_dir_fd 9999: Bad file descriptor"),
        (&["-c", "-W", "x"], "Invalid dump_dir_fd x: Bad file descriptor"),
    ] {
        let refused = Parsed::Refused { line: message.to_owned(), log: LogOptions::default() };
        assert_eq!(parse_line(line), refused, "{line:?}");
    }
}

#[test]
fn operands_end_the_options_where_posix_is_asked_for() {
    let environment = Environment { posixly_correct: true, ..environment(Path::new("/nonexistent")) };
    let parsed = parse(["csync2", "-x", "a", "-c", "--", "-r"].map(OsString::from), &environment);
    let Parsed::Run(invocation) = parsed else { panic!("{parsed:?}") };
    assert_eq!(invocation.mode, Mode::CheckAndUpdate { operands: operands(&["a", "-c", "--", "-r"]) });
}

#[test]
fn the_lock_file_stops_everything_but_new_keys_and_help() {
    let directory = tempfile::tempdir().unwrap();
    let lock = directory.path().join("csync2.lock");
    std::fs::write(&lock, "").unwrap();
    let environment = environment(directory.path());
    let parse =
        |line: &[&str]| super::parse([&["csync2"], line].concat().into_iter().map(OsString::from), &environment);
    for line in [&["-x"][..], &["-Z"], &[], &["-i"]] {
        assert_eq!(parse(line), Parsed::Locked(lock.clone()), "{line:?}");
    }
    assert!(matches!(parse(&["-k", "file"]), Parsed::Run(_)));
    assert_eq!(parse(&["--help"]), Parsed::Help);
}

proptest! {
    #[test]
    fn no_line_is_too_odd(line in prop::collection::vec(odd_word(), 0..6)) {
        let words = std::iter::once(OsString::from("csync2")).chain(line);
        if let Parsed::Usage { complaint: Some(complaint) } = parse(words, &environment(Path::new("/nonexistent"))) {
            let known = ["invalid option", "option requires", "unrecognized option", "option '"];
            let text = complaint.strip_prefix("csync2: ").unwrap_or("");
            prop_assert!(known.iter().any(|known| text.starts_with(known)), "{}", complaint);
        }
    }
}

fn odd_word() -> impl Strategy<Value = OsString> {
    let bytes = |range: std::ops::RangeInclusive<u8>| prop::collection::vec(range, 0..6);
    let word = |bytes: Vec<u8>| OsStr::from_bytes(&bytes).to_owned();
    prop_oneof![
        bytes(1..=255).prop_map(word),
        "-[xcuhomfHLMSTRirdvCpBANIXUGPFtsWOabDk=-]{1,5}".prop_map(OsString::from),
        bytes(1..=255).prop_map(move |rest| word([b"-".to_vec(), rest].concat())),
        "--(help|version|allow-mass-removal|x)?=?".prop_map(OsString::from),
    ]
}

/// The C program: fails, not skips, where it is missing.
fn reference(system_dir: &Path, line: &[&str]) -> (bool, String, Option<i32>) {
    let output = Command::new("/usr/sbin/csync2")
        .arg0("csync2")
        .args(line)
        .env("CSYNC2_SYSTEM_DIR", system_dir)
        .env_remove("POSIXLY_CORRECT")
        .current_dir(system_dir)
        .stdin(Stdio::null())
        .output()
        .expect("the C program must be installed: apt-get install csync2");
    let is_usage = String::from_utf8_lossy(&output.stdout).contains("\nUsage: csync2 ");
    (is_usage, String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code())
}

/// Without a config, every line that is not usage ends with another error before it does anything.
fn agree(system_dir: &Path, line: &[&str]) {
    // A daemon must not start to listen.
    let line = [&["-p", "no-such-service"], line].concat();
    let (is_usage, stderr, status) = reference(system_dir, &line);
    match parse([&["csync2"], line.as_slice()].concat().into_iter().map(OsString::from), &environment(system_dir)) {
        Parsed::Usage { complaint } => {
            assert!(is_usage, "usage for us, not for the C program: {line:?}: {stderr}");
            // A second mode ends the C program's reading: what is wrong behind it goes unsaid.
            let complaint = complaint.map(|line| line + "\n").unwrap_or_default();
            assert!(stderr == complaint || stderr.is_empty(), "{line:?}: {stderr} {complaint}");
            assert_eq!(status, Some(1), "{line:?}");
        }
        _ => assert!(!is_usage, "usage for the C program, not for us: {line:?}"),
    }
}

#[test]
fn the_c_program_knows_the_same_modes() {
    let directory = tempfile::tempdir().unwrap();
    let letters = || options::MODES.into_iter().filter(|mode| mode.len() == 1);
    for first in letters() {
        let once = format!("-{first}");
        for operands in 0..5 {
            agree(directory.path(), &[&[once.as_str()], &["a", "b", "c", "d"][..operands]].concat());
        }
        for second in letters() {
            agree(directory.path(), &[&format!("{once}{second}")]);
            agree(directory.path(), &["a", &format!("-{second}r"), "b", &once]);
        }
    }
    for line in ["-cuc", "-cux", "-ccu", "-cuu", "-TTT", "-TTTT", "-iii", "-iiii", "-iiiii", "-TiT", "-SS"] {
        agree(directory.path(), &[line]);
    }
}

#[test]
fn the_c_program_reads_odd_lines_the_same_way() {
    const WORDS: [&str; 26] = [
        "-x", "-c", "-u", "-cu", "-r", "-vvr", "a", "/b", "--", "-", "-Nfoo", "-N", "-Cab", "-C", "-T", "-TIXU", "-ii",
        "-h", "-xv", "-S", "-Z", "-tB", "-p", "-lAF", "-xGg", "",
    ];
    let directory = tempfile::tempdir().unwrap();
    // A fixed sequence (Knuth's multiplier), so that a failure can be seen again.
    let mut state = 1_u64;
    for _ in 0..400 {
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap_or_default() % below
        };
        let line: Vec<&str> = (0..=next(4)).map(|_| WORDS[next(WORDS.len())]).collect();
        agree(directory.path(), &line);
    }
}

#[test]
fn the_help_text_says_what_the_c_programs_says() {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new("/usr/sbin/csync2").env("CSYNC2_SYSTEM_DIR", directory.path()).output().unwrap();
    let words = |text: &str| text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    let theirs = words(&String::from_utf8_lossy(&output.stdout));
    let ours = words(&usage());
    let mut shared = 0;
    let own = [
        "-v",
        "-C config-name",
        "-p port",
        "-B",
        "-O[filename]",
        "-a",
        "-b",
        "--allow-mass-removal",
        "--auto-name",
        "--no-batches",
        "--no-legacy-tls",
        "--warning limit",
        "--critical limit",
        "--json",
        "--metrics file",
        "--no-progress",
        "--status [peername..]",
        "--ls-ssl-cert [peername]",
        "--rm-ssl-cert peername",
        "--gen-ssl-cert",
        "--init [host..]",
        "--join peername",
        "--check-config [file..]",
        "--import-db database",
        "--help",
        "--version",
    ];
    for entry in options::OPTIONS.iter().flat_map(|record| record.help) {
        let text = words(&format!("{} {}", entry.synopsis, entry.text));
        assert!(ours.contains(&text), "{text}");
        if !own.contains(&entry.synopsis) {
            assert!(theirs.contains(&text), "the C program does not say: {text}");
            shared += 1;
        }
    }
    assert_eq!(shared, 38);
}
