use super::{
    KernelRoutes, KernelStatus, Via,
    inbox::News,
    plan::{Event, Failure, Hop, Hops, Nowhere, Operation, Resolution, Route},
    worker::{Fib, Worker},
};
use isthmus_bgp::Prefix;
use proptest::{collection::vec, prelude::*};
use rustix::io::Errno;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    os::fd::BorrowedFd,
    rc::Rc,
    time::Duration,
};
use tokio::sync::watch;

const METRIC: u32 = 20;
const OURS: u8 = 99;
const STATIC: u8 = 4;

/// A kernel in memory: routes by prefix and metric, room for so many, and ways to next hops.
#[derive(Debug)]
struct Table {
    routes: BTreeMap<(Prefix, u32), (u8, Hops)>,
    ways: BTreeMap<IpAddr, Hops>,
    room: usize,
    events: Vec<Event>,
    /// Notifications are lost.
    is_deaf: bool,
    /// How much it was asked to change.
    changes: usize,
}

#[derive(Clone, Debug)]
struct Fake(Rc<RefCell<Table>>);

fn error(errno: Errno) -> io::Result<()> {
    Err(io::Error::from_raw_os_error(errno.raw_os_error()))
}

impl Table {
    fn change(&mut self, operation: &Operation) -> io::Result<()> {
        self.changes += 1;
        match operation {
            Operation::Add(route) => {
                if self.routes.contains_key(&(route.prefix, route.metric)) {
                    return error(Errno::EXIST);
                }
                if self.routes.len() >= self.room {
                    return error(Errno::NOMEM);
                }
                self.put(route)
            }
            Operation::Replace(route) => {
                if !self.routes.contains_key(&(route.prefix, route.metric)) {
                    return error(Errno::NOENT);
                }
                self.put(route)
            }
            Operation::Remove { prefix, metric } => {
                // As the kernel does with a protocol in the request.
                match self.routes.get(&(*prefix, *metric)) {
                    Some((OURS, _)) => drop(self.routes.remove(&(*prefix, *metric))),
                    _ => return error(Errno::SRCH),
                }
                Ok(())
            }
        }
    }

    fn put(&mut self, route: &Route) -> io::Result<()> {
        let is_on_link = |hop: &Hop| self.ways.values().any(|hops| hops.contains(hop));
        if !route.hops.iter().all(is_on_link) {
            return error(Errno::NETUNREACH);
        }
        self.routes.insert((route.prefix, route.metric), (OURS, route.hops.clone()));
        Ok(())
    }

    fn tell(&mut self, event: Event) {
        if !self.is_deaf {
            self.events.push(event);
        }
    }

    /// Somebody else sets a route.
    fn set_foreign(&mut self, prefix: Prefix, metric: u32) {
        if self.routes.get(&(prefix, metric)).is_none_or(|(protocol, _)| *protocol != OURS) {
            self.routes.insert((prefix, metric), (STATIC, [].into()));
            self.tell(Event::Foreign { prefix, metric, is_present: true, is_in_table: true });
        }
    }

    /// Somebody else removes a route, theirs or ours.
    fn remove(&mut self, prefix: Prefix, metric: u32) {
        match self.routes.remove(&(prefix, metric)) {
            Some((OURS, _)) => self.tell(Event::Ours { prefix, metric, hops: None }),
            Some(_) => self.tell(Event::Foreign { prefix, metric, is_present: false, is_in_table: true }),
            None => {}
        }
    }

    /// A way to a next hop comes or goes with its subnet.
    fn set_way(&mut self, next_hop: IpAddr, hops: Option<Hops>) {
        let is_present = hops.is_some();
        match hops {
            Some(hops) => drop(self.ways.insert(next_hop, hops)),
            None => drop(self.ways.remove(&next_hop)),
        }
        let subnet = Prefix::new(next_hop, 24).unwrap();
        self.tell(Event::Foreign { prefix: subnet, metric: 0, is_present, is_in_table: true });
    }
}

impl Fib for Fake {
    fn routes(&mut self) -> io::Result<Vec<Route>> {
        let table = self.0.borrow();
        let ours = table.routes.iter().filter(|(_, (protocol, _))| *protocol == OURS);
        Ok(ours.map(|((prefix, metric), (_, hops))| route(*prefix, *metric, hops)).collect())
    }

    fn apply(&mut self, operations: &[Operation]) -> io::Result<Vec<io::Result<()>>> {
        let mut table = self.0.borrow_mut();
        Ok(operations.iter().map(|operation| table.change(operation)).collect())
    }

    fn resolve(&mut self, next_hop: Via) -> io::Result<Resolution> {
        let hops = self.0.borrow().ways.get(&next_hop.address).cloned();
        Ok(hops.map_or(Resolution::Nowhere(Nowhere::NoRoute), Resolution::Hops))
    }

    fn events(&mut self) -> io::Result<Vec<Event>> {
        Ok(std::mem::take(&mut self.0.borrow_mut().events))
    }

    fn wakes(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

fn route(prefix: Prefix, metric: u32, hops: &Hops) -> Route {
    Route { prefix, metric, hops: hops.clone() }
}

/// A worker on such a kernel, in virtual time.
struct Rig {
    table: Rc<RefCell<Table>>,
    worker: Worker<Fake>,
    status: watch::Receiver<KernelStatus>,
    now: Duration,
}

impl Rig {
    /// With two next hops on one link, and a third over both.
    fn new() -> Self {
        let ways = [(1, &[1][..]), (2, &[2]), (3, &[1, 2])].into_iter();
        let table = Table {
            routes: BTreeMap::new(),
            ways: ways.map(|(n, over)| (next_hop(n), hops(over))).collect(),
            room: usize::MAX,
            events: Vec::new(),
            is_deaf: false,
            changes: 0,
        };
        Self::on(Rc::new(RefCell::new(table)))
    }

    fn on(table: Rc<RefCell<Table>>) -> Self {
        let (publish, status) = watch::channel(KernelStatus::default());
        let worker = Worker::new(Fake(table.clone()), &KernelRoutes::default(), publish);
        let mut rig = Self { table, worker, status, now: Duration::ZERO };
        rig.settle();
        rig
    }

    /// Another run of the speaker on the same kernel.
    fn restart(self) -> Self {
        Self::on(self.table)
    }

    fn set(&mut self, prefix: &str, next_hops: &[u8]) {
        let next_hops = next_hops.iter().map(|n| next_hop(*n).into()).collect();
        let changes = BTreeMap::from([(prefix.parse().unwrap(), next_hops)]);
        self.worker.take(News { changes, ..News::default() });
        self.settle();
    }

    fn complete(&mut self) {
        self.worker.take(News { complete: true, ..News::default() });
        self.settle();
    }

    /// Works until there is nothing to do at this time.
    fn settle(&mut self) {
        while self.worker.round(self.now) {}
        self.worker.publish(self.now);
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.worker.poll_timeout() <= until {
            self.now = self.worker.poll_timeout().max(self.now + Duration::from_millis(1));
            self.settle();
        }
        self.now = until;
        self.settle();
    }

    fn ours(&self) -> Vec<String> {
        let table = self.table.borrow();
        let ours = table.routes.iter().filter(|(_, (protocol, _))| *protocol == OURS);
        let vias = |hops: &Hops| {
            hops.iter().filter_map(|hop| hop.gateway).map(|via| via.to_string()).collect::<Vec<_>>().join(" ")
        };
        ours.map(|((prefix, _), (_, hops))| format!("{prefix} {}", vias(hops))).collect()
    }

    fn problems(&self) -> Vec<(Failure, usize)> {
        self.worker.plan.problems().into_iter().map(|(why, (routes, _))| (why, routes)).collect()
    }

    fn changes(&self) -> usize {
        self.table.borrow().changes
    }
}

fn next_hop(n: u8) -> IpAddr {
    IpAddr::from([10, 0, n, 1])
}

fn hops(over: &[u8]) -> Hops {
    let hop = |n: &u8| Hop { gateway: Some(next_hop(*n)), ifindex: u32::from(*n), onlink: false };
    over.iter().map(hop).collect()
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

#[test]
fn routes_come_change_and_go() {
    let mut rig = Rig::new();
    rig.set("192.168.1.0/26", &[1]);
    rig.set("2001:db8::/64", &[2]);
    assert_eq!(rig.ours(), ["192.168.1.0/26 10.0.1.1", "2001:db8::/64 10.0.2.1"]);
    rig.set("192.168.1.0/26", &[1, 2]);
    assert_eq!(rig.ours(), ["192.168.1.0/26 10.0.1.1 10.0.2.1", "2001:db8::/64 10.0.2.1"]);
    // The same way out, found otherwise: nothing to do.
    let before = rig.changes();
    rig.set("192.168.1.0/26", &[3]);
    assert_eq!(rig.changes(), before);
    rig.set("192.168.1.0/26", &[]);
    assert_eq!(rig.ours(), ["2001:db8::/64 10.0.2.1"]);
}

#[test]
fn routes_of_an_earlier_run_stay_until_neighbours_have_sent_theirs() {
    let mut rig = Rig::new();
    rig.set("192.168.1.0/26", &[1]);
    rig.set("192.168.2.0/26", &[2]);
    rig.set("192.168.3.0/26", &[2]);
    let before = rig.changes();
    let mut rig = rig.restart();
    assert_eq!(rig.worker.plan.stale(), 3);
    rig.set("192.168.1.0/26", &[1]);
    assert_eq!(
        (rig.changes(), rig.worker.plan.stale()),
        (before, 2),
        "what is as it shall be is not touched"
    );
    // It was announced, and then taken back: nobody stands by it.
    rig.set("192.168.3.0/26", &[1]);
    rig.set("192.168.3.0/26", &[]);
    assert_eq!(rig.ours(), ["192.168.1.0/26 10.0.1.1", "192.168.2.0/26 10.0.2.1"]);
    rig.pass(Duration::from_hours(1));
    assert_eq!(rig.ours().len(), 2);
    rig.complete();
    assert_eq!(rig.ours(), ["192.168.1.0/26 10.0.1.1"]);
    assert_eq!(rig.worker.plan.installed(), 1);
}

#[test]
fn routes_of_an_earlier_run_with_another_metric_go_when_the_right_one_is_there() {
    let rig = Rig::new();
    rig.table.borrow_mut().routes.insert((prefix("192.168.1.0/26"), 7), (OURS, hops(&[2])));
    let mut rig = rig.restart();
    rig.set("192.168.1.0/26", &[1]);
    assert_eq!(rig.ours(), ["192.168.1.0/26 10.0.1.1"]);
}

#[test]
fn a_route_of_somebody_else_is_left_alone_and_told() {
    let mut rig = Rig::new();
    rig.table.borrow_mut().set_foreign(prefix("192.168.1.0/26"), METRIC);
    rig.set("192.168.1.0/26", &[1]);
    rig.set("192.168.2.0/26", &[1]);
    assert_eq!(rig.ours(), ["192.168.2.0/26 10.0.1.1"]);
    assert_eq!(rig.problems(), [(Failure::Foreign, 1)]);
    rig.pass(Duration::from_secs(2));
    let problems = rig.status.borrow().problems.clone();
    assert!(problems[0].why.contains("same prefix and metric"), "{problems:?}");
    // It goes, and ours comes at once.
    rig.table.borrow_mut().remove(prefix("192.168.1.0/26"), METRIC);
    rig.settle();
    assert_eq!(rig.ours().len(), 2);
    assert_eq!(rig.problems(), []);
}

#[test]
fn ours_is_not_replaced_in_place_beside_one_of_somebody_else() {
    let mut rig = Rig::new();
    rig.set("192.168.1.0/26", &[1]);
    let event = Event::Foreign {
        prefix: prefix("192.168.1.0/26"),
        metric: METRIC,
        is_present: true,
        is_in_table: true,
    };
    rig.table.borrow_mut().tell(event);
    rig.settle();
    let before = rig.changes();
    rig.set("192.168.1.0/26", &[2]);
    assert_eq!(rig.ours(), ["192.168.1.0/26 10.0.2.1"]);
    assert_eq!(rig.changes(), before + 2, "removed and added");
}

#[test]
fn a_full_table_is_told_and_tried_again_after_growing_pauses() {
    let mut rig = Rig::new();
    rig.table.borrow_mut().room = 10;
    for n in 0..200 {
        rig.set(&format!("192.168.{n}.0/26"), &[1]);
    }
    assert_eq!(rig.ours().len(), 10);
    assert_eq!(rig.problems(), [(Failure::Full, 190)]);
    let before = rig.changes();
    rig.pass(Duration::from_hours(1));
    // 60 times a batch, and no more.
    assert!(rig.changes() - before < 70 * 64, "{}", rig.changes() - before);
    // A route that goes makes room for another at once.
    rig.set("192.168.3.0/26", &[]);
    rig.pass(Duration::ZERO);
    assert_eq!(rig.ours().len(), 10);
    rig.table.borrow_mut().room = 1_000;
    rig.pass(Duration::from_mins(2));
    assert_eq!((rig.ours().len(), rig.problems()), (199, vec![]));
}

#[test]
fn a_route_that_somebody_removes_comes_back_and_nobody_fights() {
    let mut rig = Rig::new();
    rig.set("192.168.1.0/26", &[1]);
    rig.table.borrow_mut().remove(prefix("192.168.1.0/26"), METRIC);
    rig.settle();
    assert_eq!(rig.ours().len(), 1, "at once the first time");
    let before = rig.changes();
    for _ in 0..600 {
        rig.table.borrow_mut().remove(prefix("192.168.1.0/26"), METRIC);
        rig.pass(Duration::from_millis(100));
    }
    assert!(rig.changes() - before < 10, "{}", rig.changes() - before);
    rig.pass(Duration::from_mins(2));
    assert_eq!(rig.ours().len(), 1);
}

#[test]
fn a_loss_that_nobody_told_is_found_at_the_next_look() {
    let mut rig = Rig::new();
    rig.set("192.168.1.0/26", &[1]);
    rig.table.borrow_mut().is_deaf = true;
    rig.table.borrow_mut().remove(prefix("192.168.1.0/26"), METRIC);
    rig.pass(Duration::from_mins(6));
    assert_eq!(rig.ours().len(), 1);
}

#[test]
fn a_next_hop_that_leads_nowhere_is_told_and_waited_for() {
    let mut rig = Rig::new();
    rig.set("192.168.1.0/26", &[9]);
    rig.set("192.168.2.0/26", &[1, 9]);
    assert_eq!(rig.ours(), ["192.168.2.0/26 10.0.1.1"], "the way that there is is used");
    assert_eq!(rig.problems(), [(Failure::Nowhere(Nowhere::NoRoute), 1)]);
    rig.table.borrow_mut().set_way(next_hop(9), Some(hops(&[9])));
    rig.settle();
    assert_eq!(rig.ours(), ["192.168.1.0/26 10.0.9.1", "192.168.2.0/26 10.0.1.1 10.0.9.1"]);
    // The subnet goes: the kernel says nothing about routes, only about the subnet.
    rig.table.borrow_mut().set_way(next_hop(9), None);
    rig.settle();
    assert_eq!(rig.ours(), ["192.168.2.0/26 10.0.1.1"]);
}

#[test]
fn an_interface_that_goes_is_looked_into() {
    let mut rig = Rig::new();
    rig.set("192.168.1.0/26", &[1]);
    // The kernel drops the route with its link and says no word but that of the link (IPv4).
    rig.table.borrow_mut().routes.clear();
    rig.table.borrow_mut().ways.clear();
    rig.table.borrow_mut().tell(Event::Link(1));
    rig.settle();
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.worker.plan.installed(), 0);
    assert_eq!(rig.problems(), [(Failure::Nowhere(Nowhere::NoRoute), 1)]);
    rig.table.borrow_mut().set_way(next_hop(1), Some(hops(&[1])));
    rig.settle();
    assert_eq!(rig.ours(), ["192.168.1.0/26 10.0.1.1"]);
}

/// What may happen, in any order.
#[derive(Clone, Debug)]
enum Happening {
    Set(u8, Vec<u8>),
    Foreign(u8, u32),
    Remove(u8, u32),
    Way(u8, Option<Vec<u8>>),
    Room(usize),
    Deaf(bool),
    Link(u8),
    Pass(u64),
    Complete,
    Restart,
}

fn happening() -> impl Strategy<Value = Happening> {
    let metric = || prop::sample::select(vec![0, METRIC]);
    prop_oneof![
        6 => (0..6_u8, vec(1..5_u8, 0..3)).prop_map(|(n, next_hops)| Happening::Set(n, next_hops)),
        2 => (0..6_u8, metric()).prop_map(|(n, metric)| Happening::Foreign(n, metric)),
        2 => (0..6_u8, metric()).prop_map(|(n, metric)| Happening::Remove(n, metric)),
        2 => (1..5_u8, prop::option::of(vec(1..5_u8, 1..3))).prop_map(|(n, over)| Happening::Way(n, over)),
        1 => (0..8_usize).prop_map(Happening::Room),
        1 => any::<bool>().prop_map(Happening::Deaf),
        1 => (1..5_u8).prop_map(Happening::Link),
        2 => (0..100_000_u64).prop_map(Happening::Pass),
        1 => Just(Happening::Complete),
        1 => Just(Happening::Restart),
    ]
}

fn numbered(n: u8) -> Prefix {
    Prefix::new(IpAddr::from([192, 168, n, 0]), 26).unwrap()
}

proptest! {
    /// Whatever happened: once it is quiet, the kernel has what a naive look at everything says, and others' routes are
    /// as others left them.
    #[test]
    fn the_kernel_ends_with_what_is_wanted(happenings in vec(happening(), 1..60)) {
        let mut rig = Rig::new();
        let mut wanted: BTreeMap<Prefix, Vec<u8>> = BTreeMap::new();
        let mut foreign: BTreeSet<(Prefix, u32)> = BTreeSet::new();
        for happening in happenings {
            match happening {
                Happening::Set(n, next_hops) => {
                    rig.set(&numbered(n).to_string(), &next_hops);
                    wanted.insert(numbered(n), next_hops);
                }
                Happening::Foreign(n, metric) => {
                    let mut table = rig.table.borrow_mut();
                    // Where the kernel does not tell that ours is gone and another's is there, a replacement would hit it.
                    if table.is_deaf && metric == METRIC {
                        continue;
                    }
                    table.set_foreign(numbered(n), metric);
                    if table.routes[&(numbered(n), metric)].0 == STATIC {
                        foreign.insert((numbered(n), metric));
                    }
                }
                Happening::Remove(n, metric) => {
                    rig.table.borrow_mut().remove(numbered(n), metric);
                    foreign.remove(&(numbered(n), metric));
                }
                Happening::Way(n, over) => {
                    rig.table.borrow_mut().set_way(next_hop(n), over.map(|over| {
                        let over: BTreeSet<u8> = over.into_iter().collect();
                        hops(&over.into_iter().collect::<Vec<_>>())
                    }));
                }
                Happening::Room(room) => rig.table.borrow_mut().room = room,
                Happening::Deaf(is_deaf) => rig.table.borrow_mut().is_deaf = is_deaf,
                Happening::Link(n) => rig.table.borrow_mut().tell(Event::Link(n.into())),
                Happening::Pass(milliseconds) => rig.pass(Duration::from_millis(milliseconds)),
                Happening::Complete => rig.complete(),
                Happening::Restart => {
                    rig = rig.restart();
                    for (prefix, next_hops) in &wanted {
                        rig.set(&prefix.to_string(), next_hops);
                    }
                }
            }
            rig.settle();
            let table = rig.table.borrow();
            for key in &foreign {
                prop_assert_eq!(table.routes.get(key).map(|(protocol, _)| *protocol), Some(STATIC));
            }
        }
        rig.table.borrow_mut().room = usize::MAX;
        rig.complete();
        // Longer than any pause.
        rig.pass(Duration::from_mins(20));
        let table = rig.table.borrow();
        let mut expected: BTreeMap<(Prefix, u32), Hops> = BTreeMap::new();
        for (prefix, next_hops) in &wanted {
            let ways = next_hops.iter().filter_map(|n| table.ways.get(&next_hop(*n)));
            let all: BTreeSet<Hop> = ways.flat_map(|hops| hops.iter().copied()).collect();
            if !all.is_empty() && !foreign.contains(&(*prefix, METRIC)) {
                expected.insert((*prefix, METRIC), all.into_iter().collect());
            }
        }
        let ours = table.routes.iter().filter(|(_, (protocol, _))| *protocol == OURS);
        let ours: BTreeMap<_, _> = ours.map(|(key, (_, hops))| (*key, hops.clone())).collect();
        prop_assert_eq!(ours, expected);
    }
}
