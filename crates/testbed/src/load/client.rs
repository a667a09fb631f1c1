//! The sending side.

use super::{CHUNK_BYTES, Found, Job, Kind, SMALL_BYTES, Window, cpu_ms, median};
use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

/// How long a connection or an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a sender goes on after its window, so that the receiver's window is full too.
const MARGIN: Duration = Duration::from_millis(100);

pub(super) fn drive(job: &Job) -> io::Result<Found> {
    let mut found = match job.kind {
        Kind::Rr => exchange(job)?,
        Kind::Crr => connect_and_exchange(job)?,
        Kind::Tcp => send_streams(job)?,
        Kind::Udp => send_packets(job)?,
    };
    found.cpu_ms = cpu_ms();
    Ok(found)
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn exchange(job: &Job) -> io::Result<Found> {
    let mut stream = connect(job.address)?;
    latency(&job.window(), || {
        stream.write_all(b".")?;
        stream.read_exact(&mut [0])
    })
}

fn connect_and_exchange(job: &Job) -> io::Result<Found> {
    let found = latency(&job.window(), || {
        // `connect_timeout` would add two system calls.
        let mut stream = TcpStream::connect(job.address)?;
        stream.write_all(b".")?;
        stream.read_exact(&mut [0])?;
        // The server closes first.
        stream.read(&mut [0]).map(drop)
    })?;
    drop(connect(job.address)?);
    Ok(found)
}

/// Repeats `once` over the window and takes the time of each.
fn latency(window: &Window, mut once: impl FnMut() -> io::Result<()>) -> io::Result<Found> {
    let mut times = Vec::with_capacity(1 << 20);
    let mut before = Instant::now();
    while before < window.end {
        once()?;
        let after = Instant::now();
        if before >= window.start {
            times.push((after - before).as_nanos() as u64);
        }
        before = after;
    }
    let rate = times.len() as f64 / (window.end - window.start).as_secs_f64();
    Ok(Found { rate, p50_us: median(&mut times) as f64 / 1000.0, cpu_ms: 0 })
}

fn send_streams(job: &Job) -> io::Result<Found> {
    let streams = (0..job.streams).map(|_| connect(job.address)).collect::<io::Result<Vec<_>>>()?;
    let end = job.window().end + MARGIN;
    let writers: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            thread::spawn(move || {
                let chunk = vec![7; CHUNK_BYTES];
                // The receiver leaves when its window is over.
                while Instant::now() < end && stream.write_all(&chunk).is_ok() {}
            })
        })
        .collect();
    for writer in writers {
        writer.join().or(Err(io::Error::other("a writer broke")))?;
    }
    Ok(Found::default())
}

fn send_packets(job: &Job) -> io::Result<Found> {
    let any: SocketAddr =
        if job.address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(job.address)?;
    let end = job.window().end + MARGIN;
    let packet = [7; SMALL_BYTES];
    while Instant::now() < end {
        for _ in 0..32 {
            // A full queue or an early ICMP error loses a packet; the receiver counts.
            let _lost = socket.send(&packet);
        }
    }
    Ok(Found::default())
}
