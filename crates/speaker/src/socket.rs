//! TCP as BGP wants it: where to listen, from where to connect, how far packets may go.

use crate::{
    config::{Distance, PeerSettings},
    listeners::{md5_hint, ttl_min},
    sys,
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
};
use tokio::net::{TcpSocket, TcpStream};

/// Connections that may wait to be accepted: all clients of a reflector come back at once after its restart.
pub(crate) const BACKLOG: i32 = 4_096;
/// Class selector 6, network control (RFC 4271 does not say, RFC 4594 section 3.1 does).
const TOS: u32 = 0xc0;
/// The TTL that only reaches as far as its rest says (RFC 5082 section 3).
const TTL_MAX: u32 = 255;

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for BGP{}", hint(.source))]
pub struct ListenError {
    /// Which.
    pub address: SocketAddr,
    /// Why.
    #[source]
    pub source: io::Error,
}

fn hint(why: &io::Error) -> &'static str {
    match why.kind() {
        io::ErrorKind::PermissionDenied => ": ports below 1024 need root or CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrInUse => ": another BGP speaker runs there",
        io::ErrorKind::AddrNotAvailable => ": no interface has it",
        _ => "",
    }
}

/// A socket that is bound to an address and does not listen yet. IPv6 takes IPv6 alone, so that both families can have
/// theirs.
pub(crate) fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // The answer to a SYN comes from here, before it is known what its sender wants: one that checks TTLs takes it.
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_unicast_hops_v6(TTL_MAX)?;
    } else {
        socket.set_ttl_v4(TTL_MAX)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Opens a connection to a neighbour. To a link-local address, the scope says on which link.
pub(crate) async fn connect(target: SocketAddr, settings: &PeerSettings) -> io::Result<TcpStream> {
    let transport = &settings.transport;
    let peer = target.ip();
    let socket = if peer.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    let raw = SockRef::from(&socket);
    if let Some(interface) = &transport.bind_interface {
        raw.bind_device(Some(interface.as_bytes()))?;
    }
    if let Some(mss) = transport.tcp_mss {
        raw.set_tcp_mss(u32::from(mss))?;
    }
    tune(&raw, peer, settings)?;
    secure(socket.as_fd(), peer, settings)?;
    if transport.local_address.is_some() || transport.local_port != 0 {
        let any = if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(transport.local_address.unwrap_or(any), transport.local_port))?;
    }
    let stream = socket.connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sets for an accepted connection what [`connect`] sets before.
pub(crate) fn tune_accepted(stream: &TcpStream, peer: IpAddr, settings: &PeerSettings) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // A listener that others use too requires no more than all of them do.
    secure(stream.as_fd(), peer, settings)?;
    tune(&SockRef::from(stream), peer, settings)
}

/// Has the kernel drop what is not signed with the password (RFC 2385), and what comes from too far (RFC 5082).
fn secure(socket: BorrowedFd<'_>, peer: IpAddr, settings: &PeerSettings) -> io::Result<()> {
    if let Some(password) = &settings.password {
        sys::set_md5_key(socket, peer.into(), &password.0).map_err(|why| {
            io::Error::new(why.kind(), format!("no password can be set: {why} {}", md5_hint(&why)))
        })?;
    }
    match ttl_min(settings) {
        0 => Ok(()),
        ttl_min => sys::set_ttl_min(socket, peer.is_ipv4(), ttl_min),
    }
}

fn tune(socket: &SockRef<'_>, peer: IpAddr, settings: &PeerSettings) -> io::Result<()> {
    if peer.is_ipv4() {
        socket.set_tos_v4(TOS)?;
    } else {
        socket.set_tclass_v6(TOS)?;
    }
    let Some(ttl) = ttl(settings) else { return Ok(()) };
    if peer.is_ipv4() {
        socket.set_ttl_v4(u32::from(ttl))
    } else {
        socket.set_unicast_hops_v6(u32::from(ttl))
    }
}

/// The TTL of what we send; `None`: the kernel's.
fn ttl(settings: &PeerSettings) -> Option<u8> {
    let is_external = !settings.is_internal() && settings.peer_as.is_some();
    match settings.distance {
        Distance::Secured { .. } => Some(TTL_MAX as u8),
        Distance::Hops(hops) if is_external => Some(hops),
        // External neighbours are on the link unless somebody says otherwise.
        _ => settings.transport.ttl.or(is_external.then_some(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn settings(peer_as: u32, rest: &str) -> PeerSettings {
        let text = format!(
            "[global.config]\nas = 64512\nrouter-id = \"192.0.2.1\"\n[[neighbors]]\n[neighbors.config]\nneighbor-address = \"127.0.0.1\"\npeer-as = {peer_as}\n{rest}"
        );
        Config::from_toml(&text, "f").unwrap().neighbors.into_values().next().unwrap()
    }

    #[test]
    fn the_ttl_is_that_of_the_distance() {
        for (peer_as, rest, expected) in [
            (64_512, "", None),
            (65_001, "", Some(1)),
            (0, "", None),
            (65_001, "[neighbors.ebgp-multihop.config]\nenabled = true\nmultihop-ttl = 4\n", Some(4)),
            (64_512, "[neighbors.ebgp-multihop.config]\nenabled = true\nmultihop-ttl = 4\n", None),
            (64_512, "[neighbors.ttl-security.config]\nenabled = true\n", Some(255)),
            (65_001, "[neighbors.transport.config]\nttl = 9\n", Some(9)),
        ] {
            assert_eq!(ttl(&settings(peer_as, rest)), expected, "{peer_as} {rest}");
        }
    }

    #[tokio::test]
    async fn both_ends_of_a_connection_have_what_is_set() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        listener.listen(BACKLOG).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener.into()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let settings = settings(65_001, &format!("[neighbors.transport.config]\nremote-port = {port}\n"));
        let connected = connect(SocketAddr::new("127.0.0.1".parse().unwrap(), port), &settings);
        let (connected, accepted) = tokio::join!(connected, listener.accept());
        let (connected, (accepted, from)) = (connected.unwrap(), accepted.unwrap());
        tune_accepted(&accepted, from.ip(), &settings).unwrap();
        for stream in [&connected, &accepted] {
            assert_eq!(SockRef::from(stream).ttl_v4().unwrap(), 1);
            assert_eq!(SockRef::from(stream).tos_v4().unwrap(), TOS);
            assert!(stream.nodelay().unwrap());
        }
    }
}
