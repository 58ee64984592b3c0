//! The servers, as processes.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;

use cli::Endpoint;

use super::door::{self, Address, Door, Opened};
use super::{Running, Stream, program};

/// A server process, listening. Dropping it ends the process, and shows its log if the test has
/// failed.
pub struct Server {
    running: Running,
    door: Door,
    /// The addresses it listens on, in the order in which it says so.
    pub addrs: Vec<Address>,
    _opened: Opened,
}

impl Server {
    /// Starts a server and waits until it listens.
    #[track_caller]
    pub fn start<S: AsRef<OsStr>>(name: &str, args: &[S]) -> Self {
        let mut command = Command::new(program(name));
        command.args(args);
        Self::spawn(command)
    }

    /// Starts a server that opens another door than that of the run.
    #[track_caller]
    pub fn start_behind<S: AsRef<OsStr>>(door: Door, name: &str, args: &[S]) -> Self {
        let mut command = Command::new(program(name));
        command.args(args);
        Self::spawn_behind(door, command)
    }

    /// Starts a server with this command, and waits until it listens.
    #[track_caller]
    pub fn spawn(command: Command) -> Self {
        Self::spawn_behind(door::door(), command)
    }

    #[track_caller]
    fn spawn_behind(door: Door, mut command: Command) -> Self {
        let opened = door.open(&mut command);
        let running = Running::start(command);
        running.wait_for_stderr(|log| opened.is_ready(log));
        let addrs = door::addresses(&running.stderr.text());
        Self {
            running,
            door,
            addrs,
            _opened: opened,
        }
    }

    /// The first address it listens on.
    pub fn addr(&self) -> Address {
        self.addrs[0]
    }

    /// The same, for a client.
    pub fn endpoint(&self) -> Endpoint {
        self.addr().endpoint()
    }

    /// `HOST PORT...` and the options of the door, as our clients' command lines have them.
    pub fn host_and_ports(&self) -> Vec<String> {
        self.door.client_words(&self.addrs)
    }

    /// curl, for this path at the first address.
    pub fn curl(&self, path: &str) -> Command {
        self.door.curl(self.addr(), path)
    }

    /// A connection to the first address, which gives up in time.
    #[track_caller]
    pub fn connect(&self) -> Stream {
        self.door.connect(self.addr()).unwrap()
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
        // A thread that listens at a Unix socket is named by its path.
        let is_user = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
        let is_peer = |name: &String| {
            name.starts_with("127.0.0.1:") || name.strip_prefix("unix:").is_some_and(is_user)
        };
        names.filter(is_peer).count()
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
