//! A folder with everything below it as one file: `?zip`, `?tar` and `?tgz`.
//!
//! An archive is made while it is sent, a piece at a time, and needs no temporary file. `zip` and `tar`
//! write its format, `left_out` remembers what it lacks, and `permits` says how many there may be.
//!
//! All paths in it begin with the name of the folder. A link to a file is archived as that file; one to a
//! folder is left out, so an archive has an end. So are files that the server may not read and what is
//! neither a file nor a folder. The archive says so at its end, and so does the log. A secret of the
//! server is left out without a word, as in lists. If the disk fails, the connection is aborted: a client
//! does not take a part of an archive for all of it.

mod left_out;
mod tar;
mod zip;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use cli::escape::Escaped;
use cli::exit::with_causes;
use daemon::Besides;
use daemon::http::{Content, PieceStream, Pieces, Response};
use proto::http::{Refusal, RequestHead, Status};
use rustix::buffer::spare_capacity;
use rustix::fs::{Stat, fstat};
use rustix::io::{read, retry_on_intr};

use crate::Config;
use crate::compression::Gzip;
use crate::disposition::disposition;
use crate::error::FilesError;
use crate::files::{Identity, Step, WALK_DESCRIPTORS_MAX, Walk};
use crate::path::TreePath;
use crate::permits::Permit;
use crate::service::{FileService, Reply, with_always};

use left_out::LeftOut;

/// A piece of an archive ends when it has this many bytes. The processor's cache holds it until it is
/// sent.
const PIECE_BYTES: usize = 256 * 1024;

/// A file is read at least this many bytes at a time.
const READ_BYTES_MIN: usize = 16 * 1024;

/// The name of an archive of the root, whose own name is not for clients.
const ROOT_NAME: &[u8] = b"files";

/// When a client that was refused an archive may try again, in seconds.
const RETRY_SECS: &str = "10";

/// A format of archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Zip,
    Tar,
    /// Compressed by gzip.
    Tgz,
}

impl Format {
    const ALL: [Self; 3] = [Self::Zip, Self::Tar, Self::Tgz];

    /// How requests and file names call it, and its type.
    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Zip => ("zip", "zip", "application/zip"),
            Self::Tar => ("tar", "tar", "application/x-tar"),
            Self::Tgz => ("tgz", "tar.gz", "application/gzip"),
        }
    }
}

/// The descriptors for as many archives as a server makes at once.
pub(crate) fn descriptors(config: &Config) -> Besides {
    let archives_max = if config.has_listing {
        config.archives_max
    } else {
        0
    };
    Besides {
        descriptors: archives_max * WALK_DESCRIPTORS_MAX,
        what: "deep folders in archives (--archives)",
    }
}

impl FileService {
    /// The format of the archive that a request asks for, if this server makes any. A form cannot send a
    /// name without a value.
    pub(crate) fn archive_asked_for(&self, request: &RequestHead) -> Option<Format> {
        let asked = |word: &str| {
            let mut words = request.query.unwrap_or_default().split('&');
            words.any(|one| one.strip_suffix('=').unwrap_or(one) == word)
        };
        let format = Format::ALL.into_iter().find(|one| asked(one.words().0));
        format.filter(|_| self.has_archives())
    }

    /// Whether the server makes archives. They tell the names that are in a folder.
    pub(crate) fn has_archives(&self) -> bool {
        self.config.has_listing && self.config.archives_max > 0
    }

    /// Answers with an archive of a folder.
    pub(crate) fn archive(&self, request: &RequestHead, path: &TreePath, format: Format) -> Reply {
        let most = self.config.archives_max;
        let Some(permit) = self.archives.permit(most) else {
            let sentence = format!("{most} archives are being made; try again later");
            let refusal = Refusal::new(Status::ServiceUnavailable, sentence);
            let refused = self.refused(request, &refusal);
            return Ok(refused.with_field("Retry-After", RETRY_SECS));
        };
        let walk = self.files.walk(path)?;
        let name = path.as_path().file_name();
        let name = name.map_or(ROOT_NAME, |name| name.as_bytes());
        let (_, extension, content_type) = format.words();
        let archive = Archive::new(walk, name, format, permit);
        let stream = match format {
            Format::Zip | Format::Tar => PieceStream::new(archive),
            Format::Tgz => PieceStream::new(Gzip::new(archive)),
        };
        let response = Response {
            body: Content::Stream(stream),
            ..Response::new(Status::Ok, content_type, "")
        };
        let name = format!("{}.{extension}", String::from_utf8_lossy(name));
        let disposition = disposition("attachment", &name);
        Ok(with_always(response).with_field("Content-Disposition", disposition))
    }
}

/// A file or a folder of an archive.
struct Entry<'e> {
    /// Its path, from the name of the archived folder; a folder's ends in a slash.
    path: &'e [u8],
    /// The permissions of its owner, group and others. That it runs as its owner (setuid) is not for
    /// other machines.
    permissions: u32,
    /// The time of its last change, in seconds since 1970.
    modified: i64,
    /// The length of a file, in bytes. What is archived is not longer.
    bytes: u64,
}

impl<'e> Entry<'e> {
    fn new(path: &'e [u8], there: &Stat) -> Self {
        Self {
            path,
            permissions: there.st_mode & 0o777,
            modified: there.st_mtime,
            bytes: u64::try_from(there.st_size).unwrap_or(0),
        }
    }
}

/// Writes a format. Everything is appended to the piece of the archive that is being made.
trait Writer: Send {
    /// Whether a file must be as long as its entry says.
    fn needs_all(&self) -> bool;

    /// Puts a folder.
    ///
    /// # Errors
    /// [`FilesError::TooManyNames`].
    fn put_folder(&mut self, out: &mut Vec<u8>, folder: &Entry) -> Result<(), FilesError>;

    /// Puts what stands before the contents of a file.
    ///
    /// # Errors
    /// As [`Writer::put_folder`].
    fn begin_file(&mut self, out: &mut Vec<u8>, file: &Entry) -> Result<(), FilesError>;

    /// Notes contents of the file, which were just put.
    fn note(&mut self, contents: &[u8]);

    /// Puts what stands behind the contents of a file.
    ///
    /// # Errors
    /// As [`Writer::put_folder`].
    fn end_file(&mut self, out: &mut Vec<u8>) -> Result<(), FilesError>;

    /// Puts the next piece of the end of the archive of a folder; returns whether there is another.
    fn put_end(&mut self, out: &mut Vec<u8>, folder: &[u8], left_out: &LeftOut) -> bool;
}

/// An archive that is being sent.
struct Archive {
    walk: Walk,
    /// The name of its folder.
    name: Vec<u8>,
    writer: Box<dyn Writer>,
    reading: Option<Reading>,
    /// Whether the walk has come to its end.
    is_walked: bool,
    left_out: LeftOut,
    _permit: Permit,
}

/// A file of an archive that is being read.
struct Reading {
    file: File,
    /// What it was when it was opened.
    identity: Identity,
    /// How much of it is still to come, in bytes.
    left: u64,
    /// Whether it has ended before that.
    has_ended: bool,
}

impl Archive {
    /// An archive of what a walk comes to, in a folder of this name.
    fn new(walk: Walk, name: &[u8], format: Format, permit: Permit) -> Self {
        Self {
            walk,
            name: name.to_owned(),
            writer: match format {
                Format::Zip => Box::new(zip::Zip::default()),
                Format::Tar | Format::Tgz => Box::new(tar::Tar::default()),
            },
            reading: None,
            is_walked: false,
            left_out: LeftOut::default(),
            _permit: permit,
        }
    }

    /// Appends to a piece until it is full; returns whether there is another behind it.
    fn fill(&mut self, out: &mut Vec<u8>) -> Result<bool, FilesError> {
        while out.len() < PIECE_BYTES {
            if self.reading.is_some() {
                self.read(out)?;
            } else if self.is_walked {
                let has_more = self.writer.put_end(out, &self.name, &self.left_out);
                if !has_more {
                    return Ok(false);
                }
            } else {
                match self.walk.next() {
                    Some(step) => self.put(out, step)?,
                    None => self.is_walked = true,
                }
            }
        }
        Ok(true)
    }

    fn put(&mut self, out: &mut Vec<u8>, step: Step) -> Result<(), FilesError> {
        let (opened, is_link) = match step {
            Step::Left => return Ok(()),
            Step::Folder(there) => {
                let path = self.path(true);
                let folder = Entry::new(&path, &there);
                return self.writer.put_folder(out, &folder);
            }
            Step::File => (self.walk.open_file(), false),
            Step::Link => (self.walk.open_link(), true),
            Step::Special => (Err(FilesError::NotAFile), false),
            Step::Unreadable(error) => (Err(error), false),
        };
        let (file, there) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.leave_out(error, is_link),
        };
        let path = self.path(false);
        let entry = Entry::new(&path, &there);
        self.writer.begin_file(out, &entry)?;
        self.reading = Some(Reading {
            file,
            identity: Identity::from(there),
            left: entry.bytes,
            has_ended: false,
        });
        Ok(())
    }

    /// Notes that something is left out, and why.
    ///
    /// # Errors
    /// The same error if it is not about this file alone.
    fn leave_out(&mut self, error: FilesError, is_link: bool) -> Result<(), FilesError> {
        let why = match error {
            FilesError::Secret => return Ok(()),
            FilesError::NotFound if is_link => "a link to nothing that is served here",
            FilesError::NotFound | FilesError::NotAFolder => "removed meanwhile",
            FilesError::IsFolder => "a link to a folder",
            FilesError::NotAFile => "neither a file nor a folder",
            FilesError::NotAllowed(_) => "the server has no permission to read it",
            FilesError::TooDeep => "too deep: below 100 other folders",
            FilesError::NameTooLong => "its path is too long",
            of_the_server => return Err(of_the_server),
        };
        self.add_left_out(why);
        Ok(())
    }

    fn add_left_out(&mut self, why: &str) {
        let path = self.path(false);
        let path = Path::new(OsStr::from_bytes(&path));
        self.left_out.add(path, why);
    }

    /// The path in the archive of the walk's present step.
    fn path(&self, is_folder: bool) -> Vec<u8> {
        let mut path = self.name.clone();
        let below = self.walk.path().as_os_str().as_bytes();
        if !below.is_empty() {
            path.push(b'/');
            path.extend_from_slice(below);
        }
        if is_folder {
            path.push(b'/');
        }
        path
    }

    /// Appends the next contents of the file that is being read, and what stands behind them at its end.
    fn read(&mut self, out: &mut Vec<u8>) -> Result<(), FilesError> {
        let Some(reading) = &mut self.reading else {
            return Ok(());
        };
        let start = out.len();
        if reading.left > 0 && !reading.has_ended {
            out.reserve(READ_BYTES_MIN);
            let bytes = retry_on_intr(|| read(&reading.file, spare_capacity(out)))?;
            reading.has_ended = bytes == 0;
            // What was appended to the file since is not archived.
            let kept = usize::try_from(reading.left)
                .unwrap_or(usize::MAX)
                .min(bytes);
            out.truncate(start + kept);
        } else if reading.left > 0 && self.writer.needs_all() {
            let missing = usize::try_from(reading.left).unwrap_or(usize::MAX);
            let room = PIECE_BYTES.saturating_sub(start).max(1);
            out.resize(start + missing.min(room), 0);
        } else {
            let now = Identity::from(fstat(&reading.file)?);
            let is_same = reading.left == 0 && now.has_contents_of(&reading.identity);
            self.reading = None;
            if !is_same {
                self.add_left_out("it changed while it was read, and may be a mixture");
            }
            return self.writer.end_file(out);
        }
        reading.left -= (out.len() - start) as u64;
        self.writer.note(&out[start..]);
        Ok(())
    }

    /// Writes to the log what the archive lacks.
    fn log_left_out(&self) {
        let count = self.left_out.count();
        if count > 0 {
            let name = String::from_utf8_lossy(&self.name);
            let first = self.left_out.first();
            log::warn!(
                "An archive of {} lacks {count} names: {first}",
                Escaped(&name)
            );
        }
    }
}

impl Pieces for Archive {
    fn next(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        // Room for a piece and the heads that end it.
        out.reserve(PIECE_BYTES + READ_BYTES_MIN);
        let made = self.fill(out);
        let has_more = made.map_err(|error| {
            let name = String::from_utf8_lossy(&self.name);
            log::warn!(
                "An archive of {} ends early: {}",
                Escaped(&name),
                with_causes(&error)
            );
            io::Error::other(error)
        })?;
        if !has_more {
            self.log_left_out();
        }
        Ok(has_more)
    }
}

#[cfg(test)]
mod tests;
