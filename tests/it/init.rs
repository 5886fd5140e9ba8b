//! A host is set up: `--init`, until nothing is in the way any more.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;

use crate::support::cast::Backend;
use crate::support::cluster::{Cluster, Node};
use crate::support::process::{Output, run};
use crate::support::{Cast, Postgres, Program, tree};

const OURS: Cast = Cast { client: Program::Ours, server: Program::Ours, tls: true, backend: Backend::Sqlite };

/// Hosts on which csync2 is installed, and nothing else.
fn bare_hosts(backend: Backend) -> Cluster {
    let cluster = Cast { backend, ..OURS }.cluster(["alpha", "beta"]).build();
    for node in cluster.nodes() {
        fs::remove_dir_all(node.system_dir()).unwrap();
        fs::create_dir(node.system_dir()).unwrap();
    }
    cluster
}

fn init(node: &Node, hosts: &[&str]) -> Output {
    node.csync2([&["--init"], hosts].concat())
}

/// The lines that begin with a word, without it.
fn lines(output: &Output, word: &str) -> Vec<String> {
    let text = output.stdout_text();
    text.lines().filter_map(|line| Some(line.strip_prefix(word)?.trim().to_owned())).collect()
}

fn has(lines: &[String], part: &str) -> bool {
    lines.iter().any(|line| line.contains(part))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// What an administrator does with an editor.
fn fill_in(alpha: &Node) {
    fill_in_file(alpha, "csync2.cfg");
}

fn fill_in_file(alpha: &Node, config: &str) {
    let config = alpha.system_dir().join(config);
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace("# include /etc/apache2;", "include %d%;");
    let text = text.replace("/var/backups/csync2", alpha.base().join("backups").to_str().unwrap());
    let top = alpha.base().parent().unwrap().display();
    let prefix = ["alpha", "beta"].map(|name| format!("on {{{name}}}: {top}/{name}/tree;")).concat();
    fs::write(config, format!("{text}\nprefix d {{ {prefix} }}\n")).unwrap();
}

fn files(directory: &Path) -> Vec<(String, Vec<u8>, u32)> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let mut files: Vec<_> = entries
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap(), mode(&entry.path())))
        .collect();
    files.sort();
    files
}

#[test]
fn two_bare_hosts_are_set_up_and_sync() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let cluster = bare_hosts(backend);
        let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
        let etc = alpha.system_dir();
        alpha.csync2(["--init"]).exits(1).logs("name the other hosts, --init HOST..");
        let made = init(alpha, &[&beta.host]).exits(1);
        let told = lines(&made, "made");
        for file in ["csync2.cfg", "csync2.key_cluster", "csync2_ssl_cert.pem"] {
            assert!(has(&told, file), "{made:?}");
        }
        let modes = ["csync2.cfg", "csync2.key_cluster", "csync2_ssl_cert.pem", "csync2_ssl_key.pem"];
        assert_eq!(modes.map(|file| mode(&etc.join(file))), [0o644, 0o600, 0o644, 0o600]);
        assert!(
            matches!(lines(&made, "wrong").as_slice(), [only] if only.contains("the group cluster includes nothing")),
            "{made:?}"
        );
        fill_in(alpha);
        let config = cluster.fill_in(&fs::read_to_string(etc.join("csync2.cfg")).unwrap());
        fs::write(etc.join("csync2.cfg"), config).unwrap();

        let before = files(etc);
        let again = init(alpha, &[]).success();
        assert_eq!((files(etc), lines(&again, "made")), (before.clone(), vec![]), "nothing is overwritten");
        let next = lines(&again, "next");
        assert!(has(&next, "start the server") && has(&next, "scp -p"), "{again:?}");
        alpha.serve();
        assert!(has(&lines(&init(alpha, &[&beta.host]).success(), "fine"), "csync2 listens"));
        assert_eq!(files(etc), before);

        // The other host gets the configuration and the key.
        init(beta, &[]).exits(1);
        for file in ["csync2.cfg", "csync2.key_cluster"] {
            fs::copy(etc.join(file), beta.system_dir().join(file)).unwrap();
        }
        let made = init(beta, &[]).success();
        assert!(matches!(lines(&made, "made").as_slice(), [only] if only.contains("csync2_ssl_cert.pem")), "{made:?}");
        assert!(has(&lines(&made, "next"), &format!("--join {}", alpha.host)), "{made:?}");
        alpha.put(&tree! { "f" => "content", "d/g" => "another" });
        alpha.csync2(["-cIr", "/"]).success();
        beta.serve();
        beta.csync2(["--join", &alpha.host]).success();
        cluster.expect_agreement();
        beta.put(&tree! { "f" => "changed on the new one" });
        beta.csync2(["-x"]).success();
        cluster.expect_agreement();
    }
}

#[test]
fn what_is_in_the_way_is_told() {
    let cluster = OURS.cluster(["alpha", "beta"]).build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let wrong = |output: Output, part: &str| {
        let told = lines(&output, "wrong");
        assert!(has(&told, part), "`{part}` is missing in {output:?}");
        assert!(has(&lines(&output, "next"), "put right what is wrong"), "{output:?}");
    };
    wrong(init(alpha, &["delta"]).exits(1), "delta is in no group of");
    // What was made for one host does not come from another one.
    fs::remove_file(alpha.system_dir().join("demo.key")).unwrap();
    wrong(init(alpha, &[]).exits(1), "demo.key");
    assert!(!alpha.system_dir().join("demo.key").exists());
    alpha.write_key("demo.key", 'K');
    fs::remove_file(alpha.system_dir().join("csync2_ssl_cert.pem")).unwrap();
    wrong(init(alpha, &[]).exits(1), "nothing is overwritten");
    assert!(!alpha.system_dir().join("csync2_ssl_cert.pem").exists());

    // Something else has the port.
    let other = TcpListener::bind((beta.host.as_str(), beta.port)).unwrap();
    thread::spawn(move || other.incoming().for_each(drop));
    wrong(init(beta, &[]).exits(1), "something else listens there");
    let elsewhere =
        "group g { host {alpha} 198.51.100.7; key demo.key; include %d%; } prefix d { on *: {alpha.tree}; }";
    cluster.configure_node("alpha", elsewhere);
    let mut command = alpha.bare_command(Program::Ours);
    command.args(["-D", &alpha.database.option(), "-N", "198.51.100.7", "--init"]);
    wrong(run(command).exits(1), "resolves to no address of this machine");
}

#[test]
fn the_next_steps_have_the_options_that_were_given() {
    let cluster = bare_hosts(Backend::Sqlite);
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let told = alpha.csync2(["-C", "two", "--init", &beta.host]).exits(1);
    let next = lines(&told, "next");
    let there = format!("csync2 -C two -p {}", alpha.port);
    let here = format!("csync2 -N {} -D {} -C two -p {}", alpha.host, alpha.database.option(), alpha.port);
    for step in [
        format!("put right what is wrong, then: {here} --init"),
        format!("start the server: {here} -ii. The units of systemd know nothing of these options"),
        format!("{here} -cr /, for the others to have what is here"),
        format!("{there} --init, start the server, {there} --join {}", alpha.host),
    ] {
        assert!(has(&next, &step), "`{step}` is missing in {told:?}");
    }
    // Where files are known already there is nothing to begin with.
    let config = alpha.system_dir().join("csync2_two.cfg");
    fill_in_file(alpha, "csync2_two.cfg");
    fs::write(&config, cluster.fill_in(&fs::read_to_string(&config).unwrap())).unwrap();
    alpha.put(&tree! { "f" => "content" });
    alpha.csync2(["-C", "two", "-cr", "/"]).success();
    let told = alpha.csync2(["-C", "two", "--init"]).success();
    assert!(!has(&lines(&told, "next"), "-cr /"), "{told:?}");
}

#[test]
fn nothing_is_made_for_what_is_no_host() {
    let cluster = bare_hosts(Backend::Sqlite);
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    for hosts in [&["beta,gamma"][..], &["(gamma)"], &[""], &["beta@"], &["be\"ta"]] {
        init(alpha, hosts).exits(1).logs("is no host: they are written NAME or NAME@ADDRESS");
    }
    init(alpha, &[&beta.host, &beta.host]).exits(1).logs("is named twice");
    let config = alpha.system_dir().join("csync2.cfg");
    std::os::unix::fs::symlink("nowhere", &config).unwrap();
    init(alpha, &[&beta.host]).exits(1).logs("csync2.cfg is a link to nothing");
    fs::remove_file(config).unwrap();
    assert_eq!(files(alpha.system_dir()), []);
    // The right names are not too late.
    assert!(has(&lines(&init(alpha, &[&beta.host]).exits(1), "made"), "csync2.key_cluster"));
}

#[test]
fn nothing_is_made_for_a_host_that_the_configuration_does_not_name() {
    let cluster = OURS.cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    for file in ["csync2_ssl_cert.pem", "csync2_ssl_key.pem"] {
        fs::remove_file(alpha.system_dir().join(file)).unwrap();
    }
    let before = files(alpha.system_dir());
    let mut command = alpha.bare_command(Program::Ours);
    command.args(["-N", "gamma", "-D", &alpha.database.option(), "--init"]);
    let told = run(command).exits(1);
    assert!(has(&lines(&told, "wrong"), "This host (gamma) is not a member of any configured group."), "{told:?}");
    assert_eq!((files(alpha.system_dir()), lines(&told, "made")), (before, vec![]));
}

#[test]
fn a_server_that_refuses_is_answered_with_the_statements() {
    let cluster = OURS.cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    let server = Postgres::shared();
    server.sql("postgres", "CREATE ROLE init_poor LOGIN; CREATE ROLE init_guest LOGIN");
    server.database("init_others", "");
    let own_schema = "REVOKE CREATE ON SCHEMA public FROM PUBLIC";
    server.sql("init_others", own_schema);
    for (role, database, statement) in [
        ("init_poor", "init_poor", "CREATE DATABASE \"init_poor\" OWNER \"init_poor\""),
        ("init_absent", "init_absent", "CREATE ROLE \"init_absent\" LOGIN"),
        ("init_guest", "init_others", "GRANT USAGE, CREATE ON SCHEMA public TO \"init_guest\""),
    ] {
        let url = format!("pgsql://{role}@127.0.0.1:{}/{database}", server.port());
        alpha.reach_database_at(&url);
        let told = alpha.csync2(["--init"]).exits(1).stdout_text();
        assert!(told.contains(statement), "{told}");
        let (_, statements) = told.split_once("in psql, as the server's superuser").expect("statements");
        let statements = statements.lines().filter_map(|line| line.strip_prefix("           "));
        for statement in statements.filter(|line| !line.starts_with('\\') && !line.starts_with("--")) {
            server.sql(if role == "init_guest" { database } else { "postgres" }, statement);
        }
        let told = alpha.csync2(["--init"]).success().stdout_text();
        assert!(told.contains(&format!("fine   pgsql://{role}@127.0.0.1")), "{told}");
    }
    // Where the server lets nobody in from there, no role helps.
    server.prepend_hba("host all init_shut_out 127.0.0.1/32 reject");
    alpha.reach_database_at(&format!("pgsql://init_shut_out@127.0.0.1:{}/init_shut_out", server.port()));
    let told = alpha.csync2(["--init"]).exits(1).stdout_text();
    assert!(told.contains("in pg_hba.conf of the server") && !told.contains("CREATE ROLE"), "{told}");
}
