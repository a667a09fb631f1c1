//! Guardian's call of the Garden networker: standard input of `up`, and the name that the container gets from it.
#![no_main]

use isthmus_garden::{flags::Flags, input::Up, workload};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(up) = Up::parse(data) {
        let named = workload::name("handle", &up.properties);
        assert!(!named.workload.id.is_empty() && !named.instance.is_empty(), "{named:?}");
        let app = &named.workload.app;
        assert!(!app.is_empty() && !app.contains(['/', ':', '@']), "{named:?}");
        assert!(app.chars().count() <= 253, "{named:?}");
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let args: Vec<_> = text.split('\n').map(str::to_owned).collect();
        if let Ok(flags) = Flags::parse(&args) {
            assert!(!flags.handle.is_empty() && !flags.config_file.is_empty(), "{flags:?}");
        }
    }
});
