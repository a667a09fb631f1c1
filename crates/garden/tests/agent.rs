//! The networker against an agent that is played by a thread on a Unix socket.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use isthmus_api::adapter::{
    Attach, Attached, Failure, FailureKind, Request, RequestBody, Response, ResponseBody, VERSION,
    read_frame, write_frame,
};
use serde_json::{Value, json};
use std::{os::unix::net::UnixListener, process::Command, sync::mpsc, thread};
use tempfile::TempDir;

/// What the agent answers; `None` breaks the connection.
type Answer = fn(&RequestBody) -> Option<ResponseBody>;

struct Agent {
    directory: TempDir,
    asked: mpsc::Receiver<RequestBody>,
}

impl Agent {
    fn new(answer: Answer) -> Self {
        let directory = TempDir::new().unwrap();
        let listener = UnixListener::bind(directory.path().join("adapter.sock")).unwrap();
        let config = json!({
            "isthmus_socket": directory.path().join("adapter.sock"), "cluster": "green", "start_port": 61000,
            "dns_servers": ["169.254.0.53"], "search_domains": ["apps.internal"], "CNI_Plugin_Dir": "/unused",
        });
        std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
        let (sender, asked) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let (request, netns): (Request, _) = read_frame(&stream).unwrap();
                assert_eq!(netns.is_some(), matches!(request.body, RequestBody::Attach(_)));
                let body = answer(&request.body);
                sender.send(request.body).unwrap();
                if let Some(body) = body {
                    write_frame(&mut stream, &Response { version: VERSION, body }, None).unwrap();
                }
            }
        });
        Self { directory, asked }
    }

    /// Runs an action; returns standard output or what goes to standard error, and what the agent was asked.
    fn run(&self, action: &str, stdin: &str) -> (Result<String, String>, Vec<RequestBody>) {
        let config = format!("--configFile={}", self.directory.path().join("config.json").display());
        let args = [config, "--action".into(), action.into(), "--handle".into(), "handle-1".into()];
        let outcome = isthmus_garden::run(&args, &mut stdin.as_bytes()).map_err(|error| error.to_string());
        (outcome, self.asked.try_iter().collect())
    }
}

#[expect(clippy::unnecessary_wraps, reason = "an Answer")]
fn willing(body: &RequestBody) -> Option<ResponseBody> {
    let RequestBody::Attach(attach) = body else { return Some(ResponseBody::Done) };
    let mut port_mappings = attach.port_mappings.clone();
    let mut next = 61000;
    for mapping in &mut port_mappings {
        if mapping.host_port == 0 {
            mapping.host_port = next;
            next += 1;
        }
    }
    Some(ResponseBody::Attached(Attached {
        host_interface: "ist0123456789ab".into(),
        host_mac: "8e:e4:75:06:73:37".into(),
        mac: "56:76:14:0e:74:1f".into(),
        addresses: vec!["10.255.203.7".parse().unwrap()],
        gateway: "169.254.1.1".parse().unwrap(),
        mtu: 1450,
        workload: "bc6f229d-5e4a-4c41-a63f-e8795496c283".into(),
        node_address: "192.0.2.1".parse().unwrap(),
        port_mappings,
    }))
}

fn up_input() -> Value {
    json!({
        "Pid": std::process::id(),
        "Properties": {
            "policy_group_id": "bc6f229d-5e4a-4c41-a63f-e8795496c283", "app_id": "bc6f229d-5e4a-4c41-a63f-e8795496c283",
            "space_id": "space-1", "org_id": "org-1", "ports": "8080", "container_workload": "app",
            "log_config": r#"{"guid":"g","index":0,"source_name":"CELL","tags":{"app_name":"cart","space_name":"prod","organization_name":"acme"}}"#,
        },
        "netin": [{ "host_port": 0, "container_port": 8080 }, { "host_port": 12345, "container_port": 7000 }],
        "netout_rules": [{ "protocol": 1, "networks": [{ "start": "8.8.8.8", "end": "9.9.9.9" }],
            "ports": [{ "start": 53, "end": 54 }], "log": true }],
    })
}

fn attach(asked: &[RequestBody]) -> &Attach {
    let [RequestBody::Attach(attach)] = asked else { panic!("one attach was expected: {asked:?}") };
    attach
}

#[test]
fn up_answers_exactly_what_garden_stores() {
    let agent = Agent::new(willing);
    let (outcome, asked) = agent.run("up", &up_input().to_string());
    let expected = concat!(
        r#"{"properties":{"garden.network.container-ip":"10.255.203.7","garden.network.host-ip":"255.255.255.255","#,
        r#""garden.network.mapped-ports":"[{\"HostPort\":61000,\"ContainerPort\":8080},{\"HostPort\":12345,\"ContainerPort\":7000}]","#,
        r#""garden.network.interface":"eth0"},"dns_servers":["169.254.0.53"],"search_domains":["apps.internal"]}"#
    );
    assert_eq!(outcome.as_deref(), Ok(expected));
    let attach = attach(&asked);
    assert_eq!((attach.key.runtime.as_str(), attach.key.container.as_str()), ("garden", "handle-1"));
    assert_eq!((attach.cluster.as_str(), attach.workload.group.as_str()), ("green", "acme/prod"));
    assert_eq!((attach.workload.app.as_str(), attach.instance.as_str()), ("cart", "cart/0"));
    assert_eq!(attach.port_mappings[0].host_port, 0, "the agent chooses");
}

#[test]
fn a_container_without_ports_gets_an_empty_list() {
    let agent = Agent::new(willing);
    let stdin = format!("{{\"pid\":{},\"properties\":{{\"healthcheck\":\"true\"}}}}", std::process::id());
    let (outcome, asked) = agent.run("up", &stdin);
    assert!(outcome.unwrap().contains(r#""garden.network.mapped-ports":"[]""#));
    assert_eq!(attach(&asked).workload.id, "healthcheck");
}

#[test]
fn down_takes_no_input_and_any_handle() {
    let agent = Agent::new(willing);
    for stdin in ["null", "", "nonsense"] {
        let (outcome, asked) = agent.run("down", stdin);
        assert_eq!(outcome.as_deref(), Ok(""));
        assert!(matches!(&asked[..], [RequestBody::Detach(key)] if key.container == "handle-1"));
    }
}

#[test]
fn other_actions_have_the_text_of_the_original() {
    let agent = Agent::new(willing);
    let (outcome, asked) = agent.run("net-out", "{}");
    assert_eq!(outcome.unwrap_err(), "cfnetworking: unrecognized action: net-out");
    assert!(asked.is_empty());
    assert_eq!(
        agent.run("", "{}").0.unwrap_err(),
        "cfnetworking: parse args: missing required flag 'action'"
    );
}

#[test]
fn a_call_by_hand_is_told_so() {
    for args in [&[][..], &["--help".to_owned()][..]] {
        let error = isthmus_garden::run(args, &mut "".as_bytes()).unwrap_err().to_string();
        assert_eq!(error, "cfnetworking: this is a plugin for Garden-runC.  Don't run it directly.");
    }
    let banana = ["--handle=h".to_owned(), "--banana".to_owned()];
    let error = isthmus_garden::run(&banana, &mut "".as_bytes()).unwrap_err().to_string();
    assert_eq!(error, "cfnetworking: parse args: flag provided but not defined: -banana");
}

#[test]
fn a_process_that_is_gone_is_named() {
    let agent = Agent::new(willing);
    let (outcome, asked) = agent.run("up", r#"{"Pid":2147483647}"#);
    let error = outcome.unwrap_err();
    assert!(
        error.starts_with("cfnetworking: opening the container's network namespace /proc/2147483647/ns/net"),
        "{error}"
    );
    assert!(asked.is_empty());
}

#[test]
fn input_that_is_none_is_refused() {
    let agent = Agent::new(willing);
    for stdin in ["", "[]", r#"{"Pid":"x"}"#] {
        let (outcome, asked) = agent.run("up", stdin);
        assert!(outcome.unwrap_err().starts_with("cfnetworking: reading standard input: "), "{stdin}");
        assert!(asked.is_empty());
    }
}

#[test]
fn a_refusal_of_the_agent_is_passed_on() {
    let full: Answer = |_| {
        let failure = Failure {
            kind: FailureKind::TryAgain,
            message: "allocating port: acquire port: port pool exhausted".into(),
            help: "raise garden_total_ports".into(),
        };
        Some(ResponseBody::Failed(failure))
    };
    let agent = Agent::new(full);
    let (outcome, asked) = agent.run("up", &up_input().to_string());
    let expected =
        "cfnetworking: allocating port: acquire port: port pool exhausted (raise garden_total_ports)";
    assert_eq!(outcome.unwrap_err(), expected);
    assert_eq!(asked.len(), 1);
    assert!(agent.run("down", "null").0.is_err());
}

#[test]
fn an_up_that_breaks_off_or_cannot_be_used_is_undone() {
    let broken: Answer = |body| (!matches!(body, RequestBody::Attach(_))).then_some(ResponseBody::Done);
    let six: Answer = |body| {
        let mut answer = willing(body)?;
        if let ResponseBody::Attached(attached) = &mut answer {
            attached.addresses = vec!["fd00::7".parse().ok()?];
        }
        Some(answer)
    };
    for (answer, word) in [(broken, "no answer"), (six, "expected an IPv4 address")] {
        let agent = Agent::new(answer);
        let (outcome, asked) = agent.run("up", &up_input().to_string());
        assert!(outcome.unwrap_err().contains(word));
        assert!(matches!(&asked[..], [RequestBody::Attach(_), RequestBody::Detach(_)]), "{asked:?}");
    }
}

#[test]
fn an_absent_agent_is_named_with_its_socket() {
    let agent = Agent::new(willing);
    std::fs::remove_file(agent.directory.path().join("adapter.sock")).unwrap();
    for action in ["up", "down"] {
        let error = agent.run(action, &up_input().to_string()).0.unwrap_err();
        assert!(error.starts_with("cfnetworking: the Isthmus agent does not answer on "), "{error}");
    }
}

#[test]
fn without_a_process_descriptor_three_is_the_namespace() {
    let agent = Agent::new(willing);
    let config = agent.directory.path().join("config.json");
    let script = format!(
        "echo '{{\"Pid\":0}}' | {} --action=up --handle=h --configFile={} 3</proc/self/ns/net",
        env!("CARGO_BIN_EXE_isthmus-garden"),
        config.display()
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stdout)
            .starts_with(r#"{"properties":{"garden.network.container-ip""#)
    );
    let output = Command::new(env!("CARGO_BIN_EXE_isthmus-garden")).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("cfnetworking: "));
}

#[test]
fn whatever_stands_in_the_input_the_answer_is_a_document_or_an_error() {
    let agent = Agent::new(willing);
    let places = [
        "/Pid",
        "/Properties",
        "/Properties/log_config",
        "/Properties/app_id",
        "/Properties/policy_group_id",
        "/netin",
        "/netin/0",
        "/netin/0/host_port",
        "/netin/0/container_port",
        "/netout_rules",
        "/netout_rules/0",
    ];
    let values =
        [json!(null), json!(-1), json!(1e300), json!(""), json!("{"), json!([]), json!([[]]), json!({})];
    for (place, value) in places.iter().flat_map(|place| values.iter().map(move |value| (place, value))) {
        let mut input = up_input();
        *input.pointer_mut(place).unwrap() = value.clone();
        match agent.run("up", &input.to_string()).0 {
            Ok(answer) => {
                assert!(serde_json::from_str::<Value>(&answer).is_ok(), "{value} at {place}: {answer}");
            }
            Err(error) => assert!(error.starts_with("cfnetworking: "), "{value} at {place}: {error}"),
        }
    }
}
