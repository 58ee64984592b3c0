//! Measures our servers side by side with what one would use instead, and with the least that is
//! possible at all.
//!
//! [`rows`] is the table as data. Each row has two sides, ours and theirs, that take turns:
//! [`served`] are servers under the load that [`load`] generates in the words of [`conversation`],
//! [`transfers`] are large files, [`histories`] long ones, [`crowd`] is ten thousand connections or a million messages,
//! [`growth`] is what others wait while something large is done, and [`floors`] the bare responder and
//! the bare `fdatasync`. [`against`] compares with another build of ours instead. [`process`] starts
//! and ends the servers, [`figures`] asks the kernel about them, and [`table`] makes Markdown of what
//! was measured.

mod against;
mod args;
mod contestant;
mod conversation;
mod crowd;
mod error;
mod figures;
mod floors;
mod growth;
mod histories;
mod load;
mod process;
mod rows;
mod served;
#[cfg(test)]
mod smoke;
mod table;
mod transfers;

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use tempfile::TempDir;

use args::{Command, Measure};
use contestant::{Contestant, Lab, Scale};
use error::Error;
use rows::Row;
use table::{Measured, SideResult, Verdict};

fn main() -> ExitCode {
    args::APP.main(|command| match command {
        Command::Measure(measure) => run(&measure),
        Command::Respond(respond) => {
            let reply = fs::read(&respond.reply).map_err(Error::io("read the reply"))?;
            floors::respond(respond.port, reply, respond.body_bytes)
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
    };
    process::clean_up_on_signals(lab.root.path())?;
    print(&machine(&lab))?;
    let (mut missed, mut failed) = (0, 0);
    let mut print_line = |(line, verdict): (String, Verdict)| {
        missed += usize::from(verdict == Verdict::Missed);
        failed += usize::from(verdict == Verdict::Failed);
        print(&line)
    };
    // Progress, for a person; the table goes to standard output.
    let progress = |row: &Row| drop(writeln!(io::stderr(), "{}", row.title()));
    if let Some(other) = &measure.against {
        let other = &other.canonicalize().map_err(Error::io("--against"))?;
        print(against::HEAD)?;
        for row in &rows {
            progress(row);
            print_line(against::measure(&lab, row, other))?;
        }
        print(&format!("\n{}", against::NOTES))?;
    } else {
        print(table::HEAD)?;
        let mut commands = String::new();
        for row in &rows {
            progress(row);
            let result = measure_row(&lab, row);
            table::lines(row, &result)
                .into_iter()
                .try_for_each(&mut print_line)?;
            if let Ok(measured) = &result {
                commands.push_str(&commands_of(row, measured));
            }
        }
        print(&format!("\n{NOTES}\n{commands}"))?;
    }
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
    if let Some(rounds) = measure.rounds {
        (scale.rounds, scale.single_rounds) = (rounds, rounds);
    }
    if let Some(threads) = measure.threads {
        scale.generator_threads = threads;
    }
    scale
}

fn temporary_folder(measure: &Measure) -> Result<TempDir, Error> {
    let own = std::env::current_exe().map_err(Error::io("find the bench itself"))?;
    let dir = measure.dir.as_deref().or(own.parent());
    let dir = dir.unwrap_or(Path::new("."));
    let shown = || Error::io(format!("make a folder in {}", dir.display()));
    let dir = dir.canonicalize().map_err(shown())?;
    TempDir::with_prefix_in("bench-", dir).map_err(shown())
}

/// The two sides, in errors.
const OURS: &str = "ours";
const THEIRS: &str = "theirs";

/// Both sides of a row, in turn.
fn measure_row(lab: &Lab, row: &Row) -> Result<Measured, Error> {
    let start = |side: rows::Side| side.start(lab, row.connections, row.in_flight);
    // Theirs first, for it may be missing.
    let mut theirs = row.theirs.map(start).transpose()?;
    let mut ours = start(row.ours)?;
    let mut measured = Measured {
        ours: SideResult::default(),
        theirs: theirs.is_some().then(SideResult::default),
    };
    let rounds = match theirs {
        Some(_) => lab.scale.rounds,
        None => lab.scale.single_rounds,
    };
    for _ in 0..rounds {
        measured
            .ours
            .samples
            .push(ours.round().map_err(Error::of(OURS))?);
        if let (Some(theirs), Some(result)) = (&mut theirs, &mut measured.theirs) {
            result
                .samples
                .push(theirs.round().map_err(Error::of(THEIRS))?);
        }
    }
    finish(ours, &mut measured.ours).map_err(Error::of(OURS))?;
    if let (Some(theirs), Some(result)) = (theirs, &mut measured.theirs) {
        finish(theirs, result).map_err(Error::of(THEIRS))?;
    }
    Ok(measured)
}

fn finish(mut side: Box<dyn Contestant>, result: &mut SideResult) -> Result<(), Error> {
    result.memory_peak_bytes = side.memory_peak_bytes();
    result.commands = side.commands();
    side.finish()
}

/// What stands below the table.
const NOTES: &str = "\
Ours and theirs take turns, with the same load generator on the same machine: each of its threads drives
its share of the connections by epoll, or a single one with blocking calls. The ratio is that of each pair
of rounds; the other figures are medians over the rounds, latencies over all of them. A send is an
operation, and so is a receive; beanstalkd's `reserve` and `delete` together are one, like our receive
that forgets. With 16 in flight, 16 sends leave with one write, and when all are answered, 16 receives.
For the large transfers an operation is a megabyte. Processor time is that of the server's processes and
comes in clock ticks (`getconf CLK_TCK`, mostly 100 a second); peak memory is the sum over them. Where the
generator is busy all the time (100 % of a core), it may be what limits. nginx and lighttpd run without a
cache of open files; ours keeps small ones. Every reply is checked: each message received is one that was
sent, and comes once; status, length and body of each HTTP reply; what should be on the disk is looked up
there.
";

fn commands_of(row: &Row, measured: &Measured) -> String {
    let mut text = format!("- {}: ours {}", row.title(), measured.ours.commands);
    if let Some(theirs) = &measured.theirs {
        text.push_str(&format!("; theirs {}", theirs.commands));
    }
    text.push('\n');
    text
}

/// When and on what it was measured.
fn machine(lab: &Lab) -> String {
    let first_line = |path: &str, prefix: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(prefix));
        line.unwrap_or("unknown").to_owned()
    };
    let model = first_line("/proc/cpuinfo", "model name");
    let model = model.rsplit(": ").next().unwrap_or("unknown").to_owned();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = first_line("/proc/sys/kernel/osrelease", "");
    let memory = first_line("/proc/meminfo", "MemTotal");
    let kib: f64 = memory
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse().ok())
        .unwrap_or(0.0);
    format!(
        "{}, {model}, {cores} cores, {:.0} GiB, Linux {kernel}; {} rounds of {} ms, \
         generator threads: {}\n\n",
        jiff::Zoned::now().strftime("%Y-%m-%d"),
        kib / 1024.0 / 1024.0,
        lab.scale.rounds,
        lab.scale.measured.as_millis(),
        lab.scale.generator_threads,
    )
}

fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(Error::io("write to standard output"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_that_is_in_no_name_is_refused() {
        let only = "quiche".to_owned();
        let measure = Measure {
            only,
            ..Measure::default()
        };
        assert!(matches!(run(&measure), Err(Error::NoRow(_))));
    }
}
