//! `[[mrt-dump]]`: what is dumped into which file.

use super::{check::Checker, node::Node};
use std::{collections::BTreeMap, ops::Range, path::Path, time::Duration};

/// What GoBGP's interval of tables is unless one is written.
const TABLE_INTERVAL: Duration = Duration::from_mins(1);
const KEY: &str = "mrt-dump.config";

/// What is dumped into a file, and when another one begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MrtDump {
    /// What is dumped.
    pub kind: MrtKind,
    /// Name of the file, as it is written. With a rotation interval it is a layout of Go's: `20060102.1504` is a date.
    pub file_name: String,
    /// How often another file begins; a table is dumped as often.
    pub rotation: Option<Duration>,
    /// How often the table is dumped into the same file, which it replaces.
    pub interval: Option<Duration>,
}

/// What a dump is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MrtKind {
    /// UPDATEs of all neighbours, and states of their sessions, as they come.
    Updates,
    /// All routes that are there.
    Table,
}

impl MrtKind {
    /// As the file has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Updates => "updates",
            Self::Table => "table",
        }
    }
}

/// A fault of one dump: which key, and why.
pub(crate) type DumpFault = (&'static str, String);

impl MrtDump {
    /// A dump that can be, with what is used where nothing is written.
    ///
    /// # Errors
    ///
    /// All that speaks against it.
    pub(crate) fn new(
        kind: MrtKind,
        file_name: String,
        rotation: Option<Duration>,
        interval: Option<Duration>,
    ) -> Result<Self, Vec<DumpFault>> {
        let mut faults = Vec::new();
        if Path::new(&file_name).file_name().is_none() {
            let why = format!("\"{file_name}\" names no file: write one like /var/log/bgp/updates.mrt");
            faults.push(("file-name", why));
        }
        // 0 is what GoBGP takes for nothing written.
        let is_set = |time: &Duration| !time.is_zero();
        let (rotation, mut interval) = (rotation.filter(is_set), interval.filter(is_set));
        match kind {
            MrtKind::Table if rotation.is_some() && interval.is_some() => {
                let why =
                    "and rotation-interval exclude each other for a table: write one of them".to_owned();
                faults.push(("dump-interval", why));
            }
            MrtKind::Table if rotation.is_none() => interval = interval.or(Some(TABLE_INTERVAL)),
            MrtKind::Table => {}
            MrtKind::Updates => interval = None,
        }
        if faults.is_empty() { Ok(Self { kind, file_name, rotation, interval }) } else { Err(faults) }
    }
}

/// Dumps by the names of their files.
pub(super) fn read(checker: &mut Checker<'_>, file: &Node<'_>) -> BTreeMap<String, MrtDump> {
    let mut dumps = BTreeMap::new();
    for (node, place) in file.tables("mrt-dump").into_iter().zip(file.tables_places("mrt-dump")) {
        let config = node.table("config");
        let Some((kind, file_name)) = required(checker, &config, &place) else { continue };
        let ignored =
            kind == MrtKind::Updates && config.number::<i64>("dump-interval").is_some_and(|set| set > 0);
        if ignored {
            let why = "has no effect: what comes is dumped as it comes; rotation-interval begins new files";
            checker.warn(config.place("dump-interval"), &format!("{KEY}.dump-interval"), why);
        }
        let (rotation, interval) = (config.seconds("rotation-interval"), config.seconds("dump-interval"));
        match MrtDump::new(kind, file_name.clone(), rotation, interval) {
            Ok(dump) => {
                if dumps.insert(file_name, dump).is_some() {
                    let why = "is that of another dump: each needs a file of its own";
                    checker.fault(config.place("file-name"), &format!("{KEY}.file-name"), why);
                }
            }
            Err(faults) => {
                for (key, why) in faults {
                    checker.fault(config.place(key), &format!("{KEY}.{key}"), &why);
                }
            }
        }
    }
    dumps
}

fn required(checker: &mut Checker<'_>, config: &Node<'_>, place: &Range<usize>) -> Option<(MrtKind, String)> {
    let keys = [
        ("dump-type", "is missing: write updates or table"),
        ("file-name", "is missing: write the name of the file"),
    ];
    for (key, why) in keys {
        if !config.has(key) {
            checker.fault(place.clone(), &format!("{KEY}.{key}"), why);
        }
    }
    let kind = match config.text("dump-type")?.as_str() {
        "updates" => MrtKind::Updates,
        "table" => MrtKind::Table,
        // Another word has been told.
        _ => return None,
    };
    Some((kind, config.text("file-name")?))
}
