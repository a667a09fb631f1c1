//! Lays a file beside the schema: keys that are not there, values of another type or out of bounds, keys without effect.

use super::{
    faults::Fault,
    node::{number, prefix, router_id, seconds},
    schema::{Key, Kind, Support},
};
use std::{net::IpAddr, ops::Range};
use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

/// Collects faults and warnings with their places.
pub(super) struct Checker<'a> {
    text: &'a str,
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<Fault>,
}

impl<'a> Checker<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, faults: Vec::new(), warnings: Vec::new() }
    }

    /// Checks a table and all within. `path` is that of the table, empty for the file.
    pub(super) fn table(&mut self, path: &str, table: &DeTable<'_>, keys: &[Key]) {
        for (name, value) in table {
            let path = join(path, name.get_ref());
            match keys.iter().find(|key| key.name == name.get_ref()) {
                Some(key) => self.key(&path, name, value, key),
                None => self.unknown(&path, name, keys),
            }
        }
    }

    fn key(&mut self, path: &str, name: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'_>>, key: &Key) {
        let instead = match key.support {
            Support::Full => None,
            Support::Later(instead) => Some(instead),
            Support::LaterIfSet(instead) => is_set(value.get_ref()).then_some(instead),
            Support::Refused(why) => return self.fault(name.span(), path, why),
        };
        if let Some(instead) = instead {
            let warning = self.told(name.span(), path, instead);
            self.warnings.push(warning);
        }
        match (key.kind, value.get_ref()) {
            (Kind::Table(keys), DeValue::Table(table)) => self.table(path, table, keys),
            (Kind::Tables(keys), DeValue::Array(items)) => {
                for item in items {
                    match item.get_ref() {
                        DeValue::Table(table) => self.table(path, table, keys),
                        other => self.fault(item.span(), path, &wrong_type(other, "a table")),
                    }
                }
            }
            (kind, found) => {
                if let Err(why) = judge(kind, found) {
                    self.fault(value.span(), path, &why);
                }
            }
        }
    }

    fn unknown(&mut self, path: &str, name: &Spanned<DeString<'_>>, keys: &[Key]) {
        let best = keys.iter().map(|key| (distance(key.name, name.get_ref()), key.name)).min();
        let hint = match best {
            Some((distance, known)) if distance <= 1 + name.get_ref().len() / 3 => {
                format!("did you mean {known}?")
            }
            _ => format!("there are {}", keys.iter().map(|key| key.name).collect::<Vec<_>>().join(", ")),
        };
        self.fault(name.span(), path, &format!("there is no such key; {hint}"));
    }

    /// Notes a fault at a place of the text.
    pub(super) fn fault(&mut self, span: Range<usize>, key: &str, why: &str) {
        let fault = self.told(span, key, why);
        self.faults.push(fault);
    }

    /// Notes a warning at a place of the text.
    pub(super) fn warn(&mut self, span: Range<usize>, key: &str, why: &str) {
        let warning = self.told(span, key, why);
        self.warnings.push(warning);
    }

    fn told(&self, span: Range<usize>, key: &str, why: &str) -> Fault {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Fault {
            line: 1 + before.matches('\n').count(),
            column: 1 + before.get(line_start..).unwrap_or_default().chars().count(),
            key: key.to_owned(),
            why: why.to_owned(),
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn is_set(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Boolean(set) => *set,
        DeValue::Integer(_) | DeValue::Float(_) => seconds(value) != Some(0),
        _ => true,
    }
}

fn wrong_type(value: &DeValue<'_>, expected: &str) -> String {
    format!("is of type {}: write {expected}", value.type_str())
}

/// Says what is wrong with one value.
fn judge(kind: Kind, value: &DeValue<'_>) -> Result<(), String> {
    match kind {
        Kind::Anything => Ok(()),
        Kind::Table(_) => Err(wrong_type(value, "a table")),
        Kind::Tables(_) => {
            Err(wrong_type(value, "a list of tables, each under a heading in double brackets"))
        }
        Kind::Flag => value.as_bool().map(drop).ok_or_else(|| wrong_type(value, "true or false")),
        Kind::Number(least, most) => within(number(value), value, least, most, "a whole number"),
        Kind::Seconds(least, most) => within(seconds(value), value, least, most, "whole seconds"),
        Kind::Loose if number(value).is_some() => Ok(()),
        Kind::Texts | Kind::Addresses | Kind::Words(_) => {
            let item = match kind {
                Kind::Addresses => Kind::Address,
                Kind::Words(words) => Kind::Word(words),
                _ => Kind::Name,
            };
            let items = value.as_array().ok_or_else(|| wrong_type(value, "a list of texts"))?;
            items.iter().try_for_each(|found| judge(item, found.get_ref()))
        }
        _ => {
            let text = value.as_str().ok_or_else(|| wrong_type(value, "a text in quotes"))?;
            judge_text(kind, text)
        }
    }
}

fn judge_text(kind: Kind, text: &str) -> Result<(), String> {
    match kind {
        Kind::Name if text.is_empty() => Err("is empty: write a name".to_owned()),
        Kind::Address if text.parse::<IpAddr>().is_err() => {
            Err(format!("\"{text}\" is no IP address: write one like 192.0.2.1"))
        }
        Kind::RouterId if router_id(text).is_none() => {
            Err(format!("\"{text}\" is no router id: write four numbers like 192.0.2.1, not 0.0.0.0"))
        }
        Kind::Prefix if prefix(text).is_none() => {
            Err(format!("\"{text}\" is no prefix: write one like 10.0.0.0/8"))
        }
        Kind::Word(words) if !words.contains(&text) => {
            Err(format!("\"{text}\" is not one of {}", words.join(", ")))
        }
        _ => Ok(()),
    }
}

fn within(found: Option<i64>, value: &DeValue<'_>, least: i64, most: i64, what: &str) -> Result<(), String> {
    match found {
        None => Err(wrong_type(value, &format!("{what} from {least} to {most}"))),
        Some(found) if (least..=most).contains(&found) => Ok(()),
        Some(found) => Err(format!("{found} is out of bounds: write {what} from {least} to {most}")),
    }
}

/// How many letters must be changed, put in or left out to make one word of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut left = index + 1;
        let mut diagonal = index;
        for (above, known) in row.iter_mut().skip(1).zip(&other) {
            let changed = diagonal + usize::from(letter != *known);
            diagonal = *above;
            left = changed.min(*above + 1).min(left + 1);
            *above = left;
        }
        if let Some(first) = row.first_mut() {
            *first = index + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}
