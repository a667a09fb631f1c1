//! Asks a running speaker through GoBGP's API: ours, or any that serves version 3 of it.

use crate::KernelRoute;
use crate::explain::proto::{self as own, explainer_client::ExplainerClient};
use crate::gobgp::{
    proto::{self, gobgp_api_client::GobgpApiClient},
    read_attributes, show_injected,
};
use crate::interface;
use futures::StreamExt;
use isthmus_bgp::{Attributes, Family, Nlri};
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// What GoBGP writes in place of a neighbour's address where the path is the speaker's own.
const NOBODY: &str = "<nil>";

/// A speaker cannot be asked, or does not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not an address.
    #[error("\"{0}\" is no address of a speaker's API: write HOST:PORT or unix:PATH")]
    Address(String),
    /// Nobody answers there.
    #[error("cannot reach a speaker at {address}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It answered with a refusal.
    #[error("{text}")]
    Refused {
        /// It does not have what was asked for.
        is_missing: bool,
        /// Its own words.
        text: String,
    },
}

/// A speaker's API.
#[derive(Clone, Debug)]
pub struct Client {
    address: String,
    api: GobgpApiClient<Channel>,
    explainer: ExplainerClient<Channel>,
}

/// Which routes are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutesAsked {
    /// What a neighbour sent, or was sent; `None`: the best and all other paths of the speaker.
    pub neighbor: Option<(IpAddr, Direction)>,
    /// Which family.
    pub family: Family,
    /// Only this prefix, or the one that holds this address.
    pub prefix: Option<String>,
    /// Also what is within the prefix.
    pub longer: bool,
}

/// From a neighbour, or to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It sent them.
    In,
    /// It was sent them.
    Out,
}

/// A path to a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "marks that are shown beside a path, each for itself")]
pub struct Route {
    /// The prefix.
    pub prefix: String,
    /// It is the best one.
    pub best: bool,
    /// It was refused.
    pub filtered: bool,
    /// Its next hop leads nowhere.
    pub unresolved: bool,
    /// Its sender is away.
    pub stale: bool,
    /// Its sender; `None`: it is the speaker's own.
    pub neighbor: Option<IpAddr>,
    /// Its sender is in another AS.
    pub external: bool,
    /// When it came, in seconds since 1970; 0: not kept.
    pub received_unix: u64,
    /// What it carries.
    pub attributes: Attributes,
}

/// What a speaker thinks of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the best.
    Best,
    /// It is used beside the best.
    Used,
    /// Another one is better.
    Worse,
    /// It cannot be used.
    Excluded,
    /// Something that a newer speaker thinks.
    Unknown,
}

/// A path and what the speaker thinks of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathReason {
    /// The path.
    pub route: Route,
    /// What it thinks.
    pub verdict: Verdict,
    /// Why, in one word.
    pub reason: String,
    /// Why, for people.
    pub why: String,
}

/// Whether a neighbour is told of a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Its address.
    pub neighbor: String,
    /// It is.
    pub announced: bool,
    /// Why not, in one word.
    pub reason: String,
    /// Why not, for people.
    pub why: String,
}

/// Why the routes to a prefix are as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// The prefix that is meant.
    pub prefix: String,
    /// All paths, the best first.
    pub paths: Vec<PathReason>,
    /// All neighbours.
    pub announcements: Vec<Announcement>,
    /// How the kernel's route is, where the speaker keeps some.
    pub kernel: Option<KernelRoute>,
}

/// A path that is put into a speaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injected {
    /// Where it leads, and its number among those of one prefix.
    pub nlri: Nlri,
    /// What it carries; `None`: it is taken away.
    pub attributes: Option<Arc<Attributes>>,
}

impl Client {
    /// Connects to a speaker's API at `HOST:PORT`, or on a Unix socket at `unix:PATH`.
    pub async fn connect(address: &str) -> Result<Self, ClientError> {
        let uri = if address.starts_with("unix:") { address.to_owned() } else { format!("http://{address}") };
        let endpoint = Endpoint::from_shared(uri).map_err(|_why| ClientError::Address(address.to_owned()))?;
        let channel =
            endpoint.connect_timeout(CONNECT_TIMEOUT).connect().await.map_err(|why| {
                ClientError::Unreachable { address: address.to_owned(), source: Box::new(why) }
            })?;
        let explainer = ExplainerClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
        let api = GobgpApiClient::new(channel).max_decoding_message_size(usize::MAX);
        Ok(Self { address: address.to_owned(), api, explainer })
    }

    /// The speaker itself.
    pub async fn global(&mut self) -> Result<proto::Global, ClientError> {
        let answer = self.api.get_bgp(proto::GetBgpRequest {}).await;
        let answer = answer.map_err(|why| self.refused(why))?;
        Ok(answer.into_inner().global.unwrap_or_default())
    }

    /// All neighbours, or one.
    pub async fn peers(&mut self, address: Option<IpAddr>) -> Result<Vec<proto::Peer>, ClientError> {
        let address = address.map(interface::shown).unwrap_or_default();
        let request = proto::ListPeerRequest { address, enable_advertised: true };
        let mut answers = match self.api.list_peer(request).await {
            Ok(answers) => answers.into_inner(),
            Err(why) => return Err(self.refused(why)),
        };
        let mut peers = Vec::new();
        while let Some(answer) = answers.message().await.map_err(|why| self.refused(why))? {
            peers.extend(answer.peer);
        }
        Ok(peers)
    }

    /// Gives `take` each path to each prefix, the best first, as they come.
    pub async fn routes(
        &mut self,
        asked: &RoutesAsked,
        mut take: impl FnMut(Route),
    ) -> Result<(), ClientError> {
        let mut answers = match self.api.list_path(list_path(asked)).await {
            Ok(answers) => answers.into_inner(),
            Err(why) => return Err(self.refused(why)),
        };
        while let Some(answer) = answers.message().await.map_err(|why| self.refused(why))? {
            let destination = answer.destination.unwrap_or_default();
            for path in &destination.paths {
                take(route(&destination.prefix, path).map_err(|why| self.refused(why))?);
            }
        }
        Ok(())
    }

    /// Why the routes to a prefix, or to the narrowest one around an address, are as they are.
    pub async fn why(&mut self, prefix: &str, neighbor: Option<IpAddr>) -> Result<Why, ClientError> {
        let neighbor = neighbor.map(interface::shown).unwrap_or_default();
        let request = own::WhyRequest { prefix: prefix.to_owned(), neighbor };
        let answer = self.explainer.why(request).await.map_err(|why| self.refused(why))?.into_inner();
        let reason = |one: &own::PathReason| -> Result<PathReason, Status> {
            use own::path_reason::Verdict as Shown;
            Ok(PathReason {
                route: route(&answer.prefix, &one.path.clone().unwrap_or_default())?,
                verdict: match one.verdict() {
                    Shown::Unknown => Verdict::Unknown,
                    Shown::Best => Verdict::Best,
                    Shown::Used => Verdict::Used,
                    Shown::Worse => Verdict::Worse,
                    Shown::Excluded => Verdict::Excluded,
                },
                reason: one.reason.clone(),
                why: one.why.clone(),
            })
        };
        let paths = answer.paths.iter().map(reason).collect::<Result<_, _>>();
        let announcements = answer.announcements.iter().map(|one| Announcement {
            neighbor: one.neighbor.clone(),
            announced: one.announced,
            reason: one.reason.clone(),
            why: one.why.clone(),
        });
        Ok(Why {
            paths: paths.map_err(|why| self.refused(why))?,
            announcements: announcements.collect(),
            prefix: answer.prefix,
            kernel: answer.kernel.map(|route| KernelRoute { installed: route.installed, why: route.why }),
        })
    }

    /// How the speaker's routes are in the kernel; `None`: it keeps none there.
    pub async fn kernel(&mut self) -> Result<Option<own::KernelResponse>, ClientError> {
        let answer = match self.explainer.kernel(own::KernelRequest {}).await {
            // An older speaker does not tell.
            Err(why) if why.code() == Code::Unimplemented => return Ok(None),
            answer => answer.map_err(|why| self.refused(why))?.into_inner(),
        };
        Ok(answer.enabled.then_some(answer))
    }

    /// Puts paths into the speaker as its own, and takes away those without attributes. Returns when all that comes
    /// through `paths` was taken; a speaker that takes them slowly slows down who gives them.
    ///
    /// # Errors
    ///
    /// The speaker is gone, or did not take some: those before and behind them it did, if it is one of ours.
    pub async fn inject(&mut self, paths: mpsc::Receiver<Vec<Injected>>) -> Result<(), ClientError> {
        let requests = ReceiverStream::new(paths).map(|paths| proto::AddPathStreamRequest {
            table_type: i32::from(proto::TableType::Global),
            paths: paths.iter().map(|one| show_injected(one.nlri, one.attributes.as_deref())).collect(),
            ..proto::AddPathStreamRequest::default()
        });
        self.api.add_path_stream(requests).await.map(drop).map_err(|why| self.refused(why))
    }

    /// Gives `take` all routes of the speaker, as they came, as an MRT file, piece by piece; with each piece how many
    /// records there are so far, and how many paths such a file cannot hold. Only speakers of ours know this.
    ///
    /// # Errors
    ///
    /// The speaker is gone or does not know this; or what `take` said.
    pub async fn dump_table<E: From<ClientError>>(
        &mut self,
        mut take: impl FnMut(&[u8], u64, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut answers = match self.explainer.dump_table(own::DumpTableRequest {}).await {
            Ok(answers) => answers.into_inner(),
            Err(why) => return Err(self.refused(why).into()),
        };
        while let Some(piece) = answers.message().await.map_err(|why| self.refused(why))? {
            take(&piece.content, piece.records, piece.left_out)?;
        }
        Ok(())
    }

    /// What the speaker dumps into files by itself, and how that goes.
    pub async fn mrt_dumps(&mut self) -> Result<Vec<own::Dump>, ClientError> {
        let answer = self.explainer.list_dumps(own::ListDumpsRequest {}).await;
        Ok(answer.map_err(|why| self.refused(why))?.into_inner().dumps)
    }

    /// All monitoring stations by address.
    pub async fn stations(&mut self) -> Result<Vec<own::Station>, ClientError> {
        let answer = self.explainer.stations(own::StationsRequest {}).await;
        Ok(answer.map_err(|why| self.refused(why))?.into_inner().stations)
    }

    /// Ends a session, or with `soft` only applies policy once more and sends everything once more.
    pub async fn reset(&mut self, address: IpAddr, soft: bool, text: &str) -> Result<(), ClientError> {
        let request = proto::ResetPeerRequest {
            address: interface::shown(address),
            communication: text.to_owned(),
            soft,
            direction: i32::from(proto::reset_peer_request::Direction::Both),
        };
        let answer = self.api.reset_peer(request).await;
        answer.map(drop).map_err(|why| self.refused(why))
    }

    fn refused(&self, status: Status) -> ClientError {
        if status.code() == Code::Unavailable {
            return ClientError::Unreachable { address: self.address.clone(), source: Box::new(status) };
        }
        ClientError::Refused {
            is_missing: status.code() == Code::NotFound,
            text: format!("the speaker at {} says: {}", self.address, status.message()),
        }
    }
}

fn list_path(asked: &RoutesAsked) -> proto::ListPathRequest {
    use proto::{TableType, list_path_request::SortType, table_lookup_prefix::Type};
    let (table_type, name) = match asked.neighbor {
        None => (TableType::Global, String::new()),
        Some((address, Direction::In)) => (TableType::AdjIn, interface::shown(address)),
        Some((address, Direction::Out)) => (TableType::AdjOut, interface::shown(address)),
    };
    let numbers = asked.family.afi_safi();
    let kind = if asked.longer { Type::Longer } else { Type::Exact };
    let prefixes = asked
        .prefix
        .iter()
        .map(|prefix| proto::TableLookupPrefix { prefix: prefix.clone(), r#type: i32::from(kind) });
    proto::ListPathRequest {
        table_type: i32::from(table_type),
        name,
        family: Some(proto::Family { afi: i32::from(numbers.afi), safi: i32::from(numbers.safi) }),
        prefixes: prefixes.collect(),
        sort_type: i32::from(SortType::Prefix),
        enable_filtered: true,
        ..proto::ListPathRequest::default()
    }
}

fn route(prefix: &str, path: &proto::Path) -> Result<Route, Status> {
    Ok(Route {
        prefix: prefix.to_owned(),
        best: path.best,
        filtered: path.filtered,
        unresolved: path.is_nexthop_invalid,
        stale: path.stale,
        neighbor: Some(&path.neighbor_ip).filter(|ip| *ip != NOBODY).and_then(|ip| interface::read(ip)),
        external: path.is_from_external,
        received_unix: path.age.map_or(0, |age| u64::try_from(age.seconds).unwrap_or_default()),
        attributes: read_attributes(&path.pattrs)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_an_address() {
        let nobody = std::env::temp_dir().join("isthmus-nobody-listens.sock");
        let refused = Client::connect(&format!("unix:{}", nobody.display())).await.err();
        assert!(matches!(refused, Some(ClientError::Unreachable { .. })), "{refused:?}");
        let refused = Client::connect("not an address").await.err();
        assert!(matches!(refused, Some(ClientError::Address(_))), "{refused:?}");
    }
}
