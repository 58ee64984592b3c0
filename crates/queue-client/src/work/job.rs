//! The life of a command, as its worker sees it: the worker starts a guardian, sends it the message,
//! and reads its reports until the command has ended.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

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

/// Runs the command with the message on its standard input.
///
/// # Errors
/// If it was never run.
pub(super) fn run(
    work: &Work,
    queue: &str,
    message: &Received,
    member: &Member,
) -> io::Result<ExitStatus> {
    let (worker, guardian) = UnixStream::pair()?;
    // This end of the socket is dropped when the guardian has started: only that must hold it.
    let mut child = lookup::this_program()?
        .arg(guardian::ARG)
        .arg(&work.command)
        .args(&work.args)
        .env("QUEUE_NAME", queue)
        .env("QUEUE_MESSAGE_ID", message.id.to_string())
        .env("QUEUE_ATTEMPT", message.attempt.to_string())
        // A command must not speak for the worker to its service manager (sd_notify(3)).
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::from(OwnedFd::from(guardian)))
        .process_group(0)
        .spawn()?;
    let worker = Arc::new(worker);
    member.set(Activity::Running(Some(Arc::clone(&worker))));
    let ended = talk(&worker, message, member.pool);
    member.set(Activity::Running(None));
    if !matches!(ended, Ok(Some(_))) {
        // The guardian has ended too early, by SIGKILL perhaps. What it has guarded must not outlive
        // it. It was not waited for yet, so the group's number is still its own.
        end_group(&child);
    }
    let guardian_status = child.wait()?;
    match ended? {
        Some(status) => Ok(status),
        None if guardian_status.code().is_some() => {
            Err(io::Error::other("its guardian could not start"))
        }
        None => Ok(guardian_status),
    }
}

/// Sends the message, and reads the reports. `None` if the guardian ends without the last one.
fn talk(
    mut worker: &UnixStream,
    message: &Received,
    pool: &Pool,
) -> io::Result<Option<ExitStatus>> {
    let header = guardian::header(&message.body);
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
            Some(Report::Ended(status)) => return Ok(Some(ExitStatus::from_raw(status))),
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
    Ok(None)
}

fn end_group(guardian: &Child) {
    // The group may be empty.
    let _ = kill_process_group(Pid::from_child(guardian), Signal::KILL);
}

/// Whether a command was ended by a signal that stops things, or its exit code says so as a shell's.
pub(super) fn was_stopped(status: ExitStatus) -> bool {
    let shell_signal = status.code().map(|code| code - SHELL_SIGNALS);
    let signal = status.signal().or(shell_signal);
    signal.is_some_and(|signal| [SIGHUP, SIGINT, SIGTERM].contains(&signal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stopped_is_told_from_what_failed() {
        for raw in [1, 2, 15, 129 << 8, 130 << 8, 143 << 8] {
            assert!(was_stopped(ExitStatus::from_raw(raw)), "{raw}");
        }
        for raw in [0, 9, 11, 1 << 8, 2 << 8, 15 << 8, 128 << 8, 137 << 8] {
            assert!(!was_stopped(ExitStatus::from_raw(raw)), "{raw}");
        }
    }
}
