//! The calls that other software makes: scripts of administrators, cron, inetd and systemd, watchers such as lsyncd,
//! monitoring, deployments. Each is made as it is found in the field, and must go on doing what it does.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::{fs, thread};

use crate::support::cast::Backend;
use crate::support::cluster::{Cluster, Node};
use crate::support::database::Database;
use crate::support::process::{Output, run, wrap};
use crate::support::tree::file;
use crate::support::{Cast, Postgres, Program, Table, Tree, dir, scenarios, tree};

scenarios! {
    a_path_is_marked_forced_and_pushed
    everything_is_marked_forced_and_pushed
    stdout_tells_monitoring_whether_anything_waits
    a_watcher_leaves_hints_and_updates
    a_new_state_begins_where_the_old_one_was_deleted
    a_comparison_is_read_by_exit_code_and_put_right
}

scenarios! { tls:
    inetd_hands_over_connections
    systemd_hands_over_connections
    a_daemon_with_timestamps_tells_what_each_session_took
}

scenarios! { one program:
    a_named_config_is_checked
    groups_are_pushed_by_name
    one_group_goes_to_one_host
    a_path_is_checked_into_another_database
}

scenarios! { ours:
    all_nodes_are_updated_at_once
    the_forks_option_for_whole_files_is_taken
}

/// A line of a script on the node alpha, with `{NAME}` and `{NAME.tree}` filled in.
#[track_caller]
fn call(cluster: &Cluster, line: &str) -> Output {
    cluster["alpha"].csync2(cluster.fill_in(line).split(' '))
}

/// The rows of `-M` on alpha: how, peer and file.
#[track_caller]
fn waiting(cluster: &Cluster) -> Vec<String> {
    let listed = cluster["alpha"].csync2(["-M"]).stdout_text();
    let short = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        format!("{} {}", fields[0], fields[3])
    };
    listed.lines().map(short).collect()
}

/// After a conflict, or when a peer was made anew: `csync2 -rm PATH; csync2 -rf PATH; csync2 -rxv PATH`.
fn a_path_is_marked_forced_and_pushed(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(&tree! { "conf/a" => "a", "conf/b" => "bb", "other" => "common" });
    alpha.csync2(["-x"]).success();
    beta.put(&tree! { "conf/a" => "beta's own idea of a", "other" => "beta's own idea" });
    beta.remove("conf/b");

    call(&cluster, "-rm {alpha.tree}/conf").success().silent();
    assert_eq!(waiting(&cluster), ["chary %d%/conf", "chary %d%/conf/a", "chary %d%/conf/b"]);
    call(&cluster, "-rf {alpha.tree}/conf").success().silent();
    assert_eq!(waiting(&cluster), ["force %d%/conf", "force %d%/conf/a", "force %d%/conf/b"]);
    alpha.put(&tree! { "conf/new" => "made since", "outside" => "not asked for" });
    call(&cluster, "-rxv {alpha.tree}/conf").success().logs("Marking file as dirty: %d%/conf/new");
    if alpha.program == Program::Reference {
        // It has marked, but pushes nothing that is below a prefix and was named.
        call(&cluster, "-uv").success().logs("Updating %d%/conf/a on ");
    }
    beta.expect(tree! { "conf/a" => "a", "conf/b" => "bb", "conf/new" => "made since", "other" => "beta's own idea" });
    alpha.expect_clean();
}

/// `csync2 -mr /; csync2 -fr /; csync2 -xv`: the peers shall have what this host has.
fn everything_is_marked_forced_and_pushed(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta", "gamma"]).start();
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "f" => "common", "d/g" => "common, too", "unknown to beta" => "" });
    alpha.csync2(["-x"]).success();
    cluster["beta"].put(&tree! { "f" => "of beta, and longer" });
    cluster["gamma"].put(&tree! { "d/g" => file("common, too").mode(0o600) });
    cluster["beta"].remove("unknown to beta");

    call(&cluster, "-mr /").success().silent();
    let files = ["%d%", "%d%/d", "%d%/d/g", "%d%/f", "%d%/unknown to beta"];
    let rows = |how: &str| {
        files.iter().flat_map(|file| [format!("{how} {file}"), format!("{how} {file}")]).collect::<Vec<_>>()
    };
    assert_eq!(waiting(&cluster), rows("chary"));
    call(&cluster, "-fr /").success().silent();
    assert_eq!(waiting(&cluster), rows("force"));
    call(&cluster, "-xv").success().logs("Updating %d%/f on ").logs("Finished with 0 errors.");
    cluster.expect_agreement();
    alpha.expect_clean();
}

/// `test -z "$(csync2 -xvd)"`: the listing stands on stdout alone, and is empty exactly when nothing waits.
fn stdout_tells_monitoring_whether_anything_waits(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "d/f" => "1", "gone" => "22" });
    alpha.csync2(["-x"]).success();
    call(&cluster, "-xvd").success().prints("").logs("Finished with 0 errors.");

    let peer = format!("{:<15}", cluster["beta"].host);
    let lines = |output: Output| output.stdout_text().lines().map(str::to_owned).collect::<Vec<_>>();
    alpha.put(&tree! { "d/f" => "changed" });
    for _ in 0..2 {
        assert!(lines(call(&cluster, "-xvd").success()).contains(&format!("?M: {peer} %d%/d/f")));
    }
    call(&cluster, "-xv").success().prints("");
    call(&cluster, "-xvd").success().prints("");
    alpha.remove("gone");
    assert!(lines(call(&cluster, "-xvd").success()).contains(&format!("?D: {peer} %d%/gone")));
    call(&cluster, "-xv").success().prints("");
    call(&cluster, "-xvd").success().prints("");
    cluster.expect_agreement();
}

/// lsyncd and scripts around inotifywait: `csync2 -h FILE` for each event, `csync2 -cu` once in a while.
fn a_watcher_leaves_hints_and_updates(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "old name" => "moved", "written" => "1", "gone" => "22", "unwatched" => "333" });
    alpha.csync2(["-x"]).success();
    alpha.rename("old name", "new name");
    alpha.remove("gone");
    alpha.put(&tree! { "written" => "written twice", "made/f" => "4444", "unwatched" => "stays as it was" });
    for name in ["old name", "new name", "written", "gone", "written"] {
        alpha.csync2(["-h".as_ref(), alpha.path(name).as_os_str()]).success().silent();
    }
    // Several events at a time; of a new directory everything below.
    alpha.csync2(["-hr".as_ref(), alpha.path("made").as_os_str(), alpha.path("no longer there").as_os_str()]).success();
    alpha.csync2(["-cu"]).success().silent();
    cluster["beta"].expect(tree! {
        "new name" => "moved", "written" => "written twice", "made" => dir(), "made/f" => "4444", "unwatched" => "333",
    });
    alpha.csync2(["-H"]).exits(2).prints("");
    alpha.expect_clean();
    // Nothing has happened: nothing to do, nothing said.
    alpha.csync2(["-cu"]).success().silent();
}

/// `rm -r /var/lib/csync2/*`, while the daemons run: the next run makes a state anew and finds the peers up to date.
fn a_new_state_begins_where_the_old_one_was_deleted(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let content = tree! { "f" => "1", "d/g" => "22" };
    alpha.put(&content);
    alpha.csync2(["-x"]).success();
    let delete_state = |node: &Node| match &node.database {
        Database::Sqlite { directory, .. } => {
            for file in fs::read_dir(directory).expect("list the state") {
                fs::remove_file(file.expect("list the state").path()).expect("remove the state");
            }
        }
        Database::Postgres { name } => {
            Postgres::shared().sql("postgres", &format!("DROP DATABASE \"{name}\" WITH (FORCE)"));
        }
    };
    delete_state(alpha);
    alpha.csync2(["-xv"]).success().logs("Marking file as dirty: %d%/d/g").logs("File is already up to date on peer.");
    beta.expect(content);
    alpha.expect_clean();

    // The served state is made anew by the session that needs it. A file that it does not know may be news of its own.
    delete_state(beta);
    alpha.put(&tree! { "f" => "changed since", "new" => "333" });
    alpha.csync2(["-x"]).exits(1).logs("Finished with 1 errors.");
    beta.expect(tree! { "f" => "1", "d/g" => "22", "new" => "333" });
    assert_eq!(waiting(&cluster), ["chary %d%/f"]);
    let known = beta.rows(Table::File);
    assert!(known.iter().any(|row| row.starts_with("%25d%25/new\t")), "{known:?}");
    assert!(beta.rows(Table::Dirty).iter().any(|row| row.starts_with("%25d%25/f\t")));
    alpha.csync2(["-fr", "/"]).success();
    alpha.csync2(["-u"]).success();
    cluster.expect_agreement();
}

/// `csync2 -T LOCAL REMOTE` for its exit code; `csync2 -TUI; csync2 -u` and `csync2 -TUXI; csync2 -u` where hosts were set up
/// apart from each other and one of them is right.
fn a_comparison_is_read_by_exit_code_and_put_right(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta", "gamma"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    for node in cluster.nodes() {
        node.put(&tree! { "same" => "on all", "d/f" => "as it shall be" });
    }
    beta.put(&tree! { "d/f" => "as it was once upon a time", "left over" => "long ago" });
    for node in cluster.nodes() {
        node.csync2(["-cIr", "/"]).success();
    }
    let pair = "{alpha}\t{beta}\t%d%";
    call(&cluster, "-T {alpha} {gamma}").exits(2).prints("");
    let differences = cluster.fill_in(&format!("X\t{pair}/d/f\nR\t{pair}/left over\n"));
    call(&cluster, "-T {alpha} {beta}").success().prints(&differences);

    call(&cluster, "-TUI").success().prints(&differences);
    let rows = |file: &str| cluster.fill_in(&format!("chary\t{pair}/{file}\n"));
    call(&cluster, "-M").success().prints(&rows("d/f"));
    call(&cluster, "-u").success().silent();
    assert_eq!(beta.read("d/f"), "as it shall be");

    call(&cluster, "-TUXI").success().prints(&cluster.fill_in(&format!("R\t{pair}/left over\n")));
    call(&cluster, "-M").success().prints(&rows("left over"));
    call(&cluster, "-u").success().silent();
    cluster.expect_agreement();
    call(&cluster, "-T {alpha} {beta}").exits(2).prints("");
    call(&cluster, "-T").exits(2).prints("");
    beta.stop();
    call(&cluster, "-T {alpha} {beta}").exits(1).prints("");
    alpha.expect_clean();
}

/// Pushes from alpha while the test listens for beta, accepts the one connection, and has `server` start on it.
fn push_to_accepted(cluster: &Cluster, arguments: &[&str], wire: fn(&mut Command, OwnedFd)) {
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let listener = TcpListener::bind((beta.host.as_str(), beta.port)).expect("listen");
    let push = alpha.command(alpha.program, ["-xv"]);
    let push = thread::spawn(move || run(push));
    let (connection, _) = listener.accept().expect("accept");
    let mut command = wrap(&["setpriv", "--pdeathsig", "KILL"], &beta.command(beta.program, arguments));
    wire(&mut command, connection.into());
    let mut server = command.spawn().expect("start the server");
    // The command holds copies of the socket.
    drop(command);
    push.join().expect("the push").success().logs("Finished with 0 errors.");
    assert_eq!(server.wait().expect("wait for the server").code(), Some(0));
    cluster.expect_agreement();
    alpha.expect_clean();
}

/// `csync2 stream tcp nowait root /usr/sbin/csync2 csync2 -i -l -N HOST`: the socket is stdin, stdout and stderr.
fn inetd_hands_over_connections(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    // The C program writes what `-vvv` prints into the socket.
    let verbosity = if cast.server == Program::Ours { "-vvv" } else { "-v" };
    for tree in [tree! { "f" => "1", "d/g" => "22" }, tree! { "f" => "changed" }] {
        cluster["alpha"].put(&tree);
        push_to_accepted(&cluster, &["-i", "-l", verbosity], |command, socket| {
            let copy = || Stdio::from(socket.try_clone().expect("dup"));
            command.stdin(copy()).stdout(copy()).stderr(copy());
        });
    }
}

/// `Accept=yes`, `StandardInput=socket`: stdin and stdout are the socket, stderr is the journal, and the usual variables
/// tell of a socket that is no listening one.
fn systemd_hands_over_connections(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    cluster["alpha"].put(&tree! { "f" => "1", "d/g" => "22" });
    push_to_accepted(&cluster, &["-i"], |command, socket| {
        let copy = || Stdio::from(socket.try_clone().expect("dup"));
        command.stdin(copy()).stdout(copy()).stderr(Stdio::null());
        command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "connection").env("REMOTE_ADDR", "127.0.0.1");
    });
}

/// `csync2 -ii -t`: scripts wait for the line at the end of a session.
fn a_daemon_with_timestamps_tells_what_each_session_took(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    cluster["beta"].serve_with(&["-ii", "-t"]);
    cluster["alpha"].put(&tree! { "f" => "1" });
    cluster["alpha"].csync2(["-xt"]).success().logs("TOTALTIME: 0:00:");
    cluster["beta"].daemon().wait_for("TOTALTIME: 0:00:");
    cluster.expect_agreement();
}

/// `csync2 -cr -C NAME /`, then `csync2 -u -C NAME`.
fn a_named_config_is_checked(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "web/index" => "<html>", "mail/box" => "From " });
    let config = "nossl * *; prefix d { on {alpha}: {alpha.tree}; on {beta}: {beta.tree}; }\n\
        group web { host {alpha} {beta}; key demo.key; include %d%/web; }\n";
    for node in cluster.nodes() {
        fs::write(node.system_dir().join("csync2_web.cfg"), cluster.fill_in(config)).expect("write a config");
    }
    call(&cluster, "-cr -C web /").success().silent();
    let listed = call(&cluster, "-M -C web").success().stdout_text();
    assert!(listed.contains("%d%/web/index\n") && !listed.contains("mail"), "{listed}");
    call(&cluster, "-u -C web").success().silent();
    cluster["beta"].expect(tree! { "web" => dir(), "web/index" => "<html>" });
    call(&cluster, "-M -C web").exits(2).prints("");
}

/// Three groups with a file each on alpha, and how they reach beta and gamma.
fn three_groups(cast: Cast) -> Cluster {
    let group = |name: &str| {
        format!("group {name} {{ host {{alpha}} {{beta}} {{gamma}}; key demo.key; include %d%/{name}; }}\n")
    };
    let prefix = "prefix d { on {alpha}: {alpha.tree}; on {beta}: {beta.tree}; on {gamma}: {gamma.tree}; }\n";
    let config = [prefix.to_owned(), ["a", "b", "c"].map(group).concat()].concat();
    let cluster = cast.cluster(["alpha", "beta", "gamma"]).config(&config).start();
    cluster["alpha"].put(&tree! { "a/f" => "1", "b/f" => "22", "c/f" => "333" });
    cluster
}

/// `csync2 -xv -G a,b`
fn groups_are_pushed_by_name(cast: Cast) {
    let cluster = three_groups(cast);
    call(&cluster, "-xv -G a,b").success().logs("Updating %d%/a/f on ").logs_no("%d%/c");
    for node in ["beta", "gamma"] {
        cluster[node].expect(tree! { "a" => dir(), "a/f" => "1", "b" => dir(), "b/f" => "22" });
    }
    assert_eq!(cluster["alpha"].rows(Table::File).len(), 4);
    cluster["alpha"].expect_clean();
}

/// `csync2 -G GROUP -P HOST -xv`
fn one_group_goes_to_one_host(cast: Cast) {
    let cluster = three_groups(cast);
    call(&cluster, "-G b -P {gamma} -xv").success().logs("Updating %d%/b/f on ").logs_no("%d%/a");
    cluster["gamma"].expect(tree! { "b" => dir(), "b/f" => "22" });
    cluster["beta"].expect(tree! {});
    assert_eq!(waiting(&cluster), ["chary %d%/b", "chary %d%/b/f"], "for beta");
    call(&cluster, "-G b -xv").success();
    cluster["beta"].expect(tree! { "b" => dir(), "b/f" => "22" });
    cluster["alpha"].expect_clean();
}

/// `csync2 -crv -D DIR PATH`: a state of its own for a check that shall not touch the usual one.
fn a_path_is_checked_into_another_database(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "part/f" => "1", "part/g" => "22", "elsewhere" => "333" });
    alpha.csync2(["-L"]).exits(2).silent();
    fs::create_dir(cluster.directory().join("own")).expect("make a directory");
    call(&cluster, "-crv -D {dir}/own {alpha.tree}/part").success().logs("Marking file as dirty: %d%/part/f");
    let listed = call(&cluster, "-D {dir}/own -M").success().stdout_text();
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(cluster.directory().join("own").join(format!("{}.db3", alpha.host)).exists());
    call(&cluster, "-L").exits(2).silent();
    call(&cluster, "-crv -D {dir}/own {alpha.tree}/part").success().logs_no("Marking");
}

/// `csync2 -cr /`, then `csync2 -ub -P NODE &` for every node: many processes at once on one database.
fn all_nodes_are_updated_at_once(cast: Cast) {
    let names = ["alpha", "n1", "n2", "n3", "n4", "n5", "n6"];
    let builder = cast.cluster(names).role("n5", Program::Reference, Backend::Sqlite);
    let cluster = builder.role("n6", Program::Reference, cast.backend).start();
    let alpha = &cluster["alpha"];
    alpha.put(
        &(0..60).fold(Tree::new(), |tree, number| tree.with(format!("d{}/{number}", number % 7), "x".repeat(number))),
    );
    alpha.csync2(["-cr", "/"]).success().silent();
    let update = |node: &Node| {
        let command = alpha.command(alpha.program, ["-ub", "-P", &node.host]);
        thread::spawn(move || run(command))
    };
    // Twice each, as when cron starts the next round before the last one has ended.
    let updates: Vec<_> = cluster.nodes()[1..].iter().flat_map(|node| [update(node), update(node)]).collect();
    for update in updates {
        update.join().expect("an update").success().silent();
    }
    cluster.expect_agreement();
    alpha.expect_clean();
}

/// `csync2 -xa`
fn the_forks_option_for_whole_files_is_taken(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).start();
    let alpha = &cluster["alpha"];
    for content in ["first", "changed later"] {
        alpha.put(&tree! { "f" => file(content).mode(0o640).owner(12, 34) });
        alpha.csync2(["-xa"]).success().silent();
        cluster.expect_agreement();
    }
    alpha.expect_clean();
}
