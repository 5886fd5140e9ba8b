//! What the program tells its caller at the end. Which mode ends how is for `commands` to say.

use std::process::{ExitCode, Termination};

/// The exit status of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// 0: done; for a comparison: differences were found.
    Success,
    /// 1: at least one error was counted, or the command line was not understood.
    Failure,
    /// 2: nothing was listed (`-H -L -M -S`), or the hosts are in sync (`-T`).
    Nothing,
    /// 1 and 2, of `--status`: a threshold is reached, or something else is wrong.
    Warning,
    Critical,
    /// 3, of `--status`: it cannot be told.
    Unknown,
    /// 141: whoever read our output has gone. It is what a shell reports of the C program, which SIGPIPE ends.
    ReaderGone,
}

impl Status {
    /// The status of a mode without a say of its own: whether any error was counted.
    #[must_use]
    pub fn of_errors(errors: u64) -> Self {
        if errors == 0 { Self::Success } else { Self::Failure }
    }

    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure | Self::Warning => 1,
            Self::Nothing | Self::Critical => 2,
            Self::Unknown => 3,
            Self::ReaderGone => 141,
        }
    }
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status.code())
    }
}

impl Termination for Status {
    fn report(self) -> ExitCode {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_error_makes_a_failure() {
        assert_eq!([0, 1, 7].map(Status::of_errors), [Status::Success, Status::Failure, Status::Failure]);
        assert_eq!([Status::Success, Status::Failure, Status::Nothing].map(Status::code), [0, 1, 2]);
    }
}
