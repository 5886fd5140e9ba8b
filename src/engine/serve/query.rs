//! The commands that only read: SIG, GETTM, GETSZ, TYPE, LIST.

use std::io::{ErrorKind, Write};
use std::time::SystemTime;

use tempfile::spooled_tempfile;

use super::apply::Refusal;
use super::peer::Peer;
use super::permission::Admitted;
use super::spool::{IN_MEMORY, Spooled};
use crate::config::{Config, LocalPath};
use crate::delta;
use crate::engine::membership::{self, Permission, Purpose};
use crate::engine::{EngineError, blocking, content};
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

/// Describes a file and makes its signature.
pub(super) async fn signature(peer: &Peer, file: &Admitted) -> Result<Signature, EngineError> {
    let (ignore, place) = (peer.node.config.ignore, file.place.clone());
    blocking("SIG", move || {
        let looked = SystemTime::now();
        let metadata = match find(&place) {
            Ok(Some(metadata)) => metadata,
            Ok(None) => return Signature::Missing(Reply::PathNotFound),
            Err(BeneathError::BehindSymlink) => return Signature::Missing(Reply::NotFound),
            Err(error) => return Signature::Refused(Refusal::from(error).reply()),
        };
        let checktxt = Checktxt::of(&metadata, ignore, MtimeUnit::Zero);
        match spool_signature(&place, &metadata) {
            Ok(data) => Signature::There { checktxt, metadata: Box::new(metadata), looked, data },
            Err(refusal) => Signature::Refused(refusal.reply()),
        }
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
    blocking("GETTM", move || match what {
        Measure::Mtime(unit) => match fs::presence(&place.root, &place.relative) {
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
    blocking("TYPE", move || match content::locate(&place) {
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
    let mut config = Config::clone(&peer.node.config);
    config.groups.retain(|group| group.my_name == server);
    let mut rows = peer.node.store.files(vec![scope]);
    while let Some(chunk) = rows.recv().await {
        for record in chunk? {
            let shared = keys.iter().any(|key| {
                let permission = membership::permission(&config, &record.path, &peer.name, key, Purpose::Sync);
                matches!(permission, Permission::Allowed | Permission::Slave)
            });
            if !shared {
                continue;
            }
            let text = in_unit(&record.checktxt, record.mtime_ns, unit);
            let Some(line) = list_line(&text, &record.path) else {
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

/// The line that lists a file. A link target that makes it longer than a peer reads is left out: an empty one matches any.
fn list_line(checktxt: &[u8], path: &SyncPath) -> Option<Vec<u8>> {
    let line = |checktxt: &[u8]| format!("{}\t{}", encoding::encode(checktxt), path.encoded()).into_bytes();
    let target = b":target=";
    let without_target = || {
        let start = checktxt.windows(target.len()).position(|window| window == target)?;
        Some(line(&checktxt[..start + target.len()]))
    };
    let fits = |line: &Vec<u8>| line.len() < MAX_LINE;
    Some(line(checktxt)).filter(fits).or_else(|| without_target().filter(fits))
}

/// A row's checktxt with its mtime in the unit of the session.
fn in_unit(checktxt: &Checktxt, mtime_ns: Option<i64>, unit: MtimeUnit) -> Vec<u8> {
    let Some(mtime) = checktxt.mtime() else { return checktxt.as_bytes().to_vec() };
    let number = match (unit, mtime_ns) {
        (MtimeUnit::Nanoseconds, Some(nanoseconds)) => nanoseconds,
        (unit, _) => mtime_number(mtime, unit),
    };
    let fields = checktxt.as_bytes().split(|&byte| byte == b':');
    let replaced =
        fields.map(
            |field| {
                if field.starts_with(b"mtime=") { format!("mtime={number}").into_bytes() } else { field.to_vec() }
            },
        );
    replaced.collect::<Vec<_>>().join(&b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_link_loses_a_target_that_no_line_holds() {
        let path = SyncPath::parse(b"%d%/l").unwrap();
        let link = |length| format!("v1:mode=41471:type=lnk:target={}", "%20".repeat(length)).into_bytes();
        let listed = |length| String::from_utf8(list_line(&link(length), &path).unwrap()).unwrap();
        assert_eq!(listed(1), "v1%3Amode=41471%3Atype=lnk%3Atarget=%2520\t%25d%25/l");
        assert_eq!(listed(4_000), "v1%3Amode=41471%3Atype=lnk%3Atarget=\t%25d%25/l");
        let endless = SyncPath::parse(&[b"/", " ".repeat(6_000).as_bytes()].concat()).unwrap();
        assert_eq!(list_line(b"v1:type=dir", &endless), None);
    }

    #[test]
    fn a_listed_time_is_in_the_unit_of_the_session() {
        let row = Checktxt::from_text(b"v1:mtime=1600000000:mode=33188:type=reg:size=6");
        let listed = |unit, ns| String::from_utf8(in_unit(&row, ns, unit)).unwrap();
        assert_eq!(listed(MtimeUnit::Seconds, Some(1_600_000_000_000_000_005)), row.to_string());
        assert!(
            listed(MtimeUnit::Nanoseconds, Some(1_600_000_000_000_000_005))
                .starts_with("v1:mtime=1600000000000000005:")
        );
        assert!(listed(MtimeUnit::Nanoseconds, None).starts_with("v1:mtime=1600000000000000000:"));
        assert_eq!(in_unit(&Checktxt::from_text(b"v1:type=dir"), None, MtimeUnit::Seconds), b"v1:type=dir");
    }
}
