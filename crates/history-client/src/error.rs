//! What can go wrong for a history client.

use std::str::Utf8Error;

use cli::{ClientError, Exit, Failure};
use proto::ErrorCode;
use proto::history::NOTE_BYTES_MAX;
use proto::text::HistoryLineError;

/// Why a client did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The line to send is not a request.
    #[error(transparent)]
    Line(#[from] HistoryLineError),
    /// What is to be noted is no note.
    #[error(transparent)]
    NotANote(#[from] NotANote),
    /// The server refused.
    #[error(
        "{sentence}{}",
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
    /// Of many lines, at least one was refused, here or by the server.
    #[error("line {line} was not noted; {noted} were{}", as_clause(*unanswered))]
    LineNotNoted {
        /// The first that was refused, counted from 1.
        line: u64,
        /// How many were noted, before and behind it.
        noted: u64,
        /// The first and the last line without a reply, because the server was lost.
        unanswered: Option<(u64, u64)>,
        /// Why it was refused.
        #[source]
        cause: Box<Error>,
    },
    /// The server was lost while lines were noted.
    #[error("{}; {noted} were", in_doubt(*unanswered))]
    LinesLost {
        /// How many were noted.
        noted: u64,
        /// The first and the last line without a reply.
        unanswered: (u64, u64),
        /// How the server was lost.
        #[source]
        cause: Box<Error>,
    },
    /// What every client can fail with.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Why a text is no note.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotANote {
    /// There is nothing in it.
    #[error("the note is empty")]
    Empty,
    /// It is too long.
    #[error("the note exceeds {NOTE_BYTES_MAX} bytes")]
    TooLong,
    /// It is not text.
    #[error("the note is not valid UTF-8")]
    NotText(#[from] Utf8Error),
}

fn as_clause(unanswered: Option<(u64, u64)>) -> String {
    unanswered.map_or(String::new(), |lines| format!("; {}", in_doubt(lines)))
}

fn in_doubt((first, last): (u64, u64)) -> String {
    match first == last {
        true => format!("it is not known whether line {first} was noted"),
        false => format!("it is not known whether lines {first} to {last} were noted"),
    }
}

impl Error {
    /// Whether the same request may succeed soon: the server did not carry it out, because it cannot be
    /// reached, has as many connections as it accepts, is shutting down, or stands by.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Client(error) => matches!(error, ClientError::Connect { .. }),
            Self::Refused { code, .. } => {
                matches!(
                    code,
                    ErrorCode::Busy | ErrorCode::ShuttingDown | ErrorCode::Standby
                )
            }
            Self::Line(_)
            | Self::NotANote(_)
            | Self::InDoubt(_)
            | Self::LineNotNoted { .. }
            | Self::LinesLost { .. } => false,
        }
    }

    /// Whether the server has as many connections as it accepts.
    pub(crate) fn is_busy(&self) -> bool {
        let busy = ErrorCode::Busy;
        matches!(self, Self::Refused { code, .. } if *code == busy)
    }

    /// Whether the server is away and may be back, so that one who follows can go on: as above, or it was
    /// lost.
    pub(crate) fn is_server_away(&self) -> bool {
        self.may_pass() || self.is_loss()
    }

    /// Whether the server was lost, and may have done what it was asked, or not; it may not know that itself.
    pub(crate) fn is_loss(&self) -> bool {
        match self {
            Self::Client(error) => error.is_loss(),
            other => matches!(other, Self::InDoubt(_)),
        }
    }
}

impl Failure for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Refused {
                code: ErrorCode::ShuttingDown | ErrorCode::Standby,
                ..
            }
            | Self::InDoubt(_) => Exit::Network,
            Self::Refused { .. } => Exit::Refused,
            Self::Line(_) | Self::NotANote(_) => Exit::Local,
            Self::LineNotNoted { cause, .. } | Self::LinesLost { cause, .. } => cause.exit(),
            Self::Client(error) => error.exit(),
        }
    }
}
