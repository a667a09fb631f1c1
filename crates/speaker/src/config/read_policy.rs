//! Turns the tables of sets and policies into values, and tells names that do not exist.

use super::{
    check::Checker,
    node::Node,
    pattern::{self, Pattern},
    peer::family_named,
    policy::{
        Actions, Assignment, CommunityAction, Compared, Conditions, DefinedSets, Disposition, MatchOption,
        MedAction, NextHopAction, OriginWord, PolicyDefinition, PrefixRange, Prepend, RoutePolicy, RouteType,
        SetMatch, Statement,
    },
};
use ipnet::IpNet;
use isthmus_bgp::Family;
use std::{collections::BTreeMap, net::IpAddr};

/// Reads one text of a list.
type Parse<T> = fn(&str) -> Result<T, String>;
/// Sets of patterns by name.
type PatternSets = BTreeMap<String, Vec<Pattern>>;

/// Reads sets, policies and what applies.
pub(super) fn read(checker: &mut Checker<'_>, file: &Node<'_>) -> RoutePolicy {
    let sets = defined_sets(checker, &file.table("defined-sets"));
    let mut policies: Vec<PolicyDefinition> = Vec::new();
    for node in file.tables("policy-definitions") {
        let policy = PolicyReader { checker, sets: &sets }.policy(&node);
        if policies.iter().any(|other| other.name == policy.name) {
            let why = format!("\"{}\" is defined twice", policy.name);
            checker.fault(node.place("name"), "policy-definitions.name", &why);
        }
        policies.push(policy);
    }
    let node = file.table("global").config("apply-policy");
    let import = assignment(checker, &node, "import", &policies);
    let export = assignment(checker, &node, "export", &policies);
    RoutePolicy { sets, policies, spare: Vec::new(), import, export }
}

fn assignment(
    checker: &mut Checker<'_>,
    node: &Node<'_>,
    direction: &str,
    policies: &[PolicyDefinition],
) -> Assignment {
    let key = format!("{direction}-policy-list");
    let mut names = Vec::new();
    for (place, name) in node.texts(&key) {
        if !policies.iter().any(|policy| policy.name == name) {
            let why = format!("there is no policy \"{name}\" among policy-definitions");
            checker.fault(place, &format!("global.apply-policy.config.{key}"), &why);
        }
        names.push(name);
    }
    let default = node.text(&format!("default-{direction}-policy"));
    Assignment { policies: names, default: default.map(|word| disposition(&word)).unwrap_or_default() }
}

fn disposition(word: &str) -> Disposition {
    if word == "reject-route" { Disposition::Reject } else { Disposition::Accept }
}

fn defined_sets(checker: &mut Checker<'_>, node: &Node<'_>) -> DefinedSets {
    let bgp = node.table("bgp-defined-sets");
    let mut sets = DefinedSets {
        prefixes: prefix_sets(checker, node),
        neighbors: named_sets(
            checker,
            node,
            "neighbor-sets",
            ["neighbor-set-name", "neighbor-info-list"],
            network,
        ),
        ..DefinedSets::default()
    };
    let lists: [(&str, [&str; 2], Parse<Pattern>, &mut PatternSets); 4] = [
        (
            "community-sets",
            ["community-set-name", "community-list"],
            Pattern::community,
            &mut sets.communities,
        ),
        (
            "ext-community-sets",
            ["ext-community-set-name", "ext-community-list"],
            Pattern::ext_community,
            &mut sets.ext_communities,
        ),
        (
            "large-community-sets",
            ["large-community-set-name", "large-community-list"],
            Pattern::large_community,
            &mut sets.large_communities,
        ),
        ("as-path-sets", ["as-path-set-name", "as-path-list"], Pattern::as_path, &mut sets.as_paths),
    ];
    for (list, keys, parse, place) in lists {
        *place = named_sets(checker, &bgp, list, keys, parse);
    }
    sets
}

fn named_sets<T>(
    checker: &mut Checker<'_>,
    node: &Node<'_>,
    list: &str,
    [name_key, members_key]: [&str; 2],
    parse: Parse<T>,
) -> BTreeMap<String, Vec<T>> {
    let mut sets = BTreeMap::new();
    for (set, place) in node.tables(list).iter().zip(node.tables_places(list)) {
        let mut members = Vec::new();
        for (place, text) in set.texts(members_key) {
            match parse(&text) {
                Ok(member) => members.push(member),
                Err(why) => checker.fault(place, &format!("defined-sets.{list}.{members_key}"), &why),
            }
        }
        insert_set(checker, &mut sets, set, place, (list, name_key), members);
    }
    sets
}

fn insert_set<T>(
    checker: &mut Checker<'_>,
    sets: &mut BTreeMap<String, Vec<T>>,
    set: &Node<'_>,
    place: std::ops::Range<usize>,
    (list, name_key): (&str, &str),
    members: Vec<T>,
) {
    let key = format!("defined-sets.{list}.{name_key}");
    let Some(name) = set.text(name_key) else {
        checker.fault(place, &key, "is missing: a set needs a name");
        return;
    };
    if sets.insert(name.clone(), members).is_some() {
        checker.fault(set.place(name_key), &key, &format!("\"{name}\" is defined twice"));
    }
}

fn prefix_sets(checker: &mut Checker<'_>, node: &Node<'_>) -> BTreeMap<String, Vec<PrefixRange>> {
    let list = "prefix-sets";
    let mut sets = BTreeMap::new();
    for (set, place) in node.tables(list).iter().zip(node.tables_places(list)) {
        let mut members = Vec::new();
        for (member, place) in set.tables("prefix-list").iter().zip(set.tables_places("prefix-list")) {
            let Some(prefix) = member.prefix("ip-prefix") else {
                if !member.has("ip-prefix") {
                    let why = "is missing: write a prefix such as \"10.0.0.0/8\"";
                    checker.fault(place, "defined-sets.prefix-sets.prefix-list.ip-prefix", why);
                }
                continue;
            };
            match range(prefix, member.text("masklength-range").as_deref()) {
                Ok(range) => members.push(range),
                Err(why) => {
                    let key = "defined-sets.prefix-sets.prefix-list.masklength-range";
                    checker.fault(member.place("masklength-range"), key, &why);
                }
            }
        }
        insert_set(checker, &mut sets, set, place, (list, "prefix-set-name"), members);
    }
    sets
}

/// Reads `24..32`; without it only the prefix itself fits.
fn range(prefix: IpNet, text: Option<&str>) -> Result<PrefixRange, String> {
    let Some(text) = text else {
        return Ok(PrefixRange { prefix, len_min: prefix.prefix_len(), len_max: prefix.prefix_len() });
    };
    let bounds = text.split_once("..").and_then(|(min, max)| Some((min.parse().ok()?, max.parse().ok()?)));
    match bounds {
        Some((len_min, len_max)) if len_min <= len_max && len_max <= prefix.max_prefix_len() => {
            Ok(PrefixRange { prefix, len_min, len_max })
        }
        _ => Err(format!(
            "\"{text}\" is no range of lengths: write one like \"{}..{}\"",
            prefix.prefix_len(),
            prefix.max_prefix_len()
        )),
    }
}

/// A network, or an address as a network of one.
fn network(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address
        .or_else(|_| text.parse::<IpNet>().map(|network| network.trunc()))
        .map_err(|_why| format!("\"{text}\" is neither an address nor a network"))
}

struct PolicyReader<'r, 'a> {
    checker: &'r mut Checker<'a>,
    sets: &'r DefinedSets,
}

impl PolicyReader<'_, '_> {
    fn policy(&mut self, node: &Node<'_>) -> PolicyDefinition {
        let Some(name) = node.text("name") else {
            self.checker.fault(
                node.place("statements"),
                "policy-definitions.name",
                "is missing: a policy needs a name",
            );
            return PolicyDefinition { name: String::new(), statements: Vec::new() };
        };
        let nodes = node.tables("statements");
        let statement = |(index, node): (usize, &Node<'_>)| Statement {
            name: node.text("name").unwrap_or_else(|| format!("{name}_stmt{index}")),
            conditions: self.conditions(&node.table("conditions")),
            actions: self.actions(&node.table("actions")),
        };
        let statements = nodes.iter().enumerate().map(statement).collect();
        PolicyDefinition { name, statements }
    }

    fn conditions(&mut self, node: &Node<'_>) -> Conditions {
        let bgp = node.table("bgp-conditions");
        let sets = self.sets;
        let has = |names: Vec<&String>, name: &str| names.iter().any(|other| *other == name);
        let next_hops =
            bgp.texts("next-hop-in-list").into_iter().filter_map(|(place, text)| match network(&text) {
                Ok(network) => Some(network),
                Err(why) => {
                    self.checker.fault(
                        place,
                        "policy-definitions.statements.conditions.bgp-conditions.next-hop-in-list",
                        &why,
                    );
                    None
                }
            });
        let next_hops = next_hops.collect();
        Conditions {
            prefix: self.set(node, "prefix-set", |name| has(sets.prefixes.keys().collect(), name)),
            neighbor: self.set(node, "neighbor-set", |name| has(sets.neighbors.keys().collect(), name)),
            community: self.set(&bgp, "community-set", |name| has(sets.communities.keys().collect(), name)),
            ext_community: self
                .set(&bgp, "ext-community-set", |name| has(sets.ext_communities.keys().collect(), name)),
            large_community: self
                .set(&bgp, "large-community-set", |name| has(sets.large_communities.keys().collect(), name)),
            as_path: self.set(&bgp, "as-path-set", |name| has(sets.as_paths.keys().collect(), name)),
            as_path_length: compared(&bgp.table("as-path-length")),
            community_count: compared(&bgp.table("community-count")),
            route_type: bgp.text("route-type").map(|word| match word.as_str() {
                "internal" => RouteType::Internal,
                "external" => RouteType::External,
                _ => RouteType::Local,
            }),
            next_hops,
            families: families(&bgp),
            origin: bgp.text("origin-eq").map(|word| origin(&word)),
            med: bgp.number("med-eq"),
            local_pref: bgp.number("local-pref-eq"),
            // A list of families that has none of ours is never met either.
            never: bgp.has("rpki-validation-result")
                || (bgp.has("afi-safi-in-list") && families(&bgp).is_empty()),
        }
    }

    fn set(&mut self, node: &Node<'_>, kind: &str, exists: impl Fn(&str) -> bool) -> Option<SetMatch> {
        let condition = format!("match-{kind}");
        let table = node.table(&condition);
        let name = table.text(kind);
        let key = format!("policy-definitions.statements.conditions.{condition}.{kind}");
        let Some(set) = name else {
            if node.has(&condition) && !table.has(kind) {
                self.checker.fault(node.place(&condition), &key, "is missing: write the name of a set");
            }
            return None;
        };
        if !exists(&set) {
            let why = format!("there is no such {kind} \"{set}\" among defined-sets");
            self.checker.fault(table.place(kind), &key, &why);
        }
        let option = match table.text("match-set-options").as_deref() {
            Some("all") => MatchOption::All,
            Some("invert") => MatchOption::Invert,
            _ => MatchOption::Any,
        };
        Some(SetMatch { set, option })
    }

    fn actions(&mut self, node: &Node<'_>) -> Actions {
        let bgp = node.table("bgp-actions");
        Actions {
            disposition: node.text("route-disposition").map(|word| disposition(&word)),
            med: self.parsed(&bgp, "set-med", med),
            local_pref: bgp.number("set-local-pref"),
            next_hop: self.next_hop(&bgp),
            origin: bgp.text("set-route-origin").map(|word| origin(&word)),
            prepend: self.prepend(&bgp),
            community: self.communities(&bgp, "set-community", Pattern::community, |text| {
                pattern::community(text)
                    .ok_or_else(|| format!("\"{text}\" is no community: write one like 65000:100"))
            }),
            ext_community: self.communities(&bgp, "set-ext-community", Pattern::ext_community, |text| {
                pattern::ext_community(text).ok_or_else(|| {
                    format!("\"{text}\" is no extended community: write one like rt:65000:100")
                })
            }),
            large_community: self.communities(
                &bgp,
                "set-large-community",
                Pattern::large_community,
                |text| {
                    pattern::large_community(text)
                        .ok_or_else(|| format!("\"{text}\" is no large community: write one like 65000:1:2"))
                },
            ),
        }
    }

    fn parsed<T>(&mut self, node: &Node<'_>, key: &str, parse: Parse<T>) -> Option<T> {
        match parse(&node.loose(key)?) {
            Ok(value) => Some(value),
            Err(why) => {
                let path = format!("policy-definitions.statements.actions.bgp-actions.{key}");
                self.checker.fault(node.place(key), &path, &why);
                None
            }
        }
    }

    fn next_hop(&mut self, bgp: &Node<'_>) -> Option<NextHopAction> {
        let action = self.parsed(bgp, "set-next-hop", next_hop)?;
        if action == NextHopAction::Unchanged {
            let why = "has no effect: external neighbours get our own address as next hop, others the one that came";
            let key = "policy-definitions.statements.actions.bgp-actions.set-next-hop";
            self.checker.warn(bgp.place("set-next-hop"), key, why);
        }
        Some(action)
    }

    fn prepend(&mut self, bgp: &Node<'_>) -> Option<Prepend> {
        let node = bgp.table("set-as-path-prepend");
        let asn = self.parsed(&node, "as", |text| match text {
            "last-as" => Ok(None),
            text => match text.parse::<u32>() {
                Ok(asn) if asn != 0 => Ok(Some(asn)),
                _ => Err(format!("\"{text}\" is no AS number, and not \"last-as\"")),
            },
        })?;
        Some(Prepend { asn, repeat: node.number("repeat-n").unwrap_or(1) })
    }

    fn communities<C>(
        &mut self,
        bgp: &Node<'_>,
        key: &str,
        pattern: Parse<Pattern>,
        value: Parse<C>,
    ) -> Option<CommunityAction<C>> {
        if !bgp.has(key) {
            return None;
        }
        let node = bgp.table(key);
        let texts = node.table(&format!("{key}-method")).texts("communities-list");
        let path =
            format!("policy-definitions.statements.actions.bgp-actions.{key}.{key}-method.communities-list");
        match node.text("options").as_deref() {
            Some("remove") => Some(CommunityAction::Remove(self.all(&path, texts, pattern))),
            Some("replace") => Some(CommunityAction::Replace(self.all(&path, texts, value))),
            _ => Some(CommunityAction::Add(self.all(&path, texts, value))),
        }
    }

    fn all<T>(
        &mut self,
        path: &str,
        texts: Vec<(std::ops::Range<usize>, String)>,
        parse: Parse<T>,
    ) -> Vec<T> {
        let mut values = Vec::new();
        for (place, text) in texts {
            match parse(&text) {
                Ok(value) => values.push(value),
                Err(why) => self.checker.fault(place, path, &why),
            }
        }
        values
    }
}

fn families(bgp: &Node<'_>) -> Vec<Family> {
    bgp.texts("afi-safi-in-list").iter().filter_map(|(_, name)| family_named(name)).collect()
}

fn compared(node: &Node<'_>) -> Option<Compared> {
    let value = node.number("value")?;
    match node.text("operator")?.trim_start_matches("attribute-") {
        "eq" => Some(Compared::Equal(value)),
        "ge" => Some(Compared::AtLeast(value)),
        _ => Some(Compared::AtMost(value)),
    }
}

fn origin(word: &str) -> OriginWord {
    match word {
        "igp" => OriginWord::Igp,
        "egp" => OriginWord::Egp,
        _ => OriginWord::Incomplete,
    }
}

/// `100` sets; `+100` and `-100` change.
fn med(text: &str) -> Result<MedAction, String> {
    let bad = || format!("\"{text}\" is no MED: write one like 100, +100 or -100");
    match text.as_bytes().first() {
        Some(b'+' | b'-') => {
            let change: i64 = text.parse().map_err(|_why| bad())?;
            let bounded = i64::from(u32::MAX);
            if (-bounded..=bounded).contains(&change) { Ok(MedAction::Add(change)) } else { Err(bad()) }
        }
        _ => text.parse().map(MedAction::Set).map_err(|_why| bad()),
    }
}

fn next_hop(text: &str) -> Result<NextHopAction, String> {
    match text {
        "self" => Ok(NextHopAction::Own),
        "peer-address" => Ok(NextHopAction::Peer),
        "unchanged" => Ok(NextHopAction::Unchanged),
        text => text.parse().map(NextHopAction::Address).map_err(|_why| {
            format!(
                "\"{text}\" is no next hop: write an address, \"self\", \"peer-address\" or \"unchanged\""
            )
        }),
    }
}
