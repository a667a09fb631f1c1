//! What a benchmark puts on the host: written down before it is made, found and removed after a crash.

use crate::{
    namespace,
    state::{self, Made},
};
use anyhow::{Context as _, bail};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The names under which a benchmark makes things.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Directory of everything that it writes, but for its result.
    pub(crate) run: &'static str,
    /// What the names of its namespaces begin with.
    pub(crate) prefix: &'static str,
}

impl Place {
    fn state(self) -> PathBuf {
        Path::new(self.run).join("state.json")
    }

    /// Removes what this or an earlier run has made.
    pub(crate) fn clear(self) -> anyhow::Result<()> {
        let mut made: Made = state::load(&self.state())?.unwrap_or_default();
        made.namespaces.extend(namespace::with_prefix(self.prefix));
        made.directories.push(self.run.into());
        let left = made.remove();
        match left.first() {
            Some(first) => bail!("could not remove everything of the benchmark: {first}"),
            None => Ok(()),
        }
    }
}

/// What a benchmark has put on the host.
#[derive(Debug)]
pub(crate) struct Lab {
    place: Place,
    made: Made,
}

impl Lab {
    /// Nothing yet.
    pub(crate) fn new(place: Place) -> Self {
        Self { place, made: Made::default() }
    }

    /// Records something before it is made, or what is gone.
    pub(crate) fn record(&mut self, change: impl FnOnce(&mut Made)) -> anyhow::Result<()> {
        change(&mut self.made);
        let run = self.place.run;
        fs::create_dir_all(run).with_context(|| format!("cannot make {run}"))?;
        Ok(state::save(&self.place.state(), &self.made)?)
    }
}
