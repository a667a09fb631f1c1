//! Peers that hear the same hear the same bytes.
//!
//! A group follows the log of changed destinations. It remembers of each destination only whose route it sent last:
//! the rest follows from the table. What it encodes is cut into segments, each for all members, for all but the one
//! that the route is from, or for that one alone, which must forget what it was told before.

use super::{
    export::{Exporter, GroupKey},
    intern::Interner,
    peer::PeerId,
    table::{Path, Slot, Source},
};
use crate::{
    attributes::Attributes,
    number::Family,
    policy::Policy,
    prefix::Nlri,
    wire::{Announcer, EncodeContext, encode_withdrawal},
};
use hashbrown::HashMap;
use std::sync::Arc;

/// Bytes after which a segment is not joined with the next one.
const SEGMENT_BYTES: usize = 64 << 10;

/// Names a group; its place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupId(pub(super) usize);

/// Who hears a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Audience {
    All,
    Except(PeerId),
    Only(PeerId),
}

impl Audience {
    /// All but who the route is from.
    fn except(source: Source, members: &[PeerId]) -> Self {
        match source.peer() {
            Some(peer) if members.contains(&peer) => Self::Except(peer),
            _ => Self::All,
        }
    }

    pub(super) fn includes(self, peer: PeerId) -> bool {
        match self {
            Self::All => true,
            Self::Except(other) => other != peer,
            Self::Only(other) => other == peer,
        }
    }
}

/// Whole messages for some members.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) audience: Audience,
    pub(super) bytes: Arc<[u8]>,
}

/// A path that was sent with a path id.
#[derive(Clone, Debug)]
pub(super) struct SentPath {
    pub(super) local_id: u16,
    pub(super) source: Source,
    attributes: Arc<Attributes>,
}

/// Peers that hear the same.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) key: GroupKey,
    pub(super) policy: Arc<dyn Policy>,
    pub(super) members: Vec<PeerId>,
    /// Up to where in the log everything was sent.
    pub(super) cursor: u64,
    /// Whose route was sent last, by destination; for families without path ids.
    sent: Vec<Source>,
    tally: Tally,
    /// What was sent, by destination; for families with path ids.
    sent_paths: HashMap<u32, Vec<SentPath>>,
}

impl Group {
    pub(super) fn new(key: GroupKey, policy: Arc<dyn Policy>, cursor: u64) -> Self {
        Self {
            key,
            policy,
            members: Vec::new(),
            cursor,
            sent: Vec::new(),
            tally: Tally::default(),
            sent_paths: HashMap::new(),
        }
    }

    /// Whose route was sent last.
    pub(super) fn sent(&self, number: u32) -> Source {
        self.sent.get(number as usize).copied().unwrap_or(Source::NONE)
    }

    /// What was sent with path ids.
    pub(super) fn sent_paths(&self, number: u32) -> &[SentPath] {
        self.sent_paths.get(&number).map_or(&[], Vec::as_slice)
    }

    /// Paths of a destination that a member was told, each with its number.
    pub(super) fn told_paths<'s>(&self, number: u32, slot: &'s Slot, member: PeerId) -> Vec<(&'s Path, u16)> {
        let own = Source::from(member);
        let sent = self.sent(number);
        let best = slot.best().filter(|best| best.source == sent && sent != own).map(|best| (best, 0));
        let numbered = self.sent_paths(number).iter().filter(|sent| sent.source != own);
        let numbered = numbered.filter_map(|sent| {
            let path = slot.paths.as_slice().iter().find(|path| path.local_id == sent.local_id)?;
            Some((path, sent.local_id))
        });
        best.into_iter().chain(numbered).collect()
    }

    /// Paths of a destination that a member would be told if nothing were held back, each with its number.
    pub(super) fn offered_paths<'s>(&self, slot: &'s Slot, member: PeerId) -> Vec<(&'s Path, u16)> {
        let own = Source::from(member);
        let is_numbered = self.key.encode.add_path.contains(slot.prefix.family());
        let usable = slot.paths.as_slice().iter().filter(|path| path.exclusion.is_none());
        let numbered = usable.filter(|_| is_numbered).map(|path| (path, path.local_id));
        let best = slot.best().filter(|_| !is_numbered).map(|path| (path, 0));
        best.into_iter().chain(numbered).filter(|(path, _)| path.source != own).collect()
    }

    /// Whether a member was told of this destination.
    pub(super) fn told(&self, number: u32, member: PeerId) -> bool {
        let own = Source::from(member);
        let sent = self.sent(number);
        sent != Source::NONE && sent != own || self.sent_paths(number).iter().any(|path| path.source != own)
    }

    /// Whether anything was sent of this destination.
    pub(super) fn is_sent(&self, number: u32) -> bool {
        self.sent(number) != Source::NONE || self.sent_paths.contains_key(&number)
    }

    /// How many destinations of a family a member was told of, which has one without path ids.
    pub(super) fn told_count(&self, family: Family, member: PeerId) -> u32 {
        self.tally.all(family) - self.tally.of(family, member.into())
    }

    fn set_sent(&mut self, number: u32, family: Family, source: Source) {
        let old = self.sent(number);
        if old == source {
            return;
        }
        self.tally.exchange(family, old, source);
        let at = number as usize;
        if self.sent.len() <= at {
            if source == Source::NONE {
                return;
            }
            self.sent.resize(at + 1, Source::NONE);
        }
        self.sent[at] = source;
    }

    /// Brings what was sent of a destination up to date.
    pub(super) fn follow(&mut self, number: u32, slot: &Slot, best_changed: bool, batch: &mut Batch<'_>) {
        if self.key.encode.add_path.contains(slot.prefix.family()) {
            self.follow_paths(number, slot, batch);
        } else if best_changed {
            self.follow_best(number, slot, batch);
        }
    }

    fn follow_best(&mut self, number: u32, slot: &Slot, batch: &mut Batch<'_>) {
        let old = self.sent(number);
        let new = slot.best().and_then(|path| Some((batch.bucket(slot, path)?, path.source)));
        let nlri = Nlri::from(slot.prefix);
        match new {
            Some((bucket, source)) => {
                batch.announce(bucket, nlri);
                // Who the route is from now was told of the other one.
                if let Some(peer) = source.peer()
                    && old != Source::NONE
                    && old != source
                    && self.members.contains(&peer)
                {
                    batch.withdraw(Audience::Only(peer), nlri);
                }
                self.set_sent(number, slot.prefix.family(), source);
            }
            None if old != Source::NONE => {
                batch.withdraw(Audience::except(old, &self.members), nlri);
                self.set_sent(number, slot.prefix.family(), Source::NONE);
            }
            None => {}
        }
    }

    fn follow_paths(&mut self, number: u32, slot: &Slot, batch: &mut Batch<'_>) {
        let old = self.sent_paths.remove(&number).unwrap_or_default();
        let mut new: Vec<SentPath> = Vec::new();
        let usable = slot.paths.as_slice().iter().filter(|path| path.exclusion.is_none());
        for path in usable {
            if new.len() == usize::from(self.key.add_path_max) {
                break;
            }
            let Some(bucket) = batch.bucket(slot, path) else { continue };
            let before = old.iter().find(|sent| sent.local_id == path.local_id);
            let same = before.is_some_and(|sent| {
                sent.source == path.source && Arc::ptr_eq(&sent.attributes, &path.attributes)
            });
            if !same {
                batch.announce(bucket, slot.nlri(path.local_id));
            }
            if let (Some(before), Some(peer)) = (before, path.source.peer())
                && before.source != path.source
                && self.members.contains(&peer)
            {
                batch.withdraw(Audience::Only(peer), slot.nlri(path.local_id));
            }
            let attributes = Arc::clone(&path.attributes);
            new.push(SentPath { local_id: path.local_id, source: path.source, attributes });
        }
        for gone in old.iter().filter(|sent| new.iter().all(|path| path.local_id != sent.local_id)) {
            batch.withdraw(Audience::except(gone.source, &self.members), slot.nlri(gone.local_id));
        }
        if !new.is_empty() {
            self.sent_paths.insert(number, new);
        }
    }

    /// Tells one member what it lacks of a destination. `knows`: it may hold something else.
    pub(super) fn catch_up(
        &self,
        number: u32,
        slot: &Slot,
        (member, knows): (PeerId, bool),
        batch: &mut Batch<'_>,
    ) {
        let own = Source::from(member);
        if !self.key.encode.add_path.contains(slot.prefix.family()) {
            let sent = self.sent(number);
            let best = slot.best().filter(|path| sent == path.source && sent != own);
            match best.and_then(|path| batch.bucket(slot, path)) {
                Some(bucket) => batch.announce(bucket, slot.prefix.into()),
                None if knows => batch.withdraw(Audience::All, slot.prefix.into()),
                None => {}
            }
            return;
        }
        let told: Vec<_> = self.sent_paths(number).iter().filter(|sent| sent.source != own).collect();
        for path in slot.paths.as_slice() {
            if told.iter().any(|sent| sent.local_id == path.local_id && sent.source == path.source)
                && let Some(bucket) = batch.bucket(slot, path)
            {
                batch.announce(bucket, slot.nlri(path.local_id));
            }
        }
        if knows {
            for local_id in 1..=slot.local_id_max {
                if told.iter().all(|sent| sent.local_id != local_id) {
                    batch.withdraw(Audience::All, slot.nlri(local_id));
                }
            }
        }
    }
}

/// How many destinations of each family were sent, by whose route it was.
#[derive(Debug, Default)]
struct Tally {
    all: [u32; 2],
    /// Ours first, then those of peers in the order of their ids.
    by_source: Vec<[u32; 2]>,
}

impl Tally {
    fn place(source: Source) -> usize {
        source.peer().map_or(0, |peer| peer.index() + 1)
    }

    fn all(&self, family: Family) -> u32 {
        self.all[family as usize]
    }

    fn of(&self, family: Family, source: Source) -> u32 {
        self.by_source.get(Self::place(source)).map_or(0, |counts| counts[family as usize])
    }

    /// A destination is that of another source now.
    fn exchange(&mut self, family: Family, old: Source, new: Source) {
        if old != Source::NONE
            && let Some(counts) = self.by_source.get_mut(Self::place(old))
        {
            counts[family as usize] -= 1;
            self.all[family as usize] -= 1;
        }
        if new != Source::NONE {
            let place = Self::place(new);
            if self.by_source.len() <= place {
                self.by_source.resize(place + 1, [0; 2]);
            }
            self.by_source[place][family as usize] += 1;
            self.all[family as usize] += 1;
        }
    }
}

/// Routes that look alike to the members.
struct Bucket {
    announcer: Announcer,
    audience: Audience,
    nlri: Vec<Nlri>,
    /// Keeps the address that the bucket is found by.
    _attributes: [Arc<Attributes>; 2],
}

/// What a bucket is found by: addresses of the attributes before and after the policy, the source, the family.
type BucketKey = (usize, usize, Source, Family);

/// Changes of many destinations, gathered so that routes with equal attributes share messages.
pub(super) struct Batch<'a> {
    exporter: Exporter<'a>,
    interner: &'a mut Interner,
    encode: EncodeContext,
    members: Vec<PeerId>,
    buckets: Vec<Bucket>,
    /// `None` for routes that cannot be sent.
    index: HashMap<BucketKey, Option<usize>>,
    /// The last one that was found: the next route mostly looks the same.
    last: Option<(BucketKey, Option<usize>)>,
    withdrawn: Vec<(Audience, Family, Vec<Nlri>)>,
    withdrawn_index: HashMap<(Audience, Family), usize>,
}

impl<'a> Batch<'a> {
    /// A batch for these members of the exporter's group.
    pub(super) fn new(exporter: Exporter<'a>, interner: &'a mut Interner, members: &[PeerId]) -> Self {
        let encode = exporter.key.encode;
        Self {
            exporter,
            interner,
            encode,
            members: members.to_vec(),
            buckets: Vec::new(),
            index: HashMap::new(),
            last: None,
            withdrawn: Vec::new(),
            withdrawn_index: HashMap::new(),
        }
    }

    /// Where routes go that look like this one; `None` if it may not be sent, or no message can hold it.
    fn bucket(&mut self, slot: &Slot, path: &Path) -> Option<usize> {
        let admitted = self.exporter.admit(&slot.prefix, path)?;
        let changed = admitted.changed.map(|changed| self.interner.intern(Arc::from(changed)));
        let address = |attributes: &Arc<Attributes>| Arc::as_ptr(attributes) as usize;
        let family = slot.prefix.family();
        let before = address(&path.attributes);
        let key = (before, changed.as_ref().map_or(before, address), path.source, family);
        if let Some((_, found)) = self.last.filter(|(last, _)| *last == key) {
            return found;
        }
        if let Some(found) = self.index.get(&key).copied() {
            self.last = Some((key, found));
            return found;
        }
        let dressed = self.exporter.dress(path, changed.as_deref(), family);
        let announcer = dressed.and_then(|dressed| Announcer::new(&dressed, family, self.encode).ok());
        let place = announcer.map(|announcer| {
            let audience = Audience::except(path.source, &self.members);
            let kept = changed.unwrap_or_else(|| Arc::clone(&path.attributes));
            let attributes = [Arc::clone(&path.attributes), kept];
            self.buckets.push(Bucket { announcer, audience, nlri: Vec::new(), _attributes: attributes });
            self.buckets.len() - 1
        });
        self.index.insert(key, place);
        self.last = Some((key, place));
        place
    }

    fn announce(&mut self, bucket: usize, nlri: Nlri) {
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            bucket.nlri.push(nlri);
        }
    }

    fn withdraw(&mut self, audience: Audience, nlri: Nlri) {
        let family = nlri.prefix.family();
        let next = self.withdrawn.len();
        let place = *self.withdrawn_index.entry((audience, family)).or_insert(next);
        if place == next {
            self.withdrawn.push((audience, family, Vec::new()));
        }
        if let Some((_, _, list)) = self.withdrawn.get_mut(place) {
            list.push(nlri);
        }
    }

    /// Encodes it all, each route once. The destinations of a batch differ, so the order does not matter, except that
    /// one member is told to forget a destination before anybody is told anew.
    pub(super) fn encode(self) -> Vec<Segment> {
        let mut writer = SegmentWriter::default();
        for (audience, family, list) in self.withdrawn {
            encode_withdrawal(family, list, self.encode, writer.buffer(audience));
        }
        for bucket in self.buckets.into_iter().filter(|bucket| !bucket.nlri.is_empty()) {
            bucket.announcer.announce(bucket.nlri, writer.buffer(bucket.audience));
        }
        writer.finish()
    }
}

/// Joins what has the same audience.
#[derive(Default)]
struct SegmentWriter {
    segments: Vec<Segment>,
    open: Option<Audience>,
    buffer: Vec<u8>,
}

impl SegmentWriter {
    /// Where to write for this audience.
    fn buffer(&mut self, audience: Audience) -> &mut Vec<u8> {
        if self.open != Some(audience) || self.buffer.len() >= SEGMENT_BYTES {
            self.close();
            self.open = Some(audience);
        }
        &mut self.buffer
    }

    fn close(&mut self) {
        if let Some(audience) = self.open.take()
            && !self.buffer.is_empty()
        {
            self.segments.push(Segment { audience, bytes: Arc::from(self.buffer.as_slice()) });
            self.buffer.clear();
        }
    }

    fn finish(mut self) -> Vec<Segment> {
        self.close();
        self.segments
    }
}
