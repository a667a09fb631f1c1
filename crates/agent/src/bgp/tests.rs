//! The keeper, on a kernel in memory, and the end of a speaker on a loopback address.

use super::*;
use crate::{Config, kernel::fake::FakeKernel};
use isthmus_api::stream::{Bgp as Told, Upsert, upsert};
use std::{net::SocketAddr, sync::mpsc, thread};
use tokio::{io::AsyncReadExt as _, net::TcpStream};

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

/// A speaker at 127.0.81.`host` that has whoever comes from there, and nobody else. It hears of no reload unless `hears`.
async fn running(host: u8, hears: bool) -> Running {
    let text = format!(
        "[global.config]\nas = 65001\nrouter-id = \"10.0.0.1\"\nport = 17902\nlocal-address-list = [\"127.0.81.{host}\"]\n\
         [[peer-groups]]\n[peer-groups.config]\npeer-group-name = \"g\"\npeer-as = 65002\n\
         [[dynamic-neighbors]]\n[dynamic-neighbors.config]\nprefix = \"127.0.0.0/8\"\npeer-group = \"g\"\n"
    );
    let config = isthmus_speaker::Config::from_toml(&text, "f").unwrap();
    let (reloads, to_reload) = tokio::sync::mpsc::channel(1);
    let (unheard, to_nobody) = tokio::sync::mpsc::channel(1);
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async { drop(stopped.await) };
    let started = isthmus_speaker::start(config.clone(), Options::default(), to_reload, stopped).await;
    let (handle, life) = started.unwrap();
    let (said, kept) = if hears { (reloads, unheard) } else { (unheard, reloads) };
    let life = tokio::spawn(async move {
        life.await;
        drop((kept, to_nobody));
    });
    let wanted = Wanted { config, announced: BTreeMap::new(), names: BTreeMap::new(), problems: Vec::new() };
    Running { handle, wanted, reloads: said, stop, life, since: Instant::now() }
}

/// A neighbour that came by itself, once the speaker knows it.
async fn come(running: &Running, host: u8) -> TcpStream {
    let stream = TcpStream::connect(SocketAddr::from(([127, 0, 81, host], 17_902))).await.unwrap();
    let known = async {
        while running.handle.peers(None, false).await.unwrap().is_empty() {
            sleep(GOODBYE_LOOK).await;
        }
    };
    timeout(DEADLINE, known).await.unwrap();
    stream
}

/// What the speaker said until it ended the connection: each message's type, and of a NOTIFICATION why.
async fn hear(mut stream: TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut said)).await.unwrap().unwrap();
    said
}

#[tokio::test]
async fn goodbye_is_said_also_to_whom_somebody_added_by_hand() {
    let running = running(1, true).await;
    let stream = come(&running, 1).await;
    let added = "[config]\nneighbor-address = \"127.0.82.1\"\npeer-as = 65003\n[transport.config]\npassive-mode = true\n";
    let change = Change::SetNeighbor { table: added.parse().unwrap(), replace: false };
    running.handle.change(change).await.unwrap();
    timeout(DEADLINE, running.say_goodbye(DEADLINE * 2)).await.unwrap();
    // RFC 4486: Cease, peer de-configured.
    assert!(hear(stream).await.ends_with(&[3, 6, 3]));
}

#[tokio::test]
async fn goodbye_has_an_end_where_a_neighbour_does_not_go() {
    let running = running(2, false).await;
    let stream = come(&running, 2).await;
    timeout(DEADLINE, running.say_goodbye(GOODBYE_LOOK)).await.unwrap();
    let said = hear(stream).await;
    assert!(String::from_utf8_lossy(&said).ends_with("speaker stops"), "{said:?}");
}
