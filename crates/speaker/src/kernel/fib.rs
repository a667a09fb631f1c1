//! Routes over rtnetlink: one socket for requests, one for what the kernel tells by itself.

use super::{
    KernelRoutes, Via,
    plan::{Event, Hop, Hops, Nowhere, Operation, Resolution, Route},
    worker::Fib,
};
use isthmus_bgp::Prefix;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop, RouteNextHopFlags,
        RouteProtocol, RouteScope, RouteType, RouteVia,
    },
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::io::Errno;
use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, BorrowedFd},
};

/// Groups of notifications (linux/rtnetlink.h): `RTNLGRP_LINK`, `RTNLGRP_IPV4_ROUTE`, `RTNLGRP_IPV6_ROUTE`.
const GROUPS: [u32; 3] = [1, 7, 11];
/// Room for notifications that were not read yet; beyond it, all routes are read again.
const EVENTS_BYTES_MAX: i32 = 4 << 20;
/// Notifications that are taken at once.
const EVENTS_AT_ONCE: usize = 4_096;
/// The table with the host's own addresses.
const TABLE_LOCAL: u32 = 255;
/// The table that is asked where no rule says otherwise.
const TABLE_MAIN: u32 = 254;

/// The kernel of the namespace in which this was opened.
#[derive(Debug)]
pub(super) struct Netlink {
    requests: Socket,
    events: Socket,
    /// Our address on netlink: notifications of what we did carry it.
    own_port: u32,
    sequence: u32,
    table: u32,
    protocol: u8,
    /// Routes that are not ours, read where one of ours hides what is under it. Only for what is asked in a row.
    others: Option<Vec<Found>>,
}

/// A route as a message says it.
#[derive(Clone, Debug)]
struct Found {
    prefix: Prefix,
    table: u32,
    protocol: u8,
    metric: u32,
    kind: RouteType,
    hops: Hops,
}

impl Netlink {
    pub(super) fn open(settings: &KernelRoutes) -> io::Result<Self> {
        let mut events = Socket::new(NETLINK_ROUTE)?;
        events.bind_auto()?;
        events.set_non_blocking(true)?;
        // A smaller buffer only means that all is read again more often.
        let _ = events.set_rx_buf_sz(EVENTS_BYTES_MAX);
        for group in GROUPS {
            events.add_membership(group)?;
        }
        let mut requests = Socket::new(NETLINK_ROUTE)?;
        let own_port = requests.bind_auto()?.port_number();
        requests.connect(&SocketAddr::new(0, 0))?;
        requests.set_cap_ack(true)?;
        // Before Linux 4.20 a dump has routes of others too, which are passed over.
        let _ = requests.set_netlink_get_strict_chk(true);
        let (table, protocol) = (settings.table, settings.protocol);
        Ok(Self { requests, events, own_port, sequence: 0, table, protocol, others: None })
    }

    fn message(&mut self, message: RouteNetlinkMessage, flags: u16, bytes: &mut Vec<u8>) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(message));
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let start = bytes.len();
        bytes.resize(start + request.buffer_len().next_multiple_of(4), 0);
        request.serialize(&mut bytes[start..]);
    }

    /// Asks, and gives each message of the answer to `take`.
    fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        mut take: impl FnMut(RouteMessage),
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        self.message(message, flags, &mut bytes);
        self.requests.send(&bytes, 0)?;
        loop {
            let (datagram, _) = self.requests.recv_from_full()?;
            for message in messages(&datagram) {
                let message = message?;
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Error(error) => {
                        return error
                            .code
                            .map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(-code.get())));
                    }
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => {
                        take(route);
                        if flags & NLM_F_DUMP == 0 {
                            return Ok(());
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// Routes of a table. With a protocol, those of it.
    fn dump(&mut self, family: AddressFamily, table: u32, protocol: Option<u8>) -> io::Result<Vec<Found>> {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.protocol = RouteProtocol::from(protocol.unwrap_or_default());
        message.attributes.push(RouteAttribute::Table(table));
        let mut found = Vec::new();
        let asked = self.ask(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP, |route| {
            let route = (route.header.address_family == family).then(|| Found::of(&route)).flatten();
            found.extend(route.filter(|route| {
                route.table == table && protocol.is_none_or(|protocol| route.protocol == protocol)
            }));
        });
        match asked {
            // The table is made with its first route.
            Err(why) if why.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(Vec::new()),
            asked => asked.map(|()| found),
        }
    }

    /// What leads to an address if our own routes are left out.
    fn resolve_under_ours(&mut self, next_hop: IpAddr) -> io::Result<Resolution> {
        if self.others.is_none() {
            let mut others = Vec::new();
            let tables = BTreeSet::from([TABLE_MAIN, self.table]);
            for family in [AddressFamily::Inet, AddressFamily::Inet6] {
                for table in &tables {
                    others.extend(self.dump(family, *table, None)?);
                }
            }
            others.retain(|route| !(route.table == self.table && route.protocol == self.protocol));
            self.others = Some(others);
        }
        let Some(host) = host(next_hop) else { return Ok(Resolution::Nowhere(Nowhere::OverOurs)) };
        let leads = self.others.iter().flatten().filter(|route| route.prefix.contains(&host));
        let best = leads.min_by_key(|route| (std::cmp::Reverse(route.prefix.len()), route.metric));
        Ok(best.map_or(Resolution::Nowhere(Nowhere::OverOurs), |route| route.resolve(next_hop)))
    }

    fn route_message(&self, prefix: Prefix, metric: u32) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = family_of(prefix.address());
        message.header.destination_prefix_length = prefix.len();
        message.header.table = u8::try_from(self.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
        message.header.protocol = RouteProtocol::from(self.protocol);
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        if prefix.len() > 0 {
            message.attributes.push(RouteAttribute::Destination(prefix.address().into()));
        }
        message.attributes.push(RouteAttribute::Table(self.table));
        message.attributes.push(RouteAttribute::Priority(metric));
        message
    }

    fn full_message(&self, route: &Route) -> RouteMessage {
        let mut message = self.route_message(route.prefix, route.metric);
        let is_v4 = route.prefix.address().is_ipv4();
        if let [hop] = *route.hops {
            if hop.onlink {
                message.header.flags = RouteFlags::Onlink;
            }
            message.attributes.push(RouteAttribute::Oif(hop.ifindex));
            message.attributes.extend(gateway(&hop, is_v4));
        } else {
            let next_hops = route.hops.iter().map(|hop| {
                let mut next_hop = RouteNextHop::default();
                if hop.onlink {
                    next_hop.flags = RouteNextHopFlags::Onlink;
                }
                next_hop.interface_index = hop.ifindex;
                next_hop.attributes = gateway(hop, is_v4).into_iter().collect();
                next_hop
            });
            message.attributes.push(RouteAttribute::MultiPath(next_hops.collect()));
        }
        message
    }
}

impl Fib for Netlink {
    fn routes(&mut self) -> io::Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            routes.extend(self.dump(family, self.table, Some(self.protocol))?);
        }
        let route = |found: Found| Route { prefix: found.prefix, metric: found.metric, hops: found.hops };
        Ok(routes.into_iter().map(route).collect())
    }

    fn apply(&mut self, operations: &[Operation]) -> io::Result<Vec<io::Result<()>>> {
        self.others = None;
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        for operation in operations {
            let (message, flags) = match operation {
                Operation::Add(route) => (self.full_message(route), NLM_F_CREATE | NLM_F_EXCL),
                Operation::Replace(route) => (self.full_message(route), NLM_F_REPLACE),
                Operation::Remove { prefix, metric } => (self.route_message(*prefix, *metric), 0),
            };
            let message = match operation {
                Operation::Remove { .. } => RouteNetlinkMessage::DelRoute(message),
                _ => RouteNetlinkMessage::NewRoute(message),
            };
            self.message(message, flags | NLM_F_ACK, &mut bytes);
        }
        self.requests.send(&bytes, 0)?;
        let mut results: Vec<Option<io::Result<()>>> = operations.iter().map(|_| None).collect();
        let mut missing = results.len();
        while missing > 0 {
            let (datagram, _) = self.requests.recv_from_full()?;
            for message in messages(&datagram) {
                let message = message?;
                let place = message.header.sequence_number.wrapping_sub(first) as usize;
                let NetlinkPayload::Error(error) = message.payload else { continue };
                let Some(place @ None) = results.get_mut(place) else { continue };
                *place =
                    Some(error.code.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(-code.get()))));
                missing -= 1;
            }
        }
        Ok(results.into_iter().flatten().collect())
    }

    fn resolve(&mut self, next_hop: Via) -> io::Result<Resolution> {
        let Via { address: next_hop, link } = next_hop;
        if link != 0 {
            // It is on this link and nowhere else; no route says so.
            let hop = Hop { gateway: Some(next_hop), ifindex: link, onlink: false };
            return Ok(Resolution::Hops([hop].into()));
        }
        let mut message = RouteMessage::default();
        message.header.address_family = family_of(next_hop);
        message.header.destination_prefix_length = if next_hop.is_ipv4() { 32 } else { 128 };
        // The route that matches, not what one packet would do: so all ways of a multipath route are seen.
        message.header.flags = RouteFlags::FibMatch;
        if next_hop.is_ipv4() {
            // IPv6 always says the table, and refuses to be asked for it.
            message.header.flags |= RouteFlags::LookupTable;
        }
        message.attributes.push(RouteAttribute::Destination(next_hop.into()));
        let mut found = None;
        match self.ask(RouteNetlinkMessage::GetRoute(message), 0, |route| found = Found::of(&route)) {
            Ok(()) => {}
            Err(why) if leads_nowhere(&why) => return Ok(Resolution::Nowhere(Nowhere::NoRoute)),
            Err(why) => return Err(why),
        }
        let Some(found) = found else { return Ok(Resolution::Nowhere(Nowhere::NoRoute)) };
        if found.table == self.table && found.protocol == self.protocol {
            return self.resolve_under_ours(next_hop);
        }
        Ok(found.resolve(next_hop))
    }

    fn events(&mut self) -> io::Result<Vec<Event>> {
        self.others = None;
        let mut events = Vec::new();
        while events.len() < EVENTS_AT_ONCE {
            let datagram = match self.events.recv_from_full() {
                Ok((datagram, _)) => datagram,
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => break,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
                Err(why) => return Err(why),
            };
            for message in messages(&datagram) {
                let message = message?;
                if message.header.port_number == self.own_port {
                    continue;
                }
                if let NetlinkPayload::InnerMessage(inner) = message.payload {
                    events.extend(self.event(inner));
                }
            }
        }
        Ok(events)
    }

    fn wakes(&self) -> Option<BorrowedFd<'_>> {
        Some(self.events.as_fd())
    }
}

impl Netlink {
    fn event(&self, message: RouteNetlinkMessage) -> Option<Event> {
        let (route, is_present) = match message {
            RouteNetlinkMessage::NewRoute(route) => (route, true),
            RouteNetlinkMessage::DelRoute(route) => (route, false),
            RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
                return Some(Event::Link(link.header.index));
            }
            _ => return None,
        };
        let found = Found::of(&route)?;
        let (prefix, metric) = (found.prefix, found.metric);
        let is_in_table = found.table == self.table;
        if is_in_table && found.protocol == self.protocol {
            return Some(Event::Ours { prefix, metric, hops: is_present.then_some(found.hops) });
        }
        Some(Event::Foreign { prefix, metric, is_present, is_in_table })
    }
}

impl Found {
    /// `None` for what is no route of a table, such as one from the cache.
    fn of(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        if header.flags.contains(RouteFlags::Cloned) {
            return None;
        }
        let any: IpAddr = match header.address_family {
            AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
            AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        let (mut destination, mut table, mut metric) = (any, u32::from(header.table), 0);
        let mut single = Hop { gateway: None, ifindex: 0, onlink: header.flags.contains(RouteFlags::Onlink) };
        let mut hops = BTreeSet::new();
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(found) => destination = address(found)?,
                RouteAttribute::Table(found) => table = *found,
                RouteAttribute::Priority(found) => metric = *found,
                RouteAttribute::Oif(ifindex) => single.ifindex = *ifindex,
                RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => single.gateway = via(attribute),
                RouteAttribute::MultiPath(found) => hops.extend(found.iter().map(|next_hop| Hop {
                    gateway: next_hop.attributes.iter().find_map(via),
                    ifindex: next_hop.interface_index,
                    onlink: next_hop.flags.contains(RouteNextHopFlags::Onlink),
                })),
                _ => {}
            }
        }
        if hops.is_empty() && single.ifindex != 0 {
            hops.insert(single);
        }
        Some(Self {
            prefix: Prefix::new(destination, header.destination_prefix_length)?,
            table,
            protocol: header.protocol.into(),
            metric,
            kind: header.kind,
            hops: hops.into_iter().collect(),
        })
    }

    /// The neighbours that lead to `next_hop`, if this is the route to it.
    fn resolve(&self, next_hop: IpAddr) -> Resolution {
        match self.kind {
            RouteType::Unicast if !self.hops.is_empty() => {
                let neighbor = |hop: &Hop| Hop { gateway: Some(hop.gateway.unwrap_or(next_hop)), ..*hop };
                let hops: BTreeSet<Hop> = self.hops.iter().map(neighbor).collect();
                Resolution::Hops(hops.into_iter().collect())
            }
            RouteType::Local => Resolution::Nowhere(Nowhere::Own),
            _ if self.table == TABLE_LOCAL => Resolution::Nowhere(Nowhere::Own),
            _ => Resolution::Nowhere(Nowhere::NoRoute),
        }
    }
}

/// The messages of a datagram.
pub(crate) fn messages(
    datagram: &[u8],
) -> impl Iterator<Item = io::Result<NetlinkMessage<RouteNetlinkMessage>>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
        let Some(bytes) = rest.get(..length).filter(|_| length >= 16) else {
            rest = &[];
            return Some(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "netlink message of a wrong length",
            )));
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        let message = NetlinkMessage::deserialize(bytes);
        Some(message.map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why.to_string())))
    })
}

/// What the kernel answers where a look-up finds no way.
fn leads_nowhere(why: &io::Error) -> bool {
    let errno = why.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        errno,
        Some(Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::INVAL | Errno::ACCESS | Errno::NETDOWN)
    )
}

fn family_of(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn host(address: IpAddr) -> Option<Prefix> {
    Prefix::new(address, if address.is_ipv4() { 32 } else { 128 })
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn via(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(gateway) => address(gateway),
        RouteAttribute::Via(RouteVia::Inet(gateway)) => Some((*gateway).into()),
        RouteAttribute::Via(RouteVia::Inet6(gateway)) => Some((*gateway).into()),
        _ => None,
    }
}

/// The gateway of a route to IPv4 or IPv6. An IPv4 route over an IPv6 neighbour (RFC 8950) has a form of its own.
fn gateway(hop: &Hop, is_v4: bool) -> Option<RouteAttribute> {
    Some(match hop.gateway? {
        IpAddr::V6(gateway) if is_v4 => RouteAttribute::Via(RouteVia::Inet6(gateway)),
        gateway => RouteAttribute::Gateway(gateway.into()),
    })
}
