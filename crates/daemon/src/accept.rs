//! Accepting connections, the thread of each, and turning connections away at the limit.

use std::io::Write as _;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, SendFlags, Shutdown};

use crate::connection::Connection;
use crate::metrics::Metrics;
use crate::peer::Peer;
use crate::protocol::Protocols;
use crate::registry::{Registration, Registry};
use crate::socket::Socket;
use crate::threads::spawn;

/// After a failed `accept`, most likely for want of descriptors, the next try waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many connections over the limit get a short-lived thread, which waits for their first byte to
/// answer in their protocol. Any more are answered and closed on the spot.
pub(crate) const TURNED_AWAY_MAX: usize = 64;

/// How long a connection over the limit may take for its first byte.
const FIRST_BYTE_WAIT: Duration = Duration::from_secs(1);

/// A server that closes first reads on, until the peer is silent for this long. Otherwise the peer
/// might never see the reply: closing with unread input makes TCP send a reset, which destroys what was
/// sent, and many clients send everything before they read.
const LINGER_STALL: Duration = Duration::from_secs(2);

/// The longest time that a server reads on for.
const LINGER: Duration = Duration::from_secs(10);

/// A connection that was accepted, and who is at the other end.
pub(crate) type Accepted = (Socket, Peer);

impl Registry {
    /// Accepts until the server stops, and hands on what it has accepted. To accept is quick, but to
    /// start a thread is not. A thread that did both would let the kernel's queue run over in a burst,
    /// and then TCP tries again a second later.
    pub(crate) fn accept_all(&self, listener: &TcpListener, accepted: &SyncSender<Accepted>) {
        let mut failing = false;
        while !self.is_stopping() {
            match listener.accept() {
                Ok(_) if self.is_stopping() => return,
                Ok((socket, peer)) => {
                    failing = false;
                    // The receiving thread ends only when this one has ended.
                    let _ = accepted.send((socket.into(), peer.into()));
                }
                Err(_) if self.is_stopping() => return,
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    if !failing {
                        log::error!("Cannot accept connections, trying on: {error}");
                    }
                    failing = true;
                    self.pause(ACCEPT_PAUSE);
                }
            }
        }
    }

    /// Starts a thread for each accepted connection, until there are no more.
    pub(crate) fn admit_all(
        self: &Arc<Self>,
        accepted: &Receiver<Accepted>,
        protocols: &Arc<Protocols>,
    ) {
        for (socket, peer) in accepted {
            if !self.is_stopping() {
                self.admit(socket, peer, protocols);
            }
        }
    }

    fn admit(self: &Arc<Self>, socket: Socket, peer: Peer, protocols: &Arc<Protocols>) {
        let registration = match self.register(socket, peer) {
            Ok(registration) => registration,
            Err(socket) => return self.turn_away(socket, peer, protocols),
        };
        let entry = Arc::clone(&registration.entry);
        let served = Arc::clone(protocols);
        if let Err(error) = spawn(peer.to_string(), move || serve(registration, served)) {
            log::warn!("Cannot start a thread for {peer}: {error}");
            let reply = protocols.busy_reply(arrived_byte(&entry.socket));
            let _ = entry.socket.send(&reply, SendFlags::DONTWAIT);
        }
    }

    fn turn_away(self: &Arc<Self>, socket: Socket, peer: Peer, protocols: &Arc<Protocols>) {
        log::warn!("Too many connections, turning away {peer}");
        Metrics::count(&self.metrics.refused);
        let guard = TurnedAway(Arc::clone(self));
        if self.turned_away.fetch_add(1, Ordering::Relaxed) >= TURNED_AWAY_MAX {
            let reply = protocols.busy_reply(arrived_byte(&socket));
            let _ = socket.send(&reply, SendFlags::DONTWAIT);
            return;
        }
        let patient = Arc::downgrade(protocols);
        let spawned = spawn(format!("busy {peer}"), move || {
            let _guard = guard;
            let _ = socket.set_read_timeout(Some(FIRST_BYTE_WAIT));
            let first = peek(&socket, RecvFlags::empty());
            // The shutdown does not wait for this thread, so it must not keep the service.
            let Some(protocols) = patient.upgrade() else {
                return;
            };
            let reply = protocols.busy_reply(first);
            drop(protocols);
            if socket.send(&reply, SendFlags::empty()).is_ok() {
                linger(&socket);
            }
        });
        if let Err(error) = spawned {
            log::warn!("Cannot start a thread for {peer}: {error}");
        }
    }
}

/// Dropping it ends the count of one connection that is being turned away.
struct TurnedAway(Arc<Registry>);

impl Drop for TurnedAway {
    fn drop(&mut self) {
        self.0.turned_away.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The whole life of a connection's thread. A panic unwinds through here, takes the connection off the
/// registry, and ends this thread alone.
pub(crate) fn serve(registration: Registration, protocols: Arc<Protocols>) {
    let registration = Arc::new(registration);
    let mut connection = Connection::new(&registration);
    log::debug!("Connected");
    let served = protocols.serve(&mut connection);
    // Before the registration: a shutdown waits for that, and then has the service alone.
    drop(protocols);
    match served.and_then(|()| connection.flush()) {
        Ok(()) => {
            if !connection.peer_has_closed() {
                connection.linger_from_now();
                linger(&registration.entry.socket);
            }
            log::debug!("Closed");
        }
        Err(error) => log::debug!("Lost: {error}"),
    }
}

/// Errors of `accept` that concern one connection and not the listener (accept(2), "Error
/// handling").
fn is_of_the_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::*;
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionReset
            | Interrupted
            | NetworkUnreachable
            | HostUnreachable
            | NetworkDown
            | PermissionDenied
            | TimedOut
    )
}

/// The first byte, if it has arrived.
fn arrived_byte(socket: &Socket) -> Option<u8> {
    peek(socket, RecvFlags::DONTWAIT)
}

fn peek(socket: &Socket, flags: RecvFlags) -> Option<u8> {
    let mut first = [0];
    match socket.receive(&mut first, flags | RecvFlags::PEEK) {
        Ok(1) => Some(first[0]),
        Ok(_) | Err(_) => None,
    }
}

/// Ends our half of the connection and reads on until the peer ends its own.
fn linger(socket: &Socket) {
    let deadline = Instant::now() + LINGER;
    let mut scratch = vec![0; 1 << 16];
    if socket.shutdown(Shutdown::Write).is_err()
        || socket.set_read_timeout(Some(LINGER_STALL)).is_err()
    {
        return;
    }
    while Instant::now() < deadline {
        if let Ok(0) | Err(_) = socket.receive(&mut scratch, RecvFlags::empty()) {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
