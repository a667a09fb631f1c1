//! What monitors know of the routes (RFC 7854), and what each must hear next.
//!
//! A monitor watches some tables: of a peer what came, of that what policy left, what it may be told and what it is told;
//! and what is used. Of each it is told all once, destination by destination, and then what changed. Nothing is queued for it: a change only marks its destination,
//! and the monitor hears of the state in which it finds it (RFC 7854 section 5 allows to leave out what lay between). So
//! one that is slow holds a few bits for each destination, however often routes change, and in the end knows exactly what
//! is there.

use super::{
    Bits, Interner, PeerId, Router, Source,
    export::Exporter,
    group::Group,
    table::{Slot, Table},
};
use crate::{
    attributes::Attributes,
    prefix::{Nlri, PathId},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

/// Destinations that are looked at before the monitor is asked to come again.
const LOOKS_MAX: usize = if cfg!(test) { 3 } else { 8_192 };
/// Routes that a monitor hears of at once; those of one destination are not parted.
const NEWS_MAX: usize = if cfg!(test) { 2 } else { 1_000 };

/// Names a monitor of a [`Router`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonitorId(u64);

/// A table that can be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RibView {
    /// What a peer sent: its Adj-RIB-In before policy.
    Received(PeerId),
    /// What of that can be used, as the import policy left it: its Adj-RIB-In after policy.
    Accepted(PeerId),
    /// The best paths: Loc-RIB (RFC 9069).
    Best,
    /// What a peer may be told, whatever the export policy says: its Adj-RIB-Out before policy (RFC 8671), not dressed for it.
    Offered(PeerId),
    /// What it was told, or will be once it has taken what waits for it: its Adj-RIB-Out after policy.
    Sent(PeerId),
}

impl RibView {
    /// Whose table it is.
    pub fn peer(self) -> Option<PeerId> {
        match self {
            Self::Received(peer) | Self::Accepted(peer) | Self::Offered(peer) | Self::Sent(peer) => {
                Some(peer)
            }
            Self::Best => None,
        }
    }

    fn is_out(self) -> bool {
        matches!(self, Self::Offered(_) | Self::Sent(_))
    }
}

/// A route that a monitor hears of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// Where it leads.
    pub nlri: Nlri,
    /// What it carries.
    pub attributes: Arc<Attributes>,
    /// When it came, in whole seconds.
    pub since: Duration,
}

/// What changed in a table since the monitor heard of it last. A path is in one of the lists at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Which table.
    pub view: RibView,
    /// Routes that are gone.
    pub withdrawn: Vec<Nlri>,
    /// Routes that are there.
    pub announced: Vec<Reported>,
    /// With this the monitor has heard of all that was there when it began to watch.
    pub is_complete: bool,
}

/// All monitors.
#[derive(Debug, Default)]
pub(super) struct Monitors {
    monitors: BTreeMap<MonitorId, Monitor>,
    next: u64,
}

/// What one monitor watches.
#[derive(Debug, Default)]
struct Monitor {
    ledgers: BTreeMap<RibView, Ledger>,
    /// Tables of which there is something to hear.
    stirred: BTreeSet<RibView>,
    /// The last of which something was heard, so that all have their turn.
    turn: Option<RibView>,
}

/// What a monitor knows of one table.
#[derive(Debug, Default)]
struct Ledger {
    /// Where the first round through all destinations stands; `None` after it.
    first_round: Option<u32>,
    /// Destinations that changed.
    lacks: Bits,
    /// Where the round through those stands.
    from: u32,
    /// Routes with path id 0 that it knows, by destination.
    plain: Bits,
    /// Routes with other path ids that it knows.
    numbered: BTreeSet<(u32, PathId)>,
}

impl Monitors {
    /// Notes that a table changed at a destination.
    pub(super) fn touch(&mut self, view: RibView, number: u32) {
        for monitor in self.monitors.values_mut() {
            if let Some(ledger) = monitor.ledgers.get_mut(&view) {
                ledger.lacks.insert(number);
                monitor.stirred.insert(view);
            }
        }
    }

    /// Notes that a path of a peer changed.
    pub(super) fn touch_source(&mut self, source: Source, number: u32) {
        if self.monitors.is_empty() {
            return;
        }
        if let Some(peer) = source.peer() {
            self.touch(RibView::Received(peer), number);
            self.touch(RibView::Accepted(peer), number);
        }
    }

    /// Notes that members of a group are told of destinations anew.
    pub(super) fn touch_sent(&mut self, members: &[PeerId], numbers: &(impl Iterator<Item = u32> + Clone)) {
        let watched = |monitor: &&mut Monitor| monitor.ledgers.keys().any(|view| view.is_out());
        for monitor in self.monitors.values_mut().filter(watched) {
            for view in members.iter().flat_map(|peer| [RibView::Offered(*peer), RibView::Sent(*peer)]) {
                if let Some(ledger) = monitor.ledgers.get_mut(&view) {
                    numbers.clone().for_each(|number| ledger.lacks.insert(number));
                    monitor.stirred.insert(view);
                }
            }
        }
    }

    /// Destinations of which some monitor knows a route: they keep their number until it heard that it is gone.
    pub(super) fn reported(&self) -> Bits {
        let mut reported = Bits::default();
        for ledger in self.monitors.values().flat_map(|monitor| monitor.ledgers.values()) {
            reported.insert_all(&ledger.plain);
            ledger.numbered.iter().for_each(|(number, _)| reported.insert(*number));
        }
        reported
    }

    /// Stops all watching of a peer.
    pub(super) fn forget(&mut self, peer: PeerId) {
        for monitor in self.monitors.values_mut() {
            for view in [RibView::Received, RibView::Accepted, RibView::Offered, RibView::Sent] {
                monitor.close(view(peer));
            }
        }
    }
}

impl Monitor {
    fn close(&mut self, view: RibView) {
        self.ledgers.remove(&view);
        self.stirred.remove(&view);
    }

    /// The table whose turn it is.
    fn next_view(&self) -> Option<RibView> {
        let after = self.turn.map_or(Bound::Unbounded, Bound::Excluded);
        let mut later = self.stirred.range((after, Bound::Unbounded));
        later.next().or_else(|| self.stirred.first()).copied()
    }
}

impl Router {
    /// Adds a monitor, which watches nothing yet.
    pub fn add_monitor(&mut self) -> MonitorId {
        let id = MonitorId(self.monitors.next);
        self.monitors.next += 1;
        self.monitors.monitors.insert(id, Monitor::default());
        id
    }

    /// Forgets a monitor.
    pub fn remove_monitor(&mut self, id: MonitorId) {
        self.monitors.monitors.remove(&id);
    }

    /// Lets a monitor watch a table from its beginning, of which it knows nothing. A peer that is removed is no longer
    /// watched.
    pub fn monitor(&mut self, id: MonitorId, view: RibView) {
        if let Some(monitor) = self.monitors.monitors.get_mut(&id) {
            monitor.ledgers.insert(view, Ledger { first_round: Some(0), ..Ledger::default() });
            monitor.stirred.insert(view);
        }
    }

    /// Stops a monitor's watching of a table, of which it knows nothing from now on.
    pub fn unmonitor(&mut self, id: MonitorId, view: RibView) {
        if let Some(monitor) = self.monitors.monitors.get_mut(&id) {
            monitor.close(view);
        }
    }

    /// Whether [`Router::poll_news`] may have something for the monitor.
    pub fn has_news(&self, id: MonitorId) -> bool {
        self.monitors.monitors.get(&id).is_some_and(|monitor| !monitor.stirred.is_empty())
    }

    /// What a monitor hears next, and with that knows: some of what changed in one table, maybe nothing where it is only
    /// known after a look that nothing did. `None` means that it knows all; ask again after each input. Takes time for at
    /// most some thousand destinations.
    pub fn poll_news(&mut self, id: MonitorId) -> Option<News> {
        let Self { monitors, table, peers, groups, interner, config, .. } = self;
        let monitor = monitors.monitors.get_mut(&id)?;
        let view = monitor.next_view()?;
        monitor.turn = Some(view);
        let Some(ledger) = monitor.ledgers.get_mut(&view) else {
            monitor.stirred.remove(&view);
            return None;
        };
        let mut news = News { view, withdrawn: Vec::new(), announced: Vec::new(), is_complete: false };
        let peer = view.peer().and_then(|peer| peers.get(peer.index())?.as_ref());
        let group = peer.and_then(|peer| groups.get(peer.group?.0)?.as_ref());
        let is_empty = match view {
            RibView::Received(_) | RibView::Accepted(_) => {
                peer.is_none_or(|peer| peer.counts.iter().all(|counts| counts.received == 0))
            }
            RibView::Offered(_) | RibView::Sent(_) => group.is_none(),
            RibView::Best => false,
        };
        let out = group.filter(|_| view.is_out()).map(|group| {
            let client_to_client = config.client_to_client;
            (group, Exporter { key: &group.key, policy: &*group.policy, peers, client_to_client })
        });
        let mut reader = Reader { view, out, interner };
        if ledger.first_round.is_some() {
            ledger.go_first_round(table, if is_empty { table.end() } else { 0 }, (&mut reader, &mut news));
        } else if !ledger.go_on(table, (&mut reader, &mut news)) {
            monitor.stirred.remove(&view);
        }
        Some(news)
    }
}

impl Ledger {
    /// Tells of the next destinations of the first round, those below `skip` left out.
    fn go_first_round(&mut self, table: &Table, skip: u32, (reader, news): (&mut Reader<'_>, &mut News)) {
        let mut number = self.first_round.unwrap_or_default().max(skip);
        for _ in 0..LOOKS_MAX {
            let Some(slot) = table.slot(number).filter(|_| news.has_room()) else { break };
            self.lacks.remove(number);
            self.tell(number, slot, (&mut *reader, &mut *news));
            number += 1;
        }
        news.is_complete = number >= table.end();
        self.first_round = (!news.is_complete).then_some(number);
    }

    /// Tells of destinations that changed; says whether there may be more.
    fn go_on(&mut self, table: &Table, (reader, news): (&mut Reader<'_>, &mut News)) -> bool {
        for _ in 0..LOOKS_MAX {
            if !news.has_room() {
                return true;
            }
            let Some(number) = self.lacks.next_from(self.from) else {
                if self.from == 0 {
                    return false;
                }
                // Those before, in another round.
                self.from = 0;
                continue;
            };
            self.lacks.remove(number);
            self.from = number + 1;
            if let Some(slot) = table.slot(number) {
                self.tell(number, slot, (&mut *reader, &mut *news));
            }
        }
        true
    }

    /// Tells what there is of a destination, and what of it is there no longer.
    fn tell(&mut self, number: u32, slot: &Slot, (reader, news): (&mut Reader<'_>, &mut News)) {
        let mut gone: BTreeSet<PathId> = self.known(number).collect();
        let before = news.announced.len();
        reader.read(number, slot, &mut news.announced);
        for route in news.announced.get(before..).unwrap_or_default() {
            let path_id = route.nlri.path_id;
            gone.remove(&path_id);
            match path_id {
                PathId(0) => self.plain.insert(number),
                path_id => drop(self.numbered.insert((number, path_id))),
            }
        }
        for path_id in gone {
            match path_id {
                PathId(0) => self.plain.remove(number),
                path_id => drop(self.numbered.remove(&(number, path_id))),
            }
            news.withdrawn.push(Nlri { prefix: slot.prefix, path_id });
        }
    }

    /// Path ids of the routes to a destination that the monitor knows.
    fn known(&self, number: u32) -> impl Iterator<Item = PathId> {
        let plain = self.plain.contains(number).then_some(PathId(0));
        let numbered = self.numbered.range((number, PathId(0))..=(number, PathId(u32::MAX)));
        plain.into_iter().chain(numbered.map(|(_, path_id)| *path_id))
    }
}

impl News {
    fn has_room(&self) -> bool {
        self.announced.len() + self.withdrawn.len() < NEWS_MAX
    }
}

/// Reads a table.
struct Reader<'a> {
    view: RibView,
    /// Who decides what the peer is told.
    out: Option<(&'a Group, Exporter<'a>)>,
    interner: &'a mut Interner,
}

impl Reader<'_> {
    /// What the table has of a destination.
    fn read(&mut self, number: u32, slot: &Slot, into: &mut Vec<Reported>) {
        let (RibView::Offered(peer) | RibView::Sent(peer)) = self.view else {
            return into.extend(routes(self.view, slot));
        };
        let Some((group, exporter)) = &self.out else { return };
        let is_sent = self.view == RibView::Sent(peer);
        let paths =
            if is_sent { group.told_paths(number, slot, peer) } else { group.offered_paths(slot, peer) };
        for (path, local_id) in paths {
            let attributes = if is_sent {
                let admitted = exporter.admit(&slot.prefix, path);
                let dressed = admitted.and_then(|admitted| {
                    exporter.dress(path, admitted.changed.as_deref(), slot.prefix.family())
                });
                // Routes that look alike are told together.
                dressed.map(|dressed| self.interner.intern(Arc::new(dressed)))
            } else {
                exporter.withheld(&slot.prefix, path).is_none().then(|| Arc::clone(&path.attributes))
            };
            into.extend(attributes.map(|attributes| Reported {
                nlri: slot.nlri(local_id),
                attributes,
                since: Duration::from_secs(path.since.into()),
            }));
        }
    }
}

/// What a table has of a destination.
fn routes(view: RibView, slot: &Slot) -> impl Iterator<Item = Reported> {
    let best = slot.best().filter(|_| view == RibView::Best);
    let best = best.map(|path| (PathId(0), &path.attributes, path.since));
    let source = view.peer().map(Source::from);
    let own = slot.paths.as_slice().iter().filter(move |path| Some(path.source) == source);
    let own = own.filter_map(move |path| match view {
        RibView::Received(_) => Some((path.path_id, path.received(), path.since)),
        RibView::Accepted(_) if path.exclusion.is_none() => {
            Some((path.path_id, &path.attributes, path.since))
        }
        _ => None,
    });
    best.into_iter().chain(own).map(|(path_id, attributes, since)| Reported {
        nlri: Nlri { prefix: slot.prefix, path_id },
        attributes: Arc::clone(attributes),
        since: Duration::from_secs(since.into()),
    })
}
