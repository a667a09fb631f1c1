//! The stage: runs commands for the audience to see.

use super::super::{instance::Container, plan::Node, record::Record};
use crate::{
    app::{HTTP_PORT, UDP_PORT},
    command::{Call, Finished},
    progress::answer,
    rest::Rest,
};
use anyhow::Context as _;
use isthmus_api::rest::{Resource, WorkloadSpec};
use serde_json::{Value, json};
use std::{
    cell::Cell,
    io::{BufRead as _, IsTerminal as _},
};

/// Path of the Cloud Foundry policy API.
const CF_POLICIES: &str = "/networking/v1/external";

/// A demo that is up, and whether somebody watches.
pub(super) struct Scene<'a> {
    record: &'a Record,
    rest: Rest,
    cf_policy: Rest,
    waits: bool,
    chapters: u32,
    execs: Cell<u32>,
}

/// What a command of the story did.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    /// Its exit code.
    pub(super) code: i32,
    output: Finished,
}

impl Shown {
    /// What it said, in one line.
    pub(super) fn summary(&self) -> String {
        let Finished { stdout, stderr, .. } = &self.output;
        let text = if stdout.trim().is_empty() { stderr } else { stdout };
        let line = text.lines().next().unwrap_or("nothing");
        line.chars().take(90).collect()
    }
}

impl<'a> Scene<'a> {
    pub(super) fn new(record: &'a Record, audience: bool) -> anyhow::Result<Self> {
        let waits = audience && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let (rest, cf_policy) = (Rest::new(record.rest)?, Rest::new(record.cf_policy)?);
        Ok(Self { record, rest, cf_policy, waits, chapters: 0, execs: Cell::new(0) })
    }

    pub(super) fn record(&self) -> &'a Record {
        self.record
    }

    pub(super) fn rest(&self) -> &Rest {
        &self.rest
    }

    /// Begins a chapter; a person presses Enter first.
    pub(super) fn chapter(&mut self, title: &str) -> anyhow::Result<()> {
        if self.waits && self.chapters > 0 {
            answer("\n[Enter]");
            std::io::stdin().lock().read_line(&mut String::new()).context("cannot read from the terminal")?;
        }
        self.chapters += 1;
        answer(&format!("\n{}. {title}", self.chapters));
        Ok(())
    }

    /// Shows text as the output of something.
    #[expect(clippy::unused_self, reason = "everything that is shown goes through the stage")]
    pub(super) fn show(&self, text: &str) {
        for line in text.trim_end().lines() {
            answer(&format!("   {line}"));
        }
    }

    /// Shows a flow as `isthmus flows` has it.
    pub(super) fn show_flow(&self, flow: Option<&Value>) {
        let Some(flow) = flow else { return };
        let text = |key: &str| flow[key].as_str().unwrap_or("-").to_owned();
        answer("   $ isthmus flows --follow --output jsonl");
        self.show(&format!(
            "{}  port {}  {}  {}  decided on {}",
            super::watch::edge(flow),
            flow["destinationPort"],
            text("verdict"),
            text("reason"),
            text("node")
        ));
    }

    /// The command of the CLI with the demo's server.
    pub(super) fn isthmus(&self, arguments: &[&str]) -> Call {
        Call::new(&self.record.binary).args(arguments).env("ISTHMUS_SERVER", self.record.rest.to_string())
    }

    /// Runs and shows a command of the CLI.
    pub(super) fn cli(&self, arguments: &[&str]) -> anyhow::Result<Shown> {
        self.run(&format!("isthmus {}", arguments.join(" ")), &self.isthmus(arguments))
    }

    pub(super) fn why(&self, from: &str, to: &str, port: u16) -> anyhow::Result<Shown> {
        let protocol = if port == UDP_PORT { "udp" } else { "tcp" };
        self.cli(&["why", &self.name(from)?, &self.name(to)?, &format!("{protocol}:{port}")])
    }

    fn run(&self, line: &str, call: &Call) -> anyhow::Result<Shown> {
        answer(&format!("   $ {line}"));
        let output = call.output()?;
        self.show(&output.stdout);
        self.show(&output.stderr);
        Ok(Shown { code: output.status.code().unwrap_or(-1), output })
    }

    /// An app asks another by HTTP, from inside its container.
    pub(super) fn get(&self, from: &str, to: &str) -> anyhow::Result<Shown> {
        let url = self.url(to)?;
        self.ask(from, &["get", &url])
    }

    /// As [`Scene::get`], without a word; the answer if there was one.
    pub(super) fn get_quietly(&self, from: &str, to: &str) -> Option<String> {
        let url = self.url(to).ok()?;
        self.client(from, &["get", &url, "--timeout-ms", "700"]).ok()?.run().ok()
    }

    /// An app sends a datagram to another.
    pub(super) fn udp(&self, from: &str, to: &str) -> anyhow::Result<Shown> {
        let address = format!("{}:{UDP_PORT}", self.container(to)?.address);
        self.ask(from, &["udp", &address])
    }

    /// Runs the demo's client in an app's container, and shows it as a person would.
    fn ask(&self, from: &str, arguments: &[&str]) -> anyhow::Result<Shown> {
        let container = self.container(from)?;
        let binary = container.client_binary(&self.record.binary);
        let line = format!("isthmus demo shell {from} -- {binary} demo-app {}", arguments.join(" "));
        self.run(&line, &self.client(from, arguments)?)
    }

    fn url(&self, to: &str) -> anyhow::Result<String> {
        Ok(format!("http://{}:{HTTP_PORT}/", self.container(to)?.address))
    }

    /// The demo's client in the first container of an app.
    pub(super) fn client(&self, app: &str, arguments: &[&str]) -> anyhow::Result<Call> {
        let container = self.container(app)?;
        self.execs.set(self.execs.get() + 1);
        let name = format!("tour-{}-{}", std::process::id(), self.execs.get());
        Ok(container.client(self.node(container)?, &self.record.binary, &name, arguments))
    }

    fn node(&self, container: &Container) -> anyhow::Result<&'a Node> {
        let name = &container.instance.node;
        self.record.node(name).with_context(|| format!("the demo has no node {name}"))
    }

    pub(super) fn container(&self, app: &str) -> anyhow::Result<&'a Container> {
        self.record.container(app)
    }

    /// Full name of an app.
    pub(super) fn name(&self, app: &str) -> anyhow::Result<String> {
        Ok(self.container(app)?.instance.full_name())
    }

    /// An app as the server knows it.
    pub(super) fn workload(&self, app: &str) -> anyhow::Result<Resource<WorkloadSpec>> {
        let name = self.name(app)?;
        let found = self.rest.workloads()?.into_iter().find(|workload| workload.spec.full_name == name);
        found.with_context(|| format!("the server knows no workload {name}"))
    }

    /// The number in the packets of an app's first container.
    pub(super) fn identity(&self, app: &str) -> anyhow::Result<u32> {
        let address = self.container(app)?.address;
        let endpoints = self.rest.endpoints()?;
        let endpoint = endpoints.iter().find(|endpoint| endpoint.spec.addresses.contains(&address));
        let endpoint = endpoint.with_context(|| format!("the server knows no endpoint at {address}"))?;
        u32::from_str_radix(&endpoint.spec.identity, 16).context("the server's identity is not a number")
    }

    /// A call of the Cloud Foundry policy API.
    pub(super) fn cf_policy(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let path = format!("{CF_POLICIES}/{path}");
        answer(&format!("   $ curl -X POST http://{}{path} -d '{body}'", self.record.cf_policy));
        let answered = self.cf_policy.post(&path, body)?;
        self.show(&answered.to_string());
        Ok(answered)
    }

    /// Deletes all policies that Cloud Foundry's API shows between the story's apps.
    pub(super) fn forget_policies(&self) -> anyhow::Result<()> {
        let cart = self.container("cart")?.instance.app_guid().to_string();
        let list: Value = self.cf_policy.get(&format!("{CF_POLICIES}/policies?id={cart}"))?;
        let policies = list["policies"].as_array().cloned().unwrap_or_default();
        if !policies.is_empty() {
            self.cf_policy.post(&format!("{CF_POLICIES}/policies/delete"), &json!({"policies": policies}))?;
        }
        Ok(())
    }
}
