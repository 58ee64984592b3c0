//! The rules of the queues, in memory and with a database.

use std::path::PathBuf;
use std::time::Instant;

use proto::queue::{MessageId, MessageState, Reason, Retry, Totals};

use super::*;
use crate::clock::Micros;
use crate::error::QUEUES_MAX;
#[cfg(feature = "postgres")]
use crate::journal::{Candidate, testing};
use crate::message::Holder;
use crate::position::Position;
use crate::timer::Timer;

mod attempts;
mod batch;
mod disk;
mod keys;
mod names;
mod one;
mod properties;
mod refused;
mod restart;
mod whole;

const Q: QueueName = QueueName::DEFAULT;

/// Longer than any of these tests.
const LONG: Duration = Duration::from_secs(3600);

impl Queues {
    /// What a journal knows of them.
    pub(crate) fn live(&self) -> Arc<dyn LiveQueues> {
        Arc::clone(&self.shared) as _
    }
}

impl Limits {
    /// Those of a test that is about something else.
    pub(crate) fn roomy() -> Self {
        Self {
            body_bytes_max: 1 << 20,
            messages_max: usize::MAX,
            queue_bytes_max: usize::MAX,
            memory_bytes_max: 1 << 30,
            attempts_max: 5,
            key_window: Duration::from_secs(600),
        }
    }
}

fn limits() -> Limits {
    Limits {
        body_bytes_max: 10,
        messages_max: usize::MAX,
        queue_bytes_max: usize::MAX,
        memory_bytes_max: 1 << 20,
        attempts_max: 2,
        key_window: Duration::from_secs(600),
    }
}

fn name(name: &str) -> QueueName<'_> {
    QueueName::new(name).unwrap()
}

impl Queues {
    /// Carries it out; to how many messages.
    pub(crate) fn count_of(
        &self,
        prepared: Result<Prepared, QueueError>,
    ) -> Result<u64, QueueError> {
        match self.carry_out(prepared?)? {
            Outcome::Done(messages) => Ok(messages),
            other => panic!("{other:?}"),
        }
    }

    /// Reserves the oldest message; `None` also if the queue is paused.
    pub(crate) fn reserve(&self, queue: QueueName) -> Option<Reserved> {
        match self.receive(&queue.into(), Delivery::AtLeastOnce, usize::MAX) {
            Ok(Prepared::Done(Outcome::Reserved(reserved))) => Some(reserved),
            _ => None,
        }
    }

    /// Sends a message without room.
    pub(crate) fn submit_body(
        &self,
        queue: QueueName,
        delay: Duration,
        body: &[u8],
    ) -> Result<Prepared, QueueError> {
        let operation =
            match self.send_operation(&Sender::default(), body, &Properties::default())? {
                Operation::Send(message, _) => Operation::Send(message, delay),
                other @ Operation::Receive(_) => other,
            };
        self.act(queue, operation)
    }

    /// Requeues a message, as when its receiver is gone.
    pub(crate) fn lose(&self, reserved: Reserved) {
        self.requeue(reserved, CONNECTION_ENDED);
    }

    /// Releases a message for no reason.
    fn give_back(&self, reserved: Reserved, delay: Duration) -> Prepared {
        let delay_millis = delay.as_millis() as u32;
        self.release(reserved, Retry::Counted { delay_millis }, Reason::default())
    }

    /// Does at most this much of what is due by then.
    fn do_due(&self, now: Micros, count_max: usize) -> due::WasDue {
        self.shared
            .lock()
            .pop_due(now, &self.shared.clock, count_max)
    }

    /// Undoes a reservation.
    pub(crate) fn reinsert(&self, reserved: Reserved) {
        self.shared.lock().unreserve(reserved);
    }

    /// Leases the oldest message.
    #[track_caller]
    pub(crate) fn lease(&self, queue: QueueName, lease: Duration) -> Token {
        let lease_millis = lease.as_millis() as u32;
        let pending = self.receive(&queue.into(), Delivery::Lease { lease_millis }, usize::MAX);
        match self.carry_out(pending.unwrap()) {
            Ok(Outcome::Reserved(leased)) => {
                let token = leased.lease.unwrap().token;
                self.start_lease(leased);
                token
            }
            other => panic!("{other:?}"),
        }
    }

    /// When the lease with this token expires.
    pub(crate) fn expires_at(&self, token: Token) -> Micros {
        let state = self.shared.lock();
        let leases_of = |queue: &queue::Queue| {
            let leases = queue.reserved.values().filter_map(|one| match one.holder {
                Holder::Lease(lease) => Some(lease),
                Holder::Connection(_) => None,
            });
            leases.into_iter().find(|lease| lease.token == token)
        };
        let lease = state.queues.values().find_map(leases_of);
        lease.expect("it is leased").expires_at
    }
}

#[track_caller]
fn finish(queues: &Queues, pending: Prepared) -> MessageId {
    match queues.carry_out(pending).unwrap() {
        Outcome::Stored(id) => id,
        _ => 0,
    }
}

#[track_caller]
fn send(queues: &Queues, queue: QueueName, body: &str) -> Result<MessageId, QueueError> {
    let pending = queues.submit_body(queue, Duration::ZERO, body.as_bytes())?;
    Ok(finish(queues, pending))
}

fn queues_of(bodies: &[&str]) -> Queues {
    let queues = Queues::in_memory(limits());
    for body in bodies {
        send(&queues, Q, body).unwrap();
    }
    queues
}

fn body(reserved: &Reserved) -> String {
    String::from_utf8(reserved.message.body.to_vec()).unwrap()
}

/// Receives and acknowledges everything.
fn all(queues: &Queues, queue: QueueName) -> Vec<String> {
    let next = || {
        let reserved = queues.reserve(queue)?;
        let body = body(&reserved);
        finish(queues, queues.ack(reserved));
        Some(body)
    };
    std::iter::from_fn(next).collect()
}

#[track_caller]
fn lease(queues: &Queues, lease: Duration) -> Token {
    queues.lease(Q, lease)
}

fn stats_of<R>(queues: &Queues, look: impl FnOnce(Totals, Vec<Figures>) -> R) -> R {
    let stats = queues.stats();
    look(stats.totals, stats.queues)
}

struct Waiting(std::sync::mpsc::SyncSender<()>);

impl Wake for Waiting {
    fn wake(&self) {
        let _ = self.0.try_send(());
    }
}

fn waiting() -> (Arc<dyn Wake>, std::sync::mpsc::Receiver<()>) {
    let (wake, woken) = std::sync::mpsc::sync_channel(1);
    (Arc::new(Waiting(wake)), woken)
}

fn receive() -> Operation {
    Operation::Receive(Receive::any(Handout::AtMostOnce))
}

/// Acts on a batch: a body to send, or nothing to receive. Tells the outcome of each.
fn run(queues: &Queues, queue: QueueName, requests: &[&str]) -> Vec<String> {
    let operation = |request: &&str| match *request {
        "" => receive(),
        body => Operation::Send(Message::plain(body.as_bytes()), Duration::ZERO),
    };
    let mut batch = requests.iter().map(operation).collect();
    let mut done = Vec::new();
    queues.run(queue, &mut batch, &mut done, usize::MAX);
    assert!(batch.is_empty());
    let shown = |outcome: Result<Outcome, QueueError>| match outcome {
        Ok(Outcome::Stored(id)) => id.to_string(),
        Ok(Outcome::Delivered(message, _)) => String::from_utf8(message.body.to_vec()).unwrap(),
        Ok(Outcome::Empty) => "-".to_owned(),
        Ok(other) => panic!("{other:?}"),
        Err(error) => format!("{error:?}"),
    };
    done.into_iter().map(shown).collect()
}

/// A database of one test.
enum Disk {
    Sqlite(tempfile::TempDir),
    #[cfg(feature = "postgres")]
    Postgres(testing::Database),
}

impl Disk {
    fn new() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    fn with(bodies: &[&str]) -> Self {
        let disk = Self::new();
        disk.fill(bodies);
        disk
    }

    /// One of each kind, with these messages.
    fn each(bodies: &[&str]) -> impl Iterator<Item = Self> {
        #[cfg(feature = "postgres")]
        let others = testing::Database::new().map(Self::Postgres);
        #[cfg(not(feature = "postgres"))]
        let others = None;
        let each = [Self::new()].into_iter().chain(others);
        each.inspect(|disk| {
            println!("on {}", disk.kind());
            disk.fill(bodies);
        })
    }

    /// Shown if the test fails.
    fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "SQLite",
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => "PostgreSQL",
        }
    }

    fn fill(&self, bodies: &[&str]) {
        let queues = self.open().unwrap();
        for body in bodies {
            send(&queues, Q, body).unwrap();
        }
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Sqlite(dir) => dir.path().join("queue.db"),
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => panic!("it is no file"),
        }
    }

    fn open(&self) -> Result<Queues, Box<dyn std::error::Error>> {
        let lost = || panic!("the disk failed");
        match self {
            Self::Sqlite(_) => Ok(Queues::open(&self.path(), limits(), Fsync::Always, lost)?),
            #[cfg(feature = "postgres")]
            Self::Postgres(database) => match Candidate::new(&database.url(), LONG)?.compete()? {
                Some(opened) => Ok(Queues::load(opened, limits(), lost)?),
                None => Err("another server leads".into()),
            },
        }
    }

    fn sql(&self, sql: &str) {
        match self {
            Self::Sqlite(_) => {
                let db = rusqlite::Connection::open(self.path()).unwrap();
                db.execute_batch(sql).unwrap();
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(database) => drop(database.sql(sql)),
        }
    }

    /// Makes the database refuse kinds of changes, and no others.
    fn refuse(&self, changes: &[&str]) {
        let mut sql = match self {
            Self::Sqlite(_) => {
                "DROP TRIGGER IF EXISTS refuse0; DROP TRIGGER IF EXISTS refuse1;".to_owned()
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => "
                DROP FUNCTION IF EXISTS refuse CASCADE;
                CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
                AS $$BEGIN RAISE 'refused'; END$$;"
                .to_owned(),
        };
        for (number, change) in changes.iter().enumerate() {
            sql += &match self {
                Self::Sqlite(_) => format!(
                    "CREATE TRIGGER refuse{number} BEFORE {change}
                     BEGIN SELECT RAISE(ABORT, 'refused'); END;"
                ),
                #[cfg(feature = "postgres")]
                Self::Postgres(_) => format!(
                    "CREATE TRIGGER refuse{number} BEFORE {change} FOR EACH ROW EXECUTE FUNCTION refuse();"
                ),
            };
        }
        self.sql(&sql);
    }
}

#[test]
fn first_in_first_out() {
    assert_eq!(all(&queues_of(&["a", "", "c"]), Q), ["a", "", "c"]);
}
