//! One TCP connection, and what waits to be written to it.
//!
//! The neighbour's task owns it. The owner of the routes has a [`Shortcut`] to it: a small UPDATE goes out at once where
//! nothing else waits, so that one changed route does not wake a task for each neighbour before it is on the wire.

use socket2::SockRef;
use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    mem::MaybeUninit,
    net::{Shutdown, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead as _, ReadBuf},
    net::TcpStream,
    time::Instant,
};

/// Pieces that are written at once.
const PIECES_MAX: usize = 64;

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

/// A connection, as its task has it.
#[derive(Debug)]
pub(super) struct Connection(Arc<Mutex<Wire>>);

/// The stream and its queue.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    pieces: VecDeque<Piece>,
    /// How much of the first piece is written.
    written: usize,
    queued_bytes: usize,
    /// Since when nothing could be written.
    stalled_since: Option<Instant>,
    /// Nothing can be written any longer. The neighbour's last word may wait to be read all the same.
    is_broken: bool,
    /// The session is established: UPDATEs may go out.
    takes_updates: bool,
}

/// Writes to a connection for somebody who does not own it. It does not keep the connection open.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shortcut(Weak<Mutex<Wire>>);

/// What became of UPDATEs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// They are with the kernel.
    All,
    /// They are in the queue, and the connection's task has to go on with it.
    Queued,
    /// Nothing was done with them: other things wait, the connection is in use, or it is no more.
    Nothing,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self(Arc::new(Mutex::new(Wire {
            stream,
            pieces: VecDeque::new(),
            written: 0,
            queued_bytes: 0,
            stalled_since: None,
            is_broken: false,
            takes_updates: false,
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Wire> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets UPDATEs in past the task, until [`Wire::end_updates`].
    pub(super) fn take_updates(&self) -> Shortcut {
        self.lock().takes_updates = true;
        Shortcut(Arc::downgrade(&self.0))
    }
}

impl Shortcut {
    /// Writes UPDATEs, whole messages, without waiting for anything.
    pub(crate) fn write(&self, messages: &[Arc<[u8]>]) -> Written {
        let Some(wire) = self.0.upgrade() else { return Written::Nothing };
        let Ok(mut wire) = wire.try_lock() else { return Written::Nothing };
        if !wire.takes_updates || wire.is_broken || !wire.pieces.is_empty() {
            return Written::Nothing;
        }
        for message in messages {
            wire.queue(Piece::Shared(Arc::clone(message)));
        }
        // What fails here fails again when the task writes, which then knows what to do.
        match wire.write() {
            Ok(()) if wire.pieces.is_empty() => Written::All,
            _ => Written::Queued,
        }
    }
}

impl Wire {
    pub(super) fn queue(&mut self, piece: Piece) {
        if self.is_broken {
            return;
        }
        if self.pieces.is_empty() {
            self.stalled_since = Some(Instant::now());
        }
        self.queued_bytes += piece.as_ref().len();
        self.pieces.push_back(piece);
    }

    /// No UPDATE comes in past the task any longer.
    pub(super) fn end_updates(&mut self) {
        self.takes_updates = false;
    }

    /// Whether all that was queued is written.
    pub(super) fn is_flushed(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Since when the neighbour takes nothing of what is to be written.
    pub(super) fn stalled_since(&self) -> Option<Instant> {
        self.stalled_since
    }

    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Our port and the neighbour's; 0 where the connection is gone.
    pub(super) fn ports(&self) -> (u16, u16) {
        let port = |address: io::Result<SocketAddr>| address.map_or(0, |address| address.port());
        (port(self.stream.local_addr()), port(self.stream.peer_addr()))
    }

    /// Whether something waits to be read.
    pub(super) fn is_unread(&self) -> bool {
        let mut first = [MaybeUninit::uninit()];
        SockRef::from(&self.stream).peek(&mut first).is_ok_and(|bytes| bytes > 0)
    }

    /// What is in the kernel to be sent goes when the connection is dropped.
    pub(super) fn discard(&self) {
        // Where it fails the connection is broken already.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Tells the neighbour that nothing more comes.
    pub(super) fn shut(&self) {
        // An error means that it is gone already, which reading finds too.
        let _ = SockRef::from(&self.stream).shutdown(Shutdown::Write);
    }

    /// Unlike `try_read` it takes less than the buffer holds as the word that there is no more, and saves a system call.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Nothing is written any longer.
    pub(super) fn break_off(&mut self) {
        self.is_broken = true;
        self.pieces.clear();
        (self.written, self.queued_bytes, self.stalled_since) = (0, 0, None);
    }

    /// Ready when something was written, or the connection broke; pending too while there is nothing to write.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pieces.is_empty() {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.write() {
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
        Poll::Pending
    }

    /// Writes the first pieces, or a part of them.
    fn write(&mut self) -> io::Result<()> {
        let skip = self.written;
        let slices = self.pieces.iter().take(PIECES_MAX).enumerate().map(|(index, piece)| {
            let bytes = piece.as_ref();
            IoSlice::new(if index == 0 { bytes.get(skip..).unwrap_or_default() } else { bytes })
        });
        let slices: Vec<IoSlice<'_>> = slices.collect();
        let bytes = self.stream.try_write_vectored(&slices)?;
        self.wrote(bytes);
        Ok(())
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
