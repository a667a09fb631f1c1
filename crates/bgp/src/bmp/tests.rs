//! Messages laid out by hand after the RFCs, both ways; then whatever messages there can be, and whatever bytes.

use super::*;
use crate::wire::{Capability, Open};
use proptest::{collection::vec, prelude::*};

/// Bytes from hexadecimal digits; blanks and line ends count for nothing.
fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().filter_map(|digit| Some(digit.to_digit(16)? as u8)).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn both_ways(message: &Message, hex: &str) {
    let wanted = bytes(hex);
    let mut out = Vec::new();
    message.encode(&mut out);
    assert_eq!(out, wanted, "{message:?}");
    out.push(3);
    assert_eq!(decode(&out), Ok(Some((message.clone(), wanted.len()))));
}

/// 192.0.2.9 in AS 65537 with router id 10.0.0.9, at 1,000 s and 500 ms.
fn header() -> PeerHeader {
    PeerHeader {
        table: Table::Peer {
            scope: Scope::Global,
            address: [192, 0, 2, 9].into(),
            direction: Direction::In,
            post_policy: false,
            two_byte_as: false,
        },
        distinguisher: 0,
        asn: Asn(65_537),
        id: RouterId(0x0a00_0009),
        at: Duration::from_millis(1_000_500),
    }
}

/// The same in bytes, behind type and flags.
const PEER: &str = "0000000000000000 000000000000000000000000c0000209 00010001 0a000009 000003e8 0007a120";

/// The same of another table.
fn of_table(
    scope: Scope,
    address: IpAddr,
    direction: Direction,
    [post_policy, two_byte_as]: [bool; 2],
) -> PeerHeader {
    PeerHeader { table: Table::Peer { scope, address, direction, post_policy, two_byte_as }, ..header() }
}

const MARKER: &str = "ffffffffffffffffffffffffffffffff";

fn open(asn: u32) -> Vec<u8> {
    let capabilities = vec![Capability::FourByteAs(Asn(asn))];
    Open { as_field: Asn(asn).two_bytes(), hold_time: 90, router_id: 0x0a00_0001, capabilities }.encode()
}

/// An OPEN by hand: version 4, AS, hold time, router id, one parameter with the AS of four bytes.
fn open_hex(field: &str, asn: &str) -> String {
    format!("{MARKER} 0025 01 04 {field} 005a 0a000001 08 02 06 41 04 {asn}")
}

#[test]
fn a_speaker_says_who_it_is_and_that_it_ends() {
    let told =
        vec![Information::text(information::SYS_DESCR, "ist"), Information::text(information::SYS_NAME, "a")];
    both_ways(&Message::Initiation(told), "03 00000012 04 0001 0003 697374 0002 0001 61");
    let told = vec![Information::reason(termination::CLOSED_FOR_GOOD)];
    both_ways(&Message::Termination(told), "03 0000000c 05 0001 0002 0004");
}

#[test]
fn a_session_is_told_with_both_opens() {
    let up = PeerUp {
        peer: header(),
        local_address: [192, 0, 2, 1].into(),
        local_port: 179,
        remote_port: 40_000,
        sent: open(65_001),
        received: open(65_537),
        information: vec![Information::text(information::STRING, "x")],
    };
    let opens = open_hex("fde9", "0000fde9") + &open_hex("5ba0", "00010001");
    let hex = format!(
        "03 00000093 03 00 00 {PEER} 000000000000000000000000c0000201 00b3 9c40 {opens} 0000 0001 78"
    );
    both_ways(&Message::PeerUp(up), &hex);
}

#[test]
fn loc_rib_has_a_type_of_its_own_and_no_address() {
    let peer = PeerHeader { table: Table::LocRib { filtered: true }, ..header() };
    let update = bytes(&format!("{MARKER} 0017 02 0000 0000"));
    let hex = format!(
        "03 00000047 00 03 80 0000000000000000 00000000000000000000000000000000 00010001 0a000009 000003e8 0007a120
         {MARKER} 0017 02 0000 0000"
    );
    both_ways(&Message::RouteMonitoring { peer, update }, &hex);
    let reason = DownReason::LocRib(vec![Information::text(information::TABLE_NAME, "global")]);
    let peer = PeerHeader { table: Table::LocRib { filtered: false }, ..peer };
    let hex = "03 0000003b 02 03 00 0000000000000000 00000000000000000000000000000000 00010001 0a000009 000003e8 0007a120
         06 0003 0006 676c6f62616c";
    both_ways(&Message::PeerDown { peer, reason }, hex);
}

#[test]
fn flags_say_which_table_it_is() {
    let update = bytes(&format!("{MARKER} 0017 02 0000 0000"));
    let address = [192, 0, 2, 9].into();
    for (peer, kind_and_flags) in [
        (of_table(Scope::Global, address, Direction::In, [true, false]), "00 40"),
        (of_table(Scope::Global, address, Direction::In, [false, true]), "00 20"),
        (of_table(Scope::Global, address, Direction::Out, [false, false]), "00 10"),
        (of_table(Scope::Vpn, address, Direction::In, [false, false]), "01 00"),
        (of_table(Scope::Local, address, Direction::Out, [true, true]), "02 70"),
    ] {
        let hex = format!("03 00000047 00 {kind_and_flags} {PEER} {MARKER} 0017 02 0000 0000");
        both_ways(&Message::RouteMonitoring { peer, update: update.clone() }, &hex);
    }
    let six = "2001:db8::9".parse().unwrap();
    let six = of_table(Scope::Global, six, Direction::In, [false, false]);
    let hex = format!(
        "03 00000047 00 00 80 0000000000000000 20010db8000000000000000000000009 00010001 0a000009 000003e8 0007a120
         {MARKER} 0017 02 0000 0000"
    );
    both_ways(&Message::RouteMonitoring { peer: six, update }, &hex);
}

#[test]
fn each_end_of_a_session_has_its_reason() {
    let shut = Notification { code: 6, subcode: 2, data: vec![1, 65] };
    let said = format!("{MARKER} 0017 03 06 02 01 41");
    for (reason, length, hex) in [
        (DownReason::LocalNotification(shut.clone()), "00000048", format!("01 {said}")),
        (DownReason::LocalEvent(17), "00000033", "02 0011".to_owned()),
        (DownReason::RemoteNotification(shut), "00000048", format!("03 {said}")),
        (DownReason::RemoteSilent, "00000031", "04".to_owned()),
        (DownReason::Unmonitored, "00000031", "05".to_owned()),
    ] {
        let hex = format!("03 {length} 02 00 00 {PEER} {hex}");
        both_ways(&Message::PeerDown { peer: header(), reason }, &hex);
    }
}

#[test]
fn numbers_have_the_lengths_of_their_kinds() {
    let six = AfiSafi { afi: 2, safi: 1 };
    let statistics = vec![
        Statistic::AdjRibIn(1),
        Statistic::LocRib(2),
        Statistic::AdjRibInOf(six, 3),
        Statistic::LocRibOf(six, 4),
        Statistic::TreatedAsWithdraw(5),
        Statistic::Other { kind: 900, value: vec![6] },
    ];
    let hex = format!(
        "03 00000077 01 00 00 {PEER} 00000006
         0007 0008 0000000000000001  0008 0008 0000000000000002
         0009 000b 0002 01 0000000000000003  000a 000b 0002 01 0000000000000004
         000b 0004 00000005  0384 0001 06"
    );
    both_ways(&Message::StatisticsReport { peer: header(), statistics }, &hex);
}

#[test]
fn what_is_no_message_is_told_apart() {
    assert_eq!(decode(&[]), Ok(None));
    assert_eq!(decode(&bytes("03 000000")), Ok(None));
    assert_eq!(decode(&bytes("02 00000006 04")), Err(DecodeError::Version(2)));
    assert_eq!(decode(&bytes("03 00000005 04")), Err(DecodeError::Length(5)));
    assert_eq!(decode(&bytes("03 7fffffff 04")), Err(DecodeError::Length(0x7fff_ffff)));
    assert_eq!(decode(&bytes("03 00000006 06")), Err(DecodeError::Kind(6)));
    let malformed = |hex: &str| match decode(&bytes(hex)) {
        Err(DecodeError::Malformed { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(malformed("03 00000009 04 0001 00"), "information");
    assert_eq!(malformed(&format!("03 00000031 02 07 00 {PEER} 04")), "per-peer header");
    assert_eq!(malformed(&format!("03 00000031 02 00 00 {PEER} 09")), "reason");
    assert_eq!(malformed(&format!("03 00000032 02 00 00 {PEER} 04 00")), "reason");
    assert_eq!(malformed(&format!("03 00000034 01 00 00 {PEER} 00000001")), "number of statistics");
    assert_eq!(malformed(&format!("03 00000043 00 00 00 {PEER} {MARKER} 0013 04")), "UPDATE");
}

fn peer_header() -> impl Strategy<Value = PeerHeader> {
    let scope = prop_oneof![Just(Scope::Global), Just(Scope::Vpn), Just(Scope::Local)];
    let direction = prop_oneof![Just(Direction::In), Just(Direction::Out)];
    let peer = (scope, any::<IpAddr>(), direction, any::<bool>(), any::<bool>()).prop_map(
        |(scope, address, direction, post_policy, two_byte_as)| Table::Peer {
            scope,
            address,
            direction,
            post_policy,
            two_byte_as,
        },
    );
    let table = prop_oneof![peer, any::<bool>().prop_map(|filtered| Table::LocRib { filtered })];
    (table, any::<u64>(), any::<u32>(), any::<u32>(), any::<u32>(), 0..1_000_000_u32).prop_map(
        |(table, distinguisher, asn, id, seconds, micros)| PeerHeader {
            table,
            distinguisher,
            asn: Asn(asn),
            id: RouterId(id),
            at: Duration::new(seconds.into(), micros * 1_000),
        },
    )
}

fn some_information() -> impl Strategy<Value = Vec<Information>> {
    vec((any::<u16>(), vec(any::<u8>(), 0..40)).prop_map(|(kind, value)| Information { kind, value }), 0..4)
}

fn reason() -> impl Strategy<Value = DownReason> {
    let notification =
        || {
            (any::<u8>(), any::<u8>(), vec(any::<u8>(), 0..60))
                .prop_map(|(code, subcode, data)| Notification { code, subcode, data })
        };
    prop_oneof![
        notification().prop_map(DownReason::LocalNotification),
        any::<u16>().prop_map(DownReason::LocalEvent),
        notification().prop_map(DownReason::RemoteNotification),
        Just(DownReason::RemoteSilent),
        Just(DownReason::Unmonitored),
        some_information().prop_map(DownReason::LocRib),
    ]
}

fn statistic() -> impl Strategy<Value = Statistic> {
    let family = || (any::<u16>(), any::<u8>()).prop_map(|(afi, safi)| AfiSafi { afi, safi });
    prop_oneof![
        any::<u64>().prop_map(Statistic::AdjRibIn),
        any::<u64>().prop_map(Statistic::LocRib),
        (family(), any::<u64>()).prop_map(|(family, value)| Statistic::AdjRibInOf(family, value)),
        (family(), any::<u64>()).prop_map(|(family, value)| Statistic::LocRibOf(family, value)),
        any::<u32>().prop_map(Statistic::TreatedAsWithdraw),
        (12..u16::MAX, vec(any::<u8>(), 0..20)).prop_map(|(kind, value)| Statistic::Other { kind, value }),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let update = vec(any::<u8>(), 4..200).prop_map(|body| {
        let mut update = bytes(MARKER);
        update.extend((19 + body.len() as u16).to_be_bytes());
        update.push(2);
        update.extend(body);
        update
    });
    let up = (peer_header(), any::<[u8; 16]>(), any::<u16>(), any::<u16>(), any::<u32>(), some_information());
    prop_oneof![
        (peer_header(), update).prop_map(|(peer, update)| Message::RouteMonitoring { peer, update }),
        (peer_header(), vec(statistic(), 0..8))
            .prop_map(|(peer, statistics)| Message::StatisticsReport { peer, statistics }),
        (peer_header(), reason()).prop_map(|(peer, reason)| Message::PeerDown { peer, reason }),
        up.prop_map(|(peer, octets, local_port, remote_port, asn, information)| {
            let is_six = matches!(peer.table, Table::Peer { address: IpAddr::V6(_), .. });
            let [.., a, b, c, d] = octets;
            let local_address =
                if is_six { octets.into() } else { std::net::Ipv4Addr::new(a, b, c, d).into() };
            let (sent, received) = (open(asn), open(asn / 2));
            Message::PeerUp(PeerUp {
                peer,
                local_address,
                local_port,
                remote_port,
                sent,
                received,
                information,
            })
        }),
        some_information().prop_map(Message::Initiation),
        some_information().prop_map(Message::Termination),
    ]
}

proptest! {
    #[test]
    fn what_was_written_can_be_read(message in message(), cut in any::<prop::sample::Index>()) {
        let mut out = Vec::new();
        message.encode(&mut out);
        prop_assert_eq!(decode(&out), Ok(Some((message, out.len()))));
        prop_assert_eq!(decode(&out[..cut.index(out.len())]), Ok(None));
    }

    #[test]
    fn no_bytes_make_it_panic(message in message(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut out = Vec::new();
        message.encode(&mut out);
        let at = at.index(out.len());
        out[at] = byte;
        if let Ok(Some((message, length))) = decode(&out) {
            let mut again = Vec::new();
            message.encode(&mut again);
            prop_assert_eq!(decode(&again).map(|read| read.map(|(read, _)| read)), Ok(Some(message)));
            prop_assert!(length <= out.len());
        }
    }
}
