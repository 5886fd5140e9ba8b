//! The commands that only read: SIG, GETTM, GETSZ, TYPE, LIST.

use std::borrow::Cow;
use std::io::{ErrorKind, Write};
use std::time::SystemTime;

use tempfile::spooled_tempfile;

use super::apply::is_large;
use super::peer::Peer;
use super::permission::Admitted;
use super::refusal::Refusal;
use super::spool::{IN_MEMORY, Spooled};
use crate::config::{Config, LocalPath};
use crate::delta;
use crate::engine::membership::{self, Purpose};
use crate::engine::{EngineError, content, step};
use crate::fs::{self, BeneathError, Presence};
use crate::model::checktxt::mtime_number;
use crate::model::{Checktxt, Metadata, MtimeUnit, Scope, SyncPath, encoding};
use crate::wire::codec::MAX_LINE;
use crate::wire::{Connection, Reply, WireError};

/// What SIG found.
pub(super) enum Signature {
    Missing(Reply),
    /// `looked`: when it was in this state.
    There {
        checktxt: Checktxt,
        metadata: Box<Metadata>,
        looked: SystemTime,
        data: Spooled,
    },
    Refused(Reply),
}

/// What GETTM and GETSZ ask for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Measure {
    Mtime(MtimeUnit),
    Size,
}

/// Describes a file and makes its signature; `None`: that would take long, and may not.
pub(super) async fn signature(
    peer: &Peer,
    file: &Admitted,
    may_take_long: bool,
) -> Result<Option<Signature>, EngineError> {
    let (ignore, place) = (peer.node.config.ignore, file.place.clone());
    step("SIG", move || {
        let looked = SystemTime::now();
        let metadata = match find(&place) {
            Ok(Some(metadata)) => metadata,
            Ok(None) => return Some(Signature::Missing(Reply::PathNotFound)),
            Err(BeneathError::BehindSymlink) => return Some(Signature::Missing(Reply::NotFound)),
            Err(error) => return Some(Signature::Refused(Refusal::from(error).reply())),
        };
        if !may_take_long && is_large(&metadata) {
            return None;
        }
        let checktxt = Checktxt::of(&metadata, ignore, MtimeUnit::Zero);
        Some(match spool_signature(&place, &metadata) {
            Ok(data) => Signature::There { checktxt, metadata: Box::new(metadata), looked, data },
            Err(refusal) => Signature::Refused(refusal.reply()),
        })
    })
    .await
}

fn find(place: &LocalPath) -> Result<Option<Metadata>, BeneathError> {
    content::locate(place)?.metadata().map_err(BeneathError::Io)
}

fn spool_signature(place: &LocalPath, metadata: &Metadata) -> Result<Spooled, Refusal> {
    if metadata.is_regular() {
        return signature_of(Some(&content::open(place)?));
    }
    Ok(Spooled::new(spooled_tempfile(0))?)
}

/// The signature of an open basis, or the bare header where there is none.
pub(super) fn signature_of(basis: Option<&std::fs::File>) -> Result<Spooled, Refusal> {
    let mut data = spooled_tempfile(IN_MEMORY);
    match basis {
        None => data.write_all(&delta::MISSING_BASIS)?,
        Some(mut file) => {
            fs::read_ahead(file);
            delta::signature(&mut file, &mut data)?;
        }
    }
    Ok(Spooled::new(data)?)
}

/// GETTM and GETSZ: the number, −1 for what cannot be looked at.
pub(super) async fn measure(file: &Admitted, what: Measure) -> Result<i64, EngineError> {
    let place = file.place.clone();
    step("GETTM", move || match what {
        Measure::Mtime(unit) => match fs::presence(place.root(), place.relative()) {
            Presence::Present(metadata) => mtime_number(metadata.mtime, unit),
            _ => -1,
        },
        Measure::Size => {
            let size = content::locate(&place).ok().and_then(|place| place.size().ok());
            size.map_or(-1, |size| i64::try_from(size).unwrap_or(i64::MAX))
        }
    })
    .await
}

/// TYPE: the content of a regular file; nothing else has any. The inner error is the answer to the peer: a file that
/// cannot be read must not look like an empty one.
pub(super) async fn content(file: &Admitted) -> Result<Result<Option<tokio::fs::File>, Reply>, EngineError> {
    let place = file.place.clone();
    step("TYPE", move || match content::locate(&place) {
        Err(BeneathError::ParentMissing | BeneathError::BehindSymlink) => Ok(None),
        Err(error) => Err(Refusal::from(error).reply()),
        Ok(place) => match place.open_regular() {
            Ok(file) => Ok(Some(tokio::fs::File::from_std(file))),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => Ok(None),
            Err(error) => Err(Refusal::from(error).reply()),
        },
    })
    .await
}

/// LIST: every known file that the pair shares under one of the keys, in name order. `server` is what we are called in
/// the groups that count.
pub(super) async fn list(
    peer: &Peer,
    connection: &mut Connection,
    server: &str,
    file: Option<&[u8]>,
    keys: &[String],
    unit: MtimeUnit,
) -> Result<Result<(), WireError>, EngineError> {
    let scope = match file.map(SyncPath::parse) {
        None => Scope::All,
        Some(Ok(path)) => Scope::File(path),
        Some(Err(_)) => return Ok(Ok(())),
    };
    // Each key is looked at once, not once for each file.
    let mut config = Config::clone(&peer.node.config);
    config
        .groups
        .retain(|group| group.my_name == server && keys.iter().any(|key| membership::admits(group, &peer.name, key)));
    let mut rows = peer.node.store.files(vec![scope]);
    while let Some(chunk) = rows.recv().await {
        for record in chunk? {
            if !membership::is_covered(&config, &record.path, Purpose::Sync) {
                continue;
            }
            let text = in_unit(&record.checktxt, record.mtime_ns, unit);
            let Some(line) = list_line(&text, &record.path, unit) else {
                tracing::warn!("{}: no line of a list can hold the name", record.path);
                continue;
            };
            if let Err(error) = connection.write_line(&line).await {
                return Ok(Err(error));
            }
        }
    }
    Ok(Ok(()))
}

/// The line that lists a file. A link target that makes it longer than a peer reads is left out, since an empty one matches
/// any; and so is one below a prefix where only seconds are spoken: the C program records none there, and compares texts.
fn list_line(checktxt: &[u8], path: &SyncPath, unit: MtimeUnit) -> Option<Vec<u8>> {
    let target = b":target=";
    let start = checktxt.windows(target.len()).position(|window| window == target);
    let without_target = start.map_or(checktxt, |start| &checktxt[..start + target.len()]);
    let is_told = unit == MtimeUnit::Nanoseconds || path.split_prefix().is_none();
    let line = |checktxt: &[u8]| [&encoding::encode(checktxt), "\t", &path.encoded()].concat().into_bytes();
    let lines = [if is_told { checktxt } else { without_target }, without_target].map(line);
    lines.into_iter().find(|line| line.len() < MAX_LINE)
}

/// A row's checktxt with its mtime in the unit of the session.
fn in_unit(checktxt: &Checktxt, mtime_ns: Option<i64>, unit: MtimeUnit) -> Cow<'_, [u8]> {
    let text = checktxt.as_bytes();
    let Some(mtime) = checktxt.mtime() else { return Cow::Borrowed(text) };
    let number = match (unit, mtime_ns) {
        (MtimeUnit::Nanoseconds, Some(nanoseconds)) => nanoseconds,
        (unit, _) => mtime_number(mtime, unit),
    };
    let name = b":mtime=";
    let Some(field) = text.windows(name.len()).position(|window| window == name) else { return Cow::Borrowed(text) };
    let (before, behind) = text.split_at(field + name.len());
    let end = behind.iter().position(|&byte| byte == b':').unwrap_or(behind.len());
    Cow::Owned([before, number.to_string().as_bytes(), &behind[end..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_link_loses_a_target_that_no_line_holds_or_the_peer_does_not_record() {
        use MtimeUnit::{Nanoseconds, Seconds};
        let link = |length| format!("v1:mode=41471:type=lnk:target={}", "%20".repeat(length)).into_bytes();
        let listed = |length, path: &str, unit| {
            let path = SyncPath::parse(path.as_bytes()).unwrap();
            String::from_utf8(list_line(&link(length), &path, unit).unwrap()).unwrap()
        };
        let start = "v1%3Amode=41471%3Atype=lnk%3Atarget=";
        assert_eq!(listed(1, "%d%/l", Nanoseconds), format!("{start}%2520\t%25d%25/l"));
        assert_eq!(listed(4_000, "%d%/l", Nanoseconds), format!("{start}\t%25d%25/l"));
        assert_eq!(listed(1, "%d%/l", Seconds), format!("{start}\t%25d%25/l"));
        assert_eq!(listed(1, "/l", Seconds), format!("{start}%2520\t/l"));
        let endless = SyncPath::parse(&[b"/", " ".repeat(6_000).as_bytes()].concat()).unwrap();
        assert_eq!(list_line(b"v1:type=dir", &endless, Nanoseconds), None);
    }

    #[test]
    fn a_listed_time_is_in_the_unit_of_the_session() {
        let row = Checktxt::from_text(b"v1:mtime=1600000000:mode=33188:type=reg:size=6");
        let listed = |unit, ns| String::from_utf8(in_unit(&row, ns, unit).into_owned()).unwrap();
        assert_eq!(listed(MtimeUnit::Seconds, Some(1_600_000_000_000_000_005)), row.to_string());
        assert!(
            listed(MtimeUnit::Nanoseconds, Some(1_600_000_000_000_000_005))
                .starts_with("v1:mtime=1600000000000000005:")
        );
        assert!(listed(MtimeUnit::Nanoseconds, None).starts_with("v1:mtime=1600000000000000000:"));
        assert_eq!(*in_unit(&Checktxt::from_text(b"v1:type=dir"), None, MtimeUnit::Seconds), *b"v1:type=dir");
    }
}
