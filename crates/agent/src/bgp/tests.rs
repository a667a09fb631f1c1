//! The keeper, on a kernel in memory; no speaker is started here.

use super::*;
use crate::{Config, kernel::fake::FakeKernel};
use isthmus_api::stream::{Bgp as Told, Upsert, upsert};
use std::{sync::mpsc, thread};

/// Longest wait for anything.
const DEADLINE: Duration = Duration::from_secs(30);

/// Where a problem of a neighbour is told.
const NEIGHBOUR: &str = "bgp tor";

fn keeper(directory: &tempfile::TempDir) -> Keeper {
    let place = directory.path().display();
    let text = format!(
        "node = \"n1\"\nserver = \"192.0.2.9:7443\"\naddress = \"192.0.2.1\"\nclusters = [\"red\"]\n\
         data_dir = \"{place}\"\nrun_dir = \"{place}\"\nflow_log = \"{place}/flows.log\"\n"
    );
    let config = Config::from_toml(&text, "agent.toml").unwrap();
    let runtime = tokio::runtime::Handle::current();
    let agent = Agent::open(config, Arc::new(FakeKernel::new()), runtime, [192, 0, 2, 1].into()).unwrap();
    Keeper {
        agent: Arc::new(agent),
        running: None,
        restarted: true,
        start_at: Instant::now(),
        told: BTreeSet::new(),
    }
}

/// The node has a speaker, which cannot start.
fn say_speaker(agent: &Agent) {
    let bgp = Told { asn: 64_512, router_id: "x".to_owned(), ..Told::default() };
    let value = Some(upsert::Value::Bgp(bgp));
    agent.view().upsert(Upsert { key: "bgp".to_owned(), revision: 1, value }).unwrap();
}

#[tokio::test]
async fn where_there_is_no_speaker_nothing_is_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    let keeper = Arc::new(keeper(&directory));
    let busy = keeper.agent.attachments();
    let asked = Arc::clone(&keeper);
    let (answer, answered) = mpsc::channel();
    let asking = thread::spawn(move || answer.send(asked.wanted().is_none()));
    // It would wait for the containers, which somebody holds.
    assert_eq!(answered.recv_timeout(DEADLINE), Ok(true));
    drop(busy);
    asking.join().unwrap().unwrap();
    say_speaker(&keeper.agent);
    assert!(keeper.wanted().is_some());
}

#[tokio::test]
async fn problems_of_a_speaker_go_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut keeper = keeper(&directory);
    let agent = Arc::clone(&keeper.agent);
    say_speaker(&agent);
    keeper.follow().await;
    let told = agent.problems.at(PLACE).unwrap();
    assert!(told.contains("router id \"x\""), "{told}");
    // As a start that failed and a look at a neighbour that was down told.
    agent.problems.set(START_PLACE, Some("the BGP speaker cannot start".to_owned()));
    agent.problems.set(NEIGHBOUR, Some("BGP neighbour tor is down".to_owned()));
    keeper.told.insert(NEIGHBOUR.to_owned());
    agent.problems.set("journal", Some("of somebody else".to_owned()));
    agent.view().delete("bgp").unwrap();
    keeper.follow().await;
    keeper.look().await;
    assert_eq!(agent.problems.all(), ["of somebody else"]);
    assert!(!keeper.restarted, "the next speaker is a new one");
}
