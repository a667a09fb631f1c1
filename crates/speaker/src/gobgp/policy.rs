//! Route policy as the API shows it.

use super::{family, proto};
use crate::config::{
    Actions, Assignment, CommunityAction, Compared, Conditions, DefinedSets, Disposition, MatchOption,
    MedAction, NextHopAction, OriginWord, Pattern, PolicyDefinition, RoutePolicy, RouteType, SetMatch,
    Statement, write_community, write_ext_community,
};
use std::collections::BTreeMap;

/// GoBGP's number for a condition on RPKI that is absent.
const NO_RPKI: i32 = -1;

/// What applies to a neighbour: in GoBGP that has a name, and is empty unless it is a route server client.
pub(super) fn show_applied(policy: &RoutePolicy, name: &str) -> proto::ApplyPolicy {
    let assignment = |direction, assignment: &Assignment| proto::PolicyAssignment {
        name: name.to_owned(),
        direction: i32::from(direction),
        policies: Vec::new(),
        default_action: i32::from(action(Some(assignment.default))),
    };
    proto::ApplyPolicy {
        in_policy: None,
        export_policy: Some(assignment(proto::PolicyDirection::Export, &policy.export)),
        import_policy: Some(assignment(proto::PolicyDirection::Import, &policy.import)),
    }
}

/// What applies to all routes, in one direction or (`Unknown`) in both.
pub(super) fn show_assignments(policy: &RoutePolicy, direction: i32) -> Vec<proto::PolicyAssignment> {
    use proto::PolicyDirection::{DirectionUnknown, Export, Import};
    let wanted = |one| direction == i32::from(one) || direction == i32::from(DirectionUnknown);
    [(Import, &policy.import), (Export, &policy.export)]
        .into_iter()
        .filter(|(direction, _)| wanted(*direction))
        .map(|(direction, assignment)| proto::PolicyAssignment {
            name: "global".to_owned(),
            direction: i32::from(direction),
            policies: assignment
                .policies
                .iter()
                .filter_map(|name| policy.policies.iter().find(|policy| policy.name == *name))
                .map(show)
                .collect(),
            default_action: i32::from(action(Some(assignment.default))),
        })
        .collect()
}

/// A policy.
pub(super) fn show(policy: &PolicyDefinition) -> proto::Policy {
    proto::Policy {
        name: policy.name.clone(),
        statements: policy.statements.iter().map(show_statement).collect(),
    }
}

/// A statement.
pub(super) fn show_statement(statement: &Statement) -> proto::Statement {
    proto::Statement {
        name: statement.name.clone(),
        conditions: Some(conditions(&statement.conditions)),
        actions: Some(actions(&statement.actions)),
    }
}

/// The sets of one kind, or the one with a name.
pub(super) fn show_sets(sets: &DefinedSets, kind: proto::DefinedType, name: &str) -> Vec<proto::DefinedSet> {
    use proto::DefinedType;
    let patterns = |sets: &BTreeMap<String, Vec<Pattern>>| {
        let shown = |(name, patterns): (&String, &Vec<Pattern>)| proto::DefinedSet {
            defined_type: i32::from(kind),
            name: name.clone(),
            list: patterns.iter().map(|pattern| pattern.text().to_owned()).collect(),
            prefixes: Vec::new(),
        };
        sets.iter().map(shown).collect::<Vec<_>>()
    };
    let mut shown = match kind {
        DefinedType::Prefix => prefix_sets(sets),
        DefinedType::Neighbor => neighbor_sets(sets),
        DefinedType::AsPath => patterns(&sets.as_paths),
        DefinedType::Community => patterns(&sets.communities),
        DefinedType::ExtCommunity => patterns(&sets.ext_communities),
        DefinedType::LargeCommunity => patterns(&sets.large_communities),
        DefinedType::Tag | DefinedType::NextHop => Vec::new(),
    };
    shown.retain(|set| name.is_empty() || set.name == name);
    shown
}

fn prefix_sets(sets: &DefinedSets) -> Vec<proto::DefinedSet> {
    let prefix = |range: &crate::config::PrefixRange| proto::Prefix {
        ip_prefix: range.prefix.to_string(),
        mask_length_min: u32::from(range.len_min),
        mask_length_max: u32::from(range.len_max),
    };
    let shown = sets.prefixes.iter().map(|(name, ranges)| proto::DefinedSet {
        defined_type: i32::from(proto::DefinedType::Prefix),
        name: name.clone(),
        list: Vec::new(),
        prefixes: ranges.iter().map(prefix).collect(),
    });
    shown.collect()
}

fn neighbor_sets(sets: &DefinedSets) -> Vec<proto::DefinedSet> {
    let shown = sets.neighbors.iter().map(|(name, networks)| proto::DefinedSet {
        defined_type: i32::from(proto::DefinedType::Neighbor),
        name: name.clone(),
        list: networks.iter().map(ToString::to_string).collect(),
        prefixes: Vec::new(),
    });
    shown.collect()
}

fn action(disposition: Option<Disposition>) -> proto::RouteAction {
    match disposition {
        None => proto::RouteAction::ActionNone,
        Some(Disposition::Accept) => proto::RouteAction::Accept,
        Some(Disposition::Reject) => proto::RouteAction::Reject,
    }
}

fn conditions(conditions: &Conditions) -> proto::Conditions {
    let set = |set: &Option<SetMatch>| {
        set.as_ref().map(|set| proto::MatchSet {
            r#type: match set.option {
                MatchOption::Any => 0,
                MatchOption::All => 1,
                MatchOption::Invert => 2,
            },
            name: set.set.clone(),
        })
    };
    proto::Conditions {
        prefix_set: set(&conditions.prefix),
        neighbor_set: set(&conditions.neighbor),
        as_path_length: conditions.as_path_length.map(|compared| match compared {
            Compared::Equal(length) => proto::AsPathLength { r#type: 0, length },
            Compared::AtLeast(length) => proto::AsPathLength { r#type: 1, length },
            Compared::AtMost(length) => proto::AsPathLength { r#type: 2, length },
        }),
        as_path_set: set(&conditions.as_path),
        community_set: set(&conditions.community),
        ext_community_set: set(&conditions.ext_community),
        rpki_result: NO_RPKI,
        route_type: match conditions.route_type {
            None => 0,
            Some(RouteType::Internal) => 1,
            Some(RouteType::External) => 2,
            Some(RouteType::Local) => 3,
        },
        large_community_set: set(&conditions.large_community),
        next_hop_in_list: conditions.next_hops.iter().map(ToString::to_string).collect(),
        afi_safi_in: conditions.families.iter().map(|one| family(*one)).collect(),
        community_count: conditions.community_count.map(|compared| match compared {
            Compared::Equal(count) => proto::CommunityCount { r#type: 1, count },
            Compared::AtLeast(count) => proto::CommunityCount { r#type: 2, count },
            Compared::AtMost(count) => proto::CommunityCount { r#type: 3, count },
        }),
        origin: origin(conditions.origin),
        local_pref_eq: conditions.local_pref.map(|value| proto::Number { value }),
        med_eq: conditions.med.map(|value| proto::Number { value }),
    }
}

fn origin(word: Option<OriginWord>) -> i32 {
    match word {
        None => 0,
        Some(OriginWord::Igp) => 1,
        Some(OriginWord::Egp) => 2,
        Some(OriginWord::Incomplete) => 3,
    }
}

fn actions(actions: &Actions) -> proto::Actions {
    proto::Actions {
        route_action: i32::from(action(actions.disposition)),
        community: actions
            .community
            .as_ref()
            .map(|action| community(action, |value| write_community(*value))),
        med: actions.med.map(|med| match med {
            MedAction::Add(value) => proto::MedAction { r#type: 0, value },
            MedAction::Set(value) => proto::MedAction { r#type: 1, value: i64::from(value) },
        }),
        as_prepend: actions.prepend.map(|prepend| proto::AsPrependAction {
            asn: prepend.asn.unwrap_or(0),
            repeat: u32::from(prepend.repeat),
            use_left_most: prepend.asn.is_none(),
        }),
        ext_community: actions.ext_community.as_ref().map(|action| {
            community(action, |value| write_ext_community(*value).unwrap_or_else(|| format!("{value:#018x}")))
        }),
        nexthop: actions.next_hop.map(|next_hop| match next_hop {
            NextHopAction::Address(address) => {
                proto::NexthopAction { address: address.to_string(), ..proto::NexthopAction::default() }
            }
            NextHopAction::Own => proto::NexthopAction { self_: true, ..proto::NexthopAction::default() },
            NextHopAction::Unchanged => {
                proto::NexthopAction { unchanged: true, ..proto::NexthopAction::default() }
            }
            NextHopAction::Peer => {
                let address = "peer-address".to_owned();
                proto::NexthopAction { address, peer_address: true, ..proto::NexthopAction::default() }
            }
        }),
        local_pref: actions.local_pref.map(|value| proto::LocalPrefAction { value }),
        large_community: actions
            .large_community
            .as_ref()
            .map(|action| community(action, |(global, one, two)| format!("{global}:{one}:{two}"))),
        origin_action: actions.origin.map(|word| proto::OriginAction { origin: origin(Some(word)) }),
    }
}

fn community<C>(action: &CommunityAction<C>, write: impl Fn(&C) -> String) -> proto::CommunityAction {
    let (kind, communities) = match action {
        CommunityAction::Add(values) => (0, values.iter().map(write).collect()),
        CommunityAction::Remove(patterns) => {
            (1, patterns.iter().map(|pattern| pattern.text().to_owned()).collect())
        }
        CommunityAction::Replace(values) => (2, values.iter().map(write).collect()),
    };
    proto::CommunityAction { r#type: kind, communities }
}
