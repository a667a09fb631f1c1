//! What Guardian writes on standard input for `up`.

use crate::json::{Object, ReadError};
use std::collections::BTreeMap;

/// One `up`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Up {
    /// A process of the container; 0: the namespace is descriptor 3.
    pub pid: u32,
    /// Properties of the container, without `network.`.
    pub properties: BTreeMap<String, String>,
    /// Ports that lead into the container.
    pub net_in: Vec<NetIn>,
    /// Number of rules for traffic to the outside. They are not enforced yet.
    pub net_out_rules: usize,
}

/// A port that leads into the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetIn {
    /// Port of the node; 0: to be chosen.
    pub host_port: u16,
    /// Port in the container.
    pub container_port: u16,
}

impl Up {
    /// Reads standard input.
    pub fn parse(text: &[u8]) -> Result<Self, ReadError> {
        let object = Object::parse(text)?;
        let port = |item: &Object, key: &str| item.number(key, 0, u16::MAX.into()).map(|port| port as u16);
        let net_in = object.objects("netin")?.into_iter().map(|item| {
            Ok(NetIn { host_port: port(&item, "host_port")?, container_port: port(&item, "container_port")? })
        });
        Ok(Self {
            pid: object.number("Pid", 0, i32::MAX.into())? as u32,
            properties: properties(&object)?,
            net_in: net_in.collect::<Result<_, _>>()?,
            net_out_rules: object.objects("netout_rules")?.len(),
        })
    }
}

/// Properties are texts; what is none is passed over, as the original takes any JSON there and uses only texts.
fn properties(object: &Object) -> Result<BTreeMap<String, String>, ReadError> {
    object.object("Properties")?;
    let serde_json::Value::Object(map) = object.value("Properties") else { return Ok(BTreeMap::new()) };
    let text = |(key, value): (String, serde_json::Value)| match value {
        serde_json::Value::String(text) => {
            Some((key.strip_prefix("network.").unwrap_or(&key).to_owned(), text))
        }
        _ => None,
    };
    Ok(map.into_iter().filter_map(text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorded_form_is_read_in_any_case() {
        let text = br#"{"PID":123,"properties":{"app_id":"a","network.ports":"8080","n":1},"NetIn":[{"Host_Port":0,"container_port":8080}],
            "netout_rules":[{"protocol":1,"networks":[{"start":"8.8.8.8","end":"9.9.9.9"}]}],"other":true}"#;
        let up = Up::parse(text).unwrap();
        assert_eq!((up.pid, up.net_out_rules), (123, 1));
        assert_eq!(up.net_in, [NetIn { host_port: 0, container_port: 8080 }]);
        assert_eq!(up.properties["ports"], "8080");
        assert!(!up.properties.contains_key("n"));
    }

    #[test]
    fn nothing_at_all_is_zero() {
        for text in ["null", "{}", r#"{"Pid":null,"Properties":null,"netin":null,"netout_rules":null}"#] {
            assert_eq!(Up::parse(text.as_bytes()), Ok(Up::default()));
        }
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        for text in [
            r#"{"Pid":-1}"#,
            r#"{"Pid":1.5}"#,
            r#"{"netin":[{"host_port":65536}]}"#,
            r#"{"Properties":[]}"#,
            "",
            "x",
        ] {
            assert!(Up::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
