//! Turns policies between workloads into one verdict table for each identity.
//!
//! ```text
//!  policies: workload -> workload, port ---+
//!  identities: number -> workload, cluster +--> Compiler --> table(identity): default, answer, sorted rules
//!  clusters: default verdict, deny answer -+         \-----> take_changed(): whose table is another one now
//! ```
//!
//! The server feeds a [`Compiler`] with what its store says, in any order, and sends the tables that changed to the nodes
//! that need them. A table names identities, not workloads: it is what the kernel looks up for a packet.
//! [`Table::verdict`] is the reference for what a table means; the dataplane's must agree with it.
//!
//! What always holds:
//! - Tables depend on what was fed last, not on the order or number of the calls.
//! - A change touches the tables that it changes, and no others: its cost does not grow with the number of policies.
//! - Where knowledge is missing (a cluster that is not known yet), the table is closed.
#![forbid(unsafe_code)]

mod compiler;
mod rules;
mod table;
mod workloads;

pub use compiler::{ClusterDefault, Compiler, IdentityError, PolicyError, RULES_MAX, Rule};
pub use table::{Decision, Table, TableRule, Verdict};
