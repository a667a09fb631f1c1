//! The sockets that listen, and what a neighbour must have to get through: the password of TCP MD5 (RFC 2385), a TTL that
//! only near ones reach (RFC 5082).
//!
//! What is required follows from the configuration; what the kernel has is remembered with each socket, and the difference
//! is carried out at start, before the first connection can come, and on each reload.

use crate::{
    config::{Config, Distance, Password, PeerSettings},
    interface,
    socket::{self, ListenError},
    sys,
};
use ipnet::IpNet;
use socket2::Socket;
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};
use tokio::net::TcpListener;

/// What all neighbours together require of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Required {
    keys: BTreeMap<IpNet, Password>,
    ttl_min_v4: u8,
    ttl_min_v6: u8,
}

impl Required {
    /// What the neighbours of a configuration require. Those on interfaces count once their addresses are known.
    pub(crate) fn of(config: &Config, located: &BTreeMap<IpAddr, Ipv6Addr>) -> Self {
        let neighbors = config.neighbors.iter().filter_map(|(name, settings)| {
            let address = match interface::of(*name) {
                Some(_) => IpAddr::from(*located.get(name)?),
                None => *name,
            };
            Some((IpNet::from(address), settings))
        });
        let ranges = config.dynamic_neighbors.iter().map(|range| (range.prefix, &range.settings));
        let all: Vec<(IpNet, &PeerSettings)> = neighbors.chain(ranges).collect();
        let ttl_min = |is_ipv4: bool| {
            let family = all.iter().filter(|(peers, _)| peers.addr().is_ipv4() == is_ipv4);
            family.map(|(_, settings)| ttl_min(settings)).min().unwrap_or(0)
        };
        Self {
            ttl_min_v4: ttl_min(true),
            ttl_min_v6: ttl_min(false),
            keys: all
                .iter()
                .filter_map(|(peers, settings)| Some((*peers, settings.password.clone()?)))
                .collect(),
        }
    }
}

/// The lowest TTL with which packets of a neighbour are taken; zero: any.
pub(crate) fn ttl_min(settings: &PeerSettings) -> u8 {
    match settings.distance {
        Distance::Secured { ttl_min } => ttl_min,
        Distance::Usual | Distance::Hops(_) => 0,
    }
}

/// All sockets that listen for BGP.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    listeners: Vec<Listener>,
}

#[derive(Debug)]
struct Listener {
    address: SocketAddr,
    socket: Arc<TcpListener>,
    guard: Guard,
}

/// What the kernel was told for one socket.
#[derive(Debug, Default)]
struct Guard {
    keys: BTreeMap<IpNet, Password>,
    ttl_min: u8,
}

impl Listeners {
    /// Listens on all addresses; the first that cannot be had is the error, and then on none.
    pub(crate) fn open(addresses: &[SocketAddr], required: &Required) -> Result<Self, ListenError> {
        let listeners = addresses.iter().map(|address| Listener::open(*address, required));
        Ok(Self { listeners: listeners.collect::<Result<_, _>>()? })
    }

    /// The sockets, to accept from.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = Arc<TcpListener>> + '_ {
        self.listeners.iter().map(|listener| listener.socket.clone())
    }

    /// Requires something else from now on; what does not change is not touched.
    pub(crate) fn require(&mut self, required: &Required) {
        for listener in &mut self.listeners {
            listener.guard.require(listener.socket.as_fd(), listener.address, required);
        }
    }

    /// Whether connections of these neighbours come through no listener without this password.
    pub(crate) fn check_password(&self, peers: &IpNet, password: &Password) -> bool {
        let is_ipv4 = peers.addr().is_ipv4();
        let mut listeners = self.listeners.iter().filter(|listener| listener.address.is_ipv4() == is_ipv4);
        listeners.all(|listener| listener.guard.keys.get(peers) == Some(password))
    }
}

impl Listener {
    fn open(address: SocketAddr, required: &Required) -> Result<Self, ListenError> {
        let error = |source| ListenError { address, source };
        let socket = socket::bind(address).map_err(error)?;
        // Before it listens: no connection comes through without what is required.
        let mut guard = Guard::default();
        guard.require(socket.as_fd(), address, required);
        let listen = |socket: Socket| {
            socket.listen(socket::BACKLOG)?;
            TcpListener::from_std(socket.into())
        };
        Ok(Self { address, socket: Arc::new(listen(socket).map_err(error)?), guard })
    }
}

impl Guard {
    fn require(&mut self, socket: BorrowedFd<'_>, address: SocketAddr, required: &Required) {
        let is_ipv4 = address.is_ipv4();
        let wanted = |peers: &IpNet| required.keys.get(peers);
        let is_stale = |(peers, password): &(&IpNet, &Password)| wanted(peers) != Some(*password);
        let stale: Vec<IpNet> = self.keys.iter().filter(is_stale).map(|(peers, _)| *peers).collect();
        for peers in stale {
            self.keys.remove(&peers);
            // One that is replaced stays until it is: without any, the neighbour could come without a password.
            if wanted(&peers).is_none()
                && let Err(why) = sys::set_md5_key(socket, peers, "")
            {
                tracing::error!(%address, %peers, %why, "a password cannot be taken back: the neighbours stay locked out");
            }
        }
        for (peers, password) in &required.keys {
            if peers.addr().is_ipv4() != is_ipv4 || self.keys.contains_key(peers) {
                continue;
            }
            match sys::set_md5_key(socket, *peers, &password.0) {
                Ok(()) => drop(self.keys.insert(*peers, password.clone())),
                Err(why) => {
                    let hint = md5_hint(&why);
                    tracing::error!(%address, %peers, %why, hint, "a password cannot be set: connections of these neighbours are refused");
                }
            }
        }
        let ttl_min = if is_ipv4 { required.ttl_min_v4 } else { required.ttl_min_v6 };
        if ttl_min != self.ttl_min {
            match sys::set_ttl_min(socket, is_ipv4, ttl_min) {
                Ok(()) => self.ttl_min = ttl_min,
                // Each connection is still checked when it is accepted.
                Err(why) => {
                    tracing::warn!(%address, ttl_min, %why, "TTLs cannot be checked before connections are accepted");
                }
            }
        }
    }
}

/// What to do when the kernel takes no key.
pub(crate) fn md5_hint(why: &io::Error) -> &'static str {
    match why.raw_os_error() {
        Some(libc::ENOPROTOOPT) => "this kernel has no TCP MD5 (CONFIG_TCP_MD5SIG)",
        Some(libc::ENOMEM) => "raise the sysctl net.core.optmem_max: keys are counted there",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netstat::until_dropped;
    use futures::FutureExt;
    use std::{future::Future, pin::pin, time::Duration};
    use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

    const SOON: Duration = Duration::from_secs(30);

    /// A file with these neighbours, each an address and what follows its own lines.
    fn config(neighbors: &[(&str, &str)], rest: &str) -> Config {
        let neighbor = |(address, rest): &(&str, &str)| {
            format!(
                "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{address}\"\npeer-as = 64512\n{rest}"
            )
        };
        let global = "[global.config]\nas = 64512\nrouter-id = \"192.0.2.1\"\n".to_owned();
        let text = neighbors.iter().map(neighbor).fold(global, |text, neighbor| text + &neighbor);
        Config::from_toml(&(text + rest), "f").unwrap()
    }

    fn password(password: &str) -> String {
        format!("auth-password = \"{password}\"\n")
    }

    /// Neighbours in a range, with a password.
    fn range(prefix: &str) -> String {
        format!(
            "[[peer-groups]]\n[peer-groups.config]\npeer-group-name = \"g\"\npeer-as = 64512\nauth-password = \"shared\"\n\
             [[dynamic-neighbors]]\n[dynamic-neighbors.config]\nprefix = \"{prefix}\"\npeer-group = \"g\"\n"
        )
    }

    const SECURED: &str = "[neighbors.ttl-security.config]\nenabled = true\n";

    fn required(config: &Config) -> Required {
        Required::of(config, &BTreeMap::new())
    }

    fn listen(address: &str, config: &Config) -> Listeners {
        Listeners::open(&[SocketAddr::new(address.parse().unwrap(), 0)], &required(config)).unwrap()
    }

    impl Listeners {
        fn only(&self) -> Arc<TcpListener> {
            self.sockets().next().unwrap()
        }

        /// Connects from an address, as a neighbour that has these settings for us.
        fn dial(&self, from: &str, rest: &str) -> impl Future<Output = io::Result<TcpStream>> + use<> {
            let us = self.only().local_addr().unwrap();
            let transport = format!(
                "{rest}[neighbors.transport.config]\nremote-port = {}\nlocal-address = \"{from}\"\n",
                us.port()
            );
            let settings =
                config(&[(&us.ip().to_string(), &transport)], "").neighbors.remove(&us.ip()).unwrap();
            async move { socket::connect(us, &settings).await }
        }

        async fn takes(&self, from: &str, rest: &str) {
            let (dialed, accepted) = timeout(SOON, async {
                tokio::join!(self.dial(from, rest), async { self.only().accept().await })
            })
            .await
            .unwrap();
            dialed.unwrap();
            assert_eq!(accepted.unwrap().1.ip(), from.parse::<IpAddr>().unwrap());
        }

        /// `counter`: what the kernel counts when it drops the SYN.
        async fn drops(&self, from: &str, rest: &str, counter: &str) {
            let mut dialed = pin!(self.dial(from, rest));
            until_dropped(counter, async || assert!(dialed.as_mut().now_or_never().is_none())).await;
            assert!(dialed.now_or_never().is_none(), "it is not connected");
        }
    }

    #[tokio::test]
    async fn only_the_right_password_gets_through() {
        for (us, peer, other) in [("127.0.41.1", "127.0.41.2", "127.0.41.3"), ("::1", "::1", "::2")] {
            let with_key = config(&[(peer, &password("secret"))], "");
            let mut listeners = listen(us, &with_key);
            listeners.takes(peer, &password("secret")).await;
            listeners.drops(peer, &password("guessed"), "TCPMD5Failure").await;
            listeners.drops(peer, "", "TCPMD5NotFound").await;
            let key = Password("secret".to_owned());
            let peers = |address: &str| IpNet::from(address.parse::<IpAddr>().unwrap());
            assert!(listeners.check_password(&peers(peer), &key));
            assert!(!listeners.check_password(&peers(peer), &Password("guessed".to_owned())));
            assert!(!listeners.check_password(&peers(other), &key));
            // Keys follow the configuration.
            listeners.require(&required(&config(&[(peer, &password("new"))], "")));
            listeners.takes(peer, &password("new")).await;
            listeners.drops(peer, &password("secret"), "TCPMD5Failure").await;
            listeners.require(&required(&config(&[(peer, "")], "")));
            listeners.takes(peer, "").await;
            listeners.drops(peer, &password("new"), "TCPMD5Unexpected").await;
        }
    }

    #[tokio::test]
    async fn a_range_shares_its_password_and_the_narrowest_counts() {
        let both = config(&[("127.0.42.9", &password("own"))], &range("127.0.42.0/24"));
        let mut listeners = listen("127.0.42.1", &both);
        listeners.takes("127.0.42.2", &password("shared")).await;
        listeners.drops("127.0.42.3", "", "TCPMD5NotFound").await;
        listeners.takes("127.0.42.9", &password("own")).await;
        listeners.drops("127.0.42.9", &password("shared"), "TCPMD5Failure").await;
        listeners.takes("127.0.43.2", "").await;
        // The neighbour goes, and with it its own password.
        listeners.require(&required(&config(&[], &range("127.0.42.0/24"))));
        listeners.takes("127.0.42.9", &password("shared")).await;
    }

    #[tokio::test]
    async fn who_is_too_far_away_does_not_even_connect() {
        for (us, peer) in [("127.0.44.1", "127.0.44.2"), ("::1", "::1")] {
            let mut listeners = listen(us, &config(&[(peer, SECURED)], ""));
            listeners.takes(peer, SECURED).await;
            // The kernel's TTL of 64 is that of a packet from 191 hops away.
            listeners.drops(peer, "", "TCPMinTTLDrop").await;
            listeners.require(&required(&config(&[(peer, "")], "")));
            listeners.takes(peer, "").await;
        }
    }

    #[tokio::test]
    async fn on_a_listener_for_all_each_connection_is_checked() {
        let mixed = config(&[("127.0.45.2", SECURED), ("127.0.45.3", "")], "");
        let listeners = listen("127.0.45.1", &mixed);
        let socket = listeners.only();
        let (far, near) = tokio::join!(listeners.dial("127.0.45.2", ""), socket.accept());
        let ((near, from), mut far) = (near.unwrap(), far.unwrap());
        socket::tune_accepted(&near, from.ip(), &mixed.neighbors[&from.ip()]).unwrap();
        until_dropped("TCPMinTTLDrop", async || far.write_all(b"too far").await.unwrap()).await;
        assert_eq!(near.try_read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[tokio::test]
    async fn an_address_in_use_says_so() {
        let first = listen("127.0.0.1", &config(&[], ""));
        let address = first.only().local_addr().unwrap();
        let error = Listeners::open(&[address], &Required::default()).unwrap_err();
        assert!(error.to_string().contains("another BGP speaker runs there"), "{error}");
    }

    #[test]
    fn what_the_kernel_lacks_is_told() {
        let hint = |code| md5_hint(&io::Error::from_raw_os_error(code));
        assert!(hint(libc::ENOPROTOOPT).contains("CONFIG_TCP_MD5SIG"));
        assert!(hint(libc::ENOMEM).contains("optmem_max"));
    }
}
