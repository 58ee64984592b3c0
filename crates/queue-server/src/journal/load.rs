//! The start: a database is read, and the queues are told what is in it.

use std::path::Path;
use std::sync::Arc;

use proto::queue::{MessageId, QueueName};
use storage::Fsync;

use super::answers::Answers;
use super::database::Unread;
use super::live::LiveQueues;
use super::row::Row;
use super::sqlite::OpenedFile;
use super::totals::Totals;
use super::{Journal, keys};
use crate::authority::Authority;
use crate::clock::Clock;
use crate::error::Error;

/// A database that is open and not read yet.
pub(crate) struct Opened(Box<dyn Unread>);

/// What was found in a database, and must be written because it is not as it should be.
#[derive(Default)]
pub(super) struct Loaded {
    messages: usize,
    pub(super) last_id: MessageId,
    /// The ids of damaged rows.
    pub(super) damaged: Vec<i64>,
    /// The ids of messages whose keys are damaged.
    pub(super) damaged_keys: Vec<i64>,
    /// Rows of answers that are damaged.
    pub(super) damaged_answers: Vec<i64>,
    /// How many queues have totals that are.
    damaged_totals: usize,
    /// Rows of leases and delays that are over at another moment than they say.
    pub(super) moved: Vec<Row>,
    pub(super) answers: Answers,
    pub(super) totals: Totals,
}

impl Opened {
    /// Opens or makes a database of SQLite.
    ///
    /// # Errors
    /// If it is in use, cannot be opened, or belongs to another program.
    pub(crate) fn sqlite(path: &Path, fsync: Fsync) -> Result<Self, Error> {
        Ok(Self(Box::new(OpenedFile::open(path, fsync)?)))
    }

    /// One that is open.
    #[cfg(feature = "postgres")]
    pub(super) fn of(database: impl Unread + 'static) -> Self {
        Self(Box::new(database))
    }

    /// The clock that gave the messages their positions.
    pub(crate) fn clock(&self) -> Clock {
        Clock::starting_at(self.0.resumed().now)
    }

    /// Until when this server may act; `None` if nobody else can.
    pub(crate) fn authority(&self) -> Option<Arc<Authority>> {
        self.0.authority()
    }

    /// Puts the messages into their queues.
    ///
    /// # Errors
    /// If the database cannot be read or written.
    pub(crate) fn load(mut self, queues: Arc<dyn LiveQueues>) -> Result<Journal, Error> {
        let shown = self.0.name();
        let loaded = Loaded::read(&mut *self.0, &*queues)?;
        loaded.report(&shown);
        let (messages, last_id) = (loaded.messages, loaded.last_id);
        let database = self.0.mend(loaded, Arc::clone(&queues))?;
        log::info!("{messages} messages read from {shown}");
        Ok(Journal::new(database, queues, last_id + 1))
    }
}

impl Loaded {
    fn read(database: &mut dyn Unread, queues: &dyn LiveQueues) -> Result<Self, Error> {
        let mut loaded = Self::default();
        let shown = database.name();
        let resumed = database.resumed();
        database.messages(&mut |id, columns| {
            let Some(mut found) = columns.and_then(|columns| Row::read(&columns)) else {
                loaded.damaged.push(id);
                return;
            };
            loaded.last_id = loaded.last_id.max(found.reserved.message.id);
            loaded.messages += 1;
            loaded.moved.extend(found.resume(resumed));
            queues.restore(found.reserved, found.is_delayed);
        })?;
        database.paused(&mut |queue| match queue.map(QueueName::new) {
            Some(Ok(queue)) => queues.pause(&queue.as_str().into(), true),
            Some(Err(_)) | None => log::error!("A pause in {shown} has no queue"),
        })?;
        database.keys(
            &mut |id, columns| match columns.and_then(|columns| keys::read(&columns)) {
                Some(acked) => queues.restore_key(&acked),
                None => loaded.damaged_keys.push(id),
            },
        )?;
        database.answers(&mut |row, columns| {
            if !columns.is_some_and(|columns| loaded.answers.restore(&columns, queues)) {
                loaded.damaged_answers.push(row);
            }
        })?;
        database.totals(&mut |columns| {
            if !columns.is_some_and(|columns| loaded.totals.restore(&columns)) {
                loaded.damaged_totals += 1;
            }
        })?;
        queues.restore_counts(loaded.totals.counts());
        loaded.last_id = loaded.last_id.max(database.last_id()?);
        Ok(loaded)
    }

    /// Logs what is damaged in the database of this name.
    fn report(&self, shown: &str) {
        let totals = self.damaged_totals;
        if totals > 0 {
            log::error!(
                "The totals of {totals} queues in {shown} are damaged, and begin at 0 again"
            );
        }
        for id in &self.damaged {
            log::error!(
                "Message {id} in {shown} is damaged; it was set aside in the table 'damaged'"
            );
        }
        let rows = self.damaged_answers.len();
        if rows > 0 {
            log::error!(
                "{rows} rows of answers in {shown} are damaged; what was asked there acts again if it is asked again"
            );
        }
        for id in &self.damaged_keys {
            log::error!("The key of message {id} in {shown} is damaged and free from now on");
        }
    }
}
