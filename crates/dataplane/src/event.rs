//! Verdicts out of the ring buffer.

use crate::{host::unmapped_address, model::Event};
use aya::maps::{MapData, RingBuf};
use isthmus_core::Identity;
use isthmus_dataplane_common::{EventValue, Reason};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// Reads verdicts. Readable (epoll) when there are some.
pub struct EventReader {
    ring: RingBuf<MapData>,
}

impl EventReader {
    pub(crate) fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring }
    }
}

impl Iterator for EventReader {
    type Item = Event;

    /// The next verdict, or `None` if there is none now. One that another version wrote is skipped.
    fn next(&mut self) -> Option<Event> {
        loop {
            let item = self.ring.next()?;
            if let Some(event) = parse(&item) {
                return Some(event);
            }
        }
    }
}

impl AsFd for EventReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl AsRawFd for EventReader {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

fn parse(bytes: &[u8]) -> Option<Event> {
    if bytes.len() != size_of::<EventValue>() {
        return None;
    }
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let half = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let address =
        |at: usize| Some(unmapped_address([word(at)?, word(at + 4)?, word(at + 8)?, word(at + 12)?]));
    let reason = Reason::from_number(bytes[57])?;
    Some(Event {
        time_ns: u64::from_ne_bytes(bytes.get(0..8)?.try_into().ok()?),
        source: address(8)?,
        destination: address(24)?,
        from: Identity::new(word(40)?).unwrap_or(Identity::UNKNOWN),
        to: Identity::new(word(44)?).unwrap_or(Identity::UNKNOWN),
        rule: word(48)?,
        source_port: half(52)?,
        destination_port: half(54)?,
        protocol: bytes[56],
        allowed: reason.allowed(),
        reason: reason.as_str(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn events_are_read_where_the_programs_write_them() {
        let offsets = [
            offset_of!(EventValue, time_ns),
            offset_of!(EventValue, source),
            offset_of!(EventValue, destination),
            offset_of!(EventValue, from),
            offset_of!(EventValue, to),
            offset_of!(EventValue, rule),
            offset_of!(EventValue, source_port),
            offset_of!(EventValue, destination_port),
            offset_of!(EventValue, protocol),
            offset_of!(EventValue, reason),
        ];
        assert_eq!(offsets, [0, 8, 24, 40, 44, 48, 52, 54, 56, 57]);
    }

    #[test]
    fn bytes_of_another_version_are_skipped() {
        assert_eq!(parse(&[0; 63]), None);
        assert_eq!(parse(&[0; 64]), None);
    }
}
