//! Messages out of bytes.

use super::{
    Direction, DownReason, HEADER_BYTES, Information, MESSAGE_BYTES_MAX, Message, PeerHeader, PeerUp, Scope,
    Statistic, TYPE_LOC_RIB, Table, VERSION, flag, kind,
};
use crate::{
    number::{AfiSafi, Asn, RouterId},
    wire::{
        self, EXTENDED_MESSAGE_BYTES_MAX, MessageKind, Notification, take, take_array, take_u8, take_u16,
        take_u32,
    },
};
use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

/// Why bytes are no message of BMP.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Another version.
    #[error("BMP of version {0}, and version {VERSION} is read")]
    Version(u8),
    /// A length that no message has.
    #[error("a message of {0} bytes: there are at least {HEADER_BYTES} and at most {MESSAGE_BYTES_MAX}")]
    Length(u32),
    /// A type that is not known.
    #[error("a message of the unknown type {0}")]
    Kind(u8),
    /// Something in it is cut short, or has a value that it cannot have.
    #[error("a message of type {kind} whose {what} cannot be read")]
    Malformed {
        /// Type of the message.
        kind: u8,
        /// Part of the message.
        what: &'static str,
    },
}

/// Reads the first message of a stream, and says how many bytes it has; `None` while it is incomplete.
///
/// # Errors
///
/// [`DecodeError`]: where the next message starts is not known then, except after [`DecodeError::Malformed`].
pub fn decode(bytes: &[u8]) -> Result<Option<(Message, usize)>, DecodeError> {
    let mut rest = bytes;
    let Some(version) = take_u8(&mut rest) else { return Ok(None) };
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let (Some(length), Some(kind)) = (take_u32(&mut rest), take_u8(&mut rest)) else { return Ok(None) };
    let total = length as usize;
    if !(HEADER_BYTES..=MESSAGE_BYTES_MAX).contains(&total) {
        return Err(DecodeError::Length(length));
    }
    let Some(body) = bytes.get(HEADER_BYTES..total) else { return Ok(None) };
    let message = Body { kind, rest: body }.message()?;
    Ok(Some((message, total)))
}

/// What is left of a message.
struct Body<'a> {
    kind: u8,
    rest: &'a [u8],
}

impl<'a> Body<'a> {
    fn message(mut self) -> Result<Message, DecodeError> {
        Ok(match self.kind {
            kind::ROUTE_MONITORING => {
                let peer = self.peer()?;
                let update = self.bgp(MessageKind::Update, "UPDATE")?.to_vec();
                self.end("UPDATE")?;
                Message::RouteMonitoring { peer, update }
            }
            kind::STATISTICS_REPORT => self.report()?,
            kind::PEER_DOWN => {
                let peer = self.peer()?;
                Message::PeerDown { peer, reason: self.reason()? }
            }
            kind::PEER_UP => Message::PeerUp(self.up()?),
            kind::INITIATION => Message::Initiation(self.information()?),
            kind::TERMINATION => Message::Termination(self.information()?),
            other => return Err(DecodeError::Kind(other)),
        })
    }

    fn need<T>(&self, found: Option<T>, what: &'static str) -> Result<T, DecodeError> {
        found.ok_or(DecodeError::Malformed { kind: self.kind, what })
    }

    /// Nothing follows.
    fn end(&self, what: &'static str) -> Result<(), DecodeError> {
        self.need(self.rest.is_empty().then_some(()), what)
    }

    fn peer(&mut self) -> Result<PeerHeader, DecodeError> {
        let peer = peer(&mut self.rest);
        self.need(peer, "per-peer header")
    }

    /// One message of BGP of this type, with its header.
    fn bgp(&mut self, wanted: MessageKind, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let is_update = wanted == MessageKind::Update;
        let max = if is_update { EXTENDED_MESSAGE_BYTES_MAX } else { wire::MESSAGE_BYTES_MAX };
        let frame = wire::frame(self.rest, max).ok().flatten();
        let frame = frame.filter(|frame| frame.kind == wanted);
        let message = frame.and_then(|frame| take(&mut self.rest, frame.len()));
        self.need(message, what)
    }

    fn notification(&mut self) -> Result<Notification, DecodeError> {
        let message = self.bgp(MessageKind::Notification, "NOTIFICATION")?;
        self.end("NOTIFICATION")?;
        Ok(Notification::decode(message.get(wire::HEADER_BYTES..).unwrap_or_default()))
    }

    fn field(&mut self, what: &'static str) -> Result<(u16, &'a [u8]), DecodeError> {
        let field = field(&mut self.rest);
        self.need(field, what)
    }

    fn information(&mut self) -> Result<Vec<Information>, DecodeError> {
        let mut information = Vec::new();
        while !self.rest.is_empty() {
            let (kind, value) = self.field("information")?;
            information.push(Information { kind, value: value.to_vec() });
        }
        Ok(information)
    }

    fn up(&mut self) -> Result<PeerUp, DecodeError> {
        let peer = self.peer()?;
        let is_six = matches!(peer.table, Table::Peer { address: IpAddr::V6(_), .. });
        let local = take_array(&mut self.rest);
        let local_address = self.need(local.and_then(|octets| address(octets, is_six)), "local address")?;
        let ports = take_u16(&mut self.rest).zip(take_u16(&mut self.rest));
        let (local_port, remote_port) = self.need(ports, "ports")?;
        let sent = self.bgp(MessageKind::Open, "sent OPEN")?.to_vec();
        let received = self.bgp(MessageKind::Open, "received OPEN")?.to_vec();
        let information = self.information()?;
        Ok(PeerUp { peer, local_address, local_port, remote_port, sent, received, information })
    }

    fn reason(&mut self) -> Result<DownReason, DecodeError> {
        let code = take_u8(&mut self.rest);
        Ok(match self.need(code, "reason")? {
            1 => DownReason::LocalNotification(self.notification()?),
            2 => {
                let event = take_u16(&mut self.rest);
                let event = self.need(event, "event")?;
                self.end("event")?;
                DownReason::LocalEvent(event)
            }
            3 => DownReason::RemoteNotification(self.notification()?),
            4 => self.end("reason").map(|()| DownReason::RemoteSilent)?,
            5 => self.end("reason").map(|()| DownReason::Unmonitored)?,
            6 => DownReason::LocRib(self.information()?),
            _ => return self.need(None, "reason"),
        })
    }

    fn report(&mut self) -> Result<Message, DecodeError> {
        let peer = self.peer()?;
        let count = take_u32(&mut self.rest);
        let count = self.need(count, "number of statistics")?;
        let mut statistics = Vec::new();
        while !self.rest.is_empty() {
            let (kind, value) = self.field("statistics")?;
            let statistic = statistic(kind, value);
            statistics.push(self.need(statistic, "statistics")?);
        }
        self.need((statistics.len() == count as usize).then_some(()), "number of statistics")?;
        Ok(Message::StatisticsReport { peer, statistics })
    }
}

fn peer(rest: &mut &[u8]) -> Option<PeerHeader> {
    let kind = take_u8(rest)?;
    let flags = take_u8(rest)?;
    let distinguisher = take_u64(rest)?;
    let octets = take_array(rest)?;
    let scope = |scope| {
        let direction = if flags & flag::O == 0 { Direction::In } else { Direction::Out };
        Some(Table::Peer {
            scope,
            address: address(octets, flags & flag::V != 0)?,
            direction,
            post_policy: flags & flag::L != 0,
            two_byte_as: flags & flag::A != 0,
        })
    };
    let table = match kind {
        0 => scope(Scope::Global)?,
        1 => scope(Scope::Vpn)?,
        2 => scope(Scope::Local)?,
        TYPE_LOC_RIB => Table::LocRib { filtered: flags & flag::F != 0 },
        _ => return None,
    };
    let (asn, id) = (Asn(take_u32(rest)?), RouterId(take_u32(rest)?));
    let (seconds, micros) = (take_u32(rest)?, take_u32(rest)?);
    let at = Duration::from_secs(seconds.into()) + Duration::from_micros(micros.into());
    Some(PeerHeader { table, distinguisher, asn, id, at }).filter(|_| micros < 1_000_000)
}

/// IPv4 stands in the last four bytes, after zeros.
fn address(octets: [u8; 16], is_six: bool) -> Option<IpAddr> {
    if is_six {
        return Some(Ipv6Addr::from(octets).into());
    }
    let [zeros @ .., a, b, c, d] = octets;
    zeros.iter().all(|octet| *octet == 0).then(|| [a, b, c, d].into())
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let (kind, length) = (take_u16(rest)?, take_u16(rest)?);
    Some((kind, take(rest, length.into())?))
}

fn statistic(kind: u16, value: &[u8]) -> Option<Statistic> {
    let mut rest = value;
    let statistic = match kind {
        7 => Statistic::AdjRibIn(take_u64(&mut rest)?),
        8 => Statistic::LocRib(take_u64(&mut rest)?),
        9 => Statistic::AdjRibInOf(family(&mut rest)?, take_u64(&mut rest)?),
        10 => Statistic::LocRibOf(family(&mut rest)?, take_u64(&mut rest)?),
        11 => Statistic::TreatedAsWithdraw(take_u32(&mut rest)?),
        _ => return Some(Statistic::Other { kind, value: value.to_vec() }),
    };
    rest.is_empty().then_some(statistic)
}

fn family(rest: &mut &[u8]) -> Option<AfiSafi> {
    Some(AfiSafi { afi: take_u16(rest)?, safi: take_u8(rest)? })
}

fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    take_array(rest).map(u64::from_be_bytes)
}
