//! What a start does with a text file: it reads the lines, cuts off what was never acknowledged, and
//! brings to the disk what may have been read from the cache alone.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{OFlags, fcntl_setfl};

use super::TextFile;
use crate::folder::sync_folder;
use crate::replacement::remove_left_beside;
use crate::{DataFile, Fsync, Limits, StorageError, mark};

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

/// The longest line, in bytes: far more than a message of 64 KiB with every byte escaped.
pub(super) const LINE_BYTES_MAX: u64 = 1 << 20;

/// How much of a line that is cut off is shown, in bytes.
const SHOWN_BYTES_MAX: usize = 160;

impl TextFile {
    /// Opens and locks a file, making it if it does not exist, and shows every line, without its
    /// line feed, to `look`; with `true` if it had one, for a line without it is cut off however it
    /// looks.
    ///
    /// A last line that is torn, or has no end, was never acknowledged, or cannot be told from one
    /// that was not: it is cut off, with a warning that shows it. What may have been read from the
    /// cache alone is written again, and all is synced, so that nothing is served that a power cut
    /// could still take.
    ///
    /// # Errors
    /// If the file cannot be opened, or a line is damaged, or torn and not the last.
    pub fn open(
        path: &Path,
        fsync: Fsync,
        look: impl FnMut(&[u8], bool) -> Line,
    ) -> Result<Self, StorageError> {
        Self::read(path, look)?.recover(fsync)
    }

    /// The first half of [`TextFile::open`], which changes nothing: for whoever knows only when all
    /// is read whether it is sound.
    ///
    /// # Errors
    /// Those of [`TextFile::open`].
    pub fn read(
        path: &Path,
        mut look: impl FnMut(&[u8], bool) -> Line,
    ) -> Result<ReadFile, StorageError> {
        let data = DataFile::open(path)?;
        let mut input = BufReader::with_capacity(1 << 16, &**data.file());
        let mut line = Vec::new();
        let mut sound_bytes = 0;
        let mut torn_line = None;
        for number in 1.. {
            line.clear();
            let mut limited = input.by_ref().take(LINE_BYTES_MAX);
            let read = limited.read_until(b'\n', &mut line);
            if read.map_err(StorageError::open(path))? == 0 {
                break;
            }
            let damaged = |line| StorageError::Damaged {
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
        Ok(ReadFile { data, sound_bytes })
    }

    /// Opens and locks a file, making it if it does not exist, and looks at the end of it alone: a
    /// last line that has no end is cut off, with a warning that shows it. What is there is synced,
    /// as [`TextFile::open`] does it.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open_at_end(path: &Path, fsync: Fsync) -> Result<Self, StorageError> {
        let data = DataFile::open(path)?;
        let sound_bytes = end_of_last_line(data.file()).map_err(StorageError::open(path))?;
        ReadFile { data, sound_bytes }.recover(fsync)
    }
}

/// A file that was read, and locked, and not yet touched.
#[derive(Debug)]
#[must_use = "nothing of it is known to be on the disk"]
pub struct ReadFile {
    data: DataFile,
    /// How long it is up to the end of its last sound line.
    sound_bytes: u64,
}

impl ReadFile {
    /// Cuts off what is behind the last sound line, and brings to the disk what was read.
    ///
    /// # Errors
    /// If that cannot be done.
    pub fn recover(self, fsync: Fsync) -> Result<TextFile, StorageError> {
        let Self { data, sound_bytes } = self;
        let file = data.file();
        let path = data.path();
        let recover = || {
            let synced_bytes = mark::read(file)?.min(sound_bytes);
            // If this start is broken off, or its sync fails, the next one believes nothing: another
            // program may have written to the file since, too.
            mark::write(file, 0)?;
            let file_bytes = file.metadata()?.len();
            if file_bytes > sound_bytes {
                let shown_bytes = (file_bytes - sound_bytes).min(SHOWN_BYTES_MAX as u64);
                let mut cut_off = vec![0; shown_bytes as usize];
                file.read_exact_at(&mut cut_off, sound_bytes)?;
                let (path, shown) = (path.display(), cut_off.escape_ascii());
                log::warn!("The last line of {path} is not whole and is cut off: {shown}");
                file.set_len(sound_bytes)?;
            }
            mark::write_again(file, synced_bytes, sound_bytes)?;
            file.sync_all()?;
            match fs::canonicalize(path) {
                Ok(real_path) => sync_folder(&real_path)?,
                // It was moved away just now, which the first commit notices.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            mark::write(file, sound_bytes)?;
            remove_left_beside(&data);
            // Not before, for then every write would go to the end.
            fcntl_setfl(file, OFlags::APPEND).map_err(io::Error::from)
        };
        recover().map_err(StorageError::open(path))?;
        Ok(TextFile {
            data,
            fsync,
            committed_bytes: sound_bytes,
            marked_bytes: sound_bytes,
            pending: Vec::new(),
            limits: Limits::default(),
            opened_bytes: sound_bytes,
            free_bytes: None,
            reopening: None,
            is_reopened: false,
            is_full: false,
            is_lost: false,
        })
    }
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
