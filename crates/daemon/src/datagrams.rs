//! Requests over UDP: one thread receives all datagrams of a port.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::RecvFlags;

use crate::metrics::{Asked, Kind, Metrics, Outcome};
use crate::registry::Registry;
use crate::switch::Switch;

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

impl<D: DatagramService> From<Arc<D>> for Switch<dyn DatagramService> {
    fn from(service: Arc<D>) -> Self {
        Self::new(service as Arc<dyn DatagramService>)
    }
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
    pub(crate) fn receive_all(&self, socket: &UdpSocket, switch: &Switch<dyn DatagramService>) {
        let mut datagram = vec![0; usize::from(u16::MAX)];
        let mut owed = 0;
        // Which service owes replies. While nothing is owed, none is kept that may be exchanged meanwhile.
        let mut owing = None;
        let flush = |owing: &mut Option<Arc<dyn DatagramService>>| {
            if let Some(service) = owing.take() {
                let flush = || service.flush(socket);
                let _ = panic::catch_unwind(AssertUnwindSafe(flush));
            }
        };
        while !self.is_stopping() {
            let received = match owing {
                None => socket.recv_from(&mut datagram),
                Some(_) => receive_waiting(socket, &mut datagram),
            };
            match received {
                Ok(_) if self.is_stopping() => break,
                Ok((bytes, peer)) => {
                    let datagram = &datagram[..bytes];
                    self.metrics.shard(SHARD).received(bytes);
                    let service = switch.current();
                    if owing
                        .as_ref()
                        .is_some_and(|owing| !Arc::ptr_eq(owing, &service))
                    {
                        flush(&mut owing);
                        owed = 0;
                    }
                    let serve = || service.serve_datagram(datagram, peer, socket);
                    // The panic hook has logged it.
                    let _ = panic::catch_unwind(AssertUnwindSafe(serve));
                    owing = Some(service);
                    owed += 1;
                }
                Err(_) if self.is_stopping() => break,
                Err(_) if owing.is_some() => owed = OWED_MAX,
                // A peer's ICMP message makes the call fail, with ECONNREFUSED say. The socket is fine.
                Err(error) => {
                    log::debug!("recv_from: {error}");
                    self.pause(RECEIVE_PAUSE);
                }
            }
            if owed >= OWED_MAX {
                flush(&mut owing);
                owed = 0;
            }
        }
        flush(&mut owing);
    }
}

/// Receives a datagram only if one is waiting.
fn receive_waiting(socket: &UdpSocket, datagram: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    let (bytes, _, peer) = rustix::net::recvfrom(socket, datagram, RecvFlags::DONTWAIT)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    Ok((bytes, peer.ok_or(io::ErrorKind::InvalidData)?))
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    /// Replies with its name to each datagram when it must, and has `then` happen before.
    struct Named {
        name: &'static str,
        then: Box<dyn Fn() + Send + Sync>,
        owed: AtomicUsize,
        peer: SocketAddr,
    }

    impl DatagramService for Named {
        fn serve_datagram(&self, _datagram: &[u8], _peer: SocketAddr, _socket: &UdpSocket) {
            self.owed.fetch_add(1, Ordering::Relaxed);
            (self.then)();
        }

        fn flush(&self, socket: &UdpSocket) {
            for _ in 0..self.owed.swap(0, Ordering::Relaxed) {
                socket.send_to(self.name.as_bytes(), self.peer).unwrap();
            }
        }
    }

    /// Ends the thread that receives, also if the test fails.
    struct Stops<'a>(&'a Registry, &'a UdpSocket);

    impl Drop for Stops<'_> {
        fn drop(&mut self) {
            self.0.stop();
            let _ = rustix::net::shutdown(self.1, rustix::net::Shutdown::Both);
        }
    }

    #[test]
    fn a_service_that_was_exchanged_sends_what_it_owes_first_and_is_not_kept() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(socket.local_addr().unwrap()).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let heard = || {
            let mut reply = [0; 10];
            let bytes = client.recv(&mut reply).unwrap();
            String::from_utf8_lossy(&reply[..bytes]).into_owned()
        };
        let named = |name, then| {
            Arc::new(Named {
                name,
                then,
                owed: 0.into(),
                peer: client.local_addr().unwrap(),
            })
        };
        let second = named("second", Box::new(|| ()));
        let is_second_kept = Arc::downgrade(&second);
        let switch = Switch::<dyn DatagramService>::from(named("none", Box::new(|| ())));
        let exchange = {
            let switch = switch.clone();
            move || switch.set(Arc::clone(&second) as Arc<dyn DatagramService>)
        };
        let first = named("first", Box::new(exchange));
        let is_first_kept = Arc::downgrade(&first);
        switch.set(first as Arc<dyn DatagramService>);
        let registry = Registry::new(1);
        // Both have arrived when the first is served, and the second is exchanged for meanwhile.
        client.send(b"1").unwrap();
        client.send(b"2").unwrap();
        thread::scope(|scope| {
            scope.spawn(|| registry.receive_all(&socket, &switch));
            let _stops = Stops(&registry, &socket);
            assert_eq!([heard(), heard()], ["first", "second"]);
            assert_eq!(Weak::strong_count(&is_first_kept), 0);
            switch.set(named("third", Box::new(|| ())) as Arc<dyn DatagramService>);
            // No datagram has to come for that.
            while Weak::strong_count(&is_second_kept) > 0 {
                thread::yield_now();
            }
            client.send(b"3").unwrap();
            assert_eq!(heard(), "third");
        });
    }
}
