//! Requests over UDP: one thread receives all datagrams of a port.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::RecvFlags;

use crate::metrics::{Asked, Kind, Metrics, Outcome};
use crate::registry::Registry;

/// How many datagrams are served before the replies that are owed must be sent.
const OWED_MAX: usize = 256;

/// After a failed receive, the next try waits this long.
const RECEIVE_PAUSE: Duration = Duration::from_millis(1);

/// Where datagrams are counted.
const SHARD: u64 = 0;

/// A service over UDP: one datagram is one request.
pub trait DatagramService: Send + Sync + 'static {
    /// Acts on one datagram; replies, if at all, through `socket`, at once or in
    /// [`DatagramService::flush`].
    fn serve_datagram(&self, datagram: &[u8], peer: SocketAddr, socket: &UdpSocket);

    /// Sends the replies that are still owed. No more datagrams are waiting, or a good number was
    /// served since the last call.
    fn flush(&self, socket: &UdpSocket);
}

/// Counts what a [`DatagramService`] does, for `/metrics`.
#[derive(Debug, Clone, Default)]
pub struct DatagramCounter(Arc<Metrics>);

impl DatagramCounter {
    pub(crate) fn new(metrics: &Arc<Metrics>) -> Self {
        Self(Arc::clone(metrics))
    }

    /// A framed request of this kind has arrived, or one of a text protocol.
    pub fn begin(&self, kind: Option<u8>) -> Asked {
        Asked::now(kind.map_or(Kind::TEXT, Kind::frame))
    }

    /// A request is answered.
    pub fn answered(&self, asked: Asked, outcome: Outcome) {
        self.0.shard(SHARD).answered(asked, outcome);
    }

    /// A reply with this many bytes is sent.
    pub fn sent(&self, bytes: usize) {
        self.0.shard(SHARD).sent(bytes);
    }
}

impl Registry {
    /// Receives datagrams until the server stops.
    pub(crate) fn receive_all(&self, socket: &UdpSocket, service: &dyn DatagramService) {
        let mut datagram = vec![0; usize::from(u16::MAX)];
        let mut owed = 0;
        while !self.is_stopping() {
            let received = match owed {
                0 => socket.recv_from(&mut datagram),
                _ => receive_waiting(socket, &mut datagram),
            };
            match received {
                Ok(_) if self.is_stopping() => break,
                Ok((bytes, peer)) => {
                    let datagram = &datagram[..bytes];
                    self.metrics.shard(SHARD).received(bytes);
                    let serve = || service.serve_datagram(datagram, peer, socket);
                    // The panic hook has logged it.
                    let _ = panic::catch_unwind(AssertUnwindSafe(serve));
                    owed += 1;
                }
                Err(_) if self.is_stopping() => break,
                Err(_) if owed > 0 => owed = OWED_MAX,
                // A peer's ICMP message makes the call fail, with ECONNREFUSED say. The socket is fine.
                Err(error) => {
                    log::debug!("recv_from: {error}");
                    self.pause(RECEIVE_PAUSE);
                }
            }
            if owed >= OWED_MAX {
                let flush = || service.flush(socket);
                let _ = panic::catch_unwind(AssertUnwindSafe(flush));
                owed = 0;
            }
        }
        service.flush(socket);
    }
}

/// Receives a datagram only if one is waiting.
fn receive_waiting(socket: &UdpSocket, datagram: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    let (bytes, _, peer) = rustix::net::recvfrom(socket, datagram, RecvFlags::DONTWAIT)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    Ok((bytes, peer.ok_or(io::ErrorKind::InvalidData)?))
}
