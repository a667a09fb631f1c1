//! A task without its loop: what wakes it is said by the test, so that the order is certain.

use super::*;
use crate::{engine, interface::neighbor_on};
use isthmus_bgp::{
    AfiSafi, Family,
    wire::{Capability, Open, encode_keepalive},
};
use tokio::net::TcpListener;

/// What a try of ours came to.
const REFUSED: &str = "TCP to [fe80::2%eth0]:179 refused";

/// The task of the neighbour on eth0, with all that it needs to live.
struct Rig {
    task: Task,
    location: watch::Sender<Location>,
    _commands: mpsc::Sender<Command>,
}

impl Rig {
    /// It was found, and what we tried then was refused.
    fn refused() -> Self {
        let address = neighbor_on("eth0").unwrap();
        let settings = Arc::new(PeerSettings::new(65_001, Some(65_002), Family::Ipv4Unicast));
        let (commands, for_task) = mpsc::channel(COMMANDS_MAX);
        let (location, watched) = watch::channel(found());
        let mut task = Task::new(PeerSetup {
            key: 1,
            address,
            location: Some(watched),
            session: engine::session(&settings, address, [10, 0, 0, 1].into(), false, None),
            settings,
            is_dynamic: false,
            bfd: None,
            commands: for_task,
            events: Outlet::new().0,
            tap: Tap::default(),
            status: watch::channel(PeerStatus::default()).0,
        });
        task.session.handle(Duration::ZERO, Input::Timer);
        task.outputs();
        assert!(task.dial.is_some(), "it tries to connect");
        let mut rig = Self { task, location, _commands: commands };
        rig.wake(Woken::Dialed(Err(io::ErrorKind::ConnectionRefused.into())), &[]);
        assert_eq!(rig.task.why(), REFUSED);
        rig
    }

    fn wake(&mut self, woken: Woken, bytes: &[u8]) {
        self.task.handle(woken, bytes);
        self.task.outputs();
    }

    /// The neighbour connects to us, and its session comes up. Returns its end.
    async fn come_up(&mut self) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let its_end = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        self.wake(Woken::Command(Some(Command::Accepted(stream))), &[]);
        let open = Open {
            as_field: 65_002,
            hold_time: 90,
            router_id: 0x0a00_0002,
            capabilities: vec![Capability::Multiprotocol(AfiSafi { afi: 1, safi: 1 })],
        };
        let said = [open.encode(), encode_keepalive()].concat();
        self.wake(Woken::Link(LinkEvent::Read(ConnectionId(0), said.len())), &said);
        assert_eq!((self.task.session.state(), self.task.why()), (State::Established, String::new()));
        its_end
    }

    fn lose_link(&self) {
        self.location.send_replace(Location { address: None, why: "eth0 is down".to_owned() });
    }
}

fn found() -> Location {
    Location { address: Some("[fe80::2]:0".parse().unwrap()), why: String::new() }
}

#[tokio::test]
async fn an_old_failure_to_connect_is_not_why_a_session_is_lost() {
    let mut rig = Rig::refused();
    let _its_end = rig.come_up().await;
    rig.wake(Woken::Link(LinkEvent::Closed(ConnectionId(0))), &[]);
    let why = rig.task.why();
    assert!(why.starts_with("connection lost; tries again"), "{why}");
}

#[tokio::test]
async fn a_link_that_is_down_is_why_whatever_failed_before() {
    let mut rig = Rig::refused();
    rig.lose_link();
    // Whoever asks before the task has noticed hears of the link too.
    assert_eq!(rig.task.why(), "eth0 is down");
    rig.wake(Woken::Located, &[]);
    assert_eq!(rig.task.why(), "eth0 is down");
    // What was refused was another try, perhaps elsewhere.
    rig.location.send_replace(found());
    rig.wake(Woken::Located, &[]);
    assert_eq!(rig.task.why(), "connecting");
}

#[tokio::test]
async fn a_link_that_is_down_is_why_its_session_is_lost() {
    let mut rig = Rig::refused();
    let _its_end = rig.come_up().await;
    rig.lose_link();
    rig.wake(Woken::Located, &[]);
    let why = rig.task.why();
    assert!(why.starts_with("eth0 is down; last: "), "{why}");
}
