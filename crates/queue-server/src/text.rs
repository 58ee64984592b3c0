//! The text protocol: one request a connection or datagram, `<<GET>>` or a message.
//!
//! Over TCP a message is everything up to the end of the stream. Over UDP it is the datagram, which
//! `datagram` serves.

use std::io::{self, BufRead, Write};
use std::time::Duration;

use daemon::Connection;
use proto::queue::{Delivery, MessageState, Properties, QueueName};
use proto::text::{QUEUE_EMPTY, QUEUE_GET};

use crate::arrival::must_arrive;
use crate::error::QueueError;
use crate::keys::Sender;
use crate::memory::Room;
use crate::message::Reserved;
use crate::position::Position;
use crate::queues::{CONNECTION_ENDED, Outcome, Prepared, Queues};

/// How long a request may take from its first byte on.
pub(crate) const TEXT_WAIT: Duration = Duration::from_secs(10);

/// How much of a request is looked at, in bytes.
pub(crate) fn bytes_max(body_bytes_max: usize) -> usize {
    body_bytes_max.max(QUEUE_GET.len())
}

/// Serves one request.
pub(crate) fn serve(connection: &mut Connection, queues: &Queues) -> io::Result<()> {
    let bytes_max = bytes_max(queues.body_bytes_max());
    let mut body = Vec::new();
    let mut room = Room::new(queues.memory());
    let mut has_ended = false;
    let is_encrypted = connection.is_encrypted();
    while !has_ended && body.len() < bytes_max && !body.starts_with(QUEUE_GET) {
        let input = match connection.fill_buf() {
            Ok(input) => input,
            // Over TLS a message ends where its sender says so: what is missing may be held back.
            Err(error) if error.kind() == io::ErrorKind::TimedOut && !is_encrypted => {
                log::warn!("A message did not end within 10 s, taking what has arrived");
                break;
            }
            Err(error) => return Err(error),
        };
        let consumed = input.len().min(bytes_max - body.len());
        if body.capacity() < body.len() + consumed {
            let bytes = (2 * body.capacity())
                .max(body.len() + consumed)
                .min(bytes_max);
            if !room.grow_to(bytes) {
                log::warn!("A message was dropped: {}", queues.memory().full());
                connection.answered(daemon::Outcome::Error);
                drop(body);
                drain(connection);
                return Ok(());
            }
            body.reserve_exact(bytes - body.len());
        }
        body.extend_from_slice(&input[..consumed]);
        has_ended = input.is_empty();
        connection.consume(consumed);
    }
    if body.starts_with(QUEUE_GET) {
        return receive(connection, queues);
    }
    let body_bytes = body.len().min(queues.body_bytes_max());
    let body_sent = &body[..body_bytes];
    let sent = queues.send(
        &Sender::default(),
        QueueName::DEFAULT,
        &Properties::default(),
        body_sent,
        Some(&mut room),
    );
    match sent.and_then(|pending| queues.carry_out(pending)) {
        Ok(_) => log::debug!("Send: {body_bytes} bytes"),
        Err(error) => {
            log::warn!("A message was dropped: {error}");
            connection.answered(daemon::Outcome::Error);
        }
    }
    if !has_ended {
        let beyond = (body.len() - body_bytes) as u64;
        // It would not be on the account while the rest comes.
        drop(body);
        let dropped = beyond + drain(connection);
        if dropped > 0 {
            log::warn!("A message was cut to {body_bytes} bytes, {dropped} more were dropped");
        }
    }
    Ok(())
}

/// The text for a request that is refused.
pub(crate) fn error_reply(sentence: &str) -> Vec<u8> {
    format!("Error - {sentence}\n").into_bytes()
}

/// Sends the oldest message, which a slow reader gets whole. Who finds no message does not wait until it
/// may be sent one.
fn receive(connection: &mut Connection, queues: &Queues) -> io::Result<()> {
    if let Outcome::Empty = queues.peek(QueueName::DEFAULT, MessageState::Ready, Position::FRONT) {
        return connection.write_all(QUEUE_EMPTY.as_bytes());
    }
    if let Err(refused) = must_arrive(connection)? {
        connection.answered(daemon::Outcome::Error);
        return connection.write_all(&error_reply(&refused.to_string()));
    }
    match oldest(queues, usize::MAX) {
        Ok(Some(reserved)) => hand_out(queues, reserved, |body| connection.send_behind(body))?,
        Ok(None) | Err(_) => connection.write_all(QUEUE_EMPTY.as_bytes())?,
    }
    connection.has_arrived();
    Ok(())
}

/// Reserves the oldest message of the default queue, if its body is at most this long. A paused queue
/// is an empty one here, because the text protocol has one error sentence and no other.
///
/// # Errors
/// [`QueueError::TooLong`].
pub(crate) fn oldest(
    queues: &Queues,
    body_bytes_max: usize,
) -> Result<Option<Reserved>, QueueError> {
    let default = QueueName::DEFAULT.into();
    match queues.receive(&default, Delivery::AtLeastOnce, body_bytes_max) {
        Ok(Prepared::Done(Outcome::Reserved(reserved))) => Ok(Some(reserved)),
        Ok(_) | Err(QueueError::Paused(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sends a message to a client that acknowledges nothing. It is acknowledged when it is sent.
pub(crate) fn hand_out(
    queues: &Queues,
    reserved: Reserved,
    send: impl FnOnce(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let id = reserved.message.id;
    if let Err(error) = send(&reserved.message.body) {
        queues.requeue(reserved, CONNECTION_ENDED);
        return Err(error);
    }
    if let Err(error) = queues.carry_out(queues.ack(reserved)) {
        log::error!("Message {id} was sent but stays in the queue: {error}");
    }
    Ok(())
}

/// Reads to the end of the stream, for as long as a request may take. Returns how many bytes there
/// were.
fn drain(connection: &mut Connection) -> u64 {
    let mut drained = 0;
    while let Ok(input @ [_, ..]) = connection.fill_buf() {
        let bytes = input.len();
        drained += bytes as u64;
        connection.consume(bytes);
    }
    drained
}
