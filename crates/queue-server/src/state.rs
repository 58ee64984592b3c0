//! What the server has of all queues, under one lock.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::RandomState;
use std::sync::Arc;

use daemon::Wakeup;
use hashbrown::HashMap;
use proto::queue::{MessageId, QueueName, Token, Totals};

use crate::QueueError;
use crate::error::QUEUES_MAX;
use crate::memory::Memory;
use crate::message::{Clock, Message, Place, Taken};
use crate::queue::Queue;

/// How much the queues may hold, and for how long they try.
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
    /// How often a message is handed out before it is moved to the queue of the dead.
    pub attempts_max: u32,
}

pub(crate) struct State {
    /// By their names, which peers choose: so the hash is that of std, which promises that nobody can
    /// choose some that collide.
    pub(crate) queues: HashMap<Arc<str>, Queue, RandomState>,
    /// A hash table that is full moves into a larger one, and with a million leases everybody would
    /// wait for that. This grows in small steps.
    pub(crate) leases: BTreeMap<Token, Taken>,
    /// When the delayed messages of all queues are due, and where they are.
    pub(crate) due: BTreeSet<(Place, MessageId, Arc<str>)>,
    /// When the leases run out.
    pub(crate) expiries: BTreeSet<(Place, Token)>,
    /// The number of the next message, where there is no database to give it.
    pub(crate) next_id: MessageId,
    pub(crate) totals: Totals,
    /// What all messages cost, and what else peers have the server keep.
    pub(crate) memory: Arc<Memory>,
    /// When [`Queues::wait_until_due`] wakes by itself.
    pub(crate) next_due: Option<Place>,
}

impl State {
    /// No messages.
    pub(crate) fn new(memory: Arc<Memory>) -> Self {
        Self {
            queues: HashMap::default(),
            leases: BTreeMap::new(),
            due: BTreeSet::new(),
            expiries: BTreeSet::new(),
            next_id: 1,
            totals: Totals::default(),
            memory,
            next_due: None,
        }
    }

    /// The queue of this name, made if it does not exist.
    pub(crate) fn queue(&mut self, name: &Arc<str>) -> &mut Queue {
        self.queues.entry_ref(name).or_default()
    }

    /// The name of a queue as all share it; the queue is made if it does not exist.
    pub(crate) fn name(&mut self, queue: QueueName) -> Result<Arc<str>, QueueError> {
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

    /// The name of a queue that is there, as all share it: it has messages in whatever state, waiters
    /// or a pause, or its dead letters are there.
    ///
    /// # Errors
    /// [`QueueError::NoQueue`].
    pub(crate) fn existing(&self, queue: QueueName) -> Result<Arc<str>, QueueError> {
        let name = queue.as_str();
        match self.queues.get_key_value(name) {
            Some((name, _)) => Ok(Arc::clone(name)),
            None if self.dead_of(name).is_some() => Ok(name.into()),
            None => Err(QueueError::NoQueue(name.to_owned())),
        }
    }

    pub(crate) fn remove_if_unused(&mut self, name: &str) {
        if self.queues.get(name).is_some_and(Queue::is_unused) {
            self.queues.remove(name);
        }
    }

    pub(crate) fn dead_of(&self, name: &str) -> Option<&Queue> {
        let dead = format!("{name}{}", QueueName::DEAD_SUFFIX);
        self.queues.get(dead.as_str())
    }

    /// Counts a message in that is to be sent, if there is room for it.
    pub(crate) fn admit(
        &mut self,
        queue: QueueName,
        message: &Message,
        limits: &Limits,
    ) -> Result<Arc<str>, QueueError> {
        let name = self.name(queue)?;
        let room = self.make_room(&name, message.cost(), limits);
        let admitted = room.map(|one| one.arriving += 1);
        self.remove_if_unused(&name);
        admitted.map(|()| name)
    }

    /// Puts a message at the end of a queue that is there, if there is room for it. Returns its id, and
    /// who is to be woken.
    pub(crate) fn append(
        &mut self,
        name: &Arc<str>,
        message: Message,
        place: Place,
        limits: &Limits,
    ) -> Result<(MessageId, Option<Arc<Wakeup>>), QueueError> {
        let id = self.next_id;
        let one = self.make_room(name, message.cost(), limits)?;
        let wakeup = one.insert(Message {
            id,
            place,
            ..message
        });
        self.next_id += 1;
        self.totals.sent += 1;
        Ok((id, wakeup))
    }

    /// Takes the oldest message, and forgets it with that; `None` if there is none.
    ///
    /// # Errors
    /// [`QueueError::Paused`].
    pub(crate) fn remove_first(&mut self, queue: QueueName) -> Result<Option<Message>, QueueError> {
        let Some(one) = self.queues.get_mut(queue.as_str()) else {
            return Ok(None);
        };
        if one.is_paused {
            return Err(QueueError::Paused(queue.as_str().to_owned()));
        }
        let Some(mut message) = one.pop() else {
            return Ok(None);
        };
        message.attempts += 1;
        one.bytes -= message.cost();
        self.memory.give(message.own_cost());
        self.totals.received += 1;
        self.totals.acked += 1;
        Ok(Some(message))
    }

    /// Counts what a message costs, if there is room for it. Returns the queue that it goes to; if there
    /// is no room, that may be an unused one, which it is for the caller to remove.
    pub(crate) fn make_room(
        &mut self,
        name: &Arc<str>,
        cost: usize,
        limits: &Limits,
    ) -> Result<&mut Queue, QueueError> {
        if self.totals.is_draining {
            return Err(QueueError::Draining);
        }
        let one = self.queues.entry_ref(name).or_default();
        if one.messages() >= limits.messages_max {
            return Err(QueueError::TooManyMessages(limits.messages_max));
        }
        if one.bytes + cost > limits.queue_bytes_max {
            return Err(QueueError::TooManyBytes(limits.queue_bytes_max));
        }
        self.memory.take(cost)?;
        one.bytes += cost;
        Ok(one)
    }

    /// Takes the oldest message; `None` if there is none.
    ///
    /// # Errors
    /// [`QueueError::Paused`].
    pub(crate) fn reserve(&mut self, queue: QueueName) -> Result<Option<Taken>, QueueError> {
        let Some((name, one)) = self.queues.get_key_value_mut(queue.as_str()) else {
            return Ok(None);
        };
        if one.is_paused {
            return Err(QueueError::Paused(name.to_string()));
        }
        let Some(mut message) = one.pop() else {
            return Ok(None);
        };
        one.held += 1;
        message.attempts += 1;
        self.totals.received += 1;
        Ok(Some(Taken {
            queue: Arc::clone(name),
            message,
            lease: None,
        }))
    }

    /// Takes a message off the account.
    pub(crate) fn forgotten(&mut self, taken: &Taken) {
        let cost = taken.message.cost();
        self.totals.acked += 1;
        self.memory.give(taken.message.own_cost());
        if let Some(queue) = self.queues.get_mut(&taken.queue) {
            queue.held -= 1;
            queue.bytes -= cost;
            if queue.is_unused() {
                self.queues.remove(&taken.queue);
            }
        }
    }

    pub(crate) fn end_lease(&mut self, token: Token) -> Option<Taken> {
        let taken = self.leases.remove(&token)?;
        if let Some((token, until)) = taken.lease {
            self.expiries.remove(&(until, token));
        }
        Some(taken)
    }

    /// Takes out so many messages at the most, whether or not the queue is paused.
    pub(crate) fn take_some(
        &mut self,
        queue: &str,
        with_delayed: bool,
        messages_max: usize,
    ) -> Vec<Taken> {
        let Some((name, _)) = self.queues.get_key_value(queue) else {
            return Vec::new();
        };
        let name = Arc::clone(name);
        let queue = self.queues.entry_ref(&name).or_default();
        let due = &mut self.due;
        let mut taken = Vec::new();
        while taken.len() < messages_max {
            let next = queue.pop().or_else(|| {
                let delayed = with_delayed.then(|| queue.delayed.pop_first());
                let ((place, id), message) = delayed.flatten()?;
                due.remove(&(place, id, Arc::clone(&name)));
                Some(message)
            });
            let Some(message) = next else {
                break;
            };
            queue.held += 1;
            taken.push(Taken {
                queue: Arc::clone(&name),
                message,
                lease: None,
            });
        }
        taken
    }

    /// Pauses or resumes a queue; returns who is to be woken.
    pub(crate) fn pause(&mut self, name: &Arc<str>, is_paused: bool) -> Vec<Arc<Wakeup>> {
        let queue = self.queue(name);
        queue.is_paused = is_paused;
        let wakeups = (0..queue.ready()).map_while(|_| queue.next_in_line());
        let wakeups = wakeups.collect();
        self.remove_if_unused(name);
        wakeups
    }

    /// Puts messages that were kept back long enough into their queues, so many at the most. Returns
    /// how many there were, and who is to be woken.
    pub(crate) fn promote(
        &mut self,
        now: Place,
        clock: &Clock,
        messages_max: usize,
    ) -> (usize, Vec<Arc<Wakeup>>) {
        let mut promoted = 0;
        let mut wakeups = Vec::new();
        while promoted < messages_max
            && let Some((due, id, name)) = self.due.pop_first()
        {
            if due > now {
                self.due.insert((due, id, name));
                break;
            }
            let queue = self.queue(&name);
            if let Some(mut message) = queue.delayed.remove(&(due, id)) {
                message.place = clock.next_place();
                wakeups.extend(queue.insert(message));
            }
            promoted += 1;
        }
        (promoted, wakeups)
    }

    /// Takes messages whose lease has run out, so many at the most.
    pub(crate) fn expire(&mut self, now: Place, messages_max: usize) -> Vec<Taken> {
        let mut expired = Vec::new();
        while expired.len() < messages_max
            && let Some(&(until, token)) = self.expiries.first()
            && until <= now
        {
            expired.extend(self.end_lease(token));
        }
        expired
    }

    /// When the next message is due, or the next lease runs out.
    pub(crate) fn first_due(&self) -> Option<Place> {
        let delayed = self.due.first().map(|(due, _, _)| *due);
        let expiry = self.expiries.first().map(|(until, _)| *until);
        [delayed, expiry].into_iter().flatten().min()
    }
}
