//! `isthmus bgp bmp`: monitoring stations.

use super::{SpeakerArgs, now_unix, refused, span};
use crate::{
    commands::Session,
    failure::{Exit, Failure},
    output::{Column, OutputArgs, View},
};
use isthmus_speaker::explain::proto;
use serde::Serialize;

/// A station, as it is printed.
#[derive(Debug, Serialize)]
struct Station {
    /// With its port.
    address: String,
    up: bool,
    /// It was told all that there is.
    current: bool,
    /// `null`: it was never up.
    for_seconds: Option<u64>,
    policy: String,
    /// What it hears of what neighbours are told.
    adj_rib_out: String,
    /// 0: no reports.
    statistics_seconds: u32,
    messages: u64,
    bytes: u64,
    /// Connections that were lost.
    losses: u64,
    /// Routes that no message holds.
    left_out: u64,
    why: String,
}

impl From<proto::Station> for Station {
    fn from(station: proto::Station) -> Self {
        let since = if station.up { station.up_unix } else { station.down_unix };
        Self {
            address: station.address,
            up: station.up,
            current: station.current,
            for_seconds: (since != 0).then(|| now_unix().saturating_sub(since)),
            policy: station.policy,
            adj_rib_out: station.adj_rib_out,
            statistics_seconds: station.statistics_seconds,
            messages: station.messages,
            bytes: station.bytes,
            losses: station.losses,
            left_out: station.left_out,
            why: station.why,
        }
    }
}

impl Station {
    fn state(&self) -> &'static str {
        match (self.up, self.current) {
            (false, _) => "Down",
            (true, false) => "Up(Behind)",
            (true, true) => "Up",
        }
    }
}

/// Yes if every station is up.
pub(super) async fn list(
    speaker: &SpeakerArgs,
    output: &OutputArgs,
    session: &mut Session,
) -> Result<Exit, Failure> {
    let stations = speaker.client().await?.stations().await.map_err(refused)?;
    let rows: Vec<Station> = stations.into_iter().map(Station::from).collect();
    let is_well = rows.iter().all(|row| row.up);
    view().list(&mut *session.out, output, rows)?;
    Ok(if is_well { Exit::Yes } else { Exit::No })
}

fn view() -> View<Station> {
    View {
        columns: vec![
            Column::new("STATION", |row: &Station| row.address.clone()),
            Column::new("STATE", |row| row.state().to_owned()),
            Column::new("FOR", |row| row.for_seconds.map_or_else(|| "never".to_owned(), span)),
            Column::new("POLICY", |row| row.policy.clone()),
            Column::new("MESSAGES", |row| row.messages.to_string()),
            Column::new("WHY", |row| row.why.clone()),
            Column::wide("ADJ-RIB-OUT", |row| row.adj_rib_out.clone()),
            Column::wide("STATISTICS", |row| match row.statistics_seconds {
                0 => "off".to_owned(),
                seconds => format!("{seconds}s"),
            }),
            Column::wide("BYTES", |row| row.bytes.to_string()),
            Column::wide("LOSSES", |row| row.losses.to_string()),
            Column::wide("LEFT OUT", |row| row.left_out.to_string()),
        ],
        name: |row| row.address.clone(),
    }
}
