//! How the errors of operations become answers: one code, one HTTP status, one text for the caller.
//!
//! Operations know no HTTP. Whatever fails implements [`Fault`]; [`problem`] makes RFC 9457's document of it for REST and
//! [`stream_problem`] the message for an agent.

use isthmus_api::{rest, stream};
use isthmus_store::StoreError;

/// A stable code; its page is `docs/errors/ISE-nnnn.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// The request cannot be read.
    BadRequest,
    /// Nothing is there.
    NotFound,
    /// It is there already, or has changed meanwhile.
    Conflict,
    /// More than is accepted.
    TooLarge,
    /// Not now; try again.
    Unavailable,
    /// Our own fault.
    Internal,
    /// The path does not know the method.
    Method,
    /// A name that nothing has.
    UnknownName,
    /// A name that several things have.
    AmbiguousName,
    /// A text that cannot be a name.
    BadName,
    /// Two pools share addresses.
    PoolsOverlap,
    /// No block is free.
    PoolExhausted,
    /// Blocks of the pool are leased.
    PoolInUse,
    /// Pools, endpoints or policies need the cluster.
    ClusterInUse,
    /// A rule that cannot be.
    BadRule,
    /// A BGP neighbour that cannot be.
    BadPeer,
    /// Another live agent has the node's name.
    NodeServed,
    /// The agent speaks another protocol.
    Protocol,
    /// Another node has the tunnel address.
    TunnelTaken,
    /// The node's agent is connected.
    NodeConnected,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 20] = [
        Self::BadRequest,
        Self::NotFound,
        Self::Conflict,
        Self::TooLarge,
        Self::Unavailable,
        Self::Internal,
        Self::Method,
        Self::UnknownName,
        Self::AmbiguousName,
        Self::BadName,
        Self::PoolsOverlap,
        Self::PoolExhausted,
        Self::PoolInUse,
        Self::ClusterInUse,
        Self::BadRule,
        Self::BadPeer,
        Self::NodeServed,
        Self::Protocol,
        Self::TunnelTaken,
        Self::NodeConnected,
    ];

    /// `ISE-nnnn`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "ISE-0001",
            Self::NotFound => "ISE-0002",
            Self::Conflict => "ISE-0003",
            Self::TooLarge => "ISE-0004",
            Self::Unavailable => "ISE-0005",
            Self::Internal => "ISE-0006",
            Self::Method => "ISE-0007",
            Self::UnknownName => "ISE-0101",
            Self::AmbiguousName => "ISE-0102",
            Self::BadName => "ISE-0103",
            Self::PoolsOverlap => "ISE-0201",
            Self::PoolExhausted => "ISE-0202",
            Self::PoolInUse => "ISE-0203",
            Self::ClusterInUse => "ISE-0204",
            Self::BadRule => "ISE-0301",
            Self::BadPeer => "ISE-0801",
            Self::NodeServed => "ISE-0401",
            Self::Protocol => "ISE-0402",
            Self::TunnelTaken => "ISE-0403",
            Self::NodeConnected => "ISE-0404",
        }
    }

    /// What kind of thing went wrong.
    pub const fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "bad request",
            Self::NotFound => "not found",
            Self::Conflict => "conflict",
            Self::TooLarge => "too large",
            Self::Unavailable => "not available now",
            Self::Internal => "internal error",
            Self::Method => "method not allowed",
            Self::UnknownName => "unknown name",
            Self::AmbiguousName => "ambiguous name",
            Self::BadName => "not a name",
            Self::PoolsOverlap => "pools overlap",
            Self::PoolExhausted => "pool exhausted",
            Self::PoolInUse => "pool in use",
            Self::ClusterInUse => "cluster in use",
            Self::BadRule => "rule cannot be",
            Self::BadPeer => "BGP peer cannot be",
            Self::NodeServed => "node already served",
            Self::Protocol => "protocol version",
            Self::TunnelTaken => "tunnel address taken",
            Self::NodeConnected => "node connected",
        }
    }

    /// HTTP status.
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest | Self::BadName | Self::BadRule | Self::BadPeer | Self::Protocol => 400,
            Self::NotFound => 404,
            Self::UnknownName | Self::AmbiguousName => 422,
            Self::Method => 405,
            Self::TooLarge => 413,
            Self::Conflict
            | Self::PoolsOverlap
            | Self::PoolInUse
            | Self::ClusterInUse
            | Self::NodeServed
            | Self::TunnelTaken
            | Self::NodeConnected => 409,
            Self::Unavailable | Self::PoolExhausted => 503,
            Self::Internal => 500,
        }
    }
}

/// Something that failed, with what an API says of it. Its `Display` is the text for the caller.
pub(crate) trait Fault: std::error::Error {
    /// The code.
    fn code(&self) -> Code;

    /// What to do, where the text does not say it.
    fn help(&self) -> Option<String> {
        None
    }

    /// Whether the same request may succeed later, without anybody changing it.
    fn retryable(&self) -> bool {
        matches!(self.code(), Code::Unavailable | Code::PoolExhausted)
    }
}

impl Fault for StoreError {
    fn code(&self) -> Code {
        match self {
            Self::TooLarge { .. } => Code::TooLarge,
            Self::EmptyKey | Self::DuplicateKey { .. } | Self::NoLease { .. } => Code::Internal,
            Self::Full { .. } | Self::Disk { .. } | Self::Closed => Code::Unavailable,
        }
    }
}

/// The text of an error with those of its sources.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}

/// RFC 9457's document for a code and a text.
pub(crate) fn document(code: Code, detail: impl Into<String>, help: Option<String>) -> rest::Problem {
    rest::Problem {
        kind: format!("/docs/errors/{}", code.as_str()),
        code: code.as_str().to_owned(),
        title: code.title().to_owned(),
        status: code.status(),
        detail: detail.into(),
        help,
    }
}

/// RFC 9457's document for something that failed.
pub(crate) fn problem(fault: &dyn Fault) -> rest::Problem {
    // `chain` needs the supertrait's object; upcasting keeps the sources.
    document(fault.code(), chain(fault.as_error()), fault.help())
}

/// The message for an agent whose request failed.
pub(crate) fn stream_problem(fault: &dyn Fault) -> stream::Problem {
    stream::Problem {
        code: fault.code().as_str().to_owned(),
        message: chain(fault.as_error()),
        retryable: fault.retryable(),
    }
}

trait AsError {
    fn as_error(&self) -> &dyn std::error::Error;
}

impl AsError for dyn Fault + '_ {
    fn as_error(&self) -> &dyn std::error::Error {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_have_a_page() {
        let mut seen = std::collections::BTreeSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.as_str()), "{} twice", code.as_str());
            let page = format!("{}/../../docs/errors/{}.md", env!("CARGO_MANIFEST_DIR"), code.as_str());
            assert!(std::path::Path::new(&page).exists(), "{page} is missing");
        }
    }

    #[test]
    fn a_full_disk_is_retryable_and_tells_the_file() {
        let error = StoreError::Full { path: "/x/store.redb".into() };
        let problem = problem(&error);
        assert_eq!((problem.status, problem.code.as_str()), (503, "ISE-0005"));
        assert!(problem.detail.contains("/x/store.redb"));
        assert!(stream_problem(&error).retryable);
    }
}
