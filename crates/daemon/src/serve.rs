//! The life of a server's process.

use crate::daemon::{Daemon, Handle};
use crate::error::StartError;
use crate::signals::Signals;
use crate::standby::Standby;

/// A server that listens, and serves when it is run.
pub trait Serve: Sized {
    /// Why it cannot start, or cannot continue.
    type Error: From<StartError>;

    /// What it listens with.
    fn daemon(&self) -> &Daemon;

    /// What SIGHUP calls, behind the front door's own: it reads and opens again what can be. `None` if
    /// there is nothing.
    fn reload(&self) -> Option<Box<dyn Fn() + Send + Sync>> {
        None
    }

    /// Serves until it is stopped.
    ///
    /// # Errors
    /// If it cannot start its threads, or cannot continue.
    fn run(self) -> Result<(), Self::Error>;

    /// Stops the server from elsewhere.
    fn handle(&self) -> Handle {
        self.daemon().handle()
    }
}

/// Handles signals, binds a server, and runs it until a signal stops it. `bind` says by [`Standby`] if
/// it has to wait.
///
/// # Errors
/// Those of `bind` and [`Serve::run`], or if signals cannot be handled.
pub fn run<S: Serve>(bind: impl FnOnce(&Standby) -> Result<S, S::Error>) -> Result<(), S::Error> {
    let standby = Standby::default();
    let signals = Signals::handle(standby.clone())?;
    let server = bind(&standby)?;
    let (door, service) = (server.daemon().reload(), server.reload());
    let reload = move || match (door(), &service) {
        (_, Some(reload)) => reload(),
        (true, None) => {}
        (false, None) => log::info!("Nothing to reload"),
    };
    signals.serve(server.handle(), Box::new(reload));
    server.run()
}
