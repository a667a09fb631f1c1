//! Two speakers on loopback addresses, each asked through its own API. Needs no privilege.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod mrt;
mod rig;

use isthmus_speaker::{Client, Options, client::Direction, gobgp::proto};
use rig::{PATIENCE, Speaker, config, text, wait};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

#[tokio::test(flavor = "multi_thread")]
async fn routes_go_over_and_go_away_with_the_session() {
    let one = Speaker::start(&text(11, 1, 2, "")).await;
    let two = Speaker::start(&text(11, 2, 1, "")).await;
    one.announce("10.1.0.0/24").await;
    two.wait_up().await;
    let routes = two.wait_routes("the route comes", 1).await;
    assert_eq!((routes[0].prefix.as_str(), routes[0].best, routes[0].external), ("10.1.0.0/24", true, true));
    assert_eq!(routes[0].attributes.as_path.to_string(), "65001");
    assert_eq!(routes[0].attributes.next_hop.unwrap().address().to_string(), "127.0.11.1");
    let sent = one.routes(Some(("127.0.11.2", Direction::Out))).await;
    assert_eq!(sent.len(), 1);
    assert_eq!(two.routes(Some(("127.0.11.1", Direction::In))).await.len(), 1);
    one.stop().await;
    two.wait_routes("the route goes", 0).await;
    let down = two.wait_peer("why is told", |state| state.why.contains("6/2")).await;
    assert!(down.state.unwrap().why.contains("speaker stops"), "the word of the other operator");
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_are_counted_alike_on_both_sides() {
    let one = Speaker::start(&text(29, 1, 2, "")).await;
    let two = Speaker::start(&text(29, 2, 1, "")).await;
    one.wait_up().await;
    let updates = |counts: &Option<proto::Message>| counts.as_ref().map_or(0, |counts| counts.update);
    // One after the other, so that nothing else waits to be written.
    for n in 1..=20 {
        one.announce(&format!("10.1.{n}.0/24")).await;
        two.wait_routes("the route comes", n).await;
    }
    let of_two = two.peer().await.state.unwrap().messages.unwrap();
    assert!(updates(&of_two.received) >= 20);
    one.wait_peer("as many were sent", |state| {
        state.messages.as_ref().is_some_and(|of_one| updates(&of_one.sent) == updates(&of_two.received))
    })
    .await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_prefixes_end_the_session_until_somebody_enables_it() {
    let limit = "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"ipv4-unicast\"\n\
        [neighbors.afi-safis.prefix-limit.config]\nmax-prefixes = 2\n";
    let one = Speaker::start(&text(12, 1, 2, "")).await;
    let two = Speaker::start(&text(12, 2, 1, limit)).await;
    for n in 0..2 {
        one.announce(&format!("10.1.{n}.0/24")).await;
    }
    two.wait_routes("as many as allowed come", 2).await;
    one.announce("10.1.2.0/24").await;
    two.wait_peer("the limit ends it", |state| {
        state.admin_state() == proto::peer_state::AdminState::PfxCt
            && state.why.contains("more than 2 prefixes")
    })
    .await;
    two.wait_routes("no route is left", 0).await;
    one.wait_peer("the other side is told", |state| state.why.contains("6/1")).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_as_is_refused_on_both_sides_with_the_reason() {
    let one = Speaker::start(&text(13, 1, 2, "").replace("peer-as = 65002", "peer-as = 65009")).await;
    let two = Speaker::start(&text(13, 2, 1, "")).await;
    one.wait_peer("we say so", |state| state.why.contains("(2/2)")).await;
    two.wait_peer("it is told", |state| state.why.contains("(2/2)")).await;
    one.stop().await;
    two.stop().await;
}

/// As [`text`], with lines for `[neighbors.config]`.
fn with(net: u8, own: u8, other: u8, config: &str, rest: &str) -> String {
    text(net, own, other, rest).replace("[neighbors.transport", &format!("{config}[neighbors.transport"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_must_be_the_same_and_follows_a_reload() {
    let password =
        |own, other, password: &str| with(16, own, other, &format!("auth-password = \"{password}\"\n"), "");
    let one = Speaker::start(&password(1, 2, "one")).await;
    let two = Speaker::start(&password(2, 1, "two")).await;
    let down = one.wait_peer("a wrong password is told", |state| state.why.contains("may differ")).await;
    assert_eq!(down.conf.unwrap().auth_password, "", "nobody is told");
    one.reloads.send(config(&password(1, 2, "two"))).await.unwrap();
    one.wait_up().await;
    two.wait_up().await;
    // Without a word between them the session would last: the reload ends it.
    one.reloads.send(config(&text(16, 1, 2, ""))).await.unwrap();
    two.wait_peer("the session ended", |state| state.flops == 1).await;
    two.reloads.send(config(&text(16, 2, 1, ""))).await.unwrap();
    one.wait_up().await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_of_a_range_need_its_password() {
    let range = "[global.config]\nas = 65001\nrouter-id = \"10.0.0.1\"\nport = 17900\nlocal-address-list = [\"127.0.17.1\"]\n\
        [[peer-groups]]\n[peer-groups.config]\npeer-group-name = \"g\"\npeer-as = 65002\nauth-password = \"shared\"\n\
        [[dynamic-neighbors]]\n[dynamic-neighbors.config]\nprefix = \"127.0.17.0/24\"\npeer-group = \"g\"\n";
    let one = Speaker::start(range).await;
    let two = Speaker::start(&with(17, 2, 1, "auth-password = \"guessed\"\n", "")).await;
    two.wait_peer("it does not get through", |state| state.why.contains("may differ")).await;
    assert_eq!(one.peer().await, proto::Peer::default(), "it never came to be a neighbour");
    two.reloads.send(config(&with(17, 2, 1, "auth-password = \"shared\"\n", ""))).await.unwrap();
    one.wait_up().await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_that_check_the_ttl_meet() {
    let secured = "[neighbors.ttl-security.config]\nenabled = true\n";
    let one = Speaker::start(&text(18, 1, 2, secured)).await;
    let two = Speaker::start(&text(18, 2, 1, secured)).await;
    one.wait_up().await;
    // Who sends with TTL 1 is not heard any more, even on a connection that comes to be.
    two.reloads.send(config(&text(18, 2, 1, ""))).await.unwrap();
    one.wait_peer("it is not heard", |state| state.why.contains("TTL below 255")).await;
    one.stop().await;
    two.stop().await;
}

/// Answers BFD packets as a neighbour does whose session comes up, until it is dropped.
fn answer_bfd(address: &str) -> JoinHandle<()> {
    use isthmus_bgp::bfd::{Packet, State};
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    socket.set_ttl_v4(255).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.bind(&format!("{address}:3784").parse::<SocketAddr>().unwrap().into()).unwrap();
    let socket = tokio::net::UdpSocket::from_std(socket.into()).unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 100];
        loop {
            let (bytes, from) = socket.recv_from(&mut buffer).await.unwrap();
            let heard = Packet::decode(&buffer[..bytes]).unwrap();
            let state = if heard.state == State::Down { State::Init } else { State::Up };
            let answer = Packet {
                state,
                is_poll: false,
                is_final: heard.is_poll,
                your_discriminator: Some(heard.my_discriminator),
                my_discriminator: 7.try_into().unwrap(),
                desired_min_tx: Duration::from_millis(100),
                ..heard
            };
            socket.send_to(&answer.encode(), SocketAddr::new(from.ip(), 3784)).await.unwrap();
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_path_ends_the_session_long_before_its_hold_time() {
    let bfd = "[neighbors.bfd.config]\nenabled = true\ndesired-minimum-tx-interval = 500000\nrequired-minimum-receive = 500000\n";
    let one = Speaker::start(&text(19, 1, 2, bfd)).await;
    let two = Speaker::start(&text(19, 2, 1, "")).await;
    one.wait_up().await;
    let state = one.peer().await.state.unwrap();
    assert!(state.bfd.starts_with("down, nothing ever came"), "it gates nothing: {}", state.bfd);
    let path = answer_bfd("127.0.19.2");
    one.wait_peer("BFD comes up", |state| state.bfd.starts_with("up, silence of 1.5s")).await;
    path.abort();
    let down = one.wait_peer("it ends the session", |state| state.flops == 1).await.state.unwrap();
    assert!(down.bfd.contains("nothing came for 1.5s"), "{}", down.bfd);
    two.wait_peer("the other side is told", |state| state.why.contains("6/10")).await;
    one.wait_peer("we say so", |state| state.why.contains("6/10") && state.why.contains("BFD: down")).await;
    one.wait_up().await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bfd_that_somebody_stops_ends_no_session() {
    let bfd = "[neighbors.bfd.config]\nenabled = true\ndesired-minimum-tx-interval = 500000\nrequired-minimum-receive = 500000\n";
    let one = Speaker::start(&text(20, 1, 2, bfd)).await;
    let two = Speaker::start(&text(20, 2, 1, bfd)).await;
    one.wait_peer("BFD comes up", |state| state.bfd.starts_with("up")).await;
    one.wait_up().await;
    two.stop().await;
    let down = one.wait_peer("the session ends", |state| state.flops == 1).await.state.unwrap();
    assert!(down.why.contains("6/2"), "because the speaker stops: {}", down.why);
    one.wait_peer("BFD is told", |state| state.bfd.contains("stopped by the peer")).await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_is_watched() {
    let one = Speaker::start(&text(14, 1, 2, "")).await;
    one.announce("10.1.0.0/24").await;
    let filter = proto::watch_event_request::table::Filter { init: true, ..Default::default() };
    let table = Some(proto::watch_event_request::Table { filters: vec![filter] });
    let request = proto::WatchEventRequest { table, ..proto::WatchEventRequest::default() };
    let mut events = one.raw().await.watch_event(request).await.unwrap().into_inner();
    one.announce("10.2.0.0/24").await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let event = tokio::time::timeout(PATIENCE, events.message()).await.unwrap().unwrap().unwrap();
        let Some(proto::watch_event_response::Event::Table(table)) = event.event else { continue };
        seen.extend(table.paths.iter().map(|path| path.best));
    }
    assert_eq!(seen, [true, true]);
    // A stream that nobody ends does not keep the speaker.
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_ends_only_what_changed() {
    let one = Speaker::start(&text(15, 1, 2, "")).await;
    let two = Speaker::start(&text(15, 2, 1, "")).await;
    one.wait_up().await;
    let described =
        text(15, 1, 2, "").replace("[neighbors.transport", "description = \"d\"\n[neighbors.transport");
    one.reloads.send(config(&described)).await.unwrap();
    wait("the session is made anew", || async {
        let peer = one.wait_up().await;
        (peer.conf?.description == "d").then_some(())
    })
    .await;
    two.wait_peer("the other side saw it", |state| state.flops == 1).await;
    one.reloads.send(config(&described)).await.unwrap();
    one.announce("10.1.0.0/24").await;
    two.wait_routes("routes still go", 1).await;
    assert_eq!(two.wait_up().await.state.unwrap().flops, 1, "nothing changed, nothing ended");
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_new_policy_lets_through_goes_out_at_once() {
    let policy = |list: &str| {
        format!(
            "{}[global.apply-policy.config]\nexport-policy-list = [\"p\"]\ndefault-export-policy = \"reject-route\"\n\
             [[defined-sets.prefix-sets]]\nprefix-set-name = \"own\"\nprefix-list = [{list}]\n\
             [[defined-sets.neighbor-sets]]\nneighbor-set-name = \"two\"\nneighbor-info-list = [\"127.0.21.2\"]\n\
             [[policy-definitions]]\nname = \"p\"\n[[policy-definitions.statements]]\n\
             [policy-definitions.statements.conditions]\nmatch-prefix-set = {{ prefix-set = \"own\" }}\n\
             match-neighbor-set = {{ neighbor-set = \"two\" }}\n\
             [policy-definitions.statements.actions]\nroute-disposition = \"accept-route\"\n",
            text(21, 1, 2, "")
        )
    };
    let one = Speaker::start(&policy("")).await;
    let two = Speaker::start(&text(21, 2, 1, "")).await;
    two.wait_up().await;
    // What the policy holds back, it lets go when it is another.
    one.announce("10.1.0.0/24").await;
    let first = "{ ip-prefix = \"10.1.0.0/24\" }";
    one.reloads.send(config(&policy(first))).await.unwrap();
    two.wait_routes("the route comes", 1).await;
    one.reloads.send(config(&policy(&format!("{first}, {{ ip-prefix = \"10.1.1.0/24\" }}")))).await.unwrap();
    one.announce("10.1.1.0/24").await;
    two.wait_routes("the other one too", 2).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_on_a_unix_socket_is_for_its_owner_and_goes_with_the_speaker() {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::temp_dir().join(format!("isthmus-speaker-{}.sock", std::process::id()));
    let (_reloads, to_reload) = mpsc::channel(1);
    let (stop, stopped) = oneshot::channel::<()>();
    let options = Options { socket: Some(path.clone()), ..Options::default() };
    let stopped = async { drop(stopped.await) };
    let (_handle, life) =
        isthmus_speaker::start(config(&text(22, 1, 2, "")), options, to_reload, stopped).await.unwrap();
    let running = tokio::spawn(life);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut client = Client::connect(&format!("unix:{}", path.display())).await.unwrap();
    assert_eq!(client.global().await.unwrap().asn, 65_001);
    stop.send(()).unwrap();
    tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap();
    assert!(!path.exists());
}
