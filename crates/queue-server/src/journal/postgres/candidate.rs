//! A server that competes for the row of the leader.
//!
//! The row has an epoch, which each takeover increases. Every transaction of the leader changes the row first, if the
//! epoch is still its own: so a leader that was replaced can commit nothing, whatever it believes (a fencing token).
//! Nothing else is needed for that. The rest is about the right time to take over:
//!
//! - at once, if the leader has released the row, or if it was this server;
//! - at once, if the leader has noted that it holds an advisory lock ([`lock`]), and the lock is free;
//! - else when the row has not changed for `takeover_after`. That is counted by this server's own clock, from what it
//!   has seen itself, because the database's clock may be set, and is another one after a failover.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use postgres::error::SqlState;
use postgres::{Row, Statement};
use proto::queue::MessageId;
use rustix::system::uname;
use uuid::Uuid;

use super::connect::{Connected, Connector, Timeouts};
use super::environment::Environment;
use super::load::Led;
use super::messages::Messages;
use super::tables::Tables;
use super::url::Url;
use super::{LeaderConnection, durability, lock, schema};
use crate::authority::{Authority, Boottime};
use crate::clock::Micros;
use crate::error::{Error, PostgresError};
use crate::journal::load::Opened;
use crate::journal::row::ID_MAX;
use crate::journal::timeline::{Moment, Note};

/// The latest time of the queues' clock that is believed, in the year 11,000: the positions of the messages
/// have room for another 9,000.
const CLOCK_MAX: i64 = 1 << 58;

/// What the row says. Moments of the database are in microseconds since 1970.
const SELECT: &str = "
    SELECT epoch, (extract(epoch FROM heartbeat) * 1000000)::bigint, is_released, has_lock, clock, last_id, who,
           (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
    FROM leader";

/// How long a look at the row and a takeover may last, of which a wait for the row's lock is half. A database that
/// hangs for longer is left: perhaps another server of it answers.
const COMPETE_WAIT: Duration = Duration::from_secs(10);

/// A server that competes.
pub(crate) struct Candidate {
    connector: Connector,
    /// What the database is called.
    name: String,
    connection: Option<CandidateConnection>,
    look: Look,
}

/// What a server that stands by knows of the row.
#[derive(Clone)]
struct Look {
    /// What this server is called in the row.
    who: String,
    takeover_after: Duration,
    /// What the row was, and since when it has not changed.
    seen: Option<(Seen, Boottime)>,
}

/// The connection of a server that stands by.
struct CandidateConnection {
    connected: Connected,
    select: Statement,
    /// `None` on an engine that has no such lock.
    try_lock: Option<Statement>,
}

/// What of the row changes while its leader lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    epoch: i64,
    heartbeat: i64,
}

/// The row.
struct Leader {
    seen: Seen,
    is_released: bool,
    has_lock: bool,
    clock: i64,
    last_id: i64,
    who: String,
    /// What the database's clock shows.
    now: i64,
}

impl Leader {
    fn read(row: &Row) -> Result<Self, postgres::Error> {
        Ok(Self {
            seen: Seen {
                epoch: row.try_get(0)?,
                heartbeat: row.try_get(1)?,
            },
            is_released: row.try_get(2)?,
            has_lock: row.try_get(3)?,
            clock: row.try_get(4)?,
            last_id: row.try_get(5)?,
            who: row.try_get(6)?,
            now: row.try_get(7)?,
        })
    }

    /// Something that nobody but another program can have written is not continued from.
    fn believed(value: i64, max: i64, what: &str) -> Option<u64> {
        let is_believed = (0..=max).contains(&value);
        if !is_believed {
            log::error!("The {what} in the table 'leader' cannot be {value}, and is not used");
        }
        is_believed.then_some(value.cast_unsigned())
    }

    fn last_id(&self) -> MessageId {
        Self::believed(self.last_id, ID_MAX, "last_id").unwrap_or_default()
    }

    fn clock(&self) -> Micros {
        let clock = Self::believed(self.clock, CLOCK_MAX, "clock");
        clock.unwrap_or(self.now.cast_unsigned())
    }
}

impl Candidate {
    /// One that takes over from a leader that has not written for `takeover_after`.
    ///
    /// # Errors
    /// If the URL is wrong, or names no user where the environment does not either.
    pub(crate) fn new(url: &str, takeover_after: Duration) -> Result<Self, Error> {
        let url = Url::parse(url).map_err(PostgresError::Url)?;
        let timeouts = Timeouts {
            // A leader that hangs in a transaction keeps the row locked.
            idle_in_transaction: takeover_after / 2,
            ..Timeouts::default()
        };
        Ok(Self {
            name: url.to_string(),
            connector: Connector::new(url, Environment::of_process(), timeouts)?,
            connection: None,
            look: Look {
                who: who(),
                takeover_after,
                seen: None,
            },
        })
    }

    /// Looks at the row, and takes over if it is time for that. `None` if another server leads.
    ///
    /// # Errors
    /// If the database cannot be reached or used. The next call connects anew.
    pub(crate) fn compete(&mut self) -> Result<Option<Opened>, Error> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let server = connection.connected.server.clone();
        let mut look = self.look.clone();
        let begun_at = Boottime::now();
        let compete = move || {
            let leader = look.compete(&mut connection);
            leader.map(|leader| (look, connection, leader))
        };
        let competed = self.connector.within(&server, COMPETE_WAIT, compete)?;
        let (look, connection, leader) = competed.map_err(PostgresError::Statement)?;
        self.look = look;
        match leader {
            Some(leader) => self
                .begin_to_lead(connection.connected, &leader, begun_at)
                .map(Some),
            None => {
                self.connection = Some(connection);
                Ok(None)
            }
        }
    }

    fn connect(&self) -> Result<CandidateConnection, Error> {
        let connected = self.connector.connect()?;
        let server = connected.server.clone();
        let prepare = || CandidateConnection::prepare(connected);
        Ok(self.connector.within(&server, COMPETE_WAIT, prepare)??)
    }

    /// Leads from now on. The row was as `leader` says.
    fn begin_to_lead(
        &mut self,
        mut connected: Connected,
        leader: &Leader,
        begun_at: Boottime,
    ) -> Result<Opened, Error> {
        let epoch = leader.seen.epoch + 1;
        let server = &connected.server;
        let who = &self.look.who;
        log::info!("{who} leads in epoch {epoch}, on the PostgreSQL server {server}");
        let client = &mut connected.client;
        durability::wait_for_disk(client).map_err(PostgresError::Statement)?;
        // Without it, others take over later if this server is killed.
        match lock::gain(client, &self.connector, server) {
            Ok(true) => {
                let note = "UPDATE leader SET has_lock = TRUE WHERE epoch = $1";
                client
                    .execute(note, &[&epoch])
                    .map_err(PostgresError::Statement)?;
            }
            Ok(false) => log::debug!("advisory locks exclude nobody here"),
            Err(error) => log::debug!("there is no advisory lock: {error}"),
        }
        let messages = Messages::prepare(client).map_err(PostgresError::Statement)?;
        let tables = Tables::prepare(client).map_err(PostgresError::Statement)?;
        let clock = leader.clock();
        let note = Note {
            clock,
            moment: wall(leader.seen.heartbeat),
        };
        Ok(Opened::of(Led {
            connection: LeaderConnection {
                connected,
                messages,
                tables,
                epoch,
                authority: Arc::new(Authority::new(begun_at, self.look.takeover_after / 2)),
            },
            name: self.name.clone(),
            resumed: note.resume(&wall(leader.now)),
            clock,
            last_id: leader.last_id(),
        }))
    }
}

impl CandidateConnection {
    fn prepare(mut connected: Connected) -> Result<Self, PostgresError> {
        let client = &mut connected.client;
        schema::prepare(client)?;
        let select = client.prepare(SELECT).map_err(PostgresError::Statement)?;
        let try_lock = match client.prepare(&lock::try_to_gain()) {
            Ok(try_lock) => Some(try_lock),
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_FUNCTION) => None,
            Err(error) => return Err(PostgresError::Statement(error)),
        };
        Ok(Self {
            select,
            try_lock,
            connected,
        })
    }
}

impl Look {
    /// Takes over, if it is time for that. Returns what the row was.
    fn compete(
        &mut self,
        connection: &mut CandidateConnection,
    ) -> Result<Option<Leader>, postgres::Error> {
        if self.is_time(connection)? {
            self.replace(&mut connection.connected)
        } else {
            Ok(None)
        }
    }

    /// Whether it is time to take over.
    fn is_time(&mut self, connection: &mut CandidateConnection) -> Result<bool, postgres::Error> {
        let client = &mut connection.connected.client;
        let leader = Leader::read(&client.query_one(&connection.select, &[])?)?;
        let since = match self.seen {
            Some((seen, since)) if seen == leader.seen => since,
            Some(_) | None => Boottime::now(),
        };
        self.seen = Some((leader.seen, since));
        if leader.is_released || leader.who == self.who || since.elapsed() >= self.takeover_after {
            return Ok(true);
        }
        match &connection.try_lock {
            Some(try_lock) if leader.has_lock => client.query_one(try_lock, &[])?.try_get(0),
            Some(_) | None => Ok(false),
        }
    }

    /// Replaces the leader: changes the row, if it is still as it was seen. Returns what it was.
    fn replace(&self, connected: &mut Connected) -> Result<Option<Leader>, postgres::Error> {
        let mut transaction = connected.client.transaction()?;
        let row = match transaction.query_one(&format!("{SELECT} FOR UPDATE"), &[]) {
            // Its leader is in the middle of a transaction, or hangs there until the database ends it.
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => return Ok(None),
            row => row?,
        };
        let leader = Leader::read(&row)?;
        if self.seen.is_none_or(|(seen, _)| seen != leader.seen) {
            return Ok(None);
        }
        let update = "UPDATE leader SET epoch = epoch + 1, who = $1, heartbeat = clock_timestamp(),
                      is_released = FALSE, has_lock = FALSE";
        transaction.execute(update, &[&self.who])?;
        connected.is_warned.store(false, Ordering::Relaxed);
        transaction.commit()?;
        // A replica may not have it. The row names this server, so it tries again at once.
        let is_warned = connected.is_warned.load(Ordering::Relaxed);
        Ok((!is_warned).then_some(leader))
    }
}

/// The host, the process, and something that no other process of this number has had.
fn who() -> String {
    let host = uname();
    let host = host.nodename().to_string_lossy();
    let id = Uuid::new_v4().as_fields().0;
    format!("{host}:{}:{id:08x}", std::process::id())
}

/// What a clock that can be set shows.
fn wall(micros: i64) -> Moment {
    Moment {
        boot: String::new(),
        uptime: 0,
        wall: micros.cast_unsigned(),
    }
}
