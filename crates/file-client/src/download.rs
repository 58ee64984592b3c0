//! Downloads: to a stream, to a file, and to a file that another try can go on with.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::path::Path;
use std::thread;

use cli::ClientError;
use cli::exit::with_causes;
use proto::http::request::host_field;
use proto::http::{BodyLength, ResponseHead};
use proto::retry_interrupted;

use crate::Error;
use crate::arrived::{Arrived, Destination};
use crate::client::{Client, RETRY_PAUSE, TRIES};
use crate::connection::{Reply, Request, target, unexpected};
use crate::error::Kept;
use crate::location::leads_to_folder;
use crate::partial::PartialFile;
use crate::progress::{Bar, above_bars};
use crate::resumed::ResumedFile;
use crate::transfer::shown;

/// A file is read and written in pieces of up to so many bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// A stream.
struct Stream<'a>(&'a mut dyn Write);

impl Destination for Stream<'_> {
    fn begin(&mut self, _: &Arrived) -> Result<(), Error> {
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        Ok(self.0.write_all(bytes).map_err(ClientError::Output)?)
    }
}

/// A file that is made when the server has agreed.
struct NewFile<'a> {
    to: &'a Path,
    partial: Option<PartialFile>,
}

impl NewFile<'_> {
    fn failed(&self, cause: io::Error) -> Error {
        Error::Write {
            path: self.to.to_owned(),
            cause,
        }
    }
}

impl Destination for NewFile<'_> {
    fn begin(&mut self, _: &Arrived) -> Result<(), Error> {
        let partial = PartialFile::create(self.to);
        self.partial = Some(partial.map_err(|cause| self.failed(cause))?);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = match &mut self.partial {
            Some(partial) => partial.write_all(bytes),
            None => Ok(()),
        };
        written.map_err(|cause| self.failed(cause))
    }
}

impl Client {
    /// Gets a file and writes it to `out`. Returns how many bytes it had.
    ///
    /// # Errors
    /// If the server refuses or is lost, or with [`ClientError::Output`]; then some of it may have been
    /// written.
    pub fn get(&mut self, path: &OsStr, out: &mut dyn Write) -> Result<u64, Error> {
        let bytes = self.fetch(path, Arrived::default(), &mut Stream(out))?;
        out.flush().map_err(ClientError::Output)?;
        Ok(bytes)
    }

    /// Gets a file and saves it at `to`, where it appears when it is whole. Returns how many bytes
    /// it had.
    ///
    /// # Errors
    /// If the server refuses or is lost, or the file cannot be written; then what was there still
    /// is. With [`Options::resume`](crate::Options::resume) and [`Error::CutOff`], what has
    /// arrived is too, for another try.
    pub fn download(&mut self, path: &OsStr, to: &Path) -> Result<u64, Error> {
        if self.options.resume {
            match self.resume_download(path, to) {
                Err(error @ (Error::NotOurs(_) | Error::NotPrivate(_))) => {
                    above_bars(|| {
                        log::warn!("{error}; if this client ends, no other can go on");
                    });
                }
                done => return done,
            }
        }
        let mut file = NewFile { to, partial: None };
        let bytes = self.fetch(path, Arrived::default(), &mut file)?;
        let partial = file.partial.take();
        let finished = partial.map_or(Ok(()), PartialFile::finish);
        finished.map_err(|cause| file.failed(cause))?;
        Ok(bytes)
    }

    fn resume_download(&mut self, path: &OsStr, to: &Path) -> Result<u64, Error> {
        let server = self.server();
        let server = host_field(&server.host, server.port);
        let mut file = ResumedFile::open(to, server, target(path))?;
        let arrived = file.arrived()?;
        if arrived.bytes > 0 {
            let bytes = arrived.bytes;
            above_bars(|| log::debug!("{}: {bytes} bytes are here", shown(path)));
        }
        let bytes = self.fetch(path, arrived, &mut file);
        let error = match bytes.and_then(|bytes| file.finish().map(|()| bytes)) {
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        let is_wrong = matches!(error, Error::WrongDigest(_));
        match file.kept_bytes() {
            bytes @ 1.. if !is_wrong => Err(Error::CutOff {
                cause: Box::new(error),
                bytes,
                kept: Kept::Here,
            }),
            _ => {
                file.remove();
                Err(error)
            }
        }
    }

    /// Gets what has not arrived yet of a file. When the connection is lost, the rest is asked for,
    /// of the same version of the file. Returns how long the whole file is.
    fn fetch(
        &mut self,
        path: &OsStr,
        mut arrived: Arrived,
        to: &mut dyn Destination,
    ) -> Result<u64, Error> {
        let mut was_lost = false;
        for tries_left in (0..TRIES).rev() {
            let request = Request::new("GET", path).with_all(arrived.fields());
            let mut reply = match self.connection.ask(&request) {
                Ok(reply) => reply,
                // The server that was lost may need a moment.
                Err(error @ (Error::Lost { .. } | Error::Client(ClientError::Connect { .. })))
                    if was_lost && tries_left > 0 =>
                {
                    pause_after(path, &arrived, &error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            match (reply.head.status, arrived.bytes) {
                (206, 1..) if arrived.is_continued_by(&reply.head) => {}
                (416, 1..) if arrived.is_all(&reply.head) => {
                    let _ = self.connection.sentence(reply);
                    if self.confirm(path, &mut arrived)? {
                        return arrived.finish(path);
                    }
                    if !to.can_begin_again() {
                        return Err(Error::ChangedThere(shown(path).to_string()));
                    }
                    say_that_it_starts_over(path);
                    arrived = Arrived::default();
                    continue;
                }
                // It is asked for once more, without a range that could be misunderstood.
                (206 | 416, 1..) if to.can_begin_again() => {
                    say_that_it_starts_over(path);
                    let _ = self.connection.sentence(reply);
                    arrived = Arrived::default();
                    continue;
                }
                (200, _) if is_page_of_folder(path, &reply.head) => {
                    return Err(Error::IsFolder(shown(path).to_string()));
                }
                (200, bytes) if bytes == 0 || to.can_begin_again() => {
                    if bytes > 0 {
                        say_that_it_starts_over(path);
                    }
                    arrived = Arrived::default();
                    arrived.note(&reply.head);
                    to.begin(&arrived)?;
                }
                (200, _) => return Err(Error::ChangedThere(shown(path).to_string())),
                (status @ 200..=299, _) => return Err(unexpected(path, status)),
                (300..=399, _) if leads_to_folder(&target(path), &reply.head) => {
                    let _ = self.connection.sentence(reply);
                    return Err(Error::IsFolder(shown(path).to_string()));
                }
                _ => return Err(self.connection.refusal(path, reply)),
            }
            match self.copy(path, &mut reply, &mut arrived, to) {
                Ok(()) => {
                    self.connection.keep(reply, true);
                    return arrived.finish(path);
                }
                Err(Error::Lost { cause, .. }) if tries_left > 0 && arrived.can_go_on() => {
                    pause_after(path, &arrived, &cause);
                    was_lost = true;
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::lost(shown(path))(
            io::ErrorKind::UnexpectedEof.into(),
        ))
    }

    /// Whether what has arrived is all of the file that the server has. A part that was found here may
    /// be of anything: a refusal to give more of it says nothing about what is in it.
    fn confirm(&mut self, path: &OsStr, arrived: &mut Arrived) -> Result<bool, Error> {
        let request = Request::new("HEAD", path).with("Want-Repr-Digest", "sha-256=1");
        let reply = self.connection.ask(&request)?;
        let is_confirmed = arrived.is_confirmed_by(&reply.head);
        self.connection.keep(reply, true);
        Ok(is_confirmed)
    }

    /// Copies a body to where it goes. It knows how long it is: to end early is an error of its
    /// own.
    fn copy(
        &self,
        path: &OsStr,
        reply: &mut Reply,
        arrived: &mut Arrived,
        to: &mut dyn Destination,
    ) -> Result<(), Error> {
        let bytes = match reply.head.body {
            BodyLength::Bytes(bytes) => Some(arrived.bytes.saturating_add(bytes)),
            BodyLength::UntilClose => {
                let path = shown(path);
                above_bars(|| {
                    log::warn!(
                        "{path}: the server does not say how long it is; if the end is missing, \
                         nobody can tell"
                    );
                });
                None
            }
            _ => None,
        };
        let bar = Bar::new(self.options.show_progress, path, bytes);
        let mut body = reply.body();
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let read = match retry_interrupted(|| body.read(&mut piece)) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) => return Err(Error::lost(shown(path))(error)),
            };
            to.write(&piece[..read])?;
            arrived.add(&piece[..read]);
            bar.set(arrived.bytes);
        }
    }
}

/// Whether a reply is the list of a folder: a file has a version, or the time of its last change.
fn is_page_of_folder(path: &OsStr, head: &ResponseHead) -> bool {
    let is_file = ["etag", "last-modified"]
        .iter()
        .any(|name| head.field(name).is_some());
    target(path).ends_with('/') && !is_file
}

/// Says why it takes another try, and waits for a moment before that.
fn pause_after(path: &OsStr, arrived: &Arrived, cause: &dyn std::error::Error) {
    let (path, bytes) = (shown(path), arrived.bytes);
    above_bars(|| {
        log::warn!(
            "{path}: lost the connection after {bytes} bytes, going on from there: {}",
            with_causes(cause)
        );
    });
    thread::park_timeout(RETRY_PAUSE);
}

fn say_that_it_starts_over(path: &OsStr) {
    let path = shown(path);
    above_bars(|| log::warn!("{path}: what is here is of another version; starting over"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, fields: &str, want: bool) {
        let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
        let head = ResponseHead::read(&mut head.as_bytes(), "HEAD").unwrap();
        let got = is_page_of_folder(OsStr::new(path), &head);
        assert_eq!(got, want, "{path} {fields}");
    }

    #[test]
    fn a_folder_is_told_from_its_index_page() {
        check("a/", "Content-Type: text/html", true);
        check("/", "Vary: Accept", true);
        check("", "Vary: Accept", true);
        check("a/", "ETag: \"1\"", false);
        check("a/", "Last-Modified: Sat, 21 Nov 2026 05:50:24 GMT", false);
        check("a", "Content-Type: text/html", false);
    }
}
