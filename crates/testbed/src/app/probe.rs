//! The drill's instruments: a steady stream of datagrams, and many connections that rest.

use super::{DONE, REFUSED, fail, raise_file_limit, say};
use serde::{Deserialize, Serialize};
use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

/// How long after the last datagram echoes still count.
const LATE: Duration = Duration::from_secs(1);
/// How long a connection may take to open or to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Receive buffer of the probe and of its echo: several seconds of datagrams.
const ROOM_BYTES: usize = 16 << 20;
/// Runs of lost datagrams that are told one by one.
const GAPS_TOLD_MAX: usize = 20;

/// What the probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Probed {
    /// Datagrams sent.
    pub(crate) packets_sent: u64,
    /// Datagrams that did not come back.
    pub(crate) packets_lost: u64,
}

/// What became of the resting connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rested {
    /// Connections opened.
    pub(crate) flows: u64,
    /// Connections that did not answer any more.
    pub(crate) flows_reset: u64,
}

/// Sends for a while and prints [`Probed`] as JSON; `started` comes first.
pub(super) fn probe(address: SocketAddr, rate: u32, seconds: u32) -> u8 {
    match measure(address, rate, u64::from(rate) * u64::from(seconds)) {
        Ok(probed) => {
            say(&serde_json::json!(probed).to_string());
            if probed.packets_lost == 0 { DONE } else { REFUSED }
        }
        Err(error) => fail(&format!("cannot probe {address}"), &error),
    }
}

fn measure(address: SocketAddr, rate: u32, total: u64) -> io::Result<Probed> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    make_room(&socket);
    socket.connect(address)?;
    socket.set_read_timeout(Some(LATE))?;
    let sender = socket.try_clone()?;
    let counter = thread::spawn(move || receive(&socket, total));
    say("started");
    let start = Instant::now();
    for number in 0..total {
        let due = start + Duration::from_secs(1) * u32::try_from(number).unwrap_or(u32::MAX) / rate.max(1);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // A refusal is a lost packet, which the count of echoes shows.
        let _refused = sender.send(&number.to_be_bytes());
    }
    let seen = counter.join().or(Err(io::Error::other("the receiver broke")))?;
    let gaps = gaps(&seen);
    for (first, last) in gaps.iter().take(GAPS_TOLD_MAX) {
        let _closed = writeln!(io::stderr(), "lost: datagrams {first} to {last} of {total}");
    }
    let packets_lost = gaps.iter().map(|(first, last)| last - first + 1).sum();
    Ok(Probed { packets_sent: total, packets_lost })
}

/// Echoes datagrams until it is ended.
pub(super) fn echo(address: SocketAddr) -> u8 {
    let serve = || -> io::Result<()> {
        let socket = UdpSocket::bind(address)?;
        make_room(&socket);
        say("started");
        let mut buffer = [0; 64];
        loop {
            // An ICMP error about an earlier answer is reported here; it concerns nobody else.
            let Ok((read, peer)) = socket.recv_from(&mut buffer) else { continue };
            let _undeliverable = socket.send_to(&buffer[..read], peer);
        }
    };
    serve().map_or_else(|error| fail(&format!("cannot echo on {address}"), &error), |()| DONE)
}

/// Lets datagrams wait while the machine is busy: what is counted is the network, not the scheduler.
fn make_room(socket: &UdpSocket) {
    // Without the privilege the usual buffer must do.
    let _refused = rustix::net::sockopt::set_socket_recv_buffer_size_force(socket, ROOM_BYTES);
}

/// First and last of each run of datagrams that did not come back.
fn gaps(seen: &[bool]) -> Vec<(u64, u64)> {
    let mut gaps: Vec<(u64, u64)> = Vec::new();
    for number in (0_u64..).zip(seen).filter_map(|(number, seen)| (!seen).then_some(number)) {
        match gaps.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => gaps.push((number, number)),
        }
    }
    gaps
}

/// Notes which echoes come until all are there or none comes for a while.
fn receive(socket: &UdpSocket, total: u64) -> Vec<bool> {
    let mut seen = vec![false; usize::try_from(total).unwrap_or(0)];
    let mut count = 0;
    let mut buffer = [0; 8];
    let mut quiet_since = Instant::now();
    while count < total && quiet_since.elapsed() < 3 * LATE {
        let Ok(8) = socket.recv(&mut buffer) else { continue };
        quiet_since = Instant::now();
        let number = usize::try_from(u64::from_be_bytes(buffer)).unwrap_or(usize::MAX);
        if let Some(seen) = seen.get_mut(number).filter(|seen| !**seen) {
            *seen = true;
            count += 1;
        }
    }
    seen
}

/// Opens connections, prints `open N`, waits for a line, tries each, prints [`Rested`] as JSON.
pub(super) fn flows(address: SocketAddr, count: usize) -> u8 {
    raise_file_limit();
    let mut streams = match (0..count).map(|_| open(address)).collect::<io::Result<Vec<_>>>() {
        Ok(streams) => streams,
        Err(error) => return fail(&format!("cannot open {count} connections to {address}"), &error),
    };
    say(&format!("open {count}"));
    let mut line = String::new();
    // The end of the input is as good as a line.
    let _end = io::stdin().read_line(&mut line);
    let reset = streams.iter_mut().filter_map(|stream| answers(stream).err()).count();
    say(&serde_json::json!(Rested { flows: count as u64, flows_reset: reset as u64 }).to_string());
    if reset == 0 { DONE } else { REFUSED }
}

fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    answers(&mut stream)?;
    Ok(stream)
}

fn answers(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b".")?;
    stream.read_exact(&mut [0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn lost_datagrams_are_counted() {
        let echo = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = echo.local_addr().unwrap();
        let server = thread::spawn(move || {
            let mut buffer = [0; 8];
            for number in 0..20 {
                let (read, peer) = echo.recv_from(&mut buffer).unwrap();
                if number != 7 {
                    echo.send_to(&buffer[..read], peer).unwrap();
                    // A second copy of an echo counts once.
                    echo.send_to(&buffer[..read], peer).unwrap();
                }
            }
        });
        let probed = measure(address, 10_000, 20).unwrap();
        server.join().unwrap();
        assert_eq!(probed, Probed { packets_sent: 20, packets_lost: 1 });
    }

    #[test]
    fn gaps_are_runs_of_what_is_missing() {
        assert_eq!(gaps(&[true, false, false, true, false]), [(1, 2), (4, 4)]);
        assert_eq!(gaps(&[true, true]), []);
    }

    #[test]
    fn a_connection_that_the_peer_closed_does_not_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            stream.write_all(&byte).unwrap();
        });
        let mut stream = open(address).unwrap();
        server.join().unwrap();
        assert!(answers(&mut stream).is_err());
    }
}
