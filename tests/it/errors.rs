//! What a person is told when something is not as it should be: the text that scripts know, the likely cause, the next
//! step. Once for what is no error of a run.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::thread;

use crate::support::cluster::{Cluster, Node};
use crate::support::process::{Daemon, Output, run, wrap};
use crate::support::session::Session;
use crate::support::tree::device;
use crate::support::{Cast, Program, Table, certs, scenarios, tree};

scenarios! { ours as client:
    a_denial_says_what_does_not_fit
    a_peer_without_the_configuration_is_told
    a_refused_plain_session_names_the_nossl_entry
    a_peer_without_a_certificate_is_told
    an_address_that_does_not_fit_the_name_is_told
    a_parent_that_nobody_may_make_is_told
}

/// The lines of level 0 that say why a push of one file to beta failed, in one.
fn refused_push(cluster: &Cluster, arguments: &[&str]) -> String {
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "f" => "content" });
    let output = alpha.csync2(arguments).exits(1).prints("").logs("Finished with ");
    assert!(alpha.rows(Table::Dirty).iter().any(|row| row.contains("/f")), "{output:?}");
    output.stderr_text()
}

#[track_caller]
fn expect(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is missing in\n{text}");
    }
}

/// Replaces beta's configuration, and starts it again: the C program's daemon has read the old one.
fn configure_beta(cluster: &Cluster, text: &str) {
    let beta = &cluster["beta"];
    fs::write(beta.system_dir().join("csync2.cfg"), cluster.fill_in(text)).expect("write the config");
    beta.stop();
    beta.serve();
}

fn a_denial_says_what_does_not_fit(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let denied = cluster.fill_in("ERROR: {beta}: %d%: Permission denied!");
    let prefix = "nossl * *; prefix d { on *: {beta.tree}; }\n";
    let other_key = cluster["beta"].system_dir().join("other.key");
    fs::write(other_key, "another.key.another.key.another.key\n").expect("write a key");
    let key = "group demo { host {alpha} {beta}; key other.key; include %d%; }";
    let no_group = "group demo { host {alpha} {beta}; key demo.key; include /elsewhere; }";
    let not_a_member = "group demo { host {alpha} {beta}; key demo.key; include /elsewhere; }
         group more { host {beta} gamma; key demo.key; include %d%; }";
    let key_of_that_group = "group demo { host {alpha} {beta}; key demo.key; include /elsewhere; }
         group more { host {alpha} {beta}; key other.key; include %d%; }";
    for (config, reason) in [
        (key, "The key is that of no group here that has you in it."),
        (no_group, "No group here covers the file."),
        (not_a_member, "The groups here that cover the file do not have you in them."),
        (key_of_that_group, "The group here that covers the file has another key."),
    ] {
        configure_beta(&cluster, &format!("{prefix}{config}"));
        let text = refused_push(&cluster, &["-x", "-P", &cluster["beta"].host]);
        expect(&text, &[&denied, "Here it is in the group demo.", "key files of both hosts"]);
        if cast.all_ours() {
            expect(&text, &[&format!("{denied} {reason} Here it is")]);
            expect(&text, &[&format!("%d%/f: Permission denied! {reason}\n")]);
        } else {
            let guess = "Either no group of {beta} has both {alpha} and the file in it, or its key is another";
            // Advice is given once, not with each file.
            expect(&text, &[&cluster.fill_in(guess), "%d%/f: Permission denied!\n"]);
        }
    }
}

fn a_peer_without_the_configuration_is_told(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    fs::copy(alpha.system_dir().join("csync2.cfg"), alpha.system_dir().join("csync2_web.cfg")).expect("copy");
    alpha.put(&tree! { "f" => "content" });
    let output = alpha.csync2(["-x", "-C", "web"]).exits(1);
    let failed = format!("ERROR: Connection to remote host `{}' failed.\n", beta.host);
    let cause = format!("Either {} has no csync2_web.cfg, or there is an error in it", beta.host);
    expect(&output.stderr_text(), &[&failed, &cause, "`csync2 -C web -M` there"]);
}

fn a_refused_plain_session_names_the_nossl_entry(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    configure_beta(
        &cluster,
        "prefix d { on *: {beta.tree}; } group demo { host {alpha} {beta}; key demo.key; include %d%; }",
    );
    let text = refused_push(&cluster, &["-x"]);
    let error = "ERROR: {beta} does not accept us as {alpha}: SSL encrypted connection expected! Our configuration has \
                 a nossl entry for {beta}, and that of {beta} has none for {alpha}: compare the two.";
    expect(&text, &[&cluster.fill_in(error)]);
}

fn a_peer_without_a_certificate_is_told(cast: Cast) {
    let cluster = Cast { tls: true, ..cast }.cluster(["alpha", "beta"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    fs::remove_file(beta.system_dir().join("csync2_ssl_cert.pem")).expect("remove");
    let failed = cluster.fill_in("ERROR: Connection to remote host `{beta}' failed.\n");
    expect(&refused_push(&cluster, &["-x"]), &[&failed, "csync2_ssl_cert.pem"]);
    fs::remove_file(alpha.system_dir().join("csync2_ssl_key.pem")).expect("remove");
    let ours = format!("cannot use {}/csync2_ssl_key.pem: No such file or directory; make a new pair with: csync2", {
        alpha.system_dir().display()
    });
    expect(&refused_push(&cluster, &["-x"]), &[&failed, &ours]);
}

/// As behind a NAT: alpha is known under an address that its connections do not come from.
fn an_address_that_does_not_fit_the_name_is_told(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).hosts("{alpha}@127.0.0.77 {beta}").start();
    let text = refused_push(&cluster, &["-x"]);
    let error = cluster.fill_in("ERROR: {beta} does not accept us as 127.0.0.77: Identification failed!");
    let cause = cluster.fill_in("It sees us come from {alpha}. 127.0.0.77 must resolve to {alpha} there");
    expect(&text, &[&error, &cause]);
    if cast.all_ours() {
        expect(
            &text,
            &[&cluster.fill_in("Identification failed! 127.0.0.77 does not resolve here to {alpha}. It sees")],
        );
        cluster["beta"].daemon().wait_for(&cluster.fill_in(
            "127.0.0.77: Identification failed! It connects from {alpha}, and its name resolves here to: 127.0.0.77.",
        ));
    }
}

/// The directory of the prefix itself is no file of the group: only a person can make what it stands in.
fn a_parent_that_nobody_may_make_is_told(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let config = "nossl * *; prefix d { on {alpha}: {alpha.tree}; on {beta}: {beta.tree}/none/deeper; }
                  group demo { host {alpha} {beta}; key demo.key; include %d%/sub; }";
    cluster.configure(&cluster.fill_in(config));
    configure_beta(&cluster, config);
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "sub/f" => "content", "sub/g" => "more content" });
    let text = alpha.csync2(["-x"]).exits(1).stderr_text();
    let error = "ERROR: {beta}: %d%/sub: Parent dir missing. %d% does not exist there and cannot be made from here";
    expect(&text, &[&cluster.fill_in(error), "Else make it there.", "Finished with "]);
    assert_eq!(text.matches("cannot be made from here").count(), 1, "{text}");
    fs::create_dir_all(cluster["beta"].path("none/deeper")).expect("make it there");
    alpha.csync2(["-u"]).success().silent();
    assert_eq!(cluster["beta"].read("none/deeper/sub/f"), "content");
}

scenarios! { tls:
    a_changed_certificate_is_told_from_a_wrong_address
}

fn a_changed_certificate_is_told_from_a_wrong_address(cast: Cast) {
    if cast.client == Program::Reference {
        return;
    }
    let cluster = cast.cluster(["alpha", "beta"]).start();
    cluster["alpha"].put(&tree! { "first" => "1" });
    cluster["alpha"].csync2(["-x"]).success();
    certs::write_new(cluster["alpha"].system_dir(), "another");
    let text = refused_push(&cluster, &["-x"]);
    if cast.all_ours() {
        let reason = cluster.fill_in("Identification failed! Another certificate is pinned here for {alpha}.");
        expect(&text, &[&reason, "If ours was changed on purpose"]);
    } else {
        expect(&text, &["Identification failed!", "the one that is pinned there (`csync2 --rm-ssl-cert"]);
    }
}

#[test]
fn a_peer_that_cannot_be_reached_is_told() {
    let cluster = Cast::sqlite(Program::Ours).cluster(["alpha", "beta"]).build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let failed = cluster.fill_in("ERROR: Connection to remote host `{beta}' failed.\n");
    expect(&refused_push(&cluster, &["-x"]), &[&failed, "Connection refused (does csync2 listen there?)"]);
    // Something else listens there.
    let listener = TcpListener::bind((beta.host.as_str(), beta.port)).expect("listen");
    let stranger = thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("accept");
        socket.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").expect("write");
        let _ = BufReader::new(socket).read_line(&mut String::new());
    });
    cluster
        .configure(&fs::read_to_string(alpha.system_dir().join("csync2.cfg")).expect("read").replace("nossl * *;", ""));
    certs::write_new(alpha.system_dir(), "alpha");
    let answer = "the peer answered SSL with `SSH-2.0-OpenSSH_9.2`. Is it a csync2 that allows TLS";
    expect(&refused_push(&cluster, &["-x"]), &[&failed, answer]);
    stranger.join().expect("the stranger");
    let unknown = fs::read_to_string(alpha.system_dir().join("csync2.cfg")).expect("read");
    cluster.configure(&unknown.replace(&beta.host, "no.such.host.invalid"));
    alpha.csync2(["-mr", "/"]).success();
    let output = alpha.csync2(["-u", "-P", "no.such.host.invalid"]).exits(1);
    expect(&output.stderr_text(), &["`no.such.host.invalid' failed.\n", "(is the name in the DNS or /etc/hosts?)"]);
}

/// Who does not read on gets the texts that all peers know, and who has no key learns nothing of what is covered.
#[test]
fn reasons_are_for_those_that_read_on() {
    let cluster = Cast::sqlite(Program::Ours).cluster(["alpha", "beta"]).in_group("exclude %d%/no;").start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let greet = |probe: &str| {
        let mut session = Session::open(alpha, beta);
        session.ask("CONFIG ", "OK (cmd_finished).");
        if !probe.is_empty() {
            session.ask(probe, &cluster.fill_in("Dear {alpha}, please identify first."));
        }
        session
    };
    for probe in ["", "ATOMICPATCH KEY %25d%25/f 0 0 33188 1"] {
        let mut session = greet(probe);
        session.ask("HELLO localhost.invalid", "Identification failed!");
        session.ask(&format!("HELLO {}", alpha.host), "OK (cmd_finished).");
        session.ask("SIG KEY %25d%25/no", "Permission denied!");
    }
    let mut session = greet("ATOMICPATCH");
    let reason = cluster.fill_in("Identification failed! localhost.invalid does not resolve here to {alpha}.");
    session.ask("HELLO localhost.invalid", &reason);
    session.ask(&format!("HELLO {}", alpha.host), "OK (cmd_finished).");
    session.ask("SIG KEY %25d%25/no", "Permission denied! No group here covers the file.");
    for file in ["%25d%25/no", "%25d%25/f", "/none"] {
        let request = format!("SIG wrong-key-wrong-key-wrong-key-wrong-key {file}");
        session.ask(&request, "Permission denied! The key is that of no group here that has you in it.");
    }
    session.ask("SIG KEY %25d%25/a/../b", "Permission denied!");
}

#[test]
fn a_host_in_no_group_is_told_its_possible_names() {
    let cluster = Cast::sqlite(Program::Ours).cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    let without_name = |arguments: &[&str]| {
        let mut command = alpha.bare_command(Program::Ours);
        command.args(["-D", &alpha.database.option()]).args(arguments);
        run(command)
    };
    let config = |hosts: &str, more: &str| {
        cluster.configure(&format!(
            "nossl * *; {more} prefix d {{ on *: {{alpha.tree}}; }} group g {{ host {hosts}; key demo.key; include %d%; }}"
        ));
    };
    let stranger = |output: Output| {
        assert!(output.stderr_text().starts_with("This host ("), "{output:?}");
        output.exits(1).logs(") is not a member of any configured group.\n")
    };
    config("{alpha} 198.51.100.1", "");
    stranger(without_name(&["-M"])).logs(&cluster.fill_in(
        "The configuration names these hosts: {alpha} 198.51.100.1. {alpha} resolves to an address of this machine. \
         Name this host with -N {alpha}, or with --auto-name.",
    ));
    // Taken, said once, and after that with -v only.
    let taken = cluster.fill_in("this host goes by the name {alpha}, the only one that resolves to an address");
    alpha.put(&tree! { "f" => "content" });
    without_name(&["--auto-name", "-cr", "/"]).success().logs(&taken);
    without_name(&["--auto-name", "-cr", "/"]).success().silent();
    without_name(&["--auto-name", "-crv", "/"]).success().logs(&taken);
    config("{alpha} 198.51.100.1", "auto-name yes;");
    without_name(&["-M"])
        .success()
        .prints(&cluster.fill_in("chary\t{alpha}\t198.51.100.1\t%d%\nchary\t{alpha}\t198.51.100.1\t%d%/f\n"));
    // As if it had been given with -N: listened on, and connected from.
    let mut daemon = alpha.bare_command(Program::Ours);
    daemon.args(["-D", &alpha.database.option(), "-p", &alpha.port.to_string(), "-iiv"]);
    drop(Daemon::start(&daemon, &format!("Listening on {}:{} as {}.", alpha.host, alpha.port, alpha.host)));
    config("{alpha} no.such.host.invalid@{beta}", "auto-name yes;");
    without_name(&["-mr", "/"]).success();
    let pushed = without_name(&["-v", "-p", &alpha.port.to_string(), "-u"]).exits(1);
    pushed
        .logs(&cluster.fill_in("Bound to {alpha}:0 as {alpha}."))
        .logs(&cluster.fill_in("ERROR: Connection to remote host `{beta}' failed."));
    // Never against -N, and never one of several.
    stranger(without_name(&["-M", "-N", "stranger"]));
    config("{alpha} {beta} 198.51.100.1", "auto-name yes;");
    stranger(without_name(&["-M"])).logs("so --auto-name takes none");
    config("198.51.100.1 203.0.113.1", "auto-name yes;");
    stranger(without_name(&["-M"])).logs("None of them resolves to an address of this machine.");
}

#[test]
fn a_server_says_what_is_in_its_way() {
    let cluster = Cast::sqlite(Program::Ours).cluster(["alpha", "beta"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let taken = format!(
        "Server error: Address already in use. Something listens on {}:{} already, most likely another csync2;",
        beta.host, beta.port
    );
    beta.csync2(["-ii"]).exits(1).logs(&taken);
    let foreign = "Server error: Cannot assign requested address. 198.51.100.1:";
    alpha.csync2(["-ii", "-N", "198.51.100.1"]).exits(1).logs(foreign);
    let unknown = "Server error: failed to lookup address information: Name or service not known. The address was ";
    alpha.csync2(["-ii", "-N", "no.such.host.invalid"]).exits(1).logs(unknown);
    // It serves all the same: the peer chooses the configuration, and this one may be mended.
    alpha.serve_with(&["-ii", "-C", "nosuch"]);
    alpha.daemon().wait_for("WARNING: Can not open config file `");
}

scenarios! { ours:
    a_standing_fact_is_told_once
    an_include_without_its_directory_is_told_once
    a_lost_attribute_is_told_once
    what_an_ordinary_user_may_not_do_is_told_of_each_file
}

fn chmod(node: &Node, file: &str, mode: u32) {
    fs::set_permissions(node.system_dir().join(file), fs::Permissions::from_mode(mode)).expect("chmod");
}

fn a_standing_fact_is_told_once(cast: Cast) {
    let cluster = Cast { tls: true, ..cast }.cluster(["alpha", "beta"]).build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    chmod(alpha, "csync2_ssl_key.pem", 0o600);
    certs::write_by_the_manual(beta.system_dir(), 1024);
    chmod(beta, "csync2_ssl_key.pem", 0o644);
    beta.serve();
    // The configuration: a key file that everybody reads.
    let key = "demo.key can be read by every user of this host";
    alpha.csync2(["-cr", "/"]).success().silent();
    chmod(alpha, "demo.key", 0o644);
    alpha.csync2(["-M"]).logs_no("WARNING");
    alpha
        .csync2(["-cr", "/"])
        .success()
        .logs(&format!("WARNING: {}/csync2.cfg:", alpha.system_dir().display()))
        .logs(key);
    alpha.csync2(["-cr", "/"]).success().silent();
    alpha.csync2(["-crv", "/"]).success().logs(key);
    chmod(alpha, "demo.key", 0o600);
    alpha.csync2(["-cr", "/"]).success().silent();
    chmod(alpha, "demo.key", 0o644);
    alpha.csync2(["-cr", "/"]).success().logs(key);
    // The certificates, ours and the peer's, on both sides.
    let weak = format!("WARNING: the certificate of {} has an RSA key of 1024 bits", beta.host);
    alpha.put(&tree! { "f" => "content" });
    alpha.csync2(["-x"]).success().logs(&weak);
    beta.daemon().wait_for("WARNING: our certificate ");
    beta.daemon().wait_for("csync2_ssl_key.pem can be read by every user of this host");
    alpha.put(&tree! { "f" => "other content" });
    alpha.csync2(["-x"]).success().silent();
}

fn an_include_without_its_directory_is_told_once(cast: Cast) {
    let includes = "include {dir}/none/*.conf {dir}/none/deeper/x %d%/slip/*; include {dir}/optional %gone%;";
    let cluster = cast.cluster(["alpha", "beta"]).in_group(includes).top("prefix gone { on *: {dir}/gone; }").build();
    let (alpha, dir) = (&cluster["alpha"], cluster.directory());
    let missing = |place: &str| format!("and there is no directory {}/{place} on this host", dir.display());
    let told = ["none", "none/deeper", "alpha/tree/slip", "gone"].map(missing);
    let text = alpha.csync2(["-cr", "/"]).success().stderr_text();
    expect(&text, &told.each_ref().map(String::as_str));
    assert_eq!(text.lines().count(), 4, "what may be a file that other hosts have is not told: {text}");
    expect(&text, &[&format!("WARNING: the group demo includes {}/none/*.conf, and there", dir.display())]);
    alpha.csync2(["-cr", "/"]).success().silent();
    alpha.put(&tree! { "slip/f" => "content" });
    alpha.csync2(["-cr", "/"]).success().silent();
    alpha.csync2(["-cr", "/", "-G", "demo"]).success().silent();
    alpha.csync2(["-crv", "/"]).success().logs(&missing("gone")).logs_no(&missing("alpha/tree/slip"));
}

const NOBODY: u32 = 65534;

/// Gives an ordinary user what a server needs.
fn give_to_nobody(node: &Node) {
    for place in ["", "etc", "etc/demo.key", "etc/csync2.cfg", "db", "tree"] {
        chown(node.base().join(place), Some(NOBODY), Some(NOBODY)).expect("chown");
    }
}

/// A server of that user, for one session.
fn served_by_nobody(node: &Node) -> Daemon {
    let ids = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    Daemon::start(&wrap(&ids, &node.command(Program::Ours, ["-iii"])), "Csync2 daemon running.")
}

/// An ordinary user serves what it may, and the rest is refused file by file, in the system's words.
fn what_an_ordinary_user_may_not_do_is_told_of_each_file(cast: Cast) {
    for options in [&["-u"][..], &["-u", "--no-batches"]] {
        let cluster = cast.cluster(["alpha", "beta"]).build();
        let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
        give_to_nobody(beta);
        chown(alpha.tree_dir(), Some(NOBODY), Some(NOBODY)).expect("chown");
        alpha.put(&tree! { "theirs" => "of root", "null" => device(1, 3, false), "ours" => "of nobody" });
        chown(alpha.path("ours"), Some(NOBODY), Some(NOBODY)).expect("chown");
        alpha.csync2(["-cr", "/"]).success().silent();
        let server = served_by_nobody(beta);
        let refused = alpha.csync2(options).exits(1);
        for name in ["theirs", "null"] {
            let told = format!("%d%/{name}: Operation not permitted");
            assert!(refused.stderr_text().contains(&told), "{refused:?}");
        }
        server.wait();
        assert_eq!(beta.read("ours"), "of nobody");
        let dirty = alpha.rows(Table::Dirty);
        assert!(dirty.len() == 2 && dirty.iter().all(|row| !row.contains("/ours")), "{dirty:?}");
    }
}

/// The server is an ordinary user, who cannot give a file to root again.
fn a_lost_attribute_is_told_once(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).top("ignore uid gid;").build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    give_to_nobody(beta);
    let push = |content: &str| {
        let server = served_by_nobody(beta);
        alpha.put(&tree! { "f" => content });
        alpha.csync2(["-x"]).success().silent();
        server.wait_with_log().1
    };
    let hand_back = || chown(beta.path("f"), Some(0), Some(0)).expect("chown");
    push("first");
    hand_back();
    let told = "WARNING: a file that is replaced does not keep everything: take over owner: Operation not permitted";
    let log = push("second, longer");
    assert!(log.iter().any(|line| line.contains(told)), "{log:?}");
    hand_back();
    let log = push("third, of yet another length");
    assert!(!log.iter().any(|line| line.contains("WARNING")), "{log:?}");
}
