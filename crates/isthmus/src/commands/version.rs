//! `isthmus version`.

use super::Session;
use crate::{
    failure::{Exit, Failure},
    output::pretty,
};
use serde::Serialize;

/// Arguments of `version`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  isthmus version\n  isthmus version -o json")]
pub struct VersionArgs {
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Form,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    version: &'static str,
    rest: &'static str,
    adapter_protocol: u32,
    cni: [&'static str; 7],
    target: String,
}

/// Prints the versions.
pub fn run(args: &VersionArgs, session: &mut Session) -> Result<Exit, Failure> {
    let versions = Versions {
        version: env!("CARGO_PKG_VERSION"),
        rest: "v1",
        adapter_protocol: isthmus_api::adapter::VERSION,
        cni: ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
    };
    match args.output {
        Form::Text => writeln!(session.out, "isthmus {} ({})", versions.version, versions.target)?,
        Form::Json => writeln!(session.out, "{}", pretty(&versions))?,
    }
    Ok(Exit::Yes)
}
