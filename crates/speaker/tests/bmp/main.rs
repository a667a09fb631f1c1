//! Monitoring stations that replay what they hear, beside the tables of the speaker. Needs no privilege.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod neighbor;
mod station;

use isthmus_bgp::{
    Attributes, Family, NextHop, Nlri, Origin,
    bmp::{DownReason, Statistic, Table as Monitored, information},
    wire::{HEADER_BYTES, Notification, Open},
};
use isthmus_speaker::{
    Config, Handle, Options,
    handle::{AdminAction, Withdrawal},
    view::{Lookup, SessionState, Table},
};
use neighbor::{Neighbor, open_of, prefixes};
use station::{Heard, Mood, Routes, Station};
use std::{
    collections::BTreeMap,
    future::Future,
    net::{IpAddr, TcpListener},
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

/// How long anything may take that works at all.
const PATIENCE: Duration = Duration::from_mins(1);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const V4: Family = Family::Ipv4Unicast;
const V6: Family = Family::Ipv6Unicast;

/// The speaker at 127.0.`net`.1, whose neighbours come from 127.0.`net`.2 and `.3`. Of what they send, 10.0.0.0/15 is
/// refused, and what follows gets a MED.
struct Speaker {
    net: u8,
    handle: Handle,
    reloads: mpsc::Sender<Config>,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

fn config(net: u8, stations: &str) -> Config {
    let family = |name: &str| {
        format!("[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{name}\"\n")
    };
    let neighbor = |n: u8| {
        format!(
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"127.0.{net}.{n}\"\npeer-as = {}\n\
             [neighbors.transport.config]\npassive-mode = true\n\
             [neighbors.timers.config]\nidle-hold-time-after-reset = 1\n[neighbors.add-paths.config]\nreceive = true\n{}{}",
            65_000 + u32::from(n),
            family("ipv4-unicast"),
            family("ipv6-unicast"),
        )
    };
    let text = format!(
        "[global.config]\nas = 65001\nrouter-id = \"10.0.0.1\"\nport = 17900\nlocal-address-list = [\"127.0.{net}.1\"]\n\
         [global.apply-policy.config]\nimport-policy-list = [\"in\"]\n\
         [[defined-sets.prefix-sets]]\nprefix-set-name = \"refused\"\n\
         [[defined-sets.prefix-sets.prefix-list]]\nip-prefix = \"10.0.0.0/15\"\nmasklength-range = \"15..32\"\n\
         [[policy-definitions]]\nname = \"in\"\n\
         [[policy-definitions.statements]]\n[policy-definitions.statements.conditions.match-prefix-set]\nprefix-set = \"refused\"\n\
         [policy-definitions.statements.actions]\nroute-disposition = \"reject-route\"\n\
         [[policy-definitions.statements]]\n[policy-definitions.statements.actions]\nroute-disposition = \"accept-route\"\n\
         [policy-definitions.statements.actions.bgp-actions]\nset-med = 77\n{}{}{stations}",
        neighbor(2),
        neighbor(3),
    );
    Config::from_toml(&text, "f").unwrap_or_else(|faults| panic!("{faults}"))
}

/// The section of a station, with lines for its `config`.
fn told(station: &Station, rest: &str) -> String {
    format!(
        "[[bmp-servers]]\n[bmp-servers.config]\naddress = \"{}\"\nport = {}\n{rest}",
        station.address.ip(),
        station.address.port()
    )
}

const ALL: &str = "route-monitoring-policy = \"all\"\n";

impl Speaker {
    async fn start(net: u8, stations: &str) -> Self {
        let (reloads, to_reload) = mpsc::channel(1);
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async { drop(stopped.await) };
        let (handle, running) =
            isthmus_speaker::start(config(net, stations), Options::default(), to_reload, stopped)
                .await
                .unwrap();
        Self { net, handle, reloads, stop, running: tokio::spawn(running) }
    }

    /// Neighbour `n`, once its session is up.
    async fn neighbor(&self, n: u8, add_path: bool) -> Neighbor {
        let neighbor = Neighbor::open(self.net, n, add_path).await;
        wait("the session is up", || async {
            let peers = self.handle.peers(Some(self.address(n)), false).await.unwrap();
            (peers[0].status.state == SessionState::Established).then_some(())
        })
        .await;
        neighbor
    }

    fn address(&self, n: u8) -> IpAddr {
        [127, 0, self.net, n].into()
    }

    async fn routes(&self, table: Table) -> Routes {
        let mut routes = Routes::new();
        for family in Family::ALL {
            let prefixes = self.handle.prefixes(table, family, Vec::new()).await.unwrap();
            for page in prefixes.chunks(1_000) {
                for found in self.handle.paths(table, page.to_vec()).await.unwrap() {
                    let is_meant = |best: bool| table != Table::Global || best;
                    let paths = found.paths.into_iter().filter(|path| is_meant(path.best));
                    routes.extend(paths.map(|path| {
                        let path_id =
                            if table == Table::Global { isthmus_bgp::PathId(0) } else { path.path_id };
                        (Nlri { prefix: path.prefix, path_id }, path.attributes)
                    }));
                }
            }
        }
        routes
    }

    /// Waits until the station has what the speaker has, of sessions that are up and of Loc-RIB.
    async fn wait_equal(&self, what: &str, station: &Station) -> Heard {
        let until = Instant::now() + PATIENCE;
        loop {
            let (heard, known) = (station.heard(), self.known().await);
            let told: BTreeMap<_, _> = heard
                .sessions
                .iter()
                .map(|(address, session)| {
                    (*address, (session.before_policy.clone(), session.after_policy.clone()))
                })
                .collect();
            let best =
                heard.loc_rib.as_ref().map(|session| session.before_policy.clone()).unwrap_or_default();
            if (told, best) == known {
                return heard;
            }
            let sizes = |of: &Routes| of.len();
            assert!(
                Instant::now() < until,
                "{what}: of {:?} and {} the station has {:?} and {:?}",
                known.0.values().map(|(before, after)| (sizes(before), sizes(after))).collect::<Vec<_>>(),
                known.1.len(),
                heard
                    .sessions
                    .values()
                    .map(|one| (one.before_policy.len(), one.after_policy.len()))
                    .collect::<Vec<_>>(),
                heard.loc_rib.map(|best| best.before_policy.len()),
            );
            // Between two looks at a condition with a deadline.
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn known(&self) -> (BTreeMap<IpAddr, (Routes, Routes)>, Routes) {
        let mut sessions = BTreeMap::new();
        for peer in self.handle.peers(None, false).await.unwrap() {
            if peer.status.state == SessionState::Established {
                let before = self.routes(Table::AdjIn(peer.address)).await;
                let after = self.routes(Table::Accepted(peer.address)).await;
                sessions.insert(peer.address, (before, after));
            }
        }
        (sessions, self.routes(Table::Global).await)
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        timeout(PATIENCE, self.running).await.unwrap().unwrap();
    }
}

async fn wait<T, F: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> F) -> T {
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

async fn wait_heard(what: &str, station: &Station, is_so: impl Fn(&Heard) -> bool) -> Heard {
    wait(what, || async { Some(station.heard()).filter(|heard| is_so(heard)) }).await
}

/// A route of our own.
async fn own(speaker: &Speaker, number: u32) {
    let next_hop = Some(NextHop::V4([10, 9, 9, 9].into()));
    let attributes = Attributes { next_hop, ..Attributes::local(Origin::Igp) };
    speaker.handle.announce(prefixes(V4, number, 1, 0)[0], attributes).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_station_hears_who_we_are_of_sessions_and_of_routes() {
    let station = Station::listen(Mood::Quick);
    let speaker =
        Speaker::start(71, &told(&station, &format!("{ALL}sys-name = \"n\"\nsys-descr = \"d\"\n"))).await;
    let heard = wait_heard("it is there", &station, |heard| heard.loc_rib.is_some()).await;
    let said: Vec<_> = heard.initiation.iter().map(|one| (one.kind, one.value.as_slice())).collect();
    assert_eq!(said, [(information::SYS_DESCR, &b"d"[..]), (information::SYS_NAME, &b"n"[..])]);
    let neighbor = speaker.neighbor(2, false).await;
    neighbor.announce(prefixes(V4, 0x0200, 3, 0), 1).await;
    neighbor.announce(prefixes(V4, 0, 2, 0), 1).await;
    neighbor.announce(prefixes(V6, 0, 2, 0), 1).await;
    own(&speaker, 0x0300).await;
    wait_heard("routes come", &station, |heard| {
        heard.loc_rib.as_ref().is_some_and(|best| best.before_policy.len() == 6)
    })
    .await;
    let heard = speaker.wait_equal("all is told", &station).await;
    let session = &heard.sessions[&speaker.address(2)];
    assert_eq!((session.before_policy.len(), session.after_policy.len()), (7, 5), "two are refused");
    assert!(session.after_policy.values().all(|attributes| attributes.med == Some(77)));
    assert!(session.before_policy.values().all(|attributes| attributes.med == Some(1)));
    assert_eq!((&session.ends[0][..], &session.ends[1][..]), (&[V4, V6][..], &[V4, V6][..]));
    assert_eq!(heard.loc_rib.unwrap().ends[0], [V4, V6]);
    // Both OPENs are those that went over the wire.
    let up = session.up.clone().unwrap();
    assert_eq!(up.received, open_of(2, false).encode());
    let sent = Open::decode(&up.sent[HEADER_BYTES..]).unwrap();
    assert_eq!((sent.asn().0, sent.router_id, sent.hold_time), (65_001, 0x0a00_0001, 90));
    assert_eq!((up.local_address, up.local_port), (speaker.address(1), 17_900));
    assert!(up.remote_port != 0 && up.peer.asn.0 == 65_002 && up.peer.id.0 == 0x0a00_0002);
    // What goes is taken back, one by one and with the session.
    neighbor.withdraw(prefixes(V4, 0x0201, 2, 0)).await;
    wait_heard("routes go", &station, |heard| {
        heard.loc_rib.as_ref().is_some_and(|best| best.before_policy.len() == 4)
    })
    .await;
    speaker.handle.withdraw(Withdrawal::All(V4)).await.unwrap();
    speaker.wait_equal("all is told", &station).await;
    neighbor.leave().await;
    let heard = wait_heard("the session goes", &station, |heard| heard.sessions.is_empty()).await;
    assert_eq!(heard.downs, [(speaker.address(2), DownReason::RemoteSilent)]);
    speaker.wait_equal("nothing is left", &station).await;
    speaker.stop().await;
    let heard = wait_heard("the end is told", &station, |heard| heard.ended.is_some()).await;
    assert_eq!(heard.ended.unwrap(), [0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_session_ended_is_told_in_the_words_of_who_ended_it() {
    let station = Station::listen(Mood::Quick);
    let speaker = Speaker::start(72, &told(&station, "")).await;
    let downs = |count: usize| {
        let station = &station;
        async move { wait_heard("the session goes", station, |heard| heard.downs.len() == count).await.downs }
    };
    let up = || wait_heard("it is told", &station, |heard| heard.sessions.len() == 1);
    let neighbor = speaker.neighbor(2, false).await;
    up().await;
    let said = Notification { code: 6, subcode: 4, data: Vec::new() };
    neighbor.say(said.encode()).await;
    assert_eq!(downs(1).await[0].1, DownReason::RemoteNotification(said));
    let neighbor = speaker.neighbor(2, false).await;
    up().await;
    let reset = AdminAction::Reset("pause".to_owned());
    speaker.handle.admin(Some(speaker.address(2)), reset).await.unwrap();
    let DownReason::LocalNotification(said) = downs(2).await[1].1.clone() else { panic!("not ours") };
    assert_eq!((said.code, said.subcode, said.text().as_deref()), (6, 4, Some("pause")));
    neighbor.leave().await;
    let neighbor = speaker.neighbor(2, false).await;
    up().await;
    // An OPEN in the middle is against the rules, and we say so.
    neighbor.say(open_of(2, false).encode()).await;
    let DownReason::LocalNotification(said) = downs(3).await[2].1.clone() else { panic!("not ours") };
    assert_eq!((said.code, said.subcode), (5, 3));
    neighbor.leave().await;
    let _neighbor = speaker.neighbor(2, false).await;
    up().await;
    let mut without = config(72, &told(&station, ""));
    without.neighbors.remove(&speaker.address(2));
    speaker.reloads.send(without).await.unwrap();
    let DownReason::LocalNotification(said) = downs(4).await[3].1.clone() else { panic!("not ours") };
    assert_eq!((said.code, said.subcode), (6, 3), "no longer configured");
    assert_eq!(station.heard().connections, 1, "the station heard all of it on one connection");
    speaker.stop().await;
}

/// Much that happens, for a station that does not keep up.
async fn churn(speaker: &Speaker, station: &Station) -> usize {
    let (plain, numbered) = (speaker.neighbor(2, false).await, speaker.neighbor(3, true).await);
    let mut changes = 0;
    for round in 0..40 {
        for first in (0..4_000).step_by(1_000) {
            plain.announce(prefixes(V4, first, 1_000, 0), round).await;
            changes += 1_000;
        }
        plain.announce(prefixes(V6, round * 10, 50, 0), round).await;
        let path_id = round % 3;
        numbered.announce(prefixes(V4, 3_000, 1_000, path_id), round).await;
        numbered.withdraw(prefixes(V4, 3_000 + round, 500, (round + 1) % 3)).await;
        plain.withdraw(prefixes(V4, round * 50, 500, 0)).await;
        changes += 2_050;
        // However little the station takes, the owner answers.
        own(speaker, 5_000 + round % 7).await;
        if round == 10 {
            station.be(Mood::Slow);
        }
    }
    speaker.handle.withdraw(Withdrawal::Path(prefixes(V4, 5_001, 1, 0)[0])).await.unwrap();
    // A session that ends and comes back between two looks of the station, with less than before.
    numbered.leave().await;
    let again = speaker.neighbor(3, true).await;
    again.announce(prefixes(V4, 3_100, 700, 2), 99).await;
    again.announce(prefixes(V4, 3_100, 10, 1), 98).await;
    // Both stay: who is gone has nothing to compare.
    std::mem::forget((plain, again));
    changes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_station_ends_up_with_what_is_there() {
    let (station, other) = (Station::listen(Mood::Stuck), Station::listen(Mood::Quick));
    let stations = format!("{}{}", told(&station, ALL), told(&other, ALL));
    let speaker = Speaker::start(73, &stations).await;
    let changes = churn(&speaker, &station).await;
    wait("the last routes are there", || async {
        let counts = speaker.handle.counts(Table::AdjIn(speaker.address(3)), V4).await.unwrap();
        (counts.paths == 710).then_some(())
    })
    .await;
    let heard = speaker.wait_equal("the slow one", &station).await;
    assert_eq!(heard.connections, 1, "it was never dropped");
    assert!(
        heard.routes < changes,
        "it heard {} routes of {changes} changes in each of three tables",
        heard.routes
    );
    let heard = speaker.wait_equal("the quick one", &other).await;
    assert_eq!(heard.connections, 1);
    // Policy that is another reaches routes that came long ago.
    let mut lenient = config(73, &stations);
    lenient.policy.import = isthmus_speaker::config::Assignment::default();
    speaker.reloads.send(lenient).await.unwrap();
    wait("policy is another", || async {
        let counts = speaker.handle.counts(Table::Accepted(speaker.address(2)), V4).await.unwrap();
        let all = speaker.handle.counts(Table::AdjIn(speaker.address(2)), V4).await.unwrap();
        (counts.paths == all.paths).then_some(())
    })
    .await;
    speaker.wait_equal("the slow one", &station).await;
    speaker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_station_hears_what_neighbours_are_told_if_it_is_asked_for() {
    let (station, usual) = (Station::listen(Mood::Quick), Station::listen(Mood::Quick));
    let out = format!("{ALL}adj-rib-out-monitoring-policy = \"both\"\n");
    let stations = format!("{}{}", told(&station, &out), told(&usual, ALL));
    let speaker = Speaker::start(78, &stations).await;
    let (sender, hearer) = (speaker.neighbor(2, false).await, speaker.neighbor(3, false).await);
    sender.announce(prefixes(V4, 0x0200, 3, 0), 1).await;
    own(&speaker, 0x0300).await;
    let address = speaker.address(3);
    let is_told = |heard: &Heard, before: usize, after: usize| {
        heard
            .sessions
            .get(&address)
            .is_some_and(|session| (session.told[0].len(), session.told[1].len()) == (before, after))
    };
    let heard = wait_heard("what goes is told", &station, |heard| is_told(heard, 4, 4)).await;
    let [before, after] = &heard.sessions[&address].told;
    assert_eq!(after, &speaker.routes(Table::AdjOut(address)).await, "as it is on the wire");
    assert_eq!(before, &speaker.routes(Table::Global).await, "as it was chosen");
    assert_eq!(heard.sessions[&speaker.address(2)].told[1].len(), 1, "nobody hears its own routes");
    // A policy that lets nothing go.
    let mut strict = config(78, &stations);
    strict.policy.export.default = isthmus_speaker::config::Disposition::Reject;
    speaker.reloads.send(strict).await.unwrap();
    wait_heard("what policy holds back is not told", &station, |heard| is_told(heard, 4, 0)).await;
    speaker.reloads.send(config(78, &stations)).await.unwrap();
    wait_heard("it is told again", &station, |heard| is_told(heard, 4, 4)).await;
    sender.withdraw(prefixes(V4, 0x0201, 2, 0)).await;
    wait_heard("what is taken back", &station, |heard| is_told(heard, 2, 2)).await;
    speaker.wait_equal("all else is told", &station).await;
    let heard = speaker.wait_equal("the usual one", &usual).await;
    assert!(is_told(&heard, 0, 0), "it did not ask");
    std::mem::forget(hearer);
    speaker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_station_that_is_behind_hears_why_no_more_is_said() {
    let station = Station::on(TcpListener::bind("127.0.0.1:0").unwrap(), Mood::Stuck);
    let speaker = Speaker::start(77, &told(&station, ALL)).await;
    let neighbor = speaker.neighbor(2, false).await;
    let mut mark = 0;
    loop {
        let before = speaker.handle.stations().await.unwrap()[0].status.messages;
        for nlri in prefixes(V4, 0x0200, 2_000, 0) {
            mark += 1;
            neighbor.announce(vec![nlri], mark).await;
        }
        if !takes_more(&speaker, before).await {
            break;
        }
        assert!(mark < 1_000_000, "there is room for everything on the way");
    }
    speaker.reloads.send(config(77, "")).await.unwrap();
    wait("it is removed", || async { speaker.handle.stations().await.unwrap().is_empty().then_some(()) })
        .await;
    station.be(Mood::Quick);
    let heard = wait_heard("it is told so", &station, |heard| heard.ended.is_some()).await;
    assert_eq!(heard.ended.unwrap(), [0, 4]);
    speaker.stop().await;
}

/// Whether the only station takes more than so many messages within a while.
async fn takes_more(speaker: &Speaker, messages: u64) -> bool {
    for _ in 0..25 {
        if speaker.handle.stations().await.unwrap()[0].status.messages > messages {
            return true;
        }
        sleep(LOOK_AGAIN).await;
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn a_station_that_comes_back_is_told_all_anew() {
    let station = Station::listen(Mood::Slow);
    let speaker = Speaker::start(74, &told(&station, ALL)).await;
    let neighbor = speaker.neighbor(2, false).await;
    for first in (0..8_000).step_by(1_000) {
        neighbor.announce(prefixes(V4, first, 1_000, 0), 1).await;
    }
    wait_heard("it is in the middle", &station, |heard| heard.routes > 2_000).await;
    station.be(Mood::Leaving);
    wait_heard("it is back", &station, |heard| heard.connections == 2).await;
    neighbor.withdraw(prefixes(V4, 500, 300, 0)).await;
    wait("routes go", || async {
        let counts = speaker.handle.counts(Table::AdjIn(speaker.address(2)), V4).await.unwrap();
        (counts.paths == 7_700).then_some(())
    })
    .await;
    let heard = speaker.wait_equal("all is told", &station).await;
    assert_eq!(heard.sessions[&speaker.address(2)].ends[0], [V4, V6]);
    let views = speaker.handle.stations().await.unwrap();
    assert!(views[0].status.is_up && views[0].status.down_at.is_some() && views[0].status.messages > 0);
    assert_eq!((views[0].status.losses, views[0].status.left_out), (1, 0));
    speaker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_adds_and_removes_stations_and_no_session_notices() {
    let (one, two) = (Station::listen(Mood::Quick), Station::listen(Mood::Quick));
    let speaker = Speaker::start(75, &told(&one, "")).await;
    let neighbor = speaker.neighbor(2, false).await;
    neighbor.announce(prefixes(V4, 0x0200, 3, 0), 1).await;
    wait_heard("routes come", &one, |heard| heard.routes == 3).await;
    let local = "route-monitoring-policy = \"local-rib\"\n";
    let both = format!("{}{}", told(&one, ""), told(&two, local));
    speaker.reloads.send(config(75, &both)).await.unwrap();
    let heard = wait_heard("the new one is told", &two, |heard| heard.routes == 3).await;
    assert!(heard.loc_rib.is_some() && heard.sessions[&speaker.address(2)].before_policy.is_empty());
    speaker.reloads.send(config(75, &told(&two, local))).await.unwrap();
    let heard = wait_heard("the old one is told so", &one, |heard| heard.ended.is_some()).await;
    assert_eq!(heard.ended.unwrap(), [0, 4], "it need not wait for us");
    speaker.reloads.send(config(75, &told(&two, ALL))).await.unwrap();
    let heard = wait_heard("another policy is another connection", &two, |heard| heard.routes == 9).await;
    assert_eq!(heard.connections, 2);
    let peer = speaker.handle.peers(Some(speaker.address(2)), false).await.unwrap().remove(0);
    assert_eq!((peer.status.state, peer.status.flaps), (SessionState::Established, 0));
    assert_eq!(speaker.handle.stations().await.unwrap().len(), 1);
    let lookup = vec![Lookup::Exact(prefixes(V4, 0x0200, 1, 0)[0].prefix)];
    assert_eq!(speaker.handle.prefixes(Table::Global, V4, lookup).await.unwrap().len(), 1);
    speaker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_have_the_numbers_of_the_tables() {
    let station = Station::listen(Mood::Quick);
    // The schema has 15 s as the least time, as GoBGP has: a test has not.
    let mut often = config(76, &told(&station, ALL));
    for settings in often.stations.values_mut() {
        settings.statistics = Some(Duration::from_millis(50));
    }
    let speaker = Speaker::start(76, "").await;
    speaker.reloads.send(often).await.unwrap();
    let neighbor = speaker.neighbor(2, false).await;
    neighbor.announce(prefixes(V4, 0, 1, 0), 1).await;
    neighbor.announce(prefixes(V4, 0x0200, 3, 0), 1).await;
    neighbor.announce(prefixes(V6, 0, 2, 0), 1).await;
    let numbers = |family: Family| family.afi_safi();
    wait_heard("of the neighbour", &station, |heard| {
        let wanted = [
            Statistic::AdjRibIn(6),
            Statistic::AdjRibInOf(numbers(V4), 4),
            Statistic::AdjRibInOf(numbers(V6), 2),
            Statistic::TreatedAsWithdraw(0),
        ];
        heard.reports.iter().any(|(peer, told)| {
            matches!(peer.table, Monitored::Peer { address, .. } if address == speaker.address(2))
                && *told == wanted
        })
    })
    .await;
    wait_heard("of Loc-RIB", &station, |heard| {
        let wanted =
            [Statistic::LocRib(5), Statistic::LocRibOf(numbers(V4), 3), Statistic::LocRibOf(numbers(V6), 2)];
        heard
            .reports
            .iter()
            .any(|(peer, told)| matches!(peer.table, Monitored::LocRib { .. }) && *told == wanted)
    })
    .await;
    speaker.stop().await;
}
