//! Attributes of routes that stand in files, outside of any UPDATE (RFC 6396 section 4.3.4).
//!
//! The prefix stands elsewhere, so `MP_REACH_NLRI` is cut down to its next hop. Some writers leave it whole; both are read.

use super::{
    EncodeError,
    attribute::{Collected, expected_flags, flag, kind, mp_next_hop, take_attribute, withdraw},
    encode::{encode_attributes, put, put_next_hop},
    take, take_u8, take_u16,
    update::{Fault, FaultKind, UpdateContext},
};
use crate::{
    attributes::{Attributes, NextHop},
    number::Family,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Reads the attributes of a stored route of `family`; `as4`: AS numbers have four bytes.
///
/// Whatever is wrong is among the faults, and what could be read is there nevertheless: unlike in a session nobody can be
/// asked again. The unspecified address as next hop is ours (`None`).
pub(crate) fn decode_stored(mut block: &[u8], family: Family, as4: bool) -> (Attributes, Vec<Fault>) {
    let context =
        UpdateContext { as4, families: Family::ALL.into_iter().collect(), ..UpdateContext::default() };
    let mut collected = Collected::default();
    let mut reach = None;
    while !block.is_empty() {
        let whole = block;
        let Some((flags, kind, value)) = take_attribute(&mut block) else {
            collected.fault(None, withdraw(FaultKind::Overrun));
            break;
        };
        match kind {
            kind::MP_REACH => match stored_next_hop(value, family) {
                Some(next_hop) => reach = Some(next_hop),
                None => collected.fault(Some(kind), withdraw(FaultKind::Length)),
            },
            // It says nothing of a route that is there.
            kind::MP_UNREACH => collected.fault(Some(kind), withdraw(FaultKind::Unexpected)),
            _ => {
                // BIRD 2 has none for next hop and preference: what it means is known without.
                let flags = expected_flags(kind).map_or(flags, |expected| expected | flags & flag::PARTIAL);
                let raw = &whole[..whole.len() - block.len()];
                if collected.take(flags, kind, value, raw, &context).is_err() {
                    collected.fault(Some(kind), withdraw(FaultKind::Flags));
                }
            }
        }
    }
    let (mut attributes, faults) = collected.finish();
    attributes.next_hop = reach.or(attributes.next_hop).filter(|hop| !hop.address().is_unspecified());
    (attributes, faults)
}

/// The next hop of an abbreviated or a whole `MP_REACH_NLRI`. The latter starts with an AFI, whose first byte is 0, the
/// former with the length of what follows.
fn stored_next_hop(value: &[u8], family: Family) -> Option<NextHop> {
    let mut rest = value;
    if value.first() == Some(&0) {
        let (_afi, _safi) = (take_u16(&mut rest)?, take_u8(&mut rest)?);
    }
    let length = take_u8(&mut rest)?;
    mp_next_hop(family, take(&mut rest, length.into())?)
}

/// Appends the attributes of a stored route of `family`, with four bytes for each AS.
///
/// # Errors
///
/// [`EncodeError::NextHop`] where an IPv6 route has an IPv4 next hop; nothing was appended.
pub(crate) fn encode_stored(
    attributes: &Attributes,
    family: Family,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let ourselves = || match family {
        Family::Ipv4Unicast => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        Family::Ipv6Unicast => Ipv6Addr::UNSPECIFIED.into(),
    };
    let next_hop = attributes.next_hop.unwrap_or_else(|| ourselves().into());
    match (family, next_hop) {
        (Family::Ipv4Unicast, NextHop::V4(_)) => {
            let attributes = Attributes { next_hop: Some(next_hop), ..attributes.clone() };
            encode_attributes(&attributes, true, true, out);
        }
        (Family::Ipv6Unicast, NextHop::V4(_)) => return Err(EncodeError::NextHop { family }),
        (_, NextHop::V6 { .. }) => {
            let mut reach = Vec::new();
            put_next_hop(&mut reach, next_hop);
            put(out, flag::OPTIONAL, kind::MP_REACH, &reach);
            encode_attributes(attributes, false, true, out);
        }
    }
    Ok(())
}
