//! ROUTE-REFRESH (RFC 2918, RFC 7313): send me your routes again.

use super::{HEADER_BYTES, MessageKind, Notification, begin, finish, take_array, take_u8, take_u16};
use crate::number::AfiSafi;

/// What a ROUTE-REFRESH says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshKind {
    /// Send the routes again.
    Request,
    /// From here on all routes follow again (RFC 7313).
    Begin,
    /// All routes were sent again; those that were not are gone.
    End,
    /// A number that we do not know; ignored (RFC 7313 section 5).
    Unknown(u8),
}

/// A ROUTE-REFRESH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteRefresh {
    /// Of which family.
    pub family: AfiSafi,
    /// What it says.
    pub kind: RefreshKind,
}

impl RouteRefresh {
    /// Reads the body of a message. Route filters behind it (RFC 5291) are ignored: we never offer to take them.
    ///
    /// # Errors
    ///
    /// 7/1 where begin or end have another length (RFC 7313 section 5).
    pub fn decode(body: &[u8]) -> Result<Self, Notification> {
        let mut rest = body;
        let fields = take_u16(&mut rest).zip(take_array(&mut rest)).zip(take_u8(&mut rest));
        let Some(((afi, [subtype]), safi)) = fields else {
            return Err(Notification::bad_length((HEADER_BYTES + body.len()) as u16));
        };
        let kind = match subtype {
            0 => RefreshKind::Request,
            1 => RefreshKind::Begin,
            2 => RefreshKind::End,
            other => RefreshKind::Unknown(other),
        };
        if matches!(kind, RefreshKind::Begin | RefreshKind::End) && !rest.is_empty() {
            let mut message = Vec::new();
            let start = begin(&mut message, MessageKind::RouteRefresh);
            message.extend(body);
            finish(&mut message, start);
            return Err(Notification::bad_refresh_length(&message));
        }
        Ok(Self { family: AfiSafi { afi, safi }, kind })
    }

    /// The message.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES + 4);
        let start = begin(&mut out, MessageKind::RouteRefresh);
        out.extend(self.family.afi.to_be_bytes());
        out.push(match self.kind {
            RefreshKind::Request => 0,
            RefreshKind::Begin => 1,
            RefreshKind::End => 2,
            RefreshKind::Unknown(other) => other,
        });
        out.push(self.family.safi);
        finish(&mut out, start);
        out
    }
}
