//! A neighbour that sends what no neighbour should, byte by byte, while another one looks on: its session must not feel it.

use crate::{
    bird::Bird,
    gobgp::{Gobgp, Program},
    lab::{Lab, Node},
    matrix::can_run,
    plan::{OURS, Own, Plan, SOURCE, Session, v4},
    speaker::{Speaker, wait},
};
use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::fd::AsFd as _,
    thread,
    time::{Duration, Instant},
};

const SUBJECT: u8 = 1;
const HOSTILE: u8 = 2;
const WITNESS: u8 = 3;
const SENDER: u8 = 4;
/// AS of the hostile one.
const ITS_AS: u16 = 65_002;
/// Longest time that anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Our speaker with a hostile neighbour and a witness, whose session is up.
struct Scene {
    ours: Gobgp,
    witness: Bird,
    lab: Lab,
    /// Of the hostile one.
    asn: u16,
}

impl Scene {
    fn open(set: impl FnOnce(&mut Session)) -> Option<Self> {
        if !can_run() {
            return None;
        }
        let lab = Lab::new(4);
        let mut hostile = Session::new("hostile", v4(0, SUBJECT), v4(0, HOSTILE), ITS_AS.into());
        hostile.passive = true;
        let sender = Session { name: "sender", remote: v4(0, SENDER), ..hostile.clone() };
        set(&mut hostile);
        let asn = u16::try_from(hostile.remote_as).unwrap();
        let ours = Plan {
            node: SUBJECT,
            asn: OURS,
            sessions: vec![hostile, sender, Session::new("witness", v4(0, SUBJECT), v4(0, WITNESS), SOURCE)],
            own: vec![Own::plain("10.1.1.0/24")],
            multipath: false,
        };
        let witness = Plan {
            node: WITNESS,
            asn: SOURCE,
            sessions: vec![Session::new("up", v4(0, WITNESS), v4(0, SUBJECT), OURS)],
            own: vec![Own::plain("10.31.1.0/24")],
            multipath: false,
        };
        let mut ours = Gobgp::new(Program::Isthmus, ours, lab.node(SUBJECT));
        let mut witness = Bird::new(witness, lab.node(WITNESS));
        ours.start(false).unwrap();
        witness.start(false).unwrap();
        let scene = Self { ours, witness, lab, asn };
        wait("the witness is up", || scene.witness.is_up("up"), |is_up| *is_up).unwrap();
        Some(scene)
    }

    fn hostile(&self) -> Hostile {
        Hostile::connect(&self.lab.node(HOSTILE))
    }

    /// Nobody else felt anything: the session is the first one, and routes pass.
    fn is_well(&self, after: &str) {
        assert!(self.ours.is_up("witness"), "after {after}: {}", self.ours.log());
        assert!(
            self.ours.about("witness").contains("Flops = 0"),
            "after {after} the witness's session is another"
        );
        assert_eq!(self.ours.paths_from("witness", "10.31.1.0/24").len(), 1, "after {after}");
    }
}

/// One connection from the hostile node.
struct Hostile(TcpStream);

impl Hostile {
    fn connect(node: &Node) -> Self {
        let space = File::open(format!("/run/netns/{}", node.namespace)).unwrap();
        let dial = move || {
            rustix::thread::move_into_link_name_space(space.as_fd(), None).unwrap();
            TcpStream::connect((v4(0, SUBJECT), 179)).unwrap()
        };
        // A socket stays in the namespace in which it was made; the thread that made it ends.
        let stream = thread::spawn(dial).join().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    fn send(&mut self, bytes: &[u8]) {
        // Who hangs up while we write says so when we read.
        let _closed = self.0.write_all(bytes);
    }

    /// The next message: its type and what follows the header. `None` at the end.
    fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 19];
        self.0.read_exact(&mut header).ok()?;
        let mut rest = vec![0; usize::from(u16::from_be_bytes([header[16], header[17]])) - 19];
        self.0.read_exact(&mut rest).ok()?;
        Some((header[18], rest))
    }

    /// Code and subcode of the NOTIFICATION that comes before the end.
    fn notified(&mut self) -> Option<(u8, u8)> {
        loop {
            if let (NOTIFICATION, rest) = self.receive()? {
                return Some((*rest.first()?, *rest.get(1)?));
            }
        }
    }

    /// Sends OPEN and KEEPALIVE, and waits for theirs. `None`: refused, as while the session pauses after a failure.
    fn establish(&mut self, asn: u16, node: u8) -> Option<()> {
        self.send(&open(4, asn, 90, [10, 99, 0, node]));
        self.send(&message(KEEPALIVE, &[]));
        let mut had_open = false;
        loop {
            match self.receive()? {
                (OPEN, _) => had_open = true,
                (KEEPALIVE, _) if had_open => return Some(()),
                _ => return None,
            }
        }
    }
}

const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const NOTIFICATION: u8 = 3;
const KEEPALIVE: u8 = 4;

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(19 + body.len()).unwrap();
    [&[0xff; 16][..], &length.to_be_bytes(), &[kind], body].concat()
}

fn open(version: u8, asn: u16, hold: u16, id: [u8; 4]) -> Vec<u8> {
    let multiprotocol = [2, 6, 1, 4, 0, 1, 0, 1];
    let lengths = [u8::try_from(multiprotocol.len()).unwrap()];
    message(
        OPEN,
        &[&[version][..], &asn.to_be_bytes(), &hold.to_be_bytes(), &id, &lengths, &multiprotocol].concat(),
    )
}

/// Origin, path (two bytes an AS, since it did not offer four) and next hop.
fn attributes_of(node: u8) -> Vec<u8> {
    let [high, low] = ITS_AS.to_be_bytes();
    [&[0x40, 1, 1, 0][..], &[0x40, 2, 4, 2, 1, high, low], &[0x40, 3, 4, 10, 99, 0, node]].concat()
}

fn attributes() -> Vec<u8> {
    attributes_of(HOSTILE)
}

fn update(attributes: &[u8], prefixes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(attributes.len()).unwrap();
    message(UPDATE, &[&[0, 0][..], &length.to_be_bytes(), attributes, prefixes].concat())
}

/// 10.2.1.0/24.
const PREFIX: [u8; 4] = [24, 10, 2, 1];

/// A session of the hostile one, as soon as ours takes it.
fn established(scene: &Scene) -> Hostile {
    established_at(scene, HOSTILE)
}

fn established_at(scene: &Scene, node: u8) -> Hostile {
    let until = Instant::now() + PATIENCE;
    loop {
        scene.ours.enable(if node == HOSTILE { "hostile" } else { "sender" });
        let mut hostile = Hostile::connect(&scene.lab.node(node));
        let asn = if node == HOSTILE { scene.asn } else { ITS_AS };
        if hostile.establish(asn, node).is_some() {
            return hostile;
        }
        assert!(Instant::now() < until, "the hostile session does not come up: {}", scene.ours.log());
        // Between two tries under a deadline.
        thread::sleep(Duration::from_millis(100));
    }
}

/// RFC 4271 section 6.2: before the session is up.
#[test]
fn a_wrong_open_is_refused_with_its_reason() {
    let Some(scene) = Scene::open(|_| {}) else { return };
    let id = [10, 99, 0, HOSTILE];
    let cases = [
        ("version 3", open(3, ITS_AS, 90, id), (2, 1)),
        ("another AS", open(4, 65_003, 90, id), (2, 2)),
        ("router id 0", open(4, ITS_AS, 90, [0; 4]), (2, 3)),
        ("hold time 1", open(4, ITS_AS, 1, id), (2, 6)),
        ("hold time 2", open(4, ITS_AS, 2, id), (2, 6)),
        ("an UPDATE instead", update(&attributes(), &PREFIX), (5, 1)),
        ("no marker", vec![0; 19], (1, 1)),
        ("a message of unknown type", message(9, &[]), (1, 3)),
    ];
    for (what, bytes, expected) in cases {
        let until = Instant::now() + PATIENCE;
        loop {
            // Each failure makes the pause longer, which is not what is tried here.
            scene.ours.enable("hostile");
            let mut hostile = scene.hostile();
            hostile.send(&bytes);
            let found = hostile.notified();
            // While the session pauses, connections are rejected (6/5) or closed.
            if found == Some(expected) {
                break;
            }
            assert!(matches!(found, None | Some((6, _))), "{what}: {found:?}");
            assert!(Instant::now() < until, "{what}: only {found:?}");
            thread::sleep(Duration::from_millis(100));
        }
        scene.is_well(what);
    }
}

/// RFC 4271 section 6, RFC 7606 section 3: what ends a session that is up.
#[test]
fn what_cannot_be_read_ends_the_session_and_no_other() {
    let Some(scene) = Scene::open(|_| {}) else { return };
    let long = [&[0xff; 16][..], &[0x13, 0x88], &[UPDATE], &[0; 4981]].concat();
    let twice = {
        let reach = [0x80, 14, 9, 0, 1, 1, 4, 10, 99, 0, HOSTILE, 0];
        [attributes(), reach.to_vec(), reach.to_vec()].concat()
    };
    let cases = [
        ("no marker", [&[0; 16][..], &[0, 19, KEEPALIVE]].concat(), (1, 1)),
        ("a length of 18", [&[0xff; 16][..], &[0, 18, KEEPALIVE]].concat(), (1, 2)),
        ("5,000 bytes that were not agreed on", long, (1, 2)),
        ("a KEEPALIVE with a body", message(KEEPALIVE, &[0]), (1, 2)),
        ("an unknown type", message(9, &[1, 2, 3]), (1, 3)),
        ("withdrawn routes beyond the end", message(UPDATE, &[0xff, 0xff, 0, 0]), (3, 1)),
        ("attributes beyond the end", message(UPDATE, &[0, 0, 0xff, 0xff]), (3, 1)),
        ("a prefix of 33 bits", update(&attributes(), &[33, 10, 2, 1, 0, 0]), (3, 10)),
        ("a prefix that is cut short", update(&attributes(), &[24, 10]), (3, 10)),
        (
            "an unknown well-known attribute",
            update(&[attributes(), vec![0x40, 99, 0]].concat(), &PREFIX),
            (3, 2),
        ),
        ("MP_REACH twice", update(&twice, &PREFIX), (3, 1)),
        ("another OPEN", open(4, ITS_AS, 90, [10, 99, 0, HOSTILE]), (5, 3)),
    ];
    for (what, bytes, expected) in cases {
        let mut hostile = established(&scene);
        hostile.send(&bytes);
        assert_eq!(hostile.notified(), Some(expected), "{what}");
        scene.is_well(what);
    }
}

/// RFC 7606 sections 5 and 7: what is wrong about a route takes the route back, and the session stays.
#[test]
fn a_faulty_attribute_takes_its_route_back_and_the_session_stays() {
    let Some(scene) = Scene::open(|_| {}) else { return };
    let with = |more: &[u8]| [attributes(), more.to_vec()].concat();
    let instead = |own: &[u8], position: usize, length: usize| {
        let mut all = attributes();
        all.splice(position..position + length, own.iter().copied());
        all
    };
    let cases = [
        ("ORIGIN 3", instead(&[0x40, 1, 1, 3], 0, 4)),
        ("ORIGIN of two bytes", instead(&[0x40, 1, 2, 0, 0], 0, 4)),
        ("no ORIGIN", instead(&[], 0, 4)),
        ("a path segment beyond the attribute", instead(&[0x40, 2, 4, 2, 9, 0xfd, 0xea], 4, 7)),
        ("a path of unknown segments", instead(&[0x40, 2, 4, 7, 1, 0xfd, 0xea], 4, 7)),
        ("a path that begins with another AS", instead(&[0x40, 2, 4, 2, 1, 0, 9], 4, 7)),
        ("a path with AS 0", instead(&[0x40, 2, 6, 2, 2, 0xfd, 0xea, 0, 0], 4, 7)),
        ("next hop 0", instead(&[0x40, 3, 4, 0, 0, 0, 0], 11, 7)),
        ("our own next hop", instead(&[0x40, 3, 4, 10, 99, 0, SUBJECT], 11, 7)),
        ("a multicast next hop", instead(&[0x40, 3, 4, 224, 0, 0, 1], 11, 7)),
        ("a next hop of three bytes", instead(&[0x40, 3, 3, 10, 99, 0], 11, 7)),
        ("MED of three bytes", with(&[0x80, 4, 3, 0, 0, 7])),
        ("communities of five bytes", with(&[0xc0, 8, 5, 1, 2, 3, 4, 5])),
        ("large communities of eight bytes", with(&[0xc0, 32, 8, 1, 2, 3, 4, 5, 6, 7, 8])),
        ("an attribute beyond the block", with(&[0xc0, 8, 200, 1, 2])),
        ("wrong flags of MED", with(&[0x40, 4, 4, 0, 0, 0, 7])),
    ];
    let mut hostile = established(&scene);
    for (what, faulty) in cases {
        hostile.send(&update(&attributes(), &PREFIX));
        let look = || scene.ours.paths_from("hostile", "10.2.1.0/24").len();
        wait("a sound route is there", look, |count| *count == 1).unwrap();
        hostile.send(&update(&faulty, &PREFIX));
        wait(&format!("{what} takes it back"), look, |count| *count == 0).unwrap();
        scene.is_well(what);
    }
    assert!(scene.ours.is_up("hostile"), "{}", scene.ours.log());
    assert!(scene.ours.about("hostile").contains("Flops = 0"));
}

/// Whatever is changed in an UPDATE, and wherever it is cut: the process lives, and so does the other session.
#[test]
fn no_bytes_end_the_process() {
    let Some(scene) = Scene::open(|_| {}) else { return };
    let sound = update(&[attributes(), vec![0xc0, 8, 4, 1, 2, 3, 4]].concat(), &PREFIX);
    // A small generator of its own (xorshift), so that a failure can be replayed.
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed >> 33).unwrap()
    };
    for round in 0..12 {
        let mut hostile = established(&scene);
        for _ in 0..200 {
            let mut bytes = sound.clone();
            for _ in 0..=random() % 3 {
                let at = 19 + random() % (bytes.len() - 19);
                bytes[at] = random().to_le_bytes()[0];
            }
            hostile.send(&bytes);
        }
        hostile.send(&vec![random().to_le_bytes()[0]; 1 + random() % 4_000]);
        drop(hostile);
        scene.is_well(&format!("round {round} of changed bytes"));
    }
}

/// A million prefixes where a thousand are allowed: the session ends at the first that is too many, and stays down.
#[test]
fn a_million_prefixes_meet_a_limit_of_a_thousand() {
    let Some(scene) = Scene::open(|session| session.prefixes_max = Some(1_000)) else { return };
    let mut hostile = established(&scene);
    for block in 0..1_000_u32 {
        let prefixes: Vec<u8> = (0..1_000)
            .flat_map(|number| {
                let [_, a, b, c] = (block * 1_000 + number).to_be_bytes();
                [32, 11 + a, b, c, 1]
            })
            .collect();
        for part in prefixes.chunks(700 * 5) {
            hostile.send(&update(&attributes(), part));
        }
    }
    // It may have been closed while it still wrote; then the reason is lost with what it did not read.
    let found = hostile.notified();
    assert!(matches!(found, None | Some((6, 1))), "{found:?}");
    let about = || scene.ours.about("hostile");
    wait("it says why", about, |text| text.contains("more than 1000 prefixes of ipv4")).unwrap();
    let none = || scene.ours.paths_from("hostile", "11.0.0.1/32").len();
    wait("nothing of it is left", none, |count| *count == 0).unwrap();
    let mut again = scene.hostile();
    assert!(again.establish(ITS_AS, HOSTILE).is_none(), "it stays down until somebody starts it");
    scene.is_well("a million prefixes");
}

/// A neighbour that reads nothing while routes go: the others get theirs all the same.
#[test]
fn who_stops_reading_holds_up_nobody() {
    const ROUTES: u32 = 100_000;
    let Some(scene) = Scene::open(|_| {}) else { return };
    let deaf = established(&scene);
    let mut sender = established_at(&scene, SENDER);
    // A community of its own makes each an UPDATE of its own: more bytes than sockets hold.
    for number in 0..ROUTES {
        let [_, a, b, c] = number.to_be_bytes();
        let attributes = [attributes_of(SENDER), vec![0xc0, 8, 4, 0, a, b, c]].concat();
        sender.send(&update(&attributes, &[32, 11 + a, b, c, 1]));
    }
    let total = u64::from(ROUTES);
    wait("the witness has all", || scene.witness.routes(), |count| *count > total).unwrap();
    let about = scene.ours.about("hostile");
    assert!(about.contains("BGP state = ESTABLISHED") && !about.contains("OutQ = 0,"), "{about}");
    scene.is_well("a neighbour that does not read");
    drop(deaf);
}

/// RFC 4456 section 8: what comes round again is not used.
#[test]
fn routes_with_our_own_originator_or_cluster_are_not_used() {
    let Some(scene) = Scene::open(|session| (session.remote_as, session.client) = (OURS, true)) else {
        return;
    };
    let mut hostile = established(&scene);
    let inside =
        [&[0x40, 1, 1, 0][..], &[0x40, 2, 0], &[0x40, 3, 4, 10, 99, 0, HOSTILE], &[0x40, 5, 4, 0, 0, 0, 100]];
    let own = [10, 99, 0, SUBJECT];
    let look = || scene.ours.paths_from("hostile", "10.2.1.0/24").len();
    for (what, kind) in [("originator", 9_u8), ("cluster", 10)] {
        hostile.send(&update(&inside.concat(), &PREFIX));
        wait("a sound route is there", look, |count| *count == 1).unwrap();
        let looped = [inside.concat(), [&[0x80, kind, 4][..], &own].concat()].concat();
        hostile.send(&update(&looped, &PREFIX));
        wait(&format!("our own {what}"), look, |count| *count == 0).unwrap();
    }
    assert!(scene.ours.is_up("hostile"), "{}", scene.ours.log());
    scene.is_well("loops");
}
