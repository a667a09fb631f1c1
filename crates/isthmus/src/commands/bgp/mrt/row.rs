//! One thing that a file says, as it is printed.

use isthmus_speaker::{
    Attributes, Nlri,
    mrt::{
        Date,
        format::{Item, Seen, Time},
    },
};
use serde::Serialize;
use std::{fmt::Write as _, net::IpAddr};

/// One thing that a file says.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// When the record was written, RFC 3339, UTC.
    time: String,
    /// `path` (of a table), `announce`, `withdraw`, `end-of-rib`, `state`, or the name of another message.
    what: &'static str,
    neighbor: IpAddr,
    neighbor_as: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    router_id: Option<String>,
    /// It was sent to the neighbour, not by it.
    #[serde(skip_serializing_if = "is_false")]
    sent: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_id: Option<u32>,
    /// When a path of a table came, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    originated_unix: Option<u32>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    carried: Option<Carried>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    family: Option<String>,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

/// What a path carries.
#[derive(Debug, Serialize)]
struct Carried {
    /// `null`: the writer of the file itself.
    next_hop: Option<IpAddr>,
    as_path: String,
    origin: String,
    med: Option<u32>,
    local_pref: Option<u32>,
    atomic_aggregate: bool,
    aggregator: Option<String>,
    communities: Vec<String>,
    ext_communities: Vec<String>,
    large_communities: Vec<String>,
    originator_id: Option<String>,
    cluster_list: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

impl From<&Attributes> for Carried {
    fn from(attributes: &Attributes) -> Self {
        fn words<T: ToString>(list: &[T]) -> Vec<String> {
            list.iter().map(ToString::to_string).collect()
        }
        Self {
            next_hop: attributes.next_hop.map(|next_hop| next_hop.address()),
            as_path: attributes.as_path.to_string(),
            origin: format!("{:?}", attributes.origin).to_lowercase(),
            med: attributes.med,
            local_pref: attributes.local_pref,
            atomic_aggregate: attributes.atomic_aggregate,
            aggregator: attributes.aggregator.map(|one| format!("{} {}", one.asn, one.address)),
            communities: words(&attributes.communities),
            ext_communities: attributes.ext_communities.iter().map(|one| format!("{:016x}", one.0)).collect(),
            large_communities: words(&attributes.large_communities),
            originator_id: attributes.originator_id.map(|id| id.to_string()),
            cluster_list: words(&attributes.cluster_list),
        }
    }
}

impl From<&Seen> for Row {
    fn from(seen: &Seen) -> Self {
        let origin = &seen.origin;
        let mut row = Self {
            time: clock(seen.time),
            what: "path",
            neighbor: origin.address,
            neighbor_as: origin.asn.0,
            router_id: origin.id.map(|id| id.to_string()),
            sent: origin.is_sent,
            prefix: None,
            path_id: None,
            originated_unix: None,
            carried: None,
            old_state: None,
            new_state: None,
            family: None,
            fault: None,
        };
        match &seen.item {
            Item::Path { nlri, originated, attributes, fault } => {
                row.of(*nlri, Some(attributes));
                row.originated_unix = Some(*originated);
                row.fault = fault.map(|fault| fault.to_string());
            }
            Item::Announced { nlri, attributes } => {
                row.what = "announce";
                row.of(*nlri, Some(attributes));
            }
            Item::Withdrawn { nlri, fault } => {
                row.what = "withdraw";
                row.of(*nlri, None);
                row.fault = fault.map(|fault| fault.to_string());
            }
            Item::EndOfRib(family) => {
                row.what = "end-of-rib";
                row.family = Some(family.to_string());
            }
            Item::State { old, new } => {
                row.what = "state";
                (row.old_state, row.new_state) = (Some(old.to_string()), Some(new.to_string()));
            }
            Item::Message(kind) => row.what = message(*kind as u8),
            Item::Broken(notification) => {
                row.what = "broken";
                row.fault = Some(notification.to_string());
            }
        }
        row
    }
}

/// Names of messages (RFC 4271 section 4.1, RFC 2918).
fn message(kind: u8) -> &'static str {
    match kind {
        1 => "open",
        2 => "update",
        3 => "notification",
        4 => "keepalive",
        _ => "route-refresh",
    }
}

impl Row {
    fn of(&mut self, nlri: Nlri, attributes: Option<&Attributes>) {
        self.prefix = Some(nlri.prefix.to_string());
        self.path_id = (nlri.path_id.0 != 0).then_some(nlri.path_id.0);
        self.carried = attributes.map(Carried::from);
    }

    /// On one line. Words that are not there are left out.
    pub(super) fn line(&self) -> String {
        let direction = if self.sent { "to" } else { "from" };
        let prefix = self.prefix.as_deref().or(self.family.as_deref()).unwrap_or("-");
        let mut line = format!(
            "{}  {:10}  {prefix:20}  {direction} {} AS{}",
            self.time, self.what, self.neighbor, self.neighbor_as
        );
        let mut put = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                // Writing to a String cannot fail.
                let _ = write!(line, "  {name} {value}");
            }
        };
        put("path-id", self.path_id.map(|id| id.to_string()));
        if let Some(carried) = &self.carried {
            let list = |list: &[String]| (!list.is_empty()).then(|| list.join(" "));
            put("via", Some(carried.next_hop.map_or_else(|| "self".to_owned(), |hop| hop.to_string())));
            let path = if carried.as_path.is_empty() { "empty" } else { &carried.as_path };
            put("as-path", Some(path.to_owned()));
            put("origin", Some(carried.origin.clone()));
            put("med", carried.med.map(|med| med.to_string()));
            put("local-pref", carried.local_pref.map(|preference| preference.to_string()));
            put("aggregator", carried.aggregator.clone());
            put("communities", list(&carried.communities));
            put("ext-communities", list(&carried.ext_communities));
            put("large-communities", list(&carried.large_communities));
            put("originator", carried.originator_id.clone());
            put("clusters", list(&carried.cluster_list));
        }
        put("was", self.old_state.clone());
        put("is", self.new_state.clone());
        put("fault:", self.fault.clone());
        line
    }
}

/// RFC 3339, UTC, as exact as the file has it.
pub(super) fn clock(time: Time) -> String {
    let date = Date::of(time.seconds.into());
    let fraction = time.micros.map(|micros| format!(".{micros:06}")).unwrap_or_default();
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{fraction}Z",
        date.year, date.month, date.day, date.hour, date.minute, date.second
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use isthmus_speaker::{
        Asn, PathId,
        mrt::format::{Origin, StateNumber},
    };
    use std::sync::Arc;

    fn seen(item: Item) -> Seen {
        let origin =
            Origin { address: "192.0.2.1".parse().unwrap(), asn: Asn(65_001), id: None, is_sent: false };
        Seen { time: Time { seconds: 1_462_895_199, micros: Some(7) }, origin, item }
    }

    #[test]
    fn one_thing_is_one_line() {
        let nlri = Nlri { prefix: "10.0.0.0/8".parse().unwrap(), path_id: PathId(3) };
        let attributes =
            Arc::new(Attributes { med: Some(5), ..Attributes::local(isthmus_speaker::Origin::Egp) });
        let announced = Row::from(&seen(Item::Announced { nlri, attributes }));
        assert_eq!(
            announced.line(),
            "2016-05-10T15:46:39.000007Z  announce    10.0.0.0/8            from 192.0.2.1 AS65001  path-id 3  via self  as-path empty  origin egp  med 5"
        );
        let state = Row::from(&seen(Item::State { old: StateNumber(6), new: StateNumber(1) }));
        assert!(
            state.line().ends_with("from 192.0.2.1 AS65001  was established  is idle"),
            "{}",
            state.line()
        );
        let json = crate::output::line(&state);
        assert!(json.contains(r#""what":"state""#) && !json.contains("prefix"), "{json}");
    }
}
