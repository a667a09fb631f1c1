//! The speaker beside BIRD 2, FRR and gobgpd: each feature, in each role, with real routers and real packets.
//!
//! ```text
//!   subject (.1) ──┐
//!   peer    (.2) ──┼── wire      one network namespace each; a column of the matrix is one such network
//!   source  (.3) ──┤             source: BIRD in another AS, tells both of them two paths, and a route of 5 kB
//!   fellow  (.4) ──┘             fellow: BIRD behind whoever reflects
//! ```
//!
//! All speakers are driven through [`speaker::Speaker`], so that the subject can be any of them: with
//! `ISTHMUS_INTEROP_SUBJECT=bird` (or `frr`, `gobgp`) the suite is tried on those who are known to be right.
//!
//! Needs root, iproute2, nftables, bird2, frr and gobgpd. `make interop` prints the matrix.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod bird;
mod cells;
mod experiment;
mod frr;
#[path = "../frr/daemons.rs"]
mod frr_daemons;
mod gobgp;
mod hostile;
mod lab;
mod matrix;
mod plan;
mod speaker;
