//! Policies. Rules are written with names; they are stored with UUIDs, so that they mean the same app for good.

use super::{CommitError, RETRIES_MAX, Registry};
use crate::{
    kinds::{self, RULE_COUNTER, StoredPolicy, StoredRule, StoredWorkload},
    problem::{Code, Fault},
    view::View,
};
use isthmus_core::{Labels, PolicyName, PortMatch, WorkloadPattern};
use isthmus_store::{Compare, Operation, Revision, StoreError, Txn};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
};
use uuid::Uuid;

/// Rules of one policy.
pub(crate) const RULES_MAX: usize = 10_000;
/// Bytes of a reason.
const REASON_BYTES_MAX: usize = 1_024;
/// Apps that one write makes because a rule names their UUID first.
const WORKLOADS_NEW_MAX: usize = 400;
/// Rule numbers that a server takes from the store at once; those it has not used are lost when it stops.
const NUMBERS_RESERVED: u32 = 4_096;
/// Matches that an error lists.
const MATCHES_SHOWN: usize = 8;

/// What a policy shall be.
#[derive(Clone, Debug)]
pub(crate) struct PolicyDraft {
    pub(crate) name: PolicyName,
    pub(crate) labels: Labels,
    pub(crate) reason: Option<String>,
    pub(crate) rules: Vec<RuleDraft>,
}

/// One clause, as written.
#[derive(Clone, Debug)]
pub(crate) struct RuleDraft {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) port: String,
}

/// Why a policy could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PolicyError {
    #[error("there is a policy {0} already")]
    Exists(PolicyName),
    #[error("there is no policy {0}")]
    Missing(PolicyName),
    #[error("policy {name} is at revision {found}, not {wanted}: somebody changed it meanwhile")]
    Changed { name: PolicyName, wanted: Revision, found: Revision },
    #[error("policy {name} was made by Cloud Foundry's policy API, which tells it by what it says")]
    CloudFoundry { name: PolicyName },
    #[error("{what} has {found} {unit}, at most {max} are allowed")]
    TooLarge { what: String, found: usize, unit: &'static str, max: usize },
    #[error("policy {0} has no rule")]
    Empty(PolicyName),
    #[error("rule {rule}: {why}")]
    BadRule { rule: usize, why: String },
    #[error("rule {rule}: {name}")]
    Name {
        rule: usize,
        #[source]
        name: NameProblem,
    },
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Why a text means no workload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameProblem {
    #[error("no app is named \"{text}\"{near}")]
    Unknown { text: String, near: String },
    #[error("app \"{text}\" is ambiguous: it means {matches}")]
    Ambiguous { text: String, matches: String },
    #[error("\"{text}\" is no name of an app: {why}")]
    Bad { text: String, why: String },
}

impl NameProblem {
    pub(crate) const fn code(&self) -> Code {
        match self {
            Self::Unknown { .. } => Code::UnknownName,
            Self::Ambiguous { .. } => Code::AmbiguousName,
            Self::Bad { .. } => Code::BadName,
        }
    }
}

impl Fault for NameProblem {
    fn code(&self) -> Code {
        Self::code(self)
    }

    fn help(&self) -> Option<String> {
        Some(
            match self {
                Self::Unknown { .. } => {
                    "isthmus app list shows all names; an app is known once a node has run it"
                }
                Self::Ambiguous { .. } => "write the full name, platform:group/app@cluster",
                Self::Bad { .. } => "write platform:group/app@cluster, part of it, or a UUID",
            }
            .to_owned(),
        )
    }
}

impl Fault for PolicyError {
    fn code(&self) -> Code {
        match self {
            Self::Exists(_) | Self::Changed { .. } | Self::CloudFoundry { .. } => Code::Conflict,
            Self::Missing(_) => Code::NotFound,
            Self::TooLarge { .. } => Code::TooLarge,
            Self::Empty(_) | Self::BadRule { .. } => Code::BadRule,
            Self::Name { name, .. } => name.code(),
            Self::Commit(error) => error.code(),
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Changed { .. } => Some("read it again, and write with the new ETag".to_owned()),
            Self::CloudFoundry { .. } => Some("delete it, or use cf remove-network-policy".to_owned()),
            Self::Empty(_) => Some("write at least one rule, or delete the policy".to_owned()),
            Self::Name { name, .. } => name.help(),
            _ => None,
        }
    }
}

impl From<StoreError> for PolicyError {
    fn from(error: StoreError) -> Self {
        Self::Commit(error.into())
    }
}

/// Rule numbers that this server may give out.
#[derive(Debug, Default)]
pub(super) struct Reserve(Range<u32>);

/// Rules with their UUIDs, and the apps that must be made for them.
#[derive(Debug, Default)]
struct ResolvedRules {
    rules: Vec<(Uuid, Uuid, PortMatch)>,
    new: BTreeMap<Uuid, StoredWorkload>,
}

impl Registry {
    /// Makes a policy. With `dry`, only says what it would be.
    pub(crate) async fn create_policy(
        &self,
        draft: &PolicyDraft,
        dry: bool,
    ) -> Result<StoredPolicy, PolicyError> {
        let key = kinds::policy_key(draft.name.as_str());
        let exists = || PolicyError::Exists(draft.name.clone());
        for _ in 0..RETRIES_MAX {
            if self.store.entry(&key)?.is_some() {
                return Err(exists());
            }
            let resolved = self.resolve_rules(draft).await?;
            let policy = self.stored_policy(draft, Uuid::new_v4(), &resolved.rules, &[], dry).await?;
            if dry {
                return Ok(policy);
            }
            let txn = with_workloads(Txn::new(), &resolved.new)
                .when(Compare::absent(&key))
                .then(Operation::put(&key, kinds::encode(&policy)));
            if self.commit(txn).await?.is_some() {
                return Ok(policy);
            }
        }
        Err(CommitError::Contended { what: format!("policy {}", draft.name) }.into())
    }

    /// Replaces a policy, if it is at revision `wanted` where one is given.
    pub(crate) async fn replace_policy(
        &self,
        draft: &PolicyDraft,
        wanted: Option<Revision>,
        dry: bool,
    ) -> Result<StoredPolicy, PolicyError> {
        let name = &draft.name;
        let key = kinds::policy_key(name.as_str());
        for _ in 0..RETRIES_MAX {
            let (held, found) = self.held_policy(name, wanted)?;
            if held.cf.is_some() {
                return Err(PolicyError::CloudFoundry { name: name.clone() });
            }
            let resolved = self.resolve_rules(draft).await?;
            let policy = self.stored_policy(draft, held.uuid, &resolved.rules, &held.rules, dry).await?;
            if dry || policy == held {
                return Ok(policy);
            }
            let txn = with_workloads(Txn::new(), &resolved.new)
                .when(Compare::unchanged(&key, found))
                .then(Operation::put(&key, kinds::encode(&policy)));
            if self.commit(txn).await?.is_some() {
                return Ok(policy);
            }
        }
        Err(CommitError::Contended { what: format!("policy {name}") }.into())
    }

    /// Deletes a policy.
    pub(crate) async fn delete_policy(
        &self,
        name: &PolicyName,
        wanted: Option<Revision>,
        dry: bool,
    ) -> Result<(), PolicyError> {
        let key = kinds::policy_key(name.as_str());
        for _ in 0..RETRIES_MAX {
            let (_, found) = self.held_policy(name, wanted)?;
            if dry {
                return Ok(());
            }
            let txn = Txn::new().when(Compare::unchanged(&key, found)).then(Operation::delete(&key));
            if self.commit(txn).await?.is_some() {
                return Ok(());
            }
        }
        Err(CommitError::Contended { what: format!("policy {name}") }.into())
    }

    fn held_policy(
        &self,
        name: &PolicyName,
        wanted: Option<Revision>,
    ) -> Result<(StoredPolicy, Revision), PolicyError> {
        let held = self.read::<StoredPolicy>(&kinds::policy_key(name.as_str()))?;
        let (held, found) = held.ok_or_else(|| PolicyError::Missing(name.clone()))?;
        match wanted.filter(|wanted| *wanted != found) {
            Some(wanted) => Err(PolicyError::Changed { name: name.clone(), wanted, found }),
            None => Ok((held, found)),
        }
    }

    /// Turns a draft's names into UUIDs.
    async fn resolve_rules(&self, draft: &PolicyDraft) -> Result<ResolvedRules, PolicyError> {
        let too_large = |what, found, unit, max| Err(PolicyError::TooLarge { what, found, unit, max });
        if draft.rules.is_empty() {
            return Err(PolicyError::Empty(draft.name.clone()));
        }
        if draft.rules.len() > RULES_MAX {
            return too_large(format!("policy {}", draft.name), draft.rules.len(), "rules", RULES_MAX);
        }
        if let Some(reason) = draft.reason.as_ref().filter(|reason| reason.len() > REASON_BYTES_MAX) {
            return too_large(
                format!("the reason of {}", draft.name),
                reason.len(),
                "bytes",
                REASON_BYTES_MAX,
            );
        }
        let view = self.fresh_view().await?;
        let held = view.policies.get(draft.name.as_str()).map_or(0, |held| held.value.rules.len());
        let total = (view.tables.rule_count() + draft.rules.len()).saturating_sub(held);
        if total > isthmus_policy::RULES_MAX {
            return too_large("the network".to_owned(), total, "rules", isthmus_policy::RULES_MAX);
        }
        let mut names = Names { view: &view, known: HashMap::new(), new: BTreeMap::new() };
        let mut resolved = ResolvedRules::default();
        let mut seen = BTreeSet::new();
        for (index, rule) in draft.rules.iter().enumerate() {
            let number = index + 1;
            let port = rule.port.parse::<PortMatch>();
            let port = port.map_err(|why| PolicyError::BadRule { rule: number, why: why.to_string() })?;
            let name = |name| PolicyError::Name { rule: number, name };
            let from = names.resolve(&rule.from).map_err(name)?;
            let to = names.resolve(&rule.to).map_err(name)?;
            if seen.insert((from, to, port)) {
                resolved.rules.push((from, to, port));
            }
        }
        resolved.new = names.new;
        if resolved.new.len() > WORKLOADS_NEW_MAX {
            let what = format!("policy {}", draft.name);
            return too_large(what, resolved.new.len(), "apps that nobody has seen yet", WORKLOADS_NEW_MAX);
        }
        Ok(resolved)
    }

    /// A policy with numbered rules; those that it had keep their numbers.
    async fn stored_policy(
        &self,
        draft: &PolicyDraft,
        uuid: Uuid,
        rules: &[(Uuid, Uuid, PortMatch)],
        held: &[StoredRule],
        dry: bool,
    ) -> Result<StoredPolicy, CommitError> {
        let numbers: HashMap<(Uuid, Uuid, &str), u32> =
            held.iter().map(|rule| ((rule.from, rule.to, rule.port.as_str()), rule.number)).collect();
        let texts: Vec<String> = rules.iter().map(|(_, _, port)| port.to_string()).collect();
        let known = |index: usize| {
            let (from, to, _) = rules[index];
            numbers.get(&(from, to, texts[index].as_str())).copied()
        };
        let missing = (0..rules.len()).filter(|index| known(*index).is_none()).count();
        let mut fresh = if dry { vec![0; missing] } else { self.rule_numbers(missing).await? }.into_iter();
        let mut stored = Vec::with_capacity(rules.len());
        for (index, (from, to, _)) in rules.iter().enumerate() {
            let number = known(index).or_else(|| fresh.next()).unwrap_or_default();
            stored.push(StoredRule { from: *from, to: *to, port: texts[index].clone(), number });
        }
        Ok(StoredPolicy {
            uuid,
            labels: draft.labels.clone(),
            reason: draft.reason.clone(),
            rules: stored,
            cf: None,
        })
    }

    /// Numbers that no rule ever had. They come from a counter in the store, many at once.
    pub(super) async fn rule_numbers(&self, count: usize) -> Result<Vec<u32>, CommitError> {
        let mut reserve = self.rule_numbers.lock().await;
        let mut numbers = Vec::with_capacity(count);
        while numbers.len() < count {
            match reserve.0.next() {
                Some(number) => numbers.push(number),
                None => reserve.0 = self.reserve_numbers(count - numbers.len()).await?,
            }
        }
        Ok(numbers)
    }

    async fn reserve_numbers(&self, wanted: usize) -> Result<Range<u32>, CommitError> {
        let wanted = NUMBERS_RESERVED.max(u32::try_from(wanted).unwrap_or(u32::MAX / 2));
        for _ in 0..RETRIES_MAX {
            let held = self.read::<u32>(RULE_COUNTER)?;
            let (first, revision) = held.unwrap_or((1, self.mod_revision(RULE_COUNTER)?));
            // After 2^32 numbers they begin anew: flows of rules that old are forgotten long before.
            let (first, next) = match first.checked_add(wanted) {
                Some(next) => (first, next),
                None => (1, wanted.saturating_add(1)),
            };
            let txn = Txn::new()
                .when(Compare::unchanged(RULE_COUNTER, revision))
                .then(Operation::put(RULE_COUNTER, kinds::encode(&next)));
            if self.commit(txn).await?.is_some() {
                return Ok(first..next);
            }
        }
        Err(CommitError::Contended { what: "the counter of rules".to_owned() })
    }
}

/// Adds apps that a policy names before they appear. Somebody who made one meanwhile refuses the transaction.
pub(super) fn with_workloads(mut txn: Txn, new: &BTreeMap<Uuid, StoredWorkload>) -> Txn {
    for (uuid, workload) in new {
        let key = kinds::workload_key(*uuid);
        txn = txn.when(Compare::absent(&key)).then(Operation::put(key, kinds::encode(workload)));
    }
    txn
}

/// An app of a Cloud Foundry cluster that nobody has seen yet.
pub(super) fn unseen_workload(cluster: &str, id: &str) -> StoredWorkload {
    StoredWorkload {
        cluster: cluster.to_owned(),
        id: id.to_owned(),
        group: String::new(),
        app: id.to_owned(),
        labels: Labels::new(),
        used_day: super::identities::today(),
    }
}

struct Names<'a> {
    view: &'a View,
    known: HashMap<String, Uuid>,
    new: BTreeMap<Uuid, StoredWorkload>,
}

impl Names<'_> {
    fn resolve(&mut self, text: &str) -> Result<Uuid, NameProblem> {
        if let Some(uuid) = self.known.get(text) {
            return Ok(*uuid);
        }
        let uuid = match resolve_name(self.view, text) {
            Err(NameProblem::Unknown { .. })
                if Uuid::try_parse(text).is_ok() && self.view.cf_cluster_count() == 1 =>
            {
                self.unseen(text)?
            }
            other => other?,
        };
        self.known.insert(text.to_owned(), uuid);
        Ok(uuid)
    }

    fn unseen(&mut self, text: &str) -> Result<Uuid, NameProblem> {
        let unknown = || NameProblem::Unknown { text: text.to_owned(), near: String::new() };
        let cluster = self.view.first_cf_cluster().ok_or_else(unknown)?;
        let uuid = Uuid::try_parse(text).map_err(|_why| unknown())?;
        self.new.insert(uuid, unseen_workload(cluster, &uuid.to_string()));
        Ok(uuid)
    }
}

/// The one workload that a text means.
pub(crate) fn resolve_name(view: &View, text: &str) -> Result<Uuid, NameProblem> {
    let pattern: WorkloadPattern = text.parse().map_err(|why: isthmus_core::WorkloadNameError| {
        NameProblem::Bad { text: text.to_owned(), why: why.to_string() }
    })?;
    let found = view.matching(&pattern);
    match found.as_slice() {
        [] => Err(NameProblem::Unknown { text: text.to_owned(), near: nearest(view, &pattern) }),
        [uuid] => Ok(*uuid),
        several => {
            let mut names: Vec<String> = several.iter().map(|uuid| view.workload_text(*uuid)).collect();
            names.sort_unstable();
            let more = names.len().saturating_sub(MATCHES_SHOWN);
            names.truncate(MATCHES_SHOWN);
            let mut matches = names.join(", ");
            if more > 0 {
                matches = format!("{matches} and {more} more");
            }
            Err(NameProblem::Ambiguous { text: text.to_owned(), matches })
        }
    }
}

/// Names that only differ by a part that was written wrongly.
fn nearest(view: &View, pattern: &WorkloadPattern) -> String {
    let WorkloadPattern::Name { app, .. } = pattern else { return String::new() };
    let bare = WorkloadPattern::Name { platform: None, group: None, app: app.clone(), cluster: None };
    let found: Vec<String> =
        view.matching(&bare).into_iter().take(MATCHES_SHOWN).map(|uuid| view.workload_text(uuid)).collect();
    if found.is_empty() {
        String::new()
    } else {
        format!("; with another group or cluster there is {}", found.join(", "))
    }
}
