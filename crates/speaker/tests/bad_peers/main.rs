//! Neighbours that do what none should, on real connections: whatever one does, the others are served.
//!
//! The test is every neighbour, in raw bytes. Needs no privilege.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod as_sets;
mod floods;
mod rig;
mod stalled;
