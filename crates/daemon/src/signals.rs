//! Signals: the first SIGINT or SIGTERM stops the server gracefully, the second ends it at once; a
//! file that grows over a limit is an error of the write, not the end of the process.

use std::io;
use std::process;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::{Handle, StartError, spawn};

/// The exit code when a second signal cuts the shutdown short.
const EXIT_CUT_SHORT: i32 = 2;

/// Stops the server behind `handle` on SIGINT, SIGTERM or SIGHUP, and keeps SIGXFSZ from ending
/// the process: with it handled, the write fails with EFBIG (setrlimit(2)). To be called once a
/// process.
///
/// # Errors
/// If the handlers cannot be set.
pub fn handle_signals(handle: Handle) -> Result<(), StartError> {
    let set = || -> io::Result<()> {
        signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        spawn("signals".to_owned(), move || {
            for (earlier, _) in signals.forever().enumerate() {
                handle.stop();
                if earlier > 0 {
                    log::warn!("Ended by a second signal, with requests unfinished");
                    process::exit(EXIT_CUT_SHORT);
                }
            }
        })?;
        Ok(())
    };
    set().map_err(StartError::Signals)
}
