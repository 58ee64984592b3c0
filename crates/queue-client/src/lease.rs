//! `lease`: a message goes into a file, and its token to standard output.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cli::ClientError;
use cli::stream::Output;
use proto::queue::Claim;
use tempfile::NamedTempFile;

use crate::{Config, Error};

/// The mode of a new file: only the user who has leased a message may read it. A file that is replaced
/// keeps its mode.
const FILE_MODE: u32 = 0o600;

/// What to lease, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// How long until the lease expires.
    pub lease: Duration,
    /// How long to wait for a message.
    pub wait: Duration,
    /// The file that gets it.
    pub path: PathBuf,
}

impl Lease {
    pub(crate) fn run(&self, config: &Config) -> Result<(), Error> {
        let mut out = cli::stream::output()?;
        let mut client = config.connect()?;
        // Made before anything is leased, so that nothing is to be unreserved if that fails.
        let (file, target) = self.create(&out)?;
        let leased = config.wait_for_message(&mut client, self.wait, |client, left| {
            client.lease(self.lease, left)
        });
        let message = leased?.ok_or(Error::Empty)?;
        let Claim::Leased(token) = message.claim else {
            return Err(ClientError::Unexpected.into());
        };
        let kept = self.write(file, &target, &message.body).and_then(|()| {
            let printed = out.write_all(format!("{token}\n").as_bytes());
            printed.map_err(Error::Token)
        });
        if kept.is_err() {
            client.unreserve_or_warn(&message);
        }
        kept
    }

    /// Creates a file beside the one that is wanted; returns the path that it is to get, too. Where a
    /// symbolic link stands, that is the path it leads to.
    fn create(&self, out: &Output) -> Result<(NamedTempFile, PathBuf), Error> {
        let old = fs::metadata(&self.path).ok();
        // A device or a pipe must not become a file.
        if old.as_ref().is_some_and(|old| !old.is_file()) {
            return Err(self.failed(io::Error::other("it exists, but is not a file")));
        }
        if old.as_ref().is_some_and(|old| out.is_file(old)) {
            let cause = "it is standard output, which gets the token";
            return Err(self.failed(io::Error::other(cause)));
        }
        let create = || {
            let target = match &old {
                Some(_) => fs::canonicalize(&self.path)?,
                None => self.path.clone(),
            };
            let folder = match target.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => folder,
                _ => Path::new("."),
            };
            let file = tempfile::Builder::new()
                .permissions(Permissions::from_mode(FILE_MODE))
                .tempfile_in(folder)?;
            if let Some(old) = &old {
                file.as_file().set_permissions(old.permissions())?;
            }
            Ok((file, target))
        };
        create().map_err(|cause| self.failed(cause))
    }

    fn write(&self, mut file: NamedTempFile, target: &Path, body: &[u8]) -> Result<(), Error> {
        let written = file.write_all(body);
        let renamed = written.and_then(|()| file.persist(target).map_err(|error| error.error));
        renamed.map(drop).map_err(|cause| self.failed(cause))
    }

    fn failed(&self, cause: io::Error) -> Error {
        Error::Write {
            path: self.path.clone(),
            cause,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt, symlink};

    use super::*;

    #[track_caller]
    fn check(path: &Path, want: Option<&str>) {
        let lease = Lease {
            lease: Duration::ZERO,
            wait: Duration::ZERO,
            path: path.to_owned(),
        };
        let out = cli::stream::output().unwrap();
        let created = lease.create(&out);
        let written = created.and_then(|(file, target)| lease.write(file, &target, b"new"));
        assert_eq!(
            written.err().map(|e| cli::exit::with_causes(&e)),
            want.map(str::to_owned)
        );
    }

    #[test]
    fn the_file_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("job");
        for old in [None, Some("something longer")] {
            old.inspect(|old| fs::write(&path, old).unwrap());
            check(&path, None);
            assert_eq!(fs::read(&path).unwrap(), b"new");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn nobody_else_reads_a_new_file_and_an_old_one_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("job");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        check(&path, None);
        assert_eq!(mode(), 0o600);
        for kept in [0o600, 0o640, 0o666] {
            fs::set_permissions(&path, Permissions::from_mode(kept)).unwrap();
            check(&path, None);
            assert_eq!(mode(), kept, "{:o}", mode());
        }
    }

    #[test]
    fn a_link_stays_and_its_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("job"), folder.path().join("link"));
        fs::write(&path, "old").unwrap();
        symlink("job", &link).unwrap();
        check(&link, None);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn what_is_no_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        for path in [folder.path(), &pipe] {
            let shown = path.display();
            let error = format!("cannot write {shown}: it exists, but is not a file");
            check(path, Some(&error));
        }
        assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
    }
}
