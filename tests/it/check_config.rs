//! `--check-config`: what an administrator is told of a configuration before anything uses it.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::cast::Backend;
use crate::support::cluster::{Cluster, Node};
use crate::support::process::Output;
use crate::support::{Cast, Program, tree};

const OURS: Cast = Cast { client: Program::Ours, server: Program::Ours, tls: false, backend: Backend::Sqlite };

/// Two groups, and a prefix: of line 1 the cluster makes `nossl`.
const CONFIG: &str = "
prefix d { on *: {alpha.tree}; }
group web
{
    host {alpha} {beta} ({gamma});
    key demo.key;
    include %d%;
    exclude *.tmp .git;
    action { exec \"reload %%\"; pattern %d%/conf/*; do-local; }
}
group logs { host {alpha}@{alpha.iface} {beta}; key two.key; include {alpha.tree}/shared; compare {alpha.tree}/logs; }
";

fn cluster() -> Cluster {
    OURS.cluster(["alpha", "beta", "gamma"]).config(CONFIG).build()
}

/// What a call says, with real names told as `{…}`.
fn call(cluster: &Cluster, node: &Node, arguments: &[&str]) -> (Output, String) {
    let output = node.csync2(arguments);
    let mut text = output.stdout_text();
    for node in cluster.nodes() {
        text = text.replace(node.tree_dir().to_str().unwrap(), "{tree}").replace(&node.iface(), "{iface}");
        text = text.replace(&node.host, &format!("{{{}}}", node.name()));
    }
    (output, text)
}

#[test]
fn a_file_is_told_why_it_is_kept_in_step_or_not() {
    let cluster = cluster();
    let alpha = &cluster["alpha"];
    alpha.put(
        &tree! { "conf/a" => "1", "x.tmp" => "22", "shared/f" => "333", ".git/hooks/h" => "4444", "logs/l" => "5" },
    );
    symlink("shared", alpha.path("link")).unwrap();
    let told = |operand: &str| {
        let (output, text) = call(&cluster, alpha, &["--check-config", operand]);
        output.success();
        text
    };
    let tree = alpha.tree_dir().to_str().unwrap();
    let web = "    peers: {beta}, {gamma} (slave)\n";
    assert_eq!(
        told("%d%/conf/a"),
        format!(
            "{{tree}}/conf/a, as %d%/conf/a\n  covered as %d%/conf/a by group web: line 8, include %d%\n{web}    \
             runs when received, or changed here: reload %% (line 10, pattern %d%/conf/*)\n"
        )
    );
    assert_eq!(
        told(&format!("{tree}/x.tmp")),
        "{tree}/x.tmp\n  not covered as %d%/x.tmp by group web: last match is line 9, exclude *.tmp\n"
    );
    assert_eq!(
        told(&format!("{tree}/link/f")),
        format!(
            "{{tree}}/shared/f, as {{tree}}/link/f\n  covered as %d%/shared/f by group web: line 8, include %d%\n{web}  \
             covered by group logs: line 12, include {{tree}}/shared\n    peers: {{beta}}; they know this host as {{iface}}\n"
        )
    );
    assert_eq!(
        told(&format!("{tree}/.git/hooks/h")),
        format!(
            "{{tree}}/.git/hooks/h\n  covered as %d%/.git/hooks/h by group web: line 8, include %d%\n{web}    \
             a check does not find it by itself, since it does not enter %d%/.git: csync2 -c {{tree}}/.git/hooks/h\n"
        )
    );
    assert!(
        told(&format!("{tree}/logs/l"))
            .contains("  not covered by group logs, but for comparing: line 12, compare {tree}/logs\n")
    );
    assert_eq!(told("/etc/none"), "/etc/none (not on this disk)\n  not covered: no pattern with a path fits\n");
    let unknown = "%q%/x (not on this disk)\n  not covered: Prefix 'q' is not defined for host '{alpha}'.\n";
    assert_eq!(told("%q%/x"), unknown);
}

#[test]
fn what_is_said_of_a_file_is_what_a_check_does() {
    let cluster = cluster();
    let alpha = &cluster["alpha"];
    let files = ["conf/a", "x.tmp", "shared/f", ".git/hooks/h", ".git/x.tmp", "logs/l.tmp/f"];
    for (length, file) in files.into_iter().enumerate() {
        alpha.put(&tree! { file => "x".repeat(length + 1) });
    }
    alpha.csync2(["-cr", "/"]).success();
    let found = alpha.csync2(["-L"]).success().stdout_text();
    for file in files {
        let path = alpha.path(file).to_str().unwrap().to_owned();
        let (_, told) = call(&cluster, alpha, &["--check-config", &path]);
        let by_itself = told.contains("  covered") && !told.contains("does not find it by itself");
        assert_eq!(found.lines().any(|line| line.ends_with(&format!("\t%d%/{file}"))), by_itself, "{file}: {told}");
        alpha.csync2(["-c", &path]).success();
        let named = alpha.csync2(["-L"]).success().stdout_text();
        assert_eq!(named.contains(&format!("\t%d%/{file}\n")), told.contains("  covered"), "{file}: {told}");
    }
}

#[test]
fn a_configuration_is_checked_without_key_database_or_change() {
    let cluster = cluster();
    let alpha = &cluster["alpha"];
    let state = alpha.base().join("db");
    fs::remove_file(alpha.system_dir().join("two.key")).unwrap();
    let config = fs::read_to_string(alpha.system_dir().join("csync2.cfg")).unwrap();
    let config = config.replace("exclude *.tmp .git;", "exclude *.tmp .git;\n    include %d%/**.conf no/path;");
    fs::write(alpha.system_dir().join("csync2.cfg"), config.replace("exec \"reload %%\"", "exec reload %%")).unwrap();
    let (output, text) = call(&cluster, alpha, &["--check-config"]);
    let (file, host) = (alpha.system_dir().join("csync2.cfg"), "{alpha}");
    assert_eq!(text, format!("{} is valid. {host} is in 2 groups; 3 warnings.\n", file.display()));
    let caret = format!(
        "{}:10:25\n   |\n10 |     include %d%/**.conf no/path;\n   | {}^^^^^^^\n",
        file.display(),
        " ".repeat(24)
    );
    let output = output.success().logs("holds no slash: it fits nothing\n").logs(&caret);
    output.logs("each word is a command of its own here: `reload`, `%%`").logs("two.key cannot be read: No such file");
    assert_eq!(fs::read_dir(state).unwrap().count(), 0, "no database is made");
    // The database need not be there either; but it must be one that is known.
    call(&cluster, alpha, &["--check-config", "-D", "pgsql://nobody@127.0.0.1:1/none"]).0.success();
    call(&cluster, alpha, &["--check-config", "-D", "mysql://x@y/z"]).0.exits(1).logs("MySQL is not supported");
}

#[test]
fn what_finds_nothing_is_told() {
    let cluster = cluster();
    let alpha = &cluster["alpha"];
    cluster.configure(
        "group web { host {alpha} {beta}; key demo.key; exclude *~; }
        group logs { host {alpha} {beta}; key demo.key; include {alpha.tree}/none/*; action { exec x; pattern *.conf; } }",
    );
    let (output, text) = call(&cluster, alpha, &["--check-config"]);
    let output = output.success().logs("the group web includes nothing: say which files in");
    let output = output.logs("and there is no directory").logs("`**.conf` fits files in every directory");
    assert!(text.ends_with("3 warnings.\n"), "{output:?}");
}

#[test]
fn what_no_run_would_accept_fails() {
    let cluster = cluster();
    let alpha = &cluster["alpha"];
    cluster.configure("group web { host {alpha}, {beta}; key demo.key; }");
    let (output, text) = call(&cluster, alpha, &["--check-config"]);
    output.exits(1).logs("the comma is part of the host name").logs("is not a member of any configured group.");
    assert_eq!(text, "");
    cluster.configure("group web{ host {alpha}; }");
    call(&cluster, alpha, &["--check-config", "/etc"])
        .0
        .exits(1)
        .logs("syntax error")
        .logs("expected `{`, with a blank on either side");
    alpha.csync2(["--check-config", "-C", "none"]).exits(1).logs("Can not open config file");
}
