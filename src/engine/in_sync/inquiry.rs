//! What is asked of a peer in order to compare: its list, and the content of a file.

use std::fs::File;
use std::io::{self, Seek, Write};

use super::listing::Line;
use super::sorter::{Sorted, Sorter};
use super::{Pair, Trouble};
use crate::engine::contact::{self, Dialect, SessionError, advice};
use crate::engine::{Node, blocking};
use crate::model::{Scope, SyncPath};
use crate::wire::{Connection, Reply, Request, WireError};

/// LIST takes thirty fields; the peer's name and the file are two of them.
const KEYS_AT_ONCE: usize = 28;

/// A session in which the peer knows us.
pub(super) async fn greet(node: &Node, pair: &Pair) -> Result<(Connection, Dialect), Trouble> {
    let Pair { my_name, peer } = pair;
    let plain = node.config.plain_allowed(my_name, peer);
    tracing::info!("Connecting to host {peer} ({}) ...", if plain { "PLAIN" } else { "SSL" });
    let connected = contact::connect(node, peer, plain, contact::Purpose::Compare).await;
    let (mut connection, dialect) = connected.map_err(Trouble::Connection)?;
    say(&mut connection, &Request::Hello { name: my_name.clone() }).await?;
    let line = hear(&mut connection).await?;
    let advice = match Reply::parse(&line) {
        reply if reply.is_ok() => return Ok((connection, dialect)),
        Reply::IdentificationFailed => advice::on_identification(&line, my_name, None, connection.local_address()),
        Reply::SslExpected => advice::on_plain(peer, my_name),
        _ => String::new(),
    };
    Err(refused("HELLO", &line, advice))
}

/// Everything that the peer knows within `scope` and shares with us, in name order.
pub(super) async fn list(node: &Node, pair: &Pair, scope: &Scope) -> Result<(Sorted, Dialect), Trouble> {
    let (mut connection, dialect) = greet(node, pair).await?;
    let file = match scope {
        Scope::File(path) => Some(path.as_bytes().to_vec()),
        Scope::All | Scope::Tree(_) => None,
    };
    let mut sorter = Sorter::new();
    for keys in keys(node, pair).chunks(KEYS_AT_ONCE) {
        let request = Request::List { server: pair.peer.clone(), file: file.clone(), keys: keys.to_vec() };
        say(&mut connection, &request).await?;
        sorter = receive(&mut connection, sorter).await?;
    }
    say(&mut connection, &Request::Bye).await?;
    hear(&mut connection).await?;
    connection.finish().await;
    let sorted = blocking("sort a peer's list", move || sorter.finish()).await??;
    Ok((sorted, dialect))
}

/// Of the groups that the pair has in common, each once.
fn keys(node: &Node, pair: &Pair) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    for group in node.config.groups.iter().filter(|group| pair.is_in(group)) {
        if keys.iter().all(|key| **key != *group.key) {
            keys.push(group.key.to_string());
        }
    }
    keys
}

/// The answer to one LIST.
async fn receive(connection: &mut Connection, mut sorter: Sorter) -> Result<Sorter, Trouble> {
    loop {
        let line = hear(connection).await?;
        match Line::parse(&line) {
            Line::File(listed) => {
                if sorter.push(listed) {
                    sorter = blocking("sort a peer's list", move || sorter.spill().map(|()| sorter)).await??;
                }
            }
            Line::Strange(name) => {
                tracing::debug!("{} lists a strange name: {}", connection.peer_name(), String::from_utf8_lossy(&name));
            }
            Line::End(reply) if reply.is_ok() => return Ok(sorter),
            Line::End(_) => return Err(refused("LIST", &line, String::new())),
        }
    }
}

/// The content of the peer's file, in an unnamed temporary file: empty where the peer has no regular file. A peer closes
/// the connection behind it.
pub(super) async fn content(node: &Node, pair: &Pair, key: &str, path: &SyncPath) -> Result<File, Trouble> {
    let (mut connection, _) = greet(node, pair).await?;
    say(&mut connection, &Request::Type { key: key.to_owned(), file: path.as_bytes().to_vec() }).await?;
    let line = hear(&mut connection).await?;
    match Reply::parse(&line) {
        Reply::DataFollows => {}
        Reply::PermissionDenied => {
            let advice = advice::on_denial(&node.config, &line, &pair.my_name, &pair.peer, path);
            return Err(refused("TYPE", &line, advice));
        }
        _ => return Err(refused("TYPE", &line, String::new())),
    }
    let mut file = tempfile::tempfile()?;
    let mut left = node.config.max_file_size.unwrap_or(u64::MAX);
    let mut keep = |bytes: &[u8]| match left.checked_sub(bytes.len() as u64) {
        Some(rest) => {
            left = rest;
            file.write_all(bytes)
        }
        None => Err(io::Error::from_raw_os_error(libc::EFBIG)),
    };
    connection.read_rest(&mut keep).await??;
    file.rewind()?;
    Ok(file)
}

fn refused(request: &'static str, answer: &[u8], advice: String) -> Trouble {
    let answer = String::from_utf8_lossy(answer).into_owned();
    SessionError::Refused { request, answer, advice }.into()
}

pub(super) async fn say(connection: &mut Connection, request: &Request) -> Result<(), WireError> {
    tracing::trace!("Local> {}", request.command());
    connection.write_line(&request.encode()).await
}

pub(super) async fn hear(connection: &mut Connection) -> Result<Vec<u8>, WireError> {
    let line = connection.read_line().await?.ok_or(WireError::Closed)?;
    tracing::trace!("Peer> {}", String::from_utf8_lossy(&line));
    Ok(line)
}
