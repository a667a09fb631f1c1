//! A container's link: the veth pair, its programs, its place in the maps, its routes.
//!
//! Order at attach: pair, programs, maps, then up. Nothing is delivered to a veth whose program is not attached, because
//! the address enters the maps after the programs. At detach the address leaves the maps first, the link last.

use crate::{
    error::{ApplyError, AttachError},
    host::{mapped_address, settle_interface, unmapped_address},
    model::{GATEWAY, GATEWAY_MAC, Link, LinkRequest},
    netlink::{Netlink, Route, VethPair},
    program::{Hook, Maps, Programs},
};
use isthmus_core::Identity;
use isthmus_dataplane_common::EndpointValue;
use std::{
    collections::HashMap,
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    thread,
};

/// What an attach needs beside the request.
pub(crate) struct Surroundings<'a> {
    pub(crate) maps: &'a Maps,
    pub(crate) programs: &'a Programs,
    pub(crate) tunnel_address: Ipv4Addr,
    pub(crate) mtu: u32,
    pub(crate) slot: u32,
    pub(crate) birth: u32,
}

/// Makes a container's link; on a failure nothing is left of it.
pub(crate) fn attach(
    surroundings: &Surroundings<'_>,
    netns: BorrowedFd<'_>,
    request: &LinkRequest,
) -> Result<Link, AttachError> {
    let IpAddr::V4(address) = request.address else {
        return Err(AttachError::Family { address: request.address });
    };
    check_namespace(netns)?;
    let mut host = Netlink::open().map_err(ApplyError::of("open rtnetlink"))?;
    let mut inside = netlink_in(netns).map_err(ApplyError::of("enter the container's network namespace"))?;
    let exists = inside.interface(&request.interface).map_err(ApplyError::of("look into the container"))?;
    if exists.is_some() {
        return Err(AttachError::InterfaceExists { interface: request.interface.clone() });
    }
    let mac = request.mac.unwrap_or_else(|| mac_of(address, surroundings.birth));
    let result = make(surroundings, &mut host, &mut inside, netns, request, address, mac);
    result.map_err(|error| {
        let programs = surroundings.programs;
        if forget(surroundings.maps, &request.host_interface, request.address).is_ok_and(|there| there) {
            let _ = host.remove_link(&request.host_interface);
        }
        programs.pins().forget(&request.host_interface);
        AttachError::Apply(error)
    })
}

fn make(
    surroundings: &Surroundings<'_>,
    host: &mut Netlink,
    inside: &mut Netlink,
    netns: BorrowedFd<'_>,
    request: &LinkRequest,
    address: Ipv4Addr,
    mac: [u8; 6],
) -> Result<Link, ApplyError> {
    let name = &request.host_interface;
    let failed = |what: &'static str| {
        let what = format!("{what} of {name}");
        move |source: io::Error| ApplyError { what, source }
    };
    let pair = VethPair {
        host: name,
        host_mac: GATEWAY_MAC,
        interface: &request.interface,
        mac,
        mtu: surroundings.mtu,
        netns,
    };
    host.add_veth(&pair).map_err(failed("make the pair"))?;
    let outer = host.interface(name).map_err(failed("find the host's side"))?;
    let outer = outer.ok_or_else(|| failed("find the host's side")(io::ErrorKind::NotFound.into()))?;
    let value = EndpointValue {
        address: mapped_address(request.address),
        identity: request.identity.number(),
        slot: surroundings.slot,
        host_ifindex: outer.index,
        birth: surroundings.birth,
        mac,
        flags: 0,
        reserved: [0; 2],
    };
    let maps = surroundings.maps;
    maps.endpoint_by_ifindex.set(&outer.index, &value).map_err(failed("enter the host's side"))?;
    for hook in [Hook::FromContainer, Hook::ToContainer] {
        surroundings.programs.attach(hook, name).map_err(failed("attach the programs"))?;
    }
    maps.endpoint_by_address.set(&value.address, &value).map_err(failed("enter the address"))?;
    settle_interface(name)?;
    configure_host(host, surroundings, outer.index, address, mac)
        .map_err(failed("configure the host's side"))?;
    configure_inside(inside, &request.interface, address)
        .map_err(failed("configure the container's side"))?;
    Ok(Link {
        host_interface: name.clone(),
        host_ifindex: outer.index,
        address: request.address,
        mac,
        identity: request.identity,
        whole: true,
    })
}

fn configure_host(
    host: &mut Netlink,
    surroundings: &Surroundings<'_>,
    index: u32,
    address: Ipv4Addr,
    mac: [u8; 6],
) -> io::Result<()> {
    host.set_up(index)?;
    let source = Some(surroundings.tunnel_address);
    host.set_route(&Route { destination: address, prefix_len: 32, ifindex: index, gateway: None, source })?;
    host.set_neighbour(index, address, mac)
}

fn configure_inside(inside: &mut Netlink, interface: &str, address: Ipv4Addr) -> io::Result<()> {
    let inner = inside.interface(interface)?.ok_or(io::ErrorKind::NotFound)?;
    inside.add_address(inner.index, address)?;
    inside.set_up(inner.index)?;
    // Without an address of its own subnet, the gateway is reached because this route says so.
    let route = |destination, prefix_len, gateway| Route {
        destination,
        prefix_len,
        ifindex: inner.index,
        gateway,
        source: None,
    };
    inside.set_route(&route(GATEWAY, 32, None))?;
    inside.set_route(&route(Ipv4Addr::UNSPECIFIED, 0, Some(GATEWAY)))
}

/// Forgets all that is known of a container's link, so that nothing goes through it any more; whether the link itself is
/// there to be removed.
pub(crate) fn forget(maps: &Maps, host_interface: &str, address: IpAddr) -> Result<bool, ApplyError> {
    let failed = |source: io::Error| ApplyError { what: format!("remove the link {host_interface}"), source };
    let mut netlink = Netlink::open().map_err(failed)?;
    let index = netlink.interface(host_interface).map_err(failed)?.map(|interface| interface.index);
    let key = mapped_address(address);
    // The address may belong to another link by now.
    let current = maps.endpoint_by_address.value(&key).map_err(failed)?;
    let mut stale = current.map(|value| value.host_ifindex);
    if let Some(value) = current {
        let foreign = index.is_some_and(|index| index != value.host_ifindex);
        if foreign {
            stale = None;
        } else {
            maps.endpoint_by_address.remove(&key).map_err(failed)?;
        }
    }
    // Without its value a link passes nothing: `from_container` drops what has no known sender.
    for index in index.into_iter().chain(stale) {
        maps.endpoint_by_ifindex.remove(&index).map_err(failed)?;
    }
    // Nor do its connections from here on.
    maps.begin_epoch().map_err(failed)?;
    Ok(index.is_some())
}

/// Gives an endpoint another identity.
pub(crate) fn set_identity(
    maps: &Maps,
    address: IpAddr,
    identity: Identity,
    slot: u32,
) -> Result<(), ApplyError> {
    let failed = |source: io::Error| ApplyError { what: format!("change the identity of {address}"), source };
    let key = mapped_address(address);
    let Some(value) = maps.endpoint_by_address.value(&key).map_err(failed)? else { return Ok(()) };
    let value = EndpointValue { identity: identity.number(), slot, ..value };
    maps.endpoint_by_ifindex.set(&value.host_ifindex, &value).map_err(failed)?;
    maps.endpoint_by_address.set(&key, &value).map_err(failed)?;
    maps.begin_epoch().map_err(failed)
}

/// The links that the kernel has, and whether each is whole.
pub(crate) fn observe(maps: &Maps, programs: &Programs, prefix: &str) -> Result<Vec<Link>, ApplyError> {
    let failed = |source: io::Error| ApplyError { what: "list the containers' links".into(), source };
    let mut netlink = Netlink::open().map_err(failed)?;
    let interfaces = netlink.interfaces().map_err(failed)?;
    let mut by_index: HashMap<u32, EndpointValue> =
        maps.endpoint_by_ifindex.entries().map_err(failed)?.into_iter().collect();
    let mut links = Vec::new();
    for interface in interfaces.iter().filter(|i| i.name.starts_with(prefix) && i.vxlan.is_none()) {
        let value = by_index.remove(&interface.index);
        let whole = value.is_some_and(|value| {
            let address = maps.endpoint_by_address.value(&value.address).ok().flatten();
            let attached = [Hook::FromContainer, Hook::ToContainer]
                .iter()
                .all(|hook| programs.attached(*hook, &interface.name));
            address == Some(value) && attached && interface.up
        });
        links.push(link(interface.name.clone(), interface.index, value, whole));
    }
    // What the maps know of interfaces that are gone.
    links.extend(by_index.into_iter().map(|(index, value)| link(String::new(), index, Some(value), false)));
    Ok(links)
}

fn link(host_interface: String, host_ifindex: u32, value: Option<EndpointValue>, whole: bool) -> Link {
    Link {
        host_interface,
        host_ifindex,
        address: value.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |value| unmapped_address(value.address)),
        mac: value.map_or([0; 6], |value| value.mac),
        identity: value.and_then(|value| Identity::new(value.identity).ok()).unwrap_or(Identity::NONE),
        whole,
    }
}

/// A container in the node's own namespace would share the node's interfaces.
fn check_namespace(netns: BorrowedFd<'_>) -> Result<(), AttachError> {
    let failed = ApplyError::of("look at the container's network namespace");
    let theirs =
        netns.try_clone_to_owned().map(File::from).and_then(|file| file.metadata()).map_err(failed)?;
    let ours = std::fs::metadata("/proc/thread-self/ns/net")
        .map_err(ApplyError::of("look at the node's namespace"))?;
    if (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()) {
        return Err(AttachError::OwnNamespace);
    }
    Ok(())
}

/// A socket in another namespace: made on a thread that is thrown away, because it cannot be trusted to come back.
fn netlink_in(netns: BorrowedFd<'_>) -> io::Result<Netlink> {
    let netns = netns.try_clone_to_owned()?;
    let opened = thread::Builder::new().name("netns".into()).spawn(move || {
        let kind = rustix::thread::LinkNameSpaceType::Network;
        rustix::thread::move_into_link_name_space(netns.as_fd(), Some(kind))?;
        Netlink::open()
    })?;
    opened.join().map_err(|_panic| io::Error::other("the thread that enters the namespace ended"))?
}

/// Locally administered, from the address; the birth keeps a reused address apart in neighbours' caches.
fn mac_of(address: Ipv4Addr, birth: u32) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02 | (birth as u8) << 2, a, b, c, d, 0x69]
}
