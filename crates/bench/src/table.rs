//! From samples to medians, and from medians to a Markdown table.

use std::fmt;

use crate::contestant::Sample;
use crate::error::Error;
use crate::load::latencies;
use crate::rows::{Bar, Row};

/// The samples of both sides of a row, ours first, one a round; theirs are none without another side.
pub type Measured = [Vec<Sample>; 2];

/// Whether a bar was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was.
    Met,
    /// It was not.
    Missed,
    /// There is no result, and that is no failure.
    Skipped,
    /// There is no result.
    Failed,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Met => "met",
            Self::Missed => "**MISSED**",
            Self::Skipped => "skipped",
            Self::Failed => "**FAILED**",
        })
    }
}

/// The middle of some numbers, and how far they spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [median, min, max] = [self.median, self.min, self.max].map(short);
        write!(f, "{median} ({min}–{max})")
    }
}

impl Spread {
    /// `None` of no numbers.
    pub fn of(numbers: impl Iterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = numbers.collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            1 => sorted[middle],
            _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
        };
        Some(Self { median, min, max })
    }
}

/// The first two lines of the table.
pub const HEAD: &str = "\
| what: against what | connections × in flight | bar | median (min–max) | ops/s ours / theirs \
| p50 / p99 ours | p50 / p99 theirs | |
|---|---|---|---|---|---|---|---|
";

/// What stands below the table.
pub const NOTES: &str = "\
Ours and theirs take turns, with the same load generator on the same machine: each of its threads drives
its share of the connections by epoll. The ratio is that of each pair of rounds; the other figures are
medians over the rounds, latencies over all of them. A send is an operation, and so is a receive;
beanstalkd's `reserve` and `delete` together are one, like our at-most-once receive, or our receive and ack.
With 16 in flight, 16 sends leave with one write, and when all are answered, 16 receives. The jobs in
PostgreSQL are driven by pgbench, one transaction a job on each connection. For the large transfers an
operation is a megabyte. nginx runs without a cache of open files; ours keeps small ones. Every reply is
checked to the byte, except for an HTTP date and the large files, whose length is; lines that should be on
the disk are counted there.
";

/// The line of a row, and the verdict.
pub fn line(row: &Row, result: &Result<Measured, Error>) -> (String, Verdict) {
    let bar = match row.bar {
        Bar::Ratio(at_least) => format!("≥ {at_least}"),
        Bar::AtMost(most, unit) => format!("≤ {most} {unit}"),
    };
    let (cells, verdict) = match result {
        Ok(measured) => cells(row.bar, measured),
        Err(error) => {
            let (text, verdict) = why_not(error);
            (format!("{text} | | |"), verdict)
        }
    };
    let (name, load) = (row.name(), load(row));
    let text = format!("| {name} | {load} | {bar} | {cells} | {verdict} |\n");
    (text, verdict)
}

/// The connections, and the requests in flight on each.
pub fn load(row: &Row) -> String {
    format!("{} × {}", thousands(row.clients.0 as f64), row.clients.1)
}

/// Why there is no result, and the verdict on that.
pub fn why_not(error: &Error) -> (String, Verdict) {
    let text = cli::exit::with_causes(error)
        .replace('|', "\\|")
        .replace('\n', " ");
    match error.is_skip() {
        true => (format!("skipped: {text}"), Verdict::Skipped),
        false => (format!("failed: {text}"), Verdict::Failed),
    }
}

fn cells(bar: Bar, measured: &Measured) -> (String, Verdict) {
    let [ours, theirs] = measured;
    let ratios = ours
        .iter()
        .zip(theirs)
        .map(|(ours, theirs)| ours.value / theirs.value);
    let values = |side: &[Sample]| Spread::of(side.iter().map(|sample| sample.value));
    let median = |side| values(side).map_or("–".to_owned(), |spread| thousands(spread.median));
    let (spread, unit, rates) = match bar {
        Bar::Ratio(_) => {
            let rates = format!("{} / {}", median(ours), median(theirs));
            (Spread::of(ratios), "", rates)
        }
        Bar::AtMost(_, unit) => (values(ours), unit, "–".to_owned()),
    };
    let Some(spread) = spread else {
        return ("no figures | | |".to_owned(), Verdict::Failed);
    };
    let is_met = match bar {
        Bar::Ratio(at_least) => spread.median >= at_least,
        Bar::AtMost(most, _) => spread.max <= most,
    };
    let verdict = if is_met {
        Verdict::Met
    } else {
        Verdict::Missed
    };
    let times = [ours, theirs].map(|side| percentiles(side));
    let spread = format!("{spread} {unit}");
    let cells = [spread.trim_end(), &rates, &times[0], &times[1]].join(" | ");
    (cells, verdict)
}

/// Over all rounds of a side.
fn percentiles(side: &[Sample]) -> String {
    let mut all = latencies();
    for times in side
        .iter()
        .filter_map(|sample| sample.latency_nanos.as_ref())
    {
        all += times;
    }
    if all.is_empty() {
        return "–".to_owned();
    }
    let micros = |quantile| short(all.value_at_quantile(quantile) as f64 / 1000.0);
    format!("{} / {} µs", micros(0.5), micros(0.99))
}

/// A number with three digits that mean something.
fn short(number: f64) -> String {
    match number.abs() {
        100.0.. => thousands(number),
        10.0.. => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

/// A whole number in groups of three: 1,234,567.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_spread(numbers: &[f64], want: Option<(f64, f64, f64)>) {
        let got = Spread::of(numbers.iter().copied());
        let want = want.map(|(min, median, max)| Spread { median, min, max });
        assert_eq!(got, want);
    }

    #[test]
    fn medians() {
        check_spread(&[], None);
        check_spread(&[2.0], Some((2.0, 2.0, 2.0)));
        check_spread(&[3.0, 1.0, 9.0], Some((1.0, 3.0, 9.0)));
        check_spread(&[4.0, 1.0, 2.0, 9.0], Some((1.0, 3.0, 9.0)));
    }

    #[test]
    fn numbers_as_people_read_them() {
        assert_eq!(thousands(1_234_567.4), "1,234,567");
        assert_eq!(thousands(999.6), "1,000");
        assert_eq!(short(0.956), "0.96");
        assert_eq!(short(13.54), "13.5");
        assert_eq!(short(63_000.0), "63,000");
    }

    fn side(values: &[f64]) -> Vec<Sample> {
        let sample = |value: &f64| {
            let mut times = latencies();
            times.record_n(50_000, 98).unwrap();
            times.record_n(9_000_000, 2).unwrap();
            Sample {
                value: *value,
                latency_nanos: Some(times),
            }
        };
        values.iter().map(sample).collect()
    }

    fn row(bar: Bar) -> Row {
        Row {
            what: "file".to_owned(),
            against: "nginx",
            clients: (64, 1),
            ours: |_, _| Err(Error::NoOperation),
            theirs: None,
            bar,
        }
    }

    #[test]
    fn a_row_with_two_sides() {
        let row = row(Bar::Ratio(1.0));
        let measured = [[2000.0, 3000.0, 2000.0], [1000.0, 1000.0, 4000.0]];
        let measured = measured.map(|values| side(&values));
        let want = "| file: nginx | 64 × 1 | ≥ 1 | 2.00 (0.50–3.00) | 2,000 / 1,000 \
                    | 50.0 / 9,003 µs | 50.0 / 9,003 µs | met |\n";
        assert_eq!(line(&row, &Ok(measured)), (want.to_owned(), Verdict::Met));
    }

    #[test]
    fn rows_without_a_result_say_why() {
        let row = row(Bar::AtMost(3.0, "s"));
        let skipped = line(&row, &Err(Error::Missing("redis-server")));
        let want = "| file: nginx | 64 × 1 | ≤ 3 s | skipped: no redis-server | | | | skipped |\n";
        assert_eq!(skipped, (want.to_owned(), Verdict::Skipped));
        let measured = [vec![Sample::value(3.2)], Vec::new()];
        let (text, verdict) = line(&row, &Ok(measured));
        assert!(text.contains("| 3.20 (3.20–3.20) s | – |"), "{text}");
        assert_eq!(verdict, Verdict::Missed);
    }
}
