//! A kernel in memory, with behaviour: links live in namespaces, tables judge, ports conflict.

use super::{Events, Fault, Kernel, KernelError};
use isthmus_core::{DefaultVerdict, Identity};
use isthmus_dataplane::model::{
    AttachMode, Event, Judgement, Link, LinkRequest, MappedPort, Network, Sweep, Table,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    net::IpAddr,
    os::fd::BorrowedFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// A kernel in memory. Clones share it, so that an agent can "restart" over what is in it.
#[derive(Clone, Debug, Default)]
pub struct FakeKernel {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    network: Network,
    network_sets: u64,
    tables: BTreeMap<Identity, Table>,
    links: BTreeMap<String, (Link, u64)>,
    netns: BTreeSet<u64>,
    ports: Vec<MappedPort>,
    events: VecDeque<Event>,
    refusals: VecDeque<KernelError>,
    next_ifindex: u32,
    borrowed: BTreeSet<IpAddr>,
}

impl FakeKernel {
    /// An empty kernel.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The network as it was last set.
    pub fn network(&self) -> Network {
        self.state().network.clone()
    }

    /// How often the network was set.
    pub fn network_sets(&self) -> u64 {
        self.state().network_sets
    }

    /// A table as it was last set.
    pub fn table(&self, identity: Identity) -> Option<Table> {
        self.state().tables.get(&identity).cloned()
    }

    /// The ports as they were last set.
    pub fn ports(&self) -> Vec<MappedPort> {
        self.state().ports.clone()
    }

    /// A link.
    pub fn link(&self, host_interface: &str) -> Option<Link> {
        self.state().links.get(host_interface).map(|(link, _)| link.clone())
    }

    /// All links.
    pub fn all_links(&self) -> Vec<Link> {
        self.state().links.values().map(|(link, _)| link.clone()).collect()
    }

    /// Takes a link away behind the agent's back.
    pub fn remove_link(&self, host_interface: &str) {
        self.state().links.remove(host_interface);
    }

    /// Puts a link there that no agent asked for.
    pub fn add_link(&self, link: Link) {
        self.state().links.insert(link.host_interface.clone(), (link, 0));
    }

    /// Ends a network namespace, and with it the links that lead into it.
    pub fn end_netns(&self, inode: u64) {
        let mut state = self.state();
        state.links.retain(|_, (_, netns)| *netns != inode);
        state.netns.remove(&inode);
    }

    /// Other hosts have these addresses.
    pub fn lend(&self, addresses: BTreeSet<IpAddr>) {
        self.state().borrowed = addresses;
    }

    /// The next attach fails like this.
    pub fn refuse_next_attach(&self, error: KernelError) {
        self.state().refusals.push_back(error);
    }

    /// Forgets everything, as a reboot does.
    pub fn reboot(&self) {
        *self.state() = State::default();
    }

    /// Puts a verdict into the ring.
    pub fn emit(&self, event: Event) {
        self.state().events.push_back(event);
        self.shared.changed.notify_all();
    }
}

fn error(fault: Fault, message: String) -> KernelError {
    KernelError { fault, message }
}

impl Kernel for FakeKernel {
    fn mtu(&self) -> u32 {
        1_450
    }

    fn attach_mode(&self) -> AttachMode {
        AttachMode::Tcx
    }

    fn set_network(&self, network: &Network) -> Result<(), KernelError> {
        let mut state = self.state();
        state.network = network.clone();
        state.network_sets += 1;
        Ok(())
    }

    fn widen_network(&self, network: &Network) -> Result<(), KernelError> {
        let mut state = self.state();
        for pool in &network.pools {
            if !state.network.pools.contains(pool) {
                state.network.pools.push(*pool);
            }
        }
        for node in &network.nodes {
            if !state.network.nodes.iter().any(|known| known.number == node.number) {
                state.network.nodes.push(node.clone());
            }
        }
        for block in &network.blocks {
            if !state.network.blocks.iter().any(|known| known.block == block.block) {
                state.network.blocks.push(*block);
            }
        }
        state.network_sets += 1;
        Ok(())
    }

    fn borrowed(&self) -> BTreeSet<IpAddr> {
        self.state().borrowed.clone()
    }

    fn set_table(&self, table: &Table) -> Result<(), KernelError> {
        self.state().tables.insert(table.identity, table.clone());
        Ok(())
    }

    fn tables(&self) -> Vec<Identity> {
        self.state().tables.keys().copied().collect()
    }

    fn remove_table(&self, identity: Identity) -> Result<(), KernelError> {
        self.state().tables.remove(&identity);
        Ok(())
    }

    fn link_name(&self, runtime: &str, container: &str, interface: &str) -> String {
        let sum = [runtime, container, interface]
            .iter()
            .flat_map(|part| part.bytes().chain([0]))
            .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
                (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
            });
        format!("ist{:012x}", sum & 0xffff_ffff_ffff)
    }

    fn attach(&self, netns: BorrowedFd<'_>, request: &LinkRequest) -> Result<Link, KernelError> {
        let inode = crate::netns::inode(netns).map_err(|source| KernelError::new(Fault::System, &source))?;
        let mut state = self.state();
        if let Some(refusal) = state.refusals.pop_front() {
            return Err(refusal);
        }
        if !state.tables.contains_key(&request.identity) {
            return Err(error(Fault::System, format!("no table of {} is loaded", request.identity)));
        }
        let taken = state.links.values().find(|(link, _)| {
            link.address == request.address || link.host_interface == request.host_interface
        });
        if let Some((link, _)) = taken {
            return Err(error(Fault::Caller, format!("{} has {}", link.host_interface, link.address)));
        }
        state.next_ifindex += 1;
        let IpAddr::V4(address) = request.address else {
            return Err(error(Fault::Caller, "only IPv4 is forwarded".to_owned()));
        };
        let [a, b, c, d] = address.octets();
        let link = Link {
            host_interface: request.host_interface.clone(),
            host_ifindex: state.next_ifindex,
            address: request.address,
            mac: request.mac.unwrap_or([2, 0, a, b, c, d]),
            identity: request.identity,
            whole: true,
        };
        state.netns.insert(inode);
        state.links.insert(link.host_interface.clone(), (link.clone(), inode));
        Ok(link)
    }

    fn detach(&self, host_interface: &str, _address: IpAddr) -> Result<(), KernelError> {
        self.state().links.remove(host_interface);
        Ok(())
    }

    fn set_identity(
        &self,
        host_interface: &str,
        _address: IpAddr,
        identity: Identity,
    ) -> Result<(), KernelError> {
        let mut state = self.state();
        let link = state.links.get_mut(host_interface);
        let (link, _) = link.ok_or_else(|| error(Fault::System, format!("{host_interface} is not there")))?;
        link.identity = identity;
        Ok(())
    }

    fn links(&self) -> Result<Vec<Link>, KernelError> {
        Ok(self.state().links.values().map(|(link, _)| link.clone()).collect())
    }

    fn set_ports(&self, ports: &[MappedPort]) -> Result<(), KernelError> {
        self.state().ports = ports.to_vec();
        Ok(())
    }

    fn judge(&self, from: Identity, to: Identity, protocol: u8, port: u16) -> Option<Judgement> {
        let state = self.state();
        let table = state.tables.get(&to)?;
        let matching = table.rules.iter().filter(|rule| {
            (rule.peer == from || rule.peer == Identity::NONE) && rule.port.matches(protocol, port)
        });
        let rule = matching.max_by_key(|rule| (rule.precedence, rule.deny));
        let open = table.default == DefaultVerdict::Open;
        let (allowed, reason, number) = match rule {
            Some(rule) if rule.deny => (false, "rule-deny", rule.number),
            Some(rule) => (true, "rule", rule.number),
            None if open => (true, "default-open", 0),
            None => (false, "no-rule", 0),
        };
        Some(Judgement { allowed, reason, rule: number, rules: table.rules.len() as u64 })
    }

    fn denied_packets(&self, _from: Identity, _to: Identity) -> u64 {
        0
    }

    fn counters(&self) -> Result<Vec<(&'static str, u64)>, KernelError> {
        Ok(vec![("rule", 7), ("no-rule", 3)])
    }

    fn events(&self) -> Result<Box<dyn Events>, KernelError> {
        Ok(Box::new(FakeEvents { kernel: self.clone() }))
    }

    fn sweep(&self) -> Result<Sweep, KernelError> {
        Ok(Sweep { live: 5, expired: 0 })
    }

    fn foreign_programs(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn rules(&self) -> u64 {
        self.state().tables.values().map(|table| table.rules.len() as u64).sum()
    }

    fn live_netns(&self) -> io::Result<BTreeSet<u64>> {
        Ok(self.state().netns.clone())
    }
}

struct FakeEvents {
    kernel: FakeKernel,
}

impl Events for FakeEvents {
    fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        let state = self.kernel.state();
        let empty = |state: &mut State| state.events.is_empty();
        drop(self.kernel.shared.changed.wait_timeout_while(state, timeout, empty));
        Ok(())
    }

    fn next(&mut self) -> Option<Event> {
        self.kernel.state().events.pop_front()
    }

    fn lost(&self) -> u64 {
        0
    }
}
