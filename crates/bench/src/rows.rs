//! The rows of the table, as data: what is measured, against what, and what bar it must clear.

use crate::contestant::{Contestant, Lab, Sample, Scale};
use crate::crowd::{CROWD, Crowd, CrowdRounds, DurableStart, MANY, MessageMemory};
use crate::error::Error;
use crate::floors;
use crate::growth::{Grown, Growth};
use crate::histories::{HistoryRead, Nc};
use crate::served::{self, Repeated, Web, timed};
use crate::transfers::{Dd, Download, Upload};

/// One measurement: one or two sides, and one line of the table for each bar.
#[derive(Debug)]
pub struct Row {
    /// What is done, and against what.
    pub name: String,
    /// Connections at once.
    pub connections: usize,
    /// Requests in flight on each connection.
    pub in_flight: usize,
    /// Our side.
    pub ours: Side,
    /// The other side; `None` where the bar is absolute.
    pub theirs: Option<Side>,
    /// What must be reached.
    pub bars: Vec<Bar>,
}

impl Row {
    /// Its name, with the connections and what is in flight on each.
    pub fn title(&self) -> String {
        format!("{} ({} × {})", self.name, self.connections, self.in_flight)
    }
}

/// What must be reached, for the medians of the rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bar {
    /// Operations a second, ours divided by theirs; `None` is only for information.
    Rate(Option<f64>),
    /// Processor time an operation, theirs divided by ours.
    Processor(f64),
    /// The value itself must not be more than this.
    AtMost(f64, &'static str),
    /// Nor may it be in any round.
    Always(f64, &'static str),
}

/// What can stand on one side of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Our queue.
    Queue {
        /// With `--data`.
        durable: bool,
        /// Messages in the queue beforehand.
        queued: u64,
        /// Idle connections besides the busy ones.
        idle: usize,
        /// Messages may be as long as messages can be.
        large: bool,
    },
    /// Redis, in memory or `appendfsync always`.
    Redis {
        /// Which.
        durable: bool,
    },
    /// beanstalkd, in memory or `-b DIR -f0`.
    Beanstalkd {
        /// Which.
        durable: bool,
    },
    /// Our code server, asked for a known UUID.
    Code,
    /// Our code server, left messages.
    CodeMessages,
    /// Our history, appended to.
    History,
    /// A web server, asked for a small file of so many bytes.
    File(Web, usize),
    /// The bare responder.
    Responder(Repeated),
    /// Records of so many bytes, each with its `fdatasync`.
    SyncEach(usize),
    /// A web server, asked for a large file.
    Download(Web),
    /// Our file server, given a large file.
    Upload,
    /// `dd conv=fsync`.
    Dd,
    /// Our history of so many megabytes, read.
    HistoryRead(usize),
    /// `nc` with the same file.
    Nc(usize),
    /// Ten thousand connections.
    Crowd(Crowd),
    /// A million messages in memory.
    MessageMemory,
    /// A start with a million durable messages.
    DurableStart,
    /// What others wait while something large is done.
    Growth(Growth),
}

const MEMORY_QUEUE: Side = Side::Queue {
    durable: false,
    queued: 0,
    idle: 0,
    large: false,
};

const DURABLE_QUEUE: Side = Side::Queue {
    durable: true,
    queued: 0,
    idle: 0,
    large: false,
};

/// About as much as a line of the history or of the messages is, in bytes.
const RECORD_BYTES: usize = 100;

/// All rows, in the order of the table.
pub fn all(scale: &Scale) -> Vec<Row> {
    let mut rows = vec![];
    rows.extend(memory_queue());
    rows.extend(durable_queue());
    rows.extend(codes_and_history());
    rows.extend(histories(scale));
    rows.extend(files());
    rows.extend(large_files(scale));
    rows.extend(large_numbers());
    rows.extend(growth(scale));
    rows
}

fn row(
    name: &str,
    (connections, in_flight): (usize, usize),
    ours: Side,
    theirs: Side,
    bars: &[Bar],
) -> Row {
    Row {
        name: name.to_owned(),
        connections,
        in_flight,
        ours,
        theirs: Some(theirs),
        bars: bars.to_vec(),
    }
}

const fn rate(at_least: f64) -> Bar {
    Bar::Rate(Some(at_least))
}

fn memory_queue() -> Vec<Row> {
    let redis = Side::Redis { durable: false };
    let beanstalkd = Side::Beanstalkd { durable: false };
    let name = "queue in memory, 100 B: Redis";
    let mut rows = vec![];
    for connections in [1, 8, 64, 256] {
        let load = (connections, 1);
        rows.push(row(name, load, MEMORY_QUEUE, redis, &[rate(1.0)]));
    }
    for connections in [8, 64] {
        let load = (connections, 16);
        rows.push(row(name, load, MEMORY_QUEUE, redis, &[rate(1.7)]));
    }
    let name = "queue in memory, 100 B: beanstalkd";
    for (in_flight, at_least) in [(1, 1.8), (16, 20.0)] {
        let load = (64, in_flight);
        rows.push(row(name, load, MEMORY_QUEUE, beanstalkd, &[rate(at_least)]));
    }
    rows
}

fn durable_queue() -> Vec<Row> {
    let redis = Side::Redis { durable: true };
    let beanstalkd = Side::Beanstalkd { durable: true };
    let floor = Side::SyncEach(RECORD_BYTES);
    let name = "queue durable, 100 B: Redis appendfsync always";
    let ours = DURABLE_QUEUE;
    vec![
        row(name, (8, 1), ours, redis, &[rate(1.0)]),
        row(name, (64, 1), ours, redis, &[rate(1.1)]),
        row(
            "queue durable, 100 B: beanstalkd -b -f0",
            (64, 1),
            ours,
            beanstalkd,
            &[rate(8.0)],
        ),
        row(
            "queue durable, 100 B: one fdatasync a record",
            (1, 1),
            ours,
            floor,
            &[rate(0.7)],
        ),
    ]
}

fn codes_and_history() -> Vec<Row> {
    let floor = Side::SyncEach(RECORD_BYTES);
    vec![
        row(
            "code-server, a known UUID: bare responder",
            (64, 1),
            Side::Code,
            Side::Responder(Repeated::Code),
            &[rate(0.85)],
        ),
        row(
            "code-server, messages on disk: one fdatasync a message",
            (64, 1),
            Side::CodeMessages,
            floor,
            &[rate(10.0)],
        ),
        row(
            "history, appends: one fdatasync a line",
            (64, 1),
            Side::History,
            floor,
            &[rate(10.0)],
        ),
    ]
}

fn histories(scale: &Scale) -> impl Iterator<Item = Row> {
    scale.history_megabytes.iter().map(|&megabytes| {
        row(
            &format!("history, reading {megabytes} MB: nc of the same file"),
            (1, 1),
            Side::HistoryRead(megabytes),
            Side::Nc(megabytes),
            &[rate(0.8)],
        )
    })
}

fn files() -> Vec<Row> {
    let small = 600;
    let medium = 44 * 1024;
    let load = (64, 1);
    let ours = |bytes| Side::File(Web::Ours, bytes);
    let nginx = |bytes| Side::File(Web::Nginx, bytes);
    let both = &[rate(1.0), Bar::Processor(1.0)];
    let floor = Side::Responder(Repeated::File(small));
    let lighttpd = Side::File(Web::Lighttpd, small);
    vec![
        row("file 600 B: nginx", load, ours(small), nginx(small), both),
        row("file 44 KB: nginx", load, ours(medium), nginx(medium), both),
        row(
            "file 600 B: bare responder",
            load,
            ours(small),
            floor,
            &[rate(0.9)],
        ),
        row(
            "file 600 B: lighttpd",
            load,
            ours(small),
            lighttpd,
            &[Bar::Rate(None)],
        ),
    ]
}

fn large_files(scale: &Scale) -> Vec<Row> {
    let size = match scale.file_megabytes {
        1000 => "1 GB".to_owned(),
        megabytes => format!("{megabytes} MB"),
    };
    let load = (1, 1);
    vec![
        row(
            &format!("file {size} down: nginx"),
            load,
            Side::Download(Web::Ours),
            Side::Download(Web::Nginx),
            &[rate(0.95)],
        ),
        row(
            &format!("file {size} up: dd conv=fsync"),
            load,
            Side::Upload,
            Side::Dd,
            &[rate(0.8)],
        ),
    ]
}

/// Nothing grows with what there is: what others wait at most while something large is done.
fn growth(scale: &Scale) -> Vec<Row> {
    let single = |name: String, growth, millis| Row {
        name,
        connections: 1,
        in_flight: 1,
        ours: Side::Growth(growth),
        theirs: None,
        bars: vec![Bar::Always(millis, "ms")],
    };
    let mut rows = vec![];
    for &megabytes in scale.history_megabytes {
        let name = format!("growth: longest append while a line of {megabytes} MB is deleted");
        rows.push(single(name, Growth::HistoryDelete(megabytes), 50.0));
    }
    for &codes in scale.codes {
        let name = format!("growth: longest wait for one of {codes} codes while there come more");
        rows.push(single(name, Growth::Codes(codes), 20.0));
    }
    let queues = 10_000;
    let name = format!("growth: longest send and receive while {queues} queues are listed");
    rows.push(single(name, Growth::Stats(queues), 20.0));
    let leases = scale.leases;
    let name = format!("growth: longest send and receive while {leases} leases end");
    rows.push(single(name, Growth::Leases(leases), 50.0));
    let large = Side::Queue {
        durable: true,
        queued: 0,
        idle: 0,
        large: true,
    };
    rows.push(row(
        "growth: queue durable, 100 B, messages may have 16 MB: 3000 B",
        (64, 16),
        large,
        DURABLE_QUEUE,
        &[rate(0.9)],
    ));
    rows
}

fn large_numbers() -> Vec<Row> {
    let queue = |queued, idle| Side::Queue {
        durable: false,
        queued,
        idle,
        large: false,
    };
    let single = |name: &str, connections, ours, bar| Row {
        name: name.to_owned(),
        connections,
        in_flight: 1,
        ours,
        theirs: None,
        bars: vec![bar],
    };
    vec![
        single(
            "10,000 idle connections: resident memory each",
            CROWD,
            Side::Crowd(Crowd::Idle),
            Bar::AtMost(20.0, "KiB"),
        ),
        row(
            "64 busy beside 10,000 idle: without the idle",
            (64, 1),
            queue(0, CROWD),
            queue(0, 0),
            &[rate(0.7)],
        ),
        single(
            "10,000 connects in a burst: all answered",
            CROWD,
            Side::Crowd(Crowd::Burst),
            Bar::AtMost(3.0, "s"),
        ),
        single(
            "1,000,000 messages of 100 B: memory beyond the bodies, each",
            8,
            Side::MessageMemory,
            Bar::AtMost(64.0, "B"),
        ),
        row(
            "send and receive with 1,000,000 queued: with 10 queued",
            (8, 1),
            queue(MANY, 0),
            queue(10, 0),
            &[rate(0.9)],
        ),
        single(
            "start with 1,000,000 durable messages: first reply",
            1,
            Side::DurableStart,
            Bar::AtMost(3.0, "s"),
        ),
    ]
}

impl Side {
    /// Starts it.
    ///
    /// # Errors
    /// If it is not installed, cannot be started, or does not answer rightly.
    pub fn start(
        self,
        lab: &Lab,
        connections: usize,
        in_flight: usize,
    ) -> Result<Box<dyn Contestant>, Error> {
        let load = timed(lab, connections, in_flight);
        Ok(match self {
            Self::Queue {
                durable,
                queued,
                idle,
                large,
            } => Box::new(served::queue(lab, load, durable, large, queued, idle)?),
            Self::Redis { durable } => Box::new(served::redis(lab, load, durable)?),
            Self::Beanstalkd { durable } => Box::new(served::beanstalkd(lab, load, durable)?),
            Self::Code => Box::new(served::codes(lab, load)?),
            Self::CodeMessages => Box::new(served::code_messages(lab, load)?),
            Self::History => Box::new(served::history(lab, load)?),
            Self::File(web, bytes) => Box::new(served::file(lab, load, web, bytes)?),
            Self::Responder(repeated) => Box::new(served::responder(lab, load, repeated)?),
            Self::SyncEach(bytes) => Box::new(SyncEach::start(lab, bytes)?),
            Self::Download(web) => Box::new(Download::start(lab, web)?),
            Self::Upload => Box::new(Upload::start(lab)?),
            Self::Dd => Box::new(Dd::start(lab)?),
            Self::HistoryRead(megabytes) => Box::new(HistoryRead::start(lab, megabytes)?),
            Self::Nc(megabytes) => Box::new(Nc::start(lab, megabytes)?),
            Self::Crowd(crowd) => Box::new(CrowdRounds::start(lab, crowd)?),
            Self::MessageMemory => Box::new(MessageMemory::start(lab)?),
            Self::DurableStart => Box::new(DurableStart::start(lab)?),
            Self::Growth(growth) => Box::new(Grown::start(lab, growth)?),
        })
    }
}

/// One `fdatasync` a record, as a side of a row.
struct SyncEach {
    dir: tempfile::TempDir,
    record_bytes: usize,
    measured: std::time::Duration,
}

impl SyncEach {
    fn start(lab: &Lab, record_bytes: usize) -> Result<Self, Error> {
        lab.require_disk()?;
        Ok(Self {
            dir: lab.dir()?,
            record_bytes,
            measured: lab.scale.measured,
        })
    }
}

impl Contestant for SyncEach {
    fn commands(&self) -> String {
        let bytes = self.record_bytes;
        format!("the bench itself: append {bytes} B, `fdatasync`, in a loop")
    }

    fn round(&mut self) -> Result<Sample, Error> {
        let path = self.dir.path().join("records");
        let times = floors::sync_each(&path, self.record_bytes, self.measured)?;
        Ok(Sample {
            value: times.len() as f64 / self.measured.as_secs_f64(),
            processor_micros: None,
            generator_busy: None,
            latency_nanos: Some(times),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_rows_are_the_same() {
        let mut keys: Vec<_> = all(&Scale::FULL)
            .iter()
            .map(|row| (row.name.clone(), row.connections, row.in_flight))
            .collect();
        let rows = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), rows);
        assert!(all(&Scale::FULL).iter().all(|row| !row.bars.is_empty()));
    }
}
