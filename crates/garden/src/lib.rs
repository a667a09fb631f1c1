//! A drop-in for Cloud Foundry's garden-external-networker: translates between Guardian's call and one request to the
//! node's agent.
//!
//! ```text
//!  Guardian ── --configFile --action --handle, JSON on stdin ──▶ flags, input ──▶ workload ──▶ agent (adapter socket)
//!           ◀── {"properties":…} on stdout ── output ◀───────────────────────────────────────┘
//! ```
//!
//! It keeps nothing: no bind mount of the namespace, no file of port numbers. Both are the agent's affair, so `down`
//! works after any crash. What is refused goes to standard error as `cfnetworking: TEXT`, with status 1.
//!
//! **Not enforced yet:** `netout_rules` (application security groups) are read and left to the policy issue.
//!
//! **Invariant.** After an `up` that failed nothing is left behind.
#![forbid(unsafe_code)]

pub mod action;
pub mod config;
pub mod flags;
pub mod input;
pub mod json;
pub mod workload;

pub use action::run;
