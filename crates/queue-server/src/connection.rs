//! The life of a TCP connection, in the dialect of its first byte.

use std::collections::VecDeque;
use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::{Connection, DEFERRED_BYTES_MAX, Deadline, Service, Waited, Wakeup};
use proto::ErrorCode;
use proto::error::ErrorReply;
use proto::frame::{self, FrameError, Message as _};
use proto::plain::{QUEUE_EMPTY, QUEUE_GET};
use proto::queue::{Claim, Delivery, FIELD_BYTES_MAX, QueueName, Reply, Request};

use crate::begun::Begun;
use crate::memory::{FREE_BYTES, LongBody, Room};
use crate::message::{Message, Taken};
use crate::queues::Queues;
use crate::steps::{Step, Stepped};
use crate::{HELD_MAX, QueueError};

/// A plain request must be whole this long after its first byte.
const PLAIN_WAIT: Duration = Duration::from_secs(10);

/// A frame must be whole this long after its first byte...
const FRAME_WAIT: Duration = Duration::from_secs(10);

/// ...plus a second for so many bytes that a message may have.
const FRAME_BYTES_A_SECOND: usize = 64 * 1024;

const BUSY: &str = "the server has as many connections as it accepts; try again later";

/// The queues' connections.
pub(crate) struct Connections {
    queues: Arc<Queues>,
}

impl Connections {
    pub(crate) fn new(queues: Arc<Queues>) -> Self {
        Self { queues }
    }
}

impl Service for Connections {
    fn serve(&self, connection: &mut Connection) -> io::Result<()> {
        match connection.next_request(None)? {
            None => Ok(()),
            Some(frame::FIRST_BYTE) => serve_frames(connection, &self.queues),
            Some(_) => serve_plain(connection, &self.queues),
        }
    }

    fn busy_reply(&self, first_byte: Option<u8>) -> Vec<u8> {
        match first_byte {
            Some(frame::FIRST_BYTE) => ErrorReply {
                code: ErrorCode::Busy,
                sentence: BUSY,
            }
            .to_frame(),
            _ => format!("Error - {BUSY}\n").into_bytes(),
        }
    }
}

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

/// What the figures of one queue take in a reply, at the most, in bytes.
const STATS_BYTES: usize = 128;

/// Requests and replies until the client closes. What it holds then goes back to its queue.
fn serve_frames(connection: &mut Connection, queues: &Queues) -> io::Result<()> {
    let payload_bytes_max = queues.body_bytes_max() + FIELD_BYTES_MAX;
    let body_secs = (queues.body_bytes_max() / FRAME_BYTES_A_SECOND) as u64;
    let frame_wait = FRAME_WAIT + Duration::from_secs(body_secs);
    let mut session = Session::new(queues);
    let mut payload = Vec::new();
    loop {
        // What is reserved for it would count as an attempt that failed.
        connection.set_evictable(session.held.is_empty());
        // Before it may have to wait for input, a server sends all the replies it has.
        if !frame::starts_with_whole(connection.buffered()) {
            session.settle_or_defer(connection)?;
        }
        session.see_to_arrival(connection);
        if connection.next_request(None)?.is_none() {
            if connection.is_stopping() {
                session.give_back_at_stop();
                // Whatever the client asks from now on is not done, and this tells it so.
                session.fail(&QueueError::ShuttingDown, connection)?;
            }
            return Ok(());
        }
        connection.set_deadline(Deadline::Within(frame_wait));
        let has_room = |bytes| session.room.grow_to(bytes);
        let read = frame::read_within(connection, payload_bytes_max, &mut payload, has_room);
        // From now on it is a message that counts, or nothing.
        session.room.clear();
        let kind = match read {
            Ok(Some(kind)) => kind,
            Ok(None) => return Ok(()),
            Err(FrameError::Io(error)) => return Err(error),
            Err(FrameError::NoRoom) => {
                session.fail(&queues.shared.memory.full(), connection)?;
                continue;
            }
            // Where the next frame starts cannot be known any more.
            Err(error) => {
                session.act_on_all(connection)?;
                session.refuse(error.code(), &error.to_string(), connection)?;
                return Ok(());
            }
        };
        match Request::decode(kind, &payload) {
            Ok(request) => session.act(request, connection)?,
            Err(error) => {
                let error = FrameError::from(error);
                session.act_on_all(connection)?;
                session.refuse(error.code(), &error.to_string(), connection)?;
            }
        }
        payload.clear();
        payload.shrink_to(FREE_BYTES);
        if session.is_told_of_stop {
            session.give_back_at_stop();
            return Ok(());
        }
        session.see_to_arrival(connection);
        connection.flush_if_large()?;
        session.room.clear();
    }
}

/// One connection's requests: what it holds, and which changes were begun and not answered yet.
/// Dropping it finishes those, and gives everything back that it holds.
struct Session<'q> {
    queues: &'q Queues,
    held: VecDeque<Taken>,
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
    room: Room,
    /// Whether a message is among the replies that were not sent yet.
    has_delivered: bool,
    wakeup: Option<Arc<Wakeup>>,
    /// Whether the client was told that the server is shutting down.
    is_told_of_stop: bool,
}

impl<'q> Session<'q> {
    fn new(queues: &'q Queues) -> Self {
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
    fn act(&mut self, request: Request, connection: &mut Connection) -> io::Result<()> {
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
                delivery: Delivery::Forget,
            } => (queue, 0, Step::Receive),
            Request::Send { .. }
            | Request::Receive { .. }
            | Request::Ack { .. }
            | Request::Release { .. }
            | Request::Unreserve { .. }
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
    fn act_on_all(&mut self, connection: &mut Connection) -> io::Result<()> {
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
                queues.send(queue, millis(delay_millis), body).map(Some)
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
                if !self.room.grow_to(STATS_BYTES * queues.count()) {
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

    /// Takes the oldest message, and waits for one if there is none.
    fn receive(
        &mut self,
        queue: QueueName,
        wait: Duration,
        delivery: Delivery,
        connection: &mut Connection,
    ) -> io::Result<Result<Option<Begun>, QueueError>> {
        if delivery == Delivery::Hold {
            self.settle(connection)?;
            if self.held.len() >= HELD_MAX {
                return Ok(Err(QueueError::TooManyHeld));
            }
            if connection.become_waiter().is_err() {
                return Ok(Err(QueueError::CannotWait));
            }
        }
        let mut taken = self.queues.reserve(queue);
        if !matches!(taken, Ok(Some(_))) && !self.begun.is_empty() {
            // What this connection has sent or given back before, it must be able to receive.
            self.settle(connection)?;
            taken = self.queues.reserve(queue);
        }
        if !matches!(taken, Ok(Some(_))) && !wait.is_zero() {
            taken = self.wait_for(queue, wait, connection)?;
        }
        let taken = match taken {
            Ok(Some(taken)) => taken,
            Ok(None) => {
                Reply::Empty.encode(connection.output());
                return Ok(Ok(None));
            }
            Err(error) => return Ok(Err(error)),
        };
        let body_bytes = taken.message.body.len();
        let begun = match delivery {
            Delivery::Forget => self.queues.deliver(taken),
            Delivery::Lease { millis: lease } => self.queues.lease(taken, millis(lease)),
            Delivery::Hold => {
                let long = taken.message.body.shared();
                put_reply(&taken.reply(), long.is_some(), connection.output());
                self.held.push_back(taken);
                self.send_long(long, connection)?;
                return Ok(Ok(None));
            }
        };
        self.begun_bytes += body_bytes;
        Ok(Ok(Some(begun)))
    }

    /// Sleeps until there is a message, or the wait is over.
    ///
    /// # Errors
    /// If the client has hung up: who is told that there is nothing has waited for as long as he
    /// wanted to.
    fn wait_for(
        &mut self,
        queue: QueueName,
        wait: Duration,
        connection: &mut Connection,
    ) -> io::Result<Result<Option<Taken>, QueueError>> {
        let deadline = Instant::now() + wait;
        let wakeup = match self.wakeup(connection) {
            Ok(wakeup) => wakeup,
            Err(error) => {
                log::warn!("A receiver cannot wait: {error}");
                return Ok(Err(QueueError::CannotWait));
            }
        };
        loop {
            let in_line = match self.queues.get_in_line(queue, &wakeup) {
                Ok(in_line) => in_line,
                Err(error) => return Ok(Err(error)),
            };
            let waited = match in_line {
                Some(_) => connection.wait(&wakeup, deadline)?,
                None => Waited::Woken,
            };
            match waited {
                Waited::Woken => {}
                Waited::TimedOut => return Ok(self.queues.reserve(queue)),
                Waited::Stopping => {
                    self.is_told_of_stop = true;
                    return Ok(Err(QueueError::ShuttingDown));
                }
                Waited::HungUp => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
            if let taken @ Ok(Some(_)) = self.queues.reserve(queue) {
                return Ok(taken);
            }
        }
    }

    /// What this connection is woken by; made when it first waits.
    fn wakeup(&mut self, connection: &mut Connection) -> io::Result<Arc<Wakeup>> {
        let wakeup = match self.wakeup.take() {
            Some(wakeup) => wakeup,
            None => Arc::new(connection.wakeup()?),
        };
        self.wakeup = Some(Arc::clone(&wakeup));
        Ok(wakeup)
    }

    /// What this client was handed, and wants to be rid of.
    fn claim(&mut self, claim: Claim) -> Result<Taken, QueueError> {
        match claim {
            Claim::Leased(token) => self.queues.claim(token),
            Claim::Held(id) => {
                let at = self.held.iter().position(|taken| taken.message.id == id);
                let taken = at.and_then(|at| self.held.remove(at));
                taken.ok_or(QueueError::NotHeld(id))
            }
        }
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
    fn see_to_arrival(&mut self, connection: &mut Connection) {
        if std::mem::take(&mut self.has_delivered) {
            connection.must_arrive();
        }
    }

    /// The same, but leaves the only reply, if there is one alone and it is short, to the thread that
    /// waits for the disk anyway.
    fn settle_or_defer(&mut self, connection: &mut Connection) -> io::Result<()> {
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
    fn give_back_at_stop(&mut self) {
        for taken in self.held.drain(..) {
            self.queues.give_back_at_stop(taken);
        }
    }

    /// Says why a request was not done, behind the replies to those before it.
    fn fail(&mut self, error: &QueueError, connection: &mut Connection) -> io::Result<()> {
        self.refuse(error.code(), &error.to_string(), connection)
    }

    fn refuse(
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
        Request::Receive { .. }
        | Request::Ack { .. }
        | Request::Release { .. }
        | Request::Unreserve { .. }
        | Request::Extend { .. }
        | Request::Peek { .. }
        | Request::Stats
        | Request::Purge { .. }
        | Request::Pause { .. }
        | Request::Resume { .. }
        | Request::Kick { .. }
        | Request::Drain { .. } => format!("{request:?}"),
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

/// One plain request: `<<GET>>`, or a message up to the end of the stream.
fn serve_plain(connection: &mut Connection, queues: &Queues) -> io::Result<()> {
    connection.set_deadline(Deadline::Within(PLAIN_WAIT));
    let bytes_max = queues.body_bytes_max().max(QUEUE_GET.len());
    let mut body = Vec::new();
    let mut room = Room::new(&queues.shared.memory);
    let mut ended = false;
    while !ended && body.len() < bytes_max && !body.starts_with(QUEUE_GET) {
        let input = match connection.fill_buf() {
            Ok(input) => input,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                log::warn!("A message did not end within 10 s, taking what has come");
                break;
            }
            Err(error) => return Err(error),
        };
        let taken = input.len().min(bytes_max - body.len());
        if body.capacity() < body.len() + taken {
            let bytes = (2 * body.capacity()).max(body.len() + taken).min(bytes_max);
            if !room.grow_to(bytes) {
                log::warn!("A message was dropped: {}", queues.shared.memory.full());
                drop((body, drain(connection)));
                return Ok(());
            }
            body.reserve_exact(bytes - body.len());
        }
        body.extend_from_slice(&input[..taken]);
        ended = input.is_empty();
        connection.consume(taken);
    }
    if body.starts_with(QUEUE_GET) {
        return reply_plain(connection, queues);
    }
    // From now on it is a message that counts, or nothing.
    room.clear();
    let body_bytes = body.len().min(queues.body_bytes_max());
    match send_plain(queues, &body[..body_bytes]) {
        Ok(()) => log::debug!("Send: {body_bytes} bytes"),
        Err(error) => log::warn!("A message was dropped: {error}"),
    }
    if !ended {
        let dropped = (body.len() - body_bytes) as u64 + drain(connection);
        if dropped > 0 {
            log::warn!("A message was cut to {body_bytes} bytes, {dropped} more were dropped");
        }
    }
    Ok(())
}

/// Puts a message at the end of the default queue.
fn send_plain(queues: &Queues, body: &[u8]) -> Result<(), QueueError> {
    let begun = queues.send(QueueName::DEFAULT, Duration::ZERO, body)?;
    queues.finish(begun, |_| {})
}

/// The oldest message, raw. It is forgotten when it has been sent. Who asks like this knows one error
/// sentence and takes all else for a message, so to him a paused queue is an empty one.
fn reply_plain(connection: &mut Connection, queues: &Queues) -> io::Result<()> {
    let Ok(Some(taken)) = queues.reserve(QueueName::DEFAULT) else {
        return connection.write_all(QUEUE_EMPTY.as_bytes());
    };
    hand_out_plain(queues, taken, |body| connection.send_behind(body))
}

/// Sends a message to somebody who acknowledges nothing: it is forgotten when it has been sent.
pub(crate) fn hand_out_plain(
    queues: &Queues,
    taken: Taken,
    send: impl FnOnce(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let id = taken.message.id;
    if let Err(error) = send(&taken.message.body) {
        queues.give_back(taken);
        return Err(error);
    }
    if let Err(error) = queues.finish(queues.forget(taken), |_| {}) {
        log::error!("Message {id} was sent but stays in the queue: {error}");
    }
    Ok(())
}

/// Reads on to the end of the stream, for as long as a request may take. Returns how many bytes
/// there were.
fn drain(connection: &mut Connection) -> u64 {
    let mut drained = 0;
    while let Ok(input @ [_, ..]) = connection.fill_buf() {
        let bytes = input.len();
        drained += bytes as u64;
        connection.consume(bytes);
    }
    drained
}
