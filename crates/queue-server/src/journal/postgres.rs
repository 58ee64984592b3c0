//! The database in PostgreSQL, or in an engine that speaks its protocol.
//!
//! Each batch is one transaction. Its first statement changes the row of the leader, if the epoch there is still this
//! server's own: that is the fence, the heartbeat, and the record of the last id in one. Behind it there is at most
//! one statement for each kind of change, however many changes there are, because what was changed twice is written
//! once.
//!
//! Whether a COMMIT has happened whose answer is lost, or which comes with a warning, nobody knows: it is
//! [`CommitError::Lost`]. That ends this database, and not the server, which competes for the row of the leader again
//! and reads what was committed.
//!
//! [`url`] says where the database is, [`connect`] reaches it, with the passwords of [`environment`] and by [`tls`].
//! [`schema`] makes the tables; [`candidate`] is how a server becomes the leader, and [`load`] what it reads then.
//! [`durability`] is what a COMMIT waits for.
//! [`messages`] and [`tables`] are the statements, [`failed`] what an error means.

mod candidate;
mod connect;
mod durability;
mod environment;
mod failed;
mod load;
mod lock;
mod messages;
mod schema;
mod tables;
mod tls;
mod url;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use postgres::{Client, Error, SimpleQueryMessage};
use proto::queue::MessageId;
use storage::CommitError;

use super::batch::Part;
use super::change::Written;
use super::database::{self, Database};
use super::live::LiveQueues;
use super::row::Row;
use super::totals::Totals;
use super::{answers, answers::Answers};
use crate::authority::{Authority, Boottime};
use crate::keys::Acked;
use connect::Connected;
use failed::Failed;
use messages::{Arrays, Messages};
use tables::Tables;

pub(crate) use candidate::Candidate;

/// How often a transaction is tried that another one has undone.
const TRIES: usize = 5;

/// What is said when the epoch is another.
const REPLACED: &str = "another server has taken over";

/// What is said when COMMIT comes with a warning.
const LOCAL: &str = "the database warned when it committed; a replica may not have it";

/// The connection of the leader.
struct LeaderConnection {
    connected: Connected,
    messages: Messages,
    tables: Tables,
    /// The epoch in which this server leads.
    epoch: i64,
    authority: Arc<Authority>,
}

impl LeaderConnection {
    /// Writes in a transaction, which is committed if this server still leads. `clock` is what the queues' clock
    /// shows, and the ids up to `last_id` may have been given.
    fn transact<T>(
        &mut self,
        (clock, last_id): (u64, MessageId),
        write: impl Fn(&mut Client, &Messages, &Tables) -> Result<T, Error>,
    ) -> Result<T, Failed> {
        let mut tries = 1;
        loop {
            match self.try_transact((clock, last_id), &write) {
                Err(Failed::Again(error)) if tries < TRIES => {
                    log::debug!("A transaction is tried again: {error}");
                    tries += 1;
                }
                // Before anybody is told, and what was reserved for that goes back to its queue.
                Err(Failed::Lost(cause)) => {
                    self.authority.end();
                    return Err(Failed::Lost(cause));
                }
                done => return done,
            }
        }
    }

    fn try_transact<T>(
        &mut self,
        (clock, last_id): (u64, MessageId),
        write: impl Fn(&mut Client, &Messages, &Tables) -> Result<T, Error>,
    ) -> Result<T, Failed> {
        let begun_at = Boottime::now();
        let epoch = self.epoch;
        let client = &mut self.connected.client;
        let written = fence(client, epoch, clock, last_id).and_then(|()| {
            write(client, &self.messages, &self.tables).map_err(Failed::before_commit)
        });
        let written = match written {
            Ok(written) => written,
            Err(failed) => {
                // If that fails, the database does it when the connection ends.
                let _ = client.simple_query("ROLLBACK");
                return Err(failed);
            }
        };
        let is_warned = &self.connected.is_warned;
        is_warned.store(false, Ordering::Relaxed);
        client.simple_query("COMMIT").map_err(Failed::in_commit)?;
        if is_warned.load(Ordering::Relaxed) {
            return Err(Failed::Lost(io::Error::other(LOCAL)));
        }
        self.authority.confirm(begun_at);
        Ok(written)
    }
}

/// Begins a transaction that only the leader of this epoch can commit: a server that takes over waits until it
/// ends, or has changed the row before.
fn fence(client: &mut Client, epoch: i64, clock: u64, last_id: MessageId) -> Result<(), Failed> {
    // One way to the database and back instead of two. All of it is numbers.
    let begin = format!(
        "BEGIN; UPDATE leader SET heartbeat = clock_timestamp(), clock = {clock}, last_id = {last_id}
                WHERE epoch = {epoch}"
    );
    let replies = client.simple_query(&begin).map_err(Failed::before_commit)?;
    let changed: u64 = replies.iter().map(changed_rows).sum();
    if changed == 1 {
        Ok(())
    } else {
        Err(Failed::Lost(io::Error::other(REPLACED)))
    }
}

fn changed_rows(reply: &SimpleQueryMessage) -> u64 {
    if let SimpleQueryMessage::CommandComplete(rows) = reply {
        *rows
    } else {
        0
    }
}

/// The database of the leader.
struct Postgres {
    connection: LeaderConnection,
    queues: Arc<dyn LiveQueues>,
    answers: Answers,
    totals: Totals,
}

/// Changes, of which each message has one at most: what was changed again is written once, and what is deleted not
/// at all.
#[derive(Default)]
struct Folded<'b> {
    updated: HashMap<MessageId, &'b Row>,
    deleted: Vec<i64>,
    acked: Vec<&'b Acked>,
    /// Whether a queue is paused.
    pauses: BTreeMap<&'b str, bool>,
}

impl<'b> Folded<'b> {
    fn of(changed: &'b [Written]) -> Self {
        let mut folded = Self::default();
        for change in changed {
            match change {
                Written::Update(row) | Written::Extend { row, .. } => {
                    folded.updated.insert(row.id, row);
                }
                Written::Delete(id, _, acked) => {
                    folded.updated.remove(id);
                    folded.deleted.push(id.cast_signed());
                    folded.acked.extend(acked.as_deref());
                }
                Written::Pause(queue, is_paused) => {
                    folded.pauses.insert(queue, *is_paused);
                }
                Written::Nothing => {}
            }
        }
        folded
    }

    /// The queues that are paused from now on, or those that are resumed.
    fn queues(&self, paused: bool) -> Vec<&'b str> {
        let pauses = self.pauses.iter();
        let those = pauses.filter(|(_, is_paused)| **is_paused == paused);
        those.map(|(queue, _)| *queue).collect()
    }
}

impl Postgres {
    fn write_part(&mut self, part: &Part, last_id: MessageId) -> Result<(), Failed> {
        let queues = &*self.queues;
        let (answers, totals) = (&self.answers, &self.totals);
        let now = queues.clock().now();
        let rows: Vec<_> = part
            .inserted()
            .iter()
            .map(|(queue, message, is_delayed)| Row::new(queue, message, *is_delayed, None, now))
            .collect();
        let bodies = part.inserted().iter().map(|(_, message, _)| &*message.body);
        let inserted = Arrays::of(rows.iter().zip(bodies).map(|(row, body)| row.columns(body)));
        let changed = Folded::of(part.changed());
        let updated = Arrays::of(changed.updated.values().map(|row| row.columns(&[])));
        let next = totals.is_due().then(|| Totals::next(queues));
        let write = |client: &mut Client, messages: &Messages, tables: &Tables| {
            messages.insert(client, &inserted)?;
            messages.update(client, &updated)?;
            messages.delete(client, &changed.deleted)?;
            tables.insert_keys(client, &changed.acked, now)?;
            tables.write_pauses(client, &changed.queues(true), &changed.queues(false))?;
            if let Some(next) = &next {
                tables.write_totals(client, next.changed_since(totals))?;
            }
            let step = answers.step(queues, part.answers());
            step.map(|step| tables.write_answers(client, step, queues))
                .transpose()
        };
        let step: Option<answers::Step> = self.connection.transact((now, last_id), write)?;
        if let Some(step) = step {
            self.answers.note(&step);
        }
        if let Some(next) = next {
            self.totals = next;
        }
        Ok(())
    }
}

impl Database for Postgres {
    fn write(&mut self, part: &Part, last_id: MessageId) -> Result<(), database::Failed> {
        Ok(self.write_part(part, last_id)?)
    }

    fn tidy(&mut self) -> Result<(), CommitError> {
        Ok(())
    }

    fn needs_maintenance(&self) -> bool {
        false
    }

    fn maintain(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn end(&mut self, last_id: MessageId) {
        let queues = &*self.queues;
        let next = Totals::next(queues);
        let totals = &self.totals;
        let now = queues.clock().now();
        let released = self
            .connection
            .transact((now, last_id), |client, _, tables| {
                tables.write_totals(client, next.changed_since(totals))?;
                client.batch_execute("UPDATE leader SET is_released = TRUE")
            });
        if let Err(cause) = released.map_err(io::Error::from) {
            log::warn!("Another server takes over only later: {cause}");
        }
    }
}
