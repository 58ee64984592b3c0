//! Recovery of an append-only text file at the start of a server.
//!
//! Two things may be wrong with it after a crash. Its last line may be torn: it was being written and
//! was never acknowledged, so it is cut off. And its newest lines may be in the page cache alone,
//! because the last sync of the previous server failed: everything above the watermark is written
//! again and synced. Any other line that is damaged stops the start.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;

use rustix::fs::{OFlags, fcntl_setfl};

use crate::data_folder::sync_folder;
use crate::replacement::remove_unfinished;
use crate::{DataFile, StorageError, watermark};

/// What a line looks like to the service that knows its format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// It is as it was written.
    Sound,
    /// It may be a part of a record that was being written when the server crashed. As the last line
    /// it is cut off.
    Torn,
    /// It contains records that were acknowledged, and is not as they were written.
    Damaged,
}

/// The longest line, in bytes: more than a message of 64 KiB with every byte escaped.
pub(crate) const LINE_BYTES_MAX: u64 = 1 << 20;

/// How much of a line that is cut off the log shows, in bytes.
const SHOWN_BYTES_MAX: usize = 160;

/// How much is read at once, in bytes.
const BLOCK_BYTES: usize = 1 << 16;

/// A text file that is open, locked, scanned, and not yet changed.
#[derive(Debug)]
#[must_use = "nothing of it is known to be on the disk"]
pub struct Scanned {
    data: DataFile,
    /// Where the last sound line ends.
    sound_bytes: u64,
}

impl Scanned {
    /// Shows each line of a file without its line feed to `check`, with `true` if it has one. A last
    /// line without a line feed is cut off in any case.
    ///
    /// # Errors
    /// If the file cannot be read. [`StorageError::Damaged`] if a line is damaged, or torn
    /// and not the last.
    pub fn lines(
        data: DataFile,
        mut check: impl FnMut(&[u8], bool) -> Line,
    ) -> Result<Self, StorageError> {
        let mut input = BufReader::with_capacity(BLOCK_BYTES, &**data.file());
        let mut line = Vec::new();
        let mut sound_bytes = 0;
        let mut torn_line = None;
        for number in 1.. {
            line.clear();
            let mut limited = input.by_ref().take(LINE_BYTES_MAX);
            let read = limited.read_until(b'\n', &mut line);
            if read.map_err(StorageError::open(data.path()))? == 0 {
                break;
            }
            let damaged = |line| StorageError::Damaged {
                path: data.path().to_owned(),
                line,
            };
            if let Some(number) = torn_line {
                return Err(damaged(number));
            }
            let record = line.strip_suffix(b"\n");
            match check(record.unwrap_or(&line), record.is_some()) {
                Line::Damaged => return Err(damaged(number)),
                Line::Sound if record.is_some() => sound_bytes += line.len() as u64,
                Line::Sound | Line::Torn => torn_line = Some(number),
            }
        }
        Ok(Self { data, sound_bytes })
    }

    /// Looks only for the end of a file's last line.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn end(data: DataFile) -> Result<Self, StorageError> {
        let sound_bytes = end_of_last_line(data.file()).map_err(StorageError::open(data.path()))?;
        Ok(Self { data, sound_bytes })
    }

    /// Cuts off what is behind the last sound line, with a warning that shows it, writes again what
    /// is above the watermark, and syncs. Returns the file, set to append, and its length.
    ///
    /// # Errors
    /// [`StorageError::Open`].
    pub(crate) fn recover(self) -> Result<(DataFile, u64), StorageError> {
        let Self { data, sound_bytes } = self;
        let file = data.file();
        let path = data.path();
        let recover = || {
            let synced_bytes = watermark::read(file)?.min(sound_bytes);
            // Another program may have written to the file since. Until this sync has succeeded,
            // nothing is known to be on the disk.
            watermark::write(file, 0)?;
            let file_bytes = file.metadata()?.len();
            if file_bytes > sound_bytes {
                let shown_bytes = (file_bytes - sound_bytes).min(SHOWN_BYTES_MAX as u64);
                let mut cut_off = vec![0; shown_bytes as usize];
                file.read_exact_at(&mut cut_off, sound_bytes)?;
                let (path, shown) = (path.display(), cut_off.escape_ascii());
                log::warn!("The last line of {path} is not whole and is cut off: {shown}");
                file.set_len(sound_bytes)?;
            }
            watermark::rewrite(file, synced_bytes, sound_bytes)?;
            file.sync_all()?;
            match fs::canonicalize(path) {
                Ok(real_path) => sync_folder(&real_path)?,
                // It has just been renamed. The first commit notices that.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            watermark::write(file, sound_bytes)?;
            remove_unfinished(&data);
            // Last, because it makes every write go to the end.
            fcntl_setfl(file, OFlags::APPEND).map_err(io::Error::from)
        };
        recover().map_err(StorageError::open(path))?;
        Ok((data, sound_bytes))
    }
}

/// Where the last line feed ends. It is searched for from the end.
fn end_of_last_line(file: &File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut block = vec![0; BLOCK_BYTES];
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
