//! Messages both ways, and every row of RFC 7606 that we know.

use super::*;
use crate::{
    AfiSafi, Aggregator, AsPath, Asn, Attributes, Community, ExtCommunity, Family, FamilySet, LargeCommunity,
    NextHop, Nlri, Origin, PathId, Prefix, RawAttribute, RouterId, SegmentKind,
};
use proptest::{collection::vec, option, prelude::*};
use std::net::{Ipv4Addr, Ipv6Addr};

/// A session inside of an AS that carries both families.
fn internal() -> UpdateContext {
    UpdateContext { as4: true, families: Family::ALL.into_iter().collect(), ..UpdateContext::default() }
}

/// A session with AS 65001.
fn external() -> UpdateContext {
    UpdateContext { external: true, first_as: Some(Asn(65_001)), refuse_as_sets: true, ..internal() }
}

/// An attribute with a one-byte length.
fn attribute(flags: u8, kind: u8, value: &[u8]) -> Vec<u8> {
    [&[flags, kind, value.len() as u8], value].concat()
}

fn origin() -> Vec<u8> {
    attribute(0x40, 1, &[0])
}

/// A sequence of these ASes in four bytes each.
fn path(asns: &[u32]) -> Vec<u8> {
    let mut value = vec![2, asns.len() as u8];
    value.extend(asns.iter().flat_map(|asn| asn.to_be_bytes()));
    attribute(0x40, 2, &value)
}

fn next_hop() -> Vec<u8> {
    attribute(0x40, 3, &[192, 0, 2, 1])
}

/// What an announced route must have.
fn mandatory() -> Vec<u8> {
    [origin(), path(&[65_001]), next_hop()].concat()
}

/// 10.1.0.0/16.
const NLRI: [u8; 3] = [16, 10, 1];

/// The body of an UPDATE.
fn body(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let mut body = (withdrawn.len() as u16).to_be_bytes().to_vec();
    body.extend(withdrawn);
    body.extend((attributes.len() as u16).to_be_bytes());
    body.extend(attributes);
    body.extend(nlri);
    body
}

/// `MP_REACH_NLRI` for `2001:db8::/32` with a next hop of 16 bytes.
fn reach_v6() -> Vec<u8> {
    let mut value = vec![0, 2, 1, 16, 0x20, 1, 0xd, 0xb8];
    value.extend([0; 11]);
    value.extend([1, 0, 32, 0x20, 1, 0xd, 0xb8]);
    attribute(0x80, 14, &value)
}

/// What becomes of an UPDATE.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Announced,
    AttributeDiscarded,
    TreatedAsWithdraw,
    Reset(u8, u8),
}
use Outcome::{Announced, AttributeDiscarded, Reset, TreatedAsWithdraw};

fn outcome(body: &[u8], context: &UpdateContext) -> Outcome {
    match decode_update(body, context) {
        Err(notification) => Reset(notification.code, notification.subcode),
        Ok(update) if update.is_treated_as_withdraw() => {
            assert!(update.announced.is_empty());
            TreatedAsWithdraw
        }
        Ok(update) if update.faults.is_empty() => Announced,
        Ok(update) => {
            assert!(!update.announced.is_empty());
            AttributeDiscarded
        }
    }
}

/// A route with one attribute more, or another one in place of a mandatory one.
fn check(name: &str, context: &UpdateContext, attributes: &[u8], expected: &Outcome) {
    assert_eq!(outcome(&body(&[], attributes, &NLRI), context), *expected, "{name}");
}

fn with(extra: &[u8]) -> Vec<u8> {
    [mandatory(), extra.to_vec()].concat()
}

#[test]
fn faults_in_well_known_attributes_withdraw_the_routes() {
    let cases: &[(&str, Vec<u8>)] = &[
        ("ORIGIN length", [attribute(0x40, 1, &[0, 0]), path(&[65_001]), next_hop()].concat()),
        ("ORIGIN value", [attribute(0x40, 1, &[3]), path(&[65_001]), next_hop()].concat()),
        ("ORIGIN flags", [attribute(0xc0, 1, &[0]), path(&[65_001]), next_hop()].concat()),
        ("ORIGIN missing", [path(&[65_001]), next_hop()].concat()),
        ("AS_PATH missing", [origin(), next_hop()].concat()),
        ("AS_PATH type", [origin(), attribute(0x40, 2, &[5, 1, 0, 0, 0, 1]), next_hop()].concat()),
        ("AS_PATH empty segment", [origin(), attribute(0x40, 2, &[2, 0]), next_hop()].concat()),
        ("AS_PATH overrun", [origin(), attribute(0x40, 2, &[2, 2, 0, 0, 0, 1]), next_hop()].concat()),
        ("AS_PATH rest", [origin(), attribute(0x40, 2, &[2, 1, 0, 0, 0, 1, 2]), next_hop()].concat()),
        ("AS_PATH AS 0 first", [origin(), path(&[0, 65_001]), next_hop()].concat()),
        ("AS_PATH AS 0", [origin(), path(&[65_001, 0]), next_hop()].concat()),
        ("NEXT_HOP missing", [origin(), path(&[65_001])].concat()),
        ("NEXT_HOP length", [origin(), path(&[65_001]), attribute(0x40, 3, &[1; 16])].concat()),
        ("NEXT_HOP zero", [origin(), path(&[65_001]), attribute(0x40, 3, &[0; 4])].concat()),
        ("NEXT_HOP multicast", [origin(), path(&[65_001]), attribute(0x40, 3, &[224, 0, 0, 1])].concat()),
        ("NEXT_HOP class E", [origin(), path(&[65_001]), attribute(0x40, 3, &[240, 0, 0, 1])].concat()),
        ("MED length", with(&attribute(0x80, 4, &[0; 3]))),
        ("COMMUNITIES empty", with(&attribute(0xc0, 8, &[]))),
        ("COMMUNITIES length", with(&attribute(0xc0, 8, &[0; 5]))),
        ("EXT_COMMUNITIES length", with(&attribute(0xc0, 16, &[0; 9]))),
        ("EXT_COMMUNITIES empty", with(&attribute(0xc0, 16, &[]))),
        ("IPv6 EXT_COMMUNITIES length", with(&attribute(0xc0, 25, &[0; 19]))),
        ("LARGE_COMMUNITIES length", with(&attribute(0xc0, 32, &[0; 8]))),
        ("LARGE_COMMUNITIES empty", with(&attribute(0xc0, 32, &[]))),
        ("COMMUNITIES flags", with(&attribute(0x80, 8, &[0; 4]))),
        ("OTC length", with(&attribute(0xc0, 35, &[0; 3]))),
        ("overrun", with(&[0x40, 5, 200, 1])),
        ("two bytes left", with(&[0x40, 5])),
    ];
    let context = UpdateContext { families: [Family::Ipv4Unicast].into_iter().collect(), ..internal() };
    for (name, attributes) in cases {
        check(name, &context, attributes, &TreatedAsWithdraw);
        let update = decode_update(&body(&[], attributes, &NLRI), &context).unwrap();
        assert_eq!(update.withdrawn, [Nlri::from("10.1.0.0/16".parse::<Prefix>().unwrap())], "{name}");
    }
}

#[test]
fn faults_of_no_weight_drop_only_the_attribute() {
    for (name, extra) in [
        ("ATOMIC_AGGREGATE length", attribute(0x40, 6, &[0])),
        ("AGGREGATOR length", attribute(0xc0, 7, &[0; 6])),
        ("AGGREGATOR AS 0", attribute(0xc0, 7, &[0; 8])),
        ("AS4_PATH from a four-byte peer", attribute(0xc0, 17, &[2, 1, 0, 0, 0, 1])),
        ("AS4_AGGREGATOR from a four-byte peer", attribute(0xc0, 18, &[0, 0, 0, 1, 1, 1, 1, 1])),
        ("ORIGIN twice", attribute(0x40, 1, &[2])),
        ("PREFIX_SID cut", attribute(0xc0, 40, &[1, 0, 7, 0])),
    ] {
        check(name, &internal(), &with(&extra), &AttributeDiscarded);
        let update = decode_update(&body(&[], &with(&extra), &NLRI), &internal()).unwrap();
        let plain = decode_update(&body(&[], &mandatory(), &NLRI), &internal()).unwrap();
        assert_eq!(update.announced, plain.announced, "{name}");
    }
}

#[test]
fn faults_after_which_routes_cannot_be_told_reset() {
    let unreach = attribute(0x80, 15, &[0, 2, 1]);
    let bad_next_hop = attribute(0x80, 14, &[0, 2, 1, 4, 1, 2, 3, 4, 0]);
    let bad_prefix = {
        let mut value = vec![0, 2, 1, 16];
        value.extend([1; 16]);
        value.extend([0, 129]);
        attribute(0x80, 14, &value)
    };
    for (name, bytes, expected) in [
        ("withdrawn too long", vec![0, 9, 0, 0], Reset(3, 1)),
        ("attributes too long", vec![0, 0, 0, 9, 0], Reset(3, 1)),
        ("NLRI of 33 bits", body(&[], &mandatory(), &[33, 1, 2, 3, 4, 5]), Reset(3, 10)),
        ("NLRI cut", body(&[], &mandatory(), &[24, 10]), Reset(3, 10)),
        ("withdrawn of 33 bits", body(&[33, 1, 2, 3, 4, 5], &[], &[]), Reset(3, 10)),
        ("MP_REACH twice", body(&[], &[mandatory(), reach_v6(), reach_v6()].concat(), &[]), Reset(3, 1)),
        ("MP_UNREACH twice", body(&[], &[unreach.clone(), unreach.clone()].concat(), &[]), Reset(3, 1)),
        ("next hop length", body(&[], &[mandatory(), bad_next_hop].concat(), &[]), Reset(3, 9)),
        ("prefix in MP_REACH", body(&[], &[mandatory(), bad_prefix].concat(), &[]), Reset(3, 9)),
        ("MP_REACH cut", body(&[], &attribute(0x80, 14, &[0, 2]), &[]), Reset(3, 9)),
        ("prefix in MP_UNREACH", body(&[], &attribute(0x80, 15, &[0, 2, 1, 200]), &[]), Reset(3, 9)),
        ("MP_UNREACH cut", body(&[], &attribute(0x80, 15, &[0, 2]), &[]), Reset(3, 9)),
        ("unknown well-known", body(&[], &with(&attribute(0x40, 99, &[1])), &NLRI), Reset(3, 2)),
        ("fault and no routes", body(&[], &attribute(0x40, 1, &[7]), &[]), Reset(3, 1)),
        ("overrun before MP attributes", body(&[], &with(&[0x40, 5, 200, 1]), &NLRI), Reset(3, 1)),
    ] {
        assert_eq!(outcome(&bytes, &internal()), expected, "{name}");
    }
}

#[test]
fn overrun_after_mp_reach_withdraws_its_routes() {
    let attributes = [reach_v6(), origin(), vec![0x40, 2, 200, 1]].concat();
    let update = decode_update(&body(&[], &attributes, &[]), &internal()).unwrap();
    assert!(update.is_treated_as_withdraw());
    assert_eq!(update.withdrawn, [Nlri::from("2001:db8::/32".parse::<Prefix>().unwrap())]);
}

#[test]
fn attributes_of_reflection_count_only_inside_of_an_as() {
    for (name, extra) in [
        ("LOCAL_PREF", attribute(0x40, 5, &[0; 3])),
        ("ORIGINATOR_ID", attribute(0x80, 9, &[0; 5])),
        ("CLUSTER_LIST empty", attribute(0x80, 10, &[])),
        ("CLUSTER_LIST", attribute(0x80, 10, &[0; 6])),
    ] {
        check(name, &internal(), &with(&extra), &TreatedAsWithdraw);
        check(name, &external(), &with(&extra), &Announced);
    }
    let extra = [
        attribute(0x40, 5, &[0, 0, 0, 7]),
        attribute(0x80, 9, &[1, 1, 1, 1]),
        attribute(0x80, 10, &[2, 2, 2, 2]),
    ];
    let update = decode_update(&body(&[], &with(&extra.concat()), &NLRI), &external()).unwrap();
    let attributes = &update.announced[0].attributes;
    assert_eq!(attributes.local_pref, None);
    assert_eq!(attributes.originator_id, None);
    assert!(attributes.cluster_list.is_empty());
}

#[test]
fn paths_from_other_ases_start_with_the_peer_and_have_no_sets() {
    let other = [origin(), path(&[65_002, 65_001]), next_hop()].concat();
    check("first AS", &external(), &other, &TreatedAsWithdraw);
    check("first AS, not enforced", &UpdateContext { first_as: None, ..external() }, &other, &Announced);
    let set = attribute(0x40, 2, &[2, 1, 0, 0, 0xfd, 0xe9, 1, 1, 0, 0, 0, 9]);
    let set = [origin(), set, next_hop()].concat();
    check("set", &external(), &set, &TreatedAsWithdraw);
    check("set inside", &internal(), &set, &Announced);
    check("set allowed", &UpdateContext { refuse_as_sets: false, ..external() }, &set, &Announced);
}

#[test]
fn our_own_address_is_no_next_hop() {
    let context = UpdateContext { local_address: Some("192.0.2.1".parse().unwrap()), ..internal() };
    check("own address", &context, &mandatory(), &TreatedAsWithdraw);
}

#[test]
fn unknown_attributes_go_on_if_transitive() {
    let extra = [attribute(0xd0, 200, &[]), attribute(0x80, 201, &[1])].concat();
    // The first has the bit for an extended length.
    let extra = [&extra[..2], &[0, 2, 7, 7], &extra[3..]].concat();
    let update = decode_update(&body(&[], &with(&extra), &NLRI), &internal()).unwrap();
    let other = &update.announced[0].attributes.other;
    assert_eq!(**other, [RawAttribute { kind: 200, flags: 0xe0, value: [7, 7].into() }]);
}

#[test]
fn end_of_rib_comes_in_both_kinds() {
    for (bytes, family) in [
        (body(&[], &[], &[]), Some(Family::Ipv4Unicast)),
        (body(&[], &attribute(0x80, 15, &[0, 1, 1]), &[]), Some(Family::Ipv4Unicast)),
        (body(&[], &attribute(0x80, 15, &[0, 2, 1]), &[]), Some(Family::Ipv6Unicast)),
        (body(&[], &attribute(0x80, 15, &[0, 2, 128]), &[]), None),
        (body(&[], &attribute(0x80, 15, &[0, 2, 1, 8, 0x20]), &[]), None),
        (body(&[8, 10], &attribute(0x80, 15, &[0, 2, 1]), &[]), None),
    ] {
        assert_eq!(decode_update(&bytes, &internal()).unwrap().end_of_rib, family, "{bytes:?}");
    }
    for family in Family::ALL {
        let mut out = Vec::new();
        encode_end_of_rib(family, &mut out);
        let frame = frame(&out, MESSAGE_BYTES_MAX).unwrap().unwrap();
        assert_eq!(frame.len(), out.len());
        assert_eq!(decode_update(frame.body, &internal()).unwrap().end_of_rib, Some(family));
    }
}

#[test]
fn routes_of_families_that_were_not_agreed_on_are_ignored() {
    let context = UpdateContext { families: [Family::Ipv4Unicast].into_iter().collect(), ..internal() };
    let update = decode_update(&body(&[], &[mandatory(), reach_v6()].concat(), &NLRI), &context).unwrap();
    assert_eq!(update.announced.len(), 1);
    let context = UpdateContext { families: [Family::Ipv6Unicast].into_iter().collect(), ..internal() };
    let update =
        decode_update(&body(&[8, 10], &[mandatory(), reach_v6()].concat(), &NLRI), &context).unwrap();
    assert_eq!(update.announced.len(), 1);
    assert_eq!(update.announced[0].nlri[0].prefix.family(), Family::Ipv6Unicast);
    assert!(update.withdrawn.is_empty());
}

#[test]
fn numbers_of_two_byte_peers_are_merged() {
    let context = UpdateContext { as4: false, ..internal() };
    let two = |asns: &[u16]| {
        let mut value = vec![2, asns.len() as u8];
        value.extend(asns.iter().flat_map(|asn| asn.to_be_bytes()));
        attribute(0x40, 2, &value)
    };
    let four = |asns: &[u32]| [&[0xc0, 17], &path(asns)[2..]].concat();
    let aggregator = |asn: u16| attribute(0xc0, 7, &[&asn.to_be_bytes()[..], &[9, 9, 9, 9]].concat());
    let as4_aggregator = attribute(0xc0, 18, &[0, 1, 0x11, 0x70, 9, 9, 9, 9]);
    for (attributes, expected) in [
        ([two(&[1, 23_456, 23_456]), four(&[70_000, 80_000])].concat(), "1 70000 80000"),
        ([two(&[23_456]), four(&[70_000, 80_000])].concat(), "23456"),
        (
            [two(&[1, 23_456]), four(&[70_000]), aggregator(23_456), as4_aggregator.clone()].concat(),
            "1 70000",
        ),
        ([two(&[1, 23_456]), four(&[70_000]), aggregator(7), as4_aggregator.clone()].concat(), "1 23456"),
        ([two(&[1, 23_456]), attribute(0xc0, 17, &[2, 0])].concat(), "1 23456"),
    ] {
        let attributes = [origin(), attributes, next_hop()].concat();
        let update = decode_update(&body(&[], &attributes, &NLRI), &context).unwrap();
        assert_eq!(update.announced[0].attributes.as_path.to_string(), expected);
    }
}

#[test]
fn headers_are_checked() {
    let header = |length: u16, kind: u8| {
        let mut bytes = vec![0xff; 16];
        bytes.extend(length.to_be_bytes());
        bytes.push(kind);
        bytes
    };
    for (bytes, expected) in [
        (vec![0xff, 0xfe], Notification::not_synchronised()),
        (header(18, 4), Notification::bad_length(18)),
        (header(20, 4), Notification::bad_length(20)),
        (header(28, 1), Notification::bad_length(28)),
        (header(22, 2), Notification::bad_length(22)),
        (header(20, 3), Notification::bad_length(20)),
        (header(22, 5), Notification::bad_length(22)),
        (header(4_097, 2), Notification::bad_length(4_097)),
        (header(19, 0), Notification::bad_type(0)),
        (header(19, 6), Notification::bad_type(6)),
    ] {
        assert_eq!(frame(&bytes, MESSAGE_BYTES_MAX), Err(expected));
    }
    assert_eq!(frame(&header(5_000, 2), EXTENDED_MESSAGE_BYTES_MAX), Ok(None));
    assert!(frame(&header(5_000, 1), EXTENDED_MESSAGE_BYTES_MAX).is_err());
    let keepalive = encode_keepalive();
    assert_eq!(frame(&keepalive[..18], MESSAGE_BYTES_MAX), Ok(None));
    assert_eq!(frame(&keepalive, MESSAGE_BYTES_MAX).unwrap().unwrap().kind, MessageKind::Keepalive);
}

fn open() -> Open {
    let v4 = AfiSafi { afi: 1, safi: 1 };
    let v6 = AfiSafi { afi: 2, safi: 1 };
    Open {
        as_field: 23_456,
        hold_time: 90,
        router_id: 0x0a00_0001,
        capabilities: vec![
            Capability::Multiprotocol(v4),
            Capability::Multiprotocol(v6),
            Capability::RouteRefresh,
            Capability::RouteRefreshOld,
            Capability::ExtendedNextHop(vec![(v4, 2)]),
            Capability::ExtendedMessage,
            Capability::GracefulRestart {
                restarting: true,
                notification: true,
                restart_time: 120,
                families: vec![(v4, true), (v6, false)],
            },
            Capability::FourByteAs(Asn(70_000)),
            Capability::AddPath(vec![(v4, AddPathMode::Both), (v6, AddPathMode::Receive)]),
            Capability::EnhancedRefresh,
            Capability::LongLived(vec![LongLivedFamily {
                family: v4,
                forwarding: true,
                stale_time: 0x00ab_cdef,
            }]),
            Capability::HostName { host: "node-1".into(), domain: String::new() },
            Capability::SoftwareVersion("isthmus".into()),
            Capability::Unknown { code: 200, value: vec![1, 2, 3] },
        ],
    }
}

fn decode_open(bytes: &[u8]) -> Result<Open, Notification> {
    Open::decode(frame(bytes, MESSAGE_BYTES_MAX)?.expect("a whole message").body)
}

#[test]
fn opens_go_both_ways() {
    assert_eq!(decode_open(&open().encode()).unwrap(), open());
    assert_eq!(open().asn(), Asn(70_000));
    let bare = Open { capabilities: Vec::new(), ..open() };
    assert_eq!(decode_open(&bare.encode()).unwrap(), bare);
    assert_eq!(bare.asn(), Asn(23_456));
    let mut long = open();
    long.capabilities.extend((0..40).map(|n| Capability::Unknown { code: 220, value: vec![n; 20] }));
    assert_eq!(decode_open(&long.encode()).unwrap(), long);
}

#[test]
fn bad_opens_are_refused_with_the_right_code() {
    let head = [4, 0xfd, 0xe9, 0, 90, 10, 0, 0, 1];
    let open = |parameters: &[u8]| [&head[..], parameters].concat();
    for (bytes, expected) in [
        ([&[3], &head[1..], &[0]].concat(), Notification::bad_version()),
        (open(&[4, 1, 2, 0, 0]), Notification::bad_parameter()),
        (open(&[5, 2, 2, 0, 0]), Notification::open_malformed()),
        (open(&[2, 2, 4]), Notification::open_malformed()),
        (open(&[4, 2, 2, 65, 4]), Notification::open_malformed()),
        (open(&[255, 255, 0, 9, 2]), Notification::open_malformed()),
        (head.to_vec(), Notification::open_malformed()),
    ] {
        assert_eq!(Open::decode(&bytes), Err(expected), "{bytes:?}");
    }
    // A known capability of unexpected length is as good as an unknown one.
    let odd = Open::decode(&open(&[5, 2, 3, 65, 1, 7])).unwrap();
    assert_eq!(odd.capabilities, [Capability::Unknown { code: 65, value: vec![7] }]);
    // RFC 9072 section 2: any length but 0 stands before the escape.
    let escaped = Open::decode(&open(&[9, 255, 0, 5, 2, 0, 2, 2, 0])).unwrap();
    assert_eq!(escaped.capabilities, [Capability::RouteRefresh]);
}

#[test]
fn refreshes_go_both_ways() {
    let family = Family::Ipv6Unicast.afi_safi();
    for kind in [RefreshKind::Request, RefreshKind::Begin, RefreshKind::End, RefreshKind::Unknown(9)] {
        let refresh = RouteRefresh { family, kind };
        let bytes = refresh.encode();
        let frame = frame(&bytes, MESSAGE_BYTES_MAX).unwrap().unwrap();
        assert_eq!(RouteRefresh::decode(frame.body), Ok(refresh));
    }
    // With filters behind it.
    assert!(RouteRefresh::decode(&[0, 1, 0, 1, 1, 64, 0, 0]).is_ok());
    let refused = RouteRefresh::decode(&[0, 1, 1, 1, 9]).unwrap_err();
    assert_eq!((refused.code, refused.subcode, refused.data.len()), (7, 1, 24));
}

#[test]
fn notifications_go_both_ways_and_speak() {
    let text = ShutdownText::new("maintenance until 4");
    let notification = Notification::admin_shutdown(&text);
    let bytes = notification.encode();
    let frame = frame(&bytes, MESSAGE_BYTES_MAX).unwrap().unwrap();
    let decoded = Notification::decode(frame.body);
    assert_eq!(decoded, notification);
    assert_eq!(decoded.text().as_deref(), Some("maintenance until 4"));
    assert_eq!(decoded.to_string(), "administrative shutdown (6/2): \"maintenance until 4\"");
    let hard = notification.clone().hard();
    assert!(hard.is_hard_reset());
    assert_eq!(hard.cause(), notification);
    assert!(hard.to_string().contains("hard reset"));
    assert_eq!(ShutdownText::new(&"ä".repeat(200)).as_str().len(), 254);
    assert_eq!(Notification { code: 6, subcode: 2, data: vec![200, 1] }.text(), None);
}

#[test]
fn many_prefixes_share_messages_up_to_the_limit() {
    for (max, add_path, messages) in
        [(MESSAGE_BYTES_MAX, false, 3), (MESSAGE_BYTES_MAX, true, 6), (EXTENDED_MESSAGE_BYTES_MAX, false, 1)]
    {
        for family in Family::ALL {
            let mut families = FamilySet::NONE;
            if add_path {
                families.insert(family);
            }
            let context = EncodeContext { as4: true, add_path: families, message_bytes_max: max };
            let nlri: Vec<_> = (0..2_400_u32).map(|n| numbered(family, n, add_path)).collect();
            let reader = UpdateContext { add_path: families, ..internal() };
            let mut out = Vec::new();
            let next_hop = Some(match family {
                Family::Ipv4Unicast => NextHop::V4(Ipv4Addr::new(192, 0, 2, 1)),
                Family::Ipv6Unicast => {
                    NextHop::V6 { global: Ipv6Addr::new(1, 2, 3, 4, 5, 6, 7, 8), link_local: None }
                }
            });
            let attributes = Attributes { next_hop, ..Attributes::local(Origin::Igp) };
            let announcer = Announcer::new(&attributes, family, context).unwrap();
            let count = announcer.announce(nlri.iter().copied(), &mut out);
            let updates = decode_all(&out, max, &reader);
            assert_eq!(updates.len(), count);
            if family == Family::Ipv4Unicast {
                assert_eq!(count, messages);
            }
            let read: Vec<_> = updates.iter().flat_map(|update| &update.announced[0].nlri).copied().collect();
            assert_eq!(read, nlri);
            out.clear();
            encode_withdrawal(family, nlri.iter().copied(), context, &mut out);
            let withdrawn: Vec<_> =
                decode_all(&out, max, &reader).iter().flat_map(|update| update.withdrawn.clone()).collect();
            assert_eq!(withdrawn, nlri);
        }
    }
}

/// Different prefixes of four address bytes, or of eight.
fn numbered(family: Family, n: u32, add_path: bool) -> Nlri {
    let prefix = match family {
        Family::Ipv4Unicast => Prefix::new(Ipv4Addr::from(0x0a00_0000 + n).into(), 32),
        Family::Ipv6Unicast => Prefix::new(Ipv6Addr::from(u128::from(n) << 64).into(), 64),
    };
    Nlri { prefix: prefix.unwrap(), path_id: PathId(if add_path { n + 1 } else { 0 }) }
}

/// Reads all messages of a buffer.
pub(crate) fn decode_all(mut bytes: &[u8], max: usize, context: &UpdateContext) -> Vec<Update> {
    let mut updates = Vec::new();
    while let Some(frame) = frame(bytes, max).unwrap() {
        updates.push(decode_update(frame.body, context).unwrap());
        bytes = &bytes[frame.len()..];
    }
    assert!(bytes.is_empty());
    updates
}

#[test]
fn attributes_without_room_for_a_prefix_are_refused() {
    let attributes = Attributes {
        next_hop: Some(NextHop::V4(Ipv4Addr::LOCALHOST)),
        large_communities: (0..400).map(|n| LargeCommunity { global: n, local_1: 0, local_2: 0 }).collect(),
        ..Attributes::default()
    };
    let context =
        EncodeContext { as4: true, add_path: FamilySet::NONE, message_bytes_max: MESSAGE_BYTES_MAX };
    let refused = Announcer::new(&attributes, Family::Ipv4Unicast, context).unwrap_err();
    assert!(matches!(refused, EncodeError::TooLong { .. }));
    let context = EncodeContext { message_bytes_max: EXTENDED_MESSAGE_BYTES_MAX, ..context };
    assert!(Announcer::new(&attributes, Family::Ipv4Unicast, context).is_ok());
    let refused = Announcer::new(&attributes, Family::Ipv6Unicast, context).unwrap_err();
    assert_eq!(refused, EncodeError::NextHop { family: Family::Ipv6Unicast });
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Box<[T]> {
    list.sort_unstable();
    list.dedup();
    list.into()
}

fn any_path() -> impl Strategy<Value = AsPath> {
    let kind = prop::sample::select(vec![
        SegmentKind::Set,
        SegmentKind::Sequence,
        SegmentKind::ConfedSequence,
        SegmentKind::ConfedSet,
    ]);
    vec((kind, vec((1..100_000_u32).prop_map(Asn), 1..5)), 0..4).prop_map(|segments| {
        AsPath::from_segments(segments.iter().map(|(kind, asns)| (*kind, asns.as_slice())))
    })
}

fn any_next_hop(family: Family) -> BoxedStrategy<NextHop> {
    let v6 = || (1..u128::MAX >> 4).prop_map(|n| Ipv6Addr::from(n | 1 << 120));
    match family {
        Family::Ipv4Unicast => (0x0100_0000..0xdfff_ffff_u32).prop_map(|n| NextHop::V4(n.into())).boxed(),
        Family::Ipv6Unicast => (v6(), option::of(v6()))
            .prop_map(|(global, link_local)| NextHop::V6 { global, link_local })
            .boxed(),
    }
}

prop_compose! {
    fn any_attributes(family: Family)(
        origin in prop::sample::select(vec![Origin::Igp, Origin::Egp, Origin::Incomplete]),
        as_path in any_path(),
        next_hop in any_next_hop(family),
        (med, local_pref, atomic_aggregate) in (option::of(any::<u32>()), option::of(any::<u32>()), any::<bool>()),
        aggregator in option::of((1..100_000_u32, any::<u32>())),
        communities in vec(any::<u32>().prop_map(Community), 0..100),
        originator_id in option::of(any::<u32>().prop_map(RouterId)),
        cluster_list in vec(any::<u32>().prop_map(RouterId), 0..4),
        ext_communities in vec(any::<u64>().prop_map(ExtCommunity), 0..4),
        large in vec(any::<(u32, u32, u32)>(), 0..4),
        other in vec((41..=255_u8, vec(any::<u8>(), 0..300)), 0..3),
    ) -> Attributes {
        let mut other: Vec<_> = other
            .into_iter()
            .map(|(kind, value)| RawAttribute { kind, flags: 0xe0, value: value.into() })
            .collect();
        other.sort_unstable();
        other.dedup_by_key(|raw| raw.kind);
        Attributes {
            origin,
            as_path,
            next_hop: Some(next_hop),
            med,
            local_pref,
            atomic_aggregate,
            aggregator: aggregator.map(|(asn, ip)| Aggregator { asn: Asn(asn), address: ip.into() }),
            communities: sorted(communities),
            originator_id,
            cluster_list: cluster_list.into(),
            ext_communities: sorted(ext_communities),
            large_communities: sorted(large)
                .iter()
                .map(|&(global, local_1, local_2)| LargeCommunity { global, local_1, local_2 })
                .collect(),
            other: other.into(),
        }
    }
}

/// Attributes that a route of a family may have, and prefixes of it.
pub(crate) fn any_route() -> impl Strategy<Value = (Family, Attributes, Vec<Nlri>)> {
    prop::sample::select(Family::ALL.to_vec()).prop_flat_map(|family| {
        let nlri = vec((any::<u128>(), 0..=family.bits(), any::<u32>()), 1..50).prop_map(move |list| {
            list.into_iter()
                .map(|(address, len, id)| Nlri {
                    prefix: Prefix::masked(family, address.to_be_bytes(), len).unwrap(),
                    path_id: PathId(id),
                })
                .map(|nlri| match family {
                    Family::Ipv4Unicast => Nlri {
                        prefix: Prefix::new(nlri.prefix.address(), nlri.prefix.len()).unwrap(),
                        ..nlri
                    },
                    Family::Ipv6Unicast => nlri,
                })
                .collect::<Vec<_>>()
        });
        (Just(family), any_attributes(family), nlri)
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_again((family, attributes, nlri) in any_route(), as4: bool) {
        let add_path = Family::ALL.into_iter().collect();
        let context = EncodeContext { as4, add_path, message_bytes_max: MESSAGE_BYTES_MAX };
        let mut out = Vec::new();
        Announcer::new(&attributes, family, context).unwrap().announce(nlri.iter().copied(), &mut out);
        let decode = UpdateContext { as4, add_path, ..internal() };
        let updates = decode_all(&out, MESSAGE_BYTES_MAX, &decode);
        let mut read = Vec::new();
        for update in &updates {
            prop_assert!(update.faults.is_empty(), "{:?}", update.faults);
            let announced = &update.announced[0];
            if as4 {
                prop_assert_eq!(&*announced.attributes, &attributes);
            } else {
                prop_assert_eq!(announced.attributes.as_path.length(), attributes.as_path.length());
                prop_assert_eq!(announced.attributes.aggregator, attributes.aggregator);
            }
            read.extend(announced.nlri.iter().copied());
        }
        prop_assert_eq!(read, nlri);
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..200), as4: bool, external: bool) {
        let context = UpdateContext { external, as4, ..internal() };
        let _ = frame(&bytes, MESSAGE_BYTES_MAX);
        let _ = decode_update(&bytes, &context);
        let _ = Open::decode(&bytes);
        let _ = RouteRefresh::decode(&bytes);
        let _ = Notification::decode(&bytes).to_string();
    }

    #[test]
    fn no_attributes_panic(block in vec((any::<u8>(), 0..45_u8, vec(any::<u8>(), 0..30)), 0..6), as4: bool) {
        let block: Vec<u8> = block.iter().flat_map(|(flags, kind, value)| attribute(flags & 0xe0, *kind, value)).collect();
        let context = UpdateContext { as4, ..internal() };
        let _ = decode_update(&body(&[], &block, &NLRI), &context);
    }
}
