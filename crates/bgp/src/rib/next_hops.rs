//! Which next hops lead anywhere, where that counts (RFC 4271 section 9.1.2.1).
//!
//! The router only knows what it was told: of each next hop that it meets it says once that it wants to know, and takes its
//! paths for usable until it does, so that after a restart nobody hears that this is all before the answer is there.
//! Link-local ones are on the link of who sent them, and always count.

use super::{
    Router, Source,
    table::{Exclusion, Path},
};
use crate::attributes::Attributes;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
};

/// Next hops that may be known beyond those that paths had when one last looked.
const UNUSED_MAX: usize = 1_024;

/// All next hops that were met.
#[derive(Debug, Default)]
pub(super) struct NextHops {
    known: BTreeMap<IpAddr, bool>,
    wanted: VecDeque<IpAddr>,
    /// How many were in use when one last looked.
    used: usize,
}

impl NextHops {
    /// Whether the next hop of a path leads nowhere, as far as is known.
    fn is_unresolved(&mut self, attributes: &Attributes) -> bool {
        let next_hop = attributes.next_hop.filter(|next_hop| !next_hop.is_link_local());
        let Some(address) = next_hop.map(|next_hop| next_hop.address()) else { return false };
        let leads = *self.known.entry(address).or_insert_with(|| {
            self.wanted.push_back(address);
            true
        });
        !leads
    }
}

impl Router {
    /// Why a path that policy accepted cannot be used all the same.
    pub(super) fn unresolved(&mut self, source: Source, attributes: &Attributes) -> Option<Exclusion> {
        let counts = self.config.resolve_next_hops && source.peer().is_some();
        (counts && self.next_hops.is_unresolved(attributes)).then_some(Exclusion::Unresolved)
    }

    /// A next hop of which one must say by [`Router::set_next_hops`] whether it leads anywhere, and whenever that changes.
    /// Ask until `None`.
    pub fn poll_next_hop(&mut self) -> Option<IpAddr> {
        self.next_hops.wanted.pop_front()
    }

    /// Says of next hops whether they lead anywhere, and gives back those that no path has any longer. Looks at all
    /// destinations if that is new of any.
    pub fn set_next_hops(&mut self, leads: impl IntoIterator<Item = (IpAddr, bool)>) -> Vec<IpAddr> {
        let known = &mut self.next_hops.known;
        let is_new = |(address, leads): &(IpAddr, bool)| {
            known.get_mut(address).is_some_and(|known| std::mem::replace(known, *leads) != *leads)
        };
        let changed: BTreeMap<IpAddr, bool> = leads.into_iter().filter(is_new).collect();
        if changed.is_empty() && self.next_hops.known.len() < 2 * self.next_hops.used + UNUSED_MAX {
            return Vec::new();
        }
        let address = |path: &Path| match path.exclusion {
            None | Some(Exclusion::Unresolved) if path.source.peer().is_some() => {
                path.attributes.next_hop.map(|next_hop| next_hop.address())
            }
            _ => None,
        };
        let mut used = BTreeSet::new();
        let mut numbers = Vec::new();
        for (number, slot) in self.table.iter() {
            let before = numbers.len();
            for next_hop in slot.paths.as_slice().iter().filter_map(address) {
                used.insert(next_hop);
                if changed.contains_key(&next_hop) && numbers.len() == before {
                    numbers.push(number);
                }
            }
        }
        for number in numbers {
            self.resolve_again(number, |path| changed.get(&address(path)?).copied());
        }
        self.forget(&used)
    }

    /// Decides anew about the paths of a destination of which `leads` says something.
    fn resolve_again(&mut self, number: u32, leads: impl Fn(&Path) -> Option<bool>) {
        let mut changed = Vec::new();
        let Some(family) = self.table.slot(number).map(|slot| slot.prefix.family()) else { return };
        self.edit(number, |slot| {
            for path in slot.paths.as_mut_slice() {
                let Some(leads) = leads(path) else { continue };
                let exclusion = (!leads).then_some(Exclusion::Unresolved);
                if path.exclusion != exclusion {
                    changed.push((path.source, path.exclusion, exclusion));
                    path.exclusion = exclusion;
                }
            }
        });
        for (source, before, after) in changed {
            self.monitors.touch_source(source, number);
            self.count(source, family, before.into(), after.into());
        }
    }

    fn forget(&mut self, used: &BTreeSet<IpAddr>) -> Vec<IpAddr> {
        let NextHops { known, wanted, .. } = &mut self.next_hops;
        // Who is asked about will be answered for.
        let unused = known.keys().filter(|address| !used.contains(*address) && !wanted.contains(address));
        let unused: Vec<IpAddr> = unused.copied().collect();
        for address in &unused {
            known.remove(address);
        }
        self.next_hops.used = used.len();
        unused
    }
}
