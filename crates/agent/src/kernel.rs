//! What the agent needs of the kernel: the dataplane, or in tests a kernel in memory.

pub(crate) mod dataplane;
mod expedite;
#[cfg(any(test, feature = "test-util"))]
pub mod fake;

use isthmus_core::Identity;
use isthmus_dataplane::model::{
    AttachMode, Event, Judgement, Link, LinkRequest, MappedPort, Network, Sweep, Table,
};
use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

/// The node's dataplane. All calls block and may come from many threads at once.
pub trait Kernel: Send + Sync + 'static {
    /// MTU of containers.
    fn mtu(&self) -> u32;
    /// How programs are attached, as in force.
    fn attach_mode(&self) -> AttachMode;
    /// Makes pools, nodes and blocks known.
    fn set_network(&self, network: &Network) -> Result<(), KernelError>;
    /// Adds to the network that an agent before this one left, and takes nothing away: what is known may be old.
    fn widen_network(&self, network: &Network) -> Result<(), KernelError>;
    /// Addresses of this node's blocks that are on other hosts, as the kernel's routes say.
    fn borrowed(&self) -> BTreeSet<IpAddr>;
    /// Loads the rules towards one identity; before the first attach of that identity.
    fn set_table(&self, table: &Table) -> Result<(), KernelError>;
    /// Identities whose rules are loaded, by this agent or one before it.
    fn tables(&self) -> Vec<Identity>;
    /// Unloads the rules of an identity that lives here no more.
    fn remove_table(&self, identity: Identity) -> Result<(), KernelError>;
    /// Name of the host side of an attachment's link.
    fn link_name(&self, runtime: &str, container: &str, interface: &str) -> String;
    /// Makes a container's link, all or nothing.
    fn attach(&self, netns: BorrowedFd<'_>, request: &LinkRequest) -> Result<Link, KernelError>;
    /// Removes a container's link. Succeeds if nothing is there.
    fn detach(&self, host_interface: &str, address: IpAddr) -> Result<(), KernelError>;
    /// Says that a container is something else now.
    fn set_identity(
        &self,
        host_interface: &str,
        address: IpAddr,
        identity: Identity,
    ) -> Result<(), KernelError>;
    /// The links that there are.
    fn links(&self) -> Result<Vec<Link>, KernelError>;
    /// Replaces the whole set of ports of the node that lead into containers.
    fn set_ports(&self, ports: &[MappedPort]) -> Result<(), KernelError>;
    /// How the loaded tables judge a new connection; `None`: no table of `to` is loaded.
    fn judge(&self, from: Identity, to: Identity, protocol: u8, port: u16) -> Option<Judgement>;
    /// Packets that were denied between the two, since the node's start.
    fn denied_packets(&self, from: Identity, to: Identity) -> u64;
    /// Packets by reason.
    fn counters(&self) -> Result<Vec<(&'static str, u64)>, KernelError>;
    /// The ring of verdicts. One reader.
    fn events(&self) -> Result<Box<dyn Events>, KernelError>;
    /// Forgets connections whose time is over.
    fn sweep(&self) -> Result<Sweep, KernelError>;
    /// Programs of others on our hooks: interface and program.
    fn foreign_programs(&self) -> Vec<(String, String)>;
    /// Rules loaded.
    fn rules(&self) -> u64;
    /// Inode numbers of the network namespaces that somebody uses now.
    fn live_netns(&self) -> io::Result<BTreeSet<u64>> {
        crate::netns::live()
    }
}

/// The ring of verdicts.
pub trait Events: Send {
    /// Waits until there may be an event, at most `timeout`.
    fn wait(&mut self, timeout: Duration) -> io::Result<()>;
    /// The next event, if there is one.
    fn next(&mut self) -> Option<Event>;
    /// Events that did not fit since the ring was opened.
    fn lost(&self) -> u64;
}

/// Undoes what an agent that was killed left on in the kernel.
pub(crate) fn settle(run_dir: &std::path::Path) {
    drop(expedite::Expedite::new(run_dir));
}

/// Waits until a descriptor can be read, at most `timeout`.
pub fn wait_readable(descriptor: impl AsFd, timeout: Duration) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
    match poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Why the kernel did not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct KernelError {
    /// Who must act.
    pub fault: Fault,
    /// What, where, why, with the whole chain of causes.
    pub message: String,
}

/// Who must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call can never succeed as it is: the interface's name is taken in the container.
    Caller,
    /// A limit of the node is reached.
    Full,
    /// The system refused.
    System,
}

impl KernelError {
    /// The error with the whole chain of its causes as text.
    pub fn new(fault: Fault, error: &(dyn std::error::Error + 'static)) -> Self {
        Self { fault, message: crate::chain(error) }
    }
}
