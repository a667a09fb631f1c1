//! Removes what the agent and the dataplane put on a host: `isthmus node cleanup`.

use crate::{
    config::Config,
    host::{Lock, LockError},
};
use std::{fs, io, path::Path};

/// Files of the agent, beside its directories.
const RUN_FILES: [&str; 6] =
    ["agent.sock", "adapter.sock", crate::bgp::SOCKET, "bgp.new", "agent.pid", "rcu_expedited"];
const DATA_FILES: [&str; 4] = ["addresses", "addresses.new", "view", "view.new"];

/// What was removed, and what could not be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Removed, by name.
    pub removed: Vec<String>,
    /// Not removed, and why.
    pub failed: Vec<String>,
}

/// Removes everything that Isthmus put on this host; goes on past what fails. Containers lose their network.
///
/// # Errors
///
/// [`LockError`]: an agent runs; nothing was removed.
pub fn cleanup(config: &Config) -> Result<Report, LockError> {
    let lock_path = config.run_dir.join("agent.pid");
    let _lock = if config.run_dir.exists() { Some(Lock::take(&lock_path)?) } else { None };
    crate::kernel::settle(&config.run_dir);
    let dataplane = isthmus_dataplane::cleanup(&config.bpffs, &config.node);
    let mut report = Report { removed: dataplane.removed, failed: dataplane.failed };
    match isthmus_speaker::remove_kernel_routes(&isthmus_speaker::KernelRoutes::default()) {
        Ok(0) => {}
        Ok(routes) => report.removed.push(format!("{routes} routes of protocol 99")),
        Err(error) => report.failed.push(format!("routes of protocol 99: {error}")),
    }
    report.remove_files(&config.data_dir, &DATA_FILES);
    report.remove_files(&config.run_dir, &RUN_FILES);
    Ok(report)
}

impl Report {
    fn remove_files(&mut self, directory: &Path, files: &[&str]) {
        for file in files {
            let path = directory.join(file);
            self.note(&path, fs::remove_file(&path));
        }
        // Others may keep files there.
        drop(fs::remove_dir(directory));
    }

    fn note(&mut self, path: &Path, removed: io::Result<()>) {
        match removed {
            Ok(()) => self.removed.push(path.display().to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.failed.push(format!("{}: {error}", path.display())),
        }
    }
}
