//! The life of a connection, in the dialect of its first byte.
//!
//! A request is put into the history before anything else is done about it, so nothing ever happens
//! that was not first on record. Only what is no request at all goes to the server's log alone.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use cli::escape::{Escaped, EscapedBytes};
use daemon::{Connection, Deadline, FrameHandler, FrameSession, Next, TextHandler};
use jiff::Timestamp;
use proto::ErrorCode;
use proto::ErrorReply;
use proto::frame::{self, FrameError, Message as _};
use proto::history::{Operation, REQUEST_BYTES_MAX, Reply, Request, TEXT_BYTES_MAX, put_text};
use proto::text::{parse_history_line, read_history_line};
use storage::{NotStored, Space};

use crate::HistoryError;
use crate::history::{History, Snapshot};
use crate::users::Users;

/// A request must be whole this long after its first byte.
const REQUEST_WAIT: Duration = Duration::from_secs(10);

/// What every reply starts with.
const ABOUT: &str = "\
Source: Quartet, crates/history-server
Operations:
  1 N: delete line N
  2: show the history
  3: delete everything
";

const BUSY: &str = "The server has as many connections as it accepts; try again later.\n";

const TOO_SLOW: &str = "The request did not end within 10 s; nothing was done.";

/// So many pieces of a history are sent before a second thread is worth its start.
const PIECES_ALONE: usize = 8;

/// So many pieces are made ahead of those that are sent.
const PIECES_AHEAD: usize = 2;

/// With more connections than this there is enough to do without second threads.
const AHEAD_CONNECTIONS_MAX: usize = 64;

/// How much of a malformed line the log shows, in bytes.
const SHOWN_BYTES_MAX: usize = 100;

/// The history's connections.
pub(crate) struct Connections {
    history: Arc<History>,
    users: Option<Users>,
}

impl Connections {
    pub(crate) fn new(history: Arc<History>, users: Option<Users>) -> Self {
        Self { history, users }
    }
}

impl FrameHandler for Connections {
    fn session(&self, _peer: SocketAddr) -> Box<dyn FrameSession + '_> {
        Box::new(self)
    }

    fn payload_bytes_max(&self) -> usize {
        REQUEST_BYTES_MAX
    }

    fn frame_wait(&self) -> Duration {
        REQUEST_WAIT
    }
}

/// A connection holds nothing between its requests.
impl FrameSession for &Connections {
    fn handle(
        &mut self,
        kind: u8,
        payload: &[u8],
        connection: &mut Connection,
    ) -> io::Result<Next> {
        match Request::decode(kind, payload) {
            Ok(request) if request.operation == Operation::Hello => {
                self.greet(&request, connection)?;
            }
            Ok(request) => self.answer(&request, Dialect::Framed, connection)?,
            Err(error) => FrameSession::refuse(self, &error.into(), connection)?,
        }
        Ok(Next::Request)
    }

    fn refuse(&mut self, error: &FrameError, connection: &mut Connection) -> io::Result<()> {
        let sentence = error.to_string();
        log::warn!("Not a request: {}", Escaped(&sentence));
        Dialect::Framed.put(Reply::About(ABOUT), connection)?;
        Dialect::Framed.put_error(error.code(), &sentence, connection)
    }
}

impl TextHandler for Connections {
    fn serve(&self, connection: &mut Connection) -> io::Result<()> {
        self.serve_plain(connection)
    }

    fn busy_reply(&self) -> Vec<u8> {
        BUSY.as_bytes().to_vec()
    }
}

/// How replies are written.
#[derive(Clone, Copy)]
enum Dialect {
    Framed,
    Plain,
}

impl Dialect {
    fn put(self, reply: Reply, connection: &mut Connection) -> io::Result<()> {
        let out = connection.output();
        match (self, reply) {
            (Self::Framed, reply) => reply.encode(out),
            (Self::Plain, Reply::About(text)) => out.extend_from_slice(text.as_bytes()),
            (Self::Plain, Reply::Text(bytes)) => out.extend_from_slice(bytes),
            (Self::Plain, Reply::Done("")) => {}
            (Self::Plain, Reply::Done(sentence) | Reply::Error(ErrorReply { sentence, .. })) => {
                out.extend_from_slice(sentence.as_bytes());
                out.push(b'\n');
            }
        }
        connection.flush_if_large()
    }

    /// Appends a piece of the history; returns whether there was one.
    fn put_piece(self, snapshot: &mut Snapshot, out: &mut Vec<u8>) -> Result<bool, HistoryError> {
        let before = out.len();
        match self {
            Self::Framed => put_text(out, |out| snapshot.put_piece(out))?,
            Self::Plain => snapshot.put_piece(out)?,
        }
        Ok(out.len() > before)
    }

    fn put_error(
        self,
        code: ErrorCode,
        sentence: &str,
        connection: &mut Connection,
    ) -> io::Result<()> {
        self.put(Reply::Error(ErrorReply { code, sentence }), connection)
    }
}

/// What a request that was granted gets.
enum Answer {
    Done(String),
    History(Snapshot),
}

impl Connections {
    /// One request, one reply.
    fn serve_plain(&self, connection: &mut Connection) -> io::Result<()> {
        connection.set_deadline(Deadline::Within(REQUEST_WAIT));
        let line = match read_history_line(&mut *connection) {
            Ok(line) => line,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                log::warn!("A request did not end within 10 s");
                return refuse_line(TOO_SLOW, connection);
            }
            Err(error) => return Err(error),
        };
        match parse_history_line(&line) {
            Ok(request) => self.answer(&request, Dialect::Plain, connection),
            Err(error) => {
                let line = EscapedBytes {
                    bytes: &line,
                    bytes_max: SHOWN_BYTES_MAX,
                };
                log::warn!("Not a request: '{line}'. {error}");
                refuse_line(&error.to_string(), connection)
            }
        }
    }

    fn answer(
        &self,
        request: &Request,
        dialect: Dialect,
        connection: &mut Connection,
    ) -> io::Result<()> {
        dialect.put(Reply::About(ABOUT), connection)?;
        let snapshot = match self.act(request, connection) {
            Ok(Answer::Done(sentence)) => return dialect.put(Reply::Done(&sentence), connection),
            Ok(Answer::History(snapshot)) => snapshot,
            Err(refusal) => return self.refuse(&refusal, dialect, connection),
        };
        let sent = send_history(snapshot, dialect, connection)?;
        match sent {
            Ok(()) => dialect.put(Reply::Done(""), connection),
            Err(error) => self.refuse(&error, dialect, connection),
        }
    }

    /// Puts a request into the history and then does what it asks for.
    fn act(&self, request: &Request, connection: &Connection) -> Result<Answer, HistoryError> {
        let operation = request.operation;
        let (record, is_allowed) = self.record(request, connection);
        let makes_room = matches!(operation, Operation::Delete(_) | Operation::Clear);
        let space = match is_allowed && makes_room {
            true => Space::Reserved,
            false => Space::Usual,
        };
        match self.history.append(&record, space) {
            // Who looks needs no room. The line that clearing leaves says the same, and makes the
            // room that this one lacked.
            Err(HistoryError::NotStored(NotStored::Refused(_)))
                if is_allowed && matches!(operation, Operation::Get | Operation::Clear) => {}
            logged => logged?,
        }
        if !is_allowed {
            return Err(HistoryError::NotAUser);
        }
        Ok(match operation {
            Operation::Hello => Answer::Done(String::new()),
            Operation::Delete(line) => {
                self.history.delete(line, || connection.is_stopping())?;
                Answer::Done(format!("Line {line} deleted."))
            }
            Operation::Get => Answer::History(self.history.snapshot()),
            Operation::Clear => {
                let what = "deleted the history";
                self.history
                    .clear(&record_of(request.user, what, connection))?;
                Answer::Done("History deleted.".to_owned())
            }
        })
    }

    /// Puts a framed request into the history that asks for nothing more, and leaves the reply to
    /// the thread that does.
    fn greet(&self, request: &Request, connection: &mut Connection) -> io::Result<()> {
        let (record, is_allowed) = self.record(request, connection);
        let pending = connection.pending_reply(ABOUT.len())?;
        self.history.append_later(&record, move |logged| {
            let mut out = Vec::new();
            Reply::About(ABOUT).encode(&mut out);
            let granted = match logged {
                Ok(()) if is_allowed => Ok(()),
                Ok(()) => Err(HistoryError::NotAUser),
                Err(error) => Err(error),
            };
            match granted {
                Ok(()) => Reply::Done("").encode(&mut out),
                Err(refusal) => {
                    log::debug!("Refused: {refusal}");
                    let code = code_of(&refusal);
                    let sentence = &refusal.to_string();
                    Reply::Error(ErrorReply { code, sentence }).encode(&mut out);
                }
            }
            pending.complete(out);
        });
        Ok(())
    }

    /// What goes into the history about a request, and whether it is allowed.
    fn record(&self, request: &Request, connection: &Connection) -> (String, bool) {
        let Request { user, operation } = *request;
        let mut asked = match operation {
            Operation::Hello => "hello".to_owned(),
            operation => operation.to_string(),
        };
        let users = self.users.as_ref();
        let is_allowed = users.is_none_or(|users| users.contains(user));
        if !is_allowed {
            asked.insert_str(0, "refused: ");
        }
        log::info!("{user} {asked}");
        (record_of(user, &asked, connection), is_allowed)
    }

    fn refuse(
        &self,
        refusal: &HistoryError,
        dialect: Dialect,
        connection: &mut Connection,
    ) -> io::Result<()> {
        log::debug!("Refused: {refusal}");
        dialect.put_error(code_of(refusal), &refusal.to_string(), connection)
    }
}

/// The code that goes with a refusal.
fn code_of(refusal: &HistoryError) -> ErrorCode {
    match refusal {
        HistoryError::NotAUser => ErrorCode::Authentication,
        HistoryError::NoSuchLine { .. } => ErrorCode::NotFound,
        HistoryError::NotStored(_) | HistoryError::Read(_) => ErrorCode::Storage,
    }
}

/// What goes into the history: when, from where, who, what.
fn record_of(user: &str, what: &str, connection: &Connection) -> String {
    format!(
        "{:.3} {} {user} {what}",
        Timestamp::now(),
        connection.peer()
    )
}

/// Sends a history.
fn send_history(
    mut snapshot: Snapshot,
    dialect: Dialect,
    connection: &mut Connection,
) -> io::Result<Result<(), HistoryError>> {
    let mut pieces = 0;
    loop {
        let is_long = pieces == PIECES_ALONE;
        if is_long
            && connection.open_connections() <= AHEAD_CONNECTIONS_MAX
            && let Some(sent) = send_ahead(&mut snapshot, dialect, connection)?
        {
            return Ok(sent);
        }
        match dialect.put_piece(&mut snapshot, connection.output()) {
            Ok(true) => connection.flush_if_large()?,
            Ok(false) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        }
        pieces += 1;
    }
}

/// Sends the rest of a long history, while another thread makes the next pieces: to read and number
/// the lines takes longer than to send them. `None` if there can be no other thread; then nothing is
/// sent.
fn send_ahead(
    snapshot: &mut Snapshot,
    dialect: Dialect,
    connection: &mut Connection,
) -> io::Result<Option<Result<(), HistoryError>>> {
    let (made, pieces) = mpsc::sync_channel(PIECES_AHEAD);
    let make = move || {
        loop {
            let mut piece = Vec::with_capacity(TEXT_BYTES_MAX + frame::HEADER_BYTES);
            let put = dialect.put_piece(snapshot, &mut piece);
            let is_last = !matches!(put, Ok(true));
            // It fails when the connection has ended, and nobody wants the pieces any more.
            if made.send(put.map(|_| piece)).is_err() || is_last {
                return;
            }
        }
    };
    thread::scope(|scope| {
        let maker = thread::Builder::new().name(format!("ahead {}", connection.peer()));
        let maker = maker.stack_size(daemon::STACK_BYTES);
        if let Err(error) = maker.spawn_scoped(scope, make) {
            log::warn!("Cannot start a thread to read ahead: {error}");
            return Ok(None);
        }
        for piece in pieces {
            match piece {
                Ok(piece) => connection.write_all(&piece)?,
                Err(error) => return Ok(Some(Err(error))),
            }
        }
        Ok(Some(Ok(())))
    })
}

/// Answers a line that is no request.
fn refuse_line(sentence: &str, connection: &mut Connection) -> io::Result<()> {
    Dialect::Plain.put(Reply::About(ABOUT), connection)?;
    Dialect::Plain.put_error(ErrorCode::BadRequest, sentence, connection)
}
