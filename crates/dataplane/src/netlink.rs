//! rtnetlink, one request at a time on a blocking socket: an attach is a handful of requests, and waits for each.

use crate::{host::LINK_PREFIX, route::KernelRoute};
use ipnet::Ipv4Net;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage, AddressScope},
    link::{
        InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo,
        LinkMessage,
    },
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

/// Protocol number of our routes and neighbours, so that they are found and removed.
pub(crate) const ROUTE_PROTOCOL: u8 = 98;
/// Metric of our unreachable routes: every other route of the same range is better, and no other is replaced by ours.
const UNREACHABLE_METRIC: u32 = 4_000_000_098;
/// The kernel's own table of this node's addresses.
const TABLE_LOCAL: u8 = 255;
const TABLE_MAIN: u8 = 254;

/// One rtnetlink socket; it stays in the namespace that it was made in.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// What is known of an interface.
#[derive(Clone, Debug)]
pub(crate) struct Interface {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mtu: u32,
    pub(crate) mac: Option<[u8; 6]>,
    pub(crate) up: bool,
    /// Port and whether it collects metadata, of a VXLAN device.
    pub(crate) vxlan: Option<(u16, bool)>,
}

/// The way to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) ifindex: u32,
    pub(crate) next_hop: Ipv4Addr,
}

impl Netlink {
    /// A socket in the thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Creates a veth pair: `host` here, `interface` in the namespace `netns`.
    pub(crate) fn add_veth(&mut self, pair: &VethPair<'_>) -> io::Result<()> {
        let mut peer = LinkMessage::default();
        peer.attributes = vec![
            LinkAttribute::IfName(pair.interface.to_owned()),
            LinkAttribute::Mtu(pair.mtu),
            LinkAttribute::Address(pair.mac.to_vec()),
            LinkAttribute::NetNsFd(pair.netns.as_raw_fd()),
        ];
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::IfName(pair.host.to_owned()),
            LinkAttribute::Mtu(pair.mtu),
            LinkAttribute::Address(pair.host_mac.to_vec()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        self.request(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Creates the VXLAN device that takes its keys from each packet.
    pub(crate) fn add_vxlan(&mut self, name: &str, port: u16, mac: [u8; 6], mtu: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.flags = LinkFlags::Noarp;
        link.header.change_mask = LinkFlags::Noarp;
        link.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::Address(mac.to_vec()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vxlan),
                LinkInfo::Data(InfoData::Vxlan(vec![
                    InfoVxlan::CollectMetadata(true),
                    InfoVxlan::Learning(false),
                    InfoVxlan::Port(port),
                ])),
            ]),
        ];
        self.request(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Brings an interface up.
    pub(crate) fn set_up(&mut self, index: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        self.request(RouteNetlinkMessage::SetLink(link), 0)
    }

    /// Sets an interface's MTU.
    pub(crate) fn set_mtu(&mut self, index: u32, mtu: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes = vec![LinkAttribute::Mtu(mtu)];
        self.request(RouteNetlinkMessage::SetLink(link), 0)
    }

    /// Removes an interface; whether it was there.
    pub(crate) fn remove_link(&mut self, name: &str) -> io::Result<bool> {
        let mut link = LinkMessage::default();
        link.attributes = vec![LinkAttribute::IfName(name.to_owned())];
        match self.request(RouteNetlinkMessage::DelLink(link), 0) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Puts an interface into a group; whether it was there.
    pub(crate) fn set_group(&mut self, name: &str, group: u32) -> io::Result<bool> {
        let mut link = LinkMessage::default();
        link.attributes = vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::Group(group)];
        match self.request(RouteNetlinkMessage::SetLink(link), 0) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes all interfaces of a group at once.
    pub(crate) fn remove_group(&mut self, group: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.attributes = vec![LinkAttribute::Group(group)];
        self.request(RouteNetlinkMessage::DelLink(link), 0)
    }

    /// The interface with this name.
    pub(crate) fn interface(&mut self, name: &str) -> io::Result<Option<Interface>> {
        let mut link = LinkMessage::default();
        link.attributes = vec![LinkAttribute::IfName(name.to_owned())];
        match self.exchange(RouteNetlinkMessage::GetLink(link), 0) {
            Ok(answers) => Ok(answers.into_iter().find_map(interface)),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The interface with an index.
    pub(crate) fn interface_at(&mut self, index: u32) -> io::Result<Option<Interface>> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        match self.exchange(RouteNetlinkMessage::GetLink(link), 0) {
            Ok(answers) => Ok(answers.into_iter().find_map(interface)),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All interfaces.
    pub(crate) fn interfaces(&mut self) -> io::Result<Vec<Interface>> {
        let mut link = LinkMessage::default();
        // Counters are most of an answer, and most of its time.
        link.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
        let answers = self.exchange(RouteNetlinkMessage::GetLink(link), NLM_F_DUMP)?;
        Ok(answers.into_iter().filter_map(interface).collect())
    }

    /// Index of the interface that has an address.
    pub(crate) fn address_owner(&mut self, address: IpAddr) -> io::Result<Option<u32>> {
        let answers =
            self.exchange(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP)?;
        Ok(answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(message) => {
                let own = |attribute: &AddressAttribute| match attribute {
                    AddressAttribute::Local(local) | AddressAttribute::Address(local) => *local == address,
                    _ => false,
                };
                message.attributes.iter().any(own).then_some(message.header.index)
            }
            _ => None,
        }))
    }

    /// Gives an interface an address without a subnet.
    pub(crate) fn add_address(&mut self, index: u32, address: Ipv4Addr) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = 32;
        message.header.scope = AddressScope::Universe;
        message.header.index = index;
        message.attributes =
            vec![AddressAttribute::Local(address.into()), AddressAttribute::Address(address.into())];
        self.request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Adds or replaces a route.
    pub(crate) fn set_route(&mut self, route: &Route) -> io::Result<()> {
        self.request(RouteNetlinkMessage::NewRoute(route.message()), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Removes a route; that it is not there does not matter.
    pub(crate) fn remove_route(&mut self, route: &Route) -> io::Result<()> {
        match self.request(RouteNetlinkMessage::DelRoute(route.message()), 0) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other,
        }
    }

    /// Destinations of our routes over an interface.
    pub(crate) fn our_routes(&mut self, ifindex: u32) -> io::Result<Vec<(Ipv4Addr, u8)>> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        let answers = self.exchange(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP)?;
        Ok(answers.into_iter().filter_map(|answer| our_route(answer, ifindex)).collect())
    }

    /// Tells the kernel that nobody has the addresses of a range for which it has no better route.
    pub(crate) fn set_unreachable(&mut self, net: Ipv4Net) -> io::Result<()> {
        self.request(RouteNetlinkMessage::NewRoute(unreachable(net)), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Removes a route of [`Netlink::set_unreachable`]; that it is not there does not matter.
    pub(crate) fn remove_unreachable(&mut self, net: Ipv4Net) -> io::Result<()> {
        match self.request(RouteNetlinkMessage::DelRoute(unreachable(net)), 0) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other,
        }
    }

    /// Ranges of our routes of [`Netlink::set_unreachable`].
    pub(crate) fn our_unreachable(&mut self) -> io::Result<Vec<Ipv4Net>> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        let answers = self.exchange(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP)?;
        Ok(answers.into_iter().filter_map(our_unreachable).collect())
    }

    /// All routes to other hosts and networks, of all tables.
    pub(crate) fn kernel_routes(&mut self) -> io::Result<Vec<KernelRoute>> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        let answers = self.exchange(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP)?;
        Ok(answers.into_iter().filter_map(kernel_route).collect())
    }

    /// A socket that hears of changes of routes, next hops, rules and links.
    pub(crate) fn watch_routes() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        for group in
            [libc::RTNLGRP_IPV4_ROUTE, libc::RTNLGRP_IPV4_RULE, libc::RTNLGRP_NEXTHOP, libc::RTNLGRP_LINK]
        {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Takes all that a socket of [`Netlink::watch_routes`] heard; whether packets may travel another way now.
    pub(crate) fn drain_route_events(&self) -> io::Result<bool> {
        let mut changed = false;
        loop {
            match self.socket.recv_from_full() {
                Ok((datagram, _)) => changed |= tells_of_change(&datagram),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changed),
                // More than the socket holds: anything may have changed.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changed = true,
                Err(error) => return Err(error),
            }
        }
    }

    /// The way that the kernel would send a packet.
    pub(crate) fn way(&mut self, destination: Ipv4Addr) -> io::Result<Option<Way>> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = 32;
        message.attributes = vec![RouteAttribute::Destination(RouteAddress::Inet(destination))];
        let answers = match self.exchange(RouteNetlinkMessage::GetRoute(message), 0) {
            Ok(answers) => answers,
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EINVAL)
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        Ok(answers.into_iter().find_map(|answer| way(answer, destination)))
    }

    /// Pins a neighbour's MAC address.
    pub(crate) fn set_neighbour(&mut self, index: u32, address: Ipv4Addr, mac: [u8; 6]) -> io::Result<()> {
        let mut message = neighbour(index, address);
        message.header.state = NeighbourState::Permanent;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        self.request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Has the kernel look after a neighbour by itself (`NTF_EXT_MANAGED`, Linux 5.16), so that it is always resolved: our
    /// packets pass the stack, which else would ask anew for it after each idle time.
    pub(crate) fn manage_neighbour(&mut self, index: u32, address: Ipv4Addr) -> io::Result<()> {
        let mut message = neighbour(index, address);
        message.attributes.push(NeighbourAttribute::Protocol(RouteProtocol::from(ROUTE_PROTOCOL)));
        message.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
        self.request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Forgets a neighbour; the kernel asks for it again when it is needed.
    pub(crate) fn forget_neighbour(&mut self, index: u32, address: Ipv4Addr) -> io::Result<()> {
        self.request(RouteNetlinkMessage::DelNeighbour(neighbour(index, address)), 0)
    }

    /// Neighbours that the kernel looks after for us: interface, address.
    pub(crate) fn our_neighbours(&mut self) -> io::Result<Vec<(u32, Ipv4Addr)>> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        let answers = self.exchange(RouteNetlinkMessage::GetNeighbour(message), NLM_F_DUMP)?;
        Ok(answers.into_iter().filter_map(our_neighbour).collect())
    }

    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.exchange(message, flags | NLM_F_ACK).map(|_answers| ())
    }

    fn exchange(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            if self.read(&datagram, flags, &mut answers)? {
                return Ok(answers);
            }
        }
    }

    /// Takes the messages of one datagram; whether the exchange is over.
    fn read(&self, datagram: &[u8], flags: u16, answers: &mut Vec<RouteNetlinkMessage>) -> io::Result<bool> {
        let mut rest = datagram;
        while rest.len() >= 16 {
            let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            if length < 16 || length > rest.len() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "netlink message of a wrong length"));
            }
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&rest[..length])
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
            if message.header.sequence_number != self.sequence {
                continue;
            }
            match message.payload {
                NetlinkPayload::Error(error) => {
                    return error
                        .code
                        .map_or(Ok(true), |code| Err(io::Error::from_raw_os_error(-code.get())));
                }
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::InnerMessage(inner) => {
                    answers.push(inner);
                    if flags & (NLM_F_DUMP | NLM_F_ACK) == 0 {
                        return Ok(true);
                    }
                }
                _ => {}
            }
        }
        Ok(false)
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Both ends of a veth pair.
pub(crate) struct VethPair<'a> {
    pub(crate) host: &'a str,
    pub(crate) host_mac: [u8; 6],
    pub(crate) interface: &'a str,
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: u32,
    pub(crate) netns: BorrowedFd<'a>,
}

/// A route of ours in the main table.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) destination: Ipv4Addr,
    pub(crate) prefix_len: u8,
    pub(crate) ifindex: u32,
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) source: Option<Ipv4Addr>,
}

impl Route {
    fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = self.prefix_len;
        message.header.table = TABLE_MAIN;
        message.header.protocol = RouteProtocol::from(ROUTE_PROTOCOL);
        message.header.scope = if self.gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
        message.header.kind = RouteType::Unicast;
        if self.prefix_len > 0 {
            message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(self.destination)));
        }
        message.attributes.push(RouteAttribute::Oif(self.ifindex));
        if let Some(gateway) = self.gateway {
            message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
        }
        if let Some(source) = self.source {
            message.attributes.push(RouteAttribute::PrefSource(RouteAddress::Inet(source)));
        }
        message
    }
}

fn interface(answer: RouteNetlinkMessage) -> Option<Interface> {
    let RouteNetlinkMessage::NewLink(message) = answer else { return None };
    let mut interface = Interface {
        index: message.header.index,
        name: String::new(),
        mtu: 0,
        mac: None,
        up: message.header.flags.contains(LinkFlags::Up),
        vxlan: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name = name,
            LinkAttribute::Mtu(mtu) => interface.mtu = mtu,
            LinkAttribute::Address(mac) => interface.mac = mac.try_into().ok(),
            LinkAttribute::LinkInfo(infos) => interface.vxlan = infos.into_iter().find_map(vxlan),
            _ => {}
        }
    }
    Some(interface)
}

fn vxlan(info: LinkInfo) -> Option<(u16, bool)> {
    let LinkInfo::Data(InfoData::Vxlan(attributes)) = info else { return None };
    let mut found = (0, false);
    for attribute in attributes {
        match attribute {
            InfoVxlan::Port(port) => found.0 = port,
            InfoVxlan::CollectMetadata(collects) => found.1 = collects,
            _ => {}
        }
    }
    Some(found)
}

fn neighbour(index: u32, address: Ipv4Addr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = index;
    message.attributes = vec![NeighbourAttribute::Destination(NeighbourAddress::Inet(address))];
    message
}

fn our_neighbour(answer: RouteNetlinkMessage) -> Option<(u32, Ipv4Addr)> {
    let RouteNetlinkMessage::NewNeighbour(message) = answer else { return None };
    let ours = NeighbourAttribute::Protocol(RouteProtocol::from(ROUTE_PROTOCOL));
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(*address),
        _ => None,
    });
    message.attributes.contains(&ours).then_some((message.header.ifindex, address?))
}

fn our_route(answer: RouteNetlinkMessage, ifindex: u32) -> Option<(Ipv4Addr, u8)> {
    let RouteNetlinkMessage::NewRoute(message) = answer else { return None };
    if message.header.protocol != RouteProtocol::from(ROUTE_PROTOCOL) {
        return None;
    }
    let over =
        message.attributes.iter().any(|a| matches!(a, RouteAttribute::Oif(index) if *index == ifindex));
    let destination = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    });
    over.then_some((destination?, message.header.destination_prefix_length))
}

/// Whether a datagram of events has one that is neither about a route of ours nor about an address of this node.
fn tells_of_change(datagram: &[u8]) -> bool {
    let mut rest = datagram;
    while rest.len() >= 16 {
        let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        if length < 16 || length > rest.len() {
            return true;
        }
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&rest[..length]);
        let harmless = match message.map(|message| message.payload) {
            Ok(NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route),
            )) => {
                route.header.protocol == RouteProtocol::from(ROUTE_PROTOCOL)
                    || route.header.table == TABLE_LOCAL
            }
            Ok(NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link),
            )) => link.attributes.iter().any(
                |attribute| matches!(attribute, LinkAttribute::IfName(name) if name.starts_with(LINK_PREFIX)),
            ),
            _ => false,
        };
        if !harmless {
            return true;
        }
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    false
}

fn unreachable(net: Ipv4Net) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = net.prefix_len();
    message.header.table = TABLE_MAIN;
    message.header.protocol = RouteProtocol::from(ROUTE_PROTOCOL);
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unreachable;
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::Inet(net.network())),
        RouteAttribute::Priority(UNREACHABLE_METRIC),
    ];
    message
}

fn our_unreachable(answer: RouteNetlinkMessage) -> Option<Ipv4Net> {
    let RouteNetlinkMessage::NewRoute(message) = answer else { return None };
    let header = &message.header;
    if header.protocol != RouteProtocol::from(ROUTE_PROTOCOL) || header.kind != RouteType::Unreachable {
        return None;
    }
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => {
            Ipv4Net::new(*address, header.destination_prefix_length).ok()
        }
        _ => None,
    })
}

fn kernel_route(answer: RouteNetlinkMessage) -> Option<KernelRoute> {
    let RouteNetlinkMessage::NewRoute(message) = answer else { return None };
    if message.header.kind != RouteType::Unicast || message.header.table == TABLE_LOCAL {
        return None;
    }
    let mut route = KernelRoute {
        prefix: Ipv4Net::new(Ipv4Addr::UNSPECIFIED, 0).ok()?,
        ifindexes: BTreeSet::new(),
        has_gateway: false,
    };
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                route.prefix = Ipv4Net::new(address, message.header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Oif(ifindex) => {
                route.ifindexes.insert(ifindex);
            }
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => route.has_gateway = true,
            RouteAttribute::MultiPath(hops) => {
                let is_gateway =
                    |a: &RouteAttribute| matches!(a, RouteAttribute::Gateway(_) | RouteAttribute::Via(_));
                route.has_gateway |= hops.iter().any(|hop| hop.attributes.iter().any(is_gateway));
                route.ifindexes.extend(hops.iter().map(|hop| hop.interface_index));
            }
            _ => {}
        }
    }
    Some(route)
}

fn way(answer: RouteNetlinkMessage, destination: Ipv4Addr) -> Option<Way> {
    let RouteNetlinkMessage::NewRoute(message) = answer else { return None };
    let mut ifindex = None;
    let mut next_hop = destination;
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(index),
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => next_hop = gateway,
            _ => {}
        }
    }
    ifindex.map(|ifindex| Way { ifindex, next_hop })
}
