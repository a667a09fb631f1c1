//! Becomes what the file, or somebody through the API, says.

use super::{Owner, Peer, PeerKey};
use crate::{change::Change, config::Config, engine, handle::Refusal, listeners::Required, route_policy};
use isthmus_bgp::session::StopReason;
use std::sync::Arc;

impl Owner {
    /// Takes what the file changed since it was read before. Sessions whose settings are the same stay up.
    pub(super) fn reload(&mut self, file: Config) {
        if !engine::is_same_speaker(&self.config, &file) {
            tracing::error!(
                "configuration not taken: what is under [global] and [isthmus] only changes with a restart"
            );
            return;
        }
        let merged = self.config.merge(&self.file, file.clone());
        self.file = file;
        self.transform(merged, "configuration reloaded");
    }

    /// Makes a change, or leaves everything as it is.
    pub(super) fn change(&mut self, change: Change) -> Result<(), Refusal> {
        let mut config = self.config.clone();
        change.apply(&mut config)?;
        self.transform(config, "configuration changed through the API");
        Ok(())
    }

    fn transform(&mut self, config: Config, what: &str) {
        let stale: Vec<(PeerKey, StopReason)> =
            self.peers.iter().filter_map(|(key, peer)| Some((*key, replaced(peer, &config)?))).collect();
        let removed = stale.len();
        for (key, reason) in stale {
            self.remove_peer(key, reason);
        }
        let policy = config.policy.in_force() != self.config.policy.in_force();
        self.config = config;
        self.listeners.require(&Required::of(&self.config, &self.located));
        self.dumps.adopt(&self.config.mrt_dumps);
        self.policy = Arc::new(self.config.policy.clone());
        if policy {
            self.policies = route_policy::compile(&self.config.policy);
            for peer in self.peers.values() {
                self.router.change_peer(peer.id, engine::peer(&peer.settings, &self.policies));
            }
        }
        let kept = self.peers.len();
        for (address, settings) in self.config.neighbors.clone() {
            if !self.by_address.contains_key(&address) {
                self.add_peer(address, Arc::new(settings), false);
            }
        }
        self.follow_stations();
        let added = self.peers.len() - kept;
        tracing::info!(kept, added, removed, policy, "{what}");
    }
}

/// Why a neighbour does not outlive a change; `None` if it does.
fn replaced(peer: &Peer, config: &Config) -> Option<StopReason> {
    let own = config.neighbors.get(&peer.address);
    let settings = match own {
        // It has a place of its own now.
        Some(_) if peer.is_dynamic => return Some(StopReason::ConfigChanged),
        None if peer.is_dynamic => {
            let range = config.dynamic_neighbors.iter().find(|range| range.prefix.contains(&peer.address));
            range.map(|range| &range.settings)
        }
        own => own,
    };
    match settings {
        None => Some(StopReason::Deconfigured),
        Some(settings) if *settings != *peer.settings => Some(StopReason::ConfigChanged),
        Some(_) => None,
    }
}
