//! The call's environment variables, read and checked.

use crate::error::{CniError, Code};
use std::collections::BTreeMap;

/// Longest interface name that Linux has room for (`IFNAMSIZ` less the zero byte, linux/if.h).
const INTERFACE_BYTES_MAX: usize = 15;
/// Longest container id that is taken; runtimes use 64 bytes, Nomad 36, a pod's nested id in Mesos a few times that.
const CONTAINER_BYTES_MAX: usize = 512;
/// Keys of `CNI_ARGS` that are understood, beside every `NOMAD_…` and `K8S_POD_…`.
const KEYS: [&str; 3] = ["IgnoreUnknown", "IP", "MAC"];

/// The environment variables of one call, as they came. Mesos passes nothing else, so nothing else is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `CNI_COMMAND`.
    pub command: String,
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_NETNS`; empty where there is none any more.
    pub netns: String,
    /// `CNI_IFNAME`.
    pub interface: String,
    /// `CNI_ARGS`.
    pub args: String,
    /// `CNI_NETNS_OVERRIDE`: the container may use the plugin's own network namespace.
    pub netns_override: String,
}

impl Environment {
    /// That of this process. What is not UTF-8 is replaced, and then refused as a bad name.
    pub fn of_process() -> Self {
        let variable =
            |name| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned()).unwrap_or_default();
        Self {
            command: variable("CNI_COMMAND"),
            container: variable("CNI_CONTAINERID"),
            netns: variable("CNI_NETNS"),
            interface: variable("CNI_IFNAME"),
            args: variable("CNI_ARGS"),
            netns_override: variable("CNI_NETNS_OVERRIDE"),
        }
    }

    /// The container's id, if it is one.
    pub fn container(&self) -> Result<&str, CniError> {
        let id = required("CNI_CONTAINERID", &self.container)?;
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if !id.starts_with(|c: char| c.is_ascii_alphanumeric()) || !id.chars().all(good) {
            return Err(bad(
                "CNI_CONTAINERID",
                id,
                "begin with a letter or digit and go on with those, '_', '.' and '-'",
            ));
        }
        if id.len() > CONTAINER_BYTES_MAX {
            return Err(bad("CNI_CONTAINERID", &id[..64], "have at most 512 bytes"));
        }
        Ok(id)
    }

    /// The interface's name inside, if it is one that Linux takes.
    pub fn interface(&self) -> Result<&str, CniError> {
        let name = required("CNI_IFNAME", &self.interface)?;
        let wrong = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        if name.len() > INTERFACE_BYTES_MAX || name == "." || name == ".." || name.contains(wrong) {
            return Err(bad(
                "CNI_IFNAME",
                name,
                "have 1 to 15 bytes, without '/', ':' and spaces, and not be . or ..",
            ));
        }
        Ok(name)
    }

    /// The namespace's path.
    pub fn netns(&self) -> Result<&str, CniError> {
        required("CNI_NETNS", &self.netns)
    }

    /// Whether the container may use the plugin's own network namespace.
    pub fn may_use_own_netns(&self) -> bool {
        is_true(&self.netns_override)
    }

    /// `CNI_ARGS` as keys and values.
    ///
    /// # Errors
    ///
    /// A pair without `=`; a key that is not understood, unless `IgnoreUnknown` says that this does not matter.
    pub fn args(&self) -> Result<BTreeMap<&str, &str>, CniError> {
        let mut args = BTreeMap::new();
        for pair in self.args.split(';').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                let message = format!("CNI_ARGS has \"{pair}\", which is not KEY=VALUE");
                return Err(CniError::new(
                    Code::Environment,
                    message,
                    "write CNI_ARGS as KEY=VALUE;KEY=VALUE",
                ));
            };
            args.insert(key, value);
        }
        let understood =
            |key: &str| KEYS.contains(&key) || key.starts_with("K8S_POD_") || key.starts_with("NOMAD_");
        if !args.get("IgnoreUnknown").is_some_and(|value| is_true(value))
            && let Some(key) = args.keys().find(|key| !understood(key))
        {
            let message = format!("CNI_ARGS has the key \"{key}\", which this plugin does not know");
            return Err(CniError::new(Code::Environment, message, "leave it out, or add IgnoreUnknown=1"));
        }
        Ok(args)
    }
}

fn is_true(value: &str) -> bool {
    ["1", "t", "true", "yes", "on"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

fn required<'a>(name: &str, value: &'a str) -> Result<&'a str, CniError> {
    if value.is_empty() {
        let message = format!("the environment variable {name} is missing");
        return Err(CniError::new(
            Code::Environment,
            message,
            "the runtime that calls the plugin must set it",
        ));
    }
    Ok(value)
}

fn bad(name: &str, value: &str, rule: &str) -> CniError {
    CniError::new(
        Code::Environment,
        format!("the environment variable {name} is {value:?}: it must {rule}"),
        "",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_args(args: &str) -> Environment {
        Environment { args: args.to_owned(), ..Environment::default() }
    }

    #[test]
    fn unknown_keys_are_refused_only_without_ignore_unknown() {
        assert!(with_args("").args().unwrap().is_empty());
        assert_eq!(with_args("A=1").args().unwrap_err().code, Code::Environment);
        assert_eq!(with_args("A=1;IgnoreUnknown=0").args().unwrap_err().code, Code::Environment);
        for yes in ["1", "true", "TRUE"] {
            assert_eq!(with_args(&format!("A=1;IgnoreUnknown={yes}")).args().unwrap()["A"], "1");
        }
        assert_eq!(with_args("IP=10.0.0.1;K8S_POD_NAME=a=b;").args().unwrap()["K8S_POD_NAME"], "a=b");
        assert_eq!(with_args("IP").args().unwrap_err().code, Code::Environment);
    }

    #[test]
    fn names_that_linux_or_cni_do_not_take_are_refused() {
        for name in ["", "..", "a/b", "a b", "a:b", "sixteen-bytes-xx", "e\u{7}"] {
            let environment = Environment { interface: name.to_owned(), ..Environment::default() };
            assert_eq!(environment.interface().unwrap_err().code, Code::Environment, "{name}");
        }
        for id in ["", "-a", "a/b", "a b", "\u{fffd}"] {
            let environment = Environment { container: id.to_owned(), ..Environment::default() };
            assert_eq!(environment.container().unwrap_err().code, Code::Environment, "{id}");
        }
        let good = Environment {
            container: "default-ctr.one_2".into(),
            interface: "eth0".into(),
            ..Environment::default()
        };
        assert!(good.container().is_ok() && good.interface().is_ok());
    }
}
