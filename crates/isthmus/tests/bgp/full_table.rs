//! A kernel that has no memory for more routes: what sets our routes is in a memory group with a limit, so that the kernel
//! refuses its routes, one by one.
//!
//! In version 1 of control groups that is the one thread that does it, and nothing else. Version 2 counts memory by
//! processes, so there it is the whole speaker, and its limit follows what it has, a little ahead: many routes at once meet
//! it, and what the speaker needs beside them comes with the next step.

use super::{BIRD, ours};
use crate::rig::{Daemon, Rig};
use isthmus_testbed::leftovers;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::Duration,
};

/// More than there is room for in [`LITTLE`].
const ROUTES: usize = 3_000;
/// Bytes for some hundred routes.
const LITTLE: u64 = 128 << 10;
/// What the limit of version 2 is ahead.
const AHEAD: u64 = 64 << 10;
/// How often it follows. The speaker waits at least as long, and longer each time, before it tries again what was refused.
const STEP: Duration = Duration::from_secs(1);
/// Where each version may be.
const ONE: &str = "/sys/fs/cgroup/memory";
const TWO: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// A memory group with a limit.
struct Scarce {
    group: PathBuf,
    is_version_1: bool,
    /// The limit of version 2 follows while this is there.
    following: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Scarce {
    /// Fails where this kernel has no memory controller that we may use.
    fn new() -> Self {
        let has_memory = |root: &&Path| {
            let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
            controllers.split_whitespace().any(|name| name == "memory")
        };
        let is_version_1 = Path::new(ONE).join("memory.limit_in_bytes").exists();
        let two = TWO.iter().map(Path::new).find(has_memory);
        let root = if is_version_1 { Some(Path::new(ONE)) } else { two };
        let root = root.unwrap_or_else(|| {
            panic!("needs the memory controller of control groups: version 1 at {ONE}, or version 2 at one of {TWO:?}")
        });
        if !is_version_1 {
            let control = root.join("cgroup.subtree_control");
            let enabled = fs::write(&control, "+memory");
            enabled.unwrap_or_else(|why| {
                panic!("groups may have no limit: +memory to {}: {why}", control.display())
            });
        }
        let group = root.join(format!("isthmus-test-{}", std::process::id()));
        leftovers::at_end(&format!("rmdir {}", group.display())).unwrap();
        fs::create_dir(&group).unwrap();
        Self { group, is_version_1, following: None }
    }

    fn set(&self, name: &str, value: &str) {
        fs::write(self.group.join(name), value).unwrap();
    }

    /// Takes what sets routes. Who gets no memory is refused it, and not killed.
    fn take(&self, daemon: &Daemon) {
        let id = daemon.id();
        if self.is_version_1 {
            self.set("memory.oom_control", "1");
            let tasks = fs::read_dir(format!("/proc/{id}/task")).unwrap();
            let is_it =
                |task: &PathBuf| fs::read_to_string(task.join("comm")).unwrap().trim() == "kernel-routes";
            let task = tasks.map(|task| task.unwrap().path()).find(is_it).unwrap();
            self.set("tasks", task.file_name().unwrap().to_str().unwrap());
        } else {
            fs::write(format!("/proc/{id}/oom_score_adj"), "-1000").unwrap();
            self.set("cgroup.procs", &id.to_string());
        }
    }

    fn limit(&mut self) {
        if self.is_version_1 {
            return self.set("memory.limit_in_bytes", &LITTLE.to_string());
        }
        let group = self.group.clone();
        let follow = move || {
            let has: u64 = fs::read_to_string(group.join("memory.current")).unwrap().trim().parse().unwrap();
            fs::write(group.join("memory.max"), (has + AHEAD).to_string()).unwrap();
        };
        follow();
        let (following, ended) = channel::<()>();
        let follower = thread::spawn(move || {
            while ended.recv_timeout(STEP) == Err(RecvTimeoutError::Timeout) {
                follow();
            }
        });
        self.following = Some((following, follower));
    }

    fn lift_limit(&mut self) {
        self.stay();
        let (name, none) =
            if self.is_version_1 { ("memory.limit_in_bytes", "-1") } else { ("memory.max", "max") };
        self.set(name, none);
    }

    /// The limit follows no longer.
    fn stay(&mut self) {
        if let Some((following, follower)) = self.following.take() {
            drop(following);
            let _ = follower.join();
        }
    }
}

impl Drop for Scarce {
    fn drop(&mut self) {
        self.stay();
        let _ = fs::remove_dir(&self.group);
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
    let mut scarce = Scarce::new();
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
    scarce.limit();
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
    scarce.lift_limit();
    bird.control("enable four");
    rig.wait_ours("with room all come", routes, |text| count(text) == ROUTES);
    rig.wait_ours("and nothing is told any longer", summary, |text| !text.contains("not in the kernel"));
    let why = rig.isthmus(&format!("bgp why {missing}"));
    assert!(why.contains(&format!("{missing} is in the kernel")), "{why}");
    drop(daemon);
    rig.finish();
}
