//! `TABLE_DUMP` (RFC 6396 section 4.2): one path in each record. Nobody should write it any longer; archives have it.

use super::{PeerEntry, RecordFault, take_address, take_block, take_len};
use crate::{
    attributes::Attributes,
    number::{Asn, Family, RouterId},
    prefix::Prefix,
    wire::{Fault, decode_stored, take_u8, take_u16, take_u32},
};
use std::sync::Arc;

/// A path to a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableEntry {
    /// Number of the table; mostly 0.
    pub view: u16,
    /// Counts the paths of a table, and begins anew after 65,535.
    pub sequence: u16,
    /// Where the path leads.
    pub prefix: Prefix,
    /// When it came, in seconds since 1970, UTC.
    pub originated: u32,
    /// Whose it is; the router id is not told, and 0.
    pub peer: PeerEntry,
    /// What it carries.
    pub attributes: Arc<Attributes>,
    /// What was wrong with that.
    pub faults: Vec<Fault>,
}

impl TableEntry {
    pub(super) fn decode(rest: &mut &[u8], family: Family) -> Result<Self, RecordFault> {
        let short = RecordFault::Short;
        let is_six = family == Family::Ipv6Unicast;
        let view = take_u16(rest).ok_or(short("number of the view"))?;
        let sequence = take_u16(rest).ok_or(short("sequence number"))?;
        let address = take_address(rest, is_six).ok_or(short("prefix"))?;
        let len = take_len(rest, family)?;
        let prefix = Prefix::new(address, len).ok_or(RecordFault::PrefixLen { len, family })?;
        // A byte for a status that nobody uses.
        take_u8(rest).ok_or(short("status"))?;
        let originated = take_u32(rest).ok_or(short("time of the path"))?;
        let address = take_address(rest, is_six).ok_or(short("address of the peer"))?;
        let asn = take_u16(rest).map(u32::from).map(Asn).ok_or(short("AS of the peer"))?;
        let (attributes, faults) = decode_stored(take_block(rest)?, family, false);
        let peer = PeerEntry { id: RouterId(0), address, asn };
        Ok(Self { view, sequence, prefix, originated, peer, attributes: Arc::new(attributes), faults })
    }
}
