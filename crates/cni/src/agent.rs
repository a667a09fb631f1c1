//! The call to the agent.

use crate::{
    config::Base,
    error::{CniError, Code},
};
use isthmus_api::adapter::{self, AttachmentKey, CallError, RequestBody, ResponseBody};
use std::{os::fd::BorrowedFd, time::Duration};

/// How long the detach after a broken attach may take: the runtime waits for it.
const UNDO_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the agent. A refusal of the agent is an error.
pub fn ask(base: &Base, body: RequestBody, netns: Option<BorrowedFd<'_>>) -> Result<ResponseBody, CniError> {
    match adapter::call(&base.socket, body, netns, base.timeout)? {
        ResponseBody::Failed(failure) => Err(failure.into()),
        answer => Ok(answer),
    }
}

/// As [`ask`], where an answer that does not come may mean that the container is attached: it is detached again, so that
/// a failed ADD leaves nothing behind (Nomad tries again without a DEL).
pub fn attach(
    base: &Base,
    attach: adapter::Attach,
    netns: BorrowedFd<'_>,
) -> Result<adapter::Attached, CniError> {
    let key = attach.key.clone();
    let body = RequestBody::Attach(Box::new(attach));
    match adapter::call(&base.socket, body, Some(netns), base.timeout) {
        Ok(ResponseBody::Attached(attached)) => Ok(attached),
        Ok(ResponseBody::Failed(failure)) => Err(failure.into()),
        Ok(ResponseBody::Done) => {
            undo(base, key);
            Err(CniError::new(Code::Unavailable, "the Isthmus agent said nothing about the attachment", ""))
        }
        Err(error) => {
            if matches!(error, CallError::Broken { .. }) {
                undo(base, key);
            }
            Err(error.into())
        }
    }
}

/// Best effort: if this fails too, the agent's own look at the namespace finds what was left.
fn undo(base: &Base, key: AttachmentKey) {
    let timeout = base.timeout.min(UNDO_TIMEOUT);
    let _ = adapter::call(&base.socket, RequestBody::Detach(key), None, timeout);
}
