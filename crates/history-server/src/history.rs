//! The history and its rules, with no socket in sight.
//!
//! It is a text file, `history.txt`, one record a line. Records are only ever appended; what
//! deletes lines writes a new file beside the old one and renames it into place, so a crash at any
//! moment leaves the old history or the new one. Whoever reads a [`Snapshot`] keeps the file it
//! was taken from, so reading holds up nobody and nothing changes under the reader.
//!
//! Every change is a [`Change`] that [`Log::apply`] makes, one after the other. `Log` has no lock of
//! its own; [`History`] puts one around it.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use daemon::lock;
use proto::escape::{Escaped, EscapedBytes};
use proto::history::TEXT_BYTES_MAX;

/// The file, in the data folder.
const FILE_NAME: &str = "history.txt";

/// The file that will replace it. One that a crash left behind is overwritten.
const NEW_FILE_NAME: &str = ".history.txt.new";

/// How much of the file is read at once, in bytes.
const BLOCK_BYTES: usize = 64 * 1024;

/// How much of an unfinished line the log shows, in bytes.
const SHOWN_BYTES_MAX: usize = 1024;

/// What can go wrong with the history.
#[derive(Debug)]
#[non_exhaustive]
pub enum HistoryError {
    /// The folder or the file in it could not be opened.
    Open {
        /// Which of them.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// There is no such line.
    NoSuchLine {
        /// The line asked for.
        line: u64,
        /// How many there are.
        lines: u64,
    },
    /// The disk failed, and the history is as it was.
    Storage(io::Error),
    /// The disk failed, and what is on it is not known. The history takes no more changes.
    Unsure(io::Error),
    /// The history takes no more changes, because of an earlier failure.
    Ended,
}

impl fmt::Display for HistoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { path, .. } => write!(f, "cannot open {}", path.display()),
            Self::NoSuchLine { line, lines: 1 } => {
                write!(f, "There is no line {line}; the history has 1 line.")
            }
            Self::NoSuchLine { line, lines } => {
                write!(f, "There is no line {line}; the history has {lines} lines.")
            }
            Self::Storage(_) => f.write_str("The server's disk failed; nothing was changed."),
            Self::Unsure(_) => {
                f.write_str("The server's disk failed; whether the change is on it is not known.")
            }
            Self::Ended => f.write_str("The server's disk has failed; it takes no more requests."),
        }
    }
}

impl std::error::Error for HistoryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open { cause, .. } | Self::Storage(cause) | Self::Unsure(cause) => Some(cause),
            Self::NoSuchLine { .. } | Self::Ended => None,
        }
    }
}

/// A history that any number of threads may use at once.
pub struct History {
    log: Mutex<Log>,
}

impl History {
    /// Opens the history in a folder; makes what is missing. A last line without its end is half
    /// of a record that nobody was told is there: it is cut off, with a warning.
    ///
    /// # Errors
    /// [`HistoryError::Open`].
    pub fn open(dir: &Path) -> Result<Self, HistoryError> {
        Ok(Self {
            log: Mutex::new(Log::open(dir)?),
        })
    }

    /// Appends a record. It becomes exactly one line, whatever is in it. When this returns, the
    /// line has been written, but not yet synced.
    ///
    /// # Errors
    /// If it could not be written.
    pub fn append(&self, record: &str) -> Result<(), HistoryError> {
        let line = line_of(record);
        lock(&self.log).apply(Change::Append { line: &line })
    }

    /// Deletes one line, counted from 1. When this returns, that is on disk.
    ///
    /// # Errors
    /// [`HistoryError::NoSuchLine`], or those of the disk.
    pub fn delete(&self, line: u64) -> Result<(), HistoryError> {
        lock(&self.log).apply(Change::Delete { line })
    }

    /// Deletes everything and leaves one record. When this returns, that is on disk.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn clear(&self, record: &str) -> Result<(), HistoryError> {
        let line = line_of(record);
        lock(&self.log).apply(Change::Clear { line: &line })
    }

    /// The history as it is now, and stays for this reader.
    ///
    /// # Errors
    /// [`HistoryError::Storage`].
    pub fn snapshot(&self) -> Result<Snapshot, HistoryError> {
        let whole = lock(&self.log).whole()?;
        Ok(Snapshot::of(whole))
    }

    /// Whether the disk failed in a way that leaves open what is on it.
    pub fn is_unsure(&self) -> bool {
        lock(&self.log).unsure
    }
}

/// One record as one line.
fn line_of(record: &str) -> String {
    format!("{}\n", Escaped(record))
}

/// What can happen to the file. A line here has its end.
enum Change<'a> {
    Append { line: &'a str },
    Delete { line: u64 },
    Clear { line: &'a str },
}

/// The file itself.
struct Log {
    /// Open for reading at any place and for appending.
    file: Arc<File>,
    path: PathBuf,
    new_path: PathBuf,
    folder: File,
    /// Set by the first failure that leaves open what is on the disk.
    unsure: bool,
}

impl Log {
    fn open(dir: &Path) -> Result<Self, HistoryError> {
        let path = dir.join(FILE_NAME);
        let failed = |path: &Path| {
            let path = path.to_owned();
            |cause| HistoryError::Open { path, cause }
        };
        fs::create_dir_all(dir).map_err(failed(dir))?;
        let folder = File::open(dir).map_err(failed(dir))?;
        let opened = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&path);
        let file = opened.map_err(failed(&path))?;
        cut_unfinished_line(&file, &path).map_err(failed(&path))?;
        Ok(Self {
            file: Arc::new(file),
            new_path: dir.join(NEW_FILE_NAME),
            path,
            folder,
            unsure: false,
        })
    }

    /// Makes one change. After a failed sync there are no more: Linux counts the pages as written,
    /// so going on would build on what is not on disk.
    fn apply(&mut self, change: Change) -> Result<(), HistoryError> {
        if self.unsure {
            return Err(HistoryError::Ended);
        }
        let applied = match change {
            Change::Append { line } => self.append(line),
            Change::Delete { line } => self.delete(line),
            Change::Clear { line } => self.replace(|mut new| new.write_all(line.as_bytes())),
        };
        self.unsure = matches!(applied, Err(HistoryError::Unsure(_)));
        applied
    }

    fn append(&mut self, line: &str) -> Result<(), HistoryError> {
        let bytes = self.bytes()?;
        let Err(cause) = (&*self.file).write_all(line.as_bytes()) else {
            return Ok(());
        };
        // Half a line must not stay, or the next record would go on in the middle of this one.
        self.cut_to(bytes).map_err(HistoryError::Unsure)?;
        Err(HistoryError::Storage(cause))
    }

    /// Takes back what a failed write may have left behind the first `bytes` bytes.
    fn cut_to(&self, bytes: u64) -> io::Result<()> {
        match self.file.metadata()?.len() == bytes {
            true => Ok(()),
            false => self.file.set_len(bytes),
        }
    }

    fn delete(&mut self, line: u64) -> Result<(), HistoryError> {
        let whole = self.whole()?;
        let bytes = whole.range.end;
        let Range { start, end } = find_line(whole, line)?;
        let before = self.part(0..start);
        let after = self.part(end..bytes);
        self.replace(|new| {
            copy(before, new)?;
            copy(after, new)
        })
    }

    /// Puts a new file in the place of the old one, in such an order that a crash leaves one of
    /// them, whole.
    fn replace(&mut self, write: impl FnOnce(&File) -> io::Result<()>) -> Result<(), HistoryError> {
        let prepare = || {
            let new = NewFile::create(&self.new_path)?;
            // Who may read the old file, and nobody else, may read the new one.
            let permissions = self.file.metadata()?.permissions();
            new.file.set_permissions(permissions)?;
            write(&new.file)?;
            Ok(new)
        };
        let new = prepare().map_err(HistoryError::Storage)?;
        new.file.sync_all().map_err(HistoryError::Unsure)?;
        let file = new.put_in_place(&self.path);
        self.file = file.map_err(HistoryError::Storage)?;
        self.folder.sync_all().map_err(HistoryError::Unsure)
    }

    /// The whole file as it is now.
    fn whole(&self) -> Result<Part, HistoryError> {
        Ok(self.part(0..self.bytes()?))
    }

    fn part(&self, range: Range<u64>) -> Part {
        let file = Arc::clone(&self.file);
        Part { file, range }
    }

    fn bytes(&self) -> Result<u64, HistoryError> {
        let metadata = self.file.metadata().map_err(HistoryError::Storage)?;
        Ok(metadata.len())
    }
}

/// The bytes of one line, with its end.
fn find_line(whole: Part, line: u64) -> Result<Range<u64>, HistoryError> {
    let mut input = BufReader::with_capacity(BLOCK_BYTES, whole);
    let mut lines = 0;
    let mut start = 0;
    loop {
        let skipped = input.skip_until(b'\n').map_err(HistoryError::Storage)?;
        if skipped == 0 {
            return Err(HistoryError::NoSuchLine { line, lines });
        }
        lines += 1;
        let end = start + skipped as u64;
        if lines == line {
            return Ok(start..end);
        }
        start = end;
    }
}

fn copy(part: Part, mut new: &File) -> io::Result<()> {
    let bytes = part.range.end - part.range.start;
    let mut input = BufReader::with_capacity(BLOCK_BYTES, part);
    match io::copy(&mut input, &mut new)? == bytes {
        true => Ok(()),
        // Somebody else has shortened the file.
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn cut_unfinished_line(file: &File, path: &Path) -> io::Result<()> {
    let bytes = file.metadata()?.len();
    let start = end_of_lines(file, bytes)?;
    if start == bytes {
        return Ok(());
    }
    // One byte more than is shown, so that the warning can tell that there is more.
    let shown_bytes = (bytes - start).min(SHOWN_BYTES_MAX as u64 + 1);
    let mut line = vec![0; shown_bytes as usize];
    file.read_exact_at(&mut line, start)?;
    let line = EscapedBytes {
        bytes: &line,
        bytes_max: SHOWN_BYTES_MAX,
    };
    log::warn!(
        "{}: the last line has no end and is cut off: {line}",
        path.display()
    );
    file.set_len(start)
}

/// Where the last line feed ends; 0 if there is none.
fn end_of_lines(file: &File, bytes: u64) -> io::Result<u64> {
    let mut block = vec![0; BLOCK_BYTES];
    let mut end = bytes;
    while end > 0 {
        let start = end.saturating_sub(BLOCK_BYTES as u64);
        let block = &mut block[..(end - start) as usize];
        file.read_exact_at(block, start)?;
        if let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// A file in the making. Dropping it removes it, unless it was put in place.
#[must_use = "dropping it removes the file"]
struct NewFile<'a> {
    path: &'a Path,
    file: Arc<File>,
    in_place: bool,
}

impl<'a> NewFile<'a> {
    fn create(path: &'a Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create_new(true)
            .open(path)?;
        Ok(Self {
            path,
            file: Arc::new(file),
            in_place: false,
        })
    }

    /// Renames the file. Its handle remains, ready for more.
    fn put_in_place(mut self, path: &Path) -> io::Result<Arc<File>> {
        fs::rename(self.path, path)?;
        self.in_place = true;
        Ok(Arc::clone(&self.file))
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if !self.in_place {
            // What cannot be removed now is overwritten by the next one.
            let _ = fs::remove_file(self.path);
        }
    }
}

/// A part of a file, read without touching what its other users share: the place in it.
struct Part {
    file: Arc<File>,
    range: Range<u64>,
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
    /// The number of the next line, in digits; counting in digits saves formatting each number.
    number: Vec<u8>,
    at_line_start: bool,
    piece: Vec<u8>,
}

impl Snapshot {
    fn of(whole: Part) -> Self {
        Self {
            input: BufReader::with_capacity(BLOCK_BYTES, whole),
            number: vec![b'1'],
            at_line_start: true,
            piece: Vec::new(),
        }
    }

    /// The next piece, of at most [`TEXT_BYTES_MAX`] bytes; `None` is the end. All pieces together
    /// are the lines, each behind its number and a space.
    ///
    /// # Errors
    /// [`HistoryError::Storage`].
    pub fn next_piece(&mut self) -> Result<Option<&[u8]>, HistoryError> {
        self.piece.clear();
        self.fill_piece().map_err(HistoryError::Storage)?;
        Ok(Some(self.piece.as_slice()).filter(|piece| !piece.is_empty()))
    }

    fn fill_piece(&mut self) -> io::Result<()> {
        loop {
            let room = TEXT_BYTES_MAX - self.piece.len();
            if self.at_line_start {
                if room < self.number.len() + 2 || self.input.fill_buf()?.is_empty() {
                    return Ok(());
                }
                self.piece.extend_from_slice(&self.number);
                self.piece.push(b' ');
                count_up(&mut self.number);
            }
            let room = (TEXT_BYTES_MAX - self.piece.len()) as u64;
            let mut input = (&mut self.input).take(room);
            if input.read_until(b'\n', &mut self.piece)? == 0 {
                return Ok(());
            }
            self.at_line_start = self.piece.ends_with(b"\n");
        }
    }
}

/// Adds one to a number in digits.
fn count_up(digits: &mut Vec<u8>) {
    for digit in digits.iter_mut().rev() {
        if *digit < b'9' {
            *digit += 1;
            return;
        }
        *digit = b'0';
    }
    digits.insert(0, b'1');
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::thread;

    use tempfile::TempDir;

    use super::*;

    struct Dir(TempDir);

    impl Dir {
        fn with(text: impl AsRef<[u8]>) -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(FILE_NAME), text).unwrap();
            Self(dir)
        }

        fn open(&self) -> History {
            History::open(self.0.path()).unwrap()
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// The file, byte for byte. Nothing else may be left in the folder.
        #[track_caller]
        fn text(&self) -> String {
            let names = fs::read_dir(self.0.path()).unwrap();
            let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, [FILE_NAME]);
            fs::read_to_string(self.path(FILE_NAME)).unwrap()
        }
    }

    /// Reads a snapshot to its end. No piece is too long for a frame.
    fn read(mut snapshot: Snapshot) -> String {
        let mut text = Vec::new();
        while let Some(piece) = snapshot.next_piece().unwrap() {
            assert!(piece.len() <= TEXT_BYTES_MAX);
            text.extend_from_slice(piece);
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
        history.append("alice 2").unwrap();
        history.append("two\nlines\r\\ \u{2028}").unwrap();
        let want = "old\nalice 2\ntwo\\nlines\\r\\\\ \\u{2028}\n";
        assert_eq!(dir.text(), want);
        assert_eq!(read(history.snapshot().unwrap()), numbered(want));
        assert_eq!(read(dir.open().snapshot().unwrap()), numbered(want));
    }

    #[test]
    fn what_is_missing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("a/b");
        let history = History::open(&below).unwrap();
        assert_eq!(read(history.snapshot().unwrap()), "");
        history.append("x").unwrap();
        assert_eq!(fs::read_to_string(below.join(FILE_NAME)).unwrap(), "x\n");
    }

    #[test]
    fn what_cannot_be_opened_is_named() {
        let dir = Dir::with("");
        let error = |path: &Path| History::open(path).err().unwrap().to_string();
        let file = dir.path(FILE_NAME);
        assert_eq!(error(&file), format!("cannot open {}", file.display()));
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert_eq!(
            error(dir.0.path()),
            format!("cannot open {}", file.display())
        );
    }

    #[track_caller]
    fn check_cut(text: &str, want: &str) {
        let dir = Dir::with(text);
        dir.open().append("x").unwrap();
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
        history.append("next").unwrap();
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
        history.append("bob 2").unwrap();
        assert_eq!(dir.text(), "alice deleted\\nthe history\nbob 2\n");
    }

    #[test]
    fn a_stale_new_file_is_overwritten() {
        let dir = Dir::with("a\nb\n");
        fs::write(dir.path(NEW_FILE_NAME), "what a crash left").unwrap();
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
        fs::create_dir(dir.path(NEW_FILE_NAME)).unwrap();
        for failed in [history.delete(1), history.clear("x")] {
            assert!(matches!(failed, Err(HistoryError::Storage(_))));
        }
        fs::remove_dir(dir.path(NEW_FILE_NAME)).unwrap();
        assert_eq!(dir.text(), "a\nb\n");
        history.delete(1).unwrap();
        assert_eq!(dir.text(), "b\n");
    }

    #[test]
    fn a_full_disk_is_an_error_and_not_the_end() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/dev/full", dir.path().join(FILE_NAME)).unwrap();
        let history = History::open(dir.path()).unwrap();
        for _ in 0..2 {
            let failed = history.append("x");
            assert!(matches!(failed, Err(HistoryError::Storage(_))));
        }
        assert!(!history.is_unsure());
    }

    #[test]
    fn half_a_line_is_taken_back() {
        let dir = Dir::with("a\n");
        let log = Log::open(dir.0.path()).unwrap();
        (&*log.file).write_all(b"half").unwrap();
        log.cut_to(2).unwrap();
        assert_eq!(dir.text(), "a\n");
    }

    #[test]
    fn nothing_is_changed_once_the_disk_is_unsure() {
        let dir = Dir::with("a\n");
        let history = dir.open();
        lock(&history.log).unsure = true;
        for refused in [history.append("x"), history.delete(1), history.clear("x")] {
            assert!(matches!(refused, Err(HistoryError::Ended)));
        }
        assert!(history.is_unsure());
        assert_eq!(dir.text(), "a\n");
    }

    #[test]
    fn lines_are_numbered_across_pieces() {
        let long = "y".repeat(2 * TEXT_BYTES_MAX + 1);
        for length in [0, 1, 57, 4096, TEXT_BYTES_MAX - 2, TEXT_BYTES_MAX - 1] {
            let line = format!("{}\n", "x".repeat(length));
            let text = format!("{}{long}\n{line}", line.repeat(120));
            let dir = Dir::with(&text);
            assert_eq!(read(dir.open().snapshot().unwrap()), numbered(&text));
        }
    }

    #[test]
    fn numbers_grow_by_one() {
        let mut digits = vec![b'1'];
        for number in 1..=1001 {
            assert_eq!(digits, number.to_string().as_bytes());
            count_up(&mut digits);
        }
    }

    #[test]
    fn a_snapshot_stays_as_it_was() {
        let text = "a line\n".repeat(100_000);
        let dir = Dir::with(&text);
        let history = dir.open();
        let snapshot = history.snapshot().unwrap();
        history.append("later").unwrap();
        let with_later = history.snapshot().unwrap();
        history.delete(1).unwrap();
        history.clear("alice deleted the history").unwrap();
        assert_eq!(read(snapshot), numbered(&text));
        assert_eq!(read(with_later), numbered(&format!("{text}later\n")));
        assert_eq!(
            read(history.snapshot().unwrap()),
            "1 alice deleted the history\n"
        );
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
                        history.append(&format!("{writer} {record}")).unwrap();
                        if record % 10 == 9 {
                            history.delete(1).unwrap();
                        }
                    }
                });
            }
            for _ in 0..RECORDS {
                let text = read(history.snapshot().unwrap());
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
