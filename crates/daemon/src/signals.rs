//! SIGINT and SIGTERM: the first stops the server gracefully, the second ends it at once.

use std::process;

use crate::{Handle, StartError};

/// The exit code when a second signal cuts the shutdown short.
const EXIT_CUT_SHORT: i32 = 2;

/// Stops the server behind `handle` on SIGINT, SIGTERM or SIGHUP. To be called once a process.
///
/// # Errors
/// If the handler cannot be set.
pub fn stop_on_signals(handle: Handle) -> Result<(), StartError> {
    ctrlc::set_handler(move || {
        if !handle.stop() {
            log::warn!("Ended by a second signal, with requests unfinished");
            process::exit(EXIT_CUT_SHORT);
        }
    })
    .map_err(StartError::Signals)
}
