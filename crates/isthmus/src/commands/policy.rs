//! `isthmus policy`: who may reach whom.

use super::{Session, why::port};
use crate::{
    api::Server,
    failure::{Exit, Failure},
    names,
    output::{Column, OutputArgs, View},
    selector::Selector,
};
use isthmus_api::rest::{Draft, PolicySpec, Resource, Rollout, RuleSpec, WorkloadSpec};
use isthmus_core::PortMatch;
use serde::Serialize;
use std::{collections::BTreeMap, time::Instant};

/// How long to wait for the nodes, unless told otherwise. A policy is in force within a tenth of a second.
const WAIT_SECONDS: u64 = 5;
/// Longest wait of one call.
const TURN_SECONDS: u64 = 20;

/// What can be done with policies.
#[derive(Debug, clap::Subcommand)]
pub enum PolicyCommand {
    /// Allows one app to reach another.
    Allow(AllowArgs),
    /// Removes a policy. Connections that only it allowed stop at once.
    #[command(
        alias = "delete",
        after_help = "Examples:\n  isthmus policy remove web-to-cart-tcp-8080\n  isthmus policy remove web-to-cart-tcp-8080 --dry-run"
    )]
    Remove {
        /// Name of the policy.
        name: String,
        /// Only says what would happen.
        #[arg(long)]
        dry_run: bool,
    },
    /// Lists the rules of all policies.
    #[command(after_help = "Examples:\n  isthmus policy list\n  isthmus policy list --sort to -o csv")]
    List {
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
        /// Only policies with these labels: k=v,k!=v,k,!k.
        #[arg(short = 'l', long, default_value = "", value_name = "LABELS")]
        selector: String,
    },
    /// Shows the rules of one policy.
    #[command(
        after_help = "Examples:\n  isthmus policy show web-to-cart-tcp-8080\n  isthmus policy show web-to-cart-tcp-8080 -o json"
    )]
    Show {
        /// Name of the policy.
        name: String,
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// Arguments of `policy allow`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  isthmus policy allow web cart tcp:8080 --reason CHG-881\n  isthmus policy allow k8s:shop/web@red cf:acme/prod/cart tcp:8000-8010 --dry-run"
)]
pub struct AllowArgs {
    /// The app that opens the connection: platform:group/app@cluster, a unique part of that, or a UUID.
    #[arg(value_name = "FROM")]
    from: String,
    /// The app that is to be reached.
    #[arg(value_name = "TO")]
    to: String,
    /// Protocol and port: tcp:8080, udp:8000-8010, icmp, any.
    #[arg(value_name = "PORT", value_parser = port)]
    port: PortMatch,
    /// Name of the policy; made of the apps' names if absent.
    #[arg(long)]
    name: Option<String>,
    /// Why it exists: a ticket, a sentence.
    #[arg(long)]
    reason: Option<String>,
    /// Labels of the policy: k=v.
    #[arg(long, value_name = "K=V", value_parser = super::label)]
    label: Vec<(String, String)>,
    /// Only says what would happen.
    #[arg(long)]
    dry_run: bool,
    /// How long to wait until every node that needs it has loaded it; status 5 if that takes longer.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=3600))]
    wait: Option<u64>,
}

/// One rule of one policy, by name.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    policy: String,
    from: String,
    to: String,
    port: String,
    reason: String,
    revision: u64,
    from_uuid: String,
    to_uuid: String,
}

/// Does what is said.
pub async fn run(command: PolicyCommand, session: &mut Session) -> Result<Exit, Failure> {
    match command {
        PolicyCommand::Allow(args) => allow(args, session).await,
        PolicyCommand::Remove { name, dry_run } => remove(&name, dry_run, session).await,
        PolicyCommand::List { output, selector } => {
            let selector = Selector::parse(&selector)?;
            let server = session.server()?;
            let policies = server.selected::<PolicySpec>("policies", &selector).await?;
            let names = app_names(&server).await?;
            view().list(
                &mut *session.out,
                &output,
                policies.iter().flat_map(|policy| rules(policy, &names)).collect(),
            )?;
            Ok(Exit::Yes)
        }
        PolicyCommand::Show { name, output } => {
            let server = session.server()?;
            let policy = server.one::<PolicySpec>("policies", &name).await?;
            view().list(&mut *session.out, &output, rules(&policy, &app_names(&server).await?))?;
            Ok(Exit::Yes)
        }
    }
}

/// Writes a policy of one rule.
pub async fn allow(args: AllowArgs, session: &mut Session) -> Result<Exit, Failure> {
    let server = session.server()?;
    let port = args.port.to_string();
    let name = args.name.clone().unwrap_or_else(|| names::policy_name(&args.from, &args.to, &port));
    let rule = RuleSpec { from: args.from.clone(), to: args.to.clone(), port };
    let draft = Draft {
        name: name.clone(),
        labels: args.label.iter().cloned().collect(),
        spec: PolicySpec { rules: vec![rule], reason: args.reason.clone() },
    };
    let begun = Instant::now();
    let written: Resource<PolicySpec> = server.create("policies", &draft, args.dry_run).await?;
    writeln!(session.out, "{}", written.name)?;
    if args.dry_run {
        session.done(&format!("policy {name} could be created; nothing was changed"), "");
        return Ok(Exit::Yes);
    }
    let undo = format!("isthmus policy remove {name}");
    let created = format!("policy {name} created at revision {}", written.revision);
    let rollout = match rollout(&server, &name, args.wait.unwrap_or(WAIT_SECONDS)).await {
        Ok(rollout) => rollout,
        // It was written; that nobody can say where it is loaded must not look like a failure to write.
        Err(failure) => {
            session.done(&created, &undo);
            return Err(failure);
        }
    };
    let seconds = begun.elapsed().as_secs_f64();
    let loaded =
        format!("loaded on {}/{} nodes that need it ({seconds:.1} s)", rollout.loaded, rollout.nodes);
    session.done(&format!("{created}, {loaded}"), &undo);
    if rollout.waiting.is_empty() {
        return Ok(Exit::Yes);
    }
    session.tell(&format!("  not yet: {}", rollout.waiting.join(", ")));
    Ok(if args.wait.is_some() { Exit::TimedOut } else { Exit::Yes })
}

/// Where a policy is in force, after at most `seconds`. Asks in turns, because no call may take longer than the client's
/// own limit.
async fn rollout(server: &Server, name: &str, seconds: u64) -> Result<Rollout, Failure> {
    let mut left = seconds;
    loop {
        let turn = left.min(TURN_SECONDS);
        let path = format!("policies/{}/rollout?wait={turn}", crate::api::escape(name));
        let rollout: Rollout = server.get(&path).await?;
        left -= turn;
        if rollout.waiting.is_empty() || left == 0 {
            return Ok(rollout);
        }
    }
}

async fn remove(name: &str, dry_run: bool, session: &mut Session) -> Result<Exit, Failure> {
    let server = session.server()?;
    let policy = server.one::<PolicySpec>("policies", name).await?;
    server.delete("policies", name, dry_run).await?;
    if dry_run {
        session.done(
            &format!(
                "policy {name} ({} rules) could be removed; nothing was changed",
                policy.spec.rules.len()
            ),
            "",
        );
        return Ok(Exit::Yes);
    }
    session.done(&format!("policy {name} removed"), &undo(&policy));
    Ok(Exit::Yes)
}

/// The command that makes a policy of one rule again; a longer one was made by the API, and is again.
fn undo(policy: &Resource<PolicySpec>) -> String {
    let [rule] = &policy.spec.rules[..] else { return String::new() };
    let reason =
        policy.spec.reason.as_ref().map(|reason| format!(" --reason {}", quoted(reason))).unwrap_or_default();
    let labels =
        policy.labels.iter().map(|(key, value)| format!(" --label {}", quoted(&format!("{key}={value}"))));
    let labels = labels.collect::<Vec<_>>().concat();
    format!(
        "isthmus policy allow {} {} {} --name {}{reason}{labels}",
        rule.from, rule.to, rule.port, policy.name
    )
}

/// `text` as one word of a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// Full names of all apps, by UUID.
async fn app_names(server: &Server) -> Result<BTreeMap<String, String>, Failure> {
    let workloads = server.all::<WorkloadSpec>("workloads").await?;
    Ok(workloads.into_iter().map(|workload| (workload.uuid.to_string(), workload.spec.full_name)).collect())
}

fn rules(policy: &Resource<PolicySpec>, names: &BTreeMap<String, String>) -> Vec<Rule> {
    let name = |uuid: &String| names.get(uuid).unwrap_or(uuid).clone();
    let rule = |rule: &RuleSpec| Rule {
        policy: policy.name.clone(),
        from: name(&rule.from),
        to: name(&rule.to),
        port: rule.port.clone(),
        reason: policy.spec.reason.clone().unwrap_or_default(),
        revision: policy.revision,
        from_uuid: rule.from.clone(),
        to_uuid: rule.to.clone(),
    };
    policy.spec.rules.iter().map(rule).collect()
}

fn view() -> View<Rule> {
    View {
        columns: vec![
            Column::new("POLICY", |row: &Rule| row.policy.clone()),
            Column::new("FROM", |row| row.from.clone()),
            Column::new("TO", |row| row.to.clone()),
            Column::new("PORT", |row| row.port.clone()),
            Column::new("REASON", |row| row.reason.clone()),
            Column::wide("REVISION", |row| row.revision.to_string()),
            Column::wide("FROM-UUID", |row| row.from_uuid.clone()),
            Column::wide("TO-UUID", |row| row.to_uuid.clone()),
        ],
        name: |row| row.policy.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_undo_of_a_removal_is_a_command_that_a_shell_takes() {
        let rule = RuleSpec { from: "u1".into(), to: "u2".into(), port: "tcp:80".into() };
        let mut policy = Resource {
            kind: "policy".into(),
            name: "p".into(),
            uuid: uuid::Uuid::from_u128(1),
            revision: 4,
            labels: [("team".to_owned(), "a b".to_owned())].into(),
            spec: PolicySpec { rules: vec![rule.clone()], reason: Some("it's so".into()) },
        };
        assert_eq!(
            undo(&policy),
            "isthmus policy allow u1 u2 tcp:80 --name p --reason 'it'\\''s so' --label 'team=a b'"
        );
        policy.spec.rules.push(rule);
        assert_eq!(undo(&policy), "");
    }
}
