//! The queue and its rules, with no socket in sight.
//!
//! A message that is taken is not gone: it is [`Held`] by whoever took it until that acknowledges
//! it, and goes back to its old place when the holder is dropped.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Mutex;

use daemon::lock;
use proto::queue::MessageId;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
        }
    }
}

impl std::error::Error for QueueError {}

/// A first-in, first-out queue that any number of threads may use at once.
pub struct Queue {
    body_bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next_id: MessageId,
    /// What nobody has taken yet, in the order of arrival.
    ready: VecDeque<Message>,
    /// What was taken and given back. Messages are taken from the front, so every one in here is
    /// older than all that are `ready`.
    returned: BTreeMap<MessageId, Message>,
    /// What all messages cost, those that are held included.
    bytes: usize,
}

impl Queue {
    /// An empty queue for messages of at most `body_bytes_max` bytes.
    pub fn new(body_bytes_max: usize) -> Self {
        Self {
            body_bytes_max,
            state: Mutex::default(),
        }
    }

    /// The longest message, in bytes.
    pub fn body_bytes_max(&self) -> usize {
        self.body_bytes_max
    }

    /// Puts a message at the end.
    ///
    /// # Errors
    /// [`QueueError::TooLarge`], [`QueueError::Full`].
    pub fn send(&self, body: &[u8]) -> Result<MessageId, QueueError> {
        if body.len() > self.body_bytes_max {
            return Err(QueueError::TooLarge {
                body_bytes: body.len(),
                body_bytes_max: self.body_bytes_max,
            });
        }
        let body = Box::from(body);
        let mut state = lock(&self.state);
        let bytes = state.bytes + cost(&body);
        if bytes > QUEUE_BYTES_MAX {
            return Err(QueueError::Full);
        }
        state.bytes = bytes;
        let id = state.next_id;
        state.next_id += 1;
        state.ready.push_back(Message { id, body });
        Ok(id)
    }

    fn take(&self) -> Option<Message> {
        let mut state = lock(&self.state);
        match state.returned.pop_first() {
            Some((_, message)) => Some(message),
            None => state.ready.pop_front(),
        }
    }

    fn forget(&self, message: Message) {
        lock(&self.state).bytes -= cost(&message.body);
    }
}

fn cost(body: &[u8]) -> usize {
    MESSAGE_BYTES + body.len()
}

/// What one taker has taken and not acknowledged, oldest first. Dropping it gives everything back,
/// each message to its old place.
#[must_use = "dropping it gives every message back"]
pub struct Held<'q> {
    queue: &'q Queue,
    messages: VecDeque<Message>,
}

impl<'q> Held<'q> {
    /// A taker that holds nothing yet.
    pub fn new(queue: &'q Queue) -> Self {
        Self {
            queue,
            messages: VecDeque::new(),
        }
    }

    /// Takes the oldest message.
    ///
    /// # Errors
    /// [`QueueError::TooManyHeld`].
    pub fn take(&mut self) -> Result<Option<&Message>, QueueError> {
        if self.messages.len() == HELD_MAX {
            return Err(QueueError::TooManyHeld);
        }
        let Some(message) = self.queue.take() else {
            return Ok(None);
        };
        self.messages.push_back(message);
        Ok(self.messages.back())
    }

    /// Forgets a message that is held.
    ///
    /// # Errors
    /// [`QueueError::NotHeld`].
    pub fn ack(&mut self, id: MessageId) -> Result<(), QueueError> {
        let at = self.messages.iter().position(|message| message.id == id);
        let message = at.and_then(|at| self.messages.remove(at));
        self.queue.forget(message.ok_or(QueueError::NotHeld(id))?);
        Ok(())
    }

    /// Forgets the message taken last.
    pub fn ack_last(&mut self) {
        if let Some(message) = self.messages.pop_back() {
            self.queue.forget(message);
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if self.messages.is_empty() {
            return;
        }
        log::debug!("{} messages go back to the queue", self.messages.len());
        let mut state = lock(&self.queue.state);
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
        let queue = Queue::new(10);
        for body in bodies {
            queue.send(body.as_bytes()).unwrap();
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
        held.take().unwrap();
        held.ack_last();
        drop(held);
        assert_eq!(body(&mut Held::new(&queue)).as_deref(), Some("b"));
        assert_eq!(lock(&queue.state).bytes, cost(b"b"));
    }

    #[test]
    fn limits_are_said() {
        let queue = queue_of(&[]);
        let too_large = queue.send(b"12345678901").unwrap_err();
        assert_eq!(
            too_large.to_string(),
            "a message of 11 bytes is over the limit of 10 bytes"
        );
        for _ in 0..=HELD_MAX {
            queue.send(b"").unwrap();
        }
        let mut held = Held::new(&queue);
        for _ in 0..HELD_MAX {
            held.take().unwrap().unwrap();
        }
        assert_eq!(held.take(), Err(QueueError::TooManyHeld));
        lock(&queue.state).bytes = QUEUE_BYTES_MAX;
        assert_eq!(queue.send(b"x"), Err(QueueError::Full));
    }
}
