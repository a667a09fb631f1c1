//! JSON as Go reads it: keys without regard to case, unknown keys ignored, `null` for the zero value.

use serde_json::{Map, Value};

/// An object whose keys are found without regard to case. An exact key comes first.
#[derive(Clone, Debug, Default)]
pub struct Object(Map<String, Value>);

/// Why a value is not what was looked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No JSON at all.
    #[error("{0}")]
    Syntax(String),
    /// Another type.
    #[error("cannot read {found} into {key} of type {wanted}")]
    Type {
        /// What was found.
        found: &'static str,
        /// The key.
        key: String,
        /// What was looked for.
        wanted: &'static str,
    },
    /// A number that does not fit.
    #[error("{key} is {number}: it must be from {lowest} to {highest}")]
    Range {
        /// The key.
        key: String,
        /// What was found.
        number: String,
        /// Lowest that fits.
        lowest: i64,
        /// Highest that fits.
        highest: i64,
    },
}

impl Object {
    /// Reads a whole document; `null` is an empty object.
    pub fn parse(text: &[u8]) -> Result<Self, ReadError> {
        let value = serde_json::from_slice(text).map_err(|why| ReadError::Syntax(why.to_string()))?;
        Self::of("the input", value)
    }

    fn of(key: &str, value: Value) -> Result<Self, ReadError> {
        match value {
            Value::Null => Ok(Self::default()),
            Value::Object(map) => Ok(Self(map)),
            other => Err(mismatch(key, &other, "object")),
        }
    }

    /// The value of `key`; `null` where there is none.
    pub fn value(&self, key: &str) -> Value {
        let folded = || {
            self.0.iter().find(|(found, _value)| found.eq_ignore_ascii_case(key)).map(|(_found, value)| value)
        };
        self.0.get(key).or_else(folded).cloned().unwrap_or_default()
    }

    /// A text; empty where there is none.
    pub fn text(&self, key: &str) -> Result<String, ReadError> {
        match self.value(key) {
            Value::Null => Ok(String::new()),
            Value::String(text) => Ok(text),
            other => Err(mismatch(key, &other, "string")),
        }
    }

    /// A whole number from `lowest` to `highest`; 0 where there is none.
    pub fn number(&self, key: &str, lowest: i64, highest: i64) -> Result<i64, ReadError> {
        match self.value(key) {
            Value::Null => Ok(0),
            Value::Number(number) => match number.as_i64() {
                Some(number) if (lowest..=highest).contains(&number) => Ok(number),
                _ => {
                    Err(ReadError::Range { key: key.to_owned(), number: number.to_string(), lowest, highest })
                }
            },
            other => Err(mismatch(key, &other, "number")),
        }
    }

    /// An object; empty where there is none.
    pub fn object(&self, key: &str) -> Result<Self, ReadError> {
        Self::of(key, self.value(key))
    }

    /// A list of objects; empty where there is none.
    pub fn objects(&self, key: &str) -> Result<Vec<Self>, ReadError> {
        self.list(key)?.into_iter().map(|item| Self::of(key, item)).collect()
    }

    /// A list of texts; empty where there is none.
    pub fn texts(&self, key: &str) -> Result<Vec<String>, ReadError> {
        let text = |item| match item {
            Value::String(text) => Ok(text),
            Value::Null => Ok(String::new()),
            other => Err(mismatch(key, &other, "string")),
        };
        self.list(key)?.into_iter().map(text).collect()
    }

    fn list(&self, key: &str) -> Result<Vec<Value>, ReadError> {
        match self.value(key) {
            Value::Null => Ok(Vec::new()),
            Value::Array(items) => Ok(items),
            other => Err(mismatch(key, &other, "array")),
        }
    }
}

fn mismatch(key: &str, found: &Value, wanted: &'static str) -> ReadError {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    ReadError::Type { found, key: key.to_owned(), wanted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_any_case_and_exact_ones_first() {
        let object = Object::parse(br#"{"PID":1,"pid":2,"Name":"x"}"#).unwrap();
        assert_eq!(object.number("pid", 0, 9), Ok(2));
        assert_eq!(object.text("name"), Ok("x".to_owned()));
    }

    #[test]
    fn null_and_nothing_are_zero() {
        let object = Object::parse(br#"{"a":null}"#).unwrap();
        for key in ["a", "b"] {
            assert_eq!(object.text(key), Ok(String::new()));
            assert_eq!(object.number(key, 1, 2), Ok(0));
            assert!(object.objects(key).unwrap().is_empty() && object.texts(key).unwrap().is_empty());
            assert_eq!(object.object(key).unwrap().text("x"), Ok(String::new()));
        }
        assert!(Object::parse(b"null").is_ok());
    }

    #[test]
    fn another_type_is_named_with_its_key() {
        let object = Object::parse(br#"{"a":1,"b":"x","c":[1],"d":70000}"#).unwrap();
        assert_eq!(object.text("a").unwrap_err().to_string(), "cannot read number into a of type string");
        assert!(object.number("b", 0, 1).is_err());
        assert!(object.objects("c").is_err() && object.texts("c").is_err() && object.object("c").is_err());
        assert!(object.objects("b").is_err());
        assert_eq!(
            object.number("d", 0, 65535).unwrap_err().to_string(),
            "d is 70000: it must be from 0 to 65535"
        );
        assert!(matches!(Object::parse(b"{"), Err(ReadError::Syntax(_))));
        assert!(Object::parse(b"[]").is_err());
    }
}
