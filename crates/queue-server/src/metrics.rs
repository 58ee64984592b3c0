//! What `/metrics` tells of the queues.

use std::fmt;
use std::sync::Arc;

use daemon::Page;

use crate::queues::{Figures, Queues};
use crate::totals::{NAMED_MAX, REST};

/// The queues' figures.
pub(crate) struct QueueFigures(pub(crate) Arc<Queues>);

/// A figure of one queue that makes sense as a sum.
type Figure = fn(&Figures) -> usize;

/// An age in milliseconds.
type Age = fn(&Figures) -> u64;

/// The names of what is counted in each queue, in the order of [`Counts::to_array`](crate::totals::Counts::to_array).
const COUNTS: [(&str, &str); 5] = [
    ("quartet_queue_messages_sent", "Messages sent to a queue"),
    (
        "quartet_queue_messages_acked",
        "Messages of a queue that were acknowledged, or delivered at most once",
    ),
    (
        "quartet_queue_attempts_failed",
        "Attempts with messages of a queue that ended without an acknowledgement, and count",
    ),
    (
        "quartet_queue_messages_died",
        "Messages of a queue that became dead letters",
    ),
    (
        "quartet_queue_messages_expired",
        "Messages of a queue that became dead letters because nobody received them in time",
    ),
];

impl daemon::Figures for QueueFigures {
    fn add_to(&self, page: &mut Page) -> fmt::Result {
        let stats = self.0.stats();
        let totals = stats.totals;
        for (name, help, value) in [
            ("quartet_queue_sent", "Messages sent", totals.sent),
            (
                "quartet_queue_received",
                "Messages handed out, each as often as it was",
                totals.received,
            ),
            (
                "quartet_queue_acked",
                "Messages acknowledged, or delivered at most once",
                totals.acked,
            ),
            (
                "quartet_queue_released",
                "Messages released on purpose",
                totals.released,
            ),
            (
                "quartet_queue_requeued",
                "Messages requeued because a connection ended or a lease expired",
                totals.requeued,
            ),
            (
                "quartet_queue_dead_lettered",
                "Messages that became dead letters",
                totals.dead_lettered,
            ),
        ] {
            page.counter(name, help, value)?;
        }
        let help = "Memory that all messages take";
        page.gauge("quartet_queue_memory_bytes", help, totals.memory_bytes)?;
        let help = "Memory that all messages may take (--max-memory)";
        page.gauge(
            "quartet_queue_memory_max_bytes",
            help,
            totals.memory_bytes_max,
        )?;
        let help = "Whether new messages are refused (1 or 0)";
        page.gauge("quartet_queue_draining", help, totals.is_draining.into())?;
        page.gauge(
            "quartet_queues",
            "Queues there are",
            stats.queues.len() as u64,
        )?;
        self.add_queues(&stats.queues, page)?;
        self.add_counts(page)?;
        match self.0.commit_figures() {
            Some(figures) => page.commits(&[("queues", &figures.changes, &figures.seconds)]),
            None => Ok(()),
        }
    }
}

impl QueueFigures {
    /// Adds the figures of each queue. They are sorted by name.
    fn add_queues(&self, queues: &[Figures], page: &mut Page) -> fmt::Result {
        // The rest are summed up.
        let (named, rest) = queues.split_at(queues.len().min(NAMED_MAX));
        let states: [(&str, Figure); 3] = [
            ("ready", |queue| queue.ready),
            ("delayed", |queue| queue.delayed),
            ("reserved", |queue| queue.reserved),
        ];
        let messages = states.iter().flat_map(|(state, figure)| {
            rows(named, rest, *figure).map(|(name, sum)| ([name, *state], sum))
        });
        let help = "Messages in a queue, by state";
        page.gauges("quartet_queue_messages", help, ["queue", "state"], messages)?;
        let sums: [(&str, &str, Figure); 3] = [
            (
                "quartet_queue_dead_letters",
                "Dead letters of a queue, which are the messages of the queue NAME.dead",
                |queue| queue.dead_letters,
            ),
            (
                "quartet_queue_waiters",
                "Receivers that wait for a message",
                |queue| queue.waiters,
            ),
            (
                "quartet_queue_paused",
                "Whether a queue is paused (1 or 0)",
                |queue| queue.is_paused.into(),
            ),
        ];
        for (name, help, figure) in sums {
            let rows = rows(named, rest, figure).map(|(name, sum)| ([name], sum));
            page.gauges(name, help, ["queue"], rows)?;
        }
        let ages: [(&str, &str, Age); 2] = [
            (
                "quartet_queue_oldest_seconds",
                "How long the oldest ready message has been in its queue",
                |queue| queue.oldest_millis,
            ),
            (
                "quartet_queue_oldest_reserved_seconds",
                "How long the oldest reserved message has been in its queue",
                |queue| queue.oldest_reserved_millis,
            ),
        ];
        for (name, help, age) in ages {
            // The oldest of all the rest.
            let oldest = rest.iter().map(age).max();
            let oldest = named
                .iter()
                .map(|queue| (&*queue.name, age(queue)))
                .chain(oldest.map(|millis| (REST, millis)))
                .map(|(name, millis)| ([name], millis as f64 / 1000.0));
            page.gauges(name, help, ["queue"], oldest)?;
        }
        Ok(())
    }

    /// Adds what happened in each queue since it was first used, also in those that are not there any more.
    fn add_counts(&self, page: &mut Page) -> fmt::Result {
        let counts = self.0.counts();
        for (at, (name, help)) in COUNTS.into_iter().enumerate() {
            let rows = counts
                .iter()
                .map(|(queue, counts)| ([&**queue], counts.to_array()[at]));
            page.counters(name, help, ["queue"], rows)?;
        }
        Ok(())
    }
}

/// A figure of each of these queues, and the sum of the rest.
fn rows<'q>(
    named: &'q [Figures],
    rest: &[Figures],
    figure: Figure,
) -> impl Iterator<Item = (&'q str, f64)> {
    let sum = rest.iter().map(figure).sum::<usize>();
    let sum = (!rest.is_empty()).then_some((REST, sum as f64));
    let named = named
        .iter()
        .map(move |queue| (&*queue.name, figure(queue) as f64));
    named.chain(sum)
}
