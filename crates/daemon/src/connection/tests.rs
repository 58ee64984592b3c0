//! Whole connections over loopback.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use super::*;
use crate::accounts::LoginError;
use crate::accounts::tests::accounts;
use crate::pending_reply::{PendingReply, SharedBytes};
use crate::registry::Registry;

/// The only connection there may be, and its peer.
fn registered() -> (Arc<Registration>, TcpStream) {
    let (stream, peer) = connected();
    let from = peer.local_addr().unwrap();
    let registration = Registry::new(1)
        .register(stream.into(), from.into())
        .unwrap();
    // Its thread has started.
    assert!(registration.entry.eviction.resume());
    (Arc::new(registration), peer)
}

fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, peer)
}

impl Connection<'_> {
    /// Reads a request of one byte.
    #[track_caller]
    fn ask(&mut self, peer: &mut TcpStream, request: u8) {
        peer.write_all(&[request]).unwrap();
        assert_eq!(self.next_request(None).unwrap(), Some(request));
        self.consume(1);
    }

    #[track_caller]
    fn pending(&mut self) -> PendingReply {
        self.pending_reply(0).unwrap()
    }
}

/// Gives a connection's thread the time to wait, which nothing shows. Less if it has ended.
pub(super) fn give_time(has_ended: impl Fn() -> bool) {
    let soon = Instant::now() + Duration::from_millis(50);
    wait_until(|| has_ended() || Instant::now() > soon);
}

/// Waits until a connection is at something.
fn wait_until(is_there: impl Fn() -> bool) {
    while !is_there() {
        thread::yield_now();
    }
}

#[test]
fn a_reply_is_sent_by_another_thread_while_its_own_waits() {
    let (registered, mut peer) = registered();
    let mut connection = Connection::new(&registered);
    connection.ask(&mut peer, b'1');
    let pending = connection.pending();
    let mut read = [0; 5];
    thread::scope(|scope| {
        let next = scope.spawn(|| connection.next_request(None));
        pending.complete(b"first".to_vec());
        peer.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"first");
        peer.write_all(b"next").unwrap();
        assert_eq!(next.join().unwrap().unwrap(), Some(b'n'));
    });
}

#[test]
fn replies_come_in_the_order_of_the_requests_however_they_are_completed() {
    for owner_waits in [true, false] {
        let (registered, mut peer) = registered();
        let mut connection = Connection::new(&registered);
        connection.write_all(b"1").unwrap();
        let second = connection.pending();
        let third = connection.pending();
        connection.write_all(b"4").unwrap();
        let mut read = [0; 4];
        thread::scope(|scope| {
            third.complete(b"3".to_vec());
            if owner_waits {
                let owner = scope.spawn(|| connection.next_request(None));
                // What is before the first that is open is sent already.
                peer.read_exact(&mut read[..1]).unwrap();
                second.complete(b"2".to_vec());
                peer.read_exact(&mut read[1..]).unwrap();
                peer.write_all(b"x").unwrap();
                owner.join().unwrap().unwrap();
            } else {
                scope.spawn(|| second.complete(b"2".to_vec()));
                connection.flush().unwrap();
                peer.read_exact(&mut read).unwrap();
            }
        });
        assert_eq!(&read, b"1234");
    }
}

#[test]
fn a_reply_for_which_there_is_no_room_is_sent_by_its_own_thread() {
    let body: SharedBytes = Arc::new(vec![b'b'; 10_000]);
    for body in [None, Some(body)] {
        let (registered, mut peer) = registered();
        let mut connection = Connection::new(&registered);
        connection.ask(&mut peer, b'1');
        let socket = &registered.entry.socket;
        let mut filled = 0;
        while let Ok(sent) = socket.send(&[0; 10_000], SendFlags::DONTWAIT) {
            filled += sent;
        }
        let body_bytes = body.as_ref().map_or(0, |body| (**body).as_ref().len());
        let pending = connection.pending();
        let mut read = vec![0; filled + 4 + body_bytes];
        thread::scope(|scope| {
            let next = scope.spawn(|| connection.next_request(None));
            pending.complete_with(b"last".to_vec(), body);
            peer.read_exact(&mut read).unwrap();
            peer.write_all(b"x").unwrap();
            assert_eq!(next.join().unwrap().unwrap(), Some(b'x'));
        });
        assert!(read[filled..].starts_with(b"last"));
        assert!(read[filled + 4..].iter().all(|byte| *byte == b'b'));
    }
}

#[test]
fn replies_to_a_long_pipeline_are_sent_when_they_are_many() {
    const REPLY_BYTES: usize = 4096;
    let (registered, mut peer) = registered();
    let mut connection = Connection::new(&registered);
    let replies = OUTPUT_BYTES / REPLY_BYTES;
    peer.write_all(&vec![b'x'; replies + 1]).unwrap();
    for _ in 0..replies {
        assert_eq!(connection.next_request(None).unwrap(), Some(b'x'));
        connection.consume(1);
        connection.pending().complete(vec![0; REPLY_BYTES]);
    }
    // There is one more request, but all these replies are there already.
    assert_eq!(connection.next_request(None).unwrap(), Some(b'x'));
    peer.read_exact(&mut [0; OUTPUT_BYTES]).unwrap();
}

#[test]
fn a_reply_that_is_never_given_ends_the_connection() {
    for owner_waits in [true, false] {
        let (registered, mut peer) = registered();
        let mut connection = Connection::new(&registered);
        connection.ask(&mut peer, b'1');
        let pending = connection.pending();
        let ended = thread::scope(|scope| {
            let next = scope.spawn(|| match owner_waits {
                true => connection.next_request(None).map(drop),
                false => connection.fill_buf().map(drop),
            });
            drop(pending);
            next.join().unwrap().unwrap_err()
        });
        assert_eq!(ended.kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn a_connection_with_a_reply_outstanding_is_not_idle() {
    for is_evictable in [true, false] {
        let (registered, mut peer) = registered();
        let mut connection = Connection::new(&registered);
        let state = || registered.entry.eviction.state();
        connection.ask(&mut peer, b'1');
        connection.set_evictable(is_evictable);
        let pending = connection.pending();
        thread::scope(|scope| {
            let next = scope.spawn(|| connection.next_request(None));
            assert_eq!(state(), State::Busy);
            pending.complete(b"reply".to_vec());
            peer.read_exact(&mut [0; 5]).unwrap();
            wait_until(|| state() != State::Busy);
            assert_eq!(matches!(state(), State::Resting(_)), is_evictable);
            assert_eq!(state() == State::Kept, !is_evictable);
            peer.write_all(b"two").unwrap();
            assert_eq!(next.join().unwrap().unwrap(), Some(b't'));
            assert_eq!(state(), State::Busy);
        });
    }
}

#[test]
fn a_connection_whose_replies_were_sent_by_another_thread_can_be_evicted() {
    let (registered, mut peer) = registered();
    let (registry, entry) = (&registered.registry, &registered.entry);
    let mut connection = Connection::new(&registered);
    connection.ask(&mut peer, b'1');
    let pending = connection.pending();
    thread::scope(|scope| {
        let next = scope.spawn(|| connection.next_request(None));
        pending.complete(b"reply".to_vec());
        wait_until(|| matches!(entry.eviction.state(), State::Resting(_)));
        let newcomer = registry.register(connected().0.into(), entry.peer);
        assert!(newcomer.is_ok(), "there is room for it");
        let error = next.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    });
    let mut read = Vec::new();
    peer.read_to_end(&mut read).unwrap();
    assert_eq!(read, b"reply");
}

#[test]
fn a_reply_that_comes_when_the_server_stops_is_the_last() {
    let (registered, mut peer) = registered();
    let (registry, entry) = (&registered.registry, &registered.entry);
    let mut connection = Connection::new(&registered);
    connection.ask(&mut peer, b'1');
    let pending = connection.pending();
    thread::scope(|scope| {
        let next = scope.spawn(|| connection.next_request(None));
        registry.stop();
        entry.end_wait(u64::MAX >> 3);
        assert_eq!(entry.eviction.state(), State::Busy);
        pending.complete(b"reply".to_vec());
        assert_eq!(next.join().unwrap().unwrap(), None);
        peer.read_exact(&mut [0; 5]).unwrap();
    });
}

#[test]
fn what_is_pending_is_bounded() {
    const LONG: usize = 2 << 20;
    let (registered, mut peer) = registered();
    let mut connection = Connection::new(&registered);
    let first = connection.pending_reply(LONG).unwrap();
    thread::scope(|scope| {
        let owner = scope.spawn(|| connection.pending_reply(1));
        first.complete(vec![0; LONG]);
        // The owner sends it before there is room for another.
        peer.read_exact(&mut vec![0; LONG]).unwrap();
        owner.join().unwrap().unwrap().complete(Vec::new());
    });
}

#[test]
fn for_an_evicted_connection_nothing_is_done() {
    let (registered, mut peer) = registered();
    let entry = &registered.entry;
    let mut connection = Connection::new(&registered);
    peer.write_all(b"half a message").unwrap();
    assert_eq!(connection.next_request(None).unwrap(), Some(b'h'));
    connection.consume(14);
    thread::scope(|scope| {
        // It waits for the other half, and is evicted as one that is slow.
        let rest = scope.spawn(|| connection.fill_buf().map(<[u8]>::len));
        while !matches!(entry.eviction.state(), State::Slow(_)) {
            thread::yield_now();
        }
        assert!(entry.eviction.claim(entry.eviction.state()).unwrap().end());
        // Its end is not the end of the message, whatever arrived.
        entry.abort();
        let error = rest.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    });
}

#[test]
fn what_must_arrive_is_not_cut_short() {
    let (registered, mut peer) = registered();
    let state = || registered.entry.eviction.state();
    let mut connection = Connection::new(&registered);
    for must_arrive in [true, false] {
        let large = vec![b'x'; 16 << 20];
        if must_arrive {
            connection.must_arrive().unwrap();
        }
        connection.output().extend_from_slice(&large);
        // Before it is sent, that changes nothing.
        connection.has_arrived();
        thread::scope(|scope| {
            let sent = scope.spawn(|| connection.flush());
            // It waits for a peer that does not read.
            peer.read_exact(&mut [0]).unwrap();
            if !must_arrive {
                wait_until(|| matches!(state(), State::Slow(_)));
            }
            let mut rest = vec![0; large.len() - 1];
            for piece in rest.chunks_mut(1 << 20) {
                assert!(!must_arrive || state() == State::Busy, "{:?}", state());
                peer.read_exact(piece).unwrap();
            }
            sent.join().unwrap().unwrap();
        });
        connection.has_arrived();
    }
}

/// Connections from one address to a server with this many places, and their peers.
fn registered_at(registry: &Arc<Registry>) -> (Arc<Registration>, TcpStream) {
    let (stream, peer) = connected();
    let from = peer.local_addr().unwrap();
    let registration = registry.register(stream.into(), from.into()).ok().unwrap();
    // Its thread has started.
    assert!(registration.entry.eviction.resume());
    (Arc::new(registration), peer)
}

#[test]
fn who_owes_too_much_waits_until_something_has_arrived() {
    // A share is one connection.
    let registry = Registry::new(4);
    let ((first, _peer), (second, _other)) = (registered_at(&registry), registered_at(&registry));
    let [mut owes, mut waits] = [&first, &second].map(Connection::new);
    owes.must_arrive().unwrap();
    let state = || second.entry.eviction.state();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| waits.must_arrive());
        // It owes nothing yet, and may be evicted.
        wait_until(|| matches!(state(), State::Slow(_)));
        owes.has_arrived();
        waiting.join().unwrap().unwrap();
    });
    assert_eq!(state(), State::Busy);
    // The other may be evicted, or wait in turn.
    thread::scope(|scope| {
        let waiting = scope.spawn(|| owes.must_arrive());
        let eviction = &first.entry.eviction;
        wait_until(|| matches!(eviction.state(), State::Slow(_)));
        assert!(eviction.claim(eviction.state()).unwrap().end());
        first.entry.abort();
        second.has_arrived();
        let error = waiting.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    });
}

#[test]
fn who_was_aborted_or_reset_while_it_waited_owes_nothing() {
    for is_reset in [true, false] {
        let registry = Registry::new(4);
        let ((first, _peer), (second, other)) =
            (registered_at(&registry), registered_at(&registry));
        let [mut owes, mut waits] = [&first, &second].map(Connection::new);
        owes.must_arrive().unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| waits.must_arrive());
            wait_until(|| matches!(second.entry.eviction.state(), State::Slow(_)));
            if is_reset {
                // What is closed with unread input is reset.
                second.entry.socket.send(b"x", SendFlags::empty()).unwrap();
                other.peek(&mut [0]).unwrap();
                drop(other);
                wait_until(|| second.entry.is_lost());
            } else {
                second.entry.abort();
            }
            owes.has_arrived();
            let error = waiting.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        });
        assert!(!second.entry.must_arrive.load(Ordering::SeqCst));
    }
}

#[test]
fn what_is_written_is_sent_before_a_password_is_checked() {
    let accounts = accounts("ann:secret\n", 0o600).unwrap();
    let (registered, mut peer) = registered();
    let mut connection = Connection::new(&registered);
    connection.write_all(b"stored").unwrap();
    let wrong = connection.log_in(&accounts, "ann", "wrong");
    assert_eq!(wrong, Err(LoginError::Wrong));
    peer.set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut read = [0; 6];
    peer.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"stored");
    // One that is lost meanwhile has not logged in.
    connection.write_all(b"more").unwrap();
    registered.entry.abort();
    let lost = connection.log_in(&accounts, "ann", "secret");
    assert_eq!(lost, Err(LoginError::Gone));
}

#[test]
fn a_peer_that_asks_without_pause_does_not_keep_the_server_from_stopping() {
    let (registered, mut peer) = registered();
    let mut connection = Connection::new(&registered);
    connection.ask(&mut peer, b'1');
    let pending = connection.pending();
    peer.write_all(b"2").unwrap();
    registered.registry.stop();
    thread::scope(|scope| {
        let last = scope.spawn(|| {
            assert_eq!(connection.next_request(None).unwrap(), None);
        });
        give_time(|| last.is_finished());
        pending.complete(b"reply".to_vec());
        last.join().unwrap();
        peer.read_exact(&mut [0; 5]).unwrap();
    });
}

#[test]
fn replies_that_are_known_at_once_are_bounded_too() {
    const REPLY: &[u8] = &[0; 10_000];
    let (registered, mut peer) = registered();
    let mut connection = Connection::new(&registered);
    let pending = connection.pending();
    let handled = AtomicUsize::new(0);
    thread::scope(|scope| {
        let owner = scope.spawn(|| {
            while connection.next_request(None).unwrap().is_some() {
                connection.consume(1);
                connection.write_all(REPLY).unwrap();
                handled.fetch_add(1, Ordering::SeqCst);
            }
            connection.flush().unwrap();
        });
        // One after the other, while it reads on.
        let mut asked = 0;
        while handled.load(Ordering::SeqCst) == asked && asked < 1000 {
            peer.write_all(b"x").unwrap();
            asked += 1;
            let soon = Instant::now() + Duration::from_millis(200);
            wait_until(|| handled.load(Ordering::SeqCst) == asked || Instant::now() > soon);
        }
        assert!((100..200).contains(&asked), "{asked}");
        peer.shutdown(Shutdown::Write).unwrap();
        pending.complete(Vec::new());
        peer.read_exact(&mut vec![0; asked * REPLY.len()]).unwrap();
        owner.join().unwrap();
    });
}

#[test]
fn a_slow_peer_is_evicted_though_a_reply_is_open() {
    let (registered, mut peer) = registered();
    let mut connection = Connection::new(&registered);
    let [first, pending] = [(); 2].map(|()| connection.pending());
    first.complete(vec![0; 16 << 20]);
    thread::scope(|scope| {
        let next = scope.spawn(|| connection.next_request(None));
        // The owner sends, and waits for a peer that does not read.
        let eviction = &registered.entry.eviction;
        wait_until(|| matches!(eviction.state(), State::Slow(_)));
        assert!(eviction.claim(eviction.state()).unwrap().end());
        registered.entry.abort();
        let error = next.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    });
    pending.complete(Vec::new());
    assert_eq!(registered.entry.eviction.state(), State::Ended);
    let _ = peer.read_to_end(&mut Vec::new());
}

#[test]
fn an_abort_ends_the_wait_for_replies() {
    let (registered, _peer) = registered();
    let mut connection = Connection::new(&registered);
    let _pending = connection.pending();
    thread::scope(|scope| {
        let waits = scope.spawn(|| connection.wait_for_replies());
        registered.entry.abort();
        let error = waits.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    });
}

#[test]
fn what_must_arrive_has_arrived_when_another_thread_has_sent_it() {
    let (registered, mut peer) = registered();
    let mut connection = Connection::new(&registered);
    let state = || registered.entry.eviction.state();
    connection.must_arrive().unwrap();
    let pending = connection.pending();
    thread::scope(|scope| {
        let next = scope.spawn(|| {
            let next = connection.next_request(None);
            connection.consume(1);
            connection.output().resize(16 << 20, b'x');
            // The peer reads none of it.
            let sent = connection.flush();
            (next, sent)
        });
        give_time(|| next.is_finished());
        pending.complete(b"reply".to_vec());
        peer.read_exact(&mut [0; 5]).unwrap();
        peer.write_all(b"x").unwrap();
        wait_until(|| matches!(state(), State::Slow(_)) || next.is_finished());
        registered.entry.abort();
        let (next, sent) = next.join().unwrap();
        assert_eq!(next.unwrap(), Some(b'x'));
        sent.unwrap_err();
    });
}

#[test]
fn a_peer_that_waits_for_a_reply_is_not_idle() {
    const IDLE: Duration = Duration::from_millis(100);
    let (registered, mut peer) = registered();
    let mut connection = Connection::new(&registered);
    let pending = connection.pending();
    thread::scope(|scope| {
        let next = scope.spawn(|| {
            let started = Instant::now();
            (connection.next_request(Some(IDLE)), started.elapsed())
        });
        let later = Instant::now() + 2 * IDLE;
        wait_until(|| next.is_finished() || Instant::now() > later);
        pending.complete(b"reply".to_vec());
        peer.read_exact(&mut [0; 5]).unwrap();
        let (next, waited) = next.join().unwrap();
        assert_eq!(next.unwrap(), None);
        assert!(waited >= 3 * IDLE, "{waited:?}");
    });
}

#[test]
fn a_connection_counts_as_long_as_a_reply_is_open() {
    let (registered, _peer) = registered();
    let registry = Arc::clone(&registered.registry);
    let pending = Connection::new(&registered).pending();
    drop(registered);
    assert_eq!(registry.open(), 1);
    pending.complete(Vec::new());
    assert_eq!(registry.open(), 0);
}
