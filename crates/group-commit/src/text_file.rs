//! A file of lines that is only ever appended to, or replaced as a whole.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{CommitError, Fsync};

/// An append-only file of lines. What was committed ends at a known length; whatever a failed
/// write or a crash leaves behind it is cut off.
#[derive(Debug)]
pub struct TextFile {
    path: PathBuf,
    file: Arc<File>,
    fsync: Fsync,
    committed_bytes: u64,
    pending: Vec<u8>,
}

/// What a line looks like to whoever knows the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// As it was written.
    Sound,
    /// It may be half of a record that was being written when the server died; as the last line
    /// it can be cut off.
    Torn,
    /// It is no part of one record, so records that were acknowledged are in it.
    Damaged,
}

/// Why a file could not be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// It could not be opened, read, cut or synced.
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A line that is not the last is damaged. The file was left untouched.
    Damaged {
        /// The file.
        path: PathBuf,
        /// The number of the line, from 1.
        line: u64,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, .. } => write!(f, "cannot open {}", path.display()),
            Self::Damaged { path, line } => write!(
                f,
                "line {line} of {} is damaged; restore the file, or remove the line to go on \
                 without it",
                path.display()
            ),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { cause, .. } => Some(cause),
            Self::Damaged { .. } => None,
        }
    }
}

/// The longest line, in bytes: far more than a message of 64 KiB with every byte escaped.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// How much of a line that is cut off is shown, in bytes.
const SHOWN_BYTES_MAX: usize = 160;

/// Memory for pending lines that is kept from one commit to the next, in bytes.
const PENDING_BYTES_KEPT: usize = 1 << 20;

impl TextFile {
    /// Opens a file, making it if it does not exist, and shows every line, without its line feed,
    /// to `look`; with `true` if it had one, for a line without it is cut off however it looks.
    ///
    /// A last line that is torn, or has no end, was never acknowledged, or cannot be told from one
    /// that was not: it is cut off, with a warning that shows it. What was read is synced, so that
    /// nothing is served that a power cut could still take.
    ///
    /// # Errors
    /// If the file cannot be opened, or a line is damaged, or torn and not the last.
    pub fn open(
        path: &Path,
        fsync: Fsync,
        mut look: impl FnMut(&[u8], bool) -> Line,
    ) -> Result<Self, OpenError> {
        let file = open_to_append(path)?;
        let mut input = BufReader::with_capacity(1 << 16, &file);
        let mut line = Vec::new();
        let mut sound_bytes = 0;
        let mut torn_line = None;
        for number in 1.. {
            line.clear();
            let mut limited = input.by_ref().take(LINE_BYTES_MAX);
            let read = limited.read_until(b'\n', &mut line);
            if read.map_err(failed(path))? == 0 {
                break;
            }
            let damaged = |line| OpenError::Damaged {
                path: path.to_owned(),
                line,
            };
            if let Some(number) = torn_line {
                return Err(damaged(number));
            }
            let record = line.strip_suffix(b"\n");
            match look(record.unwrap_or(&line), record.is_some()) {
                Line::Damaged => return Err(damaged(number)),
                Line::Sound if record.is_some() => sound_bytes += line.len() as u64,
                Line::Sound | Line::Torn => torn_line = Some(number),
            }
        }
        Self::cut_and_sync(path, file, fsync, sound_bytes)
    }

    /// Opens a file, making it if it does not exist, and looks at the end of it alone: a last line
    /// that has no end is cut off, with a warning that shows it. What is there is synced.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open_at_end(path: &Path, fsync: Fsync) -> Result<Self, OpenError> {
        let file = open_to_append(path)?;
        let end = end_of_last_line(&file).map_err(failed(path))?;
        Self::cut_and_sync(path, file, fsync, end)
    }

    fn cut_and_sync(
        path: &Path,
        file: File,
        fsync: Fsync,
        sound_bytes: u64,
    ) -> Result<Self, OpenError> {
        let cut_and_sync = || {
            let mut cut_off = [0; SHOWN_BYTES_MAX];
            let shown_bytes = file.read_at(&mut cut_off, sound_bytes)?;
            if shown_bytes > 0 {
                let path = path.display();
                let shown = cut_off[..shown_bytes].escape_ascii();
                log::warn!("The last line of {path} is not whole and is cut off: {shown}");
                file.set_len(sound_bytes)?;
            }
            file.sync_all()?;
            sync_folder(path)
        };
        cut_and_sync().map_err(failed(path))?;
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(file),
            fsync,
            committed_bytes: sound_bytes,
            pending: Vec::new(),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file and how many bytes of it are committed: a snapshot that stays as it is, whatever
    /// is appended behind it or put in the file's place.
    pub fn snapshot(&self) -> (Arc<File>, u64) {
        (Arc::clone(&self.file), self.committed_bytes)
    }

    /// Where to put the lines that the next commit is to append, each with its line feed.
    pub fn pending(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// Appends what is pending and waits until it is on the disk.
    ///
    /// # Errors
    /// [`CommitError::Refused`] after a failed write: the file is as it was.
    /// [`CommitError::Lost`] after a failed sync, or if the file could not be cut back.
    pub fn commit(&mut self) -> Result<(), CommitError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let pending_bytes = self.pending.len() as u64;
        let written = (&*self.file).write_all(&self.pending);
        self.pending.clear();
        self.pending.shrink_to(PENDING_BYTES_KEPT);
        if let Err(cause) = written {
            let cut_back = self.file.set_len(self.committed_bytes);
            cut_back.map_err(CommitError::Lost)?;
            return Err(CommitError::Refused(cause));
        }
        if self.fsync == Fsync::Always {
            self.file.sync_data().map_err(CommitError::Lost)?;
        }
        self.committed_bytes += pending_bytes;
        Ok(())
    }

    /// Replaces the whole file by what `write` writes, followed by what is pending: a temporary
    /// file beside it, synced and renamed, so that a crash at any moment leaves the old contents
    /// or the new.
    ///
    /// # Errors
    /// [`CommitError::Refused`] if the new contents could not be written: the file is as it was.
    /// [`CommitError::Lost`] after a failed sync or rename.
    pub fn replace(
        &mut self,
        write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
    ) -> Result<(), CommitError> {
        let pending = std::mem::take(&mut self.pending);
        let temporary = Temporary::beside(&self.path).map_err(CommitError::Refused)?;
        let file = Arc::clone(&temporary.file);
        // Who may read the old file, and nobody else, may read the new one.
        let permissions = self.file.metadata().map(|old| old.permissions());
        permissions
            .and_then(|permissions| file.set_permissions(permissions))
            .map_err(CommitError::Refused)?;
        let mut output = BufWriter::with_capacity(1 << 16, &*file);
        write(&mut output)
            .and_then(|()| output.write_all(&pending))
            .and_then(|()| output.flush())
            .map_err(CommitError::Refused)?;
        drop(output);
        // Even without --fsync: after a power cut, a file that was renamed before it was written
        // could be empty.
        file.sync_all().map_err(CommitError::Lost)?;
        let committed_bytes = file.metadata().map_err(CommitError::Refused)?.len();
        // From here on it is not known which of the two files has the name.
        temporary.rename_to(&self.path).map_err(CommitError::Lost)?;
        self.file = file;
        self.committed_bytes = committed_bytes;
        if self.fsync == Fsync::Always {
            sync_folder(&self.path).map_err(CommitError::Lost)?;
        }
        Ok(())
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> OpenError {
    move |cause| OpenError::Io {
        path: path.to_owned(),
        cause,
    }
}

fn open_to_append(path: &Path) -> Result<File, OpenError> {
    let mut options = OpenOptions::new();
    let options = options.read(true).append(true).create(true);
    options.open(path).map_err(failed(path))
}

/// Where the last line feed ends, looking back from the end.
fn end_of_last_line(file: &File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut block = vec![0; 1 << 16];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let block = &mut block[..(end - start) as usize];
        file.read_exact_at(block, start)?;
        if let Some(at) = block.iter().rposition(|b| *b == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Makes a folder, and those it is in, where they do not exist, so that a power cut leaves them.
///
/// # Errors
/// If one cannot be made or synced.
pub fn make_folder(path: &Path) -> io::Result<()> {
    if path == Path::new("") || path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_folder(parent)?;
    }
    match fs::create_dir(path) {
        // Somebody else may have been faster.
        Err(error) if !path.is_dir() => Err(error),
        _ => sync_folder(path),
    }
}

/// Syncs the folder a file is in, so that the file's name is on the disk too.
///
/// # Errors
/// Those of the folder.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

/// A file on its way to another's place. Dropping it before that removes it.
#[must_use = "dropping it removes the file"]
struct Temporary {
    path: PathBuf,
    file: Arc<File>,
    renamed: bool,
}

impl Temporary {
    /// An empty file with a hidden name derived from `path`; what an earlier crash left under that
    /// name is overwritten.
    fn beside(path: &Path) -> io::Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let path = path.with_file_name(format!(".{name}.new"));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .append(true)
            .create_new(true)
            .open(&path)?;
        Ok(Self {
            path,
            file: Arc::new(file),
            renamed: false,
        })
    }

    fn rename_to(mut self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            // What cannot be removed now is overwritten the next time.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> Result<TextFile, OpenError> {
        let look = |line: &[u8], _| match line {
            b"bad" => Line::Torn,
            b"worse" => Line::Damaged,
            _ => Line::Sound,
        };
        TextFile::open(path, Fsync::Always, look)
    }

    fn put(file: &mut TextFile, lines: &str) {
        file.pending().extend_from_slice(lines.as_bytes());
        file.commit().unwrap();
    }

    #[test]
    fn a_file_cut_anywhere_keeps_its_whole_lines_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        let whole = "first\n\nthird line\n";
        for cut in 0..=whole.len() {
            let kept = &whole[..whole[..cut].rfind('\n').map_or(0, |at| at + 1)];
            for open in [open, |path: &Path| {
                TextFile::open_at_end(path, Fsync::Always)
            }] {
                fs::write(&path, &whole[..cut]).unwrap();
                let mut file = open(&path).unwrap();
                assert_eq!(fs::read_to_string(&path).unwrap(), kept, "cut at {cut}");
                put(&mut file, "more\n");
                drop(file);
                open(&path).unwrap();
                assert_eq!(fs::read_to_string(&path).unwrap(), format!("{kept}more\n"));
            }
        }
    }

    #[test]
    fn a_torn_line_is_cut_off_at_the_end_and_refused_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        fs::write(&path, "one\nbad\n").unwrap();
        open(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\n");
        for damaged in ["one\nbad\nthree\n", "one\nworse\n", "one\nworse"] {
            fs::write(&path, damaged).unwrap();
            match open(&path) {
                Err(OpenError::Damaged { line: 2, .. }) => {}
                other => panic!("{other:?}"),
            }
            assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
        }
    }

    #[test]
    fn a_line_that_never_ends_takes_no_more_memory_than_a_line_may() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        fs::write(&path, vec![b'x'; LINE_BYTES_MAX as usize + 1]).unwrap();
        open(&path).unwrap_err();
        let file = TextFile::open_at_end(&path, Fsync::Always).unwrap();
        assert_eq!(file.snapshot().1, 0);
    }

    #[test]
    fn a_snapshot_stays_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        let mut file = open(&path).unwrap();
        put(&mut file, "one\ntwo\n");
        let (before, bytes) = file.snapshot();
        put(&mut file, "three\n");
        file.pending().extend_from_slice(b"four\n");
        file.replace(|out| out.write_all(b"new\n")).unwrap();
        put(&mut file, "five\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\nfour\nfive\n");
        let mut text = vec![0; bytes as usize];
        before.read_exact_at(&mut text, 0).unwrap();
        assert_eq!(text, b"one\ntwo\n");
    }

    #[test]
    fn a_replacement_that_fails_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        let mut file = open(&path).unwrap();
        put(&mut file, "one\n");
        let full = |_: &mut BufWriter<&File>| Err(io::ErrorKind::StorageFull.into());
        match file.replace(full) {
            Err(CommitError::Refused(_)) => {}
            other => panic!("{other:?}"),
        }
        put(&mut file, "two\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
