//! GoBGP's TOML: whatever is read is refused with reasons, or a speaker runs with it and takes it once more.
//!
//! The speaker opens no sockets and no files: it listens nowhere, dumps nothing, and all neighbours are shut down.
#![no_main]

use isthmus_bgp::{Attributes, Candidate, Origin, Prefix};
use isthmus_speaker::{Config, Options, config::PeerSettings, interface, route_policy::compile, start};
use libfuzzer_sys::fuzz_target;
use std::{cell::RefCell, future::Future};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{mpsc, oneshot},
};

thread_local! {
    static RUNTIME: RefCell<Runtime> =
        RefCell::new(Builder::new_current_thread().enable_all().build().expect("a runtime"));
}

fuzz_target!(|text: &str| {
    let config = match Config::from_toml(text, "f") {
        Ok(config) => config,
        Err(faults) => {
            assert!(!faults.faults.is_empty());
            assert!(!faults.to_string().is_empty());
            return;
        }
    };
    assert_eq!(Config::from_toml(text, "f").expect("as before"), config);
    judge(&config);
    RUNTIME.with_borrow(|runtime| runtime.block_on(run(deaf(config))));
});

/// Without what would open sockets, or files.
fn deaf(mut config: Config) -> Config {
    config.global.listen.clear();
    config.mrt_dumps.clear();
    config.stations.clear();
    config.neighbors.retain(|address, _| interface::of(*address).is_none());
    let ranges = config.dynamic_neighbors.iter_mut().map(|range| &mut range.settings);
    config.neighbors.values_mut().chain(ranges).for_each(|settings: &mut PeerSettings| {
        settings.admin_down = true;
        settings.bfd = None;
    });
    config
}

/// Its policy decides about routes of both families.
fn judge(config: &Config) {
    let attributes = Attributes::local(Origin::Igp);
    let (import, export) = compile(&config.policy);
    for text in ["10.1.0.0/16", "2001:db8::/32"] {
        let prefix: Prefix = text.parse().expect("a prefix");
        let candidate = Candidate { prefix: &prefix, attributes: &attributes, source: None, target: None };
        for policy in [&import, &export] {
            let _ = (policy.verdict(&candidate), policy.decided_by(&candidate));
        }
    }
}

/// Starts, takes the same as a reload, and stops.
fn run(config: Config) -> impl Future<Output = ()> {
    async move {
        let neighbors = config.neighbors.len();
        let (reloads, to_reload) = mpsc::channel(1);
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async { drop(stopped.await) };
        let again = config.clone();
        let (handle, running) =
            start(config, Options::default(), to_reload, stopped).await.expect("no socket is opened");
        let running = tokio::spawn(running);
        assert_eq!(handle.peers(None, true).await.expect("it runs").len(), neighbors);
        let policy = handle.policy().await.expect("it runs");
        assert_eq!(*policy, again.policy);
        reloads.send(again).await.expect("it runs");
        assert_eq!(handle.peers(None, true).await.expect("it runs").len(), neighbors);
        let _ = handle.groups().await.expect("it runs");
        stop.send(()).expect("it runs");
        running.await.expect("it ends");
    }
}
