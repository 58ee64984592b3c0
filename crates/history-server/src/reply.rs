//! How replies are written: in frames, or as text.

use std::io::{self, Write as _};
use std::sync::mpsc;
use std::thread;

use daemon::Connection;
use proto::frame::{self, Message as _};
use proto::history::{Reply, TEXT_BYTES_MAX, put_text};
use proto::{ErrorCode, ErrorReply};
use storage::NotStored;

use crate::HistoryError;
use crate::history::Pieces;

/// What every reply begins with.
const ABOUT: &str = "\
Source: Quartet, crates/history-server
Operations:
  1 N: delete line N
  2: show the history
  3: delete everything
";

/// About how long a reply without a history is, in bytes.
pub(crate) const REPLY_BYTES: usize = ABOUT.len();

/// The pieces of a history that are sent before a second thread is worth its start.
const PIECES_ALONE: usize = 8;

/// The most pieces that the second thread makes ahead.
const PIECES_AHEAD: usize = 2;

/// With more connections than this, all processors are busy without second threads.
const AHEAD_CONNECTIONS_MAX: usize = 64;

/// The format of a reply: that of its request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Format {
    Frames,
    Text,
}

impl Format {
    /// Appends a whole reply.
    pub(crate) fn put_reply(self, outcome: Result<String, HistoryError>, out: &mut Vec<u8>) {
        self.put_about(out);
        self.put_outcome(outcome, out);
    }

    /// Appends the whole reply to bytes that are no request.
    pub(crate) fn put_refusal(self, code: ErrorCode, sentence: &str, out: &mut Vec<u8>) {
        self.put_about(out);
        self.put_error(code, sentence, out);
    }

    /// Appends what every reply begins with.
    pub(crate) fn put_about(self, out: &mut Vec<u8>) {
        match self {
            Self::Frames => Reply::About(ABOUT).encode(out),
            Self::Text => out.extend_from_slice(ABOUT.as_bytes()),
        }
    }

    /// Appends the end of a reply: a sentence, which may be empty, or an error.
    pub(crate) fn put_outcome(self, outcome: Result<String, HistoryError>, out: &mut Vec<u8>) {
        match outcome {
            Ok(sentence) => match self {
                Self::Frames => Reply::Done(&sentence).encode(out),
                Self::Text if sentence.is_empty() => {}
                Self::Text => put_line(&sentence, out),
            },
            Err(refusal) => {
                log::debug!("Refused: {refusal}");
                self.put_error(code_of(&refusal), &refusal.to_string(), out);
            }
        }
    }

    fn put_error(self, code: ErrorCode, sentence: &str, out: &mut Vec<u8>) {
        match self {
            Self::Frames => Reply::Error(ErrorReply { code, sentence }).encode(out),
            Self::Text => put_line(sentence, out),
        }
    }

    /// Appends a piece of the history; returns whether there was one.
    fn put_piece(self, lines: &mut dyn Pieces, out: &mut Vec<u8>) -> Result<bool, HistoryError> {
        let before = out.len();
        match self {
            Self::Frames => put_text(out, |out| lines.put_piece(TEXT_BYTES_MAX, out))?,
            Self::Text => lines.put_piece(TEXT_BYTES_MAX, out)?,
        }
        Ok(out.len() > before)
    }

    /// Sends the history, or some of its lines.
    ///
    /// # Errors
    /// Those of the connection; inside, [`HistoryError::Read`].
    pub(crate) fn send_history(
        self,
        mut lines: Box<dyn Pieces + '_>,
        connection: &mut Connection,
    ) -> io::Result<Result<(), HistoryError>> {
        let mut pieces = 0;
        loop {
            if pieces == PIECES_ALONE
                && connection.open_connections() <= AHEAD_CONNECTIONS_MAX
                && let Some(sent) = self.send_ahead(&mut *lines, connection)?
            {
                return Ok(sent);
            }
            match self.put_piece(&mut *lines, connection.output()) {
                Ok(true) => connection.flush_if_large()?,
                Ok(false) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            }
            pieces += 1;
        }
    }

    /// Sends the rest of a long history while a second thread makes the next pieces, because to read
    /// and number lines takes longer than to send them. `None` if that thread cannot be started. Then
    /// nothing is sent.
    fn send_ahead(
        self,
        lines: &mut dyn Pieces,
        connection: &mut Connection,
    ) -> io::Result<Option<Result<(), HistoryError>>> {
        let (sender, pieces) = mpsc::sync_channel(PIECES_AHEAD);
        let make = move || {
            loop {
                let mut piece = Vec::with_capacity(TEXT_BYTES_MAX + frame::HEADER_BYTES);
                let put = self.put_piece(lines, &mut piece);
                let is_last = !matches!(put, Ok(true));
                // Sending fails if the connection has ended.
                if sender.send(put.map(|_| piece)).is_err() || is_last {
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
}

fn put_line(sentence: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(sentence.as_bytes());
    out.push(b'\n');
}

/// The code of an error reply.
fn code_of(refusal: &HistoryError) -> ErrorCode {
    match refusal {
        HistoryError::NotAUser
        | HistoryError::OtherName { .. }
        | HistoryError::NotOwn(_)
        | HistoryError::NamesAreLogins
        | HistoryError::NoRegister
        | HistoryError::TooManyNames => ErrorCode::Forbidden,
        HistoryError::NoSuchLine { .. }
        | HistoryError::NoMatch { .. }
        | HistoryError::Meanwhile
        | HistoryError::Changed(_) => ErrorCode::NotFound,
        HistoryError::Busy(_) => ErrorCode::Busy,
        HistoryError::Stopping => ErrorCode::ShuttingDown,
        HistoryError::NotStored(NotStored::Refused(_)) | HistoryError::Read(_) => {
            ErrorCode::Storage
        }
        HistoryError::NotStored(NotStored::Unknown) => ErrorCode::InDoubt,
    }
}
