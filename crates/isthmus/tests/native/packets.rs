//! What goes over the wire, and what programs in containers find.

use crate::lab::{ISTHMUS, Lab, Node, PATIENCE, SILENCE, inside};
use isthmus_testbed::{namespace::Namespace, running::Running, wait};
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, UdpSocket},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// UDP port of the overlay.
const VXLAN: u16 = 4789;
/// Port of the pages that containers serve.
pub(crate) const HTTP: u16 = 8080;
/// Port of their TCP echo.
pub(crate) const ECHO: u16 = 7000;
/// Port of their UDP echo.
pub(crate) const UDP: u16 = 9000;

/// Who sent to whom.
type Pair = (Ipv4Addr, Ipv4Addr);

/// All packets on both links: those of containers as they are, and those of the overlay.
pub(crate) struct Capture(Running);

impl Capture {
    pub(crate) fn start(lab: &Lab) -> Self {
        let call = lab.router.call("tcpdump").words("-i any -n -l -t -q");
        let running = Running::start(&call.arg(format!("udp port {VXLAN} or net 10.64.0.0/15"))).unwrap();
        wait::until_true("tcpdump to listen", PATIENCE, || running.lines.any(|l| l.contains("listening on")))
            .unwrap();
        Self(running)
    }

    /// Containers whose packets were plain, and nodes whose packets were in the overlay.
    fn pairs(&self) -> (BTreeSet<Pair>, BTreeSet<Pair>) {
        let (mut plain, mut overlay) = (BTreeSet::new(), BTreeSet::new());
        self.0.lines.with(|lines| {
            for (from, to, port) in lines.iter().filter_map(|(_, line)| ends(line)) {
                let set = if port == Some(VXLAN) { &mut overlay } else { &mut plain };
                set.insert((from, to));
            }
        });
        (plain, overlay)
    }

    /// Waits until packets of all these were seen, there and back, and checks that no others were.
    pub(crate) fn end(self, lab: &Lab, plain: &[(&Node, &Node)], overlay: &[(&Node, &Node)]) {
        let both = |pairs: &[(&Node, &Node)], of: fn(&Node) -> Ipv4Addr| -> BTreeSet<Pair> {
            let ways = pairs.iter().flat_map(|(one, other)| [(one, other), (other, one)]);
            ways.map(|(from, to)| (of(from), of(to))).collect()
        };
        let wanted = (both(plain, |node| node.container), both(overlay, |node| node.address));
        lab.wait("the packets", || {
            let seen = self.pairs();
            let all = wanted.0.is_subset(&seen.0) && wanted.1.is_subset(&seen.1);
            (!all).then(|| format!("seen: {seen:?}\nwanted: {wanted:?}"))
        });
        assert_eq!(self.pairs(), wanted, "plain, and in the overlay");
    }
}

/// Source, destination and its port of a line like `a P IP 10.64.0.1.40000 > 10.64.0.64.8080: tcp 0`.
fn ends(line: &str) -> Option<(Ipv4Addr, Ipv4Addr, Option<u16>)> {
    let mut words = line.split_once("IP ")?.1.split([' ', ':']);
    let end = |word: &str| -> Option<(Ipv4Addr, Option<u16>)> {
        if let Ok(address) = word.parse() {
            return Some((address, None));
        }
        let (address, port) = word.rsplit_once('.')?;
        Some((address.parse().ok()?, port.parse().ok()))
    };
    let from = end(words.next()?)?;
    let to = end(words.nth(1)?)?;
    Some((from.0, to.0, to.1))
}

/// Fetches the page of another container, which sees the caller's own address.
pub(crate) fn fetch(lab: &Lab, from: &Node, to: &Node) {
    let call = from.client(&format!("get http://{}:{HTTP}/ --timeout-ms 2000", to.container));
    lab.wait(&format!("{} to fetch a page of {}", from.app, to.app), || match call.run() {
        Ok(page) if page.contains(&format!("\"caller\":\"{}\"", from.container)) => None,
        Ok(page) => Some(page),
        Err(error) => Some(error.to_string()),
    });
}

/// Tries to fetch a page, and must hear nothing.
pub(crate) fn denied(from: &Node, to: &Node) {
    let call = from.client(&format!("get http://{}:{HTTP}/ --timeout-ms {SILENCE}", to.container));
    let output = call.output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{} reaches {}: {output:?}", from.app, to.app);
}

/// Milliseconds since 1970, as in flows.
pub(crate) fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Waits until the node of `to` has written down a denial of `from`, whom it knows by `name`.
pub(crate) fn wait_denied(lab: &Lab, from: &Node, to: &Node, name: &str) {
    let since = now();
    lab.wait(&format!("{} to be denied as {name}", from.app), || {
        // Of denials of one pair of identities only one a second is written down.
        denied(from, to);
        let found = has_flow(to, since, ("no-rule", name), from.container);
        (!found).then(|| format!("{:?}", to.flow(|_| true)))
    });
}

/// Whether the node's agent wrote down a packet from this source after `since`: the reason, and who sent it (empty: whoever).
pub(crate) fn has_flow(node: &Node, since: u64, (reason, from): (&str, &str), source: Ipv4Addr) -> bool {
    let is_it = |flow: &serde_json::Value| {
        flow["timeUnixMs"].as_u64().is_some_and(|time| time >= since)
            && flow["reason"] == reason
            && flow["source"] == source.to_string()
            && (from.is_empty() || flow["from"] == from)
    };
    node.flow(is_it).is_some()
}

/// Sends a datagram with this source to a container's echo; whether it comes back.
pub(crate) fn echoes(space: &Namespace, source: Ipv4Addr, to: &Node) -> bool {
    inside(space, || {
        let socket = UdpSocket::bind((source, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(SILENCE.parse().unwrap()))).unwrap();
        // A refusal is told here at times, and is as good as silence.
        let _refused = socket.send_to(b"hello", (to.container, UDP));
        socket.recv(&mut [0; 16]).is_ok()
    })
}

/// A connection that goes on talking.
pub(crate) struct Talk(pub(crate) Running);

impl Talk {
    /// Opens it, and waits until lines come back.
    pub(crate) fn start(space: &Namespace, to: &Node) -> Self {
        let call = space.call(ISTHMUS).arg("demo-app");
        let call = call.words(&format!("talk {}:{ECHO} --every-ms 5 --silence-ms 1000", to.container));
        let talk = Self(Running::start(&call).unwrap());
        talk.goes_on();
        talk
    }

    /// Waits for some lines more.
    pub(crate) fn goes_on(&self) {
        let count = || self.0.lines.with(|lines| lines.len());
        let before = count();
        let more = wait::until_true("the talk to go on", PATIENCE, || count() > before + 5);
        let last = self.0.lines.with(|lines| lines.last().cloned());
        assert!(more.is_ok() && !self.has_stopped(), "{last:?}");
    }

    /// Whether it fell silent or broke.
    pub(crate) fn has_stopped(&self) -> bool {
        self.0.lines.any(|line| ["silent", "closed", "broken"].iter().any(|word| line.starts_with(word)))
    }
}
