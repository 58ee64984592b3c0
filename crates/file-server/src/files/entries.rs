//! The entries of a folder, in order and in batches.
//!
//! Only a window of them is in memory: the names that come next in the order, as many as the memory
//! allows. When they are used up, the folder is read again for those behind them. So a list takes
//! little memory, however long it is and however slowly its client reads, and no list waits for the
//! memory of another: with less memory the windows are smaller, and the folder is read more often. An
//! entry that changes meanwhile may be missing, or appear twice if its position changes.

use std::cmp::Ordering;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::vec;

use cap_std::fs::{DirEntry, Metadata, MetadataExt};

use super::list_limits::Memory;
use super::root::{FileId, Root};
use super::temporary::is_reserved;
use super::tree::Files;
use crate::error::FilesError;
use crate::path::TreePath;

/// The most names of a folder that are listed.
pub(crate) const ENTRIES_MAX: usize = 100_000;

/// The memory of a window if there is hardly any free, in bytes.
const WINDOW_BYTES_MIN: usize = 32 << 10;

/// The most entries of a batch.
const BATCH_ENTRIES: usize = 256;
/// A batch ends when its names have this many bytes.
const BATCH_NAME_BYTES: usize = 16 << 10;

/// A file or a folder in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its name, which need not be UTF-8.
    pub(crate) name: OsString,
    /// Whether the name is that of a symbolic link. Everything else is about what the link leads to.
    pub(crate) is_link: bool,
    /// Whether it is a folder; otherwise it is a regular file.
    pub(crate) is_folder: bool,
    /// A file's length, in bytes.
    pub(crate) bytes: u64,
    /// The time of its last change, in seconds since 1970.
    pub(crate) modified: u64,
}

/// What entries are ordered by. Folders come first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Column {
    /// The name, byte by byte.
    #[default]
    Name,
    /// A file's length.
    Size,
    /// The time of the last change.
    Time,
}

/// The order of a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Order {
    /// The column; entries that are equal there are ordered by name.
    pub(crate) column: Column,
    /// Whether the order is descending.
    pub(crate) is_descending: bool,
}

impl Order {
    fn compare(self, one: &Position, other: &Position) -> Ordering {
        let number = one.number.cmp(&other.number);
        let ascending = number.then_with(|| one.name.cmp(&other.name));
        let ordered = match self.is_descending {
            true => ascending.reverse(),
            false => ascending,
        };
        one.is_file.cmp(&other.is_file).then(ordered)
    }
}

/// The position of an entry in the order.
#[derive(Debug, Clone)]
struct Position {
    is_file: bool,
    /// The value in the order's column; 0 if that is the name.
    number: u64,
    name: OsString,
}

impl Position {
    /// The memory that it takes, nearly, in bytes.
    fn bytes(&self) -> usize {
        /// What the allocator adds.
        const ALLOCATION_BYTES: usize = 16;
        size_of::<Self>() + self.name.capacity() + ALLOCATION_BYTES
    }
}

/// The entries of a folder, in order.
pub(crate) struct Entries {
    files: Arc<Files>,
    folder: PathBuf,
    order: Order,
    /// The positions that come next, and their memory.
    window: vec::IntoIter<Position>,
    memory: Option<Memory>,
    /// The end of the window, if there are names behind it.
    last: Option<Position>,
    is_complete: bool,
}

impl Files {
    /// The entries of a folder: the regular files and folders in it that can be requested.
    ///
    /// # Errors
    /// If there is no such folder, if there are too many lists, and those of the disk.
    pub(crate) fn list(
        self: &Arc<Self>,
        path: &TreePath,
        order: Order,
    ) -> Result<Entries, FilesError> {
        let mut entries = Entries {
            files: Arc::clone(self),
            folder: path.as_path().to_owned(),
            order,
            window: Vec::new().into_iter(),
            memory: None,
            last: None,
            is_complete: true,
        };
        let _permit = self.list_limits.permit()?;
        entries.fill()?;
        Ok(entries)
    }
}

/// An entry of a folder, if it can be requested: it is none of the secrets.
fn entry(root: &Root, folder: &Path, name: OsString, secrets: &[FileId]) -> Option<Entry> {
    let path = folder.join(&name);
    let there = root.link_metadata(&path).ok()?;
    let is_link = there.is_symlink();
    // A link is followed from the root; one that leads outside is not listed.
    let there = match is_link {
        true => root.metadata(&path).ok()?,
        false => there,
    };
    match secrets.contains(&FileId::from(&there)) {
        true => None,
        false => entry_of(name, is_link, &there),
    }
}

/// The same for a name that was just read. Only a link is followed from the root. Which files are secret
/// is asked when it is listed.
fn entry_listed(root: &Root, folder: &Path, listed: &DirEntry) -> Option<Entry> {
    let there = listed.metadata().ok()?;
    match there.is_symlink() {
        true => entry(root, folder, listed.file_name(), &[]),
        false => entry_of(listed.file_name(), false, &there),
    }
}

fn entry_of(name: OsString, is_link: bool, there: &Metadata) -> Option<Entry> {
    (there.is_file() || there.is_dir()).then(|| Entry {
        name,
        is_link,
        is_folder: there.is_dir(),
        bytes: there.len(),
        modified: u64::try_from(there.mtime()).unwrap_or(0),
    })
}

impl Entries {
    /// The next entries. A batch may be empty if its entries are gone.
    ///
    /// # Errors
    /// If the folder is gone, if there are too many lists, and those of the disk.
    pub(crate) fn batch(&mut self) -> Result<Vec<Entry>, FilesError> {
        let files = Arc::clone(&self.files);
        let _permit = files.list_limits.permit()?;
        let root = files.root()?;
        let secrets = files.secrets.ids();
        let mut batch = Vec::new();
        let mut name_bytes = 0;
        while batch.len() < BATCH_ENTRIES && name_bytes < BATCH_NAME_BYTES {
            match self.window.next() {
                Some(position) => {
                    name_bytes += position.name.len();
                    batch.extend(entry(&root, &self.folder, position.name, &secrets));
                }
                None if self.last.is_some() => self.fill()?,
                None => break,
            }
        }
        Ok(batch)
    }

    /// Whether there are no more.
    pub(crate) fn is_at_end(&self) -> bool {
        self.window.as_slice().is_empty() && self.last.is_none()
    }

    /// Whether all names of the folder are listed. It is final at the end.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Fills the window with the positions behind the last one.
    fn fill(&mut self) -> Result<(), FilesError> {
        self.window = Vec::new().into_iter();
        self.memory = None;
        let mut memory = self.files.list_limits.reserve();
        let bytes_max = memory.bytes.max(WINDOW_BYTES_MIN);
        let mut window = Window {
            order: self.order,
            positions: Vec::new(),
            bytes: 0,
            is_cut: false,
        };
        let root = self.files.root()?;
        let folder = root.open_dir(&self.folder)?;
        for (at, entry) in folder.entries()?.enumerate() {
            if at == ENTRIES_MAX {
                self.is_complete = false;
                break;
            }
            let position = self.position(&root, &entry?);
            let is_next = |position: &Position| {
                let last = self.last.as_ref();
                last.is_none_or(|last| self.order.compare(last, position) == Ordering::Less)
            };
            if let Some(position) = position.filter(is_next) {
                window.bytes += position.bytes();
                window.positions.push(position);
            }
            // A cut leaves half of it, so that cuts are rare.
            if window.bytes > 2 * bytes_max {
                window.cut(bytes_max);
            }
        }
        window.cut(bytes_max);
        let Window {
            mut positions,
            is_cut,
            ..
        } = window;
        positions.shrink_to_fit();
        memory.shrink(window.bytes);
        self.memory = Some(memory);
        self.last = positions.last().filter(|_| is_cut).cloned();
        self.window = positions.into_iter();
        Ok(())
    }

    /// The position of an entry. The order by name needs no metadata, except of links and of entries
    /// whose kind the file system does not say.
    fn position(&self, root: &Root, listed: &DirEntry) -> Option<Position> {
        let name = listed.file_name();
        if is_reserved(Path::new(&name)) {
            return None;
        }
        let kind = listed.file_type().ok()?;
        if self.order.column == Column::Name && (kind.is_file() || kind.is_dir()) {
            return Some(Position {
                is_file: kind.is_file(),
                number: 0,
                name,
            });
        }
        let Entry {
            name,
            is_link: _,
            is_folder,
            bytes,
            modified,
        } = entry_listed(root, &self.folder, listed)?;
        Some(Position {
            is_file: !is_folder,
            number: match self.order.column {
                Column::Size if !is_folder => bytes,
                Column::Time => modified,
                Column::Size | Column::Name => 0,
            },
            name,
        })
    }
}

/// A window that is being filled.
struct Window {
    order: Order,
    positions: Vec<Position>,
    bytes: usize,
    /// Whether positions were left for the next window.
    is_cut: bool,
}

impl Window {
    /// Orders the positions, and drops those at the end that exceed the memory.
    fn cut(&mut self, bytes_max: usize) {
        let order = self.order;
        self.positions
            .sort_unstable_by(|one, other| order.compare(one, other));
        let mut bytes = 0;
        let fits = |position: &&Position| {
            bytes += position.bytes();
            bytes <= bytes_max
        };
        let kept = self.positions.iter().take_while(fits).count().max(1);
        self.is_cut |= kept < self.positions.len();
        self.positions.truncate(kept);
        self.bytes = self.positions.iter().map(Position::bytes).sum();
    }
}

#[cfg(test)]
mod tests;
