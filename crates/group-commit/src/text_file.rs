//! A file of lines that is only ever appended to, or replaced as a whole.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_setfl};

use crate::folder::{folder_of, sync_folder};
use crate::replacement::{Replacement, inherit, remove_left_beside};
use crate::room::RESERVED_BYTES;
use crate::{
    CommitError, DataFile, Fsync, Limits, NotStored, OpenError, Place, Reopening, Room, mark,
};

/// An append-only file of lines. What was committed ends at a known length; whatever a failed
/// write or a crash leaves behind it is cut off.
///
/// After each commit, and before anybody is told, the file's path is looked at. If it does not name
/// this file any more, or the file has another length, the commit is lost: another program has taken
/// away what was acknowledged.
#[derive(Debug)]
pub struct TextFile {
    data: DataFile,
    fsync: Fsync,
    committed_bytes: u64,
    /// How many bytes are noted as synced.
    marked_bytes: u64,
    pending: Vec<u8>,
    limits: Limits,
    /// How long it was when it was opened.
    opened_bytes: u64,
    /// How many bytes the disk has for the next commit, once that was looked up.
    free_bytes: Option<u64>,
    /// If it may be moved away and made anew.
    reopening: Option<Reopening>,
    is_reopened: bool,
    is_full: bool,
    is_lost: bool,
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

/// The longest line, in bytes: far more than a message of 64 KiB with every byte escaped.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// How much of a line that is cut off is shown, in bytes.
const SHOWN_BYTES_MAX: usize = 160;

/// How many bytes one commit takes, but for the last change in it: as many as are worth one sync.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// After how many more bytes it is noted that they are synced. A start writes no more than these
/// again.
const MARK_BYTES: u64 = 16 << 20;

/// How long a commit waits for the request to reopen a file that was moved away.
const REOPENING_WAIT: Duration = Duration::from_secs(5);

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
    ) -> Result<Self, OpenError> {
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
    ) -> Result<ReadFile, OpenError> {
        let data = DataFile::open(path)?;
        let mut input = BufReader::with_capacity(1 << 16, &**data.file());
        let mut line = Vec::new();
        let mut sound_bytes = 0;
        let mut torn_line = None;
        for number in 1.. {
            line.clear();
            let mut limited = input.by_ref().take(LINE_BYTES_MAX);
            let read = limited.read_until(b'\n', &mut line);
            if read.map_err(OpenError::at(path))? == 0 {
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
        Ok(ReadFile { data, sound_bytes })
    }

    /// Opens and locks a file, making it if it does not exist, and looks at the end of it alone: a
    /// last line that has no end is cut off, with a warning that shows it. What is there is synced,
    /// as [`TextFile::open`] does it.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open_at_end(path: &Path, fsync: Fsync) -> Result<Self, OpenError> {
        let data = DataFile::open(path)?;
        let sound_bytes = end_of_last_line(data.file()).map_err(OpenError::at(path))?;
        ReadFile { data, sound_bytes }.recover(fsync)
    }

    /// Sets how much room it may take, and warns if it takes more already.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        if self.committed_bytes > limits.file_bytes_max {
            log::warn!(
                "{} has {} bytes, more than the {} that it may have: nothing is added to it",
                self.path().display(),
                self.committed_bytes,
                limits.file_bytes_max
            );
        }
        self
    }

    /// Lets it be moved away while it is used: a commit that finds nothing under its path then waits
    /// for the request to reopen it, which makes it anew. Returns what to make that request with.
    pub fn let_be_moved(&mut self) -> Reopening {
        self.reopening.get_or_insert_default().clone()
    }

    /// Whether it was opened again since the last call: then it is another file, with other lines.
    pub fn take_reopened(&mut self) -> bool {
        std::mem::take(&mut self.is_reopened)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.data.path()
    }

    /// How many names (hard links) it has; 1 if that cannot be seen.
    pub fn links(&self) -> u64 {
        self.data.links().unwrap_or(1)
    }

    /// The file and how many bytes of it are committed: a snapshot that stays as it is, whatever
    /// is appended behind it or put in the file's place.
    pub fn snapshot(&self) -> (Arc<File>, u64) {
        (Arc::clone(self.data.file()), self.committed_bytes)
    }

    /// Where to put the lines that the next commit is to append, each with its line feed.
    pub fn pending(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// Whether what is pending is enough for one commit.
    pub fn is_batch_full(&self) -> bool {
        self.pending.len() >= BATCH_BYTES_MAX
    }

    /// Checks that the next commit may append so many bytes.
    ///
    /// # Errors
    /// [`NotStored::Refused`], with the limit that is in the way.
    pub fn check_room(&mut self, pending_bytes: usize, room: Room) -> Result<(), NotStored> {
        let refusal = match room {
            Room::Reserved => self.refusal_beyond_limits(pending_bytes as u64),
            Room::Usual => {
                let refusal = self.refusal(pending_bytes as u64);
                let was_full = std::mem::replace(&mut self.is_full, refusal.is_some());
                if let Some(cause) = refusal.as_ref().filter(|_| !was_full) {
                    log::error!("New lines are refused: {cause}");
                }
                refusal
            }
        };
        refusal.map_or(Ok(()), |cause| Err(NotStored::Refused(cause)))
    }

    fn refusal(&mut self, pending_bytes: u64) -> Option<String> {
        let left = self
            .limits
            .file_bytes_max
            .saturating_sub(self.committed_bytes);
        if pending_bytes > left {
            return Some(self.too_long(self.limits.file_bytes_max));
        }
        // To look at the disk once a commit is often enough.
        let free = match self.free_bytes {
            Some(free) => free,
            None => match self.limits.free_bytes(self.data.file()) {
                Ok(free) => *self.free_bytes.insert(free),
                Err(error) => return Some(error.to_string()),
            },
        };
        (pending_bytes > free).then(|| {
            let path = self.path().display();
            format!("the disk of {path} has no more room than what is kept free")
        })
    }

    fn refusal_beyond_limits(&self, pending_bytes: u64) -> Option<String> {
        let max = self.limits.file_bytes_max.max(self.opened_bytes);
        let max = max.saturating_add(RESERVED_BYTES);
        (self.committed_bytes + pending_bytes > max).then(|| self.too_long(max))
    }

    fn too_long(&self, max: u64) -> String {
        format!("{} may have {max} bytes and is full", self.path().display())
    }

    /// Appends what is pending and waits until it is on the disk.
    ///
    /// # Errors
    /// [`CommitError::Refused`] after a failed write: the file is as it was.
    /// [`CommitError::Lost`] after a failed sync, if the file could not be cut back, or if its path
    /// does not name it any more.
    pub fn commit(&mut self) -> Result<(), CommitError> {
        self.with_pending(|file, pending| {
            file.reopen_if_asked()?;
            if pending.is_empty() {
                return Ok(());
            }
            let committed_bytes = file.committed_bytes;
            file.append(pending)?;
            if file.is_in_place()? {
                return Ok(());
            }
            // Whoever has moved it may already have read it, and be about to remove it.
            let moved = Arc::clone(file.data.file());
            file.wait_for_reopening()?;
            if Arc::ptr_eq(&moved, file.data.file()) {
                return file.check_in_place();
            }
            let appended = file.append(pending);
            let cut_back = moved.set_len(committed_bytes);
            if appended.is_err() {
                cut_back.map_err(CommitError::Lost)?;
            }
            appended?;
            file.check_in_place()
        })
    }

    /// Makes an empty file beside this one, whose place it can take when it is written.
    ///
    /// # Errors
    /// [`CommitError::Refused`] if it cannot be made, or if this file was opened anew just now, so
    /// that nothing is known about its contents. [`CommitError::Lost`] if it is gone.
    pub fn replacement(&mut self) -> Result<Replacement, CommitError> {
        let settled = self.settle();
        let made =
            settled.and_then(|()| Replacement::beside(&self.data).map_err(CommitError::Refused));
        self.forget_if_failed(made)
    }

    /// Appends what is pending to a replacement that is written, syncs it, and gives it the place of
    /// this file: a crash at any moment leaves the old contents or the new. What was written before
    /// may have been synced before, by another thread, so that this takes less time.
    ///
    /// # Errors
    /// [`CommitError::Refused`] if the new contents could not be written, or are those of a file that
    /// was moved away since: the file is as it was.
    /// [`CommitError::Lost`] after a failed sync or rename, or if the path does not name the file any
    /// more.
    pub fn replace(&mut self, new: Replacement) -> Result<(), CommitError> {
        self.with_pending(|file, pending| {
            (&**new.file())
                .write_all(pending)
                .map_err(CommitError::Refused)?;
            // Even without --fsync: after a power cut, a file that was renamed before it was written
            // could be empty.
            let synced = new.file().sync_all();
            synced.map_err(|cause| file.cannot("sync the replacement of", &cause))?;
            let append = fcntl_setfl(new.file(), OFlags::APPEND).map_err(io::Error::from);
            let prepared = append.and_then(|()| {
                let bytes = new.file().metadata()?.len();
                mark::write(new.file(), bytes)?;
                Ok(bytes)
            });
            let committed_bytes = prepared.map_err(CommitError::Refused)?;
            let real_path = new.real_path().to_owned();
            // As late as can be: a file that was moved before the renaming would be there twice.
            file.settle()?;
            if !new.is_of(file.data.file()) {
                return Err(file.opened_anew());
            }
            // From here on it is not known which of the two files has the name.
            let renamed = new.rename_to(file.path());
            file.data = renamed.map_err(|cause| file.cannot("replace", &cause))?;
            file.committed_bytes = committed_bytes;
            file.marked_bytes = committed_bytes;
            if file.fsync == Fsync::Always {
                let synced = sync_folder(&real_path);
                synced.map_err(|cause| file.cannot("sync the folder of", &cause))?;
            }
            // Whoever has moved it since has moved all of the new contents.
            if !file.is_in_place()? {
                file.wait_for_reopening()?;
            }
            file.check_in_place()
        })
    }

    /// Runs a commit with what is pending, which is gone then, whatever comes of it.
    fn with_pending(
        &mut self,
        commit: impl FnOnce(&mut Self, &[u8]) -> Result<(), CommitError>,
    ) -> Result<(), CommitError> {
        let mut pending = std::mem::take(&mut self.pending);
        let committed = commit(self, &pending);
        pending.clear();
        pending.shrink_to(BATCH_BYTES_MAX);
        self.pending = pending;
        self.free_bytes = None;
        self.forget_if_failed(committed)
    }

    /// After a failure nothing is pending any more; if it was a loss, nothing is synced any more.
    fn forget_if_failed<T>(&mut self, done: Result<T, CommitError>) -> Result<T, CommitError> {
        if let Err(error) = &done {
            self.pending.clear();
            self.is_lost |= matches!(error, CommitError::Lost(_));
        }
        done
    }

    /// Writes at the end of the file, and syncs.
    fn append(&mut self, pending: &[u8]) -> Result<(), CommitError> {
        let file = self.data.file();
        if let Err(cause) = (&**file).write_all(pending) {
            let cut_back = file.metadata().and_then(|metadata| {
                // To cut a file that another program has made shorter would fill it up with zeros.
                match metadata.len() >= self.committed_bytes {
                    true => file.set_len(self.committed_bytes),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                }
            });
            cut_back.map_err(|cause| self.cannot("cut back", &cause))?;
            return Err(CommitError::Refused(cause));
        }
        if self.fsync == Fsync::Always {
            let synced = file.sync_data();
            synced.map_err(|cause| self.cannot("sync", &cause))?;
        }
        self.committed_bytes += pending.len() as u64;
        if self.fsync == Fsync::Always && self.committed_bytes - self.marked_bytes >= MARK_BYTES {
            self.mark();
        }
        Ok(())
    }

    /// Notes that all is synced.
    fn mark(&mut self) {
        match mark::write(self.data.file(), self.committed_bytes) {
            Ok(()) => self.marked_bytes = self.committed_bytes,
            // The old mark stands, and is true.
            Err(error) => log::debug!("{} cannot be marked: {error}", self.path().display()),
        }
    }

    /// Whether the path still names the file, with all that is committed and nothing else; `false`
    /// if it was moved away and may be.
    fn is_in_place(&self) -> Result<bool, CommitError> {
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

    fn check_in_place(&self) -> Result<(), CommitError> {
        match self.is_in_place()? {
            true => Ok(()),
            false => self.data.watch().check().map_err(CommitError::Lost),
        }
    }

    /// Reopens the file if it was asked for, or has to be.
    ///
    /// # Errors
    /// If it did: what is to be done with its lines was meant for other ones.
    fn settle(&mut self) -> Result<(), CommitError> {
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

    fn opened_anew(&self) -> CommitError {
        let sentence = format!("{} was opened anew; try again", self.path().display());
        CommitError::Refused(io::Error::other(sentence))
    }

    fn reopen_if_asked(&mut self) -> Result<(), CommitError> {
        let asked = self.reopening.as_ref();
        match asked.is_some_and(|asked| asked.take(Duration::ZERO)) {
            true => self.reopen(),
            false => Ok(()),
        }
    }

    /// Waits until somebody asks for the file to be reopened, and reopens it.
    fn wait_for_reopening(&mut self) -> Result<(), CommitError> {
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
        let failed = |error: OpenError| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            let sentence = format!("{error}{}", cause.unwrap_or_default());
            CommitError::Lost(io::Error::other(sentence))
        };
        let mut new = Self::open_at_end(&path, self.fsync).map_err(failed)?;
        if new.data.is_made() {
            let inherited = inherit(self.data.file(), new.data.file());
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

    fn cannot(&self, what: &str, cause: &io::Error) -> CommitError {
        let sentence = format!("cannot {what} {}: {cause}", self.path().display());
        CommitError::Lost(io::Error::new(cause.kind(), sentence))
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
    pub fn recover(self, fsync: Fsync) -> Result<TextFile, OpenError> {
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
            sync_folder(&fs::canonicalize(path)?)?;
            mark::write(file, sound_bytes)?;
            remove_left_beside(&data);
            // Not before, for then every write would go to the end.
            fcntl_setfl(file, OFlags::APPEND).map_err(io::Error::from)
        };
        recover().map_err(OpenError::at(path))?;
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

impl Drop for TextFile {
    /// Notes that all is synced, so that the next start has nothing to write again.
    fn drop(&mut self) {
        if self.is_lost || self.marked_bytes == self.committed_bytes {
            return;
        }
        if self.fsync == Fsync::Always || self.data.file().sync_data().is_ok() {
            self.mark();
        }
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

#[cfg(test)]
mod tests;
