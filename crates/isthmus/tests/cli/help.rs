//! What the program says of itself.

use super::rig::{Ran, isthmus, run};
use std::process::{Command, Stdio};

/// Every command that has a help of its own.
const COMMANDS: [&str; 32] = [
    "",
    "status",
    "why",
    "allow",
    "flows",
    "policy",
    "policy allow",
    "policy remove",
    "policy list",
    "policy show",
    "app",
    "app list",
    "app show",
    "endpoint list",
    "node list",
    "node set",
    "node delete",
    "network set",
    "bgp peer create",
    "node cleanup",
    "ipam show",
    "cluster",
    "cluster create",
    "cluster set",
    "cluster delete",
    "pool create",
    "server",
    "agent",
    "completion",
    "man",
    "version",
    "help",
];

#[test]
fn short_help_stays_as_it_is_written() {
    let mut all = String::new();
    for command in COMMANDS {
        let ran = run(None, &format!("{command} -h"));
        assert_eq!((ran.exit, ran.err.as_str()), (Some(0), ""), "{command}");
        assert!(ran.out.contains("Examples:\n  isthmus"), "{command} has no examples");
        all.extend(["$ isthmus ", command, " -h\n", &ran.out, "\n"]);
    }
    insta::assert_snapshot!(all);
}

#[test]
fn an_unknown_word_gets_the_nearest() {
    let ran = run(None, "statsu");
    assert_eq!((ran.exit, ran.out.as_str()), (Some(2), ""));
    assert!(ran.err.contains("'status'"), "{}", ran.err);
    assert_eq!(run(None, "stat").exit, Some(2), "scripts may not abbreviate");
    assert_eq!(run(None, "").exit, Some(2));
}

#[test]
fn help_explains_commands_and_codes() {
    let ran = run(None, "help policy allow");
    assert!(ran.out.contains("Usage: isthmus policy allow"), "{}", ran.out);
    assert!(run(None, "help ise-0601").out.starts_with("# ISE-0601"));
    let ran = run(None, "help ISE-9999");
    assert_eq!(ran.exit, Some(2));
    assert!(ran.err.contains("ISE-0601"), "{}", ran.err);
    assert_eq!(run(None, "help nonsense").exit, Some(2));
}

#[test]
fn versions_pages_and_completions_are_printed() {
    let ran = run(None, "version -o json");
    let document: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(document["version"], env!("CARGO_PKG_VERSION"));
    assert!(run(None, "man").out.starts_with(".ie \\n(.g"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(None, &format!("completion {shell}")).out.contains("isthmus"));
    }
    let directory = tempfile::tempdir().unwrap();
    let ran = run(None, &format!("man --directory {}", directory.path().display()));
    assert_eq!(ran.exit, Some(0), "{}", ran.err);
    assert!(directory.path().join("isthmus-policy-allow.1").exists());
    assert_eq!(run(None, "man --directory /nonexistent").exit, Some(2));
}

#[test]
fn a_closed_pipe_is_a_quiet_end() {
    let mut child =
        isthmus().args(["completion", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!((ran.exit, ran.err.as_str()), (Some(0), ""));
}

#[test]
fn a_full_disk_is_not_quiet() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command: Command = isthmus();
    let ran = Ran::of(command.args(["completion", "bash"]).stdout(full).output().unwrap());
    assert_eq!(ran.exit, Some(2));
    assert!(ran.err.starts_with("error[ISE-0606]"), "{}", ran.err);
}
