//! A speaker, and neighbours in raw bytes.

use isthmus_bgp::{
    AfiSafi, Asn, Family,
    wire::{Capability, HEADER_BYTES, Notification, Open, encode_keepalive},
};
use isthmus_speaker::{
    Config, Handle, Options,
    view::{PeerView, SessionState, Table},
};
use std::{future::Future, io, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

/// How long anything may take that works at all.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The speaker at 127.0.`net`.1, whose neighbours connect from 127.0.`net`.2 and `.3`.
pub(crate) struct Speaker {
    net: u8,
    pub(crate) handle: Handle,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Speaker {
    /// `rest` is for the bad neighbour, at `.2`; the good one at `.3` ends its session when it hears nothing for 3 s.
    pub(crate) async fn start(net: u8, rest: &str) -> Self {
        Self::start_with(net, rest, Options::default()).await
    }

    pub(crate) async fn start_with(net: u8, rest: &str, options: Options) -> Self {
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
        let (handle, running) = isthmus_speaker::start(config, options, to_reload, stopped).await.unwrap();
        Self { net, handle, stop, running: tokio::spawn(running) }
    }

    pub(crate) async fn peer(&self, n: u8) -> PeerView {
        let address = [127, 0, self.net, n].into();
        self.handle.peers(Some(address), true).await.unwrap().remove(0)
    }

    pub(crate) async fn wait(&self, what: &str, n: u8, is_so: impl Fn(&PeerView) -> bool) -> PeerView {
        wait(what, || self.peer(n), is_so).await
    }

    /// Waits until there is no route left.
    pub(crate) async fn wait_empty(&self) {
        let counts = || async { self.handle.counts(Table::Global, Family::Ipv4Unicast).await.unwrap() };
        wait("no route is left", counts, |counts| (counts.destinations, counts.paths) == (0, 0)).await;
    }

    /// Waits until there are so many neighbours.
    pub(crate) async fn wait_peers(&self, count: usize) {
        let known = || async { self.handle.peers(None, false).await.unwrap().len() };
        wait("neighbours", known, |known| *known == count).await;
    }

    /// The good neighbour felt nothing.
    pub(crate) async fn is_well(&self) {
        let good = self.peer(3).await.status;
        assert_eq!((good.state, good.flaps), (SessionState::Established, 0), "{}", good.why);
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        timeout(PATIENCE, self.running).await.unwrap().unwrap();
    }
}

async fn wait<T: std::fmt::Debug, F: Future<Output = T>>(
    what: &str,
    look: impl Fn() -> F,
    is_so: impl Fn(&T) -> bool,
) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        let found = look().await;
        if is_so(&found) {
            return found;
        }
        assert!(Instant::now() < until, "{what}: {found:?}");
        // Between two looks at a condition with a deadline.
        sleep(LOOK_AGAIN).await;
    }
}

/// Routes of all families, which are told while the session is up.
pub(crate) fn accepted(peer: &PeerView) -> u64 {
    peer.families.iter().map(|family| family.accepted).sum()
}

pub(crate) fn advertised(peer: &PeerView) -> u64 {
    peer.families.iter().map(|family| family.advertised).sum()
}

/// A neighbour.
pub(crate) struct Raw {
    pub(crate) reads: OwnedReadHalf,
    pub(crate) writes: OwnedWriteHalf,
}

impl Raw {
    /// Opens a connection and a session on it.
    pub(crate) async fn open(net: u8, n: u8) -> Self {
        Self::open_on(connect(net, n).await.unwrap(), n).await.unwrap()
    }

    /// A session on a connection, unless the speaker ends it.
    pub(crate) async fn open_on(stream: TcpStream, n: u8) -> io::Result<Self> {
        let (mut reads, mut writes) = stream.into_split();
        writes.write_all(&greeting(n)).await?;
        loop {
            match try_hear(&mut reads).await? {
                (4, _) => return Ok(Self { reads, writes }),
                (3, _) => return Err(io::ErrorKind::ConnectionRefused.into()),
                _ => {}
            }
        }
    }

    pub(crate) async fn say(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.writes.write_all(bytes)).await.unwrap().unwrap();
    }

    /// The type and the body of the next message.
    pub(crate) async fn hear(&mut self) -> (u8, Vec<u8>) {
        hear(&mut self.reads).await
    }
}

/// A connection from 127.0.`net`.`n` to the speaker.
pub(crate) async fn connect(net: u8, n: u8) -> io::Result<TcpStream> {
    connect_from([127, 0, net, n], net, TcpSocket::new_v4()?).await
}

pub(crate) async fn connect_from(from: [u8; 4], net: u8, socket: TcpSocket) -> io::Result<TcpStream> {
    socket.bind(SocketAddr::from((from, 0)))?;
    timeout(PATIENCE, socket.connect(SocketAddr::from(([127, 0, net, 1], 17_900)))).await.unwrap()
}

/// OPEN and KEEPALIVE of a neighbour.
pub(crate) fn greeting(n: u8) -> Vec<u8> {
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
    [open.encode(), encode_keepalive()].concat()
}

pub(crate) async fn hear(reads: &mut OwnedReadHalf) -> (u8, Vec<u8>) {
    try_hear(reads).await.unwrap()
}

async fn try_hear(reads: &mut OwnedReadHalf) -> io::Result<(u8, Vec<u8>)> {
    let read = async {
        let mut header = [0; HEADER_BYTES];
        reads.read_exact(&mut header).await?;
        let mut body = vec![0; usize::from(u16::from_be_bytes([header[16], header[17]])) - HEADER_BYTES];
        reads.read_exact(&mut body).await?;
        Ok((header[18], body))
    };
    timeout(PATIENCE, read).await.unwrap()
}

/// Keeps a session for as long as it is not dropped; fails when the speaker is silent for its hold time of 3 s.
pub(crate) fn keep(mut raw: Raw) -> JoinHandle<()> {
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

pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (HEADER_BYTES + body.len()) as u16;
    [&[0xff; 16][..], &length.to_be_bytes(), &[kind], body].concat()
}

/// An UPDATE of 127.0.`net`.2 with these host routes.
pub(crate) fn announce(net: u8, hosts: impl Iterator<Item = u32>) -> Vec<u8> {
    announce_with(net, 2, hosts, &[])
}

/// An UPDATE of 127.0.`net`.`n` with these host routes, and more attributes.
pub(crate) fn announce_with(net: u8, n: u8, hosts: impl Iterator<Item = u32>, more: &[u8]) -> Vec<u8> {
    announce_path(net, n, hosts, &[], more)
}

/// The same, with segments behind its own AS in the path.
pub(crate) fn announce_path(
    net: u8,
    n: u8,
    hosts: impl Iterator<Item = u32>,
    segments: &[u8],
    more: &[u8],
) -> Vec<u8> {
    let own = [&[2, 1][..], &(65_000 + u32::from(n)).to_be_bytes()].concat();
    let path = [&[0x40, 2, (own.len() + segments.len()) as u8], &own[..], segments].concat();
    let attributes = [&[0x40, 1, 1, 0][..], &path, &[0x40, 3, 4, 127, 0, net, n], more].concat();
    let nlri: Vec<u8> = hosts.flat_map(|host| [&[32][..], &host.to_be_bytes()].concat()).collect();
    let length = (attributes.len() as u16).to_be_bytes();
    message(2, &[&[0, 0][..], &length, &attributes, &nlri].concat())
}

pub(crate) const FIRST_HOST: u32 = 0x1400_0000;
