//! The one-line answers of a server. Old peers compare them by their beginning, so the texts are exact.

/// One answer line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    CmdFinished,
    DataFollows,
    SendData,
    NotFound,
    PathNotFound,
    CuLater,
    ActivatingSsl,
    /// The answer to PUSH is still to come.
    Pushing,
    /// The version of the batch dialect that the server will speak, or speaks from here on.
    Batch {
        version: u32,
    },
    /// Any other `OK (…` line, as it came.
    OtherOk(Vec<u8>),
    AlsoDirty,
    ParentDirMissing,
    PermissionDenied,
    PermissionDeniedSlave,
    IdentificationFailed,
    SslExpected,
    GroupListAlreadySet,
    UnknownCommand,
    IdentifyFirst {
        /// The client's address as the server sees it.
        address: String,
    },
    ConnectionClosed,
    BadConfigName,
    ExpectingConfig,
    /// Any other error: strerror texts and the like.
    Text(String),
}

/// Every fixed text, and the beginning by which a peer's line is known.
static FIXED: [(Reply, &str, &str); 19] = [
    (Reply::CmdFinished, "OK (cmd_finished).", "OK (cmd_finished)"),
    (Reply::DataFollows, "OK (data_follows).", "OK (data_follows)"),
    (Reply::SendData, "OK (send_data).", "OK (send_data)"),
    (Reply::NotFound, "OK (not_found).", "OK (not_found)"),
    (Reply::PathNotFound, "OK (path_not_found).", "OK (path_not_found)"),
    (Reply::CuLater, "OK (cu_later).", "OK (cu_later)"),
    (Reply::ActivatingSsl, "OK (activating_ssl).", "OK (activating_ssl)"),
    (Reply::Pushing, "OK (pushing).", "OK (pushing)"),
    (Reply::AlsoDirty, "File is also marked dirty here!", "File is also marked dirty"),
    (Reply::ParentDirMissing, "Parent dir missing.", "Parent dir missing"),
    (Reply::PermissionDenied, "Permission denied!", "Permission denied!"),
    (Reply::PermissionDeniedSlave, "Permission denied for slave!", "Permission denied for slave"),
    (Reply::IdentificationFailed, "Identification failed!", "Identification failed"),
    (Reply::SslExpected, "SSL encrypted connection expected!", "SSL encrypted connection expected"),
    (Reply::GroupListAlreadySet, "Group list already set!", "Group list already set"),
    (Reply::UnknownCommand, "Unknown command!", "Unknown command"),
    (Reply::ConnectionClosed, "Connection closed.", "Connection closed"),
    (Reply::BadConfigName, "Config names are limited to [a-z0-9]+.", "Config names are limited"),
    (
        Reply::ExpectingConfig,
        "Expecting SSL (optional) and CONFIG as first commands.",
        "Expecting SSL (optional) and CONFIG",
    ),
];

/// How upstream's own builds spell it.
const UNKNOWN_MISSPELT: &str = "Unkown command";

const OK: &[u8] = b"OK (";
const BATCH: (&str, &str) = ("OK (batch ", ").");
const IDENTIFY: (&str, &str) = ("Dear ", ", please identify first.");

impl Reply {
    /// Reads one line, without its line end. Any line is an answer.
    #[must_use]
    pub fn parse(line: &[u8]) -> Self {
        if let Some((reply, _, _)) = FIXED.iter().find(|(_, _, beginning)| line.starts_with(beginning.as_bytes())) {
            return reply.clone();
        }
        if let Some(version) = version(line) {
            return Self::Batch { version };
        }
        if line.starts_with(OK) {
            return Self::OtherOk(line.to_vec());
        }
        if line.starts_with(UNKNOWN_MISSPELT.as_bytes()) {
            return Self::UnknownCommand;
        }
        let text = String::from_utf8_lossy(line);
        match text.strip_prefix(IDENTIFY.0).and_then(|rest| rest.strip_suffix(IDENTIFY.1)) {
            Some(address) => Self::IdentifyFirst { address: address.to_owned() },
            None => Self::Text(text.into_owned()),
        }
    }

    /// The line, with its `\n`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut line = match self {
            Self::OtherOk(line) => line.clone(),
            Self::Batch { version } => format!("{}{version}{}", BATCH.0, BATCH.1).into_bytes(),
            Self::IdentifyFirst { address } => format!("{}{address}{}", IDENTIFY.0, IDENTIFY.1).into_bytes(),
            Self::Text(text) => text.clone().into_bytes(),
            fixed => {
                let text = FIXED.iter().find(|(reply, _, _)| reply == fixed).map_or("", |(_, text, _)| text);
                text.as_bytes().to_vec()
            }
        };
        // Whatever a text holds, it stays one line: the peer would take a second one for the next answer.
        line.iter_mut().filter(|byte| b"\r\n".contains(byte)).for_each(|byte| *byte = b' ');
        line.push(b'\n');
        line
    }

    /// The same answer, as far as it is known by its beginning, with a reason behind it.
    #[must_use]
    pub fn because(&self, reason: &str) -> Self {
        Self::Text(format!("{self} {reason}"))
    }

    /// The text for a log: the line without its end.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.encode()).trim_end().to_owned()
    }

    /// Whether the command succeeded.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        match self {
            Self::CmdFinished
            | Self::DataFollows
            | Self::SendData
            | Self::NotFound
            | Self::PathNotFound
            | Self::CuLater
            | Self::ActivatingSsl
            | Self::Pushing
            | Self::Batch { .. }
            | Self::OtherOk(_) => true,
            Self::AlsoDirty
            | Self::ParentDirMissing
            | Self::PermissionDenied
            | Self::PermissionDeniedSlave
            | Self::IdentificationFailed
            | Self::SslExpected
            | Self::GroupListAlreadySet
            | Self::UnknownCommand
            | Self::IdentifyFirst { .. }
            | Self::ConnectionClosed
            | Self::BadConfigName
            | Self::ExpectingConfig
            | Self::Text(_) => false,
        }
    }
}

/// The version in the answer to BATCH.
fn version(line: &[u8]) -> Option<u32> {
    std::str::from_utf8(line).ok()?.strip_prefix(BATCH.0)?.strip_suffix(BATCH.1)?.parse().ok()
}

/// The answer as the peer wrote it, for messages.
impl std::fmt::Display for Reply {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        String::from_utf8_lossy(&self.encode()).trim_end().fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_fixed_answer_comes_back() {
        for (reply, text, _) in &FIXED {
            assert_eq!(reply.encode(), format!("{text}\n").into_bytes());
            assert_eq!(&Reply::parse(text.as_bytes()), reply);
            assert_eq!(reply.is_ok(), text.starts_with("OK ("), "{text}");
        }
    }

    #[test]
    fn answers_are_known_by_their_beginning() {
        assert_eq!(Reply::parse(b"OK (cmd_finished)"), Reply::CmdFinished);
        assert_eq!(Reply::parse(b"Unkown command!"), Reply::UnknownCommand);
        assert_eq!(Reply::parse(b"OK (whatever)."), Reply::OtherOk(b"OK (whatever).".to_vec()));
        assert_eq!(Reply::parse(b"Permission denied"), Reply::Text("Permission denied".into()), "strerror's text");
        assert_eq!(Reply::parse(b"OK (batch 1)."), Reply::Batch { version: 1 });
        assert_eq!(Reply::Batch { version: 1 }.to_string(), "OK (batch 1).");
        let dear = Reply::IdentifyFirst { address: "::1".into() };
        assert_eq!(Reply::parse(b"Dear ::1, please identify first."), dear);
        assert_eq!(dear.to_string(), "Dear ::1, please identify first.");
    }

    proptest! {
        #[test]
        fn any_line_is_one_answer(line in prop::collection::vec(any::<u8>(), 0..60)) {
            let reply = Reply::parse(&line);
            prop_assert_eq!(reply.is_ok(), line.starts_with(b"OK ("));
            let encoded = reply.encode();
            prop_assert_eq!(encoded.iter().position(|&byte| byte == b'\n'), Some(encoded.len() - 1));
        }
    }
}
