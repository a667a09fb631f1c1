//! Messages as bytes (RFC 4271 section 4), and what is wrong with those of others (RFC 7606).
//!
//! [`frame`] finds one message in a stream, [`Message::decode`] reads it, the `encode` functions write. An UPDATE whose
//! routes can still be told is never a reason to end the session: its [`Update`] says what was wrong. Whatever else is
//! wrong is a [`Notification`] to send before closing.

mod attribute;
mod encode;
mod notification;
mod open;
mod refresh;
mod stored;
#[cfg(test)]
pub(crate) mod tests;
mod update;

pub use encode::{
    Announcer, EncodeContext, EncodeError, encode_attributes, encode_end_of_rib, encode_withdrawal,
};
pub use notification::{Notification, ShutdownText};
pub use open::{AddPathMode, Capability, LongLivedFamily, Open};
pub use refresh::{RefreshKind, RouteRefresh};
pub(crate) use stored::{decode_stored, encode_stored};
pub(crate) use update::families_of_update;
pub use update::{Announcement, Disposition, Fault, FaultKind, Update, UpdateContext, decode_update};

/// Bytes of marker, length and type.
pub const HEADER_BYTES: usize = 19;
/// Longest message, unless RFC 8654 was agreed on.
pub const MESSAGE_BYTES_MAX: usize = 4_096;
/// Longest message under RFC 8654.
pub const EXTENDED_MESSAGE_BYTES_MAX: usize = 65_535;
/// What each message starts with.
const MARKER: [u8; 16] = [0xff; 16];

/// Types of messages (RFC 4271 section 4.1, RFC 2918).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MessageKind {
    /// OPEN.
    Open = 1,
    /// UPDATE.
    Update = 2,
    /// NOTIFICATION.
    Notification = 3,
    /// KEEPALIVE.
    Keepalive = 4,
    /// ROUTE-REFRESH.
    RouteRefresh = 5,
}

impl MessageKind {
    /// The type with this number.
    fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Open),
            2 => Some(Self::Update),
            3 => Some(Self::Notification),
            4 => Some(Self::Keepalive),
            5 => Some(Self::RouteRefresh),
            _ => None,
        }
    }

    /// Whether a message of this type may have this many bytes, header included.
    fn takes(self, length: usize) -> bool {
        match self {
            Self::Open => (29..=MESSAGE_BYTES_MAX).contains(&length),
            Self::Update | Self::RouteRefresh => length >= 23,
            Self::Notification => length >= 21,
            Self::Keepalive => length == HEADER_BYTES,
        }
    }
}

/// One message in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its type.
    pub kind: MessageKind,
    /// What follows the header.
    pub body: &'a [u8],
}

impl Frame<'_> {
    /// Bytes of the whole message.
    #[expect(clippy::len_without_is_empty, reason = "a message is never empty")]
    pub fn len(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }

    /// The message as it came, header included.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len());
        let start = begin(&mut out, self.kind);
        out.extend(self.body);
        finish(&mut out, start);
        out
    }
}

/// Finds the first message in `bytes`; `None` while it is incomplete. No message is longer than `bytes_max`.
///
/// # Errors
///
/// The NOTIFICATION for a bad header (RFC 4271 section 6.1), as soon as the header is there.
pub fn frame(bytes: &[u8], bytes_max: usize) -> Result<Option<Frame<'_>>, Notification> {
    let seen = bytes.len().min(MARKER.len());
    if bytes[..seen] != MARKER[..seen] {
        return Err(Notification::not_synchronised());
    }
    let Some((&[_, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, high, low, kind], _)) =
        bytes.split_first_chunk::<HEADER_BYTES>()
    else {
        return Ok(None);
    };
    let length = u16::from_be_bytes([high, low]);
    let total = usize::from(length);
    if !(HEADER_BYTES..=bytes_max).contains(&total) {
        return Err(Notification::bad_length(length));
    }
    let kind = MessageKind::from_number(kind).ok_or_else(|| Notification::bad_type(kind))?;
    if !kind.takes(total) {
        return Err(Notification::bad_length(length));
    }
    Ok(bytes.get(HEADER_BYTES..total).map(|body| Frame { kind, body }))
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// OPEN.
    Open(Open),
    /// UPDATE.
    Update(Update),
    /// NOTIFICATION.
    Notification(Notification),
    /// KEEPALIVE.
    Keepalive,
    /// ROUTE-REFRESH.
    RouteRefresh(RouteRefresh),
}

impl Message {
    /// Reads what `frame` found.
    ///
    /// # Errors
    ///
    /// The NOTIFICATION to end the session with.
    pub fn decode(frame: Frame<'_>, context: &UpdateContext) -> Result<Self, Notification> {
        Ok(match frame.kind {
            MessageKind::Open => Self::Open(Open::decode(frame.body)?),
            MessageKind::Update => Self::Update(decode_update(frame.body, context)?),
            MessageKind::Notification => Self::Notification(Notification::decode(frame.body)),
            MessageKind::Keepalive => Self::Keepalive,
            MessageKind::RouteRefresh => Self::RouteRefresh(RouteRefresh::decode(frame.body)?),
        })
    }
}

/// A KEEPALIVE.
pub fn encode_keepalive() -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES);
    let start = begin(&mut out, MessageKind::Keepalive);
    finish(&mut out, start);
    out
}

/// Writes a header whose length [`finish`] fills in, and says where it starts.
fn begin(out: &mut Vec<u8>, kind: MessageKind) -> usize {
    let start = out.len();
    out.extend(MARKER);
    out.extend([0, 0, kind as u8]);
    start
}

/// Writes the length of the message that starts at `start`. Callers keep messages below 64 KiB.
fn finish(out: &mut [u8], start: usize) {
    let length = (out.len() - start) as u16;
    put_u16(out, start + 16, length);
}

/// Overwrites two bytes that were reserved at `at`.
fn put_u16(out: &mut [u8], at: usize, value: u16) {
    if let Some(place) = out.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// Takes a big-endian number off the front.
pub(crate) fn take_u16(bytes: &mut &[u8]) -> Option<u16> {
    take_array(bytes).map(u16::from_be_bytes)
}

/// Takes a big-endian number off the front.
pub(crate) fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    take_array(bytes).map(u32::from_be_bytes)
}

/// Takes a byte off the front.
pub(crate) fn take_u8(bytes: &mut &[u8]) -> Option<u8> {
    take_array(bytes).map(|[byte]: [u8; 1]| byte)
}

/// Takes `N` bytes off the front.
pub(crate) fn take_array<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = bytes.split_first_chunk::<N>()?;
    *bytes = tail;
    Some(*head)
}

/// Takes `count` bytes off the front.
pub(crate) fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = bytes.split_at_checked(count)?;
    *bytes = tail;
    Some(head)
}
