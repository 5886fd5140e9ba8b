//! What comes in the package beside the program: a daemon that systemd starts, and csync2-compare. Man pages, completions, units and
//! lists of files are in tests/packaging.rs, the package itself in tests/packages.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::process::{Daemon, run, wrap};
use crate::support::{Cast, Program, scenarios, tree};

scenarios! { ours:
    systemd_has_the_port_and_hears_of_start_and_stop
    csync2_compare_tells_what_two_hosts_hold
}

/// `csync2-daemon.socket`: nobody listens but systemd, until the first peer comes.
fn systemd_has_the_port_and_hears_of_start_and_stop(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let notify = beta.base().join("notify");
    let systemd = UnixDatagram::bind(&notify).expect("bind a socket");
    systemd.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
    let heard = || {
        let mut message = [0; 64];
        let length = systemd.recv(&mut message).expect("a message");
        String::from_utf8_lossy(&message[..length]).trim().to_owned()
    };

    let mut daemon = beta.command(Program::Ours, ["-ii", "-v"]);
    daemon.env("NOTIFY_SOCKET", &notify);
    let address = format!("{}:{}", beta.host, beta.port);
    let passed: Vec<String> = ["CSYNC2_SYSTEM_DIR", "NOTIFY_SOCKET", "LC_ALL"]
        .into_iter()
        .flat_map(|name| ["-E".to_owned(), name.to_owned()])
        .collect();
    let mut activate = vec!["systemd-socket-activate", "-l", &address];
    activate.extend(passed.iter().map(String::as_str));
    let daemon = Daemon::start(&wrap(&activate, &daemon), "Listening on");
    alpha.put(&tree! { "f" => "1", "d/g" => "22" });
    alpha.csync2(["-x"]).success().silent();
    cluster.expect_agreement();
    assert_eq!(heard(), "READY=1");

    daemon.signal(Signal::TERM);
    assert_eq!(heard(), "STOPPING=1");
    let (code, log) = daemon.wait_with_log();
    assert_eq!(code, Some(0), "{}", log.join("\n"));
}

#[test]
fn a_socket_that_does_not_listen_is_refused() {
    let cluster = Cast::sqlite(Program::Ours).cluster(["alpha"]).build();
    let command = cluster["alpha"].command(Program::Ours, ["-ii"]);
    // A pipe in the place of the socket.
    let outer = wrap(&["sh", "-c", r#"exec 3<&0; LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@""#], &command);
    run(outer).exits(1).logs("Server error: ");
    // Nobody has the port: another process was meant by the variables.
    let mut command = cluster["alpha"].command(Program::Ours, ["-iii"]);
    command.env("LISTEN_FDS", "1").env("LISTEN_PID", "1");
    drop(Daemon::start(&command, "Csync2 daemon running."));
    let refused = TcpListener::bind((cluster["alpha"].host.as_str(), cluster["alpha"].port));
    drop(refused.expect("the port is free again"));
}

/// Both hosts have the same path for what they keep in step, each in a mount namespace of its own; ssh goes nowhere.
const SSH: &str = r#"#!/bin/sh
host=$1
shift
[ "$host" = {alpha} ] && node={dir}/alpha || node={dir}/beta
[ -d "$node" ] && [ "$host" != nowhere ] || { echo "ssh: no route to $host" >&2; exit 255; }
exec env HOST="$host" CSYNC2_SYSTEM_DIR="$node/etc" NODE="$node" unshare -m sh -c '
    mount --bind "$NODE/tree" {dir}/shared
    exec sh -c "$1"
' sh "$*"
"#;

fn csync2_compare_tells_what_two_hosts_hold(cast: Cast) {
    let config = "nossl * *; group g { host {alpha} {beta}; key demo.key; include {dir}/shared; exclude *.tmp; }";
    let cluster = cast.cluster(["alpha", "beta"]).config(config).build();
    let directory = cluster.directory();
    let bin = directory.join("bin");
    fs::create_dir(&bin).expect("make a directory");
    fs::create_dir(directory.join("shared")).expect("make a directory");
    let program = Program::Ours.path();
    let csync2 = format!("#!/bin/sh\nexec {} -N \"$HOST\" -D \"$NODE/db\" \"$@\"\n", program.display());
    for (name, text) in [("ssh", cluster.fill_in(SSH)), ("csync2", csync2)] {
        fs::write(bin.join(name), text).expect("write a script");
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    let [alpha, beta] = ["alpha", "beta"].map(|name| &cluster[name]);
    alpha.put(&tree! { "same" => "1", "two  blanks" => "2", "it's" => "33", "only here" => "4", "x.tmp" => "5", "kind" => "6" });
    beta.put(&tree! { "same" => "1", "two  blanks" => "2", "it's" => "4", "only there" => "4", "kind/f" => "6" });
    for (node, target) in [(alpha, "same"), (beta, "it's")] {
        std::os::unix::fs::symlink(target, node.path("link")).expect("make a link");
    }

    let compare = |arguments: &[&str]| {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/csync2-compare"));
        command.args(arguments).env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()));
        run(command)
    };
    let base = directory.join("shared").display().to_string();
    let lines = [
        ("X X", "it's"),
        ("X X", "kind"),
        ("- X", "kind/f"),
        ("X X", "link"),
        ("X -", "only here"),
        ("- X", "only there"),
    ];
    let expected: String = lines.map(|(sign, name)| format!("{sign} {base}/{name}\n")).concat();
    compare(&[&alpha.host, &beta.host, &base]).success().prints(&expected);
    let told = compare(&["-v", &alpha.host, &beta.host, &base]).success().stdout_text();
    assert!(told.starts_with(&expected) && told.contains("Differences: 6"), "{told}");
    compare(&[&alpha.host, &alpha.host]).exits(1).logs_nothing();
    compare(&["nowhere", &beta.host, &base])
        .exits(1)
        .prints("")
        .logs("csync2-compare: cannot list the files on nowhere");
    fs::remove_file(beta.system_dir().join("csync2.cfg")).expect("remove the config");
    compare(&[&alpha.host, &beta.host, &base]).exits(1).prints("").logs("csync2-compare: csync2 has failed on");
}
