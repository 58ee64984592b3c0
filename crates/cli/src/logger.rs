//! The logger of all eight binaries: one line an event, on standard error.
//!
//! A client writes each line itself, for it ends soon and nothing it says may be lost. A server has a
//! thread that does ([`write_in_background`]): no thread that serves waits for the log's reader, and
//! of each kind of warning or error there is at most one line a second.

use std::fmt;
use std::io::{self, Write as _};
use std::panic::{self, PanicHookInfo};
use std::sync::OnceLock;
use std::thread;
use std::time::Instant;

use crate::escape::Sentence;
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::LineWriter;
use crate::limiter::{Limiter, Verdict, Warning};

/// How much of a message is shown, in bytes.
const MESSAGE_BYTES_MAX: usize = 8 * 1024;

struct Logger {
    filter: env_logger::Logger,
    lines: OnceLock<LineWriter>,
    limiter: Limiter,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Starts the logger; `RUST_LOG` overrides the level. A line reads
/// `2026-11-20 17:37:53.230 [INFO] [main] Server started on 127.0.0.1:55556`, with the local time
/// and the thread's name. A panic is logged the same way, as an error.
pub fn init(verbose: bool) {
    let level = if verbose {
        LevelFilter::Debug
    } else {
        LevelFilter::Info
    };
    let mut filter = env_logger::Builder::new();
    let logger = LOGGER.get_or_init(|| Logger {
        filter: filter.filter_level(level).parse_default_env().build(),
        lines: OnceLock::new(),
        limiter: Limiter::default(),
    });
    // It fails when it was done before.
    if log::set_logger(logger).is_ok() {
        log::set_max_level(logger.filter.filter());
    }
    panic::set_hook(Box::new(|info| log::error!("{}", of_panic(info))));
}

/// What a panic says: "panicked at FILE:LINE:COLUMN: MESSAGE", where the standard library puts the
/// message on a line of its own.
fn of_panic(info: &PanicHookInfo) -> String {
    info.to_string().replacen(":\n", ": ", 1)
}

/// Has a thread write the log from now on. Lines that nobody reads are dropped, with a count, and of
/// each kind of warning or error there is at most one line a second: for servers, which must not wait for
/// the reader of their log, nor fill a disk with what a peer sends.
///
/// # Errors
/// If the thread cannot be started.
pub fn write_in_background() -> io::Result<()> {
    let Some(logger) = LOGGER.get() else {
        return Ok(());
    };
    let note = |dropped| {
        let message = format!("{dropped} lines were dropped: nobody read the log");
        line(Level::Warn, "log", &message)
    };
    let due = |lines: &LineWriter| logger.put_due(lines, Some(Instant::now()));
    let lines = LineWriter::start_with("log", io::stderr(), note, Box::new(due))?;
    // If it was done before, that thread goes on, and this one has nothing to do.
    let _ = logger.lines.set(lines);
    Ok(())
}

/// Tells a person, on one line: a server's sentence may be part of it. If nobody listens any more,
/// that changes nothing about how the program ends.
pub(crate) fn complain(text: fmt::Arguments) {
    let text = format!("{}\n", one_line(&text));
    match LOGGER.get().and_then(|logger| logger.lines.get()) {
        Some(lines) => lines.put(&text),
        None => drop(io::stderr().write_all(text.as_bytes())),
    }
}

impl Logger {
    /// Puts the warnings that were held back and are due; returns when the next one is.
    fn put_due(&self, lines: &LineWriter, now: Option<Instant>) -> Option<Instant> {
        let (due, next) = self.limiter.due(now);
        for warning in due {
            lines.put(&line(warning.level, &warning.thread, &warning.message));
        }
        next
    }

    /// Writes a record by way of the thread.
    fn put(&self, record: &Record, lines: &LineWriter) {
        let current = thread::current();
        let thread = current.name().unwrap_or("-");
        let message = || one_line(record.args());
        if record.level() <= Level::Warn {
            let site = (
                record.file_static().unwrap_or_default(),
                record.line().unwrap_or_default(),
            );
            let warning = || Warning {
                level: record.level(),
                thread: thread.to_owned(),
                message: message(),
            };
            match self.limiter.judge(site, Instant::now(), warning) {
                Verdict::Told => {}
                Verdict::Waits => return lines.wake(),
                Verdict::Counted => return,
            }
        }
        lines.put(&line(record.level(), thread, &message()));
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        if !self.filter.matches(record) {
            return;
        }
        if let Some(lines) = self.lines.get() {
            return self.put(record, lines);
        }
        let current = thread::current();
        let thread = current.name().unwrap_or("-");
        let line = line(record.level(), thread, &one_line(record.args()));
        // There is nobody left to tell.
        let _ = io::stderr().write_all(line.as_bytes());
    }

    /// Tells what was held back, and waits until all is written, but not for long.
    fn flush(&self) {
        if let Some(lines) = self.lines.get() {
            self.put_due(lines, None);
            lines.flush();
        }
    }
}

fn line(level: Level, thread: &str, message: &str) -> String {
    let now = jiff::Zoned::now();
    let now = now.strftime("%Y-%m-%d %H:%M:%S%.3f");
    format!("{now} [{level}] [{thread}] {message}\n")
}

/// A message as one line, whatever is in it: a peer may have had a say in it.
fn one_line(message: &fmt::Arguments) -> String {
    let text = message.to_string();
    let mut shown_bytes = text.len().min(MESSAGE_BYTES_MAX);
    while !text.is_char_boundary(shown_bytes) {
        shown_bytes -= 1;
    }
    let (shown, rest) = text.split_at(shown_bytes);
    let cut = if rest.is_empty() { "" } else { "…" };
    format!("{}{cut}", Sentence(shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(message: &str, want: &str) {
        assert_eq!(one_line(&format_args!("{message}")), want);
    }

    #[test]
    fn a_panic_is_one_line() {
        let (tell, told) = std::sync::mpsc::channel();
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| tell.send(of_panic(info)).unwrap()));
        let panicked = thread::spawn(|| panic!("two\nlines")).join();
        panic::set_hook(before);
        panicked.unwrap_err();
        let line = one_line(&format_args!("{}", told.recv().unwrap()));
        let (place, message) = line.rsplit_once(": ").unwrap();
        assert!(place.starts_with("panicked at "), "{line}");
        assert_eq!(message, r"two\nlines");
    }

    #[test]
    fn a_message_is_one_line_whatever_is_in_it() {
        check("plain ünïcode 😀", "plain ünïcode 😀");
        check("two\r\nlines", r"two\r\nlines");
        check("\x1b[31mred\0", r"\u{1b}[31mred\u{0}");
        check(r"escaped\n before", r"escaped\n before");
        let max = "x".repeat(MESSAGE_BYTES_MAX);
        check(&max, &max);
        check(&format!("{max}x"), &format!("{max}…"));
        check(
            &format!("x{}", "ü".repeat(MESSAGE_BYTES_MAX)),
            &format!("x{}…", "ü".repeat(MESSAGE_BYTES_MAX / 2 - 1)),
        );
    }
}
