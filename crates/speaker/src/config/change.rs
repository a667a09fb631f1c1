//! Changes of a configuration that runs: neighbours, groups and ranges that come through the API are read as the file is,
//! by the same schema, so that both mean the same and are refused alike.
//!
//! Neighbours and groups are also kept as they were written: a change of a group is read once more for its members.

use super::{
    Config, DynamicNeighbor, Fault, MrtDump, PeerSettings, StationSettings,
    stations::{check_number, check_statistics},
};
use crate::interface;
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
};
use toml::{Table, Value};

/// What the text is called from which one neighbour is read.
const ORIGIN: &str = "request";

/// Tables as they were written, each as an inline table of TOML.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Written {
    groups: BTreeMap<String, String>,
    neighbors: BTreeMap<IpAddr, WrittenNeighbor>,
    ranges: BTreeMap<IpNet, String>,
}

#[derive(Clone, PartialEq, Eq)]
struct WrittenNeighbor {
    group: Option<String>,
    table: String,
}

impl fmt::Debug for Written {
    // There are passwords in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Written(..)")
    }
}

impl Written {
    /// Takes the tables out of a file that was read without a fault.
    pub(super) fn of(text: &str) -> Self {
        let file: Table = text.parse().unwrap_or_default();
        let tables = |key: &str| file.get(key).and_then(Value::as_array).into_iter().flatten();
        let mut written = Self::default();
        for table in tables("peer-groups") {
            if let Some(name) = text_of(table, "peer-group-name") {
                written.groups.insert(name.to_owned(), table.to_string());
            }
        }
        for table in tables("neighbors") {
            if let Some(address) = neighbor_of(table) {
                written.neighbors.insert(address, WrittenNeighbor::of(table));
            }
        }
        for table in tables("dynamic-neighbors") {
            let prefix = text_of(table, "prefix").and_then(|text| text.parse::<IpNet>().ok());
            if let (Some(prefix), Some(group)) = (prefix, text_of(table, "peer-group")) {
                written.ranges.insert(prefix.trunc(), group.to_owned());
            }
        }
        written
    }
}

impl WrittenNeighbor {
    fn of(table: &Value) -> Self {
        Self { group: text_of(table, "peer-group").map(str::to_owned), table: table.to_string() }
    }
}

/// What a neighbour's table says that it is known by.
fn neighbor_of(table: &Value) -> Option<IpAddr> {
    match text_of(table, "neighbor-interface") {
        Some(name) => interface::neighbor_on(name),
        None => text_of(table, "neighbor-address")?.parse().ok(),
    }
}

/// A text of the table's `config`.
fn text_of<'v>(table: &'v Value, key: &str) -> Option<&'v str> {
    table.get("config")?.get(key)?.as_str().filter(|text| !text.is_empty())
}

/// Why a change was not made; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// It cannot be so.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Faults(Vec<Fault>),
    /// It is there already.
    #[error("there is {0} already: {1}")]
    Exists(String, &'static str),
    /// It is not there.
    #[error("there is no {0}")]
    Missing(String),
    /// Something else needs it.
    #[error("{0} is used by {1}: {2}")]
    InUse(String, String, &'static str),
}

impl ChangeError {
    /// One fault without a place.
    pub(crate) fn fault(key: &str, why: impl Into<String>) -> Self {
        Self::Faults(vec![Fault { line: 0, column: 0, key: key.to_owned(), why: why.into() }])
    }
}

impl Config {
    /// Adds a neighbour as if `table` stood under `[[neighbors]]`, or with `replace` changes one.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]; nothing was changed.
    pub(crate) fn set_neighbor(&mut self, table: Table, replace: bool) -> Result<IpAddr, ChangeError> {
        let mut table = Value::Table(table);
        let address = neighbor_of(&table);
        match address.map(|address| (address, self.neighbors.contains_key(&address))) {
            Some((address, true)) if !replace => {
                let name = format!("a neighbour {}", interface::shown(address));
                return Err(ChangeError::Exists(name, "update it, or delete it first"));
            }
            Some((address, false)) if replace => {
                return Err(ChangeError::Missing(format!("neighbour {}", interface::shown(address))));
            }
            _ => {}
        }
        let before = address.filter(|_| replace).and_then(|address| self.written.neighbors.get(&address));
        if let Some(before) = before {
            keep_hidden(&before.table, &mut table, HIDDEN_OF_NEIGHBORS);
        }
        let read = self.read_some([], [&table], [])?;
        let Some((address, settings)) = read.neighbors.into_iter().next() else {
            return Err(ChangeError::fault("neighbors.config.neighbor-address", "is missing"));
        };
        self.written.neighbors.insert(address, WrittenNeighbor::of(&table));
        self.neighbors.insert(address, settings);
        Ok(address)
    }

    /// Takes a neighbour away.
    pub(crate) fn remove_neighbor(&mut self, address: IpAddr) -> Result<(), ChangeError> {
        let removed = self.neighbors.remove(&address);
        removed.ok_or_else(|| ChangeError::Missing(format!("neighbour {}", interface::shown(address))))?;
        self.written.neighbors.remove(&address);
        Ok(())
    }

    /// Adds a group as if `table` stood under `[[peer-groups]]`, or with `replace` changes one and its members.
    pub(crate) fn set_group(&mut self, table: Table, replace: bool) -> Result<(), ChangeError> {
        let mut table = Value::Table(table);
        let Some(name) = text_of(&table, "peer-group-name").map(str::to_owned) else {
            return Err(ChangeError::fault(
                "peer-groups.config.peer-group-name",
                "is missing: a group needs a name",
            ));
        };
        match self.written.groups.contains_key(&name) {
            true if !replace => {
                let name = format!("a peer group \"{name}\"");
                return Err(ChangeError::Exists(name, "update it, or delete it first"));
            }
            false if replace => return Err(ChangeError::Missing(format!("peer group \"{name}\""))),
            _ => {}
        }
        if let Some(before) = self.written.groups.get(&name) {
            keep_hidden(before, &mut table, HIDDEN_OF_GROUPS);
        }
        let mut changed = self.clone();
        changed.written.groups.insert(name.clone(), table.to_string());
        // A group without members is read too: it may be wrong by itself.
        changed.group_settings(&name)?;
        changed.read_members(&BTreeSet::from([name]))?;
        *self = changed;
        Ok(())
    }

    /// Takes a group away that has no members.
    pub(crate) fn remove_group(&mut self, name: &str) -> Result<(), ChangeError> {
        if !self.written.groups.contains_key(name) {
            return Err(ChangeError::Missing(format!("peer group \"{name}\"")));
        }
        let member = self.neighbors.iter().find(|(_, settings)| settings.peer_group.as_deref() == Some(name));
        let member = member.map(|(address, _)| interface::shown(*address));
        let range =
            self.dynamic_neighbors.iter().find(|range| range.settings.peer_group.as_deref() == Some(name));
        if let Some(member) = member.or_else(|| range.map(|range| range.prefix.to_string())) {
            let group = format!("peer group \"{name}\"");
            return Err(ChangeError::InUse(group, member, "delete its members first"));
        }
        self.written.groups.remove(name);
        Ok(())
    }

    /// Adds a range from which members of a group may come.
    pub(crate) fn add_range(&mut self, prefix: &str, group: &str) -> Result<(), ChangeError> {
        let read = self.read_some([], [], [(prefix, group)])?;
        let Some(range) = read.dynamic_neighbors.into_iter().next() else {
            return Err(ChangeError::fault("dynamic-neighbors.config.prefix", "is missing"));
        };
        if self.dynamic_neighbors.iter().any(|other| other.prefix == range.prefix) {
            let name = format!("a range {}", range.prefix);
            return Err(ChangeError::Exists(name, "delete it first"));
        }
        self.written.ranges.insert(range.prefix, group.to_owned());
        self.insert_range(range);
        Ok(())
    }

    fn insert_range(&mut self, range: DynamicNeighbor) {
        self.dynamic_neighbors.retain(|other| other.prefix != range.prefix);
        self.dynamic_neighbors.push(range);
        self.dynamic_neighbors.sort_by_key(|range| std::cmp::Reverse(range.prefix.prefix_len()));
    }

    /// Takes a range away; `group` may be empty.
    pub(crate) fn remove_range(&mut self, prefix: &str, group: &str) -> Result<(), ChangeError> {
        let wanted = prefix.parse::<IpNet>().map(|prefix| prefix.trunc()).ok();
        let is_it = |range: &DynamicNeighbor| {
            Some(range.prefix) == wanted
                && (group.is_empty() || range.settings.peer_group.as_deref() == Some(group))
        };
        let Some(at) = self.dynamic_neighbors.iter().position(is_it) else {
            let of = if group.is_empty() { String::new() } else { format!(" of peer group \"{group}\"") };
            return Err(ChangeError::Missing(format!("range {prefix}{of}")));
        };
        let range = self.dynamic_neighbors.remove(at);
        self.written.ranges.remove(&range.prefix);
        Ok(())
    }

    /// Has something dumped into a file.
    pub(crate) fn add_mrt_dump(&mut self, dump: MrtDump) -> Result<(), ChangeError> {
        if self.mrt_dumps.contains_key(&dump.file_name) {
            let name = format!("an MRT dump into {}", dump.file_name);
            return Err(ChangeError::Exists(name, "disable it first"));
        }
        self.mrt_dumps.insert(dump.file_name.clone(), dump);
        Ok(())
    }

    /// Has nothing dumped into a file any longer.
    pub(crate) fn remove_mrt_dump(&mut self, file_name: &str) -> Result<(), ChangeError> {
        let removed = self.mrt_dumps.remove(file_name);
        removed.map(drop).ok_or_else(|| ChangeError::Missing(format!("MRT dump into {file_name}")))
    }

    /// Adds a monitoring station.
    pub(crate) fn add_station(
        &mut self,
        address: SocketAddr,
        settings: StationSettings,
    ) -> Result<(), ChangeError> {
        check_statistics(settings.statistics)
            .map_err(|why| ChangeError::fault("bmp-servers.config.statistics-timeout", why))?;
        if self.stations.contains_key(&address) {
            return Err(ChangeError::Exists(format!("a monitoring station {address}"), "delete it first"));
        }
        check_number(self.stations.len() + 1).map_err(|why| ChangeError::fault("bmp-servers", why))?;
        self.stations.insert(address, settings);
        Ok(())
    }

    /// Takes a monitoring station away.
    pub(crate) fn remove_station(&mut self, address: SocketAddr) -> Result<(), ChangeError> {
        let removed = self.stations.remove(&address).map(drop);
        removed.ok_or_else(|| ChangeError::Missing(format!("monitoring station {address}")))
    }

    /// The groups with what their members have unless they say otherwise.
    pub(crate) fn groups(&self) -> Vec<(String, PeerSettings)> {
        let named = self.written.groups.keys();
        named.filter_map(|name| Some((name.clone(), self.group_settings(name).ok()?))).collect()
    }

    fn group_settings(&self, name: &str) -> Result<PeerSettings, ChangeError> {
        // An address for documentation, because the family of the address decides what is exchanged by default.
        let read = self.read_some([], [], [("192.0.2.0/32", name)])?;
        let mut settings = read.dynamic_neighbors.into_iter().map(|range| range.settings);
        let mut settings =
            settings.next().ok_or_else(|| ChangeError::Missing(format!("peer group \"{name}\"")))?;
        settings.transport.passive = self.written.groups.get(name).is_some_and(|table| is_passive(table));
        Ok(settings)
    }

    /// Reads once more what belongs to these groups.
    fn read_members(&mut self, groups: &BTreeSet<String>) -> Result<(), ChangeError> {
        let is_in = |group: &String| groups.contains(group);
        let members =
            self.written.neighbors.values().filter(|member| member.group.as_ref().is_some_and(is_in));
        let tables: Vec<String> = members.map(|member| member.table.clone()).collect();
        let ranges = self.written.ranges.iter().filter(|(_, group)| is_in(group));
        let ranges: Vec<(String, String)> =
            ranges.map(|(prefix, group)| (prefix.to_string(), group.clone())).collect();
        let ranges = ranges.iter().map(|(prefix, group)| (prefix.as_str(), group.as_str()));
        let read = self.read_some(tables.iter().map(String::as_str), [], ranges)?;
        self.neighbors.extend(read.neighbors);
        for range in read.dynamic_neighbors {
            self.insert_range(range);
        }
        Ok(())
    }

    /// Reads a small file of these neighbours and ranges, with this speaker's numbers and groups.
    fn read_some<'a>(
        &self,
        written: impl IntoIterator<Item = &'a str>,
        tables: impl IntoIterator<Item = &'a Value>,
        ranges: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, ChangeError> {
        let mut neighbors: Vec<String> = written.into_iter().map(str::to_owned).collect();
        neighbors.extend(tables.into_iter().map(ToString::to_string));
        let ranges = ranges.into_iter().map(|(prefix, group)| {
            let text = |text: &str| Value::String(text.to_owned());
            format!("{{ config = {{ prefix = {}, peer-group = {} }} }}", text(prefix), text(group))
        });
        let ranges: Vec<String> = ranges.collect();
        let groups: Vec<&str> = self.written.groups.values().map(String::as_str).collect();
        let text = format!(
            "global = {{ config = {{ as = {}, router-id = \"{}\" }} }}\npeer-groups = [{}]\nneighbors = [{}]\ndynamic-neighbors = [{}]\n",
            self.global.asn,
            self.global.router_id,
            groups.join(","),
            neighbors.join(","),
            ranges.join(",")
        );
        let read = Self::from_toml(&text, ORIGIN).map_err(|faults| {
            // The place is one in a text that nobody wrote.
            let faults = faults.faults.into_iter().map(|fault| Fault { line: 0, column: 0, ..fault });
            ChangeError::Faults(faults.collect())
        })?;
        for warning in &read.warnings {
            tracing::warn!(key = %warning.key, why = %warning.why, "what came through the API is in part without effect");
        }
        Ok(read)
    }

    /// What runs after the file was read again. As in gobgpd, what the file changed since it was read before is changed,
    /// and what came through the API stays: neighbours, groups, ranges, stations and dumps one by one, policy as a whole.
    pub(crate) fn merge(&self, before: &Self, after: Self) -> Self {
        let mut merged = self.clone();
        merged.global = after.global.clone();
        merge_map(&mut merged.neighbors, &before.neighbors, &after.neighbors);
        merge_map(&mut merged.mrt_dumps, &before.mrt_dumps, &after.mrt_dumps);
        merge_map(&mut merged.written.neighbors, &before.written.neighbors, &after.written.neighbors);
        merge_map(&mut merged.written.ranges, &before.written.ranges, &after.written.ranges);
        let by_prefix = |config: &Self| -> BTreeMap<IpNet, DynamicNeighbor> {
            config.dynamic_neighbors.iter().map(|range| (range.prefix, range.clone())).collect()
        };
        let mut ranges = by_prefix(self);
        merge_map(&mut ranges, &by_prefix(before), &by_prefix(&after));
        merged.dynamic_neighbors = ranges.into_values().collect();
        merged.dynamic_neighbors.sort_by_key(|range| std::cmp::Reverse(range.prefix.prefix_len()));
        merge_map(&mut merged.written.groups, &before.written.groups, &after.written.groups);
        let is_other = |name: &&String| self.written.groups.get(*name) != merged.written.groups.get(*name);
        let changed: BTreeSet<String> = merged.written.groups.keys().filter(is_other).cloned().collect();
        if let Err(why) = merged.read_members(&changed) {
            tracing::warn!(%why, "members of a group that came through the API stay as they were");
        }
        merge_map(&mut merged.stations, &before.stations, &after.stations);
        if before.policy != after.policy {
            merged.policy = after.policy;
        }
        merged.warnings = after.warnings;
        merged
    }
}

/// Keys that a change through the API leaves as they were unless it says something of them: passwords are shown to nobody,
/// version 3 knows no BFD, and for the rest there are no messages.
const HIDDEN_OF_NEIGHBORS: &[&[&str]] =
    &[&["config", "auth-password"], &["config", "peer-type"], &["bfd"], &["transport", "config", "ttl"]];
const HIDDEN_OF_GROUPS: &[&[&str]] = &[
    &["config", "auth-password"],
    &["config", "peer-type"],
    &["bfd"],
    &["transport", "config", "ttl"],
    &["as-path-options"],
];

/// Whoever changes something else cannot send back what the API does not show.
fn keep_hidden(before: &str, table: &mut Value, hidden: &[&[&str]]) {
    let Ok(before) = format!("t = {before}").parse::<Table>() else { return };
    let (Some(before), Some(table)) = (before.get("t"), table.as_table_mut()) else { return };
    for path in hidden {
        keep(before, table, path);
    }
}

fn keep(before: &Value, table: &mut Table, path: &[&str]) {
    let Some((key, rest)) = path.split_first() else { return };
    let Some(before) = before.get(key) else { return };
    if rest.is_empty() {
        table.entry(*key).or_insert_with(|| before.clone());
        return;
    }
    let mut within = table.remove(*key).unwrap_or_else(|| Table::new().into());
    if let Some(table) = within.as_table_mut() {
        keep(before, table, rest);
    }
    if within.as_table().is_none_or(|table| !table.is_empty()) {
        table.insert((*key).to_owned(), within);
    }
}

fn is_passive(table: &str) -> bool {
    let table: Option<Table> = format!("t = {table}").parse().ok();
    let passive =
        table.as_ref().and_then(|table| table.get("t")?.get("transport")?.get("config")?.get("passive-mode"));
    passive.and_then(Value::as_bool).unwrap_or(false)
}

/// Does to `running` what was done between `before` and `after`.
fn merge_map<K: Ord + Clone, V: Clone + PartialEq>(
    running: &mut BTreeMap<K, V>,
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
) {
    for key in before.keys().filter(|key| !after.contains_key(key)) {
        running.remove(key);
    }
    for (key, value) in after.iter().filter(|(key, value)| before.get(key) != Some(value)) {
        running.insert(key.clone(), value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[global.config]\nas = 64512\nrouter-id = \"192.0.2.1\"\n\
        [[peer-groups]]\n[peer-groups.config]\npeer-group-name = \"racks\"\npeer-as = 65002\n\
        [peer-groups.timers.config]\nhold-time = 30\n\
        [[neighbors]]\n[neighbors.config]\nneighbor-address = \"192.0.2.2\"\npeer-group = \"racks\"\nauth-password = \"secret\"\n\
        [neighbors.bfd.config]\nenabled = true\n";

    fn file(text: &str) -> Config {
        Config::from_toml(text, "f").unwrap()
    }

    fn table(text: &str) -> Table {
        text.parse().unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_neighbour_is_read_as_the_file_is() {
        let mut config = file(FILE);
        let added = "config = { neighbor-address = \"192.0.2.3\", peer-group = \"racks\" }";
        config.set_neighbor(table(added), false).unwrap();
        let written = format!("{FILE}[[neighbors]]\n{added}\n");
        assert_eq!(config.neighbors, file(&written).neighbors);
        for (bad, why) in [
            (added, "there is a neighbour 192.0.2.3 already"),
            ("config = { peer-as = 1 }", "neighbors.config.neighbor-address: is missing"),
            (
                "config = { neighbor-address = \"192.0.2.4\", peer-group = \"x\" }",
                "there is no peer group \"x\"",
            ),
            (
                "config = { neighbor-address = \"192.0.2.4\" }\ntimers.config.hold-time = 2",
                "hold-time: must be 0 or at least 3 s",
            ),
        ] {
            let before = config.clone();
            let error = config.set_neighbor(table(bad), false).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert_eq!(config, before, "nothing is half done");
        }
    }

    #[test]
    fn a_change_keeps_what_nobody_is_shown() {
        let mut config = file(FILE);
        let changed = "config = { neighbor-address = \"192.0.2.2\", peer-as = 65009 }";
        config.set_neighbor(table(changed), true).unwrap();
        let settings = &config.neighbors[&address("192.0.2.2")];
        assert_eq!(settings.password.as_ref().unwrap().0, "secret");
        assert_eq!(settings.peer_as, Some(65_009));
        assert_eq!(settings.bfd, file(FILE).neighbors[&address("192.0.2.2")].bfd);
        assert!(settings.bfd.is_some());
        let unknown = "config = { neighbor-address = \"192.0.2.9\", peer-as = 65009 }";
        assert!(matches!(config.set_neighbor(table(unknown), true), Err(ChangeError::Missing(_))));
    }

    #[test]
    fn a_change_keeps_what_has_no_message_and_takes_what_it_says() {
        let file = file(&format!(
            "{}[neighbors.transport.config]\nttl = 9\n",
            FILE.replace(
                "[peer-groups.timers",
                "auth-password = \"shared\"\n[peer-groups.bfd.config]\nenabled = true\n\
                [peer-groups.as-path-options.config]\nallow-own-as = 3\n[peer-groups.timers"
            )
        ));
        let mut config = file.clone();
        config.set_group(table("config = { peer-group-name = \"racks\", peer-as = 65003 }"), true).unwrap();
        let (_, group) = &config.groups()[0];
        assert_eq!((group.peer_as, group.allow_own_as), (Some(65_003), 3));
        assert_eq!(group.password.as_ref().unwrap().0, "shared");
        assert!(group.bfd.is_some());
        let off = "config = { peer-group-name = \"racks\" }\nbfd.config.enabled = false";
        config.set_group(table(off), true).unwrap();
        assert_eq!(config.groups()[0].1.bfd, None, "what it says counts");
        let changed = "config = { neighbor-address = \"192.0.2.2\" }\ntransport.config.passive-mode = true";
        config.set_neighbor(table(changed), true).unwrap();
        let settings = &config.neighbors[&address("192.0.2.2")];
        assert_eq!((settings.transport.ttl, settings.transport.passive), (Some(9), true));
        let off = "config = { neighbor-address = \"192.0.2.2\" }\nbfd.config.enabled = false";
        config.set_neighbor(table(off), true).unwrap();
        assert_eq!(config.neighbors[&address("192.0.2.2")].bfd, None);
    }

    #[test]
    fn a_change_of_a_group_reaches_its_members() {
        let mut config = file(FILE);
        config.add_range("198.51.100.0/24", "racks").unwrap();
        let group = "config = { peer-group-name = \"racks\", peer-as = 65003 }";
        assert!(matches!(config.set_group(table(group), false), Err(ChangeError::Exists(..))));
        config.set_group(table(group), true).unwrap();
        assert_eq!(config.neighbors[&address("192.0.2.2")].peer_as, Some(65_003));
        assert_eq!(config.dynamic_neighbors[0].settings.peer_as, Some(65_003));
        assert_eq!(config.groups()[0].1.peer_as, Some(65_003));
        let error = config.remove_group("racks").unwrap_err().to_string();
        assert!(error.contains("used by 192.0.2.2"), "{error}");
        config.remove_neighbor(address("192.0.2.2")).unwrap();
        assert!(config.remove_group("racks").unwrap_err().to_string().contains("198.51.100.0/24"));
        config.remove_range("198.51.100.0/24", "").unwrap();
        config.remove_group("racks").unwrap();
        assert!(matches!(config.remove_group("racks"), Err(ChangeError::Missing(_))));
    }

    #[test]
    fn ranges_are_there_once() {
        let mut config = file(FILE);
        config.add_range("198.51.100.0/24", "racks").unwrap();
        assert!(matches!(config.add_range("198.51.100.7/24", "racks"), Err(ChangeError::Exists(..))));
        assert!(matches!(config.add_range("nonsense", "racks"), Err(ChangeError::Faults(_))));
        assert!(matches!(config.add_range("203.0.113.0/24", "x"), Err(ChangeError::Faults(_))));
        assert!(matches!(config.remove_range("198.51.100.0/24", "x"), Err(ChangeError::Missing(_))));
    }

    #[test]
    fn a_reload_does_what_the_file_did_and_leaves_the_rest() {
        let before = file(FILE);
        let mut running = before.clone();
        let through_api = "config = { neighbor-address = \"192.0.2.3\", peer-group = \"racks\" }";
        running.set_neighbor(table(through_api), false).unwrap();
        running.remove_neighbor(address("192.0.2.2")).unwrap();
        let other = "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"192.0.2.4\"\npeer-as = 1\n";
        let after = file(&format!("{}{other}", FILE.replace("peer-as = 65002", "peer-as = 65003")));
        let merged = running.merge(&before, after);
        assert_eq!(
            merged.neighbors[&address("192.0.2.3")].peer_as,
            Some(65_003),
            "the group's change reaches it"
        );
        assert!(merged.neighbors.contains_key(&address("192.0.2.4")), "the file added it");
        // The file changed it, by its group, so it is there again.
        assert!(merged.neighbors.contains_key(&address("192.0.2.2")));
        let same = running.merge(&before, before.clone());
        assert_eq!(same.neighbors, running.neighbors, "the same file changes nothing");
    }
}
