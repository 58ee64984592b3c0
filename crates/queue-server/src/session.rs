//! The requests of one TCP connection in frames, acted on in their order: what it holds, and what was
//! begun and not answered yet.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use daemon::{Connection, DEFERRED_BYTES_MAX, Wakeup};
use proto::ErrorCode;
use proto::ErrorReply;
use proto::frame::Message as _;
use proto::queue::{Claim, Delivery, FIELD_BYTES_MAX, QueueName, Reply, Request};

use crate::QueueError;
use crate::begun::Begun;
use crate::memory::{FREE_BYTES, LongBody, Room};
use crate::message::{Message, Taken};
use crate::queues::Queues;
use crate::steps::{Step, Stepped};

mod receive;

/// How many replies may wait for the disk, and how many bytes the messages of those may have, before
/// a connection waits too.
const WAITING_MAX: usize = 256;
const WAITING_BYTES_MAX: usize = 1 << 20;

/// A message of so many bytes may be handed out by another thread, which cannot wait for the peer.
const DEFERRED_BODY_BYTES_MAX: usize = DEFERRED_BYTES_MAX - FIELD_BYTES_MAX;

/// How many requests of a connection that arrived together are acted on under one lock, and how many
/// bytes their messages may have.
const STEPS_MAX: usize = 32;
const STEPS_BYTES_MAX: usize = 128 * 1024;

/// One connection's requests: what it holds, and which changes were begun and not answered yet.
/// Dropping it finishes those, and gives everything back that it holds.
pub(crate) struct Session<'q> {
    queues: &'q Queues,
    pub(crate) held: VecDeque<Taken>,
    begun: VecDeque<Begun>,
    /// How many bytes the messages in `begun` have that were sent, or are handed out.
    begun_bytes: usize,
    /// Requests for one queue that have arrived together, and were not acted on yet.
    steps: VecDeque<Step>,
    steps_queue: String,
    /// How many bytes the messages among them have.
    steps_bytes: usize,
    /// What came of them; kept for its room.
    stepped: Vec<Stepped>,
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
            held: VecDeque::new(),
            begun: VecDeque::new(),
            begun_bytes: 0,
            steps: VecDeque::new(),
            steps_queue: String::new(),
            steps_bytes: 0,
            stepped: Vec::new(),
            room: Room::new(&queues.shared.memory),
            has_delivered: false,
            wakeup: None,
            is_told_of_stop: false,
        }
    }

    /// Acts on a request. Replies are given in the order of the requests, now or by
    /// [`Session::settle`].
    pub(crate) fn act(&mut self, request: Request, connection: &mut Connection) -> io::Result<()> {
        log::debug!("{}", shown(&request));
        if self.act_soon(&request, connection)? {
            return Ok(());
        }
        self.act_on_all(connection)?;
        let begun = self.begin(request, connection)?;
        match begun {
            Ok(begun) => self.begun.extend(begun),
            Err(error) => self.fail(&error, connection)?,
        }
        let is_much = self.begun.len() >= WAITING_MAX || self.begun_bytes >= WAITING_BYTES_MAX;
        if !self.queues.is_durable() || is_much {
            self.settle(connection)?;
        }
        Ok(())
    }

    /// Adds a request to those that are acted on together, as most are; returns whether that was
    /// possible. Where it may have to wait, it is not.
    fn act_soon(&mut self, request: &Request, connection: &mut Connection) -> io::Result<bool> {
        if self.queues.is_durable() {
            return Ok(false);
        }
        let (queue, bytes, step) = match *request {
            Request::Send {
                queue,
                delay_millis: 0,
                body,
            } if body.len() <= self.queues.body_bytes_max().min(FREE_BYTES) => {
                (queue, body.len(), Step::Send(Message::new(body)))
            }
            Request::Receive {
                queue,
                wait_millis: 0,
                delivery: Delivery::AtMostOnce,
            } => (queue, 0, Step::Receive),
            Request::Send { .. }
            | Request::Receive { .. }
            | Request::Ack { .. }
            | Request::Release { .. }
            | Request::Unreserve { .. }
            | Request::UnreserveAll
            | Request::Extend { .. }
            | Request::Peek { .. }
            | Request::Stats
            | Request::Purge { .. }
            | Request::Pause { .. }
            | Request::Resume { .. }
            | Request::Kick { .. }
            | Request::Drain { .. } => return Ok(false),
        };
        let is_much = self.steps.len() >= STEPS_MAX || self.steps_bytes >= STEPS_BYTES_MAX;
        if is_much || self.steps_queue != queue.as_str() {
            self.act_on_all(connection)?;
            queue.as_str().clone_into(&mut self.steps_queue);
        }
        self.steps.push_back(step);
        self.steps_bytes += bytes;
        Ok(true)
    }

    /// Acts on all that was put off, and sends the replies when they are many bytes.
    pub(crate) fn act_on_all(&mut self, connection: &mut Connection) -> io::Result<()> {
        while !self.steps.is_empty() {
            self.act_now(connection)?;
            self.see_to_arrival(connection);
            connection.flush_if_large()?;
        }
        Ok(())
    }

    /// Acts on what was put off, up to some bytes of messages that are received, and replies.
    fn act_now(&mut self, connection: &mut Connection) -> io::Result<()> {
        if self.steps.is_empty() {
            return Ok(());
        }
        let Ok(queue) = QueueName::new(&self.steps_queue) else {
            return Ok(());
        };
        self.steps_bytes = 0;
        self.queues
            .run(queue, &mut self.steps, &mut self.stepped, STEPS_BYTES_MAX);
        let mut stepped = std::mem::take(&mut self.stepped);
        for stepped in stepped.drain(..) {
            let out = connection.output();
            match stepped {
                Stepped::Stored(id) => Reply::Stored { id }.encode(out),
                Stepped::Refused(error) => put_failure(&error, out),
                Stepped::Received(message) => {
                    self.has_delivered = true;
                    let long = message.body.shared();
                    put_reply(&message.reply(), long.is_some(), out);
                    drop(message);
                    self.send_long(long, connection)?;
                }
                Stepped::Empty => Reply::Empty.encode(out),
            }
        }
        self.stepped = stepped;
        Ok(())
    }

    /// Sends the body behind the reply that was gathered last, if it is long.
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

    /// Begins a change, or replies at once.
    fn begin(
        &mut self,
        request: Request,
        connection: &mut Connection,
    ) -> io::Result<Result<Option<Begun>, QueueError>> {
        let queues = self.queues;
        Ok(match request {
            Request::Send {
                queue,
                delay_millis,
                body,
            } => {
                self.begun_bytes += body.len();
                let room = &mut self.room;
                queues
                    .send_from(room, queue, millis(delay_millis), body)
                    .map(Some)
            }
            Request::Receive {
                queue,
                wait_millis,
                delivery,
            } => {
                let wait = millis(wait_millis);
                return self.receive(queue, wait, delivery, connection);
            }
            Request::Ack { claim } => self.claim(claim).map(|taken| Some(queues.forget(taken))),
            Request::Release {
                claim,
                delay_millis,
            } => {
                let release = |taken| queues.release(taken, millis(delay_millis));
                self.claim(claim).map(release).map(Some)
            }
            Request::Unreserve { claim } => {
                self.claim(claim).map(|taken| Some(queues.unreserve(taken)))
            }
            Request::UnreserveAll => {
                self.settle(connection)?;
                self.unreserve_all().map(|messages| {
                    Reply::Done { messages }.encode(connection.output());
                    None
                })
            }
            Request::Extend {
                token,
                lease_millis,
            } => queues.extend(token, millis(lease_millis)).map(Some),
            Request::Peek { queue, after } => {
                self.settle(connection)?;
                match queues.peek_at(queue, after) {
                    None => Reply::Empty.encode(connection.output()),
                    Some(peeked) => {
                        let long = peeked.body.shared();
                        put_reply(&peeked.reply(), long.is_some(), connection.output());
                        drop(peeked);
                        self.send_long(long, connection)?;
                    }
                }
                Ok(None)
            }
            Request::Stats => {
                self.settle(connection)?;
                if !self.room.grow_for_look(queues.count()) {
                    return Ok(Err(queues.shared.memory.full()));
                }
                queues.stats(|reply| reply.encode(connection.output()));
                Ok(None)
            }
            Request::Purge { queue } => self.at_once(connection, || queues.purge(queue))?,
            Request::Pause { queue } => self.at_once(connection, || queues.pause(queue, true))?,
            Request::Resume { queue } => self.at_once(connection, || queues.pause(queue, false))?,
            Request::Kick { queue } => self.at_once(connection, || queues.kick(queue))?,
            Request::Drain { on } => self.at_once(connection, || Ok(queues.drain(on)))?,
        })
    }

    /// Does at once what concerns whole queues, behind everything that was begun before it.
    fn at_once(
        &mut self,
        connection: &mut Connection,
        change: impl FnOnce() -> Result<u64, QueueError>,
    ) -> io::Result<Result<Option<Begun>, QueueError>> {
        self.settle(connection)?;
        Ok(change().map(|messages| {
            Reply::Done { messages }.encode(connection.output());
            None
        }))
    }

    /// What this client was handed, and wants to be rid of.
    fn claim(&mut self, claim: Claim) -> Result<Taken, QueueError> {
        match claim {
            Claim::Leased(token) => self.queues.claim(token),
            Claim::Reserved(id) => {
                let at = self.held.iter().position(|taken| taken.message.id == id);
                let taken = at.and_then(|at| self.held.remove(at));
                taken.ok_or(QueueError::NotReserved(id))
            }
        }
    }

    /// Takes back all that the client has reserved, in one commit. Returns how many that were.
    fn unreserve_all(&mut self) -> Result<u64, QueueError> {
        let queues = self.queues;
        let begun: Vec<_> = self
            .held
            .drain(..)
            .map(|taken| queues.unreserve(taken))
            .collect();
        let messages = begun.len() as u64;
        // All are finished, also when one is not stored.
        let finished = begun.into_iter().map(|begun| queues.finish(begun, |_| ()));
        finished.fold(Ok(()), Result::and).map(|()| messages)
    }

    /// Waits for the disk, and gives every reply that was not given yet.
    fn settle(&mut self, connection: &mut Connection) -> io::Result<()> {
        self.act_on_all(connection)?;
        while let Some(begun) = self.begun.pop_front() {
            let long = begun.long_body();
            let out = connection.output();
            let finished = self.queues.finish(begun, |reply| {
                self.has_delivered |= matches!(reply, Reply::Message { .. } | Reply::Leased { .. });
                put_reply(&reply, long.is_some(), out);
            });
            match finished {
                Ok(()) => self.send_long(long, connection)?,
                Err(error) => put_failure(&error, out),
            }
            self.see_to_arrival(connection);
            connection.flush_if_large()?;
        }
        self.begun_bytes = 0;
        Ok(())
    }

    /// Keeps a connection from being evicted before it has sent a message that is no longer in its
    /// queue.
    pub(crate) fn see_to_arrival(&mut self, connection: &mut Connection) {
        if std::mem::take(&mut self.has_delivered) {
            connection.must_arrive();
        }
    }

    /// The same, but leaves the only reply, if there is one alone and it is short, to the thread that
    /// waits for the disk anyway.
    pub(crate) fn settle_or_defer(&mut self, connection: &mut Connection) -> io::Result<()> {
        self.act_on_all(connection)?;
        let is_short = self.begun_bytes <= DEFERRED_BODY_BYTES_MAX;
        let deferred = match self.begun.len() == 1 && is_short {
            true => connection.try_defer(),
            false => None,
        };
        let Some(deferred) = deferred else {
            return self.settle(connection);
        };
        let encode = |outcome: Result<Reply, QueueError>| {
            let mut out = Vec::new();
            match outcome {
                Ok(reply) => reply.encode(&mut out),
                Err(error) => put_failure(&error, &mut out),
            }
            out
        };
        if let Some(begun) = self.begun.pop_front() {
            let send = move |reply: Vec<u8>| deferred.reply(&reply);
            self.queues.finish_later(begun, encode, send);
        }
        self.begun_bytes = 0;
        Ok(())
    }

    /// Puts back what the client holds when the server stops: that is no attempt that failed, so
    /// nothing dies of it.
    pub(crate) fn give_back_at_stop(&mut self) {
        for taken in self.held.drain(..) {
            self.queues.give_back_at_stop(taken);
        }
    }

    /// Says why a request was not done, behind the replies to those before it.
    pub(crate) fn fail(
        &mut self,
        error: &QueueError,
        connection: &mut Connection,
    ) -> io::Result<()> {
        self.refuse(error.code(), &error.to_string(), connection)
    }

    pub(crate) fn refuse(
        &mut self,
        code: ErrorCode,
        sentence: &str,
        connection: &mut Connection,
    ) -> io::Result<()> {
        self.settle(connection)?;
        put_error(code, sentence, connection.output());
        Ok(())
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // What was not acted on yet is not acted on any more: nobody would be told.
        self.steps.clear();
        for begun in self.begun.drain(..) {
            if let Err(error) = self.queues.finish(begun, |_| {}) {
                log::debug!("Not done, and nobody is told: {error}");
            }
        }
        for taken in self.held.drain(..) {
            self.queues.give_back(taken);
        }
    }
}

/// A request for the log, with the length of its body instead of that.
fn shown(request: &Request) -> String {
    match request {
        Request::Send { queue, body, .. } => format!("Send to {queue}: {} bytes", body.len()),
        other => format!("{other:?}"),
    }
}

pub(crate) fn millis(millis: u32) -> Duration {
    Duration::from_millis(millis.into())
}

/// Appends a reply, but for a body that is sent behind it.
fn put_reply(reply: &Reply, is_long: bool, out: &mut Vec<u8>) {
    match is_long {
        true => reply.encode_before_body(out),
        false => reply.encode(out),
    }
}

/// Says why a request was not done.
fn put_failure(error: &QueueError, out: &mut Vec<u8>) {
    put_error(error.code(), &error.to_string(), out);
}

fn put_error(code: ErrorCode, sentence: &str, out: &mut Vec<u8>) {
    log::debug!("Refused: {sentence}");
    Reply::Error(ErrorReply { code, sentence }).encode(out);
}
