//! The requests of one TCP connection in frames, in their order.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::{Connection, DEFERRED_BYTES_MAX, Waited, Wakeup};
use proto::ErrorCode;
use proto::queue::{Delivery, FIELD_BYTES_MAX, QueueName, Request};

use crate::error::QueueError;
use crate::memory::{LongBody, Room};
use crate::message::Reserved;
use crate::queues::{Operation, Outcome, Pending, Queues, Wake};
use crate::replies;
use crate::requests::{self, Requester, millis};

/// How many replies may wait for the disk, and how many bytes the messages of those may have, before
/// a connection waits too.
const WAITING_MAX: usize = 256;
const WAITING_BYTES_MAX: usize = 1 << 20;

/// A message of so many bytes may be handed out by another thread, which cannot wait for the peer.
const DEFERRED_BODY_BYTES_MAX: usize = DEFERRED_BYTES_MAX - FIELD_BYTES_MAX;

/// How many requests of a connection that arrived together are acted on under one lock, and how many
/// bytes their messages may have.
const BATCH_MAX: usize = 32;
const BATCH_BYTES_MAX: usize = 128 * 1024;

impl Wake for Wakeup {
    fn wake(&self) {
        self.wake();
    }
}

/// One connection's requests. Dropping it waits for its changes, and requeues what it has reserved.
pub(crate) struct Session<'q> {
    queues: &'q Queues,
    pub(crate) reserved: VecDeque<Reserved>,
    pending: VecDeque<Pending>,
    /// How many bytes the messages in `pending` have that were sent, or are handed out.
    pending_bytes: usize,
    /// Operations on one queue that have arrived together, and were not acted on yet.
    batch: VecDeque<Operation>,
    batch_queue: String,
    /// How many bytes the messages among them have.
    batch_bytes: usize,
    /// Their outcomes; kept for its room.
    outcomes: Vec<Result<Pending, QueueError>>,
    /// What a long frame takes while it is read, and a long reply while it is gathered.
    pub(crate) room: Room,
    /// Whether a message is among the replies that were not sent yet.
    has_delivered: bool,
    wakeup: Option<Arc<Wakeup>>,
    /// Whether the client was told that the server is shutting down.
    pub(crate) is_told_of_stop: bool,
}

impl<'q> Session<'q> {
    pub(crate) fn new(queues: &'q Queues) -> Self {
        Self {
            queues,
            reserved: VecDeque::new(),
            pending: VecDeque::new(),
            pending_bytes: 0,
            batch: VecDeque::new(),
            batch_queue: String::new(),
            batch_bytes: 0,
            outcomes: Vec::new(),
            room: Room::new(queues.memory()),
            has_delivered: false,
            wakeup: None,
            is_told_of_stop: false,
        }
    }

    /// Acts on a request. Replies are given in the order of the requests, now or by
    /// [`Session::flush`].
    pub(crate) fn act(&mut self, request: Request, connection: &mut Connection) -> io::Result<()> {
        log::debug!("{}", requests::shown(&request));
        if let Some((queue, operation)) = requests::batchable(self.queues, &request) {
            return self.put_off(queue, operation, connection);
        }
        self.act_on_all(connection)?;
        if requests::sees_all(&request) {
            self.flush(connection)?;
        }
        let applied = match request {
            Request::Receive {
                queue,
                wait_millis,
                delivery,
            } => self.receive(&request, queue, millis(wait_millis), delivery, connection)?,
            Request::Send { body, .. } => {
                self.pending_bytes += body.len();
                self.apply(&request)
            }
            _ => self.apply(&request),
        };
        match applied {
            Ok(Pending::Done(outcome)) => {
                self.flush(connection)?;
                self.reply(Ok(outcome), connection)?;
            }
            Ok(pending) => {
                self.pending_bytes += pending.body_bytes();
                self.pending.push_back(pending);
            }
            Err(error) => self.fail(&error, connection)?,
        }
        let is_much = self.pending.len() >= WAITING_MAX || self.pending_bytes >= WAITING_BYTES_MAX;
        if is_much {
            self.flush(connection)?;
        }
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
    pub(crate) fn act_on_all(&mut self, connection: &mut Connection) -> io::Result<()> {
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
            self.see_to_arrival(connection);
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
            Outcome::Delivered(_) => self.has_delivered = true,
            Outcome::Stored(_)
            | Outcome::Empty
            | Outcome::Done(_)
            | Outcome::Peeked(_)
            | Outcome::Stats(_) => {}
        }
        self.send_long(long, connection)
    }

    fn send_long(
        &mut self,
        long: Option<Arc<LongBody>>,
        connection: &mut Connection,
    ) -> io::Result<()> {
        let Some(long) = long else {
            return Ok(());
        };
        self.see_to_arrival(connection);
        connection.send_behind(&long)
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
        if is_nothing(&received) && !self.pending.is_empty() {
            // What this connection has sent or requeued before, it must be able to receive.
            self.flush(connection)?;
            received = self.apply(request);
        }
        if is_nothing(&received) && !wait.is_zero() {
            received = self.wait_for(request, queue, wait, connection)?;
        }
        if let Ok(Pending::Submitted(..)) = received {
            self.has_delivered = true;
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
        let wakeup = match self.wakeup(connection) {
            Ok(wakeup) => wakeup,
            Err(error) => return Ok(Err(cannot_wait(&error))),
        };
        loop {
            let waiter = match self.queues.add_waiter(queue, Arc::clone(&wakeup) as _) {
                Ok(waiter) => waiter,
                Err(error) => return Ok(Err(error)),
            };
            let waited = match waiter {
                Some(_) => connection.wait(&wakeup, deadline)?,
                None => Waited::Woken,
            };
            match waited {
                Waited::Woken => {}
                Waited::TimedOut => return Ok(self.apply(request)),
                Waited::Stopping => {
                    self.is_told_of_stop = true;
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

    fn wakeup(&mut self, connection: &mut Connection) -> io::Result<Arc<Wakeup>> {
        let wakeup = match self.wakeup.take() {
            Some(wakeup) => wakeup,
            None => Arc::new(connection.wakeup()?),
        };
        self.wakeup = Some(Arc::clone(&wakeup));
        Ok(wakeup)
    }

    /// Waits for the disk, and gives every reply that was not given yet.
    fn flush(&mut self, connection: &mut Connection) -> io::Result<()> {
        self.act_on_all(connection)?;
        while let Some(pending) = self.pending.pop_front() {
            let outcome = self.queues.wait(pending);
            self.reply(outcome, connection)?;
            self.see_to_arrival(connection);
            connection.flush_if_large()?;
        }
        self.pending_bytes = 0;
        Ok(())
    }

    /// Keeps a connection from being evicted before it has sent a message that is no longer in its
    /// queue.
    pub(crate) fn see_to_arrival(&mut self, connection: &mut Connection) {
        if std::mem::take(&mut self.has_delivered) {
            connection.must_arrive();
        }
    }

    pub(crate) fn settle_or_defer(&mut self, connection: &mut Connection) -> io::Result<()> {
        self.act_on_all(connection)?;
        let is_short = self.pending_bytes <= DEFERRED_BODY_BYTES_MAX;
        let deferred = match self.pending.len() == 1 && is_short {
            true => connection.try_defer(),
            false => None,
        };
        let Some(deferred) = deferred else {
            return self.flush(connection);
        };
        if let Some(pending) = self.pending.pop_front() {
            self.queues.on_complete(pending, move |outcome| {
                let mut out = Vec::new();
                replies::put(outcome.as_ref(), &mut out);
                deferred.reply(&out);
            });
        }
        self.pending_bytes = 0;
        Ok(())
    }

    /// Requeues what the client has reserved when the server stops.
    pub(crate) fn requeue_at_stop(&mut self) {
        for reserved in self.reserved.drain(..) {
            self.queues.requeue_at_stop(reserved);
        }
    }

    /// Says why a request was not done, behind the replies to those before it.
    pub(crate) fn fail(
        &mut self,
        error: &QueueError,
        connection: &mut Connection,
    ) -> io::Result<()> {
        self.refuse(replies::code(error), &error.to_string(), connection)
    }

    pub(crate) fn refuse(
        &mut self,
        code: ErrorCode,
        sentence: &str,
        connection: &mut Connection,
    ) -> io::Result<()> {
        self.flush(connection)?;
        replies::put_error(code, sentence, connection.output());
        Ok(())
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // What was not acted on yet is not acted on any more: nobody would be told.
        self.batch.clear();
        for pending in self.pending.drain(..) {
            if let Err(error) = self.queues.wait(pending) {
                log::debug!("Not done, and nobody is told: {error}");
            }
        }
        for reserved in self.reserved.drain(..) {
            self.queues.requeue(reserved);
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
