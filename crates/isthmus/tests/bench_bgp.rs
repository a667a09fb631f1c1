//! The benchmark of BGP reflectors with a small load: what it finds of each daemon is right, and nothing stays behind.
//!
//! Needs root, iproute2, bird2, frr and gobgpd.
#![forbid(unsafe_code)]

use serde_json::Value;
use std::{path::Path, process::Command};

const NEEDS: &str = "test $(id -u) = 0 && command -v ip && PATH=$PATH:/usr/sbin:/sbin command -v bird && command -v gobgpd && test -x /usr/lib/frr/bgpd";

#[test]
fn every_reflector_passes_all_routes_on_as_they_were_sent() {
    if !Command::new("sh").args(["-ec", NEEDS]).output().unwrap().status.success() {
        assert!(std::env::var_os("CI").is_none(), "skipped in CI: needs root, ip, bird, frr and gobgpd");
        eprintln!("skipped: needs root, ip, bird, frr and gobgpd");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bgp.json");
    let run = Command::new(env!("CARGO_BIN_EXE_isthmus"))
        .args(["bench-bgp", "--cases", "smoke", "--rounds", "1", "--output"])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(0), "{said}");
    assert!(String::from_utf8_lossy(&run.stdout).contains("isthmus"), "{said}");
    let lines: Vec<Value> = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let daemons: Vec<_> = lines.iter().map(|line| line["daemon"].as_str().unwrap()).collect();
    assert_eq!(daemons, ["isthmus", "bird", "frr", "gobgp"], "{said}");
    for line in &lines {
        assert_eq!((&line["bad"], &line["lost"]), (&0.into(), &0.into()), "{line} {said}");
        for figure in ["wall_s", "cpu_s", "peak_rss_mib", "change_p50_ms", "late_join_s", "withdraw_s"] {
            assert!(line[figure].is_number(), "{figure} of {line} {said}");
        }
    }
    assert!(!Path::new("/run/isthmus-bench-bgp").exists());
    let left = std::fs::read_dir("/run/netns").unwrap();
    let left =
        left.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("isbb-"));
    assert_eq!(left.count(), 0);
}
