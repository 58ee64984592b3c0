//! The logger of all eight programs: one line an event, on standard error.
//!
//! A client writes each line itself, because it ends soon and no line may be lost. A server's lines are
//! written by a thread ([`write_in_background`]): no thread that serves connections waits for the
//! reader of the log, and a warning or an error is logged at most once a second
//! (`limiter.rs`).

use std::fmt;
use std::io::{self, Write as _};
use std::panic::{self, PanicHookInfo};
use std::sync::{LazyLock, OnceLock};
use std::thread;
use std::time::Instant;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::args::Verbosity;
use crate::escape::Sentence;
use crate::limiter::{Limiter, Verdict, Warning};
use crate::line_writer::LineWriter;

/// The longest message that is logged, in bytes. The rest of a longer one is left out.
const MESSAGE_BYTES_MAX: usize = 8 * 1024;

struct Logger {
    filter: env_logger::Logger,
    /// Empty until a thread writes the log.
    lines: OnceLock<LineWriter>,
    limiter: Limiter,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// The local time zone, read once, when the logger starts: reading it takes more stack than the thread of a
/// connection has.
static TIME_ZONE: LazyLock<TimeZone> = LazyLock::new(TimeZone::system);

/// Starts the logger; `RUST_LOG` overrides the level. A line reads
/// `2026-11-20 17:37:53.230 [INFO] [main] Server started on 127.0.0.1:55556`, with the local time
/// and the thread's name. A panic is logged the same way, as an error.
pub(crate) fn init(verbosity: Verbosity) {
    let level = match verbosity {
        Verbosity::Verbose => LevelFilter::Debug,
        Verbosity::Normal | Verbosity::Quiet => LevelFilter::Info,
    };
    LazyLock::force(&TIME_ZONE);
    let mut filter = env_logger::Builder::new();
    // It logs a certificate that it refuses, which is then reported once more, and for a person.
    filter.filter_module("rustls_platform_verifier", LevelFilter::Off);
    // It logs each statement, with what is stored.
    filter.filter_module("tokio_postgres", LevelFilter::Info);
    let logger = LOGGER.get_or_init(|| Logger {
        filter: filter.filter_level(level).parse_default_env().build(),
        lines: OnceLock::new(),
        limiter: Limiter::default(),
    });
    // It fails if the logger was started before.
    if log::set_logger(logger).is_ok() {
        log::set_max_level(logger.filter.filter());
    }
    if verbosity == Verbosity::Quiet {
        log::set_max_level(LevelFilter::Error);
    }
    panic::set_hook(Box::new(|info| log::error!("{}", panic_message(info))));
}

/// "panicked at FILE:LINE:COLUMN: MESSAGE". The standard library puts the message on a line of its
/// own.
fn panic_message(info: &PanicHookInfo) -> String {
    info.to_string().replacen(":\n", ": ", 1)
}

/// From now on, a thread writes the log. Lines that nobody reads are dropped and counted, and a warning
/// or an error is logged at most once a second: a server must not wait for the reader of its log, nor
/// fill a disk with what a peer sends.
///
/// # Errors
/// If the thread cannot be started.
pub(crate) fn write_in_background() -> io::Result<()> {
    let Some(logger) = LOGGER.get() else {
        return Ok(());
    };
    let note = |dropped| {
        let message = format!("{dropped} lines were dropped: nobody read the log");
        line(Level::Warn, "log", &message)
    };
    let due = |lines: &LineWriter| logger.put_due(lines, Some(Instant::now()));
    let lines = LineWriter::start_with("log", io::stderr(), note, Box::new(due))?;
    // If it was done before, that thread continues, and this one stays idle.
    let _ = logger.lines.set(lines);
    Ok(())
}

/// Prints a sentence for a person, on one line. If nobody reads it, the program ends the same way.
pub(crate) fn complain(text: fmt::Arguments) {
    let text = format!("{}\n", one_line(&text));
    match LOGGER.get().and_then(|logger| logger.lines.get()) {
        Some(lines) => lines.put(&text),
        None => drop(io::stderr().write_all(text.as_bytes())),
    }
}

impl Logger {
    /// Writes the warnings that were held back and are due; returns when the next one is.
    fn put_due(&self, lines: &LineWriter, now: Option<Instant>) -> Option<Instant> {
        let (due, next) = self.limiter.due(now);
        for warning in due {
            lines.put(&line(warning.level, &warning.thread, &warning.message));
        }
        next
    }

    /// Gives a record to the thread that writes, unless the limiter holds it back.
    fn put(&self, record: &Record, thread: &str, lines: &LineWriter) {
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
                Verdict::Logged => {}
                Verdict::HeldBack => return lines.wake(),
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
        let current = thread::current();
        let thread = current.name().unwrap_or("-");
        if let Some(lines) = self.lines.get() {
            return self.put(record, thread, lines);
        }
        let line = line(record.level(), thread, &one_line(record.args()));
        // An error of standard error cannot be reported anywhere.
        let _ = io::stderr().write_all(line.as_bytes());
    }

    /// Writes what was held back, and waits for a bounded time until all is written.
    fn flush(&self) {
        if let Some(lines) = self.lines.get() {
            self.put_due(lines, None);
            lines.flush();
        }
    }
}

fn line(level: Level, thread: &str, message: &str) -> String {
    let now = Timestamp::now().to_zoned(TIME_ZONE.clone());
    let now = now.strftime("%Y-%m-%d %H:%M:%S%.3f");
    format!("{now} [{level}] [{thread}] {message}\n")
}

/// A message as one line, whatever is in it: part of it may come from a peer.
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
        panic::set_hook(Box::new(move |info| {
            tell.send(panic_message(info)).unwrap()
        }));
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
