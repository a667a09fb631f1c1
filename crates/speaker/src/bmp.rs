//! Monitoring stations (BMP, RFC 7854): one task for each, which connects, and tells it of sessions and routes.
//!
//! ```text
//!  owner of the routes ◀── "what next?" ── task of a station ──▶ TCP to the station
//!   (what each station knows, a few bits a route) ── page ──▶
//! ```
//!
//! The owner queues nothing for a station. It notes what the station knows, and what changed since; the task asks for the
//! next page when the one before is written. So a station that is slow costs its own bits and nobody's time, however much
//! happens meanwhile, and hears of what there is when it comes to hear of it. What it knows begins anew with each
//! connection.

mod station;
mod telling;
#[cfg(test)]
mod tests;

pub(crate) use station::{StationSetup, run};

use crate::peer::{Established, PeerKey};
use isthmus_bgp::{Asn, Family, RouterId, bmp::DownReason, rib::News, session::Negotiated};
use std::{sync::Arc, time::SystemTime};
use tokio::sync::oneshot;

/// Names a station's task for as long as the speaker runs.
pub(crate) type StationKey = u64;

/// What a station's task asks the owner of the routes.
pub(crate) enum StationRequest {
    /// The station is there, and knows nothing.
    Begin(oneshot::Sender<Greeting>),
    /// What it shall hear next; the answer comes when there is something.
    Page(oneshot::Sender<Page>),
    /// Numbers for a report.
    Counts(oneshot::Sender<Counts>),
    /// The station is gone.
    End,
}

/// Who the speaker is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Greeting {
    pub(crate) asn: Asn,
    pub(crate) router_id: RouterId,
    /// What ages of routes count from.
    pub(crate) started_at: SystemTime,
}

/// What a station hears next, in this order. With it, the owner takes it for told.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// Sessions that are gone.
    pub(crate) downs: Vec<(PeerKey, DownReason)>,
    /// Sessions that are there.
    pub(crate) ups: Vec<(PeerKey, PeerSession)>,
    /// Routes of this neighbour, or the best ones.
    pub(crate) news: Option<(Option<PeerKey>, News)>,
    /// There is nothing more now.
    pub(crate) is_last: bool,
}

/// A session that is there.
#[derive(Clone, Debug)]
pub(crate) struct PeerSession {
    pub(crate) negotiated: Arc<Negotiated>,
    pub(crate) established: Arc<Established>,
}

/// Numbers for a report.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) peers: Vec<PeerCounts>,
    /// Routes in Loc-RIB.
    pub(crate) best: Vec<(Family, u64)>,
}

/// Numbers of a neighbour that the station knows.
#[derive(Debug)]
pub(crate) struct PeerCounts {
    pub(crate) key: PeerKey,
    /// Routes that it sent.
    pub(crate) received: Vec<(Family, u64)>,
    pub(crate) treated_as_withdraw: u64,
}
