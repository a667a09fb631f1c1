//! Counts every packet and tells some.

use crate::{
    maps::{COUNTER, EVENT, SAMPLE},
    packet::{ICMP, Packet},
};
use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};
use isthmus_dataplane_common::{EventValue, Reason, SampleKey, SampleValue, TICK_SHIFT, TOUCH_TICKS, mapped};

/// The clock of connections: ticks of about 17 ms.
#[inline(always)]
pub fn now() -> u32 {
    // SAFETY: no arguments; the helper exists since 5.11.
    (unsafe { bpf_ktime_get_coarse_ns() } >> TICK_SHIFT) as u32
}

/// The kernel's own clock, for what only programs ask: a load, where [`now`] is a call.
#[inline(always)]
pub fn jiffies() -> u32 {
    // SAFETY: no arguments; the verifier makes a load of it.
    unsafe { bpf_jiffies64() as u32 }
}

/// Counts a packet.
#[inline(always)]
pub fn count(reason: Reason) {
    count_number(reason as u32);
}

#[inline(always)]
fn count_number(reason: u32) {
    if let Some(counter) = COUNTER.get_ptr_mut(reason) {
        // SAFETY: a per-CPU value, and programs are not preempted by themselves on one CPU.
        unsafe { *counter += 1 };
    }
}

/// A verdict to tell.
pub struct Told {
    pub from: u32,
    pub to: u32,
    pub rule: u32,
    /// [`Reason`].
    pub reason: u32,
}

/// Counts the packet and tells its verdict: at most once a second for each pair, port and reason.
#[inline(never)]
pub fn tell(packet: &Packet, told: &Told) -> i32 {
    count_number(told.reason);
    let port = if packet.protocol == ICMP { u16::from(packet.icmp_type) } else { packet.destination_port };
    let key = SampleKey {
        from: told.from,
        to: told.to,
        port,
        protocol: packet.protocol,
        reason: told.reason as u8,
    };
    let now = now();
    if let Some(sample) = SAMPLE.get_ptr_mut(key) {
        // SAFETY: the value lives as long as the program; counts may be off by a packet under contention.
        unsafe {
            (*sample).packets += 1;
            if now.wrapping_sub((*sample).told) < TOUCH_TICKS {
                return 0;
            }
            (*sample).told = now;
        }
    } else {
        let _ = SAMPLE.insert(key, SampleValue { packets: 1, told: now, reserved: 0 }, 0);
    }
    let Some(mut entry) = EVENT.reserve::<EventValue>(0) else { return 0 };
    // SAFETY: reserved for this program until it is submitted; no arguments.
    unsafe {
        entry.as_mut_ptr().write(EventValue {
            time_ns: bpf_ktime_get_ns(),
            source: mapped(packet.source),
            destination: mapped(packet.destination),
            from: told.from,
            to: told.to,
            rule: told.rule,
            source_port: packet.source_port,
            destination_port: port,
            protocol: packet.protocol,
            reason: told.reason as u8,
            reserved: [0; 6],
        });
    }
    entry.submit(0);
    0
}
