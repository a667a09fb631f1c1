//! A router that can be asked and told, whoever wrote it.

use crate::{
    lab::Node,
    plan::{Family, Own, Path, Plan, family_of},
};
use std::{
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long anything may take that works at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(50);
/// How often is looked again.
const LOOK_AGAIN: Duration = Duration::from_millis(150);

/// A router in a namespace of its own.
pub(crate) trait Speaker: Send {
    /// As the matrix calls it.
    fn title(&self) -> &'static str;
    fn plan(&self) -> &Plan;
    /// Starts it with its plan. `restarted`: it says so to its neighbours (RFC 4724).
    fn start(&mut self, restarted: bool) -> Result<(), String>;
    /// Ends it without a word, as a crash does.
    fn kill(&mut self);
    /// Whether the session of that name is established.
    fn is_up(&self, session: &str) -> bool;
    /// All paths that it has for a prefix of one family.
    fn paths(&self, prefix: &str) -> Vec<Path>;
    fn withdraw(&self, own: &Own);
    /// Asks the other end for its routes.
    fn ask_again(&self, session: &str);
    /// How many updates came over a session in all.
    fn updates(&self, session: &str) -> u64;
    /// Ends a session with a word to the other operator (RFC 9003).
    fn shut_down(&self, session: &str, text: &str);
    /// All that it says about a session: the last error, capabilities, BFD.
    fn about(&self, session: &str) -> String;
    /// What it wrote, for a failure.
    fn log(&self) -> String;

    /// Whether BFD of a session is up, where it does that.
    fn bfd_is_up(&self, session: &str) -> bool;
    /// Where it runs.
    fn node(&self) -> &Node;

    /// Next hops of the kernel's route to a prefix.
    fn hops(&self, prefix: &str) -> usize {
        let text = output(self.node(), "ip", &["-o", "route", "show", prefix]);
        text.matches(" via ").count()
    }

    /// The paths that came over one session.
    fn paths_from(&self, session: &str, prefix: &str) -> Vec<Path> {
        let remote = self.plan().session(session).remote;
        self.paths(prefix).into_iter().filter(|path| path.from == Some(remote)).collect()
    }
}

/// Waits until `look` has what is wanted; else says what was there last.
pub(crate) fn wait<T: std::fmt::Debug>(
    what: &str,
    look: impl Fn() -> T,
    is_so: impl Fn(&T) -> bool,
) -> Result<T, String> {
    let until = Instant::now() + PATIENCE;
    loop {
        let found = look();
        if is_so(&found) {
            return Ok(found);
        }
        if Instant::now() > until {
            return Err(format!("{what}: not in {PATIENCE:?}, but {found:?}"));
        }
        // Between two looks at a condition with a deadline.
        thread::sleep(LOOK_AGAIN);
    }
}

/// A process that ends with its owner.
pub(crate) struct Daemon(Child);

impl Daemon {
    /// Starts `program` in the node's namespace; what it writes goes to `NAME.log` in its directory.
    pub(crate) fn start(node: &Node, name: &str, program: &str, args: &[&str]) -> Self {
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(node.file(&format!("{name}.log")));
        let log = log.unwrap();
        // `ip netns exec` becomes the program, so that its process id is the daemon's.
        let child = Command::new("ip")
            .args(["netns", "exec", &node.namespace, program])
            .args(args)
            .env("PATH", PATH)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where Debian keeps routers, and `ip`.
pub(crate) const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// What a program in the node's namespace prints.
pub(crate) fn output(node: &Node, program: &str, args: &[&str]) -> String {
    let output = Command::new("ip")
        .args(["netns", "exec", &node.namespace, program])
        .args(args)
        .env("PATH", PATH)
        .env("XDG_CONFIG_HOME", "/nonexistent")
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The words between two spaces as one argument each.
pub(crate) fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// Text for a family of a prefix.
pub(crate) fn by_family<'a>(prefix: &str, v4: &'a str, v6: &'a str) -> &'a str {
    match family_of(prefix) {
        Family::V4 => v4,
        Family::V6 => v6,
    }
}
