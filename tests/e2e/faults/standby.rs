//! Servers that stand by (`--standby`), and take over when the one that serves ends.

use std::net::TcpStream;

use super::*;
use crate::harness::{Needs, free_addr, has_door};

const STANDING_BY: &str = "standing by: another server uses";

/// The services whose servers can stand by.
const ABLE: [Kind; 2] = [Code, History];

fn standby(kind: Kind, dir: &Path) -> Command {
    let mut command = kind.command(dir);
    command.arg("--standby");
    command
}

/// Starts a server that has to wait, and waits until it does.
#[track_caller]
fn wait_in_line(mut command: Command) -> Process {
    let opened = door().open(&mut command);
    let running = Running::start(command);
    running.wait_for_stderr(|log| log.contains(STANDING_BY));
    Process {
        running,
        addrs: Vec::new(),
        opened,
    }
}

impl Process {
    fn has_taken_over(&self) -> bool {
        self.opened.is_ready(&self.log())
    }

    /// Waits until it serves; a client of it.
    #[track_caller]
    fn client(&mut self, kind: Kind) -> Client {
        let opened = &self.opened;
        self.running.wait_for_stderr(|log| opened.is_ready(log));
        self.addrs = addresses(&self.log());
        Client::connect(kind, &self.addrs)
    }

    #[track_caller]
    fn terminate(&self) {
        self.running.signal("TERM");
        assert_eq!(self.wait(), Some(0), "{}", self.log());
    }
}

#[track_caller]
fn check_take_over(kind: Kind, end: impl Fn(&Process)) {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new(kind);
    // Nobody uses the folder, so the first does not wait.
    let mut active = Process::start(standby(kind, dir.path()));
    let mut waiting = [(); 2].map(|()| wait_in_line(standby(kind, dir.path())));
    let [first, second] = &mut waiting;
    let put = |ledger: &mut Ledger, client: &mut Client| {
        for _ in 0..3 {
            assert_eq!(ledger.put(client), Done);
        }
    };
    put(&mut ledger, &mut active.client(kind));
    assert!(!active.log().contains(STANDING_BY), "{}", active.log());
    end(&active);
    eventually("one takes over", || {
        first.has_taken_over() || second.has_taken_over()
    });
    let (next, last) = match first.has_taken_over() {
        true => (first, second),
        false => (second, first),
    };
    put(&mut ledger, &mut next.client(kind));
    assert!(!last.has_taken_over(), "two serve");
    end(next);
    put(&mut ledger, &mut last.client(kind));
    last.terminate();
    for server in &waiting {
        let log = server.log();
        assert_eq!(log.matches(STANDING_BY).count(), 1, "{log}");
    }
    ledger.check(dir.path());
}

#[test]
fn another_server_takes_over_when_the_one_that_serves_is_killed() {
    for kind in ABLE {
        check_take_over(kind, |server| server.running.kill());
    }
}

#[test]
fn another_server_takes_over_when_the_one_that_serves_is_stopped() {
    for kind in ABLE {
        check_take_over(kind, Process::terminate);
    }
}

#[test]
fn a_server_that_stored_nothing_takes_its_folder_along_and_the_next_makes_another() {
    for kind in ABLE {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("new/data");
        let active = Process::start(kind.command(&folder));
        let mut waiting = [(); 2].map(|()| wait_in_line(standby(kind, &folder)));
        active.terminate();
        let [first, second] = &mut waiting;
        eventually("one takes over", || {
            first.has_taken_over() || second.has_taken_over()
        });
        if second.has_taken_over() {
            std::mem::swap(first, second);
        }
        first.terminate();
        let mut ledger = Ledger::new(kind);
        assert_eq!(ledger.put(&mut second.client(kind)), Done);
        second.terminate();
        ledger.check(&folder);
    }
}

/// Whether a process has the file of this path open, and not one that had the path before.
fn has_open(process: &Process, path: &Path) -> bool {
    let fds = fs::read_dir(format!("/proc/{}/fd", process.pid())).unwrap();
    let mut files = fds.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
    files.any(|file| file == path)
}

#[test]
fn a_history_that_is_replaced_again_and_again_is_waited_for_under_its_path() {
    const REPLACEMENTS: usize = 20;
    let (dir, mut ledger) = some_records(History);
    let path = dir.path().canonicalize().unwrap().join("history.txt");
    let mut active = Process::start(History.command(dir.path()));
    let mut waiting = wait_in_line(standby(History, dir.path()));
    let mut client = active.client(History);
    for _ in 0..REPLACEMENTS {
        assert_eq!(ledger.put(&mut client), Done);
    }
    for _ in 0..REPLACEMENTS {
        // A deletion writes a new file, which takes the path.
        assert_eq!(ledger.take(&mut client), Done);
        eventually("it waits for the new file", || has_open(&waiting, &path));
    }
    assert!(!waiting.has_taken_over());
    active.running.kill();
    assert_eq!(ledger.put(&mut waiting.client(History)), Done);
    let log = waiting.log();
    assert_eq!(log.matches(STANDING_BY).count(), 1, "{log}");
    waiting.terminate();
    ledger.check(dir.path());
}

#[test]
fn the_file_that_the_path_names_is_served_when_another_program_has_replaced_it() {
    for kind in ABLE {
        let (dir, mut ledger) = some_records(kind);
        let mut active = Process::start(kind.command(dir.path()));
        let mut waiting = wait_in_line(standby(kind, dir.path()));
        let mut client = active.client(kind);
        let (path, copy) = (dir.path().join(kind.files()[0]), dir.path().join("copy"));
        fs::copy(&path, &copy).unwrap();
        fs::rename(&copy, &path).unwrap();
        // It notices before it says OK, and ends.
        assert_eq!(ledger.put(&mut client), Unknown);
        active.check_gave_up(kind);
        assert_eq!(ledger.put(&mut waiting.client(kind)), Done);
        waiting.terminate();
        ledger.check(dir.path());
    }
}

#[test]
fn a_server_that_stands_by_ends_at_once_when_it_is_told_to() {
    for kind in ABLE {
        for signal in ["TERM", "INT"] {
            let dir = tempfile::tempdir().unwrap();
            let mut active = Process::start(kind.command(dir.path()));
            let waiting = wait_in_line(standby(kind, dir.path()));
            waiting.running.signal("HUP");
            waiting.running.signal(signal);
            assert_eq!(waiting.wait(), Some(0), "{}", waiting.log());
            let log = waiting.log();
            assert_eq!(log.lines().count(), 2, "{log}");
            assert!(log.ends_with("Shutting down server\n"), "{log}");
            assert_eq!(Ledger::new(kind).put(&mut active.client(kind)), Done);
        }
    }
}

#[test]
fn a_server_that_does_not_stand_by_is_refused_though_others_do() {
    for kind in ABLE {
        let dir = tempfile::tempdir().unwrap();
        let _active = Process::start(kind.command(dir.path()));
        let _waiting = wait_in_line(standby(kind, dir.path()));
        let ran = run_command(kind.command(dir.path()), b"").expect(2);
        ran.check_says("another server is using these files");
    }
}

#[test]
fn a_server_that_stands_by_does_not_listen() {
    if !has_door(Needs::Tcp, "a port is looked at") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let active = Process::start(History.command(dir.path()));
    let addr = free_addr();
    let mut command = Command::new(program(History.name()));
    command.args([&addr.port().to_string(), "--standby", "--data-dir"]);
    command.arg(dir.path());
    let mut waiting = wait_in_line(command);
    let error = TcpStream::connect(addr).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    active.running.kill();
    waiting.client(History);
    assert_eq!(waiting.addrs[0].tcp(), addr);
}
