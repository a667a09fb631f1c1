//! Everything on one node: it puts containers on the network, keeps their addresses, brings what the server says into
//! force, and tells people what it sees.
//!
//! ```text
//!  adapters (CNI, Garden)          people (CLI)                 server
//!        │ adapter.sock              │ agent.sock                 ▲ gRPC stream
//!  ┌─────▼─────┐               ┌─────▼─────┐                ┌─────▼─────┐
//!  │ adapters  │               │ people    │                │ stream    │
//!  └─────┬─────┘               └─────┬─────┘                └──┬─────┬──┘
//!  ┌─────▼─────┐  ┌───────────┐      │                    ┌────▼──┐ ┌▼─────┐
//!  │ attach    ├──► addresses │   everything               │ view  │ │ link │
//!  │ workloads │  │ (journal) │                            └────┬──┘ └──────┘
//!  │ tables    │  └───────────┘  ┌───────────┐  ┌───────┐  ┌────▼────┐
//!  │ blocks    │                 │ reconcile │  │ flows │  │ apply   │ ◄ desired
//!  └─────┬─────┘                 └─────┬─────┘  └───▲───┘  └────┬────┘
//!        └───────────────┬────────────┴────────────┴───────────┘
//!                        ▼ kernel (the dataplane)
//! ```
//!
//! Invariants: an address is in the journal before anybody hears of it; a container has its rules before it has its
//! link; what was in force stays in force when the agent stops, crashes or loses the server; no input ends the process.
#![forbid(unsafe_code)]

mod adapters;
mod addresses;
mod agent;
mod apply;
mod attach;
mod attachment;
mod bgp;
mod blocks;
mod cleanup;
pub mod config;
mod desired;
mod flows;
mod host;
pub mod kernel;
mod link;
mod locks;
mod metrics;
mod netns;
mod people;
mod ports;
mod reconcile;
mod run;
mod stream;
mod tables;
mod view;
mod workloads;

pub use addresses::OpenJournalError;
pub use cleanup::{Report as CleanupReport, cleanup};
pub use config::{Config, ConfigFaults};
pub use host::LockError;
pub use run::{RunError, run, run_with};

/// An error with all its causes, as one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors repeat their cause in their own text.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
