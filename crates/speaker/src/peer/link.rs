//! TCP connections of one neighbour, read and written by one task.

use isthmus_bgp::session::ConnectionId;
use socket2::SockRef;
use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    mem::MaybeUninit,
    net::{Shutdown, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead as _, ReadBuf},
    net::TcpStream,
    time::Instant,
};

/// Bytes that are read at once.
pub(super) const READ_BYTES_MAX: usize = 64 << 10;
/// Pieces that are written at once.
const PIECES_MAX: usize = 64;
/// How long a connection that we end waits for the neighbour to read our last message and end it too.
const LINGER: Duration = Duration::from_secs(2);

/// Something to write.
#[derive(Debug)]
pub(super) enum Piece {
    /// For this neighbour alone.
    Own(Vec<u8>),
    /// Shared with others.
    Shared(Arc<[u8]>),
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// One connection.
#[derive(Debug)]
struct Link {
    id: ConnectionId,
    stream: TcpStream,
    pieces: VecDeque<Piece>,
    /// How much of the first piece is written.
    written: usize,
    queued_bytes: usize,
    /// Since when nothing could be written.
    stalled_since: Option<Instant>,
    /// What is left is written, and then it ends.
    closing: Option<Instant>,
    is_shut: bool,
    /// Nothing can be written any longer. The neighbour's last word may wait to be read all the same.
    is_broken: bool,
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
        self.links.push(Link {
            id,
            stream,
            pieces: VecDeque::new(),
            written: 0,
            queued_bytes: 0,
            stalled_since: None,
            closing: None,
            is_shut: false,
            is_broken: false,
        });
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
        if let Some(link) = self.links.iter_mut().find(|link| link.id == id && !link.is_broken) {
            if link.pieces.is_empty() {
                link.stalled_since = Some(Instant::now());
            }
            link.queued_bytes += piece.as_ref().len();
            link.pieces.push_back(piece);
        }
    }

    /// Bytes that wait on a connection.
    pub(super) fn queued_bytes(&self, id: ConnectionId) -> usize {
        self.links.iter().find(|link| link.id == id).map_or(0, |link| link.queued_bytes)
    }

    /// Our port and the neighbour's; 0 where the connection is gone.
    pub(super) fn ports(&self, id: ConnectionId) -> (u16, u16) {
        let stream = self.links.iter().find(|link| link.id == id).map(|link| &link.stream);
        let port = |address: io::Result<SocketAddr>| address.map_or(0, |address| address.port());
        stream.map_or((0, 0), |stream| (port(stream.local_addr()), port(stream.peer_addr())))
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
            self.links.remove(index).discard();
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
            if is_over && !link.pieces.is_empty() {
                link.discard();
            }
            !is_over
        });
    }

    /// Since when the neighbour takes nothing of what is to be written.
    pub(super) fn stalled_since(&self, id: ConnectionId) -> Option<Instant> {
        self.links.iter().find(|link| link.id == id).and_then(|link| link.stalled_since)
    }

    /// Connections on which something waits to be read.
    pub(super) fn unread(&self) -> Vec<ConnectionId> {
        let waits = |link: &&Link| {
            let mut first = [MaybeUninit::uninit()];
            SockRef::from(&link.stream).peek(&mut first).is_ok_and(|bytes| bytes > 0)
        };
        self.links.iter().filter(waits).map(|link| link.id).collect()
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
            match link.poll_write(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(LinkEvent::Wrote),
                Poll::Ready(Err(_)) => link.break_off(),
                Poll::Pending => {}
            }
            if !may_read && link.closing.is_none() {
                index += 1;
                continue;
            }
            match link.poll_read(cx, buffer) {
                // Whatever comes after our last word is thrown away; look again at once.
                Poll::Ready(Ok(bytes)) if bytes > 0 && link.closing.is_some() => {}
                Poll::Ready(Ok(bytes)) if bytes > 0 => {
                    return Poll::Ready(LinkEvent::Read(link.id, bytes));
                }
                Poll::Ready(_) => return self.forget(index),
                Poll::Pending if link.is_broken => return self.forget(index),
                Poll::Pending => index += 1,
            }
        }
        Poll::Pending
    }

    fn forget(&mut self, index: usize) -> Poll<LinkEvent> {
        let link = self.links.remove(index);
        Poll::Ready(LinkEvent::Closed(link.id))
    }
}

impl Link {
    /// What is in the kernel to be sent goes when this is dropped.
    fn discard(&self) {
        // Where it fails the connection is broken already.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Unlike `try_read` it takes less than the buffer holds as the word that there is no more, and saves a system call.
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Nothing is written any longer.
    fn break_off(&mut self) {
        self.is_broken = true;
        self.pieces.clear();
        (self.written, self.queued_bytes, self.stalled_since) = (0, 0, None);
    }

    /// Ready when something was written, or the connection broke.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.pieces.is_empty() {
            if self.closing.is_some() && !self.is_shut && !self.is_broken {
                self.is_shut = true;
                // An error means that it is gone already, which reading finds too.
                let _ = SockRef::from(&self.stream).shutdown(Shutdown::Write);
            }
            return Poll::Pending;
        }
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            let skip = self.written;
            let slices = self.pieces.iter().take(PIECES_MAX).enumerate().map(|(index, piece)| {
                let bytes = piece.as_ref();
                IoSlice::new(if index == 0 { bytes.get(skip..).unwrap_or_default() } else { bytes })
            });
            let slices: Vec<IoSlice<'_>> = slices.collect();
            match self.stream.try_write_vectored(&slices) {
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
                Err(why) => return Poll::Ready(Err(why)),
                Ok(bytes) => {
                    self.wrote(bytes);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    fn wrote(&mut self, bytes: usize) {
        self.queued_bytes = self.queued_bytes.saturating_sub(bytes);
        self.written += bytes;
        while let Some(first) = self.pieces.front() {
            let length = first.as_ref().len();
            if self.written < length {
                break;
            }
            self.written -= length;
            self.pieces.pop_front();
        }
        self.stalled_since = (!self.pieces.is_empty()).then(Instant::now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
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
