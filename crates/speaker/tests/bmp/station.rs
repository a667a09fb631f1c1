//! A monitoring station that replays what it hears: in the end it has what the speaker has, or something is wrong. It also
//! finds fault with what must not be said.

use isthmus_bgp::{
    Attributes, Family, FamilySet, Nlri,
    bmp::{
        Direction, DownReason, Information, Message, PeerHeader, PeerUp, Statistic, Table, decode,
        information,
    },
    wire::{Capability, HEADER_BYTES, Open, UpdateContext, decode_update},
};
use socket2::SockRef;
use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::Duration,
};

/// How often a station looks at what it shall do.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// Bytes that a slow one takes at once.
const SIP: usize = 4 << 10;

/// What a station does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mood {
    /// Takes what comes.
    Quick,
    /// Takes little at once.
    Slow,
    /// Takes nothing.
    Stuck,
    /// Ends the connection, and takes the next one quickly.
    Leaving,
}

/// Routes of a table.
pub(crate) type Routes = BTreeMap<Nlri, Arc<Attributes>>;

/// A session, or Loc-RIB.
#[derive(Clone, Debug, Default)]
pub(crate) struct Session {
    add_path: FamilySet,
    pub(crate) up: Option<PeerUp>,
    pub(crate) before_policy: Routes,
    pub(crate) after_policy: Routes,
    /// What the neighbour is told, before and after policy.
    pub(crate) told: [Routes; 2],
    /// Ends of tables, before and after policy.
    pub(crate) ends: [Vec<Family>; 2],
}

/// What a station heard on its connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    /// How many connections there were.
    pub(crate) connections: usize,
    pub(crate) initiation: Vec<Information>,
    /// Neighbours by address.
    pub(crate) sessions: BTreeMap<IpAddr, Session>,
    pub(crate) loc_rib: Option<Session>,
    pub(crate) downs: Vec<(IpAddr, DownReason)>,
    pub(crate) reports: Vec<(PeerHeader, Vec<Statistic>)>,
    /// The reason of Termination.
    pub(crate) ended: Option<Vec<u8>>,
    /// Routes that were announced or taken back.
    pub(crate) routes: usize,
    /// What must not be.
    pub(crate) faults: Vec<String>,
}

impl Heard {
    fn take(&mut self, message: Message) {
        if self.initiation.is_empty() != matches!(message, Message::Initiation(_)) {
            self.faults.push(format!("{message:?} where the first message is Initiation, and no other"));
        }
        match message {
            Message::Initiation(told) => self.initiation = told,
            Message::Termination(told) => self.ended = told.into_iter().map(|one| one.value).next(),
            Message::PeerUp(up) => self.up(up),
            Message::PeerDown { peer, reason } => match peer.table {
                Table::Peer { address, .. } => {
                    if self.sessions.remove(&address).is_none() {
                        self.faults.push(format!("{address} goes down, and was not up"));
                    }
                    self.downs.push((address, reason));
                }
                Table::LocRib { .. } => self.faults.push("Loc-RIB goes down".to_owned()),
            },
            Message::RouteMonitoring { peer, update } => self.route(&peer, &update),
            Message::StatisticsReport { peer, statistics } => self.reports.push((peer, statistics)),
        }
    }

    fn up(&mut self, up: PeerUp) {
        let mut add_path = FamilySet::NONE;
        for capability in Open::decode(&up.received[HEADER_BYTES..]).unwrap().capabilities {
            let Capability::AddPath(families) = capability else { continue };
            let sends = families.into_iter().filter(|(_, mode)| mode.sends());
            add_path = sends.filter_map(|(family, _)| Family::from_afi_safi(family)).collect();
        }
        let (peer, is_named) =
            (up.peer, up.information.iter().any(|one| one.kind == information::TABLE_NAME));
        let session = Session { add_path, up: Some(up), ..Session::default() };
        let before = match peer.table {
            Table::Peer { address, .. } => self.sessions.insert(address, session),
            Table::LocRib { .. } => {
                assert!(is_named, "RFC 9069 section 5.2.1 recommends it");
                self.loc_rib.replace(session)
            }
        };
        if before.is_some() {
            self.faults.push(format!("{peer:?} comes up, and was up"));
        }
    }

    fn route(&mut self, peer: &PeerHeader, update: &[u8]) {
        let (session, post_policy, direction) = match peer.table {
            Table::Peer { address, post_policy, direction, .. } => {
                (self.sessions.get_mut(&address), post_policy, direction)
            }
            Table::LocRib { .. } => (self.loc_rib.as_mut(), false, Direction::In),
        };
        let Some(session) = session else {
            self.faults.push(format!("a route of {peer:?}, which is not up"));
            return;
        };
        let context = UpdateContext {
            as4: true,
            families: Family::ALL.into_iter().collect(),
            // Nobody is told several paths in these tests.
            add_path: if direction == Direction::In { session.add_path } else { FamilySet::NONE },
            extended_next_hop: true,
            ..UpdateContext::default()
        };
        let update = decode_update(&update[HEADER_BYTES..], &context).unwrap();
        self.faults.extend(update.faults.iter().map(ToString::to_string));
        let routes = match (direction, post_policy) {
            (Direction::In, false) => &mut session.before_policy,
            (Direction::In, true) => &mut session.after_policy,
            (Direction::Out, _) => &mut session.told[usize::from(post_policy)],
        };
        self.routes += update.withdrawn.len();
        for nlri in update.withdrawn {
            if routes.remove(&nlri).is_none() {
                self.faults.push(format!("{nlri:?} is taken back, and was never there"));
            }
        }
        for announcement in update.announced {
            self.routes += announcement.nlri.len();
            routes.extend(announcement.nlri.into_iter().map(|nlri| (nlri, announcement.attributes.clone())));
        }
        if direction == Direction::In {
            session.ends[usize::from(post_policy)].extend(update.end_of_rib);
        }
    }
}

/// A station; it listens for as long as it is there.
pub(crate) struct Station {
    pub(crate) address: SocketAddr,
    heard: Arc<Mutex<Heard>>,
    mood: Arc<AtomicU8>,
}

impl Station {
    pub(crate) fn listen(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // Little waits on the way, so that a slow station is soon felt.
        SockRef::from(&listener).set_recv_buffer_size(SIP).unwrap();
        Self::on(listener, mood)
    }

    pub(crate) fn on(listener: TcpListener, mood: Mood) -> Self {
        let address = listener.local_addr().unwrap();
        let (heard, mood) = (Arc::new(Mutex::new(Heard::default())), Arc::new(AtomicU8::new(mood as u8)));
        let station = Self { address, heard: heard.clone(), mood: mood.clone() };
        // It ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let connections = heard.lock().unwrap().connections + 1;
                *heard.lock().unwrap() = Heard { connections, ..Heard::default() };
                listen(stream.unwrap(), &heard, &mood);
                let _ = mood.compare_exchange(
                    Mood::Leaving as u8,
                    Mood::Quick as u8,
                    Ordering::SeqCst,
                    Ordering::SeqCst,
                );
            }
        });
        station
    }

    pub(crate) fn be(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::SeqCst);
    }

    /// What it heard, without a fault.
    pub(crate) fn heard(&self) -> Heard {
        let heard = self.heard.lock().unwrap().clone();
        assert!(heard.faults.is_empty(), "{:#?}", heard.faults);
        heard
    }
}

/// Takes a connection until it ends.
fn listen(mut stream: TcpStream, heard: &Mutex<Heard>, mood: &AtomicU8) {
    stream.set_read_timeout(Some(LOOK_AGAIN)).unwrap();
    let mut buffer = Vec::new();
    let mut chunk = vec![0; 256 << 10];
    loop {
        let mood = mood.load(Ordering::SeqCst);
        if mood == Mood::Leaving as u8 {
            return;
        }
        let room = if mood == Mood::Quick as u8 { chunk.len() } else { SIP };
        if mood != Mood::Quick as u8 {
            // What makes it slow.
            thread::sleep(LOOK_AGAIN);
        }
        if mood == Mood::Stuck as u8 {
            continue;
        }
        match stream.read(&mut chunk[..room]) {
            Ok(0) => return,
            Ok(bytes) => buffer.extend_from_slice(&chunk[..bytes]),
            Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => return,
        }
        let mut rest = buffer.as_slice();
        let mut heard = heard.lock().unwrap();
        while let Some((message, bytes)) = decode(rest).unwrap() {
            heard.take(message);
            rest = &rest[bytes..];
        }
        let rest = rest.to_vec();
        buffer = rest;
    }
}
