//! Requests for one queue that arrived together, and are acted on under one lock.

use daemon::lock;
use proto::queue::{MessageId, QueueName};

use crate::QueueError;
use crate::message::Message;
use crate::queues::Queues;

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

impl Queues {
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
}
