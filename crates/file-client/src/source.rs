//! A file that is to be sent.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use cli::{ClientError, ServerStream};
use proto::http::digest::{Digest, Hasher};
use proto::retry_interrupted;

use crate::Error;
use crate::progress::Bar;
use crate::unread::has_answered;

/// Where something is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A file.
    File(PathBuf),
    /// Standard input.
    Stdin,
}

impl Input {
    /// What a word of the command line means.
    pub(crate) fn new(word: OsString) -> Self {
        match word == "-" {
            true => Self::Stdin,
            false => Self::File(word.into()),
        }
    }
}

/// How some editors begin a text, to say that it is UTF-8.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A file is read and sent in pieces of up to so many bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// A file that is to be sent, and how long it was when that was decided.
pub(crate) struct Source<'a> {
    path: &'a Path,
    file: File,
    bytes: u64,
}

impl<'a> Source<'a> {
    /// Opens a regular file.
    pub(crate) fn open(path: &'a Path) -> Result<Self, Error> {
        let failed = |cause| Error::Read {
            path: path.to_owned(),
            cause,
        };
        // Before it is opened: opening a fifo waits for its writer.
        if !fs::metadata(path).map_err(failed)?.is_file() {
            return Err(Error::NotAFile(path.to_owned()));
        }
        let file = File::open(path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        Ok(Self { path, file, bytes })
    }

    /// Reads an input to its end, into a temporary file without a name: how long it is, and what its
    /// digest is, must be known before it is sent.
    pub(crate) fn of_stdin(input: &mut impl Read) -> Result<Self, Error> {
        let path = Path::new("standard input");
        let kept = tempfile::tempfile().and_then(|mut file| {
            let mut piece = vec![0; PIECE_BYTES];
            loop {
                match retry_interrupted(|| input.read(&mut piece)) {
                    Ok(0) => return Ok(Ok(file)),
                    Ok(read) => file.write_all(&piece[..read])?,
                    Err(error) => return Ok(Err(error)),
                }
            }
        });
        let file = kept
            .map_err(Error::Temporary)?
            .map_err(ClientError::Input)?;
        let bytes = file.metadata().map_err(Error::Temporary)?.len();
        Ok(Self { path, file, bytes })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &'a Path {
        self.path
    }

    /// How long it is.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest of all of it.
    pub(crate) fn digest(&self) -> Result<Digest, Error> {
        let mut file = &self.file;
        file.rewind().map_err(|cause| self.failed(cause))?;
        Hasher::digest_of(file).map_err(|cause| self.failed(cause))
    }

    fn failed(&self, cause: io::Error) -> Error {
        Error::Read {
            path: self.path.to_owned(),
            cause,
        }
    }
}

/// What of a file is the content of a request: all of it from some byte on.
pub(crate) struct Content<'a> {
    pub(crate) source: &'a Source<'a>,
    /// The first byte, counted from 0.
    pub(crate) start: u64,
    pub(crate) bar: &'a Bar,
}

impl Content<'_> {
    /// How much it is.
    pub(crate) fn bytes(&self) -> u64 {
        self.source.bytes.saturating_sub(self.start)
    }

    /// Sends it; returns `false` if the server answered before that.
    pub(crate) fn send(
        &self,
        stream: &mut ServerStream,
        lost: impl Fn(io::Error) -> Error,
    ) -> Result<bool, Error> {
        let source = self.source;
        let failed = |cause| source.failed(cause);
        let changed = || Error::Changed(source.path.to_owned());
        let mut file = &source.file;
        file.seek(SeekFrom::Start(self.start)).map_err(failed)?;
        let mut file = file.take(self.bytes());
        let mut piece = vec![0; PIECE_BYTES];
        while file.limit() > 0 {
            if has_answered(stream) {
                return Ok(false);
            }
            let read = retry_interrupted(|| file.read(&mut piece)).map_err(failed)?;
            if read == 0 {
                return Err(changed());
            }
            // Without its last piece the file is not whole, and the server keeps nothing.
            if file.limit() == 0 && source.file.metadata().map_err(failed)?.len() != source.bytes {
                return Err(changed());
            }
            stream.write_all(&piece[..read]).map_err(&lost)?;
            self.bar.set(source.bytes - file.limit());
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_sent() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
        for path in [folder.path(), &fifo, Path::new("/dev/null")] {
            let opened = Source::open(path).map(drop);
            assert!(matches!(opened, Err(Error::NotAFile(_))), "{path:?}");
        }
        let gone = Source::open(&folder.path().join("gone")).map(drop);
        assert!(matches!(gone, Err(Error::Read { .. })));
    }
}
