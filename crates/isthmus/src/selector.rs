//! `-l`: objects by their labels.

use crate::failure::Failure;
use std::collections::BTreeMap;

/// A list of conditions on labels, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Condition>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Is(String, String),
    IsNot(String, String),
    Has(String),
    HasNot(String),
}

impl Selector {
    /// Reads `k=v,k!=v,k,!k`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let conditions = text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(|part| {
            let condition = if let Some((key, value)) = part.split_once("!=") {
                Condition::IsNot(key.trim().to_owned(), value.trim().to_owned())
            } else if let Some((key, value)) = part.split_once('=') {
                Condition::Is(key.trim().to_owned(), value.trim_start_matches('=').trim().to_owned())
            } else if let Some(key) = part.strip_prefix('!') {
                Condition::HasNot(key.trim().to_owned())
            } else {
                Condition::Has(part.to_owned())
            };
            let (Condition::Is(key, _)
            | Condition::IsNot(key, _)
            | Condition::Has(key)
            | Condition::HasNot(key)) = &condition;
            if key.is_empty() {
                let message = format!("the label selector has \"{part}\", which names no label");
                return Err(Failure::usage(message, "write -l key=value,other!=value,has,!has-not"));
            }
            Ok(condition)
        });
        Ok(Self(conditions.collect::<Result<_, _>>()?))
    }

    /// Whether all conditions hold for `labels`.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|condition| match condition {
            Condition::Is(key, value) => labels.get(key) == Some(value),
            Condition::IsNot(key, value) => labels.get(key) != Some(value),
            Condition::Has(key) => labels.contains_key(key),
            Condition::HasNot(key) => !labels.contains_key(key),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_conditions_must_hold() {
        let labels = [("tier".to_owned(), "fe".to_owned())].into();
        for (text, expected) in [
            ("", true),
            ("tier=fe", true),
            ("tier==fe", true),
            ("tier=be", false),
            ("tier!=be,!zone", true),
            ("tier,zone", false),
            ("!tier", false),
            ("zone!=a", true),
        ] {
            assert_eq!(Selector::parse(text).unwrap().matches(&labels), expected, "{text}");
        }
        assert!(Selector::parse("=fe").is_err() && Selector::parse("!").is_err());
    }
}
