//! What is tried, what cannot be, and the table of both.

use crate::{cells, plan::Role, speaker::PATH};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::Path,
    process::Command,
    sync::{Mutex, mpsc},
    thread,
};

/// A row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Feature {
    RoutesV4,
    RoutesV6,
    Withdraw,
    WeKeepIn,
    TheyKeepIn,
    Reflection,
    WeAskAgain,
    TheyAskAgain,
    EnhancedRefresh,
    AddPathIn,
    AddPathOut,
    ExtendedMessages,
    ExtendedNextHop,
    TheyRestart,
    WeRestart,
    LongLived,
    WeLimit,
    TheyLimit,
    ShutdownText,
    WeAreDynamic,
    TheyAreDynamic,
    Passive,
    Password,
    Secured,
    Bfd,
    WeSpread,
    TheySpread,
}

impl Feature {
    pub(crate) const ALL: [Self; 27] = [
        Self::RoutesV4,
        Self::RoutesV6,
        Self::Withdraw,
        Self::WeKeepIn,
        Self::TheyKeepIn,
        Self::Reflection,
        Self::WeAskAgain,
        Self::TheyAskAgain,
        Self::EnhancedRefresh,
        Self::AddPathIn,
        Self::AddPathOut,
        Self::ExtendedMessages,
        Self::ExtendedNextHop,
        Self::TheyRestart,
        Self::WeRestart,
        Self::LongLived,
        Self::WeLimit,
        Self::TheyLimit,
        Self::ShutdownText,
        Self::WeAreDynamic,
        Self::TheyAreDynamic,
        Self::Passive,
        Self::Password,
        Self::Secured,
        Self::Bfd,
        Self::WeSpread,
        Self::TheySpread,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::RoutesV4 => "IPv4 routes with all attributes, both ways",
            Self::RoutesV6 => "IPv6 routes over IPv6, both ways",
            Self::Withdraw => "withdrawal, both ways and families",
            Self::WeKeepIn => "what has no-export stays in our AS",
            Self::TheyKeepIn => "what has no-export stays in theirs",
            Self::Reflection => "reflection by RFC 4456, or none where none may be",
            Self::WeAskAgain => "route refresh, we ask",
            Self::TheyAskAgain => "route refresh, they ask",
            Self::EnhancedRefresh => "enhanced route refresh",
            Self::AddPathIn => "add-path, two paths in",
            Self::AddPathOut => "add-path, two paths out",
            Self::ExtendedMessages => "a route of 5 kB (extended messages), both ways",
            Self::ExtendedNextHop => "IPv4 routes over IPv6, both ways",
            Self::TheyRestart => "graceful restart, they are killed",
            Self::WeRestart => "graceful restart, we are killed",
            Self::LongLived => "long-lived graceful restart, both ways",
            Self::WeLimit => "prefix limit, ours",
            Self::TheyLimit => "prefix limit, theirs",
            Self::ShutdownText => "shutdown communication, both ways",
            Self::WeAreDynamic => "dynamic neighbours, of ours",
            Self::TheyAreDynamic => "dynamic neighbours, of theirs",
            Self::Passive => "passive, either side",
            Self::Password => "TCP MD5, and none without it",
            Self::Secured => "GTSM (TTL 255)",
            Self::Bfd => "BFD on one hop: a cut path ends the session",
            Self::WeSpread => "multipath into our kernel",
            Self::TheySpread => "multipath into theirs",
        }
    }

    /// Why it cannot be, by who is at which end.
    fn lacking(self, Column { subject, peer, role }: Column) -> Option<&'static str> {
        let either = subject == Kind::Gobgp || peer == Kind::Gobgp;
        let keeps = |speaker| speaker != Kind::Gobgp || role != Role::External;
        match self {
            Self::EnhancedRefresh if either => Some("gobgpd 3.10 does not offer it"),
            Self::ExtendedMessages if either => Some("gobgpd 3.10 does not offer them"),
            Self::Bfd if either => Some("gobgpd 3.10 has no BFD"),
            Self::WeSpread if subject == Kind::Gobgp => Some(NO_ROUTES),
            Self::TheySpread if peer == Kind::Gobgp => Some(NO_ROUTES),
            Self::WeAskAgain if subject == Kind::Gobgp => Some(ASKS_NOBODY),
            Self::TheyAskAgain if peer == Kind::Gobgp => Some(ASKS_NOBODY),
            Self::WeKeepIn if !keeps(subject) => Some(LETS_OUT),
            Self::TheyKeepIn if !keeps(peer) => Some(LETS_OUT),
            _ => None,
        }
    }
}

const ASKS_NOBODY: &str = "gobgpd asks nobody: it judges anew what it kept of the neighbour";
const NO_ROUTES: &str = "gobgpd puts no routes into the kernel without zebra";
const LETS_OUT: &str = "gobgpd leaves well-known communities to its policies";

/// Who wrote a speaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Isthmus,
    Bird,
    Frr,
    Gobgp,
}

impl Kind {
    const PEERS: [Self; 3] = [Self::Bird, Self::Frr, Self::Gobgp];

    fn title(self) -> &'static str {
        match self {
            Self::Isthmus => "Isthmus",
            Self::Bird => "BIRD",
            Self::Frr => "FRR",
            Self::Gobgp => "GoBGP",
        }
    }

    /// Who is tried.
    fn subject() -> Self {
        match std::env::var("ISTHMUS_INTEROP_SUBJECT").as_deref() {
            Err(_) | Ok("isthmus") => Self::Isthmus,
            Ok("bird") => Self::Bird,
            Ok("frr") => Self::Frr,
            Ok("gobgp") => Self::Gobgp,
            Ok(other) => panic!("ISTHMUS_INTEROP_SUBJECT={other}: write isthmus, bird, frr or gobgp"),
        }
    }
}

/// The two ends of what is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Column {
    pub(crate) subject: Kind,
    pub(crate) peer: Kind,
    pub(crate) role: Role,
}

impl Column {
    /// Why a cell stays empty.
    pub(crate) fn lacking(self, feature: Feature) -> Option<&'static str> {
        feature.lacking(self)
    }
}

/// What came of the features that were tried in a column.
pub(crate) type Outcomes = Vec<(Feature, Result<(), String>)>;

/// Half of a column.
type Part = fn(Column) -> Result<Outcomes, String>;

/// Networks at once: each has up to six daemons.
const AT_ONCE: usize = 6;

/// Whether tests like these can be; in CI they must.
pub(crate) fn can_run() -> bool {
    let needs = "test $(id -u) = 0 && command -v ip bird birdc gobgpd gobgp vtysh /usr/lib/frr/bgpd";
    let can = Command::new("sh").args(["-ec", needs]).env("PATH", PATH).output().unwrap().status.success();
    if !can {
        assert!(
            std::env::var_os("CI").is_none(),
            "skipped in CI: needs root, iproute2, bird, frr and gobgpd"
        );
        eprintln!("skipped: needs root, iproute2, bird, frr and gobgpd");
    }
    can
}

#[test]
fn the_matrix_is_as_documented() {
    if !can_run() {
        return;
    }
    let outcomes = try_all(&columns());
    let (table, failures) = render(&outcomes);
    println!("{table}");
    assert!(failures.is_empty(), "{} cells failed:\n{}", failures.len(), failures.join("\n"));
    if Kind::subject() == Kind::Isthmus && !is_narrowed() {
        check_documented(&table);
    }
}

/// `ISTHMUS_INTEROP_ONLY=frr-eBGP` tries one column, `frr` those of one peer.
fn is_narrowed() -> bool {
    std::env::var_os("ISTHMUS_INTEROP_ONLY").is_some()
}

fn columns() -> Vec<Column> {
    let subject = Kind::subject();
    let only = std::env::var("ISTHMUS_INTEROP_ONLY").unwrap_or_default();
    let all = Kind::PEERS
        .into_iter()
        .filter(|peer| *peer != subject)
        .flat_map(|peer| Role::ALL.into_iter().map(move |role| Column { subject, peer, role }));
    all.filter(|column| {
        let name = format!("{}-{}", column.peer.title(), column.role.title()).to_lowercase();
        name.starts_with(&only.to_lowercase())
    })
    .collect()
}

fn try_all(columns: &[Column]) -> BTreeMap<Column, Outcomes> {
    let (jobs_in, jobs) = mpsc::channel();
    for column in columns {
        for part in [cells::routes as Part, cells::sessions] {
            jobs_in.send((*column, part)).unwrap();
        }
    }
    drop(jobs_in);
    let jobs = Mutex::new(jobs);
    let found = Mutex::new(BTreeMap::<Column, Outcomes>::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let job = jobs.lock().unwrap().recv();
                    let Ok((column, part)) = job else { return };
                    let outcomes = part(column);
                    match outcomes {
                        Ok(outcomes) => found.lock().unwrap().entry(column).or_default().extend(outcomes),
                        Err(why) => panic!("{column:?} cannot be tried: {why}"),
                    }
                }
            });
        }
    });
    found.into_inner().unwrap()
}

/// The table, with reasons below it, and what failed.
fn render(found: &BTreeMap<Column, Outcomes>) -> (String, Vec<String>) {
    let mut table = "| |".to_owned();
    for column in found.keys() {
        let _ = write!(table, " {} {} |", column.peer.title(), column.role.title());
    }
    let _ = write!(table, "\n| --- |{}\n", " :-: |".repeat(found.len()));
    let (mut reasons, mut failures) = (Vec::new(), Vec::new());
    for feature in Feature::ALL {
        let _ = write!(table, "| {} |", feature.title());
        for (column, outcomes) in found {
            let outcome = outcomes.iter().find(|(tried, _)| *tried == feature).map(|(_, outcome)| outcome);
            let mark = match (column.lacking(feature), outcome) {
                (Some(reason), None) => {
                    let known = reasons.iter().position(|known| known == &reason);
                    let number = known.unwrap_or_else(|| {
                        reasons.push(reason);
                        reasons.len() - 1
                    });
                    format!("- ({})", number + 1)
                }
                (None, Some(Ok(()))) => "✔".to_owned(),
                (_, outcome) => {
                    let why = match outcome {
                        Some(Err(why)) => why.as_str(),
                        _ => "was not tried, or was although it cannot be",
                    };
                    let (peer, role) = (column.peer.title(), column.role.title());
                    failures.push(format!("✖ {peer} as {role}: {}: {why}", feature.title()));
                    "✖".to_owned()
                }
            };
            let _ = write!(table, " {mark} |");
        }
        table.push('\n');
    }
    for (number, reason) in reasons.iter().enumerate() {
        let _ = write!(table, "\n({}) {reason}.", number + 1);
    }
    (table, failures)
}

/// Where the table stands for people.
const BEGIN: &str = "<!-- interop: made by `ISTHMUS_BLESS=1 make interop` -->\n";
const END: &str = "<!-- interop: end -->\n";

fn check_documented(table: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/bgp.md");
    let text = fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (documented, after) = rest.split_once(END).unwrap();
    let fresh = format!("{}\n", table.trim_end());
    if std::env::var_os("ISTHMUS_BLESS").is_some() {
        fs::write(&file, format!("{before}{BEGIN}{fresh}{END}{after}")).unwrap();
    } else {
        assert_eq!(
            documented, fresh,
            "docs/bgp.md has another matrix: ISTHMUS_BLESS=1 make interop writes it"
        );
    }
}
