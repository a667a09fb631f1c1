//! Whole speakers, sessions and routes together, in virtual time: a reflector between clients of two clusters.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

use isthmus_bgp::{
    AcceptAll, Asn, Attributes, Family, GracefulRestart, NextHop, Origin, PeerConfig, PeerId, Policy, Prefix,
    Router, RouterConfig, RouterId, Session, SessionConfig,
    session::{ConnectionId, Input, Output, Side, State, StopReason},
    wire::ShutdownText,
};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

const ASN: Asn = Asn(64_511);
const LATENCY: Duration = Duration::from_millis(1);
const REFLECTOR: usize = 0;

/// One end of a session.
struct End {
    other: usize,
    peer: PeerId,
    session: Session,
    established: Option<ConnectionId>,
}

struct Speaker {
    router: Router,
    ends: Vec<End>,
}

enum Event {
    Connected(Side),
    Bytes(Arc<[u8]>),
    Closed,
}

/// A reflector, which is speaker 0, and its clients.
struct Net {
    now: Duration,
    speakers: Vec<Speaker>,
    queue: BTreeMap<(Duration, u64), (usize, usize, ConnectionId, Event)>,
    count: u64,
}

fn address(speaker: usize) -> IpAddr {
    [172, 16, 18, speaker as u8 + 1].into()
}

impl Net {
    fn new(clients: usize, graceful: bool) -> Self {
        let policy: Arc<dyn Policy> = Arc::new(AcceptAll);
        let mut net = Self { now: Duration::ZERO, speakers: Vec::new(), queue: BTreeMap::new(), count: 0 };
        let id = |speaker: usize| RouterId(0xac10_1201 + speaker as u32);
        for speaker in 0..=clients {
            let router = Router::new(RouterConfig::new(ASN, id(speaker)));
            net.speakers.push(Speaker { router, ends: Vec::new() });
        }
        for (speaker, other) in (1..=clients).flat_map(|client| [(REFLECTOR, client), (client, REFLECTOR)]) {
            let mut config = PeerConfig::new(Arc::clone(&policy), Arc::clone(&policy));
            config.reflector_client = speaker == REFLECTOR;
            let session = SessionConfig {
                graceful_restart: graceful.then(GracefulRestart::default),
                ..SessionConfig::new(ASN, id(speaker), Some(ASN))
            };
            let session = Session::new(session, (speaker * 1_000 + other) as u64, Duration::ZERO);
            let Speaker { router, ends } = &mut net.speakers[speaker];
            ends.push(End { other, peer: router.add_peer(config), session, established: None });
        }
        net
    }

    fn post(&mut self, speaker: usize, other: usize, connection: ConnectionId, event: Event) {
        self.count += 1;
        self.queue.insert((self.now + LATENCY, self.count), (speaker, other, connection, event));
    }

    /// Gives a session an input, does what it says, and sends what its speaker's peers shall hear.
    fn input(&mut self, speaker: usize, other: usize, input: Input<'_>) {
        let now = self.now;
        let at = self.speakers[speaker].ends.iter().position(|end| end.other == other).unwrap();
        self.speakers[speaker].ends[at].session.handle(now, input);
        while let Some(output) = self.speakers[speaker].ends[at].session.poll_output() {
            let Speaker { router, ends } = &mut self.speakers[speaker];
            let end = &mut ends[at];
            match output {
                Output::Connect => {
                    self.count += 1;
                    let connection = ConnectionId(self.count);
                    self.post(other, speaker, connection, Event::Connected(Side::Incoming));
                    self.post(speaker, other, connection, Event::Connected(Side::Outgoing));
                }
                Output::Send { connection, bytes } => {
                    self.post(other, speaker, connection, Event::Bytes(bytes.into()));
                }
                Output::Close { connection } => self.post(other, speaker, connection, Event::Closed),
                Output::Up { connection, negotiated, .. } => {
                    end.established = Some(connection);
                    router.session_up(end.peer, &negotiated, now);
                }
                Output::Down(down) => {
                    end.established = None;
                    router.session_down(end.peer, down.graceful, now);
                }
                Output::Update(update) => router.receive(end.peer, *update, now).unwrap(),
                Output::Refresh(refresh) => router.refresh(end.peer, refresh, now),
                Output::Recorded(_) | Output::StateChanged(_) => {}
            }
        }
        self.tell(speaker);
    }

    fn tell(&mut self, speaker: usize) {
        for at in 0..self.speakers[speaker].ends.len() {
            let Speaker { router, ends } = &mut self.speakers[speaker];
            let (peer, other) = (ends[at].peer, ends[at].other);
            let Some(connection) = ends[at].established else { continue };
            for bytes in router.next_updates(peer, usize::MAX) {
                self.post(other, speaker, connection, Event::Bytes(bytes));
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let ends = self.speakers.iter().enumerate().flat_map(|(n, speaker)| {
                speaker.ends.iter().filter_map(move |end| Some((end.session.poll_timeout()?, n, end.other)))
            });
            let timer = ends.min();
            let event = self.queue.first_key_value().map(|((at, _), _)| *at);
            if event.is_some_and(|at| timer.is_none_or(|(timer, ..)| at <= timer)) {
                let ((at, _), (speaker, other, connection, event)) = self.queue.pop_first().unwrap();
                self.now = self.now.max(at);
                let (local, peer) = (address(speaker), address(other));
                match event {
                    Event::Connected(side) => {
                        self.input(speaker, other, Input::Connected { connection, side, local, peer });
                    }
                    Event::Bytes(bytes) => {
                        self.input(speaker, other, Input::Received { connection, bytes: &bytes });
                    }
                    Event::Closed => self.input(speaker, other, Input::Closed { connection }),
                }
            } else if let Some((at, speaker, other)) = timer {
                self.now = self.now.max(at);
                self.input(speaker, other, Input::Timer);
            }
            for speaker in 0..self.speakers.len() {
                let router = &mut self.speakers[speaker].router;
                if router.poll_timeout().is_some_and(|at| at <= self.now) {
                    router.handle_timeout(self.now);
                    self.tell(speaker);
                }
            }
        }
    }

    fn announce(&mut self, speaker: usize, prefix: Prefix) {
        let now = self.now;
        self.speakers[speaker].router.announce(prefix, Attributes::local(Origin::Igp), now);
        self.tell(speaker);
    }

    fn prefixes(&self, speaker: usize) -> Vec<String> {
        let routes = self.speakers[speaker].router.destinations(Family::Ipv4Unicast);
        let mut prefixes: Vec<_> = routes.map(|destination| destination.prefix.to_string()).collect();
        prefixes.sort();
        prefixes
    }
}

/// The block of a client: three nodes of one cluster, three of another.
fn block(client: usize) -> Prefix {
    let third = if client <= 3 { 0 } else { 128 };
    Prefix::new([192, 168, third, ((client - 1) % 3 * 64) as u8].into(), 26).unwrap()
}

fn up(graceful: bool) -> Net {
    let mut net = Net::new(6, graceful);
    for client in 1..=6 {
        net.announce(client, block(client));
    }
    net.run(Duration::from_secs(20));
    let state = |end: &End| end.session.state() == State::Established;
    assert!(net.speakers.iter().flat_map(|speaker| &speaker.ends).all(state));
    net
}

#[test]
fn every_node_knows_the_blocks_of_all_and_whose_they_are() {
    let net = up(false);
    let all = net.prefixes(REFLECTOR);
    assert_eq!(all.len(), 6);
    for client in 1..=6 {
        assert_eq!(net.prefixes(client), all);
        let router = &net.speakers[client].router;
        for other in (1..=6).filter(|other| *other != client) {
            let found = router.lookup(&block(other)).unwrap();
            assert_eq!(found.paths.len(), 1);
            let attributes = found.paths[0].attributes;
            assert_eq!(attributes.next_hop, Some(NextHop::from(address(other))));
            assert_eq!(attributes.originator_id, Some(RouterId(0xac10_1201 + other as u32)));
            assert_eq!(*attributes.cluster_list, [RouterId(0xac10_1201)]);
            assert_eq!(attributes.local_pref, Some(100));
        }
    }
}

#[test]
fn a_node_that_goes_takes_its_block_along() {
    let mut net = up(false);
    let reason = StopReason::AdminShutdown(ShutdownText::new("drained"));
    net.input(4, REFLECTOR, Input::Stop(reason));
    net.run(Duration::from_secs(1));
    for client in [1, 2, 3, 5, 6] {
        assert_eq!(net.prefixes(client).len(), 5);
    }
    assert_eq!(net.prefixes(4).len(), 1);
    net.input(4, REFLECTOR, Input::Start);
    net.run(Duration::from_secs(30));
    assert!((1..=6).all(|client| net.prefixes(client).len() == 6));
}

#[test]
fn a_connection_that_breaks_moves_no_route_under_graceful_restart() {
    let mut net = up(true);
    let end = &net.speakers[REFLECTOR].ends[3];
    assert_eq!(end.other, 4);
    let connection = end.established.unwrap();
    net.queue.clear();
    net.input(REFLECTOR, 4, Input::Closed { connection });
    net.input(4, REFLECTOR, Input::Closed { connection });
    let changes = |net: &mut Net| std::iter::from_fn(|| net.speakers[1].router.poll_change()).count();
    changes(&mut net);
    net.run(Duration::from_mins(1));
    assert_eq!(net.speakers[REFLECTOR].ends[3].session.state(), State::Established);
    assert_eq!(changes(&mut net), 0);
    assert!((1..=6).all(|client| net.prefixes(client).len() == 6));
}
