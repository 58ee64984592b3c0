//! What a server reads when it has become the leader.

use std::sync::Arc;

use postgres::Row;
use postgres::fallible_iterator::FallibleIterator as _;
use postgres::types::ToSql;
use proto::queue::MessageId;

use super::failed::Failed;
use super::messages::{self, Arrays, COLUMNS};
use super::{LeaderConnection, Postgres, tables};
use crate::authority::Authority;
use crate::clock::Micros;
use crate::error::{Error, PostgresError};
use crate::journal::database::{Database, Unread};
use crate::journal::live::LiveQueues;
use crate::journal::load::Loaded;
use crate::journal::row::ID_MAX;
use crate::journal::timeline::Resumed;
use crate::journal::{answers, keys, row, totals};

/// How many messages are read by one query. Between two queries the leader tells that it lives.
const PAGE_ROWS: usize = 10_000;

/// The database of a server that has just become the leader.
pub(super) struct Led {
    pub(super) connection: LeaderConnection,
    /// What people call the database.
    pub(super) name: String,
    pub(super) resumed: Resumed,
    /// What the row of the leader says of the queues' clock. It stays so until [`Unread::mend`] has moved what is due
    /// by another clock: if this server ends before that, the next one has to do it.
    pub(super) clock: Micros,
    /// The ids up to this one may have been given.
    pub(super) last_id: MessageId,
}

impl Led {
    /// Tells the others that the leader lives, which reads for long.
    fn beat(&mut self) -> Result<(), Error> {
        if !self.connection.authority.is_due() {
            return Ok(());
        }
        let noted = (self.clock, self.last_id);
        let beaten = self.connection.transact(noted, |_, _, _| Ok(()));
        Ok(beaten.map_err(|failed| PostgresError::Write(failed.into()))?)
    }

    /// Has each row of a query read, as it comes: never more than some of them are in memory.
    fn read(
        &mut self,
        select: &str,
        mut each: impl FnMut(&Row) -> Result<(), postgres::Error>,
    ) -> Result<(), Error> {
        let client = &mut self.connection.connected.client;
        let mut read = || {
            let none: [&dyn ToSql; 0] = [];
            let mut rows = client.query_raw(select, none)?;
            while let Some(row) = rows.next()? {
                each(&row)?;
            }
            Ok(())
        };
        read().map_err(|cause| PostgresError::Statement(cause).into())
    }
}

impl Unread for Led {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn resumed(&self) -> Resumed {
        self.resumed
    }

    fn authority(&self) -> Option<Arc<Authority>> {
        Some(Arc::clone(&self.connection.authority))
    }

    fn messages(&mut self, each: &mut dyn FnMut(i64, Option<row::Columns>)) -> Result<(), Error> {
        // A damaged one may have any id.
        let mut next = Some(i64::MIN);
        while let Some(first) = next {
            // In quotes, because a number with its sign is an expression, and the lowest is none.
            let select = format!(
                "SELECT {COLUMNS} FROM messages WHERE id >= '{first}' ORDER BY id LIMIT {PAGE_ROWS}"
            );
            let (mut rows, mut last) = (0, first);
            self.read(&select, |row| {
                last = number(row)?;
                rows += 1;
                each(last, messages::columns(row));
                Ok(())
            })?;
            next = last.checked_add(1).filter(|_| rows == PAGE_ROWS);
            self.beat()?;
        }
        Ok(())
    }

    fn paused(&mut self, each: &mut dyn FnMut(Option<&str>)) -> Result<(), Error> {
        self.read("SELECT queue FROM paused", |row| {
            each(row.try_get(0).ok());
            Ok(())
        })
    }

    fn keys(&mut self, each: &mut dyn FnMut(i64, Option<keys::Columns>)) -> Result<(), Error> {
        let select = "SELECT id, queue, account, key, digest, until, crc FROM keys ORDER BY until";
        self.read(select, |row| {
            each(number(row)?, tables::key(row));
            Ok(())
        })
    }

    fn answers(
        &mut self,
        each: &mut dyn FnMut(i64, Option<answers::Columns>),
    ) -> Result<(), Error> {
        let select = "SELECT number, crc, answers FROM answers ORDER BY number";
        self.read(select, |row| {
            each(number(row)?, tables::answers(row));
            Ok(())
        })
    }

    fn totals(&mut self, each: &mut dyn FnMut(Option<totals::Columns>)) -> Result<(), Error> {
        let select = "SELECT queue, sent, acked, failed, died, expired, crc FROM totals";
        self.read(select, |row| {
            each(tables::totals(row));
            Ok(())
        })
    }

    fn last_id(&mut self) -> Result<MessageId, Error> {
        // Also those of damaged rows were given.
        let mut last_id = self.last_id;
        for table in ["messages", "damaged"] {
            let select = format!("SELECT max(id) FROM {table} WHERE id BETWEEN 0 AND {ID_MAX}");
            self.read(&select, |row| {
                // There is none in an empty table.
                let highest: Option<i64> = row.try_get(0)?;
                last_id = last_id.max(highest.unwrap_or_default().cast_unsigned());
                Ok(())
            })?;
        }
        Ok(last_id)
    }

    fn mend(
        mut self: Box<Self>,
        loaded: Loaded,
        queues: Arc<dyn LiveQueues>,
    ) -> Result<Box<dyn Database>, Error> {
        let now = queues.clock().now();
        let set_aside = format!(
            "INSERT INTO damaged ({COLUMNS}, found)
             SELECT {COLUMNS}, clock_timestamp() FROM messages WHERE id = ANY($1)"
        );
        let mended = self
            .connection
            .transact((now, loaded.last_id), |client, messages, tables| {
                if !loaded.damaged.is_empty() {
                    client.execute(&set_aside, &[&loaded.damaged])?;
                    messages.delete(client, &loaded.damaged)?;
                }
                if !loaded.damaged_answers.is_empty() {
                    tables.delete_answers(client, &loaded.damaged_answers)?;
                }
                if !loaded.damaged_keys.is_empty() {
                    client.execute(
                        "DELETE FROM keys WHERE id = ANY($1)",
                        &[&loaded.damaged_keys],
                    )?;
                }
                tables.delete_free_keys(client, now, 0)?;
                // A statement may not last for ever.
                for some in loaded.moved.chunks(PAGE_ROWS) {
                    let moved = Arrays::of(some.iter().map(|row| row.columns(&[])));
                    messages.update(client, &moved)?;
                }
                Ok(())
            });
        match mended {
            Ok(()) => {}
            // The database is as it was, and can be read and emptied.
            Err(Failed::NoRoom(cause)) => {
                let shown = &self.name;
                log::error!("There is no room in {shown} to record what was found: {cause}");
            }
            Err(failed @ (Failed::Again(_) | Failed::Refused(_) | Failed::Lost(_))) => {
                return Err(PostgresError::Write(failed.into()).into());
            }
        }
        // It may have lasted for longer than a server may be silent.
        (self.clock, self.last_id) = (queues.clock().now(), loaded.last_id);
        self.beat()?;
        Ok(Box::new(Postgres {
            connection: self.connection,
            queues,
            answers: loaded.answers,
            totals: loaded.totals,
        }))
    }
}

/// The number of a row, which is its first column. Without it a damaged row could not be found again, nor the next
/// page.
fn number(row: &Row) -> Result<i64, postgres::Error> {
    row.try_get(0)
}
