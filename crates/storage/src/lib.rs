//! Many threads append, one writer thread commits for all of them at once.
//!
//! A disk can sync a few hundred or thousand times a second, however little is written each time.
//! So instead of every connection syncing its own record, all of them hand their records to one
//! thread that owns the file or database; it takes everything that is waiting, commits once, and
//! tells all who waited. The more wait, the more one sync does.
//!
//! What holds:
//! - Nothing is answered before it is committed, and the order in which changes were applied is
//!   the order in the file.
//! - A batch whose *write* failed is undone and refused, every change of it; later ones may
//!   succeed, when there is room again, say.
//! - After a failed *sync* nothing is retried. Linux reports a failed writeback once and marks the
//!   pages clean, so a second sync would succeed without anything being on the disk. Every waiter
//!   is told that its change is not known to be stored, and the committer ends; the server must
//!   too.
//!
//! [`Committer`] is the writer thread and the way to it, [`Store`] what it owns; [`TextFile`] is
//! the file of lines that the stores of the code and the history service are built on; [`DataFile`]
//! keeps a second server away from a file, and notices what others do to its name.

mod committer;
mod data_file;
mod error;
mod folder;
mod handover;
mod look;
mod mark;
mod ownership;
mod reopening;
mod replacement;
mod room;
mod sync;
mod text_file;

pub use committer::{Committer, Fsync};
pub use data_file::{DataFile, OldLock, Place, Watch};
pub use error::{CommitError, NotStored, StorageError};
pub use folder::{MadeFolders, sync_folder};
pub use handover::{Store, Ticket};
pub use look::Look;
pub use ownership::{Ownership, acl_of};
pub use reopening::Reopening;
pub use replacement::Replacement;
pub use room::{FILE_BYTES_DEFAULT, FILE_BYTES_MAX, Limits, Room};
pub use text_file::{Line, ReadFile, TextFile};
