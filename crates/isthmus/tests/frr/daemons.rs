//! FRR's daemons: where they have their files, and how they are started and asked. For all suites with FRR in them, each of
//! which runs processes in its own way.

use std::{fs, path::Path, process::Command};

/// Where Debian keeps the daemons.
const PROGRAMS: &str = "/usr/lib/frr";

/// Daemons that know each other by the sockets in one directory.
pub(crate) struct FrrDaemons {
    directory: String,
}

impl FrrDaemons {
    /// Those with this directory.
    pub(crate) fn at(directory: &Path) -> Self {
        Self { directory: directory.to_str().unwrap().to_owned() }
    }

    /// Makes the directory, and gives it to the user that they run as.
    pub(crate) fn make_directory(&self) {
        fs::create_dir(&self.directory).unwrap();
        let status = Command::new("chown").args(["frr:frr", &self.directory]).status().unwrap();
        assert!(status.success(), "chown frr:frr {}", self.directory);
    }

    /// The program of `zebra`, `bgpd` or `bfdd`.
    pub(crate) fn program(name: &str) -> String {
        format!("{PROGRAMS}/{name}")
    }

    /// Its arguments, all but the last: that is the file with its configuration. It stays in the foreground, and logs to
    /// standard output.
    pub(crate) fn arguments(&self, name: &str) -> Vec<String> {
        let file = |name: &str| format!("{}/{name}", self.directory);
        let (pid, zebra, bfd) = (file(&format!("{name}.pid")), self.zebra(), file("bfdd.sock"));
        let mut words = vec!["-u", "frr", "-g", "frr", "-A", "127.0.0.1", "-P", "0", "--log", "stdout"];
        words.extend(["--vty_socket", &self.directory, "-z", &zebra, "-i", &pid]);
        if name == "bfdd" {
            words.extend(["--bfdctl", &bfd]);
        }
        words.push("-f");
        words.into_iter().map(str::to_owned).collect()
    }

    /// The socket that is there as soon as zebra listens; before, others are not started.
    pub(crate) fn zebra(&self) -> String {
        format!("{}/zserv.api", self.directory)
    }

    /// Arguments of `vtysh`: bgpd does all of these commands.
    pub(crate) fn asked<'a>(&'a self, lines: &[&'a str]) -> Vec<&'a str> {
        let mut words = vec!["--vty_socket", &self.directory, "-d", "bgpd"];
        words.extend(lines.iter().flat_map(|line| ["-c", line]));
        words
    }
}
