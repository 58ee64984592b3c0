//! Plain text over TCP: one request a connection, `<<GET>>` or a message up to the end of the stream.

use std::io::{self, BufRead, Write};
use std::time::Duration;

use daemon::{Connection, Deadline};
use proto::queue::QueueName;
use proto::text::{QUEUE_EMPTY, QUEUE_GET};

use crate::QueueError;
use crate::memory::Room;
use crate::message::Taken;
use crate::queues::Queues;

/// A plain request must be whole this long after its first byte.
const PLAIN_WAIT: Duration = Duration::from_secs(10);

/// One plain request: `<<GET>>`, or a message up to the end of the stream.
pub(crate) fn serve_plain(connection: &mut Connection, queues: &Queues) -> io::Result<()> {
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
                drop(body);
                drain(connection);
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
    let body_bytes = body.len().min(queues.body_bytes_max());
    match send_plain(queues, &mut room, &body[..body_bytes]) {
        Ok(()) => log::debug!("Send: {body_bytes} bytes"),
        Err(error) => log::warn!("A message was dropped: {error}"),
    }
    if !ended {
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

/// Puts a message at the end of the default queue.
fn send_plain(queues: &Queues, room: &mut Room, body: &[u8]) -> Result<(), QueueError> {
    let begun = queues.send_from(room, QueueName::DEFAULT, Duration::ZERO, body)?;
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
