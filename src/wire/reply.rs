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
        address: String,
    },
    ConnectionClosed,
    BadConfigName,
    ExpectingConfig,
    /// Any other error: strerror texts and the like.
    Text(String),
}

impl Reply {
    /// Reads one line, without its line end. Any line is an answer.
    #[must_use]
    pub fn parse(_line: &[u8]) -> Self {
        todo!()
    }

    /// The line, with its `\n`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }

    /// Whether the command succeeded.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        todo!()
    }
}
