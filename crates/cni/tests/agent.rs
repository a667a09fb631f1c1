//! The plugin against an agent that is played by a thread on a Unix socket.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use isthmus_api::adapter::{
    Attached, Failure, FailureKind, Request, RequestBody, Response, ResponseBody, VERSION, read_frame,
    write_frame,
};
use isthmus_cni::{Environment, Outcome, run, version::Version};
use serde_json::{Value, json};
use std::{
    fs,
    net::IpAddr,
    os::{
        fd::AsFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};
use tempfile::TempDir;

/// A thread that answers as an agent does, and keeps what it was asked.
struct Agent {
    directory: TempDir,
    asked: mpsc::Receiver<(RequestBody, bool)>,
}

/// What the agent answers to a request; `None` breaks the connection.
type Answer = fn(&RequestBody) -> Option<ResponseBody>;

impl Agent {
    fn new(answer: Answer) -> Self {
        let directory = TempDir::new().unwrap();
        let listener = UnixListener::bind(directory.path().join("adapter.sock")).unwrap();
        let (sender, asked) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                if serve(stream, answer, &sender).is_none() {
                    return;
                }
            }
        });
        Self { directory, asked }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("adapter.sock")
    }

    /// Runs the plugin, and returns with what the agent was asked meanwhile.
    fn run(&self, environment: &Environment, mut config: Value) -> (Outcome, Vec<(RequestBody, bool)>) {
        config["socket"] = json!(self.socket());
        let outcome = run(environment, &mut config.to_string().as_bytes());
        (outcome, self.asked.try_iter().collect())
    }
}

fn serve(mut stream: UnixStream, answer: Answer, asked: &mpsc::Sender<(RequestBody, bool)>) -> Option<()> {
    let (request, netns): (Request, _) = read_frame(&stream).ok()?;
    let body = answer(&request.body);
    asked.send((request.body, netns.is_some())).ok()?;
    if let Some(body) = body {
        write_frame(&mut stream, &Response { version: VERSION, body }, None).ok()?;
    }
    Some(())
}

#[expect(clippy::unnecessary_wraps, reason = "an Answer")]
fn willing(body: &RequestBody) -> Option<ResponseBody> {
    Some(match body {
        RequestBody::Attach(attach) => {
            let given = "10.77.3.228".parse::<IpAddr>().unwrap();
            ResponseBody::Attached(Attached {
                host_interface: "ist0123456789ab".into(),
                host_mac: "8e:e4:75:06:73:37".into(),
                mac: attach.mac.clone().unwrap_or("56:76:14:0e:74:1f".into()),
                addresses: if attach.addresses.is_empty() { vec![given] } else { attach.addresses.clone() },
                gateway: "169.254.1.1".parse().unwrap(),
                mtu: 1450,
                workload: "11111111-2222-3333-4444-555555555555".into(),
                node_address: "192.0.2.1".parse().unwrap(),
                port_mappings: attach.port_mappings.clone(),
            })
        }
        _ => ResponseBody::Done,
    })
}

fn failing(kind: FailureKind) -> ResponseBody {
    ResponseBody::Failed(Failure { kind, message: "it went wrong".into(), help: "mend it".into() })
}

/// A network namespace that may be used in a test: our own, allowed by `CNI_NETNS_OVERRIDE`.
fn environment(command: &str) -> Environment {
    Environment {
        command: command.to_owned(),
        container: "c0ffee".into(),
        netns: "/proc/self/ns/net".into(),
        interface: "eth0".into(),
        args: String::new(),
        netns_override: "1".into(),
    }
}

fn config(version: &str) -> Value {
    json!({ "cniVersion": version, "name": "isth", "type": "isthmus-cni" })
}

fn stdout(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or(Value::Null)
}

#[test]
fn every_version_answers_every_command_as_the_specification_says() {
    let agent = Agent::new(willing);
    for version in Version::ALL {
        for command in ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"] {
            let mut stdin = config(version.as_str());
            stdin["cni.dev/valid-attachments"] = json!([]);
            stdin["prevResult"] = if command == "CHECK" {
                json!({ "cniVersion": version.as_str(), "ips": [{"address": "10.77.3.228/32"}] })
            } else {
                Value::Null
            };
            let (outcome, asked) = agent.run(&environment(command), stdin);
            let exists = match command {
                "CHECK" => version >= Version::V040,
                "GC" | "STATUS" => version >= Version::V110,
                _ => true,
            };
            assert_eq!(outcome.ok, exists, "{command} in {version}: {}", outcome.stdout);
            let document = stdout(&outcome);
            if !exists {
                assert_eq!(document["code"], 1, "{command} in {version}");
                assert_eq!(document["cniVersion"], version.as_str());
            } else if command == "VERSION" {
                assert_eq!(document["supportedVersions"].as_array().unwrap().len(), 7);
                assert_eq!(document["cniVersion"], version.as_str());
            } else {
                assert_eq!(asked.len(), 1, "{command} in {version}");
                assert_eq!(document["cniVersion"].as_str(), (command == "ADD").then_some(version.as_str()));
                assert_eq!(outcome.stdout.is_empty(), command != "ADD");
            }
        }
    }
}

#[test]
fn the_result_has_the_form_of_the_version() {
    let agent = Agent::new(willing);
    let netns = "/proc/self/ns/net";
    let new = |version: &str, family: Option<&str>, mtu: Option<u32>| {
        let mut ip = json!({ "address": "10.77.3.228/32", "gateway": "169.254.1.1", "interface": 1 });
        let mut inside = json!({ "name": "eth0", "mac": "56:76:14:0e:74:1f", "sandbox": netns });
        if let Some(family) = family {
            ip["version"] = json!(family);
        }
        if let Some(mtu) = mtu {
            inside["mtu"] = json!(mtu);
        }
        json!({ "cniVersion": version, "dns": {}, "ips": [ip],
            "interfaces": [{ "name": "ist0123456789ab", "mac": "8e:e4:75:06:73:37" }, inside],
            "routes": [{ "dst": "0.0.0.0/0", "gw": "169.254.1.1" }] })
    };
    let old = |version: &str| {
        json!({ "cniVersion": version, "dns": {}, "ip4": { "ip": "10.77.3.228/32", "gateway": "169.254.1.1",
            "routes": [{ "dst": "0.0.0.0/0", "gw": "169.254.1.1" }] } })
    };
    let expected = [
        old("0.1.0"),
        old("0.2.0"),
        new("0.3.0", Some("4"), None),
        new("0.3.1", Some("4"), None),
        new("0.4.0", Some("4"), None),
        new("1.0.0", None, None),
        new("1.1.0", None, Some(1450)),
    ];
    for (version, expected) in Version::ALL.into_iter().zip(expected) {
        let (outcome, asked) = agent.run(&environment("ADD"), config(version.as_str()));
        assert_eq!(stdout(&outcome), expected);
        assert!(asked[0].1, "the namespace goes along as a descriptor");
    }
}

#[test]
fn a_chain_hands_on_what_the_plugin_before_made() {
    let agent = Agent::new(willing);
    let previous_new = json!({ "cniVersion": "0.4.0", "interfaces": [{ "name": "lo", "sandbox": "/n" }],
        "ips": [{ "version": "4", "address": "127.0.0.1/8", "interface": 0 }], "dns": null,
        "routes": [{ "dst": "10.9.0.0/16", "priority": 7 }] });
    let previous_old = json!({ "ip4": { "ip": "192.0.2.7/24", "routes": "none" } });
    let mut stdin = config("1.1.0");
    stdin["prevResult"] = previous_new.clone();
    let document = stdout(&agent.run(&environment("ADD"), stdin.clone()).0);
    assert_eq!(document["interfaces"].as_array().unwrap().len(), 3);
    assert_eq!(document["ips"][0], json!({ "address": "127.0.0.1/8", "interface": 0 }));
    assert_eq!(document["ips"][1]["interface"], 2);
    assert_eq!(document["routes"][0], json!({ "dst": "10.9.0.0/16", "priority": 7 }));
    stdin["cniVersion"] = json!("0.3.1");
    let document = stdout(&agent.run(&environment("ADD"), stdin.clone()).0);
    assert_eq!(document["routes"][0], json!({ "dst": "10.9.0.0/16" }), "0.3.1 has no priority");
    assert_eq!(document["ips"][0]["version"], "4");
    stdin["prevResult"] = json!({ "ip4": { "ip": "192.0.2.7/24", "routes": null } });
    let document = stdout(&agent.run(&environment("ADD"), stdin.clone()).0);
    assert_eq!(document["ips"][0], json!({ "version": "4", "address": "192.0.2.7/24" }));
    stdin["prevResult"] = previous_old;
    let (outcome, asked) = agent.run(&environment("ADD"), stdin);
    assert_eq!(stdout(&outcome)["code"], 6);
    assert!(asked.is_empty(), "a chain that cannot be read is refused before the agent is asked");
}

#[test]
fn check_sends_the_addresses_of_its_own_interface() {
    let agent = Agent::new(willing);
    let mut stdin = config("1.0.0");
    stdin["prevResult"] = json!({ "cniVersion": "1.0.0",
        "interfaces": [{ "name": "ist1" }, { "name": "eth0", "sandbox": "/n" }, { "name": "net1", "sandbox": "/n" }],
        "ips": [{ "address": "10.0.0.1/32", "interface": 1 }, { "address": "10.9.0.1/24", "interface": 2 }] });
    let (_outcome, asked) = agent.run(&environment("CHECK"), stdin);
    let RequestBody::Check(check) = &asked[0].0 else { unreachable!("{asked:?}") };
    assert_eq!(check.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    let (outcome, asked) = agent.run(&environment("CHECK"), config("1.0.0"));
    assert_eq!((stdout(&outcome)["code"].clone(), asked.len()), (json!(7), 0));
}

#[test]
fn collect_names_what_stays() {
    let agent = Agent::new(willing);
    let mut stdin = config("1.1.0");
    stdin["cni.dev/valid-attachments"] = json!([{ "containerID": "a", "ifname": "eth0" }]);
    let (_outcome, asked) = agent.run(&environment("GC"), stdin);
    let RequestBody::Collect(collect) = &asked[0].0 else { unreachable!("{asked:?}") };
    assert_eq!((collect.runtime.as_str(), collect.valid.len()), ("cni:isth", 1));
}

#[test]
fn del_needs_no_more_than_container_and_interface() {
    let agent = Agent::new(willing);
    let mut stdin = config("0.4.0");
    // All of this would fail an ADD.
    stdin["runtimeConfig"] = json!({ "portMappings": "x" });
    stdin["prevResult"] = json!("x");
    stdin["ipam"] = json!({ "type": "host-local" });
    let call = Environment { netns: String::new(), args: "nonsense".into(), ..environment("DEL") };
    let (outcome, asked) = agent.run(&call, stdin);
    assert_eq!(outcome, Outcome { stdout: String::new(), ok: true });
    assert!(matches!(&asked[0], (RequestBody::Detach(key), false) if key.container == "c0ffee"));
}

#[test]
fn an_absent_agent_is_a_matter_of_trying_again() {
    let directory = TempDir::new().unwrap();
    for (command, code) in [("ADD", 11), ("DEL", 11), ("GC", 11), ("STATUS", 50)] {
        let mut stdin = config("1.1.0");
        stdin["socket"] = json!(directory.path().join("none.sock"));
        stdin["cni.dev/valid-attachments"] = json!([]);
        let outcome = run(&environment(command), &mut stdin.to_string().as_bytes());
        assert!(!outcome.ok);
        let document = stdout(&outcome);
        assert_eq!(document["code"], code, "{command}");
        assert!(document["msg"].as_str().unwrap().contains("none.sock"));
        assert!(document["details"].as_str().unwrap().contains("isthmus-agent"));
    }
}

#[test]
fn a_refusal_keeps_its_words_and_gets_the_code_of_its_kind() {
    const CASES: [(Answer, u32); 6] = [
        (|_| Some(failing(FailureKind::TryAgain)), 11),
        (|_| Some(failing(FailureKind::Unavailable)), 11),
        (|_| Some(failing(FailureKind::Invalid)), 7),
        (|_| Some(failing(FailureKind::Unknown)), 3),
        (|_| Some(failing(FailureKind::System)), 5),
        (|_| Some(failing(FailureKind::Differs)), 100),
    ];
    for (answer, code) in CASES {
        let agent = Agent::new(answer);
        let (outcome, asked) = agent.run(&environment("ADD"), config("0.4.0"));
        let expected =
            json!({ "cniVersion": "0.4.0", "code": code, "msg": "it went wrong", "details": "mend it" });
        assert_eq!(stdout(&outcome), expected);
        assert_eq!(asked.len(), 1, "an agent that refused left nothing behind, so nothing is undone");
    }
}

#[test]
fn an_attach_that_breaks_off_is_undone() {
    let broken: Answer = |body| (!matches!(body, RequestBody::Attach(_))).then_some(ResponseBody::Done);
    let agent = Agent::new(broken);
    let (outcome, asked) = agent.run(&environment("ADD"), config("0.4.0"));
    assert_eq!(stdout(&outcome)["code"], 11);
    assert!(
        matches!(&asked[..], [(RequestBody::Attach(_), true), (RequestBody::Detach(_), false)]),
        "{asked:?}"
    );
}

#[test]
fn an_agent_of_another_version_is_told_apart() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("a.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _: (Request, _) = read_frame(&stream).unwrap();
        write_frame(&mut stream, &Response { version: VERSION + 1, body: ResponseBody::Done }, None).unwrap();
    });
    let mut stdin = config("1.1.0");
    stdin["socket"] = json!(socket);
    let outcome = run(&environment("ADD"), &mut stdin.to_string().as_bytes());
    assert_eq!(stdout(&outcome)["code"], 50);
    assert!(outcome.stdout.contains("upgrade the older"));
}

#[test]
fn the_second_of_two_wanted_addresses_is_tried_when_the_first_is_not_ours() {
    let ours: Answer = |body| match body {
        RequestBody::Attach(attach) if attach.addresses == ["10.77.1.9".parse::<IpAddr>().unwrap()] => {
            Some(failing(FailureKind::Invalid))
        }
        other => willing(other),
    };
    let agent = Agent::new(ours);
    let mut stdin = config("1.0.0");
    stdin["runtimeConfig"] = json!({ "ips": ["10.77.1.9", "10.77.175.72"] });
    let (outcome, asked) = agent.run(&environment("ADD"), stdin.clone());
    assert_eq!(stdout(&outcome)["ips"][0]["address"], "10.77.175.72/32");
    assert_eq!(asked.len(), 2);
    stdin["runtimeConfig"] = json!({ "ips": ["10.77.1.9"] });
    assert_eq!(stdout(&agent.run(&environment("ADD"), stdin).0)["code"], 7);
}

#[test]
fn a_namespace_that_is_missing_or_wrong_is_refused_before_the_agent_is_asked() {
    let agent = Agent::new(willing);
    let own = Environment { netns_override: String::new(), ..environment("ADD") };
    let missing = Environment { netns: String::new(), ..environment("ADD") };
    let gone = Environment { netns: "/run/netns/isthmus-none".into(), ..environment("ADD") };
    for (call, code) in [(own, 8), (missing, 4), (gone, 8)] {
        let (outcome, asked) = agent.run(&call, config("1.1.0"));
        assert_eq!((stdout(&outcome)["code"].clone(), asked.len()), (json!(code), 0));
    }
}

#[test]
fn unknown_commands_and_broken_input_are_named() {
    let agent = Agent::new(willing);
    let (outcome, _asked) = agent.run(&environment("RUN"), config("1.1.0"));
    assert_eq!(stdout(&outcome)["code"], 4);
    for (input, code) in [("", 6), ("{", 6), ("[]", 6), (r#"{"cniVersion":"0.5.0","name":"n"}"#, 1)] {
        let outcome = run(&environment("ADD"), &mut input.as_bytes());
        assert_eq!(stdout(&outcome)["code"], code, "{input}");
        assert_eq!(stdout(&outcome)["cniVersion"], "1.1.0");
    }
    let long = format!("{{\"name\":\"{}\"}}", "a".repeat(5 << 20));
    assert_eq!(stdout(&run(&environment("ADD"), &mut long.as_bytes()))["code"], 6);
}

/// One execution of a plugin, as a runtime made it; see `tests/data/README.md`.
#[derive(serde::Deserialize)]
struct Execution {
    env: std::collections::BTreeMap<String, String>,
    stdin: Value,
    expect: Value,
}

#[test]
fn every_recorded_call_is_understood() {
    let agent = Agent::new(willing);
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut seen = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let executions: Vec<Execution> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for execution in executions {
            check_recorded(&agent, &path, execution);
            seen += 1;
        }
    }
    assert!(seen >= 25, "only {seen} recorded calls were found");
}

fn check_recorded(agent: &Agent, path: &Path, execution: Execution) {
    let variable = |name: &str| execution.env.get(name).cloned().unwrap_or_default();
    let mut call = Environment {
        command: variable("CNI_COMMAND"),
        container: variable("CNI_CONTAINERID"),
        netns: variable("CNI_NETNS"),
        interface: variable("CNI_IFNAME"),
        args: variable("CNI_ARGS"),
        netns_override: "1".into(),
    };
    // The recorded namespace is gone; ours stands in for it.
    if !call.netns.is_empty() {
        call.netns = "/proc/self/ns/net".into();
    }
    let (outcome, asked) = agent.run(&call, execution.stdin);
    assert!(outcome.ok, "{} {}: {}", path.display(), call.command, outcome.stdout);
    let asked = serde_json::to_value(&asked.last().unwrap().0).unwrap();
    for (pointer, value) in execution.expect.as_object().unwrap() {
        assert_eq!(asked.pointer(pointer).unwrap_or(&Value::Null), value, "{} {pointer}", path.display());
    }
}

#[test]
fn a_descriptor_of_the_namespace_is_what_the_agent_gets() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("a.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let agent = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (request, netns): (Request, _) = read_frame(&stream).unwrap();
        let body = willing(&request.body).unwrap();
        write_frame(&mut stream, &Response { version: VERSION, body }, None).unwrap();
        rustix::fs::fstat(netns.unwrap().as_fd()).unwrap().st_ino
    });
    let mut stdin = config("1.1.0");
    stdin["socket"] = json!(socket);
    assert!(run(&environment("ADD"), &mut stdin.to_string().as_bytes()).ok);
    assert_eq!(agent.join().unwrap(), rustix::fs::stat("/proc/self/ns/net").unwrap().st_ino);
}

/// Every value of `document`, as a JSON pointer.
fn pointers(document: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match document {
        Value::Object(map) => {
            for (key, value) in map {
                pointers(value, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                pointers(value, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn whatever_stands_in_the_configuration_the_answer_is_a_document() {
    let agent = Agent::new(willing);
    let whole = json!({
        "cniVersion": "1.0.0", "name": "isth", "cluster": "red", "timeoutSeconds": 5,
        "prevResult": { "cniVersion": "1.0.0", "interfaces": [{ "name": "eth0", "mac": "m", "sandbox": "/n", "mtu": 1 }],
            "ips": [{ "address": "10.0.0.1/32", "gateway": "10.0.0.2", "interface": 0 }],
            "routes": [{ "dst": "0.0.0.0/0", "gw": "10.0.0.2" }], "dns": { "nameservers": ["10.0.0.3"] } },
        "runtimeConfig": { "portMappings": [{ "hostPort": 1, "containerPort": 2, "protocol": "tcp", "hostIP": "::" }],
            "ips": ["10.0.0.9/24"], "mac": "02:00:00:00:00:01", "dns": { "Servers": ["10.0.0.4"] },
            "io.kubernetes.cri.pod-annotations": { "isthmus.dev/app": "web", "isthmus.dev/labels": "a=b" } },
        "args": { "cni": { "labels": [{ "key": "k", "value": "v" }], "ips": [], "mac": "" },
            "org.apache.mesos": { "network_info": { "labels": { "labels": [{ "key": "k" }] }, "port_mappings": [],
                "ip_addresses": [{ "ip_address": "10.0.0.5" }] } } },
        "cni.dev/valid-attachments": [{ "containerID": "a", "ifname": "eth0" }],
    });
    let mut places = Vec::new();
    pointers(&whole, "", &mut places);
    let values =
        [json!(null), json!(-1), json!(1e300), json!(""), json!("\u{0}"), json!([]), json!([[]]), json!({})];
    for (place, value) in places.iter().flat_map(|place| values.iter().map(move |value| (place, value))) {
        let mut document = whole.clone();
        *document.pointer_mut(place).unwrap() = value.clone();
        if !document.is_object() {
            continue;
        }
        for command in ["ADD", "DEL", "CHECK"] {
            let (outcome, _asked) = agent.run(&environment(command), document.clone());
            let answer = stdout(&outcome);
            let good = if outcome.ok {
                command != "ADD" || answer["ips"].is_array() || answer["ip4"].is_object()
            } else {
                answer["code"].is_u64()
            };
            assert!(good, "{command} with {value} at {place}: {}", outcome.stdout);
        }
    }
}
