//! What can go wrong for a queue client.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use cli::{ClientError, Exit, Failure};
use proto::ErrorCode;
use proto::frame::FrameError;
use proto::queue::{BODY_BYTES_MAX, DATAGRAM_BYTES_MAX, DURATION_MAX};
use proto::text::QUEUE_EMPTY;

/// Why a client did not do what it was asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// There is no message in the queue.
    Empty,
    /// The server refused.
    Refused {
        /// For programs.
        code: ErrorCode,
        /// For people.
        sentence: String,
    },
    /// Of many messages, at least one was refused.
    BatchRefused {
        /// The first that was, counted from 1.
        number: u64,
        /// How many were stored, before and behind it.
        stored: u64,
        /// Of which at the end it is not known, because the server was lost.
        unanswered: Unanswered,
        /// Why it was.
        cause: Box<Error>,
    },
    /// The server was lost while many messages were sent.
    BatchLost {
        /// How many were stored.
        stored: u64,
        /// Of which it is not known.
        unanswered: Unanswered,
        /// How it was lost.
        cause: Box<Error>,
    },
    /// A piece of the input is longer than a message may be.
    PieceTooLong {
        /// Which one, counted from 1.
        number: u64,
        /// How many were sent before it.
        sent: u64,
        /// How long it may be.
        bytes_max: usize,
    },
    /// A command failed, and the message was given back.
    JobFailed(ExitStatus),
    /// A command failed, and its message is among the dead now.
    JobDied(ExitStatus),
    /// A command was stopped together with its worker, and the message was given back.
    JobStopped(ExitStatus),
    /// While a queue was drained, messages have died.
    Died {
        /// How many.
        messages: u64,
    },
    /// A second signal has ended the commands that ran.
    CutShort,
    /// A command could not be started.
    Start {
        /// The command.
        command: OsString,
        /// Why.
        cause: io::Error,
    },
    /// A thread, a signal handler or process 1 could not be set up.
    Setup(io::Error),
    /// A file could not be written.
    Write {
        /// Where it was to be.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A message is longer than may be sent.
    TooLong {
        /// Where it is.
        path: PathBuf,
        /// How long it may be.
        bytes_max: usize,
    },
    /// A delay, a lease or a wait is longer than [`DURATION_MAX`].
    DurationTooLong(Duration),
    /// A body is longer than a frame can carry; with its length in bytes.
    BodyTooLong(usize),
    /// A request is longer than a datagram can be; with its length in bytes.
    TooLongForUdp(usize),
    /// The message to send could not be read.
    Read {
        /// Where it is.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// What was read from standard input is not a token.
    NotAToken,
    /// The token of a leased message could not be written to standard output.
    Token(io::Error),
    /// What every client can meet.
    Client(ClientError),
}

/// The messages at the end of a batch of which it is not known whether they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unanswered {
    /// The first of them, counted from 1.
    pub first: u64,
    /// How many they are.
    pub messages: u64,
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, messages } = self;
        write!(f, "it is not known whether message {first}")?;
        match messages {
            0 | 1 => f.write_str(" was stored"),
            2.. => write!(f, " and the {} behind it were stored", messages - 1),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str(QUEUE_EMPTY),
            Self::Refused { sentence, .. } => write!(f, "the server refused: {sentence}"),
            Self::BatchRefused {
                number,
                stored,
                unanswered,
                ..
            } => {
                write!(f, "message {number} was not stored; {stored} were")?;
                match unanswered.messages {
                    0 => Ok(()),
                    1.. => write!(f, "; {unanswered}"),
                }
            }
            Self::BatchLost {
                stored, unanswered, ..
            } => write!(f, "{unanswered}; {stored} were"),
            Self::PieceTooLong {
                number,
                sent,
                bytes_max,
            } => write!(
                f,
                "message {number} has more than the {bytes_max} bytes that a message may have \
                 (--max-message); the {sent} before it were sent"
            ),
            Self::JobFailed(status) => {
                write!(
                    f,
                    "the command failed ({status}), the message was given back"
                )
            }
            Self::JobDied(status) => write!(
                f,
                "the command failed ({status}), and the message is dead: it was handed out too often"
            ),
            Self::JobStopped(status) => write!(
                f,
                "the command was stopped ({status}), the message was given back and this attempt \
                 does not count"
            ),
            Self::Died { messages: 1 } => f.write_str("a message is dead"),
            Self::Died { messages } => write!(f, "{messages} messages are dead"),
            Self::CutShort => f.write_str("stopped before all commands had ended"),
            Self::Start { command, .. } => write!(f, "cannot start {}", command.display()),
            Self::Setup(_) => f.write_str("cannot set up the worker"),
            Self::Write { path, .. } => write!(f, "cannot write {}", path.display()),
            Self::TooLong { path, bytes_max } => write!(
                f,
                "{} exceeds {bytes_max} bytes (--truncate sends the first {bytes_max}, \
                 --max-message allows more)",
                path.display()
            ),
            Self::DurationTooLong(duration) => write!(
                f,
                "a delay, a lease or a wait of {} s exceeds the limit of {} s (49 days)",
                duration.as_secs(),
                DURATION_MAX.as_secs()
            ),
            Self::BodyTooLong(bytes) => write!(
                f,
                "a message of {bytes} bytes is over the {BODY_BYTES_MAX} that any server takes"
            ),
            Self::TooLongForUdp(bytes) => write!(
                f,
                "a datagram of {bytes} bytes is over the {DATAGRAM_BYTES_MAX} that UDP can carry; \
                 send it over TCP"
            ),
            Self::Read { path, .. } => write!(f, "cannot read {}", path.display()),
            Self::NotAToken => {
                f.write_str("the first line of standard input must be a token, as lease prints it")
            }
            Self::Token(_) => f.write_str("cannot print the token, and the message was given back"),
            Self::Client(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::BatchRefused { cause, .. } | Self::BatchLost { cause, .. } => Some(cause),
            Self::Read { cause, .. }
            | Self::Write { cause, .. }
            | Self::Start { cause, .. }
            | Self::Setup(cause)
            | Self::Token(cause) => Some(cause),
            Self::Client(error) => error.source(),
            _ => None,
        }
    }
}

impl Error {
    /// Whether it is left open what the server has done.
    pub(crate) fn is_loss(&self) -> bool {
        matches!(self, Self::Client(error) if error.is_loss())
    }

    /// Whether the server is away, or about to be, and may be back: it was lost or cannot be
    /// reached, it shuts down, or it has as many connections as it accepts.
    pub(crate) fn is_server_away(&self) -> bool {
        match self {
            Self::Client(error) => error.is_loss() || matches!(error, ClientError::Connect { .. }),
            Self::Refused { code, .. } => {
                matches!(code, ErrorCode::ShuttingDown | ErrorCode::Busy)
            }
            _ => false,
        }
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        ClientError::lost(error).into()
    }
}

impl From<FrameError> for Error {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(error) => error.into(),
            other => ClientError::malformed(other).into(),
        }
    }
}

impl Failure for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Refused {
                code: ErrorCode::ShuttingDown,
                ..
            } => Exit::Network,
            Self::Empty
            | Self::Refused { .. }
            | Self::JobFailed(_)
            | Self::JobDied(_)
            | Self::JobStopped(_)
            | Self::Died { .. } => Exit::Refused,
            Self::BatchRefused { cause, .. } | Self::BatchLost { cause, .. } => cause.exit(),
            Self::TooLong { .. }
            | Self::PieceTooLong { .. }
            | Self::BodyTooLong(_)
            | Self::DurationTooLong(_)
            | Self::TooLongForUdp(_)
            | Self::NotAToken
            | Self::Token(_)
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::Start { .. }
            | Self::CutShort
            | Self::Setup(_) => Exit::Local,
            Self::Client(error) => error.exit(),
        }
    }
}
