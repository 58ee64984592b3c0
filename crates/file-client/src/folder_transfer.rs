//! What getting and sending a folder have in common: one thread walks the folder and names its files,
//! others transfer them, and all of them count what became of each.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::mem;
use std::num::NonZeroUsize;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use cli::exit::with_causes;
use cli::{ClientError, Exit, Failure};

use crate::Error;
use crate::escaped::escaped;
use crate::jobs;
use crate::progress::{Total, above_bars};
use crate::spool::{Item, PATH_BYTES_MAX, Queue, Spool};

/// The longest file that is transferred in one request even with `--resume`, in bytes: its sidecar files, or
/// the requests that could resume it, would take longer.
pub(crate) const AT_ONCE_BYTES_MAX: u64 = 1 << 20;

/// How deep a folder may be below the one that is transferred.
const DEPTH_MAX: usize = 128;

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was transferred; its length in bytes.
    Transferred(u64),
    /// The other side has it already.
    Skipped,
}

/// The transfer of a folder under way.
pub(crate) struct FolderTransfer {
    queue: Queue,
    total: Arc<Total>,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    files: u64,
    bytes: u64,
    /// Files that the other side has already, and what was left out.
    skipped: u64,
    failed: u64,
    worst: Option<Exit>,
    /// Whether it was said why it stopped: no other file would fare better.
    is_end_said: bool,
}

impl FolderTransfer {
    pub(crate) fn new(show_progress: bool) -> Self {
        Self {
            queue: Queue::new(),
            total: Arc::new(Total::new(show_progress)),
            counts: Mutex::default(),
        }
    }

    /// Its progress.
    pub(crate) fn total(&self) -> &Arc<Total> {
        &self.total
    }

    /// Walks the folder, and transfers each file that [`FolderTransfer::add`] is told of, N at once.
    /// `worker` makes what transfers one after the other.
    ///
    /// # Errors
    /// That of the walk, and those of temporary files. What fails for one file is counted.
    pub(crate) fn run<W: FnMut(&Item) -> Result<Outcome, Error>>(
        &self,
        jobs: NonZeroUsize,
        walk: impl Fn() -> Result<(), Error> + Sync,
        worker: impl Fn() -> W + Sync,
    ) -> Result<(), Error> {
        let walk = || {
            let _closing = self.queue.close_at_end();
            let walked = walk();
            self.total.close();
            if walked.is_err() {
                self.queue.stop();
            }
            walked
        };
        let work = || {
            let mut transfer = worker();
            while let Some(item) = self.queue.next().map_err(Error::Spool)? {
                self.end(&item, transfer(&item));
            }
            Ok(())
        };
        thread::scope(|scope| {
            let walker = thread::Builder::new().name("walk".to_owned());
            let walked = match walker.spawn_scoped(scope, walk) {
                Ok(walker) => Ok(walker),
                // The queue has room for all of it.
                Err(_) => Err(walk()),
            };
            let worked: Result<(), Error> = jobs::run(jobs, work).into_iter().collect();
            let walked = walked.map(|walker| {
                let joined = walker.join();
                joined.unwrap_or_else(|cause| panic::resume_unwind(cause))
            });
            walked.unwrap_or_else(|walked| walked).and(worked)
        })
    }

    /// There is one more file to transfer.
    ///
    /// # Errors
    /// Those of temporary files.
    pub(crate) fn add(&self, item: &Item) -> Result<(), Error> {
        self.total.add(item.bytes);
        self.queue.push(item).map_err(Error::Spool)
    }

    /// Whether there is no use in looking for more.
    pub(crate) fn is_stopped(&self) -> bool {
        self.queue.is_stopped()
    }

    /// Something is not transferred, and that is no failure.
    pub(crate) fn left_out(&self, path: &(impl AsRef<OsStr> + ?Sized), why: &str) {
        let path = escaped(path);
        above_bars(|| log::warn!("{path} is left out: {why}"));
        self.lock().skipped += 1;
    }

    /// A file or a folder has failed. It is logged and counted.
    pub(crate) fn failed(&self, error: Error) {
        self.count_failed(1, error.exit());
        if is_final(&error) {
            self.queue.stop();
            // The others fail for the same reason.
            if mem::replace(&mut self.lock().is_end_said, true) {
                return;
            }
        }
        above_bars(|| log::error!("{}", with_causes(&error)));
    }

    /// Something has failed that was logged already.
    pub(crate) fn count_failed(&self, number: u64, exit: Exit) {
        let mut counts = self.lock();
        counts.failed += number;
        counts.worst = counts.worst.max(Some(exit));
    }

    fn end(&self, item: &Item, outcome: Result<Outcome, Error>) {
        self.total.end(item.bytes);
        match outcome {
            Ok(Outcome::Transferred(bytes)) => {
                let mut counts = self.lock();
                counts.files += 1;
                counts.bytes += bytes;
            }
            Ok(Outcome::Skipped) => self.lock().skipped += 1,
            Err(error) => self.failed(error),
        }
    }

    /// Logs one line about all of it. `done` is `Saved` or `Sent`.
    ///
    /// # Errors
    /// If anything has failed.
    pub(crate) fn finish(
        self,
        done: &str,
        folder: &(impl AsRef<OsStr> + ?Sized),
    ) -> Result<(), Error> {
        // The walk may not have come to all of them.
        let rest = match self.total.files_left() {
            0 => String::new(),
            left => format!(", at least {left} not begun"),
        };
        // The bar goes before the line comes.
        drop(self.total);
        let counts = self.counts.into_inner();
        let counts = counts.unwrap_or_else(PoisonError::into_inner);
        let Counts {
            files,
            bytes,
            skipped,
            failed,
            worst,
            is_end_said: _,
        } = counts;
        let folder = escaped(folder);
        let noun = if files == 1 { "file" } else { "files" };
        above_bars(|| {
            log::info!(
                "{done} {folder}: {files} {noun}, {bytes} bytes; {skipped} skipped, {failed} \
                 failed{rest}"
            );
        });
        match worst {
            None => Ok(()),
            Some(worst) => Err(Error::Incomplete {
                folder: folder.to_string(),
                failed,
                worst,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether every other file would fail for the same reason.
fn is_final(error: &Error) -> bool {
    let disk_takes_none = |cause: &io::Error| {
        matches!(
            cause.kind(),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem
        )
    };
    let error = match error {
        Error::CutOff { cause, .. } => cause,
        error => error,
    };
    matches!(error, Error::Write { cause, .. } if disk_takes_none(cause))
        || matches!(error, Error::Client(ClientError::Connect { .. }))
        || matches!(error, Error::Refused { status: 401, .. })
}

/// The folders that are still to be looked at.
pub(crate) struct Folders(Spool);

impl Folders {
    /// The one that is transferred.
    ///
    /// # Errors
    /// Those of temporary files.
    pub(crate) fn new() -> Result<Self, Error> {
        let mut spool = Spool::new();
        let root = Item::folder(PathBuf::new());
        spool.push(&root).map_err(Error::Spool)?;
        Ok(Self(spool))
    }

    /// The next one.
    ///
    /// # Errors
    /// Those of temporary files.
    pub(crate) fn next(&mut self) -> Result<Option<PathBuf>, Error> {
        let next = self.0.next().map_err(Error::Spool)?;
        Ok(next.map(|item| item.path))
    }

    /// Adds one.
    ///
    /// # Errors
    /// If it is too deep, and those of temporary files.
    pub(crate) fn push(&mut self, path: PathBuf) -> Result<(), Error> {
        if path.components().count() > DEPTH_MAX {
            return Err(too_deep(&path));
        }
        self.0.push(&Item::folder(path)).map_err(Error::Spool)
    }
}

/// The path of a name in a folder below the one that is transferred.
///
/// # Errors
/// If it is too long.
pub(crate) fn joined(folder: &Path, name: &OsStr) -> Result<PathBuf, Error> {
    let path = folder.join(name);
    if path.as_os_str().len() > PATH_BYTES_MAX {
        return Err(too_deep(&path));
    }
    Ok(path)
}

fn too_deep(path: &Path) -> Error {
    Error::TooDeep {
        path: escaped(path).to_string(),
        levels_max: DEPTH_MAX,
        bytes_max: PATH_BYTES_MAX,
    }
}

/// A path on the server: that of the folder, which ends in a slash, and one below it.
pub(crate) fn below(folder: &OsStr, path: &Path) -> OsString {
    let mut whole = folder.to_owned();
    whole.push(path);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kept;

    #[test]
    fn a_disk_that_takes_no_more_is_the_end() {
        let check = |kind: ErrorKind, want: bool| {
            let write = || Error::write(Path::new("a"))(kind.into());
            let cut_off = Error::CutOff {
                cause: Box::new(write()),
                kept: Kept::Here(7),
            };
            assert_eq!((is_final(&write()), is_final(&cut_off)), (want, want));
        };
        check(ErrorKind::StorageFull, true);
        check(ErrorKind::QuotaExceeded, true);
        check(ErrorKind::ReadOnlyFilesystem, true);
        check(ErrorKind::PermissionDenied, false);
        check(ErrorKind::FileTooLarge, false);
    }
}
