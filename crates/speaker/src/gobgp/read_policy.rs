//! Route policy that a client adds.

use super::{proto, read_family};
use crate::config::{
    self, Actions, Compared, Conditions, Disposition, MatchOption, MedAction, NextHopAction, OriginWord,
    Pattern, PolicyDefinition, PolicyDirection, PrefixRange, Prepend, RoutePolicy, RouteType, SetMatch,
    SetMembers, Statement,
};
use ipnet::IpNet;
use std::{fmt::Display, net::IpAddr};
use tonic::Status;

/// A set: its name and members.
pub(super) fn set(shown: &proto::DefinedSet) -> Result<(String, SetMembers), Status> {
    use proto::DefinedType;
    if shown.name.is_empty() {
        return Err(Status::invalid_argument("a defined set needs a name"));
    }
    let patterns = |read: fn(&str) -> Result<Pattern, String>| -> Result<Vec<Pattern>, Status> {
        shown.list.iter().map(|text| read(text).map_err(Status::invalid_argument)).collect()
    };
    let kind = DefinedType::try_from(shown.defined_type);
    let members = match kind {
        Ok(DefinedType::Prefix) => {
            SetMembers::Prefixes(shown.prefixes.iter().map(prefix).collect::<Result<_, _>>()?)
        }
        Ok(DefinedType::Neighbor) => {
            SetMembers::Neighbors(shown.list.iter().map(|text| network(text)).collect::<Result<_, _>>()?)
        }
        Ok(DefinedType::AsPath) => SetMembers::AsPaths(patterns(Pattern::as_path)?),
        Ok(DefinedType::Community) => SetMembers::Communities(patterns(Pattern::community)?),
        Ok(DefinedType::ExtCommunity) => SetMembers::ExtCommunities(patterns(Pattern::ext_community)?),
        Ok(DefinedType::LargeCommunity) => SetMembers::LargeCommunities(patterns(Pattern::large_community)?),
        Ok(DefinedType::Tag | DefinedType::NextHop) => {
            let text = "sets of tags and next hops are not known here: write next hops into the condition next-hop-in-list";
            return Err(Status::unimplemented(text));
        }
        Err(_) => {
            return Err(bad("defined_type", shown.defined_type, "a kind of set"));
        }
    };
    Ok((shown.name.clone(), members))
}

fn prefix(shown: &proto::Prefix) -> Result<PrefixRange, Status> {
    let bad = || bad("prefix", &shown.ip_prefix, "a prefix like 10.0.0.0/8");
    let prefix = shown.ip_prefix.parse::<IpNet>().map_err(|_why| bad())?.trunc();
    let bounds = (u8::try_from(shown.mask_length_min), u8::try_from(shown.mask_length_max));
    match bounds {
        // Nothing said: the prefix itself.
        (Ok(0), Ok(0)) => {
            Ok(PrefixRange { prefix, len_min: prefix.prefix_len(), len_max: prefix.prefix_len() })
        }
        (Ok(len_min), Ok(len_max)) if len_min <= len_max && len_max <= prefix.max_prefix_len() => {
            Ok(PrefixRange { prefix, len_min, len_max })
        }
        _ => {
            let (min, max) = (shown.mask_length_min, shown.mask_length_max);
            let why = format!("{min}..{max} is no range of lengths for {prefix}");
            Err(Status::invalid_argument(why))
        }
    }
}

fn network(text: &str) -> Result<IpNet, Status> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address
        .or_else(|_| text.parse::<IpNet>().map(|network| network.trunc()))
        .map_err(|_why| bad("address", text, "an address or a network"))
}

/// A policy.
pub(super) fn policy(shown: Option<&proto::Policy>) -> Result<PolicyDefinition, Status> {
    let shown = shown.ok_or_else(|| Status::invalid_argument("there is no policy in the request"))?;
    let statements = shown.statements.iter().map(|one| statement(Some(one))).collect::<Result<_, _>>()?;
    Ok(PolicyDefinition { name: shown.name.clone(), statements })
}

/// A statement.
pub(super) fn statement(shown: Option<&proto::Statement>) -> Result<Statement, Status> {
    let shown = shown.ok_or_else(|| Status::invalid_argument("there is no statement in the request"))?;
    Ok(Statement {
        name: shown.name.clone(),
        conditions: shown.conditions.as_ref().map(conditions).transpose()?.unwrap_or_default(),
        actions: shown.actions.as_ref().map(actions).transpose()?.unwrap_or_default(),
    })
}

/// To what policies are assigned, and with what default.
pub(super) struct Assigned {
    pub(super) direction: PolicyDirection,
    pub(super) policies: Vec<String>,
    pub(super) default: Option<Disposition>,
}

/// An assignment.
pub(super) fn assignment(shown: Option<&proto::PolicyAssignment>) -> Result<Assigned, Status> {
    let shown = shown.ok_or_else(|| Status::invalid_argument("there is no assignment in the request"))?;
    if !matches!(shown.name.as_str(), "" | "global") {
        return Err(not_a_client(&shown.name));
    }
    let direction = match shown.direction() {
        proto::PolicyDirection::Import => PolicyDirection::Import,
        proto::PolicyDirection::Export => PolicyDirection::Export,
        proto::PolicyDirection::DirectionUnknown => {
            return Err(bad("direction", shown.direction, "1 (import) or 2 (export)"));
        }
    };
    Ok(Assigned {
        direction,
        policies: shown.policies.iter().map(|policy| policy.name.clone()).collect(),
        default: disposition(shown.default_action)?,
    })
}

/// What is said of a neighbour's own policy, as GoBGP says it.
pub(super) fn not_a_client(name: &str) -> Status {
    let text = format!("{name} has no policy of its own: only route server clients do; name \"global\"");
    Status::invalid_argument(text)
}

/// All policy at once.
pub(super) fn all(shown: &proto::SetPoliciesRequest) -> Result<RoutePolicy, Status> {
    let refused = |why: config::ChangeError| Status::invalid_argument(why.to_string());
    let mut policy = RoutePolicy::default();
    for one in &shown.defined_sets {
        let (name, members) = set(one)?;
        policy.add_set(&name, members, false);
    }
    for one in &shown.policies {
        policy.add_policy(self::policy(Some(one))?, false).map_err(refused)?;
    }
    for one in &shown.assignments {
        let one = assignment(Some(one))?;
        let how = config::Assign::Set;
        policy.assign(one.direction, how, &one.policies, one.default).map_err(refused)?;
    }
    Ok(policy)
}

fn disposition(number: i32) -> Result<Option<Disposition>, Status> {
    match proto::RouteAction::try_from(number) {
        Ok(proto::RouteAction::ActionNone) => Ok(None),
        Ok(proto::RouteAction::Accept) => Ok(Some(Disposition::Accept)),
        Ok(proto::RouteAction::Reject) => Ok(Some(Disposition::Reject)),
        Err(_) => Err(bad("route action", number, "0 (none), 1 (accept) or 2 (reject)")),
    }
}

fn conditions(shown: &proto::Conditions) -> Result<Conditions, Status> {
    if shown.rpki_result > 0 {
        let text = "no route is validated here (RPKI), so the condition would never be met";
        return Err(Status::unimplemented(text));
    }
    Ok(Conditions {
        prefix: set_match(shown.prefix_set.as_ref(), "prefix")?,
        neighbor: set_match(shown.neighbor_set.as_ref(), "neighbor")?,
        community: set_match(shown.community_set.as_ref(), "community")?,
        ext_community: set_match(shown.ext_community_set.as_ref(), "ext-community")?,
        large_community: set_match(shown.large_community_set.as_ref(), "large-community")?,
        as_path: set_match(shown.as_path_set.as_ref(), "as-path")?,
        // Comparisons have other numbers where version 4 added them.
        as_path_length: shown
            .as_path_length
            .map(|compared| comparison(compared.r#type, compared.length))
            .transpose()?,
        community_count: shown
            .community_count
            .map(|compared| comparison(compared.r#type - 1, compared.count))
            .transpose()?,
        route_type: match shown.route_type {
            0 => None,
            1 => Some(RouteType::Internal),
            2 => Some(RouteType::External),
            3 => Some(RouteType::Local),
            other => return Err(bad("route type", other, "from 0 to 3")),
        },
        next_hops: shown.next_hop_in_list.iter().map(|text| network(text)).collect::<Result<_, _>>()?,
        families: shown
            .afi_safi_in
            .iter()
            .map(|family| read_family(Some(*family)))
            .collect::<Result<_, _>>()?,
        origin: origin(shown.origin)?,
        med: shown.med_eq.map(|number| number.value),
        local_pref: shown.local_pref_eq.map(|number| number.value),
        never: false,
    })
}

fn set_match(shown: Option<&proto::MatchSet>, kind: &str) -> Result<Option<SetMatch>, Status> {
    let Some(shown) = shown else { return Ok(None) };
    let option = match shown.r#type {
        0 => MatchOption::Any,
        1 => MatchOption::All,
        2 => MatchOption::Invert,
        other => return Err(bad(kind, other, "any, all or invert")),
    };
    // The stock client names no set when it takes a condition away.
    Ok(Some(SetMatch { set: shown.name.clone(), option }))
}

fn comparison(kind: i32, value: u32) -> Result<Compared, Status> {
    match kind {
        0 => Ok(Compared::Equal(value)),
        1 => Ok(Compared::AtLeast(value)),
        2 => Ok(Compared::AtMost(value)),
        other => Err(bad("comparison", other, "equal, at least or at most")),
    }
}

fn origin(number: i32) -> Result<Option<OriginWord>, Status> {
    match number {
        0 => Ok(None),
        1 => Ok(Some(OriginWord::Igp)),
        2 => Ok(Some(OriginWord::Egp)),
        3 => Ok(Some(OriginWord::Incomplete)),
        other => Err(bad("origin", other, "from 0 to 3")),
    }
}

fn actions(shown: &proto::Actions) -> Result<Actions, Status> {
    Ok(Actions {
        disposition: disposition(shown.route_action)?,
        med: shown.med.map(med).transpose()?,
        local_pref: shown.local_pref.map(|action| action.value),
        next_hop: shown.nexthop.as_ref().map(next_hop).transpose()?,
        origin: origin(shown.origin_action.unwrap_or_default().origin)?,
        prepend: shown.as_prepend.map(prepend).transpose()?,
        community: communities(
            shown.community.as_ref(),
            config::community,
            Pattern::community,
            "a community like 65000:100",
        )?,
        ext_community: communities(
            shown.ext_community.as_ref(),
            config::ext_community,
            Pattern::ext_community,
            "an extended community like rt:65000:100",
        )?,
        large_community: communities(
            shown.large_community.as_ref(),
            config::large_community,
            Pattern::large_community,
            "a large community like 65000:1:2",
        )?,
    })
}

fn med(shown: proto::MedAction) -> Result<MedAction, Status> {
    let bounded = i64::from(u32::MAX);
    match (shown.r#type, shown.value) {
        (0, change) if (-bounded..=bounded).contains(&change) => Ok(MedAction::Add(change)),
        (1, value) => u32::try_from(value).map(MedAction::Set).map_err(|_why| bad("MED", value, "32 bits")),
        (0, value) => Err(bad("change of the MED", value, "within 32 bits")),
        (other, _) => Err(bad("MED action", other, "0 (change) or 1 (replace)")),
    }
}

fn next_hop(shown: &proto::NexthopAction) -> Result<NextHopAction, Status> {
    match shown.address.as_str() {
        _ if shown.self_ => Ok(NextHopAction::Own),
        _ if shown.unchanged => Ok(NextHopAction::Unchanged),
        // The stock client of version 3 sends the word.
        "self" => Ok(NextHopAction::Own),
        "unchanged" => Ok(NextHopAction::Unchanged),
        "peer-address" => Ok(NextHopAction::Peer),
        _ if shown.peer_address => Ok(NextHopAction::Peer),
        text => text.parse().map(NextHopAction::Address).map_err(|_why| bad("next hop", text, "an address")),
    }
}

fn prepend(shown: proto::AsPrependAction) -> Result<Prepend, Status> {
    let repeat = u8::try_from(shown.repeat).ok().filter(|repeat| *repeat > 0);
    let repeat = repeat.ok_or_else(|| bad("as-prepend repeat", shown.repeat, "from 1 to 255"))?;
    match (shown.use_left_most, shown.asn) {
        (true, _) => Ok(Prepend { asn: None, repeat }),
        (false, 0) => Err(bad("as-prepend", 0, "an AS number")),
        (false, asn) => Ok(Prepend { asn: Some(asn), repeat }),
    }
}

fn communities<C>(
    shown: Option<&proto::CommunityAction>,
    value: fn(&str) -> Option<C>,
    pattern: fn(&str) -> Result<Pattern, String>,
    expected: &str,
) -> Result<Option<config::CommunityAction<C>>, Status> {
    let Some(shown) = shown else { return Ok(None) };
    let values = || -> Result<Vec<C>, Status> {
        // The stock client sends an expression that fits the one value: ^65000:100$.
        let plain = |text: &str| text.trim_start_matches('^').trim_end_matches('$').to_owned();
        let read = |text: &String| value(&plain(text)).ok_or_else(|| bad("community", text, expected));
        shown.communities.iter().map(read).collect()
    };
    Ok(Some(match shown.r#type {
        0 => config::CommunityAction::Add(values()?),
        1 => {
            let patterns =
                shown.communities.iter().map(|text| pattern(text).map_err(Status::invalid_argument));
            config::CommunityAction::Remove(patterns.collect::<Result<_, _>>()?)
        }
        2 => config::CommunityAction::Replace(values()?),
        other => return Err(bad("community action", other, "0 (add), 1 (remove) or 2 (replace)")),
    }))
}

fn bad(name: &str, found: impl Display, expected: &str) -> Status {
    Status::invalid_argument(format!("{name}: {found} is not {expected}"))
}

#[cfg(test)]
mod tests {
    use super::{super::policy as shown, *};
    use crate::Config;

    const FILE: &str = "[global.config]\nas = 64512\nrouter-id = \"192.0.2.1\"\n\
        [global.apply-policy.config]\nimport-policy-list = [\"p\"]\ndefault-import-policy = \"reject-route\"\n\
        [[defined-sets.prefix-sets]]\nprefix-set-name = \"ps\"\nprefix-list = [{ ip-prefix = \"10.0.0.0/8\", masklength-range = \"16..24\" }]\n\
        [[defined-sets.neighbor-sets]]\nneighbor-set-name = \"ns\"\nneighbor-info-list = [\"192.0.2.0/24\"]\n\
        [[defined-sets.bgp-defined-sets.community-sets]]\ncommunity-set-name = \"cs\"\ncommunity-list = [\"65000:100\", \"^65000:.*$\"]\n\
        [[defined-sets.bgp-defined-sets.ext-community-sets]]\next-community-set-name = \"es\"\next-community-list = [\"rt:65000:1\"]\n\
        [[defined-sets.bgp-defined-sets.large-community-sets]]\nlarge-community-set-name = \"ls\"\nlarge-community-list = [\"1:2:3\"]\n\
        [[defined-sets.bgp-defined-sets.as-path-sets]]\nas-path-set-name = \"as\"\nas-path-list = [\"^65001_\"]\n\
        [[policy-definitions]]\nname = \"p\"\n\
        [[policy-definitions.statements]]\nname = \"s\"\n\
        [policy-definitions.statements.conditions]\nmatch-prefix-set = { prefix-set = \"ps\", match-set-options = \"invert\" }\n\
        match-neighbor-set = { neighbor-set = \"ns\" }\n\
        [policy-definitions.statements.conditions.bgp-conditions]\n\
        match-community-set = { community-set = \"cs\", match-set-options = \"all\" }\n\
        match-ext-community-set = { ext-community-set = \"es\" }\nmatch-large-community-set = { large-community-set = \"ls\" }\n\
        match-as-path-set = { as-path-set = \"as\" }\nas-path-length = { operator = \"ge\", value = 3 }\n\
        community-count = { operator = \"le\", value = 4 }\nroute-type = \"external\"\nnext-hop-in-list = [\"192.0.2.9\"]\n\
        afi-safi-in-list = [\"ipv4-unicast\"]\norigin-eq = \"egp\"\nmed-eq = 0\nlocal-pref-eq = 100\n\
        [policy-definitions.statements.actions]\nroute-disposition = \"accept-route\"\n\
        [policy-definitions.statements.actions.bgp-actions]\nset-med = \"-5\"\nset-local-pref = 7\nset-next-hop = \"peer-address\"\n\
        set-route-origin = \"igp\"\nset-as-path-prepend = { as = \"last-as\", repeat-n = 2 }\n\
        set-community = { options = \"remove\", set-community-method = { communities-list = [\"^1:.*$\"] } }\n\
        set-ext-community = { options = \"replace\", set-ext-community-method = { communities-list = [\"rt:1:2\"] } }\n\
        set-large-community = { options = \"add\", set-large-community-method = { communities-list = [\"1:2:3\"] } }\n";

    #[test]
    fn what_is_shown_is_read_back() {
        let config = Config::from_toml(FILE, "f").unwrap();
        let kinds = (0..8).filter_map(|kind| proto::DefinedType::try_from(kind).ok());
        let request = proto::SetPoliciesRequest {
            defined_sets: kinds.flat_map(|kind| shown::show_sets(&config.policy.sets, kind, "")).collect(),
            policies: config.policy.policies.iter().map(shown::show).collect(),
            assignments: shown::show_assignments(&config.policy, 0),
        };
        assert_eq!(all(&request).unwrap(), config.policy);
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_is_expected() {
        let set_of = |kind, list: &[&str]| proto::DefinedSet {
            defined_type: kind,
            name: "n".to_owned(),
            list: list.iter().map(|text| (*text).to_owned()).collect(),
            prefixes: vec![],
        };
        let range = |text: &str, min, max| proto::DefinedSet {
            prefixes: vec![proto::Prefix {
                ip_prefix: text.to_owned(),
                mask_length_min: min,
                mask_length_max: max,
            }],
            ..set_of(0, &[])
        };
        for (shown, why) in [
            (proto::DefinedSet { name: String::new(), ..set_of(0, &[]) }, "needs a name"),
            (range("x", 0, 0), "x is not a prefix"),
            (range("10.0.0.0/8", 24, 16), "24..16"),
            (range("10.0.0.0/8", 8, 33), "8..33"),
            (set_of(1, &["x"]), "x is not an address"),
            (set_of(3, &["("]), "regular expression"),
            (set_of(5, &["encap:1"]), "rt:65000:100"),
            (set_of(2, &[]), "tags"),
            (set_of(9, &[]), "defined_type: 9"),
        ] {
            let status = set(&shown).unwrap_err();
            assert!(status.message().contains(why), "{status}");
        }
        let of = |actions: proto::Actions| proto::Statement {
            name: "s".to_owned(),
            conditions: None,
            actions: Some(actions),
        };
        let none = proto::Actions::default;
        let community = proto::CommunityAction { r#type: 0, communities: vec!["x".to_owned()] };
        for (actions, why) in [
            (proto::Actions { route_action: 9, ..none() }, "route action: 9"),
            (proto::Actions { med: Some(proto::MedAction { r#type: 1, value: -1 }), ..none() }, "MED: -1"),
            (proto::Actions { as_prepend: Some(proto::AsPrependAction::default()), ..none() }, "repeat: 0"),
            (
                proto::Actions { nexthop: Some(proto::NexthopAction::default()), ..none() },
                "next hop:  is not",
            ),
            (proto::Actions { community: Some(community), ..none() }, "65000:100"),
        ] {
            let status = statement(Some(&of(actions))).unwrap_err();
            assert!(status.message().contains(why), "{status}");
        }
        assert!(statement(None).unwrap_err().message().contains("no statement"));
        let named =
            proto::PolicyAssignment { name: "192.0.2.1".to_owned(), ..proto::PolicyAssignment::default() };
        let status = assignment(Some(&named)).err().unwrap();
        assert!(status.message().contains("route server clients"), "{status}");
    }
}
