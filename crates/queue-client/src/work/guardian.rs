//! The process between a worker and the command of one job: a copy of this program.
//!
//! It leads a process group of its own, in which the command runs, so Ctrl-C and other signals to the
//! worker's group do not reach the command. Its standard input is a socket to the worker, from which
//! it reads the message, and later signals for the command. When the socket ends, the worker is gone,
//! by SIGKILL perhaps, and the guardian ends the whole group: by SIGTERM, and after [`GRACE`] by
//! SIGKILL. It does the same when the command exceeds its time limit, with [`LIMIT_GRACE`]. Over the same
//! socket it reports how the command has ended, and the end of its standard error.
//!
//! There is one loop and no thread: the message is written as fast as the command reads it, so nothing
//! waits for a command that does not read. A daemon that it leaves behind with its standard error keeps
//! the guardian, which shows that, but not the worker.

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
use super::stderr::Stderr;

/// The first argument of a guardian; the command follows.
pub(super) const ARG: &str = "--as-guardian";

/// Its name in a list of processes.
const NAME: &str = "queue-guardian";

/// How long a command may take to end after SIGTERM...
const GRACE: Duration = Duration::from_secs(5);

/// ...and how long if it has exceeded its time limit: nobody waits for the worker to stop then.
const LIMIT_GRACE: Duration = Duration::from_secs(10);

/// What a guardian reports to its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// The command could not be run; with the system's error number.
    NotStarted(i32),
    /// The guardian got this signal, one of those that stop a worker.
    Signalled(i32),
    /// The command wanted the terminal, and is ended.
    WantsTerminal,
    /// The command exceeded its time limit, and is ended.
    OverTime,
    /// As many bytes follow, which are the end of the command's standard error.
    Stderr(i32),
    /// The guardian stays behind, because somebody still has the command's standard error.
    Stays,
    /// The command ended, with this status as `waitpid` tells it. That is the last report.
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
            Self::OverTime => (5, 0),
            Self::Stderr(bytes) => (6, bytes),
            Self::Stays => (7, 0),
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
            5 => Some(Self::OverTime),
            6 => Some(Self::Stderr(number)),
            7 => Some(Self::Stays),
            _ => None,
        }
    }
}

/// What precedes the message on the socket: its length, and the time limit in milliseconds, 0 if there is
/// none.
pub(super) fn header(body: &[u8], time_limit: Option<Duration>) -> [u8; 8] {
    let bytes = u32::try_from(body.len()).expect("a message is at most BODY_BYTES_MAX long");
    let limit = time_limit.unwrap_or_default().as_millis();
    let limit = u32::try_from(limit).expect("a time limit is at most DURATION_MAX");
    (u64::from(bytes) << 32 | u64::from(limit)).to_be_bytes()
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
    command.stderr(Stdio::piped());
    let job = read_job(&mut worker);
    let started = job.and_then(|(body, limit)| Guardian::start(&worker, command, body, limit));
    match started {
        Ok(mut guardian) => guardian.run(),
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error());
            report(&worker, Report::NotStarted(errno));
        }
    }
    ExitCode::SUCCESS
}

/// Reads the message and the time limit.
fn read_job(worker: &mut UnixStream) -> io::Result<(Vec<u8>, Option<Duration>)> {
    let mut header = [0; 8];
    worker.read_exact(&mut header)?;
    let header = u64::from_be_bytes(header);
    let bytes = (header >> 32) as usize;
    let limit = Duration::from_millis(header & u64::from(u32::MAX));
    if bytes > BODY_BYTES_MAX {
        return Err(Errno::INVAL.into());
    }
    let mut body = vec![0; bytes];
    worker.read_exact(&mut body)?;
    Ok((body, (!limit.is_zero()).then_some(limit)))
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
    stderr: Stderr,
    /// When the command is told to end.
    limit: Option<Instant>,
    /// When the group is killed, once it was told to end.
    deadline: Option<Instant>,
}

impl<'w> Guardian<'w> {
    fn start(
        worker: &'w UnixStream,
        mut command: Command,
        body: Vec<u8>,
        limit: Option<Duration>,
    ) -> io::Result<Self> {
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
            stderr: Stderr::new(child.stderr.take())?,
            limit: limit.and_then(|limit| Instant::now().checked_add(limit)),
            deadline: None,
        })
    }

    fn run(&mut self) {
        loop {
            self.feed();
            self.listen();
            self.note_signals();
            self.reap();
            if self.stderr.wants_terminal() {
                self.refuse_terminal();
            }
            self.stderr.show();
            if let Some(status) = self.status
                && self.stderr.is_shown()
                && (self.deadline.is_none() || !self.has_children)
            {
                self.report_end(status);
                return self.stay();
            }
            if self.limit.is_some_and(|limit| limit <= Instant::now()) {
                self.limit = None;
                report(self.worker, Report::OverTime);
                self.end(LIMIT_GRACE);
            }
            let next = [self.deadline, self.limit].into_iter().flatten().min();
            let left = next.map(|next| next.saturating_duration_since(Instant::now()));
            let is_over = self
                .deadline
                .is_some_and(|deadline| deadline <= Instant::now());
            // If poll fails, nothing else can be done either.
            if is_over || self.sleep(left).is_err() {
                match self.status {
                    Some(status) => self.report_end(status),
                    None => self.report_stderr(),
                }
                // This process included.
                self.signal(Signal::KILL);
            }
        }
    }

    fn report_end(&self, status: i32) {
        self.report_stderr();
        if self.stderr.is_open() {
            report(self.worker, Report::Stays);
        }
        report(self.worker, Report::Ended(status));
    }

    fn report_stderr(&self) {
        let tail = self.stderr.tail();
        let bytes = i32::try_from(tail.len()).expect("it is short");
        report(self.worker, Report::Stderr(bytes));
        // If the worker is gone, nobody reads it.
        let _ = (&*self.worker).write_all(tail);
    }

    /// Shows what is still written to the command's standard error, until nobody can, or this process is to
    /// end.
    fn stay(&mut self) {
        self.is_worker_gone = true;
        while self.stderr.is_open() && !self.stderr.wants_terminal() && self.sleep(None).is_ok() {
            let mut signals = self.signals.pending();
            if signals.any(|signal| signal != SIGCHLD) {
                return;
            }
            self.reap();
            self.stderr.show();
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
        events.extend(self.stderr.event());
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
                    self.end(GRACE);
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
                self.refuse_terminal();
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
                    (self.stdin, self.limit) = (None, None);
                    self.stderr.note_end();
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

    fn refuse_terminal(&mut self) {
        if self.deadline.is_none() {
            report(self.worker, Report::WantsTerminal);
        }
        self.end(GRACE);
    }

    /// Tells the command and all that it has started to end within this time.
    fn end(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        let is_told = self.deadline.is_some();
        // The shorter time counts.
        self.deadline = self.deadline.into_iter().chain([deadline]).min();
        if is_told {
            return;
        }
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
            let _ = if group == self.command {
                kill_process_group(group, signal)
            } else {
                kill_process(self.command, signal)
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
            Report::OverTime,
            Report::Stderr(2048),
            Report::Stays,
            Report::Ended(0x0100),
            Report::Ended(-1),
        ];
        for report in reports {
            assert_eq!(Report::decode(report.encode()), Some(report));
        }
        assert_eq!(Report::decode([0; Report::BYTES]), None);
    }
}
