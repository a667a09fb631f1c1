//! The words that every part of Isthmus shares: names, identities, protocols, ports and labels.
//!
//! Each type can only hold what is valid; text from outside is parsed at the border by `FromStr`. Nothing here does
//! I/O, reads a clock or serialises itself: wire types live in `isthmus-api`, stored types in `isthmus-store`.
#![forbid(unsafe_code)]

pub mod asn;
pub mod identity;
pub mod name;
pub mod network;
pub mod platform;
pub mod port;
pub mod workload;

pub use asn::{Asn, AsnError};
pub use identity::{Identity, IdentityError};
pub use name::{BgpPeerName, ClusterName, NameError, NodeName, PolicyName, PoolName};
pub use network::{Encapsulation, NotAWord, SourceCheck, Topology};
pub use platform::{Platform, PlatformError};
pub use port::{PortError, PortMatch, PortRange, Protocol};
pub use workload::{Labels, WorkloadKey, WorkloadName, WorkloadNameError, WorkloadPattern};

/// What happens to a packet that no rule allows, or to one that a default lets through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DefaultVerdict {
    /// Whatever no rule forbids is allowed.
    #[default]
    Open,
    /// Whatever no rule allows is denied.
    Closed,
}

/// How a denied packet is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DenyAnswer {
    /// Silence.
    #[default]
    Drop,
    /// ICMP destination unreachable, port unreachable (RFC 792, type 3 code 3).
    Reject,
}
