//! Signals: the first SIGINT or SIGTERM stops the server gracefully, the second ends it at once;
//! SIGHUP makes it reload its files, and never stops it; a file that grows over a limit
//! is an error of the write, not the end of the process.

use std::io;
use std::process;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::low_level::emulate_default_handler;

use crate::daemon::Handle;
use crate::error::StartError;
use crate::lock;
use crate::service_manager;
use crate::standby::Standby;
use crate::threads::spawn;

/// The exit code when a second signal cuts the shutdown short.
const EXIT_CUT_SHORT: i32 = 2;

/// The exit code of a server that is stopped while it stands by.
const EXIT_STANDING_BY: i32 = 0;

/// The signals of a process that is, or becomes, a server.
pub(crate) struct Signals(Arc<Mutex<State>>);

/// What the signals are for.
#[derive(Default)]
struct State {
    server: Option<Arc<Server>>,
    /// Whether SIGHUP came before there was a server.
    is_hung_up: bool,
}

struct Server {
    handle: Handle,
    reload: Box<dyn Fn() + Send + Sync>,
}

impl Signals {
    /// Handles signals from now on. To be called once a process, before a file is written or a port
    /// listened on. Until there is a server ([`Signals::serve`]), SIGHUP waits for it, and SIGINT and
    /// SIGTERM end the process: with exit code 0 if it stands by, else as if they were not handled.
    ///
    /// With SIGXFSZ handled, a write that would make a file grow over its limit fails with EFBIG
    /// (setrlimit(2)).
    ///
    /// # Errors
    /// If the handlers cannot be set.
    pub(crate) fn handle(standby: Standby) -> Result<Self, StartError> {
        let state = Arc::new(Mutex::new(State::default()));
        let signalled = Arc::clone(&state);
        let set = || -> io::Result<()> {
            let unread = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(SIGXFSZ, unread)?;
            let signals = [SIGINT, SIGTERM, SIGHUP];
            let mut signals = signal_hook::iterator::Signals::new(signals)?;
            spawn("signals".to_owned(), move || {
                let mut is_stopped = false;
                for signal in signals.forever() {
                    if signal == SIGHUP {
                        hang_up(&signalled);
                    } else {
                        let server = lock(&signalled).server.clone();
                        stop(signal, server.as_deref(), &standby, &mut is_stopped);
                    }
                }
            })?;
            Ok(())
        };
        set().map_err(StartError::Signals)?;
        Ok(Self(state))
    }

    /// From now on, SIGINT or SIGTERM stops the server behind `handle`, and SIGHUP calls `reload`,
    /// from the thread that waits for signals; if there was one before, `reload` is called here.
    pub(crate) fn serve(self, handle: Handle, reload: Box<dyn Fn() + Send + Sync>) {
        let server = Arc::new(Server { handle, reload });
        let mut state = lock(&self.0);
        state.server = Some(Arc::clone(&server));
        let was_hung_up = std::mem::take(&mut state.is_hung_up);
        drop(state);
        if was_hung_up {
            (server.reload)();
        }
    }
}

/// SIGHUP.
fn hang_up(state: &Mutex<State>) {
    let mut state = lock(state);
    match state.server.clone() {
        Some(server) => {
            drop(state);
            service_manager::reloading(&server.reload);
        }
        // The server may open its files before it is attached here, so it reloads then.
        None => state.is_hung_up = true,
    }
}

/// SIGINT or SIGTERM; `is_stopped` says whether there was one before.
fn stop(signal: i32, server: Option<&Server>, standby: &Standby, is_stopped: &mut bool) {
    let Some(server) = server else {
        if standby.has_begun() {
            log::info!("Shutting down server");
            log::logger().flush();
            process::exit(EXIT_STANDING_BY);
        }
        // This ends the process.
        let _ = emulate_default_handler(signal);
        process::exit(EXIT_CUT_SHORT);
    };
    server.handle.stop();
    if std::mem::replace(is_stopped, true) {
        log::warn!("Ended by a second signal, with requests unfinished");
        log::logger().flush();
        process::exit(EXIT_CUT_SHORT);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use cli::ServerOptions;

    use super::*;
    use crate::Daemon;

    #[test]
    fn a_hang_up_before_there_is_a_server_is_not_forgotten() {
        let signals = Signals(Arc::default());
        let state = Arc::clone(&signals.0);
        let reloads = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&reloads);
        hang_up(&state);
        hang_up(&state);
        let handle = Daemon::new(ServerOptions::new(1), 1, "").unwrap().handle();
        let reload = move || {
            counted.fetch_add(1, Ordering::SeqCst);
        };
        signals.serve(handle, Box::new(reload));
        assert_eq!(reloads.load(Ordering::SeqCst), 1);
        hang_up(&state);
        assert_eq!(reloads.load(Ordering::SeqCst), 2);
    }
}
