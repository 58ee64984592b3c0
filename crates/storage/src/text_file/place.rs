//! Where a text file is: what others do to its name is noticed, and a file that they move away is
//! opened anew when that is asked for.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::TextFile;
use crate::folder::folder_of;
use crate::{CommitError, Ownership, Place, StorageError};

/// How long a commit waits for the request to reopen a file that was moved away.
const REOPENING_WAIT: Duration = Duration::from_secs(5);

impl TextFile {
    /// Whether the path still names the file, with all that is committed and nothing else; `false`
    /// if it was moved away and may be.
    pub(super) fn is_in_place(&self) -> Result<bool, CommitError> {
        let watch = self.data.watch();
        let links = || self.data.links().map_err(CommitError::Lost);
        match watch.place().map_err(CommitError::Lost)? {
            Place::Here(bytes) if bytes == self.committed_bytes => Ok(true),
            Place::Here(bytes) => {
                let (path, committed_bytes) = (self.path().display(), self.committed_bytes);
                Err(CommitError::Lost(io::Error::other(format!(
                    "{path} was changed by another program: it has {bytes} bytes, not \
                     {committed_bytes}"
                ))))
            }
            // Where its folder is gone too, nobody is about to make a new file.
            Place::Nothing
                if self.reopening.is_some() && links()? > 0 && folder_of(self.path()).is_dir() =>
            {
                Ok(false)
            }
            Place::Nothing | Place::Another => {
                watch.check().map_err(CommitError::Lost)?;
                // It is back again.
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

    /// Reopens the file if it was asked for, or has to be.
    ///
    /// # Errors
    /// If it did: what is to be done with its lines was meant for other ones.
    pub(super) fn settle(&mut self) -> Result<(), CommitError> {
        let before = Arc::clone(self.data.file());
        self.reopen_if_asked()?;
        if !self.is_in_place()? {
            self.wait_for_reopening()?;
        }
        match Arc::ptr_eq(&before, self.data.file()) {
            true => Ok(()),
            false => Err(self.opened_anew()),
        }
    }

    pub(super) fn opened_anew(&self) -> CommitError {
        let sentence = format!("{} was opened anew; try again", self.name());
        CommitError::Refused(io::Error::other(sentence))
    }

    pub(super) fn reopen_if_asked(&mut self) -> Result<(), CommitError> {
        let asked = self.reopening.as_ref();
        match asked.is_some_and(|asked| asked.take(Duration::ZERO)) {
            true => self.reopen(),
            false => Ok(()),
        }
    }

    /// Waits until somebody asks for the file to be reopened, and reopens it.
    pub(super) fn wait_for_reopening(&mut self) -> Result<(), CommitError> {
        log::info!("{} was moved: waiting for SIGHUP", self.path().display());
        let asked = self.reopening.as_ref();
        if asked.is_some_and(|asked| asked.take(REOPENING_WAIT)) {
            return self.reopen();
        }
        self.data.watch().check().map_err(CommitError::Lost)
    }

    /// Opens what the path names now, or makes it.
    fn reopen(&mut self) -> Result<(), CommitError> {
        let path = self.path().to_owned();
        if let Place::Here(_) = self.data.watch().place().map_err(CommitError::Lost)? {
            log::info!("{} is where it was, and is kept open", path.display());
            return Ok(());
        }
        let failed = |error: StorageError| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            let sentence = format!("{error}{}", cause.unwrap_or_default());
            CommitError::Lost(io::Error::other(sentence))
        };
        let mut new = Self::open_at_end(&path, self.fsync).map_err(failed)?;
        if new.data.is_made() {
            let old = Ownership::of(self.data.file());
            let inherited = old.and_then(|old| old.give_to(new.data.file(), true));
            inherited.map_err(|cause| self.cannot("give its permissions to the new", &cause))?;
        }
        std::mem::swap(&mut self.data, &mut new.data);
        self.committed_bytes = new.committed_bytes;
        self.marked_bytes = new.marked_bytes;
        self.opened_bytes = new.opened_bytes;
        self.is_reopened = true;
        // What it has now is the file that was moved, and no concern of ours any more.
        new.is_lost = true;
        log::info!("{} was opened anew", path.display());
        Ok(())
    }
}
