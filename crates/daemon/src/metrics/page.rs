//! The page that `/metrics` replies with: the front door's counters and the service's own figures, as
//! Prometheus reads them (OpenMetrics 1.0, text format).

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{self, Unit};

use super::LATENCY_BOUNDS;
use crate::registry::Registry;

/// The type of the page.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The figures of a service, beside those of its front door.
pub trait Figures: Send + Sync + 'static {
    /// Adds them to the page.
    ///
    /// # Errors
    /// Those of the page.
    fn add_to(&self, page: &mut Page) -> fmt::Result;
}

/// A service that has none.
impl Figures for () {
    fn add_to(&self, _page: &mut Page) -> fmt::Result {
        Ok(())
    }
}

/// A page of metrics. A name ends with `_bytes` or `_seconds` if that is its unit. A counter's gets
/// `_total` behind it. `help` is one sentence, without its full stop.
pub struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    /// Adds a number that only grows.
    ///
    /// # Errors
    /// Those of the page, here and below.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.metric(name, help, &ConstCounter::new(value))
    }

    /// Adds a number that grows and shrinks.
    pub fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.metric(name, help, &ConstGauge::new(value))
    }

    /// Adds a metric.
    pub fn metric(&mut self, name: &str, help: &str, metric: &impl EncodeMetric) -> fmt::Result {
        let (name, unit) = split_unit(name);
        let encoder =
            (self.0).encode_descriptor(name, help, unit.as_ref(), metric.metric_type())?;
        metric.encode(encoder)
    }

    /// Adds numbers that only grow, told apart by labels.
    pub fn counters<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        rows: impl IntoIterator<Item = ([&'l str; N], u64)>,
    ) -> fmt::Result {
        let rows = rows.into_iter().map(|(of, n)| (of, ConstCounter::new(n)));
        self.family::<ConstCounter<u64>, N>(name, help, MetricType::Counter, labels, rows)
    }

    /// Adds numbers that grow and shrink, told apart by labels.
    pub fn gauges<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        rows: impl IntoIterator<Item = ([&'l str; N], f64)>,
    ) -> fmt::Result {
        let rows = rows.into_iter().map(|(of, n)| (of, ConstGauge::new(n)));
        self.family::<ConstGauge<f64>, N>(name, help, MetricType::Gauge, labels, rows)
    }

    /// Adds what was measured of the commits of each store: how many changes they had, and how long they
    /// took.
    pub fn commits<M: EncodeMetric>(&mut self, stores: &[(&str, &M, &M)]) -> fmt::Result {
        let changes = stores
            .iter()
            .map(|(store, changes, _)| ([*store], *changes));
        let help = "Changes that one commit made durable together";
        let histogram = MetricType::Histogram;
        self.family::<M, 1>(
            "quartet_commit_changes",
            help,
            histogram,
            ["store"],
            changes,
        )?;
        let seconds = stores
            .iter()
            .map(|(store, _, seconds)| ([*store], *seconds));
        let help = "How long one commit took, with its sync";
        self.family::<M, 1>(
            "quartet_commit_seconds",
            help,
            histogram,
            ["store"],
            seconds,
        )
    }

    fn family<'l, M: EncodeMetric, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        metric_type: MetricType,
        labels: [&str; N],
        rows: impl Iterator<Item = ([&'l str; N], impl Borrow<M>)>,
    ) -> fmt::Result {
        let (name, unit) = split_unit(name);
        let mut encoder = (self.0).encode_descriptor(name, help, unit.as_ref(), metric_type)?;
        for (values, metric) in rows {
            let labels: [_; N] = std::array::from_fn(|at| (labels[at], values[at]));
            metric.borrow().encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// Splits the unit off a name.
fn split_unit(name: &str) -> (&str, Option<Unit>) {
    let split = |unit: Unit| {
        let name = name.strip_suffix(unit.as_str())?.strip_suffix('_')?;
        Some((name, Some(unit)))
    };
    split(Unit::Bytes)
        .or_else(|| split(Unit::Seconds))
        .unwrap_or((name, None))
}

/// Numbers that were put into buckets.
struct Buckets {
    sum: f64,
    buckets: Vec<(f64, u64)>,
}

impl EncodeMetric for Buckets {
    fn encode(&self, mut encoder: prometheus_client::encoding::MetricEncoder) -> fmt::Result {
        let count = self.buckets.iter().map(|(_, number)| number).sum();
        encoder.encode_histogram::<NoLabelSet>(self.sum, count, &self.buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// What a page is made of.
pub(crate) struct Sources {
    pub(crate) registry: Arc<Registry>,
    pub(crate) figures: Arc<dyn Figures>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sources")
    }
}

impl Sources {
    /// The page as it is now.
    pub(crate) fn page(self) -> Result<String, fmt::Error> {
        let mut registry = registry::Registry::default();
        registry.register_collector(Box::new(self));
        let mut page = String::new();
        text::encode(&mut page, &registry)?;
        Ok(page)
    }

    fn add_front_door(&self, page: &mut Page) -> fmt::Result {
        let (registry, metrics) = (&self.registry, &self.registry.metrics);
        let get = |counter: &std::sync::atomic::AtomicU64| {
            counter.load(std::sync::atomic::Ordering::Relaxed)
        };
        let (open, max) = (registry.open() as u64, registry.connections_max() as u64);
        let sums = metrics.sums();
        page.gauge("quartet_connections_open", "Connections open now", open)?;
        let help = "Connections that may be open (--max-connections)";
        page.gauge("quartet_connections_max", help, max)?;
        let (name, help) = ("quartet_connections_accepted", "Connections accepted");
        page.counter(name, help, get(&metrics.accepted))?;
        let help = "Connections refused because too many were open";
        page.counter("quartet_connections_refused", help, get(&metrics.refused))?;
        let help = "Connections ended to make room for others";
        page.counter("quartet_connections_evicted", help, get(&metrics.evicted))?;
        let help = "Logins with a wrong user or password";
        page.counter("quartet_logins_failed", help, get(&metrics.logins_failed))?;
        let help = "Requests answered, by kind of frame or method of HTTP, and outcome";
        let labels = ["kind", "outcome"];
        page.counters("quartet_requests", help, labels, sums.requests)?;
        let bounds = LATENCY_BOUNDS.into_iter().chain([f64::MAX]);
        let latencies = Buckets {
            sum: sums.latency_secs,
            buckets: bounds.zip(sums.latencies).collect(),
        };
        let help = "From the end of a request to the start of its reply, without any wait for the peer or for a message";
        page.metric("quartet_request_seconds", help, &latencies)?;
        let (name, help) = ("quartet_received_bytes", "Bytes received from clients");
        page.counter(name, help, sums.received_bytes)?;
        page.counter(
            "quartet_sent_bytes",
            "Bytes sent to clients",
            sums.sent_bytes,
        )
    }
}

impl Collector for Sources {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Page(encoder);
        self.add_front_door(&mut page)?;
        self.figures.add_to(&mut page)
    }
}
