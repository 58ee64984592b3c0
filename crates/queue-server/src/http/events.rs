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

use super::rows::View;
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
    // The names and the rows that the browser has; of a row, its hash.
    let mut had: Vec<(Arc<str>, u64)> = Vec::new();
    let mut quiet_since = Instant::now();
    let mut is_first = true;
    loop {
        let rows = view.rows(&watched.recent()).rows;
        let mut has = Vec::with_capacity(rows.len());
        let mut changed = Vec::new();
        for row in &rows {
            let text = row.render();
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            let one = (Arc::clone(&row.name), hasher.finish());
            changed.push(had.get(has.len()) != Some(&one));
            has.push(one);
        }
        let are_same = had
            .iter()
            .map(|one| &one.0)
            .eq(has.iter().map(|one| &one.0));
        if is_first || !are_same {
            let all = rows.iter().map(|row| row.render());
            put("table", all, connection.output());
        } else if changed.contains(&true) {
            let changed = rows
                .iter()
                .zip(changed)
                .filter(|(_, is_changed)| *is_changed);
            put(
                "rows",
                changed.map(|(row, _)| row.render()),
                connection.output(),
            );
        } else if quiet_since.elapsed() >= HEARTBEAT {
            connection.write_all(b":\n\n")?;
        }
        is_first = false;
        if !connection.output().is_empty() {
            quiet_since = Instant::now();
        }
        had = has;
        match connection.wait(Instant::now() + INTERVAL)? {
            Waited::Woken | Waited::TimedOut => {}
            Waited::HungUp | Waited::Stopping => return Ok(()),
        }
    }
}

fn put(event: &str, rows: impl Iterator<Item = String>, out: &mut Vec<u8>) {
    // Writing to memory cannot fail.
    let _ = writeln!(out, "event: {event}");
    let mut is_empty = true;
    for row in rows {
        is_empty = false;
        // A line of an event ends at any of these.
        for line in row.split(['\r', '\n']) {
            let _ = writeln!(out, "data: {line}");
        }
    }
    // Without data there would be no event.
    if is_empty {
        out.extend_from_slice(b"data:\n");
    }
    out.push(b'\n');
}
