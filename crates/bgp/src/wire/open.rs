//! OPEN (RFC 4271 section 4.2) with capabilities (RFC 5492) and long optional parameters (RFC 9072).

use super::{
    MessageKind, Notification, begin, finish, put_u16, take, take_array, take_u8, take_u16, take_u32,
};
use crate::number::{AfiSafi, Asn};

/// The one optional parameter that is left: capabilities.
const PARAMETER_CAPABILITIES: u8 = 2;
/// Says that lengths of parameters have two bytes (RFC 9072).
const PARAMETER_EXTENDED: u8 = 255;

/// An OPEN as it is read, before anybody judges whether we want this peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The AS in its two bytes; [`Open::asn`] has the true one.
    pub as_field: u16,
    /// Offered hold time in seconds.
    pub hold_time: u16,
    /// Router id, 0 too.
    pub router_id: u32,
    /// All capabilities in their order.
    pub capabilities: Vec<Capability>,
}

/// What a speaker can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Routes of this family (1, RFC 4760).
    Multiprotocol(AfiSafi),
    /// ROUTE-REFRESH (2, RFC 2918).
    RouteRefresh,
    /// ROUTE-REFRESH as old Cisco routers call it (128).
    RouteRefreshOld,
    /// Next hops of another family (5, RFC 8950): family of the routes, AFI of the next hop.
    ExtendedNextHop(Vec<(AfiSafi, u16)>),
    /// Messages of up to 65,535 bytes (6, RFC 8654).
    ExtendedMessage,
    /// Graceful restart (64, RFC 4724).
    GracefulRestart {
        /// The speaker has just restarted.
        restarting: bool,
        /// Also after NOTIFICATION (RFC 8538).
        notification: bool,
        /// Seconds to wait for it, at most 4,095.
        restart_time: u16,
        /// Families, and whether forwarding went on meanwhile.
        families: Vec<(AfiSafi, bool)>,
    },
    /// AS numbers of four bytes, and the speaker's own (65, RFC 6793).
    FourByteAs(Asn),
    /// Several paths to a prefix (69, RFC 7911).
    AddPath(Vec<(AfiSafi, AddPathMode)>),
    /// ROUTE-REFRESH with begin and end (70, RFC 7313).
    EnhancedRefresh,
    /// Long-lived graceful restart (71, RFC 9494).
    LongLived(Vec<LongLivedFamily>),
    /// The speaker's name and domain (73).
    HostName {
        /// Its name.
        host: String,
        /// Its domain.
        domain: String,
    },
    /// The speaker's software (75).
    SoftwareVersion(String),
    /// Anything else, and known ones of unexpected length: ignored (RFC 5492 section 3).
    Unknown {
        /// Its number.
        code: u8,
        /// What is in it.
        value: Vec<u8>,
    },
}

/// In which direction a speaker has several paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AddPathMode {
    /// It takes them.
    Receive = 1,
    /// It sends them.
    Send = 2,
    /// Both.
    Both = 3,
}

impl AddPathMode {
    /// Whether the speaker takes several paths.
    pub fn receives(self) -> bool {
        self != Self::Send
    }

    /// Whether the speaker sends several paths.
    pub fn sends(self) -> bool {
        self != Self::Receive
    }
}

/// A family in the capability of RFC 9494.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongLivedFamily {
    /// Which one.
    pub family: AfiSafi,
    /// Forwarding went on meanwhile.
    pub forwarding: bool,
    /// Seconds to keep its routes, at most 16,777,215.
    pub stale_time: u32,
}

impl Open {
    /// The sender's AS: of the capability, else of the field.
    pub fn asn(&self) -> Asn {
        self.capabilities
            .iter()
            .find_map(|capability| match capability {
                Capability::FourByteAs(asn) => Some(*asn),
                _ => None,
            })
            .unwrap_or(Asn(self.as_field.into()))
    }

    /// Reads the body of a message.
    ///
    /// # Errors
    ///
    /// 2/1 for another version, 2/4 for an unknown optional parameter, 2/0 for what cannot be read.
    pub fn decode(body: &[u8]) -> Result<Self, Notification> {
        let rest = &mut &*body;
        let version = take_u8(rest).ok_or_else(Notification::open_malformed)?;
        if version != 4 {
            return Err(Notification::bad_version());
        }
        let (Some(as_field), Some(hold_time), Some(router_id), Some(length)) =
            (take_u16(rest), take_u16(rest), take_u32(rest), take_u8(rest))
        else {
            return Err(Notification::open_malformed());
        };
        let capabilities = decode_parameters(length, rest)?;
        Ok(Self { as_field, hold_time, router_id, capabilities })
    }

    /// The message. Parameters that need more than 255 bytes go out as RFC 9072 says.
    pub fn encode(&self) -> Vec<u8> {
        let mut capabilities = Vec::new();
        for capability in &self.capabilities {
            capability.encode(&mut capabilities);
        }
        let mut out = Vec::new();
        let start = begin(&mut out, MessageKind::Open);
        out.push(4);
        out.extend(self.as_field.to_be_bytes());
        out.extend(self.hold_time.to_be_bytes());
        out.extend(self.router_id.to_be_bytes());
        match capabilities.len() {
            0 => out.push(0),
            length @ 1..=253 => {
                out.extend([length as u8 + 2, PARAMETER_CAPABILITIES, length as u8]);
            }
            length => {
                out.extend([255, PARAMETER_EXTENDED]);
                out.extend((length as u16 + 3).to_be_bytes());
                out.push(PARAMETER_CAPABILITIES);
                out.extend((length as u16).to_be_bytes());
            }
        }
        out.extend(capabilities);
        finish(&mut out, start);
        out
    }
}

/// Reads all optional parameters; `length` is the one byte that stands before them.
fn decode_parameters(length: u8, mut rest: &[u8]) -> Result<Vec<Capability>, Notification> {
    // RFC 9072 section 2: any length but 0 may stand before the escape.
    let extended = length != 0 && rest.first() == Some(&PARAMETER_EXTENDED);
    let expected = if extended {
        take_u8(&mut rest);
        usize::from(take_u16(&mut rest).ok_or_else(Notification::open_malformed)?)
    } else {
        usize::from(length)
    };
    if rest.len() != expected {
        return Err(Notification::open_malformed());
    }
    let mut capabilities = Vec::new();
    while let Some(kind) = take_u8(&mut rest) {
        let length =
            if extended { take_u16(&mut rest).map(usize::from) } else { take_u8(&mut rest).map(usize::from) };
        let mut value =
            length.and_then(|length| take(&mut rest, length)).ok_or_else(Notification::open_malformed)?;
        if kind != PARAMETER_CAPABILITIES {
            return Err(Notification::bad_parameter());
        }
        while !value.is_empty() {
            capabilities.push(Capability::decode(&mut value).ok_or_else(Notification::open_malformed)?);
        }
    }
    Ok(capabilities)
}

impl Capability {
    /// Its number (IANA).
    pub fn code(&self) -> u8 {
        match self {
            Self::Multiprotocol(_) => 1,
            Self::RouteRefresh => 2,
            Self::ExtendedNextHop(_) => 5,
            Self::ExtendedMessage => 6,
            Self::GracefulRestart { .. } => 64,
            Self::FourByteAs(_) => 65,
            Self::AddPath(_) => 69,
            Self::EnhancedRefresh => 70,
            Self::LongLived(_) => 71,
            Self::HostName { .. } => 73,
            Self::SoftwareVersion(_) => 75,
            Self::RouteRefreshOld => 128,
            Self::Unknown { code, .. } => *code,
        }
    }

    /// Takes one off the front; `None` where its length is more than what is left.
    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let code = take_u8(bytes)?;
        let length = take_u8(bytes)?;
        let value = take(bytes, length.into())?;
        let known = Self::decode_value(code, value);
        Some(known.unwrap_or_else(|| Self::Unknown { code, value: value.to_vec() }))
    }

    /// Reads a value of the right shape.
    fn decode_value(code: u8, mut value: &[u8]) -> Option<Self> {
        let rest = &mut value;
        let capability = match code {
            1 => {
                let afi = take_u16(rest)?;
                let [_, safi] = take_array(rest)?;
                Self::Multiprotocol(AfiSafi { afi, safi })
            }
            2 => Self::RouteRefresh,
            5 => Self::ExtendedNextHop(decode_list(rest, |rest| {
                // The SAFI has two bytes here (RFC 8950 section 4).
                let (afi, safi) = (take_u16(rest)?, take_u16(rest)?);
                Some((AfiSafi { afi, safi: u8::try_from(safi).ok()? }, take_u16(rest)?))
            })?),
            6 => Self::ExtendedMessage,
            64 => {
                let head = take_u16(rest)?;
                Self::GracefulRestart {
                    restarting: head & 0x8000 != 0,
                    notification: head & 0x4000 != 0,
                    restart_time: head & 0x0fff,
                    families: decode_list(rest, |rest| {
                        Some((take_family(rest)?, take_u8(rest)? & 0x80 != 0))
                    })?,
                }
            }
            65 => Self::FourByteAs(Asn(take_u32(rest)?)),
            69 => Self::AddPath(decode_list(rest, |rest| Some((take_family(rest)?, take_mode(rest)?)))?),
            70 => Self::EnhancedRefresh,
            71 => Self::LongLived(decode_list(rest, |rest| {
                let (family, flags) = (take_family(rest)?, take_u8(rest)?);
                let [a, b, c] = take_array(rest)?;
                let stale_time = u32::from_be_bytes([0, a, b, c]);
                Some(LongLivedFamily { family, forwarding: flags & 0x80 != 0, stale_time })
            })?),
            73 => Self::HostName { host: take_text(rest)?, domain: take_text(rest)? },
            75 => Self::SoftwareVersion(take_text(rest)?),
            128 => Self::RouteRefreshOld,
            _ => return None,
        };
        rest.is_empty().then_some(capability)
    }

    /// Writes it with its header. Values are cut to the 255 bytes that one can have.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend([self.code(), 0]);
        let start = out.len();
        self.encode_value(out);
        out.truncate(start + 255);
        let length = (out.len() - start) as u8;
        if let Some(place) = out.get_mut(start - 1) {
            *place = length;
        }
    }

    fn encode_value(&self, out: &mut Vec<u8>) {
        match self {
            Self::RouteRefresh | Self::RouteRefreshOld | Self::ExtendedMessage | Self::EnhancedRefresh => {}
            Self::Multiprotocol(family) => {
                out.extend(family.afi.to_be_bytes());
                out.extend([0, family.safi]);
            }
            Self::ExtendedNextHop(families) => {
                for (family, next_hop_afi) in families {
                    out.extend(family.afi.to_be_bytes());
                    out.extend([0, family.safi]);
                    out.extend(next_hop_afi.to_be_bytes());
                }
            }
            Self::GracefulRestart { restarting, notification, restart_time, families } => {
                let start = out.len();
                out.extend([0, 0]);
                let flags = u16::from(*restarting) << 15 | u16::from(*notification) << 14;
                put_u16(out, start, flags | restart_time & 0x0fff);
                for (family, forwarding) in families {
                    put_family(out, *family);
                    out.push(u8::from(*forwarding) << 7);
                }
            }
            Self::FourByteAs(asn) => out.extend(asn.0.to_be_bytes()),
            Self::AddPath(families) => {
                for (family, mode) in families {
                    put_family(out, *family);
                    out.push(*mode as u8);
                }
            }
            Self::LongLived(families) => {
                for LongLivedFamily { family, forwarding, stale_time } in families {
                    put_family(out, *family);
                    out.push(u8::from(*forwarding) << 7);
                    out.extend(&stale_time.to_be_bytes()[1..]);
                }
            }
            Self::HostName { host, domain } => {
                put_text(out, host, 126);
                put_text(out, domain, 126);
            }
            Self::SoftwareVersion(text) => put_text(out, text, 254),
            Self::Unknown { value, .. } => out.extend(value),
        }
    }
}

/// Reads elements until nothing is left.
fn decode_list<T>(rest: &mut &[u8], element: impl Fn(&mut &[u8]) -> Option<T>) -> Option<Vec<T>> {
    let mut list = Vec::new();
    while !rest.is_empty() {
        list.push(element(rest)?);
    }
    Some(list)
}

fn take_family(rest: &mut &[u8]) -> Option<AfiSafi> {
    Some(AfiSafi { afi: take_u16(rest)?, safi: take_u8(rest)? })
}

fn take_mode(rest: &mut &[u8]) -> Option<AddPathMode> {
    match take_u8(rest)? {
        1 => Some(AddPathMode::Receive),
        2 => Some(AddPathMode::Send),
        3 => Some(AddPathMode::Both),
        _ => None,
    }
}

/// Reads a text after its length.
fn take_text(rest: &mut &[u8]) -> Option<String> {
    let length = take_u8(rest)?;
    Some(String::from_utf8_lossy(take(rest, length.into())?).into_owned())
}

fn put_family(out: &mut Vec<u8>, family: AfiSafi) {
    out.extend(family.afi.to_be_bytes());
    out.push(family.safi);
}

/// Writes a text after its length, cut to `bytes_max`.
fn put_text(out: &mut Vec<u8>, text: &str, bytes_max: usize) {
    let text = &text[..text.floor_char_boundary(bytes_max)];
    out.push(text.len() as u8);
    out.extend(text.as_bytes());
}
