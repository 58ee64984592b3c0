//! PostgreSQL: our queue that keeps its messages there, and a table of jobs as people make one.
//!
//! The sides of a row use one server in turn, each in a [`database`](crate::database) of its own. Of the table of
//! jobs, `pgbench` inserts a job and takes one, each in a transaction of its own, in statements that are prepared. A
//! job is taken in one of two ways ([`Taking`]).

use std::fs;
use std::rc::Rc;
use std::time::Duration;

use crate::contestant::{Clients, Contestant, Lab, Sample};
use crate::conversation::{BODY, Dialect, Wrong};
use crate::database::{Database, Instance};
use crate::error::Error;
use crate::queues::{durable_start, queue_in};

/// What a queue server says that was built without PostgreSQL, or that takes the URL for the name of a file,
/// because it is of a build before.
const WITHOUT: [&str; 2] = ["without PostgreSQL", "cannot open postgresql://"];

/// Jobs that are always there, so that none of the clients finds the table empty.
const JOBS: u64 = 10_000;

/// Threads of `pgbench`, which drive all connections.
const PGBENCH_THREADS: &str = "2";

const TABLE: &str = "
    CREATE TABLE jobs (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body TEXT NOT NULL)";

const SEND: &str = "INSERT INTO jobs (body) VALUES (:body);\n";

/// How the oldest job is taken that nobody else is taking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taking {
    /// Deleted with one statement, like our at-most-once receive.
    Deleted,
    /// Locked, and deleted when the work is done, so that it is there if the worker dies: like our receive and ack.
    Locked,
}

impl Taking {
    fn sql(self) -> &'static str {
        match self {
            Self::Deleted => {
                "DELETE FROM jobs WHERE id = (SELECT id FROM jobs ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1)
                     RETURNING body;\n"
            }
            Self::Locked => {
                "BEGIN;
                 SELECT id, body FROM jobs ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1 \\gset
                 DELETE FROM jobs WHERE id = :id;
                 COMMIT;\n"
            }
        }
    }

    fn dialect(self) -> Dialect {
        match self {
            Self::Deleted => Dialect::Quartet,
            Self::Locked => Dialect::Acked,
        }
    }
}

/// A side, and the database it uses.
// In this order: the side ends before the server does.
struct On {
    side: Box<dyn Contestant>,
    _database: Database,
}

impl Contestant for On {
    fn round(&mut self) -> Result<Sample, Error> {
        self.side.round()
    }

    fn finish(&mut self) -> Result<(), Error> {
        self.side.finish()
    }
}

/// A new database in the server of this row, which the first side of it starts.
fn database(lab: &Lab) -> Result<Database, Error> {
    let mut current = lab.postgres.borrow_mut();
    let instance = match current.upgrade() {
        Some(instance) => instance,
        None => Rc::new(Instance::start(lab.dir()?)?),
    };
    *current = Rc::downgrade(&instance);
    Database::new(instance)
}

/// Starts our queue on a new database.
fn ours(
    lab: &Lab,
    start: impl FnOnce(&str) -> Result<Box<dyn Contestant>, Error>,
) -> Result<Box<dyn Contestant>, Error> {
    let database = database(lab)?;
    let side = start(&database.url()).map_err(|error| match error {
        Error::Ended { log, .. } if WITHOUT.iter().any(|without| log.contains(without)) => {
            Error::Missing("PostgreSQL in this build of queue-server")
        }
        other => other,
    })?;
    Ok(Box::new(On {
        side,
        _database: database,
    }))
}

/// Our queue on PostgreSQL, under load.
///
/// # Errors
/// If PostgreSQL is not installed, or the queue cannot be started.
pub fn queue(lab: &Lab, clients: Clients, taking: Taking) -> Result<Box<dyn Contestant>, Error> {
    ours(lab, |url| queue_in(lab, clients, taking.dialect(), url))
}

/// How long our queue takes to start on a database of many messages in PostgreSQL, up to the first reply, in seconds.
///
/// # Errors
/// If PostgreSQL is not installed, or the database cannot be made.
pub fn start_with_many(lab: &Lab, _: Clients) -> Result<Box<dyn Contestant>, Error> {
    ours(lab, |url| durable_start(lab, url))
}

/// A table of jobs.
struct Jobs {
    database: Database,
    clients: String,
    secs: String,
}

/// A table of jobs in PostgreSQL, with one transaction a job, however many requests are in flight with ours.
///
/// # Errors
/// If PostgreSQL is not installed.
pub fn jobs(
    lab: &Lab,
    (connections, _): Clients,
    taking: Taking,
) -> Result<Box<dyn Contestant>, Error> {
    /// In which all connections are made, and statements prepared.
    const WARM_UP: Duration = Duration::from_secs(1);
    let database = database(lab)?;
    let body = String::from_utf8_lossy(BODY);
    let fill = format!("INSERT INTO jobs (body) SELECT '{body}' FROM generate_series(1, {JOBS})");
    database.query(&format!("{TABLE}; {fill}"))?;
    let script = database.folder().join("jobs.sql");
    fs::write(script, [SEND, taking.sql()].concat())
        .map_err(Error::io("write a script for pgbench"))?;
    Ok(Box::new(Jobs {
        database,
        clients: connections.to_string(),
        secs: (lab.scale.measured + WARM_UP).as_secs().to_string(),
    }))
}

impl Contestant for Jobs {
    fn round(&mut self) -> Result<Sample, Error> {
        // Deleted rows slow it down until then, and PostgreSQL itself does it once a minute at most.
        self.database.query("VACUUM ANALYZE jobs")?;
        let body = format!("body={}", String::from_utf8_lossy(BODY));
        #[rustfmt::skip]
        let args = [
            "-n", "-M", "prepared", "-c", &self.clients, "-j", PGBENCH_THREADS, "-T", &self.secs,
            "-D", &body, "-f", "jobs.sql",
        ];
        let report = self.database.run("pgbench", &args)?;
        let rate = report.lines().find_map(|line| line.strip_prefix("tps = "));
        let rate = rate.and_then(|rate| rate.split(' ').next()?.parse::<f64>().ok());
        let rate = rate.ok_or(Error::NoOperation)?;
        // A job is sent and received.
        Ok(Sample::value(2.0 * rate))
    }

    /// Each transaction that took a job took one.
    fn finish(&mut self) -> Result<(), Error> {
        let left = self.database.query("SELECT count(*) FROM jobs")?;
        match left == JOBS.to_string() {
            true => Ok(()),
            false => Err(Wrong::new("as many jobs as before", left.as_bytes()).into()),
        }
    }
}
