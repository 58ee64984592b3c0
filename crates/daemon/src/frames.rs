//! The frames loop: reads a frame, checks whether its sender may ask for that, has the service handle it,
//! and reads the next one.
//!
//! A connection may log in by its first frame, and acts for that user from then on. The services never
//! see a login. Where there are accounts, a frame of a connection that has not logged in is passed over
//! if it is longer than a login, so that it takes no memory.
//!
//! Replies keep the order of the requests, and what is written is sent before the loop waits for more
//! input. A frame that cannot be read ends the connection after an error reply, because it is not known
//! where the next one starts.

use std::io;
use std::time::Duration;

use cli::escape::Escaped;
use proto::ErrorCode;
use proto::ErrorReply;
use proto::frame::{self, FrameError, Message as _};
use proto::{Login, LoginReply};

use crate::access::{Access, Denied};
use crate::caller::{Caller, Role};
use crate::connection::Connection;
use crate::input::Deadline;
use crate::metrics::{Kind, Outcome};

/// How much of the buffer for a payload is kept between two frames, in bytes.
const PAYLOAD_KEPT_BYTES: usize = 16 * 1024;

const LATE_LOGIN: &str = "a login is the first frame of a connection";

/// A service that speaks in frames.
pub trait FrameHandler: Send + Sync + 'static {
    /// The state of a new connection. Dropping it undoes what the connection holds.
    fn session(&self, caller: &Caller) -> Box<dyn FrameSession + '_>;

    /// The role that a request needs; asked only where there are accounts. One that cannot be read needs [`Role::Read`]: it is refused.
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

    /// The front door has refused a frame itself: its sender may not ask for that.
    fn denied(&mut self) {}

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
    let access = connection.access();
    let mut caller = access.newcomer(connection.peer());
    let mut session = handler.session(&caller);
    let mut payload = Vec::new();
    let mut is_first = true;
    loop {
        if !frame::starts_with_whole(connection.buffered()) {
            session.before_wait(connection)?;
            // What has not arrived whole is not begun.
            if connection.begins_no_other() {
                return session.stopping(connection);
            }
        }
        if connection.next_request(None)?.is_none() {
            return match connection.is_stopping() {
                true => session.stopping(connection),
                // What it has asked is done, also if it ends because somebody else needs its place.
                false => session.before_wait(connection),
            };
        }
        connection.set_deadline(Deadline::Within(handler.frame_wait()));
        let may_log_in = std::mem::take(&mut is_first);
        let is_stranger = access.accounts.is_some() && caller.user.is_none();
        let payload_bytes_max = handler.payload_bytes_max();
        let bytes_max = match may_log_in {
            // A login may be longer than any request.
            true => payload_bytes_max.max(Login::PAYLOAD_BYTES_MAX),
            false => payload_bytes_max,
        };
        let is_kept = |bytes| !is_stranger || bytes <= Login::PAYLOAD_BYTES_MAX;
        let has_room = |bytes| is_kept(bytes) && session.reserve(bytes);
        let read = frame::read_within(connection, bytes_max, &mut payload, has_room);
        let (read, kind) = match read {
            Ok(None) => return Ok(()),
            Ok(Some(kind)) if kind != Login::KIND && payload.len() > payload_bytes_max => {
                let payload_bytes = payload.len();
                let error = FrameError::TooLong {
                    payload_bytes,
                    payload_bytes_max,
                };
                (Err(error), Kind::frame(kind))
            }
            Ok(Some(kind)) => (Ok(kind), Kind::frame(kind)),
            Err(FrameError::Io(error)) => return Err(error),
            Err(error) => (Err(error), Kind::OTHER_FRAME),
        };
        connection.begin(kind);
        let handled = match read {
            Ok(Login::KIND) if may_log_in => match log_in(&payload, connection) {
                Ok(user) => {
                    caller = user;
                    connection.expect_first_request();
                    session = handler.session(&caller);
                    Ok(Next::Request)
                }
                Err(refused) => Err((refused, Next::Close)),
            },
            Ok(kind) => match check(access, &caller, handler, kind, &payload) {
                Ok(()) => Ok(session.handle(kind, &payload, connection)?),
                Err(refused) => Err((refused, Next::Request)),
            },
            Err(FrameError::NoRoom) if is_stranger => Err((Denied::NoLogin.into(), Next::Request)),
            Err(error) => {
                session.refuse(&error, connection)?;
                Ok(match matches!(error, FrameError::NoRoom) {
                    // The frame was passed over.
                    true => Next::Request,
                    // Where the next frame starts is not known.
                    false => Next::Close,
                })
            }
        };
        let next = match handled {
            Ok(next) => next,
            Err((Refused { code, sentence }, next)) => {
                session.before_wait(connection)?;
                session.denied();
                log::debug!("Refused: {sentence}");
                put_error(code, &sentence, connection.output());
                connection.answered(Outcome::Error);
                next
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

/// Why a request does not reach the service.
struct Refused {
    code: ErrorCode,
    sentence: String,
}

impl From<Denied> for Refused {
    fn from(denied: Denied) -> Self {
        Self {
            code: denied.code(),
            sentence: denied.sentence(),
        }
    }
}

/// Checks whether a caller may make a request.
fn check(
    access: &Access,
    caller: &Caller,
    handler: &dyn FrameHandler,
    kind: u8,
    payload: &[u8],
) -> Result<(), Refused> {
    if kind == Login::KIND {
        return Err(Refused {
            code: ErrorCode::BadRequest,
            sentence: LATE_LOGIN.to_owned(),
        });
    }
    match access.accounts {
        Some(_) => Ok(access.check(caller, handler.needs(kind, payload))?),
        None => Ok(()),
    }
}

/// Replies to a login, unless it is refused. Returns who the connection acts for from now on.
fn log_in(payload: &[u8], connection: &mut Connection) -> Result<Caller, Refused> {
    let login = Login::decode(Login::KIND, payload).map_err(|error| {
        let error = FrameError::from(error);
        Refused {
            code: error.code(),
            sentence: error.to_string(),
        }
    })?;
    let caller = match &connection.access().accounts {
        None => Caller::anyone(connection.peer()),
        Some(accounts) => {
            let caller = connection.log_in(accounts, login.user, login.password);
            caller.map_err(Denied::from)?
        }
    };
    log::debug!("Logged in as '{}'", Escaped(login.user));
    LoginReply::LoggedIn.encode(connection.output());
    connection.answered(Outcome::Ok);
    Ok(caller)
}

/// Appends an error reply as a frame.
pub fn put_error(code: ErrorCode, sentence: &str, out: &mut Vec<u8>) {
    out.extend(ErrorReply { code, sentence }.to_frame());
}
