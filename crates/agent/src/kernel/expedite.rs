//! Short grace periods of the kernel's RCU while links, tables or ports change.
//!
//! Attaching to tcx waits for a grace period for each program while it holds the lock that all changes of links need:
//! 13 ms each on two cores, measured on Linux 6.18, so that no node could attach more than 40 containers a second; a
//! table in a map of maps waits for one, too. With
//! `/sys/kernel/rcu_expedited` at 1 it is 0.2 ms. The setting is the whole machine's and costs other processors an
//! interrupt for each grace period, so it is on only while somebody needs it; a marker in the run directory says that we
//! turned it on, so that an agent which was killed in between does not leave it so.

use crate::locks::lock;
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Mutex,
};

const SETTING: &str = "/sys/kernel/rcu_expedited";

/// Turns the setting on for as long as anybody holds a [`Hurry`].
#[derive(Debug)]
pub(super) struct Expedite {
    setting: PathBuf,
    marker: PathBuf,
    hurries: Mutex<u32>,
}

/// Somebody who needs short grace periods.
#[derive(Debug)]
pub(super) struct Hurry<'a>(&'a Expedite);

impl Expedite {
    /// Turns off what a killed agent left on.
    pub(super) fn new(run_dir: &Path) -> Self {
        Self::of(Path::new(SETTING), run_dir)
    }

    fn of(setting: &Path, run_dir: &Path) -> Self {
        let marker = run_dir.join("rcu_expedited");
        let expedite = Self { setting: setting.to_owned(), marker, hurries: Mutex::new(0) };
        if expedite.marker.exists() {
            expedite.turn_off();
        }
        expedite
    }

    /// Short grace periods until the answer is dropped. Where the setting cannot be written, they are as long as ever.
    pub(super) fn hurry(&self) -> Hurry<'_> {
        let mut hurries = lock(&self.hurries);
        if *hurries == 0
            && let Err(error) = self.turn_on()
        {
            tracing::debug!(%error, "grace periods stay as long as they are");
        }
        *hurries += 1;
        Hurry(self)
    }

    /// An administrator who turned it on himself is left alone.
    fn turn_on(&self) -> io::Result<()> {
        if fs::read_to_string(&self.setting)?.trim() == "0" {
            fs::write(&self.marker, "")?;
            fs::write(&self.setting, "1")?;
        }
        Ok(())
    }

    fn turn_off(&self) {
        let off = fs::write(&self.setting, "0").and_then(|()| fs::remove_file(&self.marker));
        if let Err(error) = off {
            tracing::warn!(%error, setting = %self.setting.display(), "the setting could not be turned off again");
        }
    }
}

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        let mut hurries = lock(&self.0.hurries);
        *hurries -= 1;
        if *hurries == 0 && self.0.marker.exists() {
            self.0.turn_off();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap().trim().to_owned()
    }

    #[test]
    fn the_setting_is_on_while_anybody_needs_it() {
        let directory = tempfile::tempdir().unwrap();
        let setting = directory.path().join("setting");
        fs::write(&setting, "0\n").unwrap();
        let expedite = Expedite::of(&setting, directory.path());
        let first = expedite.hurry();
        let second = expedite.hurry();
        drop(first);
        assert_eq!(read(&setting), "1");
        drop(second);
        assert_eq!(read(&setting), "0");
    }

    #[test]
    fn what_a_killed_agent_left_on_is_turned_off() {
        let directory = tempfile::tempdir().unwrap();
        let setting = directory.path().join("setting");
        fs::write(&setting, "0\n").unwrap();
        let killed = Expedite::of(&setting, directory.path());
        std::mem::forget(killed.hurry());
        assert_eq!(read(&setting), "1");
        drop(Expedite::of(&setting, directory.path()));
        assert_eq!(read(&setting), "0");
    }

    #[test]
    fn an_administrators_choice_stays() {
        let directory = tempfile::tempdir().unwrap();
        let setting = directory.path().join("setting");
        fs::write(&setting, "1\n").unwrap();
        let expedite = Expedite::of(&setting, directory.path());
        drop(expedite.hurry());
        assert_eq!(read(&setting), "1");
        drop(Expedite::of(Path::new("/nonexistent/setting"), directory.path()).hurry());
    }
}
