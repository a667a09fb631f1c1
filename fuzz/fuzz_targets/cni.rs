//! A runtime's call of the CNI plugin, as far as it goes without the agent: environment and configuration.
//!
//! Input: five lines (container, namespace, interface, arguments, override), then standard input.
#![no_main]

use isthmus_cni::{
    Environment,
    config::{self, Base, Details},
    error::CniError,
    network::Network,
    version::Version,
    workload,
};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(6, |byte| *byte == b'\n');
    let mut line = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let environment = Environment {
        command: "VERSION".to_owned(),
        container: line(),
        netns: line(),
        interface: line(),
        args: line(),
        netns_override: line(),
    };
    let mut input = parts.next().unwrap_or_default();
    let whole = input;

    if let Err(error) = call(&environment, whole) {
        for version in Version::ALL {
            let document: Value = serde_json::from_str(&error.render(version)).expect("an error is JSON");
            assert!(document["code"].as_u64().is_some_and(|code| code > 0), "{document}");
        }
    }
    // The whole plugin, with the command that asks no agent.
    let outcome = isthmus_cni::run(&environment, &mut input);
    serde_json::from_str::<Value>(&outcome.stdout).expect("the answer is JSON");
});

/// What ADD, CHECK and GC read before they ask the agent.
fn call(environment: &Environment, input: &[u8]) -> Result<(), CniError> {
    config::read_version(input)?;
    // Whatever one of them says of the input, the others must get through it too.
    let gc = config::valid_attachments(input).map(drop);
    let network =
        config::previous_result(input).and_then(|previous| previous.as_ref().map(round_trip).transpose());
    Base::read(input)?;
    environment.interface()?;
    environment.netns()?;
    let container = environment.container()?;
    let details = Details::read(input, environment)?;
    let named = workload::name(&environment.args()?, &details.metadata, container)?;
    assert!(!named.workload.id.is_empty() && !named.workload.app.is_empty(), "{named:?}");
    gc.and(network.map(drop))
}

/// A result that can be read can be written in every version, and read again.
fn round_trip(previous: &Value) -> Result<(), CniError> {
    let network = Network::read(previous)?;
    for version in Version::ALL {
        let written = network.render(version);
        Network::read(&written).unwrap_or_else(|error| panic!("{error}: {written}"));
    }
    network.addresses_of("eth0");
    Ok(())
}
