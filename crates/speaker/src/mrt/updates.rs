//! What neighbours send as `BGP4MP_ET`, as it comes, with the states of their sessions.
//!
//! A file has no gap. When messages were lost, because the disk was full or slower than the neighbours, the file so far is
//! put aside (`NAME.until-gap-SECONDS`), and a new one begins.

use super::{
    Reporter,
    clock::unix_seconds,
    file::{GrowingFile, put_aside},
    file_at,
    tap::{Inlet, Tapped},
    until_tick,
};
use crate::config::MrtDump;
use std::{
    future::pending,
    io,
    path::PathBuf,
    time::{Duration, SystemTime},
};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Records that are written at once.
const BATCH_RECORDS: usize = 1_024;
/// Pause after a file could not be written.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Dumps what comes until `stop`, and then what is there already.
pub(super) async fn run(dump: MrtDump, mut inlet: Inlet, reporter: Reporter, stop: CancellationToken) {
    let mut writer = Writer { dump, reporter, file: None, has_gap: false, is_full: false, retry_at: None };
    let mut batch = Vec::new();
    let mut rotate_at = writer.next_rotation();
    // The file is there from the start, and whoever cannot have one hears of it before anything is lost.
    let mut is_over = false;
    writer.write(&[]).await;
    while !is_over {
        tokio::select! {
            () = inlet.take(&mut batch, BATCH_RECORDS) => {}
            () = async { match rotate_at { Some(at) => sleep_until(at).await, None => pending().await } } => {
                writer.close().await;
                rotate_at = writer.next_rotation();
                writer.write(&[]).await;
            }
            // Whether it can be written again is found out though nothing comes.
            () = async { match writer.retry_at { Some(at) => sleep_until(at).await, None => pending().await } } => {}
            () = stop.cancelled() => {
                is_over = true;
                batch.extend(std::iter::from_fn(|| inlet.try_take()));
            }
        }
        writer.lost(inlet.take_lost(), "it is slower than the neighbours");
        writer.write(&std::mem::take(&mut batch)).await;
    }
    writer.close().await;
}

struct Writer {
    dump: MrtDump,
    reporter: Reporter,
    file: Option<GrowingFile>,
    /// Messages were lost behind what is in the file.
    has_gap: bool,
    /// The last write failed, though the file could be opened.
    is_full: bool,
    /// Until then nothing is tried.
    retry_at: Option<Instant>,
}

impl Writer {
    fn next_rotation(&self) -> Option<Instant> {
        self.dump.rotation.map(|interval| Instant::now() + until_tick(interval).0)
    }

    async fn write(&mut self, batch: &[Tapped]) {
        let records: Vec<u8> = batch.iter().flat_map(|tapped| tapped.bytes.iter().copied()).collect();
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return self.lost(batch.len() as u64, "its file cannot be written");
        }
        self.retry_at = None;
        if let Err(why) = self.try_write(&records, batch.len() as u64).await {
            let path = self.path();
            self.file = None;
            self.retry_at = Some(Instant::now() + RETRY_PAUSE);
            self.reporter.problem(format!("{}: {why}", path.display()));
            self.lost(batch.len() as u64, "its file cannot be written");
        }
    }

    async fn try_write(&mut self, bytes: &[u8], records: u64) -> io::Result<()> {
        if self.has_gap {
            self.begin_anew().await?;
        }
        let mut file = match self.file.take() {
            Some(file) => file,
            None => GrowingFile::open(&self.path()).await?,
        };
        if let Err(why) = file.write(bytes).await {
            self.is_full = true;
            return Err(why);
        }
        // To write nothing succeeds on a full disk too.
        if !self.is_full || !bytes.is_empty() {
            self.is_full = false;
            self.reporter.wrote(&file.path, records, bytes.len() as u64);
        }
        self.file = Some(file);
        Ok(())
    }

    async fn begin_anew(&mut self) -> io::Result<()> {
        let path = self.path();
        if let Some(file) = self.file.take() {
            file.close().await?;
        }
        if let Some(aside) = put_aside(&path, unix_seconds(SystemTime::now())).await? {
            let file = path.display();
            tracing::warn!(%file, aside = %aside.display(), "MRT dump begins anew, because messages were lost");
        }
        self.has_gap = false;
        Ok(())
    }

    fn lost(&mut self, messages: u64, why: &str) {
        if messages > 0 {
            if !self.has_gap {
                tracing::warn!(file = %self.dump.file_name, messages, why, "MRT dump loses messages");
            }
            self.has_gap = true;
            self.reporter.lost(messages);
        }
    }

    async fn close(&mut self) {
        if let Some(file) = self.file.take() {
            let path = file.path.clone();
            if let Err(why) = file.close().await {
                self.reporter.problem(format!("{}: {why}", path.display()));
            }
        }
    }

    /// The file that is written; while none is, the one that would be.
    fn path(&self) -> PathBuf {
        match &self.file {
            Some(file) => file.path.clone(),
            None => file_at(&self.dump, SystemTime::now()),
        }
    }
}
