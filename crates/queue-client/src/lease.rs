//! `lease`: a message into a file, and its token to standard output.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::queue::Claim;
use tempfile::NamedTempFile;

use crate::{Config, Error};

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
        let mut client = config.connect()?;
        // Made before anything is taken, so that there is nothing to give back if it cannot be.
        let file = self.file()?;
        let message = client.lease(self.lease, self.wait)?.ok_or(Error::Empty)?;
        let Claim::Leased(token) = message.claim else {
            return Err(Error::Unexpected);
        };
        let mut out = io::stdout().lock();
        let kept = self.write(file, &message.body).and_then(|()| {
            let printed = writeln!(out, "{token}").and_then(|()| out.flush());
            printed.map_err(Error::Output)
        });
        if kept.is_err() {
            client.release(token, Duration::ZERO)?;
        }
        kept
    }

    /// A new file beside the one that is wanted.
    fn file(&self) -> Result<NamedTempFile, Error> {
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        NamedTempFile::new_in(folder).map_err(|cause| self.failed(cause))
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
