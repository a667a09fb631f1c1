//! A router and its peers, each of which keeps what it was told.

mod monitor;

use super::*;
use crate::{
    AsPath, Community, FamilySet, NextHop, Nlri, Origin, PathId, Prefix,
    config::PrefixLimit,
    policy::{AcceptAll, Candidate, Policy, RejectAll, Verdict},
    session::{PeerGraceful, PeerKind},
    wire::{Announcement, MESSAGE_BYTES_MAX, Message, MessageKind, Update, UpdateContext, frame},
};
use proptest::{collection::vec, prelude::*};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::LazyLock,
};

const ASN: Asn = Asn(65_000);
const NOW: Duration = Duration::ZERO;

fn families() -> FamilySet {
    Family::ALL.into_iter().collect()
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// One policy for all, so that peers share what is encoded.
static ACCEPT: LazyLock<Arc<dyn Policy>> = LazyLock::new(|| Arc::new(AcceptAll));

fn accept() -> PeerConfig {
    PeerConfig::new(Arc::clone(&ACCEPT), Arc::clone(&ACCEPT))
}

fn client() -> PeerConfig {
    PeerConfig { reflector_client: true, ..accept() }
}

/// A session with the peer of this number: AS 65000 is ours.
fn negotiated(number: u8, peer_as: Asn) -> Negotiated {
    Negotiated {
        kind: if peer_as == ASN { PeerKind::Internal } else { PeerKind::External },
        local_as: ASN,
        peer_as,
        peer_id: RouterId(number.into()),
        local_address: [10, 0, 0, 254].into(),
        peer_address: [10, 0, 0, number].into(),
        families: families(),
        hold: Duration::from_secs(90),
        keepalive: Duration::from_secs(30),
        as4: true,
        add_path_receive: FamilySet::NONE,
        add_path_send: FamilySet::NONE,
        extended_message: false,
        extended_next_hop: false,
        refresh: true,
        enhanced_refresh: true,
        graceful: None,
        local_capabilities: Vec::new(),
        peer_capabilities: Vec::new(),
    }
}

fn graceful() -> PeerGraceful {
    PeerGraceful {
        restarting: false,
        notification: true,
        restart_time: Duration::from_mins(2),
        stale_path_time: Duration::from_mins(6),
        families: families(),
        forwarding: families(),
        long_lived: BTreeMap::new(),
    }
}

/// What a peer was told.
#[derive(Debug)]
struct Mirror {
    id: PeerId,
    negotiated: Arc<Negotiated>,
    routes: BTreeMap<Nlri, Arc<Attributes>>,
    ends: Vec<Family>,
    refreshes: Vec<RefreshKind>,
    updates: usize,
}

impl Mirror {
    fn has(&self, text: &str) -> bool {
        self.routes.contains_key(&Nlri::from(prefix(text)))
    }

    fn get(&self, text: &str) -> &Attributes {
        &self.routes[&Nlri::from(prefix(text))]
    }

    fn hear(&mut self, mut bytes: &[u8]) {
        let context = UpdateContext {
            as4: true,
            families: families(),
            add_path: self.negotiated.add_path_send,
            ..UpdateContext::default()
        };
        while let Some(found) = frame(bytes, MESSAGE_BYTES_MAX).unwrap() {
            bytes = &bytes[found.len()..];
            match Message::decode(found, &context).unwrap() {
                Message::Update(update) => self.take(update),
                Message::RouteRefresh(refresh) => self.refreshes.push(refresh.kind),
                other => panic!("{other:?} among updates"),
            }
        }
        assert!(bytes.is_empty());
    }

    fn take(&mut self, update: Update) {
        assert!(update.faults.is_empty(), "{:?}", update.faults);
        self.updates += 1;
        for nlri in update.withdrawn {
            self.routes.remove(&nlri);
        }
        for Announcement { attributes, nlri } in update.announced {
            self.routes.extend(nlri.into_iter().map(|nlri| (nlri, Arc::clone(&attributes))));
        }
        self.ends.extend(update.end_of_rib);
    }
}

/// A router and its peers.
struct Net {
    router: Router,
    mirrors: Vec<Mirror>,
}

impl Net {
    fn new() -> Self {
        Self::with(RouterConfig::new(ASN, RouterId(254)))
    }

    fn with(config: RouterConfig) -> Self {
        Self { router: Router::new(config), mirrors: Vec::new() }
    }

    /// Adds a peer with a session; says its number.
    fn peer(&mut self, config: PeerConfig, peer_as: Asn) -> usize {
        self.peer_with(config, peer_as, |_| ())
    }

    fn peer_with(&mut self, config: PeerConfig, peer_as: Asn, change: impl FnOnce(&mut Negotiated)) -> usize {
        let id = self.router.add_peer(config);
        let mut negotiated = negotiated(self.mirrors.len() as u8 + 1, peer_as);
        change(&mut negotiated);
        let negotiated = Arc::new(negotiated);
        self.mirrors.push(Mirror {
            id,
            negotiated,
            routes: BTreeMap::new(),
            ends: Vec::new(),
            refreshes: Vec::new(),
            updates: 0,
        });
        self.up(self.mirrors.len() - 1);
        self.mirrors.len() - 1
    }

    fn up(&mut self, peer: usize) {
        let mirror = &mut self.mirrors[peer];
        mirror.routes.clear();
        mirror.ends.clear();
        self.router.session_up(mirror.id, &mirror.negotiated, NOW);
    }

    fn down(&mut self, peer: usize, graceful: bool) {
        let mirror = &mut self.mirrors[peer];
        mirror.routes.clear();
        self.router.session_down(mirror.id, graceful, NOW);
    }

    fn send(&mut self, peer: usize, text: &str, attributes: Attributes) {
        self.send_path(peer, Nlri::from(prefix(text)), attributes);
    }

    fn send_path(&mut self, peer: usize, nlri: Nlri, attributes: Attributes) {
        let announced = vec![Announcement { attributes: Arc::new(attributes), nlri: vec![nlri] }];
        let update = Update { announced, ..Update::default() };
        self.router.receive(self.mirrors[peer].id, update, NOW).unwrap();
    }

    fn take_back(&mut self, peer: usize, text: &str) {
        let update = Update { withdrawn: vec![prefix(text).into()], ..Update::default() };
        self.router.receive(self.mirrors[peer].id, update, NOW).unwrap();
    }

    fn end_of_rib(&mut self, peer: usize) {
        for family in Family::ALL {
            let update = Update { end_of_rib: Some(family), ..Update::default() };
            self.router.receive(self.mirrors[peer].id, update, NOW).unwrap();
        }
    }

    /// One peer takes some of what it shall hear.
    fn drain_some(&mut self, peer: usize, bytes_max: usize) -> bool {
        let mirror = &mut self.mirrors[peer];
        let updates = self.router.next_updates(mirror.id, bytes_max);
        for bytes in &updates {
            mirror.hear(bytes);
        }
        !updates.is_empty()
    }

    /// All peers take all that they shall hear.
    fn drain(&mut self) {
        for peer in 0..self.mirrors.len() {
            while self.drain_some(peer, 1_000) {}
            assert!(!self.router.has_updates(self.mirrors[peer].id) || self.router.is_deferring());
        }
    }

    fn timeout(&mut self, now: Duration) {
        self.router.handle_timeout(now);
    }
}

/// Attributes of a route from this peer of ours.
fn route(peer: u8, path: &[u32]) -> Attributes {
    Attributes {
        as_path: AsPath::sequence(path.iter().copied().map(Asn)),
        next_hop: Some(NextHop::V4([10, 0, 0, peer].into())),
        ..Attributes::local(Origin::Igp)
    }
}

const A: &str = "10.1.0.0/16";
const B: &str = "10.2.0.0/16";

#[test]
fn routes_of_other_ases_go_on_with_our_as_and_next_hop() {
    let mut net = Net::new();
    let from = net.peer(accept(), Asn(1));
    let external = net.peer(accept(), Asn(2));
    let internal = net.peer(accept(), ASN);
    net.send(from, A, Attributes { med: Some(7), ..route(1, &[1, 9]) });
    net.drain();
    let told = net.mirrors[external].get(A);
    assert_eq!(told.as_path.to_string(), "65000 1 9");
    assert_eq!(told.next_hop, Some(NextHop::V4([10, 0, 0, 254].into())));
    assert_eq!((told.med, told.local_pref), (None, None));
    let told = net.mirrors[internal].get(A);
    assert_eq!(told.as_path.to_string(), "1 9");
    assert_eq!(told.next_hop, Some(NextHop::V4([10, 0, 0, 1].into())));
    assert_eq!((told.med, told.local_pref), (Some(7), Some(100)));
    assert_eq!((told.originator_id, told.cluster_list.len()), (None, 0));
    assert!(!net.mirrors[from].has(A), "nothing goes back");
}

#[test]
fn a_reflector_reflects_between_clients() {
    let mut net = Net::new();
    let a = net.peer(client(), ASN);
    let b = net.peer(client(), ASN);
    let other = net.peer(accept(), ASN);
    let another = net.peer(accept(), ASN);
    net.send(a, A, route(1, &[]));
    net.send(other, B, Attributes { originator_id: Some(RouterId(77)), ..route(3, &[]) });
    net.drain();
    for peer in [b, other, another] {
        let told = net.mirrors[peer].get(A);
        assert_eq!(told.originator_id, Some(RouterId(1)));
        assert_eq!(*told.cluster_list, [RouterId(254)]);
        assert_eq!(told.next_hop, Some(NextHop::V4([10, 0, 0, 1].into())), "a reflector leaves it alone");
    }
    for peer in [a, b] {
        let told = net.mirrors[peer].get(B);
        assert_eq!(told.originator_id, Some(RouterId(77)), "only if it is absent");
    }
    assert!(!net.mirrors[another].has(B), "not between non-clients");
    assert!(!net.mirrors[a].has(A));
}

#[test]
fn clients_that_are_meshed_hear_nothing_of_each_other() {
    let mut net =
        Net::with(RouterConfig { client_to_client: false, ..RouterConfig::new(ASN, RouterId(254)) });
    let a = net.peer(client(), ASN);
    let b = net.peer(client(), ASN);
    let other = net.peer(accept(), ASN);
    net.send(a, A, route(1, &[]));
    net.drain();
    assert!(!net.mirrors[b].has(A) && net.mirrors[other].has(A));
}

#[test]
fn loops_are_excluded_and_counted() {
    let mut net = Net::new();
    let internal = net.peer(client(), ASN);
    let external = net.peer(accept(), Asn(1));
    let patient = net.peer(PeerConfig { allow_own_as: 1, ..accept() }, Asn(2));
    let cluster = PeerConfig { cluster_id: Some(RouterId(88)), ..client() };
    net.peer(cluster, ASN);
    for (peer, attributes, expected) in [
        (
            internal,
            Attributes { originator_id: Some(RouterId(254)), ..route(1, &[]) },
            Some(Exclusion::OwnOriginator),
        ),
        (
            internal,
            Attributes { cluster_list: [RouterId(5), RouterId(254)].into(), ..route(1, &[]) },
            Some(Exclusion::OwnCluster),
        ),
        (
            internal,
            Attributes { cluster_list: [RouterId(88)].into(), ..route(1, &[]) },
            Some(Exclusion::OwnCluster),
        ),
        (external, route(2, &[1, 65_000]), Some(Exclusion::OwnAs)),
        (patient, route(3, &[2, 65_000]), None),
        (patient, route(3, &[2, 65_000, 65_000]), Some(Exclusion::OwnAs)),
    ] {
        net.send(peer, A, attributes);
        let seen: Vec<_> = net.router.adj_in(net.mirrors[peer].id).map(|(_, path)| path.exclusion).collect();
        assert_eq!(seen, [expected]);
        let counts = net.router.counts(net.mirrors[peer].id, Family::Ipv4Unicast);
        assert_eq!((counts.received, counts.accepted), (1, u32::from(expected.is_none())));
        net.take_back(peer, A);
    }
}

#[test]
fn communities_that_hold_routes_back_are_obeyed() {
    for (community, internal_hears, external_hears) in [
        (Community::NO_EXPORT, true, false),
        (Community::NO_EXPORT_SUBCONFED, true, false),
        (Community::NO_ADVERTISE, false, false),
        (Community::LLGR_STALE, false, false),
        (Community(7), true, true),
    ] {
        let mut net = Net::new();
        let from = net.peer(client(), ASN);
        let internal = net.peer(accept(), ASN);
        let external = net.peer(accept(), Asn(1));
        net.send(from, A, Attributes { communities: [community].into(), ..route(1, &[]) });
        net.drain();
        assert_eq!(net.mirrors[internal].has(A), internal_hears, "{community}");
        assert_eq!(net.mirrors[external].has(A), external_hears, "{community}");
    }
}

#[test]
fn a_peer_whose_route_becomes_the_best_forgets_the_other() {
    let mut net = Net::new();
    let a = net.peer(client(), ASN);
    let b = net.peer(client(), ASN);
    let c = net.peer(client(), ASN);
    net.send(a, A, route(1, &[9, 9]));
    net.drain();
    assert!(net.mirrors[b].has(A));
    net.send(b, A, route(2, &[9]));
    net.drain();
    assert!(!net.mirrors[b].has(A) && net.mirrors[a].has(A));
    assert_eq!(net.mirrors[c].get(A).as_path.to_string(), "9");
    net.take_back(b, A);
    net.drain();
    assert!(net.mirrors[b].has(A) && !net.mirrors[a].has(A));
    net.take_back(a, A);
    net.drain();
    assert!(net.mirrors.iter().all(|mirror| mirror.routes.is_empty()));
}

#[test]
fn end_of_rib_follows_the_first_routes_once() {
    let mut net = Net::new();
    let a = net.peer(client(), ASN);
    for n in 0..20 {
        net.send(a, &format!("10.{n}.0.0/16"), route(1, &[]));
    }
    let late = net.peer(client(), ASN);
    net.drain();
    assert_eq!(net.mirrors[late].routes.len(), 20);
    assert_eq!(net.mirrors[late].ends, Family::ALL);
    net.send(a, A, route(1, &[3]));
    net.drain();
    assert_eq!(net.mirrors[late].ends.len(), 2);
    assert_eq!(net.mirrors[a].ends.len(), 2);
}

#[test]
fn routes_that_are_wanted_again_come_between_begin_and_end() {
    let mut net = Net::new();
    let a = net.peer(client(), ASN);
    let b = net.peer(client(), ASN);
    net.send(a, A, route(1, &[]));
    net.drain();
    net.mirrors[b].routes.clear();
    let request = RouteRefresh { family: Family::Ipv4Unicast.afi_safi(), kind: RefreshKind::Request };
    net.router.refresh(net.mirrors[b].id, request, NOW);
    net.drain();
    assert!(net.mirrors[b].has(A));
    assert_eq!(net.mirrors[b].refreshes, [RefreshKind::Begin, RefreshKind::End]);
    net.mirrors[b].routes.clear();
    net.router.soft_reset_out(net.mirrors[b].id);
    net.drain();
    assert!(net.mirrors[b].has(A));
}

#[test]
fn what_a_peer_does_not_send_again_is_gone() {
    let mut net = Net::new();
    let a = net.peer(client(), ASN);
    let b = net.peer(client(), ASN);
    net.send(a, A, route(1, &[]));
    net.send(a, B, route(1, &[]));
    let say = |net: &mut Net, kind| {
        let refresh = RouteRefresh { family: Family::Ipv4Unicast.afi_safi(), kind };
        net.router.refresh(net.mirrors[a].id, refresh, NOW);
    };
    say(&mut net, RefreshKind::Begin);
    net.send(a, B, route(1, &[]));
    say(&mut net, RefreshKind::End);
    net.drain();
    assert!(!net.mirrors[b].has(A) && net.mirrors[b].has(B));
    assert_eq!(net.router.poll_timeout(), None);
}

#[test]
fn routes_of_a_restarting_peer_stay_until_it_has_sent_all() {
    let mut net = Net::new();
    let a = net.peer_with(client(), ASN, |negotiated| negotiated.graceful = Some(graceful()));
    let b = net.peer(client(), ASN);
    net.send(a, A, route(1, &[]));
    net.send(a, B, route(1, &[]));
    net.drain();
    net.down(a, true);
    net.drain();
    assert!(net.mirrors[b].has(A) && net.mirrors[b].has(B));
    assert_eq!(net.router.poll_timeout(), Some(Duration::from_mins(2)));
    let stale = net.router.lookup(&prefix(A)).unwrap().paths[0].staleness;
    assert_eq!(stale, Staleness::Stale);
    net.up(a);
    let before = net.mirrors[b].updates;
    net.send(a, B, route(1, &[]));
    net.end_of_rib(a);
    net.drain();
    assert!(!net.mirrors[b].has(A) && net.mirrors[b].has(B));
    assert_eq!(net.mirrors[b].updates, before + 1, "what did not change is not said again");
}

#[test]
fn routes_of_a_peer_that_stays_away_go() {
    let mut net = Net::new();
    let a = net.peer_with(client(), ASN, |negotiated| negotiated.graceful = Some(graceful()));
    let b = net.peer(client(), ASN);
    net.send(a, A, route(1, &[]));
    net.down(a, true);
    net.timeout(Duration::from_secs(119));
    net.drain();
    assert!(net.mirrors[b].has(A));
    net.timeout(Duration::from_mins(2));
    net.drain();
    assert!(!net.mirrors[b].has(A));
    assert_eq!(net.router.poll_timeout(), None);
}

#[test]
fn a_peer_that_stopped_forwarding_loses_its_routes_at_once() {
    let mut net = Net::new();
    let a = net.peer_with(client(), ASN, |negotiated| negotiated.graceful = Some(graceful()));
    net.send(a, A, route(1, &[]));
    net.down(a, true);
    let mut back = (*net.mirrors[a].negotiated).clone();
    back.graceful = back.graceful.map(|graceful| PeerGraceful { forwarding: FamilySet::NONE, ..graceful });
    net.mirrors[a].negotiated = Arc::new(back);
    net.up(a);
    assert!(net.router.lookup(&prefix(A)).is_none());
}

#[test]
fn long_lived_routes_are_the_last_resort() {
    let mut net = Net::new();
    let long_lived: BTreeMap<_, _> =
        Family::ALL.into_iter().map(|family| (family, Duration::from_hours(1))).collect();
    let graceful = Some(PeerGraceful { long_lived, ..graceful() });
    let a = net.peer_with(client(), ASN, |negotiated| negotiated.graceful = graceful.clone());
    let b = net.peer_with(client(), ASN, |negotiated| negotiated.graceful = graceful.clone());
    let plain = net.peer(client(), ASN);
    net.send(a, A, route(1, &[]));
    net.send(a, B, Attributes { communities: [Community::NO_LLGR].into(), ..route(1, &[]) });
    net.down(a, true);
    net.timeout(Duration::from_mins(2));
    net.drain();
    assert!(net.mirrors[b].get(A).has_community(Community::LLGR_STALE));
    assert!(!net.mirrors[b].has(B) && !net.mirrors[plain].has(A));
    net.send(plain, A, route(3, &[1, 2, 3]));
    net.drain();
    assert_eq!(net.mirrors[b].get(A).as_path.length(), 3);
    net.take_back(plain, A);
    net.timeout(Duration::from_mins(62));
    net.drain();
    assert!(!net.mirrors[b].has(A));
}

/// Else nobody would ever take them away. Found by fuzzing.
#[test]
fn routes_of_a_peer_that_is_away_stay_stale_when_policy_is_another() {
    let long_lived: BTreeMap<_, _> =
        Family::ALL.into_iter().map(|family| (family, Duration::from_hours(1))).collect();
    let graceful = Some(PeerGraceful { long_lived, ..graceful() });
    let mut net = Net::new();
    let a = net.peer_with(client(), ASN, |negotiated| negotiated.graceful = graceful.clone());
    let b = net.peer_with(client(), ASN, |negotiated| negotiated.graceful = graceful.clone());
    net.send(a, A, route(1, &[]));
    net.down(a, true);
    let judged_again = |net: &mut Net| {
        let (id, below) = (net.mirrors[a].id, Arc::new(Below(prefix("10.1.0.0/16"))));
        net.router.soft_reset_in(id);
        net.router.change_peer(id, PeerConfig { import: below, ..client() });
        net.drain();
        net.router.lookup(&prefix(A)).unwrap().paths[0].staleness
    };
    assert_eq!(judged_again(&mut net), Staleness::Stale);
    net.timeout(Duration::from_mins(2));
    assert_eq!(judged_again(&mut net), Staleness::LongLived);
    let told = net.mirrors[b].get(A);
    assert!(told.has_community(Community::LLGR_STALE) && told.med == Some(42));
    net.timeout(Duration::from_mins(62));
    net.drain();
    assert!(!net.mirrors[b].has(A) && net.router.lookup(&prefix(A)).is_none());
    // Back, it is as fresh as it says.
    net.up(a);
    net.send(a, A, route(1, &[]));
    assert_eq!(judged_again(&mut net), Staleness::Fresh);
}

#[test]
fn after_our_restart_nothing_is_said_until_all_have_spoken() {
    let deferral = Some(Duration::from_mins(6));
    let mut net = Net::with(RouterConfig { deferral, ..RouterConfig::new(ASN, RouterId(254)) });
    let a = net.peer_with(client(), ASN, |negotiated| negotiated.graceful = Some(graceful()));
    let b = net.peer_with(client(), ASN, |negotiated| negotiated.graceful = Some(graceful()));
    net.send(a, A, route(1, &[]));
    net.end_of_rib(a);
    net.drain();
    assert!(net.router.is_deferring() && net.router.poll_change().is_none());
    assert_eq!(net.mirrors[b].updates, 0);
    net.end_of_rib(b);
    net.drain();
    assert!(net.mirrors[b].has(A));
    assert_eq!(net.mirrors[b].ends.len(), 2);
    assert_eq!(net.router.poll_change().unwrap().prefix, prefix(A));
}

#[test]
fn changes_are_only_kept_for_who_wants_to_know() {
    let mut net = Net::new();
    let a = net.peer(client(), ASN);
    net.send(a, A, route(1, &[]));
    net.router.watch_changes(false);
    assert_eq!(net.router.poll_change(), None);
    net.send(a, B, route(1, &[]));
    net.router.watch_changes(true);
    assert_eq!(net.router.poll_change(), None);
    net.take_back(a, A);
    assert_eq!(net.router.poll_change().unwrap().prefix, prefix(A));
    assert_eq!(net.router.poll_change(), None);
}

#[test]
fn more_prefixes_than_allowed_are_an_error() {
    let mut net = Net::new();
    let limit = PrefixLimit { max: 2, warn_percent: 75 };
    let prefix_limits = [(Family::Ipv4Unicast, limit)].into_iter().collect();
    let a = net.peer(PeerConfig { prefix_limits, ..client() }, ASN);
    net.send(a, A, route(1, &[]));
    net.send(a, A, route(1, &[2]));
    net.send(a, B, route(1, &[]));
    let nlri = vec![Nlri::from(prefix("10.3.0.0/16"))];
    let announced = vec![Announcement { attributes: Arc::new(route(1, &[])), nlri }];
    let update = Update { announced, ..Update::default() };
    let refused = net.router.receive(net.mirrors[a].id, update, NOW).unwrap_err();
    assert_eq!(refused, LimitExceeded { family: Family::Ipv4Unicast, max: 2 });
    net.down(a, false);
    assert_eq!(net.router.totals(Family::Ipv4Unicast), (0, 0));
}

/// Takes only what is below a range, and sets a MED.
#[derive(Debug)]
struct Below(Prefix);

impl Policy for Below {
    fn verdict(&self, candidate: &Candidate<'_>) -> Verdict {
        if !self.0.contains(candidate.prefix) {
            return Verdict::Reject;
        }
        Verdict::Change(Box::new(Attributes { med: Some(42), ..candidate.attributes.clone() }))
    }
}

#[test]
fn policies_decide_and_change_and_can_be_replaced() {
    let mut net = Net::new();
    let below = || Arc::new(Below(prefix("10.1.0.0/16")));
    let a = net.peer(PeerConfig { import: below(), ..accept() }, Asn(1));
    let b = net.peer(client(), ASN);
    let c = net.peer(PeerConfig { export: below(), ..accept() }, Asn(2));
    net.send(a, A, route(1, &[1]));
    net.send(a, B, route(1, &[1]));
    net.drain();
    assert_eq!(net.mirrors[b].get(A).med, Some(42));
    assert_eq!(net.mirrors[c].get(A).med, None, "set on import, so of another AS");
    assert!(!net.mirrors[b].has(B));
    let (_, path) = net.router.adj_in(net.mirrors[a].id).find(|(found, _)| *found == prefix(A)).unwrap();
    assert_eq!((path.received.med, path.attributes.med), (None, Some(42)));
    net.router.change_peer(net.mirrors[a].id, accept());
    net.drain();
    assert_eq!(net.mirrors[b].get(A).med, None);
    assert_eq!(net.mirrors[c].get(A).med, Some(42), "set on export");
    assert!(net.mirrors[b].has(B) && !net.mirrors[c].has(B));
    net.router.change_peer(net.mirrors[c].id, PeerConfig::new(Arc::new(AcceptAll), Arc::new(RejectAll)));
    net.drain();
    assert!(net.mirrors[c].routes.is_empty());
    net.router.change_peer(net.mirrors[c].id, accept());
    net.drain();
    assert!(net.mirrors[c].has(A) && net.mirrors[c].has(B));
}

/// Lets routes go to one neighbour alone.
#[derive(Debug)]
struct OnlyTo(IpAddr);

impl Policy for OnlyTo {
    fn verdict(&self, candidate: &Candidate<'_>) -> Verdict {
        let target = candidate.target.map(|target| target.address);
        if target == Some(self.0) { Verdict::Accept } else { Verdict::Reject }
    }
}

#[test]
fn a_policy_knows_its_target_also_while_a_peer_catches_up() {
    let mut net = Net::new();
    net.router.announce(prefix(A), Attributes::local(Origin::Igp), NOW);
    let only = |number| Arc::new(OnlyTo([10, 0, 0, number].into()));
    let told = net.peer(PeerConfig { export: only(1), ..accept() }, ASN);
    let other = net.peer(PeerConfig { export: only(1), ..accept() }, ASN);
    net.drain();
    assert!(net.mirrors[told].has(A) && !net.mirrors[other].has(A));
    let request = RouteRefresh { family: Family::Ipv4Unicast.afi_safi(), kind: RefreshKind::Request };
    net.router.refresh(net.mirrors[told].id, request, NOW);
    net.drain();
    assert!(net.mirrors[told].has(A));
    net.router.change_peer(net.mirrors[other].id, PeerConfig { export: only(2), ..accept() });
    net.drain();
    assert!(net.mirrors[other].has(A));
}

#[test]
fn our_own_routes_have_us_as_next_hop_everywhere() {
    let mut net = Net::new();
    let internal = net.peer(accept(), ASN);
    let external =
        net.peer(PeerConfig { next_hop_v6: Some("2001:db8::1".parse().unwrap()), ..accept() }, Asn(1));
    net.router.announce(prefix(A), Attributes { med: Some(5), ..Attributes::local(Origin::Igp) }, NOW);
    net.router.announce(prefix("2001:db8:1::/48"), Attributes::local(Origin::Igp), NOW);
    // A path that somebody gave it makes it nobody else's route.
    let with_path = Attributes { next_hop: None, med: Some(6), ..route(1, &[9]) };
    net.router.announce(prefix(B), with_path, NOW);
    net.drain();
    assert_eq!(net.mirrors[external].get(B).med, Some(6));
    assert_eq!(net.mirrors[external].get(B).as_path.to_string(), "65000 9");
    for peer in [internal, external] {
        let own: IpAddr = [10, 0, 0, 254].into();
        assert_eq!(net.mirrors[peer].get(A).next_hop.unwrap().address(), own);
    }
    assert_eq!(net.mirrors[external].get(A).med, Some(5));
    assert_eq!(net.mirrors[external].get(A).as_path.to_string(), "65000");
    assert!(net.mirrors[external].has("2001:db8:1::/48"));
    assert!(!net.mirrors[internal].has("2001:db8:1::/48"), "there is no address of ours to send to");
    assert!(net.router.withdraw(prefix(A)) && !net.router.withdraw(prefix(A)));
    net.drain();
    assert!(!net.mirrors[internal].has(A));
}

#[test]
fn a_next_hop_on_a_link_goes_no_further() {
    let link = |text: &str| -> IpAddr { text.parse().unwrap() };
    let mut net = Net::new();
    let unnumbered = |negotiated: &mut Negotiated| {
        negotiated.extended_next_hop = true;
        (negotiated.local_address, negotiated.peer_address) = (link("fe80::254"), link("fe80::1"));
    };
    let from = net.peer_with(accept(), Asn(1), unnumbered);
    let internal = net.peer(accept(), ASN);
    let neighbor = net.peer_with(client(), ASN, unnumbered);
    let through = Attributes { next_hop: Some(link("fe80::1").into()), ..route(1, &[1]) };
    net.send(from, A, through);
    net.drain();
    for (peer, own) in [(internal, "10.0.0.254"), (neighbor, "fe80::254")] {
        assert_eq!(net.mirrors[peer].get(A).next_hop.unwrap().address(), link(own));
    }
}

#[test]
fn a_third_partys_next_hop_stays_where_both_ends_reach_it() {
    let mut net = Net::new();
    let inside = net.peer(client(), ASN);
    let abroad = net.peer(accept(), Asn(1));
    let usual = net.peer(accept(), Asn(2));
    let keeps = net.peer(PeerConfig { third_party_next_hop: true, ..accept() }, Asn(3));
    net.send(inside, A, route(9, &[]));
    net.send(abroad, B, route(8, &[1]));
    net.router.announce(prefix("10.9.0.0/16"), Attributes::local(Origin::Igp), NOW);
    net.drain();
    let next_hop = |peer: usize, text: &str| net.mirrors[peer].get(text).next_hop.unwrap().address();
    let own = IpAddr::from([10, 0, 0, 254]);
    assert_ne!(next_hop(keeps, A), own, "that of the node that told us");
    assert_eq!(net.mirrors[keeps].get(A).as_path.to_string(), "65000");
    assert_eq!(next_hop(usual, A), own);
    assert_eq!((next_hop(keeps, B), next_hop(keeps, "10.9.0.0/16")), (own, own), "another AS's, and our own");
}

#[test]
fn a_path_counts_only_while_its_next_hop_leads_somewhere() {
    let mut net =
        Net::with(RouterConfig { resolve_next_hops: true, ..RouterConfig::new(ASN, RouterId(254)) });
    let (near, far) = (net.peer(accept(), ASN), net.peer(accept(), ASN));
    let hearer = net.peer(client(), ASN);
    net.send(near, A, Attributes { local_pref: Some(200), ..route(1, &[]) });
    net.send(far, A, route(2, &[]));
    net.router.announce(prefix(B), Attributes::local(Origin::Igp), NOW);
    let hop = |n: u8| IpAddr::from([10, 0, 0, n]);
    let asked: Vec<IpAddr> = std::iter::from_fn(|| net.router.poll_next_hop()).collect();
    assert_eq!(asked, [hop(1), hop(2)], "each once");
    net.drain();
    assert!(net.mirrors[hearer].has(A), "as long as nothing is known of it");
    assert!(net.mirrors[hearer].has(B), "our own need no next hop");
    let monitor = net.router.add_monitor();
    net.router.monitor(monitor, RibView::Accepted(net.mirrors[near].id));
    let heard = |net: &mut Net| {
        let news = std::iter::from_fn(|| net.router.poll_news(monitor));
        news.fold((0, 0), |(came, went), news| (came + news.announced.len(), went + news.withdrawn.len()))
    };
    assert_eq!(heard(&mut net), (1, 0));
    for (leads, expected, monitored) in [
        (vec![(hop(1), false), (hop(2), true)], Some(2), (0, 1)),
        (vec![(hop(1), true)], Some(1), (1, 0)),
        (vec![(hop(1), true), (hop(9), true)], Some(1), (0, 0)),
        (vec![(hop(1), false)], Some(2), (0, 1)),
        (vec![(hop(2), false)], None, (0, 0)),
    ] {
        assert!(net.router.set_next_hops(leads.clone()).is_empty(), "all are in use");
        assert_eq!(heard(&mut net), monitored, "{leads:?}");
        net.drain();
        let told = net.mirrors[hearer].routes.get(&Nlri::from(prefix(A)));
        let told = told.map(|told| told.next_hop.unwrap().address());
        assert_eq!(told, expected.map(hop), "{leads:?}");
        let accepted = |peer: usize| net.router.counts(net.mirrors[peer].id, Family::Ipv4Unicast).accepted;
        let both = [accepted(near), accepted(far)];
        let known =
            |n| leads.iter().rfind(|(address, _)| *address == hop(n)).map(|(_, leads)| u32::from(*leads));
        assert!(
            known(1).is_none_or(|leads| both[0] == leads) && known(2).is_none_or(|leads| both[1] == leads)
        );
    }
    net.take_back(far, A);
    assert_eq!(net.router.set_next_hops([(hop(1), true)]), [hop(2)], "nobody needs it any longer");
    net.send(
        far,
        B,
        Attributes { next_hop: Some("fe80::1".parse::<IpAddr>().unwrap().into()), ..route(2, &[]) },
    );
    assert_eq!(net.router.poll_next_hop(), None, "who is on a link is reached");
}

#[test]
fn private_numbers_can_be_hidden() {
    for (config, expected) in [
        (PeerConfig { remove_private_as: Some(crate::RemovePrivateAs::All), ..accept() }, "65000 1"),
        (
            PeerConfig { remove_private_as: Some(crate::RemovePrivateAs::Replace), ..accept() },
            "65000 1 65000",
        ),
        (PeerConfig { replace_peer_as: true, ..accept() }, "65000 1 65000"),
        (PeerConfig { route_server_client: true, ..accept() }, "1 64999"),
    ] {
        let mut net = Net::new();
        let from = net.peer(accept(), Asn(1));
        let to = net.peer(config, Asn(64_999));
        net.send(from, A, route(1, &[1, 64_999]));
        net.drain();
        assert_eq!(net.mirrors[to].get(A).as_path.to_string(), expected);
    }
}

#[test]
fn several_paths_go_to_those_that_take_them() {
    let mut net = Net::new();
    let a = net.peer(client(), ASN);
    let b = net.peer(client(), ASN);
    let many = net.peer_with(client(), ASN, |negotiated| negotiated.add_path_send = families());
    net.send(a, A, route(1, &[7, 8]));
    net.send(b, A, route(2, &[7]));
    net.drain();
    let paths = |net: &Net| {
        let routes = net.mirrors[many].routes.values();
        let mut paths: Vec<_> = routes.map(|attributes| attributes.as_path.to_string()).collect();
        paths.sort();
        paths
    };
    assert_eq!(paths(&net), ["7", "7 8"]);
    net.take_back(b, A);
    net.drain();
    assert_eq!(paths(&net), ["7 8"]);
    assert_eq!(net.router.adj_out(net.mirrors[many].id).len(), 1);
}

#[test]
fn several_paths_come_from_those_that_send_them() {
    let decision = DecisionConfig { ibgp_paths_max: 4, ..DecisionConfig::default() };
    let mut net = Net::with(RouterConfig { decision, ..RouterConfig::new(ASN, RouterId(254)) });
    let a = net.peer(client(), ASN);
    for id in 1..=3 {
        let nlri = Nlri { prefix: prefix(A), path_id: PathId(id) };
        net.send_path(a, nlri, route(id as u8, &[]));
    }
    assert_eq!(net.router.poll_change().unwrap().used.len(), 3);
    assert_eq!(net.router.poll_change(), None);
    assert_eq!(net.router.counts(net.mirrors[a].id, Family::Ipv4Unicast).received, 3);
    let seen = net.router.lookup(&prefix(A)).unwrap();
    assert!(seen.paths[0].best && seen.paths.iter().all(|path| path.used));
    net.down(a, false);
    assert!(net.router.poll_change().unwrap().used.is_empty());
}

#[test]
fn numbers_of_destinations_that_are_gone_are_used_again_once_everybody_heard() {
    let mut net = Net::new();
    let a = net.peer(client(), ASN);
    let b = net.peer(client(), ASN);
    let name = |n: u32| format!("10.{}.{}.0/24", n / 256, n % 256);
    let mut gone = std::collections::BTreeSet::new();
    for n in 0..1_000 {
        net.send(a, &name(n), route(1, &[]));
        net.take_back(a, &name(n));
        net.drain();
        if n % 100 == 0 {
            gone.extend(std::iter::from_fn(|| net.router.poll_change()).map(|change| change.prefix));
        }
    }
    gone.extend(std::iter::from_fn(|| net.router.poll_change()).map(|change| change.prefix));
    assert_eq!(gone.len(), 1_000, "each change is told with the prefix that it is about");
    for n in 0..1_000 {
        net.send(a, &name(n + 1_000), route(1, &[]));
        net.take_back(a, &name(n + 1_000));
        net.drain();
        while net.router.poll_change().is_some() {}
    }
    assert!(net.router.table.len() < 1_100, "{}", net.router.table.len());
    assert!(net.mirrors[b].routes.is_empty());
}

#[test]
fn one_says_why_a_path_is_worse() {
    let mut net = Net::new();
    let a = net.peer(client(), ASN);
    let b = net.peer(client(), ASN);
    net.send(a, A, route(1, &[7, 8]));
    net.send(b, A, route(2, &[7]));
    let seen = net.router.lookup(&prefix(A)).unwrap();
    assert_eq!(seen.paths[0].worse_by, None);
    assert_eq!(seen.paths[1].worse_by, Some(Step::PathLength));
    assert_eq!(seen.paths[1].source, Some(net.mirrors[a].id));
}

#[test]
fn a_removed_peer_leaves_nothing() {
    let mut net = Net::new();
    let a = net.peer(client(), ASN);
    let b = net.peer(client(), ASN);
    net.send(a, A, route(1, &[]));
    net.drain();
    net.router.remove_peer(net.mirrors[a].id);
    while net.drain_some(b, 1_000) {}
    assert!(net.mirrors[b].routes.is_empty());
    assert_eq!(net.router.totals(Family::Ipv4Unicast), (0, 0));
}

#[test]
fn equal_hearers_share_bytes() {
    let mut net = Net::new();
    let a = net.peer(client(), ASN);
    let others = [net.peer(client(), ASN), net.peer(client(), ASN)];
    net.drain();
    net.send(a, A, route(1, &[]));
    let told = others.map(|peer| net.router.next_updates(net.mirrors[peer].id, 10_000));
    assert_eq!(told[0].len(), 1);
    assert!(Arc::ptr_eq(&told[0][0], &told[1][0]));
    let found = frame(&told[0][0], MESSAGE_BYTES_MAX).unwrap().unwrap();
    assert_eq!(found.kind, MessageKind::Update);
}

/// Something that happens.
#[derive(Clone, Copy, Debug)]
enum Event {
    Send { peer: usize, number: u8, id: u32, length: usize },
    TakeBack { peer: usize, number: u8, id: u32 },
    Down { peer: usize, graceful: bool },
    Up { peer: usize },
    Drain { peer: usize, bytes: usize },
    SoftOut { peer: usize },
    Replace { peer: usize, kind: usize },
    Timeout,
}

const PEERS: usize = 5;

fn event() -> impl Strategy<Value = Event> {
    let peer = 0..PEERS;
    prop_oneof![
        12 => (peer.clone(), 0..12_u8, 1..3_u32, 0..3_usize)
            .prop_map(|(peer, number, id, length)| Event::Send { peer, number, id, length }),
        6 => (peer.clone(), 0..12_u8, 1..3_u32).prop_map(|(peer, number, id)| Event::TakeBack { peer, number, id }),
        1 => (peer.clone(), any::<bool>()).prop_map(|(peer, graceful)| Event::Down { peer, graceful }),
        2 => peer.clone().prop_map(|peer| Event::Up { peer }),
        5 => (peer.clone(), 1..200_usize).prop_map(|(peer, bytes)| Event::Drain { peer, bytes }),
        1 => peer.clone().prop_map(|peer| Event::SoftOut { peer }),
        1 => (peer, 0..3_usize).prop_map(|(peer, kind)| Event::Replace { peer, kind }),
        1 => Just(Event::Timeout),
    ]
}

/// Lets something happen.
fn happen(net: &mut Net, up: &mut [bool; PEERS], event: Event) {
    let nlri = |number: u8, id| Nlri { prefix: prefix(&format!("10.{number}.0.0/16")), path_id: PathId(id) };
    match event {
        Event::Send { peer, number, id, length } if up[peer] => {
            let path: Vec<_> = [1, 2, 3][..length].to_vec();
            net.send_path(peer, nlri(number, id), route(peer as u8 + 1, &path));
        }
        Event::TakeBack { peer, number, id } if up[peer] => {
            let update = Update { withdrawn: vec![nlri(number, id)], ..Update::default() };
            net.router.receive(net.mirrors[peer].id, update, NOW).unwrap();
        }
        Event::Down { peer, graceful } if up[peer] => {
            up[peer] = false;
            net.down(peer, graceful);
        }
        Event::Up { peer } if !up[peer] => {
            up[peer] = true;
            net.up(peer);
            net.end_of_rib(peer);
        }
        Event::Drain { peer, bytes } if up[peer] => {
            net.drain_some(peer, bytes);
        }
        Event::SoftOut { peer } => net.router.soft_reset_out(net.mirrors[peer].id),
        Event::Replace { peer, kind } => {
            let below = PeerConfig { export: Arc::new(Below(prefix("10.0.0.0/13"))), ..client() };
            let config = vec![client(), accept(), below].swap_remove(kind);
            net.router.change_peer(net.mirrors[peer].id, config);
        }
        Event::Timeout => net.timeout(Duration::from_mins(3)),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 400 } else { 4_000 }))]
    #[test]
    fn whatever_happens_each_peer_ends_up_with_what_it_shall_know(events in vec(event(), 0..120)) {
        let mut net = Net::new();
        for peer in 0..PEERS {
            let asn = if peer < 3 { ASN } else { Asn(100 + peer as u32) };
            net.peer_with(client(), asn, |negotiated| {
                negotiated.graceful = Some(graceful());
                if peer == 2 {
                    negotiated.add_path_send = families();
                }
            });
        }
        let mut up = [true; PEERS];
        for event in events {
            happen(&mut net, &mut up, event);
        }
        net.drain();
        for (peer, mirror) in net.mirrors.iter().enumerate() {
            let shall: BTreeMap<_, _> =
                net.router.adj_out(mirror.id).into_iter().map(|(nlri, it)| (nlri, Arc::new(it))).collect();
            prop_assert_eq!(&mirror.routes, &shall, "peer {}", peer);
            if !up[peer] {
                prop_assert!(shall.is_empty());
                continue;
            }
            let received = net.router.adj_in(mirror.id).count();
            let counts = net.router.counts(mirror.id, Family::Ipv4Unicast);
            prop_assert_eq!(counts.received as usize, received);
            let told: BTreeSet<_> = mirror.routes.keys().map(|nlri| nlri.prefix).collect();
            prop_assert_eq!(net.router.advertised(mirror.id, Family::Ipv4Unicast), told.len());
            // Another look at the rules: every best path of somebody else that may go, goes.
            if peer != 2 {
                for destination in net.router.destinations(Family::Ipv4Unicast) {
                    let best = &destination.paths[0];
                    let told = mirror.routes.contains_key(&destination.prefix.into());
                    if told {
                        prop_assert!(best.source != Some(mirror.id));
                    } else if peer > 2 && best.best && best.source != Some(mirror.id) {
                        let config = &net.router.peer(mirror.id).unwrap().config;
                        prop_assert!(config.export.needs_target(), "{:?} is missing", destination.prefix);
                    }
                }
            }
        }
    }
}
