//! BGP's sockets, timers, configuration and API, around the engine of `isthmus-bgp`.
//!
//! ```text
//!  listeners ─▶ owner (Router: routes, policy) ◀─▶ one task for each neighbour (Session: state, timers, TCP)
//!                 ▲  ▲   ├─▶ one task for each monitoring station (BMP)
//!   GoBGP's API ──┘  │   └─▶ a thread that keeps best routes in the kernel, where wanted
//!                    └── configuration, at start and on reload
//! ```
//!
//! BFD runs beside them in a thread of its own, and [`mrt`] dumps what comes into files. [`run()`] starts all of it. [`config`] reads GoBGP's TOML, [`gobgp`] serves GoBGP's gRPC API, [`client`] asks it.
//!
//! **Invariants.** Keepalives and hold timers never wait for routes. The owner never waits for a neighbour or a client.
//! Every queue is bounded: a neighbour is slowed down by TCP, a watcher that falls behind is dropped, a monitoring station
//! hears later.
#![deny(unsafe_code)]

mod bfd;
mod bmp;
pub mod change;
pub mod client;
pub mod config;
mod engine;
pub mod explain;
pub mod gobgp;
pub mod handle;
pub mod interface;
mod kernel;
mod listeners;
pub mod mrt;
mod netstat;
mod owner;
mod peer;
pub mod route_policy;
mod run;
mod socket;
#[expect(unsafe_code, reason = "socket options that no crate sets")]
mod sys;
mod unnumbered;
pub mod view;

pub use bfd::{BfdSettings, BfdStatus};
pub use client::{Client, ClientError};
pub use config::Config;
pub use handle::Handle;
pub use isthmus_bgp::{AsPath, Asn, Attributes, Family, Nlri, Origin, PathId, Prefix};
pub use kernel::{KernelProblem, KernelRoute, KernelRoutes, KernelStatus, remove_kernel_routes};
pub use run::{Options, RunError, SetLogLevel, run, start};
pub use socket::ListenError;
