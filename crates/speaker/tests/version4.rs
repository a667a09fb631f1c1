//! GoBGP's API, version 4, asked by a client that is made from its messages. Needs no privilege.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use isthmus_speaker::{
    Config, Options,
    gobgp::{
        api::{
            self, attribute::Attr, go_bgp_service_client::GoBgpServiceClient, nlri::Nlri,
            watch_event_response::Event,
        },
        proto,
    },
};
use std::time::Duration;
use tokio::{
    io::AsyncReadExt,
    net::TcpListener,
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout},
};
use tonic::{Code, transport::Channel};

/// How long anything may take that works at all.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often is looked again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

const FILE: &str = "[global.config]\nas = 64512\nrouter-id = \"10.0.0.1\"\nport = -1\n";

/// A speaker until the sender is dropped, and a client of it.
async fn start() -> (GoBgpServiceClient<Channel>, oneshot::Sender<()>) {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = free.local_addr().unwrap();
    drop(free);
    let (stop, stopped) = oneshot::channel::<()>();
    let config = Config::from_toml(FILE, "f").unwrap();
    tokio::spawn(async move {
        let (_reloads, to_reload) = mpsc::channel(1);
        let options = Options { api: Some(api), ..Options::default() };
        let stopped = async { drop(stopped.await) };
        isthmus_speaker::run(config, options, to_reload, stopped).await.unwrap();
    });
    let until = Instant::now() + PATIENCE;
    loop {
        if let Ok(client) = GoBgpServiceClient::connect(format!("http://{api}")).await {
            return (client, stop);
        }
        assert!(Instant::now() < until, "the API does not answer");
        // Between two looks at a condition with a deadline.
        sleep(LOOK_AGAIN).await;
    }
}

fn path(address: &str, attr: Attr) -> api::Path {
    let prefix = proto::IpAddressPrefix { prefix_len: 24, prefix: address.to_owned() };
    api::Path {
        nlri: Some(api::Nlri { nlri: Some(Nlri::Prefix(prefix)) }),
        pattrs: vec![api::Attribute { attr: Some(attr) }],
        ..api::Path::default()
    }
}

/// `TABLE_TYPE_GLOBAL`.
const GLOBAL: i32 = 1;

async fn paths(client: &mut GoBgpServiceClient<Channel>) -> Vec<api::Path> {
    let request = proto::ListPathRequest { table_type: GLOBAL, ..proto::ListPathRequest::default() };
    let mut answers = client.list_path(request).await.unwrap().into_inner();
    let mut paths = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        paths.extend(answer.destination.unwrap().paths);
    }
    paths
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_go_in_and_out_with_typed_attributes() {
    let (mut client, _stop) = start().await;
    let global = client.get_bgp(proto::GetBgpRequest {}).await.unwrap().into_inner().global.unwrap();
    assert_eq!((global.asn, global.listen_port), (64_512, -1));
    // Watching begins before the change, so that the change is seen whatever comes first.
    let filter = proto::watch_event_request::table::Filter { r#type: 1, init: true, ..Default::default() };
    let table = Some(proto::watch_event_request::Table { filters: vec![filter] });
    let watch = proto::WatchEventRequest { table, ..Default::default() };
    let mut events = client.watch_event(watch).await.unwrap().into_inner();
    let color = proto::ColorExtended { color: 7 };
    let extcom = Some(api::extended_community::Extcom::Color(color));
    let communities = vec![api::ExtendedCommunity { extcom }];
    let attr = Attr::ExtendedCommunities(api::ExtendedCommunitiesAttribute { communities });
    let request = api::AddPathRequest {
        table_type: GLOBAL,
        path: Some(path("10.1.0.0", attr.clone())),
        ..Default::default()
    };
    let uuid = client.add_path(request).await.unwrap().into_inner().uuid;
    let event = timeout(PATIENCE, events.message()).await.unwrap().unwrap().unwrap();
    let Some(Event::Table(told)) = event.event else { panic!("{event:?}") };
    let shown = paths(&mut client).await;
    assert_eq!(told.paths, shown);
    assert!(shown[0].best && shown[0].pattrs.iter().any(|one| one.attr.as_ref() == Some(&attr)), "{shown:?}");
    let delete = api::DeletePathRequest { table_type: GLOBAL, uuid, ..Default::default() };
    client.delete_path(delete.clone()).await.unwrap();
    assert!(paths(&mut client).await.is_empty());
    assert_eq!(client.delete_path(delete).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_have_the_numbers_of_version_4() {
    let (mut client, _stop) = start().await;
    let conf = proto::PeerConf {
        neighbor_address: "192.0.2.9".to_owned(),
        peer_asn: 65_009,
        admin_down: true,
        ..Default::default()
    };
    let peer = api::Peer { conf: Some(conf), ..api::Peer::default() };
    client.add_peer(api::AddPeerRequest { peer: Some(peer.clone()) }).await.unwrap();
    let again = client.add_peer(api::AddPeerRequest { peer: Some(peer) }).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
    let until = Instant::now() + PATIENCE;
    loop {
        let request = proto::ListPeerRequest { enable_advertised: true, ..Default::default() };
        let mut answers = client.list_peer(request).await.unwrap().into_inner();
        let peer = answers.message().await.unwrap().unwrap().peer.unwrap();
        let (conf, state) = (peer.conf.unwrap(), peer.state.unwrap());
        assert_eq!((conf.r#type, conf.peer_asn), (2, 65_009), "PEER_TYPE_EXTERNAL");
        assert_eq!(peer.afi_safis.len(), 1);
        // ADMIN_STATE_DOWN, SESSION_STATE_IDLE.
        if (state.admin_state, state.session_state) == (2, 1) {
            assert!(state.disconnect_message.contains("admin-down"), "{}", state.disconnect_message);
            break;
        }
        assert!(Instant::now() < until, "{state:?}");
        sleep(LOOK_AGAIN).await;
    }
    client
        .delete_peer(proto::DeletePeerRequest { address: "192.0.2.9".to_owned(), ..Default::default() })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bfd_of_a_neighbour_is_taken_shown_and_taken_away() {
    let (mut client, _stop) = start().await;
    let conf = proto::PeerConf {
        neighbor_address: "192.0.2.9".to_owned(),
        peer_asn: 65_009,
        admin_down: true,
        ..Default::default()
    };
    let bfd =
        proto::BfdPeerConfig { enabled: true, desired_minimum_tx_interval: 300_000, ..Default::default() };
    let peer = api::Peer { conf: Some(conf.clone()), bfd: Some(bfd), ..api::Peer::default() };
    client.add_peer(api::AddPeerRequest { peer: Some(peer) }).await.unwrap();
    let whole = proto::BfdPeerConfig {
        port: 3_784,
        required_minimum_receive: 1_000_000,
        detection_multiplier: 3,
        ..bfd
    };
    for (said, expected) in
        [(None, whole), (Some(proto::BfdPeerConfig::default()), proto::BfdPeerConfig::default())]
    {
        // Who says nothing of BFD leaves it as it is.
        let peer = api::Peer { conf: Some(conf.clone()), bfd: said, ..api::Peer::default() };
        let request = api::UpdatePeerRequest { peer: Some(peer), do_soft_reset_in: false };
        client.update_peer(request).await.unwrap();
        let mut answers = client.list_peer(proto::ListPeerRequest::default()).await.unwrap().into_inner();
        let shown = answers.message().await.unwrap().unwrap().peer.unwrap();
        assert_eq!(shown.bfd, Some(expected));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sets_and_statements_have_the_numbers_of_version_4() {
    let (mut client, _stop) = start().await;
    // DEFINED_TYPE_COMMUNITY.
    let set = proto::DefinedSet {
        defined_type: 5,
        name: "cs".to_owned(),
        list: vec!["65000:1".to_owned()],
        prefixes: vec![],
    };
    client
        .add_defined_set(proto::AddDefinedSetRequest { defined_set: Some(set.clone()), replace: true })
        .await
        .unwrap();
    let request = proto::ListDefinedSetRequest { defined_type: 5, ..Default::default() };
    let shown =
        client.list_defined_set(request).await.unwrap().into_inner().message().await.unwrap().unwrap();
    assert_eq!(shown.defined_set, Some(set));
    // MatchSet.TYPE_INVERT, ROUTE_ACTION_REJECT, COMPARISON_LE.
    let statement = proto::Statement {
        name: "s".to_owned(),
        conditions: Some(proto::Conditions {
            community_set: Some(proto::MatchSet { r#type: 3, name: "cs".to_owned() }),
            community_count: Some(proto::CommunityCount { r#type: 3, count: 2 }),
            ..Default::default()
        }),
        actions: Some(proto::Actions { route_action: 2, ..Default::default() }),
    };
    let request = proto::AddStatementRequest { statement: Some(statement.clone()) };
    client.add_statement(request).await.unwrap();
    let mut answers =
        client.list_statement(proto::ListStatementRequest::default()).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().statement, Some(statement));
    let refused = client.add_vrf(proto::NotServed {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(refused.message().contains("run a speaker for each table"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn monitoring_stations_have_the_numbers_of_version_4() {
    let (mut client, _stop) = start().await;
    let station = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = u32::from(station.local_addr().unwrap().port());
    let add = proto::AddBmpRequest {
        address: "127.0.0.1".to_owned(),
        port,
        // `MONITORING_POLICY_LOCAL`.
        policy: 4,
        ..Default::default()
    };
    client.add_bmp(add.clone()).await.unwrap();
    assert_eq!(client.add_bmp(add).await.unwrap_err().code(), Code::AlreadyExists);
    let (mut stream, _) = timeout(PATIENCE, station.accept()).await.unwrap().unwrap();
    let mut heard = vec![0; 6];
    timeout(PATIENCE, stream.read_exact(&mut heard)).await.unwrap().unwrap();
    heard.resize(u32::from_be_bytes([heard[1], heard[2], heard[3], heard[4]]) as usize, 0);
    timeout(PATIENCE, stream.read_exact(&mut heard[6..])).await.unwrap().unwrap();
    timeout(PATIENCE, stream.read_exact(&mut heard[..7])).await.unwrap().unwrap();
    // Peer Up, of the type of Loc-RIB: the policy that was meant.
    assert_eq!((heard[0], heard[5], heard[6]), (3, 3, 3));
    let mut answers = client.list_bmp(proto::ListBmpRequest {}).await.unwrap().into_inner();
    let shown = answers.message().await.unwrap().unwrap().station.unwrap();
    let (conf, state) = (shown.conf.unwrap(), shown.state.unwrap());
    assert_eq!((conf.address.as_str(), conf.port), ("127.0.0.1", port));
    assert!(state.uptime.unwrap().seconds > state.downtime.unwrap().seconds, "it is up");
    let gone = proto::DeleteBmpRequest { address: "127.0.0.1".to_owned(), port };
    client.delete_bmp(gone.clone()).await.unwrap();
    assert_eq!(client.delete_bmp(gone).await.unwrap_err().code(), Code::NotFound);
    let bad = proto::AddBmpRequest { address: "nowhere".to_owned(), ..Default::default() };
    assert_eq!(client.add_bmp(bad).await.unwrap_err().code(), Code::InvalidArgument);
}
