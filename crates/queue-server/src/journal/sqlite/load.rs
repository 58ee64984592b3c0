//! Reading a database at the start, and mending it.

use std::sync::Arc;

use proto::queue::MessageId;
use rusqlite::{Row, TransactionBehavior};

use super::causes::is_lack_of_room;
use super::messages::{self, COLUMNS};
use super::open::OpenedFile;
use super::{Sqlite, schema, tables};
use crate::authority::Authority;
use crate::error::Error;
use crate::journal::database::{Database, Unread};
use crate::journal::live::LiveQueues;
use crate::journal::load::Loaded;
use crate::journal::state::State;
use crate::journal::timeline::Resumed;
use crate::journal::{answers, keys, row, totals};

impl OpenedFile {
    /// Has each row of a query read.
    fn read(
        &self,
        select: &str,
        mut each: impl FnMut(&Row) -> rusqlite::Result<()>,
    ) -> Result<(), Error> {
        let mut read = || {
            let mut select = self.db.prepare(select)?;
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                each(row)?;
            }
            Ok(())
        };
        read().map_err(Error::sqlite(&self.path))
    }

    /// Sets damaged rows aside, and records the others that have changed.
    fn record(&mut self, loaded: &Loaded, queues: &dyn LiveQueues) -> rusqlite::Result<()> {
        let state = State::now(loaded.last_id, queues.clock());
        let immediate = TransactionBehavior::Immediate;
        let transaction = self.db.transaction_with_behavior(immediate)?;
        let set_aside = format!(
            "INSERT INTO damaged ({COLUMNS}, found)
             SELECT {COLUMNS}, datetime('now') FROM messages WHERE id = ?1"
        );
        for id in &loaded.damaged {
            transaction.execute(&set_aside, [id])?;
            transaction.execute("DELETE FROM messages WHERE id = ?1", [id])?;
        }
        for row in &loaded.damaged_answers {
            transaction.execute("DELETE FROM answers WHERE row = ?1", [row])?;
        }
        for id in &loaded.damaged_keys {
            transaction.execute("DELETE FROM keys WHERE id = ?1", [id])?;
        }
        tables::remove_free_keys(&transaction, queues.clock().now(), 0)?;
        for row in &loaded.moved {
            messages::update(&transaction, row)?;
        }
        tables::write_state(&transaction, &state)?;
        match transaction.commit() {
            // The database is as it was, and can be read and emptied.
            Err(error) if is_lack_of_room(&error) => {
                let shown = self.path.display();
                log::error!("There is no room in {shown} to record what was found: {error}");
                Ok(())
            }
            committed => committed,
        }
    }
}

impl Unread for OpenedFile {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn resumed(&self) -> Resumed {
        self.resumed
    }

    fn authority(&self) -> Option<Arc<Authority>> {
        None
    }

    fn messages(&mut self, each: &mut dyn FnMut(i64, Option<row::Columns>)) -> Result<(), Error> {
        let select = format!("SELECT {COLUMNS} FROM messages ORDER BY id");
        self.read(&select, |row| {
            let id = row.get(0)?;
            each(id, messages::columns(id, row).ok());
            Ok(())
        })
    }

    fn paused(&mut self, each: &mut dyn FnMut(Option<&str>)) -> Result<(), Error> {
        self.read("SELECT queue FROM paused", |row| {
            each(row.get_ref(0)?.as_str().ok());
            Ok(())
        })
    }

    fn keys(&mut self, each: &mut dyn FnMut(i64, Option<keys::Columns>)) -> Result<(), Error> {
        let select = "SELECT id, queue, account, key, digest, until, crc FROM keys ORDER BY until";
        self.read(select, |row| {
            let id = row.get(0)?;
            each(id, tables::key(id, row).ok());
            Ok(())
        })
    }

    fn answers(
        &mut self,
        each: &mut dyn FnMut(i64, Option<answers::Columns>),
    ) -> Result<(), Error> {
        let select = "SELECT row, crc, answers FROM answers ORDER BY row";
        self.read(select, |row| {
            let number = row.get(0)?;
            each(number, tables::answers(number, row).ok());
            Ok(())
        })
    }

    fn totals(&mut self, each: &mut dyn FnMut(Option<totals::Columns>)) -> Result<(), Error> {
        let select = "SELECT queue, sent, acked, failed, died, expired, crc FROM totals";
        self.read(select, |row| {
            each(tables::totals(row).ok());
            Ok(())
        })
    }

    fn last_id(&mut self) -> Result<MessageId, Error> {
        if let Some(state) = &self.state {
            return Ok(state.last_id);
        }
        let shown = self.path.display();
        log::error!(
            "{shown} has lost its last id; ids of messages that are gone may be given again"
        );
        schema::last_id_there(&self.db).map_err(Error::sqlite(&self.path))
    }

    fn mend(
        mut self: Box<Self>,
        loaded: Loaded,
        queues: Arc<dyn LiveQueues>,
    ) -> Result<Box<dyn Database>, Error> {
        let recorded = self.record(&loaded, &*queues);
        recorded.map_err(Error::sqlite(&self.path))?;
        Ok(Box::new(Sqlite {
            db: self.db,
            files: self.files,
            queues,
            last_id: loaded.last_id,
            reserved_id: loaded.last_id,
            log_pages: self.log_pages,
            stuck: None,
            answers: loaded.answers,
            totals: loaded.totals,
            // The free pages are counted at once.
            freed_bytes: u64::MAX,
            is_shrinking: false,
        }))
    }
}
