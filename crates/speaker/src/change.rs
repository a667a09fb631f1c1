//! Changes that somebody asks for while the speaker runs. Each is made as a whole or not at all.

use crate::config::{
    Assign, ChangeError, Config, Disposition, MrtDump, PolicyDefinition, PolicyDirection, RoutePolicy,
    SetMembers, Statement, StationSettings,
};
use std::net::{IpAddr, SocketAddr};
use toml::Table;

/// One change. Tables are what would stand in the file.
#[derive(Clone, PartialEq)]
pub enum Change {
    /// A neighbour is added, or with `replace` changed.
    SetNeighbor {
        /// As under `[[neighbors]]`.
        table: Table,
        /// It is there.
        replace: bool,
    },
    /// A neighbour goes.
    RemoveNeighbor(IpAddr),
    /// A group is added, or with `replace` changed with all its members.
    SetGroup {
        /// As under `[[peer-groups]]`.
        table: Table,
        /// It is there.
        replace: bool,
    },
    /// A group without members goes.
    RemoveGroup(String),
    /// Neighbours may come from a range.
    AddRange {
        /// Their addresses.
        prefix: String,
        /// Their group.
        group: String,
    },
    /// None may come from a range any longer.
    RemoveRange {
        /// Their addresses.
        prefix: String,
        /// Their group, or empty.
        group: String,
    },
    /// A set, or members of one, are added.
    AddSet {
        /// Its name.
        name: String,
        /// What is added.
        members: SetMembers,
        /// It has no others then.
        replace: bool,
    },
    /// Members of a set go, or all of it.
    RemoveSet {
        /// Its name.
        name: String,
        /// What goes.
        members: SetMembers,
        /// The set goes.
        all: bool,
    },
    /// A statement, or parts of one, are added.
    AddStatement(Box<Statement>),
    /// Parts of a statement go, or all of it.
    RemoveStatement {
        /// Its name and parts.
        statement: Box<Statement>,
        /// The statement goes.
        all: bool,
    },
    /// A policy, or statements of one, are added.
    AddPolicy {
        /// Its name and statements.
        policy: PolicyDefinition,
        /// The statements are there, and only named.
        refer: bool,
    },
    /// Statements of a policy go, or all of it.
    RemovePolicy {
        /// Its name and statements.
        policy: PolicyDefinition,
        /// The policy goes.
        all: bool,
        /// Its statements stay.
        preserve: bool,
    },
    /// Policies are assigned.
    Assign {
        /// To which routes.
        direction: PolicyDirection,
        /// How.
        how: Assign,
        /// Names of policies.
        policies: Vec<String>,
        /// What becomes of routes that none decides about; `None`: as it was.
        default: Option<Disposition>,
    },
    /// All policy is another one.
    SetPolicies(Box<RoutePolicy>),
    /// Something is dumped into a file.
    AddMrtDump(MrtDump),
    /// Nothing is dumped into the file with this name any longer.
    RemoveMrtDump(String),
    /// A monitoring station is told of routes.
    AddStation(SocketAddr, StationSettings),
    /// A monitoring station is told no more.
    RemoveStation(SocketAddr),
}

impl std::fmt::Debug for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Tables may have passwords.
        f.write_str("Change(..)")
    }
}

impl Change {
    /// Makes it. After an error `config` is as it was.
    pub(crate) fn apply(self, config: &mut Config) -> Result<(), ChangeError> {
        let policy = &mut config.policy;
        match self {
            Self::SetNeighbor { table, replace } => config.set_neighbor(table, replace).map(drop),
            Self::RemoveNeighbor(address) => config.remove_neighbor(address),
            Self::SetGroup { table, replace } => config.set_group(table, replace),
            Self::RemoveGroup(name) => config.remove_group(&name),
            Self::AddRange { prefix, group } => config.add_range(&prefix, &group),
            Self::RemoveRange { prefix, group } => config.remove_range(&prefix, &group),
            Self::AddSet { name, members, replace } => {
                policy.add_set(&name, members, replace);
                Ok(())
            }
            Self::RemoveSet { name, members, all } => policy.remove_set(&name, &members, all),
            Self::AddStatement(statement) => policy.add_statement(*statement),
            Self::RemoveStatement { statement, all } => policy.remove_statement(*statement, all),
            Self::AddPolicy { policy: added, refer } => policy.add_policy(added, refer),
            Self::RemovePolicy { policy: removed, all, preserve } => {
                policy.remove_policy(&removed, all, preserve)
            }
            Self::Assign { direction, how, policies, default } => {
                policy.assign(direction, how, &policies, default)
            }
            Self::SetPolicies(all) => {
                *policy = *all;
                Ok(())
            }
            Self::AddMrtDump(dump) => config.add_mrt_dump(dump),
            Self::RemoveMrtDump(file_name) => config.remove_mrt_dump(&file_name),
            Self::AddStation(address, settings) => config.add_station(address, settings),
            Self::RemoveStation(address) => config.remove_station(address),
        }
    }
}
