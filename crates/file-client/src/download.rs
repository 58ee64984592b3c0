//! Downloads: to a stream, to a file, and to a file that a later try can resume.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::path::Path;
use std::thread;
use std::time::SystemTime;

use cli::ClientError;
use cli::escape::Escaped;
use cli::exit::with_causes;
use proto::http::{BodyLength, ResponseHead};
use proto::retry_interrupted;

use crate::Error;
use crate::client::{Client, RETRY_PAUSE, TRIES};
use crate::connection::{Reply, Request, target, unexpected};
use crate::error::Kept;
use crate::escaped::escaped;
use crate::location::{is_page, leads_to_folder};
use crate::progress::above_bars;
use crate::received::{Destination, Received, WANT_DIGEST, Whole};
use crate::replacement::{Replacement, SaveTo};
use crate::resumable_download::ResumableFile;

/// How much of a file is read and written at once, in bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// A stream.
struct Stream<'a>(&'a mut dyn Write);

impl Destination for Stream<'_> {
    fn begin(&mut self, _: &Received) -> Result<(), Error> {
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        Ok(self.0.write_all(bytes).map_err(ClientError::Output)?)
    }
}

/// A file, which is made when the server has agreed.
struct NewFile<'a> {
    to: SaveTo<'a>,
    replacement: Option<Replacement>,
}

impl NewFile<'_> {
    fn finish(self, modified: Option<SystemTime>) -> Result<(), Error> {
        let finish = |replacement: Replacement| replacement.finish(modified);
        let finished = self.replacement.map_or(Ok(()), finish);
        finished.map_err(Error::write(&self.to.path()))
    }
}

impl Destination for NewFile<'_> {
    fn begin(&mut self, _: &Received) -> Result<(), Error> {
        let replacement = Replacement::create(self.to);
        self.replacement = Some(replacement.map_err(Error::write(&self.to.path()))?);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = match &mut self.replacement {
            Some(replacement) => replacement.write_all(bytes),
            None => Ok(()),
        };
        written.map_err(|cause| Error::write(&self.to.path())(cause))
    }
}

impl Client {
    /// Gets a file and writes it to `out`. Returns its length in bytes.
    ///
    /// # Errors
    /// If the server refuses or is lost, or with [`ClientError::Output`]; then some of it may have
    /// been written.
    pub fn get(&mut self, path: &OsStr, out: &mut dyn Write) -> Result<u64, Error> {
        let whole = self.fetch(path, Received::default(), &mut Stream(out))?;
        out.flush().map_err(ClientError::Output)?;
        Ok(whole.bytes)
    }

    /// Gets a file and saves it at `target`, where it appears when it is whole, with the time of its
    /// last change on the server. Returns its length in bytes.
    ///
    /// # Errors
    /// If the server refuses or is lost, or the file cannot be written; then what was at `target` is
    /// unchanged. With [`Options::resume`](crate::Options::resume) and [`Error::CutOff`], what was
    /// received is kept for a later try.
    pub fn download(&mut self, path: &OsStr, target: &Path) -> Result<u64, Error> {
        self.save(path, SaveTo::Path(target), true)
    }

    /// The same for a place in an open folder. `can_resume` says whether it is worth its sidecar files.
    pub(crate) fn save(
        &mut self,
        path: &OsStr,
        to: SaveTo,
        can_resume: bool,
    ) -> Result<u64, Error> {
        if self.options.resume && can_resume {
            match self.resume_download(path, to) {
                Err(error @ (Error::NotOurs(_) | Error::NotPrivate(_))) => {
                    above_bars(|| {
                        log::warn!("{error}; if this client ends, no other can continue");
                    });
                }
                // In a folder the other files can be resumed.
                Err(Error::NameTooLong { .. }) if matches!(to, SaveTo::Place(_)) => {}
                done => return done,
            }
        }
        let mut file = NewFile {
            to,
            replacement: None,
        };
        let whole = self.fetch(path, Received::default(), &mut file)?;
        file.finish(whole.modified)?;
        Ok(whole.bytes)
    }

    fn resume_download(&mut self, path: &OsStr, to: SaveTo) -> Result<u64, Error> {
        let server = self.server().address.to_string();
        let mut file = ResumableFile::open(to, server, target(path))?;
        let received = file.received()?;
        if received.bytes > 0 {
            let bytes = received.bytes;
            above_bars(|| log::debug!("{}: {bytes} bytes are here", escaped(path)));
        }
        let whole = self.fetch(path, received, &mut file);
        let finish = |whole: Whole| file.finish(whole.modified).map(|()| whole.bytes);
        let error = match whole.and_then(finish) {
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        let is_wrong = matches!(error, Error::WrongDigest(_));
        match file.kept_bytes() {
            bytes @ 1.. if !is_wrong => Err(Error::CutOff {
                cause: Box::new(error),
                kept: Kept::Here(bytes),
            }),
            _ => {
                file.remove();
                Err(error)
            }
        }
    }

    /// Gets what is missing of a file. When the connection is lost, asks for the rest of the same
    /// version.
    fn fetch(
        &mut self,
        path: &OsStr,
        mut received: Received,
        to: &mut dyn Destination,
    ) -> Result<Whole, Error> {
        let mut was_lost = false;
        for tries_left in (0..TRIES).rev() {
            // Without it, a server may choose any encoding (RFC 9110 section 12.5.3).
            let request = Request::new("GET", path)
                .with("Accept-Encoding", "identity")
                .with_all(received.fields());
            let mut reply = match self.connection.ask(&request) {
                Ok(reply) => reply,
                // The server that was lost may need a moment.
                Err(error) if error.is_loss() && was_lost && tries_left > 0 => {
                    pause_after(&received, &error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            if let Some(encoding) = reply.head.field("content-encoding")
                && matches!(reply.head.status, 200..=299)
                && !encoding.eq_ignore_ascii_case("identity")
            {
                return Err(Error::Encoded {
                    path: escaped(path).to_string(),
                    encoding: Escaped(encoding).to_string(),
                });
            }
            match (reply.head.status, received.bytes) {
                (206, 1..) if received.is_continued_by(&reply.head) => {}
                (416, 1..) if received.is_all(&reply.head) => {
                    let _ = self.connection.sentence(reply);
                    if self.confirm(path, &mut received)? {
                        return received.finish(path);
                    }
                    if !to.can_begin_again() {
                        return Err(Error::ChangedOnServer(escaped(path).to_string()));
                    }
                    warn_of_new_start(path);
                    received = Received::default();
                    continue;
                }
                // The next request has no range that could be misunderstood.
                (206 | 416, 1..) if to.can_begin_again() => {
                    warn_of_new_start(path);
                    let _ = self.connection.sentence(reply);
                    received = Received::default();
                    continue;
                }
                (200, _) if is_page_of_folder(path, &reply.head) => {
                    return Err(Error::IsFolder(escaped(path).to_string()));
                }
                (200, bytes) if bytes == 0 || to.can_begin_again() => {
                    if bytes > 0 {
                        warn_of_new_start(path);
                    }
                    received = Received::default();
                    received.note(&reply.head);
                    to.begin(&received)?;
                }
                (200, _) => return Err(Error::ChangedOnServer(escaped(path).to_string())),
                (status @ 200..=299, _) => return Err(unexpected(path, status)),
                (300..=399, _) if leads_to_folder(&target(path), &reply.head) => {
                    let _ = self.connection.sentence(reply);
                    return Err(Error::IsFolder(escaped(path).to_string()));
                }
                _ => return Err(self.connection.refusal(path, reply)),
            }
            match self.copy(path, &mut reply, &mut received, to) {
                Ok(()) => {
                    self.connection.keep(reply, true);
                    return received.finish(path);
                }
                Err(error) if error.is_loss() && tries_left > 0 && received.can_resume() => {
                    pause_after(&received, &error);
                    was_lost = true;
                }
                Err(error) => return Err(error),
            }
        }
        let end = io::ErrorKind::UnexpectedEof;
        Err(Error::lost(escaped(path))(end.into()))
    }

    /// Whether what was received is the whole file that the server has. A 416 reply alone does not
    /// tell: a part that was found here may be of anything.
    fn confirm(&mut self, path: &OsStr, received: &mut Received) -> Result<bool, Error> {
        let request = Request::new("HEAD", path).with(WANT_DIGEST.0, WANT_DIGEST.1);
        let reply = self.connection.ask(&request)?;
        let is_confirmed = received.is_confirmed_by(&reply.head);
        self.connection.keep(reply, true);
        Ok(is_confirmed)
    }

    /// Copies a body to its destination. A body that ends early is an error of the stream.
    fn copy(
        &self,
        path: &OsStr,
        reply: &mut Reply,
        received: &mut Received,
        to: &mut dyn Destination,
    ) -> Result<(), Error> {
        let bytes = match reply.head.body {
            BodyLength::Bytes(bytes) => Some(received.bytes.saturating_add(bytes)),
            BodyLength::UntilClose => {
                let path = escaped(path);
                above_bars(|| {
                    log::warn!("{path}: the server gives no length; a missing end goes unnoticed");
                });
                None
            }
            BodyLength::None | BodyLength::Chunked => None,
        };
        let bar = self.bar(path, bytes);
        bar.set(received.bytes);
        let mut body = reply.body();
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let read = retry_interrupted(|| body.read(&mut piece));
            let read = read.map_err(Error::lost(escaped(path)))?;
            if read == 0 {
                return Ok(());
            }
            to.write(&piece[..read])?;
            received.add(&piece[..read]);
            bar.set(received.bytes);
        }
    }
}

/// Whether a reply is the list of a folder.
fn is_page_of_folder(path: &OsStr, head: &ResponseHead) -> bool {
    target(path).ends_with('/') && is_page(head)
}

/// Says why another try is needed, and waits a moment before it.
fn pause_after(received: &Received, error: &Error) {
    let bytes = received.bytes;
    above_bars(|| log::warn!("{}; continuing after {bytes} bytes", with_causes(error)));
    thread::park_timeout(RETRY_PAUSE);
}

fn warn_of_new_start(path: &OsStr) {
    let path = escaped(path);
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
