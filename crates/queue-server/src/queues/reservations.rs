//! Who has a reserved message: a connection or a lease.
//!
//! The messages themselves stay in their queue, by their positions, so that an operator can look at them and
//! release them when their holder does nothing more. A holder knows no more than where its messages are. If one is
//! not there any more when the holder acknowledges it, an operator has deleted, moved or released it.

use std::collections::VecDeque;
use std::sync::Arc;

use proto::queue::{MessageId, Token};

use super::Queues;
use super::requeue::CONNECTION_ENDED;
use super::schedule::Due;
use super::state::State;
use crate::clock::Micros;
use crate::error::QueueError;
use crate::message::{
    Connected, Holder, Lease, Message, RESERVATION_BYTES, Reservation, Reserved, ReservedMessage,
};

impl State {
    /// Enters who has reserved a message.
    fn add_reservation(&mut self, reserved: Reserved, holder: Holder) -> Reservation {
        self.common.memory.allocate_always(RESERVATION_BYTES);
        let reservation = reserved.reservation();
        let message = reserved.message;
        let key = (message.position, message.id);
        let queue = self.entry(&reservation.queue).queue;
        queue
            .reserved
            .insert(key, ReservedMessage { message, holder });
        reservation
    }

    /// Ends a reservation: the message stays reserved, for the caller. `None` if it is not there any more.
    pub(super) fn end_reservation(&mut self, reservation: &Reservation) -> Option<Reserved> {
        let Reservation {
            queue,
            position,
            id,
        } = reservation;
        let entry = self.find(queue)?;
        let ReservedMessage { message, holder } = entry.queue.reserved.remove(&(*position, *id))?;
        self.common.memory.free(RESERVATION_BYTES);
        let lease = match holder {
            Holder::Connection(_) => None,
            Holder::Lease(lease) => {
                let Lease { token, expires_at } = lease;
                self.common.leases.remove(&token);
                self.common.schedule.remove(expires_at, Due::Lease(token));
                Some(lease)
            }
        };
        Some(Reserved {
            queue: Arc::clone(queue),
            queue_index: 0,
            message,
            was_delayed: false,
            lease,
        })
    }

    /// Starts the lease that a reserved message has.
    pub(super) fn start_lease(&mut self, reserved: Reserved) {
        if let Some(lease) = reserved.lease {
            let Lease { token, expires_at } = lease;
            self.common.schedule.insert(expires_at, Due::Lease(token));
            let reservation = self.add_reservation(reserved, Holder::Lease(lease));
            self.common.leases.insert(token, reservation);
        }
    }

    /// A copy of a leased message; `None` if there is no such lease.
    pub(super) fn leased(&self, token: Token) -> Option<Reserved> {
        let Reservation {
            queue,
            position,
            id,
        } = self.common.leases.get(&token)?;
        let reserved = self.queues.get(queue)?.reserved.get(&(*position, *id))?;
        let Holder::Lease(lease) = reserved.holder else {
            return None;
        };
        Some(Reserved {
            queue: Arc::clone(queue),
            queue_index: 0,
            message: reserved.message.clone(),
            was_delayed: false,
            lease: Some(lease),
        })
    }

    /// Ends a lease. The message stays reserved, for the caller.
    pub(super) fn end_lease(&mut self, token: Token) -> Option<Reserved> {
        let reservation = self.common.leases.get(&token)?.clone();
        self.end_reservation(&reservation)
    }

    /// Makes a lease expire at another time. Returns the queue, its leased message, and when the lease would have
    /// expired; `None` if there is no such lease.
    pub(super) fn extend(
        &mut self,
        token: Token,
        expires_at: Micros,
    ) -> Option<(&Arc<str>, &Message, Micros)> {
        let Reservation {
            queue,
            position,
            id,
        } = self.common.leases.get(&token)?;
        let queues = self.queues.get_mut(queue)?;
        let ReservedMessage { message, holder } = queues.reserved.get_mut(&(*position, *id))?;
        let Holder::Lease(lease) = holder else {
            return None;
        };
        let before = std::mem::replace(&mut lease.expires_at, expires_at);
        let schedule = &mut self.common.schedule;
        schedule.remove(before, Due::Lease(token));
        schedule.insert(expires_at, Due::Lease(token));
        Some((queue, message, before))
    }
}

/// What one connection has reserved. Dropping it requeues that.
pub(crate) struct Reservations<'q> {
    queues: &'q Queues,
    connected: Arc<Connected>,
    reservations: VecDeque<Reservation>,
}

impl<'q> Reservations<'q> {
    /// Nothing yet. `peer` is for people.
    pub(crate) fn new(queues: &'q Queues, peer: &str) -> Self {
        let connected = Arc::new(Connected {
            id: queues.shared.next_holder(),
            peer: peer.into(),
        });
        Self {
            queues,
            connected,
            reservations: VecDeque::new(),
        }
    }

    /// How many messages it has reserved.
    pub(crate) fn len(&self) -> usize {
        self.reservations.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.reservations.is_empty()
    }

    /// Adds a message that was handed out to this connection.
    pub(crate) fn add(&mut self, reserved: Reserved) {
        let holder = Holder::Connection(Arc::clone(&self.connected));
        let reservation = self.queues.shared.lock().add_reservation(reserved, holder);
        self.reservations.push_back(reservation);
    }

    /// Ends the reservation of a message that the connection acknowledges, releases or unreserves.
    ///
    /// # Errors
    /// [`QueueError::NotReservedHere`], and [`QueueError::NoLongerReserved`].
    pub(crate) fn claim(&mut self, id: MessageId) -> Result<Reserved, QueueError> {
        let at = self.reservations.iter().position(|one| one.id == id);
        let reservation = at.and_then(|at| self.reservations.remove(at));
        let reservation = reservation.ok_or(QueueError::NotReservedHere(id))?;
        let reserved = self.queues.shared.lock().end_reservation(&reservation);
        reserved.ok_or(QueueError::NoLongerReserved(id))
    }

    /// Ends all of them, and returns the messages that are still there, in the order in which they were handed out.
    pub(crate) fn claim_all(&mut self) -> Vec<Reserved> {
        let mut state = self.queues.shared.lock();
        let reservations = self.reservations.drain(..);
        reservations
            .filter_map(|one| state.end_reservation(&one))
            .collect()
    }
}

impl Drop for Reservations<'_> {
    fn drop(&mut self) {
        if self.is_empty() {
            return;
        }
        for reserved in self.claim_all() {
            if self.queues.is_stopping() {
                self.queues.requeue_at_stop(reserved);
            } else {
                self.queues.requeue(reserved, CONNECTION_ENDED);
            }
        }
    }
}
