//! Changes of route policy while it runs, with GoBGP's rules: a statement has one name in all policies, what is used is not
//! deleted, and an addition never replaces.

use super::{
    change::ChangeError,
    pattern::Pattern,
    policy::{
        Assignment, Conditions, DefinedSets, Disposition, PolicyDefinition, PrefixRange, RoutePolicy,
        SetMatch, Statement,
    },
};
use ipnet::IpNet;
use std::collections::BTreeMap;

/// What to do with what is still in use.
const USED: &str = "take it out there first";

/// A set, with the kind of its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetMembers {
    /// Prefixes with bounds of the length.
    Prefixes(Vec<PrefixRange>),
    /// Neighbours.
    Neighbors(Vec<IpNet>),
    /// Communities.
    Communities(Vec<Pattern>),
    /// Extended communities.
    ExtCommunities(Vec<Pattern>),
    /// Large communities.
    LargeCommunities(Vec<Pattern>),
    /// AS paths.
    AsPaths(Vec<Pattern>),
}

/// To which routes policies are assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyDirection {
    /// Those that come in.
    Import,
    /// Those that go out.
    Export,
}

/// How policies are assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assign {
    /// Behind those that are.
    Add,
    /// In place of those that are.
    Set,
    /// No longer.
    Remove,
    /// None at all, and what none decides about passes.
    Clear,
}

impl RoutePolicy {
    /// All statements, each once: those of the policies in order, then those that no policy has.
    pub fn statements(&self) -> Vec<&Statement> {
        let mut statements: Vec<&Statement> = Vec::new();
        let all = self.policies.iter().flat_map(|policy| &policy.statements).chain(&self.spare);
        for statement in all {
            if !statements.iter().any(|known| known.name == statement.name) {
                statements.push(statement);
            }
        }
        statements
    }

    /// What of it routes meet: the policies that are assigned, and the sets that those name. While this stays the same, no
    /// route needs to be judged again.
    pub(crate) fn in_force(&self) -> Self {
        let mut used = self.clone();
        let (import, export) = (&self.import.policies, &self.export.policies);
        used.policies.retain(|policy| import.contains(&policy.name) || export.contains(&policy.name));
        used.spare.clear();
        let statements: Vec<&Statement> =
            used.policies.iter().flat_map(|policy| &policy.statements).collect();
        let named = |condition: fn(&Conditions) -> &Option<SetMatch>| -> Vec<String> {
            let sets = statements.iter().filter_map(|statement| condition(&statement.conditions).as_ref());
            sets.map(|used| used.set.clone()).collect()
        };
        let prefixes = named(|conditions| &conditions.prefix);
        let neighbors = named(|conditions| &conditions.neighbor);
        let communities = named(|conditions| &conditions.community);
        let ext_communities = named(|conditions| &conditions.ext_community);
        let large_communities = named(|conditions| &conditions.large_community);
        let as_paths = named(|conditions| &conditions.as_path);
        used.sets.prefixes.retain(|name, _| prefixes.contains(name));
        used.sets.neighbors.retain(|name, _| neighbors.contains(name));
        used.sets.communities.retain(|name, _| communities.contains(name));
        used.sets.ext_communities.retain(|name, _| ext_communities.contains(name));
        used.sets.large_communities.retain(|name, _| large_communities.contains(name));
        used.sets.as_paths.retain(|name, _| as_paths.contains(name));
        used
    }

    /// Adds a set, or members to one that is there; with `replace` it has no others then.
    pub(crate) fn add_set(&mut self, name: &str, members: SetMembers, replace: bool) {
        fn add<T: PartialEq>(
            sets: &mut BTreeMap<String, Vec<T>>,
            name: &str,
            members: Vec<T>,
            replace: bool,
        ) {
            let set = sets.entry(name.to_owned()).or_default();
            if replace {
                set.clear();
            }
            for member in members {
                if !set.contains(&member) {
                    set.push(member);
                }
            }
        }
        let sets = &mut self.sets;
        match members {
            SetMembers::Prefixes(members) => add(&mut sets.prefixes, name, members, replace),
            SetMembers::Neighbors(members) => add(&mut sets.neighbors, name, members, replace),
            SetMembers::Communities(members) => add(&mut sets.communities, name, members, replace),
            SetMembers::ExtCommunities(members) => add(&mut sets.ext_communities, name, members, replace),
            SetMembers::LargeCommunities(members) => add(&mut sets.large_communities, name, members, replace),
            SetMembers::AsPaths(members) => add(&mut sets.as_paths, name, members, replace),
        }
    }

    /// Takes members out of a set, or with `all` the whole set away.
    pub(crate) fn remove_set(
        &mut self,
        name: &str,
        members: &SetMembers,
        all: bool,
    ) -> Result<(), ChangeError> {
        fn remove<T: PartialEq>(
            sets: &mut BTreeMap<String, Vec<T>>,
            name: &str,
            members: &[T],
            all: bool,
        ) -> Result<(), ChangeError> {
            let set =
                sets.get_mut(name).ok_or_else(|| ChangeError::Missing(format!("defined set \"{name}\"")))?;
            if all {
                sets.remove(name);
            } else {
                set.retain(|member| !members.contains(member));
            }
            Ok(())
        }
        let named_by = |condition: fn(&Conditions) -> &Option<SetMatch>| {
            let statements = self.statements();
            let found = statements.iter().find(|statement| {
                condition(&statement.conditions).as_ref().is_some_and(|used| used.set == name)
            });
            found.map(|statement| statement.name.clone())
        };
        let user = match members {
            SetMembers::Prefixes(_) => named_by(|conditions| &conditions.prefix),
            SetMembers::Neighbors(_) => named_by(|conditions| &conditions.neighbor),
            SetMembers::Communities(_) => named_by(|conditions| &conditions.community),
            SetMembers::ExtCommunities(_) => named_by(|conditions| &conditions.ext_community),
            SetMembers::LargeCommunities(_) => named_by(|conditions| &conditions.large_community),
            SetMembers::AsPaths(_) => named_by(|conditions| &conditions.as_path),
        };
        if let Some(user) = user.filter(|_| all) {
            let (set, user) = (format!("defined set \"{name}\""), format!("statement \"{user}\""));
            return Err(ChangeError::InUse(set, user, USED));
        }
        let sets = &mut self.sets;
        match members {
            SetMembers::Prefixes(members) => remove(&mut sets.prefixes, name, members, all),
            SetMembers::Neighbors(members) => remove(&mut sets.neighbors, name, members, all),
            SetMembers::Communities(members) => remove(&mut sets.communities, name, members, all),
            SetMembers::ExtCommunities(members) => remove(&mut sets.ext_communities, name, members, all),
            SetMembers::LargeCommunities(members) => remove(&mut sets.large_communities, name, members, all),
            SetMembers::AsPaths(members) => remove(&mut sets.as_paths, name, members, all),
        }
    }

    /// Adds a statement, or conditions and actions to one that is there and has none of the kind yet.
    pub(crate) fn add_statement(&mut self, added: Statement) -> Result<(), ChangeError> {
        if added.name.is_empty() {
            return Err(ChangeError::fault("statement.name", "is missing: a statement needs a name"));
        }
        self.sets.check(&added)?;
        match self.statement(&added.name) {
            None => self.spare.push(added),
            Some(known) => {
                let mut changed = known.clone();
                merge(&mut changed, added, Merge::Add)?;
                self.put_statement(&changed);
            }
        }
        Ok(())
    }

    /// Takes conditions and actions out of a statement, or with `all` the whole statement away.
    pub(crate) fn remove_statement(&mut self, removed: Statement, all: bool) -> Result<(), ChangeError> {
        let Some(known) = self.statement(&removed.name) else {
            return Err(ChangeError::Missing(format!("statement \"{}\"", removed.name)));
        };
        if !all {
            let mut changed = known.clone();
            merge(&mut changed, removed, Merge::Remove)?;
            self.put_statement(&changed);
            return Ok(());
        }
        if let Some(policy) = self.user_of(&removed.name) {
            let statement = format!("statement \"{}\"", removed.name);
            return Err(ChangeError::InUse(statement, format!("policy \"{policy}\""), USED));
        }
        self.spare.retain(|statement| statement.name != removed.name);
        Ok(())
    }

    /// Adds a policy, or statements to one that is there. With `refer` the statements are named ones that are there.
    pub(crate) fn add_policy(&mut self, added: PolicyDefinition, refer: bool) -> Result<(), ChangeError> {
        if added.name.is_empty() {
            return Err(ChangeError::fault("policy.name", "is missing: a policy needs a name"));
        }
        let mut statements = Vec::with_capacity(added.statements.len());
        for mut statement in added.statements {
            let known = self.statement(&statement.name);
            if refer {
                let missing = || ChangeError::Missing(format!("statement \"{}\"", statement.name));
                statement = known.ok_or_else(missing)?.clone();
            } else if known.is_some() {
                let name = format!("a statement \"{}\"", statement.name);
                return Err(ChangeError::Exists(name, "refer to it, or choose another name"));
            }
            self.sets.check(&statement)?;
            statements.push(statement);
        }
        let place = self.policies.iter().position(|policy| policy.name == added.name);
        let place = place.unwrap_or_else(|| {
            self.policies.push(PolicyDefinition { name: added.name.clone(), statements: Vec::new() });
            self.policies.len() - 1
        });
        if let Some(policy) = self.policies.get_mut(place) {
            policy.statements.extend(statements);
        }
        self.tidy_spare();
        Ok(())
    }

    /// Takes statements out of a policy, or with `all` the whole policy away. Statements that nobody uses then go too unless
    /// they shall be preserved.
    pub(crate) fn remove_policy(
        &mut self,
        removed: &PolicyDefinition,
        all: bool,
        preserve: bool,
    ) -> Result<(), ChangeError> {
        let name = &removed.name;
        let Some(place) = self.policies.iter().position(|policy| policy.name == *name) else {
            return Err(ChangeError::Missing(format!("policy \"{name}\"")));
        };
        let is_assigned =
            [&self.import, &self.export].iter().any(|assignment| assignment.policies.contains(name));
        if all && is_assigned {
            let policy = format!("policy \"{name}\"");
            return Err(ChangeError::InUse(policy, "the global assignment".to_owned(), USED));
        }
        let goes =
            |statement: &Statement| all || removed.statements.iter().any(|one| one.name == statement.name);
        let mut gone = Vec::new();
        if let Some(policy) = self.policies.get_mut(place) {
            gone = policy.statements.iter().filter(|statement| goes(statement)).cloned().collect();
            policy.statements.retain(|statement| !goes(statement));
        }
        if all {
            self.policies.remove(place);
        }
        if preserve {
            self.spare.extend(gone);
            self.tidy_spare();
        }
        Ok(())
    }

    /// Assigns policies to all routes of a direction; `default` says what becomes of those that none decides about, if it
    /// shall change.
    pub(crate) fn assign(
        &mut self,
        direction: PolicyDirection,
        how: Assign,
        names: &[String],
        default: Option<Disposition>,
    ) -> Result<(), ChangeError> {
        for (at, name) in names.iter().enumerate() {
            if !self.policies.iter().any(|policy| policy.name == *name) {
                return Err(ChangeError::Missing(format!("policy \"{name}\"")));
            }
            if names.iter().take(at).any(|other| other == name) {
                return Err(ChangeError::fault("assignment.policies", format!("\"{name}\" is given twice")));
            }
        }
        let assignment = match direction {
            PolicyDirection::Import => &mut self.import,
            PolicyDirection::Export => &mut self.export,
        };
        match how {
            Assign::Add => {
                if let Some(name) = names.iter().find(|name| assignment.policies.contains(name)) {
                    let name = format!("an assignment of policy \"{name}\"");
                    return Err(ChangeError::Exists(name, "set the list to change its order"));
                }
                assignment.policies.extend(names.iter().cloned());
            }
            Assign::Set => assignment.policies = names.to_vec(),
            Assign::Remove => assignment.policies.retain(|name| !names.contains(name)),
            Assign::Clear => *assignment = Assignment::default(),
        }
        if let Some(default) = default.filter(|_| matches!(how, Assign::Add | Assign::Set)) {
            assignment.default = default;
        }
        Ok(())
    }

    fn statement(&self, name: &str) -> Option<&Statement> {
        let all = self.policies.iter().flat_map(|policy| &policy.statements).chain(&self.spare);
        all.into_iter().find(|statement| statement.name == name)
    }

    fn put_statement(&mut self, changed: &Statement) {
        let all = self.policies.iter_mut().flat_map(|policy| &mut policy.statements).chain(&mut self.spare);
        for statement in all.filter(|statement| statement.name == changed.name) {
            *statement = changed.clone();
        }
    }

    /// The policy that has a statement.
    fn user_of(&self, name: &str) -> Option<&str> {
        let has =
            |policy: &&PolicyDefinition| policy.statements.iter().any(|statement| statement.name == name);
        self.policies.iter().find(has).map(|policy| policy.name.as_str())
    }

    /// Keeps beside the policies only statements that none of them has, each once.
    fn tidy_spare(&mut self) {
        let spare = std::mem::take(&mut self.spare);
        for statement in spare {
            if self.statement(&statement.name).is_none() {
                self.spare.push(statement);
            }
        }
    }
}

impl DefinedSets {
    /// Whether all sets that a statement names are there.
    fn check(&self, statement: &Statement) -> Result<(), ChangeError> {
        let conditions = &statement.conditions;
        let named = [
            ("prefix", &conditions.prefix, has(&self.prefixes, conditions.prefix.as_ref())),
            ("neighbor", &conditions.neighbor, has(&self.neighbors, conditions.neighbor.as_ref())),
            ("community", &conditions.community, has(&self.communities, conditions.community.as_ref())),
            (
                "ext-community",
                &conditions.ext_community,
                has(&self.ext_communities, conditions.ext_community.as_ref()),
            ),
            (
                "large-community",
                &conditions.large_community,
                has(&self.large_communities, conditions.large_community.as_ref()),
            ),
            ("as-path", &conditions.as_path, has(&self.as_paths, conditions.as_path.as_ref())),
        ];
        match named
            .iter()
            .find_map(|(kind, set, is_there)| set.as_ref().filter(|_| !is_there).map(|set| (kind, set)))
        {
            None => Ok(()),
            Some((kind, set)) => Err(ChangeError::Missing(format!("{kind} set \"{}\"", set.set))),
        }
    }
}

fn has<T>(sets: &BTreeMap<String, T>, named: Option<&SetMatch>) -> bool {
    named.is_none_or(|named| sets.contains_key(&named.set))
}

/// What is done with conditions and actions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Merge {
    Add,
    Remove,
}

fn merge(into: &mut Statement, change: Statement, how: Merge) -> Result<(), ChangeError> {
    /// Something that a statement may have.
    fn one<T: Default + PartialEq>(
        place: &mut T,
        change: T,
        how: Merge,
        what: &str,
    ) -> Result<(), ChangeError> {
        let (is_meant, is_there) = (change != T::default(), *place != T::default());
        match (is_meant, how, is_there) {
            (false, ..) => Ok(()),
            (true, Merge::Add, true) => {
                Err(ChangeError::Exists(format!("a {what} in the statement"), "take it out first"))
            }
            (true, Merge::Remove, false) => Err(ChangeError::Missing(format!("{what} in the statement"))),
            (true, Merge::Add, false) => {
                *place = change;
                Ok(())
            }
            (true, Merge::Remove, true) => {
                *place = T::default();
                Ok(())
            }
        }
    }
    let (to, from) = (&mut into.conditions, change.conditions);
    one(&mut to.prefix, from.prefix, how, "condition prefix")?;
    one(&mut to.neighbor, from.neighbor, how, "condition neighbor")?;
    one(&mut to.community, from.community, how, "condition community")?;
    one(&mut to.ext_community, from.ext_community, how, "condition ext-community")?;
    one(&mut to.large_community, from.large_community, how, "condition large-community")?;
    one(&mut to.as_path, from.as_path, how, "condition as-path")?;
    one(&mut to.as_path_length, from.as_path_length, how, "condition as-path-length")?;
    one(&mut to.community_count, from.community_count, how, "condition community-count")?;
    one(&mut to.route_type, from.route_type, how, "condition route-type")?;
    one(&mut to.next_hops, from.next_hops, how, "condition next-hop-in-list")?;
    one(&mut to.families, from.families, how, "condition afi-safi-in")?;
    one(&mut to.origin, from.origin, how, "condition origin")?;
    one(&mut to.med, from.med, how, "condition med")?;
    one(&mut to.local_pref, from.local_pref, how, "condition local-pref")?;
    let (to, from) = (&mut into.actions, change.actions);
    one(&mut to.disposition, from.disposition, how, "route action")?;
    one(&mut to.med, from.med, how, "action med")?;
    one(&mut to.local_pref, from.local_pref, how, "action local-pref")?;
    one(&mut to.next_hop, from.next_hop, how, "action next-hop")?;
    one(&mut to.origin, from.origin, how, "action origin")?;
    one(&mut to.prepend, from.prepend, how, "action as-prepend")?;
    one(&mut to.community, from.community, how, "action community")?;
    one(&mut to.ext_community, from.ext_community, how, "action ext-community")?;
    one(&mut to.large_community, from.large_community, how, "action large-community")
}

#[cfg(test)]
mod tests {
    use super::{super::policy::Actions, *};

    fn statement(name: &str) -> Statement {
        Statement { name: name.to_owned(), ..Statement::default() }
    }

    fn with_set(name: &str, set: &str) -> Statement {
        let prefix = Some(SetMatch { set: set.to_owned(), option: super::super::MatchOption::Any });
        Statement { conditions: Conditions { prefix, ..Conditions::default() }, ..statement(name) }
    }

    fn policy(name: &str, statements: &[&str]) -> PolicyDefinition {
        let statements = statements.iter().map(|name| statement(name)).collect();
        PolicyDefinition { name: name.to_owned(), statements }
    }

    fn prefixes(texts: &[&str]) -> SetMembers {
        let range = |text: &&str| {
            let prefix: IpNet = text.parse().unwrap();
            PrefixRange { prefix, len_min: prefix.prefix_len(), len_max: 32 }
        };
        SetMembers::Prefixes(texts.iter().map(range).collect())
    }

    fn names(policy: &RoutePolicy) -> Vec<&str> {
        policy.statements().iter().map(|statement| statement.name.as_str()).collect()
    }

    #[test]
    fn sets_grow_and_shrink_and_stay_while_they_are_used() {
        let mut policy = RoutePolicy::default();
        policy.add_set("ps", prefixes(&["10.0.0.0/8"]), false);
        policy.add_set("ps", prefixes(&["10.0.0.0/8", "11.0.0.0/8"]), false);
        assert_eq!(policy.sets.prefixes["ps"].len(), 2, "what is there is not there twice");
        policy.remove_set("ps", &prefixes(&["10.0.0.0/8"]), false).unwrap();
        assert_eq!(policy.sets.prefixes["ps"].len(), 1);
        policy.add_set("ps", prefixes(&["12.0.0.0/8"]), true);
        assert_eq!(policy.sets.prefixes["ps"].len(), 1);
        policy.add_statement(with_set("s", "ps")).unwrap();
        let error = policy.remove_set("ps", &prefixes(&[]), true).unwrap_err();
        assert!(error.to_string().contains("used by statement \"s\""), "{error}");
        policy.remove_statement(statement("s"), true).unwrap();
        policy.remove_set("ps", &prefixes(&[]), true).unwrap();
        assert!(matches!(policy.remove_set("ps", &prefixes(&[]), true), Err(ChangeError::Missing(_))));
    }

    #[test]
    fn a_statement_is_the_same_one_in_all_policies() {
        let mut policy = RoutePolicy::default();
        policy.add_statement(statement("s")).unwrap();
        policy.add_policy(super::tests::policy("p", &["s"]), true).unwrap();
        policy.add_policy(super::tests::policy("q", &["s"]), true).unwrap();
        assert_eq!((names(&policy), policy.spare.len()), (vec!["s"], 0));
        let accept = Actions { disposition: Some(Disposition::Accept), ..Actions::default() };
        let added = Statement { actions: accept.clone(), ..statement("s") };
        policy.add_statement(added.clone()).unwrap();
        for policy in &policy.policies {
            assert_eq!(policy.statements[0].actions, accept);
        }
        assert!(matches!(policy.add_statement(added.clone()), Err(ChangeError::Exists(..))));
        policy.remove_statement(added.clone(), false).unwrap();
        assert!(matches!(policy.remove_statement(added, false), Err(ChangeError::Missing(_))));
        let error = policy.remove_statement(statement("s"), true).unwrap_err();
        assert!(error.to_string().contains("policy \"p\""), "{error}");
    }

    #[test]
    fn statements_outlive_their_policy_only_if_they_shall() {
        for (preserve, left) in [(true, vec!["s", "t"]), (false, vec![])] {
            let mut policy = RoutePolicy::default();
            policy.add_policy(super::tests::policy("p", &["s", "t"]), false).unwrap();
            policy.remove_policy(&super::tests::policy("p", &[]), true, preserve).unwrap();
            assert_eq!(names(&policy), left);
        }
        let mut policy = RoutePolicy::default();
        policy.add_policy(super::tests::policy("p", &["s", "t"]), false).unwrap();
        policy.remove_policy(&super::tests::policy("p", &["s"]), false, false).unwrap();
        assert_eq!(names(&policy), ["t"]);
    }

    #[test]
    fn names_that_are_not_there_or_there_already_are_refused() {
        let mut policy = RoutePolicy::default();
        policy.add_policy(super::tests::policy("p", &["s"]), false).unwrap();
        for (result, why) in [
            (policy.clone().add_statement(with_set("n", "x")), "there is no prefix set \"x\""),
            (policy.clone().add_statement(statement("")), "needs a name"),
            (policy.clone().add_policy(super::tests::policy("", &[]), false), "needs a name"),
            (
                policy.clone().add_policy(super::tests::policy("q", &["s"]), false),
                "a statement \"s\" already",
            ),
            (policy.clone().add_policy(super::tests::policy("q", &["x"]), true), "no statement \"x\""),
            (policy.clone().remove_policy(&super::tests::policy("x", &[]), true, true), "no policy \"x\""),
            (policy.clone().remove_statement(statement("x"), true), "no statement \"x\""),
        ] {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn what_nobody_uses_is_not_in_force() {
        let mut policy = RoutePolicy::default();
        policy.add_set("ps", prefixes(&["10.0.0.0/8"]), false);
        policy.add_statement(with_set("s", "ps")).unwrap();
        policy.add_policy(super::tests::policy("p", &["s"]), true).unwrap();
        assert_eq!(policy.in_force(), RoutePolicy::default());
        policy.assign(PolicyDirection::Export, Assign::Set, &["p".to_owned()], None).unwrap();
        assert_eq!(policy.in_force(), policy);
        let before = policy.in_force();
        policy.add_set("other", prefixes(&["11.0.0.0/8"]), false);
        policy.add_statement(statement("spare")).unwrap();
        assert_eq!(policy.in_force(), before);
        policy.add_set("ps", prefixes(&["11.0.0.0/8"]), false);
        assert_ne!(policy.in_force(), before);
    }

    #[test]
    fn policies_are_assigned_in_order_and_not_twice() {
        let mut policy = RoutePolicy::default();
        for name in ["p", "q"] {
            policy.add_policy(super::tests::policy(name, &[]), false).unwrap();
        }
        let (import, reject) = (PolicyDirection::Import, Some(Disposition::Reject));
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        policy.assign(import, Assign::Add, &list(&["p"]), reject).unwrap();
        policy.assign(import, Assign::Add, &list(&["q"]), None).unwrap();
        assert_eq!(policy.import, Assignment { policies: list(&["p", "q"]), default: Disposition::Reject });
        assert!(matches!(
            policy.assign(import, Assign::Add, &list(&["q"]), None),
            Err(ChangeError::Exists(..))
        ));
        assert!(matches!(
            policy.assign(import, Assign::Set, &list(&["q", "q"]), None),
            Err(ChangeError::Faults(_))
        ));
        assert!(matches!(
            policy.assign(import, Assign::Set, &list(&["x"]), None),
            Err(ChangeError::Missing(_))
        ));
        let error = policy.remove_policy(&super::tests::policy("p", &[]), true, true).unwrap_err();
        assert!(matches!(error, ChangeError::InUse(..)));
        policy.assign(import, Assign::Set, &list(&["q", "p"]), None).unwrap();
        policy.assign(import, Assign::Remove, &list(&["q"]), None).unwrap();
        assert_eq!(policy.import.policies, ["p"]);
        policy.assign(import, Assign::Clear, &[], None).unwrap();
        assert_eq!(policy.import, Assignment::default());
    }
}
