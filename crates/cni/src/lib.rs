//! The CNI plugin: translates between a container runtime's call and one request to the node's agent.
//!
//! ```text
//!  runtime ── CNI_* variables, JSON on stdin ──▶ environment, config ──▶ workload ──▶ agent (adapter socket)
//!          ◀── result or error JSON on stdout ── network (result) ◀──────────────────┘
//! ```
//!
//! It keeps nothing and decides nothing: addresses, interfaces, policy and their cleanup are the agent's. It speaks
//! CNI 0.1.0 to 1.1.0 (<https://www.cni.dev/docs/spec/>), ADD, DEL, CHECK, GC, STATUS and VERSION.
//!
//! **Invariants.** Standard output carries one JSON document or nothing. After an ADD that failed, nothing is left
//! behind: the agent undoes its own failures, and a call that broke off is followed by a detach. No async runtime: the
//! process lives for a few milliseconds.
#![forbid(unsafe_code)]

pub mod agent;
pub mod command;
pub mod config;
pub mod environment;
pub mod error;
pub mod netns;
pub mod network;
pub mod version;
pub mod workload;

pub use command::{Outcome, run};
pub use environment::Environment;

/// What the plugin says of itself when it is started without a command.
///
/// The form is that of the reference plugins: Nomad reads the version out of it.
pub fn about() -> String {
    let versions: Vec<_> = version::Version::ALL.iter().map(|version| version.as_str()).collect();
    format!(
        "CNI isthmus plugin v{}\nCNI protocol versions supported: {}",
        env!("CARGO_PKG_VERSION"),
        versions.join(", ")
    )
}
