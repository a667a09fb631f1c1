//! The receiving side.

use super::{CHUNK_BYTES, Found, Job, Kind, SMALL_BYTES, cpu_ms};
use std::{
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

/// How long a server waits for its client.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn serve(job: &Job) -> io::Result<Found> {
    let rate = match job.kind {
        Kind::Rr => echo_one(&listen(job)?)?,
        Kind::Crr => echo_many(job, &listen(job)?)?,
        Kind::Tcp => receive_streams(job, &listen(job)?)?,
        Kind::Udp => receive_packets(job)?,
    };
    Ok(Found { rate, p50_us: 0.0, cpu_ms: cpu_ms() })
}

fn listen(job: &Job) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(job.address)?;
    ready()?;
    Ok(listener)
}

fn ready() -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "ready")?;
    out.flush()
}

fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _peer) = listener.accept()?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Returns each byte of one connection.
fn echo_one(listener: &TcpListener) -> io::Result<f64> {
    let mut stream = accept(listener)?;
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 {
        stream.write_all(&byte)?;
    }
    Ok(0.0)
}

/// Returns one byte of each connection and closes it first, so that the client's ports are free at once.
fn echo_many(job: &Job, listener: &TcpListener) -> io::Result<f64> {
    let mut window = None;
    let mut byte = [0];
    loop {
        let mut stream = accept(listener)?;
        let end = *window.get_or_insert_with(|| job.window().end);
        // The client says by an empty connection that it is done.
        if stream.read(&mut byte)? == 0 {
            return Ok(0.0);
        }
        stream.write_all(&byte)?;
        if Instant::now() > end + PATIENCE {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

/// Bytes a second of all streams.
fn receive_streams(job: &Job, listener: &TcpListener) -> io::Result<f64> {
    let streams = (0..job.streams).map(|_| accept(listener)).collect::<io::Result<Vec<_>>>()?;
    let window = job.window();
    let readers: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            // Threads inherit the core.
            thread::spawn(move || -> io::Result<f64> {
                let mut buffer = vec![0; CHUNK_BYTES];
                let mut bytes = 0_u64;
                loop {
                    let read = stream.read(&mut buffer)?;
                    let now = Instant::now();
                    if read == 0 || now >= window.end {
                        return Ok(bytes as f64 / (window.end - window.start).as_secs_f64());
                    }
                    bytes += if now >= window.start { read as u64 } else { 0 };
                }
            })
        })
        .collect();
    let mut rate = 0.0;
    for reader in readers {
        rate += reader.join().or(Err(io::Error::other("a reader broke")))??;
    }
    Ok(rate)
}

/// Packets a second.
fn receive_packets(job: &Job) -> io::Result<f64> {
    let socket = UdpSocket::bind(job.address)?;
    ready()?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = [0; 2 * SMALL_BYTES];
    socket.recv(&mut buffer)?;
    let window = job.window();
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut packets = 0_u64;
    loop {
        let received = socket.recv(&mut buffer);
        let now = Instant::now();
        if now >= window.end {
            return Ok(packets as f64 / (window.end - window.start).as_secs_f64());
        }
        packets += u64::from(received.is_ok() && now >= window.start);
    }
}
