//! What every test of a platform stands on: a node, the static programs, and the removal of all that was made.

use isthmus_testbed::{app::HTTP_PORT, namespace::Namespace, state::Made, wait};
use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// Longest time that something may take that is about to happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// What is missing for a test to run. In CI that is a failure, else it is printed.
pub(crate) fn skipped<T>(reason: &str) -> Option<T> {
    assert!(std::env::var_os("CI").is_none(), "skipped in CI: {reason}");
    eprintln!("skipped: {reason}");
    None
}

/// The newest static binary that `fits`; without one, `missing` says why the test cannot run.
pub(crate) fn binary(missing: &str, fits: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/x86_64-unknown-linux-musl");
    let candidates =
        ["release/isthmus", "debug/isthmus", "debug/examples/testbed"].map(|path| target.join(path));
    let built = candidates.into_iter().filter(|path| path.exists() && fits(path));
    let newest = built.max_by_key(|path| fs::metadata(path).and_then(|file| file.modified()).ok());
    if !rustix::process::geteuid().is_root() {
        return skipped("not root");
    }
    std::env::var_os("ISTHMUS_STATIC").map(PathBuf::from).or(newest).or_else(|| skipped(missing))
}

/// A node with everything below one directory, removed at the end whatever happens.
pub(crate) struct Bed {
    directory: tempfile::TempDir,
    pub(crate) node: Namespace,
    pub(crate) made: Made,
}

impl Bed {
    pub(crate) fn new(name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let node = Namespace::named(format!("ist-{name}"));
        let cgroups = vec![format!("isthmus-test-{name}")];
        let made = Made { namespaces: vec![node.clone()], cgroups, ..Made::default() };
        // What an earlier run that was killed has left.
        made.remove();
        node.create().unwrap();
        Self { directory, node, made }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    pub(crate) fn cgroup(&self) -> &str {
        &self.made.cgroups[0]
    }

    /// The node reaches its container.
    pub(crate) fn assert_answers(&self, address: IpAddr, app: &str) {
        assert_answers(&self.node, &format!("http://{address}:{HTTP_PORT}/"), app);
    }
}

/// Whoever is in `from` reaches the app.
pub(crate) fn assert_answers(from: &Namespace, url: &str, app: &str) {
    let get = from.call("curl").args(["-sf", "--max-time", "2", url]);
    let text = wait::until("an answer", LIMIT, || get.run().map(Some)).unwrap();
    assert!(text.contains(&format!("\"app\":\"{app}\"")), "{text}");
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.made.directories.push(self.directory.path().to_owned());
        let left = self.made.remove();
        if !std::thread::panicking() {
            assert!(left.is_empty(), "{left:?}");
        }
    }
}
