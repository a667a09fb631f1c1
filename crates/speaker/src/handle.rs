//! How others ask the one task that owns the routes: a request goes in, a copy comes back.

use crate::{
    KernelStatus,
    config::{DynamicNeighbor, RoutePolicy},
    view::{DestinationView, Event, GlobalView, Lookup, PeerView, Table, TableCounts},
};
use isthmus_bgp::{Attributes, Family, Prefix};
use std::{net::IpAddr, sync::Arc};
use tokio::sync::{mpsc, oneshot, watch};
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
    #[error("there is no neighbour {0}")]
    NoPeer(IpAddr),
    /// The path to take away is not there.
    #[error("there is no path of our own to {0}")]
    NoPath(Prefix),
    /// No path has this name.
    #[error("there is no path with the name {0}")]
    NoName(Uuid),
    /// The session must be up for that.
    #[error("the session with {0} is not established")]
    NotEstablished(IpAddr),
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
    /// That to this prefix.
    Prefix(Prefix),
    /// That with this name.
    Name(Uuid),
    /// All of a family.
    All(Family),
}

/// What is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Sessions.
    pub peers: bool,
    /// Best paths.
    pub best: bool,
}

/// A request with the place for its answer.
pub(crate) enum Request {
    Global(oneshot::Sender<GlobalView>),
    Policy(oneshot::Sender<Arc<RoutePolicy>>),
    Ranges(oneshot::Sender<Vec<DynamicNeighbor>>),
    Peers(Option<IpAddr>, bool, oneshot::Sender<Result<Vec<PeerView>, Refusal>>),
    Prefixes(Table, Family, Vec<Lookup>, oneshot::Sender<Result<Vec<Prefix>, Refusal>>),
    Paths(Table, Vec<Prefix>, oneshot::Sender<Result<Vec<DestinationView>, Refusal>>),
    Counts(Table, Family, oneshot::Sender<Result<TableCounts, Refusal>>),
    Announce(Prefix, Box<Attributes>, oneshot::Sender<Uuid>),
    Withdraw(Withdrawal, oneshot::Sender<Result<(), Refusal>>),
    Admin(Option<IpAddr>, AdminAction, oneshot::Sender<Result<(), Refusal>>),
    Watch(Watch, oneshot::Sender<mpsc::Receiver<Event>>),
}

/// Asks the speaker. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    kernel: Option<watch::Receiver<KernelStatus>>,
}

impl Handle {
    pub(crate) fn new(
        requests: mpsc::Sender<Request>,
        kernel: Option<watch::Receiver<KernelStatus>>,
    ) -> Self {
        Self { requests, kernel }
    }

    /// How the kernel's routes are, where the speaker keeps some.
    pub fn kernel(&self) -> Option<KernelStatus> {
        self.kernel.as_ref().map(|status| status.borrow().clone())
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

    /// Adds a path of our own, or changes it. Returns its name.
    pub async fn announce(&self, prefix: Prefix, attributes: Attributes) -> Result<Uuid, Refusal> {
        self.ask(|reply| Request::Announce(prefix, Box::new(attributes), reply)).await
    }

    /// Takes paths of our own away.
    pub async fn withdraw(&self, what: Withdrawal) -> Result<(), Refusal> {
        self.ask(|reply| Request::Withdraw(what, reply)).await?
    }

    /// Does something to a session, or to all.
    pub async fn admin(&self, address: Option<IpAddr>, action: AdminAction) -> Result<(), Refusal> {
        self.ask(|reply| Request::Admin(address, action, reply)).await?
    }

    /// Tells what happens from now on. The stream ends when it falls behind by [`EVENTS_MAX`].
    pub async fn watch(&self, watch: Watch) -> Result<mpsc::Receiver<Event>, Refusal> {
        self.ask(|reply| Request::Watch(watch, reply)).await
    }
}
