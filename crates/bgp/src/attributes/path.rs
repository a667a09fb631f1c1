//! `AS_PATH`: the ASes that a route went through.

use crate::number::Asn;
use std::fmt;

/// Most ASes that one segment holds: its count is a byte.
const SEGMENT_MAX: usize = 255;

/// What the numbers of a segment mean (RFC 4271 section 4.3, RFC 5065 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SegmentKind {
    /// Some of these, in no order; counts as one.
    Set = 1,
    /// All of these, latest first.
    Sequence = 2,
    /// Members of a confederation, latest first; counts as none.
    ConfedSequence = 3,
    /// Members of a confederation, in no order; counts as none.
    ConfedSet = 4,
}

impl SegmentKind {
    /// The kind with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Set),
            2 => Some(Self::Sequence),
            3 => Some(Self::ConfedSequence),
            4 => Some(Self::ConfedSet),
            _ => None,
        }
    }

    /// Whether the segment is of a confederation (RFC 5065).
    pub fn is_confederation(self) -> bool {
        matches!(self, Self::ConfedSequence | Self::ConfedSet)
    }
}

/// One segment of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// What the numbers mean.
    pub kind: SegmentKind,
    /// Four bytes for each AS.
    bytes: &'a [u8],
}

impl<'a> Segment<'a> {
    /// The ASes, latest first.
    pub fn asns(&self) -> impl DoubleEndedIterator<Item = Asn> + ExactSizeIterator + use<'a> {
        self.bytes.chunks_exact(4).map(|asn| {
            let asn = asn.try_into().map_or(0, u32::from_be_bytes);
            Asn(asn)
        })
    }
}

/// The ASes that a route went through, the latest first.
///
/// It is kept as it goes over the wire with four bytes for each AS; every segment has 1 to 255 of them.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsPath {
    wire: Box<[u8]>,
}

impl AsPath {
    /// One sequence of these ASes, latest first.
    pub fn sequence(asns: impl IntoIterator<Item = Asn>) -> Self {
        let asns: Vec<_> = asns.into_iter().collect();
        Self::from_segments([(SegmentKind::Sequence, asns.as_slice())])
    }

    /// A path of these segments; long ones are split, empty ones are left out.
    pub fn from_segments<'a>(segments: impl IntoIterator<Item = (SegmentKind, &'a [Asn])>) -> Self {
        let mut wire = Vec::new();
        for (kind, asns) in segments {
            for part in asns.chunks(SEGMENT_MAX) {
                wire.extend([kind as u8, part.len() as u8]);
                wire.extend(part.iter().flat_map(|asn| asn.0.to_be_bytes()));
            }
        }
        Self { wire: wire.into() }
    }

    /// Takes bytes whose segments were checked.
    pub(crate) fn from_checked_wire(wire: Box<[u8]>) -> Self {
        Self { wire }
    }

    /// The value of the attribute with four bytes for each AS.
    pub(crate) fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// Whether it went through no AS.
    pub fn is_empty(&self) -> bool {
        self.wire.is_empty()
    }

    /// The segments, latest first.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        let mut rest = &*self.wire;
        std::iter::from_fn(move || {
            let (&[kind, count], tail) = rest.split_first_chunk::<2>()?;
            let (bytes, tail) = tail.split_at_checked(usize::from(count) * 4)?;
            rest = tail;
            Some(Segment { kind: SegmentKind::from_number(kind)?, bytes })
        })
    }

    /// The length that counts in a comparison (RFC 4271 section 9.1.2.2, RFC 5065 section 5.3): a set is one,
    /// a confederation nothing.
    pub fn length(&self) -> usize {
        self.segments()
            .map(|segment| match segment.kind {
                SegmentKind::Sequence => segment.asns().len(),
                SegmentKind::Set => 1,
                SegmentKind::ConfedSequence | SegmentKind::ConfedSet => 0,
            })
            .sum()
    }

    /// All ASes, of sets too.
    pub fn asns(&self) -> impl Iterator<Item = Asn> {
        self.segments().flat_map(|segment| segment.asns())
    }

    /// How often `asn` is in it.
    pub fn count(&self, asn: Asn) -> usize {
        self.asns().filter(|member| *member == asn).count()
    }

    /// The neighbour that it came from: the first of the first sequence outside of a confederation.
    pub fn first(&self) -> Option<Asn> {
        let first = self.segments().find(|segment| !segment.kind.is_confederation())?;
        (first.kind == SegmentKind::Sequence).then(|| first.asns().next()).flatten()
    }

    /// The AS that announced it first: the last of the last sequence.
    pub fn origin(&self) -> Option<Asn> {
        let last = self.segments().last()?;
        (last.kind == SegmentKind::Sequence).then(|| last.asns().next_back()).flatten()
    }

    /// Whether a set is in it, which eBGP should no longer carry (RFC 9774).
    pub fn has_set(&self) -> bool {
        self.segments().any(|segment| matches!(segment.kind, SegmentKind::Set | SegmentKind::ConfedSet))
    }

    /// The path with `asn` put before it (RFC 4271 section 5.1.2).
    #[must_use]
    pub fn prepend(&self, asn: Asn) -> Self {
        let mut wire = Vec::with_capacity(self.wire.len() + 6);
        match self.wire.split_first_chunk::<2>() {
            Some((&[kind, count], rest)) if kind == SegmentKind::Sequence as u8 && count < u8::MAX => {
                wire.extend([kind, count + 1]);
                wire.extend(asn.0.to_be_bytes());
                wire.extend(rest);
            }
            _ => {
                wire.extend([SegmentKind::Sequence as u8, 1]);
                wire.extend(asn.0.to_be_bytes());
                wire.extend(&*self.wire);
            }
        }
        Self { wire: wire.into() }
    }

    /// The path with each AS replaced by what `change` makes of it; `None` takes it out.
    #[must_use]
    pub fn map(&self, change: impl Fn(Asn) -> Option<Asn>) -> Self {
        let segments: Vec<(SegmentKind, Vec<Asn>)> = self
            .segments()
            .map(|segment| (segment.kind, segment.asns().filter_map(&change).collect()))
            .collect();
        Self::from_segments(segments.iter().map(|(kind, asns)| (*kind, asns.as_slice())))
    }

    /// The path without what a confederation added (RFC 5065 section 4.1).
    #[must_use]
    pub fn without_confederation(&self) -> Self {
        if !self.segments().any(|segment| segment.kind.is_confederation()) {
            return self.clone();
        }
        let segments: Vec<(SegmentKind, Vec<Asn>)> = self
            .segments()
            .filter(|segment| !segment.kind.is_confederation())
            .map(|segment| (segment.kind, segment.asns().collect()))
            .collect();
        Self::from_segments(segments.iter().map(|(kind, asns)| (*kind, asns.as_slice())))
    }
}

impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, segment) in self.segments().enumerate() {
            let (open, separator, close) = match segment.kind {
                SegmentKind::Sequence => ("", " ", ""),
                SegmentKind::Set => ("{", ",", "}"),
                SegmentKind::ConfedSequence => ("(", " ", ")"),
                SegmentKind::ConfedSet => ("[", ",", "]"),
            };
            f.write_str(if n == 0 { "" } else { " " })?;
            f.write_str(open)?;
            for (n, asn) in segment.asns().enumerate() {
                f.write_str(if n == 0 { "" } else { separator })?;
                asn.fmt(f)?;
            }
            f.write_str(close)?;
        }
        Ok(())
    }
}

impl fmt::Debug for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsPath({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixed() -> AsPath {
        AsPath::from_segments([
            (SegmentKind::ConfedSequence, [Asn(65_001), Asn(65_002)].as_slice()),
            (SegmentKind::Sequence, &[Asn(10), Asn(20), Asn(70_000)]),
            (SegmentKind::Set, &[Asn(30), Asn(40)]),
        ])
    }

    #[test]
    fn sets_count_once_and_confederations_not_at_all() {
        assert_eq!(mixed().length(), 4);
        assert_eq!(mixed().without_confederation().length(), 4);
        assert_eq!(mixed().to_string(), "(65001 65002) 10 20 70000 {30,40}");
        assert_eq!(mixed().without_confederation().to_string(), "10 20 70000 {30,40}");
    }

    #[test]
    fn neighbour_and_origin_are_at_the_ends() {
        assert_eq!(mixed().first(), Some(Asn(10)));
        assert_eq!(mixed().origin(), None);
        assert_eq!(AsPath::sequence([Asn(1), Asn(2)]).origin(), Some(Asn(2)));
        assert_eq!(AsPath::default().first(), None);
    }

    #[test]
    fn prepending_extends_the_first_sequence_until_it_is_full() {
        let mut path = AsPath::default();
        for n in 1..=300 {
            path = path.prepend(Asn(n));
        }
        assert_eq!(path.length(), 300);
        assert_eq!(path.segments().count(), 2);
        assert_eq!(path.first(), Some(Asn(300)));
        assert_eq!(path.origin(), Some(Asn(1)));
        assert_eq!(mixed().prepend(Asn(1)).segments().count(), 4);
    }

    #[test]
    fn long_sequences_are_split() {
        let path = AsPath::sequence((0..600).map(Asn));
        assert_eq!(path.segments().map(|segment| segment.asns().len()).collect::<Vec<_>>(), [255, 255, 90]);
        assert_eq!(path.length(), 600);
    }

    #[test]
    fn mapping_takes_out_and_replaces() {
        let path = mixed().map(|asn| (asn != Asn(20)).then_some(if asn == Asn(10) { Asn(11) } else { asn }));
        assert_eq!(path.to_string(), "(65001 65002) 11 70000 {30,40}");
        assert_eq!(path.count(Asn(11)), 1);
        assert!(path.has_set());
    }
}
