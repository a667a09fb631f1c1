//! Records both ways, what is wrong with some, and that a reader goes on behind them.

use super::*;
use crate::{
    AsPath, Asn, Attributes, Origin as RouteOrigin, PathId, Prefix, RouterId,
    session::{Negotiated, PeerKind, State},
    wire::{FaultKind, Message, MessageKind, encode_keepalive, tests::any_route},
};
use proptest::{collection::vec, prelude::*};
use std::{
    io::{self, Read},
    sync::Arc,
    time::Duration,
};

const SECONDS: u32 = 0x6000_0000;

/// A record with this in it.
fn record(kind: u16, subtype: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let start = begin(&mut bytes, Time { seconds: SECONDS, micros: None }, RecordType { kind, subtype });
    bytes.extend(body);
    finish(&mut bytes, start);
    bytes
}

fn read_all(bytes: &[u8]) -> Vec<Result<Record, ReadError>> {
    Reader::new(bytes).collect()
}

/// The last record of a file in which all is well.
fn read_last(bytes: &[u8]) -> Body {
    let records: Vec<_> = Reader::new(bytes).map(|record| record.unwrap()).collect();
    records.last().unwrap().body.clone()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const PEERS: &[u8] = &[
    192, 0, 2, 255, // collector
    0, 1, b'v', // name of the view
    0, 2, // peers
    2, 10, 0, 0, 1, 192, 0, 2, 1, 0, 1, 0x11, 0x70, // IPv4, AS 70000
    3, 10, 0, 0, 2, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0xfd,
    0xe9, // IPv6, AS 65001
];

fn peers() -> PeerIndex {
    PeerIndex {
        collector: RouterId(0xc000_02ff),
        view: "v".to_owned(),
        peers: vec![
            PeerEntry { id: RouterId(0x0a00_0001), address: ip("192.0.2.1"), asn: Asn(70_000) },
            PeerEntry { id: RouterId(0x0a00_0002), address: ip("2001:db8::1"), asn: Asn(65_001) },
        ],
    }
}

fn index() -> Vec<u8> {
    record(13, 1, PEERS)
}

const ORIGIN: &[u8] = &[0x40, 1, 1, 0];
const PATH: &[u8] = &[0x40, 2, 6, 2, 1, 0, 1, 0x11, 0x70];
const NEXT_HOP: &[u8] = &[0x40, 3, 4, 192, 0, 2, 1];
const NEXT_HOP_SIX: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// A table's record for 10.1.0.0/16 with one path of peer 0 with these attributes.
fn rib_v4(attributes: &[&[u8]]) -> Vec<u8> {
    let block = attributes.concat();
    let mut body = vec![0, 0, 0, 7, 16, 10, 1, 0, 1, 0, 0, 0x5f, 0, 0, 0];
    body.extend((block.len() as u16).to_be_bytes());
    body.extend(block);
    record(13, 2, &body)
}

/// The same for `2001:db8::/32` and the second peer.
fn rib_v6(attributes: &[&[u8]]) -> Vec<u8> {
    let block = attributes.concat();
    let mut body = vec![0, 0, 0, 7, 32, 0x20, 1, 0xd, 0xb8, 0, 1, 0, 1, 0x5f, 0, 0, 0];
    body.extend((block.len() as u16).to_be_bytes());
    body.extend(block);
    record(13, 4, &body)
}

fn rib(prefix: &str, peer: u16, next_hop: IpAddr) -> Rib {
    let attributes = Attributes {
        origin: RouteOrigin::Igp,
        as_path: AsPath::sequence([Asn(70_000)]),
        next_hop: Some(next_hop.into()),
        ..Attributes::default()
    };
    let entry = RibEntry {
        peer,
        originated: 0x5f00_0000,
        path_id: PathId(0),
        attributes: Arc::new(attributes),
        faults: Vec::new(),
    };
    Rib { sequence: 7, prefix: prefix.parse().unwrap(), add_path: false, entries: vec![entry] }
}

#[test]
fn a_peer_index_is_read_and_written() {
    let mut written = Vec::new();
    peers().encode(SECONDS, &mut written).unwrap();
    assert_eq!(written, index());
    let read = read_all(&written).remove(0).unwrap();
    assert_eq!(read.time, Time { seconds: SECONDS, micros: None });
    assert_eq!(read.kind.to_string(), "TABLE_DUMP_V2 PEER_INDEX_TABLE");
    assert_eq!(read.body, Body::PeerIndex(peers()));
    // AS numbers of two bytes, as others write them.
    let short = record(13, 1, &[0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 2, 3, 4, 10, 0, 0, 9, 0xfd, 0xe9]);
    let Body::PeerIndex(index) = read_last(&short) else { panic!() };
    assert_eq!(index.peers[0].asn, Asn(65_001));
    assert_eq!((index.view.as_str(), index.peers[0].address), ("", ip("10.0.0.9")));
}

#[test]
fn a_route_of_a_table_is_read_and_written() {
    let bytes = rib_v4(&[ORIGIN, PATH, NEXT_HOP]);
    let value = rib("10.1.0.0/16", 0, ip("192.0.2.1"));
    assert_eq!(read_last(&[index(), bytes.clone()].concat()), Body::Rib(value.clone()));
    let mut written = Vec::new();
    value.encode(SECONDS, &mut written).unwrap();
    assert_eq!(written, bytes);
}

#[test]
fn attributes_may_lack_their_flags() {
    // As BIRD 2.0.12 writes next hop and preference.
    let [origin, path, next_hop] = [ORIGIN, PATH, NEXT_HOP].map(|attribute| [&[0], &attribute[1..]].concat());
    let bytes = [index(), rib_v4(&[&origin, &path, &next_hop])].concat();
    assert_eq!(read_last(&bytes), Body::Rib(rib("10.1.0.0/16", 0, ip("192.0.2.1"))));
}

#[test]
fn the_next_hop_of_an_ipv6_route_stands_alone_or_in_a_whole_attribute() {
    let short = [&[0x80, 14, 17, 16], NEXT_HOP_SIX.as_slice()].concat();
    let value = rib("2001:db8::/32", 1, ip("2001:db8::1"));
    let mut written = Vec::new();
    value.encode(SECONDS, &mut written).unwrap();
    assert_eq!(written, rib_v6(&[&short, ORIGIN, PATH]), "we write it abbreviated");
    let whole =
        [&[0x80, 14, 26, 0, 2, 1, 16], NEXT_HOP_SIX.as_slice(), &[0, 32, 0x20, 1, 0xd, 0xb8]].concat();
    for attribute in [&short, &whole] {
        let bytes = [index(), rib_v6(&[ORIGIN, PATH, attribute])].concat();
        assert_eq!(read_last(&bytes), Body::Rib(value.clone()));
    }
    // RFC 8950: an IPv4 route with an IPv6 next hop, which has no attribute of its own.
    let mixed = rib("10.1.0.0/16", 0, ip("2001:db8::1"));
    let mut written = index();
    mixed.encode(SECONDS, &mut written).unwrap();
    assert_eq!(read_last(&written), Body::Rib(mixed));
}

#[test]
fn paths_with_numbers_have_records_of_their_own() {
    let mut value = rib("10.1.0.0/16", 0, ip("192.0.2.1"));
    value.add_path = true;
    value.entries[0].path_id = PathId(9);
    value.entries.push(RibEntry { path_id: PathId(10), peer: 1, ..value.entries[0].clone() });
    let mut written = index();
    value.encode(SECONDS, &mut written).unwrap();
    let at = index().len();
    assert_eq!(written[at + 4..at + 8], [0, 13, 0, 8], "RIB_IPV4_UNICAST_ADDPATH");
    assert_eq!(read_last(&written), Body::Rib(value));
}

#[test]
fn our_own_routes_have_the_unspecified_address_as_next_hop() {
    for (prefix, peer) in [("10.1.0.0/16", 0), ("2001:db8::/32", 1)] {
        let mut value = rib(prefix, peer, ip("192.0.2.1"));
        value.entries[0].attributes = Arc::new(Attributes::local(RouteOrigin::Igp));
        let mut written = index();
        value.encode(SECONDS, &mut written).unwrap();
        assert_eq!(read_last(&written), Body::Rib(value), "{prefix}");
    }
}

#[test]
fn what_cannot_be_written_leaves_nothing_behind() {
    let refused = |value: &Rib| {
        let mut out = vec![1];
        let refused = value.encode(SECONDS, &mut out).unwrap_err();
        assert_eq!(out, [1]);
        refused
    };
    let no_next_hop = rib("2001:db8::/32", 1, ip("192.0.2.1"));
    assert!(matches!(refused(&no_next_hop), EncodeError::NextHop(_)));
    let mut long = rib("10.1.0.0/16", 0, ip("192.0.2.1"));
    let asns = AsPath::sequence((1..20_000).map(Asn));
    long.entries[0].attributes = Arc::new(Attributes { as_path: asns, ..Attributes::default() });
    assert!(matches!(refused(&long), EncodeError::Attributes(80_000..)));
    let mut many = rib("10.1.0.0/16", 0, ip("192.0.2.1"));
    many.entries = vec![many.entries[0].clone(); 65_536];
    assert_eq!(refused(&many), EncodeError::TooMany { what: "paths", count: 65_536 });
    let view = "x".repeat(70_000);
    assert!(PeerIndex { view, ..peers() }.encode(SECONDS, &mut Vec::new()).is_err());
    let entries = vec![peers().peers[0]; 65_536];
    assert!(PeerIndex { peers: entries, ..peers() }.encode(SECONDS, &mut Vec::new()).is_err());
    let message = SessionMessage { bytes: vec![0; 65_536], ..message(false, false, false) };
    assert!(message.encode(Time::default(), &mut Vec::new()).is_err());
}

#[test]
fn a_table_of_old_has_two_bytes_for_each_as() {
    let attributes = [ORIGIN, &[0x40, 2, 6, 2, 2, 0x5b, 0xa0, 0xfd, 0xe9], NEXT_HOP].concat();
    // AS4_PATH says what AS_TRANS stands for (RFC 6793).
    let attributes = [attributes, vec![0xc0, 17, 10, 2, 2, 0, 1, 0x11, 0x70, 0, 0, 0xfd, 0xe9]].concat();
    let mut body = vec![0, 0, 0, 5, 10, 1, 0, 0, 16, 1, 0x5f, 0, 0, 0, 192, 0, 2, 1, 0xfd, 0xe8];
    body.extend([0, attributes.len() as u8]);
    body.extend(attributes);
    let Body::Entry(entry) = read_last(&record(12, 1, &body)) else { panic!() };
    assert_eq!((entry.sequence, entry.prefix.to_string().as_str()), (5, "10.1.0.0/16"));
    assert_eq!(entry.peer, PeerEntry { id: RouterId(0), address: ip("192.0.2.1"), asn: Asn(65_000) });
    assert_eq!(entry.attributes.as_path.to_string(), "70000 65001");
    assert_eq!(entry.faults, []);
    let short = [0x80, 14, 17, 16].iter().chain(&NEXT_HOP_SIX).copied().collect::<Vec<u8>>();
    let mut body = vec![0; 4];
    body.extend(NEXT_HOP_SIX);
    body.extend([128, 1, 0x5f, 0, 0, 0]);
    body.extend(NEXT_HOP_SIX);
    body.extend([0xfd, 0xe8, 0, short.len() as u8]);
    body.extend(short);
    let Body::Entry(entry) = read_last(&record(12, 2, &body)) else { panic!() };
    assert_eq!(entry.prefix.to_string(), "2001:db8::1/128");
    assert_eq!(entry.attributes.next_hop, Some(ip("2001:db8::1").into()));
}

fn ends() -> Ends {
    Ends {
        peer_as: Asn(70_000),
        local_as: Asn(65_001),
        interface: 3,
        peer: ip("192.0.2.1"),
        local: ip("192.0.2.2"),
    }
}

fn message(as4: bool, add_path: bool, is_local: bool) -> SessionMessage {
    let peer_as = if as4 { Asn(70_000) } else { Asn(65_002) };
    let ends = Ends { peer_as, ..ends() };
    SessionMessage { ends, as4, add_path, is_local, bytes: encode_keepalive() }
}

#[test]
fn messages_are_read_and_written_in_every_shape() {
    let subtypes = [
        (false, false, false, 1),
        (true, false, false, 4),
        (false, false, true, 6),
        (true, false, true, 7),
        (false, true, false, 8),
        (true, true, false, 9),
        (false, true, true, 10),
        (true, true, true, 11),
    ];
    for (as4, add_path, is_local, subtype) in subtypes {
        let value = message(as4, add_path, is_local);
        for (micros, kind) in [(None, 16), (Some(5), 17)] {
            let mut written = Vec::new();
            value.encode(Time { seconds: SECONDS, micros }, &mut written).unwrap();
            assert_eq!(written[4..8], [0, kind, 0, subtype]);
            let read = read_all(&written).remove(0).unwrap();
            assert_eq!(read.time, Time { seconds: SECONDS, micros });
            assert_eq!(read.body, Body::Message(value.clone()));
        }
        assert_eq!(value.decode(), Ok(Message::Keepalive));
    }
    let mut written = Vec::new();
    message(true, false, false).encode(Time { seconds: SECONDS, micros: Some(5) }, &mut written).unwrap();
    let head = [
        0x60, 0, 0, 0, 0, 17, 0, 4, 0, 0, 0, 43, 0, 0, 0, 5, // time, type, length, microseconds
        0, 1, 0x11, 0x70, 0, 0, 0xfd, 0xe9, 0, 3, 0, 1, 192, 0, 2, 1, 192, 0, 2, 2, // the ends
    ];
    assert_eq!(written[..36], head);
    let cut_off = SessionMessage { bytes: vec![0xff; 10], ..message(true, false, false) };
    assert!(cut_off.decode().is_err());
}

#[test]
fn a_message_of_a_session_says_whether_its_prefixes_have_numbers() {
    let families = |list: &[Family]| list.iter().copied().collect::<crate::FamilySet>();
    let (both, four) = (families(&Family::ALL), families(&[Family::Ipv4Unicast]));
    let message = |body: &[u8]| [&[0xff; 16][..], &[0, 19 + body.len() as u8, 2], body].concat();
    let withdrawn_four = message(&[0, 3, 16, 10, 1, 0, 0]);
    let withdrawn_six = message(&[0, 0, 0, 11, 0x80, 15, 8, 0, 2, 1, 32, 0x20, 1, 0xd, 0xb8]);
    for (numbered, bytes, expected) in [
        (crate::FamilySet::NONE, &withdrawn_four, false),
        (four, &withdrawn_four, true),
        (four, &withdrawn_six, false),
        (both, &withdrawn_six, true),
        (both, &message(&[0; 4]), true),
        (four, &message(&[0; 4]), false),
    ] {
        let negotiated = Negotiated { families: both, add_path_receive: numbered, ..negotiated() };
        let value = SessionMessage::received(&negotiated, bytes.clone());
        assert_eq!((value.add_path, value.as4, value.is_local), (expected, true, false), "{numbered:?}");
        assert_eq!((value.ends.peer_as, value.ends.local), (Asn(70_000), ip("192.0.2.2")));
    }
}

fn negotiated() -> Negotiated {
    Negotiated {
        kind: PeerKind::External,
        local_as: Asn(65_001),
        peer_as: Asn(70_000),
        peer_id: RouterId(1),
        local_address: ip("192.0.2.2"),
        peer_address: ip("192.0.2.1"),
        families: crate::FamilySet::NONE,
        hold: Duration::ZERO,
        keepalive: Duration::ZERO,
        as4: true,
        add_path_receive: crate::FamilySet::NONE,
        add_path_send: crate::FamilySet::NONE,
        extended_message: false,
        extended_next_hop: false,
        refresh: false,
        enhanced_refresh: false,
        graceful: None,
        local_capabilities: Vec::new(),
        peer_capabilities: Vec::new(),
    }
}

#[test]
fn states_are_read_and_written() {
    for as4 in [false, true] {
        let value = StateChange {
            ends: Ends { peer_as: Asn(65_002), peer: ip("2001:db8::2"), local: ip("192.0.2.2"), ..ends() },
            as4,
            old: State::OpenConfirm.into(),
            new: State::Established.into(),
        };
        let mut written = Vec::new();
        value.encode(Time { seconds: SECONDS, micros: None }, &mut written);
        let Body::State(read) = read_last(&written) else { panic!() };
        assert_eq!((read.old.to_string(), read.new.0), ("open-confirm".to_owned(), 6));
        assert_eq!(read.ends, Ends { local: ip("::"), ..value.ends }, "one family for both");
    }
    assert_eq!(StateNumber(7).to_string(), "clearing");
    assert_eq!(StateNumber(0).to_string(), "state 0");
}

#[test]
fn what_is_not_read_is_passed_over() {
    for (kind, subtype) in [(13, 3), (13, 6), (13, 7), (13, 12), (11, 0), (16, 2), (48, 1)] {
        let records = read_all(&[record(kind, subtype, &[1, 2, 3]), index()].concat());
        assert_eq!(records.len(), 2, "{kind} {subtype}");
        assert_eq!(records[0].as_ref().unwrap().body, Body::Skipped);
    }
    assert_eq!(RecordType { kind: 13, subtype: 6 }.to_string(), "TABLE_DUMP_V2 RIB_GENERIC");
    assert_eq!(RecordType { kind: 13, subtype: 60 }.to_string(), "TABLE_DUMP_V2 subtype 60");
    assert_eq!(RecordType { kind: 48, subtype: 1 }.to_string(), "type 48 subtype 1");
}

#[test]
fn a_reader_says_where_and_what_and_goes_on() {
    let good = rib_v4(&[ORIGIN, PATH, NEXT_HOP]);
    let at = index().len();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (record(13, 2, &[0, 0, 0, 7, 33, 10, 1]), "a prefix of 33 bits is none of ipv4-unicast"),
        (record(13, 2, &[0, 0, 0, 7, 16, 10]), "it ends within this: prefix"),
        (
            record(13, 2, &[0, 0, 0, 7, 0, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0]),
            "a path of peer 2, and the PEER_INDEX_TABLE before it has 2",
        ),
        (record(13, 2, &[0, 0, 0, 7, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 9]), "it ends within this: attributes"),
        (record(13, 2, &[0, 0, 0, 7, 0, 0, 0, 1]), "1 bytes are left over behind its end"),
        (record(13, 1, &[0; 7]), "it ends within this: number of peers"),
        (record(16, 4, &[0; 12]), "address family 0 is neither IPv4 (1) nor IPv6 (2)"),
        (record(17, 4, &[0; 3]), "it ends within this: microseconds"),
        (
            record(16, 0, &[0, 1, 0, 2, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 0, 1]),
            "it ends within this: states",
        ),
        (record(12, 1, &[0; 7]), "it ends within this: prefix"),
    ];
    for (bad, expected) in cases {
        let records = read_all(&[index(), bad, good.clone()].concat());
        let error = records[1].as_ref().unwrap_err();
        assert!(error.to_string().starts_with(&format!("record at byte {at} (")), "{error}");
        assert!(error.to_string().ends_with(expected), "{error}");
        assert!(error.can_go_on());
        assert!(matches!(records[2].as_ref().unwrap().body, Body::Rib(_)), "{expected}");
    }
    let error = read_all(&good).remove(0).unwrap_err();
    assert!(error.to_string().contains("before any PEER_INDEX_TABLE"), "{error}");
}

#[test]
fn a_record_that_is_too_long_is_passed_over() {
    let long = record(16, 4, &[0; 500]);
    let records: Vec<_> = Reader::with_limit([long, index()].concat().as_slice(), 100).collect();
    let error = records[0].as_ref().unwrap_err();
    assert!(
        error.to_string().ends_with("it says that it has 500 bytes, and at most 100 are taken"),
        "{error}"
    );
    assert_eq!(records[1].as_ref().unwrap().body, Body::PeerIndex(peers()));
}

#[test]
fn a_file_that_ends_early_or_is_something_else_ends_the_reading() {
    let whole = [index(), rib_v4(&[ORIGIN, PATH, NEXT_HOP])].concat();
    for cut in [index().len() + 5, whole.len() - 1] {
        let records = read_all(&whole[..cut]);
        assert_eq!(records.len(), 2);
        let error = records[1].as_ref().unwrap_err();
        assert!(!error.can_go_on());
        assert!(error.to_string().contains("it was cut off"), "{error}");
    }
    // A length of 4 GiB costs no memory.
    let error = Reader::with_limit([0_u8, 0, 0, 0, 0, 13, 0, 2, 255, 255, 255, 255, 1].as_slice(), u32::MAX);
    assert!(matches!(error.last().unwrap().unwrap_err().what, What::Truncated { bytes: 1, .. }));
    let text = b"route-map nonsense permit 10\n".as_slice();
    let records: Vec<_> = Reader::new(text).collect();
    assert_eq!(records.len(), 1);
    assert!(matches!(records[0].as_ref().unwrap_err().what, What::NotMrt));
    assert!(read_all(&[]).is_empty());
}

/// Fails when it is read.
struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("disk on fire"))
    }
}

#[test]
fn an_input_that_fails_ends_the_reading() {
    let index = index();
    let mut reader = Reader::new(index.as_slice().chain(Broken));
    assert!(reader.next().unwrap().is_ok());
    let error = reader.next().unwrap().unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("on fire"));
    assert!(reader.next().is_none());
}

#[test]
fn faults_in_attributes_are_told_and_the_rest_is_kept() {
    let bad_med: &[u8] = &[0x80, 4, 3, 0, 0, 0];
    let records = [index(), rib_v4(&[ORIGIN, PATH, NEXT_HOP, bad_med])].concat();
    let Body::Rib(read) = read_last(&records) else { panic!() };
    assert_eq!(read.entries[0].faults[0].kind, FaultKind::Length);
    assert_eq!(read.entries[0].attributes.as_path.to_string(), "70000");
    for bad in [
        &[0x80, 14, 3, 16, 1, 2][..],
        &[0x80, 14, 0],
        &[0x80, 15, 3, 0, 2, 1],
        &[0x40, 99, 0],
        &[0x40, 5, 200],
    ] {
        let Body::Rib(read) = read_last(&[index(), rib_v4(&[ORIGIN, PATH, bad])].concat()) else { panic!() };
        assert_eq!(read.entries[0].faults.len(), 1, "{bad:?}");
    }
}

#[test]
fn records_are_taken_apart_path_by_path() {
    let mut unfolder = Unfolder::new();
    let mut file = [index(), rib_v4(&[ORIGIN, PATH, NEXT_HOP])].concat();
    let update = [&[0, 4, 24, 10, 2, 3][..], &[0, 20], ORIGIN, PATH, NEXT_HOP, &[16, 10, 1]].concat();
    let bytes = [&[0xff; 16][..], &[0, 19 + update.len() as u8, 2], &update].concat();
    let update = SessionMessage { bytes, ..message(true, false, false) };
    update.encode(Time::default(), &mut file).unwrap();
    message(true, false, true).encode(Time::default(), &mut file).unwrap();
    SessionMessage { bytes: vec![0; 19], ..update }.encode(Time::default(), &mut file).unwrap();
    let states = StateChange { ends: ends(), as4: true, old: StateNumber(1), new: StateNumber(2) };
    states.encode(Time::default(), &mut file);
    let seen: Vec<Seen> =
        Reader::new(file.as_slice()).flat_map(|record| unfolder.unfold(record.unwrap())).collect();
    let told: Vec<String> = seen
        .iter()
        .map(|seen| match &seen.item {
            Item::Path { nlri, attributes, fault: None, .. } => {
                format!("path {} {}", nlri.prefix, attributes.as_path)
            }
            Item::Announced { nlri, attributes } => {
                format!("announced {} {}", nlri.prefix, attributes.as_path)
            }
            Item::Withdrawn { nlri, fault: None } => format!("withdrawn {}", nlri.prefix),
            Item::Message(kind) => format!("{kind:?} sent={}", seen.origin.is_sent),
            Item::State { old, new } => format!("{old} {new}"),
            other => format!("{other:?}").chars().take(6).collect(),
        })
        .collect();
    assert_eq!(
        told,
        [
            "path 10.1.0.0/16 70000",
            "withdrawn 10.2.3.0/24",
            "announced 10.1.0.0/16 70000",
            "Keepalive sent=true",
            "Broken",
            "idle connect"
        ]
    );
    assert!(matches!(seen[4].item, Item::Broken(_)));
    assert_eq!(seen[0].origin.id, Some(RouterId(0x0a00_0001)));
    assert!(seen.iter().all(|seen| seen.origin.address == ip("192.0.2.1")));
    assert!(matches!(seen[3].item, Item::Message(MessageKind::Keepalive)));
}

fn any_rib() -> impl Strategy<Value = Rib> {
    (any_route(), any::<(u32, bool)>(), vec((0..2_u16, any::<u32>(), any::<u32>()), 0..4)).prop_map(
        |((_, attributes, nlri), (sequence, add_path), entries)| {
            let entry = |(peer, originated, path_id)| RibEntry {
                peer,
                originated,
                path_id: PathId(if add_path { path_id } else { 0 }),
                attributes: Arc::new(attributes.clone()),
                faults: Vec::new(),
            };
            let entries = entries.into_iter().map(entry).collect();
            Rib { sequence, prefix: nlri[0].prefix, add_path, entries }
        },
    )
}

proptest! {
    #[test]
    fn tables_that_are_written_are_read_again(ribs in vec(any_rib(), 0..8)) {
        let mut file = Vec::new();
        peers().encode(SECONDS, &mut file).unwrap();
        for rib in &ribs {
            rib.encode(SECONDS, &mut file).unwrap();
        }
        let read: Vec<_> = Reader::new(file.as_slice()).map(|record| record.unwrap().body).collect();
        let expected = std::iter::once(Body::PeerIndex(peers())).chain(ribs.into_iter().map(Body::Rib));
        prop_assert_eq!(read, expected.collect::<Vec<_>>());
    }

    #[test]
    fn no_bytes_panic(
        (kind, subtype) in prop::sample::select(vec![(12, 1), (12, 2), (13, 1), (13, 2), (13, 4), (13, 8), (13, 10), (16, 0), (16, 1), (16, 9), (17, 4)]),
        body in vec(any::<u8>(), 0..120),
    ) {
        let mut unfolder = Unfolder::new();
        for record in Reader::new([index(), record(kind, subtype, &body)].concat().as_slice()).flatten() {
            let _ = unfolder.unfold(record);
        }
    }

    #[test]
    fn no_damaged_file_panics_or_is_read_twice(at in 0_usize..100, value: u8, ribs in vec(any_rib(), 1..4)) {
        let mut file = index();
        for rib in &ribs {
            rib.encode(SECONDS, &mut file).unwrap();
        }
        let at = at % file.len();
        file[at] = value;
        let mut reader = Reader::new(file.as_slice());
        prop_assert!(reader.by_ref().count() <= file.len() / HEADER_BYTES + 1);
        prop_assert!(reader.offset() <= file.len() as u64);
    }
}

#[test]
fn prefixes_have_no_host_bits() {
    let bytes = [index(), record(13, 2, &[0, 0, 0, 7, 9, 10, 255, 0, 0])].concat();
    let Body::Rib(read) = read_last(&bytes) else { panic!() };
    assert_eq!(read.prefix, "10.128.0.0/9".parse::<Prefix>().unwrap());
}
