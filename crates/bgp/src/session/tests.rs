//! Two sessions in virtual time, and single ones with a scripted peer.

use super::*;
use crate::{
    Asn, FamilySet, GracefulRestart,
    wire::{Capability, MESSAGE_BYTES_MAX},
};
use std::collections::BTreeMap;

const LATENCY: Duration = Duration::from_millis(20);

fn address(end: usize) -> IpAddr {
    [[192, 0, 2, 1], [192, 0, 2, 2]][end].into()
}

fn config(end: usize) -> SessionConfig {
    let asn = |end: usize| Asn(65_001 + end as u32);
    SessionConfig::new(asn(end), RouterId(end as u32 + 1), Some(asn(1 - end)))
}

/// Something that reaches an end later.
#[derive(Debug)]
enum Event {
    Connected(Side),
    Unreachable,
    Bytes(Vec<u8>),
    Closed,
}

/// Two sessions and the network between them.
struct Pair {
    now: Duration,
    ends: [Session; 2],
    queue: BTreeMap<(Duration, u64), (usize, ConnectionId, Event)>,
    events: u64,
    connections: u64,
    log: [Vec<Output>; 2],
    /// Nothing gets through.
    cut: bool,
    /// Connections cannot be opened.
    refused: bool,
}

impl Pair {
    fn new(configs: [SessionConfig; 2]) -> Self {
        let [a, b] = configs;
        Self {
            now: Duration::ZERO,
            ends: [Session::new(a, 1, Duration::ZERO), Session::new(b, 2, Duration::ZERO)],
            queue: BTreeMap::new(),
            events: 0,
            connections: 0,
            log: [Vec::new(), Vec::new()],
            cut: false,
            refused: false,
        }
    }

    fn up() -> Self {
        let mut pair = Self::new([config(0), config(1)]);
        pair.run_until(Duration::from_secs(10), Self::is_established);
        assert!(pair.is_established());
        pair
    }

    fn is_established(&self) -> bool {
        self.ends.iter().all(|end| end.state() == State::Established)
    }

    fn post(&mut self, end: usize, connection: ConnectionId, event: Event) {
        if !self.cut {
            self.events += 1;
            self.queue.insert((self.now + LATENCY, self.events), (end, connection, event));
        }
    }

    fn input(&mut self, end: usize, input: Input<'_>) {
        self.ends[end].handle(self.now, input);
        while let Some(output) = self.ends[end].poll_output() {
            match &output {
                Output::Connect if self.cut => {
                    self.events += 1;
                    let at = self.now + Duration::from_secs(1);
                    self.queue.insert((at, self.events), (end, ConnectionId(0), Event::Unreachable));
                }
                Output::Connect if self.refused => self.ends[end].handle(self.now, Input::ConnectFailed),
                Output::Connect => {
                    self.connections += 1;
                    let connection = ConnectionId(self.connections);
                    self.post(1 - end, connection, Event::Connected(Side::Incoming));
                    self.post(end, connection, Event::Connected(Side::Outgoing));
                }
                Output::Send { connection, bytes } => {
                    self.post(1 - end, *connection, Event::Bytes(bytes.clone()));
                }
                Output::Close { connection } => self.post(1 - end, *connection, Event::Closed),
                _ => {}
            }
            self.log[end].push(output);
        }
    }

    /// Lets the next thing happen.
    fn step(&mut self) {
        let timer = (0..2).filter_map(|end| Some((self.ends[end].poll_timeout()?, end))).min();
        let event = self.queue.first_key_value().map(|((at, _), _)| *at);
        match (event, timer) {
            (Some(at), timer) if timer.is_none_or(|(timer, _)| at <= timer) => {
                self.now = self.now.max(at);
                let (_, (end, connection, event)) = self.queue.pop_first().unwrap();
                let (local, peer) = (address(end), address(1 - end));
                match event {
                    Event::Connected(side) => {
                        self.input(end, Input::Connected { connection, side, local, peer });
                    }
                    Event::Unreachable => self.input(end, Input::ConnectFailed),
                    Event::Bytes(bytes) => self.input(end, Input::Received { connection, bytes: &bytes }),
                    Event::Closed => self.input(end, Input::Closed { connection }),
                }
            }
            (_, Some((at, end))) => {
                self.now = self.now.max(at);
                self.input(end, Input::Timer);
            }
            (_, None) => panic!("nothing will ever happen"),
        }
    }

    /// Runs until something holds, or for so long.
    fn run_until(&mut self, most: Duration, holds: impl Fn(&Self) -> bool) {
        let end = self.now + most;
        while self.now < end && !holds(self) {
            self.step();
        }
    }

    fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Why an end went down last.
    fn cause(&self, end: usize) -> &DownCause {
        &self.ends[end].last_down().expect("it went down").cause
    }
}

#[test]
fn both_sides_keep_the_opens_as_they_went_over_the_wire() {
    let pair = Pair::up();
    let opens = [0, 1].map(|end: usize| {
        let up = pair.log[end].iter().find_map(|output| match output {
            Output::Up { opens, .. } => Some(opens.clone()),
            _ => None,
        });
        up.unwrap()
    });
    for end in [0, 1] {
        assert_eq!(*opens[end].sent, *local_open(&config(end)).encode());
        assert_eq!(opens[end].sent, opens[1 - end].received);
    }
}

#[test]
fn two_that_connect_at_once_agree_on_one_connection() {
    let mut pair = Pair::up();
    pair.run(Duration::from_mins(1));
    assert!(pair.is_established());
    for end in &pair.ends {
        assert_eq!(end.connections.len(), 1);
        assert_eq!(end.counters().downs, 0);
    }
    let sides = pair.ends.each_ref().map(|end| end.connections[0].side);
    assert_eq!(sides, [Side::Incoming, Side::Outgoing], "that of the higher router id");
}

#[test]
fn what_is_agreed_on_is_what_both_offer() {
    let both: FamilySet = Family::ALL.into_iter().collect();
    let a = SessionConfig { families: both, add_path_send: both, ..config(0) };
    let mut b =
        SessionConfig { families: both, add_path_receive: both, extended_message: false, ..config(1) };
    b.families.remove(Family::Ipv4Unicast);
    b.timers.hold = Duration::from_secs(30);
    let mut pair = Pair::new([a, b]);
    pair.run_until(Duration::from_secs(10), Pair::is_established);
    let (agreed, _) = pair.ends[0].established().expect("established");
    let v6: FamilySet = [Family::Ipv6Unicast].into_iter().collect();
    assert_eq!(agreed.families, v6);
    assert_eq!((agreed.add_path_send, agreed.add_path_receive), (v6, FamilySet::NONE));
    assert_eq!((agreed.hold, agreed.keepalive), (Duration::from_secs(30), Duration::from_secs(10)));
    assert!(!agreed.extended_message && agreed.as4 && agreed.refresh && agreed.enhanced_refresh);
    assert_eq!(agreed.kind, PeerKind::External);
    assert_eq!(agreed.peer_id, RouterId(2));
}

#[test]
fn sessions_live_as_long_as_keepalives_come() {
    let mut configs = [config(0), config(1)];
    configs[0].timers.hold = Duration::from_secs(3);
    let mut pair = Pair::new(configs);
    pair.run(Duration::from_mins(5));
    assert!(pair.is_established());
    assert!(pair.ends.iter().all(|end| end.counters().downs == 0));
    pair.cut = true;
    pair.run_until(Duration::from_secs(10), |pair| pair.ends[0].counters().downs == 1);
    assert_eq!(*pair.cause(0), DownCause::Sent(Notification::hold_timer_expired()));
    pair.run_until(Duration::from_secs(10), |pair| pair.ends[1].counters().downs == 1);
    pair.cut = false;
    pair.run_until(Duration::from_mins(2), Pair::is_established);
    assert!(pair.is_established());
}

/// As where a virtual machine stood still for an hour.
#[test]
fn a_clock_that_jumps_ends_who_was_silent_and_nobody_else() {
    let keepalives = |pair: &Pair| pair.ends[0].counters().sent.keepalive;
    let mut pair = Pair::up();
    let connection = pair.ends[0].connections[0].id;
    pair.now += Duration::from_hours(1);
    let before = keepalives(&pair);
    // What came meanwhile waits to be read.
    pair.input(0, Input::Unread { connection });
    pair.input(0, Input::Timer);
    assert_eq!(pair.ends[0].state(), State::Established);
    assert_eq!(keepalives(&pair), before + 1, "one for all that were not sent");
    assert!(pair.ends[0].poll_timeout().is_some_and(|at| at > pair.now));
    pair.now += Duration::from_hours(1);
    pair.input(0, Input::Timer);
    assert_eq!(*pair.cause(0), DownCause::Sent(Notification::hold_timer_expired()));
    pair.run_until(Duration::from_mins(2), Pair::is_established);
    assert!(pair.is_established() && pair.ends[0].counters().downs == 1);
}

/// RFC 9687.
#[test]
fn who_takes_nothing_is_given_up_without_a_word() {
    let mut pair = Pair::up();
    assert_eq!(pair.ends[0].send_hold(), Some(Duration::from_mins(8)), "at least");
    let connection = pair.ends[0].connections[0].id;
    let sent = pair.ends[0].counters().sent;
    pair.input(0, Input::Stalled { connection });
    assert_eq!(*pair.cause(0), DownCause::SendHold(Duration::from_mins(8)));
    assert_eq!(pair.ends[0].counters().sent, sent);
    assert_eq!((pair.ends[0].state(), pair.ends[0].send_hold()), (State::Idle, None));
    let mut long = [config(0), config(1)];
    for config in &mut long {
        config.timers.hold = Duration::from_mins(10);
    }
    long[1].timers.send_hold = Some(Duration::from_secs(7));
    let mut pair = Pair::new(long);
    pair.run_until(Duration::from_secs(10), Pair::is_established);
    let times = pair.ends.each_ref().map(|end| end.send_hold().unwrap());
    assert_eq!(times, [Duration::from_mins(20), Duration::from_secs(7)], "twice the hold time, or as set");
}

#[test]
fn without_hold_time_silence_lasts() {
    let mut configs = [config(0), config(1)];
    configs[1].timers.hold = Duration::ZERO;
    let mut pair = Pair::new(configs);
    pair.run_until(Duration::from_secs(10), Pair::is_established);
    let sent = pair.ends[0].counters().sent.keepalive;
    assert_eq!(pair.ends[0].poll_timeout(), None);
    assert_eq!(pair.ends[0].send_hold(), None);
    assert!(sent <= 2, "one on each connection");
}

#[test]
fn shutdown_tells_the_other_operator_and_lasts() {
    let mut pair = Pair::up();
    pair.input(0, Input::Stop(StopReason::AdminShutdown(ShutdownText::new("new disks"))));
    pair.run(Duration::from_mins(5));
    assert_eq!(pair.ends[0].state(), State::Idle);
    assert!(pair.ends[0].is_stopped());
    let heard = pair.log[1].iter().find_map(|output| match output {
        Output::Down(Down { cause: DownCause::Received(notification), .. }) => notification.text(),
        _ => None,
    });
    assert_eq!(heard.as_deref(), Some("new disks"));
    pair.input(0, Input::Start);
    pair.run_until(Duration::from_mins(3), Pair::is_established);
    assert!(pair.is_established());
}

#[test]
fn reset_comes_back() {
    for reason in [
        StopReason::AdminReset(ShutdownText::default()),
        StopReason::ConfigChanged,
        StopReason::BfdDown,
        StopReason::OutOfResources,
    ] {
        let mut pair = Pair::up();
        pair.input(1, Input::Stop(reason.clone()));
        assert_eq!(pair.ends[1].state(), State::Idle);
        pair.run_until(Duration::from_mins(3), Pair::is_established);
        assert!(pair.is_established(), "{reason}");
    }
}

#[test]
fn too_many_prefixes_and_deconfiguration_stay_down() {
    let limit = StopReason::PrefixLimit { family: Family::Ipv4Unicast, max: 1_000 };
    for reason in [limit, StopReason::Deconfigured] {
        let mut pair = Pair::up();
        pair.input(1, Input::Stop(reason.clone()));
        pair.run(Duration::from_mins(10));
        assert_eq!(pair.ends[1].state(), State::Idle);
        assert_eq!(*pair.cause(1), DownCause::Stopped(reason));
    }
}

#[test]
fn pauses_grow_while_sessions_fail() {
    let mut configs = [config(0), config(1)];
    configs[1].peer_as = Some(Asn(7));
    let mut pair = Pair::new(configs);
    let mut last = Duration::ZERO;
    let mut pauses = Vec::new();
    for _ in 0..6 {
        pair.run_until(
            Duration::from_mins(5),
            |pair| matches!(pair.ends[1].will, Will::Pause { until, .. } if until > pair.now),
        );
        let Will::Pause { until, .. } = pair.ends[1].will else { panic!("no pause") };
        let pause = until.saturating_sub(pair.now);
        pauses.push(pause);
        last = last.max(pause);
        pair.run_until(Duration::from_mins(5), |pair| matches!(pair.ends[1].will, Will::Up { .. }));
    }
    assert!(pauses[0] <= Duration::from_secs(5), "{pauses:?}");
    assert!(last > Duration::from_secs(40) && last <= Duration::from_mins(1), "{pauses:?}");
    let wrong = DownCause::WrongAs { expected: ExpectedAs::Of(Asn(7)), came: pair.ends[0].config.local_as };
    assert_eq!(*pair.cause(1), wrong);
    assert!(matches!(pair.cause(0), DownCause::Received(_)));
}

#[test]
fn connections_that_fail_are_tried_again_quickly_then_slowly() {
    let mut pair = Pair::new([config(0), SessionConfig { passive: true, ..config(1) }]);
    pair.refused = true;
    pair.run(Duration::from_mins(3));
    assert_eq!(pair.ends[1].poll_timeout(), None, "a passive end opens nothing");
    let dials = pair.log[0].iter().filter(|output| **output == Output::Connect).count();
    assert!((8..=14).contains(&dials), "{dials}");
    pair.refused = false;
    pair.run_until(Duration::from_mins(1), Pair::is_established);
    assert!(pair.is_established());
}

#[test]
fn graceful_peers_keep_routes_over_a_lost_connection() {
    for (notification, hard) in [(false, false), (true, false), (true, true)] {
        let graceful = GracefulRestart { notification, ..GracefulRestart::default() };
        let configs =
            [0, 1].map(|end| SessionConfig { graceful_restart: Some(graceful.clone()), ..config(end) });
        let mut pair = Pair::new(configs);
        pair.run_until(Duration::from_secs(10), Pair::is_established);
        let id = pair.ends[0].connections[0].id;
        let reset = Notification::out_of_resources();
        let reset = if hard { reset.hard() } else { reset };
        pair.input(0, Input::Received { connection: id, bytes: &reset.encode() });
        let down = pair.ends[0].last_down().unwrap();
        assert_eq!(down.graceful, notification && !hard);
        pair.input(1, Input::Closed { connection: id });
        assert!(pair.ends[1].last_down().unwrap().graceful);
    }
}

#[test]
fn administrators_end_graceful_sessions_for_good() {
    let graceful = Some(GracefulRestart::default());
    let mut pair =
        Pair::new([0, 1].map(|end| SessionConfig { graceful_restart: graceful.clone(), ..config(end) }));
    pair.run_until(Duration::from_secs(10), Pair::is_established);
    pair.input(0, Input::Stop(StopReason::AdminShutdown(ShutdownText::new("bye"))));
    pair.run_until(Duration::from_secs(1), |pair| pair.ends[1].last_down().is_some());
    let down = pair.ends[1].last_down().unwrap();
    assert!(!down.graceful);
    assert!(matches!(&down.cause, DownCause::Received(notification) if notification.is_hard_reset()));
}

#[test]
fn a_peer_that_restarted_replaces_its_old_connection() {
    let graceful = Some(GracefulRestart::default());
    let configs = [0, 1].map(|end| SessionConfig { graceful_restart: graceful.clone(), ..config(end) });
    let mut pair = Pair::new(configs.clone());
    pair.run_until(Duration::from_secs(10), Pair::is_established);
    // The restarted end knows nothing, and says nothing on the old connection.
    pair.ends[1] = Session::new(configs[1].clone(), 3, pair.now);
    pair.queue.clear();
    pair.run_until(Duration::from_secs(10), |pair| pair.ends[0].counters().downs == 1);
    let down = pair.ends[0].last_down().unwrap();
    assert_eq!(*down, Down { cause: DownCause::Replaced, graceful: true, notification: None });
    pair.run_until(Duration::from_secs(1), Pair::is_established);
    assert!(pair.is_established());
}

#[test]
fn without_graceful_restart_a_second_connection_is_refused() {
    let mut pair = Pair::up();
    let new = ConnectionId(99);
    pair.input(
        0,
        Input::Connected { connection: new, side: Side::Incoming, local: address(0), peer: address(1) },
    );
    assert!(pair.log[0].contains(&Output::Close { connection: new }));
    assert!(pair.is_established());
}

#[test]
fn the_higher_id_then_the_higher_as_keeps_its_connection() {
    let mut pair = Pair::up();
    pair.run(Duration::from_secs(1));
    let agreed = pair.ends[0].established().unwrap().0;
    for (local, peer, stays) in
        [(2, 1, Side::Outgoing), (1, 2, Side::Incoming), (0xffff_fffe, 0x7fff_ffff, Side::Outgoing)]
    {
        let agreed = Negotiated { peer_id: RouterId(peer), ..(**agreed).clone() };
        assert_eq!(collision_winner(RouterId(local), &agreed), stays);
    }
    let equal = Negotiated { peer_id: RouterId(5), ..(**agreed).clone() };
    assert_eq!(collision_winner(RouterId(5), &equal), Side::Incoming, "65001 against 65002");
}

/// A session whose peer is the test. It has sent its OPEN.
struct Scripted {
    session: Session,
    now: Duration,
}

const CONNECTION: ConnectionId = ConnectionId(1);

impl Scripted {
    fn new(config: SessionConfig) -> Self {
        let mut session = Session::new(config, 7, Duration::ZERO);
        let now = Duration::from_secs(1);
        session.handle(now, Input::Timer);
        let (local, peer) = (address(0), address(1));
        session.handle(now, Input::Connected { connection: CONNECTION, side: Side::Outgoing, local, peer });
        Self { session, now }
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.session.handle(self.now, Input::Received { connection: CONNECTION, bytes });
    }

    /// The last NOTIFICATION that went out, as code and subcode.
    fn notification(&mut self) -> Option<(u8, u8)> {
        let mut last = None;
        while let Some(output) = self.session.poll_output() {
            if let Output::Send { bytes, .. } = output {
                let frame = frame(&bytes, MESSAGE_BYTES_MAX).unwrap().unwrap();
                if frame.kind == MessageKind::Notification {
                    let notification = Notification::decode(frame.body);
                    last = Some((notification.code, notification.subcode));
                }
            }
        }
        last
    }
}

fn open(change: impl FnOnce(&mut Open)) -> Vec<u8> {
    let mut open = local_open(&config(1));
    change(&mut open);
    open.encode()
}

#[test]
fn opens_are_judged_in_order() {
    let internal = |open: &mut Open| {
        open.capabilities.retain(|capability| !matches!(capability, Capability::FourByteAs(_)));
        open.as_field = 65_001;
        open.router_id = 1;
    };
    let v6 = Capability::Multiprotocol(Family::Ipv6Unicast.afi_safi());
    let any_as = SessionConfig { peer_as: None, ..config(0) };
    let of_kind = |kind| SessionConfig { peer_kind: Some(kind), ..any_as.clone() };
    for (config, bytes, expected) in [
        (config(0), open(|open| open.capabilities.push(Capability::FourByteAs(Asn(9)))), None),
        (config(0), open(|open| open.capabilities.insert(0, Capability::FourByteAs(Asn(9)))), Some((2, 2))),
        (
            any_as.clone(),
            open(|open| open.capabilities.insert(0, Capability::FourByteAs(Asn(0)))),
            Some((2, 2)),
        ),
        (config(0), open(|open| open.router_id = 0), Some((2, 3))),
        (any_as.clone(), open(internal), Some((2, 3))),
        (of_kind(PeerKind::External), open(internal), Some((2, 2))),
        (of_kind(PeerKind::External), open(|_| ()), None),
        (of_kind(PeerKind::Internal), open(|_| ()), Some((2, 2))),
        (config(0), open(|open| open.router_id = 1), None),
        (config(0), open(|open| open.hold_time = 1), Some((2, 6))),
        (config(0), open(|open| open.hold_time = 2), Some((2, 6))),
        (config(0), open(|open| open.hold_time = 0), None),
        (config(0), open(|open| (open.as_field, open.capabilities) = (23_456, Vec::new())), Some((2, 2))),
        (config(0), open(|open| open.capabilities = vec![v6.clone()]), Some((2, 7))),
    ] {
        let mut scripted = Scripted::new(config);
        scripted.receive(&bytes);
        assert_eq!(scripted.notification(), expected);
        let state = if expected.is_none() { State::OpenConfirm } else { State::Idle };
        assert_eq!(scripted.session.state(), state);
    }
}

#[test]
fn messages_that_do_not_belong_into_a_state_end_it() {
    let update = [&[0xff; 16][..], &[0, 23, 2, 0, 0, 0, 0]].concat();
    let keepalive = encode_keepalive();
    let good = open(|_| ());
    for (messages, expected) in [
        (vec![&keepalive], (5, 1)),
        (vec![&update], (5, 1)),
        (vec![&good, &update], (5, 2)),
        (vec![&good, &good], (5, 2)),
        (vec![&good, &keepalive, &good], (5, 3)),
    ] {
        let mut scripted = Scripted::new(config(0));
        for message in messages {
            scripted.receive(message);
        }
        assert_eq!(scripted.notification(), Some(expected));
        assert_eq!(scripted.session.state(), State::Idle);
    }
}

#[test]
fn messages_come_in_any_pieces() {
    let update = [&[0xff; 16][..], &[0, 26, 2, 0, 3, 16, 10, 1, 0, 0]].concat();
    let stream =
        [open(|_| ()), encode_keepalive(), update.clone(), encode_keepalive(), update.clone()].concat();
    for size in [1, 2, 18, 19, 20, 33, stream.len()] {
        let mut scripted = Scripted::new(config(0));
        scripted.session.record_updates(size != 1);
        stream.chunks(size).for_each(|piece| scripted.receive(piece));
        let (mut updates, mut recorded) = (0, Vec::new());
        while let Some(output) = scripted.session.poll_output() {
            updates += usize::from(matches!(output, Output::Update(_)));
            if let Output::Recorded(bytes) = output {
                recorded.push(bytes);
            }
        }
        assert_eq!(updates, 2, "pieces of {size}");
        assert_eq!(recorded, vec![update.clone(); if size == 1 { 0 } else { 2 }], "as they came, if wanted");
        assert_eq!(scripted.session.counters().received.keepalive, 2);
    }
}

#[test]
fn silence_before_the_open_ends_a_connection() {
    let mut scripted = Scripted::new(config(0));
    assert_eq!(scripted.session.poll_timeout(), Some(scripted.now + OPEN_HOLD));
    scripted.now += OPEN_HOLD;
    scripted.session.handle(scripted.now, Input::Timer);
    assert_eq!(scripted.notification(), Some((4, 0)));
}

#[test]
fn a_peer_is_not_silent_while_we_do_not_listen() {
    let mut configs = config(0);
    configs.timers.hold = Duration::from_secs(3);
    let mut scripted = Scripted::new(configs);
    scripted.session.handle(scripted.now, Input::Unread { connection: CONNECTION });
    assert_eq!(scripted.session.poll_timeout(), Some(scripted.now + OPEN_HOLD), "it counts once established");
    scripted.receive(&[open(|_| ()), encode_keepalive()].concat());
    for _ in 0..3 {
        scripted.now += Duration::from_secs(3);
        scripted.session.handle(scripted.now, Input::Unread { connection: CONNECTION });
        scripted.session.handle(scripted.now, Input::Timer);
        assert_eq!(scripted.notification(), None);
    }
    scripted.now += Duration::from_secs(3);
    scripted.session.handle(scripted.now, Input::Timer);
    assert_eq!(scripted.notification(), Some((4, 0)));
}

#[test]
fn bad_updates_end_the_session_with_their_code() {
    let mut scripted = Scripted::new(config(0));
    scripted.receive(&[open(|_| ()), encode_keepalive()].concat());
    assert!(scripted.session.established().is_some());
    scripted.receive(&[&[0xff; 16][..], &[0, 26, 2, 0, 3, 40, 10, 1, 0, 0]].concat());
    assert_eq!(scripted.notification(), Some((3, 10)));
    assert!(!scripted.session.last_down().unwrap().graceful);
}

#[test]
fn refreshes_are_asked_for_and_heard() {
    let mut pair = Pair::up();
    pair.input(0, Input::SendRefresh(Family::Ipv4Unicast));
    pair.input(0, Input::SendRefresh(Family::Ipv6Unicast));
    pair.run(Duration::from_secs(1));
    let heard: Vec<_> = pair.log[1].iter().filter(|output| matches!(output, Output::Refresh(_))).collect();
    assert_eq!(heard.len(), 1);
}

#[test]
fn an_end_that_is_down_refuses_connections() {
    let mut pair = Pair::new([SessionConfig { admin_down: true, ..config(0) }, config(1)]);
    pair.run(Duration::from_mins(2));
    assert_eq!(pair.ends[0].state(), State::Idle);
    assert_eq!(*pair.cause(1), DownCause::Received(Notification::rejected()));
}

#[test]
fn sessions_recover_from_any_cut() {
    for millis in (0..400).step_by(7) {
        let mut pair = Pair::new([config(0), config(1)]);
        pair.run(Duration::from_millis(millis));
        pair.cut = true;
        for ((at, n), (end, connection, event)) in std::mem::take(&mut pair.queue) {
            // A connection that was being opened is not; all else is lost.
            if matches!(event, Event::Connected(Side::Outgoing)) {
                pair.queue.insert((at, n), (end, connection, Event::Unreachable));
            }
        }
        pair.run(Duration::from_mins(6));
        pair.cut = false;
        pair.run_until(Duration::from_mins(10), Pair::is_established);
        assert!(pair.is_established(), "cut after {millis} ms");
    }
}

#[test]
fn a_clock_that_jumps_far_ahead_is_one_silence() {
    let mut pair = Pair::up();
    pair.now += Duration::from_hours(10_000);
    pair.queue.clear();
    pair.run_until(Duration::from_mins(10), |pair| {
        pair.ends[0].counters().downs == 1 && pair.is_established()
    });
    assert!(pair.is_established());
    assert_eq!(*pair.cause(0), DownCause::Sent(Notification::hold_timer_expired()));
    pair.run(Duration::from_mins(10));
    assert!(pair.is_established());
    assert!(pair.ends.iter().all(|end| end.counters().downs == 1));
}

#[test]
fn who_is_in_another_as_is_refused_with_both_numbers() {
    let mut scripted = Scripted::new(SessionConfig { peer_as: Some(Asn(7)), ..config(0) });
    scripted.receive(&open(|_| ()));
    let cause = scripted.session.last_down().unwrap().cause.to_string();
    assert!(cause.starts_with(&format!("refused: AS 7 expected, {} came", config(1).local_as)), "{cause}");
    assert!(scripted.session.waits().is_some_and(|lasts| lasts > Duration::ZERO), "it waits");
}
