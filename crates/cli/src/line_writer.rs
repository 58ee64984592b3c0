//! Lines that a thread writes, so that no other thread waits for the reader.
//!
//! A log that goes into a pipe whose reader stops reading would otherwise stop every thread that
//! logs. Here lines wait in a bounded buffer. Lines that do not fit are dropped and counted, and a note
//! with their number is written in their place.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The most that waits to be written, in bytes.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// The capacity that the buffer keeps when few lines wait, in bytes.
const CAPACITY_BYTES: usize = 64 * 1024;

/// After a line is dropped, all are until at most this much waits, in bytes: one large gap is better
/// than many small ones.
const RESUME_BYTES: usize = WAITING_BYTES_MAX / 2;

/// How long lines are gathered before they are written, so that the thread is seldom woken and writes
/// many lines at once.
const GATHER: Duration = Duration::from_millis(1);

/// The longest that [`LineWriter::flush`] waits.
const FLUSH_WAIT: Duration = Duration::from_secs(1);

/// Makes the line, with its line break, that stands for N dropped ones. An empty text writes no line.
pub type Note = fn(dropped: u64) -> String;

/// Puts the lines that are due, and returns when the next ones are.
type Due = dyn Fn(&LineWriter) -> Option<Instant> + Send;

/// A handle to the thread that writes. To put a line never waits.
#[derive(Debug, Clone)]
pub struct LineWriter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    note: Note,
    state: Mutex<State>,
    /// There is a line to write, or a due one to look for.
    arrived: Condvar,
    /// A write has ended.
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// The number of lines in `waiting`. A note counts for those that it stands for.
    waiting_lines: u64,
    dropped: u64,
    is_writing: bool,
    /// The thread sleeps and must be notified.
    is_asleep: bool,
    /// The last write failed. The next one waits for a new line.
    is_broken: bool,
    is_woken: bool,
}

impl LineWriter {
    /// Starts the thread.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(name: &str, out: impl Write + Send + 'static, note: Note) -> io::Result<Self> {
        Self::start_with(name, out, note, Box::new(|_| None))
    }

    /// The same with `due`, which the thread calls before each write to put lines that were held back.
    pub(crate) fn start_with(
        name: &str,
        out: impl Write + Send + 'static,
        note: Note,
        due: Box<Due>,
    ) -> io::Result<Self> {
        let lines = Self(Arc::new(Shared {
            note,
            state: Mutex::default(),
            arrived: Condvar::new(),
            written: Condvar::new(),
        }));
        let written = lines.clone();
        let run = move || written.write_all(out, &*due);
        thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(lines)
    }

    /// Appends a line, which ends with a line break, or drops it if too much waits already.
    pub fn put(&self, line: &str) {
        let mut state = self.lock();
        state.is_broken = false;
        let bytes_max = match state.dropped {
            0 => WAITING_BYTES_MAX,
            _ => RESUME_BYTES,
        };
        if state.waiting.len() + line.len() > bytes_max {
            state.dropped += 1;
            return;
        }
        self.note_gap(&mut state);
        state.waiting.extend_from_slice(line.as_bytes());
        state.waiting_lines += 1;
        self.notify(&mut state);
    }

    /// Makes the thread look for due lines.
    pub(crate) fn wake(&self) {
        let mut state = self.lock();
        state.is_woken = true;
        self.notify(&mut state);
    }

    /// Waits until all lines are written, for a bounded time, because the reader may be gone.
    pub fn flush(&self) {
        let is_behind = |state: &mut State| state.is_writing || !state.waiting.is_empty();
        let wait = |state| {
            let written = &self.0.written;
            written.wait_timeout_while(state, FLUSH_WAIT, is_behind)
        };
        self.0.arrived.notify_one();
        drop(wait(self.lock()).unwrap_or_else(PoisonError::into_inner));
    }

    fn write_all(&self, mut out: impl Write, due: &Due) {
        let mut batch = Vec::new();
        loop {
            let next = due(self);
            self.wait_until(next);
            let mut state = self.lock();
            std::mem::swap(&mut state.waiting, &mut batch);
            let lines = std::mem::take(&mut state.waiting_lines);
            state.is_writing = true;
            drop(state);
            let wrote = out.write_all(&batch).and_then(|()| out.flush());
            batch.clear();
            batch.shrink_to(CAPACITY_BYTES);
            let mut state = self.lock();
            state.is_writing = false;
            if wrote.is_err() {
                state.dropped += lines;
                state.is_broken = true;
            }
            self.0.written.notify_all();
        }
    }

    /// Waits until there is a line to write or this moment has come, and then [`GATHER`] longer.
    fn wait_until(&self, moment: Option<Instant>) {
        let mut state = self.lock();
        while state.waiting.is_empty() && !state.is_woken {
            if !state.is_broken && self.note_gap(&mut state) {
                break;
            }
            let left = moment.map(|moment| moment.saturating_duration_since(Instant::now()));
            state.is_asleep = true;
            state = match left {
                Some(Duration::ZERO) => break,
                Some(left) => {
                    let waited = self.0.arrived.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let waited = self.0.arrived.wait(state);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
        (state.is_woken, state.is_asleep) = (false, false);
        // A new line does not end this wait, and a flush does.
        drop(self.0.arrived.wait_timeout(state, GATHER));
    }

    fn notify(&self, state: &mut State) {
        if std::mem::take(&mut state.is_asleep) {
            self.0.arrived.notify_one();
        }
    }

    /// Appends the note for the dropped lines, if there are any; returns whether it did.
    fn note_gap(&self, state: &mut State) -> bool {
        let dropped = std::mem::take(&mut state.dropped);
        if dropped == 0 {
            return false;
        }
        let note = (self.0.note)(dropped);
        state.waiting.extend_from_slice(note.as_bytes());
        if !note.is_empty() {
            state.waiting_lines += dropped;
        }
        !note.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    /// A writer that performs one write for each result it is sent, and passes on what was written.
    struct Slow {
        turns: Receiver<io::Result<()>>,
        written: SyncSender<String>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.turns.recv().unwrap_or(Ok(()))?;
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            // The test may have ended.
            let _ = self.written.send(text);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (LineWriter, SyncSender<io::Result<()>>, Receiver<String>) {
        let (turn, turns) = sync_channel(100);
        let (written, read) = sync_channel(100);
        let note = |dropped| format!("{dropped} lines were dropped\n");
        let lines = LineWriter::start("lines", Slow { turns, written }, note).unwrap();
        (lines, turn, read)
    }

    #[test]
    fn lines_are_written_in_order_and_a_gap_is_where_it_was() {
        let (lines, turn, read) = slow();
        lines.put("first\n");
        // The next ones wait until this one is written.
        while !lines.lock().is_writing {
            thread::yield_now();
        }
        let line = format!("{}\n", "x".repeat(1023));
        let fit = WAITING_BYTES_MAX / line.len();
        for _ in 0..fit + 10 {
            lines.put(&line);
        }
        for want in ["first\n", &line.repeat(fit), "10 lines were dropped\n"] {
            turn.send(Ok(())).unwrap();
            assert_eq!(read.recv_timeout(TIMEOUT).unwrap(), want);
        }
        lines.put("last\n");
        turn.send(Ok(())).unwrap();
        assert_eq!(read.recv_timeout(TIMEOUT).unwrap(), "last\n");
    }

    #[test]
    fn to_flush_waits_for_the_writer_and_not_for_ever() {
        let (lines, turn, read) = slow();
        lines.put("line\n");
        let started = Instant::now();
        lines.flush();
        assert!(started.elapsed() >= FLUSH_WAIT);
        turn.send(Ok(())).unwrap();
        lines.flush();
        assert_eq!(read.try_recv().unwrap(), "line\n");
    }

    #[test]
    fn what_could_not_be_written_is_told_with_the_next_line() {
        let (lines, turn, read) = slow();
        turn.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        lines.put("lost\n");
        lines.flush();
        // The note is lost too, and counts for the line it stands for.
        turn.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        lines.put("lost too\n");
        lines.flush();
        turn.send(Ok(())).unwrap();
        lines.put("here\n");
        let want = "2 lines were dropped\nhere\n";
        assert_eq!(read.recv_timeout(TIMEOUT).unwrap(), want);
    }
}
