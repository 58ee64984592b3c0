//! Messages that say who sent them, and the book that is kept of them.
//!
//! A body is the number of its connection, its own number, and a fixed pattern. So whoever receives
//! it sees whether it is whole; and the ledger, in which every message sent and every message
//! received is added up, sees whether one was lost or came twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Wrong;
use crate::error::Error;

/// The length of every message, in bytes.
pub const BODY_BYTES: usize = 100;

/// The bytes of a body that differ from message to message: u32 connection, u64 number.
const STAMP_BYTES: usize = 12;

/// The rest of every body. No line break in it, so that a server's log stays readable.
const PATTERN: &[u8; BODY_BYTES - STAMP_BYTES] =
    b"The quick brown fox jumps over the lazy dog, and the dog goes on sleeping in the sun....";

/// All messages of one server, over all rounds. Numbers only grow; the fingerprints are sums, so
/// the order in which messages are entered does not matter.
#[derive(Debug, Default)]
pub struct Ledger {
    connections: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    fingerprint_sent: AtomicU64,
    fingerprint_received: AtomicU64,
}

impl Ledger {
    /// How many messages should be in the queue now.
    pub fn queued(&self) -> u64 {
        let [sent, received] = [&self.sent, &self.received].map(|n| n.load(Ordering::Acquire));
        sent.saturating_sub(received)
    }

    /// Checks that exactly what was sent was received. To be called when the queue is empty.
    ///
    /// # Errors
    /// If a message is missing, came twice, or was never sent.
    pub fn check(&self) -> Result<(), Error> {
        let load = |number: &AtomicU64| number.load(Ordering::Acquire);
        let sent = (load(&self.sent), load(&self.fingerprint_sent));
        let received = (load(&self.received), load(&self.fingerprint_received));
        if sent == received {
            return Ok(());
        }
        let got = format!("{} sent, {} received", sent.0, received.0);
        Err(Wrong::new("each message sent, exactly once", got.as_bytes()).into())
    }
}

/// One connection's share: makes its bodies, checks what it receives. Dropping it enters both into
/// the ledger.
#[derive(Debug)]
pub struct Messages {
    ledger: Arc<Ledger>,
    connection: u32,
    sent: u64,
    received: u64,
    fingerprint_sent: u64,
    fingerprint_received: u64,
}

impl Messages {
    /// For a new connection.
    pub fn new(ledger: &Arc<Ledger>) -> Self {
        Self {
            connection: ledger.connections.fetch_add(1, Ordering::AcqRel) as u32,
            ledger: Arc::clone(ledger),
            sent: 0,
            received: 0,
            fingerprint_sent: 0,
            fingerprint_received: 0,
        }
    }

    /// Appends the next body.
    pub fn put_next(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.connection.to_be_bytes());
        out.extend_from_slice(&self.sent.to_be_bytes());
        out.extend_from_slice(PATTERN);
        self.fingerprint_sent = self
            .fingerprint_sent
            .wrapping_add(fingerprint(self.connection, self.sent));
        self.sent += 1;
    }

    /// Checks a body that was received.
    ///
    /// # Errors
    /// If it is none of ours.
    pub fn check(&mut self, body: &[u8]) -> Result<(), Wrong> {
        let wrong = || Wrong::new("a message that was sent", body);
        let (connection, rest) = body.split_first_chunk::<4>().ok_or_else(wrong)?;
        let (number, rest) = rest.split_first_chunk::<8>().ok_or_else(wrong)?;
        if rest != PATTERN {
            return Err(wrong());
        }
        let connection = u32::from_be_bytes(*connection);
        let print = fingerprint(connection, u64::from_be_bytes(*number));
        self.fingerprint_received = self.fingerprint_received.wrapping_add(print);
        self.received += 1;
        Ok(())
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        let add = |total: &AtomicU64, share| total.fetch_add(share, Ordering::AcqRel);
        add(&self.ledger.sent, self.sent);
        add(&self.ledger.received, self.received);
        add(&self.ledger.fingerprint_sent, self.fingerprint_sent);
        add(&self.ledger.fingerprint_received, self.fingerprint_received);
    }
}

/// Spreads a message's two numbers over 64 bits (the end of splitmix64).
fn fingerprint(connection: u32, number: u64) -> u64 {
    let mut bits = (u64::from(connection) << 40) ^ number;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_sees_what_is_lost_doubled_or_damaged() {
        let ledger = Arc::new(Ledger::default());
        let mut messages = Messages::new(&ledger);
        let mut bodies = Vec::new();
        messages.put_next(&mut bodies);
        messages.put_next(&mut bodies);
        assert_eq!(bodies.len(), 2 * BODY_BYTES);
        let (first, second) = bodies.split_at(BODY_BYTES);

        let mut damaged = first.to_vec();
        damaged[50] ^= 1;
        assert!(messages.check(&damaged).is_err());
        assert!(messages.check(&first[1..]).is_err());

        messages.check(first).unwrap();
        drop(messages);
        assert_eq!(ledger.queued(), 1);
        assert!(ledger.check().is_err());

        let mut twice = Messages::new(&ledger);
        twice.check(first).unwrap();
        drop(twice);
        assert!(ledger.check().is_err(), "the first came twice");

        let ledger = Arc::new(Ledger::default());
        let mut messages = Messages::new(&ledger);
        let mut sent = Vec::new();
        messages.put_next(&mut sent);
        messages.put_next(&mut sent);
        messages.check(second).unwrap();
        messages.check(first).unwrap();
        drop(messages);
        ledger.check().unwrap();
    }
}
