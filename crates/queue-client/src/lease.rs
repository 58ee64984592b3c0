//! `lease`: a message into a file, and its token to standard output.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::queue::Claim;
use tempfile::NamedTempFile;

use crate::{Config, Error};

/// The file's mode before the umask takes its part, as if the shell had made it: another process
/// is to read it.
const FILE_MODE: u32 = 0o666;

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

impl Lease {
    pub(crate) fn run(&self, config: &Config) -> Result<(), Error> {
        let mut out = crate::output()?;
        let mut client = config.connect()?;
        // Made before anything is taken, so that there is nothing to give back if it cannot be.
        let file = self.file()?;
        let message = client.lease(self.lease, self.wait)?.ok_or(Error::Empty)?;
        let Claim::Leased(token) = message.claim else {
            return Err(Error::Unexpected);
        };
        let kept = self.write(file, &message.body).and_then(|()| {
            let printed = out.write_all(format!("{token}\n").as_bytes());
            printed.map_err(Error::Token)
        });
        if kept.is_err()
            && let Err(error) = client.release(token, Duration::ZERO)
        {
            log::warn!(
                "Message {} comes back when its lease runs out: {error}",
                message.id
            );
        }
        kept
    }

    /// A new file beside the one that is wanted.
    fn file(&self) -> Result<NamedTempFile, Error> {
        // A device like /dev/null must not become a file.
        if fs::metadata(&self.path).is_ok_and(|there| !there.is_file()) {
            return Err(self.failed(io::Error::other("it is there, but is no file")));
        }
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let file = tempfile::Builder::new()
            .permissions(Permissions::from_mode(FILE_MODE))
            .tempfile_in(folder);
        file.map_err(|cause| self.failed(cause))
    }

    fn write(&self, mut file: NamedTempFile, body: &[u8]) -> Result<(), Error> {
        file.write_all(body).map_err(|cause| self.failed(cause))?;
        let kept = file.persist(&self.path);
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
    use super::*;

    #[track_caller]
    fn check(path: &Path, want: Option<&str>) {
        let lease = Lease {
            lease: Duration::ZERO,
            wait: Duration::ZERO,
            path: path.to_owned(),
        };
        let written = lease.file().and_then(|file| lease.write(file, b"new"));
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
    fn what_is_no_file_stays() {
        let error = "cannot write /dev/null: it is there, but is no file";
        check(Path::new("/dev/null"), Some(error));
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        let folder = tempfile::tempdir().unwrap();
        let lease = folder.path().display();
        let error = format!("cannot write {lease}: it is there, but is no file");
        check(folder.path(), Some(&error));
    }
}
