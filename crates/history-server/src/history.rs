//! The history and its rules, with no socket in sight.
//!
//! It is a text file, `history.txt`, one record a line, owned by one writer thread. Records are
//! appended; what deletes lines writes a new file beside the old one and renames it into place, so
//! a crash at any moment leaves the old history or the new one. Whoever reads a [`Snapshot`] keeps
//! the file it was taken from, so reading holds up nobody and nothing changes under the reader.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use daemon::lock;
use group_commit::{
    CommitError, Committer, Fsync, Limits, Line, MadeFolders, NotStored, OldLock, OpenError,
    Reopening, Room, Store, TextFile,
};
use memchr::memchr;
use proto::escape::Escaped;
use proto::history::TEXT_BYTES_MAX;

/// The file, in the data folder.
const FILE_NAME: &str = "history.txt";

/// The file in the data folder by which earlier versions kept a second server away.
const OLD_LOCK_NAME: &str = ".history-server.lock";

/// How much of the file is read at once, in bytes.
const BLOCK_BYTES: usize = 64 * 1024;

/// How many bytes of lines one commit takes, but for the last one.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// The most that a line's number and the space behind it take, in bytes. No file has more bytes, let
/// alone lines, than 19 digits can count.
const NUMBER_BYTES_MAX: usize = 20;

/// What can go wrong with the history.
#[derive(Debug)]
#[non_exhaustive]
pub enum HistoryError {
    /// The data folder could not be made.
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The file could not be opened, or is another server's.
    Open(OpenError),
    /// The writer thread could not be started.
    Thread(io::Error),
    /// There is no such line.
    NoSuchLine {
        /// The line asked for.
        line: u64,
        /// How many there are.
        lines: u64,
    },
    /// The change is not stored, or not known to be.
    NotStored(NotStored),
    /// The file could not be read.
    Read(io::Error),
}

impl fmt::Display for HistoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder { path, .. } => write!(f, "cannot make {}", path.display()),
            Self::Open(error) => error.fmt(f),
            Self::Thread(_) => f.write_str("cannot start the writer thread"),
            Self::NoSuchLine { line, lines: 1 } => {
                write!(f, "There is no line {line}; the history has 1 line.")
            }
            Self::NoSuchLine { line, lines } => {
                write!(f, "There is no line {line}; the history has {lines} lines.")
            }
            Self::NotStored(error) => write!(f, "The request is {error}."),
            Self::Read(_) => f.write_str("The history cannot be read."),
        }
    }
}

impl std::error::Error for HistoryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Folder { cause, .. } | Self::Thread(cause) | Self::Read(cause) => Some(cause),
            Self::Open(error) => error.source(),
            Self::NoSuchLine { .. } | Self::NotStored(_) => None,
        }
    }
}

/// A history that any number of threads may use at once.
pub struct History {
    current: Current,
    writer: Committer<HistoryFile>,
    reopening: Reopening,
    _old_lock: OldLock,
    // Last, for it goes when the file in it is gone.
    _folders: MadeFolders,
}

/// The history as it was last committed.
type Current = Arc<Mutex<Part>>;

impl History {
    /// Opens the history in a folder; makes what is missing. A last line without its end is half
    /// of a record that nobody was told is there: it is cut off, with a warning. `on_failure` is
    /// called when the disk fails in a way that leaves open what is on it.
    ///
    /// # Errors
    /// If the folder is in use, or it or the file cannot be opened.
    pub fn open(
        dir: &Path,
        fsync: Fsync,
        limits: Limits,
        on_failure: impl FnOnce() + Send + 'static,
    ) -> Result<Self, HistoryError> {
        let folders = MadeFolders::make(dir).map_err(|cause| HistoryError::Folder {
            path: dir.to_owned(),
            cause,
        })?;
        let old_lock = OldLock::take(&dir.join(OLD_LOCK_NAME)).map_err(HistoryError::Open)?;
        let mut lines = 0;
        let count = |_: &[u8], is_whole| {
            lines += u64::from(is_whole);
            Line::Sound
        };
        let file = TextFile::open(&dir.join(FILE_NAME), fsync, count);
        let mut file = file.map_err(HistoryError::Open)?.with_limits(limits);
        let reopening = file.let_be_moved();
        let current = Arc::new(Mutex::new(Part::whole(&file)));
        let store = HistoryFile {
            file,
            current: Arc::clone(&current),
            lines,
            edits: Edits::default(),
        };
        let writer = Committer::start(FILE_NAME, store, on_failure);
        Ok(Self {
            current,
            writer: writer.map_err(HistoryError::Thread)?,
            reopening,
            _old_lock: old_lock,
            _folders: folders,
        })
    }

    /// Opens the history again by its name, from where a program that rotates logs has moved it.
    /// The one that is found or made there is served from then on.
    pub fn reopen(&self) {
        self.reopening.ask();
        self.writer.wake();
    }

    /// Appends a record. It becomes exactly one line, whatever is in it. When this returns, it is
    /// on the disk.
    ///
    /// # Errors
    /// [`HistoryError::NotStored`].
    pub fn append(&self, record: &str, room: Room) -> Result<(), HistoryError> {
        let line = line_of(record);
        self.make(Change::Append { line, room })
    }

    /// The same, but does not wait: what became of it is handed to `then` by the thread that writes.
    pub fn append_later(
        &self,
        record: &str,
        then: impl FnOnce(Result<(), HistoryError>) + Send + 'static,
    ) {
        let line = line_of(record);
        let room = Room::Usual;
        let ticket = self.writer.submit(Change::Append { line, room });
        ticket.then(|made| then(outcome_of(made)));
    }

    /// Deletes one line, counted from 1. When this returns, that is on disk.
    ///
    /// # Errors
    /// [`HistoryError::NoSuchLine`], [`HistoryError::NotStored`].
    pub fn delete(&self, line: u64) -> Result<(), HistoryError> {
        self.make(Change::Delete { line })
    }

    /// Deletes everything and leaves one record. When this returns, that is on disk.
    ///
    /// # Errors
    /// [`HistoryError::NotStored`].
    pub fn clear(&self, record: &str) -> Result<(), HistoryError> {
        let line = line_of(record);
        self.make(Change::Clear { line })
    }

    fn make(&self, change: Change) -> Result<(), HistoryError> {
        outcome_of(self.writer.submit(change).wait())
    }

    /// The history as it is now, and stays for this reader.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(lock(&self.current).clone())
    }

    /// Why the disk failed in a way that leaves open what is on it, if it did. Tells it once.
    pub fn failure(&self) -> Option<io::Error> {
        self.writer.failure()
    }
}

fn outcome_of(made: Result<Result<(), NoSuchLine>, NotStored>) -> Result<(), HistoryError> {
    let made = made.map_err(HistoryError::NotStored)?;
    made.map_err(|NoSuchLine { line, lines }| HistoryError::NoSuchLine { line, lines })
}

/// One record as one line.
fn line_of(record: &str) -> String {
    format!("{}\n", Escaped(record))
}

/// What can happen to the file. A line here has its end.
enum Change {
    Append { line: String, room: Room },
    Delete { line: u64 },
    Clear { line: String },
}

struct NoSuchLine {
    line: u64,
    lines: u64,
}

/// What the writer thread owns.
struct HistoryFile {
    file: TextFile,
    current: Current,
    /// How many lines are committed.
    lines: u64,
    edits: Edits,
}

/// The changes since the last commit, so that any number of them takes one pass over the file.
#[derive(Default)]
struct Edits {
    /// Whether none of the committed lines stays.
    cleared: bool,
    /// The committed lines that go, by their numbers in the file, in order.
    deleted: Vec<u64>,
    /// The lines that come behind those that stay.
    appended: Vec<String>,
    /// How many bytes they had when they came.
    appended_bytes: usize,
}

impl Edits {
    /// How many of the committed lines stay.
    fn staying(&self, lines: u64) -> u64 {
        match self.cleared {
            true => 0,
            false => lines - self.deleted.len() as u64,
        }
    }

    /// Takes out the line that has this number now.
    fn delete(&mut self, line: u64, lines: u64) -> Result<(), NoSuchLine> {
        let staying = self.staying(lines);
        let now = staying + self.appended.len() as u64;
        if line == 0 || line > now {
            return Err(NoSuchLine { line, lines: now });
        }
        if line > staying {
            self.appended.remove((line - staying - 1) as usize);
            return Ok(());
        }
        // Every line that went before this one has shifted its number down by one.
        let mut in_file = line;
        let mut at = 0;
        while self.deleted.get(at).is_some_and(|gone| *gone <= in_file) {
            in_file += 1;
            at += 1;
        }
        self.deleted.insert(at, in_file);
        Ok(())
    }
}

impl Store for HistoryFile {
    type Change = Change;
    type Outcome = Result<(), NoSuchLine>;

    fn apply(&mut self, change: Change) -> Result<Result<(), NoSuchLine>, NotStored> {
        match change {
            Change::Append { line, room } => {
                let appended_bytes = self.edits.appended_bytes + line.len();
                self.file.check_room(appended_bytes, room)?;
                self.edits.appended_bytes = appended_bytes;
                self.edits.appended.push(line);
            }
            Change::Delete { line } => return Ok(self.edits.delete(line, self.lines)),
            Change::Clear { line } => {
                self.edits = Edits {
                    cleared: true,
                    deleted: Vec::new(),
                    appended_bytes: line.len(),
                    appended: vec![line],
                };
            }
        }
        Ok(Ok(()))
    }

    fn is_batch_full(&self) -> bool {
        self.edits.appended_bytes >= BATCH_BYTES_MAX
    }

    fn commit(&mut self) -> Result<(), CommitError> {
        let committed = self.commit_edits();
        if self.file.take_reopened() {
            let whole = Part::whole(&self.file);
            let lines = count_lines(whole.clone()).map_err(CommitError::Lost)?;
            log::info!("The history has {lines} lines now");
            self.lines = lines;
            *lock(&self.current) = whole;
        }
        committed
    }
}

impl HistoryFile {
    fn commit_edits(&mut self) -> Result<(), CommitError> {
        let edits = std::mem::take(&mut self.edits);
        let lines = edits.staying(self.lines) + edits.appended.len() as u64;
        for line in &edits.appended {
            self.file.pending().extend_from_slice(line.as_bytes());
        }
        if edits.cleared {
            self.file.rewrite(|_| Ok(()))?;
        } else if edits.deleted.is_empty() {
            self.file.commit()?;
        } else {
            let old = Part::whole(&self.file);
            let write = |new: &mut dyn Write| copy_without(old, &edits.deleted, new);
            self.file.rewrite(|new| write(new))?;
        }
        self.lines = lines;
        *lock(&self.current) = Part::whole(&self.file);
        Ok(())
    }
}

fn count_lines(file: Part) -> io::Result<u64> {
    let mut input = BufReader::with_capacity(BLOCK_BYTES, file);
    let mut lines = 0;
    while input.skip_until(b'\n')? > 0 {
        lines += 1;
    }
    Ok(lines)
}

/// Copies all lines but those with these numbers, which are in order.
fn copy_without(old: Part, deleted: &[u64], new: &mut dyn Write) -> io::Result<()> {
    let mut input = BufReader::with_capacity(BLOCK_BYTES, old);
    let mut next = 1;
    for gone in deleted {
        copy_lines(&mut input, gone - next, new)?;
        input.skip_until(b'\n')?;
        next = gone + 1;
    }
    io::copy(&mut input, new).map(drop)
}

/// Copies so many lines, by the block.
fn copy_lines(input: &mut impl BufRead, mut lines: u64, new: &mut dyn Write) -> io::Result<()> {
    while lines > 0 {
        let block = input.fill_buf()?;
        if block.is_empty() {
            // Somebody else has shortened the file.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = 0;
        for line in block.split_inclusive(|b| *b == b'\n') {
            bytes += line.len();
            lines -= u64::from(line.ends_with(b"\n"));
            if lines == 0 {
                break;
            }
        }
        new.write_all(&block[..bytes])?;
        input.consume(bytes);
    }
    Ok(())
}

/// A part of a file, read without touching what its other users share: the place in it.
#[derive(Clone)]
struct Part {
    file: Arc<File>,
    range: Range<u64>,
}

impl Part {
    /// All that is committed.
    fn whole(file: &TextFile) -> Self {
        let (file, bytes) = file.snapshot();
        let range = 0..bytes;
        Self { file, range }
    }
}

impl Read for Part {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = self.range.end - self.range.start;
        let room = out.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let bytes = self.file.read_at(&mut out[..room], self.range.start)?;
        self.range.start += bytes as u64;
        Ok(bytes)
    }
}

/// The history as it was at one moment, with its lines numbered from 1.
///
/// It is read piece by piece, so a history of any size takes no more memory than two blocks. The
/// disk keeps a history that was replaced until its last reader is done.
pub struct Snapshot {
    input: BufReader<Part>,
    /// That of the next line.
    number: Number,
    at_line_start: bool,
}

impl Snapshot {
    fn of(whole: Part) -> Self {
        Self {
            input: BufReader::with_capacity(BLOCK_BYTES, whole),
            number: Number::one(),
            at_line_start: true,
        }
    }

    /// Appends the next piece, of at most [`TEXT_BYTES_MAX`] bytes, to `out`; nothing is the end. All
    /// pieces together are the lines, each behind its number and a space.
    ///
    /// # Errors
    /// [`HistoryError::Read`].
    pub fn put_piece(&mut self, out: &mut Vec<u8>) -> Result<(), HistoryError> {
        let end = out.len() + TEXT_BYTES_MAX;
        loop {
            let block = self.input.fill_buf().map_err(HistoryError::Read)?;
            let mut rest = block;
            while !rest.is_empty() && end - out.len() > NUMBER_BYTES_MAX {
                if self.at_line_start {
                    self.number.put(out);
                    self.number.count_up();
                }
                let line = &rest[..rest.len().min(end - out.len())];
                let line_end = memchr(b'\n', line);
                let (line, after) = rest.split_at(line_end.map_or(line.len(), |at| at + 1));
                out.extend_from_slice(line);
                self.at_line_start = line_end.is_some();
                rest = after;
            }
            let taken = block.len() - rest.len();
            let is_full = !rest.is_empty();
            self.input.consume(taken);
            if taken == 0 || is_full {
                return Ok(());
            }
        }
    }
}

/// The number of a line, in digits: counting in digits saves formatting each number.
///
/// The last digit stands apart, for it changes from line to line, and a processor that copies several
/// bytes at once waits if it has only just written one of them.
struct Number {
    /// The digits before the last one, from the left.
    tens: [u8; NUMBER_BYTES_MAX],
    tens_len: usize,
    ones: u8,
}

impl Number {
    fn one() -> Self {
        Self {
            tens: [b'0'; NUMBER_BYTES_MAX],
            tens_len: 0,
            ones: b'1',
        }
    }

    /// Appends the number and a space.
    fn put(&self, out: &mut Vec<u8>) {
        let tens_end = out.len() + self.tens_len;
        // All of the array, and then cut: a copy of a fixed length needs no call.
        out.extend_from_slice(&self.tens);
        out.truncate(tens_end);
        out.extend_from_slice(&[self.ones, b' ']);
    }

    fn count_up(&mut self) {
        if self.ones < b'9' {
            self.ones += 1;
            return;
        }
        self.ones = b'0';
        let tens = &mut self.tens[..self.tens_len];
        for digit in tens.iter_mut().rev() {
            if *digit < b'9' {
                *digit += 1;
                return;
            }
            *digit = b'0';
        }
        // All were nines and are zeros now, like the one that comes to them; the first is a one.
        self.tens_len += 1;
        self.tens[0] = b'1';
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::thread;

    use tempfile::TempDir;

    use std::fs;

    use super::*;

    fn open(dir: &Path) -> Result<History, HistoryError> {
        let limits = Limits::default();
        History::open(dir, Fsync::Always, limits, || panic!("the disk failed"))
    }

    fn add(history: &History, record: &str) -> Result<(), HistoryError> {
        history.append(record, Room::Usual)
    }

    struct Dir(TempDir);

    impl Dir {
        fn with(text: impl AsRef<[u8]>) -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(FILE_NAME), text).unwrap();
            Self(dir)
        }

        fn open(&self) -> History {
            open(self.0.path()).unwrap()
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// The file, byte for byte. Nothing else may be left in the folder.
        #[track_caller]
        fn text(&self) -> String {
            let names = fs::read_dir(self.0.path()).unwrap();
            let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
            let names: Vec<_> = names
                .into_iter()
                .filter(|name| name != OLD_LOCK_NAME)
                .collect();
            assert_eq!(names, [FILE_NAME]);
            fs::read_to_string(self.path(FILE_NAME)).unwrap()
        }
    }

    /// Reads a snapshot to its end. No piece is too long for a frame.
    fn read(mut snapshot: Snapshot) -> String {
        let mut text = Vec::new();
        loop {
            let before = text.len();
            snapshot.put_piece(&mut text).unwrap();
            assert!(text.len() - before <= TEXT_BYTES_MAX);
            if text.len() == before {
                break;
            }
        }
        String::from_utf8(text).unwrap()
    }

    fn numbered(text: &str) -> String {
        let lines = text.split_inclusive('\n');
        (1..)
            .zip(lines)
            .map(|(n, line)| format!("{n} {line}"))
            .collect()
    }

    #[test]
    fn a_record_is_one_line() {
        let dir = Dir::with("old\n");
        let history = dir.open();
        add(&history, "alice 2").unwrap();
        add(&history, "two\nlines\r\\ \u{2028}").unwrap();
        let want = "old\nalice 2\ntwo\\nlines\\r\\\\ \\u{2028}\n";
        assert_eq!(dir.text(), want);
        assert_eq!(read(history.snapshot()), numbered(want));
        drop(history);
        assert_eq!(read(dir.open().snapshot()), numbered(want));
    }

    #[test]
    fn what_is_missing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("a/b");
        let history = open(&below).unwrap();
        assert_eq!(read(history.snapshot()), "");
        add(&history, "x").unwrap();
        assert_eq!(fs::read_to_string(below.join(FILE_NAME)).unwrap(), "x\n");
    }

    #[test]
    fn what_cannot_be_opened_is_named() {
        let dir = Dir::with("");
        let error = |path: &Path| open(path).err().unwrap().to_string();
        let file = dir.path(FILE_NAME);
        assert_eq!(error(&file), format!("cannot make {}", file.display()));
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        let want = format!("{} is not a regular file", file.display());
        assert_eq!(error(dir.0.path()), want);
    }

    #[track_caller]
    fn check_cut(text: &str, want: &str) {
        let dir = Dir::with(text);
        add(&dir.open(), "x").unwrap();
        assert_eq!(dir.text(), format!("{want}x\n"));
    }

    #[test]
    fn a_last_line_without_its_end_is_cut_off() {
        let long = "y".repeat(3 * BLOCK_BYTES);
        check_cut("a\nhalf a li", "a\n");
        check_cut("a\n", "a\n");
        check_cut("a\n\n", "a\n\n");
        check_cut("half", "");
        check_cut(&long, "");
        check_cut(&format!("a\n{long}"), "a\n");
        check_cut(&format!("{long}\nb"), &format!("{long}\n"));
    }

    #[track_caller]
    fn check_delete(text: &str, line: u64, want: Result<&str, &str>) {
        let dir = Dir::with(text);
        let history = dir.open();
        let deleted = history.delete(line).map_err(|error| error.to_string());
        assert_eq!(deleted, want.map(drop).map_err(str::to_owned));
        assert_eq!(dir.text(), want.unwrap_or(text));
        add(&history, "next").unwrap();
        assert_eq!(dir.text(), format!("{}next\n", want.unwrap_or(text)));
    }

    #[test]
    fn one_line_is_deleted() {
        check_delete("a\nb\nc\n", 1, Ok("b\nc\n"));
        check_delete("a\nb\nc\n", 2, Ok("a\nc\n"));
        check_delete("a\nb\nc\n", 3, Ok("a\nb\n"));
        check_delete("a\n", 1, Ok(""));
        check_delete("\n\nc\n", 2, Ok("\nc\n"));
        let long = format!("{}\n", "y".repeat(3 * BLOCK_BYTES));
        check_delete(&format!("a\n{long}b\n"), 2, Ok("a\nb\n"));
        check_delete(&format!("a\n{long}b\n"), 3, Ok(&format!("a\n{long}")));
    }

    #[test]
    fn a_line_that_is_not_there_says_how_many_are() {
        check_delete("", 1, Err("There is no line 1; the history has 0 lines."));
        check_delete("a\n", 2, Err("There is no line 2; the history has 1 line."));
        check_delete(
            "a\nb\n",
            0,
            Err("There is no line 0; the history has 2 lines."),
        );
        let most = format!("There is no line {}; the history has 2 lines.", u64::MAX);
        check_delete("a\nb\n", u64::MAX, Err(&most));
    }

    #[test]
    fn clearing_leaves_one_line() {
        let dir = Dir::with("a\nb\n");
        let history = dir.open();
        history.clear("alice deleted\nthe history").unwrap();
        add(&history, "bob 2").unwrap();
        assert_eq!(dir.text(), "alice deleted\\nthe history\nbob 2\n");
    }

    #[test]
    fn a_stale_new_file_is_overwritten() {
        let dir = Dir::with("a\nb\n");
        fs::write(dir.path(".history.txt.new"), "what a crash left").unwrap();
        dir.open().delete(1).unwrap();
        assert_eq!(dir.text(), "b\n");
    }

    #[test]
    fn the_permissions_stay() {
        let dir = Dir::with("a\n");
        let mode = |mode| fs::Permissions::from_mode(mode);
        fs::set_permissions(dir.path(FILE_NAME), mode(0o640)).unwrap();
        dir.open().delete(1).unwrap();
        let metadata = fs::metadata(dir.path(FILE_NAME)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o640);
    }

    #[test]
    fn what_cannot_be_rewritten_stays() {
        let dir = Dir::with("a\nb\n");
        let history = dir.open();
        // A folder in the new file's place cannot be overwritten.
        fs::create_dir(dir.path(".history.txt.new")).unwrap();
        for failed in [history.delete(1), history.clear("x")] {
            assert!(matches!(failed, Err(HistoryError::NotStored(_))));
        }
        fs::remove_dir(dir.path(".history.txt.new")).unwrap();
        assert_eq!(dir.text(), "a\nb\n");
        history.delete(1).unwrap();
        assert_eq!(dir.text(), "b\n");
    }

    /// Any batch of changes leaves what the same changes one by one would leave.
    #[track_caller]
    fn check_batch(text: &str, changes: Vec<Change>, want: &str, outcomes: &[bool]) {
        let dir = Dir::with(text);
        let file = dir.path(FILE_NAME);
        let file = TextFile::open(&file, Fsync::Always, |_, _| Line::Sound).unwrap();
        let mut store = HistoryFile {
            current: Arc::new(Mutex::new(Part::whole(&file))),
            lines: text.lines().count() as u64,
            file,
            edits: Edits::default(),
        };
        let made: Vec<_> = changes
            .into_iter()
            .map(|c| store.apply(c).unwrap().is_ok())
            .collect();
        assert_eq!(made, outcomes);
        store.commit().unwrap();
        assert_eq!(dir.text(), want);
        assert_eq!(store.lines, want.lines().count() as u64);
        let snapshot = Snapshot::of(lock(&store.current).clone());
        assert_eq!(read(snapshot), numbered(want));
    }

    #[test]
    fn a_batch_sees_its_own_changes() {
        let append = |line: &str| Change::Append {
            line: format!("{line}\n"),
            room: Room::Usual,
        };
        let delete = |line| Change::Delete { line };
        let clear = |line: &str| Change::Clear {
            line: format!("{line}\n"),
        };
        let abcd = "a\nb\nc\nd\n";
        check_batch(
            abcd,
            vec![delete(1), delete(1), delete(2)],
            "c\n",
            &[true; 3],
        );
        check_batch(
            abcd,
            vec![delete(3), delete(2), delete(2)],
            "a\n",
            &[true; 3],
        );
        check_batch(
            abcd,
            vec![delete(4), delete(1), append("e"), delete(2)],
            "b\ne\n",
            &[true; 4],
        );
        let changes = vec![append("e"), delete(5), delete(5), append("f"), delete(1)];
        check_batch(
            abcd,
            changes,
            "b\nc\nd\nf\n",
            &[true, true, false, true, true],
        );
        let changes = vec![delete(2), clear("x"), delete(2), append("y"), delete(1)];
        check_batch(abcd, changes, "y\n", &[true, true, false, true, true]);
        check_batch(abcd, vec![], abcd, &[]);
        check_batch("", vec![delete(1), append("a")], "a\n", &[false, true]);
    }

    #[test]
    fn lines_are_numbered_across_pieces() {
        let long = "y".repeat(2 * TEXT_BYTES_MAX + 1);
        for length in [0, 1, 57, 4096, TEXT_BYTES_MAX - 2, TEXT_BYTES_MAX - 1] {
            let line = format!("{}\n", "x".repeat(length));
            let text = format!("{}{long}\n{line}", line.repeat(120));
            let dir = Dir::with(&text);
            assert_eq!(read(dir.open().snapshot()), numbered(&text));
        }
    }

    #[test]
    fn pieces_end_anywhere() {
        // The first piece ends at every place of some line, the numbers grow from one digit to two
        // and three, and the last line has no end.
        for length in TEXT_BYTES_MAX - 100..=TEXT_BYTES_MAX {
            let first = "x".repeat(length);
            let text = format!("{first}\n{}the last", "a line\n\n".repeat(60));
            let dir = Dir::with(&text);
            let file = Arc::new(File::open(dir.path(FILE_NAME)).unwrap());
            let range = 0..text.len() as u64;
            assert_eq!(read(Snapshot::of(Part { file, range })), numbered(&text));
        }
    }

    #[test]
    fn numbers_grow_by_one() {
        let mut number = Number::one();
        for want in 1..=100_001 {
            let mut digits = Vec::new();
            number.put(&mut digits);
            assert_eq!(digits, format!("{want} ").as_bytes());
            number.count_up();
        }
    }

    #[test]
    fn a_snapshot_stays_as_it_was() {
        let text = "a line\n".repeat(100_000);
        let dir = Dir::with(&text);
        let history = dir.open();
        let snapshot = history.snapshot();
        add(&history, "later").unwrap();
        let with_later = history.snapshot();
        history.delete(1).unwrap();
        history.clear("alice deleted the history").unwrap();
        assert_eq!(read(snapshot), numbered(&text));
        assert_eq!(read(with_later), numbered(&format!("{text}later\n")));
        assert_eq!(read(history.snapshot()), "1 alice deleted the history\n");
    }

    #[test]
    fn every_snapshot_is_whole_while_others_append_and_delete() {
        const RECORDS: usize = 200;
        let dir = Dir::with("");
        let history = dir.open();
        thread::scope(|scope| {
            for writer in 0..4 {
                let history = &history;
                scope.spawn(move || {
                    for record in 0..RECORDS {
                        add(history, &format!("{writer} {record}")).unwrap();
                        if record % 10 == 9 {
                            history.delete(1).unwrap();
                        }
                    }
                });
            }
            for _ in 0..RECORDS {
                let text = read(history.snapshot());
                let mut last = [None; 4];
                for (n, line) in (1..).zip(text.split_terminator('\n')) {
                    let mut words = line.split(' ').map(|word| word.parse::<usize>().unwrap());
                    let mut word = || words.next().unwrap();
                    assert_eq!(word(), n);
                    let (writer, record) = (word(), Some(word()));
                    assert!(last[writer] < record, "out of order: {line}");
                    last[writer] = record;
                }
            }
        });
        assert_eq!(dir.text().lines().count(), 4 * (RECORDS - RECORDS / 10));
    }
}
