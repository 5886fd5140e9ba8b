//! The command line: usage, what stops a run before it starts, exit codes and messages that scripts know.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::process::{Output, run, wrap};
use crate::support::{Cast, Program, Table, scenarios, tree};

scenarios! { one program:
    wrong_usage_is_told_on_stdout
    options_cluster_and_permute
    a_key_is_written_once
    a_lock_file_stops_every_run
    the_host_must_be_a_member
    another_config_has_a_database_of_its_own
    a_config_that_cannot_be_used_stops_the_run
    a_database_that_cannot_be_opened_stops_the_run
    operands_outside_the_config_are_ignored
    timestamps_frame_the_log
    a_taken_port_is_an_error
    modes_without_work_are_silent
    rows_that_the_config_no_longer_covers_are_removed
}

fn wrong_usage_is_told_on_stdout(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    for arguments in [
        "",
        "-d",
        "-xx",
        "-c -x",
        "-uc",
        "-LL",
        "-L -M",
        "-L operand",
        "-H operand",
        "-M x",
        "-R x",
        "-S",
        "-S one",
        "-S a b c",
        "-T a b c d",
        "-iiii",
        "-i x",
        "-k",
        "-Z",
        "-xZ",
        "-N",
    ] {
        let output = alpha.csync2(arguments.split_whitespace()).exits(1);
        assert!(is_usage(&output), "{output:?}");
    }
    alpha.csync2(["-Z"]).logs("invalid option -- 'Z'");
    let mut alone = alpha.bare_command(alpha.program);
    alone.args(["-k", "one", "two"]);
    assert!(is_usage(&run(alone).exits(1)));
    assert!(!alpha.base().join("one").exists());
}

fn is_usage(output: &Output) -> bool {
    output.stdout_text().contains("\nUsage: ")
}

fn options_cluster_and_permute(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "f" => "1", "-x" => "22" });
    let mut attached = alpha.bare_command(alpha.program);
    let database = alpha.database.option();
    attached.args([&format!("-D{database}"), &format!("-N{}", alpha.host), "-p30865", "tree/f", "-cBA"]);
    run(attached).success().silent();
    let row = |name: &str| cluster.fill_in(&format!("chary\t{{alpha}}\t{{beta}}\t%d%{name}\n"));
    alpha.csync2(["-M"]).success().prints(&row("/f"));
    let mut dashed = alpha.command(alpha.program, ["-c", "--", "-x"]);
    dashed.current_dir(alpha.tree_dir()).env("PWD", alpha.tree_dir());
    run(dashed).success().silent();
    alpha.csync2(["-M"]).success().prints(&[row("/-x"), row("/f")].concat());
    let upper = alpha.host.to_uppercase();
    alpha.csync2(["-N", &upper, "-r", "-c", "/", "-v"]).success().logs("Marking file as dirty: %d%");
}

fn a_key_is_written_once(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    let key = alpha.base().join("new.key");
    let keygen = || {
        let mut command = alpha.bare_command(alpha.program);
        command.arg("-k").arg(&key);
        run(command)
    };
    keygen().success();
    let written = fs::read_to_string(&key).expect("read the key");
    let (text, end) = written.split_at(64);
    assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._".contains(&byte)) && end == "\n", "{written}");
    assert_eq!(fs::metadata(&key).expect("stat").permissions().mode() & 0o777, 0o600);
    keygen().exits(1).logs("File exists");
    assert_eq!(fs::read_to_string(&key).expect("read the key"), written);
}

fn a_lock_file_stops_every_run(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    let lock = alpha.system_dir().join("csync2.lock");
    fs::write(&lock, "").expect("write the lock file");
    for mode in ["-x", "-L", "-ii", "-i", "-Z", ""] {
        alpha.csync2(mode.split_whitespace()).exits(1).prints(&format!("Found {}\n", lock.display()));
    }
    fs::remove_file(lock).expect("remove the lock file");
    alpha.csync2(["-L"]).exits(2).silent();
}

fn the_host_must_be_a_member(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    let message = |name: &str| format!("This host ({name}) is not a member of any configured group.");
    cluster["alpha"].csync2(["-L", "-N", "Stranger"]).exits(1).logs(&message("stranger"));
    cluster["alpha"].csync2(["-L", "-G", "nosuch"]).exits(1).logs(&message(&cluster["alpha"].host));
}

fn another_config_has_a_database_of_its_own(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    fs::copy(alpha.system_dir().join("csync2.cfg"), alpha.system_dir().join("csync2_other1.cfg")).expect("copy");
    alpha.put(&tree! { "f" => "1" });
    alpha.csync2(["-C", "other1", "-cr", "/"]).success();
    alpha.csync2(["-Cother1", "-M"]).success();
    if let crate::support::database::Database::Sqlite { file, .. } = &alpha.database {
        let other = file.with_file_name(format!("{}_other1.db3", alpha.host));
        assert!(other.exists(), "{}", other.display());
        alpha.csync2(["-M"]).exits(2).silent();
    }
    for name in ["Other", "a/b", "a_b", ""] {
        let output = alpha.csync2(["-L", "-C", name]);
        // An empty name is the usual config.
        assert_eq!(output.code, Some(if name.is_empty() { output.code.expect("a code") } else { 1 }), "{output:?}");
        if !name.is_empty() {
            output.logs("Config names are limited to [a-z0-9]+.");
        }
    }
    let missing = format!("Can not open config file `{}/csync2_nosuch.cfg': ", alpha.system_dir().display());
    alpha.csync2(["-C", "nosuch", "-L"]).exits(1).logs(&missing);
}

fn a_config_that_cannot_be_used_stops_the_run(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    fs::write(alpha.system_dir().join("short.key"), "tooshort\n").expect("write a key");
    for (text, message) in [
        ("group g { host {alpha} b; }", "Config error: "),
        ("group g { host {alpha} b; key nosuch.key; }", "Config error: "),
        ("group g { host {alpha} b; key short.key; }", "Config error: "),
        ("group g { host {alpha} b; key demo.key; key demo.key; }", "Config error: "),
        ("group g { host {alpha} b; key demo.key; auto sometimes; }", "Config error: "),
        ("group g { host {alpha} b; key demo.key;\n\n blah; }", "Near line 3: "),
        ("group g{ host {alpha} b; key demo.key; }", "Near line 1: "),
        ("config /no/such/file; ", "Can't open included config file '/no/such/file'."),
    ] {
        cluster.configure(text);
        let output = alpha.csync2(["-cr", "/"]).logs(message);
        assert_eq!(output.code, Some(1), "{text}: {output:?}");
    }
}

fn a_database_that_cannot_be_opened_stops_the_run(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    for url in ["/no/such/directory", "pgsql://csync2@127.0.0.1:1/nothing"] {
        alpha.csync2(["-L", "-D", url]).exits(1).logs("Can't open database: ");
    }
    if cast.client == Program::Ours {
        let reason = "there is no directory /no/such/directory; make it, or choose another with -D\n";
        alpha.csync2(["-L", "-D", "/no/such/directory"]).logs(reason);
        alpha.csync2(["-L", "-D", "pgsql://csync2@127.0.0.1:1/x"]).logs("Connection refused");
    }
    alpha.csync2(["-L", "-D", "carrier-pigeon://x"]).exits(1).logs("Unknown database scheme: ");
}

fn operands_outside_the_config_are_ignored(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "f" => "1" });
    for mode in ["-c", "-x", "-cr", "-m", "-u"] {
        alpha
            .csync2([mode, "/etc/passwd"])
            .success()
            .prints("")
            .logs("WARNING: Parameter will be ignored: /etc/passwd");
    }
    let missing = alpha.path("missing");
    alpha.csync2(["-c".as_ref(), missing.as_os_str()]).success().silent();
    alpha.csync2(["-c", "tree/./../tree//f"]).success().silent();
    assert_eq!(alpha.rows(Table::File).len(), 1);
}

fn timestamps_frame_the_log(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    let output = cluster["alpha"].csync2(["-ct", "/etc/passwd"]).success();
    let log = output.stderr_text();
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines[0].starts_with("TIMESTAMP: 20") && lines[0].ends_with("(GMT+0000)"), "{output:?}");
    assert!(
        lines[1].starts_with('[') && lines[1].ends_with("] WARNING: Parameter will be ignored: /etc/passwd"),
        "{output:?}"
    );
    assert!(lines.last().is_some_and(|line| line.starts_with("TOTALTIME: 0:00:")), "{output:?}");
}

fn a_taken_port_is_an_error(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    cluster["beta"].csync2(["-ii"]).exits(1).logs("Server error: ");
}

fn modes_without_work_are_silent(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    for mode in ["-u", "-c", "-cu", "-R", "-h", "-m", "-f", "-ud"] {
        cluster["alpha"].csync2([mode]).success().silent();
    }
    for mode in ["-H", "-L", "-M"] {
        cluster["alpha"].csync2([mode]).exits(2).silent();
    }
    cluster["alpha"].csync2(["-S", "who", "whom"]).exits(2).silent();
    cluster["alpha"].csync2(["-uv"]).success().prints("").logs("Finished with 0 errors.");
    cluster["alpha"].csync2(["-R", "-G", "demo"]).exits(1);
}

fn rows_that_the_config_no_longer_covers_are_removed(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "kept/f" => "1", "dropped/f" => "22" });
    alpha.csync2(["-cr", "/"]).success();
    cluster.configure(
        "prefix d { on {alpha}: {alpha.tree}; }\n\
         group demo { host {alpha} {beta}; key demo.key; include %d%/kept; }\n",
    );
    let listed = alpha.csync2(["-L"]).success().stdout_text();
    assert_eq!(listed.lines().count(), 2, "what is not covered is not listed: {listed}");
    assert_eq!(alpha.rows(Table::File).len(), 5);
    alpha.csync2(["-R"]).success().silent();
    assert_eq!(alpha.rows(Table::File).len(), 2);
    let dirty: Vec<String> = alpha.rows(Table::Dirty);
    assert!(dirty.len() == 2 && dirty.iter().all(|row| row.starts_with("%25d%25/kept")), "{dirty:?}");
}

scenarios! { ours:
    a_closed_pipe_ends_the_program_quietly
    passwords_are_never_shown
    help_and_version_go_to_stdout
}

fn a_closed_pipe_ends_the_program_quietly(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    let many = (0..2000).fold(crate::support::Tree::new(), |tree, number| tree.with(format!("{number:0100}"), "x"));
    alpha.put(&many);
    alpha.csync2(["-cIr", "/"]).success();
    let list = wrap(&["bash", "-c", "\"$@\" | head -n 1", "list"], &alpha.command(alpha.program, ["-L"]));
    let output = run(list).success();
    assert_eq!((output.stdout_text().lines().count(), output.stderr_text().as_str()), (1, ""), "{output:?}");
}

fn passwords_are_never_shown(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    let url = "pgsql://csync2:hush-hush@127.0.0.1:1/somewhere";
    let output = cluster["alpha"].csync2(["-L", "-vvv", "-D", url]).exits(1).logs("somewhere").logs("127.0.0.1");
    assert!(!format!("{}{}", output.stdout_text(), output.stderr_text()).contains("hush-hush"), "{output:?}");
}

fn help_and_version_go_to_stdout(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    for (flag, text) in [("--help", "--allow-mass-removal"), ("--version", env!("CARGO_PKG_VERSION"))] {
        let mut command = alpha.bare_command(alpha.program);
        command.arg(flag);
        let output = run(command).success();
        assert!(output.stdout_text().contains(text), "{output:?}");
    }
}
