//! What a service manager is told: that the server is ready, that it reloads, that it stops.
//!
//! The service manager names a socket in `NOTIFY_SOCKET`, and each notification is one datagram to it
//! (sd_notify(3)). Without that variable nobody asked, and nothing is sent. A server runs without
//! being heard, so a failure is a warning. The package `sd-notify` is not used: it cannot reach an
//! abstract socket, and the rest of it is a write.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Mutex;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::lock;

/// What a service manager calls the socket.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// How long it waits for a service manager that has no room for what has to be said: that the server is ready, that it
/// stops.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a service manager shows of a server. Its lock is held until the manager has been told, so that two threads
/// cannot tell it in the wrong order.
pub(crate) struct Status {
    manager: Option<OsString>,
    line: Mutex<Line>,
}

struct Line {
    /// What the server does.
    what: &'static str,
    /// Where, from the moment that it is ready to the moment that it stops.
    addresses: Option<String>,
}

impl Status {
    /// What this process's service manager shows.
    pub(crate) fn new() -> Self {
        Self::at(manager())
    }

    fn at(manager: Option<OsString>) -> Self {
        let line = Line {
            what: "Serving",
            addresses: None,
        };
        Self {
            manager,
            line: Mutex::new(line),
        }
    }

    fn notify(&self, state: &str) {
        notify(self.manager.as_deref(), state, Some(PATIENCE));
    }

    /// The server listens at these addresses.
    pub(crate) fn ready(&self, addresses: impl Iterator<Item = impl Display>) {
        let mut addresses: Vec<_> = addresses.map(|address| address.to_string()).collect();
        // The same port over TCP and UDP is one.
        addresses.dedup();
        let addresses = addresses.join(", ");
        let mut line = lock(&self.line);
        self.notify(&format!("READY=1\nSTATUS={} on {addresses}\n", line.what));
        line.addresses = Some(addresses);
    }

    /// The server does this now; said when it is ready if it is not yet. Who says so may have others that wait for it,
    /// so a service manager that has no room is not told.
    pub(crate) fn set(&self, what: &'static str) {
        let mut line = lock(&self.line);
        line.what = what;
        if let Some(addresses) = &line.addresses {
            let state = format!("STATUS={what} on {addresses}\n");
            notify(self.manager.as_deref(), &state, None);
        }
    }

    /// The server accepts no more, and waits for the requests in flight.
    pub(crate) fn stopping(&self) {
        let mut line = lock(&self.line);
        self.notify("STOPPING=1\nSTATUS=Finishing the requests in flight\n");
        line.addresses = None;
    }
}

/// The server is started, and waits until another one ends.
pub(crate) fn standing_by() {
    let state = "READY=1\nSTATUS=Standing by until another server ends\n";
    notify(manager().as_deref(), state, Some(PATIENCE));
}

/// Calls `reload`, and says before and after that the server reads its files again.
pub(crate) fn reloading(reload: impl FnOnce()) {
    // What the manager tells this reload from an earlier one by.
    let now = clock_gettime(ClockId::Monotonic);
    let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
    let manager = manager();
    let notify = |state: &str| notify(manager.as_deref(), state, Some(PATIENCE));
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\n"));
    reload();
    notify("READY=1\n");
}

/// The name of the service manager's socket, if there is one.
fn manager() -> Option<OsString> {
    env::var_os(NOTIFY_SOCKET).filter(|name| !name.is_empty())
}

fn notify(manager: Option<&OsStr>, state: &str, patience: Option<Duration>) {
    let Some(name) = manager else { return };
    if let Err(error) = send(name, state, patience) {
        log::warn!("cannot notify the service manager at {name:?} ({NOTIFY_SOCKET}): {error}");
    }
}

/// Sends a datagram to the socket at a path, or to the abstract one (unix(7)) behind an `@`. Without patience it waits for
/// nobody.
fn send(name: &OsStr, state: &str, patience: Option<Duration>) -> io::Result<()> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(patience)?;
    socket.set_nonblocking(patience.is_none())?;
    socket.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_what_the_server_does_at_the_moment_while_it_serves() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manager");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let heard = || {
            let mut state = [0; 1000];
            let bytes = manager.recv(&mut state).ok()?;
            Some(String::from_utf8(state[..bytes].to_vec()).unwrap())
        };
        let status = Status::at(Some(path.into()));
        status.set("Standing by");
        assert_eq!(heard(), None);
        status.ready(["127.0.0.1:1", "127.0.0.1:1", "[::1]:1"].into_iter());
        let ready = "READY=1\nSTATUS=Standing by on 127.0.0.1:1, [::1]:1\n";
        assert_eq!(heard().as_deref(), Some(ready));
        status.set("Active");
        let active = "STATUS=Active on 127.0.0.1:1, [::1]:1\n";
        assert_eq!(heard().as_deref(), Some(active));
        status.stopping();
        assert!(heard().is_some_and(|state| state.starts_with("STOPPING=1\n")));
        status.set("Standing by");
        assert_eq!(heard(), None);
    }
}
