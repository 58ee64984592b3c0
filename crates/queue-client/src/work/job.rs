//! The life of a command, as its worker sees it: the worker starts a guardian, sends it the message,
//! and reads its reports until the command has ended.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use proto::queue::REASON_BYTES_MAX;
use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::guardian::{self, Report};
use super::pool::{Activity, Member, Pool};
use super::{Work, lookup};
use crate::Received;

/// How much later than its command a worker may be signalled: a service manager signals every process
/// of a service, one after the other.
pub(super) const SIGNALS_APART: Duration = Duration::from_millis(200);

/// What a shell adds to the number of the signal that has ended its command.
const SHELL_SIGNALS: i32 = 128;

/// How a command has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// The time limit, if that is why it has ended.
    over_time: Option<Duration>,
    /// The end of its standard error.
    stderr: Vec<u8>,
}

/// What a guardian has told.
#[derive(Default)]
struct Told {
    /// `None` if it has ended too early.
    status: Option<ExitStatus>,
    is_over_time: bool,
    stderr: Vec<u8>,
    stays: bool,
}

/// Runs the command with the message on its standard input.
///
/// # Errors
/// If it was never run.
pub(super) fn run(work: &Work, message: &Received, member: &Member) -> io::Result<Ended> {
    let (worker, guardian) = UnixStream::pair()?;
    // This end of the socket is dropped when the guardian has started: only that must hold it.
    let mut child = lookup::this_program()?
        .arg(guardian::ARG)
        .arg(&work.command)
        .args(&work.args)
        .env("QUEUE_NAME", &message.queue)
        .env("QUEUE_MESSAGE_ID", message.id.to_string())
        .env("QUEUE_ATTEMPT", message.attempt.to_string())
        // A command must not speak for the worker to its service manager (sd_notify(3)).
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::from(OwnedFd::from(guardian)))
        .process_group(0)
        .spawn()?;
    let worker = Arc::new(worker);
    member.set(Activity::Running(Some(Arc::clone(&worker))));
    let told = talk(&worker, work.time_limit, message, member.pool);
    member.set(Activity::Running(None));
    if !matches!(
        told,
        Ok(Told {
            status: Some(_),
            ..
        })
    ) {
        // The guardian has ended too early, by SIGKILL perhaps. What it has guarded must not outlive
        // it. It was not waited for yet, so the group's number is still its own.
        end_group(&child);
    }
    let told = match told {
        Ok(told) => told,
        Err(error) => {
            child.wait()?;
            return Err(error);
        }
    };
    let status = match told.status {
        Some(status) if told.stays => {
            member.pool.leave(child);
            status
        }
        Some(status) => {
            child.wait()?;
            status
        }
        None => {
            let guardian_status = child.wait()?;
            if guardian_status.code().is_some() {
                return Err(io::Error::other("its guardian could not start"));
            }
            guardian_status
        }
    };
    Ok(Ended {
        status,
        over_time: work.time_limit.filter(|_| told.is_over_time),
        stderr: told.stderr,
    })
}

/// Sends the message, and reads the reports.
fn talk(
    mut worker: &UnixStream,
    time_limit: Option<Duration>,
    message: &Received,
    pool: &Pool,
) -> io::Result<Told> {
    let mut told = Told::default();
    let header = guardian::header(&message.body, time_limit);
    let handed_over = worker
        .write_all(&header)
        .and_then(|()| worker.write_all(&message.body));
    if let Err(error) = handed_over {
        log::debug!("The guardian of message {} is gone: {error}", message.id);
    }
    let mut report = [0; Report::BYTES];
    while worker.read_exact(&mut report).is_ok() {
        match Report::decode(report) {
            Some(Report::NotStarted(errno)) => return Err(io::Error::from_raw_os_error(errno)),
            Some(Report::Ended(status)) => {
                told.status = Some(ExitStatus::from_raw(status));
                return Ok(told);
            }
            Some(Report::OverTime) => told.is_over_time = true,
            Some(Report::Stays) => told.stays = true,
            Some(Report::Stderr(bytes)) => {
                let bytes = usize::try_from(bytes).unwrap_or(0).min(REASON_BYTES_MAX);
                told.stderr.resize(bytes, 0);
                if worker.read_exact(&mut told.stderr).is_err() {
                    break;
                }
            }
            Some(Report::WantsTerminal) => log::warn!(
                "The command of message {} is ended because it wanted the terminal",
                message.id
            ),
            Some(Report::Signalled(signal)) => {
                pool.pause(SIGNALS_APART);
                // If the worker was signalled too, so was the command.
                if !pool.is_stopping()
                    && let Ok(signal) = u8::try_from(signal)
                    && let Err(error) = worker.write_all(&[signal])
                {
                    log::debug!("The guardian of message {} is gone: {error}", message.id);
                }
            }
            None => break,
        }
    }
    Ok(told)
}

fn end_group(guardian: &Child) {
    // The group may be empty.
    let _ = kill_process_group(Pid::from_child(guardian), Signal::KILL);
}

impl Ended {
    /// Whether it was ended by a signal that stops things, or its exit code says so as a shell's.
    pub(super) fn was_stopped(&self) -> bool {
        let shell_signal = self.status.code().map(|code| code - SHELL_SIGNALS);
        let signal = self.status.signal().or(shell_signal);
        self.over_time.is_none()
            && signal.is_some_and(|signal| [SIGHUP, SIGINT, SIGTERM].contains(&signal))
    }

    /// Whether it has exceeded its time limit. Then it has failed, whatever it says.
    pub(super) fn is_over_time(&self) -> bool {
        self.over_time.is_some()
    }

    /// Its exit code, if it has ended by itself.
    pub(super) fn code(&self) -> Option<u8> {
        let code = self.status.code().filter(|_| self.over_time.is_none());
        code.and_then(|code| u8::try_from(code).ok())
    }

    /// Why it has failed: how it has ended, and what it has said last.
    pub(super) fn reason(&self) -> String {
        let mut reason = self.to_string();
        let said = String::from_utf8_lossy(&self.stderr);
        let said = said.trim();
        if said.is_empty() {
            return reason;
        }
        reason.push_str(": ");
        let room = REASON_BYTES_MAX - reason.len();
        let mut from = said.len().saturating_sub(room);
        while !said.is_char_boundary(from) {
            from += 1;
        }
        reason.push_str(&said[from..]);
        reason
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status;
        match self.over_time {
            Some(limit) => write!(
                f,
                "{status}, over the time limit of {} s",
                limit.as_secs_f64()
            ),
            None => write!(f, "{status}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(raw: i32, stderr: &[u8]) -> Ended {
        Ended {
            status: ExitStatus::from_raw(raw),
            over_time: None,
            stderr: stderr.to_vec(),
        }
    }

    #[test]
    fn what_was_stopped_is_told_from_what_failed() {
        for raw in [1, 2, 15, 129 << 8, 130 << 8, 143 << 8] {
            assert!(ended(raw, b"").was_stopped(), "{raw}");
            let over_time = Some(Duration::from_secs(1));
            let ended = Ended {
                over_time,
                ..ended(raw, b"")
            };
            assert!(!ended.was_stopped() && ended.code().is_none(), "{raw}");
        }
        for raw in [0, 9, 11, 1 << 8, 2 << 8, 15 << 8, 128 << 8, 137 << 8] {
            assert!(!ended(raw, b"").was_stopped(), "{raw}");
        }
    }

    #[test]
    fn a_reason_is_how_it_ended_and_what_it_said_last() {
        let reason = |stderr: &[u8]| ended(3 << 8, stderr).reason();
        assert_eq!(reason(b""), "exit status: 3");
        assert_eq!(
            reason(b" no such\nfile\n\n"),
            "exit status: 3: no such\nfile"
        );
        // Each byte that is no UTF-8 takes three, and characters are not cut.
        let noise = [&[0xff; 1023][..], "ä".repeat(512).as_bytes()].concat();
        let reason = reason(&noise);
        assert!((2045..=2048).contains(&reason.len()), "{}", reason.len());
        assert!(reason.starts_with("exit status: 3: \u{fffd}") && reason.ends_with('ä'));
        let over_time = Ended {
            over_time: Some(Duration::from_millis(1500)),
            ..ended(15, b"")
        };
        let want = "signal: 15 (SIGTERM), over the time limit of 1.5 s";
        assert_eq!(over_time.reason(), want);
    }
}
