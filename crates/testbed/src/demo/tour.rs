//! `isthmus demo tour`: the story of one connection, from a Cloud Foundry app to a Kubernetes pod.

mod scene;
mod watch;

use super::{plan::CLUSTERS, record::Record};
use crate::{
    app::{ECHO_PORT, HTTP_PORT, UDP_PORT},
    checks::Checks,
    wait,
};
use anyhow::Context as _;
use ipnet::Ipv4Net;
use scene::Scene;
use serde_json::{Value, json};
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};
use watch::{Capture, Flows, Talk};

/// Longest time that anything in the story may take to become visible.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest time in which a change of policy must open a path.
const OPENED: Duration = Duration::from_secs(2);
/// Longest time in which a removed rule must stop an open connection, and the pause between two of its lines.
const REVOKED: Duration = Duration::from_millis(100 + 20);

/// Plays the story; with `check` compares everything and returns 1 on a difference.
pub(super) fn tour(check: bool) -> anyhow::Result<u8> {
    let record = Record::of_running()?;
    let mut scene = Scene::new(&record, !check)?;
    let mut checks = Checks::default();
    let told = story(&mut scene, &mut checks);
    // Whatever happened, the demo's policies are as before.
    let cleaned = scene.forget_policies().context("cannot remove the tour's policies");
    if let Err(error) = told.and(cleaned) {
        checks.broken(&error);
    }
    Ok(checks.summary())
}

fn story(scene: &mut Scene<'_>, checks: &mut Checks) -> anyhow::Result<()> {
    scene.forget_policies()?;
    addresses(scene, checks)?;
    let mut flows = Flows::follow(scene)?;
    denied(scene, checks, &mut flows)?;
    allowed(scene, checks)?;
    wire(scene, checks)?;
    still_shut(scene, checks)?;
    revoked(scene, checks, &mut flows)?;
    shut_again(scene, checks)
}

/// What runs, and where it can be reached.
fn addresses(scene: &mut Scene<'_>, checks: &mut Checks) -> anyhow::Result<()> {
    scene.chapter(
        "Three platforms, one network: every container has one address, and one identity for its app",
    )?;
    let shown = scene.cli(&["app", "list"])?;
    checks.same("isthmus app list", "exit code", &0, &shown.code);
    scene.cli(&["endpoint", "list"])?;
    let endpoints = scene.rest().endpoints()?;
    let containers = &scene.record().containers;
    checks.same("endpoints in the registry", "number", &containers.len(), &endpoints.len());
    for container in containers {
        let own = endpoints.iter().find(|endpoint| endpoint.spec.addresses == [container.address]);
        let name = own.map_or("nobody", |endpoint| endpoint.spec.workload_name.as_str());
        checks.same(
            "who has the address",
            &container.instance.name,
            &container.instance.full_name().as_str(),
            &name,
        );
    }
    let in_pool =
        containers.iter().filter(|container| in_pool(container.address, &container.instance.cluster));
    checks.same("addresses in their cluster's pool", "number", &containers.len(), &in_pool.count());
    Ok(())
}

fn in_pool(address: IpAddr, cluster: &str) -> bool {
    let pool = CLUSTERS.iter().find(|known| known.name == cluster).map(|known| known.pool.parse::<Ipv4Net>());
    match (address, pool) {
        (IpAddr::V4(address), Some(Ok(pool))) => pool.contains(&address),
        _ => false,
    }
}

/// Nothing is allowed yet.
fn denied(scene: &mut Scene<'_>, checks: &mut Checks, flows: &mut Flows) -> anyhow::Result<()> {
    scene.chapter("cart (Cloud Foundry) asks web (Kubernetes). Nobody allowed it")?;
    let answer = scene.get("cart", "web")?;
    checks.that("cart asks web", "no answer", answer.code != 0, &answer.summary());
    let flow = flows.find(PATIENCE, "denied", "no-rule", HTTP_PORT, || scene.get_quietly("cart", "web"));
    scene.show_flow(flow.as_ref());
    let found = flow.as_ref().map_or_else(|| "nothing".to_owned(), watch::edge);
    let expected = format!("{} → {}", scene.name("cart")?, scene.name("web")?);
    checks.same("isthmus flows shows the denial", "names", &expected, &found);
    let node = &scene.container("web")?.instance.node;
    let log = super::record::node_directory(node).join("flows.log");
    let logged = wait::until_true("a line", PATIENCE, || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.contains("DENY_C2C_"))
    });
    checks.that(
        "the node's log in Cloud Foundry's shape",
        "DENY_C2C_",
        logged.is_ok(),
        "a line in flows.log",
    );
    let why = scene.why("cart", "web", HTTP_PORT)?;
    checks.same("isthmus why", "exit code while denied", &1, &why.code);
    Ok(())
}

/// One policy, by Cloud Foundry's own API, that names a pod.
fn allowed(scene: &mut Scene<'_>, checks: &mut Checks) -> anyhow::Result<()> {
    scene.chapter(
        "Allow it with Cloud Foundry's policy API: the app's GUID, and the UUID of the Kubernetes workload",
    )?;
    let body = policies(scene, &[HTTP_PORT, ECHO_PORT])?;
    let answer = scene.cf_policy("policies", &body)?;
    checks.same("POST policies", "answer", "{}", &*answer.to_string());
    let start = Instant::now();
    let mut last = None;
    let opened = wait::until_true("an answer", PATIENCE, || {
        last = scene.get_quietly("cart", "web");
        last.is_some()
    });
    let took = start.elapsed();
    checks.that(
        "the path is open",
        "within 2 s",
        opened.is_ok() && took < OPENED,
        &format!("{} ms", took.as_millis()),
    );
    scene.get("cart", "web")?;
    let text = last.unwrap_or_default();
    let answer: Value = serde_json::from_str(&text).unwrap_or_default();
    let cart = scene.container("cart")?.address.to_string();
    checks.same(
        "web sees the caller's own address",
        "caller",
        &cart.as_str(),
        &answer["caller"].as_str().unwrap_or("-"),
    );
    let why = scene.why("cart", "web", HTTP_PORT)?;
    checks.same("isthmus why", "exit code while allowed", &0, &why.code);
    Ok(())
}

/// The body of a request that names cart, web and some ports.
fn policies(scene: &Scene<'_>, ports: &[u16]) -> anyhow::Result<Value> {
    let source = scene.container("cart")?.instance.app_guid().to_string();
    let destination = scene.workload("web")?.uuid.to_string();
    let policy = |port: &u16| {
        json!({"source": {"id": source},
            "destination": {"id": destination, "protocol": "tcp", "ports": {"start": port, "end": port}}})
    };
    Ok(json!({"policies": ports.iter().map(policy).collect::<Vec<_>>()}))
}

/// What another host would see.
fn wire(scene: &mut Scene<'_>, checks: &mut Checks) -> anyhow::Result<()> {
    scene.chapter(
        "On the wire between the nodes: the VXLAN network identifier is the identity of the sender's app",
    )?;
    let (cart, web) = (scene.container("cart")?.clone(), scene.container("web")?.clone());
    let mut capture = Capture::start(scene, &web.instance.node)?;
    let packets = capture.find(PATIENCE, cart.address, web.address, || scene.get_quietly("cart", "web"));
    scene.show(&packets.text);
    checks.same(
        "VNI from cart to web",
        "identity of cart",
        &hex(Some(scene.identity("cart")?)),
        &hex(packets.forth),
    );
    checks.same(
        "VNI from web to cart",
        "identity of web",
        &hex(Some(scene.identity("web")?)),
        &hex(packets.back),
    );
    Ok(())
}

/// An identity as Isthmus writes it.
fn hex(number: Option<u32>) -> String {
    number.map_or_else(|| "no packet".to_owned(), |number| format!("{number:06x}"))
}

/// The policy opened one path and no other.
fn still_shut(scene: &mut Scene<'_>, checks: &mut Checks) -> anyhow::Result<()> {
    scene.chapter("Nothing else is open: not another port, not another app, not the way back")?;
    let udp = scene.udp("cart", "web")?;
    checks.that("cart to web, udp:9000", "no answer", udp.code != 0, &udp.summary());
    let other = scene.get("ledger", "web")?;
    checks.that("ledger (Nomad) to web", "no answer", other.code != 0, &other.summary());
    let back = scene.get("web", "cart")?;
    // Cloud Foundry answers denied packets by ICMP port unreachable; the others' clusters drop them.
    let refused = back.code != 0 && back.summary().contains("refused");
    checks.that("web to cart, which Cloud Foundry answers", "refused at once", refused, &back.summary());
    let why = scene.why("cart", "web", UDP_PORT)?;
    checks.same("isthmus why for another port", "exit code", &1, &why.code);
    Ok(())
}

/// A connection that is open when its rule goes.
fn revoked(scene: &mut Scene<'_>, checks: &mut Checks, flows: &mut Flows) -> anyhow::Result<()> {
    scene.chapter("cart keeps a connection to web open; the rule that allowed it is removed")?;
    let mut talk = Talk::start(scene, "cart", "web")?;
    let talking = talk.wait_for_lines(10, PATIENCE);
    checks.that("a long-lived connection", "talks", talking, &format!("{} lines", talk.lines()));
    let body = policies(scene, &[ECHO_PORT])?;
    scene.cf_policy("policies/delete", &body)?;
    let removed = Instant::now();
    let ended = talk.wait_for_end(PATIENCE);
    let last = talk.last_line().map_or(Duration::MAX, |last| last.saturating_duration_since(removed));
    scene.show(&format!(
        "the connection: {}, its last line {} ms after the removal",
        ended,
        last.as_millis()
    ));
    checks.that("the open connection", "falls silent", ended.starts_with("silent"), &ended);
    checks.that(
        "time from removal to silence",
        "≤ 120 ms",
        last <= REVOKED,
        &format!("{} ms", last.as_millis()),
    );
    let flow = flows.find(PATIENCE, "denied", "revoked", ECHO_PORT, || None);
    scene.show_flow(flow.as_ref());
    let found = flow.as_ref().map_or_else(|| "nothing".to_owned(), watch::edge);
    let expected = format!("{} → {}", scene.name("cart")?, scene.name("web")?);
    checks.same("isthmus flows says revoked", "names", &expected, &found);
    let answer = scene.get("cart", "web")?;
    checks.that("the other rule still holds", "an answer", answer.code == 0, &answer.summary());
    Ok(())
}

/// As it was at the beginning.
fn shut_again(scene: &mut Scene<'_>, checks: &mut Checks) -> anyhow::Result<()> {
    scene.chapter("The last rule goes, and the network is as it was")?;
    let body = policies(scene, &[HTTP_PORT])?;
    scene.cf_policy("policies/delete", &body)?;
    let shut = wait::until_true("silence", PATIENCE, || scene.get_quietly("cart", "web").is_none());
    checks.that(
        "cart asks web",
        "no answer",
        shut.is_ok(),
        if shut.is_ok() { "no answer" } else { "an answer" },
    );
    let why = scene.why("cart", "web", HTTP_PORT)?;
    checks.same("isthmus why", "exit code at the end", &1, &why.code);
    Ok(())
}
