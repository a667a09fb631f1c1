//! What a session does when things do not go on; time is virtual.

use super::*;
use crate::{agents::AskError, flows::Flows, metrics::Metrics, registry::Registry};
use isthmus_store::MemoryStore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

fn agents() -> Arc<Agents> {
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let registry = Registry::start(Arc::new(MemoryStore::new()), &tasks, stop.clone()).unwrap();
    Agents::new(registry, Flows::new(), Arc::new(Metrics::new()), tasks, stop)
}

fn live(agents: &Agents, instance: &str) -> (Arc<Live>, mpsc::Receiver<Question>) {
    let (asks, questions) = mpsc::channel(1);
    let cut = agents.stop.child_token();
    let live = Live { instance: instance.to_owned(), cut, asks, state: Mutex::default() };
    (Arc::new(live), questions)
}

fn shared(agents: &Arc<Agents>, out: mpsc::Sender<ToAgent>) -> Shared {
    Shared {
        agents: Arc::clone(agents),
        node: "n1".parse().unwrap(),
        live: live(agents, "a").0,
        out,
        endpoints: mpsc::channel(1).0,
        answers: Mutex::default(),
    }
}

fn message() -> to_agent::Body {
    to_agent::Body::Synced(stream::Synced { revision: 1 })
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_read_is_told_and_cut() {
    let (out, mut inbox) = mpsc::channel(1);
    let shared = shared(&agents(), out);
    send(&shared, message()).await.unwrap();
    let started = Instant::now();
    let status = send(&shared, message()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    assert!(started.elapsed() >= SLOW);
    // One that reads again in time is not.
    inbox.recv().await.unwrap();
    send(&shared, message()).await.unwrap();
    drop(inbox);
    assert_eq!(send(&shared, message()).await.unwrap_err().code(), tonic::Code::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_second_agent_waits_a_moment_for_the_first_one_to_end() {
    let agents = agents();
    let node: NodeName = "n1".parse().unwrap();
    let ((first, _), (second, _)) = (live(&agents, "a"), live(&agents, "b"));
    agents.claim(&node, &first).await.unwrap();
    let started = Instant::now();
    assert_eq!(agents.claim(&node, &second).await.unwrap_err().code(), tonic::Code::AlreadyExists);
    assert!(started.elapsed() >= super::super::CLAIM_WAIT);
    let (claimed, ()) = tokio::join!(agents.claim(&node, &second), agents.leave(&node, &first));
    claimed.unwrap();
    // Who left already does not take the newer one along.
    agents.leave(&node, &first).await;
    assert!(agents.is_connected(&node));
}

#[tokio::test(start_paused = true)]
async fn a_question_has_its_time() {
    let agents = agents();
    let node: NodeName = "n1".parse().unwrap();
    let ask = || agents.ask(&node, stream::ask::Body::Status(stream::AskStatus {}));
    assert_eq!(ask().await, Err(AskError::Away(node.clone())));
    let (live, mut questions) = live(&agents, "a");
    agents.claim(&node, &live).await.unwrap();
    assert_eq!(ask().await, Err(AskError::Late(node.clone())));
    drop(questions.recv().await);
    let (answered, ()) = tokio::join!(ask(), async {
        let question = questions.recv().await.unwrap();
        let answer = stream::Answer { id: question.id, json: String::new(), problem: "no".to_owned() };
        question.answer.send(answer).unwrap();
    });
    assert_eq!(answered, Err(AskError::Refused { node: node.clone(), why: "no".to_owned() }));
}

#[test]
fn an_agent_that_needs_nothing_new_is_up_to_date() {
    let state = |seen, sent, in_force| LiveState { seen, sent, in_force, ..LiveState::default() };
    // Changes up to 9 were looked at, nothing was to be sent since 5.
    assert!(state(9, 5, 5).has(9, 9));
    assert_eq!(state(9, 5, 5).effective(9), 9);
    // What was sent is not in force yet.
    assert!(!state(9, 9, 5).has(9, 9));
    assert_eq!(state(9, 9, 5).effective(9), 5);
    // A change that the session has not looked at.
    assert!(!state(8, 5, 5).has(9, 9));
    // A revision that changed nothing that agents hold.
    assert!(state(8, 5, 5).has(12, 8));
}
