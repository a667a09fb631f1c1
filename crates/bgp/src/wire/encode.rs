//! UPDATEs of ours: attributes ascending, `MP_REACH_NLRI` first (RFC 7606 section 5.1), many prefixes to a message.

use super::{
    HEADER_BYTES, MessageKind,
    attribute::{flag, kind},
    begin, finish, put_u16,
};
use crate::{
    attributes::{AsPath, Attributes, NextHop},
    number::{Asn, Family, FamilySet},
    prefix::Nlri,
};

/// What both sides agreed on that changes how an UPDATE is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EncodeContext {
    /// AS numbers have four bytes.
    pub as4: bool,
    /// Families whose prefixes have path ids.
    pub add_path: FamilySet,
    /// Longest message that the peer takes.
    pub message_bytes_max: usize,
}

/// Why routes cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The attributes and one prefix are more than a message.
    #[error(
        "attributes of {bytes} bytes leave no room for a prefix in a message of at most {bytes_max} bytes"
    )]
    TooLong {
        /// Bytes of the attributes.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// IPv6 prefixes need an IPv6 next hop, and any prefix needs one.
    #[error("a route of family {family} has no next hop that the family can have")]
    NextHop {
        /// Of the route.
        family: Family,
    },
}

/// Writes UPDATEs for routes that share their attributes, which it encodes once.
#[derive(Debug)]
pub struct Announcer {
    context: EncodeContext,
    family: Family,
    /// `MP_REACH_NLRI` is used up to its prefixes; empty for the classic fields.
    reach: Vec<u8>,
    /// The other attributes.
    block: Vec<u8>,
}

impl Announcer {
    /// Prepares to announce routes of `family` with these attributes.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] where no message can hold such a route.
    pub fn new(attributes: &Attributes, family: Family, context: EncodeContext) -> Result<Self, EncodeError> {
        let next_hop = match (family, attributes.next_hop) {
            (Family::Ipv6Unicast, Some(NextHop::V4(_))) | (_, None) => {
                return Err(EncodeError::NextHop { family });
            }
            (_, Some(next_hop)) => next_hop,
        };
        let classic = family == Family::Ipv4Unicast && matches!(next_hop, NextHop::V4(_));
        let mut reach = Vec::new();
        if !classic {
            put_reach_head(&mut reach, family, next_hop);
        }
        let mut block = Vec::new();
        encode_attributes(attributes, classic, context.as4, &mut block);
        let announcer = Self { context, family, reach, block };
        let bytes = announcer.reach.len() + announcer.block.len();
        let longest = 4 + 1 + usize::from(family.bits() / 8);
        if announcer.room() < longest {
            return Err(EncodeError::TooLong { bytes, bytes_max: context.message_bytes_max });
        }
        Ok(announcer)
    }

    /// Bytes for prefixes in one message.
    fn room(&self) -> usize {
        let fixed = HEADER_BYTES + 4 + self.reach.len() + self.block.len();
        self.context.message_bytes_max.saturating_sub(fixed)
    }

    /// Appends messages that announce `nlri`, and says how many.
    pub fn announce(&self, nlri: impl IntoIterator<Item = Nlri>, out: &mut Vec<u8>) -> usize {
        let add_path = self.context.add_path.contains(self.family);
        let mut nlri = nlri.into_iter().peekable();
        let mut messages = 0;
        while nlri.peek().is_some() {
            let start = begin(out, MessageKind::Update);
            out.extend([0; 4]);
            if self.reach.is_empty() {
                put_u16(out, start + HEADER_BYTES + 2, self.block.len() as u16);
                out.extend(&self.block);
                put_prefixes(&mut nlri, add_path, self.room(), out);
            } else {
                out.extend(&self.reach);
                put_prefixes(&mut nlri, add_path, self.room(), out);
                let reach = out.len() - start - HEADER_BYTES - 4;
                put_u16(out, start + HEADER_BYTES + 4 + 2, (reach - 4) as u16);
                out.extend(&self.block);
                put_u16(out, start + HEADER_BYTES + 2, (reach + self.block.len()) as u16);
            }
            finish(out, start);
            messages += 1;
        }
        messages
    }
}

/// `MP_REACH_NLRI` up to its prefixes, always with an extended length.
fn put_reach_head(out: &mut Vec<u8>, family: Family, next_hop: NextHop) {
    let numbers = family.afi_safi();
    out.extend([flag::OPTIONAL | flag::EXTENDED_LENGTH, kind::MP_REACH, 0, 0]);
    out.extend(numbers.afi.to_be_bytes());
    out.push(numbers.safi);
    put_next_hop(out, next_hop);
    out.push(0);
}

/// A next hop behind its length, as `MP_REACH_NLRI` has it (RFC 2545 section 3, RFC 8950 section 3).
pub(super) fn put_next_hop(out: &mut Vec<u8>, next_hop: NextHop) {
    match next_hop {
        NextHop::V4(address) => {
            out.push(4);
            out.extend(address.octets());
        }
        NextHop::V6 { global, link_local: None } => {
            out.push(16);
            out.extend(global.octets());
        }
        NextHop::V6 { global, link_local: Some(link_local) } => {
            out.push(32);
            out.extend(global.octets());
            out.extend(link_local.octets());
        }
    }
}

/// Writes prefixes as long as there is room. The first always has it.
fn put_prefixes(
    nlri: &mut std::iter::Peekable<impl Iterator<Item = Nlri>>,
    add_path: bool,
    room: usize,
    out: &mut Vec<u8>,
) {
    let end = out.len() + room;
    while let Some(next) = nlri.peek() {
        let bytes = next.prefix.wire_bytes();
        if out.len() + bytes.len() + if add_path { 5 } else { 1 } > end {
            return;
        }
        if add_path {
            out.extend(next.path_id.0.to_be_bytes());
        }
        out.push(next.prefix.len());
        out.extend(bytes);
        nlri.next();
    }
}

/// Appends messages that withdraw `nlri`, all of `family`, and says how many.
pub fn encode_withdrawal(
    family: Family,
    nlri: impl IntoIterator<Item = Nlri>,
    context: EncodeContext,
    out: &mut Vec<u8>,
) -> usize {
    let add_path = context.add_path.contains(family);
    let mut nlri = nlri.into_iter().peekable();
    let mut messages = 0;
    while nlri.peek().is_some() {
        let start = begin(out, MessageKind::Update);
        out.extend([0; 2]);
        let lists = out.len();
        if family == Family::Ipv4Unicast {
            let room = context.message_bytes_max - (lists - start) - 2;
            put_prefixes(&mut nlri, add_path, room, out);
            let length = out.len() - lists;
            put_u16(out, lists - 2, length as u16);
            out.extend([0; 2]);
        } else {
            out.extend([0; 2]);
            put_unreach_head(out, family);
            let room = context.message_bytes_max - (out.len() - start);
            put_prefixes(&mut nlri, add_path, room, out);
            let attribute = out.len() - lists - 2;
            put_u16(out, lists, attribute as u16);
            put_u16(out, lists + 4, (attribute - 4) as u16);
        }
        finish(out, start);
        messages += 1;
    }
    messages
}

/// `MP_UNREACH_NLRI` up to its prefixes.
fn put_unreach_head(out: &mut Vec<u8>, family: Family) {
    let numbers = family.afi_safi();
    out.extend([flag::OPTIONAL | flag::EXTENDED_LENGTH, kind::MP_UNREACH, 0, 3]);
    out.extend(numbers.afi.to_be_bytes());
    out.push(numbers.safi);
}

/// Appends the message that says that all routes of `family` were sent (RFC 4724 section 2).
pub fn encode_end_of_rib(family: Family, out: &mut Vec<u8>) {
    let start = begin(out, MessageKind::Update);
    out.extend([0; 4]);
    if family != Family::Ipv4Unicast {
        put_unreach_head(out, family);
        let block = out.len() - start - HEADER_BYTES - 4;
        put_u16(out, start + HEADER_BYTES + 2, block as u16);
    }
    finish(out, start);
}

/// Appends all attributes but `MP_REACH_NLRI`, ascending by type; `NEXT_HOP` only if `classic`.
pub fn encode_attributes(attributes: &Attributes, classic: bool, as4: bool, out: &mut Vec<u8>) {
    let well_known = flag::TRANSITIVE;
    put(out, well_known, kind::ORIGIN, &[attributes.origin as u8]);
    put_as_path(out, &attributes.as_path, as4);
    if let (true, Some(NextHop::V4(address))) = (classic, attributes.next_hop) {
        put(out, well_known, kind::NEXT_HOP, &address.octets());
    }
    if let Some(med) = attributes.med {
        put(out, flag::OPTIONAL, kind::MED, &med.to_be_bytes());
    }
    if let Some(preference) = attributes.local_pref {
        put(out, well_known, kind::LOCAL_PREF, &preference.to_be_bytes());
    }
    if attributes.atomic_aggregate {
        put(out, well_known, kind::ATOMIC_AGGREGATE, &[]);
    }
    let transitive = flag::OPTIONAL | flag::TRANSITIVE;
    if let Some(aggregator) = attributes.aggregator {
        let mut value = if as4 {
            aggregator.asn.0.to_be_bytes().to_vec()
        } else {
            aggregator.asn.two_bytes().to_be_bytes().to_vec()
        };
        value.extend(aggregator.address.octets());
        put(out, transitive, kind::AGGREGATOR, &value);
    }
    put_list(out, transitive, kind::COMMUNITIES, attributes.communities.iter().map(|it| it.0.to_be_bytes()));
    if let Some(id) = attributes.originator_id {
        put(out, flag::OPTIONAL, kind::ORIGINATOR_ID, &id.0.to_be_bytes());
    }
    let clusters = attributes.cluster_list.iter().map(|id| id.0.to_be_bytes());
    put_list(out, flag::OPTIONAL, kind::CLUSTER_LIST, clusters);
    let extended = attributes.ext_communities.iter().map(|community| community.0.to_be_bytes());
    put_list(out, transitive, kind::EXT_COMMUNITIES, extended);
    put_others(out, attributes, as4);
}

/// The attributes above 16: ours and those that are only carried, ascending.
fn put_others(out: &mut Vec<u8>, attributes: &Attributes, as4: bool) {
    let mut carried = attributes.other.iter().peekable();
    let mut put_below = |out: &mut Vec<u8>, kind: u8| {
        while let Some(raw) = carried.next_if(|raw| raw.kind < kind) {
            put(out, raw.flags, raw.kind, &raw.value);
        }
    };
    put_below(out, kind::AS4_PATH);
    if !as4 {
        put_as4(out, attributes);
    }
    put_below(out, kind::LARGE_COMMUNITIES);
    let large = attributes.large_communities.iter().flat_map(|community| {
        [community.global.to_be_bytes(), community.local_1.to_be_bytes(), community.local_2.to_be_bytes()]
    });
    put_list(out, flag::OPTIONAL | flag::TRANSITIVE, kind::LARGE_COMMUNITIES, large);
    put_below(out, u8::MAX);
    for raw in carried {
        put(out, raw.flags, raw.kind, &raw.value);
    }
}

/// What a peer with two-byte numbers passes on for us (RFC 6793 section 4.2.2).
fn put_as4(out: &mut Vec<u8>, attributes: &Attributes) {
    let transitive = flag::OPTIONAL | flag::TRANSITIVE;
    let long = |asn: Asn| asn.0 > u32::from(u16::MAX);
    let path = attributes.as_path.without_confederation();
    if path.asns().any(long) {
        put(out, transitive, kind::AS4_PATH, path.wire());
    }
    if let Some(aggregator) = attributes.aggregator.filter(|aggregator| long(aggregator.asn)) {
        let mut value = aggregator.asn.0.to_be_bytes().to_vec();
        value.extend(aggregator.address.octets());
        put(out, transitive, kind::AS4_AGGREGATOR, &value);
    }
}

fn put_as_path(out: &mut Vec<u8>, path: &AsPath, as4: bool) {
    if as4 {
        return put(out, flag::TRANSITIVE, kind::AS_PATH, path.wire());
    }
    let mut value = Vec::with_capacity(path.wire().len() / 2 + 2);
    for segment in path.segments() {
        value.extend([segment.kind as u8, segment.asns().len() as u8]);
        value.extend(segment.asns().flat_map(|asn| asn.two_bytes().to_be_bytes()));
    }
    put(out, flag::TRANSITIVE, kind::AS_PATH, &value);
}

/// Writes a list, unless it is empty.
fn put_list<const N: usize>(out: &mut Vec<u8>, flags: u8, kind: u8, elements: impl Iterator<Item = [u8; N]>) {
    let value: Vec<u8> = elements.flatten().collect();
    if !value.is_empty() {
        put(out, flags, kind, &value);
    }
}

/// Writes an attribute. The length has two bytes only where one is not enough, whatever the flags say.
pub(super) fn put(out: &mut Vec<u8>, flags: u8, kind: u8, value: &[u8]) {
    let flags = flags & !flag::EXTENDED_LENGTH;
    if let Ok(length) = u8::try_from(value.len()) {
        out.extend([flags, kind, length]);
    } else {
        out.extend([flags | flag::EXTENDED_LENGTH, kind]);
        out.extend((value.len() as u16).to_be_bytes());
    }
    out.extend(value);
}
