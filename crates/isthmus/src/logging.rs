//! Logs of the daemons, on standard error.

use crate::failure::Failure;
use std::{
    io::{IsTerminal, stderr},
    sync::OnceLock,
};
use tracing::Level;
use tracing_subscriber::{EnvFilter, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// The filter in force, so that it can be changed while the process runs.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

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
    let (filter, handle) = reload::Layer::new(filter);
    let log = tracing_subscriber::registry().with(filter);
    let form = tracing_subscriber::fmt::layer().with_writer(stderr);
    let json = format == LogFormat::Json || (format == LogFormat::Auto && !terminal);
    let started = if json {
        log.with(form.json().flatten_event(true)).try_init()
    } else {
        log.with(form.with_ansi(terminal)).try_init()
    };
    started.map_err(|why| Failure::usage(format!("logging cannot be started: {why}"), ""))?;
    let _ = FILTER.set(handle);
    Ok(())
}

/// Logs from this level on, in place of what the filter said. Libraries stay as quiet as the level allows.
pub fn set_level(level: Level) -> Result<(), String> {
    let handle = FILTER.get().ok_or("this process does not log")?;
    let filter = EnvFilter::new(level.as_str().to_lowercase());
    handle.reload(filter).map_err(|why| format!("the log level cannot be changed: {why}"))
}
