//! Isthmus as a process.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(isthmus::main(std::env::args_os().collect()))
}
