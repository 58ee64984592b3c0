//! Accepting connections, the thread of each, and turning connections away at the limit.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use cli::Socket;
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use rustls::ServerConfig;

use crate::connection::Connection;
use crate::listener::{Accepted, Listener};
use crate::metrics::Metrics;
use crate::peer::Peer;
use crate::protocol::{Protocols, START_BYTES, TLS_HANDSHAKE, Unserved};
use crate::registry::{Registration, Registry, Surplus};
use crate::stream::{evicted, retry};
use crate::switch::Switch;
use crate::threads::spawn;
use crate::tls::Tls;
use crate::tls_session::TlsSession;

/// After a failed `accept`, most likely for want of descriptors, the next try waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a connection over the limit waits for a place, if its source has less than its share. At
/// this moment all others may be worked on.
const PLACE_WAIT: Duration = Duration::from_secs(1);

/// How long a connection over the limit may take for its first byte, the TLS handshake before it
/// included.
const FIRST_BYTE_WAIT: Duration = Duration::from_secs(1);

/// A server that closes first reads on, until the peer is silent for this long. Otherwise the peer
/// might never see the reply: closing with unread input makes TCP send a reset, which destroys what was
/// sent, and many clients send everything before they read.
const LINGER_STALL: Duration = Duration::from_secs(2);

/// The longest time that a server reads on for.
const LINGER: Duration = Duration::from_secs(10);

impl Registry {
    /// Accepts until the server stops, and hands on what it has accepted. To accept is quick, but to
    /// start a thread is not. A thread that did both would let the kernel's queue run over in a burst,
    /// and then TCP tries again a second later.
    pub(crate) fn accept_all(&self, listener: &Listener, accepted: &SyncSender<Accepted>) {
        let mut failing = false;
        while !self.is_stopping() {
            match listener.accept() {
                // It is served even if the server stops now: no other server can accept it any more.
                Ok(Some(connection)) => {
                    failing = false;
                    // The receiving thread ends only when this one has ended.
                    let _ = accepted.send(connection);
                }
                Ok(None) => {}
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
    pub(crate) fn admit_all(self: &Arc<Self>, accepted: &Receiver<Accepted>, switch: &Switch) {
        for (socket, peer) in accepted {
            self.admit(socket, peer, switch);
        }
    }

    fn admit(self: &Arc<Self>, socket: Socket, peer: Peer, switch: &Switch) {
        match self.register(socket, peer) {
            Ok(registration) => {
                let entry = Arc::clone(&registration.entry);
                // Not before it is registered: see `switch`.
                let protocols = switch.current();
                if !start(peer, move || serve(registration, protocols)) {
                    self.refuse_at_once(&entry.socket, peer, &switch.current());
                }
            }
            Err(Surplus { socket, may_wait }) if may_wait => {
                self.wait_for_place(socket, peer, switch);
            }
            Err(Surplus { socket, .. }) => self.turn_away(socket, peer, switch.while_kept()),
        }
    }

    /// A short-lived thread waits for a place, and serves the connection when it has one.
    fn wait_for_place(self: &Arc<Self>, socket: Socket, peer: Peer, switch: &Switch) {
        let current = switch.while_kept();
        let Some(permit) = self.waiting_for_place.acquire(peer.into()) else {
            return self.turn_away(socket, peer, current);
        };
        let registry = Arc::clone(self);
        start(peer, move || {
            let registered = registry.register_within(socket, peer, PLACE_WAIT);
            drop(permit);
            match (registered, current()) {
                (_, None) => {}
                (Ok(registration), Some(protocols)) => serve(registration, protocols),
                (Err(socket), Some(_)) => registry.turn_away(socket, peer, current),
            }
        });
    }

    /// A short-lived thread says that there is no place.
    fn turn_away(
        self: &Arc<Self>,
        socket: Socket,
        peer: Peer,
        current: impl Fn() -> Option<Arc<Protocols>> + Send + 'static,
    ) {
        log::warn!("Too many connections, turning away {peer}");
        Metrics::count(&self.metrics.refused);
        let Some(permit) = self.turned_away.acquire(peer.into()) else {
            if let Some(protocols) = current() {
                self.refuse_at_once(&socket, peer, &protocols);
            }
            return;
        };
        let settings = self.tls(peer).map(|tls| tls.settings());
        start(peer, move || {
            let _permit = permit;
            let refusal = |start: &[u8], why| match current() {
                Some(protocols) => protocols.refusal(start, why),
                None => Vec::new(),
            };
            if refuse(&socket, settings, refusal).is_ok() {
                linger(&socket);
            }
        });
    }

    /// Answers as far as that needs no wait. There is no time for a handshake.
    fn refuse_at_once(&self, socket: &Socket, peer: Peer, protocols: &Protocols) {
        let start = peek(socket, RecvFlags::DONTWAIT);
        let why = match (self.tls(peer), start.first()) {
            (None, _) => Unserved::Busy,
            (Some(_), None | Some(&TLS_HANDSHAKE)) => return,
            (Some(_), Some(_)) => Unserved::Unencrypted,
        };
        let _ = socket.send(&protocols.refusal(&start, why), SendFlags::DONTWAIT);
    }
}

/// Starts the thread of a connection; returns whether that was possible.
fn start(peer: Peer, run: impl FnOnce() + Send + 'static) -> bool {
    let spawned = spawn(peer.to_string(), run);
    if let Err(error) = &spawned {
        log::warn!("Cannot start a thread for {peer}: {error}");
    }
    spawned.is_ok()
}

/// Answers a connection over the limit in its protocol, which may take [`FIRST_BYTE_WAIT`] to show. It
/// has to be encrypted if there are settings of TLS.
fn refuse(
    socket: &Socket,
    settings: Option<Arc<ServerConfig>>,
    refusal: impl Fn(&[u8], Unserved) -> Vec<u8>,
) -> io::Result<()> {
    let deadline = Instant::now() + FIRST_BYTE_WAIT;
    let set_timeout = || {
        let left = deadline.saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => socket.set_read_timeout(Some(left)),
        }
    };
    set_timeout()?;
    let start = peek(socket, RecvFlags::empty());
    let settings = match (settings, start.first()) {
        (None, _) => return send_all(socket, &refusal(&start, Unserved::Busy)),
        (Some(settings), Some(&TLS_HANDSHAKE)) => settings,
        (Some(_), Some(_)) => return send_all(socket, &refusal(&start, Unserved::Unencrypted)),
        (Some(_), None) => return Err(io::ErrorKind::TimedOut.into()),
    };
    let mut tls = TlsSession::new(settings)?;
    tls.handshake(|move_bytes| {
        set_timeout()?;
        retry(socket, move_bytes)
    })?;
    let mut start = [0; START_BYTES];
    let mut receive = || {
        while !tls.has_input() {
            set_timeout()?;
            if tls.receive(socket, RecvFlags::empty())? == 0 {
                break;
            }
        }
        tls.read(&mut start)
    };
    // A client that says nothing yet is answered, too.
    let read = receive().ok().flatten().unwrap_or(0);
    tls.encrypt(&refusal(&start[..read], Unserved::Busy))?;
    tls.end();
    while tls.has_unsent() {
        retry(socket, |socket| tls.send(socket, SendFlags::empty()))?;
    }
    Ok(())
}

/// Sends a refusal, for which a new connection has room.
fn send_all(socket: &Socket, refusal: &[u8]) -> io::Result<()> {
    socket.send(refusal, SendFlags::empty()).map(drop)
}

/// The whole life of a connection's thread. A panic unwinds through here, takes the connection off the
/// registry, and ends this thread alone.
pub(crate) fn serve(registration: Registration, protocols: Arc<Protocols>) {
    let registration = Arc::new(registration);
    if !registration.entry.eviction.resume() {
        return log::debug!("Lost: {}", evicted());
    }
    let mut connection = Connection::new(&registration);
    log::debug!("Connected");
    let served = match registration.registry.tls(registration.entry.peer) {
        None => protocols.serve(&mut connection),
        Some(tls) => serve_encrypted(tls, &mut connection, &protocols),
    };
    // Before the registration: a shutdown waits for that, and then has the service alone.
    drop(protocols);
    match served.and_then(|()| connection.end()) {
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

/// Does the handshake first. A client that does not speak TLS is told to.
fn serve_encrypted(
    tls: &Tls,
    connection: &mut Connection,
    protocols: &Protocols,
) -> io::Result<()> {
    let start = connection.peek(START_BYTES)?;
    match start.first() {
        None => return Ok(()),
        Some(&TLS_HANDSHAKE) => {}
        Some(_) => {
            log::debug!("Not encrypted");
            return connection.write_all(&protocols.refusal(&start, Unserved::Unencrypted));
        }
    }
    match connection.encrypt(tls) {
        // It was told why, and reads that only if nothing is left unread when the connection ends.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            log::warn!("The TLS handshake failed: {error}");
            Ok(())
        }
        Err(error) => Err(error),
        Ok(()) => protocols.serve(connection),
    }
}

/// Errors of `accept` that concern one connection and not the listener (accept(2), "Error
/// handling").
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::*;
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

/// How it begins, as far as that has arrived; nothing if nothing arrives.
fn peek(socket: &Socket, flags: RecvFlags) -> Vec<u8> {
    let mut start = vec![0; START_BYTES];
    let peeked = socket.receive(&mut start, flags | RecvFlags::PEEK);
    start.truncate(peeked.unwrap_or(0));
    start
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
