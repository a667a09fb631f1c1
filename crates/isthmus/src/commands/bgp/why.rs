//! `isthmus bgp why`: which path to a prefix is the best and at which step each other one lost, and who is told.

use super::{Row, SpeakerArgs, refused_about};
use crate::{
    commands::Session,
    failure::{Exit, Failure},
    output::{Column, Format, OutputArgs, View, pretty},
};
use isthmus_speaker::{
    KernelRoute,
    client::{self, Announcement, PathReason},
    interface,
};
use serde::Serialize;
use std::net::IpAddr;

/// Arguments of `bgp why`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  isthmus bgp why 10.2.0.0/24\n  isthmus bgp why 10.2.0.7 --peer 192.0.2.2\n  isthmus bgp why 10.2.0.0/24 -o json\n\n\
    Exit status 0: there is a path; 1: nothing is known of the prefix."
)]
pub struct WhyArgs {
    /// A prefix, or an address: then the narrowest prefix that holds it.
    #[arg(value_name = "PREFIX")]
    prefix: String,
    /// Only the paths from this neighbour, and whether it is told.
    #[arg(long, value_name = "NEIGHBOR", value_parser = super::neighbor)]
    peer: Option<IpAddr>,
    #[command(flatten)]
    speaker: SpeakerArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// A path and what is thought of it.
#[derive(Debug, Serialize)]
struct PathRow {
    #[serde(flatten)]
    route: Row,
    verdict: &'static str,
    reason: String,
    why: String,
}

impl From<PathReason> for PathRow {
    fn from(path: PathReason) -> Self {
        let verdict = match path.verdict {
            client::Verdict::Best => "best",
            client::Verdict::Used => "used",
            client::Verdict::Worse => "worse",
            client::Verdict::Excluded => "excluded",
            client::Verdict::Unknown => "unknown",
        };
        Self { route: Row::from(path.route), verdict, reason: path.reason, why: path.why }
    }
}

/// A neighbour, and whether it is told.
#[derive(Debug, Serialize)]
struct AnnouncementRow {
    neighbor: String,
    announced: bool,
    reason: String,
    why: String,
}

impl From<Announcement> for AnnouncementRow {
    fn from(one: Announcement) -> Self {
        Self { neighbor: one.neighbor, announced: one.announced, reason: one.reason, why: one.why }
    }
}

#[derive(Debug, Serialize)]
struct Answer {
    prefix: String,
    paths: Vec<PathRow>,
    announcements: Vec<AnnouncementRow>,
    /// `null`: the speaker keeps no routes in the kernel.
    kernel: Option<KernelRow>,
}

/// The kernel's route.
#[derive(Debug, Serialize)]
struct KernelRow {
    installed: bool,
    why: String,
}

impl From<KernelRoute> for KernelRow {
    fn from(route: KernelRoute) -> Self {
        Self { installed: route.installed, why: route.why }
    }
}

/// Explains one prefix.
pub(super) async fn run(args: WhyArgs, session: &mut Session) -> Result<Exit, Failure> {
    let mut client = args.speaker.client().await?;
    let why = match client.why(&args.prefix, args.peer).await {
        Ok(why) => why,
        Err(error) => return Err(refused_about(&mut client, args.peer, error).await),
    };
    let answer = Answer {
        prefix: why.prefix,
        paths: why.paths.into_iter().map(PathRow::from).collect(),
        announcements: why.announcements.into_iter().map(AnnouncementRow::from).collect(),
        kernel: why.kernel.map(KernelRow::from),
    };
    let is_known = !answer.paths.is_empty();
    match args.output.output {
        Format::Json | Format::Jsonl => writeln!(session.out, "{}", pretty(&answer))?,
        _ => tables(answer, &args, session)?,
    }
    Ok(if is_known { Exit::Yes } else { Exit::No })
}

fn tables(answer: Answer, args: &WhyArgs, session: &mut Session) -> Result<(), Failure> {
    let from = args.peer.map(|peer| format!(" from {}", interface::shown(peer))).unwrap_or_default();
    if answer.paths.is_empty() {
        session.tell(&format!("{}: there is no path to it{from}", answer.prefix));
    } else {
        paths().list(&mut *session.out, &args.output, answer.paths)?;
    }
    if matches!(args.output.output, Format::Table | Format::Wide) {
        writeln!(session.out)?;
        let plain = OutputArgs { columns: Vec::new(), sort: None, ..args.output.clone() };
        announcements().list(&mut *session.out, &plain, answer.announcements)?;
        if let Some(route) = answer.kernel {
            let why = if route.installed {
                "in the kernel".to_owned()
            } else {
                format!("not in the kernel: {}", route.why)
            };
            writeln!(session.out, "\n{} is {why}", answer.prefix)?;
        }
    }
    Ok(())
}

fn paths() -> View<PathRow> {
    View {
        columns: vec![
            Column::new("PREFIX", |row: &PathRow| row.route.prefix.clone()),
            Column::new("FROM", |row| row.route.from.clone().unwrap_or_else(|| "local".to_owned())),
            Column::new("NEXT HOP", |row| {
                row.route.next_hop.map_or_else(|| "self".to_owned(), |address| address.to_string())
            }),
            Column::new("AS PATH", |row| row.route.as_path.clone()),
            Column::new("VERDICT", |row| row.verdict.to_owned()),
            Column::new("WHY", |row| row.why.clone()),
            Column::wide("REASON", |row| row.reason.clone()),
        ],
        name: |row| row.route.prefix.clone(),
    }
}

fn announcements() -> View<AnnouncementRow> {
    View {
        columns: vec![
            Column::new("TO", |row: &AnnouncementRow| row.neighbor.clone()),
            Column::new("ANNOUNCED", |row| if row.announced { "yes" } else { "no" }.to_owned()),
            Column::new("WHY", |row| row.why.clone()),
            Column::wide("REASON", |row| row.reason.clone()),
        ],
        name: |row| row.neighbor.clone(),
    }
}
