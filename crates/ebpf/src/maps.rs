//! The maps and the constants that userspace sets before loading. Sizes here are placeholders: the loader sets them.

use crate::{known::Flows, passage::Passage};
use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};
use core::ptr;
use isthmus_dataplane_common::{
    Address, BlockKey, BlockValue, ConfigValue, ConnectionKey, ConnectionValue, EPOCH_NONE, EndpointValue,
    FragmentKey, FragmentValue, MultipathValue, NodeValue, PathMtuValue, PolicyKey, PolicyValue, SampleKey,
    SampleValue, SlotValue, reason::REASONS_MAX,
};

#[map]
pub static ENDPOINT_BY_IFINDEX: HashMap<u32, EndpointValue> = HashMap::with_max_entries(4096, 0);
#[map]
pub static ENDPOINT_BY_ADDRESS: HashMap<Address, EndpointValue> = HashMap::with_max_entries(4096, 0);
#[map]
pub static BLOCK: LpmTrie<BlockKey, BlockValue> = LpmTrie::with_max_entries(65536, 0);
#[map]
pub static NODE: HashMap<Address, NodeValue> = HashMap::with_max_entries(16384, BPF_F_NO_PREALLOC);
#[map]
pub static PEER: HashMap<Address, u32> = HashMap::with_max_entries(65536, BPF_F_NO_PREALLOC);
#[map]
pub static MULTIPATH: LpmTrie<BlockKey, MultipathValue> = LpmTrie::with_max_entries(16384, 0);
#[map]
pub static PATH_MTU: LruHashMap<Address, PathMtuValue> = LruHashMap::with_max_entries(4096, 0);
#[map]
pub static SLOT: Array<SlotValue> = Array::with_max_entries(4096, 0);
#[map]
pub static POLICY: HashMap<PolicyKey, PolicyValue> = HashMap::with_max_entries(1 << 20, BPF_F_NO_PREALLOC);
#[map]
pub static CONNECTION_TCP: LruHashMap<ConnectionKey, ConnectionValue> =
    LruHashMap::with_max_entries(262_144, 0);
#[map]
pub static CONNECTION_OTHER: LruHashMap<ConnectionKey, ConnectionValue> =
    LruHashMap::with_max_entries(131_072, 0);
#[map]
pub static FRAGMENT: LruHashMap<FragmentKey, FragmentValue> = LruHashMap::with_max_entries(8192, 0);
#[map]
pub static SAMPLE: LruHashMap<SampleKey, SampleValue> = LruHashMap::with_max_entries(8192, 0);
#[map]
pub static CONFIG: Array<ConfigValue> = Array::with_max_entries(1, 0);
#[map]
pub static COUNTER: PerCpuArray<u64> = PerCpuArray::with_max_entries(REASONS_MAX, 0);
#[map]
pub static PASSAGE: PerCpuArray<Passage> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static FLOW: PerCpuArray<Flows> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static EVENT: RingBuf = RingBuf::with_byte_size(1 << 18, 0);

/// UDP port of the overlay, host order.
#[unsafe(no_mangle)]
static VXLAN_PORT: u16 = 4789;
/// Tunnel address of this node, as in a packet.
#[unsafe(no_mangle)]
static TUNNEL_ADDRESS: u32 = 0;
/// Index of the VXLAN device.
#[unsafe(no_mangle)]
static VXLAN_IFINDEX: u32 = 0;

/// The container behind a host interface.
#[inline(always)]
pub fn endpoint(ifindex: u32) -> Option<&'static EndpointValue> {
    // SAFETY: the value is only read; its fields change one at a time, and each is right for itself.
    unsafe { ENDPOINT_BY_IFINDEX.get(ifindex) }
}

/// UDP port of the overlay, host order.
#[inline(always)]
pub fn vxlan_port() -> u16 {
    // SAFETY: a valid static; volatile, because the loader changes it behind the compiler's back.
    unsafe { ptr::read_volatile(&raw const VXLAN_PORT) }
}

/// Tunnel address of this node, as in a packet.
#[inline(always)]
pub fn tunnel_address() -> u32 {
    // SAFETY: as above.
    unsafe { ptr::read_volatile(&raw const TUNNEL_ADDRESS) }
}

/// Index of the VXLAN device.
#[inline(always)]
pub fn vxlan_ifindex() -> u32 {
    // SAFETY: as above.
    unsafe { ptr::read_volatile(&raw const VXLAN_IFINDEX) }
}

/// What may change while programs run.
#[inline(always)]
pub fn config() -> &'static ConfigValue {
    const NOTHING: &ConfigValue = &ConfigValue {
        layout: 0,
        mtu: 0,
        path_mtu_floor: 0,
        node: 0,
        epoch: EPOCH_NONE,
        native: 0,
        local_low: 0,
        local_high: 0,
    };
    CONFIG.get(0).unwrap_or(NOTHING)
}
