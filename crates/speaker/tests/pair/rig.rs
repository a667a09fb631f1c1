//! A speaker, and what it is asked.

use isthmus_speaker::{
    Attributes, Client, Config, Family, Nlri, Options, Origin, PathId,
    client::{Direction, Injected, Route, RoutesAsked},
    explain::proto::Dump,
    gobgp::proto::{self, gobgp_api_client::GobgpApiClient, peer_state::SessionState},
};
use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep},
};

/// How long anything may take that works at all.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
/// How often is looked again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A speaker while the test runs.
pub(crate) struct Speaker {
    pub(crate) api: SocketAddr,
    pub(crate) reloads: mpsc::Sender<Config>,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Speaker {
    pub(crate) async fn start(text: &str) -> Self {
        Self::start_with(text, Options::default()).await
    }

    /// With options, among which its API comes.
    pub(crate) async fn start_with(text: &str, options: Options) -> Self {
        // The port is free again for the speaker; nobody else takes ports of this kind from the kernel by name.
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = free.local_addr().unwrap();
        drop(free);
        let (reloads, to_reload) = mpsc::channel(1);
        let (stop, stopped) = oneshot::channel::<()>();
        let config = config(text);
        let running = tokio::spawn(async move {
            let options = Options { api: Some(api), ..options };
            let stopped = async { drop(stopped.await) };
            isthmus_speaker::run(config, options, to_reload, stopped).await.unwrap();
        });
        Self { api, reloads, stop, running }
    }

    pub(crate) async fn client(&self) -> Client {
        let address = self.api.to_string();
        wait("the API answers", || async { Client::connect(&address).await.ok() }).await
    }

    pub(crate) async fn raw(&self) -> GobgpApiClient<tonic::transport::Channel> {
        let _ = self.client().await;
        GobgpApiClient::connect(format!("http://{}", self.api)).await.unwrap()
    }

    /// Adds a path as the stock client does.
    pub(crate) async fn announce(&self, prefix: &str) {
        let (address, len) = prefix.split_once('/').unwrap();
        let nlri = prost::Message::encode_to_vec(&proto::IpAddressPrefix {
            prefix_len: len.parse().unwrap(),
            prefix: address.to_owned(),
        });
        let nlri =
            proto::Any { type_url: "type.googleapis.com/apipb.IPAddressPrefix".to_owned(), value: nlri };
        let path = proto::Path { nlri: Some(nlri), ..proto::Path::default() };
        let request = proto::AddPathRequest { path: Some(path), ..proto::AddPathRequest::default() };
        let answer = self.raw().await.add_path(request).await.unwrap();
        assert_eq!(answer.into_inner().uuid.len(), 16);
    }

    /// Adds paths as `isthmus bgp mrt inject` does.
    pub(crate) async fn inject(&self, prefixes: &[&str]) {
        let path = |prefix: &&str| Injected {
            nlri: Nlri { prefix: prefix.parse().unwrap(), path_id: PathId(0) },
            attributes: Some(Arc::new(Attributes::local(Origin::Igp))),
        };
        let (batches, taken) = mpsc::channel(1);
        batches.send(prefixes.iter().map(path).collect()).await.unwrap();
        drop(batches);
        self.client().await.inject(taken).await.unwrap();
    }

    pub(crate) async fn peer(&self) -> proto::Peer {
        let peers = self.client().await.peers(None).await.unwrap();
        peers.into_iter().next().unwrap_or_default()
    }

    pub(crate) async fn wait_peer(
        &self,
        what: &str,
        is_so: impl Fn(&proto::PeerState) -> bool,
    ) -> proto::Peer {
        wait(what, || async {
            let peer = self.peer().await;
            is_so(peer.state.as_ref()?).then_some(peer)
        })
        .await
    }

    pub(crate) async fn wait_up(&self) -> proto::Peer {
        self.wait_peer("the session comes up", |state| state.session_state() == SessionState::Established)
            .await
    }

    pub(crate) async fn routes(&self, neighbor: Option<(&str, Direction)>) -> Vec<Route> {
        let neighbor = neighbor.map(|(address, direction)| (address.parse().unwrap(), direction));
        let asked = RoutesAsked { neighbor, family: Family::Ipv4Unicast, prefix: None, longer: false };
        let mut routes = Vec::new();
        self.client().await.routes(&asked, |route| routes.push(route)).await.unwrap();
        routes
    }

    pub(crate) async fn wait_routes(&self, what: &str, count: usize) -> Vec<Route> {
        wait(what, || async {
            let routes = self.routes(None).await;
            (routes.len() == count).then_some(routes)
        })
        .await
    }

    pub(crate) async fn dumps(&self) -> Vec<Dump> {
        self.client().await.mrt_dumps().await.unwrap()
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.running).await.unwrap().unwrap();
    }
}

pub(crate) async fn wait<T, F: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> F) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < until, "{what}: not in {PATIENCE:?}");
        // Between two looks at a condition with a deadline.
        sleep(LOOK_AGAIN).await;
    }
}

pub(crate) fn config(text: &str) -> Config {
    Config::from_toml(text, "f").unwrap_or_else(|faults| panic!("{faults}"))
}

/// A speaker at 127.0.`net`.`own` with the other as its neighbour. Each test has a net of its own.
pub(crate) fn text(net: u8, own: u8, other: u8, rest: &str) -> String {
    let (asn, peer_as) = (65_000 + u32::from(own), 65_000 + u32::from(other));
    format!(
        "[global.config]\nas = {asn}\nrouter-id = \"10.0.0.{own}\"\nport = 17900\nlocal-address-list = [\"127.0.{net}.{own}\"]\n\
         [[neighbors]]\n[neighbors.config]\nneighbor-address = \"127.0.{net}.{other}\"\npeer-as = {peer_as}\n\
         [neighbors.transport.config]\nremote-port = 17900\nlocal-address = \"127.0.{net}.{own}\"\n\
         [neighbors.timers.config]\nconnect-retry = 1\nidle-hold-time-after-reset = 1\n{rest}"
    )
}
