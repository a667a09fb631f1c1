//! What we put on a host besides maps and links, and what we must know of it.

use crate::{
    error::{ApplyError, OpenError},
    model::{CONTAINER_MTU_MIN, GATEWAY_MAC, OVERHEAD_IPV4},
    netlink::{Interface, Netlink},
};
use isthmus_dataplane_common::{Address, mapped};
use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

/// First letters of the names of our interfaces.
pub(crate) const LINK_PREFIX: &str = "ist";
/// Name of the VXLAN device.
pub(crate) const VXLAN_DEVICE: &str = "ist-vxlan";

/// An address as the programs see it.
pub(crate) fn mapped_address(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => mapped(u32::from_ne_bytes(address.octets())),
        IpAddr::V6(address) => {
            let octets = address.octets();
            std::array::from_fn(|word| {
                u32::from_ne_bytes([
                    octets[word * 4],
                    octets[word * 4 + 1],
                    octets[word * 4 + 2],
                    octets[word * 4 + 3],
                ])
            })
        }
    }
}

/// The reverse of [`mapped_address`].
pub(crate) fn unmapped_address(address: Address) -> IpAddr {
    let mut octets = [0; 16];
    for (word, bytes) in address.iter().zip(octets.chunks_exact_mut(4)) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    std::net::Ipv6Addr::from(octets).to_canonical()
}

/// Mounts the BPF file system if it is missing.
pub(crate) fn mount_bpffs(bpffs: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::Bpffs { path: bpffs.to_owned(), source };
    let root = bpffs.ancestors().find(|path| path.ends_with("sys/fs/bpf")).unwrap_or(bpffs);
    let mounts = fs::read_to_string("/proc/self/mounts").map_err(failed)?;
    let mounted = mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == root.to_str() && fields.next() == Some("bpf")
    });
    if !mounted {
        let flags = rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NODEV;
        rustix::mount::mount("bpf", root, "bpf", flags, None).map_err(|error| failed(error.into()))?;
    }
    Ok(())
}

/// The interface that has the tunnel's address.
pub(crate) fn uplink(netlink: &mut Netlink, address: Ipv4Addr) -> Result<Interface, OpenError> {
    let owner = netlink.address_owner(address.into()).map_err(ApplyError::of("list the node's addresses"))?;
    let uplink = match owner {
        Some(index) => netlink.interface_at(index).map_err(ApplyError::of("look at the node's interface"))?,
        None => None,
    };
    uplink.ok_or(OpenError::NoUplink { address: address.into() })
}

/// MTU of containers, by the uplink and what was asked for.
pub(crate) fn container_mtu(uplink: &Interface, asked: Option<u32>) -> Result<u32, OpenError> {
    let largest = uplink.mtu.saturating_sub(OVERHEAD_IPV4).min(u32::from(u16::MAX) - OVERHEAD_IPV4);
    if largest < CONTAINER_MTU_MIN {
        return Err(OpenError::Mtu {
            interface: uplink.name.clone(),
            mtu: uplink.mtu,
            overhead: OVERHEAD_IPV4,
            needed: CONTAINER_MTU_MIN,
        });
    }
    match asked {
        Some(asked) if asked > largest || asked < CONTAINER_MTU_MIN => {
            Err(OpenError::MtuAsked { asked, interface: uplink.name.clone(), largest })
        }
        Some(asked) => Ok(asked),
        None => Ok(largest),
    }
}

/// The VXLAN device, made or found. One with another port is made anew.
pub(crate) fn vxlan_device(netlink: &mut Netlink, port: u16, mtu: u32) -> Result<u32, OpenError> {
    let failed =
        |source| OpenError::Apply(ApplyError { what: format!("make the device {VXLAN_DEVICE}"), source });
    if let Some(device) = netlink.interface(VXLAN_DEVICE).map_err(failed)? {
        if device.vxlan == Some((port, true)) && device.mac == Some(GATEWAY_MAC) && device.up {
            if device.mtu != mtu {
                netlink.set_mtu(device.index, mtu).map_err(failed)?;
            }
            return Ok(device.index);
        }
        netlink.remove_link(VXLAN_DEVICE).map_err(failed)?;
    }
    match make_vxlan(netlink, port, mtu).map_err(|error| error.source) {
        Ok(()) => {}
        Err(error) if matches!(error.raw_os_error(), Some(libc::EADDRINUSE | libc::EEXIST)) => {
            let _ = netlink.remove_link(VXLAN_DEVICE);
            return Err(OpenError::PortTaken { port, owner: port_owner(netlink, port) });
        }
        Err(error) => return Err(failed(error)),
    }
    let device = netlink.interface(VXLAN_DEVICE).map_err(failed)?;
    device.map(|device| device.index).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
}

fn make_vxlan(netlink: &mut Netlink, port: u16, mtu: u32) -> Result<(), ApplyError> {
    let failed = |source| ApplyError { what: format!("make the device {VXLAN_DEVICE}"), source };
    netlink.add_vxlan(VXLAN_DEVICE, port, GATEWAY_MAC, mtu).map_err(failed)?;
    settle_interface(VXLAN_DEVICE)?;
    let device = netlink.interface(VXLAN_DEVICE).map_err(failed)?;
    // The device takes its port when it comes up.
    device.map_or(Ok(()), |device| netlink.set_up(device.index)).map_err(failed)
}

/// Who has a UDP port: a VXLAN device, or a process.
fn port_owner(netlink: &mut Netlink, port: u16) -> String {
    let devices = netlink.interfaces().unwrap_or_default();
    let device = devices.into_iter().find(|device| device.vxlan.is_some_and(|(theirs, _)| theirs == port));
    match device {
        Some(device) => format!("the VXLAN device {}", device.name),
        None if has_udp_socket(port) => "a process (see `ss -ulpn`)".to_owned(),
        None => "a VXLAN device that was moved to another network namespace".to_owned(),
    }
}

fn has_udp_socket(port: u16) -> bool {
    let wanted = format!(":{port:04X}");
    ["/proc/net/udp", "/proc/net/udp6"].iter().any(|path| {
        let sockets = fs::read_to_string(path).unwrap_or_default();
        // A kernel tunnel's socket has inode 0.
        sockets.lines().skip(1).any(|line| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            let local = fields.next().is_some_and(|local| local.ends_with(&wanted));
            local && fields.nth(7).is_some_and(|inode| inode != "0")
        })
    })
}

/// Lets the node forward; the one global setting.
pub(crate) fn enable_forwarding() -> Result<(), ApplyError> {
    set_sysctl("net/ipv4/ip_forward", "1")
}

/// Settings of one interface that may differ from the host's defaults; before it comes up.
pub(crate) fn settle_interface(interface: &str) -> Result<(), ApplyError> {
    // No link-local address, hence no router solicitation, on interfaces that carry no IPv6. Kernels without IPv6 lack it.
    if Path::new("/proc/sys/net/ipv6").exists() {
        set_sysctl(&format!("net/ipv6/conf/{interface}/addr_gen_mode"), "1")?;
    }
    // `route_localnet` lets answers of mapped ports back to the node's 127.0.0.1; what a container itself sends to a
    // loopback address never gets past its program.
    let settings =
        [("forwarding", "1"), ("rp_filter", "2"), ("send_redirects", "0"), ("route_localnet", "1")];
    for (key, value) in settings {
        set_sysctl(&format!("net/ipv4/conf/{interface}/{key}"), value)?;
    }
    Ok(())
}

fn set_sysctl(key: &str, value: &str) -> Result<(), ApplyError> {
    let path = Path::new("/proc/sys").join(key);
    if fs::read_to_string(&path).is_ok_and(|present| present.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value).map_err(ApplyError::of(format!("set the sysctl {key} to {value}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(mtu: u32) -> Interface {
        Interface { index: 1, name: "eth0".into(), mtu, mac: None, up: true, vxlan: None }
    }

    #[test]
    fn addresses_map_both_ways() {
        for text in ["192.0.2.1", "2001:db8::1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(unmapped_address(mapped_address(address)), address);
        }
    }

    #[test]
    fn containers_get_what_the_overlay_leaves() {
        assert_eq!(container_mtu(&interface(1500), None).unwrap(), 1450);
        assert_eq!(container_mtu(&interface(9000), Some(1400)).unwrap(), 1400);
    }

    #[test]
    fn an_mtu_that_cannot_carry_the_overlay_is_refused() {
        assert!(matches!(container_mtu(&interface(600), None), Err(OpenError::Mtu { mtu: 600, .. })));
        assert!(matches!(
            container_mtu(&interface(1500), Some(1451)),
            Err(OpenError::MtuAsked { largest: 1450, .. })
        ));
    }
}
