//! Monitoring stations that the stock client adds and takes away, told of routes of BIRD.

use super::{
    IPV4_ALL, bird, ours,
    rig::{Daemon, Rig, without_times},
};
use isthmus_bgp::bmp::DownReason;
use std::{
    fs::File,
    net::{IpAddr, TcpListener},
    os::fd::AsFd,
    thread,
};

#[path = "../../../speaker/tests/bmp/station.rs"]
#[expect(dead_code, reason = "the speaker's own tests use the rest")]
mod station;

use station::{Heard, Mood, Station};

/// A listener in a namespace, while the test stays where it is.
fn listen(namespace: &str, address: &str) -> TcpListener {
    let space = File::open(format!("/run/netns/{namespace}")).unwrap();
    let address = address.to_owned();
    let listening = thread::spawn(move || {
        rustix::thread::move_into_link_name_space(space.as_fd(), None).unwrap();
        TcpListener::bind(address).unwrap()
    });
    listening.join().unwrap()
}

const BIRD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 99, 0, 2));

fn routes(heard: &Heard) -> usize {
    heard.sessions.get(&BIRD).map_or(0, |session| session.before_policy.len())
}

fn best(heard: &Heard) -> usize {
    heard.loc_rib.as_ref().map_or(0, |best| best.before_policy.len())
}

#[test]
fn stations_come_and_go_through_the_stock_client_and_the_file() {
    let Some(rig) = Rig::open("mo") else { return };
    let station = Station::on(listen(rig.theirs(), "10.99.0.2:11019"), Mood::Quick);
    let bird = Daemon::bird(&rig, &bird(&format!("65002;\n  neighbor 10.99.0.1 as 64511;\n  {IPV4_ALL}")));
    let without = ours("peer-as = 65002\n");
    let daemon = Daemon::isthmus(&rig, &without);
    rig.wait_ours("the API answers", || rig.gobgp("global"), |text| text.contains("64511"));
    let wait = |what: &str, is_so: &dyn Fn(&Heard) -> bool| {
        rig.wait_ours(what, || format!("{}", is_so(&station.heard())), |so| so == "true");
    };

    let mut transcript = String::new();
    let mut say = |line: &str| transcript.extend(["$ gobgp ", line, "\n", &rig.gobgp(line)]);
    say("bmp add 10.99.0.2 all");
    wait("routes come", &|heard| routes(heard) == 10 && best(heard) == 10);
    say("bmp add 10.99.0.2 pre");
    say("bmp add 10.99.0.9:1790 local-rib");
    say("bmp add 10.99.0.9:1791 pre --statistics-timeout 3");
    say("bmp");
    say("bmp del 10.99.0.9:1790");
    say("bmp del 10.99.0.9:1790");
    insta::assert_snapshot!(without_times(&transcript));

    let heard = station.heard();
    let up = heard.sessions[&BIRD].up.as_ref().unwrap();
    assert_eq!((up.peer.asn.0, up.peer.id.to_string().as_str()), (65_002, "10.99.0.2"));
    rig.wait_ours(
        "it has all",
        || rig.isthmus("bgp bmp"),
        |text| text.contains(" Up ") && text.contains("10.99.0.2:11019"),
    );
    assert_eq!(rig.isthmus_status("bgp bmp"), 0);

    // A station that dies is told all anew when it is back.
    station.be(Mood::Leaving);
    wait("it is back", &|heard| heard.connections == 2 && routes(heard) == 10 && best(heard) == 10);
    let shown = rig.isthmus("bgp bmp -o json");
    assert!(shown.contains("\"losses\": 1") && shown.contains("\"left_out\": 0"), "{shown}");
    bird.control("disable ten");
    wait("routes go", &|heard| routes(heard) == 0 && best(heard) == 0);
    bird.control("enable ten");
    wait("routes come back", &|heard| routes(heard) == 10);
    bird.control("disable ours");
    wait(
        "why the session ended",
        &|heard| matches!(heard.downs.last(), Some((BIRD, DownReason::RemoteNotification(said))) if said.code == 6),
    );
    bird.control("enable ours");
    wait("and that it is back", &|heard| routes(heard) == 10);

    // What came through the API outlives a reload; what the file has instead is another station.
    let file = format!("{without}[[bmp-servers]]\n[bmp-servers.config]\naddress = \"10.99.0.9\"\n");
    daemon.reload(&file);
    rig.wait_ours("both are there", || rig.isthmus("bgp bmp"), |text| text.lines().count() == 3);
    assert_eq!(rig.isthmus_status("bgp bmp"), 1, "one is down");
    daemon.reload(&without);
    rig.wait_ours("one is left", || rig.isthmus("bgp bmp -o json"), |text| !text.contains("10.99.0.9"));
    let neighbor = rig.gobgp("neighbor 10.99.0.2");
    assert!(neighbor.contains("ESTABLISHED") && neighbor.contains("Flops = 1"), "{neighbor}");
    assert_eq!(rig.gobgp("bmp del 10.99.0.2"), "");
    wait("it is told so", &|heard| heard.ended.as_deref() == Some(&[0, 4]));
    daemon.terminate();
    rig.finish();
}
