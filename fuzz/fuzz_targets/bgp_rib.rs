//! The routes of six peers, changed at random, beside a naive table: in the end each peer knows what it shall, and no more.
//!
//! Four bytes are one event: which, of whom, about what, and how. Peers 0 to 3 are in our AS.
#![no_main]

use isthmus_bgp::{
    AcceptAll, AsPath, Asn, Attributes, Candidate, Community, Family, FamilySet, Negotiated, NextHop, Nlri, Origin,
    PeerConfig, PeerId, PeerKind, Policy, Prefix, Router, RouterConfig, RouterId, Verdict,
    session::PeerGraceful,
    wire::{Announcement, MESSAGE_BYTES_MAX, Message, RefreshKind, RouteRefresh, Update, UpdateContext, frame},
};
use libfuzzer_sys::fuzz_target;
use std::{
    cmp::Reverse,
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, LazyLock},
    time::Duration,
};

const OURS: Asn = Asn(65_000);
const OUR_ID: RouterId = RouterId(254);
const PEERS: u8 = 6;
/// Prefixes from this number on are refused by [`Below`].
const REFUSED: u8 = 8;
const RESTART: Duration = Duration::from_mins(2);
const STALE: Duration = Duration::from_mins(6);

fuzz_target!(|data: &[u8]| {
    let mut net = Net::new();
    for event in data.as_chunks().0 {
        net.happen(*event);
    }
    net.check();
});

/// Takes the lower half of all prefixes.
#[derive(Debug)]
struct Below;

impl Policy for Below {
    fn verdict(&self, candidate: &Candidate<'_>) -> Verdict {
        if number(candidate.prefix) < REFUSED { Verdict::Accept } else { Verdict::Reject }
    }

    fn needs_target(&self) -> bool {
        false
    }
}

static ACCEPT: LazyLock<Arc<dyn Policy>> = LazyLock::new(|| Arc::new(AcceptAll));
static BELOW: LazyLock<Arc<dyn Policy>> = LazyLock::new(|| Arc::new(Below));

fn prefix(number: u8) -> Prefix {
    Prefix::new(Ipv4Addr::new(10, number, 0, 0).into(), 16).expect("16 bits of IPv4")
}

fn number(prefix: &Prefix) -> u8 {
    let std::net::IpAddr::V4(address) = prefix.address() else { panic!("IPv4 alone") };
    address.octets()[1]
}

/// What is set for a peer.
#[derive(Clone, Copy)]
struct Kind {
    is_client: bool,
    import_below: bool,
    export_below: bool,
}

impl Kind {
    fn of(bits: u8) -> Self {
        Self { is_client: bits & 1 != 0, import_below: bits & 2 != 0, export_below: bits & 4 != 0 }
    }

    fn config(self) -> PeerConfig {
        let policy = |is_below| Arc::clone(if is_below { &*BELOW } else { &*ACCEPT });
        let mut config = PeerConfig::new(policy(self.import_below), policy(self.export_below));
        config.reflector_client = self.is_client;
        config
    }
}

/// A peer, what it sent, and what it was told.
struct Peer {
    id: PeerId,
    asn: Asn,
    negotiated: Arc<Negotiated>,
    kind: Kind,
    is_up: bool,
    /// By number of the prefix: how the route is, and whether it is stale.
    sent: BTreeMap<u8, (u8, bool)>,
    /// Until when stale ones are kept.
    stale_until: Option<Duration>,
    told: BTreeMap<u8, Arc<Attributes>>,
}

impl Peer {
    fn is_internal(&self) -> bool {
        self.asn == OURS
    }

    fn drop_stale(&mut self) {
        self.sent.retain(|_, (_, is_stale)| !*is_stale);
        self.stale_until = None;
    }

    /// The route that eight bits mean.
    fn attributes(&self, how: u8) -> Attributes {
        let mut path: Vec<Asn> = (!self.is_internal()).then_some(self.asn).into_iter().collect();
        path.extend([Asn(1), Asn(2), Asn(3)].into_iter().take(usize::from(how & 3)));
        path.extend((how & 0x20 != 0).then_some(OURS));
        let is_own_cluster = how & 0x40 != 0 && self.is_internal();
        let communities: &[Community] = match how >> 3 & 3 {
            2 => &[Community::NO_EXPORT],
            3 => &[Community::NO_ADVERTISE],
            _ => &[],
        };
        Attributes {
            as_path: AsPath::sequence(path),
            next_hop: Some(NextHop::V4(Ipv4Addr::new(10, 0, 0, self.negotiated.peer_id.0 as u8))),
            local_pref: (how & 4 != 0 && self.is_internal()).then_some(200),
            communities: communities.into(),
            cluster_list: if is_own_cluster { [OUR_ID].into() } else { [].into() },
            ..Attributes::local(Origin::Igp)
        }
    }

    fn is_usable(&self, number: u8, how: u8) -> bool {
        let is_looped = how & 0x20 != 0 || how & 0x40 != 0 && self.is_internal();
        !is_looped && !(self.kind.import_below && number >= REFUSED)
    }

    fn hear(&mut self, mut bytes: &[u8]) {
        let context = UpdateContext { as4: true, families: family(), ..UpdateContext::default() };
        while let Some(found) = frame(bytes, MESSAGE_BYTES_MAX).expect("ours") {
            bytes = &bytes[found.len()..];
            let Message::Update(update) = Message::decode(found, &context).expect("ours") else { continue };
            assert!(update.faults.is_empty(), "{:?}", update.faults);
            for nlri in update.withdrawn {
                self.told.remove(&number(&nlri.prefix));
            }
            for Announcement { attributes, nlri } in update.announced {
                self.told.extend(nlri.iter().map(|nlri| (number(&nlri.prefix), Arc::clone(&attributes))));
            }
        }
        assert!(bytes.is_empty());
    }
}

fn family() -> FamilySet {
    [Family::Ipv4Unicast].into_iter().collect()
}

fn negotiated(peer: u8, asn: Asn) -> Negotiated {
    Negotiated {
        kind: if asn == OURS { PeerKind::Internal } else { PeerKind::External },
        local_as: OURS,
        peer_as: asn,
        peer_id: RouterId(u32::from(peer) + 1),
        local_address: [10, 0, 0, 254].into(),
        peer_address: [10, 0, 0, peer + 1].into(),
        families: family(),
        hold: Duration::from_secs(90),
        keepalive: Duration::from_secs(30),
        as4: true,
        add_path_receive: FamilySet::NONE,
        add_path_send: FamilySet::NONE,
        extended_message: false,
        extended_next_hop: false,
        refresh: true,
        enhanced_refresh: true,
        graceful: Some(PeerGraceful {
            restarting: false,
            notification: true,
            restart_time: RESTART,
            stale_path_time: STALE,
            families: family(),
            forwarding: family(),
            long_lived: BTreeMap::new(),
        }),
        local_capabilities: Vec::new(),
        peer_capabilities: Vec::new(),
    }
}

/// A router, its peers, and what is known of them without it.
struct Net {
    router: Router,
    peers: Vec<Peer>,
    local: BTreeMap<u8, ()>,
    now: Duration,
}

impl Net {
    fn new() -> Self {
        let mut router = Router::new(RouterConfig::new(OURS, OUR_ID));
        let peer = |peer: u8| {
            let asn = if peer < 4 { OURS } else { Asn(96 + u32::from(peer)) };
            let kind = Kind::of(u8::from(peer < 2));
            let negotiated = Arc::new(negotiated(peer, asn));
            let id = router.add_peer(kind.config());
            router.session_up(id, &negotiated, Duration::ZERO);
            let (sent, told) = (BTreeMap::new(), BTreeMap::new());
            Peer { id, asn, negotiated, kind, is_up: true, sent, stale_until: None, told }
        };
        let peers = (0..PEERS).map(peer).collect();
        Self { router, peers, local: BTreeMap::new(), now: Duration::ZERO }
    }

    fn happen(&mut self, [what, who, number, how]: [u8; 4]) {
        let (who, number) = (usize::from(who % PEERS), number % 12);
        let (peer, router, now) = (&mut self.peers[who], &mut self.router, self.now);
        let nlri = Nlri::from(prefix(number));
        match what % 16 {
            0..=5 if peer.is_up => {
                peer.sent.insert(number, (how, false));
                let attributes = Arc::new(peer.attributes(how));
                let announced = vec![Announcement { attributes, nlri: vec![nlri] }];
                receive(router, peer.id, Update { announced, ..Update::default() }, now);
            }
            6..=7 if peer.is_up => {
                peer.sent.remove(&number);
                receive(router, peer.id, Update { withdrawn: vec![nlri], ..Update::default() }, now);
            }
            8 if peer.is_up => {
                let is_graceful = how & 1 != 0;
                peer.is_up = false;
                peer.told.clear();
                router.session_down(peer.id, is_graceful, now);
                // RFC 4724 section 4.2: what was stale already has had its time.
                peer.drop_stale();
                if is_graceful {
                    peer.sent.values_mut().for_each(|(_, is_stale)| *is_stale = true);
                    peer.stale_until = Some(now + RESTART);
                } else {
                    peer.sent.clear();
                }
            }
            9 if !peer.is_up => {
                peer.is_up = true;
                router.session_up(peer.id, &peer.negotiated, now);
                peer.stale_until = peer.stale_until.map(|_| now + STALE);
            }
            10 if peer.is_up => {
                for bytes in router.next_updates(peer.id, usize::from(how) + 1) {
                    peer.hear(&bytes);
                }
            }
            11 if how & 1 == 0 => router.soft_reset_out(peer.id),
            11 => router.soft_reset_in(peer.id),
            12 => {
                peer.kind = Kind::of(how);
                router.change_peer(peer.id, peer.kind.config());
            }
            13 => self.wait(Duration::from_secs(how.into())),
            14 if peer.is_up => peer_refreshes(router, peer, how, now),
            15 if how & 1 == 0 => {
                self.local.insert(number, ());
                router.announce(nlri, Attributes::local(Origin::Igp), now);
            }
            15 => assert_eq!(router.withdraw(nlri), self.local.remove(&number).is_some()),
            _ => {}
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.router.handle_timeout(self.now);
        for peer in &mut self.peers {
            if peer.stale_until.is_some_and(|until| until <= self.now) {
                peer.drop_stale();
            }
        }
    }

    /// Who announced the best path to a prefix, and how it is; `None` for our own.
    fn best(&self, number: u8) -> Option<(Option<&Peer>, Attributes)> {
        let local = self.local.get(&number).map(|()| (None, Attributes::local(Origin::Igp)));
        let sent = self.peers.iter().filter_map(|peer| {
            let (how, _) = *peer.sent.get(&number)?;
            peer.is_usable(number, how).then(|| (Some(peer), peer.attributes(how)))
        });
        local.into_iter().chain(sent).min_by_key(|(peer, attributes)| {
            let local_pref = attributes.local_pref.unwrap_or(100);
            let is_external = peer.is_some_and(|peer| !peer.is_internal());
            let router_id = peer.map_or(0, |peer| peer.negotiated.peer_id.0);
            (Reverse(local_pref), peer.is_some(), attributes.as_path.length(), !is_external, router_id)
        })
    }

    /// What a peer shall know of a prefix: path and local preference.
    fn shall(&self, number: u8, target: &Peer) -> Option<(String, Option<u32>)> {
        let (source, attributes) = self.best(number)?;
        if let Some(source) = source {
            let is_reflected = source.is_internal() && target.is_internal();
            if source.id == target.id
                || attributes.has_community(Community::NO_ADVERTISE)
                || attributes.has_community(Community::NO_EXPORT) && !target.is_internal()
                || is_reflected && !source.kind.is_client && !target.kind.is_client
            {
                return None;
            }
        }
        if target.kind.export_below && number >= REFUSED {
            return None;
        }
        let path = attributes.as_path.to_string();
        Some(if target.is_internal() {
            (path, Some(attributes.local_pref.unwrap_or(100)))
        } else {
            (format!("{OURS} {path}").trim().to_owned(), None)
        })
    }

    fn check(&mut self) {
        for place in 0..self.peers.len() {
            let peer = &mut self.peers[place];
            loop {
                let updates = self.router.next_updates(peer.id, 1_000);
                updates.iter().for_each(|bytes| peer.hear(bytes));
                if updates.is_empty() {
                    break;
                }
            }
            assert!(!self.router.has_updates(peer.id));
            let peer = &self.peers[place];
            let known: BTreeMap<u8, _> = peer
                .told
                .iter()
                .map(|(number, told)| (*number, (told.as_path.to_string(), told.local_pref)))
                .collect();
            let shall = (0..12).filter(|_| peer.is_up).filter_map(|number| Some((number, self.shall(number, peer)?)));
            assert_eq!(known, shall.collect(), "peer {place}");
            let adj_out = self.router.adj_out(peer.id);
            assert_eq!(adj_out.len(), known.len(), "peer {place}");
            assert_eq!(self.router.adj_in(peer.id).count(), peer.sent.len(), "peer {place}");
            assert_eq!(self.router.advertised(peer.id, Family::Ipv4Unicast), known.len());
        }
    }
}

fn receive(router: &mut Router, id: PeerId, update: Update, now: Duration) {
    router.receive(id, update, now).expect("there is no limit");
}

/// The peer wants all, or sends all again, or has sent all (RFC 7313, RFC 4724).
fn peer_refreshes(router: &mut Router, peer: &mut Peer, how: u8, now: Duration) {
    let refresh = |kind| RouteRefresh { family: Family::Ipv4Unicast.afi_safi(), kind };
    match how % 4 {
        0 => router.refresh(peer.id, refresh(RefreshKind::Request), now),
        1 => {
            router.refresh(peer.id, refresh(RefreshKind::Begin), now);
            peer.sent.values_mut().for_each(|(_, is_stale)| *is_stale = true);
            peer.stale_until = peer.stale_until.max(Some(now + STALE));
        }
        2 => {
            router.refresh(peer.id, refresh(RefreshKind::End), now);
            peer.drop_stale();
        }
        _ => {
            let end_of_rib = Some(Family::Ipv4Unicast);
            receive(router, peer.id, Update { end_of_rib, ..Update::default() }, now);
            peer.drop_stale();
        }
    }
}
