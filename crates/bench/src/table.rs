//! From samples to medians, and from medians to a Markdown table.

use std::fmt;

use hdrhistogram::Histogram;

use crate::contestant::Sample;
use crate::error::Error;
use crate::load::latencies;
use crate::rows::{Bar, Row};

/// What came of a row.
#[derive(Debug)]
pub struct Measured {
    /// Our side.
    pub ours: SideResult,
    /// The other side.
    pub theirs: Option<SideResult>,
}

/// What came of one side of a row.
#[derive(Debug, Default)]
pub struct SideResult {
    /// One sample a round.
    pub samples: Vec<Sample>,
    /// The most memory that the server ever had, in bytes.
    pub memory_peak_bytes: Option<u64>,
    /// Its command lines.
    pub commands: String,
}

/// Whether a bar was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was.
    Met,
    /// It was not.
    Missed,
    /// There is no bar.
    NoBar,
    /// There is no result, and that is no failure.
    Skipped,
    /// There is no result.
    Failed,
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
| what: against what | connections × in flight | bar | ratio: median (min–max) | ops/s ours / theirs \
| processor µs/op ours / theirs \
| generator busy ours / theirs | p50 / p99 / p99.9 ours | p50 / p99 / p99.9 theirs \
| peak memory ours / theirs | |
|---|---|---|---|---|---|---|---|---|---|---|
";

/// The lines of one row, one for each bar, and the verdicts.
pub fn lines(row: &Row, result: &Result<Measured, Error>) -> Vec<(String, Verdict)> {
    let line = |bar: &Bar| {
        let cells = match result {
            Ok(measured) => cells(*bar, measured),
            Err(error) => no_result(error),
        };
        let (name, load) = (name(row, *bar), load(row));
        let (cells, verdict) = cells;
        let text = format!("| {name} | {load} | {} | {cells} |\n", bar_cell(*bar));
        (text, verdict)
    };
    row.bars.iter().map(line).collect()
}

fn name(row: &Row, bar: Bar) -> String {
    match bar {
        Bar::Processor(_) => format!("{}, processor time", row.name),
        _ => row.name.clone(),
    }
}

/// The connections, and what is in flight on each.
pub fn load(row: &Row) -> String {
    format!("{} × {}", thousands(row.connections as f64), row.in_flight)
}

fn bar_cell(bar: Bar) -> String {
    match bar {
        Bar::Rate(Some(at_least)) | Bar::Processor(at_least) => format!("≥ {at_least}"),
        Bar::Rate(None) => "none".to_owned(),
        Bar::AtMost(most, unit) => format!("≤ {most} {unit}"),
        Bar::Always(most, unit) => format!("≤ {most} {unit} in each round"),
    }
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

fn no_result(error: &Error) -> (String, Verdict) {
    let (text, verdict) = why_not(error);
    (format!("{text} | | | | | | | {}", word(verdict)), verdict)
}

fn cells(bar: Bar, measured: &Measured) -> (String, Verdict) {
    let ours = &measured.ours;
    let theirs = measured.theirs.as_ref();
    let spread = Spread::of(values(bar, measured).into_iter());
    let verdict = spread.map_or(Verdict::Failed, |spread| verdict(bar, spread));
    let is_absolute = matches!(bar, Bar::AtMost(..) | Bar::Always(..));
    let spread = spread.map_or("no figures".to_owned(), |spread| {
        let unit = match bar {
            Bar::AtMost(_, unit) | Bar::Always(_, unit) => format!(" {unit}"),
            _ => String::new(),
        };
        let [median, min, max] = [spread.median, spread.min, spread.max].map(short);
        format!("{median}{unit} ({min}–{max})")
    });
    let both = |of: &dyn Fn(&SideResult) -> String| match theirs {
        Some(theirs) => format!("{} / {}", of(ours), of(theirs)),
        None => of(ours),
    };
    let rates = match is_absolute {
        true => "–".to_owned(),
        false => both(&|side| dash(median_of(side, |s| Some(s.value)).map(thousands))),
    };
    let processor = both(&|side| dash(median_of(side, |s| s.processor_micros).map(short)));
    let percent = |busy| format!("{:.0} %", busy * 100.0);
    let busy = both(&|side| dash(median_of(side, |s| s.generator_busy).map(percent)));
    let memory = both(&|side| dash(side.memory_peak_bytes.map(mebibytes)));
    let times = [
        percentiles(ours),
        theirs.map_or("–".to_owned(), percentiles),
    ];
    let text = format!(
        "{spread} | {rates} | {processor} | {busy} | {} | {} | {memory} | {}",
        times[0],
        times[1],
        word(verdict)
    );
    (text, verdict)
}

/// What is compared with the bar, one number a round.
fn values(bar: Bar, measured: &Measured) -> Vec<f64> {
    let ours = &measured.ours.samples;
    let theirs = measured
        .theirs
        .as_ref()
        .map_or(&[][..], |side| &side.samples);
    let pairs = ours.iter().zip(theirs);
    match bar {
        Bar::AtMost(..) | Bar::Always(..) => ours.iter().map(|sample| sample.value).collect(),
        Bar::Rate(_) => pairs
            .map(|(ours, theirs)| ours.value / theirs.value)
            .collect(),
        Bar::Processor(_) => pairs
            .filter_map(|(ours, theirs)| {
                let ratio = theirs.processor_micros? / ours.processor_micros?;
                ratio.is_finite().then_some(ratio)
            })
            .collect(),
    }
}

fn verdict(bar: Bar, spread: Spread) -> Verdict {
    let is_met = match bar {
        Bar::Rate(None) => return Verdict::NoBar,
        Bar::Rate(Some(at_least)) | Bar::Processor(at_least) => spread.median >= at_least,
        Bar::AtMost(most, _) => spread.median <= most,
        Bar::Always(most, _) => spread.max <= most,
    };
    match is_met {
        true => Verdict::Met,
        false => Verdict::Missed,
    }
}

/// A verdict, in the table.
pub fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Met => "met",
        Verdict::Missed => "**MISSED**",
        Verdict::NoBar => "no bar",
        Verdict::Skipped => "skipped",
        Verdict::Failed => "**FAILED**",
    }
}

fn median_of(side: &SideResult, figure: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
    Spread::of(side.samples.iter().filter_map(figure)).map(|spread| spread.median)
}

/// Over all rounds of a side.
fn percentiles(side: &SideResult) -> String {
    let mut all: Histogram<u64> = latencies();
    for times in side.samples.iter().filter_map(|s| s.latency_nanos.as_ref()) {
        all += times;
    }
    if all.is_empty() {
        return "–".to_owned();
    }
    let micros = |quantile| all.value_at_quantile(quantile) as f64 / 1000.0;
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|quantile| short(micros(quantile)));
    format!("{p50} / {p99} / {p999} µs")
}

fn dash(figure: Option<String>) -> String {
    figure.unwrap_or("–".to_owned())
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", short(bytes as f64 / (1024.0 * 1024.0)))
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
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    if number <= -0.5 {
        text.push('-');
    }
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
    use crate::rows::Side;

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
        assert_eq!(thousands(-1234.0), "-1,234");
        assert_eq!(short(0.956), "0.96");
        assert_eq!(short(13.54), "13.5");
        assert_eq!(short(63_000.0), "63,000");
        assert_eq!(mebibytes(3 << 20), "3.00 MiB");
    }

    fn side(values: &[f64], micros: f64) -> SideResult {
        let sample = |value: &f64| {
            let mut times = latencies();
            times.record_n(50_000, 99).unwrap();
            times.record(9_000_000).unwrap();
            Sample {
                value: *value,
                processor_micros: Some(micros),
                generator_busy: Some(0.5),
                latency_nanos: Some(times),
            }
        };
        SideResult {
            samples: values.iter().map(sample).collect(),
            memory_peak_bytes: Some(5 << 20),
            commands: String::new(),
        }
    }

    #[test]
    fn a_row_with_two_bars() {
        let row = Row {
            name: "file: nginx".to_owned(),
            connections: 64,
            in_flight: 1,
            ours: Side::Code,
            theirs: Some(Side::Nc(100)),
            bars: vec![Bar::Rate(Some(1.0)), Bar::Processor(1.0)],
        };
        let measured = Measured {
            ours: side(&[2000.0, 3000.0, 2000.0], 12.0),
            theirs: Some(side(&[1000.0, 1000.0, 4000.0], 9.0)),
        };
        let lines = lines(&row, &Ok(measured));
        let want = "| file: nginx | 64 × 1 | ≥ 1 | 2.00 (0.50–3.00) | 2,000 / 1,000 \
                    | 12.0 / 9.00 | 50 % / 50 % | 50.0 / 50.0 / 9,003 µs | 50.0 / 50.0 / 9,003 µs \
                    | 5.00 MiB / 5.00 MiB | met |\n";
        assert_eq!(lines[0], (want.to_owned(), Verdict::Met));
        assert!(lines[1].0.contains("0.75 (0.75–0.75)"), "{}", lines[1].0);
        assert_eq!(lines[1].1, Verdict::Missed);
    }

    #[test]
    fn rows_without_a_result_say_why() {
        let row = Row {
            name: "queue: Redis".to_owned(),
            connections: 1,
            in_flight: 1,
            ours: Side::Code,
            theirs: None,
            bars: vec![Bar::AtMost(3.0, "s")],
        };
        let skipped = lines(&row, &Err(Error::Missing("redis-server")));
        let want =
            "| queue: Redis | 1 × 1 | ≤ 3 s | skipped: no redis-server | | | | | | | skipped |\n";
        assert_eq!(skipped, [(want.to_owned(), Verdict::Skipped)]);
        let measured = Measured {
            ours: SideResult {
                samples: vec![Sample::value(3.2)],
                ..SideResult::default()
            },
            theirs: None,
        };
        let missed = &lines(&row, &Ok(measured))[0];
        assert!(
            missed.0.contains("| 3.20 s (3.20–3.20) | – |"),
            "{}",
            missed.0
        );
        assert_eq!(missed.1, Verdict::Missed);
    }
}
