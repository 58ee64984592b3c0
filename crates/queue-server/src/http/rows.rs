//! Queues and messages as rows of a table.

use std::sync::Arc;

use askama::Template;
use cli::escape::{EscapedBytes, show_text};
use daemon::http::{Parameters, query};
use proto::http::{Refusal, RequestHead};
use proto::queue::{MessageState, QueueName, Reply};

use super::asked::bad;
use super::route::Route;
use crate::queues::{Figures, Stats};

/// The most queues on a page.
const QUEUES_MAX: usize = 100;

/// How much of a body a row shows, in bytes.
const BODY_BYTES: usize = 200;

/// The longest part of a name that is searched for, in bytes.
const PART_BYTES_MAX: usize = 128;

/// Which queues a table shows.
pub(super) struct View {
    /// Those with this in their names.
    pub(super) part: String,
    /// From this name on.
    pub(super) from: String,
    /// One alone, if it is not empty.
    pub(super) queue: String,
}

/// What a table shows.
pub(super) struct Shown {
    pub(super) rows: Vec<QueueRow>,
    /// The name of the next one, if there are more.
    pub(super) next: Option<Arc<str>>,
}

impl View {
    /// What a query asks for.
    ///
    /// # Errors
    /// If it is none.
    pub(super) fn of(request: &RequestHead, route: &Route) -> Result<Self, Refusal> {
        Self::of_parameters(&Parameters::of_query(request, route.row.query)?)
    }

    pub(super) fn of_parameters(parameters: &Parameters) -> Result<Self, Refusal> {
        let get = |name| match parameters.get(name) {
            word if word.len() > PART_BYTES_MAX => {
                Err(bad(format!("{name} exceeds {PART_BYTES_MAX} bytes")))
            }
            word => Ok(word.to_owned()),
        };
        Ok(Self {
            part: get("q")?,
            from: get("from")?,
            queue: get("queue")?,
        })
    }

    /// The query that asks for this, from a name on.
    pub(super) fn link(&self, from: &str) -> String {
        query(&[("q", &self.part), ("from", from), ("queue", &self.queue)])
    }

    /// The rows of these queues. Dead letters are in the row of their queue.
    pub(super) fn rows(&self, stats: &Stats) -> Shown {
        let queues = &stats.queues;
        let named = |name: &str| queues.binary_search_by(|one| (*one.name).cmp(name));
        let start = named(&self.from).unwrap_or_else(|at| at);
        let is_shown = |one: &&Figures| {
            if !self.queue.is_empty() {
                return *one.name == *self.queue;
            }
            let of = one.name.strip_suffix(QueueName::DEAD_SUFFIX);
            one.name.contains(&self.part) && of.is_none_or(|name| named(name).is_err())
        };
        let mut found = queues[start..].iter().filter(is_shown);
        let rows = found.by_ref().take(QUEUES_MAX).map(QueueRow::of).collect();
        let next = found.next().map(|one| Arc::clone(&one.name));
        Shown { rows, next }
    }
}

/// The row of a queue.
#[derive(Template, Hash)]
#[template(path = "queue_row.html")]
pub(super) struct QueueRow {
    pub(super) name: Arc<str>,
    pub(super) ready: usize,
    pub(super) reserved: usize,
    pub(super) delayed: usize,
    pub(super) dead: usize,
    waiters: usize,
    oldest: String,
    oldest_reserved: String,
    pub(super) is_paused: bool,
}

impl QueueRow {
    fn of(figures: &Figures) -> Self {
        let age = |count: usize, millis| match count {
            0 => String::new(),
            1.. => shown_age(millis),
        };
        Self {
            name: Arc::clone(&figures.name),
            ready: figures.ready,
            reserved: figures.reserved,
            delayed: figures.delayed,
            dead: figures.dead_letters,
            waiters: figures.waiters,
            oldest: age(figures.ready, figures.oldest_millis),
            oldest_reserved: age(figures.reserved, figures.oldest_reserved_millis),
            is_paused: figures.is_paused,
        }
    }

    /// The row as HTML.
    pub(super) fn render(&self) -> String {
        Template::render(self).unwrap_or_else(|error| {
            log::error!("Cannot make a row: {error}");
            String::new()
        })
    }
}

/// The row of a message.
pub(super) struct MessageRow {
    pub(super) id: u64,
    pub(super) position: u64,
    /// `dead` if it is among the dead letters.
    pub(super) state: &'static str,
    pub(super) age: String,
    pub(super) attempts: u32,
    pub(super) priority: u8,
    pub(super) key: String,
    pub(super) holder: String,
    pub(super) expires: String,
    pub(super) reason: String,
    pub(super) body: String,
    pub(super) body_bytes: usize,
    pub(super) is_cut: bool,
}

impl MessageRow {
    /// The row of what was looked at.
    pub(super) fn of(peeked: &Reply) -> Option<Self> {
        let Reply::Peeked {
            queue,
            position,
            state,
            holder,
            id,
            attempts,
            age_millis,
            properties,
            reason,
            body,
        } = peeked
        else {
            return None;
        };
        let left = |millis: u32| shown_age(millis.into());
        let state_shown = match state {
            _ if queue.is_dead() => "dead",
            MessageState::Ready => "ready",
            MessageState::Reserved => "reserved",
            MessageState::Delayed => "delayed",
        };
        Some(Self {
            id: *id,
            position: *position,
            state: state_shown,
            age: match state {
                MessageState::Delayed => format!("ready in {}", left(properties.delay_millis)),
                MessageState::Ready | MessageState::Reserved => shown_age(*age_millis),
            },
            attempts: *attempts,
            priority: properties.priority.get(),
            key: properties.key.map_or("", |key| key.as_str()).to_owned(),
            holder: match (holder.id, holder.lease_millis) {
                (_, millis @ 1..) => format!("lease, {} left", left(millis)),
                (1.., 0) => format!("connection {} of {}", holder.id, holder.peer.0),
                (0, 0) => String::new(),
            },
            expires: match properties.expiry_millis {
                0 => String::new(),
                millis => left(millis),
            },
            reason: {
                let mut shown = String::new();
                show_text(&mut shown, reason.as_str().trim_end());
                shown
            },
            body: EscapedBytes {
                // What ends a line shows nothing.
                bytes: body.strip_suffix(b"\n").unwrap_or(body),
                bytes_max: BODY_BYTES,
            }
            .to_string(),
            body_bytes: body.len(),
            is_cut: body.len() > BODY_BYTES,
        })
    }

    pub(super) fn is_dead(&self) -> bool {
        self.state == "dead"
    }

    pub(super) fn can_kick(&self) -> bool {
        self.is_dead() || self.state == "delayed"
    }

    pub(super) fn is_reserved(&self) -> bool {
        self.state == "reserved"
    }
}

/// A time in its largest unit, rounded down.
fn shown_age(millis: u64) -> String {
    let secs = millis / 1000;
    match secs {
        0..60 => format!("{secs} s"),
        60..3600 => format!("{} min", secs / 60),
        3600..172_800 => format!("{} h", secs / 3600),
        172_800.. => format!("{} d", secs / 86_400),
    }
}
