//! The kernel's routes, for packets without encapsulation: watched, so that connections follow a change at once, and read
//! for what programs cannot ask: all the interfaces that one route leaves by, and which addresses of this node's own blocks
//! are elsewhere.
//!
//! Programs ask the kernel for the way of each connection (`crates/ebpf/src/native.rs`) and remember the answer under an
//! epoch. The watch begins another when a route, a next hop, a rule or a link changes. Without a watch, as while the agent is
//! down, programs ask again every second.

use crate::{netlink::Netlink, program::Maps, sys::map::Prefixed};
use ipnet::Ipv4Net;
use isthmus_dataplane_common::{
    BLOCK_BORROWED, BLOCK_FOREIGN, BLOCK_NATIVE, BLOCK_PREFIX_IPV4, BlockKey, BlockValue, MULTIPATH_MAX,
    MultipathValue, NATIVE_STRICT, identity, mapped,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    pipe::{PipeFlags, pipe_with},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::Ipv4Addr,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Shortest time between two changes that connections follow: routes often come in crowds.
const PAUSE: Duration = Duration::from_millis(20);
/// How many times longer than a reading of all routes the pause after it is, so that it takes a tenth of a CPU at most.
const PAUSE_FACTOR: u32 = 10;

/// A route of the kernel, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KernelRoute {
    pub(crate) prefix: Ipv4Net,
    /// Interfaces that it leaves by.
    pub(crate) ifindexes: BTreeSet<u32>,
    /// Whether a next hop has an address, so that networks behind it can be reached.
    pub(crate) has_gateway: bool,
}

/// A thread that watches the routes of the network namespace that it was started in.
pub(crate) struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Closed to end the thread.
    stop: Option<OwnedFd>,
}

struct Shared {
    maps: Arc<Maps>,
    /// Held while routes are read and what follows from them is written.
    seen: Mutex<Seen>,
}

/// What the last reading found.
#[derive(Default)]
struct Seen {
    read: bool,
    interfaces: BTreeSet<u32>,
    /// Blocks of this node.
    own: BTreeSet<Ipv4Net>,
    borrowed: BTreeSet<Ipv4Addr>,
}

impl Watch {
    /// Starts the thread.
    pub(crate) fn start(maps: Arc<Maps>) -> io::Result<Self> {
        let events = Netlink::watch_routes()?;
        let (ended, stop) = pipe_with(PipeFlags::CLOEXEC)?;
        let shared = Arc::new(Shared { maps, seen: Mutex::default() });
        let theirs = Arc::clone(&shared);
        let thread =
            thread::Builder::new().name("routes".into()).spawn(move || theirs.run(&events, &ended))?;
        Ok(Self { shared, thread: Some(thread), stop: Some(stop) })
    }

    /// Interfaces that packets of other networks may come by: those that routes with a next hop leave by. `own`: this
    /// node's blocks; `anew`: read now.
    pub(crate) fn look(&self, own: BTreeSet<Ipv4Net>, anew: bool) -> io::Result<BTreeSet<u32>> {
        let mut seen = self.shared.lock();
        if anew || !seen.read || seen.own != own {
            seen.own = own;
            self.shared.read(&mut seen)?;
        }
        Ok(seen.interfaces.clone())
    }

    /// Routes say nothing any more: all packets are encapsulated.
    pub(crate) fn forget(&self) {
        *self.shared.lock() = Seen::default();
    }

    /// Addresses of this node's blocks that are elsewhere.
    pub(crate) fn borrowed(&self) -> BTreeSet<Ipv4Addr> {
        self.shared.lock().borrowed.clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, events: &Netlink, ended: &OwnedFd) {
        let mut pause = None;
        loop {
            match wait(events, ended, pause) {
                Ok(Waited::Ended) => return,
                Ok(Waited::Paused) => pause = None,
                Ok(Waited::Events) => match events.drain_route_events() {
                    Ok(false) => {}
                    Ok(true) => pause = Some(self.follow()),
                    Err(error) => {
                        tracing::warn!(%error, "routes not watched any more; connections follow them every second");
                        return;
                    }
                },
                Err(error) => {
                    tracing::warn!(%error, "routes not watched any more; connections follow them every second");
                    return;
                }
            }
        }
    }

    /// Has connections follow changed routes. Returns how long to wait before the next time.
    fn follow(&self) -> Duration {
        if !self.maps.config().is_ok_and(|config| config.native != 0) {
            return PAUSE;
        }
        let begun = Instant::now();
        let read = self.read(&mut self.lock());
        if let Err(error) = read.and_then(|()| self.maps.begin_epoch()) {
            tracing::warn!(%error, "routes not read");
        }
        PAUSE.max(begun.elapsed() * PAUSE_FACTOR)
    }

    fn read(&self, seen: &mut Seen) -> io::Result<()> {
        let routes = Netlink::open()?.kernel_routes()?;
        let gateways = routes.iter().filter(|route| route.has_gateway);
        seen.interfaces = gateways.flat_map(|route| &route.ifindexes).copied().collect();
        let strict = self.maps.config()?.native & NATIVE_STRICT != 0;
        let desired = if strict { multipath(&routes) } else { BTreeMap::new() };
        apply_multipath(&self.maps, &desired)?;
        let borrowed = borrowed(&routes, &seen.own);
        if !seen.read || borrowed != seen.borrowed {
            apply_borrowed(&self.maps, &borrowed)?;
            seen.borrowed = borrowed;
        }
        seen.read = true;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Waited {
    Ended,
    Events,
    Paused,
}

/// Waits for events, or for a pause between them to be over.
fn wait(events: &Netlink, ended: &OwnedFd, pause: Option<Duration>) -> io::Result<Waited> {
    let mut fds = vec![PollFd::new(ended, PollFlags::IN)];
    let timeout = pause.map(|pause| Timespec::try_from(pause).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 }));
    if pause.is_none() {
        fds.push(PollFd::new(events, PollFlags::IN));
    }
    match poll(&mut fds, timeout.as_ref()) {
        Ok(0) | Err(rustix::io::Errno::INTR) => Ok(Waited::Paused),
        Ok(_) if !fds[0].revents().is_empty() => Ok(Waited::Ended),
        Ok(_) => Ok(Waited::Events),
        Err(error) => Err(error.into()),
    }
}

/// Interfaces of the routes that leave by several, and of all routes within them, which are longer and win.
fn multipath(routes: &[KernelRoute]) -> BTreeMap<Ipv4Net, BTreeSet<u32>> {
    let mut by_prefix = BTreeMap::<Ipv4Net, BTreeSet<u32>>::new();
    for route in routes {
        by_prefix.entry(route.prefix).or_default().extend(&route.ifindexes);
    }
    let several: BTreeSet<_> =
        by_prefix.iter().filter(|(_, ifindexes)| ifindexes.len() > 1).map(|(prefix, _)| *prefix).collect();
    if several.is_empty() {
        return BTreeMap::new();
    }
    by_prefix.retain(|prefix, _| {
        let above = (0..=prefix.prefix_len()).filter_map(|len| Ipv4Net::new(prefix.network(), len).ok());
        above.into_iter().any(|net| several.contains(&net.trunc()))
    });
    by_prefix
}

fn apply_multipath(maps: &Maps, desired: &BTreeMap<Ipv4Net, BTreeSet<u32>>) -> io::Result<()> {
    let keys: BTreeMap<_, _> =
        desired.iter().map(|(prefix, ifindexes)| (bytes(*prefix), ifindexes)).collect();
    for key in maps.multipath.keys()? {
        if !keys.contains_key(&(key.prefix_len, key.key.address)) {
            maps.multipath.remove(&key)?;
        }
    }
    for ((prefix_len, address), ifindexes) in keys {
        let mut value = MultipathValue::default();
        for (slot, ifindex) in value.ifindexes.iter_mut().zip(ifindexes.iter().take(MULTIPATH_MAX)) {
            *slot = *ifindex;
        }
        let key = Prefixed { prefix_len, key: BlockKey { scope: 0, address } };
        if maps.multipath.value(&key)? != Some(value) {
            maps.multipath.set(&key, &value)?;
        }
    }
    Ok(())
}

/// Addresses of our own blocks that are elsewhere: a route of their own leads to a router or another host, and none to a
/// container of ours.
fn borrowed(routes: &[KernelRoute], own: &BTreeSet<Ipv4Net>) -> BTreeSet<Ipv4Addr> {
    let is_single = |route: &&KernelRoute| {
        let strictly = |block: &Ipv4Net| *block != route.prefix && block.contains(&route.prefix);
        route.prefix.prefix_len() == 32 && own.iter().any(strictly)
    };
    let (away, here): (Vec<_>, Vec<_>) = routes.iter().filter(is_single).partition(|route| route.has_gateway);
    let here: BTreeSet<_> = here.into_iter().map(|route| route.prefix).collect();
    away.into_iter().map(|route| route.prefix).filter(|p| !here.contains(p)).map(|p| p.network()).collect()
}

/// Writes them beside the blocks. Who sends from there is not known: nothing names the one that borrowed it.
fn apply_borrowed(maps: &Maps, desired: &BTreeSet<Ipv4Addr>) -> io::Result<()> {
    let desired: BTreeSet<_> = desired.iter().map(|address| bytes((*address).into())).collect();
    for key in maps.block.keys()? {
        let is_ours = maps.block.value(&key)?.is_some_and(|value| value.flags & BLOCK_BORROWED != 0);
        if is_ours && !desired.contains(&(key.prefix_len, key.key.address)) {
            maps.block.remove(&key)?;
        }
    }
    let flags = BLOCK_NATIVE | BLOCK_FOREIGN | BLOCK_BORROWED;
    let value = BlockValue { flags, identity: identity::UNKNOWN, ..BlockValue::default() };
    for (prefix_len, address) in desired {
        maps.block.set(&Prefixed { prefix_len, key: BlockKey { scope: 0, address } }, &value)?;
    }
    Ok(())
}

fn bytes(prefix: Ipv4Net) -> (u32, [u32; 4]) {
    let address = mapped(u32::from_ne_bytes(prefix.network().octets()));
    (BLOCK_PREFIX_IPV4 + u32::from(prefix.prefix_len()), address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(prefix: &str, ifindexes: &[u32]) -> KernelRoute {
        KernelRoute {
            prefix: prefix.parse().unwrap(),
            ifindexes: ifindexes.iter().copied().collect(),
            has_gateway: true,
        }
    }

    #[test]
    fn routes_within_one_of_several_next_hops_are_known_too() {
        let routes = [
            route("10.0.0.0/8", &[1, 2]),
            route("10.1.0.0/16", &[3]),
            route("0.0.0.0/0", &[1]),
            route("192.0.2.0/24", &[2]),
        ];
        let found = multipath(&routes);
        let expected = [("10.0.0.0/8", vec![1, 2]), ("10.1.0.0/16", vec![3])];
        let expected = expected.map(|(prefix, found)| (prefix.parse().unwrap(), found.into_iter().collect()));
        assert_eq!(found, BTreeMap::from(expected));
    }

    #[test]
    fn an_address_of_ours_is_elsewhere_if_a_route_says_so_and_no_container_has_it() {
        let own = BTreeSet::from(["10.64.0.0/26".parse().unwrap(), "10.64.9.9/32".parse().unwrap()]);
        let here = |prefix| KernelRoute { has_gateway: false, ..route(prefix, &[7]) };
        let routes = [
            route("10.64.0.5/32", &[1]),
            route("10.64.0.6/32", &[1]),
            here("10.64.0.6/32"),
            here("10.64.0.7/32"),
            // Neither a part of the block nor all of it is one address, and others' blocks are not ours.
            route("10.64.0.8/30", &[1]),
            route("10.64.0.0/26", &[1]),
            route("10.64.9.9/32", &[1]),
            route("10.64.1.1/32", &[1]),
        ];
        assert_eq!(borrowed(&routes, &own), BTreeSet::from(["10.64.0.5".parse().unwrap()]));
    }

    #[test]
    fn two_routes_of_one_prefix_count_as_one() {
        let found = multipath(&[route("10.0.0.0/8", &[1]), route("10.0.0.0/8", &[2])]);
        assert_eq!(found.len(), 1);
        assert!(multipath(&[route("10.0.0.0/8", &[1]), route("10.1.0.0/16", &[2])]).is_empty());
    }
}
