//! The stream of a connection, encrypted or not, and what it costs to wait for the peer.
//!
//! Every read and write that may have to wait in the middle of a request or a reply goes through
//! [`Patience::wait_for_peer`]. It counts the bytes that move and the time that passes: while a peer
//! gets hardly anywhere, its connection may be evicted for another.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cli::Socket;
use rustix::net::{RecvFlags, SendFlags};
use rustls::ServerConfig;

use crate::eviction::{SLOW_MILLIS, State};
use crate::registry::Registration;
use crate::tls_session::TlsSession;
use crate::write_rate::WriteRate;

/// A peer that moves this many bytes in [`SLOW_MILLIS`] is not slow.
const SLOW_BYTES: u64 = 16 * 1024;

/// What a read waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The next request. That the connection waits is known already.
    ForRequest,
    /// More of the present one.
    WithinRequest,
}

/// A connection's stream.
pub(crate) struct PeerStream<'a> {
    patience: Patience<'a>,
    /// `None` if it is not encrypted.
    tls: Option<Box<TlsSession>>,
}

impl<'a> PeerStream<'a> {
    pub(crate) fn new(registration: &'a Arc<Registration>) -> Self {
        Self {
            patience: Patience {
                registration,
                is_evictable: true,
                waited_millis: 0,
                moved_bytes: 0,
            },
            tls: None,
        }
    }

    pub(crate) fn registration(&self) -> &'a Arc<Registration> {
        self.patience.registration
    }

    pub(crate) fn socket(&self) -> &'a Socket {
        self.patience.socket()
    }

    pub(crate) fn is_evictable(&self) -> bool {
        self.patience.is_evictable
    }

    pub(crate) fn set_evictable(&mut self, is_evictable: bool) {
        self.patience.is_evictable = is_evictable;
    }

    /// Starts the count anew: a request begins, or a reply that may be long.
    pub(crate) fn restart_count(&mut self) {
        self.patience.restart_count();
    }

    /// Moves bytes past the encryption. See [`Patience::wait_for_peer`].
    pub(crate) fn wait_for_peer(
        &mut self,
        move_bytes: impl FnMut(&Socket) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.patience.wait_for_peer(move_bytes)
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Exchanges the messages of the handshake, and is encrypted from then on. `set_timeout` is called
    /// before each read.
    ///
    /// # Errors
    /// As [`TlsSession::handshake`]; also if the connection was evicted.
    pub(crate) fn encrypt(
        &mut self,
        settings: Arc<ServerConfig>,
        mut set_timeout: impl FnMut(&Socket) -> io::Result<()>,
    ) -> io::Result<()> {
        let tls = self.tls.insert(Box::new(TlsSession::new(settings)?));
        let patience = &mut self.patience;
        tls.handshake(|move_bytes| {
            set_timeout(patience.socket())?;
            patience.wait_for_peer(move_bytes)
        })
    }

    /// Whether a read needs nothing from the socket: rustls has decrypted more than was read.
    pub(crate) fn has_input(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.has_input())
    }

    /// Receives without a wait what has arrived; returns whether a read does not wait now. It would for
    /// the rest of a record, and for what follows a message of TLS itself.
    ///
    /// # Errors
    /// Those of the stream.
    pub(crate) fn receive_arrived(&mut self) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else {
            return Ok(true);
        };
        let socket = self.patience.socket();
        match tls.receive(socket, RecvFlags::DONTWAIT) {
            Ok(received) => {
                self.patience.registration.shard().received(received);
                Ok(received == 0 || tls.has_input())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads what is at hand, as [`PeerStream::has_input`] says; `None` if the socket must be read
    /// first.
    pub(crate) fn read_decrypted(&mut self, out: &mut [u8]) -> io::Result<Option<usize>> {
        match &mut self.tls {
            Some(tls) => tls.read(out),
            None => Ok(None),
        }
    }

    /// Reads once from the socket; 0 is the end of the stream. `None` if that was not enough of a record
    /// to be decrypted.
    ///
    /// # Errors
    /// Those of the stream, and as [`Patience::wait_for_peer`].
    pub(crate) fn receive(&mut self, out: &mut [u8], wait: Wait) -> io::Result<Option<usize>> {
        let patience = &mut self.patience;
        let Some(tls) = &mut self.tls else {
            let receive = |socket: &Socket| socket.receive(out, RecvFlags::empty());
            return patience.receive(wait, receive).map(Some);
        };
        patience.receive(wait, |socket| tls.receive(socket, RecvFlags::empty()))?;
        tls.read(out)
    }

    /// Sends all of it. What is encrypted and sent with [`SendFlags::MORE`] may leave with what is sent next.
    ///
    /// # Errors
    /// As [`Patience::wait_for_peer`]; [`io::ErrorKind::TimedOut`] if the peer reads too little.
    pub(crate) fn send_all(&mut self, mut bytes: &[u8], flags: SendFlags) -> io::Result<()> {
        let patience = &mut self.patience;
        let Some(tls) = &mut self.tls else {
            return patience.send_all(&mut bytes, flags);
        };
        loop {
            let encrypted = tls.encrypt(bytes)?;
            bytes = &bytes[encrypted..];
            if bytes.is_empty() && flags.contains(SendFlags::MORE) {
                return Ok(());
            }
            patience.send_all(&mut **tls, flags)?;
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    /// Says that nothing more is sent, if the stream is encrypted: without that the peer could not tell
    /// this end from one that somebody else made.
    ///
    /// # Errors
    /// As [`PeerStream::send_all`].
    pub(crate) fn end(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            return Ok(());
        };
        tls.end();
        (self.patience).send_all(&mut **tls, SendFlags::empty())
    }
}

/// What is to be sent.
trait Unsent {
    fn is_empty(&self) -> bool;

    /// Sends from the start of it, with one system call. Returns how many bytes.
    fn send(&mut self, socket: &Socket, flags: SendFlags) -> io::Result<usize>;
}

impl Unsent for &[u8] {
    fn is_empty(&self) -> bool {
        <[u8]>::is_empty(self)
    }

    fn send(&mut self, socket: &Socket, flags: SendFlags) -> io::Result<usize> {
        let sent = socket.send(self, flags)?;
        *self = &self[sent..];
        Ok(sent)
    }
}

impl Unsent for TlsSession {
    fn is_empty(&self) -> bool {
        !self.has_unsent()
    }

    fn send(&mut self, socket: &Socket, flags: SendFlags) -> io::Result<usize> {
        TlsSession::send(self, socket, flags)
    }
}

/// How long a connection has waited for its peer, and for how much.
struct Patience<'a> {
    registration: &'a Arc<Registration>,
    /// Whether the connection may be evicted while it waits for a request, or for its peer.
    is_evictable: bool,
    /// How long it has waited for `moved_bytes` to move either way. The time that the service itself
    /// needs is not the peer's fault, and does not count.
    waited_millis: u64,
    moved_bytes: u64,
}

impl<'a> Patience<'a> {
    fn socket(&self) -> &'a Socket {
        &self.registration.entry.socket
    }

    fn restart_count(&mut self) {
        self.moved_bytes = 0;
        self.waited_millis = 0;
    }

    /// Receives.
    fn receive(
        &mut self,
        wait: Wait,
        receive: impl FnMut(&Socket) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let received = match wait {
            Wait::ForRequest => retry(self.socket(), receive),
            Wait::WithinRequest => self.wait_for_peer(receive),
        }?;
        self.registration.shard().received(received);
        Ok(received)
    }

    /// Moves bytes to the peer or from it in the middle of a request or a reply. Meanwhile the
    /// connection may be evicted, unless something would be lost by it.
    ///
    /// # Errors
    /// Those of the stream; [`io::ErrorKind::ConnectionAborted`] if it was evicted.
    fn wait_for_peer(
        &mut self,
        move_bytes: impl FnMut(&Socket) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let must_arrive = &self.registration.entry.must_arrive;
        if !self.is_evictable || must_arrive.load(Ordering::SeqCst) {
            return retry(self.socket(), move_bytes);
        }
        let registry = &self.registration.registry;
        let eviction = &self.registration.entry.eviction;
        let since = registry.millis();
        let patience = SLOW_MILLIS.saturating_sub(self.waited_millis);
        eviction.set(State::Slow(since + patience));
        let moved = retry(self.socket(), move_bytes);
        if !eviction.resume() {
            return Err(evicted());
        }
        self.waited_millis += registry.millis().saturating_sub(since);
        self.moved_bytes += *moved.as_ref().unwrap_or(&0) as u64;
        if self.moved_bytes >= SLOW_BYTES {
            self.restart_count();
        }
        moved
    }

    fn send_all(&mut self, unsent: &mut impl Unsent, flags: SendFlags) -> io::Result<()> {
        // Nearly always there is room for all of it. An error comes again below.
        let sent = unsent.send(self.socket(), flags | SendFlags::DONTWAIT);
        self.registration.shard().sent(sent.unwrap_or(0));
        if unsent.is_empty() {
            return Ok(());
        }
        self.restart_count();
        let mut rate = WriteRate::default();
        while !unsent.is_empty() {
            let sent = self.wait_for_peer(|socket| unsent.send(socket, flags))?;
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.registration.shard().sent(sent);
            if !unsent.is_empty() {
                rate.note(sent)?;
            }
        }
        Ok(())
    }
}

/// Moves bytes, again if a signal interrupts it.
pub(crate) fn retry(
    socket: &Socket,
    mut move_bytes: impl FnMut(&Socket) -> io::Result<usize>,
) -> io::Result<usize> {
    loop {
        match move_bytes(socket) {
            // A socket's own timeout is reported as EAGAIN.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// The error of a connection that was evicted.
pub(crate) fn evicted() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "evicted for another")
}
