//! Who is at the other end of a link (BGP unnumbered): its link-local address is learned, and ours is told.
//!
//! ```text
//!  owner ── wants to know of eth0 ──▶ table ─▶ task: router advertisements out (RFC 4861), every few seconds
//!    ▲                                          │    heard: advertisements, connections; else the kernel's neighbours
//!    └── task of the neighbour ◀── Location ◀───┘
//! ```
//!
//! A link has one neighbour. Where several say that they are routers, it is the one that was heard last, and the status
//! says so. What is heard counts until something else is, or the link goes down; that nothing is heard ends no session:
//! keepalives and BFD are for that.

mod advert;
mod links;

use advert::{Adverts, Said};
use links::{Link, Links, News};
use std::{
    collections::BTreeMap,
    future::pending,
    io,
    net::{Ipv6Addr, SocketAddrV6},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;

/// Between advertisements to all at first; never less (RFC 4861 section 10, `MIN_DELAY_BETWEEN_RAS`).
const EVERY_FIRST: Duration = Duration::from_secs(3);
/// How many are the first ones (`MAX_INITIAL_RTR_ADVERTISEMENTS`).
const FIRST: u32 = 3;
/// Between later ones: as long as FRR waits.
const EVERY: Duration = Duration::from_secs(10);
/// Until what could not be sent is tried again: our address may not be checked for doubles yet (RFC 4862).
const AGAIN: Duration = Duration::from_millis(500);
/// Pause after the kernel could not be asked.
const PAUSE: Duration = Duration::from_secs(1);

/// Where the neighbour on a link is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Location {
    /// Its address, with the number of the link; the port is 0. `None`: it is not known.
    pub(crate) address: Option<SocketAddrV6>,
    /// Why it is not known, or what is odd about it; may be empty.
    pub(crate) why: String,
}

/// Finds neighbours on links. Its task comes with the first, and ends with this.
#[derive(Debug, Default)]
pub(crate) struct Unnumbered {
    shared: Arc<Shared>,
    task: Option<AbortOnDropHandle<()>>,
}

/// What the task and the owner know.
#[derive(Debug, Default)]
struct Shared {
    table: Mutex<Table>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    /// Links that are new to the task.
    wanted: Vec<(String, watch::Sender<Location>)>,
    /// Who connected: at most one for each link.
    heard: BTreeMap<String, SocketAddrV6>,
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Nobody panics with the table in an odd state: each change is one insertion or removal.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unnumbered {
    /// Looks for the neighbour on a link for as long as somebody holds what is returned.
    pub(crate) fn watch(&mut self, name: &str) -> watch::Receiver<Location> {
        let why = format!("looking for the neighbour on {name}");
        let (publish, location) = watch::channel(Location { address: None, why });
        self.shared.table().wanted.push((name.to_owned(), publish));
        self.shared.changed.notify_one();
        if self.task.is_none() {
            let worker = Worker::new(self.shared.clone());
            self.task = Some(AbortOnDropHandle::new(tokio::spawn(worker.run())));
        }
        location
    }

    /// The neighbour on a link connected from there.
    pub(crate) fn heard(&self, name: String, from: SocketAddrV6) {
        self.shared.table().heard.insert(name, from);
        self.shared.changed.notify_one();
    }
}

/// A link whose neighbour is wanted.
#[derive(Debug)]
struct Interface {
    publish: watch::Sender<Location>,
    link: Option<Link>,
    /// Who was heard last.
    heard: Option<Ipv6Addr>,
    /// Who was heard before.
    former: Option<Ipv6Addr>,
    /// One that was heard before is heard again: there are two.
    is_crowded: bool,
    /// Advertisements since the link is up.
    sent: u32,
    sent_at: Option<Duration>,
    /// When the next is due; `None`: the link is down.
    due: Option<Duration>,
    /// Why the last one could not be sent.
    fault: Option<String>,
}

impl Interface {
    fn new(publish: watch::Sender<Location>) -> Self {
        Self {
            publish,
            link: None,
            heard: None,
            former: None,
            is_crowded: false,
            sent: 0,
            sent_at: None,
            due: None,
            fault: None,
        }
    }

    /// The link is so now. One that was down, or is another with the same name, starts anew.
    fn take_link(&mut self, now: Duration, link: Option<Link>) {
        let usable = |link: &Option<Link>| link.as_ref().filter(|link| link.is_up).map(|link| link.index);
        if usable(&self.link) != usable(&link) {
            (self.heard, self.former, self.is_crowded) = (None, None, false);
            (self.fault, self.sent, self.sent_at) = (None, 0, None);
            self.due = usable(&link).map(|_| now);
        }
        self.link = link;
    }

    /// Somebody is there.
    fn hear(&mut self, from: Ipv6Addr) {
        if self.heard == Some(from) {
            return;
        }
        self.is_crowded = self.former == Some(from);
        self.former = self.heard.replace(from);
    }

    /// An advertisement to all went out, or could not.
    fn sent(&mut self, now: Duration, result: Result<(), String>) {
        self.fault = result.err();
        if self.fault.is_some() {
            self.due = Some(now + AGAIN);
            return;
        }
        self.sent = self.sent.saturating_add(1);
        self.sent_at = Some(now);
        self.due = Some(now + if self.sent < FIRST { EVERY_FIRST } else { EVERY });
    }

    /// Something changed because of which the next one may come sooner, but not too soon.
    fn hurry(&mut self, now: Duration) {
        let earliest = self.sent_at.map_or(now, |at| now.max(at + EVERY_FIRST));
        self.due = self.due.map(|due| due.min(earliest));
    }

    fn location(&self, name: &str) -> Location {
        let Some(link) = &self.link else {
            return Location { address: None, why: format!("there is no interface {name}") };
        };
        if !link.is_up {
            return Location {
                address: None,
                why: format!("{name} is down, or nothing is at its other end"),
            };
        }
        let address = self.heard.map(|address| SocketAddrV6::new(address, 0, 0, link.index));
        let fault = self.fault.iter().map(|fault| format!("; {fault}"));
        let why = match (address, self.former.filter(|_| self.is_crowded)) {
            (None, _) => {
                format!(
                    "no router is heard on {name}: the neighbour must send router advertisements, or connect"
                )
            }
            (Some(_), None) => String::new(),
            (Some(_), Some(other)) => {
                format!("several routers are heard on {name}, {other} too: BGP is spoken with one at most")
            }
        };
        Location { address, why: fault.fold(why, |why, fault| why + &fault) }
    }

    fn publish(&self, name: &str) {
        let location = self.location(name);
        self.publish.send_if_modified(|shown| {
            let is_new = *shown != location;
            if is_new {
                let address = location.address.map(|address| *address.ip());
                tracing::debug!(interface = name, ?address, why = %location.why, "neighbour located");
            }
            *shown = location;
            is_new
        });
    }
}

struct Worker {
    shared: Arc<Shared>,
    started: Instant,
    links: Option<Links>,
    adverts: Result<Adverts, String>,
    interfaces: BTreeMap<String, Interface>,
}

/// What woke the task.
enum Woken {
    Table,
    Links(io::Result<Vec<News>>),
    Said(io::Result<(SocketAddrV6, Said)>),
    Timer,
}

impl Worker {
    fn new(shared: Arc<Shared>) -> Self {
        let adverts = Adverts::open().map_err(|why| {
            let fault =
                format!("no router advertisements can be sent or heard (CAP_NET_RAW is needed): {why}");
            tracing::error!(%fault, "neighbours on interfaces are found only if they connect");
            fault
        });
        let links = Links::open().map_err(|why| tracing::error!(%why, "links cannot be watched"));
        Self { shared, started: Instant::now(), links: links.ok(), adverts, interfaces: BTreeMap::new() }
    }

    async fn run(mut self) {
        loop {
            match self.wait().await {
                Woken::Table => self.take_table(),
                Woken::Links(Ok(news)) => news.into_iter().for_each(|news| self.take_news(news)),
                Woken::Said(Ok((from, said))) => self.take_said(from, said),
                Woken::Timer => {}
                Woken::Links(Err(why)) | Woken::Said(Err(why)) => {
                    tracing::warn!(%why, "what happens on links cannot be read: it is tried again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
            self.interfaces.retain(|_, interface| !interface.publish.is_closed());
            self.serve();
        }
    }

    async fn wait(&self) -> Woken {
        let due = self.interfaces.values().filter_map(|interface| interface.due).min();
        tokio::select! {
            () = self.shared.changed.notified() => Woken::Table,
            news = async { match &self.links { Some(links) => links.next().await, None => pending().await } } => Woken::Links(news),
            said = async { match &self.adverts { Ok(adverts) => adverts.next().await, Err(_) => pending().await } } => Woken::Said(said),
            () = async { match due { Some(due) => sleep_until(self.started + due).await, None => pending().await } } => Woken::Timer,
        }
    }

    fn take_table(&mut self) {
        let (wanted, heard) = {
            let mut table = self.shared.table();
            (std::mem::take(&mut table.wanted), std::mem::take(&mut table.heard))
        };
        if !wanted.is_empty() {
            self.interfaces.extend(wanted.into_iter().map(|(name, publish)| (name, Interface::new(publish))));
            self.read_links();
        }
        for (name, from) in heard {
            let interface = self.interfaces.get_mut(&name);
            // The link may be another by now.
            let index = |interface: &Interface| interface.link.as_ref().map(|link| link.index);
            if let Some(interface) = interface.filter(|one| index(one) == Some(from.scope_id())) {
                interface.hear(*from.ip());
            }
        }
    }

    fn read_links(&mut self) {
        let now = self.started.elapsed();
        let links = match links::all() {
            Ok(links) => links,
            Err(why) => return tracing::warn!(%why, "links cannot be read"),
        };
        for (name, interface) in &mut self.interfaces {
            interface.take_link(now, links.iter().find(|link| link.name == *name).cloned());
        }
    }

    fn take_news(&mut self, news: News) {
        let now = self.started.elapsed();
        match news {
            News::Missed => self.read_links(),
            News::Address => self.interfaces.values_mut().for_each(|interface| {
                if interface.fault.is_some() {
                    interface.hurry(now);
                }
            }),
            News::There(link) => {
                for (name, interface) in &mut self.interfaces {
                    let was_it = interface.link.as_ref().is_some_and(|known| known.index == link.index);
                    if *name == link.name {
                        interface.take_link(now, Some(link.clone()));
                    } else if was_it {
                        // It has another name now.
                        interface.take_link(now, None);
                    }
                }
            }
            News::Gone(index) => {
                for interface in self.interfaces.values_mut() {
                    if interface.link.as_ref().is_some_and(|link| link.index == index) {
                        interface.take_link(now, None);
                    }
                }
            }
        }
    }

    fn take_said(&mut self, from: SocketAddrV6, said: Said) {
        let on = |interface: &Interface| {
            interface.link.as_ref().filter(|link| link.index == from.scope_id()).cloned()
        };
        let found = self.interfaces.values_mut().find_map(|one| Some((on(one)?, one)));
        let Some((link, interface)) = found else { return };
        match said {
            Said::Advertised => interface.hear(*from.ip()),
            // To who asked alone: no pause must be kept then (RFC 4861 section 6.2.6).
            Said::Asked => {
                if let Ok(adverts) = &self.adverts
                    && let Err(why) = adverts.advertise(link.index, link.mac, Some(*from.ip()))
                {
                    tracing::debug!(interface = %link.name, %why, "a router solicitation has no answer");
                }
            }
        }
    }

    /// Says what is due, and tells what is known.
    fn serve(&mut self) {
        let now = self.started.elapsed();
        for (name, interface) in &mut self.interfaces {
            if interface.due.is_some_and(|due| due <= now)
                && let Some(link) = interface.link.clone()
            {
                let result = advertise(&self.adverts, &link, interface.heard.is_none());
                interface.sent(now, result);
                if interface.heard.is_none() {
                    interface.ask_kernel(link.index);
                }
            }
            interface.publish(name);
        }
    }
}

/// Tells everybody on a link that we are there, and asks who else is, where nobody was heard.
fn advertise(adverts: &Result<Adverts, String>, link: &Link, asks: bool) -> Result<(), String> {
    let adverts = adverts.as_ref().map_err(Clone::clone)?;
    let sent = adverts.join(link.index).and_then(|()| adverts.advertise(link.index, link.mac, None));
    let sent = if asks { sent.and_then(|()| adverts.ask(link.index, link.mac)) } else { sent };
    sent.map_err(|why| match why.kind() {
        io::ErrorKind::AddrNotAvailable => {
            format!("{} has no link-local address of ours yet, or IPv6 is off there", link.name)
        }
        _ => format!("no router advertisement can be sent: {why}"),
    })
}

impl Interface {
    /// The one whom the kernel knows on this link, if there is just one: who sends no advertisements may have been
    /// spoken with.
    fn ask_kernel(&mut self, index: u32) {
        match links::neighbors(index).as_deref() {
            Ok([only]) => self.hear(*only),
            Ok(_) => {}
            Err(why) => tracing::debug!(%why, "kernel's neighbours cannot be read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn link(index: u32, is_up: bool) -> Link {
        Link { name: "eth0".to_owned(), index, is_up, mac: None }
    }

    fn address(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n)
    }

    fn interface() -> Interface {
        let mut interface = Interface::new(watch::channel(Location::default()).0);
        interface.take_link(NOW, Some(link(7, true)));
        interface
    }

    #[test]
    fn advertisements_come_at_once_then_less_often() {
        let mut interface = interface();
        assert_eq!(interface.due, Some(NOW));
        let mut gaps = Vec::new();
        for _ in 0..4 {
            let at = interface.due.unwrap();
            interface.sent(at, Ok(()));
            gaps.push(interface.due.unwrap().saturating_sub(at).as_secs());
        }
        assert_eq!(gaps, [3, 3, 10, 10]);
        interface.hurry(NOW);
        let sent_at = interface.sent_at.unwrap();
        assert_eq!(interface.due, Some(sent_at + EVERY_FIRST), "never sooner than the RFC lets");
    }

    #[test]
    fn what_cannot_be_sent_is_tried_again_soon_and_told() {
        let mut interface = interface();
        interface.sent(NOW, Err("no address".to_owned()));
        assert_eq!(interface.due, Some(NOW + AGAIN));
        let why = interface.location("eth0").why;
        assert!(why.contains("no router is heard on eth0") && why.ends_with("; no address"), "{why}");
    }

    #[test]
    fn who_is_heard_last_is_the_neighbour() {
        let mut interface = interface();
        assert_eq!(interface.location("eth0").address, None);
        interface.hear(address(1));
        interface.hear(address(1));
        let found = interface.location("eth0");
        assert_eq!(found.address, Some(SocketAddrV6::new(address(1), 0, 0, 7)));
        assert_eq!(found.why, "");
        interface.hear(address(2));
        let found = interface.location("eth0");
        assert_eq!(found.address.map(|found| *found.ip()), Some(address(2)));
        assert_eq!(found.why, "", "it has another address now");
        interface.hear(address(1));
        let found = interface.location("eth0");
        assert!(found.why.contains("several routers are heard on eth0, fe80::2 too"), "{}", found.why);
    }

    #[test]
    fn a_link_that_goes_takes_what_was_heard_with_it() {
        let mut interface = interface();
        interface.hear(address(1));
        interface.take_link(NOW, Some(link(7, true)));
        assert!(interface.heard.is_some(), "the same is no news");
        interface.take_link(NOW, Some(link(7, false)));
        assert_eq!((interface.heard, interface.due), (None, None));
        assert!(interface.location("eth0").why.contains("eth0 is down"));
        interface.take_link(NOW, Some(link(7, true)));
        assert_eq!(interface.due, Some(NOW), "it is told at once that we are there");
        interface.hear(address(1));
        interface.take_link(NOW, Some(link(8, true)));
        assert_eq!(interface.heard, None, "another link with the same name");
        interface.take_link(NOW, None);
        assert_eq!(interface.location("eth0").why, "there is no interface eth0");
    }
}
