//! The handlers of the history's requests, in frames and as text: one function for each request.
//!
//! A request is appended to the history before it is acted on, so nothing happens that is not on
//! record. Bytes that are no request go to the server's log alone.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cli::escape::{Escaped, EscapedBytes};
use daemon::{
    Caller, Connection, FrameHandler, FrameSession, Next, Outcome, Peer, Role, TextHandler,
};
use jiff::Timestamp;
use proto::frame::{FrameError, Message as _};
use proto::history::{Filter, Operation, REQUEST_BYTES_MAX, Request};
use proto::text::{HISTORY_LINE_BYTES_MAX, parse_history_line, read_history_line};
use proto::{ErrorCode, Register};
use storage::{NotStored, Space};

use crate::HistoryError;
use crate::follow::{follow, make_room, put};
use crate::history::{Condition, History, Lines};
use crate::reply::{Format, REPLY_BYTES};
use crate::users::Users;

/// How long a request may take from its first byte on.
const REQUEST_WAIT: Duration = Duration::from_secs(10);

/// How much of a malformed line the log shows, in bytes.
const SHOWN_BYTES_MAX: usize = 100;

const TOO_SLOW: &str = "The request did not end within 10 s; nothing was done.";

/// What the handlers of both protocols need.
pub(crate) struct Service {
    pub(crate) history: Arc<History>,
    pub(crate) users: Arc<Users>,
}

/// What is put on record about a request.
pub(crate) struct Asked {
    record: String,
    is_allowed: bool,
}

impl Service {
    pub(crate) fn new(history: Arc<History>, users: Arc<Users>) -> Self {
        Self { history, users }
    }

    /// Whether a caller may look at the page, under the name of its login or else this one.
    pub(crate) fn may_look(&self, caller: &Caller, user: &str) -> bool {
        self.users.may(caller.user.as_deref().unwrap_or(user))
    }

    fn handle(
        &self,
        caller: &Caller,
        request: &Request,
        format: Format,
        connection: &mut Connection,
    ) -> io::Result<()> {
        let outcome = match check_name(caller, request.user) {
            Ok(()) => {
                let what = match request.operation {
                    Operation::Hello => "hello".to_owned(),
                    Operation::Get(_)
                    | Operation::Delete { .. }
                    | Operation::Clear
                    | Operation::Note(_)
                    | Operation::Follow { .. } => request.operation.to_string(),
                };
                let asked = self.asked(request.user, what, caller.peer);
                match request.operation {
                    Operation::Hello => return self.record(asked, "", format, connection),
                    Operation::Note(_) => {
                        return self.record(asked, "Noted.", format, connection);
                    }
                    Operation::Get(filter) => return self.get(&asked, filter, format, connection),
                    Operation::Follow { last, behind } => {
                        return self.follow(&asked, request.user, last, behind, format, connection);
                    }
                    Operation::Delete {
                        first,
                        last,
                        contains,
                    } => {
                        let lines = Lines { first, last };
                        let user = only_own(caller);
                        let condition = Condition { user, contains };
                        self.delete(&asked, lines, &condition, connection)
                    }
                    Operation::Clear => self.clear(&asked, caller, request.user),
                }
            }
            // Nothing is put on record in another's name.
            Err(refusal) => {
                log::warn!("Refused: {refusal}");
                Err(refusal)
            }
        };
        let answer = Outcome::of(&outcome);
        format.put_reply(outcome, connection.output());
        connection.answered(answer);
        Ok(())
    }

    /// Gives a name that nobody has, and puts that on record.
    fn register(
        &self,
        caller: &Caller,
        prefix: &str,
        connection: &mut Connection,
    ) -> io::Result<()> {
        let format = Format::Frames;
        match self.users.register(caller.peer.into(), prefix) {
            Ok(name) => {
                log::info!("{name} registered");
                let asked = Asked {
                    record: record_of(caller.peer, &name, "registered"),
                    is_allowed: true,
                };
                self.record(asked, name, format, connection)
            }
            Err(refusal) => {
                log::warn!("Refused: {refusal}");
                format.put_reply(Err(refusal), connection.output());
                connection.answered(Outcome::Error);
                Ok(())
            }
        }
    }

    /// Puts on record what was asked, which is all that was asked for. The writer thread completes the
    /// reply, with this sentence.
    fn record(
        &self,
        asked: Asked,
        sentence: impl Into<String>,
        format: Format,
        connection: &mut Connection,
    ) -> io::Result<()> {
        let mut reply = connection.pending_reply(REPLY_BYTES)?;
        let sentence = sentence.into();
        let appended = self.history.submit(&asked.record, Space::Usual);
        appended.on_complete(move |appended| {
            let appended = appended.map_err(HistoryError::NotStored);
            let outcome = appended.and_then(|()| asked.check());
            reply.set_outcome(Outcome::of(&outcome));
            let mut out = Vec::new();
            format.put_reply(outcome.map(|()| sentence), &mut out);
            reply.complete(out);
        });
        Ok(())
    }

    /// Shows the history, or some of its lines. A search looks at what was there before it, so that it does
    /// not find its own record.
    fn get(
        &self,
        asked: &Asked,
        filter: Filter,
        format: Format,
        connection: &mut Connection,
    ) -> io::Result<()> {
        format.put_about(connection.output());
        let before = filter.is_search().then(|| self.history.now());
        let appended = self.append_if_space(asked, Space::Usual);
        let there = || before.unwrap_or_else(|| self.history.now());
        let sent = match appended.and_then(|()| there().find(filter)) {
            Ok(lines) => format.send_history(lines, connection)?,
            Err(refusal) => Err(refusal),
        };
        connection.answered(Outcome::of(&sent));
        format.put_outcome(sent.map(|()| String::new()), connection.output());
        Ok(())
    }

    /// Shows the last lines, or those behind a sequence number that is not 0, and then each line as it comes.
    /// Its own record is the first of the new lines, and none of the last.
    fn follow(
        &self,
        asked: &Asked,
        user: &str,
        last: u64,
        behind: u64,
        format: Format,
        connection: &mut Connection,
    ) -> io::Result<()> {
        format.put_about(connection.output());
        let begin = match behind {
            0 => self.history.now().before_last(last),
            _ => Ok(behind),
        };
        // First, because who is refused comes again, and the record would fill up with that.
        let room = match asked.is_allowed {
            true => make_room(connection),
            false => Ok(()),
        };
        let appended = room.and_then(|()| self.append_if_space(asked, Space::Usual));
        let followed = match appended.and(begin) {
            Ok(behind) => {
                let may_follow = || self.users.may(user);
                follow(&self.history, behind, connection, may_follow, put)?
            }
            Err(refusal) => Err(refusal),
        };
        connection.answered(Outcome::of(&followed));
        format.put_outcome(followed.map(|()| String::new()), connection.output());
        Ok(())
    }

    /// Deletes lines.
    fn delete(
        &self,
        asked: &Asked,
        lines: Lines,
        condition: &Condition,
        connection: &Connection,
    ) -> Result<String, HistoryError> {
        self.append(asked, Space::Reserved)?;
        let is_stopping = || connection.is_stopping();
        self.history.delete(lines, condition, is_stopping)?;
        let Lines { first, last } = lines;
        Ok(match first == last {
            true => format!("Line {first} deleted."),
            false => format!("Lines {first} to {last} deleted."),
        })
    }

    /// Clears the history.
    fn clear(&self, asked: &Asked, caller: &Caller, user: &str) -> Result<String, HistoryError> {
        self.append_if_space(asked, Space::Reserved)?;
        let record = record_of(caller.peer, user, "deleted the history");
        let condition = Condition {
            user: only_own(caller),
            ..Condition::default()
        };
        self.history.clear(&record, &condition)?;
        Ok("History deleted.".to_owned())
    }

    /// What is put on record about what a user asks; logs it.
    pub(crate) fn asked(&self, user: &str, mut what: String, peer: Peer) -> Asked {
        let is_allowed = self.users.may(user);
        if !is_allowed {
            what.insert_str(0, "refused: ");
        }
        log::info!("{user} {}", Escaped(&what));
        Asked {
            record: record_of(peer, user, &what),
            is_allowed,
        }
    }

    /// Puts a request on record. One that is refused may not use the reserved space.
    ///
    /// # Errors
    /// [`HistoryError::NotStored`], [`HistoryError::NotAUser`].
    pub(crate) fn append(&self, asked: &Asked, space: Space) -> Result<(), HistoryError> {
        let space = if asked.is_allowed {
            space
        } else {
            Space::Usual
        };
        self.history.append(&asked.record, space)?;
        asked.check()
    }

    /// Puts a request on record that a full history must not prevent: reading needs no space, and
    /// clearing leaves a line that says the same.
    ///
    /// # Errors
    /// [`HistoryError::NotStored`], [`HistoryError::NotAUser`].
    fn append_if_space(&self, asked: &Asked, space: Space) -> Result<(), HistoryError> {
        match self.append(asked, space) {
            Err(HistoryError::NotStored(NotStored::Refused(_))) if asked.is_allowed => Ok(()),
            appended => appended,
        }
    }
}

impl Asked {
    fn check(&self) -> Result<(), HistoryError> {
        match self.is_allowed {
            true => Ok(()),
            false => Err(HistoryError::NotAUser),
        }
    }
}

/// Where there are accounts, names are real.
pub(crate) fn check_name(caller: &Caller, name: &str) -> Result<(), HistoryError> {
    match &caller.user {
        Some(user) if **user != *name => Err(HistoryError::OtherName {
            user: Arc::clone(user),
            name: name.to_owned(),
        }),
        Some(_) | None => Ok(()),
    }
}

/// The user whose records alone a caller may delete; `None` if it may delete all.
pub(crate) fn only_own(caller: &Caller) -> Option<&str> {
    let user = caller.user.as_deref();
    user.filter(|_| caller.role < Role::Admin)
}

/// A record: when, from where, who, what.
fn record_of(peer: Peer, user: &str, what: &str) -> String {
    format!("{:.3} {peer} {user} {what}", Timestamp::now())
}

impl FrameHandler for Service {
    fn session(&self, caller: &Caller) -> Box<dyn FrameSession + '_> {
        Box::new(Session {
            service: self,
            caller: caller.clone(),
        })
    }

    fn needs(&self, kind: u8, payload: &[u8]) -> Role {
        if kind == Register::KIND {
            return Role::Write;
        }
        match Request::decode(kind, payload).map(|request| request.operation) {
            Ok(
                Operation::Hello | Operation::Delete { .. } | Operation::Clear | Operation::Note(_),
            ) => Role::Write,
            Ok(Operation::Get(_) | Operation::Follow { .. }) | Err(_) => Role::Read,
        }
    }

    fn payload_bytes_max(&self) -> usize {
        REQUEST_BYTES_MAX
    }

    fn frame_wait(&self) -> Duration {
        REQUEST_WAIT
    }
}

/// A connection's requests. It holds nothing between them.
struct Session<'s> {
    service: &'s Service,
    caller: Caller,
}

impl FrameSession for Session<'_> {
    fn handle(
        &mut self,
        kind: u8,
        payload: &[u8],
        connection: &mut Connection,
    ) -> io::Result<Next> {
        let (service, caller) = (self.service, &self.caller);
        if kind == Register::KIND {
            match Register::decode(kind, payload) {
                Ok(Register { prefix }) => service.register(caller, prefix, connection)?,
                Err(error) => self.refuse(&error.into(), connection)?,
            }
            return Ok(Next::Request);
        }
        match Request::decode(kind, payload) {
            Ok(request) => {
                service.handle(caller, &request, Format::Frames, connection)?;
            }
            Err(error) => self.refuse(&error.into(), connection)?,
        }
        Ok(Next::Request)
    }

    fn refuse(&mut self, error: &FrameError, connection: &mut Connection) -> io::Result<()> {
        let sentence = error.to_string();
        log::warn!("Not a request: {}", Escaped(&sentence));
        Format::Frames.put_refusal(error.code(), &sentence, connection.output());
        connection.answered(Outcome::Error);
        Ok(())
    }
}

/// One line is one request, and its reply ends the connection.
impl TextHandler for Service {
    fn serve(&self, connection: &mut Connection) -> io::Result<()> {
        let refused = match read_history_line(&mut *connection) {
            Ok(line) => match parse_history_line(&line) {
                Ok(request) => {
                    let caller = Caller::anyone(connection.peer());
                    return self.handle(&caller, &request, Format::Text, connection);
                }
                Err(error) => {
                    let bytes_max = SHOWN_BYTES_MAX;
                    let bytes = &line;
                    log::warn!(
                        "Not a request: '{}'. {error}",
                        EscapedBytes { bytes, bytes_max }
                    );
                    error.to_string()
                }
            },
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                log::warn!("A request did not end within 10 s");
                TOO_SLOW.to_owned()
            }
            Err(error) => return Err(error),
        };
        Format::Text.put_refusal(ErrorCode::BadRequest, &refused, connection.output());
        connection.answered(Outcome::Error);
        Ok(())
    }

    fn request_wait(&self) -> Duration {
        REQUEST_WAIT
    }

    fn request_bytes_max(&self) -> usize {
        // One more shows that a line is too long.
        HISTORY_LINE_BYTES_MAX + 1
    }

    fn error_reply(&self, sentence: &str) -> Vec<u8> {
        format!("{sentence}\n").into_bytes()
    }
}
