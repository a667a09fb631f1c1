//! Two sessions in virtual time, and single ones with a scripted peer.

use super::*;
use std::collections::BTreeMap;

const LATENCY: Duration = Duration::from_millis(5);

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn timing(tx: u64, rx: u64, multiplier: u8) -> Timing {
    Timing { desired_min_tx: millis(tx), required_min_rx: millis(rx), multiplier }
}

const USUAL: (u64, u64, u8) = (300, 300, 3);

fn number(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

/// Two sessions and the network between them.
struct Pair {
    now: Duration,
    ends: [Session; 2],
    queue: BTreeMap<(Duration, u64), (usize, [u8; PACKET_BYTES])>,
    packets: u64,
    log: [Vec<(Duration, Output)>; 2],
    /// Nothing of this end gets through.
    cut: [bool; 2],
    /// Per cent of packets that are lost, at random.
    loss: u64,
    random: Jitter,
}

impl Pair {
    fn new(one: (u64, u64, u8), other: (u64, u64, u8), seed: u64) -> Self {
        let end = |(tx, rx, multiplier), n: u32| {
            Session::new(timing(tx, rx, multiplier), number(n), seed + u64::from(n), Duration::ZERO)
        };
        Self {
            now: Duration::ZERO,
            ends: [end(one, 11), end(other, 22)],
            queue: BTreeMap::new(),
            packets: 0,
            log: [Vec::new(), Vec::new()],
            cut: [false; 2],
            loss: 0,
            random: Jitter::new(seed),
        }
    }

    fn up(one: (u64, u64, u8), other: (u64, u64, u8)) -> Self {
        let mut pair = Self::new(one, other, 1);
        pair.run_until(Duration::from_secs(10), Self::is_up);
        assert!(pair.is_up());
        // The poll sequences end, and both know the other's pace.
        pair.run(Duration::from_secs(3));
        pair
    }

    fn is_up(&self) -> bool {
        self.ends.iter().all(|end| end.state() == State::Up)
    }

    fn input(&mut self, end: usize, input: Input<'_>) {
        self.ends[end].handle(self.now, input);
        while let Some(output) = self.ends[end].poll_output() {
            if let Output::Send(packet) = output {
                self.packets += 1;
                let drawn = self.random.between(Duration::ZERO, Duration::from_secs(100)).as_secs();
                if !self.cut[end] && drawn >= self.loss {
                    self.queue.insert((self.now + LATENCY, self.packets), (1 - end, packet.encode()));
                }
            }
            self.log[end].push((self.now, output));
        }
    }

    fn step(&mut self) {
        let timer = (0..2).filter_map(|end| Some((self.ends[end].poll_timeout()?, end))).min();
        let event = self.queue.first_key_value().map(|((at, _), _)| *at);
        match (event, timer) {
            (Some(at), timer) if timer.is_none_or(|(timer, _)| at <= timer) => {
                self.now = self.now.max(at);
                let (_, (end, bytes)) = self.queue.pop_first().unwrap();
                let packet = Packet::decode(&bytes).unwrap();
                self.input(end, Input::Received(&packet));
            }
            (_, Some((at, end))) => {
                self.now = self.now.max(at);
                self.input(end, Input::Timer);
            }
            (_, None) => panic!("nothing will ever happen"),
        }
    }

    fn run_until(&mut self, most: Duration, holds: impl Fn(&Self) -> bool) {
        let end = self.now + most;
        while self.now < end && !holds(self) {
            self.step();
        }
    }

    fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    fn sent(&self, end: usize) -> impl Iterator<Item = (Duration, Packet)> {
        self.log[end].iter().filter_map(|(at, output)| match output {
            Output::Send(packet) => Some((*at, *packet)),
            _ => None,
        })
    }

    /// When and why an end went down.
    fn downs(&self, end: usize) -> Vec<(Duration, Reason)> {
        let downs = self.log[end].iter().filter_map(|(at, output)| match output {
            Output::Down(reason) => Some((*at, *reason)),
            _ => None,
        });
        downs.collect()
    }

    /// Pauses between packets from some time on, without answers to polls.
    fn pauses(&self, end: usize, from: Duration) -> Vec<Duration> {
        let times: Vec<Duration> =
            self.sent(end).filter(|(at, packet)| *at >= from && !packet.is_final).map(|(at, _)| at).collect();
        times.windows(2).map(|pair| pair[1].checked_sub(pair[0]).unwrap()).collect()
    }
}

#[test]
fn two_find_each_other_and_agree_on_a_pace() {
    let mut pair = Pair::up(USUAL, (500, 100, 5));
    assert!(pair.now < Duration::from_secs(6));
    let from = pair.now;
    pair.run(Duration::from_mins(1));
    // The slower of what one likes to send and the other likes to receive.
    for (end, every) in [(0, 300), (1, 500)] {
        let pauses = pair.pauses(end, from);
        assert!(pauses.len() > 100, "{}", pauses.len());
        assert!(
            pauses.iter().all(|pause| (millis(every) * 3 / 4..=millis(every)).contains(pause)),
            "{pauses:?}"
        );
        assert!(pauses.iter().max() > pauses.iter().min(), "jitter");
    }
    assert_eq!(pair.ends[0].detection_time(), Some(millis(500 * 5)));
    assert_eq!(pair.ends[1].detection_time(), Some(millis(300 * 3)));
    assert_eq!(pair.downs(0), []);
}

#[test]
fn packets_are_slow_until_the_session_is_up() {
    let mut pair = Pair::new(USUAL, USUAL, 1);
    pair.cut = [true; 2];
    pair.run(Duration::from_mins(1));
    let pauses = pair.pauses(0, Duration::ZERO);
    assert!(pauses.iter().all(|pause| (millis(750)..=millis(1000)).contains(pause)), "{pauses:?}");
    assert!(
        pair.sent(0)
            .all(|(_, packet)| packet.desired_min_tx == SLOW_TX && packet.your_discriminator.is_none())
    );
}

#[test]
fn a_poll_sequence_tells_the_new_pace_and_lasts_until_it_is_answered() {
    let mut pair = Pair::new(USUAL, USUAL, 1);
    pair.run_until(Duration::from_secs(10), |pair| pair.ends[0].state() == State::Up);
    let from = pair.now;
    // Neither the poll nor its answer arrive for a while.
    pair.cut = [true, false];
    pair.queue.clear();
    pair.run(millis(500));
    let polls = |pair: &Pair| pair.sent(0).filter(|(at, packet)| *at >= from && packet.is_poll).count();
    assert!(polls(&pair) >= 2);
    pair.cut = [false; 2];
    pair.run(Duration::from_secs(3));
    assert!(pair.is_up());
    let before = polls(&pair);
    pair.run(Duration::from_secs(10));
    assert_eq!(polls(&pair), before, "it was answered");
    assert!(pair.sent(1).any(|(_, packet)| packet.is_final && !packet.is_poll));
    let slow = Pair::up((1000, 1000, 3), (1000, 1000, 3));
    assert!(slow.sent(0).all(|(_, packet)| !packet.is_poll), "nothing changes, nothing is polled");
}

#[test]
fn a_cut_is_found_within_the_detection_time() {
    for (one, other) in [(USUAL, USUAL), ((100, 100, 3), (50, 100, 5)), ((1000, 1000, 3), (100, 100, 3))] {
        for seed in 0..20 {
            let mut pair = Pair::up(one, other);
            pair.run(millis(37 * seed));
            let detection = pair.ends.each_ref().map(|end| end.detection_time().unwrap());
            let cut_at = pair.now;
            pair.cut = [true; 2];
            pair.run_until(Duration::from_mins(1), |pair| {
                pair.ends.iter().all(|end| end.state() != State::Up)
            });
            for (end, detection) in detection.into_iter().enumerate() {
                let downs = pair.downs(end);
                let [(at, reason)] = downs[..] else { panic!("{downs:?}") };
                assert_eq!(reason, Reason::Silence(detection));
                assert!(at <= cut_at + detection + LATENCY, "{at:?} {cut_at:?} {detection:?}");
                assert!(at + millis(301) >= cut_at + detection * 2 / 3, "not at the first lost packet");
            }
            // RFC 5880 section 6.8.1: the other is forgotten, and found again.
            assert!(pair.ends.iter().all(|end| end.remote().is_none()));
            pair.cut = [false; 2];
            pair.run_until(Duration::from_secs(10), Pair::is_up);
            assert!(pair.is_up());
        }
    }
}

#[test]
fn a_path_that_is_cut_one_way_is_down_for_both() {
    let mut pair = Pair::up(USUAL, USUAL);
    pair.cut = [true, false];
    pair.run_until(Duration::from_secs(2), |pair| pair.ends.iter().all(|end| end.state() != State::Up));
    assert!(matches!(pair.downs(1)[..], [(_, Reason::Silence(_))]));
    let [(at, reason)] = pair.downs(0)[..] else { panic!("{:?}", pair.downs(0)) };
    assert_eq!(reason, Reason::Peer(Diagnostic::DETECTION_TIME_EXPIRED));
    assert!(at <= pair.downs(1)[0].0 + LATENCY, "told at once");
    // It stays so while it is so.
    pair.run(Duration::from_mins(1));
    assert!(pair.ends.iter().all(|end| end.state() != State::Up));
    assert_eq!(pair.downs(0).len(), 1);
}

#[test]
fn a_clock_that_jumps_is_one_silence_and_no_burst() {
    let mut pair = Pair::up(USUAL, USUAL);
    pair.now += Duration::from_hours(1);
    let from = pair.now;
    pair.run(millis(10));
    let burst = pair.sent(0).filter(|(at, _)| *at >= from).count();
    assert!(burst <= 2, "{burst} packets at once");
    pair.run_until(Duration::from_secs(20), |pair| pair.is_up() && pair.now > from + millis(100));
    assert!(pair.is_up());
    assert!(pair.downs(0).len() <= 1, "{:?}", pair.downs(0));
}

#[test]
fn single_losses_are_survived() {
    let mut pair = Pair::up((100, 100, 5), (100, 100, 5));
    pair.loss = 5;
    pair.run(Duration::from_mins(10));
    assert!(pair.is_up());
    assert_eq!((pair.downs(0), pair.downs(1)), (vec![], vec![]));
}

#[test]
fn whatever_is_lost_both_are_up_in_the_end() {
    for seed in 0..50 {
        let mut pair = Pair::new(USUAL, (50, 200, 2), seed);
        pair.loss = 40;
        pair.run(Duration::from_mins(2));
        pair.loss = 0;
        pair.run(Duration::from_secs(20));
        assert!(pair.is_up(), "seed {seed}");
        let downs = pair.downs(0).len() + pair.downs(1).len();
        assert!(downs > 0, "seed {seed}: losses like these take it down");
        pair.run(Duration::from_mins(1));
        assert_eq!(pair.downs(0).len() + pair.downs(1).len(), downs, "seed {seed}: and then it stays up");
    }
}

#[test]
fn an_administrator_stops_it_without_the_path_being_broken() {
    let mut pair = Pair::up(USUAL, USUAL);
    pair.input(0, Input::Stop);
    pair.input(0, Input::Stop);
    assert_eq!(pair.downs(0).len(), 1);
    pair.run(Duration::from_mins(1));
    assert!(matches!(pair.downs(0)[..], [(_, Reason::Stopped)]));
    assert!(matches!(pair.downs(1)[..], [(_, Reason::PeerStopped)]));
    assert_eq!(pair.ends.each_ref().map(Session::state), [State::AdminDown, State::Down]);
    let (_, last) = pair.sent(0).last().unwrap();
    assert_eq!((last.state, last.diagnostic), (State::AdminDown, Diagnostic::ADMIN_DOWN));
    pair.input(0, Input::Start);
    pair.run_until(Duration::from_secs(10), Pair::is_up);
    assert!(pair.is_up());
}

#[test]
fn a_peer_that_started_anew_is_noticed_and_found_again() {
    let mut pair = Pair::up(USUAL, USUAL);
    pair.ends[1] = Session::new(timing(300, 300, 3), number(33), 5, pair.now);
    pair.queue.clear();
    pair.run_until(Duration::from_secs(2), |pair| !pair.downs(0).is_empty());
    assert_eq!(pair.downs(0)[0].1, Reason::Peer(Diagnostic::NONE));
    pair.run_until(Duration::from_secs(10), Pair::is_up);
    assert_eq!(pair.ends[0].remote().unwrap().discriminator, number(33));
}

/// What a peer sends whose session 22 is up with ours, 11.
fn heard(state: State) -> Packet {
    Packet {
        diagnostic: Diagnostic::NONE,
        state,
        is_poll: false,
        is_final: false,
        is_independent: false,
        is_demand: false,
        multiplier: 3,
        my_discriminator: number(22),
        your_discriminator: Some(number(11)),
        desired_min_tx: millis(300),
        required_min_rx: millis(300),
    }
}

/// A session in this state, and what it answers to these packets.
fn scripted(packets: &[Packet]) -> (Session, Vec<Output>) {
    let mut session = Session::new(timing(300, 300, 3), number(11), 1, Duration::ZERO);
    for packet in packets {
        session.handle(millis(1), Input::Received(packet));
    }
    let mut outputs = Vec::new();
    while let Some(output) = session.poll_output() {
        outputs.push(output);
    }
    (session, outputs)
}

/// RFC 5880 section 6.2 and the end of 6.8.6, all of it.
#[test]
fn every_state_does_with_every_state_what_the_rfc_says() {
    use State::{AdminDown, Down, Init, Up};
    let reach: [(State, &[State]); 3] = [(Down, &[]), (Init, &[Down]), (Up, &[Down, Init])];
    for (state, way) in reach {
        for (told, expected) in [
            (AdminDown, Down),
            (Down, if state == Down { Init } else { [Down, Init][usize::from(state == Init)] }),
            (Init, Up),
            (Up, if state == Down { Down } else { Up }),
        ] {
            let way: Vec<Packet> = way.iter().chain([&told]).map(|state| heard(*state)).collect();
            assert_eq!(scripted(&way).0.state(), expected, "{state} hears {told}");
        }
    }
    let mut stopped = scripted(&[]).0;
    stopped.handle(millis(1), Input::Stop);
    for told in [AdminDown, Down, Init, Up] {
        stopped.handle(millis(2), Input::Received(&heard(told)));
        assert_eq!(stopped.state(), AdminDown);
    }
}

#[test]
fn packets_of_other_sessions_are_not_heard() {
    let foreign = Packet { your_discriminator: Some(number(12)), ..heard(State::Down) };
    let nobody = Packet { your_discriminator: None, ..heard(State::Init) };
    for packet in [foreign, nobody] {
        let (session, outputs) = scripted(&[packet]);
        assert_eq!((session.state(), session.remote(), outputs.len()), (State::Down, None, 0));
    }
    let first = Packet { your_discriminator: None, ..heard(State::Down) };
    assert_eq!(scripted(&[first]).0.state(), State::Init);
}

#[test]
fn a_poll_is_answered_at_once() {
    let up = [heard(State::Down), heard(State::Init)];
    let (_, before) = scripted(&up);
    let (_, outputs) = scripted(&[up[0], up[1], Packet { is_poll: true, ..heard(State::Up) }]);
    let [Output::Send(answer)] = outputs[before.len()..] else { panic!("{outputs:?}") };
    assert!(answer.is_final && !answer.is_poll);
}

#[test]
fn a_peer_that_wants_no_packets_gets_none() {
    let up = [heard(State::Down), heard(State::Init), Packet { is_final: true, ..heard(State::Up) }];
    let detection = millis(1) + millis(900);
    let (session, _) = scripted(&up);
    assert!(session.poll_timeout().unwrap() < millis(302));
    let demand = Packet { is_demand: true, ..heard(State::Up) };
    let none = Packet { required_min_rx: Duration::ZERO, ..heard(State::Up) };
    for last in [demand, none] {
        let (session, _) = scripted(&[up[0], up[1], up[2], last]);
        assert_eq!(session.poll_timeout(), Some(detection), "only silence is waited for");
    }
    // Demand counts where both are up, and not while a poll is without its answer.
    let (session, _) = scripted(&[up[0], up[1], demand]);
    assert!(session.poll_timeout().unwrap() < millis(302));
}

#[test]
fn where_one_missing_packet_counts_packets_come_early() {
    let mut pair = Pair::up((100, 100, 1), (100, 100, 1));
    let from = pair.now;
    pair.run(Duration::from_mins(1));
    let pauses = pair.pauses(0, from);
    assert!(pauses.iter().all(|pause| (millis(75)..=millis(90)).contains(pause)), "{pauses:?}");
    assert_eq!(pair.downs(0), []);
}

#[test]
fn a_clock_that_jumps_far_ahead_is_one_silence() {
    let mut pair = Pair::up(USUAL, USUAL);
    pair.now += Duration::from_hours(1000);
    pair.queue.clear();
    pair.run_until(Duration::from_secs(20), |pair| !pair.downs(0).is_empty() && pair.is_up());
    assert!(pair.is_up());
    assert_eq!(pair.downs(0).len(), 1);
}

#[test]
fn packets_are_read_as_they_are_written() {
    let bytes = [0x23, 0xea, 5, 24, 0, 0, 0, 22, 0, 0, 0, 11, 0, 4, 0x93, 0xe0, 0, 0, 0x27, 0x10, 0, 0, 0, 0];
    let packet = Packet {
        diagnostic: Diagnostic::NEIGHBOR_DOWN,
        is_poll: true,
        is_independent: true,
        is_demand: true,
        multiplier: 5,
        desired_min_tx: millis(300),
        required_min_rx: millis(10),
        ..heard(State::Up)
    };
    assert_eq!(Packet::decode(&bytes), Ok(packet));
    assert_eq!(packet.encode(), bytes);
    let other = Packet { is_final: true, your_discriminator: None, ..heard(State::AdminDown) };
    assert_eq!(Packet::decode(&other.encode()), Ok(other));
    // What follows is somebody else's.
    assert_eq!(Packet::decode(&[&bytes[..], &[1, 2, 3]].concat()), Ok(packet));
}

#[test]
fn what_must_be_thrown_away_is() {
    let good = heard(State::Down).encode();
    let with = |at: usize, byte: u8| {
        let mut bytes = good;
        bytes[at] = byte;
        Packet::decode(&bytes)
    };
    assert_eq!(Packet::decode(&[]), Err(PacketError::Length(0)));
    for length in 0..PACKET_BYTES {
        assert!(Packet::decode(&good[..length]).is_err(), "{length}");
    }
    assert_eq!(with(0, 0x40), Err(PacketError::Version(2)));
    assert_eq!(with(0, 0x00), Err(PacketError::Version(0)));
    assert_eq!(with(1, 0x44), Err(PacketError::Authenticated));
    assert_eq!(with(1, 0x41), Err(PacketError::Multipoint));
    assert_eq!(with(2, 0), Err(PacketError::Multiplier));
    assert_eq!(with(3, 23), Err(PacketError::Length(23)));
    assert_eq!(with(3, 25), Err(PacketError::Length(25)));
    assert_eq!(with(7, 0), Err(PacketError::Discriminator));
}

#[test]
fn reasons_say_what_an_operator_needs() {
    for (reason, text) in [
        (Reason::Silence(millis(900)), "nothing came for 900ms"),
        (Reason::Peer(Diagnostic::NONE), "peer started anew"),
        (Reason::Peer(Diagnostic::DETECTION_TIME_EXPIRED), "peer says: control detection time expired"),
        (Reason::PeerStopped, "stopped by the peer"),
        (Reason::Stopped, "stopped here"),
    ] {
        assert_eq!(reason.to_string(), text);
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(packets in proptest::collection::vec(proptest::collection::vec(proptest::num::u8::ANY, 0..30), 0..20)) {
        let mut session = Session::new(timing(300, 300, 3), number(11), 1, Duration::ZERO);
        for (at, bytes) in packets.iter().enumerate() {
            if let Ok(packet) = Packet::decode(bytes) {
                proptest::prop_assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
                let ours = Packet { your_discriminator: Some(number(11)), ..packet };
                session.handle(Duration::from_secs(at as u64), Input::Received(&ours));
            }
        }
    }
}
