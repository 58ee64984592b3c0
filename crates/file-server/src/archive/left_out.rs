//! What an archive lacks, in words.

use std::path::Path;

use cli::escape::Escaped;

/// The longest text, in bytes: the comment of a zip has no room for more.
const TEXT_BYTES_MAX: usize = u16::MAX as usize;

/// The room for the last line.
const LAST_BYTES: usize = 64;

/// How many lines the log has.
const LOG_LINES: usize = 5;

/// What an archive lacks.
#[derive(Default)]
pub(super) struct LeftOut {
    lines: String,
    /// How many names there are, and how many of them have no line.
    count: u64,
    more: u64,
}

impl LeftOut {
    /// Adds a path and why it is left out.
    pub(super) fn add(&mut self, path: &Path, why: &str) {
        let name = path.to_string_lossy();
        let line = format!("{}: {why}\n", Escaped(&name));
        self.count += 1;
        // Once one has no line, none has, so that the last line is right.
        if self.more == 0 && self.lines.len() + line.len() <= TEXT_BYTES_MAX - LAST_BYTES {
            self.lines.push_str(&line);
        } else {
            self.more += 1;
        }
    }

    /// The first lines of it, for the log.
    pub(super) fn first(&self) -> String {
        let lines: Vec<_> = self.lines.lines().take(LOG_LINES).collect();
        lines.join("; ")
    }

    /// How many names were added.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// All of it, a line each, if there is something.
    pub(super) fn text(&self) -> String {
        match self.more {
            0 => self.lines.clone(),
            more => format!("{}... and {more} more\n", self.lines),
        }
    }
}
