//! A worker that is process 1 of a container. There it becomes the parent of every orphan, and must
//! wait for each of them, or they stay as zombies. The worker itself cannot, because it would take the
//! exit statuses of its commands away from their threads. So it becomes a child, and process 1 does
//! nothing but wait and pass signals on.

use std::convert::Infallible;
use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::process;
use std::thread;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use super::lookup;

/// The signals that are passed on to the worker.
const PASSED_ON: [i32; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// What is added to the number of the signal that has ended the worker, as shells do.
const SIGNAL_EXIT: i32 = 128;

/// Whether this is process 1.
pub(super) fn is_needed() -> bool {
    process::id() == 1
}

/// Starts the worker, waits for every child that ends, and ends as the worker did.
///
/// # Errors
/// If it cannot be started or waited for.
pub(super) fn run() -> io::Result<Infallible> {
    let mut signals = Signals::new(PASSED_ON)?;
    // In a group of its own, so that Ctrl-C reaches it once: from here.
    let worker = lookup::this_program()?
        .args(env::args_os().skip(1))
        .process_group(0)
        .spawn()?;
    let worker = Pid::from_child(&worker);
    // The thread ends with the process.
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever().filter_map(Signal::from_named_raw) {
                // The worker may have ended.
                let _ = kill_process(worker, signal);
            }
        })?;
    loop {
        let (pid, status) = match wait(WaitOptions::empty()) {
            Ok(Some(ended)) => ended,
            Ok(None) | Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        if pid != worker {
            continue;
        }
        let killed = status
            .terminating_signal()
            .map(|signal| SIGNAL_EXIT + signal);
        if let Some(code) = status.exit_status().or(killed) {
            process::exit(code);
        }
    }
}
