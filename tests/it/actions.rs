//! The commands of actions: when they run, how often, what they get to see, and what becomes of those that fail, hang,
//! or are interrupted.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::cast::Backend;
use crate::support::cluster::{Cluster, Node};
use crate::support::process::Daemon;
use crate::support::{Cast, Postgres, Program, Table, scenarios, tree};

scenarios! { tls:
    a_command_runs_once_for_all_its_files
}

scenarios! { one program:
    every_mode_runs_what_was_left
    a_command_that_fails_is_no_error
}

scenarios! { ours:
    a_command_sees_little_of_csync2
    an_action_writes_nothing_to_the_peer
    a_command_that_hangs_is_killed_with_what_it_started
    what_is_scheduled_while_its_command_runs_makes_it_run_again
    an_interrupted_command_runs_again
    an_action_may_run_csync2
    a_hanging_action_holds_up_no_other_session
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Puts a command off that reads this FIFO, until [`Gate::open`].
struct Gate(std::path::PathBuf);

impl Gate {
    fn new(cluster: &Cluster) -> Self {
        let path = cluster.directory().join("gate");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("mkfifo");
        Gate(path)
    }

    /// Lets one command pass. Waits for it.
    fn open(&self) {
        drop(fs::OpenOptions::new().write(true).open(&self.0).expect("open the gate"));
    }

    /// Lets pass who waits now.
    fn let_pass(&self) {
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        drop(fs::OpenOptions::new().write(true).custom_flags(flags).open(&self.0));
    }
}

#[track_caller]
fn wait_until(mut happened: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !happened() {
        assert!(Instant::now() < end, "it did not happen");
        std::thread::yield_now();
    }
}

/// Starts a run that will not end yet.
fn begin(node: &Node, arguments: &[&str], until: &str) -> Daemon {
    Daemon::start(&node.command(node.program, arguments), until)
}

fn a_command_runs_once_for_all_its_files(cast: Cast) {
    let config = "\
        group one { host {alpha} {beta}; key demo.key; include %d%;\n\
            action { pattern %d%/a/*; exec \"echo a; echo $PWD >&2\" \"echo b\"; exec; logfile \"{dir}/one\"; }\n\
            action { pattern %d%/a/f1*; exec \"echo c %%\"; logfile \"{dir}/two\"; }\n\
            action { pattern f1 %d%/a/; exec \"echo never\"; logfile \"{dir}/one\"; do-local; }\n\
            action { exec \"echo local\"; logfile \"{dir}/local\"; do-local-only; } }\n\
        group two { host {alpha} {beta}; key demo.key; include %d%/a;\n\
            action { exec \"echo c\"; logfile \"{dir}/one\"; } }\n\
        prefix d { on {alpha}: {alpha.tree}; on {beta}: {beta.tree}; }\n";
    let cluster = cast.cluster(["alpha", "beta"]).config(config).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let mut files = tree! { "a/f1" => "1", "b" => "none of theirs" };
    for number in 10..30 {
        files = files.with(format!("a/f{number}"), "content");
    }
    alpha.put(&files);
    alpha.csync2(["-x"]).success().silent();
    let log = |name: &str| read(cluster.directory().join(name));
    assert_eq!(log("local"), "local\n");
    let (one, base) = (log("one"), beta.base().display().to_string());
    let mut ran: Vec<&str> = one.lines().collect();
    if cast.server == Program::Reference {
        // On PostgreSQL it runs them in no order; on SQLite the last one by name first.
        ran.sort_by_key(|line| ["c", "b", "a"].iter().position(|command| command == line).unwrap_or(3));
    }
    assert_eq!(ran, ["c", "b", "a", &base]);
    let named = log("two");
    assert_eq!((named.lines().count(), named.split_whitespace().count()), (1, 12), "{named}");
    assert_eq!(beta.rows(Table::Action), [""; 0]);

    // Nothing has changed: nothing runs.
    alpha.csync2(["-xv"]).success().logs_no("Running");
    alpha.put(&tree! { "a/f1" => "changed" });
    alpha.csync2(["-xv"]).success().logs("Running 'echo local' ...");
    assert_eq!(log("one").lines().count(), 8);
    // Received and made by the peer, a removal counts as well.
    alpha.remove("a/f1");
    alpha.csync2(["-x"]).success();
    assert_eq!(log("two").lines().count(), 3);
}

fn every_mode_runs_what_was_left(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(&tree! { "f" => "content" });
    alpha.csync2(["-cIr", "/"]).success();
    let (ran, file) = (cluster.directory().join("ran"), alpha.path("f").display().to_string());
    let insert = format!(
        "INSERT INTO action (filename, command, logfile) VALUES ('%25d%25/f', 'echo%20ran', '{}')",
        ran.display()
    );
    let modes: [&[&str]; 11] = [
        &["-L"],
        &["-M"],
        &["-H"],
        &["-S", &alpha.host, &beta.host],
        &["-R"],
        &["-u"],
        &["-c"],
        &["-xd"],
        &["-h", &file],
        &["-m", &file],
        &["-f", &file],
    ];
    for mode in modes {
        alpha.database.execute(&insert);
        let output = alpha.csync2(mode);
        assert_eq!(read(&ran), "ran\n", "{output:?}");
        assert_eq!(alpha.rows(Table::Action), [""; 0], "{output:?}");
        fs::remove_file(&ran).expect("remove");
    }
    alpha.database.execute(&insert);
    alpha.csync2(["-L", "-G", "unknown"]).exits(1);
    assert!(!ran.exists(), "a host in no group runs nothing");
}

fn a_command_that_fails_is_no_error(cast: Cast) {
    let group = "\
        action { exec \"echo $$; exit 7\" \"kill -9 $$\"; logfile \"{dir}/log\"; do-local; }\n\
        action { exec \"touch {dir}/ran\"; logfile \"{dir}/missing/log\"; do-local; }\n";
    let cluster = cast.cluster(["alpha", "beta"]).in_group(group).build();
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "f" => "content" });
    let output = alpha.csync2(["-cr", "/"]).success().prints("");
    assert!(cluster.directory().join("ran").exists());
    assert_eq!(read(cluster.directory().join("log")).lines().count(), 1);
    assert_eq!(alpha.rows(Table::Action), [""; 0]);
    if cast.all_ours() {
        output
            .logs("WARNING: the action 'echo $$; exit 7' ended with exit status: 7.\n")
            .logs("WARNING: the action 'kill -9 $$' ended with signal: 9 (SIGKILL).\n")
            .logs("/missing/log of the action 'touch ")
            .logs(": No such file or directory. It runs without.\n");
    }
}

/// The inner run finds its own action at work, and must not wait for it: that waits for the inner run. The C program
/// runs the command again and again, each run within the one before.
fn an_action_may_run_csync2(cast: Cast) {
    let group = "action { exec \"/bin/sh {dir}/script\"; logfile \"{dir}/log\"; do-local; }\n";
    let cluster = cast.cluster(["alpha", "beta"]).in_group(group).build();
    let alpha = &cluster["alpha"];
    let inner = alpha.command(alpha.program, ["-cr", "/"]);
    let words = std::iter::once(inner.get_program()).chain(inner.get_args()).map(|word| word.to_string_lossy());
    let line = words.map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    fs::write(cluster.directory().join("script"), format!("{line}\necho ended with $?\n")).expect("write the script");
    alpha.put(&tree! { "f" => "content" });
    alpha.csync2(["-cr", "/"]).success().silent();
    assert_eq!(read(cluster.directory().join("log")), "ended with 0\n");
    assert_eq!(alpha.rows(Table::Action), [""; 0]);
}

/// No descriptor, little of the environment, no ignored signal; the working directory is that of the run.
fn a_command_sees_little_of_csync2(cast: Cast) {
    let look = "exec \"env | cut -d= -f1 | sort | tr '\\n' ' '; echo; cd -P . && pwd; \
                for n in /proc/$$/fd/*; do [ -e $n ] && echo 'fd ' ${n##*/}; done; cat; \
                exec grep -E 'SigIgn|SigBlk' /proc/self/status\";";
    let group = format!("action {{ {look} logfile \"{{dir}}/log\"; do-local; }}\n");
    let cluster = cast.cluster(["alpha", "beta"]).in_group(&group).build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let mut daemon = beta.command(beta.program, ["-ii"]);
    daemon.env("PGPASSWORD", "secret").env("LC_CTYPE", "C").env_remove("LANG").env("HOME", "/");
    let _daemon = Daemon::start(&daemon, "Csync2 daemon running.");
    alpha.put(&tree! { "f" => "content" });

    // A descriptor that the caller left open, as with -W; and a caller that does not wait for its children.
    let mut run = std::process::Command::new("/bin/sh");
    let client = alpha.command(alpha.program, ["-x"]);
    run.args(["-c", "trap '' CHLD; exec \"$@\" 7>&1", "sh"]).arg(client.get_program()).args(client.get_args());
    run.env_clear().envs(client.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("LC_CTYPE", "C");
    run.env("HOME", "/").current_dir(beta.base());
    crate::support::process::run(run).success().silent();

    let log = read(cluster.directory().join("log"));
    let base = beta.base().canonicalize().expect("resolve");
    let expected = format!(
        "CSYNC2_SYSTEM_DIR CSYNC2_WITHIN_ACTION HOME LC_ALL LC_CTYPE PATH PWD \n{}\nfd  0\nfd  1\nfd  2\n",
        base.display()
    );
    let (signals, rest): (Vec<&str>, Vec<&str>) = log.split_inclusive('\n').partition(|line| line.starts_with("Sig"));
    assert_eq!(rest.concat(), expected.repeat(2), "of the run and of the daemon");
    let pipe = 1 << (libc::SIGPIPE - 1);
    for line in &signals {
        let mask = u64::from_str_radix(line[7..].trim(), 16).expect("a mask");
        assert_eq!(mask & pipe, 0, "{line}");
    }
    assert_eq!(signals.len(), 4);
}

fn an_action_writes_nothing_to_the_peer(cast: Cast) {
    let group = "action { exec \"echo noise; echo noise >&2; touch {dir}/ran\"; logfile \"{dir}/missing/log\"; }\n";
    let cluster = cast.cluster(["alpha", "beta"]).in_group(group).build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let requests = format!("CONFIG \nHELLO {}\nMKDIR {} %25d%25/d\nBYE\n", alpha.host, crate::support::cluster::KEY);
    let answers = "OK (cmd_finished).\n".repeat(3) + "OK (cu_later).\n";
    beta.csync2_for_pipe(&["-i", "-vvv"], alpha, requests.as_bytes()).success().prints(&answers);
    assert!(cluster.directory().join("ran").exists());
}

fn a_command_that_hangs_is_killed_with_what_it_started(cast: Cast) {
    let group = "action { exec \"sleep 1000 & echo $! > {dir}/child; wait\"; do-local; }\n";
    let cluster = cast.cluster(["alpha", "beta"]).top("action-timeout 1;\n").in_group(group).build();
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "f" => "content" });
    alpha.csync2(["-cr", "/"]).success().logs("' was killed: it took longer than action-timeout (1 s).\n");
    assert_eq!(alpha.rows(Table::Action), [""; 0]);
    // Nobody may have waited for it yet: then it is a zombie.
    let child = read(cluster.directory().join("child"));
    wait_until(|| {
        let stat = read(format!("/proc/{}/stat", child.trim()));
        !stat.contains("(sleep)") || stat.contains("(sleep) Z")
    });
}

fn what_is_scheduled_while_its_command_runs_makes_it_run_again(cast: Cast) {
    let group = "action { exec \"echo started %%; cat {dir}/gate; echo done\"; logfile \"{dir}/log\"; do-local; }\n";
    let cluster = cast.cluster(["alpha", "beta"]).in_group(group).build();
    let alpha = &cluster["alpha"];
    let (gate, log) = (Gate::new(&cluster), cluster.directory().join("log"));
    alpha.put(&tree! { "f" => "content" });
    let file = alpha.path("f").display().to_string();
    let first = begin(alpha, &["-cv", &file], "Running '");
    alpha.put(&tree! { "f" => "content that is longer" });
    let second = begin(alpha, &["-cv", &file], "Waiting for another csync2 that is running 'echo started %%");
    // Who did not call for it, and only looks, does not wait.
    alpha.csync2(["-M"]).success().logs_no("Waiting");
    gate.open();
    assert_eq!(first.wait(), Some(0));
    second.wait_for("Running '");
    gate.open();
    assert_eq!(second.wait(), Some(0));
    assert_eq!(read(&log), format!("started {file}\ndone\n").repeat(2));
    assert_eq!(alpha.rows(Table::Action), [""; 0]);
}

/// Its holder was killed: the next run takes over at once.
fn an_interrupted_command_runs_again(cast: Cast) {
    let group = "action { exec \"echo begin; cat {dir}/gate; echo end\"; logfile \"{dir}/log\"; do-local; }\n";
    let cluster = cast.cluster(["alpha", "beta"]).in_group(group).build();
    let alpha = &cluster["alpha"];
    let (gate, log) = (Gate::new(&cluster), cluster.directory().join("log"));
    alpha.put(&tree! { "f" => "content" });
    let first = begin(alpha, &["-crv", "/"], "Running '");
    wait_until(|| read(&log) == "begin\n");
    drop(first);
    assert_eq!(alpha.rows(Table::Action).len(), 2);
    let next = begin(alpha, &["-cv"], "Running '");
    // The first command itself is still there.
    wait_until(|| {
        gate.let_pass();
        read(&log).matches("end").count() == 2
    });
    assert_eq!(next.wait(), Some(0));
    assert_eq!(read(&log).matches("begin").count(), 2);
    assert_eq!(alpha.rows(Table::Action), [""; 0]);
}

fn a_hanging_action_holds_up_no_other_session(cast: Cast) {
    let group = "\
        action { pattern %d%/slow; exec \"cat {dir}/gate; echo slow >> {dir}/log\"; }\n\
        action { pattern %d%/quick; exec \"echo quick >> {dir}/log\"; }\n";
    let cluster = cast.cluster(["alpha", "beta"]).top("max-sessions 1;\n").in_group(group).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let (gate, log) = (Gate::new(&cluster), cluster.directory().join("log"));
    alpha.put(&tree! { "slow" => "content" });
    let first = begin(alpha, &["-xv"], "Updating %d%/slow");
    beta.daemon().wait_for("Running 'cat ");
    alpha.put(&tree! { "quick" => "content" });
    alpha.csync2(["-x"]).success().silent();
    assert_eq!(read(&log), "quick\n");
    // A session that calls for the same command has its turn afterwards.
    alpha.put(&tree! { "slow" => "changed content" });
    let second = begin(alpha, &["-xv"], "Updating %d%/slow");
    beta.daemon().wait_for("Waiting for another csync2 that is running 'cat ");
    gate.open();
    assert_eq!(first.wait(), Some(0));
    assert_eq!(read(&log), "quick\nslow\n");
    gate.open();
    assert_eq!(second.wait(), Some(0));
    assert_eq!(read(&log), "quick\nslow\nslow\n");
    assert_eq!(beta.rows(Table::Action), [""; 0]);
}

/// The files have arrived: that is no error.
#[test]
fn a_client_does_not_wait_for_a_hanging_action_for_ever() {
    let group = "action { exec \"cat {dir}/gate; echo ran\"; logfile \"{dir}/log\"; }\n";
    let cluster = Cast::sqlite(Program::Ours).cluster(["alpha", "beta"]).in_group(group).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let gate = Gate::new(&cluster);
    let config = alpha.system_dir().join("csync2.cfg");
    fs::write(&config, format!("idle-timeout 1;\n{}", read(&config))).expect("write the config");
    alpha.put(&tree! { "f" => "content" });
    let warning =
        format!("WARNING: {} has what was sent, but has not ended the session within idle-timeout", beta.host);
    alpha.csync2(["-x"]).success().logs(&warning);
    gate.open();
    beta.daemon().wait_for("Connection closed.");
    assert_eq!(read(cluster.directory().join("log")), "ran\n");
}

/// More names than fit into one command line: the command runs as often as needed, each file is in one list.
#[test]
fn a_list_of_twenty_thousand_long_names_is_passed_in_pieces() {
    let group = "action { pattern %d%/n/*; exec \"/usr/bin/printf '[%s]\\n' %% && echo run\"; logfile \"{dir}/log\"; do-local; }\n";
    let cluster = Cast::sqlite(Program::Ours).cluster(["alpha", "beta"]).in_group(group).build();
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "n" => crate::support::dir() });
    let name = |number: usize| format!("{number:05} {}", "it's long ".repeat(20));
    for number in 0..20_000 {
        fs::write(alpha.path(format!("n/{}", name(number))), "").expect("write");
    }
    alpha.csync2(["-cr", "/"]).success().silent();
    let log = read(cluster.directory().join("log"));
    let (runs, names): (Vec<&str>, Vec<&str>) = log.lines().partition(|line| *line == "run");
    let expected: Vec<String> =
        (0..20_000).map(|number| format!("[{}]", alpha.path(format!("n/{}", name(number))).display())).collect();
    assert!(names == expected, "{} names in {} runs", names.len(), runs.len());
    assert!((20..200).contains(&runs.len()), "{} runs", runs.len());
    assert_eq!(alpha.rows(Table::Action), [""; 0]);
}

#[test]
fn a_command_longer_than_the_system_allows_is_an_error() {
    let group = format!(
        "action {{ exec \": {}\"; do-local; }}\naction {{ exec \"touch {{dir}}/ran\"; do-local; }}",
        "x".repeat(140_000)
    );
    let cluster = Cast::sqlite(Program::Ours).cluster(["alpha", "beta"]).in_group(&group).build();
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "f" => "content" });
    alpha.csync2(["-cr", "/"]).exits(1).logs("its command line of 140002 bytes is longer than the system allows\n");
    assert!(cluster.directory().join("ran").exists());
    alpha.csync2(["-M"]).success().logs_no("action");
    assert_eq!(alpha.rows(Table::Action), [""; 0]);
}

/// A listing runs what was left, unless it may not write.
#[test]
fn a_listing_of_a_read_only_database_leaves_actions_alone() {
    let cast = Cast { client: Program::Ours, server: Program::Ours, tls: false, backend: Backend::Postgres };
    let cluster = cast.cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "f" => "content" });
    alpha.csync2(["-cIr", "/"]).success();
    alpha.database.execute("INSERT INTO action (filename, command, logfile) VALUES ('%25d%25/f', 'true', '/dev/null')");
    let name = alpha.database_name().expect("PostgreSQL");
    let set = |what: &str| drop(Postgres::shared().sql("postgres", &format!("ALTER DATABASE {name} {what}")));
    set("SET default_transaction_read_only = on");
    alpha.csync2(["-L"]).success().logs_no("action");
    set("RESET default_transaction_read_only");
    assert_eq!(alpha.rows(Table::Action).len(), 1);
    alpha.csync2(["-L"]).success();
    assert_eq!(alpha.rows(Table::Action), [""; 0]);
}
