//! A neighbour that reads nothing for longer than the send hold time (RFC 9687).

use crate::rig::{
    FIRST_HOST, PATIENCE, Raw, Speaker, accepted, advertised, announce_with, connect_from, keep,
};
use isthmus_bgp::wire::{HEADER_BYTES, encode_keepalive};
use isthmus_speaker::{Attributes, Client, Options};
use std::{io, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
    time::{sleep, timeout},
};

/// Each is an UPDATE of 300 bytes: together more than sockets hold.
const ROUTES: u32 = 30_000;

/// 60 communities that nothing else has.
fn communities(number: u32) -> Vec<u8> {
    let values = (0..60).flat_map(|n| (number * 64 + n).to_be_bytes());
    [0xc0, 8, 240].into_iter().chain(values).collect()
}

/// Types of the messages in a stream that may be cut.
fn kinds(mut stream: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let Some(header) = stream.get(..HEADER_BYTES) {
        kinds.push(header[18]);
        stream = stream.get(usize::from(u16::from_be_bytes([header[16], header[17]]))..).unwrap_or_default();
    }
    kinds
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_nothing_is_dropped_without_a_word_and_may_come_back() {
    let api = TcpListener::bind("127.0.64.1:0").await.unwrap().local_addr().unwrap();
    let options = Options { api: Some(api), send_hold: Some(Duration::from_secs(3)), ..Options::default() };
    let no_pause = "[neighbors.timers.config]\nidle-hold-time-after-reset = 0\n";
    let speaker = Speaker::start_with(64, no_pause, options).await;
    let small = TcpSocket::new_v4().unwrap();
    small.set_recv_buffer_size(4_096).unwrap();
    let small = connect_from([127, 0, 64, 2], 64, small).await.unwrap();
    let Raw { mut reads, mut writes } = Raw::open_on(small, 2).await.unwrap();
    let talks = tokio::spawn(async move {
        // It lives, as far as one can hear.
        while writes.write_all(&encode_keepalive()).await.is_ok() {
            sleep(Duration::from_millis(500)).await;
        }
    });
    let mut good = Raw::open(64, 3).await;
    for number in 0..ROUTES {
        let host = std::iter::once(FIRST_HOST + number);
        good.say(&announce_with(64, 3, host, &communities(number))).await;
    }
    let good = keep(good);
    speaker
        .handle
        .announce("10.64.0.0/24".parse::<isthmus_speaker::Prefix>().unwrap(), Attributes::default())
        .await
        .unwrap();
    speaker.wait("the other is told what comes meanwhile", 3, |peer| advertised(peer) == 1).await;
    let dropped = speaker.wait("who takes nothing is dropped", 2, |peer| peer.status.flaps == 1).await;
    assert_eq!(dropped.status.sent.notification, 0);
    let why = "send hold timer expired: peer took nothing of what we sent for 3 s (RFC 9687)";
    assert!(dropped.status.why.contains(why), "{}", dropped.status.why);
    // What `isthmus bgp neighbor` prints.
    let mut client = Client::connect(&api.to_string()).await.unwrap();
    let shown = client.peers(Some([127, 0, 64, 2].into())).await.unwrap().remove(0).state.unwrap();
    assert!(shown.why.contains(why), "{}", shown.why);
    talks.abort();
    let mut heard = Vec::new();
    let end = timeout(PATIENCE, reads.read_to_end(&mut heard)).await.unwrap();
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert!(!kinds(&heard).contains(&3), "a NOTIFICATION");
    assert!(kinds(&heard).contains(&2));
    drop(reads);
    let mut back = Raw::open(64, 2).await;
    let mut updates = 0;
    while updates < ROUTES {
        updates += u32::from(back.hear().await.0 == 2);
    }
    assert_eq!(accepted(&speaker.peer(3).await), u64::from(ROUTES));
    speaker.is_well().await;
    good.abort();
    speaker.stop().await;
}
