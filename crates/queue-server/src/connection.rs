//! The life of a TCP connection, in the dialect of its first byte.

use std::collections::VecDeque;
use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::time::Duration;

use daemon::{Connection, Deadline, Service};
use proto::ErrorCode;
use proto::error::ErrorReply;
use proto::frame::{self, FrameError, Message as _};
use proto::plain::{QUEUE_EMPTY, QUEUE_GET};
use proto::queue::{Delivery, FIELD_BYTES_MAX, MessageId, Reply, Request};

use crate::queue::{Held, Message, Pending, Queue, QueueError};

/// A plain request must be whole this long after its first byte.
const PLAIN_WAIT: Duration = Duration::from_secs(10);

/// A frame must be whole this long after its first byte...
const FRAME_WAIT: Duration = Duration::from_secs(10);

/// ...plus a second for so many bytes that a message may have.
const FRAME_BYTES_A_SECOND: usize = 64 * 1024;

const BUSY: &str = "the server has as many connections as it accepts; try again later";

/// The queue's connections.
pub(crate) struct Connections {
    queue: Arc<Queue>,
}

impl Connections {
    pub(crate) fn new(queue: Arc<Queue>) -> Self {
        Self { queue }
    }
}

impl Service for Connections {
    fn serve(&self, connection: &mut Connection) -> io::Result<()> {
        match connection.next_request(None)? {
            None => Ok(()),
            Some(frame::FIRST_BYTE) => serve_frames(connection, &self.queue),
            Some(_) => serve_plain(connection, &self.queue),
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

/// The code that goes with an error of the queue.
pub(crate) fn code_of(error: &QueueError) -> ErrorCode {
    match error {
        QueueError::TooLarge { .. } => ErrorCode::TooLarge,
        QueueError::Full | QueueError::TooManyHeld => ErrorCode::Full,
        QueueError::NotHeld(_) => ErrorCode::NotFound,
        QueueError::NotStored(_) => ErrorCode::Storage,
    }
}

/// How many replies may wait for the disk, and how many bytes their requests may have had, before
/// a connection waits too.
const WAITING_MAX: usize = 256;
const WAITING_BYTES_MAX: usize = 1 << 20;

/// Requests and replies until the client closes. What it holds then goes back to the queue.
fn serve_frames(connection: &mut Connection, queue: &Queue) -> io::Result<()> {
    let payload_bytes_max = queue.body_bytes_max() + FIELD_BYTES_MAX;
    let body_secs = (queue.body_bytes_max() / FRAME_BYTES_A_SECOND) as u64;
    let frame_wait = FRAME_WAIT + Duration::from_secs(body_secs);
    let mut session = Session::new(queue);
    let mut payload = Vec::new();
    loop {
        // Before it may have to wait for input, a server sends all the replies it has.
        if !frame::starts_with_whole(connection.buffered()) {
            session.settle(connection.output());
        }
        if connection.next_request(None)?.is_none() {
            return Ok(());
        }
        connection.set_deadline(Deadline::after(frame_wait));
        let kind = match frame::read(connection, payload_bytes_max, &mut payload) {
            Ok(Some(kind)) => kind,
            Ok(None) => return Ok(()),
            Err(FrameError::Io(error)) => return Err(error),
            // Where the next frame starts cannot be known any more.
            Err(error) => {
                session.refuse(error.code(), &error.to_string(), connection.output());
                return Ok(());
            }
        };
        let out = connection.output();
        match Request::decode(kind, &payload) {
            Ok(request) => {
                if let Err(error) = session.act(request, out) {
                    session.refuse(code_of(&error), &error.to_string(), out);
                }
            }
            Err(error) => {
                let error = FrameError::from(error);
                session.refuse(error.code(), &error.to_string(), out);
            }
        }
        connection.flush_if_large()?;
    }
}

/// One connection's requests: what it holds, and which replies still wait for the disk.
struct Session<'q> {
    queue: &'q Queue,
    held: Held<'q>,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
}

/// A reply that cannot be given yet.
enum Waiting {
    /// `Stored`.
    Send(Pending),
    /// `Acked`, for the oldest acknowledgement.
    Ack,
    /// `Message`, for the oldest acknowledgement, which the server made for the client.
    Forget,
}

impl<'q> Session<'q> {
    fn new(queue: &'q Queue) -> Self {
        Self {
            queue,
            held: Held::new(queue),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
        }
    }

    /// Acts on a request. Replies are given in the order of the requests, now or by
    /// [`Session::settle`].
    fn act(&mut self, request: Request, out: &mut Vec<u8>) -> Result<(), QueueError> {
        match request {
            Request::Send { body } => {
                log::debug!("Send: {} bytes", body.len());
                self.waiting_bytes += body.len();
                let pending = self.queue.send(body)?;
                self.waiting.push_back(Waiting::Send(pending));
            }
            Request::Receive { delivery } => {
                // What this connection has sent before, it must be able to receive.
                let sent = |waiting: &Waiting| matches!(waiting, Waiting::Send(_));
                if delivery == Delivery::HoldUntilAcked || self.waiting.iter().any(sent) {
                    self.settle(out);
                }
                let Some(Message { id, body }) = self.held.take()? else {
                    self.settle(out);
                    Reply::Empty.encode(out);
                    return Ok(());
                };
                let id = *id;
                log::debug!("Receive {id}: {} bytes", body.len());
                if delivery == Delivery::HoldUntilAcked {
                    Reply::Message { id, body }.encode(out);
                } else {
                    self.held.ack(id)?;
                    self.waiting.push_back(Waiting::Forget);
                }
            }
            Request::Ack { id } => {
                log::debug!("Ack {id}");
                self.held.ack(id)?;
                self.waiting.push_back(Waiting::Ack);
            }
        }
        let is_much = self.waiting.len() >= WAITING_MAX || self.waiting_bytes >= WAITING_BYTES_MAX;
        if !self.queue.is_durable() || is_much {
            self.settle(out);
        }
        Ok(())
    }

    /// Waits for the disk, and gives every reply that waited for it.
    fn settle(&mut self, out: &mut Vec<u8>) {
        while let Some(waiting) = self.waiting.pop_front() {
            let settled = match waiting {
                Waiting::Send(pending) => pending.wait().map(|id| Reply::Stored { id }.encode(out)),
                Waiting::Ack => self.held.forgotten().map(|_| Reply::Acked.encode(out)),
                Waiting::Forget => self.held.forgotten().map(|message| match message {
                    Some(Message { id, body }) => Reply::Message { id, body: &body }.encode(out),
                    None => Reply::Empty.encode(out),
                }),
            };
            if let Err(error) = settled {
                put_error(code_of(&error), &error.to_string(), out);
            }
        }
        self.waiting_bytes = 0;
    }

    fn refuse(&mut self, code: ErrorCode, sentence: &str, out: &mut Vec<u8>) {
        self.settle(out);
        put_error(code, sentence, out);
    }
}

fn put_error(code: ErrorCode, sentence: &str, out: &mut Vec<u8>) {
    log::debug!("Refused: {sentence}");
    Reply::Error(ErrorReply { code, sentence }).encode(out);
}

/// One plain request: `<<GET>>`, or a message up to the end of the stream.
fn serve_plain(connection: &mut Connection, queue: &Queue) -> io::Result<()> {
    connection.set_deadline(Deadline::after(PLAIN_WAIT));
    let bytes_max = queue.body_bytes_max().max(QUEUE_GET.len());
    let mut body = Vec::new();
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
        body.extend_from_slice(&input[..taken]);
        ended = input.is_empty();
        connection.consume(taken);
    }
    if body.starts_with(QUEUE_GET) {
        return reply_plain(connection, queue);
    }
    let body_bytes = body.len().min(queue.body_bytes_max());
    match queue.send(&body[..body_bytes]).and_then(Pending::wait) {
        Ok(id) => log::debug!("Send {id}: {body_bytes} bytes"),
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

/// The oldest message, raw. It is forgotten when it has been sent.
fn reply_plain(connection: &mut Connection, queue: &Queue) -> io::Result<()> {
    let mut held = Held::new(queue);
    let Ok(Some(Message { id, body })) = held.take() else {
        return connection.write_all(QUEUE_EMPTY.as_bytes());
    };
    let id = *id;
    connection.write_all(body)?;
    connection.flush()?;
    forget(held, id);
    Ok(())
}

/// Forgets a message that has been sent.
pub(crate) fn forget(mut held: Held, id: MessageId) {
    if let Err(error) = held.ack(id).and_then(|()| held.forgotten()) {
        log::error!("Message {id} was sent but stays in the queue: {error}");
    }
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
