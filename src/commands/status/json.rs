//! The status as one JSON object (docs/json.md).

use serde_json::{Value, json};

use super::Judged;
use crate::engine::status::{Level, PeerStatus};
use crate::model::{Figures, Past, PastRun};
use crate::wire::certificate::Description;

pub(super) fn status(judged: &Judged) -> String {
    let Judged { status, database, my_name, level, reasons, .. } = judged;
    let (word, code) = match level {
        Level::Fine => ("ok", 0),
        Level::Warning => ("warning", 1),
        Level::Critical => ("critical", 2),
    };
    json!({
        "status": word,
        "code": code,
        "reasons": reasons,
        "at": status.at,
        "host": my_name,
        "database": database,
        "files": status.files(),
        "bytes": status.bytes(),
        "oldest": status.since(),
        "peers": status.peers.iter().map(peer).collect::<Vec<_>>(),
        "runs": status.runs.iter().map(run).collect::<Vec<_>>(),
        "hints": status.hints,
        "actions": status.actions,
        "receiving": status.receiving,
        "interrupted": status.interrupted,
    })
    .to_string()
}

/// Of a status that cannot be told.
pub(super) fn unknown(reason: &str) -> String {
    json!({ "status": "unknown", "code": 3, "reasons": [reason] }).to_string()
}

fn peer(peer: &PeerStatus) -> Value {
    let (pending, past) = (peer.pending.as_ref(), peer.past.as_ref());
    json!({
        "peer": peer.name,
        "member": peer.is_member,
        "files": peer.files(),
        "forced": pending.map_or(0, |pending| pending.forced),
        "bytes": pending.map_or(0, |pending| pending.bytes),
        "oldest": peer.since(),
        "failing": peer.is_failing(),
        "last_success": past.and_then(|past| past.succeeded),
        "last_failure": past.and_then(|past| past.failed),
        "last_error": past.and_then(|past| past.error.clone()),
        "last_session": past.map(session),
        "dialect": past.and_then(|past| past.dialect.clone()),
        "address": past.and_then(|past| past.address.clone()),
        "certificate": peer.certificate.as_ref().map(certificate),
    })
}

fn session(past: &Past) -> Value {
    let Figures { sent, removed, equal, refused, bytes } = past.figures;
    json!({
        "at": past.ended,
        "sent": sent,
        "removed": removed,
        "equal": equal,
        "refused": refused,
        "bytes": bytes,
        "milliseconds": past.milliseconds,
    })
}

fn certificate(certificate: &Description) -> Value {
    let Description { fingerprint, key, subject, not_before, not_after, .. } = certificate;
    json!({ "sha256": fingerprint, "key": key, "subject": subject, "from": not_before, "until": not_after })
}

fn run(run: &PastRun) -> Value {
    let PastRun { mode, at, milliseconds, errors, checked, marked } = run;
    json!({
        "mode": mode,
        "at": at,
        "milliseconds": milliseconds,
        "errors": errors,
        "checked": checked,
        "marked": marked,
    })
}
