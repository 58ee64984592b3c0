//! Whose a file is, and what may be done with it, once it has arrived.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use crate::beside;
use crate::progress::above_bars;

/// A file that is arriving is nobody else's until it has its place.
pub(crate) const MODE_OF_ARRIVING: u32 = 0o600;

/// What a file gets that has arrived: the mode of the one that it replaces, and its owner where that is
/// allowed; or, if it replaces none, the mode that any new file gets in that folder.
#[derive(Debug)]
pub(crate) struct Rights {
    mode: u32,
    /// User and group, if they are to be kept.
    owner: Option<(u32, u32)>,
}

impl Rights {
    /// Those of a file that is replaced, as writing to it would leave them: nothing else runs as its
    /// owner.
    pub(crate) fn of(replaced: &Metadata) -> Self {
        Self {
            mode: replaced.mode() & 0o777,
            owner: Some((replaced.uid(), replaced.gid())),
        }
    }

    /// Those of a new file. The umask says it, or the folder's access control list; making a file is the
    /// way to ask both.
    ///
    /// # Errors
    /// If there can be no file.
    pub(crate) fn of_new(target: &Path) -> io::Result<Self> {
        let path = beside::temporary(target, beside::PART_PREFIX);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o666);
        let there = options.open(&path)?.metadata();
        fs::remove_file(&path)?;
        let mode = there?.mode() & 0o777;
        Ok(Self { mode, owner: None })
    }

    /// Gives them to a file that has arrived. One that cannot have them stays as private as it was: it is
    /// there all the same.
    pub(crate) fn give_to(&self, file: &File) -> io::Result<()> {
        let there = file.metadata()?;
        let mut mode = self.mode;
        if let Some((user, group)) = self.owner
            && (there.uid(), there.gid()) != (user, group)
            && fchown(file, Some(user), Some(group)).is_err()
            // Only root may give a file away. Its group may be one of ours.
            && let Err(error) = fchown(file, None, Some(group))
        {
            above_bars(|| log::debug!("The owner is not kept: {error}"));
            mode = for_other_group(mode);
        }
        if there.mode() & 0o7777 != mode
            && let Err(error) = file.set_permissions(Permissions::from_mode(mode))
        {
            above_bars(|| log::warn!("The mode is not {mode:o}: {error}"));
        }
        Ok(())
    }
}

/// A mode for a file that gets another group than it was meant for, which may do no more than anybody.
fn for_other_group(mode: u32) -> u32 {
    (mode & !0o070) | (mode & (mode << 3) & 0o070)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_group_may_do_no_more_than_others() {
        for (mode, want) in [
            (0o660, 0o600),
            (0o640, 0o600),
            (0o664, 0o644),
            (0o755, 0o755),
            (0o606, 0o606),
            (0o777, 0o777),
        ] {
            assert_eq!(for_other_group(mode), want, "{mode:o}");
        }
    }
}
