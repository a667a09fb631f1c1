//! `BGP4MP` and `BGP4MP_ET` (RFC 6396 sections 4.4 and 4.5, RFC 8050 section 3): messages of a session, and its states.

use super::{
    Body, EncodeError, RecordFault, RecordType, Time, begin, finish, is_six, kind, put_address, take_address,
};
use crate::{
    number::{Asn, Family, FamilySet},
    session::{Negotiated, State},
    wire::{
        EXTENDED_MESSAGE_BYTES_MAX, HEADER_BYTES, Message, Notification, UpdateContext, families_of_update,
        frame, take, take_u16, take_u32,
    },
};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Subtypes.
mod subtype {
    pub(super) const STATE_CHANGE: u16 = 0;
    pub(super) const MESSAGE: u16 = 1;
    pub(super) const MESSAGE_AS4: u16 = 4;
    pub(super) const STATE_CHANGE_AS4: u16 = 5;
    pub(super) const MESSAGE_LOCAL: u16 = 6;
    pub(super) const MESSAGE_AS4_LOCAL: u16 = 7;
    pub(super) const MESSAGE_ADDPATH: u16 = 8;
    pub(super) const MESSAGE_AS4_ADDPATH: u16 = 9;
    pub(super) const MESSAGE_LOCAL_ADDPATH: u16 = 10;
    pub(super) const MESSAGE_AS4_LOCAL_ADDPATH: u16 = 11;
}

/// Both ends of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// AS of the peer.
    pub peer_as: Asn,
    /// AS of who wrote the file.
    pub local_as: Asn,
    /// Number of the interface; 0 where it is not told.
    pub interface: u16,
    /// Address of the peer.
    pub peer: IpAddr,
    /// Address of who wrote the file, of the same family.
    pub local: IpAddr,
}

/// A message of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionMessage {
    /// Between whom.
    pub ends: Ends,
    /// AS numbers in it have four bytes.
    pub as4: bool,
    /// Prefixes in it have path ids.
    pub add_path: bool,
    /// Who wrote the file sent it; else the peer did.
    pub is_local: bool,
    /// All of it, from the marker on.
    pub bytes: Vec<u8>,
}

/// A session changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// Between whom.
    pub ends: Ends,
    /// AS numbers of the ends have four bytes.
    pub as4: bool,
    /// Before.
    pub old: StateNumber,
    /// After.
    pub new: StateNumber,
}

/// A state as a number: 1 to 6 are those of RFC 4271, Quagga's kin have a few more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateNumber(pub u16);

impl From<State> for StateNumber {
    fn from(state: State) -> Self {
        Self(match state {
            State::Idle => 1,
            State::Connect => 2,
            State::Active => 3,
            State::OpenSent => 4,
            State::OpenConfirm => 5,
            State::Established => 6,
        })
    }
}

impl fmt::Display for StateNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names =
            ["idle", "connect", "active", "open-sent", "open-confirm", "established", "clearing", "deleted"];
        match usize::from(self.0).checked_sub(1).and_then(|at| names.get(at)) {
            Some(name) => f.write_str(name),
            None => write!(f, "state {}", self.0),
        }
    }
}

/// Numbers of AS width, path ids and direction, as a subtype has them.
fn message_shape(subtype: u16) -> Option<(bool, bool, bool)> {
    Some(match subtype {
        subtype::MESSAGE => (false, false, false),
        subtype::MESSAGE_AS4 => (true, false, false),
        subtype::MESSAGE_LOCAL => (false, false, true),
        subtype::MESSAGE_AS4_LOCAL => (true, false, true),
        subtype::MESSAGE_ADDPATH => (false, true, false),
        subtype::MESSAGE_AS4_ADDPATH => (true, true, false),
        subtype::MESSAGE_LOCAL_ADDPATH => (false, true, true),
        subtype::MESSAGE_AS4_LOCAL_ADDPATH => (true, true, true),
        _ => return None,
    })
}

/// Reads a record of this subtype, from behind the time on.
pub(super) fn decode(rest: &mut &[u8], subtype: u16) -> Result<Body, RecordFault> {
    if let Some((as4, add_path, is_local)) = message_shape(subtype) {
        let ends = Ends::decode(rest, as4)?;
        let bytes = take(rest, rest.len()).unwrap_or_default().to_vec();
        return Ok(Body::Message(SessionMessage { ends, as4, add_path, is_local, bytes }));
    }
    let as4 = match subtype {
        subtype::STATE_CHANGE => false,
        subtype::STATE_CHANGE_AS4 => true,
        _ => return Ok(Body::Skipped),
    };
    let ends = Ends::decode(rest, as4)?;
    let states = take_u16(rest).zip(take_u16(rest)).ok_or(RecordFault::Short("states"))?;
    let (old, new) = (StateNumber(states.0), StateNumber(states.1));
    Ok(Body::State(StateChange { ends, as4, old, new }))
}

impl Ends {
    fn decode(rest: &mut &[u8], as4: bool) -> Result<Self, RecordFault> {
        let short = RecordFault::Short;
        let mut asn = || if as4 { take_u32(rest) } else { take_u16(rest).map(u32::from) }.map(Asn);
        let (peer_as, local_as) = asn().zip(asn()).ok_or(short("AS numbers of the session"))?;
        let interface = take_u16(rest).ok_or(short("interface of the session"))?;
        let is_six = is_six(take_u16(rest).ok_or(short("address family of the session"))?)?;
        let peer = take_address(rest, is_six).ok_or(short("address of the peer"))?;
        let local = take_address(rest, is_six).ok_or(short("address of the collector"))?;
        Ok(Self { peer_as, local_as, interface, peer, local })
    }

    /// Both addresses must be of one family: an own one of another family becomes the unspecified one.
    fn encode(&self, as4: bool, out: &mut Vec<u8>) {
        for asn in [self.peer_as, self.local_as] {
            if as4 {
                out.extend(asn.0.to_be_bytes());
            } else {
                out.extend(asn.two_bytes().to_be_bytes());
            }
        }
        out.extend(self.interface.to_be_bytes());
        out.extend(Family::of(self.peer).afi_safi().afi.to_be_bytes());
        put_address(out, self.peer);
        put_address(
            out,
            match (self.peer, self.local) {
                (IpAddr::V4(_), IpAddr::V6(_)) => Ipv4Addr::UNSPECIFIED.into(),
                (IpAddr::V6(_), IpAddr::V4(_)) => Ipv6Addr::UNSPECIFIED.into(),
                (_, local) => local,
            },
        );
    }
}

/// The type whose records keep the time as `time` has it.
fn record(time: Time, subtype: u16) -> RecordType {
    RecordType { kind: if time.micros.is_some() { kind::BGP4MP_ET } else { kind::BGP4MP }, subtype }
}

impl SessionMessage {
    /// Reads the message; only the first one, if there are several.
    ///
    /// # Errors
    ///
    /// What whoever got it in a session would have answered.
    pub fn decode(&self) -> Result<Message, Notification> {
        let all: FamilySet = Family::ALL.into_iter().collect();
        let context = UpdateContext {
            as4: self.as4,
            families: all,
            add_path: if self.add_path { all } else { FamilySet::NONE },
            extended_next_hop: true,
            ..UpdateContext::default()
        };
        let found = frame(&self.bytes, EXTENDED_MESSAGE_BYTES_MAX)?;
        let cut_off = || Notification::bad_length(self.bytes.len() as u16);
        Message::decode(found.ok_or_else(cut_off)?, &context)
    }

    /// An UPDATE that came in a session.
    ///
    /// Where only one family has path ids, the message says which it is of. One of both families could not be told as it
    /// came (RFC 8050 has one subtype for all prefixes of a message); no speaker is known to send such.
    pub fn received(negotiated: &Negotiated, bytes: Vec<u8>) -> Self {
        let numbered = negotiated.add_path_receive.and(negotiated.families);
        let add_path = numbered == negotiated.families
            || !numbered.is_empty()
                && !families_of_update(bytes.get(HEADER_BYTES..).unwrap_or_default())
                    .and(numbered)
                    .is_empty();
        let ends = Ends {
            peer_as: negotiated.peer_as,
            local_as: negotiated.local_as,
            interface: 0,
            peer: negotiated.peer_address,
            local: negotiated.local_address,
        };
        let add_path = add_path && !numbered.is_empty();
        Self { ends, as4: negotiated.as4, add_path, is_local: false, bytes }
    }

    /// Appends a record with it.
    ///
    /// # Errors
    ///
    /// A message of more than 65,535 bytes, which is none of BGP; nothing was appended.
    pub fn encode(&self, time: Time, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.bytes.len() > EXTENDED_MESSAGE_BYTES_MAX {
            return Err(EncodeError::TooMany { what: "bytes of a message", count: self.bytes.len() });
        }
        let all = subtype::MESSAGE..=subtype::MESSAGE_AS4_LOCAL_ADDPATH;
        let shape = Some((self.as4, self.add_path, self.is_local));
        let subtype = { all }.find(|subtype| message_shape(*subtype) == shape).unwrap_or(subtype::MESSAGE);
        let start = begin(out, time, record(time, subtype));
        self.ends.encode(self.as4, out);
        out.extend(&self.bytes);
        finish(out, start);
        Ok(())
    }
}

impl StateChange {
    /// Appends a record with it.
    pub fn encode(&self, time: Time, out: &mut Vec<u8>) {
        let subtype = if self.as4 { subtype::STATE_CHANGE_AS4 } else { subtype::STATE_CHANGE };
        let start = begin(out, time, record(time, subtype));
        self.ends.encode(self.as4, out);
        out.extend(self.old.0.to_be_bytes());
        out.extend(self.new.0.to_be_bytes());
        finish(out, start);
    }
}
