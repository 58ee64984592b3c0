//! The frames loop: reads a frame, has the service handle it, and reads the next one.
//!
//! Replies keep the order of the requests, and what is written is sent before the loop waits for more
//! input. A frame that cannot be read ends the connection after an error reply, because it is not known
//! where the next one starts.

use std::io;
use std::time::Duration;

use proto::ErrorCode;
use proto::ErrorReply;
use proto::frame::{self, FrameError};

use crate::caller::{Caller, Role};
use crate::connection::Connection;
use crate::input::Deadline;
use crate::metrics::{Kind, Outcome};

/// How much of the buffer for a payload is kept between two frames, in bytes.
const PAYLOAD_KEPT_BYTES: usize = 16 * 1024;

/// A service that speaks in frames.
pub trait FrameHandler: Send + Sync + 'static {
    /// The state of a new connection. Dropping it undoes what the connection holds.
    fn session(&self, caller: &Caller) -> Box<dyn FrameSession + '_>;

    /// The role that a request needs. One that cannot be read needs [`Role::Read`]: it is refused.
    fn needs(&self, kind: u8, payload: &[u8]) -> Role;

    /// The longest payload of a frame, in bytes.
    fn payload_bytes_max(&self) -> usize;

    /// How long a frame may take from its first byte on.
    fn frame_wait(&self) -> Duration;
}

/// One connection's requests, in their order.
pub trait FrameSession {
    /// Acts on a request. The reply is written to the connection, or left to another thread by
    /// [`Connection::pending_reply`]; [`Connection::answered`] says how.
    ///
    /// # Errors
    /// Those of the connection.
    fn handle(&mut self, kind: u8, payload: &[u8], connection: &mut Connection)
    -> io::Result<Next>;

    /// Writes the reply to bytes that are no request, behind the replies to those before it.
    ///
    /// # Errors
    /// Those of the connection.
    fn refuse(&mut self, error: &FrameError, connection: &mut Connection) -> io::Result<()> {
        put_error(error.code(), &error.to_string(), connection.output());
        connection.answered(Outcome::Error);
        Ok(())
    }

    /// Asks whether the frame that arrives may take this much memory, in bytes. If not, the frame is
    /// passed over and refused.
    fn reserve(&mut self, _bytes: usize) -> bool {
        true
    }

    /// The frame was handled, and what was reserved for it is free.
    fn release(&mut self) {}

    /// No further request has arrived whole: what was put off must be done now.
    ///
    /// # Errors
    /// Those of the connection.
    fn before_wait(&mut self, _connection: &mut Connection) -> io::Result<()> {
        Ok(())
    }

    /// The server stops: what is written now is the connection's last reply.
    ///
    /// # Errors
    /// Those of the connection.
    fn stopping(&mut self, _connection: &mut Connection) -> io::Result<()> {
        Ok(())
    }
}

/// What follows a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The next request.
    Request,
    /// The end of the connection.
    Close,
}

/// Serves a connection until it ends.
pub(crate) fn serve(handler: &dyn FrameHandler, connection: &mut Connection) -> io::Result<()> {
    let caller = Caller::anyone(connection.peer());
    let mut session = handler.session(&caller);
    let mut payload = Vec::new();
    loop {
        if !frame::starts_with_whole(connection.buffered()) {
            session.before_wait(connection)?;
            // What has not arrived whole is not begun.
            if connection.is_stopping() {
                return session.stopping(connection);
            }
        }
        if connection.next_request(None)?.is_none() {
            return match connection.is_stopping() {
                true => session.stopping(connection),
                false => Ok(()),
            };
        }
        connection.set_deadline(Deadline::Within(handler.frame_wait()));
        let payload_bytes_max = handler.payload_bytes_max();
        let has_room = |bytes| session.reserve(bytes);
        let read = frame::read_within(connection, payload_bytes_max, &mut payload, has_room);
        let next = match read {
            Ok(Some(kind)) => {
                connection.begin(Kind::frame(kind));
                session.handle(kind, &payload, connection)?
            }
            Ok(None) => Next::Close,
            Err(FrameError::Io(error)) => return Err(error),
            // The frame was passed over.
            Err(error @ FrameError::NoRoom) => {
                connection.begin(Kind::OTHER_FRAME);
                session.refuse(&error, connection)?;
                Next::Request
            }
            // Where the next frame starts is not known.
            Err(error) => {
                connection.begin(Kind::OTHER_FRAME);
                session.refuse(&error, connection)?;
                Next::Close
            }
        };
        payload.clear();
        payload.shrink_to(PAYLOAD_KEPT_BYTES);
        if next == Next::Close {
            return Ok(());
        }
        connection.flush_if_large()?;
        session.release();
    }
}

/// Appends an error reply as a frame.
pub fn put_error(code: ErrorCode, sentence: &str, out: &mut Vec<u8>) {
    out.extend(ErrorReply { code, sentence }.to_frame());
}
