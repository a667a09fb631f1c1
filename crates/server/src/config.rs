//! `server.toml`: read raw, then turned into a [`Config`] whose existence proves it valid.

use ipnet::IpNet;
use serde::Deserialize;
use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};
use toml::Spanned;

/// Where the REST API listens unless told otherwise: loopback, because there are no tokens yet.
const LISTEN: &str = "127.0.0.1:7480";
/// Where agents connect unless told otherwise: loopback, because there is no TLS yet.
const AGENTS: &str = "127.0.0.1:7443";
/// Cloud Foundry's policy API; the port of its own policy server.
const CF_POLICY: &str = "127.0.0.1:4002";
/// Where the store's file lives.
const DATA_DIR: &str = "/var/lib/isthmus/server";

/// What the server was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Address of the REST API.
    pub listen: SocketAddr,
    /// Address of the agents' stream.
    pub agents: SocketAddr,
    /// Address of Cloud Foundry's policy API; `None` when it is off.
    pub cf_policy: Option<SocketAddr>,
    /// Directory of the store's file.
    pub data_dir: PathBuf,
    /// Networks besides loopback on which plain text is accepted.
    pub plain_text_networks: Vec<IpNet>,
}

/// One fault of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFault {
    /// Line, from 1; 0 where none can be told.
    pub line: usize,
    /// What is wrong and what to write.
    pub text: String,
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigFaults {
    /// File, or what else the text came from.
    pub origin: String,
    /// The faults, by line.
    pub faults: Vec<ConfigFault>,
}

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{}:{}: {}", self.origin, fault.line, fault.text)?;
        }
        Ok(())
    }
}

impl Default for Config {
    fn default() -> Self {
        let address = |text: &str| text.parse().expect("the defaults are addresses");
        Self {
            listen: address(LISTEN),
            agents: address(AGENTS),
            cf_policy: Some(address(CF_POLICY)),
            data_dir: PathBuf::from(DATA_DIR),
            plain_text_networks: Vec::new(),
        }
    }
}

/// The file as written. Values keep their place, so that a fault can name its line.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    listen: Option<Spanned<String>>,
    agents: Option<Spanned<String>>,
    cf_policy: Option<Spanned<String>>,
    data_dir: Option<Spanned<String>>,
    plain_text_networks: Option<Vec<Spanned<String>>>,
}

/// The keys of the file.
const KEYS: [&str; 5] = ["listen", "agents", "cf_policy", "data_dir", "plain_text_networks"];

impl Config {
    /// Reads `server.toml` from `text`; `origin` is its file name for messages.
    ///
    /// # Errors
    ///
    /// Every fault at once, each with its line.
    pub fn from_toml(text: &str, origin: &str) -> Result<Self, ConfigFaults> {
        let mut reader = Reader { text, faults: Vec::new() };
        let config = reader.config();
        let mut faults = reader.faults;
        faults.sort_by_key(|fault| fault.line);
        if faults.is_empty() { Ok(config) } else { Err(ConfigFaults { origin: origin.to_owned(), faults }) }
    }

    /// The configuration in force, as a `server.toml`.
    pub fn render(&self) -> String {
        let networks: Vec<String> = self.plain_text_networks.iter().map(|net| format!("\"{net}\"")).collect();
        let cf_policy = self.cf_policy.map(|address| address.to_string()).unwrap_or_default();
        let data_dir = toml::Value::String(self.data_dir.display().to_string());
        format!(
            "listen = \"{}\"\nagents = \"{}\"\ncf_policy = \"{cf_policy}\"\ndata_dir = {data_dir}\nplain_text_networks = [{}]\n",
            self.listen,
            self.agents,
            networks.join(", ")
        )
    }

    /// File of the store.
    pub fn store_file(&self) -> PathBuf {
        self.data_dir.join("store.redb")
    }

    /// Checks what the keys say of each other: plain text is for loopback and the networks that are named.
    ///
    /// # Errors
    ///
    /// One text for each address that is refused.
    pub fn refused_addresses(&self) -> Result<(), Vec<(&'static str, String)>> {
        let mut refused = Vec::new();
        for (key, address) in [("listen", self.listen), ("agents", self.agents)] {
            let ip = address.ip();
            if !ip.is_loopback() && !self.plain_text_networks.iter().any(|net| net.contains(&ip)) {
                refused.push((key, format!(
                    "{key} = \"{address}\" would carry plain text: there is no TLS yet, so use a loopback address, or put the network of {ip} into plain_text_networks if nobody else is on it"
                )));
            }
        }
        if let Some(address) = self.cf_policy.filter(|address| !address.ip().is_loopback()) {
            refused.push(("cf_policy", format!(
                "cf_policy = \"{address}\" would take policies from everybody: there are no tokens yet, so use a loopback address, or \"\" to turn it off"
            )));
        }
        if refused.is_empty() { Ok(()) } else { Err(refused) }
    }
}

struct Reader<'a> {
    text: &'a str,
    faults: Vec<ConfigFault>,
}

impl Reader<'_> {
    fn config(&mut self) -> Config {
        let default = Config::default();
        let Some(raw) = self.raw() else { return default };
        let spans = [("listen", &raw.listen), ("agents", &raw.agents), ("cf_policy", &raw.cf_policy)]
            .map(|(key, value)| (key, value.as_ref().map_or(0, |value| self.line(value.span().start))));
        let cf_policy = match &raw.cf_policy {
            Some(value) if value.get_ref().is_empty() => None,
            Some(_) => self.address("cf_policy", raw.cf_policy.as_ref()).or(default.cf_policy),
            None => default.cf_policy,
        };
        let config = Config {
            listen: self.address("listen", raw.listen.as_ref()).unwrap_or(default.listen),
            agents: self.address("agents", raw.agents.as_ref()).unwrap_or(default.agents),
            cf_policy,
            data_dir: self.directory(raw.data_dir.as_ref()).unwrap_or(default.data_dir),
            plain_text_networks: self.networks(raw.plain_text_networks.unwrap_or_default()),
        };
        for (key, text) in config.refused_addresses().err().unwrap_or_default() {
            let line = spans.iter().find(|(name, _)| *name == key).map_or(0, |(_, line)| *line);
            self.faults.push(ConfigFault { line, text });
        }
        config
    }

    /// The raw file. Wrong keys and wrong types are taken out one by one, so that all of them are told.
    fn raw(&mut self) -> Option<RawConfig> {
        let table = match self.text.parse::<toml::Table>() {
            Ok(table) => table,
            Err(error) => {
                self.fault(error.span().map_or(0, |span| span.start), error.message().to_owned());
                return None;
            }
        };
        for key in table.keys().filter(|key| !KEYS.contains(&key.as_str())) {
            let line = self.key_line(key);
            self.faults.push(ConfigFault {
                line,
                text: format!("unknown key \"{key}\": write one of {}", KEYS.join(", ")),
            });
        }
        for (key, value) in table.iter().filter(|(key, _)| KEYS.contains(&key.as_str())) {
            let list = key == "plain_text_networks";
            let fits = if list {
                value.as_array().is_some_and(|items| items.iter().all(toml::Value::is_str))
            } else {
                value.is_str()
            };
            if !fits {
                let wanted = if list { "a list of texts" } else { "a text" };
                let line = self.key_line(key);
                self.faults.push(ConfigFault {
                    line,
                    text: format!("{key} is {}: write {wanted}", value.type_str()),
                });
            }
        }
        if !self.faults.is_empty() {
            return None;
        }
        match toml::from_str(self.text) {
            Ok(raw) => Some(raw),
            Err(error) => {
                let error: toml::de::Error = error;
                self.fault(error.span().map_or(0, |span| span.start), error.message().to_owned());
                None
            }
        }
    }

    fn address(&mut self, key: &str, value: Option<&Spanned<String>>) -> Option<SocketAddr> {
        let value = value?;
        let parsed = value.get_ref().parse().ok();
        if parsed.is_none() {
            let text = format!(
                "{key} = \"{}\" is no address with a port: write one like 127.0.0.1:7480",
                value.get_ref()
            );
            self.fault(value.span().start, text);
        }
        parsed
    }

    fn directory(&mut self, value: Option<&Spanned<String>>) -> Option<PathBuf> {
        let value = value?;
        let path = Path::new(value.get_ref());
        if !path.is_absolute() {
            let text =
                format!("data_dir = \"{}\" is no absolute path: write one like {DATA_DIR}", value.get_ref());
            self.fault(value.span().start, text);
        }
        Some(path.to_owned())
    }

    fn networks(&mut self, values: Vec<Spanned<String>>) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for value in values {
            match value.get_ref().parse::<IpNet>() {
                Ok(network) => networks.push(network.trunc()),
                Err(_) => {
                    let text = format!(
                        "plain_text_networks has \"{}\", which is no CIDR: write one like 10.200.0.0/24",
                        value.get_ref()
                    );
                    self.fault(value.span().start, text);
                }
            }
        }
        networks
    }

    fn fault(&mut self, at: usize, text: String) {
        let line = self.line(at);
        self.faults.push(ConfigFault { line, text });
    }

    fn line(&self, at: usize) -> usize {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }

    fn key_line(&self, key: &str) -> usize {
        let starts = |line: &str| {
            let line = line.trim_start().trim_start_matches(['[', '"', '\'']);
            line.strip_prefix(key)
                .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        };
        self.text.lines().position(starts).map_or(0, |index| index + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<(usize, String)> {
        let faults = Config::from_toml(text, "server.toml").unwrap_err().faults;
        faults.into_iter().map(|fault| (fault.line, fault.text)).collect()
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        assert_eq!(Config::from_toml("", "server.toml"), Ok(Config::default()));
    }

    #[test]
    fn what_render_writes_is_read_back() {
        let text = "listen = \"10.200.0.1:80\"\ncf_policy = \"\"\nplain_text_networks = [\"10.200.0.7/24\"]\ndata_dir = \"/a \\\"b\"";
        let config = Config::from_toml(text, "server.toml").unwrap();
        assert_eq!(config.cf_policy, None);
        assert_eq!(Config::from_toml(&config.render(), "server.toml"), Ok(config));
    }

    #[test]
    fn all_faults_come_at_once_with_their_lines() {
        let found = faults(
            "listen = \"nonsense\"\nagents = \"8.8.8.8:7443\"\ndata_dir = \"here\"\nplain_text_networks = [\"10.0.0.0/33\"]\n",
        );
        let lines: Vec<usize> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 2, 3, 4], "{found:?}");
        assert!(found[1].1.contains("plain_text_networks"), "{found:?}");
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_all_told() {
        let found = faults("# first\nlisten_on = \"x\"\nagents = 7\n\n[extra]\na = 1\n");
        let lines: Vec<usize> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 3, 5], "{found:?}");
    }

    #[test]
    fn a_broken_file_names_the_line() {
        assert_eq!(faults("\nlisten = \n")[0].0, 2);
    }

    #[test]
    fn the_cf_api_stays_on_loopback_even_in_a_plain_text_network() {
        let found = faults("cf_policy = \"10.0.0.1:4002\"\nplain_text_networks = [\"10.0.0.0/8\"]\n");
        assert!(found[0].1.contains("tokens"), "{found:?}");
    }

    #[test]
    fn faults_print_as_file_and_line() {
        let faults = Config::from_toml("x = 1\ny = 2\n", "server.toml").unwrap_err();
        assert_eq!(faults.to_string().lines().filter(|line| line.starts_with("server.toml:")).count(), 2);
    }
}
