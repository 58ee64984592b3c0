//! The queue and its rules, with no socket in sight.
//!
//! A message that is taken is not gone: it is [`Held`] by whoever took it until that acknowledges
//! it, and goes back to its old place when the holder is dropped.
//!
//! With a database, a message is put into the queue, and forgotten, when that is committed. Both
//! take a while, so both come in two steps: ask, and wait. What is asked in the meantime shares
//! the commit.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use daemon::lock;
use group_commit::{Committer, Fsync, NotStored, Ticket};
use proto::queue::MessageId;

use crate::Error;
use crate::journal::{Change, Journal};

/// The bodies of all messages together, and [`MESSAGE_BYTES`] for each, may take so many bytes.
const QUEUE_BYTES_MAX: usize = 1 << 30;

/// What a message costs beside its body, in bytes: its place in the queue and the allocator's.
const MESSAGE_BYTES: usize = 64;

/// How many messages one connection may hold without acknowledging any.
const HELD_MAX: usize = 1024;

/// A message and its number. Numbers grow in the order of arrival.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is acknowledged by.
    pub id: MessageId,
    /// What was sent.
    pub body: Box<[u8]>,
}

/// Why the queue refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueError {
    /// The message is longer than the limit.
    TooLarge {
        /// How long it is.
        body_bytes: usize,
        /// How long it may be.
        body_bytes_max: usize,
    },
    /// The queue holds as much as it may.
    Full,
    /// The holder has as many messages as it may hold; it has to acknowledge some.
    TooManyHeld,
    /// The holder does not have that message.
    NotHeld(MessageId),
    /// The change is not on the disk, or not known to be.
    NotStored(NotStored),
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge {
                body_bytes,
                body_bytes_max,
            } => write!(
                f,
                "a message of {body_bytes} bytes is over the limit of {body_bytes_max} bytes"
            ),
            Self::Full => write!(
                f,
                "the queue is full: its messages take {QUEUE_BYTES_MAX} bytes"
            ),
            Self::TooManyHeld => write!(
                f,
                "this connection holds {HELD_MAX} messages and must acknowledge some first"
            ),
            Self::NotHeld(id) => write!(f, "this connection does not hold a message {id}"),
            Self::NotStored(error) => write!(f, "the change is {error}"),
        }
    }
}

impl std::error::Error for QueueError {}

/// A first-in, first-out queue that any number of threads may use at once.
pub struct Queue {
    shared: Arc<Shared>,
    writer: Option<Committer<Journal>>,
}

/// What the queue and the writer of its database share.
pub(crate) struct Shared {
    body_bytes_max: usize,
    pub(crate) state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    /// The number of the next message, where there is no database to give it.
    next_id: MessageId,
    /// What nobody has taken yet, in the order of arrival.
    ready: VecDeque<Message>,
    /// What was taken and given back. Messages are taken from the front, so every one in here is
    /// older than all that are `ready`.
    returned: BTreeMap<MessageId, Message>,
    /// What all messages cost, those that are held or on their way to the disk included.
    bytes: usize,
}

impl State {
    /// Puts messages that are committed at the end.
    pub(crate) fn append(&mut self, messages: Vec<Message>) {
        self.ready.extend(messages);
    }

    /// Puts messages into an empty queue.
    pub(crate) fn restore(&mut self, messages: Vec<Message>) {
        self.bytes += messages
            .iter()
            .map(|message| cost(&message.body))
            .sum::<usize>();
        self.ready.extend(messages);
    }

    /// Gives up the room of messages that are not in the queue any more, or never came in.
    pub(crate) fn release(&mut self, messages: &[Message]) {
        self.bytes -= messages
            .iter()
            .map(|message| cost(&message.body))
            .sum::<usize>();
    }
}

/// A change that was asked for; with a database, it is done when it has been waited for.
#[must_use = "the change may not be done before it was waited for"]
pub enum Pending {
    /// It is done.
    Done(MessageId),
    /// It is on its way to the disk.
    Waiting(Ticket<MessageId>),
}

impl Pending {
    /// Waits until it is done; returns the message's id.
    ///
    /// # Errors
    /// [`QueueError::NotStored`].
    pub fn wait(self) -> Result<MessageId, QueueError> {
        match self {
            Self::Done(id) => Ok(id),
            Self::Waiting(ticket) => ticket.wait().map_err(QueueError::NotStored),
        }
    }
}

impl Queue {
    /// An empty queue in memory, for messages of at most `body_bytes_max` bytes.
    pub fn in_memory(body_bytes_max: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                body_bytes_max,
                state: Mutex::default(),
            }),
            writer: None,
        }
    }

    /// The queue that is kept in a database, which is made if it does not exist. `on_failure` is
    /// called when the disk fails in a way that leaves open what is on it.
    ///
    /// # Errors
    /// If the database is in use, cannot be opened, or is not one of ours.
    pub fn open(
        path: &Path,
        body_bytes_max: usize,
        fsync: Fsync,
        on_failure: impl FnOnce() + Send + 'static,
    ) -> Result<Self, Error> {
        let mut queue = Self::in_memory(body_bytes_max);
        let journal = Journal::open(path, fsync, Arc::clone(&queue.shared))?;
        let writer = Committer::start("journal", journal, on_failure);
        queue.writer = Some(writer.map_err(Error::Thread)?);
        Ok(queue)
    }

    /// The longest message, in bytes.
    pub fn body_bytes_max(&self) -> usize {
        self.shared.body_bytes_max
    }

    /// Whether changes have to be waited for.
    pub fn is_durable(&self) -> bool {
        self.writer.is_some()
    }

    /// Why the disk failed in a way that leaves open what is on it, if it did. Tells it once.
    pub fn failure(&self) -> Option<io::Error> {
        self.writer.as_ref()?.failure()
    }

    /// Puts a message at the end.
    ///
    /// # Errors
    /// [`QueueError::TooLarge`], [`QueueError::Full`].
    pub fn send(&self, body: &[u8]) -> Result<Pending, QueueError> {
        if body.len() > self.shared.body_bytes_max {
            return Err(QueueError::TooLarge {
                body_bytes: body.len(),
                body_bytes_max: self.shared.body_bytes_max,
            });
        }
        let body = Box::from(body);
        let mut state = lock(&self.shared.state);
        let bytes = state.bytes + cost(&body);
        if bytes > QUEUE_BYTES_MAX {
            return Err(QueueError::Full);
        }
        state.bytes = bytes;
        if let Some(writer) = &self.writer {
            drop(state);
            return Ok(Pending::Waiting(writer.submit(Change::Insert(body))));
        }
        let id = state.next_id;
        state.next_id += 1;
        state.ready.push_back(Message { id, body });
        Ok(Pending::Done(id))
    }

    fn take(&self) -> Option<Message> {
        let mut state = lock(&self.shared.state);
        match state.returned.pop_first() {
            Some((_, message)) => Some(message),
            None => state.ready.pop_front(),
        }
    }

    fn delete(&self, id: MessageId) -> Pending {
        match &self.writer {
            Some(writer) => Pending::Waiting(writer.submit(Change::Delete(id))),
            None => Pending::Done(id),
        }
    }
}

fn cost(body: &[u8]) -> usize {
    MESSAGE_BYTES + body.len()
}

/// What one taker has taken and not acknowledged, oldest first. Dropping it waits for what it has
/// acknowledged, and gives everything else back, each message to its old place.
#[must_use = "dropping it gives every message back"]
pub struct Held<'q> {
    queue: &'q Queue,
    messages: VecDeque<Message>,
    /// Acknowledged, but not waited for.
    acked: VecDeque<(Message, Pending)>,
}

impl<'q> Held<'q> {
    /// A taker that holds nothing yet.
    pub fn new(queue: &'q Queue) -> Self {
        Self {
            queue,
            messages: VecDeque::new(),
            acked: VecDeque::new(),
        }
    }

    /// Takes the oldest message.
    ///
    /// # Errors
    /// [`QueueError::TooManyHeld`].
    pub fn take(&mut self) -> Result<Option<&Message>, QueueError> {
        if self.messages.len() + self.acked.len() >= HELD_MAX {
            return Err(QueueError::TooManyHeld);
        }
        let Some(message) = self.queue.take() else {
            return Ok(None);
        };
        self.messages.push_back(message);
        Ok(self.messages.back())
    }

    /// Acknowledges a message that is held. It is forgotten when [`Held::forgotten`] says so.
    ///
    /// # Errors
    /// [`QueueError::NotHeld`].
    pub fn ack(&mut self, id: MessageId) -> Result<(), QueueError> {
        let at = self.messages.iter().position(|message| message.id == id);
        let message = at.and_then(|at| self.messages.remove(at));
        let message = message.ok_or(QueueError::NotHeld(id))?;
        let pending = self.queue.delete(id);
        self.acked.push_back((message, pending));
        Ok(())
    }

    /// Waits until the message that was acknowledged first is forgotten, and returns it.
    ///
    /// # Errors
    /// [`QueueError::NotStored`]; the message is held again.
    pub fn forgotten(&mut self) -> Result<Option<Message>, QueueError> {
        let Some((message, pending)) = self.acked.pop_front() else {
            return Ok(None);
        };
        if let Err(error) = pending.wait() {
            self.messages.push_back(message);
            return Err(error);
        }
        let forgotten = std::slice::from_ref(&message);
        lock(&self.queue.shared.state).release(forgotten);
        Ok(Some(message))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        while !self.acked.is_empty() {
            // One that could not be forgotten is held again, and goes back with the others.
            let _ = self.forgotten();
        }
        if self.messages.is_empty() {
            return;
        }
        log::debug!("{} messages go back to the queue", self.messages.len());
        let mut state = lock(&self.queue.shared.state);
        let given_back = self.messages.drain(..).map(|message| (message.id, message));
        state.returned.extend(given_back);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(held: &mut Held) -> Option<(MessageId, String)> {
        let message = held.take().unwrap()?;
        Some((
            message.id,
            String::from_utf8(message.body.to_vec()).unwrap(),
        ))
    }

    fn body(held: &mut Held) -> Option<String> {
        take(held).map(|(_, body)| body)
    }

    fn queue_of(bodies: &[&str]) -> Queue {
        let queue = Queue::in_memory(10);
        for body in bodies {
            queue.send(body.as_bytes()).unwrap().wait().unwrap();
        }
        queue
    }

    #[test]
    fn first_in_first_out() {
        let queue = queue_of(&["a", "", "c"]);
        let mut held = Held::new(&queue);
        let taken: Vec<_> = std::iter::from_fn(|| body(&mut held)).collect();
        assert_eq!(taken, ["a", "", "c"]);
    }

    #[test]
    fn what_is_not_acknowledged_goes_back_to_its_old_place() {
        let queue = queue_of(&["a", "b", "c", "d"]);
        let mut first = Held::new(&queue);
        let mut second = Held::new(&queue);
        assert_eq!(body(&mut first).as_deref(), Some("a"));
        let (id, _) = take(&mut second).unwrap();
        assert_eq!(body(&mut first).as_deref(), Some("c"));
        second.ack(id).unwrap();
        assert_eq!(second.forgotten().unwrap().unwrap().id, id);
        assert_eq!(second.ack(id), Err(QueueError::NotHeld(id)));
        drop(first);
        let taken: Vec<_> = std::iter::from_fn(|| body(&mut second)).collect();
        assert_eq!(taken, ["a", "c", "d"]);
        drop(second);
        let mut third = Held::new(&queue);
        assert_eq!(body(&mut third).as_deref(), Some("a"));
    }

    #[test]
    fn what_is_acknowledged_is_forgotten() {
        let queue = queue_of(&["a", "b"]);
        let mut held = Held::new(&queue);
        let id = held.take().unwrap().unwrap().id;
        held.ack(id).unwrap();
        drop(held);
        assert_eq!(body(&mut Held::new(&queue)).as_deref(), Some("b"));
        assert_eq!(lock(&queue.shared.state).bytes, cost(b"b"));
    }

    #[test]
    fn limits_are_said() {
        let queue = queue_of(&[]);
        let too_large = queue.send(b"12345678901").err().unwrap();
        assert_eq!(
            too_large.to_string(),
            "a message of 11 bytes is over the limit of 10 bytes"
        );
        for _ in 0..=HELD_MAX {
            queue.send(b"").unwrap().wait().unwrap();
        }
        let mut held = Held::new(&queue);
        for _ in 0..HELD_MAX {
            held.take().unwrap().unwrap();
        }
        assert_eq!(held.take(), Err(QueueError::TooManyHeld));
        lock(&queue.shared.state).bytes = QUEUE_BYTES_MAX;
        assert_eq!(queue.send(b"x").err(), Some(QueueError::Full));
    }

    fn open(path: &Path) -> Result<Queue, Error> {
        Queue::open(path, 1000, Fsync::Always, || panic!("the disk failed"))
    }

    fn all(queue: &Queue) -> Vec<String> {
        let mut held = Held::new(queue);
        std::iter::from_fn(|| body(&mut held)).collect()
    }

    #[test]
    fn a_database_keeps_what_is_not_acknowledged_in_its_old_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("queue.db");
        let queue = open(&path).unwrap();
        let bodies = ["a", "b", "", "d"];
        let pending: Vec<_> = bodies
            .iter()
            .map(|b| queue.send(b.as_bytes()).unwrap())
            .collect();
        for pending in pending {
            pending.wait().unwrap();
        }
        let mut held = Held::new(&queue);
        assert_eq!(body(&mut held).as_deref(), Some("a"));
        let (second, _) = take(&mut held).unwrap();
        held.ack(second).unwrap();
        assert_eq!(held.forgotten().unwrap().unwrap().id, second);
        assert!(open(&path).is_err(), "two servers on one file");
        drop(held);
        drop(queue);
        let queue = open(&path).unwrap();
        assert_eq!(all(&queue), ["a", "", "d"]);
        queue.send(b"e").unwrap().wait().unwrap();
        drop(queue);
        assert_eq!(all(&open(&path).unwrap()), ["a", "", "d", "e"]);
    }

    #[track_caller]
    fn check_refused_at_start(sql: &str, want: &str) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("queue.db");
        drop(open(&path).unwrap());
        let db = rusqlite::Connection::open(&path).unwrap();
        db.execute_batch(sql).unwrap();
        drop(db);
        let error = open(&path).err().unwrap().to_string();
        assert!(error.contains(want), "{error}");
    }

    #[test]
    fn what_is_not_our_database_is_refused() {
        check_refused_at_start("PRAGMA user_version = 2", "schema version 2");
        check_refused_at_start("PRAGMA application_id = 7", "is not a queue's database");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("queue.db");
        std::fs::write(
            &path,
            "a text of no more than four thousand bytes".repeat(50),
        )
        .unwrap();
        let error = open(&path).err().unwrap();
        assert!(error.to_string().starts_with("cannot open"), "{error}");
    }

    #[test]
    fn a_damaged_message_is_set_aside_and_not_delivered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("queue.db");
        let queue = open(&path).unwrap();
        for body in ["a", "b", "c", "d"] {
            queue.send(body.as_bytes()).unwrap().wait().unwrap();
        }
        drop(queue);
        let db = rusqlite::Connection::open(&path).unwrap();
        db.execute_batch(
            "UPDATE messages SET body = x'78' WHERE id = 2;
             UPDATE messages SET body = 7 WHERE id = 3;",
        )
        .unwrap();
        drop(db);
        assert_eq!(all(&open(&path).unwrap()), ["a", "d"]);
        let db = rusqlite::Connection::open(&path).unwrap();
        let count = "SELECT count(*) FROM damaged";
        let damaged: i64 = db.query_row(count, [], |row| row.get(0)).unwrap();
        assert_eq!(damaged, 2);
    }
}
