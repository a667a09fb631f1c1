//! Reads values of tables that lie over each other: a neighbour's own keys win over those of its peer group.
//!
//! What the checker refused reads as absent here; the fault has been told.

use ipnet::IpNet;
use std::{
    net::{IpAddr, Ipv4Addr},
    ops::Range,
    time::Duration,
};
use toml::de::{DeTable, DeValue};

/// One table, or several of which the first that has a key gives its value.
#[derive(Clone, Default)]
pub(super) struct Node<'t> {
    layers: Vec<&'t DeTable<'t>>,
}

impl<'t> Node<'t> {
    pub(super) fn of(table: &'t DeTable<'t>) -> Self {
        Self { layers: vec![table] }
    }

    /// This table over another.
    pub(super) fn over(mut self, below: Option<&Node<'t>>) -> Self {
        self.layers.extend(below.into_iter().flat_map(|below| below.layers.iter().copied()));
        self
    }

    fn get(&self, key: &str) -> Option<&'t toml::Spanned<DeValue<'t>>> {
        self.layers.iter().find_map(|layer| layer.get(key))
    }

    /// Whether the key is written.
    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Where the value stands; the file's first character where it does not.
    pub(super) fn place(&self, key: &str) -> Range<usize> {
        self.get(key).map_or(0..0, toml::Spanned::span)
    }

    /// Tables within, in the same order.
    pub(super) fn table(&self, key: &str) -> Node<'t> {
        let tables = self.layers.iter().filter_map(|layer| layer.get(key)?.get_ref().as_table());
        Node { layers: tables.collect() }
    }

    /// The table of a table, such as `timers` and `config`.
    pub(super) fn config(&self, key: &str) -> Node<'t> {
        self.table(key).table("config")
    }

    /// Tables of a list.
    pub(super) fn tables(&self, key: &str) -> Vec<Node<'t>> {
        let items = self.get(key).and_then(|value| value.get_ref().as_array());
        items.into_iter().flatten().filter_map(|item| item.get_ref().as_table().map(Node::of)).collect()
    }

    /// Where the items of a list of tables stand.
    pub(super) fn tables_places(&self, key: &str) -> Vec<Range<usize>> {
        let items = self.get(key).and_then(|value| value.get_ref().as_array());
        items.into_iter().flatten().map(toml::Spanned::span).collect()
    }

    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.get(key)?.get_ref().as_str().filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// A text, or a number as its text.
    pub(super) fn loose(&self, key: &str) -> Option<String> {
        let value = self.get(key)?.get_ref();
        value.as_str().map(str::to_owned).or_else(|| number(value).map(|number| number.to_string()))
    }

    /// Texts of a list with their places.
    pub(super) fn texts(&self, key: &str) -> Vec<(Range<usize>, String)> {
        let items = self.get(key).and_then(|value| value.get_ref().as_array());
        let texts = items.into_iter().flatten();
        texts.filter_map(|item| Some((item.span(), item.get_ref().as_str()?.to_owned()))).collect()
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.get(key)?.get_ref().as_bool()
    }

    /// A number that the schema bounds to what `T` holds.
    pub(super) fn number<T: TryFrom<i64>>(&self, key: &str) -> Option<T> {
        T::try_from(number(self.get(key)?.get_ref())?).ok()
    }

    pub(super) fn seconds(&self, key: &str) -> Option<Duration> {
        let seconds = seconds(self.get(key)?.get_ref())?;
        u64::try_from(seconds).ok().map(Duration::from_secs)
    }

    /// An address; an IPv4 one that is written as IPv6 is one of IPv4, as connections from it are.
    pub(super) fn address(&self, key: &str) -> Option<IpAddr> {
        self.get(key)?.get_ref().as_str()?.parse().ok().map(|address: IpAddr| address.to_canonical())
    }

    pub(super) fn router_id(&self, key: &str) -> Option<Ipv4Addr> {
        router_id(self.get(key)?.get_ref().as_str()?)
    }

    pub(super) fn prefix(&self, key: &str) -> Option<IpNet> {
        prefix(self.get(key)?.get_ref().as_str()?)
    }
}

/// A whole number.
pub(super) fn number(value: &DeValue<'_>) -> Option<i64> {
    let DeValue::Integer(number) = value else { return None };
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// Whole seconds; a fraction must be zero, because GoBGP writes `90.0` where no fraction is kept on the wire.
pub(super) fn seconds(value: &DeValue<'_>) -> Option<i64> {
    match value {
        DeValue::Float(number) => {
            let (whole, fraction) = number.as_str().split_once('.')?;
            fraction.bytes().all(|digit| digit == b'0').then(|| whole.parse().ok()).flatten()
        }
        other => number(other),
    }
}

pub(super) fn router_id(text: &str) -> Option<Ipv4Addr> {
    text.parse().ok().filter(|id: &Ipv4Addr| !id.is_unspecified())
}

/// A prefix, without its host bits.
pub(super) fn prefix(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().map(|prefix| prefix.trunc())
}
