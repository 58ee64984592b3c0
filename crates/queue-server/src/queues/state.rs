//! The rules: what happens to a message, under one lock.
//!
//! An [`Entry`] is one queue and what it shares with the others. The two halves of a send are
//! [`Entry::admit`] and [`Entry::arrive`], those of a receive [`Entry::reserve`] and [`Entry::ack`]. In
//! memory, both halves happen under one lock. With a database, the journal's commit lies between them.
//!
//! No rule waits, and none wakes a thread: the waiters to wake are collected, and woken when the lock is
//! released ([`super::shared::Locked`]).

use std::collections::BTreeMap;
use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use proto::queue::{MessageId, QueueName, Token, Totals};

use super::operation::{Handout, Outcome, Receive};
use super::queue::{Queue, Wake};
use super::schedule::{Due, Schedule};
use crate::clock::{Clock, Micros};
use crate::error::{QUEUES_MAX, QueueError};
use crate::keys::Keys;
use crate::memory::Memory;
use crate::message::{Arriving, Extras, Message, Reservation, Reserved, delay_cost};
use crate::totals::CountsByName;

/// How much the queues may hold, and how often they hand a message out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The longest message, in bytes.
    pub body_bytes_max: usize,
    /// Messages in one queue.
    pub messages_max: usize,
    /// What the messages of one queue may take, in bytes of memory.
    pub queue_bytes_max: usize,
    /// What the messages of all queues may take, in bytes of memory.
    pub memory_bytes_max: usize,
    /// How often a message is handed out before it is moved to the dead letters.
    pub attempts_max: u32,
    /// How long an acknowledged message holds its key.
    pub key_window: Duration,
}

/// All queues.
pub(crate) struct State {
    /// By their names. Peers choose those, so the hash is that of std, whose collisions
    /// nobody can provoke.
    pub(super) queues: HashMap<Arc<str>, Queue, RandomState>,
    pub(super) common: Common,
}

/// What all queues share.
pub(super) struct Common {
    limits: Limits,
    /// A full hash table moves into a larger one, and with a million leases everybody would wait for
    /// that. A tree grows in small steps.
    pub(super) leases: BTreeMap<Token, Reservation>,
    pub(super) schedule: Schedule,
    /// The id of the next message, if there is no database to give it.
    next_id: MessageId,
    pub(super) totals: Totals,
    /// What happened to the messages of queues that are not there any more, and in earlier runs.
    pub(super) past: CountsByName,
    pub(super) memory: Arc<Memory>,
    pub(super) keys: Keys,
    /// Who is woken when the lock is released.
    pub(super) woken: Vec<Arc<dyn Wake>>,
}

/// One queue, and what it shares with the others.
pub(super) struct Entry<'s> {
    pub(super) name: &'s Arc<str>,
    pub(super) queue: &'s mut Queue,
    pub(super) common: &'s mut Common,
}

impl Entry<'_> {
    /// Counts a message that is to be sent, if there is room for it.
    pub(super) fn admit(&mut self, cost: usize) -> Result<(), QueueError> {
        if self.common.totals.is_draining {
            return Err(QueueError::Draining);
        }
        self.has_room(cost)?;
        self.common.memory.allocate(cost)?;
        self.queue.bytes += cost;
        self.queue.arriving += 1;
        Ok(())
    }

    /// Whether the queue may have another message.
    pub(super) fn has_room(&self, cost: usize) -> Result<(), QueueError> {
        let limits = &self.common.limits;
        if self.queue.messages() >= limits.messages_max {
            return Err(QueueError::TooManyMessages(limits.messages_max));
        }
        if self.queue.bytes + cost > limits.queue_bytes_max {
            return Err(QueueError::TooManyBytes(limits.queue_bytes_max));
        }
        Ok(())
    }

    /// Puts an admitted message at its position.
    pub(super) fn arrive(&mut self, message: Message, is_delayed: bool) {
        self.queue.arriving -= 1;
        self.common.totals.sent += 1;
        self.queue.counts.sent += 1;
        if let Some(keyed) = message.keyed() {
            self.common.keys.stored(self.name, keyed, message.id);
        }
        self.put(message, is_delayed);
    }

    /// The same without a database, which would have given the message its id.
    pub(super) fn arrive_unnumbered(&mut self, message: Message, is_delayed: bool) -> MessageId {
        let id = self.common.next_id;
        self.common.next_id += 1;
        let message = message.counted(&self.common.memory);
        self.arrive(Message { id, ..message }, is_delayed);
        id
    }

    /// Puts a message at its position. If it is delayed, what that costs is on the account already.
    pub(super) fn put(&mut self, message: Message, is_delayed: bool) {
        if let Some((expires_at, expiry)) = self.expiry(&message) {
            self.common.schedule.insert(expires_at, expiry);
        }
        if is_delayed {
            let key = (message.position.moment(), message.id);
            let schedule = &mut self.common.schedule;
            schedule.insert(key.0, Due::Delay(key.1, Arc::clone(self.name)));
            self.queue.delayed.insert(key, message);
        } else {
            self.common.woken.extend(self.queue.insert(message));
        }
    }

    /// When a message of this queue expires.
    fn expiry(&self, message: &Message) -> Option<(Micros, Due)> {
        let expires_at = message.expires_at()?;
        let name = Arc::clone(self.name);
        Some((expires_at, Due::Expiry(message.position, message.id, name)))
    }

    /// Unschedules the expiry of a message that was in this queue.
    pub(super) fn unschedule(&mut self, message: &Message) {
        if let Some((expires_at, expiry)) = self.expiry(message) {
            self.common.schedule.remove(expires_at, expiry);
        }
    }

    /// Unschedules the end of a delay, if a message that was in this queue had one. Returns whether it had.
    pub(super) fn undelay(&mut self, message: &Message) -> bool {
        let delay = Due::Delay(message.id, Arc::clone(self.name));
        let was_delayed = self
            .common
            .schedule
            .remove(message.position.moment(), delay);
        if was_delayed {
            self.free_delay();
        }
        was_delayed
    }

    /// Takes off the account what a delay has cost.
    pub(super) fn free_delay(&mut self) {
        self.common.memory.free(delay_cost(true));
        self.queue.bytes -= delay_cost(true);
    }

    /// Reserves the oldest message, if there is one and its body is at most this long.
    pub(super) fn reserve(&mut self, body_bytes_max: usize) -> Result<Option<Message>, QueueError> {
        if self.queue.is_paused {
            return Err(QueueError::Paused(self.name.to_string()));
        }
        if body_bytes_max < usize::MAX
            && let Some(first) = self.queue.front()
            && first.body.len() > body_bytes_max
        {
            return Err(QueueError::TooLong {
                body_bytes: first.body.len(),
            });
        }
        let Some(mut message) = self.queue.pop() else {
            return Ok(None);
        };
        self.unschedule(&message);
        self.queue.reserved_count += 1;
        message.attempts += 1;
        self.common.totals.received += 1;
        Ok(Some(message))
    }

    /// The outcome for a message that was just reserved, in memory.
    pub(super) fn hand_out(&mut self, message: Message, receive: Receive, now: Micros) -> Outcome {
        let queue_index = receive.queue_index;
        match receive.handout {
            Handout::AtMostOnce => {
                self.keep_key(&message, now);
                self.ack(&message);
                Outcome::Delivered(message, queue_index)
            }
            Handout::Reserve(lease) => Outcome::Reserved(Reserved {
                queue: Arc::clone(self.name),
                queue_index,
                message,
                was_delayed: false,
                lease,
            }),
        }
    }

    /// A message of this queue that was removed from its order, and belongs to the caller.
    pub(super) fn reserved(&self, message: Message, was_delayed: bool) -> Reserved {
        Reserved {
            queue: Arc::clone(self.name),
            queue_index: 0,
            message,
            was_delayed,
            lease: None,
        }
    }

    /// Takes a reserved message off the account.
    pub(super) fn ack(&mut self, message: &Message) {
        self.common.totals.acked += 1;
        self.queue.counts.acked += 1;
        self.delete(message);
    }

    /// The same for a message that nobody has acknowledged.
    pub(super) fn delete(&mut self, message: &Message) {
        self.common.memory.free(message.own_cost());
        self.queue.reserved_count -= 1;
        self.queue.bytes -= message.cost();
    }

    /// Wakes a waiter for each message.
    pub(super) fn wake_waiters(&mut self) {
        let waiters = (0..self.queue.ready()).map_while(|_| self.queue.next_waiter());
        self.common.woken.extend(waiters);
    }
}

impl State {
    /// No messages.
    pub(super) fn new(limits: Limits, memory: Arc<Memory>) -> Self {
        Self {
            queues: HashMap::default(),
            common: Common {
                keys: Keys::new(limits.key_window, &memory),
                limits,
                leases: BTreeMap::new(),
                schedule: Schedule::default(),
                next_id: 1,
                totals: Totals::default(),
                past: CountsByName::default(),
                memory,
                woken: Vec::new(),
            },
        }
    }

    /// The queue of this name, made if it does not exist.
    pub(super) fn entry<'s>(&'s mut self, name: &'s Arc<str>) -> Entry<'s> {
        Entry {
            name,
            queue: self.queues.entry_ref(name).or_default(),
            common: &mut self.common,
        }
    }

    /// The queue of this name, if it exists.
    pub(super) fn find(&mut self, name: &str) -> Option<Entry<'_>> {
        let (name, queue) = self.queues.get_key_value_mut(name)?;
        let common = &mut self.common;
        Some(Entry {
            name,
            queue,
            common,
        })
    }

    /// The name of a queue as all share it. The queue is made if it does not exist.
    ///
    /// # Errors
    /// [`QueueError::TooManyQueues`].
    pub(super) fn make(&mut self, queue: QueueName) -> Result<Arc<str>, QueueError> {
        if let Some((name, _)) = self.queues.get_key_value(queue.as_str()) {
            return Ok(Arc::clone(name));
        }
        if self.queues.len() >= QUEUES_MAX {
            return Err(QueueError::TooManyQueues);
        }
        let name: Arc<str> = queue.as_str().into();
        self.queues.insert(Arc::clone(&name), Queue::default());
        Ok(name)
    }

    /// The name of a queue that exists: it has messages in any state, waiters, a pause or dead letters.
    ///
    /// # Errors
    /// [`QueueError::NoQueue`].
    pub(super) fn existing(&self, queue: QueueName) -> Result<Arc<str>, QueueError> {
        match self.queues.get_key_value(queue.as_str()) {
            Some((name, _)) => Ok(Arc::clone(name)),
            None if self.queues.contains_key(queue.dead().as_str()) => Ok(queue.as_str().into()),
            None => Err(QueueError::NoQueue(queue.as_str().to_owned())),
        }
    }

    /// Removes a queue, whose counts stay.
    fn remove(&mut self, name: &str) {
        if let Some((name, queue)) = self.queues.remove_entry(name) {
            self.common.past.add(&name, queue.counts);
        }
    }

    pub(super) fn remove_if_unused(&mut self, name: &str) {
        if self.queues.get(name).is_some_and(Queue::is_unused) {
            self.remove(name);
        }
    }

    /// Counts a message that is to be sent and waits for its commit. Returns its queue.
    pub(super) fn admit(&mut self, queue: QueueName, cost: usize) -> Result<Arc<str>, QueueError> {
        let name = self.make(queue)?;
        let admitted = self.entry(&name).admit(cost);
        if admitted.is_err() {
            self.remove_if_unused(&name);
        }
        admitted.map(|()| name)
    }

    /// Puts committed messages into their queues.
    pub(super) fn arrived(&mut self, messages: Vec<Arriving>) {
        for (name, message, is_delayed) in messages {
            self.entry(&name).arrive(message, is_delayed);
        }
    }

    /// Takes messages off the account that were not committed.
    pub(super) fn refused(&mut self, messages: Vec<Arriving>) {
        for (name, message, is_delayed) in messages {
            let delay_cost = delay_cost(is_delayed);
            self.common.memory.free(message.own_cost() + delay_cost);
            let queue = self.entry(&name).queue;
            queue.arriving -= 1;
            queue.bytes -= message.cost() + delay_cost;
            self.entry(&name).release_key(&message);
            self.remove_if_unused(&name);
        }
    }

    /// Puts a message where the database says that it is.
    pub(super) fn restore(&mut self, found: Reserved, is_delayed: bool, clock: &Clock) {
        // What was promoted before the server ended has its position among the others already.
        let moment = found.message.position.moment();
        let is_delayed = is_delayed && moment > clock.now();
        let cost = found
            .message
            .cost_while(is_delayed && found.lease.is_none());
        self.common.memory.allocate_always(cost);
        let found = Reserved {
            message: found.message.counted(&self.common.memory),
            ..found
        };
        if !is_delayed {
            clock.skip(moment);
        }
        let mut entry = self.entry(&found.queue);
        entry.hold_key(&found.message, clock.now());
        entry.queue.bytes += cost;
        if found.lease.is_some() {
            entry.queue.reserved_count += 1;
            self.start_lease(found);
        } else {
            entry.put(found.message, is_delayed);
        }
    }

    /// Reserves the oldest message, if there is one and its body is at most this long.
    ///
    /// # Errors
    /// [`QueueError::Paused`], [`QueueError::TooLong`].
    pub(super) fn reserve(
        &mut self,
        queue: QueueName,
        receive: Receive,
    ) -> Result<Option<Reserved>, QueueError> {
        let Some(mut entry) = self.find(queue.as_str()) else {
            return Ok(None);
        };
        let message = entry.reserve(receive.body_bytes_max)?;
        Ok(message.map(|message| Reserved {
            queue: Arc::clone(entry.name),
            queue_index: receive.queue_index,
            message,
            was_delayed: false,
            lease: None,
        }))
    }

    /// Undoes a reservation that never reached anybody.
    pub(super) fn unreserve(&mut self, mut reserved: Reserved) {
        reserved.message.attempts -= 1;
        self.common.totals.received -= 1;
        self.reinsert(reserved);
    }

    pub(super) fn ack(&mut self, reserved: &Reserved) {
        self.entry(&reserved.queue).ack(&reserved.message);
        self.remove_if_unused(&reserved.queue);
    }

    /// The same for a message that nobody has acknowledged.
    pub(super) fn delete(&mut self, reserved: &Reserved) {
        self.entry(&reserved.queue).delete(&reserved.message);
        self.remove_if_unused(&reserved.queue);
    }

    /// Puts a reserved message at its position, as it is; delayed, if it was when it was reserved.
    pub(super) fn reinsert(&mut self, reserved: Reserved) {
        let (queue, is_delayed) = (Arc::clone(&reserved.queue), reserved.was_delayed);
        self.put_into(reserved, &queue, is_delayed);
    }

    /// Puts a reserved message at its position in a queue, its own or another one. A delay is counted also if
    /// there is no room for it, because the message is there already.
    pub(super) fn put_into(&mut self, reserved: Reserved, queue: &Arc<str>, is_delayed: bool) {
        let cost = reserved.message.cost();
        let from = self.entry(&reserved.queue).queue;
        from.reserved_count -= 1;
        from.bytes -= cost;
        if reserved.queue != *queue {
            self.entry(&reserved.queue).release_key(&reserved.message);
        }
        let mut to = self.entry(queue);
        to.queue.bytes += cost + delay_cost(is_delayed);
        to.common.memory.allocate_always(delay_cost(is_delayed));
        to.put(reserved.message, is_delayed);
        self.remove_if_unused(&reserved.queue);
    }

    /// Reserves at most `messages_max` messages, also if the queue is paused.
    pub(super) fn reserve_some(
        &mut self,
        queue: &str,
        with_delayed: bool,
        messages_max: usize,
    ) -> Vec<Reserved> {
        let Some(mut entry) = self.find(queue) else {
            return Vec::new();
        };
        let mut reserved = Vec::new();
        while reserved.len() < messages_max {
            let next = entry.queue.pop().or_else(|| {
                let delayed = with_delayed.then(|| entry.queue.delayed.pop_first());
                delayed.flatten().map(|(_, message)| message)
            });
            let Some(message) = next else {
                break;
            };
            entry.unschedule(&message);
            let was_delayed = entry.undelay(&message);
            entry.queue.reserved_count += 1;
            reserved.push(entry.reserved(message, was_delayed));
        }
        reserved
    }

    /// Changes what few messages have, and its cost. If there is no room for that, the reason is left out.
    pub(super) fn change_extras(
        &mut self,
        reserved: &mut Reserved,
        change: impl FnOnce(&mut Extras),
    ) {
        let message = &mut reserved.message;
        let before = message.cost();
        message.change_extras(change);
        let more = message.cost().saturating_sub(before);
        if more > 0 && self.common.memory.allocate(more).is_err() {
            message.change_extras(|extras| extras.reason = Box::default());
        }
        let after = message.cost();
        self.common.memory.free(before.saturating_sub(after));
        let queue = self.entry(&reserved.queue).queue;
        queue.bytes = queue.bytes + after - before;
    }

    pub(super) fn pause(&mut self, name: &Arc<str>, is_paused: bool) {
        let mut entry = self.entry(name);
        entry.queue.is_paused = is_paused;
        entry.wake_waiters();
        self.remove_if_unused(name);
    }
}
