//! The tree of files on disk and its rules. Nothing here knows a socket or a reply.
//!
//! | file | what it holds |
//! |---|---|
//! | `root` | the folder that is served, and why no path leads out of it |
//! | `tree` | [`Files`]: the state that all share, and the file at a path |
//! | `entries`, `list_limits` | the list of a folder |
//! | `walk` | everything in a folder and the folders below it |
//! | `upload` | an [`Upload`]: a file that arrives under a temporary name |
//! | `destination` | where an upload will stand, and what stands there now |
//! | `commit` | how an upload becomes a file: sync, rename, sync |
//! | `manage`, `removal` | what is deleted, renamed and created without an upload |
//! | `record`, `unfinished` | what is left of an interrupted upload, and how it continues |
//! | `sweep`, `expirations` | the removal of what nobody continues |
//! | `permissions` | who may use a file that replaces another |
//! | `secrets` | the files that are for nobody |
//! | `disk`, `hashers`, `identity`, `keyed_locks`, `temporary` | syncs, digests, identities, locks, names |
//!
//! Several servers may serve one root.

mod commit;
mod destination;
mod disk;
mod entries;
mod expirations;
mod hashers;
mod identity;
mod keyed_locks;
mod list_limits;
mod manage;
mod permissions;
mod record;
mod removal;
mod root;
mod secrets;
mod sweep;
mod temporary;
mod tree;
mod unfinished;
mod upload;
mod walk;

#[cfg(test)]
mod tests;

pub(crate) use entries::{
    Column, ENTRIES_MAX, Entries, Entry, Order, PAGE_ENTRIES, PAGES_MAX, Selection,
};
pub(crate) use identity::{Identity, seconds_now};
pub(crate) use keyed_locks::Abort;
pub(crate) use tree::{Files, Found, FoundFile};
pub(crate) use unfinished::Reopened;
pub(crate) use upload::Upload;
pub(crate) use walk::{DESCRIPTORS_MAX as WALK_DESCRIPTORS_MAX, Step, Walk};
