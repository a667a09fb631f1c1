//! One peer of the daemon: its connection, and which routes it has.

use super::{
    crowd::Common,
    table::Table,
    wire::{self, Update, kind},
};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt::set_tcp_nodelay,
};
use std::{
    collections::VecDeque,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    sync::Arc,
    time::Instant,
};

/// Of so many UPDATEs the attributes of one are compared with what was sent.
const SAMPLED: u64 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Our OPEN is on its way.
    Opening,
    /// Its OPEN was answered.
    Confirming,
    Established,
    /// It failed, or was ended by the daemon.
    Lost,
    /// We ended it.
    Ended,
}

/// A peer of the daemon.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: Ipv4Addr,
    /// Whose routes it announces; those it should not get back.
    owner: Option<u32>,
    /// What it says as soon as its session is up.
    pub(super) greeting: Option<Arc<[u8]>>,
    pub(super) stream: Option<TcpStream>,
    pub(super) stage: Stage,
    pub(super) queue: VecDeque<(Arc<[u8]>, usize)>,
    pub(super) is_writing: bool,
    pub(super) heard: Instant,
    /// The start of a message.
    partial: Vec<u8>,
    /// One bit for each prefix that it was told of.
    has: Vec<u64>,
    /// How many prefixes it has.
    pub(super) count: usize,
    /// It was told that everything was sent.
    pub(super) is_told_all: bool,
    /// The last MED that it saw: which change has arrived.
    pub(super) med: u32,
    updates: u64,
    /// Prefixes that nobody sent, attributes that are not as sent, UPDATEs that cannot be read.
    pub(super) bad: u64,
    /// Prefixes that it was told of though it had them.
    pub(super) repeats: u64,
}

impl Peer {
    pub(super) fn new(address: Ipv4Addr, owner: Option<u32>, prefixes: usize) -> Self {
        Self {
            address,
            owner,
            greeting: None,
            stream: None,
            stage: Stage::Lost,
            queue: VecDeque::new(),
            is_writing: true,
            heard: Instant::now(),
            partial: Vec::new(),
            has: vec![0; prefixes.div_ceil(64)],
            count: 0,
            is_told_all: false,
            med: 0,
            updates: 0,
            bad: 0,
            repeats: 0,
        }
    }

    /// Starts to connect, from its own address.
    pub(super) fn connect(&mut self, common: Common) -> io::Result<()> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        set_tcp_nodelay(&socket, true)?;
        bind(&socket, &SocketAddrV4::new(self.address, 0))?;
        match connect(&socket, &common.daemon) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(why) => return Err(why.into()),
        }
        self.stream = Some(socket.into());
        self.stage = Stage::Opening;
        self.partial.clear();
        self.queue.clear();
        self.queue.push_back((wire::open(self.address, common.hold_s).into(), 0));
        self.is_writing = true;
        self.heard = Instant::now();
        Ok(())
    }

    /// The session is gone, with what it told.
    pub(super) fn lose(&mut self) {
        self.stream = None;
        self.stage = Stage::Lost;
        self.has.fill(0);
        self.count = 0;
        self.is_told_all = false;
    }

    pub(super) fn end(&mut self) {
        self.lose();
        self.stage = Stage::Ended;
    }

    /// Writes what the connection takes.
    pub(super) fn write(&mut self) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        self.is_writing = false;
        while let Some((bytes, done)) = self.queue.front_mut() {
            match stream.write(&bytes[*done..]) {
                Ok(count) => {
                    *done += count;
                    if *done == bytes.len() {
                        self.queue.pop_front();
                    }
                }
                // Still connecting, or full.
                Err(why) if matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {
                    self.is_writing = true;
                    return Ok(());
                }
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    /// Reads once, and takes all whole messages. An error is the reason why the session is over.
    pub(super) fn read(
        &mut self,
        buffer: &mut [u8],
        table: &Table,
        reflector: Ipv4Addr,
        now: Instant,
    ) -> Result<(), String> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let kept = self.partial.len();
        buffer[..kept].copy_from_slice(&self.partial);
        let count = match stream.read(&mut buffer[kept..]) {
            Ok(0) => return Err("the daemon closed the connection".to_owned()),
            Ok(count) => count,
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(why) => return Err(why.to_string()),
        };
        self.heard = now;
        let mut rest = &buffer[..kept + count];
        while let Some(message) = wire::take_message(&mut rest) {
            match message.kind {
                wire::OPEN if self.stage == Stage::Opening => {
                    self.stage = Stage::Confirming;
                    self.queue.push_back((wire::keepalive().into(), 0));
                }
                wire::KEEPALIVE if self.stage == Stage::Confirming => {
                    self.stage = Stage::Established;
                    self.queue.extend(self.greeting.clone().map(|greeting| (greeting, 0)));
                }
                wire::UPDATE => self.update(message.body, table, reflector),
                wire::NOTIFICATION => {
                    let code = message.body.get(..2).unwrap_or_default();
                    return Err(format!("NOTIFICATION {code:?}"));
                }
                _ => {}
            }
        }
        self.partial.clear();
        self.partial.extend_from_slice(rest);
        Ok(())
    }

    fn update(&mut self, body: &[u8], table: &Table, reflector: Ipv4Addr) {
        let Some(update) = Update::of(body) else {
            self.bad += 1;
            return;
        };
        self.is_told_all |= update.is_end_of_rib();
        for prefix in wire::prefixes(update.withdrawn) {
            self.forget(table, prefix);
        }
        self.updates += 1;
        let mut first = None;
        for prefix in wire::prefixes(update.announced) {
            let Some(number) = table.number(prefix) else {
                self.bad += 1;
                continue;
            };
            first.get_or_insert(number);
            self.learn(table, number);
        }
        let Some(number) = first else { return };
        if let Some((_, med)) = wire::attributes(update.attributes).find(|(other, _)| *other == kind::MED)
            && let Ok(med) = med.try_into()
        {
            self.med = self.med.max(u32::from_be_bytes(med));
        }
        if self.updates % SAMPLED == 1 && !table.is_as_sent(number, update.attributes, reflector) {
            self.bad += 1;
        }
    }

    fn learn(&mut self, table: &Table, number: u32) {
        if self.owner.is_some_and(|owner| table.owner(number) == owner) {
            // FRR sends a client its own routes back; nobody must take them.
            return;
        }
        let (word, bit) = (number as usize / 64, 1 << (number % 64));
        let is_new = self.has[word] & bit == 0;
        self.has[word] |= bit;
        self.count += usize::from(is_new);
        self.repeats += u64::from(!is_new);
    }

    fn forget(&mut self, table: &Table, prefix: wire::Prefix) {
        let Some(number) = table.number(prefix) else {
            self.bad += 1;
            return;
        };
        let (word, bit) = (number as usize / 64, 1 << (number % 64));
        self.count -= usize::from(self.has[word] & bit != 0);
        self.has[word] &= !bit;
    }
}
