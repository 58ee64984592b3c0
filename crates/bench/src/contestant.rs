//! One side of a row: something that can be measured again and again.

use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;

use crate::error::Error;

/// One side of a row, started. Dropping it ends its processes.
pub trait Contestant {
    /// The command lines of this side, without the machine's paths.
    fn commands(&self) -> String;

    /// Measures once.
    ///
    /// # Errors
    /// If anything fails, or an answer is wrong.
    fn round(&mut self) -> Result<Sample, Error>;

    /// The most memory that its server ever had, in bytes; `None` without a server that is still
    /// there.
    fn memory_peak_bytes(&self) -> Option<u64> {
        None
    }

    /// What can only be checked when all rounds are over.
    ///
    /// # Errors
    /// If what is left is not what should be.
    fn finish(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// What one round gave.
#[derive(Debug)]
pub struct Sample {
    /// Operations a second; for a row with an absolute bar, the value in its unit.
    pub value: f64,
    /// Processor time of the server for one operation, in microseconds.
    pub processor_micros: Option<f64>,
    /// How many processors the load generator kept busy.
    pub generator_busy: Option<f64>,
    /// How long operations took, in nanoseconds.
    pub latency_nanos: Option<Histogram<u64>>,
}

impl Sample {
    /// A value and nothing else.
    pub fn value(value: f64) -> Self {
        Self {
            value,
            processor_micros: None,
            generator_busy: None,
            latency_nanos: None,
        }
    }
}

/// How many threads generate load unless told otherwise. Real clients are programs of their own; one
/// thread that drives all connections sends and reads in bursts, which suits servers that do the same.
pub const GENERATOR_THREADS: usize = 8;

/// How long and how large everything is.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Rounds of a row with two sides.
    pub rounds: usize,
    /// Rounds of a row with one side.
    pub single_rounds: usize,
    /// The part of a round that does not count.
    pub warm_up: Duration,
    /// The part of a round that does.
    pub measured: Duration,
    /// Threads that generate load.
    pub generator_threads: usize,
    /// The large file, in megabytes.
    pub file_megabytes: u64,
    /// The histories that are read, and that a line is deleted out of, in megabytes.
    pub history_megabytes: &'static [usize],
    /// The codes that there are while new ones are made.
    pub codes: &'static [u64],
    /// The leases that end together.
    pub leases: u64,
}

impl Scale {
    /// For a table one can rely on: about twenty minutes.
    pub const FULL: Self = Self {
        rounds: 5,
        single_rounds: 5,
        warm_up: Duration::from_millis(500),
        measured: Duration::from_millis(2000),
        generator_threads: GENERATOR_THREADS,
        file_megabytes: 1000,
        history_megabytes: &[10, 100, 1000],
        codes: &[900_000, 7_300_000, 10_000_000],
        leases: 1_000_000,
    };

    /// For a look: some minutes.
    pub const QUICK: Self = Self {
        rounds: 5,
        single_rounds: 1,
        warm_up: Duration::from_millis(50),
        measured: Duration::from_millis(200),
        generator_threads: GENERATOR_THREADS,
        file_megabytes: 128,
        history_megabytes: &[10, 100],
        codes: &[900_000],
        leases: 100_000,
    };
}

/// Where everything happens.
pub struct Lab {
    /// The temporary folder of this run.
    pub root: TempDir,
    /// How long and how large everything is.
    pub scale: Scale,
}

impl Lab {
    /// A new folder, which goes away when it is dropped.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn dir(&self) -> Result<TempDir, Error> {
        TempDir::new_in(&self.root).map_err(Error::io("make a temporary folder"))
    }

    /// Refuses a folder in memory.
    ///
    /// # Errors
    /// [`Error::NotOnDisk`] if it is one.
    pub fn require_disk(&self) -> Result<(), Error> {
        match file_system(self.root.path())? {
            TMPFS_MAGIC | RAMFS_MAGIC => Err(Error::NotOnDisk),
            _ => Ok(()),
        }
    }
}

/// `f_type` of tmpfs, statfs(2).
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// `f_type` of ramfs.
const RAMFS_MAGIC: u64 = 0x8584_58f6;

fn file_system(path: &Path) -> Result<u64, Error> {
    let found = rustix::fs::statfs(path).map_err(|errno| Error::io("statfs")(errno.into()))?;
    // The kernel's type is a signed long, the magic numbers are 32 bits.
    Ok(found.f_type as u64 & 0xffff_ffff)
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
