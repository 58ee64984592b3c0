//! Log rotation: a program renames the text file and sends SIGHUP, and the server opens a new one.
//!
//! Between the two the path names nothing. A commit that finds it so waits for SIGHUP, so that every
//! line that was acknowledged is in one of the two files. Any other change of the path loses the
//! commit: what was acknowledged would not be found by the next start.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::TextFile;
use crate::data_folder::folder_of;
use crate::recovery::Scanned;
use crate::{CommitError, DataFile, Ownership, PathState, StorageError};

/// How long a commit waits for SIGHUP after the file was renamed.
const REOPEN_WAIT: Duration = Duration::from_secs(5);

impl TextFile {
    /// Whether the path names the file, and the file has its committed length; `false` if it was
    /// renamed and may be.
    pub(super) fn is_in_place(&self) -> Result<bool, CommitError> {
        let watch = self.data.watch();
        let links = || self.data.links().map_err(CommitError::Lost);
        match watch.state().map_err(CommitError::Lost)? {
            PathState::Same(bytes) if bytes == self.committed_bytes => Ok(true),
            PathState::Same(bytes) => {
                let (path, committed_bytes) = (self.path().display(), self.committed_bytes);
                Err(CommitError::Lost(io::Error::other(format!(
                    "{path} was changed by another program: it has {bytes} bytes, not \
                     {committed_bytes}"
                ))))
            }
            // Where the folder is gone too, nobody is about to create a new file.
            PathState::Missing
                if self.reopen_signal.is_some()
                    && links()? > 0
                    && folder_of(self.path()).is_dir() =>
            {
                Ok(false)
            }
            PathState::Missing | PathState::Replaced => {
                watch.check().map_err(CommitError::Lost)?;
                // It has just come back.
                Ok(true)
            }
        }
    }

    pub(super) fn check_in_place(&self) -> Result<(), CommitError> {
        match self.is_in_place()? {
            true => Ok(()),
            false => self.data.watch().check().map_err(CommitError::Lost),
        }
    }

    /// Reopens the file if that was asked for, or if it was renamed.
    ///
    /// # Errors
    /// [`CommitError::Refused`] if it was reopened: the change was meant for the lines of the other
    /// file.
    pub(super) fn check_not_reopened(&mut self) -> Result<(), CommitError> {
        let before = Arc::clone(self.data.file());
        self.reopen_if_asked()?;
        if !self.is_in_place()? {
            self.wait_for_reopen()?;
        }
        match Arc::ptr_eq(&before, self.data.file()) {
            true => Ok(()),
            false => Err(self.reopened()),
        }
    }

    pub(super) fn reopened(&self) -> CommitError {
        let name = self.path().file_name().unwrap_or_default().display();
        let sentence = format!("{name} was reopened; try again");
        CommitError::Refused(io::Error::other(sentence))
    }

    pub(super) fn reopen_if_asked(&mut self) -> Result<(), CommitError> {
        let signal = self.reopen_signal.as_ref();
        match signal.is_some_and(|signal| signal.wait(Duration::ZERO)) {
            true => self.reopen(),
            false => Ok(()),
        }
    }

    /// Waits for the reopen signal, and reopens the file.
    pub(super) fn wait_for_reopen(&mut self) -> Result<(), CommitError> {
        log::info!("{} was moved: waiting for SIGHUP", self.path().display());
        let signal = self.reopen_signal.as_ref();
        if signal.is_some_and(|signal| signal.wait(REOPEN_WAIT)) {
            return self.reopen();
        }
        self.data.watch().check().map_err(CommitError::Lost)
    }

    /// Opens the file that the path names now, or creates it.
    fn reopen(&mut self) -> Result<(), CommitError> {
        let path = self.path().to_owned();
        if let PathState::Same(_) = self.data.watch().state().map_err(CommitError::Lost)? {
            log::info!("{} is where it was, and is kept open", path.display());
            return Ok(());
        }
        let failed = |error: StorageError| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            let sentence = format!("{error}{}", cause.unwrap_or_default());
            CommitError::Lost(io::Error::other(sentence))
        };
        let recovered = DataFile::open(&path)
            .and_then(Scanned::end)
            .and_then(Scanned::recover);
        let (data, bytes) = recovered.map_err(failed)?;
        if data.is_created() {
            let old = Ownership::of(self.data.file());
            let given = old.and_then(|old| old.give_to(data.file(), true));
            given.map_err(|cause| self.cannot("give its permissions to the new", &cause))?;
        }
        self.data = data;
        self.committed_bytes = bytes;
        self.synced_mark = bytes;
        self.quota.reopened(bytes);
        self.is_reopened = true;
        log::info!("{} was reopened", path.display());
        Ok(())
    }
}
