//! The life of a TCP connection, in the dialect of its first byte.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use daemon::{Connection, Deadline, Service};
use proto::ErrorCode;
use proto::ErrorReply;
use proto::frame::{self, FrameError, Message as _};
use proto::queue::{FIELD_BYTES_MAX, Request};

use crate::error::QueueError;
use crate::memory::FREE_BYTES;
use crate::queues::Queues;
use crate::session::Session;
use crate::text::serve_text as serve_plain;

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

/// Requests and replies until the client closes. What it holds then goes back to its queue; if the
/// server stops, however the connection ended, that is no attempt that failed.
fn serve_frames(connection: &mut Connection, queues: &Queues) -> io::Result<()> {
    let mut session = Session::new(queues);
    let served = serve_session(&mut session, connection, queues);
    if connection.is_stopping() {
        session.requeue_at_stop();
    }
    served
}

fn serve_session(
    session: &mut Session,
    connection: &mut Connection,
    queues: &Queues,
) -> io::Result<()> {
    let payload_bytes_max = queues.body_bytes_max() + FIELD_BYTES_MAX;
    let body_secs = (queues.body_bytes_max() / FRAME_BYTES_A_SECOND) as u64;
    let frame_wait = FRAME_WAIT + Duration::from_secs(body_secs);
    let mut payload = Vec::new();
    loop {
        // What is reserved for it would count as an attempt that failed.
        connection.set_evictable(session.reserved.is_empty());
        // Before it may have to wait for input, a server sends all the replies it has.
        if !frame::starts_with_whole(connection.buffered()) {
            session.settle_or_defer(connection)?;
        }
        session.see_to_arrival(connection);
        if connection.next_request(None)?.is_none() {
            if connection.is_stopping() {
                // Whatever the client asks from now on is not done, and this tells it so.
                session.fail(&QueueError::ShuttingDown, connection)?;
            }
            return Ok(());
        }
        connection.set_deadline(Deadline::Within(frame_wait));
        let has_room = |bytes| session.room.grow_to(bytes);
        let read = frame::read_within(connection, payload_bytes_max, &mut payload, has_room);
        let kind = match read {
            Ok(Some(kind)) => kind,
            Ok(None) => return Ok(()),
            Err(FrameError::Io(error)) => return Err(error),
            Err(FrameError::NoRoom) => {
                session.fail(&queues.memory().full(), connection)?;
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
            return Ok(());
        }
        session.see_to_arrival(connection);
        connection.flush_if_large()?;
        session.room.clear();
    }
}
