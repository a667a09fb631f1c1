//! Control packets (RFC 5880 section 4.1).

use std::{fmt, num::NonZeroU32, time::Duration};

/// Bytes of a packet without authentication.
pub const PACKET_BYTES: usize = 24;

const VERSION: u8 = 1;
const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const CONTROL_PLANE_INDEPENDENT: u8 = 0x08;
const AUTHENTICATION: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// States of a session (RFC 5880 section 6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// Somebody keeps it down.
    AdminDown = 0,
    /// The peer is not heard, or does not hear us.
    Down = 1,
    /// The peer is heard; it is not known whether it hears us.
    Init = 2,
    /// Both hear each other.
    Up = 3,
}

impl State {
    fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AdminDown => "admin-down",
            Self::Down => "down",
            Self::Init => "init",
            Self::Up => "up",
        })
    }
}

/// Why a session changed its state last. Five bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Diagnostic(u8);

impl Diagnostic {
    /// Nothing to say.
    pub const NONE: Self = Self(0);
    /// Nothing came for the detection time.
    pub const DETECTION_TIME_EXPIRED: Self = Self(1);
    /// The peer says that its session is down.
    pub const NEIGHBOR_DOWN: Self = Self(3);
    /// Somebody wants it to be down.
    pub const ADMIN_DOWN: Self = Self(7);
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "no diagnostic",
            1 => "control detection time expired",
            2 => "echo function failed",
            3 => "neighbor signaled session down",
            4 => "forwarding plane reset",
            5 => "path down",
            6 => "concatenated path down",
            7 => "administratively down",
            8 => "reverse concatenated path down",
            other => return write!(f, "diagnostic {other}"),
        })
    }
}

/// One packet. What it holds has passed all checks of RFC 5880 section 6.8.6 that need no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "bits of the packet, each for itself")]
pub struct Packet {
    /// Why the sender changed its state last.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// Wants an answer with [`Packet::is_final`] at once.
    pub is_poll: bool,
    /// Is that answer.
    pub is_final: bool,
    /// The sender's BFD goes on while its control plane restarts.
    pub is_independent: bool,
    /// The sender wants no periodic packets while the session is up.
    pub is_demand: bool,
    /// So many packets of the sender must be missing until its session is taken for down. Not zero.
    pub multiplier: u8,
    /// The sender's number of the session.
    pub my_discriminator: NonZeroU32,
    /// Our number of the session; `None`: the sender does not know it yet.
    pub your_discriminator: Option<NonZeroU32>,
    /// The sender would like to send no more often than this. Whole microseconds, at most [`u32::MAX`].
    pub desired_min_tx: Duration,
    /// The sender takes packets no more often than this; zero: none.
    pub required_min_rx: Duration,
}

/// What is wrong with a packet that is thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// It is another protocol, or was cut.
    #[error("{0} bytes are no whole control packet")]
    Length(usize),
    /// Only version 1 is known.
    #[error("version {0} is not known")]
    Version(u8),
    /// Authentication is not done: RFC 5880 section 6.8.6 throws such packets away where none is set.
    #[error("it is authenticated, and no authentication is set")]
    Authenticated,
    /// RFC 8562 is not done.
    #[error("it is for several receivers")]
    Multipoint,
    /// Zero packets may never be missing.
    #[error("its detection multiplier is zero")]
    Multiplier,
    /// Its sender has no session.
    #[error("its sender names no session")]
    Discriminator,
}

impl Packet {
    /// Reads a UDP payload. What follows the packet's own length is not looked at.
    ///
    /// # Errors
    ///
    /// [`PacketError`]: it must be thrown away.
    pub fn decode(bytes: &[u8]) -> Result<Self, PacketError> {
        let Some((header, words)) = bytes.split_first_chunk::<4>() else {
            return Err(PacketError::Length(bytes.len()));
        };
        let [first, flags, multiplier, length] = *header;
        if first >> 5 != VERSION {
            return Err(PacketError::Version(first >> 5));
        }
        let word = |index: usize| {
            let bytes = words.get(index * 4..)?.first_chunk::<4>()?;
            Some(u32::from_be_bytes(*bytes))
        };
        let words = (word(0), word(1), word(2), word(3), word(4));
        let (Some(mine), Some(yours), Some(tx), Some(rx), Some(_echo)) = words else {
            return Err(PacketError::Length(bytes.len()));
        };
        if flags & AUTHENTICATION != 0 {
            return Err(PacketError::Authenticated);
        }
        if usize::from(length) < PACKET_BYTES || usize::from(length) > bytes.len() {
            return Err(PacketError::Length(usize::from(length)));
        }
        if flags & MULTIPOINT != 0 {
            return Err(PacketError::Multipoint);
        }
        if multiplier == 0 {
            return Err(PacketError::Multiplier);
        }
        Ok(Self {
            diagnostic: Diagnostic(first & 0x1f),
            state: State::from_bits(flags >> 6),
            is_poll: flags & POLL != 0,
            is_final: flags & FINAL != 0,
            is_independent: flags & CONTROL_PLANE_INDEPENDENT != 0,
            is_demand: flags & DEMAND != 0,
            multiplier,
            my_discriminator: NonZeroU32::new(mine).ok_or(PacketError::Discriminator)?,
            your_discriminator: NonZeroU32::new(yours),
            desired_min_tx: Duration::from_micros(tx.into()),
            required_min_rx: Duration::from_micros(rx.into()),
        })
    }

    /// Writes it; we take no echo packets.
    pub fn encode(&self) -> [u8; PACKET_BYTES] {
        let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        let flags = (self.state as u8) << 6
            | flag(self.is_poll, POLL)
            | flag(self.is_final, FINAL)
            | flag(self.is_independent, CONTROL_PLANE_INDEPENDENT)
            | flag(self.is_demand, DEMAND);
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let words = [
            self.my_discriminator.get(),
            self.your_discriminator.map_or(0, NonZeroU32::get),
            micros(self.desired_min_tx),
            micros(self.required_min_rx),
            0,
        ];
        let mut bytes = [0; PACKET_BYTES];
        let header = [VERSION << 5 | self.diagnostic.0, flags, self.multiplier, PACKET_BYTES as u8];
        let fields = header.into_iter().chain(words.into_iter().flat_map(u32::to_be_bytes));
        bytes.iter_mut().zip(fields).for_each(|(byte, field)| *byte = field);
        bytes
    }
}
