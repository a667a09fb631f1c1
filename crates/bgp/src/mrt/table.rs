//! `TABLE_DUMP_V2` (RFC 6396 section 4.3, RFC 8050 section 4): whom routes are from, and the routes by prefix.

use super::{
    EncodeError, RecordFault, RecordType, Time, begin, finish, kind, put_address, take_address, take_block,
    take_len, v2,
};
use crate::{
    attributes::Attributes,
    number::{Asn, Family, RouterId},
    prefix::{PathId, Prefix},
    wire::{Fault, decode_stored, encode_stored, take, take_u8, take_u16, take_u32},
};
use std::{net::IpAddr, sync::Arc};

/// Bits of a peer's type: the address has 16 bytes, the AS number four.
const PEER_IS_SIX: u8 = 1;
const PEER_IS_AS4: u8 = 2;

/// Whom the entries of the following tables mean by their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIndex {
    /// Router id of who wrote the file.
    pub collector: RouterId,
    /// Name of the table; mostly empty. What is no UTF-8 in it was replaced.
    pub view: String,
    /// The peers, by number from 0.
    pub peers: Vec<PeerEntry>,
}

/// A peer of who wrote the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerEntry {
    /// Its router id; 0 where that is not known.
    pub id: RouterId,
    /// Its address; the unspecified one for routes of the writer's own.
    pub address: IpAddr,
    /// Its AS.
    pub asn: Asn,
}

/// A prefix and the paths to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rib {
    /// Counts the records of a table, from 0.
    pub sequence: u32,
    /// Where the paths lead.
    pub prefix: Prefix,
    /// The paths have numbers (RFC 8050).
    pub add_path: bool,
    /// The paths.
    pub entries: Vec<RibEntry>,
}

/// One path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RibEntry {
    /// Whose, by number in the peer index.
    pub peer: u16,
    /// When it came, in seconds since 1970, UTC.
    pub originated: u32,
    /// The peer's number for it; 0 where paths have none.
    pub path_id: PathId,
    /// What it carries.
    pub attributes: Arc<Attributes>,
    /// What was wrong with that.
    pub faults: Vec<Fault>,
}

/// Family and path ids of a kind of table; `None` for what is not read.
pub(super) fn shape(subtype: u16) -> Option<(Family, bool)> {
    match subtype {
        v2::RIB_IPV4_UNICAST => Some((Family::Ipv4Unicast, false)),
        v2::RIB_IPV6_UNICAST => Some((Family::Ipv6Unicast, false)),
        v2::RIB_IPV4_UNICAST_ADDPATH => Some((Family::Ipv4Unicast, true)),
        v2::RIB_IPV6_UNICAST_ADDPATH => Some((Family::Ipv6Unicast, true)),
        _ => None,
    }
}

fn subtype(family: Family, add_path: bool) -> u16 {
    match (family, add_path) {
        (Family::Ipv4Unicast, false) => v2::RIB_IPV4_UNICAST,
        (Family::Ipv6Unicast, false) => v2::RIB_IPV6_UNICAST,
        (Family::Ipv4Unicast, true) => v2::RIB_IPV4_UNICAST_ADDPATH,
        (Family::Ipv6Unicast, true) => v2::RIB_IPV6_UNICAST_ADDPATH,
    }
}

fn count(what: &'static str, count: usize) -> Result<u16, EncodeError> {
    u16::try_from(count).map_err(|_more| EncodeError::TooMany { what, count })
}

impl PeerIndex {
    pub(super) fn decode(rest: &mut &[u8]) -> Result<Self, RecordFault> {
        let short = RecordFault::Short;
        let collector = RouterId(take_u32(rest).ok_or(short("router id of the collector"))?);
        let length = take_u16(rest).ok_or(short("length of the view's name"))?;
        let view = take(rest, length.into()).ok_or(short("name of the view"))?;
        let view = String::from_utf8_lossy(view).into_owned();
        let count = take_u16(rest).ok_or(short("number of peers"))?;
        let peers = (0..count).map(|_| PeerEntry::decode(rest).ok_or(short("list of peers")));
        Ok(Self { collector, view, peers: peers.collect::<Result<_, _>>()? })
    }

    /// Appends a record with it.
    ///
    /// # Errors
    ///
    /// More than 65,535 peers, or a name of more bytes; nothing was appended.
    pub fn encode(&self, seconds: u32, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let name = count("bytes of a view's name", self.view.len())?;
        let peers = count("peers", self.peers.len())?;
        let record = RecordType { kind: kind::TABLE_DUMP_V2, subtype: v2::PEER_INDEX_TABLE };
        let start = begin(out, Time { seconds, micros: None }, record);
        out.extend(self.collector.0.to_be_bytes());
        out.extend(name.to_be_bytes());
        out.extend(self.view.as_bytes());
        out.extend(peers.to_be_bytes());
        for peer in &self.peers {
            peer.encode(out);
        }
        finish(out, start);
        Ok(())
    }
}

impl PeerEntry {
    fn decode(rest: &mut &[u8]) -> Option<Self> {
        let kind = take_u8(rest)?;
        let id = RouterId(take_u32(rest)?);
        let address = take_address(rest, kind & PEER_IS_SIX != 0)?;
        let asn = if kind & PEER_IS_AS4 == 0 { u32::from(take_u16(rest)?) } else { take_u32(rest)? };
        Some(Self { id, address, asn: Asn(asn) })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(PEER_IS_AS4 | if self.address.is_ipv6() { PEER_IS_SIX } else { 0 });
        out.extend(self.id.0.to_be_bytes());
        put_address(out, self.address);
        out.extend(self.asn.0.to_be_bytes());
    }
}

impl Rib {
    pub(super) fn decode(
        rest: &mut &[u8],
        family: Family,
        add_path: bool,
        peers: Option<usize>,
    ) -> Result<Self, RecordFault> {
        let peers = peers.ok_or(RecordFault::NoPeerIndex)?;
        let sequence = take_u32(rest).ok_or(RecordFault::Short("sequence number"))?;
        let len = take_len(rest, family)?;
        let bytes = take(rest, usize::from(len).div_ceil(8)).ok_or(RecordFault::Short("prefix"))?;
        let mut address = [0; 16];
        address[..bytes.len()].copy_from_slice(bytes);
        let prefix = Prefix::masked(family, address, len).ok_or(RecordFault::PrefixLen { len, family })?;
        let count = take_u16(rest).ok_or(RecordFault::Short("number of paths"))?;
        let entries = (0..count).map(|_| {
            let entry = RibEntry::decode(rest, family, add_path)?;
            let peer = entry.peer;
            if usize::from(peer) < peers { Ok(entry) } else { Err(RecordFault::NoPeer { peer, peers }) }
        });
        Ok(Self { sequence, prefix, add_path, entries: entries.collect::<Result<_, _>>()? })
    }

    /// Appends a record with it. AS numbers have four bytes; the next hop of an IPv6 route stands alone in its attribute.
    ///
    /// # Errors
    ///
    /// More than 65,535 paths, more bytes of attributes, or an IPv6 route with an IPv4 next hop; nothing was appended.
    pub fn encode(&self, seconds: u32, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let family = self.prefix.family();
        let entries = count("paths", self.entries.len())?;
        let record = RecordType { kind: kind::TABLE_DUMP_V2, subtype: subtype(family, self.add_path) };
        let start = begin(out, Time { seconds, micros: None }, record);
        out.extend(self.sequence.to_be_bytes());
        out.push(self.prefix.len());
        out.extend(self.prefix.wire_bytes());
        out.extend(entries.to_be_bytes());
        let put = |out: &mut Vec<u8>| {
            self.entries.iter().try_for_each(|entry| entry.encode(family, self.add_path, out))
        };
        if let Err(why) = put(out) {
            out.truncate(start);
            return Err(why);
        }
        finish(out, start);
        Ok(())
    }
}

impl RibEntry {
    fn decode(rest: &mut &[u8], family: Family, add_path: bool) -> Result<Self, RecordFault> {
        let short = RecordFault::Short;
        let peer = take_u16(rest).ok_or(short("number of a peer"))?;
        let originated = take_u32(rest).ok_or(short("time of a path"))?;
        let path_id = if add_path { take_u32(rest).ok_or(short("number of a path"))? } else { 0 };
        let (attributes, faults) = decode_stored(take_block(rest)?, family, true);
        Ok(Self { peer, originated, path_id: PathId(path_id), attributes: Arc::new(attributes), faults })
    }

    fn encode(&self, family: Family, add_path: bool, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend(self.peer.to_be_bytes());
        out.extend(self.originated.to_be_bytes());
        if add_path {
            out.extend(self.path_id.0.to_be_bytes());
        }
        let place = out.len();
        out.extend([0; 2]);
        encode_stored(&self.attributes, family, out)?;
        let bytes = out.len() - place - 2;
        let length = u16::try_from(bytes).map_err(|_more| EncodeError::Attributes(bytes))?;
        if let Some(place) = out.get_mut(place..place + 2) {
            place.copy_from_slice(&length.to_be_bytes());
        }
        Ok(())
    }
}
