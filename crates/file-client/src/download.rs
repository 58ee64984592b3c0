//! Downloads: to a stream, to a file, and to a file that another try can go on with.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::path::Path;
use std::thread;

use cli::exit::with_causes;
use proto::http::digest::{self, Digest, Hasher};
use proto::http::request::host_field;
use proto::http::{BodyLength, ResponseHead};
use proto::retry_interrupted;

use crate::Error;
use crate::client::{Client, RETRY_PAUSE, TRIES};
use crate::connection::{Reply, Request, target, unexpected};
use crate::error::Kept;
use crate::partial::PartialFile;
use crate::progress::{Bar, above_bars};
use crate::resumed::ResumedFile;
use crate::transfer::shown;

/// A file is read and written in pieces of up to so many bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// Where a download goes.
pub(crate) trait Destination {
    /// The server has agreed to give the file, from its first byte on; what has been written is
    /// forgotten.
    fn begin(&mut self, arrived: &Arrived) -> Result<(), Error>;

    /// Takes the next piece.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error>;

    /// Whether it can begin once more after something was written.
    fn can_begin_again(&self) -> bool {
        false
    }
}

/// A stream.
struct Stream<'a>(&'a mut dyn Write);

impl Destination for Stream<'_> {
    fn begin(&mut self, _: &Arrived) -> Result<(), Error> {
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.0.write_all(bytes).map_err(Error::Output)
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
    /// If the server refuses or is lost, or with [`Error::Output`]; then some of it may have been
    /// written.
    pub fn get(&mut self, path: &OsStr, out: &mut dyn Write) -> Result<u64, Error> {
        let bytes = self.fetch(path, Arrived::default(), &mut Stream(out))?;
        out.flush().map_err(Error::Output)?;
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
            return self.resume_download(path, to);
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
                Err(error @ (Error::Lost { .. } | Error::Connect(_)))
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
                    return arrived.finish(path);
                }
                // It is asked for once more, without a range that could be misunderstood.
                (206 | 416, 1..) if to.can_begin_again() => {
                    say_that_it_starts_over(path);
                    let _ = self.connection.sentence(reply);
                    arrived = Arrived::default();
                    continue;
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

/// What has arrived of a file, and how to go on with it.
#[derive(Default)]
pub(crate) struct Arrived {
    pub(crate) bytes: u64,
    pub(crate) hasher: Hasher,
    /// The version that it is of, if the server says so: a strong entity tag.
    pub(crate) etag: Option<String>,
    /// What the whole of it must have, if the server says so.
    pub(crate) digest: Option<Digest>,
}

impl Arrived {
    /// Takes in the next piece.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// The fields of a request for what is missing.
    fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![("Want-Repr-Digest", "sha-256=1".to_owned())];
        if let (1.., Some(etag)) = (self.bytes, &self.etag) {
            fields.push(("Range", format!("bytes={}-", self.bytes)));
            fields.push(("If-Range", etag.clone()));
        }
        fields
    }

    /// Whether what is missing can be asked for: only a strong tag says that the rest will fit.
    fn can_go_on(&self) -> bool {
        self.bytes > 0 && self.etag.is_some()
    }

    /// Notes what a reply says of the file.
    fn note(&mut self, head: &ResponseHead) {
        if let Some(etag) = strong_tag(head) {
            self.etag = Some(etag.to_owned());
        }
        self.digest = digest_in(head).or(self.digest);
    }

    /// Whether a reply with a part of a file is the rest of this one; then it is noted what else it
    /// says.
    fn is_continued_by(&mut self, head: &ResponseHead) -> bool {
        let etag = strong_tag(head);
        let digest = digest_in(head);
        let is_same = (etag.is_none() || etag == self.etag.as_deref())
            && (digest.is_none() || self.digest.is_none() || digest == self.digest);
        let is_rest = is_same && start_of_rest(head) == Some(self.bytes);
        if is_rest {
            self.note(head);
        }
        is_rest
    }

    /// Whether a reply that no more can be given means that there is no more: a range of another
    /// version would not have been looked at.
    fn is_all(&self, head: &ResponseHead) -> bool {
        head.field("content-range") == Some(&format!("bytes */{}", self.bytes))
    }

    /// How long the file is, if it is what the server says it is, as far as it says so.
    fn finish(self, path: &OsStr) -> Result<u64, Error> {
        match self
            .digest
            .is_none_or(|digest| digest == self.hasher.finish())
        {
            true => Ok(self.bytes),
            false => Err(Error::WrongDigest(shown(path).to_string())),
        }
    }
}

/// The digest that a reply gives of a file.
pub(crate) fn digest_in(head: &ResponseHead) -> Option<Digest> {
    digest::parse(head.field("repr-digest")?.as_bytes())
        .ok()
        .flatten()
}

fn strong_tag(head: &ResponseHead) -> Option<&str> {
    head.field("etag").filter(|etag| etag.starts_with('"'))
}

/// The first byte of a part of a file that goes up to the end of the file.
fn start_of_rest(head: &ResponseHead) -> Option<u64> {
    let range = head.field("content-range")?.strip_prefix("bytes ")?;
    let (part, whole) = range.split_once('/')?;
    let (start, end) = part.split_once('-')?;
    let bytes = end.parse::<u64>().ok()?.checked_add(1)?;
    let is_rest = whole == "*" || whole.parse() == Ok(bytes);
    is_rest.then(|| start.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &str) -> ResponseHead {
        let head = format!("HTTP/1.1 206 Partial Content\r\n{fields}\r\n\r\n");
        ResponseHead::read(&mut head.as_bytes(), "HEAD").unwrap()
    }

    fn arrived() -> Arrived {
        let mut arrived = Arrived {
            etag: Some("\"1\"".to_owned()),
            ..Arrived::default()
        };
        arrived.add(b"half");
        arrived
    }

    #[test]
    fn only_the_rest_of_the_same_version_is_the_rest() {
        let check = |fields: &str, want: bool| {
            assert_eq!(arrived().is_continued_by(&head(fields)), want, "{fields}");
        };
        check("Content-Range: bytes 4-7/8\r\nETag: \"1\"", true);
        check("Content-Range: bytes 4-7/8", true);
        check("Content-Range: bytes 4-7/*", true);
        check("Content-Range: bytes 4-7/8\r\nETag: \"2\"", false);
        let digest = |digest: Digest| digest::format(&digest);
        let with_digest = |digest: &str| {
            let mut arrived = arrived();
            arrived.digest = Some([1; 32]);
            let fields = format!("Content-Range: bytes 4-7/8\r\nRepr-Digest: {digest}");
            arrived.is_continued_by(&head(&fields))
        };
        assert!(with_digest(&digest([1; 32])) && !with_digest(&digest([2; 32])));
        check("Content-Range: bytes 3-7/8", false);
        check("Content-Range: bytes 40-47/48", false);
        check("Content-Range: bytes 4-6/8", false);
        check("Content-Range: bytes 4-18446744073709551615/0", false);
        check("Content-Range: bytes */4", false);
        check("ETag: \"1\"", false);
    }

    #[test]
    fn nothing_more_is_asked_for_without_a_strong_tag() {
        let names = |arrived: &Arrived| {
            let fields = arrived.fields().into_iter();
            fields.map(|(name, _)| name).collect::<Vec<_>>()
        };
        let wanted = ["Want-Repr-Digest", "Range", "If-Range"];
        assert_eq!(names(&arrived()), wanted);
        assert_eq!(names(&Arrived::default()), wanted[..1]);
        let mut weak = Arrived::default();
        weak.note(&head("ETag: W/\"1\""));
        weak.add(b"half");
        assert!(!weak.can_go_on());
        assert_eq!(names(&weak), wanted[..1]);
    }

    #[test]
    fn what_has_arrived_has_the_digest_that_was_given() {
        let finish = |digest: Digest| {
            let mut arrived = arrived();
            arrived.digest = Some(digest);
            arrived.finish(OsStr::new("a"))
        };
        assert_eq!(finish(Hasher::digest_of(&b"half"[..]).unwrap()).unwrap(), 4);
        assert!(matches!(finish([0; 32]), Err(Error::WrongDigest(_))));
        assert!(arrived().is_all(&head("Content-Range: bytes */4")));
        assert!(!arrived().is_all(&head("Content-Range: bytes */5")));
        assert!(!arrived().is_all(&head("A: b")));
    }
}
