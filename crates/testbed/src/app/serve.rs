//! The serving side. It is the first process of its container, so it must take SIGTERM itself.

use super::{DONE, ECHO_PORT, HTTP_PORT, REFUSED, UDP_PORT, raise_file_limit};
use axum::{
    Json, Router,
    extract::{ConnectInfo, State, connect_info::Connected},
    routing::get,
    serve::IncomingStream,
};
use serde::Serialize;
use std::{
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
};

/// Connections to the echo service at once; one more waits.
const ECHO_CONNECTIONS_MAX: usize = 8192;
/// Longest datagram that is echoed.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// What `GET /` answers.
#[derive(Clone, Debug, Serialize)]
struct Answer {
    app: String,
    instance: String,
    address: Option<IpAddr>,
    caller: Option<IpAddr>,
}

/// Both ends of a connection.
#[derive(Clone, Copy, Debug)]
struct Ends {
    own: Option<SocketAddr>,
    peer: Option<SocketAddr>,
}

impl Connected<IncomingStream<'_, TcpListener>> for Ends {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self { own: stream.io().local_addr().ok(), peer: Some(*stream.remote_addr()) }
    }
}

/// Serves until SIGTERM.
pub(super) fn serve(name: &str) -> u8 {
    raise_file_limit();
    block_on(async {
        let http = TcpListener::bind((Ipv4Addr::UNSPECIFIED, HTTP_PORT)).await?;
        let echo = TcpListener::bind((Ipv4Addr::UNSPECIFIED, ECHO_PORT)).await?;
        let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, UDP_PORT)).await?;
        let instance = std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned();
        let router = Router::new().route("/", get(answer)).with_state((name.to_owned(), instance));
        let service = router.into_make_service_with_connect_info::<Ends>();
        tokio::select! {
            outcome = axum::serve(http, service) => outcome,
            outcome = echo_tcp(echo) => outcome,
            outcome = echo_udp(udp) => outcome,
            outcome = told_to_end() => outcome,
        }
    })
}

/// Waits for SIGTERM.
pub(super) fn pause() -> u8 {
    block_on(told_to_end())
}

fn block_on(work: impl Future<Output = io::Result<()>>) -> u8 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(work)) {
        Ok(()) => DONE,
        Err(error) => {
            let _closed = writeln!(io::stderr(), "demo-app: {error}");
            REFUSED
        }
    }
}

async fn told_to_end() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

async fn answer(
    State((app, instance)): State<(String, String)>,
    ConnectInfo(ends): ConnectInfo<Ends>,
) -> Json<Answer> {
    let address = |end: Option<SocketAddr>| end.map(|end| end.ip());
    Json(Answer { app, instance, address: address(ends.own), caller: address(ends.peer) })
}

async fn echo_tcp(listener: TcpListener) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(ECHO_CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, _peer) = listener.accept().await?;
        tokio::spawn(async move {
            // A connection that breaks has ended; that is all there is to know.
            let _ended = echo(stream).await;
            drop(place);
        });
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; 2048];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..read]).await?;
    }
}

async fn echo_udp(socket: UdpSocket) -> io::Result<()> {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // An ICMP error about an earlier answer is reported here; it concerns nobody else.
        let Ok((read, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let _undeliverable = socket.send_to(&buffer[..read], peer).await;
    }
}
