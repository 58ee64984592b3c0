//! `queue-client work` among shells, supervisors and terminals: what becomes of its commands, and
//! which attempts count.

mod away;
mod death;
mod drain;
mod nightly;
mod priorities;
mod retries;
mod start;
mod stop;
mod unreserved;

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::harness::{PATIENCE, Running, Server, descendants, eventually, program};
use crate::work::{client, say};

/// A queue server, and a folder in which jobs leave their traces.
struct Place {
    server: Server,
    folder: TempDir,
}

impl Place {
    /// The server gets these options, and the default queue these messages.
    fn new(options: &str, messages: &str) -> Self {
        let options: Vec<_> = ["0", "tcp"]
            .into_iter()
            .chain(options.split_whitespace())
            .collect();
        let place = Self {
            server: Server::start("queue-server", &options),
            folder: tempfile::tempdir().unwrap(),
        };
        if !messages.is_empty() {
            say(&place.server, "send --lines -", messages.as_bytes()).expect(0);
        }
        place
    }

    /// `queue-client HOST PORT work OPTIONS -- sh -c SCRIPT`, run in the folder by `runner`. What fails is
    /// tried again at once, unless the options say when.
    fn command(&self, runner: &[&str], options: &str, script: &str) -> Command {
        let client = program("queue-client");
        let words = runner.iter().map(OsStr::new).chain([client.as_os_str()]);
        let mut words = words.map(OsStr::to_owned);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(self.server.host_and_ports());
        command.arg("work").args(options.split_whitespace());
        if !options.contains("--backoff") && !options.contains("--retry-delay") {
            command.args(["--backoff", "0"]);
        }
        command.args(["--", "sh", "-c", script]);
        command.current_dir(self.folder.path());
        command
    }

    /// Starts a worker.
    fn work(&self, options: &str, script: &str) -> Running {
        Running::start(self.command(&[], options, script))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn touch(&self, name: &str) {
        fs::write(self.path(name), "").unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Waits until a job has left a file that is whole: its last line has an end.
    #[track_caller]
    fn wait_for(&self, name: &str) -> String {
        eventually(name, || self.read(name).ends_with('\n'));
        self.read(name)
    }

    /// Waits until a job has left the number of a process.
    #[track_caller]
    fn wait_for_pid(&self, name: &str) -> u32 {
        self.wait_for(name).trim().parse().unwrap()
    }

    /// Checks that the message at the front was handed out so often, this time included. The server may not
    /// know yet that its worker is gone.
    #[track_caller]
    fn check_attempt(&self, body: &str, attempt: u32) {
        let message = client(&self.server).receive_wait(PATIENCE).unwrap();
        let message = message.expect("there is a message");
        assert_eq!(String::from_utf8_lossy(&message.body), body);
        assert_eq!(message.attempt, attempt);
    }
}

/// Whether a process is there, and not only as a zombie.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some(Some('Z' | 'X')))
}

/// Sends a signal to a process, or to a group if there is a minus in front.
fn signal(name: &str, target: &str) {
    // It may have ended already.
    let _ = Command::new("kill")
        .args(["-s", name, "--", target])
        .stderr(std::process::Stdio::null())
        .status();
}
