//! Types that cross a network or a socket.
//!
//! | module | between | encoding |
//! | --- | --- | --- |
//! | [`rest`] | people, the CLI, orchestrators and the server | JSON over HTTP, `/api/v1` |
//! | [`local`] | people's tools and the agent's socket; answers of agents to the server | JSON over HTTP on a Unix socket |
//! | [`adapter`] | CNI and Garden programs and the agent | length-prefixed JSON and descriptors on a root-only socket |
//! | `stream` (feature) | agents and the server | gRPC |
//!
//! Nothing computes with these types; whoever receives one turns it into words of `isthmus-core` at once.
#![forbid(unsafe_code)]

pub mod adapter;
#[cfg(feature = "client")]
pub mod client;
pub mod local;
pub mod rest;

/// The stream between agents and the server, generated from `proto/agent.proto`.
#[cfg(feature = "stream")]
#[expect(
    missing_docs,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated; the proto file has the documentation"
)]
pub mod stream {
    tonic::include_proto!("isthmus.agent.v1");

    /// Version of the protocol, in `Hello` and `Welcome`.
    pub const PROTOCOL: u32 = 1;
    /// Largest message either side accepts: a table of 1,000,000 rules.
    pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
}
