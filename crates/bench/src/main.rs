//! Measures our servers side by side with what one would use instead, and with the least that is
//! possible at all.
//!
//! [`rows`] is the table as data. Each row has one or two sides, ours and theirs, that take turns. Most
//! sides are servers under load ([`served`]): [`load`] generates it in the words of [`conversation`].
//! [`queues`], [`postgres`], [`histories`], [`long_history`], [`followers`], [`web`] and [`large`] start them,
//! [`floors`] is the bare responder and the bare `fdatasync`, and [`process`] starts and ends programs. [`table`] makes Markdown of what was measured;
//! [`against`] compares with another build of ours instead.

mod against;
mod args;
mod contestant;
mod conversation;
mod database;
mod error;
mod floors;
mod followers;
mod frames;
mod histories;
mod large;
mod load;
mod long_history;
mod postgres;
mod process;
mod queues;
mod rows;
mod served;
mod table;
mod target;
#[cfg(test)]
mod tests;
mod web;

use std::cell::RefCell;
use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;

use tempfile::TempDir;

use args::{Command, Measure};
use contestant::{GENERATOR_THREADS, Lab, Scale};
use error::Error;
use rows::Row;
use table::{Measured, Verdict};

fn main() -> ExitCode {
    args::APP.main(|command| match command {
        Command::Measure(measure) => run(&measure),
        Command::Respond {
            port,
            reply,
            body_bytes,
        } => {
            let reply = fs::read(reply).map_err(Error::io("read the reply"))?;
            floors::respond(port, reply, body_bytes)
        }
    })
}

fn run(measure: &Measure) -> Result<(), Error> {
    let scale = scale(measure);
    let mut rows = rows::all(&scale);
    if measure.against.is_some() {
        rows = against::only_ours(rows);
    }
    rows.retain(|row| row.title().to_lowercase().contains(&measure.only));
    // Else nothing would be measured, and every bar met.
    if rows.is_empty() {
        return Err(Error::NoRow(measure.only.clone()));
    }
    if measure.list {
        let list = |row: &Row| print(&format!("{}\n", row.title()));
        return rows.iter().try_for_each(list);
    }
    let lab = Lab {
        root: temporary_folder(measure)?,
        scale,
        postgres: RefCell::default(),
    };
    process::clean_up_on_signals(lab.root.path())?;
    let other = measure.against.as_ref().map(|dir| dir.canonicalize());
    let other = other.transpose().map_err(Error::io("--against"))?;
    let (head, notes) = match &other {
        Some(_) => (against::HEAD, against::NOTES),
        None => (table::HEAD, table::NOTES),
    };
    print(&format!("{}\n\n{head}", machine(&scale)))?;
    let (mut missed, mut failed) = (0, 0);
    for row in &rows {
        // Progress, for a person; the table goes to standard output.
        let _ = writeln!(io::stderr(), "{}", row.title());
        let (line, verdict) = match &other {
            Some(other) => against::measure(&lab, row, other),
            None => table::line(row, &measure_row(&lab, row)),
        };
        missed += usize::from(verdict == Verdict::Missed);
        failed += usize::from(verdict == Verdict::Failed);
        print(&line)?;
    }
    print(&format!("\n{notes}"))?;
    match (missed, failed) {
        (0, 0) => Ok(()),
        (missed, failed) => Err(Error::Unmet { missed, failed }),
    }
}

fn scale(measure: &Measure) -> Scale {
    let mut scale = match measure.quick {
        true => Scale::QUICK,
        false => Scale::FULL,
    };
    if measure.against.is_some() {
        scale.rounds = against::PAIRS;
    }
    scale.rounds = measure.rounds.unwrap_or(scale.rounds);
    scale
}

fn temporary_folder(measure: &Measure) -> Result<TempDir, Error> {
    let dir = measure.dir.clone().map_or_else(process::own_folder, Ok)?;
    let shown = || Error::io(format!("make a folder in {}", dir.display()));
    let dir = dir.canonicalize().map_err(shown())?;
    TempDir::with_prefix_in("bench-", dir).map_err(shown())
}

/// Both sides of a row, in turn.
fn measure_row(lab: &Lab, row: &Row) -> Result<Measured, Error> {
    const NAMES: [&str; 2] = ["ours", "theirs"];
    // Theirs first, because it may be missing.
    let theirs = row.theirs.map(|start| start(lab, row.clients));
    let theirs = theirs.transpose()?;
    let mut sides = vec![(row.ours)(lab, row.clients)?];
    sides.extend(theirs);
    let mut measured = [Vec::new(), Vec::new()];
    for _ in 0..lab.scale.rounds {
        for (at, side) in sides.iter_mut().enumerate() {
            let sample = side.round().map_err(Error::of(NAMES[at]))?;
            measured[at].push(sample);
        }
    }
    for (side, name) in sides.iter_mut().zip(NAMES) {
        side.finish().map_err(Error::of(name))?;
    }
    Ok(measured)
}

/// When and on what it is measured.
fn machine(scale: &Scale) -> String {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| {
        let line = line.strip_prefix("model name")?;
        Some(line.trim_start_matches([' ', '\t', ':']))
    });
    format!(
        "{}, {}, {} cores, Linux {}; {} rounds of {} ms, generator threads: {GENERATOR_THREADS}",
        jiff::Zoned::now().strftime("%Y-%m-%d"),
        model.unwrap_or("unknown processor"),
        std::thread::available_parallelism().map_or(0, usize::from),
        rustix::system::uname().release().to_string_lossy(),
        scale.rounds,
        scale.measured.as_millis(),
    )
}

fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(Error::io("write to standard output"))
}
