//! What is written of routes that are not as others.

use super::{Greeting, Page, telling::Telling};
use isthmus_bgp::{
    AsPath, Asn, Attributes, Family, LargeCommunity, Nlri, Origin, PathId, RouterId,
    bmp::{Message, Table, decode},
    rib::{News, Reported, RibView},
    wire::{HEADER_BYTES, MESSAGE_BYTES_MAX, UpdateContext, decode_update},
};
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const STARTED: Duration = Duration::from_secs(1_000);

fn reported(prefix: &str, attributes: Attributes, seconds: u64) -> Reported {
    Reported {
        nlri: Nlri { prefix: prefix.parse().unwrap(), path_id: PathId(0) },
        attributes: Arc::new(attributes),
        since: Duration::from_secs(seconds),
    }
}

/// What a station hears of routes in Loc-RIB: UPDATEs, each with the time of its header.
fn hear(withdrawn: Vec<Nlri>, announced: Vec<Reported>) -> Vec<(Duration, Vec<u8>)> {
    hear_but(withdrawn, announced, 0)
}

/// As it hears of all routes but so many.
fn hear_but(withdrawn: Vec<Nlri>, announced: Vec<Reported>, left_out: u64) -> Vec<(Duration, Vec<u8>)> {
    let greeting = Greeting { asn: Asn(65_001), router_id: RouterId(1), started_at: UNIX_EPOCH + STARTED };
    let mut telling = Telling::new(greeting);
    let news = News { view: RibView::Best, withdrawn, announced, is_complete: false };
    telling.page(Page { news: Some((None, news)), ..Page::default() }, SystemTime::UNIX_EPOCH);
    let (mut rest, mut heard) = (telling.out.as_slice(), Vec::new());
    while let Some((message, bytes)) = decode(rest).unwrap() {
        rest = &rest[bytes..];
        let Message::RouteMonitoring { peer, update } = message else { panic!("{message:?}") };
        assert_eq!(peer.table, Table::LocRib { filtered: false });
        heard.push((peer.at, update));
    }
    assert_eq!((heard.len() as u64, left_out), (telling.messages, telling.left_out));
    heard
}

fn context() -> UpdateContext {
    UpdateContext { as4: true, families: Family::ALL.into_iter().collect(), ..UpdateContext::default() }
}

#[test]
fn our_own_routes_have_no_next_hop_that_anybody_could_use() {
    let own = Attributes::local(Origin::Igp);
    let heard =
        hear(Vec::new(), vec![reported("10.1.0.0/16", own.clone(), 0), reported("2001:db8::/32", own, 0)]);
    let next_hop = [0x40, 3, 4, 0, 0, 0, 0];
    assert!(heard[0].1.windows(7).any(|bytes| bytes == next_hop), "{heard:x?}");
    let next_hop = [&[0, 2, 1, 16][..], &[0; 16]].concat();
    assert!(heard[1].1.windows(20).any(|bytes| bytes == next_hop), "{heard:x?}");
}

#[test]
fn routes_that_came_together_share_a_message_and_others_do_not() {
    let attributes = Arc::new(Attributes::local(Origin::Igp));
    let route = |prefix, seconds| Reported {
        attributes: attributes.clone(),
        ..reported(prefix, Attributes::default(), seconds)
    };
    let routes = vec![route("10.1.0.0/16", 5), route("10.2.0.0/16", 5), route("10.3.0.0/16", 6)];
    let heard = hear(vec![route("10.4.0.0/16", 0).nlri, route("10.5.0.0/16", 0).nlri], routes);
    let second = Duration::from_secs(1);
    let times: Vec<_> = heard.iter().map(|(at, _)| *at).collect();
    assert_eq!(times, [STARTED + 5 * second, STARTED + 6 * second, Duration::ZERO]);
    let gone = decode_update(&heard[2].1[HEADER_BYTES..], &context()).unwrap();
    assert_eq!(gone.withdrawn.len(), 2);
}

#[test]
fn what_no_usual_message_holds_has_a_longer_one_and_what_none_holds_is_gone() {
    let community = |n: u32| LargeCommunity { global: n, local_1: 0, local_2: 0 };
    let with = |count: u32| Attributes {
        as_path: AsPath::sequence([Asn(7)]),
        large_communities: (0..count).map(community).collect(),
        next_hop: Some(isthmus_bgp::NextHop::V4([10, 0, 0, 1].into())),
        ..Attributes::local(Origin::Igp)
    };
    let heard = hear(Vec::new(), vec![reported("10.1.0.0/16", with(400), 0)]);
    assert!(heard[0].1.len() > MESSAGE_BYTES_MAX);
    let read = decode_update(&heard[0].1[HEADER_BYTES..], &context()).unwrap();
    assert_eq!(read.announced[0].attributes.large_communities.len(), 400, "{:?}", read.faults);
    let heard = hear_but(Vec::new(), vec![reported("10.1.0.0/16", with(5_500), 0)], 1);
    let read = decode_update(&heard[0].1[HEADER_BYTES..], &context()).unwrap();
    assert_eq!((read.announced.len(), read.withdrawn.len()), (0, 1));
}

#[test]
fn what_is_said_in_the_middle_of_a_message_comes_behind_it() {
    let greeting = Greeting { asn: Asn(65_001), router_id: RouterId(1), started_at: UNIX_EPOCH };
    let all = {
        let mut telling = Telling::new(greeting);
        telling.begin("n", "d", true);
        telling.out
    };
    for written in 0..=all.len() {
        let mut telling = Telling::new(greeting);
        telling.begin("n", "d", true);
        telling.give_up(written);
        telling.end(4);
        let heard = [&all[..written], &telling.out].concat();
        let (mut rest, mut messages) = (heard.as_slice(), Vec::new());
        while let Some((message, bytes)) = decode(rest).unwrap() {
            rest = &rest[bytes..];
            messages.push(message);
        }
        assert!(rest.is_empty() && matches!(messages.last(), Some(Message::Termination(_))), "{written}");
        // No more than what was begun.
        let first = decode(&all).unwrap().map(|(_, bytes)| bytes).unwrap();
        let begun = if written == 0 {
            0
        } else if written <= first {
            1
        } else {
            2
        };
        assert_eq!(messages.len(), begun + 1, "{written}");
    }
}
