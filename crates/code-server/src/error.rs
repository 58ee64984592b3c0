//! Why the code server cannot start, or cannot continue.

use cli::{Exit, Failure};
use daemon::StartError;
use storage::StorageError;

/// Why the server cannot start, or cannot continue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It cannot listen.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It cannot use its files.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Failure for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Start(error) if error.is_of_network() => Exit::Network,
            Self::Start(_) | Self::Storage(_) => Exit::Local,
        }
    }
}
