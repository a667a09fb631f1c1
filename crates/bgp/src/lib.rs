//! BGP-4 as an engine: what comes in is bytes and the time, what goes out is bytes and routes.
//!
//! ```text
//!  bytes ──► Session ──► Update ──► Router ──► changes ──► kernel routes, watchers
//!              ▲  │                   │
//!    timers ───┘  └──► bytes          └──► encoded UPDATEs for every peer
//! ```
//!
//! [`wire`] reads and writes messages, [`session`] is the state machine of one peer (RFC 4271 section 8), [`rib`] holds
//! the routes of all peers, chooses among them and says what each peer must hear. [`bfd`] finds out sooner than keepalives
//! that a peer cannot be reached (RFC 5880). [`bmp`] writes to monitoring stations (RFC 7854). [`mrt`] reads and writes files of
//! routes and messages (RFC 6396). Who calls it owns sockets and the clock: the crate `speaker`.
//!
//! Invariants: nothing here does I/O, reads a clock or draws a random number; no bytes from a peer make it panic; the
//! same inputs in the same order yield the same outputs.
#![forbid(unsafe_code)]

pub mod attributes;
pub mod bfd;
pub mod bmp;
pub mod config;
pub mod mrt;
pub mod number;
pub mod policy;
pub mod prefix;
pub mod rib;
pub mod session;
mod timers;
pub mod wire;

pub use attributes::{
    Aggregator, AsPath, Attributes, Community, ExtCommunity, LargeCommunity, NextHop, Origin, RawAttribute,
    Segment, SegmentKind,
};
pub use config::{GracefulRestart, PeerConfig, PrefixLimit, RemovePrivateAs, SessionConfig, Timers};
pub use number::{AfiSafi, Asn, Family, FamilySet, RouterId};
pub use policy::{AcceptAll, Candidate, Neighbor, Policy, RejectAll, Verdict};
pub use prefix::{Nlri, PathId, Prefix};
pub use rib::{PeerId, Router, RouterConfig};
pub use session::{Negotiated, PeerKind, Session};
