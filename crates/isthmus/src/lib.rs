//! The command line of Isthmus, and the daemons and the demo behind it.
//!
//! ```text
//!  words ─▶ args ─▶ commands ─▶ api ─▶ server (REST) or agent (its socket)
//!                      │
//!                      ├─▶ output ─▶ standard output: data     (table, wide, name, json, jsonl, csv)
//!                      └─▶ terminal ─▶ standard error: talk    (errors, what a write changed, how to undo it)
//! ```
//!
//! **Invariants.** What a machine could want is on standard output, all else on standard error. The exit status is one of
//! [`failure::Exit`]. The command line uses the public APIs and no other. A closed pipe ends it quietly.
#![forbid(unsafe_code)]

pub mod api;
pub mod args;
pub mod commands;
pub mod context;
pub mod failure;
pub mod live;
pub mod logging;
pub mod names;
pub mod output;
pub mod pages;
pub mod reference;
pub mod selector;
pub mod terminal;

pub use commands::main;
