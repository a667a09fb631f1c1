//! All routes as `TABLE_DUMP_V2`: what neighbours sent, and our own, read page by page so that nobody waits.

use super::{Reporter, file::WholeFile, file_at, until_tick};
use crate::{
    Handle,
    config::MrtDump,
    handle::Refusal,
    view::{DestinationView, PathView},
};
use isthmus_bgp::{
    Asn, PathId, Prefix,
    mrt::{EncodeError, PeerEntry, PeerIndex, Rib, RibEntry},
};
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::{Duration, SystemTime},
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// A table cannot be dumped.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The speaker is gone.
    #[error(transparent)]
    Speaker(#[from] Refusal),
    /// There are more neighbours than a file can have.
    #[error("the table cannot be written in this form")]
    Encode(#[from] EncodeError),
    /// The file cannot be written.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Walks over all routes once, and says what stands in the file.
///
/// Routes that come and go meanwhile may be in it or not; those of neighbours whose first session came up after the start
/// are not.
#[derive(Debug)]
pub struct TableWalk {
    speaker: Handle,
    /// Numbers of neighbours in the peer index, by what names them; our own routes have the unspecified address.
    peers: BTreeMap<IpAddr, u16>,
    place: Option<u32>,
    seconds: u32,
    sequence: u32,
    left_out: u64,
}

const OURSELVES: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

impl TableWalk {
    /// Begins: the first record, which says who the neighbours are.
    ///
    /// # Errors
    ///
    /// The speaker has ended, or has more than 65,534 neighbours.
    pub async fn begin(speaker: Handle) -> Result<(Self, Vec<u8>), DumpError> {
        let global = speaker.global().await?;
        let own = PeerEntry { id: global.router_id.into(), address: OURSELVES, asn: Asn(global.asn) };
        let mut entries = BTreeMap::from([(OURSELVES, own)]);
        for (name, source) in speaker.sources().await? {
            let entry = PeerEntry { id: source.router_id, address: source.address, asn: source.asn };
            entries.insert(name, entry);
        }
        let peers = entries.keys().enumerate().map(|(number, address)| (*address, number as u16)).collect();
        let index = PeerIndex {
            collector: global.router_id.into(),
            view: String::new(),
            peers: entries.into_values().collect(),
        };
        let seconds = unix_u32(SystemTime::now());
        let mut first = Vec::new();
        index.encode(seconds, &mut first)?;
        Ok((Self { speaker, peers, place: Some(0), seconds, sequence: 0, left_out: 0 }, first))
    }

    /// The records of some more prefixes, perhaps of none; `None`: that was all.
    ///
    /// # Errors
    ///
    /// The speaker has ended.
    pub async fn next_records(&mut self) -> Result<Option<Vec<u8>>, DumpError> {
        let Some(place) = self.place else { return Ok(None) };
        let page = self.speaker.page(place).await?;
        self.place = page.next;
        let mut records = Vec::new();
        for destination in page.destinations {
            self.put(destination, &mut records);
        }
        Ok(Some(records))
    }

    /// Records that were given out, without the first.
    pub fn records(&self) -> u64 {
        self.sequence.into()
    }

    /// Paths that this form cannot hold, or whose neighbours came too late.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Paths with numbers have a record of their own.
    fn put(&mut self, destination: DestinationView, records: &mut Vec<u8>) {
        let DestinationView { prefix, paths } = destination;
        let (numbered, plain): (Vec<_>, Vec<_>) =
            paths.into_iter().partition(|path| path.path_id != PathId(0));
        for (add_path, paths) in [(false, plain), (true, numbered)] {
            let before = paths.len();
            let entries: Vec<RibEntry> = paths.into_iter().filter_map(|path| self.entry(path)).collect();
            self.left_out += (before - entries.len()) as u64;
            if !entries.is_empty() {
                self.put_rib(prefix, add_path, entries, records);
            }
        }
    }

    fn put_rib(&mut self, prefix: Prefix, add_path: bool, entries: Vec<RibEntry>, records: &mut Vec<u8>) {
        let paths = entries.len() as u64;
        let rib = Rib { sequence: self.sequence, prefix, add_path, entries };
        match rib.encode(self.seconds, records) {
            Ok(()) => self.sequence = self.sequence.wrapping_add(1),
            Err(why) => {
                tracing::debug!(%prefix, %why, "routes are left out of an MRT dump");
                self.left_out += paths;
            }
        }
    }

    fn entry(&self, path: PathView) -> Option<RibEntry> {
        let address = path.source.map_or(OURSELVES, |source| source.address);
        Some(RibEntry {
            peer: *self.peers.get(&address)?,
            originated: path.received_at.map(unix_u32).unwrap_or_default(),
            path_id: path.path_id,
            attributes: path.attributes,
            faults: Vec::new(),
        })
    }
}

/// Dumps the table whenever its time has come, until `stop`.
pub(super) async fn run(dump: MrtDump, speaker: Handle, mut reporter: Reporter, stop: CancellationToken) {
    let Some(interval) = dump.rotation.or(dump.interval) else { return };
    loop {
        let (pause, tick) = until_tick(interval);
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        let path = file_at(&dump, SystemTime::UNIX_EPOCH + Duration::from_secs(tick));
        let written = tokio::select! {
            written = write(&speaker, &path) => written,
            // What is not finished is removed.
            () = stop.cancelled() => return,
        };
        match written {
            Ok((records, bytes)) => {
                tracing::debug!(file = %path.display(), records, bytes, "table dumped");
                reporter.wrote(&path, records, bytes);
            }
            Err(DumpError::Speaker(_)) => return,
            Err(why) => reporter.problem(format!("{}: {why}", path.display())),
        }
    }
}

/// Dumps the table into a file: how many records, and bytes.
async fn write(speaker: &Handle, path: &Path) -> Result<(u64, u64), DumpError> {
    let mut file = WholeFile::create(path).await?;
    let (mut walk, first) = TableWalk::begin(speaker.clone()).await?;
    file.write(&first).await?;
    let mut bytes = first.len() as u64;
    while let Some(records) = walk.next_records().await? {
        file.write(&records).await?;
        bytes += records.len() as u64;
    }
    file.finish().await?;
    let left_out = walk.left_out();
    if left_out > 0 {
        tracing::warn!(file = %path.display(), left_out, "paths that MRT cannot hold, or whose neighbours came too late, are not in the dump");
    }
    Ok((walk.records() + 1, bytes))
}

fn unix_u32(time: SystemTime) -> u32 {
    u32::try_from(super::unix_seconds(time)).unwrap_or(u32::MAX)
}
