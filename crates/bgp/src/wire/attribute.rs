//! Path attributes one by one: what each may look like, and what a fault in it does (RFC 7606 section 7).

use super::{
    Notification, take, take_array, take_u8, take_u16, take_u32,
    update::{Disposition, Fault, FaultKind, UpdateContext},
};
use crate::{
    attributes::{
        Aggregator, AsPath, Attributes, Community, ExtCommunity, LargeCommunity, NextHop, Origin,
        RawAttribute, SegmentKind,
    },
    number::{AfiSafi, Asn, Family, RouterId},
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Types of attributes (IANA).
pub(super) mod kind {
    pub(crate) const ORIGIN: u8 = 1;
    pub(crate) const AS_PATH: u8 = 2;
    pub(crate) const NEXT_HOP: u8 = 3;
    pub(crate) const MED: u8 = 4;
    pub(crate) const LOCAL_PREF: u8 = 5;
    pub(crate) const ATOMIC_AGGREGATE: u8 = 6;
    pub(crate) const AGGREGATOR: u8 = 7;
    pub(crate) const COMMUNITIES: u8 = 8;
    pub(crate) const ORIGINATOR_ID: u8 = 9;
    pub(crate) const CLUSTER_LIST: u8 = 10;
    pub(crate) const MP_REACH: u8 = 14;
    pub(crate) const MP_UNREACH: u8 = 15;
    pub(crate) const EXT_COMMUNITIES: u8 = 16;
    pub(crate) const AS4_PATH: u8 = 17;
    pub(crate) const AS4_AGGREGATOR: u8 = 18;
    pub(crate) const IPV6_EXT_COMMUNITIES: u8 = 25;
    pub(crate) const AIGP: u8 = 26;
    pub(crate) const LARGE_COMMUNITIES: u8 = 32;
    pub(crate) const OTC: u8 = 35;
    pub(crate) const PREFIX_SID: u8 = 40;
}

/// Flags before the type (RFC 4271 section 4.3).
pub(super) mod flag {
    pub(crate) const OPTIONAL: u8 = 0x80;
    pub(crate) const TRANSITIVE: u8 = 0x40;
    pub(crate) const PARTIAL: u8 = 0x20;
    pub(crate) const EXTENDED_LENGTH: u8 = 0x10;
}

/// `MP_REACH_NLRI` (RFC 4760 section 3) with its prefixes still as bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct MpReach<'a> {
    pub(super) family: AfiSafi,
    /// `None` where we do not know the family.
    pub(super) next_hop: Option<NextHop>,
    pub(super) nlri: &'a [u8],
}

/// What was read of one UPDATE's attributes.
#[derive(Debug, Default)]
pub(super) struct Collected<'a> {
    /// Types that were seen, whatever was wrong with them.
    seen: [u64; 4],
    /// All of these count, but ORIGIN and `AS_PATH` only if they were seen.
    pub(super) attributes: Attributes,
    pub(super) mp_reach: Option<MpReach<'a>>,
    pub(super) mp_unreach: Option<(AfiSafi, &'a [u8])>,
    as4_path: Option<AsPath>,
    as4_aggregator: Option<Aggregator>,
    other: Vec<RawAttribute>,
    pub(super) faults: Vec<Fault>,
}

/// A fault in one attribute.
type AttributeFault = (FaultKind, Disposition);

/// The fault that makes the routes count as withdrawn.
pub(super) fn withdraw(kind: FaultKind) -> AttributeFault {
    (kind, Disposition::TreatAsWithdraw)
}

/// The fault that only drops the attribute.
fn discard(kind: FaultKind) -> AttributeFault {
    (kind, Disposition::Discard)
}

/// Optional and transitive bits that a known attribute must have; `None` for one that we do not know.
pub(super) fn expected_flags(kind: u8) -> Option<u8> {
    match kind {
        kind::ORIGIN | kind::AS_PATH | kind::NEXT_HOP | kind::LOCAL_PREF | kind::ATOMIC_AGGREGATE => {
            Some(flag::TRANSITIVE)
        }
        kind::MED
        | kind::ORIGINATOR_ID
        | kind::CLUSTER_LIST
        | kind::MP_REACH
        | kind::MP_UNREACH
        | kind::AIGP => Some(flag::OPTIONAL),
        kind::AGGREGATOR
        | kind::COMMUNITIES
        | kind::EXT_COMMUNITIES
        | kind::AS4_PATH
        | kind::AS4_AGGREGATOR
        | kind::IPV6_EXT_COMMUNITIES
        | kind::LARGE_COMMUNITIES
        | kind::OTC
        | kind::PREFIX_SID => Some(flag::OPTIONAL | flag::TRANSITIVE),
        _ => None,
    }
}

impl<'a> Collected<'a> {
    /// Whether an attribute of this type was seen.
    pub(super) fn has(&self, kind: u8) -> bool {
        self.seen[usize::from(kind / 64)] & (1 << (kind % 64)) != 0
    }

    /// Whether any attribute but `MP_UNREACH_NLRI` was seen.
    pub(super) fn has_other_than_unreach(&self) -> bool {
        let mut seen = self.seen;
        seen[0] &= !(1 << kind::MP_UNREACH);
        seen != [0; 4]
    }

    /// Marks the type as seen; `false` where it was before.
    fn see(&mut self, kind: u8) -> bool {
        let new = !self.has(kind);
        self.seen[usize::from(kind / 64)] |= 1 << (kind % 64);
        new
    }

    pub(super) fn fault(&mut self, attribute: Option<u8>, (kind, disposition): AttributeFault) {
        self.faults.push(Fault { attribute, kind, disposition });
    }

    /// Takes all attributes of the block.
    pub(super) fn take_all(
        &mut self,
        mut block: &'a [u8],
        context: &UpdateContext,
    ) -> Result<(), Notification> {
        while !block.is_empty() {
            let whole = block;
            let Some((flags, kind, value)) = take_attribute(&mut block) else {
                return self.overrun(context);
            };
            let raw = &whole[..whole.len() - block.len()];
            self.take(flags, kind, value, raw, context)?;
        }
        Ok(())
    }

    /// An attribute is longer than what is left. RFC 7606 section 4: no reset, unless routes of `MP_REACH_NLRI` or
    /// `MP_UNREACH_NLRI` may lie in what cannot be read.
    fn overrun(&mut self, context: &UpdateContext) -> Result<(), Notification> {
        let multiprotocol = context.families.contains(Family::Ipv6Unicast) || context.extended_next_hop;
        if multiprotocol && self.mp_reach.is_none() && self.mp_unreach.is_none() {
            return Err(Notification::malformed_attributes());
        }
        self.fault(None, withdraw(FaultKind::Overrun));
        Ok(())
    }

    /// Takes one attribute. `raw` is all of it.
    pub(super) fn take(
        &mut self,
        flags: u8,
        kind: u8,
        value: &'a [u8],
        raw: &[u8],
        context: &UpdateContext,
    ) -> Result<(), Notification> {
        if !self.see(kind) {
            if matches!(kind, kind::MP_REACH | kind::MP_UNREACH) {
                return Err(Notification::malformed_attributes());
            }
            self.fault(Some(kind), discard(FaultKind::Duplicate));
            return Ok(());
        }
        let Some(expected) = expected_flags(kind) else {
            return self.take_unknown(flags, kind, value, raw);
        };
        // Ignored from there without a look, so nothing in them can be wrong.
        if context.external && matches!(kind, kind::LOCAL_PREF | kind::ORIGINATOR_ID | kind::CLUSTER_LIST) {
            return Ok(());
        }
        if (flags ^ expected) & (flag::OPTIONAL | flag::TRANSITIVE) != 0 {
            self.fault(Some(kind), withdraw(FaultKind::Flags));
            // The routes must be told all the same.
            if !matches!(kind, kind::MP_REACH | kind::MP_UNREACH) {
                return Ok(());
            }
        }
        match kind {
            kind::MP_REACH => self.take_mp_reach(value, raw),
            kind::MP_UNREACH => self.take_mp_unreach(value, raw),
            _ => {
                if let Err(fault) = self.take_known(flags, kind, value, context) {
                    self.fault(Some(kind), fault);
                }
                Ok(())
            }
        }
    }

    /// RFC 4271 section 9: unknown transitive ones go on, marked as partial.
    fn take_unknown(&mut self, flags: u8, kind: u8, value: &[u8], raw: &[u8]) -> Result<(), Notification> {
        if flags & flag::OPTIONAL == 0 {
            return Err(Notification::unknown_well_known(raw));
        }
        if flags & flag::TRANSITIVE != 0 {
            let flags = flag::OPTIONAL | flag::TRANSITIVE | flag::PARTIAL;
            self.other.push(RawAttribute { kind, flags, value: value.into() });
        }
        Ok(())
    }

    fn take_known(
        &mut self,
        flags: u8,
        kind: u8,
        value: &[u8],
        context: &UpdateContext,
    ) -> Result<(), AttributeFault> {
        let bad_length = || withdraw(FaultKind::Length);
        let attributes = &mut self.attributes;
        match kind {
            kind::ORIGIN => attributes.origin = origin(value)?,
            kind::AS_PATH => attributes.as_path = as_path(value, context.as4).map_err(withdraw)?,
            kind::NEXT_HOP => {
                let address = Ipv4Addr::from(number(value).ok_or_else(bad_length)?);
                attributes.next_hop = Some(NextHop::V4(address));
            }
            kind::MED => attributes.med = Some(number(value).ok_or_else(bad_length)?),
            kind::LOCAL_PREF => attributes.local_pref = Some(number(value).ok_or_else(bad_length)?),
            kind::ATOMIC_AGGREGATE if value.is_empty() => attributes.atomic_aggregate = true,
            kind::ATOMIC_AGGREGATE => return Err(discard(FaultKind::Length)),
            kind::AGGREGATOR => attributes.aggregator = Some(aggregator(value, context.as4)?),
            kind::COMMUNITIES => {
                attributes.communities =
                    list(value, |bytes| Community(u32::from_be_bytes(bytes))).ok_or_else(bad_length)?;
            }
            kind::ORIGINATOR_ID => {
                attributes.originator_id = Some(RouterId(number(value).ok_or_else(bad_length)?));
            }
            kind::CLUSTER_LIST => {
                attributes.cluster_list = elements(value, |bytes| RouterId(u32::from_be_bytes(bytes)))
                    .ok_or_else(bad_length)?
                    .into();
            }
            kind::EXT_COMMUNITIES => {
                attributes.ext_communities =
                    list(value, |bytes| ExtCommunity(u64::from_be_bytes(bytes))).ok_or_else(bad_length)?;
            }
            kind::LARGE_COMMUNITIES => {
                attributes.large_communities = list(value, large_community).ok_or_else(bad_length)?;
            }
            kind::AS4_PATH | kind::AS4_AGGREGATOR => self.take_as4(kind, value, context)?,
            // Nobody has enabled it (RFC 7311 section 3.1).
            kind::AIGP => {}
            _ => {
                check_carried(kind, value)?;
                let flags = expected_flags(kind).unwrap_or(0) | flags & flag::PARTIAL;
                self.other.push(RawAttribute { kind, flags, value: value.into() });
            }
        }
        Ok(())
    }

    /// RFC 6793 section 6: only peers with two bytes send these.
    fn take_as4(&mut self, kind: u8, value: &[u8], context: &UpdateContext) -> Result<(), AttributeFault> {
        if context.as4 {
            return Err(discard(FaultKind::Unexpected));
        }
        if kind == kind::AS4_PATH {
            self.as4_path = Some(as_path(value, true).map_err(discard)?.without_confederation());
        } else {
            self.as4_aggregator = Some(aggregator(value, true)?);
        }
        Ok(())
    }

    fn take_mp_reach(&mut self, value: &'a [u8], raw: &[u8]) -> Result<(), Notification> {
        let bad = || Notification::bad_optional_attribute(raw);
        let mut rest = value;
        let (afi, safi) = take_u16(&mut rest).zip(take_u8(&mut rest)).ok_or_else(bad)?;
        let length = take_u8(&mut rest).ok_or_else(bad)?;
        let next_hop = take(&mut rest, length.into()).ok_or_else(bad)?;
        // A byte that once counted SNPAs; ignored (RFC 4760 section 3).
        take_u8(&mut rest).ok_or_else(bad)?;
        let family = AfiSafi { afi, safi };
        let next_hop = match Family::from_afi_safi(family) {
            None => None,
            Some(known) => Some(mp_next_hop(known, next_hop).ok_or_else(bad)?),
        };
        self.mp_reach = Some(MpReach { family, next_hop, nlri: rest });
        Ok(())
    }

    fn take_mp_unreach(&mut self, value: &'a [u8], raw: &[u8]) -> Result<(), Notification> {
        let mut rest = value;
        let (afi, safi) = take_u16(&mut rest)
            .zip(take_u8(&mut rest))
            .ok_or_else(|| Notification::bad_optional_attribute(raw))?;
        self.mp_unreach = Some((AfiSafi { afi, safi }, rest));
        Ok(())
    }

    /// Faults that show only when everything was read: what is missing, and what must not be in these routes.
    pub(super) fn check_whole(&mut self, classic: bool, reachable: bool, context: &UpdateContext) {
        if !reachable {
            return;
        }
        for (kind, needed) in [(kind::ORIGIN, true), (kind::AS_PATH, true), (kind::NEXT_HOP, classic)] {
            if needed && !self.has(kind) {
                self.fault(Some(kind), withdraw(FaultKind::Missing));
            }
        }
        let path = &self.attributes.as_path;
        if context.first_as.is_some_and(|first| path.first() != Some(first)) {
            self.fault(Some(kind::AS_PATH), withdraw(FaultKind::FirstAs));
        } else if context.external && context.refuse_as_sets && path.has_set() {
            self.fault(Some(kind::AS_PATH), withdraw(FaultKind::AsSet));
        }
        let bad = |next_hop: &NextHop| is_bad_next_hop(next_hop.address(), context);
        if classic && self.attributes.next_hop.as_ref().is_some_and(bad) {
            self.fault(Some(kind::NEXT_HOP), withdraw(FaultKind::NextHop));
        }
        if self.mp_reach.and_then(|reach| reach.next_hop).as_ref().is_some_and(bad) {
            self.fault(Some(kind::MP_REACH), withdraw(FaultKind::NextHop));
        }
    }

    /// The attributes, with the four-byte numbers of a two-byte peer merged in (RFC 6793 section 4.2.3).
    pub(super) fn finish(mut self) -> (Attributes, Vec<Fault>) {
        let mut attributes = self.attributes;
        self.other.sort_unstable();
        attributes.other = self.other.into();
        let ignored = self.as4_aggregator.is_some()
            && attributes.aggregator.is_some_and(|aggregator| aggregator.asn != Asn::TRANS);
        if !ignored {
            if attributes.aggregator.is_some() {
                attributes.aggregator = self.as4_aggregator.or(attributes.aggregator);
            }
            if let Some(as4_path) = self.as4_path {
                attributes.as_path = merge_paths(&attributes.as_path, &as4_path);
            }
        }
        (attributes, self.faults)
    }
}

/// Takes one attribute off the front; `None` where it is longer than what is left.
pub(super) fn take_attribute<'a>(block: &mut &'a [u8]) -> Option<(u8, u8, &'a [u8])> {
    let [flags, kind] = take_array(block)?;
    let length = if flags & flag::EXTENDED_LENGTH == 0 {
        usize::from(take_u8(block)?)
    } else {
        usize::from(take_u16(block)?)
    };
    Some((flags, kind, take(block, length)?))
}

fn origin(value: &[u8]) -> Result<Origin, AttributeFault> {
    let &[number] = value else { return Err(withdraw(FaultKind::Length)) };
    Origin::from_number(number).ok_or_else(|| withdraw(FaultKind::Value))
}

/// Reads a path with two or four bytes for each AS.
fn as_path(value: &[u8], four_bytes: bool) -> Result<AsPath, FaultKind> {
    let mut rest = value;
    let mut wire = Vec::with_capacity(if four_bytes { 0 } else { value.len() * 2 });
    while !rest.is_empty() {
        let [kind, count] = take_array(&mut rest).ok_or(FaultKind::Length)?;
        if SegmentKind::from_number(kind).is_none() || count == 0 {
            return Err(FaultKind::Value);
        }
        let width = if four_bytes { 4 } else { 2 };
        let asns = take(&mut rest, usize::from(count) * width).ok_or(FaultKind::Length)?;
        // RFC 7607: AS 0 is nobody.
        if asns.chunks_exact(width).any(|asn| asn.iter().all(|byte| *byte == 0)) {
            return Err(FaultKind::Value);
        }
        if !four_bytes {
            wire.extend([kind, count]);
            wire.extend(asns.chunks_exact(2).flat_map(|asn| [0, 0, asn[0], asn[1]]));
        }
    }
    Ok(AsPath::from_checked_wire(if four_bytes { value.into() } else { wire.into() }))
}

/// RFC 6793 section 4.2.3: what is longer in the two-byte path stays in front of the four-byte one.
fn merge_paths(path: &AsPath, as4_path: &AsPath) -> AsPath {
    let Some(mut extra) = path.length().checked_sub(as4_path.length()) else { return path.clone() };
    let mut segments = Vec::new();
    for segment in path.segments() {
        let asns: Vec<_> = match segment.kind {
            SegmentKind::ConfedSequence | SegmentKind::ConfedSet => segment.asns().collect(),
            _ if extra == 0 => break,
            SegmentKind::Sequence => segment.asns().take(extra).collect(),
            SegmentKind::Set => segment.asns().collect(),
        };
        extra -= match segment.kind {
            SegmentKind::Sequence => asns.len(),
            SegmentKind::Set => 1,
            _ => 0,
        };
        segments.push((segment.kind, asns));
    }
    for segment in as4_path.segments() {
        match segments.last_mut() {
            Some((SegmentKind::Sequence, asns)) if segment.kind == SegmentKind::Sequence => {
                asns.extend(segment.asns());
            }
            _ => segments.push((segment.kind, segment.asns().collect())),
        }
    }
    AsPath::from_segments(segments.iter().map(|(kind, asns)| (*kind, asns.as_slice())))
}

fn aggregator(value: &[u8], four_bytes: bool) -> Result<Aggregator, AttributeFault> {
    let mut rest = value;
    let asn = if four_bytes { take_u32(&mut rest) } else { take_u16(&mut rest).map(u32::from) }.map(Asn);
    let address = take_array::<4>(&mut rest).map(Ipv4Addr::from);
    match (asn, address) {
        (Some(Asn::ZERO), Some(_)) => Err(discard(FaultKind::Value)),
        (Some(asn), Some(address)) if rest.is_empty() => Ok(Aggregator { asn, address }),
        _ => Err(discard(FaultKind::Length)),
    }
}

fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// Elements of `N` bytes; `None` for none of them and for a rest.
fn elements<T, const N: usize>(value: &[u8], element: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
    let (chunks, rest) = value.as_chunks::<N>();
    (!chunks.is_empty() && rest.is_empty()).then(|| chunks.iter().map(|bytes| element(*bytes)).collect())
}

/// Elements of `N` bytes, ascending and each once.
fn list<T: Ord, const N: usize>(value: &[u8], element: impl Fn([u8; N]) -> T) -> Option<Box<[T]>> {
    let mut list = elements(value, element)?;
    if !list.is_sorted_by(|a, b| a < b) {
        list.sort_unstable();
        list.dedup();
    }
    Some(list.into())
}

fn large_community(bytes: [u8; 12]) -> LargeCommunity {
    let number = |n: usize| u32::from_be_bytes([bytes[n], bytes[n + 1], bytes[n + 2], bytes[n + 3]]);
    LargeCommunity { global: number(0), local_1: number(4), local_2: number(8) }
}

/// Checks the shape of what is carried without being used.
fn check_carried(kind: u8, value: &[u8]) -> Result<(), AttributeFault> {
    match kind {
        kind::IPV6_EXT_COMMUNITIES if value.is_empty() || !value.len().is_multiple_of(20) => {
            Err(withdraw(FaultKind::Length))
        }
        // RFC 9234 section 5.
        kind::OTC if value.len() != 4 => Err(withdraw(FaultKind::Length)),
        // RFC 8669 section 3: type, length of two bytes, value, again and again.
        kind::PREFIX_SID => {
            let mut rest = value;
            while !rest.is_empty() {
                let length = take_u8(&mut rest).and_then(|_| take_u16(&mut rest));
                length
                    .and_then(|length| take(&mut rest, length.into()))
                    .ok_or_else(|| discard(FaultKind::Length))?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Reads a next hop of `MP_REACH_NLRI` (RFC 2545 section 3, RFC 8950 section 3).
pub(super) fn mp_next_hop(family: Family, value: &[u8]) -> Option<NextHop> {
    let v6 = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).ok().map(Ipv6Addr::from);
    match value.len() {
        4 if family == Family::Ipv4Unicast => {
            <[u8; 4]>::try_from(value).ok().map(|octets| NextHop::V4(octets.into()))
        }
        16 => Some(NextHop::V6 { global: v6(value)?, link_local: None }),
        32 => Some(NextHop::V6 { global: v6(&value[..16])?, link_local: Some(v6(&value[16..])?) }),
        _ => None,
    }
}

/// Whether nothing can be sent there: RFC 4271 section 6.3, and the same for IPv6.
fn is_bad_next_hop(address: IpAddr, context: &UpdateContext) -> bool {
    let martian = match address {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.octets()[0] >= 224,
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_multicast() || v6.is_loopback(),
    };
    martian || context.local_address == Some(address)
}
