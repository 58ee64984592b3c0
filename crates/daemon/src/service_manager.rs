//! What a service manager is told: that the server is ready, that it reloads, that it stops.
//!
//! The service manager names a socket in `NOTIFY_SOCKET`, and each notification is one datagram to it
//! (sd_notify(3)). Without that variable nobody asked, and nothing is sent. A server runs without
//! being heard, so a failure is a warning. The package `sd-notify` is not used: it cannot reach an
//! abstract socket, and the rest of it is a write.

use std::env;
use std::ffi::OsStr;
use std::fmt::Display;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What a service manager calls the socket.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// How long a notification waits for a service manager that has no room for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The server listens at these addresses, and serves.
pub(crate) fn ready(addresses: impl Iterator<Item = impl Display>) {
    let mut addresses: Vec<_> = addresses.map(|address| address.to_string()).collect();
    // The same port over TCP and UDP is one.
    addresses.dedup();
    let addresses = addresses.join(", ");
    notify(&format!("READY=1\nSTATUS=Serving on {addresses}\n"));
}

/// The server accepts no more, and waits for the requests in flight.
pub(crate) fn stopping() {
    notify("STOPPING=1\nSTATUS=Finishing the requests in flight\n");
}

/// Calls `reload`, and says before and after that the server reads its files again.
pub(crate) fn reloading(reload: impl FnOnce()) {
    // What the manager tells this reload from an earlier one by.
    let now = clock_gettime(ClockId::Monotonic);
    let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\n"));
    reload();
    notify("READY=1\n");
}

fn notify(state: &str) {
    let Some(name) = env::var_os(NOTIFY_SOCKET).filter(|name| !name.is_empty()) else {
        return;
    };
    if let Err(error) = send(&name, state) {
        log::warn!("cannot notify the service manager at {name:?} ({NOTIFY_SOCKET}): {error}");
    }
}

/// Sends a datagram to the socket at a path, or to the abstract one (unix(7)) behind an `@`.
fn send(name: &OsStr, state: &str) -> io::Result<()> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}
