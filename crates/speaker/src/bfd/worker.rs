//! The thread: one engine for each session, all sockets, all timers.

use super::{BfdStatus, PORT, Shared, Wanted};
use crate::peer::PeerKey;
use isthmus_bgp::bfd::{Input, Output, Packet, Reason, Session};
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::{pending, poll_fn},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
    task::Poll,
    time::Duration,
};
use tokio::{
    net::UdpSocket,
    time::{Instant, sleep_until},
};
use uuid::Uuid;

/// Source ports (RFC 5881 section 4).
const SOURCE_PORTS: std::ops::RangeInclusive<u16> = 49_152..=65_535;
/// Ports that are tried until one is free.
const PORTS_TRIED_MAX: usize = 100;
/// RFC 5881 section 5: what is sent on the link, and nothing else, has this TTL.
const TTL: u32 = 255;
/// Class selector 6, network control.
const TOS: u32 = 0xc0;
/// Longest packet with authentication, and more.
const DATAGRAM_BYTES_MAX: usize = 512;
/// Packets that are read before timers are looked at again.
const PACKETS_AT_ONCE: usize = 1_024;

pub(super) struct Worker {
    addresses: Vec<IpAddr>,
    shared: Arc<Shared>,
    started: Instant,
    sockets: Vec<UdpSocket>,
    /// Why there is no socket.
    fault: Option<Arc<str>>,
    sessions: BTreeMap<PeerKey, Active>,
    by_discriminator: BTreeMap<NonZeroU32, PeerKey>,
    by_address: BTreeMap<IpAddr, PeerKey>,
    timers: BTreeSet<(Duration, PeerKey)>,
}

/// A session that runs.
struct Active {
    wanted: Wanted,
    engine: Session,
    socket: Option<Socket>,
    /// When its timer is set.
    timer: Option<Duration>,
    status: BfdStatus,
}

impl Worker {
    pub(super) fn new(addresses: Vec<IpAddr>, shared: Arc<Shared>) -> Self {
        Self {
            addresses,
            shared,
            started: Instant::now(),
            sockets: Vec::new(),
            fault: None,
            sessions: BTreeMap::new(),
            by_discriminator: BTreeMap::new(),
            by_address: BTreeMap::new(),
            timers: BTreeSet::new(),
        }
    }

    /// Runs until it is over.
    pub(super) fn run(self) {
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(self.serve()),
            Err(why) => tracing::error!(%why, "BFD cannot run: broken paths are found by hold timers alone"),
        }
    }

    async fn serve(mut self) {
        while self.follow_table() {
            let next = self.timers.first().map(|(at, _)| self.started + *at);
            tokio::select! {
                () = async { match next { Some(at) => sleep_until(at).await, None => pending().await } } => {}
                () = self.shared.changed.notified() => {}
                () = readable(&self.sockets) => {}
            }
            // Packets first: who woke up late shall not take it for the silence of others.
            self.receive();
            self.fire();
        }
    }

    /// Starts and ends sessions; `false` when it is over.
    fn follow_table(&mut self) -> bool {
        let shared = self.shared.clone();
        let table = shared.table();
        let mut ended: Vec<PeerKey> = self.sessions.keys().copied().collect();
        ended.retain(|key| table.is_over || !table.wanted.contains_key(key));
        let is_new = |key: &PeerKey| !self.sessions.contains_key(key);
        let new: Vec<(PeerKey, Wanted)> = table
            .wanted
            .iter()
            .filter(|(key, _)| is_new(key))
            .map(|(key, wanted)| (*key, wanted.clone()))
            .collect();
        let is_over = table.is_over;
        drop(table);
        for key in ended {
            self.end(key);
        }
        if is_over {
            return false;
        }
        if !new.is_empty() && self.sockets.is_empty() {
            self.listen();
        }
        for (key, wanted) in new {
            self.start(key, wanted);
        }
        true
    }

    fn listen(&mut self) {
        let sockets = self.addresses.iter().map(|address| {
            listen(*address).map_err(|why| {
                let address = SocketAddr::new(*address, PORT);
                let hint = match why.kind() {
                    io::ErrorKind::AddrInUse => ": another BFD daemon runs there",
                    _ => "",
                };
                format!("cannot receive on UDP {address}: {why}{hint}")
            })
        });
        match sockets.collect::<Result<Vec<_>, String>>() {
            Ok(sockets) => (self.sockets, self.fault) = (sockets, None),
            Err(fault) => {
                tracing::error!(%fault, "no BFD session comes up");
                self.fault = Some(fault.into());
            }
        }
    }

    fn start(&mut self, key: PeerKey, wanted: Wanted) {
        let discriminator = loop {
            let random = NonZeroU32::new(random());
            if let Some(free) = random.filter(|random| !self.by_discriminator.contains_key(random)) {
                break free;
            }
        };
        self.by_discriminator.insert(discriminator, key);
        self.by_address.insert(wanted.address, key);
        let engine = Session::new(wanted.settings.timing, discriminator, u64::from(random()), self.now());
        let active = Active { wanted, engine, socket: None, timer: None, status: BfdStatus::new() };
        self.sessions.insert(key, active);
        self.handle(key, Input::Timer);
    }

    fn end(&mut self, key: PeerKey) {
        self.handle(key, Input::Stop);
        let Some(active) = self.sessions.remove(&key) else { return };
        self.by_discriminator.remove(&active.engine.discriminator());
        if self.by_address.get(&active.wanted.address) == Some(&key) {
            self.by_address.remove(&active.wanted.address);
        }
        if let Some(at) = active.timer {
            self.timers.remove(&(at, key));
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn receive(&mut self) {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        for place in 0..self.sockets.len() {
            for _ in 0..PACKETS_AT_ONCE {
                let Some(Ok((bytes, from))) =
                    self.sockets.get(place).map(|socket| socket.try_recv_from(&mut buffer))
                else {
                    break;
                };
                self.received(buffer.get(..bytes).unwrap_or_default(), from.ip().to_canonical());
            }
        }
    }

    fn received(&mut self, bytes: &[u8], from: IpAddr) {
        let packet = match Packet::decode(bytes) {
            Ok(packet) => packet,
            Err(why) => return tracing::debug!(peer = %from, %why, "BFD packet thrown away"),
        };
        let key = match packet.your_discriminator {
            Some(discriminator) => self.by_discriminator.get(&discriminator),
            None => self.by_address.get(&from),
        };
        let Some(key) = key.copied() else { return };
        // Nobody else on the link speaks for the neighbour.
        let Some(active) = self.sessions.get_mut(&key).filter(|active| active.wanted.address == from) else {
            return;
        };
        active.status.received += 1;
        self.handle(key, Input::Received(&packet));
    }

    fn fire(&mut self) {
        let now = self.now();
        while let Some((_, key)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.pop_first();
            self.handle(key, Input::Timer);
        }
    }

    /// Hands something to a session, and does what it says.
    fn handle(&mut self, key: PeerKey, input: Input<'_>) {
        let now = self.now();
        let Some(active) = self.sessions.get_mut(&key) else { return };
        active.engine.handle(now, input);
        active.outputs(self.fault.as_ref());
        let before = std::mem::replace(&mut active.timer, active.engine.poll_timeout());
        if let Some(at) = before {
            self.timers.remove(&(at, key));
        }
        self.timers.extend(active.timer.map(|at| (at, key)));
    }
}

impl Active {
    fn outputs(&mut self, fault: Option<&Arc<str>>) {
        self.status.fault = fault.cloned();
        while let Some(output) = self.engine.poll_output() {
            let peer = self.wanted.address;
            match output {
                Output::Send(packet) => match self.send(&packet) {
                    Ok(()) => self.status.sent += 1,
                    Err(why) => {
                        self.socket = None;
                        self.status.fault.get_or_insert_with(|| format!("cannot send: {why}").into());
                    }
                },
                Output::Up => tracing::info!(%peer, "BFD session up"),
                Output::Down(reason) => {
                    tracing::info!(%peer, why = %reason, "BFD session down");
                    self.status.last_down = Some(reason);
                    self.status.failures += u64::from(matches!(reason, Reason::Silence(_) | Reason::Peer(_)));
                }
            }
        }
        self.publish();
    }

    fn publish(&mut self) {
        let (engine, status) = (&self.engine, &mut self.status);
        (status.state, status.detection_time) = (engine.state(), engine.detection_time());
        status.remote = engine.remote().copied();
        if let Some(remote) = &status.remote {
            status.is_peer_independent = remote.is_independent;
        }
        self.wanted.status.send_if_modified(|shown| {
            let is_news =
                (shown.state, shown.failures, &shown.fault) != (status.state, status.failures, &status.fault);
            shown.clone_from(status);
            is_news
        });
    }

    fn send(&mut self, packet: &Packet) -> io::Result<()> {
        let peer = SocketAddr::new(self.wanted.address, self.wanted.settings.port);
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => sender(&self.wanted)?,
        };
        let socket = self.socket.insert(socket);
        match socket.send_to(&packet.encode(), &SockAddr::from(peer)) {
            // What does not fit into the queue of a socket is one that is lost.
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => Ok(()),
            sent => sent.map(drop),
        }
    }
}

/// Ends when any of them has something.
async fn readable(sockets: &[UdpSocket]) {
    poll_fn(|cx| {
        let is_any = sockets.iter().any(|socket| socket.poll_recv_ready(cx).is_ready());
        if is_any { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// A socket that takes what comes from the link.
fn listen(address: IpAddr) -> io::Result<UdpSocket> {
    let socket =
        Socket::new(Domain::for_address(SocketAddr::new(address, 0)), Type::DGRAM, Some(Protocol::UDP))?;
    // Byte 8 of an IPv4 header is the TTL, byte 7 of one of IPv6 the hop limit.
    let at = if address.is_ipv4() { 8 } else { 7 };
    socket.attach_filter(&only_with_ttl(at))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(address, PORT).into())?;
    UdpSocket::from_std(socket.into())
}

/// A filter of classic BPF (`linux/filter.h`): RFC 5881 section 5, packets with another TTL came through a router.
fn only_with_ttl(at: u32) -> [SockFilter; 4] {
    /// `SKF_NET_OFF`: counts from the network header.
    const NETWORK_HEADER: u32 = 0xfff0_0000;
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, NETWORK_HEADER + at),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, TTL),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// A socket that sends for one session, from a port that is its own as long as it lasts.
fn sender(wanted: &Wanted) -> io::Result<Socket> {
    let is_ipv4 = wanted.address.is_ipv4();
    let any: IpAddr = if is_ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let local = wanted.local_address.unwrap_or(any);
    let socket =
        Socket::new(Domain::for_address(SocketAddr::new(local, 0)), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if let Some(interface) = &wanted.interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    if is_ipv4 {
        socket.set_ttl_v4(TTL)?;
        socket.set_tos_v4(TOS)?;
    } else {
        socket.set_only_v6(true)?;
        socket.set_unicast_hops_v6(TTL)?;
        socket.set_tclass_v6(TOS)?;
    }
    let ports = usize::from(*SOURCE_PORTS.end() - *SOURCE_PORTS.start()) + 1;
    let first = random() as usize % ports;
    let mut tried = SOURCE_PORTS.cycle().skip(first).take(PORTS_TRIED_MAX);
    loop {
        let Some(port) = tried.next() else { return Err(io::ErrorKind::AddrInUse.into()) };
        match socket.bind(&SocketAddr::new(local, port).into()) {
            Err(why) if why.kind() == io::ErrorKind::AddrInUse => {}
            bound => return bound.map(|()| socket),
        }
    }
}

/// Four random bytes: discriminators and ports that others cannot guess (RFC 5880 section 9).
fn random() -> u32 {
    Uuid::new_v4().as_fields().0
}
