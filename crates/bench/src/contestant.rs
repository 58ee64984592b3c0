//! One side of a row: something that can be measured again and again.

use std::cell::RefCell;
use std::rc::Weak;
use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;

use crate::database::Instance;
use crate::error::Error;
use crate::process::Process;

/// Connections, and requests in flight on each.
pub type Clients = (usize, usize);

/// One side of a row, started. Dropping it ends its processes.
pub trait Contestant {
    /// Measures once.
    ///
    /// # Errors
    /// If anything fails, or an answer is wrong.
    fn round(&mut self) -> Result<Sample, Error>;

    /// Checks what can only be checked when all rounds are over.
    ///
    /// # Errors
    /// If what is left is not what should be.
    fn finish(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// The result of one round.
#[derive(Debug)]
pub struct Sample {
    /// Operations a second; for a row with an absolute bar, the value in its unit.
    pub value: f64,
    /// How long operations took, in nanoseconds.
    pub latency_nanos: Option<Histogram<u64>>,
}

impl Sample {
    /// A value and nothing else.
    pub fn value(value: f64) -> Self {
        Self {
            value,
            latency_nanos: None,
        }
    }

    /// A transfer, of which a megabyte (10^6 bytes) is an operation.
    pub fn transfer(bytes: u64, elapsed: Duration) -> Self {
        Self::value(bytes as f64 / 1e6 / elapsed.as_secs_f64())
    }
}

/// A contestant whose round is a closure, and what lives as long.
// In this order: the process ends before its folder goes.
struct Rounds<F> {
    round: F,
    _process: Option<Process>,
    _dir: TempDir,
}

impl<F: FnMut() -> Result<Sample, Error>> Contestant for Rounds<F> {
    fn round(&mut self) -> Result<Sample, Error> {
        (self.round)()
    }
}

/// A contestant whose round is a closure. The server, if there is one, and the folder live as long.
pub fn rounds(
    process: Option<Process>,
    dir: TempDir,
    round: impl FnMut() -> Result<Sample, Error> + 'static,
) -> Box<dyn Contestant> {
    Box::new(Rounds {
        round,
        _process: process,
        _dir: dir,
    })
}

/// How many threads generate load. Real clients are programs of their own; one thread that drives all
/// connections sends and reads in bursts, which suits servers that do the same.
pub const GENERATOR_THREADS: usize = 8;

/// How long and how large everything is.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Rounds of a row.
    pub rounds: usize,
    /// The part of a round that does not count.
    pub warm_up: Duration,
    /// The part of a round that does.
    pub measured: Duration,
    /// The large file, in megabytes.
    pub file_megabytes: u64,
    /// The long history, in millions of lines.
    pub history_millions: u64,
}

impl Scale {
    /// For a table one can rely on: about a quarter of an hour.
    pub const FULL: Self = Self {
        rounds: 5,
        warm_up: Duration::from_millis(500),
        measured: Duration::from_millis(2000),
        file_megabytes: 1000,
        history_millions: 10,
    };

    /// For a look: some minutes.
    pub const QUICK: Self = Self {
        warm_up: Duration::from_millis(50),
        measured: Duration::from_millis(200),
        file_megabytes: 128,
        history_millions: 1,
        ..Self::FULL
    };
}

/// Where everything happens.
pub struct Lab {
    /// The temporary folder of this run.
    pub root: TempDir,
    /// How long and how large everything is.
    pub scale: Scale,
    /// The PostgreSQL server of the row that is measured, as long as a side of it uses it.
    pub postgres: RefCell<Weak<Instance>>,
}

impl Lab {
    /// A new folder, which is removed when it is dropped.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn dir(&self) -> Result<TempDir, Error> {
        TempDir::new_in(&self.root).map_err(Error::io("make a temporary folder"))
    }
}

/// Raises the limit on open descriptors as far as it goes, for us and the servers we start.
///
/// # Errors
/// [`Error::Descriptors`] if that is less than `needed`.
pub fn require_descriptors(needed: u64) -> Result<(), Error> {
    let limit = getrlimit(Resource::Nofile);
    let allowed = limit.maximum.unwrap_or(u64::MAX);
    if allowed < needed {
        return Err(Error::Descriptors { needed, allowed });
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised)
        .map_err(|errno| Error::io("raise the limit on descriptors")(errno.into()))
}
