//! Whether a path still names the file that the server uses.
//!
//! Other programs can rename, remove or replace a file that is open here. What is written after that
//! is not found by the next start. So a server checks the path after a sync and before it replies.

use std::io;
use std::path::{self, Path, PathBuf};

use crate::Stat;

/// What a watched path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathState {
    /// The watched file, of this length in bytes.
    Same(u64),
    /// Nothing.
    Missing,
    /// Another file.
    Replaced,
}

/// A path and the identity of the file that it named when the watch began. It holds no descriptor, so
/// it can watch the files of a database that only SQLite may open.
#[derive(Debug)]
pub struct Watch {
    /// Absolute, so that it shows if the working directory is moved.
    path: PathBuf,
    identity: (u32, u32, u64),
}

impl Watch {
    /// Watches the file that a path names now.
    ///
    /// # Errors
    /// If there is none, or its metadata cannot be read.
    pub fn new(path: &Path) -> io::Result<Self> {
        Self::of(path, Stat::at(path)?)
    }

    pub(crate) fn of(path: &Path, stat: Stat) -> io::Result<Self> {
        Ok(Self {
            path: path::absolute(path)?,
            identity: stat.identity,
        })
    }

    /// Watches the same file under another path, after it was renamed.
    pub(crate) fn renamed(&mut self, path: &Path) {
        path.clone_into(&mut self.path);
    }

    /// The absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the path names now.
    ///
    /// # Errors
    /// If its metadata cannot be read.
    pub fn state(&self) -> io::Result<PathState> {
        match Stat::at(&self.path) {
            Ok(there) if there.identity == self.identity => Ok(PathState::Same(there.bytes)),
            Ok(_) => Ok(PathState::Replaced),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(PathState::Missing),
                kind => {
                    let sentence = format!("cannot look at {}: {error}", self.path.display());
                    Err(io::Error::new(kind, sentence))
                }
            },
        }
    }

    /// Checks that the path still names the file. Call it after a sync and before the reply.
    ///
    /// # Errors
    /// A sentence that says what has happened to the file.
    pub fn check(&self) -> io::Result<()> {
        let path = self.path.display();
        let what = match self.state()? {
            PathState::Same(_) => return Ok(()),
            PathState::Missing => "was moved or removed",
            PathState::Replaced => "was replaced by another file",
        };
        Err(io::Error::other(format!(
            "{path} {what} while the server used it"
        )))
    }
}
