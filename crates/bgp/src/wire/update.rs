//! UPDATE (RFC 4271 section 4.3, RFC 4760): what came, and what was wrong with it (RFC 7606).

use super::{
    Notification,
    attribute::{Collected, kind, take_attribute},
    take, take_u8, take_u16, take_u32,
};
use crate::{
    attributes::{Attributes, NextHop},
    number::{AfiSafi, Asn, Family, FamilySet},
    prefix::{Nlri, PathId, Prefix},
};
use std::{fmt, net::IpAddr, sync::Arc};

/// What both sides agreed on that changes how an UPDATE is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each was agreed on by itself")]
pub struct UpdateContext {
    /// The peer is in another AS.
    pub external: bool,
    /// AS numbers have four bytes.
    pub as4: bool,
    /// Families that the session carries; routes of others are ignored.
    pub families: FamilySet,
    /// Families whose prefixes have path ids.
    pub add_path: FamilySet,
    /// IPv4 prefixes may come with IPv6 next hops.
    pub extended_next_hop: bool,
    /// The AS with which each path must start; `None` does not care.
    pub first_as: Option<Asn>,
    /// Paths with sets are not taken from other ASes (RFC 9774).
    pub refuse_as_sets: bool,
    /// Our end of the connection, which is no next hop.
    pub local_address: Option<IpAddr>,
}

/// Routes that share their attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// What they carry.
    pub attributes: Arc<Attributes>,
    /// Where they lead, all of one family.
    pub nlri: Vec<Nlri>,
}

/// An UPDATE. Withdrawn prefixes come before announced ones: what stands in both is announced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// New routes: at most those of the classic fields and those of `MP_REACH_NLRI`.
    pub announced: Vec<Announcement>,
    /// Routes that are gone; those that must be treated so are among them.
    pub withdrawn: Vec<Nlri>,
    /// All routes of this family were sent (RFC 4724 section 2).
    pub end_of_rib: Option<Family>,
    /// What was wrong.
    pub faults: Vec<Fault>,
}

impl Update {
    /// Whether its routes count as withdrawn because of a fault.
    pub fn is_treated_as_withdraw(&self) -> bool {
        self.faults.iter().any(|fault| fault.disposition == Disposition::TreatAsWithdraw)
    }
}

/// Something wrong in an UPDATE that does not end the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Type of the attribute; `None` where it could not be told.
    pub attribute: Option<u8>,
    /// What is wrong.
    pub kind: FaultKind,
    /// What it does.
    pub disposition: Disposition,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.attribute {
            Some(attribute) => write!(f, "attribute {attribute}: {}", self.kind.words()),
            None => f.write_str(self.kind.words()),
        }?;
        f.write_str(match self.disposition {
            Disposition::TreatAsWithdraw => ", routes treated as withdrawn",
            Disposition::Discard => ", attribute discarded",
        })
    }
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// It is longer than what is left of the message.
    Overrun,
    /// Its flags are not those that it must have.
    Flags,
    /// It has an impossible length.
    Length,
    /// It has an impossible value.
    Value,
    /// It stands there again.
    Duplicate,
    /// It must be there and is not.
    Missing,
    /// It has no business on this session.
    Unexpected,
    /// The path does not start with the peer's AS.
    FirstAs,
    /// The path has a set (RFC 9774).
    AsSet,
    /// Nothing can be sent to this next hop.
    NextHop,
}

impl FaultKind {
    fn words(self) -> &'static str {
        match self {
            Self::Overrun => "attribute longer than the message",
            Self::Flags => "wrong flags",
            Self::Length => "wrong length",
            Self::Value => "impossible value",
            Self::Duplicate => "there twice",
            Self::Missing => "missing",
            Self::Unexpected => "not expected on this session",
            Self::FirstAs => "path does not start with the peer's AS",
            Self::AsSet => "path with a set",
            Self::NextHop => "unusable next hop",
        }
    }
}

/// What a fault does (RFC 7606 section 2). Worse ones are a [`Notification`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Disposition {
    /// The attribute is as if it were not there.
    Discard,
    /// All routes of the UPDATE count as withdrawn.
    TreatAsWithdraw,
}

/// Reads the body of an UPDATE.
///
/// # Errors
///
/// The NOTIFICATION to end the session with: its routes cannot be told.
pub fn decode_update(body: &[u8], context: &UpdateContext) -> Result<Update, Notification> {
    let (withdrawn, block, nlri) = split(body).ok_or_else(Notification::malformed_attributes)?;
    let v4 = Family::Ipv4Unicast;
    let bad_field = Notification::bad_network_field;
    let withdrawn_nlri = prefixes(withdrawn, v4, context).ok_or_else(bad_field)?;
    let classic = prefixes(nlri, v4, context).ok_or_else(bad_field)?;
    let mut collected = Collected::default();
    collected.take_all(block, context)?;

    let carries_v4 = context.families.contains(v4);
    let mut update = Update::default();
    if carries_v4 {
        update.withdrawn = withdrawn_nlri;
    }
    if let Some((family, nlri)) = collected.mp_unreach
        && let Some(known) = carried(family, context)
    {
        update.withdrawn.extend(mp_prefixes(nlri, known, context)?);
    }
    update.end_of_rib = end_of_rib(body, &collected, context);
    let reach = collected.mp_reach;
    let mp = match reach.and_then(|reach| Some((carried(reach.family, context)?, reach.nlri))) {
        Some((family, nlri)) => mp_prefixes(nlri, family, context)?,
        None => Vec::new(),
    };
    let mp_reachable = reach.is_some_and(|reach| !reach.nlri.is_empty());
    let reachable = !classic.is_empty() || mp_reachable;
    collected.check_whole(!classic.is_empty(), reachable, context);
    let withdraw = collected.faults.iter().any(|fault| fault.disposition == Disposition::TreatAsWithdraw);
    // RFC 7606 section 5.2: attributes without routes, and wrong ones: the routes may have been misread.
    if withdraw && !reachable && (collected.has_other_than_unreach() || collected.mp_unreach.is_none()) {
        return Err(Notification::malformed_attributes());
    }
    let (attributes, faults) = collected.finish();
    update.faults = faults;
    let classic = if carries_v4 { classic } else { Vec::new() };
    if withdraw {
        update.withdrawn.extend(classic.into_iter().chain(mp));
    } else {
        let mp_next_hop = reach.and_then(|reach| reach.next_hop);
        update.announced = announcements(attributes, classic, mp, mp_next_hop);
    }
    Ok(update)
}

/// Families of the prefixes in the body of an UPDATE, as far as that can be told.
pub(crate) fn families_of_update(body: &[u8]) -> FamilySet {
    let mut families = FamilySet::NONE;
    let Some((withdrawn, mut block, nlri)) = split(body) else { return families };
    if !withdrawn.is_empty() || !nlri.is_empty() {
        families.insert(Family::Ipv4Unicast);
    }
    while let Some((_, kind, mut value)) = take_attribute(&mut block) {
        if matches!(kind, kind::MP_REACH | kind::MP_UNREACH)
            && let Some((afi, safi)) = take_u16(&mut value).zip(take_u8(&mut value))
            && let Some(family) = Family::from_afi_safi(AfiSafi { afi, safi })
        {
            families.insert(family);
        }
    }
    families
}

/// Withdrawn prefixes, attributes, announced prefixes; `None` where the lengths contradict each other.
fn split(body: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let mut rest = body;
    let length = take_u16(&mut rest)?;
    let withdrawn = take(&mut rest, length.into())?;
    let length = take_u16(&mut rest)?;
    let block = take(&mut rest, length.into())?;
    Some((withdrawn, block, rest))
}

/// The family, if it is one of ours and the session carries it.
fn carried(family: AfiSafi, context: &UpdateContext) -> Option<Family> {
    Family::from_afi_safi(family).filter(|family| context.families.contains(*family))
}

/// RFC 4724 section 2: nothing at all for IPv4, else `MP_UNREACH_NLRI` alone with nothing in it. The latter may
/// name IPv4 too.
fn end_of_rib(body: &[u8], collected: &Collected<'_>, context: &UpdateContext) -> Option<Family> {
    if body == [0; 4] {
        return Some(Family::Ipv4Unicast).filter(|family| context.families.contains(*family));
    }
    let (family, nlri) = collected.mp_unreach?;
    let [_, _, high, low, ..] = *body else { return None };
    let alone = body.starts_with(&[0, 0])
        && body.len() == 4 + usize::from(u16::from_be_bytes([high, low]))
        && !collected.has_other_than_unreach();
    (alone && nlri.is_empty()).then(|| carried(family, context)).flatten()
}

/// Prefixes within `MP_REACH_NLRI` or `MP_UNREACH_NLRI`.
fn mp_prefixes(bytes: &[u8], family: Family, context: &UpdateContext) -> Result<Vec<Nlri>, Notification> {
    prefixes(bytes, family, context).ok_or_else(|| Notification::bad_optional_attribute(&[]))
}

/// Reads prefixes until nothing is left; `None` where one is too long for its family or for the message.
fn prefixes(mut bytes: &[u8], family: Family, context: &UpdateContext) -> Option<Vec<Nlri>> {
    let add_path = context.add_path.contains(family);
    let mut prefixes = Vec::with_capacity(bytes.len() / if add_path { 8 } else { 4 });
    while !bytes.is_empty() {
        let path_id = PathId(if add_path { take_u32(&mut bytes)? } else { 0 });
        let len = take_u8(&mut bytes)?;
        let count = usize::from(len).div_ceil(8);
        let mut address = [0; 16];
        address.get_mut(..count)?.copy_from_slice(take(&mut bytes, count)?);
        prefixes.push(Nlri { prefix: Prefix::masked(family, address, len)?, path_id });
    }
    Some(prefixes)
}

/// Puts attributes and prefixes together. Classic prefixes have `NEXT_HOP`, the others that of `MP_REACH_NLRI`.
fn announcements(
    attributes: Attributes,
    classic: Vec<Nlri>,
    mp: Vec<Nlri>,
    mp_next_hop: Option<NextHop>,
) -> Vec<Announcement> {
    let mut announced = Vec::new();
    if !mp.is_empty() {
        let attributes = if classic.is_empty() {
            Attributes { next_hop: mp_next_hop, ..attributes }
        } else {
            announced.push(Announcement { attributes: Arc::new(attributes.clone()), nlri: classic });
            Attributes { next_hop: mp_next_hop, ..attributes }
        };
        announced.push(Announcement { attributes: Arc::new(attributes), nlri: mp });
    } else if !classic.is_empty() {
        announced.push(Announcement { attributes: Arc::new(attributes), nlri: classic });
    }
    announced
}
