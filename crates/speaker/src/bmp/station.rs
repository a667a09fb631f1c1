//! The task of one station: connects, and writes what the owner of the routes has for it.

use super::{Counts, Page, StationKey, StationRequest, telling::Telling};
use crate::{
    config::StationSettings,
    handle::{Handle, Refusal},
    view::StationStatus,
};
use futures::{FutureExt, future::BoxFuture};
use socket2::{SockRef, TcpKeepalive};
use std::{
    fs, io,
    net::SocketAddr,
    time::{Duration, SystemTime},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{oneshot, watch},
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout},
};
use uuid::Uuid;

/// How long TCP may try to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The first pause after a failure; each further one in a row is twice as long. RFC 7854 section 3.2 suggests 30 s and
/// 720 s: a station that is back is told sooner here, and a SYN a minute burdens nobody.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// A connection that lasted so long was no failure.
const SETTLED: Duration = Duration::from_mins(1);
/// How long a station may take nothing before the connection is dropped.
const STALL: Duration = Duration::from_mins(2);
/// How long a last word may take.
const GOODBYE: Duration = Duration::from_secs(1);
/// When the kernel asks a silent station whether it is there: it never says a word of its own.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Times that it is asked so, this long apart, before the connection is dropped.
const KEEPALIVE_TIMES: u32 = 3;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Bytes of a station's that are thrown away at once: it has nothing to say.
const IGNORED_BYTES: usize = 512;

/// What a task is made of.
#[derive(Debug)]
pub(crate) struct StationSetup {
    pub(crate) key: StationKey,
    pub(crate) address: SocketAddr,
    pub(crate) settings: StationSettings,
    pub(crate) speaker: Handle,
    /// Ends the task, with a reason for the station.
    pub(crate) stop: oneshot::Receiver<u16>,
    pub(crate) status: watch::Sender<StationStatus>,
}

/// Why a connection is no more.
enum Ended {
    /// The task is to end, with this reason for the station.
    Stopped(u16),
    /// Something went wrong.
    Broken(String),
}

/// Tells a station until it is told to stop.
pub(crate) async fn run(mut setup: StationSetup) {
    let address = setup.address;
    let mut failures = 0;
    loop {
        let stream = tokio::select! {
            biased;
            _ = &mut setup.stop => return,
            stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)) => stream,
        };
        let why = match stream.unwrap_or_else(|_late| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => {
                tracing::info!(station = %address, "monitoring station connected");
                setup.status.send_modify(|status| {
                    (status.is_up, status.up_at) = (true, Some(SystemTime::now()));
                    status.why.clear();
                });
                let since = Instant::now();
                let ended = Connection::serve(&mut setup, stream).await;
                setup.status.send_modify(|status| {
                    (status.is_up, status.is_current) = (false, false);
                    status.down_at = Some(SystemTime::now());
                });
                let Ended::Broken(why) = ended else { return };
                // The speaker ends: then nobody needs to know.
                let _ = setup.speaker.station_end(setup.key).await;
                setup.status.send_modify(|status| status.losses += 1);
                tracing::warn!(station = %address, %why, "monitoring station lost");
                if since.elapsed() >= SETTLED {
                    failures = 0;
                }
                why
            }
            Err(why) => {
                let why = match why.kind() {
                    io::ErrorKind::ConnectionRefused => format!("TCP to {address} refused"),
                    io::ErrorKind::TimedOut => format!("TCP to {address} without an answer"),
                    _ => format!("TCP to {address} failed: {why}"),
                };
                if failures == 0 {
                    tracing::warn!(station = %address, %why, "monitoring station cannot be reached; trying on");
                }
                why
            }
        };
        setup.status.send_modify(|status| status.why = why);
        let pause = pause(failures, Uuid::new_v4().as_u128());
        failures += 1;
        tokio::select! {
            biased;
            _ = &mut setup.stop => return,
            () = sleep(pause) => {}
        }
    }
}

/// The pause after this many failures in a row: three quarters of it at least, so that stations of many speakers are not
/// all asked at once.
fn pause(failures: u32, random: u128) -> Duration {
    let whole = PAUSE.saturating_mul(1 << failures.min(16)).min(PAUSE_MAX);
    whole * 3 / 4 + whole / 4 * (random % 256) as u32 / 256
}

/// A connection to a station.
struct Connection<'s> {
    setup: &'s mut StationSetup,
    writer: OwnedWriteHalf,
    telling: Telling,
}

/// What wakes it.
enum Woken {
    Stop(u16),
    Page(Result<Page, Refusal>),
    Report,
    /// The station closed, or broke.
    Closed(String),
}

impl Connection<'_> {
    async fn serve(setup: &mut StationSetup, stream: TcpStream) -> Ended {
        if let Err(why) = tune(&stream) {
            return Ended::Broken(format!("the connection cannot be set up: {why}"));
        }
        let (reader, writer) = stream.into_split();
        let greeting = match ask(setup, StationRequest::Begin).await {
            Ok(greeting) => greeting,
            Err(ended) => return ended,
        };
        let telling = Telling::new(greeting);
        let mut connection = Connection { setup, writer, telling };
        let ended = match connection.tell(reader).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        };
        if let Ended::Stopped(reason) = ended {
            connection.telling.end(reason);
            // One that takes nothing any longer hears the end of the connection.
            let _ = timeout(GOODBYE, connection.writer.write_all(&connection.telling.out)).await;
        }
        ended
    }

    async fn tell(&mut self, mut reader: OwnedReadHalf) -> Result<std::convert::Infallible, Ended> {
        let settings = self.setup.settings.clone();
        let has_best = settings.policy.has_best();
        let name = settings.sys_name.unwrap_or_else(host_name);
        let described = format!("Isthmus BGP speaker {}", env!("CARGO_PKG_VERSION"));
        self.telling.begin(&name, settings.sys_descr.as_deref().unwrap_or(&described), has_best);
        self.write().await?;
        let mut reports = settings.statistics.map(|every| interval_at(Instant::now() + every, every));
        if let Some(reports) = &mut reports {
            reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut ignored = [0; IGNORED_BYTES];
        // A page that is on its way is never given up: the owner takes it for told.
        let mut page = self.next_page();
        loop {
            let woken = tokio::select! {
                biased;
                reason = &mut self.setup.stop => Woken::Stop(reason.unwrap_or_default()),
                read = reader.read(&mut ignored) => match read {
                    Ok(0) => Woken::Closed("it closed the connection".to_owned()),
                    Ok(_) => continue,
                    Err(why) => Woken::Closed(why.to_string()),
                },
                () = tick(&mut reports) => Woken::Report,
                answer = &mut page => Woken::Page(answer),
            };
            match woken {
                Woken::Stop(reason) => return Err(Ended::Stopped(reason)),
                Woken::Closed(why) => return Err(Ended::Broken(why)),
                Woken::Report => {
                    let counts: Counts = ask(self.setup, StationRequest::Counts).await?;
                    self.telling.report(&counts, has_best, SystemTime::now());
                    self.write().await?;
                }
                Woken::Page(answer) => {
                    // Where the owner is gone, the word to stop is on its way too.
                    let Ok(answer) = answer else {
                        page = std::future::pending().boxed();
                        continue;
                    };
                    let is_last = answer.is_last;
                    self.telling.page(answer, SystemTime::now());
                    self.write().await?;
                    self.setup.status.send_if_modified(|status| {
                        std::mem::replace(&mut status.is_current, is_last) != is_last
                    });
                    page = self.next_page();
                }
            }
        }
    }

    fn next_page(&self) -> BoxFuture<'static, Result<Page, Refusal>> {
        let (speaker, key) = (self.setup.speaker.clone(), self.setup.key);
        async move { speaker.station(key, StationRequest::Page).await }.boxed()
    }

    /// Writes what is to be told. A station may take its time, but must take something now and then.
    async fn write(&mut self) -> Result<(), Ended> {
        let mut written = 0;
        while let Some(rest) = self.telling.out.get(written..).filter(|rest| !rest.is_empty()) {
            let wrote = tokio::select! {
                biased;
                reason = &mut self.setup.stop => {
                    self.telling.give_up(written);
                    return Err(Ended::Stopped(reason.unwrap_or_default()));
                }
                wrote = timeout(STALL, self.writer.write(rest)) => wrote,
            };
            let Ok(wrote) = wrote else {
                return Err(Ended::Broken(format!("it took nothing for {} s", STALL.as_secs())));
            };
            written += wrote.map_err(|why| Ended::Broken(why.to_string()))?;
        }
        let bytes = self.telling.out.len() as u64;
        let messages = std::mem::take(&mut self.telling.messages);
        let left_out = std::mem::take(&mut self.telling.left_out);
        self.telling.out.clear();
        self.setup.status.send_modify(|status| {
            status.messages += messages;
            status.bytes += bytes;
            status.left_out += left_out;
        });
        Ok(())
    }
}

/// Asks the owner, who may stop us instead.
async fn ask<T>(
    setup: &mut StationSetup,
    request: impl FnOnce(oneshot::Sender<T>) -> StationRequest,
) -> Result<T, Ended> {
    tokio::select! {
        biased;
        reason = &mut setup.stop => Err(Ended::Stopped(reason.unwrap_or_default())),
        answer = setup.speaker.station(setup.key, request) => match answer {
            Ok(answer) => Ok(answer),
            // Refused is who is no longer configured, and the word to stop is on its way.
            Err(_gone) => Err(Ended::Stopped((&mut setup.stop).await.unwrap_or_default())),
        },
    }
}

async fn tick(reports: &mut Option<tokio::time::Interval>) {
    match reports {
        Some(reports) => drop(reports.tick().await),
        None => std::future::pending().await,
    }
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_TIMES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// How the host is called.
fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "isthmus".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        assert_eq!(pause(0, 0), Duration::from_millis(750));
        assert!(pause(0, 255) < Duration::from_secs(1) && pause(0, 255) > pause(0, 0));
        assert!((Duration::from_secs(12)..=Duration::from_secs(16)).contains(&pause(4, 77)));
        assert_eq!(pause(u32::MAX, 0), PAUSE_MAX * 3 / 4);
    }
}
