//! The packet at hand, between two ends, on its way somewhere.
//!
//! It lies in a per-CPU value, not on the stack: the verifier forgets what it knows of such a value, so that the many ways
//! through parsing and routing are one state for what follows. Without this it gives up at a million instructions.

use crate::{
    maps::{PASSAGE, config},
    packet::{Mac, Packet},
};
use aya_ebpf::bindings::bpf_fib_lookup;
use isthmus_dataplane_common::{
    BlockValue, ConnectionKey, ConnectionValue, EndpointValue, Reason, SLOT_NONE,
};

/// One end of a packet, as this node knows it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct End {
    /// What it is; 0 if only another node knows.
    pub identity: u32,
    /// Birth of its endpoint; 0: not of this node.
    pub birth: u32,
    /// Its rules; [`SLOT_NONE`]: not of this node, or exempt.
    pub slot: u32,
    /// Host side of its pair; 0: not of this node.
    pub ifindex: u32,
    /// Its MAC address but for the first two bytes.
    pub mac_tail: u32,
    /// The first two bytes of its MAC address.
    pub mac_head: u32,
}

impl End {
    /// An end that is no endpoint of this node.
    #[inline(always)]
    pub const fn elsewhere(identity: u32) -> Self {
        Self { identity, birth: 0, slot: SLOT_NONE, ifindex: 0, mac_tail: 0, mac_head: 0 }
    }

    /// A container of this node.
    #[inline(always)]
    pub fn here(endpoint: &EndpointValue) -> Self {
        let mac = Mac::of(endpoint.mac);
        Self {
            identity: endpoint.identity,
            birth: endpoint.birth,
            slot: endpoint.slot,
            ifindex: endpoint.host_ifindex,
            mac_tail: mac.tail,
            mac_head: u32::from(mac.head),
        }
    }
}

/// Where a packet goes if it may.
pub mod target {
    /// Into a container of this node.
    pub const ENDPOINT: u32 = 1;
    /// Through the overlay.
    pub const NODE: u32 = 2;
    /// To the host's stack.
    pub const STACK: u32 = 3;
    /// Out as it is, by the kernel's route.
    pub const NATIVE: u32 = 4;
}

/// A packet between two ends.
#[repr(C)]
pub struct Passage {
    pub packet: Packet,
    pub from: End,
    pub to: End,
    /// The epoch before anything else was read: what is found out is true under it, or it is over.
    pub epoch: u32,
    /// 1 if the connection is not in the table.
    pub new: u32,
    /// The other node, if one is involved.
    pub node: u32,
    /// ECN field of the outer header.
    pub outer_ecn: u32,
    /// [`Reason`] why a first packet passes, or does not, where no slot decides.
    pub otherwise: u32,
    /// The rule that refuses it.
    pub rule: u32,
    /// [`target`].
    pub target: u32,
    /// The way to the other node or network.
    pub way: BlockValue,
    /// Where the way is native: longest packet that it carries.
    pub mtu: u32,
    /// Interface that the packet came by without encapsulation; 0: it did not.
    pub arrival: u32,
    /// The question to the kernel's routes: too long for the stack.
    pub route: bpf_fib_lookup,
    /// Of its connection.
    pub key: ConnectionKey,
    /// 1 if the lower end of the key sent the packet.
    pub from_low: u32,
    /// Its connection's entry, until it is in the table: too long for the stack.
    pub entry: ConnectionValue,
}

impl Passage {
    /// This CPU's value, for another packet.
    #[inline(always)]
    pub fn begin() -> Option<&'static mut Self> {
        let passage = Self::at_hand()?;
        passage.epoch = config().epoch;
        passage.new = 0;
        passage.arrival = 0;
        Some(passage)
    }

    /// This CPU's value, as it was begun. Programs on one CPU do not interrupt each other.
    #[inline(always)]
    pub fn at_hand() -> Option<&'static mut Self> {
        // SAFETY: a per-CPU value that nobody else uses while the program runs; made of integers, and of bools that only
        // this program writes.
        PASSAGE.get_ptr_mut(0).map(|pointer| unsafe { &mut *pointer })
    }

    /// Leads into a container of this node.
    #[inline(always)]
    pub fn into_endpoint(&mut self, from: End, endpoint: &EndpointValue, node: u32) {
        self.from = from;
        self.to = End::here(endpoint);
        self.node = node;
        self.otherwise = Reason::NoTable as u32;
        self.target = target::ENDPOINT;
    }

    /// Leads to another node, which decides; the way is set already.
    #[inline(always)]
    pub fn to_node(&mut self, from: End) {
        self.from = from;
        self.to = End::elsewhere(0);
        self.node = self.way.node;
        self.otherwise = Reason::Outbound as u32;
        self.target = target::NODE;
    }

    /// Leads out as it is, by the kernel's route; the way is set already.
    #[inline(always)]
    pub fn by_route(&mut self, from: End) {
        self.from = from;
        self.to = End::elsewhere(self.way.identity);
        self.node = self.way.node;
        self.otherwise = Reason::Outbound as u32;
        self.target = target::NATIVE;
    }

    /// Leads to the host's stack, or comes from there.
    #[inline(always)]
    pub fn by_stack(&mut self, from: End, to: End, otherwise: Reason) {
        self.from = from;
        self.to = to;
        self.node = 0;
        self.otherwise = otherwise as u32;
        self.target = target::STACK;
    }
}
