//! What the eBPF programs and userspace share: layouts of map keys and values, the closed list of reasons, and the
//! functions that decide, so that tests in userspace run the code that the kernel runs.
//!
//! Every struct is `repr(C)`, of fixed width, without implicit padding; a change of any layout needs a new
//! [`LAYOUT_VERSION`]. Byte order is in the field's name or documentation: addresses are kept as they are in a packet.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod layout;
pub mod reason;
pub mod verdict;

pub use layout::*;
pub use reason::{Reason, reason_allows};
