//! Which rules are loaded: those of the identities that live here, before their first container does.

use crate::{
    agent::{Agent, fail},
    desired,
    locks::{KeyLocks, lock},
};
use isthmus_api::{
    adapter::{Failure, FailureKind},
    stream::{self, from_agent},
};
use isthmus_core::Identity;
use isthmus_dataplane::model::Table;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long an attach waits for the rules of an identity that is new to the node.
const TABLE_PATIENCE: Duration = Duration::from_secs(2);
/// How long the rules of an identity stay after its last container left: the next is likely to come.
pub(crate) const SCOPE_GRACE: Duration = Duration::from_mins(1);

/// The loaded tables and the scope that the server was told.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    /// Loads of one table wait for each other.
    loading: KeyLocks,
    loaded: Mutex<BTreeSet<Identity>>,
    /// Identities that the server sends rules of; since when nobody of them lives here.
    scope: Mutex<BTreeMap<Identity, Option<Instant>>>,
}

impl Tables {
    /// The kernel has these tables since before this agent.
    pub(crate) fn adopt(&self, identities: impl IntoIterator<Item = Identity>) {
        let identities: Vec<_> = identities.into_iter().collect();
        lock(&self.loaded).extend(&identities);
        lock(&self.scope).extend(identities.into_iter().map(|identity| (identity, None)));
    }

    /// Identities whose rules the node needs.
    pub(crate) fn scope(&self) -> Vec<u32> {
        lock(&self.scope).keys().map(|identity| identity.number()).collect()
    }

    /// Identities whose tables are loaded.
    pub(crate) fn loaded(&self) -> BTreeSet<Identity> {
        lock(&self.loaded).clone()
    }

    /// Enters an identity into the scope; whether it is new there.
    fn enter(&self, identity: Identity) -> bool {
        lock(&self.scope).insert(identity, None).is_none()
    }
}

impl Agent {
    /// Sees to it that the rules towards `identity` are loaded. Call it when the attachment that needs them is in
    /// [`Agent::attachments`], so that nobody unloads them again.
    pub(crate) fn ensure_table(&self, identity: Identity, cluster: &str) -> Result<(), Failure> {
        let _loading = self.tables.loading.lock(&identity.to_string());
        let new = self.tables.enter(identity);
        if lock(&self.tables.loaded).contains(&identity) {
            return Ok(());
        }
        if new {
            self.tell_scope();
        }
        if !self.wait_for_table(identity) && self.link.is_up() {
            tracing::warn!(%identity, "the server sent no rules in time; the cluster's default is used until they come");
        }
        let table = self.desired_table(identity, cluster);
        let loaded = table.and_then(|table| self.kernel.set_table(&table).map_err(|error| error.to_string()));
        loaded.map_err(|why| {
            let message = format!("the rules towards {identity} cannot be loaded: {why}");
            fail(FailureKind::System, message, "see: isthmus status, and the agent's log")
        })?;
        lock(&self.tables.loaded).insert(identity);
        Ok(())
    }

    /// The rules that the server sent, or the cluster's default where it sent none.
    fn desired_table(&self, identity: Identity, cluster: &str) -> Result<Table, String> {
        let sent = self.view().table(identity);
        match sent {
            Some(sent) => desired::table(&sent),
            None => Ok(desired::default_table(&self.view(), identity, cluster)),
        }
    }

    fn wait_for_table(&self, identity: Identity) -> bool {
        let waiting = |view: &mut crate::view::View| self.link.is_up() && !view.has_table(identity);
        let waited = self.view_changed.wait_timeout_while(self.view(), TABLE_PATIENCE, waiting);
        waited.unwrap_or_else(PoisonError::into_inner).0.has_table(identity)
    }

    /// Loads the rules towards `identity` as the view has them, if they are loaded at all.
    pub(crate) fn reload_table(&self, identity: Identity) -> Result<(), String> {
        let _loading = self.tables.loading.lock(&identity.to_string());
        if !lock(&self.tables.loaded).contains(&identity) {
            return Ok(());
        }
        // A table that the server took back while somebody still lives here stays: it is safer than none.
        let Some(sent) = self.view().table(identity) else { return Ok(()) };
        let table = desired::table(&sent)?;
        self.kernel.set_table(&table).map_err(|error| error.to_string())
    }

    /// Tells the server whose rules the node needs.
    pub(crate) fn tell_scope(&self) {
        self.link.tell(from_agent::Body::Scope(stream::Scope { identities: self.tables.scope() }));
    }

    /// Unloads rules of identities whose last container left a while ago.
    pub(crate) fn unload_tables(&self, now: Instant) {
        let live = self.live_identities();
        let gone: Vec<Identity> = {
            let mut scope = lock(&self.tables.scope);
            for (identity, since) in scope.iter_mut() {
                *since = if live.contains(identity) { None } else { since.or(Some(now)) };
            }
            let over =
                |since: &Option<Instant>| since.is_some_and(|since| now.duration_since(since) >= SCOPE_GRACE);
            scope.iter().filter(|(_, since)| over(since)).map(|(identity, _)| *identity).collect()
        };
        let left = gone.into_iter().filter(|identity| self.unload_table(*identity)).count();
        if left > 0 {
            self.tell_scope();
        }
    }

    fn unload_table(&self, identity: Identity) -> bool {
        let _loading = self.tables.loading.lock(&identity.to_string());
        if self.live_identities().contains(&identity) {
            return false;
        }
        if let Err(error) = self.kernel.remove_table(identity) {
            tracing::warn!(%identity, %error, "the rules towards an identity that left cannot be unloaded");
            return false;
        }
        lock(&self.tables.loaded).remove(&identity);
        lock(&self.tables.scope).remove(&identity);
        true
    }
}
