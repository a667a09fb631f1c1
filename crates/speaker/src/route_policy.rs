//! GoBGP's route policy, compiled: names are resolved once, and a route is judged without looking anything up.
//!
//! The policies that apply are asked in order, and their statements too; the first that decides ends it, and what went
//! before may have changed the route. If none decides, the default does.

use crate::config::{
    Actions, Assignment, CommunityAction, Conditions, Disposition, MatchOption, MedAction, NextHopAction,
    OriginWord, Pattern, PrefixRange, Prepend, RoutePolicy, RouteType, SetMatch, Statement, write_community,
    write_ext_community,
};
use ipnet::IpNet;
use isthmus_bgp::{
    Asn, Attributes, Candidate, Community, ExtCommunity, LargeCommunity, Origin, Policy, Verdict,
};
use std::{collections::BTreeMap, sync::Arc};

/// What applies in one direction.
#[derive(Debug)]
pub struct Compiled {
    statements: Vec<CompiledStatement>,
    default: Disposition,
}

/// What applies to routes that come in, and to those that go out.
pub fn compile(policy: &RoutePolicy) -> (Arc<dyn Policy>, Arc<dyn Policy>) {
    let compile = |assignment| Arc::new(Compiled::new(policy, assignment));
    (compile(&policy.import), compile(&policy.export))
}

#[derive(Debug)]
struct CompiledStatement {
    /// Its own name, and that of its policy.
    names: (String, String),
    conditions: Conditions,
    actions: Actions,
    prefix: Option<(Vec<PrefixRange>, MatchOption)>,
    neighbor: Option<(Vec<IpNet>, MatchOption)>,
    community: Option<(Vec<Pattern>, MatchOption)>,
    ext_community: Option<(Vec<Pattern>, MatchOption)>,
    large_community: Option<(Vec<Pattern>, MatchOption)>,
    as_path: Option<(Vec<Pattern>, MatchOption)>,
}

impl Compiled {
    fn new(policy: &RoutePolicy, assignment: &Assignment) -> Self {
        let named = |name: &String| policy.policies.iter().find(|policy| policy.name == *name);
        let policies = assignment.policies.iter().filter_map(named);
        let statements = policies.flat_map(|of| of.statements.iter().map(|one| (&of.name, one)));
        let compile = |(of, statement): (&String, &Statement)| CompiledStatement::new(policy, of, statement);
        Self { statements: statements.map(compile).collect(), default: assignment.default }
    }
}

impl Compiled {
    /// What becomes of a route, and which statement decides; `None`: the default does.
    fn judge(&self, candidate: &Candidate<'_>) -> (Verdict, Option<&CompiledStatement>) {
        // Statements after one that changes the route see what it made of it.
        let mut changed: Option<Box<Attributes>> = None;
        for statement in &self.statements {
            let attributes = changed.as_deref().unwrap_or(candidate.attributes);
            if !statement.is_met(candidate, attributes) {
                continue;
            }
            if let Some(Disposition::Reject) = statement.actions.disposition {
                return (Verdict::Reject, Some(statement));
            }
            if statement.changes() {
                let mut attributes = attributes.clone();
                statement.apply(candidate, &mut attributes);
                changed = Some(Box::new(attributes));
            }
            if statement.actions.disposition.is_some() {
                return (changed.map_or(Verdict::Accept, Verdict::Change), Some(statement));
            }
        }
        match self.default {
            Disposition::Reject => (Verdict::Reject, None),
            Disposition::Accept => (changed.map_or(Verdict::Accept, Verdict::Change), None),
        }
    }
}

impl Policy for Compiled {
    fn verdict(&self, candidate: &Candidate<'_>) -> Verdict {
        self.judge(candidate).0
    }

    fn decided_by(&self, candidate: &Candidate<'_>) -> Option<String> {
        Some(match self.judge(candidate).1 {
            Some(CompiledStatement { names: (statement, policy), .. }) => {
                format!("statement \"{statement}\" of policy \"{policy}\"")
            }
            None => "no statement decides, so the default does".to_owned(),
        })
    }

    fn needs_target(&self) -> bool {
        self.statements.iter().any(|statement| {
            statement.neighbor.is_some() || statement.actions.next_hop == Some(NextHopAction::Peer)
        })
    }
}

impl CompiledStatement {
    fn new(policy: &RoutePolicy, of: &str, statement: &Statement) -> Self {
        let (conditions, sets) = (&statement.conditions, &policy.sets);
        Self {
            names: (statement.name.clone(), of.to_owned()),
            prefix: resolve(conditions.prefix.as_ref(), &sets.prefixes),
            neighbor: resolve(conditions.neighbor.as_ref(), &sets.neighbors),
            community: resolve(conditions.community.as_ref(), &sets.communities),
            ext_community: resolve(conditions.ext_community.as_ref(), &sets.ext_communities),
            large_community: resolve(conditions.large_community.as_ref(), &sets.large_communities),
            as_path: resolve(conditions.as_path.as_ref(), &sets.as_paths),
            conditions: conditions.clone(),
            actions: statement.actions.clone(),
        }
    }

    fn is_met(&self, candidate: &Candidate<'_>, attributes: &Attributes) -> bool {
        let conditions = &self.conditions;
        !conditions.never
            && self.meets_prefix(candidate)
            && self.meets_neighbor(candidate)
            && conditions.route_type.is_none_or(|wanted| {
                wanted
                    == match candidate.source {
                        None => RouteType::Local,
                        Some(source) if source.external => RouteType::External,
                        Some(_) => RouteType::Internal,
                    }
            })
            && (conditions.families.is_empty() || conditions.families.contains(&candidate.prefix.family()))
            && meets_numbers(conditions, attributes)
            && self.meets_texts(attributes)
    }

    fn meets_prefix(&self, candidate: &Candidate<'_>) -> bool {
        let Some((ranges, option)) = &self.prefix else { return true };
        let prefix = IpNet::from(*candidate.prefix);
        ranges.iter().any(|range| range.contains(&prefix)) != (*option == MatchOption::Invert)
    }

    /// The neighbour is the one that would get the route, else the one that sent it, as in GoBGP.
    fn meets_neighbor(&self, candidate: &Candidate<'_>) -> bool {
        let Some((networks, option)) = &self.neighbor else { return true };
        let Some(neighbor) = candidate.target.or(candidate.source) else { return false };
        networks.iter().any(|network| network.contains(&neighbor.address)) != (*option == MatchOption::Invert)
    }

    fn meets_texts(&self, attributes: &Attributes) -> bool {
        meets(self.community.as_ref(), || {
            attributes.communities.iter().map(|community| write_community(community.0)).collect()
        }) && meets(self.ext_community.as_ref(), || {
            attributes
                .ext_communities
                .iter()
                .filter_map(|community| write_ext_community(community.0))
                .collect()
        }) && meets(self.large_community.as_ref(), || {
            attributes.large_communities.iter().map(ToString::to_string).collect()
        }) && meets(self.as_path.as_ref(), || vec![attributes.as_path.to_string()])
    }

    fn changes(&self) -> bool {
        Actions { disposition: None, ..self.actions.clone() } != Actions::default()
    }

    fn apply(&self, candidate: &Candidate<'_>, attributes: &mut Attributes) {
        let actions = &self.actions;
        if let Some(med) = actions.med {
            attributes.med = Some(change_med(med, attributes.med));
        }
        attributes.local_pref = actions.local_pref.or(attributes.local_pref);
        if let Some(origin) = actions.origin {
            attributes.origin = origin_of(origin);
        }
        match actions.next_hop {
            None | Some(NextHopAction::Unchanged) => {}
            Some(NextHopAction::Address(address)) => attributes.next_hop = Some(address.into()),
            Some(NextHopAction::Own) => attributes.next_hop = None,
            Some(NextHopAction::Peer) => {
                let neighbor = candidate.target.or(candidate.source);
                attributes.next_hop =
                    neighbor.map(|neighbor| neighbor.address.into()).or(attributes.next_hop);
            }
        }
        if let Some(Prepend { asn, repeat }) = actions.prepend
            && let Some(asn) = asn.map(Asn).or_else(|| attributes.as_path.first())
        {
            for _ in 0..repeat {
                attributes.as_path = attributes.as_path.prepend(asn);
            }
        }
        self.apply_communities(attributes);
    }

    fn apply_communities(&self, attributes: &mut Attributes) {
        change(
            self.actions.community.as_ref(),
            &mut attributes.communities,
            |value| Community(*value),
            |community| Some(write_community(community.0)),
        );
        change(
            self.actions.ext_community.as_ref(),
            &mut attributes.ext_communities,
            |value| ExtCommunity(*value),
            |community| write_ext_community(community.0),
        );
        change(
            self.actions.large_community.as_ref(),
            &mut attributes.large_communities,
            |&(global, local_1, local_2)| LargeCommunity { global, local_1, local_2 },
            |community| Some(community.to_string()),
        );
    }
}

/// A name that is not there was a fault of the configuration, so it is.
fn resolve<T: Clone>(
    set: Option<&SetMatch>,
    sets: &BTreeMap<String, Vec<T>>,
) -> Option<(Vec<T>, MatchOption)> {
    let set = set?;
    Some((sets.get(&set.set).cloned().unwrap_or_default(), set.option))
}

fn meets_numbers(conditions: &Conditions, attributes: &Attributes) -> bool {
    let path_length = || u32::try_from(attributes.as_path.length()).unwrap_or(u32::MAX);
    let communities = || u32::try_from(attributes.communities.len()).unwrap_or(u32::MAX);
    let next_hop_is_in = || {
        let next_hop = attributes.next_hop.map(|next_hop| next_hop.address());
        next_hop
            .is_some_and(|next_hop| conditions.next_hops.iter().any(|network| network.contains(&next_hop)))
    };
    conditions.as_path_length.is_none_or(|wanted| wanted.is_met(path_length()))
        && conditions.community_count.is_none_or(|wanted| wanted.is_met(communities()))
        && conditions.origin.is_none_or(|wanted| origin_of(wanted) == attributes.origin)
        && conditions.med.is_none_or(|wanted| attributes.med == Some(wanted))
        && conditions.local_pref.is_none_or(|wanted| attributes.preference() == wanted)
        && (conditions.next_hops.is_empty() || next_hop_is_in())
}

fn meets(set: Option<&(Vec<Pattern>, MatchOption)>, written: impl FnOnce() -> Vec<String>) -> bool {
    let Some((patterns, option)) = set else { return true };
    let written = written();
    let fits = |pattern: &Pattern| written.iter().any(|text| pattern.is_match(text));
    match option {
        MatchOption::Any => patterns.iter().any(fits),
        MatchOption::All => patterns.iter().all(fits),
        MatchOption::Invert => !patterns.iter().any(fits),
    }
}

fn change<C, T: Ord + Clone>(
    action: Option<&CommunityAction<C>>,
    place: &mut Box<[T]>,
    value: impl Fn(&C) -> T,
    write: impl Fn(&T) -> Option<String>,
) {
    let mut items = std::mem::take(place).into_vec();
    match action {
        None => {}
        Some(CommunityAction::Add(values)) => items.extend(values.iter().map(value)),
        Some(CommunityAction::Replace(values)) => items = values.iter().map(value).collect(),
        Some(CommunityAction::Remove(patterns)) => items.retain(|item| {
            let written = write(item);
            !patterns.iter().any(|pattern| written.as_ref().is_some_and(|text| pattern.is_match(text)))
        }),
    }
    items.sort();
    items.dedup();
    *place = items.into();
}

fn change_med(action: MedAction, before: Option<u32>) -> u32 {
    match action {
        MedAction::Set(value) => value,
        // RFC 4271 section 9.1.2.2 c: none is 0. Bounded, so it fits.
        MedAction::Add(change) => {
            let sum = i64::from(before.unwrap_or(0)) + change;
            sum.clamp(0, i64::from(u32::MAX)) as u32
        }
    }
}

fn origin_of(word: OriginWord) -> Origin {
    match word {
        OriginWord::Igp => Origin::Igp,
        OriginWord::Egp => Origin::Egp,
        OriginWord::Incomplete => Origin::Incomplete,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use isthmus_bgp::{AsPath, Neighbor, NextHop, Prefix};
    use std::net::IpAddr;

    const SETS: &str = "[global.config]\nas = 64512\nrouter-id = \"192.0.2.1\"\n\
        [global.apply-policy.config]\nimport-policy-list = [\"p\"]\n\
        [[defined-sets.prefix-sets]]\nprefix-set-name = \"ten\"\nprefix-list = [{ ip-prefix = \"10.0.0.0/8\", masklength-range = \"24..26\" }]\n\
        [[defined-sets.neighbor-sets]]\nneighbor-set-name = \"two\"\nneighbor-info-list = [\"192.0.2.2\"]\n\
        [[defined-sets.bgp-defined-sets.community-sets]]\ncommunity-set-name = \"cs\"\ncommunity-list = [\"65000:1\", \"65000:2\"]\n\
        [[defined-sets.bgp-defined-sets.as-path-sets]]\nas-path-set-name = \"as\"\nas-path-list = [\"_65002$\"]\n\
        [[policy-definitions]]\nname = \"p\"\n";

    fn statement(condition: &str, action: &str) -> String {
        format!(
            "[[policy-definitions.statements]]\n[policy-definitions.statements.conditions]\n{condition}\n\
             [policy-definitions.statements.actions]\n{action}\n"
        )
    }

    fn attributes() -> Attributes {
        Attributes {
            as_path: AsPath::sequence([Asn(65_001), Asn(65_002)]),
            next_hop: Some(NextHop::V4([192, 0, 2, 9].into())),
            communities: [Community(0xfde8_0001)].into(),
            ..Attributes::default()
        }
    }

    fn verdict_on(prefix: &str, statements: &str) -> Verdict {
        let config = Config::from_toml(&format!("{SETS}{statements}"), "f");
        let config = config.unwrap_or_else(|faults| panic!("{faults}"));
        let (import, _) = compile(&config.policy);
        let prefix: Prefix = prefix.parse().unwrap();
        let source = Neighbor { address: IpAddr::from([192, 0, 2, 2]), asn: Asn(65_001), external: true };
        let attributes = attributes();
        import.verdict(&Candidate {
            prefix: &prefix,
            attributes: &attributes,
            source: Some(source),
            target: None,
        })
    }

    fn is_rejected(prefix: &str, condition: &str) -> bool {
        verdict_on(prefix, &statement(condition, "route-disposition = \"reject-route\"")) == Verdict::Reject
    }

    fn changed(action: &str) -> Attributes {
        let statement = statement("", &format!("route-disposition = \"accept-route\"\n{action}"));
        match verdict_on("10.0.0.0/24", &statement) {
            Verdict::Change(attributes) => *attributes,
            other => panic!("{action}: {other:?}"),
        }
    }

    #[test]
    fn conditions_are_met_by_what_they_say() {
        for (condition, expected) in [
            ("", true),
            ("match-prefix-set = { prefix-set = \"ten\" }", true),
            ("match-prefix-set = { prefix-set = \"ten\", match-set-options = \"invert\" }", false),
            ("match-neighbor-set = { neighbor-set = \"two\" }", true),
            ("match-neighbor-set = { neighbor-set = \"two\", match-set-options = \"invert\" }", false),
            ("bgp-conditions = { match-community-set = { community-set = \"cs\" } }", true),
            (
                "bgp-conditions = { match-community-set = { community-set = \"cs\", match-set-options = \"all\" } }",
                false,
            ),
            (
                "bgp-conditions = { match-community-set = { community-set = \"cs\", match-set-options = \"invert\" } }",
                false,
            ),
            ("bgp-conditions = { match-as-path-set = { as-path-set = \"as\" } }", true),
            ("bgp-conditions = { as-path-length = { operator = \"ge\", value = 3 } }", false),
            ("bgp-conditions = { as-path-length = { operator = \"eq\", value = 2 } }", true),
            ("bgp-conditions = { community-count = { operator = \"le\", value = 0 } }", false),
            ("bgp-conditions = { route-type = \"external\" }", true),
            ("bgp-conditions = { route-type = \"local\" }", false),
            ("bgp-conditions = { next-hop-in-list = [\"192.0.2.0/24\"] }", true),
            ("bgp-conditions = { next-hop-in-list = [\"192.0.2.1\"] }", false),
            ("bgp-conditions = { afi-safi-in-list = [\"ipv6-unicast\"] }", false),
            ("bgp-conditions = { afi-safi-in-list = [\"l2vpn-evpn\"] }", false),
            ("bgp-conditions = { origin-eq = \"incomplete\" }", true),
            ("bgp-conditions = { local-pref-eq = 100 }", true),
            ("bgp-conditions = { med-eq = 0 }", false),
        ] {
            assert_eq!(is_rejected("10.0.0.0/24", condition), expected, "{condition}");
        }
    }

    #[test]
    fn a_prefix_set_bounds_the_length() {
        let condition = "match-prefix-set = { prefix-set = \"ten\" }";
        for (prefix, expected) in
            [("10.0.0.0/23", false), ("10.1.2.0/26", true), ("10.1.2.0/27", false), ("11.0.0.0/24", false)]
        {
            assert_eq!(is_rejected(prefix, condition), expected, "{prefix}");
        }
    }

    #[test]
    fn actions_change_what_they_say() {
        assert_eq!(changed("bgp-actions = { set-med = \"-5\" }").med, Some(0));
        assert_eq!(changed("bgp-actions = { set-med = \"+5\" }").med, Some(5));
        assert_eq!(changed("bgp-actions = { set-local-pref = 7 }").local_pref, Some(7));
        assert_eq!(changed("bgp-actions = { set-route-origin = \"igp\" }").origin, Origin::Igp);
        assert_eq!(changed("bgp-actions = { set-next-hop = \"self\" }").next_hop, None);
        let peer = NextHop::V4([192, 0, 2, 2].into());
        assert_eq!(changed("bgp-actions = { set-next-hop = \"peer-address\" }").next_hop, Some(peer));
        let path =
            changed("bgp-actions = { set-as-path-prepend = { as = \"last-as\", repeat-n = 2 } }").as_path;
        assert_eq!(path, AsPath::sequence([65_001, 65_001, 65_001, 65_002].map(Asn)));
        let communities = |how: &str, text: &str| {
            let action = format!(
                "bgp-actions = {{ set-community = {{ options = \"{how}\", set-community-method = {{ communities-list = [\"{text}\"] }} }} }}"
            );
            changed(&action).communities.iter().map(|community| community.0).collect::<Vec<_>>()
        };
        assert_eq!(communities("add", "0:9"), [9, 0xfde8_0001]);
        assert_eq!(communities("replace", "0:9"), [9]);
        assert_eq!(communities("remove", "65000:.*"), [0; 0]);
    }

    #[test]
    fn the_first_statement_that_decides_ends_it() {
        let accept = statement("", "route-disposition = \"accept-route\"");
        let reject = statement("", "route-disposition = \"reject-route\"");
        assert_eq!(verdict_on("10.0.0.0/24", &format!("{accept}{reject}")), Verdict::Accept);
        assert_eq!(verdict_on("10.0.0.0/24", &format!("{reject}{accept}")), Verdict::Reject);
    }

    #[test]
    fn who_decides_is_told_by_name() {
        let reject = format!(
            "{}name = \"no-ten\"\n",
            statement("match-prefix-set = { prefix-set = \"ten\" }", "route-disposition = \"reject-route\"")
                .split_once("[policy-definitions.statements.conditions]")
                .map(|(head, _)| head.to_owned())
                .unwrap()
        ) + statement(
            "match-prefix-set = { prefix-set = \"ten\" }",
            "route-disposition = \"reject-route\"",
        )
        .trim_start_matches("[[policy-definitions.statements]]\n");
        let config = Config::from_toml(&format!("{SETS}{reject}"), "f").unwrap();
        let (import, _) = compile(&config.policy);
        let attributes = attributes();
        let by = |prefix: &str| {
            let prefix: Prefix = prefix.parse().unwrap();
            let candidate =
                Candidate { prefix: &prefix, attributes: &attributes, source: None, target: None };
            import.decided_by(&candidate).unwrap()
        };
        assert_eq!(by("10.0.0.0/24"), "statement \"no-ten\" of policy \"p\"");
        assert!(by("11.0.0.0/24").contains("default"));
    }

    #[test]
    fn a_later_statement_sees_what_an_earlier_one_changed() {
        let first = statement("", "bgp-actions = { set-local-pref = 7 }");
        let second =
            statement("bgp-conditions = { local-pref-eq = 7 }", "route-disposition = \"reject-route\"");
        assert_eq!(verdict_on("10.0.0.0/24", &format!("{first}{second}")), Verdict::Reject);
    }

    #[test]
    fn without_a_decision_the_default_decides() {
        assert_eq!(verdict_on("10.0.0.0/24", ""), Verdict::Accept);
        let text = SETS.replace(
            "[global.apply-policy.config]\n",
            "[global.apply-policy.config]\ndefault-import-policy = \"reject-route\"\n",
        );
        let config = Config::from_toml(&text, "f").unwrap();
        let (import, export) = compile(&config.policy);
        let prefix: Prefix = "10.0.0.0/8".parse().unwrap();
        let attributes = attributes();
        let candidate = Candidate { prefix: &prefix, attributes: &attributes, source: None, target: None };
        assert_eq!(
            (import.verdict(&candidate), export.verdict(&candidate)),
            (Verdict::Reject, Verdict::Accept)
        );
    }

    #[test]
    fn only_conditions_on_the_neighbour_need_to_know_the_target() {
        let needs = |condition: &str| {
            let text = format!("{SETS}{}", statement(condition, ""));
            compile(&Config::from_toml(&text, "f").unwrap().policy).0.needs_target()
        };
        assert!(needs("match-neighbor-set = { neighbor-set = \"two\" }"));
        assert!(!needs("match-prefix-set = { prefix-set = \"ten\" }"));
    }
}
