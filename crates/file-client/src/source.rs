//! A file to be sent.

use std::cell::OnceCell;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cli::{ClientError, ServerStream, stream};
use proto::http::digest::{Digest, Hasher};
use proto::retry_interrupted;

use crate::Error;
use crate::peek::has_answered;
use crate::place::Place;
use crate::progress::Bar;

/// What a word of the command line names to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A file.
    File(PathBuf),
    /// Standard input.
    Stdin,
}

impl Input {
    /// What a word names: `-` is standard input.
    pub(crate) fn new(word: OsString) -> Self {
        match word == "-" {
            true => Self::Stdin,
            false => Self::File(word.into()),
        }
    }

    /// What messages call it.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Stdin => Path::new(STDIN),
        }
    }
}

/// What some editors write at the start of a text, to mark it as UTF-8.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What standard input is called in messages.
pub(crate) const STDIN: &str = "standard input";

/// How much of a file is read and sent at once, in bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// A file to be sent, and its length and time when it was opened.
pub(crate) struct Source {
    path: PathBuf,
    /// Where it was opened, if not by its path.
    place: Option<Place>,
    file: File,
    bytes: u64,
    /// When it was last changed; `None` on a disk that does not say so.
    modified: Option<SystemTime>,
    /// As soon as it was asked for.
    digest: OnceCell<Digest>,
}

impl Source {
    /// Opens a regular file. Standard input is read to its end, into a temporary file without a name,
    /// because its length and its digest must be known before it is sent.
    pub(crate) fn open(input: &Input) -> Result<Self, Error> {
        let (path, file) = match input {
            Input::File(path) => {
                // Before it is opened: opening a pipe waits for its writer.
                let found = fs::metadata(path).map_err(Error::read(path))?;
                if !found.is_file() {
                    return Err(Error::NotAFile(path.clone()));
                }
                (path.clone(), File::open(path).map_err(Error::read(path))?)
            }
            Input::Stdin => (input.path().to_owned(), stdin_in_file()?),
        };
        Self::new(path, None, file)
    }

    /// Opens a regular file in an open folder. A symbolic link to one is followed.
    pub(crate) fn at(place: Place) -> Result<Self, Error> {
        let path = place.path();
        let file = place.open_followed().map_err(Error::read(&path))?;
        Self::new(path, Some(place), file)
    }

    fn new(path: PathBuf, place: Option<Place>, file: File) -> Result<Self, Error> {
        let found = file.metadata().map_err(Error::read(&path))?;
        if !found.is_file() {
            return Err(Error::NotAFile(path));
        }
        Ok(Self {
            path,
            place,
            file,
            bytes: found.len(),
            modified: found.modified().ok(),
            digest: OnceCell::new(),
        })
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its place, for files beside it.
    pub(crate) fn place(&self) -> Result<Place, Error> {
        match &self.place {
            Some(place) => Ok(place.clone()),
            None => Place::at(&self.path).map_err(Error::read(&self.path)),
        }
    }

    /// When it was last changed, if the disk says so.
    pub(crate) fn modified(&self) -> Option<SystemTime> {
        self.modified
    }

    /// Its length, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest of the whole file, which is read once for it.
    pub(crate) fn digest(&self) -> Result<Digest, Error> {
        if let Some(digest) = self.digest.get() {
            return Ok(*digest);
        }
        let mut file = &self.file;
        let digest = file.rewind().and_then(|()| Hasher::digest_of(file));
        let digest = digest.map_err(Error::read(&self.path))?;
        Ok(*self.digest.get_or_init(|| digest))
    }
}

fn stdin_in_file() -> Result<File, Error> {
    let mut input = stream::input()?;
    let mut file = tempfile::tempfile().map_err(Error::Temporary)?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match retry_interrupted(|| input.read(&mut piece)).map_err(ClientError::Input)? {
            0 => return Ok(file),
            read => file.write_all(&piece[..read]).map_err(Error::Temporary)?,
        }
    }
}

/// The content of a request: a file from some byte on.
pub(crate) struct Content<'a> {
    pub(crate) source: &'a Source,
    /// The first byte, counted from 0.
    pub(crate) start: u64,
    pub(crate) bar: &'a Bar,
}

impl Content<'_> {
    /// Its length, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.source.bytes.saturating_sub(self.start)
    }

    /// Sends it. `false` if the server answered before that.
    pub(crate) fn send(
        &self,
        stream: &mut ServerStream,
        lost: impl Fn(io::Error) -> Error,
    ) -> Result<bool, Error> {
        let source = self.source;
        let failed = Error::read(&source.path);
        let changed = || Error::Changed(source.path.clone());
        let mut file = &source.file;
        file.seek(SeekFrom::Start(self.start)).map_err(&failed)?;
        self.bar.set(self.start);
        let mut file = file.take(self.bytes());
        let mut piece = vec![0; PIECE_BYTES];
        while file.limit() > 0 {
            if has_answered(stream) {
                return Ok(false);
            }
            let read = retry_interrupted(|| file.read(&mut piece)).map_err(&failed)?;
            if read == 0 {
                return Err(changed());
            }
            // Before the last piece: without it the file is not whole, and the server keeps nothing.
            if file.limit() == 0 && source.file.metadata().map_err(&failed)?.len() != source.bytes {
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
            let file = Input::File(path.to_owned());
            let opened = Source::open(&file).map(drop);
            assert!(matches!(opened, Err(Error::NotAFile(_))), "{path:?}");
        }
        let gone = Input::File(folder.path().join("gone"));
        let gone = Source::open(&gone).map(drop);
        assert!(matches!(gone, Err(Error::Read { .. })));
    }
}
