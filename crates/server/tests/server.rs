//! The server over real sockets on loopback, with a store in memory and a client that plays an agent.

#![expect(clippy::unwrap_used, reason = "the helpers of tests stop a test as tests do")]

#[path = "server/agent.rs"]
mod agent;
#[path = "server/bgp.rs"]
mod bgp;
#[path = "server/cf.rs"]
mod cf;
#[path = "server/rest.rs"]
mod rest;
#[path = "server/rig.rs"]
mod rig;
