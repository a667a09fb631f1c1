//! What the kernel knows of links, and of who is on them.

use super::advert::Mac;
use crate::{kernel::messages, sys};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{LinkAttribute, LinkFlags, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::{
    io,
    net::Ipv6Addr,
    os::fd::{AsFd, OwnedFd},
};
use tokio::io::unix::AsyncFd;

/// Groups of notifications (linux/rtnetlink.h): `RTNLGRP_LINK`, `RTNLGRP_IPV6_IFADDR`.
const GROUPS: [u32; 2] = [1, 9];

/// A link as the kernel tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) index: u32,
    /// Packets can go.
    pub(super) is_up: bool,
    pub(super) mac: Option<Mac>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// A link is there, and so.
    There(Link),
    /// The link with this number is gone.
    Gone(u32),
    /// An address of ours came, went, or can be used now.
    Address,
    /// More happened than could be told: all must be read again.
    Missed,
}

/// Hears of links.
#[derive(Debug)]
pub(super) struct Links {
    socket: Socket,
    /// The same socket once more, to wait for it.
    ready: AsyncFd<OwnedFd>,
}

impl Links {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        let ready = sys::waited_for(socket.as_fd().try_clone_to_owned()?)?;
        Ok(Self { socket, ready })
    }

    /// What happened next.
    pub(super) async fn next(&self) -> io::Result<Vec<News>> {
        loop {
            let mut ready = self.ready.readable().await?;
            match ready.try_io(|_| self.socket.recv_from_full()) {
                Ok(Ok((datagram, _))) => {
                    let news: Vec<News> = messages(&datagram)
                        .filter_map(|message| match message.ok()?.payload {
                            NetlinkPayload::InnerMessage(inner) => news(inner),
                            _ => None,
                        })
                        .collect();
                    if !news.is_empty() {
                        return Ok(news);
                    }
                }
                Ok(Err(why)) if why.raw_os_error() == Some(libc::ENOBUFS) => return Ok(vec![News::Missed]),
                Ok(Err(why)) => return Err(why),
                Err(_would_block) => {}
            }
        }
    }
}

/// All links.
pub(super) fn all() -> io::Result<Vec<Link>> {
    let mut links = Vec::new();
    ask(RouteNetlinkMessage::GetLink(LinkMessage::default()), |message| {
        if let RouteNetlinkMessage::NewLink(message) = message {
            links.extend(link(&message));
        }
    })?;
    Ok(links)
}

/// Who has a link-local address on a link, as far as packets went there.
pub(super) fn neighbors(index: u32) -> io::Result<Vec<Ipv6Addr>> {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet6;
    let mut found = Vec::new();
    ask(RouteNetlinkMessage::GetNeighbour(message), |message| {
        if let RouteNetlinkMessage::NewNeighbour(message) = message
            && message.header.ifindex == index
        {
            found.extend(neighbor(&message));
        }
    })?;
    Ok(found)
}

fn ask(message: RouteNetlinkMessage, mut take: impl FnMut(RouteNetlinkMessage)) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut request = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(message));
    request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        for message in messages(&datagram) {
            match message?.payload {
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => {
                    return error.code.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(-code.get())));
                }
                NetlinkPayload::InnerMessage(inner) => take(inner),
                _ => {}
            }
        }
    }
}

fn news(message: RouteNetlinkMessage) -> Option<News> {
    match message {
        RouteNetlinkMessage::NewLink(message) => link(&message).map(News::There),
        RouteNetlinkMessage::DelLink(message) => Some(News::Gone(message.header.index)),
        RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) => Some(News::Address),
        _ => None,
    }
}

fn link(message: &LinkMessage) -> Option<Link> {
    let flags = message.header.flags;
    let name = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => Mac::try_from(bytes.as_slice()).ok(),
        _ => None,
    });
    Some(Link {
        name: name?,
        index: message.header.index,
        is_up: flags.contains(LinkFlags::Up) && flags.contains(LinkFlags::Running),
        mac: mac.filter(|mac| mac.iter().any(|byte| *byte != 0)),
    })
}

fn neighbor(message: &NeighbourMessage) -> Option<Ipv6Addr> {
    use NeighbourState::{Delay, Permanent, Probe, Reachable, Stale};
    let is_there = matches!(message.header.state, Reachable | Stale | Delay | Probe | Permanent);
    message.attributes.iter().filter(|_| is_there).find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
            address.is_unicast_link_local().then_some(*address)
        }
        _ => None,
    })
}
