//! The tree of files: the state that downloads, lists and uploads share, and which file is at a path.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use rustix::fs::{FileType, Stat, fstat};
use storage::Histogram;

use super::disk::Disk;
use super::expirations::Expirations;
use super::hashers::Hashers;
use super::identity::Identity;
use super::keyed_locks::KeyedLocks;
use super::list_limits::ListLimits;
use super::manage::Deleted;
use super::permissions;
use super::root::{FileId, Root, RootPath};
use super::secrets::Secrets;
use super::temporary::is_reserved;
use crate::error::FilesError;
use crate::path::TreePath;

/// The file that is served in place of its folder.
const INDEX: &str = "index.html";

/// The most deleted folders that wait for the sweeper. Each takes a descriptor.
const REMOVALS_MAX: usize = 16;

/// The files below one root.
pub(crate) struct Files {
    root: RootPath,
    /// Uploads leave at least this much of the disk free, in bytes.
    pub(super) keep_free_bytes: u64,
    /// How long an interrupted upload is kept.
    pub(super) resume_keep: Duration,
    /// Whether nothing is replaced or deleted.
    pub(super) create_only: bool,
    /// The name of the file that is served alone.
    only: Option<PathBuf>,
    pub(super) secrets: Secrets,
    /// The mode of a new file.
    pub(super) mode_new: u32,
    /// Held while a file gets its final name, by the path of the destination.
    pub(super) destination_locks: KeyedLocks<PathBuf>,
    /// Held by the request that works on a resumable upload, by the upload's temporary name.
    pub(super) upload_locks: KeyedLocks<String>,
    pub(super) list_limits: Arc<ListLimits>,
    pub(super) hashers: Hashers,
    pub(super) disk: Disk,
    pub(super) expirations: Expirations,
    /// How many uploads arrive now.
    pub(super) uploads_open: AtomicUsize,
    /// From the requests to the sweeper: the deleted folders that take long to remove.
    pub(super) removals: (Sender<Deleted>, Receiver<Deleted>),
    /// The root that was searched for unfinished uploads.
    pub(super) swept: Mutex<Option<FileId>>,
}

/// A regular file.
#[derive(Debug)]
pub(crate) struct FoundFile {
    /// The file, open for reading.
    pub(crate) file: File,
    /// Its identity when it was opened.
    pub(crate) identity: Identity,
    /// Its path: the one of the request, or the index page of the folder there.
    pub(crate) path: PathBuf,
}

/// What is at a path.
#[derive(Debug)]
pub(crate) enum Found {
    /// A regular file.
    File(FoundFile),
    /// A folder without an index page; the path of the request ends in a slash.
    Folder,
    /// A folder; the path of the request does not end in a slash. Relative links in the folder's page
    /// would lead to wrong places.
    FolderWithoutSlash {
        /// Whether it has an index page.
        has_index: bool,
    },
}

impl Files {
    /// Opens the root, by a path that may lead anywhere. Uploads leave at least `keep_free_bytes` of
    /// its disk free, and an interrupted one is kept for `resume_keep`.
    ///
    /// # Errors
    /// If it is not a folder that can be opened.
    pub(crate) fn open(
        root: &Path,
        keep_free_bytes: u64,
        resume_keep: Duration,
    ) -> io::Result<Self> {
        Ok(Self {
            root: RootPath::open(root)?,
            keep_free_bytes,
            resume_keep,
            create_only: false,
            only: None,
            secrets: Secrets::default(),
            mode_new: permissions::mode_new(),
            destination_locks: KeyedLocks::default(),
            upload_locks: KeyedLocks::default(),
            list_limits: Arc::default(),
            hashers: Hashers::default(),
            disk: Disk::default(),
            expirations: Expirations::default(),
            uploads_open: AtomicUsize::new(0),
            removals: crossbeam_channel::bounded(REMOVALS_MAX),
            swept: Mutex::default(),
        })
    }

    /// Sets whether nothing is replaced or deleted.
    #[must_use]
    pub(crate) fn create_only(mut self, create_only: bool) -> Self {
        self.create_only = create_only;
        self
    }

    /// Serves the file of this name alone, at the path of the root.
    #[must_use]
    pub(crate) fn only(mut self, file: Option<PathBuf>) -> Self {
        self.only = file;
        self
    }

    /// The name of the file that is served alone.
    pub(crate) fn only_file(&self) -> Option<&Path> {
        self.only.as_deref()
    }

    /// Sets the paths of the files that nobody may download, also by another of their names (hard
    /// links), and remembers the files that are there now.
    #[must_use]
    pub(crate) fn withhold(mut self, secrets: Vec<PathBuf>) -> Self {
        self.secrets = Secrets::at(secrets);
        self
    }

    /// Remembers the secrets that the server has just read.
    pub(crate) fn remember_secrets(&self) {
        self.secrets.remember();
    }

    /// How many uploads arrive now.
    pub(crate) fn uploads_open(&self) -> usize {
        self.uploads_open.load(Ordering::Relaxed)
    }

    /// How many resumable uploads are remembered.
    pub(crate) fn uploads_kept(&self) -> usize {
        self.expirations.len()
    }

    /// How long its syncs took, in seconds.
    pub(crate) fn sync_seconds(&self) -> &Histogram {
        &self.disk.seconds
    }

    /// The folder that is at the root's path now.
    pub(super) fn root(&self) -> Result<Arc<Root>, FilesError> {
        self.root.current()
    }

    /// The path of a file below the root, for what needs no resolution beneath it.
    pub(crate) fn full_path(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    /// Calls `stop` at the first sync that fails. All later syncs fail too.
    pub(crate) fn on_sync_failure(&self, stop: impl Fn() + Send + Sync + 'static) {
        self.disk.on_failure(stop);
    }

    /// Why a sync failed, if one did.
    pub(crate) fn sync_failure(&self) -> Option<io::Error> {
        self.disk.failure()
    }

    /// Opens the file at a path, or the index page of the folder there.
    ///
    /// # Errors
    /// [`FilesError::NotFound`] if there is neither a regular file nor a folder, and those of the
    /// disk.
    pub(crate) fn find(&self, path: &TreePath) -> Result<Found, FilesError> {
        if is_reserved(path.as_path()) {
            return Err(FilesError::NotFound);
        }
        let root = self.root()?;
        if let Some(only) = &self.only {
            let at_root = path.as_path().as_os_str().is_empty();
            let file = at_root.then(|| self.open_to_read(&root, only));
            let file = file.transpose()?.flatten();
            return file.map(Found::File).ok_or(FilesError::NotFound);
        }
        match self.open_to_read(&root, path.as_path())? {
            Some(_) if path.has_final_slash() => Err(FilesError::NotFound),
            Some(file) => Ok(Found::File(file)),
            None => {
                let index = match self.open_to_read(&root, &path.as_path().join(INDEX)) {
                    Err(FilesError::NotFound) => None,
                    opened => opened?,
                };
                Ok(match (index, path.has_final_slash()) {
                    (Some(file), true) => Found::File(file),
                    (None, true) => Found::Folder,
                    (index, false) => Found::FolderWithoutSlash {
                        has_index: index.is_some(),
                    },
                })
            }
        }
    }

    /// Checks that an upload replaces no file, if it must not.
    ///
    /// # Errors
    /// [`FilesError::Exists`] if it does.
    pub(crate) fn check_create(&self, has_file: bool) -> Result<(), FilesError> {
        match self.create_only && has_file {
            true => Err(FilesError::Exists),
            false => Ok(()),
        }
    }

    /// Opens the regular file at a path; `None` if it is a folder.
    fn open_to_read(&self, root: &Root, path: &Path) -> Result<Option<FoundFile>, FilesError> {
        let opened = root.open_to_read(path);
        let file = opened.map_err(|error| match FilesError::from(error) {
            FilesError::NotAFolder => FilesError::NotFound,
            other => other,
        })?;
        let (file, there) = match self.readable(file)? {
            Readable::File(file, there) => (file, there),
            Readable::Folder => return Ok(None),
            Readable::Secret | Readable::Special => return Err(FilesError::NotFound),
        };
        Ok(Some(FoundFile {
            file,
            identity: Identity::from(there),
            path: path.to_owned(),
        }))
    }

    /// What clients may read of an open file.
    pub(super) fn readable(&self, file: File) -> Result<Readable, FilesError> {
        // The metadata of the open file, not of the path, where another file may stand by now.
        let there = fstat(&file)?;
        Ok(match FileType::from_raw_mode(there.st_mode) {
            FileType::Directory => Readable::Folder,
            FileType::RegularFile if self.secrets.ids().contains(&FileId::from(there)) => {
                Readable::Secret
            }
            FileType::RegularFile => Readable::File(file, there),
            FileType::Symlink | FileType::Fifo | FileType::Socket => Readable::Special,
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Unknown => {
                Readable::Special
            }
        })
    }
}

/// What clients may read of an open file.
pub(super) enum Readable {
    /// All of it: it is a regular file.
    File(File, Stat),
    /// Its entries.
    Folder,
    /// Nothing, because it is a secret.
    Secret,
    /// Nothing, because it is neither a regular file nor a folder.
    Special,
}
