//! The real kernel: `isthmus_dataplane`.

use super::{Events, Fault, Kernel, KernelError, expedite::Expedite, wait_readable};
use crate::{config::Config, run::RunError};
use isthmus_core::Identity;
use isthmus_dataplane::{
    ApplyError, AttachError, AttachMode, Dataplane, Event, EventReader, Judgement, Link, LinkRequest,
    MappedPort, Network, OpenError, Options, Sweep, Table,
};
use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    os::fd::BorrowedFd,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering},
    time::Duration,
};

/// Opens the dataplane of this node, in the network namespace that the process started in.
pub(crate) async fn open(config: &Config, tunnel_address: IpAddr) -> Result<Arc<dyn Kernel>, RunError> {
    let options = Options {
        node: config.node.clone(),
        bpffs: config.bpffs.clone(),
        tunnel_address,
        vxlan_port: config.vxlan_port,
        attach_mode: config.attach,
        mtu: config.mtu,
        limits: config.limits,
    };
    let expedite = Expedite::new(&config.run_dir);
    let opened = tokio::task::spawn_blocking(move || {
        let hurry = expedite.hurry();
        let opened = Dataplane::open(options);
        drop(hurry);
        opened.map(|dataplane| Node { dataplane, expedite })
    });
    let opened = opened.await.map_err(|error| failed("ISE-0507", &error))?;
    let node = opened.map_err(|error| failed(code(&error), &error))?;
    Ok(Arc::new(node))
}

/// The dataplane, and the haste of its changes.
struct Node {
    dataplane: Dataplane,
    expedite: Expedite,
}

fn failed(code: &'static str, error: &(dyn std::error::Error + 'static)) -> RunError {
    RunError::Kernel { code, source: KernelError::new(Fault::System, error) }
}

/// The runbook for each way not to start.
fn code(error: &OpenError) -> &'static str {
    match error {
        OpenError::PortTaken { .. } => "ISE-0502",
        OpenError::Mtu { .. } | OpenError::MtuAsked { .. } => "ISE-0503",
        _ => "ISE-0507",
    }
}

fn apply(error: &ApplyError) -> KernelError {
    KernelError::new(Fault::System, error)
}

fn attach(error: &AttachError) -> KernelError {
    let fault = match error {
        AttachError::Family { .. } | AttachError::InterfaceExists { .. } | AttachError::OwnNamespace => {
            Fault::Caller
        }
        AttachError::Full { .. } => Fault::Full,
        AttachError::NoTable { .. } | AttachError::Apply(_) => Fault::System,
    };
    KernelError::new(fault, error)
}

impl Kernel for Node {
    fn mtu(&self) -> u32 {
        self.dataplane.mtu()
    }

    fn attach_mode(&self) -> AttachMode {
        self.dataplane.attach_mode()
    }

    fn set_network(&self, network: &Network) -> Result<(), KernelError> {
        let _hurry = self.expedite.hurry();
        self.dataplane.set_network(network).map_err(|error| apply(&error))
    }

    fn widen_network(&self, network: &Network) -> Result<(), KernelError> {
        let _hurry = self.expedite.hurry();
        self.dataplane.widen_network(network).map_err(|error| apply(&error))
    }

    fn borrowed(&self) -> BTreeSet<IpAddr> {
        self.dataplane.borrowed().into_iter().map(IpAddr::V4).collect()
    }

    fn set_table(&self, table: &Table) -> Result<(), KernelError> {
        let _hurry = self.expedite.hurry();
        self.dataplane.set_table(table).map_err(|error| apply(&error))
    }

    fn tables(&self) -> Vec<Identity> {
        self.dataplane.tables()
    }

    fn remove_table(&self, identity: Identity) -> Result<(), KernelError> {
        let _hurry = self.expedite.hurry();
        self.dataplane.remove_table(identity).map_err(|error| apply(&error))
    }

    fn link_name(&self, runtime: &str, container: &str, interface: &str) -> String {
        isthmus_dataplane::link_name(runtime, container, interface)
    }

    fn attach(&self, netns: BorrowedFd<'_>, request: &LinkRequest) -> Result<Link, KernelError> {
        let _hurry = self.expedite.hurry();
        self.dataplane.attach(netns, request).map_err(|error| attach(&error))
    }

    fn detach(&self, host_interface: &str, address: IpAddr) -> Result<(), KernelError> {
        let _hurry = self.expedite.hurry();
        self.dataplane.detach(host_interface, address).map_err(|error| apply(&error))
    }

    fn set_identity(
        &self,
        host_interface: &str,
        address: IpAddr,
        identity: Identity,
    ) -> Result<(), KernelError> {
        self.dataplane.set_identity(host_interface, address, identity).map_err(|error| apply(&error))
    }

    fn links(&self) -> Result<Vec<Link>, KernelError> {
        self.dataplane.links().map_err(|error| apply(&error))
    }

    fn set_ports(&self, ports: &[MappedPort]) -> Result<(), KernelError> {
        let _hurry = self.expedite.hurry();
        self.dataplane.set_ports(ports).map_err(|error| apply(&error))
    }

    fn judge(&self, from: Identity, to: Identity, protocol: u8, port: u16) -> Option<Judgement> {
        self.dataplane.judge(from, to, protocol, port)
    }

    fn denied_packets(&self, from: Identity, to: Identity) -> u64 {
        self.dataplane.denied_packets(from, to)
    }

    fn counters(&self) -> Result<Vec<(&'static str, u64)>, KernelError> {
        self.dataplane.counters().map_err(|error| apply(&error))
    }

    fn events(&self) -> Result<Box<dyn Events>, KernelError> {
        let ring = self.dataplane.events().map_err(|error| apply(&error))?;
        Ok(Box::new(Ring { ring, lost: Arc::default() }))
    }

    fn sweep(&self) -> Result<Sweep, KernelError> {
        self.dataplane.sweep().map_err(|error| apply(&error))
    }

    fn foreign_programs(&self) -> Vec<(String, String)> {
        self.dataplane.foreign_programs()
    }

    fn rules(&self) -> u64 {
        self.dataplane.rules()
    }
}

/// The dataplane's ring of verdicts.
struct Ring {
    ring: EventReader,
    lost: Arc<AtomicU64>,
}

impl Events for Ring {
    fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        wait_readable(&self.ring, timeout)
    }

    fn next(&mut self) -> Option<Event> {
        Iterator::next(&mut self.ring)
    }

    fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}
