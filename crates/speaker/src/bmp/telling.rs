//! Pages of the owner as BMP's messages.

use super::{Counts, Greeting, Page, PeerSession};
use crate::peer::PeerKey;
use isthmus_bgp::{
    Attributes, Family, FamilySet, NextHop, Nlri,
    bmp::{
        Direction, DownReason, Information, Message, PeerHeader, PeerUp, Scope, Statistic, Table,
        information, put_route,
    },
    rib::{News, Reported, RibView},
    wire::{
        Announcer, Capability, EXTENDED_MESSAGE_BYTES_MAX, EncodeContext, EncodeError, MESSAGE_BYTES_MAX,
        Open, encode_end_of_rib, encode_withdrawal, frame,
    },
};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Name of the one table that there is (RFC 9069 section 5.2.1).
const TABLE_NAME: &str = "global";

/// What is written to one station, and what it takes to write it.
pub(super) struct Telling {
    greeting: Greeting,
    /// Sessions that it knows.
    peers: BTreeMap<PeerKey, PeerSession>,
    /// What is still to be written.
    pub(super) out: Vec<u8>,
    /// Messages that were put into it.
    pub(super) messages: u64,
    /// Routes that no message holds.
    pub(super) left_out: u64,
}

/// Routes that one message may have: they came together.
type Together = (Arc<Attributes>, Vec<Nlri>);

impl Telling {
    pub(super) fn new(greeting: Greeting) -> Self {
        Self { greeting, peers: BTreeMap::new(), out: Vec::new(), messages: 0, left_out: 0 }
    }

    /// Says who we are (RFC 7854 section 4.3), and that Loc-RIB is there where the station hears of it.
    pub(super) fn begin(&mut self, sys_name: &str, sys_descr: &str, has_best: bool) {
        self.put(&Message::Initiation(vec![
            Information::text(information::SYS_DESCR, sys_descr),
            Information::text(information::SYS_NAME, sys_name),
        ]));
        if has_best {
            self.loc_rib_up();
        }
    }

    /// RFC 9069 section 5.2: Loc-RIB is a neighbour of which both OPENs are made up, so that they say how its routes are
    /// written.
    fn loc_rib_up(&mut self) {
        let Greeting { asn, router_id, started_at } = self.greeting;
        let mut capabilities: Vec<_> =
            Family::ALL.iter().map(|family| Capability::Multiprotocol(family.afi_safi())).collect();
        capabilities.push(Capability::FourByteAs(asn));
        let open = Open { as_field: asn.two_bytes(), hold_time: 0, router_id: router_id.0, capabilities };
        let open = open.encode();
        self.put(&Message::PeerUp(PeerUp {
            peer: self.loc_rib(started_at),
            local_address: Ipv4Addr::UNSPECIFIED.into(),
            local_port: 0,
            remote_port: 0,
            sent: open.clone(),
            received: open,
            information: vec![Information::text(information::TABLE_NAME, TABLE_NAME)],
        }));
    }

    /// Takes back what is still to be written but for the rest of the message of which the station has a part already: what
    /// is said next follows it.
    pub(super) fn give_up(&mut self, written: usize) {
        let mut end = 0;
        while end < written
            && let Some(bytes) = self.out.get(end..).and_then(message_bytes)
        {
            end += bytes;
        }
        self.out.truncate(end);
        self.out.drain(..written.min(end));
    }

    /// Why no more is said (RFC 7854 section 4.5).
    pub(super) fn end(&mut self, reason: u16) {
        self.put(&Message::Termination(vec![Information::reason(reason)]));
    }

    pub(super) fn page(&mut self, page: Page, now: SystemTime) {
        for (key, reason) in page.downs {
            self.down(key, reason, now);
        }
        for (key, session) in page.ups {
            self.up(key, session);
        }
        if let Some((key, news)) = page.news {
            self.news(key, news, now);
        }
    }

    fn down(&mut self, key: PeerKey, reason: DownReason, now: SystemTime) {
        if let Some(session) = self.peers.remove(&key) {
            self.put(&Message::PeerDown { peer: of_peer(&session, Direction::In, false, now), reason });
        }
    }

    fn up(&mut self, key: PeerKey, session: PeerSession) {
        let established = &session.established;
        self.put(&Message::PeerUp(PeerUp {
            peer: of_peer(&session, Direction::In, false, established.at),
            local_address: session.negotiated.local_address,
            local_port: established.local_port,
            remote_port: established.remote_port,
            sent: established.opens.sent.to_vec(),
            received: established.opens.received.to_vec(),
            information: Vec::new(),
        }));
        self.peers.insert(key, session);
    }

    /// Numbers (RFC 7854 section 4.8).
    pub(super) fn report(&mut self, counts: &Counts, has_best: bool, now: SystemTime) {
        let sum = |families: &[(Family, u64)]| families.iter().map(|(_, count)| count).sum();
        for of_one in &counts.peers {
            let Some(session) = self.peers.get(&of_one.key) else { continue };
            let mut statistics = vec![Statistic::AdjRibIn(sum(&of_one.received))];
            let families = of_one.received.iter();
            statistics
                .extend(families.map(|(family, count)| Statistic::AdjRibInOf(family.afi_safi(), *count)));
            // The counter goes around.
            statistics.push(Statistic::TreatedAsWithdraw(of_one.treated_as_withdraw as u32));
            let peer = of_peer(session, Direction::In, false, now);
            self.put(&Message::StatisticsReport { peer, statistics });
        }
        if has_best {
            let mut statistics = vec![Statistic::LocRib(sum(&counts.best))];
            let families = counts.best.iter();
            statistics.extend(families.map(|(family, count)| Statistic::LocRibOf(family.afi_safi(), *count)));
            self.put(&Message::StatisticsReport { peer: self.loc_rib(now), statistics });
        }
    }

    /// Routes that changed. Those that came together are put together; withdrawals and End-of-RIB have the time of now.
    fn news(&mut self, key: Option<PeerKey>, news: News, now: SystemTime) {
        let session = key.and_then(|key| self.peers.get(&key)).cloned();
        let is_out = matches!(news.view, RibView::Offered(_) | RibView::Sent(_));
        let direction = if is_out { Direction::Out } else { Direction::In };
        let post_policy = matches!(news.view, RibView::Accepted(_) | RibView::Sent(_));
        let header = |telling: &Self, at| match &session {
            Some(session) => of_peer(session, direction, post_policy, at),
            None => telling.loc_rib(at),
        };
        let (add_path, families) = match (&session, news.view) {
            (Some(PeerSession { negotiated, .. }), _) if is_out => {
                (negotiated.add_path_send, negotiated.families)
            }
            (Some(session), _) => (session.negotiated.add_path_receive, session.negotiated.families),
            (None, RibView::Best) => (FamilySet::NONE, Family::ALL.into_iter().collect()),
            // Of a session that the station does not know; the owner tells of none.
            (None, _) => return,
        };
        let mut withdrawn = news.withdrawn;
        let mut updates = Vec::new();
        for ((since, family, _), (attributes, nlri)) in together(news.announced) {
            updates.clear();
            if let Err(why) = announce(&attributes, family, add_path, &nlri, &mut updates) {
                tracing::warn!(routes = nlri.len(), first = %nlri.first().map(|nlri| nlri.prefix.to_string()).unwrap_or_default(),
                    %why, "a monitoring station is not told of routes: no message holds them");
                self.left_out += nlri.len() as u64;
                withdrawn.extend(nlri);
                continue;
            }
            let peer = header(self, self.greeting.started_at + since);
            self.put_updates(&peer, &updates);
        }
        updates.clear();
        for family in Family::ALL {
            let of_family = withdrawn.iter().copied().filter(|nlri| nlri.prefix.family() == family);
            encode_withdrawal(family, of_family, context(add_path, MESSAGE_BYTES_MAX), &mut updates);
        }
        // RFC 7854 section 5: all that was there has been told.
        for family in families.iter().filter(|_| news.is_complete) {
            encode_end_of_rib(family, &mut updates);
        }
        let peer = header(self, now);
        self.put_updates(&peer, &updates);
    }

    /// UPDATEs in a row, each as a message of its own.
    fn put_updates(&mut self, peer: &PeerHeader, mut updates: &[u8]) {
        while let Ok(Some(found)) = frame(updates, EXTENDED_MESSAGE_BYTES_MAX) {
            let (update, rest) = updates.split_at(found.len());
            put_route(peer, update, &mut self.out);
            self.messages += 1;
            updates = rest;
        }
    }

    fn put(&mut self, message: &Message) {
        message.encode(&mut self.out);
        self.messages += 1;
    }

    fn loc_rib(&self, at: SystemTime) -> PeerHeader {
        PeerHeader {
            table: Table::LocRib { filtered: false },
            distinguisher: 0,
            asn: self.greeting.asn,
            id: self.greeting.router_id,
            at: since_1970(at),
        }
    }
}

/// How long the first of some messages is (RFC 7854 section 4.1).
fn message_bytes(messages: &[u8]) -> Option<usize> {
    let length = messages.get(1..5)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(length)).ok().filter(|bytes| *bytes > 0)
}

/// AS paths are written with numbers of four bytes, however the neighbour wrote them (RFC 7854 section 4.2, flag A).
fn of_peer(session: &PeerSession, direction: Direction, post_policy: bool, at: SystemTime) -> PeerHeader {
    let negotiated = &session.negotiated;
    PeerHeader {
        table: Table::Peer {
            scope: Scope::Global,
            address: negotiated.peer_address,
            direction,
            post_policy,
            two_byte_as: false,
        },
        distinguisher: 0,
        asn: negotiated.peer_as,
        id: negotiated.peer_id,
        at: since_1970(at),
    }
}

fn since_1970(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Routes by when they came, family and attributes, which are shared where they are equal.
fn together(announced: Vec<Reported>) -> BTreeMap<(Duration, Family, *const Attributes), Together> {
    let mut together = BTreeMap::new();
    for Reported { nlri, attributes, since } in announced {
        let key = (since, nlri.prefix.family(), Arc::as_ptr(&attributes));
        let (_, list): &mut Together = together.entry(key).or_insert_with(|| (attributes, Vec::new()));
        list.push(nlri);
    }
    together
}

fn context(add_path: FamilySet, message_bytes_max: usize) -> EncodeContext {
    EncodeContext { as4: true, add_path, message_bytes_max }
}

/// UPDATEs for routes. What needs more room than a message mostly has gets as much as one may have: with numbers of four
/// bytes a path may be longer than it came.
fn announce(
    attributes: &Attributes,
    family: Family,
    add_path: FamilySet,
    nlri: &[Nlri],
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let of = |attributes: &Attributes| {
        Announcer::new(attributes, family, context(add_path, MESSAGE_BYTES_MAX)).or_else(|why| match why {
            EncodeError::TooLong { .. } => {
                Announcer::new(attributes, family, context(add_path, EXTENDED_MESSAGE_BYTES_MAX))
            }
            EncodeError::NextHop { .. } => Err(why),
        })
    };
    let announcer = match of(attributes) {
        // Our own routes have us as next hop, which is another address to each neighbour.
        Err(EncodeError::NextHop { .. }) => {
            let next_hop = match family {
                Family::Ipv4Unicast => NextHop::V4(Ipv4Addr::UNSPECIFIED),
                Family::Ipv6Unicast => NextHop::V6 { global: Ipv6Addr::UNSPECIFIED, link_local: None },
            };
            of(&Attributes { next_hop: Some(next_hop), ..attributes.clone() })
        }
        announcer => announcer,
    }?;
    announcer.announce(nlri.iter().copied(), out);
    Ok(())
}
