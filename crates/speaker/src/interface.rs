//! Neighbours that are known by an interface and not by an address ("BGP unnumbered").
//!
//! Everywhere in the speaker a neighbour is named by an IP address. One that is whoever is at the other end of a link is
//! named by an address that no neighbour can have: a multicast one, which holds the name of the interface, as that has at
//! most 15 bytes (`IFNAMSIZ` of `linux/if.h`). So the name outlives each address that the neighbour has there, and is
//! there before the first. It never leaves the process: outside, the interface's own name stands for it.

use rustix::net::netdevice::index_to_name;
use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
};

/// Bytes of an interface's name at most.
pub(crate) const NAME_BYTES_MAX: usize = 15;
/// The first byte of every multicast address (RFC 4291 section 2.7).
const MULTICAST: u8 = 0xff;

/// What names the neighbour on an interface; `None`: no interface can be called so.
pub fn neighbor_on(name: &str) -> Option<IpAddr> {
    // `dev_valid_name` of the kernel.
    let is_valid = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !matches!(name, "." | "..")
        && !name.bytes().any(|byte| byte == b'/' || byte == b':' || byte.is_ascii_whitespace() || byte == 0);
    let mut octets = [0; 16];
    let (first, rest) = octets.split_first_mut()?;
    *first = MULTICAST;
    rest.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
    is_valid.then(|| Ipv6Addr::from(octets).into())
}

/// The interface, if what is named is the neighbour on one.
pub fn of(neighbor: IpAddr) -> Option<String> {
    let IpAddr::V6(address) = neighbor else { return None };
    let octets = address.octets();
    let (&first, rest) = octets.split_first()?;
    let name = rest.split(|byte| *byte == 0).next().filter(|_| first == MULTICAST)?;
    String::from_utf8(name.to_vec()).ok()
}

/// How a neighbour is called outside: by its address, or by its interface.
pub fn shown(neighbor: IpAddr) -> String {
    of(neighbor).unwrap_or_else(|| neighbor.to_string())
}

/// Reads what a neighbour is called: an address, an interface, or the one on the other (`fe80::1%eth0`).
pub fn read(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return (!address.is_multicast()).then_some(address);
    }
    match text.split_once('%') {
        Some((address, name)) => address.parse::<Ipv6Addr>().ok().and_then(|_| neighbor_on(name)),
        None => neighbor_on(text),
    }
}

/// The neighbour on the interface by which something came from a link-local address.
pub(crate) fn came_by(socket: impl AsFd, from: SocketAddr) -> Option<IpAddr> {
    let SocketAddr::V6(from) = from else { return None };
    let index = Some(from.scope_id()).filter(|index| *index != 0)?;
    neighbor_on(&index_to_name(socket, index).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_a_neighbour_and_back() {
        for name in ["eth0", "swp1s0", "abcdefghijklmno", "ä"] {
            let neighbor = neighbor_on(name).unwrap();
            assert!(neighbor.is_multicast(), "nobody can have it");
            assert_eq!((of(neighbor).as_deref(), shown(neighbor).as_str()), (Some(name), name));
            assert_eq!(read(name), Some(neighbor));
            assert_eq!(read(&format!("fe80::1%{name}")), Some(neighbor));
        }
        for bad in ["", ".", "..", "a/b", "a b", "a:b", "abcdefghijklmnop"] {
            assert_eq!((neighbor_on(bad), read(bad)), (None, None), "{bad}");
        }
    }

    #[test]
    fn addresses_stay_what_they_are() {
        for text in ["192.0.2.1", "2001:db8::1", "fe80::1"] {
            let address = text.parse().unwrap();
            assert_eq!((read(text), of(address), shown(address).as_str()), (Some(address), None, text));
        }
        assert_eq!(read("ff65:7468::"), None, "names of ours are not taken from outside");
        assert_eq!(read("nonsense%eth0"), None);
    }
}
