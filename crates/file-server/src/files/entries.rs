//! What stands in a folder, in order, and in batches.
//!
//! Of a folder, only a window is in memory: the names that come next in the order, as many as there is
//! room for. When they are used up, the folder is read again, for those behind them. So a list takes
//! little memory however long it is and however slowly somebody reads it, and nobody waits for the room
//! of another: with less room the windows are smaller, and the folder is read more often. What changes
//! meanwhile may be missing; what changes its position in the order may also be there twice.
//!
//! Whoever makes a batch takes a turn, of which there are few, so that many lists at once do not keep
//! the disk from all else. Nobody has a turn while a batch is sent.

use std::cmp::Ordering;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::vec;

use cap_std::fs::{DirEntry, Metadata};
use crossbeam_channel::{Receiver, Sender};

use super::root::Root;
use super::{Files, FilesError, is_reserved, seconds};
use crate::path::TreePath;

/// How many names of a folder are looked at.
pub const ENTRIES_MAX: usize = 100_000;

/// So many batches are made at once...
const TURNS_MAX: usize = 4;
/// ...and whoever has waited so long for a turn is refused.
const TURN_WAIT: Duration = Duration::from_secs(20);

/// What all windows together may take, in bytes...
const ROOM_BYTES: usize = 64 << 20;
/// ...of which each takes this share of what is left: the first has room for some 50,000 names, and
/// with forty at once each still for thousands...
const ROOM_SHARE: usize = 16;
/// ...and what it may take when there is hardly any room left.
const WINDOW_BYTES_MIN: usize = 32 << 10;

/// A batch ends behind so many entries...
const BATCH_ENTRIES: usize = 256;
/// ...or so many bytes of names.
const BATCH_NAME_BYTES: usize = 16 << 10;

/// What stands in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, which need not be UTF-8.
    pub name: OsString,
    /// Whether it is a folder; else it is a regular file.
    pub is_folder: bool,
    /// A file's length.
    pub bytes: u64,
    /// When it was last changed, in seconds since 1970.
    pub modified: u64,
}

/// What entries are ordered by, behind the folders, which come first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Column {
    /// The name, byte by byte.
    #[default]
    Name,
    /// A file's length.
    Size,
    /// When it was last changed.
    Time,
}

/// The order of a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Order {
    /// By what; what is the same there is ordered by name.
    pub column: Column,
    /// Whether the other way round.
    pub is_descending: bool,
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

/// Where an entry stands in the order.
#[derive(Debug, Clone)]
struct Position {
    is_file: bool,
    /// What the order's column has for it; nothing if that is its name.
    number: u64,
    name: OsString,
}

impl Position {
    /// What it takes in memory, nearly.
    fn bytes(&self) -> usize {
        /// What the allocator adds.
        const ALLOCATION_BYTES: usize = 16;
        size_of::<Self>() + self.name.capacity() + ALLOCATION_BYTES
    }
}

/// What all lists share.
pub(super) struct Lists {
    turns: (Sender<()>, Receiver<()>),
    /// How much room is left for windows, in bytes.
    room_bytes: Mutex<usize>,
}

impl Default for Lists {
    fn default() -> Self {
        Self {
            turns: crossbeam_channel::bounded(TURNS_MAX),
            room_bytes: Mutex::new(ROOM_BYTES),
        }
    }
}

impl Lists {
    /// Waits for a turn.
    fn turn(&self) -> Result<Turn<'_>, FilesError> {
        let (taken, given_back) = &self.turns;
        let waited = taken.send_timeout((), TURN_WAIT);
        waited.map_err(|_| FilesError::TooManyLists)?;
        Ok(Turn(given_back))
    }

    /// Takes room for a window, and leaves most of it to others: a folder is read once for each of its
    /// windows, and a list in tiny ones reads it hundreds of times.
    fn take_room(self: &Arc<Self>) -> Room {
        let bytes = self.change_room(|left| {
            let taken = *left / ROOM_SHARE;
            *left -= taken;
            taken
        });
        Room {
            lists: Arc::clone(self),
            bytes,
        }
    }

    fn change_room<T>(&self, change: impl FnOnce(&mut usize) -> T) -> T {
        let left = self.room_bytes.lock();
        change(&mut left.unwrap_or_else(PoisonError::into_inner))
    }
}

/// Dropping it ends a turn.
#[must_use = "dropping it ends the turn"]
struct Turn<'l>(&'l Receiver<()>);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // It is there: it was put there when the turn began.
        let _ = self.0.try_recv();
    }
}

/// Room for a window. Dropping it gives it back.
struct Room {
    lists: Arc<Lists>,
    bytes: usize,
}

impl Room {
    /// Gives back what is not needed.
    fn shrink(&mut self, bytes: usize) {
        let rest = self.bytes.saturating_sub(bytes);
        self.lists.change_room(|left| *left += rest);
        self.bytes -= rest;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

/// The entries of a folder, in order.
pub struct Entries {
    files: Arc<Files>,
    folder: PathBuf,
    order: Order,
    /// What comes next, and the room it takes.
    window: vec::IntoIter<Position>,
    room: Option<Room>,
    /// The end of the window, if there are names behind it.
    last: Option<Position>,
    is_complete: bool,
}

impl Files {
    /// What stands in a folder: its regular files and folders, but not what cannot be asked for.
    ///
    /// # Errors
    /// If there is no such folder, if there are too many lists, and those of the disk.
    pub fn list(self: &Arc<Self>, path: &TreePath, order: Order) -> Result<Entries, FilesError> {
        let mut entries = Entries {
            files: Arc::clone(self),
            folder: path.as_path().to_owned(),
            order,
            window: Vec::new().into_iter(),
            room: None,
            last: None,
            is_complete: true,
        };
        let _turn = self.lists.turn()?;
        entries.fill()?;
        Ok(entries)
    }
}

/// An entry of a folder, if it can be asked for.
fn entry(root: &Root, folder: &Path, name: OsString) -> Option<Entry> {
    // Followed from the root on, if it is a link; one that leads outside is not there.
    let there = root.metadata(&folder.join(&name)).ok()?;
    entry_of(name, &there)
}

/// The same of what was just listed. Only a link has to be looked for from the root on.
fn entry_listed(root: &Root, folder: &Path, listed: &DirEntry) -> Option<Entry> {
    let there = listed.metadata().ok()?;
    match there.is_symlink() {
        true => entry(root, folder, listed.file_name()),
        false => entry_of(listed.file_name(), &there),
    }
}

fn entry_of(name: OsString, there: &Metadata) -> Option<Entry> {
    let modified = there.modified().ok();
    (there.is_file() || there.is_dir()).then(|| Entry {
        name,
        is_folder: there.is_dir(),
        bytes: there.len(),
        modified: modified.map_or(0, |modified| seconds(modified.into_std())),
    })
}

impl Entries {
    /// The next entries. Behind the last there are none, and once also before it, if those that should
    /// have come are gone.
    ///
    /// # Errors
    /// If the folder is gone, if there are too many lists, and those of the disk.
    pub fn batch(&mut self) -> Result<Vec<Entry>, FilesError> {
        let files = Arc::clone(&self.files);
        let _turn = files.lists.turn()?;
        let root = files.root()?;
        let mut batch = Vec::new();
        let mut name_bytes = 0;
        while batch.len() < BATCH_ENTRIES && name_bytes < BATCH_NAME_BYTES {
            match self.window.next() {
                Some(position) => {
                    name_bytes += position.name.len();
                    batch.extend(entry(&root, &self.folder, position.name));
                }
                None if self.last.is_some() => self.fill()?,
                None => break,
            }
        }
        Ok(batch)
    }

    /// Whether there are no more.
    pub fn is_at_end(&self) -> bool {
        self.window.as_slice().is_empty() && self.last.is_none()
    }

    /// Whether all names of the folder are among the entries. Known for good at the end.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Fills the window with the positions behind the last one.
    fn fill(&mut self) -> Result<(), FilesError> {
        self.window = Vec::new().into_iter();
        self.room = None;
        let mut room = self.files.lists.take_room();
        let bytes_max = room.bytes.max(WINDOW_BYTES_MIN);
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
            // Half of it is kept, so that each cut pays for itself.
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
        room.shrink(window.bytes);
        self.room = Some(room);
        self.last = positions.last().filter(|_| is_cut).cloned();
        self.window = positions.into_iter();
        Ok(())
    }

    /// Where an entry stands in the order. Only a link, and what its file system does not say the kind
    /// of, has to be looked at to know that of a name.
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
    /// Whether something had to be left for the next window.
    is_cut: bool,
}

impl Window {
    /// Orders what there is, and drops the end of it that there is no room for.
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
