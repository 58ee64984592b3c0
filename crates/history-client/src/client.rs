//! A client of the history server: requests and replies over TCP.

use std::io::{self, BufReader, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use cli::{Account, ClientError, Endpoint, ServerStream};
use proto::frame::{self, Message, PAYLOAD_BYTES_MAX};
use proto::history::{Filter, Operation, Reply, Request, is_user_name};
use proto::text::HistoryLineError;
use proto::{ErrorCode, ErrorReply, Login, LoginReply, Register};

use crate::Error;
use crate::text::check_note;

/// How much is read from the server at once, in bytes: one whole piece of the history.
const INPUT_BYTES: usize = 64 * 1024;

/// How much longer than usual a follower waits: a server that has nothing new says so this often.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// A connection to a history server.
///
/// ```no_run
/// use cli::Endpoint;
/// use history_client::Client;
///
/// let mut client = Client::connect(&Endpoint::new("127.0.0.1", 5007))?;
/// client.note("alice", "the pump runs again")?;
/// client.delete("alice", 3)?;
/// client.get("alice", &mut std::io::stdout())?;
/// # Ok::<(), history_client::Error>(())
/// ```
pub struct Client {
    server: Endpoint,
    stream: BufReader<ServerStream>,
    /// Who is to be logged in before the next request.
    login: Option<Account>,
    output: Vec<u8>,
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

/// What a follower is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// The server's greeting, which comes first.
    About(&'a str),
    /// A line.
    Line {
        /// Its sequence number, which no other line ever has.
        sequence: u64,
        /// The line, without a line feed.
        text: &'a [u8],
    },
    /// Lines were deleted.
    Deleted {
        /// The sequence number of the first of them.
        first: u64,
        /// That of the last.
        last: u64,
    },
    /// There is nothing new.
    Nothing,
}

/// Where a follower begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// With the last lines, this many.
    Last(u64),
    /// Behind the line with this sequence number.
    Behind(u64),
}

impl Client {
    /// Connects to a server.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub fn connect(server: &Endpoint) -> Result<Self, Error> {
        Ok(Self {
            server: server.clone(),
            stream: BufReader::with_capacity(INPUT_BYTES, server.connect()?),
            login: server.security.account()?,
            output: Vec::new(),
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

    /// Adds a line of text, which is on the server's disk when this returns.
    ///
    /// # Errors
    /// [`Error::NotANote`]; or if the server refuses or is lost; if it is lost, the line may or may not be
    /// there.
    pub fn note(&mut self, user: &str, text: &str) -> Result<(), Error> {
        let operation = Operation::Note(check_note(text)?);
        self.ask(&Request { user, operation }, |_| Ok(())).map(drop)
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
    /// As [`Client::find`].
    pub fn get(&mut self, user: &str, out: &mut impl Write) -> Result<(), Error> {
        self.find(user, Filter::ALL, out)
    }

    /// Writes the lines that meet a filter to `out`, each behind its number and a space.
    ///
    /// # Errors
    /// If the server refuses or is lost, or if `out` cannot be written. A part of the lines may have been
    /// written by then.
    pub fn find(&mut self, user: &str, filter: Filter, out: &mut impl Write) -> Result<(), Error> {
        let operation = Operation::Get(filter);
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

    /// Asks for a user name that nobody has, and that begins with `prefix` unless it is empty.
    ///
    /// # Errors
    /// If the server refuses or is lost; if it is lost, a name may be taken that nobody knows.
    pub fn register(&mut self, prefix: &str) -> Result<String, Error> {
        self.ask_for(&Register { prefix }, false, &mut |_| Ok(()))
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
        check_user(request.user)?;
        log::debug!("Asking: {} {}", request.user, request.operation);
        let has_text = matches!(request.operation, Operation::Get(_));
        self.ask_for(request, has_text, &mut on_part)
    }

    fn ask_for<'m>(
        &mut self,
        message: &impl Message<'m>,
        has_text: bool,
        on_part: &mut dyn FnMut(Part) -> io::Result<()>,
    ) -> Result<String, Error> {
        let mut request = Vec::new();
        message.encode(&mut request);
        self.exchange(&request, |client| client.read_reply(has_text, on_part))
    }

    /// Follows the history: [`Client::next_event`] returns what is there and what comes.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 5007);
    /// # let mut client = history_client::Client::connect(&server)?;
    /// use history_client::{Begin, Event};
    ///
    /// client.follow("alice", Begin::Last(10))?;
    /// loop {
    ///     if let Event::Line { sequence, text } = client.next_event()? {
    ///         println!("#{sequence} {}", text.escape_ascii());
    ///     }
    /// }
    /// # #[allow(unreachable_code)]
    /// # Ok::<(), history_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses the login or is lost.
    pub fn follow(&mut self, user: &str, begin: Begin) -> Result<(), Error> {
        check_user(user)?;
        let operation = match begin {
            Begin::Last(last) => Operation::Follow { last, behind: 0 },
            Begin::Behind(behind) => Operation::Follow { last: 0, behind },
        };
        let request = Request { user, operation };
        log::debug!("Asking: {user} {operation}");
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        self.exchange(&bytes, |_| Ok(()))
    }

    /// The next event of a history that is followed. Waits for it.
    ///
    /// # Errors
    /// If the server refuses, stops or is lost.
    pub fn next_event(&mut self) -> Result<Event<'_>, Error> {
        self.stream.get_mut().reset_timeout(HEARTBEAT);
        let kind = self.read_frame().map_err(ClientError::lost)?;
        let reply = Reply::decode(kind, &self.payload);
        match reply.map_err(ClientError::malformed)? {
            Reply::About(text) => Ok(Event::About(text)),
            Reply::Line { sequence, text } => Ok(Event::Line { sequence, text }),
            Reply::Deleted { first, last } => Ok(Event::Deleted { first, last }),
            Reply::Text(b"") => Ok(Event::Nothing),
            Reply::Error(error) => Err(refused(error)),
            Reply::Text(_) | Reply::Done(_) => Err(ClientError::Unexpected.into()),
        }
    }

    /// Whether the next event is here already, so that to read it is not to wait.
    pub fn has_event(&self) -> bool {
        frame::starts_with_whole(self.stream.buffer())
    }

    /// Waits until the next event begins to arrive, or until nobody reads `out` any more; returns whether
    /// somebody does.
    ///
    /// # Errors
    /// If the server is silent for too long.
    pub fn wait_for_event(&mut self, out: impl AsFd) -> Result<bool, Error> {
        if !self.stream.buffer().is_empty() {
            return Ok(true);
        }
        let stream = self.stream.get_mut();
        stream.reset_timeout(HEARTBEAT);
        Ok(stream.wait_while_read(out).map_err(ClientError::lost)?)
    }

    /// The server.
    pub(crate) fn server(&self) -> &Endpoint {
        &self.server
    }

    /// Whether the server has ended the connection while no reply was due, as one does that is restarted or
    /// needs room for others.
    pub(crate) fn has_ended(&self) -> bool {
        !self.stream.get_ref().is_quiet()
    }

    /// Connects to the same server once more, reached in this way.
    pub(crate) fn connect_again(&mut self, server: &Endpoint) -> Result<(), Error> {
        let client = Self::connect(server)?;
        (self.stream, self.login) = (client.stream, client.login);
        Ok(())
    }

    /// Sends requests, the first ones of a connection behind the login, in the same write, so that the
    /// login costs no round trip; and has `read` read their replies. A server that refuses a login or a
    /// connection may close while this still writes, and says why, so the replies are read even if the
    /// write has failed.
    pub(crate) fn exchange<T>(
        &mut self,
        requests: &[u8],
        read: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.output.clear();
        let login = self.login.take();
        if let Some(account) = &login {
            let (user, password) = (account.user(), account.password());
            Login { user, password }.encode(&mut self.output);
        }
        self.output.extend_from_slice(requests);
        let stream = self.stream.get_mut();
        stream.reset_timeout(Duration::ZERO);
        let written = stream.write_all(&self.output);
        stream.reset_timeout(Duration::ZERO);
        let logged_in = match login {
            Some(_) => self.read_login_reply(),
            None => Ok(()),
        };
        match (logged_in.and_then(|()| read(self)), written) {
            (Err(Error::Client(error)), Err(cause)) if error.is_loss() => {
                Err(ClientError::lost(cause).into())
            }
            (read, _) => read,
        }
    }

    fn read_login_reply(&mut self) -> Result<(), Error> {
        let kind = self.read_frame().map_err(ClientError::lost)?;
        let reply = LoginReply::decode(kind, &self.payload);
        match reply.map_err(ClientError::malformed)? {
            LoginReply::LoggedIn => Ok(()),
            LoginReply::Refused(error) => Err(refused(error)),
        }
    }

    /// Reads a whole reply. `has_text` is whether pieces of the history may be in it.
    pub(crate) fn read_reply(
        &mut self,
        has_text: bool,
        on_part: &mut dyn FnMut(Part) -> io::Result<()>,
    ) -> Result<String, Error> {
        let mut has_begun = false;
        loop {
            let kind = self.read_frame().map_err(ClientError::lost)?;
            let reply = Reply::decode(kind, &self.payload);
            let part = match reply.map_err(ClientError::malformed)? {
                Reply::About(text) if !has_begun => Part::About(text),
                Reply::Text(bytes) if has_text => Part::Text(bytes),
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

    /// Gives the next reply a time of its own.
    pub(crate) fn reset_timeout(&mut self) {
        self.stream.get_mut().reset_timeout(Duration::ZERO);
    }

    /// Reads the next frame of a reply; returns its kind.
    fn read_frame(&mut self) -> io::Result<u8> {
        let kind = frame::read(&mut self.stream, PAYLOAD_BYTES_MAX, &mut self.payload)?;
        kind.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

pub(crate) fn check_user(user: &str) -> Result<(), Error> {
    match is_user_name(user) {
        true => Ok(()),
        false => Err(HistoryLineError::NotAUser.into()),
    }
}

fn refused(error: ErrorReply) -> Error {
    let (code, sentence) = (error.code, error.sentence.to_owned());
    if code == ErrorCode::InDoubt {
        Error::InDoubt(sentence)
    } else {
        Error::Refused { code, sentence }
    }
}
