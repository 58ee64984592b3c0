//! The numbers of queues as they change, as server-sent events (WHATWG HTML, "Server-sent events"): the rows
//! of a table that have changed, or all of them if there are others.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use daemon::http::page::with_always;
use daemon::http::{Content, Live, Response};
use daemon::{Connection, Waited, lock};
use proto::http::Status;

use super::rows::{QueueRow, View};
use crate::queues::{Queues, Stats};

/// How often one looks for changes. However many look, the figures are made once.
const INTERVAL: Duration = Duration::from_secs(1);

/// If nothing was sent for this long, an empty comment is. It shows the browser that the server is there,
/// and the server that the browser is.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// The figures of all queues, as many look at them.
pub(super) struct Watched {
    queues: Arc<Queues>,
    latest: Mutex<Option<(Instant, Arc<Stats>)>>,
}

impl Watched {
    pub(super) fn new(queues: &Arc<Queues>) -> Self {
        Self {
            queues: Arc::clone(queues),
            latest: Mutex::new(None),
        }
    }

    /// The figures of now.
    pub(super) fn fresh(&self) -> Arc<Stats> {
        self.made_after(Instant::now())
    }

    /// Figures that are not older than what one looks at.
    fn recent(&self) -> Arc<Stats> {
        let now = Instant::now();
        self.made_after(now.checked_sub(INTERVAL / 2).unwrap_or(now))
    }

    /// Figures that were made after this. They are made by one at a time.
    fn made_after(&self, earliest: Instant) -> Arc<Stats> {
        let mut latest = lock(&self.latest);
        match &*latest {
            Some((made, stats)) if *made >= earliest => Arc::clone(stats),
            Some(_) | None => {
                let stats = Arc::new(self.queues.stats());
                *latest = Some((Instant::now(), Arc::clone(&stats)));
                stats
            }
        }
    }
}

/// The reply that follows a table.
pub(super) fn follow(watched: &Arc<Watched>, view: View) -> Response {
    let watched = Arc::clone(watched);
    let write = move |connection: &mut Connection<'_>| send(&watched, &view, connection);
    with_always(Response {
        body: Content::Live(Live::new(write)),
        ..Response::new(Status::Ok, "text/event-stream", "")
    })
}

/// Sends rows until the browser hangs up, or the server stops.
fn send(watched: &Watched, view: &View, connection: &mut Connection) -> io::Result<()> {
    connection.send_without_end();
    // The names of the rows that the browser has, and a hash of each row.
    let mut had: Option<Vec<(Arc<str>, u64)>> = None;
    let mut quiet_since = Instant::now();
    loop {
        let rows = view.rows(&watched.recent()).rows;
        let has: Vec<_> = rows
            .iter()
            .map(|row| (Arc::clone(&row.name), hash(row)))
            .collect();
        let names =
            |all: &[(Arc<str>, u64)]| -> Vec<_> { all.iter().map(|one| one.0.clone()).collect() };
        let is_changed = match &had {
            Some(had) if names(had) == names(&has) => {
                let changed = had.iter().zip(&has).map(|(had, has)| had != has);
                let changed: Vec<_> = rows.iter().zip(changed).filter(|(_, is)| *is).collect();
                if !changed.is_empty() {
                    put("rows", changed.iter().map(|(row, _)| *row), connection)?;
                }
                !changed.is_empty()
            }
            Some(_) | None => {
                put("table", rows.iter(), connection)?;
                true
            }
        };
        had = Some(has);
        if is_changed {
            quiet_since = Instant::now();
        } else if quiet_since.elapsed() >= HEARTBEAT {
            connection.write_all(b":\n\n")?;
            quiet_since = Instant::now();
        }
        drop(rows);
        match connection.wait(Instant::now() + INTERVAL)? {
            Waited::Woken | Waited::TimedOut => {}
            Waited::HungUp | Waited::Stopping => return Ok(()),
        }
    }
}

fn hash(row: &QueueRow) -> u64 {
    let mut hasher = DefaultHasher::new();
    row.hash(&mut hasher);
    hasher.finish()
}

/// Writes an event, a row after the other.
fn put<'r>(
    event: &str,
    rows: impl Iterator<Item = &'r QueueRow>,
    connection: &mut Connection,
) -> io::Result<()> {
    writeln!(connection, "event: {event}")?;
    let mut is_empty = true;
    for row in rows {
        is_empty = false;
        // A line of an event ends at any of these.
        for line in row.render().split(['\r', '\n']) {
            writeln!(connection, "data: {line}")?;
        }
    }
    // Without data there would be no event.
    if is_empty {
        writeln!(connection, "data:")?;
    }
    writeln!(connection)
}
