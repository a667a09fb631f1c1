//! The configuration file: the original's keys, and ours.
//!
//! | key | meaning |
//! | --- | --- |
//! | `isthmus_socket` | the agent's socket; `/run/isthmus/adapter.sock` where absent |
//! | `cluster` | the cluster of the containers; the node's only one where absent |
//! | `dns_servers` | answered to Garden, which writes them into `resolv.conf` |
//! | `search_domains` | likewise |
//! | `log_prefix` | begins each line on standard error; `cfnetworking` where absent |
//! | `cni_plugin_dir`, `cni_config_dir`, `bind_mount_dir`, `state_file`, `start_port`, `total_ports`, `iptables_lock_file`, `proxy_redirect_cidr`, `proxy_port`, `proxy_uid`, `enable_ingress_proxy_redirect` | the original's; accepted so that its file can be used as it is, and without effect: the agent has `garden_start_port` and `garden_total_ports`, and needs none of the others |

use crate::json::{Object, ReadError};
use isthmus_api::adapter::SOCKET;
use std::{net::IpAddr, path::PathBuf};

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The agent's socket.
    pub socket: PathBuf,
    /// Cluster; empty: the node's only one.
    pub cluster: String,
    /// Name servers of the containers.
    pub dns_servers: Vec<String>,
    /// Domains that the containers search.
    pub search_domains: Vec<String>,
    /// Begins each line on standard error.
    pub log_prefix: String,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("reading the configuration file {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is no JSON, or a key has another type.
    #[error("reading the configuration file {path}: {source}")]
    Json {
        /// The file.
        path: String,
        /// What is wrong.
        source: ReadError,
    },
    /// A name server that is no address.
    #[error("reading the configuration file {path}: dns_servers has \"{server}\", which is no address")]
    Server {
        /// The file.
        path: String,
        /// The word.
        server: String,
    },
}

/// Begins each line on standard error, as long as no file says otherwise.
pub const LOG_PREFIX: &str = "cfnetworking";

impl Config {
    /// Reads the file at `path`.
    pub fn read(path: &str) -> Result<Self, ConfigError> {
        let text =
            std::fs::read(path).map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
        let config =
            Self::parse(&text).map_err(|source| ConfigError::Json { path: path.to_owned(), source })?;
        match config.dns_servers.iter().find(|server| server.parse::<IpAddr>().is_err()) {
            Some(server) => Err(ConfigError::Server { path: path.to_owned(), server: server.clone() }),
            None => Ok(config),
        }
    }

    fn parse(text: &[u8]) -> Result<Self, ReadError> {
        let object = Object::parse(text)?;
        let or = |text: String, default: &str| if text.is_empty() { default.to_owned() } else { text };
        Ok(Self {
            socket: or(object.text("isthmus_socket")?, SOCKET).into(),
            cluster: object.text("cluster")?,
            dns_servers: object.texts("dns_servers")?,
            search_domains: object.texts("search_domains")?,
            log_prefix: or(object.text("log_prefix")?, LOG_PREFIX),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_the_original_is_taken_as_it_is() {
        let text = br#"{"cni_plugin_dir":"/a","cni_config_dir":"/b","bind_mount_dir":"/c","state_file":"/d","start_port":61000,
            "total_ports":5000,"log_prefix":"cfnetworking","search_domains":["apps.internal"],"iptables_lock_file":"/e",
            "proxy_redirect_cidr":"","proxy_port":0,"proxy_uid":0,"enable_ingress_proxy_redirect":false}"#;
        let config = Config::parse(text).unwrap();
        assert_eq!(config.search_domains, ["apps.internal"]);
        assert_eq!((config.socket, config.cluster.as_str()), (PathBuf::from(SOCKET), ""));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let error = Config::read("/nonexistent/garden.json").unwrap_err().to_string();
        assert!(error.contains("/nonexistent/garden.json"), "{error}");
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, word) in
            [("{", "EOF"), (r#"{"cluster":1}"#, "cluster"), (r#"{"dns_servers":["dns"]}"#, "\"dns\"")]
        {
            std::fs::write(file.path(), text).unwrap();
            let error = Config::read(file.path().to_str().unwrap()).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
