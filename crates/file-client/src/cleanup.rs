//! Removes stale sidecar files: what clients that were killed have left behind.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::OFlags;
use uuid::Uuid;

use crate::escaped::escaped;
use crate::place::{FileId, Folder, Place};
use crate::progress::above_bars;
use crate::sidecar::{NEW_STATE_PREFIX, PART_PREFIX, STATE_PREFIX, is_foreign, is_ours};

/// A sidecar is stale when it has not been written to for this long. A transfer that takes longer
/// holds a lock.
const AGE_MIN: Duration = Duration::from_secs(24 * 3600);

/// How many entries of a folder are looked at.
const ENTRIES_MAX: usize = 100_000;

/// How many folders are remembered that were looked at: as many as there are transfers at once.
const FOLDERS_MAX: usize = 64;

/// The folders that were looked at last: many files of a batch or a folder are saved into one.
static LAST_FOLDERS: Mutex<VecDeque<FileId>> = Mutex::new(VecDeque::new());

/// Removes stale sidecars from a folder. It is a courtesy, so a failure is not an error.
pub(crate) fn remove_stale_in(folder: &Arc<Folder>) {
    let Ok(id) = folder.id() else { return };
    let mut last = LAST_FOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
    if last.contains(&id) {
        return;
    }
    last.truncate(FOLDERS_MAX - 1);
    last.push_front(id);
    drop(last);
    for name in folder.names().into_iter().flatten().take(ENTRIES_MAX) {
        let Ok(name) = name else { return };
        let place = folder.place(&name);
        if is_stale(&place).unwrap_or(false) && place.remove().is_ok() {
            let path = place.path();
            above_bars(|| log::debug!("Removed {}: its client was killed", escaped(&path)));
        }
    }
}

fn is_stale(place: &Place) -> io::Result<bool> {
    if !is_useless(place) {
        return Ok(false);
    }
    // Of a link this is the link's own metadata.
    let found = place.metadata()?;
    let is_old = found.modified()?.elapsed().is_ok_and(|age| age >= AGE_MIN);
    // A person may have given a file such a name, but not one that ends in an id.
    let is_made_by_us = is_ours(&found) || has_id(place) && !is_foreign(&found);
    if !found.is_file() || !is_made_by_us || !is_old {
        return Ok(false);
    }
    Ok(place.open(OFlags::WRONLY, 0)?.try_lock().is_ok())
}

/// Whether this is a part without its state, a state without its part, or a state that was being
/// written.
fn is_useless(place: &Place) -> bool {
    let name = place.name().as_bytes();
    let without = |prefix: &str| name.strip_prefix(prefix.as_bytes());
    let lacks = |prefix: &str, rest: &[u8]| {
        let other = [prefix.as_bytes(), rest].concat();
        place.sibling(OsStr::from_bytes(&other)).metadata().is_err()
    };
    without(PART_PREFIX).is_some_and(|rest| lacks(STATE_PREFIX, rest))
        || without(STATE_PREFIX).is_some_and(|rest| lacks(PART_PREFIX, rest))
        || without(NEW_STATE_PREFIX).is_some()
}

/// Whether the name of a file ends in an id, as those of temporary files do.
fn has_id(place: &Place) -> bool {
    const ID_BYTES: usize = uuid::fmt::Hyphenated::LENGTH;
    let name = place.name().as_bytes();
    name.last_chunk::<ID_BYTES>()
        .is_some_and(|id| Uuid::try_parse_ascii(id).is_ok())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, OpenOptions, Permissions};
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, symlink};
    use std::path::Path;
    use std::time::SystemTime;

    use super::*;

    /// Another user.
    const NOBODY: u32 = 65534;

    fn make(folder: &Path, name: &str, age: Duration) -> File {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = options.open(folder.join(name)).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
        file
    }

    #[test]
    fn only_what_is_ours_and_old_and_stale_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let id = |last: u32| format!("67e55044-10b1-426f-9247-{last:012}");
        let gone = [
            format!(".quartet-download-{}", id(1)),
            format!(".quartet-state-{}", id(2)),
            // A part without its state, and a state without its part.
            ".quartet-download-b".to_owned(),
            ".quartet-resume-c".to_owned(),
        ];
        let mut kept = vec![
            // One that can be resumed, and its state.
            format!(".quartet-download-{}", id(3)),
            format!(".quartet-resume-{}", id(3)),
            ".quartet-download-a".to_owned(),
            ".quartet-resume-a".to_owned(),
            format!(".quartet-upload-{}", id(4)),
            ".quartet-download-given".to_owned(),
            id(5),
        ];
        for name in gone.iter().chain(&kept) {
            make(folder, name, AGE_MIN);
        }
        let given = folder.join(".quartet-download-given");
        fs::set_permissions(given, Permissions::from_mode(0o644)).unwrap();
        let young = format!(".quartet-download-{}", id(6));
        make(folder, &young, AGE_MIN / 2);
        let busy = format!(".quartet-download-{}", id(7));
        let busy_file = make(folder, &busy, AGE_MIN);
        busy_file.try_lock().unwrap();
        let link = format!(".quartet-download-{}", id(8));
        symlink(&gone[0], folder.join(&link)).unwrap();
        let foreign = format!(".quartet-download-{}", id(9));
        make(folder, &foreign, AGE_MIN);
        // Only root can try this.
        if chown(folder.join(&foreign), Some(NOBODY), None).is_err() {
            fs::remove_file(folder.join(&foreign)).unwrap();
        } else {
            kept.push(foreign);
        }
        remove_stale_in(&Arc::new(Folder::open(folder).unwrap()));
        for name in &gone {
            assert!(!folder.join(name).exists(), "{name}");
        }
        for name in kept.iter().chain([&young, &busy, &link]) {
            assert!(folder.join(name).symlink_metadata().is_ok(), "{name}");
        }
    }
}
