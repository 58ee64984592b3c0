//! What can go wrong for a queue client, and with which exit code.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use cli::{ClientError, Exit, Failure};
use proto::frame::Message as _;
use proto::queue::{BODY_BYTES_MAX, DATAGRAM_BYTES_MAX, DURATION_MAX, MessageId, Reply};
use proto::text::QUEUE_EMPTY;
use proto::{ErrorCode, ErrorReply};

/// Why a client did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no message in the queue.
    #[error("{QUEUE_EMPTY}")]
    Empty,
    /// The server refused.
    #[error(
        "the server refused: {sentence}{}",
        if *code == ErrorCode::Unauthorized { "; --auth-file FILE says who asks" } else { "" }
    )]
    Refused {
        /// For programs.
        code: ErrorCode,
        /// For people.
        sentence: String,
    },
    /// The server does not know whether it has done what it was asked; in its words.
    #[error("{0}")]
    InDoubt(String),
    /// Of several servers none is active; each with the reason why not.
    #[error("no server is active: {}", .0.join(", "))]
    NoneActive(Vec<String>),
    /// Of the messages of a batch, at least one was refused.
    #[error("message {number} was not stored; {stored} were{}", .unanswered.as_clause())]
    BatchRefused {
        /// The first that was, counted from 1.
        number: u64,
        /// How many were stored, before and behind it.
        stored: u64,
        /// The ones without a reply, because the server was lost.
        unanswered: Unanswered,
        /// Why it was refused.
        #[source]
        cause: Box<Error>,
    },
    /// The server was lost while a batch was sent.
    #[error("{unanswered}; {stored} were")]
    BatchLost {
        /// How many were stored.
        stored: u64,
        /// The ones without a reply.
        unanswered: Unanswered,
        /// How the server was lost.
        #[source]
        cause: Box<Error>,
    },
    /// A piece of the input is longer than a message may be.
    #[error(
        "message {number} exceeds {bytes_max} bytes (--max-message); {sent} were sent before it"
    )]
    PieceTooLong {
        /// Which one, counted from 1.
        number: u64,
        /// How many were sent before it.
        sent: u64,
        /// The longest message, in bytes.
        bytes_max: usize,
    },
    /// A command failed, and its message was released; with how it has ended.
    #[error("the command failed ({0}), the message was released")]
    JobFailed(String),
    /// A command failed, and its message is a dead letter; with how it has ended.
    #[error("the command failed ({0}), the message is a dead letter")]
    JobDied(String),
    /// A command was stopped together with its worker, and its message was unreserved; with how it has
    /// ended.
    #[error("the command was stopped ({0}), and this attempt does not count")]
    JobStopped(String),
    /// While a worker ran, messages became dead letters because their commands failed.
    #[error("dead letters: {0}")]
    DeadLetters(DeadLetters),
    /// Queues have more messages than they may have, or older ones; what each has.
    #[error("{}", .0.join("; "))]
    Beyond(Vec<String>),
    /// A second signal has aborted the commands that ran.
    #[error("stopped before all commands had ended")]
    Aborted,
    /// A command could not be started.
    #[error("cannot start {}", .command.display())]
    Start {
        /// The command.
        command: OsString,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A thread, a signal handler or process 1 could not be set up.
    #[error("cannot set up the worker")]
    Setup(#[source] io::Error),
    /// A file could not be written.
    #[error("cannot write {}", .path.display())]
    Write {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The input is longer than a message may be.
    #[error(
        "{} exceeds {bytes_max} bytes (--truncate sends the first {bytes_max}, --max-message allows \
         more)",
        .path.display()
    )]
    TooLong {
        /// Its path.
        path: PathBuf,
        /// The longest message, in bytes.
        bytes_max: usize,
    },
    /// A delay, a lease or a wait exceeds [`DURATION_MAX`].
    #[error(
        "a delay, a lease or a wait of {} s exceeds the limit of {} s (49 days)",
        .0.as_secs(),
        DURATION_MAX.as_secs()
    )]
    DurationTooLong(Duration),
    /// A body is longer than a frame can carry; with its length in bytes.
    #[error("a message of {0} bytes exceeds the {BODY_BYTES_MAX} bytes that any server accepts")]
    BodyTooLong(usize),
    /// A request is longer than a datagram can be; with its length in bytes.
    #[error("a datagram of {0} bytes exceeds the {DATAGRAM_BYTES_MAX} of UDP; send it over TCP")]
    TooLongForUdp(usize),
    /// The input could not be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The first line of standard input is not a token.
    #[error("the first line of standard input must be a token, as lease prints it")]
    NotAToken,
    /// The token of a leased message could not be printed.
    #[error("cannot print the token, and the message was unreserved")]
    Token(#[source] io::Error),
    /// What every client can fail with.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// The messages at the end of a batch whose replies have not come: they may be stored or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unanswered {
    /// The first of them, counted from 1.
    pub first: u64,
    /// How many they are.
    pub messages: u64,
}

impl Unanswered {
    /// What is added to a sentence about the others.
    fn as_clause(&self) -> String {
        match self.messages {
            0 => String::new(),
            1.. => format!("; {self}"),
        }
    }
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

/// How many dead letters are named.
const NAMED_MAX: usize = 20;

/// The messages that became dead letters while a worker ran.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetters {
    /// How many they are.
    pub count: u64,
    /// The first of them, with the queues that they are in now.
    pub first: Vec<(MessageId, String)>,
}

impl DeadLetters {
    pub(crate) fn add(&mut self, id: MessageId, queue: String) {
        self.count += 1;
        if self.first.len() < NAMED_MAX {
            self.first.push((id, queue));
        }
    }
}

impl fmt::Display for DeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self
            .first
            .iter()
            .map(|(id, queue)| format!("{id} in {queue}"));
        let named: Vec<_> = named.collect();
        write!(f, "{} ({}", self.count, named.join(", "))?;
        match self.count - named.len() as u64 {
            0 => f.write_str(")"),
            more => write!(f, " and {more} more)"),
        }
    }
}

impl Error {
    /// Whether the request was on its way: the server may have executed it, or not, and may not know that itself.
    pub(crate) fn is_loss(&self) -> bool {
        match self {
            Self::Client(error) => error.is_loss(),
            other => matches!(other, Self::InDoubt(_)),
        }
    }

    /// Whether the server refused because there is no such message, or no more.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                code: ErrorCode::NotFound,
                ..
            }
        )
    }

    /// Whether the server is away, or about to be, and may be back: it was lost or cannot be
    /// reached, it shuts down, steps down or stands by, or its connection limit is met.
    pub(crate) fn is_server_away(&self) -> bool {
        match self {
            Self::Client(ClientError::Connect { .. }) | Self::NoneActive(_) => true,
            Self::Refused { code, .. } => matches!(
                code,
                ErrorCode::ShuttingDown | ErrorCode::Standby | ErrorCode::Busy
            ),
            other => other.is_loss(),
        }
    }

    /// The refusal that a reply is.
    pub(crate) fn refused(reply: &ErrorReply) -> Self {
        let (code, sentence) = (reply.code, reply.sentence.to_owned());
        if code == ErrorCode::InDoubt {
            Self::InDoubt(sentence)
        } else {
            Self::Refused { code, sentence }
        }
    }

    /// The refusal that a reply is, if it says that the server is away or about to be.
    pub(crate) fn away(kind: u8, payload: &[u8]) -> Option<Self> {
        match Reply::decode(kind, payload) {
            Ok(Reply::Error(error)) => Some(Self::refused(&error)).filter(Self::is_server_away),
            Ok(_) | Err(_) => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        ClientError::lost(error).into()
    }
}

impl Failure for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Refused {
                code: ErrorCode::ShuttingDown | ErrorCode::Standby,
                ..
            }
            | Self::InDoubt(_)
            | Self::NoneActive(_) => Exit::Network,
            Self::Empty
            | Self::Refused { .. }
            | Self::JobFailed(_)
            | Self::JobDied(_)
            | Self::JobStopped(_)
            | Self::DeadLetters(_)
            | Self::Beyond(_) => Exit::Refused,
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
            | Self::Aborted
            | Self::Setup(_) => Exit::Local,
            Self::Client(error) => error.exit(),
        }
    }
}
