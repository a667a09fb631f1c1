//! The CNI plugin as a process: environment and standard input in, JSON on standard output out.
#![forbid(unsafe_code)]

use isthmus_cni::{Environment, about, run};
use std::{
    io::{Write, stdin, stdout},
    process::ExitCode,
};

fn main() -> ExitCode {
    let environment = Environment::of_process();
    if environment.command.is_empty() {
        // Nomad starts every plugin like this to learn its version, and reads both outputs.
        let _ = writeln!(std::io::stderr(), "{}", about());
        return ExitCode::SUCCESS;
    }
    let outcome = run(&environment, &mut stdin().lock());
    // A runtime that has closed its end wants no answer.
    let _ = stdout().lock().write_all(outcome.stdout.as_bytes());
    if outcome.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
