//! Paths with a set of ASes, which RFC 9774 has withdrawn.

use crate::rig::{FIRST_HOST, Raw, Speaker, accepted, announce, announce_path};

#[tokio::test(flavor = "multi_thread")]
async fn a_route_with_a_set_is_taken_unless_it_shall_be_refused() {
    let refuse = "[neighbors.as-path-options.config]\nrefuse-as-sets = true\n";
    for (net, rest, of_both) in [(69, "", 2), (70, refuse, 1)] {
        let speaker = Speaker::start(net, rest).await;
        let mut bad = Raw::open(net, 2).await;
        bad.say(&announce(net, std::iter::once(FIRST_HOST))).await;
        speaker.wait("it is there without a set", 2, |peer| accepted(peer) == 1).await;
        let set = [1, 2, 0, 0, 0, 7, 0, 0, 0, 8];
        bad.say(&announce_path(net, 2, std::iter::once(FIRST_HOST), &set, &[])).await;
        bad.say(&announce(net, std::iter::once(FIRST_HOST + 1))).await;
        let peer = speaker.wait("both are judged", 2, |peer| peer.status.received.update == 3).await;
        speaker.wait("each as it shall be", 2, |peer| accepted(peer) == of_both).await;
        assert_eq!(peer.status.flaps, 0);
        drop(bad);
        speaker.stop().await;
    }
}
