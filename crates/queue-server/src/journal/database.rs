//! What a database must do for the journal. SQLite does it in [`super::sqlite`], PostgreSQL in `super::postgres`.
//!
//! A database is [`Unread`] first: [`super::load`] reads it, tells the queues what is there, and has it mended. Then
//! it is a [`Database`], which the writer thread alone uses. What the rows mean is not here: [`super::row`],
//! [`super::keys`], [`super::answers`], [`super::totals`] and [`super::state`] make them and check them, whatever the
//! database is. So an engine is its statements, its transactions, and what its errors mean.

use std::io;
use std::sync::Arc;

use proto::queue::MessageId;
use storage::CommitError;

use super::batch::Part;
use super::live::LiveQueues;
use super::load::Loaded;
use super::timeline::Resumed;
use super::{answers, keys, row, totals};
use crate::authority::Authority;
use crate::error::Error;

/// A database that is open, that nobody else writes, and that is not read yet. Each part is read once, in the order
/// of the methods: `each` is called with the values of each row, or with `None` if one of them is of a wrong type,
/// and before that with the number by which a damaged row is found again.
///
/// # Errors
/// All of them end the start. A row that is damaged is no error.
pub(super) trait Unread {
    /// What people call it.
    fn name(&self) -> String;

    /// How the queues' clock continues, which gave the messages their positions.
    fn resumed(&self) -> Resumed;

    /// Until when this server may act; `None` if no other can take the database over.
    fn authority(&self) -> Option<Arc<Authority>>;

    /// Reads the messages, in the order of their ids, which are their numbers.
    fn messages(&mut self, each: &mut dyn FnMut(i64, Option<row::Columns>)) -> Result<(), Error>;

    /// Reads the names of the queues that are paused.
    fn paused(&mut self, each: &mut dyn FnMut(Option<&str>)) -> Result<(), Error>;

    /// Reads the keys of acknowledged messages, whose ids are their numbers: those that are free first come first.
    fn keys(&mut self, each: &mut dyn FnMut(i64, Option<keys::Columns>)) -> Result<(), Error>;

    /// Reads what was answered, in the order of the rows.
    fn answers(&mut self, each: &mut dyn FnMut(i64, Option<answers::Columns>))
    -> Result<(), Error>;

    /// Reads the totals, in any order.
    fn totals(&mut self, each: &mut dyn FnMut(Option<totals::Columns>)) -> Result<(), Error>;

    /// The ids up to this one may have been given, as far as is known beside the messages that were read.
    fn last_id(&mut self) -> Result<MessageId, Error>;

    /// Writes what the start has changed, in one transaction, and durably: damaged messages are set aside, in a
    /// table where people find them; damaged answers and keys are removed, and keys that are free by now; what has
    /// moved is written again, and the last id with the time. If there is no room for that, it is left as it was.
    fn mend(
        self: Box<Self>,
        loaded: Loaded,
        queues: Arc<dyn LiveQueues>,
    ) -> Result<Box<dyn Database>, Error>;
}

/// A database that the writer thread owns. If it is dropped without [`Database::end`], a commit of it was lost, and
/// it writes nothing more.
pub(super) trait Database: Send {
    /// Writes a part of a batch in one transaction, and returns when it is durable: it outlives the process and the
    /// machine. The changes are written in their order, each after the messages of its batch. `last_id` is the last
    /// that was given: after a start [`Unread::last_id`] is not below it.
    ///
    /// A part may be empty, because somebody has woken the writer thread.
    ///
    /// # Errors
    /// [`Failed::NoRoom`] or [`Failed::Refused`] if it is certain that nothing of it is written, nor ever will be;
    /// [`Failed::Lost`] if that is not known, or if another server may write the database. Then no method is
    /// called any more.
    fn write(&mut self, part: &Part, last_id: MessageId) -> Result<(), Failed>;

    /// Does what is left to do behind a batch that is written. The queues know of its changes by then, and its
    /// messages arrive afterwards.
    ///
    /// # Errors
    /// [`CommitError::Lost`].
    fn tidy(&mut self) -> Result<(), CommitError>;

    /// Whether there is maintenance to do while no change waits.
    fn needs_maintenance(&self) -> bool;

    /// Does one short step of it.
    ///
    /// # Errors
    /// If it is not known what the database has, as with [`CommitError::Lost`].
    fn maintain(&mut self) -> io::Result<()>;

    /// The server ends: writes the last id, the time and the totals, and leaves the database to the next server. What
    /// fails is logged, and nothing that was written depends on it.
    fn end(&mut self, last_id: MessageId);
}

/// Why a transaction was not committed.
#[derive(Debug)]
pub(super) enum Failed {
    /// It is undone, because there was no room for it. There may be room for less.
    NoRoom(io::Error),
    /// It is undone for another reason.
    Refused(io::Error),
    /// It is not known whether it is committed.
    Lost(io::Error),
}

impl From<Failed> for CommitError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::NoRoom(cause) | Failed::Refused(cause) => Self::Refused(cause),
            Failed::Lost(cause) => Self::Lost(cause),
        }
    }
}
