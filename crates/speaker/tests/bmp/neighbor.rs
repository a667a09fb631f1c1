//! A neighbour in raw bytes, that says what it is told to.

use isthmus_bgp::{
    AsPath, Asn, Attributes, Community, Family, FamilySet, NextHop, Nlri, Origin, PathId, Prefix,
    wire::{
        AddPathMode, Announcer, Capability, EncodeContext, HEADER_BYTES, MESSAGE_BYTES_MAX, Open,
        encode_keepalive, encode_withdrawal,
    },
};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream, tcp::OwnedWriteHalf},
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, interval, sleep, timeout},
};

/// How long anything may take that works at all.
const PATIENCE: Duration = Duration::from_mins(1);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The neighbour at 127.0.`net`.`n` of the speaker at 127.0.`net`.1.
pub(crate) struct Neighbor {
    n: u8,
    add_path: FamilySet,
    says: mpsc::Sender<Vec<u8>>,
    task: JoinHandle<()>,
}

impl Neighbor {
    /// Opens a session; asks again while the speaker pauses. With `add_path` its prefixes have path ids.
    pub(crate) async fn open(net: u8, n: u8, add_path: bool) -> Self {
        let until = Instant::now() + PATIENCE;
        let (mut reads, mut writes) = loop {
            if let Some(stream) = connect(net, n, add_path).await {
                break stream.into_split();
            }
            assert!(Instant::now() < until, "the speaker does not want the session");
            // Between two looks at a condition with a deadline.
            sleep(LOOK_AGAIN).await;
        };
        let (says, mut to_say) = mpsc::channel::<Vec<u8>>(16);
        let task = tokio::spawn(async move {
            let mut ignored = vec![0; 64 << 10];
            let mut keepalives = interval(Duration::from_secs(1));
            loop {
                tokio::select! {
                    _ = keepalives.tick() => say(&mut writes, &encode_keepalive()).await,
                    read = reads.read(&mut ignored) => if !read.is_ok_and(|bytes| bytes > 0) { return },
                    bytes = to_say.recv() => match bytes {
                        Some(bytes) => say(&mut writes, &bytes).await,
                        None => return,
                    },
                }
            }
        });
        let families = Family::ALL.into_iter().filter(|_| add_path).collect();
        Self { n, add_path: families, says, task }
    }

    fn context(&self) -> EncodeContext {
        EncodeContext { as4: true, add_path: self.add_path, message_bytes_max: MESSAGE_BYTES_MAX }
    }

    /// Announces routes that carry a mark by which they can be told from others.
    pub(crate) async fn announce(&self, nlri: Vec<Nlri>, mark: u32) {
        let next_hop = match nlri[0].prefix.family() {
            Family::Ipv4Unicast => NextHop::V4([10, 0, 0, self.n].into()),
            Family::Ipv6Unicast => NextHop::V6 { global: "2001:db8::9".parse().unwrap(), link_local: None },
        };
        let attributes = Attributes {
            as_path: AsPath::sequence([Asn(65_000 + u32::from(self.n)), Asn(4_200_000_000)]),
            next_hop: Some(next_hop),
            med: Some(mark),
            communities: vec![Community(mark)].into(),
            ..Attributes::local(Origin::Igp)
        };
        let attributes = Attributes { local_pref: None, ..attributes };
        let mut out = Vec::new();
        let announcer = Announcer::new(&attributes, nlri[0].prefix.family(), self.context()).unwrap();
        announcer.announce(nlri, &mut out);
        self.says.send(out).await.unwrap();
    }

    pub(crate) async fn withdraw(&self, nlri: Vec<Nlri>) {
        let mut out = Vec::new();
        encode_withdrawal(nlri[0].prefix.family(), nlri, self.context(), &mut out);
        self.says.send(out).await.unwrap();
    }

    /// Says bytes.
    pub(crate) async fn say(&self, bytes: Vec<u8>) {
        self.says.send(bytes).await.unwrap();
    }

    /// Ends the connection without a word.
    pub(crate) async fn leave(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// A connection on which both have said OPEN and KEEPALIVE; `None` if the speaker ended it.
async fn connect(net: u8, n: u8, add_path: bool) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(SocketAddr::from(([127, 0, net, n], 0))).unwrap();
    let mut stream = socket.connect(SocketAddr::from(([127, 0, net, 1], 17_900))).await.unwrap();
    let hello = [open_of(n, add_path).encode(), encode_keepalive()].concat();
    stream.write_all(&hello).await.ok()?;
    let mut header = [0; HEADER_BYTES];
    loop {
        timeout(PATIENCE, stream.read_exact(&mut header)).await.unwrap().ok()?;
        let mut body = vec![0; usize::from(u16::from_be_bytes([header[16], header[17]])) - HEADER_BYTES];
        timeout(PATIENCE, stream.read_exact(&mut body)).await.unwrap().ok()?;
        if header[18] == 4 {
            return Some(stream);
        }
    }
}

/// What neighbour `n` says first.
pub(crate) fn open_of(n: u8, add_path: bool) -> Open {
    let asn = 65_000 + u16::from(n);
    let mut capabilities: Vec<_> =
        Family::ALL.iter().map(|family| Capability::Multiprotocol(family.afi_safi())).collect();
    capabilities.push(Capability::FourByteAs(Asn(asn.into())));
    if add_path {
        let families = Family::ALL.map(|family| (family.afi_safi(), AddPathMode::Send));
        capabilities.push(Capability::AddPath(families.to_vec()));
    }
    Open { as_field: asn, hold_time: 90, router_id: u32::from_be_bytes([10, 0, 0, n]), capabilities }
}

async fn say(writes: &mut OwnedWriteHalf, bytes: &[u8]) {
    // Who ended the session takes nothing more.
    let _ = timeout(PATIENCE, writes.write_all(bytes)).await.unwrap();
}

/// The `count` prefixes from 10.0.0.0/24 on, `first` left out, or as many of IPv6.
pub(crate) fn prefixes(family: Family, first: u32, count: u32, path_id: u32) -> Vec<Nlri> {
    let prefix = |number: u32| match family {
        Family::Ipv4Unicast => {
            Prefix::new(std::net::Ipv4Addr::from(0x0a00_0000 + (number << 8)).into(), 24).unwrap()
        }
        Family::Ipv6Unicast => {
            let address = std::net::Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(number) << 64);
            Prefix::new(address.into(), 64).unwrap()
        }
    };
    (first..first + count).map(|number| Nlri { prefix: prefix(number), path_id: PathId(path_id) }).collect()
}
