//! BGP and packets without encapsulation as a whole: a server, five agents, a router outside, real packets.
//!
//! One story on one lab, because most of the time goes into its start. Needs root, iproute2, tcpdump and bird2.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod borrowed;
mod encapsulation;
mod lab;
mod outside;
mod packets;
mod policy;
mod restart;
mod topology;

use lab::Lab;
use outside::Router;

/// Does a chapter, and prints what it took.
macro_rules! chapter {
    ($work:expr) => {{
        let begun = std::time::Instant::now();
        let told = $work;
        println!("{:5.1} s {}", begun.elapsed().as_secs_f32(), stringify!($work));
        told
    }};
}

#[test]
fn two_clusters_with_bgp_and_native_packets_do_what_the_book_says() {
    let Some(mut lab) = chapter!(Lab::open()) else { return };
    chapter!(encapsulation::within_a_subnet_packets_are_plain_and_across_they_are_not(&lab));
    let bird = chapter!(Router::start(&mut lab));
    chapter!(outside::a_neighbour_is_of_the_nodes_that_its_labels_pick(&lab));
    chapter!(outside::a_router_outside_is_believed_what_is_listed_and_nothing_else(&lab, &bird));
    chapter!(encapsulation::without_encapsulation_all_packets_are_plain(&lab, &bird));
    chapter!(policy::rules_decide_by_the_identity_of_the_source(&lab));
    chapter!(policy::who_comes_from_another_network_is_that_network(&lab));
    chapter!(policy::nobody_sends_as_another(&lab));
    chapter!(policy::a_revoked_rule_stops_its_connection(&lab));
    chapter!(topology::two_reflectors_carry_the_routes_of_all_ases(&lab));
    chapter!(restart::a_killed_agent_loses_no_packet_and_no_route(&mut lab, &bird));
    chapter!(borrowed::a_borrowed_address_is_reached_and_a_used_one_stays(&lab, &bird));
    chapter!(borrowed::single_containers_are_announced_if_asked(&lab, &bird));
}
