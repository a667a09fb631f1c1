//! `isthmus bgp mrt`: files of routes and messages (RFC 6396), read, replayed and made.

mod dump;
mod inject;
mod row;
mod show;

use super::SpeakerArgs;
use crate::{
    commands::Session,
    failure::{Exit, Failure},
    output::OutputArgs,
};
use isthmus_speaker::mrt::{
    Input,
    format::{ReadError, Reader},
    open,
};
use std::{error::Error, path::Path};

/// What can be done with MRT files.
#[derive(Debug, clap::Subcommand)]
pub enum MrtCommand {
    /// Shows what is in a file, path by path, or counted; needs no speaker.
    Show(show::ShowArgs),
    /// Puts the routes of a file into a running speaker, as its own.
    Inject(inject::InjectArgs),
    /// Writes all routes of a running speaker into a file, as its neighbours sent them.
    #[command(
        after_help = "Examples:\n  isthmus bgp mrt dump table.mrt\n  isthmus bgp mrt dump | gzip > table.mrt.gz\n\n\
        What `[[mrt-dump]]` of the configuration writes by itself is shown by `isthmus bgp mrt status`."
    )]
    Dump(dump::DumpArgs),
    /// Shows what a running speaker dumps by itself, and how that goes.
    #[command(after_help = "Examples:\n  isthmus bgp mrt status\n  isthmus bgp mrt status -o json\n\n\
        Exit status 1: a file cannot be written.")]
    Status {
        /// Which speaker.
        #[command(flatten)]
        speaker: SpeakerArgs,
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// Does what is said.
pub(super) async fn run(command: MrtCommand, session: &mut Session) -> Result<Exit, Failure> {
    match command {
        MrtCommand::Show(args) => show::run(&args, session),
        MrtCommand::Inject(args) => inject::run(args, session).await,
        MrtCommand::Dump(args) => dump::run(args, session).await,
        MrtCommand::Status { speaker, output } => dump::status(&speaker, &output, session).await,
    }
}

const CODE: &str = "ISE-0704";

/// Opens a file for reading, compressed or not.
fn reader(file: &Path) -> Result<Reader<Input>, Failure> {
    let input = open(file).map_err(|why| {
        Failure::new(Exit::Usage, CODE, with_causes(&why), "name a file of RFC 6396, plain, gzip or bzip2")
    })?;
    Ok(Reader::new(input))
}

/// Nothing more can be read of a file.
fn unreadable(file: &Path, why: &ReadError) -> Failure {
    let text = format!("{}: {}", file.display(), with_causes(why));
    Failure::new(Exit::Usage, CODE, text, "what stands before it was read")
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(why) = cause {
        text = format!("{text}: {why}");
        cause = why.source();
    }
    text
}

/// Tells of records that cannot be read: the first ones each, the others by their number.
#[derive(Debug, Default)]
struct BadRecords {
    count: u64,
}

impl BadRecords {
    /// How many are told one by one.
    const TOLD_MAX: u64 = 10;

    fn add(&mut self, file: &Path, why: &ReadError) -> Option<String> {
        self.count += 1;
        let told = self.count <= Self::TOLD_MAX;
        told.then(|| format!("{}: {}", file.display(), with_causes(why)))
    }

    fn rest(&self, file: &Path) -> Option<String> {
        let rest = self.count.saturating_sub(Self::TOLD_MAX);
        (rest > 0).then(|| format!("{}: {rest} more records cannot be read", file.display()))
    }
}
