//! The demo as a person runs it, and what is left of it when everything was killed.
//!
//! Needs root and the static programs (`make build`).

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use isthmus_testbed::{
    command::Call,
    demo::{CGROUP, HOST_LINK, PREFIX, RUN},
    namespace,
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Longest time of one demo command.
const LIMIT: Duration = Duration::from_mins(3);

/// The static program, or a printed reason why the test cannot run. In CI a reason is a failure.
fn isthmus() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/x86_64-unknown-linux-musl");
    let whole = |path: &PathBuf| path.exists() && path.with_file_name("isthmus-cni").exists();
    let built =
        ["release", "debug"].map(|profile| target.join(profile).join("isthmus")).into_iter().filter(whole);
    let newest = built.max_by_key(|path| fs::metadata(path).and_then(|file| file.modified()).ok());
    let reason = match std::env::var_os("ISTHMUS_STATIC").map(PathBuf::from).or(newest) {
        _ if !rustix::process::geteuid().is_root() => "not root",
        Some(path) => return Some(path),
        None => "no static programs: make build",
    };
    assert!(std::env::var_os("CI").is_none(), "skipped in CI: {reason}");
    eprintln!("skipped: {reason}");
    None
}

/// Takes the demo away whatever happens to the test.
struct Demo(PathBuf);

impl Demo {
    fn run(&self, words: &str) -> (i32, String) {
        let output = Call::new(&self.0).arg("demo").words(words).timeout(LIMIT).output().unwrap();
        (output.status.code().unwrap_or(-1), output.stdout + &output.stderr)
    }

    fn must(&self, words: &str) {
        let (code, text) = self.run(words);
        assert_eq!(code, 0, "demo {words}:\n{text}");
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.run("down");
    }
}

/// Everything on the host that has the demo's names.
fn leftovers() -> Vec<String> {
    let mut left: Vec<String> =
        namespace::with_prefix(PREFIX).iter().map(|space| space.name().to_owned()).collect();
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    left.extend(text("/proc/self/mountinfo").lines().filter(|line| line.contains(RUN)).map(str::to_owned));
    left.extend(
        [RUN.to_owned(), format!("/sys/class/net/{HOST_LINK}")]
            .into_iter()
            .filter(|path| Path::new(path).exists()),
    );
    let hierarchies =
        fs::read_dir("/sys/fs/cgroup").into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    left.extend(
        hierarchies
            .map(|path| path.join(CGROUP))
            .filter(|path| path.exists())
            .map(|path| path.display().to_string()),
    );
    for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default().replace('\0', " ");
        left.extend(line.contains(&format!("{RUN}/")).then_some(line));
    }
    left
}

#[test]
fn the_demo_comes_tells_its_story_and_goes_whatever_is_killed() {
    let Some(isthmus) = isthmus() else { return };
    let demo = Demo(isthmus);
    demo.must("down");
    assert_eq!(leftovers(), Vec::<String>::new());
    demo.must("up --small");
    let (code, again) = demo.run("up");
    assert!(code == 0 && again.contains("up already"), "{again}");
    demo.must("status");
    demo.must("tour --check");
    demo.must("shell ledger -- true");

    // Everything dies at once: agents, server, containerd, tasks.
    let state: Value = serde_json::from_slice(&fs::read(Path::new(RUN).join("state.json")).unwrap()).unwrap();
    let processes = state["made"]["processes"].as_array().unwrap();
    assert!(processes.len() > 4, "{processes:?}");
    for process in processes {
        Call::new("kill").args(["-KILL", &process["pid"].to_string()]).run().unwrap();
    }
    let (code, text) = demo.run("status");
    assert_eq!(code, 1, "{text}");
    demo.must("down");
    assert_eq!(leftovers(), Vec::<String>::new());
}
