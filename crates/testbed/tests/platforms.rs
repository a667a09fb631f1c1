//! The three platforms start real containers and call real plugins; here Debian's reference plugins stand in for ours,
//! so that what fails is the testbed.
//!
//! Needs root and the static binary of this crate's example or of Isthmus (`make build`).

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "platforms/bed.rs"]
mod bed;

use bed::{Bed, LIMIT};
use isthmus_testbed::{
    app::HTTP_PORT,
    cni::{self, REFERENCE_PLUGINS},
    command::Call,
    containerd::{APP_IMAGE, Containerd, PAUSE_IMAGE, Pod},
    garden::{AppInstance, Networker},
    image::{BINARY, Content},
    namespace::Namespace,
    nomad::Allocation,
    process::Process,
    runc::Runc,
    underlay::{Underlay, free_range},
    wait,
};
use std::{
    collections::HashMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// What goes into the containers, or nothing where the test cannot run.
fn content() -> Option<Content> {
    let serves = |binary: &Path| Call::new(binary).args(["demo-app", "--help"]).run().is_ok();
    let binary = bed::binary("no static binary with the command demo-app: make build", serves)?;
    Some(Content::of(&binary).unwrap())
}

#[test]
fn containerd_runs_pods_and_commands_in_them() {
    let Some(content) = content() else { return };
    let mut bed = Bed::new("pods");
    let archive = bed.path("image.tar");
    content
        .archive(&archive, &[(PAUSE_IMAGE, &["demo-app", "pause"]), (APP_IMAGE, &["demo-app", "serve"])])
        .unwrap();
    let containerd = Containerd::new(bed.directory(), &bed.node.path(), bed.cgroup());
    let plugins =
        ["bridge", "host-local", "loopback", "portmap"].map(|name| Path::new(REFERENCE_PLUGINS).join(name));
    let config = cni::bridge_config("pods", "10.99.1.0/24", &bed.path("ipam"));
    containerd.prepare(&config, &plugins).unwrap();
    let process = containerd.start("containerd", &bed.path("containerd.log")).unwrap();
    bed.made.processes.push(process.clone());
    let mut cri = containerd.wait_ready(&process).unwrap();
    containerd.import(&archive).unwrap();
    let pod = Pod {
        namespace: "shop".into(),
        name: "web-0".into(),
        uid: "0b7c6e6e-1111-4222-8333-444455556666".into(),
        annotations: HashMap::from([("isthmus.dev/app".into(), "web".into())]),
    };
    let running = cri.run_pod(&pod, &["--name", "web"]).unwrap();
    bed.assert_answers(running.address, "web");
    let url = format!("http://{}:{HTTP_PORT}/", running.address);
    let get = containerd.exec(&running.container, "get", false, &[BINARY, "demo-app", "get", &url]);
    assert!(get.run().unwrap().contains("web-0"));
    cri.remove_all().unwrap();
    assert!(!running.netns.exists());
}

#[test]
fn runc_containers_get_their_network_between_create_and_start() {
    let Some(content) = content() else { return };
    let bed = Bed::new("garden");
    let runc = Runc::new(&bed.path("runc"), bed.cgroup());
    let handle = "3c1f4f1e-0000-4000-8000-000000000001";
    let container =
        runc.create(handle, &bed.path("bundle"), &content, &["demo-app", "serve", "--name", "cart"]).unwrap();
    let networker = Networker { node: bed.node.path(), program: networker(&bed), config: bed.path("unused") };
    let instance = AppInstance {
        handle: handle.into(),
        app: "a".into(),
        space: "s".into(),
        organization: "o".into(),
        names: ["cart".into(), "prod".into(), "acme".into()],
        index: 0,
        ports: vec![8080],
    };
    let answer = networker.up(&instance, container.pid).unwrap();
    runc.start(handle).unwrap();
    bed.assert_answers(answer.address, "cart");
    let url = format!("http://127.0.0.1:{HTTP_PORT}/");
    assert!(runc.exec(handle, false, &[BINARY, "demo-app", "get", &url]).run().unwrap().contains("cart"));
    runc.delete(handle).unwrap();
    networker.down(handle).unwrap();
}

/// A stand-in for Garden's networker that calls the reference bridge plugin.
fn networker(bed: &Bed) -> PathBuf {
    let path = bed.path("networker");
    let config = cni::bridge_config("garden", "10.99.2.0/24", &bed.path("ipam"));
    let script = format!(
        r#"#!/bin/sh -e
export CNI_CONTAINERID=c1 CNI_IFNAME=eth0 CNI_PATH={REFERENCE_PLUGINS} CNI_NETNS
input=$(cat)
case "$3" in
up) pid=$(printf %s "$input" | sed 's/.*"Pid":\([0-9]*\).*/\1/'); CNI_NETNS=/proc/$pid/ns/net CNI_COMMAND=ADD ;;
down) CNI_NETNS= CNI_COMMAND=DEL ;;
esac
export CNI_COMMAND
result=$(printf %s '{config}' | {REFERENCE_PLUGINS}/bridge | tr -d '\n\t ')
address=$(printf %s "$result" | sed 's/.*"address":"\([0-9.]*\).*/\1/')
printf '{{"properties":{{"garden.network.container-ip":"%s"}}}}' "$address"
"#
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn an_allocation_gets_its_network_before_its_task() {
    let Some(_content) = content() else { return };
    let mut bed = Bed::new("nomad");
    let allocation = Allocation {
        id: "5d3c0e2a-0000-4000-8000-000000000001".into(),
        namespace: "default".into(),
        job: "ledger".into(),
        group: "ledger".into(),
    };
    bed.made.namespaces.push(allocation.netns());
    let config = cni::bridge_config("nomad", "10.99.3.0/24", &bed.path("ipam"));
    let address = allocation.attach(bed.node.path(), REFERENCE_PLUGINS.into(), &config).unwrap();
    let task = Process::start("ledger", &allocation.task("sleep").arg("1000"), &bed.path("log")).unwrap();
    bed.made.processes.push(task);
    let ping = bed.node.call("ping").args(["-c1", "-W1", &address.to_string()]);
    wait::until("an answer to ping", LIMIT, || ping.run().map(Some)).unwrap();
    allocation.detach(bed.node.path(), REFERENCE_PLUGINS.into(), &config).unwrap();
    assert!(!allocation.netns().exists());
}

#[test]
fn nodes_reach_each_other_and_the_host_over_the_underlay() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "skipped in CI: not root");
        eprintln!("skipped: not root");
        return;
    }
    let mut bed = Bed::new("wire-1");
    let (other, wire) = (Namespace::named("ist-wire-2"), Namespace::named("ist-wire"));
    bed.made.namespaces.extend([other.clone(), wire.clone()]);
    bed.made.links.push("ist-host".into());
    bed.made.remove();
    bed.node.create().unwrap();
    other.create().unwrap();
    let underlay = Underlay::new(wire, free_range().unwrap(), "ist-host");
    underlay.create().unwrap();
    underlay.join(&bed.node, "one", 1).unwrap();
    let address = underlay.join(&other, "two", 2).unwrap();
    for target in [address, underlay.host_address()] {
        let ping = bed.node.call("ping").args(["-c1", "-W1", &target.to_string()]);
        wait::until("an answer to ping", LIMIT, || ping.run().map(Some)).unwrap();
    }
}
