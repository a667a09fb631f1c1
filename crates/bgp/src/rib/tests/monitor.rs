//! A monitoring station that keeps what it hears, beside the tables that it should know then.

use super::*;
use crate::rib::{MonitorId, News, Reported, RibView};

type Known = BTreeMap<Nlri, Reported>;

/// What one station heard, and of which sessions it was told.
struct Station {
    id: MonitorId,
    tables: BTreeMap<RibView, Known>,
    complete: BTreeSet<RibView>,
    sessions: [u32; PEERS],
}

impl Station {
    fn open(net: &mut Net) -> Self {
        let id = net.router.add_monitor();
        net.router.monitor(id, RibView::Best);
        let tables = BTreeMap::from([(RibView::Best, Known::new())]);
        Self { id, tables, complete: BTreeSet::new(), sessions: [0; PEERS] }
    }

    fn watch(&mut self, net: &mut Net, view: RibView) {
        net.router.monitor(self.id, view);
        self.tables.insert(view, Known::new());
        self.complete.remove(&view);
    }

    /// Is told of sessions, of which those that are up have an odd number.
    fn hear_sessions(&mut self, net: &mut Net, sessions: &[u32; PEERS]) {
        for peer in (0..PEERS).filter(|peer| self.sessions[*peer] != sessions[*peer]).collect::<Vec<_>>() {
            let id = net.mirrors[peer].id;
            let views = [RibView::Received, RibView::Accepted, RibView::Offered, RibView::Sent];
            for view in views.map(|view| view(id)) {
                net.router.unmonitor(self.id, view);
                self.tables.remove(&view);
                if sessions[peer] % 2 == 1 {
                    self.watch(net, view);
                }
            }
        }
        self.sessions = *sessions;
    }

    /// Hears of routes, once.
    fn hear(&mut self, net: &mut Net) -> bool {
        let Some(News { view, withdrawn, announced, is_complete }) = net.router.poll_news(self.id) else {
            assert!(!net.router.has_news(self.id));
            return false;
        };
        // When what a peer is told came is not asked of the tables that say what that is.
        let dated = |route: Reported| match view {
            RibView::Offered(_) | RibView::Sent(_) => Reported { since: Duration::ZERO, ..route },
            _ => route,
        };
        let known = self.tables.get_mut(&view).unwrap();
        for nlri in withdrawn {
            assert!(known.remove(&nlri).is_some(), "{nlri:?} is taken back, and was never there");
        }
        known.extend(announced.into_iter().map(|route| (route.nlri, dated(route))));
        if is_complete {
            assert!(self.complete.insert(view), "{view:?} is complete once");
        }
        true
    }
}

/// What a table has, by another way through the engine.
fn oracle(router: &Router, view: RibView) -> Known {
    let report = |prefix, path_id, attributes: &Arc<Attributes>, since| {
        let nlri = Nlri { prefix, path_id };
        (nlri, Reported { nlri, attributes: Arc::clone(attributes), since })
    };
    match view {
        RibView::Received(peer) => {
            let paths = router.adj_in(peer);
            paths.map(|(prefix, path)| report(prefix, path.path_id, path.received, path.since)).collect()
        }
        RibView::Accepted(peer) => {
            let paths = router.adj_in(peer).filter(|(_, path)| path.exclusion.is_none());
            paths.map(|(prefix, path)| report(prefix, path.path_id, path.attributes, path.since)).collect()
        }
        RibView::Best => {
            let all = Family::ALL.into_iter().flat_map(|family| router.destinations(family));
            let best = all.filter(|destination| destination.paths[0].best);
            best.map(|one| report(one.prefix, PathId(0), one.paths[0].attributes, one.paths[0].since))
                .collect()
        }
        RibView::Sent(peer) => {
            let told = router.adj_out(peer).into_iter();
            told.map(|(nlri, told)| report(nlri.prefix, nlri.path_id, &Arc::new(told), Duration::ZERO))
                .collect()
        }
        RibView::Offered(peer) => {
            let all = Family::ALL.into_iter().flat_map(|family| router.destinations(family));
            let may_go = |one: &Destination<'_>| {
                matches!(
                    router.announced(&one.prefix, peer),
                    Ok(()) | Err(Withheld::Policy(_) | Withheld::NoNextHop)
                )
            };
            let offered = all.filter(|one| one.paths[0].best).filter(may_go);
            offered
                .map(|one| report(one.prefix, PathId(0), one.paths[0].attributes, Duration::ZERO))
                .collect()
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Happening {
    Net(Event),
    /// Policy of what comes, and of what goes, is another.
    Policy {
        peer: usize,
        import: usize,
        export: usize,
    },
    /// The station hears of sessions.
    Sessions,
    /// The station hears of routes.
    Hear(usize),
    /// Our own route comes or goes.
    Own(bool),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        20 => event().prop_map(|event| Happening::Net(match event {
            // A path without a number too.
            Event::Send { peer, number, id, length } => Event::Send { peer, number, id: id - 1, length },
            Event::TakeBack { peer, number, id } => Event::TakeBack { peer, number, id: id - 1 },
            other => other,
        })),
        1 => (0..PEERS, 0..3_usize, 0..3_usize)
            .prop_map(|(peer, import, export)| Happening::Policy { peer, import, export }),
        3 => Just(Happening::Sessions),
        6 => (1..6_usize).prop_map(Happening::Hear),
        1 => any::<bool>().prop_map(Happening::Own),
    ]
}

fn policy(kind: usize) -> Arc<dyn Policy> {
    match kind {
        0 => Arc::new(RejectAll),
        1 => Arc::new(Below(prefix("10.0.0.0/13"))),
        _ => Arc::new(AcceptAll),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 400 } else { 4_000 }))]
    #[test]
    fn whatever_happens_a_station_ends_up_with_what_is_there(happenings in vec(happening(), 0..150)) {
        let mut net = Net::new();
        for peer in 0..PEERS {
            let asn = if peer < 3 { ASN } else { Asn(100 + peer as u32) };
            net.peer_with(client(), asn, |negotiated| negotiated.graceful = Some(graceful()));
        }
        let mut up = [true; PEERS];
        let mut sessions = [1; PEERS];
        let mut station = Station::open(&mut net);
        for happening in happenings {
            match happening {
                Happening::Net(event) => {
                    let before = up;
                    happen(&mut net, &mut up, event);
                    (0..PEERS).filter(|peer| up[*peer] != before[*peer]).for_each(|peer| sessions[peer] += 1);
                }
                Happening::Policy { peer, import, export } => {
                    let (import, export) = (policy(import), policy(export));
                    let config = PeerConfig { import, export, ..client() };
                    net.router.change_peer(net.mirrors[peer].id, config);
                }
                Happening::Sessions => station.hear_sessions(&mut net, &sessions),
                Happening::Hear(times) => {
                    (0..times).all(|_| station.hear(&mut net));
                }
                Happening::Own(true) => net.router.announce(prefix(A), route(9, &[]), NOW),
                Happening::Own(false) => drop(net.router.withdraw(prefix(A))),
            }
        }
        station.hear_sessions(&mut net, &sessions);
        net.router.flush();
        while station.hear(&mut net) {}
        for (view, known) in &station.tables {
            prop_assert_eq!(known, &oracle(&net.router, *view), "{:?}", view);
            prop_assert!(station.complete.contains(view));
        }
        let best = &station.tables[&RibView::Best];
        prop_assert_eq!(net.router.reachable(Family::Ipv4Unicast) as usize, best.len());
    }
}

#[test]
fn routes_of_a_gone_destination_are_taken_back_under_their_own_name() {
    let mut net = Net::new();
    let a = net.peer(client(), ASN);
    let mut station = Station::open(&mut net);
    let view = RibView::Received(net.mirrors[a].id);
    station.watch(&mut net, view);
    let name = |n: u32| format!("10.{}.{}.0/24", n / 256, n % 256);
    for n in 0..200 {
        net.send(a, &name(n), route(1, &[]));
    }
    while station.hear(&mut net) {}
    for n in 0..200 {
        net.take_back(a, &name(n));
    }
    // Numbers that nobody needs are taken by others meanwhile.
    for n in 200..2_000 {
        net.send(a, &name(n), route(1, &[]));
        net.take_back(a, &name(n));
        net.drain();
        while net.router.poll_change().is_some() {}
    }
    for n in 2_000..2_300 {
        net.send(a, &name(n), route(1, &[]));
    }
    while station.hear(&mut net) {}
    for (view, known) in &station.tables {
        assert_eq!(known, &oracle(&net.router, *view), "{view:?}");
    }
    assert!(net.router.table.len() < 1_000, "{}", net.router.table.len());
}

#[test]
fn what_a_peer_is_told_with_path_ids_is_told_with_them() {
    let mut net = Net::new();
    let (a, b) = (net.peer(client(), ASN), net.peer(client(), ASN));
    let export: Arc<dyn Policy> = Arc::new(Below(prefix("10.0.0.0/13")));
    let many = PeerConfig { export, add_path_send_max: 2, ..client() };
    let many =
        net.peer_with(many, ASN, |negotiated| negotiated.add_path_send = Family::ALL.into_iter().collect());
    let id = net.mirrors[many].id;
    let mut station = Station::open(&mut net);
    let (offered, sent) = (RibView::Offered(id), RibView::Sent(id));
    for view in [offered, sent] {
        station.watch(&mut net, view);
    }
    let hear = |net: &mut Net, station: &mut Station| {
        net.router.flush();
        while station.hear(net) {}
        assert_eq!(station.tables[&sent], oracle(&net.router, sent));
        let ids = |view| station.tables[view].keys().filter(|nlri| nlri.path_id != PathId(0)).count();
        (ids(&offered), ids(&sent))
    };
    for peer in [a, b] {
        net.send(peer, "10.1.0.0/16", route(peer as u8, &[]));
        net.send(peer, "172.16.0.0/16", route(peer as u8, &[]));
    }
    assert_eq!(hear(&mut net, &mut station), (4, 2), "policy lets only one of the two go");
    net.take_back(a, "10.1.0.0/16");
    assert_eq!(hear(&mut net, &mut station), (3, 1));
    net.send(many, "10.1.0.0/16", route(9, &[]));
    assert_eq!(hear(&mut net, &mut station), (3, 1), "its own is none");
}

#[test]
fn every_table_has_its_turn() {
    let mut net = Net::new();
    let peers = [net.peer(client(), ASN), net.peer(client(), ASN)];
    let mut station = Station::open(&mut net);
    let views = peers.map(|peer| RibView::Received(net.mirrors[peer].id));
    for view in views {
        station.watch(&mut net, view);
    }
    while station.hear(&mut net) {}
    let mut heard = BTreeSet::new();
    for n in 0..60_u32 {
        // The first changes faster than the station hears of it.
        for more in 0..4 {
            net.send(peers[0], &format!("10.{n}.{more}.0/24"), route(1, &[]));
        }
        net.send(peers[1], B, route(2, &[n]));
        heard.extend(net.router.poll_news(station.id).map(|news| news.view));
    }
    assert_eq!(heard.len(), 3, "{heard:?}");
}
