//! More than anybody needs: prefixes, messages, sessions, connections.

use crate::rig::{
    FIRST_HOST, PATIENCE, Raw, Speaker, accepted, advertised, announce, connect, connect_from, greeting,
    hear, keep, message,
};
use isthmus_bgp::wire::{Notification, encode_keepalive};
use isthmus_speaker::view::{AdminState, PeerView, SessionState};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::timeout,
};

/// Prefixes of one UPDATE.
const AT_ONCE: u32 = 800;
/// Pauses after failures would hide what floods do.
const NO_PAUSE: &str = "[neighbors.timers.config]\nidle-hold-time-after-reset = 0\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_million_prefixes_over_a_limit_of_a_thousand() {
    let limit = "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"ipv4-unicast\"\n\
        [neighbors.afi-safis.prefix-limit.config]\nmax-prefixes = 1000\n";
    let speaker = Speaker::start(61, limit).await;
    let good = keep(Raw::open(61, 3).await);
    let Raw { mut reads, mut writes } = Raw::open(61, 2).await;
    let flood = tokio::spawn(async move {
        for first in (0..1_000_000).step_by(AT_ONCE as usize) {
            let hosts = (first..first + AT_ONCE).map(|host| FIRST_HOST + host);
            // The speaker stops listening at some point.
            if writes.write_all(&announce(61, hosts)).await.is_err() {
                return;
            }
        }
    });
    let said = loop {
        if let (3, body) = hear(&mut reads).await {
            break Notification::decode(&body);
        }
    };
    assert_eq!((said.code, said.subcode), (6, 1), "{said}");
    timeout(PATIENCE, flood).await.unwrap().unwrap();
    let limited = |peer: &PeerView| peer.status.admin == AdminState::PrefixLimit;
    let peer = speaker.wait("it waits for an administrator", 2, limited).await;
    assert!(peer.status.why.contains("more than 1000 prefixes"), "{}", peer.status.why);
    speaker.wait_empty().await;
    // Who comes back is told so.
    let mut again = connect(61, 2).await.unwrap();
    let mut said = Vec::new();
    timeout(PATIENCE, again.read_to_end(&mut said)).await.unwrap().unwrap();
    assert_eq!(said[18..21], [3, 6, 5], "connection rejected");
    speaker.is_well().await;
    good.abort();
    speaker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_that_floods_and_reads_nothing_holds_up_nobody() {
    let speaker = Speaker::start(62, "").await;
    let good = keep(Raw::open(62, 3).await);
    let mut bad = Raw::open(62, 2).await;
    // Changes of one route that the other has to hear, and wishes for all routes whose answers nobody reads.
    let refresh = message(5, &[0, 1, 0, 1]);
    let withdraw = message(2, &[&[0, 5, 32][..], &FIRST_HOST.to_be_bytes(), &[0, 0]].concat());
    let round = [announce(62, std::iter::once(FIRST_HOST)), refresh, encode_keepalive(), withdraw].concat();
    let rounds = round.repeat(1_000);
    for _ in 0..100 {
        bad.say(&rounds).await;
    }
    bad.say(&announce(62, FIRST_HOST..FIRST_HOST + 10)).await;
    let all = speaker.wait("all of it is taken", 2, |peer| accepted(peer) == 10).await;
    assert_eq!((all.status.flaps, all.status.received.refresh), (0, 100_000));
    speaker.wait("the other has the routes", 3, |peer| advertised(peer) == 10).await;
    speaker.is_well().await;
    good.abort();
    speaker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_that_comes_and_goes_leaves_nothing() {
    let speaker = Speaker::start(63, NO_PAUSE).await;
    let good = keep(Raw::open(63, 3).await);
    for flaps in 1..=20 {
        let mut bad = Raw::open(63, 2).await;
        bad.say(&announce(63, FIRST_HOST..FIRST_HOST + 100)).await;
        speaker.wait("its routes come", 2, |peer| accepted(peer) == 100).await;
        drop(bad);
        speaker
            .wait("it is gone, and may come again", 2, |peer| {
                peer.status.flaps == flaps && peer.status.state == SessionState::Active
            })
            .await;
        speaker.wait_empty().await;
    }
    speaker.wait("the other knows", 3, |peer| advertised(peer) == 0 && peer.status.flaps == 0).await;
    good.abort();
    speaker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_that_flaps_as_fast_as_it_can_holds_up_nobody() {
    let speaker = Speaker::start(65, NO_PAUSE).await;
    let good = keep(Raw::open(65, 3).await);
    let mut flapping = JoinSet::new();
    for _ in 0..4 {
        flapping.spawn(async {
            let all = [greeting(2), announce(65, FIRST_HOST..FIRST_HOST + 100)].concat();
            for round in 0..250 {
                let mut stream = connect(65, 2).await.unwrap();
                // Some end within a message. The speaker may have closed it already.
                let _ = stream.write_all(&all[..all.len() - round % 7]).await;
            }
        });
    }
    flapping.join_all().await;
    // Whatever is left of them, it can have a session.
    let mut bad = loop {
        if let Ok(raw) = Raw::open_on(connect(65, 2).await.unwrap(), 2).await {
            break raw;
        }
    };
    bad.say(&announce(65, FIRST_HOST..FIRST_HOST + 10)).await;
    speaker.wait("its routes come", 2, |peer| accepted(peer) == 10).await;
    speaker.wait("the other has them", 3, |peer| advertised(peer) == 10).await;
    drop(bad);
    speaker.wait_empty().await;
    speaker.is_well().await;
    good.abort();
    speaker.stop().await;
}

/// Opens so many connections at once from an address, and says what came on each of them until the speaker ended it.
async fn swarm(count: usize, from: [u8; 4], net: u8) -> JoinSet<Vec<u8>> {
    let mut swarm = JoinSet::new();
    for _ in 0..count {
        let mut stream = connect_from(from, net, TcpSocket::new_v4().unwrap()).await.unwrap();
        swarm.spawn(async move { until_end(&mut stream).await });
    }
    swarm
}

/// How a connection ends is all the same.
async fn until_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said).await;
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_from_strangers_end_without_a_word() {
    let speaker = Speaker::start(66, "").await;
    let good = keep(Raw::open(66, 3).await);
    for from in [[127, 0, 66, 9], [127, 9, 9, 9]] {
        let swarm = swarm(2_000, from, 66).await;
        let said = timeout(PATIENCE, swarm.join_all()).await.unwrap();
        assert!(said.iter().all(Vec::is_empty));
    }
    speaker.wait_peers(2).await;
    // Who is known still gets through.
    drop(Raw::open(66, 2).await);
    speaker.is_well().await;
    good.abort();
    speaker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_one_neighbour_are_few_and_cost_no_session() {
    let speaker = Speaker::start(67, NO_PAUSE).await;
    let good = keep(Raw::open(67, 3).await);
    let bad = keep(Raw::open(67, 2).await);
    let more = swarm(1_000, [127, 0, 67, 2], 67).await;
    // Each is told that there is one already (Cease 7, RFC 4271 section 6.8), or just closed.
    for said in timeout(PATIENCE, more.join_all()).await.unwrap() {
        assert!(said.is_empty() || said.get(18..21) == Some(&[3, 6, 7]), "{said:?}");
    }
    let status = speaker.peer(2).await.status;
    assert_eq!((status.state, status.flaps), (SessionState::Established, 0), "{}", status.why);
    // Without a session one connection at most waits for what is not said.
    bad.abort();
    speaker.wait("it is gone", 2, |peer| peer.status.state == SessionState::Active).await;
    let mut silent = swarm(1_000, [127, 0, 67, 2], 67).await;
    while silent.len() > 1 {
        timeout(PATIENCE, silent.join_next()).await.unwrap();
    }
    drop(Raw::open(67, 2).await);
    speaker.is_well().await;
    good.abort();
    speaker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_from_a_range_is_forgotten_with_its_connection() {
    let range = "[[peer-groups]]\n[peer-groups.config]\npeer-group-name = \"g\"\npeer-as = 65004\n\
        [[dynamic-neighbors]]\n[dynamic-neighbors.config]\nprefix = \"127.68.0.0/16\"\npeer-group = \"g\"\n";
    let speaker = Speaker::start(68, range).await;
    let good = keep(Raw::open(68, 3).await);
    let mut all = Vec::new();
    for n in 0..1_000_u16 {
        let [high, low] = n.to_be_bytes();
        all.push(connect_from([127, 68, high, low], 68, TcpSocket::new_v4().unwrap()).await.unwrap());
    }
    speaker.wait_peers(2 + all.len()).await;
    drop(all);
    speaker.wait_peers(2).await;
    speaker.is_well().await;
    good.abort();
    speaker.stop().await;
}
