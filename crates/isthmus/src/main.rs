//! Isthmus as a process.
#![forbid(unsafe_code)]

use mimalloc::MiMalloc;
use std::process::ExitCode;

/// That of musl has one lock for all threads, and gives memory back to the kernel at every turn: it takes the BGP
/// speaker more time than the routes themselves.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    ExitCode::from(isthmus::main(std::env::args_os().collect()))
}
