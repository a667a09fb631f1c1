//! JSON as Go's decoder takes it: keys without regard to case, unknown keys ignored, `null` and absence are zero.

use serde_json::{Map, Value};

/// A value does not have the type of its field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("json: cannot unmarshal {found} into Go struct field {field} of type {wanted}")]
pub(super) struct TypeError {
    found: &'static str,
    field: String,
    wanted: &'static str,
}

/// An object, with its name for messages.
pub(super) struct Object<'a> {
    map: Option<&'a Map<String, Value>>,
    name: &'static str,
}

impl<'a> Object<'a> {
    /// The outermost value.
    pub(super) fn root(value: &'a Value, name: &'static str) -> Result<Self, TypeError> {
        object(Some(value), name, name.to_owned())
    }

    /// A field. An exact key wins over one of another case, as a later one wins over an earlier one in Go.
    fn field(&self, key: &str) -> Option<&'a Value> {
        let map = self.map?;
        let value = map.get(key).or_else(|| {
            map.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
        })?;
        (!value.is_null()).then_some(value)
    }

    fn error(&self, key: &str, value: &Value, wanted: &'static str) -> TypeError {
        TypeError { found: kind(value), field: format!("{}.{key}", self.name), wanted }
    }

    pub(super) fn object(&self, key: &str, name: &'static str) -> Result<Object<'a>, TypeError> {
        object(self.field(key), name, format!("{}.{key}", self.name))
    }

    pub(super) fn list(&self, key: &str) -> Result<&'a [Value], TypeError> {
        match self.field(key) {
            None => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(other) => Err(self.error(key, other, "[]api.Policy")),
        }
    }

    pub(super) fn text(&self, key: &str) -> Result<String, TypeError> {
        match self.field(key) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) => Err(self.error(key, other, "string")),
        }
    }

    pub(super) fn number(&self, key: &str) -> Result<i64, TypeError> {
        match self.field(key) {
            None => Ok(0),
            Some(value @ Value::Number(number)) => {
                number.as_i64().ok_or_else(|| self.error(key, value, "int"))
            }
            Some(other) => Err(self.error(key, other, "int")),
        }
    }
}

fn object<'a>(value: Option<&'a Value>, name: &'static str, field: String) -> Result<Object<'a>, TypeError> {
    match value {
        None | Some(Value::Null) => Ok(Object { map: None, name }),
        Some(Value::Object(map)) => Ok(Object { map: Some(map), name }),
        Some(other) => Err(TypeError { found: kind(other), field, wanted: name }),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
