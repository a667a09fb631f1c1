//! What monitoring stations know of sessions and routes. Nothing waits for them here: a station asks for what is next, and
//! what changed until then is told as it is then.

use super::{Owner, Peer, PeerKey};
use crate::{
    bmp::{self, Counts, Greeting, Page, PeerCounts, PeerSession, StationKey, StationRequest, StationSetup},
    config::StationSettings,
    handle::Handle,
    view::{StationStatus, StationView},
};
use futures::future::join_all;
use isthmus_bgp::{
    Asn, Family,
    bmp::{DownReason, termination},
    rib::{MonitorId, News, PeerId, RibView},
    session::{Down, DownCause, Negotiated, StopReason},
};
use std::{collections::BTreeMap, net::SocketAddr};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

/// Looks at what may have changed before a station is asked to come again.
const LOOKS_MAX: usize = 4;
/// TCP connection confirmed (RFC 4271 section 8.1.4): a neighbour that restarted opened a new one, and the old one ends.
const EVENT_CONNECTION_CONFIRMED: u16 = 17;

/// All stations.
#[derive(Default)]
pub(super) struct Stations {
    /// `None` only once the speaker stops.
    handle: Option<Handle>,
    by_key: BTreeMap<StationKey, Station>,
    next_key: StationKey,
}

/// A station as the owner knows it.
struct Station {
    address: SocketAddr,
    settings: StationSettings,
    stop: oneshot::Sender<u16>,
    task: JoinHandle<()>,
    status: watch::Receiver<StationStatus>,
    /// While it is connected.
    hearing: Option<Hearing>,
}

/// What a station that is connected knows.
struct Hearing {
    monitor: MonitorId,
    /// Sessions that it was told of, each with its number.
    sessions: BTreeMap<PeerKey, u64>,
    /// Why those that are gone are gone.
    downs: BTreeMap<PeerKey, DownReason>,
    /// There may be other sessions than it knows.
    is_behind: bool,
    /// It waits for more.
    waiting: Option<oneshot::Sender<Page>>,
}

impl Stations {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle: Some(handle), ..Self::default() }
    }

    fn hearings(&mut self) -> impl Iterator<Item = &mut Hearing> {
        self.by_key.values_mut().filter_map(|station| station.hearing.as_mut())
    }

    /// Some session is there.
    pub(super) fn session_up(&mut self) {
        self.hearings().for_each(|hearing| hearing.is_behind = true);
    }

    /// A session is gone.
    pub(super) fn session_down(&mut self, key: PeerKey, down: &Down) {
        self.note_down(key, &down_reason(down));
    }

    /// A neighbour is no longer configured, or not as it was, and its task says this to it.
    pub(super) fn session_removed(&mut self, key: PeerKey, reason: &StopReason, last: Option<&Negotiated>) {
        let graceful = last.and_then(|negotiated| negotiated.graceful.as_ref());
        let said = reason.said(graceful.is_some_and(|graceful| graceful.notification));
        self.note_down(key, &DownReason::LocalNotification(said));
    }

    fn note_down(&mut self, key: PeerKey, reason: &DownReason) {
        for hearing in self.hearings().filter(|hearing| hearing.sessions.contains_key(&key)) {
            hearing.downs.insert(key, reason.clone());
            hearing.is_behind = true;
        }
    }

    pub(super) fn views(&self) -> Vec<StationView> {
        let views = self.by_key.values().map(|station| StationView {
            address: station.address,
            settings: station.settings.clone(),
            status: station.status.borrow().clone(),
        });
        let mut views: Vec<_> = views.collect();
        views.sort_by_key(|view| view.address);
        views
    }

    /// Says goodbye to all. What is returned ends when it is said.
    pub(super) fn stop(self) -> impl Future<Output = ()> {
        let tasks = self.by_key.into_values().map(|station| {
            // One whose task has ended needs no word.
            let _ = station.stop.send(termination::CLOSED);
            station.task
        });
        let ended = join_all(tasks.collect::<Vec<_>>());
        async move { drop(ended.await) }
    }
}

impl Owner {
    /// Has a task for each station that is configured, and none for others.
    pub(super) fn follow_stations(&mut self) {
        let Some(handle) = self.stations.handle.clone() else { return };
        let wanted = &self.config.stations;
        let is_gone = |station: &Station| wanted.get(&station.address) != Some(&station.settings);
        for (_, station) in self.stations.by_key.extract_if(.., |_, station| is_gone(station)) {
            if let Some(hearing) = station.hearing {
                self.router.remove_monitor(hearing.monitor);
            }
            let _ = station.stop.send(termination::CLOSED_FOR_GOOD);
        }
        let known: Vec<_> = self.stations.by_key.values().map(|station| station.address).collect();
        for (address, settings) in wanted.iter().filter(|(address, _)| !known.contains(address)) {
            let key = self.stations.next_key;
            self.stations.next_key += 1;
            let (stop, stopped) = oneshot::channel();
            let (publish, status) = watch::channel(StationStatus::default());
            let setup = StationSetup {
                key,
                address: *address,
                settings: settings.clone(),
                speaker: handle.clone(),
                stop: stopped,
                status: publish,
            };
            let task = tokio::spawn(bmp::run(setup));
            let station =
                Station { address: *address, settings: settings.clone(), stop, task, status, hearing: None };
            self.stations.by_key.insert(key, station);
        }
    }

    /// Answers a station's task. One that is not configured any longer gets no answer, and ends.
    pub(super) fn station_request(&mut self, key: StationKey, request: StationRequest) {
        let Some(station) = self.stations.by_key.get_mut(&key) else { return };
        match request {
            StationRequest::Begin(reply) => {
                let policy = station.settings.policy;
                if let Some(hearing) = station.hearing.take() {
                    self.router.remove_monitor(hearing.monitor);
                }
                let monitor = self.router.add_monitor();
                if policy.has_best() {
                    self.router.monitor(monitor, RibView::Best);
                }
                station.hearing = Some(Hearing {
                    monitor,
                    sessions: BTreeMap::new(),
                    downs: BTreeMap::new(),
                    is_behind: true,
                    waiting: None,
                });
                let global = &self.config.global;
                let greeting = Greeting {
                    asn: Asn(global.asn),
                    router_id: global.router_id.into(),
                    started_at: self.started_at,
                };
                let _ = reply.send(greeting);
            }
            StationRequest::Page(reply) => {
                if let Some(hearing) = &mut station.hearing {
                    hearing.waiting = Some(reply);
                }
            }
            StationRequest::Counts(reply) => drop(reply.send(self.station_counts(key))),
            StationRequest::End => {
                if let Some(hearing) = station.hearing.take() {
                    self.router.remove_monitor(hearing.monitor);
                }
            }
        }
    }

    /// Gives stations that wait what is next, if there is something.
    pub(super) fn tell_stations(&mut self) {
        let Self { stations, router, peers, by_id, .. } = self;
        for station in stations.by_key.values_mut() {
            let (policy, sent) = (station.settings.policy, station.settings.sent);
            let Some(hearing) = &mut station.hearing else { continue };
            if !hearing.is_behind && !router.has_news(hearing.monitor) {
                continue;
            }
            let Some(reply) = hearing.waiting.take() else { continue };
            let mut page = Page::default();
            if std::mem::take(&mut hearing.is_behind) {
                hearing.tell_sessions(peers, &mut page);
                let views = |id: PeerId| {
                    let views = [
                        policy.has_received().then_some(RibView::Received(id)),
                        policy.has_accepted().then_some(RibView::Accepted(id)),
                        sent.has_offered().then_some(RibView::Offered(id)),
                        sent.has_sent().then_some(RibView::Sent(id)),
                    ];
                    views.into_iter().flatten()
                };
                let ids = |key: &PeerKey| peers.get(key).map(|peer| peer.id);
                for view in page.downs.iter().filter_map(|(key, _)| ids(key)).flat_map(views) {
                    router.unmonitor(hearing.monitor, view);
                }
                for view in page.ups.iter().filter_map(|(key, _)| ids(key)).flat_map(views) {
                    router.monitor(hearing.monitor, view);
                }
            }
            let found =
                (0..LOOKS_MAX).map_while(|_| router.poll_news(hearing.monitor)).find(is_worth_telling);
            page.news = found.map(|news| (teller(&news, by_id), news));
            page.is_last = !router.has_news(hearing.monitor);
            // A task that ended meanwhile says so, or is gone with its station.
            let _ = reply.send(page);
        }
    }

    fn station_counts(&self, key: StationKey) -> Counts {
        let station = self.stations.by_key.get(&key);
        let sessions = station.and_then(|station| station.hearing.as_ref()).map(|hearing| &hearing.sessions);
        let known = sessions.into_iter().flatten().filter_map(|(key, _)| Some((*key, self.peers.get(key)?)));
        let peers = known.map(|(key, peer)| PeerCounts {
            key,
            received: self.family_counts(peer, false).iter().map(|one| (one.family, one.received)).collect(),
            treated_as_withdraw: peer.status.borrow().treated_as_withdraw,
        });
        let best = Family::ALL.map(|family| (family, u64::from(self.router.reachable(family))));
        Counts { peers: peers.collect(), best: best.to_vec() }
    }
}

impl Hearing {
    /// Sessions that are others than the station knows. One that ended and began anew has both told.
    fn tell_sessions(&mut self, peers: &BTreeMap<PeerKey, Peer>, page: &mut Page) {
        let epoch = |key: &PeerKey| peers.get(key).and_then(|peer| peer.epoch);
        let gone = self.sessions.extract_if(.., |key, told| epoch(key) != Some(*told));
        for (key, _) in gone {
            let reason = self.downs.remove(&key).unwrap_or(DownReason::RemoteSilent);
            page.downs.push((key, reason));
        }
        for (key, peer) in peers {
            let (Some(epoch), Some(negotiated), Some(established)) =
                (peer.epoch, &peer.last, &peer.established)
            else {
                continue;
            };
            if self.sessions.insert(*key, epoch).is_none() {
                let session =
                    PeerSession { negotiated: negotiated.clone(), established: established.clone() };
                page.ups.push((*key, session));
            }
        }
    }
}

fn is_worth_telling(news: &News) -> bool {
    !news.announced.is_empty() || !news.withdrawn.is_empty() || news.is_complete
}

/// Whose routes they are.
fn teller(news: &News, by_id: &BTreeMap<PeerId, PeerKey>) -> Option<PeerKey> {
    by_id.get(&news.view.peer()?).copied()
}

/// Why a session is gone, as a station is told (RFC 7854 section 4.9).
fn down_reason(down: &Down) -> DownReason {
    match (&down.cause, &down.notification) {
        (DownCause::Received(notification), _) => DownReason::RemoteNotification(notification.clone()),
        (DownCause::Sent(_) | DownCause::Stopped(_), Some(notification)) => {
            DownReason::LocalNotification(notification.clone())
        }
        (DownCause::Replaced, _) => DownReason::LocalEvent(EVENT_CONNECTION_CONFIRMED),
        _ => DownReason::RemoteSilent,
    }
}
