//! What is on disk stays whole: group commit, the append-only text file, the lock.
//!
//! [`Committer`] is one writer thread that commits for many: connections submit changes and get a
//! [`Pending`] each, and the thread applies them to the [`Store`] it owns, commits them at once, and
//! completes them. [`TextFile`] is the store's file for services whose records are lines.
//! [`DataFile`] keeps a second server away from a file and notices if other programs move it.
//!
//! What holds:
//! - A change is completed after its commit. The changes are in the file in the order in which they
//!   were applied.
//! - After a failed *write* the batch is undone, and each of its changes refused. A later batch may
//!   succeed, when the disk has space again for example.
//! - After a failed *sync* nothing is retried, and the server stops. Linux reports a failed writeback
//!   once and marks the pages clean, so a second sync would succeed with nothing on the disk.

mod committer;
mod data_file;
mod data_folder;
mod error;
mod fsync;
mod group_commit;
mod legacy_lock;
mod limits;
mod lock;
mod measured;
mod ownership;
mod pending;
mod recovery;
mod reopen;
mod replacement;
mod standby;
mod stat;
mod store;
mod sync;
mod text_file;
mod watch;
mod watermark;

pub use committer::Committer;
pub use data_file::DataFile;
pub use data_folder::{DataFolder, sync_folder};
pub use error::{CommitError, NotStored, StorageError};
pub use fsync::Fsync;
pub use legacy_lock::LegacyLock;
pub use limits::{FILE_BYTES_DEFAULT, FILE_BYTES_MAX, Limits, Space};
pub use lock::lock;
pub use measured::{CommitFigures, Histogram, seconds_histogram};
pub use ownership::{Ownership, acl_of};
pub use pending::Pending;
pub use recovery::{Line, Scanned};
pub use reopen::ReopenSignal;
pub use replacement::Replacement;
pub use stat::Stat;
pub use store::Store;
pub use text_file::TextFile;
pub use watch::{PathState, Watch};
