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
//! waits for a request: a web page's request must never be taken for a text, also not the start of one
//! that is cut off. That is refused.
//!
//! On a port that speaks TLS, the first byte below it is 0x16, and this looks at the first one that is
//! decrypted. A client that begins with something else is told to speak TLS, in its protocol.

use std::io;
use std::sync::Arc;

use proto::ErrorCode;
use proto::frame;
use proto::http::{FIRST_LINE_BYTES_MAX, FirstLine, Status};

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

/// What is said of a first line that was cut off.
const CUT_OFF: &str = "the first line begins like HTTP and has no end; a text that begins so must end with a \
                       line break";

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
                let Some(http) = http else {
                    return serve_text(&**text, connection);
                };
                match first_line(&**text, connection)? {
                    FirstLine::Http => http.serve(connection),
                    FirstLine::HttpSoFar => refuse_cut_off(http, connection),
                    FirstLine::Other | FirstLine::OtherSoFar => serve_text(&**text, connection),
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
        let is_http = matches!(FirstLine::of(start), FirstLine::Http | FirstLine::HttpSoFar);
        match (&self.frames, &self.text, &self.http) {
            (Some(_), ..) if start.first() == Some(&frame::FIRST_BYTE) => frame(),
            (_, Some(text), None) => text.error_reply(sentence),
            (_, Some(text), Some(_)) if !is_http => text.error_reply(sentence),
            (_, _, Some(http)) => http.refusal(why.status(), sentence),
            (_, None, None) => frame(),
        }
    }
}

/// How many bytes of a connection's start show whether it may be HTTP: a method and the start of its
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

/// What a connection's first line is, at a port where it may be HTTP or text. What decides has arrived when
/// this returns, or it will not: the stream has ended, or is silent. What is too long for HTTP is HTTP if
/// it is so far.
fn first_line(text: &dyn TextHandler, connection: &mut Connection) -> io::Result<FirstLine> {
    let other_bytes_max = text
        .request_bytes_max()
        .clamp(START_BYTES, FIRST_LINE_BYTES_MAX);
    loop {
        let start = connection.buffered();
        let first_line = FirstLine::of(start);
        match first_line {
            FirstLine::Http | FirstLine::Other => return Ok(first_line),
            FirstLine::HttpSoFar if start.len() >= FIRST_LINE_BYTES_MAX => {
                return Ok(FirstLine::Http);
            }
            FirstLine::OtherSoFar if start.len() >= other_bytes_max => return Ok(first_line),
            FirstLine::HttpSoFar | FirstLine::OtherSoFar => {}
        }
        match connection.read_ahead() {
            Ok(true) => {}
            Ok(false) => return Ok(first_line),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(first_line),
            Err(error) => return Err(error),
        }
    }
}

/// Refuses what may be the start of a web page's request, or a text.
fn refuse_cut_off(http: &Http, connection: &mut Connection) -> io::Result<()> {
    let status = Status::BadRequest;
    connection.begin(Kind::http(""));
    log::warn!("{CUT_OFF}; closing the connection");
    connection.output().extend(http.refusal(status, CUT_OFF));
    connection.answered(Outcome::Status(status));
    Ok(())
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::eviction::State;
    use crate::http::Probes;
    use crate::registry::Registry;

    /// Shows what it takes for a text, of which 7 bytes are enough.
    struct Shows {
        wait: Duration,
    }

    impl TextHandler for Shows {
        fn serve(&self, connection: &mut Connection) -> io::Result<()> {
            let text = connection.buffered().to_vec();
            connection.write_all(b"text: ")?;
            connection.write_all(&text)
        }

        fn request_wait(&self) -> Duration {
            self.wait
        }

        fn request_bytes_max(&self) -> usize {
            7
        }

        fn error_reply(&self, _sentence: &str) -> Vec<u8> {
            unreachable!("each is served")
        }
    }

    /// What a client is answered that sends some bytes, and then, when the server waits for more, others. It
    /// ends its half behind those, or is silent.
    fn reply_to(pieces: [&str; 2], wait: Duration, ends: bool) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, peer) = listener.accept().unwrap();
        let registry = Registry::new(1);
        let registration = Arc::new(registry.register(stream.into(), peer.into()).unwrap());
        let protocols = Protocols {
            text: Some(Arc::new(Shows { wait })),
            ..Http::probes_only(Probes::new("", Arc::new(())), "a test").into()
        };
        client.write_all(pieces[0].as_bytes()).unwrap();
        let mut reply = String::new();
        thread::scope(|scope| {
            let served = scope.spawn(|| {
                let mut connection = Connection::new(&registration);
                protocols.serve(&mut connection).unwrap();
                connection.end().unwrap();
                registration
                    .entry
                    .socket
                    .shutdown(rustix::net::Shutdown::Write)
                    .unwrap();
            });
            let waits = || matches!(registration.entry.eviction.state(), State::Slow(_));
            while !waits() && !served.is_finished() {
                thread::yield_now();
            }
            client.write_all(pieces[1].as_bytes()).unwrap();
            if ends {
                client.shutdown(Shutdown::Write).unwrap();
            }
            client.read_to_string(&mut reply).unwrap();
        });
        reply
    }

    #[test]
    fn what_a_browser_may_have_begun_is_no_text_however_it_is_cut_off() {
        let http = [
            ["POST /", "x"],
            ["GET / HT", ""],
            ["GET ", "http://x"],
            ["POST", " "],
            ["DELETE", " http"],
        ];
        let text = [
            ["GET", " x"],
            ["POST ", "hello"],
            ["HELLO", ""],
            ["HELLO", " "],
            ["ERROR /var/log", " is full"],
        ];
        for pieces in http.into_iter().chain(text) {
            let whole = pieces.concat();
            for reply in [
                reply_to(pieces, Duration::from_secs(30), true),
                reply_to([&whole, ""], Duration::from_millis(20), false),
            ] {
                if text.contains(&pieces) {
                    assert_eq!(reply, format!("text: {whole}"));
                } else {
                    assert!(reply.starts_with("HTTP/1.1 400 "), "{whole}: {reply}");
                    assert!(reply.ends_with("must end with a line break\n"), "{reply}");
                }
            }
        }
    }

    #[test]
    fn a_limit_to_texts_does_not_cut_a_line_of_http() {
        let wait = Duration::from_secs(30);
        for pieces in [
            ["OPTIONS", " / HTTP/1.1\n\n"],
            ["A B C D E", " HTTP/1.1\n\n"],
        ] {
            let reply = reply_to(pieces, wait, false);
            assert!(reply.starts_with("HTTP/1.1 400 "), "{pieces:?}: {reply}");
        }
        // As long as it takes to tell.
        let long = "X ".repeat(START_BYTES / 2);
        assert_eq!(reply_to([&long, ""], wait, false), format!("text: {long}"));
    }
}
