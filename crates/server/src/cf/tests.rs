//! Parts of the CF API that need no server.

use super::*;
use proptest::prelude::*;
use std::time::Duration;

#[test]
fn durations_print_as_gos_do() {
    for (nanos, expected) in [
        (0, "0s"),
        (7, "7ns"),
        (1_500, "1.5µs"),
        (12_500_000, "12.5ms"),
        (2_019_281_517, "2.019281517s"),
        (60_000_000_000, "1m0s"),
        (3_723_500_000_000, "1h2m3.5s"),
    ] {
        assert_eq!(go_duration(Duration::from_nanos(nanos)), expected);
    }
}

#[test]
fn escapes_are_undone_and_nonsense_stays() {
    for (text, expected) in [("a%2Cb", "a,b"), ("a+b", "a b"), ("%", "%"), ("%2", "%2"), ("%zz%41", "%zzA")] {
        assert_eq!(unescape(text), expected);
    }
}

#[test]
fn paths_are_exact() {
    assert_eq!(known_path("/networking/v1/external/policies"), Some(Path::Policies("v1")));
    assert_eq!(known_path("/networking/v9/external/policies/delete"), Some(Path::Delete("v9")));
    for path in ["", "/networking/", "/networking/v1/external/tags", "/networking/v1/external/policies/"] {
        assert_eq!(known_path(path), None, "{path}");
    }
}

proptest! {
    #[test]
    fn no_body_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = body::policies(Version::V1, &bytes);
    }

    #[test]
    fn what_is_listed_can_be_created_again(
        source in "[a-zA-Z0-9\"\\\\ é-]{1,12}",
        destination in "[a-zA-Z0-9-]{1,12}",
        start in 1..=65_535_i64,
        length in 0..100_i64,
    ) {
        let end = (start + length).min(65_535);
        let policy = CfPolicy { source, destination, protocol: "udp".to_owned(), start, end };
        let listed = body::list(Version::V1, &BTreeSet::from([policy.clone()]));
        prop_assert_eq!(body::policies(Version::V1, listed.as_bytes()), Ok(BTreeSet::from([policy])));
    }

    #[test]
    fn a_filter_never_panics(query in ".{0,40}") {
        let _ = Filter::read(&query);
    }
}
