//! Which identity a workload has: the server says it once, the agent remembers it.

use crate::{
    agent::{Agent, fail, unix_now},
    attachment::{Attachment, Detail, id},
    link::AskError,
    view::{Resolved, ResolvedKey},
};
use isthmus_api::{
    adapter::{Failure, FailureKind, Workload},
    stream::{self, reply, request},
};
use isthmus_core::{ClusterName, Identity};
use isthmus_ipam::Owner;
use std::time::Duration;

/// How long an attach waits for a stream that is being opened.
const LINK_PATIENCE: Duration = Duration::from_millis(500);

impl Agent {
    /// The workload's identity; the second value says whether the server said so now, or lives by it.
    ///
    /// A workload that lives here already is not asked for: its identity stays its own while an endpoint has it.
    pub(crate) fn resolve(
        &self,
        cluster: &ClusterName,
        workload: &Workload,
    ) -> Result<(Resolved, bool), Failure> {
        let key = resolved_key(cluster, workload);
        let instance = self.instance_of(&key);
        if let Some((known, attachment)) = &instance
            && attachment.confirmed
            && attachment.request.workload == *workload
        {
            return Ok((known.clone(), true));
        }
        let known = self.view().resolved(&key).cloned().or(instance.map(|(known, _)| known));
        match self.ask_workload(cluster, workload) {
            Ok(resolved) => Ok((resolved, true)),
            Err(AskError::Refused { code, message, retryable }) => {
                let kind = if retryable { FailureKind::TryAgain } else { FailureKind::Invalid };
                Err(fail(kind, format!("{code}: {message}"), format!("see: isthmus help {code}")))
            }
            Err(error) => known.map(|known| (known, false)).ok_or_else(|| {
                let message = format!(
                    "workload {}/{} is not known on node {} yet, and {error}",
                    cluster, workload.id, self.config.node
                );
                fail(FailureKind::TryAgain, message, format!("try again when {} answers", self.config.server))
            }),
        }
    }

    /// What a workload is, by an instance of it that lives here.
    fn instance_of(&self, key: &ResolvedKey) -> Option<(Resolved, Attachment)> {
        let attachments = self.attachments();
        let instances = attachments.values().filter(|attachment| is_instance(attachment, key));
        let instance = instances.max_by_key(|attachment| attachment.confirmed)?;
        let resolved = Resolved {
            identity: instance.identity,
            uuid: instance.uuid.clone(),
            name: String::new(),
            used_unix: unix_now().as_secs(),
        };
        Some((resolved, instance.clone()))
    }

    fn ask_workload(&self, cluster: &ClusterName, workload: &Workload) -> Result<Resolved, AskError> {
        let body = request::Body::ResolveWorkload(stream::ResolveWorkload {
            cluster: cluster.to_string(),
            id: workload.id.clone(),
            group: workload.group.clone(),
            app: workload.app.clone(),
            labels: workload.labels.clone().into_iter().collect(),
        });
        let answer = self.runtime.block_on(async {
            self.link.wait_up(LINK_PATIENCE).await;
            self.link.ask(body).await
        })?;
        let reply::Body::Workload(answer) = answer else { return Err(AskError::Unexpected) };
        let identity = Identity::new(answer.identity).ok().filter(|identity| identity.is_workload());
        let resolved = Resolved {
            identity: identity.ok_or(AskError::Unexpected)?,
            uuid: answer.uuid,
            name: answer.name,
            used_unix: unix_now().as_secs(),
        };
        self.view().remember(resolved_key(cluster, workload), resolved.clone());
        self.pending.persist();
        Ok(resolved)
    }

    /// Asks again for workloads that were attached from memory while the server was away.
    pub(crate) fn confirm_workloads(&self) {
        let unconfirmed: Vec<_> = {
            let attachments = self.attachments();
            let unconfirmed = attachments.values().filter(|attachment| !attachment.confirmed);
            unconfirmed.map(|attachment| (id(&attachment.request.key), attachment.clone())).collect()
        };
        for (id, attachment) in unconfirmed {
            match self.ask_workload(&attachment.cluster, &attachment.request.workload) {
                Ok(resolved) => self.confirm(&id, &resolved),
                Err(error) => {
                    tracing::warn!(endpoint = %id, %error, "the endpoint's identity is not confirmed yet");
                }
            }
        }
    }

    fn confirm(&self, id: &str, resolved: &Resolved) {
        let _busy = self.busy.lock(id);
        let Some(mut attachment) = self.attachments().get(id).cloned() else { return };
        if attachment.identity != resolved.identity {
            let name = &attachment.host_interface;
            let changed = self.ensure_table(resolved.identity, attachment.cluster.as_str()).and_then(|()| {
                let set = self.kernel.set_identity(name, attachment.address, resolved.identity);
                set.map_err(|error| fail(FailureKind::System, error.to_string(), "see the agent's log"))
            });
            if let Err(failure) = changed {
                self.problems.set(&format!("identity of {id}"), Some(failure.message));
                return;
            }
            tracing::info!(endpoint = %id, identity = %resolved.identity, "the endpoint's identity changed");
        }
        attachment.identity = resolved.identity;
        attachment.uuid.clone_from(&resolved.uuid);
        attachment.confirmed = true;
        self.keep_detail(&attachment);
        let mut attachments = self.attachments();
        let endpoint = attachment.endpoint();
        attachments.insert(id.to_owned(), attachment);
        self.link.tell(stream::from_agent::Body::Endpoint(endpoint));
    }

    /// Writes what changed of an attachment into the journal.
    fn keep_detail(&self, attachment: &Attachment) {
        let Ok(owner) = Owner::new(id(&attachment.request.key)) else { return };
        let (known, ticket) = self.addresses.change(|ipam| ipam.set_detail(&owner, Detail::of(attachment)));
        if known.is_ok()
            && let Err(error) = ticket.wait()
        {
            self.problems.set("journal", Some(error.to_string()));
        }
    }

    /// What people call an identity; empty where it is not known here.
    pub(crate) fn name_of(&self, identity: Identity) -> Option<String> {
        if let Some(word) = identity.reserved_name() {
            return Some(word.to_owned());
        }
        self.view().workload(identity).map(|workload| workload.name.clone())
    }
}

/// What names a workload for the server.
pub(crate) fn resolved_key(cluster: &ClusterName, workload: &Workload) -> ResolvedKey {
    ResolvedKey { cluster: cluster.to_string(), id: workload.id.clone(), labels: workload.labels.clone() }
}

fn is_instance(attachment: &Attachment, key: &ResolvedKey) -> bool {
    attachment.cluster.as_str() == key.cluster
        && attachment.request.workload.id == key.id
        && attachment.request.workload.labels == key.labels
}
