//! Neighbours that do what none should, on real connections: whatever one does, the others are served.
//!
//! The test is every neighbour, in raw bytes. Needs no privilege.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use isthmus_bgp::{
    AfiSafi, Asn, Family,
    wire::{Capability, HEADER_BYTES, Notification, Open, encode_keepalive},
};
use isthmus_speaker::{
    Config, Handle, Options,
    view::{AdminState, PeerView, SessionState, Table},
};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpSocket,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

/// How long anything may take that works at all.
const PATIENCE: Duration = Duration::from_mins(1);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The speaker at 127.0.`net`.1, whose neighbours connect from 127.0.`net`.2 and `.3`.
struct Speaker {
    net: u8,
    handle: Handle,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Speaker {
    /// `rest` is for the bad neighbour, at `.2`; the good one at `.3` ends its session when it hears nothing for 3 s.
    async fn start(net: u8, rest: &str) -> Self {
        let neighbor = |n: u8, rest: &str| {
            format!(
                "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"127.0.{net}.{n}\"\npeer-as = {}\n\
                 [neighbors.transport.config]\npassive-mode = true\n{rest}",
                65_000 + u32::from(n)
            )
        };
        let text = format!(
            "[global.config]\nas = 65001\nrouter-id = \"10.0.0.1\"\nport = 17900\nlocal-address-list = [\"127.0.{net}.1\"]\n{}{}",
            neighbor(2, rest),
            neighbor(3, "[neighbors.timers.config]\nhold-time = 3\n"),
        );
        let config = Config::from_toml(&text, "f").unwrap_or_else(|faults| panic!("{faults}"));
        let (_reloads, to_reload) = mpsc::channel(1);
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async { drop(stopped.await) };
        let (handle, running) =
            isthmus_speaker::start(config, Options::default(), to_reload, stopped).await.unwrap();
        Self { net, handle, stop, running: tokio::spawn(running) }
    }

    async fn peer(&self, n: u8) -> PeerView {
        let address = [127, 0, self.net, n].into();
        self.handle.peers(Some(address), true).await.unwrap().remove(0)
    }

    async fn wait(&self, what: &str, n: u8, is_so: impl Fn(&PeerView) -> bool) -> PeerView {
        let until = Instant::now() + PATIENCE;
        loop {
            let peer = self.peer(n).await;
            if is_so(&peer) {
                return peer;
            }
            assert!(Instant::now() < until, "{what}: {peer:?}");
            // Between two looks at a condition with a deadline.
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until there is no route left.
    async fn wait_empty(&self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let counts = self.handle.counts(Table::Global, Family::Ipv4Unicast).await.unwrap();
            if (counts.destinations, counts.paths) == (0, 0) {
                return;
            }
            assert!(Instant::now() < until, "routes stay: {counts:?}");
            // Between two looks at a condition with a deadline.
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        timeout(PATIENCE, self.running).await.unwrap().unwrap();
    }
}

/// Routes of all families, which are told while the session is up.
fn accepted(peer: &PeerView) -> u64 {
    peer.families.iter().map(|family| family.accepted).sum()
}

fn advertised(peer: &PeerView) -> u64 {
    peer.families.iter().map(|family| family.advertised).sum()
}

/// A neighbour.
struct Raw {
    reads: OwnedReadHalf,
    writes: OwnedWriteHalf,
}

impl Raw {
    /// Opens a connection and a session on it.
    async fn open(net: u8, n: u8) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, net, n], 0))).unwrap();
        let stream = socket.connect(SocketAddr::from(([127, 0, net, 1], 17_900))).await.unwrap();
        let (reads, writes) = stream.into_split();
        let mut raw = Self { reads, writes };
        let asn = 65_000 + u16::from(n);
        let open = Open {
            as_field: asn,
            hold_time: 90,
            router_id: u32::from_be_bytes([10, 0, 0, n]),
            capabilities: vec![
                Capability::Multiprotocol(AfiSafi { afi: 1, safi: 1 }),
                Capability::RouteRefresh,
                Capability::FourByteAs(Asn(asn.into())),
            ],
        };
        raw.say(&open.encode()).await;
        raw.say(&encode_keepalive()).await;
        while raw.hear().await.0 != 4 {}
        raw
    }

    async fn say(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.writes.write_all(bytes)).await.unwrap().unwrap();
    }

    /// The type and the body of the next message.
    async fn hear(&mut self) -> (u8, Vec<u8>) {
        hear(&mut self.reads).await
    }
}

async fn hear(reads: &mut OwnedReadHalf) -> (u8, Vec<u8>) {
    let read = async {
        let mut header = [0; HEADER_BYTES];
        reads.read_exact(&mut header).await.unwrap();
        let mut body = vec![0; usize::from(u16::from_be_bytes([header[16], header[17]])) - HEADER_BYTES];
        reads.read_exact(&mut body).await.unwrap();
        (header[18], body)
    };
    timeout(PATIENCE, read).await.unwrap()
}

/// Keeps a session for as long as it is not dropped; fails when the speaker is silent for its hold time of 3 s.
fn keep(mut raw: Raw) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut next = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(next) => {
                    raw.writes.write_all(&encode_keepalive()).await.unwrap();
                    next = Instant::now() + Duration::from_millis(500);
                }
                message = hear(&mut raw.reads) => assert_ne!(message.0, 3, "{:?}", Notification::decode(&message.1)),
            }
        }
    })
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (HEADER_BYTES + body.len()) as u16;
    [&[0xff; 16][..], &length.to_be_bytes(), &[kind], body].concat()
}

/// An UPDATE of 127.0.`net`.2 with these host routes.
fn announce(net: u8, hosts: impl Iterator<Item = u32>) -> Vec<u8> {
    let path = [&[0x40, 2, 6, 2, 1][..], &65_002_u32.to_be_bytes()].concat();
    let attributes = [&[0x40, 1, 1, 0][..], &path, &[0x40, 3, 4, 127, 0, net, 2]].concat();
    let nlri: Vec<u8> = hosts.flat_map(|host| [&[32][..], &host.to_be_bytes()].concat()).collect();
    message(2, &[&[0, 0, 0, attributes.len() as u8][..], &attributes, &nlri].concat())
}

const FIRST_HOST: u32 = 0x1400_0000;
const AT_ONCE: u32 = 800;

#[tokio::test(flavor = "multi_thread")]
async fn a_million_prefixes_over_a_limit_of_a_thousand() {
    let limit = "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"ipv4-unicast\"\n\
        [neighbors.afi-safis.prefix-limit.config]\nmax-prefixes = 1000\n";
    let speaker = Speaker::start(61, limit).await;
    let good = keep(Raw::open(61, 3).await);
    let Raw { mut reads, mut writes } = Raw::open(61, 2).await;
    let flood = tokio::spawn(async move {
        for first in (0..1_000_000).step_by(AT_ONCE as usize) {
            let hosts = (first..first + AT_ONCE).map(|host| FIRST_HOST + host);
            // The speaker stops listening at some point.
            if writes.write_all(&announce(61, hosts)).await.is_err() {
                return;
            }
        }
    });
    let said = loop {
        if let (3, body) = hear(&mut reads).await {
            break Notification::decode(&body);
        }
    };
    assert_eq!((said.code, said.subcode), (6, 1), "{said}");
    timeout(PATIENCE, flood).await.unwrap().unwrap();
    let limited = |peer: &PeerView| peer.status.admin == AdminState::PrefixLimit;
    let peer = speaker.wait("it waits for an administrator", 2, limited).await;
    assert!(peer.status.why.contains("more than 1000 prefixes"), "{}", peer.status.why);
    speaker.wait_empty().await;
    // Who comes back is told so.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.61.2:0".parse().unwrap()).unwrap();
    let mut again = socket.connect("127.0.61.1:17900".parse().unwrap()).await.unwrap();
    let mut said = Vec::new();
    timeout(PATIENCE, again.read_to_end(&mut said)).await.unwrap().unwrap();
    assert_eq!(said[18..21], [3, 6, 5], "connection rejected");
    let other = speaker.peer(3).await.status;
    assert_eq!((other.state, other.flaps), (SessionState::Established, 0), "{}", other.why);
    good.abort();
    speaker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_that_floods_and_reads_nothing_holds_up_nobody() {
    let speaker = Speaker::start(62, "").await;
    let good = keep(Raw::open(62, 3).await);
    let mut bad = Raw::open(62, 2).await;
    // Changes of one route that the other has to hear, and wishes for all routes whose answers nobody reads.
    let refresh = message(5, &[0, 1, 0, 1]);
    let withdraw = message(2, &[&[0, 5, 32][..], &FIRST_HOST.to_be_bytes(), &[0, 0]].concat());
    let round = [announce(62, std::iter::once(FIRST_HOST)), refresh, encode_keepalive(), withdraw].concat();
    let rounds = round.repeat(1_000);
    for _ in 0..100 {
        bad.say(&rounds).await;
    }
    bad.say(&announce(62, FIRST_HOST..FIRST_HOST + 10)).await;
    let all = speaker.wait("all of it is taken", 2, |peer| accepted(peer) == 10).await;
    assert_eq!((all.status.flaps, all.status.received.refresh), (0, 100_000));
    let other = speaker.wait("the other has the routes", 3, |peer| advertised(peer) == 10).await;
    assert_eq!(
        (other.status.state, other.status.flaps),
        (SessionState::Established, 0),
        "{}",
        other.status.why
    );
    good.abort();
    speaker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_that_comes_and_goes_leaves_nothing() {
    let speaker = Speaker::start(63, "[neighbors.timers.config]\nidle-hold-time-after-reset = 0\n").await;
    let good = keep(Raw::open(63, 3).await);
    for flaps in 1..=20 {
        let mut bad = Raw::open(63, 2).await;
        bad.say(&announce(63, FIRST_HOST..FIRST_HOST + 100)).await;
        speaker.wait("its routes come", 2, |peer| accepted(peer) == 100).await;
        drop(bad);
        speaker
            .wait("it is gone, and may come again", 2, |peer| {
                peer.status.flaps == flaps && peer.status.state == SessionState::Active
            })
            .await;
        speaker.wait_empty().await;
    }
    speaker.wait("the other knows", 3, |peer| advertised(peer) == 0 && peer.status.flaps == 0).await;
    good.abort();
    speaker.stop().await;
}
