//! The way to the server: what the rest of the agent uses of the stream.
//!
//! Messages are queued while the stream is up and dropped while it is not: whatever they say is said again, whole, when
//! the stream comes back. A queue that is full ends the stream, for the same reason.

use crate::locks::lock;
use isthmus_api::stream::{FromAgent, Problem, Reply, Request, from_agent, reply, request};
use std::{collections::BTreeMap, sync::Mutex, time::Duration};
use tokio::sync::{mpsc, oneshot, watch};

/// Messages that may wait to be sent.
pub(crate) const QUEUE_MAX: usize = 8_192;
/// Longest wait for a reply.
pub(crate) const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// The stream's near end.
#[derive(Debug)]
pub(crate) struct Link {
    state: Mutex<State>,
    up: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    sender: Option<mpsc::Sender<FromAgent>>,
    waiting: BTreeMap<u64, oneshot::Sender<Result<reply::Body, AskError>>>,
    last_id: u64,
}

/// Why the server gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AskError {
    /// No stream, or it broke.
    #[error("the server is away")]
    Away,
    /// Too slow.
    #[error("the server gave no answer within {} s", REPLY_TIMEOUT.as_secs())]
    TimedOut,
    /// It said no.
    #[error("{code}: {message}")]
    Refused {
        /// `ISE-nnnn`.
        code: String,
        /// What, where, why.
        message: String,
        /// Whether the same call may succeed later.
        retryable: bool,
    },
    /// It said something else.
    #[error("the server answered something that was not asked")]
    Unexpected,
}

impl Link {
    /// A link that is down.
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), up: watch::Sender::new(false) }
    }

    /// Whether the stream is up.
    pub(crate) fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Waits until the stream is up, at most `timeout`.
    pub(crate) async fn wait_up(&self, timeout: Duration) -> bool {
        let mut up = self.up.subscribe();
        tokio::time::timeout(timeout, up.wait_for(|up| *up)).await.is_ok_and(|up| up.is_ok())
    }

    /// The stream is up.
    pub(crate) fn open(&self, sender: mpsc::Sender<FromAgent>) {
        lock(&self.state).sender = Some(sender);
        self.up.send_replace(true);
    }

    /// The stream is down; whoever waits is told.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.sender = None;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.up.send_replace(false);
        for (_, waiter) in waiting {
            drop(waiter.send(Err(AskError::Away)));
        }
    }

    /// Queues a message, if the stream is up.
    pub(crate) fn tell(&self, body: from_agent::Body) {
        let mut state = lock(&self.state);
        Self::queue(&mut state, body);
    }

    fn queue(state: &mut State, body: from_agent::Body) -> bool {
        let Some(sender) = &state.sender else { return false };
        let sent = sender.try_send(FromAgent { body: Some(body) }).is_ok();
        if !sent {
            // Ends the stream: its task sees that all senders are gone.
            state.sender = None;
        }
        sent
    }

    /// Asks the server, and waits for its reply.
    pub(crate) async fn ask(&self, body: request::Body) -> Result<reply::Body, AskError> {
        let (id, reply) = self.send_request(body)?;
        let reply = tokio::time::timeout(REPLY_TIMEOUT, reply).await;
        match reply {
            Ok(Ok(reply)) => reply,
            Ok(Err(_closed)) => Err(AskError::Away),
            Err(_elapsed) => {
                lock(&self.state).waiting.remove(&id);
                Err(AskError::TimedOut)
            }
        }
    }

    fn send_request(
        &self,
        body: request::Body,
    ) -> Result<(u64, oneshot::Receiver<Result<reply::Body, AskError>>), AskError> {
        let (sender, receiver) = oneshot::channel();
        let mut state = lock(&self.state);
        state.last_id += 1;
        let id = state.last_id;
        if !Self::queue(&mut state, from_agent::Body::Request(Request { id, body: Some(body) })) {
            return Err(AskError::Away);
        }
        state.waiting.insert(id, sender);
        Ok((id, receiver))
    }

    /// Hands a reply to whoever waits for it.
    pub(crate) fn reply(&self, reply: Reply) {
        let Some(waiter) = lock(&self.state).waiting.remove(&reply.id) else { return };
        let outcome = match reply.body {
            Some(reply::Body::Problem(Problem { code, message, retryable })) => {
                Err(AskError::Refused { code, message, retryable })
            }
            Some(body) => Ok(body),
            None => Err(AskError::Unexpected),
        };
        drop(waiter.send(outcome));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isthmus_api::stream::{Empty, LeaseBlock};

    fn body() -> request::Body {
        request::Body::LeaseBlock(LeaseBlock { cluster: "red".to_owned() })
    }

    #[tokio::test]
    async fn a_reply_reaches_who_asked() {
        let link = Link::new();
        let (sender, mut receiver) = mpsc::channel(4);
        link.open(sender);
        let asked = async {
            let Some(FromAgent { body: Some(from_agent::Body::Request(request)) }) = receiver.recv().await
            else {
                panic!("no request")
            };
            link.reply(Reply { id: request.id, body: Some(reply::Body::Empty(Empty {})) });
        };
        let (answer, ()) = tokio::join!(link.ask(body()), asked);
        assert_eq!(answer, Ok(reply::Body::Empty(Empty {})));
    }

    #[tokio::test]
    async fn who_waits_is_told_when_the_stream_breaks() {
        let link = Link::new();
        assert_eq!(link.ask(body()).await, Err(AskError::Away));
        let (sender, mut receiver) = mpsc::channel(4);
        link.open(sender);
        let broken = async {
            receiver.recv().await.unwrap();
            link.close();
        };
        let (answer, ()) = tokio::join!(link.ask(body()), broken);
        assert_eq!(answer, Err(AskError::Away));
    }

    #[tokio::test]
    async fn a_full_queue_ends_the_stream() {
        let link = Link::new();
        let (sender, mut receiver) = mpsc::channel(1);
        link.open(sender);
        for _ in 0..2 {
            link.tell(from_agent::Body::EndpointGone(isthmus_api::stream::EndpointGone {
                id: "x".to_owned(),
            }));
        }
        assert!(receiver.recv().await.is_some());
        assert!(receiver.recv().await.is_none(), "the sender is gone");
    }
}
