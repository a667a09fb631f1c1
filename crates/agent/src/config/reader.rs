//! Reads keys of a TOML table with their places, and collects faults instead of stopping at the first.

use super::faults::{ConfigFaults, Fault};
use std::{
    collections::BTreeMap,
    ops::{Range, RangeInclusive},
    path::PathBuf,
    str::FromStr,
};
use toml::de::{DeTable, DeValue};

/// One table whose keys are taken one by one; what is left at the end is unknown.
pub(super) struct Reader<'a> {
    text: &'a str,
    origin: &'a str,
    prefix: &'static str,
    values: BTreeMap<String, (usize, DeValue<'a>)>,
    known: Vec<String>,
    faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    /// Reads the text as TOML; its syntax errors are all reported, and then nothing else.
    pub(super) fn new(text: &'a str, origin: &'a str) -> Result<Self, ConfigFaults> {
        let (table, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            let fault = |error: &toml::de::Error| Fault {
                line: error.span().map_or(0, |span| line(text, &span)),
                text: error.message().to_owned(),
            };
            return Err(ConfigFaults {
                origin: origin.to_owned(),
                faults: errors.iter().map(fault).collect(),
            });
        }
        Ok(Self::of(text, origin, "", table.into_inner()))
    }

    fn of(text: &'a str, origin: &'a str, prefix: &'static str, table: DeTable<'a>) -> Self {
        let place = |span: Range<usize>| line(text, &span);
        let values = table
            .into_iter()
            .map(|(key, value)| (key.get_ref().to_string(), (place(key.span()), value.into_inner())))
            .collect();
        Self { text, origin, prefix, values, known: Vec::new(), faults: Vec::new() }
    }

    /// Whether the key was written (also after it was taken).
    pub(super) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    fn take(&mut self, key: &str) -> Option<(usize, DeValue<'a>)> {
        self.known.push(key.to_owned());
        self.values.get(key).cloned()
    }

    /// A text; an empty one counts as absent.
    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        match self.take(key)?.1 {
            DeValue::String(text) if text.is_empty() => None,
            DeValue::String(text) => Some(text.into_owned()),
            other => self.wrong_type(key, &other, "a text in quotes"),
        }
    }

    /// A text that means a `T`.
    pub(super) fn parsed<T: FromStr>(&mut self, key: &str, expected: &str) -> Option<T> {
        let text = self.text(key)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.fault(key, &format!("\"{text}\""), expected);
        }
        parsed
    }

    /// A list of texts that each mean a `T`.
    pub(super) fn list<T: FromStr>(&mut self, key: &str, expected: &str) -> Vec<T> {
        let Some((_, value)) = self.take(key) else { return Vec::new() };
        let DeValue::Array(items) = value else {
            self.wrong_type::<()>(key, &value, expected);
            return Vec::new();
        };
        if items.is_empty() {
            self.fault(key, "[]", expected);
        }
        let mut parsed = Vec::new();
        for item in items {
            match item.get_ref().as_str().map(|text| (text, text.parse())) {
                Some((_, Ok(value))) => parsed.push(value),
                Some((text, Err(_))) => self.fault(key, &format!("\"{text}\""), expected),
                None => self.fault(key, item.get_ref().type_str(), expected),
            }
        }
        parsed
    }

    /// A whole number within a range.
    pub(super) fn number(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        match self.take(key)?.1 {
            DeValue::Integer(number) => {
                let value = i64::from_str_radix(number.as_str(), number.radix()).ok();
                let value =
                    value.and_then(|value| u64::try_from(value).ok()).filter(|value| range.contains(value));
                if value.is_none() {
                    self.fault(key, number.as_str(), &expected);
                }
                value
            }
            other => self.wrong_type(key, &other, &expected),
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let expected: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.fault(key, &format!("\"{text}\""), &format!("one of {}", expected.join(", ")));
        }
        found
    }

    /// An absolute path.
    pub(super) fn path(&mut self, key: &str) -> Option<PathBuf> {
        let text = self.text(key)?;
        let path = PathBuf::from(&text);
        if !path.is_absolute() {
            self.fault(key, &format!("\"{text}\""), "an absolute path");
        }
        Some(path)
    }

    /// A table within; give it back with [`Reader::take_back`].
    pub(super) fn table(&mut self, key: &'static str) -> Reader<'a> {
        let table = match self.take(key) {
            Some((_, DeValue::Table(table))) => table,
            Some((_, other)) => {
                self.wrong_type::<()>(key, &other, &format!("a table: [{key}]"));
                DeTable::new()
            }
            None => DeTable::new(),
        };
        Self::of(self.text, self.origin, key, table)
    }

    /// Takes over the faults of a table within.
    pub(super) fn take_back(&mut self, mut table: Reader<'a>) {
        table.find_unknown();
        self.faults.append(&mut table.faults);
    }

    /// Says that a key is needed.
    pub(super) fn missing(&mut self, key: &str, expected: &str) {
        self.faults.push(Fault { line: 0, text: format!("{key} is missing: write {expected}") });
    }

    /// Says that a value is wrong.
    pub(super) fn fault(&mut self, key: &str, found: &str, expected: &str) {
        let line = self.values.get(key).map_or(0, |(line, _)| *line);
        self.faults.push(Fault { line, text: format!("{}: {found} is not {expected}", self.name(key)) });
    }

    fn wrong_type<T>(&mut self, key: &str, value: &DeValue<'_>, expected: &str) -> Option<T> {
        self.fault(key, &format!("this {}", value.type_str()), expected);
        None
    }

    fn name(&self, key: &str) -> String {
        if self.prefix.is_empty() { key.to_owned() } else { format!("{}.{key}", self.prefix) }
    }

    fn find_unknown(&mut self) {
        let unknown = self.values.iter().filter(|(key, _)| !self.known.contains(key));
        let faults = unknown.map(|(key, (line, _))| {
            let text = format!("{}: there is no such key{}", self.name(key), self.nearest(key));
            Fault { line: *line, text }
        });
        let faults: Vec<_> = faults.collect();
        self.faults.extend(faults);
    }

    fn nearest(&self, key: &str) -> String {
        let best = self.known.iter().map(|known| (distance(known, key), known)).min();
        match best {
            Some((distance, known)) if distance <= 1 + key.len() / 3 => format!("; did you mean {known}?"),
            _ => format!("; there are {}", self.known.join(", ")),
        }
    }

    /// The faults, if there are any.
    pub(super) fn finish(mut self) -> Result<(), ConfigFaults> {
        self.find_unknown();
        if self.faults.is_empty() {
            return Ok(());
        }
        self.faults.sort_by_key(|fault| fault.line);
        Err(ConfigFaults { origin: self.origin.to_owned(), faults: self.faults })
    }
}

fn line(text: &str, span: &Range<usize>) -> usize {
    text.as_bytes().iter().take(span.start).filter(|byte| **byte == b'\n').count() + 1
}

/// How many letters must be changed, put in or left out to make one word of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, known) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *known);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}
