//! A download that a later try can resume. What has been received of `NAME` is kept beside it, in the
//! part `.quartet-download-NAME`, and what it is of in the state `.quartet-resume-NAME`.
//!
//! The part is emptied before its state is written, and grows only after that. So however a client
//! ends, a part that is not empty is of the version that its state says. One client at a time holds the
//! part's lock.

use std::fs::{File, Metadata, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use proto::http::digest;
use proto::retry_interrupted;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::cleanup;
use crate::escaped::escaped;
use crate::ownership::Ownership;
use crate::place::Place;
use crate::progress::above_bars;
use crate::received::{Destination, Received};
use crate::replacement::{SaveTo, Target, set_modified};
use crate::sidecar::{self, PART_PREFIX, STATE_PREFIX, is_foreign, is_ours, is_taken};

/// How much of a part is read at once to be hashed, in bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// What a part is of.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// Host and port.
    server: String,
    /// The path on the server, as a request target.
    target: String,
    /// The version of the file: a strong entity tag.
    etag: String,
    /// The value of a `Repr-Digest` field, if the server has sent one.
    digest: Option<String>,
}

/// A part, which is kept when this is dropped.
#[derive(Debug)]
pub(crate) struct ResumableFile {
    /// Where the file is saved.
    target: Place,
    /// What it gets when it is whole.
    ownership: Ownership,
    part: File,
    part_place: Place,
    state_place: Place,
    /// Host and port.
    server: String,
    /// The path on the server, as a request target.
    source: String,
    /// Whether there is a state, so that a later try can resume.
    has_state: bool,
}

impl ResumableFile {
    /// Opens the part of a download, or makes an empty one.
    ///
    /// # Errors
    /// If another client has locked it, it belongs to another user, or the target is not a regular
    /// file.
    pub(crate) fn open(to: SaveTo, server: String, source: String) -> Result<Self, Error> {
        let found = to.target().map_err(Error::write(&to.path()))?;
        let Target::File { place, ownership } = found else {
            return Err(Error::NotResumable(to.path()));
        };
        let part_place = sidecar::named(&place, PART_PREFIX)?;
        let state_place = sidecar::named(&place, STATE_PREFIX)?;
        let places = [&state_place, &part_place];
        if let Some(taken) = places.into_iter().find(|place| is_taken(place)) {
            return Err(Error::NotOurs(taken.path()));
        }
        cleanup::remove_stale_in(place.folder());
        let part = open_part(&part_place, is_ours)?;
        Ok(Self {
            target: place,
            ownership,
            part,
            part_place,
            state_place,
            server,
            source,
            has_state: false,
        })
    }

    /// Reads what has been received, if its state says that it is of this file. Later writes append
    /// to it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn received(&mut self) -> Result<Received, Error> {
        let state: Option<State> = sidecar::find(&self.state_place);
        let Some(state) = state.filter(|state| state.target == self.source) else {
            return Ok(Received::default());
        };
        let digest = state.digest.as_deref().map(str::as_bytes);
        let digest = digest.and_then(|digest| digest::parse(digest).ok().flatten());
        // The same tag on two servers may mean two files. Only a digest tells them apart.
        if state.server != self.server && digest.is_none() {
            return Ok(Received::default());
        }
        let mut received = Received {
            etag: Some(state.etag),
            digest,
            ..Received::default()
        };
        let path = self.part_place.path();
        let failed = Error::read(&path);
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match retry_interrupted(|| self.part.read(&mut piece)).map_err(&failed)? {
                0 => break,
                bytes => received.add(&piece[..bytes]),
            }
        }
        self.has_state = true;
        Ok(received)
    }

    /// Gives the file its name, and the time of its last change on the server, if that is known.
    ///
    /// # Errors
    /// If it cannot be renamed; then it is kept for a later try.
    pub(crate) fn finish(&mut self, modified: Option<SystemTime>) -> Result<(), Error> {
        let part = self
            .part
            .metadata()
            .map_err(Error::write(&self.part_place.path()))?;
        if !is_at(&self.part_place, &part) {
            return Err(Error::InUse(self.part_place.path()));
        }
        let given = self.ownership.give_to(&self.part);
        set_modified(&self.part, modified);
        let renamed = given.and_then(|()| self.part_place.rename_to(&self.target));
        renamed.map_err(Error::write(&self.target.path()))?;
        sidecar::remove(&self.state_place);
        Ok(())
    }

    /// How much a later try need not get again, in bytes.
    pub(crate) fn kept_bytes(&self) -> u64 {
        match self.has_state {
            true => self.part.metadata().map_or(0, |part| part.len()),
            false => 0,
        }
    }

    /// Removes the part and its state.
    pub(crate) fn remove(self) {
        sidecar::remove(&self.state_place);
        sidecar::remove(&self.part_place);
    }
}

impl Destination for ResumableFile {
    fn begin(&mut self, received: &Received) -> Result<(), Error> {
        let emptied = self.part.set_len(0);
        let emptied = emptied.and_then(|()| self.part.seek(SeekFrom::Start(0)));
        emptied.map_err(Error::write(&self.part_place.path()))?;
        self.has_state = false;
        let Some(etag) = received.etag.clone() else {
            above_bars(|| log::debug!("The server gives no version: this cannot be resumed"));
            sidecar::remove(&self.state_place);
            return Ok(());
        };
        let state = State {
            server: self.server.clone(),
            target: self.source.clone(),
            etag,
            digest: received.digest.as_ref().map(digest::format),
        };
        let written = sidecar::write(&self.state_place, &state);
        written.map_err(Error::write(&self.state_place.path()))?;
        self.has_state = true;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.part.write_all(bytes);
        written.map_err(Error::write(&self.part_place.path()))
    }

    fn can_begin_again(&self) -> bool {
        true
    }
}

impl Drop for ResumableFile {
    fn drop(&mut self) {
        // Closing it is not enough while a process that was just forked has it too.
        let _ = self.part.unlock();
    }
}

/// Opens a part, or makes it, and locks it for as long as it is open. A part that other users can open
/// is removed and made anew, because they may write to it.
fn open_part(place: &Place, is_ours: fn(&Metadata) -> bool) -> Result<File, Error> {
    for is_first in [true, false] {
        let (part, found) = lock(place)?;
        if is_ours(&found) {
            return Ok(part);
        }
        if is_foreign(&found) {
            return Err(Error::NotOurs(place.path()));
        }
        let path = place.path();
        if is_first && found.len() > 0 {
            above_bars(|| log::warn!("{} is not used: it is not ours alone", escaped(&path)));
        }
        place.remove().map_err(Error::write(&path))?;
    }
    Err(Error::NotPrivate(place.path()))
}

/// Opens a file, or makes it, and locks it for as long as it is open.
fn lock(place: &Place) -> Result<(File, Metadata), Error> {
    let path = place.path();
    let failed = Error::write(&path);
    // In a folder of many users, another user may have put a link there.
    let part = place.open(OFlags::RDWR | OFlags::CREATE, sidecar::MODE);
    let part = part.map_err(&failed)?;
    match part.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(Error::InUse(path.clone())),
        Err(TryLockError::Error(cause)) => return Err(failed(cause)),
    }
    let opened = part.metadata().map_err(failed)?;
    if !opened.is_file() {
        return Err(Error::NotAFile(path.clone()));
    }
    // The client that held the lock before may have renamed the file after it was opened here.
    match is_at(place, &opened) {
        true => Ok((part, opened)),
        false => Err(Error::InUse(path.clone())),
    }
}

/// Whether an open file is the one at a place.
fn is_at(place: &Place, opened: &Metadata) -> bool {
    place
        .metadata()
        .is_ok_and(|found| (found.dev(), found.ino()) == (opened.dev(), opened.ino()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::path::Path;

    use super::*;

    fn open(to: &Path, server: &str, source: &str) -> Result<ResumableFile, Error> {
        ResumableFile::open(SaveTo::Path(to), server.to_owned(), source.to_owned())
    }

    fn begun(to: &Path, etag: Option<&str>) -> ResumableFile {
        let mut file = open(to, "h:1", "/a").unwrap();
        let received = Received {
            etag: etag.map(str::to_owned),
            ..Received::default()
        };
        file.begin(&received).unwrap();
        file.write(b"half").unwrap();
        file
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_later_try_resumes() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("a");
        let first = begun(&to, Some("\"1\""));
        assert_eq!(first.kept_bytes(), 4);
        drop(first);
        let parts = [".quartet-download-a", ".quartet-resume-a"];
        assert_eq!(names(folder.path()), parts);
        let mut second = open(&to, "h:1", "/a").unwrap();
        let received = second.received().unwrap();
        assert_eq!(
            (received.bytes, received.etag.as_deref()),
            (4, Some("\"1\""))
        );
        second.write(b" and half").unwrap();
        second.finish(None).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"half and half");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn a_part_of_something_else_is_not_resumed() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("a");
        drop(begun(&to, Some("\"1\"")));
        let mut other = open(&to, "h:1", "/b/a").unwrap();
        assert_eq!(other.received().unwrap().bytes, 0);
        drop(other);
        drop(begun(&to, Some("\"1\"")));
        let other = open(&to, "h:2", "/a");
        assert_eq!(other.unwrap().received().unwrap().bytes, 0);
        let unknown = begun(&to, None);
        assert_eq!(unknown.kept_bytes(), 0);
        drop(unknown);
        let mut other = open(&to, "h:1", "/a").unwrap();
        assert_eq!(other.received().unwrap().bytes, 0);
        other.remove();
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn two_files_share_nothing_whatever_they_are_called() {
        let folder = tempfile::tempdir().unwrap();
        let tos =
            ["a", "a.json", "resume-a", "download-a", "state-a"].map(|n| folder.path().join(n));
        let files = tos.each_ref().map(|to| begun(to, Some("\"1\"")));
        for mut file in files {
            file.finish(None).unwrap();
        }
        for to in tos {
            assert_eq!(fs::read(&to).unwrap(), b"half", "{}", to.display());
        }
        assert_eq!(names(folder.path()).len(), 5);
    }

    #[test]
    fn what_took_the_place_of_the_part_is_not_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("a");
        let mut file = begun(&to, Some("\"1\""));
        fs::write(folder.path().join("other"), "other").unwrap();
        fs::rename(folder.path().join("other"), file.part_place.path()).unwrap();
        assert!(matches!(file.finish(None), Err(Error::InUse(_))));
        assert!(!to.exists());
    }

    #[test]
    fn one_client_at_a_time_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("a");
        let first = begun(&to, Some("\"1\""));
        let second = open(&to, "h:1", "/a");
        assert!(matches!(second, Err(Error::InUse(_))));
        first.remove();
        open(&to, "h:1", "/a").unwrap().remove();
    }

    #[test]
    fn the_mode_of_what_is_replaced_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("a");
        fs::write(&to, "old").unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(0o640)).unwrap();
        let mut file = begun(&to, Some("\"1\""));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&file.part_place.path()), 0o600);
        file.finish(None).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"half");
        assert_eq!(mode(&to), 0o640);
    }

    #[test]
    fn a_part_that_others_can_write_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("a");
        let part = folder.path().join(".quartet-download-a");
        let spoil: [&dyn Fn(); 2] = [
            &|| fs::set_permissions(&part, fs::Permissions::from_mode(0o644)).unwrap(),
            &|| fs::hard_link(&part, folder.path().join("link")).unwrap(),
        ];
        for spoil in spoil {
            drop(begun(&to, Some("\"1\"")));
            spoil();
            let mut file = open(&to, "h:1", "/a").unwrap();
            assert_eq!(file.received().unwrap().bytes, 0);
            assert_eq!(fs::metadata(&part).unwrap().mode() & 0o7777, 0o600);
        }
        // The file that it was a link to is unchanged.
        assert_eq!(fs::read(folder.path().join("link")).unwrap(), b"half");
    }

    #[test]
    fn a_disk_without_modes_keeps_no_part() {
        let folder = tempfile::tempdir().unwrap();
        let part = open_part(&Place::at(&folder.path().join("part")).unwrap(), |_| false);
        assert!(matches!(part, Err(Error::NotPrivate(_))));
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn what_belongs_to_another_user_is_left_alone() {
        for name in [".quartet-download-a", ".quartet-resume-a"] {
            let folder = tempfile::tempdir().unwrap();
            let to = folder.path().join("a");
            drop(begun(&to, Some("\"1\"")));
            if chown(folder.path().join(name), Some(65534), None).is_err() {
                return; // Only root can try this.
            }
            let opened = open(&to, "h:1", "/a");
            assert!(matches!(opened, Err(Error::NotOurs(_))));
        }
    }

    #[test]
    fn what_cannot_be_resumed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let open = |to: &Path| open(to, "h:1", "/a").unwrap_err();
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        let error = open(&pipe).to_string();
        let want = "/pipe is not a regular file, as --resume needs it";
        assert!(error.ends_with(want), "{error}");
        fs::remove_file(&pipe).unwrap();
        assert!(matches!(open(folder.path()), Error::Write { .. }));
        let gone = folder.path().join("gone/a");
        assert!(matches!(open(&gone), Error::Write { .. }));
        let long = folder.path().join("a".repeat(240));
        assert!(matches!(open(&long), Error::NameTooLong { .. }));
        // Not through a link that another user has put there.
        let to = folder.path().join("a");
        std::os::unix::fs::symlink("b", folder.path().join(".quartet-download-a")).unwrap();
        assert!(matches!(open(&to), Error::Write { .. }));
        assert_eq!(names(folder.path()), [".quartet-download-a"]);
    }
}
