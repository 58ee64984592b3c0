//! `lease`: a message into a file, and its token to standard output.

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

/// The mode of a new file: a message is for the user who leased it. Of a file that is replaced, the mode
/// is kept.
const FILE_MODE: u32 = 0o600;

/// What to lease, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// How long the message is ours.
    pub lease: Duration,
    /// How long to wait for one.
    pub wait: Duration,
    /// The file it is written to.
    pub path: PathBuf,
}

/// A file that is arriving, and where it is to stand.
struct Arriving {
    file: NamedTempFile,
    target: PathBuf,
}

impl Lease {
    pub(crate) fn run(&self, config: &Config) -> Result<(), Error> {
        let mut out = crate::output()?;
        let mut client = config.connect()?;
        // Made before anything is taken, so that there is nothing to give back if it cannot be.
        let file = self.file(&out)?;
        let leased = config.wait_for_message(&mut client, self.wait, |client, left| {
            client.lease(self.lease, left)
        });
        let message = leased?.ok_or(Error::Empty)?;
        let Claim::Leased(token) = message.claim else {
            return Err(ClientError::Unexpected.into());
        };
        let kept = self.write(file, &message.body).and_then(|()| {
            let printed = out.write_all(format!("{token}\n").as_bytes());
            printed.map_err(Error::Token)
        });
        if kept.is_err() {
            client.unreserve_or_warn(&message);
        }
        kept
    }

    /// A new file beside the one that is wanted.
    fn file(&self, out: &Output) -> Result<Arriving, Error> {
        let there = fs::metadata(&self.path).ok();
        // A device or a pipe must not become a file.
        if there.as_ref().is_some_and(|there| !there.is_file()) {
            return Err(self.failed(io::Error::other("it is there, but is no file")));
        }
        if there.as_ref().is_some_and(|there| out.is_file(there)) {
            let cause = "it is standard output, which gets the token";
            return Err(self.failed(io::Error::other(cause)));
        }
        let file = self.target(there.is_some()).and_then(|target| {
            let folder = match target.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => folder,
                _ => Path::new("."),
            };
            let file = tempfile::Builder::new()
                .permissions(Permissions::from_mode(FILE_MODE))
                .tempfile_in(folder)?;
            if let Some(there) = there {
                file.as_file().set_permissions(there.permissions())?;
            }
            Ok(Arriving { file, target })
        });
        file.map_err(|cause| self.failed(cause))
    }

    /// What is replaced: a symbolic link stays, and what it leads to is.
    fn target(&self, is_there: bool) -> io::Result<PathBuf> {
        if is_there {
            return fs::canonicalize(&self.path);
        }
        Ok(self.path.clone())
    }

    fn write(&self, mut arriving: Arriving, body: &[u8]) -> Result<(), Error> {
        let written = arriving.file.write_all(body);
        written.map_err(|cause| self.failed(cause))?;
        let kept = arriving.file.persist(&arriving.target);
        kept.map_err(|error| self.failed(error.error))?;
        Ok(())
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
        let out = crate::output().unwrap();
        let written = lease.file(&out).and_then(|file| lease.write(file, b"new"));
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
            let error = format!("cannot write {shown}: it is there, but is no file");
            check(path, Some(&error));
        }
        assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
    }
}
