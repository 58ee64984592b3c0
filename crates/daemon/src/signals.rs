//! Signals: the first SIGINT or SIGTERM stops the server gracefully, the second ends it at once;
//! SIGHUP has it read and open again what it can, and never stops it; a file that grows over a limit
//! is an error of the write, not the end of the process.

use std::io;
use std::process;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::low_level::emulate_default_handler;

use crate::threads::spawn;
use crate::{Handle, StartError};

/// The exit code when a second signal cuts the shutdown short.
const EXIT_CUT_SHORT: i32 = 2;

/// The signals of a process that is, or becomes, a server.
pub struct Signals(Arc<OnceLock<Server>>);

/// What the signals are for.
struct Server {
    handle: Handle,
    reload: Box<dyn Fn() + Send + Sync>,
}

impl Signals {
    /// Handles signals from now on. To be called once a process, before a file is written or a port
    /// listened on. Until there is a server ([`Signals::serve`]), SIGHUP does nothing, and SIGINT and
    /// SIGTERM end the process as if they were not handled.
    ///
    /// With SIGXFSZ handled, a write that would make a file grow over its limit fails with EFBIG
    /// (setrlimit(2)).
    ///
    /// # Errors
    /// If the handlers cannot be set.
    pub fn handle() -> Result<Self, StartError> {
        let server = Arc::new(OnceLock::new());
        let served = Arc::clone(&server);
        let set = || -> io::Result<()> {
            let unread = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(SIGXFSZ, unread)?;
            let signals = [SIGINT, SIGTERM, SIGHUP];
            let mut signals = signal_hook::iterator::Signals::new(signals)?;
            spawn("signals".to_owned(), move || {
                let mut is_stopped = false;
                for signal in signals.forever() {
                    if signal == SIGHUP {
                        reload(served.get());
                    } else {
                        stop(signal, served.get(), &mut is_stopped);
                    }
                }
            })?;
            Ok(())
        };
        set().map_err(StartError::Signals)?;
        Ok(Self(server))
    }

    /// From now on, SIGINT or SIGTERM stops the server behind `handle`, and SIGHUP calls `reload`,
    /// from the thread that waits for signals.
    pub fn serve(self, handle: Handle, reload: impl Fn() + Send + Sync + 'static) {
        let reload = Box::new(reload);
        // `self` is gone afterwards, so this is the first time.
        let _ = self.0.set(Server { handle, reload });
    }
}

/// SIGHUP.
fn reload(server: Option<&Server>) {
    if let Some(server) = server {
        (server.reload)();
    }
}

/// SIGINT or SIGTERM; `is_stopped` says whether there was one before.
fn stop(signal: i32, server: Option<&Server>, is_stopped: &mut bool) {
    let Some(server) = server else {
        // It does not come back from there.
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
