//! The one task that owns the routes. Neighbours' tasks tell it what happened, the API asks it, it gives them UPDATEs.
//!
//! It never waits for anybody: commands go out by `try_send`, UPDATEs by credit, and a watcher that falls behind is
//! dropped. So whatever a neighbour or a client does, the others are served.

mod dumped;
mod reconfigure;
mod stations;
mod tables;
mod watched;
mod why;

use crate::{
    bfd::{Bfd, BfdStatus},
    config::{Config, PeerSettings},
    engine,
    handle::{AdminAction, EVENTS_MAX, Handle, Refusal, Request, Watch, Withdrawal},
    interface,
    kernel::{Answers, Kernel, Leave, Reach, Via},
    listeners::{Listeners, Required},
    mrt::Dumps,
    peer::{
        self, COMMANDS_MAX, Command, Established, FromPeer, Outlet, PeerEvent, PeerKey, PeerSetup, Shortcut,
        Written,
    },
    route_policy,
    unnumbered::Unnumbered,
    view::{Event, GlobalView, PeerStatus, PeerView, SessionState},
};
use ipnet::IpNet;
use isthmus_bgp::{
    Asn, Attributes, Nlri, Policy, Prefix,
    rib::{Change, PeerId, Router, RouterConfig},
    session::{Negotiated, StopReason},
    wire::ShutdownText,
};
use stations::Stations;
use std::{
    collections::BTreeMap,
    future::{Future, pending},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};
use uuid::Uuid;

/// Messages that are taken before UPDATEs go out.
const EVENTS_AT_ONCE: usize = 64;
/// Changed routes after which UPDATEs go out though more messages wait: neighbours take some while we take others.
const CHANGES_AT_ONCE: usize = 8_192;
/// Bytes of UPDATEs that are given to a neighbour at once.
const BATCH_BYTES_MAX: usize = 512 << 10;
/// Bytes of UPDATEs that the owner writes to a neighbour itself.
const DIRECT_BYTES_MAX: usize = 16 << 10;
/// Neighbours that it does so for at once; more of them are served sooner by all cores.
const DIRECT_PEERS_MAX: usize = 64;
/// Neighbours that may come from dynamic ranges.
const DYNAMIC_PEERS_MAX: usize = 10_000;
/// How long neighbours are waited for when the speaker stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// What comes to the owner from outside.
pub(crate) struct Inlets {
    /// The listeners.
    pub(crate) listeners: Listeners,
    /// Of the API.
    pub(crate) requests: mpsc::Receiver<Request>,
    /// Connections that they accepted.
    pub(crate) accepted: mpsc::Receiver<(TcpStream, SocketAddr)>,
    /// New configurations.
    pub(crate) reloads: mpsc::Receiver<Config>,
}

/// What an owner starts with.
pub(crate) struct Setup {
    pub(crate) config: Config,
    /// Neighbours kept our routes meanwhile.
    pub(crate) restarted: bool,
    pub(crate) kernel: Option<Kernel>,
    /// Which next hops lead anywhere, where that counts.
    pub(crate) reach: Option<Reach>,
    /// How long kernel routes of an earlier run wait for their neighbours.
    pub(crate) stale_time: Duration,
    /// Routes of our own, from the start on.
    pub(crate) routes: Vec<(Prefix, Attributes)>,
    /// Neighbours with graceful restart are left without a word.
    pub(crate) leaves_quietly: bool,
    /// How long a neighbour may take nothing of what we send; `None`: as RFC 9687 has it.
    pub(crate) send_hold: Option<Duration>,
    /// How dumps and the tasks of monitoring stations ask the owner.
    pub(crate) handle: Handle,
}

/// A neighbour as the owner knows it.
struct Peer {
    address: IpAddr,
    id: PeerId,
    settings: Arc<PeerSettings>,
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<PeerStatus>,
    bfd: Option<watch::Receiver<BfdStatus>>,
    /// What was agreed on last.
    last: Option<Arc<Negotiated>>,
    /// Number of the session that is established.
    epoch: Option<u64>,
    /// How the last one began.
    established: Option<Arc<Established>>,
    /// A batch of UPDATEs may go to it.
    is_ready: bool,
    direct: Direct,
    is_dynamic: bool,
}

/// The way to a neighbour past its task.
#[derive(Default)]
struct Direct {
    shortcut: Shortcut,
    /// UPDATEs that were written that way, in all sessions.
    updates: u64,
}

/// A path of our own.
struct LocalPath {
    name: Uuid,
    since: SystemTime,
}

pub(crate) struct Owner {
    config: Config,
    listeners: Listeners,
    bfd: Bfd,
    unnumbered: Unnumbered,
    /// Where neighbours on interfaces are.
    located: BTreeMap<IpAddr, Ipv6Addr>,
    /// As the file was when it was read last.
    file: Config,
    restarted: bool,
    policy: Arc<crate::config::RoutePolicy>,
    policies: (Arc<dyn Policy>, Arc<dyn Policy>),
    router: Router,
    peers: BTreeMap<PeerKey, Peer>,
    by_address: BTreeMap<IpAddr, PeerKey>,
    by_id: BTreeMap<PeerId, PeerKey>,
    local: BTreeMap<Nlri, LocalPath>,
    kernel: Option<Kernel>,
    reach: Option<Reach>,
    /// Until then, kernel routes of an earlier run wait for their neighbours.
    stale_until: Option<Duration>,
    leaves_quietly: bool,
    send_hold: Option<Duration>,
    dumps: Dumps,
    watchers: Vec<(Watch, mpsc::Sender<Event>)>,
    stations: Stations,
    events: Outlet,
    next_key: PeerKey,
    started: Instant,
    started_at: SystemTime,
}

/// Owns the routes until `shutdown`, then says goodbye to all neighbours.
pub(crate) async fn run(mut setup: Setup, mut inlets: Inlets, shutdown: impl Future<Output = ()>) {
    let (events, mut from_peers) = Outlet::new();
    let routes = std::mem::take(&mut setup.routes);
    let mut owner = Owner::new(setup, events);
    for (prefix, attributes) in routes {
        owner.announce(prefix.into(), attributes);
    }
    owner.listeners = std::mem::take(&mut inlets.listeners);
    owner.dumps.adopt(&owner.config.mrt_dumps);
    owner.start_neighbors();
    owner.follow_stations();
    tokio::pin!(shutdown);
    let mut batch = Vec::new();
    loop {
        let timers = [owner.router.poll_timeout(), owner.stale_until];
        let timer = timers.into_iter().flatten().min().map(|at| owner.started + at);
        tokio::select! {
            _ = from_peers.recv_many(&mut batch, EVENTS_AT_ONCE) => {
                for told in batch.drain(..) {
                    owner.told(told);
                    if owner.router.changes_unsent() >= CHANGES_AT_ONCE {
                        owner.send_updates();
                    }
                }
            }
            Some(request) = inlets.requests.recv() => owner.request(request),
            Some((stream, from)) = inlets.accepted.recv() => {
                owner.accepted(stream, from);
                // As many as there are, so that a flood of them costs no round each.
                for _ in 0..EVENTS_AT_ONCE {
                    let Ok((stream, from)) = inlets.accepted.try_recv() else { break };
                    owner.accepted(stream, from);
                }
            }
            Some(config) = inlets.reloads.recv() => owner.reload(config),
            Some(answers) = next_answers(&mut owner.reach) => owner.reached(answers),
            () = async { match timer { Some(at) => sleep_until(at).await, None => pending().await } } => {
                owner.router.handle_timeout(owner.started.elapsed());
            }
            () = &mut shutdown => break,
        }
        owner.ask_reach();
        owner.tell_changes();
        owner.tell_complete();
        owner.send_updates();
        owner.tell_stations();
    }
    let dumps = owner.dumps.take_running();
    owner.stop(&mut from_peers).await;
    // After the neighbours, so that their last states are in the files.
    dumps.stop().await;
}

impl Owner {
    fn new(setup: Setup, events: Outlet) -> Self {
        let Setup {
            config,
            restarted,
            kernel,
            reach,
            stale_time,
            routes: _,
            leaves_quietly,
            send_hold,
            handle,
        } = setup;
        let policies = route_policy::compile(&config.policy);
        Self {
            router: Router::new(RouterConfig {
                resolve_next_hops: reach.is_some(),
                ..router_config(&config, restarted)
            }),
            policy: Arc::new(config.policy.clone()),
            policies,
            bfd: Bfd::new(bfd_addresses(&config)),
            unnumbered: Unnumbered::default(),
            located: BTreeMap::new(),
            file: config.clone(),
            config,
            listeners: Listeners::default(),
            restarted,
            peers: BTreeMap::new(),
            by_address: BTreeMap::new(),
            by_id: BTreeMap::new(),
            local: BTreeMap::new(),
            stale_until: kernel.as_ref().map(|_| stale_time),
            leaves_quietly,
            send_hold,
            dumps: Dumps::new(handle.clone()),
            kernel,
            reach,
            watchers: Vec::new(),
            stations: Stations::new(handle),
            events,
            next_key: 0,
            started: Instant::now(),
            started_at: SystemTime::now(),
        }
    }

    fn start_neighbors(&mut self) {
        for (address, settings) in self.config.neighbors.clone() {
            self.add_peer(address, Arc::new(settings), false);
        }
    }

    fn add_peer(&mut self, address: IpAddr, settings: Arc<PeerSettings>, is_dynamic: bool) -> PeerKey {
        let key = self.next_key;
        self.next_key += 1;
        let (commands, for_task) = mpsc::channel(COMMANDS_MAX);
        let (publish, status) = watch::channel(PeerStatus::default());
        let id = self.router.add_peer(engine::peer(&settings, &self.policies));
        let bfd = self.bfd.watch(key, address, &settings);
        let bfd_status = bfd.as_ref().map(|watched| watched.status.clone());
        let location = interface::of(address).map(|name| self.unnumbered.watch(&name));
        let router_id = self.config.global.router_id;
        let setup = PeerSetup {
            key,
            address,
            location,
            session: engine::session(&settings, address, router_id, self.restarted, self.send_hold),
            settings: settings.clone(),
            is_dynamic,
            bfd,
            commands: for_task,
            events: self.events.clone(),
            tap: self.dumps.tap(),
            status: publish,
        };
        tokio::spawn(peer::run(setup));
        let peer = Peer {
            address,
            id,
            settings,
            commands,
            status,
            bfd: bfd_status,
            last: None,
            epoch: None,
            established: None,
            is_ready: false,
            direct: Direct::default(),
            is_dynamic,
        };
        self.peers.insert(key, peer);
        self.by_address.insert(address, key);
        self.by_id.insert(id, key);
        key
    }

    /// Forgets a neighbour and its routes; its task ends by itself.
    fn remove_peer(&mut self, key: PeerKey, reason: StopReason) {
        let Some(peer) = self.peers.remove(&key) else { return };
        self.by_id.remove(&peer.id);
        if self.by_address.get(&peer.address) == Some(&key) {
            self.by_address.remove(&peer.address);
        }
        if peer.epoch.is_some() {
            self.stations.session_removed(key, &reason, peer.last.as_deref());
        }
        self.router.remove_peer(peer.id);
        self.located.remove(&peer.address);
        let _ = peer.command(Command::End(reason));
    }

    fn told(&mut self, told: FromPeer) {
        for event in told.events {
            self.peer_event(told.peer, event);
        }
    }

    fn peer_event(&mut self, key: PeerKey, event: PeerEvent) {
        let now = self.started.elapsed();
        let Some(peer) = self.peers.get_mut(&key) else { return };
        match event {
            PeerEvent::Up { epoch, negotiated, established, shortcut } => {
                (peer.epoch, peer.is_ready, peer.direct.shortcut) = (Some(epoch), false, shortcut);
                self.router.session_up(peer.id, &negotiated, now);
                (peer.last, peer.established) = (Some(negotiated), Some(established));
                self.stations.session_up();
            }
            PeerEvent::Down(down) => {
                (peer.epoch, peer.is_ready) = (None, false);
                self.router.session_down(peer.id, down.graceful, now);
                self.stations.session_down(key, &down);
            }
            PeerEvent::Update(update) => {
                let seen = watched::seen(&self.watchers, &update);
                if let Err(limit) = self.router.receive(peer.id, *update, now) {
                    tracing::warn!(peer = %interface::shown(peer.address), family = %limit.family, max = limit.max, "too many prefixes: session ends");
                    let reason = StopReason::PrefixLimit { family: limit.family, max: limit.max };
                    let _ = peer.command(Command::Stop(reason));
                }
                if let Some(seen) = seen {
                    self.tell_seen(key, &seen);
                }
            }
            PeerEvent::Refresh(refresh) => self.router.refresh(peer.id, refresh, now),
            PeerEvent::Located(address) => self.peer_located(key, address),
            PeerEvent::Ready { epoch } => peer.is_ready = peer.epoch == Some(epoch),
            PeerEvent::State(state) => self.tell_state(key, state),
            PeerEvent::Ended => {
                if peer.is_dynamic {
                    self.remove_peer(key, StopReason::Deconfigured);
                }
            }
        }
    }

    /// A neighbour on an interface is found, or lost.
    fn peer_located(&mut self, key: PeerKey, address: Option<Ipv6Addr>) {
        let Some(peer) = self.peers.get(&key) else { return };
        match address {
            Some(address) => drop(self.located.insert(peer.address, address)),
            None => drop(self.located.remove(&peer.address)),
        }
        if peer.settings.password.is_some() {
            self.listeners.require(&Required::of(&self.config, &self.located));
        }
    }

    /// Who connects: a neighbour on the interface by which it came, or the one that has its address.
    fn name_of(&self, stream: &TcpStream, from: SocketAddr) -> IpAddr {
        let on_interface = interface::came_by(stream, from).filter(|name| self.by_address.contains_key(name));
        let Some(name) = on_interface else { return from.ip().to_canonical() };
        if let (SocketAddr::V6(from), Some(interface)) = (from, interface::of(name)) {
            self.unnumbered.heard(interface, from);
        }
        name
    }

    fn accepted(&mut self, stream: TcpStream, from: SocketAddr) {
        let address = self.name_of(&stream, from);
        let key = self.by_address.get(&address).copied().or_else(|| self.add_dynamic(address));
        let Some(peer) = key.and_then(|key| self.peers.get(&key)) else {
            tracing::debug!(peer = %interface::shown(address), "connection dropped: no neighbour has this address");
            return;
        };
        if let Some(password) = &peer.settings.password
            && !self.listeners.check_password(&self.range_of(peer), password)
        {
            tracing::warn!(peer = %interface::shown(address), "connection dropped: the kernel did not take the password of this neighbour");
            return;
        }
        // However many connections come, there is room for what we have to say.
        if peer.commands.capacity() <= COMMANDS_MAX / 2 || peer.command(Command::Accepted(stream)).is_err() {
            tracing::debug!(peer = %interface::shown(address), "connection dropped: the neighbour's task is ending, or has too many");
        }
    }

    /// The addresses that a neighbour shares its password with.
    fn range_of(&self, peer: &Peer) -> IpNet {
        if let Some(address) = self.located.get(&peer.address) {
            return IpAddr::from(*address).into();
        }
        let mut ranges = self.config.dynamic_neighbors.iter().filter(|_| peer.is_dynamic);
        let range = ranges.find(|range| range.prefix.contains(&peer.address));
        range.map_or_else(|| peer.address.into(), |range| range.prefix)
    }

    fn add_dynamic(&mut self, address: IpAddr) -> Option<PeerKey> {
        let range = self.config.dynamic_neighbors.iter().find(|range| range.prefix.contains(&address))?;
        let settings = Arc::new(range.settings.clone());
        let known = self.peers.values().filter(|peer| peer.is_dynamic).count();
        if known >= DYNAMIC_PEERS_MAX {
            tracing::warn!(peer = %interface::shown(address), "connection dropped: there are {DYNAMIC_PEERS_MAX} dynamic neighbours already");
            return None;
        }
        Some(self.add_peer(address, settings, true))
    }

    fn request(&mut self, request: Request) {
        // Who asked may have left meanwhile; then nobody wants the answer.
        match request {
            Request::Why(lookup, neighbor, reply) => drop(reply.send(self.why(lookup, neighbor))),
            Request::Change(change, reply) => drop(reply.send(self.change(*change))),
            Request::Groups(reply) => drop(reply.send(self.config.groups())),
            Request::Global(reply) => drop(reply.send(self.global())),
            Request::Policy(reply) => drop(reply.send(self.policy.clone())),
            Request::Ranges(reply) => drop(reply.send(self.config.dynamic_neighbors.clone())),
            Request::Peers(address, advertised, reply) => {
                drop(reply.send(self.peer_views(address, advertised)));
            }
            Request::Prefixes(table, family, lookups, reply) => {
                drop(reply.send(self.prefixes(table, family, &lookups)));
            }
            Request::Paths(table, prefixes, reply) => drop(reply.send(self.paths(table, &prefixes))),
            Request::Counts(table, family, reply) => drop(reply.send(self.counts(table, family))),
            Request::Announce(prefix, attributes, reply) => {
                let _ = reply.send(self.announce(prefix, *attributes));
            }
            Request::Inject(paths, reply) => {
                self.inject(paths);
                let _ = reply.send(());
            }
            Request::Page(place, reply) => drop(reply.send(self.page(place))),
            Request::Sources(reply) => drop(reply.send(self.sources())),
            Request::MrtDumps(reply) => drop(reply.send(self.dumps.statuses())),
            Request::Withdraw(what, reply) => drop(reply.send(self.withdraw(what))),
            Request::Admin(address, action, reply) => drop(reply.send(self.admin(address, &action))),
            Request::Watch(watch, reply) => {
                let (events, receiver) = mpsc::channel(EVENTS_MAX);
                self.watchers.push((watch, events));
                drop(reply.send(receiver));
            }
            Request::Stations(reply) => drop(reply.send(self.stations.views())),
            Request::Station(key, request) => self.station_request(key, request),
        }
    }

    fn global(&self) -> GlobalView {
        let global = &self.config.global;
        GlobalView {
            asn: global.asn,
            router_id: global.router_id,
            listen: global.listen.clone(),
            multipath: global.multipath.is_some(),
        }
    }

    fn peer_views(&self, address: Option<IpAddr>, advertised: bool) -> Result<Vec<PeerView>, Refusal> {
        if let Some(address) = address {
            return self.peer(address).map(|peer| vec![self.peer_view(peer, advertised)]);
        }
        let keys = self.by_address.values();
        Ok(keys.filter_map(|key| self.peers.get(key)).map(|peer| self.peer_view(peer, advertised)).collect())
    }

    fn peer(&self, address: IpAddr) -> Result<&Peer, Refusal> {
        let key = self.by_address.get(&address);
        key.and_then(|key| self.peers.get(key)).ok_or(Refusal::NoPeer(address))
    }

    fn peer_view(&self, peer: &Peer, advertised: bool) -> PeerView {
        let mut status = peer.status.borrow().clone();
        status.is_sending = status.queued_bytes > 0 || self.router.has_updates(peer.id);
        status.sent.update += peer.direct.updates;
        PeerView {
            address: peer.address,
            settings: peer.settings.clone(),
            status,
            bfd: peer.bfd.as_ref().map(|status| status.borrow().clone()),
            families: self.family_counts(peer, advertised),
        }
    }

    fn announce(&mut self, nlri: Nlri, attributes: Attributes) -> Uuid {
        let name = self.local.get(&nlri).map_or_else(Uuid::new_v4, |local| local.name);
        self.local.insert(nlri, LocalPath { name, since: SystemTime::now() });
        self.router.announce(nlri, attributes, self.started.elapsed());
        name
    }

    fn inject(&mut self, paths: Vec<(Nlri, Option<Attributes>)>) {
        for (nlri, attributes) in paths {
            match attributes {
                Some(attributes) => drop(self.announce(nlri, attributes)),
                // What is not there need not be taken away.
                None => drop(self.withdraw(Withdrawal::Path(nlri))),
            }
        }
    }

    fn withdraw(&mut self, what: Withdrawal) -> Result<(), Refusal> {
        let paths: Vec<Nlri> = match what {
            Withdrawal::Path(nlri) if self.local.contains_key(&nlri) => vec![nlri],
            Withdrawal::Path(nlri) => return Err(Refusal::NoPath(nlri.prefix)),
            Withdrawal::Name(name) => {
                let named = self.local.iter().find(|(_, local)| local.name == name);
                vec![*named.ok_or(Refusal::NoName(name))?.0]
            }
            Withdrawal::All(family) => {
                self.local.keys().filter(|nlri| nlri.prefix.family() == family).copied().collect()
            }
        };
        for nlri in paths {
            self.local.remove(&nlri);
            self.router.withdraw(nlri);
        }
        Ok(())
    }

    fn admin(&mut self, address: Option<IpAddr>, action: &AdminAction) -> Result<(), Refusal> {
        let addresses: Vec<IpAddr> = match address {
            Some(address) => vec![self.peer(address)?.address],
            None => self.by_address.keys().copied().collect(),
        };
        for address in addresses {
            let peer = self.peer(address)?;
            let (id, is_up) = (peer.id, peer.epoch.is_some());
            let command = match action {
                AdminAction::Enable => Command::Start,
                AdminAction::Disable(text) => {
                    Command::Stop(StopReason::AdminShutdown(ShutdownText::new(text)))
                }
                AdminAction::Shutdown(text) => {
                    let shutdown = StopReason::AdminShutdown(ShutdownText::new(text));
                    peer.command(Command::Stop(shutdown)).map_err(|_gone| Refusal::NoPeer(address))?;
                    Command::Start
                }
                AdminAction::Reset(text) => Command::Stop(StopReason::AdminReset(ShutdownText::new(text))),
                AdminAction::SoftIn | AdminAction::SoftOut if !is_up => {
                    return Err(Refusal::NotEstablished(address));
                }
                // What the neighbour told is judged anew at once, and it is asked for all of it (RFC 2918).
                AdminAction::SoftIn => {
                    self.router.soft_reset_in(id);
                    Command::Refresh
                }
                AdminAction::SoftOut => {
                    self.router.soft_reset_out(id);
                    continue;
                }
            };
            self.peer(address)?.command(command).map_err(|_gone| Refusal::NoPeer(address))?;
        }
        Ok(())
    }

    /// Gives UPDATEs to everyone who may have some.
    fn send_updates(&mut self) {
        self.router.flush();
        let mut direct_peers = 0;
        for peer in self.peers.values_mut().filter(|peer| peer.is_ready) {
            let Some(epoch) = peer.epoch.filter(|_| self.router.has_updates(peer.id)) else { continue };
            // A place first: what the router has given counts as told.
            let Ok(place) = peer.commands.try_reserve() else { continue };
            let messages = self.router.next_updates(peer.id, BATCH_BYTES_MAX);
            if messages.is_empty() {
                continue;
            }
            let is_direct = direct_peers < DIRECT_PEERS_MAX;
            let written = if is_direct { peer.direct.write(&messages) } else { Written::Nothing };
            direct_peers += usize::from(written != Written::Nothing);
            match written {
                Written::All => continue,
                Written::Queued => place.send(Command::Updates { epoch, messages: Vec::new() }),
                Written::Nothing => place.send(Command::Updates { epoch, messages }),
            }
            peer.is_ready = false;
        }
    }

    /// Has new next hops looked for.
    fn ask_reach(&mut self) {
        if let Some(reach) = &self.reach {
            reach.ask(std::iter::from_fn(|| self.router.poll_next_hop()));
        }
    }

    /// Next hops lead somewhere now, or no longer.
    fn reached(&mut self, answers: Answers) {
        for (next_hop, leads) in &answers {
            if *leads {
                tracing::debug!(%next_hop, "kernel has a way to the next hop");
            } else {
                tracing::warn!(%next_hop, "the kernel has no route to the next hop: its paths are not used until there is one");
            }
        }
        let unused = self.router.set_next_hops(answers);
        if let Some(reach) = &self.reach {
            reach.forget(unused);
        }
    }

    /// Tells the kernel and watchers of best paths that changed.
    fn tell_changes(&mut self) {
        let is_watched = self.watchers.iter().any(|(watch, _)| watch.best);
        self.router.watch_changes(is_watched || self.kernel.is_some());
        let (mut paths, mut routes) = (Vec::new(), Vec::new());
        while let Some(change) = self.router.poll_change() {
            if is_watched {
                paths.push(self.change_view(&change));
            }
            if self.kernel.is_some() {
                routes.push((change.prefix, self.kernel_next_hops(&change)));
            }
        }
        if let Some(kernel) = self.kernel.as_ref().filter(|_| !routes.is_empty()) {
            kernel.set(routes.into_iter());
        }
        if !paths.is_empty() {
            let event = Event::Best(paths);
            self.watchers.retain(|(watch, events)| !watch.best || events.try_send(event.clone()).is_ok());
        }
    }

    /// Where packets of a prefix go. Nowhere for our own, and for what has no path.
    fn kernel_next_hops(&self, change: &Change) -> Vec<Via> {
        if change.used.first().is_none_or(|(source, _)| source.is_none()) {
            return Vec::new();
        }
        let next_hops = change.used.iter().filter_map(|(source, attributes)| {
            let link = source.map_or(0, |id| self.link_of(id));
            Some(Via::new(attributes.next_hop?, link))
        });
        let mut next_hops: Vec<_> = next_hops.collect();
        next_hops.sort_unstable();
        next_hops.dedup();
        next_hops
    }

    /// The number of the link on which a neighbour is, if it is named by one; else 0.
    fn link_of(&self, id: PeerId) -> u32 {
        let peer = self.by_id.get(&id).and_then(|key| self.peers.get(key));
        peer.and_then(|peer| peer.status.borrow().location).map_or(0, |location| location.scope_id())
    }

    /// Says once that kernel routes of an earlier run have waited enough: all neighbours sent theirs, or the time is over.
    fn tell_complete(&mut self) {
        let (Some(kernel), Some(until)) = (&self.kernel, self.stale_until) else { return };
        if self.router.is_deferring() {
            return;
        }
        // Who may still come from a range is not known.
        let are_all_known = self.config.dynamic_neighbors.is_empty();
        if self.started.elapsed() >= until || are_all_known && self.router.has_all_routes() {
            self.stale_until = None;
            kernel.complete();
        }
    }

    fn tell_state(&mut self, key: PeerKey, state: SessionState) {
        if !self.watchers.iter().any(|(watch, _)| watch.peers) {
            return;
        }
        let Some(mut view) = self.peers.get(&key).map(|peer| self.peer_view(peer, false)) else { return };
        // The status may be ahead.
        view.status.state = state;
        let event = Event::Peer(Box::new(view));
        self.watchers.retain(|(watch, events)| !watch.peers || events.try_send(event.clone()).is_ok());
    }

    /// Says goodbye to all, and waits until it is said.
    async fn stop(mut self, from_peers: &mut mpsc::UnboundedReceiver<FromPeer>) {
        tracing::info!(neighbors = self.peers.len(), "speaker stops");
        let text = StopReason::AdminShutdown(ShutdownText::new("speaker stops"));
        let leaves_quietly = self.leaves_quietly;
        let stations_ended = std::mem::take(&mut self.stations).stop();
        self.peers.retain(|_, peer| {
            let restarts = peer.settings.graceful_restart.is_some_and(|restart| !restart.helper_only);
            let command =
                if leaves_quietly && restarts { Command::Leave } else { Command::End(text.clone()) };
            peer.command(command).is_ok()
        });
        let all_ended = async {
            while !self.peers.is_empty() {
                let Some(told) = from_peers.recv().await else { return };
                if told.events.iter().any(|event| matches!(event, PeerEvent::Ended)) {
                    self.peers.remove(&told.peer);
                }
            }
        };
        let restarts = self.config.has_graceful_restart();
        let all_ended = async { tokio::join!(all_ended, stations_ended) };
        if timeout(STOP_TIMEOUT, all_ended).await.is_err() {
            tracing::warn!("some neighbours or monitoring stations did not take our goodbye");
        }
        if let Some(kernel) = self.kernel {
            let leave = if restarts { Leave::Keep } else { Leave::Remove };
            match leave {
                Leave::Keep => tracing::info!("kernel routes stay: there is graceful restart"),
                Leave::Remove => tracing::info!("kernel routes are removed: there is no graceful restart"),
            }
            kernel.stop(leave).await;
        }
    }
}

async fn next_answers(reach: &mut Option<Reach>) -> Option<Answers> {
    match reach {
        Some(reach) => reach.next().await,
        None => pending().await,
    }
}

impl Peer {
    fn command(&self, command: Command) -> Result<(), mpsc::error::TrySendError<Command>> {
        self.commands.try_send(command)
    }
}

impl Direct {
    /// Writes a small batch of UPDATEs, where nothing else waits.
    fn write(&mut self, messages: &[Arc<[u8]>]) -> Written {
        if messages.iter().map(|bytes| bytes.len()).sum::<usize>() > DIRECT_BYTES_MAX {
            return Written::Nothing;
        }
        let written = self.shortcut.write(messages);
        if written != Written::Nothing {
            self.updates += messages.iter().map(|bytes| peer::count_messages(bytes)).sum::<u64>();
        }
        written
    }
}

/// Where BFD receives: where BGP listens, or everywhere if it does not listen.
fn bfd_addresses(config: &Config) -> Vec<IpAddr> {
    let listen = &config.global.listen;
    if listen.is_empty() {
        return vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    }
    listen.iter().map(SocketAddr::ip).collect()
}

fn router_config(config: &Config, restarted: bool) -> RouterConfig {
    let global = &config.global;
    let mut router = RouterConfig::new(Asn(global.asn), global.router_id.into());
    if let Some(multipath) = global.multipath {
        // The engine counts them in a byte; 0 in the file is "no bound".
        let bounded = |max: u16| u8::try_from(max).ok().filter(|max| *max > 0).unwrap_or(u8::MAX);
        router.decision.ebgp_paths_max = bounded(multipath.external_max);
        router.decision.ibgp_paths_max = bounded(multipath.internal_max);
    }
    router.client_to_client = global.client_to_client;
    router.deferral = global.restart_deferral.filter(|_| restarted);
    router.decision.always_compare_med = global.selection.always_compare_med;
    router.decision.ignore_as_path_length = global.selection.ignore_as_path_length;
    router.decision.external_compare_router_id = global.selection.external_compare_router_id;
    router
}
