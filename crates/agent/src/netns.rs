//! Network namespaces by their inode number: which one a descriptor is, and which are still used by somebody.
//!
//! The agent never keeps a descriptor of a container's namespace, because that would keep the namespace alive.

use rustix::fs::fstat;
use std::{collections::BTreeSet, fs, io, os::fd::AsFd, os::unix::fs::MetadataExt};

/// Inode number of the namespace that a descriptor stands for.
pub(crate) fn inode(descriptor: impl AsFd) -> io::Result<u64> {
    Ok(fstat(descriptor)?.st_ino)
}

/// Inode numbers of the namespaces that a process lives in, or that are mounted where this process or the first one sees
/// it. A namespace that only an open descriptor holds is not found; nobody can enter it by name.
pub(crate) fn live() -> io::Result<BTreeSet<u64>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(entry) = entry else { continue };
        if entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit) {
            // A process may end while we look at it.
            found.extend(fs::metadata(entry.path().join("ns/net")).map(|metadata| metadata.ino()));
        }
    }
    for mounts in ["/proc/self/mountinfo", "/proc/1/mountinfo"] {
        found.extend(fs::read_to_string(mounts).unwrap_or_default().lines().filter_map(mounted));
    }
    Ok(found)
}

/// The inode of a line of mountinfo (`proc_pid_mountinfo(5)`): field 4 is the root, `net:[NUMBER]` for a namespace.
fn mounted(line: &str) -> Option<u64> {
    line.split(' ').nth(3)?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_of_this_process_is_alive() {
        let own = inode(fs::File::open("/proc/self/ns/net").unwrap()).unwrap();
        assert!(live().unwrap().contains(&own));
    }

    #[test]
    fn a_mounted_namespace_is_read_from_mountinfo() {
        let line = "37 22 0:4 net:[4026532241] /run/netns/x rw - nsfs nsfs rw";
        assert_eq!(mounted(line), Some(4_026_532_241));
        assert_eq!(mounted("22 1 8:1 / / rw - ext4 /dev/sda1 rw"), None);
    }
}
