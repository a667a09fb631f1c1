//! `server.toml`: parsed with the places of its values, then turned into a [`Config`] whose existence proves it valid.

use ipnet::IpNet;
use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf};
use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

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

/// Reads the file key by key. What cannot be read is a fault and leaves the default, so that all faults are found.
struct Reader<'a> {
    text: &'a str,
    faults: Vec<ConfigFault>,
}

/// Where values stand, for faults that are found later.
type Lines = BTreeMap<String, usize>;

impl Reader<'_> {
    fn config(&mut self) -> Config {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            self.fault(error.span().map_or(0, |span| span.start), error.message().to_owned());
        }
        let mut config = Config::default();
        let mut lines = Lines::new();
        for (key, value) in table.get_ref() {
            lines.insert(key.get_ref().clone().into_owned(), self.line(key.span().start));
            self.key(&mut config, key, value);
        }
        for (key, text) in config.refused_addresses().err().unwrap_or_default() {
            let line = lines.get(key).copied().unwrap_or(0);
            self.faults.push(ConfigFault { line, text });
        }
        config
    }

    fn key(&mut self, config: &mut Config, key: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'_>>) {
        match key.get_ref().as_ref() {
            "listen" => self.set(&mut config.listen, "listen", value, address),
            "agents" => self.set(&mut config.agents, "agents", value, address),
            "cf_policy" => self.set(&mut config.cf_policy, "cf_policy", value, |text| {
                if text.is_empty() { Ok(None) } else { address(text).map(Some) }
            }),
            "data_dir" => self.set(&mut config.data_dir, "data_dir", value, directory),
            "plain_text_networks" => self.networks(&mut config.plain_text_networks, value),
            other => {
                let text = format!("unknown key \"{other}\": write one of {}", KEYS.join(", "));
                self.fault(key.span().start, text);
            }
        }
    }

    /// Sets a value that is written as a text.
    fn set<T>(
        &mut self,
        place: &mut T,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) {
        let Some(text) = value.get_ref().as_str() else {
            let found = value.get_ref().type_str();
            self.fault(value.span().start, format!("{key} is of type {found}: write a text in quotes"));
            return;
        };
        match read(text) {
            Ok(found) => *place = found,
            Err(why) => self.fault(value.span().start, format!("{key} = \"{text}\" {why}")),
        }
    }

    fn networks(&mut self, place: &mut Vec<IpNet>, value: &Spanned<DeValue<'_>>) {
        let key = "plain_text_networks";
        let Some(items) = value.get_ref().as_array() else {
            let found = value.get_ref().type_str();
            self.fault(value.span().start, format!("{key} is of type {found}: write a list of CIDRs"));
            return;
        };
        for item in items {
            let mut network = None;
            self.set(&mut network, key, item, |text| {
                let cidr = text.parse::<IpNet>();
                cidr.map(|cidr| Some(cidr.trunc()))
                    .map_err(|_why| "is no CIDR: write one like 10.200.0.0/24".to_owned())
            });
            place.extend(network);
        }
    }

    fn fault(&mut self, at: usize, text: String) {
        let line = self.line(at);
        self.faults.push(ConfigFault { line, text });
    }

    fn line(&self, at: usize) -> usize {
        let before = self.text.get(..at).unwrap_or(self.text);
        1 + before.matches('\n').count()
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_why| "is no address with a port: write one like 127.0.0.1:7480".to_owned())
}

fn directory(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err(format!("is no absolute path: write one like {DATA_DIR}")) }
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
    fn unknown_keys_wrong_types_and_wrong_values_are_told_together() {
        let found =
            faults("# first\nlisten_on = \"x\"\nagents = 7\nlisten = \"8.8.8.8:1\"\n\n[extra]\na = 1\n");
        let lines: Vec<usize> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 3, 4, 6], "{found:?}");
    }

    #[test]
    fn a_list_that_is_none_is_told() {
        let found = faults("plain_text_networks = \"10.0.0.0/8\"\n");
        assert!(found[0].1.contains("list of CIDRs"), "{found:?}");
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
