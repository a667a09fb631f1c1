//! `isthmus bgp mrt dump` and `status`: all routes of a speaker as a file, and what it dumps by itself.

use crate::{
    commands::{
        Session,
        bgp::{SpeakerArgs, refused},
        node::span,
    },
    failure::{Exit, Failure},
    output::{Column, OutputArgs, View},
};
use isthmus_speaker::{Client, ClientError, explain::proto::Dump};
use serde::Serialize;
use std::{
    fs::{self, File},
    io::{self, BufWriter, IsTerminal, Write},
    path::{Path, PathBuf},
};

/// Arguments of `bgp mrt dump`.
#[derive(Debug, clap::Args)]
pub struct DumpArgs {
    /// The file, which is replaced when the new one is whole; unless told, standard output.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    speaker: SpeakerArgs,
}

/// Dumps the table.
pub(super) async fn run(args: DumpArgs, session: &mut Session) -> Result<Exit, Failure> {
    let mut client = args.speaker.client().await?;
    let Some(file) = &args.file else {
        if io::stdout().is_terminal() {
            let text = "a dump is no text: standard output is a terminal";
            return Err(Failure::usage(text, "name a file, or give it to another program"));
        }
        let written = write(&mut client, &mut *session.out).await.map_err(|why| why.told(Failure::from))?;
        written.warn(session);
        return Ok(Exit::Yes);
    };
    let named = |why| not_written(file, &why);
    let part = Part::of(file);
    let mut out = BufWriter::new(File::create(&part.0).map_err(named)?);
    let written = write(&mut client, &mut out).await.map_err(|why| why.told(named))?;
    drop(out);
    part.finish(file).map_err(named)?;
    written.warn(session);
    let Written { records, bytes, .. } = written;
    session.done(&format!("{} has {records} records of routes, {bytes} bytes", file.display()), "");
    Ok(Exit::Yes)
}

#[derive(Debug, Default)]
struct Written {
    bytes: u64,
    records: u64,
    left_out: u64,
}

impl Written {
    fn warn(&self, session: &Session) {
        if self.left_out > 0 {
            let why = "the format cannot hold them, or their neighbours came meanwhile";
            session.tell(&format!("{} paths are not in it: {why}", self.left_out));
        }
    }
}

async fn write(client: &mut Client, out: &mut dyn Write) -> Result<Written, Error> {
    let mut written = Written::default();
    let take = |piece: &[u8], records, left_out| {
        out.write_all(piece)?;
        let bytes = written.bytes + piece.len() as u64;
        written = Written { bytes, records, left_out };
        Ok::<(), Error>(())
    };
    client.dump_table(take).await?;
    out.flush()?;
    Ok(written)
}

enum Error {
    Speaker(ClientError),
    Write(io::Error),
}

impl Error {
    fn told(self, written: impl FnOnce(io::Error) -> Failure) -> Failure {
        match self {
            Self::Speaker(why) => refused(why),
            Self::Write(why) => written(why),
        }
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        Self::Speaker(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

/// The file while it is not whole; removed unless it is finished.
struct Part(PathBuf);

impl Part {
    fn of(file: &Path) -> Self {
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        Self(file.with_file_name(name))
    }

    fn finish(self, file: &Path) -> io::Result<()> {
        File::open(&self.0)?.sync_all()?;
        fs::rename(&self.0, file)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It is gone once it was finished.
        let _ = fs::remove_file(&self.0);
    }
}

fn not_written(file: &Path, why: &io::Error) -> Failure {
    let text = format!("{} cannot be written: {why}", file.display());
    Failure::new(Exit::Usage, super::CODE, text, "write elsewhere, or to standard output")
}

/// A dump, as it is printed.
#[derive(Debug, Serialize)]
struct Row {
    kind: String,
    /// As it is configured.
    file_name: String,
    /// The file that is written, or was written last.
    file: Option<String>,
    /// When something was written last.
    written_unix: Option<u64>,
    records: u64,
    bytes: u64,
    /// Messages that are in no file.
    lost: u64,
    rotation_seconds: Option<u64>,
    interval_seconds: Option<u64>,
    /// What is wrong at present.
    problem: Option<String>,
}

impl From<Dump> for Row {
    fn from(dump: Dump) -> Self {
        let number = |number: u64| (number > 0).then_some(number);
        let text = |text: String| (!text.is_empty()).then_some(text);
        Self {
            kind: dump.kind,
            file_name: dump.file_name,
            file: text(dump.file),
            written_unix: number(dump.written_unix),
            records: dump.records,
            bytes: dump.bytes,
            lost: dump.lost,
            rotation_seconds: number(dump.rotation_interval_seconds),
            interval_seconds: number(dump.dump_interval_seconds),
            problem: text(dump.problem),
        }
    }
}

fn view() -> View<Row> {
    View {
        columns: vec![
            Column::new("KIND", |row: &Row| row.kind.clone()),
            Column::new("FILE", |row| row.file.clone().unwrap_or_else(|| row.file_name.clone())),
            Column::new("EVERY", |row| {
                row.rotation_seconds.or(row.interval_seconds).map(span).unwrap_or_default()
            }),
            Column::new("WRITTEN", |row| {
                let ago = |unix| span(super::super::now_unix().saturating_sub(unix));
                row.written_unix.map_or_else(|| "never".to_owned(), |unix| format!("{} ago", ago(unix)))
            }),
            Column::new("RECORDS", |row| row.records.to_string()),
            Column::new("LOST", |row| row.lost.to_string()),
            Column::new("PROBLEM", |row| row.problem.clone().unwrap_or_default()),
            Column::wide("BYTES", |row| row.bytes.to_string()),
            Column::wide("NAME", |row| row.file_name.clone()),
        ],
        name: |row| row.file_name.clone(),
    }
}

/// Shows what the speaker dumps by itself.
pub(super) async fn status(
    speaker: &SpeakerArgs,
    output: &OutputArgs,
    session: &mut Session,
) -> Result<Exit, Failure> {
    let dumps = speaker.client().await?.mrt_dumps().await.map_err(refused)?;
    let rows: Vec<Row> = dumps.into_iter().map(Row::from).collect();
    let is_well = rows.iter().all(|row| row.problem.is_none());
    view().list(&mut *session.out, output, rows)?;
    Ok(if is_well { Exit::Yes } else { Exit::No })
}
