//! Where the log goes, what stands before its lines, and that nothing but the protocol reaches a peer.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use crate::support::cluster::{Cluster, KEY, Node};
use crate::support::process::{run, run_with_input};
use crate::support::session::Session;
use crate::support::{Cast, Program, Syslog, scenarios, tree};

/// Both programs, one after the other, must say the same.
const BOTH: [Program; 2] = [Program::Reference, Program::Ours];

fn two_nodes(program: Program) -> Cluster {
    Cast::sqlite(program).cluster(["alpha", "beta"]).build()
}

/// A log, with what differs from run to run replaced: dates, times, process and session numbers, ports, directories.
fn normal(cluster: &Cluster, log: &str) -> String {
    let base = cluster.directory().to_str().expect("UTF-8");
    let mut normal = String::new();
    for line in log.replace(base, "BASE").lines() {
        let mut words: Vec<String> = Vec::new();
        for word in line.split(' ') {
            let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let is_time = |text: &str| text.len() == 8 && text.split(':').all(digits);
            let inner = |open, close| word.strip_prefix(open).and_then(|word: &str| word.strip_suffix(close));
            words.push(match word {
                _ if inner('<', '>').is_some_and(digits) => "<ID>".into(),
                _ if inner('[', ']').is_some_and(is_time) => "[TIME]".into(),
                _ if is_time(word) => "TIME".into(),
                _ if words.last().is_some_and(|word| word == "TOTALTIME:") => "H:MM:SS".into(),
                _ if word.len() == 10 && word.split('-').all(digits) => "DATE".into(),
                _ if word.starts_with("127.") => "ADDRESS".into(),
                _ => word.to_owned(),
            });
        }
        normal += &(words.join(" ") + "\n");
    }
    normal
}

/// What both programs say: exit code, stderr and the file of `-s st`.
fn compare(make: impl Fn(&Cluster) -> (Option<i32>, String), what: &str) {
    let [theirs, ours] = BOTH.map(|program| {
        let cluster = two_nodes(program);
        let (code, log) = make(&cluster);
        let stamps = fs::read_to_string(cluster["beta"].base().join("st")).unwrap_or_default();
        format!("exit code {code:?}\n{}[st]\n{}", normal(&cluster, &log), normal(&cluster, &stamps))
    });
    assert_eq!(ours, theirs, "left: ours, right: the C program's: {what}");
}

#[test]
fn a_run_is_timed_like_one_of_the_c_program() {
    for line in [
        "-t -M",
        "-s st -M",
        "-ts st -M",
        "-ts st -v -c /etc/passwd",
        "-s st -cr /",
        "-ts st -M -C nosuch",
        "-ts st -M -C Bad/name",
        "-t -W 77 -cr /",
        "-v -s /nonexistent/st -M",
        "-t -s /nonexistent/st -M",
        "-ltv -s st -M",
        "-l -M -C nosuch",
        "-l -M -C Bad/name",
        "-ts st -M -L",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        compare(
            |cluster| {
                let output = cluster["beta"].csync2(&words);
                (output.code, output.stderr_text())
            },
            line,
        );
    }
}

#[test]
fn a_served_session_is_timed_like_one_of_the_c_program() {
    for options in ["-t", "-s st", "-ts st", "-vts st", "-lvts st"] {
        compare(
            |cluster| {
                let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
                let mut arguments = vec!["-iii"];
                arguments.extend(options.split(' '));
                beta.serve_with(&arguments);
                let mut session = Session::greeted(alpha, beta);
                session.ask("BYE", "OK (cu_later).");
                assert_eq!(session.line(), None);
                let (code, lines) = beta.take_daemon().wait_with_log();
                let lines = lines.into_iter().filter(|line| !line.starts_with("Csync2 daemon running."));
                (code, lines.collect::<Vec<_>>().join("\n") + "\n")
            },
            &format!("-iii {options}"),
        );
    }
}

#[test]
fn a_pipe_is_timed_like_one_of_the_c_program() {
    for options in ["-i", "-it", "-iv", "-its st"] {
        let arguments: Vec<&str> = options.split(' ').collect();
        compare(
            |cluster| {
                let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
                let requests = format!("CONFIG \nHELLO {}\nBYE\n", alpha.host);
                let output = beta.csync2_for_pipe(&arguments, alpha, requests.as_bytes());
                (output.code, output.stderr_text())
            },
            options,
        );
    }
}

/// A session in which most things go wrong, and the answers; everything on the socket must be among them.
fn eventful(session: &mut Session, cluster: &Cluster) {
    let host = &cluster["alpha"].host;
    session.ask("CONFIG ", "OK (cmd_finished).");
    session.ask(&format!("HELLO {}", cluster["beta"].host), "Identification failed!");
    session.ask(&format!("HELLO {host}"), "OK (cmd_finished).");
    session.ask("MARK wrong-key %25d%25/f", "Permission denied!");
    session.ask("MKDIR KEY %25d%25/d", "OK (cmd_finished).");
    session.ask("BYE", "OK (cu_later).");
    assert_eq!(session.line(), None, "nothing but answers");
}

/// As inetd starts it: the socket is stdin, stdout and stderr.
fn serve_on_a_socket(cluster: &Cluster, wrap: impl Fn(&Command) -> Command, options: &[&str]) -> Option<i32> {
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let (mut session, socket) = Session::accepted(alpha, beta);
    let socket = OwnedFd::from(socket);
    let mut command = wrap(&beta.command(beta.program, options));
    let end = || Stdio::from(socket.try_clone().expect("dup"));
    command.stdin(end()).stdout(end()).stderr(end());
    let mut server = command.spawn().expect("start the server");
    drop((command, socket));
    eventful(&mut session, cluster);
    server.wait().expect("wait for the server").code()
}

#[test]
fn a_socket_gets_the_protocol_and_syslog_the_log() {
    let cluster = two_nodes(Program::Ours);
    let syslog = Syslog::start();
    let code = serve_on_a_socket(&cluster, |command| syslog.serving(command), &["-i", "-vvv", "-t"]);
    assert_eq!(code, Some(0));
    let messages = syslog.messages();
    let (alpha, beta) = (&cluster["alpha"].host, &cluster["beta"].host);
    for expected in [
        format!("<132> {beta}: Identification failed! "),
        format!("<132> {alpha} asked for %d%/f: refused, "),
        "<134> Connection closed.".to_owned(),
        "<134> Finished with 0 errors.".to_owned(),
        "<135> Database: ".to_owned(),
    ] {
        assert!(messages.iter().any(|message| message.starts_with(&expected)), "{expected}: {messages:#?}");
    }
}

#[test]
fn a_socket_gets_no_word_of_what_stops_the_server() {
    let cluster = two_nodes(Program::Ours);
    let beta = &cluster["beta"];
    for (options, expected) in [
        (["-i", "-t", "-C", "Bad/name"], "<132> Config names are limited to [a-z0-9]+."),
        (["-i", "-t", "-s", "/nonexistent/st"], "<132> Can't open timestanp file `/nonexistent/st': "),
        (["-i", "-t", "-O/nonexistent/log", "-v"], "<132> Can't open debug file `/nonexistent/log': "),
    ] {
        let syslog = Syslog::start();
        let (mut session, socket) = Session::accepted(&cluster["alpha"], beta);
        let socket = OwnedFd::from(socket);
        let mut command = syslog.serving(&beta.command(beta.program, options));
        let end = || Stdio::from(socket.try_clone().expect("dup"));
        command.stdin(end()).stdout(end()).stderr(end());
        let mut server = command.spawn().expect("start the server");
        drop((command, socket));
        assert_eq!(session.line(), None, "{options:?}");
        assert_eq!(server.wait().expect("wait").code(), Some(1));
        let messages = syslog.messages();
        assert!(messages.iter().any(|message| message.starts_with(expected)), "{options:?}: {messages:#?}");
    }
}

scenarios! { one program:
    syslog_has_a_priority_for_each_level
}

fn syslog_has_a_priority_for_each_level(cast: Cast) {
    let cluster = cast.cluster(["alpha", "beta"]).build();
    let alpha = &cluster["alpha"];
    alpha.put(&tree! { "f" => "content" });
    let syslog = Syslog::start();
    let told = |arguments: &[&str], code: i32| {
        let output = run(syslog.serving(&alpha.command(alpha.program, arguments))).exits(code).prints("");
        assert_eq!(output.stderr_text(), "", "{output:?}");
        syslog.messages()
    };
    assert_eq!(told(&["-lc", "/etc/passwd"], 0), ["<132> WARNING: Parameter will be ignored: /etc/passwd"]);
    let verbose = told(&["-lvvcr", "/"], 0);
    for expected in ["<134> Marking file as dirty: %d%/f", "<134> Connection closed.", "<135> Running recursive check"]
    {
        assert!(verbose.iter().any(|message| message.starts_with(expected)), "{expected}: {verbose:#?}");
    }
    let unreachable = told(&["-lu"], 1);
    let failed = format!("<132> ERROR: Connection to remote host `{}' failed.", cluster["beta"].host);
    assert!(unreachable.contains(&failed) && unreachable.contains(&"<132> Finished with 1 errors.".to_owned()));
    let missing = told(&["-lMC", "nosuch"], 1);
    assert!(missing[0].starts_with("<132> Can not open config file `"), "{missing:?}");
}

#[test]
fn the_journal_gets_priorities_and_no_second_time() {
    let cluster = two_nodes(Program::Ours);
    let alpha = &cluster["alpha"];
    let log = alpha.base().join("journal");
    let told = |stream: &dyn Fn(&File) -> String| {
        let file = File::create(&log).expect("make a file");
        let mut command = alpha.command(Program::Ours, ["-vvc", "/etc/passwd"]);
        command.env("JOURNAL_STREAM", stream(&file)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        assert!(command.status().expect("run").success());
        fs::read_to_string(&log).expect("read")
    };
    let identity = |file: &File| {
        let metadata = file.metadata().expect("stat");
        format!("{}:{}", metadata.dev(), metadata.ino())
    };
    let journal = told(&identity);
    assert!(journal.contains("<4>WARNING: Parameter will be ignored: /etc/passwd\n"), "{journal}");
    assert!(journal.contains("<6>Connection closed.\n") && journal.contains("<7>Database: "), "{journal}");
    let file = told(&|_| "1:2".to_owned());
    assert!(file.starts_with("Database: ") && !file.contains('<'), "{file}");
}

#[test]
fn a_pipe_gets_the_protocol_only() {
    let cluster = two_nodes(Program::Ours);
    let (alpha, beta) = (&cluster["alpha"], &cluster["beta"]);
    let requests = format!("CONFIG \nHELLO {}\nMARK {KEY} %25d%25/f\nBYE\n", alpha.host);
    let served = |beta: &Node, options: &[&str]| {
        let mut command = beta.command(Program::Ours, options);
        command.env("SSH_CLIENT", format!("{} 40000 22", alpha.host));
        run_with_input(command, requests.as_bytes()).success()
    };
    let answers = "OK (cmd_finished).\nOK (cmd_finished).\nOK (cmd_finished).\nOK (cu_later).\n";
    served(beta, &["-i", "-vvv"]).prints(answers);
}
