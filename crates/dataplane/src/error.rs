//! Why the dataplane could not do what was asked.

use isthmus_core::Identity;
use std::{io, net::IpAddr, path::PathBuf};

/// Why the dataplane did not start. Programs of an earlier start stay as they were.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The tunnel address is on no interface.
    #[error(
        "no interface of this node has the address {address}: set `address` to one that `ip address` shows"
    )]
    NoUplink {
        /// The address asked for.
        address: IpAddr,
    },
    /// Not IPv4.
    #[error(
        "the overlay needs an IPv4 underlay for now, {address} is not: set `address` to an IPv4 address of this node"
    )]
    Family {
        /// The address asked for.
        address: IpAddr,
    },
    /// The uplink's packets are too short.
    #[error(
        "interface {interface} has an MTU of {mtu}: the overlay takes {overhead} bytes and containers need at least {needed}; raise it with `ip link set {interface} mtu 1500`"
    )]
    Mtu {
        /// The uplink.
        interface: String,
        /// Its MTU.
        mtu: u32,
        /// What the overlay takes.
        overhead: u32,
        /// What containers need.
        needed: u32,
    },
    /// The configured MTU does not fit.
    #[error(
        "`mtu` is {asked}, but {interface} carries at most {largest} bytes of a container's packet: set it to {largest} or less, or leave it out"
    )]
    MtuAsked {
        /// As configured.
        asked: u32,
        /// The uplink.
        interface: String,
        /// Largest possible.
        largest: u32,
    },
    /// Somebody else has the overlay's port.
    #[error(
        "UDP port {port} is taken by {owner}: stop it, or set `vxlan_port` to another port on every node"
    )]
    PortTaken {
        /// The port.
        port: u16,
        /// Who has it.
        owner: String,
    },
    /// The BPF file system.
    #[error("cannot use {path} for pins: mount a BPF file system there (mount -t bpf bpf /sys/fs/bpf)")]
    Bpffs {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel refused a program.
    #[error("the kernel refuses the program {program}; whatever ran before still runs")]
    Program {
        /// Its name.
        program: &'static str,
        /// What the verifier said.
        source: Box<aya::programs::ProgramError>,
    },
    /// The object cannot be loaded.
    #[error("cannot load the eBPF object; whatever ran before still runs")]
    Object(#[source] Box<aya::EbpfError>),
    /// Anything else that failed while the host was prepared.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// Why something could not be put into force. What was in force before is, unless the text says otherwise.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}")]
pub struct ApplyError {
    /// What was to be done, and on what.
    pub what: String,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl ApplyError {
    /// For `map_err`: what was to be done.
    pub(crate) fn of<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self { what, source: source.into() }
    }
}

/// Why a container did not get its link. Nothing was left behind.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Its rules are not loaded.
    #[error("the rules of identity {identity} are not loaded")]
    NoTable {
        /// The identity.
        identity: Identity,
    },
    /// Not IPv4.
    #[error("containers get IPv4 addresses only for now, not {address}")]
    Family {
        /// The address asked for.
        address: IpAddr,
    },
    /// A name that is taken.
    #[error("the container has an interface {interface} already: remove it, or ask for another name")]
    InterfaceExists {
        /// Name inside.
        interface: String,
    },
    /// The namespace is the node's own.
    #[error("the network namespace is the node's own, not a container's")]
    OwnNamespace,
    /// The node is full.
    #[error("this node has {limit} endpoints already: raise `limits.endpoints` in the agent's configuration")]
    Full {
        /// The limit.
        limit: u32,
    },
    /// The system refused.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}
