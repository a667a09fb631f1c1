//! Router advertisements and solicitations (RFC 4861 sections 4.1, 4.2 and 6): how the two ends of a link find each other.
//!
//! We say that we are a router, and that nobody shall take us for a default one: hosts on the link change nothing.

use crate::sys;
use rustix::net::{RecvFlags, recvfrom};
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};
use std::{
    io,
    net::{Ipv6Addr, SocketAddrV6},
    os::fd::OwnedFd,
};
use tokio::io::unix::AsyncFd;

/// All nodes and all routers on a link (RFC 4291 section 2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// What is sent on the link, and nothing that came through a router, has this hop limit (RFC 4861 section 6.1).
const HOP_LIMIT: u32 = 255;
/// Types of packets.
const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
/// Bytes of each without options.
const SOLICITATION_BYTES: usize = 8;
const ADVERTISEMENT_BYTES: usize = 16;
/// The option with the sender's MAC address (section 4.6.1).
const SOURCE_LINK_ADDRESS: u8 = 1;
/// Nothing that is read is longer.
const PACKET_BYTES_MAX: usize = 1_500;

/// What somebody on a link said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It is a router.
    Advertised,
    /// It wants to know who is one.
    Asked,
}

/// A MAC address.
pub(super) type Mac = [u8; 6];

/// The socket for all links.
#[derive(Debug)]
pub(super) struct Adverts(AsyncFd<OwnedFd>);

impl Adverts {
    /// Opens it. Needs `CAP_NET_RAW`.
    pub(super) fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.attach_filter(&only_neighbors())?;
        socket.set_nonblocking(true)?;
        socket.set_unicast_hops_v6(HOP_LIMIT)?;
        socket.set_multicast_hops_v6(HOP_LIMIT)?;
        socket.set_multicast_loop_v6(false)?;
        sys::waited_for(socket.into()).map(Self)
    }

    /// Hears who asks for routers on a link. A link that goes away is left by itself.
    pub(super) fn join(&self, index: u32) -> io::Result<()> {
        match SockRef::from(self.0.get_ref()).join_multicast_v6(&ALL_ROUTERS, index) {
            Err(why) if why.kind() == io::ErrorKind::AddrInUse => Ok(()),
            joined => joined,
        }
    }

    /// Says on a link that we are a router: to all, or to who asked.
    pub(super) fn advertise(&self, index: u32, mac: Option<Mac>, to: Option<Ipv6Addr>) -> io::Result<()> {
        self.send(&advertisement(mac), to.unwrap_or(ALL_NODES), index)
    }

    /// Asks who is a router on a link.
    pub(super) fn ask(&self, index: u32, mac: Option<Mac>) -> io::Result<()> {
        self.send(&solicitation(mac), ALL_ROUTERS, index)
    }

    /// The kernel puts the checksum in (RFC 3542 section 3.1).
    fn send(&self, packet: &[u8], to: Ipv6Addr, index: u32) -> io::Result<()> {
        SockRef::from(self.0.get_ref()).send_to(packet, &SocketAddrV6::new(to, 0, 0, index).into()).map(drop)
    }

    /// What came next, and from whom; its scope is the link.
    pub(super) async fn next(&self) -> io::Result<(SocketAddrV6, Said)> {
        let mut buffer = [0; PACKET_BYTES_MAX];
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|socket| {
                let (bytes, _, from) = recvfrom(socket.get_ref(), &mut buffer[..], RecvFlags::empty())?;
                Ok((bytes, from))
            });
            let Ok(read) = read else { continue };
            let (bytes, from) = read?;
            let from = from.and_then(|from| SocketAddrV6::try_from(from).ok());
            let said = decode(buffer.get(..bytes).unwrap_or_default());
            if let Some((from, said)) = from.zip(said)
                && from.ip().is_unicast_link_local()
            {
                return Ok((from, said));
            }
        }
    }
}

/// Router lifetime 0: no default router; all else is left to others (RFC 4861 section 4.2).
fn advertisement(mac: Option<Mac>) -> Vec<u8> {
    let mut packet = vec![0; ADVERTISEMENT_BYTES];
    packet[0] = ADVERTISEMENT;
    put_link_address(&mut packet, mac);
    packet
}

fn solicitation(mac: Option<Mac>) -> Vec<u8> {
    let mut packet = vec![0; SOLICITATION_BYTES];
    packet[0] = SOLICITATION;
    put_link_address(&mut packet, mac);
    packet
}

fn put_link_address(packet: &mut Vec<u8>, mac: Option<Mac>) {
    if let Some(mac) = mac {
        // The length counts in units of 8 bytes.
        packet.extend([SOURCE_LINK_ADDRESS, 1]);
        packet.extend(mac);
    }
}

/// What a packet says; `None` for all that is none of both, or is malformed (sections 6.1.1 and 6.1.2).
fn decode(packet: &[u8]) -> Option<Said> {
    let (said, bytes) = match *packet.first()? {
        SOLICITATION => (Said::Asked, SOLICITATION_BYTES),
        ADVERTISEMENT => (Said::Advertised, ADVERTISEMENT_BYTES),
        _ => return None,
    };
    let is_code_zero = packet.get(1) == Some(&0);
    let mut options = packet.get(bytes..).filter(|_| is_code_zero)?;
    while !options.is_empty() {
        // The second byte of an option is its length; one without has no end.
        let units = usize::from(*options.get(1)?);
        options = options.get(8 * units..).filter(|_| units > 0)?;
    }
    Some(said)
}

/// A filter of classic BPF (`linux/filter.h`): both kinds of packets, and with a hop limit that no router took from.
fn only_neighbors() -> [SockFilter; 7] {
    /// `SKF_NET_OFF`: counts from the network header; the hop limit is its byte 7.
    const HOP_LIMIT_BYTE: u32 = 0xfff0_0000 + 7;
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, 0),
        SockFilter::new(JUMP_IF_EQUAL, 1, 0, u32::from(SOLICITATION)),
        SockFilter::new(JUMP_IF_EQUAL, 0, 3, u32::from(ADVERTISEMENT)),
        SockFilter::new(LOAD_BYTE, 0, 0, HOP_LIMIT_BYTE),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, HOP_LIMIT),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 9];

    #[test]
    fn packets_are_those_of_the_rfc() {
        let packet = advertisement(Some(MAC));
        assert_eq!(packet[..16], [134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "no default router");
        assert_eq!(packet[16..], [1, 1, 2, 0, 0, 0, 0, 9]);
        assert_eq!(solicitation(None), [133, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(decode(&packet), Some(Said::Advertised));
        assert_eq!(decode(&solicitation(Some(MAC))), Some(Said::Asked));
    }

    #[test]
    fn what_is_malformed_is_not_heard() {
        let packet = advertisement(Some(MAC));
        for length in (0..packet.len()).filter(|length| *length != 16) {
            assert_eq!(decode(&packet[..length]), None, "{length} bytes");
        }
        for (at, byte) in [(0, 135), (1, 1), (17, 0), (17, 2)] {
            let mut bad = packet.clone();
            bad[at] = byte;
            assert_eq!(decode(&bad), None, "byte {at} is {byte}");
        }
    }
}
