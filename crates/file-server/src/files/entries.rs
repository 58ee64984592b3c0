//! The entries of a folder, in order and in batches.
//!
//! Only a window of them is in memory: the names that come next in the order, as many as the memory
//! allows. When they are used up, the folder is read again for those behind them. So a list takes
//! little memory, however long it is and however slowly its client reads, and no list waits for the
//! memory of another: with less memory the windows are smaller, and the folder is read more often. An
//! entry that changes meanwhile may be missing, or appear twice if its position changes.
//!
//! A page of a list is found the same way, and only the positions up to its end are kept.

use std::cmp::Ordering;
use std::ffi::{OsStr, OsString};
use std::mem;
use std::os::unix::fs::DirEntryExt;
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

/// The most entries of a page.
pub(crate) const PAGE_ENTRIES: usize = 1000;

/// The most pages of a folder.
pub(crate) const PAGES_MAX: usize = ENTRIES_MAX / PAGE_ENTRIES;

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

/// Which entries of a folder are listed, and in which order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    pub(crate) order: Order,
    /// What their names contain, in lower case; empty for all names.
    pub(crate) search: String,
    /// The page, from 1. Behind the last one, it is the last one. `None` for all entries.
    pub(crate) page: Option<usize>,
}

impl Selection {
    fn is_met(&self, name: &OsStr) -> bool {
        let contains = |name: &str| name.to_lowercase().contains(&self.search);
        self.search.is_empty() || contains(&name.to_string_lossy())
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
    selection: Selection,
    /// How many names were selected when the folder was first read, on all pages.
    names: usize,
    /// How many positions may still come.
    left: usize,
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
        selection: Selection,
    ) -> Result<Entries, FilesError> {
        let mut entries = Entries {
            files: Arc::clone(self),
            folder: path.as_path().to_owned(),
            names: 0,
            left: match selection.page {
                Some(page) => page.clamp(1, PAGES_MAX) * PAGE_ENTRIES,
                None => usize::MAX,
            },
            selection,
            window: Vec::new().into_iter(),
            memory: None,
            last: None,
            is_complete: true,
        };
        let _permit = self.list_limits.permit()?;
        entries.fill()?;
        entries.turn_to_page()?;
        Ok(entries)
    }
}

/// An entry of a folder, if it can be requested: it is none of the secrets.
fn entry(root: &Root, folder: &Path, name: OsString, secrets: &[FileId]) -> Option<Entry> {
    let path = folder.join(&name);
    let there = root.link_metadata(&path).ok()?;
    let is_link = there.is_symlink();
    // A link is followed from the root; one that leads outside is not listed.
    let there = if is_link {
        root.metadata(&path).ok()?
    } else {
        there
    };
    match secrets.contains(&FileId::from(&there)) {
        true => None,
        false => entry_of(name, is_link, &there),
    }
}

/// The same for a name that was just read. Only a link, and what may be a secret, is followed from the
/// root.
fn entry_listed(
    root: &Root,
    folder: &Path,
    listed: &DirEntry,
    secrets: &[FileId],
) -> Option<Entry> {
    let there = listed.metadata().ok()?;
    if there.is_symlink() || secrets.iter().any(|secret| secret.inode() == listed.ino()) {
        return entry(root, folder, listed.file_name(), secrets);
    }
    entry_of(listed.file_name(), false, &there)
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
            let Some(position) = self.next_position()? else {
                break;
            };
            name_bytes += position.name.len();
            batch.extend(entry(&root, &self.folder, position.name, &secrets));
        }
        Ok(batch)
    }

    /// Whether there are no more.
    pub(crate) fn is_at_end(&self) -> bool {
        self.left == 0 || self.window.as_slice().is_empty() && self.last.is_none()
    }

    /// The page that this is, if it is one.
    pub(crate) fn page(&self) -> Option<usize> {
        self.selection.page
    }

    /// How many names are selected, on all pages.
    pub(crate) fn names(&self) -> usize {
        self.names
    }

    fn next_position(&mut self) -> Result<Option<Position>, FilesError> {
        while !self.is_at_end() {
            match self.window.next() {
                Some(position) => {
                    self.left -= 1;
                    return Ok(Some(position));
                }
                None => self.fill()?,
            }
        }
        Ok(None)
    }

    /// Drops the positions before the page.
    fn turn_to_page(&mut self) -> Result<(), FilesError> {
        let Some(page) = &mut self.selection.page else {
            return Ok(());
        };
        let last = self.names.div_ceil(PAGE_ENTRIES);
        *page = (*page).min(last).max(1);
        let before = (*page - 1) * PAGE_ENTRIES;
        self.left = before + PAGE_ENTRIES;
        for _ in 0..before {
            self.next_position()?;
        }
        let mut positions: Vec<_> = mem::take(&mut self.window).collect();
        positions.shrink_to_fit();
        if let Some(memory) = &mut self.memory {
            memory.shrink(positions.iter().map(Position::bytes).sum());
        }
        self.window = positions.into_iter();
        Ok(())
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
        let order = self.selection.order;
        let mut window = Window {
            order,
            positions_max: self.left,
            positions: Vec::new(),
            bytes: 0,
            end: None,
        };
        let mut names = 0;
        let root = self.files.root()?;
        let secrets = self.files.secrets.ids();
        let folder = root.open_dir(&self.folder)?;
        for (at, entry) in folder.entries()?.enumerate() {
            if at == ENTRIES_MAX {
                self.is_complete = false;
                break;
            }
            let position = self.position(&root, &entry?, &secrets);
            names += usize::from(position.is_some());
            let is_before =
                |one: &Position, other: &Position| order.compare(one, other) == Ordering::Less;
            let is_next = |position: &Position| {
                let last = self.last.as_ref();
                last.is_none_or(|last| is_before(last, position))
                    && window
                        .end
                        .as_ref()
                        .is_none_or(|end| is_before(position, end))
            };
            if let Some(position) = position.filter(is_next) {
                window.bytes += position.bytes();
                window.positions.push(position);
            }
            // A cut leaves half of it, so that cuts are rare.
            let positions_max = window.positions_max.max(PAGE_ENTRIES).saturating_mul(2);
            if window.bytes > 2 * bytes_max || window.positions.len() > positions_max {
                window.cut(bytes_max);
            }
        }
        if self.last.is_none() {
            self.names = names;
        }
        window.cut(bytes_max);
        window.positions.shrink_to_fit();
        memory.shrink(window.bytes);
        self.memory = Some(memory);
        self.last = window.end;
        self.window = window.positions.into_iter();
        Ok(())
    }

    /// The position of an entry. The order by name needs no metadata, except of links and of entries
    /// whose kind the file system does not say.
    fn position(&self, root: &Root, listed: &DirEntry, secrets: &[FileId]) -> Option<Position> {
        let name = listed.file_name();
        if is_reserved(Path::new(&name)) || !self.selection.is_met(&name) {
            return None;
        }
        let kind = listed.file_type().ok()?;
        let column = self.selection.order.column;
        // A secret is not even counted: a search would tell its name.
        let is_known = !secrets.iter().any(|secret| secret.inode() == listed.ino());
        if column == Column::Name && is_known && (kind.is_file() || kind.is_dir()) {
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
        } = entry_listed(root, &self.folder, listed, secrets)?;
        Some(Position {
            is_file: !is_folder,
            number: match column {
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
    /// The most positions that are wanted.
    positions_max: usize,
    positions: Vec<Position>,
    bytes: usize,
    /// The last position of the window, if those behind it are left for the next. One that is read later
    /// would fill the space of one that was left.
    end: Option<Position>,
}

impl Window {
    /// Orders the positions, and drops those at the end that exceed the memory or are not wanted.
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
        let kept = kept.min(self.positions_max);
        if kept < self.positions.len() {
            self.positions.truncate(kept);
            self.end = self.positions.last().cloned();
        }
        self.bytes = self.positions.iter().map(Position::bytes).sum();
    }
}

#[cfg(test)]
mod tests;
