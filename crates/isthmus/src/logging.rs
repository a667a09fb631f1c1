//! Logs of the daemons, on standard error.

use crate::failure::Failure;
use std::io::{IsTerminal, stderr};
use tracing_subscriber::EnvFilter;

/// Form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    #[default]
    Auto,
    /// Text for people.
    Text,
    /// A JSON document on each line.
    Json,
}

/// Starts logging. `filter` is a list such as `info,isthmus_agent=debug`.
pub fn start(filter: &str, format: LogFormat) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(filter).map_err(|why| {
        Failure::usage(
            format!("the log filter \"{filter}\" cannot be read: {why}"),
            "write ISTHMUS_LOG=info, or a target=level list",
        )
    })?;
    let terminal = stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    let json = format == LogFormat::Json || (format == LogFormat::Auto && !terminal);
    let started =
        if json { log.json().flatten_event(true).try_init() } else { log.with_ansi(terminal).try_init() };
    started.map_err(|why| Failure::usage(format!("logging cannot be started: {why}"), ""))
}
