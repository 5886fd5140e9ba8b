//! The lines of listings as JSON objects: one a line, so that a reader need not wait for the last (docs/json.md).

use serde_json::{Map, Value};

use super::output::{Plan, Side};

/// An object with a name, and what else there is to say.
///
/// JSON has text, and a name is bytes: what is no UTF-8 is told as U+FFFD, and the bytes stand in `file_hex` beside it.
pub(super) fn named<const N: usize>(name: &[u8], members: [(&str, Value); N]) -> Vec<u8> {
    let mut object: Map<String, Value> = members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    object.insert("file".to_owned(), String::from_utf8_lossy(name).into());
    if std::str::from_utf8(name).is_err() {
        object.insert("file_hex".to_owned(), hex::encode(name).into());
    }
    Value::Object(object).to_string().into_bytes()
}

pub(super) fn side(side: Side) -> Value {
    match side {
        Side::LocalOnly => "local",
        Side::RemoteOnly => "remote",
        Side::Different => "different",
    }
    .into()
}

/// What would be done, and whether it is forced.
pub(super) fn plan(plan: Plan) -> (Value, Value) {
    let (what, forced) = match plan {
        Plan::Modify { forced } => ("modify", forced),
        Plan::Delete { forced } => ("delete", forced),
        Plan::InSync => ("none", false),
    };
    (what.into(), forced.into())
}
