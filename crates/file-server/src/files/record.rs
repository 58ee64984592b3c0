//! The record of a resumable upload: a file beside the temporary one that says how much of the upload
//! is on the disk, and which request began it.
//!
//! The first line is the [`Progress`]. It has a fixed length and is written in place. It counts only
//! the bytes that were synced: after a failed sync or a power failure the temporary file may be longer
//! than what the disk has of it. The line is written after that sync, so an older line is right too; it
//! needs a sync of its own only before a client relies on it. Behind it stands the head of the request.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use cli::args::DURATION_MAX;
use rustix::fs::OFlags;

use super::disk::Disk;
use crate::error::FilesError;

/// How the name of a record ends, after the name of the upload.
pub(super) const SUFFIX: &str = ".head";

/// How its name ends until it is complete.
pub(super) const NEW_SUFFIX: &str = ".head.new";

/// The length of the first line, with its line feed.
const LINE_BYTES: usize = 72;

/// The longest record that is read, in bytes: the head in it is at most twice as long as a request's.
const BYTES_MAX: u64 = 32 * 1024;

/// The stage of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It is incomplete.
    Arriving,
    /// It is being renamed. If the temporary file is gone, it was renamed.
    Placing,
    /// It is at its destination, on the disk.
    Finished,
}

impl Stage {
    fn word(self) -> &'static str {
        match self {
            Self::Arriving => "arriving",
            Self::Placing => "placing",
            Self::Finished => "finished",
        }
    }
}

/// The progress of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) stage: Stage,
    /// The bytes that are on the disk.
    pub(super) synced_bytes: u64,
    /// The length of the file, if it is known.
    pub(super) length: Option<u64>,
    /// How long the upload is kept if nobody continues it.
    pub(super) keep: Duration,
}

impl Progress {
    fn encode(&self) -> String {
        let length = self
            .length
            .map_or("-".to_owned(), |length| length.to_string());
        format!(
            "{:<8} {:>20} {length:>20} {:>20}\n",
            self.stage.word(),
            self.synced_bytes,
            self.keep.as_secs()
        )
    }

    fn decode(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
        let mut words = line.split_ascii_whitespace();
        let stage = words.next()?;
        let stages = [Stage::Arriving, Stage::Placing, Stage::Finished];
        let progress = Self {
            stage: stages.into_iter().find(|known| known.word() == stage)?,
            synced_bytes: words.next()?.parse().ok()?,
            length: match words.next()? {
                "-" => None,
                length => Some(length.parse().ok()?),
            },
            // No server keeps an upload longer, whatever the file says.
            keep: Duration::from_secs(words.next()?.parse().ok()?).min(DURATION_MAX),
        };
        words.next().is_none().then_some(progress)
    }
}

/// The record of an upload. While it is locked, no other server touches the upload.
pub(super) struct Record {
    file: File,
    progress: Progress,
}

impl Record {
    /// Creates the record of the upload `name`. When this returns, the names of both are on the disk.
    pub(super) fn create(
        folder: &Dir,
        name: &str,
        progress: Progress,
        head: &[u8],
        disk: &Disk,
    ) -> Result<Self, FilesError> {
        let new = format!("{name}{NEW_SUFFIX}");
        let create = || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(0o600);
            let mut file = folder.open_with(&new, &options)?.into_std();
            // Where files cannot be locked, there is no other server.
            let _ = file.try_lock();
            file.write_all(progress.encode().as_bytes())?;
            file.write_all(head)?;
            disk.sync_all(&file)?;
            folder.rename(&new, folder, file_name(name))?;
            disk.sync_folder(folder)?;
            Ok(Self { file, progress })
        };
        create().inspect_err(|_| {
            // Without the rest it is of no use.
            let _ = folder.remove_file(&new);
            let _ = folder.remove_file(file_name(name));
        })
    }

    /// Opens the record of the upload `name`, and reads the request's head in it.
    ///
    /// # Errors
    /// [`FilesError::NotFound`] if there is no record, and those of the disk.
    pub(super) fn open(folder: &Dir, name: &str) -> Result<(Self, Vec<u8>), FilesError> {
        // Others who may write in the folder may have put something else there.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options.custom_flags(flags.bits() as i32);
        let file = folder.open_with(file_name(name), &options)?.into_std();
        if !file.metadata()?.is_file() {
            return Err(FilesError::NotFound);
        }
        let mut bytes = Vec::new();
        (&file).take(BYTES_MAX).read_to_end(&mut bytes)?;
        let (line, head) = bytes
            .split_at_checked(LINE_BYTES)
            .ok_or(FilesError::NotFound)?;
        let progress = Progress::decode(line).ok_or(FilesError::NotFound)?;
        let head = head.to_owned();
        Ok((Self { file, progress }, head))
    }

    /// Locks the upload against other servers.
    ///
    /// # Errors
    /// [`FilesError::InUse`] if another server has locked it.
    pub(super) fn lock(&self) -> Result<(), FilesError> {
        match self.file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(FilesError::InUse),
            // Where files cannot be locked, there is no other server.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
        }
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress
    }

    /// Writes the progress, without a sync.
    pub(super) fn write(&mut self, progress: Progress) -> io::Result<()> {
        self.file.write_all_at(progress.encode().as_bytes(), 0)?;
        self.progress = progress;
        Ok(())
    }

    /// Syncs the progress. It is written once more: that it can be read does not mean that it is on the
    /// disk.
    pub(super) fn save(&mut self, disk: &Disk) -> Result<(), FilesError> {
        self.write(self.progress)?;
        disk.sync_data(&self.file)
    }
}

/// The name of the record of the upload `name`.
pub(super) fn file_name(name: &str) -> String {
    format!("{name}{SUFFIX}")
}

/// How much of the time is left that an upload, or the record of a finished one, is kept.
pub(super) fn time_left(folder: &Dir, name: &str, keep: Duration) -> Duration {
    let there = folder
        .metadata(name)
        .or_else(|_| folder.metadata(file_name(name)));
    let age = match there.and_then(|there| there.modified()) {
        Ok(modified) => modified.into_std().elapsed().unwrap_or_default(),
        Err(_) => Duration::ZERO,
    };
    keep.saturating_sub(age)
}

/// Removes the record of an upload. Without it, nobody can continue the upload.
pub(super) fn remove(folder: &Dir, name: &str) {
    match folder.remove_file(file_name(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            log::warn!("{name}{SUFFIX} stays behind: {error}");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_round_trips_and_has_one_length() {
        for stage in [Stage::Arriving, Stage::Placing, Stage::Finished] {
            for (synced_bytes, length) in [(0, None), (7, Some(0)), (u64::MAX, Some(u64::MAX))] {
                let progress = Progress {
                    stage,
                    synced_bytes,
                    length,
                    keep: DURATION_MAX,
                };
                let line = progress.encode();
                assert_eq!(line.len(), LINE_BYTES);
                assert_eq!(Progress::decode(line.as_bytes()), Some(progress));
                for end in 0..LINE_BYTES {
                    assert_eq!(Progress::decode(&line.as_bytes()[..end]), None);
                }
            }
        }
    }

    #[test]
    fn no_upload_is_kept_for_ever() {
        let progress = Progress {
            stage: Stage::Arriving,
            synced_bytes: 0,
            length: None,
            keep: Duration::from_secs(u64::MAX),
        };
        let decoded = Progress::decode(progress.encode().as_bytes());
        assert_eq!(decoded.unwrap().keep, DURATION_MAX);
    }

    #[test]
    fn another_line_is_none() {
        for line in [
            "\n",
            "done 1 - 1\n",
            "arriving -1 - 1\n",
            "arriving 1 - 1 1\n",
        ] {
            assert_eq!(Progress::decode(line.as_bytes()), None, "{line}");
        }
    }
}
