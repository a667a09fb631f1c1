//! `agent.toml` and `server.toml`: what is read can be written, and means the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match isthmus_agent::Config::from_toml(text, "agent.toml") {
        Ok(config) => {
            let rendered = config.render();
            let again = isthmus_agent::Config::from_toml(&rendered, "rendered")
                .expect("what was written can be read");
            assert_eq!(again, config, "{rendered}");
        }
        Err(faults) => assert!(!faults.to_string().is_empty()),
    }
    match isthmus_server::Config::from_toml(text, "server.toml") {
        Ok(config) => {
            let rendered = config.render();
            let again = isthmus_server::Config::from_toml(&rendered, "rendered")
                .expect("what was written can be read");
            assert_eq!(again.render(), rendered);
        }
        Err(faults) => assert!(!faults.to_string().is_empty()),
    }
});
