//! The process between a worker and the command of one job: a copy of this program.
//!
//! It leads a process group of its own, in which the command runs, so Ctrl-C and other signals to the
//! worker's group do not reach the command. Its standard input is a socket to the worker, from which
//! it reads the message, and later signals for the command. When the socket ends, the worker is gone,
//! by SIGKILL perhaps, and the guardian ends the whole group: by SIGTERM, and after [`GRACE`] by
//! SIGKILL. Over the same socket it reports how the command has ended.
//!
//! There is one loop and no thread: the message is written as fast as the command reads it, so nothing
//! waits for a command that does not read, or for a daemon that it leaves behind.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{ChildStdin, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use proto::queue::BODY_BYTES_MAX;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::process::{
    Pid, Signal, WaitOptions, getpgid, getpgrp, getpid, kill_current_process_group, kill_process,
    kill_process_group, set_child_subreaper, wait,
};
use signal_hook::consts::{SIGCHLD, SIGTERM, SIGTTIN, SIGTTOU};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use super::signals::stop_signals;

/// The first argument of a guardian; the command follows.
pub(super) const ARG: &str = "--as-guardian";

/// Its name in a list of processes.
const NAME: &str = "queue-guardian";

/// How long a command may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// What a guardian reports to its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// The command could not be run; with the system's error number.
    NotStarted(i32),
    /// The guardian got this signal, one of those that stop a worker.
    Signalled(i32),
    /// The command wanted the terminal, and is ended.
    WantsTerminal,
    /// The command ended, with this status as `waitpid` tells it.
    Ended(i32),
}

impl Report {
    /// The length of each, in bytes.
    pub(super) const BYTES: usize = 5;

    fn encode(self) -> [u8; Self::BYTES] {
        let (kind, number) = match self {
            Self::NotStarted(errno) => (1, errno),
            Self::Signalled(signal) => (2, signal),
            Self::WantsTerminal => (3, 0),
            Self::Ended(status) => (4, status),
        };
        let [a, b, c, d] = number.to_be_bytes();
        [kind, a, b, c, d]
    }

    pub(super) fn decode([kind, number @ ..]: [u8; Self::BYTES]) -> Option<Self> {
        let number = i32::from_be_bytes(number);
        match kind {
            1 => Some(Self::NotStarted(number)),
            2 => Some(Self::Signalled(number)),
            3 => Some(Self::WantsTerminal),
            4 => Some(Self::Ended(number)),
            _ => None,
        }
    }
}

/// What precedes the message on the socket.
pub(super) fn header(body: &[u8]) -> [u8; 4] {
    u32::try_from(body.len())
        .expect("a message is at most BODY_BYTES_MAX long")
        .to_be_bytes()
}

/// The worker that has started this process, if standard input is a socket to one.
pub(super) fn worker() -> Option<UnixStream> {
    let socket = io::stdin().as_fd().try_clone_to_owned().ok()?;
    let worker = UnixStream::from(socket);
    worker.local_addr().is_ok().then_some(worker)
}

/// Runs a command and guards it.
pub(super) fn guard(mut worker: UnixStream, mut words: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(command) = words.next() else {
        return ExitCode::FAILURE;
    };
    let mut command = Command::new(command);
    command.args(words).stdin(Stdio::piped());
    let started = read_body(&mut worker).and_then(|body| Guardian::start(&worker, command, body));
    match started {
        Ok(mut guardian) => guardian.run(),
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error());
            report(&worker, Report::NotStarted(errno));
        }
    }
    ExitCode::SUCCESS
}

fn read_body(worker: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut header = [0; 4];
    worker.read_exact(&mut header)?;
    let bytes = u32::from_be_bytes(header) as usize;
    if bytes > BODY_BYTES_MAX {
        return Err(Errno::INVAL.into());
    }
    let mut body = vec![0; bytes];
    worker.read_exact(&mut body)?;
    Ok(body)
}

fn report(mut worker: &UnixStream, report: Report) {
    // If the worker is gone, nobody reads it.
    let _ = worker.write_all(&report.encode());
}

struct Guardian<'w> {
    worker: &'w UnixStream,
    is_worker_gone: bool,
    signals: SignalDelivery<UnixStream, SignalOnly>,
    /// The signals that need no report: those reported already, and SIGTERM when this process has sent
    /// it to its own group.
    signalled: BTreeSet<i32>,
    command: Pid,
    /// How the command has ended.
    status: Option<i32>,
    has_children: bool,
    stdin: Option<ChildStdin>,
    body: Vec<u8>,
    written: usize,
    /// When the group is killed, once it was told to end.
    deadline: Option<Instant>,
}

impl<'w> Guardian<'w> {
    fn start(worker: &'w UnixStream, mut command: Command, body: Vec<u8>) -> io::Result<Self> {
        // The name is for people only, so a failure does not matter.
        let _ = std::fs::write("/proc/self/comm", NAME);
        let (read, write) = UnixStream::pair()?;
        let mut listened_to = stop_signals();
        // The last two stop a whole group by default, and must not stop this process.
        listened_to.extend([SIGCHLD, SIGTTIN, SIGTTOU]);
        let signals = SignalDelivery::with_pipe(read, write, SignalOnly, listened_to)?;
        worker.set_nonblocking(true)?;
        // So this process can wait for what the command leaves behind in the group.
        set_child_subreaper(Some(getpid()))?;
        let mut child = command.spawn()?;
        let stdin = child.stdin.take();
        if let Some(stdin) = &stdin {
            ioctl_fionbio(stdin, true)?;
        }
        Ok(Self {
            worker,
            is_worker_gone: false,
            signals,
            signalled: BTreeSet::new(),
            command: Pid::from_child(&child),
            status: None,
            has_children: true,
            stdin,
            body,
            written: 0,
            deadline: None,
        })
    }

    fn run(&mut self) {
        loop {
            self.feed();
            self.listen();
            self.note_signals();
            self.reap();
            if let Some(status) = self.status
                && (self.deadline.is_none() || !self.has_children)
            {
                return report(self.worker, Report::Ended(status));
            }
            let left = self
                .deadline
                .map(|deadline| deadline.saturating_duration_since(Instant::now()));
            // If poll fails, nothing else can be done either.
            if left == Some(Duration::ZERO) || self.sleep(left).is_err() {
                // This process included.
                self.signal(Signal::KILL);
            }
        }
    }

    /// Waits until there is something to do, at most for `left`.
    fn sleep(&self, left: Option<Duration>) -> io::Result<()> {
        let timeout = left.map(Timespec::try_from).transpose();
        let timeout = timeout.map_err(|_| Errno::INVAL)?;
        let mut events = vec![PollFd::new(self.signals.get_read(), PollFlags::IN)];
        if !self.is_worker_gone {
            events.push(PollFd::new(self.worker, PollFlags::IN));
        }
        if let Some(stdin) = &self.stdin {
            events.push(PollFd::new(stdin, PollFlags::OUT));
        }
        match poll(&mut events, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes as much of the message as the command reads now.
    fn feed(&mut self) {
        while let Some(stdin) = &mut self.stdin {
            match stdin.write(&self.body[self.written..]) {
                Ok(bytes @ 1..) => self.written += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // That was all, or the command does not read the rest.
                Ok(0) | Err(_) => {
                    self.stdin = None;
                    self.body = Vec::new();
                }
            }
        }
    }

    /// Reads from the worker: signals for the command, or the end.
    fn listen(&mut self) {
        let mut signals = [0; 16];
        while !self.is_worker_gone {
            match (&*self.worker).read(&mut signals) {
                Ok(bytes @ 1..) => signals[..bytes]
                    .iter()
                    .filter_map(|signal| Signal::from_named_raw(i32::from(*signal)))
                    .for_each(|signal| self.signal(signal)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => {
                    self.is_worker_gone = true;
                    self.end();
                }
            }
        }
    }

    fn note_signals(&mut self) {
        let signals: Vec<i32> = self.signals.pending().collect();
        for signal in signals {
            if signal == SIGCHLD || !self.signalled.insert(signal) {
                continue;
            }
            if signal == SIGTTIN || signal == SIGTTOU {
                report(self.worker, Report::WantsTerminal);
                self.end();
            } else {
                report(self.worker, Report::Signalled(signal));
            }
        }
    }

    fn reap(&mut self) {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.command => {
                    self.status = Some(status.as_raw());
                    self.stdin = None;
                }
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => return,
                Err(_) => {
                    self.has_children = false;
                    return;
                }
            }
        }
    }

    /// Tells the command and all that it has started to end.
    fn end(&mut self) {
        if self.deadline.is_some() {
            return;
        }
        self.deadline = Some(Instant::now() + GRACE);
        self.signalled.insert(SIGTERM);
        self.signal(Signal::TERM);
        // A stopped process handles no SIGTERM until it continues.
        self.signal(Signal::CONT);
    }

    /// Sends a signal to the group, and to the command if it has moved to another group.
    fn signal(&self, signal: Signal) {
        // A process that is gone needs no signal.
        if self.status.is_none()
            && let Ok(group) = getpgid(Some(self.command))
            && group != getpgrp()
        {
            let _ = match group == self.command {
                true => kill_process_group(group, signal),
                false => kill_process(self.command, signal),
            };
        }
        let _ = kill_current_process_group(signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_told_apart() {
        let reports = [
            Report::NotStarted(2),
            Report::Signalled(15),
            Report::WantsTerminal,
            Report::Ended(0x0100),
            Report::Ended(-1),
        ];
        for report in reports {
            assert_eq!(Report::decode(report.encode()), Some(report));
        }
        assert_eq!(Report::decode([0; Report::BYTES]), None);
    }
}
