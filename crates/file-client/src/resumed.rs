//! A download that another try can go on with. What has arrived of `NAME` stands beside it in
//! `.quartet-download-NAME`, and what it is of in `.quartet-resume-NAME`.
//!
//! The part is emptied before its state is written, and grows only after that: however a client
//! ends, a part that is not empty is of the version that its state says. One client at a time holds
//! the part's lock. Both are ours alone, or they do not count.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use proto::http::digest;
use proto::retry_interrupted;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::arrived::{Arrived, Destination};
use crate::beside::{self, PART_PREFIX, STATE_PREFIX};
use crate::leftovers;
use crate::partial::Place;
use crate::progress::above_bars;
use crate::rights::{MODE_OF_ARRIVING, Rights};
use crate::state::{self, is_foreign, is_ours, is_taken};
use crate::transfer::shown;

/// What has arrived is read in pieces of up to so many bytes, to be hashed.
const PIECE_BYTES: usize = 64 * 1024;

/// What a part is of.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// Host and port.
    server: String,
    /// The path on the server, as a target.
    target: String,
    /// The version of the file: a strong entity tag.
    etag: String,
    /// The value of a `Repr-Digest` field, if the server has sent one.
    digest: Option<String>,
}

/// What has arrived of a file. It stays when this is dropped.
#[derive(Debug)]
pub(crate) struct ResumedFile {
    /// Where the file is to stand.
    to: PathBuf,
    /// What it gets when it has arrived.
    rights: Rights,
    part: File,
    part_path: PathBuf,
    state_path: PathBuf,
    /// Host and port.
    server: String,
    /// The path on the server, as a target.
    source: String,
    /// Whether there is a state, so that another try can go on.
    has_state: bool,
}

impl ResumedFile {
    /// Opens what has arrived of a file, nothing perhaps.
    ///
    /// # Errors
    /// If another client has it open, it belongs to another user, or the file cannot be one that is
    /// gone on with.
    pub(crate) fn open(to: &Path, server: String, source: String) -> Result<Self, Error> {
        let failed = |cause| Error::Write {
            path: to.to_owned(),
            cause,
        };
        let (to, rights) = match Place::at(to).map_err(failed)? {
            Place::File { path, rights } => (path, rights),
            Place::Device => return Err(Error::NotResumable(to.to_owned())),
        };
        let part_path = beside::named(&to, PART_PREFIX)?;
        let state_path = beside::named(&to, STATE_PREFIX)?;
        if let Some(taken) = [&state_path, &part_path]
            .into_iter()
            .find(|path| is_taken(path))
        {
            return Err(Error::NotOurs(taken.clone()));
        }
        leftovers::remove_beside(&to);
        let part = open_part(&part_path, is_ours)?;
        Ok(Self {
            to,
            rights,
            part,
            part_path,
            state_path,
            server,
            source,
            has_state: false,
        })
    }

    /// Reads what has arrived, if it is known what it is of; writing goes on behind it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn arrived(&mut self) -> Result<Arrived, Error> {
        let state: Option<State> = state::find(&self.state_path);
        let Some(state) = state.filter(|state| state.target == self.source) else {
            return Ok(Arrived::default());
        };
        let digest = state.digest.as_deref().map(str::as_bytes);
        let digest = digest.and_then(|digest| digest::parse(digest).ok().flatten());
        // What two servers call by one tag may be two files, which only a digest tells apart.
        if state.server != self.server && digest.is_none() {
            return Ok(Arrived::default());
        }
        let mut arrived = Arrived {
            etag: Some(state.etag),
            digest,
            ..Arrived::default()
        };
        let failed = |cause| Error::Read {
            path: self.part_path.clone(),
            cause,
        };
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match retry_interrupted(|| self.part.read(&mut piece)).map_err(failed)? {
                0 => break,
                bytes => arrived.add(&piece[..bytes]),
            }
        }
        self.has_state = true;
        Ok(arrived)
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// If it cannot be renamed; then it stays for another try.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        let failed = |cause| self.failed(cause);
        let part = self.part.metadata().map_err(failed)?;
        if !is_at(&self.part_path, &part) {
            return Err(Error::InUse(self.part_path.clone()));
        }
        let given = self.rights.give_to(&self.part);
        let renamed = given.and_then(|()| fs::rename(&self.part_path, &self.to));
        renamed.map_err(|cause| Error::Write {
            path: self.to.clone(),
            cause,
        })?;
        state::remove(&self.state_path);
        Ok(())
    }

    /// How much another try need not get again, in bytes.
    pub(crate) fn kept_bytes(&self) -> u64 {
        match self.has_state {
            true => self.part.metadata().map_or(0, |part| part.len()),
            false => 0,
        }
    }

    /// Removes what has arrived.
    pub(crate) fn remove(self) {
        state::remove(&self.state_path);
        state::remove(&self.part_path);
    }
}

impl Destination for ResumedFile {
    fn begin(&mut self, arrived: &Arrived) -> Result<(), Error> {
        let emptied = self.part.set_len(0);
        let emptied = emptied.and_then(|()| self.part.seek(SeekFrom::Start(0)));
        emptied.map_err(|cause| self.failed(cause))?;
        self.has_state = false;
        let Some(etag) = arrived.etag.clone() else {
            above_bars(|| log::debug!("No version is given: no other try can go on from here"));
            state::remove(&self.state_path);
            return Ok(());
        };
        let state = State {
            server: self.server.clone(),
            target: self.source.clone(),
            etag,
            digest: arrived.digest.as_ref().map(digest::format),
        };
        let written = state::write(&self.state_path, &state);
        written.map_err(|cause| Error::Write {
            path: self.state_path.clone(),
            cause,
        })?;
        self.has_state = true;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.part.write_all(bytes);
        written.map_err(|cause| self.failed(cause))
    }

    fn can_begin_again(&self) -> bool {
        true
    }
}

impl ResumedFile {
    fn failed(&self, cause: io::Error) -> Error {
        Error::Write {
            path: self.part_path.clone(),
            cause,
        }
    }
}

impl Drop for ResumedFile {
    fn drop(&mut self) {
        // Closing it is not enough while a process that was just forked has it too.
        let _ = self.part.unlock();
    }
}

/// Opens a part, or makes it, and locks it for as long as it is open. One of ours that others can
/// open too is not ours alone: somebody may write to it. It makes room for a new one.
fn open_part(path: &Path, is_ours: fn(&Metadata) -> bool) -> Result<File, Error> {
    let failed = |cause| Error::Write {
        path: path.to_owned(),
        cause,
    };
    for is_first in [true, false] {
        let (part, there) = lock(path)?;
        if is_ours(&there) {
            return Ok(part);
        }
        if is_foreign(&there) {
            return Err(Error::NotOurs(path.to_owned()));
        }
        if is_first && there.len() > 0 {
            above_bars(|| log::warn!("{} is not used: it is not ours alone", shown(path)));
        }
        fs::remove_file(path).map_err(failed)?;
    }
    Err(Error::NotPrivate(path.to_owned()))
}

/// Opens a file, or makes it, and locks it for as long as it is open.
fn lock(path: &Path) -> Result<(File, Metadata), Error> {
    let failed = |cause| Error::Write {
        path: path.to_owned(),
        cause,
    };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.mode(MODE_OF_ARRIVING);
    // In a folder of many users, somebody else may have put a link there.
    options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32);
    let part = options.open(path).map_err(failed)?;
    match part.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(Error::InUse(path.to_owned())),
        Err(TryLockError::Error(cause)) => return Err(failed(cause)),
    }
    let opened = part.metadata().map_err(failed)?;
    if !opened.is_file() {
        return Err(Error::NotAFile(path.to_owned()));
    }
    // Whoever held it before may have finished and renamed it, after it was opened here.
    match is_at(path, &opened) {
        true => Ok((part, opened)),
        false => Err(Error::InUse(path.to_owned())),
    }
}

/// Whether a file that is open is the one at a path.
fn is_at(path: &Path, opened: &Metadata) -> bool {
    fs::symlink_metadata(path)
        .is_ok_and(|there| (there.dev(), there.ino()) == (opened.dev(), opened.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    fn begun(to: &Path, etag: Option<&str>) -> ResumedFile {
        let mut file = ResumedFile::open(to, "h:1".to_owned(), "/a".to_owned()).unwrap();
        let arrived = Arrived {
            etag: etag.map(str::to_owned),
            ..Arrived::default()
        };
        file.begin(&arrived).unwrap();
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
    fn another_try_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("a");
        let first = begun(&to, Some("\"1\""));
        assert_eq!(first.kept_bytes(), 4);
        drop(first);
        let parts = [".quartet-download-a", ".quartet-resume-a"];
        assert_eq!(names(folder.path()), parts);
        let mut second = ResumedFile::open(&to, "h:1".to_owned(), "/a".to_owned()).unwrap();
        let arrived = second.arrived().unwrap();
        assert_eq!((arrived.bytes, arrived.etag.as_deref()), (4, Some("\"1\"")));
        second.write(b" and half").unwrap();
        second.finish().unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"half and half");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn what_is_of_something_else_is_not_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("a");
        drop(begun(&to, Some("\"1\"")));
        let mut other = ResumedFile::open(&to, "h:1".to_owned(), "/b/a".to_owned()).unwrap();
        assert_eq!(other.arrived().unwrap().bytes, 0);
        drop(other);
        drop(begun(&to, Some("\"1\"")));
        let other = ResumedFile::open(&to, "h:2".to_owned(), "/a".to_owned());
        assert_eq!(other.unwrap().arrived().unwrap().bytes, 0);
        let unknown = begun(&to, None);
        assert_eq!(unknown.kept_bytes(), 0);
        drop(unknown);
        let mut other = ResumedFile::open(&to, "h:1".to_owned(), "/a".to_owned()).unwrap();
        assert_eq!(other.arrived().unwrap().bytes, 0);
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
            file.finish().unwrap();
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
        fs::rename(folder.path().join("other"), &file.part_path).unwrap();
        assert!(matches!(file.finish(), Err(Error::InUse(_))));
        assert!(!to.exists());
    }

    #[test]
    fn one_client_at_a_time_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("a");
        let first = begun(&to, Some("\"1\""));
        let second = ResumedFile::open(&to, "h:1".to_owned(), "/a".to_owned());
        assert!(matches!(second, Err(Error::InUse(_))));
        first.remove();
        ResumedFile::open(&to, "h:1".to_owned(), "/a".to_owned())
            .unwrap()
            .remove();
    }

    #[test]
    fn the_mode_of_what_is_replaced_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("a");
        fs::write(&to, "old").unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(0o640)).unwrap();
        let mut file = begun(&to, Some("\"1\""));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&file.part_path), 0o600);
        file.finish().unwrap();
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
            let mut file = ResumedFile::open(&to, "h:1".to_owned(), "/a".to_owned()).unwrap();
            assert_eq!(file.arrived().unwrap().bytes, 0);
            assert_eq!(fs::metadata(&part).unwrap().mode() & 0o7777, 0o600);
        }
        // Whatever it was a link to is as it was.
        assert_eq!(fs::read(folder.path().join("link")).unwrap(), b"half");
    }

    #[test]
    fn a_disk_without_modes_keeps_no_part() {
        let folder = tempfile::tempdir().unwrap();
        let part = open_part(&folder.path().join("part"), |_| false);
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
            let opened = ResumedFile::open(&to, "h:1".to_owned(), "/a".to_owned());
            assert!(matches!(opened, Err(Error::NotOurs(_))));
        }
    }

    #[test]
    fn what_cannot_be_gone_on_with_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let open =
            |to: &Path| ResumedFile::open(to, "h:1".to_owned(), "/a".to_owned()).unwrap_err();
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
        // Not through a link that somebody else has put there.
        let to = folder.path().join("a");
        std::os::unix::fs::symlink("b", folder.path().join(".quartet-download-a")).unwrap();
        assert!(matches!(open(&to), Error::Write { .. }));
        assert_eq!(names(folder.path()), [".quartet-download-a"]);
    }
}
