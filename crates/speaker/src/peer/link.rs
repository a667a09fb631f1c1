//! The TCP connections of one neighbour, served by its task.

use super::connection::{Connection, Piece, Shortcut};
use isthmus_bgp::session::ConnectionId;
use std::{
    task::{Context, Poll},
    time::Duration,
};
use tokio::{net::TcpStream, time::Instant};

/// Bytes that are read at once.
pub(super) const READ_BYTES_MAX: usize = 64 << 10;
/// How long a connection that we end waits for the neighbour to read our last message and end it too.
const LINGER: Duration = Duration::from_secs(2);

/// A connection and its end.
#[derive(Debug)]
struct Link {
    id: ConnectionId,
    connection: Connection,
    /// What is left is written, and then it ends.
    closing: Option<Instant>,
    is_shut: bool,
}

/// What happened on a connection.
#[derive(Debug)]
pub(super) enum LinkEvent {
    /// This many bytes are in the buffer.
    Read(ConnectionId, usize),
    /// It ended, or broke; it is forgotten already.
    Closed(ConnectionId),
    /// Some was written.
    Wrote,
}

/// All connections of a neighbour: one, or two while it is settled which stays.
#[derive(Debug, Default)]
pub(super) struct Links {
    links: Vec<Link>,
}

impl Links {
    pub(super) fn add(&mut self, id: ConnectionId, stream: TcpStream) {
        self.links.push(Link { id, connection: Connection::new(stream), closing: None, is_shut: false });
    }

    fn find(&self, id: ConnectionId) -> Option<&Connection> {
        self.links.iter().find(|link| link.id == id).map(|link| &link.connection)
    }

    /// Whether there is none, not even one that ends.
    pub(super) fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// All of them, with those that end.
    pub(super) fn ids(&self) -> Vec<ConnectionId> {
        self.links.iter().map(|link| link.id).collect()
    }

    /// How many there are, with those that end.
    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    /// Queues bytes to be written.
    pub(super) fn send(&mut self, id: ConnectionId, piece: Piece) {
        if let Some(connection) = self.find(id) {
            connection.lock().queue(piece);
        }
    }

    /// Lets UPDATEs to a connection in past the task.
    pub(super) fn take_updates(&self, id: ConnectionId) -> Shortcut {
        self.find(id).map(Connection::take_updates).unwrap_or_default()
    }

    /// No UPDATE comes in past the task any longer.
    pub(super) fn end_updates(&self, id: ConnectionId) {
        if let Some(connection) = self.find(id) {
            connection.lock().end_updates();
        }
    }

    /// Bytes that wait on a connection.
    pub(super) fn queued_bytes(&self, id: ConnectionId) -> usize {
        self.find(id).map_or(0, |connection| connection.lock().queued_bytes())
    }

    /// Our port and the neighbour's; 0 where the connection is gone.
    pub(super) fn ports(&self, id: ConnectionId) -> (u16, u16) {
        self.find(id).map_or((0, 0), |connection| connection.lock().ports())
    }

    /// Ends a connection once what is queued is written.
    pub(super) fn close(&mut self, id: ConnectionId) {
        if let Some(link) = self.links.iter_mut().find(|link| link.id == id) {
            link.closing = Some(Instant::now() + LINGER);
        }
    }

    /// Drops a connection at once, with what is queued: the kernel does not keep that for a neighbour that takes nothing.
    pub(super) fn reset(&mut self, id: ConnectionId) {
        if let Some(index) = self.links.iter().position(|link| link.id == id) {
            self.links.remove(index).connection.lock().discard();
        }
    }

    /// Drops all connections at once.
    pub(super) fn abort_all(&mut self) {
        self.links.clear();
    }

    /// When [`Links::sweep`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.links.iter().filter_map(|link| link.closing).min()
    }

    /// Drops connections that have lingered long enough. The kernel goes on with what it has of them, unless more waits.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.links.retain(|link| {
            let is_over = link.closing.is_some_and(|until| until <= now);
            let wire = link.connection.lock();
            if is_over && !wire.is_flushed() {
                wire.discard();
            }
            !is_over
        });
    }

    /// Since when the neighbour takes nothing of what is to be written.
    pub(super) fn stalled_since(&self, id: ConnectionId) -> Option<Instant> {
        self.find(id).and_then(|connection| connection.lock().stalled_since())
    }

    /// Connections on which something waits to be read.
    pub(super) fn unread(&self) -> Vec<ConnectionId> {
        let unread = self.links.iter().filter(|link| link.connection.lock().is_unread());
        unread.map(|link| link.id).collect()
    }

    /// The next event. What is read is in `buffer`; nothing is read while `may_read` is false, except to see the end of
    /// what we ended.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        may_read: bool,
        buffer: &mut [u8],
    ) -> Poll<LinkEvent> {
        let mut index = 0;
        while let Some(link) = self.links.get_mut(index) {
            let mut wire = link.connection.lock();
            match wire.poll_write(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(LinkEvent::Wrote),
                Poll::Ready(Err(_)) => wire.break_off(),
                Poll::Pending if wire.is_flushed() && !wire.is_broken() => {
                    if link.closing.is_some() && !link.is_shut {
                        link.is_shut = true;
                        wire.shut();
                    }
                }
                Poll::Pending => {}
            }
            if !may_read && link.closing.is_none() {
                index += 1;
                continue;
            }
            match wire.poll_read(cx, buffer) {
                // Whatever comes after our last word is thrown away; look again at once.
                Poll::Ready(Ok(bytes)) if bytes > 0 && link.closing.is_some() => {}
                Poll::Ready(Ok(bytes)) if bytes > 0 => {
                    return Poll::Ready(LinkEvent::Read(link.id, bytes));
                }
                Poll::Pending if !wire.is_broken() => index += 1,
                _ => {
                    drop(wire);
                    return self.forget(index);
                }
            }
        }
        Poll::Pending
    }

    fn forget(&mut self, index: usize) -> Poll<LinkEvent> {
        let link = self.links.remove(index);
        Poll::Ready(LinkEvent::Closed(link.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::connection::Written;
    use socket2::SockRef;
    use std::{future::poll_fn, io, sync::Arc};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        time::timeout,
    };

    const ONE: ConnectionId = ConnectionId(1);
    const SOON: Duration = Duration::from_secs(10);

    async fn pair() -> (Links, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap());
        let (far, near) = tokio::join!(far, listener.accept());
        let mut links = Links::default();
        links.add(ONE, near.unwrap().0);
        (links, far.unwrap())
    }

    async fn next(links: &mut Links, may_read: bool, buffer: &mut [u8]) -> LinkEvent {
        timeout(SOON, poll_fn(|cx| links.poll_next(cx, may_read, buffer))).await.unwrap()
    }

    #[tokio::test]
    async fn pieces_arrive_in_order_and_are_counted() {
        let (mut links, mut far) = pair().await;
        let big: Arc<[u8]> = vec![7; 32 << 20].into();
        links.send(ONE, Piece::Own(vec![1, 2]));
        links.send(ONE, Piece::Shared(big.clone()));
        links.send(ONE, Piece::Own(vec![3]));
        assert_eq!(links.queued_bytes(ONE), big.len() + 3);
        let reading = tokio::spawn(async move {
            let mut all = vec![0; (32 << 20) + 3];
            far.read_exact(&mut all).await.unwrap();
            all
        });
        while links.queued_bytes(ONE) > 0 {
            assert!(links.stalled_since(ONE).is_some());
            assert!(matches!(next(&mut links, true, &mut []).await, LinkEvent::Wrote));
        }
        assert_eq!(links.stalled_since(ONE), None);
        let all = timeout(SOON, reading).await.unwrap().unwrap();
        assert_eq!((&all[..3], all.last()), ([1, 2, 7].as_slice(), Some(&3)));
    }

    #[tokio::test]
    async fn what_comes_is_read_only_when_it_may() {
        let (mut links, mut far) = pair().await;
        far.write_all(b"abc").await.unwrap();
        let mut buffer = [0; 8];
        links.send(ONE, Piece::Own(vec![0]));
        assert!(matches!(next(&mut links, false, &mut buffer).await, LinkEvent::Wrote));
        assert!(matches!(next(&mut links, true, &mut buffer).await, LinkEvent::Read(ONE, 3)));
        drop(far);
        assert!(matches!(next(&mut links, true, &mut buffer).await, LinkEvent::Closed(ONE)));
        assert!(links.is_empty());
    }

    #[tokio::test]
    async fn a_last_word_is_heard_even_by_who_talks_on() {
        let (mut links, mut far) = pair().await;
        far.write_all(&[9; 1000]).await.unwrap();
        links.send(ONE, Piece::Own(b"bye".to_vec()));
        links.close(ONE);
        assert!(links.deadline().is_some());
        let reading = tokio::spawn(async move {
            let mut heard = Vec::new();
            far.read_to_end(&mut heard).await.map(|_| heard)
        });
        let mut buffer = [0; 16];
        while !matches!(next(&mut links, false, &mut buffer).await, LinkEvent::Closed(ONE)) {}
        assert_eq!(reading.await.unwrap().unwrap(), b"bye");
    }

    /// As gobgpd ends a session: what it has not read resets the connection behind its NOTIFICATION.
    #[tokio::test]
    async fn a_last_word_is_heard_though_nothing_can_be_written_any_longer() {
        let (mut links, mut far) = pair().await;
        links.send(ONE, Piece::Own(vec![0; 9]));
        let mut buffer = [0; 8];
        assert!(matches!(next(&mut links, true, &mut buffer).await, LinkEvent::Wrote));
        far.readable().await.unwrap();
        far.write_all(b"bye").await.unwrap();
        drop(far);
        links.send(ONE, Piece::Own(vec![0; 9]));
        let waits = poll_fn(|cx| Poll::Ready(links.poll_next(cx, false, &mut []).is_pending()));
        assert!(waits.await, "until it may be read");
        assert_eq!(links.queued_bytes(ONE), 0, "writing failed");
        assert!(matches!(next(&mut links, true, &mut buffer).await, LinkEvent::Read(ONE, 3)));
        assert!(matches!(next(&mut links, true, &mut buffer).await, LinkEvent::Closed(ONE)));
    }

    /// How the far end sees the end, and how much it got before.
    async fn end(mut far: TcpStream) -> (io::Result<usize>, Vec<u8>) {
        let mut heard = Vec::new();
        (timeout(SOON, far.read_to_end(&mut heard)).await.unwrap(), heard)
    }

    #[tokio::test]
    async fn what_a_deaf_neighbour_is_not_sent_is_forgotten() {
        for is_closing in [false, true] {
            let (mut links, far) = pair().await;
            let more_than_fits = 64 << 20;
            links.send(ONE, Piece::Own(vec![0; more_than_fits]));
            // Until the sockets are full.
            while !poll_fn(|cx| Poll::Ready(links.poll_next(cx, false, &mut []).is_pending())).await {}
            if is_closing {
                links.close(ONE);
                links.sweep(Instant::now() + LINGER);
            } else {
                links.reset(ONE);
            }
            assert!(links.is_empty());
            let (end, heard) = end(far).await;
            assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
            assert!(heard.len() < more_than_fits);
        }
    }

    fn messages(length: usize) -> Vec<Arc<[u8]>> {
        vec![vec![5; length].into()]
    }

    #[tokio::test]
    async fn updates_go_out_past_the_task_only_where_nothing_else_waits() {
        let (mut links, mut far) = pair().await;
        let shortcut = links.take_updates(ONE);
        let mut heard = [0; 3];
        assert_eq!(shortcut.write(&messages(2)), Written::All);
        links.send(ONE, Piece::Own(vec![7]));
        assert_eq!(shortcut.write(&messages(2)), Written::Nothing, "not before what waits");
        assert!(matches!(next(&mut links, true, &mut []).await, LinkEvent::Wrote));
        timeout(SOON, far.read_exact(&mut heard)).await.unwrap().unwrap();
        assert_eq!(heard, [5, 5, 7]);
        links.end_updates(ONE);
        assert_eq!(shortcut.write(&messages(2)), Written::Nothing, "not behind our last word");
    }

    #[tokio::test]
    async fn what_a_neighbour_does_not_take_at_once_is_left_to_the_task() {
        let (mut links, mut far) = pair().await;
        let more_than_fits = 64 << 20;
        assert_eq!(links.take_updates(ONE).write(&messages(more_than_fits)), Written::Queued);
        assert!(links.queued_bytes(ONE) > 0 && links.stalled_since(ONE).is_some());
        let reading = tokio::spawn(async move {
            let mut all = vec![0; more_than_fits];
            far.read_exact(&mut all).await.unwrap();
            all
        });
        while links.queued_bytes(ONE) > 0 {
            assert!(matches!(next(&mut links, true, &mut []).await, LinkEvent::Wrote));
        }
        let all = timeout(SOON, reading).await.unwrap().unwrap();
        assert!(all.iter().all(|byte| *byte == 5));
    }

    #[tokio::test]
    async fn a_connection_ends_though_others_may_write_to_it() {
        let (mut links, far) = pair().await;
        let shortcut = links.take_updates(ONE);
        links.abort_all();
        assert_eq!(shortcut.write(&messages(2)), Written::Nothing);
        assert_eq!(end(far).await.0.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_connection_that_broke_under_others_is_found_broken_by_the_task() {
        let (mut links, far) = pair().await;
        let shortcut = links.take_updates(ONE);
        SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
        drop(far);
        // The reset is on its way: one of these finds it.
        while shortcut.write(&messages(2)) == Written::All {
            tokio::task::yield_now().await;
        }
        assert!(matches!(next(&mut links, true, &mut [0; 8]).await, LinkEvent::Closed(ONE)));
    }

    #[tokio::test]
    async fn who_does_not_answer_our_end_is_dropped() {
        let (mut links, _far) = pair().await;
        links.close(ONE);
        links.sweep(Instant::now());
        assert!(!links.is_empty());
        links.sweep(Instant::now() + LINGER);
        assert!(links.is_empty());
    }
}
