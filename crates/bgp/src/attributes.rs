//! What an UPDATE says about the prefixes in it (RFC 4271 section 5 and its successors).

mod path;

pub use path::{AsPath, Segment, SegmentKind};

use crate::number::{Asn, RouterId};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Preference of a route that has none of its own (RFC 4271 leaves it open; this is everybody's number).
pub const LOCAL_PREF_DEFAULT: u32 = 100;

/// The path attributes of a route, in canonical form, so that equal routes compare and hash equal.
///
/// Values are shared in an `Arc`; the routes of one UPDATE have one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// ORIGIN (1).
    pub origin: Origin,
    /// `AS_PATH` (2), with `AS4_PATH` merged in (RFC 6793 section 4.2.3).
    pub as_path: AsPath,
    /// `NEXT_HOP` (3), or the next hop of `MP_REACH_NLRI` (14); `None` for a local route: ourselves.
    pub next_hop: Option<NextHop>,
    /// `MULTI_EXIT_DISC` (4).
    pub med: Option<u32>,
    /// `LOCAL_PREF` (5).
    pub local_pref: Option<u32>,
    /// `ATOMIC_AGGREGATE` (6) is there.
    pub atomic_aggregate: bool,
    /// AGGREGATOR (7), with `AS4_AGGREGATOR` merged in.
    pub aggregator: Option<Aggregator>,
    /// COMMUNITIES (8, RFC 1997), ascending and without duplicates when received.
    pub communities: Box<[Community]>,
    /// `ORIGINATOR_ID` (9, RFC 4456).
    pub originator_id: Option<RouterId>,
    /// `CLUSTER_LIST` (10, RFC 4456), latest reflector first.
    pub cluster_list: Box<[RouterId]>,
    /// EXTENDED COMMUNITIES (16, RFC 4360), each as its eight bytes, ascending when received.
    pub ext_communities: Box<[ExtCommunity]>,
    /// LARGE COMMUNITIES (32, RFC 8092), ascending and without duplicates when received.
    pub large_communities: Box<[LargeCommunity]>,
    /// What we carry without looking into it, ascending by type: unknown transitive attributes, and types 25, 35, 40.
    pub other: Box<[RawAttribute]>,
}

impl Attributes {
    /// Attributes of a route of our own: local origin, no path, ourselves as next hop.
    pub fn local(origin: Origin) -> Self {
        Self { origin, ..Self::default() }
    }

    /// Whether the route carries this community.
    pub fn has_community(&self, community: Community) -> bool {
        self.communities.contains(&community)
    }

    /// The preference, or the default.
    pub fn preference(&self) -> u32 {
        self.local_pref.unwrap_or(LOCAL_PREF_DEFAULT)
    }
}

/// How the first speaker learnt the route (RFC 4271 section 5.1.1). A lower one is preferred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Origin {
    /// From inside its AS.
    Igp,
    /// By EGP.
    Egp,
    /// Some other way.
    #[default]
    Incomplete,
}

impl Origin {
    /// The origin with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Igp),
            1 => Some(Self::Egp),
            2 => Some(Self::Incomplete),
            _ => None,
        }
    }
}

/// Where packets go next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextHop {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address, and perhaps the link-local one beside it (RFC 2545 section 3).
    V6 {
        /// The global address; a link-local one where the peer has no other.
        global: Ipv6Addr,
        /// The address on the shared link.
        link_local: Option<Ipv6Addr>,
    },
}

impl NextHop {
    /// The address, the global one of two.
    pub fn address(&self) -> IpAddr {
        match *self {
            Self::V4(address) => address.into(),
            Self::V6 { global, .. } => global.into(),
        }
    }

    /// Whether it is on the link that it came over, and means nothing anywhere else.
    pub fn is_link_local(&self) -> bool {
        matches!(self, Self::V6 { global, .. } if global.is_unicast_link_local())
    }
}

impl From<IpAddr> for NextHop {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(global) => Self::V6 { global, link_local: None },
        }
    }
}

/// Who aggregated the route (RFC 4271 section 5.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Aggregator {
    /// Its AS.
    pub asn: Asn,
    /// Its address or router id.
    pub address: Ipv4Addr,
}

/// A community (RFC 1997).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Community(pub u32);

impl Community {
    /// Stays within the AS, or confederation (RFC 1997).
    pub const NO_EXPORT: Self = Self(0xffff_ff01);
    /// Goes to nobody (RFC 1997).
    pub const NO_ADVERTISE: Self = Self(0xffff_ff02);
    /// Stays within the AS (RFC 1997).
    pub const NO_EXPORT_SUBCONFED: Self = Self(0xffff_ff03);
    /// Kept although its speaker has been away for long (RFC 9494).
    pub const LLGR_STALE: Self = Self(0xffff_0006);
    /// Must not be kept so (RFC 9494).
    pub const NO_LLGR: Self = Self(0xffff_0007);
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NO_EXPORT => f.write_str("no-export"),
            Self::NO_ADVERTISE => f.write_str("no-advertise"),
            Self::NO_EXPORT_SUBCONFED => f.write_str("no-export-subconfed"),
            Self::LLGR_STALE => f.write_str("llgr-stale"),
            Self::NO_LLGR => f.write_str("no-llgr"),
            Self(number) => write!(f, "{}:{}", number >> 16, number & 0xffff),
        }
    }
}

/// An extended community (RFC 4360): its eight bytes as a number, type first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtCommunity(pub u64);

impl ExtCommunity {
    /// Whether it goes on to other ASes (RFC 4360 section 2: bit 0x40 of the type is clear).
    pub fn is_transitive(self) -> bool {
        self.0 & 0x4000_0000_0000_0000 == 0
    }
}

/// A large community (RFC 8092).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LargeCommunity {
    /// The AS that gives the rest its meaning.
    pub global: u32,
    /// First part of the meaning.
    pub local_1: u32,
    /// Second part of the meaning.
    pub local_2: u32,
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.global, self.local_1, self.local_2)
    }
}

/// An attribute that is passed on as it came.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RawAttribute {
    /// Its type.
    pub kind: u8,
    /// Optional, transitive, partial; never the bit for an extended length.
    pub flags: u8,
    /// What is in it.
    pub value: Box<[u8]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_communities_have_names() {
        assert_eq!(Community::NO_EXPORT.to_string(), "no-export");
        assert_eq!(Community(64_512 << 16 | 7).to_string(), "64512:7");
    }

    #[test]
    fn transitivity_of_extended_communities_is_in_their_type() {
        assert!(ExtCommunity(0x0002_fc00_0000_0001).is_transitive());
        assert!(!ExtCommunity(0x4002_fc00_0000_0001).is_transitive());
    }
}
