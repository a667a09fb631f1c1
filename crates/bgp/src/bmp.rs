//! BMP, version 3: what a speaker tells monitoring stations of its sessions and routes (RFC 7854), of what it sends
//! (RFC 8671) and of what it uses (RFC 9069), as bytes.
//!
//! ```text
//!  Initiation ─► { Peer Up ─► Route Monitoring … End-of-RIB ─► Route Monitoring, Statistics … ─► Peer Down } … ─► Termination
//!                  └────────────── for each neighbour, and for Loc-RIB as if it were one ─────────────┘
//! ```
//!
//! A station never answers. [`Message::encode`] writes, [`decode()`] finds and reads the first message of a stream;
//! [`put_route`] wraps an UPDATE without a copy in between. Route Mirroring (type 6) is not spoken.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::{DecodeError, decode};
pub use encode::put_route;

use crate::{
    number::{AfiSafi, Asn, RouterId},
    wire::Notification,
};
use std::{net::IpAddr, time::Duration};

/// Where stations listen by custom; RFC 7854 section 3.2 leaves it open.
pub const PORT: u16 = 11_019;
/// Longest message that [`decode()`] takes: two OPENs, or an UPDATE of 65,535 bytes, and texts beside them.
pub const MESSAGE_BYTES_MAX: usize = 256 << 10;

/// The version that is spoken (RFC 7854 section 4.1).
const VERSION: u8 = 3;
/// Bytes of version, length and type.
const HEADER_BYTES: usize = 6;

/// Types of messages (RFC 7854 section 4.1).
mod kind {
    pub(super) const ROUTE_MONITORING: u8 = 0;
    pub(super) const STATISTICS_REPORT: u8 = 1;
    pub(super) const PEER_DOWN: u8 = 2;
    pub(super) const PEER_UP: u8 = 3;
    pub(super) const INITIATION: u8 = 4;
    pub(super) const TERMINATION: u8 = 5;
}

/// Bits of the per-peer header (RFC 7854 section 4.2, RFC 8671 section 4, RFC 9069 section 4.2).
mod flag {
    pub(super) const V: u8 = 0x80;
    pub(super) const L: u8 = 0x40;
    pub(super) const A: u8 = 0x20;
    pub(super) const O: u8 = 0x10;
    /// Of Loc-RIB alone, where it stands in the place of V.
    pub(super) const F: u8 = 0x80;
}

/// Type of the per-peer header that stands for Loc-RIB (RFC 9069 section 4.1).
const TYPE_LOC_RIB: u8 = 3;

/// A message to a station.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A route, or several that share their attributes (section 4.6).
    RouteMonitoring {
        /// Whose.
        peer: PeerHeader,
        /// One UPDATE, with BGP's own header.
        update: Vec<u8>,
    },
    /// Numbers (section 4.8).
    StatisticsReport {
        /// Of whom.
        peer: PeerHeader,
        /// Which.
        statistics: Vec<Statistic>,
    },
    /// A session is gone, and with it all its routes (section 4.9).
    PeerDown {
        /// Whose.
        peer: PeerHeader,
        /// Why.
        reason: DownReason,
    },
    /// A session is there (section 4.10).
    PeerUp(PeerUp),
    /// The speaker says who it is (section 4.3).
    Initiation(Vec<Information>),
    /// The speaker says no more (section 4.5).
    Termination(Vec<Information>),
}

/// Whose routes a message is about (section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerHeader {
    /// A neighbour's table, or our own.
    pub table: Table,
    /// Tells equal addresses of different VRFs apart; 0 in the global table.
    pub distinguisher: u64,
    /// The neighbour's AS; with Loc-RIB ours.
    pub asn: Asn,
    /// The neighbour's router id; with Loc-RIB ours.
    pub id: RouterId,
    /// When what is told happened, since 1970; zero where nobody knows. Up to 2106, in microseconds.
    pub at: Duration,
}

/// Which table routes are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// One of a neighbour.
    Peer {
        /// In which way the neighbour is one.
        scope: Scope,
        /// Its address.
        address: IpAddr,
        /// What it sent, or what it was sent.
        direction: Direction,
        /// As policy left it.
        post_policy: bool,
        /// AS paths have numbers of two bytes.
        two_byte_as: bool,
    },
    /// What the speaker chose (RFC 9069).
    LocRib {
        /// Some of it is kept back.
        filtered: bool,
    },
}

/// In which way somebody is a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Scope {
    /// In the global table.
    Global = 0,
    /// In a VRF, which the distinguisher names.
    Vpn = 1,
    /// In another instance, which the distinguisher names.
    Local = 2,
}

/// Which way routes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the neighbour: Adj-RIB-In.
    In,
    /// To the neighbour: Adj-RIB-Out (RFC 8671).
    Out,
}

/// A session that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerUp {
    /// With whom.
    pub peer: PeerHeader,
    /// Our end, of the family of the neighbour's address.
    pub local_address: IpAddr,
    /// Our port; 0 with Loc-RIB.
    pub local_port: u16,
    /// Its port; 0 with Loc-RIB.
    pub remote_port: u16,
    /// Our OPEN, with BGP's own header.
    pub sent: Vec<u8>,
    /// Its OPEN, with BGP's own header.
    pub received: Vec<u8>,
    /// More about it.
    pub information: Vec<Information>,
}

/// Why a session is gone (section 4.9, RFC 9069 section 5.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// We said this (1).
    LocalNotification(Notification),
    /// We closed it without a word, at this event of RFC 4271 section 8.1; 0 where none fits (2).
    LocalEvent(u16),
    /// The neighbour said this (3).
    RemoteNotification(Notification),
    /// The connection ended without a word (4).
    RemoteSilent,
    /// The station shall not know of it any longer (5).
    Unmonitored,
    /// Loc-RIB is gone (6).
    LocRib(Vec<Information>),
}

/// A number of a report (section 4.8). Counters go up, around after 2^32; the others say how many there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statistic {
    /// Routes in Adj-RIB-In before policy (7).
    AdjRibIn(u64),
    /// Routes in Loc-RIB (8).
    LocRib(u64),
    /// Routes of a family in Adj-RIB-In before policy (9).
    AdjRibInOf(AfiSafi, u64),
    /// Routes of a family in Loc-RIB (10).
    LocRibOf(AfiSafi, u64),
    /// UPDATEs whose routes counted as withdrawn (RFC 7606), a counter (11).
    TreatedAsWithdraw(u32),
    /// One that is not among these.
    Other {
        /// Its number.
        kind: u16,
        /// As it came.
        value: Vec<u8>,
    },
}

/// A text or number beside a message. `kind` is one of [`information`], whose numbers each message gives its own meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Information {
    /// What it is.
    pub kind: u16,
    /// What it says; what is longer than 65,535 bytes is cut.
    pub value: Vec<u8>,
}

impl Information {
    /// A text.
    pub fn text(kind: u16, text: &str) -> Self {
        Self { kind, value: text.as_bytes().to_vec() }
    }

    /// Why no more is said: one of [`termination`].
    pub fn reason(reason: u16) -> Self {
        Self { kind: information::REASON, value: reason.to_be_bytes().to_vec() }
    }
}

/// Numbers of [`Information`].
pub mod information {
    /// A text for people, in Initiation, Peer Up and Termination.
    pub const STRING: u16 = 0;
    /// What the speaker is, in Initiation (sysDescr).
    pub const SYS_DESCR: u16 = 1;
    /// How the speaker is called, in Initiation (sysName).
    pub const SYS_NAME: u16 = 2;
    /// Why no more is said, in Termination.
    pub const REASON: u16 = 1;
    /// Name of the table, in Peer Up and Peer Down of Loc-RIB (RFC 9069 section 5.2.1).
    pub const TABLE_NAME: u16 = 3;
}

/// Reasons of Termination (section 4.5).
pub mod termination {
    /// Somebody closed it; it may come back.
    pub const CLOSED: u16 = 0;
    /// Somebody closed it for good.
    pub const CLOSED_FOR_GOOD: u16 = 4;
}
