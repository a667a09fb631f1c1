//! Nodes and platforms as network namespaces on one Linux machine.
//!
//! It carries `isthmus demo` ([`demo`]), `isthmus bench` ([`mod@bench`]), `isthmus bench-bgp` ([`bench_bgp`]) and tests with real packets. It plays
//! the orchestrators and calls the real entry points: containerd's CRI, Garden's external networker, the CNI call that
//! Nomad makes. It knows Isthmus only from outside: its programs, its REST API, its files.
//!
//! ```text
//!   host ── isd-underlay (a bridge in a namespace of its own) ──┬── isd-red-1   agent, containerd ── pods
//!    │                                                          ├── isd-green-1 agent ── runc containers, by Garden's call
//!    └ server, CLI                                              └── isd-blue-1  agent ── allocations, by Nomad's call
//! ```
//!
//! Whatever is made on the host is written to a [`state`] file before it is made, so that `down` finds it after a crash.
//! All functions block; none may be called from inside an async runtime.
#![forbid(unsafe_code)]

pub mod app;
pub mod bench;
pub mod bench_bgp;
mod checks;
pub mod cni;
pub mod command;
pub mod containerd;
mod cpu;
mod daemon;
pub mod demo;
pub mod demo_bgp;
pub mod garden;
pub mod image;
mod interrupt;
mod lab;
pub mod leftovers;
pub mod load;
pub mod namespace;
pub mod nomad;
pub mod process;
mod progress;
mod rest;
pub mod runc;
pub mod running;
pub mod state;
mod table;
pub mod underlay;
pub mod wait;
