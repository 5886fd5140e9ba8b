//! Certificates in the hands of an administrator: looking at them, replacing them, old ones, and an authority of one's own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::support::cast::Backend;
use crate::support::cluster::{Cluster, Node};
use crate::support::{Cast, Program, Table, certs, tree};

const OURS: Cast = Cast { client: Program::Ours, server: Program::Ours, tls: true, backend: Backend::Sqlite };

fn restart(node: &Node) {
    node.stop();
    node.serve();
}

/// Puts words of ours before the configuration of one node: the C program does not know them.
fn add_words(node: &Node, words: &str) {
    let file = node.system_dir().join("csync2.cfg");
    let config = fs::read_to_string(&file).expect("read the config");
    fs::write(file, format!("{words}\n{config}")).expect("write the config");
}

/// The fingerprint as openssl shows it.
fn fingerprint(certificate: &Path) -> String {
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(certificate);
    let shown = crate::support::process::run(openssl).success().stdout_text();
    shown.split('=').nth(1).expect("a fingerprint").trim().to_owned()
}

fn own_fingerprint(node: &Node) -> String {
    fingerprint(&node.system_dir().join("csync2_ssl_cert.pem"))
}

/// What a push, with something to push, says when it fails.
fn refused_push(cluster: &Cluster, options: &[&str]) -> String {
    cluster["alpha"].put(&tree! { "new" => options.concat() });
    cluster["alpha"].csync2([&["-x"], options].concat()).exits(1).stderr_text()
}

#[test]
fn pinned_certificates_are_listed_and_forgotten() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let cluster = Cast { backend, ..OURS }.cluster(["alpha", "beta", "gamma"]).start();
        let (alpha, beta, gamma) = (&cluster["alpha"], &cluster["beta"], &cluster["gamma"]);
        alpha.csync2(["--ls-ssl-cert"]).exits(2).silent();
        alpha.put(&tree! { "f" => "content" });
        alpha.csync2(["-x"]).success();
        let line = |node: &Node| {
            let dates = "1975-01-01\t4096-01-01";
            format!("{}\t{}\tEC-256\tCN=rcgen self signed cert\t{dates}\n", node.host, own_fingerprint(node))
        };
        alpha.csync2(["--ls-ssl-cert"]).success().prints(&(line(beta) + &line(gamma)));
        alpha.csync2(["--ls-ssl-cert", &beta.host]).success().prints(&line(beta));
        alpha.csync2(["--ls-ssl-cert", "delta"]).exits(2).silent();
        alpha.csync2(["--rm-ssl-cert", "delta"]).exits(1).logs("ERROR: no certificate is pinned for delta.");
        let removed = format!("Removed the certificate {} of {}.", own_fingerprint(beta), beta.host);
        alpha.csync2(["--rm-ssl-cert", &beta.host, "-v"]).success().logs(&removed);
        alpha.csync2(["--ls-ssl-cert"]).success().prints(&line(gamma));
    }
}

#[test]
fn a_changed_certificate_is_told_with_the_way_on() {
    let cluster = OURS.cluster(["alpha", "beta"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(&tree! { "f" => "content" });
    alpha.csync2(["-x"]).success();
    let pinned = own_fingerprint(beta);
    certs::write_new(beta.system_dir(), "another");
    restart(beta);
    let text = refused_push(&cluster, &[]);
    let command = format!("csync2 -N {} --rm-ssl-cert {}", alpha.host, beta.host);
    for part in [&format!("{}: its certificate changed", beta.host), &pinned, &own_fingerprint(beta), &command] {
        assert!(text.contains(part), "`{part}' is missing in: {text}");
    }
    // Nothing the network says replaces the pinned one.
    refused_push(&cluster, &["-v"]);
    alpha.csync2(["--rm-ssl-cert", &beta.host]).success().silent();
    alpha.csync2(["-u"]).success();

    // The same from the server's side.
    certs::write_new(alpha.system_dir(), "another");
    let text = refused_push(&cluster, &["-t"]);
    let remedy = format!("`csync2 --rm-ssl-cert {}` there", alpha.host);
    assert!(text.contains(&remedy), "`{remedy}' is missing in: {text}");
    let told = beta.daemon().wait_for_all("its certificate changed", 1).concat();
    let command = format!("csync2 -N {} --rm-ssl-cert {}", beta.host, alpha.host);
    assert!(told.contains(&own_fingerprint(alpha)) && told.contains(&command), "{told}");
    beta.csync2(["--rm-ssl-cert", &alpha.host]).success();
    alpha.csync2(["-u"]).success();
    cluster.expect_agreement();
}

#[test]
fn weak_certificates_are_warned_about_once_or_forbidden() {
    for server in [Program::Ours, Program::Reference] {
        let cluster = Cast { server, ..OURS }.cluster(["alpha", "beta"]).build();
        let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
        certs::write_by_the_manual(beta.system_dir(), 1024);
        beta.serve();
        alpha.put(&tree! { "f" => "content" });
        let warning = format!(
            "WARNING: the certificate of {} has an RSA key of 1024 bits, which can be broken today, and is of version 1 of X.509",
            beta.host
        );
        let first = alpha.csync2(["-x"]).success().logs(&warning);
        let way_on = format!(
            "then here: csync2 -N {} --rm-ssl-cert {peer}, and on each other host: csync2 --rm-ssl-cert {peer}",
            alpha.host,
            peer = beta.host
        );
        let _ = first.logs("csync2_ssl_cert.pem away, then openssl req -x509 -newkey ec").logs(&way_on);
        alpha.put(&tree! { "f" => "once more" });
        alpha.csync2(["-x"]).success().silent();
        let text = refused_push(&cluster, &["--no-legacy-tls"]);
        assert!(text.contains("forbids that here") && text.contains(&way_on), "{text}");
        add_words(alpha, "legacy-tls no;");
        assert!(refused_push(&cluster, &["-t"]).contains("has an RSA key of 1024 bits"));
    }
}

#[test]
fn a_server_may_forbid_weak_certificates() {
    let cluster = OURS.cluster(["alpha", "beta"]).build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    certs::write_by_the_manual(alpha.system_dir(), 2048);
    add_words(beta, "legacy-tls no;");
    beta.serve();
    let text = refused_push(&cluster, &[]);
    assert!(text.contains("Identification failed! Your certificate is of version 1 of X.509"), "{text}");
    assert_eq!(beta.rows(Table::Certificate), [""; 0], "nothing is pinned");
    // Nor may it have one itself.
    certs::write_by_the_manual(beta.system_dir(), 1024);
    let text = refused_push(&cluster, &["-t"]);
    assert!(text.contains("SSL is not set up on this host."), "{text}");
    beta.daemon().wait_for("it has an RSA key of 1024 bits");
}

/// An authority, and what it signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("an authority").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Gives a node a certificate for `name`, in files of its own, and makes it trust this authority alone.
    fn equip(&self, node: &Node, name: &str) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let write = |file: &str, text: &str| fs::write(node.system_dir().join(file), text).expect("write");
        write("ca.pem", &self.pem);
        write("host.pem", &(certificate.pem() + &self.pem));
        write("host.key", &key.serialize_pem());
        fs::set_permissions(node.system_dir().join("host.key"), fs::Permissions::from_mode(0o600)).expect("chmod");
    }
}

const WORDS: &str = "tls-ca ca.pem; tls-certificate host.pem; tls-key host.key;";

#[test]
fn an_authority_vouches_in_place_of_pins() {
    let cluster = OURS.cluster(["alpha", "beta"]).build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let authority = Authority::new();
    for node in cluster.nodes() {
        add_words(node, WORDS);
        authority.equip(node, &node.host);
    }
    beta.serve();
    alpha.put(&tree! { "f" => "content" });
    alpha.csync2(["-x"]).success().silent();
    // A new certificate needs nobody to forget the old one.
    authority.equip(beta, &beta.host);
    authority.equip(alpha, &alpha.host);
    alpha.put(&tree! { "f" => "once more" });
    alpha.csync2(["-x"]).success().silent();
    cluster.expect_agreement();
    assert_eq!((alpha.rows(Table::Certificate), beta.rows(Table::Certificate)), (vec![], vec![]));

    // Made out for another host, or by somebody else: on either side.
    authority.equip(beta, "192.0.2.7");
    let text = refused_push(&cluster, &[]);
    assert!(text.contains(&format!("{}: its certificate", beta.host)) && text.contains("is not accepted"), "{text}");
    authority.equip(beta, &beta.host);
    authority.equip(alpha, "192.0.2.7");
    assert!(refused_push(&cluster, &["-t"]).contains("Identification failed! Your certificate is not accepted here"));
    Authority::new().equip(alpha, &alpha.host);
    assert!(refused_push(&cluster, &["-r"]).contains("is not accepted"));
    authority.equip(alpha, &alpha.host);
    alpha.csync2(["-u"]).success();
    cluster.expect_agreement();
}

#[test]
fn a_pair_is_made_where_there_is_none() {
    for server in [Program::Ours, Program::Reference] {
        let cluster = Cast { server, ..OURS }.cluster(["alpha", "beta"]).build();
        for node in cluster.nodes() {
            for file in ["csync2_ssl_cert.pem", "csync2_ssl_key.pem"] {
                fs::remove_file(node.system_dir().join(file)).expect("remove");
            }
            let made = node.csync2_by(Program::Ours, ["--gen-ssl-cert"]).success();
            let line = format!("{}\t{}\tEC-256\tCN={}\t", node.host, own_fingerprint(node), node.host);
            assert!(made.stdout_text().starts_with(&line), "{made:?}");
            node.csync2_by(Program::Ours, ["--gen-ssl-cert"]).exits(1).logs("nothing is overwritten");
        }
        cluster["beta"].serve();
        cluster["alpha"].put(&tree! { "f" => "content" });
        cluster["alpha"].csync2(["-x"]).success().silent();
        cluster.expect_agreement();
    }
}

/// "A new key for a host", and "Away from RSA-1024".
#[test]
fn a_host_gets_a_new_key_by_the_recipe() {
    let cluster = OURS.cluster(["alpha", "beta"]).build();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    certs::write_by_the_manual(beta.system_dir(), 1024);
    beta.serve();
    alpha.put(&tree! { "f" => "content" });
    alpha.csync2(["-x"]).success();
    assert!(alpha.csync2(["--ls-ssl-cert"]).success().stdout_text().contains("\tRSA-1024\t"));
    for file in ["csync2_ssl_cert.pem", "csync2_ssl_key.pem"] {
        fs::rename(beta.system_dir().join(file), beta.base().join(file)).unwrap();
    }
    let made = beta.csync2(["--gen-ssl-cert"]).success().stdout_text();
    let made = made.split('\t').nth(1).unwrap();
    assert!(refused_push(&cluster, &[]).contains("its certificate changed"));
    alpha.csync2(["--rm-ssl-cert", &beta.host]).success();
    alpha.csync2(["-T"]).success();
    let listed = alpha.csync2(["--ls-ssl-cert", &beta.host]).success().stdout_text();
    assert!(listed.contains(made) && listed.contains("\tEC-256\t"), "{listed}");
    for node in cluster.nodes() {
        add_words(node, "legacy-tls no;");
    }
    alpha.csync2(["-x"]).success().silent();
    cluster.expect_agreement();
}

/// "A host was replaced".
#[test]
fn a_replaced_node_comes_back_by_the_recipe() {
    let cluster = OURS.cluster(["alpha", "beta"]).start();
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    alpha.put(&tree! { "f" => "content" });
    alpha.csync2(["-x"]).success();
    alpha.serve();
    beta.stop();
    beta.clear();
    for file in ["csync2_ssl_cert.pem", "csync2_ssl_key.pem"] {
        fs::remove_file(beta.system_dir().join(file)).unwrap();
    }
    fs::remove_dir_all(beta.base().join("db")).unwrap();
    beta.csync2(["--init"]).success();
    beta.serve();
    let refused = beta.csync2(["--join", &alpha.host]).exits(1).stderr_text();
    assert!(refused.contains("Identification failed! Another certificate is pinned here"), "{refused}");
    alpha.csync2(["--rm-ssl-cert", &beta.host]).success();
    alpha.csync2(["-T"]).success();
    assert!(alpha.csync2(["--ls-ssl-cert", &beta.host]).success().stdout_text().contains(&own_fingerprint(beta)));
    beta.csync2(["--join", &alpha.host]).success();
    cluster.expect_agreement();
    alpha.expect_clean();
}

/// "An authority of one's own": the commands are those of the manual, with an address in the place of a name.
#[test]
fn an_authority_is_made_by_the_recipe() {
    let manual = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/manual.md")).unwrap();
    let recipe = manual.split_once("**An authority of one's own.**").unwrap().1.split_once("## Database").unwrap().0;
    let mut blocks = recipe.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let (once, for_each) = (blocks.next().expect("a block"), blocks.next().expect("a block"));
    let words: Vec<&str> = recipe.lines().filter(|line| line.starts_with("    tls-")).collect();
    let cluster = OURS.cluster(["alpha", "beta"]).build();
    let shell = |commands: &str| {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-ec", commands]).current_dir(cluster.directory());
        crate::support::process::run(shell).success()
    };
    shell(once);
    for node in cluster.nodes() {
        shell(&for_each.replace("DNS:beta", &format!("IP:{}", node.host)).replace("beta", &node.host));
        for file in ["ca.pem", "host.pem", "host.key"] {
            fs::copy(cluster.directory().join(file), node.system_dir().join(file)).unwrap();
        }
        add_words(node, &words.join("\n").replace("/etc/pki/", ""));
    }
    cluster["beta"].serve();
    cluster["alpha"].put(&tree! { "f" => "content" });
    cluster["alpha"].csync2(["-x"]).success().silent();
    cluster.expect_agreement();
    cluster["alpha"].csync2(["--ls-ssl-cert"]).exits(2);
}
