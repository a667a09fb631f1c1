//! Which server is meant: `--server`, then `ISTHMUS_SERVER`, then the context file, then a running demo, then loopback.

use crate::failure::{Exit, Failure};
use isthmus_api::client::Place;
use isthmus_testbed::demo::SERVER_FILE;
use serde::Deserialize;
use std::{
    env, fs, io,
    net::ToSocketAddrs,
    path::{Path, PathBuf},
};

/// Where a server listens unless told otherwise.
const SERVER: &str = "127.0.0.1:7480";

/// The context file: what a person would else write with every command.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ContextFile {
    /// Address of the REST API.
    server: Option<String>,
}

/// Where the server is. `told` is what flag or environment say.
pub fn server(told: Option<&str>) -> Result<Place, Failure> {
    let text = match told {
        Some(told) => told.to_owned(),
        None => of_file(context_path().as_deref())?
            .or_else(|| of_demo(Path::new(SERVER_FILE)))
            .unwrap_or(SERVER.into()),
    };
    address(&text)
}

fn context_path() -> Option<PathBuf> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
    base.map(|base| base.join("isthmus/config.toml"))
}

fn of_file(path: Option<&Path>) -> Result<Option<String>, Failure> {
    let Some(path) = path else { return Ok(None) };
    let refuse = |why: &dyn std::fmt::Display| {
        let message = format!("the context file {} cannot be read: {why}", path.display());
        Failure::new(Exit::Usage, "ISE-0604", message, "it may hold one line: server = \"HOST:PORT\"")
    };
    match fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text).map(|file: ContextFile| file.server).map_err(|why| refuse(&why)),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(refuse(&why)),
    }
}

fn of_demo(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn address(text: &str) -> Result<Place, Failure> {
    let refuse = |why: &str| {
        let message = format!("the server's address \"{text}\" cannot be used: {why}");
        Failure::new(Exit::Usage, "ISE-0605", message, "write HOST:PORT, for example 127.0.0.1:7480")
    };
    if text.starts_with("https://") {
        return Err(refuse(
            "this version speaks plain text only, on loopback or a network that the server trusts",
        ));
    }
    let plain = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    let mut found = plain.to_socket_addrs().map_err(|why| refuse(&why.to_string()))?;
    found.next().map(Place::Tcp).ok_or_else(|| refuse("the name has no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_as_people_write_them() {
        for text in ["127.0.0.1:7480", "http://127.0.0.1:7480/", "localhost:1", "[::1]:7480"] {
            assert!(matches!(address(text), Ok(Place::Tcp(_))), "{text}");
        }
        for text in ["127.0.0.1", "https://127.0.0.1:1", "", "a b:1", "127.0.0.1:70000"] {
            assert_eq!(address(text).unwrap_err().exit(), Exit::Usage, "{text}");
        }
    }

    #[test]
    fn the_context_file_and_the_demo_are_asked_in_turn() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        assert_eq!(of_file(Some(&path)).unwrap(), None);
        fs::write(&path, "server = \"10.0.0.1:7480\"\n").unwrap();
        assert_eq!(of_file(Some(&path)).unwrap().as_deref(), Some("10.0.0.1:7480"));
        fs::write(&path, "sever = \"x\"\n").unwrap();
        let text = of_file(Some(&path)).unwrap_err().render();
        assert!(text.contains("sever") && text.contains("ISE-0604"), "{text}");
        fs::write(&path, "127.0.0.1:9\n").unwrap();
        assert_eq!(of_demo(&path).as_deref(), Some("127.0.0.1:9"));
        assert_eq!(of_demo(&directory.path().join("none")), None);
    }
}
