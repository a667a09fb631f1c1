//! NOTIFICATION (RFC 4271 section 4.5): why a session ends.

use super::{HEADER_BYTES, MESSAGE_BYTES_MAX, MessageKind, begin, finish};
use std::fmt;

/// Why a session ends, as it is told to the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// What kind of error.
    pub code: u8,
    /// Which one.
    pub subcode: u8,
    /// What belongs to it.
    pub data: Vec<u8>,
}

/// A sentence for the operator at the other end: UTF-8 of at most 255 bytes (RFC 9003).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShutdownText(String);

impl ShutdownText {
    /// Takes `text`, cut at the last character that fits.
    pub fn new(text: &str) -> Self {
        Self(text[..text.floor_char_boundary(255)].to_owned())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Error codes (RFC 4271 section 4.5, RFC 7313).
mod code {
    pub(super) const HEADER: u8 = 1;
    pub(super) const OPEN: u8 = 2;
    pub(super) const UPDATE: u8 = 3;
    pub(super) const HOLD: u8 = 4;
    pub(super) const FSM: u8 = 5;
    pub(super) const CEASE: u8 = 6;
    pub(super) const REFRESH: u8 = 7;
}

/// Hard Reset (RFC 8538 section 3), which wraps another NOTIFICATION.
const HARD_RESET: u8 = 9;

impl Notification {
    fn new(code: u8, subcode: u8, data: impl Into<Vec<u8>>) -> Self {
        Self { code, subcode, data: data.into() }
    }

    /// The marker is not all ones (1/1).
    pub fn not_synchronised() -> Self {
        Self::new(code::HEADER, 1, [])
    }

    /// A message cannot have this length (1/2).
    pub fn bad_length(length: u16) -> Self {
        Self::new(code::HEADER, 2, length.to_be_bytes())
    }

    /// Nobody knows this type of message (1/3).
    pub fn bad_type(kind: u8) -> Self {
        Self::new(code::HEADER, 3, [kind])
    }

    /// An OPEN that cannot be read (2/0).
    pub fn open_malformed() -> Self {
        Self::new(code::OPEN, 0, [])
    }

    /// Only version 4 is spoken (2/1).
    pub fn bad_version() -> Self {
        Self::new(code::OPEN, 1, 4_u16.to_be_bytes())
    }

    /// Not the AS that was expected, or AS 0 (2/2).
    pub fn bad_peer_as() -> Self {
        Self::new(code::OPEN, 2, [])
    }

    /// Router id 0, or our own from inside our AS (2/3).
    pub fn bad_router_id() -> Self {
        Self::new(code::OPEN, 3, [])
    }

    /// An optional parameter that nobody knows (2/4).
    pub fn bad_parameter() -> Self {
        Self::new(code::OPEN, 4, [])
    }

    /// A hold time of 1 or 2 s (2/6).
    pub fn bad_hold_time() -> Self {
        Self::new(code::OPEN, 6, [])
    }

    /// We cannot do without this capability (2/7, RFC 5492), given as it would be announced.
    pub fn missing_capability(capability: &[u8]) -> Self {
        Self::new(code::OPEN, 7, capability)
    }

    /// Lengths in the UPDATE contradict each other, or something stands twice (3/1).
    pub fn malformed_attributes() -> Self {
        Self::new(code::UPDATE, 1, [])
    }

    /// An attribute that everybody should know, and nobody does (3/2).
    pub fn unknown_well_known(attribute: &[u8]) -> Self {
        Self::new(code::UPDATE, 2, attribute)
    }

    /// An optional attribute whose routes cannot be told (3/9).
    pub fn bad_optional_attribute(attribute: &[u8]) -> Self {
        Self::new(code::UPDATE, 9, attribute)
    }

    /// Prefixes that cannot be told (3/10).
    pub fn bad_network_field() -> Self {
        Self::new(code::UPDATE, 10, [])
    }

    /// Nothing was heard for the hold time (4/0).
    pub fn hold_timer_expired() -> Self {
        Self::new(code::HOLD, 0, [])
    }

    /// A message that does not belong into `OpenSent` (5/1, RFC 6608).
    pub fn unexpected_in_open_sent(kind: u8) -> Self {
        Self::new(code::FSM, 1, [kind])
    }

    /// A message that does not belong into `OpenConfirm` (5/2).
    pub fn unexpected_in_open_confirm(kind: u8) -> Self {
        Self::new(code::FSM, 2, [kind])
    }

    /// A message that does not belong into Established (5/3).
    pub fn unexpected_in_established(kind: u8) -> Self {
        Self::new(code::FSM, 3, [kind])
    }

    /// Too many prefixes (6/1, RFC 4486): the family and the limit.
    pub fn max_prefixes(afi: u16, safi: u8, max: u32) -> Self {
        let mut data = afi.to_be_bytes().to_vec();
        data.push(safi);
        data.extend(max.to_be_bytes());
        Self::new(code::CEASE, 1, data)
    }

    /// Somebody shut the session down (6/2).
    pub fn admin_shutdown(text: &ShutdownText) -> Self {
        Self::new(code::CEASE, 2, with_length(text))
    }

    /// The peer is no longer configured (6/3).
    pub fn deconfigured() -> Self {
        Self::new(code::CEASE, 3, [])
    }

    /// Somebody reset the session (6/4).
    pub fn admin_reset(text: &ShutdownText) -> Self {
        Self::new(code::CEASE, 4, with_length(text))
    }

    /// The connection is not wanted (6/5).
    pub fn rejected() -> Self {
        Self::new(code::CEASE, 5, [])
    }

    /// The configuration changed (6/6).
    pub fn config_changed() -> Self {
        Self::new(code::CEASE, 6, [])
    }

    /// Two connections, and the other one stays (6/7).
    pub fn collision() -> Self {
        Self::new(code::CEASE, 7, [])
    }

    /// Something ran out here (6/8).
    pub fn out_of_resources() -> Self {
        Self::new(code::CEASE, 8, [])
    }

    /// BFD says that the path is down (6/10, RFC 9384).
    pub fn bfd_down() -> Self {
        Self::new(code::CEASE, 10, [])
    }

    /// A ROUTE-REFRESH of impossible length (7/1, RFC 7313), given whole.
    pub fn bad_refresh_length(message: &[u8]) -> Self {
        Self::new(code::REFRESH, 1, message)
    }

    /// This one wrapped so that a graceful restart does not outlive it (RFC 8538 section 3).
    #[must_use]
    pub fn hard(self) -> Self {
        let mut data = vec![self.code, self.subcode];
        data.extend(self.data);
        Self::new(code::CEASE, HARD_RESET, data)
    }

    /// Whether it is a Hard Reset, which no graceful restart outlives.
    pub fn is_hard_reset(&self) -> bool {
        self.code == code::CEASE && self.subcode == HARD_RESET
    }

    /// What was wrapped, or this one.
    #[must_use]
    pub fn cause(&self) -> Self {
        match (self.is_hard_reset(), self.data.as_slice()) {
            (true, [code, subcode, data @ ..]) => Self::new(*code, *subcode, data),
            _ => self.clone(),
        }
    }

    /// What the operator at the other end wrote (RFC 9003), if anything. What is no UTF-8 is replaced.
    pub fn text(&self) -> Option<String> {
        let cause = self.cause();
        if cause.code != code::CEASE || !matches!(cause.subcode, 2 | 4) {
            return None;
        }
        let (length, text) = cause.data.split_first()?;
        let text = text.get(..usize::from(*length))?;
        (!text.is_empty()).then(|| String::from_utf8_lossy(text).into_owned())
    }

    /// Reads the body of a message, which has at least two bytes; missing ones count as 0.
    pub fn decode(body: &[u8]) -> Self {
        let byte = |n| body.get(n).copied().unwrap_or(0);
        Self::new(byte(0), byte(1), body.get(2..).unwrap_or_default())
    }

    /// The message. Data that would not fit is cut.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES + 2 + self.data.len());
        let start = begin(&mut out, MessageKind::Notification);
        out.extend([self.code, self.subcode]);
        out.extend(self.data.iter().take(MESSAGE_BYTES_MAX - HEADER_BYTES - 2));
        finish(&mut out, start);
        out
    }

    /// What code and subcode mean.
    fn words(&self) -> &'static str {
        match (self.code, self.subcode) {
            (code::HEADER, 1) => "connection not synchronised",
            (code::HEADER, 2) => "bad message length",
            (code::HEADER, 3) => "bad message type",
            (code::HEADER, _) => "message header error",
            (code::OPEN, 1) => "unsupported version",
            (code::OPEN, 2) => "bad peer AS",
            (code::OPEN, 3) => "bad router id",
            (code::OPEN, 4) => "unsupported optional parameter",
            (code::OPEN, 6) => "unacceptable hold time",
            (code::OPEN, 7) => "unsupported capability",
            (code::OPEN, 11) => "role mismatch",
            (code::OPEN, _) => "OPEN error",
            (code::UPDATE, 1) => "malformed attribute list",
            (code::UPDATE, 2) => "unrecognised well-known attribute",
            (code::UPDATE, 3) => "missing well-known attribute",
            (code::UPDATE, 4) => "attribute flags error",
            (code::UPDATE, 5) => "attribute length error",
            (code::UPDATE, 6) => "invalid ORIGIN",
            (code::UPDATE, 8) => "invalid NEXT_HOP",
            (code::UPDATE, 9) => "optional attribute error",
            (code::UPDATE, 10) => "invalid network field",
            (code::UPDATE, 11) => "malformed AS_PATH",
            (code::UPDATE, _) => "UPDATE error",
            (code::HOLD, _) => "hold timer expired",
            (code::FSM, 1) => "unexpected message in OpenSent",
            (code::FSM, 2) => "unexpected message in OpenConfirm",
            (code::FSM, 3) => "unexpected message in Established",
            (code::FSM, _) => "state machine error",
            (code::CEASE, 1) => "maximum number of prefixes reached",
            (code::CEASE, 2) => "administrative shutdown",
            (code::CEASE, 3) => "peer de-configured",
            (code::CEASE, 4) => "administrative reset",
            (code::CEASE, 5) => "connection rejected",
            (code::CEASE, 6) => "other configuration change",
            (code::CEASE, 7) => "connection collision resolution",
            (code::CEASE, 8) => "out of resources",
            (code::CEASE, HARD_RESET) => "hard reset",
            (code::CEASE, 10) => "BFD down",
            (code::CEASE, _) => "cease",
            (code::REFRESH, 1) => "bad ROUTE-REFRESH length",
            (code::REFRESH, _) => "ROUTE-REFRESH error",
            _ => "unknown error",
        }
    }
}

/// The text after its length.
fn with_length(text: &ShutdownText) -> Vec<u8> {
    let mut data = vec![text.0.len() as u8];
    data.extend(text.0.as_bytes());
    data
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = self.cause();
        write!(f, "{} ({}/{})", cause.words(), cause.code, cause.subcode)?;
        if self.is_hard_reset() {
            f.write_str(", hard reset")?;
        }
        self.text().map_or(Ok(()), |text| write!(f, ": {text:?}"))
    }
}
