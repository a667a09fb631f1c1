//! The daemons as processes.

use super::rig::{Ran, isthmus, run};
use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

#[test]
fn check_config_prints_what_would_be_in_force() {
    let ran = run(None, "server --check-config --listen 127.0.0.1:9 --data-dir /tmp/x");
    assert_eq!((ran.exit, ran.err.as_str()), (Some(0), ""), "{}", ran.err);
    assert!(
        ran.out.contains("listen = \"127.0.0.1:9\"") && ran.out.contains("data_dir = \"/tmp/x\""),
        "{}",
        ran.out
    );
    let ran = run(None, "agent --check-config --node n1 --cluster red --cluster blue --vxlan-port 4790");
    assert_eq!(ran.exit, Some(0), "{}", ran.err);
    assert!(
        ran.out.contains("clusters = [\"red\", \"blue\"]") && ran.out.contains("vxlan_port = 4790"),
        "{}",
        ran.out
    );
}

#[test]
fn every_fault_of_a_file_is_told_at_once_with_its_line() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "clusters = [\"red\"]\nnod = \"x\"\nvxlan_port = 0\n").unwrap();
    let path = file.path().display();
    let ran = run(None, &format!("agent --check-config -c {path}"));
    assert_eq!((ran.exit, ran.out.as_str()), (Some(2), ""));
    assert!(ran.err.starts_with("error[ISE-0501]: "), "{}", ran.err);
    assert!(
        ran.err.contains(&format!("{path}:2: ")) && ran.err.contains(&format!("{path}:3: ")),
        "{}",
        ran.err
    );
    let ran = run(None, "server -c /nonexistent/server.toml");
    assert!(ran.exit == Some(2) && ran.err.contains("/nonexistent/server.toml"), "{}", ran.err);
    let ran = run(None, "server --listen 0.0.0.0:7480 --check-config");
    assert_eq!(ran.exit, Some(2), "plain text on every address is refused: {}", ran.out);
}

#[test]
fn a_server_is_ready_and_ends_with_a_signal() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = isthmus();
    command.args([
        "server",
        "--listen",
        "127.0.0.1:0",
        "--agents",
        "127.0.0.1:0",
        "--cf-policy",
        "",
        "--data-dir",
    ]);
    let mut child = command.arg(directory.path()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["message"], "server is ready");
    let address = event["rest"].as_str().unwrap();
    assert_eq!(run(Some(address), "status").exit, Some(0));
    assert!(std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn the_address_of_the_rest_api_is_no_address_of_a_daemon() {
    let ran = run(None, "agent --server 127.0.0.1:7443 --check-config --cluster red");
    assert_eq!((ran.exit, ran.out.as_str()), (Some(2), ""));
    assert!(ran.err.contains("--connect HOST:PORT"), "{}", ran.err);
    assert_eq!(run(Some("127.0.0.1:1"), "agent --check-config --node n --cluster red").exit, Some(0));
}

#[test]
fn a_log_filter_that_is_none_is_refused() {
    let ran = run(None, "server --data-dir /nonexistent --log [");
    assert_eq!(ran.exit, Some(2));
    assert!(ran.err.contains("log filter"), "{}", ran.err);
}

#[test]
fn nothing_is_cleaned_up_without_a_yes() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = isthmus();
    command.args(["node", "cleanup", "--name", "n1", "--run-dir"]).arg(directory.path());
    let ran = Ran::of(command.stdin(Stdio::null()).output().unwrap());
    assert_eq!((ran.exit, ran.out.as_str()), (Some(2), ""));
    assert!(ran.err.contains("add --yes"), "{}", ran.err);
}
