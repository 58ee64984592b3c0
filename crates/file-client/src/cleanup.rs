//! Removes stale sidecar files: what clients that were killed have left behind.

use std::ffi::OsStr;
use std::fs::{self, DirEntry, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::OFlags;
use uuid::Uuid;

use crate::escaped::escaped;
use crate::progress::above_bars;
use crate::sidecar::{NEW_STATE_PREFIX, PART_PREFIX, STATE_PREFIX, is_foreign, is_ours};

/// A sidecar is stale when it has not been written to for this long. A transfer that takes longer
/// holds a lock.
const AGE_MIN: Duration = Duration::from_secs(24 * 3600);

/// How many entries of a folder are looked at.
const ENTRIES_MAX: usize = 100_000;

/// The folder that was looked at last: a batch saves all its files into one.
static LAST_FOLDER: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Removes stale sidecars from the folder of a file. It is a courtesy, so a failure is not an error.
pub(crate) fn remove_stale_beside(file: &Path) {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    let mut last = LAST_FOLDER.lock().unwrap_or_else(PoisonError::into_inner);
    if last.replace(folder.to_owned()).as_deref() == Some(folder) {
        return;
    }
    drop(last);
    for entry in fs::read_dir(folder).into_iter().flatten().take(ENTRIES_MAX) {
        let Ok(entry) = entry else { return };
        let path = entry.path();
        if is_stale(&entry).unwrap_or(false) && fs::remove_file(&path).is_ok() {
            above_bars(|| log::debug!("Removed {}: its client was killed", escaped(&path)));
        }
    }
}

fn is_stale(entry: &DirEntry) -> std::io::Result<bool> {
    let path = entry.path();
    if !is_useless(&path) {
        return Ok(false);
    }
    // Of a link this is the link's own metadata.
    let found = entry.metadata()?;
    let is_old = found.modified()?.elapsed().is_ok_and(|age| age >= AGE_MIN);
    // A person may have given a file such a name, but not one that ends in an id.
    let is_made_by_us = is_ours(&found) || has_id(&path) && !is_foreign(&found);
    if !found.is_file() || !is_made_by_us || !is_old {
        return Ok(false);
    }
    let mut options = OpenOptions::new();
    options
        .write(true)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32);
    let file = options.open(path)?;
    Ok(file.try_lock().is_ok())
}

/// Whether this is a part without its state, a state without its part, or a state that was being
/// written.
fn is_useless(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    let without = |prefix: &str| name.as_bytes().strip_prefix(prefix.as_bytes());
    let lacks = |prefix: &str, rest: &[u8]| {
        let other = [prefix.as_bytes(), rest].concat();
        fs::symlink_metadata(path.with_file_name(OsStr::from_bytes(&other))).is_err()
    };
    without(PART_PREFIX).is_some_and(|rest| lacks(STATE_PREFIX, rest))
        || without(STATE_PREFIX).is_some_and(|rest| lacks(PART_PREFIX, rest))
        || without(NEW_STATE_PREFIX).is_some()
}

/// Whether the name of a file ends in an id, as those of temporary files do.
fn has_id(path: &Path) -> bool {
    const ID_BYTES: usize = uuid::fmt::Hyphenated::LENGTH;
    let name = path.file_name().unwrap_or_default().as_bytes();
    name.last_chunk::<ID_BYTES>()
        .is_some_and(|id| Uuid::try_parse_ascii(id).is_ok())
}

#[cfg(test)]
mod tests {
    use std::fs::{File, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
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
        remove_stale_beside(&folder.join("a"));
        for name in &gone {
            assert!(!folder.join(name).exists(), "{name}");
        }
        for name in kept.iter().chain([&young, &busy, &link]) {
            assert!(folder.join(name).symlink_metadata().is_ok(), "{name}");
        }
    }
}
