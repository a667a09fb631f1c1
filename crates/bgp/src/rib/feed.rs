//! What goes out: who shares what, who lacks what, and the bytes of it.

use super::{
    Bits, Interner, Peer, Router,
    export::{Exporter, GroupKey},
    group::{Batch, Group, GroupId, Segment},
    peer::{Feed, FeedEnd, PeerId},
    table::Table,
};
use crate::{
    number::Family,
    wire::{RefreshKind, RouteRefresh, encode_end_of_rib},
};
use std::sync::Arc;

/// Destinations that are encoded together: many enough to share messages, few enough to take little time.
const BATCH: usize = if cfg!(test) { 3 } else { 8_192 };
/// Destinations that a peer that lacks some is told of at once.
const CATCH_UP: usize = if cfg!(test) { 2 } else { 2_048 };
/// Bytes that wait for a peer before it is only noted what it lacks, which then costs an encoding of its own. They are
/// shared with all that hear the same: most of a full table, so that those who take a new one a little more slowly than
/// it comes stay together.
const QUEUE_BYTES_MAX: usize = if cfg!(test) { 256 } else { 16 << 20 };
/// Destinations without paths below which nobody looks for them.
const EMPTY_MIN: usize = if cfg!(test) { 2 } else { 4_096 };

impl Router {
    /// What the peer shall hear now: whole messages, of about `bytes_max` bytes at most, shared with others that hear the
    /// same. Nothing means that it has all; ask again after anything was received.
    pub fn next_updates(&mut self, id: PeerId, bytes_max: usize) -> Vec<Arc<[u8]>> {
        let mut updates = Vec::new();
        let Some(group) = self.peer(id).and_then(|peer| peer.group) else { return updates };
        if self.is_deferring() {
            return updates;
        }
        self.flush_group(group);
        let mut bytes = 0;
        while bytes < bytes_max {
            let Some(peer) = self.peer_mut(id) else { return updates };
            match peer.pop() {
                Some(segment) => {
                    bytes += segment.len();
                    updates.push(segment);
                }
                None if matches!(peer.feed, Feed::CatchingUp { .. }) => self.catch_up(id, group),
                None => break,
            }
        }
        updates
    }

    /// Whether [`Router::next_updates`] may have something for the peer.
    pub fn has_updates(&self, id: PeerId) -> bool {
        if self.is_deferring() {
            return false;
        }
        let Some(peer) = self.peer(id) else { return false };
        let Some(group) = peer.group.and_then(|group| self.groups.get(group.0)?.as_ref()) else {
            return false;
        };
        !peer.queue.is_empty()
            || matches!(peer.feed, Feed::CatchingUp { .. })
            || group.cursor < self.log.end()
    }

    /// Encodes what changed for all. [`Router::next_updates`] does so too, for those that hear the same as the peer.
    pub fn flush(&mut self) {
        if !self.is_deferring() {
            self.flush_all();
        }
    }

    /// How many changes have not been encoded for all.
    pub fn changes_unsent(&self) -> usize {
        self.log.numbers.len()
    }

    /// Puts a peer with a new session among those that hear the same, to be told everything.
    pub(super) fn join_group(&mut self, id: PeerId) {
        let families = self.peer(id).and_then(|peer| peer.session.as_ref()).map(|session| session.families);
        let Some(families) = families else { return };
        let ends = families.iter().map(FeedEnd::EndOfRib).collect();
        self.join(id, &Bits::default(), ends);
    }

    /// Puts a peer where it belongs now. It is told what it knows but should not, and what it should.
    pub(super) fn regroup(&mut self, id: PeerId) {
        let Some(peer) = self.peer(id) else { return };
        let key = GroupKey::of(id, peer, self.config.cluster_id());
        let Some(group) = peer.group else { return };
        if key == self.groups.get(group.0).and_then(Option::as_ref).map(|group| group.key) {
            return;
        }
        self.flush_group(group);
        let mut knows = self.told(id, group);
        let mut ends = Vec::new();
        if let Some(peer) = self.peer_mut(id)
            && let Feed::CatchingUp { knows: known, ends: open, .. } = &mut peer.feed
        {
            knows = std::mem::take(known);
            ends = std::mem::take(open);
        }
        self.leave_group(id);
        self.join(id, &knows, ends);
    }

    fn join(&mut self, id: PeerId, knows: &Bits, ends: Vec<FeedEnd>) {
        let Some(peer) = self.peer(id) else { return };
        let Some(key) = GroupKey::of(id, peer, self.config.cluster_id()) else { return };
        let policy = Arc::clone(&peer.config.export);
        let same = |group: &Option<Group>| group.as_ref().is_some_and(|group| group.key == key);
        let group = match self.groups.iter().position(same) {
            Some(place) => GroupId(place),
            None => self.new_group(Group::new(key, policy, self.log.end())),
        };
        self.flush_group(group);
        let mut lacks = self.told(id, group);
        let mut from = 0;
        while let Some(number) = knows.next_from(from) {
            lacks.insert(number);
            from = number + 1;
        }
        if let Some(group) = self.groups.get_mut(group.0).and_then(Option::as_mut) {
            group.members.push(id);
        }
        self.monitors.touch_sent(&[id], &(0..self.table.end()));
        if let Some(peer) = self.peer_mut(id) {
            peer.group = Some(group);
            peer.feed = Feed::CatchingUp { lacks, knows: knows.clone(), from: 0, ends };
        }
    }

    /// Adds a group that has sent all that it may, to nobody.
    fn new_group(&mut self, mut group: Group) -> GroupId {
        let end = self.table.end();
        for start in (0..end).step_by(BATCH) {
            let (key, policy) = (group.key, Arc::clone(&group.policy));
            let exporter = exporter(&key, &*policy, &self.peers, self.config.client_to_client);
            let mut batch = Batch::new(exporter, &mut self.interner, &[]);
            for number in start..end.min(start + BATCH as u32) {
                if let Some(slot) = self.table.slot(number) {
                    group.follow(number, slot, true, &mut batch);
                }
            }
        }
        let free = self.groups.iter().position(Option::is_none);
        let place = free.unwrap_or_else(|| {
            self.groups.push(None);
            self.groups.len() - 1
        });
        self.groups[place] = Some(group);
        GroupId(place)
    }

    /// Takes a peer out of its group; the group ends with its last member.
    pub(super) fn leave_group(&mut self, id: PeerId) {
        let Some(peer) = self.peer_mut(id) else { return };
        peer.feed = Feed::Synced;
        let Some(group) = peer.group.take() else { return };
        let Some(place) = self.groups.get_mut(group.0) else { return };
        if let Some(group) = place {
            group.members.retain(|member| *member != id);
            if group.members.is_empty() {
                *place = None;
            }
        }
    }

    /// Destinations that a member was told of, if it has all that its group has.
    fn told(&self, id: PeerId, group: GroupId) -> Bits {
        let mut told = Bits::default();
        if let Some(group) = self.groups.get(group.0).and_then(Option::as_ref) {
            (0..self.table.end())
                .filter(|number| group.told(*number, id))
                .for_each(|number| told.insert(number));
        }
        told
    }

    /// Tells a peer everything again, of one family or of all.
    pub(super) fn send_again(&mut self, id: PeerId, family: Option<Family>) {
        let Some(group) = self.peer(id).and_then(|peer| peer.group) else { return };
        self.flush_group(group);
        let told = self.told(id, group);
        let Self { table, peers, .. } = self;
        let Some(peer) = peers.get_mut(id.index()).and_then(Option::as_mut) else { return };
        let enhanced = peer.session.as_ref().is_some_and(|negotiated| negotiated.enhanced_refresh);
        if matches!(peer.feed, Feed::Synced) {
            let ends = family.filter(|_| enhanced).map(FeedEnd::refresh);
            if let (Some(family), Some(_)) = (family, ends) {
                let begin = RouteRefresh { family: family.afi_safi(), kind: RefreshKind::Begin };
                peer.push(begin.encode().into());
            }
            let ends = ends.into_iter().collect();
            peer.feed = Feed::CatchingUp { lacks: Bits::default(), knows: told.clone(), from: 0, ends };
        }
        let Feed::CatchingUp { lacks, from, .. } = &mut peer.feed else { return };
        *from = 0;
        let mut next = 0;
        while let Some(number) = told.next_from(next) {
            let wanted = table.slot(number).map(|slot| slot.prefix.family());
            if family.is_none() || wanted == family {
                lacks.insert(number);
            }
            next = number + 1;
        }
    }

    /// Brings all groups up to date.
    pub(super) fn flush_all(&mut self) {
        for place in 0..self.groups.len() {
            self.flush_group(GroupId(place));
        }
        self.trim();
    }

    /// Encodes for a group what changed since it was last asked, and hands it to the members.
    pub(super) fn flush_group(&mut self, id: GroupId) {
        let end = self.log.end();
        let Some(place) = self.groups.get_mut(id.0) else { return };
        let Some(mut group) = place.take_if(|group| group.cursor < end) else { return };
        let seen = group.cursor;
        while group.cursor < self.log.end() {
            let (segments, touched) = self.flush_batch(&mut group, seen);
            self.monitors.touch_sent(&group.members, &touched.iter().copied());
            for member in &group.members {
                if let Some(peer) = self.peers.get_mut(member.index()).and_then(Option::as_mut) {
                    hand(peer, *member, &group, &self.table, (&segments, &touched));
                }
            }
        }
        if let Some(place) = self.groups.get_mut(id.0) {
            *place = Some(group);
        }
        self.trim();
    }

    /// Encodes the next part of the log, and says which destinations it is about. Best paths that changed since `seen`
    /// are news.
    fn flush_batch(&mut self, group: &mut Group, seen: u64) -> (Vec<Segment>, Vec<u32>) {
        let (key, policy, members) = (group.key, Arc::clone(&group.policy), group.members.clone());
        let exporter = exporter(&key, &*policy, &self.peers, self.config.client_to_client);
        let mut batch = Batch::new(exporter, &mut self.interner, &members);
        let mut touched = Vec::new();
        while touched.len() < BATCH {
            let Some(number) = self.log.get(group.cursor) else { break };
            let at = group.cursor;
            group.cursor += 1;
            let slot = self.table.slot(number).filter(|slot| slot.logged == at as u32);
            if let Some(slot) = slot {
                // In time since then, as positions come around.
                let age = (at as u32).wrapping_sub(slot.best_logged);
                group.follow(number, slot, u64::from(age) <= at - seen, &mut batch);
                touched.push(number);
            }
        }
        (batch.encode(), touched)
    }

    /// Tells a peer about some of what it lacks.
    fn catch_up(&mut self, id: PeerId, group: GroupId) {
        let Self { table, peers, groups, interner, config, .. } = self;
        let Some(group) = groups.get(group.0).and_then(Option::as_ref) else { return };
        let Some(peer) = peers.get_mut(id.index()).and_then(Option::as_mut) else { return };
        // The peer itself stays in its place: the export policy may ask who it is.
        let mut feed = std::mem::replace(&mut peer.feed, Feed::Synced);
        let mut out = Vec::new();
        let mut done = true;
        if let Feed::CatchingUp { lacks, knows, from, ends } = &mut feed {
            let some = some_of(lacks, from);
            if some.is_empty() {
                for end in ends.drain(..) {
                    match end {
                        FeedEnd::EndOfRib(family) => encode_end_of_rib(family, &mut out),
                        FeedEnd::Refresh(refresh) => out.extend(refresh.encode()),
                    }
                }
                *from = 0;
                done = lacks.next_from(0).is_none();
            } else {
                let exporter = exporter(&group.key, &*group.policy, peers, config.client_to_client);
                let segments = tell(&some, (table, interner), (group, exporter), (id, knows));
                for segment in &segments {
                    out.extend_from_slice(&segment.bytes);
                }
                done = false;
            }
        }
        let Some(peer) = peers.get_mut(id.index()).and_then(Option::as_mut) else { return };
        if !done {
            peer.feed = feed;
        }
        if !out.is_empty() {
            peer.push(out.into());
        }
    }

    /// Forgets what all groups have read of the log, and destinations that are gone for everybody.
    fn trim(&mut self) {
        let read = self.groups.iter().flatten().map(|group| group.cursor).min();
        let read = read.unwrap_or(self.log.end());
        self.log.trim(read);
        let (empty, len) = (self.table.empty, self.table.len());
        let lately = self.log.end() < self.swept_at + len as u64 / 2;
        if empty < EMPTY_MIN || empty * 2 < len || lately || read < self.log.end() {
            return;
        }
        self.swept_at = self.log.end();
        let Self { table, groups, peers, changed, monitors, .. } = self;
        let reported = monitors.reported();
        table.sweep(|number, _| {
            reported.contains(number)
                || groups.iter().flatten().any(|group| group.is_sent(number))
                || changed.contains(number)
                || peers.iter().flatten().any(|peer| match &peer.feed {
                    Feed::Synced => false,
                    Feed::CatchingUp { lacks, knows, .. } => lacks.contains(number) || knows.contains(number),
                })
        });
    }
}

fn exporter<'a>(
    key: &'a GroupKey,
    policy: &'a dyn crate::policy::Policy,
    peers: &'a [Option<Peer>],
    client_to_client: bool,
) -> Exporter<'a> {
    Exporter { key, policy, peers, client_to_client }
}

/// Takes the next destinations out of what a peer lacks; none at the end of a round.
fn some_of(lacks: &mut Bits, from: &mut u32) -> Vec<u32> {
    let mut some = Vec::new();
    while some.len() < CATCH_UP {
        let Some(number) = lacks.next_from(*from) else { break };
        lacks.remove(number);
        *from = number + 1;
        some.push(number);
    }
    some
}

/// Encodes for one member what its group has sent of some destinations.
fn tell(
    some: &[u32],
    (table, interner): (&Table, &mut Interner),
    (group, exporter): (&Group, Exporter<'_>),
    (id, knows): (PeerId, &mut Bits),
) -> Vec<Segment> {
    let mut batch = Batch::new(exporter, interner, &[]);
    for number in some {
        let Some(slot) = table.slot(*number) else { continue };
        group.catch_up(*number, slot, (id, knows.contains(*number)), &mut batch);
        if group.told(*number, id) {
            knows.insert(*number);
        } else {
            knows.remove(*number);
        }
    }
    batch.encode()
}

/// Hands a member what its group encoded, or only notes what it lacks.
fn hand(
    peer: &mut Peer,
    id: PeerId,
    group: &Group,
    table: &Table,
    (segments, touched): (&[Segment], &[u32]),
) {
    if matches!(peer.feed, Feed::Synced) && peer.queued_bytes > QUEUE_BYTES_MAX {
        let mut knows = Bits::default();
        (0..table.end()).filter(|number| group.told(*number, id)).for_each(|number| knows.insert(number));
        // What is about to be taken back from it is no longer in the group's memory.
        for number in touched {
            knows.insert(*number);
        }
        peer.feed = Feed::CatchingUp { lacks: Bits::default(), knows, from: 0, ends: Vec::new() };
    }
    match &mut peer.feed {
        Feed::Synced => {
            for Segment { audience, bytes } in segments {
                if audience.includes(id) {
                    peer.push(Arc::clone(bytes));
                }
            }
        }
        Feed::CatchingUp { lacks, .. } => {
            for number in touched {
                lacks.insert(*number);
            }
        }
    }
}
