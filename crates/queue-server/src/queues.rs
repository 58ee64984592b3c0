//! All queues of a server: the rules of handing out, giving back and forgetting, with no socket in
//! sight.
//!
//! With a database, a change counts when it is committed. That takes a while, so every change comes
//! in two steps: it is begun, and [`Queues::finish`] waits for it, or [`Queues::finish_later`] has it
//! finished by the thread that commits. What is begun in the meantime shares the commit. A message that is [`Taken`] is in no queue, so nobody else can change it, and
//! the database hears of its changes in their order.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use daemon::{Wakeup, lock};
use group_commit::{Committer, Fsync, NotStored, Ticket};
use hashbrown::HashMap;
use proto::queue::{MessageId, QueueName, QueueStats, Reply, Token, Totals};

use crate::journal::{Change, Journal, Row};
use crate::message::{Clock, Message, Place, Taken};
use crate::queue::Queue;
use crate::{Error, QueueError};

/// How many queues there may be.
pub const QUEUES_MAX: usize = 10_000;

/// How many messages are moved or forgotten at once when a whole queue is.
const CHUNK: usize = 1024;

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

/// Any number of queues that any number of threads may use at once.
pub struct Queues {
    shared: Arc<Shared>,
    writer: Option<Committer<Journal>>,
}

/// What the queues and the writer of their database share.
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    pub(crate) state: Mutex<State>,
    /// Something is due earlier than it was.
    due_earlier: Condvar,
}

#[derive(Default)]
pub(crate) struct State {
    queues: HashMap<Arc<str>, Queue>,
    leases: HashMap<Token, Taken>,
    /// When the leases run out.
    expiries: BTreeSet<(Place, Token)>,
    /// The number of the next message, where there is no database to give it.
    next_id: MessageId,
    totals: Totals,
    /// What all messages cost, in bytes.
    bytes: usize,
    /// When [`Queues::wait_until_due`] wakes by itself.
    next_due: Option<Place>,
}

/// A request that others like it are acted on with, under one lock ([`Queues::run`]).
pub enum Step {
    /// To put a message at the end of the queue.
    Send(Message),
    /// To take the oldest message, and to forget it with that.
    Receive,
}

/// What came of a [`Step`].
pub enum Stepped {
    /// A message is in the queue, with this id.
    Stored(MessageId),
    /// It is not.
    Refused(QueueError),
    /// The oldest message.
    Received(Message),
    /// There was none.
    Empty,
}

/// A change that was begun. It counts when [`Queues::finish`] says so, or [`Queues::finish_later`].
#[must_use = "a change that is not finished may lose a message"]
pub struct Begun {
    ticket: Option<Ticket<MessageId>>,
    effect: Effect,
}

/// What is done when a change is committed.
enum Effect {
    /// The message is in its queue already; this is its id if there is no database.
    Store(MessageId),
    /// A message is forgotten, and handed out with that.
    Deliver(Taken),
    /// A message is forgotten.
    Forget(Taken),
    /// A message is leased.
    Lease(Taken),
    /// A message goes to this place in a queue.
    Move {
        taken: Taken,
        queue: Arc<str>,
        place: Place,
        is_delayed: bool,
    },
    /// A lease that ran out at `before` now runs out at `until`.
    Extend {
        token: Token,
        before: Place,
        until: Place,
    },
    /// Nothing more.
    None,
}

impl Queues {
    /// No messages, and nothing is kept on a disk.
    pub fn in_memory(limits: Limits) -> Self {
        let state = State {
            next_id: 1,
            ..State::default()
        };
        Self {
            shared: Arc::new(Shared {
                limits,
                clock: Clock::new(),
                state: Mutex::new(state),
                due_earlier: Condvar::new(),
            }),
            writer: None,
        }
    }

    /// The queues that are kept in a database, which is made if it does not exist. `on_failure` is
    /// called when the disk fails in a way that leaves open what is on it.
    ///
    /// # Errors
    /// If the database is in use, cannot be opened, or is not one of ours.
    pub fn open(
        path: &Path,
        limits: Limits,
        fsync: Fsync,
        on_failure: impl FnOnce() + Send + 'static,
    ) -> Result<Self, Error> {
        let mut queues = Self::in_memory(limits);
        let journal = Journal::open(path, fsync, Arc::clone(&queues.shared))?;
        let writer = Committer::start("journal", journal, on_failure);
        queues.writer = Some(writer.map_err(Error::Thread)?);
        Ok(queues)
    }

    /// The longest message, in bytes.
    pub fn body_bytes_max(&self) -> usize {
        self.shared.limits.body_bytes_max
    }

    /// Whether changes have to be waited for.
    pub fn is_durable(&self) -> bool {
        self.writer.is_some()
    }

    /// Why the disk failed in a way that leaves open what is on it, if it did. Tells it once.
    pub fn failure(&self) -> Option<io::Error> {
        self.writer.as_ref()?.failure()
    }

    fn begin(&self, change: impl FnOnce() -> Change, effect: Effect) -> Begun {
        let ticket = self.writer.as_ref().map(|writer| writer.submit(change()));
        Begun { ticket, effect }
    }

    /// Puts a message at the end of a queue, after a delay.
    ///
    /// # Errors
    /// [`QueueError::TooLarge`], [`QueueError::Draining`], and those of a full queue or server.
    pub fn send(
        &self,
        queue: QueueName,
        delay: Duration,
        body: &[u8],
    ) -> Result<Begun, QueueError> {
        let shared = &*self.shared;
        shared.check_length(body)?;
        if self.writer.is_some() {
            let message = Message::new(body).with_checksum();
            let name = lock(&shared.state).admit(queue, &message, &shared.limits)?;
            let change = || Change::Insert(name, message, delay);
            return Ok(self.begin(change, Effect::Store(0)));
        }
        let mut state = lock(&shared.state);
        let (id, wakeup) = shared.store(&mut state, queue, delay, body)?;
        drop(state);
        wake(wakeup);
        Ok(Begun {
            ticket: None,
            effect: Effect::Store(id),
        })
    }

    /// Acts on several requests for one queue in a row, under one lock, where there is no database to
    /// wait for. What came of each is added to `done`.
    pub fn run(&self, queue: QueueName, steps: &mut Vec<Step>, done: &mut Vec<Stepped>) {
        let shared = &*self.shared;
        let mut wakeups = Vec::new();
        let mut state = lock(&shared.state);
        let name = state.name(queue);
        let is_send = |step: &&Step| matches!(step, Step::Send(_));
        let mut places = shared
            .clock
            .next_places(steps.iter().filter(is_send).count());
        for step in steps.drain(..) {
            done.push(match (&name, step) {
                (Ok(name), Step::Send(message)) => {
                    let place = places.next().expect("there is one for each");
                    match state.append(name, message, place, &shared.limits) {
                        Ok((id, wakeup)) => {
                            wakeups.extend(wakeup);
                            Stepped::Stored(id)
                        }
                        Err(error) => Stepped::Refused(error),
                    }
                }
                (Ok(name), Step::Receive) => match state.remove_first(name) {
                    Some(message) => Stepped::Received(message),
                    None => Stepped::Empty,
                },
                (Err(_), Step::Send(_)) => Stepped::Refused(QueueError::TooManyQueues),
                (Err(_), Step::Receive) => Stepped::Empty,
            });
        }
        if let Ok(name) = name {
            state.remove_if_unused(&name);
        }
        drop(state);
        wakeups.into_iter().for_each(|wakeup| wakeup.wake());
    }

    /// Takes the oldest message.
    pub fn take(&self, queue: QueueName) -> Option<Taken> {
        lock(&self.shared.state).take(queue)
    }

    /// Puts a message back that was not handed out after all.
    pub fn untake(&self, taken: Taken) {
        self.shared.untake(taken);
    }

    /// Begins to forget a message.
    pub fn forget(&self, taken: Taken) -> Begun {
        let id = taken.message.id;
        self.begin(|| Change::Delete(id), Effect::Forget(taken))
    }

    /// Begins to forget a message that is handed out with that.
    pub fn deliver(&self, taken: Taken) -> Begun {
        let id = taken.message.id;
        self.begin(|| Change::Delete(id), Effect::Deliver(taken))
    }

    /// Begins to lease a message.
    pub fn lease(&self, mut taken: Taken, lease: Duration) -> Begun {
        taken.lease = Some((Token::new_v4(), self.shared.clock.after(lease)));
        let row = Row::of(&taken);
        self.begin(|| Change::Update(row), Effect::Lease(taken))
    }

    /// Takes a message that is leased.
    ///
    /// # Errors
    /// [`QueueError::NoLease`].
    pub fn claim(&self, token: Token) -> Result<Taken, QueueError> {
        let mut state = lock(&self.shared.state);
        state.end_lease(token).ok_or(QueueError::NoLease)
    }

    /// Begins to make a lease run out later, or earlier.
    ///
    /// # Errors
    /// [`QueueError::NoLease`].
    pub fn extend(&self, token: Token, lease: Duration) -> Result<Begun, QueueError> {
        let until = self.shared.clock.after(lease);
        let mut state = lock(&self.shared.state);
        let changed = self.shared.change_lease(&mut state, token, until);
        let (row, before) = changed.ok_or(QueueError::NoLease)?;
        drop(state);
        let effect = Effect::Extend {
            token,
            before,
            until,
        };
        Ok(self.begin(|| Change::Extend(row), effect))
    }

    /// Begins to give a message back on purpose: it goes to the end of its queue after a delay, or
    /// to the dead if it was handed out too often.
    pub fn release(&self, taken: Taken, delay: Duration) -> Begun {
        lock(&self.shared.state).totals.released += 1;
        self.put_back(taken, Some(delay))
    }

    /// Gives a message back whose holder is gone: it goes to its old place, or to the dead if it
    /// was handed out too often. Whether the disk knows that it was handed out does not matter
    /// enough to be waited for.
    pub fn give_back(&self, taken: Taken) {
        log::debug!("Message {} goes back to the queue", taken.message.id);
        lock(&self.shared.state).totals.returned += 1;
        let mut begun = self.put_back(taken, None);
        begun.ticket = None;
        // Without a ticket nothing can fail.
        let _ = self.finish(begun, |_| {});
    }

    /// Begins to put a message where it belongs now: to its old place, or to the end after a delay.
    fn put_back(&self, taken: Taken, delay: Option<Duration>) -> Begun {
        let is_dead = QueueName::new(&taken.queue).is_ok_and(QueueName::is_dead);
        let attempts_max = self.shared.limits.attempts_max;
        if taken.message.attempts >= attempts_max && !is_dead {
            let dead = format!("{}{}", taken.queue, QueueName::DEAD_SUFFIX);
            log::warn!(
                "Message {} was handed out {} times and goes to {dead}",
                taken.message.id,
                taken.message.attempts
            );
            lock(&self.shared.state).totals.died += 1;
            return self.move_to_end(taken, dead.into());
        }
        let queue = Arc::clone(&taken.queue);
        let place = match delay {
            Some(delay) => self.shared.clock.place_after(delay),
            None => taken.message.place,
        };
        let is_delayed = delay.is_some_and(|delay| !delay.is_zero());
        self.move_to(taken, queue, place, is_delayed)
    }

    /// Begins to move a message to the end of a queue.
    fn move_to_end(&self, taken: Taken, queue: Arc<str>) -> Begun {
        let place = self.shared.clock.next_place();
        self.move_to(taken, queue, place, false)
    }

    /// Begins to move a message, which keeps its lease and its place until that is committed.
    fn move_to(&self, taken: Taken, queue: Arc<str>, place: Place, is_delayed: bool) -> Begun {
        let row = Row::moved(&taken.message, &queue, place, is_delayed);
        let effect = Effect::Move {
            taken,
            queue,
            place,
            is_delayed,
        };
        self.begin(|| Change::Update(row), effect)
    }

    /// Waits until a change is committed, and hands what came of it to `with`.
    ///
    /// # Errors
    /// [`QueueError::NotStored`]; the message then stays leased if it was, and goes back to its
    /// place in the queue if not.
    pub fn finish<R>(&self, begun: Begun, with: impl FnOnce(Reply) -> R) -> Result<R, QueueError> {
        let committed = begun.ticket.map(Ticket::wait).transpose();
        let shared = &self.shared;
        shared.finish(begun.effect, committed, |outcome| outcome.map(with))
    }

    /// Has a change finished by whoever commits it. What came of it is handed to `with`, and what
    /// that makes of it to `then`, when nothing more remains to be done.
    pub fn finish_later<R>(
        &self,
        begun: Begun,
        with: impl FnOnce(Result<Reply, QueueError>) -> R + Send + 'static,
        then: impl FnOnce(R) + Send + 'static,
    ) {
        let Begun { ticket, effect } = begun;
        let shared = Arc::clone(&self.shared);
        match ticket {
            Some(ticket) => {
                ticket.then(move |committed| {
                    then(shared.finish(effect, committed.map(Some), with));
                });
            }
            None => then(shared.finish(effect, Ok(None), with)),
        }
    }

    /// Gets in line for a message; `None` if there is one.
    ///
    /// # Errors
    /// [`QueueError::TooManyQueues`].
    pub fn get_in_line<'q>(
        &'q self,
        queue: QueueName<'q>,
        wakeup: &'q Arc<Wakeup>,
    ) -> Result<Option<InLine<'q>>, QueueError> {
        let mut state = lock(&self.shared.state);
        let name = state.name(queue)?;
        if !state.queue(&name).get_in_line(wakeup) {
            return Ok(None);
        }
        // Not made when it is not needed: dropping it takes the lock that is held here.
        Ok(Some(InLine {
            queues: self,
            name,
            wakeup,
        }))
    }

    /// Shows the first message behind a place, which stays where it is.
    pub fn peek<R>(&self, queue: QueueName, after: Place, with: impl FnOnce(Reply) -> R) -> R {
        let state = lock(&self.shared.state);
        let one = state.queues.get(queue.as_str());
        let found = one.and_then(|queue| queue.first_behind(after));
        with(found.map_or(Reply::Empty, |message| Reply::Peeked {
            place: message.place,
            id: message.id,
            attempts: message.attempts,
            body: &message.body,
        }))
    }

    /// Tells how the queues are, by name.
    pub fn stats<R>(&self, with: impl FnOnce(Reply) -> R) -> R {
        let shared = &*self.shared;
        let state = lock(&shared.state);
        let now = shared.clock.now();
        let mut queues: Vec<_> = state
            .queues
            .iter()
            .map(|(name, queue)| {
                let dead = state.dead_of(name).map_or(0, Queue::ready);
                let oldest = queue.first_behind(0);
                QueueStats {
                    name,
                    ready: queue.ready() as u64,
                    held: queue.held as u64,
                    delayed: queue.delayed.len() as u64,
                    dead: dead as u64,
                    waiting: queue.waiting() as u64,
                    oldest_millis: oldest.map_or(0, |m| now.saturating_sub(m.place) / 1000),
                    is_paused: queue.is_paused,
                }
            })
            .collect();
        queues.sort_unstable_by_key(|queue| queue.name);
        let totals = Totals {
            memory_bytes: state.bytes as u64,
            memory_bytes_max: shared.limits.memory_bytes_max as u64,
            uptime_millis: shared.clock.uptime().as_millis() as u64,
            ..state.totals
        };
        with(Reply::Stats { totals, queues })
    }

    /// Forgets all messages of a queue that nobody holds; returns how many there were.
    ///
    /// # Errors
    /// [`QueueError::NotStored`]; some of them may be forgotten.
    pub fn purge(&self, queue: QueueName) -> Result<u64, QueueError> {
        self.for_all(queue.as_str(), true, |taken| self.forget(taken))
    }

    /// Moves the messages of a queue's dead back to its end; returns how many there were.
    ///
    /// # Errors
    /// [`QueueError::NotStored`]; some of them may be moved.
    pub fn kick(&self, queue: QueueName) -> Result<u64, QueueError> {
        let name: Arc<str> = queue.as_str().into();
        self.for_all(&queue.dead(), false, |mut taken| {
            taken.message.attempts = 0;
            self.move_to_end(taken, Arc::clone(&name))
        })
    }

    /// Begins something for all the messages that a queue has now, and finishes it.
    fn for_all(
        &self,
        queue: &str,
        with_delayed: bool,
        begin: impl Fn(Taken) -> Begun,
    ) -> Result<u64, QueueError> {
        let mut left = {
            let state = lock(&self.shared.state);
            let one = state.queues.get(queue);
            one.map_or(0, |q| {
                q.ready() + if with_delayed { q.delayed.len() } else { 0 }
            })
        };
        let mut done = 0;
        while left > 0 {
            let chunk = lock(&self.shared.state).take_some(queue, with_delayed, left.min(CHUNK));
            if chunk.is_empty() {
                break;
            }
            left -= chunk.len();
            let begun: Vec<_> = chunk.into_iter().map(&begin).collect();
            let mut failed = None;
            for begun in begun {
                match self.finish(begun, |_| {}) {
                    Ok(()) => done += 1,
                    Err(error) => failed = Some(error),
                }
            }
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(done)
    }

    /// Pauses a queue, or resumes it. A paused queue takes messages, but hands out none.
    ///
    /// # Errors
    /// [`QueueError::TooManyQueues`] and [`QueueError::NotStored`].
    pub fn pause(&self, queue: QueueName, is_paused: bool) -> Result<(), QueueError> {
        let name = lock(&self.shared.state).name(queue)?;
        if !self.is_durable() {
            self.shared.pause(&name, is_paused);
            return Ok(());
        }
        // The writer does it, so that two at once do not leave memory and disk at odds.
        let change = || Change::Pause(Arc::clone(&name), is_paused);
        let finished = self.finish(self.begin(change, Effect::None), |_| {});
        lock(&self.shared.state).remove_if_unused(&name);
        finished
    }

    /// Has all new messages refused, or not any more.
    pub fn drain(&self, is_draining: bool) {
        lock(&self.shared.state).totals.is_draining = is_draining;
    }

    /// Puts what is due into its queue: messages that were kept back, and those whose lease has run
    /// out. Then waits until something more is due, or `is_stopped` after [`Queues::wake_alarm`].
    pub(crate) fn wait_until_due(&self, is_stopped: impl Fn() -> bool) {
        let shared = &*self.shared;
        let (wakeups, expired) = {
            let mut state = lock(&shared.state);
            let now = shared.clock.now();
            (state.ripen(now, &shared.clock), state.expire(now))
        };
        wakeups.into_iter().for_each(|wakeup| wakeup.wake());
        for taken in expired {
            log::info!("The lease of message {} has run out", taken.message.id);
            self.give_back(taken);
        }
        let mut state = lock(&shared.state);
        state.next_due = state.first_due();
        let now = shared.clock.now();
        let wait = state
            .next_due
            .map(|due| Duration::from_micros(due.saturating_sub(now)));
        if is_stopped() || wait == Some(Duration::ZERO) {
            return;
        }
        match wait {
            Some(wait) => drop(shared.due_earlier.wait_timeout(state, wait)),
            None => drop(shared.due_earlier.wait(state)),
        }
    }

    /// Ends the present [`Queues::wait_until_due`].
    pub(crate) fn wake_alarm(&self) {
        // Under the lock, or a waiter between its check and its wait would miss it.
        let _state = lock(&self.shared.state);
        self.shared.due_earlier.notify_all();
    }
}

/// Somebody in line. Dropping it takes him out, and passes on what he was woken for if it is still
/// there.
#[must_use = "whoever is dropped is not in line any more"]
pub struct InLine<'q> {
    queues: &'q Queues,
    name: Arc<str>,
    wakeup: &'q Arc<Wakeup>,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.queues.shared.state);
        let wakeup = match state.queues.get_mut(&self.name) {
            Some(queue) => queue.leave_line(self.wakeup),
            None => None,
        };
        state.remove_if_unused(&self.name);
        drop(state);
        wake(wakeup);
    }
}

fn wake(wakeup: Option<Arc<Wakeup>>) {
    if let Some(wakeup) = wakeup {
        wakeup.wake();
    }
}

impl Shared {
    fn check_length(&self, body: &[u8]) -> Result<(), QueueError> {
        let body_bytes_max = self.limits.body_bytes_max;
        match body.len() {
            body_bytes if body_bytes > body_bytes_max => Err(QueueError::TooLarge {
                body_bytes,
                body_bytes_max,
            }),
            _ => Ok(()),
        }
    }

    /// Puts a message at the end of a queue, where there is no database. Returns its id, and who is
    /// to be woken.
    fn store(
        &self,
        state: &mut State,
        queue: QueueName,
        delay: Duration,
        body: &[u8],
    ) -> Result<(MessageId, Option<Arc<Wakeup>>), QueueError> {
        let mut message = Message::new(body);
        let name = state.admit(queue, &message, &self.limits)?;
        message.id = state.next_id;
        message.place = self.clock.place_after(delay);
        state.next_id += 1;
        let id = message.id;
        let wakeup = self.arrive(state, &name, message, !delay.is_zero());
        Ok((id, wakeup))
    }

    /// Puts a message that was counted by [`State::admit`] into its queue. Returns who is to be
    /// woken.
    fn arrive(
        &self,
        state: &mut State,
        name: &Arc<str>,
        message: Message,
        is_delayed: bool,
    ) -> Option<Arc<Wakeup>> {
        state.totals.sent += 1;
        state.queue(name).arriving -= 1;
        self.put(state, name, message, is_delayed)
    }

    /// Puts committed messages into their queues.
    pub(crate) fn arrived(&self, messages: Vec<(Arc<str>, Message, bool)>) {
        let mut state = lock(&self.state);
        let wakeups: Vec<_> = messages
            .into_iter()
            .filter_map(|(name, message, is_delayed)| {
                self.arrive(&mut state, &name, message, is_delayed)
            })
            .collect();
        drop(state);
        wakeups.into_iter().for_each(|wakeup| wakeup.wake());
    }

    /// Takes messages off the account that could not be committed.
    pub(crate) fn refused(&self, messages: Vec<(Arc<str>, Message, bool)>) {
        let mut state = lock(&self.state);
        for (name, message, _) in messages {
            state.bytes -= message.cost();
            let queue = state.queue(&name);
            queue.arriving -= 1;
            queue.bytes -= message.cost();
            state.remove_if_unused(&name);
        }
    }

    /// Counts and puts a message in that was found in the database.
    pub(crate) fn restore(&self, found: Taken, is_delayed: bool) {
        let mut state = lock(&self.state);
        let cost = found.message.cost();
        state.bytes += cost;
        let queue = state.queue(&found.queue);
        queue.bytes += cost;
        // What became due before the server ended has its place among the others already.
        let is_delayed = is_delayed && found.message.place > self.clock.now();
        if !is_delayed {
            self.clock.skip(found.message.place);
        }
        if found.lease.is_some() {
            queue.held += 1;
            return self.start_lease(&mut state, found);
        }
        self.put(&mut state, &found.queue, found.message, is_delayed);
    }

    /// Pauses or resumes a queue.
    pub(crate) fn pause(&self, name: &Arc<str>, is_paused: bool) {
        let wakeups = lock(&self.state).pause(name, is_paused);
        wakeups.into_iter().for_each(|wakeup| wakeup.wake());
    }

    /// Does what remains to be done when a change is committed, or was refused; hands what came of it
    /// to `with`.
    fn finish<R>(
        &self,
        effect: Effect,
        committed: Result<Option<MessageId>, NotStored>,
        with: impl FnOnce(Result<Reply, QueueError>) -> R,
    ) -> R {
        let stored_id = match committed {
            Ok(id) => id,
            Err(error) => {
                self.undo(effect);
                return with(Err(QueueError::NotStored(error)));
            }
        };
        let done = Reply::Done { messages: 1 };
        match effect {
            Effect::Store(id) => with(Ok(Reply::Stored {
                id: stored_id.unwrap_or(id),
            })),
            Effect::Deliver(taken) => {
                lock(&self.state).forgotten(&taken);
                with(Ok(taken.reply()))
            }
            Effect::Forget(taken) => {
                lock(&self.state).forgotten(&taken);
                with(Ok(done))
            }
            Effect::Lease(taken) => {
                let result = with(Ok(taken.reply()));
                self.start_lease(&mut lock(&self.state), taken);
                result
            }
            Effect::Move {
                mut taken,
                queue,
                place,
                is_delayed,
            } => {
                taken.message.place = place;
                self.put_down_in(taken, queue, is_delayed);
                with(Ok(done))
            }
            Effect::Extend { .. } | Effect::None => with(Ok(done)),
        }
    }

    /// What was not stored did not happen.
    fn undo(&self, effect: Effect) {
        match effect {
            // The writer has taken it off the account.
            Effect::Store(_) | Effect::None => {}
            // Nobody was handed it.
            Effect::Deliver(taken) | Effect::Lease(taken) => self.untake(taken),
            Effect::Forget(taken) | Effect::Move { taken, .. } => match taken.lease {
                // Its token is good for another try.
                Some(_) => self.start_lease(&mut lock(&self.state), taken),
                None => self.put_down(taken),
            },
            Effect::Extend {
                token,
                before,
                until,
            } => {
                let mut state = lock(&self.state);
                // Unless somebody has extended it again.
                if state.expiries.contains(&(until, token)) {
                    self.change_lease(&mut state, token, before);
                }
            }
        }
    }

    /// Puts a message back that was not handed out after all.
    fn untake(&self, mut taken: Taken) {
        taken.message.attempts -= 1;
        lock(&self.state).totals.received -= 1;
        self.put_down(taken);
    }

    /// Puts a message into its place as it is.
    fn put_down(&self, taken: Taken) {
        let queue = Arc::clone(&taken.queue);
        self.put_down_in(taken, queue, false);
    }

    fn put_down_in(&self, taken: Taken, queue: Arc<str>, is_delayed: bool) {
        let mut state = lock(&self.state);
        let wakeup = self.settle(&mut state, taken, queue, is_delayed);
        drop(state);
        wake(wakeup);
    }

    fn put(
        &self,
        state: &mut State,
        name: &Arc<str>,
        message: Message,
        is_delayed: bool,
    ) -> Option<Arc<Wakeup>> {
        if !is_delayed {
            return state.queue(name).insert(message);
        }
        let due = message.place;
        let key = (due, message.id);
        state.queue(name).delayed.insert(key, message);
        self.set_alarm(state, due);
        None
    }

    /// Puts a message that was taken into a queue, its own or another one.
    fn settle(
        &self,
        state: &mut State,
        taken: Taken,
        queue: Arc<str>,
        is_delayed: bool,
    ) -> Option<Arc<Wakeup>> {
        let cost = taken.message.cost();
        let from = state.queue(&taken.queue);
        from.held -= 1;
        from.bytes -= cost;
        state.queue(&queue).bytes += cost;
        let wakeup = self.put(state, &queue, taken.message, is_delayed);
        state.remove_if_unused(&taken.queue);
        wakeup
    }

    fn start_lease(&self, state: &mut State, taken: Taken) {
        if let Some((token, until)) = taken.lease {
            state.expiries.insert((until, token));
            state.leases.insert(token, taken);
            self.set_alarm(state, until);
        }
    }

    /// Has a lease run out at another time, if there is such a lease. Returns the message's new
    /// row, and when the lease would have run out.
    fn change_lease(&self, state: &mut State, token: Token, until: Place) -> Option<(Row, Place)> {
        let mut taken = state.end_lease(token)?;
        let before = taken.lease.replace((token, until));
        let row = Row::of(&taken);
        self.start_lease(state, taken);
        before.map(|(_, before)| (row, before))
    }

    fn set_alarm(&self, state: &mut State, due: Place) {
        if state.next_due.is_none_or(|next| due < next) {
            state.next_due = Some(due);
            self.due_earlier.notify_all();
        }
    }
}

impl State {
    /// The queue of this name, made if it does not exist.
    fn queue(&mut self, name: &Arc<str>) -> &mut Queue {
        self.queues.entry_ref(name).or_default()
    }

    /// The name of a queue as all share it; the queue is made if it does not exist.
    fn name(&mut self, queue: QueueName) -> Result<Arc<str>, QueueError> {
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

    fn remove_if_unused(&mut self, name: &Arc<str>) {
        if self.queues.get(name).is_some_and(Queue::is_unused) {
            self.queues.remove(name);
        }
    }

    fn dead_of(&self, name: &str) -> Option<&Queue> {
        let dead = format!("{name}{}", QueueName::DEAD_SUFFIX);
        self.queues.get(dead.as_str())
    }

    /// Counts a message in that is to be sent, if there is room for it.
    fn admit(
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
    fn append(
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

    /// Takes the oldest message, and forgets it with that.
    fn remove_first(&mut self, name: &Arc<str>) -> Option<Message> {
        let one = self.queues.get_mut(name)?;
        let mut message = one.take()?;
        message.attempts += 1;
        one.bytes -= message.cost();
        self.bytes -= message.cost();
        self.totals.received += 1;
        self.totals.acked += 1;
        Some(message)
    }

    /// Counts what a message costs, if there is room for it. Returns the queue that it goes to; if there
    /// is no room, that may be an unused one, which it is for the caller to remove.
    fn make_room(
        &mut self,
        name: &Arc<str>,
        cost: usize,
        limits: &Limits,
    ) -> Result<&mut Queue, QueueError> {
        if self.totals.is_draining {
            return Err(QueueError::Draining);
        }
        if self.bytes + cost > limits.memory_bytes_max {
            return Err(QueueError::NoMemory(limits.memory_bytes_max));
        }
        let one = self.queues.entry_ref(name).or_default();
        if one.messages() >= limits.messages_max {
            return Err(QueueError::TooManyMessages(limits.messages_max));
        }
        if one.bytes + cost > limits.queue_bytes_max {
            return Err(QueueError::TooManyBytes(limits.queue_bytes_max));
        }
        one.bytes += cost;
        self.bytes += cost;
        Ok(one)
    }

    fn take(&mut self, queue: QueueName) -> Option<Taken> {
        let (name, one) = self.queues.get_key_value_mut(queue.as_str())?;
        let mut message = one.take()?;
        one.held += 1;
        message.attempts += 1;
        self.totals.received += 1;
        Some(Taken {
            queue: Arc::clone(name),
            message,
            lease: None,
        })
    }

    /// Takes a message off the account.
    fn forgotten(&mut self, taken: &Taken) {
        let cost = taken.message.cost();
        self.totals.acked += 1;
        self.bytes -= cost;
        if let Some(queue) = self.queues.get_mut(&taken.queue) {
            queue.held -= 1;
            queue.bytes -= cost;
            if queue.is_unused() {
                self.queues.remove(&taken.queue);
            }
        }
    }

    fn end_lease(&mut self, token: Token) -> Option<Taken> {
        let taken = self.leases.remove(&token)?;
        if let Some((token, until)) = taken.lease {
            self.expiries.remove(&(until, token));
        }
        Some(taken)
    }

    /// Takes out so many messages at the most, whether or not the queue is paused.
    fn take_some(&mut self, queue: &str, with_delayed: bool, messages_max: usize) -> Vec<Taken> {
        let Some((name, _)) = self.queues.get_key_value(queue) else {
            return Vec::new();
        };
        let name = Arc::clone(name);
        let queue = self.queue(&name);
        let mut taken = Vec::new();
        while taken.len() < messages_max {
            let next = queue.pop().or_else(|| {
                let delayed = with_delayed.then(|| queue.delayed.pop_first());
                delayed.flatten().map(|(_, message)| message)
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
    fn pause(&mut self, name: &Arc<str>, is_paused: bool) -> Vec<Arc<Wakeup>> {
        let queue = self.queue(name);
        queue.is_paused = is_paused;
        let wakeups = (0..queue.ready()).map_while(|_| queue.next_in_line());
        let wakeups = wakeups.collect();
        self.remove_if_unused(name);
        wakeups
    }

    /// Puts the messages that were kept back long enough into their queues.
    fn ripen(&mut self, now: Place, clock: &Clock) -> Vec<Arc<Wakeup>> {
        let mut wakeups = Vec::new();
        for queue in self.queues.values_mut() {
            while let Some(entry) = queue.delayed.first_entry()
                && entry.key().0 <= now
            {
                let mut message = entry.remove();
                message.place = clock.next_place();
                wakeups.extend(queue.insert(message));
            }
        }
        wakeups
    }

    /// Takes the messages whose lease has run out.
    fn expire(&mut self, now: Place) -> Vec<Taken> {
        let mut expired = Vec::new();
        while let Some(&(until, token)) = self.expiries.first()
            && until <= now
        {
            expired.extend(self.end_lease(token));
        }
        expired
    }

    /// When the next message is due, or the next lease runs out.
    fn first_due(&self) -> Option<Place> {
        let delayed = self
            .queues
            .values()
            .filter_map(|queue| queue.delayed.first_key_value().map(|(key, _)| key.0))
            .min();
        let expiry = self.expiries.first().map(|(until, _)| *until);
        [delayed, expiry].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
