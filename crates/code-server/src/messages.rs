//! The log of messages, `messages.log`: one line a message, `TIME UUID TEXT`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;

use daemon::lock;
use jiff::Timestamp;
use proto::escape::Escaped;
use uuid::Uuid;

use crate::Error;

/// The log's file in the data folder.
const FILE_NAME: &str = "messages.log";

/// The log. Any number of threads may use it at once.
pub struct Messages {
    file: Mutex<File>,
}

impl Messages {
    /// Opens the log of a data folder.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(data_dir: &Path) -> Result<Self, Error> {
        let path = data_dir.join(FILE_NAME);
        let mut options = OpenOptions::new();
        let opened = options.append(true).create(true).open(&path);
        let file = opened.map_err(|cause| Error::Open { path, cause })?;
        let file = Mutex::new(file);
        Ok(Self { file })
    }

    /// Adds a message: one line, whatever is in the text.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn add(&self, uuid: Uuid, text: &str) -> io::Result<()> {
        let line = format!("{:.3} {uuid} {}\n", Timestamp::now(), Escaped(text));
        lock(&self.file).write_all(line.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let messages = Messages::open(dir.path()).unwrap();
        let uuid = Uuid::from_u128(1);
        messages.add(uuid, "two\nlines").unwrap();
        messages.add(uuid, "").unwrap();
        let log = std::fs::read_to_string(dir.path().join(FILE_NAME)).unwrap();
        let lines: Vec<_> = log
            .lines()
            .map(|line| line.split_once(' ').unwrap())
            .collect();
        assert_eq!(lines[0].1, format!("{uuid} two\\nlines"));
        assert_eq!(lines[1].1, format!("{uuid} "));
        lines[0].0.parse::<Timestamp>().unwrap();
        assert_eq!(lines[0].0.len(), "2026-11-20T17:37:53.230Z".len());
    }
}
