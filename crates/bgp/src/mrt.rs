//! Files of routes and of messages: MRT (RFC 6396), with path ids (RFC 8050).
//!
//! ```text
//!  bytes ──► Reader ──► Record ──► Unfolder ──► routes, withdrawals, states, one by one
//!                         │
//!  bytes ◀── encode ──────┘
//! ```
//!
//! [`Reader`] takes one record after the other off any [`std::io::Read`] and never holds more than one. Routes of tables
//! (`TABLE_DUMP_V2`, and `TABLE_DUMP` of old), messages and states of sessions (`BGP4MP`, `BGP4MP_ET`) are read; other types
//! are passed over and told as [`Body::Skipped`]. Attributes are read by the code that reads those of UPDATEs.
//!
//! Invariants: no bytes make it panic; memory is bounded by [`RECORD_BYTES_MAX`]; what was written is read back the same.

mod bgp4mp;
mod error;
mod reader;
mod table;
mod table_v1;
#[cfg(test)]
mod tests;
mod unfold;

pub use bgp4mp::{Ends, SessionMessage, StateChange, StateNumber};
pub use error::{EncodeError, ReadError, RecordFault, What};
pub use reader::{RECORD_BYTES_MAX, Reader};
pub use table::{PeerEntry, PeerIndex, Rib, RibEntry};
pub use table_v1::TableEntry;
pub use unfold::{Item, Origin, Seen, Unfolder};

use crate::{
    number::{AfiSafi, Family},
    wire::{take, take_array, take_u8, take_u16, take_u32},
};
use std::{fmt, net::IpAddr};

/// Bytes of what each record starts with: time, type, subtype, length (RFC 6396 section 2).
pub const HEADER_BYTES: usize = 12;

/// Types of records (RFC 6396 section 4).
mod kind {
    pub(super) const TABLE_DUMP: u16 = 12;
    pub(super) const TABLE_DUMP_V2: u16 = 13;
    pub(super) const BGP4MP: u16 = 16;
    pub(super) const BGP4MP_ET: u16 = 17;
    /// All that IANA knows.
    pub(super) const KNOWN: &[u16] = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 17, 32, 33, 48, 49];
}

/// Subtypes of `TABLE_DUMP_V2` (RFC 6396 section 4.3, RFC 8050 section 4).
mod v2 {
    pub(super) const PEER_INDEX_TABLE: u16 = 1;
    pub(super) const RIB_IPV4_UNICAST: u16 = 2;
    pub(super) const RIB_IPV6_UNICAST: u16 = 4;
    pub(super) const RIB_IPV4_UNICAST_ADDPATH: u16 = 8;
    pub(super) const RIB_IPV6_UNICAST_ADDPATH: u16 = 10;
}

/// When something was, or was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds since 1970, UTC.
    pub seconds: u32,
    /// Microseconds more, where the record keeps them (`BGP4MP_ET`).
    pub micros: Option<u32>,
}

/// What a record is, as two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordType {
    /// Type.
    pub kind: u16,
    /// Subtype.
    pub subtype: u16,
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |names: &[&'static str]| names.get(usize::from(self.subtype)).copied().unwrap_or("");
        let (kind, subtype) = match self.kind {
            kind::TABLE_DUMP => ("TABLE_DUMP", of(&["", "AFI_IPv4", "AFI_IPv6"])),
            kind::TABLE_DUMP_V2 => ("TABLE_DUMP_V2", of(TABLE_DUMP_V2_NAMES)),
            kind::BGP4MP => ("BGP4MP", of(BGP4MP_NAMES)),
            kind::BGP4MP_ET => ("BGP4MP_ET", of(BGP4MP_NAMES)),
            _ => ("", ""),
        };
        match (kind, subtype) {
            ("", _) => write!(f, "type {} subtype {}", self.kind, self.subtype),
            (kind, "") => write!(f, "{kind} subtype {}", self.subtype),
            (kind, subtype) => write!(f, "{kind} {subtype}"),
        }
    }
}

const TABLE_DUMP_V2_NAMES: &[&str] = &[
    "",
    "PEER_INDEX_TABLE",
    "RIB_IPV4_UNICAST",
    "RIB_IPV4_MULTICAST",
    "RIB_IPV6_UNICAST",
    "RIB_IPV6_MULTICAST",
    "RIB_GENERIC",
    "GEO_PEER_TABLE",
    "RIB_IPV4_UNICAST_ADDPATH",
    "RIB_IPV4_MULTICAST_ADDPATH",
    "RIB_IPV6_UNICAST_ADDPATH",
    "RIB_IPV6_MULTICAST_ADDPATH",
    "RIB_GENERIC_ADDPATH",
];

const BGP4MP_NAMES: &[&str] = &[
    "STATE_CHANGE",
    "MESSAGE",
    "ENTRY",
    "SNAPSHOT",
    "MESSAGE_AS4",
    "STATE_CHANGE_AS4",
    "MESSAGE_LOCAL",
    "MESSAGE_AS4_LOCAL",
    "MESSAGE_ADDPATH",
    "MESSAGE_AS4_ADDPATH",
    "MESSAGE_LOCAL_ADDPATH",
    "MESSAGE_AS4_LOCAL_ADDPATH",
];

/// One record of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it was written, or when what it tells of was.
    pub time: Time,
    /// What it is.
    pub kind: RecordType,
    /// What is in it.
    pub body: Body,
}

/// What is in a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Whom the entries of the following tables mean by their numbers.
    PeerIndex(PeerIndex),
    /// A prefix and the paths to it.
    Rib(Rib),
    /// A path to a prefix, as files before 2008 have it.
    Entry(TableEntry),
    /// A message of a session.
    Message(SessionMessage),
    /// A session changed its state.
    State(StateChange),
    /// Nothing that is read here: another protocol, multicast, `RIB_GENERIC`.
    Skipped,
}

impl Record {
    /// Reads what follows the header, where `peers` is how many the last peer index had.
    ///
    /// # Errors
    ///
    /// What is wrong with it; where the next record starts is known nevertheless.
    pub fn decode(
        seconds: u32,
        kind: RecordType,
        bytes: &[u8],
        peers: Option<usize>,
    ) -> Result<Self, RecordFault> {
        let mut rest = bytes;
        let mut time = Time { seconds, micros: None };
        let body = match (kind.kind, kind.subtype) {
            (kind::TABLE_DUMP_V2, v2::PEER_INDEX_TABLE) => Body::PeerIndex(PeerIndex::decode(&mut rest)?),
            (kind::TABLE_DUMP_V2, subtype) => match table::shape(subtype) {
                Some((family, add_path)) => Body::Rib(Rib::decode(&mut rest, family, add_path, peers)?),
                None => Body::Skipped,
            },
            (kind::TABLE_DUMP, 1) => Body::Entry(TableEntry::decode(&mut rest, Family::Ipv4Unicast)?),
            (kind::TABLE_DUMP, 2) => Body::Entry(TableEntry::decode(&mut rest, Family::Ipv6Unicast)?),
            (kind::BGP4MP, subtype) => bgp4mp::decode(&mut rest, subtype)?,
            (kind::BGP4MP_ET, subtype) => {
                time.micros = Some(take_u32(&mut rest).ok_or(RecordFault::Short("microseconds"))?);
                bgp4mp::decode(&mut rest, subtype)?
            }
            _ => Body::Skipped,
        };
        if !rest.is_empty() && body != Body::Skipped {
            return Err(RecordFault::Rest(rest.len()));
        }
        Ok(Self { time, kind, body })
    }
}

/// Writes a header whose length [`finish`] fills in, and says where the record starts.
fn begin(out: &mut Vec<u8>, time: Time, kind: RecordType) -> usize {
    let start = out.len();
    out.extend(time.seconds.to_be_bytes());
    out.extend(kind.kind.to_be_bytes());
    out.extend(kind.subtype.to_be_bytes());
    out.extend([0; 4]);
    out.extend(time.micros.iter().flat_map(|micros| micros.to_be_bytes()));
    start
}

/// Fills in the length of the record that starts at `start`.
fn finish(out: &mut [u8], start: usize) {
    let bytes = (out.len() - start - HEADER_BYTES) as u32;
    if let Some(place) = out.get_mut(start + 8..start + HEADER_BYTES) {
        place.copy_from_slice(&bytes.to_be_bytes());
    }
}

/// Takes an address of this length off the front.
fn take_address(bytes: &mut &[u8], is_six: bool) -> Option<IpAddr> {
    if is_six { take_array::<16>(bytes).map(IpAddr::from) } else { take_array::<4>(bytes).map(IpAddr::from) }
}

/// Appends an address.
fn put_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => out.extend(address.octets()),
        IpAddr::V6(address) => out.extend(address.octets()),
    }
}

/// Whether addresses of this family have 16 bytes; the family of IANA's number (1 IPv4, 2 IPv6).
fn is_six(afi: u16) -> Result<bool, RecordFault> {
    Family::from_afi_safi(AfiSafi { afi, safi: 1 })
        .map(|family| family == Family::Ipv6Unicast)
        .ok_or(RecordFault::Afi(afi))
}

/// Takes attributes behind the length of their bytes.
fn take_block<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], RecordFault> {
    let length = take_u16(bytes).ok_or(RecordFault::Short("length of the attributes"))?;
    take(bytes, length.into()).ok_or(RecordFault::Short("attributes"))
}

/// Takes a length of a prefix off the front.
fn take_len(bytes: &mut &[u8], family: Family) -> Result<u8, RecordFault> {
    let len = take_u8(bytes).ok_or(RecordFault::Short("length of the prefix"))?;
    if len > family.bits() { Err(RecordFault::PrefixLen { len, family }) } else { Ok(len) }
}
