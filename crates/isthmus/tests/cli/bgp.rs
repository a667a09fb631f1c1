//! `isthmus bgp` beside a speaker in a process of its own, on loopback and ports above 1023.

use super::rig::{Ran, isthmus};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Child, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long anything may take that works at all.
const PATIENCE: Duration = Duration::from_mins(1);

/// A speaker that listens on 127.0.0.1, with neighbours that nobody is.
struct Speaker {
    child: Child,
    api: String,
    port: u16,
    directory: TempDir,
}

/// A port that nobody has now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn file(port: u16, neighbors: &str) -> String {
    format!(
        "[global.config]\nas = 65001\nrouter-id = \"192.0.2.1\"\nport = {port}\nlocal-address-list = [\"127.0.0.1\"]\n{neighbors}"
    )
}

/// Nobody listens there, so that TCP is refused at once.
fn neighbor(address: &str) -> String {
    format!(
        "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{address}\"\npeer-as = 65002\n\
         [neighbors.transport.config]\nremote-port = 9\n"
    )
}

/// It waits for whoever connects, so that nothing about it changes by itself.
fn passive(address: &str) -> String {
    neighbor(address) + "passive-mode = true\n"
}

impl Speaker {
    fn start(neighbors: &str) -> Self {
        let (port, directory) = (free_port(), tempfile::tempdir().unwrap());
        let config = directory.path().join("bgp.toml");
        fs::write(&config, file(port, neighbors)).unwrap();
        let api = format!("127.0.0.1:{}", free_port());
        let mut command = isthmus();
        command.args(["bgp", "run", "--api", &api, "-c"]).arg(config).stderr(Stdio::null());
        let speaker = Self { child: command.spawn().unwrap(), api, port, directory };
        let until = Instant::now() + PATIENCE;
        while speaker.ask("summary").exit == Some(3) {
            assert!(Instant::now() < until, "the speaker is not there after {PATIENCE:?}");
            thread::sleep(Duration::from_millis(20));
        }
        speaker
    }

    fn command(&self, line: &str) -> std::process::Command {
        let mut command = isthmus();
        command.arg("bgp").args(line.split_whitespace()).args(["--api", &self.api]);
        command
    }

    fn ask(&self, line: &str) -> Ran {
        Ran::of(self.command(line).output().unwrap())
    }

    fn reload(&self, neighbors: &str) {
        fs::write(self.directory.path().join("bgp.toml"), file(self.port, neighbors)).unwrap();
        signal(&self.child, Signal::HUP);
    }
}

/// A command that goes on until it is told to end.
struct Endless(Child);

impl Drop for Endless {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn a_speaker_that_cannot_start_says_why_and_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let config = tempfile::NamedTempFile::new().unwrap();
    fs::write(config.path(), file(port, "")).unwrap();
    let ran = Ran::of(isthmus().args(["bgp", "run", "--api", "", "-c"]).arg(config.path()).output().unwrap());
    assert_eq!((ran.exit, ran.out.as_str()), (Some(1), ""), "{}", ran.err);
    let told =
        format!("error[ISE-0703]: the speaker cannot start: cannot listen on 127.0.0.1:{port} for BGP");
    assert!(ran.err.contains(&told), "{}", ran.err);
    assert!(ran.err.contains(&format!("help: `ss -ltnp sport = {port}`")), "{}", ran.err);
    fs::write(config.path(), file(free_port(), "")).unwrap();
    let api = taken.local_addr().unwrap().to_string();
    let ran =
        Ran::of(isthmus().args(["bgp", "run", "--api", &api, "-c"]).arg(config.path()).output().unwrap());
    assert!(ran.exit == Some(1) && ran.err.contains(&format!("{api} for GoBGP's API")), "{}", ran.err);
    assert!(ran.err.contains("error[ISE-0703]") && ran.err.contains("--api names another"), "{}", ran.err);
}

#[test]
fn a_summary_says_why_a_neighbour_is_not_up() {
    let speaker = Speaker::start(&neighbor("127.0.0.2"));
    let until = Instant::now() + PATIENCE;
    let ran = loop {
        let ran = speaker.ask("summary --columns peer,as,why");
        if ran.out.contains("refused") {
            break ran;
        }
        assert!(Instant::now() < until, "{}{}", ran.out, ran.err);
    };
    assert_eq!(ran.exit, Some(1), "not all are up");
    assert!(
        ran.out.starts_with("PEER       AS     WHY\n127.0.0.2  65002  TCP to 127.0.0.2:9 refused"),
        "{}",
        ran.out
    );
    let ran = speaker.ask("summary -o json");
    let rows: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&rows[0]["address"], &rows[0]["peer_as"]), (&"127.0.0.2".into(), &65_002.into()));
}

#[test]
fn an_unknown_neighbour_gets_the_nearest_and_nothing_gets_a_hint() {
    let speaker = Speaker::start(&neighbor("127.0.0.2"));
    for line in [
        "neighbor 127.0.0.3",
        "reset 127.0.0.3",
        "routes --from 127.0.0.3",
        "why 10.0.0.0/8 --peer 127.0.0.3",
    ] {
        let ran = speaker.ask(line);
        assert_eq!((ran.exit, ran.out.as_str()), (Some(2), ""), "{line}");
        assert!(ran.err.starts_with("error[ISE-0702]: there is no neighbour 127.0.0.3\n"), "{}", ran.err);
        assert!(ran.err.contains("did you mean 127.0.0.2?"), "{}", ran.err);
    }
    let ran = speaker.ask("routes --no-headers");
    assert_eq!((ran.exit, ran.out.as_str()), (Some(0), ""));
    assert!(ran.err.contains("there are no routes of ipv4-unicast: isthmus bgp summary"), "{}", ran.err);
    let ran = speaker.ask("routes 10.0.0.0/8");
    assert!(ran.exit == Some(1) && ran.err.contains("isthmus bgp why 10.0.0.0/8"), "{}", ran.err);
    let ran = speaker.ask("summry");
    assert!(ran.exit == Some(2) && ran.err.contains("'summary'"), "{}", ran.err);
}

#[test]
fn a_watch_tells_what_changes_and_nothing_else_until_it_is_interrupted() {
    let (changing, steady) = (passive("127.0.0.2"), passive("127.0.0.9"));
    let speaker = Speaker::start(&format!("{changing}{steady}"));
    let ran = speaker.ask("summary --watch -o json");
    assert!(ran.exit == Some(2) && ran.err.contains("-o jsonl"), "{}", ran.err);
    let until = Instant::now() + PATIENCE;
    while speaker.ask("summary").out.matches("waiting for it to connect").count() != 2 {
        assert!(Instant::now() < until, "they do not wait");
    }
    let mut watch = speaker.command("summary --watch -o jsonl");
    let mut watch = Endless(watch.stdout(Stdio::piped()).spawn().unwrap());
    let (tell, rows) = mpsc::channel();
    let lines = BufReader::new(watch.0.stdout.take().unwrap()).lines();
    let reading = thread::spawn(move || {
        for line in lines {
            let row: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
            let word = |name: &str| row[name].as_str().unwrap().to_owned();
            tell.send(format!("{} {}", word("address"), word("state"))).unwrap();
        }
    });
    // Each change is found at another look, and each look finds the steady one too.
    let mut told: Vec<String> = (0..2).map(|_| rows.recv_timeout(PATIENCE).unwrap()).collect();
    assert_eq!(told, ["127.0.0.2 Active", "127.0.0.9 Active"]);
    let until = Instant::now() + PATIENCE;
    for n in 3..=5 {
        speaker.reload(&format!("{}{steady}", passive(&format!("127.0.0.{n}"))));
        let removed = format!("127.0.0.{} Removed", n - 1);
        while told.last() != Some(&removed) {
            assert!(Instant::now() < until, "{told:?}");
            told.push(rows.recv_timeout(PATIENCE).unwrap());
        }
    }
    signal(&watch.0, Signal::INT);
    assert_eq!(watch.0.wait().unwrap().code(), Some(130));
    reading.join().unwrap();
    told.extend(rows);
    assert_eq!(told.iter().filter(|row| row.contains("127.0.0.9")).count(), 1, "{told:?}");
}
