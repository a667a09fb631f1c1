//! `isthmus bgp mrt show`: what is in a file.

use super::{BadRecords, reader, row, row::Row, unreadable};
use crate::{
    commands::Session,
    failure::{Exit, Failure},
    output::{aligned, line, pretty},
};
use isthmus_speaker::{
    Asn, Prefix,
    mrt::format::{Body, Item, Record, Seen, Time, Unfolder},
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::IpAddr,
    path::PathBuf,
};

/// Arguments of `bgp mrt show`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  isthmus bgp mrt show table.mrt.gz --summary\n  isthmus bgp mrt show table.mrt --prefix 10.0.0.0/8 --longer --limit 20\n  \
    isthmus bgp mrt show updates.mrt --neighbor 192.0.2.2 -o jsonl | jq 'select(.what == \"withdraw\")'\n\n\
    Files of gzip and bzip2 are decompressed as they are read. Other types of records than tables of IPv4 and IPv6 unicast\n\
    and messages of BGP are passed over, and counted by --summary.\n\
    Exit status 1: some records cannot be read; those behind them are shown."
)]
pub struct ShowArgs {
    /// An MRT file (RFC 6396), plain or compressed with gzip or bzip2.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Only paths to this prefix.
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<Prefix>,
    /// Also what is within the prefix.
    #[arg(long, requires = "prefix")]
    longer: bool,
    /// Only what is of this neighbour.
    #[arg(long, value_name = "ADDRESS")]
    neighbor: Option<IpAddr>,
    /// Only what is of a neighbour in this AS, or went through it.
    #[arg(long = "as", value_name = "AS")]
    asn: Option<Asn>,
    /// Ends after so many.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Counts instead, by kind of record and by neighbour.
    #[arg(long)]
    summary: bool,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Form,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// A line for each path.
    #[default]
    Text,
    /// One JSON document.
    Json,
    /// One JSON document on each line.
    Jsonl,
}

impl ShowArgs {
    fn wants(&self, seen: &Seen) -> bool {
        let (nlri, attributes) = match &seen.item {
            Item::Path { nlri, attributes, .. } | Item::Announced { nlri, attributes } => {
                (Some(nlri), Some(attributes))
            }
            Item::Withdrawn { nlri, .. } => (Some(nlri), None),
            _ => (None, None),
        };
        let is_within = |wanted: Prefix| {
            nlri.is_some_and(|nlri| nlri.prefix == wanted || self.longer && wanted.contains(&nlri.prefix))
        };
        let went_through = |asn: Asn| {
            seen.origin.asn == asn || attributes.is_some_and(|carried| carried.as_path.count(asn) > 0)
        };
        self.prefix.is_none_or(is_within)
            && self.neighbor.is_none_or(|address| seen.origin.address == address)
            && self.asn.is_none_or(went_through)
    }
}

/// What a file has of one kind of record.
#[derive(Debug, Serialize)]
struct Kind {
    #[serde(rename = "kind")]
    name: String,
    records: u64,
    /// Its records are passed over.
    skipped: bool,
}

/// What a file has of one neighbour.
#[derive(Debug, Default, Serialize)]
struct Peer {
    neighbor: String,
    neighbor_as: u32,
    /// In tables.
    paths: u64,
    announced: u64,
    withdrawn: u64,
    states: u64,
    /// Other messages.
    other: u64,
}

/// A file, counted.
#[derive(Debug, Default, Serialize)]
struct Summary {
    records: u64,
    bad_records: u64,
    bytes: u64,
    /// RFC 3339; `null`: there is no record.
    first: Option<String>,
    last: Option<String>,
    kinds: Vec<Kind>,
    neighbors: Vec<Peer>,
}

/// Counts while the file is read.
#[derive(Debug, Default)]
struct Counter {
    records: u64,
    span: Option<(Time, Time)>,
    kinds: BTreeMap<String, (u64, bool)>,
    peers: BTreeMap<(IpAddr, u32), Peer>,
}

impl Counter {
    fn record(&mut self, record: &Record) {
        self.records += 1;
        let (first, last) = self.span.unwrap_or((record.time, record.time));
        self.span = Some((first.min(record.time), last.max(record.time)));
        let kind = self.kinds.entry(record.kind.to_string()).or_default();
        *kind = (kind.0 + 1, record.body == Body::Skipped);
        if let Body::PeerIndex(index) = &record.body {
            for peer in &index.peers {
                self.peers.entry((peer.address, peer.asn.0)).or_default();
            }
        }
    }

    fn seen(&mut self, seen: &Seen) {
        let peer = self.peers.entry((seen.origin.address, seen.origin.asn.0)).or_default();
        *match seen.item {
            Item::Path { .. } => &mut peer.paths,
            Item::Announced { .. } => &mut peer.announced,
            Item::Withdrawn { .. } => &mut peer.withdrawn,
            Item::State { .. } => &mut peer.states,
            Item::EndOfRib(_) | Item::Message(_) | Item::Broken(_) => &mut peer.other,
        } += 1;
    }

    fn finish(self, bad_records: u64, bytes: u64) -> Summary {
        let kinds =
            self.kinds.into_iter().map(|(kind, (records, skipped))| Kind { name: kind, records, skipped });
        let neighbors = self.peers.into_iter().map(|((address, asn), peer)| Peer {
            neighbor: if address.is_unspecified() { "local".to_owned() } else { address.to_string() },
            neighbor_as: asn,
            ..peer
        });
        Summary {
            records: self.records,
            bad_records,
            bytes,
            first: self.span.map(|(first, _)| row::clock(first)),
            last: self.span.map(|(_, last)| row::clock(last)),
            kinds: kinds.collect(),
            neighbors: neighbors.collect(),
        }
    }
}

/// Prints one after the other, so that a file of any size can be shown.
struct Printer<'o> {
    out: &'o mut dyn Write,
    form: Form,
    count: u64,
}

impl Printer<'_> {
    fn print(&mut self, seen: &Seen) -> io::Result<()> {
        let row = Row::from(seen);
        self.count += 1;
        match self.form {
            Form::Text => writeln!(self.out, "{}", row.line()),
            Form::Jsonl => writeln!(self.out, "{}", line(&row)),
            Form::Json => {
                let head = if self.count == 1 { "[\n" } else { ",\n" };
                write!(self.out, "{head}  {}", line(&row))
            }
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        match (self.form, self.count) {
            (Form::Json, 0) => writeln!(self.out, "[]"),
            (Form::Json, _) => writeln!(self.out, "\n]"),
            _ => Ok(()),
        }
    }
}

/// Shows a file.
pub(super) fn run(args: &ShowArgs, session: &mut Session) -> Result<Exit, Failure> {
    let mut reader = reader(&args.file)?;
    let (mut unfolder, mut counter, mut bad) = (Unfolder::new(), Counter::default(), BadRecords::default());
    let mut told = Vec::new();
    let mut printer = Printer { out: &mut *session.out, form: args.output, count: 0 };
    let mut fatal = None;
    'records: for record in reader.by_ref() {
        let record = match record {
            Ok(record) => record,
            Err(why) if why.can_go_on() => {
                told.extend(bad.add(&args.file, &why));
                continue;
            }
            Err(why) => {
                fatal = Some(unreadable(&args.file, &why));
                break;
            }
        };
        counter.record(&record);
        for seen in unfolder.unfold(record).iter().filter(|seen| args.wants(seen)) {
            if args.limit.is_some_and(|limit| printer.count >= limit) {
                break 'records;
            }
            if args.summary {
                counter.seen(seen);
            } else {
                printer.print(seen)?;
            }
        }
    }
    if args.summary {
        let summary = counter.finish(bad.count, reader.offset());
        print_summary(&mut *session.out, args.output, &summary)?;
    } else {
        printer.finish()?;
    }
    session.out.flush()?;
    told.extend(bad.rest(&args.file));
    for text in &told {
        session.tell(text);
    }
    match fatal {
        Some(failure) => Err(failure),
        None => Ok(if bad.count == 0 { Exit::Yes } else { Exit::No }),
    }
}

fn print_summary(out: &mut dyn Write, form: Form, summary: &Summary) -> io::Result<()> {
    match form {
        Form::Json => return writeln!(out, "{}", pretty(summary)),
        Form::Jsonl => return writeln!(out, "{}", line(summary)),
        Form::Text => {}
    }
    let when = |time: &Option<String>| time.clone().unwrap_or_else(|| "-".to_owned());
    writeln!(
        out,
        "records  {}, {} cannot be read, {} bytes",
        summary.records, summary.bad_records, summary.bytes
    )?;
    writeln!(out, "from     {}\nto       {}\n", when(&summary.first), when(&summary.last))?;
    let mut lines = vec![["RECORDS", "KIND", ""].map(str::to_owned).to_vec()];
    lines.extend(summary.kinds.iter().map(|kind| {
        let remark = if kind.skipped { "passed over" } else { "" };
        vec![kind.records.to_string(), kind.name.clone(), remark.to_owned()]
    }));
    aligned(out, &lines)?;
    writeln!(out)?;
    let titles = ["NEIGHBOR", "AS", "PATHS", "ANNOUNCED", "WITHDRAWN", "STATES", "OTHER"];
    let mut lines = vec![titles.map(str::to_owned).to_vec()];
    lines.extend(summary.neighbors.iter().map(|peer| {
        let counts = [peer.paths, peer.announced, peer.withdrawn, peer.states, peer.other];
        let mut cells = vec![peer.neighbor.clone(), peer.neighbor_as.to_string()];
        cells.extend(counts.map(|count| count.to_string()));
        cells
    }));
    aligned(out, &lines)
}
