//! The requests of one TCP connection in frames, in their order.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::{Connection, FrameSession, Next, SharedBytes, Waited, Wakeup};
use proto::frame::{FrameError, Message as _};
use proto::queue::{Delivery, QueueName, Request};

use crate::error::QueueError;
use crate::memory::Room;
use crate::message::Reserved;
use crate::queues::{Operation, Outcome, Pending, Queues, Wake};
use crate::replies;
use crate::requests::{self, Requester, millis};

/// How many requests of a connection that arrived together are acted on under one lock, and how many
/// bytes their messages may have.
const BATCH_MAX: usize = 32;
const BATCH_BYTES_MAX: usize = 128 * 1024;

impl Wake for Wakeup {
    fn wake(&self) {
        self.wake();
    }
}

/// One connection's requests. Dropping it requeues what it has reserved.
pub(crate) struct Session<'q> {
    queues: &'q Queues,
    reserved: VecDeque<Reserved>,
    /// Operations on one queue that have arrived together, and were not acted on yet.
    batch: VecDeque<Operation>,
    batch_queue: String,
    /// How many bytes the messages among them have.
    batch_bytes: usize,
    /// Their outcomes; kept for its room.
    outcomes: Vec<Result<Pending, QueueError>>,
    /// What a long frame takes while it is read, and a long reply while it is gathered.
    room: Room,
    /// What follows the present request.
    next: Next,
}

impl FrameSession for Session<'_> {
    fn handle(
        &mut self,
        kind: u8,
        payload: &[u8],
        connection: &mut Connection,
    ) -> io::Result<Next> {
        match Request::decode(kind, payload) {
            Ok(request) => self.act(&request, connection)?,
            Err(error) => self.refuse(&error.into(), connection)?,
        }
        // An eviction would count as an attempt that failed.
        connection.set_evictable(self.reserved.is_empty());
        Ok(self.next)
    }

    fn refuse(&mut self, error: &FrameError, connection: &mut Connection) -> io::Result<()> {
        self.act_on_all(connection)?;
        match error {
            FrameError::NoRoom => self.fail(&self.queues.memory().full(), connection),
            error => replies::put_error(error.code(), &error.to_string(), connection.output()),
        }
        Ok(())
    }

    fn reserve(&mut self, bytes: usize) -> bool {
        self.room.grow_to(bytes)
    }

    fn release(&mut self) {
        self.room.clear();
    }

    fn before_wait(&mut self, connection: &mut Connection) -> io::Result<()> {
        self.act_on_all(connection)
    }

    fn stopping(&mut self, connection: &mut Connection) -> io::Result<()> {
        // Whatever the client asks from now on is not done, and this tells it so.
        self.fail(&QueueError::ShuttingDown, connection);
        Ok(())
    }
}

impl<'q> Session<'q> {
    pub(crate) fn new(queues: &'q Queues) -> Self {
        Self {
            queues,
            reserved: VecDeque::new(),
            batch: VecDeque::new(),
            batch_queue: String::new(),
            batch_bytes: 0,
            outcomes: Vec::new(),
            room: Room::new(queues.memory()),
            next: Next::Request,
        }
    }

    /// Acts on a request. Its reply follows those to the requests before it.
    fn act(&mut self, request: &Request, connection: &mut Connection) -> io::Result<()> {
        log::debug!("{}", requests::shown(request));
        if let Some((queue, operation)) = requests::batchable(self.queues, request) {
            return self.put_off(queue, operation, connection);
        }
        self.act_on_all(connection)?;
        if requests::sees_all(request) {
            connection.wait_for_replies()?;
        }
        let (applied, sent_bytes) = match *request {
            Request::Receive {
                queue,
                wait_millis,
                delivery,
            } => {
                let received =
                    self.receive(request, queue, millis(wait_millis), delivery, connection)?;
                (received, 0)
            }
            Request::Send { body, .. } => (self.apply(request), body.len()),
            _ => (self.apply(request), 0),
        };
        match applied {
            Ok(Pending::Done(outcome)) => self.reply(Ok(outcome), connection),
            Ok(pending) => self.reply_later(pending, sent_bytes, connection),
            Err(error) => self.reply(Err(error), connection),
        }
    }

    /// Leaves the reply to the thread that commits the change.
    fn reply_later(
        &self,
        pending: Pending,
        sent_bytes: usize,
        connection: &mut Connection,
    ) -> io::Result<()> {
        let body_bytes = pending.body_bytes();
        let reply = connection.pending_reply(sent_bytes + body_bytes)?;
        if body_bytes > 0 {
            // The message leaves its queue.
            connection.must_arrive();
        }
        self.queues.on_complete(pending, move |result| {
            let mut out = Vec::new();
            replies::put(result.as_ref(), &mut out);
            let long = result.ok().as_ref().and_then(replies::long_body);
            reply.complete_with(out, long.map(|long| long as SharedBytes));
        });
        Ok(())
    }

    fn apply(&mut self, request: &Request) -> Result<Pending, QueueError> {
        let mut requester = Requester::Connection {
            reserved: &mut self.reserved,
            room: &mut self.room,
        };
        requests::apply(self.queues, request, &mut requester)
    }

    fn put_off(
        &mut self,
        queue: QueueName,
        operation: Operation,
        connection: &mut Connection,
    ) -> io::Result<()> {
        let is_much = self.batch.len() >= BATCH_MAX || self.batch_bytes >= BATCH_BYTES_MAX;
        if is_much || self.batch_queue != queue.as_str() {
            self.act_on_all(connection)?;
            queue.as_str().clone_into(&mut self.batch_queue);
        }
        if let Operation::Send(message, _) = &operation {
            self.batch_bytes += message.body.len();
        }
        self.batch.push_back(operation);
        Ok(())
    }

    /// Acts on all that was put off, and sends the replies when they are many bytes.
    fn act_on_all(&mut self, connection: &mut Connection) -> io::Result<()> {
        while !self.batch.is_empty() {
            let Ok(queue) = QueueName::new(&self.batch_queue) else {
                return Ok(());
            };
            self.batch_bytes = 0;
            self.queues
                .run(queue, &mut self.batch, &mut self.outcomes, BATCH_BYTES_MAX);
            let mut outcomes = std::mem::take(&mut self.outcomes);
            for outcome in outcomes.drain(..) {
                let outcome = outcome.and_then(|pending| self.queues.wait(pending));
                self.reply(outcome, connection)?;
            }
            self.outcomes = outcomes;
            connection.flush_if_large()?;
        }
        Ok(())
    }

    /// Writes a reply, and sends it up to its body if that is long.
    fn reply(
        &mut self,
        result: Result<Outcome, QueueError>,
        connection: &mut Connection,
    ) -> io::Result<()> {
        replies::put(result.as_ref(), connection.output());
        let Ok(outcome) = result else {
            return Ok(());
        };
        let long = replies::long_body(&outcome);
        match outcome {
            Outcome::Reserved(reserved) => self.reserved.push_back(reserved),
            // The message is no longer in its queue.
            Outcome::Delivered(_) => connection.must_arrive(),
            Outcome::Stored(_)
            | Outcome::Empty
            | Outcome::Done(_)
            | Outcome::Peeked(_)
            | Outcome::Stats(_) => {}
        }
        match long {
            Some(long) => connection.send_behind(&long),
            None => Ok(()),
        }
    }

    /// Takes the oldest message, and waits for one if there is none.
    fn receive(
        &mut self,
        request: &Request,
        queue: QueueName,
        wait: Duration,
        delivery: Delivery,
        connection: &mut Connection,
    ) -> io::Result<Result<Pending, QueueError>> {
        if delivery == Delivery::AtLeastOnce
            && let Err(error) = connection.become_waiter()
        {
            return Ok(Err(cannot_wait(&error)));
        }
        let mut received = self.apply(request);
        // What this connection has sent or requeued before, it must be able to receive.
        if is_nothing(&received) && connection.wait_for_replies()? {
            received = self.apply(request);
        }
        if is_nothing(&received) && !wait.is_zero() {
            received = self.wait_for(request, queue, wait, connection)?;
        }
        Ok(received)
    }

    /// Sleeps until there is a message, or the wait is over.
    ///
    /// # Errors
    /// If the client has hung up.
    fn wait_for(
        &mut self,
        request: &Request,
        queue: QueueName,
        wait: Duration,
        connection: &mut Connection,
    ) -> io::Result<Result<Pending, QueueError>> {
        let deadline = Instant::now() + wait;
        let counted = connection.become_waiter();
        let wakeup = match counted.and_then(|()| connection.wakeup()) {
            Ok(wakeup) => wakeup,
            Err(error) => return Ok(Err(cannot_wait(&error))),
        };
        loop {
            let waiter = match self.queues.add_waiter(queue, Arc::clone(&wakeup) as _) {
                Ok(waiter) => waiter,
                Err(error) => return Ok(Err(error)),
            };
            let waited = match waiter {
                Some(_) => connection.wait(deadline)?,
                None => Waited::Woken,
            };
            match waited {
                Waited::Woken => {}
                Waited::TimedOut => return Ok(self.apply(request)),
                Waited::Stopping => {
                    self.next = Next::Close;
                    return Ok(Err(QueueError::ShuttingDown));
                }
                Waited::HungUp => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
            let received = self.apply(request);
            if !is_nothing(&received) {
                return Ok(received);
            }
        }
    }

    /// Says why a request was not done, behind the replies to those before it.
    fn fail(&self, error: &QueueError, connection: &mut Connection) {
        replies::put(Err(error), connection.output());
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // What was not acted on yet is not acted on any more: nobody would be told.
        self.batch.clear();
        for reserved in self.reserved.drain(..) {
            // When the server stops, that is no attempt that failed.
            match self.queues.is_stopping() {
                true => self.queues.requeue_at_stop(reserved),
                false => self.queues.requeue(reserved),
            }
        }
    }
}

/// Whether a receiver that waits has to wait on.
fn is_nothing(received: &Result<Pending, QueueError>) -> bool {
    matches!(
        received,
        Ok(Pending::Done(Outcome::Empty)) | Err(QueueError::Paused(_))
    )
}

/// Tells why a receiver is refused.
fn cannot_wait(error: &io::Error) -> QueueError {
    log::warn!("A receiver is refused: {error}");
    QueueError::CannotWait
}
