//! Which protocol a connection speaks: how it begins decides.
//!
//! | it begins with | protocol |
//! |---|---|
//! | the byte 0 | frames, where the port offers them |
//! | the byte 0x16, and then 3 if there is a second byte | a TLS handshake, on a port that speaks none: closed at once, with a line in the log |
//! | a first line that is HTTP ([`FirstLine`]) | HTTP |
//! | anything else | the port's text protocol, if it has one; else HTTP |
//!
//! Text never begins with NUL, so frames and text can share a port. Nothing waits for more bytes that
//! one byte has decided. A line that may still become HTTP is waited for as long as the text protocol
//! waits for a request: a web page's request must never be taken for a text.
//!
//! On a port that speaks TLS, the first byte below it is 0x16, and this looks at the first one that is
//! decrypted. A client that begins with something else is told to speak TLS, in its protocol.

use std::io;
use std::sync::Arc;

use proto::ErrorCode;
use proto::frame;
use proto::http::{FIRST_LINE_BYTES_MAX, FirstLine, Status, begins_like_http};

use crate::connection::Connection;
use crate::frames::{self, FrameHandler};
use crate::http::Http;
use crate::input::Deadline;
use crate::metrics::{Kind, Outcome};
use crate::text::TextHandler;

/// How the first record of a TLS connection begins (RFC 8446 section 5.1): with its type.
pub(crate) const TLS_HANDSHAKE: u8 = 0x16;

/// The first half of the version behind it, in all versions there are.
const TLS_MAJOR: u8 = 3;

/// What a text client is told where there are accounts.
const NO_TEXT: &str = "this server has accounts (--auth-file), and the text protocol has no logins; use \
                       a client that has them";

/// The protocols of one port, at least one.
#[derive(Clone, Default)]
pub struct Protocols {
    /// Messages in frames.
    pub frames: Option<Arc<dyn FrameHandler>>,
    /// HTTP.
    pub http: Option<Http>,
    /// A text protocol.
    pub text: Option<Arc<dyn TextHandler>>,
}

impl From<Http> for Protocols {
    fn from(http: Http) -> Self {
        Self {
            http: Some(http),
            ..Self::default()
        }
    }
}

impl Protocols {
    /// Serves a connection until it ends.
    pub(crate) fn serve(&self, connection: &mut Connection) -> io::Result<()> {
        let open = connection.open_connections();
        // A connection in frames may be idle for ever, also before its first.
        let http = self.http.as_ref().filter(|_| self.frames.is_none());
        let idle = http.map(|http| http.idle_timeout(open));
        let Some(first) = connection.first_byte(idle)? else {
            return Ok(());
        };
        // Nothing that is spoken here begins so, and a client that wants TLS would wait for an answer.
        if let [TLS_HANDSHAKE] | [TLS_HANDSHAKE, TLS_MAJOR, ..] = connection.buffered() {
            log::warn!("A TLS handshake, which is not spoken on this port; closing the connection");
            return Ok(());
        }
        match (&self.frames, &self.text, &self.http) {
            (Some(handler), ..) if first == frame::FIRST_BYTE => {
                frames::serve(&**handler, connection)
            }
            (_, Some(text), http) => {
                connection.set_deadline(Deadline::Within(text.request_wait()));
                match http {
                    Some(http) if is_http(&**text, connection)? => http.serve(connection),
                    Some(_) | None => serve_text(&**text, connection),
                }
            }
            (_, None, Some(http)) => http.serve(connection),
            (Some(handler), None, None) => frames::serve(&**handler, connection),
            (None, None, None) => Ok(()),
        }
    }

    /// What to answer a connection that is not served, by how it begins. Nothing more is waited for.
    pub(crate) fn refusal(&self, start: &[u8], why: Unserved) -> Vec<u8> {
        let sentence = why.sentence();
        let frame = || {
            let mut out = Vec::new();
            frames::put_error(why.code(), sentence, &mut out);
            out
        };
        match (&self.frames, &self.text, &self.http) {
            (Some(_), ..) if start.first() == Some(&frame::FIRST_BYTE) => frame(),
            (_, Some(text), None) => text.error_reply(sentence),
            (_, Some(text), Some(_)) if !begins_like_http(start) => text.error_reply(sentence),
            (_, _, Some(http)) => http.refusal(why.status(), sentence),
            (_, None, None) => frame(),
        }
    }
}

/// How many bytes of a connection's start [`Protocols::refusal`] looks at: a method and the start of its
/// target.
pub(crate) const START_BYTES: usize = 64;

/// Why a connection is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unserved {
    /// There are as many as may be.
    Busy,
    /// It is not encrypted, on a port where it must be.
    Unencrypted,
}

impl Unserved {
    fn sentence(self) -> &'static str {
        match self {
            Self::Busy => "the server has as many connections as it accepts; try again later",
            Self::Unencrypted => "this port speaks TLS: use https:// or --tls",
        }
    }

    fn code(self) -> ErrorCode {
        match self {
            Self::Busy => ErrorCode::Busy,
            Self::Unencrypted => ErrorCode::BadRequest,
        }
    }

    fn status(self) -> Status {
        match self {
            Self::Busy => Status::ServiceUnavailable,
            Self::Unencrypted => Status::BadRequest,
        }
    }
}

/// Whether a connection speaks HTTP, at a port where it may also be text. What decides has arrived when
/// this returns, or no more will.
fn is_http(text: &dyn TextHandler, connection: &mut Connection) -> io::Result<bool> {
    let mut is_whole = false;
    loop {
        let start = connection.buffered();
        match FirstLine::of(start, is_whole) {
            FirstLine::Http => return Ok(true),
            FirstLine::Other => return Ok(false),
            FirstLine::Undecided => {}
        }
        let begins_like_http = begins_like_http(start);
        let bytes_max = match begins_like_http {
            true => FIRST_LINE_BYTES_MAX,
            false => text.request_bytes_max().min(FIRST_LINE_BYTES_MAX),
        };
        if start.len() >= bytes_max {
            return Ok(begins_like_http);
        }
        is_whole = match connection.read_ahead() {
            Ok(has_more) => !has_more,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => true,
            Err(error) => return Err(error),
        };
    }
}

fn serve_text(text: &dyn TextHandler, connection: &mut Connection) -> io::Result<()> {
    connection.begin(Kind::TEXT);
    if connection.access().accounts.is_none() {
        let served = text.serve(connection);
        connection.answered(Outcome::of(&served));
        return served;
    }
    log::warn!(
        "The text protocol has no logins, and the server has accounts; closing the connection"
    );
    connection.output().extend(text.error_reply(NO_TEXT));
    connection.answered(Outcome::Error);
    Ok(())
}
