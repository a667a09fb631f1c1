//! Files of routes: those of others are read as what they know, ours are read by others, and what was dumped comes back.
//!
//! Needs bgpdump beside what the others need.

use super::{
    IPV4_ALL, bird,
    rig::{Daemon, Rig},
};
use isthmus_speaker::{
    AsPath, Asn, Attributes, PathId, Prefix,
    mrt::format::{PeerEntry, PeerIndex, Rib, RibEntry},
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    process::Command,
    sync::Arc,
};

/// Every daemon here knows these routes of AS 65002, or says so.
const ROUTES: usize = 10;

impl Rig {
    /// What a file has, as documents. One that is being written ends in the middle, which is said behind them.
    fn show(&self, words: &str, file: &str) -> Vec<Value> {
        let text = self.isthmus(&format!("bgp mrt show {words} -o json {}", self.file(file).display()));
        let documents = serde_json::Deserializer::from_str(&text).into_iter().next();
        documents.and_then(Result::ok).unwrap_or_else(|| {
            eprintln!("no documents of {file}: {text}");
            Vec::new()
        })
    }

    /// Prefix, path and next hop of what is announced or in a table.
    fn paths(&self, file: &str) -> BTreeSet<String> {
        let word = |one: &Value, key: &str| one[key].as_str().unwrap_or("self").to_owned();
        let shown = self.show("", file);
        let paths = shown.iter().filter(|one| ["path", "announce"].contains(&one["what"].as_str().unwrap()));
        paths
            .map(|one| format!("{} {} {}", word(one, "prefix"), word(one, "as_path"), word(one, "next_hop")))
            .collect()
    }

    /// Routes of our speaker as they are chosen.
    fn best(&self) -> BTreeSet<String> {
        let text = self.isthmus("bgp routes -o json");
        let rows: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|why| panic!("{why}: {text}"));
        let keys = ["prefix", "as_path", "next_hop", "origin", "med", "communities", "large_communities"];
        let best = rows.iter().filter(|row| row["best"] == true);
        best.map(|row| keys.map(|key| row[key].to_string()).join(" ")).collect()
    }
}

fn ours(rest: &str) -> String {
    super::ours(&format!("peer-as = 65002\n{rest}"))
}

fn dump(kind: &str, file: &std::path::Path, rest: &str) -> String {
    let file = file.display();
    format!("[[mrt-dump]]\n[mrt-dump.config]\ndump-type = \"{kind}\"\nfile-name = \"{file}\"\n{rest}")
}

/// The ten routes that we announce, as `paths` has them.
fn our_routes() -> BTreeSet<String> {
    (0..ROUTES).map(|n| format!("10.1.{n}.0/24 64511 10.99.0.1")).collect()
}

fn bgpdump(file: &std::path::Path) -> String {
    let output = Command::new("bgpdump").args(["-v", "-m"]).arg(file).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn our_dumps_are_read_by_bgpdump_and_come_back_into_a_fresh_speaker() {
    let Some(rig) = Rig::open("md") else { return };
    let bird = Daemon::bird(&rig, &bird(&format!("65002;\n  neighbor 10.99.0.1 as 64511;\n  {IPV4_ALL}")));
    let (updates, table) = (rig.file("updates.mrt"), rig.file("table.mrt"));
    let dumps = dump("updates", &updates, "") + &dump("table", &table, "dump-interval = 1\n");
    let daemon = Daemon::isthmus(&rig, &ours(&dumps));
    rig.wait_ours("ten routes come", || rig.gobgp("global rib summary"), |text| text.contains("Path: 10"));
    rig.gobgp("global rib add 10.1.0.0/24 origin igp aspath 65010,65011 nexthop 10.99.0.9 med 7 community 64511:1 large-community 1:2:3");
    rig.gobgp("global rib add -a ipv6 2001:db8::/32 nexthop fd99::9");
    let lines =
        |file: &PathBuf, head: &str| bgpdump(file).lines().filter(|line| line.starts_with(head)).count();
    rig.wait_ours("the table is whole", || bgpdump(&table), |text| text.lines().count() == ROUTES + 2);
    let text = bgpdump(&table);
    assert_eq!(text.matches("|B|10.99.0.2|65002|10.2.").count(), ROUTES, "{text}");
    assert!(text.contains("|B|0.0.0.0|64511|10.1.0.0/24|65010 65011|IGP|10.99.0.9|0|7|64511:1|"), "{text}");
    assert!(text.contains("|2001:db8::/32||INCOMPLETE|fd99::9|"), "{text}");
    bird.control("disable ten");
    rig.wait_ours(
        "withdrawals are in the file",
        || bgpdump(&updates),
        |text| text.matches("|W|10.99.0.2|65002|10.2.").count() == ROUTES,
    );
    bird.control("enable ten");
    rig.wait_ours(
        "the routes are back",
        || rig.gobgp("global rib summary"),
        |text| text.contains("Path: 11"),
    );
    rig.wait_ours(
        "and in the file",
        || bgpdump(&updates),
        |text| text.matches("|A|10.99.0.2|65002|10.2.").count() == 2 * ROUTES,
    );
    assert!(lines(&updates, "BGP4MP_ET|") > 0, "states are read too: {}", bgpdump(&updates));
    let status = rig.isthmus("bgp mrt status");
    assert!(
        status.contains("updates") && status.contains("table.mrt") && !status.contains("cannot"),
        "{status}"
    );
    // The present table, in another file; then a speaker that knows nothing.
    let now = rig.file("now.mrt");
    rig.isthmus(&format!("bgp mrt dump {}", now.display()));
    let (best, six) = (rig.best(), rig.isthmus("bgp routes -6 -o csv --columns prefix,mark"));
    assert_eq!(best.len(), ROUTES + 1);
    daemon.terminate();
    drop(bird);
    let _fresh = Daemon::isthmus(&rig, &super::ours("peer-as = 65002\n"));
    rig.wait_ours("the API answers", || rig.gobgp("global"), |text| text.contains("64511"));
    let outcome = rig.isthmus(&format!("bgp mrt inject {} -o json", now.display()));
    assert!(outcome.contains("\"announced\": 12") && outcome.contains("\"bad_records\": 0"), "{outcome}");
    assert_eq!(rig.best(), best, "the routes are the same");
    assert_eq!(rig.isthmus("bgp routes -6 -o csv --columns prefix,mark"), six);
    // The same from the messages.
    rig.gobgp("global rib del all");
    assert_eq!(rig.isthmus_status(&format!("bgp mrt inject {}", updates.display())), 0);
    assert_eq!(rig.best().len(), ROUTES, "all were announced, withdrawn, and announced again");
    assert_eq!(rig.isthmus_status(&format!("bgp mrt inject {} --api 127.0.0.1:1", now.display())), 3);
    assert_eq!(rig.isthmus_status("bgp mrt inject /nonexistent"), 2);
    rig.finish();
}

/// Prefixes in the file of the stock client.
const MANY: usize = 4_096;

#[test]
fn the_stock_client_injects_a_table() {
    let Some(rig) = Rig::open("ms") else { return };
    let _ours = Daemon::isthmus(&rig, &super::ours("peer-as = 65002\n"));
    rig.wait_ours("the API answers", || rig.gobgp("global"), |text| text.contains("64511"));
    let file = rig.file("many.mrt");
    fs::write(&file, many()).unwrap();
    assert_eq!(rig.gobgp(&format!("mrt inject global {}", file.display())), "");
    // Version 3.10 leaves before its last routes are on their way, whomever it talks to: half of them are.
    let count = |text: &str| text.rsplit(' ').next().and_then(|count| count.trim().parse::<usize>().ok());
    rig.wait_ours(
        "most come",
        || rig.gobgp("global rib summary"),
        |text| count(text).is_some_and(|paths| paths > MANY),
    );
    // Both paths to a prefix are there: they are from speakers with other router ids.
    let text = rig.gobgp("global rib 10.128.1.0/24");
    assert!(text.contains("65001 65010") && text.contains("65002 65010"), "{text}");
    rig.finish();
}

/// A table with two paths to each prefix.
fn many() -> Vec<u8> {
    let peers = [1, 2].map(|n| PeerEntry {
        id: Ipv4Addr::new(192, 0, 2, n).into(),
        address: Ipv4Addr::new(192, 0, 2, n).into(),
        asn: Asn(65_000 + u32::from(n)),
    });
    let index = PeerIndex { collector: peers[0].id, view: String::new(), peers: peers.to_vec() };
    let mut file = Vec::new();
    index.encode(1, &mut file).unwrap();
    for n in 0..MANY {
        let entry = |peer: u16| RibEntry {
            peer,
            originated: 1,
            path_id: PathId(0),
            attributes: Arc::new(Attributes {
                as_path: AsPath::sequence([Asn(65_001 + u32::from(peer)), Asn(65_010)]),
                next_hop: Some(IpAddr::from([192, 0, 2, 1]).into()),
                ..Attributes::default()
            }),
            faults: Vec::new(),
        };
        let address = Ipv4Addr::from((10 << 24 | 128 << 16) + ((n as u32) << 8));
        let prefix = Prefix::new(address.into(), 24).unwrap();
        let rib = Rib { sequence: n as u32, prefix, add_path: false, entries: vec![entry(0), entry(1)] };
        rib.encode(1, &mut file).unwrap();
    }
    file
}

#[test]
fn dumps_of_bird_are_read() {
    let Some(rig) = Rig::open("mb") else { return };
    let file = rig.file("bird.mrt");
    let messages = rig.file("bird-messages.mrt");
    let theirs = bird(&format!("65002;\n  neighbor 10.99.0.1 as 64511;\n  {IPV4_ALL}"));
    // It counts for what is defined behind it.
    let theirs =
        format!("mrtdump \"{}\";\nmrtdump protocols {{ messages, states }};\n{theirs}", messages.display());
    let bird = Daemon::bird(&rig, &theirs);
    let _ours = Daemon::isthmus(&rig, &ours(""));
    rig.wait_ours("the session comes up", || rig.gobgp("neighbor"), |text| text.contains("Establ"));
    for n in 0..ROUTES {
        rig.gobgp(&format!("global rib add 10.1.{n}.0/24 med 7"));
    }
    bird.wait("our routes reach BIRD", "show route protocol ours", |text| {
        text.matches("10.1.").count() == ROUTES
    });
    bird.control(&format!("mrt dump table master4 to \"{}\"", file.display()));
    rig.wait_ours(
        "its table is read",
        || format!("{:?}", rig.paths("bird.mrt")),
        |_| {
            let paths = rig.paths("bird.mrt");
            paths.iter().filter(|path| path.starts_with("10.1.")).cloned().collect::<BTreeSet<_>>()
                == our_routes()
        },
    );
    let states = rig.show("", "bird-messages.mrt");
    assert!(states.iter().any(|one| one["new_state"] == "established"), "{states:?}");
    assert_eq!(
        rig.paths("bird-messages.mrt").iter().filter(|path| path.starts_with("10.1.")).count(),
        ROUTES
    );
    rig.finish();
}

#[test]
fn dumps_of_gobgpd_are_read() {
    let Some(rig) = Rig::open("mg") else { return };
    // A name within its directory: gobgpd would take digits of the directory's name for a date.
    let updates = std::path::Path::new("gobgpd.mrt");
    let theirs = format!(
        "[global.config]\nas = 65002\nrouter-id = \"10.99.0.2\"\n[[neighbors]]\n[neighbors.config]\n\
         neighbor-address = \"10.99.0.1\"\npeer-as = 64511\n[neighbors.timers.config]\nconnect-retry = 1\n{}",
        dump("updates", updates, "")
    );
    let _theirs = Daemon::gobgpd(&rig, &theirs);
    let _ours = Daemon::isthmus(&rig, &ours(""));
    rig.wait_ours("the session comes up", || rig.gobgp("neighbor"), |text| text.contains("Establ"));
    for n in 0..ROUTES {
        rig.gobgp(&format!("global rib add 10.1.{n}.0/24"));
    }
    rig.wait_ours(
        "its file is read",
        || format!("{:?}", rig.paths("gobgpd.mrt")),
        |_| rig.paths("gobgpd.mrt") == our_routes(),
    );
    rig.finish();
}

#[test]
fn dumps_of_frr_are_read() {
    let Some(rig) = Rig::open("mf") else { return };
    let networks = (0..ROUTES).map(|n| format!("  network 10.2.{n}.0/24\n")).collect::<Vec<_>>().concat();
    let directory = rig.file("frr");
    let directory = directory.display();
    let theirs = format!(
        "dump bgp routes-mrt {directory}/table.mrt 1\ndump bgp updates {directory}/updates.mrt\nrouter bgp 65002\n bgp router-id 10.99.0.2\n \
         no bgp ebgp-requires-policy\n no bgp network import-check\n neighbor 10.99.0.1 remote-as 64511\n \
         neighbor 10.99.0.1 timers connect 1\n address-family ipv4 unicast\n{networks} exit-address-family\n"
    );
    let _frr = Daemon::frr(&rig, &theirs);
    let _ours = Daemon::isthmus(&rig, &ours(""));
    rig.wait_ours("its routes come", || rig.gobgp("global rib summary"), |text| text.contains("Path: 10"));
    for n in 0..ROUTES {
        rig.gobgp(&format!("global rib add 10.1.{n}.0/24 med 7"));
    }
    rig.wait_ours(
        "its updates are read",
        || format!("{:?}", rig.paths("frr/updates.mrt")),
        |_| {
            rig.paths("frr/updates.mrt")
                .iter()
                .filter(|path| path.starts_with("10.1."))
                .cloned()
                .collect::<BTreeSet<_>>()
                == our_routes()
        },
    );
    rig.wait_ours(
        "its table is read",
        || format!("{:?}", rig.paths("frr/table.mrt")),
        |_| {
            let paths = rig.paths("frr/table.mrt");
            paths.iter().filter(|path| path.starts_with("10.1.")).cloned().collect::<BTreeSet<_>>()
                == our_routes()
        },
    );
    rig.finish();
}
