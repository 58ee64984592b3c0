//! What an operator does to one message, whatever its state.
//!
//! A message is found by its id. No index of ids is kept: it would cost each message some forty bytes, and every
//! send and ack a change of it, for what a person does now and then. Instead the operator names the queue, and it
//! is searched from its beginning, a slice under one lock and then the next. A million messages take about 12 ms of
//! one thread, and a slice of them 0.1 ms, which is what others wait (`how_long_a_search_takes` in the tests).

use std::sync::Arc;
use std::thread;

use proto::queue::{MessageId, MessageState, QueueName};

use super::Queues;
use super::figures::Peeked;
use super::pending::{Effect, Prepared};
use super::queue::{Key, Search, Shelf};
use super::state::{Entry, State};
use super::submit::Several;
use super::why::Why;
use crate::error::QueueError;
use crate::message::{Holder, Reservation, Reserved};
use crate::position::Position;

/// How many messages are looked at under one lock.
const SLICE: usize = 8192;

/// How often a queue is searched. A message that goes back to a place where it was looked for already is found by
/// the second search.
const SEARCHES: usize = 2;

/// Where a message was found.
#[derive(Clone, Copy)]
struct Found {
    state: MessageState,
    at: Key,
}

impl Entry<'_> {
    /// Reserves a message that is ready or delayed for the caller.
    fn reserve_at(&mut self, at: Key) -> Option<Reserved> {
        let message = self.queue.remove(at)?;
        self.unschedule(&message);
        let was_delayed = self.undelay(&message);
        self.queue.reserved_count += 1;
        Some(self.reserved(message, was_delayed))
    }
}

impl State {
    /// Reserves the message that was found for the caller, also if it has a holder.
    fn reserve_found(&mut self, queue: &str, found: Found) -> Option<Reserved> {
        let mut entry = self.find(queue)?;
        match found.state {
            MessageState::Ready | MessageState::Delayed => entry.reserve_at(found.at),
            MessageState::Reserved => {
                let (position, id) = found.at;
                let reservation = Reservation {
                    queue: Arc::clone(entry.name),
                    position,
                    id,
                };
                self.end_reservation(&reservation)
            }
        }
    }
}

impl Queues {
    /// Finds a message of a queue or of its dead letters, and does something to it under the same lock.
    ///
    /// # Errors
    /// [`QueueError::NoMessage`].
    fn find<T>(
        &self,
        queue: QueueName,
        id: MessageId,
        act: impl Fn(&mut State, &str, Found) -> Option<T>,
    ) -> Result<T, QueueError> {
        let dead = queue.dead();
        for name in [queue.as_str(), &dead].into_iter().filter(|_| id > 0) {
            for shelf in [Shelf::ALL; SEARCHES].into_iter().flatten() {
                let mut after = (Position::FRONT, 0);
                loop {
                    let mut state = self.shared.lock();
                    let Some(entry) = state.find(name) else {
                        break;
                    };
                    match entry.queue.search(shelf, after, id, SLICE) {
                        Search::Found(position) => {
                            let found = Found {
                                state: shelf.state(),
                                at: (position, id),
                            };
                            if let Some(done) = act(&mut state, name, found) {
                                return Ok(done);
                            }
                            break;
                        }
                        Search::NotUpTo(key) => after = key,
                        Search::End => break,
                    }
                    drop(state);
                    // One who waits for the lock may have it in between.
                    thread::yield_now();
                }
            }
        }
        Err(QueueError::NoMessage {
            id,
            queue: queue.as_str().to_owned(),
        })
    }

    /// Shows a message of a queue or of its dead letters.
    ///
    /// # Errors
    /// [`QueueError::NoMessage`].
    pub(crate) fn peek_one(&self, queue: QueueName, id: MessageId) -> Result<Peeked, QueueError> {
        let now = self.shared.clock.now();
        self.find(queue, id, |state, queue, found| {
            state.peek_at(queue, found.state, found.at, now)
        })
    }

    /// Deletes a message of a queue or of its dead letters. If somebody has it reserved, its ack is refused.
    ///
    /// # Errors
    /// [`QueueError::NoMessage`].
    pub(crate) fn delete(&self, queue: QueueName, id: MessageId) -> Result<Prepared, QueueError> {
        let reserved = self.find(queue, id, State::reserve_found)?;
        Ok(self.prepared(Effect::Delete(reserved)))
    }

    /// Makes a message ready that is delayed, or dead: at the end of its queue.
    ///
    /// # Errors
    /// [`QueueError::NoMessage`]; [`QueueError::NotKickable`], if it is in another state.
    pub(crate) fn kick_one(&self, queue: QueueName, id: MessageId) -> Result<Prepared, QueueError> {
        let reserved = self.find(queue, id, |state, name, found| {
            let is_dead = name.ends_with(QueueName::DEAD_SUFFIX);
            match found.state {
                MessageState::Ready if is_dead => state.reserve_found(name, found).map(Ok),
                MessageState::Delayed => state.reserve_found(name, found).map(Ok),
                state @ (MessageState::Ready | MessageState::Reserved) => {
                    Some(Err(QueueError::NotKickable { id, state }))
                }
            }
        });
        let mut reserved = reserved??;
        let to = match reserved.queue.strip_suffix(QueueName::DEAD_SUFFIX) {
            Some(name) => {
                reserved.message.attempts = 0;
                name.into()
            }
            None => Arc::clone(&reserved.queue),
        };
        Ok(self.prepared(self.move_into(reserved, to, Why::Operator)))
    }

    /// Moves a message to the end of another queue, where its attempts are counted anew. If somebody has it reserved,
    /// its ack is refused.
    ///
    /// # Errors
    /// [`QueueError::NoMessage`], [`QueueError::TooManyQueues`], and those of a full queue.
    pub(crate) fn move_one(
        &self,
        queue: QueueName,
        id: MessageId,
        to: QueueName,
    ) -> Result<Prepared, QueueError> {
        let moved = self.find(queue, id, |state, name, found| {
            let to = match state.make(to) {
                Ok(to) => to,
                Err(error) => return Some(Err(error)),
            };
            let has_room = state.entry(&to).has_room(0);
            let reserved = has_room.map(|()| state.reserve_found(name, found));
            state.remove_if_unused(&to);
            reserved
                .transpose()
                .map(|reserved| reserved.map(|one| (one, to)))
        });
        let (mut reserved, to) = moved??;
        reserved.message.attempts = 0;
        Ok(self.prepared(self.move_into(reserved, to, Why::Operator)))
    }

    /// Requeues a message that somebody has reserved, as if its holder were gone. Its ack is refused then.
    ///
    /// # Errors
    /// [`QueueError::NoMessage`]; [`QueueError::NotReserved`], if it is not reserved.
    pub(crate) fn release_one(
        &self,
        queue: QueueName,
        id: MessageId,
    ) -> Result<Prepared, QueueError> {
        let reserved = self.find(queue, id, |state, name, found| match found.state {
            MessageState::Reserved => state.reserve_found(name, found).map(Ok),
            MessageState::Ready | MessageState::Delayed => Some(Err(QueueError::NotReserved(id))),
        });
        Ok(self.prepared(self.release_from_holder(reserved??)))
    }

    /// Requeues all messages that a connection has reserved, as if it were gone.
    ///
    /// # Errors
    /// [`QueueError::NoHolder`]; [`QueueError::NotStored`], then some of them may be requeued.
    pub(crate) fn release_holder(&self, holder: u64) -> Result<Prepared, QueueError> {
        let names: Vec<_> = self.shared.lock().queues.keys().cloned().collect();
        let mut released = Vec::new();
        for name in names {
            let mut after = Position::FRONT;
            loop {
                let mut state = self.shared.lock();
                let (reserved, next) = state.end_reservations_of(&name, holder, after);
                drop(state);
                released.extend(
                    reserved
                        .into_iter()
                        .map(|one| self.release_from_holder(one)),
                );
                match next {
                    Some(position) => after = position,
                    None => break,
                }
            }
        }
        if released.is_empty() {
            return Err(QueueError::NoHolder(holder));
        }
        let mut several = Several::default();
        self.carry_out_but_last(&mut several, released)?;
        Ok(self.last_of(several))
    }
}

impl State {
    /// Ends the reservations of a connection among the next reserved messages of a queue. Returns where to look next.
    fn end_reservations_of(
        &mut self,
        queue: &Arc<str>,
        holder: u64,
        after: Position,
    ) -> (Vec<Reserved>, Option<Position>) {
        let Some(entry) = self.find(queue) else {
            return (Vec::new(), None);
        };
        let slice = entry
            .queue
            .reserved
            .range((after, MessageId::MAX)..)
            .take(SLICE);
        let mut last = None;
        let mut found = Vec::new();
        for ((position, id), one) in slice {
            last = Some(*position);
            if matches!(&one.holder, Holder::Connection(by) if by.id == holder) {
                found.push(Reservation {
                    queue: Arc::clone(queue),
                    position: *position,
                    id: *id,
                });
            }
        }
        let reserved = found.iter().filter_map(|one| self.end_reservation(one));
        (reserved.collect(), last)
    }
}
