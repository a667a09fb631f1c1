//! Path attributes as the API shows them, and as it takes them.

use super::{
    any::{self, Packed},
    family, proto,
};
use isthmus_bgp::{
    Aggregator, AsPath, Asn, Attributes, Community, ExtCommunity, LargeCommunity, NextHop, Origin, Prefix,
    RawAttribute, RouterId, SegmentKind,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tonic::Status;

/// Flags of a transitive attribute that we do not know (RFC 4271 section 5): optional, transitive, partial.
const UNKNOWN_TRANSITIVE: u8 = 0xe0;
/// The transitive bit.
const TRANSITIVE: u32 = 0x40;

/// The attributes of a path to `prefix`, ascending by type as they go over the wire.
pub(super) fn show(attributes: &Attributes, prefix: Prefix) -> Vec<proto::Any> {
    let mut shown = vec![
        proto::OriginAttribute { origin: attributes.origin as u32 }.pack(),
        proto::AsPathAttribute { segments: segments(&attributes.as_path) }.pack(),
    ];
    let next_hop = next_hop(attributes.next_hop, prefix);
    shown.extend(matches!(prefix.address(), IpAddr::V4(_)).then(|| next_hop.clone()));
    shown.extend(attributes.med.map(|med| proto::MultiExitDiscAttribute { med }.pack()));
    shown.extend(attributes.local_pref.map(|local_pref| proto::LocalPrefAttribute { local_pref }.pack()));
    shown.extend(attributes.atomic_aggregate.then(|| proto::AtomicAggregateAttribute {}.pack()));
    shown.extend(attributes.aggregator.map(|Aggregator { asn, address }| {
        proto::AggregatorAttribute { asn: asn.0, address: address.to_string() }.pack()
    }));
    if !attributes.communities.is_empty() {
        let communities = attributes.communities.iter().map(|community| community.0).collect();
        shown.push(proto::CommunitiesAttribute { communities }.pack());
    }
    shown.extend(
        attributes.originator_id.map(|id| proto::OriginatorIdAttribute { id: id.to_string() }.pack()),
    );
    if !attributes.cluster_list.is_empty() {
        let ids = attributes.cluster_list.iter().map(ToString::to_string).collect();
        shown.push(proto::ClusterListAttribute { ids }.pack());
    }
    shown.extend(matches!(prefix.address(), IpAddr::V6(_)).then_some(next_hop));
    if !attributes.ext_communities.is_empty() {
        let communities = attributes.ext_communities.iter().map(|community| ext_community(*community));
        shown.push(proto::ExtendedCommunitiesAttribute { communities: communities.collect() }.pack());
    }
    if !attributes.large_communities.is_empty() {
        let communities = attributes.large_communities.iter().map(|community| proto::LargeCommunity {
            global_admin: community.global,
            local_data1: community.local_1,
            local_data2: community.local_2,
        });
        shown.push(proto::LargeCommunitiesAttribute { communities: communities.collect() }.pack());
    }
    shown.extend(attributes.other.iter().map(|raw| {
        let (flags, kind) = (u32::from(raw.flags), u32::from(raw.kind));
        proto::UnknownAttribute { flags, r#type: kind, value: raw.value.to_vec() }.pack()
    }));
    shown
}

/// The prefix as the API has it.
pub(super) fn nlri(prefix: Prefix) -> proto::Any {
    let prefix_len = u32::from(prefix.len());
    proto::IpAddressPrefix { prefix_len, prefix: prefix.address().to_string() }.pack()
}

/// Next hop: an attribute of its own for IPv4, within `MP_REACH_NLRI` for IPv6. A local one is the unspecified address.
fn next_hop(next_hop: Option<NextHop>, prefix: Prefix) -> proto::Any {
    match (prefix.address(), next_hop) {
        (IpAddr::V4(_), next_hop) => {
            let address = next_hop.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |next_hop| next_hop.address());
            proto::NextHopAttribute { next_hop: address.to_string() }.pack()
        }
        (IpAddr::V6(_), next_hop) => {
            let mut next_hops = match next_hop {
                None => vec![Ipv6Addr::UNSPECIFIED.to_string()],
                Some(next_hop) => vec![next_hop.address().to_string()],
            };
            if let Some(NextHop::V6 { link_local: Some(address), .. }) = next_hop {
                next_hops.push(address.to_string());
            }
            let family = Some(family(prefix.family()));
            proto::MpReachNlriAttribute { family, next_hops, nlris: vec![nlri(prefix)] }.pack()
        }
    }
}

fn segments(path: &AsPath) -> Vec<proto::AsSegment> {
    let segment = |segment: isthmus_bgp::Segment<'_>| proto::AsSegment {
        // GoBGP numbers the kinds as RFC 4271 and 5065 do.
        r#type: segment.kind as i32,
        numbers: segment.asns().map(|asn| asn.0).collect(),
    };
    path.segments().map(segment).collect()
}

/// Shows what RFC 4360 and 5668 give a form; the rest as bytes.
fn ext_community(community: ExtCommunity) -> proto::Any {
    let [kind, sub_type, ..] = community.0.to_be_bytes();
    let (is_transitive, sub_type) = (community.is_transitive(), u32::from(sub_type));
    let (high, low) = ((community.0 >> 16) as u32, u32::from(community.0 as u16));
    match kind & 0x3f {
        0 => {
            let (asn, local_admin) = (high >> 16, community.0 as u32);
            proto::TwoOctetAsSpecificExtended { is_transitive, sub_type, asn, local_admin }.pack()
        }
        1 => {
            let address = Ipv4Addr::from(high).to_string();
            proto::IPv4AddressSpecificExtended { is_transitive, sub_type, address, local_admin: low }.pack()
        }
        2 => {
            proto::FourOctetAsSpecificExtended { is_transitive, sub_type, asn: high, local_admin: low }.pack()
        }
        _ => {
            let value = community.0.to_be_bytes().into_iter().skip(1).collect();
            proto::UnknownExtended { r#type: u32::from(kind), value }.pack()
        }
    }
}

/// Reads the attributes of a path that a client adds.
///
/// # Errors
///
/// An attribute that is not read here, or holds what cannot be: which, and why.
pub(crate) fn read(shown: &[proto::Any]) -> Result<Attributes, Status> {
    let mut attributes = Attributes::local(Origin::Incomplete);
    for any in shown {
        let name = any::name(any).unwrap_or(&any.type_url);
        match name {
            "OriginAttribute"
            | "MultiExitDiscAttribute"
            | "LocalPrefAttribute"
            | "AtomicAggregateAttribute"
            | "AggregatorAttribute"
            | "AsPathAttribute" => read_path(&mut attributes, name, any)?,
            "NextHopAttribute" => {
                attributes.next_hop =
                    read_next_hop(&any::unpack::<proto::NextHopAttribute>(any)?.next_hop, None)?;
            }
            "MpReachNLRIAttribute" => {
                let reach = any::unpack::<proto::MpReachNlriAttribute>(any)?;
                let mut next_hops = reach.next_hops.iter().map(String::as_str);
                if let Some(global) = next_hops.next() {
                    attributes.next_hop = read_next_hop(global, next_hops.next())?;
                }
            }
            "OriginatorIdAttribute" => {
                let id = any::unpack::<proto::OriginatorIdAttribute>(any)?.id;
                attributes.originator_id = Some(read_id(&id, name)?);
            }
            "ClusterListAttribute" => {
                let ids = any::unpack::<proto::ClusterListAttribute>(any)?.ids;
                attributes.cluster_list = ids.iter().map(|id| read_id(id, name)).collect::<Result<_, _>>()?;
            }
            _ => read_community(&mut attributes, name, any)?,
        }
    }
    Ok(attributes)
}

fn read_path(attributes: &mut Attributes, name: &str, any: &proto::Any) -> Result<(), Status> {
    match name {
        "OriginAttribute" => {
            let number = any::unpack::<proto::OriginAttribute>(any)?.origin;
            let origin = u8::try_from(number).ok().and_then(Origin::from_number);
            attributes.origin = origin.ok_or_else(|| bad(name, number, "0, 1 or 2"))?;
        }
        "MultiExitDiscAttribute" => {
            attributes.med = Some(any::unpack::<proto::MultiExitDiscAttribute>(any)?.med);
        }
        "LocalPrefAttribute" => {
            attributes.local_pref = Some(any::unpack::<proto::LocalPrefAttribute>(any)?.local_pref);
        }
        "AggregatorAttribute" => {
            let aggregator = any::unpack::<proto::AggregatorAttribute>(any)?;
            let address = aggregator.address.parse();
            let address = address.map_err(|_why| bad(name, &aggregator.address, "an IPv4 address"))?;
            attributes.aggregator = Some(Aggregator { asn: Asn(aggregator.asn), address });
        }
        "AsPathAttribute" => attributes.as_path = read_as_path(any, name)?,
        _ => attributes.atomic_aggregate = true,
    }
    Ok(())
}

fn read_as_path(any: &proto::Any, name: &str) -> Result<AsPath, Status> {
    let shown = any::unpack::<proto::AsPathAttribute>(any)?.segments;
    let mut segments = Vec::with_capacity(shown.len());
    for segment in shown {
        let kind = u8::try_from(segment.r#type).ok().and_then(SegmentKind::from_number);
        let kind = kind.ok_or_else(|| bad(name, segment.r#type, "a kind of segment from 1 to 4"))?;
        // RFC 7607: nobody has AS 0.
        if segment.numbers.contains(&0) {
            return Err(bad(name, 0, "an AS number"));
        }
        segments.push((kind, segment.numbers.into_iter().map(Asn).collect::<Vec<_>>()));
    }
    Ok(AsPath::from_segments(segments.iter().map(|(kind, asns)| (*kind, asns.as_slice()))))
}

/// The unspecified address means ourselves.
fn read_next_hop(global: &str, link_local: Option<&str>) -> Result<Option<NextHop>, Status> {
    let parse = |text: &str| text.parse().map_err(|_why| bad("next hop", text, "an IP address"));
    let address: IpAddr = parse(global)?;
    if address.is_unspecified() {
        return Ok(None);
    }
    match (address, link_local.map(parse).transpose()?) {
        (IpAddr::V6(global), Some(IpAddr::V6(local))) => {
            Ok(Some(NextHop::V6 { global, link_local: Some(local) }))
        }
        (address, _) => Ok(Some(address.into())),
    }
}

fn read_community(attributes: &mut Attributes, name: &str, any: &proto::Any) -> Result<(), Status> {
    match name {
        "CommunitiesAttribute" => {
            let communities = any::unpack::<proto::CommunitiesAttribute>(any)?.communities;
            attributes.communities = sorted(communities.into_iter().map(Community));
        }
        "LargeCommunitiesAttribute" => {
            let communities = any::unpack::<proto::LargeCommunitiesAttribute>(any)?.communities;
            attributes.large_communities = sorted(communities.into_iter().map(|community| LargeCommunity {
                global: community.global_admin,
                local_1: community.local_data1,
                local_2: community.local_data2,
            }));
        }
        "ExtendedCommunitiesAttribute" => {
            let communities = any::unpack::<proto::ExtendedCommunitiesAttribute>(any)?.communities;
            let read: Result<Vec<_>, _> = communities.iter().map(read_ext_community).collect();
            attributes.ext_communities = sorted(read?.into_iter());
        }
        "UnknownAttribute" => {
            let raw = any::unpack::<proto::UnknownAttribute>(any)?;
            let kind =
                u8::try_from(raw.r#type).map_err(|_why| bad(name, raw.r#type, "a type from 0 to 255"))?;
            if raw.flags & TRANSITIVE == 0 {
                return Err(bad(name, raw.flags, "transitive, so nobody could pass it on"));
            }
            let added = RawAttribute { kind, flags: UNKNOWN_TRANSITIVE, value: raw.value.into() };
            let mut other = std::mem::take(&mut attributes.other).into_vec();
            other.push(added);
            other.sort();
            attributes.other = other.into();
        }
        _ => return Err(Status::unimplemented(format!("attribute {name} cannot be added here"))),
    }
    Ok(())
}

fn read_ext_community(any: &proto::Any) -> Result<ExtCommunity, Status> {
    let name = any::name(any).unwrap_or(&any.type_url);
    let number = |kind: u64, is_transitive: bool, sub_type: u32, value: u64| {
        let kind = if is_transitive { kind } else { kind | 0x40 };
        ExtCommunity(kind << 56 | u64::from(sub_type & 0xff) << 48 | value)
    };
    let short = |value: u32| u16::try_from(value).map(u64::from).map_err(|_why| bad(name, value, "16 bits"));
    match name {
        "TwoOctetAsSpecificExtended" => {
            let shown = any::unpack::<proto::TwoOctetAsSpecificExtended>(any)?;
            let value = short(shown.asn)? << 32 | u64::from(shown.local_admin);
            Ok(number(0, shown.is_transitive, shown.sub_type, value))
        }
        "IPv4AddressSpecificExtended" => {
            let shown = any::unpack::<proto::IPv4AddressSpecificExtended>(any)?;
            let address =
                shown.address.parse().map_err(|_why| bad(name, &shown.address, "an IPv4 address"))?;
            let value = u64::from(Ipv4Addr::to_bits(address)) << 16 | short(shown.local_admin)?;
            Ok(number(1, shown.is_transitive, shown.sub_type, value))
        }
        "FourOctetAsSpecificExtended" => {
            let shown = any::unpack::<proto::FourOctetAsSpecificExtended>(any)?;
            let value = u64::from(shown.asn) << 16 | short(shown.local_admin)?;
            Ok(number(2, shown.is_transitive, shown.sub_type, value))
        }
        _ => Err(Status::unimplemented(format!("extended community {name} cannot be added here"))),
    }
}

fn read_id(text: &str, name: &str) -> Result<RouterId, Status> {
    text.parse().map_err(|_why| bad(name, text, "four numbers like 192.0.2.1"))
}

fn sorted<T: Ord>(items: impl Iterator<Item = T>) -> Box<[T]> {
    let mut items: Vec<T> = items.collect();
    items.sort();
    items.dedup();
    items.into()
}

fn bad(name: &str, found: impl std::fmt::Display, expected: &str) -> Status {
    Status::invalid_argument(format!("{name}: {found} is not {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes() -> Attributes {
        Attributes {
            origin: Origin::Egp,
            as_path: AsPath::from_segments([
                (SegmentKind::Sequence, [Asn(65_001), Asn(4_200_000_000)].as_slice()),
                (SegmentKind::Set, [Asn(7), Asn(8)].as_slice()),
            ]),
            next_hop: Some(NextHop::V4(Ipv4Addr::new(192, 0, 2, 9))),
            med: Some(5),
            local_pref: Some(200),
            atomic_aggregate: true,
            aggregator: Some(Aggregator { asn: Asn(65_002), address: Ipv4Addr::new(192, 0, 2, 8) }),
            communities: [Community(7), Community::NO_EXPORT].into(),
            originator_id: Some(RouterId(0xc000_0207)),
            cluster_list: [RouterId(1), RouterId(2)].into(),
            ext_communities: [
                ExtCommunity(0x0002_fde8_0000_0064),
                ExtCommunity(0x0102_c000_0201_0007),
                ExtCommunity(0x4203_fa56_ea00_0009),
            ]
            .into(),
            large_communities: [LargeCommunity { global: 1, local_1: 2, local_2: 3 }].into(),
            other: [RawAttribute { kind: 99, flags: 0xe0, value: [1, 2].into() }].into(),
        }
    }

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_shown_is_read_back() {
        assert_eq!(read(&show(&attributes(), prefix("10.0.0.0/24"))).unwrap(), attributes());
        let next_hop = NextHop::V6 {
            global: "2001:db8::1".parse().unwrap(),
            link_local: Some("fe80::1".parse().unwrap()),
        };
        let six = Attributes { next_hop: Some(next_hop), ..attributes() };
        assert_eq!(read(&show(&six, prefix("2001:db8::/32"))).unwrap(), six);
    }

    #[test]
    fn a_local_next_hop_is_the_unspecified_address() {
        for (text, name) in [("10.0.0.0/24", "NextHopAttribute"), ("2001:db8::/32", "MpReachNLRIAttribute")] {
            let local = Attributes::local(Origin::Igp);
            let shown = show(&local, prefix(text));
            assert!(shown.iter().any(|any| any::name(any) == Some(name)), "{text}");
            assert_eq!(read(&shown).unwrap(), local, "{text}");
        }
    }

    #[test]
    fn a_client_that_says_nothing_gets_an_incomplete_origin_and_ourselves_as_next_hop() {
        let read = read(&[]).unwrap();
        assert_eq!((read.origin, read.next_hop), (Origin::Incomplete, None));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_name() {
        let segment = |kind, asn| proto::AsSegment { r#type: kind, numbers: vec![asn] };
        for (any, expected) in [
            (proto::OriginAttribute { origin: 3 }.pack(), "OriginAttribute: 3"),
            (proto::AsPathAttribute { segments: vec![segment(9, 1)] }.pack(), "AsPathAttribute: 9"),
            (proto::AsPathAttribute { segments: vec![segment(2, 0)] }.pack(), "AsPathAttribute: 0"),
            (proto::NextHopAttribute { next_hop: "x".to_owned() }.pack(), "next hop: x"),
            (proto::OriginatorIdAttribute { id: "x".to_owned() }.pack(), "OriginatorIdAttribute: x"),
            (
                proto::UnknownAttribute { flags: 0x80, r#type: 9, value: vec![] }.pack(),
                "UnknownAttribute: 128",
            ),
            (proto::FqdnCapability::default().pack(), "FqdnCapability cannot be added"),
            (
                proto::Any {
                    type_url: "type.googleapis.com/apipb.OriginAttribute".into(),
                    value: vec![0xff],
                },
                "OriginAttribute cannot be read",
            ),
        ] {
            let status = read(&[any]).unwrap_err();
            assert!(status.message().contains(expected), "{status}");
        }
    }
}
