//! What a host that joins asks of a running one: whether it shares our groups and keys, and that it pushes what we lack.
//!
//! The classic protocol has no way to ask for a push, and its MARK marks a file for other hosts, too, where it might win over
//! a change of theirs. So that is asked of our own program alone (FETCH and PUSH); of any other, an administrator must do it.

use std::collections::HashSet;

use super::{Pair, Trouble, inquiry};
use crate::config::{Group, RuleKind};
use crate::engine::check::removal::literal_directory;
use crate::engine::contact::{self, advice};
use crate::engine::membership::{self, Purpose};
use crate::engine::{Node, Report};
use crate::model::SyncPath;
use crate::wire::{Connection, OctetHeader, Reply, Request, WireError};

/// Requests that are under way at a time: their answers fit into what a socket holds.
const AT_ONCE: usize = 200;

/// What a peer made of being asked for files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Willingness {
    /// All that is on its disk is here as it is there.
    Pushed,
    /// Some of it may not be; why is in the report.
    Failed,
    /// It is another csync2, or an older one.
    Unable,
}

/// What came of asking.
#[derive(Debug)]
pub struct Fetched {
    pub willingness: Willingness,
    /// What it knows, and has not on its disk.
    pub lost: HashSet<SyncPath>,
    pub report: Report,
}

impl Trouble {
    /// Logs why a peer could not be asked, and counts it.
    fn report_unasked(&self, pair: &Pair, report: &mut Report) {
        let consequence = "Nothing was asked of it; join again when that is put right.";
        match self {
            Self::Connection(error) => contact::report_failure(report, &pair.peer, error, consequence),
            _ => report.error(format_args!("ERROR: {}: {} {consequence}", pair.peer, self.sentence())),
        }
    }
}

/// Asks the peer about each path that our groups with it include, under the group's key. What it denies is counted, with what to
/// do about it.
pub async fn examine(node: &Node, pair: &Pair) -> Report {
    let mut report = Report::default();
    if let Err(trouble) = ask_about_includes(node, pair, &mut report).await {
        trouble.report_unasked(pair, &mut report);
    }
    report
}

async fn ask_about_includes(node: &Node, pair: &Pair, report: &mut Report) -> Result<(), Trouble> {
    let (mut connection, _) = inquiry::greet(node, pair).await?;
    for group in node.config.groups.iter().filter(|group| pair.is_in(group)) {
        for path in includes(group) {
            // Without PUSH this is a question.
            let mut answer = ask(&mut connection, fetch_of(group, &path)).await?;
            // A slave would be refused, and the file marked.
            if Reply::parse(&answer) == Reply::UnknownCommand && !group.i_am_slave {
                answer = describe(&mut connection, group, &path).await?;
            }
            if Reply::parse(&answer) == Reply::PermissionDenied {
                denied(node, pair, &path, &answer, report);
            }
        }
    }
    part(connection).await
}

/// The paths that a group includes without a wildcard.
fn includes(group: &Group) -> impl Iterator<Item = SyncPath> {
    let included = group.rules.iter().filter(|rule| rule.kind == RuleKind::Include);
    let literal = included.filter_map(|rule| {
        let path = literal_directory(rule.pattern.as_bytes())?;
        (path.as_bytes() == rule.pattern.as_bytes()).then_some(path)
    });
    literal.filter(move |path| membership::covers(group, path, Purpose::Sync))
}

/// SIG, for its first answer.
async fn describe(connection: &mut Connection, group: &Group, path: &SyncPath) -> Result<Vec<u8>, WireError> {
    let question = Request::Sig { key: group.key.to_string(), file: path.as_bytes().to_vec() };
    let answer = ask(connection, question).await?;
    if Reply::parse(&answer).is_ok() {
        inquiry::hear(connection).await?;
        if let OctetHeader::Length(length) = connection.read_octet_header().await? {
            // The sink takes everything.
            drop(connection.read_body(length, &mut |_: &[u8]| Ok(())).await?);
        }
        inquiry::hear(connection).await?;
    }
    Ok(answer)
}

fn denied(node: &Node, pair: &Pair, path: &SyncPath, answer: &[u8], report: &mut Report) {
    let Pair { my_name, peer } = pair;
    let advice = advice::on_denial(&node.config, answer, my_name, peer, path);
    report.error(format_args!("ERROR: {peer}: {path}: {}{advice}", String::from_utf8_lossy(answer)));
}

/// Has the peer push these files, and waits until it has. What it denies, and what is said of the push as a whole, is counted.
pub async fn fetch(node: &Node, pair: &Pair, paths: &[SyncPath]) -> Fetched {
    let mut fetched = Fetched { willingness: Willingness::Failed, lost: HashSet::new(), report: Report::default() };
    if let Err(trouble) = ask_for(node, pair, paths, &mut fetched).await {
        trouble.report_unasked(pair, &mut fetched.report);
    }
    fetched
}

async fn ask_for(node: &Node, pair: &Pair, paths: &[SyncPath], fetched: &mut Fetched) -> Result<(), Trouble> {
    let Fetched { willingness, lost, report } = fetched;
    let (mut connection, _) = inquiry::greet(node, pair).await?;
    for paths in paths.chunks(AT_ONCE) {
        let mut asked = Vec::new();
        for path in paths {
            if let Some(group) = pair.group(node, path, Purpose::Sync) {
                inquiry::say(&mut connection, &fetch_of(group, path)).await?;
                asked.push(path);
            }
        }
        for path in asked {
            let answer = inquiry::hear(&mut connection).await?;
            match Reply::parse(&answer) {
                // The peer answers the others in the same way.
                Reply::UnknownCommand => {
                    *willingness = Willingness::Unable;
                    return Ok(());
                }
                Reply::PathNotFound => drop(lost.insert(path.clone())),
                reply if reply.is_ok() => {}
                _ => denied(node, pair, path, &answer, report),
            }
        }
    }
    inquiry::say(&mut connection, &Request::Push).await?;
    loop {
        let answer = inquiry::hear(&mut connection).await?;
        match Reply::parse(&answer) {
            Reply::Pushing => {}
            Reply::CmdFinished => {
                *willingness = if report.errors == 0 { Willingness::Pushed } else { Willingness::Failed };
                break;
            }
            _ => {
                report.error(format_args!("ERROR: {}: {}", pair.peer, String::from_utf8_lossy(&answer)));
                break;
            }
        }
    }
    part(connection).await
}

fn fetch_of(group: &Group, path: &SyncPath) -> Request {
    Request::Fetch { key: group.key.to_string(), file: path.as_bytes().to_vec() }
}

async fn ask(connection: &mut Connection, request: Request) -> Result<Vec<u8>, WireError> {
    inquiry::say(connection, &request).await?;
    inquiry::hear(connection).await
}

async fn part(mut connection: Connection) -> Result<(), Trouble> {
    ask(&mut connection, Request::Bye).await?;
    connection.finish().await;
    Ok(())
}
