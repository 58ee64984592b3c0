//! The rules: what happens to a message, under one lock.
//!
//! An [`Entry`] is one queue and what it shares with the others. The two halves of a send are
//! [`Entry::admit`] and [`Entry::arrive`], those of a receive [`Entry::reserve`] and [`Entry::ack`]. In
//! memory, both halves happen under one lock. With a database, the journal's commit lies between them.
//!
//! No rule waits, and none wakes a thread: the waiters to wake are collected, and woken when the lock is
//! released ([`super::shared::Locked`]).

use std::collections::{BTreeMap, BTreeSet};
use std::hash::RandomState;
use std::sync::Arc;

use hashbrown::HashMap;
use proto::queue::{MessageId, QueueName, Token, Totals};

use super::operation::{Handout, Outcome};
use super::queue::{Queue, Wake};
use crate::clock::{Clock, Micros};
use crate::error::{QUEUES_MAX, QueueError};
use crate::memory::Memory;
use crate::message::{Arriving, Lease, Message, Reserved};

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
    pub(super) leases: BTreeMap<Token, Reserved>,
    /// When the delays are over, and where the messages are.
    pub(super) due: BTreeSet<(Micros, MessageId, Arc<str>)>,
    /// When the leases expire.
    pub(super) expiries: BTreeSet<(Micros, Token)>,
    /// The id of the next message, if there is no database to give it.
    next_id: MessageId,
    pub(super) totals: Totals,
    memory: Arc<Memory>,
    /// When the timer wakes by itself.
    pub(super) next_due: Option<Micros>,
    /// Whether it must wake earlier than that.
    pub(super) is_due_earlier: bool,
    /// Who is woken when the lock is released.
    pub(super) woken: Vec<Arc<dyn Wake>>,
}

/// One queue, and what it shares with the others.
pub(super) struct Entry<'s> {
    pub(super) name: &'s Arc<str>,
    pub(super) queue: &'s mut Queue,
    common: &'s mut Common,
}

impl Entry<'_> {
    /// Counts a message that is to be sent, if there is room for it.
    pub(super) fn admit(&mut self, cost: usize) -> Result<(), QueueError> {
        let limits = &self.common.limits;
        if self.common.totals.is_draining {
            return Err(QueueError::Draining);
        }
        if self.queue.messages() >= limits.messages_max {
            return Err(QueueError::TooManyMessages(limits.messages_max));
        }
        if self.queue.bytes + cost > limits.queue_bytes_max {
            return Err(QueueError::TooManyBytes(limits.queue_bytes_max));
        }
        self.common.memory.allocate(cost)?;
        self.queue.bytes += cost;
        self.queue.arriving += 1;
        Ok(())
    }

    /// Puts an admitted message at its position.
    pub(super) fn arrive(&mut self, message: Message, is_delayed: bool) {
        self.queue.arriving -= 1;
        self.common.totals.sent += 1;
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

    fn put(&mut self, message: Message, is_delayed: bool) {
        if is_delayed {
            let key = (message.position.moment(), message.id);
            self.common
                .due
                .insert((key.0, key.1, Arc::clone(self.name)));
            self.queue.delayed.insert(key, message);
            self.common.set_timer(key.0);
        } else {
            self.common.woken.extend(self.queue.insert(message));
        }
    }

    /// Takes the oldest message, if there is one and its body is at most this long.
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
        self.queue.reserved += 1;
        message.attempts += 1;
        self.common.totals.received += 1;
        Ok(Some(message))
    }

    /// The outcome for a message that was just reserved, in memory.
    pub(super) fn hand_out(&mut self, message: Message, handout: Handout) -> Outcome {
        match handout {
            Handout::AtMostOnce => {
                self.ack(&message);
                Outcome::Delivered(message)
            }
            Handout::Reserve(lease) => Outcome::Reserved(Reserved {
                queue: Arc::clone(self.name),
                message,
                lease,
            }),
        }
    }

    /// Takes a reserved message off the account.
    pub(super) fn ack(&mut self, message: &Message) {
        self.common.totals.acked += 1;
        self.common.memory.free(message.own_cost());
        self.queue.reserved -= 1;
        self.queue.bytes -= message.cost();
    }

    /// Wakes a waiter for each message.
    pub(super) fn wake_waiters(&mut self) {
        let waiters = (0..self.queue.ready()).map_while(|_| self.queue.next_waiter());
        self.common.woken.extend(waiters);
    }
}

impl Common {
    /// Starts the lease that a reserved message has.
    pub(super) fn start_lease(&mut self, reserved: Reserved) {
        if let Some(Lease { token, expires_at }) = reserved.lease {
            self.expiries.insert((expires_at, token));
            self.leases.insert(token, reserved);
            self.set_timer(expires_at);
        }
    }

    fn set_timer(&mut self, due: Micros) {
        if self.next_due.is_none_or(|next| due < next) {
            self.next_due = Some(due);
            self.is_due_earlier = true;
        }
    }
}

impl State {
    /// No messages.
    pub(super) fn new(limits: Limits, memory: Arc<Memory>) -> Self {
        Self {
            queues: HashMap::default(),
            common: Common {
                limits,
                leases: BTreeMap::new(),
                due: BTreeSet::new(),
                expiries: BTreeSet::new(),
                next_id: 1,
                totals: Totals::default(),
                memory,
                next_due: None,
                is_due_earlier: false,
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

    pub(super) fn remove_if_unused(&mut self, name: &str) {
        if self.queues.get(name).is_some_and(Queue::is_unused) {
            self.queues.remove(name);
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
        for (name, message, _) in messages {
            self.common.memory.free(message.own_cost());
            let queue = self.entry(&name).queue;
            queue.arriving -= 1;
            queue.bytes -= message.cost();
            self.remove_if_unused(&name);
        }
    }

    /// Puts a message where the database says that it is.
    pub(super) fn restore(&mut self, found: Reserved, is_delayed: bool, clock: &Clock) {
        let cost = found.message.cost();
        self.common.memory.allocate_always(cost);
        let found = Reserved {
            message: found.message.counted(&self.common.memory),
            ..found
        };
        // What was promoted before the server ended has its position among the others already.
        let moment = found.message.position.moment();
        let is_delayed = is_delayed && moment > clock.now();
        if !is_delayed {
            clock.skip(moment);
        }
        let mut entry = self.entry(&found.queue);
        entry.queue.bytes += cost;
        if found.lease.is_some() {
            entry.queue.reserved += 1;
            self.common.start_lease(found);
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
        body_bytes_max: usize,
    ) -> Result<Option<Reserved>, QueueError> {
        let Some(mut entry) = self.find(queue.as_str()) else {
            return Ok(None);
        };
        let message = entry.reserve(body_bytes_max)?;
        Ok(message.map(|message| Reserved {
            queue: Arc::clone(entry.name),
            message,
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
        let mut entry = self.entry(&reserved.queue);
        entry.ack(&reserved.message);
        if entry.queue.is_unused() {
            self.queues.remove(&reserved.queue);
        }
    }

    /// Puts a reserved message at its position, as it is.
    pub(super) fn reinsert(&mut self, reserved: Reserved) {
        let queue = Arc::clone(&reserved.queue);
        self.put_into(reserved, &queue, false);
    }

    /// Puts a reserved message at its position in a queue, its own or another one.
    pub(super) fn put_into(&mut self, reserved: Reserved, queue: &Arc<str>, is_delayed: bool) {
        let cost = reserved.message.cost();
        let from = self.entry(&reserved.queue).queue;
        from.reserved -= 1;
        from.bytes -= cost;
        let mut to = self.entry(queue);
        to.queue.bytes += cost;
        to.put(reserved.message, is_delayed);
        self.remove_if_unused(&reserved.queue);
    }

    /// Ends a lease. The message stays reserved, for the caller.
    pub(super) fn end_lease(&mut self, token: Token) -> Option<Reserved> {
        let reserved = self.common.leases.remove(&token)?;
        if let Some(Lease { token, expires_at }) = reserved.lease {
            self.common.expiries.remove(&(expires_at, token));
        }
        Some(reserved)
    }

    /// Makes a lease expire at another time. Returns the leased message, and when the lease would have
    /// expired; `None` if there is no such lease.
    pub(super) fn extend(
        &mut self,
        token: Token,
        expires_at: Micros,
    ) -> Option<(&Reserved, Micros)> {
        let reserved = self.common.leases.get_mut(&token)?;
        let lease = reserved.lease.as_mut()?;
        let before = std::mem::replace(&mut lease.expires_at, expires_at);
        self.common.expiries.remove(&(before, token));
        self.common.expiries.insert((expires_at, token));
        self.common.set_timer(expires_at);
        Some((self.common.leases.get(&token)?, before))
    }

    /// Reserves at most `messages_max` messages, also if the queue is paused.
    pub(super) fn reserve_some(
        &mut self,
        queue: &str,
        with_delayed: bool,
        messages_max: usize,
    ) -> Vec<Reserved> {
        let Some(Entry {
            name,
            queue,
            common,
        }) = self.find(queue)
        else {
            return Vec::new();
        };
        let mut reserved = Vec::new();
        while reserved.len() < messages_max {
            let next = queue.pop().or_else(|| {
                let delayed = with_delayed.then(|| queue.delayed.pop_first());
                let ((due, id), message) = delayed.flatten()?;
                common.due.remove(&(due, id, Arc::clone(name)));
                Some(message)
            });
            let Some(message) = next else {
                break;
            };
            queue.reserved += 1;
            reserved.push(Reserved {
                queue: Arc::clone(name),
                message,
                lease: None,
            });
        }
        reserved
    }

    pub(super) fn pause(&mut self, name: &Arc<str>, is_paused: bool) {
        let mut entry = self.entry(name);
        entry.queue.is_paused = is_paused;
        entry.wake_waiters();
        self.remove_if_unused(name);
    }

    /// Promotes at most `messages_max` delayed messages: each goes to the end of its queue. Returns how
    /// many there were.
    pub(super) fn promote(&mut self, now: Micros, clock: &Clock, messages_max: usize) -> usize {
        let mut promoted = 0;
        while promoted < messages_max
            && let Some((due, id, name)) = self.common.due.pop_first()
        {
            if due > now {
                self.common.due.insert((due, id, name));
                break;
            }
            let mut entry = self.entry(&name);
            if let Some(mut message) = entry.queue.delayed.remove(&(due, id)) {
                message.position = message.position.at(clock.next_moment());
                entry.put(message, false);
            }
            promoted += 1;
        }
        promoted
    }

    /// Ends at most `leases_max` leases that have expired.
    pub(super) fn expire(&mut self, now: Micros, leases_max: usize) -> Vec<Reserved> {
        let mut expired = Vec::new();
        while expired.len() < leases_max
            && let Some(&(expires_at, token)) = self.common.expiries.first()
            && expires_at <= now
        {
            expired.extend(self.end_lease(token));
        }
        expired
    }

    /// When the next delay is over, or the next lease expires.
    pub(super) fn first_due(&self) -> Option<Micros> {
        let delay = self.common.due.first().map(|(due, _, _)| *due);
        let expiry = self.common.expiries.first().map(|(due, _)| *due);
        [delay, expiry].into_iter().flatten().min()
    }
}
