//! A kernel that has no memory for more routes. Only the thread that sets our routes is in a memory group with a limit, so that
//! the kernel refuses its routes, one by one, and nothing else.
//!
//! That a thread has a group of its own is only so in version 1 of control groups.

use super::{BIRD, ours};
use crate::rig::{Daemon, Rig};
use isthmus_testbed::leftovers;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// More than there is room for in [`LITTLE`].
const ROUTES: usize = 3_000;
/// Bytes for some hundred routes.
const LITTLE: &str = "131072";
const CONTROL: &str = "/sys/fs/cgroup/memory";

/// A memory group for one thread.
struct Scarce(PathBuf);

impl Scarce {
    /// `None` where this kernel has no such thing.
    fn new() -> Option<Self> {
        if !Path::new(CONTROL).join("memory.limit_in_bytes").exists() {
            eprintln!("skipped: needs the memory controller of control groups, version 1, at {CONTROL}");
            return None;
        }
        let directory = Path::new(CONTROL).join(format!("isthmus-test-{}", std::process::id()));
        leftovers::at_end(&format!("rmdir {}", directory.display())).unwrap();
        fs::create_dir(&directory).unwrap();
        let scarce = Self(directory);
        // Who gets no memory is refused it, and not killed.
        scarce.set("memory.oom_control", "1");
        Some(scarce)
    }

    fn set(&self, name: &str, value: &str) {
        fs::write(self.0.join(name), value).unwrap();
    }

    /// Takes the thread that sets routes.
    fn take(&self, daemon: &Daemon) {
        let tasks = fs::read_dir(format!("/proc/{}/task", daemon.id())).unwrap();
        let is_it = |task: &PathBuf| fs::read_to_string(task.join("comm")).unwrap().trim() == "kernel-routes";
        let task = tasks.map(|task| task.unwrap().path()).find(is_it).unwrap();
        self.set("tasks", task.file_name().unwrap().to_str().unwrap());
    }
}

impl Drop for Scarce {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// BIRD with many routes, half of them IPv6.
fn bird() -> String {
    let routes = |of: fn(usize) -> String| {
        (0..ROUTES / 2)
            .map(of)
            .map(|prefix| format!("  route {prefix} blackhole;\n"))
            .collect::<Vec<_>>()
            .concat()
    };
    let four = routes(|n| format!("10.{}.{}.0/24", 128 + n / 256, n % 256));
    let six = routes(|n| format!("2001:db8:{n:x}::/48"));
    let session = |name: &str, kind: &str, local: &str, remote: &str| {
        format!(
            "protocol bgp {name} {{\n  local {local} as 65002;\n  neighbor {remote} as 64511;\n  \
             connect delay time 1; connect retry time 1;\n  {kind} {{ import none; export all; next hop self; }};\n}}\n"
        )
    };
    format!(
        "{BIRD}protocol static four {{\n  ipv4;\n{four}}}\nprotocol static six {{\n  ipv6;\n{six}}}\n{}{}",
        session("ours4", "ipv4", "10.99.0.2", "10.99.0.1"),
        session("ours6", "ipv6", "fd99::2", "fd99::1"),
    )
}

#[test]
fn a_full_kernel_table_is_told_and_filled_when_there_is_room() {
    let Some(rig) = Rig::open("ft") else { return };
    let Some(scarce) = Scarce::new() else { return };
    let six = "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"fd99::2\"\npeer-as = 65002\n";
    let daemon = Daemon::isthmus_with(&rig, &["--kernel-table", "main"], &(ours("peer-as = 65002\n") + six));
    let bird = Daemon::bird(&rig, &bird());
    let routes = || rig.ip("-o -4 route show proto 99") + &rig.ip("-o -6 route show proto 99");
    let count = |text: &str| text.lines().count();
    // Once with room, so that the thread has all the memory of its own that it needs.
    rig.wait_ours("all routes come", routes, |text| count(text) == ROUTES);
    for table in ["four", "six"] {
        bird.control(&format!("disable {table}"));
    }
    rig.wait_ours("all routes go", routes, str::is_empty);
    scarce.take(&daemon);
    scarce.set("memory.limit_in_bytes", LITTLE);
    for table in ["four", "six"] {
        bird.control(&format!("enable {table}"));
    }
    let summary = || rig.isthmus("bgp summary");
    rig.wait_ours("it is told who asks", summary, |text| {
        text.contains("route(s) are not in the kernel") && text.contains("no room for more routes")
    });
    rig.wait_ours("it is logged", || rig.log(), |log| log.contains("the kernel has no room for more routes"));
    // What was taken is whole, and the sessions and their routes are as they were.
    let some = routes();
    assert!(count(&some) < ROUTES, "{some}");
    let is_whole = |line: &str| {
        let via = if line.contains("2001:db8:") { "via fd99::2 dev eth0" } else { "via 10.99.0.2 dev eth0" };
        line.contains(via) && line.contains("metric 20")
    };
    assert!(some.lines().all(is_whole), "{some}");
    let text = summary();
    assert_eq!(text.matches("1500/1500/").count(), 2, "{text}");
    let missing = text.split("for example ").nth(1).unwrap().split(": ").next().unwrap().to_owned();
    let why = rig.isthmus(&format!("bgp why {missing}"));
    assert!(why.contains(&format!("{missing} is not in the kernel: the kernel has no room")), "{why}");
    // Others' routes are still set, and ours still go.
    rig.ip("route add 10.3.0.0/24 via 10.99.0.3 proto static");
    assert!(rig.ip("route show proto static").contains("10.3.0.0/24"));
    bird.control("disable four");
    rig.wait_ours("those that go leave", || rig.ip("-o -4 route show proto 99"), str::is_empty);
    scarce.set("memory.limit_in_bytes", "-1");
    bird.control("enable four");
    rig.wait_ours("with room all come", routes, |text| count(text) == ROUTES);
    rig.wait_ours("and nothing is told any longer", summary, |text| !text.contains("not in the kernel"));
    let why = rig.isthmus(&format!("bgp why {missing}"));
    assert!(why.contains(&format!("{missing} is in the kernel")), "{why}");
    drop(daemon);
    rig.finish();
}
