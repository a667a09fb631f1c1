//! The container's network namespace, opened.

use crate::error::{CniError, Code};
use rustix::fs::{Mode, OFlags, fstat, fstatfs, open};
use std::os::fd::OwnedFd;

/// File system of namespaces (`NSFS_MAGIC`, linux/magic.h).
const NSFS_MAGIC: u64 = 0x6e73_6673;
/// The namespace that this process is in.
const OWN: &str = "/proc/self/ns/net";

/// Opens the network namespace at `path`. The descriptor keeps it alive and means the same thing in every mount
/// namespace, the path does not.
///
/// # Errors
///
/// The path cannot be opened, is no namespace, or is the plugin's own namespace without `may_be_own`: whoever passes the
/// host's namespace by mistake would have the host's interfaces changed.
pub fn open_netns(path: &str, may_be_own: bool) -> Result<OwnedFd, CniError> {
    let wrong = |why: String| {
        let message = format!("the network namespace {path} (CNI_NETNS) cannot be used: {why}");
        CniError::new(Code::Netns, message, "pass the path of the container's network namespace")
    };
    let system = |why: rustix::io::Errno| wrong(std::io::Error::from(why).to_string());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let netns = open(path, flags, Mode::empty()).map_err(system)?;
    let file_system = fstatfs(&netns).map_err(system)?.f_type as u64;
    if file_system != NSFS_MAGIC {
        return Err(wrong("it is no namespace".to_owned()));
    }
    if !may_be_own {
        let own = open(OWN, flags, Mode::empty()).and_then(fstat).map_err(system)?;
        let given = fstat(&netns).map_err(system)?;
        if (own.st_dev, own.st_ino) == (given.st_dev, given.st_ino) {
            return Err(wrong("it is the plugin's own, that of the host".to_owned()));
        }
    }
    Ok(netns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_namespace_of_a_container_is_refused() {
        for (path, word) in [("/nonexistent/ns", "No such file"), ("/dev/null", "no namespace"), (OWN, "own")]
        {
            let error = open_netns(path, false).unwrap_err();
            assert_eq!(error.code, Code::Netns);
            assert!(error.message.contains(word), "{}", error.message);
        }
        assert!(open_netns(OWN, true).is_ok());
    }
}
