//! A client of the history server: requests and replies over TCP.

use std::io::{self, BufReader, Write};
use std::time::Duration;

use cli::{Account, ClientError, Endpoint, ServerStream};
use proto::frame::{self, Message as _, PAYLOAD_BYTES_MAX};
use proto::history::{Filter, Operation, Reply, Request, is_user_name};
use proto::text::HistoryLineError;
use proto::{ErrorReply, Login, LoginReply};

use crate::Error;

/// How much is read from the server at once, in bytes: one whole piece of the history.
const INPUT_BYTES: usize = 64 * 1024;

/// A connection to a history server.
///
/// ```no_run
/// use cli::Endpoint;
/// use history_client::Client;
///
/// let mut client = Client::connect(&Endpoint::new("127.0.0.1", 5007))?;
/// client.delete("alice", 3)?;
/// client.get("alice", &mut std::io::stdout())?;
/// # Ok::<(), history_client::Error>(())
/// ```
pub struct Client {
    stream: BufReader<ServerStream>,
    /// Who is to be logged in before the next request.
    login: Option<Account>,
    request: Vec<u8>,
    payload: Vec<u8>,
}

/// A part of a reply, as it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// The server's greeting: where its source is and which operations there are.
    About(&'a str),
    /// A piece of the history: numbered lines, cut anywhere.
    Text(&'a [u8]),
}

impl Client {
    /// Connects to a server.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub fn connect(server: &Endpoint) -> Result<Self, Error> {
        Ok(Self {
            stream: BufReader::with_capacity(INPUT_BYTES, server.connect()?),
            login: server.security.account()?,
            request: Vec::new(),
            payload: Vec::new(),
        })
    }

    /// Greets the server; returns its greeting.
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn hello(&mut self, user: &str) -> Result<String, Error> {
        let operation = Operation::Hello;
        let mut about = String::new();
        self.ask(&Request { user, operation }, |part| {
            if let Part::About(text) = part {
                about.push_str(text);
            }
            Ok(())
        })?;
        Ok(about)
    }

    /// Deletes a line, counted from 1; returns the server's sentence about it.
    ///
    /// # Errors
    /// If the server refuses or is lost; if it is lost, the line may or may not be deleted.
    pub fn delete(&mut self, user: &str, line: u64) -> Result<String, Error> {
        let operation = Operation::delete_line(line);
        self.ask(&Request { user, operation }, |_| Ok(()))
    }

    /// Writes the history to `out`, each line behind its number and a space.
    ///
    /// # Errors
    /// If the server refuses or is lost, or if `out` cannot be written. A part of the history may have been
    /// written by then.
    pub fn get(&mut self, user: &str, out: &mut impl Write) -> Result<(), Error> {
        let operation = Operation::Get(Filter::ALL);
        self.ask(&Request { user, operation }, |part| match part {
            Part::About(_) => Ok(()),
            Part::Text(bytes) => out.write_all(bytes),
        })
        .map(drop)
    }

    /// Deletes everything; returns the server's sentence about it.
    ///
    /// # Errors
    /// If the server refuses or is lost; if it is lost, the history may or may not be deleted.
    pub fn clear(&mut self, user: &str) -> Result<String, Error> {
        let operation = Operation::Clear;
        self.ask(&Request { user, operation }, |_| Ok(()))
    }

    /// Sends a request and passes each part of the reply to `on_part` as it arrives. Returns the sentence
    /// at the end of the reply, which may be empty.
    ///
    /// # Errors
    /// If the server refuses or is lost, or with [`ClientError::Output`] if `on_part` fails. After any
    /// error but [`Error::Refused`] the connection cannot be used again.
    pub fn ask(
        &mut self,
        request: &Request,
        mut on_part: impl FnMut(Part) -> io::Result<()>,
    ) -> Result<String, Error> {
        if !is_user_name(request.user) {
            return Err(HistoryLineError::NotAUser.into());
        }
        log::debug!("Asking: {} {}", request.user, request.operation);
        self.send(request)?;
        let mut has_begun = false;
        loop {
            let kind = self.read_frame().map_err(ClientError::lost)?;
            let reply = Reply::decode(kind, &self.payload);
            let part = match reply.map_err(ClientError::malformed)? {
                Reply::About(text) if !has_begun => Part::About(text),
                Reply::Text(bytes) if matches!(request.operation, Operation::Get(_)) => {
                    Part::Text(bytes)
                }
                Reply::About(_) | Reply::Text(_) | Reply::Line { .. } | Reply::Deleted { .. } => {
                    return Err(ClientError::Unexpected.into());
                }
                Reply::Done(sentence) => return Ok(sentence.to_owned()),
                Reply::Error(error) => return Err(refused(error)),
            };
            has_begun = true;
            on_part(part).map_err(ClientError::Output)?;
        }
    }

    /// Sends a request; the first one behind the login, in the same write, so that the login costs no
    /// round trip.
    fn send(&mut self, request: &Request) -> Result<(), Error> {
        self.request.clear();
        let login = self.login.take();
        if let Some(account) = &login {
            let (user, password) = (account.user(), account.password());
            Login { user, password }.encode(&mut self.request);
        }
        request.encode(&mut self.request);
        let stream = self.stream.get_mut();
        stream.reset_timeout(Duration::ZERO);
        let written = stream.write_all(&self.request);
        stream.reset_timeout(Duration::ZERO);
        if login.is_none() {
            return Ok(written.map_err(ClientError::lost)?);
        }
        // A server that refuses the login may close while this still writes, and says why.
        let answered = self.read_frame();
        let kind = answered.map_err(|error| ClientError::lost(written.err().unwrap_or(error)))?;
        match LoginReply::decode(kind, &self.payload).map_err(ClientError::malformed)? {
            LoginReply::LoggedIn => Ok(()),
            LoginReply::Refused(error) => Err(refused(error)),
        }
    }

    /// Reads the next frame of a reply; returns its kind.
    fn read_frame(&mut self) -> io::Result<u8> {
        let kind = frame::read(&mut self.stream, PAYLOAD_BYTES_MAX, &mut self.payload)?;
        kind.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

fn refused(error: ErrorReply) -> Error {
    Error::Refused {
        code: error.code,
        sentence: error.sentence.to_owned(),
    }
}
