//! The servers, as processes.

use std::ffi::OsStr;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use cli::Endpoint;

use super::{Running, connect, program};

/// A server process, listening. Dropping it ends the process, and shows its log if the test has
/// failed.
pub struct Server {
    running: Running,
    /// The addresses it listens on, in the order in which it says so.
    pub addrs: Vec<SocketAddr>,
}

impl Server {
    /// Starts a server and waits until it listens.
    #[track_caller]
    pub fn start<S: AsRef<OsStr>>(name: &str, args: &[S]) -> Self {
        let mut command = Command::new(program(name));
        command.args(args);
        Self::spawn(command)
    }

    /// Starts a server with this command, and waits until it listens.
    #[track_caller]
    pub fn spawn(mut command: Command) -> Self {
        let listening = listeners(&command);
        name_host(&mut command);
        let running = Running::start(command);
        running.wait_for_stderr(|log| addresses(log).len() == listening);
        let addrs = addresses(&running.stderr.text());
        Self { running, addrs }
    }

    /// The first address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addrs[0]
    }

    /// The same, for a client.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::new(self.addr().ip().to_string(), self.addr().port())
    }

    /// `HOST PORT...`, as the clients' command lines have it.
    pub fn host_and_ports(&self) -> Vec<String> {
        let ports = self.addrs.iter().map(|addr| addr.port().to_string());
        std::iter::once(self.addr().ip().to_string())
            .chain(ports)
            .collect()
    }

    /// A connection to the first address, which gives up in time.
    #[track_caller]
    pub fn connect(&self) -> TcpStream {
        connect(self.addr())
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.running.stderr.text()
    }

    /// Waits until its log is as it should be.
    #[track_caller]
    pub fn wait_for_log(&self, is_there: impl Fn(&str) -> bool) {
        self.running.wait_for_stderr(is_there);
    }

    /// Ends it, and has its whole log: while it runs, its last lines may still be on their way.
    #[track_caller]
    pub fn end(&self) -> String {
        self.signal("TERM");
        let (code, log) = self.wait();
        assert_eq!(code, Some(0), "{log}");
        log
    }

    /// The id of its process.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// How many connections it serves: each has a thread that is named by its peer.
    pub fn connections(&self) -> usize {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid()));
        let names = tasks.into_iter().flatten().flatten();
        let names = names.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.starts_with("127.0.0.1:")).count()
    }

    /// How many threads it has.
    pub fn threads(&self) -> usize {
        entries(&format!("/proc/{}/task", self.pid()))
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        entries(&format!("/proc/{}/fd", self.pid()))
    }

    /// Its peak memory so far, in bytes.
    pub fn peak_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.unwrap().split_whitespace().next().unwrap();
        kib.parse::<usize>().unwrap() * 1024
    }

    /// Sends it a signal.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        self.running.signal(name);
    }

    /// Ends it with SIGKILL, and waits until it is gone.
    pub fn kill(self) {
        self.running.kill();
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.running.ended().is_some()
    }

    /// Waits until it ends by itself; returns its exit code and its log.
    #[track_caller]
    pub fn wait(&self) -> (Option<i32>, String) {
        (self.running.wait(), self.log())
    }
}

/// How many addresses a server listens on that is started like this, by itself or by way of another
/// program: the code server on two, the others on one.
pub fn listeners(command: &Command) -> usize {
    1 + usize::from(starts(command, "code-server"))
}

/// Has a server that is started like this answer for the host `h`, as requests in bytes call it.
pub fn name_host(command: &mut Command) {
    if ["code-server", "file-server"]
        .iter()
        .any(|name| starts(command, name))
    {
        command.args(["--host", "h"]);
    }
}

/// Whether a command starts one of our programs, by itself or by way of another.
fn starts(command: &Command, name: &str) -> bool {
    let program = program(name);
    let mut words = std::iter::once(command.get_program()).chain(command.get_args());
    words.any(|word| word == program)
}

/// The addresses that a server listens on, by its log.
pub fn addresses(log: &str) -> Vec<SocketAddr> {
    let started = |line: &str| {
        let (_, rest) = line.split_once("Server started on ")?;
        rest.split_whitespace().next()?.parse().ok()
    };
    log.lines().filter_map(started).collect()
}

fn entries(folder: &str) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

#[test]
fn what_a_folder_is_called_says_nothing_about_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("code-server");
    let server = Server::start(
        "history-server",
        &["0", "--data-dir", folder.to_str().unwrap()],
    );
    assert_eq!(server.addrs.len(), 1);
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" 0 0 --data-dir \"$1\""]);
    command.arg(program("code-server")).arg(folder);
    assert_eq!(Server::spawn(command).addrs.len(), 2);
}
