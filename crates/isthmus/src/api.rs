//! The server's REST API and the agent's socket, as the commands need them.

use crate::{
    failure::{Exit, Failure},
    selector::Selector,
};
use isthmus_api::{
    client::{Client, ClientError, Place},
    rest::{List, Resource},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

/// Objects of one page. A server may give fewer.
const PAGE: usize = 1000;
/// The agent's socket for people's tools.
pub const AGENT_SOCKET: &str = "/run/isthmus/agent.sock";

/// A server's REST API.
pub struct Server {
    client: Client,
}

/// An agent's socket.
pub struct Agent {
    client: Client,
    socket: PathBuf,
}

impl Server {
    /// The API at `place`.
    pub fn new(place: Place) -> Self {
        Self { client: Client::new(place) }
    }

    /// `GET /api/v1/PATH`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        Ok(self.client.get(&format!("/api/v1/{path}")).await?)
    }

    /// All objects of a kind, page by page.
    pub async fn all<S: DeserializeOwned>(&self, kind: &str) -> Result<Vec<Resource<S>>, Failure> {
        let mut items = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let from = after.as_deref().map(|after| format!("&after={}", escape(after))).unwrap_or_default();
            let page: List<Resource<S>> = self.get(&format!("{kind}?limit={PAGE}{from}")).await?;
            items.extend(page.items);
            // A server that names the same page again would keep us here for good.
            match page.next {
                Some(next) if after.as_ref() != Some(&next) => after = Some(next),
                _ => return Ok(items),
            }
        }
    }

    /// As [`Server::all`], those whose labels match.
    pub async fn selected<S: DeserializeOwned>(
        &self,
        kind: &str,
        selector: &Selector,
    ) -> Result<Vec<Resource<S>>, Failure> {
        let mut items = self.all(kind).await?;
        items.retain(|item: &Resource<S>| selector.matches(&item.labels));
        Ok(items)
    }

    /// One object.
    pub async fn one<S: DeserializeOwned>(&self, kind: &str, name: &str) -> Result<Resource<S>, Failure> {
        self.get(&format!("{kind}/{}", escape(name))).await
    }

    /// Creates an object; with `dry_run` only says whether it could be.
    pub async fn create<B: Serialize, T: DeserializeOwned>(
        &self,
        kind: &str,
        draft: &B,
        dry_run: bool,
    ) -> Result<T, Failure> {
        Ok(self.client.post(&format!("/api/v1/{kind}{}", query(dry_run)), draft).await?)
    }

    /// Replaces an object that is still at `revision`; with `dry_run` only says whether it could be.
    pub async fn replace<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        draft: &B,
        revision: u64,
        dry_run: bool,
    ) -> Result<T, Failure> {
        Ok(self.client.replace(&format!("/api/v1/{path}{}", query(dry_run)), draft, revision).await?)
    }

    /// Deletes an object; with `dry_run` only says whether it could be.
    pub async fn delete(&self, kind: &str, name: &str, dry_run: bool) -> Result<(), Failure> {
        let path = format!("/api/v1/{kind}/{}{}", escape(name), query(dry_run));
        let _answer: serde_json::Value = self.client.delete(&path).await?;
        Ok(())
    }

    /// Each line of a streamed answer, until `line` says stop.
    pub async fn lines(&self, path: &str, line: impl FnMut(&str) -> bool) -> Result<(), Failure> {
        Ok(self.client.lines(&format!("/api/v1/{path}"), line).await?)
    }
}

impl Agent {
    /// The agent behind `socket`.
    ///
    /// # Errors
    ///
    /// Nobody listens there, or this user may not connect: told apart, because the remedies differ.
    pub fn new(socket: &Path) -> Result<Self, Failure> {
        match UnixStream::connect(socket) {
            Ok(_probe) => {
                let socket = socket.to_owned();
                Ok(Self { client: Client::new(Place::Unix(socket.clone())), socket })
            }
            Err(why) if why.kind() == io::ErrorKind::PermissionDenied => {
                let message = format!("you may not use the agent's socket {}", socket.display());
                let help = "be root, or a member of the group that the socket belongs to (isthmus)";
                Err(Failure::new(Exit::Forbidden, "ISE-0603", message, help))
            }
            Err(why) => Err(away(socket, &why.to_string())),
        }
    }

    /// `GET PATH`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.client.get(path).await.map_err(|error| self.told(error))
    }

    /// Each line of a streamed answer, until `line` says stop.
    pub async fn lines(&self, path: &str, line: impl FnMut(&str) -> bool) -> Result<(), Failure> {
        self.client.lines(path, line).await.map_err(|error| self.told(error))
    }

    fn told(&self, error: ClientError) -> Failure {
        match error {
            ClientError::Unreachable { why, .. } => away(&self.socket, &why),
            other => other.into(),
        }
    }
}

fn away(socket: &Path, why: &str) -> Failure {
    let message = format!("no agent answers on {}: {why}", socket.display());
    Failure::new(
        Exit::Unreachable,
        "ISE-0607",
        message,
        "start it (isthmus agent), or name its socket with --agent",
    )
}

fn query(dry_run: bool) -> &'static str {
    if dry_run { "?dryRun=true" } else { "" }
}

/// `text` as part of a URL: RFC 3986 section 2.3 leaves letters, digits and `-._~` as they are.
pub fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_for_the_path() {
        assert_eq!(escape("cf:acme/prod/cart@green"), "cf%3Aacme%2Fprod%2Fcart%40green");
        assert_eq!(escape("a-b_c.d~ä"), "a-b_c.d~%C3%A4");
    }

    #[test]
    fn an_absent_agent_and_a_forbidden_one_are_told_apart() {
        let failure = Agent::new(Path::new("/nonexistent/agent.sock")).err().unwrap();
        assert_eq!(failure.exit(), Exit::Unreachable);
        assert!(failure.render().contains("/nonexistent/agent.sock"));
    }
}
