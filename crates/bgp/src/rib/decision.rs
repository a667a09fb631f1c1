//! Which path is the best (RFC 4271 section 9.1, RFC 4456 section 9).
//!
//! MED only counts between paths through the same neighbour AS, so that it puts paths in no order. The result does
//! not depend on who came first all the same: the best of each neighbour AS is found with MED, and the best of those
//! without.

use super::table::{Path, Staleness};
use crate::number::Asn;
use std::{cmp::Ordering, fmt, net::IpAddr};

/// What makes a path better than another, in the order in which it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Its peer is there, that of the other has been away for long (RFC 9494).
    Staleness,
    /// Higher `LOCAL_PREF`.
    LocalPref,
    /// It is our own.
    LocalOrigin,
    /// Shorter `AS_PATH`.
    PathLength,
    /// Lower ORIGIN.
    Origin,
    /// Lower MED through the same AS.
    Med,
    /// From another AS rather than from inside.
    External,
    /// Older, both from other ASes.
    Age,
    /// Lower router id or `ORIGINATOR_ID`.
    RouterId,
    /// Shorter `CLUSTER_LIST`.
    ClusterList,
    /// Lower address of the peer.
    PeerAddress,
    /// Lower path id.
    PathId,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Staleness => "the peer of the other is away",
            Self::LocalPref => "higher local preference",
            Self::LocalOrigin => "our own",
            Self::PathLength => "shorter AS path",
            Self::Origin => "lower origin",
            Self::Med => "lower MED",
            Self::External => "from another AS",
            Self::Age => "older",
            Self::RouterId => "lower router id",
            Self::ClusterList => "shorter cluster list",
            Self::PeerAddress => "lower address of the peer",
            Self::PathId => "lower path id",
        })
    }
}

/// How paths are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecisionConfig {
    /// MED counts between any two paths.
    pub always_compare_med: bool,
    /// The length of the path does not count.
    pub ignore_as_path_length: bool,
    /// Between paths from other ASes the router id counts, not which is older.
    pub external_compare_router_id: bool,
    /// Most paths from other ASes that are used at once; at least 1.
    pub ebgp_paths_max: u8,
    /// Most paths from inside that are used at once; at least 1.
    pub ibgp_paths_max: u8,
}

impl Default for DecisionConfig {
    fn default() -> Self {
        Self {
            always_compare_med: false,
            ignore_as_path_length: false,
            external_compare_router_id: true,
            ebgp_paths_max: 1,
            ibgp_paths_max: 1,
        }
    }
}

/// What is known about who told us of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Teller {
    pub(super) external: bool,
    pub(super) local: bool,
    pub(super) router_id: u32,
    /// `None` for ourselves.
    pub(super) address: Option<IpAddr>,
}

/// A path with all that counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contender<'a> {
    pub(super) path: &'a Path,
    pub(super) teller: Teller,
}

impl Contender<'_> {
    /// The AS whose MED it is; `None` is ours.
    fn neighbor_as(&self) -> Option<Asn> {
        self.path.attributes.as_path.first()
    }

    fn router_id(&self) -> u32 {
        self.path.attributes.originator_id.map_or(self.teller.router_id, |id| id.0)
    }

    fn med(&self) -> u32 {
        self.path.attributes.med.unwrap_or(0)
    }
}

/// Compares two paths; `Less` is better. `None` for paths that do not differ.
pub(super) fn compare(
    a: &Contender<'_>,
    b: &Contender<'_>,
    with_med: bool,
    config: DecisionConfig,
) -> Option<(Ordering, Step)> {
    preference(a, b, with_med, config).or_else(|| tie_break(a, b, config))
}

/// The steps that make a path better: RFC 4271 section 9.1.2.2 up to d, and `LOCAL_PREF`.
fn preference(
    a: &Contender<'_>,
    b: &Contender<'_>,
    with_med: bool,
    config: DecisionConfig,
) -> Option<(Ordering, Step)> {
    let (left, right) = (&a.path.attributes, &b.path.attributes);
    let long = |contender: &Contender<'_>| contender.path.staleness == Staleness::LongLived;
    differ(long(a).cmp(&long(b)), Step::Staleness)
        .or_else(|| differ(right.preference().cmp(&left.preference()), Step::LocalPref))
        .or_else(|| differ(b.teller.local.cmp(&a.teller.local), Step::LocalOrigin))
        .or_else(|| {
            let length = || left.as_path.length().cmp(&right.as_path.length());
            differ(if config.ignore_as_path_length { Ordering::Equal } else { length() }, Step::PathLength)
        })
        .or_else(|| differ(left.origin.cmp(&right.origin), Step::Origin))
        .or_else(|| {
            let counts = with_med && (config.always_compare_med || a.neighbor_as() == b.neighbor_as());
            differ(if counts { a.med().cmp(&b.med()) } else { Ordering::Equal }, Step::Med)
        })
        .or_else(|| differ(b.teller.external.cmp(&a.teller.external), Step::External))
}

/// The steps that only settle which of two equals it is.
fn tie_break(a: &Contender<'_>, b: &Contender<'_>, config: DecisionConfig) -> Option<(Ordering, Step)> {
    let by_age = !config.external_compare_router_id && a.teller.external && b.teller.external;
    let clusters = |contender: &Contender<'_>| contender.path.attributes.cluster_list.len();
    differ(if by_age { a.path.since.cmp(&b.path.since) } else { Ordering::Equal }, Step::Age)
        .or_else(|| differ(a.router_id().cmp(&b.router_id()), Step::RouterId))
        .or_else(|| differ(clusters(a).cmp(&clusters(b)), Step::ClusterList))
        .or_else(|| differ(a.teller.address.cmp(&b.teller.address), Step::PeerAddress))
        .or_else(|| differ(a.path.path_id.cmp(&b.path.path_id), Step::PathId))
}

fn differ(ordering: Ordering, step: Step) -> Option<(Ordering, Step)> {
    ordering.is_ne().then_some((ordering, step))
}

/// Puts the best path first, those that are used with it behind, then the other usable ones, then the rest. Says how
/// many are used.
pub(super) fn select(paths: &mut [Path], teller: impl Fn(&Path) -> Teller, config: DecisionConfig) -> u8 {
    if let [path] = paths {
        return u8::from(path.exclusion.is_none());
    }
    paths.sort_by_key(|path| path.exclusion.is_some());
    let usable = paths.partition_point(|path| path.exclusion.is_none());
    if usable < 2 {
        return usable as u8;
    }
    let contenders: Vec<_> =
        paths[..usable].iter().map(|path| Contender { path, teller: teller(path) }).collect();
    let order = |a: &Contender<'_>, b: &Contender<'_>, with_med: bool| {
        compare(a, b, with_med, config).map_or(Ordering::Equal, |(ordering, _)| ordering)
    };
    let best = winner(&contenders, order, config);
    let mut places: Vec<_> = (0..usable).collect();
    let as_good =
        |n: usize| n == best || preference(&contenders[n], &contenders[best], true, config).is_none();
    places.sort_by(|&a, &b| {
        let rank = |n: usize| (n != best, !as_good(n));
        rank(a).cmp(&rank(b)).then_with(|| order(&contenders[a], &contenders[b], false))
    });
    let max = if contenders[best].teller.external { config.ebgp_paths_max } else { config.ibgp_paths_max };
    let equal = places.iter().take_while(|n| as_good(**n)).count().min(usize::from(max.max(1)));
    let mut sorted: Vec<_> = places.iter().map(|n| paths[*n].clone()).collect();
    paths[..usable].swap_with_slice(&mut sorted);
    equal as u8
}

/// The best of the best of each neighbour AS.
fn winner(
    contenders: &[Contender<'_>],
    order: impl Fn(&Contender<'_>, &Contender<'_>, bool) -> Ordering,
    config: DecisionConfig,
) -> usize {
    let mut bests: Vec<(Option<Asn>, usize)> = Vec::new();
    for (n, contender) in contenders.iter().enumerate() {
        let group = if config.always_compare_med { None } else { contender.neighbor_as() };
        match bests.iter_mut().find(|(other, _)| *other == group) {
            Some((_, best)) if order(contender, &contenders[*best], true).is_lt() => *best = n,
            Some(_) => {}
            None => bests.push((group, n)),
        }
    }
    let best = bests
        .into_iter()
        .map(|(_, n)| n)
        .reduce(|best, n| if order(&contenders[n], &contenders[best], false).is_lt() { n } else { best });
    best.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{PeerId, table::Source},
        *,
    };
    use crate::{
        attributes::{AsPath, Attributes, Origin},
        number::RouterId,
        prefix::PathId,
    };
    use proptest::{collection::vec, option, prelude::*};
    use std::sync::Arc;

    /// A path and its teller, whose number is the source.
    type Told = (Path, Teller);

    prop_compose! {
        fn told()(
            local_pref in option::of(99..102_u32),
            asns in vec(1..3_u32, 0..3),
            origin in prop::sample::select(vec![Origin::Igp, Origin::Incomplete]),
            med in option::of(0..3_u32),
            external: bool,
            router_id in 1..4_u32,
            originator in option::of(1..4_u32),
            clusters in 0..2_usize,
            since in 0..3_u32,
            long_lived in prop::bool::weighted(0.1),
        ) -> Told {
            let attributes = Attributes {
                local_pref,
                as_path: AsPath::sequence(asns.into_iter().map(Asn)),
                origin,
                med,
                originator_id: originator.map(RouterId),
                cluster_list: vec![RouterId(9); clusters].into(),
                ..Attributes::default()
            };
            let path = Path {
                attributes: Arc::new(attributes),
                original: None,
                source: Source::LOCAL,
                path_id: PathId(0),
                since,
                local_id: 1,
                exclusion: None,
                staleness: if long_lived { Staleness::LongLived } else { Staleness::Fresh },
            };
            (path, Teller { external, local: false, router_id, address: None })
        }
    }

    /// Each has a source and an address of its own.
    fn numbered(told: Vec<Told>) -> Vec<Told> {
        told.into_iter()
            .zip(0_u32..)
            .map(|((path, teller), n)| {
                let address = Some(IpAddr::from([10, 0, 0, n as u8]));
                (Path { source: PeerId(n).into(), ..path }, Teller { address, ..teller })
            })
            .collect()
    }

    fn keep_least<K: Ord>(left: &mut Vec<&Told>, key: impl Fn(&Told) -> K) {
        let least = left.iter().map(|told| key(told)).min();
        left.retain(|told| Some(key(told)) == least);
    }

    /// RFC 4271 section 9.1.2.2 as it is written: step by step, what is worse than another goes.
    fn naive(told: &[Told], config: DecisionConfig) -> Source {
        let mut left: Vec<&Told> = told.iter().collect();
        keep_least(&mut left, |(path, _)| path.staleness == Staleness::LongLived);
        keep_least(&mut left, |(path, _)| u32::MAX - path.attributes.preference());
        if !config.ignore_as_path_length {
            keep_least(&mut left, |(path, _)| path.attributes.as_path.length());
        }
        keep_least(&mut left, |(path, _)| path.attributes.origin);
        let before = left.clone();
        left.retain(|(path, _)| {
            let comparable = |other: &Path| {
                config.always_compare_med
                    || other.attributes.as_path.first() == path.attributes.as_path.first()
            };
            let med = |path: &Path| path.attributes.med.unwrap_or(0);
            !before.iter().any(|(other, _)| comparable(other) && med(other) < med(path))
        });
        keep_least(&mut left, |(_, teller)| !teller.external);
        if !config.external_compare_router_id && left[0].1.external {
            keep_least(&mut left, |(path, _)| path.since);
        }
        keep_least(&mut left, |(path, teller)| {
            path.attributes.originator_id.map_or(teller.router_id, |id| id.0)
        });
        keep_least(&mut left, |(path, _)| path.attributes.cluster_list.len());
        keep_least(&mut left, |(_, teller)| teller.address);
        left[0].0.source
    }

    proptest! {
        #[test]
        fn the_best_is_that_of_the_rfc_in_any_order(
            told in vec(told(), 1..7),
            shuffle in any::<prop::sample::Index>(),
            always_compare_med: bool,
            ignore_as_path_length: bool,
            external_compare_router_id: bool,
        ) {
            let told = numbered(told);
            let config = DecisionConfig {
                always_compare_med, ignore_as_path_length, external_compare_router_id, ..DecisionConfig::default()
            };
            let mut paths: Vec<_> = told.iter().map(|(path, _)| path.clone()).collect();
            paths.rotate_left(shuffle.index(told.len()));
            let teller = |path: &Path| told.iter().find(|(other, _)| other.source == path.source).unwrap().1;
            prop_assert_eq!(select(&mut paths, teller, config), 1);
            prop_assert_eq!(paths[0].source, naive(&told, config));
            prop_assert_eq!(paths.len(), told.len());
        }

        #[test]
        fn paths_used_together_are_as_good(told in vec(told(), 1..7), max in 1..5_u8) {
            let told = numbered(told);
            let config = DecisionConfig { ebgp_paths_max: max, ibgp_paths_max: max, ..DecisionConfig::default() };
            let mut paths: Vec<_> = told.iter().map(|(path, _)| path.clone()).collect();
            let teller = |path: &Path| told.iter().find(|(other, _)| other.source == path.source).unwrap().1;
            let used = select(&mut paths, teller, config);
            prop_assert!(used >= 1 && used <= max);
            prop_assert_eq!(paths[0].source, naive(&told, config));
            for path in &paths[..usize::from(used)] {
                let best = &paths[0];
                prop_assert_eq!(path.attributes.preference(), best.attributes.preference());
                prop_assert_eq!(path.attributes.as_path.length(), best.attributes.as_path.length());
                prop_assert_eq!(teller(path).external, teller(best).external);
            }
        }
    }
}
