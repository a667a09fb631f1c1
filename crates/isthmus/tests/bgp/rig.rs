//! Two namespaces with a link between them, and daemons in them. All goes when the rig is dropped.

use crate::frr_daemons::FrrDaemons;
use isthmus_testbed::leftovers;
use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long anything may take that works at all.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often is looked again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

pub(crate) struct Rig {
    ours: String,
    theirs: String,
    directory: TempDir,
}

/// The text with zeros for digits of times, and of counts that depend on when one looks.
pub(crate) fn without_times(text: &str) -> String {
    let zeros = |word: &str| word.replace(|c: char| c.is_ascii_digit(), "0");
    let mut quiet = String::new();
    for line in text.lines() {
        let is_count =
            ["Updates:", "Keepalives:", "Total:"].iter().any(|title| line.trim().starts_with(title));
        let words = line.split_inclusive(' ').map(|word| {
            let is_time = word.trim_end().split(':').filter(|part| part.len() == 2).count() == 3;
            if is_count || is_time { zeros(word) } else { word.to_owned() }
        });
        quiet.extend(words);
        quiet.push('\n');
    }
    quiet
}

fn sh(command: &str) {
    let output = Command::new("sh").args(["-ec", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Rig {
    /// `None` where tests like this cannot be; in CI that is a failure.
    pub(crate) fn open(name: &str) -> Option<Self> {
        let needs = "test $(id -u) = 0 && command -v ip && PATH=$PATH:/usr/sbin:/sbin command -v bird && command -v gobgpd && command -v bgpdump && test -e /usr/lib/frr/bgpd";
        if !Command::new("sh").args(["-ec", needs]).output().unwrap().status.success() {
            assert!(
                std::env::var_os("CI").is_none(),
                "skipped in CI: needs root, ip, bird, gobgpd, bgpdump and FRR"
            );
            eprintln!("skipped: needs root, ip, bird, gobgpd, bgpdump and FRR");
            return None;
        }
        let prefix = format!("bgt{}{name}", std::process::id());
        let (ours, theirs) = (format!("{prefix}-a"), format!("{prefix}-b"));
        let rig = Self { ours, theirs, directory: tempfile::tempdir().unwrap() };
        let Self { ours, theirs, .. } = &rig;
        leftovers::at_end(&format!("rm -rf {}", rig.directory.path().display())).unwrap();
        for namespace in [ours, theirs] {
            leftovers::remove_namespace_at_end(namespace).unwrap();
        }
        sh(&format!("ip netns add {ours}; ip netns add {theirs}"));
        sh(&format!("ip -n {ours} link add eth0 type veth peer name eth0 netns {theirs}"));
        for (namespace, n) in [(ours, 1), (theirs, 2)] {
            sh(&format!(
                "ip -n {namespace} link set lo up; ip -n {namespace} link set eth0 up; \
                 ip -n {namespace} addr add 10.99.0.{n}/24 dev eth0; ip -n {namespace} addr add fd99::{n}/64 dev eth0 nodad"
            ));
        }
        // A second neighbour in the same namespace.
        sh(&format!("ip -n {theirs} addr add 10.99.0.3/24 dev eth0"));
        Some(rig)
    }

    /// The stock client against our speaker.
    pub(crate) fn gobgp(&self, line: &str) -> String {
        run(&self.ours, "gobgp", line)
    }

    /// The stock client of a later GoBGP, 3.36 or 4, against our speaker.
    pub(crate) fn later_gobgp(&self, major: u8, line: &str) -> String {
        run(&self.ours, &later_gobgp(major), line)
    }

    /// The stock client against their gobgpd.
    pub(crate) fn gobgp_there(&self, line: &str) -> String {
        run(&self.theirs, "gobgp", line)
    }

    /// `ip` in our namespace.
    pub(crate) fn ip(&self, line: &str) -> String {
        run(&self.ours, "ip", line)
    }

    /// `ip` in theirs.
    pub(crate) fn ip_there(&self, line: &str) -> String {
        run(&self.theirs, "ip", line)
    }

    /// The name of their namespace.
    pub(crate) fn theirs(&self) -> &str {
        &self.theirs
    }

    /// A program in our namespace, to be given arguments.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.ours, program]);
        command
    }

    /// A file in the rig's directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What our daemon said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("isthmus.log")).unwrap_or_default()
    }

    /// The stock client while it prints what happens, until the result is dropped.
    pub(crate) fn gobgp_stream(&self, line: &str) -> Stream {
        self.stream("gobgp", line)
    }

    /// The same of a later GoBGP.
    pub(crate) fn later_gobgp_stream(&self, major: u8, line: &str) -> Stream {
        self.stream(&later_gobgp(major), line)
    }

    fn stream(&self, program: &str, line: &str) -> Stream {
        let file = self.directory.path().join(line.replace([' ', '/'], "-"));
        let mut asked = Command::new("ip");
        asked.args(["netns", "exec", &self.ours, program]).args(line.split_whitespace());
        let child = asked.stdout(File::create(&file).unwrap()).stdin(Stdio::null()).spawn().unwrap();
        Stream { child, file }
    }

    /// Our own commands in their namespace.
    pub(crate) fn isthmus_there(&self, line: &str) -> String {
        run(&self.theirs, env!("CARGO_BIN_EXE_isthmus"), line)
    }

    /// A command of ours while it prints what happens, on standard output or error.
    pub(crate) fn isthmus_stream(&self, line: &str) -> Stream {
        let file = self.directory.path().join(line.replace([' ', '/'], "-"));
        let (out, mut asked) = (File::create(&file).unwrap(), self.command(env!("CARGO_BIN_EXE_isthmus")));
        asked.args(line.split_whitespace()).stdin(Stdio::null()).stderr(out.try_clone().unwrap());
        Stream { child: asked.stdout(out).spawn().unwrap(), file }
    }

    fn frr(&self) -> FrrDaemons {
        FrrDaemons::at(&self.directory.path().join("frr"))
    }

    /// FRR's shell, one command.
    pub(crate) fn vtysh(&self, line: &str) -> String {
        let mut asked = Command::new("vtysh");
        asked.args(self.frr().asked(&[line]));
        let output = asked.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    pub(crate) fn isthmus(&self, line: &str) -> String {
        run(&self.ours, env!("CARGO_BIN_EXE_isthmus"), line)
    }

    /// Cuts the link on their side, or mends it: `down` or `up`.
    pub(crate) fn link(&self, state: &str) {
        sh(&format!("ip -n {} link set eth0 {state}", self.theirs));
    }

    /// How a command ends.
    pub(crate) fn isthmus_status(&self, line: &str) -> i32 {
        let mut asked = Command::new("ip");
        asked
            .args(["netns", "exec", &self.ours, env!("CARGO_BIN_EXE_isthmus")])
            .args(line.split_whitespace());
        asked.output().unwrap().status.code().unwrap()
    }

    /// Waits until what `look` says is as it shall be; prints everything when it does not become so.
    pub(crate) fn wait_ours(&self, what: &str, look: impl Fn() -> String, is_so: impl Fn(&str) -> bool) {
        let text = wait(look, is_so);
        if let Err(text) = text {
            let log = self.log();
            panic!("{what}: not in {PATIENCE:?}\n{text}\nlog:\n{log}");
        }
    }

    /// Says that the test is through; dropping cleans up in any case.
    pub(crate) fn finish(self) {
        drop(self);
    }
}

/// Where `make setup` puts it.
fn later_gobgp(major: u8) -> String {
    format!("/usr/local/lib/isthmus-tests/gobgp-{major}/usr/bin/gobgp")
}

fn run(namespace: &str, program: &str, line: &str) -> String {
    let command = Command::new("ip")
        .args(["netns", "exec", namespace, program])
        .args(line.split_whitespace())
        .env("XDG_CONFIG_HOME", "/nonexistent")
        .output();
    let output = command.unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn wait(look: impl Fn() -> String, is_so: impl Fn(&str) -> bool) -> Result<(), String> {
    let until = Instant::now() + PATIENCE;
    loop {
        let text = look();
        if is_so(&text) {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(text);
        }
        // Between two looks at a condition with a deadline.
        thread::sleep(LOOK_AGAIN);
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for namespace in [&self.ours, &self.theirs] {
            let _ = Command::new("ip").args(["netns", "del", namespace]).output();
        }
    }
}

/// A client that prints what happens.
pub(crate) struct Stream {
    child: Child,
    file: PathBuf,
}

impl Stream {
    /// What it has printed.
    pub(crate) fn text(&self) -> String {
        fs::read_to_string(&self.file).unwrap()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A daemon in one of the namespaces, by its own process id.
pub(crate) struct Daemon {
    child: Child,
    config: PathBuf,
    control: Option<PathBuf>,
}

impl Daemon {
    fn start(rig: &Rig, namespace: &str, name: &str, program: &str, args: &[&str], text: &str) -> Self {
        let config = rig.directory.path().join(format!("{name}.conf"));
        fs::write(&config, text).unwrap();
        let log = File::create(rig.directory.path().join(format!("{name}.log"))).unwrap();
        // `ip netns exec` becomes the program, so that its process id is the daemon's.
        let child = Command::new("ip")
            .args(["netns", "exec", namespace, program])
            .args(args)
            .arg(&config)
            .current_dir(rig.directory.path())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, config, control: None }
    }

    pub(crate) fn isthmus(rig: &Rig, text: &str) -> Self {
        Self::isthmus_with(rig, &[], text)
    }

    /// With arguments more.
    pub(crate) fn isthmus_with(rig: &Rig, more: &[&str], text: &str) -> Self {
        let mut args = vec!["bgp", "run", "--log", "info,isthmus_speaker=debug", "--log-format", "text"];
        args.extend(more);
        args.push("-c");
        Self::start(rig, &rig.ours, "isthmus", env!("CARGO_BIN_EXE_isthmus"), &args, text)
    }

    /// A second speaker of ours, in their namespace.
    pub(crate) fn isthmus_there(rig: &Rig, text: &str) -> Self {
        let args = ["bgp", "run", "--log", "info,isthmus_speaker=debug", "--log-format", "text", "-c"];
        Self::start(rig, &rig.theirs, "there", env!("CARGO_BIN_EXE_isthmus"), &args, text)
    }

    /// zebra and bgpd. Files that they write are in `frr`, which is their own.
    pub(crate) fn frr(rig: &Rig, text: &str) -> [Self; 2] {
        let daemons = rig.frr();
        sh(&format!("chmod 755 {}", rig.directory.path().display()));
        daemons.make_directory();
        let run = |name: &str, text: &str| {
            let args = daemons.arguments(name);
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            Self::start(rig, &rig.theirs, name, &FrrDaemons::program(name), &args, text)
        };
        let first = run("zebra", "");
        let zebra = daemons.zebra();
        let there = wait(|| fs::exists(&zebra).unwrap().to_string(), |there| there == "true");
        assert!(there.is_ok(), "zebra does not listen");
        [first, run("bgpd", text)]
    }

    pub(crate) fn bird(rig: &Rig, text: &str) -> Self {
        let socket = rig.directory.path().join("bird.ctl");
        let args = ["-f", "-s", socket.to_str().unwrap(), "-c"];
        let mut daemon = Self::start(rig, &rig.theirs, "bird", "bird", &args, text);
        daemon.control = Some(socket);
        daemon
    }

    pub(crate) fn gobgpd(rig: &Rig, text: &str) -> Self {
        Self::start(rig, &rig.theirs, "gobgpd", "gobgpd", &["-t", "toml", "-f"], text)
    }

    /// Asks BIRD.
    pub(crate) fn control(&self, line: &str) -> String {
        let socket = self.control.as_ref().unwrap();
        let mut asked = Command::new("birdc");
        asked.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").arg("-s").arg(socket);
        let output = asked.args(line.split_whitespace()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn wait(&self, what: &str, line: &str, is_so: impl Fn(&str) -> bool) {
        if let Err(text) = wait(|| self.control(line), is_so) {
            panic!("{what}: not in {PATIENCE:?}\n{line}\n{text}");
        }
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: &str) {
        sh(&format!("kill -{signal} {}", self.child.id()));
    }

    /// Writes another configuration, and has it read.
    pub(crate) fn reload(&self, text: &str) {
        fs::write(&self.config, text).unwrap();
        self.signal("HUP");
    }

    /// Asks it to end, and waits until it has, without an error.
    pub(crate) fn terminate(mut self) {
        self.signal("TERM");
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return;
            }
            thread::sleep(LOOK_AGAIN);
        }
        panic!("it does not end");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
