//! What is kept on disk beside an upload that can be gone on with: how far it has come, and the head
//! of the request that began it.
//!
//! The first line is written in place, and always has the same length. It counts the bytes that a
//! sync has put on the disk, and no others: after a sync that failed, or a machine that stopped, the
//! file may be longer than what is there of it. As it is written after that sync, an older line than
//! the last is right too, and it needs a sync of its own only before a client is told of it.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use cli::args::DURATION_MAX;
use rustix::fs::OFlags;

use super::FilesError;
use super::disk::Disk;

/// What a record is called, behind the name of the upload.
pub(super) const SUFFIX: &str = ".head";

/// What it is called until it is whole.
pub(super) const NEW_SUFFIX: &str = ".head.new";

/// The length of the first line, with its line feed.
const LINE_BYTES: usize = 72;

/// The longest record that is read, in bytes: the head in it is at most twice as long as a request's.
const BYTES_MAX: u64 = 32 * 1024;

/// How far an upload has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not all of it is there.
    Arriving,
    /// It is being put in its place. If it is not where it arrived any more, it is there.
    Placing,
    /// It is in its place, on the disk.
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

/// The first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) stage: Stage,
    /// So many bytes are on the disk.
    pub(super) synced_bytes: u64,
    /// How long the file is, if that is known.
    pub(super) length: Option<u64>,
    /// How long this is kept if nobody goes on with it.
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
            // Not longer than any server says, whatever stands there.
            keep: Duration::from_secs(words.next()?.parse().ok()?).min(DURATION_MAX),
        };
        words.next().is_none().then_some(progress)
    }
}

/// The record of an upload. While it is open and locked, no other server touches the upload.
pub(super) struct Record {
    file: File,
    progress: Progress,
}

impl Record {
    /// Begins the record of the upload `name`. When this returns, both are on the disk.
    pub(super) fn create(
        folder: &Dir,
        name: &str,
        progress: Progress,
        head: &[u8],
        disk: &Disk,
    ) -> Result<Self, FilesError> {
        let new = format!("{name}{NEW_SUFFIX}");
        let created = Self::write(folder, &new, name, progress, head, disk);
        created.inspect_err(|_| {
            // It is not there, or of no use.
            let _ = folder.remove_file(&new);
            let _ = folder.remove_file(file_name(name));
        })
    }

    fn write(
        folder: &Dir,
        new: &str,
        name: &str,
        progress: Progress,
        head: &[u8],
        disk: &Disk,
    ) -> Result<Self, FilesError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let mut file = folder.open_with(new, &options)?.into_std();
        // Where files cannot be locked, there is no other server.
        let _ = file.try_lock();
        file.write_all(progress.encode().as_bytes())?;
        file.write_all(head)?;
        disk.sync_all(&file)?;
        folder.rename(new, folder, file_name(name))?;
        disk.sync_folder(folder)?;
        Ok(Self { file, progress })
    }

    /// Opens the record of the upload `name`, and reads the head in it.
    ///
    /// # Errors
    /// [`FilesError::NotFound`] also for what is no record.
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

    /// Keeps other servers from the upload.
    ///
    /// # Errors
    /// [`FilesError::InUse`] if another server is at it.
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

    /// Changes the first line, without a sync.
    pub(super) fn note(&mut self, progress: Progress) -> io::Result<()> {
        self.file.write_all_at(progress.encode().as_bytes(), 0)?;
        self.progress = progress;
        Ok(())
    }

    /// Puts the first line on the disk. It is written once more: that it reads right does not mean
    /// that the disk has it.
    pub(super) fn save(&mut self, disk: &Disk) -> Result<(), FilesError> {
        self.note(self.progress)?;
        disk.sync_data(&self.file)
    }
}

/// What the record of the upload `name` is called.
pub(super) fn file_name(name: &str) -> String {
    format!("{name}{SUFFIX}")
}

/// Removes the record of an upload; without it, nobody can go on with the upload.
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
