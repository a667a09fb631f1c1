//! The server: it keeps the registry, compiles policies, and tells each agent what its node needs.
//!
//! ```text
//!  people, CLI --REST--> rest --+                         +--> agents (one session each) ==gRPC==> agents
//!  cf CLI ----> cf -------------+--> registry --> Store --+
//!  agents: blocks, workloads ---+       \--watch--> view + tables (policy compiler) --> what changed
//! ```
//!
//! It is stateless over its [`Store`](isthmus_store::Store): everything that is not on its way is there, and a restart
//! sends nothing to an agent that the agent holds. Agents go on without it.
//!
//! **Invariant**: what two could take at once (an identity, a block, a node's number, an address range) is given by a
//! compare-and-swap transaction; no decision rests on the view alone.
#![forbid(unsafe_code)]

mod agents;
mod cf;
pub mod config;
mod flows;
mod http;
mod kinds;
mod metrics;
mod problem;
mod registry;
mod rest;
mod server;
mod tables;
mod view;

pub use config::{Config, ConfigFault, ConfigFaults};
pub use problem::Code;
pub use registry::StartError;
pub use server::{RunError, Running, Server, run};
