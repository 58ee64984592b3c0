//! Model-checks the eviction: loom runs it in every order in which a connection's thread and one that
//! looks for room can meet, and finds a request that is acted on though its connection was ended.

#![allow(dead_code, missing_docs, clippy::unwrap_used)]

#[path = "../src/eviction.rs"]
mod eviction;

/// loom's twins of what the eviction is built on.
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
}

use eviction::{Eviction, State};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

/// A connection, and whether its next request is in the socket.
struct Connection {
    eviction: Eviction,
    has_input: AtomicBool,
}

/// Claims, looks, and ends or lets go; returns whether it has ended the connection.
fn evict(connection: &Connection) -> bool {
    let seen = connection.eviction.state();
    if seen.rank(0).is_none() {
        return false;
    }
    let Some(claim) = connection.eviction.claim(seen) else {
        return false;
    };
    if connection.has_input.load(Ordering::SeqCst) {
        claim.let_go();
        return false;
    }
    claim.end()
}

/// One request arrives at a resting connection, of which somebody else wants the place; `requests` of
/// them one after another.
fn model(requests: usize) {
    loom::model(move || {
        let connection = Arc::new(Connection {
            eviction: Eviction::new(),
            has_input: AtomicBool::new(false),
        });
        let seen = Arc::clone(&connection);
        let evictor = thread::spawn(move || evict(&seen));
        let mut is_ended = false;
        for _ in 0..requests {
            connection.eviction.set(State::Resting(0));
            connection.has_input.store(true, Ordering::SeqCst);
            // The thread wakes and reads.
            connection.has_input.store(false, Ordering::SeqCst);
            if !connection.eviction.resume() {
                is_ended = true;
                break;
            }
            // It acts. Nobody can end it now.
            assert_eq!(connection.eviction.state(), State::Busy);
        }
        assert_eq!(evictor.join().unwrap(), is_ended || has_ended(&connection));
    });
}

fn has_ended(connection: &Connection) -> bool {
    connection.eviction.state() == State::Ended
}

#[test]
fn who_has_resumed_is_not_ended_and_who_was_ended_does_not_act() {
    model(1);
    model(2);
}

#[test]
fn who_has_input_is_let_go() {
    loom::model(|| {
        let connection = Arc::new(Connection {
            eviction: Eviction::new(),
            has_input: AtomicBool::new(true),
        });
        connection.eviction.set(State::Resting(0));
        let seen = Arc::clone(&connection);
        let evictor = thread::spawn(move || evict(&seen));
        // The input stays where it is until the connection has resumed.
        assert!(connection.eviction.resume());
        assert!(!evictor.join().unwrap());
        assert_eq!(connection.eviction.state(), State::Busy);
    });
}
