//! Requests for one queue that arrived together, and are acted on under one lock.

use std::collections::VecDeque;

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
    /// wait for. What came of each is added to `done`. Stops when the messages that are received have
    /// so many bytes; what was not acted on stays in `steps`.
    pub fn run(
        &self,
        queue: QueueName,
        steps: &mut VecDeque<Step>,
        done: &mut Vec<Stepped>,
        bytes_max: usize,
    ) {
        let shared = &*self.shared;
        let mut wakeups = Vec::new();
        let mut state = lock(&shared.state);
        // Only a send makes a queue that is not there.
        let mut name = None;
        let is_send = |step: &&Step| matches!(step, Step::Send(_));
        let mut places = shared
            .clock
            .next_places(steps.iter().filter(is_send).count());
        let mut bytes = 0;
        while bytes < bytes_max
            && let Some(step) = steps.pop_front()
        {
            done.push(match step {
                Step::Send(message) => match name.get_or_insert_with(|| state.name(queue)) {
                    Ok(name) => {
                        let place = places.next().expect("there is one for each");
                        match state.append(name, message, place, &shared.limits) {
                            Ok((id, wakeup)) => {
                                wakeups.extend(wakeup);
                                Stepped::Stored(id)
                            }
                            Err(error) => Stepped::Refused(error),
                        }
                    }
                    Err(error) => Stepped::Refused(error.clone()),
                },
                Step::Receive => match state.remove_first(queue) {
                    Ok(Some(message)) => {
                        bytes += message.body.len();
                        Stepped::Received(message)
                    }
                    Ok(None) => Stepped::Empty,
                    Err(error) => Stepped::Refused(error),
                },
            });
        }
        state.remove_if_unused(queue.as_str());
        drop(state);
        wakeups.into_iter().for_each(|wakeup| wakeup.wake());
    }
}
