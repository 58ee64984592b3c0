//! Accepting connections, and turning them away when there are too many.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use rustix::net::RecvFlags;

use crate::registry::{Registration, Registry};
use crate::threads::spawn;
use crate::{Connection, DatagramService};

/// After a failed `accept`, most likely for want of descriptors, the next try waits so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A peer that takes nothing of what is written to it for so long is given up.
pub(crate) const WRITE_STALL: Duration = Duration::from_secs(30);

/// How many connections over the limit get a short-lived thread, which waits for their first byte
/// to answer in their dialect. Any more are answered and closed on the spot.
pub(crate) const TURNED_AWAY_MAX: usize = 64;

/// How long a connection over the limit may take for its first byte.
const FIRST_BYTE_WAIT: Duration = Duration::from_secs(1);

/// When the server closes first, it reads on until the peer is silent for so long...
const LINGER_STALL: Duration = Duration::from_secs(2);
/// ...and for so long at the most, so that the peer can read the reply: closing with unread input
/// makes TCP send a reset, which destroys it, and many clients send everything before they read.
const LINGER: Duration = Duration::from_secs(10);

/// How many datagrams are served before the replies that are owed must be given.
const UNSETTLED_MAX: usize = 256;

/// What a server does with its connections.
pub trait Service: Send + Sync + 'static {
    /// The life of one connection. When this returns, what was written is sent and the connection
    /// is closed.
    ///
    /// # Errors
    /// Those of the connection; they are logged for `-v` and end the connection alone.
    fn serve(&self, connection: &mut Connection) -> io::Result<()>;

    /// What to answer a connection over the limit, by the first byte it sent (`None` if it sent
    /// nothing yet).
    fn busy_reply(&self, first_byte: Option<u8>) -> Vec<u8>;
}

/// A connection that was accepted, and who is at the other end.
pub(crate) type Accepted = (TcpStream, SocketAddr);

impl Registry {
    /// Accepts until the server stops, and hands on what it has accepted. To accept is quick, but to
    /// start a thread is not; one that did both would let the kernel's queue run over in a burst, and
    /// then TCP tries again a second later.
    pub(crate) fn accept_all(&self, listener: &TcpListener, accepted: &SyncSender<Accepted>) {
        let mut failing = false;
        while !self.is_stopping() {
            match listener.accept() {
                Ok(_) if self.is_stopping() => return,
                Ok((stream, peer)) => {
                    failing = false;
                    // Whoever receives it ends only when this has ended.
                    let _ = accepted.send((stream, peer));
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

    /// Starts the threads of what was accepted, until nothing more is.
    pub(crate) fn admit_all(
        self: &Arc<Self>,
        accepted: &Receiver<Accepted>,
        service: &Arc<dyn Service>,
    ) {
        for (stream, peer) in accepted {
            if !self.is_stopping() {
                self.admit(stream, peer, service);
            }
        }
    }

    fn admit(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr, service: &Arc<dyn Service>) {
        let registration = match self.register(stream, peer) {
            Ok(registration) => registration,
            Err(stream) => return self.turn_away(stream, peer, service),
        };
        let entry = Arc::clone(&registration.entry);
        let served = Arc::clone(service);
        if let Err(error) = spawn(peer.to_string(), move || serve(registration, served)) {
            log::warn!("Cannot start a thread for {peer}: {error}");
            let reply = service.busy_reply(arrived_byte(&entry.stream));
            let _ = (&entry.stream).write(&reply);
        }
    }

    fn turn_away(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        service: &Arc<dyn Service>,
    ) {
        log::warn!("Too many connections, turning away {peer}");
        if self.turned_away.fetch_add(1, Ordering::Relaxed) < TURNED_AWAY_MAX {
            let guard = TurnedAway(Arc::clone(self));
            let patient = Arc::downgrade(service);
            let spawned = spawn(format!("busy {peer}"), move || {
                let _guard = guard;
                let mut first = [0];
                let _ = stream.set_read_timeout(Some(FIRST_BYTE_WAIT));
                let first = match stream.peek(&mut first) {
                    Ok(1) => Some(first[0]),
                    _ => None,
                };
                // Nobody waits for this thread, so it does not keep the service.
                let Some(service) = patient.upgrade() else {
                    return;
                };
                let reply = service.busy_reply(first);
                drop(service);
                if (&stream).write_all(&reply).is_ok() {
                    linger(&stream);
                }
            });
            if let Err(error) = spawned {
                log::warn!("Cannot start a thread for {peer}: {error}");
            }
        } else {
            let _guard = TurnedAway(Arc::clone(self));
            let _ = (&stream).write(&service.busy_reply(arrived_byte(&stream)));
        }
    }

    /// Receives datagrams until the server stops.
    pub(crate) fn receive_all(&self, socket: &UdpSocket, service: &dyn DatagramService) {
        let mut datagram = vec![0; usize::from(u16::MAX)];
        let mut unsettled = 0;
        while !self.is_stopping() {
            let received = match unsettled {
                0 => socket.recv_from(&mut datagram),
                _ => receive_waiting(socket, &mut datagram),
            };
            match received {
                Ok(_) if self.is_stopping() => break,
                Ok((bytes, peer)) => {
                    let datagram = &datagram[..bytes];
                    let serve = || service.serve_datagram(datagram, peer, socket);
                    // The panic hook has logged it.
                    let _ = panic::catch_unwind(AssertUnwindSafe(serve));
                    unsettled += 1;
                }
                Err(_) if self.is_stopping() => break,
                Err(_) if unsettled > 0 => unsettled = UNSETTLED_MAX,
                // What a peer's ICMP messages make of a socket, ECONNREFUSED say, is not ours.
                Err(error) => {
                    log::debug!("recv_from: {error}");
                    self.pause(Duration::from_millis(1));
                }
            }
            if unsettled >= UNSETTLED_MAX {
                let settle = || service.settle(socket);
                let _ = panic::catch_unwind(AssertUnwindSafe(settle));
                unsettled = 0;
            }
        }
        service.settle(socket);
    }
}

/// Receives a datagram only if one is waiting.
fn receive_waiting(socket: &UdpSocket, datagram: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    let (bytes, _, peer) = rustix::net::recvfrom(socket, datagram, RecvFlags::DONTWAIT)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    Ok((bytes, peer.ok_or(io::ErrorKind::InvalidData)?))
}

/// Dropping it ends the count of one connection that is being turned away.
struct TurnedAway(Arc<Registry>);

impl Drop for TurnedAway {
    fn drop(&mut self) {
        self.0.turned_away.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The whole life of a connection's thread. A panic unwinds through here, takes the connection
/// off the registry, and ends this thread alone.
pub(crate) fn serve(registration: Registration, service: Arc<dyn Service>) {
    let mut connection = Connection::new(&registration);
    log::debug!("Connected");
    let served = service.serve(&mut connection);
    // Before the registration: who stops the server waits for that, and then has the service alone.
    drop(service);
    match served.and_then(|()| connection.finish()) {
        Ok(()) => {
            if !connection.peer_has_closed() {
                connection.linger_from_now();
                linger(&registration.entry.stream);
            }
            log::debug!("Closed");
        }
        Err(error) => log::debug!("Lost: {error}"),
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

/// The first byte, if it has arrived.
fn arrived_byte(stream: &TcpStream) -> Option<u8> {
    let mut first = [0];
    stream.set_nonblocking(true).ok()?;
    match stream.peek(&mut first) {
        Ok(1) => Some(first[0]),
        _ => None,
    }
}

/// Ends our half of the connection and reads on until the peer ends its own.
fn linger(mut stream: &TcpStream) {
    let deadline = Instant::now() + LINGER;
    let mut scratch = vec![0; 1 << 16];
    if stream.shutdown(Shutdown::Write).is_err()
        || stream.set_read_timeout(Some(LINGER_STALL)).is_err()
    {
        return;
    }
    while Instant::now() < deadline {
        if let Ok(0) | Err(_) = stream.read(&mut scratch) {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
