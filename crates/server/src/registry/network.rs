//! How packets travel in the whole network: one object, which is always there.

use super::{CommitError, RETRIES_MAX, Registry};
use crate::{
    kinds::{self, NETWORK_KEY, StoredNetwork},
    problem::{Code, Fault},
};
use isthmus_core::{Encapsulation, Labels, SourceCheck};
use isthmus_store::{Compare, Operation, Revision, StoreError, Txn};

/// What the setting shall be.
#[derive(Clone, Debug)]
pub(crate) struct NetworkDraft {
    pub(crate) labels: Labels,
    pub(crate) encapsulation: Encapsulation,
    pub(crate) source_check: SourceCheck,
}

/// Why the setting could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error("the network's setting is at revision {found}, not {wanted}: somebody changed it meanwhile")]
    Changed { wanted: Revision, found: Revision },
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Fault for NetworkError {
    fn code(&self) -> Code {
        match self {
            Self::Changed { .. } => Code::Conflict,
            Self::Commit(error) => error.code(),
        }
    }

    fn help(&self) -> Option<String> {
        matches!(self, Self::Changed { .. }).then(|| "read it again, and write with the new ETag".to_owned())
    }
}

impl From<StoreError> for NetworkError {
    fn from(error: StoreError) -> Self {
        Self::Commit(error.into())
    }
}

impl Registry {
    /// Replaces the setting, if it is at revision `wanted` where one is given. One that nobody wrote is at revision 0.
    pub(crate) async fn replace_network(
        &self,
        draft: &NetworkDraft,
        wanted: Option<Revision>,
        dry: bool,
    ) -> Result<(), NetworkError> {
        let next = StoredNetwork {
            uuid: kinds::object_uuid("network", "network"),
            labels: draft.labels.clone(),
            encapsulation: draft.encapsulation.as_str().to_owned(),
            source_check: draft.source_check.as_str().to_owned(),
        };
        for _ in 0..RETRIES_MAX {
            let held = self.read::<StoredNetwork>(NETWORK_KEY)?;
            let found = self.mod_revision(NETWORK_KEY)?;
            if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
                return Err(NetworkError::Changed { wanted, found });
            }
            if dry || held.is_some_and(|(held, _)| held == next) {
                return Ok(());
            }
            let txn = Txn::new()
                .when(Compare::unchanged(NETWORK_KEY, found))
                .then(Operation::put(NETWORK_KEY, kinds::encode(&next)));
            if self.commit(txn).await?.is_some() {
                return Ok(());
            }
        }
        Err(CommitError::Contended { what: "the network's setting".to_owned() }.into())
    }
}
