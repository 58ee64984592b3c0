//! Why the queue server cannot start, or cannot continue, and why it refuses a request.

#[cfg(feature = "postgres")]
mod postgres;

use std::path::{Path, PathBuf};

use cli::{Exit, Failure};
use daemon::StartError;
use proto::queue::{MessageId, MessageState, QueueName, REMEMBERED_MAX};
use storage::{NotStored, StorageError};

#[cfg(feature = "postgres")]
pub use postgres::{PostgresError, Unusable, UrlError, WhyNot};

/// How many queues there may be.
pub(crate) const QUEUES_MAX: usize = 10_000;

/// How many messages one connection may have reserved.
pub(crate) const RESERVED_MAX: usize = 1024;

/// What a server says to everyone that stands by.
pub(crate) const STANDS_BY: &str = "this server stands by; another one is active";

/// Why the server cannot start, or cannot continue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It cannot listen.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It cannot use its files.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// SQLite cannot open, check or read the database.
    #[error("cannot open {}", path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// SQLite's error.
        #[source]
        cause: rusqlite::Error,
    },
    /// Another program, no server, has locked the database for too long.
    #[error("{} is locked by another program", .0.display())]
    Locked(PathBuf),
    /// It is a SQLite database, but of another program.
    #[error("{} is not a queue's database", .0.display())]
    NotOurs(PathBuf),
    /// A later version of this program made the database.
    #[error(
        "{} has the schema version {version}, this program knows 1 to {known}",
        path.display()
    )]
    UnknownVersion {
        /// The database.
        path: PathBuf,
        /// Its version.
        version: i64,
        /// The latest version that this program knows.
        known: i64,
    },
    /// SQLite's own check says that the database is damaged.
    #[error(
        "{} is damaged ({what}); restore it, or recover what can be with sqlite3 .recover",
        path.display()
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// The first thing that the check found.
        what: String,
    },
    /// The database's header or the file's permissions say that it can only be read.
    #[error("{} can only be read", .0.display())]
    ReadOnly(PathBuf),
    /// The database cannot have a write-ahead log, because it is no file on a disk.
    #[error("{} cannot have a write-ahead log", .0.display())]
    NoLog(PathBuf),
    /// This program cannot use PostgreSQL.
    #[cfg(not(feature = "postgres"))]
    #[error(
        "this queue-server was built without PostgreSQL; build it with cargo build --release -p queue-server \
         --features postgres"
    )]
    NoPostgres,
    /// PostgreSQL cannot be used.
    #[cfg(feature = "postgres")]
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The thread that decides who leads has ended, and nobody would lead here again.
    #[cfg(feature = "postgres")]
    #[error("the leader thread panicked")]
    LeaderPanicked,
}

impl Error {
    /// Makes an error of SQLite the error of this database.
    pub(crate) fn sqlite(path: &Path) -> impl Fn(rusqlite::Error) -> Self {
        move |cause| match cause.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseBusy) => Self::Locked(path.to_owned()),
            Some(_) | None => Self::Sqlite {
                path: path.to_owned(),
                cause,
            },
        }
    }

    /// Makes an error of the system the error of opening this database.
    pub(crate) fn open(path: &Path) -> impl Fn(std::io::Error) -> Self {
        move |cause| {
            Self::Storage(StorageError::Open {
                path: path.to_owned(),
                cause,
            })
        }
    }
}

impl Failure for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Start(error) if error.is_of_network() => Exit::Network,
            #[cfg(feature = "postgres")]
            Self::Postgres(PostgresError::Unreachable(_)) => Exit::Network,
            Self::Start(_)
            | Self::Storage(_)
            | Self::Sqlite { .. }
            | Self::Locked(_)
            | Self::NotOurs(_)
            | Self::UnknownVersion { .. }
            | Self::Damaged { .. }
            | Self::ReadOnly(_)
            | Self::NoLog(_) => Exit::Local,
            #[cfg(not(feature = "postgres"))]
            Self::NoPostgres => Exit::Local,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) | Self::LeaderPanicked => Exit::Local,
        }
    }
}

/// Why the queue refuses a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QueueError {
    /// The message is longer than the limit.
    #[error("a message of {body_bytes} bytes exceeds the limit of {body_bytes_max} bytes")]
    TooLarge {
        body_bytes: usize,
        body_bytes_max: usize,
    },
    /// The oldest message is longer than the receiver can take.
    #[error("the oldest message has {body_bytes} bytes and does not fit into the reply")]
    TooLong { body_bytes: usize },
    /// The queue has as many messages as it may have.
    #[error("the queue is full: --max-messages is {0}")]
    TooManyMessages(usize),
    /// The messages of the queue take as many bytes as they may take.
    #[error("the queue is full: --max-bytes is {0}")]
    TooManyBytes(usize),
    /// The messages of all queues take as much memory as they may take, in bytes.
    #[error("the server is full: --max-memory is {0}")]
    NoMemory(usize),
    /// There are as many queues as there may be.
    #[error("there are {QUEUES_MAX} queues already")]
    TooManyQueues,
    /// As many connections wait, have messages reserved, or do not read theirs, as may; the front door
    /// says how many.
    #[error("{0}")]
    CannotWait(String),
    /// No new messages are taken.
    #[error("the server is draining and takes no new messages")]
    Draining,
    /// The connection has as many messages reserved as it may have.
    #[error("this connection has {RESERVED_MAX} messages reserved and must acknowledge some first")]
    TooManyReserved,
    /// The connection has not reserved that message.
    #[error("this connection has not reserved message {0}")]
    NotReservedHere(MessageId),
    /// No message is leased under that token.
    #[error(
        "no message is leased under this token: it was acknowledged or released, or the lease \
         expired"
    )]
    NoLease,
    /// The connection had reserved that message, and an operator has deleted, moved or released it.
    #[error(
        "message {0} is not reserved any more: it was deleted, moved or released by an operator"
    )]
    NoLongerReserved(MessageId),
    /// No queue has that message, at least none of those that were named.
    #[error("there is no message {id} in '{queue}' nor among its dead letters")]
    NoMessage { id: MessageId, queue: String },
    /// A message is neither delayed nor dead.
    #[error("message {id} is {state}, and only a delayed or a dead message can be kicked")]
    NotKickable { id: MessageId, state: MessageState },
    /// Nobody has reserved that message.
    #[error("nobody has reserved message {0}")]
    NotReserved(MessageId),
    /// No connection of this number has reserved anything.
    #[error("no connection {0} has reserved a message")]
    NoHolder(u64),
    /// There is no queue of this name.
    #[error("there is no queue '{0}'")]
    NoQueue(String),
    /// The queue of this name holds dead letters, and has none of its own.
    #[error(
        "'{name}' has no dead letters of its own; kick '{}'",
        name.trim_end_matches(QueueName::DEAD_SUFFIX)
    )]
    OfDeadLetters { name: String },
    /// The queue of this name hands out nothing.
    #[error("the queue '{0}' is paused")]
    Paused(String),
    /// A message holds this key, and has another body.
    #[error("message {id} has the key '{key}' and another body")]
    KeyTaken { key: String, id: MessageId },
    /// A queue of dead letters, where no message holds a key.
    #[error("a message in '{0}' has no key, because dead letters hold none; send it without")]
    NoKeys(String),
    /// As many keys are held as may be, for this source or in all.
    #[error(
        "the server remembers as many keys as it may: a quarter of --max-memory, and an eighth of that for one \
         address; a key is free --key-window after its message is acknowledged, so try again later"
    )]
    TooManyKeys,
    /// As many sessions are remembered as may be, for this source or in all.
    #[error(
        "the server remembers as many sessions as it may: an eighth of --max-memory, and an eighth of that for \
         one address; each is forgotten ten minutes after its last request, so try again later"
    )]
    TooManySessions,
    /// Another connection has named this session since.
    #[error("another connection has taken this session over")]
    TakenOver,
    /// The connection before is still busy.
    #[error("what this session has asked over another connection is still being done; try again")]
    SessionBusy,
    /// The number is older than those that are remembered.
    #[error(
        "request {0} of this session is older than the {REMEMBERED_MAX} that are remembered, so it is \
         not known whether it was carried out"
    )]
    TooOld(u64),
    /// There are not enough numbers behind this one.
    #[error("request {0} of this session has too high a number; count from 0")]
    NumberTooHigh(u64),
    /// The message was handed out and deleted.
    #[error("message {0} was delivered at most once, and its reply is gone")]
    ReplyGone(MessageId),
    /// The transport cannot do that.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The server stands by for another.
    #[error("{STANDS_BY}")]
    Standby,
    /// The server ends.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The change is not on the disk, or not known to be.
    #[error("the change is {0}")]
    NotStored(NotStored),
}
