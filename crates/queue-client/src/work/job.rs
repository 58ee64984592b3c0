//! One command's life, as its worker sees it: a guardian is started for it, handed the message, and
//! listened to until it tells how the command has ended.

use std::env;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::guardian::{self, Report};
use super::{Work, lookup};
use crate::Received;
use crate::stop::Stop;

/// This program, also when it was replaced or removed since it was started.
const OURSELVES: &str = "/proc/self/exe";

/// How long a signal that has reached a command or its guardian may reach the worker later: a
/// service manager stops every process of a service at once, but one after the other.
pub(super) const SIGNALS_APART: Duration = Duration::from_millis(200);

/// What a shell adds to the number of a signal that has ended its command.
const SHELL_SIGNALS: i32 = 128;

/// Runs the command with the message on its standard input.
///
/// # Errors
/// If it was never run.
pub(super) fn run(
    work: &Work,
    queue: &str,
    message: &Received,
    stop: &Stop,
) -> io::Result<ExitStatus> {
    let (worker, guardian) = UnixStream::pair()?;
    // Dropped with its end of the socket when it is started: only the guardian is to have that.
    let mut child = Command::new(ourselves()?)
        .arg0(our_name())
        .arg(guardian::ARG)
        .arg(&work.command)
        .args(&work.args)
        .env("QUEUE_NAME", queue)
        .env("QUEUE_MESSAGE_ID", message.id.to_string())
        .env("QUEUE_ATTEMPT", message.attempt.to_string())
        .stdin(Stdio::from(OwnedFd::from(guardian)))
        .process_group(0)
        .spawn()?;
    let worker = Arc::new(worker);
    let running = stop.running(Arc::clone(&worker));
    let ended = talk(&worker, message, stop);
    drop(running);
    if !matches!(ended, Ok(Some(_))) {
        // The guardian is gone before its time: killed, perhaps. What it has guarded must not
        // outlive it. It was not waited for yet, so the group's number is still its own.
        end_group(&child);
    }
    let guardian_status = child.wait()?;
    match ended? {
        Some(status) => Ok(status),
        None if guardian_status.code().is_some() => {
            Err(io::Error::other("its guardian could not begin"))
        }
        None => Ok(guardian_status),
    }
}

/// Hands the message over, and listens. `None` if the guardian went away without a word.
fn talk(
    mut worker: &UnixStream,
    message: &Received,
    stop: &Stop,
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
                "The command of message {} wanted the terminal, which it cannot have, and is ended",
                message.id
            ),
            Some(Report::Signalled(signal)) => {
                stop.pause(SIGNALS_APART);
                // If everybody was told to stop, the command was told by the same.
                if !stop.is_stopping()
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
    // There may be nobody left.
    let _ = kill_process_group(Pid::from_child(guardian), Signal::KILL);
}

/// What we were started as; who is started once more is told the same, so that it can be found again.
pub(super) fn our_name() -> OsString {
    env::args_os().next().unwrap_or_default()
}

/// What to run to be started once more.
pub(super) fn ourselves() -> io::Result<PathBuf> {
    if Path::new(OURSELVES).exists() {
        return Ok(PathBuf::from(OURSELVES));
    }
    // In a folder without /proc, for instance.
    lookup::find(&our_name())
}

/// Whether a command was ended by a signal that stops things, or says so as a shell does.
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
