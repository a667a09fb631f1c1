//! Errors as CNI has them: a code, a message, details.

use crate::version::Version;
use isthmus_api::adapter::{CallError, Failure, FailureKind};
use serde_json::json;

/// What kind of error; the numbers are those of the specification, from 100 on our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// 1: the configuration's version is not spoken, or does not have the command.
    Version,
    /// 2: a field has a value that is not supported.
    Unsupported,
    /// 3: the agent has no such container. Nothing to clean up.
    UnknownContainer,
    /// 4: an environment variable is missing or wrong.
    Environment,
    /// 5: input could not be read, or the kernel or the disk refused.
    Io,
    /// 6: the input is not what it should be.
    Decode,
    /// 7: the configuration cannot work.
    Config,
    /// 8: the network namespace cannot be used.
    Netns,
    /// 11: the same call may succeed later.
    TryAgain,
    /// 50: no container can be attached now.
    Unavailable,
    /// 100: the attachment is not as it was made.
    Differs,
}

impl Code {
    /// The number.
    pub const fn number(self) -> u32 {
        match self {
            Self::Version => 1,
            Self::Unsupported => 2,
            Self::UnknownContainer => 3,
            Self::Environment => 4,
            Self::Io => 5,
            Self::Decode => 6,
            Self::Config => 7,
            Self::Netns => 8,
            Self::TryAgain => 11,
            Self::Unavailable => 50,
            Self::Differs => 100,
        }
    }
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CniError {
    /// What kind.
    pub code: Code,
    /// What, where, why.
    pub message: String,
    /// What to do; may be empty.
    pub details: String,
}

impl CniError {
    /// An error of `code`.
    pub fn new(code: Code, message: impl Into<String>, details: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: details.into() }
    }

    /// The document that runtimes read.
    pub fn render(&self, version: Version) -> String {
        let mut document = json!({
            "cniVersion": version.as_str(),
            "code": self.code.number(),
            "msg": self.message,
        });
        if !self.details.is_empty() {
            document["details"] = json!(self.details);
        }
        document.to_string()
    }
}

impl From<Failure> for CniError {
    fn from(failure: Failure) -> Self {
        let code = match failure.kind {
            FailureKind::TryAgain | FailureKind::Unavailable => Code::TryAgain,
            FailureKind::Invalid => Code::Config,
            FailureKind::Unknown => Code::UnknownContainer,
            FailureKind::Differs => Code::Differs,
            FailureKind::System => Code::Io,
        };
        Self::new(code, failure.message, failure.help)
    }
}

impl From<CallError> for CniError {
    fn from(error: CallError) -> Self {
        let details = match error {
            CallError::Away { .. } => {
                "start it (systemctl start isthmus-agent), or set `socket` in the CNI configuration"
            }
            CallError::Broken { .. } => {
                "look at the agent's log (journalctl -u isthmus-agent); the runtime may try again"
            }
            CallError::Version { .. } => "install isthmus-cni and isthmus-agent of one release",
        };
        let code =
            if matches!(error, CallError::Version { .. }) { Code::Unavailable } else { Code::TryAgain };
        Self::new(code, error.to_string(), details)
    }
}
