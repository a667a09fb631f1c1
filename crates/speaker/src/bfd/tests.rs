//! Real sockets on loopback addresses, each test on its own.

use super::*;
use crate::Config;
use isthmus_bgp::bfd::{Diagnostic, Packet};
use socket2::{Domain, Socket, Type};
use std::{net::SocketAddr, num::NonZeroU32};
use tokio::{net::UdpSocket, time::timeout};

const SOON: Duration = Duration::from_secs(30);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Settings for a neighbour, with packets every 50 ms.
fn settings(peer: &str, own: &str) -> PeerSettings {
    let text = format!(
        "[global.config]\nas = 64512\nrouter-id = \"192.0.2.1\"\n[[neighbors]]\n[neighbors.config]\n\
         neighbor-address = \"{peer}\"\npeer-as = 64512\n[neighbors.transport.config]\nlocal-address = \"{own}\"\n\
         [neighbors.bfd.config]\nenabled = true\ndesired-minimum-tx-interval = 50000\nrequired-minimum-receive = 50000\n"
    );
    Config::from_toml(&text, "f").unwrap().neighbors.remove(&ip(peer)).unwrap()
}

async fn wait(watched: &mut Watched, is_so: impl FnMut(&BfdStatus) -> bool) -> BfdStatus {
    timeout(SOON, watched.status.wait_for(is_so)).await.unwrap().unwrap().clone()
}

/// The test as a neighbour.
struct Scripted {
    discriminator: u32,
    socket: UdpSocket,
    us: SocketAddr,
}

impl Scripted {
    fn new(discriminator: u32, address: &str, us: &str, ttl: u32) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.set_ttl_v4(ttl).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.bind(&SocketAddr::new(ip(address), PORT).into()).unwrap();
        let (socket, us) = (UdpSocket::from_std(socket.into()).unwrap(), SocketAddr::new(ip(us), PORT));
        Self { discriminator, socket, us }
    }

    async fn hear(&self) -> (Packet, SocketAddr) {
        let mut buffer = [0; 100];
        let (bytes, from) = timeout(SOON, self.socket.recv_from(&mut buffer)).await.unwrap().unwrap();
        (Packet::decode(&buffer[..bytes]).unwrap(), from)
    }

    async fn say(&self, state: State, to: Option<NonZeroU32>) {
        let packet = Packet {
            diagnostic: Diagnostic::NONE,
            state,
            is_poll: false,
            is_final: false,
            is_independent: true,
            is_demand: false,
            multiplier: 3,
            my_discriminator: self.discriminator.try_into().unwrap(),
            your_discriminator: to,
            desired_min_tx: Duration::from_millis(50),
            required_min_rx: Duration::from_millis(50),
        };
        self.socket.send_to(&packet.encode(), self.us).await.unwrap();
    }
}

#[tokio::test]
async fn two_find_each_other_and_part_in_peace() {
    let mut one = Bfd::new(vec![ip("127.0.51.1")]);
    let mut two = Bfd::new(vec![ip("127.0.51.2")]);
    let mut at_one = one.watch(1, ip("127.0.51.2"), &settings("127.0.51.2", "127.0.51.1")).unwrap();
    let mut at_two = two.watch(9, ip("127.0.51.1"), &settings("127.0.51.1", "127.0.51.2")).unwrap();
    for watched in [&mut at_one, &mut at_two] {
        let up = wait(watched, |status| status.state == State::Up).await;
        assert!(up.received > 0 && up.sent > 0);
    }
    drop(at_two);
    let down = wait(&mut at_one, |status| status.state != State::Up).await;
    assert_eq!((down.last_down, down.failures), (Some(Reason::PeerStopped), 0));
    // Another one may come in its place.
    let mut again = two.watch(10, ip("127.0.51.1"), &settings("127.0.51.1", "127.0.51.2")).unwrap();
    wait(&mut again, |status| status.state == State::Up).await;
    drop(two);
    let down = wait(&mut at_one, |status| status.state != State::Up).await;
    assert_eq!(down.failures, 0, "the end of the speaker is no broken path either");
}

#[tokio::test]
async fn silence_is_told_as_a_broken_path() {
    let peer = Scripted::new(7, "127.0.52.2", "127.0.52.1", 255);
    let mut bfd = Bfd::new(vec![ip("127.0.52.1")]);
    let mut watched = bfd.watch(1, ip("127.0.52.2"), &settings("127.0.52.2", "127.0.52.1")).unwrap();
    let (first, from) = peer.hear().await;
    assert_eq!((first.state, first.your_discriminator), (State::Down, None));
    assert!(from.port() >= 49_152, "{from}");
    peer.say(State::Init, Some(first.my_discriminator)).await;
    wait(&mut watched, |status| status.state == State::Up).await;
    let (up, again) = peer.hear().await;
    assert_eq!((up.state, again), (State::Up, from), "the port stays");
    let down = wait(&mut watched, |status| status.failures > 0).await;
    let detection = Duration::from_millis(150);
    assert_eq!((down.state, down.last_down), (State::Down, Some(Reason::Silence(detection))));
    assert!(down.is_peer_independent);
}

#[tokio::test]
async fn only_the_neighbour_on_the_link_is_heard() {
    let far = Scripted::new(1, "127.0.53.2", "127.0.53.1", 254);
    let other = Scripted::new(2, "127.0.53.3", "127.0.53.1", 255);
    let mut bfd = Bfd::new(vec![ip("127.0.53.1")]);
    let mut watched = bfd.watch(1, ip("127.0.53.2"), &settings("127.0.53.2", "127.0.53.1")).unwrap();
    let (first, _) = far.hear().await;
    far.say(State::Down, None).await;
    other.say(State::Down, None).await;
    other.say(State::Down, Some(first.my_discriminator)).await;
    far.socket.send_to(b"no packet", far.us).await.unwrap();
    drop(far);
    // In their order, so what came before was not heard.
    let near = Scripted::new(3, "127.0.53.2", "127.0.53.1", 255);
    near.socket.send_to(b"no packet", near.us).await.unwrap();
    near.say(State::Down, None).await;
    let init = wait(&mut watched, |status| status.state != State::Down).await;
    assert_eq!((init.state, init.received), (State::Init, 1));
    assert_eq!(init.remote.unwrap().discriminator.get(), 3);
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_and_taken_later() {
    let taken = std::net::UdpSocket::bind((ip("127.0.54.1"), PORT)).unwrap();
    let mut bfd = Bfd::new(vec![ip("127.0.54.1")]);
    let mut watched = bfd.watch(1, ip("127.0.54.2"), &settings("127.0.54.2", "127.0.54.1")).unwrap();
    let status = wait(&mut watched, |status| status.fault.is_some()).await;
    assert!(status.to_string().contains("another BFD daemon"), "{status}");
    drop(taken);
    let mut other = bfd.watch(2, ip("127.0.54.3"), &settings("127.0.54.3", "127.0.54.1")).unwrap();
    wait(&mut watched, |status| status.fault.is_none()).await;
    wait(&mut other, |status| status.fault.is_none() && status.sent > 0).await;
}

#[tokio::test]
async fn an_address_that_nobody_has_is_told() {
    let mut bfd = Bfd::new(vec![ip("127.0.55.1")]);
    let mut watched = bfd.watch(1, ip("127.0.55.2"), &settings("127.0.55.2", "198.51.100.7")).unwrap();
    let status = wait(&mut watched, |status| status.fault.is_some()).await;
    assert!(status.to_string().contains("cannot send"), "{status}");
    let no_bfd = PeerSettings { bfd: None, ..settings("127.0.55.2", "127.0.55.1") };
    assert!(bfd.watch(2, ip("127.0.55.2"), &no_bfd).is_none());
}
