//! The testbed's commands without the rest of Isthmus: for work on the testbed itself.

use clap::Parser;
use std::process::ExitCode;

#[derive(Parser)]
enum Command {
    /// The demo.
    Demo(isthmus_testbed::demo::DemoArgs),
    /// The benchmark.
    Bench(isthmus_testbed::bench::BenchArgs),
    /// What runs in containers.
    DemoApp(isthmus_testbed::app::AppArgs),
}

fn main() -> ExitCode {
    ExitCode::from(match Command::parse() {
        Command::Demo(args) => isthmus_testbed::demo::run(args),
        Command::Bench(args) => isthmus_testbed::bench::run(args),
        Command::DemoApp(args) => isthmus_testbed::app::run(args),
    })
}
