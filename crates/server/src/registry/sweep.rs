//! What the server tidies from time to time: apps that nobody has run for long, and numbers that every node has forgotten.

use super::{CommitError, Registry, identities::today, unix_now};
use crate::kinds::{self, Retired, StoredIdentity};
use isthmus_core::{Identity, Platform};
use isthmus_store::{Compare, Operation, Txn};
use std::collections::{BTreeSet, HashSet};
use uuid::Uuid;

/// Days after which an app that has no endpoint and no policy is forgotten.
///
/// An agent may keep what it was told of an app while it cannot reach the server; a month is longer than any outage that
/// ends with the same containers.
const IDLE_DAYS: u64 = 30;
/// Shortest time from the end of a number to its next use, in seconds: longer than any connection is tracked.
const REST_S: u64 = 86_400;
/// Things changed in one sweep, so that it stays short.
const SWEEP_MAX: usize = 1_000;
/// Identities changed in one transaction.
const CHUNK: usize = 250;

impl Registry {
    /// Forgets apps that nobody has run for [`IDLE_DAYS`], except those whose identity a node has in `scopes`.
    pub(crate) async fn sweep_workloads(&self, scopes: &HashSet<Identity>) -> Result<usize, CommitError> {
        let idle: Vec<Uuid> = {
            let view = self.fresh_view().await?;
            let old = |day: u64| day + IDLE_DAYS < today();
            view.workloads
                .iter()
                // What a Cloud Foundry policy names stays; so does what has an endpoint.
                .filter(|(uuid, held)| {
                    old(held.value.used_day)
                        && !view.is_external(&held.value.cluster)
                        && view.endpoint_count(**uuid) == 0
                        && view.policies_of(**uuid).next().is_none()
                        && !view.identities_of(**uuid).any(|identity| scopes.contains(&identity))
                })
                .map(|(uuid, _)| *uuid)
                .take(SWEEP_MAX)
                .collect()
        };
        for workload in &idle {
            self.delete_workload(*workload).await?;
        }
        Ok(idle.len())
    }

    /// Takes `up_to_date` nodes, and nodes that are gone, from the numbers that wait for them; a number that waits for
    /// nobody any more and has rested for [`REST_S`] is free.
    pub(crate) async fn sweep_identities(&self, up_to_date: &BTreeSet<String>) -> Result<usize, CommitError> {
        let changes: Vec<(Identity, u64, Option<StoredIdentity>)> = {
            let view = self.fresh_view().await?;
            let exists = |node: &String| view.nodes.contains_key(node);
            view.identities
                .iter()
                .filter_map(|(identity, held)| {
                    let next =
                        rested(&held.value, unix_now(), |node| exists(node) && !up_to_date.contains(node))?;
                    Some((*identity, held.revision, next))
                })
                .take(SWEEP_MAX)
                .collect()
        };
        for chunk in changes.chunks(CHUNK) {
            let mut txn = Txn::new();
            for (identity, revision, next) in chunk {
                let key = kinds::identity_key(*identity);
                let operation = match next {
                    Some(next) => Operation::put(&key, kinds::encode(next)),
                    None => Operation::delete(&key),
                };
                txn = txn.when(Compare::unchanged(&key, *revision)).then(operation);
            }
            // Refused: one of them changed; the next sweep sees it.
            self.commit(txn).await?;
        }
        Ok(changes.len())
    }

    /// Numbers in use, in Cloud Foundry's range and above it.
    pub(crate) fn identities_in_use(&self) -> (u64, u64) {
        let view = self.view();
        let limit = Identity::new(Identity::TAG_LIMIT).unwrap_or(Identity::UNKNOWN);
        let low = view.identities.range(..limit).count() as u64;
        (low, view.identities.len() as u64 - low)
    }

    /// Clusters' platforms with the number of their apps, for metrics.
    pub(crate) fn workloads_by_platform(&self) -> Vec<(Platform, u64)> {
        let view = self.view();
        Platform::ALL
            .into_iter()
            .map(|platform| {
                let of =
                    view.workloads.values().filter(|held| view.platform(&held.value.cluster) == platform);
                (platform, of.count() as u64)
            })
            .collect()
    }
}

/// What becomes of a number that was given back: `None` to leave it, `Some(None)` to free it.
#[expect(clippy::option_option, reason = "three outcomes: leave, free, write")]
fn rested(
    held: &StoredIdentity,
    now: u64,
    waits_for: impl Fn(&String) -> bool,
) -> Option<Option<StoredIdentity>> {
    let retired = held.retired.as_ref()?;
    let nodes: BTreeSet<String> = retired.nodes.iter().filter(|node| waits_for(node)).cloned().collect();
    if nodes.is_empty() && retired.at_unix + REST_S <= now {
        return Some(None);
    }
    let next = Retired { at_unix: retired.at_unix, nodes };
    (next != *retired).then(|| Some(StoredIdentity { retired: Some(next), ..held.clone() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use isthmus_core::Labels;

    #[test]
    fn a_number_rests_until_each_node_has_forgotten_it_and_a_day_has_passed() {
        let nodes: BTreeSet<String> = ["a", "b"].into_iter().map(str::to_owned).collect();
        let held = StoredIdentity {
            workload: Uuid::nil(),
            labels: Labels::new(),
            retired: Some(Retired { at_unix: 1_000, nodes }),
        };
        let one_left = rested(&held, 1_000, |node| node == "b").unwrap().unwrap();
        assert_eq!(one_left.retired.as_ref().unwrap().nodes.len(), 1);
        assert_eq!(rested(&one_left, 1_000 + REST_S, |node| node == "b"), None);
        let none_left = rested(&one_left, 1_000, |_| false).unwrap().unwrap();
        assert_eq!(rested(&none_left, 999 + REST_S, |_| false), None);
        assert_eq!(rested(&none_left, 1_000 + REST_S, |_| false), Some(None));
        let live = StoredIdentity { retired: None, ..held };
        assert_eq!(rested(&live, u64::MAX, |_| false), None);
    }
}
