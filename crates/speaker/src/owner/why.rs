//! Why a path is the best, is not, or cannot be used, and who is told.

use super::Owner;
use crate::{
    handle::Refusal,
    view::{AnnouncementView, Lookup, PathReason, PathVerdict, Table, WhyView},
};
use isthmus_bgp::{
    Attributes, Family, Prefix,
    rib::{self, Exclusion, Staleness, Step, Withheld},
};
use std::net::IpAddr;

impl Owner {
    /// Explains one destination; with `neighbor` only what is from it, or goes to it.
    pub(super) fn why(&self, lookup: Lookup, neighbor: Option<IpAddr>) -> Result<WhyView, Refusal> {
        if let Some(address) = neighbor {
            self.peer(address)?;
        }
        let prefix = self.meant(lookup)?;
        let destination = self.router.lookup(&prefix);
        let paths = destination.as_ref().map(|one| one.paths.as_slice()).unwrap_or_default();
        let best = paths.iter().find(|path| path.best);
        let reasons = paths.iter().map(|path| self.reason(prefix, path, best));
        let is_meant = |reason: &PathReason| {
            neighbor.is_none() || reason.path.source.map(|source| source.address) == neighbor
        };
        let peers =
            self.by_address.iter().filter(|(address, _)| neighbor.is_none_or(|wanted| wanted == **address));
        let announcements = peers.filter_map(|(address, key)| {
            let peer = self.peers.get(key)?;
            let withheld = self.router.announced(&prefix, peer.id).err();
            let mut why = withheld.as_ref().map(ToString::to_string).unwrap_or_default();
            let status = peer.status.borrow();
            if withheld == Some(Withheld::NoSession) && !status.why.is_empty() {
                why = format!("{why}: {}", status.why);
            }
            let reason = withheld.as_ref().map(withheld_word).unwrap_or_default();
            Some(AnnouncementView { neighbor: *address, announced: withheld.is_none(), reason, why })
        });
        Ok(WhyView {
            prefix,
            paths: reasons.filter(is_meant).collect(),
            announcements: announcements.collect(),
        })
    }

    fn meant(&self, lookup: Lookup) -> Result<Prefix, Refusal> {
        match lookup {
            Lookup::Exact(prefix) | Lookup::Longer(prefix) | Lookup::Shorter(prefix) => Ok(prefix),
            Lookup::Covering(address) => {
                let found = self.prefixes(Table::Global, Family::of(address), &[lookup])?;
                let whole = Prefix::new(address, Family::of(address).bits());
                found.into_iter().next().or(whole).ok_or(Refusal::Stopping)
            }
        }
    }

    fn reason(
        &self,
        prefix: Prefix,
        path: &rib::PathView<'_>,
        best: Option<&rib::PathView<'_>>,
    ) -> PathReason {
        let (verdict, reason, mut why) = match (path.exclusion, path.best, path.used, path.worse_by) {
            (Some(exclusion), ..) => {
                let (reason, why) = self.excluded(prefix, path, exclusion);
                (PathVerdict::Excluded, reason, why)
            }
            (None, true, ..) => (PathVerdict::Best, "best", "it is the best".to_owned()),
            (None, _, true, _) => {
                (PathVerdict::Used, "multipath", "as good as the best, and used with it".to_owned())
            }
            (None, _, _, Some(step)) => {
                let values =
                    best.map(|best| values(step, best.attributes, path.attributes)).unwrap_or_default();
                (
                    PathVerdict::Worse,
                    step_word(step),
                    format!("the best has what counts first: {step}{values}"),
                )
            }
            (None, ..) => (PathVerdict::Worse, "waiting", "no path is chosen yet".to_owned()),
        };
        if path.staleness != Staleness::Fresh {
            why.push_str("; stale: its neighbour is away, and it is kept meanwhile");
        }
        PathReason { path: self.path_view(prefix, path), verdict, reason, why }
    }

    fn excluded(
        &self,
        prefix: Prefix,
        path: &rib::PathView<'_>,
        exclusion: Exclusion,
    ) -> (&'static str, String) {
        match exclusion {
            Exclusion::OwnAs => {
                ("own-as", format!("our own AS is in its path ({}): a loop", path.received.as_path))
            }
            Exclusion::OwnOriginator => {
                ("own-originator", "we announced it first: ORIGINATOR_ID is our router id".to_owned())
            }
            Exclusion::OwnCluster => {
                let clusters: Vec<String> =
                    path.received.cluster_list.iter().map(ToString::to_string).collect();
                (
                    "own-cluster",
                    format!("it went through our cluster (CLUSTER_LIST {}): a loop", clusters.join(" ")),
                )
            }
            Exclusion::Unresolved => {
                let next_hop = path.attributes.next_hop.map(|next_hop| next_hop.address().to_string());
                let next_hop = next_hop.unwrap_or_default();
                (
                    "unresolved",
                    format!("the kernel has no route to its next hop {next_hop}, other than from BGP"),
                )
            }
            Exclusion::Policy => {
                let part =
                    path.source.and_then(|id| self.router.import_decided_by(&prefix, id, path.received));
                let part = part.map(|part| format!(": {part}")).unwrap_or_default();
                ("import-policy", format!("import policy rejects it{part}"))
            }
        }
    }
}

/// What the best and another path have at a step, where that is a number.
fn values(step: Step, best: &Attributes, other: &Attributes) -> String {
    let numbers = match step {
        Step::LocalPref => (best.preference().to_string(), other.preference().to_string()),
        Step::PathLength => (best.as_path.length().to_string(), other.as_path.length().to_string()),
        Step::Origin => (format!("{:?}", best.origin), format!("{:?}", other.origin)),
        Step::Med => (best.med.unwrap_or(0).to_string(), other.med.unwrap_or(0).to_string()),
        Step::ClusterList => (best.cluster_list.len().to_string(), other.cluster_list.len().to_string()),
        _ => return String::new(),
    };
    format!(" ({} over {})", numbers.0.to_lowercase(), numbers.1.to_lowercase())
}

fn step_word(step: Step) -> &'static str {
    match step {
        Step::Staleness => "stale",
        Step::LocalPref => "local-pref",
        Step::LocalOrigin => "local-origin",
        Step::PathLength => "as-path-length",
        Step::Origin => "origin",
        Step::Med => "med",
        Step::External => "external",
        Step::Age => "age",
        Step::RouterId => "router-id",
        Step::ClusterList => "cluster-list",
        Step::PeerAddress => "neighbor-address",
        Step::PathId => "path-id",
    }
}

fn withheld_word(withheld: &Withheld) -> &'static str {
    match withheld {
        Withheld::NoPath => "no-path",
        Withheld::NoSession => "no-session",
        Withheld::Family => "family",
        Withheld::Deferred => "restarting",
        Withheld::SplitHorizon => "split-horizon",
        Withheld::NoAdvertise => "no-advertise",
        Withheld::NoExport => "no-export",
        Withheld::LongLivedStale => "long-lived-stale",
        Withheld::NotClient => "not-client",
        Withheld::ClientsMeshed => "clients-meshed",
        Withheld::Policy(_) => "export-policy",
        Withheld::NoNextHop => "no-next-hop",
    }
}
