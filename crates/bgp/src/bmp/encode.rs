//! Messages as bytes.

use super::{
    Direction, DownReason, Information, Message, PeerHeader, PeerUp, Statistic, TYPE_LOC_RIB, Table, VERSION,
    flag, kind,
};
use crate::number::AfiSafi;
use std::net::IpAddr;

impl Message {
    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::RouteMonitoring { peer, update } => put_route(peer, update, out),
            Self::StatisticsReport { peer, statistics } => put(kind::STATISTICS_REPORT, out, |out| {
                put_peer(peer, out);
                out.extend((statistics.len() as u32).to_be_bytes());
                for statistic in statistics {
                    put_statistic(statistic, out);
                }
            }),
            Self::PeerDown { peer, reason } => put(kind::PEER_DOWN, out, |out| {
                put_peer(peer, out);
                put_reason(reason, out);
            }),
            Self::PeerUp(up) => put(kind::PEER_UP, out, |out| put_up(up, out)),
            Self::Initiation(information) => {
                put(kind::INITIATION, out, |out| put_information(information, out));
            }
            Self::Termination(information) => {
                put(kind::TERMINATION, out, |out| put_information(information, out));
            }
        }
    }
}

/// Appends Route Monitoring with one UPDATE, which has BGP's own header.
pub fn put_route(peer: &PeerHeader, update: &[u8], out: &mut Vec<u8>) {
    put(kind::ROUTE_MONITORING, out, |out| {
        put_peer(peer, out);
        out.extend(update);
    });
}

/// Appends a message with the header around it.
fn put(kind: u8, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([VERSION, 0, 0, 0, 0, kind]);
    body(out);
    let length = (out.len() - start) as u32;
    if let Some(place) = out.get_mut(start + 1..start + 5) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

fn put_peer(peer: &PeerHeader, out: &mut Vec<u8>) {
    let set = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    let (kind, flags, address) = match peer.table {
        Table::Peer { scope, address, direction, post_policy, two_byte_as } => {
            let flags = set(address.is_ipv6(), flag::V)
                | set(post_policy, flag::L)
                | set(two_byte_as, flag::A)
                | set(direction == Direction::Out, flag::O);
            (scope as u8, flags, octets(address))
        }
        Table::LocRib { filtered } => (TYPE_LOC_RIB, set(filtered, flag::F), [0; 16]),
    };
    out.extend([kind, flags]);
    out.extend(peer.distinguisher.to_be_bytes());
    out.extend(address);
    out.extend(peer.asn.0.to_be_bytes());
    out.extend(peer.id.0.to_be_bytes());
    out.extend(u32::try_from(peer.at.as_secs()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(peer.at.subsec_micros().to_be_bytes());
}

/// IPv4 stands in the last four bytes.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
        }
        IpAddr::V6(address) => address.octets(),
    }
}

fn put_up(up: &PeerUp, out: &mut Vec<u8>) {
    put_peer(&up.peer, out);
    out.extend(octets(up.local_address));
    out.extend(up.local_port.to_be_bytes());
    out.extend(up.remote_port.to_be_bytes());
    out.extend(&up.sent);
    out.extend(&up.received);
    put_information(&up.information, out);
}

fn put_reason(reason: &DownReason, out: &mut Vec<u8>) {
    match reason {
        DownReason::LocalNotification(notification) => {
            out.push(1);
            out.extend(notification.encode());
        }
        DownReason::LocalEvent(event) => {
            out.push(2);
            out.extend(event.to_be_bytes());
        }
        DownReason::RemoteNotification(notification) => {
            out.push(3);
            out.extend(notification.encode());
        }
        DownReason::RemoteSilent => out.push(4),
        DownReason::Unmonitored => out.push(5),
        DownReason::LocRib(information) => {
            out.push(6);
            put_information(information, out);
        }
    }
}

fn put_information(information: &[Information], out: &mut Vec<u8>) {
    for one in information {
        put_field(one.kind, &one.value, out);
    }
}

fn put_statistic(statistic: &Statistic, out: &mut Vec<u8>) {
    let mut of_family = |kind, family: &AfiSafi, value: &u64| {
        let mut bytes = family.afi.to_be_bytes().to_vec();
        bytes.push(family.safi);
        bytes.extend(value.to_be_bytes());
        put_field(kind, &bytes, out);
    };
    match statistic {
        Statistic::AdjRibInOf(family, value) => of_family(9, family, value),
        Statistic::LocRibOf(family, value) => of_family(10, family, value),
        Statistic::AdjRibIn(value) => put_field(7, &value.to_be_bytes(), out),
        Statistic::LocRib(value) => put_field(8, &value.to_be_bytes(), out),
        Statistic::TreatedAsWithdraw(value) => put_field(11, &value.to_be_bytes(), out),
        Statistic::Other { kind, value } => put_field(*kind, value, out),
    }
}

/// Type, length and as much of the value as the length can say.
fn put_field(kind: u16, value: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    out.extend(kind.to_be_bytes());
    out.extend(length.to_be_bytes());
    out.extend(value.iter().take(length.into()));
}
