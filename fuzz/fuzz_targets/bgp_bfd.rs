//! BFD packets, by themselves and as what a session hears: the first two bytes of each 26 are the time before it, in ms.
#![no_main]

use isthmus_bgp::bfd::{Input, Output, PACKET_BYTES, Packet, Session, Timing};
use libfuzzer_sys::fuzz_target;
use std::{num::NonZeroU32, time::Duration};

/// More than packets every 50 ms for 65 s.
const TIMERS_MAX: u32 = 5_000;

fuzz_target!(|data: &[u8]| {
    let timing = Timing {
        desired_min_tx: Duration::from_millis(50),
        required_min_rx: Duration::from_millis(50),
        multiplier: 3,
    };
    let mut now = Duration::ZERO;
    let mut session = Session::new(timing, NonZeroU32::MIN, 1, now);
    for chunk in data.chunks(2 + PACKET_BYTES) {
        let Some((wait, bytes)) = chunk.split_first_chunk() else { return };
        let until = now + Duration::from_millis(u16::from_be_bytes(*wait).into());
        let mut timers = 0;
        while let Some(at) = session.poll_timeout().filter(|at| *at <= until) {
            now = now.max(at);
            session.handle(now, Input::Timer);
            hear(&mut session);
            timers += 1;
            assert!(timers < TIMERS_MAX, "timers without end at {now:?}: {session:?}");
        }
        now = until;
        let Ok(packet) = Packet::decode(bytes) else { continue };
        assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
        session.handle(now, Input::Received(&packet));
        hear(&mut session);
    }
});

/// What is said can be read.
fn hear(session: &mut Session) {
    while let Some(output) = session.poll_output() {
        if let Output::Send(packet) = output {
            assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
        }
    }
}
