//! Path attributes as the API shows them, and as it takes them.

use super::{
    api::{self, attribute::Attr, extended_community::Extcom, nlri::Nlri},
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
pub(super) fn show(attributes: &Attributes, prefix: Prefix) -> Vec<api::Attribute> {
    let mut shown = vec![
        Attr::Origin(proto::OriginAttribute { origin: attributes.origin as u32 }),
        Attr::AsPath(proto::AsPathAttribute { segments: segments(&attributes.as_path) }),
    ];
    let next_hop = next_hop(attributes.next_hop, prefix);
    shown.extend(matches!(prefix.address(), IpAddr::V4(_)).then(|| next_hop.clone()));
    shown.extend(attributes.med.map(|med| Attr::MultiExitDisc(proto::MultiExitDiscAttribute { med })));
    shown.extend(
        attributes.local_pref.map(|local_pref| Attr::LocalPref(proto::LocalPrefAttribute { local_pref })),
    );
    shown.extend(
        attributes.atomic_aggregate.then_some(Attr::AtomicAggregate(proto::AtomicAggregateAttribute {})),
    );
    shown.extend(attributes.aggregator.map(|Aggregator { asn, address }| {
        Attr::Aggregator(proto::AggregatorAttribute { asn: asn.0, address: address.to_string() })
    }));
    if !attributes.communities.is_empty() {
        let communities = attributes.communities.iter().map(|community| community.0).collect();
        shown.push(Attr::Communities(proto::CommunitiesAttribute { communities }));
    }
    shown.extend(
        attributes
            .originator_id
            .map(|id| Attr::OriginatorId(proto::OriginatorIdAttribute { id: id.to_string() })),
    );
    if !attributes.cluster_list.is_empty() {
        let ids = attributes.cluster_list.iter().map(ToString::to_string).collect();
        shown.push(Attr::ClusterList(proto::ClusterListAttribute { ids }));
    }
    shown.extend(matches!(prefix.address(), IpAddr::V6(_)).then_some(next_hop));
    if !attributes.ext_communities.is_empty() {
        let communities = attributes
            .ext_communities
            .iter()
            .map(|community| api::ExtendedCommunity { extcom: Some(ext_community(*community)) });
        let communities = communities.collect();
        shown.push(Attr::ExtendedCommunities(api::ExtendedCommunitiesAttribute { communities }));
    }
    if !attributes.large_communities.is_empty() {
        let communities = attributes.large_communities.iter().map(|community| proto::LargeCommunity {
            global_admin: community.global,
            local_data1: community.local_1,
            local_data2: community.local_2,
        });
        let communities = communities.collect();
        shown.push(Attr::LargeCommunities(proto::LargeCommunitiesAttribute { communities }));
    }
    shown.extend(attributes.other.iter().map(|raw| {
        let (flags, kind) = (u32::from(raw.flags), u32::from(raw.kind));
        Attr::Unknown(proto::UnknownAttribute { flags, r#type: kind, value: raw.value.to_vec() })
    }));
    shown.into_iter().map(|attr| api::Attribute { attr: Some(attr) }).collect()
}

/// The prefix as the API has it.
pub(super) fn nlri(prefix: Prefix) -> api::Nlri {
    let prefix_len = u32::from(prefix.len());
    let shown = proto::IpAddressPrefix { prefix_len, prefix: prefix.address().to_string() };
    api::Nlri { nlri: Some(Nlri::Prefix(shown)) }
}

/// Next hop: an attribute of its own for IPv4, within `MP_REACH_NLRI` for IPv6. A local one is the unspecified address.
fn next_hop(next_hop: Option<NextHop>, prefix: Prefix) -> Attr {
    match (prefix.address(), next_hop) {
        (IpAddr::V4(_), next_hop) => {
            let address = next_hop.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |next_hop| next_hop.address());
            Attr::NextHop(proto::NextHopAttribute { next_hop: address.to_string() })
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
            Attr::MpReach(api::MpReachNlriAttribute { family, next_hops, nlris: vec![nlri(prefix)] })
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

/// Sub-types of opaque extended communities that have a message of their own (RFC 9012, RFC 7432).
const COLOR: u8 = 0x0b;
const ENCAPSULATION: u8 = 0x0c;
const DEFAULT_GATEWAY: u8 = 0x0d;
/// Sub-type of the link bandwidth (draft-ietf-idr-link-bandwidth).
const LINK_BANDWIDTH: u8 = 0x04;

/// Shows what RFC 4360 and 5668 give a form; the rest as bytes.
fn ext_community(community: ExtCommunity) -> Extcom {
    let bytes = community.0.to_be_bytes();
    let [kind, sub_type, ..] = bytes;
    let (is_transitive, low) = (community.is_transitive(), community.0 as u32);
    let (high, short) = ((community.0 >> 16) as u32, u32::from(community.0 as u16));
    match (kind, sub_type) {
        (0x03, COLOR) => return Extcom::Color(proto::ColorExtended { color: low }),
        (0x03, ENCAPSULATION) => return Extcom::Encap(proto::EncapExtended { tunnel_type: short }),
        (0x03, DEFAULT_GATEWAY) => return Extcom::DefaultGateway(proto::DefaultGatewayExtended {}),
        (0x43, 0) => return Extcom::Validation(proto::ValidationExtended { state: low & 0xff }),
        (0x40, LINK_BANDWIDTH) => {
            let (asn, bandwidth) = (high >> 16, f32::from_bits(low));
            return Extcom::LinkBandwidth(proto::LinkBandwidthExtended { asn, bandwidth });
        }
        _ => {}
    }
    let sub_type = u32::from(sub_type);
    // The transitive bit is told beside; the one above it is part of the kind.
    match kind & 0xbf {
        0 => Extcom::TwoOctetAsSpecific(proto::TwoOctetAsSpecificExtended {
            is_transitive,
            sub_type,
            asn: high >> 16,
            local_admin: low,
        }),
        1 => Extcom::Ipv4AddressSpecific(proto::IPv4AddressSpecificExtended {
            is_transitive,
            sub_type,
            address: Ipv4Addr::from(high).to_string(),
            local_admin: short,
        }),
        2 => Extcom::FourOctetAsSpecific(proto::FourOctetAsSpecificExtended {
            is_transitive,
            sub_type,
            asn: high,
            local_admin: short,
        }),
        3 => {
            let value = bytes.into_iter().skip(1).collect();
            Extcom::Opaque(proto::OpaqueExtended { is_transitive, value })
        }
        _ => {
            let value = bytes.into_iter().skip(1).collect();
            Extcom::Unknown(proto::UnknownExtended { r#type: u32::from(kind), value })
        }
    }
}

/// Reads the attributes of a path that a client adds.
///
/// # Errors
///
/// An attribute that is not read here, or holds what cannot be: which, and why.
pub(super) fn read(shown: &[api::Attribute]) -> Result<Attributes, Status> {
    let mut attributes = Attributes::local(Origin::Incomplete);
    for attribute in shown {
        let text = "there is an attribute that cannot be added here";
        read_one(&mut attributes, attribute.attr.as_ref().ok_or_else(|| Status::unimplemented(text))?)?;
    }
    Ok(attributes)
}

fn read_one(attributes: &mut Attributes, attr: &Attr) -> Result<(), Status> {
    match attr {
        Attr::Origin(origin) => {
            let read = u8::try_from(origin.origin).ok().and_then(Origin::from_number);
            attributes.origin = read.ok_or_else(|| bad("origin", origin.origin, "0, 1 or 2"))?;
        }
        Attr::AsPath(path) => attributes.as_path = read_as_path(path)?,
        Attr::NextHop(next_hop) => attributes.next_hop = read_next_hop(&next_hop.next_hop, None)?,
        Attr::MpReach(reach) => {
            let mut next_hops = reach.next_hops.iter().map(String::as_str);
            if let Some(global) = next_hops.next() {
                attributes.next_hop = read_next_hop(global, next_hops.next())?;
            }
        }
        Attr::MultiExitDisc(med) => attributes.med = Some(med.med),
        Attr::LocalPref(local_pref) => attributes.local_pref = Some(local_pref.local_pref),
        Attr::AtomicAggregate(_) => attributes.atomic_aggregate = true,
        Attr::Aggregator(aggregator) => {
            let address = aggregator.address.parse();
            let address =
                address.map_err(|_why| bad("aggregator", &aggregator.address, "an IPv4 address"))?;
            attributes.aggregator = Some(Aggregator { asn: Asn(aggregator.asn), address });
        }
        Attr::OriginatorId(id) => attributes.originator_id = Some(read_id("originator id", &id.id)?),
        Attr::ClusterList(list) => {
            let ids = list.ids.iter().map(|id| read_id("cluster list", id));
            attributes.cluster_list = ids.collect::<Result<_, _>>()?;
        }
        Attr::Communities(shown) => {
            attributes.communities = sorted(shown.communities.iter().map(|value| Community(*value)));
        }
        Attr::LargeCommunities(shown) => {
            attributes.large_communities = sorted(shown.communities.iter().map(|community| LargeCommunity {
                global: community.global_admin,
                local_1: community.local_data1,
                local_2: community.local_data2,
            }));
        }
        Attr::ExtendedCommunities(shown) => {
            let read: Result<Vec<_>, _> = shown.communities.iter().map(read_ext_community).collect();
            attributes.ext_communities = sorted(read?.into_iter());
        }
        Attr::Unknown(raw) => add_raw(attributes, raw)?,
    }
    Ok(())
}

fn add_raw(attributes: &mut Attributes, raw: &proto::UnknownAttribute) -> Result<(), Status> {
    let name = "attribute";
    let kind = u8::try_from(raw.r#type).map_err(|_why| bad(name, raw.r#type, "a type from 0 to 255"))?;
    if raw.flags & TRANSITIVE == 0 {
        let flags = format!("with flags {:#04x}", raw.flags);
        return Err(bad(name, flags, "transitive, so nobody could pass it on"));
    }
    let added = RawAttribute { kind, flags: UNKNOWN_TRANSITIVE, value: raw.value.clone().into() };
    let mut other = std::mem::take(&mut attributes.other).into_vec();
    other.push(added);
    other.sort();
    attributes.other = other.into();
    Ok(())
}

fn read_as_path(path: &proto::AsPathAttribute) -> Result<AsPath, Status> {
    let mut segments = Vec::with_capacity(path.segments.len());
    for segment in &path.segments {
        let kind = u8::try_from(segment.r#type).ok().and_then(SegmentKind::from_number);
        let kind = kind.ok_or_else(|| bad("AS path", segment.r#type, "a kind of segment from 1 to 4"))?;
        // RFC 7607: nobody has AS 0.
        if segment.numbers.contains(&0) {
            return Err(bad("AS path", 0, "an AS number"));
        }
        segments.push((kind, segment.numbers.iter().copied().map(Asn).collect::<Vec<_>>()));
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

fn read_ext_community(shown: &api::ExtendedCommunity) -> Result<ExtCommunity, Status> {
    let name = "extended community";
    let number = |kind: u64, is_transitive: bool, sub_type: u32, value: u64| {
        let kind = if is_transitive { kind } else { kind | 0x40 };
        ExtCommunity(kind << 56 | u64::from(sub_type & 0xff) << 48 | value)
    };
    let opaque = |sub_type: u8, value: u32| number(3, true, sub_type.into(), value.into());
    let short = |value: u32| u16::try_from(value).map(u64::from).map_err(|_why| bad(name, value, "16 bits"));
    let Some(extcom) = &shown.extcom else {
        return Err(Status::unimplemented("there is an extended community that cannot be added here"));
    };
    Ok(match extcom {
        Extcom::TwoOctetAsSpecific(shown) => {
            let value = short(shown.asn)? << 32 | u64::from(shown.local_admin);
            number(0, shown.is_transitive, shown.sub_type, value)
        }
        Extcom::Ipv4AddressSpecific(shown) => {
            let address =
                shown.address.parse().map_err(|_why| bad(name, &shown.address, "an IPv4 address"))?;
            let value = u64::from(Ipv4Addr::to_bits(address)) << 16 | short(shown.local_admin)?;
            number(1, shown.is_transitive, shown.sub_type, value)
        }
        Extcom::FourOctetAsSpecific(shown) => {
            let value = u64::from(shown.asn) << 16 | short(shown.local_admin)?;
            number(2, shown.is_transitive, shown.sub_type, value)
        }
        Extcom::LinkBandwidth(shown) => {
            let value = short(shown.asn)? << 32 | u64::from(shown.bandwidth.to_bits());
            number(0, false, LINK_BANDWIDTH.into(), value)
        }
        Extcom::Validation(shown) => number(3, false, 0, u64::from(shown.state & 0xff)),
        Extcom::Color(shown) => opaque(COLOR, shown.color),
        Extcom::Encap(shown) => opaque(ENCAPSULATION, u32::try_from(short(shown.tunnel_type)?).unwrap_or(0)),
        Extcom::DefaultGateway(_) => opaque(DEFAULT_GATEWAY, 0),
        Extcom::Opaque(shown) => {
            raw_ext_community(if shown.is_transitive { 0x03 } else { 0x43 }, &shown.value)?
        }
        Extcom::Unknown(shown) => {
            let kind =
                u8::try_from(shown.r#type).map_err(|_why| bad(name, shown.r#type, "a type from 0 to 255"))?;
            raw_ext_community(kind, &shown.value)?
        }
    })
}

/// A kind and what follows it, which is filled up with zeros.
fn raw_ext_community(kind: u8, value: &[u8]) -> Result<ExtCommunity, Status> {
    let mut bytes = [0; 8];
    bytes[0] = kind;
    let Some(place) = bytes.get_mut(1..=value.len()) else {
        return Err(bad(
            "extended community",
            format!("a value of {} bytes", value.len()),
            "one of at most 7",
        ));
    };
    place.copy_from_slice(value);
    Ok(ExtCommunity(u64::from_be_bytes(bytes)))
}

fn read_id(name: &str, text: &str) -> Result<RouterId, Status> {
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
        for text in ["10.0.0.0/24", "2001:db8::/32"] {
            let local = Attributes::local(Origin::Igp);
            let shown = show(&local, prefix(text));
            let has_next_hop =
                |one: &api::Attribute| matches!(one.attr, Some(Attr::NextHop(_) | Attr::MpReach(_)));
            assert!(shown.iter().any(has_next_hop), "{text}");
            assert_eq!(read(&shown).unwrap(), local, "{text}");
        }
    }

    #[test]
    fn a_client_that_says_nothing_gets_an_incomplete_origin_and_ourselves_as_next_hop() {
        let read = read(&[]).unwrap();
        assert_eq!((read.origin, read.next_hop), (Origin::Incomplete, None));
    }

    #[test]
    fn extended_communities_of_every_kind_are_read_back() {
        for value in [
            0x030b_0000_0000_0064, // color 100
            0x030c_0000_0000_0008, // encapsulation VXLAN
            0x030d_0000_0000_0000, // default gateway
            0x4300_0000_0000_0002, // validation
            0x4004_fde8_49b7_1b00, // bandwidth of 1.5 MB/s
            0x0306_0102_0304_0506, // opaque
            0x8006_0000_4974_2400, // flow specification's rate, which has no message here
        ] {
            let shown = api::ExtendedCommunity { extcom: Some(ext_community(ExtCommunity(value))) };
            assert_eq!(read_ext_community(&shown).unwrap().0, value, "{value:#018x} {shown:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_name() {
        let segments = |kind, asn| vec![proto::AsSegment { r#type: kind, numbers: vec![asn] }];
        let raw = |flags, kind| proto::UnknownAttribute { flags, r#type: kind, value: vec![] };
        let communities = |extcom| {
            let communities = vec![api::ExtendedCommunity { extcom }];
            Attr::ExtendedCommunities(api::ExtendedCommunitiesAttribute { communities })
        };
        let long = proto::OpaqueExtended { is_transitive: true, value: vec![0; 8] };
        for (attr, expected) in [
            (Some(Attr::Origin(proto::OriginAttribute { origin: 3 })), "origin: 3"),
            (Some(Attr::AsPath(proto::AsPathAttribute { segments: segments(9, 1) })), "AS path: 9"),
            (Some(Attr::AsPath(proto::AsPathAttribute { segments: segments(2, 0) })), "AS path: 0"),
            (Some(Attr::NextHop(proto::NextHopAttribute { next_hop: "x".to_owned() })), "next hop: x"),
            (
                Some(Attr::OriginatorId(proto::OriginatorIdAttribute { id: "x".to_owned() })),
                "originator id: x",
            ),
            (Some(Attr::Unknown(raw(0x80, 9))), "with flags 0x80"),
            (Some(Attr::Unknown(raw(0xc0, 300))), "attribute: 300"),
            (Some(communities(Some(Extcom::Opaque(long)))), "8 bytes"),
            (Some(communities(None)), "extended community that cannot be added"),
            (None, "attribute that cannot be added"),
        ] {
            let status = read(&[api::Attribute { attr }]).unwrap_err();
            assert!(status.message().contains(expected), "{status}");
        }
    }
}
