//! `isthmus bgp mrt inject`: puts the routes of a file into a running speaker.
//!
//! A thread reads the file and chooses; what it chose goes through a short queue into one stream of GoBGP's API, so that a
//! speaker that is slower than the disk slows the reading down. Ctrl-C ends the reading: what was sent is taken.

use super::{BadRecords, reader, unreadable};
use crate::{
    commands::{
        Session,
        bgp::{SpeakerArgs, refused},
    },
    failure::{Exit, Failure},
    output::{Column, OutputArgs, View},
};
use isthmus_speaker::{
    Asn, Attributes, Family, Nlri, PathId, Prefix,
    client::Injected,
    mrt::{
        Input,
        format::{Item, Origin, Reader, Seen, Unfolder},
    },
};
use serde::Serialize;
use std::{
    io::{IsTerminal, Write as _, stderr},
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

/// Paths in one message.
const BATCH_PATHS: usize = 256;
/// Messages that wait for the speaker.
const BATCHES_MAX: usize = 16;
/// How often progress is told.
const PROGRESS_PAUSE: Duration = Duration::from_millis(500);
/// What a shell says of a command that Ctrl-C ended.
const INTERRUPTED: Exit = Exit::Other(130);

/// Arguments of `bgp mrt inject`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  isthmus bgp mrt inject table.mrt.gz --only-best --no-ipv6\n  isthmus bgp mrt inject rib.bz2 --max 1000 --next-hop 192.0.2.1\n  \
    isthmus bgp mrt inject updates.mrt --peer-as 65002 -o json\n\n\
    Tables are added; the messages of an updates file are replayed in their order: what they withdraw is taken away.\n\
    Paths of several neighbours to one prefix stay several, each with a number made of its neighbour's address.\n\
    `gobgp global rib del all` takes them out again, and so does a restart of the speaker.\n\
    Exit status 1: some records or paths could not be taken, all others were; 3: no speaker; 130: interrupted with Ctrl-C,\n\
    and what was read till then is taken."
)]
pub struct InjectArgs {
    /// An MRT file (RFC 6396), plain or compressed with gzip or bzip2.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    speaker: SpeakerArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Which routes are taken.
#[derive(Clone, Debug, clap::Args)]
struct Choice {
    /// Of the paths to a prefix in a table only the best, by the first steps of the decision process.
    #[arg(long)]
    only_best: bool,
    /// Leaves the first N prefixes, or announcements and withdrawals, out.
    #[arg(long, value_name = "N", default_value_t = 0)]
    skip: u64,
    /// Ends after N prefixes, or announcements and withdrawals.
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// Leaves IPv4 routes out.
    #[arg(long, conflicts_with = "no_ipv6")]
    no_ipv4: bool,
    /// Leaves IPv6 routes out.
    #[arg(long)]
    no_ipv6: bool,
    /// Next hop of all routes of its family.
    #[arg(long, value_name = "ADDRESS")]
    next_hop: Option<IpAddr>,
    /// Only routes of neighbours in this AS.
    #[arg(long, value_name = "AS")]
    peer_as: Option<Asn>,
    /// Only routes of this neighbour.
    #[arg(long, value_name = "ADDRESS")]
    neighbor: Option<IpAddr>,
}

/// What became of a file, as it is printed.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    prefixes: u64,
    announced: u64,
    withdrawn: u64,
    /// Paths with attributes that cannot be read.
    faulty_paths: u64,
    bad_records: u64,
    seconds: f64,
    interrupted: bool,
}

fn view() -> View<Outcome> {
    View {
        columns: vec![
            Column::new("PREFIXES", |row: &Outcome| row.prefixes.to_string()),
            Column::new("ANNOUNCED", |row| row.announced.to_string()),
            Column::new("WITHDRAWN", |row| row.withdrawn.to_string()),
            Column::new("FAULTY PATHS", |row| row.faulty_paths.to_string()),
            Column::new("BAD RECORDS", |row| row.bad_records.to_string()),
            Column::new("SECONDS", |row| format!("{:.1}", row.seconds)),
        ],
        name: |row| row.announced.to_string(),
    }
}

/// What the thread and who waits for it share.
#[derive(Debug, Default)]
struct Shared {
    is_cancelled: AtomicBool,
    paths: AtomicU64,
    /// Thousandths of the file.
    progress: AtomicU64,
}

/// Puts the routes of a file into a speaker.
pub(super) async fn run(args: InjectArgs, session: &mut Session) -> Result<Exit, Failure> {
    let reader = reader(&args.file)?;
    let mut client = args.speaker.client().await?;
    let started = Instant::now();
    let shared = Arc::new(Shared::default());
    let (batches, taken) = mpsc::channel(BATCHES_MAX);
    let mut feeder = Feeder::new(args.choice.clone(), args.file.clone(), Arc::clone(&shared), batches);
    let reading = spawn_blocking(move || feeder.run(reader));
    let injecting = client.inject(taken);
    let sent = attend(injecting, &shared).await;
    shared.is_cancelled.store(true, Ordering::Relaxed);
    let fed = reading.await.map_err(|why| Failure::usage(format!("reading failed: {why}"), ""))?;
    for text in &fed.told {
        session.tell(text);
    }
    let Some(sent) = sent else { return Ok(INTERRUPTED) };
    let mut outcome = fed.outcome;
    outcome.seconds = started.elapsed().as_secs_f64();
    sent.map_err(refused)?;
    let is_whole = outcome.bad_records == 0 && outcome.faulty_paths == 0;
    let interrupted = outcome.interrupted;
    view().show(&mut *session.out, &args.output, outcome)?;
    match fed.fatal {
        Some(failure) => Err(failure),
        None if interrupted => Ok(INTERRUPTED),
        None => Ok(if is_whole { Exit::Yes } else { Exit::No }),
    }
}

/// Waits for the end, tells how far it is, and lets Ctrl-C end it: the first ends the reading, the second the waiting.
async fn attend<T>(injecting: impl Future<Output = T>, shared: &Shared) -> Option<T> {
    tokio::pin!(injecting);
    let mut ticks = interval(PROGRESS_PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let is_shown = stderr().is_terminal();
    let ended = loop {
        tokio::select! {
            ended = &mut injecting => break Some(ended),
            _ = ticks.tick(), if is_shown => {
                let paths = shared.paths.load(Ordering::Relaxed);
                let part = shared.progress.load(Ordering::Relaxed) / 10;
                // Who has closed standard error wants to hear nothing.
                let _ = write!(stderr(), "\r{paths} paths, {part} % of the file ");
            }
            Ok(()) = tokio::signal::ctrl_c() => {
                if shared.is_cancelled.swap(true, Ordering::Relaxed) {
                    break None;
                }
            }
        }
    };
    if is_shown {
        let _ = write!(stderr(), "\r\u{1b}[K");
    }
    ended
}

/// What came of reading.
struct Fed {
    outcome: Outcome,
    told: Vec<String>,
    fatal: Option<Failure>,
}

/// Reads the file, chooses, and gives what it chose to the speaker.
struct Feeder {
    choice: Choice,
    file: PathBuf,
    shared: Arc<Shared>,
    batches: Option<mpsc::Sender<Vec<Injected>>>,
    batch: Vec<Injected>,
    /// Paths to one prefix of a table, while more of them may follow.
    group: Vec<(Origin, Nlri, Arc<Attributes>)>,
    groups: u64,
    outcome: Outcome,
}

impl Feeder {
    fn new(choice: Choice, file: PathBuf, shared: Arc<Shared>, batches: mpsc::Sender<Vec<Injected>>) -> Self {
        Self {
            choice,
            file,
            shared,
            batches: Some(batches),
            batch: Vec::new(),
            group: Vec::new(),
            groups: 0,
            outcome: Outcome::default(),
        }
    }

    fn run(&mut self, mut reader: Reader<Input>) -> Fed {
        let (mut unfolder, mut bad) = (Unfolder::new(), BadRecords::default());
        let (mut told, mut fatal) = (Vec::new(), None);
        while !self.is_over()
            && let Some(record) = reader.next()
        {
            self.shared.progress.store(reader.input().progress().unwrap_or_default(), Ordering::Relaxed);
            match record {
                Ok(record) => unfolder.unfold(record).into_iter().for_each(|seen| self.take(seen)),
                Err(why) if why.can_go_on() => told.extend(bad.add(&self.file, &why)),
                Err(why) => {
                    fatal = Some(unreadable(&self.file, &why));
                    break;
                }
            }
        }
        self.outcome.interrupted = self.shared.is_cancelled.load(Ordering::Relaxed);
        self.end_group();
        self.send();
        // The stream ends when there is no sender any longer.
        self.batches = None;
        told.extend(bad.rest(&self.file));
        let outcome = Outcome { bad_records: bad.count, ..std::mem::take(&mut self.outcome) };
        Fed { outcome, told, fatal }
    }

    fn is_over(&self) -> bool {
        let most = self.choice.max.map(|max| max.saturating_add(self.choice.skip));
        self.batches.is_none()
            || self.shared.is_cancelled.load(Ordering::Relaxed)
            || most.is_some_and(|most| self.groups >= most)
    }

    fn take(&mut self, seen: Seen) {
        let origin = seen.origin;
        let is_wanted = self.choice.peer_as.is_none_or(|asn| asn == origin.asn)
            && self.choice.neighbor.is_none_or(|address| address == origin.address)
            && !origin.is_sent;
        let is_carried = |prefix: Prefix| match prefix.family() {
            Family::Ipv4Unicast => !self.choice.no_ipv4,
            Family::Ipv6Unicast => !self.choice.no_ipv6,
        };
        match seen.item {
            _ if !is_wanted => {}
            Item::Path { nlri, attributes, fault, .. } if is_carried(nlri.prefix) => {
                if self.group.first().is_some_and(|(_, first, _)| first.prefix != nlri.prefix) {
                    self.end_group();
                }
                if fault.is_some() {
                    self.outcome.faulty_paths += 1;
                } else {
                    self.group.push((origin, nlri, attributes));
                }
            }
            Item::Announced { nlri, attributes } if is_carried(nlri.prefix) => {
                self.one(&origin, nlri, Some(attributes));
            }
            Item::Withdrawn { nlri, fault } if is_carried(nlri.prefix) => {
                self.outcome.faulty_paths += u64::from(fault.is_some());
                self.one(&origin, nlri, None);
            }
            _ => {}
        }
    }

    /// Gives the paths to one prefix, if it is among those that are wanted.
    fn end_group(&mut self) {
        let group = std::mem::take(&mut self.group);
        if group.is_empty() || !self.is_next_wanted() {
            return;
        }
        if self.choice.only_best {
            let best = group.into_iter().min_by(|a, b| rank(&a.0, &a.2).cmp(&rank(&b.0, &b.2)));
            if let Some((_, nlri, attributes)) = best {
                self.give(Nlri::from(nlri.prefix), Some(attributes));
            }
        } else {
            for (origin, nlri, attributes) in group {
                self.give(numbered(&origin, nlri), Some(attributes));
            }
        }
    }

    fn one(&mut self, origin: &Origin, nlri: Nlri, attributes: Option<Arc<Attributes>>) {
        self.end_group();
        if self.is_next_wanted() {
            self.give(numbered(origin, nlri), attributes);
        }
    }

    fn is_next_wanted(&mut self) -> bool {
        if self.is_over() {
            return false;
        }
        self.groups += 1;
        let is_wanted = self.groups > self.choice.skip;
        self.outcome.prefixes += u64::from(is_wanted);
        is_wanted
    }

    fn give(&mut self, nlri: Nlri, attributes: Option<Arc<Attributes>>) {
        let next_hop = self.choice.next_hop.filter(|address| Family::of(*address) == nlri.prefix.family());
        let attributes = match (attributes, next_hop) {
            (Some(attributes), Some(address)) => {
                Some(Arc::new(Attributes { next_hop: Some(address.into()), ..(*attributes).clone() }))
            }
            (attributes, _) => attributes,
        };
        *if attributes.is_some() { &mut self.outcome.announced } else { &mut self.outcome.withdrawn } += 1;
        self.batch.push(Injected { nlri, attributes });
        if self.batch.len() >= BATCH_PATHS {
            self.send();
        }
    }

    fn send(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        let count = batch.len() as u64;
        if let Some(batches) = self.batches.as_ref().filter(|_| count > 0) {
            if batches.blocking_send(batch).is_err() {
                // The speaker is gone, or nobody waits any longer.
                self.batches = None;
            }
            self.shared.paths.fetch_add(count, Ordering::Relaxed);
        }
    }
}

/// The lower, the better: the first steps of RFC 4271 section 9.1.2.2, as far as a file tells what they need.
fn rank(origin: &Origin, attributes: &Attributes) -> impl Ord + use<> {
    (
        u32::MAX - attributes.preference(),
        attributes.as_path.length(),
        attributes.origin,
        attributes.med.unwrap_or(0),
        origin.id,
        origin.address,
    )
}

/// The number of a path among those of one prefix, made of whose it is, so that it is the same in every file of one
/// collector (FNV-1a of address and path id). Our own numbers start at 1.
fn numbered(origin: &Origin, nlri: Nlri) -> Nlri {
    let octets = match origin.address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let bytes = octets.into_iter().chain(nlri.path_id.0.to_be_bytes());
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    Nlri { prefix: nlri.prefix, path_id: PathId(hash.max(1)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isthmus_speaker::{
        Origin as RouteOrigin,
        mrt::format::{PeerEntry, PeerIndex, Rib, RibEntry, SessionMessage, Time},
    };
    use std::{fs, path::Path};
    use tempfile::tempdir;

    /// Two neighbours, of which the first has the longer paths; three prefixes, one of them IPv6.
    fn table() -> Vec<u8> {
        let peers = [("192.0.2.1", 65_001), ("192.0.2.2", 65_002)].map(|(address, asn)| PeerEntry {
            id: std::net::Ipv4Addr::new(10, 0, 0, 1).into(),
            address: address.parse().unwrap(),
            asn: Asn(asn),
        });
        let index = PeerIndex { collector: peers[0].id, view: String::new(), peers: peers.to_vec() };
        let mut file = Vec::new();
        index.encode(7, &mut file).unwrap();
        for (sequence, prefix) in ["10.1.0.0/16", "10.2.0.0/16", "2001:db8::/32"].into_iter().enumerate() {
            let entry = |peer, preference| RibEntry {
                peer,
                originated: 5,
                path_id: PathId(0),
                attributes: Arc::new(Attributes {
                    local_pref: Some(preference),
                    ..Attributes::local(RouteOrigin::Igp)
                }),
                faults: Vec::new(),
            };
            let entries = vec![entry(0, 100), entry(1, 200)];
            let rib =
                Rib { sequence: sequence as u32, prefix: prefix.parse().unwrap(), add_path: false, entries };
            rib.encode(7, &mut file).unwrap();
        }
        file
    }

    fn choice() -> Choice {
        Choice {
            only_best: false,
            skip: 0,
            max: None,
            no_ipv4: false,
            no_ipv6: false,
            next_hop: None,
            peer_as: None,
            neighbor: None,
        }
    }

    /// What is given to the speaker, as prefix and preference, and what became of the file.
    fn feed(choice: Choice, file: &[u8]) -> (Vec<(String, Option<u32>)>, Fed) {
        let directory = tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, file).unwrap();
        let (batches, mut taken) = mpsc::channel(64);
        let fed = Feeder::new(choice, path.clone(), Arc::default(), batches).run(reader(&path).unwrap());
        let mut given = Vec::new();
        while let Ok(batch) = taken.try_recv() {
            given.extend(batch);
        }
        let word = |one: &Injected| {
            (one.nlri.prefix.to_string(), one.attributes.as_ref().and_then(|it| it.local_pref))
        };
        (given.iter().map(word).collect(), fed)
    }

    fn given(choice: Choice) -> Vec<(String, Option<u32>)> {
        feed(choice, &table()).0
    }

    fn words(list: &[(&str, u32)]) -> Vec<(String, Option<u32>)> {
        list.iter().map(|(prefix, preference)| ((*prefix).to_owned(), Some(*preference))).collect()
    }

    #[test]
    fn what_is_chosen_is_given() {
        assert_eq!(given(choice()).len(), 6);
        let best = words(&[("10.1.0.0/16", 200), ("10.2.0.0/16", 200), ("2001:db8::/32", 200)]);
        assert_eq!(given(Choice { only_best: true, ..choice() }), best);
        assert_eq!(given(Choice { only_best: true, skip: 1, max: Some(1), ..choice() }), best[1..2]);
        assert_eq!(given(Choice { only_best: true, max: Some(0), ..choice() }), []);
        assert_eq!(given(Choice { only_best: true, no_ipv4: true, ..choice() }), best[2..]);
        assert_eq!(given(Choice { only_best: true, no_ipv6: true, ..choice() }), best[..2]);
        let first = words(&[("10.1.0.0/16", 100), ("10.2.0.0/16", 100), ("2001:db8::/32", 100)]);
        assert_eq!(given(Choice { peer_as: Some(Asn(65_001)), ..choice() }), first);
        let neighbor = Some("192.0.2.1".parse().unwrap());
        assert_eq!(given(Choice { neighbor, ..choice() }), first);
    }

    #[test]
    fn paths_of_one_neighbour_have_one_number_in_every_file() {
        let origin =
            |text: &str| Origin { address: text.parse().unwrap(), asn: Asn(1), id: None, is_sent: false };
        let nlri = |id| Nlri { prefix: "10.0.0.0/8".parse().unwrap(), path_id: PathId(id) };
        let number = |text, id| numbered(&origin(text), nlri(id)).path_id;
        assert_eq!(number("192.0.2.1", 0), number("192.0.2.1", 0));
        assert_ne!(number("192.0.2.1", 0), number("192.0.2.2", 0));
        assert_ne!(number("192.0.2.1", 0), number("192.0.2.1", 1));
        assert_ne!(number("2001:db8::1", 0).0, 0);
    }

    #[test]
    fn messages_are_replayed_in_their_order_and_bad_records_told() {
        let mut file = table();
        let at = file.len();
        // A withdrawal of 10.1.0.0/16.
        let body = [0, 3, 16, 10, 1, 0, 0];
        let bytes = [&[0xff; 16][..], &[0, 26, 2], &body].concat();
        let ends = isthmus_speaker::mrt::format::Ends {
            peer_as: Asn(65_001),
            local_as: Asn(1),
            interface: 0,
            peer: "192.0.2.1".parse().unwrap(),
            local: "192.0.2.9".parse().unwrap(),
        };
        let message = SessionMessage { ends, as4: true, add_path: false, is_local: false, bytes };
        message.encode(Time::default(), &mut file).unwrap();
        let end = file.len();
        SessionMessage { is_local: true, ..message }.encode(Time::default(), &mut file).unwrap();
        let (given, fed) = feed(choice(), &file);
        assert_eq!(given.last().unwrap(), &("10.1.0.0/16".to_owned(), None));
        let outcome = &fed.outcome;
        assert_eq!(
            (outcome.announced, outcome.withdrawn, outcome.prefixes),
            (6, 1, 4),
            "what we sent is not ours to take"
        );
        // The address family of the message's ends is damaged.
        file[at + 12 + 11] = 9;
        let (_, fed) = feed(choice(), &file[..end]);
        assert_eq!((fed.outcome.bad_records, fed.outcome.withdrawn), (1, 0));
        assert!(fed.told[0].contains(&format!("record at byte {at} (BGP4MP MESSAGE_AS4)")), "{:?}", fed.told);
        assert!(fed.fatal.is_none());
        let (_, fed) = feed(choice(), &file[..end - 1]);
        assert!(fed.fatal.unwrap().render().contains("it was cut off"));
        assert!(reader(Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn a_next_hop_is_that_of_its_family() {
        let directory = tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, table()).unwrap();
        let (batches, mut taken) = mpsc::channel(64);
        let choice = Choice { next_hop: Some("192.0.2.77".parse().unwrap()), only_best: true, ..choice() };
        Feeder::new(choice, path.clone(), Arc::default(), batches).run(reader(&path).unwrap());
        let given = taken.try_recv().unwrap();
        let hops: Vec<_> = given
            .iter()
            .map(|one| one.attributes.as_ref().unwrap().next_hop.map(|hop| hop.address()))
            .collect();
        let expected: Option<IpAddr> = Some("192.0.2.77".parse().unwrap());
        assert_eq!(hops, [expected, expected, None]);
    }

    #[test]
    fn who_cancels_ends_the_reading() {
        let directory = tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, table()).unwrap();
        let (batches, mut taken) = mpsc::channel(64);
        let shared = Arc::new(Shared::default());
        shared.is_cancelled.store(true, Ordering::Relaxed);
        let fed = Feeder::new(choice(), path.clone(), shared, batches).run(reader(&path).unwrap());
        assert!(fed.outcome.interrupted);
        assert!(taken.try_recv().is_err());
    }
}
