//! What a download has received so far, and whether the server can give the rest of the same version.

use std::ffi::OsStr;
use std::time::{Duration, SystemTime};

use proto::http::digest::{self, Digest, Hasher};
use proto::http::{ResponseHead, date};

use crate::Error;
use crate::escaped::escaped;

/// Asks for the digest of the whole file.
pub(crate) const WANT_DIGEST: (&str, &str) = ("Want-Repr-Digest", "sha-256=1");

/// Where a download goes.
pub(crate) trait Destination {
    /// The server gives the file from its first byte on. What was written before is dropped.
    fn begin(&mut self, received: &Received) -> Result<(), Error>;

    /// Writes the next piece.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error>;

    /// Whether it can begin again after something was written.
    fn can_begin_again(&self) -> bool {
        false
    }
}

/// What has been received of a file, from its first byte on.
#[derive(Default)]
pub(crate) struct Received {
    pub(crate) bytes: u64,
    pub(crate) hasher: Hasher,
    /// The version of the file, if the server gives one: a strong entity tag.
    pub(crate) etag: Option<String>,
    /// The digest of the whole file, if the server gives one.
    pub(crate) digest: Option<Digest>,
    /// When it was last changed, in seconds since 1970, if the server says so.
    pub(crate) modified: Option<u64>,
}

/// A whole file.
pub(crate) struct Whole {
    pub(crate) bytes: u64,
    /// When it was last changed on the server, if that says so.
    pub(crate) modified: Option<SystemTime>,
}

impl Received {
    /// Adds the next piece.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// The fields of a request for what is missing.
    pub(crate) fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![(WANT_DIGEST.0, WANT_DIGEST.1.to_owned())];
        if let (1.., Some(etag)) = (self.bytes, &self.etag) {
            fields.push(("Range", format!("bytes={}-", self.bytes)));
            fields.push(("If-Range", etag.clone()));
        }
        fields
    }

    /// Whether what is missing can be asked for: only a strong tag tells that the rest will fit.
    pub(crate) fn can_resume(&self) -> bool {
        self.bytes > 0 && self.etag.is_some()
    }

    /// Takes over what a reply says of the file.
    pub(crate) fn note(&mut self, head: &ResponseHead) {
        if let Some(etag) = strong_tag(head) {
            self.etag = Some(etag.to_owned());
        }
        self.digest = digest_in(head).or(self.digest);
        self.modified = modified_in(head).or(self.modified);
    }

    /// Whether a 206 reply has the rest of this file. If so, takes over what else it says.
    pub(crate) fn is_continued_by(&mut self, head: &ResponseHead) -> bool {
        let etag = strong_tag(head);
        let digest = digest_in(head);
        let is_confirmed = match &etag {
            Some(_) => etag == self.etag.as_deref(),
            // Then the digest of the whole has to tell.
            None => digest.is_some(),
        };
        let is_same =
            is_confirmed && (digest.is_none() || self.digest.is_none() || digest == self.digest);
        let is_rest = is_same && start_of_rest(head) == Some(self.bytes);
        if is_rest {
            self.note(head);
        }
        is_rest
    }

    /// Whether a 416 reply says that the file ends here. (Of another version the server would not
    /// have looked at the range.)
    pub(crate) fn is_all(&self, head: &ResponseHead) -> bool {
        head.field("content-range") == Some(&format!("bytes */{}", self.bytes))
    }

    /// Whether a reply to `HEAD` describes a file of this version and length. If so, takes over what
    /// else it says.
    pub(crate) fn is_confirmed_by(&mut self, head: &ResponseHead) -> bool {
        let etag = strong_tag(head);
        let is_confirmed = head.status == 200
            && etag.is_some()
            && etag == self.etag.as_deref()
            && head.field("content-length") == Some(&self.bytes.to_string());
        if is_confirmed {
            self.note(head);
        }
        is_confirmed
    }

    /// The whole file.
    ///
    /// # Errors
    /// If its digest is not the one that the server gave.
    pub(crate) fn finish(self, path: &OsStr) -> Result<Whole, Error> {
        let digest = self.digest;
        if digest.is_some_and(|digest| digest != self.hasher.finish()) {
            return Err(Error::WrongDigest(escaped(path).to_string()));
        }
        Ok(Whole {
            bytes: self.bytes,
            modified: self.modified.and_then(time_of),
        })
    }
}

/// The moment that is this many seconds after the start of 1970, if the system has such times.
pub(crate) fn time_of(seconds: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// The digest that a reply gives of the whole file.
pub(crate) fn digest_in(head: &ResponseHead) -> Option<Digest> {
    let field = head.field("repr-digest")?;
    digest::parse(field.as_bytes()).ok().flatten()
}

/// When a reply says that the file was last changed, in seconds since 1970.
pub(crate) fn modified_in(head: &ResponseHead) -> Option<u64> {
    head.field("last-modified").and_then(date::parse)
}

fn strong_tag(head: &ResponseHead) -> Option<&str> {
    head.field("etag").filter(|etag| etag.starts_with('"'))
}

/// The first byte of a part of a file that ends where the file does.
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

    fn received() -> Received {
        let mut received = Received {
            etag: Some("\"1\"".to_owned()),
            ..Received::default()
        };
        received.add(b"half");
        received
    }

    #[test]
    fn only_the_rest_of_the_same_version_is_the_rest() {
        let check = |fields: &str, want: bool| {
            assert_eq!(received().is_continued_by(&head(fields)), want, "{fields}");
        };
        check("Content-Range: bytes 4-7/8\r\nETag: \"1\"", true);
        check("Content-Range: bytes 4-7/*\r\nETag: \"1\"", true);
        // Nothing says what it is of.
        check("Content-Range: bytes 4-7/8", false);
        check("Content-Range: bytes 4-7/8\r\nETag: W/\"1\"", false);
        check("Content-Range: bytes 4-7/8\r\nETag: \"2\"", false);
        let digest = |digest: Digest| digest::format(&digest);
        let with_digest = |digest: &str| {
            let mut received = received();
            received.digest = Some([1; 32]);
            let fields = format!("Content-Range: bytes 4-7/8\r\nRepr-Digest: {digest}");
            received.is_continued_by(&head(&fields))
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
    fn all_of_a_file_is_confirmed_by_its_version_and_its_length() {
        let check = |status: &str, fields: &str, want: bool| {
            let head = format!("HTTP/1.1 {status}\r\n{fields}\r\n\r\n");
            let head = ResponseHead::read(&mut head.as_bytes(), "HEAD").unwrap();
            assert_eq!(received().is_confirmed_by(&head), want, "{status} {fields}");
        };
        check("200 OK", "ETag: \"1\"\r\nContent-Length: 4", true);
        check("200 OK", "ETag: \"2\"\r\nContent-Length: 4", false);
        check("200 OK", "ETag: \"1\"\r\nContent-Length: 5", false);
        check("200 OK", "ETag: \"1\"", false);
        check("200 OK", "Content-Length: 4", false);
        check("404 Not Found", "ETag: \"1\"\r\nContent-Length: 4", false);
        // The digest that the server gives counts, not the one that stood in a state.
        let mut received = received();
        received.digest = Some(Hasher::digest_of(&b"half"[..]).unwrap());
        let digest = digest::format(&[1; 32]);
        let mut head = head(&format!(
            "ETag: \"1\"\r\nContent-Length: 4\r\nRepr-Digest: {digest}"
        ));
        head.status = 200;
        assert!(received.is_confirmed_by(&head));
        assert!(matches!(
            received.finish(OsStr::new("a")),
            Err(Error::WrongDigest(_))
        ));
    }

    #[test]
    fn nothing_more_is_asked_for_without_a_strong_tag() {
        let names = |received: &Received| {
            let fields = received.fields().into_iter();
            fields.map(|(name, _)| name).collect::<Vec<_>>()
        };
        let wanted = ["Want-Repr-Digest", "Range", "If-Range"];
        assert_eq!(names(&received()), wanted);
        assert_eq!(names(&Received::default()), wanted[..1]);
        let mut weak = Received::default();
        weak.note(&head("ETag: W/\"1\""));
        weak.add(b"half");
        assert!(!weak.can_resume());
        assert_eq!(names(&weak), wanted[..1]);
    }

    #[test]
    fn what_has_arrived_has_the_digest_that_was_given() {
        let finish = |digest: Digest| {
            let mut received = received();
            received.digest = Some(digest);
            received.finish(OsStr::new("a"))
        };
        let whole = finish(Hasher::digest_of(&b"half"[..]).unwrap()).unwrap();
        assert_eq!((whole.bytes, whole.modified), (4, None));
        assert!(matches!(finish([0; 32]), Err(Error::WrongDigest(_))));
        assert!(received().is_all(&head("Content-Range: bytes */4")));
        assert!(!received().is_all(&head("Content-Range: bytes */5")));
        assert!(!received().is_all(&head("A: b")));
    }
}
