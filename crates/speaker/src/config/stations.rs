//! `[[bmp-servers]]`: monitoring stations (RFC 7854).

use super::{check::Checker, node::Node};
use isthmus_bgp::bmp;
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

/// More would only be the same many times over; the owner of the routes serves each of them.
const STATIONS_MAX: usize = 32;
/// GoBGP's least time between reports.
const STATISTICS_MIN: Duration = Duration::from_secs(15);

/// Ours, not GoBGP's.
pub(super) const SENT_KEY: &str = "adj-rib-out-monitoring-policy";

/// What is set for a monitoring station.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StationSettings {
    /// What it is told.
    pub policy: MonitoringPolicy,
    /// What it is told of what neighbours are told.
    pub sent: SentPolicy,
    /// Time between statistics reports; `None`: none are sent.
    pub statistics: Option<Duration>,
    /// What the speaker calls itself; `None`: as the host is called.
    pub sys_name: Option<String>,
    /// What the speaker says that it is; `None`: its name and version.
    pub sys_descr: Option<String>,
}

/// Which tables a station is told of. Sessions are told in each case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MonitoringPolicy {
    /// What neighbours send.
    #[default]
    PrePolicy,
    /// What of that policy accepts, and as it leaves it.
    PostPolicy,
    /// Both of them.
    Both,
    /// The best paths (RFC 9069).
    LocalRib,
    /// All three.
    All,
}

impl MonitoringPolicy {
    /// GoBGP's words.
    pub(super) const WORDS: &[&str] = &["pre-policy", "post-policy", "both", "local-rib", "all"];

    /// What one of the words means.
    fn named(word: &str) -> Self {
        match word {
            "post-policy" => Self::PostPolicy,
            "both" => Self::Both,
            "local-rib" => Self::LocalRib,
            "all" => Self::All,
            _ => Self::PrePolicy,
        }
    }

    /// GoBGP's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::PrePolicy => "pre-policy",
            Self::PostPolicy => "post-policy",
            Self::Both => "both",
            Self::LocalRib => "local-rib",
            Self::All => "all",
        }
    }

    /// Whether what neighbours send is told.
    pub fn has_received(self) -> bool {
        matches!(self, Self::PrePolicy | Self::Both | Self::All)
    }

    /// Whether what policy accepts is told.
    pub fn has_accepted(self) -> bool {
        matches!(self, Self::PostPolicy | Self::Both | Self::All)
    }

    /// Whether the best paths are told.
    pub fn has_best(self) -> bool {
        matches!(self, Self::LocalRib | Self::All)
    }
}

/// Which tables of what neighbours are told a station is told of: Adj-RIB-Out (RFC 8671), for which GoBGP has no word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SentPolicy {
    /// None.
    #[default]
    None,
    /// What may go to a neighbour, whatever the export policy says.
    PrePolicy,
    /// What of that goes, as it is written to the neighbour.
    PostPolicy,
    /// Both of them.
    Both,
}

impl SentPolicy {
    /// Words like GoBGP's for what comes.
    pub(super) const WORDS: &[&str] = &["none", "pre-policy", "post-policy", "both"];

    /// What one of the words means.
    fn named(word: &str) -> Self {
        match word {
            "pre-policy" => Self::PrePolicy,
            "post-policy" => Self::PostPolicy,
            "both" => Self::Both,
            _ => Self::None,
        }
    }

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::PrePolicy => "pre-policy",
            Self::PostPolicy => "post-policy",
            Self::Both => "both",
        }
    }

    /// Whether what may go is told.
    pub fn has_offered(self) -> bool {
        matches!(self, Self::PrePolicy | Self::Both)
    }

    /// Whether what goes is told.
    pub fn has_sent(self) -> bool {
        matches!(self, Self::PostPolicy | Self::Both)
    }
}

/// Reads all stations.
pub(super) fn read(checker: &mut Checker<'_>, file: &Node<'_>) -> BTreeMap<SocketAddr, StationSettings> {
    let mut stations = BTreeMap::new();
    let key = "bmp-servers.config.address";
    for (node, place) in file.tables("bmp-servers").into_iter().zip(file.tables_places("bmp-servers")) {
        let config = node.table("config");
        let Some(address) = config.address("address") else {
            // A bad address has been told.
            if !config.has("address") {
                checker.fault(place.clone(), key, "is missing: write the station's IP address");
            }
            continue;
        };
        let port = config.number("port").filter(|port| *port != 0).unwrap_or(bmp::PORT);
        let address = SocketAddr::new(address, port);
        let statistics = config.seconds("statistics-timeout").filter(|every| !every.is_zero());
        if let Err(why) = check_statistics(statistics) {
            let key = "bmp-servers.config.statistics-timeout";
            checker.fault(config.place("statistics-timeout"), key, &why);
        }
        let settings = StationSettings {
            policy: config
                .text("route-monitoring-policy")
                .as_deref()
                .map_or_else(Default::default, MonitoringPolicy::named),
            sent: config.text(SENT_KEY).as_deref().map_or_else(Default::default, SentPolicy::named),
            statistics,
            sys_name: config.text("sys-name"),
            sys_descr: config.text("sys-descr"),
        };
        if stations.insert(address, settings).is_some() {
            checker.fault(config.place("address"), key, &format!("{address} is configured twice"));
        }
        if let Err(why) = check_number(stations.len()) {
            checker.fault(place, "bmp-servers", &why);
        }
    }
    stations
}

/// Whether there may be so many stations.
pub(super) fn check_number(stations: usize) -> Result<(), String> {
    if stations > STATIONS_MAX {
        return Err(format!("there may be {STATIONS_MAX} stations: let one of them pass on what it hears"));
    }
    Ok(())
}

/// Whether reports may come that often.
pub(super) fn check_statistics(every: Option<Duration>) -> Result<(), String> {
    match every {
        Some(every) if every < STATISTICS_MIN => {
            let least = STATISTICS_MIN.as_secs();
            Err(format!("must be 0 for no reports, or at least {least} s"))
        }
        _ => Ok(()),
    }
}
