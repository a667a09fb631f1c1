//! What was put on the host, in a file, so that it can be taken away again even after a crash.
//!
//! A thing is recorded before it is made; taking away something that was never made succeeds.

use crate::{
    command::{Call, CommandError},
    namespace::Namespace,
    process::{DaemonError, Process},
    wait,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// Everything on the host that belongs to one testbed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Background processes, in the order of their start.
    pub processes: Vec<Process>,
    /// Mount points.
    pub mounts: Vec<PathBuf>,
    /// Network namespaces.
    pub namespaces: Vec<Namespace>,
    /// Interfaces in the host's own namespace.
    pub links: Vec<String>,
    /// Directories, with all that is in them.
    pub directories: Vec<PathBuf>,
    /// Groups of processes, named from the root of each cgroup hierarchy.
    pub cgroups: Vec<String>,
}

/// Why something could not be recorded.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file could not be read or written.
    #[error("cannot use the state file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("the state file {path} cannot be understood ({source}): if nothing of the demo runs, delete it")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// What could not be taken away; the rest was.
#[derive(Debug, thiserror::Error)]
pub enum LeftOver {
    /// A process.
    #[error(transparent)]
    Process(#[from] DaemonError),
    /// An interface or a namespace.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A file or directory.
    #[error("cannot remove {path}: {source}")]
    File {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A cgroup in which something still lives.
    #[error("cannot empty the cgroup {path}: {source}")]
    Cgroup {
        /// Its path.
        path: PathBuf,
        /// How long was waited.
        source: wait::Expired,
    },
}

/// Reads `path`; `None` if there is no such file.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StateError::File { path: path.to_owned(), source }),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| StateError::Content { path: path.to_owned(), source })
}

/// Writes `path` whole: a crash leaves the old or the new one.
pub fn save<T: Serialize>(path: &Path, value: &T) -> Result<(), StateError> {
    let json = serde_json::to_vec_pretty(value)
        .map_err(|source| StateError::Content { path: path.to_owned(), source })?;
    let fresh = path.with_extension("new");
    fs::write(&fresh, json)
        .and_then(|()| fs::rename(&fresh, path))
        .map_err(|source| StateError::File { path: path.to_owned(), source })
}

impl Made {
    /// All processes that belong to it now: those it started, and those in its namespaces and cgroups.
    pub fn members(&self) -> Vec<u32> {
        let started = self.processes.iter().filter(|process| process.lives()).map(|process| process.pid);
        let inside = self.namespaces.iter().filter(|space| space.exists()).flat_map(Namespace::processes);
        let grouped =
            self.cgroups.iter().flat_map(|group| cgroup_directories(group)).flat_map(|path| members(&path));
        let mut all: Vec<_> = started.chain(inside).chain(grouped).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Takes everything away that is still there, in the reverse order of need, and goes on past errors.
    pub fn remove(&self) -> Vec<LeftOver> {
        let mut left: Vec<LeftOver> = Vec::new();
        for process in self.processes.iter().rev() {
            left.extend(process.stop().err().map(LeftOver::from));
        }
        for group in &self.cgroups {
            left.extend(remove_cgroup(group));
        }
        for mount in self.mounts.iter().rev() {
            left.extend(unmount(mount).err());
        }
        for namespace in &self.namespaces {
            left.extend(end_processes(namespace).into_iter().map(LeftOver::from));
            left.extend(namespace.delete().err().map(LeftOver::from));
        }
        for link in &self.links {
            if Path::new("/sys/class/net").join(link).exists() {
                left.extend(Call::new("ip").args(["link", "delete", link]).run().err().map(LeftOver::from));
            }
        }
        for directory in &self.directories {
            left.extend(remove_tree(directory).err());
        }
        left
    }
}

/// Ends what still runs in a namespace that is ours.
fn end_processes(namespace: &Namespace) -> Vec<DaemonError> {
    if !namespace.exists() {
        return Vec::new();
    }
    let log = Path::new("/dev/null");
    let adopt = |pid| Process::adopt(&format!("a process in {}", namespace.name()), pid, log);
    namespace.processes().into_iter().filter_map(adopt).filter_map(|process| process.kill().err()).collect()
}

/// Unmounts all that is mounted at `path`.
fn unmount(path: &Path) -> Result<(), LeftOver> {
    while is_mounted(path) {
        rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH)
            .map_err(|source| LeftOver::File { path: path.to_owned(), source: source.into() })?;
    }
    Ok(())
}

/// Whether something is mounted exactly at `path`.
pub fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(4).is_some_and(|point| Path::new(point) == path))
}

/// Mount points below `path`, deepest first.
fn mounts_below(path: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4).map(PathBuf::from));
    let mut below: Vec<_> = points.filter(|point| point.starts_with(path)).collect();
    below.sort();
    below.reverse();
    below
}

fn remove_tree(path: &Path) -> Result<(), LeftOver> {
    for mount in mounts_below(path) {
        unmount(&mount)?;
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome.map_err(|source| LeftOver::File { path: path.to_owned(), source }),
    }
}

/// The directories that stand for `group` in all mounted cgroup hierarchies.
fn cgroup_directories(group: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let roots = mounts.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right.starts_with("cgroup").then(|| left.split(' ').nth(4))?
    });
    roots.map(|root| Path::new(root).join(group)).filter(|path| path.is_dir()).collect()
}

fn remove_cgroup(group: &str) -> Vec<LeftOver> {
    let mut left = Vec::new();
    for directory in cgroup_directories(group) {
        let emptied = wait::until_true("its processes to end", Duration::from_secs(5), || {
            kill_members(&directory);
            remove_empty(&directory)
        });
        left.extend(emptied.err().map(|source| LeftOver::Cgroup { path: directory.clone(), source }));
    }
    left
}

/// Process ids in a cgroup and in those below it.
fn members(directory: &Path) -> Vec<u32> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    let own = text.lines().filter_map(|line| line.parse().ok());
    own.chain(children(directory).iter().flat_map(|child| members(child))).collect()
}

/// Waits until none of `pids` is left, not even as a zombie: an init that is slow to collect them makes the process
/// list look as if something still ran. A zombie that stays does no harm.
pub fn wait_until_collected(pids: &[u32], limit: Duration) {
    let gone = || pids.iter().all(|pid| !Path::new("/proc").join(pid.to_string()).exists());
    let _stays = wait::until_true("zombies to go", limit, gone);
}

fn kill_members(directory: &Path) {
    for pid in members(directory) {
        if let Some(process) = Process::adopt("a container's process", pid, Path::new("/dev/null")) {
            process.signal(rustix::process::Signal::KILL);
        }
    }
}

fn remove_empty(directory: &Path) -> bool {
    let children_gone = children(directory).iter().all(|child| remove_empty(child));
    children_gone && fs::remove_dir(directory).is_ok()
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        assert!(load::<Made>(&path).unwrap().is_none());
        let made = Made { links: vec!["isd-host".into()], ..Made::default() };
        save(&path, &made).unwrap();
        assert_eq!(load(&path).unwrap(), Some(made));
    }

    #[test]
    fn a_state_file_of_something_else_is_refused_with_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        fs::write(&path, "[]").unwrap();
        let error = load::<std::collections::BTreeMap<String, u8>>(&path).unwrap_err().to_string();
        assert!(error.contains("state.json"), "{error}");
    }

    #[test]
    fn removal_of_what_was_never_made_succeeds() {
        let made = Made {
            mounts: vec!["/nonexistent/bpf".into()],
            namespaces: vec![Namespace::named("isd-never-made")],
            links: vec!["isd-never".into()],
            directories: vec!["/nonexistent/isthmus".into()],
            cgroups: vec!["isthmus-never".into()],
            ..Made::default()
        };
        assert!(made.remove().is_empty());
    }

    #[test]
    fn removal_takes_directories_with_their_files() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("a");
        fs::create_dir_all(inner.join("b")).unwrap();
        fs::write(inner.join("b/c"), "x").unwrap();
        assert!(Made { directories: vec![inner.clone()], ..Made::default() }.remove().is_empty());
        assert!(!inner.exists());
    }
}
