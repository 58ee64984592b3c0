//! The life of a TCP connection, in the dialect of its first byte.

use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::time::Duration;

use daemon::{Connection, Deadline, Service};
use proto::ErrorCode;
use proto::error::ErrorReply;
use proto::frame::{self, FrameError, Message as _};
use proto::plain::{QUEUE_EMPTY, QUEUE_GET};
use proto::queue::{Delivery, FIELD_BYTES_MAX, Reply, Request};

use crate::queue::{Held, Message, Queue, QueueError};

/// A plain request must be whole this long after its first byte.
const PLAIN_WAIT: Duration = Duration::from_secs(10);

/// Inside a frame, a peer may be silent for so long.
const FRAME_STALL: Duration = Duration::from_secs(10);

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
pub(crate) fn code_of(error: QueueError) -> ErrorCode {
    match error {
        QueueError::TooLarge { .. } => ErrorCode::TooLarge,
        QueueError::Full | QueueError::TooManyHeld => ErrorCode::Full,
        QueueError::NotHeld(_) => ErrorCode::NotFound,
    }
}

/// The code that goes with bytes that are no request.
pub(crate) fn code_of_frame(error: &FrameError) -> ErrorCode {
    use proto::frame::PayloadError::UnknownKind;
    match error {
        FrameError::TooLong { .. } => ErrorCode::TooLarge,
        FrameError::Payload(UnknownKind(_)) => ErrorCode::Unsupported,
        _ => ErrorCode::BadRequest,
    }
}

/// Requests and replies until the client closes. What it holds then goes back to the queue.
fn serve_frames(connection: &mut Connection, queue: &Queue) -> io::Result<()> {
    let payload_bytes_max = queue.body_bytes_max() + FIELD_BYTES_MAX;
    let mut held = Held::new(queue);
    let mut payload = Vec::new();
    while connection.next_request(None)?.is_some() {
        connection.set_deadline(Deadline::Stall(FRAME_STALL));
        let kind = match frame::read(connection, payload_bytes_max, &mut payload) {
            Ok(Some(kind)) => kind,
            Ok(None) => return Ok(()),
            Err(FrameError::Io(error)) => return Err(error),
            // Where the next frame starts cannot be known any more.
            Err(error) => {
                put_error(connection, code_of_frame(&error), &error.to_string());
                return Ok(());
            }
        };
        match Request::decode(kind, &payload) {
            Ok(request) => {
                if let Err(error) = act(request, queue, &mut held, connection.output()) {
                    put_error(connection, code_of(error), &error.to_string());
                }
            }
            Err(error) => {
                let error = FrameError::from(error);
                put_error(connection, code_of_frame(&error), &error.to_string());
            }
        }
        connection.flush_if_large()?;
    }
    Ok(())
}

fn put_error(connection: &mut Connection, code: ErrorCode, sentence: &str) {
    log::debug!("Refused: {sentence}");
    Reply::Error(ErrorReply { code, sentence }).encode(connection.output());
}

fn act(
    request: Request,
    queue: &Queue,
    held: &mut Held,
    out: &mut Vec<u8>,
) -> Result<(), QueueError> {
    match request {
        Request::Send { body } => {
            let id = queue.send(body)?;
            log::debug!("Send {id}: {} bytes", body.len());
            Reply::Stored { id }.encode(out);
        }
        Request::Receive { delivery } => {
            let Some(Message { id, body }) = held.take()? else {
                Reply::Empty.encode(out);
                return Ok(());
            };
            log::debug!("Receive {id}: {} bytes", body.len());
            Reply::Message { id: *id, body }.encode(out);
            if delivery == Delivery::ForgetWhenSent {
                held.ack_last();
            }
        }
        Request::Ack { id } => {
            held.ack(id)?;
            log::debug!("Ack {id}");
            Reply::Acked.encode(out);
        }
    }
    Ok(())
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
    match queue.send(&body[..body_bytes]) {
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
    match held.take() {
        Ok(Some(message)) => connection.write_all(&message.body)?,
        _ => connection.write_all(QUEUE_EMPTY.as_bytes())?,
    }
    connection.flush()?;
    held.ack_last();
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
