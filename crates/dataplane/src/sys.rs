//! The system calls that need `unsafe`: maps by `bpf(2)`, and nothing else.

pub(crate) mod map;
