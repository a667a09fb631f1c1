//! How others ask the one task that owns the routes: a request goes in, a copy comes back.

use crate::{
    KernelRoute, KernelStatus,
    bmp::{StationKey, StationRequest},
    change::Change,
    config::{ChangeError, DynamicNeighbor, PeerSettings, RoutePolicy},
    interface,
    kernel::Asker,
    mrt::DumpStatus,
    view::{
        DestinationView, Event, GlobalView, Lookup, PeerView, RoutesPage, SourceView, StationView, Table,
        TableCounts, WhyView,
    },
};
use isthmus_bgp::{Attributes, Family, Nlri, Prefix};
use std::{net::IpAddr, sync::Arc};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

/// Requests that may wait for the owner; who asks when it is full waits.
pub(crate) const REQUESTS_MAX: usize = 64;
/// Prefixes in one answer: larger tables are asked for in parts, so that nobody stops the owner for long.
pub const PAGE_MAX: usize = 1_000;
/// Events that may wait for one watcher; one that falls behind further is dropped.
pub const EVENTS_MAX: usize = 1_024;

/// Why the speaker did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody has this address.
    #[error("there is no neighbour {}", interface::shown(*.0))]
    NoPeer(IpAddr),
    /// The path to take away is not there.
    #[error("there is no path of our own to {0}")]
    NoPath(Prefix),
    /// No path has this name.
    #[error("there is no path with the name {0}")]
    NoName(Uuid),
    /// The session must be up for that.
    #[error("the session with {} is not established", interface::shown(*.0))]
    NotEstablished(IpAddr),
    /// A change of the configuration that cannot be made.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The speaker has ended.
    #[error("the speaker is stopping")]
    Stopping,
}

/// What an administrator does to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAction {
    /// Lets it come up again.
    Enable,
    /// Ends it until it is enabled, with a text for the other side (RFC 9003).
    Disable(String),
    /// Ends it as for good, but it comes back by itself: what GoBGP calls a shutdown.
    Shutdown(String),
    /// Ends it; it comes back by itself.
    Reset(String),
    /// Applies policy to what the neighbour sent once more.
    SoftIn,
    /// Sends everything once more.
    SoftOut,
}

/// Which of our own paths are taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    /// That to this prefix, with this number.
    Path(Nlri),
    /// That with this name.
    Name(Uuid),
    /// All of a family.
    All(Family),
}

/// What is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is asked for by itself")]
pub struct Watch {
    /// Sessions.
    pub peers: bool,
    /// Best paths.
    pub best: bool,
    /// What neighbours send.
    pub adj_in: bool,
    /// What of that policy accepts, and as it leaves it.
    pub accepted: bool,
    /// That a neighbour has sent all of a family.
    pub end_of_rib: bool,
}

/// A request with the place for its answer.
pub(crate) enum Request {
    Why(Lookup, Option<IpAddr>, oneshot::Sender<Result<WhyView, Refusal>>),
    Change(Box<Change>, oneshot::Sender<Result<(), Refusal>>),
    Groups(oneshot::Sender<Vec<(String, PeerSettings)>>),
    Global(oneshot::Sender<GlobalView>),
    Policy(oneshot::Sender<Arc<RoutePolicy>>),
    Ranges(oneshot::Sender<Vec<DynamicNeighbor>>),
    Peers(Option<IpAddr>, bool, oneshot::Sender<Result<Vec<PeerView>, Refusal>>),
    Prefixes(Table, Family, Vec<Lookup>, oneshot::Sender<Result<Vec<Prefix>, Refusal>>),
    Paths(Table, Vec<Prefix>, oneshot::Sender<Result<Vec<DestinationView>, Refusal>>),
    Counts(Table, Family, oneshot::Sender<Result<TableCounts, Refusal>>),
    Announce(Nlri, Box<Attributes>, oneshot::Sender<Uuid>),
    Inject(Vec<(Nlri, Option<Attributes>)>, oneshot::Sender<()>),
    Page(u32, oneshot::Sender<RoutesPage>),
    Sources(oneshot::Sender<Vec<(IpAddr, SourceView)>>),
    MrtDumps(oneshot::Sender<Vec<DumpStatus>>),
    Withdraw(Withdrawal, oneshot::Sender<Result<(), Refusal>>),
    Admin(Option<IpAddr>, AdminAction, oneshot::Sender<Result<(), Refusal>>),
    Watch(Watch, oneshot::Sender<mpsc::Receiver<Event>>),
    Stations(oneshot::Sender<Vec<StationView>>),
    Station(StationKey, StationRequest),
}

/// Asks the speaker. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    kernel: Option<Asker>,
}

impl Handle {
    pub(crate) fn new(requests: mpsc::Sender<Request>, kernel: Option<Asker>) -> Self {
        Self { requests, kernel }
    }

    /// How the kernel's routes are, where the speaker keeps some.
    pub fn kernel(&self) -> Option<KernelStatus> {
        self.kernel.as_ref().map(Asker::status)
    }

    /// How the kernel's route to a prefix is; `None`: the speaker keeps none, or does not answer in time.
    pub async fn kernel_route(&self, prefix: Prefix) -> Option<KernelRoute> {
        self.kernel.as_ref()?.route(prefix).await
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_closed| Refusal::Stopping)?;
        answer.await.map_err(|_closed| Refusal::Stopping)
    }

    /// The speaker itself.
    pub async fn global(&self) -> Result<GlobalView, Refusal> {
        self.ask(Request::Global).await
    }

    /// Its route policy.
    pub async fn policy(&self) -> Result<Arc<RoutePolicy>, Refusal> {
        self.ask(Request::Policy).await
    }

    /// Ranges from which neighbours may come.
    pub async fn ranges(&self) -> Result<Vec<DynamicNeighbor>, Refusal> {
        self.ask(Request::Ranges).await
    }

    /// Groups of neighbours, with what their members have unless they say otherwise.
    pub async fn groups(&self) -> Result<Vec<(String, PeerSettings)>, Refusal> {
        self.ask(Request::Groups).await
    }

    /// Makes a change of what the speaker was told. It outlives a reload unless the file changes the same.
    pub async fn change(&self, change: Change) -> Result<(), Refusal> {
        self.ask(|reply| Request::Change(Box::new(change), reply)).await?
    }

    /// All neighbours by address, or one. Counting what each was sent takes a look at all routes.
    pub async fn peers(&self, address: Option<IpAddr>, advertised: bool) -> Result<Vec<PeerView>, Refusal> {
        self.ask(|reply| Request::Peers(address, advertised, reply)).await?
    }

    /// The prefixes of a table, or of it those that are looked up, in order.
    pub async fn prefixes(
        &self,
        table: Table,
        family: Family,
        lookups: Vec<Lookup>,
    ) -> Result<Vec<Prefix>, Refusal> {
        self.ask(|reply| Request::Prefixes(table, family, lookups, reply)).await?
    }

    /// The paths to these prefixes, which are in order. Ask for at most [`PAGE_MAX`] at once.
    pub async fn paths(&self, table: Table, prefixes: Vec<Prefix>) -> Result<Vec<DestinationView>, Refusal> {
        self.ask(|reply| Request::Paths(table, prefixes, reply)).await?
    }

    /// How many routes a table has.
    pub async fn counts(&self, table: Table, family: Family) -> Result<TableCounts, Refusal> {
        self.ask(|reply| Request::Counts(table, family, reply)).await?
    }

    /// Why the routes to a prefix are as they are; with `neighbor` only what is from it, or goes to it.
    pub async fn why(&self, lookup: Lookup, neighbor: Option<IpAddr>) -> Result<WhyView, Refusal> {
        self.ask(|reply| Request::Why(lookup, neighbor, reply)).await?
    }

    /// Adds a path of our own, or changes it. Returns its name.
    pub async fn announce(&self, nlri: impl Into<Nlri>, attributes: Attributes) -> Result<Uuid, Refusal> {
        let nlri = nlri.into();
        self.ask(|reply| Request::Announce(nlri, Box::new(attributes), reply)).await
    }

    /// Adds or changes several paths of our own, and takes away those without attributes; whether they were there or not.
    pub async fn inject(&self, paths: Vec<(Nlri, Option<Attributes>)>) -> Result<(), Refusal> {
        self.ask(|reply| Request::Inject(paths, reply)).await
    }

    /// Some of all routes, from a place on: 0 at first, then what the page before says. Whoever goes to the end meets each
    /// route that is there all the while, once. The owner looks at no more than [`PAGE_MAX`] destinations at once.
    pub async fn page(&self, place: u32) -> Result<RoutesPage, Refusal> {
        self.ask(|reply| Request::Page(place, reply)).await
    }

    /// All neighbours that have a session, or had one: what names each in paths, and who it is, with the address of the
    /// connection.
    pub async fn sources(&self) -> Result<Vec<(IpAddr, SourceView)>, Refusal> {
        self.ask(Request::Sources).await
    }

    /// How the MRT dumps are that it makes by itself.
    pub async fn mrt_dumps(&self) -> Result<Vec<DumpStatus>, Refusal> {
        self.ask(Request::MrtDumps).await
    }

    /// Takes paths of our own away.
    pub async fn withdraw(&self, what: Withdrawal) -> Result<(), Refusal> {
        self.ask(|reply| Request::Withdraw(what, reply)).await?
    }

    /// Does something to a session, or to all.
    pub async fn admin(&self, address: Option<IpAddr>, action: AdminAction) -> Result<(), Refusal> {
        self.ask(|reply| Request::Admin(address, action, reply)).await?
    }

    /// All monitoring stations by address.
    pub async fn stations(&self) -> Result<Vec<StationView>, Refusal> {
        self.ask(Request::Stations).await
    }

    /// What a monitoring station's task asks. It is refused when the station is no longer there.
    pub(crate) async fn station<T>(
        &self,
        key: StationKey,
        request: impl FnOnce(oneshot::Sender<T>) -> StationRequest,
    ) -> Result<T, Refusal> {
        self.ask(|reply| Request::Station(key, request(reply))).await
    }

    /// Says that a monitoring station is gone.
    pub(crate) async fn station_end(&self, key: StationKey) -> Result<(), Refusal> {
        let request = Request::Station(key, StationRequest::End);
        self.requests.send(request).await.map_err(|_closed| Refusal::Stopping)
    }

    /// Tells what happens from now on. The stream ends when it falls behind by [`EVENTS_MAX`].
    pub async fn watch(&self, watch: Watch) -> Result<mpsc::Receiver<Event>, Refusal> {
        self.ask(|reply| Request::Watch(watch, reply)).await
    }
}
