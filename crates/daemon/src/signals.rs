//! Signals: the first SIGINT or SIGTERM stops the server gracefully, the second ends it at once;
//! SIGHUP has it read and open again what it can, and never stops it; a file that grows over a limit
//! is an error of the write, not the end of the process.

use std::io;
use std::process;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::{Handle, StartError, spawn};

/// The exit code when a second signal cuts the shutdown short.
const EXIT_CUT_SHORT: i32 = 2;

/// Keeps SIGXFSZ from ending the process: with it handled, a write that would make a file grow over
/// its limit fails with EFBIG (setrlimit(2)). To be called before the first file is written.
///
/// # Errors
/// If the handler cannot be set.
pub fn handle_file_size_limit() -> Result<(), StartError> {
    let unread = Arc::new(AtomicBool::new(false));
    let set = signal_hook::flag::register(SIGXFSZ, unread);
    set.map(drop).map_err(StartError::Signals)
}

/// Stops the server behind `handle` on SIGINT or SIGTERM, and calls `reload` on SIGHUP, from the
/// thread that waits for signals. To be called once a process.
///
/// # Errors
/// If the handlers cannot be set.
pub fn handle_signals(
    handle: Handle,
    reload: impl Fn() + Send + 'static,
) -> Result<(), StartError> {
    let set = || -> io::Result<()> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        spawn("signals".to_owned(), move || {
            let mut is_stopped = false;
            for signal in signals.forever() {
                if signal == SIGHUP {
                    reload();
                    continue;
                }
                handle.stop();
                if std::mem::replace(&mut is_stopped, true) {
                    log::warn!("Ended by a second signal, with requests unfinished");
                    process::exit(EXIT_CUT_SHORT);
                }
            }
        })?;
        Ok(())
    };
    set().map_err(StartError::Signals)
}
