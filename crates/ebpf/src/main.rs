//! The programs of the dataplane.
//!
//! | program | hook | packets |
//! | --- | --- | --- |
//! | `from_container` | ingress, host side of each veth pair | all that a container sends |
//! | `to_container` | egress, host side of each veth pair | what the host's stack sends to a container |
//! | `from_wire` | ingress, uplink | VXLAN on our port, and ICMP about it; what comes for containers as it is |
//! | `from_overlay` | ingress, VXLAN device | the slow path, decapsulated by the kernel |
//! | `to_overlay` | egress, VXLAN device | what the host's stack sends into the network |
//!
//! Whatever is not ours continues with `TC_ACT_UNSPEC` (`TCX_NEXT`), so that programs behind us and clsact see it.
#![no_std]
#![no_main]

mod answer;
mod connection;
mod container;
mod deliver;
mod event;
mod known;
mod maps;
mod native;
mod packet;
mod passage;
mod wire;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};

/// Continue with the next program, then the stack.
const NEXT: i32 = TC_ACT_UNSPEC;
/// Drop.
const SHOT: i32 = TC_ACT_SHOT;

#[classifier]
pub fn from_container(ctx: TcContext) -> i32 {
    container::from_container(&ctx)
}

#[classifier]
pub fn to_container(ctx: TcContext) -> i32 {
    container::to_container(&ctx)
}

#[classifier]
pub fn from_wire(ctx: TcContext) -> i32 {
    wire::from_wire(&ctx)
}

#[classifier]
pub fn from_overlay(ctx: TcContext) -> i32 {
    wire::from_overlay(&ctx)
}

#[classifier]
pub fn to_overlay(ctx: TcContext) -> i32 {
    wire::to_overlay(&ctx)
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // Never reached: nothing here panics, or the verifier would refuse the endless loop.
    loop {}
}

/// The verifier asks for a licence that is compatible with the GPL for some helpers; ours may be used under either.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
