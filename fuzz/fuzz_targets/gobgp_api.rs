//! GoBGP's API: arbitrary messages to calls that change something; whatever they did, the speaker answers all lists.
//!
//! Each call is one byte that chooses it, one of length, and so many of its message. The speaker opens no sockets and no
//! files: it listens nowhere, neighbours are added shut down, and clients may have no dumps written.
#![no_main]

use isthmus_speaker::{
    Config, Options,
    gobgp::{
        DumpFiles, Service,
        proto::{self, gobgp_api_server::GobgpApi},
    },
    start,
};
use libfuzzer_sys::fuzz_target;
use prost::Message;
use std::cell::RefCell;
use tokio::{
    runtime::{Builder, Runtime},
    sync::{mpsc, oneshot},
};
use tokio_stream::StreamExt;
use tonic::{Request, Status};

thread_local! {
    static RUNTIME: RefCell<Runtime> =
        RefCell::new(Builder::new_current_thread().enable_all().build().expect("a runtime"));
}

fuzz_target!(|data: &[u8]| {
    RUNTIME.with_borrow(|runtime| runtime.block_on(run(data)));
});

async fn run(mut data: &[u8]) {
    let text = "[global.config]\nas = 64512\nrouter-id = \"192.0.2.1\"\nport = -1\n";
    let config = Config::from_toml(text, "f").expect("a configuration");
    let (_reloads, to_reload) = mpsc::channel(1);
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async { drop(stopped.await) };
    let (handle, running) = start(config, Options::default(), to_reload, stopped).await.expect("no socket is opened");
    let running = tokio::spawn(running);
    let service = Service::new(handle, None, DumpFiles::Nowhere);
    while let Some((&[call, length], rest)) = data.split_first_chunk() {
        let (message, rest) = rest.split_at(usize::from(length).min(rest.len()));
        data = rest;
        if let Err(refused) = one(&service, call, message).await {
            assert!(!refused.message().is_empty(), "call {call}: {refused:?}");
        }
    }
    lists(&service).await;
    stop.send(()).expect("it runs");
    running.await.expect("it ends");
}

/// One call; a message that is none is no call.
async fn one(service: &Service, call: u8, message: &[u8]) -> Result<(), Status> {
    macro_rules! ask {
        ($method:ident, $request:ident) => {
            ask!($method, $request, |_: &mut proto::$request| ())
        };
        ($method:ident, $request:ident, $change:expr) => {{
            let Ok(mut request) = proto::$request::decode(message) else { return Ok(()) };
            $change(&mut request);
            service.$method(Request::new(request)).await.map(drop)
        }};
    }
    let shut = |peer: &mut Option<proto::Peer>| {
        let peer = peer.get_or_insert_default();
        peer.bfd = None;
        let conf = peer.conf.get_or_insert_default();
        conf.admin_down = true;
        conf.neighbor_interface.clear();
    };
    let quiet = |group: &mut Option<proto::PeerGroup>| group.get_or_insert_default().bfd = None;
    match call % 28 {
        0..=2 => ask!(add_path, AddPathRequest),
        3 => ask!(delete_path, DeletePathRequest),
        4 | 5 => ask!(add_peer, AddPeerRequest, |request: &mut proto::AddPeerRequest| shut(&mut request.peer)),
        6 => ask!(update_peer, UpdatePeerRequest, |request: &mut proto::UpdatePeerRequest| shut(&mut request.peer)),
        7 => ask!(delete_peer, DeletePeerRequest),
        8 => ask!(add_peer_group, AddPeerGroupRequest, |request: &mut proto::AddPeerGroupRequest| quiet(&mut request.peer_group)),
        9 => ask!(update_peer_group, UpdatePeerGroupRequest, |request: &mut proto::UpdatePeerGroupRequest| quiet(&mut request.peer_group)),
        10 => ask!(add_dynamic_neighbor, AddDynamicNeighborRequest),
        11 => ask!(add_defined_set, AddDefinedSetRequest),
        12 => ask!(delete_defined_set, DeleteDefinedSetRequest),
        13 => ask!(add_statement, AddStatementRequest),
        14 => ask!(delete_statement, DeleteStatementRequest),
        15 => ask!(add_policy, AddPolicyRequest),
        16 => ask!(delete_policy, DeletePolicyRequest),
        17 => ask!(add_policy_assignment, AddPolicyAssignmentRequest),
        18 => ask!(set_policies, SetPoliciesRequest),
        19 => ask!(list_path, ListPathRequest),
        20 => ask!(get_table, GetTableRequest),
        21 => ask!(reset_peer, ResetPeerRequest),
        22 => ask!(enable_mrt, EnableMrtRequest),
        23 => ask!(delete_peer_group, DeletePeerGroupRequest),
        24 => ask!(delete_dynamic_neighbor, DeleteDynamicNeighborRequest),
        25 => ask!(set_policy_assignment, SetPolicyAssignmentRequest),
        26 => ask!(delete_policy_assignment, DeletePolicyAssignmentRequest),
        _ => ask!(disable_mrt, DisableMrtRequest),
    }
}

/// All that can be listed is.
async fn lists(service: &Service) {
    macro_rules! all {
        ($method:ident, $request:expr) => {{
            let mut answers = service.$method(Request::new($request)).await.expect("a list").into_inner();
            while let Some(answer) = answers.next().await {
                let answer = answer.expect("an answer");
                assert!(answer.encoded_len() > 0);
            }
        }};
    }
    for family in [(1, 1), (2, 1)] {
        let family = Some(proto::Family { afi: family.0, safi: family.1 });
        all!(list_path, proto::ListPathRequest { family, ..Default::default() });
    }
    all!(list_peer, proto::ListPeerRequest { enable_advertised: true, ..Default::default() });
    all!(list_peer_group, proto::ListPeerGroupRequest::default());
    all!(list_policy, proto::ListPolicyRequest::default());
    all!(list_statement, proto::ListStatementRequest::default());
    for defined_type in 0..=7 {
        let _ = service
            .list_defined_set(Request::new(proto::ListDefinedSetRequest { defined_type, ..Default::default() }))
            .await;
    }
}
