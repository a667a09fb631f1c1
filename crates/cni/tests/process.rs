//! The plugin as a process: status, and what goes where.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

fn run(variables: &[(&str, &str)], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_isthmus-cni"))
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A process that does not read its input has closed it.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn without_a_command_it_says_its_version_for_nomad() {
    let output = run(&[], "");
    assert!(output.status.success() && output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with(concat!("CNI isthmus plugin v", env!("CARGO_PKG_VERSION"), "\n")), "{text}");
    assert!(text.contains("0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"));
}

#[test]
fn an_error_is_one_document_on_standard_output_and_a_status() {
    let output = run(&[("CNI_COMMAND", "ADD")], r#"{"cniVersion":"0.4.0","name":"n"}"#);
    assert_eq!(output.status.code(), Some(1));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((document["code"].as_u64(), document["cniVersion"].as_str()), (Some(4), Some("0.4.0")));
    assert!(output.stderr.is_empty());
}

#[test]
fn the_version_is_answered_with_status_zero() {
    let output = run(&[("CNI_COMMAND", "VERSION")], r#"{"cniVersion":"9.0.0"}"#);
    assert!(output.status.success());
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["cniVersion"], "9.0.0");
    assert!(run(&[("CNI_COMMAND", "VERSION")], "").status.success());
}
