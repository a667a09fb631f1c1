//! The dataplane of one node: eBPF programs and their maps, links, routes and the nftables table, as they shall be.
//!
//! The agent says what it wants ([`Network`], [`Table`], [`LinkRequest`]); this compares it with what the kernel has and
//! changes the difference. All kernel state is pinned or belongs to the network namespace, so that an agent that stops,
//! crashes or is upgraded drops no packet: the next one adopts what is there and replaces the programs without a gap.
//!
//! ```text
//!  Network ──► network.rs ──► NODE, BLOCK, PEER, CONFIG, routes of the pools
//!  the kernel's routes ─► route.rs ─► epochs, MULTIPATH, borrowed addresses in BLOCK
//!  Table ────► table.rs ────► POLICY, SLOT
//!  LinkRequest ► link.rs ───► veth pair, ENDPOINT_BY_*, programs on both hooks
//!  ports ────► firewall.rs ─► nftables table `isthmus`
//!  EVENT ────► event.rs ────► Event        CONNECTION_* ◄── sweep.rs
//! ```
//!
//! Everything blocks; methods take `&self` and may be called from any thread of the node's network namespace.

#![warn(missing_docs)]

mod cleanup;
mod error;
mod event;
mod firewall;
mod host;
mod link;
pub mod model;
mod netlink;
mod network;
mod program;
mod reaper;
mod route;
mod sweep;
mod sys;
mod table;

pub use cleanup::{CleanupReport, cleanup};
pub use error::{ApplyError, AttachError, OpenError};
pub use event::EventReader;
pub use model::*;

use aya::maps::{MapData, RingBuf};
use isthmus_core::Identity;
use isthmus_dataplane_common::{Reason, reason::REASONS_MAX};
use std::{
    collections::{BTreeSet, HashSet},
    net::{IpAddr, Ipv4Addr},
    os::fd::BorrowedFd,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// The dataplane of one node. Dropping it leaves everything in force.
pub struct Dataplane {
    options: Options,
    tunnel_address: Ipv4Addr,
    mtu: u32,
    vxlan_ifindex: u32,
    maps: Arc<program::Maps>,
    programs: program::Programs,
    tables: table::Tables,
    events: Mutex<Option<RingBuf<MapData>>>,
    births: AtomicU32,
    state: Mutex<State>,
    cpus: usize,
    reaper: reaper::Reaper,
    routes: route::Watch,
}

/// What was last put into force outside of maps.
#[derive(Default)]
struct State {
    network: Network,
    extent: network::Extent,
    ports: Vec<MappedPort>,
    rules: String,
    uplinks: BTreeSet<u32>,
}

impl Dataplane {
    /// Prepares the host, loads the programs, adopts what an earlier agent left, and attaches to the uplink.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: whatever ran before still runs.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let IpAddr::V4(tunnel_address) = options.tunnel_address else {
            return Err(OpenError::Family { address: options.tunnel_address });
        };
        let mut netlink = netlink::Netlink::open().map_err(ApplyError::of("open rtnetlink"))?;
        let uplink = host::uplink(&mut netlink, tunnel_address)?;
        let mtu = host::container_mtu(&uplink, options.mtu)?;
        host::mount_bpffs(&options.bpffs)?;
        host::enable_forwarding()?;
        let vxlan_ifindex = host::vxlan_device(&mut netlink, options.vxlan_port, mtu)?;
        let pins = program::pins(&options.bpffs, options.node.as_str());
        let constants = program::Constants { vxlan_port: options.vxlan_port, tunnel_address, vxlan_ifindex };
        let (programs, maps, events) = program::open(&pins, &options.limits, constants, options.attach_mode)?;
        let maps = Arc::new(maps);
        let routes =
            route::Watch::start(Arc::clone(&maps)).map_err(ApplyError::of("watch the kernel's routes"))?;
        let tables = table::Tables::adopt(&maps, options.limits.endpoints, options.limits.policy_entries)?;
        let pins = programs.pins();
        let dataplane = Self {
            tunnel_address,
            mtu,
            vxlan_ifindex,
            maps,
            programs,
            tables,
            events: Mutex::new(Some(events)),
            births: AtomicU32::new(first_birth()),
            state: Mutex::new(State::default()),
            cpus: possible_cpus(),
            reaper: reaper::Reaper::start(pins)
                .map_err(ApplyError::of("start the thread that removes links"))?,
            routes,
            options,
        };
        dataplane.take_over(&uplink, &mut netlink)?;
        Ok(dataplane)
    }

    /// Puts this object's programs where an earlier agent's are, and on the uplink and the VXLAN device.
    fn take_over(
        &self,
        uplink: &netlink::Interface,
        netlink: &mut netlink::Netlink,
    ) -> Result<(), ApplyError> {
        let interfaces = netlink.interfaces().map_err(ApplyError::of("list the node's interfaces"))?;
        let taken_over = self.programs.taken_over();
        for interface in &interfaces {
            let name = interface.name.as_str();
            if name.starts_with(host::LINK_PREFIX) && taken_over.contains(&program::pin_name(name)) {
                continue;
            }
            let hooks: &[program::Hook] = if name == host::VXLAN_DEVICE {
                &[program::Hook::FromOverlay, program::Hook::ToOverlay]
            } else if name.starts_with(host::LINK_PREFIX) {
                &[program::Hook::FromContainer, program::Hook::ToContainer]
            } else if name == uplink.name {
                &[program::Hook::FromWire]
            } else {
                continue;
            };
            for hook in hooks {
                let what = format!("attach {} to {name}", hook.program());
                self.programs.attach(*hook, name).map_err(ApplyError::of(what))?;
            }
        }
        let present: HashSet<_> = interfaces.iter().map(|i| program::pin_name(&i.name)).collect();
        for gone in self.programs.pinned_interfaces().iter().filter(|pinned| !present.contains(*pinned)) {
            self.programs.pins().forget(gone);
        }
        self.programs.forget_earlier();
        self.state().uplinks.insert(uplink.index);
        Ok(())
    }

    /// MTU of containers.
    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    /// How programs are attached: [`AttachMode::Tcx`] or [`AttachMode::Clsact`].
    pub fn attach_mode(&self) -> AttachMode {
        self.programs.mode()
    }

    /// Puts nodes, blocks and pools into force.
    ///
    /// # Errors
    ///
    /// Some of the difference may be in force; the same call again completes it.
    pub fn set_network(&self, network: &Network) -> Result<(), ApplyError> {
        self.apply_network(network, network::Extent::Whole)
    }

    /// Adds what is missing of a network, and takes nothing away: for an agent that has not heard of its server yet, and
    /// whose own memory may be older than what an earlier agent left in the kernel.
    ///
    /// # Errors
    ///
    /// As [`Dataplane::set_network`].
    pub fn widen_network(&self, network: &Network) -> Result<(), ApplyError> {
        self.apply_network(network, network::Extent::Known)
    }

    fn apply_network(&self, network: &Network, extent: network::Extent) -> Result<(), ApplyError> {
        let mut state = self.state();
        let mut netlink = netlink::Netlink::open().map_err(ApplyError::of("open rtnetlink"))?;
        let overlay = network::Overlay {
            tunnel_address: self.tunnel_address,
            vxlan_ifindex: self.vxlan_ifindex,
            mtu: self.mtu,
        };
        let mut uplinks = network::apply(&self.maps, &mut netlink, &overlay, network, extent)?;
        if network::accepts_native(network) != 0 {
            let anew = *network != state.network;
            let own = network::own_blocks(&overlay, network);
            let more = self.routes.look(own, anew).map_err(ApplyError::of("read the kernel's routes"))?;
            uplinks.extend(more);
        } else {
            self.routes.forget();
        }
        self.attach_uplinks(&mut state, &mut netlink, &uplinks)?;
        state.network = network.clone();
        state.extent = extent;
        self.apply_firewall(&mut state)
    }

    /// Addresses of this node's blocks that are elsewhere, as the kernel's routes say: nobody here may get them.
    pub fn borrowed(&self) -> BTreeSet<Ipv4Addr> {
        self.routes.borrowed()
    }

    /// Attaches to the interfaces by which nodes are reached, beside the one with the tunnel's address.
    fn attach_uplinks(
        &self,
        state: &mut State,
        netlink: &mut netlink::Netlink,
        uplinks: &BTreeSet<u32>,
    ) -> Result<(), ApplyError> {
        if uplinks.is_subset(&state.uplinks) {
            return Ok(());
        }
        let interfaces = netlink.interfaces().map_err(ApplyError::of("list the node's interfaces"))?;
        for interface in interfaces.iter().filter(|interface| uplinks.contains(&interface.index)) {
            let what = format!("attach from_wire to {}", interface.name);
            self.programs.attach(program::Hook::FromWire, &interface.name).map_err(ApplyError::of(what))?;
            state.uplinks.insert(interface.index);
        }
        Ok(())
    }

    /// Puts a table into force, whole; before the first attach of its identity.
    ///
    /// # Errors
    ///
    /// The table that was in force still is.
    pub fn set_table(&self, table: &Table) -> Result<(), ApplyError> {
        self.tables.set(&self.maps, table)
    }

    /// Takes a table out of force. What is judged by it is denied.
    ///
    /// # Errors
    ///
    /// The same call again completes it.
    pub fn remove_table(&self, identity: Identity) -> Result<(), ApplyError> {
        self.tables.remove(&self.maps, identity)
    }

    /// Identities whose tables are loaded, also by an earlier agent.
    pub fn tables(&self) -> Vec<Identity> {
        self.tables.identities()
    }

    /// Puts a container on the network, all or nothing.
    ///
    /// # Errors
    ///
    /// [`AttachError`]: nothing is left behind.
    pub fn attach(&self, netns: BorrowedFd<'_>, request: &LinkRequest) -> Result<Link, AttachError> {
        let slot =
            self.tables.slot(request.identity).ok_or(AttachError::NoTable { identity: request.identity })?;
        let surroundings = link::Surroundings {
            maps: &self.maps,
            programs: &self.programs,
            tunnel_address: self.tunnel_address,
            mtu: self.mtu,
            slot,
            birth: self.births.fetch_add(1, Ordering::Relaxed).max(1),
        };
        self.reaper.settle_link(&request.host_interface);
        let mut attached = link::attach(&surroundings, netns, request);
        if matches!(attached, Err(AttachError::InterfaceExists { .. })) {
            // It may be the other end of one that is being removed.
            self.reaper.settle();
            attached = link::attach(&surroundings, netns, request);
        }
        attached.map_err(|error| match error {
            AttachError::Apply(error) if error.source.raw_os_error() == Some(libc::E2BIG) => {
                AttachError::Full { limit: self.options.limits.endpoints }
            }
            other => other,
        })
    }

    /// Takes a container off the network: nothing goes through its link any more, which is removed soon. Succeeds if it is
    /// not on it.
    ///
    /// # Errors
    ///
    /// The same call again completes it.
    pub fn detach(&self, host_interface: &str, address: IpAddr) -> Result<(), ApplyError> {
        if link::forget(&self.maps, host_interface, address)? {
            self.reaper.take(host_interface);
        }
        Ok(())
    }

    /// Gives a container another identity, whose table must be loaded. Its connections are judged again.
    ///
    /// # Errors
    ///
    /// The identity is as it was.
    pub fn set_identity(
        &self,
        host_interface: &str,
        address: IpAddr,
        identity: Identity,
    ) -> Result<(), ApplyError> {
        let missing = || ApplyError {
            what: format!("change the identity of {host_interface}"),
            source: std::io::Error::new(
                std::io::ErrorKind::NotFound,
                format!("no rules of {identity} are loaded"),
            ),
        };
        let slot = self.tables.slot(identity).ok_or_else(missing)?;
        link::set_identity(&self.maps, address, identity, slot)
    }

    /// The containers' links that the kernel has. One without a name is known to the maps alone.
    ///
    /// # Errors
    ///
    /// Nothing was changed.
    pub fn links(&self) -> Result<Vec<Link>, ApplyError> {
        self.reaper.settle();
        link::observe(&self.maps, &self.programs, host::LINK_PREFIX)
    }

    /// Puts the whole set of mapped ports into force.
    ///
    /// # Errors
    ///
    /// The earlier set is in force.
    pub fn set_ports(&self, ports: &[MappedPort]) -> Result<(), ApplyError> {
        let mut state = self.state();
        let earlier = std::mem::replace(&mut state.ports, ports.to_vec());
        let result = self.apply_firewall(&mut state);
        if result.is_err() {
            state.ports = earlier;
        }
        result
    }

    #[expect(clippy::unused_self, reason = "reads like its callers' other steps")]
    fn apply_firewall(&self, state: &mut State) -> Result<(), ApplyError> {
        let rules = firewall::rules(&state.network, &state.ports);
        if rules != state.rules {
            firewall::apply(&rules)?;
            state.rules = rules;
        }
        Ok(())
    }

    /// How the loaded tables judge a new connection; `None`: no table for `to` here.
    pub fn judge(&self, from: Identity, to: Identity, protocol: u8, port: u16) -> Option<Judgement> {
        self.tables.judge(&self.maps, from, to, protocol, port)
    }

    /// Packets from one to the other that this node denied lately; old pairs give way to new ones.
    pub fn denied_packets(&self, from: Identity, to: Identity) -> u64 {
        let samples = self.maps.sample.entries().unwrap_or_default();
        let denied = samples.iter().filter(|(key, _)| {
            (key.from, key.to) == (from.number(), to.number())
                && Reason::from_number(key.reason).is_some_and(|reason| !reason.allowed())
        });
        denied.map(|(_, value)| value.packets).sum()
    }

    /// Packets by reason.
    ///
    /// # Errors
    ///
    /// The map could not be read.
    pub fn counters(&self) -> Result<Vec<(&'static str, u64)>, ApplyError> {
        let mut counters = Vec::with_capacity(REASONS_MAX as usize);
        for reason in Reason::ALL {
            let values = self.maps.counter.values_per_cpu(&u32::from(*reason as u8), self.cpus);
            let sum = values.map_err(ApplyError::of("read the counters"))?.iter().sum();
            counters.push((reason.as_str(), sum));
        }
        Ok(counters)
    }

    /// The reader of verdicts; there is one.
    ///
    /// # Errors
    ///
    /// It was taken before.
    pub fn events(&self) -> Result<EventReader, ApplyError> {
        let ring = self.events.lock().unwrap_or_else(PoisonError::into_inner).take();
        let taken = || ApplyError {
            what: "read verdicts".into(),
            source: std::io::Error::new(std::io::ErrorKind::ResourceBusy, "somebody reads them already"),
        };
        ring.map(EventReader::new).ok_or_else(taken)
    }

    /// Forgets connections whose time is over; call it every few seconds. Follows changed routes to other nodes too.
    ///
    /// # Errors
    ///
    /// The next call goes on.
    pub fn sweep(&self) -> Result<Sweep, ApplyError> {
        let swept = sweep::sweep(&self.maps, self.mtu)?;
        let (network, extent) = {
            let state = self.state();
            (state.network.clone(), state.extent)
        };
        if !network.nodes.is_empty() {
            self.apply_network(&network, extent)?;
        }
        Ok(swept)
    }

    /// Programs of others on the hooks that we use: interface and program.
    pub fn foreign_programs(&self) -> Vec<(String, String)> {
        let Ok(interfaces) = netlink::Netlink::open().and_then(|mut netlink| netlink.interfaces()) else {
            return Vec::new();
        };
        let uplinks = self.state().uplinks.clone();
        let ours = interfaces.into_iter().filter(|interface| {
            interface.name.starts_with(host::LINK_PREFIX) || uplinks.contains(&interface.index)
        });
        ours.flat_map(|interface| {
            let programs = self.programs.foreign(&interface.name);
            programs.into_iter().map(move |program| (interface.name.clone(), program))
        })
        .collect()
    }

    /// Rules that are loaded.
    pub fn rules(&self) -> u64 {
        self.tables.rules()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Directory of the pins of a node's current layout.
pub fn pins(bpffs: &std::path::Path, node: &isthmus_core::NodeName) -> PathBuf {
    program::pins(bpffs, node.as_str())
}

/// Name of the host side of an attachment's veth pair: `ist` and 12 hex digits of a hash (FNV-1a, 64 bits) of its key.
pub fn link_name(runtime: &str, container: &str, interface: &str) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in [runtime, container, interface] {
        for byte in part.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    format!("{}{:012x}", host::LINK_PREFIX, hash >> 16)
}

/// Later than any birth that an earlier agent gave, unless it attached 1,000 containers a second for all of its life.
fn first_birth() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as u32 | 1
}

fn possible_cpus() -> usize {
    aya::util::nr_cpus().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_documented() {
        let page = include_str!("../../../docs/reference/reasons.md");
        for reason in Reason::ALL {
            let row = format!("| `{}` | {} | ", reason.as_str(), *reason as u8);
            assert!(page.contains(&row), "docs/reference/reasons.md has no row that begins with {row}");
        }
    }

    #[test]
    fn link_names_fit_and_differ() {
        let name = link_name("cni:isthmus", "c1", "eth0");
        assert_eq!(name.len(), 15);
        assert_ne!(name, link_name("cni:isthmus", "c1", "eth1"));
        assert_ne!(link_name("a", "bc", "d"), link_name("ab", "c", "d"));
        assert_eq!(name, link_name("cni:isthmus", "c1", "eth0"));
    }
}
