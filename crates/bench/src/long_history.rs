//! A history of millions of lines: how soon it is there, how soon its last lines are, how much memory it
//! takes, and how long an append waits while its oldest lines are pruned.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use proto::history::Filter;

use crate::contestant::{Contestant, Lab, Sample, rounds};
use crate::conversation::Wrong;
use crate::error::Error;
use crate::frames::{Frames, connect};
use crate::histories::{START, get, notes, start};
use crate::process::{Process, free_addr};

/// How many of the last lines are asked for.
const LAST: u64 = 10;

/// This many lines are missing until the oldest are pruned.
const LINES_BEFORE_PRUNING: u64 = 100;

/// How long pruning may take, in seconds.
const PRUNING_SECS: u64 = 60;

/// What is measured on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// From the start of the server to its first reply, in seconds.
    Start,
    /// To connect and get the last lines, in milliseconds.
    Last,
    /// The most memory that the server had when all lines were read once, in MiB.
    Memory,
}

/// Writes a history of this many lines of 100 bytes, with their sequence numbers.
fn write_lines(path: &Path, lines: u64) -> Result<(), Error> {
    let write = || -> io::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        for number in 1..=lines {
            let (millis, port) = (number % 1000, 30_000 + number % 10_000);
            writeln!(
                out,
                "#{number} 2026-11-21T01:46:05.{millis:03}Z 127.0.0.1:{port} alice note pump 2 was looked \
                 at, it runs as before"
            )?;
        }
        // Or it would be written out while others are measured.
        out.into_inner()?.sync_all()
    };
    write().map_err(Error::io("write the history"))
}

fn count_lines(frames: &mut Frames, last: u64) -> Result<u64, Error> {
    let mut lines = 0;
    let filter = Filter {
        last,
        ..Filter::ALL
    };
    get(frames, filter, |text| {
        lines += text.iter().filter(|byte| **byte == b'\n').count() as u64;
    })?;
    Ok(lines)
}

fn get_last(frames: &mut Frames) -> Result<(), Error> {
    match count_lines(frames, LAST)? {
        LAST => Ok(()),
        lines => Err(Wrong::new("10 lines", lines.to_string().as_bytes()).into()),
    }
}

/// A long history; each round starts the server anew.
///
/// # Errors
/// If the history cannot be written.
pub fn long_history(lab: &Lab, measure: Measure) -> Result<Box<dyn Contestant>, Error> {
    let dir = lab.dir()?;
    let path = dir.path().to_owned();
    let lines = lab.scale.history_millions * 1_000_000;
    write_lines(&path.join("history.txt"), lines)?;
    let round = move || {
        let addr = free_addr()?;
        let begun = Instant::now();
        let mut process = Process::spawn("history-server", START, &path, addr, Stdio::null())?;
        let mut frames = Frames::new(process.connect()?);
        get_last(&mut frames)?;
        let started = begun.elapsed();
        let begun = Instant::now();
        get_last(&mut Frames::new(connect(addr)?))?;
        let got = begun.elapsed();
        Ok(Sample::value(match measure {
            Measure::Start => started.as_secs_f64(),
            Measure::Last => got.as_secs_f64() * 1000.0,
            Measure::Memory => {
                let read = count_lines(&mut frames, 0)?;
                if read < lines {
                    return Err(Wrong::new("all lines", read.to_string().as_bytes()).into());
                }
                process.peak_bytes()? as f64 / f64::from(1 << 20)
            }
        }))
    };
    Ok(rounds(None, dir, round))
}

/// The longest wait of an append while an eighth of a long history is pruned, in milliseconds.
///
/// # Errors
/// If no folder can be made.
pub fn pruned(lab: &Lab) -> Result<Box<dyn Contestant>, Error> {
    let dir = lab.dir()?;
    let path = dir.path().to_owned();
    let keep = lab.scale.history_millions * 1_000_000 / 9 * 8;
    let round = move || {
        let file = path.join("history.txt");
        write_lines(&file, keep + keep / 8 - LINES_BEFORE_PRUNING)?;
        let process = start(&path, &["--keep-lines", &keep.to_string()])?;
        let mut frames = Frames::new(connect(process.addr())?);
        let begun = Instant::now();
        let mut longest = Duration::ZERO;
        let old = inode(&file)?;
        while inode(&file)? == old {
            let asked = Instant::now();
            notes(&mut frames, "pump 2 is on", 1)?;
            longest = longest.max(asked.elapsed());
            if begun.elapsed().as_secs() > PRUNING_SECS {
                let who = "the pruner".to_owned();
                let secs = PRUNING_SECS;
                return Err(Error::Silent { who, secs });
            }
        }
        Ok(Sample::value(longest.as_secs_f64() * 1000.0))
    };
    Ok(rounds(None, dir, round))
}

/// What tells a file from the one in its place before.
fn inode(path: &Path) -> Result<u64, Error> {
    let metadata = fs::metadata(path).map_err(Error::io("look at the history"))?;
    Ok(metadata.ino())
}
