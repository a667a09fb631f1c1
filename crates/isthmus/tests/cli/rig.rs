//! Runs the program, and servers for it to talk to.

use axum::Router;
use isthmus_server::{Config, Running, Server};
use isthmus_store::MemoryStore;
use std::{
    path::PathBuf,
    process::{Command, Output},
    sync::Arc,
};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, UnixListener},
    runtime::Runtime,
};

/// The program in an environment of its own: no terminal, no context file, no other server.
pub(crate) fn isthmus() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isthmus"));
    command.env_clear().env("XDG_CONFIG_HOME", "/nonexistent").env("LANG", "C.UTF-8");
    command
}

/// Runs the program with `line`, split at spaces.
pub(crate) fn run(server: Option<&str>, line: &str) -> Ran {
    let mut command = isthmus();
    if let Some(server) = server {
        command.env("ISTHMUS_SERVER", server);
    }
    Ran::of(command.args(line.split_whitespace()).output().unwrap())
}

/// What a process said.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) exit: Option<i32>,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
            exit: output.status.code(),
        }
    }
}

/// A real server on a store in memory.
pub(crate) struct Real {
    address: String,
    running: Option<Running>,
    runtime: Runtime,
}

impl Real {
    pub(crate) fn new() -> Self {
        let text = "listen = \"127.0.0.1:0\"\nagents = \"127.0.0.1:0\"\ncf_policy = \"\"\n";
        let config = Config::from_toml(text, "test").unwrap();
        let runtime = Runtime::new().unwrap();
        let running = runtime.block_on(Server::start(&config, Arc::new(MemoryStore::new()))).unwrap();
        Self { address: running.rest_addr.to_string(), running: Some(running), runtime }
    }

    pub(crate) fn run(&self, line: &str) -> Ran {
        run(Some(&self.address), line)
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.runtime.block_on(running.stop());
        }
    }
}

/// A server or an agent that answers with `router`.
pub(crate) struct Fake {
    pub(crate) address: String,
    pub(crate) socket: PathBuf,
    _directory: TempDir,
    _runtime: Runtime,
}

impl Fake {
    pub(crate) fn new(router: Router) -> Self {
        let runtime = Runtime::new().unwrap();
        let directory = TempDir::new().unwrap();
        let socket = directory.path().join("agent.sock");
        let (tcp, unix) = runtime.block_on(async {
            (TcpListener::bind("127.0.0.1:0").await.unwrap(), UnixListener::bind(&socket).unwrap())
        });
        let address = tcp.local_addr().unwrap().to_string();
        let twin = router.clone();
        runtime.spawn(async move { axum::serve(tcp, router).await });
        runtime.spawn(async move { axum::serve(unix, twin).await });
        Self { address, socket, _directory: directory, _runtime: runtime }
    }

    /// Asks it as a server.
    pub(crate) fn run(&self, line: &str) -> Ran {
        run(Some(&self.address), line)
    }

    /// Asks it as an agent: `SOCKET` in the line is its socket.
    pub(crate) fn run_local(&self, line: &str) -> Ran {
        run(None, &line.replace("SOCKET", &self.socket.display().to_string()))
    }
}
