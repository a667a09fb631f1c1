//! What is measured.

use std::net::Ipv4Addr;

/// A load for a reflector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(super) enum Case {
    /// 1,000,000 prefixes from one sender to one receiver.
    #[value(name = "1m")]
    Million,
    /// The same to ten receivers.
    #[value(name = "1m-r10")]
    MillionToTen,
    /// 300 clients with ten blocks each.
    #[value(name = "mesh300")]
    Mesh,
    /// 2,500 clients with a block each come at once.
    #[value(name = "up2500")]
    Arrival,
    /// 100,000 prefixes from one sender to one receiver.
    #[value(name = "100k")]
    Small,
    /// The same to ten receivers.
    #[value(name = "100k-r10")]
    SmallToTen,
    /// Little of everything, for tests.
    #[value(name = "smoke", hide = true)]
    Smoke,
}

/// Who sends what to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One sender with a full table, which is no client.
    Feed { prefixes: u32, receivers: u32 },
    /// Clients that have some blocks each; all sessions are up before.
    Mesh { clients: u32, blocks: u32 },
    /// The same, but what is measured begins with their first packet.
    Arrival { clients: u32, blocks: u32 },
}

impl Case {
    /// What is measured unless something else is asked for.
    pub(super) const ALL: [Self; 6] =
        [Self::Million, Self::MillionToTen, Self::Mesh, Self::Arrival, Self::Small, Self::SmallToTen];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Million => "1m",
            Self::MillionToTen => "1m-r10",
            Self::Mesh => "mesh300",
            Self::Arrival => "up2500",
            Self::Small => "100k",
            Self::SmallToTen => "100k-r10",
            Self::Smoke => "smoke",
        }
    }

    pub(super) fn shape(self) -> Shape {
        match self {
            Self::Million => Shape::Feed { prefixes: 1_000_000, receivers: 1 },
            Self::MillionToTen => Shape::Feed { prefixes: 1_000_000, receivers: 10 },
            Self::Small => Shape::Feed { prefixes: 100_000, receivers: 1 },
            Self::SmallToTen => Shape::Feed { prefixes: 100_000, receivers: 10 },
            Self::Smoke => Shape::Feed { prefixes: 2_000, receivers: 3 },
            Self::Mesh => Shape::Mesh { clients: 300, blocks: 10 },
            Self::Arrival => Shape::Arrival { clients: 2_500, blocks: 1 },
        }
    }

    /// Whether a client joins when everything is there. With ten receivers that would tell nothing new.
    pub(super) fn has_late_joiner(self) -> bool {
        !matches!(self, Self::MillionToTen | Self::SmallToTen | Self::Arrival)
    }
}

/// The daemon under test; also its router id.
pub(super) const REFLECTOR: Ipv4Addr = Ipv4Addr::new(10, 210, 0, 1);
/// The other end of the wire, behind which all peers are.
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 210, 0, 2);
/// Where senders are, which are no clients.
pub(super) const SENDERS: &str = "10.210.1.0/24";
/// Where clients are.
pub(super) const CLIENTS: &str = "10.210.16.0/20";
/// The sender.
pub(super) const SENDER: Ipv4Addr = Ipv4Addr::new(10, 210, 1, 1);

/// Address of a client, counted from 0.
pub(super) fn client(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 210, 16, 1)) + number)
}
