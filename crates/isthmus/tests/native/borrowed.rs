//! Single addresses: one that somebody borrowed out of a node's block, and those that a node announces.

use crate::{
    lab::{Lab, attach, inside},
    outside::{Router, session, wait_refused},
    packets::{UDP, fetch},
};
use std::{
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

/// The address of red-1's block that the router has, as a node of Calico's kind would.
pub(crate) fn lent(lab: &Lab) -> Ipv4Addr {
    lab.node("red-1").unused(60)
}

/// Has a datagram echoed at the borrowed address, from a container.
fn reaches(lab: &Lab, from: &str) -> Option<String> {
    let call = lab.app(from).client(&format!("udp {}:{UDP} --timeout-ms 600", lent(lab)));
    call.run().err().map(|error| error.to_string())
}

pub(crate) fn a_borrowed_address_is_reached_and_a_used_one_stays(lab: &Lab, bird: &Router) {
    let (node, lent) = (lab.node("red-1"), lent(lab));
    lab.router.ip(&format!("address add {lent}/32 dev lo")).unwrap();
    let socket = inside(&lab.router, || UdpSocket::bind((lent, UDP)).unwrap());
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    bird.says("enable lends");
    // Nobody outside is believed that, unless it is asked for.
    wait_refused(lab, node, &format!("{lent}/32"), "tor-a borrowed");
    lab.tell("bgp peer delete tor-a");
    lab.tell("bgp peer create lender --address 172.31.1.254 --as 65000 --nodes red-1 --import-own-pools");
    let via = |name: &str, next_hop: &str| {
        lab.wait(&format!("{name} to lead to the lent address"), || {
            let routes = lab.node(name).routes(&format!("exact {lent} proto 99"));
            (!routes.contains(&format!("via {next_hop} ")))
                .then(|| routes + &node.bgp(&format!("why {lent}/32")))
        });
    };
    via("red-1", "172.31.1.254");
    std::thread::scope(|scope| {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            let mut buffer = [0; 64];
            while stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
                if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                    let _answered = socket.send_to(&buffer[..length], peer);
                }
            }
        });
        lab.wait("a container of the block's node to reach it", || reaches(lab, "front"));
        lab.wait("a container of another node to reach it", || reaches(lab, "far"));
        drop(stop);
    });
    // It is nobody's here, as long as it is lent.
    let refused = attach(node, "second", &[lent.into()]).unwrap_err();
    assert!(
        refused.contains(&format!("address {lent} of this node's blocks is in use elsewhere")),
        "{refused}"
    );
    // The same neighbour says to have a container's address, and is believed as much: the container wins.
    let front = lab.app("front");
    lab.wait("the used address to be heard and lose", || {
        let paths = node.paths(&format!("{}/32", front.container));
        let is = |neighbour: &str, what: &str| {
            paths.iter().any(|(from, verdict, _)| from == neighbour && verdict == what)
        };
        (!is("local", "best") || !is("172.31.1.254", "worse")).then(|| format!("{paths:?}"))
    });
    let routes = node.routes(&format!("exact {}", front.container));
    assert!(routes.lines().count() == 1 && routes.contains("dev ist"), "{routes}");
    lab.tell("policy allow back front tcp:8080 --name back-front");
    fetch(lab, lab.app("back"), front);
    bird.says("disable lends");
    lab.wait("the lent address to be given back", || {
        let routes = node.routes(&format!("exact {lent} proto 99"));
        (!routes.is_empty()).then_some(routes)
    });
    lab.router.ip(&format!("address delete {lent}/32 dev lo")).unwrap();
}

pub(crate) fn single_containers_are_announced_if_asked(lab: &Lab, bird: &Router) {
    let front = lab.app("front");
    let hears = |announced: bool| {
        lab.wait(&format!("BIRD to hear of single containers: {announced}"), || {
            let told = bird.says(&format!("show route protocol {}", session("red-1")));
            let is_so = told.contains(&format!("{}/32", front.container)) == announced
                && told.contains(&front.block().to_string());
            (!is_so).then_some(told)
        });
    };
    hears(false);
    lab.tell("cluster set red --announce-endpoints yes");
    hears(true);
    lab.tell("cluster set red --announce-endpoints no");
    hears(false);
}
