//! A TCP connection in frames: one [`Conversation`] each, which acts on its requests in their order.
//!
//! In memory, requests that arrive together are acted on together, under one lock. With a database,
//! each change is submitted to the writer thread, which replies when it is committed; meanwhile the
//! session continues.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use daemon::{
    Caller, Connection, FrameHandler, FrameSession, Next, Role, SharedBytes, TextHandler,
};
use proto::frame::{FrameError, Message as _};
use proto::queue::{Delivery, FIELD_BYTES_MAX, QueueName, QueueNames, Reply, Request};
use uuid::Uuid;

use crate::arrival::{become_waiter, must_arrive, receive, when_idle};
use crate::error::QueueError;
use crate::keys::Sender;
use crate::memory::Room;
use crate::queues::{Operation, Outcome, Pending, Queues, Reservations, millis};
use crate::replies::{long_body, put_error, put_reply};
use crate::requests::{self, Requester};
use crate::sessions::{Attached, Seen, Stamp};
use crate::text;

/// How long a frame may take from its first byte on...
const FRAME_WAIT: Duration = Duration::from_secs(10);

/// ...plus a second for each of this many bytes that a message may have.
const FRAME_BYTES_A_SECOND: usize = 64 * 1024;

/// How long a frame may take from its first byte on.
pub(crate) fn frame_wait(body_bytes_max: usize) -> Duration {
    FRAME_WAIT + Duration::from_secs((body_bytes_max / FRAME_BYTES_A_SECOND) as u64)
}

/// How many operations are acted on under one lock...
const BATCH_MAX: usize = 32;

/// ...and how many bytes their messages may have.
const BATCH_BYTES_MAX: usize = 128 * 1024;

/// The queues behind a TCP port.
pub(crate) struct Service(pub(crate) Arc<Queues>);

impl FrameHandler for Service {
    fn session(&self, caller: &Caller) -> Box<dyn FrameSession + '_> {
        let queues = &*self.0;
        Box::new(Conversation {
            queues,
            sender: caller.into(),
            attached: None,
            batch_first: None,
            reservations: Reservations::new(queues, &caller.peer.to_string()),
            batch: VecDeque::new(),
            batch_queue: String::new(),
            batch_bytes: 0,
            outcomes: Vec::new(),
            room: Room::new(queues.memory()),
            next: Next::Request,
        })
    }

    fn needs(&self, kind: u8, payload: &[u8]) -> Role {
        requests::needs(kind, payload)
    }

    fn payload_bytes_max(&self) -> usize {
        self.0.body_bytes_max() + FIELD_BYTES_MAX
    }

    fn frame_wait(&self) -> Duration {
        frame_wait(self.0.body_bytes_max())
    }
}

impl TextHandler for Service {
    fn serve(&self, connection: &mut Connection) -> io::Result<()> {
        text::serve(connection, &self.0)
    }

    fn request_wait(&self) -> Duration {
        text::TEXT_WAIT
    }

    fn request_bytes_max(&self) -> usize {
        text::bytes_max(self.0.body_bytes_max())
    }

    fn error_reply(&self, sentence: &str) -> Vec<u8> {
        text::error_reply(sentence)
    }
}

/// One connection's requests. What is still in the batch when it is dropped is not done: nobody would be
/// told.
struct Conversation<'q> {
    queues: &'q Queues,
    sender: Sender,
    /// Whose requests these are, if it has said that.
    attached: Option<Attached>,
    /// The number of the first request in the batch.
    batch_first: Option<u64>,
    /// What the connection has reserved.
    reservations: Reservations<'q>,
    /// Operations on one queue that have arrived together and are not acted on yet.
    batch: VecDeque<Operation>,
    batch_queue: String,
    /// How many bytes the messages among them have.
    batch_bytes: usize,
    /// Their outcomes. Empty between two batches, and kept for its capacity.
    outcomes: Vec<Result<Outcome, QueueError>>,
    /// What a long frame takes while it is read, and a long reply while it is gathered.
    room: Room,
    /// What follows the present request.
    next: Next,
}

impl FrameSession for Conversation<'_> {
    fn handle(
        &mut self,
        kind: u8,
        payload: &[u8],
        connection: &mut Connection,
    ) -> io::Result<Next> {
        match Request::decode(kind, payload) {
            Ok(Request::Session { id, next }) => self.attach(id, next, connection)?,
            Ok(request) => {
                let number = self.take_number();
                self.act(&request, number, connection)?;
            }
            Err(error) => self.refuse(&error.into(), connection)?,
        }
        // To lose what it has reserved would count as an attempt.
        connection.set_evictable(self.reservations.is_empty());
        Ok(self.next)
    }

    fn refuse(&mut self, error: &FrameError, connection: &mut Connection) -> io::Result<()> {
        self.take_number();
        self.act_on_batch(connection)?;
        match error {
            FrameError::NoRoom => {
                let full = self.queues.memory().full();
                put_reply(Err(&full), connection.output());
            }
            error => put_error(error.code(), &error.to_string(), connection.output()),
        }
        connection.answered(daemon::Outcome::Error);
        Ok(())
    }

    fn denied(&mut self) {
        self.take_number();
    }

    fn reserve(&mut self, bytes: usize) -> bool {
        self.room.grow_to(bytes)
    }

    fn release(&mut self) {
        self.room.clear();
    }

    fn before_wait(&mut self, connection: &mut Connection) -> io::Result<()> {
        self.act_on_batch(connection)
    }

    fn stopping(&mut self, connection: &mut Connection) -> io::Result<()> {
        // What the client asks from now on is not done, and this tells it so.
        put_reply(Err(&QueueError::ShuttingDown), connection.output());
        Ok(())
    }
}

impl Conversation<'_> {
    /// The number of the present request, if it is one of a session.
    fn take_number(&mut self) -> Option<u64> {
        self.attached.as_mut().map(Attached::take_number)
    }

    /// Begins or continues a session.
    fn attach(&mut self, id: Uuid, next: u64, connection: &mut Connection) -> io::Result<()> {
        self.act_on_batch(connection)?;
        connection.wait_for_replies()?;
        let sessions = self.queues.sessions();
        // What it had is free before it is charged again.
        self.attached = None;
        let result = match sessions.attach(id, next, self.sender.from, self.queues.now()) {
            Ok(attached) => when_idle(attached, connection)?,
            Err(error) => Err(error),
        };
        match result {
            Ok(attached) => {
                self.attached = Some(attached);
                let epoch = self.queues.epoch();
                Reply::Session { epoch }.encode(connection.output());
                connection.answered(daemon::Outcome::Ok);
                Ok(())
            }
            Err(error) => {
                // What stands behind it must not act as if it were of no session.
                self.next = Next::Close;
                self.reply(Err(error), connection)
            }
        }
    }

    /// Acts on a request, or puts it off to act on it together with others.
    fn act(
        &mut self,
        request: &Request,
        number: Option<u64>,
        connection: &mut Connection,
    ) -> io::Result<()> {
        log::debug!("{}", requests::shown(request));
        let is_new = |attached: &Attached| number.is_none_or(|number| attached.is_new(number));
        if self.attached.as_ref().is_none_or(is_new)
            && let Some((queue, operation)) =
                requests::batchable(self.queues, &self.sender, request)
        {
            return self.put_off(queue, operation, number, connection);
        }
        self.act_on_batch(connection)?;
        if requests::sees_all(request) {
            connection.wait_for_replies()?;
        }
        if let Request::Receive { delivery, .. } = request
            && *delivery != Delivery::AtLeastOnce
            && let Err(error) = must_arrive(connection)?
        {
            return self.reply(Err(error), connection);
        }
        let applied = if let Request::Receive {
            queues,
            wait_millis,
            delivery,
        } = request
        {
            let wait = millis(*wait_millis);
            self.receive((request, number), queues, wait, *delivery, connection)?
        } else {
            self.apply(request, number)
        };
        match applied {
            Ok(Pending::Done(outcome)) => self.reply(Ok(outcome), connection),
            Ok(pending) => self.reply_later(request, pending, connection),
            Err(error) => self.reply(Err(error), connection),
        }
    }

    /// Does what a request asks, or submits it to the journal. One that was carried out before is not
    /// done again.
    fn apply(&mut self, request: &Request, number: Option<u64>) -> Result<Pending, QueueError> {
        let stamp = match (&self.attached, number) {
            (Some(attached), Some(number)) if requests::is_remembered(request) => {
                match begin(self.queues, attached, number)? {
                    Ok(stamp) => Some(stamp),
                    Err(outcome) => return Ok(Pending::Done(outcome)),
                }
            }
            (Some(_) | None, Some(_) | None) => None,
        };
        let mut requester = Requester::Connection {
            reservations: &mut self.reservations,
            room: &mut self.room,
        };
        let pending = requests::apply(self.queues, &self.sender, request, &mut requester)?;
        Ok(self.queues.submit(pending, stamp))
    }

    fn put_off(
        &mut self,
        queue: QueueName,
        operation: Operation,
        number: Option<u64>,
        connection: &mut Connection,
    ) -> io::Result<()> {
        let is_full = self.batch.len() >= BATCH_MAX || self.batch_bytes >= BATCH_BYTES_MAX;
        if is_full || self.batch_queue != queue.as_str() {
            self.act_on_batch(connection)?;
            queue.as_str().clone_into(&mut self.batch_queue);
        }
        match &operation {
            Operation::Send(message, _) => self.batch_bytes += message.body.len(),
            // The first one may have to wait. What was sent before does not wait with it.
            Operation::Receive(..) if self.batch.iter().all(Operation::is_send) => {
                self.act_on_batch(connection)?;
                if let Err(error) = must_arrive(connection)? {
                    return self.reply(Err(error), connection);
                }
            }
            // It arrives together with the first one.
            Operation::Receive(..) => {}
        }
        if self.batch.is_empty() {
            self.batch_first = number;
        }
        self.batch.push_back(operation);
        Ok(())
    }

    /// Acts on what was put off, and sends the replies if they are many bytes.
    fn act_on_batch(&mut self, connection: &mut Connection) -> io::Result<()> {
        let mut stamp = match (&self.attached, self.batch_first.take()) {
            (Some(attached), Some(first)) if !self.batch.is_empty() => {
                match attached.begin_new(first, self.batch.len(), self.queues.now()) {
                    Ok(stamp) => Some(stamp),
                    Err(error) => {
                        for _ in std::mem::take(&mut self.batch) {
                            self.reply(Err(error.clone()), connection)?;
                        }
                        None
                    }
                }
            }
            (Some(_) | None, Some(_) | None) => None,
        };
        while !self.batch.is_empty()
            && let Ok(queue) = QueueName::new(&self.batch_queue)
        {
            self.batch_bytes = 0;
            let mut outcomes = std::mem::take(&mut self.outcomes);
            self.queues
                .run(queue, &mut self.batch, &mut outcomes, BATCH_BYTES_MAX);
            if let Some(stamp) = &mut stamp {
                let answer = |one: &Result<Outcome, _>| one.as_ref().ok().and_then(Outcome::answer);
                stamp.remember(outcomes.iter().map(answer));
            }
            for outcome in outcomes.drain(..) {
                self.reply(outcome, connection)?;
            }
            self.outcomes = outcomes;
            connection.flush_if_large()?;
        }
        connection.has_arrived();
        Ok(())
    }

    /// Replies to a request that is done or refused.
    fn reply(
        &mut self,
        result: Result<Outcome, QueueError>,
        connection: &mut Connection,
    ) -> io::Result<()> {
        let long = result.as_ref().ok().and_then(long_body);
        put_reply(result.as_ref(), connection.output());
        connection.answered(daemon::Outcome::of(&result));
        match result {
            Ok(Outcome::Reserved(reserved)) if reserved.lease.is_none() => {
                self.reservations.add(reserved);
            }
            Ok(Outcome::Reserved(leased)) => self.queues.start_lease(leased),
            Err(QueueError::ShuttingDown | QueueError::TakenOver) => self.next = Next::Close,
            Ok(_) | Err(_) => {}
        }
        match long {
            Some(long) => connection.send_behind(&long),
            None => Ok(()),
        }
    }

    /// Has the writer thread reply when a change is committed.
    fn reply_later(
        &self,
        request: &Request,
        pending: Pending,
        connection: &mut Connection,
    ) -> io::Result<()> {
        let delivered_bytes = pending.delivered_bytes();
        let sent_bytes = if let Request::Send { body, .. } = request {
            body.len()
        } else {
            0
        };
        let mut reply = match connection.pending_reply(sent_bytes + delivered_bytes.unwrap_or(0)) {
            Ok(reply) => reply,
            Err(error) => {
                // No client is told, but what is in memory must follow the disk.
                self.queues.on_complete(pending, |_| (), |()| ());
                return Err(error);
            }
        };
        let encode = |result: Result<&Outcome, &QueueError>| {
            let mut out = Vec::new();
            put_reply(result, &mut out);
            (
                daemon::Outcome::of(&result),
                out,
                result.ok().and_then(long_body),
            )
        };
        self.queues
            .on_complete(pending, encode, move |(answer, out, long)| {
                reply.set_outcome(answer);
                reply.complete_with(out, long.map(|long| long as SharedBytes));
            });
        Ok(())
    }

    /// Receives. What stays reserved for the connection counts as waited for.
    fn receive(
        &mut self,
        (request, number): (&Request, Option<u64>),
        asked: &QueueNames,
        wait: Duration,
        delivery: Delivery,
        connection: &mut Connection,
    ) -> io::Result<Result<Pending, QueueError>> {
        if delivery == Delivery::AtLeastOnce
            && let Err(error) = become_waiter(connection)
        {
            return Ok(Err(error));
        }
        let queues = self.queues;
        receive(queues, asked, wait, connection, || {
            self.apply(request, number)
        })
    }
}

/// Begins a request of a session. The inner error is its outcome, if it was carried out before.
fn begin(
    queues: &Queues,
    attached: &Attached,
    number: u64,
) -> Result<Result<Stamp, Outcome>, QueueError> {
    match attached.begin(number, queues.now())? {
        Seen::New(stamp) => Ok(Ok(stamp)),
        Seen::Known(answer) => queues.outcome_of(answer).map(Err),
        // Only if datagrams ask in the same session.
        Seen::Pending | Seen::Refused(_) => Err(QueueError::SessionBusy),
    }
}
