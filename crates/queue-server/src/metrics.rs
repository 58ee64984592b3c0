//! What `/metrics` tells of the queues.

use std::fmt;
use std::sync::Arc;

use daemon::Page;

use crate::queues::{Figures, Queues};

/// The most queues that are told by name. The rest are summed up.
const QUEUES_MAX: usize = 1000;

/// The name of the rest, which no queue can have.
const REST: &str = "(other)";

/// The queues' figures.
pub(crate) struct QueueFigures(pub(crate) Arc<Queues>);

/// A figure of one queue that makes sense as a sum.
type Figure = fn(&Figures) -> usize;

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
        match self.0.commit_figures() {
            Some(figures) => page.commits(&[("queues", &figures.changes, &figures.seconds)]),
            None => Ok(()),
        }
    }
}

impl QueueFigures {
    /// Adds the figures of each queue. They are sorted by name.
    fn add_queues(&self, queues: &[Figures], page: &mut Page) -> fmt::Result {
        let (named, rest) = queues.split_at(queues.len().min(QUEUES_MAX));
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
        // The oldest of all the rest.
        let oldest = rest.iter().map(|queue| queue.oldest_millis).max();
        let oldest = named
            .iter()
            .map(|queue| (&*queue.name, queue.oldest_millis))
            .chain(oldest.map(|millis| (REST, millis)))
            .map(|(name, millis)| ([name], millis as f64 / 1000.0));
        let help = "How long the oldest ready message has been in its queue";
        page.gauges("quartet_queue_oldest_seconds", help, ["queue"], oldest)
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
