//! The log of messages, `messages.log`: one line a message, `TIME UUID TEXT`.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cli::escape::Escaped;
use jiff::Timestamp;
use storage::{
    CommitError, CommitFigures, Committer, DataFolder, Fsync, Limits, NotStored, Pending,
    ReopenSignal, Space, StorageError, Store, TextFile,
};
use uuid::Uuid;

/// The log's file in the data folder.
const FILE_NAME: &str = "messages.log";

/// The log. Any number of threads may use it at once.
pub struct Messages {
    writer: Committer<MessagesFile>,
    reopen_signal: ReopenSignal,
    logged: Arc<AtomicU64>,
}

impl Messages {
    /// Opens the log of a data folder. A last line without its end was never acknowledged, and is
    /// cut off with a warning. `on_failure` is called when the disk fails in a way that leaves
    /// open what is on it.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(
        folder: &mut DataFolder,
        fsync: Fsync,
        limits: Limits,
        on_failure: impl FnOnce() + Send + 'static,
    ) -> Result<Self, StorageError> {
        let file = TextFile::open_at_end(folder.open(FILE_NAME)?, fsync)?;
        let mut file = file.with_limits(limits);
        let reopen_signal = file.allow_rotation();
        let logged = Arc::default();
        let store = MessagesFile {
            file,
            applied: 0,
            logged: Arc::clone(&logged),
        };
        let writer = Committer::start(FILE_NAME, store, on_failure)?;
        Ok(Self {
            writer,
            reopen_signal,
            logged,
        })
    }

    /// Opens the log again by its name, after a program that rotates logs has moved it. Messages that
    /// arrive meanwhile are in one of the two files.
    pub fn reopen(&self) {
        self.reopen_signal.raise();
        self.writer.wake();
    }

    /// Adds a message: one line, whatever is in the text. Wait for it, or have it complete the reply.
    pub fn add(&self, uuid: Uuid, text: String) -> Pending<()> {
        self.writer.submit((uuid, text))
    }

    /// How many were added since it was opened.
    pub(crate) fn logged(&self) -> u64 {
        self.logged.load(Ordering::Relaxed)
    }

    /// What was measured of its commits.
    pub(crate) fn commit_figures(&self) -> &CommitFigures {
        self.writer.figures()
    }

    /// Why the disk failed in a way that leaves open what is on it, if it did. Tells it once.
    pub fn failure(&self) -> Option<StorageError> {
        self.writer.failure()
    }
}

/// What the writer thread owns.
struct MessagesFile {
    file: TextFile,
    /// Messages since the last commit.
    applied: u64,
    /// Messages that are committed.
    logged: Arc<AtomicU64>,
}

impl Store for MessagesFile {
    /// A message. The writer makes the line, because escaped text can be six times as long. It puts
    /// the time in front, so that, as long as the clock is not set back, times and lines have the
    /// same order.
    type Change = (Uuid, String);
    type Outcome = ();

    fn apply(&mut self, (uuid, text): (Uuid, String)) -> Result<(), NotStored> {
        let now = Timestamp::now();
        let pending = self.file.pending();
        let before = pending.len();
        writeln!(pending, "{now:.3} {uuid} {}", Escaped(&text)).expect("a Vec takes it");
        let after = pending.len();
        let space = self.file.check_space(after, Space::Usual);
        match space {
            Ok(()) => self.applied += 1,
            Err(_) => self.file.pending().truncate(before),
        }
        space
    }

    fn is_batch_full(&self) -> bool {
        self.file.is_batch_full()
    }

    fn commit(&mut self) -> Result<(), CommitError> {
        let applied = std::mem::take(&mut self.applied);
        self.file.commit()?;
        self.logged.fetch_add(applied, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = DataFolder::create(dir.path()).unwrap();
        let limits = Limits::default();
        let messages = Messages::open(&mut folder, Fsync::Always, limits, || ()).unwrap();
        let uuid = Uuid::from_u128(1);
        messages.add(uuid, "two\nlines".to_owned()).wait().unwrap();
        messages.add(uuid, String::new()).wait().unwrap();
        let log = std::fs::read_to_string(dir.path().join(FILE_NAME)).unwrap();
        let split = |line| str::split_once(line, ' ').unwrap();
        let lines: Vec<(&str, &str)> = log.lines().map(split).collect();
        assert_eq!(lines[0].1, format!("{uuid} two\\nlines"));
        assert_eq!(lines[1].1, format!("{uuid} "));
        lines[0].0.parse::<Timestamp>().unwrap();
        assert_eq!(lines[0].0.len(), "2026-11-20T17:37:53.230Z".len());
    }

    #[test]
    fn a_batch_is_bounded_however_long_the_messages_are_when_they_are_escaped() {
        const BATCH_BYTES_MAX: usize = 2 << 20;
        let dir = tempfile::tempdir().unwrap();
        let data = DataFolder::create(dir.path()).unwrap().open(FILE_NAME);
        let file = TextFile::open_at_end(data.unwrap(), Fsync::Never).unwrap();
        let mut store = MessagesFile {
            file,
            applied: 0,
            logged: Arc::default(),
        };
        let text = "\u{1}".repeat(64 * 1024);
        let mut messages = 0;
        while !store.is_batch_full() {
            store.apply((Uuid::from_u128(1), text.clone())).unwrap();
            messages += 1;
        }
        assert!(messages > 1);
        assert!(store.file.pending().len() <= BATCH_BYTES_MAX);
    }
}
