//! What the front door counts: connections, requests, latencies, bytes.
//!
//! Counting must cost next to nothing beside a request of a microsecond. So a [`Meter`] reads the clock
//! once for all requests that arrived together and once for all replies that leave together, and adds up
//! equal requests before it touches memory that other threads share. That memory is in several
//! [`Shard`]s, over which the connections are spread; they are summed up only when somebody asks.
//!
//! A request's latency is the time that the server takes, from the moment that all of it has arrived to
//! the moment that its reply is ready. The time in which it waits for its peer, or for a message in an
//! empty queue, is not the server's.

use std::array;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use proto::http::Status;
use proto::{KINDS, kind_name};

pub(crate) mod page;

/// The connections are spread over this many shards.
const SHARDS: usize = 16;

/// The upper bounds of the latencies' buckets, in seconds.
pub(crate) const LATENCY_BOUNDS: [f64; 14] = [
    0.000_025, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5,
    10.0,
];

/// The methods that are counted by name; any other is counted as [`OTHER`].
const METHODS: [&str; 9] = [
    "DELETE", "GET", "HEAD", "MKCOL", "MOVE", "OPTIONS", "PATCH", "POST", "PUT",
];

/// The name of what has none of its own.
const OTHER: &str = "other";

/// What a request of a text protocol is called.
const TEXT: &str = "text";

/// The requests of one connection that wait to be answered, at most; an older one is not counted.
const UNANSWERED_MAX: usize = 1024;

/// What a request asks, as far as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind(usize);

impl Kind {
    const METHOD_FIRST: usize = KINDS as usize;

    /// A frame that is no request.
    pub(crate) const OTHER_FRAME: Self = Self(0);

    /// A request of a text protocol.
    pub(crate) const TEXT: Self = Self(Self::METHOD_FIRST + METHODS.len() + 1);

    /// How many there are.
    const COUNT: usize = Self::TEXT.0 + 1;

    /// A framed request of this kind.
    pub(crate) fn frame(kind: u8) -> Self {
        match kind_name(kind) {
            Some(_) => Self(kind.into()),
            None => Self::OTHER_FRAME,
        }
    }

    /// An HTTP request with this method.
    pub(crate) fn http(method: &str) -> Self {
        let known = METHODS.iter().position(|known| *known == method);
        Self(Self::METHOD_FIRST + known.unwrap_or(METHODS.len()))
    }

    fn name(self) -> &'static str {
        if self == Self::TEXT {
            return TEXT;
        }
        match self.0.checked_sub(Self::METHOD_FIRST) {
            Some(method) => METHODS.get(method).copied().unwrap_or(OTHER),
            None => kind_name(self.0 as u8).unwrap_or(OTHER),
        }
    }

    fn is_http(self) -> bool {
        (Self::METHOD_FIRST..Self::TEXT.0).contains(&self.0)
    }
}

/// How a request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it was asked.
    Ok,
    /// With an error.
    Error,
    /// With this status of HTTP.
    Status(Status),
}

impl Outcome {
    /// How many there are of one kind.
    const COUNT: usize = 4;

    /// What a result is to the one who asked.
    pub fn of<T, E>(result: &Result<T, E>) -> Self {
        match result {
            Ok(_) => Self::Ok,
            Err(_) => Self::Error,
        }
    }

    /// The number of the outcome among those of its kind.
    fn number(self) -> usize {
        match self {
            Self::Ok => 0,
            Self::Error => 1,
            Self::Status(status) => usize::from(status.code() / 100).clamp(2, 5) - 2,
        }
    }

    fn name(kind: Kind, number: usize) -> &'static str {
        match kind.is_http() {
            true => ["2xx", "3xx", "4xx", "5xx"][number],
            false => ["ok", "error", OTHER, OTHER][number],
        }
    }
}

/// The counters that some of the connections share.
// On cache lines of its own, so that the shards do not slow each other down.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Shard {
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    latency_nanos: AtomicU64,
    /// Requests by latency; the last are those beyond all bounds.
    latencies: [AtomicU64; LATENCY_BOUNDS.len() + 1],
    requests: [[AtomicU64; Outcome::COUNT]; Kind::COUNT],
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            received_bytes: AtomicU64::default(),
            sent_bytes: AtomicU64::default(),
            latency_nanos: AtomicU64::default(),
            latencies: array::from_fn(|_| AtomicU64::default()),
            requests: array::from_fn(|_| array::from_fn(|_| AtomicU64::default())),
        }
    }
}

fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

impl Shard {
    pub(crate) fn received(&self, bytes: usize) {
        add(&self.received_bytes, bytes as u64);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        add(&self.sent_bytes, bytes as u64);
    }

    /// Counts one request that is answered now.
    pub(crate) fn answered(&self, asked: Asked, outcome: Outcome) {
        self.add_requests(asked.kind, outcome.number(), 1);
        self.add_latencies(asked.arrived, 1);
    }

    fn add_requests(&self, kind: Kind, outcome: usize, number: u64) {
        add(&self.requests[kind.0][outcome], number);
    }

    /// Counts that this many requests that arrived at this moment are answered now.
    fn add_latencies(&self, arrived: Instant, number: u64) {
        let latency = arrived.elapsed();
        let secs = latency.as_secs_f64();
        let bucket = LATENCY_BOUNDS.iter().take_while(|bound| **bound < secs);
        add(&self.latencies[bucket.count()], number);
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        add(&self.latency_nanos, nanos.saturating_mul(number));
    }
}

/// A request that is not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    kind: Kind,
    arrived: Instant,
}

impl Asked {
    /// A request that has arrived now.
    pub(crate) fn now(kind: Kind) -> Self {
        let arrived = Instant::now();
        Self { kind, arrived }
    }
}

/// What one connection counts.
pub(crate) struct Meter<'a> {
    shard: &'a Shard,
    /// When the input that is being worked on had arrived.
    arrived: Instant,
    /// The requests that are not answered yet, in their order.
    unanswered: VecDeque<Kind>,
    /// The kind and the outcome of the newest answers, and how many they are.
    same: Option<(Kind, usize, u64)>,
    /// How many were answered since the clock was read last.
    untimed: u64,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(shard: &'a Shard) -> Self {
        Self {
            shard,
            arrived: Instant::now(),
            unanswered: VecDeque::new(),
            same: None,
            untimed: 0,
        }
    }

    /// Input has arrived, or what the connection has waited for.
    pub(crate) fn arrived(&mut self) {
        self.arrived = Instant::now();
    }

    /// A request is begun.
    pub(crate) fn begin(&mut self, kind: Kind) {
        if self.unanswered.len() == UNANSWERED_MAX {
            self.unanswered.pop_front();
        }
        self.unanswered.push_back(kind);
    }

    /// The reply to the oldest request is left to somebody else.
    pub(crate) fn hand_over(&mut self) -> Option<Asked> {
        let kind = self.unanswered.pop_front()?;
        let arrived = self.arrived;
        Some(Asked { kind, arrived })
    }

    /// The oldest request is answered, if there is one.
    pub(crate) fn answered(&mut self, outcome: Outcome) {
        let Some(kind) = self.unanswered.pop_front() else {
            return;
        };
        self.untimed += 1;
        let outcome = outcome.number();
        match &mut self.same {
            Some((same_kind, same_outcome, number))
                if *same_kind == kind && *same_outcome == outcome =>
            {
                *number += 1;
            }
            other => {
                if let Some((kind, outcome, number)) = other.replace((kind, outcome, 1)) {
                    self.shard.add_requests(kind, outcome, number);
                }
            }
        }
    }

    /// Counts what was answered, because it is sent now.
    pub(crate) fn flush(&mut self) {
        if let Some((kind, outcome, number)) = self.same.take() {
            self.shard.add_requests(kind, outcome, number);
            self.shard
                .add_latencies(self.arrived, std::mem::take(&mut self.untimed));
        }
    }
}

impl Drop for Meter<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

/// All counters of one server.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) evicted: AtomicU64,
    pub(crate) logins_failed: AtomicU64,
    shards: [Shard; SHARDS],
}

/// What all shards have counted so far.
pub(crate) struct Sums {
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) latency_secs: f64,
    /// Beside [`LATENCY_BOUNDS`], and one more.
    pub(crate) latencies: Vec<u64>,
    /// By kind and outcome, without those that never came.
    pub(crate) requests: Vec<([&'static str; 2], u64)>,
}

impl Metrics {
    /// Where the connection with this number counts.
    pub(crate) fn shard(&self, connection: u64) -> &Shard {
        &self.shards[connection as usize % SHARDS]
    }

    /// Counts one more.
    pub(crate) fn count(counter: &AtomicU64) {
        add(counter, 1);
    }

    /// What was counted so far.
    pub(crate) fn sums(&self) -> Sums {
        let sum = |of: &dyn Fn(&Shard) -> &AtomicU64| {
            let counters = self.shards.iter().map(of);
            counters
                .map(|counter| counter.load(Ordering::Relaxed))
                .sum()
        };
        let latency = |bucket: usize| sum(&|shard| &shard.latencies[bucket]);
        let requests = |kind: Kind, outcome: usize| {
            let labels = [kind.name(), Outcome::name(kind, outcome)];
            (labels, sum(&|shard| &shard.requests[kind.0][outcome]))
        };
        let outcomes = |kind| (0..Outcome::COUNT).map(move |outcome| requests(Kind(kind), outcome));
        let all = (0..Kind::COUNT).flat_map(outcomes);
        Sums {
            received_bytes: sum(&|shard| &shard.received_bytes),
            sent_bytes: sum(&|shard| &shard.sent_bytes),
            latency_secs: sum(&|shard| &shard.latency_nanos) as f64 / 1e9,
            latencies: (0..=LATENCY_BOUNDS.len()).map(latency).collect(),
            requests: all.filter(|(_, number)| *number > 0).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_kind_and_outcome() {
        let metrics = Metrics::default();
        let mut first = Meter::new(metrics.shard(1));
        let mut other = Meter::new(metrics.shard(1 + SHARDS as u64));
        for kind in [0x01, 0x01, 0x02, 0x3f] {
            first.begin(Kind::frame(kind));
        }
        for outcome in [Outcome::Ok, Outcome::Ok, Outcome::Error, Outcome::Error] {
            first.answered(outcome);
        }
        first.answered(Outcome::Ok);
        other.begin(Kind::http("GET"));
        other.answered(Outcome::Status(Status::NotFound));
        other.begin(Kind::http("BREW"));
        let later = other.hand_over().unwrap();
        assert!(metrics.sums().latencies.iter().all(|number| *number == 0));
        first.flush();
        drop(other);
        metrics
            .shard(2)
            .answered(later, Outcome::Status(Status::Ok));
        metrics.shard(3).received(3);
        metrics.shard(4).received(4);
        metrics.shard(4).sent(5);
        let sums = metrics.sums();
        let want = [
            (["other", "error"], 1),
            (["Send", "ok"], 2),
            (["Receive", "error"], 1),
            (["GET", "4xx"], 1),
            (["other", "2xx"], 1),
        ];
        assert_eq!(sums.requests, want);
        assert_eq!(sums.latencies.iter().sum::<u64>(), 6);
        assert_eq!((sums.received_bytes, sums.sent_bytes), (7, 5));
    }

    #[test]
    fn requests_that_nobody_answers_are_not_kept_for_ever() {
        let metrics = Metrics::default();
        let mut meter = Meter::new(metrics.shard(0));
        for _ in 0..2 * UNANSWERED_MAX {
            meter.begin(Kind::TEXT);
        }
        assert_eq!(meter.unanswered.len(), UNANSWERED_MAX);
    }
}
