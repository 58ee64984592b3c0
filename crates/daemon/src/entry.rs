//! One connection, as its own thread and those that may end it share it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use cli::Socket;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, Shutdown, connect_unspec, sockopt};

use crate::accounts::Account;
use crate::eviction::{Eviction, State};
use crate::lock;
use crate::peer::Peer;

/// One connection.
pub(crate) struct Entry {
    pub(crate) socket: Socket,
    pub(crate) peer: Peer,
    pub(crate) eviction: Eviction,
    /// Whom it acts for.
    account: Mutex<Option<Arc<Account>>>,
    is_aborted: AtomicBool,
    /// Whether it is to end behind the present request, because somebody who is entitled to it needs the place.
    is_leaving: AtomicBool,
    /// Whether it works on a request that does not keep a server from being idle.
    pub(crate) is_probing: AtomicBool,
    /// Whether it owes its peer a message that is in no queue any more, so that it must not be evicted while
    /// it sends. How many such connections there are is counted elsewhere (`shares`).
    pub(crate) must_arrive: AtomicBool,
    /// Whether what it sends has no end, so that a stop does not wait for it.
    pub(crate) is_endless: AtomicBool,
    /// Whether its end must not look like the end of what it sends.
    must_reset: AtomicBool,
    /// Its thread, if that waits for something else than its socket.
    thread: OnceLock<Thread>,
}

impl Entry {
    pub(crate) fn new(socket: Socket, peer: Peer) -> Self {
        Self {
            socket,
            peer,
            eviction: Eviction::new(),
            account: Mutex::default(),
            is_aborted: AtomicBool::new(false),
            is_leaving: AtomicBool::new(false),
            is_probing: AtomicBool::new(false),
            must_arrive: AtomicBool::new(false),
            is_endless: AtomicBool::new(false),
            must_reset: AtomicBool::new(false),
            thread: OnceLock::new(),
        }
    }

    /// Says whom the connection acts for from now on. The caller then looks whether the accounts still
    /// have the account: they are changed first, and the connections looked at then, so one of the two
    /// sees the other.
    pub(crate) fn set_account(&self, account: Option<Arc<Account>>) {
        *lock(&self.account) = account;
    }

    /// Whom it acts for.
    pub(crate) fn account(&self) -> Option<Arc<Account>> {
        lock(&self.account).clone()
    }

    /// Whether a request is under way, or what may become one. A probe is none.
    pub(crate) fn works_on_request(&self) -> bool {
        match self.eviction.state() {
            State::Resting(_) | State::Kept | State::Waiting => false,
            State::Busy | State::Slow(_) | State::Claimed | State::Ended => {
                !self.is_probing.load(Ordering::Relaxed)
            }
        }
    }

    /// Whether its next request has arrived, though its thread may not know yet.
    ///
    /// Over TLS these bytes may be something else, or a part of a request: then its thread reads them,
    /// and the connection can be ended in the next moment. What is decrypted is not looked at, because
    /// the thread does not rest while there is any.
    fn has_input(&self) -> bool {
        let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        self.socket
            .receive(&mut [0], peek)
            .is_ok_and(|bytes| bytes > 0)
    }

    /// Ends the connection if its state is still `seen` and, unless it is slow, no request has arrived.
    /// Returns whether it was ended: its thread then does nothing more.
    pub(crate) fn end(&self, seen: State) -> bool {
        let Some(claim) = self.eviction.claim(seen) else {
            return false;
        };
        if !matches!(seen, State::Slow(_)) && self.has_input() {
            claim.release();
            return false;
        }
        claim.end()
    }

    /// Ends the connection's wait because the server stops, unless it waits for the rest of a request, or
    /// is so new that its first request may be on its way. The connection can still write. One that sends
    /// without end, to a peer that does not read, is aborted.
    pub(crate) fn end_wait(&self, now: u64) {
        let is_over = match self.eviction.state() {
            // Its thread is woken, and finds out why.
            State::Waiting => true,
            State::Resting(from) if from > now => false,
            seen @ (State::Resting(_) | State::Kept) => self.end(seen),
            State::Slow(from) if from <= now && self.is_endless.load(Ordering::Relaxed) => {
                self.abort();
                false
            }
            State::Busy | State::Slow(_) | State::Claimed | State::Ended => false,
        };
        if is_over {
            // An error means that the peer was faster.
            let _ = self.socket.shutdown(Shutdown::Read);
        }
    }

    /// Has the connection end behind its present request; returns whether nobody had said so before.
    pub(crate) fn leave(&self) -> bool {
        !self.is_leaving.swap(true, Ordering::Relaxed)
    }

    /// Whether that was said.
    pub(crate) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Relaxed)
    }

    /// Makes every read and write of the connection fail from now on.
    pub(crate) fn abort(&self) {
        // Before the stream, so that a thread that reads its end knows that the peer did not end it.
        self.is_aborted.store(true, Ordering::SeqCst);
        // Some kernels refuse to reset what a thread waits for, and no Unix socket can be reset.
        if !(self.must_reset.load(Ordering::SeqCst) && connect_unspec(&self.socket).is_ok()) {
            let _ = self.socket.shutdown(Shutdown::Both);
        }
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Sets whether the connection is reset if it ends now, be it that the process is killed. Otherwise its
    /// peer could take what was sent until then for all of it.
    pub(crate) fn set_must_reset(&self, must_reset: bool) -> io::Result<()> {
        self.must_reset.store(must_reset, Ordering::SeqCst);
        let linger = must_reset.then_some(Duration::ZERO);
        Ok(sockopt::set_socket_linger(&self.socket, linger)?)
    }

    /// Has [`Entry::abort`] unpark the present thread, which is the connection's own.
    pub(crate) fn unpark_on_abort(&self) {
        self.thread.get_or_init(thread::current);
    }

    /// Whether nothing can be sent any more: it was aborted, or the peer has reset it. A peer that has ended
    /// its half may still read.
    pub(crate) fn is_lost(&self) -> bool {
        let mut socket = [PollFd::new(&self.socket, PollFlags::empty())];
        // Both are told without being asked for (poll(2), POLLERR and POLLHUP).
        let mut is_told =
            || poll(&mut socket, Some(&Timespec::default())).is_ok_and(|told| told > 0);
        self.is_aborted() || is_told()
    }

    /// Whether that was done.
    pub(crate) fn is_aborted(&self) -> bool {
        self.is_aborted.load(Ordering::SeqCst)
    }
}
